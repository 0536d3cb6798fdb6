"""A device's thread: when it asks its source for more, and when not."""

import multiprocessing
import queue
import threading
import time

import msgspec
import numpy as np
import pytest

from scanner_io import config
from scanner_io.model import DeviceInfo, LineBlock, ScanEnd, ScanStart
from tests import samples
from triage.service import lane
from triage.service.assembly import Assembly, LaneSpec


class Device(msgspec.Struct):
    driver: str = "three_scans"
    config: object = None
    capture: str = ""


class ThreeScans:
    """A source of three scans of a start, two blocks and an end, that tells which of its events were asked for."""

    def __init__(self, pausable):
        self.pausable = pausable
        self.asked = []
        image = samples.radiograph(columns=4)
        self._events = []
        for n in range(3):
            ref = f"scan {n}"
            self._events.append(ScanStart(source_ref=ref, utc_ns=n, detector=image.detector))
            for first in (0, 2):
                part = slice(first, first + 2)
                self._events.append(
                    LineBlock(
                        source_ref=ref, first_column=first, counts=tuple(c[part] for c in image.counts),
                        column_utc_ns=np.full(2, n, np.int64),
                    )
                )  # fmt: skip
            self._events.append(ScanEnd(source_ref=ref, utc_ns=n))

    def open(self):
        return DeviceInfo(vendor="test", model="three scans", kinds=("radiograph",), simulated=True)

    def read(self, timeout_s):
        if len(self.asked) == len(self._events):
            time.sleep(timeout_s)
            return None
        event = self._events[len(self.asked)]
        self.asked.append(type(event).__name__)
        return event

    def acknowledge(self, source_ref):
        pass

    def close(self):
        pass


@pytest.fixture
def device(monkeypatch):
    """Return a function that starts a device's thread; the room it sees is a switch."""
    threads = []

    def start(pausable, events=None):
        source, room = ThreeScans(pausable), threading.Event()
        monkeypatch.setattr(lane.drivers, "connect", lambda name, config, tap: source)
        intake = threading.Event()
        intake.set()
        thread = lane.DeviceThread(0, Device(), events or queue.Queue(), lambda *_, **__: None, intake, room.is_set)
        threads.append(thread)
        thread.start()
        return source, room

    yield start
    for thread in threads:
        thread.stopping.set()
        thread.closing.set()
        thread.join(5)
        assert not thread.is_alive()


def asked_of(source, count):
    """Wait until the source has been asked for `count` events, and a little longer; return how many it were."""
    deadline_s = time.monotonic() + 5
    while len(source.asked) < count and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.1)
    return len(source.asked)


def test_what_can_wait_is_not_asked_for_its_next_scan_without_room(device):
    source, room = device(pausable=True)
    assert asked_of(source, 0) == 0
    room.set()
    assert asked_of(source, 12) == 12


def test_a_scan_that_has_begun_is_read_to_its_end_without_room(device):
    source, room = device(pausable=True)
    original = source.read

    def read(timeout_s):
        event = original(timeout_s)
        if isinstance(event, ScanStart):
            room.clear()
        return event

    source.read = read
    room.set()
    assert asked_of(source, 4) == 4
    assert source.asked == ["ScanStart", "LineBlock", "LineBlock", "ScanEnd"]
    room.set()
    assert asked_of(source, 8) == 8


def test_a_live_device_is_heard_whatever_waits(device):
    source, _ = device(pausable=False)
    assert asked_of(source, 12) == 12


class HalfFull(queue.Queue):
    """A queue that has no room for a scan's later blocks while `full`: of what a live device says then, lines go."""

    full = True

    def put_nowait(self, item):
        if self.full and item[1].first_column > 0:
            raise queue.Full
        super().put_nowait(item)


def test_lines_that_a_live_device_lost_at_the_end_of_a_scan_are_told_in_the_scan(device):
    events = HalfFull()
    source, _ = device(pausable=False, events=events)
    assert asked_of(source, 12) == 12
    assembly = Assembly(LaneSpec(name="north", expected=("radiograph",)))
    scans = []
    while not events.empty():
        _, said = events.get()
        if isinstance(said, DeviceInfo):
            assembly.device(0, said)
        else:
            scans += assembly.feed(0, said, 0.0)
    scans += assembly.flush()
    images = [s.scan.radiograph for s in scans]
    assert [(i.columns, i.dropped_columns) for i in images] == [(2, 2)] * 3


def test_whether_there_is_room_is_asked_between_reads_and_looks_for_no_driver(tmp_path, monkeypatch):
    (tmp_path / "drop").mkdir()
    device = f'[[lane.device]]\ndriver = "file_drop"\npath = "{tmp_path / "drop"}"\n'
    loaded = config.parse(f'state_dir = "{tmp_path}"\n[[lane]]\nname = "north"\n{device}', "test", base=tmp_path)
    here, there = multiprocessing.Pipe()
    with here, there:
        process = lane.LaneProcess(there, loaded, loaded.lane[0])
        sought = []
        monkeypatch.setattr(lane.drivers, "load", sought.append)
        assert all(process._room_for(0) for _ in range(3))
        process.judge.close()
    assert sought == []
