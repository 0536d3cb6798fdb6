"""Where on the vehicle an excess lies, and whether it is one point or a load.

Two explanations are fitted to the counts of each detector, with the vehicle's shadow and its ripple beside them: one
point, at one place for all but at any distance of each; and a stretch, of any length and place for each. A stretch
always fits better; it must do so by more than chance, by more than profiles differ from the formula (or every strong
source would be called a load), and by more than a rough shadow can. Detectors that see their peaks at different places
do not see one point either.

What cannot be told is called unclear, and unclear explains nothing: weak excesses and passages without a speed.

Source: that natural loads are long and sources are not: Burr et al. (2008) and PNNL-SA-44882; profile of a point at
standoff h: (1 + (x / h)^2)^-1.5, of a stretch its integral.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from scanner_io.formats.portal_daily import KMH_PER_MPH, MPH_LIMIT
from scanner_io.model import PortalRecord, Radiograph

from .portal_baseline import EVEN_HOLD, SPEED_KMH, depth_of, ripple_covariance
from .portal_tests import series_of
from .portal_vendor import around, gamma_background

Floats = npt.NDArray[np.float64]

Shape = Literal["point", "distributed", "unclear"]

STANDOFFS_MM = (1000.0, 1400.0, 1900.0, 2500.0, 3200.0)
"""Distances of a source from a detector that are tried."""
LENGTHS_MM = (4000.0, 5200.0, 6800.0, 8800.0, 11_500.0)
"""Lengths of a load that are tried. A shorter one is not told from a point, and is called one: nothing explains it."""
STEP_MM = 400.0
"""Between the places that are tried."""
PROFILE_ERROR = 0.06
"""Standard deviation of a real profile about the formula, as a share of its rate."""
ROUGH = 0.25
"""Standard deviation of the shadow's ripple, as a share of its depth: more than the tests presume, to be sure."""
MIN_SIGMA = 5.0
"""Excess over the flat background, standard deviations, below which nothing is said of its shape."""
LEAST_INSIDE = 5
"""Intervals with the vehicle in the portal below which nothing is said of a shape."""
COARSEST_MM = 1000.0
"""Way of the vehicle in one interval from which nothing is said of a shape: a point's profile is 1.5 to 5 m wide, and
its counts in a longer interval are not those of the middle of it. In intervals of 0.4 s, 2 of 69 simulated points that
move less were called loads, and 4 of 31 where 1.5 m were allowed; in intervals of 0.2 s it is 18 km/h."""
MIN_GAIN = 22.0
"""Chi-square by which stretches must beat the point: where as many simulated points reach it as loads of 4 m and more
do not, of 170 each with peaks of 1000 to 4000 counts/s (2 % of the points reach 34)."""


LEAST_SPEEDS, SPEED_RATIO = 2, 1.2
"""Speeds that must agree with the lowest one told, and how closely, before lengths are believed enough to explain an
excess away: recorded passages agree within 1.1. Too fast ones are common errors of the beams; a stop shows as slow."""
LONGEST_M = 25.0
"""A road train. Passages that are longer at their speed stopped in between."""
_DECIMAL = re.compile(r" *\d{1,3}(\.\d*)? *")


class Form(NamedTuple):
    """Shape of an excess.

    first_mm, end_mm : of the best stretch, behind the vehicle's front
    peak_share : highest excess of 1 s over the background, as a share of the background
    gain : chi-square that stretches save over a point
    """

    shape: Shape
    first_mm: float
    end_mm: float
    peak_share: float
    gain: float
    words: str


class _Fits(NamedTuple):
    """Chi-square of one detector: points `(standoffs, places)`, and the best stretch with its place and length."""

    points: Floats
    stretch: float
    middle_mm: float
    length_mm: float
    weight: float


def form_of(record: PortalRecord) -> Form:
    """Return the shape of the record's excess; unclear, with the reason in words, where it cannot be told."""
    background = gamma_background(record)
    n = record.gamma.shape[0]
    if background is None or n == 0:
        return Form("unclear", 0.0, 0.0, 0.0, 0.0, "no background to measure it by" if n else "no gamma counts")
    on = np.flatnonzero(background > 0)
    counts = np.ascontiguousarray(record.gamma[:, on].T.astype(np.float64))
    flat = np.asarray(background[on] * record.gamma_interval_s, np.float64)
    window = min(max(1, round(1.0 / record.gamma_interval_s)), n)
    sums = np.convolve(counts.sum(axis=0), np.ones(window), mode="valid")
    peak_share = float(sums.max() / (window * flat.sum()) - 1)
    sigma = _significance(counts, flat)
    if sigma < MIN_SIGMA:
        words = f"too weak to tell a point from a load ({sigma:.1f} standard deviations above the flat background)"
        return Form("unclear", 0.0, 0.0, peak_share, 0.0, words)
    if words := _too_few(record):
        return Form("unclear", 0.0, 0.0, peak_share, 0.0, words)
    vehicle = vehicle_of(record, background)
    profiles = np.concatenate([profile(vehicle.x_mm, vehicle.places_mm, m, h) for m, h in _KINDS])
    fits = [_fit(vehicle, c, float(f), profiles) for c, f in zip(counts, flat, strict=True)]
    gain = _best_point(fits) - sum(f.stretch for f in fits)
    main = max(fits, key=lambda f: f.weight)
    first, end = main.middle_mm - main.length_mm / 2, main.middle_mm + main.length_mm / 2
    shape: Shape = "distributed" if gain >= MIN_GAIN else "point"
    words = f"{_lengths_words(fits)}, better than one point by {gain:.0f} of chi-square (asked for: {MIN_GAIN:g})"
    if not record.speed_kmh:
        return Form("unclear", first, end, peak_share, gain, "the speed is not known, so lengths are not")
    return Form(shape, first, end, peak_share, gain, words)


def _too_few(record: PortalRecord) -> str:
    """Say why the record's intervals are too few or too long for a shape; nothing where they are not."""
    inside = record.gamma.shape[0] - sum(around(record))
    if inside < LEAST_INSIDE:
        return f"{max(inside, 0)} intervals with the vehicle in the portal, at least {LEAST_INSIDE} are needed"
    step_mm = (record.speed_kmh or 0.0) / 3.6 * 1000 * record.gamma_interval_s
    if step_mm > COARSEST_MM:
        return (
            f"intervals of {record.gamma_interval_s:g} s are {step_mm / 1000:.1f} m of the vehicle at its speed, "
            f"{COARSEST_MM / 1000:g} m at most are fine enough"
        )
    return ""


def _lengths_words(fits: list[_Fits]) -> str:
    """Say how long what each detector sees is, and how far apart they see it."""
    apart_m = (max(f.middle_mm for f in fits) - min(f.middle_mm for f in fits)) / 1000
    apart = f"their middles up to {apart_m:.1f} m apart"
    if not any(f.length_mm for f in fits):
        return f"each detector sees a short piece, {apart}: not the same one"
    lengths = ", ".join(f"{f.length_mm / 1000:.1f} m" if f.length_mm else "a short piece" for f in fits)
    return f"what fits the detectors best: {lengths}; {apart}"


class Vehicle(NamedTuple):
    """A vehicle as profiles are laid along it.

    x_mm : `(intervals,)` how far its front is past the portal
    length_mm : by its time in the portal
    depth : of its shadow
    second : intervals to either side of one that are a second with it
    box, ripple : `(intervals,)` its even shadow of depth 1, and `(intervals, intervals)` covariance of what is rough
    """

    x_mm: Floats
    length_mm: float
    depth: float
    second: int
    box: Floats
    ripple: Floats

    @property
    def places_mm(self) -> Floats:
        """Middles of the points and stretches that are tried."""
        return np.arange(-STEP_MM, self.length_mm + STEP_MM, STEP_MM)


def vehicle_of(record: PortalRecord, background: Floats) -> Vehicle:
    """Return the record's vehicle; SPEED_KMH where the portal told no speed."""
    n, (before, after) = record.gamma.shape[0], around(record)
    step_mm = (record.speed_kmh or SPEED_KMH) / 3.6 * 1000 * record.gamma_interval_s
    x = (np.arange(n, dtype=np.float64) + 0.5 - before) * step_mm
    length, depth = max(n - before - after, 1) * step_mm, depth_of(series_of(record, background))
    second = max(round(0.4 / record.gamma_interval_s), 0)
    return Vehicle(x, length, depth, second, *ripple_covariance(x, length, ROUGH * depth))


def _significance(counts: Floats, flat: Floats) -> float:
    """Return how far the counts of the best stretch are above the flat background, standard deviations."""
    total, expected = counts.sum(axis=0), float(flat.sum())
    rise = np.concatenate([[0.0], np.cumsum(total - expected)])
    low = np.minimum.accumulate(rise)
    end = int((rise - low).argmax())
    first = int(rise[: end + 1].argmin())
    return float((rise[end] - rise[first]) / np.sqrt(expected * max(end - first, 1)))


def _best_point(fits: list[_Fits]) -> float:
    """Return chi-square of one point: one place for all detectors, at any distance of each."""
    return float(np.sum([f.points.min(axis=0) for f in fits], axis=0).min())


def profile(x: Floats, middle: Floats, length: float, standoff: float) -> Floats:
    """Return `(places, n)` profiles of a stretch, 1 at the highest; length 0 is a point."""
    u = (x[np.newaxis] - middle[:, np.newaxis]) / standoff
    if length == 0:
        return np.asarray((1 + u**2) ** -1.5)
    half = length / 2 / standoff
    both = (u + half) / np.hypot(1, u + half) - (u - half) / np.hypot(1, u - half)
    return np.asarray(both / (2 * half / np.hypot(1, half)))


def whitened(v: Vehicle, counts: Floats, flat: float, profiles: Floats) -> tuple[Floats, Floats, Floats]:
    """Return one detector's counts over the flat background `(n,)`, its even shadow `(n,)` and the profiles `(k, n)`.

    All of them as rows whose noise is white: counting, PROFILE_ERROR of the excess, and the shadow's ripple.
    """
    width = 2 * v.second + 1
    smooth = np.convolve(np.pad(counts, v.second, mode="edge"), np.ones(width) / width, mode="valid")
    excess = np.maximum(smooth - flat * (1 - v.depth), 0.0)
    variance = np.maximum(smooth, 1.0) + (PROFILE_ERROR * excess) ** 2
    whitener = np.linalg.inv(np.linalg.cholesky(v.ripple * flat**2 + np.diag(variance))).T
    return (counts - flat) @ whitener, (-flat * v.box) @ whitener, profiles @ whitener


_KINDS = [(0.0, h) for h in STANDOFFS_MM] + [(m, h) for m in LENGTHS_MM for h in STANDOFFS_MM]
"""Length and standoff of everything that is tried at every place: points first."""


def _fit(v: Vehicle, counts: Floats, flat: float, profiles: Floats) -> _Fits:
    """Fit one detector: all stretches and points, each with the shadow's depth beside it.

    profiles : `(kinds x places, n)` of all _KINDS at all places of the vehicle
    """
    places = v.places_mm
    y, e, g = whitened(v, counts, flat, profiles)
    ee, eg, gg, ey, gy = float(e @ e) + EVEN_HOLD, g @ e, (g * g).sum(axis=1), float(e @ y), g @ y
    det = np.maximum(ee * gg - eg**2, 1e-12)
    shadow, a = (ey * gg - gy * eg) / det, (gy * ee - ey * eg) / det
    # Both take their own sign only: a shadow that adds, or a source that takes away, is left out.
    alone = np.maximum(gy, 0.0) / gg
    a = np.where(shadow < 0, alone, np.maximum(a, 0.0))
    shadow = np.where(shadow < 0, 0.0, np.where(a > 0, shadow, max(ey / ee, 0.0)))
    chi2 = float(y @ y) - 2 * (a * gy + shadow * ey) + a**2 * gg + 2 * a * shadow * eg + shadow**2 * ee
    points = chi2[: len(STANDOFFS_MM) * len(places)].reshape(len(STANDOFFS_MM), -1)
    best = int(chi2.argmin())
    middle = float(places[best % len(places)])
    return _Fits(points, float(chi2[best]), middle, _KINDS[best // len(places)][0], float(a[best]))


def place_words(record: PortalRecord, first: int, end: int) -> str:
    """Return where on the vehicle intervals [first, end) were, in metres behind its front."""
    if not record.speed_kmh:
        return ""
    step_m = record.speed_kmh / 3.6 * record.gamma_interval_s
    before, _ = around(record)
    a, b = (first - before) * step_m, (end - before) * step_m
    return f"; {max(a, 0.0):.1f} to {max(b, 0.0):.1f} m behind the front of the vehicle"


def columns_of(record: PortalRecord, radiograph: Radiograph, first: int, end: int) -> tuple[int, int] | None:
    """Return the radiograph's columns that were in the beam at intervals [first, end), half-open, None if none were.

    By the clock both share: true where portal and beam stand at the same place of the lane, else off by the time that
    the vehicle takes from one to the other, which nothing here knows.
    """
    begin = record.gamma_start_utc_ns + int(first * record.gamma_interval_s * 1e9)
    stop = record.gamma_start_utc_ns + int(end * record.gamma_interval_s * 1e9)
    a, b = np.searchsorted(radiograph.column_utc_ns, [begin, stop])
    return (int(a), int(b)) if b > a else None


def unsteady(record: PortalRecord) -> str:
    """Say why lengths along the vehicle are not to be believed; nothing where its speed was told and was even.

    A vehicle that stops or brakes beside the portal draws a point out into a load.
    """
    told = [line.split(",") for line in record.raw_lines if line.startswith("SP,")]
    mph = [float(fields[2]) for fields in told if len(fields) > 2 and _DECIMAL.fullmatch(fields[2])]
    mph = [v for v in mph if 0 < v < MPH_LIMIT]
    near = [v for v in mph if v <= SPEED_RATIO * min(mph)]
    if len(near) < LEAST_SPEEDS:
        alone = f"none but one for the whole passage ({record.speed_kmh:.1f})" if record.speed_kmh else "none"
        seen = ", ".join(f"{v * KMH_PER_MPH:.1f}" for v in mph) or alone
        return f"believable speeds told: {seen} km/h; {LEAST_SPEEDS} that agree with the lowest are needed"
    seconds = (record.gamma.shape[0] - sum(around(record))) * record.gamma_interval_s
    length_m = min(near) * KMH_PER_MPH / 3.6 * seconds
    if length_m > LONGEST_M:
        return f"{seconds:.0f} s at the told speed are {length_m:.0f} m, more than any vehicle: it stood still"
    return ""
