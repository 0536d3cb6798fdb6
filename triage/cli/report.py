"""`scanlane report`: whether what a site does works."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from .shared import ByDefault, emit, json_option, new_console, progress_bar


@click.group(cls=ByDefault, default="operations")
def report() -> None:
    """Figures of a site with numerator, denominator and interval beside each.

    \b
    scanlane report STATE_DIR --from 2026-01-01     the same as `scanlane report operations`
    scanlane report selection STATE_DIR             whether what risk chose holds more than chance
    """  # noqa: D301  (click wants the character itself)


@report.command()
@click.argument("archive", metavar="STATE_DIR|URL")
@click.option(
    "--from", "begin", metavar="TIME", help="First moment, 2026-01-31 or 2026-01-31T06:00, UTC. Default: all."
)
@click.option("--to", "end", metavar="TIME", help="Moment after the last. Default: now.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as a page.")
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="Write a row per lane.")
@json_option
def operations(
    archive: str, begin: str | None, end: str | None, page: Path | None, table: Path | None, as_json: bool
) -> None:  # fmt: skip
    """What each lane did: throughput, flags against the promise, hits, time to decision, downtime with its reasons.

    ARCHIVE is the state folder of a service, which may be running, or the postgresql:// URL of a site's database,
    without a password.
    """
    from scanner_io.storage import write_durable
    from triage.service import operations as study
    from triage.service import risk_archive, store

    place = store.named(archive)
    now_ns = time.time_ns()
    end_ns = now_ns if end is None else _instant(end, "--to")
    span = risk_archive.span(place)
    first_ns = _instant(begin, "--from") if begin is not None else end_ns if span is None else span[0]
    if first_ns >= end_ns:
        raise click.BadParameter("the time ends before it begins, or nothing was scanned before it", param_hint="--to")
    with progress_bar(risk_archive.count(place, (first_ns, end_ns)), "reading", quiet=as_json) as progress:
        told = study.report(place, first_ns, end_ns, progress)
    if page is not None:
        write_durable(page, study.html(told).encode(), replace=True)
    if table is not None:
        write_durable(table, study.as_csv(told).encode(), replace=True)
    if as_json:
        emit(told)
        return
    _print_operations(told, study.table(told))


def _instant(words: str, option: str) -> int:
    """Return the time in nanoseconds; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(words)
    except ValueError as error:
        raise click.BadParameter(
            f"{words!r} is no time; write 2026-01-31 or 2026-01-31T06:00", param_hint=option
        ) from error
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * 10**9


def _print_operations(told: dict[str, Any], rows: list[tuple[str, list[str]]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from triage.analysis.shares import words

    console = new_console()
    console.print(f"{told['from']} to {told['to']}, UTC")
    if told["simulated"]:
        console.print(f"{told['simulated']} of the scans are simulated", style="yellow")
    table = Table("", *told["lanes"], "all", box=None, header_style="bold")  # a lane's name is made of plain letters
    for name, cells in rows:
        table.add_row(name, *map(Text, cells))
    console.print(table)
    for lane in told["lanes"].values():
        for down in (*lane["downtime"], *lane["device_faults"]):
            until = down["to"] or "now"
            console.print(f"{down['what']}: {down['from']} to {until}: {down['reason']}", style="dim", markup=False)
    console.print(f"second opinions other than the decision: {words(told['disagreements'])}")


@report.command()
@click.argument("archive", metavar="STATE_DIR|URL")
@click.option(
    "--stage", type=click.Choice(["image", "look", "open"]), default="look", show_default=True,
    help="Selections of this stage.",
)  # fmt: skip
@click.option("--profiles", type=click.Path(path_type=Path, file_okay=False), help="Folder of the signed profiles.")
@click.option(
    "--site", default="large_hub", show_default=True,
    help="Scenario of `scanlane policy` whose costs of a look and an opening are used.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as HTML.")
@json_option
def selection(
    archive: str, stage: Any, profiles: Path | None, site: str, out: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Hold what risk chose against what was drawn at random: hits, by rule, with cost; fairness; expired rules.

    Reads the selections recorded by `scanlane selection run --record` and the decisions made since.
    """
    from scanner_io.storage import write_durable
    from triage.analysis.shares import words
    from triage.policy.scenario import load
    from triage.service import risk_archive, selection_report, store

    place = store.named(archive)
    with progress_bar(risk_archive.count(place), "reading", quiet=as_json) as progress:
        told = selection_report.report(place, stage, profiles, load(site), progress)
    if out is not None:
        write_durable(out, selection_report.html(told).encode(), replace=True)
    if as_json:
        emit(told)
        return
    from rich.table import Table

    console = new_console()
    simulated = f", {told['simulated']} simulated" if told["simulated"] else ""
    console.print(f"{told['candidates']} passages{simulated}, {told['runs']} runs")
    console.print(selection_report.VERDICT[told["risk_finds_more_than_chance"]])
    table = Table("", "passages", "undecided", "hits of decided", "found", box=None, header_style="bold")
    for name, one in told["ways"].items():
        table.add_row(
            name, str(one["passages"]), str(one["undecided"]), words(one["hit_rate"]), str(one["found"])
        )  # fmt: skip
    console.print(table)
    table = Table("rule", "chosen", "hits of decided", "alone", "USD", "USD per hit", box=None, header_style="bold")
    for name, one in told["rules"].items():
        per_hit = "no hit" if one["cost_per_hit_usd"] is None else f"{one['cost_per_hit_usd']:.2f}"
        table.add_row(name, str(one["chosen"]), words(one["hit_rate"]), str(one["alone"]), f"{one['cost_usd']:.2f}",
                      per_hit)  # fmt: skip
    console.print(table)
    for one in told["expired"]:
        console.print(f"expired {one['valid_to']}: {one['rule']} ({one['owner']})", style="yellow", markup=False)
    for line in told["profiles_not_found"]:
        console.print(line, style="dim", markup=False)
    if out is not None:
        console.print(f"report: {out}")
