"""A lane's watch over its profile's promise, kept on the disk: `STATE/promise/LANE/PROFILE.jsonl`, a line per scan.

The watch is nothing but its lines taken one after the other, so it goes on after a restart where it was. Another
profile is another file and begins anew: that is how a stale one is cleared.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from scanner_io import disk
from scanner_io.errors import DataError
from scanner_io.lane_profile import LaneProfile
from scanner_io.model import Health, Scan, TriageResult
from scanner_io.storage import make_folder, move_aside
from triage.analysis.drift import Seen, Watch, flagged_stale, seen, why_no_example


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
            self.watch, self._known = Watch(profile), set()

    def take(self, result: TriageResult) -> Health | None:
        """Take the next judged scan; return what there is to tell if with it the profile has gone stale.

        Scans of a kind that is not learned from are not watched either, nor is one twice. Raises OSError.
        """
        if result.standing is None or result.scan_id in self._known or why_no_example(result):
            return None
        scan = seen(result.scan_id, result.standing)
        self._keep(msgspec.json.encode(scan) + b"\n")
        self._known.add(scan.scan)
        return self.health() if self.watch.take(scan) else None

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


def _folded(path: Path, profile: LaneProfile) -> tuple[Watch, set[str]]:
    """Return the watch of a file, and the scans in it. Raises DataError for a damaged one."""
    watch, known = Watch(profile), set()
    for scan in _lines(path):
        watch.take(scan)
        known.add(scan.scan)
    return watch, known


def _end_of_lines(path: Path) -> None:
    """Cut off what a killed process left of a line, so that the next does not grow on it. Raises OSError."""
    if path.is_file() and not (data := path.read_bytes()).endswith(b"\n"):
        descriptor = disk.io().open(path, os.O_WRONLY)
        try:
            disk.io().truncate(descriptor, data.rfind(b"\n") + 1)
        finally:
            os.close(descriptor)


def _lines(path: Path) -> Iterator[Seen]:
    if not path.is_file():
        return
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            yield msgspec.json.decode(line, type=Seen)
        except msgspec.MsgspecError as error:
            raise DataError(f"{path}: line {number} is no watched scan ({error})") from error


def kept_watch(state_dir: Path, profile: LaneProfile) -> Watch:
    """Return the watch that a lane's daemon keeps below `state_dir`, without changing it; a new one if there is none.

    Raises DataError for a damaged one.
    """
    return _folded(state_dir / "promise" / profile.lane / f"{profile.sha256[:16]}.jsonl", profile)[0]
