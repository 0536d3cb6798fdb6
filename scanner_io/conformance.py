"""What every driver must do, as checks that run against a fake peer or a real device.

A rig is one peer and how to reach it. In the module `acme_rig.py` beside a driver:

    from scanner_io.conformance import Rig

    class AcmeRig(Rig):
        driver = "acme"
        expects = (ScanStart, LineBlock, ScanEnd)      # kinds of event that one play() brings about
        def __init__(self): self.peer = TcpPeer()
        @property
        def config(self): return Config(address=self.peer.address)
        def play(self): self.peer.send(ONE_PASSAGE)     # the peer lets one vehicle pass
        def break_link(self): self.peer.hang_up()       # leave out where there is no link
        def mend_link(self): pass                       # the peer still listens
        def close(self): self.peer.close()

`TcpPeer` is a fake device on a TCP port. A rig is made anew for every check. A stream driver may be given a
`MemoryChannel` instead of a TCP server: override `connect` to `return module.connect(self.config, channel)` and let
`play` do `channel.put(...)`, `break_link` do `channel.hang_up()`. A source that plays by itself once opened (simulated,
replay) sets `silent = False` and leaves `play` as it is; one that ends with `EndOfSource` also sets `finite = True`.

`scanlane drivers conform` runs every check in a process of its own: a driver that hangs, or leaves a thread behind,
must not spoil the next one. Tests run the same checks in their own process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

import msgspec

from . import driver as drivers
from . import model
from .driver import Driver
from .errors import ConfigError, LinkLost, ScannerError
from .model import CountBlock, DeviceInfo, EndOfSource, Event, LineBlock, Occupancy, ScanEnd, ScanStart

LATE_S = 0.3
"""A read may return so much later than it was told to."""
DAMAGES = 150
"""Times that a passage's bytes are damaged anew."""
EVENTS = get_args(model.Event)


class NotMetError(AssertionError):
    """A driver does not do what it must. The text says what was seen and what to do."""


class NotAskedError(Exception):
    """A check has nothing to ask of this source. The text says why."""


class Rig:
    """A peer of one driver.

    driver : name of the driver
    expects : types of event that must come after `play`
    silent : nothing comes before `play`
    finite : the source ends with EndOfSource
    simulated : what the driver must say of itself
    limit_s : all events of one `play` come within so long
    spare_s : a check has so much longer than that; then it hangs
    break_link, mend_link : None where the source has no link to lose
    """

    driver: str = ""
    expects: tuple[type, ...] = ()
    silent: bool = True
    finite: bool = False
    simulated: bool = False
    limit_s: float = 20.0
    spare_s: float = 5.0
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

    def close(self) -> None:
        """Stop the peer."""


class TcpPeer:
    """A fake device on a TCP port of this machine. It speaks to one driver at a time, to the one that came last."""

    def __init__(self, wait_s: float = 5.0) -> None:
        """wait_s : so long a driver may take to connect, or to send what the device waits for."""
        self._wait_s = wait_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                peer = self._listener.accept()[0]
                self.hang_up()
                self._peer = peer

    def _connected(self) -> socket.socket:
        deadline_s = time.monotonic() + self._wait_s
        while time.monotonic() < deadline_s:
            peer = self._peer
            if peer is not None and _is_there(peer):
                return peer
            time.sleep(0.005)
        raise AssertionError(f"no driver has connected to the fake device within {self._wait_s:g} s")

    def send(self, data: bytes) -> None:
        """Say `data` to the driver, once it is connected. Raises AssertionError if none comes."""
        self._connected().sendall(data)

    def receive(self, size: int) -> bytes:
        """Return the next `size` bytes that the driver sends: of a device that is asked. Raises AssertionError."""
        peer = self._connected()
        data = b""
        try:
            peer.settimeout(self._wait_s)
            while len(data) < size and (more := peer.recv(size - len(data))):
                data += more
        except OSError as error:
            raise AssertionError(f"the driver sent {data!r}, {size} bytes were awaited ({error})") from error
        finally:
            peer.settimeout(None)
        demand(len(data) == size, f"the driver hung up after {data!r}, {size} bytes were awaited")
        return data

    def hang_up(self) -> None:
        """Pull the plug. The device goes on listening."""
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.close()

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=2)  # first, or a driver that has just connected would be left
        self.hang_up()


def _is_there(peer: socket.socket) -> bool:
    """Return whether the other side has not closed the connection."""
    try:
        return peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


class DeviceRig(Rig):
    """A real device: what it does before a vehicle passes is not known, and nobody pulls its plug."""

    silent = False
    limit_s = 180.0

    def __init__(self, driver: str, config: Any) -> None:
        self.driver, self._config = driver, config
        kinds = drivers.load(driver).kinds(config)
        self.expects = (ScanStart, LineBlock, ScanEnd) if "radiograph" in kinds else ()
        self.expects += (Occupancy,) if "portal" in kinds else ()
        self.simulated = "simulated" in driver

    @property
    def config(self) -> Any:
        """The configuration it was given."""
        return self._config

    def play(self) -> None:
        """Ask the person at the lane for a vehicle."""
        print(f"let one vehicle pass; waiting up to {self.limit_s:.0f} s", file=sys.stderr, flush=True)


def demand(met: object, text: str) -> None:
    """Raise NotMetError with the text unless `met`."""
    if not met:
        raise NotMetError(text)


def check_order(events: Iterable[Event], *, ended: bool = True, gaps: bool = False) -> None:
    """Check that `events` of one device tell scans and occupancies as the model has them. Raises NotMetError.

    ended : whatever began must also have ended; gaps : columns may be missing between those that came
    """
    scan: ScanStart | None = None
    next_column, last_ns = 0, 0
    occupied: Occupancy | None = None
    for event in events:
        if not isinstance(event, EVENTS):
            raise NotMetError(f"{event!r} is no event of scanner_io.model")
        match event:
            case ScanStart():
                demand(scan is None, f"{event.source_ref} starts before {scan and scan.source_ref} has ended")
                demand(event.source_ref, "a scan without a source_ref cannot be acknowledged")
                scan, next_column, last_ns = event, 0, event.utc_ns
            case LineBlock():
                if gaps and event.first_column > next_column:
                    next_column = event.first_column
                last_ns = _check_lines(event, scan, next_column, last_ns)
                next_column += len(event.column_utc_ns)
            case ScanEnd():
                demand(scan is not None and event.source_ref == scan.source_ref, "end of a scan that is not open")
                demand(event.utc_ns >= last_ns, f"ends at {event.utc_ns}, its last column was at {last_ns}")
                demand(event.reason != "complete" or next_column > 0, "a complete scan without a column")
                scan = None
            case Occupancy(phase="entered"):
                demand(occupied is None, f"entered again at {event.utc_ns} without having left")
                occupied = event
            case Occupancy(phase="left"):
                _check_record(event)
                occupied = None
            case CountBlock():
                demand(event.counts.ndim == 2, f"counts of shape {event.counts.shape}, expected (n, detectors)")
    if ended:
        demand(scan is None, f"scan {scan and scan.source_ref} was never ended")
        demand(occupied is None, f"the passage entered at {occupied and occupied.utc_ns} was never left")


def _check_record(event: Occupancy) -> None:
    record = event.record
    if record is None:
        raise NotMetError("left without the record of the passage")
    told = f"record from {record.start_utc_ns} to {record.end_utc_ns}, told at {event.utc_ns}: not in this order"
    demand(record.start_utc_ns <= record.end_utc_ns <= event.utc_ns, told)


def _check_lines(event: LineBlock, scan: ScanStart | None, next_column: int, last_ns: int) -> int:
    if scan is None or event.source_ref != scan.source_ref:
        raise NotMetError("lines of a scan that is not open")
    demand(event.first_column == next_column, f"column {event.first_column} follows column {next_column - 1}")
    demand(len(event.counts) == len(scan.detector.energies), f"{len(event.counts)} images for {scan.detector.energies}")
    columns = len(event.column_utc_ns)
    demand(columns > 0, "a block without a column")
    for counts in event.counts:
        wanted = (columns, scan.detector.channels)
        demand(counts.shape == wanted, f"counts of shape {counts.shape}, expected {wanted}")
        demand(counts.dtype == "uint16", f"counts of type {counts.dtype}, expected uint16: convert in the decoder")
        demand(counts.flags.c_contiguous, "counts that are not C-contiguous; copy them with np.ascontiguousarray")
    times = [last_ns, *event.column_utc_ns.tolist()]
    demand(times == sorted(times), "columns go back in time")
    return int(times[-1])


# ---------------------------------------------------------------------------------------------- reading, for checks


def collect(rig: Rig, source: Driver) -> list[Event]:
    """Read until all that is expected has come and nothing is open, or the source has ended. Raises NotMetError."""
    events: list[Event] = []
    deadline_s = time.monotonic() + rig.limit_s
    while time.monotonic() < deadline_s:
        event = source.read(0.05)
        if event is None:
            if not rig.finite and complete(rig, events):
                return events
            continue
        events.append(event)
        if isinstance(event, EndOfSource) or (not rig.finite and not rig.silent and complete(rig, events)):
            return events
    seen, wanted = sorted({type(e).__name__ for e in events}), [t.__name__ for t in rig.expects]
    raise NotMetError(
        f"within {rig.limit_s:.0f} s of a passage came {seen or 'nothing'}, expected {wanted}, each ended"
    )


def complete(rig: Rig, events: list[Event]) -> bool:
    """Return whether everything expected has come and whatever began has ended."""
    starts = sum(isinstance(e, ScanStart) or (isinstance(e, Occupancy) and e.phase == "entered") for e in events)
    ends = sum(isinstance(e, ScanEnd) or (isinstance(e, Occupancy) and e.phase == "left") for e in events)
    return set(rig.expects) <= {type(e) for e in events} and starts == ends


def drain(source: Driver, limit_s: float = 10.0) -> tuple[list[Event], ScannerError]:
    """Read to the error that ends the link; return what came before it, and the error. Raises NotMetError."""
    events: list[Event] = []
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        try:
            event = source.read(0.05)
        except ScannerError as error:
            return events, error
        if event is not None:
            events.append(event)
    raise NotMetError(
        f"read() went on for {limit_s:.0f} s without an error, {len(events)} events; a driver that is closed, or whose "
        "link is gone, raises LinkLost: look for an error that is caught and passed over"
    )


def held() -> tuple[int, set[threading.Thread]]:
    """Return how many descriptors this process has open, and its threads."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), set(threading.enumerate())


# ------------------------------------------------------------------------------------------------------- the checks


def is_found_by_name(rig: Rig) -> None:
    """The driver is registered, has Config, kinds and connect, and knows what it gives."""
    module = drivers.load(rig.driver)
    told = f"the rig's config is {type(rig.config).__name__}, expected {module.__name__}.Config"
    demand(isinstance(rig.config, module.Config), told)
    given = module.kinds(rig.config)
    known = {"radiograph", "portal", "declaration"}
    # a device that only tells of vehicles gives none of the kinds that a passage must have
    demand(set(given) <= known, f"kinds() gives {given!r}, expected some of {sorted(known)}")


def construction_touches_nothing(rig: Rig) -> None:
    """The constructor opens nothing and starts nothing: no I/O before open()."""
    before = held()
    source = rig.connect()
    demand(isinstance(source, Driver), f"{type(source).__name__} lacks one of open, read, acknowledge, close, pausable")
    demand(isinstance(source.pausable, bool), f"pausable is {source.pausable!r}, expected True or False")
    demand(held() == before, "the constructor opened a descriptor or started a thread; that is for open()")
    del source
    demand(held() == before, "what the constructor made stays after the driver is gone")


def open_says_what_it_is(rig: Rig) -> None:
    """open() returns a DeviceInfo with vendor, model and kinds, and whether it is a simulation."""
    source = rig.connect()
    try:
        info = source.open()
        demand(isinstance(info, DeviceInfo), f"open() returned {type(info).__name__}, expected DeviceInfo")
        demand(info.vendor and info.model, f"vendor {info.vendor!r}, model {info.model!r}: both must be told")
        kinds = drivers.load(rig.driver).kinds(rig.config)
        demand(set(info.kinds) == set(kinds), f"open() tells kinds {info.kinds}, kinds() tells {kinds}")
        told = f"simulated is {info.simulated}: simulated data must be told from real data, and the reverse"
        demand(info.simulated is rig.simulated, told)
    finally:
        source.close()


def time_out_is_a_value(rig: Rig) -> None:
    """read(timeout_s) returns None when nothing comes, not earlier and not later; it does not sleep on its own."""
    if not rig.silent:
        raise NotAskedError("this source is never silent")
    source = rig.connect()
    source.open()
    try:
        for timeout_s in (0.0, 0.05, 0.4):
            began_s = time.monotonic()
            event = source.read(timeout_s)
            took_s = time.monotonic() - began_s
            demand(event is None, f"read({timeout_s}) gave {event!r} though the peer is silent")
            demand(took_s >= 0.8 * timeout_s, f"read({timeout_s}) came back after {took_s:.3f} s: a busy loop")
            late = f"read({timeout_s}) took {took_s:.3f} s; a sleep or a wait of its own in read()?"
            demand(took_s <= timeout_s + LATE_S, late)
    finally:
        source.close()


def events_are_in_order(rig: Rig) -> None:
    """A passage gives the events expected, whole and in order, with the shapes and types of the model."""
    source = rig.connect()
    source.open()
    try:
        rig.play()
        events = collect(rig, source)
    finally:
        source.close()
    missing = set(rig.expects) - {type(e) for e in events}
    demand(not missing, f"no {', '.join(sorted(t.__name__ for t in missing))} came")
    check_order(events)
    ends = any(isinstance(e, EndOfSource) for e in events)
    demand(ends == rig.finite, f"EndOfSource {'came' if ends else 'did not come'}, the rig's finite is {rig.finite}")


def acknowledging_anything_does_no_harm(rig: Rig) -> None:
    """acknowledge() takes any text, and the same one twice, without an error or an effect elsewhere."""
    source = rig.connect()
    source.open()
    try:
        for strange in ("", "never heard of", "../../etc/passwd", "a\0b", "x" * 5000):
            source.acknowledge(strange)
        rig.play()
        events = collect(rig, source)
        for ref in dict.fromkeys(getattr(e, "source_ref", "") for e in events):
            source.acknowledge(ref)
            source.acknowledge(ref)
    finally:
        source.close()
    check_order(events)


def close_at_any_time_and_twice(rig: Rig) -> None:
    """close() may come before open(), right after it, and again, and returns at once."""
    source = rig.connect()
    source.close()
    source.open()
    for _ in range(2):
        began_s = time.monotonic()
        source.close()
        took_s = time.monotonic() - began_s
        demand(took_s < 2.0, f"close() took {took_s:.1f} s; it must not wait for the device")


def not_open_is_an_error_in_words(rig: Rig) -> None:
    """read() of a driver that is not open raises a ScannerError whose text says so."""
    source = rig.connect()
    try:
        source.read(0.05)
    except ScannerError as error:
        demand(len(str(error).split()) > 1, f"the error says {str(error)!r}; name the device and what to do")
    else:
        raise NotMetError("read() of a driver that was never opened raised no ScannerError")
    source.close()
    source = rig.connect()
    source.open()
    source.close()
    _, told = drain(source, min(10.0, rig.limit_s))
    demand(len(str(told)) > 10, f"the error says {str(told)!r}; name the device and what to do")
    source.close()


def close_from_another_thread_ends_a_read(rig: Rig) -> None:
    """close() from another thread ends a read that waits."""
    if not rig.silent:
        raise NotAskedError("this source is never silent: no read waits")
    source = rig.connect()
    source.open()
    closer = threading.Timer(0.1, source.close)
    closer.start()
    began_s = time.monotonic()
    try:
        while time.monotonic() < began_s + 5:
            source.read(5.0)
    except ScannerError:
        pass  # the way a read may end
    finally:
        closer.join()
    took_s = time.monotonic() - began_s
    demand(took_s < 2.0, f"a waiting read went on for {took_s:.1f} s after close(); it must notice")


def opens_again_after_close(rig: Rig) -> None:
    """The same driver can be opened again after close(), and works."""
    source = rig.connect()
    source.open()
    source.close()
    source.open()
    try:
        rig.play()
        check_order(collect(rig, source))
    finally:
        source.close()


def lost_link_ends_what_was_open_first(rig: Rig) -> None:
    """A lost link first ends the open scan or passage, then raises LinkLost, and stays lost until open()."""
    if rig.break_link is None:
        raise NotAskedError("this source has no link that the rig can break")
    source = rig.connect()
    source.open()
    events: list[Event] = []
    try:
        rig.play()
        deadline_s = time.monotonic() + rig.limit_s
        while not any(isinstance(e, ScanStart | Occupancy) for e in events):
            demand(time.monotonic() < deadline_s, f"nothing began within {rig.limit_s} s")
            event = source.read(0.05)
            events += [] if event is None else [event]
        rig.break_link()
        rest, error = drain(source, min(10.0, rig.limit_s))
        demand(isinstance(error, LinkLost), f"{type(error).__name__}: {error}, expected LinkLost")
        check_order(events + rest)
        _stays_lost(source)
        source.close()
        if rig.mend_link is not None:
            rig.mend_link()
            source.open()
            source.read(0.0)
    finally:
        source.close()


def _stays_lost(source: Driver) -> None:
    try:
        source.read(0.0)
    except LinkLost:
        return
    raise NotMetError("after LinkLost the next read() raised nothing; a lost link stays lost until open()")


def leaves_nothing(rig: Rig) -> None:
    """Opened and closed again and again, it leaves no thread and no descriptor."""
    source = rig.connect()
    source.open()
    rig.play()
    collect(rig, source)
    source.close()
    before = held()
    for _ in range(3):
        source = rig.connect()
        source.open()
        source.read(0.0)
        source.close()
    deadline_s = time.monotonic() + 2.0
    while (now := held()) != before and time.monotonic() < deadline_s:
        time.sleep(0.02)
    more = [t.name for t in now[1] - before[1]]
    left = f"threads {more}" if more else f"{now[0] - before[0]} descriptors"
    demand(now == before, f"opening and closing three times leaves {left}; end them in close()")


def foreign_bytes_are_told_not_raised(rig: Rig) -> None:
    """Bytes that are damaged, lost or cut are told, never raised, and a scan that they spoil is ended."""
    source = rig.connect()
    module = drivers.load(rig.driver)
    if not isinstance(source, drivers.LinkDriver) or not hasattr(module, "Decoder"):
        raise NotAskedError("it decodes no byte stream of a channel")
    heard = _heard(rig, source)
    rng = random.Random(1)  # noqa: S311 -- the same damage every time
    for number in range(DAMAGES):
        data = _damaged(heard, rng)
        decoder = module.Decoder(rig.config)
        events: list[Event] = []
        at = 0
        try:
            while at < len(data):
                size = rng.choice((1, 60, 4000, 100_000))
                events += decoder.feed(data[at : at + size], 10**18 + number)
                at += size
            events += decoder.lost(10**18 + number)
        except Exception as error:  # whatever a decoder raises is what is asked for
            text = f"{type(error).__name__}: {error}, raised by feed() or lost() near byte {at} of {data[:40]!r}..."
            raise NotMetError(f"{text}; tell foreign bytes by Health and end the scan") from error
        check_order(events, gaps=True)


def _heard(rig: Rig, source: drivers.LinkDriver) -> bytes:
    """Return the bytes of one passage as the decoder gets them."""
    heard = bytearray()
    feed = source.decoder.feed

    def listening(data: bytes, utc_ns: int) -> list[Event]:
        heard.extend(data)
        return feed(data, utc_ns)

    setattr(source.decoder, "feed", listening)  # noqa: B010 -- of this one decoder
    source.open()
    try:
        rig.play()
        collect(rig, source)
    finally:
        source.close()
    return bytes(heard)


def _damaged(heard: bytes, rng: random.Random) -> bytes:
    """Return bytes that were sent with some of them changed, lost, doubled or put between."""
    made = bytearray(heard)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made) + 1)
        end = at + rng.choice((1, 2, 7, 200))
        match rng.randrange(5):
            case 0:
                made[at : at + 1] = rng.randbytes(1)
            case 1:
                del made[at:end]
            case 2:
                made[at:at] = made[at:end]
            case 3:
                made[at:at] = rng.randbytes(end - at)
            case _:
                del made[: min(at, 200)]
    return bytes(made)


CHECKS: dict[str, Callable[[Rig], None]] = {
    check.__name__: check
    for check in (
        is_found_by_name, construction_touches_nothing, open_says_what_it_is, time_out_is_a_value, events_are_in_order,
        acknowledging_anything_does_no_harm, close_at_any_time_and_twice, not_open_is_an_error_in_words,
        close_from_another_thread_ends_a_read, opens_again_after_close, lost_link_ends_what_was_open_first,
        foreign_bytes_are_told_not_raised, leaves_nothing,
    )
}  # fmt: skip


# ---------------------------------------------------------------------------------------- checks in their own process


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. demands : what it asks for, in words; text : why it is not passed"""

    check: str
    demands: str
    result: Literal["passed", "failed", "not asked"]
    text: str = ""
    seconds: float = 0.0


def load_rig(spec: str) -> Callable[[], Rig]:
    """Return the rig that `module:Class` or `file.py:Class` names. Raises ConfigError."""
    place, _, name = spec.rpartition(":")
    try:
        if place.endswith(".py"):
            path = Path(place).resolve()
            sys.path.insert(0, str(path.parent))  # its driver lies beside it
            found = spec_from_file_location(path.stem, path)
            if found is None or found.loader is None or not path.is_file():
                raise ConfigError([f"rig {spec!r}: {path} is no Python file"])
            module = module_from_spec(found)
            sys.modules[path.stem] = module
            found.loader.exec_module(module)
        else:
            module = import_module(place)
        rig: Callable[[], Rig] = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError([f"rig {spec!r}: {error}; write module:Class or file.py:Class"]) from error
    return rig


def load_device(name: str, config_file: str) -> Callable[[], Rig]:
    """Return a rig of the first device of driver `name` in a lane's configuration. Raises ConfigError."""
    from .config import load

    devices = [d for lane in load(Path(config_file)).lane for d in lane.device if d.driver == name]
    if not devices:
        raise ConfigError([f"{config_file}: no lane has a device with driver {name!r}"])
    return lambda: DeviceRig(name, devices[0].config)


def conform(name: str, *, rig: str = "", config_file: str = "", checks: Iterable[str] = CHECKS) -> Iterator[Verdict]:
    """Run checks of driver `name`, each in a process of its own, and yield what they find.

    rig : `module:Class` or `file.py:Class`; config_file : a lane's configuration that has the real device. One of them

    Raises ConfigError where neither leads to a peer.
    """
    make = load_rig(rig) if rig else load_device(name, config_file)
    drivers.load(name)
    peer = make if isinstance(make, type) and issubclass(make, Rig) else DeviceRig
    limit_s = peer.limit_s + peer.spare_s
    for check in checks:
        began_s = time.monotonic()
        command = [sys.executable, "-m", __name__, check, name, rig, config_file, str(limit_s)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
        took_s = round(time.monotonic() - began_s, 2)
        yield _verdict(check, done, limit_s, took_s)


def _verdict(check: str, done: subprocess.CompletedProcess[str], limit_s: float, took_s: float) -> Verdict:
    demands = (CHECKS[check].__doc__ or "").strip()
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        stack = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("File ")]
        own = [line for line in stack if "conformance.py" not in line and "/threading.py" not in line]
        where = "; ".join((own or stack)[:2]) or done.stderr.strip()[-300:]
        text = f"ended with code {done.returncode}" if "Timeout" not in done.stderr else f"hangs after {limit_s:g} s"
        return Verdict(check=check, demands=demands, result="failed", text=f"{text}: {where}", seconds=took_s)
    return Verdict(check=check, demands=demands, result=told["result"], text=told["text"], seconds=took_s)


def _run(check: str, name: str, rig: str, config_file: str, limit_s: str) -> NoReturn:
    """Run one check in this process, print what it found and end, whatever threads are left."""
    faulthandler.dump_traceback_later(float(limit_s), exit=True)
    peer = None
    result, text = "passed", ""
    try:
        peer = (load_rig(rig) if rig else load_device(name, config_file))()
        demand(peer.driver == name, f"the rig is of driver {peer.driver!r}, asked for is {name!r}")
        CHECKS[check](peer)
    except NotAskedError as why:
        result, text = "not asked", str(why)
    except NotMetError as why:
        result, text = "failed", str(why)
    except Exception as error:  # a vendor's driver may raise anything, and that is a finding
        result, text = "failed", f"{type(error).__name__}: {error}"
    if peer is not None:
        peer.close()
    print(json.dumps({"result": result, "text": text}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    _run(*sys.argv[1:])
