"""A hollow in an even, dense load: a place all around which there is more.

At every level of -ln T the connected regions lighter than it are looked at; one that is enclosed by the load on all
sides, compact, and clearly lighter than a tenth of its surroundings is a hollow. The gaps between stacks are long and
narrow and the forks' openings under pallets have their like; neither is one. What is opaque cannot be searched.
"""

from __future__ import annotations

import numpy as np

from .cargo_grid import overlap
from .cells import Array, Blob, Cells, alike, blobs, opened
from .regions import Candidate

KIND = "void"
NOTE = 6.0
"""-ln T of contrast times size in percent of the height, over the load's own unrest in units of UNREST."""
UNREST = 0.15
SIDE_MM = (150.0, 1200.0)
AREA_M2 = (0.04, 0.9)
MIN_CONTRAST = 0.2
DENSE = 0.7
"""-ln T above the bare container from which a load is dense: half of the light is taken."""
EVEN = 0.5
"""Standard deviation of -ln T over the surroundings up to which a load is even."""
LEAST_LOAD_M2 = 1.0
ALIKE = 3


def voids(cells: Cells) -> list[Candidate] | None:
    """Return hollows in the load; None where there is no dense load that can be seen."""
    above = cells.above.copy()
    dense = (above > DENSE) & cells.seen
    dense[: cells.roof] = dense[cells.floor :] = False
    dense[:, : cells.left] = dense[:, cells.right :] = False
    if cells.square_m(float(dense.sum())) < LEAST_LOAD_M2:
        return None
    levels = np.unique(np.round(np.quantile(above[dense], np.linspace(0.02, 0.9, 14)), 2))
    found = []
    for level in [0.4, *levels]:
        for blob in _hollows(cells, above < level):
            judged = _score(cells, blob)
            if judged is not None:
                found.append((judged, cells.at(blob.x, blob.y, blob.x + blob.w, blob.y + blob.h)))
    found.sort(key=lambda f: (-f[0][0], f[1]))
    places = [(score, at) for (score, _), at in found]
    kept: list[Candidate] = []
    for (score, contrast), at in found:
        if any(k.at is not None and overlap(at, k.at) for k in kept):
            continue
        inside, around = cells.cargo.levels(at)
        words = (
            f"hollow in a dense load {cells.cargo.place(at)}: {cells.cargo.darker(inside, around)}; nine tenths of "
            f"what encloses it is darker by {1 - np.exp(-contrast):.0%} or more"
        )
        distinct = [(s, p) for s, p in places if p == at or not overlap(p, at)]
        many = alike(at, score, distinct)
        kept.append(Candidate(KIND, score, at, words, many if many >= ALIKE else 1))
    return kept


def _hollows(cells: Cells, light: Array) -> list[Blob]:
    """Return the compact regions of `light` that the load encloses."""
    side = cells.cells(SIDE_MM[0])
    found = []
    for blob in blobs(opened(light, side, side)):
        if blob.y <= cells.roof or blob.y + blob.h >= cells.floor or blob.x <= cells.left:
            continue
        short, long = sorted((blob.w, blob.h))
        if blob.x + blob.w >= cells.right or long > min(cells.cells(SIDE_MM[1]), 4 * short):
            continue
        if AREA_M2[0] <= cells.square_m(blob.area) <= AREA_M2[1] and blob.area >= 0.5 * blob.w * blob.h:
            found.append(blob)
    return found


def _score(cells: Cells, blob: Blob) -> tuple[float, float] | None:
    """Return score and contrast of a hollow, None where it is none."""
    ring = cells.around(blob, 2, 2 + cells.cells(120))
    around = cells.above[ring]
    if float((around > DENSE).mean()) < 0.9 or not cells.seen[ring].any():
        return None
    contrast = float(np.quantile(around, 0.1) - np.median(cells.above[blob.window][blob.own]))
    unrest = float(np.std(around))
    if contrast < MIN_CONTRAST or unrest > EVEN:
        return None
    size = 100 * float(np.sqrt(blob.area)) / cells.depth.shape[0]
    return contrast * size / max(1.0, unrest / UNREST), contrast
