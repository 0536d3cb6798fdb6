"""What a reader that has been taken over would try; run inside a confined process to prove that it cannot.

Each attempt leaves nothing behind where it succeeds.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH = 16


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
    _refused(_libc.ptrace(_PTRACE_ATTACH, os.getppid(), None, None))


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
