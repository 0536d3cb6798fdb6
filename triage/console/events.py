"""What the page is told without asking: server-sent events, one queue per page, bounded."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

KEPT = 400
"""Events that a page may catch up on after a lost connection."""
PING_S = 5.0
WHOLE = frozenset({"queue", "services"})
"""Events that tell all there is of their kind: of these only the last is kept."""
BEHIND = 1000
"""A page that is so many events behind is told to load everything anew."""


class Events:
    """Publishes from any thread to pages that listen in the event loop."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kept: deque[tuple[int, str, str]] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._listeners: dict[asyncio.Queue[tuple[int, str, str] | None], asyncio.AbstractEventLoop] = {}
        self._closed = False
        self.alone_since_s = time.monotonic()
        """Since when no page has been listening; infinity while one is."""

    def publish(self, event: str, **data: Any) -> None:
        """Tell every page. Called from any thread."""
        with self._lock:
            item = (next(self._numbers), event, json.dumps(data))
            if event in WHOLE:
                for old in [kept for kept in self._kept if kept[1] == event]:
                    self._kept.remove(old)
            self._kept.append(item)
            listeners = list(self._listeners.items())
        for queue, loop in listeners:
            loop.call_soon_threadsafe(_put, queue, item)

    def close(self) -> None:
        """End all listening."""
        with self._lock:
            self._closed = True
            listeners = list(self._listeners.items())
        for queue, loop in listeners:
            loop.call_soon_threadsafe(queue.put_nowait, None)

    async def listen(self, last_id: int | None) -> AsyncIterator[bytes]:
        """Yield the stream of one page, as text/event-stream. last_id : of the last event the page had."""
        queue: asyncio.Queue[tuple[int, str, str] | None] = asyncio.Queue()
        with self._lock:
            if self._closed:
                return
            missed = [] if last_id is None else [item for item in self._kept if item[0] > last_id]
            self._listeners[queue] = asyncio.get_running_loop()
            self.alone_since_s = float("inf")
        try:
            yield b"retry: 1000\n\n"
            for item in missed:
                yield _framed(item)
            while True:
                try:
                    said = await asyncio.wait_for(queue.get(), PING_S)
                except TimeoutError:
                    yield b"event: ping\ndata: {}\n\n"
                    continue
                if said is None:
                    return
                yield _framed(said)
        finally:
            with self._lock:
                del self._listeners[queue]
                if not self._listeners:
                    self.alone_since_s = time.monotonic()


def _put(queue: asyncio.Queue[tuple[int, str, str] | None], item: tuple[int, str, str]) -> None:
    if queue.qsize() < BEHIND:
        queue.put_nowait(item)
    elif queue.qsize() == BEHIND:
        queue.put_nowait((item[0], "reload", "{}"))


def _framed(item: tuple[int, str, str]) -> bytes:
    number, event, data = item
    return f"id: {number}\nevent: {event}\ndata: {data}\n\n".encode()
