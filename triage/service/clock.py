"""Whether the computer's clock was set: by an operator, by time service after a long while without, by a leap second.

Nothing here is timed by it, but what happened is dated by it, and scans wait in the order of their dates.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEP_NS = 500_000_000
"""Less than this at once is the clock being slewed, or this process waiting for its turn."""
SURE_NS = 100_000_000


class ClockWatch:
    """Holds the clock against one that nobody can set."""

    def __init__(
        self, *, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = time.monotonic_ns
    ) -> None:  # fmt: skip
        self._wall, self._steady = wall, steady
        self._ahead_ns = wall() - steady()

    def step_ns(self) -> int:
        """Return by how much the clock was set since the last call; 0 if it goes as it should."""
        before = self._steady()
        ahead_ns = self._wall() - before
        if self._steady() - before > SURE_NS:  # this process was stopped between the two looks
            return 0
        moved_ns, self._ahead_ns = ahead_ns - self._ahead_ns, ahead_ns
        return moved_ns if abs(moved_ns) >= STEP_NS else 0
