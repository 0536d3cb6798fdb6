"""Faults between SQLite and the disk: its own virtual file system, with a fault wherever a `FaultyDisk` decides on one.

SQLite reaches the disk by a table of functions per open file. Every file is opened by the system's own file system;
then its table is exchanged for a copy in which write, truncate and sync meet their fault first. Nothing else changes,
locks and shared memory included.

Source: https://www.sqlite.org/c3ref/io_methods.html, https://www.sqlite.org/c3ref/vfs.html (structures, version 3).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import sqlite3
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, cast, pointer
from pathlib import Path
from typing import Any, ClassVar

from .faults import FaultyDisk

OK, FULL = 0, 13
IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, IOERR_DELETE, CANTOPEN = 778, 1034, 1546, 2570, 14

_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)
_Close = CFUNCTYPE(c_int, c_void_p)
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)


class _Methods(Structure):
    _fields_: ClassVar[Any] = [
        ("version", c_int), ("close", _Close), ("read", c_void_p), ("write", _Write), ("truncate", _Truncate),
        ("sync", _Sync), *[(f"other_{n}", c_void_p) for n in range(13)],
    ]  # fmt: skip


class _File(Structure):
    _fields_: ClassVar[Any] = [("methods", POINTER(_Methods))]


class _Vfs(Structure):
    _fields_: ClassVar[Any] = [
        ("version", c_int), ("file_size", c_int), ("longest_path", c_int), ("next", c_void_p), ("name", c_char_p),
        ("data", c_void_p), ("open", _Open), ("delete", _Delete), *[(f"other_{n}", c_void_p) for n in range(14)],
    ]  # fmt: skip


def put_between(disk: FaultyDisk) -> bool:
    """Let every database that this process opens from now on meet the faults of `disk`; False if that cannot be.

    It needs the very library that Python's sqlite3 uses; one that is built into Python cannot be reached.
    """
    name = ctypes.util.find_library("sqlite3")
    if name is None:
        return False
    library = ctypes.CDLL(name)
    library.sqlite3_libversion.restype = c_char_p
    mapped = Path("/proc/self/maps").read_text()
    if library.sqlite3_libversion().decode() != sqlite3.sqlite_version or name not in mapped:
        return False
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    library.sqlite3_vfs_find.argtypes = [c_char_p]
    library.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
    _between.append(_Between(library.sqlite3_vfs_find(None), disk))
    return bool(library.sqlite3_vfs_register(pointer(_between[-1].vfs), 1) == OK)


_between: list[_Between] = []
"""Kept for as long as the process lives: SQLite points there."""


class _Between:
    def __init__(self, system: Any, disk: FaultyDisk) -> None:
        self._system, self._disk = system, disk
        self._paths: dict[int, Path] = {}
        self._own: dict[int, tuple[Any, _Methods]] = {}
        """By the address of the system's table: that table, and its copy with faults."""
        self.vfs = _Vfs.from_buffer_copy(system.contents)
        self.vfs.name = b"scanlane-faults"
        self.vfs.open, self.vfs.delete = _Open(self._open), _Delete(self._delete)

    def _open(self, _: Any, name: int | None, file: int, flags: int, told: Any) -> int:
        # The very pointer is passed on: more than the name lies there.
        path = Path(ctypes.string_at(name).decode() if name else "?")
        try:
            self._disk.meet("sqlite open", path)
        except OSError:
            cast(file, POINTER(_File)).contents.methods = POINTER(_Methods)()  # SQLite must not close it
            return CANTOPEN
        code: int = self._system.contents.open(self._system, name, file, flags, told)
        if code == OK:
            self._paths[file] = path
            here = cast(file, POINTER(_File)).contents
            here.methods = pointer(self._with_faults(here.methods))
        return code

    def _with_faults(self, table: Any) -> _Methods:
        address = ctypes.addressof(table.contents)
        if address not in self._own:
            system = _Methods.from_buffer_copy(table.contents)
            own = _Methods.from_buffer_copy(table.contents)

            def write(file: int, data: int, size: int, at: int) -> int:
                def half() -> int:
                    return int(system.write(file, data, size // 2, at))

                return self._met("sqlite write", file, IOERR_WRITE, lambda: system.write(file, data, size, at), half)

            def truncate(file: int, size: int) -> int:
                return self._met("sqlite truncate", file, IOERR_TRUNCATE, lambda: system.truncate(file, size))

            def sync(file: int, flags: int) -> int:
                return self._met("sqlite sync", file, IOERR_FSYNC, lambda: system.sync(file, flags))

            own.write, own.truncate, own.sync = _Write(write), _Truncate(truncate), _Sync(sync)
            self._own[address] = (system, own)
        return self._own[address][1]

    def _met(self, what: str, file: int, code: int, done: Any, half: Any = None) -> int:
        try:
            if self._disk.meet(what, self._paths.get(file, Path("?")), half=half):
                half()  # the system's own file system takes a short write for a full disk
                return FULL
        except OSError as error:
            return FULL if error.errno == errno.ENOSPC and what == "sqlite write" else code
        return int(done())

    def _delete(self, _: Any, name: bytes, sync_folder: int) -> int:
        try:
            self._disk.meet("sqlite delete", Path(name.decode()))
        except OSError:
            return IOERR_DELETE
        return int(self._system.contents.delete(self._system, name, sync_folder))
