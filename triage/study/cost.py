"""A cost model made of measurements: what a lane, an analyst and a million archived scans take, and a number of lanes.

It reads what `scanlane bench lanes --json` and `scanlane bench batch --json` wrote on the hardware in question. Every
row says whether it was measured there, follows from measured figures by arithmetic (derived), reaches beyond what was
measured (extrapolated), or was put in by the site (given). Images of the benchmarks are simulated: sizes of recordings
and shares of flagged scans are theirs, unless a site gives its own.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from scanner_io.errors import DataError

Basis = Literal["measured", "derived", "extrapolated", "given"]
DAY_S = 24 * 3600
LINKS = 100
"""Lanes' services of one hub, see `scanlane help hub`."""
STRAIGHT = 0.9
"""R2 below which a slope says nothing."""
LOADED = 0.7
"""So much of a core or of a machine is planned with; the rest is for what comes at once."""


class Plan(NamedTuple):
    """What the model is asked for, and what a site knows better than the benchmark.

    lanes, scans_per_day : of the deployment, and of each of its lanes; large_share : of its lanes with full-size images
    scans_per_analyst_h : flagged scans that one analyst decides in an hour, which no benchmark knows
    recording_mb, flagged_share : of the site's own scans, MB and 0 to 1; None: as the benchmark measured them
    """

    lanes: int = 1000
    scans_per_day: float = 500.0
    large_share: float = 1.0
    scans_per_analyst_h: float = 30.0
    recording_mb: float | None = None
    flagged_share: float | None = None


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
    large_share: float = 1.0, scans_per_analyst_h: float = 30.0, recording_mb: float | None = None,
    flagged_share: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the model as JSON-ready rows.

    bench, batch : reports of the benchmarks; without the second nothing is said of archives
    lanes, scans_per_day, large_share, scans_per_analyst_h, recording_mb, flagged_share : see `Plan`

    Raises DataError if the report is not one of `bench lanes`, or one of its steps did not do all of its work.
    """
    plan = Plan(lanes, scans_per_day, large_share, scans_per_analyst_h, recording_mb, flagged_share)
    try:
        _refuse_failed(bench)
        whole, even = bench["steps"][-1], bench["steps"][:-1]
        if len(even) < 3:  # through two points there is always a line
            raise DataError("the report has fewer than three steps: no slope; run bench lanes with --steps 3 or more")
        return _model(bench, whole, even, batch, plan)
    except (KeyError, TypeError) as error:
        raise DataError(f"the report has no {error}; it is of another version: run bench lanes again") from error


def _refuse_failed(bench: dict[str, Any]) -> None:
    """Raise DataError if a step lost scans or lanes, ended badly or did not keep up: it measured less work."""
    if bench["lost"]:
        raise DataError(f"the report lost {bench['lost']} scans: it says nothing of cost; see its steps")
    for step in bench["steps"]:
        failed = [
            words
            for field, words in (
                ("lanes_died", f"{step['lanes_died']} lanes died"),
                ("exit_code", f"the service or the hub ended with exit code {step['exit_code']}"),
                ("not_taken_in_time", f"{step['not_taken_in_time']} scans were not taken in time"),
            )
            if step[field]
        ]
        if failed:
            raise DataError(
                f"the report's step of {step['lanes']} lanes failed: {'; '.join(failed)}. It says nothing of cost: run "
                "bench lanes again, with fewer lanes if the machine did not keep up"
            )


def _model(
    bench: dict[str, Any], whole: dict[str, Any], even: list[dict[str, Any]], batch: dict[str, Any] | None, plan: Plan
) -> dict[str, Any]:
    lanes, most, interval_s = plan.lanes, max(s["lanes"] for s in even), bench["interval_s"]
    steps = f"slope over {', '.join(str(s['lanes']) for s in even)} lanes, a scan per {interval_s:g} s"
    memory_mb, base_mb = np.polyfit([s["lanes"] for s in even], [s["rss_mb_median"] for s in even], 1)
    if not (bench["cpu_per_lane"] > 0 and memory_mb > 0 and bench["r2"] >= STRAIGHT):
        raise DataError(
            f"the report's lanes do not cost evenly ({bench['cpu_per_lane']} cores and {memory_mb:.1f} MB each, R2 "
            f"{bench['r2']}, expected {STRAIGHT} or more): something else ran beside it, or its steps were too short"
        )
    if plan.large_share and not (whole["large"] and bench["recording_mb"]["large"]):
        raise DataError("no lane of the report had full-size images: run bench lanes with --large, or --large-share 0")
    flagged, flagged_row = _flagged(whole, plan)
    image_mb, image_why, image_rows = _image(bench, plan)
    rows = [
        Row("processor", "lane, small images", bench["cpu_per_lane"], "cores", "measured",
            f"{steps}; R2 {bench['r2']}"),
        Row("memory", "lane, small images", round(float(memory_mb), 1), "MB", "measured", steps),
        Row("memory", "service", round(float(base_mb), 1), "MB", "derived", "where that line begins"),
        *image_rows,
        Row("disk", "scan", bench["outbox_kb"], "kB", "measured", "of the outbox"),
        flagged_row,
    ]  # fmt: skip
    large_cores, large_memory_mb, large_rows = _full_size(bench, whole, even, float(memory_mb))
    rows += large_rows
    cores = plan.large_share * large_cores + (1 - plan.large_share) * bench["cpu_per_lane"]
    lane_mb = plan.large_share * large_memory_mb + (1 - plan.large_share) * float(memory_mb)
    pace = plan.scans_per_day * interval_s / DAY_S
    daily = plan.scans_per_day * image_mb
    beyond: Basis = "extrapolated" if lanes > most else "derived"
    rows += [
        Row("disk", "lane and day", round(daily, 1), "MB", "derived", f"{plan.scans_per_day:g} scans a day"),
        Row("network", "lane and day, to the hub", round(daily * flagged, 1), "MB", "derived", "what is flagged, once"),
        Row("network", "analyst and hour", round(plan.scans_per_analyst_h * image_mb, 1), "MB", "derived",
            f"{plan.scans_per_analyst_h:g} scans an hour"),
        Row("disk", "million archived scans", round(image_mb, 2), "TB", "extrapolated", image_why),
    ]  # fmt: skip
    if batch is not None:
        rate = batch["scans_per_s"]["1"]
        why = f"{rate:g} scans/s of one worker, {batch['columns']} x {batch['channels']} simulated"
        rows.append(Row("processor", "million scans judged anew", round(1e6 / rate / 3600, 1), "core hours",
                        "extrapolated", why))  # fmt: skip
    why = f"a lane's times {lanes}, {plan.large_share:.0%} with full-size images; measured up to {most} lanes"
    rows += [
        Row("processor", f"{lanes} lanes", round(lanes * cores * max(1.0, pace), 1), "cores", beyond,
            f"{why}; that of a scan per {min(interval_s, DAY_S / plan.scans_per_day):g} s"),
        Row("memory", f"{lanes} lanes", round(lanes * lane_mb / 1e3, 1), "GB", beyond, why),
        Row("disk", f"{lanes} lanes and day", round(lanes * daily / 1e6, 3), "TB", beyond, why),
        Row("analysts", f"{lanes} lanes",
            math.ceil(lanes * plan.scans_per_day * flagged / 24 / plan.scans_per_analyst_h), "at a time", beyond,
            "flagged scans, evenly over the day"),
    ]  # fmt: skip
    rows += _hub_rows(bench, lanes, most, beyond, steps)
    return {
        "lanes": lanes, "scans_per_day": plan.scans_per_day, "large_share": plan.large_share,
        "recording_mb": plan.recording_mb, "flagged_share": plan.flagged_share, "measured_lanes": most,
        "machine": bench.get("machine"), "simulated": True, "rows": [r._asdict() for r in rows],
        "limits": _limits(bench, whole, plan),
    }  # fmt: skip


def _flagged(whole: dict[str, Any], plan: Plan) -> tuple[float, Row]:
    """Return the share of scans that is flagged, and its row."""
    if plan.flagged_share is not None:
        return plan.flagged_share, Row("flagged", "scan", plan.flagged_share, "share", "given", "by the site")
    share = whole["offer_ms"]["count"] / max(1, whole["scans"])
    return share, Row("flagged", "scan", round(share, 3), "share", "measured", "simulated images without a profile")


def _image(bench: dict[str, Any], plan: Plan) -> tuple[float, str, list[Row]]:
    """Return the mean size of a recording in MB, what it is of, and its rows."""
    if plan.recording_mb is not None:
        return plan.recording_mb, "recording as given", [
            Row("disk", "scan", plan.recording_mb, "MB", "given", "recording, by the site")
        ]  # fmt: skip
    small_mb, large_mb = bench["recording_mb"]["small"], bench["recording_mb"]["large"]
    rows = [Row("disk", "scan, small image", small_mb, "MB", "measured", "mean recording")]
    if large_mb:
        rows.append(Row("disk", "scan, full-size image", large_mb, "MB", "measured", "mean recording"))
    return plan.large_share * (large_mb or 0.0) + (1 - plan.large_share) * small_mb, "mean recording", rows


def _full_size(
    bench: dict[str, Any], whole: dict[str, Any], even: list[dict[str, Any]], small_memory_mb: float
) -> tuple[float, float, list[Row]]:
    """Return cores and MB of a lane with full-size images, and their rows; none where no lane had them.

    It is what these lanes added to the line through the steps without them, but never less than a small lane's: less
    is an error of the measurement, and would be multiplied.
    """
    large = whole["large"]
    if not large:
        return 0.0, 0.0, []
    lane_counts = [s["lanes"] for s in even]

    def added(field: str) -> float:
        level = np.polyval(np.polyfit(lane_counts, [s[field] for s in even], 1), whole["lanes"])
        return (float(whole[field]) - float(level)) / float(large)

    why = f"what {large} lanes added to {whole['lanes']}, a scan per {bench['interval_s']:g} s"
    rows = []
    for what, field, unit, least, digits in (
        ("processor", "cpu_cores", "cores", bench["cpu_per_lane"], 4),
        ("memory", "rss_mb_median", "MB", small_memory_mb, 1),
    ):  # fmt: skip
        value = added(field)
        words = why if value >= least else f"a small lane's: {why} was {value:.{digits}f}, too little to be told"
        rows.append(Row(what, "lane, full-size images", round(max(value, least), digits), unit, "derived", words))
    return rows[0].value, rows[1].value, rows


def _limits(bench: dict[str, Any], whole: dict[str, Any], plan: Plan) -> list[str]:
    """Return what the figures do not say, in sentences."""
    lanes = f"{whole['lanes']} lanes with small images and {whole['large']} with full-size ones"
    hub = "one link to one hub, which keeps its outbox in SQLite" if bench.get("hub") else "no hub"
    found = [
        f"measured was one service with {lanes}, without keys, and {hub}: links of many services, a database server, "
        "encryption and signatures cost more and are not in the figures",
        "images of both sizes are simulated, in the benchmark's sizes: larger ones, or other contents, take more "
        "processor, memory and disk than is told here",
        "cores of a lane are at the pace of the benchmark: fewer scans take less, and are not counted as less",
        "a lane's own machine needs memory for itself and its service; that of all lanes is of one machine",
    ]
    measured = [
        words
        for value, words in (
            (plan.recording_mb, "the size of recordings (--recording-mb)"),
            (plan.flagged_share, "the share of flagged scans (--flagged-share)"),
        )
        if value is None
    ]
    if measured:
        found.append(f"{' and '.join(measured)}: of simulated images; put your own lane's in")
    return found


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
