"""The load test: many lanes, a hub and many analysts on one machine, over loopback.

Every lane reads dropped images as a scanner exports them, most of them small ones, a few full-size ones; a hub takes
what is flagged, analysts' programs fetch it there and decide, and the decisions go back. What is measured is the lanes'
service, its lanes' processes and the hub, not the analysts' programs nor what drops the images. Images are simulated.
All lanes are of one service: what a hub takes for a link with each of many services is not in the figures.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from scanner_io.errors import DataError
from triage.study.measure import machine, versions
from triage.torture import bed, oracle
from triage.torture.rows_soak import Sample, growth, processes, sample

SMALL, LARGE = (600, 256), (5000, 2000)
"""(columns, rows)"""
SAMPLE_S, DRAIN_S = 2.0, 120.0
HUB = """
[hub]
name = "hub"
[[hub.lane]]
name = "lanes"
address = "tcp://127.0.0.1:{port}"
"""


def bench_lanes(
    lanes: int = 50, large: int = 4, analysts: int = 30, seconds: float = 1800.0, interval_s: float = 30.0,
    steps: int = 4, hub: bool = True, folder: Path | None = None, progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run the test with a growing number of lanes, the whole time with all of them, and return a JSON-ready report.

    lanes, large : lanes with small images and with full-size ones; each gets one every `interval_s`
    seconds : with all lanes; the steps before, without full-size images, take a tenth of it, at least three intervals
    hub : analysts work from a hub; otherwise from the lanes' service

    p99_offer_ms : from the commit of a flagged scan at the lane until its offer is in an analyst's hands, all lanes
    lost : scans that were acknowledged and are not there whole, or wait unseen; decisions that are not at the lane
    rss_mb, rss_slope_mb_per_h : of service and lanes together, with all lanes, after the first tenth
    cpu_per_lane : share of one core, the slope of a straight line through the steps; r2 : of that line
    hub_cpu_per_lane, hub_r2 : of the hub's process, the same
    recording_mb : mean size of a recording, of a small and a full-size image; outbox_kb : of the outbox, for each scan
    """
    if lanes < 1 or analysts < 1 or seconds <= 0 or interval_s <= 0 or steps < 1:
        raise DataError("bench: lanes, analysts, seconds, interval and steps must each be more than 0")
    load_before = os.getloadavg()
    counts = sorted({max(1, round(lanes * n / steps)) for n in range(1, steps + 1)})
    runs = [(count, 0, max(seconds / 10, 3 * interval_s)) for count in counts] + [(lanes, large, seconds)]
    rows = []
    for done, (count, full_size, for_s) in enumerate(runs, 1):
        with tempfile.TemporaryDirectory(prefix="scanlane-bench-", dir=folder) as name:
            rows.append(_run(Path(name), count, full_size, analysts, for_s, interval_s, hub=hub))
        if progress is not None:
            progress(done, len(runs))
    even, whole = rows[:-1], rows[-1]
    slope, r2 = _line(even, "cpu_cores")
    hub_slope, hub_r2 = _line(even, "hub_cpu_cores") if hub else (None, None)
    return {
        "lanes": whole["lanes"], "large_lanes": whole["large"], "analysts": analysts, "interval_s": interval_s,
        "p99_offer_ms": whole["offer_ms"]["p99"], "lost": sum(r["lost"] for r in rows),
        "rss_mb": whole["rss_mb_median"], "rss_slope_mb_per_h": whole["rss_slope_mb_per_h"], "cpu_per_lane": slope,
        "slope": slope, "r2": r2, "hub": hub, "hub_cpu_per_lane": hub_slope, "hub_r2": hub_r2,
        "hub_rss_mb": whole.get("hub_rss_mb_median"), "hub_rss_slope_mb_per_h": whole.get("hub_rss_slope_mb_per_h"),
        "recording_mb": whole["recording_mb"], "outbox_kb": whole["outbox_kb"], "steps": rows,
        "simulated": True, "machine": machine(load_before),
        "versions": versions(),
    }  # fmt: skip


def _run(
    folder: Path, lanes: int, large: int, analysts: int, seconds: float, interval_s: float, *, hub: bool
) -> dict[str, Any]:  # fmt: skip
    """Run one step."""
    drops = [oracle.Stimulator(folder / f"s{n:03d}", f"s{n:03d}-", SMALL) for n in range(lanes)]
    drops += [oracle.Stimulator(folder / f"l{n:03d}", f"l{n:03d}-", LARGE) for n in range(large)]
    tables = "".join(bed.drop_lane(d.folder, d.folder.name) for d in drops)
    port = bed.free_port()
    config = bed.write_config(folder, tables, port=port, lease_s=60.0, heartbeat_s=2.0)
    samples: list[Sample] = []
    hub_samples: list[Sample] = []
    with bed.daemon(config) as service, ExitStack() as stack:
        ready_s = bed.ready(service, len(drops), timeout_s=bed.START_S + 5.0 * len(drops))
        between = stack.enter_context(_hub(folder / "hub", port)) if hub else None
        address = bed.address_of(service if between is None else between)
        desks = [
            stack.enter_context(bed.Desk(address, f"desk{n}", think_s=min(1.0, interval_s / 10)))
            for n in range(analysts)
        ]
        began_s, cpu, hub_cpu = time.monotonic(), _cpu_s(service), _cpu_s(between)
        turns = 0
        while (past_s := time.monotonic() - began_s) < seconds:
            # Lanes take turns, so that vehicles come evenly; one that is behind is not waited for.
            while turns < len(drops) * past_s / interval_s:
                drops[turns % len(drops)].put()
                turns += 1
            if len(samples) * SAMPLE_S < past_s:
                samples.append(sample(service, folder / "state"))
                hub_samples += [] if between is None else [sample(between, folder / "hub" / "state")]
            time.sleep(0.02)
        past_s = time.monotonic() - began_s
        cpu_cores, hub_cores = (_cpu_s(service) - cpu) / past_s, (_cpu_s(between) - hub_cpu) / past_s
        until_s = time.monotonic() + DRAIN_S
        while time.monotonic() < until_s and (any(d.waiting() for d in drops) or _undecided(folder / "state")):
            time.sleep(0.2)
        behind = sum(len(d.waiting()) for d in drops)
        for desk in desks:
            desk.close()
        hub_code = 0 if between is None else between.stop(120.0)
        died = len(service.named("lane_died"))
        code = service.stop(120.0)
    decided = {key: scan for desk in desks for key, scan in desk.acknowledged.items()}
    found = oracle.check(folder / "state", drops, None if hub else decided)
    wrong = {k: v for k, v in found.figure().items() if k not in ("acknowledged", "rows")}
    words = [found.words()]
    if hub:
        there = oracle.check(folder / "hub" / "state", [], decided)
        not_back = _not_back(folder / "state", decided)
        wrong |= {f"hub_{k}": v for k, v in there.figure().items() if k not in ("acknowledged", "rows")}
        wrong["decisions_not_back"] = len(not_back)
        words += [there.words(), *not_back[:1]]
    waits = _waits(folder / "state", desks)
    return {
        "lanes": lanes, "large": large, "seconds": round(seconds, 1), "ready_s": round(ready_s, 1), "scans": turns,
        "not_taken_in_time": behind, "decided": len(decided), "offer_ms": waits, "lost": sum(wrong.values()),
        "wrong": "; ".join(filter(None, words)), "lanes_died": died, "exit_code": code or hub_code,
        "cpu_cores": round(cpu_cores, 3), **growth(_settled(samples)), **_sizes(folder / "state"),
        **({"hub_cpu_cores": round(hub_cores, 3)} if hub else {}),
        **({f"hub_{k}": v for k, v in growth(_settled(hub_samples)).items()} if hub else {}),
    }  # fmt: skip


def _hub(folder: Path, port: int) -> bed.Child:
    """Start a hub of the service that listens on this port."""
    folder.mkdir()
    config = bed.write_config(folder, HUB.format(port=port), lease_s=60.0, heartbeat_s=2.0, name="hub.toml")
    return bed.Child("-m", "triage.cli", "hub", str(config), "--json", name="hub")


def _settled(samples: list[Sample]) -> list[Sample]:
    """Leave out the first tenth."""
    return samples[len(samples) // 10 :] if len(samples) > 20 else samples


def _not_back(state: Path, decided: dict[str, str]) -> list[str]:
    """Return the decisions acknowledged by a hub that do not decide their scans at the lane."""
    with closing(oracle.database(state)) as outbox:
        rows = outbox.execute("SELECT decision_id, scan_id FROM decisions WHERE applied<>0").fetchall()
    back = {decision_id.partition("@")[0]: scan_id for decision_id, scan_id in rows}
    return [f"{d} on {scan}" for d, scan in decided.items() if back.get(d) != scan]


def _sizes(state: Path) -> dict[str, Any]:
    """Return how large recordings are, and what a scan takes in the outbox."""
    with closing(oracle.database(state)) as outbox:
        rows = outbox.execute("SELECT substr(lane, 1, 1), AVG(size), COUNT(*) FROM scans GROUP BY 1").fetchall()
    mean = {kind: round(size / 1e6, 3) for kind, size, _ in rows}
    scans = sum(count for *_, count in rows)
    kb = (state / "outbox.sqlite").stat().st_size / 1e3 / scans if scans else None
    return {
        "recording_mb": {"small": mean.get("s"), "large": mean.get("l")},
        "outbox_kb": None if kb is None else round(kb, 2),
    }  # fmt: skip


def _cpu_s(service: bed.Child | None) -> float:
    return 0.0 if service is None else sum(map(bed.cpu_s, processes(service)))


def _undecided(state: Path) -> int:
    with closing(oracle.database(state)) as outbox:
        return int(outbox.execute("SELECT count(*) FROM outbox WHERE state IN ('pending', 'leased')").fetchone()[0])


def _waits(state: Path, desks: list[bed.Desk]) -> dict[str, float | None]:
    """Return how long flagged scans took from their commit to an analyst's hands, milliseconds."""
    with closing(oracle.database(state)) as outbox:
        added = dict(outbox.execute("SELECT scan_id, added_utc_ns FROM scans").fetchall())
    first: dict[str, int] = {}
    for desk in desks:
        for scan_id, at_ns in desk.offered_utc_ns.items():
            first[scan_id] = min(at_ns, first.get(scan_id, at_ns))
    waits = [(at_ns - added[scan_id]) / 1e6 for scan_id, at_ns in first.items()]
    found = {f"p{q}": round(float(np.percentile(waits, q)), 1) if waits else None for q in (50, 95, 99)}
    return {"count": len(waits), **found}


def _line(steps: list[dict[str, Any]], field: str) -> tuple[float | None, float | None]:
    """Return slope and R^2 of a straight line through a field of the steps, over the number of lanes."""
    if len(steps) < 2:
        return None, None
    x, y = [s["lanes"] for s in steps], [s[field] for s in steps]
    slope, offset = np.polyfit(x, y, 1)
    rest = np.array(y) - (slope * np.array(x) + offset)
    spread = np.array(y) - np.mean(y)
    return round(float(slope), 5), round(1 - float((rest**2).sum() / max((spread**2).sum(), 1e-12)), 4)
