"""The batch benchmark: the same simulated recordings judged anew by one worker and by two.

The time is that of judging and of the ledger and tables; starting the workers, once per run, is told apart. Both must
end with the same rows.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq

from scanner_io.errors import DataError
from triage.service.lane import Judge
from triage.service.simulated import simulate_recordings
from triage.study.batch import judge_recording, plan_of, run_batch
from triage.study.batch_cluster import Cluster
from triage.study.measure import machine, ratio, timed, versions

COUNTS = (1, 2)
WARM = 6
"""Recordings per worker before the time counts: they load its kernels and start its reader."""
OF_THE_RUN = ["seconds", "worker"]


def bench_batch(
    folder: Path | None = None, rounds: int = 3, recordings: int = 100, columns: int = 400, channels: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run the benchmark and return a JSON-ready report.

    two_over_one : recordings per second of two workers / of one
    read_back_equal : whether all runs ended with the same rows
    """
    if rounds < 1 or recordings < 2:
        raise DataError(f"bench: rounds is {rounds} and recordings {recordings}; give at least 1 and 2")
    load_before = os.getloadavg()
    seconds: dict[int, list[float]] = {count: [] for count in COUNTS}
    starts: list[float] = []
    tables = []
    with tempfile.TemporaryDirectory(prefix="scanlane-bench-", dir=folder) as name:
        archive = Path(name) / "archive"
        with closing(Judge(threads=1)) as judge:
            made = simulate_recordings(archive, recordings, 1, "bench", judge, columns=columns, channels=channels)
            paths = [str(path) for path, _ in made]
        plan = plan_of(None, None, None)
        encoded = msgspec.json.encode(plan)
        for done in range(rounds):
            for count in COUNTS if done % 2 == 0 else COUNTS[::-1]:
                cluster: list[Cluster] = []
                starts.append(timed(lambda n=count, c=cluster: c.append(Cluster(None, n))))  # type: ignore[misc]
                with cluster[0]:
                    warm_up = enumerate(paths[: WARM * count])
                    for _ in cluster[0](judge_recording, encoded, warm_up):
                        pass
                    out = Path(name) / f"out{done}.{count}"
                    report = run_batch([archive], out, plan, cluster[0])
                seconds[count].append(report["seconds"])
                tables.append(pq.read_table(out / "scans.parquet").drop(OF_THE_RUN))
            if progress is not None:
                progress(done + 1, rounds)
    return {
        "two_over_one": ratio(seconds[1], seconds[2]),
        "scans_per_s": {str(n): round(recordings / statistics.median(s), 2) for n, s in seconds.items()},
        "start_s": round(statistics.median(starts), 2), "recordings": recordings, "columns": columns,
        "channels": channels, "simulated": True, "read_back_equal": all(t.equals(tables[0]) for t in tables),
        "machine": machine(load_before), "versions": versions(),
    }  # fmt: skip
