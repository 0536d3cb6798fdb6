"""A folder of real scans as an archive to evaluate on: a fixed list, without doubles, tagged, cut into folds.

Any folder of images or recordings will do. A `manifest.csv` beside them may name the declared goods (`declared_hs4`,
"0000" for empty) and the `texture`; where it does not, a recording's own declaration is asked, and the texture is
computed. Scans of one commodity stay together in every split, because a shipment often has several containers and one
would be learned from the other. Where nothing was declared, texture stands in for the commodity, and a texture that has
more than a share of the archive is cut so that scans which look alike stay together.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Radiograph
from triage.analysis.container import Frame, find_container
from triage.analysis.picture import transmission
from triage.study.image_looks import clusters, fingerprint, looks, same_scan, straightened, texture_of
from triage.study.insertions import Scale
from triage.study.jpeg_quality import jpeg_quality, recompressed

Array: TypeAlias = NDArray[Any]

EMPTY = "0000"
UNDECLARED = "undeclared"

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
RECORDINGS = frozenset({".h5", ".nxs", ".hdf5"})

FEWEST_GROUPS = 4
PER_LOOK = 5
"""Undeclared scans per group of those that look alike, on average."""
_KEPT = 16
"""Scans kept in memory: more are read again when they are asked for."""


class Source(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One scan of the archive.

    commodity : declared HS4 code, or "undeclared"
    texture : one of TEXTURES; texture_how says whether it was told or computed
    group : what must not be cut by a fold
    quality : of the JPEG file it came in, None for other files
    fingerprint, looks : (2, n) and (n,) float32, which scan it is, and what its goods look like
    """

    name: str
    path: Path
    sha256: str
    frame: Frame
    commodity: str
    texture: str
    texture_how: str
    group: str
    quality: int | None
    simulated: bool
    pixels: int
    fingerprint: Array
    looks: Array


class LeftOut(NamedTuple):
    """A file of the folder that is not evaluated, and why."""

    name: str
    why: str


class Archive(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The fixed list: sources in the order of their names."""

    folder: Path
    sources: tuple[Source, ...]
    left_out: tuple[LeftOut, ...]

    def sha256(self) -> str:
        """Return the hash of the list: equal lists, equal archives."""
        lines = "".join(f"{s.sha256} {s.name}\n" for s in self.sources)
        return hashlib.sha256(lines.encode()).hexdigest()


class Loaded(NamedTuple):
    """The image of a source.

    image : (rows, columns) uint8 or uint16, upright counts, read-only
    radiograph : as read; scale : how its counts become transmission
    """

    image: Array
    radiograph: Radiograph
    scale: Scale


def read_archive(folder: Path) -> Archive:
    """Return the archive in `folder`.

    Raises DataError where there is nothing to evaluate or the manifest cannot be read.
    """
    manifest = _manifest(folder)
    suffixes = SUFFIXES | RECORDINGS
    # a lane's recordings lie in folders by day
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in suffixes)
    left_out = [
        LeftOut(name, "named in manifest.csv, not in the folder") for name in manifest if not (folder / name).is_file()
    ]
    sources: list[Source] = []
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            found = _source(path, name, manifest.get(name, {}))
        except DataError as error:
            left_out.append(LeftOut(name, str(error)))
            continue
        if found is None:
            left_out.append(LeftOut(name, "no container is seen in it"))
            continue
        # simulated scans are drawn anew from few patterns: what looks the same is not the same there
        double = next((s for s in sources if _same(s, found)), None)
        if double is not None:
            left_out.append(LeftOut(name, f"shows what {double.name} shows"))
            continue
        sources.append(found)
    if not sources:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out[:3]) or "no image or recording in it"
        raise DataError(f"{folder}: nothing to evaluate ({reasons}); give a folder of scans that show containers")
    return Archive(folder=folder, sources=tuple(_grouped(sources)), left_out=tuple(left_out))


def _same(a: Source, b: Source) -> bool:
    if a.sha256 == b.sha256:
        return True
    return not (a.simulated or b.simulated) and same_scan(a.fingerprint, b.fingerprint)


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / "manifest.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected comma separated UTF-8 with a head line") from error
    if rows and "file" not in rows[0]:
        raise DataError(f"{path}: columns {[c for c in rows[0] if c]}, expected one named `file`")
    for number, row in enumerate(rows, 1):
        if not row["file"]:
            raise DataError(f"{path}: row {number} below the head line names no file: {list(row.values())}")
    return {row["file"]: {k: v or "" for k, v in row.items() if k} for row in rows}


def _source(path: Path, name: str, told: dict[str, str]) -> Source | None:
    """Return the source in a file, None where no container is seen. Raises DataError."""
    contents = path.read_bytes()
    loaded, commodity, simulated = _read(path)
    t = through_chain(loaded, None, loaded.image)
    frame = find_container(t)
    if frame is None:
        return None
    grid = straightened(t, frame)
    commodity = told.get("declared_hs4", "").strip() or commodity
    texture, how = told.get("texture", "").strip(), "told"
    if not texture:
        texture, how = texture_of(grid), "computed"
    return Source(
        name=name, path=path, sha256=hashlib.sha256(contents).hexdigest(), frame=frame,
        commodity=commodity, texture=texture, texture_how=how, group=commodity,
        quality=jpeg_quality(contents) if path.suffix.lower() in (".jpg", ".jpeg") else None,
        simulated=simulated, pixels=int(t.size), fingerprint=fingerprint(t, grid), looks=looks(grid),
    )  # fmt: skip


def _read(path: Path) -> tuple[Loaded, str, bool]:
    """Return image, declared commodity and whether it is simulated. Raises DataError."""
    if path.suffix.lower() in RECORDINGS:
        with ForeignFiles() as readers:
            scan = readers.recording(path).scan
        if scan.radiograph is None:
            raise DataError(f"{path}: holds no radiograph")
        declared = scan.declaration
        commodity = UNDECLARED
        if declared is not None:
            code = declared.hs_codes[0][:4] if declared.hs_codes else UNDECLARED
            commodity = EMPTY if declared.declared_empty else code
        return _loaded(scan.radiograph), commodity, scan.simulated
    with ForeignFiles() as readers:
        return _loaded(readers.raster_file(path)[0]), UNDECLARED, False


def _loaded(radiograph: Radiograph) -> Loaded:
    detector = radiograph.detector
    image = radiograph.upright()
    image = np.ascontiguousarray(image, np.uint8 if detector.saturation_value <= 255 else np.uint16)
    image.flags.writeable = False
    scale = Scale(air=float(detector.saturation_value), top=detector.saturation_value)
    if detector.state == "raw":
        order = slice(None, None, -1 if detector.first_channel == "bottom" else 1)
        dark = detector.dark[-1][order, None].astype(np.float64)
        span = detector.air[-1][order, None] - dark
        # a dead channel has no span; it is bridged when the image is corrected, and only must not divide by nothing
        air = dark + np.where(span > 1, span, max(float(np.median(span)), 1.0))
        scale = Scale(dark, air, detector.saturation_value, counts_per_quantum(image, dark, air), physical=True)
    return Loaded(image, radiograph, scale)


def counts_per_quantum(image: Array, dark: Array, air: Array) -> float | None:
    """Return how many counts one quantum makes, by the noise of the open beam; None where too little air is seen.

    Differences of neighbours along a row have twice the variance of the noise, whatever the beam does slowly.
    Source: photon transfer, J. R. Janesick, "Photon Transfer", SPIE 2007, section 5.
    """
    found = []
    for row in range(0, image.shape[0], max(1, image.shape[0] // 200)):
        net = image[row].astype(np.float64) - dark[row, 0]
        open_beam = np.flatnonzero(net > 0.9 * (air[row, 0] - dark[row, 0]))
        open_beam = open_beam[np.flatnonzero(np.diff(open_beam) == 1)]
        if open_beam.size >= 100 and open_beam[-1] + 1 < net.size:
            steps = net[open_beam + 1] - net[open_beam]
            # by the quartiles, so that edges do not count
            spread = float(np.subtract(*np.percentile(steps, (75, 25)))) / 1.349
            found.append(spread**2 / 2 / float(net[open_beam].mean()))
    gain = float(np.median(found)) if len(found) >= 5 else 0.0
    return gain if gain > 0.01 else None


@functools.lru_cache(maxsize=_KEPT)
def _cached(path: Path) -> Loaded:
    return _read(path)[0]


def load(source: Source) -> Loaded:
    """Return the image of a source, from memory if it was read lately. Raises DataError."""
    return _cached(source.path)


def through_chain(loaded: Loaded, quality: int | None, image: Array) -> Array:
    """Return the transmission that a detector sees of `image`, (rows, columns) float32, 0..1.

    Clean and inserted images go the same way: compressed anew as the source was, then corrected.
    """
    if quality is not None:
        image = recompressed(image, quality)
    detector = loaded.radiograph.detector
    if detector.state == "display":
        return np.asarray(np.minimum(image / np.float32(detector.saturation_value), 1), np.float32)
    return transmission(_with_counts(loaded.radiograph, image))


def radiograph_of(loaded: Loaded, quality: int | None, image: Array) -> Radiograph:
    """Return the radiograph with `image` in the place of its own, compressed anew as its source was."""
    return _with_counts(loaded.radiograph, image if quality is None else recompressed(image, quality))


def _with_counts(radiograph: Radiograph, image: Array) -> Radiograph:
    upright = image[::-1] if radiograph.detector.first_channel == "bottom" else image
    counts = (*radiograph.counts[:-1], np.ascontiguousarray(upright.T, np.uint16))
    return msgspec.structs.replace(radiograph, counts=counts)


# --------------------------------------------------------------------------------------------------------------
# Groups and folds


def _grouped(sources: Sequence[Source]) -> list[Source]:
    """Return the sources with their groups: the commodity, or what stands in for it."""
    known = {s.commodity for s in sources} - {UNDECLARED}
    rest = [i for i, s in enumerate(sources) if s.commodity == UNDECLARED]
    count = max(1, round(len(rest) / PER_LOOK), FEWEST_GROUPS - len(known))
    group = [s.commodity for s in sources]
    for number, i in zip(clusters([sources[i].looks for i in rest], count), rest, strict=True):
        group[i] = f"{UNDECLARED}, look {number}"
    return [msgspec.structs.replace(s, group=g) for s, g in zip(sources, group, strict=True)]


def groups_in(archive: Archive) -> int:
    """Return how many groups the scans are of."""
    return len({s.group for s in archive.sources})


def folds(archive: Archive, count: int) -> tuple[tuple[int, ...], ...]:
    """Return folds of the indices of sources, no group in two of them; more than `count` where groups are few.

    Whatever two folds are left out, two groups remain: one is what the other is normal for.

    Raises DataError for fewer than four groups.
    """
    groups: dict[str, list[int]] = {}
    for i, source in enumerate(archive.sources):
        groups.setdefault(source.group, []).append(i)
    if len(groups) < FEWEST_GROUPS:
        raise DataError(
            f"{archive.folder}: {len(archive.sources)} scans of {len(groups)} commodities or looks; at least "
            f"{FEWEST_GROUPS} are needed to learn from the folder itself: one to test, one to set thresholds, two to "
            "learn from; for fewer, name a fuser or a lane's profile that learned elsewhere with --profile"
        )
    for parts in range(min(count, len(groups)), len(groups)):
        found = _packed(groups, parts)
        if len(groups) - sum(sorted(len(part) for part in found)[-2:]) >= 2:
            return tuple(tuple(sorted(i for name in part for i in groups[name])) for part in found)
    return tuple(tuple(sorted(members)) for _, members in sorted(groups.items()))


def _packed(groups: dict[str, list[int]], count: int) -> list[list[str]]:
    """Return the names of groups in `count` parts of about as many members."""
    parts: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(groups, key=lambda g: (-len(groups[g]), g)):
        min(parts, key=lambda part: sum(len(groups[g]) for g in part)).append(name)
    return parts
