"""The delivery benchmark: a recording from the outbox to an analyst's program, against the bytes over a bare socket."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from scanner_io.client import Workstation
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.errors import DataError
from scanner_io.model import TriageResult
from triage.service.dispatch import Dispatch
from triage.service.outbox import Outbox, ScanRow
from triage.study.measure import machine, ratio, versions

SIZE = 16 << 20
"""Bytes of a typical recording: a dual-energy frame of 2000 x 5000, compressed."""


def bench_deliver(
    folder: Path | None = None, rounds: int = 7, size: int = SIZE, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Run the benchmark and return a JSON-ready report. Both sides run in this process, over loopback.

    deliver_over_socket : Workstation.fetch, hashed and acknowledged / sendall, recv_into of the same bytes from a file
    offer_ms, decide_ms : commit of a scan -> its offer is in the analyst's hands; decision -> its commit is told
    """
    if rounds < 1 or size < 1:
        raise DataError(f"bench: rounds is {rounds} and size {size}; give at least 1 round and 1 byte")
    load_before = os.getloadavg()
    times: dict[str, list[float]] = {"socket": [], "fetch": [], "offer": [], "decide": []}
    with tempfile.TemporaryDirectory(prefix="scanlane-bench-", dir=folder) as name:
        path = Path(name) / "recording"
        data = os.urandom(size)  # as little compressible as a compressed recording
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        service = _Service(Path(name))
        try:
            with Workstation(service.address, "bench") as desk:
                if not desk.connected(10.0):
                    raise DataError("bench: the workstation found no service on this machine's loopback")
                for number in range(-1, rounds):  # the round before the first is a warm-up
                    seen = _round(service, desk, path, sha256, size, number)
                    seen["socket"] = _over_socket(path, size)
                    if number < 0:
                        continue
                    for key, seconds in seen.items():
                        times[key].append(seconds)
                    if progress is not None:
                        progress(number + 1, rounds)
        finally:
            service.close()
    return {
        "bytes": size,
        "rounds": rounds,
        "medians_ms": {key: round(sorted(values)[len(values) // 2] * 1e3, 2) for key, values in times.items()},
        "deliver_over_socket": ratio(times["fetch"], times["socket"]),
        "machine": machine(load_before),
        "versions": {**versions(), "zmq": zmq.zmq_version(), "pyzmq": zmq.__version__},
    }


class _Service:
    """The wire's service side in a thread, as the daemon's loop runs it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[ScanRow] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._up = threading.Event()
        self.address = ""
        self._thread = threading.Thread(target=self._run, name="bench service")
        self._thread.start()
        self._up.wait(10)

    def put(self, row: ScanRow) -> None:
        with self._lock:
            self._rows.append(row)

    def close(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        outbox = Outbox(self._folder / "outbox.sqlite")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        dispatch = Dispatch(context, DispatchConfig(bind="tcp://127.0.0.1:0"), outbox, lambda *_, **__: None)
        self.address = dispatch.address
        self._up.set()
        while not self._ending.is_set():
            with self._lock:
                rows, self._rows = self._rows, []
            for row in rows:
                outbox.add(row)
            dispatch.tick()
            if dispatch.socket.poll(2):
                dispatch.receive()
        dispatch.close()
        context.term()
        outbox.close()


def _round(
    service: _Service, desk: Workstation, path: Path, sha256: str, size: int, number: int
) -> dict[str, float]:  # fmt: skip
    scan_id = f"bench-20260105T0600{number + 1:02d}.000000Z-{number + 1:08x}"
    result = TriageResult(
        scan_id=scan_id, outcome="REVIEW", reasons=("benchmark",), load="unknown", container=None, findings=(),
        quality=(), gamma_alarm=None, neutron_alarm=None, gamma_intervals=0, alarm_intervals=0, profile="bench",
        code_version="bench", timings_ms={},
    )  # fmt: skip
    since = time.perf_counter()
    service.put(
        ScanRow(
            scan_id=scan_id, lane="bench", path=str(path), sha256=sha256, size=size, start_utc_ns=number + 1,
            simulated=True, result=result,
        )
    )  # fmt: skip
    offer = desk.next_offer(10.0)
    offered = time.perf_counter()
    if offer is None:
        raise DataError("bench: no offer came within 10 s")
    data = desk.fetch(offer)
    fetched = time.perf_counter()
    if len(data) != size:
        raise DataError(f"bench: {len(data)} bytes came, expected {size}")
    decided = desk.decide(offer, "clear")
    if not decided.applied:
        raise DataError(f"bench: the decision was not applied ({decided.reason})")
    return {"offer": offered - since, "fetch": fetched - offered, "decide": time.perf_counter() - fetched}


def _over_socket(path: Path, size: int) -> float:
    """Return the seconds that the file's bytes take over a TCP connection on loopback, unchecked."""
    into = bytearray(size)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()

        def send() -> None:
            with far, path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    far.sendall(chunk)

        sender = threading.Thread(target=send)
        since = time.perf_counter()
        sender.start()
        view = memoryview(into)
        while view and (count := near.recv_into(view)):
            view = view[count:]
        seconds = time.perf_counter() - since
        sender.join()
    return seconds
