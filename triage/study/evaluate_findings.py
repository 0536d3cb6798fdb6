"""`scanlane evaluate findings`: how often each kind of specific finding names what it is for, and how often it errs.

On simulated vehicles alone, with the simulator's own threats, which no detector may import: real scans with threats are
not to be had. Every kind is asked on clean vehicles (of all kinds of cargo) and on vehicles with the threat it is for:

    asked       vehicles on which its question arises
    named       threats at whose place a finding of the kind was told; alarm budget and all
    any         threats at whose place anything was told, of whatever kind
    pod         threats at whose place the kind's score is above what 5 % and 1 % of the clean vehicles reach, those on
                which it is not asked included: what a calibrated lane would flag by this kind alone
    notes, reviews   findings of the kind per clean vehicle

A place is right where the smaller of the two boxes is covered by a quarter. Threats that the simulator could not place
are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any

import msgspec
import numpy as np

from scanner_io import driver as drivers
from scanner_io.model import Box, DeclarationSeen, LineBlock, Radiograph, Scan, ScanStart
from triage.analysis import pipeline
from triage.analysis.kinds import KINDS, search
from triage.analysis.known import Asked
from triage.study.image_statistics import wilson

CASES: tuple[tuple[str, str], ...] = (
    ("dense_object", "dense_block"),
    ("dense_object", "lead_box"),
    ("pattern_break", "brick_stack"),
    ("void", "void"),
    ("extra_item_in_free_space", "extra_item"),
    ("false_wall", "false_wall"),
    ("door_end_item", "door_bags"),
    ("person_sized", "person"),
    ("declared_empty_holds_something", "declared_empty"),
)
"""Kind of finding, and the threat that it is for."""
COVERED = 0.25


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """One vehicle.

    scores : per kind asked, of its strangest candidate; at_threat : the same of candidates at the threat's place
    told : kind and tier of every finding; told_there : kinds of those at the threat's place
    """

    cargo: str
    threat: str
    scores: dict[str, float]
    at_threat: dict[str, float]
    told: tuple[tuple[str, str], ...]
    told_there: tuple[str, ...]


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    index: int
    threat: str


def look_at(work: _Work) -> Looked | None:
    """Simulate one vehicle, judge it and compare with the truth; None where no container or no threat came of it."""
    module = drivers.load("simulated")
    threats = {work.threat: 1.0} if work.threat else {}
    config = module.Config(
        seed=work.seed, energies=1, portal=False, threat_share=1.0 if work.threat else 0.0, threats=threats,
        misdeclared_share=0.0,
    )  # fmt: skip
    truth = module.ground_truth(config, work.index)
    if work.threat and truth.threat_box is None:
        return None
    kept: list[Asked] = []
    scan = _scan(module.simulate_passage(config, work.index))
    result, image = pipeline.judged(scan, pipeline.Profile(), look=kept.append)
    if image is None or not kept:
        return None
    found = search(kept[0])
    places = {name: [(c.score, kept[0].cargo.box(c.at)) for c in of if c.at and c.of_many == 1]
              for name, of in found.items()}  # fmt: skip
    box = truth.threat_box
    return Looked(
        cargo=truth.cargo, threat=work.threat, scores=image.scores,
        at_threat={} if box is None else {
            name: max((score for score, at in of if covers(at, box)), default=0.0) for name, of in places.items()
        },
        told=tuple((f.kind, f.tier) for f in result.findings),
        told_there=() if box is None else tuple(
            f.kind for f in image.findings if isinstance(f.where, Box) and covers(f.where, box)
        ),
    )  # fmt: skip


def _scan(events: list[Any]) -> Scan:
    """Return the scan of one passage's events."""
    start = next(e for e in events if isinstance(e, ScanStart))
    blocks = [e for e in events if isinstance(e, LineBlock)]
    papers = next((e.declaration for e in events if isinstance(e, DeclarationSeen)), None)
    radiograph = Radiograph(
        detector=start.detector, counts=(np.concatenate([b.counts[-1] for b in blocks]),),
        column_utc_ns=np.concatenate([b.column_utc_ns for b in blocks]),
    )  # fmt: skip
    return Scan(
        scan_id="sim-20260105T060000.000000Z-00000000", lane="sim", start_utc_ns=start.utc_ns,
        end_utc_ns=int(radiograph.column_utc_ns[-1]), expected=("radiograph", "declaration"), radiograph=radiograph,
        declaration=papers,
    )  # fmt: skip


def covers(a: Box, b: Box) -> bool:
    """True where the two share a quarter of the smaller one."""
    wide = min(a.end_column, b.end_column) - max(a.first_column, b.first_column)
    high = min(a.end_channel, b.end_channel) - max(a.first_channel, b.first_channel)
    smaller = min((r.end_column - r.first_column) * (r.end_channel - r.first_channel) for r in (a, b))
    return wide > 0 and high > 0 and wide * high >= COVERED * smaller


def steps(clean: int, threats: int) -> int:
    """Return how many vehicles are simulated."""
    return clean + threats * len({threat for _, threat in CASES})


def evaluate_findings(
    *, clean: int, threats: int, seed: int, progress: Callable[[], None] = lambda: None, pool: Executor | None = None
) -> dict[str, Any]:
    """Return the report. clean, threats : vehicles without one, and with each."""
    names = list(dict.fromkeys(threat for _, threat in CASES))
    work = [_Work(seed=seed, index=i, threat="") for i in range(clean)]
    work += [_Work(seed=seed + 1 + n, index=i, threat=name) for n, name in enumerate(names) for i in range(threats)]
    looked: list[Looked] = []
    for one in pool.map(look_at, work, chunksize=4) if pool else map(look_at, work):
        progress()
        if one is not None:
            looked.append(one)
    innocent = [one for one in looked if not one.threat]
    return {
        "simulated": True, "seed": seed, "clean": len(innocent),
        "kinds": {kind: _clean(innocent, kind) for kind in KINDS},
        "threats": [_case(innocent, looked, kind, threat) for kind, threat in CASES],
    }  # fmt: skip


def _clean(innocent: list[Looked], kind: str) -> dict[str, Any]:
    notes = [sum(k == kind and t == "note" for k, t in one.told) for one in innocent]
    reviews = [sum(k == kind and t == "review" for k, t in one.told) for one in innocent]
    n = max(len(innocent), 1)
    return {
        "asked": sum(kind in one.scores for one in innocent), "notes_per_scan": sum(notes) / n,
        "reviews_per_scan": sum(reviews) / n, "scans_told": sum(a + b > 0 for a, b in zip(notes, reviews, strict=True)),
    }  # fmt: skip


def _case(innocent: list[Looked], looked: list[Looked], kind: str, threat: str) -> dict[str, Any]:
    with_it = [one for one in looked if one.threat == threat]
    usual = np.array([one.scores.get(kind, 0.0) for one in innocent] or [0.0])
    there = np.array([one.at_threat.get(kind, 0.0) for one in with_it])
    report: dict[str, Any] = {
        "kind": kind, "threat": threat, "vehicles": len(with_it),
        "asked": sum(kind in one.scores for one in with_it),
        "named": share(sum(kind in one.told_there for one in with_it), len(with_it)),
        "any": share(sum(bool(one.told_there) for one in with_it), len(with_it)),
    }  # fmt: skip
    for far in (0.05, 0.01):
        above = float(np.quantile(usual, 1 - far, method="higher"))
        report[f"pod_far{100 * far:g}"] = share(int((there > above).sum()), len(with_it)) | {"threshold": above}
    return report


def share(hits: int, of: int) -> dict[str, float]:
    """Return a share with its 95 % interval."""
    low, high = wilson(hits, of)
    return {"value": hits / of if of else 0.0, "low": low, "high": high}


def rows(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table, the head first."""
    yield "kind", "threat", "asked", "named", "anything told there", "POD @ FAR 5 %", "@ 1 %", "told on clean scans"
    for case in report["threats"]:
        kind = report["kinds"][case["kind"]]
        yield (
            case["kind"], case["threat"], f"{case['asked']}/{case['vehicles']}",
            *(
                f"{100 * case[k]['value']:.0f} ({100 * case[k]['low']:.0f}-{100 * case[k]['high']:.0f})"
                for k in ("named", "any", "pod_far5", "pod_far1")
            ),
            f"{kind['scans_told']}/{report['clean']}",
        )  # fmt: skip
