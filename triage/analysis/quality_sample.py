"""Which cleared scans a second reader looks at, and how often readers disagree.

The sample is stratified by lane, look of the load and who cleared it, so that a rare stratum is read too. Within a
stratum scans are ordered by a hash of seed and scan id and the first are taken: seed and algorithm give the same sample
of the same scans again, on any machine, and one more cleared scan does not change who of the others is taken before
whom.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import msgspec

from .shares import share

ALGORITHM = "scanlane quality sample 1"
DIMENSIONS = ("lane", "texture", "analyst")


class Cleared(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A scan that was cleared. texture : look of its load; analyst : who cleared it, `machine`: nobody was asked"""

    scan_id: str
    lane: str
    texture: str
    analyst: str

    @property
    def stratum(self) -> str:
        """The stratum in words."""
        return f"{self.lane} / {self.texture} / {self.analyst}"


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What a second reader said. weight : cleared scans that it stands for; verdict : "" where it was not read yet"""

    cleared: Cleared
    weight: float
    reader: str = ""
    verdict: str = ""


def sample(cleared: Iterable[Cleared], seed: int, part: float, least: int) -> list[tuple[Cleared, float]]:
    """Return the sampled scans with how many cleared ones each stands for, sorted by stratum and scan.

    part : of every stratum, from 0 to 1; least : of every stratum, as far as it has so many
    """
    strata: dict[str, list[Cleared]] = {}
    for one in cleared:
        strata.setdefault(one.stratum, []).append(one)
    found = []
    for stratum, members in sorted(strata.items()):
        wanted = min(max(math.ceil(part * len(members)), least), len(members))
        taken = sorted(members, key=lambda c: order(seed, stratum, c.scan_id))[:wanted]
        found += [(c, len(members) / wanted) for c in sorted(taken)]
    return found


def order(seed: int, stratum: str, scan_id: str) -> bytes:
    """Return what scans of a stratum are ordered by."""
    return hashlib.sha256(f"{ALGORITHM}\0{seed}\0{stratum}\0{scan_id}".encode()).digest()


def disagreement(reads: Iterable[Read]) -> dict[str, Any]:
    """Return how often the second reader would not have cleared: all, and by lane, texture and analyst.

    Intervals are exact for the scans that were read; `weighted` is the estimate for all cleared ones, each stratum by
    its size, without an interval where strata were read unevenly.
    """
    rows = list(reads)
    done = [r for r in rows if r.verdict]
    weight = sum(r.weight for r in done)
    told: dict[str, Any] = {
        "sampled": len(rows), "read": len(done), "unread": len(rows) - len(done), "all": _share(done),
        "weighted": round(sum(r.weight for r in done if r.verdict != "clear") / weight, 5) if weight else None,
    }  # fmt: skip
    for dimension in DIMENSIONS:
        values = sorted({getattr(r.cleared, dimension) for r in rows})
        told[dimension] = {v: _share([r for r in done if getattr(r.cleared, dimension) == v]) for v in values}
    told["reader"] = {v: _share([r for r in done if r.reader == v]) for v in sorted({r.reader for r in done})}
    return told


def _share(rows: list[Read]) -> dict[str, Any]:
    return share(sum(r.verdict != "clear" for r in rows), len(rows))
