"""The terminal analyst behind `scanlane watch`."""

from __future__ import annotations

import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scanner_io import wire
from scanner_io.client import Workstation, plain
from scanner_io.errors import DeliveryError, ScannerError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Scan, Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from scanner_io.security import Identity

WATCH_S = 0.3
KEYS: dict[str, Verdict] = {"c": "clear", "x": "inspect", "r": "rescan"}


def scan_of(data: bytes | memoryview) -> Scan:
    """Return the scan in the bytes of a recording. Raises DataError."""
    with ForeignFiles() as readers:
        return readers.recording_of(data, "fetched recording").scan


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C sets, besides raising KeyboardInterrupt: an exception can fall into a finaliser."""
    stop = threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        stop.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def watch_queue(
    address: str, name: str, capacity: int, count: int | None, *, identity: Identity | None, console: Console | None,
    emit: Callable[[Any], None],
) -> None:  # fmt: skip
    """Take offers until `count` are done, or Ctrl-C. console : None prints JSON lines by `emit` instead."""
    interactive = console is not None and sys.stdin.isatty()
    with interrupts() as stop, Workstation(address, name, capacity=capacity, identity=identity) as desk:
        if not desk.connected(10.0):
            raise DeliveryError(f"{address}: no service answered within 10 s; is `scanlane run` up?")
        if console is not None:
            _print_queue(console, desk.queue(), desk.analyst)
        done = 0
        try:
            while (count is None or done < count) and not stop.is_set():
                _tell_alarms(desk, console, emit)
                offer = desk.next_offer(timeout_s=1.0)
                if offer is None:
                    if console is not None and desk.silent_s > 10:
                        console.print(f"last heard {desk.silent_s:.0f} s ago: not connected", style="bold red")
                    continue
                scan = _fetch(desk, offer, emit, console)
                done += 1
                if console is not None:
                    _show(console, offer, scan)
                    if interactive:
                        _ask(console, desk, offer, stop)
                else:
                    emit({"event": "offer", **plain(offer)})
        except KeyboardInterrupt:
            if console is not None:
                console.print("signing off; open scans go back to the queue")


def _fetch(desk: Workstation, offer: wire.Offer, emit: Callable[[Any], None], console: Console | None) -> Scan | None:
    """Fetch the recording; a scan that does not arrive is still shown by what the offer says."""
    try:
        return scan_of(desk.fetch(offer))
    except ScannerError as error:
        if console is not None:
            console.print(f"the picture did not arrive: {error}", style="red", markup=False)
        else:
            emit({"event": "fetch_failed", "scan_id": offer.scan_id, "error": str(error)})
        return None


def _tell_alarms(desk: Workstation, console: Console | None, emit: Callable[[Any], None]) -> None:
    """Show what a person must see to."""
    while desk.alarms:
        alarm = desk.alarms.popleft()
        if console is None:
            emit({"event": "alarm", **plain(alarm)})
        else:
            words = "alarm over" if alarm.over else "ALARM"
            console.print(
                f"{words}: {alarm.text}", style="bold green" if alarm.over else "bold red", markup=False
            )  # fmt: skip


def _print_queue(console: Console, queue: wire.Queue, name: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from triage.terminal import outcome

    counts = ", ".join(f"{v} {k}" for k, v in queue.counts.items())
    console.print(f"signed on as {name}; {counts or 'no scans yet'}", markup=False)
    if queue.rows:
        table = Table("scan", "outcome", "state", "analyst", "reason", box=None, header_style="bold")
        for row in queue.rows[:20]:
            reason = row.reasons[0] if row.reasons else ""
            table.add_row(Text(row.scan_id), outcome(row.outcome), row.state, Text(row.analyst), Text(reason))
        console.print(table)


def _show(console: Console, offer: wire.Offer, scan: Scan | None) -> None:
    from triage.terminal import scan_panel

    colour = console.color_system is not None
    panel = scan_panel(
        offer.result, scan=scan, simulated=offer.simulated, width=console.width, colour=colour,
        declaration=offer.declaration,
    )  # fmt: skip
    console.print(panel)


def _ask(console: Console, desk: Workstation, offer: wire.Offer, stop: threading.Event) -> None:
    """Ask until there is an answer that the service has committed, or the scan is no longer this analyst's."""
    while True:
        key = _line(
            console, desk, offer, stop, "[bold]c[/] clear  [bold]x[/] inspect  [bold]r[/] rescan  [bold]s[/] give back"
        )
        if key is None:
            return
        key = key.lower()
        if key == "s":
            desk.release(offer)
            return
        if key not in KEYS:
            continue
        note: str | None = ""
        if key != "c":
            note = _line(console, desk, offer, stop, "note, needed for inspect and rescan (empty: back)")
        if note is None:
            return
        if key != "c" and not note:
            continue
        try:
            decided = desk.decide(offer, KEYS[key], note=note)
        except DeliveryError as error:
            console.print(f"not committed: {error}", style="bold red", markup=False)
            continue
        words = "committed" if decided.applied else f"kept, but not applied: {decided.reason}"
        console.print(f"{offer.scan_id}: {KEYS[key]}, {words}", markup=False)
        return


def _line(console: Console, desk: Workstation, offer: wire.Offer, stop: threading.Event, prompt: str) -> str | None:
    """Return the line typed, or None once the scan is no longer this analyst's. Raises KeyboardInterrupt at the end."""
    console.print(f"{prompt}, then Enter > ", end="")
    while True:
        if stop.is_set():
            raise KeyboardInterrupt
        if why := desk.lost(offer):
            console.print(f"\n{offer.scan_id} is no longer yours: {why}", style="bold yellow", markup=False)
            return None
        if select.select([sys.stdin], [], [], WATCH_S)[0]:
            typed = sys.stdin.readline()
            desk.acted()
            if not typed:
                raise KeyboardInterrupt  # Ctrl-D: the person signs off
            return typed.strip()
