"""A second copy of a service's state, made while it runs, checked when it is made, and the way back.

The databases are copied first, each as it is at one moment, then every recording that the copied outbox tells of, with
its hash held against the outbox's: what is not as it was recorded is told and not taken. What the copy has already is
not copied again. `manifest.json` comes last and holds the hash of everything; a copy without it is not one.

Not in it: keys, which are secret, and the configuration, which is the site's; both are kept elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from scanner_io import __version__, disk
from scanner_io.errors import DataError, StorageError
from scanner_io.storage import PART, Part, make_folder, settle, write_durable

MANIFEST = "manifest.json"
OUTBOX = "outbox.sqlite"
RECORDINGS = "recordings"
KEPT = {".sqlite", ".json", ".jsonl"}
"""What a service keeps beside recordings: outbox, declarations, what lanes remember. Anything else is not its state."""
NOT_KEPT = {RECORDINGS, "quarantine"}
_PIECE = 1 << 20


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a copy. path : below the copy and below the state folder"""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a copy holds. state_dir : where it was; the outbox names recordings by it"""

    software: str
    made_utc_ns: int
    state_dir: str
    files: tuple[Entry, ...]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did. problems : recordings that are not, or no longer, as they were recorded, and are not in it"""

    files: int
    copied: int
    bytes_copied: int
    problems: tuple[str, ...]


def backup(state: Path, target: Path, progress: Callable[[int], Callable[[], None]] = lambda _: lambda: None) -> Made:
    """Bring the copy of a state folder in `target` up to date.

    progress : is told how many recordings there are, and gives what is called for each

    Raises StorageError if the state has no outbox, or the copy cannot be written.
    """
    state, target = state.resolve(), target.resolve()
    if not (state / OUTBOX).is_file():
        raise StorageError(f"{state}: has no {OUTBOX}; give the state_dir of a service. PostgreSQL has pg_dump")
    if target == state or state in target.parents:
        raise StorageError(f"{target}: lies in the state folder that it is to be a copy of; give another disk")
    make_folder(target, 0o700)
    known = {e.path: e for e in _manifest(target).files} if (target / MANIFEST).is_file() else {}
    entries: list[Entry] = []
    copied = size = 0
    problems = []
    for source in _beside_recordings(state):
        name = source.relative_to(state).as_posix()
        make_folder((target / name).parent, 0o700)
        entries.append(
            _database(source, target / name, name) if source.suffix == ".sqlite" else _small(source, target, name)
        )
        copied += 1
        size += entries[-1].size
    rows = _recordings(target / OUTBOX)
    advance = progress(len(rows))
    for path, sha256 in rows:
        name = f"{RECORDINGS}/{_below(path, state)}" if _below(path, state) else ""
        try:
            if not name:
                problems.append(f"{path}: lies outside {state / RECORDINGS} and is not copied")
                continue
            there = known.get(name)
            if there is not None and there.sha256 == sha256 and _has(target / name, there.size):
                entries.append(there)
                continue
            make_folder((target / name).parent, 0o700)
            entries.append(_copy(Path(path), target / name, name, sha256))
            copied += 1
            size += entries[-1].size
        except DataError as error:
            problems.append(str(error))
        finally:
            advance()
    manifest = Manifest(
        software=f"scanlane {__version__}", made_utc_ns=time.time_ns(), state_dir=str(state),
        files=tuple(sorted(entries, key=lambda e: e.path)),
    )  # fmt: skip
    write_durable(target / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)), replace=True, mode=0o600)
    return Made(files=len(entries), copied=copied, bytes_copied=size, problems=tuple(problems))


def check(target: Path, progress: Callable[[int], Callable[[], None]] = lambda _: lambda: None) -> list[str]:
    """Return what is wrong with a copy: files that are missing or not as they were. Raises StorageError: no copy."""
    manifest = _manifest(target)
    advance = progress(len(manifest.files))
    problems = []
    for entry in manifest.files:
        path = target / entry.path
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != entry.sha256:
                problems.append(f"{path}: SHA-256 is {found}, the manifest says {entry.sha256}")
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror})")
        advance()
    return problems


def restore(
    target: Path, state: Path, progress: Callable[[int], Callable[[], None]] = lambda _: lambda: None
) -> int:  # fmt: skip
    """Make a state folder from a copy; return how many files it has. The outbox comes last.

    Raises StorageError if there is something in `state` already or it cannot be written, DataError naming the first
    file of the copy that is not as it was; nothing that a service would take for its outbox is left behind then.
    """
    manifest = _manifest(target)
    state = state.resolve()
    if state.exists() and any(state.iterdir()):
        raise StorageError(f"{state}: is not empty; a state that is there is never written over, move it away first")
    make_folder(state)
    advance = progress(len(manifest.files))
    for entry in sorted(manifest.files, key=lambda e: e.path == OUTBOX):
        path = state / entry.path
        make_folder(path.parent)
        place = path.with_name(f"{path.name}.restored{PART}") if entry.path == OUTBOX else path
        _copy(target / entry.path, place, entry.path, entry.sha256)
        if entry.path == OUTBOX:
            _move_paths(place, manifest.state_dir, str(state))
            settle(place)
            disk.io().rename(place, path)
            settle(path)
        advance()
    return len(manifest.files)


def _manifest(target: Path) -> Manifest:
    path = target / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise StorageError(f"{path}: cannot be read ({error}); without it this is no whole copy of a state") from error
    for entry in manifest.files:
        parts = PurePosixPath(entry.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise StorageError(f"{path}: names {entry.path!r}, which lies outside the copy; it was tampered with")
    return manifest


def _beside_recordings(state: Path) -> Iterator[Path]:
    """Yield the files of a state folder but its recordings and what was put aside as broken."""
    for path in sorted(state.rglob("*")):
        first = path.relative_to(state).parts[0]
        if first not in NOT_KEPT and path.suffix in KEPT and path.is_file() and not path.is_symlink():
            yield path


def _recordings(outbox: Path) -> list[tuple[str, str]]:
    """Return path and hash of every recording that an outbox holds for whole."""
    with closing(sqlite3.connect(f"{outbox.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        try:
            return [
                (str(p), str(h))
                for p, h in database.execute("SELECT path, sha256 FROM scans WHERE kept='whole' ORDER BY scan_id")
            ]
        except sqlite3.Error as error:
            raise StorageError(
                f"{outbox}: {error}; start this version's service once, it brings the outbox up to date"
            ) from error


def _below(path: str, state: Path) -> str:
    """Return where a recording lies below the recordings' folder; empty if elsewhere."""
    for one, root in ((Path(path), state), (Path(os.path.realpath(path)), Path(os.path.realpath(state)))):
        if one.is_relative_to(root / RECORDINGS):
            return one.relative_to(root / RECORDINGS).as_posix()
    return ""


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _database(source: Path, target: Path, name: str) -> Entry:
    """Copy a database that may be in use, as it is at one moment."""
    part = target.with_name(f"{target.name}.new{PART}")
    try:
        disk.io().unlink(part) if part.exists() else None
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as one,
            closing(sqlite3.connect(part)) as two,
        ):
            one.backup(two)
            two.execute("PRAGMA journal_mode=DELETE")
            verdict = two.execute("PRAGMA quick_check").fetchone()[0]
        if verdict != "ok":
            raise StorageError(f"{source}: is damaged ({verdict}); the copy that there was is kept")
        settle(part)
        disk.io().rename(part, target)
        settle(target)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{source}: cannot be copied to {target} ({error})") from error
    with target.open("rb") as file:
        return Entry(path=name, size=target.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _small(source: Path, target: Path, name: str) -> Entry:
    contents = source.read_bytes()
    write_durable(target / name, contents, replace=True, mode=0o600)
    return Entry(path=name, size=len(contents), sha256=hashlib.sha256(contents).hexdigest())


def _copy(source: Path, target: Path, name: str, sha256: str) -> Entry:
    """Copy a file of a known hash durably. Raises DataError if it is not as it was: nothing is written then."""
    try:
        with source.open("rb") as file:
            size = source.stat().st_size
            with Part(target, size, replace=True, mode=0o600) as part:
                found = _pour(file, part)
                if found != sha256:
                    raise DataError(f"{source}: SHA-256 is {found}, recorded was {sha256}; it is not copied")
                part.commit()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}); it is not copied") from error
    return Entry(path=name, size=size, sha256=sha256)


def _pour(source: BinaryIO, part: Part) -> str:
    digest = hashlib.sha256()
    while piece := source.read(_PIECE):
        digest.update(piece)
        part.write(memoryview(piece))
    return digest.hexdigest()


def _move_paths(outbox: Path, before: str, now: str) -> None:
    """Tell an outbox that its recordings lie elsewhere now. What is in the audit names scans and stays as it was."""
    with closing(sqlite3.connect(outbox)) as database, database:
        for table in ("scans", "unjudged"):
            database.execute(
                f"UPDATE {table} SET path = ? || substr(path, ?) WHERE substr(path, 1, ?) = ?",  # noqa: S608 -- fixed words
                (now, len(before) + 1, len(before) + 1, f"{before}/"),
            )
