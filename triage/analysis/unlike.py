"""Places unlike their surroundings: the search of a whole container, trained where a fuser is at hand.

The scale of its scores is how rare such a place is in clean scans: 1 for what one place per clean scan reaches, 2 for
one place in ten scans, linear in log odds between and beyond. Thresholds belong to textures, because one restless
texture would else fill its screens with what the others never show. A load whose texture is far from everything that
was learnt from is no reason for many alarms: it is said once that it is not known, and its strangest place is a note at
most. But it always asks for a review, on a calibrated lane as well: no p-value speaks for what nothing was learnt of.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Finding

from .cargo_grid import CargoGrid, Rect, straightened
from .container import Frame
from .fuser import Fuser
from .maps import CELL, COLUMNS, ROWS, Map, Maps, maps_of, with_bank
from .normal import LEAST_KNOWN, LITTLE, loaded, unfamiliarity, untrained_score
from .places import Place, places_of, smoothed
from .regions import Candidate, Region

Array: TypeAlias = NDArray[Any]

GRID = (ROWS, 2 * CELL, *COLUMNS)
"""Rows, multiple, least and most columns of a straightened container, as `straightened` takes them."""
DROP = 1.0
"""How far below its peak the log odds may be inside a place."""
CROWD, CROWD_SHARE = 0.3, 97.0
"""So much of the container's own 97th percentile is taken from the log odds: what has a crowd of its like is less worth
an analyst's time than what stands alone. Chosen on insertions of the training family into held-out scans, where it
found two in a hundred more."""
_UNTRAINED_DROP = 0.4
"""The same for the sum of normalised maps, as a share of the highest peak."""
TEXTURE_UNKNOWN = "texture_unknown"
_STRANGEST = 100.0
_UNKNOWN_MOST = 1.0
"""Highest score of a place in a load of unknown texture: nothing is claimed of how rare it is, it can be a note."""


class Seen(NamedTuple):
    """What the search of a container saw.

    maps : with the bank; texture : of the load, see `texture_of`
    places : with scores on the fuser's own scale, best first
    strange : how far the load is from what was learnt from, 1 at the limit of what is known, infinite where too little
        was learnt from; None where the load is little
    """

    maps: Maps
    texture: str
    places: list[Place]
    strange: float | None


def look(transmission: Array, opaque_t: float, fuser: Fuser, *, map_parts: Map = map) -> Seen:
    """Return what is seen in a straightened container.

    transmission : (ROWS, columns) float32; opaque_t : below which nothing can be claimed
    """
    return look_at(maps_of(transmission, opaque_t, map_parts=map_parts), fuser, map_parts=map_parts)


def look_at(maps: Maps, fuser: Fuser, *, map_parts: Map = map) -> Seen:
    """Return what is seen in a container of which the maps are there."""
    maps = with_bank(maps, fuser.normal.bank, map_parts=map_parts)
    if fuser.trees is None:
        smooth = smoothed(untrained_score(maps, fuser.normal), maps.seen)
        drop = _UNTRAINED_DROP * float(smooth[maps.seen].max(initial=0.0))
    else:
        smooth = smoothed(fuser.score(maps, fuser.normal, map_parts=map_parts), maps.seen)
        if maps.seen.any():
            smooth -= np.float32(CROWD * np.percentile(smooth[maps.seen], CROWD_SHARE))
        drop = DROP
    far = unfamiliarity(maps)
    familiar = fuser.normal.familiar
    strange = None if far is None else far / familiar if familiar else float("inf")
    return Seen(maps, texture_of(maps), places_of(smooth, drop), strange)


def texture_of(maps: Maps) -> str:
    """Return what the load looks like: "empty", "homogeneous" or "restless"; thresholds are learnt for each."""
    load = loaded(maps)
    if load.mean() < LITTLE:
        return "empty"
    return "homogeneous" if float(np.median(maps.values["std_21"][load])) < 0.12 else "restless"


def rarity(score: float, texture: str, fuser: Fuser) -> float:
    """Return a place's score on the common scale: 1 for one place per clean scan, 2 for one in ten scans.

    Where the fuser knows no thresholds the score stays as it is.
    """
    limits = fuser.thresholds.get(texture) or fuser.thresholds.get("any")
    if limits is None:
        return score
    return 1.0 + (score - limits["one"]) / max(limits["tenth"] - limits["one"], 1e-6)


def suspicious_regions(
    upright: Array, frame: Frame, fuser: Fuser, opaque_t: float, *, map_parts: Map = map
) -> list[Region]:
    """Return the strangest places of an image, best first, scored by how rare they are.

    upright : (rows, columns) float32, transmission of the whole image
    """
    grid, to_grid = straightened(upright, frame.corners, *GRID)
    return regions_of(look(grid, opaque_t, fuser, map_parts=map_parts), to_grid, fuser)


def regions_of(seen: Seen, to_grid: Array, fuser: Fuser) -> list[Region]:
    """Return what was seen as regions of the image from which `to_grid`, (3, 3), leads to the straightened one."""
    back = np.linalg.inv(to_grid)
    found = []
    for place in seen.places:
        x0, y0, x1, y1 = place.at
        points = np.array([(place.peak[0] + 0.5, place.peak[1] + 0.5), (x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        points = cv2.perspectiveTransform(CELL * points[None].astype(np.float64), back)[0]
        low, high = points[1:].min(axis=0), points[1:].max(axis=0)
        peak = (float(points[0, 0]), float(points[0, 1]))
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        found.append(Region(rarity(place.score, seen.texture, fuser), peak, box))
    return found


# -- as findings


def look_into(cargo: CargoGrid, fuser: Fuser, *, map_parts: Map = map) -> Seen:
    """Return what is seen in the container of a judgement."""
    return look(cargo.straight(*GRID), cargo.opaque_t, fuser, map_parts=map_parts)


def unlike_candidates(cargo: CargoGrid, seen: Seen, fuser: Fuser) -> list[Candidate]:
    """Return places unlike their surroundings, those that clean scans show more often than once left out."""
    found = []
    known = not texture_unknown(seen)
    for place in seen.places if known else seen.places[:1]:
        score = rarity(place.score, seen.texture, fuser)
        score = score if known else min(score, _UNKNOWN_MOST)
        if score <= 0:
            continue
        at = _on_grid(place.at, seen, cargo)
        inside, around = cargo.levels(at)
        words = (
            f"unlike its surroundings {cargo.place(at)}: {cargo.darker(inside, around)}; "
            f"{_why(seen.maps, place, fuser)}; score {score:.1f}, 1 is what one place per clean scan reaches"
        )
        found.append(Candidate("unlike_its_surroundings", score, at, words))
    return found


def texture_unknown(seen: Seen) -> bool:
    """True where the load looks like nothing that was learnt from."""
    return seen.strange is not None and seen.strange > 1.0


def unlike_all_that_was_learnt(seen: Seen, fuser: Fuser) -> list[Finding]:
    """Return that the load's texture is not known, if so."""
    if seen.strange is None or not texture_unknown(seen):
        return []
    if seen.strange == float("inf"):
        words = f"fewer than {LEAST_KNOWN} of the {fuser.normal.scans} clean scans that were learnt from were loaded"
    else:
        words = (
            f"the load looks like none of the {fuser.normal.scans} clean scans that were learnt from (its patches are "
            f"{seen.strange:.1f} times as far from theirs as 95 % of clean loads are)"
        )
    return [not_known(words, min(seen.strange, _STRANGEST))]


def not_known(words: str, score: float = 1.0) -> Finding:
    """Return the finding of a load whose look is not known. words : why"""
    return Finding(
        kind=TEXTURE_UNKNOWN, score=score, reason=f"{words}: how rare its places are is not known", tier="review"
    )


_REASONS = {
    "self_16": "nothing like it is found elsewhere in this container",
    "self_32": "nothing as large and like it is found elsewhere in this container",
    "bank_16": "nothing like it is known from clean scans",
    "low_rank": "the rest of the load does not explain it",
    "z_21_81": "it stands out by its contrast",
    "over_row": "it differs from the rest of its height",
    "rx": "its brightness, edges and grain together differ from what is around it",
}


def _why(maps: Maps, place: Place, fuser: Fuser) -> str:
    """Return the strongest reasons in words, each with how many times what is usual at that place it is."""
    x0, y0, x1, y1 = place.at
    tables = fuser.normal.tables
    times = {
        name: float(np.abs(tables.normalised(name, maps.values[name])[y0:y1, x0:x1]).max())
        for name in _REASONS
        if name in tables.names and name in maps.values
    }
    best = sorted(times, key=lambda name: -times[name])[:2]
    told = [f"{_REASONS[name]} ({times[name]:.1f} times the usual there)" for name in best if times[name] > 1.0]
    return " and ".join(told) or "no single measure is unusual there, only all together"


def _on_grid(at: Rect, seen: Seen, cargo: CargoGrid) -> Rect:
    """Return a rectangle of cells as one of the judgement's grid."""
    rows, columns = cargo.depth.shape
    sy, sx = rows / seen.maps.shape[0], columns / seen.maps.shape[1]
    x0, y0 = int(at[0] * sx), int(at[1] * sy)
    return x0, y0, max(x0 + 1, min(columns, round(at[2] * sx))), max(y0 + 1, min(rows, round(at[3] * sy)))
