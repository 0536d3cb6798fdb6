"""Items between the end of the load and the doors: bags thrown in after loading ("rip-off") lie there.

Which end has the doors is not known from the image, so both are looked at. The load is what is at least a metre long:
what is shorter and stands by itself between it and the end frame is an item.
"""

from __future__ import annotations

import numpy as np

from .cells import Array, Blob, Cells, blobs, opened
from .regions import Candidate

KIND = "door_end_item"
NOTE = 6.0
"""-ln T times size in percent of the height: half a metre with a third of the wall's transmission has 20."""
LOAD_MM = (1000.0, 400.0)
"""Least length and height of what is taken for the load."""
GAP_MM = 250.0
"""Least gap between load and end frame in which items are looked for."""
DEEPEST_GAP_MM = 2500.0
"""What lies further from the end is an item in free space like any other."""
ITEM_MM = (150.0, 700.0)
"""Least side and greatest length: a longer one is a stack of the load."""
ITEM_DEPTH = 0.2
MOST_DEPTH = 2.2
"""-ln T above the bare container, mean of the item: half a metre of what bags hold. More is goods or a dense object."""
MACHINERY = 0.75
"""Share of the height over which what stands in the gap is spread from which it is the machinery of a reefer."""


def door_end_items(cells: Cells) -> list[Candidate] | None:
    """Return items in the gaps at the ends; None where there is no load or no gap."""
    bridged = opened(~cells.solid, cells.cells(80), cells.cells(80))
    load = opened(~bridged, cells.cells(LOAD_MM[0]), cells.cells(LOAD_MM[1]))
    columns = np.flatnonzero(load.any(axis=0))
    if columns.size == 0:
        return None
    inner = max(_frame_end(cells, 1), cells.machinery[0]), min(_frame_end(cells, -1), cells.machinery[1])
    ends = (("left", inner[0], int(columns[0])), ("right", int(columns[-1]) + 1, inner[1]))
    gaps = [(side, a, b) for side, a, b in ends if b - a >= cells.cells(GAP_MM)]
    if not gaps:
        return None
    found = []
    for side, first, end in gaps:
        most = cells.cells(DEEPEST_GAP_MM)
        first, end = (first, min(end, first + most)) if side == "left" else (max(first, end - most), end)
        found += _items(cells, side, first, end)
    return found


def _frame_end(cells: Cells, step: int) -> int:
    """Return the column at which the end frame stops: behind its post, the first of which 3 of 10 rows are free."""
    free = (~cells.solid[cells.roof : cells.floor]).mean(axis=0)
    reach = min(free.size // 2, 3 * max(cells.left, cells.cells(200)))
    part = free[:reach] if step > 0 else free[::-1][:reach]
    # outside of the post a strip of air may lie in the frame
    posts = np.flatnonzero(part[: cells.left] < 0.3)
    start = int(posts[0]) if posts.size else 0
    seen = np.flatnonzero(part[start:] >= 0.3)
    at = start + int(seen[0]) if seen.size else reach
    return at + 1 if step > 0 else free.size - at - 1


def _items(cells: Cells, side: str, first: int, end: int) -> list[Candidate]:
    mask: Array = np.zeros(cells.depth.shape, np.bool_)
    mask[cells.roof : cells.floor, first:end] = cells.above[cells.roof : cells.floor, first:end] > ITEM_DEPTH
    # the flanks of frame and load reach a little into the gap
    spread = np.count_nonzero(mask[:, first + 2 : end - 2].any(axis=1))
    if spread > MACHINERY * (cells.floor - cells.roof):
        return []
    size = cells.cells(ITEM_MM[0]) // 2 + 1
    found = []
    for blob in blobs(opened(mask, size, size)):
        if not _is_item(cells, blob):
            continue
        excess = float(cells.above[blob.window][blob.own].mean())
        if excess > MOST_DEPTH:
            continue
        score = excess * 100 * np.sqrt(blob.area) / cells.depth.shape[0]
        at = cells.at(blob.x, blob.y, blob.x + blob.w, blob.y + blob.h)
        inside, around = cells.cargo.levels(at)
        words = (
            f"item in the gap of {(end - first) * cells.cell_mm / 1000:.1f} m between the load and the {side} end, "
            f"{cells.cargo.place(at)}: {cells.cargo.darker(inside, around)}"
        )
        found.append(Candidate(KIND, float(score), at, words))
    return found


def _is_item(cells: Cells, blob: Blob) -> bool:
    short, long = sorted((blob.w, blob.h))
    if short < cells.cells(ITEM_MM[0]) or blob.w > cells.cells(ITEM_MM[1]) or blob.area < 0.4 * blob.w * blob.h:
        return False
    # from roof to floor it is a wall or a post
    return bool(long <= 0.6 * (cells.floor - cells.roof))
