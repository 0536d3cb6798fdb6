"""Something of the size and density of a person in free space: in the headspace, on the load, on the floor.

A person is 25 cm of water or less: a third to a tenth of the wall's transmission is left, never all of it gone. The
outline is rounded and fills half to four fifths of its box, where boxes fill all of theirs; the area is that of a
person who stands, sits or lies. Nothing of this tells a person from a sack or a roll of the same size: the kind is
worth a look where free space is the rule, and says nothing of people behind or among goods.
"""

from __future__ import annotations

import numpy as np

from .cells import Blob, Cells, alike, blobs, opened
from .regions import Candidate

KIND = "person_sized"
NOTE = 0.4
"""Of a score from 0 to 1, the product of how well size, density, outline and surroundings fit."""
AREA_M2 = (0.22, 1.0)
ITEM_M2 = (0.03, 2.0)
"""Of things that the likeness is shared among."""
CROWD = 3
"""Among more things of their size each says less."""
LONG_MM = (650.0, 2000.0)
SHORT_MM = 220.0
LEAST_FREE = 0.4
DEPTH = (0.3, 1.7)
"""-ln T above the bare container, mean of the blob: 7 to 40 cm of water at 6 MV; clothes and scatter widen it."""
DEEPEST = 2.2
"""-ln T that no part of a person reaches."""


def person_sized(cells: Cells) -> list[Candidate]:
    """Return what has the size and density of a person, in otherwise free space."""
    body = (cells.above > 0.5 * DEPTH[0]) & (cells.above < DEEPEST)
    body[: cells.roof] = body[cells.floor :] = False
    body[:, : cells.left] = body[:, cells.right :] = False
    # the edge of a load is thinner than limbs; trunk, legs and head may come apart at what joins them
    limb, joint = cells.cells(100), cells.cells(150)
    parts = ~opened(~opened(body, limb, limb), joint, joint)
    items = [b for b in blobs(parts) if ITEM_M2[0] <= cells.square_m(b.area) <= ITEM_M2[1]]
    free = [cells.free_around(b) for b in items]
    # among many things in free space one more says nothing: clutter, machines; edges of the load are none
    total = sum(b.area for b, f in zip(items, free, strict=True) if f >= LEAST_FREE)
    crowded = [min(1.0, CROWD * b.area / max(total, b.area)) for b in items]
    found = [(_likeness(cells, b, f) * c, b) for b, f, c in zip(items, free, crowded, strict=True)]
    found = [f for f in found if f[0] > 0]
    places = [cells.at(b.x, b.y, b.x + b.w, b.y + b.h) for _, b in found]
    result = []
    row = [(score, at) for (score, _), at in zip(found, places, strict=True)]
    for (score, blob), at in zip(found, places, strict=True):
        inside, around = cells.cargo.levels(at)
        size = f"{blob.w * cells.cell_mm / 1000:.1f} m x {blob.h * cells.cell_mm / 1000:.1f} m"
        about = "" if cells.told else " if the container is 2.7 m high"
        words = (
            f"rounded item in free space ({size}{about}), {cells.cargo.place(at)}: "
            f"{cells.cargo.darker(inside, around)}; size, density and outline fit by {score:.2f} of 1"
        )
        many = alike(at, score, row)
        result.append(Candidate(KIND, score, at, words, many if many >= 3 else 1))
    return result


def _likeness(cells: Cells, blob: Blob, free: float) -> float:
    """Return how well a blob fits a person, 0 to 1."""
    short, long = sorted((blob.w, blob.h))
    area = cells.square_m(blob.area)
    if not (AREA_M2[0] <= area <= AREA_M2[1] and LONG_MM[0] <= long * cells.cell_mm <= LONG_MM[1]):
        return 0.0
    if short < cells.cells(SHORT_MM):
        return 0.0
    inside = cells.above[blob.window][blob.own]
    mean = float(inside.mean())
    if not DEPTH[0] <= mean <= DEPTH[1]:
        return 0.0
    density = float(np.exp(-((np.log(mean / 0.8) / 0.7) ** 2)))
    fills = blob.area / (blob.w * blob.h)
    outline = float(np.clip((1.0 - fills) / 0.15, 0.0, 1.0)) if fills > 0.6 else float(np.clip(fills / 0.4, 0.0, 1.0))
    return float(density * outline * np.clip((free - 0.2) / 0.4, 0.0, 1.0))
