"""What a monitoring system asks of a running service: /healthz, /readyz and /metrics, over HTTP.

The daemon's loop alone counts; the thread that answers only reads. Most counts are taken from the events of the log, so
that log and metrics cannot say different things. No image, no name of a person and no number of a container is here.

    /healthz   200 while the daemon's loop turns
    /readyz    200 while every lane judges, intake is open and the gate is sound; else 503 with the reasons
    /metrics   Prometheus text

Source: Prometheus exposition format 0.0.4; names and units by its conventions.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple, get_args

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from scanner_io.errors import ConfigError, StorageError
from scanner_io.model import Outcome, TriageResult

Log = Callable[..., None]

STAGES = ("correction", "screening", "quality", "container", "vehicle", "load", "maps", "findings", "portal", "total")
"""Of judging, by the names in a result's timings; others are not told apart."""
SECONDS = (0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
FOLLOWED = 10_000
"""Scans whose way to a decision is timed; of more, the oldest are let go."""
QUEUE_EVERY_S = 5.0
ANSWER_WITHIN_S = 5.0
HEALTH = {"ok": 0, "degraded": 1, "fault": 2}


class Condition(NamedTuple):
    """How the service is. why_not : reasons why it is not ready, none if it is; turned_s : when its loop last turned"""

    why_not: tuple[str, ...] = ("not started yet",)
    turned_s: float = 0.0


class Metrics:
    """Counts of one service. `heard` stands between the daemon and its log."""

    def __init__(self, lanes: Iterable[str], *, stands_s: float = 30.0) -> None:
        """Begin at nothing. stands_s : a loop that has not turned for so long is not healthy"""
        self.registry = CollectorRegistry()
        self._stands_s = stands_s
        self.condition = Condition(turned_s=time.monotonic())

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"scanlane_{name}", words, labels, registry=self.registry)

        def gauge(name: str, words: str, *labels: str) -> Gauge:
            return Gauge(f"scanlane_{name}", words, labels, registry=self.registry)

        self._scans = counter("scans", "Scans stored and judged.", "lane", "outcome")
        self._flagged = counter("flagged", "Scans that an analyst must see.", "lane")
        self._offers = counter("offers", "Offers of scans to analysts; one may be offered again.")
        self._deliveries = counter("deliveries", "Scans that came whole to an analyst's workstation.")
        self._decisions = counter("decisions", "Decisions that apply.", "verdict")
        self._stages = Histogram(
            "scanlane_stage_seconds", "Time by stage: of judging, and queue, delivery, decision.", ["stage"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self._queue = gauge("queue_scans", "Scans of the outbox by state.", "state")
        self._oldest = gauge("queue_oldest_seconds", "How long the scan that waits longest has waited; 0: none waits.")
        self._dropped = counter(
            "dropped_blocks", "Blocks of lines that came when nobody could take them.", "lane", "device"
        )
        self._device_up = gauge("device_up", "1 while the link to the device is open.", "lane", "device")
        self._device_health = gauge(
            "device_health", "0 ok, 1 degraded, 2 fault, by the device's own word.", "lane", "device", "component"
        )
        self._lane_up = gauge("lane_up", "1 while the lane reads and judges.", "lane")
        self._downtime = counter("downtime_seconds", "Time in which a lane could not take scans in.", "lane", "reason")
        self._intake = gauge("intake_open", "0 while the disk is too full to take scans in.")
        self._free = gauge("disk_free_bytes", "Room on the disk of the recordings.")
        self._ready = gauge("ready", "1 while /readyz says so.")
        self._events = counter("events", "Lines of the log.", "event", "level")
        self._lines = counter("log_lines", "Lines of the log by level, from 0 on.", "level")
        ProcessCollector(registry=self.registry)
        for lane in lanes:
            self._lane_up.labels(lane).set(0)
            self._flagged.labels(lane)
            for outcome in get_args(Outcome):  # what begins at 1 does not increase, for who asks by rates
                self._scans.labels(lane, outcome)
        for level in ("info", "warning", "error"):
            self._lines.labels(level)
        for verdict in ("clear", "inspect", "rescan"):
            self._decisions.labels(verdict)
        self._at: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """Scan -> the last stage that it has reached, and when."""
        self._dropped_before: dict[tuple[str, str], int] = {}
        self._health_told: set[tuple[str, ...]] = set()
        self._ticked_s: float | None = None
        self._queue_s = -QUEUE_EVERY_S

    # -- in the daemon's loop -----------------------------------------------------------------------------------------

    def heard(self, log: Log) -> Log:
        """Return a log that counts what it is told."""

        def told(event: str, *, level: str = "info", **fields: Any) -> None:
            self._take(event, level, fields)
            log(event, level=level, **fields)

        return told

    def _take(self, event: str, level: str, fields: dict[str, Any]) -> None:
        self._events.labels(event, level).inc()
        self._lines.labels(level).inc()
        scan = str(fields.get("scan", ""))
        match event:
            case "offered":
                self._offers.inc()
                self._reached(scan, "queue", "offered")
            case "delivered":
                self._deliveries.inc()
                self._reached(scan, "delivery", "delivered")
            case "decided":
                self._decisions.labels(str(fields.get("verdict"))).inc()
                self._reached(scan, "decision", "")
            case "lane_ready":  # its process began anew, and nobody is there to take back what the one before said
                for where in [w for w in self._health_told if w[0] == fields.get("lane")]:
                    self._health_told.discard(where)
                    self._device_health.remove(*where)
            case "health":
                where = tuple(str(fields.get(name, "")) for name in ("lane", "device", "component"))
                self._health_told.add(where)
                self._device_health.labels(*where).set(HEALTH.get(str(fields.get("state")), 2))

    def _reached(self, scan: str, stage: str, next_: str) -> None:
        """Time the way of a scan from its last stage to this one; again and again if it goes back."""
        now_s = time.monotonic()
        _, since_s = self._at.pop(scan, ("", None))
        if since_s is not None:
            self._stages.labels(stage).observe(now_s - since_s)
        if next_:
            self._follow(scan, next_, now_s)

    def _follow(self, scan: str, stage: str, now_s: float) -> None:
        self._at[scan] = stage, now_s
        if len(self._at) > FOLLOWED:
            self._at.popitem(last=False)

    def judged(self, lane: str, result: TriageResult) -> None:
        """Count a scan that is new in the outbox."""
        self._scans.labels(lane, result.outcome).inc()
        for stage, ms in result.timings_ms.items():
            if stage in STAGES:
                self._stages.labels(stage).observe(ms / 1000)
        if result.outcome != "CLEAR":
            self._flagged.labels(lane).inc()
            self._follow(result.scan_id, "stored", time.monotonic())

    def devices(self, lane: str, up: dict[str, bool], dropped: dict[str, int]) -> None:
        """Hear how the devices of a lane are. dropped : blocks since the lane's process began"""
        for device, is_up in up.items():
            self._device_up.labels(lane, device).set(is_up)
        for device, count in dropped.items():
            before = self._dropped_before.get((lane, device), 0)
            self._dropped.labels(lane, device).inc(count - before if count >= before else count)
            self._dropped_before[lane, device] = count

    def tick(self, down: dict[str, str], *, intake: bool, free_bytes: int, why_not: Iterable[str]) -> None:
        """Let time pass. down : lane -> why it takes nothing in, "" if it does; why_not : reasons beside the lanes'"""
        now_s = time.monotonic()
        past_s = 0.0 if self._ticked_s is None else now_s - self._ticked_s
        self._ticked_s = now_s
        for lane, reason in down.items():
            self._lane_up.labels(lane).set(not reason)
            if reason:
                self._downtime.labels(lane, reason).inc(past_s)
        self._intake.set(intake)
        self._free.set(free_bytes)
        reasons = (*(f"lane {lane}: {why}" for lane, why in down.items() if why), *why_not)
        self._ready.set(not reasons)
        self.condition = Condition(reasons, now_s)

    def look_at_queue(self, counts: Callable[[], dict[str, int]], oldest_s: Callable[[], float]) -> None:
        """Ask the outbox how much waits, now and then. What it cannot say is kept as it was: the log has why."""
        now_s = time.monotonic()
        if now_s - self._queue_s < QUEUE_EVERY_S:
            return
        self._queue_s = now_s
        try:
            found, waited_s = counts(), oldest_s()
        except StorageError:
            return
        for state in ("filed", "pending", "leased", "held", "decided"):
            self._queue.labels(state).set(found.get(state, 0))
        self._oldest.set(waited_s)

    # -- in the thread that answers -----------------------------------------------------------------------------------

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, type and content of what is at a path."""
        condition = self.condition
        silent_s = time.monotonic() - condition.turned_s
        standing = [f"the daemon's loop has not turned for {silent_s:.0f} s"] if silent_s > self._stands_s else []
        match path.partition("?")[0]:
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self.registry)
            case "/healthz":
                return _said(standing)
            case "/readyz":
                return _said([*standing, *condition.why_not])
        return 404, "text/plain", b"/healthz, /readyz, /metrics\n"


def _said(why_not: list[str]) -> tuple[int, str, bytes]:
    content = msgspec.json.encode({"ok": not why_not, "why_not": why_not}) + b"\n"
    return (503 if why_not else 200), "application/json", content


class Page:
    """Answers on one address, in a thread of its own, one question at a time."""

    def __init__(self, bind: str, metrics: Metrics) -> None:
        """Listen at HOST:PORT. Raises ConfigError."""
        host, _, port = bind.rpartition(":")

        class Handler(BaseHTTPRequestHandler):
            timeout = ANSWER_WITHIN_S
            server_version, sys_version = "scanlane", ""

            def do_GET(self) -> None:
                status, kind, content = metrics.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing: questions come every few seconds."""

        class Server(HTTPServer):
            def handle_error(self, *_: object) -> None:
                """Say nothing: who asked has gone."""

        try:
            self._server = Server((host.strip("[]"), int(port)), Handler)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError([f"metrics.bind {bind!r}: {error}; is another service there?"]) from error
        self.address = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
