"""A lane's own normal, learned by `scanlane calibrate`: one file, loaded beside a lane and for files by hand.

The file is a zip archive: `header.json` (all of `LaneProfile` but its arrays, and shape, type and
SHA-256 of every array), one member of raw little-endian bytes per array, and `sha256`, the hash of the header. The same
calibration gives the same bytes. The header's hash names the profile: every result that was judged by it tells it.

Anything changed since it was written is refused. That is no proof of who wrote it: a profile decides what is flagged,
so keep it where only the lane's keeper can write.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from . import __version__
from .errors import ConfigError
from .storage import write_durable

FORMAT, FORMAT_VERSION = "scanlane lane profile", 1
ANY = "*"
"""As texture or chapter of a stratum's cell: every other one."""
MAX_BYTES = 1 << 30
"""Largest profile that is read; a hostile file must not fill the memory."""
_STAMP = (1980, 1, 1, 0, 0, 0)
_DTYPES = ("<f8", "<f4", "<i8", "<i4", "<u2", "|u1")

Cell = tuple[str, str]
"""What kind of scan: texture class of the load, and declared chapter (or `empty`, `several`, `undeclared`)."""


class Stratum(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scans that are compared with each other.

    cells : which; ANY stands for every other
    scans : how many of the calibration
    """

    words: str
    cells: tuple[Cell, ...]
    scans: int


class Excluded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scan that was not learned from, and why."""

    scan: str
    reason: str


class Extra(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What else was learned of the lane, under a name of its own: tables of positions, a bank, a chapter's history.

    facts : plain values; arrays : by name. What they mean is the affair of the module that fills them.
    """

    facts: dict[str, Any] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}


class LaneProfile(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is usual on a lane.

    lane : whose; simulated : learned from simulated scans
    software : version whose scores these are; thresholds : hash of the image thresholds that they depend on
    flag_rate : promised share of innocent scans that get a review by a calibrated finding; at most so much with
        `confidence` over calibrations
    level : p-value up to which a scan is flagged, so that the promise is kept
    first_utc_ns, last_utc_ns : from when to when the scans are
    sources : hash of every scan's raw counts, in the order of the arrays
    teachers : the same of other scans, those that the extras were learned from
    excluded : scans of the archive that were not learned from
    kinds, weights : columns of `scores`; vitals : columns of `vital_signs`
    cells : distinct cells; strata : see Stratum
    scores : (scans, kinds) float64, 0 nothing found, -inf question did not arise
    vital_signs : (scans, vitals) float64, what the watch compares beside the scores, NaN where unknown
    cell_of_scan, stratum_of_scan : (scans,) int32
    extras : see Extra
    tractor : side on which the tractors of the lane are in the upright image, empty where both occur or few were seen
    unknown_scans : how many of the scans are of a look that is not known, see `Standing.unknown`; such scans are always
        reviewed, beside the promise
    sha256 : names this very profile; filled by `write` and `read`
    """

    lane: str
    simulated: bool
    software: str
    thresholds: str
    flag_rate: Annotated[float, msgspec.Meta(gt=0, le=0.5)]
    confidence: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    level: Annotated[float, msgspec.Meta(gt=0, le=0.5)]
    first_utc_ns: int
    last_utc_ns: int
    sources: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    kinds: tuple[str, ...]
    weights: tuple[Annotated[float, msgspec.Meta(gt=0)], ...]
    vitals: tuple[str, ...]
    cells: tuple[Cell, ...]
    strata: tuple[Stratum, ...]
    scores: npt.NDArray[np.float64]
    vital_signs: npt.NDArray[np.float64]
    cell_of_scan: npt.NDArray[np.int32]
    stratum_of_scan: npt.NDArray[np.int32]
    extras: dict[str, Extra] = {}
    teachers: tuple[str, ...] = ()
    tractor: Literal["", "left", "right"] = ""
    unknown_scans: Annotated[int, msgspec.Meta(ge=0)] = 0
    sha256: str = ""

    @property
    def scans(self) -> int:
        """How many scans it was learned from."""
        return len(self.sources)

    def foreign(self, *, lane: str | None = None, thresholds: str | None = None) -> str:
        """Return in words why this profile must not be used, empty if it may.

        lane : the lane it is to judge, None for files by hand; thresholds : hash of those in force
        """
        again = "; run `scanlane calibrate` again"
        if lane is not None and lane != self.lane:
            return f"it was learned on lane {self.lane}, and this is lane {lane}: what is usual there says nothing here"
        if self.software != __version__:
            return f"its scores are of scanlane {self.software}, this is {__version__}{again}"
        if thresholds is not None and thresholds != self.thresholds:
            return (
                f"its scores were made with other thresholds of the image or another energy calibration "
                f"({self.thresholds[:12]}, now {thresholds[:12]}){again}"
            )
        return ""


_ARRAYS = ("scores", "vital_signs", "cell_of_scan", "stratum_of_scan")


class _Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Description of one array in the header."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    version: int
    profile: dict[str, Any]
    extras: dict[str, dict[str, Any]]
    arrays: dict[str, _Stored]


def encode(profile: LaneProfile) -> tuple[bytes, str]:
    """Return the bytes of the file, and the hash that names it."""
    arrays = {name: getattr(profile, name) for name in _ARRAYS}
    for name, extra in sorted(profile.extras.items()):
        arrays |= {f"extras/{name}/{key}": array for key, array in sorted(extra.arrays.items())}
    blobs = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    plain = {
        f: getattr(profile, f)
        for f in LaneProfile.__struct_fields__
        if f not in (*_ARRAYS, "extras", "sha256")
    }  # fmt: skip
    header = msgspec.json.encode(
        _Header(
            format=FORMAT, version=FORMAT_VERSION, profile=msgspec.to_builtins(plain),
            extras={name: extra.facts for name, extra in sorted(profile.extras.items())},
            arrays={n: _Stored(_dtype_of(n, a), a.shape, hashlib.sha256(a.tobytes()).hexdigest())
                    for n, a in blobs.items()},
        ),
        order="sorted",
    )  # fmt: skip
    digest = hashlib.sha256(header).hexdigest()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        members = {"header.json": header, "sha256": digest.encode(), **{n: a.tobytes() for n, a in blobs.items()}}
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _STAMP)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue(), digest


def _dtype_of(name: str, array: npt.NDArray[Any]) -> str:
    if array.dtype.str not in _DTYPES:
        raise ConfigError([f"profile: array {name} is {array.dtype.str}, expected one of {', '.join(_DTYPES)}"])
    return array.dtype.str


def write(path: Path, profile: LaneProfile) -> LaneProfile:
    """Write `profile` to `path`, over an older one if there is; return it with its hash. Raises StorageError."""
    data, digest = encode(profile)
    write_durable(path, data, replace=True)
    return msgspec.structs.replace(profile, sha256=digest)


def read(path: Path) -> LaneProfile:
    """Return the profile in the file at `path`. Raises ConfigError that says what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _decoded(archive)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error}); name a file of `scanlane calibrate`"]) from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ConfigError([f"{path}: no lane profile ({error}); name a file of `scanlane calibrate`"]) from error
    except (_RefusedError, msgspec.MsgspecError, ValueError) as error:
        raise ConfigError([f"{path}: {error}; run `scanlane calibrate` again"]) from error


class _RefusedError(Exception):
    """What is wrong with the file."""


def _decoded(archive: zipfile.ZipFile) -> LaneProfile:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    if sum(sizes.values()) > MAX_BYTES:
        raise _RefusedError(f"holds {sum(sizes.values())} bytes, expected at most {MAX_BYTES}")
    if not {"header.json", "sha256"} <= sizes.keys():
        raise _RefusedError("is no lane profile: it has no header")
    header_bytes = archive.read("header.json")
    digest = hashlib.sha256(header_bytes).hexdigest()
    if archive.read("sha256") != digest.encode():
        raise _RefusedError("its header has been changed since it was written")
    header = msgspec.json.decode(header_bytes, type=_Header)
    if header.format != FORMAT:
        raise _RefusedError(f"is a {header.format[:40]!r}, expected a {FORMAT!r}")
    if header.version != FORMAT_VERSION:
        raise _RefusedError(f"has format version {header.version}, this scanlane reads {FORMAT_VERSION}")
    arrays = {name: _array(archive, name, told) for name, told in header.arrays.items()}
    extras = {
        name: Extra(
            facts=facts,
            arrays={n.split("/", 2)[2]: a for n, a in arrays.items() if n.startswith(f"extras/{name}/")},
        )
        for name, facts in header.extras.items()
    }
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise _RefusedError(f"has no array {missing[0]}")
    profile = msgspec.convert(
        {**header.profile, **{n: arrays[n] for n in _ARRAYS}, "extras": {}}, LaneProfile, dec_hook=_as_it_is
    )
    profile = msgspec.structs.replace(profile, extras=extras, sha256=digest)
    _check(profile)
    return profile


def _as_it_is(kind: type, value: Any) -> Any:
    return value


def _array(archive: zipfile.ZipFile, name: str, told: _Stored) -> npt.NDArray[Any]:
    if told.dtype not in _DTYPES:
        raise _RefusedError(f"array {name} is of type {told.dtype[:20]!r}, expected one of {', '.join(_DTYPES)}")
    try:
        data = archive.read(name)
    except KeyError as error:
        raise _RefusedError(f"array {name} is missing") from error
    if hashlib.sha256(data).hexdigest() != told.sha256:
        raise _RefusedError(f"array {name} has been changed since it was written")
    array = np.frombuffer(data, told.dtype).reshape(told.shape)
    array.flags.writeable = False
    return array


def _check(profile: LaneProfile) -> None:
    """Check what hangs together. Raises _RefusedError."""
    n = profile.scans
    expected = {
        "scores": (n, len(profile.kinds)), "vital_signs": (n, len(profile.vitals)),
        "cell_of_scan": (n,), "stratum_of_scan": (n,),
    }  # fmt: skip
    for name, shape in expected.items():
        array = getattr(profile, name)
        if array.shape != shape:
            raise _RefusedError(f"array {name} is {array.shape}, expected {shape} for {n} scans")
    if np.isnan(profile.scores).any():
        raise _RefusedError("array scores holds NaN")
    if len(profile.weights) != len(profile.kinds) or not profile.kinds:
        raise _RefusedError(f"{len(profile.weights)} weights for {len(profile.kinds)} kinds")
    if n == 0 or not profile.strata or sum((ANY, ANY) in s.cells for s in profile.strata) != 1:
        raise _RefusedError("exactly one stratum must take what is like no other scan")
    for name, count in (("cell_of_scan", len(profile.cells)), ("stratum_of_scan", len(profile.strata))):
        array = getattr(profile, name)
        if array.min() < 0 or array.max() >= count:
            raise _RefusedError(f"array {name} holds {array.min()}..{array.max()}, expected 0..{count - 1}")
    for number, stratum in enumerate(profile.strata):
        if int((profile.stratum_of_scan == number).sum()) != stratum.scans:
            raise _RefusedError(f"stratum {stratum.words!r} does not have the {stratum.scans} scans it tells of")
