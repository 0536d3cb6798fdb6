"""What is there now and was not at an earlier scan of the same container.

Both scans are straightened containers; the earlier one is brought to the columns of this one, turned round where that
fits better (the truck came from the other side), and moved to where it fits best, part by part, for the speed differed.
What is left of the difference must stand out against its own unrest. Cargo that was loaded in between makes everything
different: then that is said, and nothing of places.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from .cells import Array, Cells, blobs, opened
from .regions import Candidate

KIND = "changed_since_previous"
NOTE = 8.0
"""Difference in -ln T over its unrest, times size in percent of the height."""
LEAST_FIT = 0.5
"""Correlation of the two scans below which it is another load: no places can be told."""
PARTS = 8
REACH = 0.02
"""By how much of the length a part may be moved."""
LEAST_CHANGE = 0.15
SMALLEST_MM = 80.0
UNREST_FLOOR = 0.04


def changed(now: Cells, previous: Cells | None) -> list[Candidate] | None:
    """Return what has changed, one candidate without a place where the load is another; None without `previous`."""
    if previous is None:
        return None
    earlier, fit = _registered(now, previous)
    if fit < LEAST_FIT:
        words = (
            f"not the load of the earlier scan of this container: they agree by {fit:.2f}, with the same load by "
            f"{LEAST_FIT} or more"
        )
        return [Candidate(KIND, NOTE * (1.0 + LEAST_FIT - fit), None, words)]
    difference = now.above - earlier
    inner = (slice(now.roof, now.floor), slice(now.left, now.right))
    # an edge that is half a cell off differs by its own height: what moves with the edges is no change
    edges = cv2.morphologyEx(np.maximum(now.above, earlier), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    typical = 1.4826 * float(np.median(np.abs(difference[inner] - np.median(difference[inner]))))
    unrest = np.sqrt(typical**2 + UNREST_FLOOR**2 + (0.35 * edges) ** 2)
    found = []
    for sign in (1.0, -1.0):
        found += _places(now, sign * difference, unrest, sign)
    return found


def fit_of(now: Cells, previous: Cells) -> float:
    """Return how well two scans agree once one is brought to the other: a correlation, above LEAST_FIT for one load."""
    return _registered(now, previous)[1]


def _registered(now: Cells, previous: Cells) -> tuple[Array, float]:
    """Return the earlier scan in the cells of this one, and how well it correlates with it."""
    size = (now.depth.shape[1], now.depth.shape[0])
    best: tuple[Array, float] | None = None
    for turned in (False, True):
        image = cv2.resize(previous.above, size, interpolation=cv2.INTER_LINEAR)
        moved = _moved(now, np.ascontiguousarray(image[:, ::-1]) if turned else image)
        fit = _fit(now.above[now.roof : now.floor, now.left : now.right],
                   moved[now.roof : now.floor, now.left : now.right])  # fmt: skip
        if best is None or fit > best[1]:
            best = moved, fit
    assert best is not None
    return best


def _moved(now: Cells, image: Array) -> Array:
    """Return the image with every column moved by what fits its part best."""
    rows, width = image.shape
    reach = max(2, round(REACH * width))
    edges = np.linspace(0, width, PARTS + 1).astype(int)
    shifts, middles = [], []
    for a, b in itertools.pairwise(edges):
        left, right = max(a, reach), min(b, width - reach)
        here = now.above[now.roof : now.floor, left:right]
        cost = [
            float(np.abs(here - image[now.roof : now.floor, left + s : right + s]).mean()) + 1e-6 * abs(s)
            for s in range(-reach, reach + 1)
        ]
        shifts.append(int(np.argmin(cost)) - reach)
        middles.append((a + b) / 2)
    columns = np.arange(width, dtype=np.float32)
    x = columns + np.interp(columns, middles, shifts).astype(np.float32)
    map_x = np.repeat(x[np.newaxis], rows, axis=0)
    map_y = np.repeat(np.arange(rows, dtype=np.float32)[:, np.newaxis], width, axis=1)
    return np.asarray(cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _fit(a: Array, b: Array) -> float:
    """Return the correlation of two images; flat ones (empty containers) agree as far as they are alike."""
    if float(np.abs(a - b).mean()) < 0.05:
        return 1.0
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt(max(float((a * a).sum() * (b * b).sum()), 1e-9)))


def _places(cells: Cells, difference: Array, unrest: Array, sign: float) -> list[Candidate]:
    """Return where `difference` stands out; sign : 1 more than before, -1 less."""
    smooth = cv2.blur(difference.astype(np.float32), (3, 3))
    mask = (smooth > LEAST_CHANGE) & (smooth > 2.5 * unrest)
    mask[: cells.roof] = mask[cells.floor :] = False
    mask[:, : cells.left] = mask[:, cells.right :] = False
    size = cells.cells(SMALLEST_MM)
    found = []
    for blob in blobs(opened(mask, size, size)):
        strength = float((smooth / unrest)[blob.window][blob.own].mean())
        more = float(smooth[blob.window][blob.own].mean())
        score = strength * 100 * float(np.sqrt(blob.area)) / cells.depth.shape[0] / 5
        at = cells.at(blob.x, blob.y, blob.x + blob.w, blob.y + blob.h)
        what = "more" if sign > 0 else "less"
        words = (
            f"{what} than at the earlier scan of this container, {cells.cargo.place(at)}: "
            f"{1 - np.exp(-more):.0%} of the light, {strength:.1f} times the unrest of the difference"
        )
        found.append(Candidate(KIND, score, at, words))
    return found
