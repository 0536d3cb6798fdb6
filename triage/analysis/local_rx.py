"""Local RX: how far a cell's features lie from those around it, in units of their own spread.

Source: Reed and Yu, IEEE Trans. Acoustics, Speech and Signal Processing 38 (1990) 1760, with sliding windows.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_WIDE, _GUARD = 31, 9
"""Sides of the window and of the guard inside it, in cells."""
_RIDGE = np.array([0.03, 0.01, 0.01, 0.005], np.float32) ** 2
"""Least variances of the features, in -ln T squared."""


def local_rx(half: Array, cells: Array) -> Array:
    """Return the Mahalanobis distance of (intensity, DoG, std, gradient) to a ring around every cell.

    half, cells : (rows, columns) float32, -ln T on every second pixel and on cells
    """
    mean, square = (cv2.blur(v, (5, 5)) for v in (half, half * half))
    std = np.sqrt(np.maximum(square - mean * mean, 0))
    gradient = np.hypot(cv2.Sobel(half, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(half, cv2.CV_32F, 0, 1, scale=0.125))
    dog = cv2.GaussianBlur(cells, (0, 0), 1.0) - cv2.GaussianBlur(cells, (0, 0), 2.0)
    size = (cells.shape[1], cells.shape[0])
    features = np.stack([cells, dog, *(cv2.resize(v, size, interpolation=cv2.INTER_AREA) for v in (std, gradient))])
    features -= features.mean(axis=(1, 2), keepdims=True)
    centre = np.stack([_ring(f) for f in features])
    count = len(features)
    covariance = np.empty((*cells.shape, count, count), np.float32)
    for i in range(count):
        for j in range(i, count):
            between = _ring(features[i] * features[j]) - centre[i] * centre[j]
            covariance[..., i, j] = covariance[..., j, i] = between
        covariance[..., i, i] = np.maximum(covariance[..., i, i], 0) + _RIDGE[i]
    away = np.moveaxis(features - centre, 0, -1)
    return _distance(covariance, away)


def _ring(image: Array) -> Array:
    """Return means over a window without its guard."""
    wide, guard = (cv2.blur(image, (s, s), borderType=cv2.BORDER_REFLECT) for s in (_WIDE, _GUARD))
    share = (_GUARD / _WIDE) ** 2
    return np.asarray((wide - share * guard) / (1 - share))


def _distance(covariance: Array, away: Array) -> Array:
    """Return sqrt(away' covariance^-1 away) by a Cholesky factorisation of all cells at once."""
    count = away.shape[-1]
    factor = np.zeros_like(covariance)
    solved = np.zeros_like(away)
    for i in range(count):
        for j in range(i + 1):
            left = covariance[..., i, j] - np.einsum("...k,...k", factor[..., i, :j], factor[..., j, :j])
            # the ring's correction for its guard may leave a covariance that is not quite one
            factor[..., i, j] = np.sqrt(np.maximum(left, _RIDGE[i])) if i == j else left / factor[..., j, j]
        done = np.einsum("...k,...k", factor[..., i, :i], solved[..., :i])
        solved[..., i] = (away[..., i] - done) / factor[..., i, i]
    return np.asarray(np.sqrt(np.einsum("...k,...k", solved, solved)))
