"""The other ways to judge a portal's passage, written as well as they can be, on many passages at once.

Each returns one score per passage, the largest of its looks; an alarm is a score at or above a threshold. All of them
presume a flat background, the last published before entry, as the portals and papers they come from do. Every one
looks at all detectors together and at each pillar, as the vendor's rule does, and takes the largest.

Source: vendor's rule, established on 34,720 recorded intervals; k-sigma and CUSUM as in Burr and Hamada, INMM, and
Knoll, Radiation Detection and Measurement; sequential test: Wald (1945), for portals Jarman et al., IEEE TNS 51
(2004), doi 10.1109/TNS.2004.832543.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Peer = Callable[[Ints, Ints, Floats], Floats]
"""(gamma (n, intervals, 4), intervals (n,), background (n, 4) counts/s) -> score (n,)."""

INTERVAL_S = 0.2
VENDOR_INTERVALS = 5
KSIGMA_INTERVALS = (1, 5, 10)
"""0.2, 1 and 2 s: the longest suits a point at 4 km/h, the shortest at 15 km/h."""
CUSUM_RATIO, SPRT_RATIO = 1.1, 1.2
"""Rate they are designed for, over the background. Of 1.05, 1.1, 1.2 and 1.4 these need the weakest source on
simulated passages."""


def _sets(gamma: Ints, background: Floats) -> tuple[Floats, Floats]:
    """Return counts `(n, intervals, 3)` and expectation per interval `(n, 1, 3)`: all, master pillar, slave pillar."""
    master, slave = gamma[:, :, 0] + gamma[:, :, 1], gamma[:, :, 2] + gamma[:, :, 3]
    b = background * INTERVAL_S
    expected = np.stack([b.sum(axis=1), b[:, 0] + b[:, 1], b[:, 2] + b[:, 3]], axis=1)
    return np.stack([master + slave, master, slave], axis=2).astype(np.float64), expected[:, np.newaxis]


def _inside(intervals: Ints, length: int) -> npt.NDArray[np.bool_]:
    """Return `(n, length, 1)`: this interval belongs to the passage."""
    return (np.arange(length)[np.newaxis] < intervals[:, np.newaxis])[:, :, np.newaxis]


def _window_z(gamma: Ints, intervals: Ints, background: Floats, width: int) -> Floats:
    counts, expected = _sets(gamma, background)
    total = np.cumsum(np.concatenate([np.zeros_like(counts[:, :1]), counts], axis=1), axis=1)
    on = total[:, width:] - total[:, :-width]
    z = (on - width * expected) / np.sqrt(width * expected)
    return np.asarray(np.where(_inside(intervals, counts.shape[1])[:, width - 1 :], z, -np.inf).max(axis=(1, 2)))


def vendor(gamma: Ints, intervals: Ints, background: Floats) -> Floats:
    """Score by the vendor's rule: standard deviations of 1 s over the last background."""
    return _window_z(gamma, intervals, background, VENDOR_INTERVALS)


def ksigma(gamma: Ints, intervals: Ints, background: Floats) -> Floats:
    """Score by k-sigma over several windows, without a thought of suppression."""
    return np.asarray(np.max([_window_z(gamma, intervals, background, w) for w in KSIGMA_INTERVALS], axis=0))


def cusum(gamma: Ints, intervals: Ints, background: Floats, ratio: float = CUSUM_RATIO) -> Floats:
    """Score by Poisson CUSUM: S = max(0, S + N ln r - B (r - 1))."""
    counts, expected = _sets(gamma, background)
    step = np.where(_inside(intervals, counts.shape[1]), counts * np.log(ratio) - expected * (ratio - 1), 0.0)
    s = np.zeros_like(step[:, 0])
    best = s.copy()
    for i in range(step.shape[1]):
        s = np.maximum(0.0, s + step[:, i])
        np.maximum(best, s, out=best)
    return np.asarray(best.max(axis=1))


def sprt(gamma: Ints, intervals: Ints, background: Floats, ratio: float = SPRT_RATIO) -> Floats:
    """Score by a sequential test from entry to exit, truncated there: the highest log likelihood ratio on the way.

    It does not end at its lower bound, which would decide for "no source" under the shadow of the first axle.
    """
    counts, expected = _sets(gamma, background)
    step = np.where(_inside(intervals, counts.shape[1]), counts * np.log(ratio) - expected * (ratio - 1), 0.0)
    return np.asarray(np.cumsum(step, axis=1).max(axis=(1, 2)))


PEERS: dict[str, Peer] = {"vendor": vendor, "ksigma": ksigma, "cusum": cusum, "sprt": sprt}
