"""Wheels under a vehicle: where they are, and by being round, how the image is stretched.

The edge of a disc, a rim or a mudguard points at its centre wherever it is looked at, so edges vote along their normal
and wheels are where votes meet. In a stretched image they meet only when the stretch is taken out first: of all
stretches tried, the right one gives the sharpest crossings. Edges that are level or upright (beams, legs) say nothing
of it and do not vote.

Source: D. H. Ballard, Generalizing the Hough transform to detect arbitrary shapes, Pattern Recognition 13 (1981).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Place: TypeAlias = tuple[float, float, float, float]
"""A rectangle of an upright image: left, top, right, bottom."""

#: Height of the container, in pixels, at which wheels are searched: a tyre of 1 m is 75 pixels wide then.
_HEIGHT = 200
#: Radii that vote, as shares of the container's height: from a brake drum to a mudguard.
_RADII = np.linspace(0.08, 0.22, 12)
#: Stretches tried: columns per metre over channels per metre. Seen in archives: .5 to 1.
_STRETCHES = np.geomspace(0.3, 1.6, 18)
#: A stretch whose crossings are this near to the sharpest may be the right one as well: wheels stand in rows, and rows
#: of wheels cross at wrong stretches too, up to .93 as sharp in real scans.
_AS_GOOD = 0.84
#: Sharpness of crossings, as a share of all edge pixels of one wheel, from which they are wheels.
_LEAST = 0.03
_MOST_WHEELS = 8


class Wheels(msgspec.Struct, frozen=True, kw_only=True):
    """Wheels of one vehicle.

    places : in upright pixels, left to right; a wheel cut by the border is given whole
    stretch : lowest and highest ratio of columns per metre to channels per metre that fits; None where no ratio stands
        out from the others
    """

    places: tuple[Place, ...] = ()
    stretch: tuple[float, float] | None = None

    def scaled(self, sx: float, sy: float) -> Wheels:
        """Return the same wheels in an image that is `sx` times as wide and `sy` times as high."""
        ratio = sx / sy
        return Wheels(
            places=tuple((a * sx, b * sy, c * sx, d * sy) for a, b, c, d in self.places),
            stretch=None if self.stretch is None else (self.stretch[0] * ratio, self.stretch[1] * ratio),
        )


class _Edges:
    """Edges under a container that may belong to something round.

    x, y : pixels of the strip; gx, gy : gradient there; shape : of the strip
    """

    def __init__(self, strip: Array) -> None:
        smooth = cv2.GaussianBlur(strip, (0, 0), 1.0)
        gx, gy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
        size = np.hypot(gx, gy)
        strong = size > max(float(np.percentile(size, 85)), 0.02)
        self.y, self.x = np.nonzero(strong)
        self.gx, self.gy, self.shape = gx[strong], gy[strong], strip.shape

    def votes(self, height: float, stretch: float) -> tuple[Array, int]:
        """Return the votes for centres and how many edges voted.

        The votes are (rows, columns without stretch) float32, above what a row has anyway.
        """
        nx, ny = self.gx * stretch, self.gy
        size = np.hypot(nx, ny)
        nx, ny = nx / size, ny / size
        # the middle of a wheel is darker than what is above it
        keep = (ny < 0.1) & (np.abs(nx) > 0.25) & (np.abs(nx) < 0.97)
        x, y, nx, ny = self.x[keep] / stretch, self.y[keep], nx[keep], ny[keep]
        rows, columns = int(1.3 * self.shape[0]) + 1, int(self.shape[1] / stretch) + 1
        cx = (x[:, None] - nx[:, None] * (_RADII * height)).astype(np.int32)
        cy = (y[:, None] - ny[:, None] * (_RADII * height)).astype(np.int32)
        inside = (cx >= 0) & (cx < columns) & (cy >= 0) & (cy < rows)
        count = np.bincount(cy[inside] * columns + cx[inside], minlength=rows * columns)
        side = max(3, round(0.02 * height) | 1)
        votes = cv2.boxFilter(count.reshape(rows, columns).astype(np.float32), -1, (side, side), normalize=False)
        return votes - np.median(votes, axis=1, keepdims=True), int(keep.sum())


def find_wheels(
    upright: Array, left: float, right: float, floor: float, height: float, *, round_at: float | None = None
) -> Wheels:
    """Return the wheels under a container.

    upright : (rows, columns) float32 transmission, first row on top
    left, right, floor, height : of the container, in its pixels; wheels are searched half a height beyond both ends
    round_at : stretch at which wheels are round, where the pitches are known; then it is not searched for
    """
    first, end = max(0, int(left - height / 2)), min(upright.shape[1], int(right + height / 2))
    strip = upright[min(int(floor + 0.05 * height), upright.shape[0]) :, first:end]
    factor = min(1.0, _HEIGHT / max(height, 1.0))
    size = (round(strip.shape[1] * factor), round(strip.shape[0] * factor))
    tall = height * factor
    if min(size) < 8 or tall < 40 or size[1] < 0.08 * tall:
        return Wheels()
    edges = _Edges(cv2.resize(np.ascontiguousarray(strip, np.float32), size, interpolation=cv2.INTER_AREA))
    stretches = _STRETCHES if round_at is None else np.array([round_at])
    tried = [_crossings(*edges.votes(tall, float(s)), tall) for s in stretches]
    sharp = np.array([sum(weight for *_, weight in found[:4]) for found in tried])
    best = int(np.argmax(sharp))
    seen = [c for c in tried[best] if c[2] >= _LEAST]
    if len(seen) < 2:
        return Wheels()
    good = stretches[sharp >= _AS_GOOD * sharp[best]]
    # the last one tried may be the edge of a plateau: then nothing is known of where it ends
    open_end = round_at is None and (good[-1] == stretches[-1] or good[0] == stretches[0])
    radius = 0.18 * height
    s = float(stretches[best])
    places = []
    for x, y, _ in sorted(seen):
        cx, cy = first + x * s / factor, floor + 0.05 * height + y / factor
        places.append((cx - radius * s, cy - radius, cx + radius * s, cy + radius))
    return Wheels(places=tuple(places), stretch=None if open_end else (float(good[0]), float(good[-1])))


def _crossings(votes: Array, edges: int, height: float) -> list[tuple[float, float, float]]:
    """Return x, y and weight (share of all edges) of the best crossings, one per wheel, heaviest first."""
    left, found = votes.copy(), []
    apart = round(0.25 * height)
    for _ in range(_MOST_WHEELS):
        y, x = np.unravel_index(int(left.argmax()), left.shape)
        weight = float(left[y, x]) / max(edges, 1)
        if weight <= 0:
            break
        found.append((float(x), float(y), weight))
        left[:, max(0, int(x) - apart) : int(x) + apart] = 0
    return found
