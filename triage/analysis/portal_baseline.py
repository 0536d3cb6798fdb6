"""What the counts of an innocent passage may look like, and how much better a source explains them.

A vehicle takes away a quarter to a half of the ground's radiation and gives part of it back wherever it has a gap, so
neither a flat background nor a curve through the neighbourhood is the baseline. What is known of a shadow is this: it
lies between the entry and the exit that the portal itself tells; it is as smooth as the portal's view of the ground is
wide, and changes slowly from tractor to trailer and from full to empty ends; a gap gives back no more than a share of
what the vehicle takes away there; and it does much the same to all detectors. So the baseline is a shadow of the
vehicle's length and unknown depth, random ripples on it, short and long (a Gaussian process), and at any place a bump
of up to GAP_SHARE of the depth for nothing. The depth is fitted anew beside each source that is tried, so that a strong
one does not hide it.

The score is a likelihood ratio, with a source against without, over all places and nine positions in the portal's
cross-section. A gap shows in all detectors alike: what one pillar or one height sees more of is judged in the same
ratio with no bump for nothing, so a source beside the middle is found at half the strength of one in it.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 2.7 (explicit part on top of a
process); the idea of a filter without response to the baseline: Robinson et al., IEEE TNS 56 (2009), doi
10.1109/TNS.2009.2034372; the shadow: PNNL, OSTI 887358.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotrf, dtrtri

from scanner_io.errors import DataError

Floats = npt.NDArray[np.float64]

RIPPLE = 0.05
"""Standard deviation of the ripple, as a share of the shadow's depth."""
LOADING, LOADING_MM = 0.2, 6000.0
"""The same of how the shadow changes from one part of the vehicle to the next, and over what length it does. The
recorded truck needs it: without it the middle of its shadow reads 40 to 80 counts/s deeper than the even one."""
REACH_MM = (900.0, 1600.0, 2800.0)
"""Half width of the portal's view of the ground; the one that fits the record best is taken."""
GAP_SHARE = (0.6, 0.5, 0.4)
"""Share of the local depth that a bump may give back for nothing, by REACH_MM: a narrow view shows more of a gap."""
CONTRAST_EVEN, CONTRAST_RIPPLE = 0.8, 0.25
"""How unevenly a shadow falls on the detectors, even part and ripple, as shares of its depth."""
BACKGROUND_ERROR = 0.008
"""Standard deviation of the background before entry about the background during the passage: drift, rounding, and the
20 s it was counted."""
PILLAR_DISTANCE_MM = 4700.0
DETECTOR_HEIGHT_MM = (900.0, 2900.0)
"""Cross-section of a common vehicle portal: between the faces of the pillars, and the middles of their detectors."""
ASIDE_MM = (0.0, -900.0, 900.0)
HEIGHT_MM = (1900.0, 900.0, 2900.0)
"""Places of a source in the cross-section that are tried: from the middle of the lane, and above the ground."""
_DISTINCT = 2 * len(HEIGHT_MM)
SPEED_KMH = 8.0
"""Taken where the portal told no speed; the profiles are then tried at several widths."""
_BLIND_SCALES = (0.6, 1.0, 1.7)
_SIGNS = np.array([(1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1)], np.float64)
"""What the modes are of the four detectors: all, pillar against pillar, low against high, crosswise."""


EVEN_HOLD = 1 / 0.16
"""Weak hold on the even shadow's depth (0.4), which keeps records without a vehicle's length solvable."""


class Series(NamedTuple):
    """A passage as the tests take it.

    modes : `(modes, intervals)` counts over the expected background of all detectors: all detectors less one, then
        master - slave, lower - upper and their product where there are four, each less what the background would give
    variance : `(intervals,)` of each mode by counting alone
    x_mm : `(intervals,)` how far the vehicle's front is past the portal
    length_mm : of the vehicle, by its time in the portal
    expected : counts of all detectors in one interval, by the background
    blind : the speed is not known
    """

    modes: Floats
    variance: Floats
    x_mm: Floats
    length_mm: float
    expected: float
    blind: bool


class Shaped(NamedTuple):
    """The best source of the profiles tried.

    gain : twice the logarithm of the likelihood ratio, with a source over without
    at : interval of its middle
    aside_mm, height_mm : its place in the cross-section, roughly
    counts_per_s, error : its peak, and the standard deviation of that
    depth : share of the background that the vehicle takes away there
    one_sided : share of the gain that the detectors' differences alone would give
    """

    gain: float
    at: int
    aside_mm: float
    height_mm: float
    counts_per_s: float
    error: float
    depth: float
    one_sided: float


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
        modes += [(counts @ s - total * float(each @ s) / expected) / expected for s in _SIGNS[1:]]
    # Counting variance from the neighbourhood, without what a source adds: that belongs to the other hypothesis.
    width = min(9, n)
    smooth = np.convolve(np.pad(total, width // 2, mode="edge"), np.ones(width) / width, mode="valid")[:n]
    variance = np.clip(smooth / expected, 0.2, 1.05) / expected
    speed_mm_s = (speed_kmh or SPEED_KMH) / 3.6 * 1000
    x = (np.arange(n, dtype=np.float64) + 0.5 - before) * interval_s * speed_mm_s
    length = max(n - before - after, 1) * interval_s * speed_mm_s
    return Series(np.array(modes), variance, x, length, expected, not speed_kmh)


def depth_of(s: Series) -> float:
    """Return how deep the shadow is where it is deep: the 85th percentile along the vehicle of 1.4 s means."""
    inside = (s.x_mm > 0) & (s.x_mm < s.length_mm)
    width = min(7, len(s.x_mm))
    smooth = np.convolve(s.modes[0], np.ones(width) / width, mode="same")
    return float(np.clip(-np.percentile(smooth[inside], 15), 0.04, 0.6)) if inside.any() else 0.1


def envelope(x_mm: Floats, length_mm: float, reach_mm: float) -> Floats:
    """Return the even shadow of depth 1: a box of the vehicle's length, its edges as soft as the view is wide."""

    def step(u: Floats) -> Floats:
        half = 0.5 * np.exp(-np.abs(u) / reach_mm)
        return np.where(u < 0, half, 1 - half)

    return step(x_mm) - step(x_mm - length_mm)


def ripple_covariance(x_mm: Floats, length_mm: float, sigma: float) -> tuple[Floats, Floats]:
    """Return the even shadow of depth 1 and the covariance of a ripple of `sigma` on it, for a middling reach."""
    box = envelope(x_mm, length_mm, REACH_MM[1])
    apart = np.abs(x_mm[:, np.newaxis] - x_mm[np.newaxis])
    return box, sigma**2 * np.outer(box, box) * _ripple(apart, REACH_MM[1]) + BACKGROUND_ERROR**2


def _ripple(apart: Floats, reach_mm: float) -> Floats:
    """Return the covariance of a shadow of unit variance: Matern, order 3/2, of a view that falls off exponentially."""
    return (1 + apart / reach_mm) * np.exp(-apart / reach_mm)


@lru_cache(maxsize=4)
def _knots(distance_mm: float, scale: float) -> tuple[Floats, Floats]:
    """Return offsets `(knots,)` and `(places, modes, knots)` profiles of a source of peak 1, for all places tried."""
    x = np.arange(-40_000.0, 40_000.5, 100.0)
    rows = []
    for aside in ASIDE_MM:
        for height in HEIGHT_MM:
            away = distance_mm / 2 + np.array([aside, aside, -aside, -aside])
            up = height - np.array([*DETECTOR_HEIGHT_MM, *DETECTOR_HEIGHT_MM])
            seen = away * ((away**2 + up**2)[np.newaxis] + (x[:, np.newaxis] / scale) ** 2) ** -1.5
            rows.append(_SIGNS @ (seen / seen.sum(axis=1).max()).T)
    return x, np.array(rows)


def _profiles(s: Series) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return `(places, modes, centres, n)` profiles, `(centres,)` their middles and the scale of each centre."""
    inside = np.flatnonzero((s.x_mm > -500) & (s.x_mm < s.length_mm + 500))
    made, n = [], len(s.x_mm)
    scales = _BLIND_SCALES if s.blind else (1.0,)
    for scale in scales:
        x, rows = _knots(PILLAR_DISTANCE_MM, scale)
        # Intervals are equally long, so a profile depends on how many of them it is away, and on nothing else.
        away_mm = (s.x_mm[-1] - s.x_mm[0]) / max(n - 1, 1) * np.arange(1.0 - n, n)
        at = np.clip((away_mm - x[0]) / 100.0, 0, len(x) - 1.001)
        low = at.astype(np.int64)
        part = at - low
        by_distance = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
        made.append(by_distance[:, :, np.arange(n)[np.newaxis] - inside[:, np.newaxis] + n - 1])
    return np.concatenate(made, axis=2), np.tile(inside, len(scales)), np.repeat(scales, len(inside))


class _Common(NamedTuple):
    """What all detectors together say of every place and centre, by one reach of view: `(places, centres)` each.

    peak : of a source there, with the shadow's depth fitted beside it; weight : its inverse variance
    depth : of the shadow there; likelihood : logarithm, without a source
    """

    peak: Floats
    weight: Floats
    depth: Floats
    likelihood: float


def _common(s: Series, profiles: Floats, centres: npt.NDArray[np.int64], depth: float, reach_mm: float) -> _Common:
    box = envelope(s.x_mm, s.length_mm, reach_mm)
    apart = np.abs(s.x_mm[:, np.newaxis] - s.x_mm[np.newaxis])
    uneven = RIPPLE**2 * _ripple(apart, reach_mm) + LOADING**2 * _ripple(apart, LOADING_MM)
    covariance = depth**2 * np.outer(box, box) * uneven + BACKGROUND_ERROR**2
    covariance[np.diag_indices(len(box))] += s.variance
    whitener, log_det = _whitener(covariance)
    sort = profiles[:_DISTINCT, 0].reshape(-1, len(box))
    y, e, g = s.modes[0] @ whitener, box @ whitener, (sort @ whitener).T
    ee, eg, gg, ye, yg = float(e @ e) + EVEN_HOLD, e @ g, (g * g).sum(axis=0), float(e @ y), y @ g
    weight = gg - eg**2 / ee
    peak = (yg - eg * ye / ee) / weight
    shape = _DISTINCT, profiles.shape[2]
    local = np.maximum(-(ye - eg * peak) / ee, 0.0).reshape(shape) * box[centres][np.newaxis]
    likelihood = -0.5 * (float(y @ y) - ye**2 / ee) - log_det / 2 - 0.5 * float(np.log(ee))
    return _Common(_mirrored(peak.reshape(shape)), _mirrored(weight.reshape(shape)), _mirrored(local), likelihood)


def _whitener(covariance: Floats) -> tuple[Floats, float]:
    """Return the matrix that, from the right, makes rows of this covariance white, and its log determinant."""
    factor, failed = dpotrf(covariance, lower=1, clean=1)
    inverse, _ = dtrtri(factor, lower=1)
    if failed:
        raise DataError(f"portal baseline: the covariance of {len(covariance)} intervals is not positive definite")
    return np.asarray(inverse.T), 2 * float(np.log(np.diag(factor)).sum())


def _mirrored(distinct: Floats) -> Floats:
    """Return all places' values: to all detectors together, left and right of the middle are the same."""
    return np.concatenate([distinct, distinct[len(HEIGHT_MM) :]])


def _contrast(s: Series, profiles: Floats, depth: float) -> tuple[Floats, Floats]:
    """Return what the differences of the detectors say: `(places, centres)` numerator and weight of a source."""
    if len(s.modes) != 4:
        return np.zeros((profiles.shape[0], profiles.shape[2])), np.zeros((profiles.shape[0], profiles.shape[2]))
    reach_mm = REACH_MM[1]
    box = envelope(s.x_mm, s.length_mm, reach_mm)
    apart = np.abs(s.x_mm[:, np.newaxis] - s.x_mm[np.newaxis])
    # What falls more on one detector than on another has the form of the shadow itself, gaps and all.
    seen = np.convolve(np.pad(-s.modes[0], 3, mode="edge"), np.ones(7) / 7, mode="valid").clip(0.0)
    covariance = CONTRAST_EVEN**2 * np.outer(seen, seen) + (BACKGROUND_ERROR / 2) ** 2
    covariance += (CONTRAST_RIPPLE * depth) ** 2 * np.outer(box, box) * _ripple(apart, reach_mm)
    covariance[np.diag_indices(len(box))] += s.variance
    whitener, _ = _whitener(covariance)
    y = s.modes[1:] @ whitener
    g = (profiles[:, 1:].reshape(-1, len(box)) @ whitener).reshape(profiles[:, 1:].shape)
    return np.asarray((g @ y[:, :, np.newaxis])[..., 0].sum(axis=1)), np.asarray(np.einsum("pmcn,pmcn->pc", g, g))


def _losses(c: _Common, share: float, numerator: Floats, contrast: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the losses without and with a source at every place and centre, and its peak.

    A bump of up to `share` of the depth is free. Without a source the common counts may be off by it and the contrasts
    are off by all they show; with a source of peak a both must show a, the common ones again but for the bump. Both
    minima have closed forms.
    """
    bump = share * c.depth
    alone = np.divide(numerator, contrast, out=np.zeros_like(numerator), where=contrast > 1e-9)
    off = np.where(c.peak > bump, c.peak - bump, np.minimum(c.peak, 0.0))
    without = off**2 * c.weight + alone**2 * contrast
    nearest = np.where(alone > c.peak, c.peak, c.peak - bump)  # end of the range that the common counts allow
    pulled = (nearest * c.weight + alone * contrast) / (c.weight + contrast)
    free = (alone <= c.peak) & (alone >= c.peak - bump)
    a = np.maximum(np.where(free, alone, pulled), 0.0)
    given = np.clip(c.peak - a, 0.0, bump)
    with_source = (c.peak - given - a) ** 2 * c.weight + (alone - a) ** 2 * contrast
    return without - 2 * c.likelihood, with_source - 2 * c.likelihood, a


def shaped_excess(s: Series, interval_s: float) -> Shaped | None:
    """Return the point source that explains most, None where no part of the vehicle is in the record."""
    profiles, centres, _ = _profiles(s)
    if centres.size == 0:
        return None
    depth = depth_of(s)
    numerator, contrast = _contrast(s, profiles, depth)
    commons = [_common(s, profiles, centres, depth, reach) for reach in REACH_MM]
    fits = [_losses(c, share, numerator, contrast) for c, share in zip(commons, GAP_SHARE, strict=True)]
    without = np.min([f[0] for f in fits], axis=0)
    with_source = np.array([f[1] for f in fits])
    gain = without - with_source.min(axis=0)
    place, centre = np.unravel_index(int(gain.argmax()), gain.shape)
    reach = int(with_source[:, place, centre].argmin())
    chosen, weight = commons[reach], contrast[place, centre]
    side = max(float(numerator[place, centre]), 0.0)
    alone = side**2 / float(weight) if weight > 1e-9 else 0.0
    scale = s.expected / interval_s
    best = float(gain[place, centre])
    return Shaped(
        gain=best, at=int(centres[centre]), aside_mm=ASIDE_MM[place // len(HEIGHT_MM)],
        height_mm=HEIGHT_MM[place % len(HEIGHT_MM)], counts_per_s=scale * float(fits[reach][2][place, centre]),
        error=scale * float((chosen.weight[place, centre] + weight) ** -0.5),
        depth=float(chosen.depth[place, centre]), one_sided=min(alone / max(best, 1e-9), 1.0),
    )  # fmt: skip
