"""What each slice of a document counted, detector by detector, over all energies."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

from .context import copied_live_times
from .document import Analysis, GrossCounts, N42Document, Spectrum

Radiation = Literal["gamma", "neutron"]
_CATEGORIES = {"gamma": ("gamma", "x-ray", "other"), "neutron": ("neutron",)}


class Counted(NamedTuple):
    """Counts of one slice by detector, and what is to be said of them: code and reason."""

    by_detector: dict[str, float]
    notes: tuple[tuple[str, str], ...]


class Aim(NamedTuple):
    """What an analysis is of: the slices it names, None for any; whether it names slices and not a whole group."""

    analysis: Analysis
    slices: frozenset[str] | None
    by_slice: bool


class Counting:
    """Counts of a document's slices, worked out once each: a file may hold many passages.

    A detector's counts are taken once, however often they stand in a slice (as windows, as a spectrum, on two energy
    scales): they are the same pulses. Where gross counts and a spectrum differ, by their thresholds, the former stand.
    """

    def __init__(self, document: N42Document) -> None:
        self.document = document
        self.detectors = {d.id: d for d in document.detectors}
        self.windows = {w.id: w for w in document.windows}
        self._known: dict[tuple[int, Radiation], Counted] = {}

    def category(self, detector: str) -> str:
        """Return `gamma`, `neutron`, …"""
        known = self.detectors.get(detector)
        return known.category.casefold() if known is not None else "other"

    def of(self, index: int, radiation: Radiation) -> Counted:
        """Return what the slice of that index counted of one kind of radiation."""
        known = self._known.get((index, radiation))
        if known is None:
            known = self._known[index, radiation] = self._count(index, _CATEGORIES[radiation])
        return known

    def _count(self, index: int, categories: tuple[str, ...]) -> Counted:
        m = self.document.measurements[index]
        found: dict[str, float] = {}
        notes: list[tuple[str, str]] = []
        for series in (m.gross, m.spectra):
            own: dict[str, float] = {}
            for x in series:
                if (category := self.category(x.detector)) in ("alpha", "beta"):
                    text = f"{category} counts of {x.detector} in slice {m.id} are not judged"
                    notes.append(("portal_not_judged", text))
                if category not in categories or x.detector in found:
                    continue
                counts = self._gross(x, notes) if isinstance(x, GrossCounts) else _total(x, notes)
                if own.setdefault(x.detector, counts) != counts:
                    text = f"detector {x.detector} is told twice in slice {m.id}, not alike; the larger count is taken"
                    notes.append(("portal_detector_twice", text))
                own[x.detector] = max(counts, own[x.detector])
            found |= own
        return Counted(found, tuple(notes))

    def _gross(self, g: GrossCounts, notes: list[tuple[str, str]]) -> float:
        """Return the counts over all energies. Windows may overlap: they are added only where they do not."""
        if g.total is not None:
            return g.total
        if len(g.counts) == 1:
            return g.counts[0]
        windows = self.windows.get(g.windows)
        if windows is None or len(windows.start_kev) != len(g.counts):
            text = "counts of several energy windows that are not described; the largest is taken"
            notes.append(("portal_windows", text))
            return max(g.counts)
        whole = windows.covering()
        if whole is not None:
            if max(g.counts) > g.counts[whole]:
                span = f"{windows.start_kev[whole]:g}-{windows.end_kev[whole]:g} keV"
                text = f"an energy window counts more than the window {span} that contains it; the latter is taken"
                notes.append(("portal_windows_disagree", text))
            return g.counts[whole]
        if all(
            high <= low
            for (_, high), (low, _) in pairwise(sorted(zip(windows.start_kev, windows.end_kev, strict=True)))
        ):
            return sum(g.counts)
        text = "energy windows overlap and none contains all others; the largest count is taken"
        notes.append(("portal_windows", text))
        return max(g.counts)

    def seconds(self, index: int, detector: str, radiation: Radiation) -> float | None:
        """Return how long a detector counted: its live time, but for a neutron detector that tells another's."""
        m = self.document.measurements[index]
        live = next((x.live_time_s for x in m.counts if x.detector == detector and x.live_time_s), None)
        if radiation == "gamma" or not m.real_time_s:
            return live or m.real_time_s
        if live is None or detector in copied_live_times(m, self.detectors):
            return m.real_time_s
        return min(live, m.real_time_s)

    def aims(self) -> list[Aim]:
        """Return what each analysis that alarms is of."""
        known = {m.id for m in self.document.measurements}
        groups: dict[str, set[str]] = {}
        for m in self.document.measurements:
            for g in m.groups:
                groups.setdefault(g, set()).add(m.id)
        found = []
        for analysis in self.document.analyses:
            if analysis.alarms:
                named: set[str] = set()
                if analysis.of == "measurement":
                    named = known & set(analysis.references)
                elif analysis.of == "group":
                    named = set().union(*(groups.get(r, set()) for r in set(analysis.references)))
                # of derived data, or of nothing that is known: it may be of any passage
                found.append(Aim(analysis, frozenset(named) if named else None, analysis.of == "measurement"))
        return found


def _total(s: Spectrum, notes: list[tuple[str, str]]) -> float:
    if len(s.calibrations) <= 1:
        return max(0.0, s.total)
    counts = s.counts()
    middle = counts.size // 2
    notes.append(("portal_two_scales", "two energy scales in one spectrum; the one with more counts is taken"))
    return max(0.0, float(counts[:middle].sum()), float(counts[middle:].sum()))
