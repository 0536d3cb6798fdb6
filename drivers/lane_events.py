"""Light barriers, cameras that read numbers, weighbridges, traffic lights: events as JSON lines over TCP or HTTP.

The lane listens; a device, or a script beside it, connects and writes one JSON object a line (UTF-8), or posts such
lines to any path of the same port by HTTP and gets 204, or 400 with the lines that are none:

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

import threading
import time
from collections import deque
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import LinkLost
from scanner_io.listening import SLICE_S, Answer, Asker, Limits, Server, answer_of
from scanner_io.model import DeviceInfo, Event, Health, Kind, LaneEvent

MOST_BYTES = 64 << 10
"""Of the body of a request."""
MOST_ODD = 1000
"""Devices whose clock is told to be wrong: anybody on the network may make up names."""


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


class LaneEvents:
    """The driver: a listening socket, served by the thread that reads."""

    pausable = False

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap
        self._ready: deque[Event] = deque()
        self._server: Server | None = None
        self._using = threading.Lock()
        self._closed = threading.Event()
        self._closed.set()
        self._odd_clocks: set[str] = set()

    def open(self) -> DeviceInfo:
        """Begin to listen. Raises LinkLost if the port is taken."""
        self.close()
        with self._using:
            c = self._config
            limits = Limits(c.clients, c.silence_s, MOST_BYTES)
            self._server = Server(
                "lane_events", (c.host, c.port), limits, self._posted, line=self._take, odd=self._health
            )
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
                assert self._server is not None
                self._server.serve(min(max(0.0, left_s), SLICE_S))
            if not self._ready and time.monotonic() >= deadline_s:
                return None
        return self._ready.popleft()

    @property
    def pending(self) -> bool:
        """Something was said that is not handed out yet."""
        with self._using:
            return bool(self._ready) or (self._server is not None and self._server.asking)

    def acknowledge(self, source_ref: str) -> None:
        """An event that was told cannot be told again."""

    def close(self) -> None:
        """Stop listening. May be called by any thread, any time, twice."""
        self._closed.set()
        with self._using:
            if self._server is not None:
                self._server.close()
            self._server = None

    def _posted(self, body: bytes, asker: Asker) -> Answer:
        """Take the lines of a request."""
        problems = [p for line in body.split(b"\n") if (p := self._take(line))]
        return answer_of("400 Bad Request", *problems) if problems else Answer("204 No Content")

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
        if odd and event.device not in self._odd_clocks and len(self._odd_clocks) < MOST_ODD:
            self._odd_clocks.add(event.device)
            more = "; others are not told" if len(self._odd_clocks) == MOST_ODD else ""
            self._health(f"{event.kind} {event.device}: {odd}; the time of arrival is taken{more}")
        self._ready.append(event)
        return ""

    def _health(self, text: str) -> None:
        self._ready.append(Health(utc_ns=time.time_ns(), component="lane_events", state="degraded", text=text))
