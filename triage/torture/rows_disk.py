"""R3, R4, R6: a disk that is full, one that fills up slowly, and one whose bits flip."""

from __future__ import annotations

import time
from pathlib import Path

from scanner_io.client import Workstation

from . import bed, oracle
from .outcome import Outcome, cannot_run, judged, say

VOLUME_MB, STOP_MB, WARN_MB, RESERVE_MB = 64, 8, 16, 4
STORAGE = f"warn_free_mb = {WARN_MB}\nreserve_mb = {RESERVE_MB}\n"
LARGE = (1600, 900)
"""(columns, rows) of an image whose recording takes the disk a moment."""
NO_VOLUME = "no disk of its own can be mounted here: that needs root"


def r3_full_disk(folder: Path, full: bool) -> Outcome:
    """Fill the disk of the state folder to its last byte while scans come, decide, then make room; again and again."""
    with bed.volume(folder / "state", VOLUME_MB) as mounted:
        return _r3(folder, 20 if full else 2) if mounted else cannot_run(NO_VOLUME)


def _r3(folder: Path, cycles: int) -> Outcome:
    state, filler = folder / "state", folder / "state" / "filler"
    drop, large = oracle.Stimulator(folder / "drop"), oracle.Stimulator(folder / "drop", "large", LARGE)
    port = bed.free_port()
    config = bed.write_config(folder, bed.drop_lane(drop.folder), port=port, min_free_mb=STOP_MB, storage=STORAGE)
    stopped: list[float] = []
    resumed: list[float] = []
    deciding: list[float] = []
    decided: dict[str, str] = {}
    taken_while_full = alarms = 0
    with bed.daemon(config) as service, Workstation(f"tcp://127.0.0.1:{port}", "ana", capacity=1) as desk:
        bed.ready(service)
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
        died = len(service.named("lane_died"))
        code = service.stop()
        words = service.errors
    found = oracle.check(state, [drop, large], decided)
    figure = {
        "cycles": cycles, "scans": len(drop.known) + len(large.known), "stops_s_max": round(max(stopped), 2),
        "resumes_s_max": round(max(resumed), 2), "taken_while_full": taken_while_full,
        "decision_on_full_disk_s_max": round(max(deciding), 2), "alarms": alarms, "deaths": died, "exit_code": code,
        "traceback": "Traceback" in words, **found.figure(),
    }  # fmt: skip
    bar = {
        "stops_s_max": "<= 1", "resumes_s_max": "<= 10", "taken_while_full": "== 0",
        "decision_on_full_disk_s_max": "<= 5", "alarms": f">= {cycles}", "deaths": "== 0", "exit_code": "== 0",
        "traceback": "== 0", **oracle.NO_LOSS,
    }  # fmt: skip
    return judged(figure, bar, found.words())
