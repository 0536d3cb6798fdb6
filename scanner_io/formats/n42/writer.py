"""Documents to N42.42-2012 files that validate against the schema and the standard's Schematron rules.

The standard requires what not every source tells (a start time, a live time, an energy calibration); where that is so,
a remark says that the value stands only in its place, and the reader knows the remark. Counts that the rules allow no
place for in a measurement (a second spectrum of one detector, several counts without energy windows) are written as
derived data of the same time. Nothing that was counted is left out.

Source: ANSI N42.42-2012, n42.xsd (0.0.54), n42.sch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple, get_args
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...model import NANOSECONDS
from .document import (
    INCOMPLETE,
    METRES_PER_S,
    NO_CALIBRATION,
    UNKNOWN_LIVE_TIME,
    UNKNOWN_REAL_TIME,
    UNKNOWN_START,
    Alarm,
    Analysis,
    Calibration,
    Characteristic,
    Detector,
    Fault,
    GrossCounts,
    Instrument,
    Item,
    Measurement,
    MeasurementClass,
    N42Document,
    Nuclide,
    Spectrum,
    Version,
)

NAMESPACE = "http://physics.nist.gov/N42/2011/N42"
INSTRUMENT_CLASSES = frozenset({
    "Backpack", "Dosimeter", "Electronic Personal Emergency Radiation Detector", "Mobile System",
    "Network Area Monitor", "Neutron Handheld", "Personal Radiation Detector", "Radionuclide Identifier",
    "Portal Monitor", "Spectroscopic Portal Monitor", "Spectroscopic Personal Radiation Detector", "Gamma Handheld",
    "Transportable System", "Other",
})  # fmt: skip
DETECTOR_CATEGORIES = frozenset({"Gamma", "Neutron", "Alpha", "Beta", "X-ray", "Other"})
DETECTOR_KINDS = frozenset({
    "HPGe", "HPXe", "NaI", "LaBr3", "LaCl3", "BGO", "CZT", "CdTe", "CsI", "GMT", "GMTW", "LiFiber", "PVT", "PS", "He3",
    "He4", "LiGlass", "LiI", "SrI2", "CLYC", "CdWO4", "BF3", "HgI2", "CeBr4", "LiCAF", "LiZnS", "Other",
})  # fmt: skip
ALARM_CATEGORIES = frozenset({"Neutron", "Gamma", "Alpha", "Beta", "Isotope", "Other"})
SEVERITIES = frozenset({"Fatal", "Error", "Warning"})
VALUE_CLASSES = frozenset({
    "anyURI", "boolean", "date", "dateTime", "decimal", "double", "duration", "float", "int", "integer", "long", "Name",
    "NCName", "negativeInteger", "NonBlankString", "NonNegativeDouble", "nonNegativeInteger", "nonPositiveInteger",
    "normalizedString", "Percent", "PositiveDouble", "positiveInteger", "short", "string", "StringList", "time",
    "token", "unsignedInt", "unsignedLong", "unsignedShort", "ZeroToOneDouble", "DoubleList", "NonNegativeDoubleList",
})  # fmt: skip
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._-]")


def write(document: N42Document) -> bytes:
    """Return `document` as an N42.42-2012 file. Raises DataError if one of its values cannot be written at all."""
    return _Writer(document).document()


class _Names:
    """Ids as the schema wants them: unique in the document, of characters that a name may have."""

    def __init__(self) -> None:
        self._new: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}

    def of(self, kind: str, told: str) -> str:
        """Return the id under which `told`, of this kind, is written."""
        known = self._new.get((kind, told))
        if known is None:
            name = _NOT_IN_NAME.sub("_", told[:200])
            if not name or not (name[0].isalpha() or name[0] == "_"):
                name = f"_{name}"
            known = self._new[kind, told] = self.free(name)
        return known

    def free(self, name: str) -> str:
        """Return `name`, or one like it that is not taken, and take it."""
        count, new = self._last.get(name, 1), name
        while new in self._taken:
            count += 1
            new = f"{name}.{count}"
        self._last[name] = count
        self._taken.add(new)
        return new


class _Extra(NamedTuple):
    """Counts of a measurement that are written as derived data."""

    measurement: Measurement
    spectra: list[Spectrum]
    gross: list[GrossCounts]


class _Writer:
    def __init__(self, document: N42Document) -> None:
        self._document = document
        self._lines: list[str] = []
        self._depth = 0
        self._names = _Names()
        self._detectors = self._all_detectors()
        self._windows = {w.id: w for w in document.windows}
        self._window_order: dict[str, list[int]] = {}
        self._calibrations = {c.id: c for c in document.calibrations}
        self._calibration_names: dict[tuple[str, int], str] = {}
        self._name_calibrations()
        self._groups = list(dict.fromkeys((*document.groups, *(g for m in document.measurements for g in m.groups))))
        self._unnamed_group = ""

    # ---- elements

    def _open(self, name: str, **attributes: str) -> None:
        self._lines.append(f"{'  ' * self._depth}<{name}{_attributes(attributes)}>")
        self._depth += 1

    def _close(self, name: str) -> None:
        self._depth -= 1
        self._lines.append(f"{'  ' * self._depth}</{name}>")

    def _leaf(self, name: str, text: str, **attributes: str) -> None:
        indent = "  " * self._depth
        self._lines.append(f"{indent}<{name}{_attributes(attributes)}>{escape(_clean(text))}</{name}>")

    def _optional(self, name: str, text: str) -> None:
        if text.strip():
            self._leaf(name, text)

    def _remarks(self, remarks: Iterable[str]) -> None:
        for remark in remarks:
            self._optional("Remark", remark)

    # ---- the document

    def document(self) -> bytes:
        document = self._document
        attributes = {"xmlns": NAMESPACE}
        if re.fullmatch(r"[a-fA-F0-9]{8}(-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}", document.uuid):
            attributes["n42DocUUID"] = document.uuid
        if document.created_utc_ns is not None:
            attributes["n42DocDateTime"] = instant(document.created_utc_ns)
        self._lines.append('<?xml version="1.0" encoding="UTF-8"?>')
        self._open("RadInstrumentData", **attributes)
        self._remarks(document.remarks)
        self._remarks(f"{INCOMPLETE}{p}" for p in [p for p in document.problems if p.counts_lost][:10])
        if document.creator.strip():
            self._leaf("RadInstrumentDataCreatorName", _non_blank(document.creator))
        self._instrument(document.instrument)
        for detector in self._detectors.values():
            self._detector(detector)
        items = document.items or (
            (Item(id="item"),) if any(m.speed is not None for m in document.measurements) else ()
        )
        for item in items:
            self._item(item)
        self._item_id = items[0].id if items else ""
        self._energy()
        extras: list[_Extra] = []
        for group in self._groups:
            self._lines.append(f"  <RadMeasurementGroup id={quoteattr(self._names.of('group', group))}/>")
        for measurement in document.measurements:
            self._measurement(measurement, extras)
        for measurement in document.derived:
            self._derived(measurement.id, measurement, [*measurement.spectra], [*self._single(measurement.gross)], ())
        for number, extra in enumerate(extras, 1):
            told = f"counts of measurement {extra.measurement.id} for which the standard has no place there"
            self._derived(
                f"{extra.measurement.id}-beside-{number}", extra.measurement, extra.spectra, extra.gross, (told,)
            )
        for analysis in document.analyses:
            self._analysis(analysis)
        self._close("RadInstrumentData")
        return ("\n".join(self._lines) + "\n").encode()

    def _instrument(self, instrument: Instrument) -> None:
        self._open("RadInstrumentInformation", id=self._names.of("instrument", instrument.id))
        known = instrument.class_code in INSTRUMENT_CLASSES
        self._remarks((*instrument.remarks, *(() if known else (f"instrument class: {instrument.class_code}",))))
        self._leaf("RadInstrumentManufacturerName", _non_blank(instrument.manufacturer))
        if instrument.identifier.strip():
            self._leaf("RadInstrumentIdentifier", _non_blank(instrument.identifier))
        self._leaf("RadInstrumentModelName", _non_blank(instrument.model))
        self._optional("RadInstrumentDescription", instrument.description)
        other = "Portal Monitor" if "portal" in instrument.class_code.casefold() else "Other"
        self._leaf("RadInstrumentClassCode", instrument.class_code if known else other)
        for version in instrument.versions or (Version(component="Software", version="unknown"),):
            self._open("RadInstrumentVersion")
            self._leaf("RadInstrumentComponentName", _non_blank(version.component))
            self._leaf("RadInstrumentComponentVersion", _non_blank(version.version))
            self._close("RadInstrumentVersion")
        self._characteristics("RadInstrumentCharacteristics", instrument.characteristics)
        self._close("RadInstrumentInformation")

    def _characteristics(self, holder: str, characteristics: tuple[Characteristic, ...]) -> None:
        if not characteristics:
            return
        self._open(holder)
        for c in characteristics:
            self._open("Characteristic")
            self._leaf("CharacteristicName", _non_blank(c.name))
            self._leaf("CharacteristicValue", _non_blank(c.value))
            self._leaf("CharacteristicValueUnits", _non_blank(c.units))
            self._leaf(
                "CharacteristicValueDataClassCode", c.value_class if c.value_class in VALUE_CLASSES else "string"
            )
            self._close("Characteristic")
        self._close(holder)

    def _all_detectors(self) -> dict[str, Detector]:
        """Return the detectors by id, those included that counts refer to and nothing describes; at least one."""
        document = self._document
        found = {d.id: d for d in document.detectors}
        for m in (*document.measurements, *document.derived):
            for counts, category in ((m.spectra, "Gamma"), (m.gross, "Other")):
                for x in counts:
                    if x.detector and x.detector not in found:
                        found[x.detector] = Detector(id=x.detector, category=category)
        if any(not s.detector for m in document.measurements for s in m.spectra) or not found:
            found.setdefault("unnamed", Detector(id="unnamed", description="no detector is named"))
        return found

    def _detector(self, detector: Detector) -> None:
        self._open("RadDetectorInformation", id=self._names.of("detector", detector.id))
        self._optional("RadDetectorName", detector.name)
        category = detector.category if detector.category in DETECTOR_CATEGORIES else "Other"
        kind = detector.kind if detector.kind in DETECTOR_KINDS else "Other"
        self._leaf("RadDetectorCategoryCode", category)
        self._leaf("RadDetectorKindCode", kind)
        words = [detector.description] if detector.description.strip() else []
        words += [f"category {detector.category}"] if category != detector.category else []
        words += [f"kind {detector.kind}"] if kind != detector.kind else []
        if not words and "Other" in (category, kind):
            words = ["not described"]
        self._optional("RadDetectorDescription", "; ".join(words))
        self._close("RadDetectorInformation")

    def _item(self, item: Item) -> None:
        self._open("RadItemInformation", id=self._names.of("item", item.id))
        self._optional("RadItemDescription", item.description)
        self._characteristics("RadItemCharacteristics", item.characteristics)
        self._close("RadItemInformation")

    # ---- energies

    def _energy(self) -> None:
        for windows in self._document.windows:
            pairs = list(zip(windows.start_kev, windows.end_kev, strict=True))
            if not pairs or any(not 0 <= low < high for low, high in pairs):
                continue  # their counts are written one by one
            order = sorted(range(len(pairs)), key=lambda i: pairs[i])
            self._window_order[windows.id] = order
            self._open("EnergyWindows", id=self._names.of("windows", windows.id))
            self._leaf("WindowStartEnergyValues", _list([pairs[i][0] for i in order]))
            self._leaf("WindowEndEnergyValues", _list([pairs[i][1] for i in order]))
            self._close("EnergyWindows")
        for (identifier, channels), name in self._calibration_names.items():
            self._calibration(name, self._calibrations.get(identifier), channels)

    def _name_calibrations(self) -> None:
        """Name the calibrations to write: one per number of channels where boundaries must be written."""
        found: dict[str, set[int]] = {c.id: set() for c in self._document.calibrations}
        for m in (*self._document.measurements, *self._document.derived):
            for s in m.spectra:
                identifier = s.calibrations[0] if s.calibrations and s.calibrations[0] in self._calibrations else ""
                found.setdefault(identifier, set()).add(_channels(s))
        for identifier, channels in found.items():
            calibration = self._calibrations.get(identifier)
            if calibration is not None and (len(calibration.coefficients) > 3 or calibration.boundaries_kev):
                for n in sorted(channels) or [0]:
                    name = self._names.of("calibration", identifier)
                    if len(channels) > 1:
                        name = self._names.of("calibration", f"{identifier}-{n}")
                    self._calibration_names[identifier, n] = name
            else:
                self._calibration_names[identifier, 0] = self._names.of("calibration", identifier or "no-calibration")

    def _calibration(self, name: str, calibration: Calibration | None, channels: int) -> None:
        coefficients = calibration.coefficients if calibration is not None else ()
        boundaries = calibration.boundaries_kev if calibration is not None else ()
        if len(coefficients) > 3 and channels:
            with np.errstate(over="ignore", invalid="ignore"):
                energies = np.polynomial.polynomial.polyval(np.arange(channels + 1.0), coefficients)
            boundaries = tuple(energies.tolist())
        fits = len(boundaries) == channels + 1 if channels else len(boundaries) > 1
        if fits and boundaries[0] >= 0 and np.isfinite(boundaries).all() and (np.diff(boundaries) > 0).all():
            text = f"polynomial with the coefficients {_list(coefficients)}" if coefficients else ""
            self._open("EnergyCalibration", id=name)
            self._optional("Remark", text)
            self._leaf("EnergyBoundaryValues", _list(boundaries))
        else:
            text = f"further coefficients: {_list(coefficients)}" if len(coefficients) > 3 else ""
            self._open("EnergyCalibration", id=name)
            self._optional("Remark", text if coefficients else NO_CALIBRATION)
            self._leaf("CoefficientValues", _list([*coefficients[:3], 0.0, 0.0, 0.0][:3]))
        self._close("EnergyCalibration")

    def _calibration_name(self, spectrum: Spectrum) -> str:
        identifier = spectrum.calibrations[0] if spectrum.calibrations else ""
        if identifier not in self._calibrations:
            identifier = ""
        named = self._calibration_names.get((identifier, _channels(spectrum)))
        return named or self._calibration_names[identifier, 0]

    # ---- measurements

    def _measurement(self, m: Measurement, extras: list[_Extra]) -> None:
        """Write a measurement; what the rules allow no place for in it goes to `extras`."""
        spectra, more_spectra = _once(m.spectra)
        gross, more_gross = _once([g for g in m.gross if self._fits(g)])
        more_gross += self._single([g for g in m.gross if not self._fits(g)])
        if more_spectra or more_gross:
            extras.append(_Extra(m, more_spectra, more_gross))
        attributes = {"id": self._names.of("measurement", m.id)}
        if m.groups:
            attributes["radMeasurementGroupReferences"] = " ".join(self._names.of("group", g) for g in m.groups)
        self._open("RadMeasurement", **attributes)
        self._head(m, m.remarks)
        self._counts(m, spectra, gross, "unnamed")
        self._states(m)
        if m.occupied is not None:
            self._leaf("OccupancyIndicator", "true" if m.occupied else "false")
        self._close("RadMeasurement")

    def _derived(
        self, identifier: str, m: Measurement, spectra: list[Spectrum], gross: list[GrossCounts], told: tuple[str, ...]
    ) -> None:
        self._open("DerivedData", id=self._names.of("measurement", identifier))
        self._head(m, told or m.remarks)
        self._counts(m, spectra, gross)
        self._close("DerivedData")

    def _head(self, m: Measurement, remarks: tuple[str, ...]) -> None:
        start, real_time_s = m.start_utc_ns, m.real_time_s
        unknown = [UNKNOWN_START] if start is None else []
        if real_time_s is None or real_time_s <= 0:
            unknown.append(UNKNOWN_REAL_TIME)
            lives = [x.live_time_s for x in m.counts if x.live_time_s]
            real_time_s = max(lives, default=1.0)
        self._remarks((*remarks, *unknown))
        known: tuple[MeasurementClass, ...] = get_args(MeasurementClass)
        self._leaf("MeasurementClassCode", m.class_code if m.class_code in known else "NotSpecified")
        self._leaf("StartDateTime", instant(start if start is not None else self._document.created_utc_ns or 0))
        self._leaf("RealTimeDuration", duration(real_time_s))

    def _counts(self, m: Measurement, spectra: list[Spectrum], gross: list[GrossCounts], unnamed: str = "") -> None:
        """Write spectra and counts. unnamed : detector of a spectrum that names none"""
        for s in spectra:
            attributes = {"id": self._names.free(f"{self._names.of('measurement', m.id)}-S")}
            if detector := s.detector or unnamed:
                attributes["radDetectorInformationReference"] = self._names.of("detector", detector)
            attributes["energyCalibrationReference"] = self._calibration_name(s)
            self._open("Spectrum", **attributes)
            further = (
                (f"further energy scales, end to end: {' '.join(s.calibrations[1:])}",) if s.calibrations[1:] else ()
            )
            self._live_time(m, s.live_time_s, (*s.remarks, *further))
            self._leaf("ChannelData", _list(s.counted), compressionCode="CountedZeroes")
            self._close("Spectrum")
        for g in gross:
            attributes = {"id": self._names.free(f"{self._names.of('measurement', m.id)}-G")}
            attributes["radDetectorInformationReference"] = self._names.of("detector", g.detector)
            counts = list(g.counts)
            if g.windows in self._window_order and len(counts) == len(self._window_order[g.windows]):
                attributes["energyWindowsReference"] = self._names.of("windows", g.windows)
                counts = [counts[i] for i in self._window_order[g.windows]]
            self._open("GrossCounts", **attributes)
            self._live_time(m, g.live_time_s, g.remarks)
            self._leaf("CountData", _list(counts))
            if g.total is not None:
                self._leaf("TotalCountData", _list([g.total]))
            self._close("GrossCounts")

    def _live_time(self, m: Measurement, live_time_s: float | None, remarks: tuple[str, ...]) -> None:
        if live_time_s is None:
            remarks = (*remarks, UNKNOWN_LIVE_TIME)
            live_time_s = m.real_time_s or 0.0
        self._remarks(remarks)
        self._leaf("LiveTimeDuration", duration(live_time_s))

    def _fits(self, g: GrossCounts) -> bool:
        """Return True if the rules have a place for these counts: one, or one per window."""
        order = self._window_order.get(g.windows)
        return len(g.counts) == 1 if order is None else len(g.counts) == len(order)

    def _single(self, gross: Iterable[GrossCounts]) -> list[GrossCounts]:
        """Return counts without windows one by one, each with a remark."""
        found = []
        for g in gross:
            if self._fits(g):
                found.append(g)
                continue
            for number, count in enumerate(g.counts, 1):
                told = (*g.remarks, f"count {number} of {len(g.counts)}, of energies that are not known")
                found.append(GrossCounts(detector=g.detector, counts=(count,), live_time_s=g.live_time_s, remarks=told))
        return found

    def _states(self, m: Measurement) -> None:
        own = [f for f in m.faults if f.source not in self._detectors]
        if own:
            instrument = self._names.of("instrument", self._document.instrument.id)
            self._open("RadInstrumentState", radInstrumentInformationReference=instrument)
            self._faults(own)
            self._close("RadInstrumentState")
        for detector in dict.fromkeys(f.source for f in m.faults if f.source in self._detectors):
            self._open("RadDetectorState", radDetectorInformationReference=self._names.of("detector", detector))
            self._faults([f for f in m.faults if f.source == detector])
            self._close("RadDetectorState")
        if m.speed is not None:
            self._open("RadItemState", radItemInformationReference=self._names.of("item", self._item_id))
            self._open("StateVector")
            factor = METRES_PER_S.get(m.speed_unit.strip().lower())
            if factor is None:  # a unit that is not known must not become one that is
                self._leaf("SpeedValue", _number(m.speed), **({"units": m.speed_unit} if m.speed_unit else {}))
            else:
                self._leaf("SpeedValue", _number(m.speed * factor), units="m/s")
            self._close("StateVector")
            self._close("RadItemState")

    def _faults(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self._open("Fault")
            self._leaf("FaultCodeValue", fault.code or "unknown")
            self._leaf("FaultDescription", fault.description or "not described")
            self._leaf("FaultSeverityCode", fault.severity if fault.severity in SEVERITIES else "Error")
            self._close("Fault")

    # ---- results

    def _analysis(self, analysis: Analysis) -> None:
        known = {
            "group": set(self._groups),
            "measurement": {m.id for m in self._document.measurements},
            "derived": {m.id for m in self._document.derived},
        }[analysis.of]
        references = [r for r in analysis.references if r in known]
        kind, attribute = {
            "group": ("group", "radMeasurementGroupReferences"),
            "measurement": ("measurement", "radMeasurementReferences"),
            "derived": ("measurement", "derivedDataReferences"),
        }[analysis.of]
        told: tuple[str, ...] = ()
        if references:
            names = [self._names.of(kind, r) for r in references]
        else:
            attribute, told = "radMeasurementGroupReferences", ("the source names no data that these results are of",)
            names = [self._group_of_nothing()]
        self._open("AnalysisResults", **{attribute: " ".join(names)})
        self._remarks((*analysis.remarks, *told))
        if analysis.start_utc_ns is not None:
            self._leaf("AnalysisStartDateTime", instant(analysis.start_utc_ns))
        self._optional("AnalysisAlgorithmName", analysis.algorithm)
        self._optional("AnalysisResultDescription", analysis.conclusion)
        for alarm in analysis.alarms:
            self._alarm(alarm)
        if analysis.nuclides:
            self._open("NuclideAnalysisResults")
            for nuclide in analysis.nuclides:
                self._nuclide(nuclide)
            self._close("NuclideAnalysisResults")
        self._faults(analysis.faults)
        self._close("AnalysisResults")

    def _group_of_nothing(self) -> str:
        if not self._unnamed_group:
            self._unnamed_group = self._names.free("no-data")
            self._lines.append(f"  <RadMeasurementGroup id={quoteattr(self._unnamed_group)}/>")
        return self._unnamed_group

    def _alarm(self, alarm: Alarm) -> None:
        known = alarm.category in ALARM_CATEGORIES
        named = [d for d in alarm.detectors if d in self._detectors]
        if not named:  # the schema requires one: those that could have raised it
            named = [d.id for d in self._detectors.values() if d.category == alarm.category] or [*self._detectors]
        names = " ".join(self._names.of("detector", d) for d in named)
        self._open("RadAlarm", radDetectorInformationReferences=names)
        if alarm.utc_ns is not None:
            self._leaf("RadAlarmDateTime", instant(alarm.utc_ns))
        self._leaf("RadAlarmCategoryCode", alarm.category if known else "Other")
        words = alarm.description if known else f"{alarm.category}: {alarm.description}"
        self._optional("RadAlarmDescription", words or ("not described" if alarm.category == "Other" else ""))
        self._optional("RadAlarmLightColor", alarm.light_color)
        self._close("RadAlarm")

    def _nuclide(self, nuclide: Nuclide) -> None:
        self._open("Nuclide")
        if nuclide.identified is None:
            self._leaf("Remark", "whether it was identified is not told; true is written in its place")
        self._leaf("NuclideIdentifiedIndicator", "false" if nuclide.identified is False else "true")
        self._leaf("NuclideName", _non_blank(nuclide.name))
        confidence = nuclide.confidence
        if confidence is not None and 0 <= confidence <= 100:
            self._leaf("NuclideIDConfidenceValue", _number(confidence))
        if nuclide.confidence_text or confidence is None or not 0 <= confidence <= 100:
            told = nuclide.confidence_text or ("not told" if confidence is None else _number(confidence))
            self._leaf("NuclideIDConfidenceDescription", told)
        self._optional("NuclideCategoryDescription", nuclide.category)
        self._close("Nuclide")


# --------------------------------------------------------------------------------------------------------------
# Values to texts


def _once(things: Iterable[Spectrum | GrossCounts]) -> tuple[list, list]:  # type: ignore[type-arg]
    """Return the first of each detector, and all others."""
    first: dict[str, Spectrum | GrossCounts] = {}
    others = [x for x in things if first.setdefault(x.detector, x) is not x]
    return list(first.values()), others


def _channels(spectrum: Spectrum) -> int:
    zeros = np.flatnonzero(spectrum.counted == 0)
    return int(spectrum.counted.size - 2 * zeros.size + spectrum.counted[zeros + 1].sum())


def _clean(text: str) -> str:
    """Return a text without characters that XML cannot hold."""
    return _ILLEGAL.sub("�", text)


def _attributes(attributes: dict[str, str]) -> str:
    return "".join(f" {name}={quoteattr(_clean(value))}" for name, value in attributes.items())


def _non_blank(text: str) -> str:
    """Return a text as the schema's NonBlankString has it: its punctuation in one word. "unknown" for no text."""
    words = _clean(text).split()
    punctuated = sum(not word.isalnum() for word in words)
    return (" " if punctuated <= 1 else "_").join(words) or "unknown"


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise DataError(f"N42: {value} cannot be written, expected a finite number")
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _list(values: Iterable[float] | npt.NDArray[np.float64]) -> str:
    return " ".join(map(_number, np.asarray(list(values), np.float64).tolist()))


def duration(seconds: float) -> str:
    """Return seconds as an XML duration, e.g. `PT0.1S`."""
    if not 0 <= seconds < math.inf:
        raise DataError(f"N42: {seconds} s cannot be written as a duration, expected 0 or more")
    return f"PT{Decimal(repr(float(seconds))):f}S"


def instant(utc_ns: int) -> str:
    """Return an instant as XML has it, to the nanosecond where it has any. Raises DataError beyond the calendar."""
    seconds, rest = divmod(utc_ns, NANOSECONDS)
    try:
        text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
    except (ValueError, OverflowError, OSError) as error:
        raise DataError(f"N42: {utc_ns} ns since 1970 is no instant that can be written ({error})") from error
    return f"{text}.{rest:09d}".rstrip("0").rstrip(".") + "Z"
