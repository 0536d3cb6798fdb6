"""Byte channels to devices: `tcp://HOST:PORT`, `serial:///dev/ttyUSB0?baud=9600`, `memory:NAME`.

A channel is made without I/O, opened, read with a time-out, and closed as often as one likes. A time-out is a value
(empty bytes); a broken link is LinkLost.
"""

from __future__ import annotations

import contextlib
import math
import queue
import select
import socket
import time
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from .errors import ConfigError, LinkLost

READ_SIZE = 65_536
CONNECT_TIMEOUT_S = 5.0
WAKE_S = 0.2


class Channel(Protocol):
    """A byte stream to a device."""

    address: str

    def open(self) -> None:
        """Connect. Raises LinkLost."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived, at most 64 KiB; b"" if nothing came in time. Raises LinkLost."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises LinkLost."""
        ...

    def close(self) -> None:
        """Disconnect. May be called twice and by any thread."""
        ...


def _readable(descriptor: int, timeout_s: float) -> bool:
    """Wait until there is something to read, or the other side has gone.

    With poll, because select cannot take descriptors from 1024 on. Raises ValueError for a closed socket's -1.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(math.ceil(max(0.0, timeout_s) * 1000)))


class TcpChannel:
    """A TCP client connection."""

    def __init__(self, address: str, host: str, port: int) -> None:
        self.address = address
        self._target = (host, port)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connect within 5 s. Raises LinkLost."""
        self.close()
        try:
            connection = socket.create_connection(self._target, timeout=CONNECT_TIMEOUT_S)
        except OSError as error:
            raise LinkLost(f"{self.address}: cannot connect ({error}); check power, cable and port") from error
        # A device that loses power sends no FIN: keep-alive finds the dead link where silence is normal.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        connection.setblocking(False)
        self._socket = connection

    def read(self, timeout_s: float) -> bytes:
        """Return received bytes, b"" after `timeout_s`. Raises LinkLost when the peer has closed."""
        connection = self._connected()
        try:
            if not _readable(connection.fileno(), timeout_s):
                return b""
            data = connection.recv(READ_SIZE)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:  # ValueError: closed by another thread while waiting
            raise LinkLost(f"{self.address}: read failed ({error})") from error
        if not data:
            raise LinkLost(f"{self.address}: the device closed the connection")
        return data

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises LinkLost."""
        connection = self._connected()
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.sendall(data)
            connection.setblocking(False)
        except OSError as error:
            raise LinkLost(f"{self.address}: write of {len(data)} bytes failed ({error})") from error

    def close(self) -> None:
        """Disconnect."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):  # not connected any more: closing is all that is left to do
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise LinkLost(f"{self.address}: not open")
        return self._socket


class SerialChannel:
    """A serial line, 8N1."""

    def __init__(self, address: str, port: str, baud: int) -> None:
        self.address = address
        self._port = port
        self._baud = baud
        self._serial: Any = None

    def open(self) -> None:
        """Open the line. Raises LinkLost."""
        import serial  # only sites with serial lines pay for its import

        self.close()
        try:
            self._serial = serial.Serial(
                self._port, self._baud, timeout=0, write_timeout=CONNECT_TIMEOUT_S, exclusive=True
            )
        except (OSError, ValueError) as error:  # serial.SerialException is an OSError
            raise LinkLost(f"{self.address}: cannot open ({error}); check cable, rights and baud rate") from error

    def read(self, timeout_s: float) -> bytes:
        """Return received bytes, b"" after `timeout_s`. Raises LinkLost."""
        line = self._serial
        if line is None:
            raise LinkLost(f"{self.address}: not open")
        deadline_s = time.monotonic() + timeout_s
        try:
            # In slices: the closing of a terminal by another thread does not wake the one that waits for it.
            while not _readable(line.fileno(), min(WAKE_S, deadline_s - time.monotonic())):
                if self._serial is not line:
                    raise LinkLost(f"{self.address}: closed while reading")
                if time.monotonic() >= deadline_s:
                    return b""
            return bytes(line.read(READ_SIZE))
        except (OSError, ValueError, TypeError) as error:  # TypeError: pyserial, closed by another thread
            raise LinkLost(f"{self.address}: read failed ({error})") from error

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises LinkLost."""
        line = self._serial
        if line is None:
            raise LinkLost(f"{self.address}: not open")
        try:
            line.write(data)
        except (OSError, ValueError, TypeError) as error:  # as in read
            raise LinkLost(f"{self.address}: write of {len(data)} bytes failed ({error})") from error

    def close(self) -> None:
        """Close the line."""
        line, self._serial = self._serial, None
        if line is not None:
            line.close()


class MemoryChannel:
    """A channel inside the process, for rigs: what the other side `put`s is read here, in the same pieces."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.written: list[bytes] = []
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._opened = False

    def put(self, data: bytes) -> None:
        """Let `data` arrive."""
        self._pieces.put(data)

    def hang_up(self) -> None:
        """Let the next read find the link lost."""
        self._pieces.put(None)

    def open(self) -> None:
        """Nothing to connect."""
        self._opened = True

    def read(self, timeout_s: float) -> bytes:
        """Return the next piece, b"" after `timeout_s`. Raises LinkLost."""
        deadline_s = time.monotonic() + timeout_s
        while self._opened:
            try:
                piece = self._pieces.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return b""
            if piece is None:
                raise LinkLost(f"{self.address}: the device closed the connection")
            if piece:
                return piece
        raise LinkLost(f"{self.address}: not open")

    def write(self, data: bytes) -> None:
        """Keep `data` in `written`."""
        self.written.append(data)

    def close(self) -> None:
        """Close."""
        if self._opened:
            self._opened = False
            self._pieces.put(b"")  # wakes a reader; read passes over it


def open_channel(address: str) -> Channel:
    """Return an unopened channel for `address`. Raises ConfigError with the forms that are understood."""
    problem = f"address {address!r}: expected tcp://HOST:PORT, serial:///dev/NAME?baud=9600 or memory:NAME"
    if address.startswith("memory:"):
        return MemoryChannel(address)
    try:
        parts = urlsplit(address)
        if parts.scheme == "tcp" and parts.hostname and parts.port and not (parts.path or parts.query):
            return TcpChannel(address, parts.hostname, parts.port)
        if parts.scheme == "serial" and parts.path and not parts.netloc:
            settings = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            baud = int(settings.pop("baud", ["9600"])[0])
            if baud > 0 and not settings:  # a setting that is not understood would silently not be made
                return SerialChannel(address, parts.path, baud)
    except ValueError as error:
        raise ConfigError([f"{problem} ({error})"]) from error
    raise ConfigError([problem])
