"""Room on the disk: water marks, and a reserve for what must be written when there is none.

    state  means                                        until
    ok     -
    warn   less than the warning mark is free           a little more than that mark is
    stop   less than the stop mark is free: sources      a little more than that mark is
           that can wait do, live ones go on

What is free above nothing is for live sources while intake is stopped. Others may fill the disk all the same: then the
reserve, a file that holds its room from the beginning, is given up. What that frees is for decisions, the audit and the
outbox alone; recordings wait in memory until the reserve is whole again, and a live scanner's lines that find no room
there are counted, flagged and told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from scanner_io import disk
from scanner_io.config import Storage

State = Literal["ok", "warn", "stop"]

MIB = 1 << 20
DEFAULT_STOP_BYTES, DEFAULT_STOP_SHARE = 2048 * MIB, 0.05
FEW_FILES = 256
"""A file system with room for fewer new files than this is full."""
GIVES_AT = 3
"""At the first look that finds the disk full recordings are stopped, at this one the reserve is given up: a recording
that is being written must not take it."""
RESERVE = "reserve"
"""Name of the reserve in the state folder."""


class Marks(NamedTuple):
    """Bytes free below which, or from which on, a state begins; stop < resume <= warn < calm or all are 0."""

    stop: int
    resume: int
    warn: int
    calm: int

    @classmethod
    def of(cls, config: Storage, total: int) -> Marks:
        """Return the marks for a disk of `total` bytes."""
        stop = config.min_free_mb
        low = min(DEFAULT_STOP_BYTES, int(total * DEFAULT_STOP_SHARE)) if stop is None else stop * MIB
        warn = max(2 * low if config.warn_free_mb is None else config.warn_free_mb * MIB, low + low // 4)
        return cls(stop=low, resume=low + low // 4, warn=warn, calm=warn + low // 4)


def level(marks: Marks, free: int) -> str:
    """Return where `free` bytes lie among the marks."""
    if free < marks.stop:
        return "none"
    if free < marks.resume:
        return "hardly"
    if free < marks.warn:
        return "little"
    return "some" if free < marks.calm else "plenty"


NEXT: dict[tuple[State, str], State] = {
    ("ok", "none"): "stop", ("ok", "hardly"): "warn", ("ok", "little"): "warn", ("ok", "some"): "ok",
    ("ok", "plenty"): "ok",
    ("warn", "none"): "stop", ("warn", "hardly"): "warn", ("warn", "little"): "warn", ("warn", "some"): "warn",
    ("warn", "plenty"): "ok",
    ("stop", "none"): "stop", ("stop", "hardly"): "stop", ("stop", "little"): "warn", ("stop", "some"): "warn",
    ("stop", "plenty"): "ok",
}  # fmt: skip
"""The state after a look, by the state before and what is free."""


class Room:
    """The room of one state folder. `look` often: a look takes microseconds."""

    def __init__(self, state_dir: Path, config: Storage) -> None:
        """Look nowhere yet."""
        self._folder = state_dir
        self._reserve = state_dir / RESERVE
        self._config = config
        self.state: State = "ok"
        self.free = 0
        """Bytes that recordings may take; what the reserve lacks is not free."""
        self.marks = Marks(0, 0, 0, 0)
        self._giving = 0
        """At how many looks in a row the reserve was needed."""
        self.left_stop = False
        """With the last look intake goes on."""
        self.trouble = ""
        """Why the room cannot be told or the reserve not be made, empty if it can."""

    @property
    def whole(self) -> bool:
        """The reserve holds its room and will: recordings may be written."""
        return not self._giving and self._missing() == 0

    def _size(self) -> int:
        return min(self._config.reserve_mb * MIB, self.marks.stop // 2)

    def _missing(self) -> int:
        """Return how many bytes the reserve lacks: all or none."""
        size = self._size()
        try:
            return 0 if not size or self._reserve.stat().st_size >= size else size
        except OSError:  # it is not there, or the disk does not tell
            return size

    def look(self) -> bool:
        """Look at the disk, give the reserve up or make it whole; True if the state or the reserve is another."""
        before = self.state, self.whole
        self.trouble = ""
        try:
            spaces = [disk.io().space(place) for place in self._places()]
            tightest = min(spaces, key=lambda s: s.free)
            self.marks = Marks.of(self._config, tightest.total)
            missing = self._missing()
            self.free = 0 if any(s.files < FEW_FILES for s in spaces) else max(0, tightest.free - missing)
            self.state = NEXT[self.state, level(self.marks, self.free)]
            if missing and self.state != "stop":
                self._make_whole()
            elif tightest.free >= self._size() // 4:
                self._giving = 0
            elif not missing:
                self._giving += 1
                if self._giving >= GIVES_AT:
                    disk.io().unlink(self._reserve)
        except OSError as error:
            self.free, self.trouble = 0, f"{self._folder}: {error}"
            self.state = "stop"
        changed = before != (self.state, self.whole) and (before[0], self.state) != ("ok", "ok")
        self.left_stop = before[0] == "stop" != self.state
        return changed

    def _places(self) -> Iterable[Path]:
        recordings = self._folder / "recordings"
        return (self._folder, recordings) if recordings.is_dir() else (self._folder,)

    def _make_whole(self) -> None:
        """Take the room of the reserve. Raises OSError; then the file is not there."""
        descriptor = disk.io().open(self._reserve, os.O_WRONLY | os.O_CREAT)
        try:
            disk.io().allocate(descriptor, self._size())
        except OSError:
            disk.io().unlink(self._reserve)
            raise
        finally:
            os.close(descriptor)

    def words(self) -> str:
        """Return how it is, in words."""
        where = f"{self.free / MIB:.0f} MiB free for recordings at {self._folder}"
        if self.trouble:
            where = f"no room can be seen: {self.trouble}"
        if self.state == "ok":
            return where
        if self.state == "warn":
            return f"{where}, intake stops below {self.marks.stop / MIB:.0f} MiB; make room (scanlane retention)"
        kept = "are still recorded" if self.whole else "wait in memory: the last room is kept for decisions"
        return (
            f"STOP-INTAKE: {where}, goes on from {self.marks.resume / MIB:.0f} MiB; sources that can wait do, live "
            f"scans {kept}; make room (scanlane retention)"
        )
