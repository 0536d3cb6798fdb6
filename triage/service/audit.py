"""The audit: what happened to every scan and who did it, in a chain that shows when it was touched.

Each row's hash covers the row and the hash of the row before: a row that is changed, taken out, put in or moved breaks
the chain there. A chain that is cut off at its end, or written anew from its beginning, is whole in itself; that shows
only against what was said of it elsewhere. So every few minutes the service signs how long the chain is and what its
last hash is, and writes that to a second place, best on another machine.

    h(n) = SHA-256(h(n-1) || MessagePack [seq, utc_ns, kind, scan_id, who, text]),  h(0) = 32 zero bytes

Source of the idea: Haber and Stornetta, J. Cryptology 3 (1991) 99; Schneier and Kelsey, USENIX Security 1998.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scanner_io import disk
from scanner_io.errors import DataError, ProtocolError, StorageError
from scanner_io.model import Decision, Opinion
from scanner_io.security import Identity, verified
from scanner_io.storage import sync_folder, write_durable
from scanner_io.wire import decode_opinion_statement, decode_statement

from .sparing import one_line
from .store import Place, Reader, reading

START = bytes(32)
THERE_AGAIN = "its note was erased by policy, and is there again"
ERASED_EVENT = "said_erased"
"""Kind of the event which says that notes on a scan were erased, with their hashes."""
EVERY_S, EVERY_ROWS = 300.0, 1000
"""A checkpoint is due after so long or so many rows, if anything was added."""
_encoder = msgspec.msgpack.Encoder()


class Row(NamedTuple):
    """One event. seq : from 1, without gaps."""

    seq: int
    utc_ns: int
    kind: str
    scan_id: str
    who: str
    text: str
    hash: bytes


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far the chain had come. signature : hexadecimal Ed25519 of `signed`, empty where the service has no keys."""

    seq: int
    hash: str
    utc_ns: int
    signature: str = ""

    @property
    def signed(self) -> bytes:
        """The bytes that are signed."""
        return _encoder.encode(("scanlane audit 1", self.seq, self.hash, self.utc_ns))


class Problem(NamedTuple):
    """Where the audit does not hold. seq : of the row, or of the checkpoint's row."""

    seq: int
    text: str


def opinion_text(opinion: bytes, verdict: str, *, signed: bool) -> str:
    """Return what the chain says of an opinion: its hash and not its note, which a policy may have erased one day."""
    return f"{verdict} {'signed' if signed else 'unsigned'} sha256 {hashlib.sha256(opinion).hexdigest()}"


def link(before: bytes, seq: int, utc_ns: int, kind: str, scan_id: str, who: str, text: str) -> bytes:
    """Return the hash of a row after the hash of the row before it."""
    return hashlib.sha256(before + _encoder.encode((seq, utc_ns, kind, scan_id, who, text))).digest()


def check_chain(rows: Iterable[Row]) -> Iterator[Problem]:
    """Yield every place where the chain is broken; rows in the order of `seq`."""
    before, expected = START, 1
    for row in rows:
        number: Any = row.seq  # whoever makes the table anew can put anything into it
        link_: Any = row.hash
        if not isinstance(number, int) or not isinstance(link_, bytes):
            yield Problem(expected, "a row has no number or no hash: its table was made anew")
            return
        if row.seq != expected:
            missing = f"rows {expected} to {row.seq - 1} are missing" if row.seq > expected else "comes out of order"
            yield Problem(row.seq, missing)
        if link(before, *row[:6]) != row.hash:
            yield Problem(row.seq, f"the row ({row.kind} by {row.who or 'the service'}) or the one before was changed")
        before, expected = row.hash, row.seq + 1


def check_checkpoints(
    hashes: dict[int, bytes], last: int, checkpoints: Iterable[Checkpoint], signing: str | None
) -> Iterator[Problem]:
    """Yield every checkpoint that the chain does not agree with.

    hashes : of the rows that checkpoints name; last : highest row there is
    signing : Ed25519 public key of the service, None where it has none
    """
    highest = 0
    for c in checkpoints:
        if signing is not None and not verified(signing, c.signed, _bytes(c.signature)):
            yield Problem(c.seq, "a checkpoint is not signed by the service's key")
            continue
        if c.seq < highest:
            yield Problem(c.seq, f"a checkpoint comes after one of row {highest}: the chain was begun anew or cut off")
        highest = max(highest, c.seq)
        if c.seq > last:
            yield Problem(c.seq, f"the chain ends at row {last}, but had come to row {c.seq}: its end was cut off")
        elif hashes.get(c.seq, b"").hex() != c.hash:
            yield Problem(c.seq, "row and checkpoint differ: the chain was written anew up to here")


def _bytes(hexadecimal: str) -> bytes:
    try:
        return bytes.fromhex(hexadecimal)
    except ValueError:
        return b""


# --------------------------------------------------------------------------------------------------------------
# Checkpoints in a second place


class Checkpoints:
    """The file of checkpoints, one JSON line each, only ever added to."""

    def __init__(self, path: Path, identity: Identity | None) -> None:
        self._path, self._identity = path, identity
        self._seq = 0
        self._doubted = False

    def due(self, seq: int, since_s: float) -> bool:
        """Tell whether a chain of `seq` rows, the last checkpoint `since_s` ago, is to be told of."""
        return seq > self._seq and (since_s >= EVERY_S or seq - self._seq >= EVERY_ROWS)

    def add(self, seq: int, head: bytes, utc_ns: int) -> None:
        """Sign and write down how far the chain has come. Raises StorageError naming the file."""
        made = Checkpoint(seq=seq, hash=head.hex(), utc_ns=utc_ns)
        if self._identity is not None:
            made = msgspec.structs.replace(made, signature=self._identity.sign(made.signed).hex())
        line = b"\n" + msgspec.json.encode(made) + b"\n"
        try:
            if self._doubted:  # a sync of this file has failed, and would not fail a second time: it is written anew
                before = self._path.read_bytes() if self._path.exists() else b""
                write_durable(self._path, before + line, replace=True)
                self._doubted, self._seq = False, seq
                return
            is_new = not self._path.exists()
            descriptor = disk.io().open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                if is_new:
                    sync_folder(self._path.absolute().parent)
                # A line of a writer that was killed halfway ends here, so that it spoils no other.
                disk.write_all(descriptor, line)
                disk.io().sync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._doubted = True
            raise StorageError(f"audit.checkpoints {self._path}: cannot be written ({error.strerror})") from error
        self._seq = seq


def read_checkpoints(path: Path) -> tuple[list[Checkpoint], int]:
    """Return the checkpoints of a file in their order, and how many lines are none. Raises DataError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    found, bad = [], 0
    for line in filter(None, lines):
        try:
            found.append(msgspec.json.decode(line, type=Checkpoint))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            bad += 1
    return found, bad


# --------------------------------------------------------------------------------------------------------------
# The whole


class Verified(NamedTuple):
    """What was found.

    checkpoints, decisions : read; unsigned : the checkpoints were not verified by a key
    nameless : decisions whose statement does not say for which service it was signed: programs before version 1 of the
        protocol did not
    opinions : read; unsigned_opinions : those without a signature: of a service without keys, or from before they were
        signed; erased : decisions and opinions whose notes a policy erased, and with them what was signed
    """

    rows: int
    checkpoints: int
    unsigned: bool
    problems: list[Problem]
    decisions: int
    nameless: int = 0
    opinions: int = 0
    unsigned_opinions: int = 0
    erased: int = 0


class Told(NamedTuple):
    """A decision as the outbox keeps it beside the chain."""

    decision_id: str
    scan_id: str
    analyst: str
    verdict: str
    decision: bytes
    applied: int
    statement: bytes
    signature: bytes


class Opined(NamedTuple):
    """An opinion as the outbox keeps it beside the chain. seq : of its event"""

    opinion_id: str
    scan_id: str
    analyst: str
    opinion: bytes
    seq: int
    statement: bytes
    signature: bytes


def check_decisions(
    told: Iterable[Told], events: Counter[tuple[str, str, str, str]], signers: Mapping[str, str] | None,
    service: str | None = None, erased: Collection[str] = (),
) -> Iterator[Problem]:  # fmt: skip
    """Yield every decision that the chain does not know, or knows otherwise, or that its analyst did not sign.

    events : how often the chain has (kind, scan, analyst, verdict) of a decision
    signers : Ed25519 public key of everybody who ever was enrolled, by name; None: signatures are not looked at
    service : CURVE public key of the service; None: for which one they were signed is not looked at
    erased : scans of which the chain says that notes were erased, and with them what was signed
    """
    left = Counter(events)
    for d in told:
        kind = "decided" if d.applied else "decision_not_applied"
        key = (kind, d.scan_id, d.analyst, d.verdict)
        where = f"decision {d.decision_id} on {d.scan_id}"
        if not left[key]:
            yield Problem(0, f"{where}: the audit has no event of {d.analyst}'s {d.verdict!r}")
        left[key] -= 1
        gone = d.scan_id in erased and not d.statement
        yield from (Problem(0, f"{where}: {why}") for why in _against_itself(d, signers, service, erased=gone))
    for key, count in left.items():
        if count > 0:
            yield Problem(0, f"the audit tells of {count} decisions {' '.join(key)} that are not kept any more")


def _against_itself(
    d: Told, signers: Mapping[str, str] | None, service: str | None, *, erased: bool
) -> Iterator[str]:  # fmt: skip
    try:
        kept = msgspec.json.decode(d.decision, type=Decision)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield "it cannot be read any more"
        return
    if (kept.decision_id, kept.scan_id, kept.analyst, kept.verdict) != d[:4]:
        yield "its parts differ from each other"
    if erased:
        yield from [THERE_AGAIN] if kept.note else []
    elif signers is not None:
        yield from _against_its_signature(d, kept, signers, service)


def _against_its_signature(
    d: Told | Opined, kept: Decision | Opinion, signers: Mapping[str, str], service: str | None
) -> Iterator[str]:  # fmt: skip
    signer = (kept.via if isinstance(kept, Decision) else "") or d.analyst
    if not verified(signers.get(signer, ""), d.statement, d.signature):
        yield f"its signature is not {signer}'s"
        return
    said: Decision | Opinion
    try:
        if isinstance(kept, Decision):
            made = decode_statement(d.statement)
            said, signed_for = made.decision, made.service
        else:
            given = decode_opinion_statement(d.statement)
            said, signed_for = given.opinion, given.service
    except ProtocolError:
        yield "what was signed is no statement"
        return
    if said != kept:
        yield "it is not what was signed"
    if service is not None and signed_for not in ("", service):
        yield f"it was signed for another service, {signed_for[:40]!r}"


def check_opinions(
    told: Iterable[Opined], events: Mapping[int, tuple[str, str, str]], signers: Mapping[str, str] | None,
    service: str | None = None, erased: Collection[str] = (),
) -> Iterator[Problem]:  # fmt: skip
    """Yield every opinion that the chain does not know, or knows otherwise, or that its analyst did not sign.

    events : scan, analyst and text of every event of an opinion, by its number; the others as in `check_decisions`
    """
    left = dict(events)
    for o in told:
        where = f"opinion {o.opinion_id} on {o.scan_id}"
        scan, who, text = left.pop(o.seq, ("", "", ""))
        if (scan, who) != (o.scan_id, o.analyst):
            yield Problem(o.seq, f"{where}: the audit has no event of {o.analyst}'s opinion")
        else:
            gone = o.scan_id in erased and not o.statement
            whys = _as_it_was(o, text, signers, service, erased=gone)
            yield from (Problem(o.seq, f"{where}: {why}") for why in whys)
    for seq, (scan, who, _) in left.items():
        yield Problem(seq, f"the audit tells of an opinion of {who} on {scan} that is not kept any more")


def _as_it_was(
    o: Opined, text: str, signers: Mapping[str, str] | None, service: str | None, *, erased: bool
) -> Iterator[str]:  # fmt: skip
    try:
        kept = msgspec.json.decode(o.opinion, type=Opinion)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield "it cannot be read any more"
        return
    verdict = str(kept.verdict)
    if (kept.opinion_id, kept.scan_id, kept.analyst) != o[:3]:
        yield "its parts differ from each other"
    if erased and not kept.note:
        if text.partition(" ")[0] != verdict:
            yield "its verdict is not what was said"
    elif erased:
        yield THERE_AGAIN
    elif text == opinion_text(o.opinion, verdict, signed=True):
        if signers is not None:
            yield from _against_its_signature(o, kept, signers, service)
    # before opinions were signed, their events had the note itself
    elif text not in (opinion_text(o.opinion, verdict, signed=False), one_line(f"{verdict} {kept.note}")):
        yield "it is not what was said"


def _is_nameless(d: Told) -> bool:
    try:
        return bool(d.statement) and not decode_statement(d.statement).service
    except ProtocolError:
        return False  # that is a problem of its own


def verify(
    database: Place, checkpoints: Path | None, signing: str | None, signers: Mapping[str, str] | None = None,
    service: str | None = None,
) -> Verified:  # fmt: skip
    """Check the audit of an outbox, which may be in use. Raises DataError if it cannot be read.

    checkpoints : the file in the second place; without it a chain that was cut off at its end seems whole
    signing : Ed25519 public key of the service
    signers : of everybody who ever was enrolled, by name
    service : CURVE public key of the service: decisions signed for another one are problems
    """
    problems: list[Problem] = []
    told, bad = read_checkpoints(checkpoints) if checkpoints is not None else ([], 0)
    if bad:
        problems.append(Problem(0, f"{bad} lines of {checkpoints} are no checkpoints"))
    named = {c.seq for c in told}
    hashes: dict[int, bytes] = {}
    events: Counter[tuple[str, str, str, str]] = Counter()
    opined: dict[int, tuple[str, str, str]] = {}
    erased: set[str] = set()
    last = 0

    def rows(reader: Reader) -> Iterator[Row]:
        nonlocal last
        query = "SELECT seq, utc_ns, kind, scan_id, who, text, hash FROM events ORDER BY seq"
        for row in map(Row._make, reader.rows(query)):
            last = max(last, row.seq)
            if row.seq in named:
                hashes[row.seq] = row.hash
            if row.kind in ("decided", "decision_not_applied"):
                events[row.kind, row.scan_id, row.who, row.text.partition(" ")[0]] += 1
            elif row.kind == "opinion":
                opined[row.seq] = row[3:6]
            elif row.kind == ERASED_EVENT:
                erased.add(row.scan_id)
            yield row

    try:
        with reading(database) as reader:
            problems += check_chain(rows(reader))
            query = (
                "SELECT decision_id, scan_id, analyst, verdict, decision, applied, statement, signature FROM decisions"
            )
            kept = [Told._make(row) for row in reader.rows(query)]
            problems += check_decisions(kept, events, signers, service, erased)
            query = "SELECT opinion_id, scan_id, analyst, opinion, seq, statement, signature FROM opinions"
            given = [Opined._make(row) for row in reader.rows(query)]
            problems += check_opinions(given, opined, signers, service, erased)
    except StorageError as error:
        raise DataError(f"{database}: the audit cannot be read ({error})") from error
    problems += check_checkpoints(hashes, last, told, signing)
    unproven = [o for o in given if not o.signature]
    gone = sum(d.scan_id in erased and not d.statement for d in kept)
    gone += sum(o.scan_id in erased and not o.statement for o in given)
    return Verified(
        last, len(told), signing is None, problems, len(kept), sum(map(_is_nameless, kept)),
        opinions=len(given), unsigned_opinions=sum(o.scan_id not in erased for o in unproven), erased=gone,
    )  # fmt: skip
