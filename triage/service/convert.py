"""`scanlane convert`: one scan from one form into another, every count kept.

    recording -> NAME.png or NAME.tif   NAME.ENERGY.png of 16 bits, upright, and NAME.scan.json with all but the counts
    NAME.scan.json -> recording         the same scan again
    recording -> NAME.n42               the portal part
    recording -> a folder               DICOS objects, and a threat report where it was judged
    recording -> NAME.evidence.zip      a bundle of recording, judgement and pictures, checked by `scanlane verify`
    NAME.evidence.zip -> recording      the recording in it, byte for byte
    a folder of DICOM objects -> recording     both energies of a study are one scan
    image, DICOM, sidecar, N42 -> recording    several passages of one file: NAME.1.scan.h5, NAME.2.scan.h5 …

Pictures of 16 bits are what other programs read; what they cannot hold, references, times, the portal and the papers,
stands in the JSON file beside them, with the hash of the counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from scanner_io import __version__, bundle, recording
from scanner_io.errors import DataError, StorageError
from scanner_io.foreign import ForeignFiles
from scanner_io.formats.raster import RasterOptions
from scanner_io.model import MAX_PIXELS, DetectorState, EndReason, Radiograph, Scan
from scanner_io.storage import make_folder, write_durable

from . import offline

PICTURES = (".png", ".tif", ".tiff")
BESIDE = ".scan.json"
MOST_BYTES = 256 << 20
PREVIEW_WIDTH = 2400
"""Columns of a bundle's preview."""


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    """A radiograph without its counts. files : of the energies, in their order, beside this one"""

    files: tuple[str, ...]
    pixels_hash: str
    detector: DetectorState
    column_utc_ns: np.ndarray[Any, Any]
    end_reason: EndReason = "complete"
    dropped_columns: int = 0
    position_mm: np.ndarray[Any, Any] | None = None


class _Beside(msgspec.Struct, frozen=True, kw_only=True):
    """The file beside pictures: the scan without its radiograph, and that without its counts."""

    scanlane_scan: int
    scan: Scan
    image: _Image


class _Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    values: list[Any]


def convert(
    source: Path, target: Path, *, kvp: float | Mapping[str, float] | None = None, replace: bool = False
) -> list[Path]:  # fmt: skip
    """Convert the scan at `source` to the form that the name of `target` asks for; return the files written.

    Raises DataError if it cannot be read or has not what is asked for, StorageError if a file cannot be written.
    """
    name = target.name.lower()
    if name.endswith(recording.SUFFIX):
        return _to_recordings(source, target, replace)
    if name.endswith(bundle.SUFFIX):
        return _to_bundle(source, target, replace)
    if name.endswith(".n42"):
        offline.export_n42(source, target, replace=replace)
        return [target]
    if name.endswith(PICTURES):
        return _to_pictures(source, target, replace)
    if target.suffix and not target.is_dir():
        files = (recording.SUFFIX, bundle.SUFFIX, ".n42", *PICTURES)
        known = f"{', '.join('*' + s for s in files)}, or a folder for DICOS"
        raise DataError(f"{target}: no form is known by this name; expected {known}")
    return offline.export_dicos(source, target, kvp=kvp, replace=replace)


def _to_pictures(source: Path, target: Path, replace: bool) -> list[Path]:
    with ForeignFiles() as readers:
        scan = readers.recording(source).scan
    image = scan.radiograph
    if image is None:
        raise DataError(f"{source}: scan {scan.scan_id} has no radiograph, so there is no picture of it")
    paths = [target.with_name(f"{target.stem}.{energy}{target.suffix}") for energy in image.detector.energies]
    beside = target.with_name(target.stem + BESIDE)
    there = [str(p) for p in (*paths, beside) if p.exists()]
    if there and not replace:
        raise StorageError(f"{', '.join(there)}: there already; give --replace to write over them")
    for number, path in enumerate(paths):
        picture = _encoded(target.suffix.lower(), np.ascontiguousarray(image.upright(number)), path)
        write_durable(path, picture, replace=replace)
    told = _Beside(
        scanlane_scan=1, scan=msgspec.structs.replace(scan, radiograph=None),
        image=_Image(
            files=tuple(p.name for p in paths), pixels_hash=recording.pixels_hash(image), detector=image.detector,
            column_utc_ns=image.column_utc_ns, end_reason=image.end_reason, dropped_columns=image.dropped_columns,
            position_mm=image.position_mm,
        ),
    )  # fmt: skip
    write_durable(beside, msgspec.json.encode(told, enc_hook=_plain), replace=replace)
    return [*paths, beside]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _Array(value.dtype.str, value.shape, value.ravel().tolist())
    raise NotImplementedError(type(value).__name__)


def _array(kind: Any, value: Any) -> Any:
    told = msgspec.convert(value, _Array)
    return np.array(told.values, np.dtype(told.dtype)).reshape(told.shape)


def _to_bundle(source: Path, target: Path, replace: bool) -> list[Path]:
    """Make an evidence bundle of a recording alone; the console makes one with what was decided and said of it."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error})") from error
    with ForeignFiles() as readers:
        found = readers.recording_of(data, str(source))
    scan, result = found.scan, found.result
    energies = () if scan.radiograph is None else scan.radiograph.detector.energies
    told = {
        "scan_id": scan.scan_id, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "lane": scan.lane,
        "start_utc": recording.iso(scan.start_utc_ns), "simulated": scan.simulated, "energies": energies,
        "outcome": "not judged" if result is None else result.outcome, "load": None if result is None else result.load,
        "findings": [] if result is None else result.findings, "judgement": result, "config": found.config,
        "declaration": None if scan.declaration is None else msgspec.to_builtins(scan.declaration),
        "decisions": [], "opinions": [], "signed_opinions": [], "regions": [], "history": [],
        "holds": "the recording alone; decisions, opinions and history are with the service that delivered it",
        "made_by": "scanlane convert", "software": f"scanlane {__version__}",
    }  # fmt: skip
    told = msgspec.to_builtins(told)
    files: dict[str, bytes | memoryview] = {
        f"{scan.scan_id}{recording.SUFFIX}": data,
        bundle.TOLD: msgspec.json.format(msgspec.json.encode(told), indent=1),
        "summary.html": bundle.summary(told).encode(),
    }
    if scan.radiograph is not None:
        for number, energy in enumerate(energies):
            picture = np.ascontiguousarray(scan.radiograph.upright(number))
            files[bundle.energy_name(energy)] = _encoded(".png", picture, target)
        files["preview.png"] = _encoded(".png", _preview(picture), target)
    write_durable(target, bundle.pack(files), replace=replace)
    return [target]


def _preview(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an upright picture in 8 bits, at most PREVIEW_WIDTH wide, its middle 98 % from black to white."""
    scale = min(1.0, PREVIEW_WIDTH / picture.shape[1])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1.0 else picture
    low, high = np.percentile(small, (1.0, 99.0))
    shown: np.ndarray[Any, Any] = np.clip((small - low) * (255.0 / max(high - low, 1.0)), 0, 255).astype(np.uint8)
    return shown


def _encoded(suffix: str, picture: np.ndarray[Any, Any], path: Path) -> bytes:
    done, data = cv2.imencode(suffix, picture)
    if not done:
        raise StorageError(f"{path}: a picture cannot be encoded as {suffix}")
    return data.tobytes()


def _to_recordings(source: Path, target: Path, replace: bool) -> list[Path]:
    with ForeignFiles() as readers:
        if source.name.lower().endswith(bundle.SUFFIX):
            make_folder(target.parent)
            write_durable(target, bundle.recording_in(source, readers), replace=replace)
            return [target]
        if source.name.lower().endswith(BESIDE):
            scans = [_from_pictures(source, readers)]
        else:
            scans = offline.scans_of(source, readers)
    stem = target.name[: -len(recording.SUFFIX)]
    numbered = [target.with_name(f"{stem}.{n}{recording.SUFFIX}") for n in range(1, len(scans) + 1)]
    paths = [target] if len(scans) == 1 else numbered
    if (there := [str(p) for p in paths if p.exists()]) and not replace:
        raise StorageError(f"{', '.join(there)}: there already; give --replace to write over them")
    make_folder(target.parent)
    for path, scan in zip(paths, scans, strict=True):
        recording.write(path, scan, replace=replace)
    return paths


def _from_pictures(source: Path, readers: ForeignFiles) -> Scan:
    try:
        if source.stat().st_size > MOST_BYTES:
            raise DataError(f"{source}: larger than {MOST_BYTES} bytes, which none of ours is")
        told = msgspec.json.decode(source.read_bytes(), type=_Beside, dec_hook=_array)
    except (OSError, msgspec.MsgspecError, ValueError, TypeError) as error:
        raise DataError(f"{source}: cannot be read as a scan beside its pictures ({error})") from error
    detector = told.image.detector
    counts = []
    for name, energy in zip(told.image.files, detector.energies, strict=True):
        if Path(name).name != name:
            raise DataError(f"{source}: names a picture {name[:80]!r} outside its folder")
        options = RasterOptions(
            polarity="air_bright", saturation_value=65_535, dark=0.0, air=65_535.0, energy=energy,
            first_channel=detector.first_channel, max_pixels=MAX_PIXELS,
        )  # fmt: skip
        read = readers.raster_file(source.with_name(name), options=options)[0].counts[0]
        # an upright picture shows the first channel on top, whichever end of the detector that is
        counts.append(np.ascontiguousarray(read[:, ::-1]) if detector.first_channel == "bottom" else read)
    image = Radiograph(
        detector=detector, counts=tuple(counts), column_utc_ns=told.image.column_utc_ns,
        end_reason=told.image.end_reason, dropped_columns=told.image.dropped_columns,
        position_mm=told.image.position_mm,
    )  # fmt: skip
    if recording.pixels_hash(image) != told.image.pixels_hash:
        raise DataError(f"{source}: the counts of {', '.join(told.image.files)} are not those that were written")
    return msgspec.structs.replace(told.scan, radiograph=image)
