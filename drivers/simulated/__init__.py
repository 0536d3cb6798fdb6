"""A lane of its own: radiograph, portal and papers of vehicles that do not exist.

For demonstrations, tests and load: everything it says is marked as simulated. Physics and shapes are modelled closely
enough that what reads real lanes reads this one: polychromatic transmission of a vehicle built from solids
(`scene`, `carriers`, `cargo`, `threats`, `attenuation`), a line detector with dark, gain, pulses and quanta
(`radiograph`), and a portal that speaks genuine lines through the codec that reads real ones (`portal`).

Its portal can also stand alone, as a device that a portal's driver connects to (`traffic`, `portal_faults`, `player`).

The truth about a vehicle is given by `ground_truth` alone and is not in the event stream.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from scanner_io.capture import Tap, no_tap
from scanner_io.errors import LinkLost
from scanner_io.model import DeviceInfo, EndOfSource, Event, Kind, LineBlock, Radiograph, ScanEnd, ScanStart

from .advance import cameras, cargo_message
from .carriers import TARE_KG
from .config import Config
from .passage import ground_truth, passage
from .plan import Truth, plan
from .player import PortalPty, PortalServer, truth_json, write_daily_file
from .portal_faults import KINDS as FAULT_KINDS
from .portal_faults import Fault, Piece
from .traffic import ClockStep, Link, Passing, Traffic, play
from .wedges import energy_calibration

__all__ = [
    "FAULT_KINDS", "TARE_KG", "ClockStep", "Config", "Fault", "Link", "Passing", "Piece", "PortalPty", "PortalServer",
    "SimulatedLane", "Traffic", "Truth", "cameras", "cargo_message", "connect", "energy_calibration", "ground_truth",
    "kinds", "plan", "play", "simulate_passage", "simulate_radiograph", "truth_json", "write_daily_file",
]  # fmt: skip


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what the configured lane gives."""
    given: dict[Kind, bool] = {
        "radiograph": config.radiograph,
        "portal": config.portal,
        "declaration": config.declarations,
    }
    return tuple(kind for kind, on in given.items() if on)


def connect(config: Config, channel: Any = None) -> SimulatedLane:
    """Return an unopened simulated lane; it needs no channel."""
    return SimulatedLane(config)


def simulate_passage(config: Config, index: int) -> list[Event]:
    """Return all events of vehicle `index` at once, without pacing.

    They are those that the driver yields for it when `live` is off.
    """
    return [event for _, event in passage(config, index, config.slot_start_ns(index), config.slot_start_ns(0))]


def simulate_radiograph(config: Config, index: int) -> Radiograph:
    """Return the radiograph of vehicle `index` whole, for studies; the same counts as in its events.

    Raises LinkLost where the configuration lets its link break.
    """
    events = simulate_passage(config, index)
    start = next((e for e in events if isinstance(e, ScanStart)), None)
    end = next((e for e in events if isinstance(e, ScanEnd)), None)
    blocks = [e for e in events if isinstance(e, LineBlock)]
    if start is None or end is None or end.reason != "complete" or not blocks:
        raise LinkLost(f"simulated lane: vehicle {index} has no whole radiograph; check radiograph, link_loss_share")
    return Radiograph(
        detector=start.detector,
        counts=tuple(np.concatenate([b.counts[e] for b in blocks]) for e in range(config.energies)),
        column_utc_ns=np.concatenate([b.column_utc_ns for b in blocks]),
    )


class SimulatedLane:
    """The driver: paces the events of one vehicle after another.

    It can wait when it is not read. A vehicle with a lost link ends with LinkLost, as with any device; opening again
    goes on with the next vehicle.
    """

    pausable = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap  # nothing comes from outside: the settings, in a capture's head, make it all again
        self._index = 0
        self._events: Iterator[tuple[int, Event]] | None = None
        self._next: tuple[int, Event] | None = None
        self._stop = threading.Event()
        self._open = False
        self._ended = False
        self._origin: tuple[float, int] | None = None
        self._first_s = 0.0
        self._free_ns = 0
        self._boot_ns: int | None = None

    def open(self) -> DeviceInfo:
        """Begin, or go on with the vehicle after the one that was interrupted."""
        if self._events is not None:
            self._leave()
        self._stop.clear()
        self._open, self._ended, self._origin = True, False, None
        if self._first_s == 0.0:
            self._first_s = time.monotonic() + self._config.delay_s
        return DeviceInfo(
            vendor="scanlane",
            model="simulated lane",
            kinds=kinds(self._config),
            serial=f"seed {self._config.seed}",
            simulated=True,
            note="SIMULATED: no device is connected",
        )

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event when its time has come, None if that is not within `timeout_s`.

        Raises LinkLost after the events of a vehicle whose link is lost, and when not open.
        """
        if not self._open:
            raise LinkLost("simulated lane: not open; call open() before read()")
        deadline = time.monotonic() + timeout_s
        while not self._stop.is_set():
            if self._next is None and not self._ended:
                self._next = self._advance()
            wait_s = max(self._due_s(), self._first_s) - time.monotonic()
            if self._next is not None and wait_s <= 0:
                event, self._next = self._next[1], None
                return event
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            self._stop.wait(left_s if self._next is None else min(wait_s, left_s))
        return None

    def _advance(self) -> tuple[int, Event]:
        """Return the next event of the vehicle under way, or begin the next vehicle."""
        while True:
            if self._events is None:
                if self._config.vehicles is not None and self._index >= self._config.vehicles:
                    self._ended = True
                    return self._free_ns, EndOfSource(utc_ns=self._free_ns)
                start_ns = self._slot_ns()
                self._free_ns = start_ns + self._config.slot_ns
                if self._boot_ns is None:
                    self._boot_ns = start_ns if self._config.live else self._config.slot_start_ns(0)
                self._events = passage(self._config, self._index, start_ns, self._boot_ns)
            item = next(self._events, None)
            if item is not None:
                return item
            index = self._leave()
            if "link_loss" in plan(self._config, index).truth.faults:
                self._open = False
                raise LinkLost(
                    f"simulated lane: vehicle {index} loses its link, as link_loss_share = "
                    f"{self._config.link_loss_share:g} asks for; open again for the next vehicle"
                )

    def _leave(self) -> int:
        """Finish with the vehicle under way and return its number."""
        self._events, self._next = None, None
        self._index += 1
        return self._index - 1

    def _slot_ns(self) -> int:
        if not self._config.live:
            return self._config.slot_start_ns(self._index)
        return max(time.time_ns(), self._free_ns)

    def _due_s(self) -> float:
        """Return the monotonic time at which the next event is due."""
        if self._next is None or self._config.speed == 0:
            return 0.0
        if self._origin is None:
            self._origin = (time.monotonic(), self._next[0])
        began_s, began_ns = self._origin
        return began_s + (self._next[0] - began_ns) / 1e9 / self._config.speed

    def acknowledge(self, source_ref: str) -> None:
        """Nothing depends on it: a simulated vehicle can be made again."""

    def close(self) -> None:
        """Stop; a read that waits returns None. May be called at any time, by any thread, and twice."""
        self._open = False
        self._stop.set()
