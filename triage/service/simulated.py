"""`scanlane simulate`: recordings of simulated vehicles, made by the driver, joined and judged as beside a lane; and
`scanlane simulate portal`: a portal alone, as a device.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from scanner_io import driver as drivers
from scanner_io import recording
from scanner_io.config import fill
from scanner_io.errors import ConfigError
from scanner_io.model import EndOfSource, TriageResult
from scanner_io.storage import write_durable

from .assembly import Assembled, Assembly, LaneSpec
from .lane import Judge, recording_path
from .packing import packer

PASSES_IN_A_FILE = 20


def simulate_recordings(
    out: Path, vehicles: int, seed: int, lane: str, judge: Judge, *, codec: recording.Codec = "bitshuffle-lz4",
    truth: Path | None = None, **settings: Any,
) -> Iterator[tuple[Path, TriageResult]]:  # fmt: skip
    """Write `vehicles` recordings below `out` and yield each path with its result.

    truth : file for what the vehicles really carry, written when all are; nothing that judges ever sees it
    settings : further fields of the simulated driver's Config

    Raises ConfigError for settings that make no lane, StorageError if a file cannot be written.
    """
    module = drivers.load("simulated")
    table = {"seed": seed, "vehicles": vehicles, "speed": 0.0, **settings}
    problems: list[str] = []
    config = fill(module.Config, table, "simulated", problems)
    if problems:
        raise ConfigError(problems)
    source = drivers.connect("simulated", config)
    assembly = Assembly(LaneSpec(name=lane, expected=module.kinds(config), join_wait_s=float("inf")))
    stored: dict[str, tuple[Path, str]] = {}
    try:
        assembly.device(0, source.open())
        ended = False
        while not ended:
            event = source.read(1.0)
            ended = isinstance(event, EndOfSource)
            ready = assembly.flush() if ended else assembly.feed(0, event, 0.0) if event is not None else []
            for one in ready:
                path, result = _store(out, one, table, judge, codec)
                stored |= {reference: (path, one.scan.scan_id) for _, reference in one.refs}
                yield path, result
    finally:
        source.close()
    if truth is not None:
        _tell(truth, module, config, vehicles, stored)


def _tell(truth: Path, module: Any, config: Any, vehicles: int, stored: dict[str, tuple[Path, str]]) -> None:
    """Write the truth about every vehicle beside the name of its recording; `null` where none was written."""
    rows = []
    for index in range(vehicles):
        known = msgspec.to_builtins(module.ground_truth(config, index))
        path, scan_id = stored.get(known["source_ref"], (None, None))
        rows.append({"file": None if path is None else path.name, "scan_id": scan_id, **known})
    told = {"simulated": True, "config": msgspec.to_builtins(config), "vehicles": rows}
    write_durable(truth, json.dumps(told, indent=1).encode() + b"\n", replace=True)


def _store(
    out: Path, one: Assembled, table: dict[str, Any], judge: Judge, codec: recording.Codec
) -> tuple[Path, TriageResult]:
    result = judge(one.scan)
    path = recording_path(out, one.scan)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A simulated scan can be made again: the same seed may overwrite it.
    config = {"lane": {"name": one.scan.lane, "device": [{"driver": "simulated", "config": table}]}}
    recording.write(
        path, one.scan, config=config, result=result, codec=codec, replace=True, hashed=False, packer=packer(codec)
    )
    return path, result


# --------------------------------------------------------------------------------------------------------------
# A portal alone


def play_portal(
    *, emit: Callable[[Any], None], tcp: str | None, pty: bool, out: Path | None, form: str, start: str, seed: int,
    passes: int | None, gap: float, speed: float, faults: str | None, extensions: bool, no_setup: bool, nsigma: float,
    truth: Path | None, wait: bool,
) -> None:  # fmt: skip
    """Play a simulated portal over TCP, on a pseudo terminal or into a daily file; tell where, and what was played.

    faults : a share of vehicles, or the path of a JSON file with a list of faults

    Raises ConfigError for settings that make no portal, StorageError if a file cannot be written.
    """
    module = drivers.load("simulated")
    table: dict[str, Any] = {
        "seed": seed, "gap_s": gap, "extensions": extensions, "setup": not no_setup, "nsigma": nsigma,
        **_faults(faults),
    }  # fmt: skip
    if passes is None and out is not None:
        passes = PASSES_IN_A_FILE
    if passes is not None:
        table["passes"] = passes
    problems: list[str] = []
    traffic = fill(module.Traffic, table, "simulate portal", problems)
    if problems:
        raise ConfigError(problems)
    if out is not None:
        start_utc_ns, offset_h = _instant(start)
        played = module.write_daily_file(out, traffic, start_utc_ns=start_utc_ns, form=form, utc_offset_h=offset_h)
        emit({"event": "written", "simulated": True, "file": str(out)})
    else:
        if tcp is not None:
            host, port = _host_port(tcp)
            device = module.PortalServer(traffic, host, port, speed=speed, wait_for=int(wait))
            where = {"address": device.address, "host": device.host, "port": device.port}
        else:
            device = module.PortalPty(traffic, speed=speed, wait=wait)
            where = {"address": device.address, "device": device.device}
        with _stopped_by_signals(device.stop.set):
            emit({"event": "listening", "simulated": True, **where})
            played = device.run()
    if truth is not None:
        write_durable(truth, module.truth_json(played), replace=True)
    faulty = sum(bool(p.faults) for p in played.occupancies)
    emit({"event": "played", "simulated": True, "passes": len(played.occupancies), "passes_with_faults": faulty})


def _faults(told: str | None) -> dict[str, Any]:
    """Return the traffic's settings for a share or a file of faults. Raises ConfigError."""
    if told is None:
        return {}
    try:
        return {"fault_share": float(told)}
    except ValueError:
        pass
    try:
        plan = json.loads(Path(told).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError([f"--faults {told}: neither a share from 0 to 1 nor a JSON file ({error})"]) from error
    return {"plan": plan}


def _instant(start: str) -> tuple[int, int]:
    """Return UTC nanoseconds and whole hours east of UTC. Raises ConfigError."""
    try:
        at = datetime.fromisoformat(start)
        offset = at.utcoffset()
    except ValueError:
        offset = None
    if offset is None or offset.total_seconds() % 3600:
        problem = f"--start {start!r}: expected ISO 8601 with a zone of whole hours, e.g. 2026-01-05T06:00:00-07:00"
        raise ConfigError([problem])
    return int(at.timestamp() * 1000) * 1_000_000, int(offset.total_seconds() // 3600)


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError([f"--tcp {address!r}: expected HOST:PORT, e.g. 127.0.0.1:1601, or port 0 for any free one"])
    return host, int(port)


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the play in order, so that the truth is written."""
    before = {n: signal.signal(n, lambda *_: stop()) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
