"""How weak a source could be found at all: detectors that know what no detector can, at the same false alarm rate.

    shadow known    what the passage would count without a source, in every interval and detector
    ripple unknown  the vehicle, its even shadow and how that falls on the detectors; but its ripple, along the vehicle
                    and between detectors, only by its statistics. For this one the ripple is drawn normally, with the
                    covariance that it has on simulated vehicles

Both know how strong the source would be, and that it lies at one of PLACES of the cargo room, but not at which: they
take the mean likelihood ratio L over all places, which no test of the same rate beats (Neyman and Pearson). So the
strength that they need bounds what the judgement may be asked for on the same passages. It is no promise: nobody knows
a vehicle's shadow before it has passed.

False alarms need no passages without a source: the chance of L > t there is the mean of 1/L over passages with one
where L > t, exactly, as sources are drawn from the places that L is the mean over.

Source: Neyman and Pearson, Philosophical Transactions A 231 (1933) 289.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular, toeplitz

from scanner_io.model import PortalRecord
from triage.study.portal_traffic import (
    BUFFERED,
    GRID_MM,
    HOLD_IN,
    INTERVAL_S,
    STEP_MM,
    Load,
    Traffic,
    Vehicles,
    draw_vehicles,
    expected_rates,
    shape,
)

Floats = npt.NDArray[np.float64]

STRENGTHS = tuple(round(70 * 1.12**k) for k in range(20))
"""Peaks of the sources, counts/s of all detectors; the last is 603."""
ALONG, ASIDE_MM, HEIGHT_MM = 24, (-1000.0, -500.0, 0.0, 500.0, 1000.0), (950.0, 1950.0, 2950.0)
"""Places: so many along the cargo room, from the lane's middle, and above the ground."""
KNOTS_MM, KNOTS = 2000.0, 20
"""Of the unevenness along the vehicle, as in simulated traffic."""
CAB_MM = 2500.0
"""Recorded vehicles carry nothing in front of this."""


class Sources(NamedTuple):
    """Logarithm of L for sources of every strength, `(strengths, passages, injections)`."""

    log_ratio: Floats

    def detection(self, rate: float, chosen: npt.NDArray[np.int64] | None = None) -> Floats:
        """Return the share found of every strength, `(strengths,)`, at this false alarm rate.

        chosen : passages, drawn anew; None: all of them
        """
        found = []
        for these in self.log_ratio if chosen is None else self.log_ratio[:, chosen]:
            falling = np.sort(these.ravel())[::-1]
            false_alarms = np.cumsum(np.exp(-falling)) / falling.size
            found.append(float((false_alarms <= rate).mean()))
        return np.array(found)


def _places(first_mm: float, end_mm: float, pillars_mm: float) -> Load:
    """Return points of 1 count/s at all places of one cargo room."""
    x = first_mm + (np.arange(ALONG) + 0.5) / ALONG * (end_mm - first_mm)
    grid = np.meshgrid(x, np.array(ASIDE_MM), np.array(HEIGHT_MM), indexing="ij")
    along, aside, height = (axis.ravel() for axis in grid)
    n = along.size
    return Load(along, along, aside, height, np.full(n, pillars_mm), np.ones(n))


def _places_in(vehicles: Vehicles, i: int) -> Load:
    first, end = (float(v) for v in vehicles.boxes[i])
    return _places(first, end, float(vehicles.pillars_mm[i]))


def shadow_known(
    rng: np.random.Generator, innocent: Sequence[Floats], x_mm: Sequence[Floats], places: Sequence[Load],
    injections: int,
) -> Sources:  # fmt: skip
    """Return what the detector that knows the shadow says.

    innocent : of every passage `(intervals, 4)` counts/s without a source; x_mm : `(intervals,)` of the vehicle's front
    """
    found = np.empty((len(STRENGTHS), len(innocent), injections))
    for i, (rate, x, load) in enumerate(zip(innocent, x_mm, places, strict=True)):
        seen = shape(load, np.broadcast_to(x, (len(load.first_mm), len(x)))).reshape(len(load.first_mm), -1)
        flat = rate.ravel() * INTERVAL_S
        for k, strength in enumerate(STRENGTHS):
            added = strength * INTERVAL_S * seen
            which = rng.integers(0, len(added), injections)
            counts = rng.poisson(flat + added[which])
            each = counts @ np.log1p(added / flat).T - added.sum(axis=1)
            found[k, i] = _log_mean(each)
    return Sources(found)


def ripple_unknown(
    rng: np.random.Generator, vehicles: Vehicles, traffic: Traffic, injections: int, ripple: Floats
) -> Sources:
    """Return what the detector that does not know the ripple says, of the vehicles' shadows made anew for it.

    ripple : covariance by distance, in steps of GRID_MM, of shadows of depth 1
    """
    found = np.empty((len(STRENGTHS), len(vehicles.length_mm), injections))
    for i in range(len(vehicles.length_mm)):
        mean, root, x = _even_passage(rng, vehicles, i, traffic, ripple)
        load = _places_in(vehicles, i)
        seen = shape(load, np.broadcast_to(x, (len(load.first_mm), len(x)))).reshape(len(load.first_mm), -1)
        white = solve_triangular(root, (INTERVAL_S * seen).T, lower=True).T
        norms = (white * white).sum(axis=1)
        for k, strength in enumerate(STRENGTHS):
            which = rng.integers(0, len(white), injections)
            drawn = strength * white[which] + rng.normal(size=(injections, mean.size))
            found[k, i] = _log_mean(strength * (drawn @ white.T) - strength**2 / 2 * norms)
    return Sources(found)


def _log_mean(each: Floats) -> Floats:
    """Return the logarithm of the mean of exp over the last axis."""
    return np.asarray(np.logaddexp.reduce(each, axis=-1) - np.log(each.shape[-1]))


def _even_passage(
    rng: np.random.Generator, vehicles: Vehicles, i: int, traffic: Traffic, ripple: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return mean counts `(intervals * 4,)`, the root of their covariance, and x_mm of one vehicle."""
    speed, length = float(vehicles.speed_mm_s[i]), float(vehicles.length_mm[i])
    n = BUFFERED + int(np.ceil(length / speed / INTERVAL_S)) + HOLD_IN
    x = (np.arange(n) + 0.5 - BUFFERED) * INTERVAL_S * speed
    box, depth = even_shadow(vehicles, i)
    even = depth * np.interp(x, GRID_MM, box, left=0.0, right=0.0)
    flat = np.full(4, traffic.background_cps[0] / 4) * INTERVAL_S
    weight = 1 + rng.normal(0, traffic.uneven[0], 4)
    weight /= weight.mean()
    mean = flat * (1 - even[:, np.newaxis] * weight)
    apart = np.abs(x[:, np.newaxis] - x) / STEP_MM
    long = np.outer(even, even) * np.interp(apart, np.arange(len(ripple)), ripple)
    at = np.clip((x + 2 * KNOTS_MM) / KNOTS_MM, 0, KNOTS - 1.001)
    basis = np.clip(1 - np.abs(at[:, np.newaxis] - np.arange(KNOTS)), 0, None)
    between = np.outer(even, even) * traffic.uneven[1] ** 2 * (basis @ basis.T)
    covariance = np.einsum("tu,d,e->tdue", long, flat * weight, flat * weight)
    covariance += np.einsum("tu,de->tdue", between, flat[0] ** 2 * (np.eye(4) - 0.25))
    covariance = covariance.reshape(4 * n, 4 * n)
    covariance[np.diag_indices(4 * n)] += mean.ravel()
    return np.asarray(mean.ravel()), np.asarray(cholesky(covariance, lower=True)), np.asarray(x, np.float64)


def even_shadow(vehicles: Vehicles, i: int) -> tuple[Floats, float]:
    """Return `(road,)` the even shadow of depth 1 of one vehicle, and the depth at which it fits the vehicle's own."""
    length, field = float(vehicles.length_mm[i]), float(vehicles.field_mm[i])

    def step(u: Floats) -> Floats:
        half = 0.5 * np.exp(-np.abs(u) / field)
        return np.where(u < 0, half, 1 - half)

    box = step(GRID_MM) - step(GRID_MM - length)
    return box, float(box @ vehicles.shade[i] / (box @ box))


def ripple_of(vehicles: Vehicles) -> Floats:
    """Return the covariance of the ripple by distance, in steps of GRID_MM, over shadows of depth 1."""
    total = np.zeros(GRID_MM.size)
    for i in range(len(vehicles.length_mm)):
        box, depth = even_shadow(vehicles, i)
        inside = (GRID_MM > 0) & (vehicles.length_mm[i] > GRID_MM)
        off = ((vehicles.shade[i] - depth * box) / depth)[inside]
        total[: off.size] += np.correlate(off, off, "full")[off.size - 1 :] / off.size
    mean = total / len(vehicles.length_mm)
    # Of what is left beyond the shortest vehicles little is known; a positive definite form is kept by cutting none.
    assert np.linalg.eigvalsh(toeplitz(mean[:100])).min() > -1e-9
    return mean


def simulated_bounds(
    rng: np.random.Generator, count: int, injections: int, traffic: Traffic
) -> tuple[Sources, Sources]:
    """Return what both detectors say of `count` simulated vehicles."""
    vehicles = draw_vehicles(rng, count, traffic)
    expected = expected_rates(rng, vehicles, traffic)
    lengths = [int(n) for n in expected.intervals]
    known = shadow_known(
        rng, [expected.innocent[i, :n] for i, n in enumerate(lengths)],
        [expected.x_mm[i, :n] for i, n in enumerate(lengths)],
        [_places_in(vehicles, i) for i in range(count)], injections,
    )  # fmt: skip
    ripple = ripple_of(draw_vehicles(rng, 400, traffic))
    return known, ripple_unknown(rng, vehicles, traffic, injections, ripple)


def recorded_bound(rng: np.random.Generator, records: Sequence[PortalRecord], injections: int) -> Sources:
    """Return what the detector that knows the shadow says of passages of one recorded vehicle.

    Its shadow at each passage is taken for the mean of the other passages at the same place of the vehicle.
    """
    steps = [(r.speed_kmh or 8.0) / 3.6 * 1000 * INTERVAL_S for r in records]
    times = [np.arange(len(r.gamma), dtype=np.float64) + 0.5 - BUFFERED for r in records]
    x_mm: list[Floats] = [t * step for t, step in zip(times, steps, strict=True)]
    shares = [r.gamma / (np.asarray(r.gamma_background) * INTERVAL_S) for r in records]
    innocent, places = [], []
    for i, record in enumerate(records):
        rest = [
            np.stack([np.interp(x_mm[i], x_mm[j], shares[j][:, d]) for d in range(4)], axis=1)
            for j in range(len(records))
            if j != i
        ]
        innocent.append(np.mean(rest, axis=0) * np.asarray(record.gamma_background))
        rear = (len(record.gamma) - BUFFERED - HOLD_IN) * steps[i]
        places.append(_places(min(CAB_MM, rear / 2), rear, 4750.0))
    return shadow_known(rng, innocent, x_mm, places, injections)
