"""Linear detector arrays over TCP: a small documented frame protocol, for detectors that have none of their own.

All numbers are little-endian. A frame is a header of 48 bytes, a payload, and a checksum:

    offset  type    field
    0       4s      magic "SLN1"
    4       u8      kind: 1 begin, 2 lines, 3 end, 4 alive
    5       u8      energies, 1 or 2, low before high
    6       u16     channels
    8       u32     sequence: counts frames, also over scans, and wraps
    12      u32     scan: counts scans
    16      u32     first line: number of the first line of this frame in its scan; in kind 3 how many it had
    20      u16     lines in this frame; 0 in frames that carry none
    22      u16     flags: bit 0 beam on
    24      i64     time of the first line, ns since 1970 UTC; 0: not told, the time of arrival is taken, as it is for
                    a scan that begins further than `clock_error_s` from this machine's clock
    32      u32     line period, ns
    36      u32     payload length, bytes
    40      i64     encoder at the first line, counts; only differences matter
    48      ...     payload of kind 2: lines x i32, encoder of each line less that of the header;
                    then lines x energies x channels x u16, counts (large = air)
    48+n    u32     CRC-32 (zlib) of header and payload

A device sends `alive` at least every second when nothing else. Frames are never repeated: what is lost is lost,
counted, and flagged by the gap it leaves. After bytes that are no frame the next magic is looked for. What comes of a
scan after the link was lost, or whose `begin` was lost, is a scan of its own.
"""

from __future__ import annotations

import struct
import zlib
from typing import Annotated

import msgspec
import numpy as np

from scanner_io.channel import Channel
from scanner_io.driver import LinkDriver
from scanner_io.errors import ConfigError, DataError
from scanner_io.line_detector import LineDetector, LineScan
from scanner_io.model import DeviceInfo, EndReason, Event, Health, Kind

HEADER = struct.Struct("<4sBBHIIIHHqIIq")
MAGIC = b"SLN1"
BEGIN, LINES, END, ALIVE = 1, 2, 3, 4
MAX_PAYLOAD = 64 << 20
MOST_UNKNOWN = 4096
"""Payload, bytes, that is waited for although nothing in the header says that there is any."""
MOST_TOLD = 3
"""Damaged stretches told one by one; then at every power of two."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the detector is, and what its frames do not say.

    address : tcp://HOST:PORT
    mm_per_encoder_count : travel of the vehicle; without it, or at 0, positions are not told
    silence_s : without a byte for so long the link is taken for lost
    clock_error_s : a device's clock that is further from this machine's than this is not believed, and told
    """

    address: str
    detector: LineDetector = LineDetector()
    mm_per_encoder_count: Annotated[float, msgspec.Meta(ge=0, lt=1000)] = 0.0
    silence_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 5.0
    clock_error_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 10.0
    vendor: str = "unknown"


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives."""
    return ("radiograph",)


def connect(config: Config, channel: Channel | None) -> LinkDriver:
    """Return the driver, not opened."""
    if channel is None:
        raise ConfigError(["line_tcp: no channel; give an address such as tcp://10.0.3.9:7700"])
    info = DeviceInfo(vendor=config.vendor, model="line detector", kinds=kinds(config), address=config.address)
    return LinkDriver(channel, Decoder(config), info, config.silence_s)


class Header(msgspec.Struct, frozen=True):
    """Fields of a frame, in their order."""

    magic: bytes
    kind: int
    energies: int
    channels: int
    sequence: int
    scan: int
    first_line: int
    lines: int
    flags: int
    utc_ns: int
    period_ns: int
    payload: int
    encoder: int


def frame(kind: int, *, payload: bytes = b"", **fields: int) -> bytes:
    """Return a frame as a device sends it; fields not given are 0."""
    values = dict.fromkeys(Header.__struct_fields__[2:], 0) | fields | {"payload": len(payload)}
    packed = HEADER.pack(MAGIC, kind, *values.values()) + payload
    return packed + struct.pack("<I", zlib.crc32(packed))


class Decoder:
    """Bytes to events."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._energies = len(config.detector.energies)
        self._buffer = bytearray()
        self._scan: LineScan | None = None
        self._number = -1
        self._sequence: int | None = None
        self._skipped = self._damaged = 0
        self._clock_wrong = False
        self.lost_frames = 0
        """Frames known to be lost by the gaps in the sequence."""

    # ------------------------------------------------------------------------------------------- the decoder's contract

    def feed(self, data: bytes, utc_ns: int) -> list[Event]:
        """Take received bytes, in any pieces; return the events they complete."""
        self._buffer += data
        return self._frames(utc_ns, last=False)

    def _frames(self, utc_ns: int, *, last: bool) -> list[Event]:
        """Return the events of the frames in the buffer. last : what is not whole by now never will be"""
        events: list[Event] = []
        at = 0
        view = memoryview(self._buffer)
        try:
            while len(view) - at >= HEADER.size + 4:
                header = Header(*HEADER.unpack_from(view, at))
                end = at + HEADER.size + header.payload + 4
                if header.magic != MAGIC or header.payload > MAX_PAYLOAD:
                    at = self._resume(at)
                    continue
                if end > len(view):
                    if last or not _likely(header):
                        at = self._resume(at)
                        continue
                    break
                (told,) = struct.unpack_from("<I", view, end - 4)
                if zlib.crc32(view[at : end - 4]) != told:
                    at = self._resume(at)
                    continue
                events += self._damage(utc_ns)
                payload = view[at + HEADER.size : end - 4]
                events += self._take(header, payload, utc_ns)
                payload.release()
                at = end
        finally:
            view.release()
        del self._buffer[:at]
        return events

    def idle(self, utc_ns: int, silent_s: float) -> list[Event]:
        """Silence means nothing by itself: a device that is well says `alive`."""
        return []

    def lost(self, utc_ns: int) -> list[Event]:
        """The link is gone: end an open scan; the sequence begins anew, and so does the count of scans."""
        events = self._frames(utc_ns, last=True)
        self._skipped += len(self._buffer)
        self._buffer.clear()
        events += [*self._damage(utc_ns), *self._finish("link_lost", utc_ns)]
        self._sequence, self._number = None, -1
        return events

    # ----------------------------------------------------------------------------------------------------- one frame

    def _resume(self, at: int) -> int:
        """Return where the next frame may begin."""
        found = self._buffer.find(MAGIC, at + 1)
        if found < 0:  # the beginning of one may stand at the very end
            found = max(at + 1, len(self._buffer) - len(MAGIC) + 1)
        self._skipped += found - at
        return found

    def _damage(self, utc_ns: int) -> list[Event]:
        """Tell of bytes that were no frame, before the next good one."""
        if not self._skipped:
            return []
        skipped, self._skipped = self._skipped, 0
        self._damaged += 1
        if self._damaged > MOST_TOLD and self._damaged & (self._damaged - 1):
            return []
        text = f"{skipped} bytes were no whole frame and were left out ({self._damaged} times so far); check the cable"
        return [_health(utc_ns, text)]

    def _take(self, header: Header, payload: memoryview, utc_ns: int) -> list[Event]:
        events = self._count(header, utc_ns)
        if header.kind == BEGIN:
            events += self._begin(header, utc_ns)
        elif header.kind == LINES:
            if header.scan != self._number:  # the frame that began it was lost
                events += self._begin(header, utc_ns)
            events += self._block(header, payload, utc_ns)
        elif header.kind == END and header.scan == self._number:
            at_ns = utc_ns if self._clock_wrong else header.utc_ns or utc_ns
            events += self._finish("complete", at_ns, lines=header.first_line)
        elif header.kind not in (END, ALIVE):
            events.append(_health(utc_ns, f"a frame of unknown kind {header.kind} was left out; is the device newer?"))
        return events

    def _begin(self, header: Header, utc_ns: int) -> list[Event]:
        events = self._finish("aborted", utc_ns) + self._clock(header, utc_ns)
        ref = f"{header.scan}@{header.utc_ns or utc_ns}"
        self._number, self._scan = header.scan, LineScan(self._config.detector, ref, f"line_tcp scan {header.scan}")
        return events

    def _clock(self, header: Header, utc_ns: int) -> list[Event]:
        """Hold the device's clock against this machine's as a scan begins; for the whole scan one of them is taken."""
        off_s = (header.utc_ns - utc_ns) / 1e9 if header.utc_ns else 0.0
        before, self._clock_wrong = self._clock_wrong, abs(off_s) > self._config.clock_error_s
        if self._clock_wrong == before:
            return []
        if self._clock_wrong:
            text = (
                f"its clock is {abs(off_s):.1f} s {'ahead of' if off_s > 0 else 'behind'} this machine's; times of "
                "arrival are taken until it is right; set the device's clock"
            )
            return [_health(utc_ns, text)]
        return [Health(utc_ns=utc_ns, component="line_tcp", state="ok", text="its clock is right again")]

    def _count(self, header: Header, utc_ns: int) -> list[Event]:
        """Compare the sequence with what was expected."""
        before, self._sequence = self._sequence, header.sequence
        if before is None:
            return []
        missing = (header.sequence - before - 1) % (1 << 32)
        if not missing:
            return []
        if missing >= 1 << 31:
            return [_health(utc_ns, f"frame {header.sequence} came after {before}: repeated, or the device restarted")]
        self.lost_frames += missing
        return [
            _health(utc_ns, f"{missing} frames are lost before frame {header.sequence} ({self.lost_frames} so far)")
        ]

    def _block(self, header: Header, payload: memoryview, utc_ns: int) -> list[Event]:
        if self._scan is None:  # of a scan that was ended already
            return []
        wanted = header.lines * (4 + 2 * header.energies * header.channels)
        if header.energies != self._energies or not header.lines or not header.channels or len(payload) != wanted:
            text = (
                f"lines {header.first_line}: {header.lines} lines of {header.energies} energies and {header.channels} "
                f"channels in {len(payload)} bytes; configured are {self._energies} energies"
            )
            return [*self._finish("aborted", utc_ns), _health(utc_ns, text)]
        if header.first_line < self._scan.next_line:
            return [_health(utc_ns, f"lines from {header.first_line} came again and were left out")]
        offsets = np.frombuffer(payload[: 4 * header.lines], "<i4")
        shape = (header.lines, header.energies, header.channels)
        values = np.frombuffer(payload[4 * header.lines :], "<u2").reshape(shape)
        # copies, not views of a buffer that is used again
        counts = tuple(values[:, e].astype(np.uint16, order="C") for e in range(header.energies))
        period_ns = header.period_ns or 1
        arrived_ns = utc_ns - period_ns * header.lines
        first_ns = arrived_ns if self._clock_wrong else header.utc_ns or arrived_ns
        times = first_ns + period_ns * np.arange(header.lines, dtype=np.int64)
        position = None
        if self._config.mm_per_encoder_count:
            position = (header.encoder + offsets.astype(np.float64)) * self._config.mm_per_encoder_count
        try:
            return self._scan.add(counts, times, first=header.first_line, position_mm=position)
        except (DataError, ValueError) as error:
            return [*self._finish("aborted", utc_ns), _health(utc_ns, str(error))]

    def _finish(self, reason: EndReason, utc_ns: int, lines: int = 0) -> list[Event]:
        """End the open scan. lines : how many it had, by the device's word"""
        scan, self._scan = self._scan, None
        return [] if scan is None else scan.end(reason, utc_ns, lines=lines)


def _likely(header: Header) -> bool:
    """Return whether so long a payload is worth waiting for: else one bit of the length stalls a lane.

    What is some times longer than the header's other fields say is waited for: it may be a frame that says them wrong,
    which is to be told of by what is wrong with it.
    """
    said = header.lines * (4 + 2 * header.energies * header.channels) if header.kind == LINES else 0
    return header.payload <= MOST_UNKNOWN + 4 * said


def _health(utc_ns: int, text: str) -> Health:
    return Health(utc_ns=utc_ns, component="line_tcp", state="degraded", text=text)
