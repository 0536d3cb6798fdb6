"""`scanlane backup`: a second copy of a service's state, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from .shared import EXIT_BAD_INPUT, emit, json_option, new_console, progress_bar


@click.group()
def backup() -> None:
    """Copy recordings and outbox to a second place while the service runs, check the copy, restore it.

    \b
    scanlane backup make /var/lib/scanlane /mnt/backup/north     again: only what is new is copied
    scanlane backup check /mnt/backup/north                      every file against its hash
    scanlane backup restore /mnt/backup/north /var/lib/scanlane  into a folder that is empty

    Keys and configuration are not in it: copy the keys by hand to where nobody else reads them.
    """  # noqa: D301  (click wants the character itself)


target_argument = click.argument("copy", type=click.Path(path_type=Path, file_okay=False))


@backup.command("make")
@click.argument("state_dir", type=click.Path(path_type=Path, file_okay=False, exists=True))
@target_argument
@json_option
def make_command(state_dir: Path, copy: Path, as_json: bool) -> None:
    """Bring COPY up to date with STATE_DIR. Exit code 1 if a recording is not as it was recorded.

    One that was cut short is gone on with by the next; until then COPY is as it was before. What `scanlane retention`
    deleted from STATE_DIR is removed from COPY too.
    """
    from triage.service.backup import backup as work

    with ExitStack() as stack:
        made = work(state_dir, copy, _bar(stack, "copying", as_json))
    if as_json:
        emit({
            "files": made.files, "copied": made.copied, "bytes": made.bytes_copied, "removed": made.removed,
            "problems": list(made.problems),
        })  # fmt: skip
    else:
        words = f"{made.files} files, {made.copied} copied now, {made.bytes_copied / 1e6:.1f} MB"
        if made.removed:
            words += f"; {made.removed} recordings removed that retention had deleted"
        new_console().print(words)
    _problems(made.problems, as_json)


@backup.command("check")
@target_argument
@json_option
def check_command(copy: Path, as_json: bool) -> None:
    """Hold every file of COPY against its hash. Exit code 1 if one is not as it was."""
    from triage.service.backup import check as work

    with ExitStack() as stack:
        problems = work(copy, _bar(stack, "checking", as_json))
    if as_json:
        emit({"sound": not problems, "problems": problems})
    elif not problems:
        new_console().print("sound")
    _problems(problems, as_json)


@backup.command("restore")
@target_argument
@click.argument("state_dir", type=click.Path(path_type=Path, file_okay=False))
@json_option
def restore_command(copy: Path, state_dir: Path, as_json: bool) -> None:
    """Make STATE_DIR, which must be empty or not there, from COPY."""
    from triage.service.backup import restore as work

    with ExitStack() as stack:
        files = work(copy, state_dir, _bar(stack, "restoring", as_json))
    if as_json:
        emit({"files": files, "state_dir": str(state_dir)})
    else:
        new_console().print(
            f"{files} files. Then: scanlane audit verify {state_dir}, put the keys back, start the service",
            markup=False,
        )  # fmt: skip


def _bar(stack: ExitStack, label: str, quiet: bool) -> Callable[[int], Callable[[], None]]:
    return lambda total: stack.enter_context(progress_bar(total, label, quiet=quiet))


def _problems(problems: list[str] | tuple[str, ...], as_json: bool) -> None:
    if not as_json:
        console = new_console()
        for words in problems:
            console.print(words, style="red", markup=False)
    if problems:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)
