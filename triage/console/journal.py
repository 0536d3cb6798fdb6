"""The console's own memory: decisions until the lane has them, and everything that was done here.

SQLite in WAL mode with synchronous=FULL. A decision is committed here before it is sent, and is never forgotten before
the lane has acknowledged it. History can only be added to: the database itself refuses to change or remove a line.

    state          meaning                                             leaves by
    held           may still be undone                                 its time, undo
    sending        on its way; repeated until there is an answer       answer of the lane
    acknowledged   the lane has committed it, and it is the decision   -
    not_applied    the lane has it, but it does not decide the scan    -
    undone         taken back before it was sent                       -
    refused        the lane does not take it; reason says why          -
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from scanner_io.errors import StorageError
from scanner_io.model import Verdict

State = Literal["held", "sending", "acknowledged", "not_applied", "undone", "refused"]

MIGRATIONS = (
    """
    CREATE TABLE decisions (
        id TEXT PRIMARY KEY, scan_id TEXT NOT NULL, state TEXT NOT NULL, due_utc_ns INTEGER NOT NULL,
        made BLOB NOT NULL, reason TEXT NOT NULL, changed_utc_ns INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX decisions_state ON decisions (state);
    CREATE INDEX decisions_scan ON decisions (scan_id);
    CREATE TABLE history (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, utc_ns INTEGER NOT NULL, who TEXT NOT NULL, kind TEXT NOT NULL,
        scan_id TEXT NOT NULL, said TEXT NOT NULL
    ) STRICT;
    CREATE INDEX history_scan ON history (scan_id);
    CREATE TRIGGER history_stays BEFORE UPDATE ON history BEGIN SELECT RAISE(ABORT, 'history is only added to'); END;
    CREATE TRIGGER history_kept BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'history is only added to'); END;
    CREATE TABLE kept (who TEXT NOT NULL, name TEXT NOT NULL, said TEXT NOT NULL, PRIMARY KEY (who, name)) STRICT;
    CREATE TABLE seen (
        scan_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, lane TEXT NOT NULL, start_utc_ns INTEGER NOT NULL,
        containers TEXT NOT NULL, chapters TEXT NOT NULL, outcome TEXT NOT NULL, offer BLOB NOT NULL
    ) STRICT;
    """,
    "CREATE INDEX seen_start ON seen (start_utc_ns);",
)


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as it was made at this desk. regions : what was drawn on the picture, as the page gave it."""

    id: str
    address: str
    scan_id: str
    sha256: str
    analyst: str
    verdict: Verdict
    made_utc_ns: int
    lease_id: str
    codes: tuple[int, ...] = ()
    note: str = ""
    regions: tuple[dict[str, Any], ...] = ()
    opened_utc_ns: int = 0
    start_utc_ns: int = 0
    outcome: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A decision and what became of it so far."""

    made: Made
    state: State
    due_utc_ns: int
    reason: str
    changed_utc_ns: int


class Journal:
    """The database of one console. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises StorageError."""
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=2000"):
                self._db.execute(f"PRAGMA {pragma}")
            have = self._db.execute("PRAGMA user_version").fetchone()[0]
            if have > len(MIGRATIONS):
                raise StorageError(
                    f"{path}: schema {have}, this console knows up to {len(MIGRATIONS)}; upgrade scanlane"
                )
            for number, script in enumerate(MIGRATIONS[have:], start=have + 1):
                self._db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")
        except sqlite3.Error as error:
            raise StorageError(f"{path}: not usable as a console's journal ({error}); check its rights") from error

    def close(self) -> None:
        """Close the database."""
        with self._lock, suppress(sqlite3.Error):
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StorageError(f"the console's journal did not commit ({error}); make room on its disk") from error

    # ------------------------------------------------------------------------------------------------- decisions

    def add(self, made: Made, hold_s: float) -> Entry:
        """Commit a decision; the same id again gives what became of the first. Raises StorageError."""
        now = time.time_ns()
        with self._transaction():
            known = self._entry(made.id)
            if known is not None:
                return known
            self._db.execute(
                "INSERT INTO decisions VALUES (?,?,?,?,?,?,?)",
                (made.id, made.scan_id, "held", now + int(hold_s * 1e9), msgspec.json.encode(made), "", now),
            )
            said = {
                "id": made.id, "new": made.verdict, "codes": made.codes, "note": made.note, "sha256": made.sha256,
                "regions": len(made.regions),
            }  # fmt: skip
            self._history(made.analyst, "decision", made.scan_id, said)
        entry = self._entry(made.id)
        assert entry is not None
        return entry

    def move(self, decision_id: str, before: tuple[State, ...], after: State, reason: str = "") -> Entry | None:
        """Bring a decision from one of the states `before` to `after`; None if it was in none of them."""
        with self._transaction():
            entry = self._entry(decision_id)
            if entry is None or entry.state not in before:
                return None
            self._db.execute(
                "UPDATE decisions SET state=?, reason=?, changed_utc_ns=? WHERE id=?",
                (after, reason, time.time_ns(), decision_id),
            )
            said = {"id": decision_id, "old": entry.state, "new": after, "reason": reason}
            self._history(entry.made.analyst, "delivery", entry.made.scan_id, said)
            return self._entry(decision_id)

    def entry(self, decision_id: str) -> Entry | None:
        """Return one decision, None if there is none."""
        with self._lock:
            return self._entry(decision_id)

    def _entry(self, decision_id: str) -> Entry | None:
        found = self._db.execute(
            "SELECT made, state, due_utc_ns, reason, changed_utc_ns FROM decisions WHERE id=?", (decision_id,)
        ).fetchone()
        return _entry_of(found) if found else None

    def entries(self, *states: State, scan_id: str = "", limit: int = 200) -> list[Entry]:
        """Return the newest decisions, oldest first: in any of these states, or all; of one scan, or all."""
        where = "WHERE (? = '' OR scan_id = ?)"
        if states:
            where += f" AND state IN ({','.join('?' * len(states))})"
        with self._lock:
            rows = self._db.execute(
                "SELECT made, state, due_utc_ns, reason, changed_utc_ns FROM decisions "  # noqa: S608 -- no text of others
                f"{where} ORDER BY rowid DESC LIMIT ?",
                (scan_id, scan_id, *states, limit),
            ).fetchall()
        return [_entry_of(row) for row in reversed(rows)]

    # --------------------------------------------------------------------------------------------------- history

    def note(self, who: str, kind: str, scan_id: str = "", **said: Any) -> None:
        """Add a line to the history. Raises StorageError."""
        with self._transaction():
            self._history(who, kind, scan_id, said)

    def _history(self, who: str, kind: str, scan_id: str, said: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO history (utc_ns, who, kind, scan_id, said) VALUES (?,?,?,?,?)",
            (time.time_ns(), who, kind, scan_id, json.dumps(said)),
        )

    def history(
        self, *, scan_id: str = "", kinds: tuple[str, ...] = (), since_utc_ns: int = 0, limit: int = 500
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return lines of the history, newest first, of one scan or all, of some kinds or all."""
        where, values = ["utc_ns >= ?"], [since_utc_ns]
        rows: list[Any] = [*values]
        if scan_id:
            where.append("scan_id = ?")
            rows.append(scan_id)
        if kinds:
            where.append(f"kind IN ({','.join('?' * len(kinds))})")
            rows += kinds
        with self._lock:
            found = self._db.execute(
                "SELECT seq, utc_ns, who, kind, scan_id, said FROM history WHERE "  # noqa: S608 -- no text of others
                + " AND ".join(where) + " ORDER BY seq DESC LIMIT ?",
                (*rows, limit),
            ).fetchall()  # fmt: skip
        names = ("seq", "utc_ns", "who", "kind", "scan_id", "said")
        lines = [dict(zip(names, row, strict=True)) for row in found]
        return [{**line, "utc_ns": str(line["utc_ns"]), "said": json.loads(line["said"])} for line in lines]

    # ------------------------------------------------------------------------------------------- what is kept

    def keep(self, who: str, name: str, value: Any) -> None:
        """Keep a value under a name: settings, a draft, who is on shift."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO kept VALUES (?,?,?)", (who, name, json.dumps(value)))

    def kept(self, who: str, name: str, default: Any = None) -> Any:
        """Return a kept value."""
        with self._lock:
            found = self._db.execute("SELECT said FROM kept WHERE who=? AND name=?", (who, name)).fetchone()
        return default if found is None else json.loads(found[0])

    # ----------------------------------------------------------------------------------------------- scans seen

    def seen(
        self, scan_id: str, sha256: str, lane: str, start_utc_ns: int, containers: tuple[str, ...],
        chapters: tuple[str, ...], outcome: str, offer: bytes,
    ) -> None:  # fmt: skip
        """Write down that a scan was opened here, so that it can be found again beside a later one."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO seen VALUES (?,?,?,?,?,?,?,?)",
                (scan_id, sha256, lane, start_utc_ns, " ".join(containers), " ".join(chapters), outcome, offer),
            )

    def seen_offer(self, scan_id: str) -> bytes | None:
        """Return the offer of a scan that was opened here."""
        with self._lock:
            found = self._db.execute("SELECT offer FROM seen WHERE scan_id=?", (scan_id,)).fetchone()
        return bytes(found[0]) if found else None

    def earlier(
        self, scan_id: str, containers: tuple[str, ...], chapters: tuple[str, ...], limit: int = 12
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Return scans seen here of the same containers first, then of goods of the same chapters, newest first."""
        with self._lock:
            rows = self._db.execute(
                "SELECT scan_id, sha256, lane, start_utc_ns, containers, chapters, outcome FROM seen "
                "WHERE scan_id <> ? ORDER BY start_utc_ns DESC LIMIT 5000",
                (scan_id,),
            ).fetchall()
        found = []
        for other, sha256, lane, start, had, of, outcome in rows:
            same = set(containers) & set(had.split())
            alike = set(chapters) & set(of.split())
            if same or alike:
                why = "container" if same else "goods"
                text = " ".join(sorted(same or alike))
                found.append({"scan_id": other, "sha256": sha256, "lane": lane, "start_utc_ns": str(start),
                    "outcome": outcome, "why": why, "text": text})  # fmt: skip
        return sorted(found, key=lambda f: f["why"])[:limit]


def _entry_of(row: tuple[Any, ...]) -> Entry:
    return Entry(
        made=msgspec.json.decode(row[0], type=Made), state=row[1], due_utc_ns=row[2], reason=row[3],
        changed_utc_ns=row[4],
    )  # fmt: skip
