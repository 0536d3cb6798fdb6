"""`scanlane calibrate`: learn what is usual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from .shared import (
    ByDefault,
    cluster_options,
    emit,
    energy_option,
    json_option,
    new_console,
    opener,
    progress_bar,
    seed_option,
    worker_processes,
    workers_option,
)


@click.group(cls=ByDefault, default="lane")
def calibrate() -> None:
    """Learn what is usual on a lane from its own scans, or make constants of judgement anew.

    \b
    scanlane calibrate ARCHIVE… --out north.profile     the same as `scanlane calibrate lane`
    scanlane calibrate show north.profile               what is in it
    """  # noqa: D301  (click wants the character itself)


@calibrate.command("lane")
@click.argument("archive", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Profile to write, over an older one.")
@click.option(
    "--flag-rate", default=0.05, show_default=True, type=click.FloatRange(0, 0.5, min_open=True),
    help="Share of innocent scans that findings may flag at most.",
)  # fmt: skip
@click.option("--lane", default=None, help="Learn from this lane's scans only. Default: all, which must be of one.")
@click.option(
    "--find-code", "find_codes", multiple=True, type=int,
    help="Decision code that means a find; such scans are not learned from. May be repeated.",
)  # fmt: skip
@click.option(
    "--polarity", type=click.Choice(["auto", "air_bright", "air_dark"]), default="auto", show_default=True,
    help="Whether air is bright or dark in image files.",
)  # fmt: skip
@energy_option
@workers_option
@cluster_options
@json_option
def calibrate_lane_command(
    archive: tuple[Path, ...], out: Path, flag_rate: float, lane: str | None, find_codes: tuple[int, ...],
    polarity: str, energy: Path | None, workers: int, scheduler: str | None, tls_ca: Path | None,
    tls_cert: Path | None, tls_key: Path | None, wait_s: float, as_json: bool,
) -> None:  # fmt: skip
    """Learn what is usual in ARCHIVE: recordings, images, or folders of them.

    The profile goes into a lane's table as `profile = "FILE"`, or to `triage` and `replay` as --profile. Findings then
    have a p-value and flag at most the promised share of innocent scans. Scans that are unusable, that the portal
    alarmed at, or that had a find are left out and named.

    With --scheduler the scans are looked at by the workers of a cluster, as by `scanlane batch`; the profile is the
    same. Workers elsewhere see the archive under the same paths.
    """
    from scanner_io import lane_profile
    from triage.study import calibrate_lane as study

    files = study.files_of(archive)
    helpers = worker_processes(workers)
    if scheduler is not None:
        helpers = _cluster(opener(scheduler, workers, (tls_ca, tls_cert, tls_key), wait_s))
    with progress_bar(len(files), "learning", quiet=as_json) as advance, helpers as pool:
        profile, sent = study.calibrate_lane(
            archive, flag_rate=flag_rate, energy=energy, polarity=polarity, lane=lane, find_codes=find_codes,
            progress=advance, pool=pool,
        )  # fmt: skip
    report = study.report_of(lane_profile.write(out, profile), sent)
    _print_profile({"file": str(out), **report}, as_json)


@contextmanager
def _cluster(opened: Callable[[], Any]) -> Iterator[Any]:
    from triage.study.batch_cluster import ClusterMap

    with opened() as cluster:
        yield ClusterMap(cluster)


@calibrate.command("show")
@click.argument("profile", type=click.Path(path_type=Path))
@click.option(
    "--state", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="State folder of the lane's daemon: how the promise has been kept since the profile came into force.",
)  # fmt: skip
@json_option
def calibrate_show(profile: Path, state: Path | None, as_json: bool) -> None:
    """Show what a PROFILE was learned from and what it promises."""
    from scanner_io import lane_profile
    from triage.service.promise import kept_watch
    from triage.study.calibrate_lane import report_of

    learned = lane_profile.read(profile)
    report = {"file": str(profile), **report_of(learned)}
    if state is not None:
        watch = kept_watch(state, learned)
        report["since"] = {
            "scans": watch.scans,
            "flagged": watch.flagged,
            "unknown": watch.unknown,
            "stale": watch.stale,
        }
    _print_profile(report, as_json)


def _print_profile(report: dict[str, Any], as_json: bool) -> None:
    from triage.study.calibrate_lane import in_words

    if as_json:
        emit(report)
        return
    console = new_console()
    for line in in_words(report):
        console.print(line, markup=False, soft_wrap=True)


@calibrate.command("portal")
@click.option("--passes", default=100_000, show_default=True, type=click.IntRange(1000), help="Passages simulated.")
@seed_option
@workers_option
@json_option
def calibrate_portal_command(passes: int, seed: int, workers: int, as_json: bool) -> None:
    """Scores that passages without a source reach: the constants of triage/analysis/portal_null.py."""
    from triage.study.calibrate_portal import calibrate_portal, in_python, parts

    with progress_bar(len(parts(passes)), "simulating", quiet=as_json) as advance, worker_processes(workers) as pool:
        report = calibrate_portal(passes, seed, advance, pool)
    if as_json:
        emit(report)
        return
    click.echo(in_python(report))
