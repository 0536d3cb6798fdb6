"""Which scores innocent passages reach: the constants by which the portal's tests turn scores into p-values.

    scanlane calibrate portal --passes 100000 --seed 1

prints the table that stands in `triage.analysis.portal_tests.NULL_TAILS`. Passages are simulated, without a source; the
evaluation measures the rate with other ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from triage.analysis.portal import PortalProfile
from triage.analysis.portal_tests import SHARES, Assessment, assess
from triage.study.portal_traffic import Passages, Traffic, clean_passages

CHUNK = 500
"""Passages made and judged at a time."""
LEVELS = (1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
SCORED = ("shaped", "level", "one_sided")
"""Tests whose p-values are simulated; the others are exact."""
CALIBRATION, EVALUATION = 1, 2
"""Streams of random numbers, so that no passage serves both."""

Floats = npt.NDArray[np.float64]
Progress = Callable[[], None]


def judge_all(passages: Passages, profile: PortalProfile) -> Iterator[Assessment]:
    """Yield the assessment of every passage."""
    for record in passages.records():
        yield assess(record, neutron_background_s=profile.neutron_background_s, neutron_showers=profile.neutron_showers)


def stream(seed: int, purpose: int, part: int) -> np.random.Generator:
    """Return the random numbers of one part of a study."""
    return np.random.default_rng((seed, purpose, part))


def scores_of_part(seed: int, part: int, count: int) -> Floats:
    """Return `(count, len(SCORED))` scores of clean passages."""
    passages = clean_passages(stream(seed, CALIBRATION, part), count, Traffic())
    rows = []
    for assessed in judge_all(passages, PortalProfile()):
        by_test = {e.test: e.score for e in assessed.evidence}
        rows.append([by_test[name] for name in SCORED])
    return np.array(rows)


def parts(passes: int) -> list[tuple[int, int]]:
    """Return number and size of the parts that make `passes` passages."""
    return [(i, min(CHUNK, passes - i * CHUNK)) for i in range(-(-passes // CHUNK))]


def calibrate_portal(
    passes: int, seed: int, progress: Progress | None = None, pool: Executor | None = None
) -> dict[str, Any]:
    """Return, for every simulated test, the score that each share of passages without a source reaches at most.

    A score stands for a share if the upper 95 % bound on the share of passages that reach it is the share itself; where
    too few passages are left for that, the tail is continued as an exponential with the mean excess of the last 100.
    """
    scores = []
    jobs = [(seed, part, count) for part, count in parts(passes)]
    for part in (pool.map if pool else map)(scores_of_part, *zip(*jobs, strict=True)):
        scores.append(part)
        if progress is not None:
            progress()
    all_scores = np.concatenate(scores)
    tails = {name: tail_of(all_scores[:, i]) for i, name in enumerate(SCORED)}
    return {"passes": passes, "seed": seed, "shares": SHARES, "null_tails": tails}


def upper_bound(reached: int, of: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a share, exact. Source: Clopper and Pearson, Biometrika 26 (1934) 404."""
    return 1.0 if reached >= of else float(betaincinv(reached + 1, of - reached, confidence))


def tail_of(scores: Floats) -> list[tuple[float, float]]:
    """Return (share, score) for LEVELS."""
    ordered = np.sort(scores)[::-1]
    n = len(ordered)
    found = []
    last = min(100, n // 10)
    excess = float((ordered[:last] - ordered[last]).mean())
    for level in LEVELS:
        reached = int(level * n)
        while reached > 0 and upper_bound(reached, n) > level:
            reached -= 1
        if reached >= 10:
            score = float(ordered[reached])
        else:
            score = float(ordered[last]) + excess * float(np.log(last / n / level))
        found.append((level, round(score, 2)))
    return found
