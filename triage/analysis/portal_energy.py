"""Energy windows of a portal: what a vehicle without a source can never do to them.

A shadow only takes radiation away, and it takes soft radiation first. Of the windows of the recorded portal the softest
loses 1.4 times as much as all together, then 1.1, 0.7 and 0.35 times (25 passes without a source, 17 % deep; the same
in either half of them). How much more, depends on the vehicle, and one truck does not tell; so only the directions are
made use of, which hold for any matter in the way:

    soft    the share of the windows from the softest up to any other does not rise
    hard    the counts from any window up to the hardest do not rise above the background before entry

A source breaks the first if it is softer than the background, as shielded or enriched material is, at any depth of the
shadow; and the second if it is harder and stronger than what the shadow takes from those windows, which is little. Both
are tested exactly, over all cuts between windows and over 1, 2 and 4 s anywhere, times the number of these looks.

Windows must not overlap, and the first must be the softest. In the recorded lines (AS) both hold: counts of different
windows do not move together (covariance of neighbours -0.3, 4.5 and 1.4 of 55 to 105, errors 2.2, 2.0 and 1.4), and
what they hold beyond the gross counts, 2 to 3 %, goes with the first window alone: it reaches below the threshold of
the gross counts. Windows that hold more than SURPLUS of it overlap, and are not judged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

Floats = npt.NDArray[np.float64]

WINDOWS_S = (1.0, 2.0, 4.0)
BACKGROUND_S = 20.0
"""Time that the windows' background is a mean of: it is told in twentieths of a count (AB1)."""
SHARE_ALLOWANCE = 0.03
"""By how much a soft share may rise for nothing, as a share of it: room for bodies so thin that they scatter more than
they absorb, which no record shows. In the recorded passes it falls, by 7 % under a shadow of 17 %."""
DRIFT_ALLOWANCE = 0.02
"""By how much the background may rise since it was taken: two and a half times `portal_baseline.BACKGROUND_ERROR`."""
SURPLUS = 1.1
"""Largest sum of the windows' background over the gross one's. Recorded: 1.026 to 1.028."""


class WindowExcess(NamedTuple):
    """The least likely look.

    p_value : over all looks
    first, end : half-open range of intervals
    low, high : half-open range of windows that hold too much
    seen, expected : their counts, and the most that innocence gives; `of` all counts, for a share, else 0
    """

    p_value: float
    first: int
    end: int
    low: int
    high: int
    seen: float
    expected: float
    of: float

    def words(self, windows: int, interval_s: float) -> str:
        """Say what was high, where, against what."""
        named = f"energy windows {self.low + 1} to {self.high}" if self.high - self.low > 1 else ""
        named = named or f"energy window {self.low + 1}"
        verb = "hold" if self.high - self.low > 1 else "holds"
        where = f"in {(self.end - self.first) * interval_s:.1f} s (intervals {self.first} to {self.end - 1})"
        if self.of:
            share, most = 100 * self.seen / self.of, 100 * self.expected / self.of
            against = f"against {most:.1f} % before entry, with allowance; a shadow lowers it"
            return f"{named} of {windows} {verb} {share:.1f} % of the gamma counts {where} {against}"
        against = f"against {self.expected:.0f} before entry, with allowance; a shadow lowers them"
        return f"{named} of {windows} {verb} {self.seen:.0f} gamma counts {where} {against}"


def window_excess(counts: npt.NDArray[np.int64], rate: Floats, interval_s: float) -> WindowExcess | None:
    """Return the least likely look at a passage's windows, None where there is none.

    counts : `(intervals, windows)`, the softest first
    rate : `(windows,)` counts/s before entry
    """
    if counts.shape[0] == 0 or counts.shape[1] < 2 or rate.sum() <= 0:
        return None
    below = np.cumsum(counts, axis=1, dtype=np.float64)
    softer = np.cumsum(rate)
    best, looks = WindowExcess(2.0, 0, 1, 0, 1, 0.0, 0.0, 0.0), 0
    for seconds in WINDOWS_S:
        width = min(max(1, round(seconds / interval_s)), len(counts))
        on = np.lib.stride_tricks.sliding_window_view(below, width, axis=0).sum(axis=2)
        total, span_s = on[:, -1:], width * interval_s
        share = np.minimum(softer[:-1] / softer[-1] * (1 + SHARE_ALLOWANCE), 1.0)
        most = (softer[-1] - softer[:-1]) * (1 + DRIFT_ALLOWANCE)
        for p, hard in ((soft_p(on[:, :-1], total, share, softer[-1]), False),
                        (hard_p(total - on[:, :-1], span_s, most), True)):  # fmt: skip
            looks += p.size
            i, cut = (int(k) for k in np.unravel_index(int(p.argmin()), p.shape))
            if p[i, cut] >= best.p_value:
                continue
            of = float(total[i, 0])
            seen = of - float(on[i, cut]) if hard else float(on[i, cut])
            expected = float(most[cut]) * span_s if hard else float(share[cut]) * of
            low, high = (cut + 1, len(rate)) if hard else (0, cut + 1)
            best = WindowExcess(float(p[i, cut]), i, i + width, low, high, seen, expected, 0.0 if hard else of)
    return best._replace(p_value=min(1.0, max(best.p_value * looks, 1e-300)))


def soft_p(on: Floats, total: Floats, share: Floats, rate: float) -> Floats:
    """Return the chance of `on` or more of `total` counts in windows that hold `share` of the background.

    The background's share was counted too, in BACKGROUND_S: its error widens the binomial as so many fewer counts do.
    """
    fewer = 1 / (1 + total / max(rate * BACKGROUND_S, 1.0))
    p = betainc(np.maximum(on * fewer, 1e-9), (total - on) * fewer + 1.0, share)
    return np.asarray(np.where((on > 0) & (share < 1), p, 1.0))


def hard_p(on: Floats, span_s: float, rate: Floats) -> Floats:
    """Return the chance of `on` counts or more in span_s from a rate that was itself counted for BACKGROUND_S.

    Source: Przyborowski and Wilenski, Biometrika 31 (1940) 313.
    """
    p = betainc(np.maximum(on, 1e-9), rate * BACKGROUND_S + 1.0, span_s / (span_s + BACKGROUND_S))
    return np.asarray(np.where(on > 0, p, 1.0))
