"""Writing a file so that it is either whole or not there.

build in memory -> `.part` beside the target -> fallocate, write, fsync -> rename -> fsync of the folder. A killed
writer leaves at most a `.part`; a full disk is an OSError before anything visible exists. An fsync error means that
the file cannot be trusted and is never retried: the kernel drops the dirty pages and a second fsync reports success.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from .errors import StorageError

PART = ".part"


def write_durable(path: Path, data: bytes | bytearray | memoryview, *, replace: bool = False) -> None:
    """Write `data` to `path` durably.

    replace : allow an existing file to be exchanged for the new one (atomically); otherwise it is refused.

    Raises StorageError naming the path and the system's reason; nothing visible is left behind then.
    """
    if not replace and path.exists():
        raise StorageError(f"{path}: exists already; a recording is never overwritten")
    part = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}{PART}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            _fill(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):  # it never came to be, or was renamed before the failure
            part.unlink()
        hint = "free space on this disk" if error.errno == errno.ENOSPC else "check the disk and the rights"
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}); {hint}") from error


def _fill(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data).cast("B")
    if len(view):
        try:
            os.posix_fallocate(descriptor, 0, len(view))  # a full disk is found here, not half-way through
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it, durably: a synced file in a lost folder is lost. Raises OSError."""
    missing = [f for f in (folder, *folder.parents) if not f.is_dir()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and creations in `folder` durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_aside(path: Path, folder: Path, reason: str) -> Path:
    """Move `path` into `folder` under a name that is free there, with `NAME.reason.txt` beside it; return where it is.

    Raises StorageError. Nothing is overwritten or deleted.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / path.name
        count = 0
        while target.exists() or target.is_symlink():
            count += 1
            target = folder / f"{path.stem}.{count}{path.suffix}"
        path.rename(target)
        target.with_name(target.name + ".reason.txt").write_text(reason + "\n", encoding="utf-8")
        sync_folder(folder)
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
