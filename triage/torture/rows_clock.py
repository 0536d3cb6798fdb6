"""R7: the clock set while the service runs and while it does not."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError

from . import bed, oracle
from .outcome import Outcome, cannot_run, judged, say

HOUR_S, DAY_S = 3600, 86400
LEASE_S = 5.0
SLEEPS_BY_SELECT = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"
"""libfaketime 0.9.10 fails a sleep until a moment, as Python's is; the clocks are not touched by this."""


class FakeClock:
    """The clock of the daemon and its lanes: the computer's, set as a row likes; intervals are not touched."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(SLEEPS_BY_SELECT)
        self.environment = {
            "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{bed.module_path()}",
        }  # fmt: skip

    def set(self, ahead_s: float) -> None:
        """Set it so far from the computer's own."""
        new = self._file.with_name("clock.new")
        new.write_text(f"{ahead_s:+.3f}\n")
        new.rename(self._file)


def r7_clock_steps(folder: Path, full: bool) -> Outcome:
    """Set the clock forward and back while scans come, wait and are on lease; then start before the last of them."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        return cannot_run("libfaketime is not installed here", "leases_ended == 0, steps_not_audited == 0")
    clock = FakeClock(folder, library)
    steps = [HOUR_S, -HOUR_S, DAY_S, -DAY_S, -1] if full else [DAY_S, -HOUR_S, -1]
    rounds = 20 if full else 1
    drop = oracle.Stimulator(folder / "drop")
    port = bed.free_port()
    config = bed.write_config(folder, bed.drop_lane(drop.folder), port=port, lease_s=LEASE_S)
    ahead_s, count, told = 0.0, 0, 0
    with Workstation(f"tcp://127.0.0.1:{port}", "ana", capacity=1) as ana:
        with bed.daemon(config, env=clock.environment) as service:
            bed.ready(service)
            _take_in(drop, service, 2)
            held = ana.next_offer(30.0)
            for step in steps * rounds:
                say(f"R7: the clock is set by {step:+d} s")
                ahead_s, count = ahead_s + step, count + 1
                clock.set(ahead_s)
                told += _heard(service, "clock_stepped", count)
                _take_in(drop, service, 2)
            time.sleep(LEASE_S)  # leases that would run out by the wrong clock have run out
            service.stop()
        ahead_s -= 2 * DAY_S
        clock.set(ahead_s)
        with bed.daemon(config, env=clock.environment) as service:
            bed.ready(service)
            told += _heard(service, "clock_stepped", 1)
            _take_in(drop, service, 2)
            time.sleep(LEASE_S)
            ended = _events(folder, "released", "held")
            lost = held is None or bool(ana.lost(held))
            with bed.Desk(f"tcp://127.0.0.1:{port}", "ben") as ben:
                bed.wait_until(lambda: len(ben.acknowledged) >= len(drop.known) - 1, 60.0, "all scans are decided")
            service.stop()
    found = oracle.check(folder / "state", [drop], ben.acknowledged)
    names = _names(folder)
    right = [n for n in sorted(drop.known) if held is None or n != names[held.scan_id]]
    figure = {
        "steps": count + 1, "steps_not_audited": count + 1 - len(_events(folder, "clock_stepped")),
        "steps_not_told": count + 1 - told, "leases_ended": len(ended), "lease_lost": lost,
        "out_of_order": sum(names[a] != b for a, b in zip(ben.delivered, right, strict=False)),
        "delivered": len(ben.delivered), **found.figure(),
    }  # fmt: skip
    bar = {
        "steps_not_audited": "== 0", "steps_not_told": "== 0", "leases_ended": "== 0", "lease_lost": "== 0",
        "out_of_order": "== 0", "delivered": f"== {len(drop.known) - 1}", **oracle.NO_LOSS,
    }  # fmt: skip
    return judged(figure, bar, found.words())


def _take_in(drop: oracle.Stimulator, service: bed.Child, count: int) -> None:
    """Drop scans one after the other; each is in the outbox before the next comes."""
    for _ in range(count):
        before = len(service.named("scan"))
        drop.put()
        bed.wait_until(lambda n=before: len(service.named("scan")) > n, 30.0, "the scan is taken in")  # type: ignore[misc]


def _heard(service: bed.Child, event: str, count: int) -> bool:
    try:
        bed.wait_until(lambda: len(service.named(event)) >= count, 5.0, event)
    except DeliveryError:
        return False
    return True


def _events(folder: Path, *kinds: str) -> list[str]:
    with closing(sqlite3.connect(f"{(folder / 'state/outbox.sqlite').as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT kind, text FROM events ORDER BY seq").fetchall()
    return [text for kind, text in rows if kind in kinds]


def _names(folder: Path) -> dict[str, str]:
    """Return the dropped file's name of every scan."""
    from scanner_io import recording

    found = {}
    for path in (folder / "state" / "recordings").rglob(f"*{recording.SUFFIX}"):
        scan = recording.read(path).scan
        found[scan.scan_id] = Path(scan.source).name
    return found
