"""What the counts of an innocent passage may look like, and how much better a source explains them.

A vehicle takes away a quarter to a half of the ground's radiation and gives part of it back wherever it has a gap, so
neither a flat background nor a curve through the neighbourhood is the baseline. What is known of a shadow is this: it
lies between the entry and the exit that the portal itself tells; it is as smooth as the portal's view of the ground is
wide, and changes slowly from tractor to trailer and from full to empty ends; a gap gives back no more than the vehicle
takes away there, and most give back little; and it does much the same to all detectors. So the baseline is a shadow of
the vehicle's length and unknown depth, random ripples on it, short and long (a Gaussian process), and at any place a
bump whose height is exponential, a share of the local depth on average. The depth is fitted anew beside each source
that is tried, so that a strong one does not hide it.

The score is a likelihood ratio, with a source against without: the sum over the kinds of shadow, the mean over nine
positions in the portal's cross-section, and the highest along the vehicle. A gap shows in all detectors alike: what one
pillar or one height sees more of is judged in the same ratio with no bump, so a source beside the middle is found at
half the strength of one in it. Tried on simulated passages and left: the mean along the vehicle too, and bumps that are
free up to a limit or cost by steps; none finds weaker sources at the same rate of false alarms.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 2.7 (explicit part on top of a
process); the idea of a filter without response to the baseline: Robinson et al., IEEE TNS 56 (2009), doi
10.1109/TNS.2009.2034372; the shadow: PNNL, OSTI 887358.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg.lapack import dpotrf, dtrtri

from scanner_io.errors import DataError

Floats = npt.NDArray[np.float64]


LOADING_MM = 6000.0
"""Over which the shadow changes from one part of the vehicle to the next."""


class Kind(NamedTuple):
    """A kind of shadow.

    reach_mm : half width of the portal's view of the ground
    ripple : standard deviation of the ripple, as a share of the shadow's depth
    loading : the same of how it changes over LOADING_MM
    gap_mean : mean height of the bumps that gaps give back, as a share of the local depth
    """

    reach_mm: float
    ripple: float
    loading: float
    gap_mean: float


KINDS = tuple(
    Kind(reach, ripple, loading, gap)
    for reach in (1000.0, 1800.0)
    for ripple, loading, gap in ((0.048, 0.04, 0.032), (0.144, 0.12, 0.096))
)
"""An even vehicle and an uneven one, of narrow and of wide view. Chosen among some twenty such sets by the sources that
are found on simulated passages, whose ripple is 0.18 of the depth and keeps its sign for three metres."""
FRONT, FRONT_MM = 0.5, 2500.0
"""Standard deviation of how much more or less the front casts than the rest, as a share of the depth, and how long it
is: a cab is another thing than what it draws, and where it begins is not where the beam across the lane is broken. Two
of 25 recorded passages without a source scored high there before; on simulated ones it neither helps nor harms."""
REACHES_MM = tuple(sorted({kind.reach_mm for kind in KINDS}))
MIDDLE_REACH_MM = 1600.0
"""Half width of the view where no kind is chosen: for the differences of the detectors, and for shapes."""
_COSTS = np.array([2 / kind.gap_mean for kind in KINDS])
"""What a bump as high as the local depth costs, in the units of a loss."""
LEAST_DEPTH = 0.02
"""Local depth below which bumps are taken for those of this depth."""
DEPTH_MM = 2500.0
"""Over which the shadow's depth is measured."""
CONTRAST_EVEN, CONTRAST_RIPPLE = 0.8, 0.14
"""How unevenly a shadow falls on the detectors, even part and ripple, as shares of its depth: recorded are 0.20 and
0.06 (pillar against pillar), so the even part is left free and the ripple is given room."""
BACKGROUND_ERROR = 0.008
"""Standard deviation of the background before entry about the background during the passage: drift, rounding, and the
20 s it was counted."""
PILLAR_DISTANCE_MM = 4700.0
DETECTOR_HEIGHT_MM = (900.0, 2900.0)
"""Cross-section of a common vehicle portal: between the faces of the pillars, and the middles of their detectors."""
ASIDE_MM = (0.0, -900.0, 900.0)
HEIGHT_MM = (1900.0, 900.0, 2900.0)
"""Places of a source in the cross-section that are tried: from the middle of the lane, and above the ground."""
PLACES = tuple((aside, height) for aside in ASIDE_MM for height in HEIGHT_MM)
_OWN = (0, 1, 3, 4)
"""Places whose profiles are computed: the others see one of these with the pillars or the heights exchanged."""
_SAME = [0, 1, 1, 2, 3, 3, 2, 3, 3]
_TURNED = np.array(
    [(p, h, p * h) for p, h in zip([1, 1, 1, 1, 1, 1, -1, -1, -1], [1, 1, -1] * 3, strict=True)], np.float64
)
"""For all places: which of _OWN they are like, and the signs that its modes have there."""
SPEED_KMH = 8.0
"""Taken where the portal told no speed; the profiles are then tried at several widths."""
CELL_MM = 750.0
"""Counts are taken together along the vehicle in as many intervals as fit: a portal sees nothing that is shorter, and
a slow vehicle costs no more time than a fast one."""
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

    gain : twice the logarithm of the likelihood ratio, with a source over without; below 0 where nothing speaks for one
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
    modes = total[np.newaxis] / expected - 1
    if gamma.shape[1] == 4 and (background > 0).all():
        sides = counts @ _SIGNS[1:].T - np.outer(total, _SIGNS[1:] @ each / expected)
        modes = np.concatenate([modes, sides.T / expected])
    # Counting variance from the neighbourhood, without what a source adds: that belongs to the other hypothesis.
    variance = np.clip(_smooth(total, min(4, (n - 1) // 2)) / expected, 0.2, 1.05) / expected
    speed_mm_s = (speed_kmh or SPEED_KMH) / 3.6 * 1000
    x = (np.arange(n, dtype=np.float64) + 0.5 - before) * interval_s * speed_mm_s
    length = max(n - before - after, 1) * interval_s * speed_mm_s
    return Series(modes, variance, x, length, expected, not speed_kmh)


def _smooth(values: Floats, half: int) -> Floats:
    """Return means over `half` intervals to either side, the ends continued."""
    padded = np.concatenate([np.full(half + 1, values[0]), values, np.full(half, values[-1])])
    total = np.cumsum(padded)
    return np.asarray((total[2 * half + 1 :] - total[: -2 * half - 1]) / (2 * half + 1))


def coarser(s: Series, width: int) -> Series:
    """Return the passage with `width` intervals taken together; those that are left over at its end are dropped."""
    cells = len(s.x_mm) // width

    def means(values: Floats) -> Floats:
        parted = values[..., : cells * width].reshape(*values.shape[:-1], cells, width)
        return np.asarray(parted.mean(axis=-1))

    return s._replace(
        modes=means(s.modes), variance=means(s.variance) / width, x_mm=means(s.x_mm), expected=s.expected * width
    )


def cell_width(s: Series) -> int:
    """Return how many intervals are taken together."""
    step_mm = (s.x_mm[-1] - s.x_mm[0]) / max(len(s.x_mm) - 1, 1)
    return int(np.clip(CELL_MM // max(step_mm, 1.0), 1, max(len(s.x_mm) // 4, 1)))


class Shade(NamedTuple):
    """depth : of the shadow where it is deep, as a share of the background; even : depth in its middle over that."""

    depth: float
    even: float


def shade_of(s: Series) -> Shade:
    """Return how deep the shadow is: 85th percentile and median, along the vehicle, of means over DEPTH_MM."""
    inside = np.flatnonzero((s.x_mm > 0) & (s.x_mm < s.length_mm))
    if not inside.size:
        return Shade(0.1, 1.0)
    step_mm = float(s.x_mm[-1] - s.x_mm[0]) / max(len(s.x_mm) - 1, 1)
    width = min(max(3, round(DEPTH_MM / max(step_mm, 1.0))), len(s.x_mm))
    smooth = np.sort(np.convolve(s.modes[0], np.full(width, 1 / width), mode="same")[inside])
    depth = float(np.clip(-smooth[int(0.15 * len(smooth))], 0.04, 0.6))
    return Shade(depth, float(np.clip(-smooth[len(smooth) // 2] / depth, 0.3, 1.0)))


def depth_of(s: Series) -> float:
    """Return how deep the shadow is where it is deep."""
    return shade_of(s).depth


def envelope(x_mm: Floats, length_mm: float, reach_mm: float) -> Floats:
    """Return the even shadow of depth 1: a box of the vehicle's length, its edges as soft as the view is wide."""

    def step(u: Floats) -> Floats:
        half = 0.5 * np.exp(-np.abs(u) / reach_mm)
        return np.where(u < 0, half, 1 - half)

    return step(x_mm) - step(x_mm - length_mm)


def ripple_covariance(x_mm: Floats, length_mm: float, sigma: float) -> tuple[Floats, Floats]:
    """Return the even shadow of depth 1 and the covariance of a ripple of `sigma` on it, for a middling reach."""
    box = envelope(x_mm, length_mm, MIDDLE_REACH_MM)
    apart = np.abs(x_mm[:, np.newaxis] - x_mm[np.newaxis])
    return box, sigma**2 * np.outer(box, box) * _ripple(apart, MIDDLE_REACH_MM) + BACKGROUND_ERROR**2


def _ripple(apart: Floats, reach_mm: float) -> Floats:
    """Return the covariance of a shadow of unit variance: Matern, order 3/2, of a view that falls off exponentially."""
    return (1 + apart / reach_mm) * np.exp(-apart / reach_mm)


@lru_cache(maxsize=4)
def _knots(distance_mm: float, scale: float) -> tuple[Floats, Floats]:
    """Return offsets `(knots,)` and `(places, modes, knots)` profiles of a source of peak 1, for the places of _OWN."""
    x = np.arange(-40_000.0, 40_000.5, 100.0)
    rows = []
    for aside, height in (PLACES[k] for k in _OWN):
        away = distance_mm / 2 + np.array([aside, aside, -aside, -aside])
        up = height - np.array([*DETECTOR_HEIGHT_MM, *DETECTOR_HEIGHT_MM])
        seen = away * ((away**2 + up**2)[np.newaxis] + (x[:, np.newaxis] / scale) ** 2) ** -1.5
        rows.append(_SIGNS @ (seen / seen.sum(axis=1).max()).T)
    return x, np.array(rows)


def _profiles(s: Series) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return `(places, modes, centres, n)` profiles for the places of _OWN, and `(centres,)` their middles."""
    inside = np.flatnonzero((s.x_mm > -500) & (s.x_mm < s.length_mm + 500))
    made, n = [], len(s.x_mm)
    scales = _BLIND_SCALES if s.blind else (1.0,)
    # Intervals are equally long, so a profile depends on how many of them it is away, and on nothing else.
    away_mm = (s.x_mm[-1] - s.x_mm[0]) / max(n - 1, 1) * np.arange(1.0 - n, n)
    # Middles follow each other, so each one's profile begins one to the left of the one before.
    first = int(inside[0]) if inside.size else n
    for scale in scales:
        x, rows = _knots(PILLAR_DISTANCE_MM, scale)
        at = np.clip((away_mm - x[0]) / 100.0, 0, len(x) - 1.001)
        low = at.astype(np.int64)
        part = at - low
        by_distance = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
        made.append(sliding_window_view(by_distance, n, axis=2)[:, :, : n - first][:, :, ::-1][:, :, : len(inside)])
    return np.concatenate(made, axis=2), np.tile(inside, len(scales))


class _Common(NamedTuple):
    """What all detectors together say by every kind of shadow: `(kinds, places, centres)` each.

    peak : of a source there, with the shadow's depth fitted beside it; weight : its inverse variance
    depth : of the shadow there; likelihood : `(kinds,)` logarithm, without a source
    """

    peak: Floats
    weight: Floats
    depth: Floats
    likelihood: Floats


def _common(s: Series, profiles: Floats, centres: npt.NDArray[np.int64], depth: float) -> _Common:
    n = len(s.x_mm)
    boxes, whiteners, log_dets = _shadows(s, depth)
    own = profiles[:, 0].reshape(-1, n)
    y, e = s.modes[0] @ whiteners, (boxes[:, np.newaxis] @ whiteners)[:, 0]
    g = own @ whiteners
    ee, ye, yy = (e * e).sum(axis=1) + EVEN_HOLD, (y * e).sum(axis=1), (y * y).sum(axis=1)
    along = g @ np.stack([e, y], axis=2)
    eg, yg = along[..., 0], along[..., 1]
    weight = np.einsum("kin,kin->ki", g, g) - eg**2 / ee[:, np.newaxis]
    peak = (yg - eg * (ye / ee)[:, np.newaxis]) / weight
    local = np.maximum((eg * peak - ye[:, np.newaxis]) / ee[:, np.newaxis], 0.0)
    likelihood = -0.5 * (yy - ye**2 / ee + log_dets + np.log(ee))
    parts = (v.reshape(len(KINDS), len(_OWN), -1)[:, _SAME] for v in (peak, weight, local))
    peak, weight, local = parts
    return _Common(peak, weight, local * boxes[:, np.newaxis, centres], likelihood)


def _shadows(s: Series, depth: float) -> tuple[Floats, Floats, Floats]:
    """Return even shadows `(kinds, n)`, whiteners `(kinds, n, n)` of what is left of them, and log determinants."""
    apart = np.abs(s.x_mm[:, np.newaxis] - s.x_mm[np.newaxis])
    loading = _ripple(apart, LOADING_MM)
    n = len(s.x_mm)
    boxes, whiteners, deviations = np.empty((len(KINDS), n)), np.empty((len(KINDS), n, n)), np.empty((len(KINDS), n))
    by_reach = {}
    for reach in REACHES_MM:
        box = envelope(s.x_mm, s.length_mm, reach)
        deep = depth * box
        front = FRONT * depth * envelope(s.x_mm, min(FRONT_MM, s.length_mm / 2), reach)
        even = np.multiply.outer(front, front) + BACKGROUND_ERROR**2
        by_reach[reach] = box, np.multiply.outer(deep, deep), _ripple(apart, reach), even
    for k, kind in enumerate(KINDS):
        boxes[k], square, ripple, even = by_reach[kind.reach_mm]
        covariance = square * (kind.ripple**2 * ripple + kind.loading**2 * loading)
        covariance += even
        whiteners[k], deviations[k] = _whitener(covariance, s.variance)
    return boxes, whiteners, 2 * np.log(deviations).sum(axis=1)


def _whitener(covariance: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Return the matrix that, from the right, makes rows of this covariance white, and its inverse's diagonal.

    variance : of counting, which is added to the diagonal of the covariance, in place
    """
    n = len(covariance)
    covariance.reshape(-1)[:: n + 1] += variance
    # A symmetric matrix is its own transpose, which LAPACK takes without copying it.
    factor, failed = dpotrf(covariance.T, lower=1, clean=1, overwrite_a=1)
    if failed:
        raise DataError(f"portal baseline: the covariance of {n} intervals is not positive definite")
    deviations = factor.diagonal().copy()
    inverse, _ = dtrtri(factor, lower=1, overwrite_c=1)
    return np.asarray(inverse.T), deviations


def _contrast(s: Series, profiles: Floats, depth: float, width: int) -> tuple[Floats, Floats]:
    """Return what the differences of the detectors say: `(places, centres)` numerator and weight of a source.

    width : intervals in one of the passage's cells
    """
    if len(s.modes) != 4:
        return np.zeros((len(PLACES), profiles.shape[2])), np.zeros((len(PLACES), profiles.shape[2]))
    box = envelope(s.x_mm, s.length_mm, MIDDLE_REACH_MM)
    apart = np.abs(s.x_mm[:, np.newaxis] - s.x_mm[np.newaxis])
    # What falls more on one detector than on another has the form of the shadow itself, gaps and all.
    seen = _smooth(-s.modes[0], max(3 // width, 1)).clip(0.0)
    covariance = CONTRAST_EVEN**2 * np.multiply.outer(seen, seen) + (BACKGROUND_ERROR / 2) ** 2
    covariance += (CONTRAST_RIPPLE * depth) ** 2 * np.multiply.outer(box, box) * _ripple(apart, MIDDLE_REACH_MM)
    whitener, _ = _whitener(covariance, s.variance)
    own = profiles[:, 1:]
    g = (own.reshape(-1, len(box)) @ whitener).reshape(own.shape)
    each = (g @ (s.modes[1:] @ whitener)[:, :, np.newaxis])[..., 0]
    return (each[_SAME] * _TURNED[:, :, np.newaxis]).sum(axis=1), np.einsum("pmcn,pmcn->pc", g, g)[_SAME]


def _gap_loss(off: Floats, weight: Floats, cost: Floats, limit: Floats) -> Floats:
    """Return what is left of the common counts' loss where a bump may be put in at `cost` per height, up to `limit`."""
    bump = np.clip(off - cost / (2 * weight), 0.0, limit)
    return np.asarray((off - bump) ** 2 * weight + cost * bump)


def _losses(c: _Common, numerator: Floats, contrast: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the losses without and with a source, and its peak: `(kinds, places, centres)` each.

    A bump costs by its height, as it is exponential. Without a source the common counts may be off by it and the
    contrasts are off by all they show; with a source of peak a both must show a, the common ones again but for the
    bump. Losses are convex in a with three closed forms: no bump, some, and all that the depth allows.
    """
    cost, limit = _COSTS[:, np.newaxis, np.newaxis] / np.maximum(c.depth, LEAST_DEPTH), c.depth
    alone = np.divide(numerator, contrast, out=np.zeros_like(numerator), where=contrast > 1e-9)
    without = _gap_loss(c.peak, c.weight, cost, limit) + alone**2 * contrast
    both, free = c.weight + contrast, cost / (2 * c.weight)
    with_none = (c.peak * c.weight + alone * contrast) / both
    with_all = with_none - limit * c.weight / both
    with_some = alone + cost / (2 * np.maximum(contrast, 1e-9))
    a = np.where(c.peak - with_all >= free + limit, with_all, with_some)
    a = np.maximum(np.where(c.peak - with_none <= free, with_none, a), 0.0)
    with_source = _gap_loss(c.peak - a, c.weight, cost, limit) + (alone - a) ** 2 * contrast
    floor = 2 * c.likelihood[:, np.newaxis, np.newaxis]
    return without - floor, with_source - floor, a


def _log_sum(logs: Floats) -> Floats:
    """Return the logarithm of the sum of exp over the first axis."""
    most = logs.max(axis=0)
    return np.asarray(most + np.log(np.exp(logs - most).sum(axis=0)))


def shaped_excess(fine: Series, interval_s: float, depth: float) -> Shaped | None:
    """Return the point source that explains most, None where no part of the vehicle is in the record.

    depth : `depth_of(fine)`
    """
    width = cell_width(fine)
    s = coarser(fine, width)
    profiles, centres = _profiles(s)
    if centres.size == 0:
        return None
    numerator, contrast = _contrast(s, profiles, depth, width)
    common = _common(s, profiles, centres, depth)
    without, with_source, peak = _losses(common, numerator, contrast)
    ratio = _log_sum(-with_source / 2) - _log_sum(-without / 2)
    by_centre = 2 * (_log_sum(ratio) - np.log(len(PLACES)))
    centre = int(by_centre.argmax())
    place = int(ratio[:, centre].argmax())
    kind = int(with_source[:, place, centre].argmin())
    weight, best = float(contrast[place, centre]), float(by_centre[centre])
    side = max(float(numerator[place, centre]), 0.0)
    alone = side**2 / weight if weight > 1e-9 else 0.0
    scale = fine.expected / interval_s
    return Shaped(
        gain=best, at=int(centres[centre]) * width + width // 2, aside_mm=PLACES[place][0],
        height_mm=PLACES[place][1], counts_per_s=scale * float(peak[kind, place, centre]),
        error=scale * (float(common.weight[kind, place, centre]) + weight) ** -0.5,
        depth=float(common.depth[kind, place, centre]), one_sided=min(alone / max(best, 1e-9), 1.0),
    )  # fmt: skip
