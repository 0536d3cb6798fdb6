"""How high the portal's scores are on passages without a source, and the chance of a score by that.

A score's distribution depends on the passage: an uneven shadow has gaps, and a long stay many looks. So a score is
first measured from what a tenth of such passages reach, in units of what lies between that and one in 200 of them; both
are planes in the terms of `terms_of`. What is left is a standard score, whose tail is the same for all of a kind. Three
kinds are told apart, since each has scores of its own:

    told    the portal told the vehicle's speed
    blind   it did not, so profiles of several widths are tried
    bare    no intervals from before entry, so there is no shadow to speak of: the level's tail alone, whatever passes

Tests have much in common and leave part of their shares unused: FAMILIES says which share of the passages have so small
a p-value over its share in any test. All of it is simulated, and made by

    scanlane calibrate portal --passes 100000 --seed 1

Source: Koenker and Bassett, Econometrica 46 (1978) 33, for planes of quantiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

P_FLOOR = 1e-6
"""Smallest p-value told: the simulations say nothing of smaller ones."""
LEAST_SCALE = 0.2
TERMS = ("one", "depth", "evenness", "log time", "log background", "log speed")
_LOW = np.array([0.15, 0.3, 5.0, 100.0, 3.0])
_HIGH = np.array([0.6, 1.0, 160.0, 900.0, 15.0])
"""Depth, evenness, intervals that the vehicle stays, counts per interval and km/h that were simulated: others are
judged as the nearest of these."""
_MIDDLE = np.array([0.4, 0.85, 30.0, 300.0, 8.0])


class Null(NamedTuple):
    """Scores of a test on passages without a source.

    middle, scale : coefficients of TERMS: the score that a tenth of such passages reaches, and how much more one in 200
    tail : share of passages, standard score that they reach
    """

    middle: tuple[float, ...]
    scale: tuple[float, ...]
    tail: tuple[tuple[float, float], ...]


def terms_of(depth: float, even: float, inside: float, expected: float, speed_kmh: float | None) -> Floats:
    """Return the `(len(TERMS),)` terms of a passage.

    depth : of the shadow, as a share of the background; even : depth in its middle over that where it is deep
    inside : intervals that the vehicle stays; expected : counts of all detectors in an interval, by the background
    """
    told = np.array([depth, even, inside, expected, speed_kmh or _MIDDLE[-1]])
    told = np.clip(told, _LOW, _HIGH)
    return np.array([1.0, told[0] - _MIDDLE[0], *np.log(told[1:] / _MIDDLE[1:])])


PLAIN = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
"""Terms where none are known."""


class _Curve(NamedTuple):
    """A null as arrays: coefficients, standard scores and logarithms of shares, slopes before and behind them."""

    middle: Floats
    scale: Floats
    at: Floats
    logs: Floats
    before: float
    behind: float


@lru_cache(maxsize=64)
def _curve(null: Null) -> _Curve:
    at, logs = np.array([x for _, x in null.tail]), np.log([p for p, _ in null.tail])
    slopes = np.diff(logs) / np.diff(at)
    return _Curve(np.array(null.middle), np.array(null.scale), at, logs, float(slopes[0]), float(slopes[-1]))


def standard(null: Null, scores: Floats, terms: Floats) -> Floats:
    """Return `(n,)` scores in units of the null: 0 is reached by a tenth, 1 by one in 200. terms : `(n, TERMS)`."""
    middle, scale = terms @ np.array(null.middle), terms @ np.array(null.scale)
    return np.asarray((scores - middle) / np.maximum(scale, LEAST_SCALE))


def tail_p(null: Null, scores: Floats, terms: Floats) -> Floats:
    """Return `(n,)` chances of such scores or more without a source, log-linear between the simulated points.

    Before the first point p rises to 1; beyond the last the line is continued down to P_FLOOR.
    """
    c = _curve(null)
    x = (scores - terms @ c.middle) / np.maximum(terms @ c.scale, LEAST_SCALE)
    value = np.interp(x, c.at, c.logs)
    value += c.before * np.minimum(x - c.at[0], 0.0) + c.behind * np.maximum(x - c.at[-1], 0.0)
    return np.asarray(np.clip(np.exp(value), P_FLOOR, 1.0))


def family_tail(kind: str, least: Floats) -> Floats:
    """Return the chance that any test's p over its share falls to `least`, `(n,)`, on a passage without a source.

    Where the kind was not simulated, as energy windows are not, it is at most `least` itself (Bonferroni).
    """
    table = FAMILIES.get(kind)
    if table is None:
        return np.minimum(least, 1.0)
    at, chance = np.log([m for _, m in table])[::-1], np.log([p for p, _ in table])[::-1]
    x = np.log(np.maximum(least, 1e-300))
    value = np.interp(x, at, chance) + np.minimum(x - at[0], 0.0) + np.maximum(x - at[-1], 0.0)
    return np.asarray(np.minimum(np.exp(value), 1.0))


# Made by `scanlane calibrate portal`; not written by hand.
NULLS: dict[str, dict[str, Null]] = {
    "told": {
        "shaped": Null(
            (8.892, -1.098, -9.152, -0.788, 0.019, -0.477),
            (5.02, -1.93, 0.394, -0.575, -0.442, -0.042),
            (
                (0.1, -0.002),
                (0.01, 0.773),
                (0.003, 1.131),
                (0.001, 1.434),
                (0.0003, 1.773),
                (0.0001, 2.076),
            ),
        ),
        "level": Null(
            (2.418, -2.819, -1.065, 0.081, -0.366, 1.478),
            (2.637, 0.327, 0.451, -0.175, -0.366, 0.399),
            (
                (0.1, -0.001),
                (0.01, 0.759),
                (0.003, 1.149),
                (0.001, 1.544),
                (0.0003, 1.848),
                (0.0001, 2.181),
            ),
        ),
        "one_sided": Null(
            (4.111, 5.303, 0.371, 0.498, 0.404, -0.191),
            (2.41, 4.726, 0.007, 0.453, 0.573, 0.021),
            (
                (0.1, -0.001),
                (0.01, 0.797),
                (0.003, 1.144),
                (0.001, 1.49),
                (0.0003, 1.823),
                (0.0001, 2.147),
            ),
        ),
    },
    "blind": {
        "shaped": Null(
            (10.768, -1.03, -10.259, -1.515, 0.123, 0.0),
            (5.652, -4.297, -0.122, -1.015, -1.131, 0.0),
            (
                (0.1, -0.003),
                (0.01, 0.764),
                (0.003, 1.117),
                (0.001, 1.563),
                (0.0003, 1.974),
                (0.0001, 2.35),
            ),
        ),
        "level": Null(
            (2.448, -2.771, -1.204, -0.806, -0.325, 0.0),
            (2.839, 2.493, -0.278, -0.178, 0.062, 0.0),
            (
                (0.1, -0.001),
                (0.01, 0.809),
                (0.003, 1.093),
                (0.001, 1.522),
                (0.0003, 1.906),
                (0.0001, 2.256),
            ),
        ),
        "one_sided": Null(
            (4.188, 6.074, 0.368, 0.415, 0.094, 0.0),
            (2.427, 4.312, -0.829, 0.282, 0.666, 0.0),
            (
                (0.1, -0.003),
                (0.01, 0.812),
                (0.003, 1.088),
                (0.001, 1.446),
                (0.0003, 1.8),
                (0.0001, 2.123),
            ),
        ),
    },
    "bare": {
        "level": Null(
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            (
                (0.1, 2.681),
                (0.01, 4.947),
                (0.003, 6.095),
                (0.001, 6.883),
                (0.0003, 7.572),
                (0.0001, 8.372),
            ),
        ),
    },
}
FAMILIES: dict[str, tuple[tuple[float, float], ...]] = {
    "told": (
        (0.1, 0.112),
        (0.01, 0.00956),
        (0.003, 0.00258),
        (0.001, 0.000738),
        (0.0003, 0.000415),
        (0.0001, 0.000148),
    ),
    "blind": (
        (0.1, 0.108),
        (0.01, 0.00861),
        (0.003, 0.00356),
        (0.001, 0.0012),
        (0.0003, 0.000364),
        (0.0001, 0.000122),
    ),
}
