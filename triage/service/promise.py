"""A lane's watch over its profile's promise, kept on the disk: `STATE/promise/LANE/PROFILE.jsonl`, a line per scan.

The watch is nothing but its lines taken one after the other, so it goes on after a restart where it was; now and then
it is written down itself, `PROFILE.watch`, and only the lines since then are taken again. Another profile is another
file and begins anew: that is how a stale one is cleared.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from scanner_io import disk
from scanner_io.errors import DataError, StorageError
from scanner_io.lane_profile import LaneProfile
from scanner_io.model import Health, Scan, TriageResult
from scanner_io.storage import make_folder, move_aside, write_durable
from triage.analysis.drift import Seen, Watch, WatchState, flagged_stale, seen, why_no_example

_TAIL_BYTES = 1 << 16


KEEP_EVERY = 1000
"""Scans after which the watch itself is written down beside its lines: taking 100,000 of them again takes a minute."""
MOST_KNOWN = 10_000
"""Scans that are known to have been taken, the newest."""


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A watch as it was after so many bytes of its lines.

    tail : hash of the last of these bytes; known : the newest scans
    """

    size: int
    tail: bytes
    known: list[str]
    watch: WatchState


class Promise:
    """The watch of one lane. Use it from one thread only.

    folder : the lanes' watches; quarantine : where a damaged one goes

    Raises OSError, StorageError if the folder cannot be used.
    """

    def __init__(self, folder: Path, lane: str, profile: LaneProfile, quarantine: Path) -> None:
        self._path = folder / lane / f"{profile.sha256[:16]}.jsonl"
        self._profile = profile
        _end_of_lines(self._path)
        self.damage = ""
        """In words, if what was kept could not be read; the watch then began anew."""
        try:
            self.watch, self._known = _folded(self._path, profile)
        except DataError as error:
            kept = move_aside(self._path, quarantine, str(error))
            self.damage = f"{error}; moved to {kept}, the watch begins anew"
            self.watch, self._known = Watch(profile), {}

    def take(self, result: TriageResult) -> Health | None:
        """Take the next judged scan; return what there is to tell if with it the profile has gone stale.

        Scans of a kind that is not learned from are not watched either, nor is one twice. Raises OSError.
        """
        if result.standing is None or result.scan_id in self._known or why_no_example(result):
            return None
        scan = seen(result.scan_id, result.standing)
        self._keep(msgspec.json.encode(scan) + b"\n")
        _remember(self._known, scan.scan)
        changed = self.watch.take(scan)
        if self.watch.scans % KEEP_EVERY == 0:
            self._keep_watch()
        return self.health() if changed else None

    def _keep_watch(self) -> None:
        """Write the watch down; where that cannot be, its lines are taken again at the next start."""
        size = self._path.stat().st_size
        kept = Kept(size=size, tail=_tail(self._path, size), known=list(self._known), watch=self.watch.state())
        with suppress(OSError, StorageError):
            write_durable(_beside(self._path), msgspec.msgpack.encode(kept), replace=True)

    def flagged(self, scan: Scan) -> Scan:
        """Return the scan as it is to be judged: flagged once the profile has gone stale."""
        return flagged_stale(scan, self._profile, self.watch.stale)

    def _keep(self, line: bytes) -> None:
        """Append a line, whole or not at all; not forced to the disk: a power cut costs the watch a few scans."""
        make_folder(self._path.parent)
        descriptor = disk.io().open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            size = os.fstat(descriptor).st_size
            if disk.io().write(descriptor, line) != len(line):
                disk.io().truncate(descriptor, size)
                raise OSError(errno.ENOSPC, f"{self._path}: a line could not be written whole")
        finally:
            os.close(descriptor)

    def health(self) -> Health:
        """Return how the profile is."""
        watch, profile = self.watch, self._profile
        text = watch.stale or (
            f"profile {profile.sha256[:12]} of {profile.scans} scans holds: {watch.flagged} of {watch.scans} scans "
            f"flagged since it came into force, promised at most {profile.flag_rate:.1%}, and {watch.unknown} reviewed "
            "beside it for a look that is not known"
        )
        return Health(
            utc_ns=time.time_ns(), component="profile", state="degraded" if watch.stale else "ok", text=text
        )  # fmt: skip


def _folded(path: Path, profile: LaneProfile) -> tuple[Watch, dict[str, None]]:
    """Return the watch of a file, and the newest scans in it. Raises DataError for a damaged one."""
    watch, known, start = Watch(profile), dict[str, None](), 0
    try:
        kept = msgspec.msgpack.decode(_beside(path).read_bytes(), type=Kept)
        if kept.tail == _tail(path, kept.size):
            watch.resume(kept.watch)
            known, start = dict.fromkeys(kept.known), kept.size
    except (OSError, ValueError, msgspec.MsgspecError):  # none, or of no use: the lines tell all of it
        watch = Watch(profile)
    for scan in _lines(path, start):
        watch.take(scan)
        _remember(known, scan.scan)
    return watch, known


def _remember(known: dict[str, None], scan_id: str) -> None:
    known[scan_id] = None
    while len(known) > MOST_KNOWN:
        known.pop(next(iter(known)))


def _beside(path: Path) -> Path:
    """Return where the watch of these lines is kept."""
    return path.with_suffix(".watch")


def _tail(path: Path, size: int) -> bytes:
    """Return a hash that tells these first bytes of a file from others of the same number."""
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL_BYTES))
        return hashlib.sha256(file.read(min(size, _TAIL_BYTES)) + b" %d" % size).digest()


def _end_of_lines(path: Path) -> None:
    """Cut off what a killed process left of a line, so that the next does not grow on it. Raises OSError."""
    if not path.is_file():
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end:  # back to the last line that has its end
            start = max(0, end - _TAIL_BYTES)
            file.seek(start)
            if (at := file.read(end - start).rfind(b"\n")) >= 0:
                end = start + at + 1
                break
            end = start
    if end < size:
        descriptor = disk.io().open(path, os.O_WRONLY)
        try:
            disk.io().truncate(descriptor, end)
        finally:
            os.close(descriptor)


def _lines(path: Path, start: int) -> Iterator[Seen]:
    """Yield what the whole lines from a byte on tell."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(start)
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield msgspec.json.decode(line, type=Seen)
            except msgspec.MsgspecError as error:
                where = f"line {number}" + (f" from byte {start} on" if start else "")
                raise DataError(f"{path}: {where} is no watched scan ({error})") from error


def kept_watch(state_dir: Path, profile: LaneProfile) -> Watch:
    """Return the watch that a lane's daemon keeps below `state_dir`, without changing it; a new one if there is none.

    Raises DataError for a damaged one.
    """
    return _folded(state_dir / "promise" / profile.lane / f"{profile.sha256[:16]}.jsonl", profile)[0]
