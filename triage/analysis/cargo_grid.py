"""The container, straightened onto a grid of its own height: what every question about cargo is asked of."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Box, Radiograph

from .container import Frame
from .correction import Correction
from .image_profile import ImageProfile
from .screening import OFFSET, STEPS, Screening
from .structure import structure_of

Array: TypeAlias = NDArray[Any]
Rect: TypeAlias = tuple[int, int, int, int]
"""A rectangle of the grid: x0, y0, x1, y1."""

#: Fixed-point scale of the transmission image: 1.0 is 2**15, so that air with noise has room above.
ONE = 1 << 15
_STRIP_COLUMNS = 256
_LUT = np.minimum(np.exp((OFFSET - np.arange(4096, dtype=np.float64)) / STEPS) * ONE, 65535).round().astype(np.uint16)


class TransmissionImage:
    """The transmission of a whole image, in fixed point, of which no whole copy is made.

    q : (columns, channels) uint16, log codes
    """

    def __init__(self, q: Array) -> None:
        self._q = q

    def whole(self) -> Array:
        """Return (columns, channels) uint16."""
        return np.asarray(_LUT.take(self._q))

    def reduced(self, factor: float, least: int = 1) -> Array:
        """Return it reduced by area, both sides to their share `factor` or to `least` pixels; whole from a factor of 1.

        (columns, channels) float32, or uint16 where it is whole; fixed point, see ONE. It goes strip by strip and
        narrows the channels first, so that a strip is all that is ever there in full.
        """
        if factor >= 1.0:
            return self.whole()
        columns, channels = self._q.shape
        goal = (max(least, round(channels * factor)), max(least, round(columns * factor)))
        narrow = np.empty((columns, goal[0]), np.float32)
        for first in range(0, columns, _STRIP_COLUMNS):
            strip = _LUT.take(self._q[first : first + _STRIP_COLUMNS]).astype(np.float32)
            size = (goal[0], strip.shape[0])
            narrow[first : first + _STRIP_COLUMNS] = cv2.resize(strip, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(narrow, goal, interpolation=cv2.INTER_AREA))


class CargoGrid:
    """The straightened container, and where its places are in the radiograph.

    transmission, depth : (rows, columns) float32; depth is -ln T, at most -ln of the darkest that can be seen
    z : (rows, columns) uint8, scores of the screening in 1/Z_STEPS standard deviations
    inner : slices (rows, columns) of the cargo area, structure left out
    structure : where it was found
    wall : depth that is called the container's wall
    opaque_t : transmission below which nothing can be claimed; physical : it is a transmission, not a grey value
    to_grid : (3, 3) matrix from (channel, column) to the grid
    """

    def __init__(
        self,
        radiograph: Radiograph,
        transmission: TransmissionImage,
        frame: Frame,
        correction: Correction,
        screening: Screening,
        p: ImageProfile,
    ) -> None:
        self.p, self.radiograph, self.frame, self.physical = p, radiograph, frame, correction.physical
        self.opaque_t = max(p.opaque_t, correction.dark_t)
        corners = frame.corners.astype(np.float64)
        if radiograph.detector.first_channel == "bottom":
            corners[:, 1] = radiograph.detector.channels - corners[:, 1]
        # image axes are (columns, channels): x of OpenCV is the channel
        factor = p.grid_rows / max(_height(corners[:, ::-1]), 1.0)
        # averaging first keeps fine texture from folding into the grid; of scores the nearest is taken
        source = transmission.reduced(factor if factor < 0.8 else 1.0)
        size = _size(corners[:, ::-1], p.grid_rows, 1, 64, p.max_grid_columns)
        grid, self.to_grid = _straightened(source, screening.z.shape, corners[:, ::-1], size)
        zed, _ = _straightened(screening.z, screening.z.shape, corners[:, ::-1], size, nearest=True)
        self._whole, self._corners = transmission, corners[:, ::-1]
        self.transmission = grid.astype(np.float32) / np.float32(ONE)
        self.z = zed
        self.depth = -np.log(np.clip(self.transmission, self.opaque_t, 1.0))
        rows, columns = self.depth.shape
        self.inner = (
            slice(round(p.roof_share * rows), round((1 - p.floor_share) * rows)),
            slice(round(p.end_share * columns), round((1 - p.end_share) * columns)),
        )
        self.wall = float(np.percentile(self.depth[self.inner], p.wall_percentile))
        self.structure = structure_of(self)
        # the machinery of a cooled box may take more of a short one than end frames do
        if (wide := round(self.structure.machinery_share * columns)) > self.inner[1].start:
            left = self.structure.machinery == "left"
            ends = slice(wide, self.inner[1].stop) if left else slice(self.inner[1].start, columns - wide)
            self.inner = (self.inner[0], ends)

    def straight(self, rows: int, multiple: int, least: int, most: int) -> Array:
        """Return the transmission (rows, columns) float32 on another grid, as `straightened` does."""
        factor = rows / max(_height(self._corners), 1.0)
        size = _size(self._corners, rows, multiple, least, most)
        source = self._whole.reduced(factor if factor < 0.8 else 1.0)
        shape = (self.radiograph.columns, self.radiograph.detector.channels)
        grid, _ = _straightened(source, shape, self._corners, size)
        return grid.astype(np.float32) / np.float32(ONE)

    def levels(self, at: Rect) -> tuple[float, float]:
        """Return the median transmission inside a grid rectangle and in the frame of half its size around it."""
        x0, y0, x1, y1 = at
        rows, columns = self.transmission.shape
        margin = max(3, (min(x1 - x0, y1 - y0) + 1) // 2)
        top, left = max(0, y0 - margin), max(0, x0 - margin)
        around = self.transmission[top : min(rows, y1 + margin), left : min(columns, x1 + margin)]
        ring = np.ones(around.shape, np.bool_)
        ring[y0 - top : y1 - top, x0 - left : x1 - left] = False
        inside = float(np.median(self.transmission[y0:y1, x0:x1]))
        return inside, float(np.median(around[ring])) if ring.any() else inside

    def darker(self, inside: float, around: float) -> str:
        """Return in words how two levels compare."""
        name = "transmission" if self.physical else "grey value"
        times = inside / max(around, self.opaque_t)
        change = (
            f"{1 - times:.0%} less" if times <= 1 else f"{times - 1:.0%} more" if times < 2 else f"{times:.1f} times"
        )
        return f"{name} {inside:.2f} against {around:.2f} around it ({change})"

    def place(self, at: Rect) -> str:
        """Say where a grid rectangle is, in metres where the sampling is known, else in percent of the container.

        Of what lies in a part that every container has, that part is named too.
        """
        x0, y0, x1, y1 = at
        rows, columns = self.depth.shape
        x, y, w, h = (x0 + x1) / 2 / columns, 1 - (y0 + y1) / 2 / rows, (x1 - x0) / columns, (y1 - y0) / rows
        detector = self.radiograph.detector
        part = self.structure.part_at(at, rows, columns)
        part = f", {part}" if part else ""
        if detector.column_pitch_mm is None or detector.channel_pitch_mm is None:
            return (
                f"at {100 * x:.0f} % of the length from the left, {100 * y:.0f} % of the height above the floor, "
                f"{100 * w:.1f} % long, {100 * h:.1f} % high{part}"
            )
        length = (self.frame.right - self.frame.left) * detector.column_pitch_mm / 1000
        height = self.frame.height * detector.channel_pitch_mm / 1000
        return (
            f"{length * x:.2f} m from the left end, {height * y:.2f} m above the floor, {length * w:.2f} m long, "
            f"{height * h:.2f} m high{part}"
        )

    def box(self, at: Rect) -> Box:
        """Return the box of a grid rectangle in the radiograph's own columns and channels."""
        x0, y0, x1, y1 = at
        corners = np.array([[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]], np.float64)
        points = cv2.perspectiveTransform(corners, np.linalg.inv(self.to_grid))[0]
        sizes = (self.radiograph.detector.channels, self.radiograph.columns)
        (c0, c1), (k0, k1) = (
            _clipped(float(points[:, axis].min()), float(points[:, axis].max()), sizes[axis]) for axis in (0, 1)
        )
        return Box(first_column=k0, end_column=k1, first_channel=c0, end_channel=c1)


def _clipped(low: float, high: float, size: int) -> tuple[int, int]:
    first = int(min(max(np.floor(low), 0), size - 1))
    return first, int(min(max(np.ceil(high), first + 1), size))


def _height(corners: Array) -> float:
    """Return the mean height, in channels, of (4, 2) corners: roof left, roof right, floor right, floor left."""
    return float(np.mean(np.abs(corners[3:1:-1, 0] - corners[:2, 0])))


def straightened(
    upright: Array, corners: Array, rows: int, multiple: int, least: int, most: int
) -> tuple[Array, Array]:
    """Return a container as a (rows, columns) float32 grid, and the (3, 3) matrix from x, y of the image to it.

    upright : (image rows, image columns) float32, transmission
    corners : (4, 2) x, y: roof left, roof right, floor right, floor left
    multiple, least, most : of which the grid's columns are a multiple, at least and at most so many
    """
    turned = np.asarray(corners, np.float64)[:, ::-1]
    factor = rows / max(_height(turned), 1.0)
    source: Array = np.ascontiguousarray(upright.T, np.float32)
    if factor < 0.8:
        goal = (max(1, round(source.shape[1] * factor)), max(1, round(source.shape[0] * factor)))
        source = cv2.resize(source, goal, interpolation=cv2.INTER_AREA)
    shape = (upright.shape[1], upright.shape[0])
    grid, to_grid = _straightened(source, shape, turned, _size(turned, rows, multiple, least, most))
    return grid, to_grid[:, [1, 0, 2]]


def _size(corners: Array, rows: int, multiple: int, least: int, most: int) -> tuple[int, int]:
    """Return (rows, columns) of a grid of square pixels, for corners of (channel, column)."""
    length = float(corners[1, 1] - corners[0, 1])
    columns = float(np.clip(length * rows / max(_height(corners), 1.0), least, most))
    return rows, multiple * round(columns / multiple)


def _straightened(
    source: Array, shape: tuple[int, int], corners: Array, size: tuple[int, int], *, nearest: bool = False
) -> tuple[Array, Array]:
    """Return the container as a grid of `size` (rows, columns) and the matrix from (channel, column) to the grid.

    source : an image of (columns, channels) `shape`, or a reduction of it
    corners : (4, 2) of (channel, column): roof left, roof right, floor right, floor left
    """
    rows, columns = size
    goal = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    to_grid = cv2.getPerspectiveTransform(corners.astype(np.float32), goal)
    back = np.diag([source.shape[1] / shape[1], source.shape[0] / shape[0], 1.0])
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    matrix = to_grid @ np.linalg.inv(back)
    grid = cv2.warpPerspective(source, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return grid, to_grid


def overlap(a: Rect, b: Rect) -> bool:
    """True where two rectangles share more than a third of the smaller one."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w > 0 and h > 0 and w * h > smaller / 3
