"""Judging files by hand: recordings, images, portal daily files, N42 files. The same judgement as beside a lane."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from scanner_io import driver as drivers
from scanner_io import recording
from scanner_io.errors import DataError, LinkLost, ScannerError, StorageError
from scanner_io.foreign import ForeignFiles
from scanner_io.formats import dicom_study, n42, passage_files, portal_daily, raster, spectra
from scanner_io.formats.dicom_object import DicomObject
from scanner_io.formats.dicom_study import DicomPassage
from scanner_io.model import (
    NANOSECONDS,
    DeviceInfo,
    EndOfSource,
    Health,
    Occupancy,
    PortalRecord,
    Quality,
    Scan,
    TriageResult,
)
from scanner_io.storage import make_folder, write_durable
from scanner_io.vendor_record import in_words
from triage.analysis.portal_health import PortalHealth

from .assembly import Assembly, LaneSpec, make_scan_id
from .earlier import EarlierScans
from .lane import Judge

LANE = "offline"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HEAD_BYTES = 4096
MOST_OBJECTS = 256
"""DICOM objects read of a folder."""


class Judged(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One judged passage of a file, or what was wrong with the file."""

    file: str
    passage: str
    kind: str
    scan: Scan | None
    result: TriageResult | None
    error: str | None = None
    health: tuple[str, ...] = ()
    """What began or ended of the device's health since the passage before, in words."""

    def row(self) -> dict[str, Any]:
        """Return the line that scripts read."""
        r = self.result
        return {
            "file": self.file,
            "passage": self.passage,
            "kind": self.kind,
            "start_utc": recording.iso(self.scan.start_utc_ns) if self.scan else None,
            "number": self.scan.portal.number if self.scan and self.scan.portal else None,
            "outcome": r.outcome if r else "UNUSABLE",
            "load": r.load if r else "unknown",
            "container": msgspec.to_builtins(r.container) if r and r.container else None,
            "findings": [
                {
                    "kind": f.kind, "tier": f.tier, "score": f.score, "p_value": f.p_value,
                    "where": msgspec.to_builtins(f.where), "reason": f.reason,
                }
                for f in (r.findings if r else ())
            ],
            "gamma_alarm": r.gamma_alarm if r else None,
            "neutron_alarm": r.neutron_alarm if r else None,
            "gamma_intervals": r.gamma_intervals if r else 0,
            "alarm_intervals": r.alarm_intervals if r else 0,
            "quality": [str(q) for q in (r.quality if r else ())],
            "reasons": list(r.reasons) if r else [],
            "simulated": self.scan.simulated if self.scan else False,
            "sidecar": msgspec.to_builtins(self.scan.sidecar) if self.scan and self.scan.sidecar else None,
            "told": in_words(self.scan.sidecar) if self.scan and self.scan.sidecar else [],
            "attachments": [a.name for a in self.scan.attachments] if self.scan else [],
            "health": list(self.health),
            "error": self.error,
            "timings_ms": r.timings_ms if r else {},
        }  # fmt: skip


def judge_file(
    path: Path,
    judge: Judge,
    options: raster.RasterOptions | None = None,
    n42_settings: n42.N42Settings | None = None,
    earlier: EarlierScans | None = None,
    readers: ForeignFiles | None = None,
) -> Iterator[Judged]:
    """Judge every passage in the file at `path`; a bad file gives one row with its error and never raises.

    earlier : where a recording's container may have been scanned before
    readers : what reads the files, where there are many of them: to start it takes 0.3 s
    """
    with _at_hand(readers) as files:
        yield from _judge_file(path, judge, options, n42_settings, earlier, files)


@contextmanager
def _at_hand(readers: ForeignFiles | None) -> Iterator[ForeignFiles]:
    if readers is not None:
        yield readers
        return
    with ForeignFiles() as own:
        yield own


def _judge_file(
    path: Path, judge: Judge, options: raster.RasterOptions | None, n42_settings: n42.N42Settings | None,
    earlier: EarlierScans | None, readers: ForeignFiles,
) -> Iterator[Judged]:  # fmt: skip
    kind = "unknown"
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device read for ever
            raise DataError(f"{path}: is no plain file")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if head.startswith(HDF5_MAGIC):
            kind = "recording"
            scan = readers.recording(path).scan
            previous = None if earlier is None else earlier.of(scan, readers)
            result = judge(scan, previous=previous)
            yield Judged(file=str(path), passage=scan.scan_id, kind=kind, scan=scan, result=result)
        elif raster.sniff(head) is not None:
            kind = "radiograph"
            scan = image_scan(path, options, readers)
            yield Judged(file=str(path), passage=scan.scan_id, kind=kind, scan=scan, result=judge(scan))
        elif portal_daily.sniff(head):
            kind = "portal"
            damaged = ""
            health = PortalHealth()
            changed: list[str] = []
            utc_offset_h = n42_settings.utc_offset_h if n42_settings else 0.0
            for event in readers.daily(path, utc_offset_h=utc_offset_h):
                changes = [*health.take(event), *([event] if isinstance(event, Health) else [])]
                changed += [f"{recording.iso(c.utc_ns)} {c.component} {c.state}: {c.text}" for c in changes]
                if isinstance(event, Occupancy) and event.record is not None:
                    scan = portal_scan(path, event.record, health.quality(event.record.start_utc_ns))
                    yield Judged(
                        file=str(path), passage=scan.scan_id, kind=kind, scan=scan, result=judge(scan),
                        health=tuple(changed),
                    )  # fmt: skip
                    changed = []
                elif isinstance(event, Health) and event.component == "line" and event.state != "ok":
                    damaged = event.text
            if damaged:
                raise DataError(f"{path}: {damaged}; they may hide a passage")
        elif n42.sniff(head) or path.suffix.lower() in (".n42", *spectra.SUFFIXES):
            kind = "n42"
            ours = n42.sniff(head) or path.suffix.lower() == ".n42"
            yield from _judge_n42(path, judge, n42_settings, readers, ours=ours)
        elif head[128:132] == b"DICM":
            kind = "dicom"
            scan = dicom_scan(path, options, readers)
            yield Judged(file=str(path), passage=scan.scan_id, kind=kind, scan=scan, result=judge(scan))
        elif path.suffix.lower() == ".xml":
            kind = "sidecar"
            offset_h = n42_settings.utc_offset_h if n42_settings and n42_settings.utc_offset_h else None
            scan = sidecar_scan(path, options, readers, utc_offset_h=offset_h)
            yield Judged(file=str(path), passage=scan.scan_id, kind=kind, scan=scan, result=judge(scan))
        else:
            told = f"begins with {head[:12]!r}" if head else "is empty"
            raise DataError(
                f"{path}: {told}; expected a recording, a PNG, JPEG or TIFF image, a portal's daily file, "
                "an N42 file, a DICOM image, or a scanner's sidecar (.xml)"
            )
    except (ScannerError, OSError) as error:
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        yield Judged(file=str(path), passage="", kind=kind, scan=None, result=None, error=text)


def _judge_n42(
    path: Path, judge: Judge, settings: n42.N42Settings | None, readers: ForeignFiles, *, ours: bool
) -> Iterator[Judged]:  # fmt: skip
    """Judge every passage of an N42 file, or of a spectrum file of another kind where `ours` is False.

    Raises DataError for a file without a passage, and after the passages where one may be hidden by damage.
    """
    document = readers.n42(path, settings) if ours else readers.spectra(path)
    lost = [str(p) for p in document.problems if p.counts_lost]
    damaged = f"; counts could not be read: {lost[0]} ({len(lost)} such places)" if lost else ""
    found = n42.passages(document, settings)
    if not found:
        raise DataError(f"{path}: read as {n42.why_none(document)}{damaged}")
    sha256 = _file_sha256(path)
    for number, passage in enumerate(found, 1):
        scan = n42_scan(path, passage, number, sha256)
        yield Judged(file=str(path), passage=scan.scan_id, kind="portal", scan=scan, result=judge(scan))
    if lost:
        raise DataError(f"{path}: read{damaged}; they may hide a passage")


def n42_scan(path: Path, passage: n42.Passage, number: int, sha256: str) -> Scan:
    """Return the passage of that number of the N42 file at `path` as a scan of its own."""
    record = passage.record
    return Scan(
        scan_id=make_scan_id(LANE, record.start_utc_ns, f"{sha256} {number}"), lane=LANE,
        start_utc_ns=record.start_utc_ns, end_utc_ns=record.end_utc_ns, expected=("portal",), portal=record,
        declaration=passage.declaration, devices=(passage.device,), quality=passage.quality, source=str(path),
        source_sha256=sha256,
    )  # fmt: skip


def export_n42(recording_path: Path, out: Path, *, replace: bool = False) -> None:
    """Write the portal part of the recording at `recording_path` as an N42.42-2012 file.

    Raises DataError if it cannot be read or has no portal part, StorageError if the file cannot be written.
    """
    with ForeignFiles() as readers:
        stored = readers.recording(recording_path)
    scan = stored.scan
    if scan.portal is None:
        raise DataError(f"{recording_path}: scan {scan.scan_id} has no portal record, so there is nothing to export")
    if out.exists() and not replace:
        raise StorageError(f"{out}: exists already; give --replace to write over it")
    device = next((d for d in scan.devices if "portal" in d.kinds), None)
    document = n42.of_record(
        scan.portal, device=device, declaration=scan.declaration, simulated=scan.simulated, software=stored.software
    )
    remarks = (*document.remarks, f"scan {scan.scan_id}", *(f"quality: {q}" for q in scan.quality))
    write_durable(out, n42.write(msgspec.structs.replace(document, remarks=remarks)), replace=replace)


def export_dicos(
    recording_path: Path, folder: Path, *, kvp: float | Mapping[str, float] | None = None, replace: bool = False
) -> list[Path]:  # fmt: skip
    """Write the images of a recording, and its result, as DICOS files into `folder`; return their paths.

    kvp : see `dicos.objects_of`

    Raises DataError if it cannot be read or exported, StorageError if a file cannot be written.
    """
    try:
        from scanner_io.formats import dicos
    except ImportError as error:
        raise DataError("DICOS needs pydicom, which is not installed: pip install 'scanlane[dicom]'") from error
    stored = recording.read(recording_path)
    objects = dicos.objects_of(stored.scan, stored.result, kvp=kvp)
    make_folder(folder)
    paths = [folder / o.name for o in objects]
    there = [str(p) for p in paths if p.exists()]
    if there and not replace:
        raise StorageError(f"{', '.join(there)}: there already; give --replace to write over them")
    for path, o in zip(paths, objects, strict=True):
        write_durable(path, dicos.encode(o.dataset), replace=replace)
    return paths


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_scan(
    path: Path, options: raster.RasterOptions | None = None, readers: ForeignFiles | None = None
) -> Scan:  # fmt: skip
    """Return the image file at `path` as a scan of its own. Raises DataError."""
    with _at_hand(readers) as files:
        image, provenance = files.raster_file(path, options=options)
    sha256 = provenance.sha256
    start, end = int(image.column_utc_ns[0]), int(image.column_utc_ns[-1])
    return Scan(
        scan_id=make_scan_id(LANE, start, sha256), lane=LANE, start_utc_ns=start, end_utc_ns=end,
        expected=("radiograph",), radiograph=image, source=str(path), source_sha256=sha256,
    )  # fmt: skip


def dicom_scan(path: Path, options: raster.RasterOptions | None = None, readers: ForeignFiles | None = None) -> Scan:
    """Return the DICOM image at `path` as a scan of its own. Raises DataError, also for one without an image."""
    with _at_hand(readers) as files:
        found = files.dicom(path.read_bytes(), name=str(path), received_utc_ns=path.stat().st_mtime_ns, options=options)
    image = found.radiograph
    if image is None:
        words = "; ".join(found.sidecar.suspicions) or "clear"
        raise DataError(f"{path}: a threat report ({words}), which shows no image to judge")
    (passage,) = dicom_study.passages({str(path): found}, {})
    return _of_dicom(passage)


def dicom_folder_scans(folder: Path, readers: ForeignFiles) -> list[Scan]:
    """Return the passages whose DICOM objects lie in `folder`; both energies of a study are one scan.

    Raises DataError if a file in it is none or cannot be read, or where a study has reports and no image.
    """
    paths = sorted(p for p in folder.iterdir() if p.is_file())
    if not 0 < len(paths) <= MOST_OBJECTS:
        raise DataError(f"{folder}: {len(paths)} files; expected DICOM objects, {MOST_OBJECTS} at most")
    studies: dict[str, dict[str, DicomObject]] = {}
    for path in paths:
        found = readers.dicom(path.read_bytes(), name=str(path), received_utc_ns=path.stat().st_mtime_ns)
        studies.setdefault(found.study or found.instance, {})[str(path)] = found
    scans: list[Scan] = []
    for study, objects in studies.items():
        images = {name: o for name, o in objects.items() if o.radiograph is not None}
        reports = {name: o for name, o in objects.items() if o.radiograph is None}
        if not images:
            raise DataError(f"{', '.join(reports)}: reports of study {study}, of which there is no image beside them")
        scans += map(_of_dicom, dicom_study.passages(images, reports))
    return scans


def _of_dicom(passage: DicomPassage) -> Scan:
    times, sha256 = passage.radiograph.column_utc_ns, passage.shown.sha256
    start, end = int(times[0]), int(times[-1])
    return Scan(
        scan_id=make_scan_id(LANE, start, sha256), lane=LANE, start_utc_ns=start, end_utc_ns=end,
        expected=("radiograph",), radiograph=passage.radiograph, source=passage.name, source_sha256=sha256,
        sidecar=passage.sidecar, quality=passage.quality,
    )  # fmt: skip


def sidecar_scan(
    path: Path, options: raster.RasterOptions | None = None, readers: ForeignFiles | None = None, *,
    utc_offset_h: float | None = None,
) -> Scan:  # fmt: skip
    """Return the passage that the sidecar at `path` describes, with those of its files that lie beside it.

    utc_offset_h : hours by which times without a zone are ahead of UTC; None: they tell none

    A missing or unreadable image is a flag of the scan, not an error. Raises DataError if it is no sidecar.
    """
    with _at_hand(readers) as files:
        contents = path.read_bytes()
        told = files.sidecar(contents, name=str(path), utc_offset_h=utc_offset_h)
        try:
            beside = passage_files.Names(p.name for p in path.parent.iterdir() if p.is_file() and p != path)
        except OSError as error:
            raise DataError(f"{path.parent}: cannot be listed ({error})") from error
        there, missing = passage_files.there_and_missing(told, beside, stem=path.stem)
        flags = passage_files.passage_flags(told, missing)
        sizes = {name: (path.parent / name).stat().st_size for name in there}
        attached = []
        images = {}
        chosen = passage_files.choose_images(there, sizes, {})
        for energy, name in chosen.items():
            try:
                images[energy] = files.raster_file(path.parent / name, options=options)[0]
            except DataError as error:
                flags += (Quality(code="radiograph_unreadable", reason=str(error), fatal=True),)
        for name, listed in there.items():
            if name not in chosen.values():
                small = sizes[name] <= passage_files.KEPT_BYTES
                held = (path.parent / name).read_bytes() if small else b""
                sha256 = _file_sha256(path.parent / name)
                attached.append(passage_files.attachment(name, listed.role, sizes[name], sha256, held))
    if not chosen:
        reason = passage_files.no_image(told, missing, there)
        flags += (Quality(code="radiograph_missing", reason=reason, fatal=True),)
    image = None
    if images:
        image, more = passage_files.join_energies(images)
        flags += more
    start = passage_files.start_utc_ns(told) or (path.stat().st_mtime_ns, "file modification time")
    sha256 = hashlib.sha256(contents).hexdigest()
    length_ns = 0 if image is None else int(image.column_utc_ns[-1] - image.column_utc_ns[0])
    return Scan(
        scan_id=make_scan_id(LANE, start[0], sha256), lane=LANE, start_utc_ns=start[0], end_utc_ns=start[0] + length_ns,
        expected=("radiograph",), radiograph=image, source=str(path), source_sha256=sha256, quality=flags,
        sidecar=told, attachments=tuple(attached),
    )  # fmt: skip


def n42_scans(path: Path, readers: ForeignFiles) -> list[Scan]:
    """Return every passage of an N42 file as a scan. Raises DataError where it has none, or counts that are lost."""
    document = readers.n42(path)
    if lost := [str(p) for p in document.problems if p.counts_lost]:
        raise DataError(f"{path}: counts could not be read: {lost[0]} ({len(lost)} such places)")
    sha256 = _file_sha256(path)
    found = n42.passages(document)
    if not found:
        raise DataError(f"{path}: read as {n42.why_none(document)}")
    return [n42_scan(path, passage, number, sha256) for number, passage in enumerate(found, 1)]


def scans_of(path: Path, readers: ForeignFiles) -> list[Scan]:
    """Return the scans in an N42 file or a folder of DICOM objects, or the one in another file.

    That is an image, DICOM file, sidecar or recording. Raises DataError for other files.
    """
    if path.is_dir():
        return dicom_folder_scans(path, readers)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if head.startswith(HDF5_MAGIC):
        return [readers.recording(path).scan]
    if raster.sniff(head) is not None:
        return [image_scan(path, readers=readers)]
    if head[128:132] == b"DICM":
        return [dicom_scan(path, readers=readers)]
    if n42.sniff(head) or path.suffix.lower() == ".n42":
        return n42_scans(path, readers)
    if path.suffix.lower() == ".xml":
        return [sidecar_scan(path, readers=readers)]
    raise DataError(f"{path}: no image, DICOM file, N42 file, sidecar or recording")


def portal_scan(path: Path, record: PortalRecord, quality: tuple[Quality, ...] = ()) -> Scan:
    """Return one passage of the daily file at `path` as a scan of its own.

    quality : flags of the portal's health while the record was made
    """
    if record.start_utc_ns < NANOSECONDS * 86_400 * 365 * 10:
        reason = "the lines carry no stamps: when the passage was, and whether lines are missing, is not known"
        quality = (*quality, Quality(code="portal_no_time", reason=reason))
    simulated = DeviceInfo(
        vendor="", model="portal daily file", kinds=("portal",), address=str(path), simulated=True,
        note="SIMULATED: by the portal's own set-up lines",
    )  # fmt: skip
    return Scan(
        scan_id=make_scan_id(LANE, record.start_utc_ns, f"{path.name} {record.number}"), lane=LANE,
        start_utc_ns=record.start_utc_ns, end_utc_ns=record.end_utc_ns, expected=("portal",), portal=record,
        source=str(path), quality=quality, devices=(simulated,) if record.simulated else (),
    )  # fmt: skip


class Replayed(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A recording played again: same : the new judgement equals the stored one bit for bit (None: none was stored)."""

    file: str
    scan: Scan
    result: TriageResult
    stored: TriageResult | None
    same: bool | None
    differs: tuple[str, ...]


def replay_file(path: Path, judge: Judge, speed: float, readers: ForeignFiles | None = None) -> Replayed:
    """Play the recording at `path` through driver, assembly and judgement, as beside a lane.

    readers : what reads recordings, where there are many of them: to start it takes 0.3 s

    Raises DataError if it cannot be read or gives another number of scans than one.
    """
    with _at_hand(readers) as files:
        return _replay(path, judge, speed, files)


def _replay(path: Path, judge: Judge, speed: float, readers: ForeignFiles) -> Replayed:
    stored = readers.recording(path)
    module = drivers.load("replay")
    source = module.Replay(module.Config(paths=(str(path),), speed=speed), readers)
    spec = LaneSpec(
        name=stored.scan.lane, expected=stored.scan.expected, join_window_s=3600.0, join_wait_s=float("inf"),
        passage_timeout_s=float("inf"),
    )  # fmt: skip
    assembly = Assembly(spec)
    scans = []
    try:
        source.open()
        while True:
            event = source.read(1.0)
            if isinstance(event, EndOfSource):
                break
            if event is not None:
                scans += assembly.feed(0, event, 0.0)
    except LinkLost as error:
        raise DataError(str(error)) from error
    finally:
        source.close()
    scans += assembly.flush()
    if len(scans) != 1:
        raise DataError(f"{path}: gave {len(scans)} scans when played, expected 1")
    result = judge(scans[0].scan)
    old = stored.result
    same = None if old is None else old.judgement() == result.judgement()
    return Replayed(
        file=str(path), scan=scans[0].scan, result=result, stored=old, same=same,
        differs=() if old is None or same else differences(old, result),
    )  # fmt: skip


def differences(old: TriageResult, new: TriageResult) -> tuple[str, ...]:
    """Return in words which parts of two judgements differ."""
    lines = []
    for name in TriageResult.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if name not in ("timings_ms", "scan_id") and before != after:
            lines.append(f"{name}: stored {str(before)[:120]}, now {str(after)[:120]}")
    return tuple(lines)
