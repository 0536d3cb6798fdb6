"""What a Rapiscan portal's link may do wrong: each fault is recorded, named and survived, and none reads as clear.

All lines are simulated.
"""

from __future__ import annotations

import os
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drivers import rpm_rapiscan
from drivers.rpm_rapiscan import Config, Decoder
from scanner_io import driver as drivers_of
from scanner_io.channel import MemoryChannel
from scanner_io.driver import Driver
from scanner_io.errors import LinkLost
from scanner_io.formats.portal_daily import format_line
from scanner_io.model import Event, Health, Occupancy, PortalRecord
from tests.rigs import PortalServer
from triage.analysis.fusion import fuse
from triage.analysis.portal import PortalProfile, judge_portal

SECOND = 1_000_000_000
RECOVERY_S = 5.0
"""A lane hears its portal again within so long after the trouble is over."""
SETUP = [
    format_line("SG1", ["002000", "000068", "05", "10", "05.0", "P"]),
    format_line("SG2", ["1111", "0.069", "0.455", "01", "1010", "A"]),
    format_line("SG3", ["0.069", "0.455", "020", "000", "1.10.1"]),
    format_line("SN1", ["000050", "03", "0004", "1200", "01", "120"]),
    format_line("SN2", ["0.504", "5.040", "0.504", "5.040", "PP"]),
]
BACKGROUND = (380, 370, 406, 372)


def vacant() -> list[bytes]:
    return [
        format_line("NB", [3, 0, 2, 0]),
        format_line("NB1", [3.58333373, 0.0, 2.65000033, 0.0]),
        format_line("GB", BACKGROUND),
    ]


def occupied(number: int, gamma: int = 30) -> list[bytes]:
    """Lines of one innocent passage whose counts are its own: no two passages have the same."""
    rng = np.random.default_rng(number)
    lines = [format_line("SP", [0.1281, 5.323, 8.57, 0])]
    for i in range(gamma):
        if i % 5 == 0:
            lines.append(format_line("NS", [int(n) for n in rng.poisson((3.6, 0, 2.6, 0))]))
        shade = 0.75 if 5 <= i < gamma - 10 else 1.0  # between the burst before entry and the hold-in
        lines.append(format_line("GS", [int(n) for n in rng.poisson(np.array(BACKGROUND) * 0.2 * shade)]))
    return [*lines, format_line("GX", [number, 6233, 0, 0])]


def timed(*numbers: int) -> list[tuple[int, bytes]]:
    """Lines of passages one after another, with the UTC nanoseconds of their arrival."""
    at, lines = 1_700_000_000 * SECOND, []
    for line in SETUP:
        lines.append((at, line))
    for number in numbers:
        for _ in range(3):
            at += 5 * SECOND
            lines += [(at, line) for line in vacant()]
        at += 2 * SECOND
        buffered = 5  # as a portal does: these come at once
        for line in occupied(number):
            lines.append((at, line))
            if line[:2] == b"GS":
                at += 0 if buffered else SECOND // 5
                buffered = max(0, buffered - 1)
    at += 5 * SECOND
    return [*lines, *((at, line) for line in vacant())]


def decode(pieces: list[tuple[int, bytes]], decoder: Decoder | None = None) -> list[Event]:
    decoder = decoder or Decoder(Config(address="memory:portal"))
    events = [e for at, piece in pieces for e in decoder.feed(piece, at)]
    return events + decoder.idle(pieces[-1][0] + 6 * SECOND, 6.0)


def records(events: list[Event]) -> list[PortalRecord]:
    return [e.record for e in events if isinstance(e, Occupancy) and e.record is not None]


def outcome(record: PortalRecord) -> str:
    judged = judge_portal(record, PortalProfile())
    alarm = judged.gamma_alarm or judged.neutron_alarm
    return fuse(judged.findings, judged.quality, vendor_alarm=alarm, anything_judged=True)[0]


def essence(record: PortalRecord) -> object:
    return (
        record.number,
        record.gamma.tolist(),
        record.neutron.tolist(),
        record.gamma_alarm.tolist(),
        record.neutron_alarm.tolist(),
    )


TRUTH = {r.number: essence(r) for r in records(decode(timed(1, 2, 3, 4)))}


def test_the_lines_themselves_are_clear() -> None:
    found = records(decode(timed(1, 2, 3, 4)))
    assert [outcome(r) for r in found] == ["CLEAR"] * 4 and list(TRUTH) == [1, 2, 3, 4]


def check(events: list[Event], numbers: tuple[int, ...] = (1, 2, 3)) -> None:
    """Assert that whatever reads as clear is what passed, once, and that no passage is without a record or a word."""
    found = records(events)
    clear = [r for r in found if outcome(r) == "CLEAR"]
    assert all(essence(r) == TRUTH[r.number] for r in clear), "a record reads as clear and is not what passed"
    assert len({(r.boot_epoch, r.number) for r in clear}) == len(clear), "a passage reads as clear twice"
    assert len(found) >= len(numbers) or any("passages_missed" in r.faults for r in found), "a passage was lost"
    phases = [e.phase for e in events if isinstance(e, Occupancy)]
    assert phases == ["entered", "left"] * len(found)


# ---- bytes added, taken away, cut


JUNK = st.binary(min_size=1, max_size=40).map(lambda b: bytes(c for c in b if c not in b"0123456789,"))


@given(st.lists(st.tuples(st.integers(0, 4000), JUNK), min_size=1, max_size=6))
@example([(2000, b"\0")])
@example([(900, b"\r\n")])
@example([(901, b"GX")])
def test_junk_anywhere(places: list[tuple[int, bytes]]) -> None:
    check(decode(spoilt(timed(1, 2, 3), places, keep=True)))


@given(st.lists(st.integers(0, 4000), min_size=1, max_size=6))
@example([529, 529])  # the line end between SP and NS
def test_bytes_dropped_anywhere(places: list[int]) -> None:
    check(decode(spoilt(timed(1, 2, 3), [(at, b"") for at in places], keep=False)))


def spoilt(lines: list[tuple[int, bytes]], places: list[tuple[int, bytes]], *, keep: bool) -> list[tuple[int, bytes]]:
    """Return the lines with bytes put in at the given places of the whole, or (keep=False) one dropped at each."""
    pieces, begin = [], 0
    for at, line in lines:
        inside = sorted((p - begin, junk) for p, junk in places if begin <= p < begin + len(line))
        begin += len(line)
        for position, junk in reversed(inside):
            line = line[:position] + junk + line[position + (not keep) :]
        pieces.append((at, line))
    return pieces


@pytest.mark.parametrize("letter", [b"O", b"l", b"-", b"+", b" ", b"\xb2", b"."])
def test_letters_in_every_count_field_of_a_passage(letter: bytes) -> None:
    lines = timed(1, 2, 3)
    for index, (at, line) in enumerate(lines):
        if line[:2] in (b"GS", b"NS", b"GX") and index % 7 == 0:
            lines[index] = (at, line[:5] + letter + line[6:])
    events = decode(lines)
    check(events)
    assert any(isinstance(e, Health) and (e.component, e.state) == ("line", "degraded") for e in events)


@pytest.mark.parametrize("where", range(0, 60, 7))
def test_nul_bytes_within_and_between_lines(where: int) -> None:
    lines = [(at, line + b"\0" * (i % 3)) for i, (at, line) in enumerate(timed(1, 2, 3))]
    between = decode(lines)
    check(between)
    assert [outcome(r) for r in records(between)] == ["CLEAR"] * 3  # between lines they are no more than filling
    at, line = lines[where]
    lines[where] = (at, line[:6] + b"\0\0" + line[6:])
    check(decode(lines))


def test_one_byte_a_second() -> None:
    """Lines take half a minute each: every one is a passage broken off, and every count is in one of them."""
    at, pieces = 1_700_000_000 * SECOND, []
    for line in [*SETUP, *vacant(), *occupied(1, 10), *vacant()]:
        for i in range(len(line)):
            pieces.append((at, line[i : i + 1]))
            at += SECOND
    events = decode(pieces)
    found = records(events)
    gamma = np.concatenate([r.gamma for r in found])
    assert gamma.tolist() == [[int(f) for f in x.split(b",")[1:]] for x in occupied(1, 10) if x[:2] == b"GS"]
    assert all(r.truncated for r in found) and "CLEAR" not in {outcome(r) for r in found}
    swift = decode([(at + t - 1_700_000_000 * SECOND, x) for t, x in timed(2, 3)])
    assert [outcome(r) for r in records(swift)] == ["CLEAR"] * 2


def test_a_megabyte_in_one_line() -> None:
    lines = timed(1, 2, 3)
    index = next(i for i, (_, x) in enumerate(lines) if x[:2] == b"GX") - 5
    at = lines[index][0]
    long = [(at, b"G" * 4096)] * 256 + [(at, b"\r\n")]
    events = decode([*lines[:index], *long, *lines[index:]])
    check(events)
    assert [(r.number, outcome(r)) for r in records(events)] == [(1, "REVIEW"), (2, "CLEAR"), (3, "CLEAR")]
    told = [e.text for e in events if isinstance(e, Health) and e.component == "line"]
    assert len(told) == 1 and "longer than 1024 bytes" in told[0]


@pytest.mark.parametrize("cut", [1, 10, 31])
def test_unplugged_in_mid_line(cut: int) -> None:
    lines = timed(1, 2, 3)
    index = next(i for i, (_, x) in enumerate(lines) if x[:2] == b"GS") + 8
    decoder = Decoder(Config(address="memory:portal"))
    at, line = lines[index]
    first = [e for t, x in lines[:index] for e in decoder.feed(x, t)] + decoder.feed(line[:cut], at)
    first += decoder.lost(at)
    rest = decode(lines[index + 1 :], decoder)
    check(first + rest)
    broken, remainder, *whole = records(first + rest)
    assert broken.end_reason == "link_lost" and "start_not_seen" in remainder.faults
    assert [outcome(r) for r in (broken, remainder, *whole)] == ["REVIEW", "REVIEW", "CLEAR", "CLEAR"]


def test_no_end_line_ever() -> None:
    events = decode([(at, x) for at, x in timed(1, 2, 3) if x[:2] != b"GX"])
    found = records(events)
    assert [(r.end_reason, r.number, outcome(r)) for r in found] == [("timed_out", None, "REVIEW")] * 3
    assert not [e for e in events if isinstance(e, Health)]


def test_a_passage_of_which_only_the_end_came() -> None:
    lines = timed(1, 2, 3)
    ends = [i for i, (_, x) in enumerate(lines) if x[:2] == b"GX"]
    gone = [*lines[: ends[0] + 10], *lines[ends[1] :]]
    events = decode(gone)
    first, second, third = records(events)
    assert (first.number, second.number, third.number) == (1, 2, 3)
    assert second.faults == ("start_not_seen",) and second.gamma.shape == (0, 4)
    assert [outcome(r) for r in (first, second, third)] == ["CLEAR", "UNUSABLE", "CLEAR"]


def test_a_passage_of_which_nothing_came_is_known_by_its_number() -> None:
    lines = timed(1, 2, 3, 4)
    ends = [i for i, (_, x) in enumerate(lines) if x[:2] == b"GX"]
    events = decode([*lines[: ends[0] + 10], *lines[ends[1] + 1 :]])
    assert [(r.number, r.faults, outcome(r)) for r in records(events)] == [
        (1, (), "CLEAR"),
        (3, ("passages_missed",), "REVIEW"),
        (4, (), "CLEAR"),
    ]
    assert [(e.component, e.state) for e in events if isinstance(e, Health)] == [
        ("number", "degraded"),
        ("number", "ok"),
    ]


def test_a_passage_broken_off_explains_a_gap_of_numbers() -> None:
    lines = timed(1, 2, 3)
    ends = [i for i, (_, x) in enumerate(lines) if x[:2] == b"GX"]
    events = decode([*lines[: ends[1]], *lines[ends[1] + 1 :]])
    assert [(r.number, r.end_reason, r.faults) for r in records(events)] == [
        (1, "complete", ()),
        (None, "timed_out", ()),
        (3, "complete", ()),
    ]


def test_a_speed_at_the_display_cap_is_no_speed() -> None:
    cap = format_line("SP", [0.0023, 99.999, 160.93, 0])
    lines = [(at, cap if x[:2] == b"SP" else x) for at, x in timed(1)]
    (record,) = records(decode(lines))
    assert record.speed_kmh is None and outcome(record) == "CLEAR"


@pytest.mark.parametrize("code", ["S1", "S2"])
def test_a_spectroscopic_portal_is_told_and_never_clear(code: str) -> None:
    lines = timed(1, 2)
    events = decode([(lines[0][0], f"{code},1,2,3\r\n".encode()), *lines])
    told = [e for e in events if isinstance(e, Health) and e.component == "spectroscopic"]
    assert [e.state for e in told] == ["fault"] and "gross-count portals only" in told[0].text
    assert [(r.faults, outcome(r)) for r in records(events)] == [(("spectroscopic",), "REVIEW")] * 2


def test_a_damaged_line_before_entry_marks_the_passage() -> None:
    """It may have been the passage's first; a vacant line in between says that it was not."""
    lines = timed(1, 2)
    entry = next(i for i, (_, x) in enumerate(lines) if x[:2] == b"SP")
    at = lines[entry][0]
    for junk, fault in ((b"NS,00\xff003,0,2,0\r\n", "damaged_line"), (b"ZQ,1\r\n", "unknown_line")):
        (first, second) = records(decode([*lines[:entry], (at, junk), *lines[entry:]]))
        assert (first.faults, second.faults) == ((fault,), ()) and outcome(first) == "REVIEW"
        (first, second) = records(decode([*lines[: entry - 3], (at, junk), *lines[entry - 3 :]]))
        assert first.faults == second.faults == ()


# ---- on a live link


def read_for(portal: Driver, seconds: float) -> Iterator[Event]:
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        event = portal.read(0.1)
        if event is not None:
            yield event


def test_recovers_within_seconds_of_every_trouble() -> None:
    channel = MemoryChannel("memory:portal")
    portal = rpm_rapiscan.connect(Config(address="memory:portal"), channel)
    portal.open()
    try:
        for number, trouble in enumerate(
            (b"\0" * 5000, b"\xff" * (1 << 20), b"GS,", b"GX,000\x007,", b"A" * 1024, b"\r" * 1000, os.urandom(70_000)),
            1,
        ):
            channel.put(trouble)
            began_s = time.monotonic()
            for line in (b"\r\n", *vacant(), *occupied(number)):
                channel.put(line)
            for event in read_for(portal, RECOVERY_S):
                if isinstance(event, Occupancy) and event.record is not None and event.record.number == number:
                    break
            else:
                pytest.fail(f"nothing of passage {number} within {RECOVERY_S} s after {trouble[:20]!r}")
            assert time.monotonic() - began_s < RECOVERY_S
    finally:
        portal.close()


def test_silence_and_noise_cost_no_processor_time() -> None:
    channel = MemoryChannel("memory:portal")
    portal = rpm_rapiscan.connect(Config(address="memory:portal"), channel)
    portal.open()
    try:
        for trouble in (b"", b"GS,000070,", b"\0"):
            channel.put(trouble)
            before_s = time.process_time()
            assert len(list(read_for(portal, 1.0))) <= 2
            assert time.process_time() - before_s < 0.1, f"a busy loop after {trouble!r}"
    finally:
        portal.close()


def test_plugged_in_again_over_tcp() -> None:
    """The link is cut three times in mid-line; each time the rest follows on the next connection."""
    lines = [*SETUP, *vacant(), *occupied(1), *vacant(), *occupied(2), *vacant(), *occupied(3), *vacant()]
    with PortalServer(lines, drop_after=777, drops=3, resume=True, split=50) as server:
        portal = drivers_of.connect("rpm_rapiscan", Config(address=server.address, occupancy_timeout_s=1.0))
        events: list[Event] = []
        longest_s = 0.0
        for _ in range(4):
            began_s = time.monotonic()
            portal.open()
            try:
                for event in read_for(portal, 3.0):
                    longest_s = max(longest_s, time.monotonic() - began_s) if not events else longest_s
                    events.append(event)
            except LinkLost as error:
                assert "closed the connection" in str(error)
            finally:
                portal.close()
        assert longest_s < RECOVERY_S and server.clients == 4
    found = records(events)
    clear = [r for r in found if outcome(r) == "CLEAR"]
    assert all(essence(r) == TRUTH[r.number] for r in clear)
    assert len(found) >= 3 and [r.end_reason for r in found].count("link_lost") >= 2


# ---- serial line


class Terminal:
    """The portal's end of a pseudo-terminal; the driver opens the other as a serial port."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.address = f"serial://{os.ttyname(self._slave)}?baud=9600"

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.master, data[:256]) :]

    def close(self) -> None:
        os.close(self.master)
        os.close(self._slave)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


def test_a_portal_on_a_serial_line(terminal: Terminal, tmp_path: Path) -> None:
    portal = drivers_of.connect("rpm_rapiscan", Config(address=terminal.address))
    info = portal.open()
    events: list[Event] = []
    try:
        assert info.address == terminal.address and portal.read(0.05) is None
        for line in [*SETUP, *vacant(), *occupied(1), *vacant(), *occupied(2), *vacant()]:
            for piece in (line[:5], line[5:]):
                terminal.say(piece)
            events += read_for(portal, 0.0)
            while (event := portal.read(0.0)) is not None:
                events.append(event)
        events += read_for(portal, 0.5)
    finally:
        portal.close()
    assert [essence(r) for r in records(events)] == [TRUTH[1], TRUTH[2]]
    assert [outcome(r) for r in records(events)] == ["CLEAR"] * 2


def test_a_serial_line_unplugged_in_mid_line() -> None:
    terminal = Terminal()
    portal = drivers_of.connect("rpm_rapiscan", Config(address=terminal.address))
    portal.open()
    try:
        terminal.say(b"".join([*SETUP, *vacant(), *occupied(1)[:12]]) + b"GS,0000")
        events = list(read_for(portal, 0.5))
        terminal.close()
        with pytest.raises(LinkLost, match="read failed"):
            while True:
                event = portal.read(0.5)
                events += [event] if event is not None else []
    finally:
        portal.close()
    (record,) = records(events)
    assert record.end_reason == "link_lost" and record.raw_lines[-1] == "[cut off] GS,0000"
    assert outcome(record) == "REVIEW"
