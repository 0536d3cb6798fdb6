"""`scanlane batch`: judge an archive anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from .shared import (
    EXIT_BAD_INPUT,
    cluster_options,
    emit,
    energy_option,
    json_option,
    new_console,
    opener,
    profile_option,
    progress_bar,
    risk_option,
)


@click.command()
@click.argument("archive", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the tables and of the ledger.")
@click.option(
    "--lanes", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The service's configuration: every lane is judged by its own energy calibration, profile and risk.",
)  # fmt: skip
@energy_option
@profile_option
@risk_option
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Processes on this machine.")
@cluster_options
@click.option("--again", is_flag=True, help="Judge all anew where the folder's scans were judged by other code.")
@click.option("--retry", is_flag=True, help="Try again what was set aside.")
@json_option
def batch(
    archive: tuple[Path, ...], out: Path, lanes: Path | None, energy: Path | None, usual: Path | None,
    risk: Path | None, workers: int,
    scheduler: str | None, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, wait_s: float,
    again: bool, retry: bool, as_json: bool,
) -> None:  # fmt: skip
    """Judge every recording in ARCHIVE anew, by today's code and profile, on many processes or a cluster.

    Writes OUT/scans.parquet with a row per recording and OUT/findings.parquet with a row per finding. A run that was
    stopped, by whatever, goes on where it was when the same command is given again. Files that cannot be read, and
    files that end the process that reads them, are set aside, listed in the table with the reason, and make the exit
    code 1. The archive itself is only read.

    \b
    scanlane batch state/recordings --out rejudged
    scanlane batch /archive --lanes lane.toml --out rejudged --scheduler tls://hub:8786 \\
        --tls-ca ca.pem --tls-cert me.pem --tls-key me.key

    Workers elsewhere must have this version installed and see the archive and the profiles under the same paths.
    Needs the extra `batch`.
    """  # noqa: D301  (click wants the character itself)
    if lanes is not None and any(told is not None for told in (energy, usual, risk)):
        raise click.UsageError("--lanes tells energy calibration and profiles of every lane; leave out the others")
    cluster_of = opener(scheduler, workers, (tls_ca, tls_cert, tls_key), wait_s)
    from triage.study.batch import plan_of, run_batch

    plan = plan_of(energy, usual, lanes, risk)
    with ExitStack() as stack:

        def begun(total: int) -> Callable[[], None]:
            return stack.enter_context(progress_bar(total, "judging", quiet=as_json))

        cluster = stack.enter_context(cluster_of())
        report = run_batch(archive, out, plan, cluster, again=again, retry=retry, begun=begun)
    if as_json:
        emit(report)
    else:
        _print(report)
    if report["bad"] or report["poison"]:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _print(report: dict[str, object]) -> None:
    console = new_console()
    words = "{judged_now} recordings judged in {seconds} s by {workers} workers, {found_before} were done before"
    console.print(words.format_map(report))
    console.print("{scans} scans, {findings} findings: {out}/scans.parquet, findings.parquet".format_map(report))
    if report["differ_from_stored"]:
        console.print("{differ_from_stored} differ from the result that their recording came with".format_map(report))
    if report["bad"] or report["poison"]:
        console.print(
            "{bad} could not be read, {poison} ended their worker: see `error` in scans.parquet; --retry tries them "
            "again".format_map(report), style="yellow",
        )  # fmt: skip
