"""A second copy of a service's state, made while it runs, checked when it is made, and the way back.

The databases are copied first, each as it is at one moment, then every recording that the copied outbox tells of, with
its hash held against the outbox's: what is not as it was recorded is told and not taken. What the copy has already is
not copied again: what its manifest tells of, and, of a copy that was cut short, what has the recorded hash.

`manifest.json` holds the hash of everything; a copy without it is not one. Until it is written nothing that the one
before tells of is touched: what takes the place of another file is written as `NAME.new`, and gets its name after the
manifest. So the manifest that is there tells of whole files at every moment: each is under its name or, where its hash
says so, under `NAME.new`; who reads a copy looks at both, and the next `backup` gives the names that are still owed.

Last of all those recordings are removed of which the copied outbox says that the site's policy deleted them. One that
is merely missing in the state stays in the copy, that is what the copy is for.

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
from typing import Any, BinaryIO, NamedTuple

import msgspec

from scanner_io import __version__, disk
from scanner_io.errors import DataError, StorageError
from scanner_io.storage import PART, Part, make_folder, settle, sync_folder, write_durable

MANIFEST = "manifest.json"
OUTBOX = "outbox.sqlite"
RECORDINGS = "recordings"
KEPT = {".sqlite", ".json", ".jsonl"}
"""What a service keeps beside recordings: outbox, declarations, what lanes remember. Anything else is not its state."""
NOT_KEPT = {RECORDINGS, "quarantine"}
NEW = ".new"
"""After the name of a file that is to take the place of another one, until the manifest tells of it."""
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
    """What a backup did.

    removed : recordings that the site's policy had deleted from the state, and that the copy had still
    problems : recordings that are not, or no longer, as they were recorded, and are not in it; or cannot be removed
    """

    files: int
    copied: int
    bytes_copied: int
    removed: int
    problems: tuple[str, ...]


class _Row(NamedTuple):
    """A recording that the outbox holds for whole. path : in the state; size : bytes"""

    path: str
    sha256: str
    size: int


def backup(state: Path, target: Path, progress: Callable[[int], Callable[[], None]] = lambda _: lambda: None) -> Made:
    """Bring the copy of a state folder in `target` up to date.

    progress : is told how many recordings there are, and gives what is called for each

    Raises StorageError if the state has no outbox, or the copy cannot be written: the copy that there was can be
    checked and restored then as before, and the next call goes on where this one ended.
    """
    state, target = state.resolve(), target.resolve()
    if not (state / OUTBOX).is_file():
        raise StorageError(f"{state}: has no {OUTBOX}; give the state_dir of a service. PostgreSQL has pg_dump")
    if target == state or state in target.parents:
        raise StorageError(f"{target}: lies in the state folder that it is to be a copy of; give another disk")
    _folder(target)
    return _Copying(state, target).run(progress)


class _Copying:
    """One run of `backup`. state, target : both resolved, and there"""

    def __init__(self, state: Path, target: Path) -> None:
        self._state, self._target = state, target
        self._known = {e.path: e for e in _manifest(target).files} if (target / MANIFEST).is_file() else {}
        self._entries: list[Entry] = []
        self._unnamed: set[Path] = set()
        """Files that lie under `NAME.new` until the manifest is written; here by their names."""
        self._copied = self._size = 0
        self._problems: list[str] = []

    def run(self, progress: Callable[[int], Callable[[], None]]) -> Made:
        _name(self._owed())  # by a run that ended when its manifest was written
        for source in _beside_recordings(self._state):
            self._take_beside(source)
        outbox = _new(self._target / OUTBOX)
        rows, deleted = _recordings(outbox), _deleted(outbox)
        advance = progress(len(rows))
        for row in rows:
            try:
                self._take_recording(row)
            except DataError as error:
                self._problems.append(str(error))
            finally:
                advance()
        self._write_manifest()
        _name(self._unnamed)
        removed = self._remove(deleted)
        return Made(
            files=len(self._entries), copied=self._copied, bytes_copied=self._size, removed=removed,
            problems=tuple(self._problems),
        )  # fmt: skip

    def _owed(self) -> set[Path]:
        """Return the files that the manifest tells of and that are under `NAME.new` still."""
        paths = {self._target / e.path: e.sha256 for e in self._known.values()}
        return {path for path, sha256 in paths.items() if _found(path, sha256) != path}

    def _take_beside(self, source: Path) -> None:
        name = source.relative_to(self._state).as_posix()
        path = self._target / name
        _folder(path.parent)
        take = _database if source.suffix == ".sqlite" else _small
        self._unnamed.add(path)
        self._count(take(source, _new(path), name))

    def _take_recording(self, row: _Row) -> None:
        """Have a recording in the copy, by copying it only if it is not there. Raises DataError: it is not whole."""
        below = _below(row.path, self._state)
        if not below:
            raise DataError(f"{row.path}: lies outside {self._state / RECORDINGS} and is not copied")
        name = f"{RECORDINGS}/{below}"
        path, known = self._target / name, self._known.get(name)
        if known is not None and known.sha256 == row.sha256 and _has(path, known.size):
            self._entries.append(known)
            return
        another = known is not None and known.sha256 != row.sha256 and path.exists()
        place = _new(path) if another else path
        if _has(place, row.size) and _is(place, row.sha256):  # of a run that was cut short
            _settle(place)
            self._entries.append(Entry(path=name, size=row.size, sha256=row.sha256))
        else:
            _folder(place.parent)
            self._count(_copy(Path(row.path), place, name, row.sha256))
        if another:
            self._unnamed.add(path)

    def _count(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._copied += 1
        self._size += entry.size

    def _write_manifest(self) -> None:
        manifest = Manifest(
            software=f"scanlane {__version__}", made_utc_ns=time.time_ns(), state_dir=str(self._state),
            files=tuple(sorted(self._entries, key=lambda e: e.path)),
        )  # fmt: skip
        contents = msgspec.json.format(msgspec.json.encode(manifest))
        write_durable(self._target / MANIFEST, contents, replace=True, mode=0o600)

    def _remove(self, deleted: list[str]) -> int:
        """Remove what the policy deleted from the state; return how many recordings. What cannot be is a problem."""
        told = {e.path for e in self._entries}
        names = {f"{RECORDINGS}/{below}" for path in deleted if (below := _below(path, self._state))} - told
        folders, removed = set(), 0
        for path in (self._target / name for name in sorted(names)):
            there = [one for one in (path, _new(path)) if os.path.lexists(one)]
            try:
                for one in there:
                    folders.add(one.parent)
                    disk.io().unlink(one)
                removed += bool(there)
            except OSError as error:
                self._problems.append(_stays(path, error))
        for folder in sorted(folders):
            try:
                sync_folder(folder)
            except OSError as error:
                self._problems.append(_stays(folder, error))
        return removed


def check(target: Path, progress: Callable[[int], Callable[[], None]] = lambda _: lambda: None) -> list[str]:
    """Return what is wrong with a copy: files that are missing or not as they were. Raises StorageError: no copy."""
    manifest = _manifest(target)
    advance = progress(len(manifest.files))
    problems = []
    for entry in manifest.files:
        path = _found(target / entry.path, entry.sha256)
        try:
            found = _hash(path)
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
        _copy(_found(target / entry.path, entry.sha256), place, entry.path, entry.sha256)
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


def _recordings(outbox: Path) -> list[_Row]:
    """Return every recording that an outbox holds for whole."""
    query = "SELECT path, sha256, size FROM scans WHERE kept='whole' ORDER BY scan_id"
    return [_Row(str(p), str(h), int(n)) for p, h, n in _rows(outbox, query)]


def _deleted(outbox: Path) -> list[str]:
    """Return the paths of those that the site's policy deleted, not of what it is deleting: that may stay yet.

    Of an erased scan the result is gone as well; its recording went first.
    """
    return [str(p) for (p,) in _rows(outbox, "SELECT path FROM scans WHERE kept IN ('deleted', 'erased')")]


def _rows(outbox: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{outbox.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        try:
            return database.execute(query).fetchall()
        except sqlite3.Error as error:
            raise StorageError(
                f"{outbox}: {error}; start this version's service once, it brings the outbox up to date"
            ) from error


def _below(path: str, state: Path) -> str:
    """Return where a recording lies below the recordings' folder; empty if elsewhere."""
    for one, root in ((Path(path), state), (Path(os.path.realpath(path)), Path(os.path.realpath(state)))):
        if ".." not in one.parts and one.is_relative_to(root / RECORDINGS):
            return one.relative_to(root / RECORDINGS).as_posix()
    return ""


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}{NEW}")


def _found(path: Path, sha256: str) -> Path:
    """Return where a file of the manifest lies: under its name, or under the one that it had before it got that."""
    new = _new(path)
    return new if os.path.lexists(new) and not _is(path, sha256) and _is(new, sha256) else path


def _name(paths: set[Path]) -> None:
    """Give files that are under `NAME.new` their names. Raises StorageError; the copy is whole all the same."""
    for path in sorted(paths):
        try:
            disk.io().rename(_new(path), path)
        except OSError as error:
            raise StorageError(f"{_new(path)}: cannot get its name {path.name} ({error}); {_AGAIN}") from error
    for folder in sorted({path.parent for path in paths}):
        try:
            sync_folder(folder)
        except OSError as error:
            raise StorageError(f"{folder}: its names cannot be made durable ({error}); {_AGAIN}") from error


_AGAIN = "the copy is whole all the same; check its disk and its rights, then make it again"


def _stays(path: Path, error: OSError) -> str:
    return (
        f"{path}: what the site's policy deleted cannot be removed from the copy for certain ({error}); check its disk "
        f"and its rights, the next backup tries again"
    )


def _folder(folder: Path) -> None:
    try:
        make_folder(folder, 0o700)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error}); check the disk of the copy and the rights") from error


def _settle(path: Path) -> None:
    """Make durable what an earlier run left: it may have ended before it did that itself."""
    try:
        settle(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be made durable ({error}); check the disk of the copy") from error


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _is(path: Path, sha256: str) -> bool:
    """Tell whether a file is there and has a hash; it is read whole."""
    try:
        return _hash(path) == sha256
    except OSError:
        return False


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _database(source: Path, target: Path, name: str) -> Entry:
    """Copy a database that may be in use, as it is at one moment."""
    part = target.with_name(f"{target.name}{PART}")
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
    return Entry(path=name, size=target.stat().st_size, sha256=_hash(target))


def _small(source: Path, target: Path, name: str) -> Entry:
    contents = source.read_bytes()
    write_durable(target, contents, replace=True, mode=0o600)
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
