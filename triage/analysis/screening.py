"""From detector counts to log transmission, material classes, anomaly scores and regions: the triage path's image side.

The image is cut into strips of columns which are screened independently, each with its own halo, and joined at the
seams. Every sum that crosses a seam is an integer, so the result does not depend on the number of strips, bit for bit.
This module starts no threads: the caller passes the `map` that runs the strips (a thread pool's, for a lane).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.kernels import join_runs as table_columns
from triage.kernels.air_level import AIR_SATURATED, NO_BEAM, air_level
from triage.kernels.box_integral import MAX_RADIUS
from triage.kernels.box_z import Z_STEPS
from triage.kernels.join_runs import FEATURES, MATERIALS, join_runs
from triage.kernels.label_columns import label_columns
from triage.kernels.log_code import OFFSET, STEPS
from triage.kernels.screen_columns import LAG, RING, screen_columns

__all__ = [
    "AIR_SATURATED",
    "MATERIALS",
    "NO_BEAM",
    "OFFSET",
    "REGION",
    "STEPS",
    "Z_STEPS",
    "Buffers",
    "Calibration",
    "Screening",
    "log_of_code",
    "screen",
    "warm_up",
]

Array: TypeAlias = NDArray[Any]
MapStrips: TypeAlias = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]

#: Boxes of 7, 21 and 63 columns and channels. 63 is the largest whose packed sums are exact.
RADII = (3, 10, 31)
#: Regions below this many pixels are noise and are left out.
MIN_AREA = 5
#: Labels a strip may open before the image is labelled again with a larger table, and the end of that growth.
STRIP_LABELS = 1 << 15
MAX_LABELS = 1 << 18

CACHE_LINE = 64

#: One region. Columns and channels are half-open ranges, the centroid is in pixels, sum_log is the sum of L over the
#: region in the higher energy, max_z its largest score, material the pixels per material class (the last class counts
#: all higher codes too).
REGION = np.dtype(
    [
        ("area", np.int64),
        ("col0", np.int64),
        ("col1", np.int64),
        ("ch0", np.int64),
        ("ch1", np.int64),
        ("centroid_column", np.float64),
        ("centroid_channel", np.float64),
        ("sum_log", np.float64),
        ("max_z", np.float64),
        ("material", np.int64, (MATERIALS,)),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What turns counts into transmission; energies are ordered (low, high), or (one,).

    dark : per energy (channels,) float32, counts without beam
    inv_gain : per energy (channels,) float32, 1/counts, so that (counts - dark) * inv_gain is about 1 in air
    bad_channels : (channels,) bool, True = not used, bridged from its neighbours
    air_channels : (first, last) channels, both included, that always see air; None: the image is not divided by air
    saturation_value : counts from which a channel is saturated
    min_air : air level at or below which a column reads as "no beam" (1 = open beam)

    Raises DataError for lengths that differ, values that are no numbers, or no good channel to lean on.
    """

    dark: tuple[Array, ...]
    inv_gain: tuple[Array, ...]
    bad_channels: Array
    air_channels: tuple[int, int] | None = None
    saturation_value: int = 65535
    min_air: float = 0.02

    def __post_init__(self) -> None:
        """Check once, so that no kernel has to."""
        channels = self.bad_channels.shape[0] if self.bad_channels.ndim == 1 else 0
        if channels == 0 or self.bad_channels.dtype != np.bool_:
            raise DataError(
                f"calibration: bad_channels is {self.bad_channels.dtype} {self.bad_channels.shape}; "
                "give a non-empty (channels,) bool mask"
            )
        good = ~self.bad_channels
        if not good.any():
            raise DataError(f"calibration: all {channels} channels are marked bad; check the bad-channel mask")
        if not 1 <= len(self.dark) == len(self.inv_gain) <= 2:
            raise DataError(
                f"calibration: {len(self.dark)} dark and {len(self.inv_gain)} inv_gain arrays; give one or two of each"
            )
        for name, arrays in (("dark", self.dark), ("inv_gain", self.inv_gain)):
            for energy, values in enumerate(arrays):
                where = f"calibration: {name} of energy {energy}"
                if values.shape != (channels,) or values.dtype != np.float32 or not values.flags.c_contiguous:
                    raise DataError(
                        f"{where} is {values.dtype} {values.shape}, contiguous: {values.flags.c_contiguous}; "
                        f"give contiguous float32 ({channels},)"
                    )
                wrong = np.flatnonzero(good & ~np.isfinite(values))
                if wrong.size:
                    raise DataError(
                        f"{where} is {values[wrong[0]]} in good channel {wrong[0]} (and {wrong.size - 1} more); "
                        "mark such channels bad or repeat the calibration"
                    )
        if self.air_channels is not None:
            first, last = self.air_channels
            if not 0 <= first <= last < channels or not good[first : last + 1].any():
                raise DataError(
                    f"calibration: air_channels {self.air_channels} hold no good channel of 0..{channels - 1}; "
                    "name the first and last air-monitor channel"
                )


@dataclass(frozen=True, kw_only=True)
class Screening:
    """Result of `screen`; all images are (columns, channels), channel contiguous, read-only.

    q : per energy uint16, round(512 L) + 128 after the 3x3 median (log_of_code gives L)
    material : uint8, material class; 0 everywhere for one energy or without a table, and in flagged columns
    z : uint8, floor(16 z) up to 255: byte b stands for scores from b/16 up to (b + 1)/16; 0 in flagged columns
    column_flags : (columns,) uint8, 0 = good, else NO_BEAM and/or AIR_SATURATED
    regions : (n,) REGION, z >= threshold, 8-connected, ordered by first column, then lowest channel in it
    overflow : runs of pixels that found the region table full; not 0 means regions are incomplete, never "clear"
    """

    q: tuple[Array, ...]
    material: Array
    z: Array
    column_flags: Array
    regions: Array
    overflow: int


class _Strip:
    """Working memory of one strip for a channel count."""

    def __init__(self, channels: int, labels: int) -> None:
        width = channels + 2 * RADII[-1] + 1
        self.codes = np.empty((2, 4, channels), np.uint16)
        self.spare = np.empty(channels, np.uint16)
        self.triples = np.empty((3, channels + 2), np.uint16)
        self.index = np.empty(channels, np.uint32)
        self.columns_sum = _aligned(channels, np.int64)
        # rows of whole cache lines, so that no vector load of a row's start straddles two
        self.integral = _aligned(RING * _whole_lines(width), np.int64).reshape(RING, -1)
        self.squared = np.empty((3, channels), np.float32)
        self.runs = np.empty((2, channels // 2 + 1, 3), np.int64)
        self.first_runs = np.empty((channels // 2 + 1, 3), np.int64)
        self.parent = np.empty(labels, np.int64)
        self.table = np.empty((labels, FEATURES), np.int64)
        self.tally = np.zeros(6, np.int64)

    @property
    def last_runs(self) -> Array:
        return np.asarray(self.runs[self.tally[3], : self.tally[2]])


@dataclass(kw_only=True)
class Buffers:
    """Memory a lane keeps from scan to scan; touching 50 MB afresh costs more than copying them.

    The arrays of a Screening made with buffers are overwritten by the next `screen` with the same buffers.
    """

    images: dict[str, Array] = field(default_factory=dict)
    strips: list[_Strip] = field(default_factory=list)

    def image(self, name: str, columns: int, channels: int, dtype: type[np.generic]) -> Array:
        """Return a (columns, channels) array, from the memory kept under this name when it suffices."""
        kept = self.images.get(name)
        if kept is None or kept.dtype != dtype or kept.shape[1] != channels or kept.shape[0] < columns:
            kept = np.empty((columns, channels), dtype)
            self.images[name] = kept
        return kept[:columns]

    def strip(self, index: int, channels: int, labels: int) -> _Strip:
        """Return the working memory of strip `index`; called for rising indices."""
        if index == len(self.strips):
            self.strips.append(_Strip(channels, labels))
        strip = self.strips[index]
        if strip.spare.size != channels or strip.parent.size != labels:
            strip = self.strips[index] = _Strip(channels, labels)
        strip.tally[:] = 0
        return strip


def log_of_code(q: Array) -> Array:
    """Return L = -ln(transmission), float32, of 12-bit log codes."""
    return np.asarray((q.astype(np.float32) - np.float32(OFFSET)) / np.float32(STEPS))


def screen(
    counts: tuple[Array, ...],
    calibration: Calibration,
    *,
    threshold_z: float = 4.0,
    strips: int = 2,
    map_strips: MapStrips = map,
    buffers: Buffers | None = None,
    material_table: Array | None = None,
    min_area: int = MIN_AREA,
) -> Screening:
    """Screen one radiograph.

    counts : one or two (columns, channels) uint16, detector counts, energies ordered (low, high)
    threshold_z : a region is where z reaches this, 1/16 .. 15.9
    strips, map_strips : number of independent column strips and the map that runs them; no effect on the result
    buffers : memory to reuse; without it every call allocates
    material_table : (512, 512) uint8 by [low, high], bin i is L from (8 i - 128.5) / 512, 1/64 wide; None: no material
    min_area : smaller regions are left out

    A column without usable air level is flagged, scores z = 0 and shows the last good column before it (before the
    first good column: that one), which is also what its neighbours' statistics see. So a beam drop neither divides
    by nothing nor draws an edge that would hide or fake an anomaly beside it.

    Raises DataError for arrays of the wrong kind or size.
    """
    columns, channels = _checked_shape(counts, calibration)
    table = _checked_table(material_table)
    threshold = math.ceil(threshold_z * Z_STEPS) if math.isfinite(threshold_z) else 0
    if not 1 <= threshold <= 255:
        raise DataError(f"threshold_z is {threshold_z}; give 1/16 to 15.9, the range in which z is stored")
    if strips < 1:
        raise DataError(f"strips is {strips}; give 1 or more")

    memory = Buffers() if buffers is None else buffers
    count = min(strips, columns)
    inv_air, flags = _air_levels(counts, calibration, count, map_strips)
    low, high = counts[0], counts[-1]
    two = len(counts) == 2
    q_high = memory.image("q_high", columns, channels, np.uint16)
    q_low = memory.image("q_low", columns if two else 0, channels, np.uint16)
    material = memory.image("material", columns, channels, np.uint8)
    z = memory.image("z", columns, channels, np.uint8)

    labels = min(STRIP_LABELS, MAX_LABELS // count)
    parts = [memory.strip(i, channels, labels) for i in range(count)]
    source = _sources(flags)
    bridges, weight = _bridges(calibration.bad_channels)
    dark = np.stack((calibration.dark[0], calibration.dark[-1]))
    inv_gain = np.stack((calibration.inv_gain[0], calibration.inv_gain[-1]))
    radii = np.array(RADII, np.int64)
    assert RADII[-1] <= MAX_RADIUS, "larger boxes overflow the packed sums"

    def run(index: int) -> None:
        part = parts[index]
        start, stop = index * columns // count, (index + 1) * columns // count
        fed_from, fed_to = max(0, start - LAG), min(columns, stop + LAG)
        span = np.array((fed_from, fed_from, fed_to, start, stop, columns - 1, 0), np.int64)
        screen_columns(
            low,
            high,
            two,
            source[fed_from:fed_to],
            inv_air[0],
            inv_air[-1],
            dark,
            inv_gain,
            bridges,
            weight,
            table,
            radii,
            threshold,
            span,
            q_low,
            q_high,
            material,
            z,
            flags,
            part.codes,
            part.spare,
            part.triples,
            part.index,
            part.columns_sum,
            part.integral,
            part.squared,
            part.runs,
            part.first_runs,
            part.parent,
            part.table,
            part.tally,
        )

    for _ in map_strips(run, range(count)):
        pass

    parent, features, overflow = _joined(parts)
    if overflow:
        parent, features, overflow = _labelled_again(z, q_high, material, threshold)
    q = (q_low, q_high) if two else (q_high,)
    return Screening(
        q=tuple(_read_only(image) for image in q),
        material=_read_only(material),
        z=_read_only(z),
        column_flags=_read_only(flags),
        regions=_read_only(_regions(parent, features, min_area)),
        overflow=overflow,
    )


def warm_up() -> None:
    """Load and run every kernel once, so that no compilation falls into a lane's first scan."""
    counts = np.full((3, 9), 1000, np.uint16)
    for energies in (1, 2):
        calibration = Calibration(
            dark=(np.zeros(9, np.float32),) * energies,
            inv_gain=(np.full(9, 1e-3, np.float32),) * energies,
            bad_channels=np.arange(9) == 4,
            air_channels=(0, 1),
        )
        screen((counts,) * energies, calibration, material_table=np.zeros((512, 512), np.uint8))


def _checked_shape(counts: tuple[Array, ...], calibration: Calibration) -> tuple[int, int]:
    if len(counts) != len(calibration.dark):
        raise DataError(f"screening: {len(counts)} energies of counts, {len(calibration.dark)} in the calibration")
    channels = calibration.bad_channels.shape[0]
    for energy, image in enumerate(counts):
        if image.ndim != 2 or image.dtype != np.uint16 or not image.flags.c_contiguous:
            raise DataError(
                f"screening: counts of energy {energy} are {image.dtype} {image.shape}, "
                f"contiguous: {image.flags.c_contiguous}; give C-contiguous (columns, channels) uint16"
            )
        if image.shape != counts[0].shape or image.shape[0] == 0 or image.shape[1] != channels:
            raise DataError(
                f"screening: counts of energy {energy} have shape {image.shape}; give the same number of columns, "
                f"at least one, for every energy, and the calibration's {channels} channels"
            )
    return int(counts[0].shape[0]), channels


def _checked_table(table: Array | None) -> Array:
    if table is None:
        return np.empty((0, 0), np.uint8)
    if table.shape != (512, 512) or table.dtype != np.uint8:
        raise DataError(f"screening: material_table is {table.dtype} {table.shape}; give uint8 (512, 512)")
    return np.ascontiguousarray(table)


def _air_levels(
    counts: tuple[Array, ...], calibration: Calibration, strips: int, map_strips: MapStrips
) -> tuple[Array, Array]:
    """Return 1/air, (energies, columns) float32, and the flags (columns,) uint8 of all energies together."""
    columns = counts[0].shape[0]
    inv_air = np.empty((len(counts), columns), np.float32)
    flags = np.zeros(columns, np.uint8)
    bad = calibration.bad_channels.astype(np.uint8)
    first, last = calibration.air_channels or (0, -1)

    def run(index: int) -> None:
        own = slice(index * columns // strips, (index + 1) * columns // strips)
        for energy, image in enumerate(counts):
            air_level(
                image[own],
                calibration.dark[energy],
                calibration.inv_gain[energy],
                bad,
                first,
                last + 1,
                calibration.saturation_value,
                calibration.min_air,
                inv_air[energy, own],
                flags[own],
            )

    for _ in map_strips(run, range(strips)):
        pass
    return inv_air, flags


def _sources(flags: Array) -> Array:
    """Return for every column the column it shows: itself, or the good one a flagged column repeats; -1: none."""
    good = flags == 0
    if not good.any():
        return np.full(flags.size, -1, np.int64)
    source = np.maximum.accumulate(np.where(good, np.arange(flags.size, dtype=np.int64), -1))
    return np.asarray(np.where(source < 0, np.argmax(good), source).astype(np.int64))


def _bridges(bad_channels: Array) -> tuple[Array, Array]:
    """Return (3, n) int32 bad channels with the good ones below and above, and the (n,) float32 share of the upper."""
    bad = np.flatnonzero(bad_channels)
    good = np.flatnonzero(~bad_channels)
    after = np.searchsorted(good, bad)
    below = good[np.maximum(after - 1, 0)]
    above = good[np.minimum(after, good.size - 1)]
    gap = np.maximum(above - below, 1)
    return np.stack((bad, below, above)).astype(np.int32), ((bad - below) / gap).clip(0, 1).astype(np.float32)


def _joined(parts: list[_Strip]) -> tuple[Array, Array, int]:
    """Return union-find parents and features of all strips, joined at the seams, and the refused runs."""
    offsets = np.concatenate(([0], np.cumsum([part.tally[0] for part in parts]))).astype(np.int64)
    features = np.concatenate([part.table[: part.tally[0]] for part in parts])
    parent = np.concatenate([part.parent[: part.tally[0]] + at for part, at in zip(parts, offsets, strict=False)])
    overflow = sum(int(part.tally[1]) for part in parts)
    if overflow == 0:
        for i in range(len(parts) - 1):
            left = parts[i].last_runs.copy()
            right = parts[i + 1].first_runs[: parts[i + 1].tally[5]].copy()
            left[:, 2] += offsets[i]
            right[:, 2] += offsets[i + 1]
            join_runs(left, len(left), right, len(right), parent, features)
    return parent, features, overflow


def _labelled_again(z: Array, q: Array, material: Array, threshold: int) -> tuple[Array, Array, int]:
    """Label the whole image with ever larger tables: one pass, so that even a full table is the same for any strips."""
    for labels in _growing():
        runs = np.empty((2, z.shape[1] // 2 + 1, 3), np.int64)
        parent, table = np.empty(labels, np.int64), np.empty((labels, FEATURES), np.int64)
        tally = np.zeros(4, np.int64)
        label_columns(z, q, material, 0, threshold, runs, parent, table, tally)
        if tally[1] == 0:
            break
    return parent[: tally[0]], table[: tally[0]], int(tally[1])


def _growing() -> Iterator[int]:
    labels = min(4 * STRIP_LABELS, MAX_LABELS)
    while labels < MAX_LABELS:
        yield labels
        labels *= 4
    yield MAX_LABELS


def _regions(parent: Array, features: Array, min_area: int) -> Array:
    """Return the REGION table of the roots, in an order that does not depend on how they were found."""
    col = table_columns
    rows = features[(parent == np.arange(parent.size)) & (features[:, col.AREA] >= min_area)]
    rows = rows[np.lexsort((rows[:, col.SEED], rows[:, col.COL0]))]
    regions = np.empty(len(rows), REGION)
    area = rows[:, col.AREA]
    regions["area"] = area
    for name, index in (("col0", col.COL0), ("col1", col.COL1), ("ch0", col.CH0), ("ch1", col.CH1)):
        regions[name] = rows[:, index]
    regions["centroid_column"] = rows[:, col.SUM_COLUMN] / area
    regions["centroid_channel"] = rows[:, col.SUM_CHANNEL] / area
    regions["sum_log"] = (rows[:, col.SUM_Q] - OFFSET * area) / STEPS
    regions["max_z"] = rows[:, col.MAX_Z] / Z_STEPS
    regions["material"] = rows[:, col.HISTOGRAM :]
    return regions


def _whole_lines(words: int) -> int:
    return -(-words * 8 // CACHE_LINE) * CACHE_LINE // 8


def _aligned(size: int, dtype: type[np.generic]) -> Array:
    """Return (size,) uninitialised memory that starts on a cache line."""
    length = size * np.dtype(dtype).itemsize
    memory = np.empty(length + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + length].view(dtype)


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
