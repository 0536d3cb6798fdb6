"""The workstation behind the page: connections to services, opened scans, and decisions on their way.

A scan is shown only after its recording came whole, hashed to what was offered, and was read in the sandbox. What is
asked of a scan names its hash, and is refused if that is another. Undecided scans stay leased while they are open; when
the page has been gone for a while they go back. What comes next is fetched ahead without a lease: it waits for every
desk as before, and is claimed when it is opened here; only then is it known to be the same recording, and shown.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from scanner_io import recording_apart, wire
from scanner_io.client import Workstation
from scanner_io.errors import DataError, DeliveryError, NoAnswer, ScannerError, StorageError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Opinion, Scan, TriageResult, Verdict
from scanner_io.recording import SUFFIX
from scanner_io.security import Identity
from scanner_io.storage import make_folder, write_durable

from .events import Events
from .images import Pyramid, upright_box
from .journal import Entry, Journal, Made
from .training import ADDRESS as TRAINING
from .training import Training
from .views import add_findings, declared_view, findings_view, image_view, no_image, portal_view

POLL_S = 0.5
PAGES_AT_ONCE = 4
"""Pages of the queue behind the first one that are asked for in one turn: a service makes ten views a second for us."""
ANSWER_S = 5.0
AGAIN_S, AGAIN_MOST_S = 1.0, 60.0
"""Between two tries of a decision that was refused; doubled each time up to the second."""
AWAY_S = 120.0
"""Without a page for so long, undecided scans go back to the queue."""
HELD_SCANS = 4
"""Undecided scans one desk keeps leased: the open one, and those that were open just before it."""

SECOND = "second"
APART = frozenset({TRAINING, SECOND})
"""Services whose scans wait in a queue of their own, and whose decisions go to no lane."""

OpenState = Literal["claiming", "fetching", "reading", "ready", "failed", "lost"]


class Desk(Protocol):
    """What scans come from: a `Workstation`, or something that is asked the same; see there."""

    @property
    def silent_s(self) -> float:
        """See `Workstation`."""

    def connected(self, timeout_s: float = 5.0) -> bool:
        """See `Workstation`."""

    def queue(self, timeout_s: float = 5.0, *, after: str = "") -> wire.Queue:
        """See `Workstation`."""

    def claim(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """See `Workstation`."""

    def peek(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """See `Workstation`."""

    def has(self, offer: wire.Offer) -> None:
        """See `Workstation`."""

    def opine(
        self, offer: wire.Offer, verdict: Verdict, note: str, *, blind: bool = True, timeout_s: float = 10.0
    ) -> wire.Opined:  # fmt: skip
        """See `Workstation`."""

    def fetch(
        self, offer: wire.Offer, timeout_s: float = 60.0, *, progress: Callable[[int], None] | None = None
    ) -> memoryview:  # fmt: skip
        """See `Workstation`."""

    def decide(
        self, offer: wire.Offer, verdict: Verdict, *, note: str = "", codes: tuple[int, ...] = (),
        timeout_s: float = 30.0, decision_id: str | None = None, decided_utc_ns: int | None = None,
    ) -> wire.Decided:  # fmt: skip
        """See `Workstation`."""

    def release(self, offer: wire.Offer) -> None:
        """See `Workstation`."""

    def lost(self, offer: wire.Offer) -> str:
        """See `Workstation`."""

    def acted(self) -> None:
        """See `Workstation`."""

    def close(self) -> None:
        """See `Workstation`."""


class OpenScan:
    """A scan that is open at this desk, or on its way.

    mine : its lease is this desk's, and it can be decided; ahead : fetched before anybody asked, not seen yet
    opinions : of others, as far as this analyst may know them; signed : what proves those that are signed
    """

    def __init__(self, scan_id: str, address: str, *, ahead: bool) -> None:
        self.scan_id = scan_id
        self.address = address
        self.ahead = ahead
        self.mine = False
        self.state: OpenState = "claiming"
        self.error = ""
        self.have = 0
        self.offer: wire.Offer | None = None
        self.scan: Scan | None = None
        self.data: memoryview | None = None
        self.pyramids: tuple[Pyramid, ...] = ()
        self.meta: dict[str, Any] = {}
        self.opinions: tuple[Opinion, ...] = ()
        self.signed: tuple[wire.SignedOpinion, ...] = ()
        self.opened_utc_ns = 0
        self.used_s = time.monotonic()
        self.done = threading.Event()

    @property
    def nbytes(self) -> int:
        """Memory taken, bytes."""
        return sum(p.nbytes for p in self.pyramids) + (len(self.data) if self.data is not None else 0)

    def told(self) -> dict[str, Any]:
        """Return how far it is, as the page is told."""
        size = self.offer.size if self.offer is not None else 0
        return {"scan_id": self.scan_id, "state": self.state, "have": self.have, "size": size, "error": self.error,
            "ahead": self.ahead, "mine": self.mine}  # fmt: skip


class _Page(NamedTuple):
    """Some of a queue. after : the scan they follow; empty: they are the first"""

    after: str
    rows: tuple[wire.QueueRow, ...]


class _Service:
    """One service: its connection, and the threads that ask for its queue and send it decisions."""

    def __init__(self, station: Station, address: str, desk: Desk) -> None:
        self.address = address
        self.desk = desk
        self.wanted = 0
        """Rows that somebody at the page wants to see; the first page is asked for whatever is wanted."""
        self._pages: list[_Page] = []
        self._turn = 0
        self.rows: tuple[wire.QueueRow, ...] = ()
        self.counts: dict[str, int] = {}
        self.connected = False
        self.refused = ""
        self.alarm = ""
        self._station = station
        self._again: dict[str, tuple[float, float]] = {}
        self._threads = [
            threading.Thread(target=self._poll, name=f"queue {address}", daemon=True),
            threading.Thread(target=self._send, name=f"decisions {address}", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=10)

    def told(self) -> dict[str, Any]:
        silent = min(self.desk.silent_s, time.monotonic() - self._station.began_s)
        return {"address": self.address, "connected": self.connected, "silent_s": round(silent, 1),
            "refused": self.refused, "alarm": self.alarm, "counts": self.counts}  # fmt: skip

    # -------------------------------------------------------------------------------------------------- the queue

    def _poll(self) -> None:
        while not self._station.ending.wait(POLL_S):
            was = (self.connected, self.refused, self.alarm, self.rows, self.counts)
            try:
                self.desk.connected(0.01)
                queue = self.desk.queue(3.0)
                self.connected, self.refused = True, ""
                self.counts, self.alarm = queue.counts, queue.alarm
                self.rows = self._further(queue.rows)
            except NoAnswer:
                self.connected = False
            except DeliveryError as error:
                self.connected, self.refused = False, str(error)
            if (self.connected, self.refused) != was[:2]:
                self._station.told_service(self, lost=was[0] and not self.connected)
            elif not self.connected or self.alarm != was[2]:
                self._station.events.publish("services", services=self._station.services_told())
            if (self.rows, self.counts) != was[3:]:
                self._station.told_queue()
            self._station.look_at_leases(self)

    def _page(self, after: str) -> _Page | None:
        """Return what follows a scan; None where no answer comes, though the first page has just come."""
        try:
            return _Page(after, self.desk.queue(3.0, after=after).rows)
        except NoAnswer:
            return None

    def _further(self, first: tuple[wire.QueueRow, ...]) -> tuple[wire.QueueRow, ...]:
        """Return the first page and those behind it that are wanted, each scan once.

        A page is asked for again when it no longer follows the one before it, and in turn otherwise.
        """
        pages, left = [_Page("", first)], PAGES_AT_ONCE
        self._turn = self._turn + 1 if self._turn + 1 < len(self._pages) else 1
        while pages[-1].rows and sum(len(page.rows) for page in pages) < self.wanted:
            number, after = len(pages), pages[-1].rows[-1].scan_id
            page = self._pages[number] if number < len(self._pages) else None
            if page is None or page.after != after or number == self._turn:
                if left:
                    left -= 1
                    page = self._page(after) or page
                if page is None:
                    break
            pages.append(page)
        self._pages = pages
        found: dict[str, wire.QueueRow] = {}
        for page in pages:
            for row in page.rows:
                found.setdefault(row.scan_id, row)
        return tuple(found.values())

    # -------------------------------------------------------------------------------------------------- decisions

    def _send(self) -> None:
        while not self._station.ending.wait(0.1):
            for entry in self._station.journal.entries("held", "sending"):
                if entry.made.address != self.address or self._station.ending.is_set():
                    continue
                if entry.state == "held":
                    if time.time_ns() < entry.due_utc_ns:
                        continue
                    self._station.moved(entry.made.id, ("held",), "sending")
                if time.monotonic() >= self._again.get(entry.made.id, (0.0, 0.0))[0]:
                    self._try(entry)

    def _try(self, entry: Entry) -> None:
        made = entry.made
        try:
            decided = self._decide(made, made.id, made.lease_id)
            if not decided.applied:
                decided = self._once_more(made, decided)
        except NoAnswer:
            self._station.waiting(made.id, "")
            return
        except DeliveryError as error:
            wait_s = self._again.get(made.id, (0.0, AGAIN_S / 2))[1] * 2
            self._again[made.id] = (time.monotonic() + min(wait_s, AGAIN_MOST_S), min(wait_s, AGAIN_MOST_S))
            self._station.waiting(made.id, str(error))
            return
        self._again.pop(made.id, None)
        self._station.moved(
            made.id, ("sending",), "acknowledged" if decided.applied else "not_applied", decided.reason
        )  # fmt: skip
        self._station.settled(made.scan_id, decided)

    def _decide(self, made: Made, decision_id: str, lease_id: str) -> wire.Decided:
        return self.desk.decide(
            _lease(made, lease_id), made.verdict, note=made.note, codes=made.codes, timeout_s=ANSWER_S,
            decision_id=decision_id, decided_utc_ns=made.made_utc_ns,
        )  # fmt: skip

    def _once_more(self, made: Made, first: wire.Decided) -> wire.Decided:
        """Take the scan again where its lease ended on the way and nobody has it, and decide it by the same bytes."""
        try:
            offer = self.desk.claim(made.scan_id)
        except NoAnswer:
            raise
        except DeliveryError:
            return first
        if offer.sha256 != made.sha256:
            self.desk.release(offer)
            return first
        return self._decide(made, f"{made.id}-again", offer.lease_id)


def _lease(made: Made, lease_id: str) -> wire.Offer:
    """Return what `Workstation.decide` needs to know of the offer that a decision was made on."""
    nothing = TriageResult(
        scan_id=made.scan_id, outcome="REVIEW", reasons=(), load="unknown", container=None, findings=(), quality=(),
        gamma_alarm=None, neutron_alarm=None, gamma_intervals=0, alarm_intervals=0, profile="", code_version="",
    )  # fmt: skip
    return wire.Offer(
        scan_id=made.scan_id, lease_id=lease_id, lease_s=0, size=1, sha256=made.sha256, lane="", start_utc_ns=0,
        attempt=1, simulated=False, result=nothing,
    )  # fmt: skip


class Station:
    """One analyst's workstation. Thread-safe."""

    def __init__(
        self, addresses: tuple[str, ...], analyst: str, state_dir: Path, *, identities: tuple[Identity, ...] = (),
        memory_bytes: int = 1_500_000_000, keep_bytes: int = 2_000_000_000, hold_s: float = 5.0,
        training: Path | None = None, training_in_live: bool = False, second: Desk | None = None,
    ) -> None:  # fmt: skip
        """Connect to every service.

        identities : keys, one per address or one for all; none where services have no keys
        memory_bytes : for scans kept besides the one on the screen; hold_s : time in which a decision can be undone
        keep_bytes : of disk, for recordings that were open here, to compare later ones with; 0 keeps none
        training : folder of scans to train on; training_in_live : they are mixed into the live queue
        second : cleared scans that wait for a second reading, in a queue of their own

        Raises ConfigError for an address or folder that is none, StorageError if the journal cannot be used.
        """
        self.began_s = time.monotonic()
        self.analyst = identities[0].name if identities else analyst
        self.hold_s = hold_s
        self.events = Events()
        self.ending = threading.Event()
        self.journal = Journal(state_dir / "console.sqlite")
        self._memory_bytes = memory_bytes
        self._keep_bytes = keep_bytes
        self._seen_dir = state_dir / "seen"
        self.training: Training | None = None
        self.training_in_live = training_in_live
        self._lock = threading.RLock()
        self._open: dict[str, OpenScan] = {}
        self.current = ""
        given_on = self.journal.history(kinds=("opinion",), limit=5000)
        self._given_on = {line["scan_id"] for line in given_on if line["who"] == self.analyst}
        self._readers = ForeignFiles()
        self._readers.prepare(recording_apart.RECORDING)
        self._work = ThreadPoolExecutor(2, thread_name_prefix="opening")
        self.services: dict[str, _Service] = {}
        try:
            for number, address in enumerate(addresses):
                identity = identities[min(number, len(identities) - 1)] if identities else None
                desk = Workstation(address, "" if identity else analyst, capacity=0, identity=identity)
                self.services[address] = _Service(self, address, desk)
            if training is not None:
                self.training = Training(training, self.journal, self.analyst, self._readers)
                self.services[TRAINING] = _Service(self, TRAINING, self.training)
            if second is not None:
                self.services[SECOND] = _Service(self, SECOND, second)
        except ScannerError:
            self.close()
            raise
        for service in self.services.values():
            service.start()

    def close(self) -> None:
        """Disconnect; what is undecided goes back. Decisions that were not sent stay in the journal."""
        self.ending.set()
        self.events.close()
        for service in self.services.values():
            service.desk.close()
            service.join()
        self._work.shutdown(wait=True, cancel_futures=True)
        self._readers.close()
        self.journal.close()

    # ----------------------------------------------------------------------------------------------------- told

    def services_told(self) -> list[dict[str, Any]]:
        """Return how each connection is."""
        return [service.told() for service in self.services.values() if service.address not in APART]

    def told_service(self, service: _Service, *, lost: bool) -> None:
        """Pass on that a connection came or went."""
        kind = "disconnected" if lost else "connected" if service.connected else "refused"
        with suppress(StorageError):
            self.journal.note(self.analyst, kind, address=service.address, reason=service.refused)
        self.events.publish("services", services=self.services_told())

    def told_queue(self) -> None:
        """Pass on that the queue has changed."""
        self.events.publish("queue", **self.queue())

    def queue(self) -> dict[str, Any]:
        """Return the undecided scans of all services, and their counts."""
        rows: list[dict[str, Any]] = []
        counts: dict[str, int] = {}
        for service in self.services.values():
            for row in service.rows:
                values = msgspec.to_builtins(row)
                values |= {"start_utc_ns": str(row.start_utc_ns), "address": service.address,
                    "mine": row.analyst == self.analyst and row.state == "leased",
                    "given_on": row.scan_id in self._given_on,
                    "apart": self.apart(service.address)}  # fmt: skip
                rows.append(values)
            for name, number in service.counts.items():
                counts[name] = counts.get(name, 0) + number
        return {"rows": rows, "counts": counts}

    def apart(self, address: str) -> str:
        """Return which queue of its own a service's scans wait in; empty: the live one."""
        return address if address in APART and not (address == TRAINING and self.training_in_live) else ""

    def want(self, rows: int) -> None:
        """Hear how many rows of each queue somebody wants to see."""
        for service in self.services.values():
            service.wanted = rows

    # -------------------------------------------------------------------------------------------------- opening

    def open(self, scan_id: str, *, ahead: bool = False) -> OpenScan:
        """Take a scan and begin to fetch it; what is open already is only shown again.

        ahead : not for the screen yet, but for the next key: fetched, and not taken

        Raises DeliveryError if no service has it in its queue.
        """
        take = False
        with self._lock:
            known = self._open.get(scan_id)
            if known is not None and known.done.is_set() and not known.mine and scan_id in self._address_of:
                take = bool(known.meta) and not ahead
                if take:  # fetched ahead, lost or given back: its picture is here
                    known.done.clear()
                elif not known.meta:
                    self._open.pop(scan_id)
                    known = None
            if known is None:
                address = self._address_of.get(scan_id)
                if address is None:
                    raise DeliveryError(f"scan {scan_id[:80]}: is in no queue any more")
                known = self._open[scan_id] = OpenScan(scan_id, address, ahead=ahead)
                self._work.submit(self._fetch, known)
            known.used_s = time.monotonic()
            if not ahead:
                self._show(known)
        if take:
            self._take(known)
        self.events.publish("opening", **known.told())
        return known

    def _take(self, scan: OpenScan) -> None:
        """Claim a scan whose picture is here; fetch it again if its recording is another by now."""
        service = self.services[scan.address]
        assert scan.offer is not None
        try:
            scan.state, scan.error = "claiming", ""
            offer = service.desk.claim(scan.scan_id, 10.0)
        except ScannerError as error:
            self._failed(scan, str(error))
            scan.done.set()
            return
        same = offer.sha256 == scan.offer.sha256
        scan.offer, scan.mine, scan.opinions, scan.signed = offer, True, offer.opinions, offer.signed
        if not same:
            scan.meta, scan.pyramids, scan.scan = {}, (), None
            self._work.submit(self._fetch, scan)
            return
        service.desk.has(offer)
        scan.meta = self._meta(scan)  # by the judgement that is in force now
        self._step(scan, "ready")
        self._work.submit(self._remember, scan)
        scan.done.set()

    def _failed(self, scan: OpenScan, why: str) -> None:
        scan.error = why
        if not scan.ahead:
            with suppress(StorageError):
                self.journal.note(self.analyst, "not_opened", scan.scan_id, reason=why)
        self._step(scan, "failed")

    @property
    def _address_of(self) -> dict[str, str]:
        return {row.scan_id: s.address for s in self.services.values() for row in s.rows}

    def _show(self, scan: OpenScan) -> None:
        if self.current != scan.scan_id:
            self.current = scan.scan_id
            self.journal.note(self.analyst, "opened", scan.scan_id)
        scan.ahead = False
        if not scan.opened_utc_ns:
            scan.opened_utc_ns = time.time_ns()
        self._release_surplus()
        self._make_room()

    def _release_surplus(self) -> None:
        """Give back the oldest undecided scans that this desk keeps beyond what it may."""
        deciding = {e.made.scan_id for e in self.journal.entries("held", "sending")}
        kept = [s for s in self._open.values() if s.mine and s.scan_id not in deciding and s.scan_id != self.current]
        for scan in sorted(kept, key=lambda s: s.used_s)[: max(0, len(kept) - (HELD_SCANS - 1))]:
            self._give_back(scan)

    def _make_room(self, wanted: str = "") -> None:
        """Forget pictures but the open one and one more that is wanted, longest unused first, until the rest fits."""
        kept = (self.current, wanted)
        others = sorted((s for s in self._open.values() if s.scan_id not in kept), key=lambda s: s.used_s)
        taken = sum(s.nbytes for s in others)
        for scan in others:
            if taken <= self._memory_bytes:
                return
            if scan.done.is_set():
                taken -= scan.nbytes
                if scan.mine and not self._being_decided(scan.scan_id):
                    self._give_back(scan)
                self._open.pop(scan.scan_id, None)

    def _being_decided(self, scan_id: str) -> bool:
        return any(e.made.scan_id == scan_id for e in self.journal.entries("held", "sending"))

    def _fetch(self, scan: OpenScan) -> None:
        """Claim, fetch, read; without claiming it where it is fetched ahead. In a thread of the pool."""
        service = self.services[scan.address]
        ahead = scan.ahead
        try:
            if not scan.mine:
                ask = service.desk.peek if ahead else service.desk.claim
                scan.offer = ask(scan.scan_id, 10.0)
                scan.mine = bool(scan.offer.lease_id)
            assert scan.offer is not None
            scan.opinions, scan.signed = scan.offer.opinions, scan.offer.signed
            self._step(scan, "fetching")
            last_s = 0.0

            def progress(have: int) -> None:
                nonlocal last_s
                scan.have = have
                if time.monotonic() - last_s > 0.1:
                    last_s = time.monotonic()
                    self.events.publish("opening", **scan.told())

            scan.data = service.desk.fetch(scan.offer, 120.0, progress=progress)
            self._step(scan, "reading")
            self._read(scan)
        except ScannerError as error:
            if ahead and not scan.ahead:  # it was opened meanwhile, and nothing has been tried for that
                scan.offer = None
                self._fetch(scan)
                return
            if scan.offer is not None and scan.mine:  # somebody else may be able to
                service.desk.release(scan.offer)
                scan.mine = False
            self._failed(scan, str(error))
            scan.done.set()
            return
        with self._lock:
            if scan.ahead:
                self._step(scan, "ready")
                scan.done.set()
                return
        if scan.mine:
            self._step(scan, "ready")
            self._remember(scan)
            scan.done.set()
        else:  # it was opened while it was on its way
            self._take(scan)

    def _step(self, scan: OpenScan, state: OpenState) -> None:
        if scan.state != "lost":
            scan.state = state
        self.events.publish("opening", **scan.told())

    def _read(self, scan: OpenScan) -> None:
        assert scan.offer is not None and scan.data is not None
        recording = self._readers.recording_of(scan.data, f"recording of {scan.scan_id}")
        if recording.scan.scan_id != scan.scan_id:
            raise DataError(
                f"the recording that came for {scan.scan_id} is of {recording.scan.scan_id}: it is not shown; report it"
            )
        scan.scan = recording.scan
        radiograph = recording.scan.radiograph
        if radiograph is not None:
            energies = range(len(radiograph.detector.energies))
            scan.pyramids = tuple(Pyramid(radiograph, energy) for energy in energies)
            with ThreadPoolExecutor(len(scan.pyramids)) as together:  # numpy lets go of the interpreter
                list(together.map(Pyramid.make, scan.pyramids))
        scan.meta = self._meta(scan)

    def _meta(self, scan: OpenScan) -> dict[str, Any]:
        offer, recorded = scan.offer, scan.scan
        assert offer is not None and recorded is not None
        radiograph, result = recorded.radiograph, offer.result
        container, image = None, no_image()
        if radiograph is not None:
            container = None if result.container is None else upright_box(result.container, radiograph)
            image = image_view(radiograph, scan.pyramids, recorded.start_utc_ns, container)
        declaration = offer.declaration
        return {
            "scan_id": scan.scan_id, "sha256": offer.sha256, "lane": offer.lane, "address": scan.address,
            "simulated": offer.simulated or recorded.simulated,
            "apart": self.apart(scan.address),
            "start_utc_ns": str(recorded.start_utc_ns), "outcome": result.outcome, "load": result.load,
            "reasons": list(result.reasons), "profile": result.profile, "code_version": result.code_version,
            **image,
            "container": container,
            "findings": findings_view(offer, radiograph),
            "quality": [msgspec.to_builtins(q) for q in result.quality],
            "gamma_alarm": result.gamma_alarm, "neutron_alarm": result.neutron_alarm,
            "portal": recorded.portal is not None,
            "container_numbers": list(recorded.container_numbers),
            "declaration": None if declaration is None else msgspec.to_builtins(declaration),
            "declared_vs_seen": declared_view(recorded, result, declaration),
            "devices": [msgspec.to_builtins(d) for d in recorded.devices],
            "attempt": offer.attempt,
        }  # fmt: skip

    def _remember(self, scan: OpenScan) -> None:
        """Write down that a scan was open here, and keep its recording to compare later ones with."""
        offer, recorded = scan.offer, scan.scan
        assert offer is not None and recorded is not None and scan.data is not None
        if scan.address in APART:
            return
        numbers, chapters = _known_by(recorded, offer)
        self.journal.seen(
            scan.scan_id, offer.sha256, offer.lane, offer.start_utc_ns, numbers, chapters, offer.result.outcome,
            msgspec.json.encode(offer),
        )  # fmt: skip
        if self._keep_bytes < len(scan.data):
            return
        try:
            make_folder(self._seen_dir, 0o700)
            path = self._seen_dir / f"{offer.sha256}{SUFFIX}"
            if not path.exists():
                write_durable(path, scan.data)
            kept = sorted(self._seen_dir.glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
            room = self._keep_bytes
            for old in kept:
                room -= old.stat().st_size
                if room < 0:
                    old.unlink(missing_ok=True)
        except (OSError, StorageError) as error:  # the scan itself is fine
            self.events.publish("notice", level="warning", key="earlier.not_kept", text=str(error))

    def earlier(self, scan_id: str) -> dict[str, Any]:
        """Bring a scan that was open here before back, to look at beside another; return what is shown of it.

        Raises DeliveryError if its recording is not kept any more, DataError if it is not what it was.
        """
        with self._lock:
            scan = self._open.get(scan_id)
            if scan is None or not scan.meta:
                scan = self._from_disk(scan_id)
                self._open[scan_id] = scan
                self._make_room(scan_id)
            scan.used_s = time.monotonic()
        return self.meta(scan_id)

    def _from_disk(self, scan_id: str) -> OpenScan:
        blob = self.journal.seen_offer(scan_id)
        if blob is None:
            raise DeliveryError(f"scan {scan_id[:80]}: was never open at this desk")
        scan = OpenScan(scan_id, "", ahead=False)
        scan.offer = msgspec.json.decode(blob, type=wire.Offer)
        path = self._seen_dir / f"{scan.offer.sha256}{SUFFIX}"
        try:
            scan.data = memoryview(path.read_bytes())
        except OSError as error:
            raise DeliveryError(
                f"scan {scan_id}: its recording is not kept here any more ({error.strerror})"
            ) from error
        if hashlib.sha256(scan.data).hexdigest() != scan.offer.sha256:
            raise DataError(f"{path}: is not the recording that was seen; it is not shown")
        self._read(scan)
        scan.state = "ready"
        scan.done.set()
        return scan

    def meta(self, scan_id: str) -> dict[str, Any]:
        """Return what the page shows of an opened scan. Raises DeliveryError if it is not ready."""
        scan = self.ready(scan_id)
        assert scan.offer is not None
        assert scan.scan is not None
        numbers, chapters = _known_by(scan.scan, scan.offer)
        return {
            **scan.meta,
            "lease": {"mine": scan.mine, "analyst": self.analyst, "lease_id": scan.offer.lease_id},
            "regions": self.journal.kept(self.kept_as(scan_id), "regions", []),
            "draft": self.journal.kept(self.kept_as(scan_id), "draft"),
            "earlier": self.journal.earlier(scan_id, numbers, chapters),
            "opened_utc_ns": str(scan.opened_utc_ns),
            "opinions": self.opinions(scan_id),
        }

    def kept_as(self, scan_id: str) -> str:
        """Return by what name drawings and drafts are kept: second readers do not see those of the first one."""
        scan = self._open.get(scan_id)
        return f"{scan_id} {SECOND}" if scan is not None and scan.address == SECOND else scan_id

    # ------------------------------------------------------------------------------------------------- opinions

    def opinions(self, scan_id: str) -> list[dict[str, Any]]:
        """Return what other analysts said of a scan before they gave it on.

        A blind opinion says nothing but that there is one, until this analyst has decided and the service tells.
        """
        scan = self._open.get(scan_id)
        return [
            {"opinion_id": o.opinion_id, "who": o.analyst, "utc_ns": str(o.given_utc_ns), "hidden": o.verdict is None,
                "verdict": o.verdict, "note": o.note}
            for o in (scan.opinions if scan is not None else ())
        ]  # fmt: skip

    def give_opinion(self, scan_id: str, sha256: str, verdict: Verdict, note: str, *, blind: bool) -> None:
        """Commit what this analyst thinks at the service, undecided, and give the scan on.

        Raises DeliveryError if the scan is not this desk's or the service does not take it, DataError without a note.
        """
        if not note.strip():
            raise DataError("a second opinion is asked for with a note that says what is in doubt")
        with self._lock:
            scan = self.ready(scan_id, sha256)
            if not scan.mine or self._being_decided(scan_id):
                raise DeliveryError(f"scan {scan_id}: is not yours")
            scan.mine = False  # its lease ends by the service's doing, which is no loss
        assert scan.offer is not None
        try:
            self.services[scan.address].desk.opine(scan.offer, verdict, note, blind=blind)
        except ScannerError:
            scan.mine = not self.services[scan.address].desk.lost(scan.offer)
            raise
        self.journal.note(self.analyst, "opinion", scan_id, verdict=verdict, note=note, blind=blind, sha256=sha256)
        self._given_on.add(scan_id)
        self.told_queue()  # the service may have told of it before
        if self.current == scan_id:
            self.current = ""
        self.events.publish("opening", **scan.told())

    def portal(self, scan_id: str) -> dict[str, Any]:
        """Return the portal's series. Raises DeliveryError if the scan is not ready or has none."""
        scan = self.ready(scan_id)
        assert scan.scan is not None and scan.offer is not None
        if scan.scan.portal is None:
            raise DeliveryError(f"scan {scan_id}: no portal record came with it")
        view = portal_view(scan.scan.portal, scan.scan.start_utc_ns)
        add_findings(view, scan.meta["findings"])
        return {"scan_id": scan_id, "sha256": scan.offer.sha256, **view}

    def ready(self, scan_id: str, sha256: str | None = None) -> OpenScan:
        """Return an opened scan; raise DeliveryError if it is not here, or its recording hashes to something else."""
        scan = self._open.get(scan_id)
        if scan is None or not scan.meta or scan.offer is None:
            raise DeliveryError(f"scan {scan_id[:80]}: is not open here")
        if sha256 is not None and scan.offer.sha256 != sha256:
            raise DataError(
                f"scan {scan_id}: asked for with hash {sha256[:16]}…, its recording hashes to {scan.offer.sha256[:16]}…"
            )
        return scan

    def opening(self, scan_id: str) -> dict[str, Any] | None:
        """Return how far a scan is, None if it is not open here."""
        scan = self._open.get(scan_id)
        return scan.told() if scan is not None else None

    # --------------------------------------------------------------------------------------------------- leases

    def acted(self) -> None:
        """Hear that somebody has done something at the page."""
        for service in self.services.values():
            service.desk.acted()

    def release(self, scan_id: str) -> None:
        """Give an undecided scan back."""
        with self._lock:
            scan = self._open.get(scan_id)
            if scan is not None and scan.mine and not self._being_decided(scan_id):
                self._give_back(scan)
            if self.current == scan_id:
                self.current = ""

    def _give_back(self, scan: OpenScan) -> None:
        if scan.offer is not None:
            self.services[scan.address].desk.release(scan.offer)
        scan.mine = False
        with suppress(StorageError):
            self.journal.note(self.analyst, "given_back", scan.scan_id)
        self.events.publish("opening", **scan.told())

    def look_at_leases(self, service: _Service) -> None:
        """Notice leases that ended without this desk's doing, and give back what nobody is looking at."""
        away = time.monotonic() - self.events.alone_since_s > AWAY_S
        with self._lock:
            for scan in list(self._open.values()):
                if scan.address != service.address or not scan.mine or scan.offer is None:
                    continue
                why = service.desk.lost(scan.offer)
                if why and not self._being_decided(scan.scan_id):
                    scan.mine, scan.error = False, why
                    scan.state = "lost"
                    with suppress(StorageError):
                        self.journal.note(self.analyst, "lease_lost", scan.scan_id, reason=why)
                    self.events.publish("opening", **scan.told())
                elif away and not self._being_decided(scan.scan_id):
                    self._give_back(scan)

    # ------------------------------------------------------------------------------------------------ decisions

    def decide(
        self, decision_id: str, scan_id: str, sha256: str, verdict: Verdict, *, codes: tuple[int, ...] = (),
        note: str = "", regions: tuple[dict[str, Any], ...] = (),
    ) -> Entry:  # fmt: skip
        """Commit a decision to the journal; it goes out when its time to be undone is over.

        Raises DeliveryError if the scan is not this desk's, DataError if the hash is not that of what was shown or the
        decision is incomplete, StorageError if it cannot be kept.
        """
        known = self.journal.entry(decision_id)
        if known is not None:
            return known
        if verdict != "clear" and not note.strip():
            raise DataError(f"{verdict}: needs a note that says why")
        with self._lock:
            scan = self.ready(scan_id, sha256)
            assert scan.offer is not None
            if self._being_decided(scan_id):
                raise DeliveryError(f"scan {scan_id}: a decision on it is on its way already; undo it first")
            if not scan.mine:
                raise DeliveryError(
                    f"scan {scan_id}: is not yours any more: {scan.error or 'given back'}; open it again"
                )
            made = Made(
                id=decision_id, address=scan.address, scan_id=scan_id, sha256=sha256, analyst=self.analyst,
                verdict=verdict, made_utc_ns=time.time_ns(), lease_id=scan.offer.lease_id, codes=codes, note=note,
                regions=regions, opened_utc_ns=scan.opened_utc_ns, start_utc_ns=scan.offer.start_utc_ns,
                outcome=scan.offer.result.outcome,
            )  # fmt: skip
            entry = self.journal.add(made, self.hold_s)
            self.journal.keep(self.kept_as(scan_id), "draft", None)
        self.events.publish("decision", **decision_told(entry))
        return entry

    def undo(self, decision_id: str) -> Entry:
        """Take a decision back that has not been sent. Raises DeliveryError if it is too late."""
        entry = self.moved(decision_id, ("held",), "undone")
        if entry is None:
            raise DeliveryError(f"decision {decision_id[:40]}: is no longer held back and cannot be undone")
        return entry

    def give_up(self, decision_id: str) -> Entry:
        """Stop sending a decision that the lane refuses. Raises DeliveryError if it is not on its way."""
        known = self.journal.entry(decision_id)
        reason = known.reason if known is not None else ""
        entry = self.moved(decision_id, ("sending",), "refused", f"given up by {self.analyst}: {reason or 'no answer'}")
        if entry is None:
            raise DeliveryError(f"decision {decision_id[:40]}: is not on its way")
        return entry

    def moved(self, decision_id: str, before: tuple[Any, ...], after: Any, reason: str = "") -> Entry | None:
        """Bring a decision to another state, and tell."""
        entry = self.journal.move(decision_id, before, after, reason)
        if entry is not None:
            self.events.publish("decision", **decision_told(entry))
        return entry

    def waiting(self, decision_id: str, reason: str) -> None:
        """Tell that a decision is still on its way: refused for a reason, or without any answer."""
        entry = self.journal.entry(decision_id)
        if entry is not None and entry.state == "sending":
            if reason and reason != entry.reason:
                entry = self.journal.move(decision_id, ("sending",), "sending", reason) or entry
            self.events.publish("decision", **decision_told(entry))

    def feedback(self, scan_id: str) -> dict[str, Any]:
        """Return what a training scan really carried. Raises DeliveryError before it is decided, or if it is none."""
        carried = None if self.training is None else self.training.truth(scan_id)
        lines = self.journal.history(scan_id=scan_id, kinds=("training",))
        if carried is None or not lines:
            raise DeliveryError(f"scan {scan_id[:80]}: is no training scan that was decided")
        scan = self._open.get(scan_id)
        radiograph = scan.scan.radiograph if scan is not None and scan.scan is not None else None
        box = None
        if carried.threat_box is not None and radiograph is not None:
            box = upright_box(carried.threat_box, radiograph)
        return {"scan_id": scan_id, "threat": carried.threat, "box": box, **lines[0]["said"]}

    def settled(self, scan_id: str, decided: wire.Decided) -> None:
        """Note that a scan is decided: its lease is over, and what others thought of it may be known."""
        scan = self._open.get(scan_id)
        if scan is None:
            return
        scan.mine = False
        if decided.opinions:
            scan.opinions, scan.signed = decided.opinions, decided.signed
            self.events.publish("opinions", scan_id=scan_id, opinions=self.opinions(scan_id))


def _known_by(scan: Scan, offer: wire.Offer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the container numbers and declared chapters by which a scan is found again."""
    declaration = offer.declaration
    chapters = () if declaration is None else tuple(sorted({code[:2] for code in declaration.hs_codes}))
    return scan.container_numbers, chapters


def decision_told(entry: Entry) -> dict[str, Any]:
    """Return a decision as the page is told."""
    made = entry.made
    return {
        "id": made.id, "scan_id": made.scan_id, "sha256": made.sha256, "verdict": made.verdict,
        "codes": list(made.codes), "note": made.note, "state": entry.state, "reason": entry.reason,
        "due_utc_ms": entry.due_utc_ns // 1_000_000, "made_utc_ms": made.made_utc_ns // 1_000_000,
        "address": made.address, "apart": made.address if made.address in APART else "",
        "changed_utc_us": entry.changed_utc_ns // 1000,
    }  # fmt: skip
