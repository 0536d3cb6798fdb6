"""Reading files that others wrote, in processes that can do nothing but read them.

A parser of images or of HDF5 is a large program in C that a crafted file may take over or break. So the file is read by
a child: forked for it from a clean process (`spawner`), confined (`confine`) to 2 GiB, 10 s of processor time, the one
file and the libraries, and ended after it. Its answer is not believed but checked (`answers`). What a reader's death or
silence means is told as a DataError of its file; the process that asked goes on.

    with Sandbox() as sandbox:
        value = sandbox.run(task, contents, name="scan.png", ask=options, answer=Radiograph)
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import msgspec

from ..errors import ConfigError, DataError, LinkLost, TruncatedError
from . import answers
from .answers import NotBelievedError
from .confine import Confinement, Limits
from .spawner import MAX_MESSAGE, Broken, Ended, FromSpawner, Job, Ready, Start

__all__ = ["Confinement", "Limits", "NotBelievedError", "Sandbox", "Task", "Used", "end_put_by", "put_by"]

START_S = 60.0
"""A spawner must have imported within; that takes 0.3 s of an idle core."""
GRACE_S = 5.0
"""So long after a reader's own time a spawner must have told of its end."""
_PIPE_BYTES = 1 << 20
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from scanner_io.sandbox.spawner import main; main(int(sys.argv[1]))"


class Task(msgspec.Struct, frozen=True):
    """A kind of file: where its reader is, `function(file, name, ask)`.

    The reader is given a binary file object, what messages call the file, and the options, of its annotation's type.

    imports : modules to import before the first file
    warm_up : function of the module to call before the first file, on a sample of its own making
    """

    module: str
    function: str
    imports: tuple[str, ...] = ()
    warm_up: str = ""


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What the last reader took. peak_bytes : most memory it held, libraries included."""

    cpu_s: float
    wall_s: float
    peak_bytes: int


class Sandbox:
    """Readers of foreign files, of any number of kinds; one file at a time, for any thread. Closed, it stays closed.

    require : refuse to read where this system cannot confine a reader as a whole, instead of reading with what is left
    """

    def __init__(self, *, require: bool = False, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.used: Used | None = None
        self._require = require
        self._lock = threading.Lock()
        self._spawners: dict[Task, _Spawner] = {}
        self._closed = False

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def prepare(self, task: Task) -> None:
        """Begin to start what the first file of this kind will need; does not wait for it."""
        with self._lock:
            self._spawner(task)

    def confinement(self, task: Task) -> Confinement:
        """Return what holds readers of this kind here, as tried out.

        Raises ConfigError if that is not all and all is required, LinkLost if no reader can be started.
        """
        with self._lock:
            return self._ready(task).confinement

    def run(self, task: Task, file: int | bytes | memoryview, *, name: str, ask: Any, answer: Any) -> Any:
        """Return what the reader of `task` gives for a file.

        file : an open descriptor, or the file's bytes; name : what messages call it
        ask : options of the reader; answer : type of what it must give

        Raises DataError, of the file: what its reader says, or that it died or did not come to an end (TruncatedError
        where the reader says that the end is missing); ConfigError and LinkLost as `confinement` does, and LinkLost
        when another thread closes the sandbox.
        """
        # bytes of a name that are no text have no place in a message
        name = name.encode("utf-8", "backslashreplace").decode()
        with self._lock, _descriptor(file) as descriptor, _descriptor(msgspec.msgpack.encode(ask)) as options:
            spawner = self._ready(task)
            job = Job(name=name, limits=self.limits)
            try:
                received, ended = spawner.read(job, descriptor, options)
            except LinkLost:
                self._discard(task)
                if self._closed:
                    raise LinkLost(f"{name}: its reader was stopped, because the sandbox was closed") from None
                raise
            self.used = Used(cpu_s=ended.cpu_s, wall_s=ended.wall_s, peak_bytes=ended.peak_bytes)
            return _believed(received, ended, job, answer)

    def close(self) -> None:
        """End all readers. May be called by any thread, any time, twice."""
        self._closed = True
        idle = self._lock.acquire(blocking=False)
        if not idle:
            for spawner in list(self._spawners.values()):
                spawner.kill()  # the thread that waits for its reader is set free by this
            self._lock.acquire()
        try:
            for task in list(self._spawners):
                if idle and self._spawners[task].put_by():
                    del self._spawners[task]
                else:
                    self._discard(task)
        finally:
            self._lock.release()

    def _spawner(self, task: Task) -> _Spawner:
        if self._closed:
            raise LinkLost("sandbox: is closed, and reads no more")
        if task not in self._spawners:
            self._spawners[task] = _put_by.pop(task) if task in _put_by else _Spawner(task)
        return self._spawners[task]

    def _ready(self, task: Task) -> _Spawner:
        spawner = self._spawner(task)
        try:
            spawner.wait_until_ready()
        except LinkLost:
            self._discard(task)
            raise
        if self._require and not spawner.confinement.whole:
            raise ConfigError(
                [f"sandbox: required, but this system gives only: {spawner.confinement}; use a kernel with both, or "
                 'sandbox = "auto"']
            )  # fmt: skip
        return spawner

    def _discard(self, task: Task) -> None:
        spawner = self._spawners.pop(task, None)
        if spawner is not None:
            spawner.close()


class _Spawner:
    """The process behind one task, from this side."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.confinement = Confinement(landlock=0, system_calls=False)
        self._is_ready = False
        # packets, so that a message is whole or not there
        self._control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [str(Path(p or ".").resolve()) for p in sys.path]
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- this interpreter, no words of others
                [sys.executable, "-I", "-S", "-c", _BOOT, str(far.fileno()), *path],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                env=_environment(), pass_fds=(far.fileno(),),
            )  # fmt: skip
        except OSError as error:
            self._control.close()
            raise LinkLost(f"sandbox: no process can be started ({error}); see the limits of this service") from error
        finally:
            far.close()
        start = Start(module=task.module, function=task.function, imports=task.imports, warm_up=task.warm_up)
        self._send(msgspec.msgpack.encode(start), [])

    def wait_until_ready(self) -> None:
        """Wait for the imports of the process. Raises LinkLost if it does not come up."""
        if self._is_ready:
            return
        match self._hear(time.monotonic() + START_S):
            case Ready() as ready:
                self.confinement = ready.confinement
                self._is_ready = True
            case other:
                text = other.text if isinstance(other, Broken) else str(other)
                raise LinkLost(f"sandbox: readers of {self._task.function} cannot be started ({text})")

    def read(self, job: Job, descriptor: int, options: int) -> tuple[answers.Received | NotBelievedError | None, Ended]:
        """Have a file read; return the answer, or what was wrong with it, or None if there is none; and the end.

        Raises LinkLost if the spawner itself fails.
        """
        deadline_s = time.monotonic() + job.limits.wall_s + GRACE_S
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                with contextlib.suppress(OSError):  # a small pipe is as good, only slower
                    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
                self._send(msgspec.msgpack.encode(job), [descriptor, writing, options])
            finally:
                os.close(writing)
            received: answers.Received | NotBelievedError | None = None
            try:
                received = answers.receive(answers.Source(reading, lambda: _readable(reading, deadline_s)))
            except (EOFError, TimeoutError):
                pass  # how the reader ended tells why
            except NotBelievedError as error:
                received = error
        finally:
            os.close(reading)
        match self._hear(deadline_s):
            case Ended() as ended:
                return received, ended
            case other:
                raise LinkLost(f"sandbox: {job.name}: {other.text if isinstance(other, Broken) else other}")

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._control, [message], descriptors)
        except OSError as error:
            raise LinkLost(f"sandbox: the process that readers come from does not listen ({error})") from error

    def _hear(self, deadline_s: float) -> FromSpawner:
        if not _readable(self._control.fileno(), deadline_s):
            raise LinkLost(f"sandbox: the process that readers of {self._task.function} come from is silent")
        try:
            message = self._control.recv(MAX_MESSAGE)
        except ConnectionResetError:  # it ended with a job unread
            message = b""
        if not message:
            raise LinkLost(f"sandbox: the process that readers of {self._task.function} come from has ended")
        told: FromSpawner = msgspec.msgpack.decode(message, type=FromSpawner)
        return told

    def kill(self) -> None:
        """End the process, and with it the reader that it may have. For any thread."""
        self._process.kill()

    def put_by(self) -> bool:
        """Keep the process for the next sandbox: it has parsed nothing foreign, and starting it took 0.3 s."""
        if not self._is_ready or self._process.poll() is not None:
            return False
        return _put_by.setdefault(self._task, self) is self

    def holds(self) -> tuple[int, int]:
        """Return the number of the process and the descriptor of its socket."""
        return self._process.pid, self._control.fileno()

    def close(self) -> None:
        """End the process and forget it."""
        self._process.kill()
        self._process.wait()
        self._control.close()


_put_by: dict[Task, _Spawner] = {}
"""Processes between two sandboxes. Each ends by itself when this interpreter does, since its socket is closed then."""


def put_by() -> list[tuple[int, int]]:
    """Return process number and socket of what is kept for the next sandbox."""
    return [spawner.holds() for spawner in list(_put_by.values())]


@atexit.register
def end_put_by() -> None:
    """End what is kept for the next sandbox."""
    while _put_by:
        _put_by.popitem()[1].close()


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        # Filters of HDF5 are code: none is loaded by the word of a file.
        "HDF5_PLUGIN_PATH": "/nonexistent",
        "HDF5_PLUGIN_PRELOAD": "::",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(256_000_000),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "OPENCV_FOR_THREADS_NUM": "1",
    }


def _readable(descriptor: int, deadline_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline_s - time.monotonic()) * 1e3))


@contextlib.contextmanager
def _descriptor(file: int | bytes | memoryview) -> Iterator[int]:
    """Give a descriptor of a file, or of a file in memory with these bytes."""
    if isinstance(file, int):
        os.lseek(file, 0, os.SEEK_SET)
        yield file
        return
    with _memory_file() as memory:
        left = memoryview(file)
        while left:
            left = left[os.write(memory, left) :]
        os.lseek(memory, 0, os.SEEK_SET)
        yield memory


@contextlib.contextmanager
def _memory_file() -> Iterator[int]:
    try:
        memory = os.memfd_create("scanlane", os.MFD_CLOEXEC)
    except OSError as error:
        raise LinkLost(f"sandbox: no memory for a file ({error})") from error
    try:
        yield memory
    finally:
        os.close(memory)


def _believed(received: answers.Received | NotBelievedError | None, ended: Ended, job: Job, answer: Any) -> Any:
    """Return the value of an answer that is whole and of the right types. Raises DataError otherwise."""
    if received is None:
        raise DataError(f"{job.name}: {_death(ended, job.limits)}; {_ADVICE}")
    try:
        if isinstance(received, NotBelievedError):
            raise received
        if received.head.error:
            _raise(received.head, job)
        return answers.value_of(received, answer)
    except NotBelievedError as error:
        raise NotBelievedError(f"{job.name}: its reader gave {error}, which no sound reader does; {_ADVICE}") from error


_ADVICE = "the file is damaged or made to do harm: look at it on a machine of its own"


def _raise(head: answers.Head, job: Job) -> NoReturn:
    text = "".join(c if c.isprintable() or c == "\n" else "�" for c in head.text[: answers.MAX_ERROR_CHARS])
    if head.error == "TruncatedError":
        raise TruncatedError(text)
    if head.error == "MemoryError":
        limit = job.limits.memory_bytes >> 20
        raise DataError(f"{job.name}: {text}, which is {limit} MiB; {_ADVICE}")
    raise DataError(text)


def _death(ended: Ended, limits: Limits) -> str:
    """Say in words how a reader ended that gave no answer."""
    after = f"after {ended.wall_s:.1f} s"
    if ended.timed_out:
        return f"its reader did not come to an end within {limits.wall_s:g} s and was stopped"
    if ended.signal == signal.SIGXCPU or (ended.signal == signal.SIGKILL and ended.cpu_s >= limits.cpu_s):
        return f"its reader took more than {limits.cpu_s} s of processor time and was stopped"
    if ended.signal == signal.SIGKILL:
        return f"its reader was killed {after}, perhaps because the machine has no memory left"
    if ended.signal:
        name = signal.Signals(ended.signal).name if ended.signal in set(signal.Signals) else str(ended.signal)
        limit = limits.memory_bytes >> 20
        return f"its reader crashed ({name}) {after}, allowed {limit} MiB and {limits.cpu_s} s"
    return f"its reader ended without an answer (exit code {ended.code}) {after}"
