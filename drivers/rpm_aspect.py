"""Aspect radiation portal monitors over Modbus TCP.

The portal is the server and is polled: function 3 on a description block (address 0, 8 registers), which names the
monitor block (usually address 100, 21 registers). `Decoder` turns monitor blocks into events without any I/O;
`AspectDriver` asks for them over a TCP channel, with pymodbus as the codec of requests and answers.

**Not verified**, for no recording of such a portal is known: whether counts are those of an interval or run on
(setting `counts`), the unit of the backgrounds (`background_per`), the unit of the device time (only its direction is
used), and whether the object counter moves at entry or at exit (`counter_moves`; learned where it is not set). The
vendor's alarm and fault bits do not depend on any of these.

Source: register map of OSCAR's Aspect driver (public portal system); Modbus Application Protocol V1.1b3, 6.3; Modbus
Messaging on TCP/IP V1.0b, 3.1.
"""

from __future__ import annotations

import math
import struct
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct
from pymodbus.framer import FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest

from scanner_io.channel import Channel, open_channel
from scanner_io.driver import SteadyClock
from scanner_io.errors import ConfigError, LinkLost, ProtocolError, ScannerError
from scanner_io.model import (
    NANOSECONDS,
    CountBlock,
    DeviceInfo,
    EndReason,
    Event,
    Health,
    Kind,
    Occupancy,
    PortalCount,
    PortalRecord,
)

DESCRIPTION_ADDRESS, DESCRIPTION_REGISTERS = 0, 8
USUAL_BASE, USUAL_LENGTH = 100, 21
MAX_READ_REGISTERS = 125
"""Registers that one answer to function 3 can hold."""
PUBLISH_EVERY_NS = 5 * NANOSECONDS
"""A vacant portal's background is told this often."""
MAX_READINGS = 20_000
"""Readings of the longest passage, about an hour at 0.2 s: one that stands longer is ended and begun again."""
LONGEST_ADU = 260
"""Bytes of the longest Modbus TCP message; a header that announces more is not Modbus."""
MISSED_S = 0.6
"""Readings further apart than this, and than three intervals, have others missing between them."""

ALARM, LOW, HIGH, OVERLOAD, READY = 0x03, 0x10, 0x20, 0x40, 0x80
"""Bits of a channel status word; ALARM is Alarm1 or Alarm2."""
OCCUPANCY_SENSORS = 0x0F
"""Bits of the input word: any of the four sensors means occupied."""
WARN_MASK, FAIL_MASK = 0x8500, 0x0A00
"""Bits of the input word that limit, and that forbid, trust in the device."""
INPUT_FAULTS = {
    0x0100: ("power", "power_fail", "mains power has failed"),
    0x0200: ("battery", "low_battery", "battery low"),
    0x0400: ("tamper", "open", "cabinet open"),
    0x0800: ("device", "device_error", "the device reports an error"),
    0x8000: ("reset", "device_reset", "the device reports a reset"),
}
"""Bit of the input word: component, fault of a record, words."""
OUTPUT_ALARM = 0x01
LATE_COUNT_NS = 3 * NANOSECONDS
"""A counter that moves so soon after a passage without a number, with nothing in the portal, has counted that one."""

ChannelState = Literal["alarm", "low", "high", "background"]


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One portal.

    address : tcp://HOST:PORT, the port is usually 502
    first_unit, last_unit : Modbus unit ids that are asked at the first opening, both included
    signature : register 0 of the description block, where the site knows it: another is refused
    occupied_poll_s : seconds between readings while occupied or in alarm; the length of a record's intervals
    vacant_poll_s : the same in vacancy. A vehicle is seen so much late (at 5 s it may have passed), so it is no longer
        than `occupied_poll_s` unless the site wants it so; backgrounds are told every 5 s whatever it is
    answer_s : a request without an answer for so long means the link is gone
    scan_answer_s : wait for each unit id at the first opening, before the next one is asked
    refused_s : exceptions and incomplete answers for so long, without a good one, end the link
    frozen_s : a device time that stands still for so long is a fault
    hold_in_s : a passage ends when the portal was neither occupied nor in alarm for so long
    counter_moves : when the object counter moves, at the `entry` or at the `exit` of an object; `unknown`: learned from
        moves that leave no doubt. It decides only where two objects are parted between which the sensors saw no gap.
        Not verified
    counts : `interval`, each reading is the count of one interval; `cumulative`, counts run on and the record holds
        their differences. Not verified
    background_per : unit of the device's backgrounds, counts per `interval` (as counts and background stand side by
        side in the block) or per `second`. Not verified
    neutron : the portal has a neutron channel; False: its registers are not read
    serial : the portal's serial number, where the site wants it in its records
    simulated : the peer is a simulation, and everything it gives is labelled so
    """

    address: str
    first_unit: Annotated[int, Meta(ge=0, le=247)] = 1
    last_unit: Annotated[int, Meta(ge=0, le=247)] = 32
    signature: Annotated[int, Meta(ge=0, le=0xFFFF)] | None = None
    occupied_poll_s: Annotated[float, Meta(ge=0.02, le=5.0)] = 0.2
    vacant_poll_s: Annotated[float, Meta(ge=0.02, le=5.0)] = 0.2
    answer_s: Annotated[float, Meta(ge=0.05, le=10.0)] = 1.0
    scan_answer_s: Annotated[float, Meta(ge=0.01, le=2.0)] = 0.1
    refused_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 2.0
    frozen_s: Annotated[float, Meta(ge=1, le=3600)] = 30.0
    hold_in_s: Annotated[float, Meta(ge=0.0, le=10.0)] = 1.0
    counter_moves: Literal["unknown", "entry", "exit"] = "unknown"
    counts: Literal["interval", "cumulative"] = "interval"
    background_per: Literal["interval", "second"] = "interval"
    neutron: bool = True
    serial: str = ""
    simulated: bool = False

    def __post_init__(self) -> None:
        """Check what a type cannot say. Raises ValueError, which the configuration reader turns into its place."""
        try:
            open_channel(self.address)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.address.startswith("serial:"):
            raise ValueError(f"address {self.address!r}: expected tcp://HOST:PORT, for this is Modbus TCP")
        if self.first_unit > self.last_unit:
            raise ValueError(f"first_unit {self.first_unit}, expected at most last_unit {self.last_unit}")
        if self.counts == "cumulative" and self.vacant_poll_s > self.occupied_poll_s:
            raise ValueError(
                f"vacant_poll_s {self.vacant_poll_s:g}, expected at most occupied_poll_s {self.occupied_poll_s:g}: "
                "the first difference of cumulative counts would cover the longer time"
            )


# --------------------------------------------------------------------------------------------------------------
# Blocks


class Description(NamedTuple):
    """The description block: which registers hold the monitor block."""

    signature: int
    registers: int
    monitor_id: int
    base: int
    length: int


class Block(NamedTuple):
    """One reading of the monitor block, its 14 fields in order."""

    device_time: int
    inputs: int
    gamma_status: int
    gamma_count: int
    gamma_background: float
    gamma_variance: float
    neutron_status: int
    neutron_count: int
    neutron_background: float
    neutron_variance: float
    objects: int
    mark: int
    speed_mm_s: int
    outputs: int

    @property
    def occupied(self) -> bool:
        """Any of the four occupancy sensors."""
        return bool(self.inputs & OCCUPANCY_SENSORS)

    def line(self) -> str:
        """Return the 14 fields joined by commas, as a daily file holds them; nine digits keep an f32 exactly."""
        return ",".join(f"{v:.9g}" if isinstance(v, float) else str(v) for v in self)


def _registers(what: str, registers: Sequence[int], count: int) -> None:
    if len(registers) != count:
        raise ProtocolError(
            f"{what}: {len(registers)} registers, expected {count}; check the unit id and the portal's firmware"
        )
    for position, value in enumerate(registers):
        if not 0 <= value <= 0xFFFF:
            raise ProtocolError(f"{what}, register {position}: {value}, expected 0 to 65535")


def parse_description(registers: Sequence[int]) -> Description:
    """Return the description block of 8 registers, checked for use. Raises ProtocolError."""
    _registers("description block", registers, DESCRIPTION_REGISTERS)
    found = Description(*registers[:5])
    if not USUAL_LENGTH <= found.length <= MAX_READ_REGISTERS or found.base + USUAL_LENGTH > 0x10000:
        raise ProtocolError(
            f"description block {list(registers)}: monitor block at {found.base} of {found.length} registers, expected "
            f"usually {USUAL_BASE} and {USUAL_LENGTH}; this is no Aspect portal, or one with another register map"
        )
    return found


def _moved_by(before: int, objects: int) -> int:
    """Return how many objects a 16-bit counter has counted: it may have wrapped, or have begun again from 0."""
    if objects >= before:
        return objects - before
    return objects - before + 0x10000 if before > 0xFF00 else objects


def parse_block(registers: Sequence[int]) -> Block:
    """Return a monitor block of 21 registers.

    32-bit values have their low word first and are unsigned. Raises ProtocolError for another number of registers.
    """
    _registers("monitor block", registers, USUAL_LENGTH)

    def whole(at: int) -> int:
        return registers[at] | registers[at + 1] << 16

    def real(at: int) -> float:
        return float(struct.unpack(">f", struct.pack(">HH", registers[at + 1], registers[at]))[0])

    r = registers
    return Block(
        whole(0), r[2], r[3], whole(4), real(6), real(8),
        r[10], whole(11), real(13), real(15), r[17], r[18], r[19], r[20],
    )  # fmt: skip


def iso_s(utc_ns: int) -> str:
    """Return an instant to the second, e.g. `2026-01-31T09:45:01Z`."""
    return f"{datetime.fromtimestamp(utc_ns // NANOSECONDS, UTC):%Y-%m-%dT%H:%M:%SZ}"


def channel_state(status: int) -> ChannelState:
    """Return what a channel status word says; an alarm comes before a low, a low before a high fault."""
    if status & ALARM:
        return "alarm"
    if status & LOW:
        return "low"
    return "high" if status & HIGH else "background"


def channel_faults(name: str, status: int) -> dict[str, str]:
    """Return a channel's faults, code to words, the gravest first. An alarm does not hide them."""
    found = {}
    if status & LOW:
        found[f"{name}_low"] = f"{name} counts low"
    if status & HIGH:
        found[f"{name}_high"] = f"{name} counts high"
    if status & OVERLOAD:
        found[f"{name}_overload"] = f"{name} channel overloaded"
    if not status & READY:
        found[f"{name}_not_ready"] = f"{name} channel not ready"
    return found


# --------------------------------------------------------------------------------------------------------------
# Decoder


class _Reading(NamedTuple):
    """One reading of the open occupancy. gamma, neutron : counts, None for a reading that only begins a difference."""

    block: Block
    arrival_ns: int
    gamma: int | None
    neutron: int | None
    gamma_alarm: bool
    neutron_alarm: bool


class _Passage:
    """What is known of the open occupancy. Private to the decoder, thrown away when it ends.

    counted_at : readings that it had when the counter moved for it, 0 if that began it; None: not yet
    counted_clear : the sensors were clear at that reading
    base : the reading before the first, of cumulative counts
    """

    def __init__(self, source_ref: str, utc_ns: int, boot_epoch: int) -> None:
        self.source_ref = source_ref
        self.start_ns = self.last_ns = utc_ns
        self.boot_epoch = boot_epoch
        self.number: int | None = None
        self.counted_at: int | None = None
        self.counted_clear = False
        self.gamma_background: npt.NDArray[np.float64] | None = None
        self.neutron_background: npt.NDArray[np.float64] | None = None
        self.base: Block | None = None
        self.readings: list[_Reading] = []
        self.faults: dict[str, None] = {}  # an ordered set
        self.clear_readings = 0

    def count(self, block: Block, boot_epoch: int) -> None:
        """The counter has moved, and that was this object."""
        self.number, self.boot_epoch = block.objects, boot_epoch
        self.counted_at, self.counted_clear = len(self.readings), not block.occupied

    def part(self, at: int, source_ref: str) -> _Passage:
        """Keep the readings before `at`; return the object that the others belong to."""
        first = self.readings[at]
        other = _Passage(source_ref, first.arrival_ns, self.boot_epoch)
        other.gamma_background, other.neutron_background = self.gamma_background, self.neutron_background
        other.faults = dict(self.faults)
        other.base = self.base and self.readings[at - 1].block
        other.readings, self.readings = self.readings[at:], self.readings[:at]
        other.last_ns, other.clear_readings = self.last_ns, self.clear_readings
        self.last_ns = self.readings[-1].arrival_ns
        return other

    def raw_lines(self) -> tuple[str, ...]:
        """Return the blocks as read, in the form of a daily file."""
        base = () if self.base is None else (f"[base] {self.base.line()}",)
        return (*base, *(r.block.line() for r in self.readings if r.gamma is not None))


class Decoder:
    """Monitor blocks to events, without I/O. State (background, faults, counter) outlives a link.

    A passage begins with a move of the object counter, an occupancy sensor, a channel alarm, or the alarm output coming
    on in vacancy. It ends `complete` when all is clear for `hold_in_s`, or when the counter moves again; `aborted` when
    the device was restarted (its time went back: a new boot epoch); `timed_out` when it stands for too long;
    `link_lost`.

    Every object is counted once, be it at its entry or at its exit: the first move during a passage is that object's
    own, and with the next one a second object is there (`_another`). A move shortly after a passage that had none is
    its own too, if nothing is in the portal then.

    The record's faults are the device's (see `channel_faults` and `INPUT_FAULTS`), in force at entry or seen since, and
    `start_not_seen`, `readings_lost`, `passages_missed` (the counter moved by more than one), `no_occupancy_signal` (no
    sensor saw it), `alarm_output` (on without a channel alarm), `alarm_without_counts`, `background_unusable`,
    `count_stepped` (a cumulative count fell), `frozen`, `clock_stepped`, `too_long`.

    A record's number is the object counter after its move; None where it had not moved when the passage ended.
    """

    def __init__(self, config: Config) -> None:
        self._cumulative = config.counts == "cumulative"
        self._interval_ns = round(config.occupied_poll_s * NANOSECONDS)
        self._interval_s = config.occupied_poll_s
        self._per_s = 1.0 / config.occupied_poll_s if config.background_per == "interval" else 1.0
        self._hold_readings = max(1, math.ceil(config.hold_in_s / config.occupied_poll_s))
        self._moves = config.counter_moves
        self._unnumbered_ns: int | None = None  # end of the last passage, if it had no number
        self._resumed: PortalCount | None = None
        self._frozen_ns = round(config.frozen_s * NANOSECONDS)
        self._neutron = config.neutron
        self._passage: _Passage | None = None
        self._sequence = 0
        self._start_unknown = True
        self._last: Block | None = None
        self._last_ns = 0
        self._base: Block | None = None  # of a difference of cumulative counts
        self._moved_ns = 0  # when the device time last moved
        self._published_ns = 0
        self._gamma_background: npt.NDArray[np.float64] | None = None
        self._neutron_background: npt.NDArray[np.float64] | None = None
        self._told: dict[str, tuple[str, int]] = {}  # component -> words of the trouble in force, since when
        self.boot_epoch = 0

    @property
    def occupied(self) -> bool:
        """A passage is open."""
        return self._passage is not None

    def take(self, registers: Sequence[int], utc_ns: int) -> list[Event]:
        """Take a monitor block read at `utc_ns` and return its events. Raises ProtocolError if it is none."""
        block = parse_block(registers)
        events: list[Event] = []
        last = self._last
        if last is None and (self._resumed is None or block.objects < self._resumed.number):
            self._next_epoch(utc_ns)
        restarted = last is not None and block.device_time < last.device_time
        if restarted and last is not None:
            self._restart(last, block, utc_ns, events)
        self._tell("answers", "", "ok", utc_ns, events)
        faults = self._faults(block, utc_ns, events)
        moved = self._counter_moved(last, block, restarted, utc_ns)
        self._tell_counter(last, block, moved, restarted, utc_ns, events)
        lit = bool(block.outputs & OUTPUT_ALARM) and not (last and last.outputs & OUTPUT_ALARM)
        busy = block.occupied or self._alarms(block) != (False, False)
        if moved and self._passage is not None:
            moved = self._count(self._passage, block, moved, utc_ns, events)
        elif moved and self._counted_late(busy, utc_ns):
            moved -= 1
        if self._passage is None and (moved or busy or lit):
            self._enter(block, moved, utc_ns, events)
        if self._passage is not None:
            self._add(self._passage, block, faults, utc_ns, events)
            self._end_if_clear(self._passage, busy, utc_ns, events)
        else:
            self._vacant(block, utc_ns, events)
        self._last, self._last_ns, self._base = block, utc_ns, block
        return events

    def resume(self, count: PortalCount) -> None:
        """Go on where an earlier reader of this device stopped: objects counted meanwhile are then missed by number."""
        self._resumed, self.boot_epoch = count, count.boot_epoch

    def refused(self, text: str, utc_ns: int) -> list[Event]:
        """Learn that a reading could not be had: told once, and the open passage is marked."""
        events: list[Event] = []
        if self._passage is not None:
            self._passage.faults["readings_lost"] = None
        self._tell("answers", text, "degraded", utc_ns, events, same="answers" in self._told)
        return events

    def lost(self, utc_ns: int) -> list[Event]:
        """The link is gone: end an open passage as `link_lost`. The counter is kept, what it missed is told later."""
        events: list[Event] = []
        if self._passage is not None:
            self._leave("link_lost", utc_ns, events)
        self._start_unknown = True
        self._base = None
        return events

    # ---- device

    def _tell(
        self,
        component: str,
        text: str,
        state: Literal["ok", "degraded", "fault"],
        utc_ns: int,
        events: list[Event],
        same: bool = False,
    ) -> None:
        """Tell a component's trouble when it begins or changes, and its end; `same` keeps the words first told."""
        before, since_ns = self._told.get(component, ("", utc_ns))
        if state == "ok":
            if before:
                del self._told[component]
                over = f"{before}: over, {(utc_ns - since_ns) / NANOSECONDS:.1f} s since {iso_s(since_ns)}"
                events.append(Health(utc_ns=utc_ns, component=component, state="ok", text=over))
        elif not same and before != text:
            self._told[component] = text, since_ns
            events.append(Health(utc_ns=utc_ns, component=component, state=state, text=text))

    def _faults(self, block: Block, utc_ns: int, events: list[Event]) -> list[str]:
        """Tell what has changed in the device's faults; return those in force."""
        in_force: list[str] = []
        channels = [("gamma", block.gamma_status, block.gamma_background)]
        if self._neutron:
            channels.append(("neutron", block.neutron_status, block.neutron_background))
        for name, status, background in channels:
            found = channel_faults(name, status)
            if not (math.isfinite(background) and background >= 0):
                found["background_unusable"] = f"{name} background reads {background}"
            in_force += found
            grave = bool(status & (LOW | HIGH | OVERLOAD))
            words = f"{', '.join(found.values())}; check the detector (status {status:#06x})" if found else ""
            self._tell(name, words, "fault" if grave else "degraded" if found else "ok", utc_ns, events)
        for bit, (component, code, words) in INPUT_FAULTS.items():
            on = bool(block.inputs & bit)
            in_force += [code] if on else []
            self._tell(component, words, "ok" if not on else "fault" if bit & FAIL_MASK else "degraded", utc_ns, events)
        if self._last is None or block.device_time != self._last.device_time or utc_ns < self._moved_ns:
            self._moved_ns = utc_ns
        frozen = utc_ns - self._moved_ns >= self._frozen_ns
        in_force += ["frozen"] if frozen else []
        words = f"the device time stands still at {block.device_time}: readings are old; restart the portal"
        self._tell("device time", words, "fault" if frozen else "ok", utc_ns, events)
        return in_force

    def _restart(self, last: Block, block: Block, utc_ns: int, events: list[Event]) -> None:
        if self._passage is not None:
            self._leave("aborted", utc_ns, events)
        self._next_epoch(utc_ns)
        self._start_unknown = True
        self._base = None
        text = f"device time went back from {last.device_time} to {block.device_time}: restarted"
        events.append(Health(utc_ns=utc_ns, component="restart", state="ok", text=text))

    def _next_epoch(self, utc_ns: int) -> None:
        self.boot_epoch = max(self.boot_epoch + 1, utc_ns // NANOSECONDS)

    def _counter_moved(self, last: Block | None, block: Block, restarted: bool, utc_ns: int) -> int:
        """Return by how much the object counter has moved since the last reading, 0 if it has not."""
        if last is None and self._resumed is not None:
            # Below where it stood when the lane ended: an epoch was begun, and it has counted anew since.
            return _moved_by(self._resumed.number, block.objects)
        if last is None or block.objects == last.objects:
            return 0
        if restarted:
            return block.objects  # it began again from 0
        if block.objects < last.objects:
            self._next_epoch(utc_ns)  # the key (epoch, number) must name one passage
            return max(1, _moved_by(last.objects, block.objects))
        return block.objects - last.objects

    def _tell_counter(
        self, last: Block | None, block: Block, moved: int, restarted: bool, utc_ns: int, events: list[Event]
    ) -> None:
        if not moved:
            return
        before = last.objects if last is not None else self._resumed.number if self._resumed is not None else "?"
        since = "a restart" if restarted else f"{before}"
        text = f"the object counter moved from {since} to {block.objects}: {moved - 1} passages were not seen"
        self._tell("object counter", text, "degraded" if moved > 1 else "ok", utc_ns, events)

    def _alarms(self, block: Block) -> tuple[bool, bool]:
        return bool(block.gamma_status & ALARM), self._neutron and bool(block.neutron_status & ALARM)

    # ---- passages

    def _count(self, passage: _Passage, block: Block, moved: int, utc_ns: int, events: list[Event]) -> int:
        """The counter has moved during a passage; return how many of the moves are left for one that begins now."""
        if moved > 1:
            passage.faults["passages_missed"] = None
        # One that was there before it was listened to may have been counted then: the move is the next one's.
        unsure = "start_not_seen" in passage.faults and block.occupied and self._moves != "exit"
        if passage.number is None and not unsure:
            if not block.occupied and self._moves == "unknown":
                self._moves = "exit"
            passage.count(block, self.boot_epoch)
            return 0
        return self._another(passage, block, moved, utc_ns, events)

    def _another(self, passage: _Passage, block: Block, moved: int, utc_ns: int, events: list[Event]) -> int:
        """A second object is in the passage: part them where the first was counted, if that was at its exit, else here.

        A move while the sensors are clear is one at an exit, and so was the one before it.
        """
        at = passage.counted_at
        leaves = not block.occupied or self._moves == "exit"
        if not (at and leaves and not passage.counted_clear and self._moves != "entry"):
            self._leave("complete", utc_ns, events)
            return moved
        if not block.occupied and self._moves == "unknown":
            self._moves = "exit"
        self._sequence += 1
        other = passage.part(at, f"occupancy-{self._sequence}-{passage.readings[at].arrival_ns}")
        self._leave("complete", passage.last_ns, events)
        events.append(Occupancy(phase="entered", utc_ns=other.start_ns, source_ref=other.source_ref))
        other.count(block, self.boot_epoch)
        self._passage = other
        return 0

    def _counted_late(self, busy: bool, utc_ns: int) -> bool:
        """Return True if the counter has moved for the passage that has just ended without a number."""
        ended_ns, self._unnumbered_ns = self._unnumbered_ns, None
        late = ended_ns is not None and 0 <= utc_ns - ended_ns <= LATE_COUNT_NS
        if late and not busy and self._moves == "unknown":
            self._moves = "exit"
        return late and self._moves != "entry" and (not busy or self._moves == "exit")

    def _enter(self, block: Block, moved: int, utc_ns: int, events: list[Event]) -> None:
        self._sequence += 1
        passage = _Passage(f"occupancy-{self._sequence}-{utc_ns}", utc_ns, self.boot_epoch)
        if moved:
            passage.count(block, self.boot_epoch)
            if block.occupied and not self._start_unknown and self._moves == "unknown":
                self._moves = "entry"
        if self._start_unknown:
            passage.faults["start_not_seen"] = None
        if moved > 1:
            passage.faults["passages_missed"] = None
        if self._gamma_background is None:  # occupied ever since it is read: the device's own is the only one there is
            self._take_backgrounds(block)
        passage.gamma_background, passage.neutron_background = self._gamma_background, self._neutron_background
        if self._cumulative:
            passage.base = self._base
        self._start_unknown, self._unnumbered_ns = False, None
        self._passage = passage
        events.append(Occupancy(phase="entered", utc_ns=utc_ns, source_ref=passage.source_ref))

    def _add(self, passage: _Passage, block: Block, faults: list[str], utc_ns: int, events: list[Event]) -> None:
        """Put one reading into the open passage. Its time does not run backwards."""
        passage.faults.update(dict.fromkeys(faults))
        if utc_ns < passage.last_ns - self._interval_ns:
            passage.faults["clock_stepped"] = None
        if passage.readings and utc_ns - self._last_ns > max(3 * self._interval_ns, MISSED_S * NANOSECONDS):
            passage.faults["readings_lost"] = None
        passage.last_ns = max(passage.last_ns, utc_ns)
        alarms = self._alarms(block)
        if self._cumulative and self._base is None:
            passage.base = block
            passage.readings.append(_Reading(block, passage.last_ns, None, None, *alarms))
            if any(alarms):
                passage.faults["alarm_without_counts"] = None
            return
        gamma = self._difference(passage, "gamma_count", block)
        neutron = self._difference(passage, "neutron_count", block) if self._neutron else None
        passage.readings.append(_Reading(block, passage.last_ns, gamma, neutron, *alarms))
        told: list[tuple[Literal["gamma", "neutron"], int, bool]] = [("gamma", gamma, alarms[0])]
        told += [] if neutron is None else [("neutron", neutron, alarms[1])]
        for series, count, alarm in told:
            counts = np.array([[count]], np.int64)
            events.append(CountBlock(utc_ns=utc_ns, series=series, counts=counts, alarm=alarm))

    def _difference(self, passage: _Passage, name: Literal["gamma_count", "neutron_count"], block: Block) -> int:
        """Return a reading's counts: as read, or since the reading before, over the wrap of 32 bits."""
        count: int = getattr(block, name)
        if not self._cumulative or self._base is None:
            return count
        before: int = getattr(self._base, name)
        if count < before and before - count < 0x80000000:
            passage.faults["count_stepped"] = None  # fell without a wrap: what it counted since is all there is
            return count
        return (count - before) & 0xFFFFFFFF

    def _end_if_clear(self, passage: _Passage, busy: bool, utc_ns: int, events: list[Event]) -> None:
        passage.clear_readings = 0 if busy else passage.clear_readings + 1
        if passage.clear_readings >= self._hold_readings:
            self._leave("complete", utc_ns, events)
        elif len(passage.readings) >= MAX_READINGS:
            passage.faults["too_long"] = None
            self._leave("timed_out", utc_ns, events)
            self._start_unknown = True

    def _leave(self, reason: EndReason, utc_ns: int, events: list[Event]) -> None:
        """End the open passage and tell its record."""
        passage, self._passage = self._passage, None
        assert passage is not None
        blocks = [r.block for r in passage.readings]
        if not any(b.occupied for b in blocks):
            passage.faults["no_occupancy_signal"] = None
        if any(b.outputs & OUTPUT_ALARM for b in blocks) and not any(any(self._alarms(b)) for b in blocks):
            passage.faults["alarm_output"] = None
        end_ns = max(passage.last_ns, utc_ns)
        self._unnumbered_ns = end_ns if passage.number is None and reason == "complete" else None
        counted = [r for r in passage.readings if r.gamma is not None]
        arrival = [r.arrival_ns for r in counted]
        neutrons = [r for r in counted if r.neutron is not None]
        # A reading is asked for: its arrival is the end of its interval to within a round trip.
        start_ns = (arrival[0] if arrival else passage.start_ns) - self._interval_ns
        speeds = [b.speed_mm_s for b in blocks if 0 < b.speed_mm_s < 0xFFFF]
        speed = median(speeds) * 0.0036 if speeds else None
        record = PortalRecord(
            start_utc_ns=passage.start_ns,
            end_utc_ns=end_ns,
            gamma=np.array([r.gamma for r in counted], np.int64).reshape(-1, 1),
            neutron=np.array([r.neutron for r in neutrons], np.int64).reshape(-1, 1),
            gamma_alarm=np.array([r.gamma_alarm for r in counted], np.bool_),
            neutron_alarm=np.array([r.neutron_alarm for r in neutrons], np.bool_),
            gamma_arrival_ns=np.array(arrival, np.int64),
            gamma_start_utc_ns=start_ns,
            gamma_background=passage.gamma_background,
            neutron_background=passage.neutron_background,
            gamma_interval_s=self._interval_s,
            neutron_interval_s=self._interval_s,
            number=passage.number,
            boot_epoch=passage.boot_epoch,
            speed_kmh=speed,
            end_reason=reason,
            faults=tuple(passage.faults),
            raw_lines=passage.raw_lines(),
            neutron_arrival_ns=np.array(arrival if neutrons else [], np.int64),
            neutron_start_utc_ns=start_ns if neutrons else None,
        )
        events.append(Occupancy(phase="left", utc_ns=end_ns, source_ref=passage.source_ref, record=record))

    # ---- vacancy

    def _take_backgrounds(self, block: Block) -> None:
        """Keep the device's backgrounds in counts/s, `(1,) float64`; None where they cannot be any."""
        found: list[npt.NDArray[np.float64] | None] = []
        for value in (block.gamma_background, block.neutron_background):
            usable = math.isfinite(value) and value >= 0
            found.append(np.array([value * self._per_s], np.float64) if usable else None)
        self._gamma_background = found[0]
        self._neutron_background = found[1] if self._neutron else None

    def _vacant(self, block: Block, utc_ns: int, events: list[Event]) -> None:
        self._start_unknown = False
        self._take_backgrounds(block)
        if not self._published_ns:
            self._published_ns = utc_ns
        if abs(utc_ns - self._published_ns) < PUBLISH_EVERY_NS:
            return
        self._published_ns = utc_ns
        if self._gamma_background is not None:
            counts = self._gamma_background[np.newaxis]
            events.append(CountBlock(utc_ns=utc_ns, series="gamma_background", counts=counts))
        if self._neutron_background is not None:
            counts = self._neutron_background[np.newaxis]
            events.append(CountBlock(utc_ns=utc_ns, series="neutron_background", counts=counts))


# --------------------------------------------------------------------------------------------------------------
# Modbus


class ModbusLine:
    """Requests and answers of function 3 on a byte channel; nothing in it waits.

    An answer belongs to a request by its transaction number; late answers to requests given up are let go.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._codec = DecodePDU(is_server=False)
        self._framer = FramerSocket(self._codec)
        self._transaction = 0
        self._rest = b""

    def reset(self) -> None:
        """Forget half an answer: the link is a new one."""
        self._rest = b""

    def ask(self, unit: int, address: int, count: int) -> int:
        """Send one request and return its transaction number. Raises LinkLost."""
        self._transaction = self._transaction % 0xFFFF + 1
        request = ReadHoldingRegistersRequest(
            address=address, count=count, dev_id=unit, transaction_id=self._transaction
        )
        self._channel.write(self._framer.buildFrame(request))
        return self._transaction

    def receive(self, timeout_s: float) -> list[tuple[int, ModbusPDU | None]]:
        """Return what has come within `timeout_s`: transaction number and answer, None if it cannot be read.

        Raises LinkLost; ProtocolError if the bytes are no Modbus TCP, after which only a new link helps.
        """
        self._rest += self._channel.read(max(0.0, timeout_s))
        answers: list[tuple[int, ModbusPDU | None]] = []
        while len(self._rest) >= 8:
            protocol, length = struct.unpack(">HH", self._rest[2:6])
            if protocol != 0 or not 2 <= length <= LONGEST_ADU - 6:
                raise ProtocolError(
                    f"{self._channel.address}: {self._rest[:16].hex(' ')} is no Modbus TCP header "
                    f"(protocol {protocol}, length {length}, expected 0 and 2 to {LONGEST_ADU - 6}); check that the "
                    "port is the portal's"
                )
            if len(self._rest) < 6 + length:
                break
            message, self._rest = self._rest[: 6 + length], self._rest[6 + length :]
            _, _, transaction, payload = self._framer.decode(message)
            answers.append((transaction, self._codec.decode(payload)))
        return answers


def _read_answer(what: str, answer: ModbusPDU | None, count: int) -> list[int]:
    """Return the registers of an answer. Raises ProtocolError naming what came instead."""
    if answer is None:
        raise ProtocolError(f"{what}: an answer that is none to function 3; check the portal's firmware")
    if isinstance(answer, ExceptionResponse):
        raise ProtocolError(
            f"{what}: Modbus exception {answer.exception_code}; check unit id, register map and the portal's state"
        )
    if answer.function_code != ReadHoldingRegistersRequest.function_code or len(answer.registers) != count:
        raise ProtocolError(
            f"{what}: {len(answer.registers)} registers by function {answer.function_code}, expected {count} by "
            "function 3; check the portal's firmware"
        )
    return list(answer.registers)


class AspectDriver:
    """A portal that is asked for its monitor block at a steady pace; one request is on its way at a time."""

    pausable = False

    def __init__(self, config: Config, channel: Channel) -> None:
        self._config = config
        self._channel = channel
        self._line = ModbusLine(channel)
        self._decoder = Decoder(config)
        self._ready: deque[Event] = deque()
        self._clock = SteadyClock()
        self._failure: ScannerError | None = None
        self._unit: int | None = None  # the one that answered last
        self._opened = False
        self._tries = 0  # openings since it answered
        self._base = USUAL_BASE
        self._asked: tuple[int, float] | None = None  # transaction, monotonic seconds
        self._due_s = 0.0
        self._good_s = 0.0

    def resume(self, count: PortalCount) -> None:
        """Learn where the object counter stood when this device was last heard."""
        self._decoder.resume(count)

    def open(self) -> DeviceInfo:
        """Connect and read the description block. Raises LinkLost, ProtocolError."""
        self._failure = None
        self._asked = None
        self._opened = False
        self._line.reset()
        self._channel.open()
        try:
            unit, description = self._find()
        except ScannerError:
            self._channel.close()
            raise
        self._unit, self._base = unit, description.base
        self._opened, self._tries = True, 0
        self._due_s = self._good_s = time.monotonic()
        note = (
            f"unit {unit}, signature {description.signature:#06x}, monitor block {description.monitor_id} at "
            f"{description.base}; counts {self._config.counts}, background per {self._config.background_per}: "
            "units not verified"
        )
        if (description.base, description.length) != (USUAL_BASE, USUAL_LENGTH):
            text = (
                f"monitor block at {description.base} of {description.length} registers, usually {USUAL_BASE} and "
                f"{USUAL_LENGTH}: its first {USUAL_LENGTH} are read; check the register map"
            )
            self._ready.append(Health(utc_ns=self._now(), component="description", state="degraded", text=text))
        return DeviceInfo(
            vendor="Aspect",
            model="Modbus portal",
            kinds=kinds(self._config),
            serial=self._config.serial,
            address=self._config.address,
            simulated=self._config.simulated,
            note=note,
        )

    def _find(self) -> tuple[int, Description]:
        """Return the unit that answers, and its description block.

        The unit known from before is asked alone, for a scan takes seconds in which the device may come back unheard;
        every fourth opening in vain asks them all, because the device may have a new id.
        """
        self._tries += 1
        units: Sequence[int] = range(self._config.first_unit, self._config.last_unit + 1)
        if self._unit is not None and self._tries % 4:
            units = (self._unit,)
        asked: dict[int, int] = {}
        problems: dict[int, ProtocolError] = {}
        for unit in units:
            asked[self._line.ask(unit, DESCRIPTION_ADDRESS, DESCRIPTION_REGISTERS)] = unit
            wait_s = self._config.answer_s if unit == units[-1] else self._config.scan_answer_s
            deadline_s = time.monotonic() + wait_s
            while len(asked) > 0 and (left_s := deadline_s - time.monotonic()) > 0:
                for transaction, answer in self._line.receive(left_s):
                    if transaction not in asked:
                        continue
                    answering = asked.pop(transaction)
                    try:
                        return answering, self._check(answering, answer)
                    except ProtocolError as error:
                        problems[answering] = error
                if unit in problems:
                    break  # it has answered, there is nothing to wait for
        if problems:
            # A gateway answers with exceptions for units that are not there: a block that was read says more.
            told = [e for e in problems.values() if "Modbus exception" not in str(e)] or [*problems.values()]
            raise ProtocolError("; ".join(str(e) for e in told[:3]))
        raise LinkLost(
            f"{self._config.address}: no answer from unit {units[0]} to {units[-1]} to the description block; check "
            "power, cable, port and the range of unit ids"
        )

    def _check(self, unit: int, answer: ModbusPDU | None) -> Description:
        what = f"{self._config.address} unit {unit}, description block"
        registers = _read_answer(what, answer, DESCRIPTION_REGISTERS)
        try:
            description = parse_description(registers)
        except ProtocolError as error:
            raise ProtocolError(f"{self._config.address} unit {unit}: {error}") from error
        wanted = self._config.signature
        if wanted is not None and description.signature != wanted:
            raise ProtocolError(
                f"{what}: signature {description.signature:#06x}, expected {wanted:#06x}; check that this is the "
                "portal, or correct `signature` in the configuration"
            )
        return description

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event. Raises LinkLost or ProtocolError after the events that the failure itself causes."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            try:
                self._step(deadline_s)
            except ScannerError as error:
                # What the loss ends must be told before the loss itself, or an open passage would vanish.
                self._failure = error
                self._tell(self._decoder.lost(self._now()))
            if not self._ready and self._failure is None and time.monotonic() >= deadline_s:
                return None
        return self._ready.popleft()

    def _step(self, deadline_s: float) -> None:
        """Ask if it is time to, then wait for an answer, for the next question or for the caller's deadline."""
        now_s = time.monotonic()
        if not self._opened or self._unit is None:
            raise LinkLost(f"{self._config.address}: not open")
        if self._asked is None and now_s >= self._due_s:
            self._asked = self._line.ask(self._unit, self._base, USUAL_LENGTH), now_s
        until_s = self._due_s if self._asked is None else self._asked[1] + self._config.answer_s
        for transaction, answer in self._line.receive(min(deadline_s, until_s) - now_s):
            if self._asked is not None and transaction == self._asked[0]:
                self._asked = None
                self._take(answer)
                pace_s = self._config.occupied_poll_s if self._decoder.occupied else self._config.vacant_poll_s
                self._due_s = max(self._due_s + pace_s, time.monotonic())
        if self._asked is not None and time.monotonic() - self._asked[1] >= self._config.answer_s:
            raise LinkLost(
                f"{self._config.address} unit {self._unit}: no answer for {self._config.answer_s:g} s to registers "
                f"{self._base} to {self._base + USUAL_LENGTH - 1}; check power and cable"
            )

    def _take(self, answer: ModbusPDU | None) -> None:
        what = f"{self._config.address} unit {self._unit}, monitor block"
        try:
            registers = _read_answer(what, answer, USUAL_LENGTH)
        except ProtocolError as error:
            # A device that is busy for a moment must not cost the passage its whole: the next reading may be good.
            self._tell(self._decoder.refused(str(error), self._now()))
            if time.monotonic() - self._good_s >= self._config.refused_s:
                raise
            return
        self._good_s = time.monotonic()
        self._tell(self._decoder.take(registers, self._now()))

    def _now(self) -> int:
        utc_ns, told = self._clock.stamp(self._decoder.occupied)
        self._ready.extend(told)
        return utc_ns

    def _tell(self, events: list[Event]) -> None:
        self._ready.extend(map(self._clock.mark, events))

    def end(self) -> list[Event]:
        """Return what is decoded but not yet read, and the end of an open passage: its counts must not be lost."""
        self._tell(self._decoder.lost(self._now()))
        events = list(self._ready)
        self._ready.clear()
        return events

    def acknowledge(self, source_ref: str) -> None:
        """A live device cannot be told; the recording is the acknowledgement."""

    def close(self) -> None:
        """Close the channel. May be called twice."""
        self._channel.close()


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives, without touching the portal."""
    return ("portal",)


def connect(config: Config, channel: Channel | None) -> AspectDriver:
    """Return an unopened driver on `channel`, or on a channel of its own where none is given. Raises ConfigError."""
    return AspectDriver(config, channel or open_channel(config.address))
