"""Which scores innocent passages reach: the constants by which the portal's tests turn scores into p-values.

    scanlane calibrate portal --passes 100000 --seed 1

prints the constants that stand in `triage.analysis.portal_null`. Passages are simulated, without a source; the
evaluation measures the rate with other ones.

Tests' tails are as found; the family's are bounds, so that the promise is kept with 95 % confidence and no allowance is
made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import betaincinv, expit

from scanner_io.model import PortalRecord
from triage.analysis.portal import PortalProfile
from triage.analysis.portal_null import LEAST_SCALE, TERMS, Null, standard, tail_p
from triage.analysis.portal_tests import SHARES, Assessment, assess
from triage.study.portal_traffic import Passages, Traffic, clean_passages

CHUNK = 500
"""Passages made and judged at a time."""
LEVELS = (1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
SCORED = ("shaped", "level", "one_sided")
"""Tests whose p-values are simulated; the others are exact."""
BEYOND = 0.05
"""Share of the passages whose scores make the tail: it begins at the standard score 0."""
BLIND_EVERY = 4
"""One in so many passages is also judged as if its speed were not known, which takes three times as long."""
CALIBRATION, EVALUATION = 1, 2
"""Streams of random numbers, so that no passage serves both."""

Floats = npt.NDArray[np.float64]
Progress = Callable[[], None]


def judge_all(passages: Passages, profile: PortalProfile, *, blind: bool = False) -> Iterator[Assessment]:
    """Yield the assessment of every passage; blind: as if its speed were not known."""
    for record in passages.records():
        yield judge(without_speed(record) if blind else record, profile)


def judge(record: PortalRecord, profile: PortalProfile) -> Assessment:
    """Return the assessment of one record."""
    return assess(record, neutron_background_s=profile.neutron_background_s, neutron_showers=profile.neutron_showers)


def without_speed(record: PortalRecord) -> PortalRecord:
    """Return the record of a portal that tells no speed."""
    return msgspec.structs.replace(record, speed_kmh=None)


def stream(seed: int, purpose: int, part: int) -> np.random.Generator:
    """Return the random numbers of one part of a study."""
    return np.random.default_rng((seed, purpose, part))


class Scores(NamedTuple):
    """What n clean passages gave: `(n, TERMS)`, `(n, SCORED)` scores and the neutron test's p-values, `(n,)`."""

    terms: Floats
    scores: Floats
    neutron: Floats


def scores_of_part(seed: int, part: int, count: int) -> dict[str, Scores]:
    """Return the scores of clean passages by kind."""
    passages = clean_passages(stream(seed, CALIBRATION, part), count, Traffic())
    found = {"told": scores_of(judge_all(passages, PortalProfile()))}
    if part % BLIND_EVERY == 0:
        found["blind"] = scores_of(judge_all(passages, PortalProfile(), blind=True))
    return found


def scores_of(assessed: Iterable[Assessment]) -> Scores:
    """Return the scores of passages that were put to all tests."""
    terms, scores, neutron = [], [], []
    for a in assessed:
        by_test = {e.test: e for e in a.evidence}
        terms.append(a.terms)
        scores.append([by_test[name].score for name in SCORED])
        neutron.append(by_test["neutron"].p_value)
    return Scores(np.array(terms), np.array(scores), np.array(neutron))


def parts(passes: int) -> list[tuple[int, int]]:
    """Return number and size of the parts that make `passes` passages."""
    return [(i, min(CHUNK, passes - i * CHUNK)) for i in range(-(-passes // CHUNK))]


def calibrate_portal(
    passes: int, seed: int, progress: Progress | None = None, pool: Executor | None = None
) -> dict[str, Any]:
    """Return the nulls and families of `portal_null`, ready for JSON: of every kind of passage, by test."""
    found: dict[str, list[Scores]] = {"told": [], "blind": []}
    jobs = [(seed, part, count) for part, count in parts(passes)]
    for part in (pool.map if pool else map)(scores_of_part, *zip(*jobs, strict=True)):
        for kind, scores in part.items():
            found[kind].append(scores)
        if progress is not None:
            progress()
    nulls: dict[str, dict[str, Null]] = {}
    families = {}
    for kind, each in found.items():
        all_scores = Scores(*(np.concatenate(column) for column in zip(*each, strict=True)))
        nulls[kind] = {name: null_of(all_scores.scores[:, i], all_scores.terms) for i, name in enumerate(SCORED)}
        families[kind] = family_of(all_scores, nulls[kind])
    told = np.concatenate([part.scores for part in found["told"]])
    # Whatever passes: no terms, and a bound in place of the share that was found.
    tail = tail_of(told[:, SCORED.index("level")], bounded=True)
    flat = tuple((np.eye(len(TERMS))[0] * k).tolist() for k in (0.0, 1.0))
    nulls["bare"] = {"level": Null(flat[0], flat[1], tuple(tail))}
    return {"passes": passes, "seed": seed, "shares": SHARES, "nulls": plain(nulls), "families": families}


def in_python(report: dict[str, Any]) -> str:
    """Return the constants as they stand in `triage.analysis.portal_null`."""
    lines = ["NULLS: dict[str, dict[str, Null]] = {"]
    for kind, tests in report["nulls"].items():
        lines.append(f'    "{kind}": {{')
        for name, null in tests.items():
            lines.append(f'        "{name}": Null(')
            lines += [f"            {tuple(null[key])}," for key in ("start", "scale")]
            lines += [
                "            (",
                *(f"                {tuple(point)}," for point in null["tail"]),
                "            ),",
            ]
            lines.append("        ),")
        lines.append("    },")
    lines += ["}", "FAMILIES: dict[str, tuple[tuple[float, float], ...]] = {"]
    for kind, table in report["families"].items():
        lines += [f'    "{kind}": (', *(f"        {tuple(point)}," for point in table), "    ),"]
    return "\n".join([*lines, "}"])


def plain(nulls: dict[str, dict[str, Null]]) -> dict[str, Any]:
    """Return nulls for JSON."""
    return {kind: {name: null._asdict() for name, null in tests.items()} for kind, tests in nulls.items()}


def null_of(scores: Floats, terms: Floats) -> Null:
    """Return how high `(n,)` scores are by `(n, TERMS)` terms."""
    start = quantile_plane(scores, terms, 1 - BEYOND)
    above = scores - terms @ start
    null = Null(_rounded(start), _rounded(excess_plane(above[above > 0], terms[above > 0])), ())
    return null._replace(tail=tuple(tail_of(standard(null, scores, terms), bounded=False)))


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in values)


def quantile_plane(scores: Floats, terms: Floats, quantile: float) -> Floats:
    """Return the coefficients of the plane that this share of the scores lies below, whatever the terms.

    The check function is smoothed over less and less of the scores' width.
    """
    varies = terms.std(axis=0) > 1e-9
    varies[0] = True
    x = terms[:, varies]
    b = np.zeros(x.shape[1])
    b[0] = np.quantile(scores, quantile)
    for width in float(scores.std()) * np.array([0.3, 0.1, 0.03]):

        def loss(b: Floats, width: float = width) -> tuple[float, Floats]:
            u = (scores - x @ b) / width
            smooth = width * (np.logaddexp(0.0, u) - (1 - quantile) * u)
            return float(smooth.mean()), -((expit(u) - (1 - quantile)) @ x) / len(u)

        b = minimize(loss, b, jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 500}).x
    full = np.zeros(terms.shape[1])
    full[varies] = b
    return full


def excess_plane(excess: Floats, terms: Floats) -> Floats:
    """Return the coefficients of the plane of the mean excess, `(n,)` above 0, as that of an exponential."""
    varies = terms.std(axis=0) > 1e-9
    varies[0] = True
    x = terms[:, varies]

    def loss(b: Floats) -> tuple[float, Floats]:
        mean = x @ b
        scale = np.maximum(mean, LEAST_SCALE)
        slope = np.where(mean > LEAST_SCALE, 1 / scale - excess / scale**2, -1e-3)
        return float((np.log(scale) + excess / scale).mean()), slope @ x / len(x)

    first = np.zeros(x.shape[1])
    first[0] = excess.mean()
    full = np.zeros(terms.shape[1])
    full[varies] = minimize(loss, first, jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 500}).x
    return full


def family_of(found: Scores, nulls: dict[str, Null]) -> list[tuple[float, float]]:
    """Return (share of passages, p over its share that the surest test falls to), rarest last."""
    p = {name: tail_p(nulls[name], found.scores[:, i], found.terms) for i, name in enumerate(SCORED)}
    p["neutron"] = found.neutron
    least = np.min([values / SHARES[name] for name, values in p.items()], axis=0)
    tail = tail_of(-np.log(least), bounded=True)
    return [(level, float(f"{np.exp(-score):.3g}")) for level, score in tail]


def upper_bound(reached: int, of: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a share, exact. Source: Clopper and Pearson, Biometrika 26 (1934) 404."""
    return 1.0 if reached >= of else float(betaincinv(reached + 1, of - reached, confidence))


def tail_of(scores: Floats, *, bounded: bool) -> list[tuple[float, float]]:
    """Return (share, score) for LEVELS.

    bounded : the upper 95 % bound on the share of passages that reach the score is the share, else the share that was
        found is. Where too few passages are left for either, the tail is continued as an exponential with the mean
        excess of the last 100
    """
    ordered = np.sort(scores)[::-1]
    n = len(ordered)
    found = []
    last = min(100, n // 10)
    excess = float((ordered[:last] - ordered[last]).mean())
    for level in LEVELS:
        reached = int(level * n)
        while bounded and reached > 0 and upper_bound(reached, n) > level:
            reached -= 1
        if reached >= 10:
            score = float(ordered[reached])
        else:
            score = float(ordered[last]) + excess * float(np.log(last / n / level))
        found.append((level, round(score, 3)))
    return found
