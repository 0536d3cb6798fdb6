"""Portal documents to records of passages.

A passage is a run of time slices that the occupancy indicator calls occupied, whatever their class code says. A few
slices before and behind it belong to its record, as a portal's own buffer and hold-in do; those before it also give
the background. What a record cannot hold, or a file leaves open, is told as `Quality`, so that it never reads as clear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...model import NANOSECONDS, Declaration, DeviceInfo, EndReason, PortalRecord, PortalSettings, Quality
from .context import N42Settings
from .counting import Aim, Counting, Radiation
from .document import (
    METRES_PER_S,
    PUBLISHED_RATE,
    RECORDED_FAULT,
    SETTINGS_NAMES,
    WINDOW_ALARM,
    Alarm,
    EnergyWindows,
    Fault,
    Instrument,
    Measurement,
    N42Document,
)

LEAD_S = 5.0
"""Seconds of unoccupied slices before a passage that its record holds."""
TAIL_S = 2.0
"""Seconds behind it, as long as a portal's own hold-in."""
SPLIT_S = 60.0
"""A longer time without a slice ends a passage."""
SHORT_BACKGROUND_S = 5.0
"""A background counted for less is told: its own scatter is no longer small beside the vehicle's."""
SUM_FACTOR = 5.0
"""A measurement so many times as long as the slices beside it is their sum and no slice."""
MAX_PASSAGES = 1000
MAX_BACKGROUND_SLICES = 3000
"""Slices before a passage that its background is made of, beside long background measurements."""

_LAST_NS = 2**63 - 1
_END = re.compile(r"Passage ended as: (\w+)")
_NUMBER = re.compile(r"Occupancy number\s*[=:]\s*(\d{1,9})(?!\d)", re.IGNORECASE)
_EPOCH = re.compile(r"Boot epoch\s*[=:]\s*(\d{1,9})(?!\d)", re.IGNORECASE)


class Passage(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One passage of a document.

    measurements : ids of the slices its record was made of
    windows : energy windows of the record's `gamma_windows`, None where not all its gamma counts are told in the same
        ones; they may overlap
    """

    record: PortalRecord
    quality: tuple[Quality, ...]
    device: DeviceInfo
    declaration: Declaration | None
    measurements: tuple[str, ...]
    windows: EnergyWindows | None = None


def passages(document: N42Document, settings: N42Settings | None = None) -> tuple[Passage, ...]:
    """Return the passages of a portal's document, in its order; none if it holds none (see `why_none`).

    Raises DataError for more passages than are read, and for counts or times that no record can hold.
    """
    settings = settings or N42Settings()
    occupied, assumed = _occupied(document)
    runs = _runs(document.measurements, occupied)
    if len(runs) > MAX_PASSAGES:
        raise DataError(f"N42: {len(runs)} passages in one document, at most {MAX_PASSAGES} are read; split the file")
    if not runs:
        return ()
    counting = Counting(document)
    aims = counting.aims()
    vacant = _vacant(document, occupied)
    aims = _reachable(aims, document, runs)
    builders = [_Passage(counting, run, vacant, settings) for run in runs]
    taken: set[int] = set()
    for i, builder in enumerate(builders):
        before = runs[i - 1][-1] + 1 if i else 0
        after = runs[i + 1][0] if i + 1 < len(runs) else len(document.measurements)
        builder.widen(before, after, taken)
    return tuple(builder.passage(aims, assumed=assumed, alone=len(builders) == 1) for builder in builders)


def why_none(document: N42Document) -> str:
    """Return why a document has no passage, in words."""
    what = f"N42 of {document.form} ({document.instrument.class_code})"
    count = len(document.measurements)
    alarms = [a.category for x in document.analyses for a in x.alarms]
    told = f"; it tells alarms: {', '.join(alarms[:5])}" if alarms else ""
    if not count:
        return f"{what} without any measurement: no portal passage{told}"
    if all(m.occupied is None for m in document.measurements):
        return f"{what} with {count} measurements, none with an occupancy indicator: no portal passage{told}"
    return f"{what} with {count} measurements, none of them occupied: no portal passage{told}"


def _reachable(aims: list[Aim], document: N42Document, runs: list[list[int]]) -> list[Aim]:
    """Return the aims, those that hit no passage turned to all: an alarm must not be lost by its references."""
    inside = {document.measurements[i].id for run in runs for i in run}
    return [a if a.slices is None or a.slices & inside else a._replace(slices=None) for a in aims]


def device_of(document: N42Document) -> DeviceInfo:
    """Return which instrument wrote the document."""
    instrument = document.instrument
    return DeviceInfo(
        vendor=instrument.manufacturer,
        model=instrument.model,
        kinds=("portal",),
        serial=instrument.identifier,
        simulated=document.simulated,
        note=f"{instrument.class_code}, from N42 of {document.form}",
    )


# --------------------------------------------------------------------------------------------------------------
# Which slices


def _occupied(document: N42Document) -> tuple[list[bool], bool]:
    """Return which measurements are of a passage, and whether that had to be assumed for any.

    The indicator decides. Where it is missing, a foreground measurement counts as occupied if the document has
    occupied ones, or is a portal's without any indicator: counts of a vehicle must not be taken for background.
    """
    told = [m.occupied for m in document.measurements]
    portal = "portal" in document.instrument.class_code.casefold()
    guess = any(told) or (portal and all(t is None for t in told))
    found = [
        t if t is not None else guess and m.class_code in ("Foreground", "NotSpecified")
        for t, m in zip(told, document.measurements, strict=True)
    ]
    for i, m in enumerate(document.measurements):
        if told[i] is None and not found[i]:
            found[i] = _between(document.measurements, told, i) and not _longer(m, document.measurements[i - 1])
    # a short background without indicator may as well be a slice of a vehicle that shields
    assumed = (
        t is None and (f or (m.class_code == "Background" and (m.real_time_s or 0.0) < SHORT_BACKGROUND_S))
        for f, t, m in zip(found, told, document.measurements, strict=True)
    )
    return found, any(assumed)


def _between(measurements: Sequence[Measurement], told: list[bool | None], index: int) -> bool:
    """Return True for a slice without indicator between two that are occupied: it must not part one passage in two."""
    inside = 0 < index < len(measurements) - 1 and told[index - 1] is True and told[index + 1] is True
    return inside and not _apart(measurements[index - 1], measurements[index + 1])


def _longer(m: Measurement, other: Measurement) -> bool:
    return bool(m.real_time_s and other.real_time_s and m.real_time_s > 2 * other.real_time_s)


def _runs(measurements: Sequence[Measurement], occupied: list[bool]) -> list[list[int]]:
    """Return the runs of occupied measurements, by index."""
    runs: list[list[int]] = []
    last: int | None = None
    for i, m in enumerate(measurements):
        if not occupied[i]:
            last = None
            continue
        if last is None or _apart(measurements[last], m):
            runs.append([])
        runs[-1].append(i)
        last = i
    return _overlapping_joined(measurements, runs)


def _overlapping_joined(measurements: Sequence[Measurement], runs: list[list[int]]) -> list[list[int]]:
    """Join runs of the same time: where each detector has slices of its own, one vehicle makes several runs."""

    def span(run: list[int]) -> tuple[int, int] | None:
        starts = [s for i in run if (s := measurements[i].start_utc_ns) is not None]
        last_s = measurements[run[-1]].real_time_s or 0.0
        return (min(starts), max(starts) + round(last_s * NANOSECONDS / 2)) if starts else None

    joined: list[list[int]] = []
    ends: list[tuple[int, int] | None] = []
    for run in runs:
        own = span(run)
        if joined and own is not None and (last := ends[-1]) is not None and own[0] <= last[1] and last[0] <= own[1]:
            joined[-1] += run
            ends[-1] = min(own[0], last[0]), max(own[1], last[1])
        else:
            joined.append(list(run))
            ends.append(own)
    return joined


def _apart(before: Measurement, after: Measurement) -> bool:
    """Return True if two occupied slices in a row are of two vehicles: of two groups, or far apart in time."""
    if before.groups and after.groups and not set(before.groups) & set(after.groups):
        return True
    if before.start_utc_ns is None or after.start_utc_ns is None:
        return False
    gap_s = (after.start_utc_ns - before.start_utc_ns) / NANOSECONDS - (before.real_time_s or 0.0)
    return gap_s > SPLIT_S


class _Vacant(NamedTuple):
    """Measurements without a vehicle, by index: all in order, and the long backgrounds wherever they stand."""

    slices: list[int]
    long: list[int]


def _vacant(document: N42Document, occupied: list[bool]) -> _Vacant:
    every = [
        i
        for i, m in enumerate(document.measurements)
        if not occupied[i] and m.class_code not in ("Calibration", "IntrinsicActivity")
    ]
    lengths = {i: document.measurements[i].real_time_s or 0.0 for i in every}
    return _Vacant(every, [i for i in every if lengths[i] >= SHORT_BACKGROUND_S][:100])


# --------------------------------------------------------------------------------------------------------------
# One passage


class _Series(NamedTuple):
    """Slices of one kind of radiation: detectors, `(n, detectors)` counts, slices by index, seconds of one."""

    detectors: list[str]
    counts: npt.NDArray[np.int64]
    slices: list[int]
    interval_s: float


class _Passage:
    """A passage being put together. Notes what limits it on the way."""

    def __init__(self, counting: Counting, run: list[int], vacant: _Vacant, settings: N42Settings) -> None:
        self._counting = counting
        self._document = counting.document
        self._settings = settings
        self._run = run
        self._vacant = vacant
        self._indices = list(run)
        self._quality: dict[str, Quality] = {}
        self._faults: dict[str, None] = {}
        self._joins: dict[int, int] = {}

    def _note(self, code: str, reason: str, *, fatal: bool = False) -> None:
        """Note a limit, once per code."""
        self._quality.setdefault(code, Quality(code=code, reason=reason, fatal=fatal))

    def _counts(self, index: int, radiation: Radiation) -> dict[str, float]:
        found = self._counting.of(index, radiation)
        for code, reason in found.notes:
            self._note(code, reason)
        return found.by_detector

    def widen(self, before: int, after: int, taken: set[int]) -> None:
        """Take in slices of `[before, after)` next to the run; `taken` are of the passage before."""
        measurements = self._document.measurements
        length_s = median([measurements[i].real_time_s or 0.0 for i in self._run]) or 1.0
        if self._run[-1] - self._run[0] >= len(self._run):
            return  # joined of several runs: what stands next to it is not next in time

        def fitting(indices: Iterable[int], room_s: float) -> list[int]:
            found = []
            for i in indices:
                m = measurements[i]
                room_s -= m.real_time_s or length_s
                too_long = room_s < -1e-6 or (m.real_time_s or 0.0) > 2 * length_s
                if i in taken or too_long or PUBLISHED_RATE in m.remarks:
                    break
                found.append(i)
            return found

        lead = fitting(range(self._run[0] - 1, before - 1, -1), LEAD_S)
        tail = fitting(range(self._run[-1] + 1, after), TAIL_S)
        self._indices = [*reversed(lead), *self._run, *tail]
        taken.update(self._indices)

    def passage(self, aims: list[Aim], *, assumed: bool, alone: bool) -> Passage:
        """Return the passage.

        assumed : the document does not tell of every slice whether it was occupied
        alone : it is the only one, so that a number the document tells is its own
        """
        document = self._document
        slices = [document.measurements[i] for i in self._run]
        starts = [m.start_utc_ns for m in slices if m.start_utc_ns is not None]
        start = min(starts, default=document.created_utc_ns or 0)
        ends = [m.start_utc_ns + round((m.real_time_s or 0) * 1e9) for m in slices if m.start_utc_ns is not None]
        self._tell_document(assumed=assumed, timed=bool(starts))
        gamma, neutron = self._series("gamma"), self._series("neutron")
        gamma_alarm, neutron_alarm, window_alarm = self._alarms(gamma, neutron, aims)
        windows, gamma_windows = self._in_windows(gamma)
        windows_background = self._windows_background(gamma, windows, start)
        # windows that one of them covers are seen by what they hold together (`triage.analysis.portal_energy`)
        if windows is not None and windows.covering() is None and [*windows.start_kev] != sorted(windows.start_kev):
            text = "the energy windows are not told from the softest to the hardest: their counts are kept, not judged"
            self._note("portal_windows_order", text)
            windows_background = None
        arrival, gamma_start = self._times(gamma, start)
        every = [document.measurements[i] for i in self._indices]
        told = [*(f for m in every for f in m.faults), *(f for a in document.analyses for f in a.faults)]
        self._faults |= dict.fromkeys(map(_fault_words, told))
        record = PortalRecord(
            start_utc_ns=start,
            end_utc_ns=max([start, *ends]),
            gamma=gamma.counts,
            neutron=neutron.counts,
            gamma_alarm=gamma_alarm,
            neutron_alarm=neutron_alarm,
            gamma_arrival_ns=arrival,
            gamma_start_utc_ns=gamma_start,
            gamma_background=self._background(gamma, "gamma", start),
            neutron_background=self._background(neutron, "neutron", start),
            gamma_interval_s=gamma.interval_s,
            neutron_interval_s=neutron.interval_s,
            settings=_portal_settings(document.instrument),
            number=_integer(_NUMBER, document) if alone else None,
            boot_epoch=_integer(_EPOCH, document) or 0,
            speed_kmh=self._speed_kmh(slices),
            end_reason=self._end_reason(),
            faults=tuple(self._faults),
            neutron_start_utc_ns=next((document.measurements[i].start_utc_ns for i in neutron.slices), None),
            gamma_windows=gamma_windows,
            gamma_windows_background=windows_background,
            gamma_windows_alarm=window_alarm if window_alarm.any() else None,
        )
        return Passage(
            record=record,
            quality=tuple(self._quality.values()),
            device=device_of(document),
            declaration=_declaration(document),
            measurements=tuple(document.measurements[i].id for i in self._indices),
            windows=windows,
        )

    def _tell_document(self, *, assumed: bool, timed: bool) -> None:
        document = self._document
        if assumed:
            self._note("portal_occupancy_assumed", "the file does not tell of every slice whether a vehicle was there")
        if document.counts_lost:
            lost = [str(p) for p in document.problems if p.counts_lost]
            text = f"counts or alarms of the file could not be read ({len(lost)} such places), first {lost[0]}"
            self._note("portal_file_damaged", text)
        if doubts := [str(p) for p in document.problems if not (p.harmless or p.counts_lost)]:
            text = f"the file is not as it should be in {len(doubts)} places, first {doubts[0]}"
            self._note("portal_file_doubtful", text)
        if not timed:
            self._note("portal_no_time", "no slice tells when it began")
        nuclides = [n for a in document.analyses for n in a.nuclides if n.identified is not False]
        if nuclides:
            told = "; ".join(_nuclide_words(n.name, n.category, n.confidence_text, n.confidence) for n in nuclides[:8])
            self._note("portal_nuclide", f"the portal names nuclides: {told}")
        if conclusions := [a.conclusion for a in document.analyses if a.conclusion]:
            self._note("portal_conclusion", f"the portal concludes: {'; '.join(conclusions)[:200]}")

    def _end_reason(self) -> EndReason:
        told = [match[1] for remark in self._document.remarks if (match := _END.fullmatch(remark))]
        reasons: tuple[EndReason, ...] = get_args(EndReason)
        if worse := [r for r in reasons if r in told and r != "complete"]:
            return worse[0]
        # damaged, and no vacant slice behind it: the end of the passage may be what is missing
        behind = self._document.measurements[self._run[-1] + 1 :]
        cut = not told and self._document.counts_lost and all(m.occupied is None for m in behind)
        return "link_lost" if cut else "complete"

    def _speed_kmh(self, slices: list[Measurement]) -> float | None:
        """Return the median speed of the slices that tell one."""
        speeds = []
        for m in slices:
            if m.speed is None:
                continue
            unit = m.speed_unit.strip().lower()
            if unit and unit not in METRES_PER_S:
                text = f"a speed in {m.speed_unit[:20]!r}; {self._settings.speed_unit} assumed"
                self._note("portal_speed_unit", text)
            factor = METRES_PER_S.get(unit) or METRES_PER_S[self._settings.speed_unit.lower()]
            if m.speed > 0:
                speeds.append(m.speed * factor * 3.6)
        return median(speeds) if speeds else None

    # ---- counts

    def _series(self, radiation: Radiation) -> _Series:
        """Return the counts of one kind of radiation, slice by slice."""
        measurements = self._document.measurements
        slices = [i for i in self._indices if self._counts(i, radiation)]
        seen = {d for i in slices for d in self._counts(i, radiation)}
        names = [d for d in self._counting.detectors if d in seen]
        interval_s = self._interval([measurements[i] for i in slices], radiation)
        if len(slices) >= 5:
            sums = [i for i in slices if (measurements[i].real_time_s or 0.0) > SUM_FACTOR * interval_s]
            if sums:
                text = f"{len(sums)} measurements beside slices of {interval_s:g} s are taken for sums of them"
                self._note("portal_sums_left_out", f"{text}: {', '.join(measurements[i].id for i in sums[:3])}")
                slices = [i for i in slices if i not in set(sums)]
        slices, rows_by_name = self._joined(slices, radiation, len(names), interval_s)
        rows = []
        for i, found in zip(slices, rows_by_name, strict=True):
            if missing := [n for n in names if n not in found]:
                text = (
                    f"slice {measurements[i].id} has no {radiation} counts of {', '.join(missing[:4])}; 0 is in place"
                )
                self._note("portal_detector_missing", text)
            rows.append([found.get(n, 0.0) for n in names])
        counts = np.array(rows, np.float64).reshape(len(rows), len(names))
        if (counts % 1).any():
            self._note("portal_counts_rounded", f"{radiation} counts that are no whole numbers; rounded")
        self._check_steps([measurements[i].start_utc_ns for i in slices], interval_s)
        return _Series(names, _whole(counts), slices, interval_s)

    def _joined(
        self, slices: list[int], radiation: Radiation, detectors: int, interval_s: float
    ) -> tuple[list[int], list[dict[str, float]]]:
        """Return slices and their counts, those of one time joined that tell different detectors."""
        counts = {i: self._counts(i, radiation) for i in slices}
        starts = {i: self._document.measurements[i].start_utc_ns for i in slices}
        if all(len(c) == detectors for c in counts.values()) or any(s is None for s in starts.values()):
            return slices, [counts[i] for i in slices]
        kept: list[int] = []
        rows: list[dict[str, float]] = []
        near_ns = round(min(0.05, interval_s / 2) * NANOSECONDS)
        for i in sorted(slices, key=lambda i: starts[i] or 0):
            if (
                kept
                and (starts[i] or 0) - (starts[kept[-1]] or 0) <= near_ns
                and not rows[-1].keys() & counts[i].keys()
            ):
                rows[-1].update(counts[i])
                self._joins[i] = kept[-1]
            else:
                kept.append(i)
                rows.append(dict(counts[i]))
        return kept, rows

    def _interval(self, slices: list[Measurement], radiation: Radiation) -> float:
        if not slices:
            return 1.0
        lengths = [m.real_time_s for m in slices if m.real_time_s]
        if lengths:
            interval_s = max(round(median(lengths), 6), 1e-6)
            uneven = [m for m in slices[:-1] if m.real_time_s and abs(m.real_time_s - interval_s) > 0.1 * interval_s]
            if uneven:
                text = f"{len(uneven)} {radiation} slices are not {interval_s:g} s long"
                self._note("portal_uneven_intervals", f"{text}, first {uneven[0].id} with {uneven[0].real_time_s:g} s")
            return interval_s
        starts = [m.start_utc_ns for m in slices if m.start_utc_ns is not None]
        steps = [b - a for a, b in pairwise(starts) if b > a]
        if steps:
            return median(steps) / NANOSECONDS
        text = f"how long the {radiation} slices are is not told; 1 s is in place"
        self._note("portal_no_intervals", text, fatal=True)
        return 1.0

    def _check_steps(self, starts: list[int | None], interval_s: float) -> None:
        """Note slices that are missing, and a clock that steps back; 50 ms are the detectors' own scatter."""
        for a, b in pairwise(starts):
            if a is not None and b is not None:
                step_s = (b - a) / NANOSECONDS
                if step_s > 1.5 * interval_s + 0.05:
                    self._faults["lines_lost"] = None
                elif step_s < min(0.0, 0.5 * interval_s - 0.05):
                    self._faults["clock_stepped"] = None

    def _times(self, gamma: _Series, start: int) -> tuple[npt.NDArray[np.int64], int]:
        """Return when each gamma slice ended, and when the first began."""
        step_ns = round(gamma.interval_s * NANOSECONDS)
        slices = [self._document.measurements[i] for i in gamma.slices]
        known = ((n, m.start_utc_ns) for n, m in enumerate(slices) if m.start_utc_ns is not None)
        first = next((began - n * step_ns for n, began in known), start)
        arrival = []
        for n, m in enumerate(slices):
            began = m.start_utc_ns if m.start_utc_ns is not None else first + n * step_ns
            arrival.append(began + (round(m.real_time_s * NANOSECONDS) if m.real_time_s else step_ns))
        if arrival and max(arrival) > _LAST_NS:
            raise DataError(f"N42: slice {slices[-1].id} ends after the year 2262; its times are damaged")
        return np.maximum.accumulate(np.array(arrival, np.int64)), first

    def _in_windows(self, gamma: _Series) -> tuple[EnergyWindows | None, npt.NDArray[np.int64] | None]:
        """Return the gamma counts by energy window, where all of them are told in the same windows."""
        measurements = self._document.measurements
        table = [{g.detector: g for g in measurements[i].gross if g.windows} for i in gamma.slices]
        used = {g.windows for row in table for g in row.values()}
        if len(used) != 1 or not all(d in row for row in table for d in gamma.detectors):
            return None, None
        windows = self._counting.windows[used.pop()]
        counts = np.array([[row[d].counts for d in gamma.detectors] for row in table], np.float64)
        return windows, _whole(counts)

    # ---- background

    def _background(self, series: _Series, radiation: Radiation, start: int) -> npt.NDArray[np.float64] | None:
        """Return counts/s per detector over what was measured without a vehicle before this one."""
        sums: dict[str, tuple[float, float]] = {}
        published = False
        for i in self._before(start):
            m = self._document.measurements[i]
            published |= PUBLISHED_RATE in m.remarks
            for detector, counts in self._counts(i, radiation).items():
                seconds = self._counting.seconds(i, detector, radiation)
                if seconds:
                    total, time_s = sums.get(detector, (0.0, 0.0))
                    sums[detector] = total + counts, time_s + seconds
        names = series.detectors
        if not all(n in sums for n in names):
            if radiation == "gamma" or any(n in sums for n in names):
                return None
            names = [d for d in self._counting.detectors if d in sums]  # all banks together, as GX tells them
        if not names or not sums:
            return None
        shortest_s = min(sums[n][1] for n in names)
        if shortest_s < SHORT_BACKGROUND_S and not published:
            text = f"the {radiation} background before entry was counted for {shortest_s:g} s only"
            self._note(f"portal_short_{radiation}_background", f"{text}; what is compared with it is not sure")
        return np.array([sums[n][0] / sums[n][1] for n in names])

    def _windows_background(
        self, series: _Series, windows: EnergyWindows | None, start: int
    ) -> npt.NDArray[np.float64] | None:
        """Return `(detectors, windows)` counts/s in the energy windows before this passage."""
        if windows is None:
            return None
        sums = {d: (np.zeros(len(windows.start_kev)), 0.0) for d in series.detectors}
        for i in self._before(start):
            for g in self._document.measurements[i].gross:
                seconds = self._counting.seconds(i, g.detector, "gamma")
                if g.windows == windows.id and g.detector in sums and seconds:
                    total, time_s = sums[g.detector]
                    with np.errstate(over="ignore"):  # what is not finite is refused by the record
                        sums[g.detector] = total + np.array(g.counts), time_s + seconds
        if not all(time_s for _, time_s in sums.values()):
            return None
        return np.array([total / time_s for total, time_s in sums.values()])

    def _before(self, start: int) -> list[int]:
        """Return the measurements without a vehicle that began before `start`, or stand before where none is told."""
        end = int(np.searchsorted(self._vacant.slices, self._run[0]))
        found = dict.fromkeys([*self._vacant.long, *self._vacant.slices[max(0, end - MAX_BACKGROUND_SLICES) : end]])
        starts = {i: self._document.measurements[i].start_utc_ns for i in found}
        return [i for i, at in starts.items() if (i < self._run[0] if at is None else at < start)]

    # ---- alarms

    def _alarms(
        self, gamma: _Series, neutron: _Series, aims: list[Aim]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return the alarm flags of the gamma and of the neutron slices, and those of a rule over energy windows."""
        flags = tuple(np.zeros(len(s.slices), np.bool_) for s in (gamma, neutron, gamma))
        inside = {self._document.measurements[i].id for i in self._run}
        every = {self._document.measurements[i].id for i in self._indices}
        for aim in aims:
            own = inside if aim.slices is None else every & aim.slices if aim.by_slice else inside & aim.slices
            exact = aim.by_slice and aim.slices is not None and not inside <= aim.slices
            named, told_exact = own, exact
            for alarm in aim.analysis.alarms if own else ():
                own, exact = self._when(alarm, named, told_exact)
                if alarm.description == WINDOW_ALARM and self._mark(gamma, flags[2], own):
                    continue
                is_neutron, words = self._kind(alarm)
                order = (
                    ((neutron, flags[1]), (gamma, flags[0])) if is_neutron else ((gamma, flags[0]), (neutron, flags[1]))
                )
                if not self._mark(*order[0], own):
                    self._note("portal_alarm_elsewhere", f"{words} is of slices without counts of its own kind")
                    self._mark(*order[1], own)
                if not exact:
                    self._note("portal_alarm_span", f"{words}: the file tells no single slices; all are marked")
        return flags[0], flags[1], flags[2]

    def _when(self, alarm: Alarm, own: set[str], exact: bool) -> tuple[set[str], bool]:
        """Return the slices of the alarm's own time, where it tells one that lies in them."""
        if alarm.utc_ns is None:
            return own, exact
        hit = set()
        for i in self._indices:
            m = self._document.measurements[i]
            if m.start_utc_ns is not None and m.id in own:
                length_ns = round((m.real_time_s or 0.0) * NANOSECONDS)
                if m.start_utc_ns <= alarm.utc_ns < m.start_utc_ns + length_ns:
                    hit.add(m.id)
        return (hit, True) if hit else (own, exact)

    def _mark(self, series: _Series, flags: npt.NDArray[np.bool_], own: set[str]) -> bool:
        into = [self._joins.get(i, i) for i in self._indices if self._document.measurements[i].id in own]
        hit = np.isin(series.slices, into)
        flags |= hit
        return bool(hit.any())

    def _kind(self, alarm: Alarm) -> tuple[bool, str]:
        """Return whether an alarm is a neutron alarm, and how to call it."""
        words = f"alarm {alarm.category}" + (f" ({alarm.description[:80]})" if alarm.description else "")
        category = alarm.category.casefold()
        if category in ("gamma", "neutron"):
            return category == "neutron", words
        is_neutron = {self._counting.category(d) for d in alarm.detectors} == {"neutron"}
        self._note("portal_alarm_category", f"{words} is taken for a {'neutron' if is_neutron else 'gamma'} alarm")
        return is_neutron, words


def _whole(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    if counts.size and counts.max() > 2**53:
        raise DataError(f"N42: counts of {counts.max():g} in one slice, at most 2^53 can be held")
    return np.rint(counts).astype(np.int64)


def _nuclide_words(name: str, category: str, confidence_text: str, confidence: float | None) -> str:
    sure = confidence_text or ("" if confidence is None else f"confidence {confidence:g}")
    more = ", ".join(w for w in (category, sure) if w)
    return f"{name} ({more})" if more else name


def _fault_words(fault: Fault) -> str:
    if fault.description == RECORDED_FAULT:
        return fault.code
    whose = "" if fault.source in ("instrument", "analysis") else f" of {fault.source}"
    return f"{fault.code} {fault.description}{whose} ({fault.severity})"[:200]


def _integer(pattern: re.Pattern[str], document: N42Document) -> int | None:
    texts = [*document.remarks, *(c.value for i in document.items for c in i.characteristics)]
    return next((int(match[1]) for t in texts if (match := pattern.search(t[:1000]))), None)


def _portal_settings(instrument: Instrument) -> PortalSettings | None:
    told = {SETTINGS_NAMES[c.name]: c.value for c in instrument.characteristics if c.name in SETTINGS_NAMES}
    if not {"nsigma", "algorithm_mask", "gamma_intervals"} <= told.keys():
        return None
    try:
        return msgspec.convert(told, PortalSettings, strict=False)
    except msgspec.ValidationError:
        return None  # "settings assumed" is then said of the record


def _declaration(document: N42Document) -> Declaration | None:
    numbers = [re.sub(r"[\s-]", "", i.characteristic("ContainerID")).upper() for i in document.items]
    numbers = [n for n in dict.fromkeys(numbers) if n]
    if not numbers:
        return None
    goods = next((g for i in document.items if (g := i.characteristic("Manifest"))), "")
    return Declaration(container_numbers=tuple(numbers), goods=goods, simulated=document.simulated)
