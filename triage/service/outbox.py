"""The outbox: which scans exist, which of them analysts still owe an answer, and every answer given.

What is committed here survives a crash and a power cut (`store`: SQLite or PostgreSQL). One thread owns the connection.
Every step is one transaction and can be done again. A row is written before anything is offered; a decision is
acknowledged after its COMMIT. Delivery state lives here and never in a socket.

    state     meaning                                        leaves by
    filed     judged CLEAR: kept, nobody is asked            selection (`selecting`): then it is pending
    pending   flagged, waits for an analyst                  lease
    leased    one analyst has it                             decide, release, expiry (back to pending), too many tries
    held      offered too often, or its file is gone or     claim by a person; the file is back as it was
              not as it was
    decided   has its decision                               -
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import msgspec

from scanner_io.errors import DeliveryError, StorageError
from scanner_io.model import Decision, Declaration, Opinion, TriageResult

from . import audit, store
from .later import URGENT, Change, Later, together

State = Literal["filed", "pending", "leased", "held", "decided"]

TIERS = URGENT

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
    """
    ALTER TABLE scans ADD COLUMN hub TEXT NOT NULL DEFAULT '';
    ALTER TABLE outbox ADD COLUMN lease_hub TEXT NOT NULL DEFAULT '';
    CREATE TABLE hubs (hub TEXT PRIMARY KEY, beat INTEGER NOT NULL, lost INTEGER NOT NULL) STRICT;
    """,
    """
    ALTER TABLE outbox ADD COLUMN waits_since_utc_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outbox ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outbox ADD COLUMN escalated INTEGER NOT NULL DEFAULT 0;
    UPDATE outbox SET waits_since_utc_ns = (SELECT added_utc_ns FROM scans WHERE scans.scan_id = outbox.scan_id);
    """,
    """
    ALTER TABLE outbox ADD COLUMN turn_utc_ns INTEGER NOT NULL DEFAULT 0;
    DROP INDEX outbox_state;
    CREATE INDEX outbox_turn ON outbox (state, turn_utc_ns, scan_id);
    """,
    """
    ALTER TABLE outbox ADD COLUMN clock_moved_ns INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE decisions ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
    UPDATE decisions SET seq = told.seq FROM (SELECT scan_id, who, MIN(seq) AS seq FROM events
        WHERE kind IN ('decided', 'decision_not_applied') GROUP BY scan_id, who) AS told
        WHERE told.scan_id = decisions.scan_id AND told.who = decisions.analyst;
    """,
    """
    ALTER TABLE scans ADD COLUMN damage TEXT NOT NULL DEFAULT '';
    ALTER TABLE scans ADD COLUMN kept TEXT NOT NULL DEFAULT 'whole';
    CREATE TABLE legal_holds (
        scan_id TEXT PRIMARY KEY REFERENCES scans, since_utc_ns INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE opinions (
        opinion_id TEXT PRIMARY KEY, scan_id TEXT NOT NULL REFERENCES scans, analyst TEXT NOT NULL,
        opinion BLOB NOT NULL, seq INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX opinions_scan ON opinions (scan_id);
    """,
    """
    ALTER TABLE outbox ADD COLUMN selected INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE selection_runs (run TEXT PRIMARY KEY, stage TEXT NOT NULL, utc_ns INTEGER NOT NULL, told BLOB NOT NULL)
        STRICT;
    CREATE TABLE selections (
        run TEXT NOT NULL REFERENCES selection_runs, scan_id TEXT NOT NULL REFERENCES scans, told BLOB NOT NULL,
        PRIMARY KEY (run, scan_id)
    ) STRICT;
    CREATE INDEX selections_scan ON selections (scan_id);
    CREATE TABLE quality_samples (sample TEXT PRIMARY KEY, utc_ns INTEGER NOT NULL, told BLOB NOT NULL) STRICT;
    CREATE TABLE second_readings (
        sample TEXT NOT NULL REFERENCES quality_samples, scan_id TEXT NOT NULL REFERENCES scans, reader TEXT NOT NULL,
        verdict TEXT NOT NULL, note TEXT NOT NULL, utc_ns INTEGER NOT NULL, PRIMARY KEY (sample, scan_id)
    ) STRICT;
    """,
    """
    CREATE TABLE assessments (
        scan_id TEXT NOT NULL REFERENCES scans, number INTEGER NOT NULL, utc_ns INTEGER NOT NULL, outcome TEXT NOT NULL,
        later BLOB NOT NULL, PRIMARY KEY (scan_id, number)
    ) STRICT;
    """,
    """
    ALTER TABLE opinions ADD COLUMN statement BLOB NOT NULL DEFAULT x'';
    ALTER TABLE opinions ADD COLUMN signature BLOB NOT NULL DEFAULT x'';
    ALTER TABLE scans ADD COLUMN said TEXT NOT NULL DEFAULT 'kept';
    """,
    "CREATE INDEX scans_added ON scans (added_utc_ns, scan_id)",
    """
    CREATE INDEX scans_outcome ON scans (outcome);
    CREATE INDEX outbox_told ON outbox (attempts, delivered_utc_ns);
    CREATE INDEX selection_runs_when ON selection_runs (stage, utc_ns);
    """,
    "CREATE INDEX scans_damaged ON scans (hub, scan_id) WHERE damage<>''",
)

CHAINED_FROM = 4
"""Schema from which events are a chain (`audit`)."""
CLOCK_SKEW_NS = 60 * 10**9
"""So far two services' clocks may differ without it counting as a step."""
MAX_LATE = 20
"""Decisions that were not applied, kept of one analyst on one scan: a program gone wild is not to fill the disk."""
OPINIONS_TOLD, OPINIONS_TOLD_BYTES = 16, 1 << 20
"""So many fit into a message, with what proves them, whatever is written in them."""
AGE_TIER_S = 1800.0
"""See `scanner_io.config.Dispatch`; `arrange` sets another."""
_UNATTENDED = (
    "SELECT scan_id, outcome, state, waits_since_utc_ns, attempts, selected, COUNT(*) OVER (), "
    "COUNT(CASE WHEN state='held' THEN 1 END) OVER (), MIN(waits_since_utc_ns) OVER () FROM outbox "
    "JOIN scans USING (scan_id) WHERE state IN ('pending', 'leased', 'held') AND (hub=? OR ?=1) AND (state='held' OR "
    "(outcome<>'CLEAR' OR selected<>0) AND (state='pending' OR state='leased' AND taken=0) AND "
    "(waits_since_utc_ns<=? OR waits_since_utc_ns>?))"
)
"""What is an alarm. A scan that was selected to be looked at waits for a person like one that was flagged; one judged
CLEAR that somebody asked for by name, and has not fetched, does not."""
BEAT_S, LOST_BEATS = 5.0, 6
"""A service that shares its database says so often that it lives; silent at so many looks at it, it is taken as gone.

Looks are counted and not time, so that nobody is taken as gone while it is the database that is away.
"""


COUNT_SHARE = 50
"""See `Outbox.counts_lately`."""


class _Totals(NamedTuple):
    """What was counted when the audit's last event was `seq`, and until when it is good whatever has happened since."""

    seq: int
    good_until_s: float
    counts: dict[str, int]


class ScanRow(msgspec.Struct, frozen=True, kw_only=True):
    """A judged recording as the lane reports it. later : how it was assessed again, first to last"""

    scan_id: str
    lane: str
    path: str
    sha256: str
    size: int
    start_utc_ns: int
    simulated: bool
    result: TriageResult
    declaration: Declaration | None = None
    later: tuple[Later, ...] = ()

    @property
    def told(self) -> TriageResult:
        """What is to be told of it: the first result, and what later assessments add."""
        return together(self.result, self.later)

    @property
    def papers(self) -> Declaration | None:
        """Its declaration, also one that came late."""
        return self.later[-1].declaration if self.later else self.declaration


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A scan with its delivery state. hub : the service that has its recording, where several share the database"""

    row: ScanRow
    state: State
    analyst: str
    lease_id: str
    attempts: int
    note: str
    hub: str = ""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Flagged scans that nobody has taken for too long, and scans that are held.

    scan_id, outcome : of the most urgent; waited_s : the longest; held : how many of them are held
    """

    scans: int
    held: int
    scan_id: str
    outcome: str
    waited_s: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a decision. repeated : the same decision had been committed before."""

    applied: bool
    reason: str
    repeated: bool


class Given(NamedTuple):
    """An opinion as it is to be told. statement, signature : empty where it is not signed, or withheld"""

    opinion: Opinion
    statement: bytes
    signature: bytes


class Outbox:
    """The database of one service, or one service's view of a database that several share. For one thread only.

    Whose recording it is, and who gave a lease and ends it when its time is over, are in the rows: `hub`, `lease_hub`.
    A service's clock is its own; that another one lives is seen from a number that it raises, not from any clock.
    """

    def __init__(
        self, place: store.Place, *, monotonic: Callable[[], float] = time.monotonic, thorough: bool = True
    ) -> None:  # fmt: skip
        """Open or create it. Raises StorageError if it is not usable or was written by a newer scanlane.

        thorough : as for `store.SqliteStore`
        """
        self._monotonic = monotonic
        self._deadlines: dict[str, float] = {}
        self.place = place
        self.store = store.opened(place, thorough=thorough)
        self._connections = self.store.connections
        """Of the store, when last looked at."""
        self.hub, self._shared = (place.hub, place.shared) if isinstance(place, store.Server) else ("", False)
        self._age_ns = int(AGE_TIER_S * 1e9)
        self._beaten_s = -BEAT_S
        self._totals: _Totals | None = None
        self._beats: dict[str, tuple[int, int]] = {}
        """Of the other services: the last number seen, and at how many looks since."""
        try:
            while self._migrated():
                pass
        except StorageError:
            self.store.close()
            raise

    def close(self) -> None:
        """Close the database; what is committed is safe without it."""
        self.store.close()

    def _migrated(self) -> bool:
        """Bring the schema up by one number; False if there is none left."""
        with self.store.transaction():
            have = self.store.version()
            if have > len(MIGRATIONS):
                raise StorageError(
                    f"{self.store.place}: schema {have}, this scanlane knows up to {len(MIGRATIONS)}; upgrade scanlane"
                )
            if have == len(MIGRATIONS):
                return False
            self.store.migrate(have + 1, MIGRATIONS[have])
            if have + 1 == CHAINED_FROM:
                self._chain()
        return True

    def _chain(self) -> None:
        """Link the events of before there was a chain; from here on nobody can change them unseen."""
        before = audit.START
        for row in self.store.rows("SELECT seq, utc_ns, kind, scan_id, who, text FROM events ORDER BY seq"):
            before = audit.link(before, *row)
            self.store.change("UPDATE events SET hash=? WHERE seq=?", (before, row[0]))

    def event(self, kind: str, scan_id: str = "", who: str = "", text: str = "") -> int:
        """Add an event to a transaction, after all else in it: from here on others wait for its end.

        Returns its number, by which what happened is in order whatever the clock did.
        """
        self.store.lock_events()
        seq, before = self.audit_head()
        row = (seq + 1, time.time_ns(), kind, scan_id, who, text)
        self.store.change("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, audit.link(before, *row)))
        return seq + 1

    def audit_head(self) -> tuple[int, bytes]:
        """Return number and hash of the last event; 0 and the chain's beginning where there is none."""
        found = self.store.row("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")
        return (int(found[0]), bytes(found[1])) if found else (0, audit.START)

    # --------------------------------------------------------------------------------------------------- intake

    def add(self, row: ScanRow, *, asked: bool = False) -> bool:
        """Commit a judged recording; False if it was known already.

        Then nothing changes but whose it is: this service has the recording, whatever its name was before.

        asked : somebody is to look at it even if it is CLEAR, as another service has selected it
        """
        state = "filed" if row.result.outcome == "CLEAR" and not asked else "pending"
        declaration = msgspec.json.encode(row.declaration) if row.declaration is not None else None
        now = time.time_ns()
        with self.store.transaction():
            self.store.change("DELETE FROM unjudged WHERE path=?", (row.path,))
            self.store.change(
                "INSERT INTO scans (scan_id, lane, path, sha256, size, outcome, tier, start_utc_ns, simulated, result, "
                "declaration, added_utc_ns, hub) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (scan_id) DO UPDATE "
                "SET hub=excluded.hub, path=excluded.path WHERE scans.hub<>excluded.hub",
                (
                    row.scan_id, row.lane, row.path, row.sha256, row.size, row.result.outcome,
                    TIERS[row.result.outcome], row.start_utc_ns, int(row.simulated), msgspec.json.encode(row.result),
                    declaration, now, self.hub,
                ),
            )  # fmt: skip
            new = self.store.change(
                "INSERT INTO outbox (scan_id, state, waits_since_utc_ns, turn_utc_ns, selected) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (scan_id) DO NOTHING",
                (row.scan_id, state, now, now + TIERS[row.result.outcome] * self._age_ns, int(asked)),
            )
            if new:
                self.event("recorded", row.scan_id, row.lane, row.result.outcome)
        return bool(new)

    def wake(self, scan_id: str) -> int:
        """Let a passage wait for an analyst, in a transaction; return 1 if it did not before."""
        self.store.change("UPDATE outbox SET selected=1 WHERE scan_id=?", (scan_id,))
        return self.store.change(
            "UPDATE outbox SET state='pending', waits_since_utc_ns=? WHERE scan_id=? AND state='filed'",
            (time.time_ns(), scan_id),
        )

    def assess(self, scan_id: str, later: Later) -> Change | None:
        """Commit a later assessment of a scan; None if it was known already.

        It may make the scan more urgent, never less: what was filed waits for an analyst then, and what waits comes
        earlier. A decision stays, and the event says so. Raises DeliveryError if there is no such scan.
        """
        now = time.time_ns()
        with self.store.transaction():
            item = self._item(scan_id, self.store.locked)
            documents = {(o.match.sender, o.match.document, o.match.version) for o in item.row.later}
            if (later.match.sender, later.match.document, later.match.version) in documents:
                return None
            before = item.row.told
            after = together(item.row.result, (*item.row.later, later))
            self.store.change(
                "INSERT INTO assessments VALUES (?,?,?,?,?)",
                (scan_id, len(item.row.later) + 1, now, later.result.outcome, msgspec.json.encode(later)),
            )
            raised = TIERS[after.outcome] < TIERS[before.outcome]
            if raised:
                self._raise(scan_id, after.outcome, TIERS[before.outcome], now)
            stays = "" if raised else f", which stays {before.outcome}"
            words = f"{before.outcome} -> {later.result.outcome}{stays}: {after.quality[-1].reason}"
            decided = raised and item.state == "decided"
            self.event("assessed_after_decision" if decided else "assessed_later", scan_id, item.row.lane, words)
        return Change(raised=raised, after_decision=decided, words=f"{scan_id}: {words}")

    def _raise(self, scan_id: str, outcome: str, tier_before: int, now: int) -> None:
        """Make a scan more urgent, in a transaction."""
        tier = TIERS[outcome]
        self.store.change("UPDATE scans SET outcome=?, tier=? WHERE scan_id=?", (outcome, tier, scan_id))
        self.store.change(
            "UPDATE outbox SET turn_utc_ns=turn_utc_ns-? WHERE scan_id=? AND state IN ('pending', 'leased', 'held')",
            ((tier_before - tier) * self._age_ns, scan_id),
        )
        self.store.change(
            "UPDATE outbox SET state='pending', waits_since_utc_ns=?, turn_utc_ns=? WHERE scan_id=? AND state='filed'",
            (now, now + tier * self._age_ns, scan_id),
        )

    def path_of(self, scan_id: str) -> str | None:
        """Return where this service has a scan's recording; None where it has no row of it."""
        found = self.store.row("SELECT path FROM scans WHERE scan_id=? AND hub=?", (scan_id, self.hub))
        return None if found is None else str(found[0])

    def count_judging(self, path: str) -> int:
        """Note that judging of `path` begins; return how often it has begun without a result."""
        with self.store.transaction():
            self.store.change(
                "INSERT INTO unjudged VALUES (?, 1) ON CONFLICT (path) DO UPDATE SET attempts = unjudged.attempts + 1",
                (path,),
            )
            return self.judging_attempts(path)

    def judging_attempts(self, path: str) -> int:
        """Return how often judging of `path` has begun without a result."""
        found = self.store.row("SELECT attempts FROM unjudged WHERE path=?", (path,))
        return int(found[0]) if found else 0

    def holder(self, lease_id: str) -> str:
        """Return whose lease in force this is, empty if it is none."""
        found = self.store.row("SELECT analyst FROM outbox WHERE lease_id=? AND state='leased'", (lease_id,))
        return str(found[0]) if found else ""

    def leases_of(self, analyst: str) -> dict[str, str]:
        """Return the leases in force of one analyst: lease -> scan."""
        return dict(
            self.store.rows(
                "SELECT lease_id, scan_id FROM outbox WHERE analyst=? AND lease_hub=? AND state='leased'",
                (analyst, self.hub),
            )
        )

    # --------------------------------------------------------------------------------------------------- leases

    def rearm(self, lease_s: float) -> int:
        """Give every lease of before the start a new deadline on this clock; return how many there are."""
        self._deadlines = {}
        self._arm(self._leases(), lease_s)
        return len(self._deadlines)

    def _leases(self) -> set[str]:
        query = "SELECT lease_id FROM outbox WHERE state='leased' AND lease_hub=?"
        return {lease for (lease,) in self.store.rows(query, (self.hub,))}

    def _arm(self, leases: Iterable[str], lease_s: float) -> None:
        self._deadlines.update(dict.fromkeys(leases, self._monotonic() + lease_s))

    def arrange(self, age_tier_s: float) -> None:
        """Set after how long of waiting a scan counts as one tier more urgent."""
        self._age_ns = int(age_tier_s * 1e9)
        turn = (
            "(SELECT added_utc_ns + outbox.clock_moved_ns + tier * ? FROM scans "
            "WHERE scans.scan_id=outbox.scan_id AND hub=?)"
        )
        values = (self._age_ns, self.hub)
        with self.store.transaction():
            self.store.change(
                f"UPDATE outbox SET turn_utc_ns={turn} WHERE state IN ('pending', 'leased', 'held') "  # noqa: S608
                f"AND turn_utc_ns<>{turn}",
                values * 2,
            )

    def lease_next(self, analyst: str, lease_s: float) -> Item | None:
        """Give an analyst the scan that is next: most urgent tier first, then the oldest; None if none waits.

        A scan's turn is by when it came, later by `age_tier_s` for every tier that it is less urgent: so long it lets
        pass what is more urgent and came after it, but not for ever.

        A scan that they had last and did not decide comes after others that are as urgent, by one tier at most.
        """
        with self.store.transaction():
            first = self._next("")
            if first is not None and first[3] == analyst:
                other = self._next(analyst)
                if other is not None and other[1] <= first[1] and other[2] < first[2] + self._age_ns:
                    first = other
            item = self._leased(first[0], analyst, lease_s) if first is not None else None
        if item is not None:
            self._arm([item.lease_id], lease_s)
        return item

    def _next(self, but_of: str) -> store.Row | None:
        """Return id, tier, turn and last analyst of the scan whose turn it is, but of those that one had last."""
        return self.store.locked(
            "SELECT scan_id, tier, turn_utc_ns, returned_by FROM outbox JOIN scans USING (scan_id) WHERE "
            "state='pending' AND (hub=? OR ?=1) AND (?='' OR returned_by<>?) ORDER BY turn_utc_ns, scan_id LIMIT 1",
            (self.hub, int(self._shared), but_of, but_of),
            skip=True,
        )

    def lease(self, scan_id: str, analyst: str, lease_s: float) -> Item:
        """Give a scan to one analyst.

        Raises DeliveryError if it does not exist, is decided, or is somebody else's. The same analyst gets the
        lease they have.
        """
        with self.store.transaction():
            item = self._item(scan_id, self.store.locked)
            if item.state != "leased" or item.analyst != analyst:
                if item.state not in ("pending", "held", "filed"):
                    whose = f" by {item.analyst}" if item.analyst else ""
                    raise DeliveryError(f"scan {scan_id} is {item.state}{whose}")
                self._recording_is_here(item)
                item = self._leased(scan_id, analyst, lease_s)
        if item.lease_id not in self._deadlines:
            self._moved_here(item.lease_id, analyst)  # where another service gave it, it would end it
        self._arm([item.lease_id], lease_s)
        return item

    def peek(self, scan_id: str, analyst: str) -> Item:
        """Return a scan that this analyst could have by `lease` now. Raises DeliveryError where they could not.

        Nothing changes: the scan waits as before, for everybody.
        """
        item = self.item(scan_id)
        if item.state not in ("pending", "filed") and (item.state, item.analyst) != ("leased", analyst):
            whose = f" by {item.analyst}" if item.analyst else ""
            raise DeliveryError(f"scan {scan_id} is {item.state}{whose}")
        self._recording_is_here(item)
        return item

    @property
    def serves_all(self) -> bool:
        """No other service has a part of the scans for itself: there is none, or they read each other's recordings."""
        return self._shared or not self.hub

    def serves(self, item: Item) -> bool:
        """Tell whether this service offers the scan to analysts: it has its recording, or reads the other ones'."""
        return item.hub == self.hub or self._shared

    def _recording_is_here(self, item: Item) -> None:
        scan_id = item.row.scan_id
        if not self.serves(item):
            raise DeliveryError(f"scan {scan_id}: its recording is at hub {item.hub!r}; ask there")
        if self.store.row("SELECT 1 FROM scans WHERE scan_id=? AND kept<>'whole'", (scan_id,)):
            raise DeliveryError(f"scan {scan_id}: its recording was deleted by the site's policy (retention)")

    def _leased(self, scan_id: str, analyst: str, lease_s: float) -> Item:
        lease_id = uuid.uuid4().hex
        self.store.change(
            "UPDATE outbox SET state='leased', analyst=?, lease_id=?, lease_until_utc_ns=?, lease_hub=?, taken=0, "
            "attempts=attempts+1 WHERE scan_id=?",
            (analyst, lease_id, time.time_ns() + int(lease_s * 1e9), self.hub, scan_id),
        )
        self.event("leased", scan_id, analyst, lease_id)
        return self.item(scan_id)

    def renew(self, lease_id: str, analyst: str, lease_s: float) -> bool:
        """Extend a lease of an analyst; False if it is not theirs or has ended.

        One that another service gave is this service's from now on: its analyst is here.
        """
        if self.holder(lease_id) != analyst:
            return False
        if lease_id not in self._deadlines and not self._moved_here(lease_id, analyst):
            return False
        self._arm([lease_id], lease_s)
        return True

    def _moved_here(self, lease_id: str, analyst: str) -> bool:
        with self.store.transaction():
            moved = self.store.change(
                "UPDATE outbox SET lease_hub=? WHERE lease_id=? AND analyst=? AND state='leased' AND lease_hub<>?",
                (self.hub, lease_id, analyst, self.hub),
            )
            if moved:
                self.event("lease_moved", who=analyst, text=f"{lease_id} to {self.hub}")
        return bool(moved)

    def release(self, lease_id: str, why: str, max_attempts: int, *, hub: str | None = None) -> str | None:
        """End a lease without a decision; return the scan, which is pending again, or held after too many tries.

        hub : of the service that gave it; None: this one. A lease that has moved to another is not touched
        """
        with self.store.transaction():
            found = self.store.locked(
                "SELECT scan_id, attempts, analyst, outcome, taken, damage, selected FROM outbox JOIN scans "
                "USING (scan_id) WHERE lease_id=? AND state='leased' AND lease_hub=?",
                (lease_id, self.hub if hub is None else hub),
            )
            if found is not None:
                scan_id, attempts, analyst, outcome, taken, damage, selected = found
                calm = "filed" if outcome == "CLEAR" and not selected else "pending"
                state = "held" if attempts >= max_attempts or damage else calm
                tries = f"offered {attempts} times without a decision; last {analyst}: {why}"
                note = (damage or tries) if state == "held" else ""
                self.store.change(
                    "UPDATE outbox SET state=?, analyst='', lease_id='', note=?, returned_by=? WHERE scan_id=?",
                    (state, note, analyst, scan_id),
                )
                if taken:  # who only had it offered leaves it waiting as before
                    self.store.change(
                        "UPDATE outbox SET waits_since_utc_ns=? WHERE scan_id=?", (time.time_ns(), scan_id)
                    )  # fmt: skip
                self.event("held" if state == "held" else "released", scan_id, analyst, why)
        self._deadlines.pop(lease_id, None)
        return str(found[0]) if found else None

    def expired(self, lease_s: float) -> list[str]:
        """Return the leases whose time is over."""
        now = self._monotonic()
        if self._connections != self.store.connections:
            # Some lease may be committed whose COMMIT was never answered; nobody else would end it.
            self._arm(self._leases() - self._deadlines.keys(), lease_s)
            self._connections = self.store.connections
        over = [lease for lease, deadline in self._deadlines.items() if deadline <= now]
        mine = self._leases() if over else set()
        for lease in over:
            if lease not in mine:
                del self._deadlines[lease]  # another service has it, or it ended without this one's hearing of it
        return [lease for lease in over if lease in mine]

    # ------------------------------------------------------------------------------------------------- the clock

    def clock_moved(self, by_ns: int, text: str) -> None:
        """Note that this computer's clock was set; what waits has waited as long as before, and keeps its turn."""
        with self.store.transaction():
            self.store.change(
                "UPDATE outbox SET waits_since_utc_ns=waits_since_utc_ns+?, turn_utc_ns=turn_utc_ns+?, "
                "clock_moved_ns=clock_moved_ns+? WHERE state IN ('pending', 'leased', 'held') AND EXISTS "
                "(SELECT 1 FROM scans WHERE scans.scan_id=outbox.scan_id AND hub=?)",
                (by_ns, by_ns, by_ns, self.hub),
            )
            self.event("clock_stepped", text=text)

    def last_event_utc_ns(self) -> int:
        """Return when the last event was, 0 without any."""
        found = self.store.row("SELECT utc_ns FROM events ORDER BY seq DESC LIMIT 1")
        return int(found[0]) if found else 0

    # -------------------------------------------------------------------------------------------- other services

    def beat(self) -> list[str]:
        """Say that this service lives and look who of the others does; return in words who is gone, each once."""
        now = self._monotonic()
        if not self.hub or now - self._beaten_s < BEAT_S:
            return []
        with self.store.transaction():
            was = self.store.row("SELECT lost FROM hubs WHERE hub=?", (self.hub,))
            self.store.change(
                "INSERT INTO hubs VALUES (?, 1, 0) ON CONFLICT (hub) DO UPDATE SET beat=hubs.beat+1, lost=0",
                (self.hub,),
            )
            if was is not None and was[0]:
                self.event("hub_back", who=self.hub)
        self._beaten_s = now
        gone = []
        for hub, beat in self.store.rows("SELECT hub, beat FROM hubs WHERE hub<>? AND lost=0", (self.hub,)):
            seen, looks = self._beats.get(hub, (beat, -1))
            self._beats[hub] = (beat, looks + 1 if seen == beat else 0)
            if self._beats[hub][1] >= LOST_BEATS and (told := self._lost(hub, beat)):
                gone.append(told)
        self._end_leases_of_lost()
        return gone

    def _lost(self, hub: str, beat: int) -> str:
        """Note that a service is gone, if nobody has; its leases go back where others can offer its scans."""
        with self.store.transaction():
            if not self.store.change("UPDATE hubs SET lost=1 WHERE hub=? AND beat=? AND lost=0", (hub, beat)):
                return ""
            query = (
                "SELECT COUNT(*) FROM scans JOIN outbox USING (scan_id) WHERE hub=? AND state IN ('pending', 'held')"
            )
            ((waiting,),) = self.store.rows(query, (hub,))
            query = "SELECT COUNT(*) FROM outbox WHERE lease_hub=? AND state='leased'"
            ((leases,),) = self.store.rows(query, (hub,))
            told = f"hub {hub} is silent; {waiting} scans wait there, {leases} are out on lease"
            self.event("hub_lost", who=hub, text=told)
        return told

    def _end_leases_of_lost(self) -> None:
        """End leases of services that are gone, also where the one that noticed it has not come to it."""
        leases = self.store.rows(
            "SELECT lease_id, lease_hub, scans.hub FROM outbox JOIN scans USING (scan_id) "
            "JOIN hubs ON hubs.hub=lease_hub WHERE state='leased' AND lost=1"
        )
        for lease_id, hub, where in leases:
            if self._shared or where == self.hub:
                self.release(lease_id, f"hub {hub} is silent", sys.maxsize, hub=hub)

    def take_over(self, scan_id: str) -> bool:
        """End the lease of a scan whose recording is here now, if the service that gave it is gone."""
        found = self.store.row(
            "SELECT lease_id, lease_hub FROM outbox JOIN hubs ON hubs.hub=lease_hub "
            "WHERE scan_id=? AND state='leased' AND lost=1",
            (scan_id,),
        )
        if found is None:
            return False
        lease_id, hub = found
        return bool(self.release(lease_id, f"hub {hub} is silent", sys.maxsize, hub=hub))

    # ------------------------------------------------------------------------------------------------ escalation

    def taken(self, scan_id: str, lease_id: str, analyst: str) -> None:
        """Note that an analyst has begun to fetch a scan on lease: somebody is at it."""
        with self.store.transaction():
            self.store.change(
                "UPDATE outbox SET taken=1, escalated=0 WHERE scan_id=? AND lease_id=?", (scan_id, lease_id)
            )
            self.event("fetched", scan_id, analyst, lease_id)

    def waiting(self, wait_s: float) -> Waiting | None:
        """Return what nobody has taken for so long, and what is held; None if that is nothing.

        A scan that seems to wait since the future is counted: the clock was put back, and nobody knows how long it is.
        """
        query = f"{_UNATTENDED} ORDER BY turn_utc_ns, scan_id LIMIT 1"
        found = self.store.row(query, (self.hub, int(self._shared), *self._since(wait_s)))
        if found is None:
            return None
        scan_id, outcome, _, _, _, _, scans, held, since = found
        waited_s = max(0.0, (time.time_ns() - since) / 1e9)
        return Waiting(scans=scans, held=held, scan_id=scan_id, outcome=outcome, waited_s=waited_s)

    def escalate(self, wait_s: float, limit: int) -> list[tuple[str, str]]:
        """Write an event for scans that `waiting` counts and that have none yet, `limit` at a time.

        Returns each one's id and what it waits for, in words.
        """
        told = []
        with self.store.transaction():
            rows = self.store.rows(
                f"{_UNATTENDED} AND escalated=0 ORDER BY turn_utc_ns LIMIT ?",
                (self.hub, int(self._shared), *self._since(wait_s), limit),
            )
            for scan_id, outcome, state, since, attempts, selected, *_ in rows:
                if not self.store.change("UPDATE outbox SET escalated=1 WHERE scan_id=? AND escalated=0", (scan_id,)):
                    continue  # another service was quicker
                waited_s = max(0.0, (time.time_ns() - since) / 1e9)
                what = "is held" if state == "held" else f"nobody has taken it for {waited_s:.0f} s"
                chosen = ", selected to be looked at" if selected else ""
                told.append((scan_id, f"{outcome}{chosen}, {what}; times offered: {attempts}"))
            for scan_id, text in told:
                self.event("unattended", scan_id, text=text)
        return told

    @staticmethod
    def _since(wait_s: float) -> tuple[int, int]:
        """Return the last moment since which a scan has waited for too long, and the first that cannot be true."""
        now = time.time_ns()
        return now - int(wait_s * 1e9), now + CLOCK_SKEW_NS

    # ------------------------------------------------------------------------------------------------- decisions

    def delivered(self, scan_id: str, lease_id: str, sha256: str) -> bool:
        """Note that the analyst has the whole recording, fetched on this lease or ahead of it.

        False if the hash or the lease is another.
        """
        with self.store.transaction():
            done = self.store.change(
                "UPDATE outbox SET delivered_utc_ns=?, taken=1, escalated=0 "
                "WHERE scan_id=? AND lease_id=? AND state='leased' AND EXISTS "
                "(SELECT 1 FROM scans WHERE scans.scan_id=outbox.scan_id AND sha256=?)",
                (time.time_ns(), scan_id, lease_id, sha256),
            )
            if done:
                self.event("delivered", scan_id, text=lease_id)
        return bool(done)

    def decide(self, decision: Decision, *, statement: bytes = b"", signature: bytes = b"") -> Answer:
        """Commit a decision. It is applied if its lease is in force and it names the recording's hash; else it is
        kept with the reason and the scan stays where it is. The same decision again gets the same answer.

        statement, signature : the very bytes that the analyst signed, kept as they came

        Raises DeliveryError if there is no such scan, or the decision id was used for something else.
        """
        with self.store.transaction():
            item = self._item(decision.scan_id, self.store.locked)
            old = self.store.row(
                "SELECT applied, reason, decision FROM decisions WHERE decision_id=?", (decision.decision_id,)
            )
            if old is not None:
                if msgspec.json.decode(old[2], type=Decision) != decision:
                    raise DeliveryError(f"decision {decision.decision_id} was used before for something else")
                return Answer(applied=bool(old[0]), reason=old[1], repeated=True)
            reason = self._objection(item, decision)
            if reason:
                self._check_late(decision)
            self.store.change(
                "INSERT INTO decisions (decision_id, scan_id, analyst, verdict, decision, applied, reason, "
                "committed_utc_ns, statement, signature) VALUES (?,?,?,?,?,?,?,?,?,?)",
                (
                    decision.decision_id, decision.scan_id, decision.analyst, decision.verdict,
                    msgspec.json.encode(decision), int(not reason), reason, time.time_ns(), statement, signature,
                ),
            )  # fmt: skip
            if not reason:
                self.store.change(
                    "UPDATE outbox SET state='decided', lease_id='' WHERE scan_id=?", (decision.scan_id,)
                )  # fmt: skip
            kind = "decision_not_applied" if reason else "decided"
            via = f"via {decision.via}" if decision.via else ""
            words = " ".join(filter(None, (decision.verdict, via, reason)))
            seq = self.event(kind, decision.scan_id, decision.analyst, words)
            self.store.change("UPDATE decisions SET seq=? WHERE decision_id=?", (seq, decision.decision_id))
        if not reason:
            self._deadlines.pop(decision.lease_id, None)
        return Answer(applied=not reason, reason=reason, repeated=False)

    def _check_late(self, decision: Decision) -> None:
        """Raise DeliveryError for one more decision than is kept of those that decide nothing."""
        query = "SELECT COUNT(*) FROM decisions WHERE scan_id=? AND analyst=? AND applied=0"
        ((late,),) = self.store.rows(query, (decision.scan_id, decision.analyst))
        if late >= MAX_LATE:
            raise DeliveryError(
                f"{decision.analyst} has sent {late} decisions on {decision.scan_id} that were not applied; no more "
                f"are kept"
            )

    @staticmethod
    def _objection(item: Item, decision: Decision) -> str:
        if item.state == "decided":
            return f"the scan was decided already by {item.analyst}"
        if not decision.lease_id or item.lease_id != decision.lease_id:
            return "its lease had ended; the scan went to somebody else or waits"
        if item.analyst != (decision.via or decision.analyst):
            return f"the lease is {item.analyst}'s"
        if item.row.sha256 != decision.sha256:
            return f"made on a recording with hash {decision.sha256[:16]}…, the scan's is {item.row.sha256[:16]}…"
        return ""

    # -------------------------------------------------------------------------------------------------- opinions

    def opine(self, opinion: Opinion, lease_id: str, *, statement: bytes = b"", signature: bytes = b"") -> bool:
        """Commit what an analyst thinks of a scan that they have on this lease; False if it was committed before.

        statement, signature : the very bytes that the analyst signed, kept as they came

        The lease stays: it is for the caller to end it. Raises DeliveryError if the lease is not theirs, the opinion is
        of another recording, or its id was used for something else.
        """
        with self.store.transaction():
            item = self._item(opinion.scan_id, self.store.locked)
            old = self.store.row("SELECT opinion FROM opinions WHERE opinion_id=?", (opinion.opinion_id,))
            if old is not None:
                if msgspec.json.decode(old[0], type=Opinion) != opinion:
                    raise DeliveryError(f"opinion {opinion.opinion_id} was used before for something else")
                return False
            if item.state != "leased" or item.lease_id != lease_id or item.analyst != opinion.analyst:
                raise DeliveryError(f"scan {opinion.scan_id} is not leased to {opinion.analyst} by {lease_id}")
            if item.row.sha256 != opinion.sha256:
                raise DeliveryError(
                    f"of a recording with hash {opinion.sha256[:16]}…, the scan's is {item.row.sha256[:16]}…"
                )
            blob = msgspec.json.encode(opinion)
            self.store.change(
                "INSERT INTO opinions (opinion_id, scan_id, analyst, opinion, statement, signature) "
                "VALUES (?,?,?,?,?,?)",
                (opinion.opinion_id, opinion.scan_id, opinion.analyst, blob, statement, signature),
            )
            text = audit.opinion_text(blob, str(opinion.verdict), signed=bool(signature))
            seq = self.event("opinion", opinion.scan_id, opinion.analyst, text)
            self.store.change("UPDATE opinions SET seq=? WHERE opinion_id=?", (seq, opinion.opinion_id))
        return True

    def opinions(self, scan_id: str, reader: str = "") -> tuple[Given, ...]:
        """Return what analysts thought of a scan, oldest first: the last `OPINIONS_TOLD`.

        reader : who is to decide it, and is not told what others said blindly; empty: all of it
        """
        rows = self.store.rows(
            "SELECT opinion, statement, signature FROM opinions WHERE scan_id=? ORDER BY seq DESC LIMIT ?",
            (scan_id, OPINIONS_TOLD),
        )
        found: list[Given] = []
        left = OPINIONS_TOLD_BYTES
        for blob, statement, signature in rows:
            left -= len(blob) + len(statement)
            if left < 0:
                break
            opinion = msgspec.json.decode(blob, type=Opinion)
            if reader and opinion.blind and opinion.analyst != reader:
                hidden = msgspec.structs.replace(opinion, verdict=None, note="")
                found.append(Given(hidden, b"", b""))
            else:
                found.append(Given(opinion, bytes(statement), bytes(signature)))
        return tuple(reversed(found))

    def opinion_counts(self) -> dict[str, int]:
        """Return how many opinions there are of each scan that waits for an answer and has any."""
        return dict(
            self.store.rows(
                "SELECT scan_id, COUNT(*) FROM opinions JOIN outbox USING (scan_id) "
                "WHERE state IN ('pending', 'leased', 'held') GROUP BY scan_id"
            )
        )

    # ---------------------------------------------------------------------------------------------------- views

    def item(self, scan_id: str) -> Item:
        """Return one scan. Raises DeliveryError if it does not exist."""
        return self._item(scan_id, self.store.row)

    def _item(self, scan_id: str, ask: Callable[[str, tuple[str]], store.Row | None]) -> Item:
        found = ask(
            "SELECT lane, path, sha256, size, start_utc_ns, simulated, result, declaration, state, analyst, lease_id, "
            "attempts, note, hub FROM scans JOIN outbox USING (scan_id) WHERE scan_id=?",
            (scan_id,),
        )
        if found is None:
            raise DeliveryError(f"there is no scan {scan_id[:80]!r} here")
        row = ScanRow(
            scan_id=scan_id, lane=found[0], path=found[1], sha256=found[2], size=found[3], start_utc_ns=found[4],
            simulated=bool(found[5]), result=msgspec.json.decode(found[6], type=TriageResult),
            declaration=msgspec.json.decode(found[7], type=Declaration) if found[7] is not None else None,
            later=self._later(scan_id),
        )  # fmt: skip
        state, analyst, lease_id, attempts, note, hub = found[8:]
        return Item(row=row, state=state, analyst=analyst, lease_id=lease_id, attempts=attempts, note=note, hub=hub)

    def _later(self, scan_id: str) -> tuple[Later, ...]:
        rows = self.store.rows("SELECT later FROM assessments WHERE scan_id=? ORDER BY number", (scan_id,))
        return tuple(msgspec.json.decode(blob, type=Later) for (blob,) in rows)

    def undecided(self, limit: int, after: str = "") -> list[Item]:
        """Return scans that wait for an answer, most urgent first.

        after : only those behind the turn of this scan, decided or not; none where it is not known
        """
        rows = self.store.rows(
            "SELECT scan_id FROM outbox WHERE state IN ('pending', 'leased', 'held') AND (?='' OR "
            "(turn_utc_ns, scan_id) > (SELECT turn_utc_ns, scan_id FROM outbox WHERE scan_id=?)) "
            "ORDER BY turn_utc_ns, scan_id LIMIT ?",
            (after, after, limit),
        )
        return [self.item(scan_id) for (scan_id,) in rows]

    def counts(self) -> dict[str, int]:
        """Return how many scans are in each state, how many there are, and how often each outcome came."""
        counts: dict[str, int] = dict(self.store.rows("SELECT state, COUNT(*) FROM outbox GROUP BY state"))
        counts["recorded"] = sum(counts.values())
        counts |= dict(self.store.rows("SELECT outcome, COUNT(*) FROM scans GROUP BY outcome"))
        ((counts["offered"], counts["delivered"]),) = self.store.rows(
            "SELECT COUNT(CASE WHEN attempts > 0 THEN 1 END), COUNT(delivered_utc_ns) FROM outbox"
        )
        return counts

    @property
    def counted_upto(self) -> int:
        """The audit's last event that `counts_lately` has counted; -1 before."""
        return -1 if self._totals is None else self._totals.seq

    def counts_lately(self) -> dict[str, int]:
        """Return what `counts` does; of what waits no longer it may be a little old. For who asks all the time.

        All there ever were are counted when something has happened since, and not for more than a fiftieth of the time:
        of a million that takes a third of a second.
        """
        seq, _ = self.audit_head()
        now_s = time.monotonic()
        if self._totals is None or (self._totals.seq != seq and now_s >= self._totals.good_until_s):
            counts = self.counts()
            self._totals = _Totals(seq, now_s + (time.monotonic() - now_s) * (1 + COUNT_SHARE), counts)
        query = "SELECT state, COUNT(*) FROM outbox WHERE state IN ('pending', 'leased', 'held') GROUP BY state"
        known = {name: n for name, n in self._totals.counts.items() if name not in ("pending", "leased", "held")}
        return known | dict(self.store.rows(query))

    def decisions(self, scan_id: str) -> list[tuple[Decision, bool]]:
        """Return the decisions on a scan in the order of their commits, each with whether it was applied."""
        rows = self.store.rows(
            "SELECT decision, applied FROM decisions WHERE scan_id=? ORDER BY seq, committed_utc_ns", (scan_id,)
        )
        return [(msgspec.json.decode(blob, type=Decision), bool(applied)) for blob, applied in rows]

    def decided_since(self, seq: int) -> tuple[int, list[str]]:
        """Return how far the chain of events has come, and which scans were decided in it after the event `seq`."""
        last, _ = self.audit_head()
        if last == seq:
            return last, []
        query = "SELECT scan_id FROM events WHERE seq>? AND seq<=? AND kind='decided' ORDER BY seq"
        return last, [scan_id for (scan_id,) in self.store.rows(query, (seq, last))]

    def not_brought(self, back: int) -> list[str]:
        """Return the scans decided in the last `back` events whose decision a hub has not told to be brought."""
        last, _ = self.audit_head()
        query = (
            "SELECT kind, scan_id FROM events WHERE seq>? AND kind IN ('decided', 'decision_brought', "
            "'decision_not_applied_there') ORDER BY seq"
        )
        told = self.store.rows(query, (last - back,))
        brought = {scan_id for kind, scan_id in told if kind != "decided"}
        return [scan_id for kind, scan_id in told if kind == "decided" and scan_id not in brought]

    def leased_here(self, scan_id: str) -> bool:
        """Return whether this service gave the last lease of a scan."""
        return self.store.row("SELECT 1 FROM outbox WHERE scan_id=? AND lease_hub=?", (scan_id, self.hub)) is not None

    def in_force(self, scan_id: str) -> tuple[Decision, bytes, bytes] | None:
        """Return the decision that decides a scan, with what its analyst signed and the signature; None: none does."""
        found = self.store.row(
            "SELECT decision, statement, signature FROM decisions WHERE scan_id=? AND applied<>0", (scan_id,)
        )
        if found is None:
            return None
        return msgspec.json.decode(found[0], type=Decision), bytes(found[1]), bytes(found[2])

    def signatures(self, scan_id: str) -> list[tuple[str, bytes, bytes]]:
        """Return analyst, statement and signature of every decision on a scan in the order of their commits."""
        return [
            (analyst, bytes(statement), bytes(signature))
            for analyst, statement, signature in self.store.rows(
                "SELECT analyst, statement, signature FROM decisions WHERE scan_id=? ORDER BY seq, committed_utc_ns",
                (scan_id,),
            )
        ]

    def note(self, kind: str, text: str, scan_id: str = "", who: str = "") -> None:
        """Write an event down."""
        with self.store.transaction():
            self.event(kind, scan_id, who, text)


def decisions_in(place: store.Place) -> list[Decision]:
    """Return the decisions in force of an outbox, without writing to it; a daemon may be using it.

    Raises StorageError if it cannot be read.
    """
    query = "SELECT decision FROM decisions WHERE applied<>0 ORDER BY seq, committed_utc_ns"
    with store.reading(place) as reader:
        return [msgspec.json.decode(blob, type=Decision) for (blob,) in reader.rows(query)]
