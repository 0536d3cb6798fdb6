"""Recordings that may go: delivered and decided ones, after as many days as the site's policy keeps their kind.

The recording goes first. Its row stays, with the result, the declaration, every decision and everything in the audit.
That a recording is going to be deleted, why, and by whose order is in the audit before it is; a deletion that was cut
short is finished by the next run. Result and declaration, which say what was in a vehicle and whose it was, go after
`result_days`, never before the recording. What people said of it in their own words, the notes of decisions, opinions
and second readings, goes after `said_days`, never before the recording either. Outcome, verdicts and audit stay in any
case. A signature is of all that was signed: where a note is erased there is nothing left to verify, and what stays is
the hash of the signed bytes in the audit, written when they went.

Never touched: what waits for an answer, is with an analyst or held; what was judged CLEAR, unless the policy says for
how long such scans are kept; what is under a legal hold; what is damaged or missing, which somebody must look at.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scanner_io import disk
from scanner_io.config import Retention
from scanner_io.errors import DeliveryError, StorageError
from scanner_io.model import Decision, Opinion, TriageResult
from scanner_io.storage import sync_folder

from . import audit
from .outbox import CLOCK_SKEW_NS, Outbox

DAY_NS = 24 * 3600 * 10**9
ERASED = "erased by the site's policy (retention)"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that the policy lets go. kind : verdict, or `filed`; since_utc_ns : of the decision, or filing"""

    scan_id: str
    path: str
    size: int
    sha256: str
    kind: str
    since_utc_ns: int
    keep_days: int

    def age_days(self, utc_ns: int) -> float:
        """Return how many days ago it was decided or filed."""
        return (utc_ns - self.since_utc_ns) / DAY_NS


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A scan whose recording must stay."""

    scan_id: str
    since_utc_ns: int
    who: str
    why: str


_FREE = (
    "SELECT scan_id, path, size, sha256, state, verdict, committed_utc_ns, added_utc_ns FROM scans "
    "JOIN outbox USING (scan_id) LEFT JOIN (SELECT scan_id, verdict, committed_utc_ns FROM decisions WHERE applied<>0) "
    "AS answered USING (scan_id) WHERE hub=? AND kept IN ('whole', 'deleting') AND damage='' "
    "AND state IN ('decided', 'filed') AND NOT EXISTS "
    "(SELECT 1 FROM legal_holds WHERE legal_holds.scan_id=scans.scan_id)"
)


def candidates(outbox: Outbox, policy: Retention, utc_ns: int) -> list[Candidate]:
    """Return the recordings that may be deleted at this moment, the oldest first. Raises StorageError.

    A clock that is behind the audit is one that was set back, and proves no age: then there is none.
    """
    _checked_clock(outbox, utc_ns)
    found = []
    for scan_id, path, size, sha256, state, verdict, decided_ns, added_ns in outbox.store.rows(_FREE, (outbox.hub,)):
        kind, since_ns = (verdict, decided_ns) if state == "decided" else ("filed", added_ns)
        days = None if kind is None else getattr(policy, f"{kind}_days")
        if days is not None and utc_ns - since_ns >= days * DAY_NS:
            found.append(
                Candidate(
                    scan_id=scan_id, path=path, size=size, sha256=sha256, kind=kind, since_utc_ns=since_ns,
                    keep_days=days,
                )
            )  # fmt: skip
    return sorted(found, key=lambda c: (c.since_utc_ns, c.scan_id))


def _checked_clock(outbox: Outbox, utc_ns: int) -> None:
    # the last one, not the latest: a clock that was ahead once and was mended must not stop this for years
    if outbox.last_event_utc_ns() - CLOCK_SKEW_NS > utc_ns:
        raise StorageError("the clock is behind the last event of the audit; set it right before anything is deleted")


def delete(outbox: Outbox, one: Candidate, recordings: Path, who: str) -> bool:
    """Delete one recording; False if it may not go any more. recordings : where they are; nothing else is touched.

    Raises StorageError; what was not done is done the next time, and a recording that is still there is a whole one.
    """
    path = Path(one.path)
    if recordings.resolve() not in path.resolve().parents:
        raise StorageError(f"{one.scan_id}: {path} is not below {recordings}; look who changed its row")
    with outbox.store.transaction():
        outbox.store.locked("SELECT scan_id FROM outbox WHERE scan_id=?", (one.scan_id,))
        still = outbox.store.row(f"{_FREE} AND scans.scan_id=?", (outbox.hub, one.scan_id))
        if still is None:
            return False
        outbox.store.change("UPDATE scans SET kept='deleting' WHERE scan_id=?", (one.scan_id,))
        text = (
            f"{path.name} sha256 {one.sha256}, {one.size} bytes: {one.kind} {one.age_days(time.time_ns()):.0f} days "
            f"ago, kept {one.keep_days}"
        )
        outbox.event("recording_deleting", one.scan_id, who, text)
    try:
        if os.path.lexists(path):
            disk.io().unlink(path)
            sync_folder(path.parent)
    except OSError as error:
        if os.path.lexists(path):
            with outbox.store.transaction():
                outbox.store.change("UPDATE scans SET kept='whole' WHERE scan_id=?", (one.scan_id,))
                outbox.event("recording_not_deleted", one.scan_id, who, str(error))
        raise StorageError(f"{path}: cannot be deleted ({error}); check its rights") from error
    with outbox.store.transaction():
        outbox.store.change("UPDATE scans SET kept='deleted' WHERE scan_id=?", (one.scan_id,))
        outbox.event("recording_deleted", one.scan_id, who)
    return True


class Erasable(msgspec.Struct, frozen=True, kw_only=True):
    """A scan whose recording is gone, and of which the policy lets more go. since_utc_ns : as above"""

    scan_id: str
    since_utc_ns: int
    keep_days: int
    size: int

    def age_days(self, utc_ns: int) -> float:
        """Return how many days ago it was decided or filed."""
        return (utc_ns - self.since_utc_ns) / DAY_NS


_READABLE = (
    "SELECT scan_id, COALESCE(committed_utc_ns, added_utc_ns), result, declaration, outcome FROM scans "
    "JOIN outbox USING (scan_id) LEFT JOIN (SELECT scan_id, committed_utc_ns FROM decisions WHERE applied<>0) "
    "AS answered USING (scan_id) WHERE hub=? AND kept='deleted' AND state IN ('decided', 'filed')"
)


def erasable(outbox: Outbox, policy: Retention, utc_ns: int) -> list[Erasable]:
    """Return the scans of which result and declaration may be erased at this moment, the oldest first."""
    days = policy.result_days
    if days is None:
        return []
    _checked_clock(outbox, utc_ns)
    found = [
        Erasable(scan_id=i, since_utc_ns=since, keep_days=days, size=len(result) + len(declaration or b""))
        for i, since, result, declaration, _ in outbox.store.rows(_READABLE, (outbox.hub,))
        if utc_ns - since >= days * DAY_NS
    ]
    return sorted(found, key=lambda e: (e.since_utc_ns, e.scan_id))


def erase(outbox: Outbox, one: Erasable, who: str) -> bool:
    """Erase result and declaration of one scan; False if they may not go any more. Raises StorageError.

    What they hashed to is in the audit: a copy that turns up can be told from a forged one.
    """
    with outbox.store.transaction():
        outbox.store.locked("SELECT scan_id FROM outbox WHERE scan_id=?", (one.scan_id,))
        still = outbox.store.row(f"{_READABLE} AND scans.scan_id=?", (outbox.hub, one.scan_id))
        if still is None:
            return False
        _, _, result, declaration, outcome = still
        nothing = TriageResult(
            scan_id=one.scan_id, outcome=outcome, reasons=(ERASED,), load="unknown", container=None, findings=(),
            quality=(), gamma_alarm=None, neutron_alarm=None, gamma_intervals=0, alarm_intervals=0, profile="",
            code_version="",
        )  # fmt: skip
        outbox.store.change(
            "UPDATE scans SET kept='erased', result=?, declaration=NULL WHERE scan_id=?",
            (msgspec.json.encode(nothing), one.scan_id),
        )
        hashes = [f"result sha256 {hashlib.sha256(result).hexdigest()}"]
        if declaration is not None:
            hashes.append(f"declaration sha256 {hashlib.sha256(declaration).hexdigest()}")
        later = outbox.store.rows("SELECT later FROM assessments WHERE scan_id=? ORDER BY number", (one.scan_id,))
        hashes += [f"later assessment sha256 {hashlib.sha256(blob).hexdigest()}" for (blob,) in later]
        outbox.store.change("DELETE FROM assessments WHERE scan_id=?", (one.scan_id,))
        outbox.event("result_erased", one.scan_id, who, f"{', '.join(hashes)}; kept {one.keep_days} days")
    return True


_SPOKEN = (
    "SELECT scan_id, COALESCE(committed_utc_ns, added_utc_ns) FROM scans JOIN outbox USING (scan_id) LEFT JOIN "
    "(SELECT scan_id, committed_utc_ns FROM decisions WHERE applied<>0) AS answered USING (scan_id) "
    "WHERE hub=? AND kept IN ('deleted', 'erased') AND said='kept' AND state IN ('decided', 'filed')"
)


class _Note(NamedTuple):
    """Words of somebody on a scan. words : where they stand and what they hash to; erase : SQL and its values"""

    words: str
    size: int
    erase: tuple[str, tuple[Any, ...]]


def _notes(outbox: Outbox, scan_id: str) -> list[_Note]:
    """Return every note on a scan that is there still."""
    found = []
    kinds: dict[str, type[Decision | Opinion]] = {"decision": Decision, "opinion": Opinion}
    for column, kind in kinds.items():
        table, key = f"{column}s", f"{column}_id"
        query = f"SELECT {key}, {column}, statement FROM {table} WHERE scan_id=? ORDER BY seq"  # noqa: S608 -- ours
        for name, blob, statement in outbox.store.rows(query, (scan_id,)):
            spoken = msgspec.json.decode(blob, type=kind)
            if not spoken.note:
                continue
            signed = f", signed bytes sha256 {hashlib.sha256(statement).hexdigest()}" if statement else ""
            change = f"UPDATE {table} SET {column}=?, statement=?, signature=? WHERE {key}=?"  # noqa: S608 -- ours
            rest = msgspec.json.encode(msgspec.structs.replace(spoken, note=""))
            words = f"{column} {name} sha256 {hashlib.sha256(blob).hexdigest()}{signed}"
            found.append(_Note(words, len(blob) + len(statement), (change, (rest, b"", b"", name))))
    query = "SELECT sample, note FROM second_readings WHERE scan_id=? AND note<>'' ORDER BY sample"
    for sample, note in outbox.store.rows(query, (scan_id,)):
        change = "UPDATE second_readings SET note='' WHERE sample=? AND scan_id=?"
        words = f"second reading {sample} note sha256 {hashlib.sha256(note.encode()).hexdigest()}"
        found.append(_Note(words, len(note.encode()), (change, (sample, scan_id))))
    return found


def said(outbox: Outbox, policy: Retention, utc_ns: int) -> list[Erasable]:
    """Return the scans of which notes may be erased at this moment, the oldest first. size : of all that goes."""
    days = policy.said_days
    if days is None:
        return []
    _checked_clock(outbox, utc_ns)
    found = []
    for scan_id, since in outbox.store.rows(_SPOKEN, (outbox.hub,)):
        if utc_ns - since >= days * DAY_NS and (notes := _notes(outbox, scan_id)):
            size = sum(n.size for n in notes)
            found.append(Erasable(scan_id=scan_id, since_utc_ns=since, keep_days=days, size=size))
    return sorted(found, key=lambda e: (e.since_utc_ns, e.scan_id))


def erase_said(outbox: Outbox, one: Erasable, who: str) -> bool:
    """Erase every note on a scan; False if they may not go any more. Raises StorageError.

    What they hashed to is in the audit, and so is that they were erased and not lost.
    """
    with outbox.store.transaction():
        outbox.store.locked("SELECT scan_id FROM outbox WHERE scan_id=?", (one.scan_id,))
        still = outbox.store.row(f"{_SPOKEN} AND scans.scan_id=?", (outbox.hub, one.scan_id))
        notes = [] if still is None else _notes(outbox, one.scan_id)
        if not notes:
            return False
        for note in notes:
            outbox.store.change(*note.erase)
        outbox.store.change("UPDATE scans SET said='erased' WHERE scan_id=?", (one.scan_id,))
        text = f"{'; '.join(n.words for n in notes)}; kept {one.keep_days} days"
        outbox.event(audit.ERASED_EVENT, one.scan_id, who, text)
    return True


def hold(outbox: Outbox, scan_id: str, who: str, why: str) -> None:
    """Let nothing delete the recording of a scan. Raises DeliveryError if it is unknown or was deleted."""
    with outbox.store.transaction():
        outbox.store.locked("SELECT scan_id FROM outbox WHERE scan_id=?", (scan_id,))  # as who deletes does
        found = outbox.store.row("SELECT kept FROM scans WHERE scan_id=?", (scan_id,))
        if found is None:
            raise DeliveryError(f"there is no scan {scan_id[:80]!r} here")
        if found[0] != "whole":
            raise DeliveryError(f"scan {scan_id}: its recording was deleted; its row and its audit stay anyway")
        new = outbox.store.change(
            "INSERT INTO legal_holds VALUES (?, ?, ?, ?) ON CONFLICT (scan_id) DO NOTHING",
            (scan_id, time.time_ns(), who, why),
        )
        if not new:
            raise DeliveryError(f"scan {scan_id} is under a legal hold already")
        outbox.event("legal_hold", scan_id, who, why)


def end_hold(outbox: Outbox, scan_id: str, who: str, why: str) -> None:
    """End a legal hold. Raises DeliveryError if there is none."""
    with outbox.store.transaction():
        if not outbox.store.change("DELETE FROM legal_holds WHERE scan_id=?", (scan_id,)):
            raise DeliveryError(f"scan {scan_id[:80]!r} is under no legal hold")
        outbox.event("legal_hold_over", scan_id, who, why)


def holds(outbox: Outbox) -> list[Hold]:
    """Return the legal holds in force."""
    rows = outbox.store.rows("SELECT scan_id, since_utc_ns, who, why FROM legal_holds ORDER BY since_utc_ns, scan_id")
    return [Hold(scan_id=i, since_utc_ns=since, who=who, why=why) for i, since, who, why in rows]
