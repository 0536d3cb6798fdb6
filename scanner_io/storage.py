"""Writing a file so that it is either whole or not there.

`.part` beside the target -> write, fsync -> rename -> fsync of the folder. A killed writer leaves at most a `.part`; a
full disk is an error before anything visible exists. An fsync error means that the file cannot be trusted and is never
retried: the kernel drops the dirty pages and a second fsync reports success.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import errno
import hashlib
import itertools
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from . import disk
from .errors import StorageError

PART = ".part"
_DIRECT = 1 << 16
"""Writes from this size on go straight to the disk."""
_PIECE = 1 << 20
_WRITE_BACK = 4 << 20
_NOT_RESERVED = {
    errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS,  # this file system cannot
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG,  # it has not as much
}  # fmt: skip


def write_durable(
    path: Path, data: bytes | bytearray | memoryview, *, replace: bool = False, mode: int = 0o640
) -> None:  # fmt: skip
    """Write `data` to `path` durably.

    replace : allow an existing file to be exchanged for the new one (atomically); otherwise it is refused.
    mode : rights of the file, from its first moment on

    Raises StorageError naming the path and the system's reason; nothing visible is left behind then.
    """
    view = memoryview(data).cast("B")
    with Part(path, len(view), replace=replace, mode=mode) as part:
        part.write(view)
        part.commit()


class Part:
    """A file that is being written and appears under its name only by `commit`: a file object for h5py as well.

    Large writes go to the disk at once, in any order, and are not kept in memory; small ones, a file's structure, are
    kept until `commit`, where libhdf5 reads them back and changes them often. What touches a large one goes to the disk
    as well. Leaving the block without `commit` leaves nothing behind.

    libhdf5 never hears of an error of the disk, because after ENOSPC its flush is a segmentation fault: the first one
    is kept, what follows is not written, and `commit` raises it.

    path : None for a file that stays in memory, see `contents`
    room : bytes expected; the disk is asked for them at once, memory is not
    replace : allow an existing file to be exchanged for this one
    mode : rights of the file, less the process's mask
    """

    def __init__(self, path: Path | None, room: int, *, replace: bool = False, mode: int = 0o640) -> None:
        self._path = path
        self._size = self._at = 0
        self._memory = _pages(room)
        self._on_disk: list[tuple[int, int]] = []
        """Half-open ranges of the file that are on the disk, in order, apart from each other."""
        self._begun = 0
        self._failure: OSError | None = None
        self._descriptor: int | None = None
        self._part: Path | None = None
        if path is None:
            return
        if not replace and path.exists():
            raise StorageError(f"{path}: exists already; a recording is never overwritten")
        self._part = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}{PART}")
        try:
            self._descriptor = disk.io().open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
            _reserve(self._descriptor, room)
        except OSError as error:
            self._discard()
            raise _refused(path, error) from error

    def __enter__(self) -> Part:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._discard()

    @property
    def contents(self) -> memoryview:
        """What has been written; only of a file in memory."""
        assert self._descriptor is None
        return memoryview(self._memory)[: self._size]

    def commit(self, *, hashed: bool = False) -> str:
        """Make the file durable and visible; return the SHA-256 of its bytes (hex) if asked for.

        Raises StorageError, the first error of the disk since the beginning; nothing visible is left behind then,
        unless all that failed is to make the name itself durable.
        """
        assert self._path is not None and self._descriptor is not None and self._part is not None
        try:
            if self._failure is not None:
                raise self._failure
            self._settle()
            with ThreadPoolExecutor(1, "file hash") as beside:
                sha256 = beside.submit(_sha256, self._descriptor) if hashed else None
                disk.io().sync(self._descriptor)
                digest = "" if sha256 is None else sha256.result()
            disk.io().rename(self._part, self._path)
            self._part = None
            sync_folder(self._path.parent)
        except OSError as error:
            self._discard()
            raise _refused(self._path, error) from error
        return digest

    def _settle(self) -> None:
        """Write what was kept: all that is not on the disk yet."""
        assert self._descriptor is not None
        at = 0
        for first, end in (*self._on_disk, (self._size, self._size)):
            if at < first:
                _write_at(self._descriptor, memoryview(self._memory)[at:first], at)
            at = end
        disk.io().truncate(self._descriptor, self._size)

    def _discard(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._part is not None:
            with contextlib.suppress(OSError):  # it never came to be; or the next start puts it aside
                disk.io().unlink(self._part)
            self._part = None

    # -- what h5py asks of a file

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def write(self, data: memoryview) -> int:
        """Write at the place. Never raises OSError, see above."""
        count = len(data)
        if not count:
            return 0
        end = self._at + count
        if self._descriptor is not None and (count >= _DIRECT or self._touched(self._at, end)):
            self._write_direct(data, end)
        else:
            self._make_room(end)
            self._memory[self._at : end] = data
        self._at = end
        self._size = max(self._size, end)
        return count

    def _make_room(self, end: int) -> None:
        if end > len(self._memory):
            larger = _pages(2 * end)
            larger[: len(self._memory)] = self._memory[:]
            self._memory = larger

    def _touched(self, first: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges on the disk that share a byte with [first, end)."""
        at = bisect.bisect_left(self._on_disk, first, key=lambda r: r[1])
        found = []
        while at < len(self._on_disk) and self._on_disk[at][0] < end:
            if self._on_disk[at][1] > first:
                found.append(self._on_disk[at])
            at += 1
        return found

    def _write_direct(self, data: memoryview, end: int) -> None:
        assert self._descriptor is not None
        touched = self._touched(self._at, end)
        for one in touched:
            self._on_disk.remove(one)
        bounds = [self._at, end, *(bound for one in touched for bound in one)]
        bisect.insort(self._on_disk, (min(bounds), max(bounds)))
        if self._failure is None:
            try:
                _write_at(self._descriptor, data, self._at)
                self._begin_writing_back(end)
            except OSError as error:
                self._failure = error

    def _begin_writing_back(self, end: int) -> None:
        """Let the disk begin with what was written up to `end`, so that fsync has little left to wait for.

        Only a hint: whether the disk took it is what fsync says. Measured on 40 MB: fsync waits 1 ms instead of 12.
        """
        if _sync_file_range is not None and end - self._begun >= _WRITE_BACK:
            _sync_file_range(self._descriptor, self._begun, end - self._begun, _START_WRITING)
            self._begun = end

    def readinto(self, data: memoryview) -> int:
        """Read back what was written. After an error of the disk, what is on it reads as zeros."""
        end = min(self._at + len(data), self._size)
        self._make_room(end)
        data[: end - self._at] = memoryview(self._memory)[self._at : end]
        for one in self._touched(self._at, end) if self._failure is None else ():
            self._read_direct(data, max(one[0], self._at), min(one[1], end))
        count, self._at = end - self._at, end
        return count

    def _read_direct(self, data: memoryview, first: int, end: int) -> None:
        assert self._descriptor is not None
        try:
            piece = os.pread(self._descriptor, end - first, first)
            data[first - self._at : first - self._at + len(piece)] = piece
        except OSError as error:
            self._failure = error

    def read(self, count: int = -1) -> bytes:
        """Read back what was written, as `readinto`."""
        rest = max(self._size - self._at, 0)
        data = bytearray(rest if count < 0 else min(count, rest))
        self.readinto(memoryview(data))
        return bytes(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        self._size = self._at if size is None else size
        return self._size

    def flush(self) -> None:
        """Nothing: `commit` is what counts."""


def _pages(room: int) -> mmap.mmap:
    """Return zeroed memory of which only what is touched is used."""
    return mmap.mmap(-1, max(room, _PIECE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _reserve(descriptor: int, room: int) -> None:
    """Ask the disk for the space at once: a third faster than growing. A refusal is left to the writes themselves.

    What is asked for is an upper bound: a disk that has not as much may well hold the compressed file.
    """
    if room:
        try:
            disk.io().allocate(descriptor, room)
        except OSError as error:
            if error.errno not in _NOT_RESERVED:
                raise
            disk.io().truncate(descriptor, 0)  # what a refused reservation may hold


def _write_at(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        count = disk.io().pwrite(descriptor, data, at)
        data, at = data[count:], at + count


def _libc_function(name: str, *arguments: Any) -> Any:
    """Return a function of the C library; None where it has none of this name."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is not None:
        function.argtypes = arguments
    return function


_sync_file_range = _libc_function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


def _sha256(descriptor: int) -> str:
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(descriptor, _PIECE, at):
        digest.update(piece)
        at += len(piece)
    return digest.hexdigest()


def _refused(path: Path, error: OSError) -> StorageError:
    hint = "free space on this disk" if error.errno == errno.ENOSPC else "check the disk and the rights"
    return StorageError(f"{path}: cannot be written ({error.strerror or error}); {hint}")


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make `folder` and what is missing above it, durably: a synced file in a lost folder is lost.

    mode : rights of `folder`, less the process's mask

    Raises OSError.
    """
    missing = [f for f in (folder, *folder.parents) if not f.is_dir()]
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):  # made by another lane in this moment
            disk.io().mkdir(one, mode if one == folder else 0o777)
        try:
            sync_folder(one.parent)
        except OSError:
            with contextlib.suppress(OSError):  # another one may have put something in
                disk.io().rmdir(one)  # a second sync would say yes and prove nothing: it is made anew then
            raise


def sync_folder(folder: Path) -> None:
    """Make renames and creations in `folder` durable. Raises OSError."""
    descriptor = disk.io().open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        disk.io().sync(descriptor)
    finally:
        os.close(descriptor)


def settle(path: Path) -> None:
    """Make a file durable that a process which has ended left there. Raises OSError.

    Only for one in which this process has not met an error: where a sync has failed, another one proves nothing.
    """
    descriptor = disk.io().open(path, os.O_RDONLY)
    try:
        disk.io().sync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def free_name(folder: Path, path: Path) -> Path:
    """Return where a file may go in `folder`: under its own name, with a number, or, after a hundred, with the time.

    Who always uses the same name has thousands there, and each new one would try them all.
    """
    names = itertools.chain((path.name,), (f"{path.stem}.{count}{path.suffix}" for count in range(1, 100)))
    free = (folder / name for name in names if not os.path.lexists(folder / name))
    return next(free, folder / f"{path.stem}.{time.time_ns()}{path.suffix}")


def move_aside(path: Path, folder: Path, reason: str) -> Path:
    """Move `path` into `folder` under a name that is free there, with `NAME.reason.txt` beside it; return where it is.

    The reason is on the disk first: nothing lies there unexplained, and what could not be moved is where it was.

    Raises StorageError. Nothing is overwritten or deleted.
    """
    try:
        make_folder(folder)
        target = free_name(folder, path)
        why = target.with_name(target.name + ".reason.txt")
        write_durable(why, reason.encode("utf-8", "backslashreplace") + b"\n", replace=True)
        disk.io().rename(path, target)
        sync_folder(folder)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: cannot be moved to {folder} ({error}); check rights and space") from error
    return target


def quarantine_parts(folder: Path, quarantine: Path) -> list[Path]:
    """Move every `.part` left in `folder` by a killed writer to `quarantine`; return where they are now.

    Called once at start, before any writer runs in `folder`. Raises StorageError.
    """
    if not folder.is_dir():
        return []
    return [
        move_aside(part, quarantine, "the writer ended before this file was complete; kept for inspection")
        for part in sorted(folder.rglob(f"*{PART}"))
        if part.is_file()
    ]
