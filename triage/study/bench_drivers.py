"""The drivers' benchmark: a live detector's stream against bare ZeroMQ, and what a line detector costs the processor.

The senders are processes of their own. Counts are random, so that nothing compresses better than real ones would not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import zmq

from scanner_io import driver as drivers
from scanner_io.errors import DataError
from scanner_io.line_detector import LineDetector
from scanner_io.model import LineBlock, ScanEnd
from triage.study.measure import machine, ratio, versions

CHANNELS, LINES, STEP = 2000, 5000, 250
"""Of the streamed scan: two energies of 16 bits, 40 MB in messages of 2 MB."""
LINE_CHANNELS, LINES_PER_S, FRAME_LINES = 1024, 2000, 10
ENERGIES = ("low", "high")
PART_S = 0.1

_STREAM = """
import sys, cbor2, numpy as np, zmq
channels, lines, step = map(int, sys.argv[1:4])
rng = np.random.default_rng(1)
part = rng.integers(20_000, 20_256, (step, channels)).astype("<u2").tobytes()
array = cbor2.CBORTag(40, [[step, channels], cbor2.CBORTag(69, part)])
socket = zmq.Context().socket(zmq.PUSH)
socket.set(zmq.SNDHWM, 8)
socket.bind("tcp://127.0.0.1:*")
print(socket.get(zmq.LAST_ENDPOINT).decode(), flush=True)
for number, _ in enumerate(sys.stdin):
    socket.send(cbor2.dumps({"type": "start", "series_id": number, "channels": ["a", "b"]}))
    for image in range(lines // step):
        data = {"a": array, "b": array}
        socket.send(cbor2.dumps({"type": "image", "series_id": number, "image_id": image, "data": data}), copy=False)
    socket.send(cbor2.dumps({"type": "end", "series_id": number}))
"""
_LINES = """
import socket, struct, sys, time, zlib
import numpy as np
channels, per_s, step = map(int, sys.argv[1:4]); seconds = float(sys.argv[4])
header = struct.Struct("<4sBBHIIIHHqIIq")
values = np.random.default_rng(1).integers(20_000, 20_256, (step, 2, channels))
payload = bytes(4 * step) + values.astype("<u2").tobytes()
def frame(kind, sequence, first, lines, data):
    packed = header.pack(b"SLN1", kind, 2, channels, sequence, 1, first, lines, 1, 0, 500_000, len(data), first) + data
    return packed + struct.pack("<I", zlib.crc32(packed))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
peer = listener.accept()[0]
peer.sendall(frame(1, 0, 0, 0, b""))
began, count = time.monotonic(), int(seconds * per_s) // step
for number in range(count):
    peer.sendall(frame(2, number + 1, number * step, step, payload))
    time.sleep(max(0.0, began + (number + 1) * step / per_s - time.monotonic()))
peer.sendall(frame(3, count + 1, count * step, 0, b""))
sys.stdin.readline()
"""


def bench_drivers(
    rounds: int = 7, seconds: float = 5.0, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Run the benchmark and return a JSON-ready report.

    stream_v2_mb_per_s, raw_mb_per_s : of counts, from the sender's go to the last event or message; alternating
    stream_v2_ratio : the driver's rate to the raw one
    line_tcp_cpu_share : processor time of a core that the driver takes at 2,000 lines a second of two energies
    agreement_ok : every line came, of every scan
    """
    if rounds < 1:
        raise DataError(f"bench: rounds is {rounds}; give at least 1")
    load_before = os.getloadavg()
    size_mb = 2 * 2 * CHANNELS * LINES / 1e6
    rates: dict[str, list[float]] = {"stream_v2": [], "raw": []}
    whole = True
    with _sender(_STREAM, CHANNELS, LINES, STEP) as (process, told), _driver(told) as source:
        for done in range(-1, rounds):  # the round before the first is a warm-up
            source.open()
            began_s = _go(process)
            whole &= _lines(source) == LINES
            ours_s = time.perf_counter() - began_s
            source.close()
            time.sleep(PART_S)  # PUSH deals messages out: the one before must be gone for the sender too
            raw_s = _raw(process, told)
            if done >= 0:
                rates["stream_v2"].append(size_mb / ours_s)
                rates["raw"].append(size_mb / raw_s)
                if progress is not None:
                    progress(done + 1, rounds)
    share, lines = _line_cost(seconds)
    return {
        "bench": "drivers", "rounds": rounds, "scan_mb": size_mb,
        "stream_v2_mb_per_s": median(rates["stream_v2"]), "raw_mb_per_s": median(rates["raw"]),
        "stream_v2_ratio": ratio(rates["stream_v2"], rates["raw"]),
        "line_tcp_cpu_share": share, "line_tcp_lines_per_s": LINES_PER_S, "line_tcp_channels": LINE_CHANNELS,
        "agreement_ok": whole and lines == int(seconds * LINES_PER_S) // FRAME_LINES * FRAME_LINES,
        "machine": machine(load_before), "versions": versions(),
    }  # fmt: skip


def _go(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return time.perf_counter()


@contextmanager
def _sender(code: str, *numbers: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a sender; give it and where it sends."""
    words = [sys.executable, "-c", code, *map(str, numbers)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def _driver(endpoint: str) -> Iterator[drivers.Driver]:
    module = drivers.load("stream_v2")
    source: drivers.Driver = module.connect(
        module.Config(endpoint=endpoint, detector=LineDetector(energies=ENERGIES), channels=("a", "b"))
    )
    try:
        yield source
    finally:
        source.close()


def _raw(process: subprocess.Popen[str], endpoint: str) -> float:
    """Return how long a bare PULL socket takes for one scan, in seconds."""
    context: zmq.Context[Any] = zmq.Context()
    pull = context.socket(zmq.PULL)
    try:
        pull.connect(endpoint)
        time.sleep(PART_S)
        began_s = _go(process)
        for _ in range(LINES // STEP + 2):
            pull.recv()
        return time.perf_counter() - began_s
    finally:
        pull.close(linger=0)
        context.term()
        time.sleep(PART_S)


def _lines(source: drivers.Driver) -> int:
    """Read one scan; return how many lines it had."""
    lines = 0
    while not isinstance(event := source.read(10.0), ScanEnd):
        if event is None:
            return -1
        lines += len(event.column_utc_ns) if isinstance(event, LineBlock) else 0
    return lines


def _line_cost(seconds: float) -> tuple[float, int]:
    """Return the share of a core that the line detector's driver takes, and the lines that came."""
    with _sender(_LINES, LINE_CHANNELS, LINES_PER_S, FRAME_LINES, seconds) as (_, port):
        module = drivers.load("line_tcp")
        config = module.Config(
            address=f"tcp://127.0.0.1:{port}", detector=LineDetector(energies=ENERGIES), mm_per_encoder_count=1.0
        )
        source = drivers.connect("line_tcp", config)
        source.open()
        try:
            began_s, cpu_s = time.perf_counter(), time.process_time()
            lines = _lines(source)
            return (time.process_time() - cpu_s) / (time.perf_counter() - began_s), lines
        finally:
            source.close()
