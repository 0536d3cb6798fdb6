"""Whether selection works: what the chosen held against what was drawn at random, by rule, with what it cost."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from scanner_io.errors import ConfigError, StorageError
from triage.analysis import risk, selection
from triage.analysis.selection import Stage
from triage.analysis.shares import share, words
from triage.policy.scenario import Scenario

from . import risk_store
from .risk_archive import Passage, passages
from .selecting import Kept, Run
from .store import Place, reading

LIMITS = (
    "A hit is a passage that an analyst sent on to inspection and that no code calls empty-handed; found is what a "
    "code of the decision says was found.",
    "What nobody has decided yet is in no rate. Passages drawn at random stand for all; those chosen by risk do not.",
    "A cost is that of an analyst's look and, where it was sent on, of the opening; it is shared among the rules that "
    "raised the score, by their points. What a find is worth is not in it.",
)


def report(
    place: Place, stage: Stage, profiles: Path | None, site: Scenario, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of all recorded selections of one stage. Raises StorageError where there are none.

    site : whose costs of an analyst's hour and of an opening are used, each with its source
    """
    runs, kept = _recorded(place, stage)
    if not kept:
        raise StorageError(f"{place}: no selection of stage {stage} is recorded; see `scanlane selection run --record`")
    rows = []
    simulated = 0
    for passage in passages(place, history=False):
        progress()
        if passage.scan_id in kept:
            run, one = kept[passage.scan_id]
            rows.append((passage, run, one))
            simulated += passage.simulated
    ways = {
        "random": [r for r in rows if r[2].choice.random],
        "risk": [r for r in rows if r[2].choice.rank > 0],
        "must": [r for r in rows if r[2].candidate.must],
        "not chosen": [r for r in rows if not r[2].choice.chosen],
    }
    used = sorted({r.profile_sha256 for r in runs.values()})
    told: dict[str, Any] = {
        "stage": stage, "runs": len(runs), "candidates": len(rows), "simulated": simulated,
        "profiles": sorted({r.profile for r in runs.values()}),
        "ways": {name: _way(members) for name, members in ways.items()},
        "rules": _rules(rows, site), "expired": [], "profiles_not_found": [],
        "fairness": selection.fairness([r[2].candidate for r in rows], {r[0].scan_id: r[2].choice for r in rows}),
        "costs": {k: {"value": getattr(site.costs, k), "source": site.sources[f"costs.{k}"]}
                  for k in ("analyst_hour", "opening")},
        "limits": list(LIMITS),
    }  # fmt: skip
    today = datetime.datetime.now(datetime.UTC).date()
    for sha256 in used:
        try:
            profile = risk_store.load(sha256, profiles) if profiles is not None else None
        except ConfigError as error:
            profile = None
            told["profiles_not_found"].append(f"{sha256[:12]}: {error}")
        for rule in risk.expired(profile, today) if profile is not None else ():
            told["expired"].append({
                "profile": profile.identity if profile else "", "rule": rule.id, "owner": rule.owner,
                "valid_to": str(rule.valid_to),
            })  # fmt: skip
    if profiles is None:
        told["profiles_not_found"].append("give --profiles to see which of their rules have expired")
    told["risk_finds_more_than_chance"] = _above(told["ways"]["risk"]["hit_rate"], told["ways"]["random"]["hit_rate"])
    return told


def _recorded(place: Place, stage: Stage) -> tuple[dict[str, Run], dict[str, tuple[Run, Kept]]]:
    """Return the runs, and by passage the last that it was a candidate of: with late papers there is more than one."""
    with reading(place) as reader:
        runs = {
            name: msgspec.json.decode(bytes(told), type=Run)
            for name, told in reader.rows("SELECT run, told FROM selection_runs WHERE stage=?", (stage,))
        }
        kept = {
            scan_id: (runs[run], msgspec.json.decode(bytes(told), type=Kept))
            for run, scan_id, told in reader.rows(
                "SELECT run, scan_id, selections.told FROM selections JOIN selection_runs USING (run) WHERE stage=? "
                "ORDER BY utc_ns, run", (stage,),
            )
        }  # fmt: skip
    return runs, kept


def _way(rows: list[tuple[Passage, Run, Kept]]) -> dict[str, Any]:
    decided = [p for p, _, _ in rows if p.hit is not None]
    return {
        "passages": len(rows), "undecided": len(rows) - len(decided), "found": sum(p.found for p in decided),
        "hit_rate": share(sum(bool(p.hit) for p in decided), len(decided)),
    }  # fmt: skip


def _rules(rows: list[tuple[Passage, Run, Kept]], site: Scenario) -> dict[str, Any]:
    """Return by rule: the passages it raised and that were chosen, what came of them, and its part of the cost."""
    found: dict[str, dict[str, Any]] = {}
    for passage, run, one in rows:
        raising = [c for c in one.assessment.contributions if c.points > 0]
        total = sum(c.points for c in raising)
        looked = passage.hit is not None
        cost = looked * run.plan.pace.look_s / 3600 * site.costs.analyst_hour
        cost += (passage.verdict == "inspect") * site.costs.opening
        for c in raising:
            entry = found.setdefault(
                c.rule, {"counted": 0, "assumed": 0, "chosen": 0, "decided": 0, "hits": 0, "found": 0, "alone": 0,
                         "cost_usd": 0.0}
            )  # fmt: skip
            entry["counted"] += 1
            entry["assumed"] += c.assumed
            if one.choice.chosen:
                entry["chosen"] += 1
                entry["decided"] += looked
                entry["hits"] += bool(passage.hit)
                entry["found"] += passage.found
                entry["alone"] += len(raising) == 1 and bool(passage.hit)
                entry["cost_usd"] += cost * c.points / total
    for entry in found.values():
        hits, entry["cost_usd"] = entry.pop("hits"), round(entry["cost_usd"], 2)
        entry["hit_rate"] = share(hits, entry.pop("decided"))
        entry["cost_per_hit_usd"] = round(entry["cost_usd"] / hits, 2) if hits else None
    return dict(sorted(found.items()))


def _above(risk_rate: dict[str, Any], random_rate: dict[str, Any]) -> bool | None:
    """Tell whether the intervals say that risk finds more than chance; None where they overlap: nobody knows yet."""
    if risk_rate["low"] > random_rate["high"]:
        return True
    return False if risk_rate["high"] < random_rate["low"] else None


VERDICT = {
    True: "Selection by risk finds more than a draw at random.",
    False: "Selection by risk finds LESS than a draw at random.",
    None: "The intervals overlap: there are too few decided passages to say that risk finds more than chance.",
}


def html(told: dict[str, Any]) -> str:
    """Return the report as one page without anything outside it."""
    ways = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{one['passages']}</td><td>{one['undecided']}</td>"
        f"<td>{escape(words(one['hit_rate']))}</td><td>{one['found']}</td></tr>"
        for name, one in told["ways"].items()
    )
    rules = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{one['counted']}</td><td>{one['chosen']}</td>"
        f"<td>{escape(words(one['hit_rate']))}</td><td>{one['alone']}</td><td>{one['found']}</td>"
        f"<td>{one['cost_usd']:.2f}</td><td>{_money(one['cost_per_hit_usd'])}</td></tr>"
        for name, one in told["rules"].items()
    )
    fair = "".join(
        f"<tr><th scope=row>{escape(trait)}: {escape(value)}</th><td>{escape(words(one['chosen']))}</td>"
        f"<td>{escape(words(one['by_risk']))}</td><td>{'differs from all' if one['differs'] else ''}</td></tr>"
        for trait, values in told["fairness"]["traits"].items()
        for value, one in values.items()
    )
    expired = "".join(
        f"<li>{escape(e['rule'])} ({escape(e['owner'])}) expired on {escape(e['valid_to'])}, in "
        f"{escape(e['profile'])}</li>"
        for e in told["expired"]
    )
    return PAGE.format(
        stage=escape(told["stage"]), candidates=told["candidates"], runs=told["runs"],
        simulated=f"<strong>{told['simulated']} of them are simulated.</strong>" if told["simulated"] else "",
        verdict=VERDICT[told["risk_finds_more_than_chance"]], profiles=escape(", ".join(told["profiles"])),
        ways=ways, rules=rules, fair=fair, expired=expired or "<li>none that is known</li>",
        missing="".join(f"<li>{escape(m)}</li>" for m in told["profiles_not_found"]),
        limits="".join(f"<li>{escape(line)}</li>" for line in told["limits"]),
        costs="".join(
            f"<tr><th scope=row>{escape(k)} (USD)</th><td>{c['value']:g}</td><td>{escape(c['source'])}</td></tr>"
            for k, c in told["costs"].items()
        ),
    )  # fmt: skip


def _money(value: float | None) -> str:
    return "no hit" if value is None else f"{value:.2f}"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Selection: what it found</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: right; padding: .3rem .6rem;
border-bottom: 1px solid #ddd }} th[scope=row] {{ text-align: left; font-weight: normal }}
</style>
<h1>Selection: what it found</h1>
<p>Stage {stage}: {candidates} passages in {runs} recorded runs by {profiles}. {simulated} Intervals are exact,
95 %.</p>
<p><strong>{verdict}</strong></p>
<h2>Chosen by risk against drawn at random</h2>
<table><thead><tr><th></th><th>passages</th><th>undecided</th><th>hits of decided</th><th>found</th></tr></thead>
<tbody>{ways}</tbody></table>
<h2>By rule</h2>
<table><thead><tr><th></th><th>counted</th><th>chosen</th><th>hits of decided</th><th>hits it alone raised</th>
<th>found</th><th>cost (USD)</th><th>per hit (USD)</th></tr></thead><tbody>{rules}</tbody></table>
<h2>Rules that have expired</h2><ul>{expired}{missing}</ul>
<h2>Who is chosen how often</h2>
<table><thead><tr><th></th><th>chosen</th><th>by risk alone</th><th></th></tr></thead><tbody>{fair}</tbody></table>
<h2>What this shows, and what it does not</h2><ul>{limits}</ul>
<h2>Costs and their sources</h2><table><tbody>{costs}</tbody></table>
</html>
"""
