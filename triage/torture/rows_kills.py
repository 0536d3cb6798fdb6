"""R1, R13, R14: the daemon killed, stopped again and again, and begun twice."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from . import bed, oracle
from .outcome import Outcome, judged, percentile, say

SEED = 1


def r1_kills(folder: Path, full: bool) -> Outcome:
    """Kill the daemon, a lane or all of it at a random moment of its activity; each time it must be back in 5 s."""
    kills = 1000 if full else 6
    rng = random.Random(SEED)  # noqa: S311 -- moments of a test
    drop = oracle.Stimulator(folder / "drop")
    port = bed.free_port()
    config = bed.write_config(folder, bed.drop_lane(drop.folder), port=port)
    restarts: list[float] = []
    unopenable: list[str] = []
    with bed.Desk(f"tcp://127.0.0.1:{port}") as desk:
        for kill in range(kills):
            say(f"R1: kill {kill} of {kills}, {len(drop.known)} scans", every_s=5.0)
            drop.put(rng.randint(0, 4))
            began_ns = time.time_ns()
            with bed.daemon(config) as service:
                if kill % 2:  # among its own beginnings
                    time.sleep(rng.uniform(0.0, 1.5))
                else:
                    restarts.append(bed.ready(service))
                    time.sleep(rng.uniform(0.0, 2.0 if full else 1.0))
                if rng.random() < 0.5:
                    service.kill_alone()  # the lane must notice
                else:
                    service.kill()
            unopenable += oracle.unopenable(folder / "state" / "recordings", began_ns)
        with bed.daemon(config) as service:
            restarts.append(bed.ready(service))
            left = len(drop.waiting())  # a daemon that is killed all the time falls behind
            bed.wait_until(lambda: not drop.waiting(), 60.0 + 3.0 * left, f"every one of {left} files is taken")
            time.sleep(1.0)
            desk.close()
            code = service.stop()
    found = oracle.check(folder / "state", [drop], desk.acknowledged)
    # the first start may compile kernels
    figure = {
        "kills": kills, "restarts_timed": len(restarts) - 1, "scans": len(drop.known),
        "unopenable_after_a_kill": len(unopenable),
        "ready_s_max": round(max(restarts[1:]), 2), "ready_s_median": round(percentile(restarts[1:], 0.5) or 0.0, 2),
        "decided": len(desk.acknowledged), "exit_code": code, **found.figure(),
    }  # fmt: skip
    bar = {"ready_s_max": "<= 5", "unopenable_after_a_kill": "== 0", "exit_code": "== 0", **oracle.NO_LOSS}
    return judged(figure, bar, found.words())


def r13_restarts(folder: Path, full: bool) -> Outcome:
    """Stop and start again and again, by SIGTERM and SIGHUP, now and then in the middle of its own beginning."""
    restarts = 100 if full else 3
    rng = random.Random(SEED)  # noqa: S311
    drop = oracle.Stimulator(folder / "drop")
    config = bed.write_config(folder, bed.drop_lane(drop.folder))
    drains: list[float] = []
    codes: list[int | None] = []
    for number in range(restarts):
        say(f"R13: restart {number} of {restarts}", every_s=5.0)
        drop.put(3)
        with bed.daemon(config) as service:
            service.wait_for("listening" if number % 4 == 3 else "lane_ready", bed.START_S)
            time.sleep(rng.uniform(0.0, 0.5))
            began_s = time.monotonic()
            service.signal(signal.SIGHUP if number % 2 else signal.SIGTERM)
            codes.append(service.wait(60.0))
            drains.append(time.monotonic() - began_s)
    with bed.daemon(config) as service:
        bed.ready(service)  # one that has just been born knows no signals yet
        bed.wait_until(lambda: not drop.waiting(), bed.START_S, "every file is taken")
        codes.append(service.stop())
    found = oracle.check(folder / "state", [drop])
    figure = {
        "restarts": restarts, "scans": len(drop.known), "drain_s_max": round(max(drains), 2),
        "not_orderly": sum(code != 0 for code in codes), **found.figure(),
    }  # fmt: skip
    ends = "" if not figure["not_orderly"] else f"exit codes {codes}"
    words = "; ".join(filter(None, (ends, found.words())))
    return judged(figure, {"drain_s_max": "<= 5", "not_orderly": "== 0", **oracle.NO_LOSS}, words)


def r14_two_daemons(folder: Path, full: bool) -> Outcome:
    """Begin a second daemon on the state folder of one that runs: it must refuse, say why, and touch nothing."""
    drop = oracle.Stimulator(folder / "drop")
    other = oracle.Stimulator(folder / "other", "w")
    config = bed.write_config(folder, bed.drop_lane(drop.folder))
    second = bed.write_config(folder, bed.drop_lane(other.folder), name="second.toml")
    with bed.daemon(config) as service:
        bed.ready(service)
        drop.put(3)
        other.put(3)
        with bed.daemon(second) as late:
            code = late.wait(30.0)
            said = late.errors
        bed.wait_until(lambda: not drop.waiting(), 30.0, "every file is taken")
        alive = service.running
        service.stop()
    found = oracle.check(folder / "state", [drop, other])
    figure = {
        "second_refused": code not in (None, 0), "says_why": "another scanlane daemon" in said,
        "traceback": "Traceback" in said, "first_alive": alive, "taken_by_second": len(other.acknowledged()),
        **found.figure(),
    }  # fmt: skip
    bar = {
        "second_refused": "== 1", "says_why": "== 1", "traceback": "== 0", "first_alive": "== 1",
        "taken_by_second": "== 0", **oracle.NO_LOSS,
    }  # fmt: skip
    return judged(figure, bar, found.words() or said.strip()[:200])
