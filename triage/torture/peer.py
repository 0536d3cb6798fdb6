"""A device on TCP whose every byte, pause and cut a row decides: it listens, and speaks to who came last."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import tty
from collections.abc import Iterable
from pathlib import Path

from scanner_io.errors import DeliveryError

from . import bed


class Peer(threading.Thread):
    """Listens at `address` from the beginning; one client at a time, the newest."""

    def __init__(self, buffer_bytes: int = 0) -> None:
        """Listen. buffer_bytes : what the device can hold of what is not taken from it; 0: the system's choice"""
        super().__init__(name="peer", daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        if buffer_bytes:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        self._rest = b""
        self._listener.settimeout(0.1)
        self._client: socket.socket | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self.absent = False
        """Nobody is let in."""
        self.came_s: list[float] = []
        """When clients connected, monotonic."""
        self.start()

    @property
    def address(self) -> str:
        """Where a driver finds it."""
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Take whoever comes."""
        while not self._ending.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # closed
                return
            if self.absent:
                client.close()  # as a serial server does whose device is unplugged
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._drop()
                self._client = client
                self.came_s.append(time.monotonic())

    def wait(self, count: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until `count` clients have come. Raises DeliveryError."""
        bed.wait_until(lambda: len(self.came_s) >= count, timeout_s, f"the driver connects to its device ({count})")

    def send(self, data: bytes | Iterable[bytes]) -> None:
        """Send to the client. Raises DeliveryError if there is none."""
        with self._lock:
            client = self._client
        if client is None:
            raise DeliveryError("the driver is not connected to its device")
        for part in (data,) if isinstance(data, bytes) else data:
            client.sendall(part)

    def pour(self, frame: bytes) -> bool:
        """Send a frame without waiting, as a device does that measures on; False if there is no room: it is lost.

        Raises DeliveryError if there is no client.
        """
        with self._lock:
            client = self._client
        if client is None:
            raise DeliveryError("the driver is not connected to its device")
        try:
            while self._rest:
                self._rest = self._rest[client.send(self._rest, socket.MSG_DONTWAIT) :]
            self._rest = frame[client.send(frame, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return False
        return True

    def cut(self) -> None:
        """Let the link break, as a plug that is pulled does."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError):  # it has gone by itself
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    def close(self) -> None:
        """End; may be called twice."""
        self._ending.set()
        with self._lock:
            self._drop()
        self._listener.close()
        self.join(5)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SerialPeer:
    """The same on a serial line: a pseudo terminal behind a name that stays when the plug is pulled and put back."""

    def __init__(self, name: Path) -> None:
        self._name = name
        self._ends: tuple[int, int] | None = None
        self.plug()

    @property
    def address(self) -> str:
        """Where a driver finds it."""
        return f"serial://{self._name}?baud=9600"

    def plug(self) -> None:
        """Put the plug in: another terminal, under the same name."""
        device, theirs = os.openpty()
        tty.setraw(theirs)
        os.set_blocking(device, False)
        self._ends = device, theirs
        self._name.symlink_to(os.ttyname(theirs))

    def send(self, data: bytes) -> None:
        """Send; what a line that nobody reads cannot take is lost, as on a real one."""
        if self._ends is None:
            return
        until_s = time.monotonic() + 2.0
        while data and time.monotonic() < until_s:
            try:
                data = data[os.write(self._ends[0], data) :]
            except BlockingIOError:
                time.sleep(0.001)

    def cut(self) -> None:
        """Pull the plug; may be called twice."""
        self._name.unlink(missing_ok=True)
        for end in self._ends or ():
            os.close(end)
        self._ends = None
