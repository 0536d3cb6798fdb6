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
            (5.594, -1.889, -3.412, 1.098, 0.024, 1.391),
            (1.351, -0.657, 0.32, -0.202, 0.211, 0.297),
            (
                (0.1, -0.721),
                (0.01, 1.566),
                (0.003, 2.819),
                (0.001, 4.056),
                (0.0003, 5.355),
                (0.0001, 6.541),
            ),
        ),
        "level": Null(
            (2.959, -2.168, -0.832, 0.149, -0.132, 1.691),
            (0.877, -0.283, -0.115, -0.072, 0.082, -0.061),
            (
                (0.1, -0.65),
                (0.01, 1.636),
                (0.003, 3.023),
                (0.001, 4.16),
                (0.0003, 5.486),
                (0.0001, 6.696),
            ),
        ),
        "one_sided": Null(
            (4.756, 6.18, 0.516, 0.392, 0.66, -0.498),
            (0.773, 1.64, -0.133, -0.024, -0.261, 0.053),
            (
                (0.1, -0.749),
                (0.01, 1.547),
                (0.003, 2.65),
                (0.001, 3.866),
                (0.0003, 5.042),
                (0.0001, 6.114),
            ),
        ),
    },
    "blind": {
        "shaped": Null(
            (7.899, -0.346, -6.467, -0.158, 0.143, 0.0),
            (1.529, -1.329, 1.074, -0.631, 1.327, 0.0),
            (
                (0.1, -0.83),
                (0.01, 1.701),
                (0.003, 2.841),
                (0.001, 3.949),
                (0.0003, 5.165),
                (0.0001, 6.274),
            ),
        ),
        "level": Null(
            (3.011, -0.727, -1.276, -0.714, -0.51, 0.0),
            (0.967, 0.351, -2.331, -0.253, 0.862, 0.0),
            (
                (0.1, -0.537),
                (0.01, 1.485),
                (0.003, 2.833),
                (0.001, 3.938),
                (0.0003, 5.148),
                (0.0001, 6.253),
            ),
        ),
        "one_sided": Null(
            (4.782, 6.77, -0.044, 0.57, 0.718, 0.0),
            (0.615, 0.531, -0.992, 0.099, 0.187, 0.0),
            (
                (0.1, -0.857),
                (0.01, 1.522),
                (0.003, 2.836),
                (0.001, 3.943),
                (0.0003, 5.155),
                (0.0001, 6.262),
            ),
        ),
    },
    "bare": {
        "level": Null(
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            (
                (0.1, 2.622),
                (0.01, 4.966),
                (0.003, 6.453),
                (0.001, 6.976),
                (0.0003, 8.165),
                (0.0001, 9.25),
            ),
        ),
    },
}
FAMILIES: dict[str, tuple[tuple[float, float], ...]] = {
    "told": (
        (0.1, 0.111),
        (0.01, 0.0101),
        (0.003, 0.00221),
        (0.001, 0.00112),
        (0.0003, 0.000332),
        (0.0001, 0.00011),
    ),
    "blind": (
        (0.1, 0.102),
        (0.01, 0.0113),
        (0.003, 0.00443),
        (0.001, 0.00162),
        (0.0003, 0.000541),
        (0.0001, 0.000199),
    ),
}
