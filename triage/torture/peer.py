"""A device on TCP whose every byte, pause and cut a row decides: it listens, and speaks to who came last."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable

from scanner_io.errors import DeliveryError

from . import bed


class Peer(threading.Thread):
    """Listens at `address` from the beginning; one client at a time, the newest."""

    def __init__(self) -> None:
        super().__init__(name="peer", daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._client: socket.socket | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self.came_s: list[float] = []
        """When clients connected, monotonic."""
        self.gone_s: list[float] = []
        """When they were cut off here."""
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
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._drop()
                self._client = client
                self.came_s.append(time.monotonic())

    def wait(self, count: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until `count` clients have come. Raises DeliveryError."""
        bed.wait_until(lambda: len(self.came_s) >= count, timeout_s, f"the driver connects to its device ({count})")

    def send(self, data: bytes | Iterable[bytes], *, piece: int = 0) -> None:
        """Send to the client. piece : bytes at a time, each a packet; 0: as it comes. Raises DeliveryError."""
        with self._lock:
            client = self._client
        if client is None:
            raise DeliveryError("the driver is not connected to its device")
        for part in (data,) if isinstance(data, bytes) else data:
            step = piece or max(1, len(part))
            for at in range(0, len(part), step):
                client.sendall(part[at : at + step])

    def cut(self) -> None:
        """Let the link break, as a plug that is pulled does."""
        with self._lock:
            self._drop()
            self.gone_s.append(time.monotonic())

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
