"""From a score at every place to a few places worth a look."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .cargo_grid import Rect

Array: TypeAlias = NDArray[Any]

MAX_REGIONS = 10
MAX_AREA = 0.045
"""Largest region, as a share of all cells: 5 % may not be exceeded in the image, where a tilt makes it larger."""
_APART = 6
"""Cells around a region in which no other is told: 24 pixels, 15 cm."""
_REACH = 40
"""Cells to either side of a peak that its region may reach."""


class Place(NamedTuple):
    """A place of high score. score : at its peak; peak : x, y of a cell; at : x0, y0, x1, y1 in cells."""

    score: float
    peak: tuple[int, int]
    at: Rect


def places_of(score: Array, seen: Array, drop: float) -> list[Place]:
    """Return the highest places of a score, best first, at most MAX_REGIONS, none larger than MAX_AREA.

    score : (rows, columns) float32; it is averaged over those of 3 x 3 cells that are seen
    seen : (rows, columns) bool, cells that may be told
    drop : a place goes as far as the score is no more than this below its peak
    """
    weight = cv2.blur(seen.astype(np.float32), (3, 3))
    smooth = cv2.blur(np.where(seen, score, 0).astype(np.float32), (3, 3)) / np.maximum(weight, 1 / 9)
    smooth = np.where(seen, smooth, -np.inf).astype(np.float32)
    left = smooth.copy()
    found: list[Place] = []
    while len(found) < MAX_REGIONS:
        y, x = (int(v) for v in np.unravel_index(int(np.argmax(left)), left.shape))
        peak = float(left[y, x])
        if not np.isfinite(peak):
            break
        at = _extent(smooth, x, y, drop)
        found.append(Place(peak, (x, y), at))
        x0, y0, x1, y1 = at
        left[max(0, y0 - _APART) : y1 + _APART, max(0, x0 - _APART) : x1 + _APART] = -np.inf
    return found


def _extent(score: Array, x: int, y: int, drop: float) -> Rect:
    """Return the rectangle around the connected cells that are nearly as high as the peak at x, y.

    A smaller drop is taken until the place is no larger than it may be.
    """
    rows, columns = score.shape
    left, top = max(0, x - _REACH), max(0, y - _REACH)
    window = score[top : y + _REACH + 1, left : x + _REACH + 1]
    while True:
        mask = (window >= score[y, x] - drop).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
        w0, h0, w, h, _ = (int(v) for v in stats[labels[y - top, x - left]])
        if w * h <= MAX_AREA * rows * columns or drop < 1e-6:
            return left + w0, top + h0, left + w0 + w, top + h0 + h
        drop /= 2
