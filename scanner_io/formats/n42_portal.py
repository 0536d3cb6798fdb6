"""N42 documents of portal monitors as records of passages.

Occupancy is what OccupancyIndicator says; the class of a measurement counts only where no indicator is told. Rates are
counts over real time, for a live time may be that of another detector.

Source: ANSI N42.42-2012 with its Annexes D (portal monitor) and E (spectroscopic portal monitor).
"""

from __future__ import annotations

import math
from statistics import median
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..model import NANOSECONDS, PortalRecord
from .n42_document import AnalysisResults, Document, EnergyWindows, GrossCounts, Measurement, Spectrum

SpeedUnit = Literal["km/h", "mph", "m/s"]

SAME_SLICE_NS = 50_000_000
"""Detectors of one slice may begin so far apart (seen on real portals)."""
SHORT_BACKGROUND_S = 10.0
"""A background counted for less than this is told as a limit of the record."""

_KMH = {"km/h": 1.0, "kmh": 1.0, "kph": 1.0, "kmph": 1.0, "mph": 1.609344, "m/s": 3.6}


class _Slice(msgspec.Struct, kw_only=True):
    """One interval of time, of one measurement or of several that tell different detectors."""

    parts: list[Measurement]
    start_utc_ns: int
    real_time_s: float
    counts: dict[str, int]
    occupied: bool | None

    def has_group(self, groups: frozenset[str]) -> bool:
        return any(g in groups for m in self.parts for g in m.groups)


def portal_records(document: Document, *, speed_unit: SpeedUnit | None = None) -> list[PortalRecord]:
    """Return the passages of a portal's document, in order of time.

    speed_unit : unit of speeds told without one, as the 2012 form tells them; None leaves such speeds out

    Per detector: gross counts, summed over energy windows that do not overlap, else those of the widest window; the
    sum over its spectrum where it has no gross counts. What the document lost, missing slices and counts, alarms other
    than gamma and neutron, identified nuclides and the instrument's faults are in the record's `faults`, so none of
    them reads as clear. `raw_lines` begin with `[n42]` and say how the counts were taken and what was mended. An alarm
    of category Isotope is a gamma alarm too.

    Raises DataError where the document is of no portal, has no occupied slice, or times or counts cannot be used.
    """
    if not document.is_portal:
        raise DataError(
            f"N42 document: instrument class {document.instrument.class_code[:60]!r} is no portal; only passages of "
            "portal monitors can be judged"
        )
    notes: list[str] = []
    gamma, neutron = _detectors(document)
    slices = _slices(document, notes)
    runs = _runs(slices)
    if not runs:
        raise DataError(
            f"N42 document: none of {len(slices)} slices is occupied (OccupancyIndicator); nothing to judge"
        )
    made = [_Passage(document, slices, a, b, gamma, neutron) for a, b in runs]
    for results in document.results:
        _give_results(results, made)
    if len(document.results) == 0:
        notes.append("no analysis results: the portal told no alarm and no release either")
    return [p.record(notes, speed_unit) for p in made]


def _detectors(document: Document) -> tuple[list[str], list[str]]:
    """Return ids of gamma and neutron detectors that count in the document; of unknown sort is gamma."""
    counted = {c.detector for m in document.measurements if not m.derived for c in _series(m)}
    counting = [d for d in document.detectors if d.id in counted]
    return [d.id for d in counting if d.category != "Neutron"], [d.id for d in counting if d.category == "Neutron"]


def _series(m: Measurement) -> tuple[GrossCounts | Spectrum, ...]:
    return (*m.gross_counts, *m.spectra)


# --------------------------------------------------------------------------------------------------------------
# Slices


def _slices(document: Document, notes: list[str]) -> list[_Slice]:
    """Return slices in order of time, measurements of the same time joined."""
    windows = {w.id: w for w in document.windows}
    slices: list[_Slice] = []
    for m in document.measurements:
        if m.derived or not (m.gross_counts or m.spectra or m.occupied is not None):
            continue
        if m.start_utc_ns is None or not m.real_time_s:
            raise DataError(
                f"N42 measurement {m.id[:60]!r}: start {m.start_utc_ns}, real time {m.real_time_s} s; a passage needs "
                "both for every slice"
            )
        counts: dict[str, int] = {}
        for g in m.gross_counts:
            counts[g.detector] = counts.get(g.detector, 0) + _gross(g, windows.get(g.windows), notes)
        told = set(counts)
        for s in m.spectra:
            if s.detector not in told:
                counts[s.detector] = counts.get(s.detector, 0) + _whole(float(s.counts.sum(dtype=np.float64)), m.id)
        slices.append(
            _Slice(parts=[m], start_utc_ns=m.start_utc_ns, real_time_s=m.real_time_s, counts=counts,
                   occupied=_occupied(m))
        )  # fmt: skip
    slices.sort(key=lambda s: s.start_utc_ns)
    return _joined(slices)


def _joined(slices: list[_Slice]) -> list[_Slice]:
    """Join neighbours of the same time that tell different detectors."""
    joined: list[_Slice] = []
    for s in slices:
        last = joined[-1] if joined else None
        if (
            last is not None
            and s.start_utc_ns - last.start_utc_ns <= min(SAME_SLICE_NS, last.real_time_s * NANOSECONDS / 2)
            and math.isclose(s.real_time_s, last.real_time_s, rel_tol=0.1)
            and last.counts.keys().isdisjoint(s.counts)
        ):
            last.parts += s.parts
            last.counts |= s.counts
            last.occupied = last.occupied or s.occupied
        else:
            joined.append(s)
    return joined


def _gross(g: GrossCounts, windows: EnergyWindows | None, notes: list[str]) -> int:
    """Return one count of a detector; overlapping windows are never summed."""
    if len(g.counts) == 1 or windows is None:
        # Without windows several counts mean what nobody knows: the largest is in the file for sure.
        return _whole(max(g.counts), g.id)
    if not windows.overlap:
        return _whole(math.fsum(g.counts), g.id)
    at = windows.widest
    note = (
        f"energy windows of {windows.id[:40]} overlap; counts are those of the widest, {windows.start_kev[at]:g} to "
        f"{windows.end_kev[at]:g} keV"
    )
    if note not in notes:
        notes.append(note)
    return _whole(g.counts[at], g.id)


def _whole(count: float, owner: str) -> int:
    if count > 2**53:
        raise DataError(f"N42 counts {owner[:60]!r}: {count:g} is more than a detector counts")
    return round(count)


def _occupied(m: Measurement) -> bool | None:
    """Return whether a vehicle was there; None for slices that are neither passage nor background."""
    if m.occupied is not None:
        return m.occupied
    return {"Background": False, "Foreground": True, "NotSpecified": True}.get(m.class_code)


def _runs(slices: list[_Slice]) -> list[tuple[int, int]]:
    """Return half-open ranges of occupied slices."""
    runs: list[tuple[int, int]] = []
    for i, s in enumerate(slices):
        if s.occupied:
            if runs and runs[-1][1] == i:
                runs[-1] = (runs[-1][0], i + 1)
            else:
                runs.append((i, i + 1))
    return runs


# --------------------------------------------------------------------------------------------------------------
# Passages


class _Passage:
    """One run of occupied slices on its way to a record."""

    def __init__(
        self, document: Document, slices: list[_Slice], first: int, end: int, gamma: list[str], neutron: list[str]
    ) -> None:
        self.document = document
        self.slices = slices[first:end]
        self.before = self._background(slices[:first])
        self.gamma, self.neutron = gamma, neutron
        self.gamma_alarm = np.zeros(end - first, np.bool_)
        self.neutron_alarm = np.zeros(end - first, np.bool_)
        self.faults: dict[str, None] = {}  # an ordered set
        self.interval_s = median(s.real_time_s for s in self.slices)

    def _background(self, earlier: list[_Slice]) -> list[_Slice]:
        """Return the vacant slices before entry: back to the last passage, or all where none are between."""
        vacant = [s for s in earlier if s.occupied is False]
        last = max((i for i, s in enumerate(earlier) if s.occupied), default=-1)
        near = [s for s in earlier[last + 1 :] if s.occupied is False]
        return near or vacant

    def ids(self) -> frozenset[str]:
        return frozenset(m.id for s in self.slices for m in s.parts)

    def groups(self) -> frozenset[str]:
        return frozenset(g for s in self.slices for m in s.parts for g in m.groups)

    def record(self, notes: list[str], speed_unit: SpeedUnit | None) -> PortalRecord:
        start = self.slices[0].start_utc_ns
        last = self.slices[-1]
        self._check_times()
        gamma, neutron = self._counts(self.gamma), self._counts(self.neutron)
        speed_kmh, speed_note = self._speed(speed_unit)
        self._tell_faults()
        background_s = sum(s.real_time_s for s in self.before)
        if 0 < background_s < SHORT_BACKGROUND_S:
            self.faults[f"background counted for {background_s:g} s only"] = None
        lines = [*notes, *speed_note, *self._container(), *self.document.problems]
        return PortalRecord(
            start_utc_ns=start, end_utc_ns=last.start_utc_ns + round(last.real_time_s * NANOSECONDS),
            gamma=gamma, neutron=neutron if self.neutron else np.zeros((0, 0), np.int64),
            gamma_alarm=self.gamma_alarm, gamma_start_utc_ns=start,
            neutron_alarm=self.neutron_alarm if self.neutron else np.zeros(0, np.bool_),
            gamma_arrival_ns=np.array([s.start_utc_ns for s in self.slices], np.int64),
            gamma_background=self._rates(self.gamma), neutron_background=self._rates(self.neutron),
            gamma_interval_s=self.interval_s, neutron_interval_s=self.interval_s, speed_kmh=speed_kmh,
            faults=tuple(self.faults), raw_lines=tuple(f"[n42] {line}" for line in lines),
        )  # fmt: skip

    def _check_times(self) -> None:
        for a, b in zip(self.slices, self.slices[1:], strict=False):
            apart_s = (b.start_utc_ns - a.start_utc_ns) / NANOSECONDS
            if abs(apart_s - a.real_time_s) > max(SAME_SLICE_NS / NANOSECONDS, 0.5 * self.interval_s):
                self.faults["lines_lost"] = None
        if any(not math.isclose(s.real_time_s, self.interval_s, rel_tol=0.1) for s in self.slices):
            self.faults["slices of different lengths"] = None

    def _counts(self, detectors: list[str]) -> npt.NDArray[np.int64]:
        """Return `(slices, detectors) int64`; a detector without counts in a slice is a fault, and 0."""
        counts = np.zeros((len(self.slices), len(detectors)), np.int64)
        for i, s in enumerate(self.slices):
            for j, name in enumerate(detectors):
                counts[i, j] = s.counts.get(name, 0)
                if name not in s.counts:
                    self.faults["damaged_line"] = None
        return counts

    def _rates(self, detectors: list[str]) -> npt.NDArray[np.float64] | None:
        """Return `(detectors,) float64` counts/s before entry, None where a detector told none."""
        rates = []
        for name in detectors:
            told = [s for s in self.before if name in s.counts]
            if not told:
                return None
            rates.append(sum(s.counts[name] for s in told) / sum(s.real_time_s for s in told))
        return np.array(rates, np.float64) if rates else None

    def _speed(self, speed_unit: SpeedUnit | None) -> tuple[float | None, list[str]]:
        told = [(m.speed, m.speed_unit) for s in self.slices for m in s.parts if m.speed is not None]
        if not told:
            return None, []
        unit = told[0][1] or speed_unit or ""
        factor = _KMH.get(unit.strip().lower())
        value = median(v for v, _ in told)
        if factor is None:
            return None, [f"speed {value:g} in {unit[:20] or 'no unit told'}: left out; give the unit of speeds"]
        return value * factor, []

    def _container(self) -> list[str]:
        named = {i for s in self.slices for m in s.parts for i in m.items}
        items = [i for i in self.document.items if i.id in named] or list(self.document.items)
        return [f"container {i.container_id[:40]}" for i in items if i.container_id]

    def _tell_faults(self) -> None:
        for s in self.slices:
            for m in s.parts:
                for f in m.faults:
                    self.faults[f"{f.severity} {f.code} {f.description}"[:40]] = None
        if self.document.lost:
            self.faults["damaged_line"] = None


# --------------------------------------------------------------------------------------------------------------
# Alarms


def _give_results(results: AnalysisResults, passages: list[_Passage]) -> None:
    """Give alarms, nuclides and faults to the passages that the results speak of, to all where they name none."""
    ids, groups = frozenset(results.measurements), frozenset(results.groups)
    meant = [p for p in passages if not ids.isdisjoint(p.ids()) or not groups.isdisjoint(p.groups())] or passages
    for alarm in results.alarms:
        at = [p for p in meant if alarm.utc_ns is not None and _at(p, alarm.utc_ns).any()] or meant
        for p in at:
            where = _where(p, ids, alarm.utc_ns)
            if alarm.category in ("Gamma", "Isotope") or (alarm.category == "Neutron" and not p.neutron):
                p.gamma_alarm |= where
            elif alarm.category == "Neutron":
                p.neutron_alarm |= where
            if alarm.category not in ("Gamma", "Neutron"):
                p.faults[f"{alarm.category} alarm {alarm.description}"[:40]] = None
    for p in meant:
        for n in results.nuclides:
            if n.identified:
                p.faults[f"nuclide {n.name} {n.category}".rstrip()[:40]] = None
        for f in results.faults:
            p.faults[f"{f.severity} {f.code} {f.description}"[:40]] = None


def _at(p: _Passage, utc_ns: int) -> npt.NDArray[np.bool_]:
    return np.array([0 <= utc_ns - s.start_utc_ns < s.real_time_s * NANOSECONDS for s in p.slices], np.bool_)


def _where(p: _Passage, ids: frozenset[str], utc_ns: int | None) -> npt.NDArray[np.bool_]:
    """Return `(slices,) bool`: the slice of the alarm's time, else the slices named, else all."""
    if utc_ns is not None and (at := _at(p, utc_ns)).any():
        return at
    named = np.array([any(m.id in ids for m in s.parts) for s in p.slices], np.bool_)
    return named if named.any() else np.ones(len(p.slices), np.bool_)
