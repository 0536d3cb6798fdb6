"""The recording: one file per scan, all that a lane saw and was told of one passage, and the result once judged.

HDF5 in NeXus shape, so that silx, h5web and HDFView open it on the radiograph:

    /                           @default=entry  @schema_version  @scanlane_version  @simulated
                                @pixels_hash (raw counts)  @content_sha256 (all the rest)  @seal (see `seal`)
    /entry            NXentry   @default=data   title start_time end_time entry_identifier lane expected quality
    /entry/data       NXdata    @signal @auxiliary_signals @axes=[y, x]; hard links to the detectors' images
    /entry/instrument NXinstrument: detector_<energy> NXdetector: data dark flatfield pixel_mask saturation_value
    /entry/monitor_rpm NXmonitor: gamma neutron flags backgrounds raw_lines
    /entry/declaration, /entry/config, /entry/devices    JSON text
    /entry/declaration_match                             JSON text; how it was found, where it came in advance
    /entry/sidecar, /entry/attachments                   JSON text; what the scanner's own system told, where it did
    /entry/process    NXprocess: result (JSON text), outcome; only once judged

The raw counts are stored once, upright: `detector_<energy>/data[y, x]`, y from the top of the picture to the bottom, x
in the order in which the columns were read. `read` gives them back time-major, bit for bit. (Measured: a transposition
in blocks costs 7 ms per 20 MB where a second, time-major copy would cost half as much again in space and time.)

libhdf5 never hears of an error of the disk: after ENOSPC its flush is a segmentation fault. It writes to a
`storage.Part`, which keeps the first error for its commit. Every data set carries Fletcher32: without it, flipped bits
of compressed data read back wrong with no error. What Fletcher32 does not cover is under the seal that follows HDF5's
own bytes; readers of HDF5 pay no heed to it. Recordings from before there was one are read as they were, and
the very first, whose texts have no checksum either, by a process of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeVar

import h5py
import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from . import __version__, seal
from .errors import DataError
from .hdf5_safety import refuse_unsafe
from .model import (
    MAX_PIXELS,
    Declaration,
    DeclarationMatch,
    DetectorState,
    DeviceInfo,
    LaneEvent,
    PortalRecord,
    PortalSettings,
    Quality,
    Radiograph,
    Scan,
    TriageResult,
    is_scan_id,
)
from .storage import Part
from .vendor_record import Attachment, Sidecar

SCHEMA_VERSION = 2
"""2: @pixels_hash, "blake3:…", where 1 had @pixels_sha256. Both are read."""
SUFFIX = ".scan.h5"
_SEAL = seal.MAGIC.decode().strip()
Codec = Literal["bitshuffle-lz4", "gzip", "none"]

_MAX_TEXT = 32 << 20
_CHUNK = (256, 2048)  # 1 MiB of uint16
_AHEAD = 8
"""Chunks that may be packed before they are written."""
_T = TypeVar("_T")


class Recording(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What a file holds: the scan, the configuration in force, and the result once judged."""

    scan: Scan
    config: dict[str, Any]
    result: TriageResult | None
    software: str
    pixels_hash: str
    content_sha256: str
    sealed: bool
    """Every byte of the file was compared with a hash; an older recording has none of its structure."""
    first_form: bool = False
    """Written before there was a hash of all but the counts: its words and numbers are as they are found."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a recording: which check, where in the file, what was seen."""

    check: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.where}: {self.text}"


def iso(utc_ns: int) -> str:
    """Return ISO 8601 UTC with nanoseconds, e.g. `2026-01-31T09:45:01.250000000Z`."""
    seconds, rest = divmod(utc_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


# ---------------------------------------------------------------------------------------------------------- writing


def build(
    scan: Scan,
    *,
    config: dict[str, Any] | None = None,
    result: TriageResult | None = None,
    codec: Codec = "bitshuffle-lz4",
) -> bytes:
    """Return the bytes of a recording of `scan`.

    config : the configuration in force, JSON-serialisable
    codec : `bitshuffle-lz4` (fast; needs hdf5plugin to read), `gzip` (opens anywhere, 10x slower), `none`

    Raises DataError if `result` is of another scan.
    """
    with Part(None, _room(scan)) as part:
        _fill(part, scan, config or {}, result, codec, None)
        return bytes(part.contents)


class Packer(Protocol):
    """Brings chunks of counts into the form in which the filters of a codec store them; called by several threads."""

    def room(self, shape: tuple[int, int], codec: Codec) -> int:
        """Return the most bytes that a chunk of (rows, columns) can take."""

    def pack(
        self, part: npt.NDArray[np.uint16], first_channel: Literal["top", "bottom"], shape: tuple[int, int],
        codec: Codec, out: npt.NDArray[np.uint8],
    ) -> int:  # fmt: skip
        """Write the chunk to `out` and return its length.

        part : (columns, channels) uint16, the counts of the chunk, time-major; channels are contiguous
        first_channel : where the part's first channel lies in the upright chunk
        shape : (rows, columns) of the chunk, not less than the part's; what lies beyond it is zero
        out : (room,) uint8
        """

    def intact(self, chunk: npt.NDArray[np.uint8], codec: Codec) -> bool:
        """Return whether a chunk in stored form, (n,) uint8, has the checksum that it ends with."""


def write(
    path: Path,
    scan: Scan,
    *,
    config: dict[str, Any] | None = None,
    result: TriageResult | None = None,
    codec: Codec = "bitshuffle-lz4",
    replace: bool = False,
    hashed: bool = True,
    packer: Packer | None = None,
    counts_from: Path | None = None,
) -> str:
    """Write a recording durably and return the SHA-256 of its bytes (hex), or nothing if it is not to be `hashed`.

    packer : packs the counts in libhdf5's place, faster; what is stored reads the same

    counts_from : a recording of the same counts, perhaps `path` itself: its chunks are copied as they are stored, each
        checked against its checksum, and its hash of the counts is kept; needs a packer

    Chunks go to the disk as they are packed: a recording takes no memory of its own size.

    Raises StorageError (nothing visible is left behind) and DataError, also if `counts_from` is damaged, or stores its
    counts in another way than this recording will; without it the counts of `scan` are written.
    """
    with Part(path, _room(scan), replace=replace) as part:
        _fill(part, scan, config or {}, result, codec, packer, counts_from)
        return part.commit(hashed=hashed)


def _room(scan: Scan) -> int:
    """Return the bytes a recording may take: the counts as they are, and its structure."""
    raw = sum(c.nbytes for c in scan.radiograph.counts) if scan.radiograph is not None else 0
    return raw + raw // 64 + (1 << 20)


def _fill(
    part: Part, scan: Scan, config: dict[str, Any], result: TriageResult | None, codec: Codec, packer: Packer | None,
    counts_from: Path | None = None,
) -> None:  # fmt: skip
    if result is not None and result.scan_id != scan.scan_id:
        raise DataError(f"recording of {scan.scan_id}: the result given is of {result.scan_id}")
    apart: list[tuple[int, int]] = []
    with (
        # Hashing and packing let go of the interpreter: they run on another core beside the rest.
        ThreadPoolExecutor(1, "pixels") as beside,
        h5py.File(part, "w", libver=("v110", "v110"), track_order=True) as file,
    ):
        chunks: _Chunks | None = None
        counts_hash = ""
        if scan.radiograph is not None and (counts_from is None or packer is None):
            pixels = beside.submit(pixels_hash, scan.radiograph)
            chunks = _Chunks(scan.radiograph, codec, packer, beside)
        _attributes(
            file,
            NX_class="NXroot",
            default="entry",
            creator="scanlane",
            schema_version=SCHEMA_VERSION,
            scanlane_version=__version__,
            simulated=scan.simulated,
            content_sha256=content_sha256(scan, config, result),
            seal=_SEAL,
        )
        entry = _group(file, "entry", "NXentry")
        _describe(entry, scan, config)
        instrument = _group(entry, "instrument", "NXinstrument")
        _text(instrument, "name", scan.lane)
        if scan.radiograph is not None:
            images = _write_radiograph(entry, instrument, scan.radiograph, codec)
            if chunks is not None:
                chunks.write(images)
                counts_hash = pixels.result()
            elif counts_from is not None and packer is not None:
                counts_hash = _copy_counts(counts_from, images, packer, codec)
        if scan.portal is not None:
            _write_portal(_group(entry, "monitor_rpm", "NXmonitor"), scan.portal)
        if result is not None:
            process = _group(entry, "process", "NXprocess")
            _text(process, "program", "scanlane")
            _text(process, "version", result.code_version)
            _text(process, "outcome", result.outcome)
            _text(process, "result", _json(result))
        _attributes(file, pixels_hash=counts_hash)
        if scan.radiograph is not None:
            file.flush()  # what libhdf5 keeps has its place then
            apart = [place for image in images for place in _chunk_places(image)]
    end = part.seek(0, os.SEEK_END)
    sealing = seal.made(part, end, apart)
    part.seek(end)
    part.write(memoryview(sealing))


def _chunk_places(image: h5py.Dataset) -> list[tuple[int, int]]:
    """Return (offset, length) of the chunks of an image that are stored with their checksum."""
    places: list[tuple[int, int]] = []

    def add(chunk: Any) -> None:
        if not chunk.filter_mask:  # no filter was passed over
            places.append((chunk.byte_offset, chunk.size))

    image.id.chunk_iter(add)
    return places


def _copy_counts(path: Path, images: list[h5py.Dataset], packer: Packer, codec: Codec) -> str:
    """Copy the chunks of the counts from the recording at `path`, as they are stored; return its hash of the counts.

    A lane writes every scan twice, before and after it is judged: copied, the second time takes a third of the first.

    Raises DataError.
    """
    try:
        with path.open("rb") as raw, h5py.File(path, "r", locking=False) as file:
            for image in images:
                source = file[image.name]
                if _layout(source) != _layout(image):
                    raise DataError(f"{path}: {image.name}: is stored as {_layout(source)}, wanted {_layout(image)}")
                for corner in _corners(image.shape, image.chunks):
                    found = source.id.get_chunk_info_by_coord(corner)
                    chunk = os.pread(raw.fileno(), found.size, found.byte_offset)
                    if found.filter_mask or not packer.intact(np.frombuffer(chunk, np.uint8), codec):
                        raise DataError(f"{path}: {image.name}: the chunk at {corner} is damaged")
                    image.id.write_direct_chunk(corner, chunk)
            return _stored_pixels_hash(file, int(_attribute(file, "schema_version")))
    except _FOREIGN as error:
        raise DataError(f"{path}: its counts cannot be copied ({error})") from error


def _layout(image: h5py.Dataset) -> tuple[Any, ...]:
    plist = image.id.get_create_plist()
    filters = [plist.get_filter(i)[::2] for i in range(plist.get_nfilters())]
    return image.shape, image.dtype.str, image.chunks, filters


class _Chunk:
    """One chunk of an image on its way: `packed` once it is in stored form, by `future` or here."""

    def __init__(self, energy: int, corner: tuple[int, int], memory: npt.NDArray[np.uint8]) -> None:
        self.energy, self.corner, self.memory = energy, corner, memory
        self.future: Future[None]
        self.length = 0

    @property
    def packed(self) -> bool:
        return self.length > 0


class _Chunks:
    """The counts of a radiograph chunk by chunk: packed on another core and here, or left to libhdf5.

    shape : (rows, columns) of a chunk
    """

    def __init__(self, radiograph: Radiograph, codec: Codec, packer: Packer | None, beside: ThreadPoolExecutor) -> None:
        channels, columns = radiograph.detector.channels, radiograph.columns
        self.shape = _chunk_shape(radiograph)
        self._radiograph, self._codec, self._packer, self._beside = radiograph, codec, packer, beside
        corners = _corners((channels, columns), self.shape)
        self._todo = deque((energy, corner) for energy in range(len(radiograph.counts)) for corner in corners)
        self._ahead: deque[_Chunk] = deque()
        self._spare: list[npt.NDArray[np.uint8]] = []
        if packer is not None:
            room = packer.room(self.shape, codec)
            self._spare = [np.empty(room, np.uint8) for _ in range(min(_AHEAD, len(self._todo)))]
            self._look_ahead()

    def _look_ahead(self) -> None:
        while self._todo and self._spare:
            chunk = _Chunk(*self._todo.popleft(), self._spare.pop())
            chunk.future = self._beside.submit(self._pack, chunk)
            self._ahead.append(chunk)

    def _part(self, energy: int, corner: tuple[int, int]) -> npt.NDArray[np.uint16]:
        y, x = corner
        channels, end = self._radiograph.detector.channels, min(y + self.shape[0], self._radiograph.detector.channels)
        bottom = self._radiograph.detector.first_channel == "bottom"
        rows = slice(channels - end, channels - y) if bottom else slice(y, end)
        return self._radiograph.counts[energy][x : x + self.shape[1], rows]

    def _pack(self, chunk: _Chunk) -> None:
        assert self._packer is not None
        part, first_channel = self._part(chunk.energy, chunk.corner), self._radiograph.detector.first_channel
        chunk.length = self._packer.pack(part, first_channel, self.shape, self._codec, chunk.memory)

    def write(self, images: list[h5py.Dataset]) -> None:
        """Write all chunks, energy after energy, to the images of the energies."""
        if self._packer is None:
            for energy, (y, x) in self._todo:
                image = upright(self._part(energy, (y, x)), self._radiograph.detector.first_channel)
                images[energy][y : y + self.shape[0], x : x + self.shape[1]] = image
        while self._ahead:
            chunk = self._ahead[0]
            while not chunk.packed and self._steal():
                pass
            if not chunk.packed:
                chunk.future.result()
            images[chunk.energy].id.write_direct_chunk(chunk.corner, chunk.memory[: chunk.length].data)
            self._spare.append(self._ahead.popleft().memory)
            self._look_ahead()

    def _steal(self) -> bool:
        """Pack here what the other core would come to last, rather than wait for it; False if it has begun all."""
        for chunk in reversed(self._ahead):
            if chunk.future.cancel() and not chunk.packed:
                self._pack(chunk)
                return True
        return False


def pixels_hash(radiograph: Radiograph, algorithm: str = "blake3") -> str:
    """Return "algorithm:hex" of the raw counts, energies in order, time-major little-endian.

    algorithm : `blake3`, or `sha256` as recordings of schema 1 have it
    """
    digest = blake3() if algorithm == "blake3" else hashlib.sha256()
    for counts in radiograph.counts:
        digest.update(counts.astype("<u2", copy=False).data.cast("B"))
    return f"{algorithm}:{digest.hexdigest()}"


def content_sha256(scan: Scan, config: dict[str, Any], result: TriageResult | None) -> str:
    """Return the SHA-256 of everything but the raw counts: references, times, portal, declaration, result (hex).

    Of their values, not of how they are stored: numbers as 64 bits little-endian, the rest as JSON with sorted keys.
    """
    parts = {f: getattr(scan, f) for f in scan.__struct_fields__ if f != "radiograph"}
    if scan.radiograph is not None:
        image = scan.radiograph
        parts["radiograph"] = {f: getattr(image, f) for f in image.__struct_fields__ if f != "counts"}
    values = msgspec.to_builtins((parts, config, result), enc_hook=_hashable)
    _forget_absent(values[0], _LATER_SCAN)
    if scan.radiograph is not None:
        _forget_absent(values[0]["radiograph"], {"position_mm": None})
    if scan.declaration is not None:
        _forget_absent(values[0]["declaration"], {"tare_weight_kg": None})
    if scan.portal is not None:
        portal = values[0]["portal"]
        _forget_absent(portal, _LATER_PORTAL)
        if portal["settings"] is not None:
            _forget_absent(portal["settings"], _LATER_SETTINGS)
    if result is not None:
        _forget_absent(values[2], _LATER_RESULT)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_LATER_SCAN: dict[str, Any] = {"sidecar": None, "attachments": (), "lane_events": (), "declaration_match": None}
_LATER_RESULT: dict[str, Any] = {"standing": None}
_LATER_PORTAL: dict[str, Any] = dict.fromkeys(
    ("neutron_arrival_ns", "neutron_start_utc_ns", "gamma_windows", "gamma_windows_background", "gamma_windows_alarm")
)
_LATER_SETTINGS = {
    f.name: f.default
    for f in msgspec.structs.fields(PortalSettings)
    if f.name in (
        "gamma_detectors_on", "gamma_levels", "neutron_levels", "gamma_background_s", "gamma_background_sigma",
        "neutron_max_intervals", "neutron_alpha", "neutron_zmax", "neutron_sequential_intervals",
        "neutron_background_s", "relay_output", "software",
    )
}  # fmt: skip
"""Fields younger than the first recordings, and what they are where nothing was told. They are hashed only where they
say something, so that the hash of an older recording stays what it was."""


def _forget_absent(values: dict[str, Any], later: dict[str, Any]) -> None:
    for name, absent in later.items():
        if values[name] == absent:
            del values[name]


def _hashable(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"{type(value).__name__} in a recording")
    plain = value.astype("<f8" if value.dtype.kind == "f" else "<i8")
    return [list(plain.shape), hashlib.sha256(plain.tobytes()).hexdigest()]


def _describe(entry: h5py.Group, scan: Scan, config: dict[str, Any]) -> None:
    simulated = "SIMULATED " if scan.simulated else ""
    _text(entry, "title", f"{simulated}scan {scan.scan_id}")
    _text(entry, "entry_identifier", scan.scan_id)
    _text(entry, "lane", scan.lane)
    _text(entry, "start_time", iso(scan.start_utc_ns))
    _text(entry, "end_time", iso(scan.end_utc_ns))
    entry["start_utc_ns"] = np.int64(scan.start_utc_ns)
    entry["end_utc_ns"] = np.int64(scan.end_utc_ns)
    _text(entry, "expected", _json(scan.expected))
    _text(entry, "quality", _json(scan.quality))
    _text(entry, "devices", _json(scan.devices))
    _text(entry, "source", scan.source)
    _text(entry, "source_sha256", scan.source_sha256)
    _text(entry, "config", _json(config))
    if scan.declaration is not None:
        _text(entry, "declaration", _json(scan.declaration))
    if scan.declaration_match is not None:
        _text(entry, "declaration_match", _json(scan.declaration_match))
    if scan.sidecar is not None:
        _text(entry, "sidecar", _json(scan.sidecar))
    if scan.lane_events:
        _text(entry, "lane_events", _json(scan.lane_events))
    if scan.attachments:
        _text(entry, "attachments", _json(scan.attachments))


def _write_radiograph(
    entry: h5py.Group,
    instrument: h5py.Group,
    radiograph: Radiograph,
    codec: Codec,
) -> list[h5py.Dataset]:
    """Write all of the radiograph but its counts; return the images, per energy, that they go into."""
    detector = radiograph.detector
    data = _group(entry, "data", "NXdata")
    _attributes(entry, default="data")
    names = list(detector.energies)
    _attributes(data, signal=names[-1], axes=["y", "x"], interpretation="image")
    if names[:-1]:
        _attributes(data, auxiliary_signals=names[:-1])
    for axis, length, pitch in (
        ("y", detector.channels, detector.channel_pitch_mm),
        ("x", radiograph.columns, detector.column_pitch_mm),
    ):
        data[axis] = (np.arange(length) * (pitch or 1.0)).astype(np.float32)
        _attributes(data[axis], units="mm" if pitch else "pixel")
    shape, chunks = (detector.channels, radiograph.columns), _chunk_shape(radiograph)
    images = []
    for index, energy in enumerate(names):
        group = _group(instrument, f"detector_{energy}", "NXdetector")
        stored = group.create_dataset("data", shape=shape, dtype=np.uint16, chunks=chunks, **_filters(codec))
        long_name = f"{energy} energy counts, upright; column x is one detector line"
        _attributes(stored, units="counts", long_name=long_name)
        data[energy] = stored  # a hard link
        images.append(stored)
        for name, reference in (("dark", detector.dark[index]), ("flatfield", detector.air[index])):
            _array(group, name, reference, units="counts")
        # NeXus pixel_mask: bit 1 is "dead", which no reader mistakes for a good channel.
        _array(group, "pixel_mask", detector.bad_channels.astype(np.uint32) * 2)
        group["saturation_value"] = np.uint32(detector.saturation_value)
        for name, pitch in (("x_pixel_size", detector.column_pitch_mm), ("y_pixel_size", detector.channel_pitch_mm)):
            if pitch is not None:
                group[name] = float(pitch)
                _attributes(group[name], units="mm")
    state = _group(instrument, "line_detector", "NXcollection")
    _attributes(
        state,
        energies=names,
        state=detector.state,
        first_channel=detector.first_channel,
        note=detector.note,
        air_channels=np.array(detector.air_channels or (-1, -1), np.int64),
        end_reason=radiograph.end_reason,
        dropped_columns=radiograph.dropped_columns,
        flags=_json(detector.flags),
    )
    _array(state, "column_utc_ns", radiograph.column_utc_ns, units="ns")
    if radiograph.position_mm is not None:
        _array(state, "position_mm", radiograph.position_mm, units="mm")
    return images


def _write_portal(monitor: h5py.Group, record: PortalRecord) -> None:
    for name, units in (
        ("gamma", "counts"),
        ("neutron", "counts"),
        ("gamma_alarm", ""),
        ("neutron_alarm", ""),
        ("gamma_arrival_ns", "ns"),
        ("gamma_background", "counts/s"),
        ("neutron_background", "counts/s"),
        ("neutron_arrival_ns", "ns"),
        ("gamma_windows", "counts"),
        ("gamma_windows_background", "counts/s"),
        ("gamma_windows_alarm", ""),
    ):
        array = getattr(record, name)
        if array is not None:
            _array(monitor, name, array.astype(np.uint8) if array.dtype == np.bool_ else array, units=units)
    bad = [i for i, line in enumerate(record.raw_lines) if "\n" in line]
    if bad:
        raise DataError(f"PortalRecord.raw_lines[{bad[0]}]: holds a line feed: {record.raw_lines[bad[0]][:60]!r}")
    _text(monitor, "raw_lines", "\n".join(record.raw_lines))
    _text(monitor, "settings", _json(record.settings))
    _attributes(
        monitor,
        start_utc_ns=np.int64(record.start_utc_ns),
        end_utc_ns=np.int64(record.end_utc_ns),
        gamma_start_utc_ns=np.int64(record.gamma_start_utc_ns),
        gamma_interval_s=record.gamma_interval_s,
        neutron_interval_s=record.neutron_interval_s,
        boot_epoch=np.int64(record.boot_epoch),
        number=np.int64(-1 if record.number is None else record.number),
        speed_kmh=np.nan if record.speed_kmh is None else record.speed_kmh,
        end_reason=record.end_reason,
        faults=_json(record.faults),
        raw_line_count=len(record.raw_lines),
    )
    if record.neutron_start_utc_ns is not None:
        _attributes(monitor, neutron_start_utc_ns=np.int64(record.neutron_start_utc_ns))


def upright(counts: npt.NDArray[np.uint16], first_channel: Literal["top", "bottom"]) -> npt.NDArray[np.uint16]:
    """Return `(columns, channels)` as `(rows, columns)`, top row first, C-contiguous. Its own inverse when `top`."""
    if first_channel == "bottom":
        counts = counts[:, ::-1]
    columns, channels = counts.shape
    image = np.empty((channels, columns), counts.dtype)
    # Blocks that fit the L1 cache on both sides: a plain transposed copy is five times slower.
    for i in range(0, columns, 512):
        for j in range(0, channels, 32):
            image[j : j + 32, i : i + 512] = counts[i : i + 512, j : j + 32].T
    return image


def _chunk_shape(radiograph: Radiograph) -> tuple[int, int]:
    return _even_part(radiograph.detector.channels, _CHUNK[0]), _even_part(radiograph.columns, _CHUNK[1])


def _corners(shape: tuple[int, int], chunks: tuple[int, int]) -> list[tuple[int, int]]:
    return [(y, x) for y in range(0, shape[0], chunks[0]) for x in range(0, shape[1], chunks[1])]


def _even_part(length: int, most: int) -> int:
    """Return the length of equal parts of at most `most`: padded edge chunks would cost up to a quarter more space."""
    parts = -(-length // most)
    return -(-length // parts)


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name, track_order=True)
    _attributes(group, NX_class=nx_class)
    return group


def _attributes(holder: h5py.HLObject, **values: Any) -> None:
    """Set attributes, texts at a fixed length.

    Texts of variable length are kept in a global heap, which has no checksum: one flipped bit there makes libhdf5 1.14
    turn in a circle for ever.
    """
    for name, value in values.items():
        if isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str)):
            texts = [t.encode() for t in ([value] if isinstance(value, str) else value)]
            form = h5py.string_dtype("utf-8", max(1, *map(len, texts)))
            array = np.array(texts[0] if isinstance(value, str) else texts, dtype=form)
        else:
            array = np.asarray(value)
            form = array.dtype
        # h5py's own way first looks whether there is such an attribute, which takes as long again
        kind = h5py.h5t.py_create(form, logical=True)
        h5py.h5a.create(holder.id, name.encode(), kind, _space(array.shape)).write(array, h5py.h5t.py_create(form))


def _space(shape: tuple[int, ...]) -> Any:
    return h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)


def _text(group: h5py.Group, name: str, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    form = h5py.string_dtype("utf-8", max(1, len(data)))
    kind = h5py.h5t.py_create(form, logical=True)
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)  # equal recordings are equal bytes
    stored = h5py.h5d.create(group.id, name.encode(), kind, _space(()), plist)
    stored.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(data, form), kind)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _array(group: h5py.Group, name: str, array: npt.NDArray[Any], units: str = "") -> None:
    stored = group.create_dataset(
        name, data=array, chunks=array.shape if array.size else None, fletcher32=bool(array.size)
    )
    if units:
        _attributes(stored, units=units)


def _filters(codec: Codec) -> dict[str, Any]:
    if codec == "gzip":
        return {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
    if codec == "none":
        return {"fletcher32": True}
    import hdf5plugin

    return {**hdf5plugin.Bitshuffle(nelems=0, cname="lz4"), "fletcher32": True}


# ---------------------------------------------------------------------------------------------------------- reading


_FOREIGN = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
    msgspec.MsgspecError,
)  # fmt: skip
"""What h5py, numpy and msgspec raise on a file whose parts are not what they should be."""


class FirstForm(DataError):  # noqa: N818 -- what it is
    """The recording is of the first form, which is read in a process of its own."""


def read(path: Path, file: BinaryIO | None = None, *, apart: bool = False) -> Recording:
    """Return what the recording at `path` holds, checked against its hashes.

    file : it, where it is open already
    apart : this is a confined process with a time limit (`recording_apart`); elsewhere one is begun for a recording of
        the first form, which costs a second

    Raises DataError naming the file, the place in it, the value seen and what to do.
    """
    try:
        found = _read(path, file, apart)
    except FirstForm:
        if file is not None:
            raise
        from . import recording_apart

        return recording_apart.read_once(path)
    if problem := next(_check_hashes(found), None):
        raise DataError(f"{path}: {problem}; see `scanlane verify {path.name}`")
    return found


def _read(path: Path, file: BinaryIO | None, apart: bool) -> Recording:
    import hdf5plugin  # noqa: F401 -- registers the bitshuffle filter

    if file is None and not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path}: {'is no plain file' if path.exists() else 'no such file'}")
    try:
        sealed = _sealed(path, file)
        with h5py.File(file or path, "r", locking=False) as stored:
            first_form = _is_first_form(stored)
            if first_form and not apart:
                raise FirstForm(f"{path}: of the first form, with texts of variable length; it is read apart")
            refuse_unsafe(stored, str(path), texts_of_any_length=first_form)
            return _Reader(path, stored).recording(sealed, first_form)
    except _FOREIGN as error:
        raise DataError(f"{path}: not readable as a recording ({error}); see `scanlane verify {path.name}`") from error


def _is_first_form(file: h5py.File) -> bool:
    """Tell whether texts are of variable length, as scanlane wrote them before it hashed what else it writes.

    One with a hash or a seal is not: nothing that was written later may be read with less care.
    """
    names = set(file.attrs)
    if "creator" not in names or names & {"content_sha256", "seal", "pixels_hash"}:
        return False
    text = h5py.check_string_dtype(file.attrs.get_id("creator").dtype)
    return text is not None and text.length is None


def _sealed(path: Path, file: BinaryIO | None) -> bool:
    """Compare the file with its seal before libhdf5 sees it; False if it has none. Raises DataError, OSError."""
    if file is not None:
        return seal.compared(file, str(path)) is not None
    with path.open("rb") as opened:
        return seal.compared(opened, str(path)) is not None


def _attribute(holder: h5py.HLObject, *name: Any) -> Any:
    """Return an attribute (name, or name and default), texts as `str`. Raises KeyError, DataError."""
    if len(name) > 1 and name[0] not in holder.attrs:
        return name[1]
    form = holder.attrs.get_id(name[0]).dtype
    text = h5py.check_string_dtype(form)
    value = holder.attrs[name[0]]
    if isinstance(value, bytes):
        return value.decode()
    if text is not None and isinstance(value, np.ndarray):
        return [v if isinstance(v, str) else bytes(v).decode() for v in value.flat]
    return value


def _stored_pixels_hash(file: h5py.File, version: int) -> str:
    if version == 1:
        told = str(_attribute(file, "pixels_sha256"))
        return f"sha256:{told}" if told else ""
    return str(_attribute(file, "pixels_hash"))


class _Reader:
    """Reads one open file, of which `refuse_unsafe` has made sure that it holds its own data, in known filters."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path = path
        self._file = file

    def recording(self, sealed: bool, first_form: bool) -> Recording:
        file = self._file
        if _attribute(file, "creator", "") != "scanlane":
            raise DataError(f"{self._path}: not a scanlane recording (creator {_attribute(file, 'creator', '')!r})")
        version = int(_attribute(file, "schema_version"))
        if version > SCHEMA_VERSION:
            raise DataError(
                f"{self._path}: recording schema {version}, this scanlane reads up to {SCHEMA_VERSION}; upgrade it"
            )
        told = _attribute(file, "seal", "")
        if told not in ("", _SEAL):
            raise DataError(f"{self._path}: sealed as {told!r}, this scanlane knows {_SEAL!r}; upgrade it")
        if told and not sealed:
            raise DataError(
                f"{self._path}: its seal is missing: its end was cut off, or another program wrote into it; fetch it "
                f"again from where it was copied"
            )
        entry = self.group("entry")
        return Recording(
            scan=self.scan(entry),
            config=self.json(entry, "config", dict[str, Any]),
            result=self.json(self.group("entry/process"), "result", TriageResult) if "process" in entry else None,
            software=str(_attribute(file, "scanlane_version")),
            pixels_hash=_stored_pixels_hash(file, version),
            content_sha256=str(_attribute(file, "content_sha256", "")),
            sealed=sealed,
            first_form=first_form,
        )

    def scan(self, entry: h5py.Group) -> Scan:
        return Scan(
            scan_id=self.text(entry, "entry_identifier"),
            lane=self.text(entry, "lane"),
            start_utc_ns=int(self.scalar(entry, "start_utc_ns")),
            end_utc_ns=int(self.scalar(entry, "end_utc_ns")),
            expected=self.json(entry, "expected", tuple[Literal["radiograph", "portal", "declaration"], ...]),
            radiograph=self.radiograph() if "data" in entry or self.has_detector() else None,
            portal=self.portal(self.group("entry/monitor_rpm")) if "monitor_rpm" in entry else None,
            declaration=self.json(entry, "declaration", Declaration) if "declaration" in entry else None,
            declaration_match=self.json(entry, "declaration_match", DeclarationMatch)
            if "declaration_match" in entry
            else None,
            devices=self.json(entry, "devices", tuple[DeviceInfo, ...]),
            quality=self.json(entry, "quality", tuple[Quality, ...]),
            source=self.text(entry, "source"),
            source_sha256=self.text(entry, "source_sha256"),
            sidecar=self.json(entry, "sidecar", Sidecar) if "sidecar" in entry else None,
            lane_events=self.json(entry, "lane_events", tuple[LaneEvent, ...]) if "lane_events" in entry else (),
            attachments=self.json(entry, "attachments", tuple[Attachment, ...]) if "attachments" in entry else (),
        )

    def has_detector(self) -> bool:
        return "line_detector" in self.group("entry/instrument")

    def radiograph(self) -> Radiograph:
        state = self.group("entry/instrument/line_detector")
        energies = tuple(str(e) for e in _attribute(state, "energies"))
        first_channel: Any = str(_attribute(state, "first_channel"))
        detectors = [self.group(f"entry/instrument/detector_{e}") for e in energies]
        counts = []
        for detector in detectors:
            counts.append(self.counts(detector, first_channel))
        last = detectors[-1]
        air = tuple(int(c) for c in _attribute(state, "air_channels"))
        return Radiograph(
            detector=DetectorState(
                energies=energies,
                channels=counts[0].shape[1],
                dark=tuple(self.array(d, "dark", "float32", 1) for d in detectors),
                air=tuple(self.array(d, "flatfield", "float32", 1) for d in detectors),
                bad_channels=self.array(last, "pixel_mask", "uint32", 1) != 0,
                air_channels=None if air[0] < 0 else (air[0], air[1]),
                saturation_value=int(self.scalar(last, "saturation_value")),
                state=str(_attribute(state, "state")),  # type: ignore[arg-type]
                first_channel=first_channel,
                column_pitch_mm=self.scalar(last, "x_pixel_size") if "x_pixel_size" in last else None,
                channel_pitch_mm=self.scalar(last, "y_pixel_size") if "y_pixel_size" in last else None,
                note=str(_attribute(state, "note")),
                flags=msgspec.json.decode(_attribute(state, "flags", "[]"), type=tuple[Quality, ...]),
            ),
            counts=tuple(counts),
            column_utc_ns=self.array(state, "column_utc_ns", "int64", 1),
            position_mm=self.optional(state, "position_mm", "float64", 1),
            end_reason=str(_attribute(state, "end_reason")),  # type: ignore[arg-type]
            dropped_columns=int(_attribute(state, "dropped_columns")),
        )

    def portal(self, monitor: h5py.Group) -> PortalRecord:
        lines = self.text(monitor, "raw_lines")
        number, speed = int(_attribute(monitor, "number")), float(_attribute(monitor, "speed_kmh"))
        alarm = self.optional(monitor, "gamma_windows_alarm", "uint8", 1)
        neutron_start = _attribute(monitor, "neutron_start_utc_ns", None)
        return PortalRecord(
            start_utc_ns=int(_attribute(monitor, "start_utc_ns")),
            end_utc_ns=int(_attribute(monitor, "end_utc_ns")),
            gamma=self.array(monitor, "gamma", "int64", 2),
            neutron=self.array(monitor, "neutron", "int64", 2),
            gamma_alarm=self.array(monitor, "gamma_alarm", "uint8", 1).astype(np.bool_),
            neutron_alarm=self.array(monitor, "neutron_alarm", "uint8", 1).astype(np.bool_),
            gamma_arrival_ns=self.array(monitor, "gamma_arrival_ns", "int64", 1),
            gamma_start_utc_ns=int(_attribute(monitor, "gamma_start_utc_ns")),
            gamma_background=self.optional(monitor, "gamma_background", "float64", 1),
            neutron_background=self.optional(monitor, "neutron_background", "float64", 1),
            gamma_interval_s=float(_attribute(monitor, "gamma_interval_s")),
            neutron_interval_s=float(_attribute(monitor, "neutron_interval_s")),
            settings=self.json(monitor, "settings", PortalSettings | None),
            number=None if number < 0 else number,
            boot_epoch=int(_attribute(monitor, "boot_epoch")),
            speed_kmh=None if np.isnan(speed) else speed,
            end_reason=str(_attribute(monitor, "end_reason")),  # type: ignore[arg-type]
            faults=msgspec.json.decode(_attribute(monitor, "faults"), type=tuple[str, ...]),
            raw_lines=tuple(lines.split("\n")) if int(_attribute(monitor, "raw_line_count")) else (),
            neutron_arrival_ns=self.optional(monitor, "neutron_arrival_ns", "int64", 1),
            neutron_start_utc_ns=None if neutron_start is None else int(neutron_start),
            gamma_windows=self.optional(monitor, "gamma_windows", "int64", 2, 3),
            gamma_windows_background=self.optional(monitor, "gamma_windows_background", "float64", 1, 2),
            gamma_windows_alarm=None if alarm is None else alarm.astype(np.bool_),
        )

    def optional(self, group: h5py.Group, name: str, dtype: str, *ndims: int) -> npt.NDArray[Any] | None:
        """Return an array that older recordings lack, None where it is absent; `ndims` : dimensions it may have."""
        if name not in group:
            return None
        ndim = getattr(self.dataset(group, name), "ndim", ndims[0])
        return self.array(group, name, dtype, ndim if ndim in ndims else ndims[0])

    def group(self, name: str) -> h5py.Group:
        here: h5py.Group = self._file
        for part in name.split("/"):
            if not isinstance(here.get(part, getlink=True), h5py.HardLink):
                raise DataError(f"{self._path}: /{name}: missing or not an own part of this file")
            here = here[part]
        if not isinstance(here, h5py.Group):
            raise DataError(f"{self._path}: /{name}: a {type(here).__name__}, expected a group")
        return here

    def dataset(self, group: h5py.Group, name: str) -> h5py.Dataset:
        where = f"{self._path}: {group.name}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{where}: missing or not an own part of this file")
        dataset = group[name]
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(f"{where}: a {type(dataset).__name__}, expected values")
        return dataset

    def checked(self, group: h5py.Group, name: str, dtype: str, ndim: int, limit: int = 16_000_000) -> h5py.Dataset:
        """Return a data set of this kind and of at most `limit` values, unread. Raises DataError."""
        dataset = self.dataset(group, name)
        if dataset.dtype != np.dtype(dtype) or dataset.ndim != ndim or dataset.size > limit:
            raise DataError(
                f"{self._path}: {dataset.name}: {dataset.dtype} {dataset.shape}, expected {ndim}-dimensional {dtype} "
                f"of at most {limit} values"
            )
        return dataset

    def array(self, group: h5py.Group, name: str, dtype: str, ndim: int) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = self.checked(group, name, dtype, ndim)[()]
        return values

    def counts(self, detector: h5py.Group, first_channel: str) -> npt.NDArray[np.uint16]:
        """Return the counts of an energy, (columns, channels), read band by band: no second copy is made of them."""
        dataset = self.checked(detector, "data", "uint16", 2, MAX_PIXELS)
        rows, columns = dataset.shape
        counts = np.empty((columns, rows), np.uint16)
        height = dataset.chunks[0] if dataset.chunks else _CHUNK[0]
        for y in range(0, rows, height):
            band = dataset[y : y + height]
            if first_channel == "bottom":
                counts[:, rows - y - len(band) : rows - y] = upright(band[::-1], "top")
            else:
                counts[:, y : y + len(band)] = upright(band, "top")
        return counts

    def scalar(self, group: h5py.Group, name: str) -> Any:
        """Return a single number, as a Python number."""
        dataset = self.dataset(group, name)
        if dataset.shape != () or dataset.dtype.kind not in "iuf":
            raise DataError(f"{self._path}: {dataset.name}: {dataset.dtype} {dataset.shape}, expected one number")
        return dataset[()].item()

    def text(self, group: h5py.Group, name: str) -> str:
        dataset = self.dataset(group, name)
        info = h5py.check_string_dtype(dataset.dtype)
        if info is None or (info.length or 0) > _MAX_TEXT or dataset.shape != ():
            raise DataError(f"{self._path}: {dataset.name}: {dataset.dtype} {dataset.shape}, expected one text")
        return bytes(dataset[()]).decode("utf-8", "surrogatepass")

    def json(self, group: h5py.Group, name: str, form: Any) -> Any:
        return msgspec.json.decode(self.text(group, name), type=form)


# --------------------------------------------------------------------------------------------------------- checking


def check(path: Path, file: BinaryIO | None = None, *, apart: bool = False) -> list[Problem]:
    """Return every problem found in the recording at `path`; an empty list means it is sound.

    file, apart : as for `read`
    """
    try:
        try:
            recording = _read(path, file, apart)
        except FirstForm:
            if file is not None:
                raise
            from . import recording_apart

            return recording_apart.check_once(path)
    except DataError as error:
        return [Problem(check="readable", where=str(path), text=str(error))]
    problems: list[Problem] = []
    try:
        problems += _check_layout(file or path, recording)
    except (DataError, *_FOREIGN) as error:
        problems.append(_problem("layout", str(path), f"what viewers need cannot be followed ({error})"))
    if recording.sealed:
        problems += _check_seal(path, file, recording.scan.radiograph)
    problems += _check_identity(path, recording)
    problems += _check_hashes(recording)
    radiograph, portal = recording.scan.radiograph, recording.scan.portal
    if radiograph is not None:
        problems += _check_radiograph(radiograph)
    if portal is not None:
        problems += _check_portal(portal)
    if recording.result is not None:
        problems += _check_result(recording.scan, recording.result)
    return problems


def _problem(check: str, where: str, text: str) -> Problem:
    return Problem(check=check, where=where, text=text)


def _check_layout(place: Path | BinaryIO, recording: Recording) -> Iterator[Problem]:
    """The NeXus default chain leads to an image that is linked hard, with axes of its lengths."""
    with h5py.File(place, "r", locking=False) as file:
        if (name := _attribute(file, "default", None)) != "entry":
            yield _problem("default chain", "/@default", f"{name!r}, expected 'entry'")
        if recording.scan.radiograph is None:
            return
        entry = file["entry"]
        if (name := _attribute(entry, "default", None)) != "data":
            yield _problem("default chain", "/entry/@default", f"{name!r}, expected 'data'")
        data = entry["data"]
        if not isinstance(data, h5py.Group):
            yield _problem("default chain", "/entry/data", f"a {type(data).__name__}, expected a group")
            return
        signal = _attribute(data, "signal", None)
        if signal not in data:
            yield _problem("default chain", "/entry/data/@signal", f"{signal!r} is not in the group")
            return
        for index, axis in enumerate(("y", "x")):
            if data[axis].shape[0] != data[signal].shape[index]:
                yield _problem(
                    "axes",
                    f"/entry/data/{axis}",
                    f"length {data[axis].shape[0]}, image {data[signal].shape[index]}",
                )
        for energy in recording.scan.radiograph.detector.energies:
            if energy not in data or data[energy] != entry[f"instrument/detector_{energy}/data"]:
                yield _problem("hard link", f"/entry/data/{energy}", "not the detector's own data")


def _check_seal(path: Path, file: BinaryIO | None, radiograph: Radiograph | None) -> Iterator[Problem]:
    """What the seal leaves to checksums is the counts' chunks and nothing else; `_read` has read them."""
    with path.open("rb") if file is None else nullcontext(file) as opened:
        told = seal.compared(opened, str(path))
        found: list[tuple[int, int]] = []
        with h5py.File(opened, "r", locking=False) as stored:
            for energy in radiograph.detector.energies if radiograph is not None else ():
                found += _chunk_places(stored[f"entry/instrument/detector_{energy}/data"])
    if told != (seen := seal.joined(found)):
        yield _problem("seal", str(path), f"leaves {told} to checksums, chunks with checksums are at {seen}")


def _check_identity(path: Path, recording: Recording) -> Iterator[Problem]:
    scan = recording.scan
    named = path.name.removesuffix(SUFFIX)
    if is_scan_id(named) and named != scan.scan_id:  # a name that somebody chose tells of no scan
        yield _problem("file name", str(path), f"holds scan {scan.scan_id}, expected in {scan.scan_id}{SUFFIX}")
    if not scan.scan_id.startswith(scan.lane + "-"):
        yield _problem("identity", "/entry/lane", f"{scan.lane!r} is not the lane of scan {scan.scan_id}")
    present = {"radiograph": scan.radiograph, "portal": scan.portal, "declaration": scan.declaration}
    told = {q.code for q in scan.quality}
    for kind in scan.expected:
        if present[kind] is None and not any(code.startswith(f"{kind}_") for code in told):
            yield _problem("completeness", f"/entry/{kind}", "expected, absent, and no quality flag says so")


def _check_hashes(recording: Recording) -> Iterator[Problem]:
    image = recording.scan.radiograph
    algorithm = "sha256" if recording.pixels_hash.startswith("sha256:") else "blake3"
    for name, told, seen in (
        ("pixels_hash", recording.pixels_hash, pixels_hash(image, algorithm) if image else ""),
        ("content_sha256", recording.content_sha256,
         content_sha256(recording.scan, recording.config, recording.result)),
    ):  # fmt: skip
        if seen != told and not (recording.first_form and name == "content_sha256"):
            text = f"file says {told[:16] or 'nothing'}…, what it holds gives {seen[:16]}…: something was changed"
            yield _problem("hash", f"/@{name}", text)


def _check_radiograph(radiograph: Radiograph) -> Iterator[Problem]:
    detector = radiograph.detector
    steps = np.diff(radiograph.column_utc_ns)
    for i in np.flatnonzero(steps < 0)[:10]:
        first, second = radiograph.column_utc_ns[i : i + 2]
        yield _problem("column times", f"column_utc_ns[{i + 1}]", f"{second} after {first}: time runs backwards")
    for index, energy in enumerate(detector.energies):
        counts = radiograph.counts[index]
        above = np.argwhere(counts > detector.saturation_value)
        for column, channel in above[:10]:
            yield _problem(
                "saturation",
                f"detector_{energy} column {column} channel {channel}",
                f"{counts[column, channel]} is above saturation_value {detector.saturation_value} "
                f"({len(above)} such pixels)",
            )
        wrong = np.flatnonzero((detector.air[index] <= detector.dark[index]) & ~detector.bad_channels)
        for channel in wrong[:10]:
            yield _problem(
                "references",
                f"detector_{energy} channel {channel}",
                f"air {detector.air[index][channel]} is not above dark {detector.dark[index][channel]} and the "
                f"channel is not masked ({len(wrong)} such channels)",
            )


def _check_portal(record: PortalRecord) -> Iterator[Problem]:
    """The counts equal what the kept raw lines say."""
    if record.raw_lines and record.raw_lines[0].removeprefix(_BASE)[:1].isdigit():
        yield from _check_readings(record)
        return
    codes = [line.partition(",")[0] for line in record.raw_lines]
    for name, wanted in (("gamma", ("GS", "GA")), ("neutron", ("NS", "NA"))):
        counts = getattr(record, name)
        rows = [i for i, code in enumerate(codes) if code in wanted]
        if record.raw_lines and len(rows) != counts.shape[0]:
            yield _problem("portal lines", name, f"{counts.shape[0]} intervals, {len(rows)} raw lines of {wanted}")
            continue
        for interval, row in enumerate(rows):
            fields = record.raw_lines[row].split(",")[1 : 1 + counts.shape[1]]
            said = [int(f) if f.strip().isdigit() else None for f in fields]
            if said != counts[interval].tolist():
                yield _problem(
                    "portal counts", f"{name}[{interval}]", f"{counts[interval].tolist()}, raw line {row} says {fields}"
                )
    if record.gamma_windows is not None and record.gamma_windows.ndim == 2:
        lines = [record.raw_lines[i].split(",")[1:] for i, code in enumerate(codes) if code == "AS"]
        windows = iter([[int(f) for f in fields if f.isdigit()] for fields in lines])
        for interval, row in enumerate(record.gamma_windows.tolist()):
            if row not in windows:  # taken from the iterator up to there: the rows stand in order
                yield _problem("portal windows", f"gamma_windows[{interval}]", f"{row}: no raw line AS says so")
                break
    yield from _check_times("gamma_arrival_ns", record.gamma_arrival_ns)
    if record.neutron_arrival_ns is not None:
        yield from _check_times("neutron_arrival_ns", record.neutron_arrival_ns)


def _check_times(name: str, times_ns: npt.NDArray[np.int64]) -> Iterator[Problem]:
    for i in np.flatnonzero(np.diff(times_ns) < 0)[:10]:
        first, second = times_ns[i : i + 2]
        yield _problem("portal times", f"{name}[{i + 1}]", f"{second} after {first}: time runs backwards")


_BASE = "[base] "
"""Mark of the reading before the first interval, where a device counts on and the record holds differences."""
_READING_FIELDS = {"gamma": 3, "neutron": 7}
"""Where the counts stand in a reading of 14 fields (Aspect)."""


def _check_readings(record: PortalRecord) -> Iterator[Problem]:
    """The counts equal the kept readings of 14 fields, or their differences where the device counts on."""
    runs_on = record.raw_lines[0].startswith(_BASE)
    rows = [line.removeprefix(_BASE).split(",") for line in record.raw_lines]
    for name, field in _READING_FIELDS.items():
        counts = getattr(record, name).sum(axis=1).tolist()
        if name == "neutron" and not counts:
            continue  # a portal without a neutron channel
        said = [int(row[field]) if len(row) == 14 and row[field].isdigit() else -1 for row in rows]
        if len(said) != len(counts) + runs_on:
            yield _problem("portal lines", name, f"{len(counts)} intervals, {len(said)} readings")
            continue
        before = [0, *said] if not runs_on else said
        for interval, (earlier, reading) in enumerate(zip(before[:-1], said[runs_on:], strict=True)):
            risen = (reading - earlier) % (1 << 32)
            # A count that fell without a wrap was set to 0: what it shows is all there is.
            if counts[interval] not in ((reading, risen) if runs_on else (reading,)):
                text = f"{counts[interval]}, reading {reading} after {earlier}"
                yield _problem("portal counts", f"{name}[{interval}]", text)
    yield from _check_times("gamma_arrival_ns", record.gamma_arrival_ns)


def _check_result(scan: Scan, result: TriageResult) -> Iterator[Problem]:
    if result.scan_id != scan.scan_id:
        yield _problem("result", "/entry/process/result", f"is of scan {result.scan_id}, file holds {scan.scan_id}")
    missing = [q.code for q in scan.quality if q.fatal]
    if missing and result.outcome not in ("UNUSABLE", "ALARM"):
        yield _problem("result", "/entry/process/outcome", f"{result.outcome} although {missing} make it unusable")
    if result.outcome == "CLEAR" and (scan.quality or result.gamma_alarm or result.neutron_alarm):
        yield _problem("result", "/entry/process/outcome", "CLEAR in spite of a quality flag or a vendor alarm")
