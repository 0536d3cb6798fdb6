"""A line between a workstation and the daemon: TCP connections passed on as fast as the line is, or not at all."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from contextlib import suppress

PIECE = 1 << 16
TURN_S, BURST_S = 0.005, 0.02
_RESET = struct.pack("ii", 1, 0)


class _Way:
    """One direction of one connection. may : bytes that may be taken now; waiting : taken and not passed on yet"""

    def __init__(self, near: socket.socket, far: socket.socket, *, up: bool) -> None:
        self.near, self.far, self.up = near, far, up
        self.waiting = b""
        self.may = 0.0


class Line(threading.Thread):
    """Listens at `address` and passes every connection on to the daemon. Buffers are small: the sender keeps the rest.

    up, down : whether anything is passed on to the daemon, and from it
    seen : all that has passed, where somebody listens
    """

    def __init__(self, to: str, bytes_per_s: float = 1e12) -> None:
        """Begin. to : the daemon's address; bytes_per_s : each way of each connection"""
        super().__init__(name="line", daemon=True)
        host, _, port = to.removeprefix("tcp://").rpartition(":")
        self._to, self._bytes_per_s = (host, int(port)), bytes_per_s
        self._most = max(bytes_per_s * BURST_S, 1024.0)
        """Bytes that are taken at once: half as many are waited for, so that a slow line does not spin."""
        self._listener = _small(socket.socket())
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.up = self.down = True
        self.seen: bytearray | None = None
        self._resets = 0
        self._ways: list[_Way] = []
        self._ending = threading.Event()
        self.start()

    def reset(self) -> None:
        """End every connection with RST to both ends."""
        self._resets += 1

    def close(self) -> None:
        """End; may be called twice."""
        self._ending.set()
        self.join()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self) -> None:
        """Pass on until `close`."""
        done, last_s = 0, time.monotonic()
        while not self._ending.is_set():
            if done != self._resets:
                done = self._resets
                self._end([*self._ways], reset=True)
            now_s = time.monotonic()
            for way in self._ways:
                way.may = min(way.may + self._bytes_per_s * (now_s - last_s), self._most)
            last_s = now_s
            self._turn([w for w in self._ways if (self.up if w.up else self.down)])
        self._end([*self._ways])
        self._listener.close()

    def _turn(self, ways: list[_Way]) -> None:
        taking = {w.near: w for w in ways if not w.waiting and w.may >= self._most / 2}
        giving = {w.far: w for w in ways if w.waiting}
        readable, writable, _ = select.select([self._listener, *taking], list(giving), [], TURN_S)
        for one in readable:
            if one is self._listener:
                self._accept()
                continue
            way = taking[one]
            try:
                way.waiting = one.recv(min(PIECE, int(way.may)))
            except OSError:
                way.waiting = b""
            way.may -= len(way.waiting)
            if self.seen is not None:
                self.seen += way.waiting
            if not way.waiting:
                self._end([w for w in self._ways if one in (w.near, w.far)])
        for one in writable:
            way = giving[one]
            try:
                way.waiting = way.waiting[one.send(way.waiting) :]
            except OSError:
                self._end([w for w in self._ways if one in (w.near, w.far)])

    def _accept(self) -> None:
        near = self._listener.accept()[0]
        far = _small(socket.socket())
        try:
            far.connect(self._to)
        except OSError:  # the daemon is away
            near.close()
            far.close()
            return
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.setblocking(False)
        self._ways += [_Way(near, far, up=True), _Way(far, near, up=False)]

    def _end(self, ways: list[_Way], *, reset: bool = False) -> None:
        for way in ways:
            if way in self._ways:
                self._ways.remove(way)
            with suppress(OSError):  # closed by its other way
                if reset:
                    way.near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                way.near.close()


def _small(one: socket.socket) -> socket.socket:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        one.setsockopt(socket.SOL_SOCKET, option, PIECE)
    return one
