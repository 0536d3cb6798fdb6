"""R15: databases of every earlier schema, a later one, and upgrades that are killed at any call on the disk."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import msgspec

from scanner_io.errors import StorageError
from triage.service import audit
from triage.service.outbox import MIGRATIONS, Outbox

from . import bed, sqlite_faults
from .faults import CRASH, CRASHED, Call, FaultyDisk
from .outcome import Outcome, cannot_run, judged, say
from .site import result_of

SCANS = 3


def r15_upgrades(folder: Path, full: bool) -> Outcome:
    """Open databases of every schema there was; kill the upgrade from the first at call 1, 2, 3 … of its calls."""
    lost: list[str] = []
    for version in range(1, len(MIGRATIONS) + 1):
        path = _old(folder / f"{version}.sqlite", version)
        if told := _wrong_with(path):
            lost.append(f"schema {version}: {told}")
    later = _old(folder / "later.sqlite", len(MIGRATIONS))
    with closing(sqlite3.connect(later)) as database:
        database.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    kept = later.read_bytes()
    try:
        Outbox(later).close()
        refused = False
    except StorageError as error:
        refused = "upgrade scanlane" in str(error) and later.read_bytes() == kept
    kills = over = 0
    for at in range(1, 1000, 1 if full else 9):
        say(f"R15: upgrade killed at call {at}", every_s=5.0)
        path = _old(folder / f"killed {at}.sqlite", 1)
        code = _upgrade(path, at)
        if code not in (0, CRASHED):
            return cannot_run("Python's SQLite is not a library of its own here, so that its calls cannot be counted")
        kills += code == CRASHED
        if told := _wrong_with(path):
            lost.append(f"killed at call {at}: {told}")
        if code == 0:
            over = at
            break
    figure = {
        "schemas": len(MIGRATIONS), "later_refused_untouched": refused, "kills": kills, "calls": over,
        "wrong_afterwards": len(lost),
    }  # fmt: skip
    bar = {"later_refused_untouched": "== 1", "kills": f">= {50 if full else 5}", "wrong_afterwards": "== 0"}
    note = "recordings of earlier schemas: see tests of the recording"
    return judged(figure, bar, "; ".join([note, *lost[:3]]))


def _old(path: Path, version: int) -> Path:
    """Make a database as the scanlane of that schema left it: scans that wait, and what was noted of them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript(MIGRATIONS[0])
        for number in range(SCANS):
            scan_id = f"north-20260105T{number:06d}.000000Z-{number:08x}"
            result = msgspec.json.encode(result_of(scan_id, "REVIEW"))
            database.execute(
                "INSERT INTO scans VALUES (?, 'north', ?, 'aa', 1, 'REVIEW', 2, ?, 1, ?, NULL, ?)",
                (scan_id, f"/r/{scan_id}", number + 1, result, number + 1),
            )
            database.execute("INSERT INTO outbox (scan_id, state) VALUES (?, 'pending')", (scan_id,))
            database.execute(
                "INSERT INTO events (utc_ns, kind, scan_id, who, text) VALUES (?, 'recorded', ?, 'north', 'REVIEW')",
                (number + 1, scan_id),
            )
        database.execute("PRAGMA user_version=1")
    if version > 1:  # the steps between are the outbox's own
        kept = MIGRATIONS[version:]
        with closing(_Until(path, len(MIGRATIONS) - len(kept))):
            pass
    return path


class _Until(Outbox):
    """An outbox that goes no further than an earlier schema."""

    def __init__(self, path: Path, version: int) -> None:
        self._version = version
        super().__init__(path)

    def _migrated(self) -> bool:
        with self.store.transaction():
            reached = self.store.version() >= self._version
        return not reached and super()._migrated()


def _wrong_with(path: Path) -> str:
    """Open a database with this scanlane; return what is missing or wrong in it."""
    try:
        with closing(Outbox(path)) as outbox:
            waiting = outbox.counts().get("pending", 0)
            item = outbox.lease_next("ana", 60.0)
            ids = {i.row.scan_id for i in outbox.undecided(10)}
    except StorageError as error:
        return str(error)
    if waiting != SCANS or len(ids) != SCANS or item is None:
        return f"{waiting} scans wait, {len(ids)} are there, of {SCANS}"
    problems = audit.verify(path, None, None).problems
    return problems[0].text if problems else ""


def _upgrade(path: Path, at: int) -> int | None:
    """Open a database in a process of its own, which ends at call `at`; return its exit code."""
    with bed.Child("-m", f"{__package__}.rows_upgrade", json.dumps([str(path), at]), name="upgrade") as child:
        return child.wait(60.0)


def main() -> None:
    """Be that process."""
    path, at = json.loads(sys.argv[1])

    def decide(call: Call) -> str | None:
        return CRASH if call.number == at else None

    if not sqlite_faults.put_between(FaultyDisk(decide)):
        sys.exit(3)
    Outbox(Path(path)).close()


if __name__ == "__main__":
    main()
