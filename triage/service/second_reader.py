"""Second readings at a workstation: the cleared scans of kept samples, asked of like a `scanner_io.client.Workstation`.

Blind: neither who cleared a scan nor what the machine found is told, so that the reading stands for itself. What the
reader says is kept beside the first decision, which it does not change; `scanlane quality report` tells how often they
differ. It reads and writes the archive itself, for which there is no message on the wire: a supervisor's right.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from scanner_io import wire
from scanner_io.errors import DeliveryError, StorageError
from scanner_io.model import TriageResult, Verdict

from . import quality
from .outbox import Item, Outbox
from .store import Place

_T = TypeVar("_T")

AGAIN_S = 5.0
"""So long a list of what is to be read is used."""


class SecondReader:
    """The second readings that one reader has before them. Thread-safe."""

    silent_s = 0.0
    """Seconds since the archive was last heard; as a file it is always here."""

    def __init__(self, place: Place, reader: str) -> None:
        """Look at the archive. Raises StorageError where it is none, or keeps no sample."""
        self._place, self._reader = place, reader
        self._lock = threading.Lock()
        self._offers: dict[str, wire.Offer] = {}
        self._left: dict[str, str] = {}
        self._until_s = 0.0
        if not quality.samples(place):
            raise StorageError(
                f"{place}: no sample of cleared scans is kept there; draw one by  "
                f"scanlane quality sample {place} --record"
            )

    def connected(self, timeout_s: float = 5.0) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Nothing is held open."""

    def lost(self, offer: wire.Offer) -> str:
        """Return why a scan is no longer this desk's: it always is."""
        return ""

    def acted(self) -> None:
        """Nothing: nobody else waits for these scans."""

    def has(self, offer: wire.Offer) -> None:
        """Nobody is waiting to hear it."""

    def release(self, offer: wire.Offer) -> None:
        """Give a scan back."""
        with self._lock:
            self._offers.pop(offer.scan_id, None)

    def left(self) -> dict[str, str]:
        """Return what this reader may read and nobody has read: scan -> sample, oldest sample first."""
        with self._lock:
            if time.monotonic() >= self._until_s:
                self._left = quality.to_read(self._place, self._reader)
                self._until_s = time.monotonic() + AGAIN_S
            return dict(self._left)

    def queue(self, timeout_s: float = 5.0, *, after: str = "") -> wire.Queue:
        """Return what is to be read. Raises DeliveryError if the archive cannot be read."""
        try:
            left = self.left()
        except StorageError as error:
            raise DeliveryError(str(error)) from error
        rows = tuple(
            wire.QueueRow(
                scan_id=scan_id, lane=scan_id.rsplit("-", 2)[0], outcome="REVIEW", start_utc_ns=0,
                state="leased" if scan_id in self._offers else "pending",
                analyst=self._reader if scan_id in self._offers else "", reasons=(),
            )
            for scan_id in left
        )  # fmt: skip
        return wire.Queue(rows=() if after else rows, counts={})

    def claim(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """Take one scan. Raises DeliveryError."""
        offer = msgspec.structs.replace(self.peek(scan_id), lease_id=uuid.uuid4().hex, lease_s=3600.0)
        with self._lock:
            self._offers[scan_id] = offer
        return offer

    def peek(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """Return what `claim` would, without taking the scan. Raises DeliveryError."""
        row = self._item(scan_id).row
        return wire.Offer(
            scan_id=scan_id, lease_id="", lease_s=0.0, size=row.size, sha256=row.sha256, lane=row.lane,
            start_utc_ns=row.start_utc_ns, attempt=1, simulated=row.simulated, result=untold(row.result),
            declaration=row.declaration,
        )  # fmt: skip

    def _item(self, scan_id: str) -> Item:
        if scan_id not in self.left():
            raise DeliveryError(f"scan {scan_id[:80]}: is not among the second readings of {self._reader}")
        return self._archive(lambda outbox: outbox.item(scan_id))

    def _archive(self, ask: Callable[[Outbox], _T]) -> _T:
        """Ask the archive something in this thread, to which its connection belongs. Raises DeliveryError."""
        try:
            outbox = Outbox(self._place, thorough=False)
            try:
                return ask(outbox)
            finally:
                outbox.close()
        except StorageError as error:
            raise DeliveryError(str(error)) from error

    def fetch(
        self, offer: wire.Offer, timeout_s: float = 60.0, *, progress: Callable[[int], None] | None = None
    ) -> memoryview:  # fmt: skip
        """Return the bytes of the recording. Raises DeliveryError where it is not kept any more, or is another."""
        path = Path(self._item(offer.scan_id).row.path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DeliveryError(f"{path}: cannot be read ({error}); is it still kept?") from error
        if hashlib.sha256(data).hexdigest() != offer.sha256:
            raise DeliveryError(f"{path}: is not the recording that was decided on; it is not shown")
        return memoryview(data)

    def decide(
        self, offer: wire.Offer, verdict: Verdict, *, note: str = "", codes: tuple[int, ...] = (),
        timeout_s: float = 30.0, decision_id: str | None = None, decided_utc_ns: int | None = None,
    ) -> wire.Decided:  # fmt: skip
        """Keep the reading; one that was kept before stays, and the same again is the same."""
        applied, reason = True, "second reading"
        sample = quality.to_read(self._place, self._reader).get(offer.scan_id)
        if sample is not None:
            self._archive(lambda outbox: quality.read(outbox, sample, offer.scan_id, self._reader, verdict, note))
        elif quality.reading_of(self._place, offer.scan_id) != (self._reader, verdict):
            applied, reason = False, "it was read before, or is in no sample; the first reading stays"
        with self._lock:
            self._offers.pop(offer.scan_id, None)
            self._left.pop(offer.scan_id, None)
        return wire.Decided(
            decision_id=decision_id or "", scan_id=offer.scan_id, durable=True, applied=applied, reason=reason
        )

    def opine(
        self, offer: wire.Offer, verdict: Verdict, note: str, *, blind: bool = True, timeout_s: float = 10.0
    ) -> wire.Opined:  # fmt: skip
        """Raise DeliveryError: a second reading is one's own."""
        raise DeliveryError(f"scan {offer.scan_id}: is a second reading, which is not given on: decide it yourself")


def untold(result: TriageResult) -> TriageResult:
    """Return a result without what was found, and without how it was filed, which says whether anybody was asked."""
    return msgspec.structs.replace(result, outcome="REVIEW", reasons=(), findings=(), load="unknown", standing=None)
