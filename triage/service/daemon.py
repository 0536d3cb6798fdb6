"""The daemon: keeps the lanes alive, the outbox and the wire; one loop, one thread.

A hub is a daemon without lanes of its own: its scans come from other daemons (`from_lanes`), all else is the same.

State folder:

    lock                        held while a daemon runs here
    outbox.sqlite               what analysts owe an answer, where no server keeps it
    outbox.url                  which server does
    declarations.sqlite         declarations that came in advance, where the configuration has `cargo`
    recordings/LANE/YYYYMMDD/   one file per scan
    quarantine/                 what could not be used, each with its reason beside it
    lanes/LANE.json             passages of the lane that are on no disk yet, and where its portals' counts stood

At start: `.part` files are put aside, recordings without a row are judged (again) and entered, rows without their
recording as it was are held with an alarm (`keeping`), leases are armed again.
"""

from __future__ import annotations

import fcntl
import itertools
import multiprocessing
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq

from scanner_io import __version__, disk, recording, wire
from scanner_io import config as configuration
from scanner_io.errors import DeliveryError, StorageError
from scanner_io.storage import make_folder, quarantine_parts

from . import audit, keeping, link
from . import lane as lane_process
from .clock import ClockWatch
from .dispatch import Dispatch
from .from_lanes import FromLanes
from .gate import Gate
from .later import Later
from .metrics import Metrics, Page
from .outbox import CLOCK_SKEW_NS, Outbox, ScanRow
from .room import Room
from .sparing import Sparing, one_line
from .store import place_of, sign
from .supervision import READ_FACTOR, Pulse, Supervisor

if TYPE_CHECKING:
    from .live_selection import LiveSelection

Log = Callable[..., None]

RESTARTS, RESTART_WINDOW_S, RESTART_PAUSE_S = 5, 60.0, 30.0
"""A lane may be restarted so often within the window; then it rests for the pause, with an alarm."""
MAX_JUDGING_ATTEMPTS = 3
REJUDGE_AT_ONCE = 4
RECONCILE_AT_ONCE = 2000
LANE_DIED = ("lane died", "lane starts")
DOWN_TOLD_S = 5.0
"""A lane that takes nothing in for so long is down, for the reports."""
DAMAGED_AT_ONCE = 20
"""Each is a commit of its own, and analysts must be answered in between."""
DAMAGE_TOLD_S = 5.0
"""Recordings that are looked for in the outbox in one turn of the loop, some 40 ms."""
STORING_S = 300.0
"""A worker may wait so long for a disk: a lane that is ended meanwhile loses what live devices said."""
WARM_UP_S = 600.0
"""Kernels are compiled at the first start on a machine."""
TICK_S = 0.2
DISK_LOOK_S = 0.25
"""Sources that can wait are asked to within a second of the disk being full."""
STOP_WAIT_S = 30.0
MAX_FILES = 65536
LATE_ALARM_S = 1800.0
"""So long it is told that a declaration came after a decision and contradicts it."""
CARGO_EVENTS = ("cargo_refused", "cargo_unreadable", "cargo_odd")
"""What is written into the audit of cargo messages; those that are taken as they should be are in their own store."""


def settle_process() -> None:
    """Set what holds for the whole process of a daemon, and for its lanes: called first of all by `scanlane run`.

    What it writes is not for everybody's eyes; images and results never get into a core file; and there are descriptors
    for as many connections as the system gives.
    """
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < MAX_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES if hard < 0 else min(MAX_FILES, hard), hard))


@contextmanager
def state_folder(path: Path) -> Iterator[Path]:
    """Create and lock the state folder. Raises StorageError if another daemon has it or it cannot be written."""
    try:
        for part in (path, path / "recordings", path / "quarantine"):
            make_folder(part, 0o750)
        file = os.fdopen(disk.io().open(path / "lock", os.O_RDWR | os.O_CREAT), "r+b")
    except OSError as error:
        raise StorageError(
            f"state_dir {path}: cannot be written ({error}); choose another or mend its rights"
        ) from error
    with file:
        deadline_s = time.monotonic() + 5.0  # lanes of a daemon that was just killed need a moment to end
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline_s:
                    raise StorageError(f"state_dir {path}: another scanlane daemon runs here (lock is held)") from error
                time.sleep(0.1)
        yield path


def recordings_in(folder: Path, unread: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the recordings of a lane, day by day: of an archive of years only one day is listed at a time.

    unread : is told of every folder that cannot be listed; the others are gone through nevertheless
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except FileNotFoundError:
        return
    except OSError as error:
        unread(error)
        return
    for entry in entries:
        try:
            inside = entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and entry.is_dir())
        except OSError as error:
            unread(error)
            continue
        if inside:
            yield from recordings_in(Path(entry.path), unread)
        elif entry.name.endswith(recording.SUFFIX):
            yield Path(entry.path)


class LaneHandle:
    """One lane's process as the daemon sees it."""

    def __init__(self, name: str, config: configuration.Config) -> None:
        self.name = name
        self._config = config
        self.process: SpawnProcess | None = None
        self.pipe: Connection | None = None
        self.finished = False
        self.ready = False
        self.heard_s = 0.0
        self.stands = ""
        """Which of its loops does not progress, in words."""
        self.unlinked: tuple[str, ...] = ()
        """Its devices to which there is no link."""
        self.was_ready = self.has_ended = False
        """Ever, since the daemon began."""
        self.killed_s = 0.0
        """When its process was ended because it hung; 0: it was not, or it is gone."""
        self._starts: deque[float] = deque(maxlen=RESTARTS)
        self.not_before_s = 0.0
        self.to_reconcile: Iterator[Path] | None = None
        """Its recordings from before it began that have not been looked at since."""
        self.at_hand: list[Path] = []
        """Of these, what is being looked at: kept where the outbox fails, and looked at again."""
        self.without_row = 0
        self.to_rejudge: deque[Path] = deque()
        self.rejudging: set[str] = set()
        self.untaken: deque[link.Judged] = deque()
        """Rows that the outbox could not commit yet; their lanes wait for the answer."""

    def start(self) -> None:
        """Spawn the process."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=lane_process.main, args=(theirs, self._config, self.name), name=f"lane {self.name}"
        )
        # A Ctrl-C reaches the whole terminal; the young process must not die of it before it can ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.ready = False
        self.stands = ""
        self.heard_s = time.monotonic()
        self._starts.append(time.monotonic())

    def ended(self) -> int | None:
        """Clean up after the process; return its exit code."""
        code = None
        if self.process is not None:
            self.process.join(timeout=5)
            code = self.process.exitcode
            if code is None:
                self.process.kill()
                self.process.join()
            self.process.close()
        if self.pipe is not None:
            self.pipe.close()
        self.process = self.pipe = None
        self.ready = False
        self.has_ended = True
        self.killed_s = 0.0
        self.to_rejudge.clear()
        self.rejudging.clear()
        self.untaken.clear()  # their recordings have no row, so they are found again
        return code

    def plan_restart(self) -> bool:
        """Set when the next start may be; False if that is after the long pause."""
        now_s = time.monotonic()
        often = len(self._starts) == RESTARTS and now_s - self._starts[0] < RESTART_WINDOW_S
        self.not_before_s = now_s + (RESTART_PAUSE_S if often else 0.5)
        if often:
            self._starts.clear()
        return not often

    def hangs(self, watchdog_s: float) -> str:
        """Return in words why the process seems to hang, empty if it does not. watchdog_s : a loop may stand so long"""
        silent_s = time.monotonic() - self.heard_s
        if self.process is None:
            return ""
        if silent_s > (watchdog_s if self.ready else WARM_UP_S):
            return f"not heard for {silent_s:.0f} s"
        return self.stands

    def down(self) -> str:
        """Return in a few words why the lane takes no scans in, empty if it does."""
        if not self.ready:
            return LANE_DIED[0] if self.has_ended else LANE_DIED[1]
        return f"no link to {self.unlinked[0]}" if self.unlinked else ""

    def take_alive(self, alive: link.Alive, watchdog_s: float) -> None:
        """Hear how the loops of the lane are."""
        self.unlinked = alive.down
        late = [f"{n} for {t:.0f} s" for n, t in alive.standing_s.items() if t > READ_FACTOR * watchdog_s]
        if alive.judging_s > watchdog_s:
            late.append(f"the judgement for {alive.judging_s:.0f} s")
        if alive.storing_s > max(STORING_S, watchdog_s):
            late.append(f"storing for {alive.storing_s:.0f} s")
        self.stands = f"no progress of {', '.join(late)}" if late else ""

    def say(self, message: link.Said) -> bool:
        """Tell the lane; False if it is gone."""
        if self.pipe is None:
            return False
        try:
            link.send(self.pipe, message)
        except OSError:
            return False
        return True


class Daemon:
    """All of one configuration."""

    def __init__(self, config: configuration.Config, log: Log, *, once: bool = False) -> None:
        """Make it; `run` does the rest. once : end when every lane's sources have ended and all is stored."""
        self._config = config
        self._state = Path(config.state_dir)
        self._supervisor = Supervisor()
        lanes = config.lane if config.hub is None else config.hub.lane
        self._metrics = Metrics((lane.name for lane in lanes), stands_s=self._supervisor.watchdog_s)
        self._log = log = self._metrics.heard(log)
        self._once = once
        self._stop = False
        self._stop_signals = 0
        self._room = Room(self._state, config.storage)
        self._disk_looked_s = 0.0
        self._scrub = keeping.Scrub(lambda: ())
        self._scrub_told = False
        self._damaged = 0
        self._damage_untold, self._damage_told_s = False, float("-inf")
        self._down_seen: dict[str, tuple[str, float]] = {}
        self._down_told: dict[str, str] = {}
        self._intake = link.Intake(open=True)
        self._lanes = {lane.name: LaneHandle(lane.name, config) for lane in config.lane}
        self.address = ""
        self._gate: Gate | None = None
        self._selection: LiveSelection | None = None
        self._from_lanes: FromLanes | None = None
        self._checkpoints: audit.Checkpoints | None = None
        self._checkpoint_s = time.monotonic()
        self._faults = Sparing(burst=5, every_s=30.0)
        self._late_alarm_s: float | None = None
        self._cargo_told = {event: Sparing(burst=100, every_s=10.0) for event in CARGO_EVENTS}
        self._clock, self._clock_moved_ns = ClockWatch(), 0

    def stop(self, *_: object) -> None:
        """Ask the loop to end; usable as a signal handler."""
        self._stop = True
        self._stop_signals += 1

    def run(self, *, signals: bool = True) -> None:
        """Run until stopped. Raises StorageError, DeliveryError, ConfigError if it cannot begin."""
        if signals:  # first of all: whoever saw it listening may stop it
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self.stop)
        begin = self._selection_rules()
        with state_folder(self._state):
            self._room.look()  # on a full disk the reserve is given up before anything has to be written
            for part in quarantine_parts(self._state / "recordings", self._state / "quarantine"):
                self._log("part_quarantined", level="warning", text=str(part))
            place = place_of(self._config)
            self._outbox = Outbox(place)
            sign(self._state, place)
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            pulse = Pulse(context)
            try:
                self._look_at_clock()
                for one in keeping.undecided(self._outbox):
                    told = keeping.seen_at_once(one)
                    if told and told != one.damage:  # that one is sound again only its hash can show
                        self._take_damage(one, told)
                if self._config.dispatch.keys is not None:
                    self._gate = Gate(context, Path(self._config.dispatch.keys), self._log, self._note)
                self._dispatch = Dispatch(context, self._config.dispatch, self._outbox, self._log, self._gate)
                self.address = self._dispatch.address
                self._log(
                    "listening", address=self.address, state_dir=str(self._state), encrypted=self._gate is not None
                )  # fmt: skip
                if self._config.audit.checkpoints is not None:
                    identity = None if self._gate is None else self._gate.identity
                    self._checkpoints = audit.Checkpoints(Path(self._config.audit.checkpoints), identity)
                if self._room.state != "ok":
                    self._tell_room()
                self._tell_damaged()
                self._begin_scrub()
                if self._config.hub is not None:
                    self._from_lanes = FromLanes(
                        self._config.hub, self._state / "recordings", self._outbox, self._log, self._dispatch.tell,
                        self._taken,
                    )  # fmt: skip
                    self._from_lanes.admit(is_open=self._room.state != "stop")
                page = None
                try:
                    if self._config.metrics.bind is not None:
                        page = Page(self._config.metrics.bind, self._metrics)
                        self._log("metrics_listening", address=page.address)
                    self._loop(pulse, begin)
                finally:
                    if page is not None:
                        page.close()
                    self._supervisor.stopping()
                    if self._from_lanes is not None:
                        self._from_lanes.close()
                    self._note("service_stopped", "", who=self._outbox.hub)
                    self._tell_audit(now=True)
                    self._dispatch.close()
            finally:
                self._end_all()
                if self._gate is not None:
                    self._gate.close()
                pulse.close()
                context.term()
                self._outbox.close()
                self._supervisor.close()

    def _selection_rules(self) -> Callable[[Outbox, Log], LiveSelection | None]:
        """Return what begins to select, which has read its rules. Raises ConfigError."""
        if self._config.selection is None:
            return lambda outbox, log: None
        from .live_selection import KEPT, LiveSelection, rules_of  # scipy is in memory only where there is selection

        rules = rules_of(self._config.selection)
        return lambda outbox, log: LiveSelection(rules, outbox, log, self._state / KEPT)

    # ----------------------------------------------------------------------------------------------------- loop

    def _loop(self, pulse: Pulse, begin: Callable[[Outbox, Log], LiveSelection | None]) -> None:
        self._note("service_started", f"scanlane {__version__}, process {os.getpid()}", who=self._outbox.hub)
        self._selection = begin(self._outbox, self._log)
        for handle in self._lanes.values():
            handle.start()
        stop_sent_s: float | None = None
        while True:
            self._poll()
            self._step_from_lanes()
            self._dispatch.tick()
            if self._outbox.store.distrusted:
                raise StorageError(self._outbox.store.distrusted)
            self._watch_disk()
            self._watch_recordings()
            self._watch_clock()
            self._watch_late()
            self._tell_audit()
            self._watch_lanes(restart=stop_sent_s is None)
            self._tell_supervisor(pulse)
            self._tell_metrics()
            done = all(h.finished or h.process is None for h in self._lanes.values())
            if stop_sent_s is None and (self._stop or (self._once and done)):
                stop_sent_s = time.monotonic()
                for handle in self._lanes.values():
                    handle.say(link.Stop())
            if stop_sent_s is not None:
                late = time.monotonic() - stop_sent_s > STOP_WAIT_S
                if all(h.process is None for h in self._lanes.values()) or late or self._stop_signals > 1:
                    return

    def _poll(self) -> None:
        """Wait for the wire or a lane, at most one tick; serve what is there."""
        poller = zmq.Poller()
        for socket in self._dispatch.sockets:
            poller.register(socket, zmq.POLLIN)
        if self._from_lanes is not None:
            poller.register(self._from_lanes.wake, zmq.POLLIN)
        pipes = {h.pipe.fileno(): h for h in self._lanes.values() if h.pipe is not None}
        for descriptor in pipes:
            poller.register(descriptor, zmq.POLLIN)
        ready = dict(poller.poll(int(TICK_S * 1000)))
        for descriptor, handle in pipes.items():
            if descriptor in ready:
                self._hear(handle)
        if any(socket in ready for socket in self._dispatch.sockets):
            self._dispatch.serve()

    def _step_from_lanes(self) -> None:
        """Take what the lanes of a hub have brought."""
        if self._from_lanes is None:
            return
        try:
            self._from_lanes.step(attended=self._dispatch.attended())
        except StorageError as error:  # it is done at a later turn
            self._fault(error)

    def _taken(self, row: ScanRow) -> None:
        self._metrics.judged(row.lane, row.result)

    def _tell_supervisor(self, pulse: Pulse) -> None:
        """Say that all is well, if it is."""
        if all(h.was_ready or h.has_ended for h in self._lanes.values()):  # one that cannot begin is told by itself
            self._supervisor.ready()
        now_s, longest_s = time.monotonic(), self._supervisor.watchdog_s / 2
        stuck = [h for h in self._lanes.values() if h.killed_s and now_s - h.killed_s > longest_s]
        if pulse.silent_s() <= longest_s and not stuck:
            self._supervisor.feed()

    def _tell_metrics(self) -> None:
        """Let the metrics know how everything is."""
        intake = self._intake.open
        down = {
            name: h.down() or ("" if intake else "disk full") for name, h in self._lanes.items() if not h.finished
        }  # fmt: skip
        if self._from_lanes is not None:
            down = {name: why or ("" if intake else "disk full") for name, why in self._from_lanes.down().items()}
        self._tell_down(down)
        why_not = (f"nothing goes out: {self._dispatch.shut}",) if self._dispatch.shut else ()
        self._metrics.tick(down, intake=intake, free_bytes=self._room.free, why_not=why_not)
        self._metrics.look_at_queue(self._outbox.counts_lately, self._oldest_s)

    def _tell_down(self, down: dict[str, str]) -> None:
        """Write into the audit when a lane whose process runs takes nothing in, and when it does again: for reports.

        What lasts a moment is not told, or a link that flaps would fill it. That a process dies is told elsewhere.
        """
        now_s = time.monotonic()
        for lane, reason in down.items():
            if reason in LANE_DIED:
                self._down_told.pop(lane, None)
                self._down_seen.pop(lane, None)
                continue
            seen, since_s = self._down_seen.get(lane, ("", now_s))
            if seen != reason:
                since_s = now_s
            self._down_seen[lane] = reason, since_s
            if reason == self._down_told.get(lane, "") or now_s - since_s < DOWN_TOLD_S:
                continue
            try:
                self._outbox.note("lane_down" if reason else "lane_up", reason, who=lane)
            except StorageError as error:  # at the next turn
                self._fault(error, lane=lane)
                return
            self._down_told[lane] = reason

    def _oldest_s(self) -> float:
        waiting = self._outbox.waiting(0.0)
        return 0.0 if waiting is None else waiting.waited_s

    def _fault(self, error: StorageError, **where: str) -> None:
        """Tell that the outbox could not do something, of many times only that they are many."""
        if (more := self._faults.ask()) is not None:
            self._log("outbox_fault", level="error", text=f"{error}{more}", **where)

    def _note(self, kind: str, text: str, who: str = "") -> None:
        """Write down what happens at the gate."""
        try:
            self._outbox.note(kind, text, who=who)
        except StorageError as error:  # the log has it
            self._fault(error)

    def _hear(self, handle: LaneHandle) -> None:
        for _ in range(100):
            try:
                if handle.pipe is None or not handle.pipe.poll(0):
                    return
                message = link.receive(handle.pipe)
            except (EOFError, OSError):
                self._lane_ended(handle)
                return
            self._take(handle, message)

    def _take(self, handle: LaneHandle, message: link.AnySaid) -> None:
        handle.heard_s = time.monotonic()
        match message:
            case link.Alive():
                handle.take_alive(message, self._supervisor.watchdog_s)
                up = {name: name not in message.down for name in message.standing_s}
                self._metrics.devices(handle.name, up, message.dropped)
            case link.Ready():
                handle.ready = handle.was_ready = True
                self._log("lane_ready", lane=handle.name, pid=message.pid, warm_up_s=message.warm_up_s)
                self._note("lane_ready", f"process {message.pid} of {self._outbox.hub}", who=handle.name)
                handle.say(self._intake)
                handle.to_reconcile = recordings_in(
                    self._state / "recordings" / handle.name, partial(self._not_listed, handle)
                )
                handle.at_hand, handle.without_row = [], 0
                self._catch_up(handle)
            case link.Judging():
                try:
                    self._outbox.count_judging(message.path)
                except StorageError as error:
                    self._fault(error, lane=handle.name)
            case link.Rejudged():
                handle.rejudging.discard(message.path)
            case link.Judged():
                row = message.row
                try:
                    new = self._outbox.add(row)
                    if self._selection is not None:
                        self._selection.passed(row.scan_id)
                except StorageError as error:
                    self._fault(error, lane=handle.name, scan=row.scan_id)
                    handle.untaken.append(message)
                    return
                if new:
                    self._metrics.judged(row.lane, row.result)
                    self._log(
                        "scan", lane=row.lane, scan=row.scan_id, outcome=row.result.outcome, load=row.result.load,
                        text=row.result.reasons[0] if row.result.reasons else "",
                        ms=row.result.timings_ms.get("total"), simulated=row.simulated,
                    )  # fmt: skip
                handle.say(link.Stored(scan_id=row.scan_id, new=new))
            case link.Note():
                self._log(message.event, level=message.level, lane=handle.name, **message.fields)
                if message.event == "health":
                    self._keep_health(handle, message.fields)
                elif message.event in CARGO_EVENTS:
                    self._keep_cargo(message.event, message.fields)
            case link.Reassessed():
                self._reassess(handle, message)
            case link.Finished():
                handle.finished = True
                self._log("lane_finished", lane=handle.name)
                self._note("lane_finished", "", who=handle.name)
            case _:
                self._log("unexpected", level="error", lane=handle.name, text=type(message).__name__)

    def _keep_health(self, handle: LaneHandle, told: dict[str, Any]) -> None:
        """Write a change of a device's health into the events: what began or ended, when, in words."""
        at = datetime.fromtimestamp(told.get("utc_ns", time.time_ns()) / 1e9, UTC).isoformat(timespec="milliseconds")
        text = f"{told.get('component')} {told.get('state')} at {at}: {told.get('text')}"
        try:
            self._outbox.note("health", text, who=f"{handle.name} {told.get('device', '')}".strip())
        except StorageError as error:  # the log has it
            self._fault(error, lane=handle.name)

    def _keep_cargo(self, event: str, told: dict[str, Any]) -> None:
        """Write into the events who sent cargo messages that were refused, unreadable or odd; of a flood, how many."""
        if (more := self._cargo_told[event].ask()) is None:
            return
        name = " ".join(str(told[key]) for key in ("name", "document") if told.get(key))
        try:
            self._outbox.note(event, one_line(f"{name}: {told.get('text', '')}{more}"), who=one_line(str(told["who"])))
        except StorageError as error:  # the log has it
            self._fault(error)

    def _reassess(self, handle: LaneHandle, message: link.Reassessed) -> None:
        """Commit what a scan is with its late declaration; the lane is told only then."""
        later = Later(result=message.result, declaration=message.declaration, match=message.match)
        try:
            change = self._outbox.assess(message.scan_id, later)
            if self._selection is not None:
                self._selection.passed(message.scan_id)
        except StorageError as error:  # found again at the lane's next start
            self._fault(error, lane=handle.name, scan=message.scan_id)
            return
        except DeliveryError as error:  # its row could not be committed yet; found again at the lane's next start
            self._log("assessed_unknown", level="error", lane=handle.name, scan=message.scan_id, text=str(error))
            return
        if change is not None:
            self._log("assessed_later", level="warning", lane=handle.name, scan=message.scan_id, text=change.words)
            if change.after_decision:
                self._tell_late(change.words)
        handle.say(link.Assessed(scan_id=message.scan_id))

    def _tell_late(self, words: str) -> None:
        """Raise the alarm that a decided scan would be decided otherwise now; nobody else looks at it again."""
        self._late_alarm_s = time.monotonic()
        text = f"a declaration came after the decision, look at the vehicle again: {words}"
        self._dispatch.tell(wire.Alarm(kind="declaration", text=text, utc_ns=time.time_ns()))

    def _watch_late(self) -> None:
        """End that alarm after its time."""
        if self._late_alarm_s is not None and time.monotonic() - self._late_alarm_s > LATE_ALARM_S:
            self._late_alarm_s = None
            text = "the declarations that came after decisions are in the audit (assessed_after_decision)"
            self._dispatch.tell(wire.Alarm(kind="declaration", text=text, utc_ns=time.time_ns(), over=True))

    def _reconcile(self, handle: LaneHandle) -> None:
        """Note recordings of the lane that have no row, some at a time; `_ask_again` has them judged and reported."""
        assert handle.to_reconcile is not None
        some = handle.at_hand = handle.at_hand or list(itertools.islice(handle.to_reconcile, RECONCILE_AT_ONCE))
        without = [path for path in some if not self._has_row(path)]
        handle.at_hand = []
        handle.to_rejudge.extend(without)
        handle.without_row += len(without)
        if len(some) == RECONCILE_AT_ONCE:
            return
        handle.to_reconcile = None
        if handle.without_row:
            text = f"{handle.without_row} recordings have no row in the outbox; they are judged and entered"
            self._log("recordings_without_row", level="warning", lane=handle.name, text=text)

    def _not_listed(self, handle: LaneHandle, error: OSError) -> None:
        """Tell of a folder whose recordings could not be held against the rows."""
        text = (
            f"{error.filename}: cannot be listed ({error.strerror}): recordings in it that have no row are not "
            "entered; mend its rights or the disk, then start again"
        )
        self._log("recordings_not_listed", level="error", lane=handle.name, text=text)
        self._dispatch.tell(wire.Alarm(kind="recordings not listed", text=text, utc_ns=time.time_ns()))
        with suppress(StorageError):  # the log has it
            self._outbox.note("recordings_not_listed", text, who=handle.name)

    def _has_row(self, path: Path) -> bool:
        return self._outbox.path_of(path.name.removesuffix(recording.SUFFIX)) == str(path)

    def _catch_up(self, handle: LaneHandle) -> None:
        try:
            self._ask_again(handle)
        except StorageError as error:  # asked again at the next turn
            self._fault(error, lane=handle.name)

    def _ask_again(self, handle: LaneHandle) -> None:
        """Send a few recordings at a time, so that neither side ever waits for the other's pipe."""
        for _ in range(len(handle.untaken)):
            self._take(handle, handle.untaken.popleft())
        if handle.to_reconcile is not None and handle.ready:
            self._reconcile(handle)
        while handle.to_rejudge and handle.ready and len(handle.rejudging) < REJUDGE_AT_ONCE:
            if self._has_row(handle.to_rejudge[0]):  # the lane has just written and told it
                handle.to_rejudge.popleft()
                continue
            path = str(handle.to_rejudge[0])
            attempts = self._outbox.judging_attempts(path)
            handle.to_rejudge.popleft()
            give_up = attempts >= MAX_JUDGING_ATTEMPTS
            self._log("recording_without_row", level="warning", lane=handle.name, text=path, attempt=attempts + 1)
            handle.rejudging.add(path)
            handle.say(link.Rejudge(path=path, give_up=give_up))

    # ---------------------------------------------------------------------------------------------------- lanes

    def _lane_ended(self, handle: LaneHandle) -> None:
        code = handle.ended()
        if self._stop or handle.finished:
            self._log("lane_stopped", lane=handle.name, exit_code=code)
            return
        soon = handle.plan_restart()
        self._log(
            "lane_died", level="error", lane=handle.name, exit_code=code,
            text="restarting" if soon else f"died {RESTARTS} times in {RESTART_WINDOW_S:.0f} s; resting "
            f"{RESTART_PAUSE_S:.0f} s before the next start",
        )  # fmt: skip
        with suppress(StorageError):  # the log has it
            self._outbox.note("lane_died", f"exit code {code}", who=handle.name)

    def _end_hanging(self, handle: LaneHandle, why: str) -> None:
        """Kill a lane that hangs; that its process has ended is noticed as always."""
        self._log("lane_hangs", level="error", lane=handle.name, text=f"{why}; it is ended and started again")
        if handle.process is not None:
            handle.process.kill()
            handle.heard_s, handle.stands = time.monotonic(), ""
            handle.killed_s = handle.killed_s or handle.heard_s

    def _watch_lanes(self, *, restart: bool) -> None:
        for handle in self._lanes.values():
            if why := handle.hangs(self._supervisor.watchdog_s):
                self._end_hanging(handle, why)
            if handle.process is not None and not handle.process.is_alive():
                self._hear(handle)  # its last words
                if handle.process is not None:
                    self._lane_ended(handle)
            due = handle.process is None and not handle.finished and time.monotonic() >= handle.not_before_s
            if due and restart and not self._stop:
                handle.start()
            self._catch_up(handle)

    def _watch_disk(self) -> None:
        """Look how much room there is; tell the lanes and everybody else what has changed."""
        if time.monotonic() - self._disk_looked_s < DISK_LOOK_S:
            return
        self._disk_looked_s = time.monotonic()
        if self._room.look():
            self._tell_room()
        intake = link.Intake(open=self._room.state != "stop", record=self._room.whole)
        if intake != self._intake:
            self._intake = intake
            for handle in self._lanes.values():
                handle.say(intake)
            if self._from_lanes is not None:
                self._from_lanes.admit(is_open=intake.open)

    # ------------------------------------------------------------------------------------------------ recordings

    def _begin_scrub(self) -> None:
        place = place_of(self._config)
        self._scrub = keeping.Scrub(lambda: keeping.everything(place))
        self._scrub.start()

    def _watch_recordings(self) -> None:
        """Take what reading the recordings in the background has shown; begin again after a day."""
        scrub = self._scrub
        for _ in range(min(DAMAGED_AT_ONCE, scrub.found.qsize())):
            self._damage_untold |= self._take_damage(*scrub.found.get())
        if self._damage_untold and (scrub.found.empty() or time.monotonic() - self._damage_told_s > DAMAGE_TOLD_S):
            try:
                self._tell_damaged()
            except StorageError as error:  # at the next turn
                self._fault(error)
        if scrub.over_s and not scrub.is_alive():
            if not self._scrub_told and (scrub.read or scrub.problem):
                text = f"{scrub.read} recordings were read, {self._damaged} are not sound"
                if scrub.problem:
                    self._log("recordings_not_read", level="warning", text=f"{text}; the rest not: {scrub.problem}")
                else:
                    self._log("recordings_read", text=text)
                self._scrub_told = True
            if time.monotonic() - scrub.over_s >= keeping.SCRUB_AGAIN_S:
                self._scrub_told = False
                self._begin_scrub()

    def _take_damage(self, one: keeping.Kept, told: str) -> bool:
        try:
            new = keeping.tell_damage(self._outbox, one, told)
        except StorageError as error:  # it is found again with the next reading
            self._fault(error)
            return False
        if new:
            event, level = ("recording_damaged", "error") if told else ("recording_sound", "info")
            self._log(event, level=level, scan=one.scan_id, text=told)
        return new

    def _tell_damaged(self) -> None:
        """Raise or end the alarm of recordings that are gone or not as they were."""
        bad = keeping.damaged(self._outbox)
        self._damage_untold, self._damage_told_s = False, time.monotonic()
        if not bad and not self._damaged:
            return
        self._damaged = len(bad)
        text = (
            f"the recordings of {len(bad)} scans are gone or not as they were recorded, the first of {bad[0]}; what is "
            "undecided of them is held: bring them back from a copy, or have the vehicles scanned again"
            if bad else "every recording is as it was recorded"
        )  # fmt: skip
        self._dispatch.tell(wire.Alarm(kind="recordings", text=text, utc_ns=time.time_ns(), over=not bad))

    def _tell_room(self) -> None:
        state, words = self._room.state, self._room.words()
        over = state == "ok"
        event = {"ok": "disk_ok", "warn": "disk_low", "stop": "intake_stopped"}[state]
        if self._room.left_stop:
            event = "intake_open"
        self._log(event, level={"ok": "info", "warn": "warning", "stop": "error"}[state], text=words)
        self._dispatch.tell(wire.Alarm(kind="disk", text=words, utc_ns=time.time_ns(), over=over))

    def _watch_clock(self) -> None:
        """Write down that the clock was set, as soon as that can be."""
        self._clock_moved_ns += self._clock.step_ns()
        if self._clock_moved_ns:
            ahead = "forward" if self._clock_moved_ns > 0 else "back"
            self._clock_stepped(f"the clock was set {ahead} by {abs(self._clock_moved_ns) / 1e9:.1f} s")

    def _clock_stepped(self, text: str) -> None:
        try:
            self._outbox.clock_moved(self._clock_moved_ns, text)
        except StorageError as error:  # tried again at the next turn
            self._fault(error)
            return
        self._clock_moved_ns = 0
        self._log("clock_stepped", level="warning", text=text)

    def _look_at_clock(self) -> None:
        """At start: a clock that is before the last event was set back since."""
        behind_ns = self._outbox.last_event_utc_ns() - time.time_ns()
        if behind_ns > CLOCK_SKEW_NS:
            self._clock_moved_ns = -behind_ns
            self._clock_stepped(f"the clock is {behind_ns / 1e9:.1f} s before the last event of the audit")

    def _tell_audit(self, *, now: bool = False) -> None:
        """Write to the second place how far the audit has come, when that is due."""
        if self._checkpoints is None:
            return
        try:
            seq, head = self._outbox.audit_head()
        except StorageError as error:
            self._fault(error)
            return
        since_s = audit.EVERY_S if now else time.monotonic() - self._checkpoint_s
        if not self._checkpoints.due(seq, since_s):
            return
        self._checkpoint_s = time.monotonic()
        try:
            self._checkpoints.add(seq, head, time.time_ns())
        except StorageError as error:
            self._log("audit_fault", level="error", text=str(error))

    def _end_all(self) -> None:
        for handle in self._lanes.values():
            if handle.process is not None:
                if handle.process.is_alive():
                    handle.process.kill()
                handle.ended()

    def summary(self) -> dict[str, Any]:
        """Return the counts of the outbox; usable after `run` too."""
        outbox = Outbox(place_of(self._config))
        try:
            return dict(outbox.counts())
        finally:
            outbox.close()
