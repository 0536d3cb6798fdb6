"""Telling of what others can cause as often as they like, without letting them fill a disk by it."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST = 400
"""Characters of a text that somebody else had a part in."""


class Sparing:
    """Leave to tell: `burst` times at once, then once every `every_s` seconds; what was passed over is counted."""

    def __init__(self, burst: int, every_s: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._every_s = burst, every_s
        self._monotonic = monotonic
        self._left = float(burst)
        self._at_s = monotonic()
        self._passed_over = 0
        self.count = 0
        """How often it was asked."""

    def ask(self) -> str | None:
        """Return what to add to the text, which is how many were passed over since the last, or None: say nothing."""
        self.count += 1
        now_s = self._monotonic()
        self._left = min(float(self._burst), self._left + (now_s - self._at_s) / self._every_s)
        self._at_s = now_s
        if self._left < 1.0:
            self._passed_over += 1
            return None
        self._left -= 1.0
        passed_over, self._passed_over = self._passed_over, 0
        return f" ({passed_over} more since the last told, {self.count} in all)" if passed_over else ""


def one_line(text: str) -> str:
    """Return a text that somebody else had a part in as it may stand in a log: printable, and not too long."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return "".join(c if c.isprintable() else "�" for c in short)
