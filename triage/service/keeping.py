"""The recordings on the disk held against their rows, both ways, from the start on.

    a recording without a row      is judged (again) and entered                                   `daemon`
    a row without its recording    is held, with an alarm, at the start; what is decided already is told soon after
    a recording of another length  the same
    a recording of another hash    the same; all are read again in the background, undecided ones first, every day
    a `.part`, a damaged one       goes to quarantine; nothing is deleted                          `daemon`, `lane`

A scan that is held because of its recording waits again once the recording is there as it was.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from scanner_io.errors import StorageError

from .outbox import Outbox
from .store import Place, Row, Server, reading

SCRUB_BYTES_PER_S = 100 << 20
"""Reading in the background must leave the disk to the lanes."""
SCRUB_AGAIN_S = 24 * 3600.0
PAGE = 1000
_PIECE = 1 << 20
_KEPT = (
    "SELECT scan_id, path, sha256, size, state, damage FROM scans JOIN outbox USING (scan_id) "
    "WHERE hub=? AND kept='whole' AND state "
)
_UNDECIDED = "IN ('pending', 'leased', 'held')"
#: Not a list of the others: then every page would be sorted out of all of them.
_DECIDED = "NOT IN ('pending', 'leased', 'held')"
MOST_FOUND = 1000
"""Recordings that wait to be told of; reading goes no further until they are."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that must be there. damage : what was found wrong with it before, empty: nothing"""

    scan_id: str
    path: str
    sha256: str
    size: int
    state: str
    damage: str


def undecided(outbox: Outbox) -> list[Kept]:
    """Return the recordings of this service that must be there for somebody who still decides on them."""
    return [*_some(outbox.store.rows, outbox.hub, _UNDECIDED, "", 1 << 62)]


def everything(place: Place) -> Iterator[Kept]:
    """Yield what recordings of this service must be there, undecided ones first: pages of a second database connection.

    Raises StorageError.
    """
    hub = place.hub if isinstance(place, Server) else ""
    for states in (_UNDECIDED, _DECIDED):
        last = ""
        while True:
            with reading(place) as reader:
                page = [*_some(reader.rows, hub, states, last, PAGE)]
            yield from page
            if len(page) < PAGE:
                break
            last = page[-1].scan_id


def _some(
    rows: Callable[[str, Sequence[Any]], Iterable[Row]], hub: str, states: str, after: str, limit: int
) -> Iterator[Kept]:
    found = rows(f"{_KEPT}{states} AND scan_id>? ORDER BY scan_id LIMIT ?", (hub, after, limit))
    for i, path, sha256, size, state, damage in found:
        yield Kept(scan_id=i, path=path, sha256=sha256, size=size, state=state, damage=damage)


def seen_at_once(one: Kept) -> str:
    """Return what is wrong with a recording as far as its name and length show, in words; empty: nothing."""
    try:
        size = Path(one.path).stat().st_size
    except OSError as error:
        return f"its recording cannot be found ({error.strerror}): {one.path}"
    return "" if size == one.size else f"its recording has {size} bytes, expected {one.size}: {one.path}"


def seen_by_hash(one: Kept, pause: Callable[[int], bool]) -> str | None:
    """Return what is wrong with a recording by every byte of it; None if that was interrupted.

    pause : is given how many bytes were read; False: to go no further
    """
    if told := seen_at_once(one):
        return told
    digest = hashlib.sha256()
    try:
        with Path(one.path).open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                if not pause(len(piece)):
                    return None
    except OSError as error:
        return f"its recording cannot be read ({error.strerror}): {one.path}"
    seen = digest.hexdigest()
    if seen == one.sha256:
        return ""
    return f"its recording has the hash {seen[:16]}…, expected {one.sha256[:16]}…: {one.path}"


def tell_damage(outbox: Outbox, one: Kept, told: str) -> bool:
    """Write down what is wrong with a recording, or that nothing is any more; False if that was known.

    Undecided scans are held meanwhile, and wait again afterwards.
    """
    if told == one.damage:
        return False
    with outbox.store.transaction():
        if not outbox.store.change(
            "UPDATE scans SET damage=? WHERE scan_id=? AND damage=? AND kept='whole'", (told, one.scan_id, one.damage)
        ):
            return False
        if told:
            outbox.store.change(
                "UPDATE outbox SET state='held', lease_id='', analyst='', note=? WHERE scan_id=? AND "
                "state IN ('pending', 'leased')",
                (told, one.scan_id),
            )
            if one.damage:  # other words for it: by these it is known again once it is sound
                outbox.store.change(
                    "UPDATE outbox SET note=? WHERE scan_id=? AND state='held' AND note=?",
                    (told, one.scan_id, one.damage),
                )
        else:
            outbox.store.change(
                "UPDATE outbox SET state='pending', note='', attempts=0 WHERE scan_id=? AND state='held' AND note=?",
                (one.scan_id, one.damage),
            )
        outbox.event("recording_damaged" if told else "recording_sound", one.scan_id, text=told)
    return True


def damaged(outbox: Outbox) -> list[str]:
    """Return the scans whose recordings are not as they must be."""
    rows = outbox.store.rows(
        "SELECT scan_id FROM scans WHERE hub=? AND damage<>'' AND kept='whole' ORDER BY scan_id", (outbox.hub,)
    )
    return [scan_id for (scan_id,) in rows]


class Scrub(threading.Thread):
    """Reads every recording in the background and compares its hash; what it finds waits in `found`."""

    def __init__(self, everything: Callable[[], Iterable[Kept]]) -> None:
        """Take what gives all that there must be; it is called in this thread."""
        super().__init__(name="scrub", daemon=True)
        self.found: queue.Queue[tuple[Kept, str]] = queue.Queue(MOST_FOUND)
        """Recordings that are not as they were when last seen, and what is wrong with each now."""
        self.read = 0
        """How many recordings were read whole."""
        self.over_s = 0.0
        """When all had been read, monotonic; 0 before."""
        self.problem = ""
        """In words, why it could not be known what there must be."""
        self._everything = everything
        self._ending = threading.Event()

    def run(self) -> None:
        """Look at all of them, then read all of them."""
        try:
            if not (self._look() and self._read()):
                return
        except StorageError as error:  # all of it is begun again as if it were over
            self.problem = str(error)
        self.over_s = time.monotonic()

    def _look(self) -> bool:
        """Find what is gone or of another length, which takes seconds; False if it is to end."""
        for one in self._everything():
            if self._ending.is_set():
                return False
            if (told := seen_at_once(one)) and told != one.damage and not self._tell(one, told):
                return False
        return True

    def _read(self) -> bool:
        for one in self._everything():
            told = seen_by_hash(one, self._pause)
            if told is None:
                return False
            self.read += 1
            if told != one.damage and not self._tell(one, told):
                return False
        return True

    def _tell(self, one: Kept, told: str) -> bool:
        """Put it to what was found, when there is room; False if it is to end."""
        while not self._ending.is_set():
            try:
                self.found.put((one, told), timeout=0.2)
            except queue.Full:
                continue
            return True
        return False

    def _pause(self, count: int) -> bool:
        return not self._ending.wait(count / SCRUB_BYTES_PER_S)

    def close(self) -> None:
        """End it."""
        self._ending.set()
        self.join(timeout=10)
