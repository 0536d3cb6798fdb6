"""What is asked of the file system where something must last: one small layer, so that a test can let each call fail.

Every write of the product that must survive goes through `io()`: recordings, quarantine, filed-away sources, keys,
profiles, checkpoints, what a lane remembers. It does what the system does and adds nothing. A test of faults puts
another `Disk` in its place with `use`, in which the n-th call is refused, is done by half, or is the last thing that
the process does. SQLite and PostgreSQL have their own way to the disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Space(NamedTuple):
    """Room on a file system.

    free : bytes that this user can still take; total : bytes, with those in use; files : that can still be made
    """

    free: int
    total: int
    files: int = 1 << 62


class Disk:
    """The system's calls, as they are. Every one raises OSError."""

    def open(self, path: Path, flags: int, mode: int = 0o640) -> int:
        """Open a file to be written, or a folder to be synced; return the descriptor. Never inherited by a child."""
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write at the descriptor's place; return how many bytes were taken, which may be fewer."""
        return os.write(descriptor, data)

    def pwrite(self, descriptor: int, data: bytes | memoryview, at: int) -> int:
        """Write at a place of the file; return how many bytes were taken, which may be fewer."""
        return os.pwrite(descriptor, data, at)

    def allocate(self, descriptor: int, size: int) -> None:
        """Take room for the first `size` bytes of a file, which read as zeros."""
        os.posix_fallocate(descriptor, 0, size)

    def truncate(self, descriptor: int, size: int) -> None:
        """Set the length of a file."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until all of a file or folder is on the disk. An error is final: a second call would say yes."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, at once; what had that name is gone."""
        os.rename(source, target)  # noqa: PTH104

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name. A symbolic link is not followed."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Take a name away; with the last one goes the file."""
        os.unlink(path)  # noqa: PTH108

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        """Make a folder; mode : less the process's mask."""
        os.mkdir(path, mode)  # noqa: PTH102

    def rmdir(self, path: Path) -> None:
        """Take an empty folder away."""
        os.rmdir(path)  # noqa: PTH106

    def space(self, path: Path) -> Space:
        """Return how much room the file system of `path` has."""
        told = os.statvfs(path)
        unlimited = told.f_files == 0  # btrfs and others make room for files as they come
        return Space(
            free=told.f_bavail * told.f_frsize, total=told.f_blocks * told.f_frsize,
            files=1 << 62 if unlimited else told.f_favail,
        )  # fmt: skip


_in_force = Disk()


def io() -> Disk:
    """Return the disk in force in this process."""
    return _in_force


def use(disk: Disk) -> Disk:
    """Put another disk in force, for tests of faults; return the one that was."""
    global _in_force
    before, _in_force = _in_force, disk
    return before


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the descriptor's place. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[_in_force.write(descriptor, left) :]
