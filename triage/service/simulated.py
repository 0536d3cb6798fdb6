"""`scanlane simulate`: recordings of simulated vehicles, made by the driver, joined and judged as beside a lane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scanner_io import driver as drivers
from scanner_io import recording
from scanner_io.config import fill
from scanner_io.errors import ConfigError
from scanner_io.model import EndOfSource, TriageResult

from .assembly import Assembled, Assembly, LaneSpec
from .lane import Judge, recording_path
from .packing import packer


def simulate_recordings(
    out: Path, vehicles: int, seed: int, lane: str, judge: Judge, *, codec: recording.Codec = "bitshuffle-lz4",
    **settings: Any,
) -> Iterator[tuple[Path, TriageResult]]:  # fmt: skip
    """Write `vehicles` recordings below `out` and yield each path with its result.

    settings : further fields of the simulated driver's Config
    """
    module = drivers.load("simulated")
    table = {"seed": seed, "vehicles": vehicles, "speed": 0.0, **settings}
    problems: list[str] = []
    config = fill(module.Config, table, "simulated", problems)
    if problems:
        raise ConfigError(problems)
    source = drivers.connect("simulated", config)
    assembly = Assembly(LaneSpec(name=lane, expected=module.kinds(config), join_wait_s=float("inf")))
    try:
        assembly.device(0, source.open())
        ended = False
        while not ended:
            event = source.read(1.0)
            ended = isinstance(event, EndOfSource)
            ready = assembly.flush() if ended else assembly.feed(0, event, 0.0) if event is not None else []
            for one in ready:
                yield _store(out, one, table, judge, codec)
    finally:
        source.close()


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
