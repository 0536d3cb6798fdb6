"""What a device sent, kept and played again: the same events come out, from every driver."""

import contextlib
import threading
import time

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io import capture, driver
from scanner_io.channel import MemoryChannel
from scanner_io.conformance import collect, complete
from scanner_io.errors import ConfigError, DataError, LinkLost, StorageError
from scanner_io.model import EndOfSource, Health
from tests import samples
from tests.drivers import (
    test_cargo_feed,
    test_dicom_store,
    test_file_drop,
    test_lane_events,
    test_line_tcp,
    test_passages,
    test_replay,
    test_rpm_aspect,
    test_rpm_rapiscan,
    test_simulated,
    test_stream_v2,
)
from triage.cli import cli


def told(events):
    """Return what events say, without when they arrived and where from."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return [str(value.dtype), value.tolist()]
        raise NotImplementedError

    def kept(value):
        if isinstance(value, dict):
            left = {
                k: v for k, v in value.items() if not k.endswith("_ns") and k not in ("source", "source_ref", "note")
            }
            return {k: kept(v) for k, v in left.items() if k != "boot_epoch"}
        return [kept(v) for v in value] if isinstance(value, list | tuple) else value

    return [
        (type(e).__name__, kept(msgspec.to_builtins(e, enc_hook=plain))) for e in events if not isinstance(e, Health)
    ]


def acknowledged(rig, source):
    events = collect(rig, source)
    for ref in {getattr(e, "source_ref", "") for e in events}:
        source.acknowledge(ref)
    return events


def captured(rig, path):
    """Return the events of one passage of a rig, kept as they came."""
    with capture.Capture(path, rig.driver, rig.config) as kept:
        module = driver.load(rig.driver)
        channel = getattr(rig, "channel", None)
        if isinstance(channel, MemoryChannel):
            source = module.connect(rig.config, capture.TappedChannel(channel, kept.add))
        else:
            source = driver.connect(rig.driver, rig.config, kept.add)
        try:
            source.open()
            rig.play()
            return acknowledged(rig, source)
        finally:
            source.close()
            assert kept.problem == ""


def played(rig, config, path, to, order):
    """Return the events that a new driver gives of a played capture; the player is told where to play.

    order : who is first: "driver" (it is the one that listens), "player" (as soon as it can be found), or "all", where
        the driver opens what is complete
    """
    places, failures = [], []
    found = threading.Event()

    def ready(place):
        places.append(place)
        found.set()

    def run():
        try:
            capture.play(path, to, speed=0, ready=ready)
        except LinkLost as error:  # the driver has what it wants, and has gone
            failures.append(error)
        finally:
            found.set()

    player = threading.Thread(target=run)
    source = None
    try:
        if order == "driver":
            source = driver.connect(rig.driver, config(to))
            source.open()
        player.start()
        assert found.wait(10) and places, failures
        if order == "all":
            player.join(20)
        if source is None:
            source = driver.connect(rig.driver, config(places[0]))
            source.open()
        return until_the_end(rig, source)
    finally:
        if source is not None:
            source.close()
        player.join(20)
        assert not player.is_alive()


def until_the_end(rig, source):
    """Return events until the player has gone, or all have come."""
    events = []
    deadline_s = time.monotonic() + rig.limit_s
    while time.monotonic() < deadline_s:
        try:
            event = source.read(0.05)
        except LinkLost:
            return events
        if event is None and complete(rig, events):
            return events
        events += [] if event is None else [event]
        if isinstance(event, EndOfSource):
            return events
    pytest.fail(f"not all came: {events}")


def with_address(rig):
    return lambda place: msgspec.structs.replace(rig.config, address=place)


@contextlib.contextmanager
def device(name, folder):
    """Give a rig, where a capture of it is played to, the configuration that leads there, and who is first."""
    (folder / "first").mkdir()
    (folder / "second").mkdir()
    match name:
        case "file_drop" | "passages":
            module = test_file_drop.FileDropRig if name == "file_drop" else test_passages.PassageRig
            rig = module(folder / "first")
            changed = msgspec.structs.replace(rig.config, path=str(folder / "second"))
            yield rig, str(folder / "second"), lambda _: changed, "player"
        case "cargo_feed":
            rig = test_cargo_feed.FeedRig(folder / "first")
            changed = msgspec.structs.replace(rig.config, folder=str(folder / "second"))
            yield rig, str(folder / "second"), lambda _: changed, "player"
        case "replay":
            scan = samples.scan()
            from scanner_io import recording

            recording.write(folder / "first" / f"{scan.scan_id}.scan.h5", scan)
            rig = test_replay.ReplayRig(folder / "first")
            changed = msgspec.structs.replace(rig.config, paths=(str(folder / "second"),))
            yield rig, str(folder / "second"), lambda _: changed, "all"  # no folder that is empty can be opened
        case "rpm_rapiscan":
            rig = test_rpm_rapiscan.ContractRig()
            yield rig, "127.0.0.1:0", with_address(rig), "player"
        case "line_tcp":
            rig = test_line_tcp.LineRig()
            rig.connect()
            yield rig, "127.0.0.1:0", with_address(rig), "player"
            rig.close()
        case "lane_events":
            rig = test_lane_events.EventsRig()
            port = test_lane_events.free_port()
            changed = msgspec.structs.replace(rig.config, port=port)
            yield rig, f"127.0.0.1:{port}", lambda _: changed, "driver"
        case "rpm_aspect":
            with test_rpm_aspect.AspectServer() as server:
                rig = test_rpm_aspect.ContractRig(server)
                yield rig, "127.0.0.1:0", with_address(rig), "player"
        case "stream_v2":
            rig = test_stream_v2.StreamRig()
            changed = lambda place: msgspec.structs.replace(rig.config, endpoint=place)  # noqa: E731
            yield rig, "tcp://127.0.0.1:*", changed, "player"
            rig.close()
        case "dicom_store":
            rig = test_dicom_store.DicomRig(folder / "first")
            port = test_dicom_store.free_port()
            changed = msgspec.structs.replace(rig.config, port=port, spool_dir=str(folder / "second"))
            yield rig, f"127.0.0.1:{port}", lambda _: changed, "driver"


KINDS = [
    "file_drop", "passages", "replay", "rpm_rapiscan", "line_tcp", "rpm_aspect", "stream_v2", "dicom_store",
    "lane_events", "cargo_feed",
]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_capture_played_gives_the_events_that_were(name, tmp_path):
    path = tmp_path / "kept.capture"
    with device(name, tmp_path) as (rig, to, config, order):
        first = captured(rig, path)
        second = played(rig, config, path, to, order)
    assert told(second) == told(first)
    assert len(told(first)) >= len(rig.expects)


def test_every_driver_is_among_them_and_a_simulation_is_made_from_its_settings(tmp_path):
    assert set(driver.names()) - {"passages"} <= {*KINDS, "simulated"}
    rig = test_simulated.SimulatedRig()
    first = captured(rig, tmp_path / "kept.capture")
    head, records = capture.read(tmp_path / "kept.capture")
    assert list(records) == []
    module = driver.load(head["driver"])
    source = driver.connect(head["driver"], msgspec.convert(head["config"], module.Config))
    source.open()
    assert told(collect(rig, source)) == told(first)
    source.close()
    with pytest.raises(DataError, match="simulated"):
        capture.play(tmp_path / "kept.capture", "x")


def some_capture(path, kind="bytes"):
    with capture.Capture(path, "rpm_rapiscan", {"address": "x"}) as kept:
        for number in range(3):
            kept.add(kind, "name", bytes([number]) * 100)
    return path


def test_damage_is_told_after_what_is_whole(tmp_path):
    path = some_capture(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:-20])
    _, records = capture.read(path)
    assert [next(records).contents[0] for _ in range(2)] == [0, 1]
    with pytest.raises(DataError, match="cut short"):
        next(records)
    for contents in (b"", b"{}\n", b"\xff\xff", b'{"scanlane_capture": 2}\n'):
        path.write_bytes(contents)
        with pytest.raises(DataError, match="no capture"):
            capture.read(path)


def test_a_full_capture_stops_and_says_so_and_nothing_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "MOST_BYTES", 300)
    path = tmp_path / "a"
    with capture.Capture(path, "x", {}) as kept:
        for _ in range(5):
            kept.add("bytes", "", bytes(100))
        assert "no more is kept" in kept.problem
    assert len(list(capture.read(path)[1])) == 2
    with pytest.raises(StorageError, match="name that is free"):
        capture.Capture(path, "x", {})


@pytest.mark.parametrize(
    ("kind", "to", "error"),
    [("bytes", "nowhere", ConfigError), ("file", "/absent/folder", ConfigError), ("message", "x", ConfigError)],
)
def test_where_it_cannot_be_played(tmp_path, kind, to, error):
    with pytest.raises(error):
        capture.play(some_capture(tmp_path / "a", kind), to)


def test_names_in_a_capture_lead_nowhere_else(tmp_path):
    path = tmp_path / "a"
    with capture.Capture(path, "file_drop", {}) as kept:
        kept.add("file", "../../escaped.png", b"x")
    (tmp_path / "in").mkdir()
    capture.play(path, str(tmp_path / "in"), speed=0)
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["escaped.png"]


def test_the_command_plays_files(tmp_path):
    some_capture(tmp_path / "a", "file")
    (tmp_path / "in").mkdir()
    done = CliRunner().invoke(cli, ["drivers", "play", str(tmp_path / "a"), str(tmp_path / "in"), "--speed", "0"])
    assert done.exit_code == 0 and "3 played" in done.output
    assert (tmp_path / "in" / "name").read_bytes() == b"\2" * 100


def test_a_lane_keeps_what_its_device_sends(tmp_path):
    from scanner_io import config

    (tmp_path / "drop").mkdir()
    text = f"""
state_dir = "{tmp_path / "state"}"
[dispatch]
bind = "tcp://127.0.0.1:0"
[[lane]]
name = "north"
[[lane.device]]
driver = "file_drop"
path = "{tmp_path / "drop"}"
capture = "{tmp_path / "captures"}"
"""
    loaded = config.parse(text, "test", base=tmp_path)
    assert loaded.lane[0].device[0].capture == str(tmp_path / "captures")
