"""R3, R4, R6: a disk that is full, one that fills up slowly, and one whose bits flip."""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from scanner_io import recording
from scanner_io.client import Workstation
from scanner_io.errors import DataError, DeliveryError
from scanner_io.model import TriageResult
from triage.service import audit
from triage.service.room import RESERVE

from . import bed, oracle
from .outcome import Outcome, cannot_run, judged, say
from .peer import Peer
from .scanner import Image, LineScanner

VOLUME_MB, STOP_MB, WARN_MB, RESERVE_MB = 64, 8, 16, 4
STORAGE = f"warn_free_mb = {WARN_MB}\nreserve_mb = {RESERVE_MB}\n"
LARGE = (1600, 900)
"""(columns, rows) of an image whose recording takes the disk a moment."""
NO_VOLUME = "no disk of its own can be mounted here: that needs root"


def r3_full_disk(folder: Path, full: bool) -> Outcome:
    """Fill the disk of the state folder to its last byte while scans come, decide, then make room; again and again.

    At last a line scanner delivers to the full disk, which can neither wait nor give anything twice.
    """
    with bed.volume(folder / "state", VOLUME_MB) as mounted:
        return _r3(folder, 20 if full else 1) if mounted else cannot_run(NO_VOLUME)


def _r3(folder: Path, cycles: int) -> Outcome:
    state, filler = folder / "state", folder / "state" / "filler"
    drop, large = oracle.Stimulator(folder / "drop"), oracle.Stimulator(folder / "drop", "large", LARGE)
    port = bed.free_port()
    peer = Peer(LIVE_BUFFER_BYTES)
    scanner = LineScanner(peer)
    config = bed.write_config(
        folder, bed.drop_lane(drop.folder) + scanner.lane(LIVE, silence_s=600.0), port=port, min_free_mb=STOP_MB,
        storage=STORAGE,
    )  # fmt: skip
    stopped: list[float] = []
    resumed: list[float] = []
    deciding: list[float] = []
    decided: dict[str, str] = {}
    taken_while_full = alarms = 0
    with (
        peer, bed.daemon(config) as service, Workstation(f"tcp://127.0.0.1:{port}", "ana", capacity=1) as desk,
    ):  # fmt: skip
        bed.ready(service, 2)
        for cycle in range(cycles):
            say(f"R3: full disk {cycle} of {cycles}, {len(drop.known) + len(large.known)} scans", every_s=5.0)
            drop.put()
            offer = bed.wait_until(lambda: desk.next_offer(0.2), 20.0, "a scan is offered")
            large.put(2)
            bed.wait_until(lambda: list(state.rglob("*.part")), 10.0, "a recording is begun")
            bed.fill(filler)
            full_s = time.monotonic()
            stopped.append(service.wait_for("intake_stopped", 10.0)["heard_s"] - full_s)
            time.sleep(max(0.0, full_s + 1.0 - time.monotonic()))
            late = drop.put(2)
            began_s = time.monotonic()
            answer = desk.decide(offer, "clear", timeout_s=30.0)
            deciding.append(time.monotonic() - began_s)
            decided[answer.decision_id] = offer.scan_id
            time.sleep(1.0)
            taken_while_full += len(set(late) - drop.waiting())
            filler.unlink()
            free_s = time.monotonic()
            service.wait_for("intake_open", 30.0)
            bed.wait_until(lambda: not drop.waiting(), 60.0, "every file is taken once there is room")
            resumed.append(time.monotonic() - free_s)
            alarms += sum(a.kind == "disk" and not a.over for a in desk.alarms)
            desk.alarms.clear()
            while (more := desk.next_offer(0.5)) is not None:
                decided[desk.decide(more, "clear").decision_id] = more.scan_id
        live = _live(scanner, service, state, filler)
        died = len(service.named("lane_died"))
        code = service.stop()
        words = service.errors
    found = oracle.check(state, [drop, large], decided)
    figure = {
        "cycles": cycles, "scans": len(drop.known) + len(large.known), "stops_s_max": round(max(stopped), 2),
        "resumes_s_max": round(max(resumed), 2), "taken_while_full": taken_while_full,
        "decision_on_full_disk_s_max": round(max(deciding), 2), "alarms": alarms, "deaths": died, "exit_code": code,
        "traceback": "Traceback" in words, **live, **found.figure(),
    }  # fmt: skip
    bar = {
        "live_in_silence": "== 0", "live_frames_lost_untold": "== 0", "live_lost_at_all": "== 1",
        "stops_s_max": "<= 1", "resumes_s_max": "<= 10", "taken_while_full": "== 0",
        "decision_on_full_disk_s_max": "<= 5", "alarms": f">= {cycles}", "deaths": "== 0", "exit_code": "== 0",
        "traceback": "== 0", **oracle.NO_LOSS,
    }  # fmt: skip
    return judged(figure, bar, found.words())


LIVE = "live"
LIVE_SCANS, LIVE_COLUMNS, LIVE_LINES = 30, 200, 2
"""More than a lane keeps in memory, in more blocks than it lets wait; lines in a frame."""
MISSING_LINES = {"cut_off", "dropped_columns", "radiograph_empty"}
"""Flags of an image that is not whole."""
LIVE_BUFFER_BYTES = 64 << 10


def _live(scanner: LineScanner, service: bed.Child, state: Path, filler: Path) -> dict[str, int]:
    """Let a line scanner deliver while the disk is full; return what became of every scan once there is room again."""
    rows = "SELECT start_utc_ns, outcome, result, path FROM scans WHERE lane=?"

    def stored() -> list[tuple[Any, ...]]:
        with closing(oracle.database(state)) as database:
            return list(database.execute(rows, (LIVE,)))

    scanner.peer.wait()
    bed.fill(filler)
    bed.wait_until(lambda: not (state / RESERVE).exists(), 10.0, "the reserve is given up")
    lost: dict[int, int] = {}
    sent: dict[int, tuple[Image, int]] = {}
    for number in range(LIVE_SCANS):
        say(f"R3: live scan {number} of {LIVE_SCANS} on a full disk", every_s=5.0)
        image = scanner.image[:LIVE_COLUMNS].copy()
        image[::7, : number + 1] ^= 1  # no vehicle's counts are those of another
        frames = scanner.frames(image, lines=LIVE_LINES)
        lost[number] = sum(not scanner.peer.pour(frame) for frame in frames)
        sent[number] = image, len(frames)
        time.sleep(0.02)
    bed.wait_until(lambda: service.named("storage_fault", lane=LIVE), 10.0, "the live lane tells that it cannot store")
    filler.unlink()
    service.wait_for("intake_open", 30.0)
    heard = [n for n, (_, frames) in sent.items() if lost[n] < frames]
    bed.wait_until(lambda: len(stored()) >= len(heard), 60.0, "what came of live scans is stored once there is room")
    bed.wait_until(lambda: scanner.peer.pour(scanner.alive()), 30.0, "the device is heard again")
    device_lost = sum(lost.values())
    bed.wait_until(lambda: _frames_told(service) >= device_lost, 10.0, "the frames that the device lost are told")
    whole = flagged = 0
    for start_ns, outcome, result, path in stored():
        number = round((start_ns - scanner.began_ns) / scanner.APART_NS) - 1
        counts = recording.read(Path(path)).scan.radiograph
        same = counts is not None and np.array_equal(counts.counts[0], sent[number][0])
        codes = {q.code for q in msgspec.json.decode(result, type=TriageResult).quality}
        whole += same
        flagged += not same and outcome != "CLEAR" and bool(codes & MISSING_LINES)
    return {
        "live_sent": LIVE_SCANS, "live_whole": whole, "live_flagged": flagged,
        "live_lost_by_the_device": LIVE_SCANS - len(heard), "live_in_silence": len(heard) - whole - flagged,
        "live_frames_lost": device_lost, "live_frames_lost_untold": device_lost - _frames_told(service),
        "live_lost_at_all": int(device_lost > 0),
    }  # fmt: skip


def _frames_told(service: bed.Child) -> int:
    """Return how many frames the driver has said that the device lost."""
    told = [re.search(r"\((\d+) so far\)", str(e.get("text"))) for e in service.named("health", lane=LIVE)]
    return max((int(t[1]) for t in told if t), default=0)


# ------------------------------------------------------------------------------------------------------- water marks

STEPS_MB = (
    (40.0, None), (15.5, "disk_low"), (10.0, None), (8.5, None), (7.5, "intake_stopped"), (9.5, None), (6.0, None),
    (10.5, "intake_open"), (8.5, None), (7.0, "intake_stopped"), (17.5, "intake_open"), (18.5, "disk_ok"),
    (16.5, None), (5.0, "intake_stopped"), (40.0, "intake_open"),
)  # fmt: skip
"""MiB that are left free, one after the other, and what the daemon must say: below 16 it warns, below 8 it stops, from
10 on it goes on, from 18 on all is well."""


def r4_water_marks(folder: Path, full: bool) -> Outcome:
    """Leave less and less free, and more again: the states must change at their marks and nowhere else."""
    with bed.volume(folder / "state", VOLUME_MB) as mounted:
        return _r4(folder, 10 if full else 1) if mounted else cannot_run(NO_VOLUME)


def _r4(folder: Path, rounds: int) -> Outcome:
    state, filler = folder / "state", folder / "state" / "filler"
    drop = oracle.Stimulator(folder / "drop")
    port = bed.free_port()
    config = bed.write_config(
        folder, bed.drop_lane(drop.folder), port=port, min_free_mb=STOP_MB, storage=STORAGE,
        more="[retention]\nclear_days = 0\n",
    )  # fmt: skip
    wrong: list[str] = []
    taken_while_stopped = gone = 0
    with bed.daemon(config) as service, Workstation(f"tcp://127.0.0.1:{port}", "ana", capacity=1) as desk:

        def told_since(count: int) -> list[str]:
            return [e["event"] for e in service.events[count:] if e["event"] in _STATES]

        bed.ready(service)
        drop.put(6)
        bed.wait_until(lambda: not drop.waiting(), 60.0, "every file is taken")
        for _ in range(2):
            offer = bed.wait_until(lambda: desk.next_offer(0.2), 20.0, "a scan is offered")
            desk.decide(offer, "clear")
        undecided = 4
        for number in range(rounds):
            for free_mb, expected in STEPS_MB:
                say(f"R4: {free_mb} MiB left free, round {number} of {rounds}", every_s=5.0)
                before = len(service.events)
                _leave(filler, free_mb)
                if expected is not None:
                    bed.wait_until(lambda: told_since(before), 10.0, f"{free_mb} MiB: {expected} is said")  # noqa: B023
                if expected == "intake_open":  # what waited takes its room now, and not that of the next step
                    bed.wait_until(lambda: not drop.waiting(), 60.0, "every file is taken once there is room")
                time.sleep(SAID_AT_MOST_S)  # nothing more comes, or nothing at all
                told = told_since(before)
                if told != ([] if expected is None else [expected]):
                    wrong.append(f"{free_mb} MiB: said {told}, expected {expected}")
                if expected == "intake_stopped":
                    late = drop.put()
                    time.sleep(SAID_AT_MOST_S)
                    taken_while_stopped += len(set(late) - drop.waiting())
                    undecided += 1
            bed.wait_until(lambda: not drop.waiting(), 60.0, "every file is taken once there is room")
        stops = len(service.named("intake_stopped"))
        _leave(filler, 7.0)
        bed.wait_until(lambda: len(service.named("intake_stopped")) > stops, 5.0, "intake is stopped")
        before_files = set((state / "recordings").rglob("*.h5"))
        gone = _apply_retention(config)
        after_files = set((state / "recordings").rglob("*.h5"))
        filler.unlink()
        code = service.stop()
    with closing(oracle.database(state)) as database:
        waiting = database.execute("SELECT COUNT(*) FROM outbox WHERE state<>'decided'").fetchone()[0]
        deleted = {Path(p) for (p,) in database.execute("SELECT path FROM scans WHERE kept='deleted'")}
    problems = audit.verify(state / "outbox.sqlite", None, None).problems
    figure = {
        "steps": rounds * len(STEPS_MB), "wrong_changes": len(wrong), "taken_while_stopped": taken_while_stopped,
        "deleted_by_policy": gone, "undecided": waiting, "undecided_lost": undecided - waiting,
        "deleted_against_it": len(before_files - after_files - deleted), "exit_code": code,
        "audit_problems": len(problems),
    }  # fmt: skip
    bar = {
        "wrong_changes": "== 0", "taken_while_stopped": "== 0", "deleted_by_policy": "== 2", "undecided_lost": "== 0",
        "deleted_against_it": "== 0", "exit_code": "== 0", "audit_problems": "== 0",
    }  # fmt: skip
    return judged(figure, bar, "; ".join(wrong[:3]))


SAID_AT_MOST_S = 0.6
"""The daemon looks every quarter of a second; what it says later counts at the next step, as nothing expected there."""
_STATES = {"disk_ok", "disk_low", "intake_stopped", "intake_open"}


def _leave(filler: Path, free_mb: float) -> None:
    """Let `free_mb` be free on the filler's disk, at once: no state between is seen."""
    here = filler.stat().st_size if filler.exists() else 0
    more = bed.free(filler.parent) - int(free_mb * (1 << 20))
    descriptor = os.open(filler, os.O_RDWR | os.O_CREAT)
    try:
        if more > 0:
            os.posix_fallocate(descriptor, here, more)
        else:
            os.ftruncate(descriptor, here + more)
    finally:
        os.close(descriptor)


def _apply_retention(config: Path) -> int:
    """Delete by policy beside the daemon; return how many recordings went."""
    with bed.Child("-m", "triage.cli", "retention", str(config), "--apply", "--json", name="retention") as child:
        child.wait(60.0)
        child.kill()
        return int(child.events[-1]["deleted"])


# ------------------------------------------------------------------------------------------------------ bits that flip


def r6_flips(folder: Path, full: bool) -> Outcome:
    """Flip bits and cut ends: recordings, database, its log, configuration. Each must be found or refused."""
    rng = random.Random(6)  # noqa: S311 -- places of a test
    drop = oracle.Stimulator(folder / "drop")
    config = bed.write_config(folder, bed.drop_lane(drop.folder))
    state = folder / "state"
    count = 100 if full else 10
    with bed.daemon(config) as service:
        bed.ready(service)
        drop.put(count)
        bed.wait_until(lambda: not drop.waiting(), 300.0, "every file is taken")
        service.stop()
    recordings = sorted((state / "recordings").rglob("*.h5"))
    whole = {path: path.read_bytes() for path in recordings}
    alone = Counter(_read_alone(path, _harmed(whole[path], rng)) for path in recordings for _ in range(100 // count))
    for path in recordings:
        path.write_bytes(_harmed(whole[path], rng))
    found, code = _look_through(config, count)
    for path in recordings:
        path.write_bytes(whole[path])
    sound, _ = _look_through(config, count, "recording_sound")

    database = state / "outbox.sqlite"
    kept = database.read_bytes()
    ends: Counter[str] = Counter()
    for number in range(100 if full else 2):
        say(f"R6: database {number}", every_s=5.0)
        database.write_bytes(_harmed(kept, rng))
        ends[f"database {_begun(config)}"] += 1
        _only(state, kept)
    for number in range(100 if full else 1):
        log = _killed_log(config, drop)
        say(f"R6: log of the database {number}, {len(log)} bytes", every_s=5.0)
        (state / "outbox.sqlite-wal").write_bytes(_harmed(log, rng))
        ends[f"log {_begun(config)}"] += 1
        _only(state, kept)
    text = config.read_bytes()
    for number in range(100 if full else 1):
        say(f"R6: configuration {number}", every_s=5.0)
        config.write_bytes(_harmed(text, rng))
        ends[f"configuration {_begun(config)}"] += 1
    config.write_bytes(text)

    database.unlink()
    with bed.daemon(config) as service:
        bed.ready(service)
        bed.wait_until(lambda: len(service.named("scan")) >= len(list((state / "recordings").rglob("*.h5"))), 300.0,
                       "every recording is entered anew")  # fmt: skip
        service.stop()
    again = oracle.check(state, [drop])
    figure = {
        "recordings": len(recordings), **dict(sorted(alone.items())),
        "found_without_its_row": alone.total() - alone["seen by its row's hash alone"], "found_by_the_daemon": found,
        "sound_again": sound, "exit_code": code, **dict(sorted(ends.items())),
        "unclean": sum(n for words, n in ends.items() if words.endswith("unclean")), **again.figure(),
    }  # fmt: skip
    bar = {
        "found_without_its_row": f"== {alone.total()}", "found_by_the_daemon": f"== {len(recordings)}",
        "sound_again": f"== {len(recordings)}", "exit_code": "== 0", "unclean": "== 0", **oracle.NO_LOSS,
    }  # fmt: skip
    return judged(figure, bar, again.words())


def _harmed(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one bit flipped, or every fourth time cut short."""
    at = rng.randrange(len(data))
    if rng.random() < 0.25:
        return data[:at]
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _read_alone(path: Path, harmed: bytes) -> str:
    """Return in a word what reading a recording with these bytes shows, its row and hash aside."""
    place = path.with_name("harmed.scan.h5")
    place.write_bytes(harmed)
    try:
        recording.read(place)
        told = recording.check(place)
    except DataError:
        return "refused by the reader"
    finally:
        place.unlink()
    return "found by the check" if told else "seen by its row's hash alone"


def _look_through(config: Path, count: int, event: str = "recording_damaged") -> tuple[int, int | None]:
    """Start the daemon and let it read every recording; return of how many it tells this, and its exit code."""
    with bed.daemon(config) as service:
        bed.ready(service)
        bed.wait_until(lambda: len(service.named(event)) >= count or service.named("recordings_read"), 120.0, event)
        return len(service.named(event)), service.stop()


def _begun(config: Path) -> str:
    """Start the daemon on what is harmed; return in a word what came of it."""
    with bed.daemon(config) as service:
        try:
            bed.ready(service, timeout_s=30.0)
        except DeliveryError:
            code, words = service.wait(5.0), service.errors
            return "refused" if code in (1, 2) and "error:" in words and "Traceback" not in words else "unclean"
        code, words = service.stop(), service.errors
        return "used" if code in (0, 1) and "Traceback" not in words else "unclean"


def _only(state: Path, database: bytes) -> None:
    """Put the database back as it was, without a log."""
    for name in ("outbox.sqlite-wal", "outbox.sqlite-shm"):
        (state / name).unlink(missing_ok=True)
    (state / "outbox.sqlite").write_bytes(database)


def _killed_log(config: Path, drop: oracle.Stimulator) -> bytes:
    """Return the log that a killed daemon left; a scan that is in it and not in the database is on the disk."""
    state = config.parent / "state"
    with bed.daemon(config) as service:
        bed.ready(service)
        drop.put()
        bed.wait_until(lambda: not drop.waiting(), 60.0, "the file is taken")
        service.kill()
    return (state / "outbox.sqlite-wal").read_bytes()
