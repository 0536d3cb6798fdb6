"""Portal passages by the thousand: what a study of false alarms and detection is measured on. All of it is simulated.

Vehicles of several builds pass at their own speeds and take away their own share of the ground's radiation, with gaps
between tractor and box, between two boxes and inside the load; what they carry is a point, or a load of some length,
seen by four detectors from where it lies. Everything is drawn for all passages at once.

The model is one of physics and geometry, in the vehicle's millimetres. The judgement that is studied with it works in
the portal's intervals, knows none of the names here and shares no code with it.

Source: depth of the shadow over 700 real vehicles (5 %, median, 95 %: 27, 41, 52 %), two edges of 6 m on a recorded
vehicle; both in the specification of portals, sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.model import PortalRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

INTERVAL_S = 0.2
BUFFERED, HOLD_IN = 5, 10
"""Intervals sent from before entry, and kept after the vehicle has left."""
BACKGROUND_S = 20.0
"""The published background is a mean over so many seconds."""
DETECTOR_HEIGHT_MM = (800.0, 3100.0)
"""Middle of the lower and of the upper detector: the recorded load near the ground is seen 4.4 times as strong by the
lower ones, which needs two metres between them and more."""
STEP_MM = 100.0
BEFORE_MM, SPAN_MM = 8000.0, 36_000.0
"""The road that is looked at, from in front of the vehicle to behind it."""
GRID_MM: Floats = np.arange(-BEFORE_MM, SPAN_MM - BEFORE_MM, STEP_MM)
NEUTRON_CPS = 6.4


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What passes, and where: ranges are drawn from evenly.

    speed_kmh : speed of the vehicles
    depth : median and standard deviation of the deepest shadow, drawn normally
    depth_limits : where the draw is cut
    field_mm : half width of what a pillar sees of the ground along the lane; it blurs the shadow
    background_cps : median of all detectors together, and the standard deviation of its logarithm
    drift_per_s : standard deviation of the background's change, as a share of it; rain brings 1 % in a minute
    pillars_mm : between the faces of the two pillars
    uneven : standard deviation of the depth from one detector to the next, as a share of the depth: all along the
        vehicle, and changing every 2 m; on the recorded truck (25 passes, S2-C0-NONE) their differences come to this
    shower_share : variance of the neutron background over its mean, less one: cosmic-ray showers in steel
    """

    speed_kmh: tuple[float, float] = (3.0, 15.0)
    depth: tuple[float, float] = (0.41, 0.076)
    depth_limits: tuple[float, float] = (0.15, 0.58)
    field_mm: tuple[float, float] = (900.0, 2500.0)
    background_cps: tuple[float, float] = (1550.0, 0.2)
    drift_per_s: float = 1.5e-4
    pillars_mm: tuple[float, float] = (4000.0, 5500.0)
    uneven: tuple[float, float] = (0.25, 0.15)
    shower_share: float = 0.1


class Load(NamedTuple):
    """Something radioactive on each of n passages.

    first_mm, end_mm : `(n,)` where it begins and ends behind the vehicle's front; equal for a point
    aside_mm, height_mm : `(n,)` from the lane's middle towards the slave pillar, and above the ground
    pillars_mm : `(n,)` between the faces of the two pillars
    counts_per_s : `(n,)` above background, all detectors together, at the best moment
    """

    first_mm: Floats
    end_mm: Floats
    aside_mm: Floats
    height_mm: Floats
    pillars_mm: Floats
    counts_per_s: Floats


class Vehicles(NamedTuple):
    """n vehicles without counts yet.

    length_mm, speed_mm_s, field_mm, depth : `(n,)`
    shade : `(n, road) float64`, share of the background that is lost with the vehicle's point GRID_MM in the portal
    boxes : `(n, 2)` where the cargo room begins and ends
    kind : `(n,)` index into KINDS
    pillars_mm : `(n,)` of the portal it passes
    """

    length_mm: Floats
    speed_mm_s: Floats
    field_mm: Floats
    depth: Floats
    shade: Floats
    boxes: Floats
    kind: Ints
    pillars_mm: Floats


class Passages(NamedTuple):
    """n passages with counts.

    gamma : `(n, intervals, 4) int64`, zero beyond a passage's own length
    intervals : `(n,)` its length
    background : `(n, 4)` counts/s as the portal last published them
    neutron : `(n, seconds) int64` all banks; seconds : `(n,)`
    neutron_background : `(n,)` counts/s
    speed_kmh : `(n,)` as measured
    """

    gamma: Ints
    intervals: Ints
    background: Floats
    neutron: Ints
    seconds: Ints
    neutron_background: Floats
    speed_kmh: Floats
    vehicles: Vehicles

    def records(self) -> Iterator[PortalRecord]:
        """Yield each passage as a portal's record."""
        for i in range(len(self.intervals)):
            yield self.record(i)

    def record(self, i: int) -> PortalRecord:
        """Return passage i as a portal's record."""
        n, s = int(self.intervals[i]), int(self.seconds[i])
        neutron = np.zeros((s, 4), np.int64)
        neutron[:, 0] = self.neutron[i, :s]
        return PortalRecord(
            start_utc_ns=0, end_utc_ns=int(n * INTERVAL_S * 1e9), gamma=np.ascontiguousarray(self.gamma[i, :n]),
            neutron=neutron, gamma_alarm=np.zeros(n, np.bool_), neutron_alarm=np.zeros(s, np.bool_),
            gamma_arrival_ns=np.maximum(np.arange(n, dtype=np.int64), BUFFERED) * int(INTERVAL_S * 1e9),
            gamma_start_utc_ns=0,
            gamma_background=self.background[i].copy(), neutron_background=self.neutron_background[i : i + 1].copy(),
            speed_kmh=float(self.speed_kmh[i]), number=i + 1,
        )  # fmt: skip


KINDS = ("semi-trailer", "two boxes", "rigid", "van")
_SHARES = (0.55, 0.15, 0.2, 0.1)


def draw_vehicles(rng: np.random.Generator, n: int, traffic: Traffic) -> Vehicles:
    """Return n vehicles."""
    kind = rng.choice(len(KINDS), n, p=_SHARES)
    opaque = np.zeros((n, GRID_MM.size))
    cab = np.select([kind == 3], [rng.uniform(1200, 1800, n)], rng.uniform(2000, 2600, n))
    _fill(opaque, np.zeros(n), cab, rng.uniform(0.5, 1.0, n))
    gap = np.where(kind == 3, 0.0, rng.uniform(300, 1400, n))
    first = cab + gap
    room = np.select(
        [kind == 0, kind == 1, kind == 2],
        [rng.uniform(10_000, 13_700, n), rng.uniform(6000, 7800, n), rng.uniform(4500, 8000, n)],
        rng.uniform(2500, 3800, n),
    )
    end = first + room
    frame = rng.uniform(0.15, 0.5, n)
    _box(opaque, rng, first, end, frame)
    between = rng.uniform(500, 1600, n)
    second, last = end + between, end + between + rng.uniform(6000, 7800, n)
    two = kind == 1
    _box(opaque, rng, np.where(two, second, 0.0), np.where(two, last, 0.0), frame)
    length = np.where(two, last, end)
    # Frame, drawbar and axles: the whole vehicle shades a little.
    np.maximum(opaque, _inside(np.zeros(n), length) * (0.5 * frame)[:, np.newaxis], out=opaque)
    field = rng.uniform(*traffic.field_mm, n)
    shade = _blur(opaque, field)
    depth = np.clip(rng.normal(*traffic.depth, n), *traffic.depth_limits)
    shade *= (depth / shade.max(axis=1))[:, np.newaxis]
    speed = rng.uniform(*traffic.speed_kmh, n) / 3.6 * 1000
    return Vehicles(length, speed, field, depth, shade, np.stack([first, np.where(two, last, end)], 1), kind,
                    rng.uniform(*traffic.pillars_mm, n))  # fmt: skip


def _inside(first: Floats, end: Floats) -> Floats:
    """Return `(n, road)` share of each step that lies between first and end."""
    low = np.clip(GRID_MM[np.newaxis] - STEP_MM / 2, first[:, np.newaxis], end[:, np.newaxis])
    high = np.clip(GRID_MM[np.newaxis] + STEP_MM / 2, first[:, np.newaxis], end[:, np.newaxis])
    return (high - low) / STEP_MM


def _fill(opaque: Floats, first: Floats, end: Floats, value: Floats) -> None:
    opaque += _inside(first, end) * value[:, np.newaxis]


def _box(opaque: Floats, rng: np.random.Generator, first: Floats, end: Floats, empty: Floats) -> None:
    """Lay a box with up to four stretches of cargo, each as dense as it likes; one in five boxes is empty."""
    n = len(first)
    _fill(opaque, first, end, empty)
    cuts = np.sort(rng.uniform(0, 1, (n, 3)), axis=1)
    some = rng.random((n, 3)) < 0.5
    cuts = np.where(some, cuts, np.maximum.accumulate(np.where(some, cuts, 0.0), axis=1))
    edges = np.concatenate([np.zeros((n, 1)), cuts, np.ones((n, 1))], axis=1)
    loaded = rng.random(n) > 0.2
    fill = rng.uniform(0.4, 1.0, n)
    for k in range(4):
        hole = rng.random(n) < 0.2
        level = np.where(loaded & ~hole, fill * rng.uniform(0.7, 1.0, n), 0.0) * (1 - empty)
        _fill(opaque, first + edges[:, k] * (end - first), first + edges[:, k + 1] * (end - first), level)


def _blur(opaque: Floats, field_mm: Floats) -> Floats:
    """Convolve each row with exp(-|x| / field), as its transform 1 / (1 + (field w)^2)."""
    omega = 2 * np.pi * np.fft.rfftfreq(opaque.shape[1], STEP_MM)
    response = 1 / (1 + (field_mm[:, np.newaxis] * omega) ** 2)
    return np.maximum(np.fft.irfft(np.fft.rfft(opaque, axis=1) * response, opaque.shape[1], axis=1), 0.0)


def draw_points(rng: np.random.Generator, vehicles: Vehicles, counts_per_s: Floats | float) -> Load:
    """Return a point source anywhere in the cargo room of every vehicle."""
    n = len(vehicles.length_mm)
    x = rng.uniform(vehicles.boxes[:, 0], vehicles.boxes[:, 1])
    strength = np.broadcast_to(np.asarray(counts_per_s, np.float64), (n,))
    return Load(x, x, rng.uniform(-1100, 1100, n), rng.uniform(700, 3200, n), vehicles.pillars_mm, strength)


def draw_norm(
    rng: np.random.Generator, vehicles: Vehicles, counts_per_s: Floats | float, share: tuple[float, float] = (0.5, 1.0)
) -> Load:
    """Return a naturally radioactive load that fills a share of every vehicle's cargo room."""
    n = len(vehicles.length_mm)
    first, end = vehicles.boxes.T
    length = rng.uniform(*share, n) * (end - first)
    begin = first + rng.uniform(0, 1, n) * (end - first - length)
    strength = np.broadcast_to(np.asarray(counts_per_s, np.float64), (n,))
    aside, height = rng.uniform(-200, 200, n), rng.uniform(1500, 2200, n)
    return Load(begin, begin + length, aside, height, vehicles.pillars_mm, strength)


def shape(load: Load, x_mm: Floats) -> Floats:
    """Return `(n, intervals, 4)` rates of a load of 1 count/s with its points x_mm `(n, intervals)` in the portal.

    A flat detector at distance h sees a point as h / r^3; a load is the integral over its length.
    """
    parts = []
    for side in (1.0, -1.0):  # master, slave
        away = load.pillars_mm / 2 + side * load.aside_mm
        for height in DETECTOR_HEIGHT_MM:
            c2 = (away**2 + (load.height_mm - height) ** 2)[:, np.newaxis]
            u0, u1 = load.first_mm[:, np.newaxis] - x_mm, load.end_mm[:, np.newaxis] - x_mm
            length = np.maximum(u1 - u0, 1e-9)
            point = (c2 + u0**2) ** -1.5
            line = (u1 / np.sqrt(c2 + u1**2) - u0 / np.sqrt(c2 + u0**2)) / c2 / length
            parts.append(away[:, np.newaxis] * np.where(length > 1.0, line, point))
    seen = np.stack(parts, axis=-1)
    return seen / _peak(load)[:, np.newaxis, np.newaxis]


def _peak(load: Load) -> Floats:
    """Return the largest sum over the detectors, which is at the load's middle, in the units of `shape`."""
    middle = (load.end_mm - load.first_mm) / 2
    total = np.zeros(len(middle))
    for side in (1.0, -1.0):
        away = load.pillars_mm / 2 + side * load.aside_mm
        for height in DETECTOR_HEIGHT_MM:
            c2 = away**2 + (load.height_mm - height) ** 2
            line = 2 * middle / np.sqrt(c2 + middle**2) / c2 / np.maximum(2 * middle, 1e-9)
            total += away * np.where(middle > 0.5, line, c2**-1.5)
    return total


class Expected(NamedTuple):
    """What n passages are drawn from, and what was drawn before they came.

    innocent, loads : `(n, t, 4)` counts/s that each detector would see without loads, and what these add
    intervals : `(n,)` length of each passage; t is the longest
    x_mm : `(n, t)` how far the vehicle's front is past the portal in the middle of each interval
    background : `(n, 4)` counts/s as published
    """

    innocent: Floats
    loads: Floats
    intervals: Ints
    x_mm: Floats
    background: Floats


def expected_rates(
    rng: np.random.Generator, vehicles: Vehicles, traffic: Traffic, loads: tuple[Load, ...] = (),
    next_lane_cps: Floats | float = 0.0,
) -> Expected:  # fmt: skip
    """Return the rates of the vehicles and of what they carry; parameters are those of `draw_passages`."""
    n = len(vehicles.length_mm)
    travel_s = vehicles.length_mm / vehicles.speed_mm_s
    intervals = BUFFERED + np.ceil(travel_s / INTERVAL_S).astype(np.int64) + HOLD_IN
    t = (np.arange(int(intervals.max()), dtype=np.float64) + 0.5 - BUFFERED) * INTERVAL_S
    x = t[np.newaxis] * vehicles.speed_mm_s[:, np.newaxis]
    base = traffic.background_cps[0] * np.exp(rng.normal(0, traffic.background_cps[1], n))
    shares = rng.normal(0.25, 0.008, (n, 4))
    rate = base[:, np.newaxis] * shares / shares.sum(axis=1, keepdims=True)
    drift = rng.normal(0, traffic.drift_per_s, n)
    since_s = rng.uniform(0, 5, n)
    published = np.rint(
        rng.poisson(rate * (1 - drift * (since_s + BACKGROUND_S / 2))[:, np.newaxis] * BACKGROUND_S) / BACKGROUND_S
    )
    shade = _at(vehicles.shade, x)
    lost = np.clip(shade[:, :, np.newaxis] * _weights(rng, traffic, x), 0, 0.9)
    innocent = rate[:, np.newaxis] * (1 + drift[:, np.newaxis] * t[np.newaxis])[:, :, np.newaxis] * (1 - lost)
    added = np.zeros_like(innocent)
    for load in loads:
        added += load.counts_per_s[:, np.newaxis, np.newaxis] * shape(load, x)
    added += _next_lane(rng, n, t, travel_s, next_lane_cps)
    return Expected(innocent, added, intervals, x, published)


def draw_passages(
    rng: np.random.Generator, vehicles: Vehicles, traffic: Traffic, loads: tuple[Load, ...] = (),
    neutrons_cps: Floats | float = 0.0, next_lane_cps: Floats | float = 0.0,
) -> Passages:  # fmt: skip
    """Return the counts of the vehicles, with what they carry.

    neutrons_cps : peak of a neutron source in the middle of the cargo room
    next_lane_cps : peak of a patient who passes in the next lane at the same time, seen mostly by one pillar
    """
    e = expected_rates(rng, vehicles, traffic, loads, next_lane_cps)
    gamma = rng.poisson((e.innocent + e.loads) * INTERVAL_S)
    gamma[np.arange(gamma.shape[1])[np.newaxis] >= e.intervals[:, np.newaxis]] = 0
    neutron, seconds, neutron_background = _neutrons(rng, vehicles, traffic, e.intervals, neutrons_cps)
    measured = vehicles.speed_mm_s * 3.6 / 1000 * rng.normal(1, 0.03, len(e.intervals))
    return Passages(gamma, e.intervals, e.background, neutron, seconds, neutron_background, measured, vehicles)


def _weights(rng: np.random.Generator, traffic: Traffic, x: Floats) -> Floats:
    """Return `(n, intervals, 4)` how much of the shadow falls on each detector, 1 on average of the four."""
    n = len(x)
    knots = rng.normal(0, traffic.uneven[1], (4, n, 20))
    at = np.clip((x + 4000) / 2000, 0, 18.999)
    low = at.astype(np.int64)
    rows = np.arange(n)[:, np.newaxis]
    along = np.stack([k[rows, low] + (at - low) * (k[rows, low + 1] - k[rows, low]) for k in knots], axis=-1)
    weight = np.clip(1 + rng.normal(0, traffic.uneven[0], (n, 1, 4)) + along, 0.2, 1.8)
    return np.asarray(weight / weight.mean(axis=2, keepdims=True), np.float64)


def _at(shade: Floats, x: Floats) -> Floats:
    """Return the rows of shade read at their own x, linearly; 0 off the road."""
    at = np.clip((x + BEFORE_MM) / STEP_MM, 0, GRID_MM.size - 1.001)
    low = at.astype(np.int64)
    rows = np.arange(len(shade))[:, np.newaxis]
    return shade[rows, low] + (at - low) * (shade[rows, low + 1] - shade[rows, low])


def _next_lane(rng: np.random.Generator, n: int, t: Floats, travel_s: Floats, peak_cps: Floats | float) -> Floats:
    """A source 5 m behind one pillar: broad, and ten times stronger in that pillar than in the other."""
    if not np.any(peak_cps):
        return np.zeros((1, 1, 1))
    centre, speed = rng.uniform(0, 1, n) * travel_s, rng.uniform(1000, 3000, n)
    bump = (1 + ((t[np.newaxis] - centre[:, np.newaxis]) * speed[:, np.newaxis] / 5000) ** 2) ** -1.5
    master = rng.random(n) < 0.5
    near, far = 10 / 22, 1 / 22
    parts = np.where(master[:, np.newaxis], [near, near, far, far], [far, far, near, near])
    strength = np.broadcast_to(np.asarray(peak_cps, np.float64), (n,))
    return strength[:, np.newaxis, np.newaxis] * bump[:, :, np.newaxis] * parts[:, np.newaxis]


def _neutrons(
    rng: np.random.Generator, vehicles: Vehicles, traffic: Traffic, intervals: Ints, source_cps: Floats | float
) -> tuple[Ints, Ints, Floats]:
    """Counts per second of all banks; showers make them more uneven than Poisson."""
    n = len(intervals)
    seconds = np.maximum((intervals * INTERVAL_S).astype(np.int64), 1)
    t = np.arange(int(seconds.max())) + 0.5 - BUFFERED * INTERVAL_S
    x = t[np.newaxis] * vehicles.speed_mm_s[:, np.newaxis]
    rate = NEUTRON_CPS * np.exp(rng.normal(0, 0.1, n))
    # Steel also makes neutrons: the shadow is a third of the gamma one, and showers are more frequent in it.
    mean = rate[:, np.newaxis] * (1 - 0.3 * _at(vehicles.shade, x))
    if np.any(source_cps):
        middle = vehicles.boxes.mean(axis=1)[:, np.newaxis]
        strength = np.broadcast_to(np.asarray(source_cps, np.float64), (n,))[:, np.newaxis]
        mean = mean + strength * (1 + ((x - middle) / 2250) ** 2) ** -1.5
    shape_k = mean / max(traffic.shower_share, 1e-9)
    drawn = rng.poisson(rng.gamma(shape_k, mean / shape_k) if traffic.shower_share > 0 else mean)
    drawn[np.arange(len(t))[np.newaxis] >= seconds[:, np.newaxis]] = 0
    published = rng.poisson(rate * 120) / 120
    return drawn, seconds, published


def clean_passages(rng: np.random.Generator, n: int, traffic: Traffic | None = None) -> Passages:
    """Return n passages without any source."""
    traffic = traffic or Traffic()
    return draw_passages(rng, draw_vehicles(rng, n, traffic), traffic)


def inject(rng: np.random.Generator, counts: npt.NDArray[Any], speed_mm_s: float, load: Load) -> npt.NDArray[np.int64]:
    """Return recorded counts `(intervals, 4)` with a load's Poisson counts added, one `(n, intervals, 4)` per load."""
    t = (np.arange(len(counts)) + 0.5 - BUFFERED) * INTERVAL_S
    x = np.broadcast_to(t * speed_mm_s, (len(load.first_mm), len(t)))
    extra = rng.poisson(load.counts_per_s[:, np.newaxis, np.newaxis] * shape(load, x) * INTERVAL_S)
    return np.asarray(counts[np.newaxis] + extra, np.int64)
