"""Second readings of cleared scans: samples, who read what, and the audit of both."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import msgspec

from scanner_io.errors import DeliveryError, StorageError
from scanner_io.model import TriageResult, Verdict
from triage.analysis import quality_sample
from triage.analysis.quality_sample import Cleared, Read

from .outbox import Outbox
from .store import Place, reading

MACHINE = "machine"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample as it is kept: all that makes it again, and what it was.

    until_utc_ns : scans that were cleared later are not in it; cleared : how many there were
    scans : id and stratum of each, and how many cleared ones it stands for
    """

    sample: str
    algorithm: str
    seed: int
    part: float
    least: int
    since_utc_ns: int
    until_utc_ns: int
    cleared: int
    scans: tuple[tuple[Cleared, float], ...]


def cleared(place: Place, since_utc_ns: int, until_utc_ns: int) -> Iterator[Cleared]:
    """Yield the scans cleared in [since, until): by an analyst, or by the machine with nobody asked."""
    with reading(place) as reader:
        query = (
            "SELECT scan_id, lane, result, state, verdict, answered.analyst, committed_utc_ns, added_utc_ns FROM scans "
            "JOIN outbox USING (scan_id) LEFT JOIN (SELECT scan_id, verdict, analyst, committed_utc_ns FROM decisions "
            "WHERE applied<>0) AS answered USING (scan_id) WHERE state IN ('filed', 'decided') ORDER BY scan_id"
        )
        for scan_id, lane, blob, state, verdict, analyst, decided_ns, added_ns in reader.rows(query):
            at = added_ns if state == "filed" else decided_ns
            if (state == "decided" and verdict != "clear") or at is None or not since_utc_ns <= at < until_utc_ns:
                continue
            result = msgspec.json.decode(blob, type=TriageResult)
            texture = result.standing.cell[0] if result.standing is not None else f"load {result.load}"
            who = MACHINE if state == "filed" else analyst
            yield Cleared(scan_id=scan_id, lane=lane, texture=texture, analyst=who)


def draw(place: Place, seed: int, part: float, least: int, since_utc_ns: int, until_utc_ns: int) -> Sample:
    """Return a sample. Raises StorageError where nothing was cleared."""
    found = list(cleared(place, since_utc_ns, until_utc_ns))
    if not found:
        raise StorageError(f"{place}: no scan was cleared in that time; there is nothing to read again")
    return Sample(
        sample=f"q{seed}-{until_utc_ns}", algorithm=quality_sample.ALGORITHM, seed=seed, part=part, least=least,
        since_utc_ns=since_utc_ns, until_utc_ns=until_utc_ns, cleared=len(found),
        scans=tuple(quality_sample.sample(found, seed, part, least)),
    )  # fmt: skip


def record(outbox: Outbox, sample: Sample, who: str) -> None:
    """Keep a sample, and say so in the audit. Raises StorageError where there is one of that name."""
    with outbox.store.transaction():
        new = outbox.store.change(
            "INSERT INTO quality_samples VALUES (?, ?, ?) ON CONFLICT (sample) DO NOTHING",
            (sample.sample, time.time_ns(), msgspec.json.encode(sample)),
        )
        if not new:
            raise StorageError(f"sample {sample.sample} was kept before")
        outbox.event("quality_sample", who=who, text=f"{sample.sample}: {len(sample.scans)} of {sample.cleared}")


def samples(place: Place) -> list[Sample]:
    """Return the kept samples, oldest first."""
    with reading(place) as reader:
        rows = reader.rows("SELECT told FROM quality_samples ORDER BY utc_ns, sample")
        return [msgspec.json.decode(bytes(blob), type=Sample) for (blob,) in rows]


def read(outbox: Outbox, sample: str, scan_id: str, reader: str, verdict: Verdict, note: str) -> None:
    """Write down a second reading.

    Raises DeliveryError if the scan is not in the sample, was read, or its first reader is the second one.
    """
    with outbox.store.transaction():
        row = outbox.store.row("SELECT told FROM quality_samples WHERE sample=?", (sample,))
        if row is None:
            raise DeliveryError(f"there is no sample {sample[:80]!r} here")
        kept = msgspec.json.decode(bytes(row[0]), type=Sample)
        one = next((c for c, _ in kept.scans if c.scan_id == scan_id), None)
        if one is None:
            raise DeliveryError(f"scan {scan_id[:80]!r} is not in sample {sample}")
        if one.analyst == reader:
            raise DeliveryError(f"scan {scan_id}: {reader} cleared it; somebody else reads it again")
        new = outbox.store.change(
            "INSERT INTO second_readings VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (sample, scan_id) DO NOTHING",
            (sample, scan_id, reader, verdict, note, time.time_ns()),
        )
        if not new:
            raise DeliveryError(f"scan {scan_id} of sample {sample} was read before; the first reading stays")
        told = f" note sha256 {hashlib.sha256(note.encode()).hexdigest()}" if note else ""  # a policy may erase it
        outbox.event("second_reading", scan_id, reader, f"{sample} {verdict}{told}")


def to_read(place: Place, reader: str) -> dict[str, str]:
    """Return the sampled scans that nobody has read again and `reader` did not clear: scan -> sample, oldest first."""
    with reading(place) as archive:
        rows = archive.rows("SELECT sample, told FROM quality_samples ORDER BY utc_ns, sample")
        kept = [(name, msgspec.json.decode(bytes(told), type=Sample)) for name, told in rows]
        was_read = {(s, i) for s, i in archive.rows("SELECT sample, scan_id FROM second_readings")}
    found: dict[str, str] = {}
    for name, sample in kept:
        for one, _ in sample.scans:
            if one.analyst != reader and (name, one.scan_id) not in was_read:
                found.setdefault(one.scan_id, name)
    return found


def reading_of(place: Place, scan_id: str) -> tuple[str, str] | None:
    """Return who read a scan again last, and the verdict; None where nobody did."""
    with reading(place) as archive:
        query = "SELECT reader, verdict FROM second_readings WHERE scan_id=? ORDER BY utc_ns DESC"
        return next(((str(who), str(verdict)) for who, verdict in archive.rows(query, (scan_id,))), None)


def readings(place: Place, names: set[str] | None = None) -> list[Read]:
    """Return every sampled scan with what its second reader said. names : of samples; None: all"""
    kept = [s for s in samples(place) if names is None or s.sample in names]
    with reading(place) as reader:
        query = "SELECT sample, scan_id, reader, verdict FROM second_readings"
        told = {(s, i): (who, verdict) for s, i, who, verdict in reader.rows(query)}
    found = []
    for sample in kept:
        for one, weight in sample.scans:
            who, verdict = told.get((sample.sample, one.scan_id), ("", ""))
            found.append(Read(cleared=one, weight=weight, reader=who, verdict=verdict))
    return found


def again(place: Place, sample: Sample) -> bool:
    """Tell whether a kept sample comes out again.

    A scan that was cleared by the machine and is asked about later leaves the stratum it was in, so an archive that
    went on may give another sample; what was drawn stays kept.
    """
    if sample.algorithm != quality_sample.ALGORITHM:
        return False
    made = draw(place, sample.seed, sample.part, sample.least, sample.since_utc_ns, sample.until_utc_ns)
    return made.scans == sample.scans
