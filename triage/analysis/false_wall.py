"""A false wall: at an end of the container a slab from roof to floor, deeper than a wall, that the load does not reach.

The load leaves headspace; what is built across a container does not. So at each end the columns are taken that are
filled from roof to floor, from the end frame on. What ends in a straight upright edge, with headspace behind it, is a
slab. Where the load itself reaches the roof the question cannot be asked: then a slab looks like the load. The cooling
machinery of a reefer fills an end too, but unevenly; a slab behind it is not seen.
"""

from __future__ import annotations

import numpy as np

from .cells import FREE, Array, Cells
from .container_size import size_of
from .regions import Candidate

KIND = "false_wall"
NOTE = 0.8
"""-ln T above the bare container that nine tenths of the rows exceed, times thickness behind FRAME_MM in 10 cm."""
FRAME_MM = 250.0
"""An end frame with its doors: so much at an end is full from roof to floor anyway, seen up to 280 mm."""
LEAST_MM, MOST_MM = 330.0, 1800.0
"""Of frame and slab together."""
MOST_SHARE = 0.2
"""Of the length: pictures are squeezed, and where the sampling is not known lengths are no more than guesses."""
HEADSPACE_MM = 150.0
"""Least height of free space behind the slab, over at least half of the next metre."""

INNER_MM = {20: 5900.0, 40: 12_030.0, 45: 13_560.0}
"""Inner lengths of freight containers by their feet. Source: ISO 668, and makers' data for 45 feet."""


def false_wall(cells: Cells) -> list[Candidate] | None:
    """Return slabs at the ends; None where there is no headspace anywhere to tell them by."""
    above = cells.above[cells.roof : cells.floor]
    head = _headspace(above)
    need = cells.cells(HEADSPACE_MM)
    if float((head[cells.left : cells.right] >= need).mean()) < 0.3:
        return None
    found = []
    for side in ("left", "right"):
        part, free = (above, head) if side == "left" else (above[:, ::-1], head[::-1])
        slab = _slab(cells, part, free, need)
        if slab is not None:
            found.append(_candidate(cells, side, *slab))
    return found


def _headspace(above: Array) -> Array:
    """Return (columns,) int, how many rows under the roof are free: 0 where the uppermost is not."""
    return np.asarray(np.argmax(np.vstack([above > 2 * FREE, np.ones(above.shape[1], np.bool_)[np.newaxis]]), axis=0))


def _slab(cells: Cells, above: Array, head: Array, need: int) -> tuple[float, float, int] | None:
    """Return score, depth and end column of frame and slab at the left end of `above`, None without a slab."""
    full = (above > 2 * FREE).mean(axis=0) >= 0.96
    width = above.shape[1] // 2
    # outside of the post a strip of air may lie in the frame
    posts = np.flatnonzero(full[: cells.left])
    if posts.size == 0:
        return None
    end = start = int(posts[0])
    while end < width and full[end]:
        end += 1
    if not cells.cells(LEAST_MM) <= end - start <= min(cells.cells(MOST_MM), MOST_SHARE * above.shape[1]):
        return None
    behind = slice(end + 1, end + 1 + cells.cells(1000))
    if float((head[behind] >= need).mean()) < 0.5:
        return None
    # uneven from row to row is machinery, not a wall with goods behind it
    rows = np.median(above[:, start + cells.cells(FRAME_MM) - 1 : end], axis=1)
    depth = float(np.quantile(rows, 0.1))
    return depth * ((end - start) * cells.cell_mm - FRAME_MM) / 100, depth, end


def _candidate(cells: Cells, side: str, score: float, depth: float, end: int) -> Candidate:
    width = cells.depth.shape[1]
    a, b = (0, end) if side == "left" else (width - end, width)
    at = cells.at(a, cells.roof, b, cells.floor)
    thick = end * cells.cell_mm / 1000
    about = "" if cells.told else " (if the container is 2.7 m high)"
    words = (
        f"full from roof to floor for {thick:.2f} m at the {side} end{about}, which takes {1 - np.exp(-depth):.0%} or "
        f"more of the light, with headspace behind it{_shorter(cells, thick)}: a wall or goods stowed so; "
        f"{cells.cargo.place(at)}"
    )
    return Candidate(KIND, score, at, words)


def _shorter(cells: Cells, thick_m: float) -> str:
    """Say by how much the inner length is shorter than its class, where the length is known."""
    feet = size_of(cells.cargo.frame, cells.cargo.radiograph.detector).feet if cells.told else None
    if feet is None:
        return ""
    inner = INNER_MM[feet] / 1000
    return f": {inner - thick_m:.1f} m of the {inner:.1f} m of a {feet}-foot container are left"
