"""The process that readers are forked from: `main` runs in an interpreter of its own, started for one kind of file.

It imports what the reader needs, once, and forks a child for every file; so a file costs a fork and not the start of an
interpreter, and no child lives to meet a second file: one that has been taken over could turn what follows. Forking is
safe here, as it would not be in a lane: this process has a single thread, which parses nothing but samples of its own.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from ..errors import DataError
from . import answers, attempts
from .confine import Confinement, Limits, confine, die_with_parent

MAX_MESSAGE = 1 << 16
_SELF_TEST = ("read other files", "list folders", "write files", "open a network socket", "start processes")


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first word to a spawner: the reader, and what to import before the first file."""

    module: str
    function: str
    imports: tuple[str, ...]
    warm_up: str


class Job(msgspec.Struct, frozen=True, tag="job"):
    """A file to read; descriptors of the file, of the pipe for the answer, and of the options come with it."""

    name: str
    limits: Limits


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Imported, and tried out what holds a reader here."""

    confinement: Confinement


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """No reader can be started here."""

    text: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A reader has ended.

    signal, code : as the kernel tells; timed_out : it was ended by the spawner
    peak_bytes : most memory it held, what it shares with the spawner included
    """

    signal: int
    code: int
    timed_out: bool
    cpu_s: float
    wall_s: float
    peak_bytes: int


FromSpawner = Ready | Broken | Ended
ToSpawner = Start | Job


def main(control_fd: int) -> None:
    """Serve files until the other end of the control socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that we serve, which then closes us
    with socket.socket(fileno=control_fd) as control:
        try:
            start = msgspec.msgpack.decode(control.recv(MAX_MESSAGE), type=Start)
            reader, form = _reader(start)
            libraries = tuple(_libraries())
            control.send(msgspec.msgpack.encode(Ready(confinement=_self_test(libraries))))
        except Exception as error:
            control.send(msgspec.msgpack.encode(Broken(text=f"{type(error).__name__}: {error}"[:2000])))
            return
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 3)
            if not message:
                return
            job = msgspec.msgpack.decode(message, type=Job)
            file, answer, ask = descriptors
            try:
                ended: FromSpawner = _serve(job, reader, form, file, answer, ask, control, libraries)
            except OSError as error:
                ended = Broken(text=f"no reader could be forked ({error})")
            finally:
                os.close(file)
                os.close(ask)
            control.send(msgspec.msgpack.encode(ended))


def _reader(start: Start) -> tuple[Callable[..., Any], msgspec.msgpack.Decoder[Any]]:
    """Return the reader and what decodes its options, with all done beforehand that would cost every child anew."""
    for name in start.imports:
        importlib.import_module(name)
    module = importlib.import_module(start.module)
    if start.warm_up:
        getattr(module, start.warm_up)()
    reader = getattr(module, start.function)
    form = msgspec.msgpack.Decoder(get_type_hints(reader)["ask"])
    gc.collect()
    gc.freeze()  # a collection in a child would copy the pages that it shares with this process
    return reader, form


def _libraries() -> Iterator[str]:
    """Yield the folders that imports may still need: the standard library, the packages, this one, shared objects."""
    for name in ("stdlib", "platstdlib"):
        yield sysconfig.get_path(name)
    # of installed packages, not of sys.path, which may hold a user's folder
    for module in ("msgspec", "numpy", "h5py", "cv2"):
        if (found := sys.modules.get(module)) is not None and found.__file__ is not None:
            yield str(Path(found.__file__).parent.parent)
    yield str(Path(__file__).parent.parent)
    yield from ("/lib", "/lib64", "/usr/lib", "/usr/lib64")


def _self_test(libraries: tuple[str, ...]) -> Confinement:
    """Return what holds a reader: a child that is confined as one tries to do what none may."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            die_with_parent(parent)
            held = confine(libraries, reading, Limits())
            held = msgspec.structs.replace(held, breaches=attempts.try_all(_SELF_TEST))
            os.write(writing, msgspec.msgpack.encode(held))
        except Exception as error:
            os.write(writing, msgspec.msgpack.encode(f"{type(error).__name__}: {error}"))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        text = told.read()
    os.waitpid(child, 0)
    found = msgspec.msgpack.decode(text, type=Confinement | str)
    if isinstance(found, str):
        raise OSError(f"a reader cannot be confined: {found}")
    return found


def _serve(
    job: Job,
    reader: Callable[..., Any],
    form: msgspec.msgpack.Decoder[Any],
    file: int,
    answer: int,
    ask: int,
    control: socket.socket,
    libraries: tuple[str, ...],
) -> Ended:
    """Fork a child that reads one file, and wait for its end; the pipe's end is left to the child."""
    began_s = time.monotonic()
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:
        os.close(answer)
        raise
    if child == 0:
        code = 1
        try:
            die_with_parent(parent)
            control.close()
            confine(libraries, file, job.limits)
            _read(job, reader, form, file, answer, ask)
            code = 0
        finally:
            os._exit(code)
    os.close(answer)
    watch = os.pidfd_open(child)
    try:
        timed_out = not select.select([watch], [], [], job.limits.wall_s)[0]
        if timed_out:
            signal.pidfd_send_signal(watch, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    finally:
        os.close(watch)
    return Ended(
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        timed_out=timed_out,
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=time.monotonic() - began_s,
        peak_bytes=usage.ru_maxrss * 1024,
    )


def _read(
    job: Job, reader: Callable[..., Any], form: msgspec.msgpack.Decoder[Any], file: int, answer: int, ask: int
) -> None:  # fmt: skip
    """Read the file and write the answer, in the child."""
    try:
        with os.fdopen(ask, "rb", closefd=False) as stream:
            options = form.decode(stream.read())
        with os.fdopen(file, "rb", closefd=False) as stream:
            parts = answers.encode(reader(stream, job.name, options))
            first = next(parts)
        _write(answer, first)
        for part in parts:
            _write(answer, part)
    except BrokenPipeError:
        return
    except MemoryError:
        _fail(answer, "MemoryError", "more memory is needed than a reader may take")
    except DataError as error:
        truncated = any(kind.__name__ == "TruncatedError" for kind in type(error).__mro__)
        _fail(answer, "TruncatedError" if truncated else "DataError", str(error))
    except Exception as error:
        _fail(answer, "DataError", f"{job.name}: the reader failed ({type(error).__name__}: {error})")


def _fail(answer: int, error: answers.Failure, text: str) -> None:
    for part in answers.encode_failure(error, text):
        _write(answer, part)


def _write(answer: int, part: bytes | memoryview) -> None:
    left = memoryview(part)
    while left:
        left = left[os.write(answer, left) :]
