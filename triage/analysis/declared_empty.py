"""Declared empty, but something is in it: then everything that is no structure counts, of any size and shape.

A load that fills the container is said by the load itself (`declared_empty_but_loaded`); this is for what is too
little to be called a load.
"""

from __future__ import annotations

import numpy as np

from scanner_io.model import Declaration

from .cargo_grid import Rect
from .cells import Cells, blobs, opened
from .regions import Candidate

KIND = "declared_empty_holds_something"
REVIEW = 1.0
"""-ln T times size in percent of the height, as of an extra item; structure of empty containers stays below 0.9."""
NOTE = 0.5
DEPTH = 0.15
THIN_MM = 80.0
"""Ribs, rails and posts are thinner."""


def holds_something(
    cells: Cells, items: list[tuple[float, Rect]], declaration: Declaration | None
) -> list[Candidate] | None:
    """Return what is in a container that is declared empty; None where it is not declared so.

    items : score and place of compact items in free space, which may be smaller than what is looked for here
    """
    if declaration is None or declaration.declared_empty is not True:
        return None
    thing = cells.above > DEPTH
    thing[: cells.roof] = thing[cells.floor - 1 :] = False
    thing[:, : cells.left] = thing[:, cells.right :] = False
    thin = cells.cells(THIN_MM)
    found = list(items)
    for blob in blobs(opened(thing, thin, thin)):
        excess = float(cells.above[blob.window][blob.own].mean())
        score = excess * 100 * float(np.sqrt(blob.area)) / cells.depth.shape[0]
        found.append((score, cells.at(blob.x, blob.y, blob.x + blob.w, blob.y + blob.h)))
    result = []
    for score, at in found:
        inside, around = cells.cargo.levels(at)
        words = (
            f"declared empty, but something is there, {cells.cargo.place(at)}: {cells.cargo.darker(inside, around)}; "
            f"score {score:.1f}, depth x size"
        )
        result.append(Candidate(KIND, score, at, words))
    return result
