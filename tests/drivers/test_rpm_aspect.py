"""The Aspect portal driver against a simulated portal: a real Modbus TCP server on loopback, with made-up registers."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import NoSuchIdException
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers import rpm_aspect
from drivers.rpm_aspect import Block, Config, Decoder, channel_faults, channel_state, parse_block, parse_description
from scanner_io import driver as drivers_of
from scanner_io.channel import MemoryChannel
from scanner_io.errors import LinkLost, ProtocolError, ScannerError
from scanner_io.model import CountBlock, Event, Health, Occupancy, PortalCount, PortalRecord
from scanner_io.recording import _check_portal
from tests.contract import DriverContract, Rig, check_order, drain
from triage.analysis.portal import FAULT_WORDS, PortalProfile, judge_portal

STEP_NS = 200_000_000
T0_NS = 1_769_852_701_250_000_000
READY = 0x80
QUIET = {
    "device_time": 1000, "inputs": 0, "gamma_status": READY, "gamma_count": 300, "gamma_background": 302.5,
    "gamma_variance": 300.25, "neutron_status": READY, "neutron_count": 1, "neutron_background": 0.5,
    "neutron_variance": 0.25, "objects": 7, "mark": 0, "speed_mm_s": 0, "outputs": 0,
}  # fmt: skip


def block_of(**changes: float) -> Block:
    return Block(**{**QUIET, **changes})  # type: ignore[arg-type]


def registers_of(block: Block) -> list[int]:
    """Lay a block out as the register map says, without the code under test: low word first."""
    registers: list[int] = []
    for name, value in block._asdict().items():
        if name in ("device_time", "gamma_count", "neutron_count"):
            registers += [value & 0xFFFF, value >> 16]
        elif isinstance(value, float):
            high, low = struct.unpack(">HH", struct.pack(">f", value))
            registers += [low, high]
        else:
            registers.append(value)
    return registers


class AspectServer:
    """A simulated Aspect portal on a free loopback port: pymodbus's own server, its registers made by the test.

    description : the 8 registers of the description block
    block : the reading that is given; `device_time` runs by itself, one per reading
    units : unit ids that answer; for others there is an exception, or silence if `mute_others`
    refuse : Modbus exception that answers every reading, None for none
    cut : registers left out of the end of every reading
    silent : nothing is answered at all
    """

    def __init__(self, *, unit: int = 1, mute_others: bool = False, base: int = 100, length: int = 21) -> None:
        self.description = [0x4153, 8, 1, base, length, 0, 0, 0]
        self.block = block_of()
        self.script: list[Block] = []
        self.base = base
        self.unit = unit
        self.mute_others = mute_others
        self.refuse: ExcCodes | None = None
        self.cut = 0
        self.silent = False
        self.readings = 0
        self.asked_units: list[int] = []
        self.port = 0
        self._device_time = 1000
        self._server: ModbusTcpServer | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated Aspect portal")

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> AspectServer:
        self._thread.start()
        self.plug_in()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()

    def plug_in(self) -> None:
        self._run(self._listen())

    def unplug(self) -> None:
        self._run(self._close())

    def wait_for_no_client(self) -> None:
        deadline = time.monotonic() + 2.0
        while self._server is not None and self._server.active_connections and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.01)  # the transport closes its socket one turn of the loop later

    def _run(self, what: object) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> None:
        if self.port == 0:  # the server cannot be asked for the port it was given
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        device = SimDevice(0, [SimData(0, count=1, values=0, datatype=DataType.REGISTERS)])
        server = ModbusTcpServer(device, address=("127.0.0.1", self.port), ignore_missing_devices=self.mute_others)
        server.context = self  # type: ignore[assignment]
        await server.serve_forever(background=True)
        self._server = server

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            for connection in list(server.active_connections.values()):
                connection.close()
            await server.shutdown()
        await asyncio.sleep(0.02)  # closing transports takes turns of the loop

    # what the server asks of its data store

    async def async_getValues(self, unit: int, function: int, address: int, count: int) -> list[int] | ExcCodes:
        self.asked_units.append(unit)
        if self.silent or unit != self.unit:
            if self.silent:
                await asyncio.sleep(0)
                self._server.ignore_missing_devices = True  # type: ignore[union-attr]
            raise NoSuchIdException
        self._server.ignore_missing_devices = self.mute_others  # type: ignore[union-attr]
        assert function == 3
        if (address, count) == (0, 8):
            return list(self.description)
        if (address, count) != (self.base, 21):
            return ExcCodes.ILLEGAL_ADDRESS
        if self.refuse is not None:
            return self.refuse
        self.readings += 1
        self._device_time += 1
        if self.script:
            self.block = self.script.pop(0)
        reading = registers_of(self.block._replace(device_time=self._device_time))
        return reading[: len(reading) - self.cut]

    def device_ids(self) -> list[int]:
        return [self.unit]


FAST = {"occupied_poll_s": 0.02, "vacant_poll_s": 0.02, "hold_in_s": 0.04, "answer_s": 0.3, "simulated": True}


def open_driver(server: AspectServer, **options: object) -> rpm_aspect.AspectDriver:
    portal = drivers_of.connect("rpm_aspect", Config(address=server.address, **{**FAST, **options}))
    portal.open()
    return portal  # type: ignore[return-value]


def read_until(
    portal: rpm_aspect.AspectDriver, done: Callable[[list[Event]], bool], limit_s: float = 10.0
) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + limit_s
    while not done(events):
        assert time.monotonic() < deadline, f"only {events}"
        event = portal.read(0.05)
        events += [] if event is None else [event]
    return events


def read_to_error(portal: rpm_aspect.AspectDriver, limit_s: float = 10.0) -> tuple[list[Event], ScannerError]:
    return drain(portal, limit_s)


def records(events: list[Event]) -> list[PortalRecord]:
    return [e.record for e in events if isinstance(e, Occupancy) and e.record is not None]


def entered(events: list[Event]) -> bool:
    return any(isinstance(e, Occupancy) for e in events)


def left(count: int) -> Callable[[list[Event]], bool]:
    return lambda events: len(records(events)) >= count


def play(decoder: Decoder, blocks: list[Block], start_ns: int = T0_NS) -> list[Event]:
    """Give a decoder readings 0.2 s apart whose device time runs, unless a block sets its own."""
    events: list[Event] = []
    for i, block in enumerate(blocks):
        if block.device_time == QUIET["device_time"]:
            block = block._replace(device_time=1000 + i + (start_ns - T0_NS) // STEP_NS)
        events += decoder.take(registers_of(block), start_ns + i * STEP_NS)
    return events


def decoder(**options: object) -> Decoder:
    return Decoder(Config(address="memory:x", **options))  # type: ignore[arg-type]


CAR = block_of(inputs=1, objects=8, speed_mm_s=2000, gamma_count=290)


# ---- blocks


def test_words_of_32_bits_have_their_low_word_first_and_no_sign() -> None:
    block = block_of(device_time=0xFFFE0001, gamma_count=0x80000002, gamma_background=123.5, neutron_background=0.1)
    read = parse_block(registers_of(block))
    assert read._replace(neutron_background=0.0) == block._replace(neutron_background=0.0)
    assert read.neutron_background == struct.unpack(">f", struct.pack(">f", 0.1))[0]
    raw = [0] * 21
    raw[4], raw[5] = 1, 2
    raw[6], raw[7] = 0x0000, 0x3F80
    assert (parse_block(raw).gamma_count, parse_block(raw).gamma_background) == (0x20001, 1.0)


def test_the_daily_line_has_the_14_fields_in_order() -> None:
    line = block_of(inputs=3, neutron_background=1 / 3).line()
    assert line == "1000,3,128,300,302.5,300.25,128,1,0.333333333,0.25,7,0,0,0"


@pytest.mark.parametrize("count", [0, 20, 22])
def test_a_block_of_another_length_is_refused(count: int) -> None:
    with pytest.raises(ProtocolError, match=f"{count} registers, expected 21"):
        parse_block([0] * count)
    with pytest.raises(ProtocolError, match="register 3: 65536"):
        parse_block([0, 0, 0, 65536, *[0] * 17])


@pytest.mark.parametrize(("base", "length"), [(100, 20), (100, 126), (65530, 21)])
def test_a_description_that_cannot_be_used(base: int, length: int) -> None:
    with pytest.raises(ProtocolError, match=f"at {base} of {length}"):
        parse_description([1, 8, 1, base, length, 0, 0, 0])


@pytest.mark.parametrize(
    ("status", "state", "faults"),
    [
        (0x80, "background", []),
        (0x81, "alarm", []),
        (0x82, "alarm", []),
        (0xB1, "alarm", ["gamma_low", "gamma_high"]),
        (0xB0, "low", ["gamma_low", "gamma_high"]),
        (0xA0, "high", ["gamma_high"]),
        (0xC0, "background", ["gamma_overload"]),
        (0xFF00, "background", ["gamma_not_ready"]),
    ],
)
def test_channel_status(status: int, state: str, faults: list[str]) -> None:
    assert channel_state(status) == state and list(channel_faults("gamma", status)) == faults


# ---- decoder


def test_a_passage() -> None:
    quiet_after = block_of(objects=8)
    events = play(decoder(background_per="second"), [block_of()] * 3 + [CAR] * 10 + [quiet_after] * 8)
    check_order(events)
    (record,) = records(events)
    assert (record.number, record.end_reason, record.faults) == (8, "complete", ())
    assert record.boot_epoch == T0_NS // 10**9
    assert record.gamma.tolist() == [[290]] * 10 + [[300]] * 5 and record.neutron.tolist() == [[1]] * 15
    assert record.gamma_background is not None and record.gamma_background.tolist() == [302.5]
    assert record.speed_kmh == pytest.approx(7.2)
    assert record.gamma_start_utc_ns == T0_NS + 2 * STEP_NS and record.gamma_interval_s == 0.2
    assert [line.split(",")[3] for line in record.raw_lines] == ["290"] * 10 + ["300"] * 5
    assert list(_check_portal(record)) == []


@pytest.mark.parametrize(("length_mm", "shape"), [(0, "point"), (9000, "distributed")])
def test_a_point_is_told_from_a_load_by_one_channel(length_mm: int, shape: str) -> None:
    """14 m at 2 m/s: the front breaks the beam in the first reading of the record, the middle passes at 7 m."""
    x = (np.arange(70) - 0.5) * 400.0
    places = np.linspace(7000 - length_mm / 2, 7000 + length_mm / 2, 41)
    excess = ((1 + ((x[:, np.newaxis] - places) / 1900) ** 2) ** -1.5).mean(axis=1)
    rng = np.random.default_rng(3)
    for _ in range(5):
        counts = rng.poisson(np.where(x < 14_000, 220, 300) + 420 * excess / excess.max())
        passing = [CAR._replace(gamma_count=int(n), gamma_background=1500.0) for n in counts[:36]]
        behind = [b._replace(inputs=0) for b in passing[:8]]
        quiet = [block_of(gamma_background=1500.0)] * 3
        (record,) = records(play(decoder(background_per="second"), [*quiet, *passing, *behind]))
        told = [f for f in judge_portal(record, PortalProfile()).findings if f.kind == f"gamma_{shape}"]
        assert told, shape


def test_backgrounds_are_counts_per_second_and_told_every_five_seconds() -> None:
    events = play(decoder(), [block_of()] * 76)
    told = [e for e in events if isinstance(e, CountBlock)]
    assert [e.series for e in told] == ["gamma_background", "neutron_background"] * 3
    assert told[0].counts.tolist() == [[302.5 * 5]] and told[1].counts.tolist() == [[2.5]]
    assert [e.utc_ns for e in told[::2]] == [T0_NS + n * 5_000_000_000 for n in (1, 2, 3)]


def test_sensors_alone_begin_a_passage() -> None:
    (record,) = records(play(decoder(), [block_of(), *[block_of(inputs=8)] * 5, *[block_of()] * 5]))
    assert record.number is None and record.faults == () and len(record.gamma) == 10


def test_the_counter_alone_begins_a_passage_that_never_reads_as_clear() -> None:
    (record,) = records(play(decoder(), [block_of(), *[block_of(objects=8)] * 5]))
    assert record.number == 8 and record.faults == ("no_occupancy_signal",)


def test_the_counter_parts_two_quick_objects() -> None:
    first, second = block_of(inputs=1, objects=8), block_of(inputs=1, objects=9, gamma_status=READY | 1)
    events = play(decoder(), [block_of(), *[first] * 4, *[second] * 4, *[block_of(objects=9)] * 5])
    check_order(events)
    one, two = records(events)
    assert (one.number, one.end_reason, len(one.gamma), bool(one.gamma_alarm.any())) == (8, "complete", 4, False)
    assert (two.number, len(two.gamma), int(two.gamma_alarm.sum())) == (9, 9, 4)


def readings(text: str, objects: int = 7) -> list[Block]:
    """Return readings: `.` clear, `o` occupied, `a` clear in gamma alarm; `+` before one: the counter has moved."""
    blocks = []
    for sign in text.replace(" ", ""):
        objects += sign == "+"
        if sign != "+":
            status = READY | (1 if sign == "a" else 0)
            blocks.append(block_of(inputs=int(sign == "o"), objects=objects, gamma_status=status))
    return blocks


CLEAR = "......"
"""More than the hold-in of 1 s."""
ONE_OBJECT = [
    "+oooo", "o+ooo", "oo+oo", "ooo+o", "oooo+.", "oooo..+.", "oooo....+.", f"oooo{CLEAR}..+.", "+.oooo", "+a.oooo",
    "aa+oooo", "aaoooo+.",
]  # fmt: skip
"""Where the counter may move for one object: before, at or after its entry, at its exit, or after its record is out."""


@pytest.mark.parametrize("moves", ["unknown", "entry", "exit"])
@pytest.mark.parametrize("text", ONE_OBJECT)
def test_one_object_is_one_record_whenever_the_counter_moves(text: str, moves: str) -> None:
    if moves == "entry" and text.endswith(f"{CLEAR}..+."):
        pytest.skip("a counter that is known to move at entry has counted another object there")
    events = play(decoder(counter_moves=moves), readings(f"..{text}{CLEAR}{CLEAR}"))
    check_order(events)
    (record,) = records(events)
    late = text.endswith(f"{CLEAR}..+.")
    assert record.number == (None if late else 8) and record.end_reason == "complete"
    assert len(record.raw_lines) == len(record.gamma) and list(_check_portal(record)) == []


TWO_OBJECTS = {
    # two quick ones, between which the sensors see no gap; where they are parted, in readings of the first
    ("+oooo+oooo", "unknown"): 4,
    ("o+ooo+oooo", "unknown"): 4,
    ("oooo+oooo+.", "unknown"): 4,
    ("oooo+oooo+.", "exit"): 4,
    ("oooo+ooo+o", "exit"): 4,
    ("oooo+oooo..+.", "unknown"): 4,
    # with a gap
    (f"oooo+.{CLEAR}oooo+.", "unknown"): None,
    (f"oooo{CLEAR}.+.{CLEAR}oooo{CLEAR}.+.", "unknown"): None,
    (f"+oooo{CLEAR}+oooo", "unknown"): None,
    (f"oooo{CLEAR}+ooooo+.", "exit"): None,  # the first is counted as the second enters
    (f"+oooo{CLEAR}oooo", "entry"): None,  # the second is never counted
}


@pytest.mark.parametrize(("text", "moves"), TWO_OBJECTS)
def test_two_objects_are_two_records(text: str, moves: str) -> None:
    events = play(decoder(counter_moves=moves), readings(f"..{text}{CLEAR}{CLEAR}"))
    check_order(events)
    one, two = records(events)
    at = TWO_OBJECTS[text, moves]
    if at is not None:
        assert (len(one.gamma), one.number, two.number) == (at, 8, 9)
    assert (one.end_utc_ns <= two.start_utc_ns) and one.faults == two.faults == ()
    occupied = sum(int(line.split(",")[1]) for r in (one, two) for line in r.raw_lines)
    assert occupied == text.count("o"), "no reading is lost or in both"
    assert list(_check_portal(one)) == list(_check_portal(two)) == []


def test_when_the_counter_moves_is_learned() -> None:
    there = decoder()
    events = play(there, readings(f"..oooo+.{CLEAR}"))  # at the exit
    events += play(there, readings(f"oooo+ooo+ooo+.{CLEAR}", 8), T0_NS + 20 * STEP_NS)
    check_order(events)
    assert [(r.number, len(r.gamma)) for r in records(events)] == [(8, 9), (9, 4), (10, 3), (11, 8)]


def test_cumulative_counts_of_two_objects_follow_each_other() -> None:
    blocks = [b._replace(gamma_count=5000 + 300 * i) for i, b in enumerate(readings(f"..oooo+oooo+.{CLEAR}"))]
    one, two = records(play(decoder(counts="cumulative"), blocks))
    assert {*one.gamma[:, 0].tolist(), *two.gamma[:, 0].tolist()} == {300}
    assert len(one.gamma) == 4 and two.raw_lines[0].startswith("[base] ")
    assert list(_check_portal(one)) == list(_check_portal(two)) == []


UNSEEN = {"start_not_seen", "no_occupancy_signal"}


@pytest.mark.parametrize(
    ("objects", "faults"), [(8, None), (9, UNSEEN), (0, None), (1, UNSEEN), (3, UNSEEN | {"passages_missed"})]
)
def test_a_lane_that_ended_knows_where_the_counter_stood(objects: int, faults: set[str] | None) -> None:
    there = decoder()
    there.resume(PortalCount(boot_epoch=5, number=8))
    events = play(there, [block_of(objects=objects)] * 8 + [block_of(inputs=1, objects=objects + 1)] * 4)
    events += there.lost(T0_NS + 20 * STEP_NS)
    missed, last = [*records(events)[:-1]], records(events)[-1]
    assert [set(r.faults) for r in missed] == ([] if faults is None else [faults])
    assert last.number == objects + 1 and (last.boot_epoch == 5) == (objects >= 8)


def test_passages_that_were_not_seen_are_told() -> None:
    events = play(decoder(), [block_of(), block_of(inputs=1, objects=10), *[block_of(objects=10)] * 5])
    (record,) = records(events)
    assert record.number == 10 and "passages_missed" in record.faults
    assert any(isinstance(e, Health) and "2 passages were not seen" in e.text for e in events)


def test_the_counter_wraps_at_16_bits() -> None:
    blocks = [block_of(objects=65535), block_of(inputs=1, objects=0), *[block_of(objects=0)] * 5]
    (record,) = records(play(decoder(), blocks))
    assert record.number == 0 and record.faults == () and record.boot_epoch > T0_NS // 10**9


def test_an_alarm_without_occupancy_is_a_passage() -> None:
    blocks = [block_of(), block_of(neutron_status=READY | 2), *[block_of()] * 5]
    (record,) = records(play(decoder(), blocks))
    assert record.neutron_alarm.tolist() == [True, *[False] * 5] and record.faults == ("no_occupancy_signal",)


def test_the_alarm_output_alone_is_a_passage_once() -> None:
    blocks = [block_of(), *[block_of(outputs=1)] * 20]
    (record,) = records(play(decoder(), blocks))
    assert record.faults == ("no_occupancy_signal", "alarm_output")


def test_a_device_time_that_goes_back_is_a_restart() -> None:
    there = decoder()
    before = play(there, [block_of(), *[CAR] * 4])
    after = play(there, [CAR._replace(device_time=n, objects=0) for n in range(1, 4)], T0_NS + 5 * STEP_NS)
    after += play(there, [block_of(device_time=n, objects=0) for n in range(4, 9)], T0_NS + 8 * STEP_NS)
    check_order(before + after)
    first, second = records(before + after)
    assert first.end_reason == "aborted" and first.truncated and len(first.gamma) == 4
    assert second.faults == ("start_not_seen",) and second.boot_epoch > first.boot_epoch
    assert any(isinstance(e, Health) and e.component == "restart" for e in after)


def test_a_lost_link_keeps_the_counter() -> None:
    there = decoder()
    events = play(there, [block_of(), *[CAR] * 4])
    events += there.lost(T0_NS + 5 * STEP_NS)
    events += play(there, [block_of(objects=9)] * 5, T0_NS + 100 * STEP_NS)
    check_order(events)
    cut, missed = records(events)
    assert cut.end_reason == "link_lost" and cut.number == 8
    assert missed.number == 9 and set(missed.faults) == {"start_not_seen", "no_occupancy_signal"}


FAULTY = {
    "gamma_low": {"gamma_status": READY | 0x10},
    "gamma_high": {"gamma_status": READY | 0x20},
    "gamma_overload": {"gamma_status": READY | 0x40},
    "gamma_not_ready": {"gamma_status": 0},
    "neutron_low": {"neutron_status": READY | 0x10},
    "neutron_high": {"neutron_status": READY | 0x20},
    "background_unusable": {"gamma_background": float("nan")},
    "power_fail": {"inputs": 0x100},
    "low_battery": {"inputs": 0x200},
    "open": {"inputs": 0x400},
    "device_error": {"inputs": 0x800},
    "device_reset": {"inputs": 0x8000},
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_is_told_on_and_off_and_its_passage_never_reads_as_clear(fault: str) -> None:
    there = decoder()
    bad = block_of(objects=8, **FAULTY[fault])
    occupied = bad._replace(inputs=bad.inputs | 1)
    events = play(there, [block_of(), *[occupied] * 5, *[bad] * 5])
    events += play(there, [block_of(objects=8)] * 2, T0_NS + 11 * STEP_NS)
    (record,) = records(events)
    assert record.faults == (fault,)
    states = [e.state for e in events if isinstance(e, Health)]
    assert len(states) == 2 and states[0] in ("degraded", "fault") and states[1] == "ok"
    judged = judge_portal(record, PortalProfile())
    assert FAULT_WORDS[fault] in [(q.code, q.reason) for q in judged.quality]


def test_the_end_of_a_fault_says_how_long_it_lasted() -> None:
    blocks = [block_of(), *[block_of(gamma_status=READY | 0x10)] * 5, block_of()]
    told = [e for e in play(decoder(), blocks) if isinstance(e, Health)]
    assert [(e.component, e.state, e.utc_ns - T0_NS) for e in told] == [
        ("gamma", "fault", STEP_NS),
        ("gamma", "ok", 6 * STEP_NS),
    ]
    assert told[1].text.endswith("over, 1.0 s since 2026-01-31T09:45:01Z")


def test_a_device_that_stands_still_is_a_fault() -> None:
    there = decoder(frozen_s=1.0)
    still = CAR._replace(device_time=77)
    events = play(there, [block_of(device_time=76), *[still] * 10, *[block_of(device_time=78, objects=8)] * 5])
    assert records(events)[0].faults == ("frozen",)
    assert [e.state for e in events if isinstance(e, Health)] == ["fault", "ok"]


def test_cumulative_counts_over_their_wrap() -> None:
    counts = [0xFFFFFF00, 0xFFFFFF80, 0x10, 0x90, 0x100, 0x100, 0x100, 0x100]
    blocks = [block_of(gamma_count=c, neutron_count=i, inputs=int(1 <= i < 4)) for i, c in enumerate(counts)]
    (record,) = records(play(decoder(counts="cumulative", hold_in_s=0.4), blocks))
    assert record.gamma[:, 0].tolist() == [0x80, 0x90, 0x80, 0x70, 0] and record.faults == ()
    assert record.neutron[:, 0].tolist() == [1] * 5 and record.raw_lines[0].startswith("[base] ")
    assert list(_check_portal(record)) == []


def test_a_cumulative_count_that_falls_is_a_fault() -> None:
    counts = [5000, 5300, 5600, 200, 500, 500]
    blocks = [block_of(gamma_count=c, inputs=int(1 <= i < 4)) for i, c in enumerate(counts)]
    (record,) = records(play(decoder(counts="cumulative", hold_in_s=0.2), blocks))
    assert record.gamma[:, 0].tolist() == [300, 300, 200, 300] and record.faults == ("count_stepped",)
    assert list(_check_portal(record)) == []


def test_verification_finds_a_count_that_its_reading_does_not_say() -> None:
    (record,) = records(play(decoder(), [block_of(), *[CAR] * 5, *[block_of(objects=8)] * 5]))
    gamma = record.gamma.copy()
    gamma[2] += 1
    assert list(_check_portal(msgspec.structs.replace(record, gamma=gamma)))


def test_a_passage_that_stands_for_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpm_aspect, "MAX_READINGS", 10)
    one, two = records(play(decoder(), [block_of(), *[CAR] * 21]))
    assert (
        one.end_reason == "timed_out" and one.faults == ("too_long",) and two.faults == ("start_not_seen", "too_long")
    )


def test_the_clock_steps_back_within_a_passage() -> None:
    there = decoder()
    events = play(there, [block_of(), *[CAR] * 5])
    events += there.take(registers_of(CAR._replace(device_time=2000)), T0_NS - 3600 * 10**9)
    events += there.lost(T0_NS + 6 * STEP_NS)
    (record,) = records(events)
    assert "clock_stepped" in record.faults and list(_check_portal(record)) == []


def test_without_a_neutron_channel() -> None:
    dead = {"neutron_status": 3, "neutron_background": float("nan")}
    blocks = [block_of(**dead), *[block_of(inputs=1, **dead)] * 5, *[block_of(**dead)] * 5]
    (record,) = records(play(decoder(neutron=False), blocks))
    assert record.neutron.shape == (0, 1) and record.neutron_background is None and record.faults == ()
    assert list(_check_portal(record)) == []


# ---- over Modbus


def test_a_passage_over_modbus_and_what_the_device_is() -> None:
    with AspectServer() as server:
        portal = open_driver(server, serial="A-7")
        portal.close()
        info = portal.open()
        assert (info.vendor, info.kinds, info.serial, info.simulated) == ("Aspect", ("portal",), "A-7", True)
        assert "signature 0x4153" in info.note and "not verified" in info.note
        read_until(portal, lambda _: server.readings > 2)
        server.script = [CAR] * 10 + [block_of(objects=8)]
        (record,) = records(read_until(portal, left(1)))
        portal.close()
    assert record.number == 8 and record.gamma[:10, 0].tolist() == [290] * 10 and record.end_reason == "complete"


@pytest.mark.parametrize("mute", [True, False])
def test_units_are_scanned_to_the_upper_end(mute: bool) -> None:
    with AspectServer(unit=9, mute_others=mute) as server:
        portal = open_driver(server, first_unit=4, last_unit=9, scan_answer_s=0.03)
        assert list(dict.fromkeys(server.asked_units)) == [4, 5, 6, 7, 8, 9]
        portal.close()
        server.asked_units.clear()
        portal.open()  # the unit known is asked alone
        assert set(server.asked_units) == {9}
        portal.close()
        other = Config(address=server.address, first_unit=4, last_unit=8, scan_answer_s=0.03, answer_s=0.1)
        with pytest.raises(LinkLost if mute else ProtocolError, match="check"):
            drivers_of.connect("rpm_aspect", other).open()


def test_another_base_is_used_and_told() -> None:
    with AspectServer(base=300, length=25) as server:
        portal = open_driver(server)
        told = portal.read(0.1)
        assert isinstance(told, Health) and "at 300 of 25 registers" in told.text
        read_until(portal, lambda _: server.readings > 2)
        portal.close()


def test_a_wrong_signature_is_refused_until_it_is_right() -> None:
    with AspectServer() as server:
        portal = drivers_of.connect("rpm_aspect", Config(address=server.address, signature=0x1234, answer_s=0.2))
        with pytest.raises(ProtocolError, match="signature 0x4153, expected 0x1234"):
            portal.open()
        with pytest.raises(LinkLost, match="not open"):
            portal.read(0.01)
        server.description[0] = 0x1234
        portal.open()
        portal.close()


def test_the_pace_is_kept() -> None:
    with AspectServer() as server:
        portal = open_driver(server, occupied_poll_s=0.05, vacant_poll_s=0.25)
        began_s, cpu_s = time.monotonic(), time.thread_time()
        while time.monotonic() < began_s + 1.0:
            assert portal.read(0.3) is None
        assert 3 <= server.readings <= 7, "a vacant portal is read every 0.25 s"
        assert time.thread_time() - cpu_s < 0.3, "a busy loop"
        server.block = CAR
        read_until(portal, entered)
        first, began_s = server.readings, time.monotonic()
        while time.monotonic() < began_s + 1.0:
            portal.read(0.05)
        assert 8 <= server.readings - first <= 23, "an occupied one every 0.05 s"
        portal.close()


def test_moments_of_refusal_mark_the_passage_but_do_not_end_it() -> None:
    with AspectServer() as server:
        portal = open_driver(server, refused_s=5.0)
        read_until(portal, lambda _: server.readings > 1)
        server.block = CAR
        events = read_until(portal, lambda e: len(e) > 6)
        server.refuse = ExcCodes.DEVICE_BUSY
        events += read_until(portal, lambda e: any(isinstance(x, Health) for x in e))
        server.refuse, server.cut = None, 11
        time.sleep(0.1)
        server.cut = 0
        events += read_until(portal, lambda e: any(isinstance(x, Health) and x.state == "ok" for x in e))
        server.block = block_of(objects=8)
        events += read_until(portal, left(1))
        portal.close()
    check_order(events)
    (record,) = records(events)
    assert record.end_reason == "complete" and record.faults == ("readings_lost",)
    assert [e.state for e in events if isinstance(e, Health)] == ["degraded", "ok"]


def exception(server: AspectServer) -> None:
    server.refuse = ExcCodes.DEVICE_FAILURE


def half_a_block(server: AspectServer) -> None:
    server.cut = 11


def silence(server: AspectServer) -> None:
    server.silent = True


def dropped(server: AspectServer) -> None:
    server.unplug()


@pytest.mark.parametrize(
    ("trouble", "kind", "words"),
    [
        (exception, ProtocolError, "unit 1, monitor block: Modbus exception 4; check"),
        (half_a_block, ProtocolError, "unit 1, monitor block: 10 registers by function 3, expected 21"),
        (silence, LinkLost, "unit 1: no answer for 0.3 s to registers 100 to 120; check power"),
        (dropped, LinkLost, "the device closed the connection"),
    ],
)
def test_trouble_is_named_loses_no_passage_and_is_over_in_time(
    trouble: Callable[[AspectServer], None], kind: type[ScannerError], words: str
) -> None:
    with AspectServer() as server:
        portal = open_driver(server, refused_s=0.3)
        read_until(portal, lambda _: server.readings > 1)
        server.block = CAR
        events = read_until(portal, lambda e: sum(isinstance(x, CountBlock) for x in e) >= 6)
        trouble(server)
        rest, error = read_to_error(portal)
        assert isinstance(error, kind) and words in str(error) and "127.0.0.1" in str(error)
        check_order(events + rest)
        (cut,) = records(events + rest)
        assert cut.end_reason == "link_lost" and cut.number == 8 and len(cut.gamma) >= 3
        portal.close()
        if trouble in (silence, dropped):
            with pytest.raises(LinkLost, match="check power"):
                portal.open()
        # well again, with the vehicle still there
        began_s = time.monotonic()
        server.refuse, server.cut, server.silent = None, 0, False
        if trouble is dropped:
            server.plug_in()
        while True:
            try:
                portal.open()
                break
            except LinkLost:
                assert time.monotonic() - began_s < 5.0
        events = read_until(portal, entered)
        assert time.monotonic() - began_s < 5.0
        server.block = block_of(objects=8)
        events += read_until(portal, left(1))
        portal.close()
        assert records(events)[0].faults == ("start_not_seen",)


def test_what_is_no_modbus_is_named() -> None:
    channel = MemoryChannel("memory:portal")
    portal = rpm_aspect.connect(Config(address="memory:portal", answer_s=0.2), channel)
    channel.put(b"GB,000379,000371,000407,000371\r\n")
    with pytest.raises(ProtocolError, match="no Modbus TCP header"):
        portal.open()
    portal.close()


def test_answers_in_pieces_and_late_ones() -> None:
    channel = MemoryChannel("memory:portal")
    portal = rpm_aspect.connect(Config(address="memory:portal", last_unit=1, answer_s=0.5), channel)

    def answer(transaction: int, registers: list[int]) -> bytes:
        data = struct.pack(f">BB{len(registers)}H", 3, 2 * len(registers), *registers)
        return struct.pack(">HHHB", transaction, 0, len(data) + 1, 1) + data

    description = answer(1, [0x4153, 8, 1, 100, 21, 0, 0, 0])
    for i in range(len(description)):
        channel.put(description[i : i + 1])
    portal.open()
    channel.put(answer(77, registers_of(CAR)))  # to nobody's question
    assert portal.read(0.05) is None
    channel.put(answer(2, registers_of(CAR)))
    event = portal.read(0.2)
    assert isinstance(event, Occupancy) and event.phase == "entered"
    (record,) = records(portal.end())
    assert record.end_reason == "link_lost" and len(record.gamma) == 1
    portal.close()


# ---- configuration


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"address": "10.0.3.7:502"}, "expected tcp://"),
        ({"address": "serial:///dev/ttyS0"}, "Modbus TCP"),
        ({}, "address"),
        ({"address": "tcp://h:502", "first_unit": 9, "last_unit": 8}, "first_unit 9"),
        ({"address": "tcp://h:502", "counts": "rate"}, "counts"),
        ({"address": "tcp://h:502", "occupied_poll_s": 0.0}, "occupied_poll_s"),
        ({"address": "tcp://h:502", "counts": "cumulative", "vacant_poll_s": 5.0}, "first difference"),
        ({"address": "tcp://h:502", "unit": 1}, "unit"),
    ],
)
def test_config_says_what_is_wrong(table: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(table, Config)


class ContractRig(Rig):
    driver = "rpm_aspect"
    expects = (CountBlock, Occupancy)
    simulated = True

    def __init__(self, server: AspectServer) -> None:
        self.server = server

    @property
    def config(self):
        return Config(address=self.server.address, **FAST)

    def connect(self):
        """Return a driver whose close waits for the server's end of the link, which lives in this process too."""
        source = super().connect()
        close = source.close

        def close_both_ends():
            close()
            self.server.wait_for_no_client()

        source.close = close_both_ends
        return source

    def play(self):
        objects = self.server.block.objects + 1
        self.server.script = [CAR._replace(objects=objects)] * 10 + [block_of(objects=objects)]

    def break_link(self):
        self.server.unplug()

    def mend_link(self):
        self.server.plug_in()


class TestContract(DriverContract):
    driver = "rpm_aspect"

    @pytest.fixture
    def rig(self):
        with AspectServer() as server:
            yield ContractRig(server)
