"""Extra items in otherwise free space."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .cargo_grid import CargoGrid, Rect
from .cells import alike
from .regions import Candidate

Array: TypeAlias = NDArray[Any]


def items_in_free_space(cargo: CargoGrid) -> list[tuple[float, Rect]]:
    """Return score and grid rectangle (x0, y0, x1, y1) of compact dark items in otherwise free space."""
    p, (rows, columns) = cargo.p, cargo.inner
    depth = np.ascontiguousarray(cargo.depth[rows, columns])
    height = cargo.depth.shape[0]
    largest = round(p.item_max_share * height)
    above = depth - cargo.wall
    # ribs, posts and seams are longer than any item: what survives opening along a line of that length is structure
    lines = np.maximum(
        cv2.morphologyEx(above, cv2.MORPH_OPEN, np.ones((largest, 1), np.uint8)),
        cv2.morphologyEx(above, cv2.MORPH_OPEN, np.ones((1, largest), np.uint8)),
    )
    item: Array = (above - lines > p.item_min_depth).astype(np.uint8)
    item = cv2.morphologyEx(item, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    free = above < -np.log(p.free_t_ratio)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(item, connectivity=8)
    smallest = p.item_min_share * height
    found = []
    for label in range(1, min(count, 4000)):
        x, y, w, h, area = (int(v) for v in stats[label])
        if min(w, h) < smallest or max(w, h) > largest or area < 0.4 * w * h:
            continue
        margin = max(3, round(0.3 * max(w, h)))
        y0, y1, x0, x1 = max(0, y - margin), y + h + margin, max(0, x - margin), x + w + margin
        own = cv2.dilate((labels[y0:y1, x0:x1] == label).astype(np.uint8), np.ones((5, 5), np.uint8)) != 0
        around = free[y0:y1, x0:x1][~own]
        if around.size == 0 or around.mean() < p.item_free_share:
            continue
        inside = labels[y : y + h, x : x + w] == label
        excess = float(np.mean((above - lines)[y : y + h, x : x + w][inside]))
        score = excess * 100 * np.sqrt(area) / height
        at = (x + columns.start, y + rows.start, x + w + columns.start, y + h + rows.start)
        found.append((float(score), at))
    return sorted(found, key=lambda f: (-f[0], f[1]))


def item_candidate(cargo: CargoGrid, score: float, at: Rect, every: list[tuple[float, Rect]]) -> Candidate:
    """Return what is to be said of an item; `every` : scores and places of all items, its own among them."""
    inside, around = cargo.levels(at)
    words = (
        f"compact dark item in free space {cargo.place(at)}: {cargo.darker(inside, around)}; "
        f"score {score:.1f}, depth x size"
    )
    many = alike(at, score, every)
    return Candidate("extra_item_in_free_space", score, at, words, many if many >= cargo.p.alike else 1)
