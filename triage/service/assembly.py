"""Events of a lane's devices -> scans: which radiograph, portal passage and declaration are of the same vehicle.

No I/O and no clock of its own: the caller says what time it is. A passage goes through the states of `TABLE`; an event
that has no place in a passage's state belongs to another passage, nearest in time and within the join window, or begins
a new one. A finished part waits `join_wait_s` for what is missing; then the scan goes on without it and says so,
because a silent portal or a missing image never reads as clear.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.errors import DataError
from scanner_io.formats import iso6346
from scanner_io.model import (
    MAX_PIXELS,
    CountBlock,
    Declaration,
    DeclarationMatch,
    DeclarationSeen,
    DetectorState,
    DeviceInfo,
    EndReason,
    Event,
    Kind,
    LaneEvent,
    LineBlock,
    Occupancy,
    PortalRecord,
    Quality,
    Radiograph,
    Rejected,
    Remark,
    Scan,
    ScanEnd,
    ScanStart,
)
from scanner_io.vendor_record import Attachment, Sidecar

WAITING, IMAGE, PORTAL, BOTH = "waiting", "image open", "portal open", "both open"
IMAGE_DONE, PORTAL_DONE = "image done", "portal done"
IMAGE_DONE_PORTAL, PORTAL_DONE_IMAGE, DONE = "image done, portal open", "portal done, image open", "done"

LOOSE_EVENTS = 1000
"""Events of small devices kept for a passage that is still to come."""
SPEEDS = 20_000
"""Readings of speed kept so: they come many times a second, and must not push the others out."""

IMAGE_START, IMAGE_END, ENTERED, LEFT, DECLARED = "image start", "image end", "entered", "left", "declared"

TABLE: dict[tuple[str, str], str] = {
    (WAITING, IMAGE_START): IMAGE,
    (WAITING, ENTERED): PORTAL,
    (IMAGE, IMAGE_END): IMAGE_DONE,
    (IMAGE, ENTERED): BOTH,
    (PORTAL, LEFT): PORTAL_DONE,
    (PORTAL, IMAGE_START): BOTH,
    (BOTH, IMAGE_END): IMAGE_DONE_PORTAL,
    (BOTH, LEFT): PORTAL_DONE_IMAGE,
    (IMAGE_DONE, ENTERED): IMAGE_DONE_PORTAL,
    (PORTAL_DONE, IMAGE_START): PORTAL_DONE_IMAGE,
    (IMAGE_DONE_PORTAL, LEFT): DONE,
    (PORTAL_DONE_IMAGE, IMAGE_END): DONE,
    **{(state, DECLARED): state for state in (WAITING, IMAGE, PORTAL, BOTH, IMAGE_DONE, PORTAL_DONE,
                                             IMAGE_DONE_PORTAL, PORTAL_DONE_IMAGE, DONE)},
}  # fmt: skip
OPEN = {IMAGE, PORTAL, BOTH, IMAGE_DONE_PORTAL, PORTAL_DONE_IMAGE}


class LaneSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What assembly must know of a lane. Times as in `scanner_io.config.Lane`."""

    name: str
    expected: tuple[Kind, ...]
    join_window_s: float = 5.0
    join_wait_s: float = 10.0
    passage_timeout_s: float = 60.0


class Listener(Protocol):
    """Who is told every block of lines that becomes part of a radiograph, in order."""

    def push(self, counts: tuple[npt.NDArray[Any], ...]) -> None:
        """Take the next columns, per energy (n, channels) uint16. Must not raise."""


class Assembled(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A scan, what must be acknowledged once it is stored: (device number, source reference), and who heard its lines.

    listener : of the radiograph, if there is one and somebody listened from its start
    """

    scan: Scan
    refs: tuple[tuple[int, str], ...]
    listener: Listener | None = None


class _Columns:
    """An image that grows by blocks of columns, of which there is never a second copy.

    Blocks that lie one behind the other in one array (a file's, a recording's) are put together where they are; others
    are copied into memory that grows in place.
    """

    def __init__(self) -> None:
        self._image: npt.NDArray[np.uint16] | None = None
        self._memory: mmap.mmap | None = None
        self._used = 0

    def add(self, block: npt.NDArray[np.uint16]) -> None:
        """Append (n, channels) uint16."""
        block = np.ascontiguousarray(block)
        if self._image is None and self._memory is None:
            self._image = block
        elif self._image is not None and (joined := _joined(self._image, block)) is not None:
            self._image = joined
        else:
            if self._image is not None:
                first, self._image = self._image, None
                self._copy(first)
            self._copy(block)

    def _copy(self, block: npt.NDArray[np.uint16]) -> None:
        end = self._used + block.nbytes
        if self._memory is None:
            self._memory = mmap.mmap(-1, max(2 * end, 1 << 20), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        elif end > len(self._memory):
            self._memory.resize(2 * end)  # pages move, nothing is copied, and only what is touched takes memory
        self._memory[self._used : end] = block.data.cast("B")
        self._used = end

    def image(self, channels: int) -> npt.NDArray[np.uint16]:
        """Return (columns, channels) uint16."""
        if self._memory is None:
            return np.empty((0, channels), np.uint16) if self._image is None else self._image
        return np.frombuffer(self._memory, np.uint16, self._used // 2).reshape(-1, channels)


def _joined(image: npt.NDArray[np.uint16], block: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16] | None:
    """Return both as one view of the array they are parts of; None if they do not follow each other in one."""
    whole = image.base
    if not isinstance(whole, np.ndarray) or block.base is not whole:
        return None
    if whole.dtype != np.uint16 or not whole.flags.c_contiguous or block.shape[1] != image.shape[1]:
        return None
    if block.ctypes.data != image.ctypes.data + image.nbytes:
        return None
    first = (image.ctypes.data - whole.ctypes.data) // whole.itemsize
    return whole.reshape(-1)[first : first + image.size + block.size].reshape(-1, image.shape[1])


class _Picture:
    """A radiograph in the making."""

    def __init__(self, start: ScanStart, listener: Listener | None) -> None:
        self.start = start
        self.listener = listener
        self.images = tuple(_Columns() for _ in start.detector.energies)
        self.times: list[npt.NDArray[np.int64]] = []
        self.positions: list[npt.NDArray[np.float64]] = []
        self.columns = 0
        self.dropped = 0
        self.quality: list[Quality] = []

    def add(self, block: LineBlock) -> None:
        """Append a block of lines; what does not fit is refused with a quality flag, never bent to fit."""
        detector = self.start.detector
        rows = block.counts[0].shape[0] if block.counts else 0
        shapes = {c.shape for c in block.counts} | {(rows, detector.channels)}
        types = {c.dtype for c in block.counts} | {np.dtype(np.uint16)}
        if len(block.counts) != len(detector.energies) or len(shapes) > 1 or len(types) > 1 or not rows:
            self._flag(
                "lines_malformed",
                f"a block of {[(c.shape, str(c.dtype)) for c in block.counts]} came, expected {len(detector.energies)} "
                f"of (columns, {detector.channels}) uint16",
            )
            return
        gap = block.first_column - self.columns - self.dropped
        if gap < 0:
            self._flag("lines_repeated", f"columns from {block.first_column} came again and were left out")
            return
        if (self.columns + rows) * detector.channels > MAX_PIXELS:
            self._flag("radiograph_too_long", f"cut at column {self.columns}: more than {MAX_PIXELS} pixels")
            return
        self.dropped += gap
        self.columns += rows
        for image, counts in zip(self.images, block.counts, strict=True):
            image.add(counts)
        self.times.append(block.column_utc_ns)
        if block.position_mm is not None:
            self.positions.append(block.position_mm)
        if self.listener is not None:
            self.listener.push(block.counts)

    def _flag(self, code: str, reason: str) -> None:
        if code not in {q.code for q in self.quality}:
            self.quality.append(Quality(code=code, reason=reason))

    def finish(self, reason: EndReason, dropped: int) -> tuple[Radiograph | None, list[Quality]]:
        """Return the radiograph and its flags; None with a fatal flag if there is none."""
        if not self.times:
            why = f"the scan ended ({reason}) without a single line"
            return None, [*self.quality, Quality(code="radiograph_empty", reason=why, fatal=True)]
        channels = self.start.detector.channels
        positions = np.concatenate(self.positions) if len(self.positions) == len(self.times) else None
        try:
            image = Radiograph(
                position_mm=positions,
                detector=self.start.detector,
                counts=tuple(image.image(channels) for image in self.images),
                column_utc_ns=np.concatenate(self.times),
                end_reason=reason,
                dropped_columns=max(self.dropped, dropped),
            )
        except (DataError, ValueError) as error:
            return None, [*self.quality, Quality(code="radiograph_malformed", reason=str(error), fatal=True)]
        return image, self.quality


class _Passage:
    """One vehicle on its way through the lane."""

    def __init__(self, utc_ns: int, now_s: float) -> None:
        self.state = WAITING
        self.first_utc_ns = self.last_utc_ns = utc_ns
        self.heard_s = now_s
        self.picture: _Picture | None = None
        self.picture_key: tuple[int, str] | None = None
        self.radiograph: Radiograph | None = None
        self.listener: Listener | None = None
        self.portal_device: int | None = None
        self.simulated = False
        self.portal: PortalRecord | None = None
        self.declaration: Declaration | None = None
        self.declaration_match: DeclarationMatch | None = None
        self.quality: list[Quality] = []
        self.refs: list[tuple[int, str]] = []
        self.devices: tuple[DeviceInfo, ...] = ()
        self.source = self.source_sha256 = ""
        self.sidecar: Sidecar | None = None
        self.attachments: tuple[Attachment, ...] = ()
        self.identity_utc_ns: int | None = None

    def step(self, event: str, utc_ns: int, now_s: float) -> None:
        """Take `event`. Raises DataError naming state and event if it has no place here."""
        after = TABLE.get((self.state, event))
        if after is None:
            raise DataError(f"passage in state {self.state!r} cannot take {event!r}")
        self.state = after
        self.first_utc_ns = min(self.first_utc_ns, utc_ns)
        self.last_utc_ns = max(self.last_utc_ns, utc_ns)
        self.heard_s = now_s

    def flag(self, quality: Iterable[Quality]) -> None:
        """Add flags; what is flagged already stays as it is."""
        have = {q.code for q in self.quality}
        self.quality += [q for q in quality if q.code not in have]

    def distance_ns(self, utc_ns: int) -> int:
        """Return how far `utc_ns` lies outside the time the passage has covered; 0 inside."""
        return max(self.first_utc_ns - utc_ns, utc_ns - self.last_utc_ns, 0)


class Assembly:
    """Joins one lane's events into scans."""

    def __init__(self, spec: LaneSpec, listen: Callable[[DetectorState], Listener | None] = lambda _: None) -> None:
        """Begin with nothing.

        listen : called at the start of every radiograph; returns who hears its lines, or None
        """
        self.spec = spec
        self._listen = listen
        self._passages: list[_Passage] = []
        self._devices: dict[int, DeviceInfo] = {}
        self._loose: deque[LaneEvent] = deque(maxlen=LOOSE_EVENTS)
        self._speeds: deque[LaneEvent] = deque(maxlen=SPEEDS)

    def device(self, number: int, info: DeviceInfo) -> None:
        """Learn which device stands behind `number`."""
        self._devices[number] = info

    def knows(self, number: int) -> bool:
        """Return True if device `number` has been open."""
        return number in self._devices

    @property
    def open_passages(self) -> int:
        """Passages not yet handed out."""
        return len(self._passages)

    def feed(self, number: int, event: Event, now_s: float) -> list[Assembled]:
        """Take an event of device `number` at monotonic time `now_s`; return the scans it completes."""
        match event:
            case ScanStart():
                self._start(number, event, now_s)
            case LineBlock():
                self._lines(number, event, now_s)
            case ScanEnd():
                self._end(number, event, now_s)
            case Rejected():
                self._rejected(number, event, now_s)
            case Occupancy():
                self._occupancy(number, event, now_s)
            case CountBlock():
                self._counted(number, event, now_s)
            case DeclarationSeen():
                passage = self._join(DECLARED, event.utc_ns, now_s, lambda p: p.declaration is None)
                passage.declaration = event.declaration
                self._refer(passage, number, event.source_ref)
            case LaneEvent():
                # it begins no passage: a camera sees more than vehicles that are scanned
                (self._speeds if event.kind == "speed" else self._loose).append(event)
            case Remark():
                passage = self._join(DECLARED, event.utc_ns, now_s)
                passage.flag(event.quality)
                passage.devices += event.devices
                passage.declaration_match = event.declaration_match
                self._refer(passage, number, event.source_ref)
            case _:
                pass  # readings between passages, health, end of source: of the lane, not of a scan
        return self._hand_out(now_s)

    def tick(self, now_s: float) -> list[Assembled]:
        """Let time pass; return the scans that will not wait longer."""
        for passage in self._passages:
            if passage.state in OPEN and now_s - passage.heard_s > self.spec.passage_timeout_s:
                self._break_off(passage, "timed_out")
        return self._hand_out(now_s)

    def lost(self, number: int, now_s: float, *, again: bool = False) -> list[Assembled]:
        """Device `number` has gone: end what it had open as `link_lost`.

        again : the device offers a scan that was not acknowledged once more; a half of it is dropped, not handed out
        """
        if again:
            self._forget_pictures({number})
        for passage in self._passages:
            if passage.picture_key is not None and passage.picture_key[0] == number and passage.picture is not None:
                self._finish_picture(passage, "link_lost", 0, passage.last_utc_ns, now_s)
            if passage.portal_device == number and (passage.state, LEFT) in TABLE:
                self._portal_gone(passage, "link_lost")
        return self._hand_out(now_s)

    def vanished(self, number: int, event: Occupancy, now_s: float) -> list[Assembled]:
        """An earlier process of this lane ended in the middle of an occupancy of device `number`: a scan without it."""
        passage = self._join(ENTERED, event.utc_ns, now_s)
        passage.portal_device, passage.simulated = number, event.simulated
        reason = "the lane's process ended in the middle of the passage; what the portal had counted is lost"
        passage.flag([Quality(code="portal_broken_off", reason=reason)])
        passage.step(LEFT, event.utc_ns, now_s)
        self._refer(passage, number, event.source_ref)
        return self._hand_out(now_s)

    def flush(self, again: set[int] = frozenset()) -> list[Assembled]:  # type: ignore[assignment]
        """Nothing more will come: hand out everything, except halves of scans that devices `again` offer once more."""
        self._forget_pictures(again)
        for passage in self._passages:
            if passage.state in OPEN:
                self._break_off(passage, "aborted")
        return self._hand_out(float("inf"))

    # ------------------------------------------------------------------------------------------------- internals

    def _join(self, event: str, utc_ns: int, now_s: float, fits: object = None) -> _Passage:
        """Return the passage that `event` at `utc_ns` belongs to, moved on by it."""
        window_ns = int(self.spec.join_window_s * 1e9)
        candidates = [
            p for p in self._passages
            if (p.state, event) in TABLE and p.distance_ns(utc_ns) <= window_ns and (not callable(fits) or fits(p))
        ]  # fmt: skip
        if candidates:
            passage = min(candidates, key=lambda p: (p.distance_ns(utc_ns), abs(p.first_utc_ns - utc_ns)))
        else:
            passage = _Passage(utc_ns, now_s)
            self._passages.append(passage)
        passage.step(event, utc_ns, now_s)
        return passage

    @staticmethod
    def _refer(passage: _Passage, number: int, source_ref: str) -> None:
        if source_ref and (number, source_ref) not in passage.refs:
            passage.refs.append((number, source_ref))

    def _open_picture(self, key: tuple[int, str]) -> _Passage | None:
        return next((p for p in self._passages if p.picture_key == key and p.picture is not None), None)

    def _start(self, number: int, event: ScanStart, now_s: float) -> None:
        for passage in self._passages:  # a device scans one vehicle at a time: what it had open is over
            if passage.picture is not None and passage.picture_key is not None and passage.picture_key[0] == number:
                self._finish_picture(passage, "aborted", 0, event.utc_ns, now_s)
        passage = self._join(IMAGE_START, event.utc_ns, now_s)
        passage.picture = _Picture(event, self._listen(event.detector))
        passage.picture_key = (number, event.source_ref)
        passage.identity_utc_ns = event.utc_ns
        self._describe(passage, event)
        self._refer(passage, number, event.source_ref)

    @staticmethod
    def _describe(passage: _Passage, event: ScanStart | Rejected) -> None:
        passage.source, passage.source_sha256 = event.source, event.source_sha256
        passage.sidecar, passage.attachments = event.sidecar, event.attachments
        passage.flag(event.quality)

    def _lines(self, number: int, event: LineBlock, now_s: float) -> None:
        passage = self._open_picture((number, event.source_ref))
        if passage is None or passage.picture is None:
            return  # of a scan that was cut off before; its flag is set already
        passage.picture.add(event)
        passage.heard_s = now_s
        if event.column_utc_ns.size:
            passage.last_utc_ns = max(passage.last_utc_ns, int(event.column_utc_ns[-1]))

    def _end(self, number: int, event: ScanEnd, now_s: float) -> None:
        passage = self._open_picture((number, event.source_ref))
        if passage is not None:
            self._finish_picture(passage, event.reason, event.dropped_columns, event.utc_ns, now_s)

    def _finish_picture(self, passage: _Passage, reason: EndReason, dropped: int, utc_ns: int, now_s: float) -> None:
        assert passage.picture is not None
        passage.radiograph, flags = passage.picture.finish(reason, dropped)
        if passage.radiograph is not None:
            passage.listener = passage.picture.listener
        passage.flag(flags)
        passage.picture = None
        passage.step(IMAGE_END, utc_ns, now_s)

    def _forget_pictures(self, devices: set[int]) -> None:
        """Drop the open pictures of `devices` as if they had never begun; what a portal gave to the passage stays."""
        for passage in self._passages:
            if passage.picture is None or passage.picture_key is None or passage.picture_key[0] not in devices:
                continue
            number = passage.picture_key[0]
            passage.picture = passage.picture_key = passage.identity_utc_ns = None
            passage.source = passage.source_sha256 = ""
            passage.sidecar, passage.attachments = None, ()
            passage.refs = [ref for ref in passage.refs if ref[0] != number]
            passage.step(IMAGE_END, passage.last_utc_ns, passage.heard_s)
            reason = "the image was broken off and its source gives it again; it is a scan of its own then"
            passage.flag([Quality(code="radiograph_missing", reason=reason)])
        self._passages = [p for p in self._passages if p.state != IMAGE_DONE or p.radiograph or p.declaration or p.refs
                          or "radiograph_missing" not in {q.code for q in p.quality}]  # fmt: skip

    def _counted(self, number: int, event: CountBlock, now_s: float) -> None:
        """A portal that counts a passage is not timed out, and covers the time it has counted."""
        if event.series not in ("gamma", "neutron"):
            return
        for passage in self._passages:
            if passage.portal_device == number and (passage.state, LEFT) in TABLE:
                passage.heard_s = now_s
                passage.last_utc_ns = max(passage.last_utc_ns, event.utc_ns)

    def _rejected(self, number: int, event: Rejected, now_s: float) -> None:
        passage = self._join(IMAGE_START, event.utc_ns, now_s)
        passage.identity_utc_ns = event.utc_ns
        self._describe(passage, event)
        passage.flag([Quality(code="radiograph_unreadable", reason=event.reason, fatal=True)])
        self._refer(passage, number, event.source_ref)
        passage.step(IMAGE_END, event.utc_ns, now_s)

    def _occupancy(self, number: int, event: Occupancy, now_s: float) -> None:
        mine = next((p for p in self._passages if p.portal_device == number and (p.state, LEFT) in TABLE), None)
        if event.phase == "entered":
            if mine is not None:
                self._portal_gone(mine, "aborted")
            passage = self._join(ENTERED, event.utc_ns, now_s)
            passage.portal_device, passage.simulated = number, event.simulated
            return
        if event.record is None:
            return
        if mine is None:  # its beginning was not heard, e.g. the lane was started in mid-passage
            mine = self._join(ENTERED, event.record.start_utc_ns, now_s)
            mine.portal_device = number
        passage = mine
        passage.portal = event.record
        passage.flag(event.quality)
        passage.step(LEFT, event.utc_ns, now_s)
        self._refer(passage, number, event.source_ref)

    @staticmethod
    def _portal_gone(passage: _Passage, reason: EndReason) -> None:
        """End an occupancy that left no record."""
        passage.flag(
            [Quality(code="portal_broken_off", reason=f"the portal was occupied and ended ({reason}) without a record")]
        )
        passage.step(LEFT, passage.last_utc_ns, passage.heard_s)

    def _break_off(self, passage: _Passage, reason: EndReason) -> None:
        if passage.picture is not None:
            self._finish_picture(passage, reason, 0, passage.last_utc_ns, passage.heard_s)
        if (passage.state, LEFT) in TABLE:
            self._portal_gone(passage, reason)

    def _complete(self, passage: _Passage) -> bool:
        """Everything that is expected has come, be it only as a flag that says it could not be read."""
        seen: set[Kind] = set()
        if passage.state in (IMAGE_DONE, DONE):
            seen.add("radiograph")
        if passage.state in (PORTAL_DONE, DONE):
            seen.add("portal")
        if passage.declaration is not None:
            seen.add("declaration")
        return passage.state not in OPEN and seen >= set(self.spec.expected)

    def _hand_out(self, now_s: float) -> list[Assembled]:
        ready = [
            p for p in self._passages
            if self._complete(p) or (p.state not in OPEN and now_s - p.heard_s > self.spec.join_wait_s)
        ]  # fmt: skip
        if ready:
            gone = set(map(id, ready))
            self._passages = [p for p in self._passages if id(p) not in gone]
        return [self._scan(p) for p in ready]

    def _scan(self, passage: _Passage) -> Assembled:
        present = {
            "radiograph": passage.radiograph, "portal": passage.portal, "declaration": passage.declaration,
        }  # fmt: skip
        quality = list(passage.quality)
        for kind in self.spec.expected:
            told = any(q.code.startswith(kind) for q in quality)
            if present[kind] is None and not told:
                quality.append(Quality(code=f"{kind}_missing", reason=f"this lane has a {kind}, but none came"))
        lane_events = self._claim(passage)
        told_codes = {q.code for q in quality}
        if passage.declaration_match is None:  # it was joined by what was read, errors of reading included
            quality += [q for q in _identity(passage.declaration, lane_events) if q.code not in told_codes]
        devices = {number for number, _ in passage.refs} | (
            {passage.portal_device} if passage.portal_device is not None else set()
        )
        start_utc_ns = passage.first_utc_ns
        if passage.portal is not None:
            start_utc_ns = min(start_utc_ns, passage.portal.start_utc_ns)
        identity_utc_ns = start_utc_ns if passage.identity_utc_ns is None else passage.identity_utc_ns
        scan = Scan(
            scan_id=make_scan_id(
                self.spec.name,
                identity_utc_ns,
                f"{passage.source} {passage.source_sha256}" if passage.source_sha256 else repr(passage.refs),
            ),
            lane=self.spec.name,
            start_utc_ns=start_utc_ns,
            end_utc_ns=max(passage.last_utc_ns, start_utc_ns),
            expected=self.spec.expected,
            radiograph=passage.radiograph,
            portal=passage.portal,
            declaration=passage.declaration,
            declaration_match=passage.declaration_match,
            devices=(*passage.devices, *(self._device(n, passage) for n in sorted(devices) if n in self._devices)),
            quality=tuple(quality),
            source=passage.source,
            source_sha256=passage.source_sha256,
            sidecar=passage.sidecar,
            lane_events=lane_events,
            attachments=passage.attachments,
        )
        return Assembled(scan=scan, refs=tuple(passage.refs), listener=passage.listener)

    def _claim(self, passage: _Passage) -> tuple[LaneEvent, ...]:
        """Return the events within the join window of a passage that are nearer to it than to any other here."""
        window_ns = int(self.spec.join_window_s * 1e9)

        def is_mine(event: LaneEvent) -> bool:
            near = passage.distance_ns(event.utc_ns)
            return near <= window_ns and all(near <= p.distance_ns(event.utc_ns) for p in self._passages)

        mine: list[LaneEvent] = []
        for kept in (self._loose, self._speeds):
            parted = [(is_mine(e), e) for e in kept]
            mine += [e for is_its, e in parted if is_its]
            kept.clear()
            kept.extend(e for is_its, e in parted if not is_its)
        return tuple(sorted(mine, key=lambda e: e.utc_ns))

    def _device(self, number: int, passage: _Passage) -> DeviceInfo:
        """Return a device; a portal whose own set-up says that it is a simulation is one."""
        device = self._devices[number]
        said = passage.simulated or (passage.portal is not None and passage.portal.simulated)
        if number == passage.portal_device and said:
            return msgspec.structs.replace(device, simulated=True, note="SIMULATED: by the portal's own set-up lines")
        return device


def _identity(declaration: Declaration | None, events: Iterable[LaneEvent]) -> list[Quality]:
    """Return a flag where cameras read only containers that the papers do not name."""
    declared = set() if declaration is None else set(declaration.container_numbers)
    read = {iso6346.tidy(e.text) for e in events if e.kind == "container"}
    if not declared or not read or read & declared:
        return []
    reason = f"read was {', '.join(sorted(read))}, declared is {', '.join(sorted(declared))}"
    return [Quality(code="identity_differs", reason=reason)]


def make_scan_id(lane: str, utc_ns: int, content: str) -> str:
    """Return `LANE-YYYYMMDDTHHMMSS.ffffffZ-xxxxxxxx`.

    The same source gives the same id again, so that a file offered twice (after a crash between storing it and
    acknowledging it) is recognised.
    """
    seconds, rest = divmod(utc_ns, 1_000_000_000)
    when = f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{rest // 1000:06d}Z"
    digest = hashlib.blake2b(f"{lane} {utc_ns} {content}".encode(), digest_size=4).hexdigest()
    return f"{lane}-{when}-{digest}"
