"""A load in a few numbers: how much of it there is, how dense, how it is stacked, how fine its texture is.

They are what a load is compared by with other loads of the same goods, so each is made to vary about as much from one
load to the next wherever it lies (shares and depths as they are, what spans decades as a logarithm), and none depends
on how long the container is.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .cells import FREE, Array, Cells

Traits: TypeAlias = NDArray[np.float64]

LOADED = 0.3
LEAST_M2 = 0.5
"""Less load than this has no traits."""


def load_traits(cells: Cells) -> Traits | None:
    """Return (len(NAMES),) float64, the NAMES of `goods_profile`; None where there is too little load."""
    rows, columns = slice(cells.roof, cells.floor), slice(cells.left, cells.right)
    above = np.minimum(cells.above[rows, columns], 5.0)
    load = above > LOADED
    if cells.square_m(float(load.sum())) < LEAST_M2:
        return None
    where = np.flatnonzero(load.mean(axis=0) > 0.05)
    if where.size < 8:
        return None
    stretch = slice(int(where[0]), int(where[-1]) + 1)
    above, load = np.ascontiguousarray(above[:, stretch]), load[:, stretch]
    height = above.shape[0]
    top = height - np.argmax(np.vstack([load, np.ones((1, load.shape[1]), np.bool_)]), axis=0)
    inside = above[load]
    seen = load & cells.seen[rows, columns][:, stretch]
    return np.array(
        [
            float((cells.above[rows, columns] > FREE).mean()),
            float(np.median(top)) / height,
            float(np.std(top)) / height,
            float(np.median(inside)),
            float(np.quantile(inside, 0.75) - np.quantile(inside, 0.25)),
            float(np.quantile(inside, 0.9)),
            1.0 - float(seen.sum() / load.sum()),
            _texture(above, seen, 1),
            _texture(above, seen, 0),
            _coarse(above, seen),
            *_along(above),
        ]
    )


def _texture(above: Array, seen: Array, axis: int) -> float:
    """Return the logarithm of the median step from cell to cell, where both can be seen."""
    step = np.abs(np.diff(above, axis=axis))
    both = seen[:, 1:] & seen[:, :-1] if axis == 1 else seen[1:] & seen[:-1]
    return float(np.log(np.median(step[both]) + 0.01)) if both.any() else float(np.log(0.01))


def _coarse(above: Array, seen: Array) -> float:
    """Return the logarithm of the deviation of means over 10 cells from those over 40."""
    part = cv2.blur(above, (9, 9)) - cv2.blur(above, (41, 41))
    return float(np.log(np.std(part[seen]) + 0.01)) if seen.any() else float(np.log(0.01))


def _along(above: Array) -> tuple[float, float]:
    """Return over how many cells (logarithm) columns are alike, and the best correlation at a distance after that."""
    profile: Any = above - above.mean(axis=1, keepdims=True)
    width = profile.shape[1]
    lags = np.arange(1, max(3, min(width // 3, 120)))
    total = max(float((profile * profile).mean()), 1e-9)
    correlation = np.array([float((profile[:, :-lag] * profile[:, lag:]).mean()) / total for lag in lags])
    below = np.flatnonzero(correlation < 0.5)
    first = int(below[0]) if below.size else lags.size - 1
    return float(np.log(lags[first])), float(correlation[first:].max())
