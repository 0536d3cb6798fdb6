"""Files that are made to do harm, and what becomes of them: the list behind row S7 of the reliability tests.

`run` makes each file in a folder, reads it as `scanlane triage`, `verify` and the drivers do, and tells what was seen:
whether it was refused, the time and memory that its reader took, and whether anything outside was read or written. A
canary with random bytes lies beside the files; it must come back in no answer and in no message.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from scanner_io import recording
from scanner_io.errors import DataError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import DetectorState, Radiograph, Scan
from scanner_io.sandbox import Limits, Sandbox, Task

MISBEHAVE = Task("scanner_io.sandbox.attempts", "misbehave")
MISBEHAVIOUR = (
    "loop", "sleep", "memory", "crash", "descriptors", "silence", "endless answer", "huge head", "huge array", "pickle",
    "another type", "deep head",
)  # fmt: skip
MEMORY_BYTES = 2 << 30
_IMAGE = "entry/instrument/detector_single/data"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one hostile file.

    refused : a DataError was raised; text : its words, or what was given instead
    cpu_s, wall_s, peak_bytes : what its reader took; 0 where it was refused before a reader was asked
    outside : what was read or written outside of the file, in words; empty as it must be
    """

    name: str
    refused: bool
    cpu_s: float
    wall_s: float
    peak_bytes: int
    outside: str
    text: str

    def passed(self, limits: Limits) -> bool:
        """Return whether all is as it must be; the kernel looks at processor time now and then only."""
        in_time = self.cpu_s <= limits.cpu_s + 1 and self.wall_s <= limits.wall_s + 1
        return self.refused and not self.outside and in_time and self.peak_bytes <= MEMORY_BYTES


def run(folder: Path, limits: Limits | None = None) -> list[Seen]:
    """Make every hostile file in `folder`, which must be empty, and return what became of each.

    limits : of the readers that misbehave on demand; with the usual ones they take 10 s of a core and 40 s of waiting
    """
    canary = os.urandom(64).hex().encode()
    (folder / "canary").write_bytes(canary * 1000)
    with ForeignFiles() as readers:
        seen = [_seen(name, folder, canary, readers, read) for name, read in _files(folder, readers)]
    with Sandbox(limits=limits) as sandbox:
        for name in MISBEHAVIOUR:
            ask = {"name": name, "ask": name, "answer": dict[str, str]}
            seen.append(_seen(name, folder, canary, sandbox, lambda ask=ask: sandbox.run(MISBEHAVE, b"", **ask)))  # type: ignore[misc]
    seen.append(_attempts())
    return seen


def figures(seen: list[Seen], limits: Limits | None = None) -> dict[str, Any]:
    """Return the figures of a run for scripts."""
    limits = limits or Limits()
    return {
        "files": len(seen),
        "not_refused": [s.name for s in seen if not s.refused],
        "outside": [f"{s.name}: {s.outside}" for s in seen if s.outside],
        "peak_mib": max(s.peak_bytes for s in seen) >> 20,
        "longest_cpu_s": round(max(s.cpu_s for s in seen), 2),
        "longest_wall_s": round(max(s.wall_s for s in seen), 2),
        "passed": all(s.passed(limits) for s in seen),
    }


def _seen(
    name: str, folder: Path, canary: bytes, readers: ForeignFiles | Sandbox, read: Callable[[], Any]
) -> Seen:  # fmt: skip
    sandbox = readers if isinstance(readers, Sandbox) else readers.sandbox
    sandbox.used = None
    before, breaches = _listing(folder), _left_behind()
    try:
        given = read()
        refused, text, whole = False, f"gave {type(given).__name__}", repr(given).encode()
    except DataError as error:
        refused, text = True, str(error)
        whole = text.encode()
    outside = []
    if canary[:32] in whole:
        outside.append("the canary was read")
    if _listing(folder) != before or _left_behind() != breaches:
        outside.append("files were written")
    used = sandbox.used
    return Seen(
        name=name, refused=refused, text=text[:300], outside=", ".join(outside), cpu_s=used.cpu_s if used else 0.0,
        wall_s=used.wall_s if used else 0.0, peak_bytes=used.peak_bytes if used else 0,
    )  # fmt: skip


def _attempts() -> Seen:
    """Have a reader try what none may; here to be refused is that every attempt is."""
    with Sandbox() as sandbox:
        told = sandbox.run(MISBEHAVE, b"", name="attempts", ask="attempts", answer=dict[str, tuple[str, ...]])
        used = sandbox.used
    breaches = ", ".join(told["tried"])
    assert used is not None
    return Seen(
        name="attempts", refused=not breaches, text=f"could {breaches}" if breaches else "each attempt was refused",
        outside=breaches, cpu_s=used.cpu_s, wall_s=used.wall_s, peak_bytes=used.peak_bytes,
    )  # fmt: skip


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*"))


def _left_behind() -> list[str]:
    return sorted(p.name for p in Path("/tmp").glob("scanlane-breach-*"))  # noqa: S108


# ------------------------------------------------------------------------------------------------------------- files


def _files(folder: Path, readers: ForeignFiles) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is read and how; each file is made just before."""
    sound = recording.build(_scan(), codec="gzip")
    for name, harm in _HDF5.items():
        path = folder / f"{name}.h5"
        path.write_bytes(sound)
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            harm(file, folder)
        yield f"HDF5: {name}", lambda path=path: readers.recording(path)  # type: ignore[misc]
    for name, contents in _damaged(sound):
        path = folder / f"{name}.h5"
        path.write_bytes(contents)
        yield f"HDF5: {name}", lambda path=path: readers.check(path) and _refuse(readers, path)  # type: ignore[misc]
    for name, contents in _images():
        path = folder / name
        path.write_bytes(contents)
        yield f"image: {name}", lambda path=path: readers.raster_file(path)  # type: ignore[misc]
    for name, contents in _texts(folder / "canary"):
        path = folder / f"{name}.xml"
        path.write_bytes(contents)
        yield f"N42: {name}", lambda path=path: readers.n42(path)  # type: ignore[misc]
        if len(contents) < 1 << 20:
            yield f"sidecar: {name}", lambda path=path: readers.sidecar(path.read_bytes(), name=path.name)  # type: ignore[misc]
    path = folder / "one line.csv"
    path.write_bytes(b"GB," + b"1" * (32 << 20))
    yield "daily file: one line of 32 MiB", lambda: _no_record(readers, path)


def _refuse(readers: ForeignFiles, path: Path) -> Any:
    return readers.recording(path)


def _no_record(readers: ForeignFiles, path: Path) -> Any:
    """Return what was read of a portal's file; raise DataError where it holds no passage, as judging it does."""
    events = list(readers.daily(path))
    if not any(getattr(e, "record", None) for e in events):
        raise DataError(f"{path}: no passage ({len(events)} events)")
    return events


def _scan(**more: Any) -> Scan:
    columns, channels = 96, 64
    rng = np.random.default_rng(7)
    counts = rng.integers(1000, 50_000, (columns, channels), dtype=np.uint16)
    detector = DetectorState(
        energies=("single",), channels=channels, dark=(np.zeros(channels, np.float32),),
        air=(np.full(channels, 60_000, np.float32),), bad_channels=np.zeros(channels, np.bool_),
    )  # fmt: skip
    times = 1_700_000_000_000_000_000 + np.arange(columns) * 2_500_000
    image = Radiograph(detector=detector, counts=(counts,), column_utc_ns=times)
    return Scan(
        scan_id="north-20231114T221320.000000Z-0f3a9c1e", lane="north", start_utc_ns=int(times[0]),
        end_utc_ns=int(times[-1]), expected=("radiograph",), radiograph=image, source="hostile", **more,
    )  # fmt: skip


def _instead(file: h5py.File, **how: Any) -> None:
    """Put another image in the place of the image."""
    del file["entry/data/single"], file[_IMAGE]
    file.create_dataset(_IMAGE, **how)


def _external_storage(file: h5py.File, folder: Path) -> None:
    _instead(file, shape=(64, 96), dtype="u2", external=[(str(folder / "canary"), 0, h5py.h5f.UNLIMITED)])


def _external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["data"] = np.frombuffer((folder / "canary").read_bytes()[: 64 * 96 * 2], np.uint16).reshape(64, 96)
    del file["entry/data/single"], file[_IMAGE]
    file[_IMAGE] = h5py.ExternalLink(str(folder / "other.h5"), "/data")


def _external_attribute_holder(file: h5py.File, folder: Path) -> None:
    file["entry/more"] = h5py.ExternalLink("/etc/passwd", "/")


def _virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "source.h5", "w") as other:
        other["data"] = np.frombuffer((folder / "canary").read_bytes()[: 64 * 96 * 2], np.uint16).reshape(64, 96)
    layout = h5py.VirtualLayout(shape=(64, 96), dtype="u2")
    layout[...] = h5py.VirtualSource(str(folder / "source.h5"), "data", shape=(64, 96))
    del file["entry/data/single"], file[_IMAGE]
    file.create_virtual_dataset(_IMAGE, layout)


def _soft_link(file: h5py.File, folder: Path) -> None:
    file["entry/more"] = h5py.SoftLink("/entry/instrument")


def _declares_20_gb(file: h5py.File, folder: Path) -> None:
    _instead(file, shape=(100_000, 100_000), dtype="u2", chunks=(1000, 1000), compression="gzip")


def _many_declare(file: h5py.File, folder: Path) -> None:
    for i in range(200):
        file.create_dataset(f"entry/more{i}", shape=(8000, 8000), dtype="u2", chunks=(1000, 1000))


def _bomb(file: h5py.File, folder: Path) -> None:
    """Inflate 1000 times, within all caps: it must be read within the limits, and its hash tells that it is wrong."""
    _instead(file, data=np.zeros((8000, 8000), np.uint16), chunks=(1000, 8000), compression="gzip", compression_opts=9)


def _huge_chunk(file: h5py.File, folder: Path) -> None:
    _instead(file, shape=(16_000, 4096), dtype="u2", chunks=(16_000, 4096), compression="gzip")


def _filter(file: h5py.File, folder: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((64, 96))
    plist.set_filter(32_000, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file["entry"].id, b"more", h5py.h5t.STD_U16LE, h5py.h5s.create_simple((64, 96)), plist)


def _variable_text(file: h5py.File, folder: Path) -> None:
    file["entry"].attrs["more"] = "a text of variable length"


def _references(file: h5py.File, folder: Path) -> None:
    file["entry/more"] = np.array([file["entry"].ref], dtype=h5py.ref_dtype)


def _compound(file: h5py.File, folder: Path) -> None:
    file["entry/more"] = np.zeros(10, np.dtype([("a", "u2"), ("b", "f8")]))


def _deep(file: h5py.File, folder: Path) -> None:
    file.create_group("entry" + "/deeper" * 200)


def _circle(file: h5py.File, folder: Path) -> None:
    """Lead in a circle of hard links; harmless, so something else is wrong as well."""
    file["entry/instrument/again"] = file["entry"]
    file["entry/more"] = h5py.SoftLink("/entry/instrument/again/instrument")


def _many_links(file: h5py.File, folder: Path) -> None:
    for i in range(5000):
        file[f"entry/more{i}"] = file["entry/instrument"]


def _many_attributes(file: h5py.File, folder: Path) -> None:
    for i in range(200):
        file["entry"].attrs.create(f"more{i}", np.zeros(10))


def _retold(name: str, text: str) -> Callable[[h5py.File, Path], None]:
    def harm(file: h5py.File, folder: Path) -> None:
        del file[f"entry/{name}"]
        data = text.encode()
        file[f"entry/{name}"] = np.array(data, h5py.string_dtype("utf-8", len(data)))

    return harm


_HDF5: dict[str, Callable[[h5py.File, Path], None]] = {
    "external storage": _external_storage,
    "external link": _external_link,
    "external link to no HDF5": _external_attribute_holder,
    "virtual data set": _virtual,
    "soft link": _soft_link,
    "declares 20 GB": _declares_20_gb,
    "many declare 25 GB": _many_declare,
    "gzip bomb": _bomb,
    "chunk of 131 MB": _huge_chunk,
    "unknown filter": _filter,
    "text of variable length": _variable_text,
    "references": _references,
    "compound type": _compound,
    "200 groups deep": _deep,
    "circle": _circle,
    "5000 links": _many_links,
    "200 attributes": _many_attributes,
    "id leads upwards": _retold("entry_identifier", "../../../../tmp/scanlane-breach-id"),
    "id with NUL": _retold("entry_identifier", "north-20231114T221320.000000Z-0f3a\x009c1e"),
    "id of 300 characters": _retold("entry_identifier", "n" * 300),
    "lane leads upwards": _retold("lane", "../north"),
    "deep JSON": _retold("config", "[" * 100_000),
}


def _damaged(sound: bytes) -> Iterator[tuple[str, bytes]]:
    yield "cut short", sound[: len(sound) // 2]
    rng = np.random.default_rng(11)
    for number in range(8):
        noisy = bytearray(sound)
        for place in rng.integers(8, len(noisy), 40):
            noisy[place] = int(rng.integers(256))
        yield f"noise {number}", bytes(noisy)
    yield "only a beginning", sound[:8] + rng.bytes(4096)


def _png(columns: int, rows: int, data: bytes, bits: int = 16) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _tiff(columns: int, rows: int, data: bytes) -> bytes:
    """Return a TIFF of 16 bits in one Deflate strip."""
    tags = (
        (256, columns),
        (257, rows),
        (258, 16),
        (259, 8),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, rows),
        (279, len(data)),
    )
    place = 8 + len(data) + len(data) % 2
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
    return struct.pack("<2sHI", b"II", 42, place) + data + b"\0" * (len(data) % 2) + directory + struct.pack("<I", 0)


def _images() -> Iterator[tuple[str, bytes]]:
    zeros = zlib.compress(bytes(64 << 20), 9)
    yield "PNG of 3.6 gigapixels.png", _png(60_000, 60_000, zeros)
    yield "PNG that inflates 1000 times.png", _png(8000, 8000, zlib.compress(bytes(8000 * 16_001), 9))
    yield "PNG of 1 x 1 with 64 MiB.png", _png(1, 1, zeros)
    yield "TIFF of 3.6 gigapixels.tif", _tiff(60_000, 60_000, zeros)
    yield "TIFF that inflates 1000 times.tif", _tiff(8000, 8000, zlib.compress(bytes(8000 * 16_000), 9))
    yield "TIFF strip that inflates beyond it.tif", _tiff(100, 100, zeros)
    frame = struct.pack(">HBHHB", 11, 8, 65_500, 65_500, 1) + b"\x01\x11\x00"
    yield (
        "JPEG of 4.3 gigapixels.jpg",
        b"\xff\xd8\xff\xc0" + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9",
    )
    yield "gzip of no image.png", gzip.compress(bytes(1 << 20))


def _texts(canary: Path) -> Iterator[tuple[str, bytes]]:
    body = "<RadInstrumentData><RadInstrumentInformation><RadInstrumentManufacturerName>&x;"
    body += "</RadInstrumentManufacturerName></RadInstrumentInformation></RadInstrumentData>"
    yield "external entity", f'<!DOCTYPE r [<!ENTITY x SYSTEM "file://{canary}">]>{body}'.encode()
    yield "external document type", f'<!DOCTYPE r SYSTEM "file://{canary}">{body.replace("&x;", "x")}'.encode()
    yield "entity from the network", f'<!DOCTYPE r [<!ENTITY x SYSTEM "http://127.0.0.1:9/">]>{body}'.encode()
    laughs = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    yield "billion laughs", f"<!DOCTYPE r [{laughs}]>{body.replace('&x;', '&l11;')}".encode()
    yield (
        "quadratic growth",
        (f'<!DOCTYPE r [<!ENTITY x "{"a" * 50_000}">]>{body.replace("&x;", "&x;" * 10_000)}').encode(),
    )
    yield "a million deep", b"<RadInstrumentData>" + b"<a>" * 1_000_000
    yield "a million attributes", b"<RadInstrumentData " + b" ".join(b'a%d="1"' % i for i in range(200_000)) + b"/>"
