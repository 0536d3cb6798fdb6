"""Items at the ends of the container, beside or on the load: bags put in after loading ("rip-off") lie at the doors.

Which end has the doors is not known from the image, so both are looked at. The load is what is at least a metre long:
what is shorter and by itself, between the load and the end frame or on top of the load's last metre, is an item.
"""

from __future__ import annotations

import cv2
import numpy as np

from .cells import Array, Blob, Cells, blobs, opened
from .regions import Candidate

KIND = "door_end_item"
NOTE = 6.0
"""-ln T times size in percent of the height: half a metre with a third of the wall's transmission has 20."""
LOAD_MM = (1000.0, 400.0)
"""Least length and height of what is taken for the load."""
NEAR_MM = 1200.0
"""So far from the end frame items are looked for on the load, too."""
DEEPEST_GAP_MM = 2500.0
"""What lies further from the end is an item in free space like any other."""
ITEM_MM = (150.0, 700.0)
"""Least side and greatest length: a longer one is a stack of the load."""
ITEM_DEPTH = 0.2
LEAST_FREE = 0.4
"""Of its surroundings: load at one side and the frame at the other may take the rest."""
MOST_DEPTH = 2.2
"""-ln T above the bare container, mean of the item: half a metre of what bags hold. More is goods or a dense object."""
MACHINERY = 0.75
"""Share of the height over which what stands in the gap is spread from which it is the machinery of a reefer."""


def door_end_items(cells: Cells) -> list[Candidate] | None:
    """Return items at the ends; None where there is no load, or one up to the roof at both ends."""
    bridged = opened(~cells.solid, cells.cells(80), cells.cells(80))
    load = opened(~bridged, cells.cells(LOAD_MM[0]), cells.cells(LOAD_MM[1]))
    columns = np.flatnonzero(load.any(axis=0))
    if columns.size == 0:
        return None
    left, right = _frame_end(cells, 1), _frame_end(cells, -1)
    near, most = cells.cells(NEAR_MM), cells.cells(DEEPEST_GAP_MM)
    found, asked = [], False
    for side, frame, gap in (("left", left, int(columns[0])), ("right", right, int(columns[-1]) + 1)):
        if frame is None:
            continue
        asked = True
        if side == "left":
            frame = max(frame, cells.machinery[0])
            first, end = frame, frame + min(max(near, gap - frame), most)
        else:
            frame = min(frame, cells.machinery[1])
            first, end = frame - min(max(near, frame - gap), most), frame
        found += _items(cells, side, first, end, load)
    return found if asked else None


def _frame_end(cells: Cells, step: int) -> int | None:
    """Return the column at which the end frame stops: behind its post, the first that is free under the roof.

    None where that is never so near the end: the load reaches the roof there.
    """
    head = slice(cells.roof, cells.roof + (cells.floor - cells.roof) // 6)
    free = (~cells.solid[head]).mean(axis=0)
    reach = min(free.size // 2, 3 * max(cells.left, cells.cells(200)))
    part = free[:reach] if step > 0 else free[::-1][:reach]
    # outside of the post a strip of air may lie in the frame
    posts = np.flatnonzero(part[: max(cells.left, 2)] < 0.3)
    start = int(posts[0]) if posts.size else 0
    seen = np.flatnonzero(part[start:] >= 0.7)
    if not seen.size:
        return None
    at = start + int(seen[0])
    return at + 1 if step > 0 else free.size - at - 1


def _items(cells: Cells, side: str, first: int, end: int, load: Array) -> list[Candidate]:
    """Return the items in columns [first, end), which `load` is no part of."""
    mask: Array = np.zeros(cells.depth.shape, np.bool_)
    mask[cells.roof : cells.floor, first:end] = cells.above[cells.roof : cells.floor, first:end] > ITEM_DEPTH
    # the edge of the load is soft
    mask &= cv2.dilate(load.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
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
        ring = cells.around(blob, 2, cells.cells(120))
        if excess > MOST_DEPTH or excess - float(np.quantile(cells.above[ring], 0.3)) < ITEM_DEPTH:
            continue
        score = excess * 100 * np.sqrt(blob.area) / cells.depth.shape[0]
        at = cells.at(blob.x, blob.y, blob.x + blob.w, blob.y + blob.h)
        inside, around = cells.cargo.levels(at)
        reach = (end - first) * cells.cell_mm / 1000
        words = (
            f"item at the {side} end, beside or on the load, not further than {reach:.1f} m from the end frame, "
            f"{cells.cargo.place(at)}: {cells.cargo.darker(inside, around)}"
        )
        found.append(Candidate(KIND, float(score), at, words))
    return found


def _is_item(cells: Cells, blob: Blob) -> bool:
    short, long = sorted((blob.w, blob.h))
    if cells.free_around(blob) < LEAST_FREE:  # the slope of a heap is no item
        return False
    if short < cells.cells(ITEM_MM[0]) or blob.w > cells.cells(ITEM_MM[1]) or blob.area < 0.4 * blob.w * blob.h:
        return False
    # from roof to floor it is a wall or a post
    return bool(long <= 0.6 * (cells.floor - cells.roof))
