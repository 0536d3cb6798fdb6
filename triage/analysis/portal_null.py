"""How high the portal's scores are on passages without a source, and the chance of a score by that.

A score's distribution depends on the passage: an uneven shadow has gaps, and a long stay many looks. So a score is
first measured from what one in twenty of such passages reaches, in units of what those lie beyond it on average; both
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

    start, scale : coefficients of TERMS: the score that one in twenty of such passages reaches, and how far beyond it
        those are on average
    tail : share of passages, standard score that they reach
    """

    start: tuple[float, ...]
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

    start: Floats
    scale: Floats
    at: Floats
    logs: Floats
    before: float
    behind: float


@lru_cache(maxsize=64)
def _curve(null: Null) -> _Curve:
    at, logs = np.array([x for _, x in null.tail]), np.log([p for p, _ in null.tail])
    slopes = np.diff(logs) / np.diff(at)
    return _Curve(np.array(null.start), np.array(null.scale), at, logs, float(slopes[0]), float(slopes[-1]))


def standard(null: Null, scores: Floats, terms: Floats) -> Floats:
    """Return `(n,)` scores in units of the null: 0 is reached by one in twenty. terms : `(n, TERMS)`."""
    start, scale = terms @ np.array(null.start), terms @ np.array(null.scale)
    return np.asarray((scores - start) / np.maximum(scale, LEAST_SCALE))


def tail_p(null: Null, scores: Floats, terms: Floats) -> Floats:
    """Return `(n,)` chances of such scores or more without a source, log-linear between the simulated points.

    Before the first point p rises to 1; beyond the last the line is continued down to P_FLOOR.
    """
    c = _curve(null)
    x = (scores - terms @ c.start) / np.maximum(terms @ c.scale, LEAST_SCALE)
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
            (5.481, -0.811, -3.587, 0.699, -0.327, 1.159),
            (1.374, -0.282, -0.111, -0.622, -0.157, -0.415),
            (
                (0.1, -0.666),
                (0.01, 1.641),
                (0.003, 2.743),
                (0.001, 3.952),
                (0.0003, 4.945),
                (0.0001, 5.978),
            ),
        ),
        "level": Null(
            (3.036, -2.78, -1.073, 0.126, -0.382, 1.721),
            (0.876, 0.082, 0.129, -0.035, -0.259, 0.141),
            (
                (0.1, -0.712),
                (0.01, 1.604),
                (0.003, 2.736),
                (0.001, 3.892),
                (0.0003, 4.889),
                (0.0001, 5.895),
            ),
        ),
        "one_sided": Null(
            (4.731, 6.484, 0.36, 0.53, 0.493, -0.352),
            (0.786, 1.712, 0.077, 0.126, 0.151, 0.002),
            (
                (0.1, -0.792),
                (0.01, 1.669),
                (0.003, 2.761),
                (0.001, 3.811),
                (0.0003, 4.85),
                (0.0001, 5.86),
            ),
        ),
    },
    "blind": {
        "shaped": Null(
            (7.732, -1.085, -6.462, -0.43, 0.652, 0.0),
            (1.643, -0.646, 0.391, -0.24, -0.032, 0.0),
            (
                (0.1, -0.716),
                (0.01, 1.636),
                (0.003, 2.997),
                (0.001, 4.229),
                (0.0003, 5.601),
                (0.0001, 6.853),
            ),
        ),
        "level": Null(
            (3.173, -2.607, -1.164, -0.937, -0.619, 0.0),
            (0.933, 1.318, -0.664, -0.096, 0.126, 0.0),
            (
                (0.1, -0.744),
                (0.01, 1.673),
                (0.003, 2.73),
                (0.001, 3.823),
                (0.0003, 4.984),
                (0.0001, 6.043),
            ),
        ),
        "one_sided": Null(
            (4.826, 6.849, 0.615, 0.444, 0.175, 0.0),
            (0.765, 1.506, -0.181, 0.097, 0.16, 0.0),
            (
                (0.1, -0.845),
                (0.01, 1.779),
                (0.003, 2.673),
                (0.001, 3.753),
                (0.0003, 4.876),
                (0.0001, 5.902),
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
        (0.1, 0.115),
        (0.01, 0.0104),
        (0.003, 0.00287),
        (0.001, 0.000875),
        (0.0003, 0.000457),
        (0.0001, 0.000168),
    ),
    "blind": (
        (0.1, 0.106),
        (0.01, 0.0101),
        (0.003, 0.00391),
        (0.001, 0.00128),
        (0.0003, 0.000376),
        (0.0001, 0.000123),
    ),
}
