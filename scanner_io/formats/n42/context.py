"""What reading one document needs at every element: its settings, its report, the parts referred to, values checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from ...errors import DataError
from . import values
from .document import METRES_PER_S, Calibration, Detector, EnergyWindows, Measurement, MeasurementClass
from .tree import Node, Report

MAX_MEASUREMENTS = 100_000
MAX_GROSS_COUNTS = 5_000_000
"""Gross counts of one file: a short number becomes an object of many times its size."""
_CLASSES: dict[str, MeasurementClass] = {c.casefold(): c for c in get_args(MeasurementClass)}
_T = TypeVar("_T")
_Part = TypeVar("_Part", Detector, EnergyWindows, Calibration)
_SPEED = re.compile(r"\bspeed\b\D{0,20}?(\d+(?:\.\d+)?)\s*(mph|mi/h|km/h|kmh|kph|m/s|cm/s|ft/s)?", re.IGNORECASE)


class N42Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an N42 file leaves open.

    utc_offset_h : hours east of UTC where an instant does not name its zone
    speed_unit : of a SpeedValue without unit. The schema says m/s; not every instrument keeps to it
    """

    utc_offset_h: float = 0.0
    speed_unit: str = "m/s"

    def __post_init__(self) -> None:
        """Check. Raises DataError."""
        if not -24 <= self.utc_offset_h <= 24:
            raise DataError(f"N42 utc_offset_h {self.utc_offset_h}, expected hours from -24 to 24")
        if self.speed_unit.lower() not in METRES_PER_S:
            raise DataError(f"N42 speed_unit {self.speed_unit!r}, expected one of {', '.join(METRES_PER_S)}")


class Context:
    """Reads values of elements; notes in the report what cannot be read."""

    def __init__(self, report: Report, settings: N42Settings, room: list[int]) -> None:
        self.report = report
        self.settings = settings
        self.detectors: dict[str, Detector] = {}
        self.windows: dict[str, EnergyWindows] = {}
        self.calibrations: dict[str, Calibration] = {}
        self.groups: dict[str, None] = {}
        self._by_coefficients: dict[tuple[str, tuple[float, ...]], str] = {}
        self._ids: set[str] = set()
        self._taken = 1
        self._room = room  # gross counts that may still be read; all documents of a file share it
        self._zoneless = False
        self._copied = False

    def _value(
        self, node: Node | None, parse: Callable[[str], _T], what: str = "the value", *, lost: bool = False
    ) -> _T | None:
        """Return the parsed text of `node`, None where it is absent, cut off or unreadable."""
        if node is None:
            return None
        try:
            if node.broken:
                raise ValueError("cut off")
            return parse(node.text)
        except ValueError as error:
            self.report.add(node.line, node.name, f"{error}; {what} is not known", lost=lost)
            return None

    def number(self, node: Node | None) -> float | None:
        """Return a number."""
        return self._value(node, values.number)

    def numbers(self, node: Node | None) -> npt.NDArray[np.float64] | None:
        """Return a list of numbers."""
        return self._value(node, values.numbers, "the list")

    def boolean(self, node: Node | None) -> bool | None:
        """Return a boolean."""
        return self._value(node, values.boolean)

    def occupancy(self, node: Node | None) -> bool | None:
        """Return an occupancy indicator; a slice that nobody can tell occupied may hide a passage."""
        return self._value(node, values.boolean, "occupied or not", lost=True)

    def duration(self, node: Node | None) -> float | None:
        """Return seconds; a bare number is taken for them, and that is noted."""
        if node is not None and not node.broken and (found := values.bare_seconds(node.text)) is not None:
            text = f"{node.text[:40]!r} is a bare number; taken for seconds"
            self.report.add(node.line, node.name, text, harmless=True)
            return found
        return self._value(node, values.duration_s, "the time")

    def instant(self, text: str, node: Node, where: str) -> int | None:
        """Return UTC nanoseconds."""
        try:
            utc_ns, zoned = values.instant_ns(text.strip(), self.settings.utc_offset_h)
        except ValueError as error:
            self.report.add(node.line, where, f"{error}; the time is not known")
            return None
        if not zoned and not self._zoneless:
            self._zoneless = True
            words = f"no time zone; {self.settings.utc_offset_h:+g} h from UTC assumed, here and further on"
            self.report.add(node.line, where, words, harmless=True)
        return utc_ns

    def start(self, node: Node | None, holder: Node) -> int | None:
        """Return when a measurement began."""
        if node is None or node.broken:
            self.report.add(holder.line, holder.name, "tells no start time")
            return None
        return self.instant(node.text, node, node.name)

    def class_code(self, node: Node | None, holder: Node) -> MeasurementClass:
        """Return the class of a measurement."""
        text = node.text if node is not None else ""
        if (found := _CLASSES.get(text.casefold())) is None:
            words = f"measurement class {text[:40]!r}; NotSpecified assumed"
            self.report.add(holder.line, holder.name, words, harmless=not text)
        return found or "NotSpecified"

    def by_id(self, node: Node, parts: dict[str, _Part], part: _Part) -> None:
        """Add a part to those of its kind; of two under one id the first is kept, and that is told if they differ."""
        if parts.setdefault(part.id, part) != part:
            self.report.add(node.line, node.name, f"id {part.id!r} stands for another already, which is kept")

    def identify(self, node: Node, kind: str) -> str:
        """Return the id of a measurement, one of its own where it has none or another's. Raises DataError."""
        if len(self._ids) >= MAX_MEASUREMENTS:
            raise DataError(f"line {node.line}: more than {MAX_MEASUREMENTS} measurements; split the file")
        told = node.attributes.get("id", "").strip()
        identifier = told or f"{kind}-{len(self._ids) + 1}"
        while identifier in self._ids:
            identifier = f"{told[:200]}-{len(self._ids) + self._taken}"
            self._taken += 1
        if told and identifier != told:
            self.report.add(node.line, node.name, f"id {told!r} is taken already; {identifier!r} here")
        self._ids.add(identifier)
        return identifier

    def detector(self, node: Node, category: str, name: str = "") -> str:
        """Return the id of the detector that `node` refers to; one that is nowhere described is noted and added.

        category : taken for one that is not described
        """
        told = name or node.attributes.get("radDetectorInformationReference", "").strip()
        if not told:
            fitting = [d.id for d in self.detectors.values() if d.category == category]
            told = fitting[0] if len(fitting) == 1 else "unnamed"
            self.report.add(node.line, node.name, f"names no detector; {told!r} assumed")
        if told not in self.detectors:
            self.report.add(node.line, node.name, f"detector {told!r} is not described; {category} assumed")
            self.detectors[told] = Detector(id=told, category=category)
        return told

    def calibration(self, told: str, coefficients: tuple[float, ...]) -> str:
        """Return the id of a calibration, of an equal one where there is one already."""
        known = self._by_coefficients.get((told, coefficients))
        if known is not None:
            return known
        identifier = (
            told if told and told not in self.calibrations else f"{told or 'energy'}-{len(self.calibrations) + 1}"
        )
        self.calibrations[identifier] = Calibration(id=identifier, coefficients=coefficients)
        self._by_coefficients[told, coefficients] = identifier
        return identifier

    def counts(self, node: Node | None, holder: Node) -> npt.NDArray[np.float64] | None:
        """Return counts 0 or more; where they cannot be read, say that they are lost."""
        counts = self._list(node, holder, self._numbers_of_counts)
        if counts is not None:
            self._room[0] -= counts.size
            if self._room[0] < 0:
                raise DataError(f"line {holder.line}: more than {MAX_GROSS_COUNTS} gross counts; split the file")
        return counts

    def counted(self, node: Node | None, holder: Node) -> npt.NDArray[np.float64] | None:
        """Return a spectrum in counted-zeroes form; where it cannot be read, say that it is lost."""
        found = self._list(node, holder, self._channels)
        if found is not None and (found < 0).any():
            text = f"a channel of {found.min():g} counts: not counted but computed"
            self.report.add(holder.line, holder.name, text)
        return found

    def _list(
        self, node: Node | None, holder: Node, parse: Callable[[Node], npt.NDArray[np.float64]]
    ) -> npt.NDArray[np.float64] | None:
        if node is None or node.broken:
            text = "no counts" if node is None else "cut off inside the counts"
            self.report.add(holder.line, holder.name, text, lost=node is not None or holder.broken)
            return None
        try:
            return parse(node)
        except ValueError as error:
            self.report.add(node.line, node.name, f"{error}; these counts are not read", lost=True)
            return None

    @staticmethod
    def _numbers_of_counts(node: Node) -> npt.NDArray[np.float64]:
        counts = values.numbers(node.text)
        if not counts.size:
            raise ValueError("no counts")
        if (counts < 0).any():
            raise ValueError(f"a count of {counts.min():g}")
        return counts

    def _channels(self, node: Node) -> npt.NDArray[np.float64]:
        plain = {k: v for k, v in node.attributes.items() if ":" not in k and k != "xmlns"}
        if unknown := plain.keys() - {"compressionCode", "Compression"}:
            raise ValueError(f"attribute {min(unknown)[:40]!r} is not known: it may tell of a compression")
        told = plain.get("compressionCode") or plain.get("Compression") or "None"
        code = told.strip().casefold()
        found = values.numbers(node.text)
        if not found.size:
            raise ValueError("no channels")
        if code == "none":
            return values.as_counted_zeroes(found)
        if code not in ("countedzeroes", "countedzeros"):
            raise ValueError(f"compression {told[:40]!r} is not known")
        found, lone = values.counted_zeroes(found)
        if lone:
            self.report.add(node.line, node.name, "ends in a 0 without the length of its run; 1 assumed")
        return found

    def speed_in(self, remarks: tuple[str, ...]) -> tuple[float | None, str]:
        """Return a speed that stands only in a remark, and its unit."""
        for remark in remarks:
            if match := _SPEED.search(remark[:1000]):
                return float(match[1]), match[2] or ""
        return None, ""

    def check_live_times(self, measurement: Measurement, line: int) -> None:
        """Note a live time beyond the real time, and a neutron detector's that was copied from a gamma detector."""
        real = measurement.real_time_s
        every = [(x.detector, x.live_time_s) for x in measurement.counts]
        times = [(detector, live) for detector, live in every if live is not None]
        if real is None:
            return
        # detectors of one slice are not read at the same instant: up to 50 ms apart
        beyond = [f"{d} {t:g} s" for d, t in times if t > real + 0.06]
        if beyond:
            text = f"live times beyond the real time of {real:g} s: {', '.join(beyond[:4])}"
            self.report.add(line, measurement.id, text)
        if not self._copied and (copied := copied_live_times(measurement, self.detectors)):
            self._copied = True
            text = f"live time of {', '.join(sorted(copied)[:4])} is a gamma detector's; the real time tells its rate"
            self.report.add(line, measurement.id, text, harmless=True)


def copied_live_times(measurement: Measurement, detectors: dict[str, Detector]) -> set[str]:
    """Return the neutron detectors whose live time was copied from a gamma detector.

    A tube has no dead time to speak of: to the last digit the live time of a gamma detector that was not always live,
    it is that detector's.
    """
    real = measurement.real_time_s
    neutron = {d for d, x in detectors.items() if x.category == "Neutron"}
    gamma = {x.live_time_s for x in measurement.counts if x.detector not in neutron and x.live_time_s} - {real}
    return {g.detector for g in measurement.gross if g.detector in neutron and g.live_time_s in gamma}
