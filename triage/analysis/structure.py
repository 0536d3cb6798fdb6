"""The parts of a container that every container has, as masks: they have the contrast of what is searched for.

All are measured in the straightened container. End frames: dark columns at an end, up to where the head of the box is
lightest. Roof: the rail and what hangs within it. Floor: planks, cross-members and rails, up to where the ticks of the
cross-members end. Cooling machinery: at one end only, behind the end frame, a chamber with motors, compressor and
controls one above the other: restless from top to bottom, as neither walls nor goods nor doors are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .cargo_grid import CargoGrid

Array: TypeAlias = NDArray[Any]

END_FRAME, ROOF, FLOOR, MACHINERY = 1, 2, 4, 8
"""Bits of the mask; where parts overlap both are set."""
_WORDS = {
    MACHINERY: "in the cooling machinery", END_FRAME: "in the end frame", FLOOR: "in the floor", ROOF: "under the roof",
}  # fmt: skip

#: Largest share of the length an end frame with its doors and hinges takes, and of the height a roof. Cross-members of
#: 150 mm under planks of 28 mm are 6 to 7 % of the height, cooled boxes' floors 9 %.
_MOST_END, _MOST_ROOF, _FLOOR = 0.035, 0.08, (0.04, 0.14)
#: Where machinery is looked for, as shares of the length: a chamber of 40 to 45 cm behind the end frame is that in 40
#: feet, and in 20 feet about twice; and how far it may reach.
_LOOK, _REACH = (0.013, 0.033), 0.09
#: Shortest share of the length a chamber takes, and the usual one where no bulkhead is seen.
_CALM = (0.024, 0.04)
#: Mean change of -ln T from row to row (1/384 of the height) of machinery, and how much more that is than at the other
#: end. Machinery of real scans: .037-.055, other ends and other boxes: .003-.028; four small ones lie between.
_UNREST, _RATIO = 0.032, 1.5


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """Extents of the structure, as shares of the straightened container's length or height.

    left, right : end frames; roof, floor : from the top and from the bottom
    machinery : the end with cooling machinery, None where none is seen; machinery_share : of the length, from that end
    """

    left: float
    right: float
    roof: float
    floor: float
    machinery: Literal["left", "right"] | None = None
    machinery_share: float = 0.0

    def mask(self, rows: int, columns: int) -> Array:
        """Return (rows, columns) uint8 of a straightened container, roof on top: the bits above, 0 for cargo area."""
        mask: Array = np.zeros((rows, columns), np.uint8)
        mask[: round(self.roof * rows)] |= ROOF
        mask[rows - round(self.floor * rows) :] |= FLOOR
        mask[:, : round(self.left * columns)] |= END_FRAME
        mask[:, columns - round(self.right * columns) :] |= END_FRAME
        wide = round(self.machinery_share * columns)
        if self.machinery == "left":
            mask[:, :wide] |= MACHINERY
        elif self.machinery == "right":
            mask[:, columns - wide :] |= MACHINERY
        return mask

    def part_at(self, at: tuple[int, int, int, int], rows: int, columns: int) -> str:
        """Say in which part most of a rectangle x0, y0, x1, y1 of a straightened container lies, "" in none."""
        x0, y0, x1, y1 = at
        inside = self.mask(rows, columns)[y0:y1, x0:x1]
        return next((words for bit, words in _WORDS.items() if (inside & bit).astype(bool).mean() > 0.5), "")


def structure_of(cargo: CargoGrid) -> Structure:
    """Return where the structure of a straightened container is."""
    depth = cargo.depth
    sides = (depth, depth[:, ::-1])
    left, right = (_end_frame(side, cargo.wall) / depth.shape[1] for side in sides)
    unrest = [_unrest(side) for side in sides]
    looked = [float(u[slice(*(round(share * depth.shape[1]) for share in _LOOK))].mean()) for u in unrest]
    machinery: Literal["left", "right"] | None = None
    share = 0.0
    if max(looked) >= _UNREST and max(looked) >= _RATIO * min(looked):
        which = int(np.argmax(looked))
        machinery = "right" if which else "left"
        share = _chamber(unrest[which], looked[which], depth.shape[1])
    return Structure(
        left=left,
        right=right,
        roof=_roof(depth) / depth.shape[0],
        floor=_floor(depth) / depth.shape[0],
        machinery=machinery,
        machinery_share=share,
    )


def _chamber(unrest: Array, looked: float, columns: int) -> float:
    """Return how far machinery reaches, as a share of the length: to the bulkhead, where it is calm for the first time.

    Goods that stand right behind the bulkhead may be as restless: then it is as long as such chambers are in 40 feet.
    """
    from_column = round(_CALM[0] * columns)
    calm = np.flatnonzero(cv2.blur(unrest[None], (3, 1))[0][from_column:] < 0.6 * looked)
    return float(from_column + calm[0]) / columns if calm.size else _CALM[1]


def _unrest(depth: Array) -> Array:
    """Return how much -ln T changes from row to row in each column from the left, as far as machinery reaches."""
    rows, columns = depth.shape
    body = np.minimum(depth[round(0.09 * rows) : round(0.85 * rows), : max(4, round(_REACH * columns))], 3.0)
    change = np.abs(np.diff(cv2.blur(np.ascontiguousarray(body), (3, 3)), axis=0)) * (rows / 384)
    return np.asarray(change.mean(axis=0))


def _end_frame(depth: Array, wall: float) -> int:
    """Return how many columns from the left belong to the end frame.

    Looked at under the roof, where loads seldom reach. Goods or machinery right behind it make the dark go on: then it
    ends where that is lightest.
    """
    rows, columns = depth.shape
    most = max(4, round(_MOST_END * columns))
    level = np.median(depth[round(0.09 * rows) : round(0.3 * rows), :most], axis=0)
    darkest = int(np.argmax(level[: max(2, most // 2)]))
    if level[darkest] < wall + 0.25:
        return 0
    behind = level[darkest:]
    light = np.flatnonzero(behind < wall + 0.25)
    lightest = int(np.argmin(behind))
    return darkest + (int(light[0]) if light.size else lightest)


def _roof(depth: Array) -> int:
    """Return how many rows from the top belong to the roof: darker than the lightest rows right below it."""
    rows, columns = depth.shape
    most = round(_MOST_ROOF * rows)
    level = np.percentile(depth[: 2 * most, columns // 12 : -columns // 12], 30, axis=1)
    dark = np.flatnonzero(level[:most] > level[most:].min() + 0.06)
    return int(dark[-1]) + 1 if dark.size and dark[-1] + 1 < most else round(0.03 * rows)


def _floor(depth: Array) -> int:
    """Return how many rows from the bottom belong to the floor: up to where the ticks of its cross-members end."""
    rows, columns = depth.shape
    inner = np.ascontiguousarray(depth[:, columns // 16 : -columns // 16])
    size = max(3, round(0.04 * rows)) | 1
    marks: Array = cv2.morphologyEx(cv2.blur(inner, (1, 3)), cv2.MORPH_TOPHAT, np.ones((1, size), np.uint8))
    ticks = marks.mean(axis=1)
    low, most = round(_FLOOR[0] * rows), round(_FLOOR[1] * rows)
    strip = ticks[-most:][::-1]
    weak = np.flatnonzero(strip[low:] < 0.5 * float(np.percentile(strip, 80)))
    return int(low + weak[0] if weak.size else most)
