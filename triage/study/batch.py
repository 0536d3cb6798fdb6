"""`scanlane batch ARCHIVE…`: judge every recording of an archive anew, by today's code and profile.

A task is one recording. It is a function of the file's bytes and of what is judged by, so it may be done twice, by any
worker, in any order; what counts is the row in the ledger. Nothing of the archive is changed.

    sound       judged: a row with the result, and whether the recording's own result, if it has one, is the same
    bad         the file cannot be read or judged: a row with the reason
    poison      the file ended its worker, twice, the second time with nothing beside it: a row that says so

Bad and poison files are set aside: the run goes on, they are listed, and are tried again only when asked for. What is
set aside was never judged, and its outcome is UNUSABLE.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from scanner_io import __version__, config, recording
from scanner_io.errors import DataError, ScannerError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import TriageResult
from scanner_io.storage import make_folder
from triage.service.lane import Judge, lane_profile

from .batch_ledger import Ledger

State = Literal["sound", "bad", "poison"]

COMMIT_S = 1.0
"""Results older than this are in the ledger: what a kill of this process costs."""


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """What the scans of one lane are judged by. identity : of these very values, see `pipeline.Profile.identity`."""

    energy: str | None = None
    profile: str | None = None
    risk: str | None = None
    identity: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What scans are judged by.

    lanes : by the name of the lane that a recording tells
    other : for scans of lanes that are not named; None: they are bad, as no profile is known to hold for them
    """

    version: str = __version__
    lanes: dict[str, Usual] = {}
    other: Usual | None

    @property
    def key(self) -> str:
        """Hash of all that a judgement depends on beside the scan."""
        parts: dict[str, Any] = {n: u.identity for n, u in sorted(self.lanes.items())}
        words = [self.version, parts, None if self.other is None else self.other.identity]
        return hashlib.sha256(msgspec.json.encode(words)).hexdigest()[:16]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One recording, judged or not.

    stored_outcome, same_as_stored : of the result that the recording came with; None: it has none
    result : without its timings; None where the file could not be judged
    """

    file: str
    state: State
    scan_id: str = ""
    lane: str = ""
    start_utc_ns: int | None = None
    simulated: bool = False
    content_sha256: str = ""
    result: TriageResult | None = None
    stored_outcome: str | None = None
    same_as_stored: bool | None = None
    error: str | None = None
    seconds: float = 0.0
    worker: str = ""

    @property
    def outcome(self) -> str:
        """What is not judged is UNUSABLE, never CLEAR."""
        return "UNUSABLE" if self.result is None else self.result.outcome


class WrongWorkerError(RuntimeError):
    """A worker that would not judge as the plan says; no fault of the file."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one task. row : encoded; None where the file ended its worker, as `words` tell"""

    number: int
    row: bytes | None
    words: str = ""


class Workers(Protocol):
    """Who does the tasks."""

    @property
    def count(self) -> int:
        """Return how many they are now."""

    def __call__(
        self, work: Callable[[bytes, str], bytes], plan: bytes, tasks: Iterator[tuple[int, str]]
    ) -> Iterator[Answer]:
        """Yield an answer for every task, in any order."""


def plan_of(energy: Path | None, profile: Path | None, lanes: Path | None, risk: Path | None = None) -> Plan:
    """Return what is judged by: of one energy calibration and profiles, or of a service's configuration file.

    Raises ConfigError where one of them cannot be read or does not fit.
    """
    if lanes is None:
        return Plan(other=_usual(_absolute(energy), _absolute(profile), None, _absolute(risk)))
    named = {
        lane.name: _usual(lane.energy_calibration, lane.profile, lane.name, lane.risk)
        for lane in config.load(lanes).lane
    }
    return Plan(lanes=named, other=None)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _usual(energy: str | None, profile: str | None, lane: str | None, risk: str | None) -> Usual:
    identity = lane_profile(energy, profile, lane, risk).identity
    return Usual(energy=energy, profile=profile, risk=risk, identity=identity)


def recordings_in(archives: Sequence[Path]) -> Iterator[os.DirEntry[str] | Path]:
    """Yield every recording in or below the archives, without keeping them. Raises OSError for a folder unread.

    Links to folders are followed, as the service follows them: a lane may lie behind one. Every folder is gone through
    once, whatever leads to it, and its recordings are named by its own path and not by that of a link.
    """
    been: set[tuple[int, int]] = set()
    for archive in archives:
        if archive.is_dir():
            yield from _below(str(archive.resolve()), been)
        else:
            yield archive.resolve()


def _below(folder: str, been: set[tuple[int, int]]) -> Iterator[os.DirEntry[str]]:
    status = Path(folder).stat()
    if (status.st_dev, status.st_ino) in been:
        return
    been.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_folder(entry):
                yield from _below(os.path.realpath(entry.path) if entry.is_symlink() else entry.path, been)
            elif entry.name.endswith(recording.SUFFIX):
                yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a folder or a link to one; a link that leads back to itself is none. Raises OSError."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


# -- in the worker


class _Desk:
    """A worker's judges and readers, kept from one task to the next."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._readers = ForeignFiles()
        self._judges: list[Judge] = []
        self._judge_of = lru_cache(None)(self._new_judge)

    def _new_judge(self, usual: Usual, lane: str | None) -> Judge:
        try:
            profile = lane_profile(usual.energy, usual.profile, lane, usual.risk)
        except (ScannerError, OSError) as error:
            raise WrongWorkerError(f"it cannot read what is judged by: {error}") from error
        if profile.identity != usual.identity:
            raise WrongWorkerError(
                f"it would judge by {profile.identity} and not by {usual.identity}; every worker must see the same "
                "energy calibration and profile under the same path"
            )
        judge = Judge(profile, threads=1)
        self._judges.append(judge)
        judge.warm_up()
        return judge

    def judge(self, path: str) -> Row:
        stored = self._readers.recording(Path(path))
        lane = stored.scan.lane
        usual = self._plan.lanes.get(lane, self._plan.other)
        if usual is None:
            raise DataError(f"{path}: is of lane {lane!r}, which is not among {', '.join(sorted(self._plan.lanes))}")
        result = self._judge_of(usual, lane if lane in self._plan.lanes else None)(stored.scan)
        old = stored.result
        return Row(
            file=path, state="sound", scan_id=stored.scan.scan_id, lane=lane, start_utc_ns=stored.scan.start_utc_ns,
            simulated=stored.scan.simulated, content_sha256=stored.content_sha256,
            result=msgspec.structs.replace(result, timings_ms={}),
            stored_outcome=None if old is None else old.outcome,
            same_as_stored=None if old is None else old.judgement() == result.judgement(),
        )  # fmt: skip

    def close(self) -> None:
        """End readers and judges."""
        self._readers.close()
        for judge in self._judges:
            judge.close()


_desks: dict[bytes, _Desk] = {}


def leave_desk() -> None:
    """End what this process has kept for its next task; a worker that ends has nothing to call."""
    while _desks:
        _desks.popitem()[1].close()


def _desk(plan: bytes) -> _Desk:
    """Return the desk of this process, which is of the last plan it was asked for."""
    if plan not in _desks:
        leave_desk()
        _desks[plan] = _new_desk(plan)
    return _desks[plan]


def _new_desk(plan: bytes) -> _Desk:
    decoded = msgspec.json.decode(plan, type=Plan)
    if decoded.version != __version__:
        raise WrongWorkerError(f"it is of version {__version__} and not {decoded.version}; install the same everywhere")
    return _Desk(decoded)


def judge_recording(plan: bytes, path: str) -> bytes:
    """Judge the recording at `path`; runs in a worker. Returns an encoded Row, also for a file that is bad.

    Raises WrongWorkerError if this worker is of another version, or sees another profile.
    """
    begun_s = time.monotonic()
    try:
        row = _desk(plan).judge(path)
    except (ScannerError, OSError) as error:
        text = str(error) if path in str(error) else f"{path}: {error}"
        row = Row(file=path, state="bad", error=text)
    who = f"{os.uname().nodename}/{os.getpid()}"
    return msgspec.json.encode(msgspec.structs.replace(row, seconds=time.monotonic() - begun_s, worker=who))


# -- beside them


def run_batch(
    archives: Sequence[Path], out: Path, plan: Plan, workers: Workers, *, again: bool = False,
    retry: bool = False, begun: Callable[[int], Callable[[], None]] = lambda _: lambda: None,
) -> dict[str, Any]:  # fmt: skip
    """Judge what is in the archives and not yet in the ledger of folder `out`; then write its tables.

    again : forget what was judged by other code or another profile
    retry : try again what was set aside
    begun : is told how many recordings are to be judged, and gives what is called for each that is done

    Raises DataError where `out` holds a batch that was judged otherwise, StorageError.
    """
    from .batch_tables import write_tables

    make_folder(out)
    begun_s = time.monotonic()
    with Ledger(out / "ledger.sqlite") as ledger:
        ledger.belong_to(plan.key, again=again)
        found = ledger.add(_files(archives))
        if not found:
            raise DataError(f"{', '.join(map(str, archives))}: no recording (*{recording.SUFFIX}) there or below")
        if retry:
            ledger.retry()
        waiting = ledger.waiting()
        advance = begun(waiting)
        _work_off(ledger, workers, msgspec.json.encode(plan), advance)
        seconds = time.monotonic() - begun_s
        tables = write_tables(ledger, out)
        counts = ledger.counts()
    return {
        "scans": counts["sound"], "findings": tables.findings, "poison": counts["poison"], "bad": counts["bad"],
        "seconds": round(seconds, 3), "workers": workers.count, "judged_now": waiting, "found_before": found - waiting,
        "differ_from_stored": tables.differ, "judged_by": plan.key, "out": str(out),
    }  # fmt: skip


def _files(archives: Iterable[Path]) -> Iterator[tuple[str, int, int]]:
    for entry in recordings_in(list(archives)):
        path = entry.path if isinstance(entry, os.DirEntry) else str(entry)
        there = entry.stat()
        yield path, there.st_size, there.st_mtime_ns


def _work_off(ledger: Ledger, workers: Workers, plan: bytes, advance: Callable[[], None]) -> None:
    """Have every waiting file judged. A file that ended its worker may have been beside the culprit: it comes again,
    alone.
    """
    suspects = _enter(ledger, workers(judge_recording, plan, ledger.tasks()), advance)
    for number, path in suspects:
        ended = _enter(ledger, workers(judge_recording, plan, iter([(number, path)])), advance)
        for _ in ended:
            words = f"{path}: ended the worker that read it, twice, the second time with nothing else at work"
            ledger.enter(number, msgspec.json.encode(Row(file=path, state="poison", error=words)), "poison")
            advance()
    ledger.commit()


def _enter(ledger: Ledger, answers: Iterator[Answer], advance: Callable[[], None]) -> list[tuple[int, str]]:
    """Put answers into the ledger as they come; return the files that ended their worker."""
    suspects = []
    committed_s = time.monotonic()
    for answer in answers:
        if answer.row is None:
            suspects.append((answer.number, ledger.path_of(answer.number)))
        else:
            ledger.enter(answer.number, answer.row, msgspec.json.decode(answer.row, type=Row).state)
            advance()
        if time.monotonic() - committed_s > COMMIT_S:
            ledger.commit()
            committed_s = time.monotonic()
    ledger.commit()
    return suspects
