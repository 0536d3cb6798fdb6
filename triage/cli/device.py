"""`scanlane device`: how detectors and sources have changed."""

from __future__ import annotations

from pathlib import Path

import click

from .shared import emit, json_option, new_console, progress_bar


@click.group()
def device() -> None:
    """What the recordings tell of a lane's devices."""


@device.command()
@click.argument("archive", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--most", default=2000, show_default=True, type=click.IntRange(2, 1_000_000), help="Recordings to read.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page of them, too.")
@json_option
def trend(archive: tuple[Path, ...], most: int, page: Path | None, as_json: bool) -> None:
    """Show drift of dark and gain, source output, stripes and new bad channels over the recordings of ARCHIVE.

    \b
    scanlane device trend /var/lib/scanlane/recordings
    scanlane device trend /var/lib/scanlane/recordings/north --html north.html

    A change is told where a trend is sure (Kendall's tau over daily medians) and beyond its limit. It takes two weeks
    or so until a trend is sure.
    """  # noqa: D301  (click wants the character itself)
    from scanner_io.storage import write_durable
    from triage.study.device_trend import device_trend, html

    with progress_bar(most, "recordings", quiet=as_json) as advance:
        told = device_trend(archive, most, advance)
    if page is not None:
        write_durable(page, html(told).encode(), replace=True)
    if as_json:
        emit(told)
        return
    console = new_console()
    console.print(
        f"{told['read']} of {told['recordings']} recordings read, {told['simulated']} simulated", markup=False
    )
    for problem in told["unreadable"]:
        console.print(f"unreadable  {problem}", markup=False, style="red")
    for name, lane in told["lanes"].items():
        console.print(f"lane {name}, {lane['scans']} scans", markup=False, style="bold")
        for series in lane["series"].values():
            console.print(f"  {series['words']}", markup=False, style="red" if series["changed"] else None)
        if lane["new_bad_channels"]:
            console.print(f"  {lane['changes'][-1]}", markup=False, style="red")
