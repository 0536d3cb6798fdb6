"""Declarations that came in advance: which version of which document is in force, and what is odd about it.

One file of SQLite beside the outbox, for all lanes of a service. A document is known by its sender and its number. Its
versions are ordered by when they were prepared, and by when they came where that is not told:

    came before           original, replacement      amendment                   cancellation       duplicate, or equal
    nothing               in force                   in force, with a problem    kept, with one     in force, with one
    one that is older     in force, old superseded   merged into a new version   document over      counted, no version
    one that is newer     kept, never in force       the same                    the same           counted, no version

So a message that comes late, twice or out of order changes nothing that a newer one said, and a cancellation that
overtakes its original still ends it. Two documents in force that name one container contradict each other: both are
given, and whoever joins them to a passage must say so. What a passage was joined with stays in its recording; nothing
here rewrites it, and what the policy lets go here is still there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from scanner_io.config import Cargo
from scanner_io.errors import StorageError
from scanner_io.formats.cargo import CargoMessage, declarations, with_problems
from scanner_io.formats.iso6346 import tidy
from scanner_io.model import CargoReceived, Declaration

from .store import SqliteStore

FILE = "declarations.sqlite"
DAY_NS = 24 * 3600 * 10**9
Standing = Literal["in force", "superseded", "cancelled", "cancellation", "outdated"]
Fate = Literal["in force", "cancelled", "duplicate", "outdated"]

MIGRATIONS = (
    """
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, sender TEXT NOT NULL, document TEXT NOT NULL, reference TEXT NOT NULL,
        version INTEGER NOT NULL, standing TEXT NOT NULL, prepared_utc_ns INTEGER NOT NULL,
        received_utc_ns INTEGER NOT NULL, name TEXT NOT NULL, source_sha256 TEXT NOT NULL, content_sha256 TEXT NOT NULL,
        simulated INTEGER NOT NULL, repeats INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL, message BLOB NOT NULL
    ) STRICT;
    CREATE INDEX messages_document ON messages (sender, document);
    CREATE INDEX messages_received ON messages (received_utc_ns);
    CREATE TABLE keys (
        kind TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX keys_value ON keys (kind, value);
    CREATE INDEX keys_seq ON keys (seq);
    CREATE TABLE waiting (
        scan_id TEXT PRIMARY KEY, lane TEXT NOT NULL, path TEXT NOT NULL, start_utc_ns INTEGER NOT NULL,
        seen_seq INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX waiting_lane ON waiting (lane, seen_seq);
    """,
)

REMEDY = (
    "move it away: it is made anew from the messages that come; ask the senders for those that are still wanted. "
    "Declarations that were joined to scans are in their recordings"
)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one message. problems : what is odd about its place among the versions, in words"""

    fate: Fate
    seq: int
    version: int
    problems: tuple[str, ...] = ()


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """A container as one document in force declares it, or a whole truck where no container is named.

    number : of the container, "" for goods that are declared for a plate alone
    plate, bookings : what else it can be known by
    problems : what is odd about the message it is of
    """

    number: str
    plate: str
    bookings: tuple[str, ...]
    declaration: Declaration
    sender: str
    document: str
    reference: str
    version: int
    received_utc_ns: int
    problems: tuple[str, ...] = ()

    @property
    def identity(self) -> tuple[str, str, str]:
        """Sender, document, container: no two are equal."""
        return self.sender, self.document, self.number


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A scan that was judged without a sure declaration. seen_seq : the last message that was there then"""

    scan_id: str
    lane: str
    path: str
    start_utc_ns: int
    seen_seq: int


class Declarations:
    """The store, as one process sees it. For one thread only; other processes may use the same file."""

    def __init__(self, path: Path, policy: Cargo) -> None:
        """Open or create it. Raises StorageError if it is not usable or was written by a newer scanlane."""
        self._policy = policy
        self.store = SqliteStore(path, what="a store of declarations", remedy=REMEDY)
        try:
            with self.store.transaction():
                have = self.store.version()
                if have > len(MIGRATIONS):
                    raise StorageError(
                        f"{path}: schema {have}, this scanlane knows up to {len(MIGRATIONS)}; upgrade scanlane"
                    )
                for number in range(have, len(MIGRATIONS)):
                    self.store.migrate(number + 1, MIGRATIONS[number])
        except StorageError:
            self.store.close()
            raise

    def close(self) -> None:
        """Close the file; what is committed is safe without it."""
        self.store.close()

    # ---------------------------------------------------------------------------------------------------- intake

    def take(self, received: CargoReceived) -> tuple[Kept, ...]:
        """Commit all messages of one delivery, or none; return what became of each. Taken again, nothing changes."""
        with self.store.transaction():
            return tuple(self._take(message, received) for message in received.messages)

    def _take(self, message: CargoMessage, received: CargoReceived) -> Kept:
        sender = received.sender or message.sender
        document = message.document or message.reference or received.sha256
        digest = _digest(message)
        same = self.store.row(
            "SELECT seq, version FROM messages WHERE sender=? AND document=? AND content_sha256=?",
            (sender, document, digest),
        )
        if same is not None:
            self.store.change("UPDATE messages SET repeats=repeats+1 WHERE seq=?", (same[0],))
            return Kept(fate="duplicate", seq=same[0], version=same[1], problems=("came before, word for word",))
        prepared_ns = message.prepared_utc_ns or received.utc_ns
        last = self.store.row(
            "SELECT seq, version, standing, prepared_utc_ns, message FROM messages WHERE sender=? AND document=? AND "
            "standing IN ('in force', 'cancellation') ORDER BY prepared_utc_ns DESC, seq DESC LIMIT 1",
            (sender, document),
        )
        ((versions,),) = self.store.rows(
            "SELECT COALESCE(MAX(version), 0) FROM messages WHERE sender=? AND document=?", (sender, document)
        )
        overtaken = last is not None and last[3] > prepared_ns
        before = None
        if last is not None and last[2] == "in force" and not overtaken:
            before = msgspec.json.decode(last[4], type=CargoMessage)
        problems = _odd_place(message, last is not None, overtaken, last is not None and last[2] == "cancellation")
        standing: Standing = "outdated" if overtaken else "in force"
        if message.function == "cancellation" and not overtaken:
            standing = "cancellation"
        if standing != "outdated":
            self.store.change(
                "UPDATE messages SET standing=? WHERE sender=? AND document=? AND standing='in force'",
                ("cancelled" if standing == "cancellation" else "superseded", sender, document),
            )
        whole = _amended(before, message) if before is not None and message.function == "amendment" else message
        kept = with_problems(whole, [*whole.problems, *problems])
        seq = self._insert(kept, received, (sender, document, versions + 1, standing, prepared_ns, digest))
        fates: dict[str, Fate] = {"in force": "in force", "cancellation": "cancelled", "outdated": "outdated"}
        return Kept(fate=fates[standing], seq=seq, version=versions + 1, problems=tuple(problems))

    def _insert(
        self, message: CargoMessage, received: CargoReceived, told: tuple[str, str, int, Standing, int, str]
    ) -> int:
        sender, document, version, standing, prepared_ns, digest = told
        blob = msgspec.json.encode(message)
        self.store.change(
            "INSERT INTO messages (sender, document, reference, version, standing, prepared_utc_ns, received_utc_ns, "
            "name, source_sha256, content_sha256, simulated, size, message) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                sender, document, message.reference, version, standing, prepared_ns, received.utc_ns, received.name,
                received.sha256, digest, int(received.simulated), len(blob), blob,
            ),
        )  # fmt: skip
        ((seq,),) = self.store.rows("SELECT last_insert_rowid()")
        for kind, value in _keys(message):
            self.store.change("INSERT INTO keys VALUES (?, ?, ?)", (kind, value, seq))
        return int(seq)

    # ----------------------------------------------------------------------------------------------------- views

    def head(self) -> int:
        """Return the number of the last message, 0 without any; it only grows."""
        found = self.store.row("SELECT seq FROM sqlite_sequence WHERE name='messages'")
        return int(found[0]) if found else 0

    def known(
        self, first_utc_ns: int, end_utc_ns: int, have: dict[int, list[Declared]] | None = None
    ) -> list[Declared]:
        """Return what documents in force declare that came within a time, `end_utc_ns` not included.

        have : what was read before, by the numbers of messages; only what is not there is read, and it is kept up
        """
        read = {} if have is None else have
        wanted = [
            int(seq) for (seq,) in self.store.rows(
                "SELECT seq FROM messages WHERE standing='in force' AND received_utc_ns>=? AND received_utc_ns<? "
                "ORDER BY seq", (first_utc_ns, end_utc_ns),
            )
        ]  # fmt: skip
        for gone in read.keys() - set(wanted):
            del read[gone]
        for seq in wanted:
            if seq not in read:
                read[seq] = self._declared(seq)
        return [declared for seq in wanted for declared in read[seq]]

    def _declared(self, seq: int) -> list[Declared]:
        found = self.store.row(
            "SELECT sender, document, reference, version, received_utc_ns, simulated, message FROM messages "
            "WHERE seq=?",
            (seq,),
        )
        if found is None:  # let go by another process meanwhile
            return []
        sender, document, reference, version, received_ns, simulated, blob = found
        return _declared(
            msgspec.json.decode(blob, type=CargoMessage), simulated=bool(simulated), sender=sender, document=document,
            reference=reference, version=version, received_utc_ns=received_ns,
        )  # fmt: skip

    def versions(self, sender: str, document: str) -> list[tuple[int, str, str]]:
        """Return version, standing and message reference of everything that came of a document, first to last."""
        return [
            (int(v), str(s), str(r)) for v, s, r in self.store.rows(
                "SELECT version, standing, reference FROM messages WHERE sender=? AND document=? ORDER BY seq",
                (sender, document),
            )
        ]  # fmt: skip

    def rivals(self, number: str) -> list[tuple[str, str]]:
        """Return sender and document of every document in force that names a container."""
        return [
            (str(s), str(d)) for s, d in self.store.rows(
                "SELECT DISTINCT sender, document FROM messages JOIN keys USING (seq) WHERE kind='container' AND "
                "value=? AND standing='in force' ORDER BY seq", (tidy(number),),
            )
        ]  # fmt: skip

    # -------------------------------------------------------------------------------------- scans without papers

    def wait(self, one: Waiting) -> None:
        """Note a scan that was judged without a sure declaration; noted again, the first note stays."""
        with self.store.transaction():
            self.store.change(
                "INSERT INTO waiting VALUES (?,?,?,?,?) ON CONFLICT (scan_id) DO NOTHING",
                (one.scan_id, one.lane, one.path, one.start_utc_ns, one.seen_seq),
            )

    def waiting(self, lane: str) -> list[Waiting]:
        """Return the scans of a lane for which messages have come since they were looked at."""
        names = ("scan_id", "lane", "path", "start_utc_ns", "seen_seq")
        rows = self.store.rows(
            "SELECT scan_id, lane, path, start_utc_ns, seen_seq FROM waiting WHERE lane=? AND seen_seq<? "
            "ORDER BY start_utc_ns",
            (lane, self.head()),
        )
        return [Waiting(**dict(zip(names, row, strict=True))) for row in rows]

    def looked(self, scan_ids: Sequence[str], seq: int) -> None:
        """Note that waiting scans were held against all messages up to `seq`, in vain."""
        if not scan_ids:
            return
        with self.store.transaction():
            for scan_id in scan_ids:
                self.store.change("UPDATE waiting SET seen_seq=? WHERE scan_id=?", (seq, scan_id))

    def waits_no_more(self, scan_id: str) -> None:
        """Note that a scan has its declaration."""
        with self.store.transaction():
            self.store.change("DELETE FROM waiting WHERE scan_id=?", (scan_id,))

    # ------------------------------------------------------------------------------------------------- retention

    def trim(self, now_utc_ns: int | None = None) -> int:
        """Let go what is older than the policy keeps, and the oldest beyond its bounds; return how many messages.

        A document that still waits for its vehicle goes last: what is superseded, cancelled or outdated goes first.
        """
        now_ns = time.time_ns() if now_utc_ns is None else now_utc_ns
        policy = self._policy
        with self.store.transaction():
            gone = self.store.change(
                "DELETE FROM messages WHERE received_utc_ns<?", (now_ns - int(policy.keep_days * DAY_NS),)
            )
            gone += self.store.change(
                "DELETE FROM messages WHERE seq IN (SELECT seq FROM (SELECT seq, ROW_NUMBER() OVER way AS place, "
                "SUM(size) OVER way AS total FROM messages WINDOW way AS (ORDER BY CASE standing WHEN 'in force' THEN "
                "0 WHEN 'cancellation' THEN 0 ELSE 1 END, received_utc_ns DESC, seq DESC)) WHERE place>? OR total>?)",
                (policy.most_messages, policy.most_mb << 20),
            )
            self.store.change("DELETE FROM waiting WHERE start_utc_ns<?", (now_ns - int(policy.late_days * DAY_NS),))
        return gone


def _digest(message: CargoMessage) -> str:
    """Return the hash of what a message says: not of its form, its own number, or what is odd in it."""
    bare = msgspec.structs.replace(message, form="JSON", reference="", problems=(), function="unknown")
    cancels = b"cancellation" if message.function == "cancellation" else b""
    return hashlib.sha256(cancels + msgspec.json.encode(bare)).hexdigest()


def _odd_place(message: CargoMessage, known: bool, overtaken: bool, over: bool) -> list[str]:
    """Return what is odd about a message's place among the versions of its document, in words."""
    name = f"document {message.document or message.reference!r}"
    found = []
    if not known and message.function in ("replacement", "amendment", "cancellation", "duplicate"):
        found.append(f"{name}: a {message.function} of what never came here")
    if overtaken:
        found.append(f"{name}: came after a newer version, and is not in force")
    elif over and message.function != "cancellation":
        found.append(f"{name}: declared again after it was cancelled")
    elif known and message.function in ("original", "unknown", "duplicate"):
        found.append(f"{name}: a second {message.function} message with other contents; taken as a correction")
    return found


def _amended(before: CargoMessage, change: CargoMessage) -> CargoMessage:
    """Return a message with what its amendment tells: containers and consignments by their numbers, the rest kept."""
    told = {e.number: e for e in change.equipment}
    bills = {c.document or str(c.number): c for c in change.consignments}
    equipment = [told.pop(e.number, e) for e in before.equipment]
    consignments = [bills.pop(c.document or str(c.number), c) for c in before.consignments]
    return msgspec.structs.replace(
        change, equipment=(*equipment, *told.values()), consignments=(*consignments, *bills.values()),
        places=change.places or before.places, parties=change.parties or before.parties,
        plate=change.plate or before.plate, transport=change.transport or before.transport,
        voyage=change.voyage or before.voyage,
    )  # fmt: skip


def _keys(message: CargoMessage) -> Iterable[tuple[str, str]]:
    """Return what a message can be found by."""
    found = [("container", e.number) for e in message.equipment] + [("plate", message.plate)]
    found += [("booking", tidy(c.booking)) for c in message.consignments]
    return [(kind, value) for kind, value in dict.fromkeys(found) if value]


def _declared(message: CargoMessage, *, simulated: bool, **told: str | int) -> list[Declared]:
    bookings = {
        e.number: tuple(
            dict.fromkeys(
                tidy(c.booking) for c in message.consignments
                if c.booking and any(not i.packed or any(p.container == e.number for p in i.packed) for i in c.goods)
            )
        )
        for e in message.equipment
    }  # fmt: skip
    return [
        Declared(
            number=number, plate=message.plate, bookings=bookings.get(number, ()), problems=message.problems,
            declaration=msgspec.structs.replace(declaration, simulated=simulated), **told,  # type: ignore[arg-type]
        )
        for number, declaration in declarations(message).items()
    ]  # fmt: skip
