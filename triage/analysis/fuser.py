"""How strange a place is, by trees that were shown where objects had been put into clean scans.

The trees are plain arrays; the package carries one set, trained as its `about` says, and a profile may name another.
Whatever trains them stays outside of judgement: `scanlane study train-fuser`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.kernels.tree_sum import tree_sum

from .maps import Map, Maps
from .normal import Normal
from .patches import DIMENSIONS, Bank
from .position_tables import END_BINS, HEIGHT_BINS, NORMALISED, PositionTables

Array: TypeAlias = NDArray[Any]

VERSION = 1
MAX_BYTES = 256 << 20
"""Unpacked; the packaged one has half a megabyte."""
_NODES = ("feature", "threshold", "right", "value", "root")
PLAIN = (
    "x", "mean_21", "mean_63", "mean_181", "std_9", "std_21", "std_45", "z_7_63", "z_21_81", "dog_2", "dog_4", "dog_8",
    "dog_16", "dog_32", "top_hat_15", "top_hat_41", "bottom_hat_15", "bottom_hat_41", "gradient_along", "gradient_up",
    "row_contrast_20", "row_contrast_52", "column_contrast_20", "column_contrast_52", "over_row", "over_column",
    "tallest", "longest", "rx", "self_16", "self_32", "bank_16", "bank_32", "low_rank", "to_end", "height",
)  # fmt: skip
"""Maps a fuser sees as they are."""
FEATURES = (*PLAIN, *(f"{name}_usual" for name in NORMALISED))
"""All it sees: the maps, and some as a share of what is usual at their place."""


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a fuser comes from.

    trained_on : sha256 of the clean images, real ones; an evaluation on one of them must train anew without it
    sketches : of the same images, in the same order: by them one is known again that was stored anew
    simulated : number of simulated scans among the clean images, and how they were made
    options : of the training
    """

    trained_on: tuple[str, ...] = ()
    sketches: tuple[str, ...] = ()
    simulated: str = "none"
    options: dict[str, Any] = {}


class Trees(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Regression trees, node by node: see `tree_sum`. base : what is added to every sum."""

    feature: Array
    threshold: Array
    right: Array
    value: Array
    root: Array
    base: float


class Fuser(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Trees and what they were trained beside.

    features : names of the columns the trees compare
    trees : None where none were trained: then the untrained sum stands in for them
    normal : what is usual by place, and the bank
    thresholds : by texture and at "any": the scores that one place per clean scan ("one") and one place in ten scans
        ("tenth") exceed, measured on scans of groups that were not learnt from
    """

    features: tuple[str, ...]
    trees: Trees | None
    normal: Normal
    thresholds: dict[str, dict[str, float]]
    about: About

    def score(self, maps: Maps, normal: Normal, *, map_parts: Map = map) -> Array:
        """Return (rows, columns) float32, the log odds that an object was put there; -inf where nothing can be seen.

        maps : with the bank of `normal`

        Raises DataError without trees.
        """
        if self.trees is None:
            raise DataError("fuser: it has no trees to score by; use the untrained sum")
        seen = np.flatnonzero(maps.seen.ravel())
        values = {name: values.ravel()[seen] for name, values in maps.values.items()}
        rows = features_of(values, normal, maps.shape, seen, self.features)
        total = np.full(len(rows), self.trees.base, np.float32)
        halves = [slice(0, len(rows) // 2), slice(len(rows) // 2, len(rows))]
        t = self.trees

        def add(part: slice) -> None:
            tree_sum(rows[part], t.feature, t.threshold, t.right, t.value, t.root, total[part])

        list(map_parts(add, halves))
        found = np.full(maps.seen.size, -np.inf, np.float32)
        found[seen] = total
        return found.reshape(maps.shape)


def features_of(
    values: dict[str, Array], normal: Normal, shape: tuple[int, int], cells: Array, names: tuple[str, ...]
) -> Array:
    """Return (n, len(names)) float32.

    values : per map, (n,) of some cells; cells : (n,) their flat indices in maps of `shape`

    Raises DataError where a feature is no map: the fuser is of another version.
    """
    found = np.empty((len(cells), len(names)), np.float32)
    for i, name in enumerate(names):
        plain = name.removesuffix("_usual")
        if plain not in values or (plain != name and plain not in normal.tables.names):
            raise DataError(f"fuser: feature {name!r} is none of the maps {sorted(values)}; train the fuser anew")
        found[:, i] = values[plain]
        if plain != name:
            found[:, i] /= normal.tables.usual(plain, shape).ravel()[cells]
    return found


# -- files


def to_bytes(fuser: Fuser) -> bytes:
    """Return the fuser as an .npz archive of plain arrays and one JSON text."""
    header = {
        "version": VERSION,
        "features": fuser.features,
        "base": None if fuser.trees is None else fuser.trees.base,
        "tables": fuser.normal.tables.names,
        "familiar": fuser.normal.familiar,
        "scans": fuser.normal.scans,
        "thresholds": fuser.thresholds,
        "about": fuser.about,
    }
    trees: dict[str, Any] = {}
    if fuser.trees is not None:
        trees = {name: getattr(fuser.trees, name) for name in _NODES}
    arrays: dict[str, Any] = {f"bank_{i}": codes.astype(np.float16) for i, codes in enumerate(fuser.normal.bank.codes)}
    out = io.BytesIO()
    np.savez_compressed(
        out, header=np.frombuffer(msgspec.json.encode(header), np.uint8),
        table_values=fuser.normal.tables.values, **trees, **arrays,
    )  # fmt: skip
    return out.getvalue()


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    features: tuple[str, ...]
    base: float | None
    tables: tuple[str, ...]
    familiar: float | None
    scans: int
    thresholds: dict[str, dict[str, float]]
    about: About


def from_bytes(content: bytes, name: str) -> Fuser:
    """Return the fuser of an .npz archive.

    name : of the file, for messages
    Raises DataError where it is none, of another version, or its trees point outside of themselves.
    """
    try:
        if not content.startswith(b"PK"):  # numpy would take it for a pickle, and advise to trust it
            raise ValueError(f"no .npz archive: begins with {content[:8]!r}")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:  # a few kilobytes may unpack to as much as the machine has
            raise ValueError(f"unpacks to {size} bytes, at most {MAX_BYTES} are accepted")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        header = msgspec.json.decode(arrays["header"].tobytes(), type=_Header)
        if header.version != VERSION:
            raise DataError(f"fuser {name}: version {header.version}, {VERSION} is read here; train it anew")
        trees = None if header.base is None else _trees(arrays, header.base, len(header.features))
        codes = tuple(np.ascontiguousarray(arrays[f"bank_{i}"], np.float32) for i in range(_banks(arrays)))
        tables = PositionTables(names=header.tables, values=np.ascontiguousarray(arrays["table_values"], np.float32))
        _check_numbers(header, trees, tables, codes)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, msgspec.MsgspecError) as problem:
        raise DataError(f"fuser {name}: not a file of `scanlane study train-fuser` ({problem})") from problem
    normal = Normal(tables=tables, bank=Bank(codes=codes), familiar=header.familiar, scans=header.scans)
    return Fuser(features=header.features, trees=trees, normal=normal, thresholds=header.thresholds, about=header.about)


PACKAGED = Path(__file__).with_name("fuser.npz")
"""Where the package carries its own."""


@functools.lru_cache(maxsize=4)
def fuser_named(name: str) -> Fuser | None:
    """Return what a profile names: "packaged", the path of a file, or "none"; None for the last.

    Raises DataError for a file that cannot be read, the package's own as well: an installation that has lost it must
    not quietly search by less.
    """
    if name == "none":
        return None
    return load(PACKAGED if name == "packaged" else Path(name))


@functools.lru_cache(maxsize=4)
def digest(fuser: Fuser) -> str:
    """Return the SHA-256 of a fuser's own values, whatever its file is called."""
    # sketches change no score
    about = msgspec.structs.replace(fuser.about, sketches=())
    return hashlib.sha256(to_bytes(msgspec.structs.replace(fuser, about=about))).hexdigest()


def load(path: Path) -> Fuser:
    """Return the fuser in a file; raises DataError as `from_bytes` does."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DataError(f"fuser {path}: cannot be read ({problem})") from problem
    return from_bytes(content, str(path))


def _banks(arrays: dict[str, Array]) -> int:
    return sum(key.startswith("bank_") for key in arrays)


def _check_numbers(header: _Header, trees: Trees | None, tables: PositionTables, codes: tuple[Array, ...]) -> None:
    """Raise ValueError for numbers that would make every score NaN or 0: nothing would be found, and nobody told."""
    if tables.values.shape[:1] != (len(tables.names),):
        raise ValueError(f"position tables of shape {tables.values.shape} for {len(tables.names)} maps")
    if tables.names and tables.values.shape[1:] != (END_BINS, HEIGHT_BINS):
        raise ValueError(f"position tables of shape {tables.values.shape}, expected {END_BINS} x {HEIGHT_BINS} places")
    # a kernel reads as many values of a patch as the image's have
    if wrong := [bank.shape for bank in codes if bank.ndim != 2 or bank.shape[1] != DIMENSIONS + 1]:
        raise ValueError(f"a bank of shape {wrong[0]}, expected {DIMENSIONS + 1} values per patch")
    if not (np.isfinite(tables.values).all() and (tables.values > 0).all()):
        raise ValueError("a position table holds what is not above 0 and finite")
    if not all(np.isfinite(bank).all() for bank in codes):
        raise ValueError("the bank of patches holds what is no number")
    # a threshold may be infinite in a split, but then a leaf goes one way for good: only NaN goes nowhere
    if trees is not None and not (np.isfinite(trees.value).all() and not np.isnan(trees.threshold).any()):
        raise ValueError("a tree holds what is no number")
    if header.familiar is not None and header.familiar <= 0:
        raise ValueError(f"a texture is said to be known up to a distance of {header.familiar:g}, expected above 0")
    for texture, limits in header.thresholds.items():
        if not {"one", "tenth"} <= limits.keys():
            raise ValueError(f"thresholds of texture {texture!r} are {sorted(limits)}, expected one and tenth")


def _trees(arrays: dict[str, Array], base: float, features: int) -> Trees:
    """Return checked trees: a kernel does not look whether a node it is sent to is there."""
    feature = np.ascontiguousarray(arrays["feature"], np.int16)
    right, root = (np.ascontiguousarray(arrays[k], np.int32) for k in ("right", "root"))
    threshold, value = (np.ascontiguousarray(arrays[k], np.float32) for k in ("threshold", "value"))
    nodes = feature.size
    if not nodes == right.size == threshold.size == value.size:
        raise ValueError("node arrays of different lengths")
    node = np.arange(nodes)
    inner = feature >= 0
    # the child to the left is the next node, which a last inner node has not
    sound = (right[inner] > node[inner] + 1).all() and (right[inner] < nodes).all() and not inner[-1:].any()
    if not sound or (feature >= features).any() or ((root < 0) | (root >= nodes)).any():
        raise ValueError("a node points outside of its tree")
    return Trees(feature=feature, threshold=threshold, right=right, value=value, root=root, base=base)
