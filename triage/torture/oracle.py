"""The oracle of "no loss": what the stimulator knows of every scan, held against the disk and the database.

The stimulator drops images, each with a name of its own and a SHA-256. A name counts as acknowledged once the driver
has taken its file away from the folder, which it does when the daemon says that its scan is stored. At the end
    - every acknowledged name has a recording that opens and is whole, and a row that names that recording by its hash;
    - no visible recording fails to open;
    - every flagged scan waits, is with an analyst, is held with an alarm, or is decided;
    - every decision that was acknowledged to an analyst is there exactly once;
    - the audit chain is whole.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scanner_io import recording
from scanner_io.errors import DataError
from triage.service import audit

SIZE = (96, 48)
"""(columns, rows) of a dropped image: small, so that rows spend their time on faults and not on judging."""


class Stimulator:
    """Drops images into a lane's folder and knows what it dropped."""

    def __init__(self, folder: Path, prefix: str = "v", size: tuple[int, int] = SIZE) -> None:
        self.folder, self._prefix, self._size = folder, prefix, size
        self.known: dict[str, str] = {}
        """Name -> SHA-256 of the file."""

    def put(self, count: int = 1, at: Path | None = None) -> list[str]:
        """Drop images as a scanner's export does, under another name first; return their names.

        at : a folder on the same file system in which they are prepared; a full disk takes none in that case
        """
        names = []
        for _ in range(count):
            number = len(self.known)
            name = f"{self._prefix}{number:06d}.png"
            data = png(*self._size, number)
            part = (at or self.folder) / f".{name}.tmp"
            part.write_bytes(data)
            os.rename(part, self.folder / name)  # noqa: PTH104
            self.known[name] = hashlib.sha256(data).hexdigest()
            names.append(name)
        return names

    def waiting(self) -> set[str]:
        """Return the names that the driver has not acknowledged."""
        return {p.name for p in self.folder.glob("*.png")}

    def acknowledged(self) -> set[str]:
        """Return the names whose files the driver has taken away: their scans are stored, it was told."""
        return set(self.known) - self.waiting()


def png(columns: int, rows: int, number: int) -> bytes:
    """Return a grey PNG of a dark box before open beam; every `number` gives other bytes."""
    rng = np.random.default_rng(number)
    image = np.full((rows, columns), 250, np.uint8)
    image[rows // 5 : rows - rows // 5, columns // 8 : -columns // 8] = 90 + number % 60
    image -= rng.integers(0, 4, image.shape, dtype=np.uint8)
    raw = b"".join(b"\0" + line.tobytes() for line in image)

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(raw, 1)) + part(b"IEND", b"")


class Found(NamedTuple):
    """What the oracle found. Everything but `acknowledged` and `rows` must be empty."""

    acknowledged: int
    rows: int
    lost: list[str]
    unopenable: list[str]
    twice: list[str]
    forgotten: list[str]
    decisions_lost: list[str]
    audit_problems: list[str]

    def figure(self) -> dict[str, Any]:
        """Return the counts, for a row."""
        return {name: v if isinstance(v, int) else len(v) for name, v in self._asdict().items()}

    def words(self) -> str:
        """Return the first of every kind of what is wrong."""
        return "; ".join(f"{name}: {v[0]}" for name, v in self._asdict().items() if isinstance(v, list) and v)


NO_LOSS = {
    "lost": "== 0", "unopenable": "== 0", "twice": "== 0", "forgotten": "== 0", "decisions_lost": "== 0",
    "audit_problems": "== 0",
}  # fmt: skip


def check(state: Path, stimulators: Iterable[Stimulator], decided: dict[str, str] | None = None) -> Found:
    """Hold a stopped daemon's state folder against what is known. decided : acknowledged decisions, id -> scan"""
    with closing(database(state)) as outbox:
        rows = outbox.execute(
            "SELECT scan_id, path, sha256, outcome, state FROM scans JOIN outbox USING (scan_id)"
        ).fetchall()
        entered = dict(outbox.execute("SELECT decision_id, scan_id FROM decisions").fetchall())
    good: dict[str, list[str]] = {}
    forgotten = []
    for scan_id, path, sha256, outcome, where in rows:
        source = _source_of(Path(path), sha256)
        if source is not None and source[0]:  # what a live device gave has no source that could be named twice
            good.setdefault(source[0], []).append(source[1])
        if outcome != "CLEAR" and where not in ("pending", "leased", "held", "decided"):
            forgotten.append(f"{scan_id} is {outcome} and {where}")
    told = {name: sha for s in stimulators for name, sha in s.known.items()}
    acknowledged = {name for s in stimulators for name in s.acknowledged()}
    return Found(
        acknowledged=len(acknowledged), rows=len(rows),
        lost=[f"{n}: {good.get(n, 'no good recording with a row')}" for n in sorted(acknowledged)
              if told[n] not in good.get(n, [])],
        unopenable=unopenable(state / "recordings"),
        twice=[f"{n} has {c} rows" for n, c in Counter({n: len(v) for n, v in good.items()}).items() if c > 1],
        forgotten=forgotten,
        decisions_lost=[f"{i} on {s}" for i, s in (decided or {}).items() if entered.get(i) != s],
        audit_problems=[p.text for p in audit.verify(state / "outbox.sqlite", None, None).problems],
    )  # fmt: skip


def unopenable(folder: Path, since_ns: int = 0) -> list[str]:
    """Return the visible recordings below `folder`, changed since then, that cannot be read in whole."""
    bad = []
    for path in sorted(folder.rglob(f"*{recording.SUFFIX}")):
        try:
            if path.stat().st_mtime_ns >= since_ns:
                _read(path)
        except FileNotFoundError:  # exchanged for a newer one since it was listed
            continue
        except DataError as error:
            bad.append(str(error))
    return bad


_sound: dict[str, tuple[str, str]] = {}
"""By the hash of a recording that was read in whole: name and hash of the file that it was made of."""


def _read(path: Path) -> tuple[str, str, str]:
    """Return a recording's hash, and name and hash of the file that it was made of. Raises OSError, DataError."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest not in _sound:
        scan = recording.read(path).scan
        _sound[digest] = Path(scan.source).name, scan.source_sha256
    return digest, *_sound[digest]


def _source_of(path: Path, sha256: str) -> tuple[str, str] | None:
    """Return name and hash of the dropped file that a recording was made of; None if it is not as its row says."""
    try:
        digest, name, source_sha256 = _read(path)
    except (OSError, DataError):
        return None
    return (name, source_sha256) if digest == sha256 else None


def database(state: Path) -> sqlite3.Connection:
    """Open the outbox of a state folder, only to be read."""
    return sqlite3.connect(f"{(state / 'outbox.sqlite').resolve().as_uri()}?mode=ro", uri=True)
