"""Whether a gamma excess that is as long as a load is one: what is left of it when the best load is taken away.

Goods may explain an excess only where one even load, seen by all detectors, accounts for all of it. Three things speak
against that, and each alone is enough:

    point   a point on top of the load fits better than the load alone, by more than chance and uneven profiles give
    two     two points, wherever on the vehicle and at whatever distance of each detector, fit better than the load
    short   the load is so short that two points would look the same: two that are s apart look like an even load of
            1.7 s, whatever is counted, because a detector two metres away blurs what is finer

The load is fitted with its place and length alike for all detectors and its distance and level of each, beside the
vehicle's shadow. Three points and more, evenly spread, are a load to any portal of this kind: nothing here tells them.

Measured on simulated passages whose excess is called distributed (`tests/triage/test_portal_residual.py` has a part of
it), with 95 % intervals. Of even loads of 6 m and more with peaks of 400 to 4000 counts/s 4.4 % lose their explanation
(19 of 427, 2.7 to 6.9), of those of 4 to 6 m half. Inside loads of 1000 to 4000 counts/s a point of 300 counts/s takes
it away in 20 % (43 of 214), of 600 in 49 % (42 to 56), of 1200 in 94 % (90 to 97), of 2400 in all. Two points of 1000
to 4000 counts/s together lose it in 93 % (88 to 96) where they are 2.5 m apart, in 63 % at 3.2 m, 77 % at 4 m and 87 %
at 6 m. Real loads are less even than these and lose it more often.

What a load can hide is told with the explanation: the point that is left over in about nine of ten passages, computed
for each passage anew. Of points just as strong 26 of 29 are left over in loads of 800 counts/s (half of those computed
were of 743 or less), 42 of 46 in loads of 1500 (929) and 32 of 44 in loads of 3000 (1155); of points half as strong 12,
14 and 7.

Source: profiles as in `portal_shape`; the length: equal second moments of two points and of an even line, s / 2 and
L / sqrt(12).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scanner_io.model import PortalRecord

from .portal_baseline import EVEN_HOLD
from .portal_shape import STANDOFFS_MM, Vehicle, profile, vehicle_of, whitened
from .portal_vendor import gamma_background

Floats = npt.NDArray[np.float64]

LENGTHS_MM = tuple(4000.0 * 1.11**k for k in range(15))
"""Lengths of a load that are tried, 4 to 17.2 m: a coarser grid leaves residuals of its own."""
SHORTEST_MM = 6000.0
"""A load that fits as shorter could be two points: those 2.5 m apart fit as shorter in nine of ten passages."""
POINT_GAIN = 55.0
"""Chi-square that a point on top may save: 2.5 % of even loads of 5.5 m and more gave 49 and more."""
TWO_GAIN = 16.0
"""Chi-square by which two points may be better than the load, for they have more freedom: the same share gave 14."""


MIDDLE_MM, SURE = 2500.0, 1.645
"""Distance of a point midway between the pillars from every detector, and the normal score of 19 in 20, which would be
found if its own profile were as the formula says."""


class Residual(NamedTuple):
    """What speaks against one even load.

    length_mm, middle_mm : of the load that fits best, behind the vehicle's front
    point_gain : chi-square that a point on top saves; point_mm : where it is
    two_gain : chi-square by which two points are better than the load, below 0 if they are worse
    hidden_counts_per_s : peak of a point, midway between the pillars, that is left over in most such passages wherever
        in the load it lies; weaker ones may look like the load
    """

    length_mm: float
    middle_mm: float
    point_gain: float
    point_mm: float
    two_gain: float
    hidden_counts_per_s: float

    def words(self) -> str:
        """Say what cannot be explained by a load; nothing where it can."""
        found = []
        if self.point_gain > POINT_GAIN:
            found.append(
                f"a point {self.point_mm / 1000:.1f} m behind the front is left on top of the load (chi-square "
                f"{self.point_gain:.0f} better, {POINT_GAIN:g} are allowed)"
            )
        if self.two_gain > TWO_GAIN:
            found.append(
                f"two points fit better than a load (chi-square {self.two_gain:.0f}, {TWO_GAIN:g} are allowed)"
            )
        if self.length_mm < SHORTEST_MM:
            found.append(
                f"the load that fits best is {self.length_mm / 1000:.1f} m long, and two points look the same below "
                f"{SHORTEST_MM / 1000:g} m"
            )
        return "; ".join(found)


def residual_of(record: PortalRecord) -> Residual | None:
    """Return what is left of the excess beside the best load, None where there is no background to fit it with."""
    background = gamma_background(record)
    if background is None:
        return None
    v = vehicle_of(record, background)
    on = np.flatnonzero(background > 0)
    loads = on_top = two = np.zeros(())
    seen = [(record.gamma[:, k].astype(np.float64), float(background[k] * record.gamma_interval_s)) for k in on]
    for counts, flat in seen:
        fit = _fit(v, counts, flat)
        loads, on_top, two = loads + fit.loads, on_top + fit.on_top, two + fit.two
    length, middle = np.unravel_index(int(loads.argmax()), loads.shape)
    *_, place = np.unravel_index(int(on_top.argmax()), on_top.shape)
    load = float(loads.max())
    length_mm, middle_mm = LENGTHS_MM[length], float(v.places_mm[middle])
    shown = np.sum([_shown(v, counts, flat, middle_mm, length_mm) for counts, flat in seen], axis=0)
    least = shown[np.abs(v.places_mm - middle_mm) <= length_mm / 2].min()
    count = (POINT_GAIN**0.5 + SURE) / max(float(least), 1e-12) ** 0.5
    return Residual(
        length_mm, middle_mm, float(on_top.max()) - load, float(v.places_mm[place]), float(two.max()) - load,
        count * on.size / record.gamma_interval_s,
    )  # fmt: skip


def _shown(v: Vehicle, counts: Floats, flat: float, middle_mm: float, length_mm: float) -> Floats:
    """Return `(places,)` chi-square that a point of 1 count per interval saves on top of this load in one detector."""
    load = [profile(v.x_mm, np.array([middle_mm]), length_mm, h) for h in STANDOFFS_MM]
    y, e, g = whitened(v, counts, flat, np.concatenate([profile(v.x_mm, v.places_mm, 0.0, MIDDLE_MM), *load]))
    ee, eg = float(e @ e) + EVEN_HOLD, g @ e
    gy, gg = g @ y - eg * float(e @ y) / ee, (g * g).sum(axis=1) - eg**2 / ee
    point = slice(0, len(v.places_mm))
    best = len(v.places_mm) + int((np.maximum(gy, 0.0) ** 2 / gg)[point.stop :].argmax())
    both = g[point] @ g[best] - eg[point] * eg[best] / ee
    return np.asarray(gg[point] - both**2 / gg[best])


class _Gains(NamedTuple):
    """Chi-square that one detector's fits save over nothing, each at its best distances.

    loads : `(lengths, places)`; on_top : `(lengths, places, places)` of a load and a point; two : `(places, places)`
    """

    loads: Floats
    on_top: Floats
    two: Floats


def _fit(v: Vehicle, counts: Floats, flat: float) -> _Gains:
    """Fit one detector by loads, by points on top of them, and by pairs of points."""
    places, heights, lengths = len(v.places_mm), len(STANDOFFS_MM), len(LENGTHS_MM)
    kinds = [(m, h) for m in (0.0, *LENGTHS_MM) for h in STANDOFFS_MM]
    y, e, g = whitened(v, counts, flat, np.concatenate([profile(v.x_mm, v.places_mm, m, h) for m, h in kinds]))
    # The shadow is fitted beside everything: its part is taken out of all of them.
    ee, eg = float(e @ e) + EVEN_HOLD, g @ e
    gy = g @ y - eg * float(e @ y) / ee
    gg = (g * g).sum(axis=1) - eg**2 / ee
    point, load = slice(0, heights * places), slice(heights * places, None)

    def pairs(a: slice) -> Floats:
        """Return the gain of each of `a` with each point."""
        both = g[a] @ g[point].T - np.outer(eg[a], eg[point]) / ee
        return _pair_gain(gy[a], gy[point], gg[a], gg[point], both)

    alone = np.maximum(gy[load], 0.0) ** 2 / gg[load]
    return _Gains(
        alone.reshape(lengths, heights, places).max(axis=1),
        pairs(load).reshape(lengths, heights, places, heights, places).max(axis=(1, 3)),
        pairs(point).reshape(heights, places, heights, places).max(axis=(0, 2)),
    )


def _pair_gain(ya: Floats, yb: Floats, aa: Floats, bb: Floats, ab: Floats) -> Floats:
    """Return `(a, b)` gains of two profiles together, neither of which may be negative.

    ya, yb : `(a,)`, `(b,)` products with the counts; aa, bb : squares; ab : `(a, b)` products of the profiles
    """
    square = np.outer(aa, bb)
    det = np.maximum(square - ab * ab, 1e-9 * square)
    ya, yb = ya[:, np.newaxis], yb[np.newaxis]
    first, second = ya * bb - ab * yb, yb * aa[:, np.newaxis] - ab * ya
    one = np.maximum(np.maximum(ya, 0.0) ** 2 / aa[:, np.newaxis], np.maximum(yb, 0.0) ** 2 / bb)
    return np.where((first > 0) & (second > 0), (first * ya + second * yb) / det, one)
