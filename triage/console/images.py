"""Pictures of an opened scan: 16-bit tiles at every level of a pyramid, and what a browser must know to show them.

A value is transmission times 65535 where the detector gave raw counts, and the grey value itself where a vendor had
windowed the image already. Everything here is upright: x is the column from the left, y the row from the top.

Level 0 is the image itself. A pixel of level n is made of 2 x 2 pixels of level n - 1, their mean or their smallest
(the densest): a thin dense thing survives zooming out in the second. An odd last row or column counts twice.
"""

from __future__ import annotations

import threading
import zlib
from functools import cache
from typing import Any, Literal, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from scanner_io.model import Box, Radiograph

Array: TypeAlias = NDArray[Any]
Reduce = Literal["mean", "min"]

TILE = 1024
"""Edge of a tile, pixels."""
WHITE = 65535
_TOP_LEVEL_PIXELS = 600
"""No level is made whose larger side would be smaller than this."""
_STRIP_PIXELS = 1 << 20
"""Worked on at once: bounds what a very long scan takes beside its counts."""
_CACHED_PIXELS = 1 << 17
"""Corrected at once: what stays in a core's cache is done in a third of the time."""
_HALF, _BITS = np.uint32(0xFFFF), np.uint32(16)
_MIN_SPAN = 1.0
"""Air minus dark, counts, of a channel that can be corrected."""
PERCENTILES = (0.1, 0.5, 1, 2, 5, 25, 50, 75, 95, 98, 99, 99.5, 99.9)


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """A class of the material view: pixels with `ratio_from` <= ln(T low) / ln(T high) < `ratio_to`."""

    name: str
    ratio_from: float
    ratio_to: float
    rgb: tuple[int, int, int]
    hatch: str


def materials(common: float, *, walls: bool) -> tuple[Material, ...]:
    """Return the classes beside a ratio: that of steel, as measured on the container's own walls, or the commonest.

    Three and no more: without a calibration of the beam, noise and the beam's hardening leave room for no finer ones.
    At 155 g/cm2 between 4 and 10 MV carbon lies a fifth above steel and lead a sixth below (the Geant4 table that
    `scanlane evaluate dual-energy` uses). The limits were set by eye on simulated scans: a hint, and no measurement.
    """
    return (
        Material(name="lighter", ratio_from=1.028 * common, ratio_to=9.0, rgb=(232, 158, 84), hatch="none"),
        Material(
            name="steel" if walls else "common",
            ratio_from=0.955 * common,
            ratio_to=1.028 * common,
            rgb=(122, 158, 208),
            hatch="dots",
        ),
        Material(name="denser", ratio_from=0.0, ratio_to=0.955 * common, rgb=(206, 128, 204), hatch="cross"),
    )


MATERIAL_T = (0.03, 0.93)
"""Transmission of the high energy between which a ratio means anything."""

_WALL_T = (0.6, 0.93)
_MIN_WALL_PIXELS = 300
_WALL_COLUMNS = 600
OPAQUE_T = 0.03
"""Share of the open beam below which insertions are found by chance only: hatched, for nothing is claimed there."""
_OPAQUE_RGB = (150, 112, 168)


class Pyramid:
    """One energy of a radiograph as tiles. Thread-safe; levels above 0 are made once, when first asked for."""

    def __init__(self, radiograph: Radiograph, energy: int) -> None:
        counts = radiograph.counts[energy]
        detector = radiograph.detector
        flipped = detector.first_channel == "bottom"
        self._counts = counts[:, ::-1] if flipped else counts
        self.columns, self.rows = counts.shape
        self.white = WHITE if detector.state == "raw" else int(detector.saturation_value)
        self._lock = threading.Lock()
        self._levels: dict[Reduce, list[Array]] = {}
        self._histogram: Array | None = None
        self._gain: Array | None = None
        if detector.state == "raw":
            self._prepare(radiograph, energy, flipped=flipped)

    def _prepare(self, radiograph: Radiograph, energy: int, *, flipped: bool) -> None:
        """Find offset and gain per row, the working row shown in place of each, and the beam of each column."""
        detector = radiograph.detector
        dark, air = (np.asarray(r[energy], np.float32) for r in (detector.dark, detector.air))
        span = air - dark
        bad = detector.bad_channels | ~(span >= _MIN_SPAN)
        good = np.flatnonzero(~bad)
        if not good.size:
            raise DataError("no channel of the detector can be corrected: there is no picture to show")
        below = np.searchsorted(good, np.arange(self.rows), side="right") - 1
        nearest = good[np.maximum(below, 0)]
        gain = (1.0 / np.where(bad, 1.0, span)).astype(np.float32)
        self._beam = np.ones(self.columns, np.float32)
        if detector.air_channels is not None:
            first, end = detector.air_channels
            monitors = np.flatnonzero(~bad[first:end]) + first
            if monitors.size:
                seen = (radiograph.counts[energy][:, monitors] - dark[monitors]) * gain[monitors]
                beam = seen.mean(axis=1)
                self._beam = np.where(beam > 0.1, beam, 1.0).astype(np.float32)
        order = nearest[::-1] if flipped else nearest
        self._rows_shown = (self.rows - 1 - order if flipped else order) if bad.any() else None
        self._dark, self._gain = dark[order], gain[order] * WHITE

    # ---------------------------------------------------------------------------------------------------- values

    def values(self, x0: int, x1: int, y0: int, y1: int) -> Array:
        """Return (x1 - x0, y1 - y0) uint16 of level 0: columns first, as the scanner gave them."""
        if self._gain is None:
            return self._counts[x0:x1, y0:y1]
        values = np.empty((x1 - x0, y1 - y0), np.uint16)
        step = max(1, _CACHED_PIXELS // max(1, y1 - y0))
        room = np.empty((min(step, x1 - x0), y1 - y0), np.float32)
        for first in range(x0, x1, step):
            end = min(first + step, x1)
            self._correct(first, end, y0, y1, room[: end - first], values[first - x0 : end - x0])
        return values

    def _correct(self, x0: int, x1: int, y0: int, y1: int, room: Array, values: Array) -> None:
        """Write values of level 0 into `values`, (x1 - x0, y1 - y0) uint16. room : float32 of that shape"""
        assert self._gain is not None
        counts = self._counts[x0:x1]
        counts = counts[:, y0:y1] if self._rows_shown is None else counts[:, self._rows_shown[y0:y1]]
        np.subtract(counts, self._dark[y0:y1], out=room)
        room *= self._gain[y0:y1]
        room /= self._beam[x0:x1, None]
        np.clip(room, 0, WHITE, out=room)
        room += 0.5
        np.copyto(values, room, casting="unsafe")

    def counts_at(self, x: int, y: int) -> int:
        """Return what the detector gave for a pixel of level 0. Raises DataError beside the picture."""
        if not (0 <= x < self.columns and 0 <= y < self.rows):
            raise DataError(f"there is no pixel {x}, {y}: the picture has {self.columns} columns and {self.rows} rows")
        return int(self._counts[x, y])

    @property
    def levels(self) -> int:
        """How many levels there are, level 0 included."""
        return 1 + max(0, int(np.ceil(np.log2(max(self.columns, self.rows) / _TOP_LEVEL_PIXELS))))

    def make(self) -> None:
        """Make the levels and the histogram; a second call does nothing."""
        with self._lock:
            if self._histogram is not None:
                return
            first: dict[Reduce, list[Array]] = {"mean": [], "min": []}
            histogram = np.zeros(65536, np.int64)
            step = max(2, _STRIP_PIXELS // self.rows // 2 * 2)  # a pixel above is of an even column and the next
            for x0 in range(0, self.columns, step):
                strip = np.ascontiguousarray(self.values(x0, min(x0 + step, self.columns), 0, self.rows))
                # whole numbers in float32: a strip has fewer pixels than that can count
                seen = cv2.calcHist([strip], [0], None, [65536], [0, 65536])
                histogram += seen.ravel().astype(np.int64)
                if self.levels > 1:
                    for reduce in first:
                        first[reduce].append(halved(strip, reduce))
            for reduce, blocks in first.items():
                made = [np.concatenate(blocks)] if blocks else []
                while 0 < len(made) < self.levels - 1:
                    made.append(halved(made[-1], reduce))
                self._levels[reduce] = made
            self._histogram = histogram

    def size(self, level: int) -> tuple[int, int]:
        """Return columns and rows of a level."""
        columns, rows = self.columns, self.rows
        for _ in range(level):
            columns, rows = -(-columns // 2), -(-rows // 2)
        return columns, rows

    def tile(self, level: int, tx: int, ty: int, reduce: Reduce = "mean") -> Array:
        """Return (rows, columns) uint16 of one tile. Raises DataError if there is none."""
        columns, rows = self.size(level) if 0 <= level < self.levels else (0, 0)
        x0, y0 = tx * TILE, ty * TILE
        if not (0 <= x0 < columns and 0 <= y0 < rows):
            raise DataError(f"there is no tile {tx}, {ty} of level {level}: {self.levels} levels of tiles of {TILE}")
        x1, y1 = min(x0 + TILE, columns), min(y0 + TILE, rows)
        if level == 0:
            part = self.values(x0, x1, y0, y1)
        else:
            self.make()
            part = self._levels[reduce][level - 1][x0:x1, y0:y1]
        return np.ascontiguousarray(part.T)

    def part(self, level: int, x0: int, x1: int, y0: int, y1: int) -> Array:
        """Return (columns, rows) uint16 of a part of a level, by means."""
        if level == 0:
            return self.values(x0, x1, y0, y1)
        self.make()
        return self._levels["mean"][level - 1][x0:x1, y0:y1]

    def whole(self, level: int) -> Array:
        """Return (rows, columns) uint16 of a level, means."""
        self.make()
        columns = self.values(0, self.columns, 0, self.rows) if level == 0 else self._levels["mean"][level - 1]
        return np.ascontiguousarray(columns.T)

    def histogram(self) -> list[int]:
        """Return the number of pixels in each of 256 equal parts of 0 to white."""
        self.make()
        assert self._histogram is not None
        edges = np.linspace(0, self.white + 1, 257).astype(np.int64)
        return [int(n) for n in np.add.reduceat(self._histogram[: self.white + 1], edges[:-1])]

    def percentiles(self) -> dict[str, int]:
        """Return values that so many percent of all pixels are at or below."""
        self.make()
        assert self._histogram is not None
        total = np.cumsum(self._histogram)
        at = np.searchsorted(total, np.array(PERCENTILES) / 100 * total[-1])
        return {f"{p:g}": int(v) for p, v in zip(PERCENTILES, at, strict=True)}

    @property
    def nbytes(self) -> int:
        """Memory taken, bytes, the counts included."""
        return int(self._counts.nbytes + sum(level.nbytes for made in self._levels.values() for level in made))


def halved(image: Array, reduce: Reduce) -> Array:
    """Return uint16 of half the size: mean, rounded half up, or smallest of each 2 x 2."""
    if image.shape[0] % 2 or image.shape[1] % 2:
        image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2)), mode="edge")
    # two neighbours of a line as one number of 32 bits: whole lines are worked on, not every second pixel
    upper, lower = (np.ascontiguousarray(image[n::2]).view(np.uint32) for n in (0, 1))
    if reduce == "min":
        pairs = np.minimum(upper.view(np.uint16), lower.view(np.uint16)).view(np.uint32)
        smallest: Array = np.minimum(pairs & _HALF, pairs >> _BITS)
        return smallest.astype(np.uint16)
    sums = upper & _HALF
    sums += upper >> _BITS
    sums += lower & _HALF
    sums += lower >> _BITS
    sums += np.uint32(2)
    sums >>= np.uint32(2)
    return sums.astype(np.uint16)


# ------------------------------------------------------------------------------------- pictures made here, not there


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How values become 8 bits; the browser's own way is the same formulae.

    low, high : of the window, in values; logarithm and edge come before it, invert after
    opaque : hatch what is too dark to be seen into
    """

    low: float
    high: float
    invert: bool = False
    log: bool = False
    edge: bool = False
    opaque: bool = False
    palette: str = "grey"


@cache
def palettes() -> dict[str, Array]:
    """Return the palettes, each (256, 3) uint8 RGB."""
    ramp = np.arange(256, dtype=np.uint8)
    grey = np.repeat(ramp[:, None], 3, axis=1)
    maps = {"cividis": cv2.COLORMAP_CIVIDIS, "viridis": cv2.COLORMAP_VIRIDIS}
    found = {name: np.asarray(cv2.applyColorMap(ramp[:, None], code))[:, 0, ::-1] for name, code in maps.items()}
    return {"grey": grey, "inverted": grey[::-1], **found}


def rendered(tile: Array, look: Look, white: int) -> Array:
    """Return a tile as (rows, columns) uint8 before the palette."""
    v = tile.astype(np.float64)
    if look.edge:
        v = np.clip(np.floor(2 * v - cv2.blur(v, (3, 3), borderType=cv2.BORDER_REPLICATE) + 0.5), 0, white)
    if look.log:
        v = white * (1 - np.minimum(1.0, np.log(white / np.maximum(v, 1.0)) / np.log(white)))
    g = np.clip((v - look.low) / max(look.high - look.low, 1e-9), 0, 1)
    if look.invert:
        g = 1 - g
    return np.asarray(np.floor(g * 255 + 0.5).astype(np.uint8))


def ratio_of(low: Array, high: Array, white: int) -> tuple[Array, Array]:
    """Return ln(T low) / ln(T high) and T high, of means of 3 x 3: a ratio of single pixels is mostly noise."""

    def transmission(v: Array) -> Array:
        around = cv2.blur(v.astype(np.float64), (3, 3), borderType=cv2.BORDER_REPLICATE)
        return np.asarray(np.clip(around / white, 1e-6, 1.0))

    t_low, t_high = transmission(low), transmission(high)
    return np.log(t_low) / np.minimum(np.log(t_high), -1e-9), t_high


def common_ratio(low: Pyramid, high: Pyramid, container: dict[str, int] | None) -> float | None:
    """Return the commonest ratio of what lets most of the beam through: a container's walls. None: there is too little.

    container : box in upright pixels; without one, the whole picture stands for it
    """
    level = min(high.levels - 1, max(0, int(np.log2(max(1, high.columns / _WALL_COLUMNS)))))
    columns, rows = high.size(level)
    box = container or {"x0": 0, "y0": 0, "x1": columns << level, "y1": rows << level}
    x0, x1, y0, y1 = (box[edge] >> level for edge in ("x0", "x1", "y0", "y1"))
    if x1 - x0 < 3 or y1 - y0 < 3:
        return None
    ratio, t_high = ratio_of(low.part(level, x0, x1, y0, y1), high.part(level, x0, x1, y0, y1), high.white)
    walls = ratio[(t_high > _WALL_T[0]) & (t_high < _WALL_T[1])]
    return float(np.median(walls)) if walls.size > _MIN_WALL_PIXELS else None


def material_rgb(low: Array, high: Array, white: int, shade: Array, classes: tuple[Material, ...]) -> Array:
    """Return (rows, columns, 3) uint8 RGB of the material view. shade : the grey picture, (rows, columns) uint8."""
    ratio, t_high = ratio_of(low, high, white)
    inside = (t_high >= MATERIAL_T[0]) & (t_high <= MATERIAL_T[1])
    rgb = np.repeat(shade[..., None], 3, axis=2)
    light = 0.35 + 0.65 * shade / 255.0
    for material in classes:
        of = inside & (ratio >= material.ratio_from) & (ratio < material.ratio_to)
        rgb[of] = np.floor(np.array(material.rgb) * light[of][:, None] + 0.5)
    return rgb


def hatched(rgb: Array, tile: Array, white: int, within: tuple[int, int, int, int]) -> Array:
    """Return the picture with hatches where nothing can be seen.

    rgb : (rows, columns, 3) or (rows, columns) uint8; tile : its values; within : x0, y0, x1, y1 in the tile's pixels
    """
    picture = np.repeat(rgb[..., None], 3, axis=2) if rgb.ndim == 2 else rgb.copy()
    y, x = np.arange(tile.shape[0])[:, None], np.arange(tile.shape[1])
    x0, y0, x1, y1 = within
    dark = (tile < round(OPAQUE_T * white)) & ((x + y) % 8 < 2) & (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    picture[dark] = _OPAQUE_RGB
    return picture


def png(image: Array, level: int = 1) -> bytes:
    """Return an image, grey or RGB of 8 or 16 bits, as PNG."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    done, data = cv2.imencode(".png", np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, level])
    if not done:
        raise DataError(f"an image of shape {image.shape} could not be written as PNG")
    return bytes(data)


def crc32(data: bytes) -> str:
    """Return the CRC-32 of what is sent, eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def upright_box(box: Box, radiograph: Radiograph) -> dict[str, int]:
    """Return a box of the radiograph's own columns and channels in upright pixels, cut at the image's edge."""
    channels = radiograph.detector.channels
    y0, y1 = box.first_channel, box.end_channel
    if radiograph.detector.first_channel == "bottom":
        y0, y1 = channels - y1, channels - y0
    x0, x1 = min(box.first_column, radiograph.columns), min(box.end_column, radiograph.columns)
    return {"x0": x0, "y0": max(0, y0), "x1": x1, "y1": min(channels, max(0, y1))}
