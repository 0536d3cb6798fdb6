"""N42 files to documents: `read`, and the 2012 edition ("RadInstrumentData", schema 2011).

What cannot be read is named in the document's problems, with its line; counts that stand in the file and not in the
document are never passed over in silence: after reading, every element that holds counts has been read or is named.

Source: ANSI N42.42-2012, n42.xsd; spellings that real instruments use beside it are named where they are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ...errors import DataError
from . import reader_2006, tree
from .context import MAX_GROSS_COUNTS, Context, N42Settings
from .document import (
    CATEGORIES,
    INCOMPLETE,
    NO_CALIBRATION,
    TWO_SCALES,
    UNKNOWN_LIVE_TIME,
    UNKNOWN_REAL_TIME,
    UNKNOWN_START,
    Alarm,
    Analysis,
    Calibration,
    Characteristic,
    Detector,
    EnergyWindows,
    Fault,
    GrossCounts,
    Instrument,
    Item,
    Measurement,
    N42Document,
    Nuclide,
    Reference,
    Spectrum,
    Version,
)
from .tree import Node, Report

_T = TypeVar("_T", Detector, Item, EnergyWindows, Calibration)


def read(source: str | Path | bytes, settings: N42Settings | None = None, *, name: str = "") -> N42Document:
    """Return what the N42 file at `source`, or of these bytes, holds.

    name : what messages call it; default: the path
    Several documents end to end in one file become one, in which all ids are unique.

    Raises DataError naming file, line, what was seen and what to do: for what is no N42 file, holds document types or
    entities, is beyond a cap, or holds nothing that can be read.
    """
    settings = settings or N42Settings()
    name = name or ("N42 document" if isinstance(source, bytes) else str(source))
    content = source if isinstance(source, bytes) else _content(Path(source))
    report = Report()
    try:
        documents: list[N42Document] = []
        instruments: set[tuple[str, str]] = set()
        room = [MAX_GROSS_COUNTS]
        for root in tree.parse(content, report):
            context = Context(report, settings, room)
            reading = _read_2012 if root.name == "RadInstrumentData" else reader_2006.read
            documents.append(reading(root, context))
            instruments.add((documents[-1].instrument.manufacturer, documents[-1].instrument.identifier))
            _name_unread(root, report)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    if len(instruments - {("", "")}) > 1:
        report.add(1, "RadInstrumentInformation", f"{len(instruments)} different instruments; the first is named")
    joined = _join(documents)
    if not (joined.measurements or joined.derived or joined.analyses or joined.instrument.manufacturer):
        problems = "; ".join(str(p) for p in report.problems()[:3]) or "it is empty"
        raise DataError(f"{name}: holds neither instrument nor measurement nor result that can be read ({problems})")
    return msgspec.structs.replace(joined, problems=report.problems())


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path}: {'is no plain file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            return file.read(tree.MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def sniff(head: bytes) -> bool:
    """Return True if `head`, the first bytes of a file, looks like N42 (also inside an envelope, or in UTF-16)."""
    text = head.replace(b"\0", b"")
    return any(name.encode() in text for name in (*tree.ROOTS, "physics.nist.gov/N42", "ANSIN4242", "MessageEnvelope"))


# --------------------------------------------------------------------------------------------------------------
# The 2012 edition


def _read_2012(root: Node, context: Context) -> N42Document:
    created = root.attributes.get("n42DocDateTime", "")
    root.used = True
    for n in root.all("RadDetectorInformation"):
        context.by_id(n, context.detectors, _detector(n, context))
    context.groups = dict.fromkeys(n.attributes.get("id", "").strip() for n in root.all("RadMeasurementGroup"))
    for n in root.all("EnergyWindows"):
        if (windows := _windows(n, context)) is not None:
            context.by_id(n, context.windows, windows)
    for n in root.all("EnergyCalibration"):
        context.by_id(n, context.calibrations, _calibration(n, context))
    information = root.first("RadInstrumentInformation")
    remarks = root.words("Remark")
    for remark in remarks:
        if remark.startswith(INCOMPLETE):
            context.report.add(root.line, root.name, remark.removeprefix(INCOMPLETE), lost=True)
    return N42Document(
        form="2012",
        uuid=root.attributes.get("n42DocUUID", "").strip(),
        created_utc_ns=context.instant(created, root, "n42DocDateTime") if created else None,
        creator=root.word("RadInstrumentDataCreatorName"),
        instrument=_instrument(information, context) if information is not None else Instrument(),
        items=tuple(_item(n) for n in root.all("RadItemInformation")),
        windows=tuple(context.windows.values()),
        calibrations=tuple(context.calibrations.values()),
        groups=tuple(context.groups),
        measurements=tuple(_measurement(n, context) for n in root.all("RadMeasurement")),
        derived=tuple(_measurement(n, context) for n in root.all("DerivedData")),
        analyses=tuple(_analysis(n, context) for n in root.all("AnalysisResults")),
        detectors=tuple(context.detectors.values()),
        remarks=tuple(r for r in remarks if not r.startswith(INCOMPLETE)),
    )


def _instrument(node: Node, context: Context) -> Instrument:
    if node.broken:
        context.report.add(node.line, node.name, "cut off; what is missing of the instrument is not known")
    return Instrument(
        id=node.attributes.get("id", "").strip() or "instrument",
        manufacturer=node.word("RadInstrumentManufacturerName"),
        model=node.word("RadInstrumentModelName"),
        identifier=node.word("RadInstrumentIdentifier"),
        description=node.word("RadInstrumentDescription"),
        class_code=node.word("RadInstrumentClassCode") or "Other",
        versions=tuple(
            Version(component=n.word("RadInstrumentComponentName"), version=n.word("RadInstrumentComponentVersion"))
            for n in node.all("RadInstrumentVersion")
        ),
        characteristics=_characteristics(node, "RadInstrumentCharacteristics"),
        remarks=node.words("Remark"),
    )


def _characteristics(node: Node, name: str) -> tuple[Characteristic, ...]:
    found = []
    for holder in node.all(name):
        groups = [holder, *holder.all("CharacteristicGroup")]
        for group in groups:
            prefix = f"{title}: " if (title := group.word("CharacteristicGroupName")) else ""
            for n in group.all("Characteristic"):
                found.append(
                    Characteristic(
                        name=prefix + n.word("CharacteristicName"),
                        value=n.word("CharacteristicValue"),
                        units=n.word("CharacteristicValueUnits") or "unit-less",
                        value_class=n.word("CharacteristicValueDataClassCode") or "string",
                    )
                )
    return tuple(found)


def _detector(node: Node, context: Context) -> Detector:
    identifier = node.attributes.get("id", "").strip()
    kind = node.word("RadDetectorKindCode") or "Other"
    category = node.word("RadDetectorCategoryCode")
    if not category:
        category = "Neutron" if kind in ("He3", "He4", "BF3", "LiFiber", "LiZnS", "LiGlass") else "Gamma"
        context.report.add(node.line, node.name, f"detector {identifier!r} tells no category; {category} assumed")
    elif category.casefold() not in CATEGORIES:
        context.report.add(node.line, node.name, f"detector category {category[:40]!r} is not known; Other assumed")
        category = "Other"
    return Detector(
        id=identifier,
        category=category,
        kind=kind,
        name=node.word("RadDetectorName"),
        description=node.word("RadDetectorDescription"),
    )


def _item(node: Node) -> Item:
    return Item(
        id=node.attributes.get("id", "").strip(),
        description=node.word("RadItemDescription"),
        characteristics=_characteristics(node, "RadItemCharacteristics"),
    )


def _windows(node: Node, context: Context) -> EnergyWindows | None:
    starts = context.numbers(node.first("WindowStartEnergyValues"))
    ends = context.numbers(node.first("WindowEndEnergyValues"))
    if starts is None or ends is None or len(starts) != len(ends):
        context.report.add(node.line, node.name, "energies of the windows cannot be read; their counts are kept")
        return None
    identifier = node.attributes.get("id", "").strip()
    windows = EnergyWindows(id=identifier, start_kev=tuple(starts.tolist()), end_kev=tuple(ends.tolist()))
    pairs = sorted(zip(windows.start_kev, windows.end_kev, strict=True))
    if any(low >= high for low, high in pairs):
        context.report.add(node.line, node.name, f"a window ends before it begins: {pairs[:8]}")
    return windows


def _calibration(node: Node, context: Context) -> Calibration:
    coefficients, boundaries = (
        context.numbers(node.first(name)) for name in ("CoefficientValues", "EnergyBoundaryValues")
    )
    if NO_CALIBRATION in node.words("Remark"):
        coefficients = None
    elif coefficients is None and boundaries is None:
        context.report.add(node.line, node.name, "neither coefficients nor boundaries that can be read")
    return Calibration(
        id=node.attributes.get("id", "").strip(),
        coefficients=() if coefficients is None else tuple(coefficients.tolist()),
        boundaries_kev=() if boundaries is None else tuple(boundaries.tolist()),
    )


def _measurement(node: Node, context: Context) -> Measurement:
    named = node.name == "RadMeasurement"
    identifier = context.identify(node, "measurement" if named else "derived")
    if node.broken:
        context.report.add(node.line, node.name, f"{identifier!r} is cut off", lost=True)
    real_time_s = context.duration(node.first("RealTimeDuration"))
    spectra = [s for n in node.all("Spectrum") if (s := _spectrum(n, context, named=named)) is not None]
    gross = [g for n in node.all("GrossCounts") if (g := _gross(n, context)) is not None]
    if real_time_s is None:  # some write it under each spectrum instead
        real_time_s = next((s.real_time_s for s in spectra if s.real_time_s is not None), None)
    _compare_vendor_time(node, real_time_s, context)
    speed, unit = _speed(node, context)
    remarks = node.words("Remark")
    if speed is None:
        speed, unit = context.speed_in(remarks)
    start_utc_ns = context.start(node.first("StartDateTime"), node)
    occupancy = node.first("OccupancyIndicator")
    measurement = Measurement(
        id=identifier,
        class_code=context.class_code(node.first("MeasurementClassCode"), node),
        start_utc_ns=None if UNKNOWN_START in remarks else start_utc_ns,
        real_time_s=None if UNKNOWN_REAL_TIME in remarks else real_time_s,
        gross=tuple(gross),
        spectra=tuple(spectra),
        occupied=context.occupancy(occupancy),
        speed=speed,
        speed_unit=unit,
        faults=_state_faults(node),
        groups=_groups(node, context),
        remarks=tuple(r for r in remarks if r not in (UNKNOWN_START, UNKNOWN_REAL_TIME)),
    )
    context.check_live_times(measurement, node.line)
    return measurement


def _groups(node: Node, context: Context) -> tuple[str, ...]:
    groups = tuple(node.attributes.get("radMeasurementGroupReferences", "").split())
    if unknown := [g for g in groups if g not in context.groups]:
        context.report.add(node.line, node.name, f"measurement group {unknown[0]!r} is nowhere in the file")
    return groups


def _speed(node: Node, context: Context) -> tuple[float | None, str]:
    """The item's speed: the state vector of a RadInstrumentState or RadDetectorState is another's movement."""
    for state in node.all("RadItemState"):
        for vector in state.all("StateVector"):
            found = vector.first("SpeedValue")
            if found is not None and (value := context.number(found)) is not None:
                return value, found.attributes.get("units", "").strip()
    return None, ""


def _state_faults(node: Node) -> tuple[Fault, ...]:
    found = []
    for state in node.all("RadInstrumentState", "RadDetectorState"):
        source = state.attributes.get("radDetectorInformationReference", "").strip()
        found += _faults(state, source or "instrument")
    return tuple(found)


def _faults(node: Node, source: str) -> list[Fault]:
    return [
        Fault(
            code=n.word("FaultCodeValue"),
            description=n.word("FaultDescription"),
            severity=n.word("FaultSeverityCode") or "Error",
            source=source,
        )
        for n in node.all("Fault")
    ]


def _compare_vendor_time(node: Node, real_time_s: float | None, context: Context) -> None:
    """A vendor's own real time beside the standard's may disagree: the standard's is taken, and that is told."""
    for child in node.children:
        if child.foreign and child.name == "RealTimeDuration":
            child.used = True
            other = context.duration(child)
            if other is not None and real_time_s is not None and abs(other - real_time_s) > 1e-6:
                text = f"the vendor's own says {other:g} s, the standard's {real_time_s:g} s, which is taken"
                context.report.add(child.line, child.name, text, harmless=True)


def _spectrum(node: Node, context: Context, *, named: bool) -> Spectrum | None:
    """Return a spectrum. named : it must be one detector's; derived data are often of several together."""
    channel_data = node.first("ChannelData")
    counted = context.counted(channel_data, node)
    real_time_s = context.duration(node.first("RealTimeDuration"))
    live_time_s = context.duration(node.first("LiveTimeDuration"))
    calibrations = tuple(node.attributes.get("energyCalibrationReference", "").split())
    for identifier in calibrations:
        if identifier not in context.calibrations:
            context.report.add(node.line, node.name, f"energy calibration {identifier!r} is nowhere in the file")
    if len(calibrations) > 1:
        context.report.add(node.line, node.name, TWO_SCALES, harmless=True)
    remarks = node.words("Remark")
    detector = context.detector(node, "Gamma") if named or _names_detector(node) else ""
    if counted is None:
        return None
    return Spectrum(
        detector=detector,
        counted=counted,
        live_time_s=None if UNKNOWN_LIVE_TIME in remarks else live_time_s,
        real_time_s=real_time_s,
        calibrations=calibrations,
        remarks=tuple(r for r in remarks if r != UNKNOWN_LIVE_TIME),
    )


def _names_detector(node: Node) -> bool:
    return bool(node.attributes.get("radDetectorInformationReference", "").strip())


def _gross(node: Node, context: Context) -> GrossCounts | None:
    counts = context.counts(node.first("CountData"), node)
    total_node = node.first("TotalCountData")
    total = context.counts(total_node, node) if total_node is not None else None
    windows = node.attributes.get("energyWindowsReference", "").strip()
    live_time_s = context.duration(node.first("LiveTimeDuration"))
    remarks = node.words("Remark")
    detector = context.detector(node, "Other")
    if counts is None:
        return None
    known = context.windows.get(windows)
    if windows and (known is None or len(known.start_kev) != counts.size):
        seen = "are nowhere in the file" if known is None else f"are {len(known.start_kev)}"
        context.report.add(node.line, node.name, f"{counts.size} counts, energy windows {windows!r} {seen}")
        windows = ""
    elif not windows and counts.size != 1:
        context.report.add(node.line, node.name, f"{counts.size} counts without energy windows, expected one")
    return GrossCounts(
        detector=detector,
        counts=tuple(counts.tolist()),
        live_time_s=None if UNKNOWN_LIVE_TIME in remarks else live_time_s,
        windows=windows,
        total=float(total[0]) if total is not None and total.size == 1 else None,
        remarks=tuple(r for r in remarks if r != UNKNOWN_LIVE_TIME),
    )


_REFERENCES: tuple[tuple[str, Reference], ...] = (
    ("radMeasurementGroupReferences", "group"),
    ("radMeasurementReferences", "measurement"),
    ("derivedDataReferences", "derived"),
)


def _analysis(node: Node, context: Context) -> Analysis:
    if node.broken:
        context.report.add(node.line, node.name, "cut off; alarms may be missing", lost=True)
    told = [(of, words) for name, of in _REFERENCES if (words := node.attributes.get(name, "").split())]
    if len(told) != 1:
        text = f"refers to {' and '.join(of for of, _ in told) or 'no data'}, expected exactly one kind"
        context.report.add(node.line, node.name, text)
    of, references = told[0] if told else ("group", [])
    start = node.first("AnalysisStartDateTime")
    return Analysis(
        of=of,
        references=tuple(references),
        start_utc_ns=context.instant(start.text, start, start.name) if start is not None else None,
        algorithm=node.word("AnalysisAlgorithmName"),
        conclusion=node.word("AnalysisResultDescription"),
        alarms=tuple(_alarm(n, context) for n in node.all("RadAlarm")),
        nuclides=tuple(_nuclide(n, context) for r in node.all("NuclideAnalysisResults") for n in r.all("Nuclide")),
        faults=tuple(_faults(node, "analysis")),
        remarks=node.words("Remark"),
    )


def _alarm(node: Node, context: Context) -> Alarm:
    category = node.word("RadAlarmCategoryCode")
    if not category:
        context.report.add(node.line, node.name, "an alarm without category")
    raised = node.first("RadAlarmDateTime")
    return Alarm(
        category=category or "Other",
        description=node.word("RadAlarmDescription"),
        light_color=node.word("RadAlarmLightColor"),
        utc_ns=context.instant(raised.text, raised, raised.name) if raised is not None else None,
        detectors=tuple(node.attributes.get("radDetectorInformationReferences", "").split()),
    )


def _nuclide(node: Node, context: Context) -> Nuclide:
    name = node.word("NuclideName")
    if not name:
        cut = ", for the file is cut off here" if node.broken else ""
        context.report.add(node.line, node.name, f"a nuclide without a name{cut}", lost=node.broken)
    return Nuclide(
        name=name or "unknown",
        identified=context.boolean(node.first("NuclideIdentifiedIndicator")),
        confidence=context.number(node.first("NuclideIDConfidenceValue")),
        confidence_text=node.word("NuclideIDConfidenceDescription"),
        category=node.word("NuclideCategoryDescription"),
    )


# --------------------------------------------------------------------------------------------------------------
# Nothing unread without a word


def _name_unread(root: Node, report: Report) -> None:
    """Name every element that holds counts, or tells of an alarm or an occupancy, and that nothing has read."""
    for node in root.walk():
        if node.used:
            continue
        counts = node.name in tree.COUNT_ELEMENTS or (node.name == "GrossCounts" and node.text)
        if counts or node.name in tree.TELLING_ELEMENTS:
            whose = "of the vendor's own vocabulary" if node.foreign else "at a place where this reader expects none"
            report.add(node.line, node.name, f"{whose}; not read", lost=True)


# --------------------------------------------------------------------------------------------------------------
# Several documents in one file


def _join(documents: list[N42Document]) -> N42Document:
    """Return one document of all parts; an id that already stands for something else is made unique."""
    first = documents[0]
    if len(documents) == 1:
        return first
    taken: dict[str, Any] = {}
    joined: dict[str, list[Any]] = {name: [] for name in _JOINED}
    for part, document in enumerate(documents, 1):
        rename: dict[str, str] = {}
        for name in ("detectors", "items", "windows", "calibrations"):
            joined[name] += _unique(getattr(document, name), part, taken, rename)
        for group in document.groups:
            rename[group] = _free(group, part, taken)
            joined["groups"].append(rename[group])
        own = {m.id: _free(m.id, part, taken) for m in (*document.measurements, *document.derived)}
        for name in ("measurements", "derived"):
            joined[name] += [_renamed(m, own[m.id], rename) for m in getattr(document, name)]
        joined["analyses"] += [
            _renamed_analysis(a, rename if a.of == "group" else own, rename) for a in document.analyses
        ]
        joined["remarks"] += [r for r in document.remarks if r not in joined["remarks"]]
    instrument = next((d.instrument for d in documents if d.instrument.manufacturer), first.instrument)
    return msgspec.structs.replace(first, instrument=instrument, **{k: tuple(v) for k, v in joined.items()})


_JOINED = (
    "detectors", "items", "windows", "calibrations", "groups", "measurements", "derived", "analyses", "remarks",
)  # fmt: skip


def _free(identifier: str, part: int, taken: dict[str, Any], thing: Any = None) -> str:
    """Take an id that is free: the given one, or one like it."""
    new = identifier
    while new in taken:
        new = f"{new[:200]}-{part}"
    taken[new] = thing
    return new


def _unique(parts: tuple[_T, ...], part: int, taken: dict[str, Any], rename: dict[str, str]) -> list[_T]:
    """Return those of `parts` that are new, under free ids."""
    new: list[_T] = []
    for thing in parts:
        if taken.get(thing.id) == thing:
            rename[thing.id] = thing.id
            continue
        rename[thing.id] = _free(thing.id, part, taken, thing)
        new.append(msgspec.structs.replace(thing, id=rename[thing.id]))
    return new


def _renamed(measurement: Measurement, identifier: str, rename: dict[str, str]) -> Measurement:
    def new(told: str) -> str:
        return rename.get(told, told)

    replace: Callable[..., Any] = msgspec.structs.replace
    return msgspec.structs.replace(
        measurement,
        id=identifier,
        groups=tuple(new(g) for g in measurement.groups),
        gross=tuple(replace(g, detector=new(g.detector), windows=new(g.windows)) for g in measurement.gross),
        spectra=tuple(
            replace(s, detector=new(s.detector), calibrations=tuple(new(c) for c in s.calibrations))
            for s in measurement.spectra
        ),
    )


def _renamed_analysis(analysis: Analysis, own: dict[str, str], rename: dict[str, str]) -> Analysis:
    return msgspec.structs.replace(
        analysis,
        references=tuple(own.get(r, r) for r in analysis.references),
        alarms=tuple(
            msgspec.structs.replace(a, detectors=tuple(rename.get(d, d) for d in a.detectors)) for a in analysis.alarms
        ),
    )
