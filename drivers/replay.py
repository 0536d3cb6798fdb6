"""Recordings as a lane: the events of stored scans, in order of their time, with their original times.

Played at `speed` times real time, or as fast as it is read (0). What a recording says of its own quality is replayed
too, so that the same judgement comes out.
"""

from __future__ import annotations

import glob
import hashlib
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from scanner_io import recording
from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import ConfigError, DataError, LinkLost
from scanner_io.foreign import ForeignFiles
from scanner_io.model import (
    DeclarationSeen,
    DeviceInfo,
    EndOfSource,
    Event,
    Kind,
    LineBlock,
    Occupancy,
    Radiograph,
    Rejected,
    Remark,
    Scan,
    ScanEnd,
    ScanStart,
)

BLOCK_COLUMNS = 64


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """paths : recordings, folders of recordings, or patterns such as `archive/**/*.scan.h5`, played in this order
    (inside a folder or pattern by scan time). speed : 1 real time, 20 twenty times faster, 0 as fast as possible.
    """

    paths: tuple[str, ...]
    speed: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    expected: tuple[Kind, ...] = ("radiograph", "portal", "declaration")


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what the recordings are said to hold."""
    return config.expected


def connect(config: Config, channel: Channel | None = None) -> Replay:
    """Return an unopened player. Raises ConfigError if there is nothing to play."""
    if not config.paths:
        raise ConfigError(["paths: empty, expected at least one recording"])
    return Replay(config)


def find(paths: tuple[str, ...]) -> list[Path]:
    """Return the recordings that `paths` name. Raises DataError if one of them names nothing."""
    found: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_file():
            found.append(path)
            continue
        pattern = str(path / "**" / f"*{recording.SUFFIX}") if path.is_dir() else text
        matches = sorted((Path(p) for p in glob.glob(pattern, recursive=True)), key=lambda p: p.name)  # noqa: PTH207
        if not matches:
            raise DataError(f"{text}: no recording is there; expected files *{recording.SUFFIX}")
        found += matches
    return found


class Replay:
    """Plays recordings one after the other.

    readers : what reads them, where there is one already; it is not closed
    """

    pausable = True

    def __init__(self, config: Config, readers: ForeignFiles | None = None) -> None:
        self._config = config
        self._given = readers
        self.tap: Tap = no_tap
        self._readers: ForeignFiles | None = None
        self._events: Iterator[Event] | None = None
        self._next: Event | None = None
        self._first_utc_ns: int | None = None
        self._began_s = 0.0

    def open(self) -> DeviceInfo:
        """Find the recordings. Raises LinkLost if there are none, or one cannot be read."""
        try:
            files = find(self._config.paths)
        except DataError as error:
            raise LinkLost(str(error)) from error
        self.close()
        self._readers = self._given or ForeignFiles()
        self._events = self._play(files, self._readers)
        self._first_utc_ns = None
        return DeviceInfo(
            vendor="scanlane", model="replay", kinds=self._config.expected,
            address=f"{len(files)} recordings", note="replayed, with the original times; see the devices before it",
        )  # fmt: skip

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event when its time has come. Raises LinkLost when not open."""
        if self._events is None:
            raise LinkLost("replay: not open")
        if self._next is None:
            self._next = next(self._events, None)
        if self._next is None:
            self._next = EndOfSource(utc_ns=time.time_ns())
        if self._wait_s(self._next) > timeout_s:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, self._wait_s(self._next)))
        event, self._next = self._next, None
        return event

    def acknowledge(self, source_ref: str) -> None:
        """A recording needs none: it stays where it is."""

    def close(self) -> None:
        """Forget where it was."""
        self._events = None
        self._next = None
        if self._readers is not None and self._readers is not self._given:
            self._readers.close()
        self._readers = None

    def _wait_s(self, event: Event) -> float:
        """Return how long `event` must still wait for its time."""
        if self._config.speed == 0 or isinstance(event, EndOfSource | Rejected):
            return 0.0
        if self._first_utc_ns is None:
            self._first_utc_ns, self._began_s = _utc_ns(event), time.monotonic()
        due_s = (_utc_ns(event) - self._first_utc_ns) / 1e9 / self._config.speed
        return self._began_s + due_s - time.monotonic()

    def _play(self, files: list[Path], readers: ForeignFiles) -> Iterator[Event]:
        for path in files:
            try:
                if self.tap is not no_tap:
                    self.tap("file", path.name, path.read_bytes())
                events = deque(scan_events(readers.recording(path).scan, str(path)))
            except (DataError, OSError) as error:  # told as a scan that cannot be read; the others are played
                yield Rejected(
                    source_ref=str(path), utc_ns=time.time_ns(), reason=str(error), source=path.name,
                    source_sha256=_sha256(path),
                )  # fmt: skip
                continue
            while events:  # nothing of a scan is held on to while the next one is read
                yield events.popleft()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _utc_ns(event: Event) -> int:
    return int(event.column_utc_ns[0]) if isinstance(event, LineBlock) else event.utc_ns


def scan_events(scan: Scan, source_ref: str) -> list[Event]:
    """Return the events that make up `scan`, in order of their times."""
    timed: list[tuple[int, int, Event]] = []

    def add(utc_ns: int, event: Event) -> None:
        timed.append((utc_ns, len(timed), event))

    if scan.radiograph is not None:
        for event in _radiograph_events(scan, scan.radiograph, source_ref):
            add(_utc_ns(event), event)
    else:
        for flag in scan.quality:
            if flag.code == "radiograph_unreadable":
                rejected = Rejected(
                    source_ref=source_ref, utc_ns=scan.start_utc_ns, reason=flag.reason, source=scan.source,
                    source_sha256=scan.source_sha256, sidecar=scan.sidecar, attachments=scan.attachments,
                )  # fmt: skip
                add(scan.start_utc_ns, rejected)
    if scan.portal is not None:
        start, end = scan.portal.start_utc_ns, scan.portal.end_utc_ns
        add(start, Occupancy(phase="entered", utc_ns=start, source_ref=source_ref))
        add(end, Occupancy(phase="left", utc_ns=end, source_ref=source_ref, record=scan.portal))
    if scan.declaration is not None:
        seen = DeclarationSeen(utc_ns=scan.start_utc_ns, declaration=scan.declaration, source_ref=source_ref)
        add(scan.start_utc_ns, seen)
    timed.sort(key=lambda item: item[:2])
    events = [event for _, _, event in timed]
    # After the first event, so that it joins the passage which that one begins.
    first_utc_ns = _utc_ns(events[0]) if events else scan.start_utc_ns
    remark = Remark(
        utc_ns=first_utc_ns, quality=scan.quality, devices=scan.devices, source_ref=source_ref,
        declaration_match=scan.declaration_match,
    )  # fmt: skip
    events[1:1] = [remark, *scan.lane_events]  # before what they go to is complete
    return events


def _radiograph_events(scan: Scan, image: Radiograph, source_ref: str) -> Iterator[Event]:
    times = image.column_utc_ns
    yield ScanStart(
        source_ref=source_ref, utc_ns=int(times[0]), detector=image.detector, source=scan.source,
        source_sha256=scan.source_sha256, sidecar=scan.sidecar, attachments=scan.attachments,
    )  # fmt: skip
    for first in range(0, image.columns, BLOCK_COLUMNS):
        part = slice(first, min(first + BLOCK_COLUMNS, image.columns))
        yield LineBlock(
            source_ref=source_ref, first_column=first, counts=tuple(c[part] for c in image.counts),
            column_utc_ns=times[part], position_mm=None if image.position_mm is None else image.position_mm[part],
        )  # fmt: skip
    yield ScanEnd(
        source_ref=source_ref, utc_ns=int(times[-1]), reason=image.end_reason, dropped_columns=image.dropped_columns
    )
