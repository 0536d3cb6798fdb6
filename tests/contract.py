"""What every driver must do, as tests that each driver's own test inherits.

In `tests/drivers/test_acme.py`:

    from tests.contract import DriverContract, Rig

    class AcmeRig(Rig):
        driver = "acme"
        expects = (ScanStart, LineBlock, ScanEnd)      # kinds of event that one play() brings about
        def __init__(self, peer): ...
        @property
        def config(self): return Config(address=self.peer.address)
        def play(self): self.peer.send(ONE_PASSAGE)     # the peer lets one vehicle pass
        def break_link(self): self.peer.unplug()        # leave out where there is no link
        def mend_link(self): self.peer.plug_in()

    class TestAcme(DriverContract):
        driver = "acme"
        @pytest.fixture
        def rig(self, tmp_path):
            with FakePeer() as peer:
                yield AcmeRig(peer)

A rig is one fake peer and how to reach it. It is made anew for every test. A stream driver may be given a
`MemoryChannel` instead of a TCP server: override `connect` to `return module.connect(self.config, channel)` and let
`play` do `channel.put(...)`, `break_link` do `channel.hang_up()`.
A source that plays by itself once opened (simulated, replay) sets `silent = False` and leaves `play` as it is; one that
ends with `EndOfSource` also sets `finite = True`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import pytest

from scanner_io import driver as drivers
from scanner_io import model
from scanner_io.driver import Driver
from scanner_io.errors import LinkLost, ScannerError
from scanner_io.model import CountBlock, DeviceInfo, EndOfSource, Event, LineBlock, Occupancy, ScanEnd, ScanStart

LATE_S = 0.3
"""A read may return so much later than it was told to."""
EVENTS = get_args(model.Event)


class Rig:
    """A fake peer of one driver.

    driver : name of the driver
    expects : types of event that must come after `play`
    silent : nothing comes before `play`
    finite : the source ends with EndOfSource
    simulated : what the driver must say of itself
    limit_s : all events of one `play` come within so long
    break_link, mend_link : None where the source has no link to lose
    """

    driver: str = ""
    expects: tuple[type, ...] = ()
    silent: bool = True
    finite: bool = False
    simulated: bool = False
    limit_s: float = 20.0
    break_link: Callable[[], None] | None = None
    mend_link: Callable[[], None] | None = None

    @property
    def config(self) -> Any:
        """An instance of the driver module's Config that leads to the peer."""
        raise NotImplementedError

    def connect(self) -> Driver:
        """Return a new driver, not opened."""
        return drivers.connect(self.driver, self.config)

    def play(self) -> None:
        """Let one passage happen. Does nothing where the source plays by itself."""


def check_order(events: Iterable[Event], *, ended: bool = True) -> None:
    """Assert that `events` of one device tell scans and occupancies as the model has them.

    ended : whatever began must also have ended
    """
    scan: ScanStart | None = None
    next_column, last_ns = 0, 0
    occupied: Occupancy | None = None
    for event in events:
        assert isinstance(event, EVENTS), f"{event!r} is no event of scanner_io.model"
        match event:
            case ScanStart():
                assert scan is None, f"{event.source_ref} starts before {scan and scan.source_ref} has ended"
                assert event.source_ref, "a scan without a source_ref cannot be acknowledged"
                scan, next_column, last_ns = event, 0, event.utc_ns
            case LineBlock():
                assert scan is not None and event.source_ref == scan.source_ref, "lines of a scan that is not open"
                last_ns = _check_lines(event, scan, next_column, last_ns)
                next_column += len(event.column_utc_ns)
            case ScanEnd():
                assert scan is not None and event.source_ref == scan.source_ref, "end of a scan that is not open"
                assert event.utc_ns >= last_ns, f"ends at {event.utc_ns}, its last column was at {last_ns}"
                assert event.reason != "complete" or next_column > 0, "a complete scan without a column"
                scan = None
            case Occupancy(phase="entered"):
                assert occupied is None, f"entered again at {event.utc_ns} without having left"
                occupied = event
            case Occupancy(phase="left"):
                assert event.record is not None, "left without the record of the passage"
                assert event.record.start_utc_ns <= event.record.end_utc_ns <= event.utc_ns
                occupied = None
            case CountBlock():
                assert event.counts.ndim == 2, f"counts of shape {event.counts.shape}, expected (n, detectors)"
    if ended:
        assert scan is None, f"scan {scan and scan.source_ref} was never ended"
        assert occupied is None, f"the passage entered at {occupied and occupied.utc_ns} was never left"


def _check_lines(event: LineBlock, scan: ScanStart, next_column: int, last_ns: int) -> int:
    assert event.first_column == next_column, f"column {event.first_column} follows column {next_column - 1}"
    assert len(event.counts) == len(scan.detector.energies)
    columns = len(event.column_utc_ns)
    assert columns > 0, "a block without a column"
    for counts in event.counts:
        assert counts.shape == (columns, scan.detector.channels), f"{counts.shape}, expected {columns} columns"
        assert counts.dtype == "uint16" and counts.flags.c_contiguous
    times = [last_ns, *event.column_utc_ns.tolist()]
    assert times == sorted(times), "columns go back in time"
    return int(times[-1])


def _held() -> tuple[int, set[threading.Thread]]:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), set(threading.enumerate())


class DriverContract:
    """Inherit, set `driver`, give a fixture `rig`."""

    driver: str = ""

    @pytest.fixture
    def rig(self) -> Rig:
        """Return the fake peer. Every driver's test gives its own."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture `rig`")

    # -- reading, for tests ----------------------------------------------------------------------------------------

    def collect(self, rig: Rig, source: Driver) -> list[Event]:
        """Read until all that is expected has come and nothing is open, or the source has ended."""
        events: list[Event] = []
        deadline_s = time.monotonic() + rig.limit_s
        while time.monotonic() < deadline_s:
            event = source.read(0.05)
            if event is None:
                if not rig.finite and self.complete(rig, events):
                    return events
                continue
            events.append(event)
            if isinstance(event, EndOfSource) or (not rig.finite and not rig.silent and self.complete(rig, events)):
                return events
        pytest.fail(f"within {rig.limit_s} s only {sorted({type(e).__name__ for e in events})}, expected {rig.expects}")

    @staticmethod
    def complete(rig: Rig, events: list[Event]) -> bool:
        """Tell whether everything expected has come and whatever began has ended."""
        starts = sum(isinstance(e, ScanStart) or (isinstance(e, Occupancy) and e.phase == "entered") for e in events)
        ends = sum(isinstance(e, ScanEnd) or (isinstance(e, Occupancy) and e.phase == "left") for e in events)
        return set(rig.expects) <= {type(e) for e in events} and starts == ends

    @staticmethod
    def drain(source: Driver, limit_s: float = 10.0) -> tuple[list[Event], ScannerError]:
        """Read to the error that ends the link; return what came before it, and the error."""
        events: list[Event] = []
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            try:
                event = source.read(0.05)
            except ScannerError as error:
                return events, error
            if event is not None:
                events.append(event)
        pytest.fail(f"no error within {limit_s} s, {len(events)} events")

    # -- the contract ----------------------------------------------------------------------------------------------

    def test_is_found_by_name(self, rig: Rig) -> None:
        assert rig.driver == self.driver, "the rig is of another driver"
        module = drivers.load(self.driver)
        assert isinstance(rig.config, module.Config)
        given = module.kinds(rig.config)
        assert given and set(given) <= {"radiograph", "portal", "declaration"}

    def test_construction_touches_nothing(self, rig: Rig) -> None:
        before = _held()
        source = rig.connect()
        assert isinstance(source, Driver)
        assert isinstance(source.pausable, bool)
        assert _held() == before, "the constructor opened something; that is for open()"
        del source
        assert _held() == before

    def test_open_says_what_it_is(self, rig: Rig) -> None:
        source = rig.connect()
        try:
            info = source.open()
            assert isinstance(info, DeviceInfo)
            assert info.vendor and info.model
            assert set(info.kinds) == set(drivers.load(self.driver).kinds(rig.config))
            assert info.simulated is rig.simulated, "simulated data must be told from real data, and the reverse"
        finally:
            source.close()

    def test_time_out_is_a_value(self, rig: Rig) -> None:
        if not rig.silent:
            pytest.skip("this source is never silent")
        source = rig.connect()
        source.open()
        try:
            for timeout_s in (0.0, 0.05, 0.4):
                began_s = time.monotonic()
                assert source.read(timeout_s) is None
                took_s = time.monotonic() - began_s
                assert took_s >= 0.8 * timeout_s, f"read({timeout_s}) came back after {took_s:.3f} s: a busy loop"
                assert took_s <= timeout_s + LATE_S, f"read({timeout_s}) took {took_s:.3f} s"
        finally:
            source.close()

    def test_events_are_in_order(self, rig: Rig) -> None:
        source = rig.connect()
        source.open()
        try:
            rig.play()
            events = self.collect(rig, source)
        finally:
            source.close()
        assert set(rig.expects) <= {type(e) for e in events}
        check_order(events)
        assert any(isinstance(e, EndOfSource) for e in events) == rig.finite

    def test_acknowledging_anything_does_no_harm(self, rig: Rig) -> None:
        source = rig.connect()
        source.open()
        try:
            for strange in ("", "never heard of", "../../etc/passwd", "a\0b", "x" * 5000):
                source.acknowledge(strange)
            rig.play()
            events = self.collect(rig, source)
            for ref in dict.fromkeys(getattr(e, "source_ref", "") for e in events):
                source.acknowledge(ref)
                source.acknowledge(ref)
        finally:
            source.close()
        check_order(events)

    def test_close_at_any_time_and_twice(self, rig: Rig) -> None:
        source = rig.connect()
        source.close()
        source.open()
        source.close()
        source.close()

    def test_not_open_is_an_error_in_words(self, rig: Rig) -> None:
        source = rig.connect()
        with pytest.raises(ScannerError, match=r"\w+ \w+"):
            source.read(0.05)
        source.close()
        source = rig.connect()
        source.open()
        source.close()
        _, error = self.drain(source)
        assert len(str(error)) > 10
        source.close()

    def test_close_from_another_thread_ends_a_read(self, rig: Rig) -> None:
        if not rig.silent:
            pytest.skip("this source is never silent: no read waits")
        source = rig.connect()
        source.open()
        closer = threading.Timer(0.1, source.close)
        closer.start()
        began_s = time.monotonic()
        try:
            while time.monotonic() < began_s + 5:
                source.read(5.0)
        except ScannerError:
            pass
        finally:
            closer.join()
        assert time.monotonic() - began_s < 2.0, "a read that waits must notice that it was closed"

    def test_opens_again_after_close(self, rig: Rig) -> None:
        source = rig.connect()
        source.open()
        source.close()
        source.open()
        try:
            rig.play()
            check_order(self.collect(rig, source))
        finally:
            source.close()

    def test_lost_link_ends_what_was_open_first(self, rig: Rig) -> None:
        if rig.break_link is None:
            pytest.skip("this source has no link to lose")
        source = rig.connect()
        source.open()
        events: list[Event] = []
        try:
            rig.play()
            deadline_s = time.monotonic() + rig.limit_s
            while not any(isinstance(e, ScanStart | Occupancy) for e in events):
                assert time.monotonic() < deadline_s, f"nothing began within {rig.limit_s} s"
                event = source.read(0.05)
                events += [] if event is None else [event]
            rig.break_link()
            rest, error = self.drain(source)
            assert isinstance(error, LinkLost), f"{type(error).__name__}: {error}, expected LinkLost"
            check_order(events + rest)
            with pytest.raises(LinkLost):  # and it stays lost
                source.read(0.0)
            source.close()
            if rig.mend_link is not None:
                rig.mend_link()
                source.open()
                source.read(0.0)
        finally:
            source.close()

    def test_leaves_nothing(self, rig: Rig) -> None:
        source = rig.connect()
        source.open()
        rig.play()
        self.collect(rig, source)
        source.close()
        before = _held()
        for _ in range(3):
            source = rig.connect()
            source.open()
            source.read(0.0)
            source.close()
        deadline_s = time.monotonic() + 2.0
        while (now := _held()) != before and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert now == before, "opening and closing three times leaves descriptors or threads"
