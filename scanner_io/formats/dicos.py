"""DICOS (NEMA IIC 1) for other systems: a scan's images and what judgement found, as DX objects and a threat report.

One series holds a DX object for every energy, FOR PROCESSING, with the counts as they were recorded; a Threat Detection
Report (TDR) beside them refers to these objects and has a potential threat object for every finding that asks for a
person. "Patient" is the object of inspection: its identity is the container's number.

    outcome    alarm decision   abort flag
    ALARM      ALARM            SUCCESS
    REVIEW     UNKNOWN          SUCCESS      somebody is to look; the machine does not decide
    CLEAR      CLEAR            SUCCESS
    UNUSABLE   UNKNOWN          ABORTED      it could not be judged, which is no clearance

An alarm without a place in the image, as a portal's, is an object that covers the whole image: a reader must not find
an alarm without one. pydicom checks nothing of DICOS, so `problems_of` does, before anything is written.

Needs pydicom (extra `dicom`). Source: NEMA IIC 1 v03 as far as the element dictionary of pydicom tells it; what is
required and which words are allowed is what an independent toolkit (`pydicos`) refuses to read otherwise. That toolkit
tells the place of an object for baggage only, and of its own cargo files neither.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from scanner_io import __version__
from scanner_io.errors import DataError
from scanner_io.model import Box, Finding, Radiograph, Scan, TriageResult

DX = UID("1.2.840.10008.5.1.4.1.1.501.2.2")
"""DICOS Digital X-ray Image Storage, for processing."""
TDR = UID("1.2.840.10008.5.1.4.1.1.501.3")
"""DICOS Threat Detection Report Storage."""
VERSION = "V03"
NOT_KNOWN = "unknown"
MAX_OBJECTS = 65_535
DECISIONS = {"ALARM": "ALARM", "REVIEW": "UNKNOWN", "CLEAR": "CLEAR", "UNUSABLE": "UNKNOWN"}
FLAGS = {"alarm": "HIGH_THREAT", "review": "THREAT", "note": "UNKNOWN"}
#: Elements of a threat that pydicom's dictionary does not have: number, VR.
_THREAT_START, _THREAT_END, _THREAT_TIME = (0x40101080, "DT"), (0x40101081, "DT"), (0x40101082, "FL")
_META_VERSION = (0x00020004, "CS")
#: Elements of DICOS that the dictionary has under other names or not at all. 0 stands for "not told".
_BELT_SPEED, _EFFECTIVE_ENERGY = (0x00189309, "FD"), (0x43000902, "FL")
_COORDINATES, _ORIGIN, _IMAGE_SCALE = (0x00082108, "CS"), (0x00080118, "CS"), (0x40101075, "FD")


class Object(NamedTuple):
    """A DICOS object. name : of the file it is for."""

    name: str
    dataset: Dataset


def objects_of(
    scan: Scan, result: TriageResult | None, *, kvp: float | Mapping[str, float] | None = None, installation: str = ""
) -> list[Object]:
    """Return the DICOS objects of a scan: a DX of every energy, lowest first, and a TDR where it was judged.

    kvp : peak voltage of the source in kilovolts, 6000 for 6 MV, by energy; a single number is the highest energy's.
        Where it is not given it is read from the energy's name, such as `6MV`; DICOS wants a number, so that neither is
        an error
    installation : name of the site

    Raises DataError for a scan without a radiograph or without a known voltage, and where an object breaks a rule.
    """
    image = scan.radiograph
    if image is None:
        raise DataError(f"DICOS: scan {scan.scan_id} has no radiograph, so there is no image to export")
    study, series, now = (_uid(scan, "study"), _uid(scan, "series"), datetime.now(UTC))
    objects = []
    energies = image.detector.energies
    given = kvp if isinstance(kvp, Mapping) else {} if kvp is None else {energies[-1]: kvp}
    if strange := set(given) - set(energies):
        raise DataError(f"DICOS: voltages of {sorted(strange)}; the scan's energies are {', '.join(energies)}")
    for number, energy in enumerate(energies):
        voltage = given.get(energy) or kilovolts(energy)
        if voltage is None:
            raise DataError(
                f"DICOS: the voltage of energy {energy!r} is not known; give it in kilovolts, as --kvp {energy}=6000 "
                "for 6 MV"
            )
        dx = _common(scan, DX, study, series, _uid(scan, f"dx {energy}"), installation)
        _image(dx, scan, image, number, voltage)
        objects.append(Object(f"{scan.scan_id}.{energy}.dcs", dx))
    if result is not None:
        report = _common(scan, TDR, study, _uid(scan, "report series"), _uid(scan, "report"), installation)
        _report(report, scan, image, result, [o.dataset for o in objects], now)
        objects.append(Object(f"{scan.scan_id}.tdr.dcs", report))
    known = {str(o.dataset.SOPInstanceUID) for o in objects}
    wrong = [f"{o.name}: {problem}" for o in objects for problem in problems_of(o.dataset, known)]
    if wrong:
        raise DataError("DICOS: " + "; ".join(wrong))
    return objects


def encode(dataset: Dataset) -> bytes:
    """Return the bytes of a file."""
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def kilovolts(energy: str) -> float | None:
    """Return the voltage that an energy's name tells, such as `6MV`, `4.5 MV`, `160kV`; None where it tells none."""
    text = energy.replace(" ", "").lower()
    for ending, factor in (("mv", 1000.0), ("kv", 1.0)):
        number = text.removesuffix(ending).lstrip("abcdefghijklmnopqrstuvwxyz_-")
        if text.endswith(ending) and re.fullmatch(r"[0-9]+\.?[0-9]*|\.[0-9]+", number):
            return float(number) * factor
    return None


def _uid(scan: Scan, what: str) -> UID:
    """Return the same identifier for the same part of a scan whenever it is exported."""
    return generate_uid(entropy_srcs=[scan.scan_id, scan.lane, what])


def _common(scan: Scan, kind: UID, study: UID, series: UID, instance: UID, installation: str) -> Dataset:
    """Return what all objects of a scan have."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID = kind
    d.file_meta.MediaStorageSOPInstanceUID = instance
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.add(DataElement(Tag(_META_VERSION[0]), _META_VERSION[1], VERSION))
    device = next((x for x in scan.devices if "radiograph" in x.kinds), None)
    start = _at(scan.start_utc_ns)
    d.SpecificCharacterSet = "ISO_IR 192"
    d.SOPClassUID, d.SOPInstanceUID, d.StudyInstanceUID, d.SeriesInstanceUID = kind, instance, study, series
    d.StudyDate = d.SeriesDate = d.ContentDate = f"{start:%Y%m%d}"
    d.StudyTime = d.SeriesTime = d.ContentTime = f"{start:%H%M%S.%f}"
    d.AcquisitionDateTime = _date_time(start)
    d.InstanceCreationDate, d.InstanceCreationTime = d.StudyDate, d.StudyTime
    d.TimezoneOffsetFromUTC = "+0000"
    d.FrameOfReferenceUID, d.PositionReferenceIndicator = _uid(scan, "frame of reference"), "SCANNER"
    d.Manufacturer = _short(device.vendor if device else "", 64)
    d.ManufacturerModelName = _short(device.model if device else "", 64)
    d.DeviceSerialNumber = _short(device.serial if device else "", 64)
    d.StationName = _short(scan.lane, 16)
    d.InstitutionName = _short(installation, 64)
    d.InstitutionAddress = NOT_KNOWN
    d.SoftwareVersions = f"scanlane {__version__}"
    d.DateOfLastCalibration, d.TimeOfLastCalibration = f"{start:%Y%m%d}", f"{start:%H%M%S.%f}"
    numbers = scan.container_numbers
    d.PatientID = _short(numbers[0] if numbers else scan.scan_id, 64)
    d.PatientName = d.PatientID
    if numbers[1:]:
        d.OtherPatientIDs = list(numbers[1:])
    d.IssuerOfPatientID, d.TypeOfPatientID = "scanlane", "TEXT"
    d.PatientBirthDate, d.PatientSex, d.AccessionNumber = "", "O", _short(scan.scan_id, 16)
    d.StudyID = "1"
    d.SeriesNumber = 1 if kind == DX else 2
    d.DICOSVersion = VERSION
    d.OOIType = "CARGO"
    d.ScanType = "NON_OPERATIONAL" if scan.simulated else "OPERATIONAL"
    d.AcquisitionStatus = "SUCCESSFUL" if _whole(scan) else "ABNORMAL"
    if scan.simulated:
        d.ImageComments = "SIMULATED: no vehicle was scanned"
    return d


def _whole(scan: Scan) -> bool:
    return (
        scan.radiograph is not None and scan.radiograph.end_reason == "complete" and not scan.radiograph.dropped_columns
    )


def _image(d: Dataset, scan: Scan, image: Radiograph, energy: int, voltage: float) -> None:
    """Write the pixel part of a DX: rows from the top, columns from the left, counts unchanged."""
    pixels = np.ascontiguousarray(image.upright(energy))
    d.Modality, d.PresentationIntentType = "XRAY", "FOR PROCESSING"
    derived = "INTENSITY" if image.detector.state == "raw" else "PRESENTATION"
    d.ImageType = ["ORIGINAL" if derived == "INTENSITY" else "DERIVED", derived]
    d.InstanceNumber = energy + 1
    d.KVP, d.XRayTubeCurrentInuA = f"{voltage:g}", "0"
    d.ProtocolName = _short(f"energy {image.detector.energies[energy]}", 64)
    d.BeltHeight = 0.0
    d.add_new(Tag(_BELT_SPEED[0]), _BELT_SPEED[1], 0.0)
    d.add_new(Tag(_EFFECTIVE_ENERGY[0]), _EFFECTIVE_ENERGY[1], 0.0)
    d.add_new(Tag(_ORIGIN[0]), _ORIGIN[1], "SYNTHETIC" if scan.simulated else "MACHINE")
    d.add_new(Tag(_COORDINATES[0]), _COORDINATES[1], "RHS")
    d.DetectorType, d.BurnedInAnnotation, d.LossyImageCompression = "SCINTILLATOR", "NO", "00"
    d.AcquisitionContextSequence = []
    d.ImagePositionPatient, d.ImageOrientationPatient = ["0", "0", "1"], ["1", "0", "0", "0", "1", "0"]
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.Rows, d.Columns = pixels.shape
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
    d.PixelIntensityRelationship, d.PixelIntensityRelationshipSign = "LIN", 1
    d.RescaleIntercept, d.RescaleSlope, d.RescaleType = "0", "1", "US"
    d.PresentationLUTShape = "IDENTITY"
    pitches = image.detector.channel_pitch_mm, image.detector.column_pitch_mm
    if all(p is not None for p in pitches):
        d.ImagerPixelSpacing = [f"{p:.10g}" for p in pitches]
    d.add_new(Tag("PixelData"), "OW", pixels.astype("<u2", copy=False).tobytes())
    d["PixelData"].is_undefined_length = False


def _report(
    d: Dataset, scan: Scan, image: Radiograph, result: TriageResult, images: list[Dataset], now: datetime
) -> None:
    """Write the report of a judgement: who judged, what was decided, and every object that a person should see."""
    took_ms = sum(result.timings_ms.values())
    told = [f for f in result.findings if f.tier != "note"][:MAX_OBJECTS]
    d.Modality = "TDR"
    d.InstanceNumber = 1
    d.TDRType = "MACHINE"
    d.AlarmDecision, d.AlarmDecisionTime = DECISIONS[result.outcome], _date_time(now)
    d.AbortFlag = "ABORTED" if result.outcome == "UNUSABLE" else "SUCCESS"
    d.ThreatDetectionAlgorithmAndVersion = ["scanlane", _short(result.code_version, 64), _short(result.profile, 64)]
    d.TotalProcessingTime = took_ms
    d.AdditionalScreeningPerformed = "NO"
    d.add_new(Tag(_IMAGE_SCALE[0]), _IMAGE_SCALE[1], 1.0)
    d.ReferencedStudySequence = [_reference(x) for x in images]
    whole = Box(first_column=0, end_column=image.columns, first_channel=0, end_channel=image.detector.channels)
    if result.outcome == "ALARM" and not any(f.tier == "alarm" for f in told):
        told.append(Finding(kind="alarm", score=1.0, tier="alarm", reason="; ".join(result.reasons) or "alarm"))
    d.ThreatSequence = [_threat(k + 1, f, whole, images, image, took_ms, now) for k, f in enumerate(told)]
    d.NumberOfTotalObjects = len(told)
    d.NumberOfAlarmObjects = sum(f.tier == "alarm" for f in told)


def _threat(
    number: int, finding: Finding, whole: Box, images: list[Dataset], image: Radiograph, took_ms: float, now: datetime
) -> Dataset:  # fmt: skip
    box = finding.where if isinstance(finding.where, Box) else whole
    top, bottom = box.first_channel, box.end_channel
    if image.detector.first_channel == "bottom":
        top, bottom = image.detector.channels - bottom, image.detector.channels - top
    extents = 1, bottom - top, box.end_column - box.first_column
    judged = Dataset()
    judged.ThreatCategory = "ANOMALY"
    somewhere = "" if isinstance(finding.where, Box) else " (its place in the image is not known)"
    # a p-value is not the probability of a threat that DICOS has a place for, so it is told in words
    chance = "" if finding.p_value is None else f" (p = {finding.p_value:.2g})"
    judged.ThreatCategoryDescription = f"{finding.kind}: {finding.reason}{chance}{somewhere}"[:10_240]
    judged.ATDAbilityAssessment = "NO_INTERFERENCE"
    judged.ATDAssessmentFlag = FLAGS[finding.tier]
    threat = Dataset()
    threat.PotentialThreatObjectID = number
    base = 0, top, box.first_column
    threat.PTORepresentationSequence = [_representation(x, base, extents) for x in images]
    threat.ATDAssessmentSequence = [judged]
    for (tag, kind), value in (
        (_THREAT_START, _date_time(now)), (_THREAT_END, _date_time(now)), (_THREAT_TIME, took_ms),
    ):  # fmt: skip
        threat.add_new(Tag(tag), kind, value)
    return threat


def _representation(image: Dataset, base: tuple[int, int, int], extents: tuple[int, int, int]) -> Dataset:
    """Return where an object is in an image: base and extents as depth, row, column; the bitmap is all of it."""
    place = Dataset()
    place.ThreatROIBase = [float(n) for n in base]
    place.ThreatROIExtents = [float(n) for n in extents]
    bits = np.packbits(np.ones(math.prod(extents), np.uint8), bitorder="little").tobytes()
    place.ThreatROIBitmap = bits + b"\0" * (len(bits) % 2)
    shown = Dataset()
    shown.ReferencedInstanceSequence = [_reference(image)]
    shown.ThreatROIVoxelSequence = [place]
    return shown


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return reference


def _at(utc_ns: int) -> datetime:
    return datetime.fromtimestamp(utc_ns / 1e9, UTC)


def _date_time(at: datetime) -> str:
    return f"{at:%Y%m%d%H%M%S.%f}+0000"


def _short(text: str, most: int) -> str:
    """Return a text as DICOM's short strings allow it."""
    plain = "".join(c if c.isprintable() and c != "\\" else "_" for c in text).strip()
    return plain[:most] or NOT_KNOWN


# ------------------------------------------------------------------------------------------------------------- checks

_REQUIRED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "PatientID", "OOIType",
    "AcquisitionStatus", "ScanType", "DICOSVersion", "Manufacturer", "DeviceSerialNumber", "InstitutionName",
    "InstanceCreationDate", "InstanceCreationTime", "FrameOfReferenceUID", "PositionReferenceIndicator", "PatientSex",
)  # fmt: skip
_REQUIRED_DX = (
    "KVP", "XRayTubeCurrentInuA", "PresentationIntentType", "ImageType", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel",
    "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "PixelData", "ImagePositionPatient",
    "ImageOrientationPatient", "DetectorType", "BurnedInAnnotation", "LossyImageCompression",
    "AcquisitionContextSequence",
)  # fmt: skip
_REQUIRED_TDR = (
    "TDRType", "AlarmDecision", "AlarmDecisionTime", "AbortFlag", "ThreatDetectionAlgorithmAndVersion",
    "NumberOfTotalObjects", "NumberOfAlarmObjects", "TotalProcessingTime",
)  # fmt: skip
_ALLOWED: dict[str, tuple[str, ...]] = {
    "OOIType": ("CARGO", "VEHICLE", "BAGGAGE", "PERSON", "ANIMAL", "OTHER"),
    "AcquisitionStatus": ("SUCCESSFUL", "ABNORMAL", "IN PROGRESS"),
    "ScanType": ("OPERATIONAL", "NON_OPERATIONAL"),
    "PresentationIntentType": ("FOR PROCESSING", "FOR PRESENTATION"),
    "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2"),
    "TDRType": ("MACHINE", "OPERATOR", "GROUND TRUTH", "AGGREGATE"),
    "AlarmDecision": ("ALARM", "CLEAR", "UNKNOWN"),
    "AbortFlag": ("SUCCESS", "ABORTED"),
    "ThreatCategory": (
        "ANOMALY", "CONTRABAND", "EXPLOSIVE", "LAPTOP", "PHARMACEUTICAL", "PI", "OTHER", "UNKNOWN",
    ),
    "ATDAssessmentFlag": ("HIGH_THREAT", "THREAT", "NO_THREAT", "UNKNOWN"),
}  # fmt: skip


def problems_of(dataset: Dataset, known: set[str] | None = None) -> list[str]:
    """Return what is wrong with a DX or TDR, in words; nothing where it keeps the rules that are checked here.

    known : instances that references may lead to; None: any
    """
    kind = dataset.get("SOPClassUID")
    found = [f"{name} is missing" for name in _REQUIRED if dataset.get(name) in (None, "")]
    if kind == DX:
        found += [f"{name} is missing" for name in _REQUIRED_DX if dataset.get(name) is None]
        found += _wrong_pixels(dataset)
    elif kind == TDR:
        found += [f"{name} is missing" for name in _REQUIRED_TDR if dataset.get(name) is None]
        found += _wrong_report(dataset)
    else:
        found.append(f"SOPClassUID {kind} is neither DX for processing nor a threat report")
    for element in dataset.iterall():
        allowed = _ALLOWED.get(element.keyword)
        if allowed is not None and element.value not in allowed:
            found.append(f"{element.keyword} is {element.value!r}, expected one of {', '.join(allowed)}")
        if known is not None and element.keyword == "ReferencedSOPInstanceUID" and str(element.value) not in known:
            found.append(f"a reference leads to {element.value}, which is not exported with it")
    return found


def _wrong_pixels(d: Dataset) -> Iterator[str]:
    if d.get("PixelData") is not None and d.get("Rows") and d.get("Columns"):
        expected = d.Rows * d.Columns * d.SamplesPerPixel * d.BitsAllocated // 8
        if len(d.PixelData) != expected + expected % 2:
            yield f"PixelData has {len(d.PixelData)} bytes, {expected} are expected"
        if not d.BitsStored <= d.BitsAllocated or d.HighBit != d.BitsStored - 1:
            yield f"bits allocated, stored, highest are {d.BitsAllocated}, {d.BitsStored}, {d.HighBit}"


def _wrong_report(d: Dataset) -> Iterator[str]:
    threats = d.get("ThreatSequence") or []
    if d.get("NumberOfTotalObjects") != len(threats):
        yield f"NumberOfTotalObjects is {d.get('NumberOfTotalObjects')}, but there are {len(threats)}"
    if (d.get("NumberOfAlarmObjects") or 0) > len(threats):
        yield f"NumberOfAlarmObjects is {d.NumberOfAlarmObjects} of {len(threats)}"
    if d.get("AlarmDecision") == "ALARM" and not threats:
        yield "AlarmDecision is ALARM without any object"
    if d.get("AlarmDecision") == "CLEAR" and (d.get("AbortFlag") != "SUCCESS" or d.get("NumberOfAlarmObjects")):
        yield "AlarmDecision is CLEAR, but the detection was aborted or has objects in alarm"
    for threat in threats:
        number = threat.get("PotentialThreatObjectID")
        if not any(s.get("ReferencedInstanceSequence") for s in threat.get("PTORepresentationSequence") or []):
            yield f"object {number} refers to no image"
        if Tag(_THREAT_START[0]) not in threat or Tag(_THREAT_END[0]) not in threat:
            yield f"object {number} has no start or end of its processing"
        if not threat.get("ATDAssessmentSequence"):
            yield f"object {number} has no assessment"


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return the facts of a DICOS object that a person asks for first."""
    wanted = ("Modality", "PatientID", "OOIType", "ScanType", "KVP", "Rows", "Columns", "AlarmDecision", "AbortFlag",
              "NumberOfTotalObjects", "NumberOfAlarmObjects")  # fmt: skip
    return {name: dataset.get(name) for name in wanted if dataset.get(name) is not None}
