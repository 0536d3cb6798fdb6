"""Who does a batch's tasks: Dask's workers, of this machine or of a cluster that runs already.

Dask's scheduler keeps all in memory, and one that is open runs whatever it is sent by anyone who reaches it. So tasks
may be lost at any time and are handed out again, and a scheduler elsewhere must speak TLS with certificates.
Sources: distributed's documentation on TLS, and on `allowed-failures` of a task whose worker ends.
"""

from __future__ import annotations

import pickle
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import distributed
from distributed.scheduler import KilledWorker

from scanner_io.config import is_loopback
from scanner_io.errors import ConfigError, DataError, LinkLost

from .batch import Answer

_CLOSED = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.http.routes": [],  # its pages show to all users of the machine what is done
    "distributed.worker.http.routes": [],
}
AHEAD = 4
"""Tasks handed out per worker: enough that none waits for this process."""
LOOK_S = 0.5
RECONNECT_S = 2.0


class Cluster:
    """Workers of Dask; a context manager.

    scheduler : address of one that runs, None: workers of this machine
    count : workers of this machine
    wait_s : how long a scheduler that is gone is waited for

    Raises ConfigError where the scheduler could be reached by strangers, LinkLost where it is not there.
    """

    def __init__(
        self, scheduler: str | None, count: int, *, tls: tuple[Path, Path, Path] | None = None, wait_s: float = 600.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._scheduler, self._wait_s, self._say = scheduler, wait_s, say
        self._security: Any = None
        if scheduler is None:
            # A port of this machine is open to all its users: they meet a certificate made for this run.
            self._security = distributed.Security.temporary()
        elif tls is not None:
            ca, certificate, key = map(str, tls)
            self._security = distributed.Security(
                require_encryption=True, tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key
            )
        elif not is_loopback(scheduler):
            raise ConfigError(
                [f"--scheduler {scheduler}: runs whatever it is sent; give its certificates with --tls-ca, --tls-cert "
                 "and --tls-key, or an address of this machine"]
            )  # fmt: skip
        self._count = count
        self._local: Any = None
        self._client: Any = None
        self._open()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the scheduler; workers of this machine end."""
        self._let_go()
        if self._local is not None:
            self._local.close()
            self._local = None
            self._scratch.cleanup()

    @property
    def count(self) -> int:
        """Workers that are there now."""
        if self._scheduler is None:
            return self._count
        return sum(w["nthreads"] for w in self._client.scheduler_info(n_workers=-1)["workers"].values())

    def _open(self) -> None:
        if self._scheduler is None and self._local is None:
            self._scratch = TemporaryDirectory(prefix="scanlane-batch-")
            with dask.config.set(_CLOSED):
                self._local = distributed.LocalCluster(
                    n_workers=self._count, threads_per_worker=1, processes=True, host="127.0.0.1",
                    security=self._security, dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
                    local_directory=self._scratch.name, silence_logs="CRITICAL",
                )  # fmt: skip
        where = self._scheduler if self._local is None else self._local
        try:
            self._client = distributed.Client(where, security=self._security, timeout=10, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise LinkLost(
                f"scheduler {self._scheduler}: does not answer ({error}); start it, or leave it out"
            ) from error

    def _let_go(self) -> None:
        if self._client is not None:
            self._client.close(timeout=2)
            self._client = None

    def _reconnect(self) -> None:
        self._say(f"scheduler {self._scheduler} is gone; waiting for one at the same address")
        until_s = time.monotonic() + self._wait_s
        self._let_go()
        while True:
            try:
                self._open()
            except LinkLost:
                if time.monotonic() > until_s:
                    raise
                time.sleep(RECONNECT_S)
            else:
                self._say(f"scheduler {self._scheduler} is there again")
                return

    def __call__(
        self, work: Callable[[bytes, Any], bytes], plan: bytes, tasks: Iterator[tuple[int, Any]]
    ) -> Iterator[Answer]:
        """Yield an answer for every task, in any order. Raises LinkLost if the scheduler does not come back.

        tasks : number, and what `work` is given beside the plan
        """
        tasks = iter(tasks)
        again: deque[tuple[int, Any]] = deque()
        at_work: dict[Any, tuple[int, Any]] = {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        while True:
            most = AHEAD * max(1, self.count)
            while len(at_work) < most and (task := again.popleft() if again else next(tasks, None)) is not None:
                future = self._client.submit(work, plan, task[1], pure=False)
                at_work[future] = task
                future.add_done_callback(ended.put)
            if not at_work:
                return
            done = _drain(ended, LOOK_S)
            if self._client.status != "running":
                again.extend(at_work.values())
                at_work.clear()
                ended = queue.SimpleQueue()
                self._reconnect()
                continue
            yield from self._answers([f for f in done if f in at_work], at_work, again)

    def _answers(
        self, futures: list[Any], at_work: dict[Any, tuple[int, Any]], again: deque[tuple[int, Any]]
    ) -> Iterator[Answer]:
        """Yield what these ended with; what was lost with a worker or the scheduler is put back."""
        finished = [f for f in futures if f.status == "finished"]
        try:
            rows = self._client.gather(finished) if finished else []
        except (OSError, TimeoutError, distributed.CancelledError):  # the scheduler, or who held them, went meanwhile
            rows = []
            again.extend(at_work.pop(f) for f in finished)
        for future, row in zip(finished, rows, strict=False):
            yield Answer(number=at_work.pop(future)[0], row=row)
        for future in futures:
            if future not in at_work:
                continue
            task = at_work.pop(future)
            error = future.exception() if future.status == "error" else None
            if error is None:
                again.append(task)
            elif isinstance(error, KilledWorker):
                yield Answer(number=task[0], row=None, words=str(error))
            else:  # the task catches what a file can do; this is a fault of the worker's installation
                raise LinkLost(f"a worker cannot judge {task[1]}: {type(error).__name__}: {error}") from error


class ClusterMap(Executor):
    """What calls a function for many arguments on a cluster's workers, as a pool of processes does.

    Answers that are here stay here: a worker or a scheduler that ends costs what it was at. Only `map` is there.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def map(
        self, fn: Callable[..., Any], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[Any]:
        """Yield fn's results in the order of the arguments. Raises DataError for one that ends its workers."""
        given: dict[int, tuple[Any, ...]] = {}

        def tasks() -> Iterator[tuple[int, Any]]:
            for number, call in enumerate(zip(*iterables, strict=False)):
                given[number] = call
                yield number, call

        yield from self._in_order(pickle.dumps(fn), tasks(), given)

    def _in_order(
        self, fn: bytes, tasks: Iterator[tuple[int, Any]], given: dict[int, tuple[Any, ...]]
    ) -> Iterator[Any]:
        early: dict[int, bytes] = {}
        ended: list[int] = []
        due = 0
        for answer in self._cluster(_called, fn, tasks):
            if answer.row is None:  # what its worker was given beside it ends with it
                ended.append(answer.number)
                continue
            del given[answer.number]
            early[answer.number] = answer.row
            while (row := early.pop(due, None)) is not None:
                due += 1
                yield pickle.loads(row)  # noqa: S301 -- of our own workers
        for number in sorted(ended):
            (answer,) = self._cluster(_called, fn, iter([(number, given[number])]))
            if answer.row is None:
                raise DataError(f"{given[number][0]}: ends the process that works on it ({answer.words}); leave it out")
            early[number] = answer.row
        for number in sorted(early):
            yield pickle.loads(early[number])  # noqa: S301 -- of our own workers


def _called(fn: bytes, arguments: tuple[Any, ...]) -> bytes:
    """Call a function on a worker."""
    return pickle.dumps(pickle.loads(fn)(*arguments))  # noqa: S301 -- whoever may use a scheduler may run anything


def _drain(ended: queue.SimpleQueue[Any], timeout_s: float) -> list[Any]:
    """Return what has ended, at the latest after the timeout."""
    try:
        found = [ended.get(timeout=timeout_s)]
    except queue.Empty:
        return []
    while True:
        try:
            found.append(ended.get_nowait())
        except queue.Empty:
            return found
