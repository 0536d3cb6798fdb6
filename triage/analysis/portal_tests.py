"""Tests of one occupancy beside the vendor's alarm: each gives a p-value, and all together keep one false alarm rate.

    shaped      a point source of any place, against the vehicle's shadow (`portal_baseline`)
    level       more than the unshadowed background for a while: a sequential test, begun again at every lower bound and
                cut off at the exit. The shadow makes it blind to weak sources, not to loads as long as the vehicle
    one_sided   one pillar sees more for seconds than the other, as from beside the lane
    energy      a harder or softer spectrum than a shadow can leave, where the portal has energy windows
                (`portal_energy`)
    neutron     counts of a second, three seconds, the passage; exact, with an allowance for cosmic-ray showers

p-values of `shaped`, `level` and `one_sided` are read from what simulated passages without a source gave, of the same
depth of shadow, time, background and speed (`portal_null`); those of `energy` and `neutron` are exact bounds over all
looks. Where less than LOW_COUNTS come in an interval the normal approximation is not good enough and exact bounds take
over there too.

Each test has a share of the promised rate. What the tests have in common leaves part of it unused; how much is
simulated too (`portal_null.FAMILIES`), and the family's p-value is what is held against the promised rate. Energy
windows are not simulated: where a record has them, their share is set apart and the others have the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, ndtri

from scanner_io.model import PortalRecord

from .portal_baseline import Series, Shaped, series, shade_of, shaped_excess
from .portal_energy import SURPLUS, WINDOWS_S, window_excess
from .portal_null import NULLS, PLAIN, family_tail, tail_p, terms_of
from .portal_vendor import BURST, DETECTOR_SETS, around, buffered, gamma_background, set_sums

Floats = npt.NDArray[np.float64]

SHARES = {"shaped": 0.7, "level": 0.1, "one_sided": 0.05, "energy": 0.05, "neutron": 0.1}
"""How the promised rate is divided. The shaped test finds what the others do not and has most of it."""
LOW_COUNTS = 100.0
"""Background counts of all detectors per interval below which exact tests are used."""
GAP_RECOVERY = 0.6
"""Share of a shadow that a gap is presumed to give back in the exact test, which has no shape to tell it by."""
ENDS_ALLOWANCE = 1.5
"""How much more than at the ends of a record without a background may be counted for nothing."""
LEVEL_RATIOS = (1.1, 1.3)
"""Rates over the background that the sequential test is made for: a long weak load, and a short strong one."""
PILLAR_ALLOWANCE = 0.2
"""How unevenly a shadow may fall on the two pillars, standard deviation as a share of its depth."""


class Evidence(NamedTuple):
    """What one test says of a passage.

    score : in the test's own units, see `words`
    p_value : chance of such a score on a passage without a source, over all its looks
    first, end : half-open range of intervals
    words : what was high, where, against what
    """

    test: str
    score: float
    p_value: float
    first: int
    end: int
    words: str


class Assessment(NamedTuple):
    """All tests of one passage.

    shaped : the source that explains most, where that test was made
    kind : of passage, see `portal_null`; `terms` by which its scores were read
    """

    evidence: tuple[Evidence, ...]
    shaped: Shaped | None
    series: Series | None
    kind: str = "bare"
    terms: Floats = PLAIN

    def family_of(self, e: Evidence) -> float:
        """Return the chance that any test of the family is as sure as this one on a passage without a source."""
        apart = SHARES["energy"] if any(other.test == "energy" for other in self.evidence) else 0.0
        if e.test == "energy" or self.kind == "bare":
            return min(1.0, e.p_value / SHARES[e.test])
        return min(1.0, family_tail(self.kind, e.p_value / SHARES[e.test]) / (1 - apart))

    def family_p(self) -> float:
        """Return the p-value of the family, at most 1."""
        return min([1.0, *(self.family_of(e) for e in self.evidence)])


def assess(record: PortalRecord, *, neutron_background_s: float, neutron_showers: float) -> Assessment:
    """Return what every test says of an occupancy; a test that cannot be made gives nothing."""
    found: list[Evidence] = []
    shaped, s, kind, terms = None, None, "bare", PLAIN
    background = gamma_background(record)
    if background is not None and record.gamma.shape[0] > 1:
        expected = float(background.sum()) * record.gamma_interval_s
        if expected >= LOW_COUNTS and buffered(record):
            s = series_of(record, background)
            shade, inside = shade_of(s), int(((s.x_mm > 0) & (s.x_mm < s.length_mm)).sum())
            kind, terms = "blind" if s.blind else "told", terms_of(*shade, inside, expected, record.speed_kmh)
            shaped = shaped_excess(s, record.gamma_interval_s, shade.depth)
            found += _shaped(record, shaped, background, kind, terms)
            found += _one_sided(record, background, shade.depth, kind, terms)
        elif expected < LOW_COUNTS:
            found += _window_excess(record, background)
        found += [_level(record, background, kind, terms), *_energy(record, background)]
    elif record.gamma.shape[0] > 1:
        found += _ends(record)
    found += _neutron(record, neutron_background_s, neutron_showers)
    return Assessment(tuple(found), shaped, s, kind, terms)


def series_of(record: PortalRecord, background: Floats) -> Series:
    """Return the record as `portal_baseline` takes it."""
    return series(record.gamma, background, record.gamma_interval_s, record.speed_kmh, *around(record))


def _tail(test: str, score: float, kind: str, terms: Floats) -> float:
    """Return the chance of such a score on a passage of this kind without a source."""
    return float(tail_p(NULLS[kind][test], np.array([score]), terms[np.newaxis])[0])


# --------------------------------------------------------------------------------------------------------------
# Gamma, all detectors and pillars


def _shaped(
    record: PortalRecord, shaped: Shaped | None, background: Floats, kind: str, terms: Floats
) -> list[Evidence]:
    if shaped is None:
        return []
    half = max(1, round(0.6 / record.gamma_interval_s))
    first, end = max(shaped.at - half, 0), min(shaped.at + half + 1, record.gamma.shape[0])
    counts = int(record.gamma[first:end].sum())
    flat = float(background.sum()) * (end - first) * record.gamma_interval_s
    side = {0.0: "", -900.0: " nearer the master pillar,", 900.0: " nearer the slave pillar,"}[shaped.aside_mm]
    words = (
        f"gamma counts have the shape of a source passing by,{side} about {shaped.counts_per_s:.0f} counts/s at its "
        f"best moment: {counts} counts in {(end - first) * record.gamma_interval_s:.1f} s (intervals {first} to "
        f"{end - 1}) against {flat:.0f} of an empty lane, less {100 * shaped.depth:.0f} % that the vehicle takes away; "
        f"likelihood ratio score {shaped.gain:.1f}"
    )
    return [Evidence("shaped", shaped.gain, _tail("shaped", shaped.gain, kind, terms), first, end, words)]


def _ends(record: PortalRecord) -> list[Evidence]:
    """Where no background was told: more than ENDS_ALLOWANCE of the higher end of the record, for a while.

    The vehicle shades both ends less than its middle, so nothing innocent is expected to rise above them by half.
    """
    gamma, width = record.gamma, min(BURST, record.gamma.shape[0] // 3)
    if width == 0:
        return []
    ends = max((gamma[:width], gamma[-width:]), key=lambda part: int(part.sum()))
    rate = ends.sum(axis=0) / (width * record.gamma_interval_s)
    if not rate.sum():
        return []
    found = _level(record, ENDS_ALLOWANCE * rate, "bare", PLAIN, exact=True)
    return [found._replace(words=f"no background was told; against half more than before or after: {found.words}")]


def _level(record: PortalRecord, background: Floats, kind: str, terms: Floats, *, exact: bool = False) -> Evidence:
    """Poisson sequential test against the unshadowed background, begun again at every lower bound.

    Source: Wald (1945); Page, Biometrika 41 (1954) 100; bound on false alarms n exp(-h): Lorden, Annals of
    Mathematical Statistics 42 (1971) 1897.
    """
    counts = set_sums(record.gamma)
    expected = set_sums(background[np.newaxis, :])[0] * record.gamma_interval_s
    best = (-1.0, 0, 0, 0, 1.0)
    total = np.zeros((len(counts) + 1, counts.shape[1]))
    for ratio in LEVEL_RATIOS:
        np.cumsum(counts * math.log(ratio) - expected * (ratio - 1), axis=0, out=total[1:])
        # Begun again wherever it is lowest: the highest rise over the lowest point before it.
        rise = total - np.minimum.accumulate(total, axis=0)
        end, chosen = (int(i) for i in np.unravel_index(int(rise.argmax()), rise.shape))
        if rise[end, chosen] > best[0]:
            first = int(total[: end + 1, chosen].argmin())
            best = (float(rise[end, chosen]), first, end, chosen, ratio)
    score, first, end, chosen, ratio = best
    end = max(end, first + 1)
    if exact or float(background.sum()) * record.gamma_interval_s < LOW_COUNTS:
        p = min(1.0, len(LEVEL_RATIOS) * counts.size * math.exp(-score))
    else:
        p = _tail("level", score, kind, terms)
    seconds = (end - first) * record.gamma_interval_s
    words = (
        f"gamma counts stay above the background of an empty lane: {counts[first:end, chosen].sum():.0f} in "
        f"{seconds:.1f} s (intervals {first} to {end - 1}, {DETECTOR_SETS[chosen]}) against "
        f"{expected[chosen] * (end - first):.0f}; sequential score {score:.1f} for {100 * (ratio - 1):.0f} % more"
    )
    return Evidence("level", score, p, first, end, words)


def _one_sided(record: PortalRecord, background: Floats, depth: float, kind: str, terms: Floats) -> list[Evidence]:
    """Master against slave pillar over seconds; what falls on both alike, as a shadow does, cancels."""
    if record.gamma.shape[1] != 4 or not (background > 0).all():
        return []
    counts = record.gamma.astype(np.float64)
    master, total = counts[:, 0] + counts[:, 1], counts.sum(axis=1)
    share = float(background[:2].sum() / background.sum())
    # A shadow may fall unevenly; the allowance is as deep as the shadow is.
    allowance = PILLAR_ALLOWANCE * depth * share * (1 - share)
    best = (-math.inf, 0, 1, 0.0, 0.0)
    both = np.zeros((len(total) + 1, 2))
    np.cumsum(np.stack([master, total], axis=1), axis=0, out=both[1:])
    for seconds in WINDOWS_S:
        width = min(round(seconds / record.gamma_interval_s), len(total))
        m, n = (both[width:] - both[:-width]).T
        off = m - share * n
        z = np.abs(off) / np.sqrt(np.maximum(share * (1 - share) * n + (allowance * n) ** 2, 1e-9))
        i = int(z.argmax())
        if z[i] > best[0]:
            best = (float(z[i]), i, i + width, float(off[i]), float(n[i]))
    z_best, first, end, off_best, n_best = best
    pillar = "master" if off_best > 0 else "slave"
    words = (
        f"the {pillar} pillar sees {abs(off_best):.0f} gamma counts more than its share of {n_best:.0f} in "
        f"{(end - first) * record.gamma_interval_s:.1f} s (intervals {first} to {end - 1}), {z_best:.1f} standard "
        "deviations; something on its side, in this lane or beside it"
    )
    return [Evidence("one_sided", z_best, _tail("one_sided", z_best, kind, terms), first, end, words)]


def _window_excess(record: PortalRecord, background: Floats) -> list[Evidence]:
    """Exact test at low counts: a window against the higher of its shoulders, both Poisson.

    Where the shoulders are below the background, a gap may give back GAP_RECOVERY of the difference. The p-value is
    the binomial one (given the sum of both) times the number of windows looked at.
    """
    counts = set_sums(record.gamma)[:, 0]
    per_interval = float(background.sum()) * record.gamma_interval_s
    best, looks = (2.0, 0, 1, 0.0, 0.0), 0
    for seconds in WINDOWS_S:
        width = max(1, round(seconds / record.gamma_interval_s / 1.5))
        if width > len(counts):
            continue
        pad = np.full(2 * width, per_interval)
        padded = np.concatenate([pad, counts, pad])
        total = np.concatenate([[0.0], np.cumsum(padded)])
        first = np.arange(len(counts) - width + 1) + 2 * width
        on = total[first + width] - total[first]
        before = (total[first - width // 2] - total[first - 2 * width]) / (2 * width - width // 2)
        after = total[first + 3 * width] - total[first + width + width // 2]
        after = after / (2 * width - width // 2)
        shoulder = np.maximum(before, after)
        rate = shoulder + GAP_RECOVERY * np.maximum(per_interval - shoulder, 0.0)
        time = 2 * width - width // 2
        p = betainc(np.maximum(on, 1e-9), rate * time + 1.0, width / (width + time))
        p = np.where(on > 0, p, 1.0)
        looks += len(p)
        i = int(p.argmin())
        if p[i] < best[0]:
            best = (float(p[i]), i, i + width, float(on[i]), float(rate[i] * width))
    if looks == 0:
        return []
    p_best, begin, end, seen, expected = best
    p_value = min(1.0, p_best * looks)
    words = (
        f"gamma counts stand out: {seen:.0f} in {(end - begin) * record.gamma_interval_s:.1f} s (intervals {begin} to "
        f"{end - 1}) against at most {expected:.0f} by the rates before and after"
    )
    return [Evidence("shaped", z_of(p_value), p_value, begin, end, words)]


# --------------------------------------------------------------------------------------------------------------
# Energy windows


def _energy(record: PortalRecord, background: Floats) -> list[Evidence]:
    """Energy windows of the record, where it has them and they do not overlap."""
    windows, before = record.gamma_windows, record.gamma_windows_background
    if windows is None or before is None:
        return []
    rate = before.reshape(-1, windows.shape[-1]).sum(axis=0)
    if rate.sum() > SURPLUS * background.sum():
        return []
    counts = windows.reshape(windows.shape[0], -1, windows.shape[-1]).sum(axis=1)
    found = window_excess(counts, rate, record.gamma_interval_s)
    if found is None:
        return []
    words = found.words(len(rate), record.gamma_interval_s)
    return [Evidence("energy", z_of(found.p_value), found.p_value, found.first, found.end, words)]


# --------------------------------------------------------------------------------------------------------------
# Neutrons


def _neutron(record: PortalRecord, background_s: float, showers: float) -> list[Evidence]:
    """One second, three seconds and the whole passage against the background before entry.

    The background was counted too: what it lets expect is a negative binomial, exact at any rate where showers is 0.
    `showers` is the variance over the mean, less one, that cosmic-ray showers in steel add (the "ship effect").

    Source: Przyborowski and Wilenski, Biometrika 31 (1940) 313; ship effect: PNNL-SA-57381.
    """
    background = record.neutron_background
    intervals = record.neutron.shape[0]
    if background is None or intervals == 0:
        return []
    # NB lines are cut to whole counts per detector: a lower bound, and up to one count more each.
    cut = background.size > 1 and not np.any(background % 1)
    rate = float(background.sum()) + (background.size if cut else 0)
    totals = record.neutron.sum(axis=1, dtype=np.float64)
    best, looks = (2.0, 0, 1), 0
    so_far = np.concatenate([[0.0], np.cumsum(totals)])
    spans = {min(intervals, max(1, round(seconds / record.neutron_interval_s))) for seconds in (1, 3)}
    for width in sorted({*spans, intervals}):
        on = so_far[width:] - so_far[:-width]
        looks += len(on)
        first = int(on.argmax())
        p = neutron_p(float(on[first]), width * record.neutron_interval_s, rate, background_s, showers)
        if p < best[0]:
            best = (p, first, first + width)
    p_best, first, end = best
    p_value = min(1.0, p_best * looks)
    span_s = (end - first) * record.neutron_interval_s
    at_most = " at most (background cut to whole counts)" if cut else ""
    words = (
        f"neutron counts exceed background: {totals[first:end].sum():.0f} in {span_s:g} s (neutron intervals {first} "
        f"to {end - 1}) against {rate * span_s:.1f} expected{at_most}, {z_of(p_best):.1f} standard deviations"
    )
    return [Evidence("neutron", z_of(p_best), p_value, first, end, words)]


def neutron_p(on: float, on_s: float, rate: float, background_s: float, showers: float) -> float:
    """Return the chance of `on` counts or more in `on_s` by a background of `rate` counts/s seen for `background_s`."""
    if on <= 0:
        return 1.0
    seen = rate * background_s + 1.0
    mean = seen * on_s / background_s
    size = mean**2 / (mean * showers + mean**2 / seen)
    return max(float(betainc(on, size, mean / (mean + size))), 1e-300)


def z_of(p_value: float) -> float:
    """Return the normal score of a p-value, at most 38: beyond it a normal tail is 0 in double precision."""
    return min(38.0, -float(ndtri(p_value))) if p_value > 0 else 38.0
