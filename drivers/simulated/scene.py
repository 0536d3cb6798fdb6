"""A vehicle as a list of solids in millimetres, and their projection to areal density, any columns at a time.

Axes: x along the vehicle in the order in which it is scanned, h height above ground, z across, away from the source.
The beam is a vertical fan: columns see parallel planes of constant x, and within a plane every ray starts at the
source, so the near wall looks larger than the far one and the roof shows as a band. Rows are labelled by the height
at which their ray crosses the plane z = 0.

Solids know nothing of pixels, so the same vehicle can be drawn at any resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from .attenuation import Floats, split

SOURCE_HEIGHT_MM = 1100.0
SOURCE_DISTANCE_MM = 7500.0
"""Of the source from the plane z = 0 where a lane says nothing else; lanes of customs services range from 4 to 10 m."""
SPAN_MM = 16_500.0
"""Length of a scan in the object plane, the tractor's cab not among it."""
APERTURE_MM = 4.0
"""Width of a detector element in the object plane: what a column sees at least, however slowly the vehicle moves."""
BOTTOM_MM, TOP_MM = 100.0, 4980.0
"""Heights seen in the object plane from the usual distance; the wheels are cut as in most real lanes."""
TALLEST_MM, NEAR_MM, CLEAR_MM = 4100.0, -1219.0, 330.0
"""The highest container's roof, its nearer wall, and the air above it: a close source sees the near edge of the roof
far up, and the detector reaches as high."""
SUBROWS = 3
"""Rays per row, averaged: a wall seen along its length is thinner than a row."""
TEXTURE_MM = (500.0, 150.0, 40.0, 16.0)
"""Widths of the random fields by which cargo varies inside."""
Extent = tuple[float, float, float, float, float, float]
"""x0, x1, h0, h1, z0, z1 in mm."""


class View:
    """The sampling of a scan: columns and channels, channel 0 on top.

    x_mm : `(columns,)` centre of every column; y_mm : `(channels,)` height of every row in the object plane
    """

    def __init__(
        self, columns: int, channels: int, *, span_mm: float = SPAN_MM,
        source_mm: tuple[float, float] = (SOURCE_DISTANCE_MM, SOURCE_HEIGHT_MM),
    ) -> None:  # fmt: skip
        """source_mm : distance of the source from the plane z = 0, and its height."""
        self.columns, self.channels = columns, channels
        self.span_mm = span_mm
        self.distance_mm, self.source_height_mm = source_mm
        self.column_pitch_mm = span_mm / columns
        self.top_mm = max(TOP_MM, self.height_seen(TALLEST_MM, NEAR_MM) + CLEAR_MM)
        self.channel_pitch_mm = (self.top_mm - BOTTOM_MM) / channels
        self.x_mm = (np.arange(columns) + 0.5) * self.column_pitch_mm
        self.y_mm = self.top_mm - (np.arange(channels) + 0.5) * self.channel_pitch_mm
        steps = (np.arange(channels * SUBROWS) + 0.5) / SUBROWS
        self._slopes = (self.top_mm - steps * self.channel_pitch_mm - self.source_height_mm) / self.distance_mm
        # A ray exactly level would divide by zero and is of no measure.
        self._slopes[np.abs(self._slopes) < 1e-9] = 1e-9
        self._profiles: dict[tuple[Any, ...], tuple[slice, Floats]] = {}

    def forget(self) -> None:
        """Drop the profiles of the solids drawn so far; a lane that runs for days must not keep every vehicle's."""
        self._profiles.clear()

    def magnified(self, z: float) -> float:
        """Return how much larger than in the plane z = 0 a thing at depth z is seen."""
        return self.distance_mm / (self.distance_mm + z)

    def height_seen(self, h: float, z: float) -> float:
        """Return the height in the object plane at which a point of height h and depth z is seen."""
        return self.source_height_mm + (h - self.source_height_mm) * self.magnified(z)

    def rows_of(self, h0: float, h1: float, z0: float, z1: float) -> tuple[int, int]:
        """Return the half-open range of channels that a box of these heights and depths can touch."""
        ys = [self.height_seen(h, z) for h in (h0, h1) for z in (z0, z1)]
        first = int((self.top_mm - max(ys)) / self.channel_pitch_mm)
        end = int((self.top_mm - min(ys)) / self.channel_pitch_mm) + 1
        return min(max(first, 0), self.channels), min(max(end, 0), self.channels)

    def box_path(self, h0: float, h1: float, z0: float, z1: float) -> tuple[slice, Floats]:
        """Return the rows and the path in cm of their rays through a box: exact, averaged over the row."""
        key = ("box", h0, h1, z0, z1)
        known = self._profiles.get(key)
        if known is None:
            first, end = self.rows_of(h0, h1, z0, z1)
            s = self._slopes[first * SUBROWS : end * SUBROWS]
            at0 = (h0 - self.source_height_mm) / s - self.distance_mm
            at1 = (h1 - self.source_height_mm) / s - self.distance_mm
            inside = np.minimum(np.maximum(at0, at1), z1) - np.maximum(np.minimum(at0, at1), z0)
            known = slice(first, end), self._rows(np.clip(inside, 0, None) * np.sqrt(1 + s * s))
            self._profiles[key] = known
        return known

    def cylinder_path(self, h0: float, h1: float, z: float, half_mm: Floats) -> tuple[slice, Floats]:
        """Return the rows and, per column, the path in cm through a standing cylinder: its ends show as ellipses.

        half_mm : `(columns,)` half of its depth along the beam at each column
        """
        deep = float(half_mm.max(initial=0.0))
        first, end = self.rows_of(h0, h1, z - deep, z + deep)
        s = self._slopes[first * SUBROWS : end * SUBROWS]
        at0 = (h0 - self.source_height_mm) / s - self.distance_mm
        at1 = (h1 - self.source_height_mm) / s - self.distance_mm
        low, high = np.minimum(at0, at1).astype(np.float32), np.maximum(at0, at1).astype(np.float32)
        half = half_mm[:, np.newaxis]
        inside = np.minimum(high, z + half) - np.maximum(low, z - half)
        path = np.clip(inside, 0, None) * np.sqrt(1 + s * s).astype(np.float32)
        return slice(first, end), path.reshape(len(half_mm), -1, SUBROWS).mean(axis=2) / np.float32(10)

    def tube_path(self, h: float, z: float, outer: float, inner: float) -> tuple[slice, Floats]:
        """Return the rows and the path in cm of their rays through a tube that lies along x."""
        key = ("tube", h, z, outer, inner)
        known = self._profiles.get(key)
        if known is None:
            first, end = self.rows_of(h - outer, h + outer, z - outer, z + outer)
            s = self._slopes[first * SUBROWS : end * SUBROWS]
            off2 = (self.source_height_mm + s * (self.distance_mm + z) - h) ** 2 / (1 + s * s)
            chord = np.sqrt(np.clip(outer * outer - off2, 0, None)) - np.sqrt(np.clip(inner * inner - off2, 0, None))
            known = slice(first, end), self._rows(2 * chord)
            self._profiles[key] = known
        return known

    def _rows(self, path_mm: npt.NDArray[np.float64]) -> Floats:
        return (path_mm.reshape(-1, SUBROWS).mean(axis=1) / 10).astype(np.float32)


class Block:
    """The columns being drawn.

    density : `(3, columns, channels) float32` areal density in g/cm² of light, iron and lead
    low, high, x : `(columns,)` between which x a column sees, and its middle
    """

    def __init__(
        self, view: View, first: int, end: int, textures: Textures | None,
        travel_mm: npt.NDArray[np.float64] | None = None,
    ) -> None:  # fmt: skip
        """Columns outside the scan are allowed: their x simply lies there.

        travel_mm : `(view.columns + 1,)` x at the edges of all columns, None at constant speed
        """
        self.view = view
        edges = np.arange(first, end + 1) * view.column_pitch_mm
        if travel_mm is not None:
            at = np.arange(first, end + 1)
            inside = np.clip(at, 0, view.columns)
            edges = travel_mm[inside] + (at - inside) * view.column_pitch_mm
        self.x = (edges[1:] + edges[:-1]) / 2
        half = np.maximum(np.diff(edges), APERTURE_MM if travel_mm is not None else 0.0) / 2
        self.low, self.high = self.x - half, self.x + half
        self.width = self.high - self.low
        self.density = np.zeros((3, end - first, view.channels), np.float32)
        self.heavy = False
        self._textures = textures

    def columns_of(self, x0: float, x1: float) -> slice:
        """Return the columns of this block that the range can touch."""
        return slice(int(np.searchsorted(self.high, x0, "right")), int(np.searchsorted(self.low, x1, "left")))

    def add(self, columns: slice, rows: slice, path_cm: Floats, solid: Solid) -> None:
        """Add `path_cm`, broadcastable to these columns and rows, of the solid's material."""
        if solid.texture is not None and self._textures is not None:
            field, amount = solid.texture
            path_cm = path_cm * (1 + np.float32(amount) * self._textures.at(field, self, columns, rows))
        for plane, part in enumerate(split(solid.material)):
            if part:
                self.density[plane, columns, rows] += path_cm * np.float32(part * solid.g_cm3)
                self.heavy |= plane == 2


class Textures:
    """Smooth random fields over the scan, mean 0 and variance about 1, drawn from their own stream."""

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self._fields: list[Floats] = []
        for width in TEXTURE_MM:
            nodes = rng.standard_normal((int(view.span_mm / width) + 4, int(view.top_mm / width) + 4)).astype(
                np.float32
            )
            at = (view.top_mm - view.y_mm) / width
            i = at.astype(int)
            share = (at - i).astype(np.float32)
            self._fields.append((nodes[:, i] * (1 - share) + nodes[:, i + 1] * share) * np.float32(1.5))
        self._held: tuple[Block | None, dict[int, Floats]] = (None, {})

    def at(self, field: int, block: Block, columns: slice, rows: slice) -> Floats:
        """Return one field on a part of the block; the whole block is interpolated once."""
        if self._held[0] is not block:
            self._held = (block, {})
        held = self._held[1]
        if field not in held:
            at = np.clip(block.x / TEXTURE_MM[field] + 1, 0, len(self._fields[field]) - 1.001)
            i = at.astype(int)
            share = (at - i).astype(np.float32)[:, np.newaxis]
            held[field] = self._fields[field][i] * (1 - share) + self._fields[field][i + 1] * share
        return held[field][columns, rows]


# --------------------------------------------------------------------------------------------------------------
# Solids


class Solid(msgspec.Struct, frozen=True, kw_only=True):
    """Something of one material between x0 and x1. `g_cm3` may be negative to cut a hole.

    texture : number of a random field and how much the density varies with it
    """

    x0: float
    x1: float
    material: str = "iron"
    g_cm3: float = 7.87
    texture: tuple[int, float] | None = None

    def draw(self, block: Block) -> None:
        """Add this solid to the block."""
        raise NotImplementedError

    @property
    def mass_kg(self) -> float:
        """Mass of the solid."""
        raise NotImplementedError

    @property
    def extent(self) -> Extent:
        """The smallest box around the solid."""
        raise NotImplementedError

    def mirrored(self, about_mm: float) -> Solid:
        """Return the solid as seen from the other side: x becomes 2 * about_mm - x."""
        return msgspec.structs.replace(self, x0=2 * about_mm - self.x1, x1=2 * about_mm - self.x0)

    def moved(self, by_mm: float) -> Solid:
        """Return the solid further along the vehicle."""
        return msgspec.structs.replace(self, x0=self.x0 + by_mm, x1=self.x1 + by_mm)


class Prism(Solid, frozen=True, kw_only=True):
    """A box, or with `shape` a standing cylinder, a corrugated sheet (more steel where the sheet is steep), or ribbed:
    things that stand in rows along the beam, as bottles do, denser at their middle than between them.
    """

    h0: float
    h1: float
    z0: float = -1165.0
    z1: float = 1165.0
    shape: Literal["box", "round", "corrugated", "ribbed"] = "box"
    pitch_mm: float = 278.0

    def draw(self, block: Block) -> None:
        """Add this solid to the block."""
        columns = block.columns_of(self.x0, self.x1)
        if columns.start >= columns.stop:
            return
        weights = _weights(self, block, columns)
        if self.shape == "round":
            half = weights * np.float32((self.z1 - self.z0) / 2)
            rows, path = block.view.cylinder_path(self.h0, self.h1, (self.z0 + self.z1) / 2, half)
            block.add(columns, rows, path, self)
            return
        rows, path = block.view.box_path(self.h0, self.h1, self.z0, self.z1)
        block.add(columns, rows, weights[:, np.newaxis] * path, self)

    @property
    def extent(self) -> Extent:
        """The smallest box around the solid."""
        return (self.x0, self.x1, self.h0, self.h1, self.z0, self.z1)

    @property
    def mass_kg(self) -> float:
        """Mass of the solid."""
        volume = (self.x1 - self.x0) * (self.h1 - self.h0) * (self.z1 - self.z0)
        return volume * self.g_cm3 * 1e-6 * (np.pi / 4 if self.shape == "round" else 1.0)


class Tube(Solid, frozen=True, kw_only=True):
    """A cylinder that lies along x; hollow with `inner`."""

    h: float
    z: float
    outer: float
    inner: float = 0.0
    shape: ClassVar[str] = "box"

    def draw(self, block: Block) -> None:
        """Add this solid to the block."""
        columns = block.columns_of(self.x0, self.x1)
        if columns.start >= columns.stop:
            return
        rows, path = block.view.tube_path(self.h, self.z, self.outer, self.inner)
        block.add(columns, rows, _weights(self, block, columns)[:, np.newaxis] * path, self)

    @property
    def extent(self) -> Extent:
        """The smallest box around the solid."""
        return (self.x0, self.x1, self.h - self.outer, self.h + self.outer, self.z - self.outer, self.z + self.outer)

    @property
    def mass_kg(self) -> float:
        """Mass of the solid."""
        return (self.x1 - self.x0) * np.pi * (self.outer**2 - self.inner**2) * self.g_cm3 * 1e-6


RIBS = 0.45
"""How much denser than the mean the middle of a ribbed solid's ribs is."""


def _weights(solid: Prism | Tube, block: Block, columns: slice) -> Floats:
    """Return the share of the full depth that each column sees, averaged over its width."""
    x, width = block.x[columns], block.width[columns]
    low = np.clip(block.low[columns], solid.x0, solid.x1)
    high = np.clip(block.high[columns], solid.x0, solid.x1)
    if solid.shape == "round":
        radius, centre = (solid.x1 - solid.x0) / 2, (solid.x1 + solid.x0) / 2
        u0, u1 = np.clip((low - centre) / radius, -1, 1), np.clip((high - centre) / radius, -1, 1)
        area = (u1 * np.sqrt(1 - u1 * u1) + np.arcsin(u1) - u0 * np.sqrt(1 - u0 * u0) - np.arcsin(u0)) / 2
        return (area * radius / width).astype(np.float32)
    weights = (high - low) / width
    middle = (solid.x0 + solid.x1) / 2  # patterns are the same from either end
    if isinstance(solid, Prism) and solid.shape == "ribbed":
        seen = np.sinc(width / solid.pitch_mm)  # a column as wide as a bottle sees nothing of the pattern
        weights = weights * (1 - RIBS * seen * np.cos(2 * np.pi * (x - middle) / solid.pitch_mm))
    if isinstance(solid, Prism) and solid.shape == "corrugated":
        steep = np.abs(np.sin(2 * np.pi * (x - middle) / solid.pitch_mm)) > 0.7
        weights = weights * np.where(steep, 1.14, 0.98)
    return weights.astype(np.float32)


class Pillow(Solid, frozen=True, kw_only=True):
    """An ellipsoid: a bag, a motor's end; with a higher `power` it has the fuller shape of a stacked sack."""

    h: float
    z: float
    rh: float
    rz: float
    power: int = 2

    def draw(self, block: Block) -> None:
        """Add this solid to the block."""
        columns = block.columns_of(self.x0, self.x1)
        magnify = block.view.magnified(self.z)
        first, end = block.view.rows_of(self.h - self.rh, self.h + self.rh, self.z, self.z)
        if columns.start >= columns.stop or first >= end:
            return
        u = (block.x[columns] - (self.x0 + self.x1) / 2) * (2 / (self.x1 - self.x0))
        v = (block.view.y_mm[first:end] - block.view.height_seen(self.h, self.z)) / (self.rh * magnify)
        inside = np.clip(1 - np.abs(u**self.power)[:, np.newaxis] - np.abs(v**self.power), 0, None).astype(np.float32)
        block.add(columns, slice(first, end), np.float32(self.rz / 5) * np.sqrt(inside), self)

    @property
    def extent(self) -> Extent:
        """The smallest box around the solid."""
        return (self.x0, self.x1, self.h - self.rh, self.h + self.rh, self.z - self.rz, self.z + self.rz)

    @property
    def mass_kg(self) -> float:
        """Mass of the solid."""
        return np.pi * 2 / 3 * (self.x1 - self.x0) * self.rh * self.rz * self.g_cm3 * 1e-6


class Disc(Solid, frozen=True, kw_only=True):
    """A ring whose axis lies across the vehicle: wheels, coils.

    thick : depth along the beam
    above_h : only the part above this height, as of a mudguard
    """

    h: float
    z: float
    outer: float
    inner: float = 0.0
    thick: float
    above_h: float = 0.0

    def draw(self, block: Block) -> None:
        """Add this solid to the block."""
        columns = block.columns_of(self.x0, self.x1)
        low = max(self.h - self.outer, self.above_h)
        first, end = block.view.rows_of(low, self.h + self.outer, self.z, self.z)
        if columns.start >= columns.stop or first >= end:
            return
        magnify = block.view.magnified(self.z)
        x = block.x[columns] - (self.x0 + self.x1) / 2
        y = (block.view.y_mm[first:end] - block.view.height_seen(self.h, self.z)) / magnify
        radius = np.sqrt((x * x)[:, np.newaxis] + y * y).astype(np.float32)
        soft = np.float32(max(float(block.width.max()), block.view.channel_pitch_mm))
        cover = np.clip((np.float32(self.outer) - radius) / soft + 0.5, 0, 1)
        if self.inner:
            cover -= np.clip((np.float32(self.inner) - radius) / soft + 0.5, 0, 1)
        block.add(columns, slice(first, end), cover * np.float32(self.thick / 10), self)

    @property
    def extent(self) -> Extent:
        """The smallest box around the solid."""
        return (self.x0, self.x1, max(self.h - self.outer, self.above_h), self.h + self.outer, self.z - self.thick / 2,
            self.z + self.thick / 2)  # fmt: skip

    @property
    def mass_kg(self) -> float:
        """Mass of the solid."""
        return np.pi * (self.outer**2 - self.inner**2) * self.thick * self.g_cm3 * 1e-6


class Heap(Solid, frozen=True, kw_only=True):
    """Loose goods from h0 up to a height that varies along x (knots evenly spaced between x0 and x1)."""

    h0: float
    heights: tuple[float, ...]
    z0: float = -1165.0
    z1: float = 1165.0

    def draw(self, block: Block) -> None:
        """Add this solid to the block."""
        columns = block.columns_of(self.x0, self.x1)
        if columns.start >= columns.stop:
            return
        first, end = block.view.rows_of(self.h0, max(self.heights), self.z0, self.z1)
        knots = np.linspace(self.x0, self.x1, len(self.heights))
        top = np.interp(block.x[columns], knots, self.heights)[:, np.newaxis]
        height, distance = block.view.source_height_mm, block.view.distance_mm
        s = (block.view.y_mm[first:end] - height) / distance
        s = np.where(np.abs(s) < 1e-6, 1e-6, s)
        at0 = (self.h0 - height) / s - distance
        at1 = (top - height) / s - distance
        inside = np.minimum(np.maximum(at0, at1), self.z1) - np.maximum(np.minimum(at0, at1), self.z0)
        cover = _cover(self, block, columns)
        path = np.clip(inside, 0, None) * (np.sqrt(1 + s * s) / 10) * cover[:, np.newaxis]
        block.add(columns, slice(first, end), path.astype(np.float32), self)

    def mirrored(self, about_mm: float) -> Solid:
        """Return the solid as seen from the other side."""
        turned = super().mirrored(about_mm)
        return msgspec.structs.replace(turned, heights=self.heights[::-1])

    @property
    def extent(self) -> Extent:
        """The smallest box around the solid."""
        return (self.x0, self.x1, self.h0, max(self.heights), self.z0, self.z1)

    @property
    def mass_kg(self) -> float:
        """Mass of the solid."""
        height = float(np.mean(self.heights)) - self.h0
        return (self.x1 - self.x0) * height * (self.z1 - self.z0) * self.g_cm3 * 1e-6


class Strip(Solid, frozen=True, kw_only=True):
    """A plate between two slanted lines, `thick` along the beam, at depth z: necks, braces, bars.

    low, high : heights of the lower and the upper line at x0 and x1
    """

    low: tuple[float, float]
    high: tuple[float, float]
    thick: float
    z: float = 0.0

    def draw(self, block: Block) -> None:
        """Add this solid to the block."""
        columns = block.columns_of(self.x0, self.x1)
        first, end = block.view.rows_of(min(self.low), max(self.high), self.z, self.z)
        if columns.start >= columns.stop or first >= end:
            return
        at = np.clip((block.x[columns] - self.x0) / (self.x1 - self.x0), 0, 1)[:, np.newaxis]
        seen = block.view.height_seen
        low = seen(self.low[0], self.z) * (1 - at) + seen(self.low[1], self.z) * at
        high = seen(self.high[0], self.z) * (1 - at) + seen(self.high[1], self.z) * at
        y, half = block.view.y_mm[first:end], block.view.channel_pitch_mm / 2
        cover = np.clip(np.minimum(high, y + half) - np.maximum(low, y - half), 0, None) / (2 * half)
        cover *= _cover(self, block, columns)[:, np.newaxis]
        block.add(columns, slice(first, end), (cover * (self.thick / 10)).astype(np.float32), self)

    def mirrored(self, about_mm: float) -> Solid:
        """Return the solid as seen from the other side."""
        turned = super().mirrored(about_mm)
        return msgspec.structs.replace(turned, low=self.low[::-1], high=self.high[::-1])

    @property
    def extent(self) -> Extent:
        """The smallest box around the solid."""
        return (self.x0, self.x1, min(self.low), max(self.high), self.z - self.thick / 2, self.z + self.thick / 2)

    @property
    def mass_kg(self) -> float:
        """Mass of the solid."""
        height = (sum(self.high) - sum(self.low)) / 2
        return (self.x1 - self.x0) * height * self.thick * self.g_cm3 * 1e-6


def _cover(solid: Solid, block: Block, columns: slice) -> npt.NDArray[np.float64]:
    low, high = block.low[columns], block.high[columns]
    return np.clip(np.minimum(high, solid.x1) - np.maximum(low, solid.x0), 0, None) / (high - low)


class Scene:
    """All solids of one vehicle, sorted for drawing."""

    def __init__(self, solids: Sequence[Solid]) -> None:
        self.solids = tuple(solids)
        self._x0 = np.array([s.x0 for s in solids])
        self._x1 = np.array([s.x1 for s in solids])

    def draw(
        self, view: View, first: int, end: int, textures: Textures | None = None,
        travel_mm: npt.NDArray[np.float64] | None = None,
    ) -> Block:  # fmt: skip
        """Return the areal densities of columns [first, end)."""
        block = Block(view, first, end, textures, travel_mm)
        low, high = float(block.low[0]), float(block.high[-1])
        for number in np.flatnonzero((self._x0 < high) & (self._x1 > low)):
            self.solids[number].draw(block)
        np.maximum(block.density, 0, out=block.density)
        return block
