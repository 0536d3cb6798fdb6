"""From detector counts to log transmission, material classes, anomaly scores and regions: the triage path's image side.

`Engine` takes columns while the vehicle passes; `screen` takes a whole image, cut into strips of columns which are
screened independently, each with its own halo, and joined at the seams. Every sum is an integer, so the result depends
neither on the blocks nor on the number of strips, bit for bit. This module starts no threads: the caller passes the
`map` that runs the strips (a thread pool's, for a lane).
"""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.kernels.air_level import AIR_SATURATED, NO_BEAM, air_level
from triage.kernels.box_integral import FIRST, MAX_RADIUS
from triage.kernels.box_z import MAX_SMALL_RADIUS, Z_STEPS
from triage.kernels.join_runs import FEATURES, MATERIALS, join_runs
from triage.kernels.label_columns import LABELS, LAST_HALF, LAST_RUNS, REFUSED, ROOM, SEAM_RUNS, label_columns
from triage.kernels.list_regions import WORDS, list_regions
from triage.kernels.log_code import OFFSET, STEPS
from triage.kernels.median3 import START
from triage.kernels.prefix_sum import LANES
from triage.kernels.screen_columns import FINISHED, LAG, RING, screen_columns

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
    "Engine",
    "Progress",
    "Screening",
    "log_of_code",
    "screen",
    "warm_up",
]

Array: TypeAlias = NDArray[Any]
MapStrips: TypeAlias = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]

#: Boxes of 7, 21 and 63 columns and channels. 63 is the largest whose sums are exact.
RADII = (3, 10, 31)
#: Regions below this many pixels are noise and are left out.
MIN_AREA = 5
#: Regions in a strip's table when small closed ones are first taken out of it, and regions of all strips together when
#: the image is labelled again, in one pass. The tables are address space: what is not used takes no memory.
STRIP_LABELS = 1 << 15
MAX_LABELS = 1 << 18
#: Columns for which address space is reserved: a train. Memory is used as columns come.
MAX_COLUMNS = 200_000
#: Memory of a scan's images that is kept for the next one; what a train took beyond goes back.
KEPT_BYTES = 256 << 20

CACHE_LINE = 64
_COUNTS = np.dtype(np.uint16)
#: A column beyond any: the end of an image that is still growing.
NEVER = 1 << 40

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
        bad = self.bad_channels
        if not isinstance(bad, np.ndarray) or bad.ndim != 1 or bad.size == 0 or bad.dtype != np.bool_:
            raise DataError(f"calibration: bad_channels is {_kind(bad)}; give a non-empty (channels,) bool mask")
        channels = bad.size
        if not _whole(self.saturation_value, 1, 65535):
            raise DataError(f"calibration: saturation_value is {self.saturation_value}; give counts, 1 to 65535")
        if not isinstance(self.min_air, int | float) or not 0 <= self.min_air < 1:
            raise DataError(f"calibration: min_air is {self.min_air}; give a share of the open beam, 0 to below 1")
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
                if not isinstance(values, np.ndarray):
                    raise DataError(f"{where} is {_kind(values)}; give contiguous float32 ({channels},)")
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

    q : per screened energy uint16, round(512 L) + 128 after the 3x3 median (log_of_code gives L): both energies where
        there is a material table, else the higher one
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


class _Regions:
    """Region tables of all strips, one behind the other, as the kernels want them."""

    def __init__(self, labels: int) -> None:
        self.parent = np.empty(labels, np.int64)
        self.fresh = np.empty(labels, np.int64)
        self.table = np.empty((labels, FEATURES), np.int64)


class _Strip:
    """Working memory of one strip for a channel count."""

    def __init__(self, channels: int, regions: _Regions, first_label: int, labels: int) -> None:
        # whole cache lines, so that a vector load at the start of a row does not straddle two
        size = LANES * -(-(FIRST + channels + RADII[-1]) // LANES)
        line = START + -(-(channels + 1) // 32) * 32
        self.codes = _aligned(8 * line, np.uint16).reshape(2, 4, line)
        self.spare = _aligned(channels, np.uint16)
        self.index = _aligned(channels, np.uint32)
        self.columns_sum = _aligned(2 * size, np.uint32).reshape(2, size)
        self.sums = _aligned(RING * size, np.uint32).reshape(RING, size)
        self.squares = _aligned(RING * size, np.uint32).reshape(RING, size)
        self.runs = np.empty((2, channels // 2 + 1, 3), np.int64)
        self.first_runs = np.empty((channels // 2 + 1, 3), np.int64)
        self.regions = regions
        self.first_label = first_label
        own = slice(first_label, first_label + labels)
        self.parent, self.fresh, self.table = regions.parent[own], regions.fresh[own], regions.table[own]
        self.tally = np.zeros(FINISHED + 1, np.int64)

    @property
    def last_runs(self) -> Array:
        return np.asarray(self.runs[self.tally[LAST_HALF], : self.tally[LAST_RUNS]])

    @property
    def labels(self) -> int:
        return int(self.tally[LABELS])


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    """Images of a scan, (columns, channels), and flags (columns,) uint8."""

    q_low: Array
    q_high: Array
    material: Array
    z: Array
    flags: Array

    def first(self, columns: int) -> _Outputs:
        """Return the first columns of each."""
        parts = (self.q_low, self.q_high, self.material, self.z, self.flags)
        q_low, q_high, material, z, flags = (part[:columns] for part in parts)
        return _Outputs(q_low=q_low, q_high=q_high, material=material, z=z, flags=flags)


class _Pipeline:
    """What one scan's columns go through: arrays of the calibration as the kernels want them."""

    def __init__(
        self, calibration: Calibration, material_table: Array | None, threshold_z: float, min_area: int
    ) -> None:
        self.calibration = calibration
        self.channels = calibration.bad_channels.shape[0]
        self.energies = len(calibration.dark)
        # Down to the step that z is kept in: rounded up, a score between would be asked for and not found.
        self.threshold = math.floor(threshold_z * Z_STEPS) if math.isfinite(threshold_z) else 0
        if not 1 <= self.threshold <= 255:
            raise DataError(
                f"screening: threshold_z is {threshold_z}; give 1/16 to 15.9, the range in which z is stored"
            )
        if not _whole(min_area, 1, 1 << 40):
            raise DataError(f"screening: min_area is {min_area}; give a number of pixels, 1 or more")
        self.min_area = int(min_area)
        self.table = _checked(material_table)
        # the lower energy is of use only beside the higher one; its air level is looked at in any case
        self.screened = 1 if self.table is None else self.energies
        self.bad = calibration.bad_channels.astype(np.uint8)
        self.min_air = np.float32(calibration.min_air)
        self.first_air, self.last_air = calibration.air_channels or (0, -1)

    def prepare(self) -> None:
        """Make what `feed` needs and `air_levels` does not: threads at work on the one need not wait for the other."""
        calibration = self.calibration
        self.tiles = _tiles(self.table)
        self.bridges, self.weight = _bridges(calibration.bad_channels)
        self.dark = np.stack((calibration.dark[0], calibration.dark[-1]))
        self.inv_gain = np.stack((calibration.inv_gain[0], calibration.inv_gain[-1]))
        self.radii = np.array(RADII, np.int64)
        assert RADII[-1] <= MAX_RADIUS and RADII[1] <= MAX_SMALL_RADIUS, "larger boxes overflow the sums"

    def check(self, counts: tuple[Array, ...]) -> int:
        """Return how many columns `counts` holds. Raises DataError if they are not this calibration's."""
        if len(counts) != self.energies:
            raise DataError(f"screening: {len(counts)} energies of counts, {self.energies} in the calibration")
        for energy, image in enumerate(counts):
            if not isinstance(image, np.ndarray):
                raise DataError(
                    f"screening: counts of energy {energy} are {_kind(image)}; give (columns, channels) uint16"
                )
            if image.ndim != 2 or image.dtype != _COUNTS or not image.flags.c_contiguous:
                raise DataError(
                    f"screening: counts of energy {energy} are {image.dtype} {image.shape}, "
                    f"contiguous: {image.flags.c_contiguous}; give C-contiguous (columns, channels) uint16"
                )
            if image.shape != counts[0].shape or image.shape[1] != self.channels:
                raise DataError(
                    f"screening: counts of energy {energy} have shape {image.shape}; give the same number of columns "
                    f"for every energy, and the calibration's {self.channels} channels"
                )
        return int(counts[0].shape[0])

    def air_levels(self, counts: tuple[Array, ...], inv_air: Array, flags: Array) -> int:
        """Write 1/air, (energies, columns) float32, and the flags (columns,) uint8 of all energies together.

        Returns how many columns are flagged.
        """
        flags.fill(0)
        flagged = 0
        calibration = self.calibration
        for energy, image in enumerate(counts):
            flagged = air_level(
                image,
                calibration.dark[energy],
                calibration.inv_gain[energy],
                self.bad,
                self.first_air,
                self.last_air + 1,
                calibration.saturation_value,
                self.min_air,
                inv_air[energy],
                flags,
            )
        return flagged

    def feed(
        self,
        counts: tuple[Array, ...],
        source: Array,
        inv_air: Array,
        span: tuple[int, ...],
        out: _Outputs,
        strip: _Strip,
    ) -> None:
        """Run the kernel; `span` and `source` as in screen_columns."""
        screen_columns(
            counts[0],
            counts[-1],
            self.screened == 2,
            source,
            inv_air[0],
            inv_air[-1],
            self.dark,
            self.inv_gain,
            self.bridges,
            self.weight,
            self.tiles,
            self.radii,
            self.threshold,
            self.min_area,
            np.array(span, np.int64),
            out.q_low,
            out.q_high,
            out.material,
            out.z,
            out.flags,
            strip.codes,
            strip.spare,
            strip.index,
            strip.columns_sum,
            strip.sums,
            strip.squares,
            strip.runs,
            strip.first_runs,
            strip.parent,
            strip.fresh,
            strip.table,
            strip.tally,
        )

    def result(self, out: _Outputs, strips: list[_Strip]) -> Screening:
        """Join the strips and return what they found."""
        overflow = sum(int(strip.tally[REFUSED]) for strip in strips)
        if overflow:
            found, spans, overflow = self._labelled_again(out)
        else:
            found, spans = _joined(strips)
        q = (out.q_low, out.q_high) if self.screened == 2 else (out.q_high,)
        return Screening(
            q=tuple(_read_only(image) for image in q),
            material=_read_only(out.material),
            z=_read_only(out.z),
            column_flags=_read_only(out.flags),
            regions=_read_only(_regions(found, spans, self.min_area)),
            overflow=overflow,
        )

    def _labelled_again(self, out: _Outputs) -> tuple[_Regions, list[tuple[int, int]], int]:
        """Label the whole image in one pass with the largest table, so that even a full one is always the same."""
        runs, seam_runs = np.empty((2, self.channels // 2 + 1, 3), np.int64), np.empty((0, 3), np.int64)
        found, tally = _Regions(MAX_LABELS), np.zeros(FINISHED, np.int64)
        label_columns(
            out.z,
            out.q_high,
            out.material,
            0,
            self.threshold,
            self.min_area,
            runs,
            seam_runs,
            found.parent,
            found.fresh,
            found.table,
            tally,
        )
        return found, [(0, int(tally[LABELS]))], int(tally[REFUSED])


@dataclass(kw_only=True)
class Buffers:
    """Memory a lane keeps from scan to scan; touching 50 MB afresh costs more than copying them.

    The arrays of a Screening made with buffers are overwritten by the next scan with the same buffers. Each image is
    one reservation of address space for MAX_COLUMNS; what a scan does not touch costs nothing, and nothing is copied
    while a scan grows.
    """

    images: dict[str, tuple[mmap.mmap | None, Array]] = field(default_factory=dict)
    strips: list[_Strip] = field(default_factory=list)
    regions: _Regions | None = None
    scans: int = 0
    """Scans begun: an engine whose scan is not the last one has lost its memory to another."""

    def begin(self, *, material: bool) -> None:
        """Make ready for a scan, and give back what an unusually long one took.

        material : it will be written; otherwise it reads as zeros, and takes no memory
        """
        self.scans += 1
        for name, (memory, image) in self.images.items():
            unwritten = name == "material" and not material
            if memory is not None and (unwritten or image.nbytes > KEPT_BYTES):
                memory.madvise(mmap.MADV_DONTNEED, 0 if unwritten else KEPT_BYTES)
            elif unwritten:
                image[:] = 0

    def outputs(self, columns: int, channels: int, energies: int) -> _Outputs:
        """Return the images with room for so many columns or more; contents of columns already written stay."""
        return _Outputs(
            q_low=self._image("q_low", columns if energies == 2 else 0, channels, np.uint16),
            q_high=self._image("q_high", columns, channels, np.uint16),
            material=self._image("material", columns, channels, np.uint8),
            z=self._image("z", columns, channels, np.uint8),
            flags=self._image("flags", columns, 1, np.uint8)[:, 0],
        )

    def _image(self, name: str, columns: int, channels: int, dtype: type[np.generic]) -> Array:
        _, kept = self.images.get(name, (None, np.empty((0, 0), dtype)))
        if kept.shape[1] != channels or kept.shape[0] < columns:
            memory, larger = _reserved(columns, channels, dtype)
            if kept.shape[1] == channels:
                larger[: kept.shape[0]] = kept
            self.images[name] = memory, larger
            kept = larger
        return kept

    def strip(self, index: int, channels: int, strips: int) -> _Strip:
        """Return the working memory of strip `index` of so many; called for rising indices."""
        if self.regions is None or self.regions.parent.size != MAX_LABELS:
            self.regions = _Regions(MAX_LABELS)
        labels = MAX_LABELS // strips
        if index == len(self.strips):
            self.strips.append(_Strip(channels, self.regions, index * labels, labels))
        strip = self.strips[index]
        if (strip.spare.size, strip.parent.size, strip.regions) != (channels, labels, self.regions):
            strip = self.strips[index] = _Strip(channels, self.regions, index * labels, labels)
        strip.tally[:] = 0
        strip.tally[ROOM] = STRIP_LABELS
        return strip


def _reserved(columns: int, channels: int, dtype: type[np.generic]) -> tuple[mmap.mmap | None, Array]:
    """Return a (>= columns, channels) array over fresh zero pages, for MAX_COLUMNS where the system grants that."""
    row = channels * np.dtype(dtype).itemsize
    with_room = max(columns + columns // 4, 1)  # in steps of a quarter, or a growing scan would be copied each time
    for rows in (MAX_COLUMNS if columns <= MAX_COLUMNS else with_room, with_room):
        try:
            memory = mmap.mmap(-1, max(rows * row, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:
            continue
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memory, np.frombuffer(memory, dtype, rows * channels).reshape(rows, channels)
    return None, np.zeros((columns, channels), dtype)


def log_of_code(q: Array) -> Array:
    """Return L = -ln(transmission), float32, of 12-bit log codes."""
    return np.asarray((q.astype(np.float32) - np.float32(OFFSET)) / np.float32(STEPS))


class Progress(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How far a scan is.

    received, finished : columns that came, and columns whose scores are final
    overflow : runs of pixels so far that found the region table full; where it is not 0, `regions` are incomplete
        until `finish` has labelled the image anew
    """

    received: int
    finished: int
    overflow: int
    _engine: Engine

    @property
    def regions(self) -> Array:
        """Regions found so far, (n,) REGION; those at the last finished column may grow.

        Raises DataError once more columns have come: what was known then is gone.
        """
        if self._engine.received != self.received:
            raise DataError(
                f"screening: regions after {self.received} columns were asked for when {self._engine.received} had "
                "come; read them before the next push"
            )
        return self._engine.regions()


class Engine:
    """Screens one scan while its columns come: the result is `screen`'s of the whole image, bit for bit.

    A column is finished LAG columns after it came, because the largest box around it reaches that far. One thread
    keeps pace with any detector (100,000 columns of 2000 channels a second); an engine is used by one thread.

    calibration, threshold_z, material_table, min_area, buffers : as in `screen`
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        threshold_z: float = 4.0,
        material_table: Array | None = None,
        min_area: int = MIN_AREA,
        buffers: Buffers | None = None,
    ) -> None:
        self._pipeline = _Pipeline(calibration, material_table, threshold_z, min_area)
        self._pipeline.prepare()
        self._memory = Buffers() if buffers is None else buffers
        self._memory.begin(material=self._pipeline.screened == 2)
        self._scan = self._memory.scans
        self._failure = ""
        self._strip = self._memory.strip(0, self._pipeline.channels, 1)
        self._columns = 0
        self._out = self._memory.outputs(0, self._pipeline.channels, self._pipeline.screened)
        self._rows = np.empty(0, np.int64)
        self._dark_columns = 0
        """Columns without beam at the scan's start: they show the first good one, which has yet to come."""
        self._result: Screening | None = None

    def push(self, block: tuple[Array, ...]) -> Progress:
        """Take the next columns: per energy (n, channels) uint16, any n.

        Raises DataError for arrays of the wrong kind or size, which leave the scan as it was; after `finish`; and
        for ever after a block that failed in any other way, for columns are missing then.
        """
        if self._result is not None:
            raise DataError("screening: this scan is finished; make a new Engine for the next one")
        self._usable()
        columns = self._pipeline.check(block)
        if columns:
            try:
                self._take(block, columns)
            except BaseException as error:
                self._failure = f"columns from {self.received} on failed ({type(error).__name__}: {error})"
                raise
        tally = self._strip.tally
        return Progress(
            received=self._columns, finished=int(tally[FINISHED]), overflow=int(tally[REFUSED]), _engine=self
        )

    @property
    def received(self) -> int:
        """Columns that came."""
        return self._columns

    def _usable(self) -> None:
        """Raise DataError where a result would be of other columns than those that came."""
        if self._failure:
            raise DataError(f"screening: {self._failure}; screen the scan anew from its first column")
        if self._memory.scans != self._scan:
            raise DataError("screening: another scan was begun with these buffers; give every open scan its own")

    def finish(self) -> Screening:
        """Return the result; no column will come any more. The same again when called again.

        Raises DataError if no column ever came, or if some were not screened.
        """
        if self._result is None:
            self._usable()
            if not self._columns:
                raise DataError("screening: the scan ended without a column; there is nothing to judge")
            nothing = (np.empty((0, self._pipeline.channels), np.uint16),) * self._pipeline.energies
            dark = np.full(max(self._dark_columns, 0), -1, np.int64)
            self._feed(nothing, dark, np.empty((self._pipeline.energies, 0), np.float32), last=self._columns - 1)
            done = int(self._strip.tally[FINISHED])
            if done != self._columns:
                raise DataError(f"screening: {done} of {self._columns} columns were screened; screen the scan anew")
            self._result = self._pipeline.result(self._out.first(self._columns), [self._strip])
        return self._result

    def regions(self) -> Array:
        """Return the regions found so far, (n,) REGION."""
        self._usable()
        return _regions(self._strip.regions, [(0, self._strip.labels)], self._pipeline.min_area)

    def _take(self, block: tuple[Array, ...], columns: int) -> None:
        memory, pipe = self._memory, self._pipeline
        before, self._columns = self._columns, self._columns + columns
        if self._columns > self._out.z.shape[0]:
            self._out = memory.outputs(self._columns, pipe.channels, pipe.screened)
        inv_air = np.empty((pipe.energies, columns), np.float32)
        flags = self._out.flags[before : self._columns]
        flagged = pipe.air_levels(block, inv_air, flags)
        waiting = before > 0 and before == self._dark_columns
        if not waiting and not flagged:
            if self._rows.size != columns:
                self._rows = np.arange(columns, dtype=np.int64)
            self._feed(block, self._rows, inv_air, last=NEVER)
            self._dark_columns = -1
            return
        good = flags == 0
        if before == self._dark_columns and not good.any():
            self._dark_columns = self._columns
            return
        rows = np.arange(columns, dtype=np.int64)
        if before == self._dark_columns:
            source = np.maximum.accumulate(np.where(good, rows, 0))
            first = int(np.argmax(good))
            source = np.concatenate((np.full(before, first, np.int64), np.maximum(source, first)))
        else:
            source = np.where(good, rows, -1)
        self._feed(block, source, inv_air, last=NEVER)
        self._dark_columns = -1

    def _feed(self, block: tuple[Array, ...], source: Array, inv_air: Array, *, last: int) -> None:
        span = (0, self._columns - source.size, self._columns, 0, NEVER, last, 0)
        self._pipeline.feed(block, source, inv_air, span, self._out, self._strip)


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
    threshold_z : a region is where z reaches this, 1/16 .. 15.9, taken down to a whole 1/16
    strips, map_strips : number of independent column strips and the map that runs them; no effect on the result
    buffers : memory to reuse; without it every call allocates
    material_table : (512, 512) uint8 by [low, high], bin i is L from (8 i - 128.5) / 512, 1/64 wide; None: no material
    min_area : smaller regions are left out

    A column without usable air level is flagged, scores z = 0 and shows the last good column before it (before the
    first good column: that one), which is also what its neighbours' statistics see. So a beam drop neither divides
    by nothing nor draws an edge that would hide or fake an anomaly beside it.

    Raises DataError for arrays of the wrong kind or size.
    """
    pipe = _Pipeline(calibration, material_table, threshold_z, min_area)
    columns = pipe.check(counts)
    if not columns:
        raise DataError("screening: counts hold no column; give at least one")
    if strips < 1:
        raise DataError(f"screening: strips is {strips}; give 1 or more")
    memory = Buffers() if buffers is None else buffers
    memory.begin(material=pipe.screened == 2)
    count = min(strips, columns)
    out = memory.outputs(columns, pipe.channels, pipe.screened).first(columns)
    inv_air = np.empty((pipe.energies, columns), np.float32)
    cuts = [index * columns // count for index in range(count + 1)]

    flagged: list[int | None] = [None] * count

    def level(index: int) -> None:
        own = slice(cuts[index], cuts[index + 1])
        flagged[index] = pipe.air_levels(tuple(image[own] for image in counts), inv_air[:, own], out.flags[own])

    levels = map_strips(level, range(count))
    pipe.prepare()
    parts = [memory.strip(i, pipe.channels, count) for i in range(count)]
    for _ in levels:
        pass
    # also where a map left a strip out
    source = np.arange(columns, dtype=np.int64) if flagged == [0] * count else _sources(out.flags)

    done = [False] * count

    def run(index: int) -> None:
        start, stop = cuts[index], cuts[index + 1]
        fed_from, fed_to = max(0, start - LAG), min(columns, stop + LAG)
        span = (fed_from, fed_from, fed_to, start, stop, columns - 1, 0)
        pipe.feed(counts, source[fed_from:fed_to], inv_air, span, out, parts[index])
        done[index] = True

    for _ in map_strips(run, range(count)):
        pass
    if not all(done):
        raise DataError(f"screening: map_strips ran {sum(done)} of {count} strips; it must run all of them")
    return pipe.result(out, parts)


def warm_up() -> None:
    """Load and run every kernel of screening once, so that no compilation falls into a lane's first scan."""
    counts = np.full((3, 9), 1000, np.uint16)
    for energies in (1, 2):
        calibration = Calibration(
            dark=(np.zeros(9, np.float32),) * energies,
            inv_gain=(np.full(9, 1e-3, np.float32),) * energies,
            bad_channels=np.arange(9) == 4,
            air_channels=(0, 1),
        )
        engine = Engine(calibration, material_table=np.zeros((512, 512), np.uint8))
        engine.push((counts,) * energies)
        engine.finish()


def _kind(value: object) -> str:
    """Say what a value is that should be an array."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and low <= int(value) <= high


def _checked(table: Array | None) -> Array | None:
    if table is None or (isinstance(table, np.ndarray) and table.shape == (512, 512) and table.dtype == np.uint8):
        return table
    raise DataError(f"screening: material_table is {_kind(table)}; give uint8 (512, 512)")


def _tiles(table: Array | None) -> Array:
    """Return the material table as material_lookup wants it; (0, 0, 0, 0) for none."""
    if table is None:
        return np.empty((0, 0, 0, 0), np.uint8)
    # eight bins of the higher energy are one word: words are moved much faster than bytes
    words = np.ascontiguousarray(table).view(np.uint64).reshape(64, 8, 64)
    return np.ascontiguousarray(words.transpose(0, 2, 1)).view(np.uint8).reshape(64, 64, 8, 8)


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


def _joined(parts: list[_Strip]) -> tuple[_Regions, list[tuple[int, int]]]:
    """Return the region tables, joined at the strips' seams, and which labels of them are in use.

    From here on labels are numbers in the tables of all strips: the strips' own numbers are gone.
    """
    found = parts[0].regions
    for part in parts[1:]:
        part.parent[: part.labels] += part.first_label
    for left, right in itertools.pairwise(parts):
        before, after = left.last_runs.copy(), right.first_runs[: right.tally[SEAM_RUNS]].copy()
        before[:, 2] += left.first_label
        after[:, 2] += right.first_label
        join_runs(before, len(before), after, len(after), found.parent, found.table)
    return found, [(part.first_label, part.first_label + part.labels) for part in parts]


def _regions(found: _Regions, spans: list[tuple[int, int]], min_area: int) -> Array:
    """Return the REGION table of the roots, in an order that does not depend on how they were found."""
    count, rows = 0, np.empty((0, WORDS), np.int64)
    for first, stop in spans:
        count = list_regions(found.parent, found.table, first, stop, min_area, count, rows)
    regions, count = np.empty(count, REGION), 0
    if regions.size:
        rows = regions.view(np.int64).reshape(-1, WORDS)
        for first, stop in spans:
            count = list_regions(found.parent, found.table, first, stop, min_area, count, rows)
    return regions


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
