"""The straightened container in cells of about 2 cm: what questions about things as large as a hand are asked of.

A cell is as long as it is high where the sampling is known, so that sizes and shapes can be told. Where it is not,
pixels are taken for square and the container for 2.7 m high; most are 2.6 or 2.9.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .cargo_grid import CargoGrid, Rect
from .structure import structure_of

Array: TypeAlias = NDArray[Any]

ROWS = 132
USUAL_HEIGHT_MM = 2700.0
ROOF_BAND = 0.3
"""-ln T by which a bare row may lie above the wall: the roof, seen from below, adds up to 0.2."""
FLOOR_ROWS = 8
"""So much higher than the ticks of its members, in cells, a floor may begin: planks, and what blurs them."""
FREE = 0.12
"""-ln T above the bare container below which a cell is free."""


class Blob(NamedTuple):
    """A connected region: x, y, w, h of its box, its number of cells, and (h, w) bool which of them are its own."""

    x: int
    y: int
    w: int
    h: int
    area: int
    own: Array

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of its box."""
        return slice(self.y, self.y + self.h), slice(self.x, self.x + self.w)


class Cells:
    """The container in cells.

    depth : (ROWS, columns) float32, -ln T
    above : the same above the bare container, of which every row has its own depth
    seen : (ROWS, columns) bool, False where nothing can be seen
    cell_mm : side of a cell; told : the sampling is known, so that this is more than a guess
    roof, floor : rows of the cargo area, half-open; left, right : columns likewise, end frames and machinery left out
    machinery : columns between which there is none of a reefer's; from end to end where there is none at all
    """

    def __init__(self, cargo: CargoGrid) -> None:
        self.cargo = cargo
        detector = cargo.radiograph.detector
        rows, columns = cargo.depth.shape
        across, along = detector.channel_pitch_mm, detector.column_pitch_mm
        self.told = across is not None and along is not None
        height = cargo.frame.height * across if across is not None else USUAL_HEIGHT_MM
        length = height * columns / rows
        if across is not None and along is not None:
            length = (cargo.frame.right - cargo.frame.left) * along
        self.cell_mm = height / ROWS
        wide = int(np.clip(round(length / self.cell_mm), 32, 2000))
        small = cv2.resize(cargo.transmission, (wide, ROWS), interpolation=cv2.INTER_AREA)
        self.depth = -np.log(np.clip(small, cargo.opaque_t, 1.0))
        self.seen: Array = small > 1.05 * cargo.opaque_t
        p = cargo.p
        self.roof, self.left = round(p.roof_share * ROWS), round(p.end_share * wide)
        self.right = wide - self.left
        self.machinery = (0, wide)
        structure = structure_of(cargo)
        if structure.machinery is not None:
            share = round(structure.machinery_share * wide)
            self.machinery = (share, wide) if structure.machinery == "left" else (0, wide - share)
            self.left, self.right = max(self.left, self.machinery[0]), min(self.right, self.machinery[1])
        inner = self.depth[:, self.left : self.right]
        # a full load leaves little of the wall to be seen: a hundredth is enough to know it by
        wall = float(np.percentile(inner[self.roof : round((1 - p.floor_share) * ROWS)], 1))
        bare, most = np.percentile(inner, 2, axis=1), wall + ROOF_BAND
        self.above = self.depth - np.clip(bare, wall, most).astype(np.float32)[:, np.newaxis]
        self.floor = _floor(self.above[:, self.left : self.right], round((1 - p.floor_share) * ROWS))
        if structure.floor:  # low goods all along look like a floor, but the ticks of its members tell where that is
            self.floor = max(self.floor, round((1 - structure.floor) * ROWS) - FLOOR_ROWS)

    @property
    def solid(self) -> Array:
        """(ROWS, columns) bool, not free; above the roof and under the floor nothing is."""
        solid: Array = self.above > FREE
        solid[: self.roof] = solid[self.floor :] = False
        return solid

    def cells(self, mm: float) -> int:
        """Return a length in cells, at least 1."""
        return max(1, round(mm / self.cell_mm))

    def square_m(self, area: float) -> float:
        """Return an area in m2."""
        return area * (self.cell_mm / 1000) ** 2

    def at(self, x0: int, y0: int, x1: int, y1: int) -> Rect:
        """Return a rectangle of cells as one of the grid."""
        rows, columns = self.cargo.depth.shape
        fx, fy = columns / self.depth.shape[1], rows / ROWS
        left, top = int(x0 * fx), int(y0 * fy)
        return left, top, max(left + 1, min(columns, round(x1 * fx))), max(top + 1, min(rows, round(y1 * fy)))

    def around(self, blob: Blob, inner: int, outer: int) -> Array:
        """Return (ROWS, columns) bool: what lies from `inner` to `outer` cells around a blob."""
        mask = np.zeros(self.depth.shape, np.bool_)
        y0, x0 = max(0, blob.y - outer), max(0, blob.x - outer)
        y1, x1 = min(ROWS, blob.y + blob.h + outer), min(self.depth.shape[1], blob.x + blob.w + outer)
        window: Array = np.zeros((y1 - y0, x1 - x0), np.uint8)
        window[blob.y - y0 : blob.y - y0 + blob.h, blob.x - x0 : blob.x - x0 + blob.w] = blob.own
        far = cv2.dilate(window, np.ones((2 * outer + 1, 2 * outer + 1), np.uint8))
        near = cv2.dilate(window, np.ones((2 * inner + 1, 2 * inner + 1), np.uint8)) if inner else window
        mask[y0:y1, x0:x1] = (far > 0) & (near == 0)
        return mask

    def free_around(self, blob: Blob) -> float:
        """Return the share of a blob's surroundings, 12 cm wide, that is free; beyond roof and floor there are none."""
        ring = self.around(blob, 2, self.cells(120))
        ring[: self.roof] = ring[self.floor :] = False
        return float((~self.solid[ring]).mean()) if ring.any() else 0.0


def _floor(above: Array, usual: int) -> int:
    """Return the first row of the cargo floor: where most of what is free above it ends; the usual one where none is.

    Between its members the floor is light, so it takes the columns together; where cargo stands it cannot be seen.
    """
    start = usual - ROWS // 8
    free = (above[start - ROWS // 12 : start + 1] < FREE).all(axis=0)
    if free.sum() < 3:
        return usual
    dark = np.flatnonzero(np.median(above[start:, free], axis=1) > FREE)
    return start + int(dark[0]) if dark.size else usual


def blobs(mask: Array) -> list[Blob]:
    """Return the connected regions (8 neighbours) of a (rows, columns) bool mask."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for label in range(1, min(count, 4000)):
        x, y, w, h, area = (int(v) for v in stats[label])
        found.append(Blob(x, y, w, h, area, labels[y : y + h, x : x + w] == label))
    return found


def opened(mask: Array, wide: int, high: int) -> Array:
    """Return what of a bool mask is at least `wide` long and `high` high; outside of it nothing is."""
    element = np.ones((high, wide), np.uint8)
    kept = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_OPEN, element, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.asarray(kept > 0)


AS_STRONG = 2 / 3
"""What stands in a row of its like is the load only where its like are nearly as strange: part of its own score."""


def alike(place: Rect, score: float, others: list[tuple[float, Rect]]) -> int:
    """Return how many of (score, rectangle), itself counted, are of about its size, stand as high, and are as strange.

    A row explains what is like it. It does not explain the one of it that is stranger than the rest.
    """
    w, h = place[2] - place[0], place[3] - place[1]
    return sum(
        own >= AS_STRONG * score
        and abs(o[2] - o[0] - w) <= max(3, 0.25 * w)
        and abs(o[3] - o[1] - h) <= max(3, 0.25 * h)
        and abs(o[3] - place[3]) <= max(4, 0.25 * h)
        for own, o in others
    )
