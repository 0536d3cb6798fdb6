"""Where in a container nothing can be seen: a mask, not a claim of what is there.

Insertions darker than 3 % of the open beam are found by chance only, so no claim is made there. A single lighter pixel
in the dark is noise or a crack that shows nothing either: the mask is what most of a small window says.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Finding, Tier

from .cargo_grid import CargoGrid, Rect

Array: TypeAlias = NDArray[Any]

KIND = "opaque"

#: Side of the window whose majority decides, in pixels of the grid: 5 cm of a container of 2.6 m on 384 rows.
_WINDOW = 7


class Uninspectable(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one container in which nothing can be seen.

    share : of the cargo area, 0..1; of_load : of what of the cargo area is cargo, 0..1
    rows, columns, packed : the mask on the straightened container, bits row by row as numpy packs them
    to_grid : the nine numbers, row by row, of the matrix from (channel, column) of the radiograph to the grid
    """

    share: float
    of_load: float
    rows: int
    columns: int
    packed: bytes
    to_grid: tuple[float, ...]

    @property
    def grid(self) -> Array:
        """The mask on the straightened container, (rows, columns) bool, roof on top."""
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.rows * self.columns)
        return bits.reshape(self.rows, self.columns).astype(np.bool_)

    def mask(self, columns: int, channels: int) -> Array:
        """Return it in a radiograph's own pixels, (columns, channels) bool; False outside the container."""
        matrix = np.linalg.inv(np.array(self.to_grid).reshape(3, 3))
        grid = self.grid.astype(np.uint8)
        return np.asarray(cv2.warpPerspective(grid, matrix, (channels, columns), flags=cv2.INTER_NEAREST) != 0)

    def moved(self, columns: int) -> Uninspectable:
        """Return the same in a radiograph that has `columns` more columns in front."""
        back = np.array([(1.0, 0.0, 0.0), (0.0, 1.0, -columns), (0.0, 0.0, 1.0)])
        matrix = np.array(self.to_grid).reshape(3, 3) @ back
        return msgspec.structs.replace(self, to_grid=tuple(float(v) for v in matrix.ravel()))


def dark_mask(transmission: Array, opaque_t: float) -> Array:
    """Return (rows, columns) bool: nothing can be seen there.

    transmission : (rows, columns) float32, sampled so that the window of the majority is about 5 cm
    """
    dark: Array = (transmission < opaque_t).astype(np.uint8)
    solid: Array = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    most: Array = cv2.medianBlur(dark, _WINDOW)
    return np.asarray((most != 0) | (solid != 0))


def uninspectable(cargo: CargoGrid) -> Uninspectable:
    """Return where in a container nothing can be seen."""
    mask = dark_mask(cargo.transmission, cargo.opaque_t)
    inside = mask[cargo.inner]
    loaded = cargo.depth[cargo.inner] > min(-np.log(cargo.p.load_t), cargo.wall - np.log(cargo.p.load_ratio))
    return Uninspectable(
        share=float(inside.mean()),
        of_load=float((inside & loaded).sum() / max(int(loaded.sum()), 1)),
        rows=mask.shape[0],
        columns=mask.shape[1],
        packed=np.packbits(mask).tobytes(),
        to_grid=tuple(float(v) for v in np.asarray(cargo.to_grid).ravel()),
    )


def opaque_part(cargo: CargoGrid, unseen: Uninspectable) -> list[Finding]:
    """Return the finding that says what could not be seen; none where it is next to nothing.

    It asks for a review where much of the cargo area or most of the load is dark: a low load in a high container is no
    better seen than a full one.
    """
    p = cargo.p
    if unseen.share < p.opaque_note_share:
        return []
    at = _bulk(unseen.grid[cargo.inner], cargo.inner[0].start, cargo.inner[1].start)
    kind = "transmission" if cargo.physical else "display grey value"
    reason = (
        f"could not be seen: {unseen.share:.0%} of the cargo area ({unseen.of_load:.0%} of the load) has a {kind} "
        f"below {cargo.opaque_t:.3f}, and nothing is said of what is there; most of it lies {_span(cargo, at)}"
    )
    much = unseen.share >= p.opaque_review_share or unseen.of_load >= p.opaque_load_share
    tier: Tier = "review" if much else "note"
    return [Finding(kind=KIND, score=unseen.share, reason=reason, tier=tier, where=cargo.box(at))]


def _bulk(mask: Array, y: int, x: int) -> Rect:
    """Return the grid rectangle that holds the mask but for its outermost 2 % on every side: specks do not widen it."""
    spans = []
    for axis in (1, 0):
        run = np.cumsum(mask.sum(axis=axis))
        first, last = (int(np.searchsorted(run, share * run[-1])) for share in (0.02, 0.98))
        spans.append((first, last + 1))
    (y0, y1), (x0, x1) = spans
    return x + x0, y + y0, x + min(x1, mask.shape[1]), y + min(y1, mask.shape[0])


def _span(cargo: CargoGrid, at: Rect) -> str:
    """Say from where to where a grid rectangle reaches."""
    rows, columns = cargo.depth.shape
    x0, x1, low, high = at[0] / columns, at[2] / columns, 1 - at[3] / rows, 1 - at[1] / rows
    detector = cargo.radiograph.detector
    if detector.column_pitch_mm is None or detector.channel_pitch_mm is None:
        return (
            f"between {100 * x0:.0f} and {100 * x1:.0f} % of the length from the left, {100 * low:.0f} and "
            f"{100 * high:.0f} % of the height above the floor"
        )
    length = (cargo.frame.right - cargo.frame.left) * detector.column_pitch_mm / 1000
    height = cargo.frame.height * detector.channel_pitch_mm / 1000
    return (
        f"between {length * x0:.1f} and {length * x1:.1f} m from the left end, {height * low:.1f} and "
        f"{height * high:.1f} m above the floor"
    )
