"""What a portal's vendor says of a passage: its alarm flags, as they are, and its rule replayed beside them.

Nothing here mutes or lowers a flag; a disagreement with the rule tells of set-up, firmware or link.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.model import Finding, Intervals, PortalRecord, PortalSettings

VERIFIED_MASK = "1010"
"""Algorithm mask whose meaning is established: all detectors, and the two pillars. Others are not replayed."""
VERIFIED_INTERVALS = 5
"""Intervals in the alarm sum for which the rule is established; for others the background is scaled by time."""
BURST = 5
"""Intervals before entry that a Rapiscan portal buffers and sends at once."""
HOLD_IN = 10
"""Intervals after exit, where the portal told nothing else."""
_LINES_MISSING = frozenset(
    {"start_not_seen", "damaged_line", "lines_lost", "line_repeated", "readings_lost", "count_stepped"}
)


class RuleReplay(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The vendor's gamma rule computed anew.

    z : `(intervals,) float64`, largest of the detector sets' scores per interval, standard deviations of the
        background; NaN until the window of `window` intervals is full
    sets : `(intervals,) int64`, index into DETECTOR_SETS of the set with the largest score
    peak : interval at the end of the highest full window, None if no window was full
    peak_counts, peak_expected : of that window's set, and of its background
    missed, extra : intervals where the vendor alarms and the rule does not, and the other way round
    """

    z: npt.NDArray[np.float64]
    sets: npt.NDArray[np.int64]
    window: int
    nsigma: float
    peak: int | None
    peak_counts: float
    peak_expected: float
    missed: tuple[int, ...]
    extra: tuple[int, ...]


DETECTOR_SETS = ("all detectors", "master pillar", "slave pillar")
"""Detector sets of mask 1010: f1..f4 together, f1 + f2, f3 + f4."""


def set_sums(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return `(n, sets) float64` sums of `(n, detectors)`: three sets for four detectors, else all together."""
    if counts.shape[1] != 4:
        return np.asarray(counts.sum(axis=1, dtype=np.float64)[:, np.newaxis])
    master = counts[:, 0] + counts[:, 1]
    slave = counts[:, 2] + counts[:, 3]
    sums = np.empty((len(counts), 3))
    sums[:, 0], sums[:, 1], sums[:, 2] = master + slave, master, slave
    return sums


def gamma_background(record: PortalRecord) -> npt.NDArray[np.float64] | None:
    """Return the record's `(detectors,)` background in counts/s if it can be used, else None."""
    background = record.gamma_background
    if background is None or background.shape[0] != record.gamma.shape[1] or background.sum() <= 0:
        return None
    return background


def buffered(record: PortalRecord) -> bool:
    """Return True where the record begins with intervals from before entry that came at once, as a Rapiscan's do.

    The tails of `shaped` and `one_sided` (`portal_null`) hold for such records: the vehicle's place in others (Aspect,
    N42) is not known to the interval, and what is taken for its front or its end then looks like a source. An
    Aspect record begins with the first occupied reading and ends 1 s or so after the last; an N42 one holds up to 5 s
    before and 2 s behind, as many slices as the file has. A record does not tell how many there are, so tails for those
    kinds would hold for a mixture of them and for none.
    """
    arrival = record.gamma_arrival_ns
    return arrival.size >= BURST and int(arrival[BURST - 1] - arrival[0]) < 2e9 * record.gamma_interval_s


def around(record: PortalRecord) -> tuple[int, int]:
    """Return how many intervals of the record come before the vehicle enters, and how many after it has left.

    A Rapiscan's are its buffer and its hold-in. Others are counted by their times: a record begins and ends with the
    occupancy, and its first interval when that began. What an Aspect holds in after the exit is then the vehicle's.
    """
    n = record.gamma.shape[0]
    if buffered(record):
        return BURST, record.settings.hold_in_intervals if record.settings else HOLD_IN
    step_ns = record.gamma_interval_s * 1e9
    before = min(max(round((record.start_utc_ns - record.gamma_start_utc_ns) / step_ns), 0), n)
    inside = max(round((record.end_utc_ns - record.start_utc_ns) / step_ns), 0)
    return before, max(n - before - inside, 0)


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
    expected = set_sums(background[np.newaxis, :])[0] * (window * record.gamma_interval_s)
    peak, peak_counts, peak_expected = None, 0.0, 0.0
    z = np.full(n, np.nan)
    sets = np.zeros(n, np.int64)
    if n >= window:
        total = np.zeros((n + 1, expected.size))
        np.cumsum(set_sums(record.gamma), axis=0, out=total[1:])
        sums = total[window:] - total[:-window]
        # A pillar that is switched off has no background and takes no part.
        scores = np.where(expected > 0, (sums - expected) / np.sqrt(np.maximum(expected, 1e-9)), -np.inf)
        sets[window - 1 :] = scores.argmax(axis=1)
        z[window - 1 :] = scores.max(axis=1)
        peak = window - 1 + int(z[window - 1 :].argmax())
        chosen = sets[peak]
        peak_counts, peak_expected = float(sums[peak - window + 1, chosen]), float(expected[chosen])
    full = ~np.isnan(z)
    rule = full & (z >= nsigma)
    missed = np.flatnonzero(full & record.gamma_alarm & ~rule)
    extra = np.flatnonzero(rule & ~record.gamma_alarm)
    return RuleReplay(
        z=z, sets=sets, window=window, nsigma=nsigma, peak=peak, peak_counts=peak_counts, peak_expected=peak_expected,
        missed=tuple(missed.tolist()), extra=tuple(extra.tolist()),
    )  # fmt: skip


def runs_of(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the half-open ranges in which `flags` is True."""
    if not flags.any():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _settings_words(record: PortalRecord, settings: PortalSettings) -> str:
    words = f"NSigma {settings.nsigma:g}, {settings.gamma_intervals} intervals, mask {settings.algorithm_mask}"
    return f"{words} from the portal's set-up" if record.settings else f"settings assumed ({words})"


def _peak_words(record: PortalRecord, replay: RuleReplay | None) -> str:
    """Say what was highest, where, against what."""
    if replay is None or replay.peak is None:
        return "no background before entry to compare with"
    peak = replay.peak
    return (
        f"peak z {replay.z[peak]:.2f} at interval {peak} ({DETECTOR_SETS[int(replay.sets[peak])]}): "
        f"{replay.peak_counts:.0f} counts in {replay.window * record.gamma_interval_s:g} s against "
        f"{replay.peak_expected:.0f} expected from the last background before entry"
    )


def gamma_alarm_findings(record: PortalRecord, replay: RuleReplay | None, settings: PortalSettings) -> list[Finding]:
    """The vendor's gamma alarm: one finding, at the run of alarm intervals with the highest score."""
    runs = runs_of(record.gamma_alarm)
    if not runs:
        return []
    intervals = int(record.gamma_alarm.sum())
    ruled = record.settings is not None or buffered(record)  # else it is another vendor's, whose rule is not known
    if replay is not None and replay.peak is not None:
        heights = [float(np.max(replay.z[a:b], initial=-np.inf, where=~np.isnan(replay.z[a:b]))) for a, b in runs]
    else:
        heights = [float(b - a) for a, b in runs]
    first, end = runs[int(np.argmax(heights))]
    score = max(heights)
    reason = (
        f"vendor gamma alarm in {intervals} of {record.gamma.shape[0]} intervals, {len(runs)} "
        f"{'run' if len(runs) == 1 else 'runs'}, the strongest {first} to {end - 1}; {_peak_words(record, replay)}; "
        f"{_settings_words(record, settings) if ruled else 'by a rule that is not known'}"
    )
    where = Intervals(first=first, end=end)
    return [
        Finding(
            kind="gamma_alarm", score=score if np.isfinite(score) else 0.0, reason=reason, tier="alarm", where=where
        )
    ]


def neutron_alarm_findings(record: PortalRecord) -> list[Finding]:
    """The vendor's neutron alarm, as told: its rule is not known and is not replayed."""
    runs = runs_of(record.neutron_alarm)
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


def window_alarm_findings(record: PortalRecord) -> list[Finding]:
    """The vendor's energy-window alarm (AA lines): unofficial, so it asks for a look and is no gamma alarm."""
    if record.gamma_windows_alarm is None or not record.gamma_windows_alarm.any():
        return []
    runs = runs_of(record.gamma_windows_alarm)
    first, end = max(runs, key=lambda run: run[1] - run[0])
    intervals = int(record.gamma_windows_alarm.sum())
    also = "" if record.gamma_alarm.any() else "; its gross-count rule did not"
    reason = (
        f"the portal's energy-window algorithm alarmed in {intervals} of {record.gamma.shape[0]} intervals, longest "
        f"{first} to {end - 1}{also}; what its lines (AA) mean is inferred, not documented"
    )
    where = Intervals(first=first, end=end)
    return [Finding(kind="gamma_window_alarm", score=float(intervals), reason=reason, tier="review", where=where)]


def rule_findings(record: PortalRecord, replay: RuleReplay | None, settings: PortalSettings) -> list[Finding]:
    """The replayed rule beside the vendor's flags: a note where they agree or cannot be compared."""
    if replay is None or replay.peak is None or not buffered(record):  # another vendor's rule is not known
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
