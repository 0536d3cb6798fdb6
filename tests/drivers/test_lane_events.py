"""Events of small devices: lines over TCP and HTTP, joined to the vehicle that they are of."""

import http.client
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import lane_events
from drivers.lane_events import Config, decode
from scanner_io import recording
from scanner_io.errors import LinkLost
from scanner_io.model import Health, LaneEvent
from tests import samples
from tests.contract import DriverContract, Rig
from tests.drivers.test_file_drop import read_all
from triage.service.assembly import Assembly, LaneSpec

NOW_NS = 1_769_852_701_000_000_000


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def say(port, *lines):
    with socket.create_connection(("127.0.0.1", port)) as peer:
        for line in lines:
            peer.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")


class EventsRig(Rig):
    driver = "lane_events"
    expects = (LaneEvent,)

    def __init__(self) -> None:
        self.port = free_port()

    @property
    def config(self) -> Config:
        return Config(port=self.port)

    def play(self) -> None:
        say(self.port, {"event": "plate", "text": "AB 123 CD", "confidence": 90})


class TestLaneEvents(DriverContract):
    driver = "lane_events"

    @pytest.fixture
    def rig(self):
        return EventsRig()


@pytest.fixture
def source():
    made = lane_events.connect(Config(port=free_port(), clients=4))
    made.open()
    made.port = made._config.port
    yield made
    made.close()


def test_lines_in_pieces_and_what_is_no_event(source):
    number = {"event": "container", "text": "CSQU3054383", "confidence": 97, "new": 1}
    pieces = b'{"event": "weigh', b'bridge", "weight_kg": 23460}\r\n\n'
    say(source.port, *pieces, b"not JSON\n", {"event": "plate"}, {"event": "door", "text": "x"}, number)
    events = read_all(source, quiet_s=0.3)
    assert [(e.kind, e.text, e.weight_kg) for e in events if isinstance(e, LaneEvent)] == [
        ("weighbridge", "", 23460.0), ("container", "CSQU3054383", None),
    ]  # fmt: skip
    assert len([e for e in events if isinstance(e, Health)]) == 3


@pytest.mark.parametrize(
    ("body", "status"), [(b'{"event": "light_barrier", "state": "blocked"}\n', 204), (b"x\n", 400), (b"", 204)]
)
def test_http(source, body, status):
    peer = http.client.HTTPConnection("127.0.0.1", source.port, timeout=5)
    peer.request("POST", "/events", body)
    events = read_all(source, quiet_s=0.2)
    assert peer.getresponse().status == status
    peer.close()
    assert len(events) == bool(body)


def test_http_of_other_kinds_and_sizes(source):
    for request, status in (
        (b"GET / HTTP/1.1\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", b"431"),
    ):
        with socket.create_connection(("127.0.0.1", source.port)) as peer:
            peer.sendall(request)
            assert source.read(0.2) is None
            assert peer.recv(100).split()[1] == status


def test_a_clock_an_hour_off_and_times_without_a_zone():
    good, odd = decode(b'{"event":"plate","text":"A","time":"2026-01-31T09:45:00.5Z"}', NOW_NS)
    assert good.utc_ns == 1_769_852_700_500_000_000 and odd == ""
    late, odd = decode(b'{"event":"plate","text":"A","time":"2026-01-31T10:45:01Z"}', NOW_NS)
    assert late.utc_ns == NOW_NS and "+3600 s off" in odd
    unzoned, odd = decode(b'{"event":"plate","text":"A","time":"2026-01-31T09:45:01"}', NOW_NS)
    assert unzoned.utc_ns == NOW_NS and "no zone" in odd


@given(st.binary(max_size=200))
def test_foreign_lines_raise_only_value_errors(line):
    try:
        event, odd = decode(line, NOW_NS)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(event, LaneEvent) and isinstance(odd, str)


def test_floods_and_endless_lines_hold_up_nobody(source):
    idle = [socket.create_connection(("127.0.0.1", source.port)) for _ in range(10)]
    assert source.read(0.2) is None
    endless = socket.create_connection(("127.0.0.1", source.port))
    endless.sendall(b"x" * 50_000)
    assert source.read(0.2) is None
    endless.sendall(b"x" * 50_000)
    (told,) = read_all(source, quiet_s=0.2)
    assert "cut off" in told.text
    say(source.port, {"event": "plate", "text": "A"})
    assert isinstance(source.read(1.0), LaneEvent)
    for peer in (*idle, endless):
        peer.close()


def test_a_port_that_is_taken(source):
    other = lane_events.connect(Config(port=source.port))
    with pytest.raises(LinkLost, match="another program"):
        other.open()


# -- joined to the passage -----------------------------------------------------------------------------------------


def event(seconds, kind="plate", **fields):
    return LaneEvent(utc_ns=samples.START_NS + int(seconds * 1e9), kind=kind, **fields)


def scans_of(events, declared=True):
    """Return the scans of two passages 60 s apart, with these events."""
    from drivers.replay import scan_events

    assembly = Assembly(LaneSpec(name="north", expected=("radiograph",), join_window_s=5.0))
    out = []
    for e in events:
        out += assembly.feed(2, e, 0.0)
    scan = samples.scan(portal=None, declaration=samples.declaration() if declared else None)
    for e in scan_events(scan, "a"):
        out += assembly.feed(0, e, 0.0)
    return [a.scan for a in out + assembly.flush()]


def test_events_go_to_the_passage_near_them_and_begin_none():
    near, far = event(-2, text="AB123"), event(-40, text="OLD1")
    weight = event(1.5, "weighbridge", weight_kg=23_460.0)
    (scan,) = scans_of([far, near, weight])
    assert scan.lane_events == (near, weight)
    assert scans_of([far])[0].lane_events == ()


def test_a_container_read_that_is_not_the_declared_one_is_flagged():
    (scan,) = scans_of([event(0, "container", text="CSQU3054383")])
    declared = samples.declaration().container_numbers
    assert ("identity_differs" in {q.code for q in scan.quality}) == ("CSQU3054383" not in declared)
    (other,) = scans_of([event(0, "container", text="ZZZU9999999")])
    assert "identity_differs" in {q.code for q in other.quality}
    (alone,) = scans_of([event(0, "container", text="ZZZU9999999")], declared=False)
    assert alone.container_numbers == ("ZZZU9999999",)


def test_they_are_recorded_and_replayed(tmp_path):
    (scan,) = scans_of([event(0, text="AB123"), event(1, "weighbridge", weight_kg=5.0)])
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    stored = recording.read(path).scan
    assert stored.lane_events == scan.lane_events
    assert scans_of([])[0].lane_events == ()


def test_speeds_go_to_their_passage_and_push_nothing_out():
    plate = event(-2, text="AB123")
    speeds = [event(k / 100, "speed", speed_mm_s=1450.0 - k) for k in range(-400, 1500)]
    (scan,) = scans_of([plate, *speeds])
    assert plate in scan.lane_events
    told = [e.speed_mm_s for e in scan.lane_events if e.kind == "speed"]
    assert len(told) > 400 and told == sorted(told, reverse=True)
    read, _ = decode(b'{"event": "speed", "speed_mm_s": -20.5, "device": "radar"}', 1)
    assert (read.kind, read.speed_mm_s, read.device) == ("speed", -20.5, "radar")
    with pytest.raises(ValueError, match="tells nothing"):
        decode(b'{"event": "speed"}', 1)
