"""How often a simulated vehicle is joined to its own declaration, to a wrong one, or to none, with exact intervals.

right     joined to its own declarations and no other; or none joined where none is its own
wrong     joined to a declaration of another vehicle, alone or among others
doubtful  not joined though its declaration is there: the passage goes on without, and says so
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import beta

from triage.analysis.matching import Manifest, Match

from .ocr_errors import Arrival, Gate, arrival, manifest

GATES = {
    "two cameras and plates": Gate(),
    "one camera, no plates": Gate(cameras=1, plates=False),
}
PER_MANIFEST = 500
"""Vehicles that meet one day's declarations."""
AIM_RIGHT, AIM_WRONG = 0.99, 0.001
FATES = ("right", "wrong", "doubtful")


def steps(passages: int) -> int:
    """Return how often progress is told."""
    return len(GATES) * -(-passages // PER_MANIFEST)


def evaluate_matching(
    *, passages: int, seed: int, wrong_join: float = 0.001, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:  # fmt: skip
    """Return the shares of each gate, as a JSON object. The first gate is the one with an aim."""
    report: dict[str, Any] = {
        "simulated": True, "passages": passages, "seed": seed, "wrong_join": wrong_join,
        "aim": {"right": AIM_RIGHT, "wrong": AIM_WRONG}, "gates": {},
    }  # fmt: skip
    for number, (name, gate) in enumerate(GATES.items()):
        report["gates"][name] = _at_gate(gate, passages, [seed, number], wrong_join, progress)
    first = report["gates"][next(iter(GATES))]
    report["met"] = {
        "right": first["all"]["right"]["share"] >= AIM_RIGHT, "wrong": first["all"]["wrong"]["share"] <= AIM_WRONG,
    }  # fmt: skip
    return report


def _at_gate(
    gate: Gate, passages: int, seed: list[int], wrong_join: float, progress: Callable[[], None]
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    counts = {group: Counter[str]() for group in ("all", "read wrong", "undeclared", "two containers", "exact only")}
    expected_wrong, joined = 0.0, 0
    for first in range(0, passages, PER_MANIFEST):
        declared, strangers = manifest(rng, gate)
        known = Manifest(declared)
        exact = {c.number: i for i, c in enumerate(declared)}
        for _ in range(min(PER_MANIFEST, passages - first)):
            one = arrival(rng, gate, declared, strangers)
            found = known.match_all(one.readings, wrong_join)
            fate = fate_of(one, found)
            for group, belongs in (
                ("all", True), ("read wrong", one.spoiled), ("undeclared", not one.truth),
                ("two containers", len(one.containers) > 1),
            ):  # fmt: skip
                counts[group][fate] += belongs
            plain = {exact[r.text] for r in one.readings if r.kind == "container" and r.text in exact}
            counts["exact only"][_fate(one.truth, plain)] += 1
            for match in found:
                if match.state == "matched":
                    joined += 1
                    expected_wrong += 1 - match.confidence
        progress()
    return {
        **{group: shares(told) for group, told in counts.items()},
        "joined": joined, "wrong_by_its_own_confidence": round(expected_wrong, 3),
    }  # fmt: skip


def fate_of(one: Arrival, found: tuple[Match, ...]) -> str:
    """Return what became of a vehicle."""
    return _fate(one.truth, {m.candidates[0] for m in found if m.state == "matched"})


def _fate(truth: frozenset[int], joined: set[int]) -> str:
    return "right" if joined == truth else "wrong" if joined - truth else "doubtful"


def shares(counts: Counter[str]) -> dict[str, Any]:
    """Return counts and shares with 95 % intervals, exact. Source: Clopper and Pearson, Biometrika 26 (1934) 404."""
    n = sum(counts[f] for f in FATES)
    found: dict[str, Any] = {"n": n}
    for fate in FATES:
        k = counts[fate]
        low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
        found[fate] = {"count": k, "share": k / n if n else None, "low": low, "high": high}
    return found


def rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a table: its head, and one line for each gate and group."""
    lines: list[tuple[str, ...]] = [("gate", "of", "passages", *(f"{f} %" for f in FATES))]
    for name, told in report["gates"].items():
        for group, of in (
            ("all", "all vehicles"), ("read wrong", "some reading is wrong or empty"), ("undeclared", "not declared"),
            ("two containers", "two containers"), ("exact only", "all, joined by equal numbers only"),
        ):  # fmt: skip
            share = told[group]
            cells = [
                "-" if not share["n"]
                else f"{100 * share[f]['share']:.2f} ({100 * share[f]['low']:.2f}-{100 * share[f]['high']:.2f})"
                for f in FATES
            ]  # fmt: skip
            lines.append((name, of, str(share["n"]), *cells))
    return lines
