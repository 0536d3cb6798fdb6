"""DICOM and DICOS files from other systems: images as radiographs, threat reports as the vendor's detections.

Counts are the stored values, masked to the bits that are stored; signed ones are moved up by half their range, so that
no count is lost. Slope and intercept of a rescaling stand in the note and are not applied: counts stay. Which end
is air is told by Pixel Intensity Relationship Sign, which is of stored values, else found in the image: MONOCHROME1
and 2 say only which grey a screen shows.

Refused by name: colour, several frames, one bit, 32 bits, floats, more pixels than accepted, pixel data that are cut.
Images that a lossy code has been at are flagged. Pixel data are decoded by pydicom's plug-ins (extra `dicom`).

Source: DICOM PS3.3 C.7.6.3 (image pixel), C.8.11.3 (DX image: intensity relationship and sign), C.11.1 (modality LUT),
C.7.6.1.1.5 (lossy image compression); NEMA IIC 1 as in `dicos`.
"""

from __future__ import annotations

import io
import re
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from scanner_io.formats.iso6346 import check_digit_ok

from ..errors import DataError, TruncatedError
from ..model import Quality, Radiograph
from ..vendor_record import Detection, Instant, NumberRead, Sidecar
from .dicom_object import DicomAsk, DicomObject
from .dicos import DX, TDR
from .raster import RasterHeader, RasterOptions, check_header, grey_of, radiograph_of
from .times import utc_ns

LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000})
"""Transfer syntaxes that may have changed values; JPEG 2000 under its general name is taken for lossy."""


_ALGORITHM = 0x40101029


def read_dicom(contents: bytes, name: str, ask: DicomAsk) -> DicomObject:
    """Return what a DICOM file (Part 10) holds.

    Raises DataError saying what is wrong with it, TruncatedError if its pixel data end early.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every odd value; what matters is checked here
            return _read(contents, name, ask)
    except (DataError, MemoryError):
        raise
    except (InvalidDicomError, EOFError) as error:
        raise DataError(f"{name}: no DICOM file ({error})") from error
    except Exception as error:  # pydicom raises whatever the values of a file make Python raise
        raise DataError(f"{name}: cannot be read as DICOM ({type(error).__name__}: {str(error)[:300]})") from error


def _read(contents: bytes, name: str, ask: DicomAsk) -> DicomObject:
    dataset = pydicom.dcmread(io.BytesIO(contents))
    start, how = _start(dataset, ask)
    kind = str(dataset.get("SOPClassUID", ""))
    told = _told(dataset, kind, ask)
    made = DicomObject(
        study=str(dataset.get("StudyInstanceUID", "")), series=str(dataset.get("SeriesInstanceUID", "")),
        instance=told.scan_id, sop_class=kind, start_utc_ns=start, sidecar=told, energy=_energy(dataset),
    )  # fmt: skip
    if kind == TDR:
        return made
    if "Rows" not in dataset:
        raise DataError(f"{name}: {UID(kind).name or 'an object without a class'}: holds no image")
    radiograph = _radiograph(dataset, contents, name, ask, start, how)
    return msgspec.structs.replace(made, radiograph=radiograph)


# ------------------------------------------------------------------------------------------------------------ image


def _radiograph(dataset: Dataset, contents: bytes, name: str, ask: DicomAsk, start: int, how: str) -> Radiograph:
    header = _header(dataset, name)
    options = ask.options
    try:
        check_header(header, options)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    values, marks = _values(dataset, header, name)
    signed, stored = bool(dataset.get("PixelRepresentation", 0)), int(dataset.get("BitsStored", header.bits))
    notes = [f"{stored} of {header.bits} bits", str(dataset.PhotometricInterpretation)]
    if signed:
        values = (values.astype(np.int32) + (1 << (header.bits - 1))).astype(np.uint16)
        notes.append(f"signed: counts are values + {1 << (header.bits - 1)}")
    slope, intercept = float(dataset.get("RescaleSlope") or 1.0), float(dataset.get("RescaleIntercept") or 0.0)
    if (slope, intercept) != (1.0, 0.0):
        notes.append(f"rescale {slope:g} x + {intercept:g}")
    options = _completed(dataset, options, stored, signed)
    upright = values.T if options.detector_lines == "columns" else values
    radiograph, _ = radiograph_of(
        np.ascontiguousarray(upright), header, marks=marks, contents=contents, name=name, start_utc_ns=start,
        start_how=how, options=options,
    )  # fmt: skip
    flags = radiograph.detector.flags + _lossy(dataset)
    note = f"{'; '.join(notes)}; {radiograph.detector.note}"
    detector = msgspec.structs.replace(radiograph.detector, flags=flags, note=note)
    return msgspec.structs.replace(radiograph, detector=detector)


def _header(dataset: Dataset, name: str) -> RasterHeader:
    """Return what the file says of its image. Raises DataError for what is no radiograph."""
    bits, samples = int(dataset.get("BitsAllocated", 0)), int(dataset.get("SamplesPerPixel", 1))
    frames = int(dataset.get("NumberOfFrames") or 1)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    what = ""
    if bits == 1:
        what = "1-bit pixels, a mask; expected an image of 8 or 16 bits"
    elif bits not in (8, 16):
        what = f"{bits}-bit pixels, expected 8 or 16 bits; have the device export counts of 16 bits"
    elif frames != 1:
        what = f"{frames} frames, a volume or a film; expected one projection"
    elif photometric not in ("MONOCHROME1", "MONOCHROME2", "RGB"):
        what = f"{photometric or 'no photometric interpretation'}; expected MONOCHROME1, MONOCHROME2 or grey RGB"
    elif dataset.get("PixelData") is None:
        what = "no pixel data, or floats; expected integers"
    if what:
        raise DataError(f"{name}: {what}")
    return RasterHeader(
        format="dicom", columns=int(dataset.Columns), rows=int(dataset.Rows), bits=bits, samples=samples
    )


def _values(dataset: Dataset, header: RasterHeader, name: str) -> tuple[npt.NDArray[Any], float]:
    """Return the stored values, (rows, columns), of the stored bits, and the share of coloured marks."""
    syntax = dataset.file_meta.TransferSyntaxUID
    length = header.rows * header.columns * header.samples * header.bits // 8
    if not syntax.is_compressed and len(dataset.PixelData) < length:
        raise TruncatedError(
            f"{name}: pixel data of {len(dataset.PixelData)} bytes, {header.rows} x {header.columns} pixels of "
            f"{header.bits} bits have {length}"
        )
    try:
        pixels = dataset.pixel_array
    except RuntimeError as error:
        if syntax == JPEGExtended12Bit and "pylibjpeg" not in get_decoder(syntax).available_plugins:
            raise DataError(
                f"{name}: {syntax.name}, {dataset.get('BitsStored')} bits: the extra `dicom` decodes no JPEG of more "
                "than 8 bits; have the device send lossless JPEG, or install the extra `dicom12`"
            ) from error
        text = " ".join(str(error).split())
        raise DataError(f"{name}: {syntax.name}: cannot be decoded ({text[:300]})") from error
    except ValueError as error:
        raise TruncatedError(f"{name}: {syntax.name}: pixel data end early or are damaged ({error})") from error
    if pixels.shape[:2] != (header.rows, header.columns) or pixels.dtype.itemsize * 8 != header.bits:
        raise DataError(f"{name}: decoded to {pixels.shape} {pixels.dtype}, the header says {header}")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    try:
        grey, marks = grey_of(pixels)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    stored = int(dataset.get("BitsStored", header.bits))
    if pixels.dtype.kind == "u" and stored < header.bits:
        grey = grey & np.array((1 << stored) - 1, grey.dtype)  # overlays may lie in the bits above
    return (grey if pixels.dtype.kind == "i" else grey.astype(np.uint16)), marks


def _completed(dataset: Dataset, options: RasterOptions, stored: int, signed: bool) -> RasterOptions:
    """Return the options with what the file itself tells in the place of what was not set."""
    pitches: dict[str, float] = {}
    spacing = dataset.get("ImagerPixelSpacing") or dataset.get("PixelSpacing")
    if spacing is not None and len(spacing) == 2:
        pitches = dict(zip(("channel_pitch_mm", "column_pitch_mm"), map(float, spacing), strict=True))
    changes: dict[str, Any] = {
        field: pitch for field, pitch in pitches.items() if getattr(options, field) is None and 0 < pitch < 1000
    }
    sign = str(dataset.get("PixelIntensityRelationshipSign", ""))
    if options.polarity == "auto" and sign in ("1", "-1"):
        changes["polarity"] = "air_bright" if sign == "1" else "air_dark"
    if options.saturation_value is None and stored < int(dataset.BitsAllocated) and not signed:
        changes["saturation_value"] = (1 << stored) - 1
    return msgspec.structs.replace(options, **changes)


def _lossy(dataset: Dataset) -> tuple[Quality, ...]:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in LOSSY and str(dataset.get("LossyImageCompression", "00")) != "01":
        return ()
    ratio = dataset.get("LossyImageCompressionRatio")
    told = f", compressed {ratio}:1" if ratio else ""
    reason = f"{syntax.name}{told}: values were changed to save space, and small objects may have gone with them"
    return (Quality(code="image_lossy", reason=reason),)


# ------------------------------------------------------------------------------------------------- what it says else


def _start(dataset: Dataset, ask: DicomAsk) -> tuple[int, str]:
    """Return when the image was made, and by which element."""
    texts = [("AcquisitionDateTime", str(dataset.get("AcquisitionDateTime") or ""))]
    for part in ("Acquisition", "Content", "Series", "Study"):
        day, time = (str(dataset.get(f"{part}{what}") or "") for what in ("Date", "Time"))
        texts.append((f"{part}Date and Time", day + time if day and time else ""))
    zone = str(dataset.get("TimezoneOffsetFromUTC") or "")
    for element, text in texts:
        moment = _moment(text, zone, ask.utc_offset_h)
        if moment is not None and moment.utc_ns is not None and moment.utc_ns > 0:
            return moment.utc_ns, f"{element}, zone {moment.zone}"
    return ask.received_utc_ns, "when it was received"


def _moment(text: str, zone: str, utc_offset_h: float | None) -> Instant | None:
    """Return a DICOM date and time (DT, or DA and TM together); None where there is none."""
    found = re.fullmatch(r"(\d{8})(\d{2})(\d{2})?(\d{2})?(?:\.(\d{1,6}))?([+-]\d{4})?", text)
    if found is None:
        return None
    day, hour, minute, second, fraction, own = found.groups()
    try:
        local = datetime.strptime(f"{day}{hour}{minute or '00'}{second or '00'}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    told = own or zone
    hours = utc_offset_h
    if re.fullmatch(r"[+-]\d{4}", told):
        hours = (1 if told[0] == "+" else -1) * (int(told[1:3]) + int(told[3:]) / 60)
    if hours is None:
        return Instant(raw=text)
    try:
        whole_ns = utc_ns(local, timedelta(hours=hours))
    except ValueError:  # a filler of the years 1 or 9999
        return Instant(raw=text)
    at_ns = whole_ns + int((fraction or "0").ljust(9, "0"))
    return Instant(raw=text, utc_ns=at_ns, zone="told" if told else "assumed")


def _energy(dataset: Dataset) -> str:
    try:
        kvp = float(dataset.get("KVP") or 0)
    except (TypeError, ValueError):
        return ""
    return f"{kvp / 1000:g}MV" if kvp >= 1000 else f"{kvp:g}kV" if kvp > 0 else ""


def _told(dataset: Dataset, kind: str, ask: DicomAsk) -> Sidecar:
    """Return what a file says of its passage; "patient" is the object of inspection."""
    problems = []
    numbers = []
    for slot, text in enumerate((dataset.get("PatientID"), *_several(dataset.get("OtherPatientIDs")))):
        number = re.sub(r"[\s-]", "", str(text or "")).upper()
        if number:
            good = check_digit_ok(number)
            if good is False:
                problems.append(f"container {number}: its check digit does not fit")
            numbers.append(NumberRead(text=number[:64], check_digit_ok=good, slot=slot))
    station, created = str(dataset.get("StationName") or ""), _moment(
        f"{dataset.get('InstanceCreationDate') or ''}{dataset.get('InstanceCreationTime') or ''}",
        str(dataset.get("TimezoneOffsetFromUTC") or ""), ask.utc_offset_h,
    )  # fmt: skip
    detections, suspicions = _report(dataset) if kind == TDR else ((), ())
    return Sidecar(
        dialect="dicos" if ".501." in kind else "dicom", software=str(dataset.get("Manufacturer") or "unknown"),
        version=str(dataset.get("SoftwareVersions") or "")[:64], scan_id=str(dataset.get("SOPInstanceUID") or ""),
        site=str(dataset.get("InstitutionName") or "")[:64], system=station[:64], created=created,
        comments=str(dataset.get("ImageComments") or "")[:2000], containers=tuple(numbers), detections=detections,
        suspicions=suspicions, problems=tuple(problems),
    )  # fmt: skip


def _several(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _report(dataset: Dataset) -> tuple[tuple[Detection, ...], tuple[str, ...]]:
    """Return the detections of a threat report, and by what it says that it suspects something."""
    decision, abort = str(dataset.get("AlarmDecision") or ""), str(dataset.get("AbortFlag") or "")
    ran = abort == "SUCCESS"
    algorithm = " ".join(map(str, _several(dataset[_ALGORITHM].value if _ALGORITHM in dataset else None)))
    found = [
        Detection(
            kind="TDR", meaning=str(dataset.get("TDRType") or "unknown"), ran=ran, status=abort, result=decision,
            software_version=algorithm[:200],
        )
    ]  # fmt: skip
    for threat in dataset.get("ThreatSequence") or []:
        for assessed in threat.get("ATDAssessmentSequence") or []:
            words = [str(assessed.get(f"ThreatCategory{d}") or "") for d in ("", "Description")]
            found.append(
                Detection(
                    kind="PTO", meaning=" ".join(w for w in words if w) or "unknown", ran=ran, status=abort,
                    result=str(assessed.get("ATDAssessmentFlag") or ""),
                    parameters=(("probability", str(assessed.get("ATDAssessmentProbability") or "")),),
                )
            )  # fmt: skip
    suspicions = () if ran and decision == "CLEAR" else (f"threat report: decision {decision or '?'}, {abort or '?'}",)
    return tuple(found), suspicions


def warm_up() -> None:
    """Load pydicom's decoders by decoding an image made here."""
    for syntax in sorted({*LOSSY, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless}):
        get_decoder(syntax).available_plugins  # noqa: B018 -- looks for the libraries, which imports them
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = DX
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 8, 8, 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.set_pixel_data(np.arange(64, dtype=np.uint16).reshape(8, 8), "MONOCHROME2", 16)
    dataset.compress(RLELossless)
    dataset.decompress()
