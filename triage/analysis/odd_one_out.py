"""The odd one out among the boxes of one consignment that are declared alike: no history and no training is needed.

Boxes of one shipper with one declared commodity are filled by the same hands with the same goods. Per trait of the
loads the median and the spread of the lot are taken, and a box's deviations are put together, those of density, height
and amount one-sidedly: more than its like is what matters, a box that is less full is the rest of the lot. The spread
of a small lot is rough; so it has a floor, and what a box of a lot of this size must reach is simulated for boxes that
differ by chance alone, the strangest of the lot counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .goods_profile import NAMES
from .load_traits import Traits

LEAST_LOT = 5
ONE_SIDED = ("areal density, in -ln T", "densest tenth, in -ln T", "share that is opaque")
"""Traits of which only more counts."""
IGNORED = ("share of the cargo area that is filled", "unevenness of its height")
"""The last box of a lot is seldom full: how much is in it says nothing."""
FLOORS = {"share that is opaque": 0.05, "height of the load, share of the container's": 0.05}
FLOOR = 0.08
"""Least spread of a trait: loading differs by so much anyway."""
MOST = 8.0
_ROUNDS = 4000


class Odd(NamedTuple):
    """One box of a lot.

    score : root mean square deviation from the lot's median, in its spreads
    p_value : chance that the strangest of so many boxes that differ by chance alone scores as much; traits are taken to
        be independent and bell-shaped, so it orders boxes, and is no promise
    words : in what it differs most
    """

    score: float
    p_value: float
    words: str


def odd_one_out(lot: Sequence[Traits]) -> list[Odd] | None:
    """Return each box's place among the others, in order; None for fewer than LEAST_LOT boxes."""
    if len(lot) < LEAST_LOT:
        return None
    boxes = np.stack(lot)
    used = np.array([name not in IGNORED for name in NAMES])
    sided = np.array([name in ONE_SIDED for name in NAMES])
    floors = np.array([FLOORS.get(name, FLOOR) for name in NAMES])
    middle = np.median(boxes, axis=0)
    spread = np.hypot(1.4826 * np.median(np.abs(boxes - middle), axis=0), floors)
    off = np.clip((boxes - middle) / spread, -MOST, MOST)
    off[:, sided] = np.maximum(off[:, sided], 0)
    off[:, ~used] = 0
    scores = np.sqrt((off**2).sum(axis=1) / used.sum())
    by_chance = _by_chance(len(lot), int(used.sum()), int((used & sided).sum()))
    found = []
    for box, deviation, score in zip(boxes, off, scores, strict=True):
        p = (1 + np.count_nonzero(by_chance >= score)) / (1 + by_chance.size)
        worst = np.argsort(-np.abs(deviation))[:2]
        said = "; ".join(f"{NAMES[i]}: {box[i]:.2f}, the lot {middle[i]:.2f}" for i in worst)
        found.append(Odd(float(score), float(p), said))
    return found


@lru_cache(maxsize=64)
def _by_chance(boxes: int, used: int, sided: int) -> Traits:
    """Return the highest scores of simulated lots of boxes that differ by chance alone, the floor left out."""
    rng = np.random.default_rng(boxes)
    lots = rng.standard_normal((_ROUNDS, boxes, used))
    middle = np.median(lots, axis=1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(lots - middle), axis=1, keepdims=True)
    off = np.clip((lots - middle) / np.maximum(spread, 1e-9), -MOST, MOST)
    off[..., :sided] = np.maximum(off[..., :sided], 0)
    return np.asarray(np.sort(np.sqrt((off**2).mean(axis=2)).max(axis=1)))
