"""The start-up benchmark: how long the command line, the kernels and the daemon take to be ready, warm and cold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scanner_io.errors import DataError
from triage.study.measure import machine, ratio, versions

KERNELS = (
    "import time, numba, scipy.ndimage, h5py; since = time.perf_counter(); from triage.analysis import screening; "
    "from triage.service import packing; screening.warm_up(); print(time.perf_counter() - since)"
)
CONFIG = """
state_dir = "state"
[storage]
min_free_mb = 1
[dispatch]
bind = "tcp://127.0.0.1:0"
[[lane]]
name = "bench"
[[lane.device]]
driver = "file_drop"
path = "drop"
"""


def bench_startup(rounds: int = 7, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Run the benchmark and return a JSON-ready report.

    kernels_warm, kernels_cold : loading, or compiling, every kernel in a new process; libraries are imported before
    daemon_warm, daemon_cold : `scanlane run` with one lane until that lane is ready, from the start of the process
    version, python : `scanlane --version`, and `python -c pass` as its peer

    Cold is measured once each, in cache folders of their own; warm uses what the first left there.
    """
    if rounds < 1:
        raise DataError(f"bench: rounds is {rounds}; give at least 1")
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="scanlane-bench-") as name:
        folder = Path(name)
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
        (folder / "drop").mkdir()
        config = folder / "bench.toml"
        config.write_text(CONFIG)
        cold = float(_output([sys.executable, "-c", KERNELS], environment))
        cli = [sys.executable, "-m", "triage.cli"]
        empty = {**environment, "NUMBA_CACHE_DIR": str(folder / "empty")}
        daemon_cold = _ready_s([*cli, "run", str(config), "--json"], empty)
        times: dict[str, list[float]] = {"python": [], "version": [], "kernels_warm": [], "daemon_warm": []}
        for done in range(-1, rounds):  # the round before the first is a warm-up
            seen = {
                "python": _seconds([sys.executable, "-c", "pass"], environment),
                "version": _seconds([*cli, "--version"], environment),
                "kernels_warm": float(_output([sys.executable, "-c", KERNELS], environment)),
                "daemon_warm": _ready_s([*cli, "run", str(config), "--json"], environment),
            }
            if done < 0:
                continue
            for key, seconds in seen.items():
                times[key].append(seconds)
            if progress is not None:
                progress(done + 1, rounds)
    return {
        "rounds": rounds,
        "medians_s": {key: round(sorted(values)[len(values) // 2], 3) for key, values in times.items()},
        "kernels_cold_s": round(cold, 2),
        "daemon_cold_s": round(daemon_cold, 2),
        "kernels_warm_over_cold": ratio(times["kernels_warm"], [cold] * rounds, digits=5),
        "daemon_warm_over_cold": ratio(times["daemon_warm"], [daemon_cold] * rounds, digits=5),
        "version_over_python": ratio(times["version"], times["python"]),
        "machine": machine(load_before),
        "versions": versions(),
    }


def _output(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603 -- our own program
    if done.returncode:
        raise DataError(f"bench: {' '.join(command)[:200]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    since = time.perf_counter()
    _output(command, environment)
    return time.perf_counter() - since


def _ready_s(command: list[str], environment: dict[str, str]) -> float:
    """Return the seconds until the daemon's lane says that it is ready; then stop the daemon."""
    since = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 -- our own program
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if json.loads(line)["event"] == "lane_ready":
                    return time.perf_counter() - since
            raise DataError(f"bench: {' '.join(command)} ended before its lane was ready")
        finally:
            process.terminate()
            process.stdout.read()
