"""Plays a simulated portal as a device: a TCP server, a serial line, or the daily file that a receiver would keep.

A server and a serial line run in real time (`speed` 1) or faster, until the last vehicle has passed or they are told to
stop. Each returns the truth about every vehicle, which is in none of the bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import msgspec

from scanner_io.errors import ConfigError, StorageError
from scanner_io.model import NANOSECONDS

from .portal import setup_lines
from .portal_faults import Piece
from .traffic import ClockStep, Link, Passing, Played, Traffic, play

TimeForm = Literal["dated", "dateless", "unpadded"]
BACKLOG = 1 << 20
"""Bytes kept for a client that does not read; then it is dropped, as a portal's serial server drops it."""
Announce = Callable[[dict[str, Any]], None]


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What was played. Times of `occupancies` are seconds after `start_utc_ns`, divided by `speed`."""

    simulated: bool
    start_utc_ns: int
    speed: float
    traffic: Traffic
    occupancies: tuple[Passing, ...]


def truth_json(truth: Truth) -> bytes:
    """Return the truth as JSON, each fault and source with all its values."""
    return msgspec.json.format(msgspec.json.encode(truth), indent=1)


class _Pace:
    """Lets every piece wait for its time."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self.start_utc_ns = time.time_ns()
        self._began_s = time.monotonic()

    def left_s(self, t_s: float) -> float:
        """Return how long it is until second `t_s` of the play."""
        return self._began_s + t_s / self._speed - time.monotonic()


class _Greeting:
    """The set-up block for a client that comes after it was played: without it nothing says that this is a simulation.

    A real portal tells its set-up when it starts; this one tells it to whoever begins to listen as well, and that
    begins a boot epoch for that client. Without set-up (`setup` off) the lane must be told by `simulated = true`.
    """

    def __init__(self, config: Traffic) -> None:
        self._block = b"".join(setup_lines(config.nsigma)) if config.setup else b""
        self._played = 0

    def heard(self, data: bytes) -> None:
        """Learn what has been played."""
        self._played = min(self._played + len(data), len(self._block))

    def lines(self) -> bytes:
        """Return what a new client is told first: nothing before the block itself has been played to the end."""
        return self._block if self._played == len(self._block) else b""


class PortalServer:
    """A portal's TCP server: pushes to every client, takes nothing, and goes when the link does.

    Bound at once, so that `port` is known; `run` plays. Raises ConfigError if the address cannot be bound.
    """

    def __init__(self, config: Traffic, host: str, port: int, *, speed: float = 1.0, wait_for: int = 0) -> None:
        """Bind. wait_for : clients that must have come before the first line is sent."""
        self._config = config
        self._speed = speed
        self._wait_for = wait_for
        self._greeting = _Greeting(config)
        self._clients: dict[socket.socket, bytearray] = {}
        self._up = True
        self.stop = threading.Event()
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise ConfigError([f"tcp://{host}:{port}: cannot be bound ({error}); choose another port"]) from error
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()[:2]

    @property
    def address(self) -> str:
        """Where a driver finds it."""
        return f"tcp://{self.host}:{self.port}"

    def run(self) -> Truth:
        """Play to the end or until `stop` is set; close everything; return the truth."""
        passed: list[Passing] = []
        try:
            while len(self._clients) < self._wait_for and not self.stop.is_set():
                self._turn(0.1)
            pace = _Pace(self._speed)
            for played in play(self._config):
                if not self._until(pace, played):
                    break
                if isinstance(played, Passing):
                    passed.append(played)
                elif isinstance(played, Link):
                    self._link(up=played.up)
                elif isinstance(played, Piece):
                    for waiting in self._clients.values():
                        waiting += played.data
                    self._greeting.heard(played.data)
                    self._turn(0.0)
            self._drain()
        finally:
            self._link(up=False)
            self._listener.close()
        return Truth(
            simulated=True, start_utc_ns=pace.start_utc_ns, speed=self._speed, traffic=self._config,
            occupancies=tuple(passed),
        )  # fmt: skip

    def _until(self, pace: _Pace, played: Played) -> bool:
        """Serve clients until the piece is due; False if told to stop before."""
        if isinstance(played, Passing | ClockStep):
            return not self.stop.is_set()
        while (left_s := pace.left_s(played.t_s)) > 0:
            if self.stop.is_set():
                return False
            self._turn(min(left_s, 0.1))
        return not self.stop.is_set()

    def _link(self, *, up: bool) -> None:
        self._up = up
        if not up:
            for client in list(self._clients):
                self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        self._clients.pop(client, None)
        client.close()

    def _drain(self) -> None:
        """Give what is under way a second to arrive."""
        deadline_s = time.monotonic() + 1.0
        while any(self._clients.values()) and time.monotonic() < deadline_s:
            self._turn(0.05)

    def _turn(self, timeout_s: float) -> None:
        """Send what waits; take new clients; notice who has gone."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        by_number = {c.fileno(): c for c in self._clients}
        for client, waiting in self._clients.items():
            poll.register(client, select.POLLIN | (select.POLLOUT if waiting else 0))
        for number, events in poll.poll(timeout_s * 1000):
            if number == self._listener.fileno():
                self._accept()
                continue
            client = by_number[number]
            try:
                if events & select.POLLOUT:
                    waiting = self._clients[client]
                    del waiting[: client.send(waiting)]
                # A portal takes no request: what a client says is read and forgotten.
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not client.recv(4096):
                    self._drop(client)
            except BlockingIOError:
                continue
            except OSError:  # the client has gone; that is its affair
                self._drop(client)
        for client in [c for c, waiting in self._clients.items() if len(waiting) > BACKLOG]:
            self._drop(client)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            if not self._up:
                client.close()
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients[client] = bytearray(self._greeting.lines())


class PortalPty:
    """A portal on a serial line: a pseudo terminal whose other end a driver opens as `serial://DEVICE`.

    A line without a reader loses its bytes, as a serial line does; so does one whose link is down.
    """

    def __init__(self, config: Traffic, *, speed: float = 1.0, wait: bool = False) -> None:
        """Open the terminal. wait : the first line is sent once somebody has opened the device."""
        self._config = config
        self._speed = speed
        self._wait = wait
        self._greeting = _Greeting(config)
        self._reader = False
        self.stop = threading.Event()
        self._master, slave = os.openpty()
        try:
            tty.setraw(slave)
            self.device = os.ttyname(slave)
        finally:
            os.close(slave)  # so that the terminal can tell whether anybody else has it open
        os.set_blocking(self._master, False)

    @property
    def address(self) -> str:
        """Where a driver finds it."""
        return f"serial://{self.device}"

    def run(self) -> Truth:
        """Play to the end or until `stop` is set; close the terminal; return the truth."""
        passed: list[Passing] = []
        try:
            while self._wait and not self._opened() and not self.stop.wait(0.02):
                pass
            pace = _Pace(self._speed)
            for played in play(self._config):
                if isinstance(played, Piece | Link) and not self._until(pace, played.t_s):
                    break
                if isinstance(played, Passing):
                    passed.append(played)
                elif isinstance(played, Piece):
                    self._greet()
                    self._write(played.data)
                    self._greeting.heard(played.data)
        finally:
            os.close(self._master)
        return Truth(
            simulated=True, start_utc_ns=pace.start_utc_ns, speed=self._speed, traffic=self._config,
            occupancies=tuple(passed),
        )  # fmt: skip

    def _until(self, pace: _Pace, t_s: float) -> bool:
        """Wait for second `t_s` and look meanwhile who reads; False if told to stop before."""
        while (left_s := pace.left_s(t_s)) > 0:
            if self.stop.wait(min(left_s, 0.1)):
                return False
            self._greet()
        return not self.stop.is_set()

    def _greet(self) -> None:
        """Tell the set-up to a reader who was not there a moment ago."""
        before, self._reader = self._reader, self._opened()
        if self._reader and not before:
            self._write(self._greeting.lines())

    def _opened(self) -> bool:
        poll = select.poll()
        poll.register(self._master, 0)
        return not any(events & select.POLLHUP for _, events in poll.poll(0))

    def _write(self, data: bytes) -> None:
        if not self._opened():
            return
        try:
            while data:
                data = data[os.write(self._master, data) :]
        except OSError as error:
            # Full: nobody reads. EIO: the reader has just gone. A serial line loses the bytes in both cases.
            if error.errno not in (errno.EAGAIN, errno.EIO):
                raise


# --------------------------------------------------------------------------------------------------------------
# Daily file


def write_daily_file(
    path: Path, config: Traffic, *, start_utc_ns: int, form: TimeForm = "dated", utc_offset_h: int = 0
) -> Truth:
    """Write what a receiver with a clock would keep of the play; return the truth.

    Every whole line gets the time of its arrival, in local time of `utc_offset_h`. form : dated
    `2026-01-05 06:00:00.000 +00`, dateless `06-00-00.000`, unpadded `6-0-0.000` (the date is then in the file's name,
    if at all). A line that the link cut in two never became one and is not there.

    Raises ConfigError without a number of passes, StorageError if the file cannot be written.
    """
    if config.passes is None:
        raise ConfigError(["a daily file: passes is not set, expected how many vehicles it shall hold"])
    passed: list[Passing] = []
    stamp = _Stamp(start_utc_ns, form, utc_offset_h)
    try:
        with path.open("wb") as file:
            for played in play(config):
                if isinstance(played, Passing):
                    passed.append(played)
                else:
                    file.writelines(stamp.take(played))
    except OSError as error:
        raise StorageError(f"{path}: the daily file cannot be written ({error})") from error
    return Truth(simulated=True, start_utc_ns=start_utc_ns, speed=1.0, traffic=config, occupancies=tuple(passed))


class _Stamp:
    """The receiver that keeps a daily file."""

    def __init__(self, start_utc_ns: int, form: TimeForm, utc_offset_h: int) -> None:
        self._start_utc_ns = start_utc_ns
        self._form = form
        self._offset_h = utc_offset_h
        self._zone = timezone(timedelta(hours=utc_offset_h))
        self._rest = b""
        self._step_ns = 0

    def take(self, played: Played) -> Iterator[bytes]:
        """Yield the lines that are whole now, with their stamps."""
        if isinstance(played, Link):
            self._rest = b""
        elif isinstance(played, ClockStep):
            self._step_ns += int(played.step_s * NANOSECONDS)
        elif isinstance(played, Piece):
            *lines, self._rest = (self._rest + played.data).split(b"\n")
            for line in lines:
                yield line.rstrip(b"\r") + b"," + self._text(played.t_s) + b"\r\n"

    def _text(self, t_s: float) -> bytes:
        ms, _ = divmod(self._start_utc_ns + self._step_ns + int(t_s * NANOSECONDS), 1_000_000)
        at = datetime.fromtimestamp(ms // 1000, UTC).astimezone(self._zone)
        if self._form == "dated":
            return f"{at:%Y-%m-%d %H:%M:%S}.{ms % 1000:03d} {self._offset_h:+03d}".encode()
        if self._form == "dateless":
            return f"{at:%H-%M-%S}.{ms % 1000:03d}".encode()
        return f"{at.hour}-{at.minute}-{at.second}.{ms % 1000:03d}".encode()
