"""What the counts of an innocent passage may look like, and how much better a source explains them.

A vehicle takes away a quarter to a half of the ground's radiation and gives part of it back wherever it has a gap, so
neither a flat background nor a curve through the neighbourhood is the baseline. What is known of a shadow is this: it
lies between the entry and the exit that the portal itself tells; it is as smooth as the portal's view of the ground is
wide; it does much the same to all detectors. The baseline is therefore not a curve but a family of random curves
(Gaussian processes), from shallow and smooth to deep and rough, each with the covariance a shadow of that sort has.

The score is a likelihood ratio: the best family with a source against the best family without. A record whose edges
are steep has its bumps explained by a rough family; where nothing but the bump is rough, a source explains more. What
the detectors do differently (one pillar more than the other, low more than high) is judged in the same ratio with a
family of its own, in which shadows are weak: a gap shows in all detectors alike, a source beside the middle does not.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 2.7 (explicit part on top of a
process) and equation 2.30 (marginal likelihood); the idea of a filter without response to the baseline: Robinson et
al., IEEE TNS 56 (2009), doi 10.1109/TNS.2009.2034372.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROUGHNESS = (0.02, 0.08, 0.2, 0.4)
"""Standard deviations of the families, as a share of the background lost beyond the vehicle's even shadow."""
REACH_MM = (900.0, 1600.0, 2800.0)
"""Lengths over which the families' shadows change."""
EVEN_SHADOW = 0.4
"""Standard deviation of the even shadow, as a share of the background: nothing is presumed of its depth."""
CONTRAST_ROUGHNESS = 0.03
"""The same as ROUGHNESS for what detectors do differently, and CONTRAST_EVEN as EVEN_SHADOW."""
CONTRAST_EVEN = 0.08
BACKGROUND_ERROR = 0.008
"""Standard deviation of the background before entry about the background during the passage: drift, rounding, and the
20 s it was counted."""
STANDOFF_MM = (1300.0, 2100.0, 3200.0)
"""Distances of a source whose profiles are tried."""
_SHARES = (
    (0.0, 0.0), (0.45, 0.0), (-0.45, 0.0), (0.0, 0.4), (0.0, -0.4), (0.4, 0.35), (0.4, -0.35), (-0.4, 0.35),
    (-0.4, -0.35),
)  # fmt: skip
"""How a source may be seen: excess share of the master over the slave pillar, and of the lower over the upper
detectors."""
SPEED_KMH = 8.0
"""Taken where the portal told no speed."""


class Series(NamedTuple):
    """A passage as the tests take it.

    modes : `(modes, intervals)` counts over the expected background of all detectors: all detectors less one, then
        master - slave, lower - upper and their product where there are four, each less what the background would give
    variance : `(intervals,)` of each mode by counting alone
    x_mm : `(intervals,)` how far the vehicle's front is past the portal
    length_mm : of the vehicle, by its time in the portal
    expected : counts of all detectors in one interval
    """

    modes: Floats
    variance: Floats
    x_mm: Floats
    length_mm: float
    expected: float


class Shaped(NamedTuple):
    """The best source of the profiles tried.

    gain : twice the logarithm of the likelihood ratio
    counts_per_s, error : its peak and the standard deviation of that
    """

    gain: float
    at: float
    standoff_mm: float
    master_share: float
    lower_share: float
    counts_per_s: float
    error: float


def series(
    gamma: npt.NDArray[np.int64], background: Floats, interval_s: float, speed_kmh: float | None, before: int,
    after: int,
) -> Series:  # fmt: skip
    """Return a passage as the tests take it.

    gamma : `(intervals, detectors)` counts
    background : `(detectors,)` counts/s, sum above 0
    before, after : intervals of the record before the vehicle enters and after it has left
    """
    n = gamma.shape[0]
    each = background * interval_s
    expected = float(each.sum())
    counts = gamma.astype(np.float64)
    total = counts.sum(axis=1)
    modes = [total / expected - 1]
    if gamma.shape[1] == 4 and (background > 0).all():
        for signs in ((1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1)):
            s = np.array(signs, np.float64)
            modes.append((counts @ s - total * float(each @ s) / expected) / expected)
    # Counting variance from the neighbourhood, without what a source adds: that belongs to the other hypothesis.
    width = min(9, n)
    smooth = np.convolve(np.pad(total, width // 2, mode="edge"), np.ones(width) / width, mode="valid")[:n]
    variance = np.clip(smooth / expected, 0.2, 1.05) / expected
    speed_mm_s = (speed_kmh or SPEED_KMH) / 3.6 * 1000
    x = (np.arange(n) + 0.5 - before) * interval_s * speed_mm_s
    length = max(n - before - after, 1) * interval_s * speed_mm_s
    return Series(np.array(modes), variance, x, length, expected)


def _envelope(x: Floats, length: float, reach: float) -> Floats:
    """Return the even shadow: a box of the vehicle's length, its edges as soft as the view of the ground."""

    def step(u: Floats) -> Floats:
        half = 0.5 * np.exp(-np.abs(u) / reach)
        return np.where(u < 0, half, 1 - half)

    return step(x) - step(x - length)


def _depth(s: Series) -> float:
    """Return how deep the shadow is where it is deep: the 85th percentile over the vehicle, 1.4 s smoothed."""
    inside = (s.x_mm > 0) & (s.x_mm < s.length_mm)
    width = min(7, len(s.x_mm))
    smooth = np.convolve(s.modes[0], np.ones(width) / width, mode="same")
    return float(np.clip(-np.percentile(smooth[inside], 15), 0.04, 0.6)) if inside.any() else 0.1


def _covariances(s: Series, roughness: tuple[float, ...], even: float) -> Floats:
    """Return `(families, n, n)` covariances of one mode: counting, background, even shadow, and the rest of it."""
    apart = np.abs(s.x_mm[:, np.newaxis] - s.x_mm[np.newaxis])
    fixed = np.diag(s.variance) + BACKGROUND_ERROR**2
    depth = _depth(s)
    made = []
    for reach in REACH_MM:
        box = _envelope(s.x_mm, s.length_mm, reach)
        outer = box[:, np.newaxis] * box[np.newaxis]
        # Matern, order 3/2: what a view that falls off exponentially makes of anything.
        kernel = (1 + apart / reach) * np.exp(-apart / reach)
        made += [fixed + outer * (even**2 + (sigma * depth) ** 2 * kernel) for sigma in roughness]
    return np.array(made)


def _fit(covariance: Floats, y: Floats, templates: Floats) -> tuple[Floats, Floats, Floats]:
    """Return log likelihood `(families, modes)`, and numerator and information of every template.

    y : `(modes, n)`; templates : `(templates, n)`; numerator : `(families, modes, templates)`;
    information : `(families, templates)`
    """
    factor = np.linalg.cholesky(covariance)
    right = np.concatenate([y, templates]).T
    white = np.linalg.solve(factor, np.broadcast_to(right, (len(covariance), *right.shape)))
    data, filters = white[:, :, : len(y)], white[:, :, len(y) :]
    logdet = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    likelihood = -0.5 * (data**2).sum(axis=1) - logdet[:, np.newaxis]
    return likelihood, np.swapaxes(data, 1, 2) @ filters, (filters**2).sum(axis=1)


def _templates(s: Series) -> tuple[Floats, list[tuple[int, float]]]:
    """Return `(templates, n)` profiles of points of 1 over the background, centred on every interval of the vehicle."""
    inside = np.flatnonzero((s.x_mm > -500) & (s.x_mm < s.length_mm + 500))
    apart = s.x_mm[np.newaxis] - s.x_mm[inside][:, np.newaxis]
    made = [(1 + (apart / h) ** 2) ** -1.5 for h in STANDOFF_MM]
    return np.concatenate(made), [(int(i), h) for h in STANDOFF_MM for i in inside]


def shaped_excess(s: Series, interval_s: float) -> Shaped | None:
    """Return the point source that explains most, None where no place of the vehicle is in the record."""
    templates, places = _templates(s)
    if not places:
        return None
    common, up, weight = _fit(_covariances(s, ROUGHNESS, EVEN_SHADOW), s.modes[:1], templates)
    shares: tuple[tuple[float, float], ...] = _SHARES[:1]
    side = np.zeros((1, len(places)))
    side_weight = np.zeros(len(places))
    if len(s.modes) == 4:
        shares = _SHARES
        q = np.array([(m, v, m * v) for m, v in shares])
        covariance = _covariances(s, (CONTRAST_ROUGHNESS,), CONTRAST_EVEN)[1:2]
        _, numerator, information = _fit(covariance, s.modes[1:], templates)
        side = q @ numerator[0]
        side_weight = information[0]
        amount = (q**2).sum(axis=1)[:, np.newaxis] * side_weight[np.newaxis]
    else:
        amount = np.zeros((1, len(places)))
    top = up[:, 0][:, np.newaxis, :] + side[np.newaxis]
    bottom = weight[:, np.newaxis, :] + amount[np.newaxis]
    better = common + 0.5 * (np.maximum(top, 0.0) ** 2 / bottom).max(axis=(1, 2))[:, np.newaxis]
    family = int(better[:, 0].argmax())
    score = np.maximum(top[family], 0.0) ** 2 / bottom[family]
    share, place = np.unravel_index(int(score.argmax()), score.shape)
    gain = 2 * float(better[family, 0] - common.max())
    scale = s.expected / interval_s
    return Shaped(
        gain, float(places[place][0]), places[place][1], *shares[share],
        scale * float(top[family, share, place] / bottom[family, share, place]),
        scale * float(bottom[family, share, place] ** -0.5),
    )  # fmt: skip
