"""The recording benchmark: a durable recording of a radiograph against writing its raw bytes and fsync."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scanner_io import recording
from scanner_io.errors import DataError
from scanner_io.model import DetectorState, DeviceInfo, Radiograph, Scan
from triage.service.packing import Packing
from triage.study.measure import machine, ratio, timed, versions
from triage.study.phantom import phantom

COLUMNS, CHANNELS = 5000, 2000
SCAN_ID = "bench-20260105T060000.000000Z-00000000"


def bench_record(
    folder: Path | None = None, rounds: int = 7, columns: int = COLUMNS, channels: int = CHANNELS,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run the benchmark in `folder` (default: the system's temporary one) and return a JSON-ready report.

    durable_over_raw : recording.write, uncompressed / open, write, fsync, close of the same raw counts
    durable_lz4_over_raw : the same with bitshuffle and LZ4

    Written as a lane writes a scan before it is judged: without the hash of the file, which is made when the result is
    stored. The counts are the phantom's, with the Poisson noise of a real detector: noise is what compression has to
    carry. Before the figures are believed, both recordings are read back and compared with the counts.
    """
    if rounds < 1:
        raise DataError(f"bench: rounds is {rounds}; give at least 1")
    load_before, packing = os.getloadavg(), Packing()
    scan = _scan(columns, channels)
    assert scan.radiograph is not None
    raw = b"".join(c.tobytes() for c in scan.radiograph.counts)
    times: dict[str, list[float]] = {"raw": [], "durable": [], "durable_lz4": []}
    with tempfile.TemporaryDirectory(prefix="scanlane-bench-", dir=folder) as name:
        place = Path(name)
        paths = {key: place / f"{key}{recording.SUFFIX}" for key in times}
        runs: dict[str, Callable[[], object]] = {
            "raw": lambda: _write_raw(paths["raw"], raw),
            "durable": lambda: recording.write(paths["durable"], scan, codec="none", hashed=False, packer=packing),
            "durable_lz4": lambda: recording.write(paths["durable_lz4"], scan, hashed=False, packer=packing),
        }
        sizes: dict[str, int] = {}
        for done in range(-1, rounds):  # the round before the first is a warm-up
            for key, run in runs.items():
                paths[key].unlink(missing_ok=True)
                os.sync()  # what the last contestant left to be written is not this one's burden
                seconds = timed(run)
                if done >= 0:
                    times[key].append(seconds)
                sizes[key] = paths[key].stat().st_size
            if progress is not None and done >= 0:
                progress(done + 1, rounds)
        same = all(_same(paths[key], scan.radiograph) for key in ("durable", "durable_lz4"))
        filesystem = _filesystem(place)
    return {
        "frame": {"channels": channels, "columns": columns, "energies": 2, "bytes": len(raw)},
        "rounds": rounds,
        "medians_ms": {key: round(sorted(values)[len(values) // 2] * 1e3, 2) for key, values in times.items()},
        "durable_over_raw": ratio(times["durable"], times["raw"]),
        "durable_lz4_over_raw": ratio(times["durable_lz4"], times["raw"]),
        "size_over_raw": {key: round(size / len(raw), 4) for key, size in sizes.items()},
        "read_back_equal": same,
        "filesystem": filesystem,
        "machine": machine(load_before),
        "versions": versions(),
    }


def _scan(columns: int, channels: int) -> Scan:
    """Return a scan of the phantom, labelled simulated."""
    counts, calibration = phantom(channels, columns)
    detector = DetectorState(
        energies=("low", "high"), channels=channels, dark=calibration.dark,
        air=tuple(
            (d + 1 / g).astype(np.float32) for d, g in zip(calibration.dark, calibration.inv_gain, strict=True)
        ),
        bad_channels=calibration.bad_channels, saturation_value=65535,
    )  # fmt: skip
    start = 1_767_592_800_000_000_000
    image = Radiograph(
        detector=detector, counts=counts, column_utc_ns=start + np.arange(columns, dtype=np.int64) * 2_000_000
    )
    device = DeviceInfo(vendor="scanlane", model="phantom", kinds=("radiograph",), simulated=True)
    return Scan(
        scan_id=SCAN_ID, lane="bench", start_utc_ns=start, end_utc_ns=int(image.column_utc_ns[-1]),
        expected=("radiograph",), radiograph=image, devices=(device,), source="phantom",
    )  # fmt: skip


def _write_raw(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same(path: Path, image: Radiograph) -> bool:
    found = recording.read(path).scan.radiograph
    return found is not None and all(np.array_equal(a, b) for a, b in zip(found.counts, image.counts, strict=True))


def _filesystem(folder: Path) -> str:
    """Return type and device of the file system that holds `folder`."""
    best, told = "", "unknown"
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.is_file() else []:
        device, point, kind, *_ = line.split(" ")
        if str(folder.resolve()).startswith(point) and len(point) >= len(best):
            best, told = point, f"{kind} on {device}"
    return told
