"""What a reader that has been taken over would try; run inside a confined process to prove that it cannot.

Each attempt leaves nothing behind where it succeeds. `misbehave` is a reader that does on demand what a crafted file
can make of one; nothing but tests and the list of hostile files asks for it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE = 0x4206
"""Attaches without a stop; it ends with the process that did it."""


def _read_other_file() -> None:
    with open("/etc/passwd", "rb") as file:  # noqa: PTH123 -- pathlib would do more than the one call that is tried
        file.read(1)


def _list_folder() -> None:
    os.listdir("/")  # noqa: PTH208


def _write_file() -> None:
    path = f"/tmp/scanlane-breach-{os.getpid()}"  # noqa: S108 -- made by nobody else, and gone at once
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)  # noqa: PTH108


def _open_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


def _open_local_socket() -> None:
    for end in socket.socketpair():
        end.close()


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _execute() -> None:
    os.execv("/bin/true", ["true"])  # noqa: S606 -- what is tried; there it ends the process


def _trace_parent() -> None:
    _refused(_libc.ptrace(_PTRACE_SEIZE, os.getppid(), None, None))


def _signal_parent() -> None:
    os.kill(os.getppid(), 0)


def _raise_limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _file_in_memory() -> None:
    os.close(os.memfd_create("breach"))


def _refused(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


ATTEMPTS: dict[str, Callable[[], None]] = {
    "read other files": _read_other_file,
    "list folders": _list_folder,
    "write files": _write_file,
    "open a network socket": _open_socket,
    "open a local socket": _open_local_socket,
    "start processes": _fork,
    "trace other processes": _trace_parent,
    "signal other processes": _signal_parent,
    "raise its limits": _raise_limit,
    "make files in memory": _file_in_memory,
    "execute programs": _execute,
}
"""By what a success means. The last one ends a process that it succeeds in."""


def try_all(names: tuple[str, ...] = tuple(ATTEMPTS)) -> tuple[str, ...]:
    """Return those attempts that were not refused."""
    breaches = []
    for name in names:
        try:
            ATTEMPTS[name]()
        except (OSError, ValueError):  # ValueError: Python's word for a limit that may not be raised
            continue
        breaches.append(name)
    return tuple(breaches)


def misbehave(file: BinaryIO, name: str, ask: str) -> Any:
    """Do what `ask` names instead of reading."""
    answer = _MISBEHAVIOUR[ask]()
    return {"tried": answer}


def _loop() -> None:
    while True:
        pass


def _sleep() -> None:
    while True:
        time.sleep(1)


def _take_memory() -> list[bytearray]:
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def _crash() -> None:
    ctypes.string_at(0)


def _many_descriptors() -> list[int]:
    return [os.dup(0) for _ in range(1000)]


def _tell(parts: bytes, times: int = 1) -> None:
    """Write to every pipe there is instead of giving an answer: which descriptor is the answer's is easy to guess."""
    for _ in range(times):
        for descriptor in range(3, 32):
            try:
                os.write(descriptor, parts)
            except OSError:
                continue
    os._exit(0)


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/scanlane-breach-pickle",)


_HUGE_ARRAY = (
    b"\x84\xa5error\xa0\xa4text\xa0\xa6arrays\x91\x92\xa3<f8\x92\xce\x7f\xff\xff\xff\xce\x7f\xff\xff\xff\xa5value\xc0"
)
_MISBEHAVIOUR: dict[str, Callable[[], Any]] = {
    "attempts": try_all,
    "loop": _loop,
    "sleep": _sleep,
    "memory": _take_memory,
    "crash": _crash,
    "descriptors": _many_descriptors,
    "silence": lambda: os._exit(0),
    "endless answer": lambda: _tell(b"\x00\x00\x00\x01" + bytes(1 << 20), 1 << 20),
    "huge head": lambda: _tell(b"\xff\xff\xff\xff"),
    "huge array": lambda: _tell(len(_HUGE_ARRAY).to_bytes(4, "little") + _HUGE_ARRAY),
    "pickle": lambda: _tell(len(pickle.dumps(_Harm())).to_bytes(4, "little") + pickle.dumps(_Harm())),
    "another type": lambda: np.zeros((1000, 1000)),
    "deep head": lambda: _tell((100_000).to_bytes(4, "little") + b"\x91" * 100_000),
}
