"""The parts of a container that every container has, as masks: they have the contrast of what is searched for.

All are measured in the straightened container. End frames: dark columns at an end, from the end inwards. Roof: the rail
and what hangs within it, dark rows from the top. Floor: planks, cross-members and rails, up to the deck. Cooling
machinery: at one end only, behind the end frame, a chamber closed by a bulkhead: darker than the walls above the load
and restless from top to bottom.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from .cargo_grid import CargoGrid

Array: TypeAlias = NDArray[Any]

END_FRAME, ROOF, FLOOR, MACHINERY = 1, 2, 4, 8
"""Bits of the mask; where parts overlap both are set."""

#: Largest share of the length an end frame with its doors' hinges can have, and of the height a roof and a floor.
_MOST_END, _MOST_ROOF, _MOST_FLOOR = 0.035, 0.08, 0.2
#: Machinery chambers are 40 to 50 cm long: 3 to 8 % of 40 and 20 feet, the end frame included.
_MACHINERY = (0.024, 0.085)


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


def structure_of(cargo: CargoGrid) -> Structure:
    """Return where the structure of a straightened container is."""
    depth = cargo.depth
    ends = [_end_frame(side, cargo.wall) for side in (depth, depth[:, ::-1])]
    left, right = (cells / depth.shape[1] for cells in ends)
    chambers = [_chamber(side, cargo.wall) for side in (depth, depth[:, ::-1])]
    machinery: Literal["left", "right"] | None = None
    share = 0.0
    if (chambers[0] > 0) != (chambers[1] > 0):
        machinery = "left" if chambers[0] else "right"
        share = max(chambers) / depth.shape[1]
    return Structure(
        left=left,
        right=right,
        roof=_roof(depth, cargo.wall) / depth.shape[0],
        floor=_floor(depth) / depth.shape[0],
        machinery=machinery,
        machinery_share=share,
    )


def _head(depth: Array) -> Array:
    """Return the part of the height that loads seldom reach and no rail crosses."""
    rows = depth.shape[0]
    return depth[round(0.09 * rows) : round(0.3 * rows)]


def _end_frame(depth: Array, wall: float) -> int:
    """Return how many columns from the left belong to the end frame."""
    level = np.median(_head(depth), axis=0)
    most = max(2, round(_MOST_END * depth.shape[1]))
    dark = np.flatnonzero(level[:most] > wall + 0.25)
    return int(dark[-1]) + 1 if dark.size else 0


def _chamber(depth: Array, wall: float) -> int:
    """Return how many columns from the left a chamber of machinery takes, 0 where there is none.

    Its bulkhead is an upright dark line over the whole height, at the distance bulkheads have; between it and the end
    frame it is darker than the wall, and restless.
    """
    rows, columns = depth.shape
    low, most = (round(share * columns) for share in _MACHINERY)
    body = depth[round(0.09 * rows) : round(0.8 * rows), : most + max(3, columns // 100)]
    if body.shape[1] < 12 or low < 4:
        return 0
    # restless: blobs along the height, in columns behind the end frame
    unrest = np.abs(np.diff(cv2.blur(body, (3, 3)), axis=0)).mean(axis=0)
    level = np.median(_head(depth)[:, : body.shape[1]], axis=0)
    frame = _end_frame(depth, wall)
    return _bulkhead(level, unrest, wall, max(frame, 2), low, most)


def _bulkhead(level: Array, unrest: Array, wall: float, frame: int, low: int, most: int) -> int:
    inside = slice(frame, most)
    if level[inside].size < 4:
        return 0
    dark = np.flatnonzero(level[low:most] > wall + 0.15)
    if not dark.size:
        return 0
    end = low + int(dark[-1]) + 1
    chamber = slice(frame, max(end - 2, frame + 1))
    return end if level[chamber].mean() > wall + 0.1 and unrest[chamber].mean() > 0.02 else 0


def _roof(depth: Array, wall: float) -> int:
    """Return how many rows from the top belong to the roof."""
    columns = depth.shape[1]
    level = np.percentile(depth[:, columns // 12 : -columns // 12], 30, axis=1)
    most = round(_MOST_ROOF * depth.shape[0])
    dark = np.flatnonzero(level[:most] > wall + 0.08)
    return int(dark[-1]) + 1 if dark.size else 0


def _floor(depth: Array) -> int:
    """Return how many rows from the bottom belong to the floor: up to where the ticks of its cross-members end."""
    rows, columns = depth.shape
    inner = np.ascontiguousarray(depth[:, columns // 16 : -columns // 16])
    size = max(3, round(0.04 * rows)) | 1
    ticks = cv2.morphologyEx(cv2.blur(inner, (1, 3)), cv2.MORPH_TOPHAT, np.ones((1, size), np.uint8)).mean(axis=1)
    most = round(_MOST_FLOOR * rows)
    strip = ticks[-most:]
    strong = np.flatnonzero(strip > 0.5 * np.percentile(strip, 80))
    return int(most - strong[0]) if strong.size and strip.max() > 0.03 else 0
