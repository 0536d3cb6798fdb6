"""Judgement of one occupancy of a radiation portal monitor.

Three layers, in this order: the vendor's own alarm flags, which nothing here mutes or lowers; the vendor's alarm rule
replayed beside them, because a disagreement tells of set-up, firmware or link; and two tests that only add findings,
a gamma excess over a baseline that the vehicle's own shielding has lowered, and a neutron excess over background.

Pure functions of a record and a profile.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import betainc, ndtri

from scanner_io.errors import DataError
from scanner_io.model import Finding, Intervals, PortalRecord, PortalSettings, Quality

VERIFIED_MASK = "1010"
"""Algorithm mask whose meaning is established: all detectors, and the two pillars. Others are not replayed."""
VERIFIED_INTERVALS = 5
"""Intervals in the alarm sum for which the rule is established; for others the background is scaled by time."""
_LOOK_Z_CAP = 38.0
"""Beyond this a normal tail is 0 in double precision; larger scores are told as this one."""

FAULT_WORDS = {
    "GH": ("portal_fault", "gamma background high (GH)"),
    "GL": ("portal_fault", "gamma background low (GL)"),
    "NH": ("portal_fault", "neutron background high (NH)"),
    "TT": ("portal_tamper", "tamper contact open (TT)"),
    "start_not_seen": ("portal_start_not_seen", "the start of the passage was not seen; counts may be missing"),
    "damaged_line": ("portal_damaged_line", "a line of the passage could not be read; counts may be missing"),
    "unknown_line": (
        "portal_unknown_line",
        "a line of the passage has an unknown code: it may be a damaged count or alarm",
    ),
    "lines_lost": ("portal_lines_lost", "fewer gamma lines came than the passage took time for"),
    "clock_stepped": ("portal_clock_stepped", "the clock was set back during the passage; its times are not sure"),
    **{
        f"{channel}_{code}": ("portal_fault", f"{channel} {words}")
        for channel in ("gamma", "neutron")
        for code, words in (
            ("low", "counts low"),
            ("high", "counts high"),
            ("overload", "channel overloaded"),
            ("not_ready", "channel not ready"),
        )
    },
    "background_unusable": ("portal_fault", "the portal's background is no number of counts"),
    "power_fail": ("portal_fault", "mains power has failed"),
    "low_battery": ("portal_fault", "battery low"),
    "open": ("portal_tamper", "cabinet open"),
    "device_error": ("portal_fault", "the portal reports an error"),
    "device_reset": ("portal_fault", "the portal reports a reset"),
    "frozen": ("portal_frozen", "the portal's own time stands still: its readings are old"),
    "readings_lost": ("portal_lines_lost", "readings of the portal are missing within the passage"),
    "passages_missed": (
        "portal_passages_missed",
        "the portal counted more objects than were seen: a passage before this one has no record",
    ),
    "no_occupancy_signal": ("portal_no_occupancy_signal", "no occupancy sensor saw the passage"),
    "alarm_output": ("portal_alarm_output", "the portal's alarm output was on though no channel was read in alarm"),
    "alarm_without_counts": ("portal_alarm_without_counts", "a channel was in alarm at a reading without counts"),
    "count_stepped": ("portal_count_stepped", "the portal's running count fell; counts may be missing"),
    "spectroscopic": (
        "portal_spectroscopic",
        "lines of a spectroscopic portal came: its counts mean something else than is read here",
    ),
    "window_alarm": ("portal_window_alarm", "an energy-window alarm (AA) came in a passage without gamma counts"),
    "too_long": ("portal_too_long", "the portal stayed occupied for so long that the record was cut"),
}
"""Fault of a record: quality code and words."""


_LINES_MISSING = frozenset({"start_not_seen", "damaged_line", "lines_lost", "readings_lost", "count_stepped"})


class PortalProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds of the portal's judgement.

    assumed_nsigma : vendor threshold taken where the portal never told its settings, standard deviations of the
        background; 7.0 is the vendor's default (real portals stand at 4 to 5)
    gamma_scales_s : seconds of the windows of the gamma excess test; each is most sensitive to a peak of 1.5 times its
        length at half height, so these look for peaks of about 1 to 4 s, a point source at 2 to 8 km/h
    gamma_z : its threshold on the smaller of the two shoulder scores. At 4.5 fewer than 1 in 1000 simulated passages
        without a source has a finding, over all scales and detector sets together (310 counts per interval, shielding
        of 5 to 58 %, gaps of up to 20 % of it; 6 in 1000 have one where gaps reach 30 %). Not a rate of real traffic:
        25 recorded passes without a source, of one vehicle, all stay below 3
    neutron_z : threshold per look of the neutron test; about 40 looks at 4.5 make 1.4e-4 per passage, Poisson counts
        presumed (cosmic showers in ships and steel are not)
    neutron_background_s : seconds over which the portal averages its neutron background
    expect_neutron : the portal has neutron detectors, so a passage without neutron lines is a fault
    dead_fraction : a detector below this share of its background for the whole passage is dead or cut off; the
        strongest shielding known leaves 0.42
    dead_min_counts : counts expected in the passage below which nothing is said of a detector
    """

    assumed_nsigma: float = 7.0
    gamma_scales_s: tuple[float, ...] = (0.6, 1.2, 2.4)
    gamma_z: float = 4.5
    neutron_z: float = 4.5
    neutron_background_s: float = 120.0
    expect_neutron: bool = True
    dead_fraction: float = 0.1
    dead_min_counts: float = 50.0

    def __post_init__(self) -> None:
        """Check. Raises DataError."""
        for name in ("assumed_nsigma", "gamma_z", "neutron_z", "neutron_background_s", "dead_min_counts"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"PortalProfile.{name}: {getattr(self, name)}, expected above 0")
        if not self.gamma_scales_s or not all(0 < s <= 60 for s in self.gamma_scales_s):
            raise DataError(f"PortalProfile.gamma_scales_s: {self.gamma_scales_s}, expected seconds above 0 to 60")
        if not 0 <= self.dead_fraction < 1:
            raise DataError(f"PortalProfile.dead_fraction: {self.dead_fraction}, expected 0 to below 1")


class PortalJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """What judgement says of one occupancy.

    gamma_alarm, neutron_alarm : the vendor's flag in any interval
    gamma_intervals, alarm_intervals : gamma intervals of the record, and those of them in vendor alarm
    """

    findings: tuple[Finding, ...]
    quality: tuple[Quality, ...]
    gamma_alarm: bool
    neutron_alarm: bool
    gamma_intervals: int
    alarm_intervals: int


class RuleReplay(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The vendor's gamma rule computed anew.

    z : `(intervals,) float64`, largest of the detector sets' scores per interval, standard deviations of the
        background; NaN until the window of `window` intervals is full
    sets : `(intervals,) int64`, index into DETECTOR_SETS of the set with the largest score
    missed, extra : intervals where the vendor alarms and the rule does not, and the other way round
    """

    z: npt.NDArray[np.float64]
    sets: npt.NDArray[np.int64]
    window: int
    nsigma: float
    missed: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def peak(self) -> int | None:
        """Interval at the end of the highest full window, None if no window was full."""
        return None if np.isnan(self.z).all() else int(np.nanargmax(self.z))


DETECTOR_SETS = ("all detectors", "master pillar", "slave pillar")
"""Detector sets of mask 1010: f1..f4 together, f1 + f2, f3 + f4."""


def _set_sums(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return `(n, sets) float64` sums of `(n, detectors)`: three sets for four detectors, else all together."""
    if counts.shape[1] != 4:
        return np.asarray(counts.sum(axis=1, dtype=np.float64)[:, np.newaxis])
    master = counts[:, 0] + counts[:, 1]
    slave = counts[:, 2] + counts[:, 3]
    return np.stack([master + slave, master, slave], axis=1).astype(np.float64)


def gamma_background(record: PortalRecord) -> npt.NDArray[np.float64] | None:
    """Return the record's `(detectors,)` background in counts/s if it can be used, else None."""
    background = record.gamma_background
    if background is None or background.shape[0] != record.gamma.shape[1] or background.sum() <= 0:
        return None
    return background


def replay_rule(record: PortalRecord, nsigma: float, window: int = VERIFIED_INTERVALS) -> RuleReplay | None:
    """Replay the vendor's gamma rule for mask 1010, or return None where there is no background to do it with.

    S = counts of the last `window` intervals, B = last background before entry in counts/s;
    z = (S - B t) / sqrt(B t) for all detectors and for each pillar; alarm where the largest z >= nsigma.

    Source: established on 34,720 recorded intervals without a mismatch (NSigma 5.0, five intervals, mask 1010).
    """
    background = gamma_background(record)
    if background is None:
        return None
    n = record.gamma.shape[0]
    expected = _set_sums(background[np.newaxis, :])[0] * (window * record.gamma_interval_s)
    z = np.full(n, np.nan)
    sets = np.zeros(n, np.int64)
    if n >= window:
        total = np.zeros((n + 1, expected.size))
        np.cumsum(_set_sums(record.gamma), axis=0, out=total[1:])
        sums = total[window:] - total[:-window]
        # A pillar that is switched off has no background and takes no part.
        scores = np.where(expected > 0, (sums - expected) / np.sqrt(np.maximum(expected, 1e-9)), -np.inf)
        sets[window - 1 :] = scores.argmax(axis=1)
        z[window - 1 :] = scores.max(axis=1)
    full = ~np.isnan(z)
    rule = full & (z >= nsigma)
    missed = np.flatnonzero(full & record.gamma_alarm & ~rule)
    extra = np.flatnonzero(rule & ~record.gamma_alarm)
    return RuleReplay(
        z=z, sets=sets, window=window, nsigma=nsigma, missed=tuple(missed.tolist()), extra=tuple(extra.tolist())
    )


def judge_portal(record: PortalRecord, profile: PortalProfile) -> PortalJudgement:
    """Return what is to be said of one occupancy."""
    settings = record.settings or PortalSettings(nsigma=profile.assumed_nsigma)
    replay = replay_rule(record, settings.nsigma, settings.gamma_intervals)
    findings = [
        *_gamma_alarm(record, replay, settings),
        *_neutron_alarm(record),
        *_window_alarm(record),
        *_rule(record, replay, settings),
        *_gamma_excess(record, profile),
        *_neutron_excess(record, profile),
    ]
    return PortalJudgement(
        findings=tuple(findings),
        quality=tuple(_quality(record, profile, settings)),
        gamma_alarm=bool(record.gamma_alarm.any()),
        neutron_alarm=bool(record.neutron_alarm.any()),
        gamma_intervals=int(record.gamma.shape[0]),
        alarm_intervals=int(record.gamma_alarm.sum()),
    )


# --------------------------------------------------------------------------------------------------------------
# Vendor alarms and the replayed rule


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the half-open ranges in which `flags` is True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _settings_words(record: PortalRecord, settings: PortalSettings) -> str:
    words = f"NSigma {settings.nsigma:g}, {settings.gamma_intervals} intervals, mask {settings.algorithm_mask}"
    return f"{words} from the portal's set-up" if record.settings else f"settings assumed ({words})"


def _peak_words(record: PortalRecord, replay: RuleReplay | None) -> str:
    """Say what was highest, where, against what."""
    background = gamma_background(record)
    if replay is None or replay.peak is None or background is None:
        return "no background before entry to compare with"
    peak, window = replay.peak, replay.window
    chosen = int(replay.sets[peak])
    counts = _set_sums(record.gamma[peak - window + 1 : peak + 1])[:, chosen].sum()
    seconds = window * record.gamma_interval_s
    expected = _set_sums(background[np.newaxis, :])[0, chosen] * seconds
    return (
        f"peak z {replay.z[peak]:.2f} at interval {peak} ({DETECTOR_SETS[chosen]}): {counts:.0f} counts in "
        f"{seconds:g} s against {expected:.0f} expected from the last background before entry"
    )


def _gamma_alarm(record: PortalRecord, replay: RuleReplay | None, settings: PortalSettings) -> list[Finding]:
    """The vendor's gamma alarm: one finding, at the run of alarm intervals with the highest score."""
    runs = _runs(record.gamma_alarm)
    if not runs:
        return []
    intervals = int(record.gamma_alarm.sum())
    if replay is not None and not np.isnan(replay.z).all():
        heights = [float(np.max(replay.z[a:b], initial=-np.inf, where=~np.isnan(replay.z[a:b]))) for a, b in runs]
    else:
        heights = [float(b - a) for a, b in runs]
    first, end = runs[int(np.argmax(heights))]
    score = max(heights)
    reason = (
        f"vendor gamma alarm in {intervals} of {record.gamma.shape[0]} intervals, {len(runs)} "
        f"{'run' if len(runs) == 1 else 'runs'}, the strongest {first} to {end - 1}; {_peak_words(record, replay)}; "
        f"{_settings_words(record, settings)}"
    )
    where = Intervals(first=first, end=end)
    return [
        Finding(
            kind="gamma_alarm", score=score if np.isfinite(score) else 0.0, reason=reason, tier="alarm", where=where
        )
    ]


def _neutron_alarm(record: PortalRecord) -> list[Finding]:
    """The vendor's neutron alarm, as told: its rule is not known and is not replayed."""
    runs = _runs(record.neutron_alarm)
    if not runs:
        return []
    totals = record.neutron.sum(axis=1)
    heights = [int(totals[a:b].max()) for a, b in runs]
    first, end = runs[int(np.argmax(heights))]
    background = record.neutron_background
    against = "no neutron background known" if background is None else f"background {background.sum():.2f} counts/s"
    reason = (
        f"vendor neutron alarm in {int(record.neutron_alarm.sum())} of {totals.size} intervals of "
        f"{record.neutron_interval_s:g} s, at most {max(heights)} counts in one "
        f"(intervals {first} to {end - 1}); {against}"
    )
    where = Intervals(first=first, end=end)
    return [Finding(kind="neutron_alarm", score=float(max(heights)), reason=reason, tier="alarm", where=where)]


def _window_alarm(record: PortalRecord) -> list[Finding]:
    """The vendor's energy-window alarm (AA lines): unofficial, so it asks for a look and is no gamma alarm."""
    if record.gamma_windows_alarm is None or not record.gamma_windows_alarm.any():
        return []
    runs = _runs(record.gamma_windows_alarm)
    first, end = max(runs, key=lambda run: run[1] - run[0])
    intervals = int(record.gamma_windows_alarm.sum())
    also = "" if record.gamma_alarm.any() else "; its gross-count rule did not"
    reason = (
        f"the portal's energy-window algorithm alarmed in {intervals} of {record.gamma.shape[0]} intervals, longest "
        f"{first} to {end - 1}{also}; what its lines (AA) mean is inferred, not documented"
    )
    where = Intervals(first=first, end=end)
    return [Finding(kind="gamma_window_alarm", score=float(intervals), reason=reason, tier="review", where=where)]


def _rule(record: PortalRecord, replay: RuleReplay | None, settings: PortalSettings) -> list[Finding]:
    """The replayed rule beside the vendor's flags: a note where they agree or cannot be compared."""
    if replay is None or replay.peak is None:
        return []
    peak = replay.peak
    score = float(replay.z[peak])
    where = Intervals(first=max(0, peak - replay.window + 1), end=peak + 1)
    words = f"{_peak_words(record, replay)}; {_settings_words(record, settings)}"
    if settings.algorithm_mask != VERIFIED_MASK:
        reason = f"rule not verified for this mask ({settings.algorithm_mask}); by mask {VERIFIED_MASK}: {words}"
        return [Finding(kind="rule_unverified", score=score, reason=reason, tier="note", where=where)]
    if not (replay.missed or replay.extra):
        return [Finding(kind="rule_replay", score=score, reason=f"rule agrees; {words}", tier="note", where=where)]
    at = (replay.missed + replay.extra)[0]
    # A portal's window also holds the lines that were lost on the way here.
    whole = _LINES_MISSING.isdisjoint(record.faults)
    sure = record.settings is not None and replay.window == VERIFIED_INTERVALS and whole
    reason = (
        f"vendor alarms in {len(replay.missed)} intervals where its rule does not, and is silent in "
        f"{len(replay.extra)} where it alarms, first at interval {at} (z {replay.z[at]:.4f}); "
        f"{_agreement(record, replay)}; {words}; check set-up, firmware and link"
    )
    return [
        Finding(
            kind="rule_disagreement",
            score=float(len(replay.missed) + len(replay.extra)),
            reason=reason,
            tier="review" if sure else "note",
            where=Intervals(first=at, end=at + 1),
        )
    ]


def _agreement(record: PortalRecord, replay: RuleReplay) -> str:
    """Say which NSigma would make vendor and rule agree."""
    full = ~np.isnan(replay.z)
    silent, alarmed = replay.z[full & ~record.gamma_alarm], replay.z[full & record.gamma_alarm]
    below = float(silent.max()) if silent.size else -np.inf
    above = float(alarmed.min()) if alarmed.size else np.inf
    if below < above:
        low = f"above {below:.4f}" if np.isfinite(below) else ""
        high = f"up to {above:.4f}" if np.isfinite(above) else ""
        return f"any NSigma {' '.join(w for w in (low, high) if w)} would agree"
    return "no NSigma would agree"


# --------------------------------------------------------------------------------------------------------------
# Gamma excess over a suppressed baseline


def excess_score(on: npt.NDArray[np.float64], off: npt.NDArray[np.float64], ratio: float) -> npt.NDArray[np.float64]:
    """Return the signed significance of `on` counts against `off` counts whose time is `on`'s / `ratio`.

    Both are Poisson; under one common rate the score is standard normal from about ten counts on.

    Source: Li and Ma, Astrophysical Journal 272 (1983) 317, equation 17.
    """
    both = np.maximum(on + off, 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_on = np.where(on > 0, on * np.log((1 + ratio) / ratio * on / both), 0.0)
        of_off = np.where(off > 0, off * np.log((1 + ratio) * off / both), 0.0)
    z = np.sqrt(2 * np.maximum(of_on + of_off, 0.0))
    signed: npt.NDArray[np.float64] = np.where(on > ratio * off, z, -z)
    return signed


class Excess(NamedTuple):
    """The strongest local excess: score, half-open interval range, detector set, counts in and expected."""

    z: float
    first: int
    end: int
    detectors: int
    counts: float
    expected: float


def strongest_excess(record: PortalRecord, scales_s: tuple[float, ...]) -> Excess | None:
    """Return the window that stands out most from both of its shoulders, None if the record is shorter than any.

    A vehicle shields 20 to 58 % of the background, so a source that would be plain in an empty lane can stay below the
    flat background all the way. What tells it from the shadow is its shape: it is higher than what comes just before
    AND just after. Each window of a scale is compared with a shoulder of 1.5 lengths on either side, half a length
    away, and has the smaller of the two scores. The end of a shadow is a step and scores on one side only; a slope
    scores nowhere. Beyond its ends the record is continued by the background before entry, which can only lower
    scores there; without a background the ends are not judged.

    What it cannot see: a load as long as the vehicle (the vendor's rule sees it), a source close to either end, and
    the difference to a gap between two shields that is deep and as narrow as a window.
    """
    n = record.gamma.shape[0]
    sums = _set_sums(record.gamma)
    background = gamma_background(record)
    if background is None:
        beyond = np.full(sums.shape[1], np.nan)
    else:
        beyond = _set_sums(background[np.newaxis, :])[0] * record.gamma_interval_s
    best: Excess | None = None
    for scale_s in scales_s:
        width = max(1, round(scale_s / record.gamma_interval_s))
        if width <= n:
            best = max(filter(None, (best, _stands_out(sums, beyond, width))), key=lambda e: e.z)
    return best


def _stands_out(sums: npt.NDArray[np.float64], beyond: npt.NDArray[np.float64], width: int) -> Excess:
    """Return the window of `width` intervals with the best score of `(intervals, sets)` sums.

    beyond : `(sets,) float64`, counts per interval outside the record, NaN where not known
    """
    n = sums.shape[0]
    away, shoulder = (width + 1) // 2, (3 * width + 1) // 2
    pad = np.broadcast_to(beyond, (shoulder + away, beyond.size))
    total = np.zeros((n + 2 * (shoulder + away) + 1, beyond.size))
    np.cumsum(np.concatenate([np.nan_to_num(pad), sums, np.nan_to_num(pad)]), axis=0, out=total[1:])
    first = np.arange(n - width + 1) + shoulder + away
    on = total[first + width] - total[first]
    before = total[first - away] - total[first - away - shoulder]
    after = total[first + width + away + shoulder] - total[first + width + away]
    ratio = width / shoulder
    z = np.minimum(excess_score(on, before, ratio), excess_score(on, after, ratio))
    if np.isnan(beyond).any():
        inside = (first >= 2 * (shoulder + away)) & (first + width <= n)
        z[~inside] = -np.inf
    i, detectors = np.unravel_index(int(z.argmax()), z.shape)
    expected = ratio * max(before[i, detectors], after[i, detectors])
    return Excess(
        float(z[i, detectors]), int(i), int(i) + width, int(detectors), float(on[i, detectors]), float(expected)
    )


def _gamma_excess(record: PortalRecord, profile: PortalProfile) -> list[Finding]:
    best = strongest_excess(record, profile.gamma_scales_s)
    if best is None or best.z < profile.gamma_z:
        return []
    seconds = (best.end - best.first) * record.gamma_interval_s
    reason = (
        f"gamma counts stand out from the vehicle's own shadow: {best.counts:.0f} counts in {seconds:.1f} s "
        f"(intervals {best.first} to {best.end - 1}, {DETECTOR_SETS[best.detectors]}) against {best.expected:.0f} by "
        f"the higher of the rates before and after, {best.z:.1f} standard deviations (asked for: {profile.gamma_z:g})"
    )
    where = Intervals(first=best.first, end=best.end)
    return [Finding(kind="gamma_excess", score=best.z, reason=reason, tier="review", where=where)]


# --------------------------------------------------------------------------------------------------------------
# Neutron excess


def _neutron_excess(record: PortalRecord, profile: PortalProfile) -> list[Finding]:
    """Poisson test of one second, three seconds and the whole passage against the background before entry.

    The background was counted too: given the sum of both, the counts of a window are binomial, exact at any rate.

    Source: Przyborowski and Wilenski, Biometrika 31 (1940) 313.
    """
    background = record.neutron_background
    seconds = record.neutron.shape[0]
    if background is None or seconds == 0:
        return []
    # NB lines are cut to whole counts per detector: a lower bound, and up to one count more each.
    cut = background.size > 1 and not np.any(background % 1)
    rate = float(background.sum()) + (background.size if cut else 0)
    totals = record.neutron.sum(axis=1, dtype=np.float64)
    best: tuple[float, int, int] | None = None
    for width in sorted({1, min(3, seconds), seconds}):
        on = np.lib.stride_tricks.sliding_window_view(totals, width).sum(axis=1)
        first = int(on.argmax())
        z = _binomial_z(float(on[first]), width * record.neutron_interval_s, rate, profile.neutron_background_s)
        if best is None or z > best[0]:
            best = (z, first, first + width)
    assert best is not None
    z, first, end = best
    if z < profile.neutron_z:
        return []
    span_s = (end - first) * record.neutron_interval_s
    at_most = " at most (background cut to whole counts)" if cut else ""
    reason = (
        f"neutron counts exceed background: {totals[first:end].sum():.0f} in {span_s:g} s "
        f"(neutron intervals {first} to {end - 1}) against {rate * span_s:.1f} expected{at_most}, "
        f"{z:.1f} standard deviations (asked for: {profile.neutron_z:g})"
    )
    return [
        Finding(kind="neutron_excess", score=z, reason=reason, tier="review", where=Intervals(first=first, end=end))
    ]


def _binomial_z(on: float, on_s: float, rate: float, background_s: float) -> float:
    """Return the normal score of `on` counts in `on_s` against a background of `rate` counts/s seen for a time."""
    if on <= 0:
        return 0.0
    p = float(betainc(on, rate * background_s + 1.0, on_s / (on_s + background_s)))
    return min(_LOOK_Z_CAP, -float(ndtri(p))) if p > 0 else _LOOK_Z_CAP


# --------------------------------------------------------------------------------------------------------------
# Quality


def _quality(record: PortalRecord, profile: PortalProfile, settings: PortalSettings) -> list[Quality]:
    """What limits the record: none of it ever reads as clear."""
    found: list[Quality] = []
    n = record.gamma.shape[0]
    if record.gamma.size == 0:
        found.append(Quality(code="portal_no_gamma", reason="the passage has no gamma counts at all", fatal=True))
    elif n < settings.gamma_intervals:
        reason = f"{n} gamma intervals, fewer than the {settings.gamma_intervals} of the portal's own alarm sum"
        found.append(Quality(code="portal_short", reason=reason))
    if record.truncated:
        words = {"timed_out": "lines stopped", "link_lost": "the link was lost", "aborted": "no end line (GX) came"}
        reason = f"the passage did not end as a portal ends one: {words.get(record.end_reason, record.end_reason)}"
        found.append(Quality(code="portal_truncated", reason=reason))
    if record.gamma.size and gamma_background(record) is None:
        seen = record.gamma_background
        reason = "no gamma background before entry" if seen is None else f"gamma background {seen} cannot be used"
        found.append(Quality(code="portal_no_background", reason=reason))
    if profile.expect_neutron and record.neutron.shape[0] == 0:
        found.append(Quality(code="portal_no_neutron", reason="the passage has no neutron counts"))
    elif profile.expect_neutron and record.neutron_background is None:
        found.append(Quality(code="portal_no_neutron_background", reason="no neutron background known"))
    for fault in record.faults:
        code, words_of_fault = FAULT_WORDS.get(fault, ("portal_fault", f"fault {fault[:40]}"))
        found.append(Quality(code=code, reason=words_of_fault))
    return found + _dead_detectors(record, profile)


def _dead_detectors(record: PortalRecord, profile: PortalProfile) -> list[Quality]:
    """A detector that counts in the background and (almost) not while a vehicle stands there."""
    background = gamma_background(record)
    if background is None:
        return []
    seen = record.gamma.sum(axis=0)
    expected = background * (record.gamma.shape[0] * record.gamma_interval_s)
    dead = np.flatnonzero((expected >= profile.dead_min_counts) & (seen < profile.dead_fraction * expected))
    return [
        Quality(
            code="portal_dead_detector",
            reason=f"gamma detector {d + 1}: {seen[d]} counts, {expected[d]:.0f} expected from background",
        )
        for d in dead
    ]
