"""Policies compared over replications: means with 95 % intervals, one object for scripts and reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from scipy.stats import t as student

from .choices import Choice, choose, names
from .gate import Flow, simulate, storage_days
from .scenario import Scenario
from .traffic import DAY_S, HOUR_S, Bools, Floats, Vehicles, arrivals_s, draw
from .validation import against_theory, examination_minutes, hong_kong, primary_cost

BUSY = 0.85
"""Share of the time that a person looks at pictures, and that a place is taken, where there are enough of them."""
TRIALS = 20_000
"""Vehicles with contraband for the share found, per replication: a gate meets too few in a day to count."""


def compare(
    scenario: Scenario, days: float, replications: int, seed: int, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Return every policy's measures, sensitivities and validation.

    days : simulated per replication, from a Monday's midnight; all vehicles are seen through to their release
    progress : called after each of `steps`
    """
    sweeps = _sweeps(scenario)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in names(scenario)}
    for replication in range(replications):
        for name, measures in _replicate(scenario, days, seed, replication).items():
            rows[name].append(measures)
        progress()
    policies = {name: _summary(found) for name, found in rows.items()}
    sensitivity = []
    for what, value, changed in sweeps:
        found = [_replicate(changed, min(days, 1.0), seed, 0)]
        sensitivity.append({
            "what": what, "value": value,
            "policies": {
                name: {k: round(float(np.mean([f[name][k] for f in found])), 4) for k in _SWEPT}
                for name in names(changed)
            },
        })  # fmt: skip
        progress()
    theory = against_theory(scenario, seed)
    progress()
    validation: dict[str, Any] = {f"{k}_error": round(v.error, 4) for k, v in theory.items()}
    validation |= {k: v.plain() for k, v in theory.items()}
    validation["hong_kong"] = hong_kong(scenario, seed)
    validation["primary_cost"] = primary_cost(scenario)
    validation["examination"] = examination_minutes(scenario, seed)
    return {
        "scenario": scenario.name, "title": scenario.title, "days": days, "replications": replications, "seed": seed,
        "simulated": True, "detector": msgspec.to_builtins(scenario.detector), "policies": policies,
        "sensitivity": sensitivity, "validation": validation, "sources": scenario.sources,
        "constants": {name: _constant(scenario, name) for name in scenario.sources},
    }  # fmt: skip


def steps(scenario: Scenario, replications: int) -> int:
    """Return how often `compare` tells of progress."""
    return replications + len(_sweeps(scenario)) + 1


_SWEPT = ("delay_min_p95", "found_share", "cost_per_container", "opened", "analysts")


def _sweeps(scenario: Scenario) -> list[tuple[str, float, Scenario]]:
    """Return scenarios in which one thing is otherwise: prior, papers, detector, analyst, lanes."""
    replace = msgspec.structs.replace
    found: list[tuple[str, float, Scenario]] = []
    for share in (0.0005, 0.002, 0.02):
        found.append((
            "contraband_share", share, replace(scenario, traffic=replace(scenario.traffic, contraband_share=share))
        ))  # fmt: skip
    for distance in (0.0, 0.5, 2.0):
        found.append((
            "papers_distance", distance, replace(scenario, traffic=replace(scenario.traffic, papers_distance=distance))
        ))  # fmt: skip
    for pod in (0.2, 0.5, 0.8):
        found.append((
            "found_at_that", pod,
            replace(scenario, detector=replace(scenario.detector, found_at_that=pod), find_scores=()),
        ))  # fmt: skip
    for refers in (0.5, 0.9):
        found.append((
            "refers_contraband", refers, replace(scenario, people=replace(scenario.people, refers_contraband=refers))
        ))  # fmt: skip
    for lanes in (scenario.lanes.drive_through + 1, scenario.lanes.drive_through + 2):
        found.append((
            "drive_through", lanes, replace(scenario, lanes=replace(scenario.lanes, drive_through=lanes))
        ))  # fmt: skip
    return found


def _replicate(scenario: Scenario, days: float, seed: int, replication: int) -> dict[str, dict[str, float]]:
    """Return each policy's measures with the same vehicles."""
    rng = np.random.default_rng([seed, 0, replication])
    vehicles = draw(scenario, arrivals_s(scenario, days, rng), rng)
    hidden = draw(scenario, np.zeros(TRIALS), rng, contraband=True)
    found = {}
    for name in names(scenario):
        choice = choose(name, scenario, vehicles)
        share = float(choose(name, scenario, hidden).found.mean())
        found[name] = _measures(scenario, vehicles, choice, share, days)
    return found


def _measures(
    scenario: Scenario, vehicles: Vehicles, choice: Choice, found_share: float, days: float
) -> dict[str, float]:
    flow = simulate(scenario, vehicles, choice)
    sized = enough(scenario, vehicles, choice, days)
    staffed = simulate(sized, vehicles, choice)
    looked_h = float(vehicles.look_s[choice.looked].sum() / HOUR_S)
    found = found_share * float(vehicles.contraband.sum())
    opened = int(choice.referred.sum())
    return {
        "delay_min_p50": float(np.percentile(flow.delay_s, 50) / 60),
        "delay_min_p95": float(np.percentile(flow.delay_s, 95) / 60),
        "staffed_delay_min_p50": float(np.percentile(staffed.delay_s, 50) / 60),
        "staffed_delay_min_p95": float(np.percentile(staffed.delay_s, 95) / 60),
        "queue_p95": float(np.percentile(flow.queue, 95)) if len(flow.queue) else 0.0,
        "storage_box_days": storage_days(flow),
        "missed_cutoffs": float(flow.late.sum()),
        "cost_per_container": _cost(sized, choice, staffed, days, looked_h) / max(len(vehicles.arrival_s), 1),
        "analysts": float(sized.people.analysts) if choice.looked.any() else 0.0,
        "imaging_systems": float(_systems(sized, choice)),
        "opening_places": float(sized.opening.places) if choice.referred.any() else 0.0,
        "found_share": found_share,
        "opened": float(opened),
        "images_viewed": float(choice.looked.sum()),
        "images_taken": float((choice.drive_through | choice.pull_out).sum()),
        "found_per_opening": found / opened if opened else 0.0,
        "found_per_analyst_hour": found / looked_h if looked_h else 0.0,
        "containers": float(len(vehicles.arrival_s)),
    }  # fmt: skip


def enough(scenario: Scenario, vehicles: Vehicles, choice: Choice, days: float) -> Scenario:
    """Return the site with what the policy needs: imaging systems and analysts for the busiest hour, places for a day.

    None is busy for more than BUSY of that time. Openings may wait for the night, pictures and people may not.
    """
    lanes = scenario.lanes
    through_s = np.maximum(vehicles.imaging_s, lanes.drive_through_cycle_s)
    pulled_s = np.maximum(vehicles.imaging_s, lanes.pull_out_cycle_s)
    opening_s = float(vehicles.opening_s[choice.referred].sum())
    replace = msgspec.structs.replace
    return replace(
        scenario,
        lanes=replace(
            lanes, drive_through=max(_busiest(vehicles, choice.drive_through, through_s), 1),
            pull_out=max(_busiest(vehicles, choice.pull_out, pulled_s), 1),
        ),
        people=replace(scenario.people, analysts=max(_busiest(vehicles, choice.looked, vehicles.look_s), 1)),
        opening=replace(scenario.opening, places=max(math.ceil(opening_s / (days * DAY_S * BUSY)), 1)),
    )  # fmt: skip


def _busiest(vehicles: Vehicles, chosen: Bools, work_s: Floats) -> int:
    """Return how many servers the hour with the most work needs."""
    seconds = np.bincount((vehicles.arrival_s[chosen] // HOUR_S).astype(int), weights=work_s[chosen])
    return math.ceil(float(seconds.max()) / (HOUR_S * BUSY)) if len(seconds) else 0


def _systems(scenario: Scenario, choice: Choice) -> int:
    lanes = scenario.lanes
    return int(lanes.drive_through * choice.drive_through.any() + lanes.pull_out * choice.pull_out.any())


def _cost(scenario: Scenario, choice: Choice, flow: Flow, days: float, looked_h: float) -> float:
    """Return US dollars at a site with all that the policy needs: systems, people, openings, and what trucks lose."""
    costs, systems = scenario.costs, _systems(scenario, choice)
    return float(
        systems * days * 24 * costs.lane_hour
        + looked_h / BUSY * costs.analyst_hour
        + choice.referred.sum() * costs.opening
        + flow.delay_s.sum() / HOUR_S * costs.truck_hour
        + flow.late.sum() * costs.missed_cutoff
        + storage_days(flow) * costs.storage_day
    )


def _summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return means with 95 % intervals over replications."""
    found: dict[str, Any] = {}
    for measure in rows[0]:
        values = np.array([row[measure] for row in rows])
        mean = float(values.mean())
        half = 0.0
        if len(values) > 1:
            half = float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        entry = {
            "value": round(mean, 4), "low": round(max(mean - half, 0.0), 4) if len(values) > 1 else None,
            "high": round(mean + half, 4) if len(values) > 1 else None,
        }  # fmt: skip
        for group in ("staffed_delay_min", "delay_min"):
            if measure.startswith(group):
                found.setdefault(group, {})[measure.removeprefix(f"{group}_")] = entry
                break
        else:
            found[measure] = entry
    return found


def _constant(scenario: Scenario, name: str) -> Any:
    """Return a constant by `table.name`."""
    table, _, field = name.partition(".")
    return msgspec.to_builtins(getattr(getattr(scenario, table), field))
