"""The delivery benchmark: a recording from the outbox to an analyst's program, against the bytes over bare pyzmq.

The peer is pyzmq as its manual has it: a ROUTER that reads the file and sends it in the same chunks, and a DEALER that
takes them, without copies on either side. It hashes what comes as well, by the same SHA-256, for whoever takes an image
off a network has to know that it is the one that was sent. What it does not do is everything else: leases, credit,
heartbeats, audit, one piece of memory for the image. It is also given without its hash (`plain_over_raw_unhashed`), so
that nobody has to take this on trust. With CURVE the peer speaks CURVE.

Services and peer run in processes of their own, the analyst's program in this one, over loopback.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmq

from scanner_io import security, wire
from scanner_io.client import Workstation
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.errors import DataError
from scanner_io.model import TriageResult
from triage.study.measure import machine, ratio, versions

SIZE = 40 << 20
"""Bytes of a large recording: a dual-energy frame of 2000 x 5000, hardly compressed."""
OFFERS = 200
ANALYST = "bench"


def bench_deliver(
    folder: Path | None = None, rounds: int = 7, size: int = SIZE, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Run the benchmark and return a JSON-ready report.

    plain_over_raw, curve_over_raw : MB/s of Workstation.fetch, whole, hashed and acknowledged / MB/s of the peer
    header_us : to encode an offer, the largest header; chunk_header_us : and the header of a chunk
    offer_latency_ms : before the commit of a scan -> its offer is in the analyst's hands
    """
    if rounds < 1 or size < 1:
        raise DataError(f"bench: rounds is {rounds} and size {size}; give at least 1 round and 1 byte")
    load_before = os.getloadavg()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="scanlane-bench-", dir=folder) as name, ExitStack() as open_:
        path = Path(name) / "recording"
        path.write_bytes(os.urandom(size))  # as little compressible as a compressed recording
        keys = Path(name) / "keys"
        service = security.create_service(keys)
        identity = security.generate(ANALYST, service.curve)
        security.enrol(keys, identity.public, "analyst")
        sides = _contestants(Path(name), path, size, identity, open_)
        order = list(sides)
        for number in range(-1, rounds):  # the round before the first is a warm-up
            for key in order:
                seconds = sides[key]()
                if number >= 0:
                    times.setdefault(key, []).append(seconds)
            order = order[1:] + order[:1]
            if number >= 0 and progress is not None:
                progress(number + 1, rounds)
        latencies = sorted(open_.enter_context(_Service.open(Path(name) / "offers", path, None)).offers(OFFERS))
    return {
        "bytes": size,
        "rounds": rounds,
        "plain_over_raw": ratio(times["raw"], times["plain"]),
        "curve_over_raw": ratio(times["raw_curve"], times["curve"]),
        "plain_over_raw_unhashed": ratio(times["raw_unhashed"], times["plain"]),
        "medians_ms": {key: round(statistics.median(values) * 1e3, 2) for key, values in times.items()},
        "header_us": _encode_us(_offer()),
        "chunk_header_us": _encode_us(wire.Chunk(scan_id=_scan_id(1), offset=1 << 20, last=False)),
        "offer_latency_ms": {
            "p50": round(latencies[len(latencies) // 2] * 1e3, 3),
            "p99": round(latencies[len(latencies) * 99 // 100] * 1e3, 3),
        },
        "machine": machine(load_before),
        "versions": {**versions(), "zmq": zmq.zmq_version(), "pyzmq": zmq.__version__},
    }


def _contestants(
    folder: Path, path: Path, size: int, identity: security.Identity, open_: ExitStack
) -> dict[str, Callable[[], float]]:  # fmt: skip
    plain = open_.enter_context(_Service.open(folder / "plain", path, None))
    curve = open_.enter_context(_Service.open(folder / "curve", path, folder / "keys", identity))
    raw = open_.enter_context(_raw(path, size, identity))
    return {
        "raw": lambda: raw(False, True),
        "plain": plain.fetch,
        "raw_curve": lambda: raw(True, True),
        "curve": curve.fetch,
        "raw_unhashed": lambda: raw(False, False),
    }


# --------------------------------------------------------------------------------------------------------------
# The service


class _Service:
    """A service in a process of its own, and an analyst's program at it."""

    def __init__(self, pipe: Connection, desk: Workstation, size: int) -> None:
        self._pipe, self._desk, self._size = pipe, desk, size

    @classmethod
    @contextmanager
    def open(
        cls, folder: Path, path: Path, keys: Path | None, identity: security.Identity | None = None
    ) -> Iterator[_Service]:  # fmt: skip
        """Give a service that is up and has welcomed the analyst."""
        folder.mkdir()
        with _process(_serve, str(folder), str(path), None if keys is None else str(keys)) as (pipe, address):
            analyst = "" if identity is not None else ANALYST
            with Workstation(address, analyst, identity=identity) as desk:
                if not desk.connected(10.0):
                    raise DataError("bench: the workstation found no service on this machine's loopback")
                yield cls(pipe, desk, path.stat().st_size)

    def fetch(self) -> float:
        """Return the seconds from asking for a recording until it is here, whole and checked."""
        self._pipe.send("put")
        offer = self._next()
        since = time.perf_counter()
        data = self._desk.fetch(offer)
        seconds = time.perf_counter() - since
        if len(data) != self._size:
            raise DataError(f"bench: {len(data)} bytes came, expected {self._size}")
        decided = self._desk.decide(offer, "clear")
        if not decided.applied:
            raise DataError(f"bench: the decision was not applied ({decided.reason})")
        return seconds

    def offers(self, count: int) -> list[float]:
        """Return how long offers take, from before the commit."""
        found = []
        for _ in range(count):
            self._pipe.send("put")
            offer = self._next()
            found.append(time.monotonic() - self._pipe.recv())
            self._desk.decide(offer, "clear")
        return found

    def _next(self) -> wire.Offer:
        offer = self._desk.next_offer(10.0)
        if offer is None:
            raise DataError("bench: no offer came within 10 s")
        return offer


@contextmanager
def _process(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[Connection, Any]]:
    """Run a side in a process of its own until the block ends; give its pipe and what it says first."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, ours.recv()
    except EOFError:
        raise DataError("bench: a process of the benchmark ended early; see its words above") from None
    finally:
        ours.close()  # it ends by that
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


def _serve(pipe: Connection, folder: str, path: str, keys: str | None) -> None:
    """Be a service as the daemon's loop is one; a scan is committed each time the pipe says so."""
    from triage.service.dispatch import Dispatch
    from triage.service.gate import Gate
    from triage.service.outbox import Outbox

    outbox = Outbox(Path(folder) / "outbox.sqlite")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gate = None if keys is None else Gate(context, Path(keys), _unheard, _unheard)
    dispatch = Dispatch(context, DispatchConfig(bind="tcp://127.0.0.1:0"), outbox, _unheard, gate)
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    poller = zmq.Poller()
    poller.register(pipe.fileno(), zmq.POLLIN)
    for socket in dispatch.sockets:
        poller.register(socket, zmq.POLLIN)
    pipe.send(dispatch.address)
    number = 0
    try:
        while True:
            ready = dict(poller.poll(200))
            if pipe.fileno() in ready:
                pipe.recv()
                number += 1
                since = time.monotonic()
                outbox.add(_row(number, path, sha256))
                dispatch.tick()
                pipe.send(since)
            dispatch.serve()
            dispatch.tick()
    except (EOFError, ConnectionResetError):  # the benchmark has ended
        dispatch.close()
        if gate is not None:
            gate.close()
        context.term()
        outbox.close()


def _unheard(*_: object, **__: object) -> None:
    """Hear what happens."""


def _scan_id(number: int) -> str:
    return f"bench-20260105T0600{number % 60:02d}.000000Z-{number:08x}"


def _row(number: int, path: str, sha256: str) -> Any:
    from triage.service.outbox import ScanRow

    return ScanRow(
        scan_id=_scan_id(number), lane="bench", path=path, sha256=sha256, size=Path(path).stat().st_size,
        start_utc_ns=number, simulated=True, result=_result(number),
    )  # fmt: skip


def _result(number: int) -> TriageResult:
    return TriageResult(
        scan_id=_scan_id(number), outcome="REVIEW", reasons=("benchmark",), load="unknown", container=None, findings=(),
        quality=(), gamma_alarm=None, neutron_alarm=None, gamma_intervals=0, alarm_intervals=0, profile="bench",
        code_version="bench", timings_ms={"total": 61.0},
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------
# The peer


@contextmanager
def _raw(path: Path, size: int, identity: security.Identity) -> Iterator[Callable[[bool, bool], float]]:
    """Give what takes a file from the peer: with CURVE or not, hashed or not; it returns the seconds."""
    with _process(_serve_raw, str(path), size) as (_, (address, curve_address, server_key)):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        near, near_curve = (_raw_socket(context, zmq.DEALER) for _ in range(2))
        security.secure_client(near_curve, security.generate(identity.name, server_key))
        near.connect(address)
        near_curve.connect(curve_address)

        def take(curve: bool, hashed: bool) -> float:
            socket = near_curve if curve else near
            since = time.perf_counter()
            socket.send(b"all of it")
            digest, got, chunks = hashlib.sha256(), 0, []
            while got < size:
                _, chunk = socket.recv_multipart(copy=False)
                got += len(chunk)
                if hashed:
                    digest.update(chunk.buffer)
                chunks.append(chunk)
            return time.perf_counter() - since

        try:
            yield take
        finally:
            near.close()
            near_curve.close()
            context.term()


def _raw_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    for option, value in ((zmq.SNDHWM, 64), (zmq.RCVHWM, 64), (zmq.LINGER, 0)):
        socket.setsockopt(option, value)
    return socket


def _serve_raw(pipe: Connection, path: str, size: int) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    plain, curve = (_raw_socket(context, zmq.ROUTER) for _ in range(2))
    identity = security.generate("peer")
    curve.setsockopt(zmq.CURVE_SERVER, 1)
    curve.setsockopt(zmq.CURVE_SECRETKEY, identity.curve_secret.encode())
    poller = zmq.Poller()
    poller.register(pipe.fileno(), zmq.POLLIN)
    for socket in (plain, curve):
        socket.bind("tcp://127.0.0.1:*")
        poller.register(socket, zmq.POLLIN)
    pipe.send((plain.get_string(zmq.LAST_ENDPOINT), curve.get_string(zmq.LAST_ENDPOINT), identity.curve))
    header = wire.encode(wire.Chunk(scan_id=_scan_id(1), offset=0, last=False))[1]
    while pipe.fileno() not in (ready := dict(poller.poll())):
        for socket in ready:
            peer, _ = socket.recv_multipart()
            descriptor = os.open(path, os.O_RDONLY)
            for offset in range(0, size, wire.CHUNK_BYTES):
                data = os.pread(descriptor, wire.CHUNK_BYTES, offset)
                socket.send_multipart([peer, header, data], copy=False)
            os.close(descriptor)
    plain.close()
    curve.close()
    context.term()


# --------------------------------------------------------------------------------------------------------------
# Headers


def _offer() -> wire.Offer:
    return wire.Offer(
        scan_id=_scan_id(1), lease_id="0" * 32, lease_s=120.0, size=SIZE, sha256="0" * 64, lane="bench",
        start_utc_ns=1, attempt=1, simulated=True, result=_result(1),
    )  # fmt: skip


def _encode_us(message: wire.Message, count: int = 2000) -> float:
    """Return the median of microseconds to encode a message."""
    found = []
    for _ in range(50):
        since = time.perf_counter()
        for _ in range(count // 50):
            wire.encode(message)
        found.append((time.perf_counter() - since) / (count // 50) * 1e6)
    return round(statistics.median(found), 3)
