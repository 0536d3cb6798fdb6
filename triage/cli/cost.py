"""`scanlane cost`: what lanes, analysts and archives take, by measurements."""

from __future__ import annotations

from pathlib import Path

import click

from .shared import emit, json_option


@click.command()
@click.argument("lanes_report", type=click.Path(path_type=Path))
@click.option("--batch", "batch_report", type=click.Path(path_type=Path), help="JSON of `scanlane bench batch`.")
@click.option("--lanes", default=1000, show_default=True, type=click.IntRange(1, 1_000_000), help="Of the deployment.")
@click.option("--scans-per-day", default=500.0, show_default=True, type=click.FloatRange(1, 86400), help="Of a lane.")
@click.option(
    "--large-share", default=1.0, show_default=True, type=click.FloatRange(0, 1), help="Of lanes with full-size images."
)
@click.option(
    "--scans-per-analyst", default=30.0, show_default=True, type=click.FloatRange(0.1, 3600),
    help="Flagged scans that an analyst decides in an hour.",
)  # fmt: skip
@click.option(
    "--recording-mb", type=click.FloatRange(0, min_open=True),
    help="Mean size of your own recordings; without it, that of the benchmark's simulated images.",
)  # fmt: skip
@click.option(
    "--flagged-share", type=click.FloatRange(0, 1),
    help="Share of your own scans that is flagged; without it, that of the benchmark's simulated images.",
)  # fmt: skip
@json_option
def cost(
    lanes_report: Path, batch_report: Path | None, lanes: int, scans_per_day: float, large_share: float,
    scans_per_analyst: float, recording_mb: float | None, flagged_share: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Make a cost model of LANES_REPORT, the JSON of `scanlane bench lanes`: a table in Markdown.

    \b
    scanlane bench lanes --json > lanes.json
    scanlane bench batch --json > batch.json
    scanlane cost lanes.json --batch batch.json --lanes 1000 --scans-per-day 400
    scanlane cost lanes.json --recording-mb 12.5 --flagged-share 0.15

    Every row is marked: measured, derived from what was measured, extrapolated beyond it, or given by you. A report in
    which scans were lost or not taken in time, a lane died or an exit code was not 0 is refused.
    """  # noqa: D301  (click wants the character itself)
    from triage.study.cost import cost as model
    from triage.study.cost import markdown, read

    bench = read(lanes_report, "cpu_per_lane")
    batch = None if batch_report is None else read(batch_report, "scans_per_s")
    told = model(
        bench, batch, lanes=lanes, scans_per_day=scans_per_day, large_share=large_share,
        scans_per_analyst_h=scans_per_analyst, recording_mb=recording_mb, flagged_share=flagged_share,
    )  # fmt: skip
    if as_json:
        emit(told)
    else:
        click.echo(markdown(told), nl=False)
