"""R16: a judgement that takes its process with it, one that never ends, and compiled code that is damaged."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from scanner_io.model import TriageResult

from . import bed, oracle
from .ill import ACCIDENTS
from .outcome import Outcome, judged, say

ATTEMPTS = 3
WATCHDOG_S = 3.0
TRIED_S = 300.0
"""A scan of every kind is tried so often as it may be, on a machine that has much else to do: each try ends a lane."""


def r16_judging(folder: Path, full: bool) -> Outcome:
    """Scans whose judgement kills or hangs their lane: tried three times, then before an analyst; damaged code."""
    found = _accidents(folder / "accidents", list(ACCIDENTS) if full else ["segv", "endless"], 3 if full else 1)
    figure, note = found
    figure |= _caches(folder / "caches", ["bits", "truncated", "empty", "read-only"] if full else ["bits", "truncated"])
    bar = {
        "accidents": ">= 2", "tries_max": f"<= {ATTEMPTS}", "untriaged_to_analyst": f"== {figure['accidents']}",
        "others_judged": f"== {figure['others']}", "caches": "> 0", "caches_same_code": f"== {figure['caches']}",
        **oracle.NO_LOSS,
    }  # fmt: skip
    return judged(figure, bar, note)


def _accidents(folder: Path, kinds: list[str], of_each: int) -> tuple[dict[str, Any], str]:
    """Let every kind of scan and some sound ones come to a lane of their own, and an analyst decide all of them."""
    folder.mkdir()
    ill = [oracle.Stimulator(folder / kind, kind) for kind in kinds]
    sound = [oracle.Stimulator(folder / kind, f"ok-{kind}-") for kind in kinds]
    port = bed.free_port()
    config = bed.write_config(
        folder, "".join(bed.drop_lane(s.folder, k) for s, k in zip(ill, kinds, strict=True)), port=port
    )
    service = bed.Child(
        "-m", "triage.torture.ill", "run", str(config), "--json", name="daemon",
        env={"WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))},
    )  # fmt: skip
    with service, bed.Desk(f"tcp://127.0.0.1:{port}") as desk:
        bed.ready(service, len(kinds))
        for stimulator in (*sound, *ill, *sound):
            stimulator.put(of_each)
        wanted = 3 * of_each * len(kinds)

        def all_decided() -> bool:
            say(f"R16: {len(desk.acknowledged)} of {wanted} scans decided", every_s=5.0)
            return len(desk.acknowledged) == wanted

        bed.wait_until(all_decided, bed.START_S + of_each * TRIED_S, f"all {wanted} scans are decided")
        desk.close()
        died = Counter(e["lane"] for e in service.named("lane_died"))
        service.stop()
    outcomes = _outcomes(folder / "state")
    untriaged = [
        name for name, result in outcomes.items() if name.startswith(tuple(kinds)) and result.outcome == "UNUSABLE"
        and any("ended the process" in reason for reason in result.reasons)
    ]  # fmt: skip
    others = [n for n in outcomes if n.startswith("ok-")]
    found = oracle.check(folder / "state", [*ill, *sound], desk.acknowledged)
    figure = {
        "accidents": len(kinds) * of_each, "tries_max": max(died.values()) / of_each, "lanes_died": dict(died),
        "untriaged_to_analyst": len(untriaged), "others": 2 * of_each * len(kinds),
        "others_judged": sum("failed" not in " ".join(outcomes[n].reasons) for n in others), **found.figure(),
    }  # fmt: skip
    return figure, found.words()


def _outcomes(state: Path) -> dict[str, TriageResult]:
    """Return the result of every scan by the name of its source."""
    from scanner_io import recording

    with closing(sqlite3.connect(f"{(state / 'outbox.sqlite').as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT path, result FROM scans").fetchall()
    return {
        Path(recording.read(Path(path)).scan.source).name: msgspec.json.decode(result, type=TriageResult)
        for path, result in rows
    }


# --------------------------------------------------------------------------------------------------------------
# Compiled code

CODE = """
import json, sys, time
began = time.monotonic()
import numpy
from triage import kernels
from triage.kernels.fletcher32 import fletcher32
data = numpy.arange(1000, dtype=numpy.uint8)
print(json.dumps({"event": "sum", "sum": int(fletcher32(data)), "s": time.monotonic() - began}))
"""
"""One kernel stands for all: they are kept by the same code."""


def _caches(folder: Path, damages: list[str]) -> dict[str, Any]:
    """Damage kept code in every way; what is computed must be what was."""
    folder.mkdir()
    sound = folder / "sound"
    before = _summed(sound, ())
    same = 0
    for damage in damages:
        cache = folder / damage
        shutil.copytree(sound, cache)
        files = [p for p in cache.rglob("*.nb[ci]") if p.is_file()]
        for path in files:
            _damage(path, damage)
        around = _read_only(cache) if damage == "read-only" else ()
        say(f"R16: {len(files)} files of compiled code {damage}")
        same += bool(files) and before is not None and _summed(cache, around) == before
    return {"caches": len(damages), "caches_same_code": same}


def _damage(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    if damage == "bits":
        for at in range(len(data) // 3, len(data), 97):
            data[at] ^= 0x10
    elif damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "empty":
        data = bytearray(len(data))  # what a file system may have after a power cut
    path.write_bytes(data)


def _read_only(cache: Path) -> tuple[str, ...]:
    """Return what runs a command to which `cache` is read-only, and its files damaged besides."""
    for path in cache.rglob("*.nbc"):
        _damage(path, "truncated")
    if os.geteuid() == 0:
        bind = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        return ("unshare", "-m", "sh", "-c", bind, str(cache))
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o500 if path.is_dir() else 0o400)
    return ()


def _summed(cache: Path, around: tuple[str, ...]) -> int | None:
    """Return what a kernel computes in a new process with this cache; None if it does not live through it."""
    done = subprocess.run(  # noqa: S603 -- our own program
        [*around, sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    if done.returncode:
        say(f"R16: {done.stderr[-500:]}")
        return None
    found: int = msgspec.json.decode(done.stdout)["sum"]
    return found
