"""What the demo stages: papers that contradict, or explain, what is seen, each in a vehicle of its own. SIMULATED.

    declared empty     a heavy load, declared as an empty container
    weight 6 t off     a light load, declared six tonnes too heavy. The mass by two energies is an interval of some tens
                       of percent: in a light load 6 t stand out, in a heavy one they do not
    gamma and tiles    tiles or granite, radioactive by nature and declared as what they are: the excess is explained

Which vehicles come is drawn by the lane's seed; one is taken with such vehicles among the first, whose containers the
cameras read right. What the machine makes of them is its own affair, and is told beside what was staged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scanner_io.formats.cargo import CargoMessage
from scanner_io.model import TriageResult

from .risk_archive import passages

HEAVY_KG, LIGHT_GROSS_KG, OFF_KG = 8_000.0, 7_000.0, 6_000.0
NORM_PER_S = (700.0, 1_700.0)
"""Counts of the load at its highest: a weaker one may hide in its own shadow, a stronger one is more than tiles give
over the background of a simulated portal (some 1500 a second)."""
SEEDS = 300
STONE = ("690721", "680223")
WORDS = {
    "empty": "declared empty, is loaded", "weight": "declared 6 t too heavy, light load",
    "tiles": "radioactive by nature, declared as tiles or granite",
}  # fmt: skip


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """One staged vehicle. index : among those of its lane; container : its number"""

    kind: str
    lane: str
    index: int
    container: str


def chosen(module: Any, lane: str, settings: dict[str, Any], wanted: Sequence[str]) -> tuple[int, list[Staged]]:
    """Return a seed whose vehicles allow most of what is wanted, and which these are.

    module : the simulated lane; settings : of its Config, with the first seed to try
    """
    best: tuple[int, list[Staged]] = (settings["seed"], [])
    for seed in range(settings["seed"], settings["seed"] + SEEDS):
        config = module.Config(**{**settings, "seed": seed})
        found: dict[str, Staged] = {}
        for index in range(config.vehicles):
            for kind in wanted:
                if kind not in found and index not in {f.index for f in found.values()}:
                    container = _fits(module, config, index, kind)
                    if container:
                        found[kind] = Staged(kind=kind, lane=lane, index=index, container=container)
        if len(found) > len(best[1]):
            best = seed, list(found.values())
        if len(found) == min(len(wanted), config.vehicles):
            break
    return best


def _fits(module: Any, config: Any, index: int, kind: str) -> str:
    """Return the container of a vehicle that a kind can be staged with, "" where it cannot."""
    plan = module.plan(config, index)
    truth, papers = plan.truth, plan.declaration
    read = [e.text for _, e in module.cameras(config, plan, 0) if e.kind == "container"]
    if len(papers.container_numbers) != 1 or list(papers.container_numbers) != read or truth.misdeclared:
        return ""
    fits = {
        "empty": truth.load == "loaded" and truth.cargo_kg >= HEAVY_KG,
        "weight": truth.load == "loaded" and truth.cargo_kg + truth.tare_kg <= LIGHT_GROSS_KG,
        "tiles": NORM_PER_S[0] <= truth.gamma_counts_per_s + truth.norm_counts_per_s <= NORM_PER_S[1]
        and truth.gamma_x_mm is None and papers.hs_codes in {(code,) for code in STONE},
    }  # fmt: skip
    return str(papers.container_numbers[0]) if fits[kind] and not truth.threat else ""


def papers(message: CargoMessage, kind: str) -> CargoMessage:
    """Return what is declared in a staged vehicle's message."""
    (box,) = message.equipment
    if kind == "empty":
        box = msgspec.structs.replace(box, full=False, gross_kg=box.tare_kg, seals=())
        bills = tuple(msgspec.structs.replace(c, goods=()) for c in message.consignments)
        return msgspec.structs.replace(message, equipment=(box,), consignments=bills)
    if kind == "weight":
        box = msgspec.structs.replace(box, gross_kg=(box.gross_kg or 0.0) + OFF_KG)
        return msgspec.structs.replace(message, equipment=(box,))
    return message


def seen(outbox: Path, staged: Sequence[Staged]) -> list[dict[str, Any]]:
    """Return beside each staged vehicle what the machine said of its papers."""
    results: dict[str, TriageResult] = {}
    for passage in passages(outbox, history=False):
        if passage.declaration is not None:
            results |= dict.fromkeys(passage.declaration.container_numbers, passage.result)
    told = []
    for one in staged:
        result = results.get(one.container)
        found = [] if result is None else [f for f in result.findings if _concerns(one.kind, f.kind)]
        told.append({
            "staged": one.kind, "words": WORDS[one.kind], "container": one.container,
            "outcome": None if result is None else result.outcome, "kinds": [f.kind for f in found],
            "reason": found[0].reason if found else "not told",
        })  # fmt: skip
    return told


def _concerns(staged: str, kind: str) -> bool:
    return {
        "empty": kind == "declared_empty_but_loaded", "weight": kind == "mass_differs",
        "tiles": kind in ("goods_explain", "goods_do_not_explain"),
    }[staged]  # fmt: skip
