"""Fake peers for tests: a portal that plays lines over TCP."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

_STAMP = re.compile(rb",(?:\d{4}-\d\d-\d\d )?(\d{1,2})[:-](\d{1,2})[:-](\d{1,2}(?:\.\d+)?)(?: ?[+-]\d\d)?$")


def timed_lines(path: Path, first: int = 0, end: int | None = None) -> list[tuple[float, bytes]]:
    """Return lines `[first, end)` of a daily file as a portal sends them: seconds from the first one, line with CR LF.

    The stamp is removed here without the codec under test.
    """
    lines = []
    start_s = None
    for raw in path.read_bytes().splitlines()[first:end]:
        match = _STAMP.search(raw)
        assert match, f"{path}: no stamp in {raw!r}"
        hour, minute, second = (float(g) for g in match.groups())
        at_s = (hour * 60 + minute) * 60 + second
        start_s = at_s if start_s is None else start_s
        lines.append((at_s - start_s, raw[: match.start()] + b"\r\n"))
    return lines


class PortalServer:
    """A TCP server on a free loopback port that plays portal lines to every client that connects.

    lines : bytes of lines, or pairs of (seconds from the start, bytes of a line)
    speed : times as fast as the pairs' seconds say; None: as fast as the client reads. Played at 20 x, intervals of
        0.2 s come every 10 ms, so a record's arrival times shrink while its gamma times, rebuilt on the nominal 0.2 s,
        do not: its end may precede its last interval. Passage time-outs count real seconds and do not strike.
    split : bytes per packet, so that lines arrive in pieces; None: one line at a time
    drop_after : bytes after which the link is cut, in mid-line if it falls so; done to the first `drops` clients
    resume : a later client gets what follows the last line that was cut or sent whole, as from a live portal;
        otherwise every client gets everything from the start
    garbage : bytes put in before the line of that index
    stay : keep the link open and silent at the end (a portal does); False: close it

    A context manager; no thread and no socket outlives it.
    """

    def __init__(
        self,
        lines: Iterable[bytes | tuple[float, bytes]],
        *,
        speed: float | None = None,
        split: int | None = None,
        drop_after: int | None = None,
        drops: int = 1,
        resume: bool = False,
        garbage: Mapping[int, bytes] | None = None,
        stay: bool = True,
    ) -> None:
        self.lines = [(0.0, line) if isinstance(line, bytes) else line for line in lines]
        self._speed = speed
        self._split = split
        self._drop_after = drop_after
        self._drops_left = drops if drop_after is not None else 0
        self._resume = resume
        self._garbage = dict(garbage or {})
        self._stay = stay
        self._next = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.clients = 0
        """Clients that have connected so far."""

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> PortalServer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)  # closing a socket does not wake its accept everywhere
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while True:
            with self._lock:
                threads, self._threads = self._threads, []
            if not threads:
                break
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive(), f"{thread.name} did not end"
        if self._listener is not None:
            self._listener.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="portal rig", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            with self._lock:
                self.clients += 1
                cut = self._drop_after if self._drops_left > 0 else None
                self._drops_left -= cut is not None
                first = self._next if self._resume else 0
            client.settimeout(0.05)
            self._start(self._play, client, first, cut)

    def _play(self, client: socket.socket, first: int, cut: int | None) -> None:
        room = cut
        began_s = time.monotonic()
        with client, contextlib.suppress(ConnectionError):
            for index in range(first, len(self.lines)):
                at_s, line = self.lines[index]
                if self._speed is not None:
                    due_s = began_s + (at_s - self.lines[first][0]) / self._speed
                    if self._stop.wait(max(0.0, due_s - time.monotonic())):
                        return
                data = self._garbage.get(index, b"") + line
                if room is not None:
                    data, room = data[:room], room - len(data[:room])
                with self._lock:
                    self._next = max(self._next, index + 1)
                if not self._send(client, data) or room == 0:
                    return
            while self._stay and not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    if not client.recv(1024):
                        return  # the client has gone

    def _send(self, client: socket.socket, data: bytes) -> bool:
        """Send all of `data` in pieces; False if the server stops before a slow client has taken them."""
        size = self._split or len(data) or 1
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        for piece in pieces:
            while piece:
                if self._stop.is_set():
                    return False
                with contextlib.suppress(TimeoutError):
                    piece = piece[client.send(piece) :]
        return True
