"""The Rapiscan portal driver against a fake portal on TCP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from drivers import rpm_rapiscan
from drivers.rpm_rapiscan import Config, Decoder
from scanner_io import driver as drivers_of
from scanner_io.channel import MemoryChannel
from scanner_io.driver import Driver
from scanner_io.errors import ConfigError, LinkLost
from scanner_io.formats.portal_daily import format_line, read_daily_file
from scanner_io.model import CountBlock, Event, Health, Occupancy, PortalRecord
from tests.contract import DriverContract, Rig
from tests.rigs import PortalServer, timed_lines

LOG = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "portal" / "S2-C3-NORM2.csv"
needs_log = pytest.mark.skipif(not LOG.is_file(), reason="no recorded portal logs beside the project")

GB = format_line("GB", [379, 371, 407, 371])
NB1 = format_line("NB1", [3.58333373, 0.0, 2.65000033, 0.0])
SP = format_line("SP", [0.1281, 5.323, 8.57, 0])
NS = format_line("NS", [4, 0, 2, 0])
GS = format_line("GS", [70, 71, 72, 73])


def passage(number: int, gamma: int = 20) -> list[bytes]:
    return [NB1, GB, SP, NS, *[GS] * gamma, format_line("GX", [number, 6233, 0, 0])]


def open_driver(address: str, **options: float) -> Driver:
    portal = drivers_of.connect("rpm_rapiscan", Config(address=address, **options))
    portal.open()
    return portal


def events_until_lost(portal: Driver, limit_s: float = 20.0) -> Iterator[Event]:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            event = portal.read(0.2)
        except LinkLost:
            return
        if event is not None:
            yield event
    pytest.fail(f"the link was not lost within {limit_s} s")


def records(events: list[Event]) -> list[PortalRecord]:
    return [e.record for e in events if isinstance(e, Occupancy) and e.record is not None]


def read_records(portal: Driver, count: int, limit_s: float = 20.0) -> list[PortalRecord]:
    found: list[PortalRecord] = []
    deadline = time.monotonic() + limit_s
    while len(found) < count and time.monotonic() < deadline:
        event = portal.read(0.2)
        found += records([event] if event is not None else [])
    return found


def test_plays_passages_and_says_what_it_is() -> None:
    with PortalServer(passage(1) + passage(2)) as server:
        portal = drivers_of.connect("rpm_rapiscan", Config(address=server.address, serial="A-7"))
        info = portal.open()
        assert (info.vendor, info.model, info.kinds, info.serial) == ("Rapiscan", "TSA portal", ("portal",), "A-7")
        assert info.address == server.address and not info.simulated and not portal.pausable
        assert [(r.number, len(r.gamma), r.end_reason) for r in read_records(portal, 2)] == [
            (1, 20, "complete"),
            (2, 20, "complete"),
        ]
        assert portal.read(0.01) is None
        portal.acknowledge("any")
        portal.close()
        portal.close()


def test_several_clients_hear_the_same() -> None:
    with PortalServer(passage(1)) as server:
        portals = [open_driver(server.address) for _ in range(3)]
        assert [read_records(p, 1)[0].number for p in portals] == [1, 1, 1]
        for portal in portals:
            portal.close()
    assert server.clients == 3


@pytest.mark.parametrize("split", [1, 7, 4096])
def test_packets_of_any_size(split: int) -> None:
    with PortalServer(passage(1) + passage(2), split=split, stay=False) as server:
        portal = open_driver(server.address)
        events = list(events_until_lost(portal))
        portal.close()
    assert [r.gamma.tolist() for r in records(events)] == [[[70, 71, 72, 73]] * 20] * 2
    assert sum(isinstance(e, CountBlock) for e in events) == 2 * (2 + 1 + 20)


def test_link_dropped_in_mid_line_ends_the_passage_first() -> None:
    lines = passage(1)
    cut = sum(map(len, lines[:14])) + 11
    with PortalServer(lines, drop_after=cut) as server:
        portal = open_driver(server.address)
        (record,) = records(list(events_until_lost(portal)))
        assert record.end_reason == "link_lost" and len(record.gamma) == 10
        assert record.raw_lines[-1] == "[cut off] " + GS[:11].decode()
        with pytest.raises(LinkLost, match="closed the connection"):
            portal.read(0.1)
        portal.close()


def test_background_outlives_the_link_and_the_rest_is_marked() -> None:
    lines = passage(1) + passage(2)
    cut = sum(map(len, lines[:14])) + 11
    with PortalServer(lines, drop_after=cut, resume=True) as server:
        portal = open_driver(server.address)
        (lost,) = records(list(events_until_lost(portal)))
        portal.close()
        portal.open()
        rest, whole = read_records(portal, 2)
        portal.close()
    assert lost.end_reason == "link_lost" and "start_not_seen" in rest.faults
    assert rest.gamma_background is not None and rest.gamma_background[0] == 379
    assert len(lost.gamma) + len(rest.gamma) == 19  # the line that was cut is lost
    assert whole.faults == () and whole.number == 2


def test_garbage_is_told_and_does_not_stop_the_portal() -> None:
    garbage = {0: b"\0\xff\xfe noise \r\n", 10: b"GS,0000A1,1,2,3\r\n", 30: b"\x01" * 100_000 + b"\r\n"}
    with PortalServer(passage(1) + passage(2), garbage=garbage, stay=False) as server:
        portal = open_driver(server.address)
        events = list(events_until_lost(portal))
        portal.close()
    assert [r.faults for r in records(events)] == [("damaged_line",), ("damaged_line",)]
    assert [len(r.gamma) for r in records(events)] == [20, 20]
    assert [e.state for e in events if isinstance(e, Health)] == ["degraded"]


def test_no_end_line_times_out_while_the_link_stands() -> None:
    with PortalServer([GB, *[GS] * 5]) as server:
        portal = open_driver(server.address, occupancy_timeout_s=1.0, silence_s=30.0)
        began_s = time.monotonic()
        (record,) = read_records(portal, 1)
        assert record.end_reason == "timed_out" and 0.9 < time.monotonic() - began_s < 5.0
        portal.close()


def test_silence_is_a_lost_link() -> None:
    channel = MemoryChannel("memory:portal")
    config = Config(address="memory:portal", silence_s=6.0)
    portal = rpm_rapiscan.connect(config, channel)
    portal._silence_s = 0.2  # the config's smallest is 6 s, a test's patience is not
    portal.open()
    channel.put(GB + GS)
    events = list(events_until_lost(portal))
    (record,) = records(events)
    assert record.end_reason == "link_lost"
    with pytest.raises(LinkLost, match="no byte for"):
        portal.read(0.01)
    portal.close()


def test_the_rig_leaves_no_thread_and_no_socket() -> None:
    before = threading.active_count()
    with PortalServer([GB] * 200_000) as server:
        stuck = socket.create_connection(("127.0.0.1", server.port))  # a client that never reads
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.close()
        time.sleep(0.2)
    stuck.close()
    assert threading.active_count() == before


def test_nobody_there() -> None:
    with PortalServer([]) as server:
        address = server.address
    portal = drivers_of.connect("rpm_rapiscan", Config(address=address))
    with pytest.raises(LinkLost, match="cannot connect"):
        portal.open()
    portal.close()


@needs_log
def test_a_recorded_log_over_tcp_gives_the_records_of_the_file() -> None:
    with PortalServer(timed_lines(LOG), split=1000, stay=False) as server:
        portal = open_driver(server.address)
        live = records(list(events_until_lost(portal, 40.0)))
        portal.close()
    offline = read_daily_file(LOG)
    assert [r.number for r in live] == [r.number for r in offline]
    for a, b in zip(live, offline, strict=True):
        assert a.gamma.tolist() == b.gamma.tolist() and a.neutron.tolist() == b.neutron.tolist()
        assert a.gamma_alarm.tolist() == b.gamma_alarm.tolist()
        assert a.gamma_background is not None and b.gamma_background is not None
        assert a.gamma_background.tolist() == b.gamma_background.tolist()
        assert (a.speed_kmh, a.raw_lines, a.faults) == (b.speed_kmh, b.raw_lines, b.faults)


@needs_log
def test_twenty_times_as_fast_as_life() -> None:
    lines = timed_lines(LOG)
    first = next(i for i, (_, line) in enumerate(lines) if line.startswith(b"SP"))
    end = next(i for i, (_, line) in enumerate(lines) if line.startswith(b"GX")) + 1
    vacancy = [(lines[first][0], line) for _, line in lines[first - 15 : first]]  # without its gaps of 5 s
    piece = vacancy + lines[first:end]
    with PortalServer(piece, speed=20.0) as server:
        portal = open_driver(server.address)
        began_s = time.monotonic()
        (record,) = read_records(portal, 1)
        took_s = time.monotonic() - began_s
        portal.close()
    assert 0.4 < took_s < 5.0  # about 12 s of life
    assert record.number == 109 and record.gamma_interval_s == 0.2 and record.faults == ()
    assert (record.end_utc_ns - record.start_utc_ns) / 1e9 < 5.0


@pytest.mark.parametrize("step_s", [-3600.0, 10.0])
def test_a_clock_set_in_mid_passage_neither_cuts_nor_doubles_it(monkeypatch: pytest.MonkeyPatch, step_s: float) -> None:
    shift_ns = 0
    real_time_ns = time.time_ns
    monkeypatch.setattr(drivers_of.time, "time_ns", lambda: real_time_ns() + shift_ns)
    channel = MemoryChannel("memory:portal")
    portal = rpm_rapiscan.connect(Config(address="memory:portal"), channel)
    portal.open()
    lines = passage(1)
    events: list[Event] = []
    for piece in (lines[:10], lines[10:], passage(2)):
        channel.put(b"".join(piece))
        while (event := portal.read(0.05)) is not None:
            events.append(event)
        shift_ns = int(step_s * 1e9)
    portal.close()
    first, second = records(events)
    assert (len(first.gamma), first.end_reason, first.faults) == (20, "complete", ("clock_stepped",))
    assert (len(second.gamma), second.end_reason, second.faults) == (20, "complete", ())
    assert abs(second.start_utc_ns - real_time_ns() - shift_ns) < 2e9
    assert 0 <= first.end_utc_ns - first.start_utc_ns < 2e9
    assert [(e.component, e.state) for e in events if isinstance(e, Health)] == [("clock", "degraded")]


# ---- configuration


@pytest.mark.parametrize("address", ["tcp://10.0.3.7:1601", "serial:///dev/ttyUSB0?baud=9600"])
def test_addresses(address: str) -> None:
    config = Config(address=address)
    assert config.silence_s == 30.0 and rpm_rapiscan.kinds(config) == ("portal",)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"address": "10.0.3.7:1601"}, "expected tcp://"),
        ({"address": "tcp://10.0.3.7"}, "expected tcp://"),
        ({}, "address"),
        ({"address": "tcp://h:1", "silence_s": 1.0}, r"silence_s"),
        ({"address": "tcp://h:1", "occupancy_timeout_s": 0.1}, r"occupancy_timeout_s"),
        ({"address": "tcp://h:1", "occupancy_timeout_s": 30.0}, "below silence_s"),
        ({"address": "tcp://h:1", "detectors": 0}, "detectors"),
        ({"address": "tcp://h:1", "port": 1601}, "port"),
    ],
)
def test_config_says_what_is_wrong(table: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(table, Config)


def test_wrong_config_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected Config"):
        drivers_of.connect("rpm_rapiscan", object())


def test_decoder_takes_the_config() -> None:
    decoder = Decoder(Config(address="memory:x", occupancy_timeout_s=2.0, detectors=2))
    decoder.feed(b"GB,000100,000100\r\nGS,000020,000021\r\n", 0)
    (record,) = records(decoder.idle(3_000_000_000, 3.0))
    assert record.gamma.tolist() == [[20, 21]]


class ContractRig(Rig):
    """The driver on a channel in memory."""

    driver = "rpm_rapiscan"
    expects = (CountBlock, Occupancy)

    def __init__(self):
        self.channel = MemoryChannel("memory:portal")

    @property
    def config(self):
        return rpm_rapiscan.Config(address="memory:portal")

    def connect(self):
        return rpm_rapiscan.connect(self.config, self.channel)

    def play(self):
        interval = format_line("GS", [70, 71, 72, 73])
        before = [format_line("NB1", [3.5, 0.0, 2.6, 0.0]), format_line("GB", [379, 371, 407, 371])]
        entry = [format_line("SP", [0.1281, 5.323, 8.57, 0]), format_line("NS", [4, 0, 2, 0])]
        for line in [*before, *entry, *[interval] * 20, format_line("GX", [1, 6233, 0, 0])]:
            self.channel.put(line)

    def break_link(self):
        self.channel.hang_up()

    def mend_link(self):
        pass  # the channel opens again


class TestContract(DriverContract):
    driver = "rpm_rapiscan"

    @pytest.fixture
    def rig(self):
        return ContractRig()
