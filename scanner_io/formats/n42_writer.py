"""N42 documents to files of ANSI N42.42-2012, valid against its schema and its Schematron rules.

What the schema asks for and the document does not tell is written as "not told", never as a made-up value; where that
is not possible (the time of a slice) the document is refused. Ids that XML does not allow are changed, all references
with them.

Source: ANSI N42.42-2012, `n42.xsd` 0.0.54, Annex M.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..model import NANOSECONDS
from .n42_document import (
    NAMESPACE_2011,
    Alarm,
    AnalysisResults,
    Characteristic,
    Detector,
    Document,
    EnergyCalibration,
    Fault,
    GrossCounts,
    Instrument,
    Item,
    Measurement,
    Nuclide,
    Spectrum,
)

NOT_TOLD = "not told"

CLASS_CODES = (
    "Backpack", "Dosimeter", "Electronic Personal Emergency Radiation Detector", "Mobile System",
    "Network Area Monitor", "Neutron Handheld", "Personal Radiation Detector", "Radionuclide Identifier",
    "Portal Monitor", "Spectroscopic Portal Monitor", "Spectroscopic Personal Radiation Detector", "Gamma Handheld",
    "Transportable System", "Other",
)  # fmt: skip
DETECTOR_CATEGORIES = ("Gamma", "Neutron", "Alpha", "Beta", "X-ray", "Other")
DETECTOR_KINDS = (
    "HPGe", "HPXe", "NaI", "LaBr3", "LaCl3", "BGO", "CZT", "CdTe", "CsI", "GMT", "GMTW", "LiFiber", "PVT", "PS", "He3",
    "He4", "LiGlass", "LiI", "SrI2", "CLYC", "CdWO4", "BF3", "HgI2", "CeBr4", "LiCAF", "LiZnS", "Other",
)  # fmt: skip
MEASUREMENT_CLASSES = ("Foreground", "Background", "Calibration", "IntrinsicActivity", "NotSpecified")
ALARM_CATEGORIES = ("Neutron", "Gamma", "Alpha", "Beta", "Isotope", "Other")
DATA_CLASSES = frozenset({
    "anyURI", "base64Binary", "boolean", "byte", "date", "dateTime", "decimal", "double", "DoubleList", "duration",
    "float", "hexBinary", "ID", "IDREF", "IDREFS", "int", "integer", "long", "Name", "NCName", "negativeInteger",
    "NonBlankString", "NonNegativeDoubleList", "NonNegativeDouble", "nonNegativeInteger", "nonPositiveInteger",
    "normalizedString", "Percent", "PositiveDoubleList", "PositiveDouble", "positiveInteger", "PositiveIntegerList",
    "short", "string", "StringList", "time", "token", "unsignedByte", "unsignedInt", "unsignedLong", "unsignedShort",
    "ZeroToOneDouble",
})  # fmt: skip

_METRES_PER_SECOND = {"m/s": 1.0, "km/h": 1 / 3.6, "kmh": 1 / 3.6, "kph": 1 / 3.6, "mph": 0.44704}
_UUID = re.compile(r"[a-fA-F0-9]{8}(-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(document: Document) -> bytes:
    """Return `document` as an N42.42-2012 file in UTF-8.

    Raises DataError where a valid file cannot say it: a slice without time, two counts of one sort of one detector in
    a slice, several counts without energy windows, results without measurements.
    """
    return _Writer(document).file()


def _text(text: str) -> str:
    """Return text that XML can hold."""
    return _NOT_XML.sub("\ufffd", text)


def _told(text: str) -> str:
    """Return text as the schema's NonBlankString takes it.

    Its pattern has room for one stretch of punctuation only: "a-b c-d" passes with spaces that do not break.
    """
    text = re.sub("[ \t\r\n]+", " ", _text(text)).strip(" ") or NOT_TOLD
    return text if re.fullmatch("[A-Za-z0-9 ]*[^ ]+[A-Za-z0-9 ]*", text) else text.replace(" ", "\u00a0")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _numbers(values: Any) -> str:
    return " ".join(_number(v) for v in values)


def _duration(seconds: float) -> str:
    digits = f"{seconds:.9f}".rstrip("0").rstrip(".")
    return f"PT{digits}S"


def _date_time(utc_ns: int) -> str:
    seconds, rest = divmod(utc_ns, NANOSECONDS)
    at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z" if at.year >= 1000 else f"{at.isoformat()[:19]}{fraction}Z"


def _zero_runs(counts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return `(runs, 2) int64`, the half-open ranges of zeroes."""
    zero = np.concatenate(([False], counts == 0, [False])).astype(np.int8)
    return np.flatnonzero(np.diff(zero)).reshape(-1, 2)


def _zero_runs_pay(counts: npt.NDArray[Any]) -> bool:
    """Return True if CountedZeroes takes fewer characters."""
    lengths = np.diff(_zero_runs(counts), axis=1)
    digits = sum(int((lengths >= 10**power).sum()) for power in range(6))
    return 2 * lengths.size + digits < int((2 * lengths - 1).sum())


def compress_zeroes(counts: npt.NDArray[Any]) -> str:
    """Return `(channels,)` counts as CountedZeroes text: each run of zeroes as 0 and its length.

    Source: ANSI N42.42-2012, ChannelData compressionCode.
    """
    parts: list[str] = []
    at = 0
    for first, end in _zero_runs(counts).tolist():
        parts += [_number(v) for v in counts[at:first].tolist()]
        parts.append(f"0 {end - first}")
        at = end
    parts += [_number(v) for v in counts[at:].tolist()]
    return " ".join(parts)


class _Ids:
    """Ids of the file: every one an XML name, none twice. An id is known by its kind and its name in the document."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._used: set[str] = set()

    def new(self, kind: str, name: str) -> str:
        """Return the id for a new thing; the first of a name is the one that references mean."""
        clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name) or kind
        clean = clean if re.match(r"[A-Za-z_]", clean) else f"_{clean}"
        made, n = clean, 1
        while made in self._used:
            n += 1
            made = f"{clean}-{n}"
        self._used.add(made)
        self._given.setdefault((kind, name), made)
        return made

    def get(self, kind: str, name: str) -> str | None:
        return self._given.get((kind, name)) if name else None

    def all(self, kind: str, names: tuple[str, ...]) -> str:
        return " ".join(i for n in names if (i := self.get(kind, n)))


class _Writer:
    """One document on its way to a file."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._ids = _Ids()
        self._root = Element("RadInstrumentData", {"xmlns": NAMESPACE_2011})
        self._item = ""
        self._made: dict[tuple[str, int], str] = {}
        self._written: dict[str, list[str]] = {"RadMeasurement": [], "DerivedData": []}
        self._windows = {w.id: len(w.start_kev) for w in document.windows}
        self._calibrations = {c.id: c for c in document.calibrations}

    def file(self) -> bytes:
        d, root = self._document, self._root
        if _UUID.fullmatch(d.uuid):
            root.set("n42DocUUID", d.uuid)
        self._remarks(root, (*d.remarks, *(f"reader: {p}" for p in d.problems)))
        self._instrument(d.instrument)
        if not d.detectors:
            raise DataError("N42 document without detectors: the standard asks for at least one; nothing to write")
        for detector in d.detectors:
            self._detector(detector)
        for item in d.items:
            self._add_item(item)
        if not d.items and any(m.speed is not None for m in d.measurements):
            self._add_item(Item(id="Item", description="measured item"))
        for w in d.windows:
            e = SubElement(root, "EnergyWindows", {"id": self._ids.new("windows", w.id)})
            SubElement(e, "WindowStartEnergyValues").text = _numbers(w.start_kev)
            SubElement(e, "WindowEndEnergyValues").text = _numbers(w.end_kev)
        for group in dict.fromkeys((*d.groups, *(g for m in d.measurements for g in m.groups))):
            SubElement(root, "RadMeasurementGroup", {"id": self._ids.new("group", group)})
        for m in d.measurements:
            self._measurement(m)
        for results in d.results:
            self._results(results)
        indent(root)
        body: bytes = tostring(root, encoding="utf-8")
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + body + b"\n"

    # ---- who measures what

    def _remarks(self, parent: Element, remarks: tuple[str, ...]) -> None:
        for remark in remarks:
            SubElement(parent, "Remark").text = _text(remark)

    def _optional(self, parent: Element, name: str, text: str) -> None:
        if text.strip():
            SubElement(parent, name).text = _told(text)

    def _instrument(self, i: Instrument) -> None:
        e = SubElement(self._root, "RadInstrumentInformation", {"id": self._ids.new("instrument", i.id)})
        SubElement(e, "RadInstrumentManufacturerName").text = _told(i.manufacturer)
        self._optional(e, "RadInstrumentIdentifier", i.identifier)
        SubElement(e, "RadInstrumentModelName").text = _told(i.model)
        self._optional(e, "RadInstrumentDescription", i.description)
        SubElement(e, "RadInstrumentClassCode").text = _class_code(i.class_code)
        for name, version in i.versions or (("Software", NOT_TOLD),):
            v = SubElement(e, "RadInstrumentVersion")
            SubElement(v, "RadInstrumentComponentName").text = _told(name)
            SubElement(v, "RadInstrumentComponentVersion").text = _told(version)
        self._characteristics(e, "RadInstrumentCharacteristics", i.characteristics)

    def _characteristics(self, parent: Element, name: str, told: tuple[Characteristic, ...]) -> None:
        holder = SubElement(parent, name) if told else parent
        for c in told:
            e = SubElement(holder, "Characteristic")
            SubElement(e, "CharacteristicName").text = _told(c.name)
            SubElement(e, "CharacteristicValue").text = _told(c.value)
            SubElement(e, "CharacteristicValueUnits").text = _told(c.units) if c.units.strip() else "unit-less"
            SubElement(e, "CharacteristicValueDataClassCode").text = (
                c.data_class if c.data_class in DATA_CLASSES else "string"
            )

    def _detector(self, d: Detector) -> None:
        e = SubElement(self._root, "RadDetectorInformation", {"id": self._ids.new("detector", d.id)})
        category = d.category if d.category in DETECTOR_CATEGORIES else "Other"
        kind = d.kind if d.kind in DETECTOR_KINDS else next((k for k in DETECTOR_KINDS if k in d.description), "Other")
        self._optional(e, "RadDetectorName", d.name)
        SubElement(e, "RadDetectorCategoryCode").text = category
        SubElement(e, "RadDetectorKindCode").text = kind
        description = d.description.strip() or ("" if "Other" not in (category, kind) else d.kind.strip() or NOT_TOLD)
        self._optional(e, "RadDetectorDescription", description)

    def _add_item(self, item: Item) -> None:
        made = self._ids.new("item", item.id)
        self._item = self._item or made
        e = SubElement(self._root, "RadItemInformation", {"id": made})
        self._optional(e, "RadItemDescription", item.description)
        self._characteristics(e, "RadItemCharacteristics", item.characteristics)

    # ---- measurements

    def _measurement(self, m: Measurement) -> None:
        if m.start_utc_ns is None or not m.real_time_s or m.real_time_s < 1e-9:
            raise DataError(f"N42 measurement {m.id[:60]!r}: no start or no real time; the standard asks for both")
        self._calibrations_of(m)
        name = "DerivedData" if m.derived else "RadMeasurement"
        e = SubElement(self._root, name, {"id": self._ids.new("derived" if m.derived else "measurement", m.id)})
        self._written[name].append(e.get("id", ""))
        if not m.derived and (groups := self._ids.all("group", m.groups)):
            e.set("radMeasurementGroupReferences", groups)
        if not m.derived and (items := self._ids.all("item", m.items)):
            e.set("radItemInformationReferences", items)
        self._remarks(e, m.remarks)
        SubElement(e, "MeasurementClassCode").text = (
            m.class_code if m.class_code in MEASUREMENT_CLASSES else "NotSpecified"
        )
        SubElement(e, "StartDateTime").text = _date_time(m.start_utc_ns)
        SubElement(e, "RealTimeDuration").text = _duration(m.real_time_s)
        for series in (m.spectra, m.gross_counts):
            names = [c.detector for c in series if c.detector]
            if len(set(names)) != len(names):
                raise DataError(f"N42 measurement {m.id[:60]!r}: two counts of one sort of one detector; split it")
        for s in m.spectra:
            self._spectrum(e, s, m)
        for g in m.gross_counts:
            self._gross(e, g, m)
        if not m.derived:
            self._states(e, m)

    def _live_time(self, e: Element, live_time_s: float | None, m: Measurement) -> None:
        if live_time_s is None:
            SubElement(e, "Remark").text = "live time not told; the real time stands for it"
        SubElement(e, "LiveTimeDuration").text = _duration(m.real_time_s or 0.0 if live_time_s is None else live_time_s)

    def _spectrum(self, parent: Element, s: Spectrum, m: Measurement) -> None:
        e = SubElement(parent, "Spectrum", {"id": self._ids.new("counts", s.id or f"{m.id}-{s.detector}")})
        first = s.calibrations[0] if s.calibrations else ""
        e.set("energyCalibrationReference", self._made[first, len(s.counts)])
        self._reference(e, s, m, "radRawSpectrumReferences")
        for other in s.calibrations[1:]:
            SubElement(e, "Remark").text = _text(f"further energy calibration: {other}")
        self._live_time(e, s.live_time_s, m)
        data = SubElement(e, "ChannelData")
        if _zero_runs_pay(s.counts):
            data.set("compressionCode", "CountedZeroes")
            data.text = compress_zeroes(s.counts)
        else:
            data.text = _numbers(s.counts.tolist())

    def _gross(self, parent: Element, g: GrossCounts, m: Measurement) -> None:
        expected = self._windows.get(g.windows) if g.windows else 1
        if len(g.counts) != expected:
            raise DataError(
                f"N42 measurement {m.id[:60]!r}, detector {g.detector[:40]!r}: {len(g.counts)} counts, expected "
                f"{expected} by its energy windows {g.windows[:40]!r}"
            )
        e = SubElement(parent, "GrossCounts", {"id": self._ids.new("counts", g.id or f"{m.id}-{g.detector}-gross")})
        self._reference(e, g, m, "radRawGrossCountsReferences")
        if g.windows:
            e.set("energyWindowsReference", self._ids.all("windows", (g.windows,)))
        self._live_time(e, g.live_time_s, m)
        SubElement(e, "CountData").text = _numbers(g.counts)

    def _reference(self, e: Element, c: Spectrum | GrossCounts, m: Measurement, raw_name: str) -> None:
        detector = self._ids.get("detector", c.detector)
        if detector:
            e.set("radDetectorInformationReference", detector)
        elif c.detector or isinstance(c, GrossCounts):
            raise DataError(f"N42 measurement {m.id[:60]!r}: detector {c.detector[:40]!r} is not in the document")
        if m.derived and (raw := self._ids.all("counts", c.raw)):
            e.set(raw_name, raw)

    def _states(self, e: Element, m: Measurement) -> None:
        of_detectors = [f for f in m.faults if self._ids.get("detector", f.of)]
        others = [f for f in m.faults if f not in of_detectors]
        if others:
            instrument = self._ids.get("instrument", self._document.instrument.id) or "instrument"
            state = SubElement(e, "RadInstrumentState", {"radInstrumentInformationReference": instrument})
            for f in others:
                self._fault(state, f)
        for name in dict.fromkeys(f.of for f in of_detectors):
            detector = self._ids.all("detector", (name,))
            state = SubElement(e, "RadDetectorState", {"radDetectorInformationReference": detector})
            for f in of_detectors:
                if f.of == name:
                    self._fault(state, f)
        if m.speed is not None:
            item = next((i for n in m.items if (i := self._ids.get("item", n))), self._item)
            state = SubElement(e, "RadItemState", {"radItemInformationReference": item})
            value = SubElement(SubElement(state, "StateVector"), "SpeedValue")
            factor = _METRES_PER_SECOND.get(m.speed_unit.strip().lower())
            value.text = _number(m.speed * (factor or 1.0))
            if factor:
                value.set("units", "m/s")
        if m.occupied is not None:
            SubElement(e, "OccupancyIndicator").text = "true" if m.occupied else "false"

    def _fault(self, parent: Element, f: Fault) -> None:
        e = SubElement(parent, "Fault")
        SubElement(e, "FaultCodeValue").text = _told(f.code)
        SubElement(e, "FaultDescription").text = _told(f.description)
        SubElement(e, "FaultSeverityCode").text = f.severity if f.severity in ("Fatal", "Error", "Warning") else "Error"

    # ---- energy calibrations

    def _calibrations_of(self, m: Measurement) -> None:
        """Write the calibrations that the spectra of `m` name and that are not yet written."""
        for s in m.spectra:
            for name in s.calibrations or ("",):
                key = (name, len(s.counts))
                if key not in self._made:
                    self._made[key] = self._calibration(self._calibrations.get(name), name, len(s.counts))

    def _calibration(self, c: EnergyCalibration | None, name: str, channels: int) -> str:
        """Write a calibration for spectra of `channels` and return its id.

        The form has three coefficients: more of them become the boundaries that they mean, which is exact.
        """
        made = self._ids.new("calibration", name or "uncalibrated")
        e = SubElement(self._root, "EnergyCalibration", {"id": made})
        coefficients = c.coefficients if c else ()
        boundaries = c.boundaries_kev if c else ()
        if len(coefficients) > 3 and any(coefficients[3:]):
            edges = np.polynomial.polynomial.polyval(np.arange(channels + 1, dtype=np.float64), coefficients)
            if edges[0] < 0 or not np.all(np.diff(edges) > 0):
                raise DataError(
                    f"N42 energy calibration {name[:60]!r}: {len(coefficients)} coefficients that do not rise from 0 "
                    f"over {channels} channels; the 2012 form cannot hold them"
                )
            SubElement(e, "Remark").text = _text(f"coefficients told: {_numbers(coefficients)}")
            boundaries = tuple(edges.tolist())
        if boundaries:
            if len(boundaries) != channels + 1:
                raise DataError(
                    f"N42 energy calibration {name[:60]!r}: {len(boundaries)} boundaries for {channels} channels, "
                    f"expected {channels + 1}"
                )
            SubElement(e, "EnergyBoundaryValues").text = _numbers(boundaries)
        else:
            if not coefficients:
                SubElement(e, "Remark").text = "no energy calibration told; all coefficients zero"
            SubElement(e, "CoefficientValues").text = _numbers((*coefficients[:3], 0.0, 0.0, 0.0)[:3])
        return made

    # ---- results

    def _results(self, r: AnalysisResults) -> None:
        e = SubElement(self._root, "AnalysisResults")
        for name, meant in (
            ("derivedDataReferences", self._ids.all("derived", r.derived)),
            ("radMeasurementGroupReferences", self._ids.all("group", r.groups)),
            ("radMeasurementReferences", self._ids.all("measurement", r.measurements)),
            ("radMeasurementReferences", " ".join(self._written["RadMeasurement"])),
            ("derivedDataReferences", " ".join(self._written["DerivedData"])),
        ):
            if meant:
                e.set(name, meant)
                break
        else:
            raise DataError("N42 analysis results without measurements: the standard asks what they are of")
        self._optional(e, "AnalysisAlgorithmName", r.algorithm)
        for alarm in r.alarms:
            self._alarm(e, alarm)
        if r.nuclides:
            nuclides = SubElement(e, "NuclideAnalysisResults")
            for n in r.nuclides:
                self._nuclide(nuclides, n)
        for f in r.faults:
            self._fault(e, f)

    def _alarm(self, parent: Element, a: Alarm) -> None:
        named = self._ids.all("detector", a.detectors)
        every = self._ids.all("detector", tuple(d.id for d in self._document.detectors))
        e = SubElement(parent, "RadAlarm", {"radDetectorInformationReferences": named or every})
        category = a.category if a.category in ALARM_CATEGORIES else "Other"
        if a.utc_ns is not None:
            SubElement(e, "RadAlarmDateTime").text = _date_time(a.utc_ns)
        SubElement(e, "RadAlarmCategoryCode").text = category
        fallback = a.category if category != a.category else ""
        self._optional(
            e,
            "RadAlarmDescription",
            a.description.strip() or fallback.strip() or (NOT_TOLD if category == "Other" else ""),
        )
        self._optional(e, "RadAlarmLightColor", a.light_color)

    def _nuclide(self, parent: Element, n: Nuclide) -> None:
        e = SubElement(parent, "Nuclide")
        SubElement(e, "NuclideIdentifiedIndicator").text = "true" if n.identified else "false"
        SubElement(e, "NuclideName").text = _told(n.name)
        if n.confidence is not None and n.confidence >= 0:
            SubElement(e, "NuclideIDConfidenceValue").text = _number(n.confidence)
        if n.confidence_words or n.confidence is None or n.confidence < 0:
            SubElement(e, "NuclideIDConfidenceDescription").text = _told(n.confidence_words)
        self._optional(e, "NuclideCategoryDescription", n.category)


def _class_code(told: str) -> str:
    if told in CLASS_CODES:
        return told
    if "portal" in told.lower():
        return "Spectroscopic Portal Monitor" if "spec" in told.lower() else "Portal Monitor"
    return "Other"
