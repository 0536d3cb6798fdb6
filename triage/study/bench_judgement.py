"""How long the whole judgement of a scan takes, and how much of it is left when the vehicle's last column has come."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

from scanner_io import driver
from triage.analysis.image import Stream, judge_image
from triage.analysis.image_profile import ImageProfile
from triage.analysis.screening import Buffers
from triage.service.strip_workers import StripWorkers
from triage.study.measure import timed

CHANNELS, BLOCK = 2000, 32
SEED = 3
"""Of the simulated vehicle: a loaded container."""


def bench_judgement(rounds: int, columns: int, workers: StripWorkers) -> dict[str, Any]:
    """Return what the judgement of a simulated scan of two energies takes, medians of `rounds` in milliseconds.

    at_once : all of it, two threads, the columns at hand; spread : the fastest and the slowest
    while_passing : screening of blocks of BLOCK columns, one thread, as they come from a detector
    after_last_column : what is left to do then; stages : of that
    """
    simulated = driver.load("simulated")
    config = simulated.Config(columns=columns, channels=CHANNELS, energies=2)
    radiograph = simulated.simulate_radiograph(config, SEED)
    profile = ImageProfile(energy=simulated.energy_calibration(config))
    kept = Buffers()
    at_once, passing, left = [], [], []
    stages: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        judge = partial(judge_image, radiograph, profile, map_strips=workers.map)
        whole = timed(partial(judge, buffers=kept))
        stream = Stream(radiograph.detector, profile, Buffers())
        streamed = timed(partial(_push, stream, radiograph))
        since = time.perf_counter()
        judgement = judge(stream=stream)
        after = time.perf_counter() - since
        if number == 0:  # warm-up
            continue
        at_once.append(whole)
        passing.append(streamed)
        left.append(after)
        for name, took_ms in judgement.timings_ms.items():
            stages.setdefault(name, []).append(took_ms)
    return {
        "columns": radiograph.columns, "channels": CHANNELS, "energies": 2, "simulated": True,
        "at_once_ms": _ms(at_once), "spread_ms": [round(1e3 * min(at_once), 1), round(1e3 * max(at_once), 1)],
        "while_passing_ms": _ms(passing), "after_last_column_ms": _ms(left),
        "stages_ms": {name: round(statistics.median(values), 1) for name, values in stages.items()},
    }  # fmt: skip


def _push(stream: Stream, radiograph: Any) -> None:
    for first in range(0, radiograph.columns, BLOCK):
        stream.push(tuple(c[first : first + BLOCK] for c in radiograph.counts))


def _ms(values: list[float]) -> float:
    return round(1e3 * statistics.median(values), 1)
