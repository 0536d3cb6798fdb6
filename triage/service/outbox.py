"""The outbox: which scans exist, which of them analysts still owe an answer, and every answer given.

SQLite in WAL mode with synchronous=FULL: what is committed here survives a crash and a power cut. One thread owns the
connection. A row is written before anything is offered; a decision is acknowledged after its COMMIT. Delivery state
lives here and never in a socket.

    state     meaning                                        leaves by
    filed     judged CLEAR: kept, nobody is asked            -
    pending   flagged, waits for an analyst                  lease
    leased    one analyst has it                             decide, release, expiry (back to pending), too many tries
    held      offered too often, or its file is gone         claim by a person
    decided   has its decision                               -
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from scanner_io.errors import DeliveryError, StorageError
from scanner_io.model import Decision, Declaration, TriageResult

from . import audit

State = Literal["filed", "pending", "leased", "held", "decided"]

TIERS = {"ALARM": 0, "UNUSABLE": 1, "REVIEW": 2, "CLEAR": 3}
"""Order of offering. A radiation alarm comes first; then scans that could not be judged at all."""

REMEDY = (
    "move it away: it is made anew from the recordings at the next start; the decisions in it are not, so that scans "
    "already decided are offered once more"
)
MIGRATIONS = (
    """
    CREATE TABLE scans (
        scan_id TEXT PRIMARY KEY, lane TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
        outcome TEXT NOT NULL, tier INTEGER NOT NULL, start_utc_ns INTEGER NOT NULL, simulated INTEGER NOT NULL,
        result BLOB NOT NULL, declaration BLOB, added_utc_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE outbox (
        scan_id TEXT PRIMARY KEY REFERENCES scans, state TEXT NOT NULL, analyst TEXT NOT NULL DEFAULT '',
        lease_id TEXT NOT NULL DEFAULT '', lease_until_utc_ns INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, delivered_utc_ns INTEGER, note TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX outbox_state ON outbox (state);
    CREATE TABLE decisions (
        decision_id TEXT PRIMARY KEY, scan_id TEXT NOT NULL REFERENCES scans, analyst TEXT NOT NULL,
        verdict TEXT NOT NULL, decision BLOB NOT NULL, applied INTEGER NOT NULL, reason TEXT NOT NULL,
        committed_utc_ns INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX decisions_scan ON decisions (scan_id);
    CREATE TABLE unjudged (path TEXT PRIMARY KEY, attempts INTEGER NOT NULL) STRICT;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, utc_ns INTEGER NOT NULL, kind TEXT NOT NULL, scan_id TEXT NOT NULL,
        who TEXT NOT NULL, text TEXT NOT NULL
    ) STRICT;
    """,
    "ALTER TABLE outbox ADD COLUMN returned_by TEXT NOT NULL DEFAULT ''",
    """
    ALTER TABLE decisions ADD COLUMN statement BLOB NOT NULL DEFAULT x'';
    ALTER TABLE decisions ADD COLUMN signature BLOB NOT NULL DEFAULT x'';
    """,
    "ALTER TABLE events ADD COLUMN hash BLOB NOT NULL DEFAULT x''",
)

CHAINED_FROM = 4
"""Schema from which events are a chain (`audit`)."""


class ScanRow(msgspec.Struct, frozen=True, kw_only=True):
    """A judged recording as the lane reports it."""

    scan_id: str
    lane: str
    path: str
    sha256: str
    size: int
    start_utc_ns: int
    simulated: bool
    result: TriageResult
    declaration: Declaration | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A scan with its delivery state."""

    row: ScanRow
    state: State
    analyst: str
    lease_id: str
    attempts: int
    note: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a decision. repeated : the same decision had been committed before."""

    applied: bool
    reason: str
    repeated: bool


class Outbox:
    """The database of one service. Use it from one thread only."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Open or create it. Raises StorageError if the file is not usable or was written by a newer scanlane."""
        self._monotonic = monotonic
        self._deadlines: dict[str, float] = {}
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute("PRAGMA busy_timeout=5000")
            verdict = self._db.execute("PRAGMA quick_check").fetchone()[0]
            if verdict != "ok":
                raise StorageError(f"{path}: damaged ({verdict}); {REMEDY}")
            self._migrate(path)
        except sqlite3.Error as error:
            hint = REMEDY if type(error) is sqlite3.DatabaseError else "check its rights and the disk"
            raise StorageError(f"{path}: not usable as an outbox ({error}); {hint}") from error

    def close(self) -> None:
        """Fold the write-ahead log into the file and close; a full disk leaves the log beside it, which is as safe."""
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    def _migrate(self, path: Path) -> None:
        have = self._db.execute("PRAGMA user_version").fetchone()[0]
        if have > len(MIGRATIONS):
            raise StorageError(f"{path}: schema {have}, this scanlane knows up to {len(MIGRATIONS)}; upgrade scanlane")
        for number, script in enumerate(MIGRATIONS[have:], start=have + 1):
            statements = [s for s in script.split(";") if s.strip()]
            with self._transaction():
                for statement in statements:
                    self._db.execute(statement)
                if number == CHAINED_FROM:
                    self._chain()
                self._db.execute(f"PRAGMA user_version={number}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what is done inside, or nothing. Raises StorageError if the disk refuses."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # after a full disk SQLite has rolled back by itself
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StorageError(f"outbox: not committed ({error}); make room on its disk or mend it") from error

    def _chain(self) -> None:
        """Link the events of before there was a chain; from here on nobody can change them unseen."""
        before = audit.START
        rows = self._db.execute("SELECT seq, utc_ns, kind, scan_id, who, text FROM events ORDER BY seq").fetchall()
        for row in rows:
            before = audit.link(before, *row)
            self._db.execute("UPDATE events SET hash=? WHERE seq=?", (before, row[0]))

    def _event(self, kind: str, scan_id: str = "", who: str = "", text: str = "") -> None:
        seq, before = self.audit_head()
        row = (seq + 1, time.time_ns(), kind, scan_id, who, text)
        self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, audit.link(before, *row)))

    def audit_head(self) -> tuple[int, bytes]:
        """Return number and hash of the last event; 0 and the chain's beginning where there is none."""
        found = self._db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        return (int(found[0]), bytes(found[1])) if found else (0, audit.START)

    # --------------------------------------------------------------------------------------------------- intake

    def add(self, row: ScanRow) -> bool:
        """Commit a judged recording; False if it was known already (then nothing changes)."""
        with self._transaction():
            known = self._db.execute("SELECT 1 FROM scans WHERE scan_id=?", (row.scan_id,)).fetchone()
            self._db.execute("DELETE FROM unjudged WHERE path=?", (row.path,))
            if known:
                return False
            declaration = msgspec.json.encode(row.declaration) if row.declaration is not None else None
            self._db.execute(
                "INSERT INTO scans VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    row.scan_id, row.lane, row.path, row.sha256, row.size, row.result.outcome,
                    TIERS[row.result.outcome], row.start_utc_ns, row.simulated, msgspec.json.encode(row.result),
                    declaration, time.time_ns(),
                ),
            )  # fmt: skip
            state = "filed" if row.result.outcome == "CLEAR" else "pending"
            self._db.execute("INSERT INTO outbox (scan_id, state) VALUES (?, ?)", (row.scan_id, state))
            self._event("recorded", row.scan_id, row.lane, row.result.outcome)
        return True

    def known_paths(self) -> set[str]:
        """Return the paths of all recordings with a row."""
        return {path for (path,) in self._db.execute("SELECT path FROM scans")}

    def count_judging(self, path: str) -> int:
        """Note that judging of `path` begins; return how often it has begun without a result."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO unjudged VALUES (?, 1) ON CONFLICT (path) DO UPDATE SET attempts = attempts + 1", (path,)
            )
        attempts: int = self._db.execute("SELECT attempts FROM unjudged WHERE path=?", (path,)).fetchone()[0]
        return attempts

    def judging_attempts(self, path: str) -> int:
        """Return how often judging of `path` has begun without a result."""
        found = self._db.execute("SELECT attempts FROM unjudged WHERE path=?", (path,)).fetchone()
        return int(found[0]) if found else 0

    def holder(self, lease_id: str) -> str:
        """Return whose lease in force this is, empty if it is none."""
        found = self._db.execute(
            "SELECT analyst FROM outbox WHERE lease_id=? AND state='leased'", (lease_id,)
        ).fetchone()
        return str(found[0]) if found else ""

    def leases_of(self, analyst: str) -> dict[str, str]:
        """Return the leases in force of one analyst: lease -> scan."""
        rows = self._db.execute("SELECT lease_id, scan_id FROM outbox WHERE analyst=? AND state='leased'", (analyst,))
        return dict(rows.fetchall())

    def hold_missing(self, exists: Callable[[str], bool]) -> list[str]:
        """Hold every undecided scan whose recording is gone; return their ids. Called at start."""
        rows = self._db.execute(
            "SELECT scan_id, path FROM scans JOIN outbox USING (scan_id) WHERE state IN ('pending', 'leased')"
        ).fetchall()
        gone = [scan_id for scan_id, path in rows if not exists(path)]
        with self._transaction():
            for scan_id in gone:
                self._db.execute(
                    "UPDATE outbox SET state='held', lease_id='', analyst='', note=? WHERE scan_id=?",
                    ("its recording is gone from the disk", scan_id),
                )
                self._event("recording_missing", scan_id)
        return gone

    # --------------------------------------------------------------------------------------------------- leases

    def rearm(self, lease_s: float) -> int:
        """Give every lease of before the start a new deadline on this clock; return how many there are."""
        leases = [lease for (lease,) in self._db.execute("SELECT lease_id FROM outbox WHERE state='leased'")]
        self._deadlines = {lease: self._monotonic() + lease_s for lease in leases}
        return len(leases)

    def next_pending(self, analyst: str = "") -> str | None:
        """Return the scan to offer next: most urgent tier first, then the oldest.

        analyst : who it is for; within a tier, a scan that they had last and did not decide comes after the others
        """
        found = self._db.execute(
            "SELECT scan_id FROM outbox JOIN scans USING (scan_id) WHERE state='pending' "
            "ORDER BY tier, returned_by<>'' AND returned_by=?, start_utc_ns, scan_id LIMIT 1",
            (analyst,),
        ).fetchone()
        return found[0] if found else None

    def lease(self, scan_id: str, analyst: str, lease_s: float) -> Item:
        """Give a scan to one analyst.

        Raises DeliveryError if it does not exist, is decided, or is somebody else's. The same analyst gets the
        lease they have.
        """
        item = self.item(scan_id)
        if item.state == "leased" and item.analyst == analyst and item.lease_id:
            self.renew(item.lease_id, lease_s)
            return item
        if item.state not in ("pending", "held", "filed"):
            whose = f" by {item.analyst}" if item.analyst else ""
            raise DeliveryError(f"scan {scan_id} is {item.state}{whose}")
        lease_id = uuid.uuid4().hex
        with self._transaction():
            self._db.execute(
                "UPDATE outbox SET state='leased', analyst=?, lease_id=?, lease_until_utc_ns=?, attempts=attempts+1 "
                "WHERE scan_id=?",
                (analyst, lease_id, time.time_ns() + int(lease_s * 1e9), scan_id),
            )
            self._event("leased", scan_id, analyst, lease_id)
        self._deadlines[lease_id] = self._monotonic() + lease_s
        return self.item(scan_id)

    def renew(self, lease_id: str, lease_s: float) -> bool:
        """Extend a lease; False if it has ended."""
        if lease_id not in self._deadlines:
            return False
        self._deadlines[lease_id] = self._monotonic() + lease_s
        return True

    def release(self, lease_id: str, why: str, max_attempts: int) -> str | None:
        """End a lease without a decision; return the scan, which is pending again, or held after too many tries."""
        found = self._db.execute(
            "SELECT scan_id, attempts, analyst, outcome FROM outbox JOIN scans USING (scan_id) "
            "WHERE lease_id=? AND state='leased'",
            (lease_id,),
        ).fetchone()
        if found is None:
            self._deadlines.pop(lease_id, None)
            return None
        scan_id, attempts, analyst, outcome = found
        state = "held" if attempts >= max_attempts else "filed" if outcome == "CLEAR" else "pending"
        note = f"offered {attempts} times without a decision; last {analyst}: {why}" if state == "held" else ""
        with self._transaction():
            self._db.execute(
                "UPDATE outbox SET state=?, analyst='', lease_id='', note=?, returned_by=? WHERE scan_id=?",
                (state, note, analyst, scan_id),
            )
            self._event("held" if state == "held" else "released", scan_id, analyst, why)
        self._deadlines.pop(lease_id, None)
        return str(scan_id)

    def expired(self) -> list[str]:
        """Return the leases whose time is over."""
        now = self._monotonic()
        return [lease for lease, deadline in self._deadlines.items() if deadline <= now]

    # ------------------------------------------------------------------------------------------------- decisions

    def delivered(self, scan_id: str, lease_id: str, sha256: str) -> bool:
        """Note that the analyst has the whole recording; False if the hash or the lease is another."""
        with self._transaction():
            done = self._db.execute(
                "UPDATE outbox SET delivered_utc_ns=? WHERE scan_id=? AND lease_id=? AND state='leased' AND EXISTS "
                "(SELECT 1 FROM scans WHERE scans.scan_id=outbox.scan_id AND sha256=?)",
                (time.time_ns(), scan_id, lease_id, sha256),
            )
            if done.rowcount:
                self._event("delivered", scan_id, text=lease_id)
        return bool(done.rowcount)

    def decide(self, decision: Decision, *, statement: bytes = b"", signature: bytes = b"") -> Answer:
        """Commit a decision. It is applied if its lease is in force and it names the recording's hash; else it is
        kept with the reason and the scan stays where it is. The same decision again gets the same answer.

        statement, signature : the very bytes that the analyst signed, kept as they came

        Raises DeliveryError if there is no such scan, or the decision id was used for something else.
        """
        old = self._db.execute(
            "SELECT applied, reason, decision FROM decisions WHERE decision_id=?", (decision.decision_id,)
        ).fetchone()
        if old is not None:
            if msgspec.json.decode(old[2], type=Decision) != decision:
                raise DeliveryError(f"decision {decision.decision_id} was used before for something else")
            return Answer(applied=bool(old[0]), reason=old[1], repeated=True)
        item = self.item(decision.scan_id)
        reason = self._objection(item, decision)
        with self._transaction():
            self._db.execute(
                "INSERT INTO decisions VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    decision.decision_id, decision.scan_id, decision.analyst, decision.verdict,
                    msgspec.json.encode(decision), not reason, reason, time.time_ns(), statement, signature,
                ),
            )  # fmt: skip
            if not reason:
                self._db.execute("UPDATE outbox SET state='decided', lease_id='' WHERE scan_id=?", (decision.scan_id,))
            kind = "decision_not_applied" if reason else "decided"
            self._event(kind, decision.scan_id, decision.analyst, f"{decision.verdict} {reason}".strip())
        if not reason:
            self._deadlines.pop(decision.lease_id, None)
        return Answer(applied=not reason, reason=reason, repeated=False)

    @staticmethod
    def _objection(item: Item, decision: Decision) -> str:
        if item.state == "decided":
            return f"the scan was decided already by {item.analyst}"
        if not decision.lease_id or item.lease_id != decision.lease_id:
            return "its lease had ended; the scan went to somebody else or waits"
        if item.analyst != decision.analyst:
            return f"the lease is {item.analyst}'s"
        if item.row.sha256 != decision.sha256:
            return f"made on a recording with hash {decision.sha256[:16]}…, the scan's is {item.row.sha256[:16]}…"
        return ""

    # ---------------------------------------------------------------------------------------------------- views

    def item(self, scan_id: str) -> Item:
        """Return one scan. Raises DeliveryError if it does not exist."""
        found = self._db.execute(
            "SELECT lane, path, sha256, size, start_utc_ns, simulated, result, declaration, state, analyst, lease_id, "
            "attempts, note FROM scans JOIN outbox USING (scan_id) WHERE scan_id=?",
            (scan_id,),
        ).fetchone()
        if found is None:
            raise DeliveryError(f"there is no scan {scan_id[:80]!r} here")
        row = ScanRow(
            scan_id=scan_id, lane=found[0], path=found[1], sha256=found[2], size=found[3], start_utc_ns=found[4],
            simulated=bool(found[5]), result=msgspec.json.decode(found[6], type=TriageResult),
            declaration=msgspec.json.decode(found[7], type=Declaration) if found[7] is not None else None,
        )  # fmt: skip
        return Item(row=row, state=found[8], analyst=found[9], lease_id=found[10], attempts=found[11], note=found[12])

    def undecided(self, limit: int) -> list[Item]:
        """Return scans that wait for an answer, most urgent first."""
        rows = self._db.execute(
            "SELECT scan_id FROM outbox JOIN scans USING (scan_id) WHERE state IN ('pending', 'leased', 'held') "
            "ORDER BY tier, start_utc_ns, scan_id LIMIT ?",
            (limit,),
        ).fetchall()
        return [self.item(scan_id) for (scan_id,) in rows]

    def counts(self) -> dict[str, int]:
        """Return how many scans are in each state, how many there are, and how often each outcome came."""
        counts: dict[str, int] = dict(self._db.execute("SELECT state, COUNT(*) FROM outbox GROUP BY state"))
        counts["recorded"] = sum(counts.values())
        counts |= dict(self._db.execute("SELECT outcome, COUNT(*) FROM scans GROUP BY outcome"))
        counts["offered"] = self._db.execute("SELECT COUNT(*) FROM outbox WHERE attempts > 0").fetchone()[0]
        counts["delivered"] = self._db.execute(
            "SELECT COUNT(*) FROM outbox WHERE delivered_utc_ns IS NOT NULL"
        ).fetchone()[0]
        return counts

    def decisions(self, scan_id: str) -> list[tuple[Decision, bool]]:
        """Return the decisions on a scan in the order of their commits, each with whether it was applied."""
        rows = self._db.execute(
            "SELECT decision, applied FROM decisions WHERE scan_id=? ORDER BY committed_utc_ns", (scan_id,)
        )
        return [(msgspec.json.decode(blob, type=Decision), bool(applied)) for blob, applied in rows]

    def signatures(self, scan_id: str) -> list[tuple[str, bytes, bytes]]:
        """Return analyst, statement and signature of every decision on a scan in the order of their commits."""
        rows = self._db.execute(
            "SELECT analyst, statement, signature FROM decisions WHERE scan_id=? ORDER BY committed_utc_ns", (scan_id,)
        )
        return rows.fetchall()

    def note(self, kind: str, text: str, scan_id: str = "", who: str = "") -> None:
        """Write an event down."""
        with self._transaction():
            self._event(kind, scan_id, who, text)


def decisions_in(path: Path) -> list[Decision]:
    """Return the decisions in force of the outbox at `path`, without writing to it; a daemon may be using it.

    Raises StorageError if it cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT decision FROM decisions WHERE applied ORDER BY committed_utc_ns").fetchall()
    except sqlite3.Error as error:
        raise StorageError(f"{path}: decisions cannot be read ({error}); move the archive away from it") from error
    return [msgspec.json.decode(blob, type=Decision) for (blob,) in rows]
