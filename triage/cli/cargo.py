"""`scanlane cargo`: what was declared in advance, and what was turned away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from .shared import emit, json_option, new_console

state_argument = click.argument("state_dir", type=click.Path(path_type=Path, file_okay=False))


@click.group()
def cargo() -> None:
    """Look at the declarations that came in advance; nothing is changed.

    \b
    scanlane cargo list STATE_DIR               what came last, with what became of it, and what was refused and why
    scanlane cargo list STATE_DIR --odd         only what has problems, or is not in force
    scanlane cargo show STATE_DIR CSQU3054383   every version of what is declared for a container

    A passage goes on whatever is wrong here, as "declaration missing or doubtful", which never lowers a risk.
    """  # noqa: D301  (click wants the character itself)


@cargo.command("list")
@state_argument
@click.option("--odd", is_flag=True, help="Only messages with problems, or that are not in force.")
@click.option("--container", default="", metavar="NUMBER", help="Only messages that name this container.")
@click.option("--most", default=50, show_default=True, type=click.IntRange(1, 100_000), help="So many of each kind.")
@json_option
def list_command(state_dir: Path, odd: bool, container: str, most: int, as_json: bool) -> None:
    """List messages, the newest first; then deliveries that were refused or could not be read, with the reason."""
    from triage.service import cargo_kept, store

    kept = cargo_kept.messages(state_dir, most, odd=odd, container=container)
    away = [] if container else cargo_kept.turned_away(store.named(str(state_dir)), most)
    if as_json:
        for one in kept:
            emit({"kind": "message", **one.row})
        for row in away:
            emit({"kind": "turned away", **row})
        return
    console = new_console()
    for one in kept:
        console.print(_line(one.row), markup=False)
        for problem in one.message.problems:
            console.print(f"    ! {problem}", style="yellow", markup=False)
    for row in away:
        console.print(f"{_at(row['utc_ns'])}  {row['what'].upper()}  {row['sender'] or 'unknown'}: {row['why']}",
                      style="red", markup=False)  # fmt: skip
    console.print(f"{len(kept)} messages, {len(away)} deliveries turned away" + (
        f"; --most {most} was reached" if most in (len(kept), len(away)) else ""))  # fmt: skip


@cargo.command()
@state_argument
@click.argument("name", metavar="CONTAINER|DOCUMENT|PLATE")
@json_option
def show(state_dir: Path, name: str, as_json: bool) -> None:
    """Show every version of what is declared under a name, as it was read, with what is odd about it.

    Exit code 1 where nothing has this name.
    """
    import json

    import msgspec

    from triage.service import cargo_kept

    for one in cargo_kept.named(state_dir, name):
        told = msgspec.to_builtins(one.message)
        if as_json:
            emit({**one.row, "told": told})
            continue
        console = new_console()
        console.print(_line(one.row), style="bold", markup=False)
        for problem in one.message.problems:
            console.print(f"    ! {problem}", style="yellow", markup=False)
        told.pop("problems", None)
        console.print(json.dumps(told, indent=2, ensure_ascii=False), markup=False, soft_wrap=True)


def _line(row: dict[str, Any]) -> str:
    again = f", came {row['repeats'] + 1} times" if row["repeats"] else ""
    simulated = "  SIMULATED" if row["simulated"] else ""
    names = ", ".join(row["containers"][:4]) + (
        f" and {len(row['containers']) - 4} more" * (len(row["containers"]) > 4)
    )
    return (
        f"{_at(row['received_utc_ns'])}  {row['standing']:12}  {row['form']} {row['function']}  {row['sender']} "
        f"{row['document']} v{row['version']}{again}  {names or row['plate'] or 'no container'}{simulated}"
    )


def _at(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
