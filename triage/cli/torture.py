"""`scanlane torture`: the test list of reliability against the real daemon."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click
import msgspec

from .shared import EXIT_BAD_INPUT, emit, json_option, new_console


@click.command()
@click.option("--full", is_flag=True, help="The long form: hours. Default: all rows in some minutes.")
@click.option("--row", "rows", multiple=True, metavar="R1[,R2]", help="Only these rows; may be given again.")
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Work on the disk of this folder. Default: the system's temporary folder.",
)  # fmt: skip
@json_option
def torture(full: bool, rows: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    """Kill, starve, cut off and deceive a daemon made for it, and count what is lost.

    Every row is run on a real daemon with simulated devices in a folder of its own; a site's daemon is not touched.
    Some rows need root (a disk that is full, a network that is cut): where they cannot run they say so and count
    neither way. A row that failed keeps its folder and says where it is. Exit code 1 if a row fails.
    """
    from triage.torture import suite

    signal.signal(signal.SIGTERM, _interrupted)
    failed = 0
    console = new_console()
    for row in suite.run(rows, full=full, folder=folder):
        failed += row.passed is False
        if as_json:
            emit(msgspec.to_builtins(row))
            continue
        word = {True: "[green]passed[/]", False: "[bold red]FAILED[/]", None: "[yellow]cannot run here[/]"}[row.passed]
        console.print(f"{row.row:4} {word}  {row.seconds:.1f} s")
        for text in (str(row.figure), f"bar: {row.bar}", row.note):
            console.print(f"     {text}", markup=False)
    if failed:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C: every row cleans up behind itself."""
    raise KeyboardInterrupt
