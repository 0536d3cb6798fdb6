"""`scanlane report`: whether what a site does works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .shared import emit, json_option, new_console, progress_bar


@click.group()
def report() -> None:
    """Figures of a site with numerator, denominator and interval beside each."""


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
