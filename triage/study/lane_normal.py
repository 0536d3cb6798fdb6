"""What a lane's calibration learns beside scores: the history of declared goods, and the normal of a search by a fuser.

Both are learned from scans of their own, every third of the archive, which are not ranked among afterwards: a scan that
is compared with itself looks usual. So what is ranked has been judged by the very same history and normal that judge
the scans to come, and is exchangeable with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from scanner_io.lane_profile import Extra
from triage.analysis import goods_history
from triage.analysis.fuser import Fuser, to_bytes
from triage.analysis.maps import Maps
from triage.analysis.normal import Normal, learn_normals
from triage.analysis.standing import FUSER, GOODS
from triage.analysis.unlike import look_at
from triage.study.train_fuser import thresholds_of

MOST_MAPS = 48
"""Scans that a lane's own normal is learned from: their maps fit into the memory of a lane's machine."""
LEAST_MAPS = 16
_FOLDS = 8

Load = tuple[str, tuple[float, ...]]
"""Chapter and traits of a load."""


def learned_goods(loads: Sequence[Load]) -> Extra | None:
    """Return the history of what was declared, None where no chapter has enough scans."""
    history = goods_history.learn([(chapter, np.array(traits)) for chapter, traits in loads if chapter.isdecimal()])
    return Extra(facts=msgspec.to_builtins(history)) if history.chapters else None


def learned_fuser(maps: Sequence[Maps], trained: Fuser, seed: int = 1) -> Extra | None:
    """Return `trained` with what is normal on the lane instead of where it was trained; None from too few scans."""
    if len(maps) < LEAST_MAPS:
        return None
    own = own_fuser(maps, trained, np.random.default_rng(seed))
    return Extra(
        facts={"scans": len(maps), "looks_known": own.normal.familiar is not None},
        arrays={"npz": np.frombuffer(to_bytes(own), np.uint8)},
    )


def own_fuser(maps: Sequence[Maps], trained: Fuser, rng: np.random.Generator) -> Fuser:
    """Return the trees of `trained` with what is normal among `maps` of a lane's clean scans.

    Thresholds by texture are measured on every eighth of the scans by what is normal among the others.
    """
    groups = [str(i % _FOLDS) for i in range(len(maps))]
    normal, others = learn_normals(maps, rng, groups)

    def by(usual: Normal, thresholds: dict[str, dict[str, float]]) -> Fuser:
        return msgspec.structs.replace(trained, normal=usual, thresholds=thresholds)

    found = []
    for one, group in zip(maps, groups, strict=True):
        seen = look_at(one, by(others[group], {}))
        found.append((seen.texture, [place.score for place in seen.places]))
    return by(normal, thresholds_of(found))


def extras_of(goods: Extra | None, fuser: Extra | None) -> dict[str, Extra]:
    """Return what was learned, by the names under which judgement looks for it."""
    return {name: extra for name, extra in ((GOODS, goods), (FUSER, fuser)) if extra is not None}
