"""What a row of the test list comes to: its figures, held against its bar by one piece of code for all rows."""

from __future__ import annotations

import operator
import sys
import time
from typing import Any, NamedTuple

_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}


class Outcome(NamedTuple):
    """What a row found.

    passed : None if it cannot run here, and `note` says why and what stands in
    missed : names of the figures that do not hold their bar
    """

    figure: Any
    bar: str
    passed: bool | None
    note: str = ""
    missed: tuple[str, ...] = ()

    def noting(self, what: str) -> Outcome:
        """Return it with this in its note too."""
        return self._replace(note="; ".join(filter(None, (self.note, what))))


def judged(figure: dict[str, Any], bar: dict[str, str], note: str = "") -> Outcome:
    """Return the outcome of measured figures.

    figure : everything measured, by name
    bar : for each figure that counts, a comparison such as "<= 5" or "== 0". A figure that is missing or None fails it
    """
    missed = tuple(name for name, bound in bar.items() if not holds(figure.get(name), bound))
    text = ", ".join(f"{name} {bound}" for name, bound in bar.items())
    told = "; ".join(filter(None, (note, f"missed: {', '.join(missed)}" if missed else "")))
    return Outcome(figure, text, not missed, told, missed)


def cannot_run(why: str, bar: str = "", figure: dict[str, Any] | None = None) -> Outcome:
    """Return the outcome of a row that cannot run here. figure : of what stood in for it, if anything did."""
    return Outcome(figure or {}, bar, None, why)


def stood_in(outcome: Outcome, why: str) -> Outcome:
    """Return the outcome of what ran in place of the row proper: it may fail, and never counts as passed."""
    return outcome._replace(
        passed=None if outcome.passed else outcome.passed, note="; ".join(filter(None, (why, outcome.note)))
    )


def holds(value: Any, bound: str, *, times: float = 1.0) -> bool:
    """Return whether a figure is within its bound; None never is. times : an upper limit is taken so many times."""
    sign, _, limit = bound.partition(" ")
    if value is None:
        return False
    return bool(_COMPARISONS[sign](float(value), float(limit) * (times if sign[0] == "<" else 1)))


_last_s = 0.0


def say(text: str, *, every_s: float = 0.0) -> None:
    """Tell on stderr how far a row is. every_s : say nothing if something was said so short a time ago."""
    global _last_s
    if time.monotonic() - _last_s < every_s:
        return
    _last_s = time.monotonic()
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def percentile(values: list[float], share: float) -> float | None:
    """Return the value below which `share` of `values` lies, by nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
