"""What a driver is, and how one is found by name.

A driver is one module with `Config` (a msgspec Struct), `kinds(config)` (what it gives, known without touching the
device, so that its silence is noticed) and `connect(config, channel)`; a driver of a byte stream also has `Decoder`
(`feed(data, utc_ns) -> list[Event]`, no I/O). The configuration names the module; only named drivers are
imported. Reconnecting, retries and threads live in the lane, never in a driver.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from msgspec import structs

from .capture import Tap, TappedChannel
from .channel import Channel, open_channel
from .errors import ConfigError, LinkLost, ScannerError
from .model import NANOSECONDS, DeviceInfo, Event, Health, Occupancy, PortalCount

GROUP = "scanner_io.drivers"
"""Entry-point group of drivers: `acme = "drivers.acme"` in any installed package."""


@runtime_checkable
class Driver(Protocol):
    """A source of events.

    pausable : True if the source waits when it is not read (files); False if data is lost then (live devices).
    """

    pausable: bool

    def open(self) -> DeviceInfo:
        """Connect. Called by the lane's device thread. Raises LinkLost if the device is not there."""
        ...

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event, or None if none came within `timeout_s`.

        Called by the lane's device thread only. Raises LinkLost when the link is gone; the lane then closes,
        ends an open scan as `link_lost` and opens again.
        """
        ...

    def acknowledge(self, source_ref: str) -> None:
        """Learn that everything of `source_ref` is durably stored. Called by the lane's device thread."""
        ...

    def close(self) -> None:
        """Let go of the device. May be called at any time, by any thread, and twice."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A driver whose device numbers its passages: those that pass while nobody listens are then known."""

    def resume(self, count: PortalCount) -> None:
        """Learn where the count stood when a driver of this device was last heard. Called by the lane before `open`."""
        ...


@runtime_checkable
class Accompanying(Protocol):
    """A driver whose source never ends but begins no passage either: papers in advance, cameras beside the lane.

    pending : something has come that is not handed out and acknowledged yet. Where a lane is to end with its other
        sources, it waits for this alone
    """

    @property
    def pending(self) -> bool:
        """Called by the lane's device thread, between reads."""
        ...


class Decoder(Protocol):
    """Bytes to events, without I/O."""

    def feed(self, data: bytes, utc_ns: int) -> list[Event]:
        """Take received bytes (any split) and return the events they complete. Never raises on foreign bytes."""
        ...

    def idle(self, utc_ns: int, silent_s: float) -> list[Event]:
        """Nothing came for `silent_s`: return what that means (a passage that timed out, a health change)."""
        ...

    def lost(self, utc_ns: int) -> list[Event]:
        """The link is gone: return what that ends (an open passage as `link_lost`)."""
        ...


CLOCK_STEP_NS = 500_000_000
"""The computer's clock is set where it moves by more against the monotonic clock; time services slew by 0.5 ms/s."""
CLOCK_SETTLED_S = 60.0


class SteadyClock:
    """UTC stamps for one device that do not jump while it has a passage open.

    A clock that is set in mid-passage would otherwise cut the passage in two (a step forward looks like a time-out) or
    run its times backwards. It is followed once the passage is over; `stepped` says that one has been touched.
    """

    def __init__(self, wall_ns: Callable[[], int] | None = None, steady_ns: Callable[[], int] | None = None) -> None:
        self._wall_ns, self._steady_ns = wall_ns or time.time_ns, steady_ns or time.monotonic_ns
        self._offset_ns: int | None = None
        self._told_ns: int | None = None
        self._holding = False
        self.stepped = False

    def stamp(self, occupied: bool) -> tuple[int, list[Health]]:
        """Return UTC nanoseconds, and Health where the clock has been set or has settled again.

        occupied : a passage is open, so its clock is kept
        """
        utc_ns, monotonic_ns = self._wall_ns(), self._steady_ns()
        if self._offset_ns is None:
            self._offset_ns = utc_ns - monotonic_ns
        step_ns = utc_ns - monotonic_ns - self._offset_ns
        told: list[Health] = []
        if abs(step_ns) >= CLOCK_STEP_NS:
            if not self._holding:
                self._told_ns = monotonic_ns
                text = f"this computer's clock was set by {step_ns / 1e9:+.1f} s; check the time service (NTP, PTP)"
                told.append(Health(utc_ns=utc_ns, component="clock", state="degraded", text=text))
            self._holding = occupied
            if occupied:
                self.stepped = True
                return utc_ns - step_ns, told
        elif self._told_ns is not None and monotonic_ns - self._told_ns >= CLOCK_SETTLED_S * NANOSECONDS:
            self._told_ns = None
            text = f"this computer's clock has run evenly for {CLOCK_SETTLED_S:.0f} s"
            told.append(Health(utc_ns=utc_ns, component="clock", state="ok", text=text))
        self._offset_ns += step_ns
        return utc_ns, told

    def mark(self, event: Event) -> Event:
        """Return `event`; the record of a passage during which the clock was set is marked `clock_stepped`."""
        if isinstance(event, Occupancy) and event.record is not None and self.stepped:
            self.stepped = False
            faults = tuple(dict.fromkeys((*event.record.faults, "clock_stepped")))
            return structs.replace(event, record=structs.replace(event.record, faults=faults))
        return event


class LinkDriver:
    """A driver made of a byte channel and a decoder: all that a device on TCP or a serial line needs.

    The channel is given, so it is opened by `open` and closed by `close`; a decoder keeps its state over a reconnect,
    because a portal's background and set-up outlive the link.
    """

    pausable = False

    def __init__(
        self, channel: Channel, decoder: Decoder, info: DeviceInfo, silence_s: float, *, greeting: bytes = b""
    ) -> None:
        """Take a channel and a decoder. greeting : sent after every opening, to a device that must be told to speak."""
        self._channel = channel
        self._decoder = decoder
        self._greeting = greeting
        self._info = info
        self._silence_s = silence_s
        self._ready: deque[Event] = deque()
        self._last_bytes_s = 0.0
        self._last_data = b""
        self._failure: LinkLost | None = None
        self._clock = SteadyClock()
        self._occupied = False

    @property
    def decoder(self) -> Decoder:
        """Return what turns this device's bytes into events."""
        return self._decoder

    def resume(self, count: PortalCount) -> None:
        """Tell the decoder where the device's count stood, if it counts."""
        if isinstance(self._decoder, Counting):
            self._decoder.resume(count)

    def open(self) -> DeviceInfo:
        """Open the channel. Raises LinkLost."""
        self._failure = None
        self._channel.open()
        if self._greeting:
            self._channel.write(self._greeting)
        self._last_bytes_s = time.monotonic()
        return self._info

    def read(self, timeout_s: float) -> Event | None:
        """Return the next decoded event. Raises LinkLost after the events that the loss itself causes."""
        deadline = time.monotonic() + timeout_s
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            self._receive(max(0.0, deadline - time.monotonic()))
            if not self._ready and self._failure is None and time.monotonic() >= deadline:
                return None
        return self._ready.popleft()

    def _receive(self, timeout_s: float) -> None:
        try:
            data = self._channel.read(timeout_s)
        except LinkLost as error:
            # What the loss ends must be told before the loss itself, or an open passage would vanish.
            self._failure = LinkLost(f"{error}; last bytes {self._last_data[-60:]!r}")
            self._take(self._decoder.lost(self._now()))
            return
        now_s = time.monotonic()
        if data:
            self._last_bytes_s, self._last_data = now_s, data
            self._take(self._decoder.feed(data, self._now()))
            return
        silent_s = now_s - self._last_bytes_s
        self._take(self._decoder.idle(self._now(), silent_s))
        if silent_s >= self._silence_s:
            self._failure = LinkLost(
                f"{self._info.model} {self._channel.address}: no byte for {silent_s:.1f} s (one that is well "
                f"speaks more often), last {self._last_data[-60:]!r}; check the device and its serial server"
            )
            self._take(self._decoder.lost(self._now()))

    def _now(self) -> int:
        utc_ns, told = self._clock.stamp(self._occupied)
        self._ready.extend(told)
        return utc_ns

    def _take(self, events: list[Event]) -> None:
        """Make events ready to be read."""
        for event in events:
            if isinstance(event, Occupancy):
                self._occupied = event.phase == "entered"
            self._ready.append(self._clock.mark(event))

    def end(self) -> list[Event]:
        """Return what is decoded but not yet read, and the end of an open passage: its counts must not be lost."""
        self._take(self._decoder.lost(self._now()))
        events = [*self._ready]
        self._ready.clear()
        return events

    def acknowledge(self, source_ref: str) -> None:
        """A live device cannot be told; the recording is the acknowledgement."""

    def close(self) -> None:
        """Close the channel. May be called twice."""
        self._channel.close()


def names() -> dict[str, str]:
    """Return the known drivers: name -> module, from entry points, own modules first."""
    return {e.name: e.value for e in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def load(name: str) -> ModuleType:
    """Return the module of driver `name`.

    Raises ConfigError if no such driver is known, if it fails to import, or if it lacks Config, kinds or connect.
    """
    known = names()
    if name not in known:
        raise ConfigError(
            [
                f"driver {name!r}: not known; known are {', '.join(sorted(known)) or 'none'}. One of your own must be "
                f"installed: an entry point {name} in the group {GROUP} of its pyproject.toml, and pip install -e ."
            ]
        )
    try:
        module = import_module(known[name])
    except Exception as error:  # a vendor's module may fail in any way; the others' problems are to be told with it
        text = f"{type(error).__name__}: {error}{_remedy(name, error)}"
        raise ConfigError([f"driver {name!r}: module {known[name]} cannot be imported: {text}"]) from error
    missing = [n for n in ("Config", "kinds", "connect") if not hasattr(module, n)]
    if missing:
        raise ConfigError([f"driver {name!r}: module {known[name]} has no {' and no '.join(missing)}"])
    return module


def _remedy(name: str, error: Exception) -> str:
    """Return what to install for a driver whose own package has the missing module in an extra; the smallest counts."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    missing = (error.name or "").partition(".")[0].lower()
    for package in [e.dist for e in entry_points(group=GROUP) if e.name == name and e.dist is not None][:1]:
        extras: dict[str, set[str]] = {}
        for need in package.requires or []:
            if told := re.match(r"([\w.-]+)[^;]*;.*\bextra *== *[\"']([\w-]+)", need):
                extras.setdefault(told[2], set()).add(told[1].replace("-", "_").lower())
        if fitting := [extra for extra, needs in extras.items() if missing in needs]:
            return f"; pip install '{package.name}[{min(fitting, key=lambda extra: len(extras[extra]))}]'"
    return ""


def connect(name: str, config: Any, tap: Tap | None = None) -> Driver:
    """Return an unopened driver. `config` is an instance of the driver module's Config.

    tap : is given whatever comes from the device, before it is decoded; see `scanner_io.capture`. A driver that has no
        byte channel takes it as its attribute `tap`

    A Config with a field `address` gets an unopened byte channel for it. Raises ConfigError.
    """
    module = load(name)
    if not isinstance(config, module.Config):
        raise ConfigError([f"driver {name!r}: config is {type(config).__name__}, expected {module.Config.__name__}"])
    channel: Channel | None = None
    if "address" in {f.name for f in structs.fields(module.Config)}:
        channel = open_channel(config.address)
        if tap is not None:
            channel = TappedChannel(channel, tap)
    try:
        driver: Driver = module.connect(config, channel)
    except ScannerError as error:
        raise ConfigError([f"driver {name!r}: {error}"]) from error
    if tap is not None and channel is None:
        if not hasattr(driver, "tap"):
            raise ConfigError([f"driver {name!r}: has no tap, so what its device sends cannot be captured"])
        driver.tap = tap
    return driver
