"""Statistics of how the inside of a container looks, by which simulated scans are compared with real ones.

All are taken at one scale, the container being SCALE_PX high, from display-windowed grey values as transmission, inside
the container's outline without its frame. They describe pictures, not what is in them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from triage.analysis.container import Frame, find_container

Array: TypeAlias = NDArray[Any]

SCALE_PX = 256
"""Height of the container in the pictures that are measured."""
LEAST_NATIVE_PX = 180
"""A container lower than this in its own picture is a thumbnail: enlarging it would measure the enlargement."""
INSET = (0.03, 0.05, 0.12)
"""Left out at the ends, of the length; at the roof and at the floor, of the height: frames, beams, cross-members."""
OPAQUE = 16 / 255
EDGE = 0.03
"""Change of transmission from pixel to pixel that counts as an edge."""
MOST_ALPHA = 4.0
"""-ln T is cut here: what a windowed picture shows black has no depth."""
OCTAVES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Sigmas of the contrast spectrum: the difference of each blur and the next, px."""

CROSS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / np.float32(6)
"""Second difference along both axes: smooth shading and straight edges give nothing, white noise its own deviation."""

NAMES = (
    "mean_t", "opaque_share", "bright_share", "spread_t", "edge_density", "edge_upright", "correlation_x",
    "correlation_y", "period", *(f"contrast_{int(s)}" for s in OCTAVES), "noise",
)  # fmt: skip
WORDS = {
    "mean_t": "mean transmission",
    "opaque_share": "share of opaque pixels",
    "bright_share": "share of pixels over T .75",
    "spread_t": "interquartile range of T",
    "edge_density": "edge density",
    "edge_upright": "share of upright edges",
    "correlation_x": "correlation length along, px",
    "correlation_y": "correlation length up, px",
    "period": "strength of the best period",
    **{f"contrast_{int(s)}": f"contrast at {s:g}-{2 * s:g} px, in -ln T" for s in OCTAVES},
    "noise": "finest noise, in T",
}


def inside(transmission: Array) -> Array | None:
    """Return the inside of the container, SCALE_PX high as a whole, or None where none is found large enough.

    transmission : (rows, columns) float, upright
    """
    frame = find_container(np.ascontiguousarray(transmission, np.float32))
    if frame is None or frame.height < LEAST_NATIVE_PX:
        return None
    return _cut(transmission, frame)


def _cut(transmission: Array, frame: Frame) -> Array:
    length, scale = frame.right - frame.left, SCALE_PX / frame.height
    ends, roof, floor = INSET
    x0, x1 = frame.left + ends * length, frame.right - ends * length
    left, right = frame.floor_left - frame.roof_left, frame.floor_right - frame.roof_right
    corners = [
        (x0, frame.roof_left + roof * left), (x1, frame.roof_right + roof * right),
        (x0, frame.floor_left - floor * left),
    ]  # fmt: skip
    size = round((x1 - x0) * scale), round(SCALE_PX * (1 - roof - floor))
    to = np.array([(0, 0), (size[0], 0), (0, size[1])], np.float32)
    # Shrinking by interpolation alone would let noise and edges fold over: blur first.
    source: Array = transmission.astype(np.float32)
    if scale < 1:
        source = cv2.GaussianBlur(source, (0, 0), 0.5 * np.sqrt(1 / scale**2 - 1) + 1e-3)
    affine = cv2.getAffineTransform(np.array(corners, np.float32), to)
    return np.asarray(cv2.warpAffine(source, affine, size, flags=cv2.INTER_LINEAR))


def statistics(t: Array) -> dict[str, float]:
    """Return NAMES -> value of one inside."""
    alpha = -np.log(np.maximum(t, np.exp(-MOST_ALPHA)))
    dx, dy = cv2.Sobel(t, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(t, cv2.CV_32F, 0, 1, scale=1 / 8)
    edges = np.hypot(dx, dy) > EDGE
    quarter = np.percentile(t, (25, 75))
    blurs = [cv2.GaussianBlur(alpha, (0, 0), s) for s in (*OCTAVES, 2 * OCTAVES[-1])]
    contrast = [float(np.std(a - b)) for a, b in pairwise(blurs)]
    along, best = _correlation(alpha)
    return {
        "mean_t": float(t.mean()),
        "opaque_share": float((t < OPAQUE).mean()),
        "bright_share": float((t > 0.75).mean()),
        "spread_t": float(quarter[1] - quarter[0]),
        "edge_density": float(edges.mean()),
        "edge_upright": float((np.abs(dx) > np.abs(dy))[edges].mean()) if edges.any() else 0.5,
        "correlation_x": along,
        "correlation_y": _correlation(alpha.T)[0],
        "period": best,
        **{f"contrast_{int(s)}": c for s, c in zip(OCTAVES, contrast, strict=True)},
        "noise": _noise(t),
    }


def _correlation(image: Array) -> tuple[float, float]:
    """Return the lag in px at which correlation along a row falls below 1/e, and the highest peak beyond it."""
    rows = image - image.mean(axis=1, keepdims=True)
    n = rows.shape[1]
    power = np.abs(np.fft.rfft(rows, 2 * n, axis=1)) ** 2
    r = np.fft.irfft(power.sum(axis=0))[: n // 2] / np.arange(n, n - n // 2, -1)
    if r[0] <= 1e-9:
        return float(n // 2), 0.0
    r = r / r[0]
    below = np.flatnonzero(r < np.exp(-1))
    if not len(below):
        return float(n // 2), 0.0
    first = int(below[0])
    # A peak is a period only if the correlation rises to it from a valley.
    later = r[first:]
    valley = np.minimum.accumulate(later)
    return float(first), float(np.max(later - valley, initial=0.0))


def _noise(t: Array) -> float:
    """Return the standard deviation of what no neighbour tells, in pixels that are not black: median of |Laplacian|."""
    fine = cv2.filter2D(t, cv2.CV_32F, CROSS)
    lit = (t > 0.1) & (t < 0.95)
    return float(1.4826 * np.median(np.abs(fine[lit]))) if lit.any() else 0.0
