"""R17: every thread of the service stopped, one after the other; who starts it again, and how soon."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from scanner_io.errors import DeliveryError

from . import bed, oracle
from .outcome import Outcome, cannot_run, judged, say

ABORT_S = 3.0
"""TimeoutAbortSec: who does not end of SIGABRT is killed."""


class Systemd:
    """What systemd does of a unit with Type=notify, WatchdogSec and Restart=always, for a machine that has none."""

    def __init__(self, config: Path, watchdog_s: float) -> None:
        self._config, self.watchdog_s = config, watchdog_s
        self._path = config.parent / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._socket.setblocking(False)
        self.restarts = 0
        self.start()

    def start(self) -> None:
        """Start the service."""
        self.is_ready, self.fed_s = False, time.monotonic()
        self.service = bed.daemon(
            self._config, env={"NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": str(int(self.watchdog_s * 1e6))}
        )

    def look(self) -> None:
        """Hear the service; end and start it if it has not said in time that all is well, or is gone."""
        while True:
            try:
                said = self._socket.recv(4096).decode()
            except BlockingIOError:
                break
            self.is_ready = self.is_ready or "READY=1" in said
            if "WATCHDOG=1" in said or "READY=1" in said:
                self.fed_s = time.monotonic()
        late = self.is_ready and time.monotonic() - self.fed_s > self.watchdog_s
        if late:
            self.service.signal(signal.SIGABRT)
            self.service.wait(ABORT_S)
        if late or not self.service.running:
            self.service.kill()
            self.restarts += 1
            self.start()

    def wait_ready(self, timeout_s: float = bed.START_S) -> None:
        """Look until the service is ready. Raises DeliveryError."""
        until_s = time.monotonic() + timeout_s
        while not self.is_ready:
            self.look()
            time.sleep(0.02)
            if time.monotonic() > until_s:
                raise DeliveryError(f"the service is not ready in {timeout_s:g} s; {self.service.last_words()}")

    def close(self) -> None:
        """Stop the service in order, and hear it no more."""
        self.service.stop()
        self._socket.close()


Victim = tuple[str, int | str]
"""A lane's name and the number of its thread, in the order of their beginning; or "" and the name of a thread of the
service itself. "process" : all of it
"""
MAIN_THREAD = "main thread"
"""Its name in /proc is that of the interpreter's file, python or python3: it is known by its number, the process's."""
OF_A_LANE = ("main loop", "recording and judging", "device")
"""A lane's first threads in the order of their beginning; more come with the first scan."""
LANES = ("north", "south", "west")


def _plan(full: bool, threads: Callable[[], int]) -> Iterator[list[Victim]]:
    """Yield what is stopped at the same time: threads of different lanes together, those of the service alone.

    threads : returns how many a lane has; asked once a scan has passed every lane
    """
    if full:
        count = threads()
        for first in range(0, count, len(LANES)):
            numbers = range(first, min(first + len(LANES), count))
            yield list(zip(LANES, numbers, strict=False))
        yield [(LANES[0], "process")]
    else:  # that a lane's main loop hangs is one of the tests of the daemon
        yield [(lane, 1 + number) for number, lane in enumerate(LANES[:2])]
    yield [("", MAIN_THREAD)]
    yield [("", "ZMQbg/IO/0")]
    if full:
        yield [("", "process")]


def r17_watchdog(folder: Path, full: bool) -> Outcome:
    """Stop each thread of the service for ever; within twice WatchdogSec its lane, or all of it, is started again.

    A thread without which its lane takes its scans all the same is told by name, and the bar is not met: what it would
    have done with a larger scan is not known.
    """
    watchdog_s = 10.0 if full else 4.0
    lanes = LANES if full else LANES[:2]
    drops = [oracle.Stimulator(folder / name, name[0]) for name in lanes]
    config = bed.write_config(folder, "".join(map(bed.drop_lane, [d.folder for d in drops], lanes)))
    begun: dict[str, float] = {}
    went_on: list[str] = []
    ready: list[float] = []
    systemd = Systemd(config, watchdog_s)
    try:
        _until_quiet(systemd, drops)
        for victims in _plan(full, lambda: _threads(systemd)):
            _until_quiet(systemd, drops)
            stopped = _stopped(systemd, victims)
            if stopped is None:
                return cannot_run("threads of another process may not be stopped here (ptrace)", "restart_share <= 2")
            for drop in drops:
                drop.put()  # idle threads have something to do
            restarted, unneeded = _restarted(systemd, stopped, dict(zip(lanes, drops, strict=True)))
            went_on += unneeded
            for name, seconds in restarted.items():
                say(f"R17: {name}: {seconds:.1f} s")
                begun[name] = round(seconds, 1)
            since_s = time.monotonic()
            systemd.wait_ready()
            ready.append(time.monotonic() - since_s)
        _until_quiet(systemd, drops)
    finally:
        restarts = systemd.restarts
        systemd.close()
    found = oracle.check(folder / "state", drops)
    figure = {
        "stopped": len(begun) + len(went_on), "watchdog_s": watchdog_s,
        "restart_share": round(max(begun.values()) / watchdog_s, 2), "restart_s": begun,
        "went_on_without": len(went_on), "of_the_whole_service": restarts,
        "then_ready_s_max": round(max(ready), 1), **found.figure(),
    }  # fmt: skip
    bar = {"stopped": ">= 4", "restart_share": "<= 2", "went_on_without": "== 0", **oracle.NO_LOSS}
    how = "the row does what systemd does: SIGABRT to a service that is late with WATCHDOG=1, and a new start"
    missed = f"not begun anew without: {', '.join(went_on)}" if went_on else ""
    return judged(figure, bar, "; ".join(filter(None, (how, missed, found.words()))))


def _until_quiet(systemd: Systemd, drops: list[oracle.Stimulator]) -> None:
    """Let a scan pass every lane, so that all threads are there."""
    systemd.wait_ready()
    for drop in drops:
        drop.put()
    until_s = time.monotonic() + 60.0
    while any(d.waiting() for d in drops):
        systemd.look()
        time.sleep(0.02)
        if time.monotonic() > until_s:
            raise DeliveryError(f"files are not taken: {systemd.service.last_words()}")


def _threads(systemd: Systemd) -> int:
    """Return how many threads each lane has. Raises DeliveryError if they differ."""
    pids = {e["lane"]: e["pid"] for e in systemd.service.named("lane_ready")}
    counts = {lane: len(list(Path(f"/proc/{pid}/task").iterdir())) for lane, pid in pids.items()}
    if len(set(counts.values())) != 1:
        raise DeliveryError(f"lanes of the same kind have different numbers of threads: {counts}")
    return next(iter(counts.values()))


class Stopped(NamedTuple):
    """What was stopped. lane : None for the service; before : processes that there were; debugger : that holds it"""

    what: str
    lane: str | None
    before: int
    at_s: float
    debugger: bed.Child | None


def _stopped(systemd: Systemd, victims: list[Victim]) -> list[Stopped] | None:
    """Stop them; None if that is not allowed here."""
    done = []
    lanes = {e["lane"]: e["pid"] for e in systemd.service.named("lane_ready")}
    for lane, which in victims:
        pid = lanes.get(lane, systemd.service.pid)
        threads = sorted(int(t.name) for t in Path(f"/proc/{pid}/task").iterdir())
        part = OF_A_LANE[which] if isinstance(which, int) and which < len(OF_A_LANE) else which
        name = f"{'lane' if lane else 'service'}: {part}"
        if which == "process":
            os.kill(pid, signal.SIGSTOP)
            done.append(Stopped(name, lane or None, pid, time.monotonic(), None))
            continue
        named = [t for n, t in enumerate(threads) if which in (n, MAIN_THREAD if t == pid else _name_of(pid, t))]
        if not named:
            raise DeliveryError(f"the service has no thread {which!r}: it has {[_name_of(pid, t) for t in threads]}")
        debugger = bed.Child("-m", "triage.torture.stopper", str(named[0]), name="debugger")
        bed.wait_until(lambda d=debugger: d.events, 10.0, "the thread is stopped")  # type: ignore[misc]
        if debugger.named("refused"):
            return None
        done.append(Stopped(name, lane or None, pid, time.monotonic(), debugger))
    return done


def _restarted(
    systemd: Systemd, stopped: list[Stopped], drops: dict[str, oracle.Stimulator]
) -> tuple[dict[str, float], list[str]]:  # fmt: skip
    """Return after how many seconds that which was stopped was begun anew, and what was not missed.

    drops : of each lane, with a scan that was put after the stop
    """
    found: dict[str, float] = {}
    unneeded: list[str] = []
    restarts = systemd.restarts
    until_s = time.monotonic() + 10 * systemd.watchdog_s
    while len(found) + len(unneeded) < len(stopped) and time.monotonic() < until_s:
        systemd.look()
        for one in stopped:
            if one.what in found or one.what in unneeded:
                continue
            since_s = time.monotonic() - one.at_s
            if systemd.restarts > restarts or _begun_anew(systemd, one):
                found[one.what] = since_s
            elif one.lane is not None and since_s > 2 * systemd.watchdog_s and not drops[one.lane].waiting():
                unneeded.append(one.what)
        time.sleep(0.02)
    for one in stopped:
        if one.what not in unneeded:
            found.setdefault(one.what, 10 * systemd.watchdog_s)  # never
        if one.debugger is not None:
            one.debugger.kill()
    return found, unneeded


def _begun_anew(systemd: Systemd, one: Stopped) -> bool:
    """A lane that hung has ended; the service starts the next half a second later, which is counted here already."""
    return one.lane is not None and any(
        e["heard_s"] > one.at_s for e in systemd.service.named("lane_died", lane=one.lane)
    )


def _name_of(pid: int, thread: int) -> str:
    return Path(f"/proc/{pid}/task/{thread}/comm").read_text().strip()
