"""Threads that compute the strips of one image side by side, the calling thread among them.

A caller that sleeps while two pool threads work wakes both at once, and the kernel puts both on one core often enough
to cost a third of the speed until its balancer comes by (2 threads of 17.9 ms took 22.8 with the same CPU time). One
that works itself keeps its core, and the other thread is woken on the idle one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")


class StripWorkers:
    """A pool whose `map` has the caller take part. Close it, or use it as a context manager.

    threads : that compute at the same time, 1 or more; with 1 no thread is started and `map` is Python's own
    """

    def __init__(self, threads: int) -> None:
        helpers = threads - 1
        self._pool = ThreadPoolExecutor(helpers, thread_name_prefix="strips") if helpers > 0 else None
        self._asked: Future[None] | None = None
        self._asked_s = 0.0

    def map(self, run: Callable[..., T], *arguments: Iterable[Any]) -> Iterator[T]:
        """Return an iterator of run's results, in the order of the arguments, as Python's `map` does.

        The threads begin at once. The first call, and each that no thread has begun when its turn comes, runs in the
        caller as it iterates. If a call raises, those not begun are dropped and those begun are waited for before it
        is raised again: nothing writes into the caller's buffers afterwards.
        """
        calls = list(zip(*arguments, strict=False))
        if self._pool is None or len(calls) < 2:
            return map(run, *zip(*calls, strict=True)) if calls else iter(())
        futures = [self._pool.submit(run, *call) for call in calls[1:]]
        return _results(run, calls, futures)

    def standing_s(self) -> float:
        """Return for how long the threads have not answered, and ask them anew if they have; ask now and then.

        An image is judged without a thread that has stopped, as its caller then computes all strips: nothing but this
        question notices. Any of the threads answers it; of two that compute, one is the caller, and one is asked.
        """
        if self._pool is None:
            return 0.0
        if self._asked is None or self._asked.done():
            self._asked, self._asked_s = self._pool.submit(_here), time.monotonic()
        return time.monotonic() - self._asked_s

    def close(self) -> None:
        """Wait for the threads and stop them."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> StripWorkers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _here() -> None:
    """Answer."""


def _results(run: Callable[..., T], calls: list[tuple[Any, ...]], futures: list[Future[T]]) -> Iterator[T]:
    try:
        yield run(*calls[0])
        for call, future in zip(calls[1:], futures, strict=True):
            yield run(*call) if future.cancel() else future.result()
    finally:
        begun = [future for future in futures if not future.cancel()]
        wait(begun)
