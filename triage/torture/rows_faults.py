"""R2: a fault at every single call that the daemon and its lane make on the disk."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from scanner_io.errors import DeliveryError

from . import bed, faulty, oracle
from .faults import CRASH, CRASHED, SHORT
from .outcome import Outcome, judged, say

LANE, DAEMON, START = "lane", "daemon", "start of the daemon"
ERRORS = ("EIO", "ENOSPC", "EINTR", SHORT)
BACK_S = 40.0
"""A scan is stored and decided within so long after a fault, restarts included."""
MOST_CALLS = 500
LANE_DEATHS = 4
"""After so many deaths of a lane its daemon would let it rest; it is begun anew instead."""
SETTLE_S = 0.3
"""The commits that follow an answer."""


def r2_every_call(folder: Path, full: bool) -> Outcome:
    """Let call n on the disk fail, for n = 1, 2, 3 … until a scan passes without; in the lane and in the daemon."""
    run = _Run(folder)
    try:
        with bed.Desk(f"tcp://127.0.0.1:{run.port}") as desk:
            run.desk = desk
            calls = {process: run.count_calls(process) for process in (LANE, DAEMON)}
            calls[START] = run.count_start()
            for process, most in calls.items():
                for number, fault in enumerate((*ERRORS, CRASH)):
                    for at in range(1, MOST_CALLS) if full else _sample(process, most, number):
                        say(f"R2: {fault} at call {at} of the {process}, {len(run.drop.known)} scans", every_s=5.0)
                        if not run.one(process, fault, at):
                            break
            desk.close()
            code = run.service.stop()
    finally:
        run.service.kill()
    found = oracle.check(folder / "state", [run.drop], desk.acknowledged)
    figure = {
        "calls": calls, "faults": dict(run.met), "sites": len(run.sites), "stuck": len(run.stuck),
        "unclean_ends": len(run.unclean), "synced_again": len(run.synced_again), "scans": len(run.drop.known),
        "back_s_max": round(max(run.seconds), 2), "exit_code": code, **found.figure(),
    }  # fmt: skip
    bar = {
        "stuck": "== 0", "unclean_ends": "== 0", "synced_again": "== 0", "exit_code": "== 0", **oracle.NO_LOSS,
    }  # fmt: skip
    words = (*run.stuck[:1], *run.unclean[:1], *run.synced_again[:1], found.words())
    return judged(figure, bar, "; ".join(filter(None, words)))


def _sample(process: str, most: int, number: int) -> list[int]:
    """Return which of the calls 1 to `most` the short form takes: another for every `number` of a fault."""
    if process == START and number not in (0, len(ERRORS)):
        return []
    return [1 + (2 * number + 1) * most // (2 * len(ERRORS) + 2) % most]


class _Run:
    """A daemon that goes from fault to fault."""

    def __init__(self, folder: Path) -> None:
        self.drop = oracle.Stimulator(folder / "drop")
        self.port = bed.free_port()
        self._config = bed.write_config(folder, bed.drop_lane(self.drop.folder), port=self.port, lease_s=2.0)
        self._plan = folder / "plan"
        self.desk: bed.Desk
        self.met: Counter[str] = Counter()
        """Faults that were met, by kind."""
        self.sites: set[tuple[str, str, str]] = set()
        """Which calls met which: process, call, fault."""
        self.stuck: list[str] = []
        self.unclean: list[str] = []
        self.synced_again: list[str] = []
        self.seconds = [0.0]
        self._serial = 0
        self._deaths = 0
        faulty.give(self._plan, faulty.Plan(serial=0, process="", fault="", at=0))
        self.service = bed.daemon(self._config, plan=self._plan)
        bed.ready(self.service)

    def count_calls(self, process: str) -> int:
        """Return how many calls a process makes for one scan."""
        for _ in range(2):  # the first makes folders
            self._give(process, "", 0)
            self._pass_one()
        counted = self._serial
        self._give(process, "", 0)
        self._pass_one()
        return max(m.number for m in self._calls(counted, process))

    def count_start(self) -> int:
        """Return how many calls the daemon makes until its lane is ready."""
        self.service.stop()
        self._give(DAEMON, "", 0)
        counted = self._serial
        self.restart()
        self._give(DAEMON, "", 0)
        self._pass_one()
        return max(m.number for m in self._calls(counted, DAEMON))

    def _calls(self, serial: int, process: str) -> list[faulty.Met]:
        return [m for m in faulty.told(self._plan) if (m.serial, m.process, m.what) == (serial, process, "calls")]

    def one(self, process: str, fault: str, at: int) -> bool:
        """Let a scan pass under one fault; False if it passed without meeting it."""
        if process == START:
            self.service.stop()
        self._give(DAEMON if process == START else process, fault, at)
        began_s = time.monotonic()
        try:
            if process == START:
                self.drop.put()
                self.restart()
                # What comes after the start is another process of the list.
                faulty.give(self._plan, faulty.Plan(serial=self._serial, process="", fault="", at=0))
            self._pass_one()
        except DeliveryError as error:
            self.stuck.append(f"{fault} at call {at} of the {process}: {error}; {self.service.last_words()}")
            return False
        told = [m for m in faulty.told(self._plan) if m.serial == self._serial]
        self.synced_again += [f"{m.call} {m.path}" for m in told if m.what == "synced again"]
        met = [m for m in told if m.what == "fault"]
        if met:
            self.met[fault] += 1
            self.sites.add((process, met[0].call, fault))
            self.seconds.append(time.monotonic() - began_s)
        return bool(met)

    def _give(self, process: str, fault: str, at: int) -> None:
        self._serial += 1
        faulty.give(self._plan, faulty.Plan(serial=self._serial, process=process, fault=fault, at=at))

    def _pass_one(self) -> None:
        """Drop a scan and wait until it is taken and decided, whatever happens meanwhile."""
        decided = len(self.desk.acknowledged)
        self.drop.put()
        deadline_s = time.monotonic() + BACK_S
        while self.drop.waiting() or len(self.desk.acknowledged) == decided:
            self._look_after()
            if time.monotonic() > deadline_s:
                raise DeliveryError(f"{len(self.drop.waiting())} scans not taken within {BACK_S:g} s, or not decided")
            time.sleep(0.01)
        time.sleep(SETTLE_S)
        self._look_after()

    def _look_after(self) -> None:
        """Start the daemon again if it has ended, and note whether that was clean."""
        if not self.service.running:
            self._note_end()
            self.restart()
        elif len(self.service.named("lane_died")) >= LANE_DEATHS:
            self.service.stop()
            self.restart()

    def _note_end(self) -> None:
        code, words = self.service.wait(1.0), self.service.errors
        if code not in (1, CRASHED) or "Traceback" in words or (code == 1 and "error:" not in words):
            self.unclean.append(f"exit code {code}: {words[-500:]}")

    def restart(self) -> None:
        """Begin the daemon anew; one that a fault does not let begin has to begin the next time."""
        for tries in range(2):
            self.service.kill()
            self.service = bed.daemon(self._config, plan=self._plan)
            try:
                bed.ready(self.service)
            except DeliveryError:
                if tries or self.service.running:
                    raise
                self._note_end()
            else:
                return
