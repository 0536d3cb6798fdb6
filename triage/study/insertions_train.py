"""Objects to learn from: flat silhouettes of straight lines, drawn by polygons, with a Gaussian edge.

Made to differ from `insertions_test` in everything but what the kinds mean: see `insertions`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_FINE = 16
"""OpenCV draws polygons in sixteenths of a pixel."""
_TURNS = {"compact": 180.0, "brick": 12.0, "metal": 180.0, "void": 8.0, "item": 20.0, "slab": 0.0}
"""Largest rotation to either side, degrees."""
_STRENGTH = {
    "compact": (0.25, 2.2), "brick": (0.12, 0.7), "metal": (0.25, 1.1), "void": (0.2, 1.0), "item": (0.12, 1.2),
    "slab": (0.12, 0.7),
}  # fmt: skip


def draw(kind: str, unit: float, height: float, rng: np.random.Generator) -> tuple[Array, float]:
    """Return a profile (rows, columns) float32, 0..1, and its strength.

    unit : pixels per 1/460 of the container's height
    height : pixels from the lowest to the highest place, which a wall fills
    """
    polygons = _POLYGONS[kind](unit, height, rng)
    turn = np.deg2rad(rng.uniform(-_TURNS[kind], _TURNS[kind]))
    spin = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    polygons = [(points @ spin, level) for points, level in polygons]
    every = np.concatenate([points for points, _ in polygons])
    sigma = rng.uniform(0.8, 1.5) * max(unit, 0.5)
    # a wall ends where the room ends; all else gets a margin for its edge
    margin = np.array([3 * sigma + 1, 0.0 if kind == "slab" else 3 * sigma + 1])
    low = every.min(axis=0) - margin
    width, rows = (max(2, int(v)) for v in np.ceil(every.max(axis=0) + margin - low))
    canvas = np.zeros((rows, width), np.uint8)
    for points, level in polygons:
        corners = np.rint((points - low) * _FINE).astype(np.int32)
        cv2.fillPoly(canvas, [corners], round(255 * level), lineType=cv2.LINE_8, shift=4)
    profile = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    profile[profile < 1e-3] = 0.0
    return profile / max(float(profile.max()), 1e-6), _log_uniform(rng, *_STRENGTH[kind])


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _rectangle(x: float, y: float, w: float, h: float) -> Array:
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])


def _compact(unit: float, _height: float, rng: np.random.Generator) -> list[tuple[Array, float]]:
    """A convex lump of three to eight corners, half of them with a denser core."""
    size, stretch = unit * _log_uniform(rng, 7, 46), _log_uniform(rng, 0.5, 2.0)
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) + np.arange(corners) * 1e-3
    around = np.stack([np.cos(angles) * np.sqrt(stretch), np.sin(angles) / np.sqrt(stretch)], axis=1)
    points = cv2.convexHull((around * 0.5 * size * rng.uniform(0.8, 1.2, (corners, 1))).astype(np.float32))[:, 0]
    if np.ptp(points, axis=0).min() < 0.35 * size:
        points = _rectangle(-size / 2, -size / 2, size, size)
    if rng.random() < 0.5:
        return [(points, 1.0)]
    return [(points, float(rng.uniform(0.5, 0.8))), (points * rng.uniform(0.4, 0.7), 1.0)]


def _brick(unit: float, _height: float, rng: np.random.Generator) -> list[tuple[Array, float]]:
    """Equal packets on a grid with gaps between."""
    width, rows = unit * _log_uniform(rng, 36, 130), int(rng.integers(2, 7))
    columns = int(rng.integers(2, 7))
    w, h = width / columns, width / columns * rng.uniform(0.4, 1.0)
    gap = unit * rng.uniform(0.8, 3.0)
    return [
        (_rectangle(c * w, r * h, max(w - gap, 0.5 * w), max(h - gap, 0.5 * h)), 1.0)
        for r in range(rows)
        for c in range(columns)
    ]


def _metal(unit: float, _height: float, rng: np.random.Generator) -> list[tuple[Array, float]]:
    """Straight bars that join at angles."""
    pieces, thickness = int(rng.integers(1, 4)), unit * rng.uniform(1.8, 6.0)
    at, heading = np.zeros(2), rng.uniform(0, 2 * np.pi)
    bars = []
    for _ in range(pieces):
        length = unit * _log_uniform(rng, 12, 60)
        along = np.array([np.cos(heading), np.sin(heading)])
        across = np.array([-along[1], along[0]]) * thickness / 2
        end = at + along * length
        bars.append((np.array([at - across, end - across, end + across, at + across]), 1.0))
        at, heading = end, heading + rng.choice([-1, 1]) * rng.uniform(0.6, 2.2)
    return bars


def _box(low: float, high: float) -> Any:
    def box(unit: float, _height: float, rng: np.random.Generator) -> list[tuple[Array, float]]:
        size, stretch = unit * _log_uniform(rng, low, high), _log_uniform(rng, 0.5, 2.0)
        outer = _rectangle(0, 0, size * stretch**0.5, size / stretch**0.5)
        if rng.random() < 0.6:
            return [(outer, 1.0)]
        # a corner cut off, as of goods that lean
        outer = np.insert(outer[1:], 0, [(0.4 * size, 0.0), (0.0, 0.3 * size)][:: int(rng.choice([-1, 1]))], axis=0)
        return [(cv2.convexHull(outer.astype(np.float32))[:, 0].astype(np.float64), 1.0)]

    return box


def _slab(unit: float, height: float, rng: np.random.Generator) -> list[tuple[Array, float]]:
    """A straight even wall from the floor to the roof."""
    return [(_rectangle(0, 0, unit * _log_uniform(rng, 8, 34), height), 1.0)]


_POLYGONS: dict[str, Any] = {
    "compact": _compact, "brick": _brick, "metal": _metal, "void": _box(20, 90), "item": _box(14, 95), "slab": _slab,
}  # fmt: skip
