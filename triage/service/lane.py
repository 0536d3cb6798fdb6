"""One lane, one process: device threads read, the main loop joins, one worker records and judges.

    device thread per device    open, read, reconnect (exponential, capped, jittered), bounded queue
    main loop                   events -> `Assembly` -> scans; the pipe to the daemon; time
    worker thread               recording durable -> judged -> recording with its result -> daemon -> acknowledge

The order is the promise: bytes received -> durable recording -> outbox row committed -> acknowledged to the driver.
Nothing is judged that is not on the disk. If the daemon goes, the lane goes: the pipe ends.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import os
import queue
import random
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy.typing as npt

from scanner_io import config as configuration
from scanner_io import driver as drivers
from scanner_io import energy_calibration, recording
from scanner_io import lane_profile as lane_profiles
from scanner_io.capture import Capture
from scanner_io.errors import ConfigError, DataError, LinkLost, ScannerError, StorageError
from scanner_io.model import (
    NANOSECONDS,
    CargoReceived,
    DetectorState,
    DeviceInfo,
    EndOfSource,
    Event,
    Health,
    Kind,
    LineBlock,
    Occupancy,
    PortalCount,
    PortalRecord,
    Quality,
    Radiograph,
    Scan,
    ScanEnd,
    ScanStart,
    TriageResult,
)
from scanner_io.storage import make_folder, move_aside, settle

from . import footprint, link
from .assembly import Assembled, Assembly, LaneSpec
from .declarations import DAY_NS
from .declarations import FILE as DECLARATIONS
from .outbox import ScanRow
from .papers import MISSING, Papers
from .portal_memory import Begun, PortalMemory
from .strip_workers import StripWorkers
from .told_apart import ToldApart

if TYPE_CHECKING:
    from triage.analysis.image import Stream
    from triage.analysis.portal_health import PortalHealth
    from triage.analysis.screening import Buffers

    from .promise import Promise

QUEUE_EVENTS = 256
FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 3.0
"""A device that is back is heard again within 5 s, connecting included: a vehicle that passes meanwhile is unseen."""
READ_S = 0.2
MOST_TOLD = 5
"""Problems of a cargo message that are told in the log; all of them are kept with it."""
ROOM_S = 0.005
STORE_RETRY_S = 1.0
QUIET_WAIT_S = 5.0
ALIVE_S = 1.0
READ_AHEAD_BYTES = 4 << 20
"""Counts that may wait for the worker before a source that can wait is asked for its next scan: small scans, so that
what is read ahead does not add to the memory that a large one takes."""
GIVE_UP_S = 20.0
"""How long a lane that must end waits for a disk that refuses; the daemon kills it after 30 s."""
TRIAGE_THREADS = 2
CLOCKS_DIFFER_NS = 60 * NANOSECONDS
"""A passage keeps its clock while the computer's is set."""
LATE_S = 2.0
"""How often scans without a declaration are held against what has come since."""
LARGE_BYTES = 8 << 20
"""Counts from which on the code is handed back that a judgement does not need; of small images that is a tenth of the
processor for nothing."""
LIVE_SCREENINGS = 1
"""Radiographs screened while they come; each takes one and a half times the memory of its counts. One that begins while
another is still on its way or under judgement is screened as a whole later, with the same result."""


def spec_of(lane: configuration.Lane, expected: tuple[Kind, ...]) -> LaneSpec:
    """Return what assembly needs of a configured lane."""
    return LaneSpec(
        name=lane.name, expected=lane.expected or expected, join_window_s=lane.join_window_s,
        join_wait_s=lane.join_wait_s, passage_timeout_s=lane.passage_timeout_s,
    )  # fmt: skip


def kinds_of(device: configuration.Device) -> tuple[Kind, ...]:
    """Return what kinds of data a device gives, without touching it: its module's `kinds(config)`."""
    kinds: tuple[Kind, ...] = drivers.load(device.driver).kinds(device.config)
    return kinds


def expected_kinds(lane: configuration.Lane) -> tuple[Kind, ...]:
    """Return the kinds that a complete passage of `lane` has, in a fixed order."""
    order: tuple[Kind, ...] = ("radiograph", "portal", "declaration")
    have = {kind for device in lane.device for kind in kinds_of(device)}
    return tuple(kind for kind in order if kind in have)


class DeviceThread(threading.Thread):
    """Reads one device for ever, or to its end; keeps it open; never lets it stop the lane."""

    def __init__(
        self, number: int, device: configuration.Device, out: queue.Queue[tuple[int, Any]],
        note: Callable[..., None], intake: threading.Event, room: Callable[[], bool],
        count: Callable[[], PortalCount | None] = lambda: None,
    ) -> None:  # fmt: skip
        """Begin nothing yet. count : where the device's own count of passages last stood"""
        super().__init__(name=f"device {number} {device.driver}", daemon=True)
        self.number = number
        self.acks: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.stopping = threading.Event()
        """Read no more; go on acknowledging."""
        self.quiet = threading.Event()
        """Set once nothing more will come, what an orderly end gives included."""
        self.closing = threading.Event()
        self.pausable = False
        self.is_open = False
        """There is a link to the device."""
        self.pending = True
        """It may yet say something that a lane which is to end must wait for; see `drivers.Accompanying`."""
        self.dropped = 0
        """Blocks of lines that came when there was no room for them."""
        self._device = device
        self._out = out
        self._note = note
        self._intake = intake
        self._room = room
        self._count = count
        self._lost_columns: dict[str, int] = {}
        """Columns of the open scans that were dropped here."""
        self._reported = ""
        self._retry_s = FIRST_RETRY_S
        self._turned_s = time.monotonic()

    @property
    def standing_s(self) -> float:
        """How long ago its loop last turned; 0 of a device that is read no more."""
        return 0.0 if self.quiet.is_set() else time.monotonic() - self._turned_s

    def run(self) -> None:
        """Open and read until told to stop.

        The driver is made once: what it knows of its device (a portal's faults, set-up and background) outlives the
        link. Only one that failed in an unforeseen way is made anew.
        """
        source: drivers.Driver | None = None
        capture = self._begin_capture()
        while not self.stopping.is_set():
            self._turned_s = time.monotonic()
            try:
                if source is None:
                    tap = None if capture is None else capture.add
                    source = drivers.connect(self._device.driver, self._device.config, tap)
                    self.pausable = source.pausable
                    count = self._count()
                    if count is not None and isinstance(source, drivers.Counting):
                        source.resume(count)
                self._tell(source.open())
                self.is_open = True
                self._read(source)
            except (ScannerError, OSError) as error:
                self._lost("device_lost", "warning", str(error))
                self._close(source)
            except Exception as error:  # a driver's defect must not take the other devices down
                self._lost("driver_failed", "error", f"{type(error).__name__}: {error}")
                self._close(source)
                source = None
            self.is_open = False
            if not self.stopping.is_set():
                self._tell(LinkLost(self._reported))
            self.stopping.wait(self._retry_s * random.uniform(0.8, 1.2))  # noqa: S311 -- jitter
            self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S)
        self.quiet.set()
        while source is not None and not self.closing.wait(READ_S / 4):
            self._acknowledge(source)
        if source is not None:
            self._acknowledge(source)
            self._close(source)
        if capture is not None:
            capture.close()
            if capture.problem:
                self._note("capture_ended", level="warning", device=self._device.driver, text=capture.problem)

    def _begin_capture(self) -> Capture | None:
        """Begin to keep what the device sends, where that is asked for; if it cannot be begun, the lane goes on."""
        if not self._device.capture:
            return None
        folder = Path(self._device.capture)
        try:
            make_folder(folder)
            name = f"device-{self.number}-{self._device.driver}-{time.time_ns()}.capture"
            return Capture(folder / name, self._device.driver, self._device.config)
        except (StorageError, OSError) as error:
            self._note("capture_failed", level="warning", device=self._device.driver, text=str(error))
            return None

    def _lost(self, event: str, level: str, text: str) -> None:
        if text != self._reported:  # one line per change, not one per attempt
            self._reported = text
            self._note(event, level=level, device=self._device.driver, text=text)

    def _close(self, source: drivers.Driver | None) -> None:
        try:
            if source is not None:
                source.close()
        except Exception as error:
            self._lost("driver_failed", "error", f"close: {type(error).__name__}: {error}")

    def _acknowledge(self, source: drivers.Driver) -> None:
        try:
            while True:
                source.acknowledge(self.acks.get_nowait())
        except queue.Empty:
            return
        except Exception as error:
            self._lost("driver_failed", "error", f"acknowledge: {type(error).__name__}: {error}")

    def _read(self, source: drivers.Driver) -> None:
        """Pass events on until told to stop; then what an orderly end gives."""
        ended, between = False, True
        while not self.stopping.is_set():
            self._turned_s = time.monotonic()
            self._acknowledge(source)
            if source.pausable and not self._intake.is_set():
                self._intake.wait(READ_S)  # the disk is full: the source keeps what it has
                continue
            if source.pausable and between and not self._room():
                self.stopping.wait(ROOM_S)  # the source keeps what would only wait in memory here
                continue
            if ended:
                # The source stays open until the lane ends, so that late acknowledgements still reach it.
                self.stopping.wait(READ_S)
                continue
            event = None  # the last block holds on to the whole scan it is a part of
            event = source.read(READ_S)
            if self._reported and event is not None and not isinstance(event, Health):
                self._note("device_back", device=self._device.driver)
                self._reported = ""
            if event is not None:
                self._retry_s = FIRST_RETRY_S  # not before it spoke: a port that accepts and closes is no device
                ended = isinstance(event, EndOfSource)
                between = not isinstance(event, ScanStart | LineBlock)
                self._pass_on(source, event)
            self.pending = not ended and (not isinstance(source, drivers.Accompanying) or source.pending)
        if isinstance(source, drivers.LinkDriver):
            for event in source.end():
                self._tell(event)

    def _tell(self, said: Event | DeviceInfo | LinkLost) -> None:
        """Say to the lane what must not be lost, however long it takes to hear it."""
        while not self.closing.is_set():
            self._turned_s = time.monotonic()  # it is the lane that is waited for
            with contextlib.suppress(queue.Full):
                self._out.put((self.number, said), timeout=READ_S)
                return

    def _pass_on(self, source: drivers.Driver, event: Event) -> None:
        if isinstance(event, LineBlock) and not source.pausable:
            try:
                self._out.put_nowait((self.number, event))
            except queue.Full:
                # A live device cannot wait. The gap in `first_column` tells assembly what is missing; where nothing
                # comes after it, the scan's end does.
                self.dropped += 1
                columns = event.counts[0].shape[0] if event.counts else 0
                self._lost_columns[event.source_ref] = self._lost_columns.get(event.source_ref, 0) + columns
                if self.dropped & (self.dropped - 1) == 0:
                    self._note(
                        "lines_dropped", level="error", device=self._device.driver,
                        text=f"{self.dropped} blocks dropped so far: the lane is slower than the scanner",
                    )  # fmt: skip
            return
        if isinstance(event, ScanEnd) and (lost := self._lost_columns.pop(event.source_ref, 0)):
            event = msgspec.structs.replace(event, dropped_columns=event.dropped_columns + lost)
        # What a live device said is lost if it is not passed on; a file or recording is offered again.
        while not (self.stopping if source.pausable else self.closing).is_set():
            self._turned_s = time.monotonic()
            try:
                self._out.put((self.number, event), timeout=READ_S)
            except queue.Full:
                continue
            return


class LiveScreening:
    """Screens a radiograph while its columns come. failure : why it could not; the whole image is screened then."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.failure = ""

    def push(self, counts: tuple[npt.NDArray[Any], ...]) -> None:
        """Take the next columns. An error is kept in `failure` and must not cost the scan."""
        if not self.failure:
            try:
                self.stream.push(counts)
            except Exception as error:
                self.failure = f"{type(error).__name__}: {error}"


class _Place:
    """Memory for one live screening, and whose it is: free again as soon as its owner is forgotten."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        self.owner: Callable[[], LiveScreening | None] = lambda: None


class Judge:
    """Judges scans in this process: kernels warm, strips on threads, buffers used again."""

    def __init__(self, profile: Any = None, threads: int = TRIAGE_THREADS) -> None:
        from triage.analysis import image, pipeline, screening

        self._pipeline = pipeline
        self._stream = image.Stream
        self._live = [_Place(screening.Buffers()) for _ in range(LIVE_SCREENINGS)]
        self._workers = StripWorkers(threads)
        self.progressed: Callable[[], None] = lambda: None
        """Called whenever a piece of a judgement is done."""
        self.profile = profile or pipeline.Profile()
        self._buffers = screening.Buffers()

    def warm_up(self) -> None:
        """Compile or load every kernel, and what the first scan would have to read."""
        from triage.analysis import conformal, dual_energy, fuser, screening, standing

        screening.warm_up()
        fuser.fuser_named(self.profile.image.fuser)
        self.profile.identity  # noqa: B018  (hashes the fuser, once)
        if self.profile.image.energy is not None:  # a second of fitting must not fall into the first scan
            dual_energy.inversion_of(self.profile.image.energy).material_table  # noqa: B018
        if self.profile.lane is not None:
            conformal.calibration_of(self.profile.lane)
            standing.fuser_of(self.profile.lane)

    def listen(self, detector: DetectorState) -> LiveScreening | None:
        """Return what screens a radiograph while its columns come; None while the memory for it is in use."""
        for place in self._live:
            if place.owner() is None:
                live = LiveScreening(self._stream(detector, self.profile.image, place.buffers))
                place.owner = weakref.ref(live)
                return live
        return None

    def __call__(
        self, scan: Scan, live: LiveScreening | None = None, previous: Radiograph | None = None
    ) -> TriageResult:
        """Judge; an exception of the judgement becomes an UNUSABLE result that says so.

        live : has heard this scan's columns
        previous : an earlier radiograph of the same container
        """
        try:
            return self._pipeline.run(
                scan, self.profile, map_strips=self._map, buffers=self._buffers,
                stream=None if live is None or live.failure else live.stream, previous=previous,
            )  # fmt: skip
        except Exception as error:
            return self.failed(scan, f"{type(error).__name__}: {error}")

    def _map(self, run: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
        """Run pieces side by side, and tell of each that is done."""
        return self._told(self._workers.map(run, *arguments))

    def _told(self, results: Iterator[Any]) -> Iterator[Any]:
        for result in results:
            self.progressed()
            yield result

    def standing_s(self) -> float:
        """Return for how long the threads of the strips have not answered; ask every second or so."""
        return self._workers.standing_s()

    def failed(self, scan: Scan, reason: str) -> TriageResult:
        """Return the result of a scan that cannot be judged."""
        return self._pipeline.unjudged(scan, self.profile, "judgement_failed", reason)

    def close(self) -> None:
        """End the threads."""
        self._workers.close()


def lane_profile(
    energy: str | None, usual: str | None = None, lane: str | None = None, risk: str | None = None
) -> Any:  # fmt: skip
    """Return the profile of a lane.

    energy : file of its energy calibration; usual : file of `scanlane calibrate`; lane : its name, None for files by
        hand, which may be of any; risk : risk profile, which two people must have signed where it is a lane's

    Raises ConfigError, also where what is usual was learned on another lane, by other code or with other thresholds.
    """
    from triage.analysis import image, pipeline

    profile = pipeline.Profile()
    if risk is not None:
        from . import risk_store

        rules = risk_store.load(Path(risk))
        missing = risk_store.in_force(risk_store.signatures(Path(risk).parent, rules.sha256))
        if missing and lane is not None:
            raise ConfigError([f"{risk}: not in force: {'; '.join(missing)}; see `scanlane risk sign`"])
        profile = pipeline.Profile(risk=rules)
    if energy is not None:
        measured = image.ImageProfile(energy=energy_calibration.load(Path(energy)))
        profile = msgspec.structs.replace(profile, image=measured)
    if usual is None:
        return profile
    learned = lane_profiles.read(Path(usual))
    if why := learned.foreign(lane=lane, thresholds=profile.thresholds):
        raise ConfigError([f"{usual}: {why}"])
    try:
        return profile.on_lane(learned)
    except DataError as error:
        raise ConfigError([f"{usual}: {error}"]) from error


def recording_path(folder: Path, scan: Scan) -> Path:
    """Return where the recording of `scan` belongs: FOLDER/LANE/YYYYMMDD/SCAN_ID.scan.h5."""
    day = scan.scan_id.removeprefix(scan.lane + "-")[:8]
    return folder / scan.lane / day / f"{scan.scan_id}{recording.SUFFIX}"


class Delivery(msgspec.Struct, frozen=True):
    """Cargo messages that device `number` brought, to be stored."""

    number: int
    received: CargoReceived


class Late(msgspec.Struct, frozen=True):
    """Ask to look whether declarations have come for scans that have none. settled : scans that need no look more"""

    settled: tuple[str, ...] = ()


Work = Assembled | link.Rejudge | Delivery | Late
"""What a worker can be given."""


class Worker(threading.Thread):
    """Records and judges one scan after the other; whatever is asked of the store of declarations it does too."""

    def __init__(self, lane: LaneProcess) -> None:
        super().__init__(name="record and judge", daemon=True)
        self.inbox: queue.Queue[Work | None] = queue.Queue(maxsize=8)
        self._lane = lane
        self._told_apart = ToldApart()
        self._progressed_s = time.monotonic()
        self._storing = False
        self._judging: Path | None = None
        """The recording last told as being judged."""
        self._told_late: set[str] = set()
        self._unkept: deque[Delivery] = deque()
        self._waiting: deque[int] = deque()
        """Bytes of counts of every work that was put and is not done."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes of counts that wait to be recorded and judged, the present scan's included."""
        return sum(tuple(self._waiting))

    @property
    def idle(self) -> bool:
        """True while nothing waits and nothing is being done."""
        return not self._waiting

    def put(self, work: Work) -> bool:
        """Take work within a moment; False if there is no room for it."""
        image = work.scan.radiograph if isinstance(work, Assembled) else None
        if not self._waiting:
            self.progressed()  # there was nothing to be done
        self._waiting.append(0 if image is None else sum(c.nbytes for c in image.counts))
        try:
            self.inbox.put(work, timeout=0.05)
        except queue.Full:
            self._waiting.pop()
            return False
        return True

    def progressed(self) -> None:
        """Hear that a piece of the present work is done."""
        self._progressed_s = time.monotonic()

    def standing_s(self) -> tuple[float, float]:
        """Return how long ago judging, and storing, last progressed; 0 of what it is not at."""
        standing_s = time.monotonic() - self._progressed_s if self._waiting else 0.0
        return (0.0, standing_s) if self._storing else (standing_s, 0.0)

    def run(self) -> None:
        """Work until None comes."""
        while (work := self.inbox.get()) is not None:
            match work:
                case link.Rejudge():
                    self._guarded(work.path, partial(self._rejudge, work))
                    self._lane.say(link.Rejudged(path=work.path))
                case Delivery():
                    if self._unkept or not self._deliver(work):
                        self._unkept.append(work)
                case Late():
                    self._look_again(work)
                case Assembled():
                    self._guarded(work.scan.scan_id, partial(self._record, work))
            self.progressed()
            work = None  # with it goes the memory of its screening
            self._waiting.popleft()
            self.inbox.task_done()
        self.inbox.task_done()
        if self._lane.papers is not None:
            self._lane.papers.close()

    def _guarded(self, what: str, work: Callable[[bool], object]) -> None:
        """Run `work`; while the disk refuses, keep the scan in memory and try again, with True from then on."""
        told = False
        while True:
            self.progressed()
            try:
                work(told)
            except (StorageError, OSError) as error:
                if not told:
                    self._lane.refused(True)
                    self._lane.note("storage_fault", level="error", text=str(error), scan=what)
                told = True
                if self._lane.given_up.wait(STORE_RETRY_S):
                    self._lane.note("not_stored", level="error", scan=what, text="stopped while the disk refuses")
                    return
                continue
            except Exception as error:  # the source is not acknowledged: what can be asked again, is
                self._lane.refused(False)
                self._lane.note("record_failed", level="error", scan=what, text=f"{type(error).__name__}: {error}")
                return
            if told:
                self._lane.refused(False)
                self._lane.note("storage_back", scan=what)
            return

    def _record(self, work: Assembled, again: bool) -> None:
        """Record and judge a scan. again : this process has tried before, and the disk refused"""
        lane = self._lane
        scan = self._with_papers(work.scan)
        path = recording_path(lane.recordings, scan)
        if lane.is_live(work.refs):
            scan = self._told_apart.flagged(scan, path)
            path = recording_path(lane.recordings, scan)
        if not again:  # before the disk may refuse: what is stored at last is acknowledged
            lane.refs[scan.scan_id] = lane.refs.get(scan.scan_id, ()) + work.refs
        make_folder(path.parent)
        # offered again after a crash it is stored already; a damaged one was moved aside, and this is the whole one
        if path.exists() and self._rejudge(link.Rejudge(path=str(path)), again):
            return
        self._write(path, scan, hashed=False)
        live = work.listener if isinstance(work.listener, LiveScreening) else None
        if live is not None and live.failure:
            lane.note("stream_failed", level="error", scan=scan.scan_id, text=live.failure)
        self._judge(path, scan, live=live)

    def _judge(self, path: Path, scan: Scan, failure: str = "", live: LiveScreening | None = None) -> None:
        lane = self._lane
        self._room_for(path)  # not judged for nothing, again and again
        if path != self._judging:  # by this, attempts are counted; that the disk refuses the result is none
            lane.say(link.Judging(path=str(path)))
            self._judging = path
        if scan.radiograph is not None and sum(c.nbytes for c in scan.radiograph.counts) >= LARGE_BYTES:
            lane.hand_back()  # code of reading and writing is not needed while the search of the image takes its memory
        scan = lane.as_promised(scan)
        result = lane.judge.failed(scan, failure) if failure else lane.judge(scan, live)
        lane.watch_promise(result)
        if (after := lane.as_promised(scan)) is not scan:  # with this very scan the profile has gone stale
            scan, result = after, lane.judge(after)
        # The counts do not change: the file is exchanged for one that also holds the result.
        try:
            sha256 = self._write(path, scan, result=result, replace=True, counts_from=path)
        except DataError as error:
            lane.note("counts_written_anew", level="error", scan=scan.scan_id, text=str(error))
            sha256 = self._write(path, scan, result=result, replace=True)
        self._report(path, scan, result, sha256)

    def _write(self, path: Path, scan: Scan, **how: Any) -> str:
        lane = self._lane
        self._room_for(path)
        self.progressed()
        self._storing = True
        try:
            return recording.write(path, scan, config=lane.config_in_force, codec=lane.codec, packer=lane.packer, **how)
        finally:
            self.progressed()
            self._storing = False

    def _room_for(self, path: Path) -> None:
        if not self._lane.may_record:
            raise StorageError(f"{path}: not written: what is left of the disk is kept for decisions; make room")

    def _rejudge(self, work: link.Rejudge, again: bool) -> bool:
        """Judge a recording that is stored; False where it is damaged, and lies in quarantine now."""
        path = Path(work.path)
        try:
            stored = recording.read(path)
        except DataError as error:
            if _passing(error.__cause__):
                raise StorageError(f"{path}: cannot be read now ({error}); free memory or open files") from error
            kept = move_aside(path, self._lane.quarantine, str(error))
            self._lane.note("recording_damaged", level="error", text=f"{error}; moved to {kept}")
            return False
        if stored.result is None:
            why = "judging this recording ended the process several times" if work.give_up else ""
            self._judge(path, stored.scan, why)
        elif again:  # the sync of its folder may have failed, and would not fail a second time
            sha256 = self._write(path, stored.scan, result=stored.result, replace=True)
            self._report(path, stored.scan, stored.result, sha256)
        else:
            settle(path)
            self._report(path, stored.scan, stored.result, _file_sha256(path))
        return True

    # -- declarations that came in advance ------------------------------------------------------------------------

    def _deliver(self, work: Delivery) -> bool:
        """Store cargo messages; where that fails, their source waits and scans go on: they are tried again later."""
        try:
            self._keep(work)
        except (StorageError, OSError) as error:
            if work.number not in self._lane.unkept:
                self._lane.note("declarations_fault", level="error", name=work.received.name, text=str(error))
            self._lane.unkept.add(work.number)
            return False
        except Exception as error:  # it is not acknowledged, so that its source still has it at the next start
            text = f"{type(error).__name__}: {error}"
            self._lane.note("cargo_failed", level="error", name=work.received.name, text=text)
        return True

    def _deliver_again(self) -> None:
        while self._unkept:
            if not self._deliver(self._unkept[0]):
                return
            self._unkept.popleft()
        if self._lane.unkept:
            self._lane.unkept.clear()
            self._lane.note("declarations_back")

    def _keep(self, work: Delivery) -> None:
        """Store cargo messages, then acknowledge them; what is wrong is told, and nothing of it is stored."""
        lane, received = self._lane, work.received
        assert lane.papers is not None
        if received.problem:
            event = "cargo_refused" if received.refused else "cargo_unreadable"
            lane.note(event, level="warning", text=received.problem, who=received.sender, name=received.name)
        else:
            for message, kept in zip(received.messages, lane.papers.take(received), strict=True):
                odd = tuple(dict.fromkeys((*kept.problems, *message.problems)))
                lane.note(
                    "cargo_odd" if odd else "cargo_taken", level="warning" if odd else "info",
                    who=received.sender or message.sender, name=received.name, document=message.document,
                    fate=kept.fate, version=kept.version, text="; ".join(odd[:MOST_TOLD]),
                )  # fmt: skip
        lane.acknowledge(work.number, received.source_ref)

    def _with_papers(self, scan: Scan) -> Scan:
        """Return the scan with its declaration; that the store cannot be used must not cost the scan, and is told."""
        papers = self._lane.papers
        if papers is None:
            return scan
        try:
            return papers.joined(scan)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._lane.note("declarations_fault", level="error", scan=scan.scan_id, text=text)
            flag = Quality(code=MISSING, reason=f"no declaration: those that came cannot be looked through ({error})")
            return msgspec.structs.replace(scan, quality=(*(q for q in scan.quality if q.code != MISSING), flag))

    def _note_waiting(self, scan: Scan, path: Path) -> None:
        try:
            if self._lane.papers is not None:
                self._lane.papers.note_waiting(scan, path)
        except StorageError as error:  # it is judged and reported all the same
            self._lane.note("declarations_fault", level="error", scan=scan.scan_id, text=str(error))

    def _look_again(self, work: Late) -> None:
        """Judge scans again whose declaration has come since; told once, until the daemon has it or this ends."""
        lane = self._lane
        assert lane.papers is not None
        self._deliver_again()
        try:
            for scan_id in work.settled:
                lane.papers.store.waits_no_more(scan_id)
                self._told_late.discard(scan_id)
            for one, scan in lane.papers.found_late(lane.name, self._told_late, self.progressed):
                self._told_late.add(one.scan_id)
                assert scan.declaration is not None and scan.declaration_match is not None
                result = lane.judge(lane.as_promised(scan))
                lane.say(
                    link.Reassessed(
                        scan_id=one.scan_id, result=result, declaration=scan.declaration, match=scan.declaration_match
                    )
                )
                self.progressed()
        except Exception as error:  # looked at again with the next message; scans must go on being judged
            lane.note("declarations_fault", level="error", text=f"{type(error).__name__}: {error}")

    def _report(self, path: Path, scan: Scan, result: TriageResult, sha256: str) -> None:
        self._note_waiting(scan, path)
        row = ScanRow(
            scan_id=scan.scan_id, lane=scan.lane, path=str(path), sha256=sha256, size=path.stat().st_size,
            start_utc_ns=scan.start_utc_ns, simulated=scan.simulated, result=result, declaration=scan.declaration,
        )  # fmt: skip
        self._lane.unanswered.add(scan.scan_id)
        self._lane.say(link.Judged(row=row))


def _passing(cause: BaseException | None) -> bool:
    """Return whether a recording could not be read for want of what comes back, and not for itself."""
    wanting = isinstance(cause, OSError) and cause.errno in (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
    return wanting or isinstance(cause, MemoryError)


def _file_sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LaneProcess:
    """The lane's main loop."""

    def __init__(self, pipe: Connection, config: configuration.Config, lane: configuration.Lane) -> None:
        self._pipe = pipe
        self._say_lock = threading.Lock()
        # Here, because the daemon imports this module as well and has no use for kernels; step by step, so that what
        # the one has touched of the compiler is not there any more when the other touches the rest.
        import numba  # noqa: F401

        self.hand_back()
        from .packing import packer

        self.hand_back()
        for module in ("screening", "portal", "maps", "image"):
            importlib.import_module(f"triage.analysis.{module}")
            self.hand_back()
        self._lane = lane
        state = Path(config.state_dir)
        self.recordings = state / "recordings"
        self.quarantine = state / "quarantine"
        self.codec = config.storage.codec
        self.packer = packer(self.codec)
        self.config_in_force: dict[str, Any] = {
            "lane": msgspec.to_builtins(lane, enc_hook=str), "storage": msgspec.to_builtins(config.storage),
        }  # fmt: skip
        self.given_up = threading.Event()
        """Set when the lane must end although the disk still refuses."""
        self.refs: dict[str, tuple[tuple[int, str], ...]] = {}
        self.unanswered: set[str] = set()
        self.name = lane.name
        self.papers = None if config.cargo is None else Papers(state / DECLARATIONS, config.cargo)
        self.unkept: set[int] = set()
        """Devices whose cargo messages could not be stored yet; they are not read on."""
        self._settled: list[str] = []
        self._late_s = time.monotonic()
        self.judge = Judge(lane_profile(lane.energy_calibration, lane.profile, lane.name, lane.risk))
        self._promise = self._open_promise(state / "promise")
        self._intake = threading.Event()
        self._intake_lock = threading.Lock()
        self._told_open, self._refused = True, False
        self.may_record = True
        """False while what is left of the disk is for decisions."""
        self._set_intake()
        self._events: queue.Queue[tuple[int, Any]] = queue.Queue(maxsize=QUEUE_EVENTS)
        self._memory = self._recall(state / "lanes" / f"{lane.name}.json")
        self._gives = [kinds_of(d) for d in lane.device]  # once: to find a driver reads every installed package's files
        self._devices = [
            DeviceThread(
                n,
                d,
                self._events,
                self.note,
                self._intake,
                partial(self._room_for, n),
                partial(self._memory.count_of, n),
            )
            for n, d in enumerate(lane.device)
        ]
        self._recalled: set[int] = set()
        self._forgetful = ""
        self._health: dict[int, PortalHealth] = {}
        self._assembly = Assembly(spec_of(lane, expected_kinds(lane)), self._listener)
        self._worker = Worker(self)
        self.judge.progressed = self._worker.progressed
        self._postponed: list[link.AnySaid] = []
        self._finished = False
        self._draining = False
        self._give_up_s = float("inf")
        self._alive_s = 0.0

    def refused(self, refused: bool) -> None:
        """Learn from the worker whether the disk refuses: then sources that can wait do so at once."""
        with self._intake_lock:
            self._refused = refused
            self._set_intake()

    def is_live(self, refs: Iterable[tuple[int, str]]) -> bool:
        """Tell whether any of these came from a device that gives nothing twice; called by the worker."""
        return any(not self._devices[number].pausable for number, _ in refs)

    def _set_intake(self) -> None:
        (self._intake.set if self._told_open and not self._refused else self._intake.clear)()

    def _room_for(self, number: int) -> bool:
        """True while a device that can wait may give more: one that gives no part of a passage waits for no scan."""
        if not self._gives[number]:
            return number not in self.unkept
        return self._room()

    def _room(self) -> bool:
        """True while little waits to be recorded and judged; called by device threads."""
        return self._events.unfinished_tasks == 0 and self._worker.waiting_bytes <= READ_AHEAD_BYTES

    def _listener(self, detector: DetectorState) -> LiveScreening | None:
        try:
            return self.judge.listen(detector)
        except ScannerError as error:  # the radiograph is judged as a whole, and that judgement says what is wrong
            self.note("stream_failed", level="warning", text=str(error))
            return None

    # -- talking ------------------------------------------------------------------------------------------------

    def say(self, message: link.Said) -> None:
        """Tell the daemon; without one there is no lane."""
        try:
            with self._say_lock:
                link.send(self._pipe, message)
        except OSError:
            os._exit(3)

    def note(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Tell the daemon's log."""
        self.say(link.Note(event=event, level=level, fields=fields))

    def _alive(self) -> None:
        """Tell now and then that this loop turns, and how long the worker has been at its scan."""
        if time.monotonic() - self._alive_s >= ALIVE_S:
            self._alive_s = time.monotonic()
            judging_s, storing_s = self._worker.standing_s()
            loops = {t.name: t.standing_s for t in self._devices} | {"strips": self.judge.standing_s()}
            down = tuple(t.name for t in self._devices if not t.is_open and not t.quiet.is_set())
            dropped = {t.name: t.dropped for t in self._devices}
            self.say(link.Alive(standing_s=loops, judging_s=judging_s, storing_s=storing_s, down=down, dropped=dropped))

    # -- running ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the daemon says stop, or is gone."""
        began_s = time.monotonic()
        self.judge.warm_up()  # the packer's kernels are compiled where they are imported
        self.hand_back()
        self._worker.start()
        self.say(link.Ready(pid=os.getpid(), warm_up_s=round(time.monotonic() - began_s, 3)))
        for thread in self._devices:
            thread.start()
        while not (self._draining and self._all_done()):
            if time.monotonic() > self._give_up_s:
                self.given_up.set()
            self._alive()
            self._listen()
            self._take_events()
            now_s = time.monotonic()
            self._hand_over(self._assembly.tick(now_s))
            self._look_for_late()
            self._notice_end()
        self._stop()

    def _look_for_late(self) -> None:
        """Now and then, while there is nothing else to do, have scans without a declaration looked at again."""
        due = time.monotonic() - self._late_s >= LATE_S
        if self.papers is None or not due or self._draining or not self._worker.idle:
            return
        self._late_s = time.monotonic()
        settled, self._settled = tuple(self._settled), []
        self._put_work(Late(settled))

    def acknowledge(self, number: int, source_ref: str) -> None:
        """Tell a device that what it gave is stored; called by the worker."""
        self._devices[number].acks.put(source_ref)

    def hand_back(self) -> None:
        """Give up code that is in memory and will be read again where it is needed; 15 ms."""
        try:
            footprint.hand_back_code()
        except OSError as error:  # costs memory, nothing else
            self.note("memory_kept", level="warning", text=str(error))

    def _listen(self) -> None:
        try:
            while self._pipe.poll(0):
                self._heard(link.receive(self._pipe))
        except (EOFError, OSError):
            os._exit(3)  # the daemon is gone; whatever is durable is found again at its next start

    def _heard(self, message: link.AnySaid) -> None:
        match message:
            case link.Stored():
                self.unanswered.discard(message.scan_id)
                for number, ref in self.refs.pop(message.scan_id, ()):
                    self._devices[number].acks.put(ref)
                    self._remember(partial(self._memory.stored, number, ref))
            case link.Rejudge():
                self._put_work(message)
            case link.Assessed():
                self._settled.append(message.scan_id)
            case link.Intake():
                with self._intake_lock:
                    self._told_open, self.may_record = message.open, message.record
                    self._set_intake()
            case link.Stop():
                self._drain()
            case _:
                self.note("unexpected", level="error", text=f"{type(message).__name__} from the daemon")

    def _drain(self) -> None:
        """Stop reading; hand out what is complete or open; finish all work."""
        if self._draining:
            return
        self._draining = True
        self._give_up_s = time.monotonic() + GIVE_UP_S
        for thread in self._devices:
            thread.stopping.set()
        deadline_s = time.monotonic() + QUIET_WAIT_S
        # In this order: once all are quiet, whatever they said is in the queue.
        while (
            any(t.is_alive() and not t.quiet.is_set() for t in self._devices) and time.monotonic() < deadline_s
        ) or not self._events.empty():
            self._take_events()
        # what a source gives again after the next start must not be stored in halves now
        self._hand_over(self._assembly.flush(again={t.number for t in self._devices if t.pausable}))

    def _all_done(self) -> bool:
        return self._worker.inbox.unfinished_tasks == 0 and not self.unanswered

    def _stop(self) -> None:
        self._worker.inbox.put(None)
        for thread in self._devices:
            thread.closing.set()
        for thread in self._devices:
            thread.join(timeout=5)
        self._worker.join(timeout=30)
        self.judge.close()

    def _take_events(self) -> None:
        """Take what devices said: wait a little for the first, then what is there, but not for ever."""
        try:
            number, said = self._events.get(timeout=0.01 if self._draining else 0.05)  # a loop would hold up judging
        except queue.Empty:
            return
        for _ in range(QUEUE_EVENTS):
            self._event(number, said)
            del said  # a block holds on to the whole scan it is a part of
            self._events.task_done()
            try:
                number, said = self._events.get_nowait()
            except queue.Empty:
                return
        self._event(number, said)
        self._events.task_done()

    def _event(self, number: int, said: Any) -> None:
        now_s = time.monotonic()
        if isinstance(said, LinkLost):
            self._tell_vanished(number, now_s)
            self._link(number, up=False, text=str(said))
            self._hand_over(self._assembly.lost(number, now_s, again=self._devices[number].pausable))
        elif isinstance(said, EndOfSource):
            pass  # its thread has marked it, and what came before it is taken
        elif isinstance(said, CargoReceived):
            self._put_work(Delivery(number, said))
        elif isinstance(said, DeviceInfo):
            self._assembly.device(number, said)
            self._open_health(number, said)
            self.note("device_open", device=self._lane.device[number].driver, address=said.address)
            self._tell_vanished(number, now_s)
        else:
            if isinstance(said, Occupancy) and not self._devices[number].pausable:
                self._remember(lambda: self._memory.take(number, said))
            said = self._watched(number, said)
            if not isinstance(said, Health):
                self._hand_over(self._assembly.feed(number, said, now_s))

    # -- what outlives this process -----------------------------------------------------------------------------

    def _recall(self, path: Path) -> PortalMemory:
        devices = [f"{d.driver} {getattr(d.config, 'address', '')}".strip() for d in self._lane.device]
        try:
            return PortalMemory(path, devices)
        except DataError as error:
            self.note("memory_lost", level="error", text=str(error))
            kept = move_aside(path, self.quarantine, str(error))
            self.note("memory_quarantined", level="warning", text=str(kept))
            return PortalMemory(path, devices)

    def _remember(self, change: Callable[[], None]) -> None:
        """Write a change of the memory down; a disk that refuses costs the memory, never the passage."""
        told, self._forgetful = self._forgetful, ""
        try:
            change()
        except (StorageError, OSError) as error:
            self._forgetful = str(error)
            if not told:
                self.note("memory_fault", level="error", text=str(error))

    def _tell_vanished(self, number: int, now_s: float) -> None:
        """Hand out, once, what an earlier process had begun of device `number` and did not store."""
        if number in self._recalled:
            return
        self._recalled.add(number)
        for begun in self._memory.begun(number):
            record = self._recorded(begun)
            if record is not None:  # it ended after the recording was durable and before that was written down
                self._memory.ended(number, begun.source_ref, record)
                self._remember(partial(self._memory.stored, number, begun.source_ref))
                continue
            text = "the lane's process ended in the middle of a passage; what the portal had counted is lost"
            change = Health(utc_ns=begun.start_utc_ns, component="passage", state="degraded", text=text)
            self._tell_health(self._lane.device[number].driver, change)
            if not self._assembly.knows(number):  # it is not there: what is known of it is what it was
                self._assembly.device(number, self._absent(number, simulated=begun.simulated))
            entered = Occupancy(
                phase="entered", utc_ns=begun.start_utc_ns, source_ref=begun.source_ref, simulated=begun.simulated
            )
            self._hand_over(self._assembly.vanished(number, entered, now_s))

    def _absent(self, number: int, *, simulated: bool) -> DeviceInfo:
        device = self._lane.device[number]
        return DeviceInfo(
            vendor="unknown", model=device.driver, kinds=self._gives[number],
            address=getattr(device.config, "address", ""),
            simulated=simulated or getattr(device.config, "simulated", False), note="was not open yet",
        )  # fmt: skip

    def _recorded(self, begun: Begun) -> PortalRecord | None:
        """Return the record of a passage if a recording holds it: one written since it began."""
        near = (datetime.fromtimestamp((begun.start_utc_ns + d * DAY_NS) / 1e9, UTC) for d in (-1, 0, 1))
        folders = [self.recordings / self._lane.name / f"{day:%Y%m%d}" for day in near]
        for path in itertools.chain.from_iterable(f.glob(f"*{recording.SUFFIX}") for f in folders if f.is_dir()):
            if path.stat().st_mtime_ns < begun.start_utc_ns - CLOCKS_DIFFER_NS:
                continue
            try:
                record = recording.read(path).scan.portal
            except DataError:  # told where it is judged again
                continue
            if record is not None and record.start_utc_ns == begun.start_utc_ns:
                return record
        return None

    # -- health -------------------------------------------------------------------------------------------------

    def _open_health(self, number: int, info: DeviceInfo) -> None:
        """Begin to watch a portal, or learn that its link is back."""
        if "portal" in info.kinds and number not in self._health:
            from triage.analysis.portal_health import PortalHealth

            self._health[number] = PortalHealth()
        self._link(number, up=True)

    def _watched(self, number: int, event: Event) -> Event:
        """Tell what an event says of its device's health; an occupancy that is over gets the flags that follow."""
        if isinstance(event, Health):
            self._tell_health(self._lane.device[number].driver, event)
        health = self._health.get(number)
        if health is None:
            return event
        for change in health.take(event):
            self._tell_health(self._lane.device[number].driver, change)
        if isinstance(event, Occupancy) and event.record is not None:
            flags = health.quality(event.record.start_utc_ns)
            if flags:
                return msgspec.structs.replace(event, quality=event.quality + flags)
        return event

    def _open_promise(self, folder: Path) -> Promise | None:
        """Go on watching the promise of the lane's profile, where there is one."""
        if self.judge.profile.lane is None:
            return None
        from .promise import Promise

        try:
            promise = Promise(folder, self._lane.name, self.judge.profile.lane, self.quarantine)
        except (StorageError, OSError) as error:
            self.note("promise_not_watched", level="error", text=str(error))
            return None
        if promise.damage:
            self.note("promise_damaged", level="error", text=promise.damage)
        self._tell_health("profile", promise.health())
        return promise

    def as_promised(self, scan: Scan) -> Scan:
        """Return the scan as it is to be judged: flagged once the lane's profile has gone stale."""
        return scan if self._promise is None else self._promise.flagged(scan)

    def watch_promise(self, result: TriageResult) -> None:
        """Let the watch take a judged scan; called by the worker. What it has to say must not cost the scan."""
        if self._promise is None:
            return
        try:
            change = self._promise.take(result)
        except (StorageError, OSError) as error:
            self.note("promise_not_watched", level="error", scan=result.scan_id, text=str(error))
            return
        if change is not None:
            self._tell_health("profile", change)

    def _link(self, number: int, *, up: bool, text: str = "") -> None:
        health = self._health.get(number)
        if health is not None:
            for change in health.link(time.time_ns(), up=up, text=text):
                self._tell_health(self._lane.device[number].driver, change)

    def _tell_health(self, who: str, change: Health) -> None:
        level = {"ok": "info", "degraded": "warning", "fault": "error"}[change.state]
        self.note(
            "health", level=level, device=who, component=change.component,
            state=change.state, text=change.text, utc_ns=change.utc_ns,
        )  # fmt: skip

    def _hand_over(self, scans: list[Assembled]) -> None:
        for scan in scans:
            self._put_work(scan)

    def _put_work(self, work: Work) -> None:
        """Give the worker its next scan; while it is busy, keep listening to the daemon's answers."""
        while not self._worker.put(work):
            self._answers_only()

    def _answers_only(self) -> None:
        if time.monotonic() > self._give_up_s:
            self.given_up.set()
        self._alive()
        try:
            if self._pipe.poll(0):
                message = link.receive(self._pipe)
                if isinstance(message, link.Stop):
                    self._give_up_s = time.monotonic() + GIVE_UP_S
                if isinstance(message, link.Stop | link.Rejudge):
                    self._postponed.append(message)  # both would wait for the worker again
                else:
                    self._heard(message)
        except (EOFError, OSError):
            os._exit(3)  # the daemon is gone, and with it whoever would hear that the disk is full

    def _notice_end(self) -> None:
        """When every source has ended, hand everything out and tell the daemon once all of it is stored."""
        while self._postponed:
            self._heard(self._postponed.pop(0))
        if self._finished or any(thread.pending for thread in self._devices) or not self._events.empty():
            return
        self._hand_over(self._assembly.flush())
        if self._all_done() and self._events.empty():
            self._finished = True
            self.say(link.Finished())


def main(pipe: Connection, config: configuration.Config, lane_name: str) -> None:
    """Run lane `lane_name` of the configuration; entry point of the spawned process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the daemon decides when a lane ends
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # blocked while it was spawned
    footprint.return_large_blocks()
    lane = next(one for one in config.lane if one.name == lane_name)
    process = LaneProcess(pipe, config, lane)
    import cv2

    # A thread of OpenCV's that stops is missed by nobody: its caller does all of it. Without them the judgement of a
    # large scan took 3 % longer; the strips, which are most of it, have a thread of their own.
    cv2.setNumThreads(1)
    process.run()
