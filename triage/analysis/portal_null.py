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


@lru_cache(maxsize=8)
def _family(table: tuple[tuple[float, float], ...]) -> tuple[Floats, Floats]:
    """Return the logarithms of a table of FAMILIES, rising: of its least p-values, and of their shares."""
    return np.log([m for _, m in table])[::-1], np.log([p for p, _ in table])[::-1]


def family_tail(kind: str, least: float) -> float:
    """Return the chance that any test's p over its share falls to `least` on a passage without a source.

    Where the kind was not simulated, as energy windows are not, it is at most `least` itself (Bonferroni).
    """
    if kind not in FAMILIES:
        return min(least, 1.0)
    at, chance = _family(FAMILIES[kind])
    x = np.log(max(least, 1e-300))
    value = np.interp(x, at, chance) + min(x - at[0], 0.0) + max(x - at[-1], 0.0)
    return min(float(np.exp(value)), 1.0)


# Made by `scanlane calibrate portal`; not written by hand.
NULLS: dict[str, dict[str, Null]] = {
    "told": {
        "shaped": Null(
            (5.556, -1.429, -3.861, 0.801, -0.374, 1.287),
            (1.352, -1.083, 0.258, -0.224, -0.283, 0.036),
            (
                (0.1, -0.687),
                (0.01, 1.59),
                (0.003, 2.819),
                (0.001, 3.906),
                (0.0003, 5.144),
                (0.0001, 6.652),
            ),
        ),
        "level": Null(
            (2.99, -3.089, -1.166, 0.158, -0.538, 1.744),
            (0.906, -0.147, -0.187, 0.02, -0.077, 0.26),
            (
                (0.1, -0.668),
                (0.01, 1.606),
                (0.003, 2.872),
                (0.001, 4.038),
                (0.0003, 5.287),
                (0.0001, 6.291),
            ),
        ),
        "one_sided": Null(
            (4.709, 6.084, 0.412, 0.515, 0.442, -0.285),
            (0.799, 1.525, -0.028, 0.071, 0.161, -0.019),
            (
                (0.1, -0.779),
                (0.01, 1.623),
                (0.003, 2.748),
                (0.001, 3.726),
                (0.0003, 4.698),
                (0.0001, 5.211),
            ),
        ),
    },
    "blind": {
        "shaped": Null(
            (7.734, -0.644, -4.574, -0.629, -0.165, 0.0),
            (1.773, -0.595, 0.017, -0.408, -0.248, 0.0),
            (
                (0.1, -0.685),
                (0.01, 1.578),
                (0.003, 2.735),
                (0.001, 4.017),
                (0.0003, 5.165),
                (0.0001, 6.31),
            ),
        ),
        "level": Null(
            (3.057, -2.509, -1.636, -0.954, -0.581, 0.0),
            (0.958, 0.164, -0.529, -0.146, 0.019, 0.0),
            (
                (0.1, -0.676),
                (0.01, 1.639),
                (0.003, 2.809),
                (0.001, 3.938),
                (0.0003, 5.174),
                (0.0001, 6.304),
            ),
        ),
        "one_sided": Null(
            (4.771, 6.186, 0.449, 0.433, 0.466, 0.0),
            (0.8, 1.499, -0.169, 0.08, 0.203, 0.0),
            (
                (0.1, -0.778),
                (0.01, 1.652),
                (0.003, 2.659),
                (0.001, 3.721),
                (0.0003, 4.863),
                (0.0001, 5.923),
            ),
        ),
    },
    "bare": {
        "level": Null(
            (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
            (
                (0.1, 2.607),
                (0.01, 4.91),
                (0.003, 6.137),
                (0.001, 7.256),
                (0.0003, 8.817),
                (0.0001, 9.566),
            ),
        ),
    },
}
FAMILIES: dict[str, tuple[tuple[float, float], ...]] = {
    "told": (
        (0.1, 0.118),
        (0.01, 0.0111),
        (0.003, 0.00309),
        (0.001, 0.000927),
        (0.0003, 0.000205),
        (0.0001, 0.000102),
    ),
    "blind": (
        (0.1, 0.116),
        (0.01, 0.0105),
        (0.003, 0.00302),
        (0.001, 0.000798),
        (0.0003, 0.000406),
        (0.0001, 0.000144),
    ),
}
