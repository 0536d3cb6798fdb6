"""A disk whose calls fail as they are told to: one that is full, broken, slow to take all, or the last thing that is
heard of the process.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scanner_io.disk import Disk

CRASHED = 86
"""Exit code of a process that a fault ended."""
SHORT, CRASH = "short", "crash"
"""Half of the bytes are taken; half of the bytes are taken and the process is gone. Other faults are names of errno."""


class Call(NamedTuple):
    """One call on a disk. number : of all its calls, from 1; name : the method; target : of a rename or a link"""

    number: int
    name: str
    path: Path
    target: Path | None = None


Decide = Callable[[Call], str | None]
"""Which fault a call meets, None for none."""


class FaultyDisk(Disk):
    """The disk, with a fault wherever `decide` says so. Safe to use from several threads."""

    def __init__(self, decide: Decide, *, keep: bool = True) -> None:
        """Make it. keep : remember all `calls`"""
        self.calls: list[Call] = []
        self._keep, self._count = keep, 0
        self._decide = decide
        self._lock = threading.Lock()
        self._paths: dict[int, Path] = {}

    def meet(self, name: str, path: Path, target: Path | None = None, half: Callable[[], object] | None = None) -> bool:
        """Count a call and let it meet its fault; True if it is to be done by half.

        half : does half of it, before the process ends

        Raises OSError, the fault.
        """
        with self._lock:
            self._count += 1
            call = Call(self._count, name, path, target)
            if self._keep:
                self.calls.append(call)
            fault = self._decide(call)
        if fault is None:
            return False
        if fault == CRASH:
            if half is not None:
                half()
            os._exit(CRASHED)
        if fault == SHORT:
            return half is not None
        number = getattr(errno, fault)
        raise OSError(number, os.strerror(number), str(path))

    def _at(self, descriptor: int) -> Path:
        return self._paths.get(descriptor, Path("?"))

    def open(self, path: Path, flags: int, mode: int = 0o640) -> int:
        """Open."""
        self.meet("open", path)
        descriptor = super().open(path, flags, mode)
        self._paths[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write, perhaps half."""

        def half() -> int:
            return super(FaultyDisk, self).write(descriptor, memoryview(data)[: (len(data) + 1) // 2])

        if self.meet("write", self._at(descriptor), half=half):
            return half()
        return super().write(descriptor, data)

    def pwrite(self, descriptor: int, data: bytes | memoryview, at: int) -> int:
        """Write, perhaps half."""

        def half() -> int:
            return super(FaultyDisk, self).pwrite(descriptor, memoryview(data)[: (len(data) + 1) // 2], at)

        if self.meet("pwrite", self._at(descriptor), half=half):
            return half()
        return super().pwrite(descriptor, data, at)

    def allocate(self, descriptor: int, size: int) -> None:
        """Allocate."""
        self.meet("allocate", self._at(descriptor))
        super().allocate(descriptor, size)

    def truncate(self, descriptor: int, size: int) -> None:
        """Truncate."""
        self.meet("truncate", self._at(descriptor))
        super().truncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Sync."""
        self.meet("sync", self._at(descriptor))
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename."""
        self.meet("rename", source, target)
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Link."""
        self.meet("link", source, target)
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        """Unlink."""
        self.meet("unlink", path)
        super().unlink(path)

    def mkdir(self, path: Path, mode: int = 0o777) -> None:
        """Make a folder."""
        self.meet("mkdir", path)
        super().mkdir(path, mode)

    def rmdir(self, path: Path) -> None:
        """Take a folder away."""
        self.meet("rmdir", path)
        super().rmdir(path)
