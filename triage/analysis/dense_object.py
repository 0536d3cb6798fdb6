"""Compact and far denser than what is around it: what shields a source is.

At every level of -ln T the connected regions deeper than it are looked at; one that is compact and stands out against
nine tenths of its surroundings is an object. What has its like in a row is the load (motors, drums, cartons with a
metal core). Where the portal saw an excess or a dip at the same columns, it counts for more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .cargo_grid import Rect, overlap
from .cells import Blob, Cells, alike, blobs
from .known import Mark
from .regions import Candidate

KIND = "dense_object"
NOTE = 7.0
"""-ln T of contrast times size in percent of the height. 1 of 33 real scans reaches it."""
LEVELS = np.arange(0.8, 6.0, 0.3)
SIDE_MM = (50.0, 600.0)
AREA_M2 = (0.003, 0.25)
MIN_CONTRAST = 0.6
"""-ln T: half of the light of nine tenths of its surroundings."""
MIN_DEPTH = 1.5
"""-ln T above the bare container: 5 cm of steel or more."""
MARKED = 1.5
"""Factor of the score where the portal saw something at the same columns."""
ALIKE = 3


class _Object(NamedTuple):
    contrast: float
    score: float
    at: Rect


def dense_objects(cells: Cells, marks: tuple[Mark, ...] = ()) -> list[Candidate]:
    """Return compact dense objects; `marks` : what the portal saw, in columns of the radiograph."""
    objects = _objects(cells)
    places = [(o.score, o.at) for o in objects]
    total = sum(o.score for o in objects)
    found = []
    for contrast, score, at in objects:
        box = cells.cargo.box(at)
        seen = [m.words for m in marks if m.first < box.end_column and m.end > box.first_column]
        inside, around = cells.cargo.levels(at)
        words = (
            f"compact and dense {cells.cargo.place(at)}: {cells.cargo.darker(inside, around)}, "
            f"{1 - np.exp(-contrast):.0%} darker than nine tenths of its surroundings"
        )
        if seen:
            words += f"; {' and '.join(seen)} at the same columns"
        many = alike(at, score, places)
        of_many = many if many >= ALIKE and not seen else 1
        # among many dense things one more says little: machines, household goods. Two are no crowd: what is hidden
        # may lie in several packets.
        score *= min(1.0, ALIKE * score / total) * (MARKED if seen else 1.0)
        found.append(Candidate(KIND, score, at, words, of_many))
    return found


def _objects(cells: Cells) -> list[_Object]:
    """Return objects, of those that overlap the one that stands out most."""
    above = cells.above.copy()
    above[: cells.roof] = above[cells.floor :] = 0
    above[:, : cells.left] = above[:, cells.right :] = 0
    found = []
    for level in LEVELS[above.max() > LEVELS]:
        for blob in blobs(above > level):
            if not _compact(cells, blob):
                continue
            inside = float(np.median(cells.above[blob.window][blob.own]))
            ring = cells.around(blob, 2, 2 + cells.cells(100))
            contrast = inside - float(np.quantile(cells.above[ring], 0.9))
            if inside >= MIN_DEPTH and contrast >= MIN_CONTRAST:
                at = cells.at(blob.x, blob.y, blob.x + blob.w, blob.y + blob.h)
                score = contrast * 100 * float(np.sqrt(blob.area)) / cells.depth.shape[0]
                found.append(_Object(contrast, score, at))
    found.sort(key=lambda o: (-o.score, o.at))
    kept: list[_Object] = []
    for one in found:
        if not any(overlap(one.at, other.at) for other in kept):
            kept.append(one)
    return kept


def _compact(cells: Cells, blob: Blob) -> bool:
    short, long = sorted((blob.w, blob.h))
    side = (cells.cells(SIDE_MM[0]), cells.cells(SIDE_MM[1]))
    return bool(
        short >= side[0]
        and long <= side[1]
        and long <= 4 * short
        and AREA_M2[0] <= cells.square_m(blob.area) <= AREA_M2[1]
        and blob.area >= 0.5 * blob.w * blob.h
    )
