"""`scanlane watch` and `decide`: the analyst's side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner_io.errors import ScannerError

from .shared import analyst_option, connect_option, emit, json_option, key_option, new_console

if TYPE_CHECKING:
    from scanner_io.security import Identity


@click.command()
@connect_option
@analyst_option
@key_option
@click.option("--capacity", default=1, show_default=True, type=click.IntRange(0, 100), help="Scans to hold at once.")
@click.option("--count", default=None, type=click.IntRange(1), help="End after so many scans.")
@json_option
def watch(address: str, analyst: str | None, key: Path | None, capacity: int, count: int | None, as_json: bool) -> None:
    """Be an analyst in a terminal: flagged scans with picture, portal profile and findings; answer c, x or r.

    Alarms are shown too: flagged scans that nobody takes. With --capacity 0 it only shows those, for a supervisor.

    With --json each offered scan is printed as one line and stays yours while this runs; answer with
    `scanlane decide` under the same name.
    """
    from triage.service.desk import watch_queue

    watch_queue(
        address, _named(analyst, key), capacity, count, identity=_identity(key),
        console=None if as_json else new_console(), emit=emit,
    )  # fmt: skip


def _identity(key: Path | None) -> Identity | None:
    from scanner_io import security

    return None if key is None else security.load_identity(key)


def _named(analyst: str | None, key: Path | None) -> str:
    """Return the analyst's name: as told, that of the key, or the login name."""
    from scanner_io.client import default_analyst

    return analyst or ("" if key is not None else default_analyst())


@click.command()
@click.argument("scan")
@click.argument("verdict", type=click.Choice(["clear", "inspect", "rescan"]))
@connect_option
@analyst_option
@key_option
@click.option("--note", default="", help="Why, in words.")
@click.option("--code", "codes", multiple=True, type=int, help="Decision code of the site; may be repeated.")
@json_option
def decide(
    scan: str, verdict: str, address: str, analyst: str | None, key: Path | None, note: str, codes: tuple[int, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Decide SCAN: clear, inspect or rescan. Returns once the service has committed it."""
    from scanner_io.client import Workstation, plain

    with Workstation(address, _named(analyst, key), capacity=0, identity=_identity(key)) as desk:
        offer = desk.claim(scan)
        decided = desk.decide(offer, verdict, note=note, codes=codes)  # type: ignore[arg-type]
    if as_json:
        emit(plain(decided))
    elif decided.applied:
        click.echo(f"{scan}: {verdict}, committed")
    if not decided.applied:
        raise ScannerError(f"{scan}: the decision is kept but not applied: {decided.reason}")
