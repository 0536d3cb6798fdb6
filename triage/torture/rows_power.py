"""R5: a power cut at any moment, from the recorded system calls of the daemon."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

from triage.service.outbox import Outbox

from . import bed, oracle, powercut
from .outcome import Outcome, cannot_run, judged, say

SEED = 5
MODES = ("none", "some", "all")


class _AsOf(oracle.Stimulator):
    """What was acknowledged up to a moment of the record."""

    def __init__(self, real: oracle.Stimulator) -> None:
        super().__init__(real.folder)
        self.known = real.known
        self.taken: set[str] = set()

    def waiting(self) -> set[str]:
        return set(self.known) - self.taken


def r5_power_cut(folder: Path, full: bool) -> Outcome:
    """Record what the daemon does to the disk; make the disk that a cut at any moment leaves; nothing told is lost."""
    bar = {
        "points": ">= 200",
        "daemons_back": "> 0",
        "database_broken": "== 0",
        "daemon_fails": "== 0",
        **oracle.NO_LOSS,
    }
    if shutil.which("strace") is None:
        return cannot_run("strace is not installed here", ", ".join(f"{k} {v}" for k, v in bar.items()))
    state, drop = folder / "state", oracle.Stimulator(folder / "drop")
    port = bed.free_port()
    config = bed.write_config(folder, bed.drop_lane(drop.folder), port=port)
    decided = _record(config, drop, port, folder / "calls", 40 if full else 5)
    ops = powercut.recorded(folder / "calls", folder)
    chance = random.Random(SEED)  # noqa: S311 -- to be repeated
    points = _points(ops, chance, len(ops) if full else 220)
    starts = set(chance.sample(sorted(points), 30 if full else 1))
    disk, as_of, told = powercut.Disk(), _AsOf(drop), dict[str, str]()
    worst: dict[str, int] = {}
    words: list[str] = []
    broken = back = fails = 0
    for number, op in enumerate(ops):
        disk.do(op)
        _hear(op, as_of, decided, told)
        if number not in points:
            continue
        say(f"R5: call {number} of {len(ops)}", every_s=5.0)
        for mode in MODES if full else (MODES[number % 3],):
            _make(state, disk, chance, mode)
            if not (state / "outbox.sqlite").exists() and not as_of.taken:
                continue  # the cut came before there was a service
            broken += not _usable(state)
            found = oracle.check(state, [as_of], told)
            worst = {k: max(v, worst.get(k, 0)) for k, v in found.figure().items()}
            if found.words():
                words.append(f"call {number}, {mode}: {found.words()}")
        if number in starts:
            _make(state, disk, chance, "some")
            wrong = _start(config, drop, as_of, told)
            back, fails = back + (not wrong), fails + bool(wrong)
            words += [f"call {number}: {wrong}"] if wrong else []
    figure: dict[str, Any] = {
        "points": len(points) * (len(MODES) if full else 1), "calls": len(ops), "decided": len(told),
        "daemons_back": back, "daemon_fails": fails, "database_broken": broken, **worst,
    }  # fmt: skip
    return judged(figure, bar, "; ".join(words[:3]))


def _record(config: Path, drop: oracle.Stimulator, port: int, calls: Path, scans: int) -> dict[str, str]:
    """Let a daemon take scans in, and an analyst decide some; return the decisions."""
    with bed.daemon(config, before=powercut.tracer(calls)) as service:
        bed.ready(service)
        with bed.Desk(f"tcp://127.0.0.1:{port}") as desk:
            for _ in range(scans):
                drop.put()
                time.sleep(0.05)
            bed.wait_until(lambda: len(desk.acknowledged) == scans, 120.0, "scans are taken in and decided")
        service.stop()
    bed.wait_until(lambda: not bed.group(service.pid), 10.0, "the tracer has ended")
    return dict(desk.acknowledged)


def _points(ops: list[powercut.Op], chance: random.Random, count: int) -> set[int]:
    """Return the calls after which the power fails: each after which somebody was told something, and others."""
    telling = {n for n, op in enumerate(ops) if op.kind in ("sent", "unname", "rename")}
    telling = set(chance.sample(sorted(telling), min(len(telling), count // 2)))
    others = sorted(set(range(len(ops))) - telling)
    return telling | set(chance.sample(others, min(len(others), count - len(telling))))


def _hear(op: powercut.Op, as_of: _AsOf, decided: dict[str, str], told: dict[str, str]) -> None:
    """Note what was acknowledged by a call: a file taken away, a decision said to be committed."""
    if op.kind in ("unname", "rename") and Path(op.path).parent == as_of.folder:
        as_of.taken.add(Path(op.path).name)
    if op.kind == "sent":
        told.update({i: scan for i, scan in decided.items() if i.encode() in op.data})


def _make(state: Path, disk: powercut.Disk, chance: random.Random, mode: str) -> None:
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    disk.write_after_cut(state, chance, mode)


def _usable(state: Path) -> bool:
    outbox = Outbox(state / "outbox.sqlite")
    try:
        ((said,),) = outbox.store.rows("PRAGMA integrity_check")
        outbox.note("looked_at", "after a power cut")
    finally:
        outbox.close()
    return bool(said == "ok")


def _start(config: Path, drop: oracle.Stimulator, as_of: _AsOf, told: dict[str, str]) -> str:
    """Start the daemon on what the cut left; return in words what is wrong."""
    kept = drop.folder.with_name("dropped")
    if not kept.exists():
        (drop.folder / "done").rename(kept)
    shutil.rmtree(drop.folder)
    drop.folder.mkdir()
    for name in set(drop.known) - as_of.taken:
        shutil.copy2(kept / name, drop.folder / name)  # with its time, by which its scan is named
    with bed.daemon(config) as service:
        bed.ready(service)
        bed.wait_until(lambda: not drop.waiting(), 60.0, "every file is taken")
        code = service.stop()
    return oracle.check(config.parent / "state", [drop], told).words() or ("" if code == 0 else f"exit code {code}")
