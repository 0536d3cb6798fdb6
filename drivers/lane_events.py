"""Light barriers, cameras that read numbers, weighbridges, traffic lights: events as JSON lines over TCP or HTTP.

The lane listens; a device, or a script beside it, connects and writes one JSON object a line (UTF-8), or posts such
lines to any path of the same port by HTTP and gets 204, or 400 with the first line that is none:

    {"event": "container", "text": "CSQU3054383", "confidence": 97, "time": "2026-01-31T09:45:01.25Z"}
    {"event": "plate", "text": "AB 123 CD", "device": "camera 2"}
    {"event": "booking", "text": "SIM123456", "device": "gate"}
    {"event": "weighbridge", "weight_kg": 23460}
    {"event": "light_barrier", "state": "blocked", "device": "entry"}
    {"event": "traffic_light", "state": "red"}
    {"event": "speed", "speed_mm_s": 1450.0, "device": "radar", "time": "2026-01-31T09:45:01.25Z"}

`time` is ISO 8601 with a zone; without it, or where it is further from this machine's clock than `clock_error_s`, the
time of arrival is taken. What arrives goes to the passage nearest in time; an event begins no passage of its own.

Speeds, told several times a second while a vehicle passes (0 where it stops, negative where it rolls back), make the
columns of its image even where the detector has no encoder: a radar, a light barrier pair, or the drive's controller by
a script of a few lines that reads it (OPC UA, Modbus) and writes here. They must cover the whole image, see
`triage.analysis.rectify`.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
from collections import deque
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import LinkLost
from scanner_io.model import DeviceInfo, Event, Health, Kind, LaneEvent

MOST_BYTES = 64 << 10
"""Of a line, or of the head or body of a request: more is cut off with its connection."""
SLICE_S = 0.1
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,7})[ \t]*\r\n", re.IGNORECASE)
_METHODS = (b"POST ", b"GET ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to listen.

    host : of this machine alone unless another address is given: whoever reaches the port can say what he likes
    clients : connections at once; silence_s : one that says nothing for so long is closed
    """

    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    host: str = "127.0.0.1"
    clients: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 32
    silence_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 3600.0
    clock_error_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 60.0
    vendor: str = "unknown"


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives: nothing that a passage must have."""
    return ()


def connect(config: Config, channel: Channel | None = None) -> LaneEvents:
    """Return the driver, not opened. It has no channel: it listens."""
    return LaneEvents(config)


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line as it comes; fields that are not known are left out."""

    event: Literal["light_barrier", "plate", "container", "booking", "weighbridge", "traffic_light", "speed"]
    text: Annotated[str, msgspec.Meta(max_length=200)] = ""
    confidence: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    weight_kg: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    speed_mm_s: Annotated[float, msgspec.Meta(ge=-20_000, le=20_000)] | None = None
    state: Annotated[str, msgspec.Meta(max_length=40)] = ""
    device: Annotated[str, msgspec.Meta(max_length=80)] = ""
    time: datetime | None = None


def decode(line: bytes, now_ns: int, clock_error_s: float = 60.0) -> tuple[LaneEvent, str]:
    """Return the event of a line, and what is wrong with its time, "" if nothing.

    Raises ValueError for what is no event, or tells nothing.
    """
    told = msgspec.json.decode(line, type=_Line)
    needs = {
        "plate": told.text,
        "container": told.text,
        "booking": told.text,
        "weighbridge": told.weight_kg,
        "light_barrier": told.state,
        "speed": told.speed_mm_s,
    }
    if told.event in needs and not needs[told.event] and needs[told.event] != 0:
        raise ValueError(f"a {told.event} that tells nothing")
    utc_ns, odd = now_ns, ""
    if told.time is not None:
        if told.time.tzinfo is None:
            odd = f"the time {told.time.isoformat()} names no zone"
        else:
            at_ns = round(told.time.timestamp() * 1e6) * 1000
            if abs(at_ns - now_ns) <= clock_error_s * 1e9:
                utc_ns = at_ns
            else:
                odd = f"its clock is {(at_ns - now_ns) / 1e9:+.0f} s off"
    return (
        LaneEvent(
            utc_ns=utc_ns, kind=told.event, text=told.text, confidence=told.confidence, weight_kg=told.weight_kg,
            state=told.state, device=told.device, speed_mm_s=told.speed_mm_s,
        ),
        odd,
    )  # fmt: skip


class _Client:
    """A connection, and what of it is not a whole line yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard_s = time.monotonic()
        self.rest = b""


class LaneEvents:
    """The driver: a listening socket, served by the thread that reads."""

    pausable = False

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap
        self._ready: deque[Event] = deque()
        self._listener: socket.socket | None = None
        self._clients: list[_Client] = []
        self._using = threading.Lock()
        self._closed = threading.Event()
        self._closed.set()
        self._odd_clocks: set[str] = set()

    def open(self) -> DeviceInfo:
        """Begin to listen. Raises LinkLost if the port is taken."""
        self.close()
        with self._using:
            try:
                self._listener = socket.create_server((self._config.host, self._config.port))
            except OSError as error:
                raise LinkLost(
                    f"lane_events {self._config.host}:{self._config.port}: cannot listen ({error}); is another program "
                    "on this port?"
                ) from error
            self._listener.setblocking(False)
            self._closed.clear()
        return DeviceInfo(
            vendor=self._config.vendor,
            model="lane events",
            kinds=(),
            address=f"{self._config.host}:{self._config.port}",
        )

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event. Raises LinkLost when not open."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ready:
            left_s = deadline_s - time.monotonic()
            with self._using:
                if self._closed.is_set():
                    raise LinkLost(f"lane_events {self._config.host}:{self._config.port}: not open")
                self._serve(min(max(0.0, left_s), SLICE_S))
            if not self._ready and time.monotonic() >= deadline_s:
                return None
        return self._ready.popleft()

    def acknowledge(self, source_ref: str) -> None:
        """An event that was told cannot be told again."""

    def close(self) -> None:
        """Stop listening. May be called by any thread, any time, twice."""
        self._closed.set()
        with self._using:
            for client in self._clients:
                client.connection.close()
            self._clients.clear()
            if self._listener is not None:
                self._listener.close()
            self._listener = None

    # ------------------------------------------------------------------------------------------------- connections

    def _serve(self, timeout_s: float) -> None:
        """Wait for the next thing to come, and take it."""
        assert self._listener is not None
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        by_descriptor = {client.connection.fileno(): client for client in self._clients}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(timeout_s * 1000):
            client = by_descriptor.get(descriptor)
            if client is None:
                self._accept()
            elif not self._hear(client):
                self._part(client)
        now_s = time.monotonic()
        for client in [c for c in self._clients if now_s - c.heard_s > self._config.silence_s]:
            self._part(client)

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):  # gone again before it was accepted
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._clients) >= self._config.clients:
                self._part(min(self._clients, key=lambda c: c.heard_s))  # the one that has been silent longest
            self._clients.append(_Client(connection))

    def _part(self, client: _Client) -> None:
        client.connection.close()
        if client in self._clients:
            self._clients.remove(client)

    def _hear(self, client: _Client) -> bool:
        """Take what a client says; False to part with it."""
        try:
            data = client.connection.recv(MOST_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        client.heard_s = time.monotonic()
        client.rest += data
        if client.rest.startswith(_METHODS):
            return self._request(client)
        *lines, client.rest = client.rest.split(b"\n")
        for line in lines:
            self._take(line)
        if len(client.rest) > MOST_BYTES:
            self._health(f"a line of more than {MOST_BYTES} bytes: its sender was cut off")
            return False
        return True

    def _request(self, client: _Client) -> bool:
        """Answer an HTTP request once it is whole; the connection ends with it."""
        head, blank, body = client.rest.partition(b"\r\n\r\n")
        if not blank:
            return len(client.rest) <= MOST_BYTES
        found = _LENGTH.search(head + b"\r\n")
        length = int(found[1]) if found else 0
        if not head.startswith(b"POST ") or not found or length > MOST_BYTES:
            self._answer(client, "405 Method Not Allowed" if not head.startswith(b"POST ") else "413 Content Too Large")
            return False
        if len(body) < length:
            return True
        lines = [line for line in body[:length].split(b"\n") if line.strip()]
        problems = [p for line in lines if (p := self._take(line))]
        self._answer(client, "400 Bad Request" if problems else "204 No Content", problems[0] if problems else "")
        return False

    @staticmethod
    def _answer(client: _Client, status: str, text: str = "") -> None:
        body = text.encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError):  # it has gone without waiting for an answer
            client.connection.send(head.encode() + body)

    def _take(self, line: bytes) -> str:
        """Take one line; return why it is none, "" if it is one."""
        if not line.strip():
            return ""
        self.tap("line", "", line + b"\n")
        try:
            event, odd = decode(line, time.time_ns(), self._config.clock_error_s)
        except (ValueError, msgspec.MsgspecError) as error:
            text = f"no event ({error}): {line[:80]!r}"
            self._health(text)
            return text
        if odd and event.device not in self._odd_clocks:
            self._odd_clocks.add(event.device)
            self._health(f"{event.kind} {event.device}: {odd}; the time of arrival is taken")
        self._ready.append(event)
        return ""

    def _health(self, text: str) -> None:
        self._ready.append(Health(utc_ns=time.time_ns(), component="lane_events", state="degraded", text=text))
