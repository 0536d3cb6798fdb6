"""A cost model made of measurements: what a lane, an analyst and a million archived scans take, and a number of lanes.

It reads what `scanlane bench lanes --json` and `scanlane bench batch --json` wrote on the hardware in question. Every
row says whether it was measured there, follows from measured figures by arithmetic, or reaches beyond what was measured
(extrapolated). Images of the benchmarks are simulated: sizes of recordings and shares of flagged scans are theirs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from scanner_io.errors import DataError

Basis = Literal["measured", "derived", "extrapolated"]
DAY_S = 24 * 3600
LINKS = 100
"""Lanes' services of one hub, see `scanlane help hub`."""
STRAIGHT = 0.9
"""R2 below which a slope says nothing."""
LOADED = 0.7
"""So much of a core or of a machine is planned with; the rest is for what comes at once."""


class Row(NamedTuple):
    """One figure. per : of what"""

    what: str
    per: str
    value: float
    unit: str
    basis: Basis
    why: str


def read(path: Path, needs: str) -> dict[str, Any]:
    """Return a report of a benchmark. needs : a field that it must have. Raises DataError."""
    try:
        told = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: no report of a benchmark ({error}); make it with scanlane bench ... --json"
        ) from error
    if not isinstance(told, dict) or needs not in told:
        raise DataError(f"{path}: has no {needs!r}; expected what scanlane bench ... --json wrote")
    return told


def cost(
    bench: dict[str, Any], batch: dict[str, Any] | None = None, *, lanes: int = 1000, scans_per_day: float = 500.0,
    large_share: float = 1.0, scans_per_analyst_h: float = 30.0,
) -> dict[str, Any]:  # fmt: skip
    """Return the model as JSON-ready rows.

    bench, batch : reports of the benchmarks; without the second nothing is said of archives
    lanes, scans_per_day : of the deployment, and of each of its lanes; large_share : of its lanes with full-size images
    scans_per_analyst_h : flagged scans that one analyst decides in an hour, which no benchmark knows

    Raises DataError if the report is not one of `bench lanes`, or lost something.
    """
    try:
        if bench["lost"]:
            raise DataError(f"the report lost {bench['lost']} scans: it says nothing of cost; see its steps")
        whole, even = bench["steps"][-1], bench["steps"][:-1]
        if len(even) < 3:  # through two points there is always a line
            raise DataError("the report has fewer than three steps: no slope; run bench lanes with --steps 3 or more")
        return _model(bench, whole, even, batch, lanes, scans_per_day, large_share, scans_per_analyst_h)
    except (KeyError, TypeError) as error:
        raise DataError(f"the report has no {error}; it is of another version: run bench lanes again") from error


def _model(
    bench: dict[str, Any], whole: dict[str, Any], even: list[dict[str, Any]], batch: dict[str, Any] | None, lanes: int,
    scans_per_day: float, large_share: float, per_analyst_h: float,
) -> dict[str, Any]:  # fmt: skip
    most, interval_s = max(s["lanes"] for s in even), bench["interval_s"]
    steps = f"slope over {', '.join(str(s['lanes']) for s in even)} lanes, a scan per {interval_s:g} s"
    memory, base_mb = np.polyfit([s["lanes"] for s in even], [s["rss_mb_median"] for s in even], 1)
    if not (bench["cpu_per_lane"] > 0 and memory > 0 and bench["r2"] >= STRAIGHT):
        raise DataError(
            f"the report's lanes do not cost evenly ({bench['cpu_per_lane']} cores and {memory:.1f} MB each, R2 "
            f"{bench['r2']}, expected {STRAIGHT} or more): something else ran beside it, or its steps were too short"
        )
    small_mb, large_mb = bench["recording_mb"]["small"], bench["recording_mb"]["large"]
    small_cores = bench["cpu_per_lane"]
    if large_share and not (whole["large"] and large_mb):
        raise DataError("no lane of the report had full-size images: run bench lanes with --large, or --large-share 0")
    flagged = whole["offer_ms"]["count"] / max(1, whole["scans"])
    rows = [
        Row("processor", "lane, small images", small_cores, "cores", "measured", f"{steps}; R2 {bench['r2']}"),
        Row("memory", "lane", round(float(memory), 1), "MB", "measured", steps),
        Row("memory", "service", round(float(base_mb), 1), "MB", "derived", "where that line begins"),
        Row("disk", "scan, small image", small_mb, "MB", "measured", "mean recording"),
        Row("disk", "scan", bench["outbox_kb"], "kB", "measured", "of the outbox"),
        Row("flagged", "scan", round(flagged, 3), "share", "measured", "simulated images without a profile"),
    ]
    large_cores = 0.0
    if whole["large"] and large_mb:
        level = np.polyval(np.polyfit([s["lanes"] for s in even], [s["cpu_cores"] for s in even], 1), whole["lanes"])
        large_cores = max(0.0, round((whole["cpu_cores"] - float(level)) / whole["large"], 4))
        why = f"what {whole['large']} lanes added to {whole['lanes']}, a scan per {interval_s:g} s"
        rows += [
            Row("processor", "lane, full-size images", large_cores, "cores", "derived", why),
            Row("disk", "scan, full-size image", large_mb, "MB", "measured", "mean recording"),
        ]
    image_mb = large_share * (large_mb or 0.0) + (1 - large_share) * small_mb
    cores = large_share * large_cores + (1 - large_share) * small_cores
    pace = scans_per_day * interval_s / DAY_S
    daily = scans_per_day * image_mb
    beyond: Basis = "extrapolated" if lanes > most else "derived"
    rows += [
        Row("disk", "lane and day", round(daily, 1), "MB", "derived", f"{scans_per_day:g} scans a day"),
        Row("network", "lane and day, to the hub", round(daily * flagged, 1), "MB", "derived", "what is flagged, once"),
        Row("network", "analyst and hour", round(per_analyst_h * image_mb, 1), "MB", "derived",
            f"{per_analyst_h:g} scans an hour"),
        Row("disk", "million archived scans", round(image_mb, 2), "TB", "extrapolated", "mean recording"),
    ]  # fmt: skip
    if batch is not None:
        rate = batch["scans_per_s"]["1"]
        why = f"{rate:g} scans/s of one worker, {batch['columns']} x {batch['channels']} simulated"
        rows.append(Row("processor", "million scans judged anew", round(1e6 / rate / 3600, 1), "core hours",
                        "extrapolated", why))  # fmt: skip
    why = f"slope times {lanes}; measured up to {most} lanes"
    rows += [
        Row("processor", f"{lanes} lanes", round(lanes * cores * max(1.0, pace), 1), "cores", beyond,
            f"{why}; that of a scan per {min(interval_s, DAY_S / scans_per_day):g} s"),
        Row("memory", f"{lanes} lanes", round(lanes * float(memory) / 1e3, 1), "GB", beyond, why),
        Row("disk", f"{lanes} lanes and day", round(lanes * daily / 1e6, 3), "TB", beyond, why),
        Row("analysts", f"{lanes} lanes", math.ceil(lanes * scans_per_day * flagged / 24 / per_analyst_h), "at a time",
            beyond, "flagged scans, evenly over the day"),
    ]  # fmt: skip
    rows += _hub_rows(bench, lanes, most, beyond, steps)
    return {
        "lanes": lanes, "scans_per_day": scans_per_day, "large_share": large_share, "measured_lanes": most,
        "machine": bench.get("machine"), "simulated": True, "rows": [r._asdict() for r in rows],
        "limits": [
            "cores of a lane are at the pace of the benchmark: fewer scans take less, and are not counted as less",
            "a lane's own machine needs memory for itself only; that of all lanes is what one machine would need",
            "recordings and the share that is flagged are of simulated images: put your own lane's figures in",
        ],
    }  # fmt: skip


def _hub_rows(bench: dict[str, Any], lanes: int, most: int, beyond: Basis, steps: str) -> list[Row]:
    """Return what hubs take, and how many there must be by what limits them first."""
    if not bench.get("hub"):
        return []
    share = bench["hub_cpu_per_lane"]
    told = share is not None and share > 0 and bench["hub_r2"] >= STRAIGHT
    by_core = math.floor(LOADED / share) if told else None
    limit = LINKS if by_core is None else max(1, min(LINKS, by_core))
    first = "links" if limit == LINKS else "its one thread"
    why = f"{steps}; R2 {bench['hub_r2']}"
    rows = [Row("processor", "lane, at the hub", share, "cores", "measured", why)] if told else []
    return [
        *rows,
        Row("memory", "hub", bench["hub_rss_mb"], "MB", "measured", f"{bench['lanes']} lanes of one service"),
        Row("lanes", "hub, at most", limit, "lanes", "extrapolated" if limit > most else "derived",
            f"{first}: {LOADED:.0%} of a core, {LINKS} links"),
        Row("hubs", f"{lanes} lanes", 2 * math.ceil(lanes / limit), "hubs", beyond, "in pairs"),
    ]  # fmt: skip


def markdown(told: dict[str, Any]) -> str:
    """Return the model as a table of Markdown."""
    machine = told["machine"] or {}
    head = (
        f"Measured up to {told['measured_lanes']} lanes on {machine.get('cpu', 'a machine')}; images are simulated.\n\n"
    )
    lines = ["| what | per | value | unit | basis | from |", "|---|---|---:|---|---|---|"]
    lines += [
        f"| {r['what']} | {r['per']} | {'none' if r['value'] is None else format(r['value'], 'g')} | {r['unit']} "
        f"| {r['basis']} | {r['why']} |"
        for r in told["rows"]
    ]
    return head + "\n".join(lines) + "\n\n" + "\n".join(f"- {line}" for line in told["limits"]) + "\n"
