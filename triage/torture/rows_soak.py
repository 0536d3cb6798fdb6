"""R12: four lanes for a day, at twenty times the pace; what grows meanwhile.

Vehicles are simulated, small images with portal and papers, one every 40 s of each lane's own time. Memory is that of
the daemon and all its lanes together. An hour is one of the lanes' own: three minutes of the clock.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import bed, oracle
from .outcome import Outcome, judged, say

SPEED = 20.0
LANES = ("north", "east", "south", "west")
SECONDS, WARM_UP_S = (8.0, 4200.0), (0.0, 900.0)
"""Short and full form: how long vehicles pass once all lanes are warm, and how much of that is left out too."""
WARM_SCANS = 3
"""A lane's first judgements load code and make buffers that stay: it is warm after so many."""
LANE = """
[[lane]]
name = "{name}"

[[lane.device]]
driver = "simulated"
seed = {seed}
speed = {speed}
interval_s = 20
columns = 320
channels = 96
energies = 1
"""


class Sample(NamedTuple):
    """What there is at one moment. rss_mb, fds, threads : of all processes; wal_mb : of the outbox's log"""

    at_s: float
    rss_mb: float
    fds: int
    threads: int
    wal_mb: float


def r12_soak(folder: Path, full: bool) -> Outcome:
    """Let vehicles pass and an analyst decide, and look at memory, descriptors, threads and log every half second."""
    lanes = "".join(LANE.format(name=n, seed=s, speed=SPEED) for s, n in enumerate(LANES, 1))
    port = bed.free_port()
    config = bed.write_config(folder, lanes, port=port)
    samples: list[Sample] = []
    with bed.daemon(config) as service, bed.Desk(f"tcp://127.0.0.1:{port}") as desk:
        bed.ready(service, len(LANES))
        bed.wait_until(lambda: _warm(service), 120.0, f"every lane has judged {WARM_SCANS} scans")
        began_s = time.monotonic()
        while (past_s := time.monotonic() - began_s) < SECONDS[full]:
            say(f"R12: {past_s:.0f} of {SECONDS[full]:.0f} s, {len(desk.acknowledged)} decided", every_s=10.0)
            if past_s >= WARM_UP_S[full]:
                samples.append(sample(service, folder / "state"))
            time.sleep(0.5)
        died = len(service.named("lane_died"))
        desk.close()
        code = service.stop()
    found = oracle.check(folder / "state", [], desk.acknowledged)
    figure = {
        "lanes": len(LANES), "pace": SPEED, "measured_s": round(samples[-1].at_s - samples[0].at_s, 1),
        "scans": found.rows, "decided": len(desk.acknowledged), **growth(samples, SPEED), "lanes_died": died,
        "exit_code": code, **found.figure(),
    }  # fmt: skip
    bar = {
        "decided": "> 0", "fds_grown": "<= 0", "threads_grown": "<= 0", "wal_mb_max": "<= 64", "lanes_died": "== 0",
        "exit_code": "== 0", **oracle.NO_LOSS,
    }  # fmt: skip
    bar |= {"rss_slope_mb_per_h": "< 1"} if full else {"rss_grown_mb": "<= 48"}
    hours = SECONDS[full] * SPEED / 3600
    note = f"{hours:.2f} h of the lanes' own time; vehicles are simulated"
    if not full:
        note += (
            "; the short form: the slope of memory is measured, but in so short a time 1 MB/h cannot be told from "
            "none, so that only coarse growth counts; `--full` takes 70 minutes and holds the slope to its bar"
        )
    return judged(figure, bar, "; ".join(filter(None, (found.words(), note))))


def _warm(service: bed.Child) -> bool:
    counts = Counter(e["lane"] for e in service.named("scan"))
    return all(counts[lane] >= WARM_SCANS for lane in LANES)


def sample(service: bed.Child, state: Path) -> Sample:
    """Return what a daemon and all its lanes take now."""
    pids = processes(service)
    wal = state / "outbox.sqlite-wal"
    return Sample(
        time.monotonic(), sum(map(bed.rss_mb, pids)),
        sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),  # noqa: PTH208 -- names, not their paths
        sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),  # noqa: PTH208
        wal.stat().st_size / (1 << 20) if wal.exists() else 0.0,
    )  # fmt: skip


def processes(service: bed.Child) -> list[int]:
    """Return the daemon and its lanes."""
    return [service.pid, *{e["lane"]: e["pid"] for e in service.named("lane_ready")}.values()]


def growth(samples: list[Sample], pace: float = 1.0) -> dict[str, Any]:
    """Return what has grown between the first and the last third, and the slope of memory with its 95 % interval.

    Of descriptors and threads the fewest of each third count: a file that is just being written is no leak.
    """
    third = max(1, len(samples) // 3)
    first, last = samples[:third], samples[-third:]
    hours = np.array([s.at_s for s in samples]) * pace / 3600
    rss = np.array([s.rss_mb for s in samples])
    slope, error = _slope(hours, rss)
    return {
        "samples": len(samples), "rss_mb_median": round(float(np.median(rss)), 1),
        "rss_grown_mb": round(float(np.median([s.rss_mb for s in last]) - np.median([s.rss_mb for s in first])), 2),
        "rss_slope_mb_per_h": round(slope, 2),
        "rss_slope_95": [round(slope - 1.96 * error, 2), round(slope + 1.96 * error, 2)],
        "fds": min(s.fds for s in last), "fds_grown": min(s.fds for s in last) - min(s.fds for s in first),
        "threads": min(s.threads for s in last),
        "threads_grown": min(s.threads for s in last) - min(s.threads for s in first),
        "wal_mb_max": round(max(s.wal_mb for s in samples), 2),
    }  # fmt: skip


def _slope(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the slope of a straight line through the points, and its standard error.

    A sample is like the one before it: the error is that of as many independent ones as their lag-1 correlation leaves.
    """
    off = x - x.mean()
    slope = float((off * (y - y.mean())).sum() / (off**2).sum())
    rest = y - y.mean() - slope * off
    alike = float(np.clip((rest[1:] * rest[:-1]).sum() / max(float((rest**2).sum()), 1e-12), 0.0, 0.99))
    spread = (rest**2).sum() / max(1, len(x) - 2) * (1 + alike) / (1 - alike)
    return slope, float(np.sqrt(spread / (off**2).sum()))
