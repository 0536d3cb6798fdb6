"""`scanlane bench`: measure against named peers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from scanner_io.errors import ScannerError

from .shared import emit, json_option, new_console, progress_bar, rounds_option


@click.group()
def bench() -> None:
    """Measure against named peers, interleaved in one run."""


@bench.command("triage")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(3, 1000))
@click.option("--columns", default=5000, show_default=True, type=click.IntRange(500, 20_000))
@click.option("--quick", is_flag=True, help="Without naive numpy/scipy and scikit-image (two minutes less).")
@json_option
def bench_triage(rounds: int, columns: int, quick: bool, as_json: bool) -> None:
    """The image pipeline against OpenCV and memcpy, with the agreement checked in the same run.

    Needs a source checkout: the peers live beside the tests. Run nothing else meanwhile.
    """
    from triage.study.bench import bench_triage as measure

    _bench(lambda progress: measure(rounds=rounds, width=columns, quick=quick, progress=progress), rounds, as_json)


def _bench(measure: Callable[[Callable[[int, int], None]], dict[str, Any]], rounds: int, as_json: bool) -> None:
    """Run a benchmark with a progress bar and print its report; figures of work that is wrong are an error."""
    with progress_bar(rounds, "rounds", quiet=as_json and not sys.stderr.isatty()) as advance:
        report = measure(lambda *_: advance())
    if as_json:
        emit(report)
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table("", "median", "min", "max", box=None, header_style="bold")
        for name, cells in _bench_rows(report):
            table.add_row(Text(name), *(Text(cell) for cell in cells))
        new_console().print(table)
    wrong = [name for name in ("agreement_ok", "read_back_equal") if report.get(name) is False]
    if wrong:
        raise ScannerError(
            f"bench: {wrong[0]} is false, so what was timed is not what was to be done and no ratio counts; "
            "see `agreement` of --json for what differs"
        )


def _bench_rows(report: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield name and cells of every figure, ratios with median, min and max."""
    for name, value in report.items():
        if isinstance(value, dict) and {"median", "min", "max"} <= value.keys():
            more = {k: v for k, v in value.items() if k not in ("median", "min", "max")}
            yield f"{prefix}{name}", [f"{value[k]:g}" for k in ("median", "min", "max")]
            yield from _bench_rows(more, f"{prefix}{name}.")
        elif isinstance(value, dict):
            yield from _bench_rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", [f"{value:g}" if isinstance(value, float) else str(value)]


folder_option = click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Measure on the disk of this folder. Default: the system's temporary folder.",
)  # fmt: skip


@bench.command("record")
@rounds_option
@click.option("--columns", default=5000, show_default=True, type=click.IntRange(64, 20_000))
@folder_option
@json_option
def bench_record(rounds: int, columns: int, folder: Path | None, as_json: bool) -> None:
    """A durable recording against writing the raw bytes and fsync, on the same disk."""
    from triage.study.bench_record import bench_record as measure

    _bench(lambda progress: measure(folder, rounds=rounds, columns=columns, progress=progress), rounds, as_json)


@bench.command("deliver")
@rounds_option
@folder_option
@json_option
def bench_deliver(rounds: int, folder: Path | None, as_json: bool) -> None:
    """A 40 MB recording into an analyst's hands, against bare pyzmq with the same chunks and hash, plain and CURVE.

    Run nothing else meanwhile.
    """
    from triage.study.bench_deliver import bench_deliver as measure

    _bench(lambda progress: measure(folder, rounds=rounds, progress=progress), rounds, as_json)


@bench.command("startup")
@rounds_option
@json_option
def bench_startup(rounds: int, as_json: bool) -> None:
    """Command line, kernels and daemon until they are ready; kernels compiled once, then from their cache."""
    from triage.study.bench_startup import bench_startup as measure

    _bench(lambda progress: measure(rounds=rounds, progress=progress), rounds, as_json)


@bench.command("drivers")
@rounds_option
@json_option
def bench_drivers(rounds: int, as_json: bool) -> None:
    """A Stream V2 detector's 40 MB scans against bare ZeroMQ, and the processor time of a line detector's driver."""
    from triage.study.bench_drivers import bench_drivers as measure

    _bench(lambda progress: measure(rounds=rounds, progress=progress), rounds, as_json)


@bench.command("batch")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 1000))
@click.option("--recordings", default=100, show_default=True, type=click.IntRange(2, 1_000_000))
@folder_option
@json_option
def bench_batch(rounds: int, recordings: int, folder: Path | None, as_json: bool) -> None:
    """Two workers against one over the same small simulated recordings.

    Needs the extra `batch`. Run nothing else meanwhile.
    """
    from triage.study.bench_batch import bench_batch as measure

    _bench(lambda progress: measure(folder, rounds, recordings, progress=progress), rounds, as_json)


@bench.command("lanes")
@click.option("--lanes", default=50, show_default=True, type=click.IntRange(1, 1000), help="With small images.")
@click.option("--large", default=4, show_default=True, type=click.IntRange(0, 100), help="With full-size images.")
@click.option("--analysts", default=30, show_default=True, type=click.IntRange(1, 200))
@click.option("--seconds", default=1800.0, show_default=True, type=click.FloatRange(1, 1e6), help="With all lanes.")
@click.option(
    "--interval", default=30.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Of a lane's scans, s."
)
@click.option("--steps", default=4, show_default=True, type=click.IntRange(1, 20), help="Of the number of lanes.")
@click.option("--hub/--no-hub", default=True, show_default=True, help="Analysts work from a hub, not from the lanes.")
@click.option("--quick", is_flag=True, help="A look of two minutes: 8 lanes, 1 of full size, 4 analysts.")
@folder_option
@json_option
def bench_lanes(
    lanes: int, large: int, analysts: int, seconds: float, interval: float, steps: int, hub: bool, quick: bool,
    folder: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """The load test: many lanes, a hub and analysts on this machine; latency, losses, memory, processor time per lane.

    
    scanlane bench lanes --quick
    scanlane bench lanes --json > lanes.json      the whole form: 50 lanes, 4 of full size, 30 minutes

    Takes the given time and four tenths more. A lane takes 0.2 GB. Run nothing else meanwhile. `scanlane cost` makes a
    cost model of the JSON.
    """
    from triage.study.bench_lanes import bench_lanes as measure

    def run(progress: Callable[[int, int], None]) -> dict[str, Any]:
        return measure(lanes, large, analysts, seconds, interval, steps, hub, folder, progress)

    if quick:
        lanes, large, analysts, seconds, interval, steps = 8, 1, 4, 60.0, 5.0, 3
    _bench(run, steps + 1, as_json)


@bench.command("console")
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1, 1000))
@click.option("--columns", default=5000, show_default=True, type=click.IntRange(500, 200_000))
@click.option("--channels", default=2000, show_default=True, type=click.IntRange(64, 8192))
@click.option("--scans", default=200, show_default=True, type=click.IntRange(5, 100_000), help="Opened for the memory.")
@click.option("--queue", default=500, show_default=True, type=click.IntRange(0, 100_000), help="Waiting at the end.")
@json_option
def bench_console(rounds: int, columns: int, channels: int, scans: int, queue: int, as_json: bool) -> None:
    """The console in headless Chromium: click to first paint, frames beside a bare quad, memory, a long queue.

    Needs Chromium and the extra `test`. Run nothing else meanwhile: the whole of it takes five to ten minutes.
    """
    from triage.study.bench_console import bench_console as measure
    from triage.study.bench_console import steps

    _bench(
        lambda progress: measure(
            rounds=rounds, columns=columns, channels=channels, scans=scans, queue=queue, progress=progress
        ),
        steps(rounds, scans), as_json,
    )  # fmt: skip
