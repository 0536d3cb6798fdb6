"""The 2006 edition of N42.42 ("N42InstrumentData"), in the terms of that of 2012.

A `DetectorData` is a time slice; spectra and counts that stand directly below a `Measurement` are slices by their own
start times. Detectors are known only by the names that spectra carry.

Source: ANSI N42.42-2006; a recorded spectroscopic portal pass; what SpecUtils (LGPL-2.1) tells of files in the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .context import Context
from .document import (
    TWO_SCALES,
    Alarm,
    Analysis,
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
)
from .tree import Node

_CLASSES: dict[str, MeasurementClass] = {
    "item": "Foreground",
    "foreground": "Foreground",
    "background": "Background",
    "calibration": "Calibration",
    "stabilization": "Calibration",
    "intrinsicactivity": "IntrinsicActivity",
}
_INSTRUMENT_CLASSES = {
    "specportal": "Spectroscopic Portal Monitor",
    "portalmonitor": "Portal Monitor",
    "portal": "Portal Monitor",
    "radionuclideidentifier": "Radionuclide Identifier",
    "personalradiationdetector": "Personal Radiation Detector",
}
_CONTAINER = re.compile(r"container\s*(?:id|number)?\s*[=:]\s*([A-Za-z]{4} ?\d{7})", re.IGNORECASE)
_NEUTRON_KINDS = ("he3", "he-3", "he4", "bf3", "neutron", "lifiber", "liglass")


def read(root: Node, context: Context) -> N42Document:
    """Return what one `N42InstrumentData` holds."""
    root.used = True
    holders = [root, *root.all("Measurement")]
    for holder in holders:
        for node in holder.all("Calibration"):
            _calibrations(node, context)
    instrument = Instrument()
    measurements: list[Measurement] = []
    items: list[Item] = []
    analyses: list[Analysis] = []
    down: tuple[Fault, ...] = ()
    for holder in holders:
        information = holder.first("InstrumentInformation")
        if information is not None:
            down = _detectors_down(information)
            if not instrument.manufacturer:
                instrument = _instrument(information)
        items += [_item(n, len(items) + i) for i, n in enumerate(holder.all("MeasuredItemInformation"))]
        read_here = [*_loose(holder, context), *(_slice(n, context, down) for n in holder.all("DetectorData"))]
        measurements += read_here
        of = tuple(m.id for m in read_here)
        analyses += [_analysis(n, of, context) for n in holder.all("AnalysisResults")]
    uuid = next((u for h in holders if (u := h.attributes.get("UUID", "").strip())), "")
    return N42Document(
        form="2006",
        uuid=uuid,
        instrument=instrument,
        detectors=tuple(context.detectors.values()),
        items=tuple(items),
        calibrations=tuple(context.calibrations.values()),
        measurements=tuple(measurements),
        analyses=tuple(analyses),
        remarks=tuple(r for h in holders for r in h.words("Remark")),
    )


def _instrument(node: Node) -> Instrument:
    told = node.word("InstrumentType")
    lane = node.word("LaneNumber")
    return Instrument(
        manufacturer=node.word("Manufacturer"),
        model=node.word("InstrumentModel"),
        identifier=node.word("InstrumentID"),
        description=told,
        class_code=_INSTRUMENT_CLASSES.get(re.sub(r"[\s_-]", "", told).casefold(), "Other"),
        characteristics=(Characteristic(name="LaneNumber", value=lane),) if lane else (),
        remarks=node.words("Remark"),
    )


def _detectors_down(node: Node) -> tuple[Fault, ...]:
    """Return a fault for each detector that a portal's status does not call working."""
    found = []
    for child in node.children:
        if child.name == "DetectorStatus":  # in a vendor's vocabulary or the standard's
            child.used = True
            operational = child.attributes.get("Operational", "?").strip()
            if operational.lower() not in ("1", "true"):
                name = child.attributes.get("Detector", "?")[:60]
                found.append(Fault(code="DetectorStatus", description=f"operational: {operational}", source=name))
    return tuple(found)


def _item(node: Node, index: int) -> Item:
    remarks = node.words("Remark")
    found = [Characteristic(name="Remark", value=r) for r in remarks]
    for remark in remarks:
        if match := _CONTAINER.search(remark[:1000]):
            found.append(Characteristic(name="ContainerID", value=match[1].replace(" ", "").upper()))
    return Item(
        id=f"item-{index + 1}",
        description=node.word("ItemDescription", "MeasuredItemDescription"),
        characteristics=tuple(found),
    )


# --------------------------------------------------------------------------------------------------------------
# Measurements


def _slice(node: Node, context: Context, down: tuple[Fault, ...]) -> Measurement:
    """One `DetectorData`: everything below it was measured at its time."""
    identifier = context.identify(node, "slice")
    if node.broken:
        context.report.add(node.line, node.name, f"{identifier!r} is cut off", lost=True)
    holders = [node, *node.all("DetectorMeasurement")]
    spectra, gross = [], []
    classes: list[MeasurementClass] = []
    for holder in holders:
        name = holder.attributes.get("Detector", "").strip()
        for place in (holder, *holder.all("SpectrumMeasurement")):
            for n in place.all("Spectrum"):
                classes.append(_class_code(n))
                if (spectrum := _spectrum(n, name, context)) is not None:
                    spectra.append(spectrum)
        for n in holder.all("GrossCountMeasurement", "CountDoseData"):
            gross += _gross(n, holder, context)
    occupied, speed = node.first("Occupied"), node.first("Speed")
    remarks = node.words("Remark")
    value = context.number(speed)
    unit = speed.attributes.get("Units", "").strip() if speed is not None else ""
    if value is None:
        value, unit = context.speed_in(remarks)
    real_time_s = context.duration(node.first("SampleRealTime", "RealTime"))
    measurement = Measurement(
        id=identifier,
        class_code=next((c for c in classes if c != "NotSpecified"), "NotSpecified"),
        start_utc_ns=context.start(node.first("StartTime"), node),
        real_time_s=real_time_s if real_time_s is not None else _longest(spectra),
        gross=tuple(gross),
        spectra=tuple(spectra),
        occupied=context.occupancy(occupied),
        speed=value,
        speed_unit=unit,
        faults=(*down, *_faults(node)),
        remarks=remarks,
    )
    context.check_live_times(measurement, node.line)
    return measurement


def _loose(holder: Node, context: Context) -> Iterator[Measurement]:
    """Spectra and counts that stand in no `DetectorData`: one measurement per class and start time."""
    together: dict[tuple[str, str], tuple[Node, list[Spectrum], list[GrossCounts]]] = {}
    for place in (holder, *holder.all("SpectrumMeasurement")):
        for n in place.all("Spectrum"):
            key = (_class_code(n), n.word("StartTime"))
            _, spectra, _ = together.setdefault(key, (n, [], []))
            if (spectrum := _spectrum(n, "", context)) is not None:
                spectra.append(spectrum)
    for n in holder.all("GrossCountMeasurement", "CountDoseData"):
        start = n.word("StartTime")
        fitting = [k for k in together if k[1] == start] or ([*together] if len(together) == 1 else [])
        _, _, gross = together.setdefault(fitting[0] if fitting else ("NotSpecified", start), (n, [], []))
        gross += _gross(n, holder, context)
    for (_, start), (node, spectra, gross) in together.items():
        real_time_s = _longest(spectra)
        if real_time_s is None:
            real_time_s = context.duration(node.first("SampleRealTime", "RealTime"))
        measurement = Measurement(
            id=context.identify(node, "measurement"),
            class_code=_class_code(node),
            start_utc_ns=context.instant(start, node, "StartTime") if start else None,
            real_time_s=real_time_s,
            spectra=tuple(spectra),
            gross=tuple(gross),
            remarks=node.words("Remark"),
        )
        context.check_live_times(measurement, node.line)
        yield measurement


def _longest(spectra: list[Spectrum]) -> float | None:
    return max((s.real_time_s for s in spectra if s.real_time_s is not None), default=None)


def _class_code(node: Node) -> MeasurementClass:
    return _CLASSES.get(node.word("SourceType").replace(" ", "").casefold(), "NotSpecified")


def _spectrum(node: Node, holder_name: str, context: Context) -> Spectrum | None:
    counted = context.counted(node.first("ChannelData"), node)
    live_time_s = context.duration(node.first("LiveTime"))
    real_time_s = context.duration(node.first("RealTime"))
    calibrations = [c for n in node.all("Calibration") for c in _calibrations(n, context)]
    calibrations += [c for c in node.attributes.get("CalibrationIDs", "").split() if c in context.calibrations]
    if len(calibrations) > 1:
        context.report.add(node.line, node.name, TWO_SCALES, harmless=True)
    name = node.attributes.get("Detector", "").strip() or holder_name or "unnamed"
    if counted is None:
        return None
    _describe(name, node.word("DetectorType"), "Gamma", context)
    return Spectrum(
        detector=name,
        counted=counted,
        live_time_s=live_time_s,
        real_time_s=real_time_s,
        calibrations=tuple(calibrations),
    )


def _gross(node: Node, holder: Node, context: Context) -> list[GrossCounts]:
    """Counts of a `GrossCountMeasurement` or `CountDoseData`, which holds one number or a list."""
    kind = node.attributes.get("DetectorType", "") or holder.attributes.get("DetectorType", "")
    category = "Neutron" if kind.strip().casefold().startswith(_NEUTRON_KINDS) else "Gamma"
    name = node.attributes.get("Detector", "").strip() or holder.attributes.get("Detector", "").strip()
    real_time_s = context.duration(node.first("SampleRealTime", "RealTime"))
    live_time_s = context.duration(node.first("LiveTime"))
    found: list[GrossCounts] = []
    places = [node.first("Counts", "TotalCounts"), *node.all("GrossCounts")]
    for place in places:
        if place is None:
            continue
        inner = place.first("TotalCounts", "Counts") or place
        counts = context.counts(inner, node)
        if counts is not None:
            identifier = _describe(name or f"{category.lower()}", kind, category, context)
            live = live_time_s if live_time_s is not None else real_time_s
            found.append(GrossCounts(detector=identifier, counts=tuple(counts.tolist()), live_time_s=live))
    if not found and (rate := node.first("CountRate")) is not None:
        found += _of_rate(rate, real_time_s, name or category.lower(), kind, category, context)
    return found


def _of_rate(
    node: Node, real_time_s: float | None, name: str, kind: str, category: str, context: Context
) -> list[GrossCounts]:
    """Counts of a file that tells only their rate."""
    rate = context.number(node)
    unit = node.attributes.get("Units", "CPS").strip().casefold()
    if rate is None or rate < 0 or real_time_s is None or "cps" not in unit:
        context.report.add(node.line, node.name, "a count rate without time, or in a unit other than CPS", lost=True)
        return []
    text = f"only a rate is told; {rate:g} counts/s for {real_time_s:g} s"
    context.report.add(node.line, node.name, text, harmless=True)
    identifier = _describe(name, kind, category, context)
    return [GrossCounts(detector=identifier, counts=(rate * real_time_s,), live_time_s=real_time_s)]


def _describe(name: str, kind: str, category: str, context: Context) -> str:
    """Return the id of the detector of that name and category; a name may stand for one of each."""
    known = context.detectors.get(name)
    if known is not None and known.category != category:
        name = f"{name}-{category}"
        known = context.detectors.get(name)
    if known is None:
        word = kind.strip().split(" ")[0]
        context.detectors[name] = Detector(id=name, category=category, kind=word or "Other", description=kind.strip())
    return name


def _calibrations(node: Node, context: Context) -> list[str]:
    """Return the ids of the energy scales in a `Calibration`: two sets of coefficients are two scales."""
    kind = node.attributes.get("Type", "Energy").strip().casefold()
    equation = node.first("Equation")
    if kind != "energy" or equation is None:
        for child in node.walk():
            child.used = True  # resolution and efficiency say nothing of counts
        return []
    model = equation.attributes.get("Model", "Polynomial")
    scale = 1000.0 if node.attributes.get("EnergyUnits", "keV").strip().casefold() == "mev" else 1.0
    found = []
    for coefficients in equation.all("Coefficients"):
        values = context.numbers(coefficients)
        if values is None or model.strip().casefold() not in ("polynomial", "other"):
            text = f"energy calibration by {model[:40]!r} is not read"
            context.report.add(node.line, node.name, text, harmless=True)
            continue
        found.append(context.calibration(node.attributes.get("ID", "").strip(), tuple((values * scale).tolist())))
    return found


def _faults(node: Node) -> tuple[Fault, ...]:
    return tuple(
        Fault(code=n.word("FaultCode"), description=n.word("FaultDescription"), severity="Error")
        for n in node.all("Fault")
    )


# --------------------------------------------------------------------------------------------------------------
# Results


def _analysis(node: Node, of: tuple[str, ...], context: Context) -> Analysis:
    nuclides: list[Nuclide] = []
    alarms: list[Alarm] = []
    for n in node.all("NuclideAnalysis"):
        nuclides += [_nuclide(x) for x in n.all("Nuclide")]
    for n in node.all("AlarmInformation", "RadiationAlarm", "Alarm"):
        text = n.word("AlarmDescription", "AlarmType") or n.text
        category = next((c for c in ("Neutron", "Gamma") if c.casefold() in text.casefold()), "Other")
        alarms.append(Alarm(category=category, description=text))
    analysis = Analysis(
        of="measurement",
        references=of,
        algorithm=node.word("AlgorithmDescription", "NuclideIDAlgorithm"),
        conclusion=node.word("ThreatDescription"),
        alarms=tuple(alarms),
        nuclides=tuple(nuclides),
        remarks=node.words("Remark"),
    )
    unread = sorted({c.name for c in node.children if not c.used})
    if unread:  # this edition leaves results to vendors: an alarm may stand in any of them
        context.report.add(node.line, node.name, f"results not understood: {', '.join(unread[:8])}", lost=True)
    return analysis


def _nuclide(node: Node) -> Nuclide:
    confidence = node.first("NuclideIDConfidence", "NuclideIDConfidenceIndication")
    text = confidence.text if confidence is not None else ""
    return Nuclide(
        name=node.word("NuclideName") or "unknown",
        identified=True,  # this edition lists what was found
        confidence_text=text,
        category=node.word("NuclideType"),
    )
