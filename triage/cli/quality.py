"""`scanlane quality`: cleared scans read a second time, and how often readers disagree."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from .shared import analyst_option, emit, json_option, new_console, seed_option

if TYPE_CHECKING:
    from scanner_io.model import Verdict

archive_argument = click.argument("archive", metavar="STATE_DIR|URL")


@click.group()
def quality() -> None:
    """Let a second reader look at cleared scans, drawn so that the draw can be made again.

    \b
    Begin with   scanlane quality sample STATE_DIR --record      a sample by lane, look of the load and who cleared
                 scanlane console --second-reading STATE_DIR    the second reader's page: blind, by keyboard
                 scanlane quality read STATE_DIR SAMPLE SCAN --verdict clear
                 scanlane quality report STATE_DIR               disagreement with exact intervals

    A scan that was cleared wrongly leaves no other trace: this sample is what a site's rate of misses is known by.
    """  # noqa: D301  (click wants the character itself)


@quality.command()
@archive_argument
@seed_option
@click.option("--share", default=0.01, show_default=True, type=click.FloatRange(0, 1), help="Part of each stratum.")
@click.option("--least", default=2, show_default=True, type=click.IntRange(0), help="At least so many of each.")
@click.option("--days", default=30.0, show_default=True, type=click.FloatRange(0), help="Cleared in the last so many.")
@click.option("--record", is_flag=True, help="Keep it in the archive, for readings; else only tell.")
@analyst_option
@json_option
def sample(
    archive: str, seed: int, share: float, least: int, days: float, record: bool, analyst: str | None, as_json: bool
) -> None:  # fmt: skip
    """Draw cleared scans for a second reader, stratified by lane, look of the load and who cleared them.

    The same seed gives the same scans of the same archive and time. Who cleared a scan is kept from its second reader
    unless asked for with --json.
    """
    from scanner_io.client import default_analyst
    from triage.service import quality as readings
    from triage.service import store
    from triage.service.outbox import Outbox

    place, now = store.named(archive), time.time_ns()
    drawn = readings.draw(place, seed, share, least, now - int(days * 86_400e9), now)
    if record:
        outbox = Outbox(place)
        try:
            readings.record(outbox, drawn, analyst or default_analyst())
        finally:
            outbox.close()
    if as_json:
        emit({
            "sample": drawn.sample, "algorithm": drawn.algorithm, "seed": seed, "cleared": drawn.cleared,
            "sampled": len(drawn.scans), "recorded": record,
            "scans": [{"scan": c.scan_id, "lane": c.lane, "texture": c.texture, "analyst": c.analyst,
                       "stands_for": round(w, 3)} for c, w in drawn.scans],
        })  # fmt: skip
        return
    click.echo(f"{drawn.sample}: {len(drawn.scans)} of {drawn.cleared} cleared scans by {drawn.algorithm}, seed {seed}"
               f"{', kept' if record else ''}")  # fmt: skip
    for one, _ in drawn.scans:
        click.echo(f"  {one.scan_id}  {one.lane}  {one.texture}")


@quality.command()
@archive_argument
@click.argument("sample")
@click.argument("scan")
@click.option("--verdict", required=True, type=click.Choice(["clear", "inspect", "rescan"]), help="Yours.")
@click.option("--note", default="", help="What you saw.")
@analyst_option
@json_option
def read(
    archive: str, sample: str, scan: str, verdict: Verdict, note: str, analyst: str | None, as_json: bool
) -> None:  # fmt: skip
    """Write down your reading of SCAN in SAMPLE. Who cleared it first cannot read it again; a reading stays."""
    from scanner_io.client import default_analyst
    from triage.service import quality as readings
    from triage.service import store
    from triage.service.outbox import Outbox

    who = analyst or default_analyst()
    outbox = Outbox(store.named(archive))
    try:
        readings.read(outbox, sample, scan, who, verdict, note)
    finally:
        outbox.close()
    if as_json:
        emit({"sample": sample, "scan": scan, "reader": who, "verdict": verdict})
    else:
        click.echo(f"{scan}: {verdict} by {who}")


@quality.command()
@archive_argument
@click.option("--sample", "names", multiple=True, help="Of these samples alone; else of all.")
@json_option
def report(archive: str, names: tuple[str, ...], as_json: bool) -> None:
    """Say how often second readers would not have cleared, by lane, look of the load and analyst.

    Exact 95 % intervals (Clopper and Pearson). Few readings give wide intervals: that is what they say.
    """
    from triage.analysis import quality_sample
    from triage.analysis.shares import words
    from triage.service import quality as readings
    from triage.service import store

    place = store.named(archive)
    kept = [s for s in readings.samples(place) if not names or s.sample in names]
    told: dict[str, Any] = quality_sample.disagreement(readings.readings(place, set(names) or None))
    told["samples"] = [
        {"sample": s.sample, "algorithm": s.algorithm, "seed": s.seed, "comes_out_again": readings.again(place, s)}
        for s in kept
    ]
    if as_json:
        emit(told)
        return
    from rich.table import Table

    console = new_console()
    console.print(f"{told['read']} of {told['sampled']} sampled scans read; not cleared: {words(told['all'])}")
    table = Table("", "", "second reader would not have cleared", box=None, header_style="bold")
    for dimension in (*quality_sample.DIMENSIONS, "reader"):
        for value, one in told[dimension].items():
            table.add_row(dimension, value, words(one))
    console.print(table)
