"""`python -m triage.torture.ill …`: scanlane whose judgement meets with an accident at scans of certain sources.

The beginning of the name of a scan's source says which: see ACCIDENTS. A source of another name is judged as always.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Callable
from typing import Any

from scanner_io.model import Scan, TriageResult
from triage.service import lane


def _segv() -> None:
    ctypes.string_at(0)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does to whom it takes the memory away


def _endless() -> None:
    while True:
        pass


def _deadlock() -> None:
    re.match("(a+)+$", "a" * 64 + "b")  # for ages, and nothing else in the process runs meanwhile


ACCIDENTS: dict[str, Callable[[], None]] = {
    "segv": _segv, "oom": _killed, "endless": _endless, "deadlock": _deadlock
}  # fmt: skip


class AccidentProne(lane.Judge):
    """A judge that does not live through some scans."""

    def __call__(self, scan: Scan, *how: Any, **more: Any) -> TriageResult:
        """Judge, or not."""
        for name, accident in ACCIDENTS.items():
            if os.path.basename(scan.source).startswith(name):  # noqa: PTH119 -- of text
                accident()
        return super().__call__(scan, *how, **more)


if __name__ in ("__main__", "__mp_main__"):  # the daemon; a lane, which it spawned
    lane.Judge = AccidentProne  # type: ignore[misc]

if __name__ == "__main__":
    from triage.cli import main

    main()
