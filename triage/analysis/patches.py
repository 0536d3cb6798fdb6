"""How unlike a patch is to others: of the same container (stacks repeat), and of scans known to be normal.

A patch of 8 x 8 values is described by its 16 lowest cosine coefficients and its height above the floor. For natural
images the cosines are close to the principal components, and being nobody's data they cannot leak one image's content
into the judgement of another. Source: Ahmed, Natarajan and Rao, IEEE Trans. Computers C-23 (1974) 90.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from triage.kernels.nearest_patch import NONE, TILE, nearest_patch

Array: TypeAlias = NDArray[Any]

STRIDE = 8
"""Pixels between patches."""
_VALUES, _WAVES = 8, 4
HEIGHT_WEIGHT = 2.0
"""A patch a full container height away counts as this much farther, in -ln T."""
_BAND = 6
"""Patches are compared with those at most this many strides above or below (48 pixels, 30 cm)."""
DIMENSIONS = _WAVES * _WAVES + 1


class PatchSize(NamedTuple):
    """side : of a patch, in pixels; step : pixels per value it is described from."""

    side: int
    step: int

    @property
    def apart(self) -> int:
        """Strides by which another patch of the container must be away: 40 pixels and what the larger patch covers."""
        return (40 + max(0, self.side - 16)) // STRIDE


class Bank(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Patches of scans known to be normal.

    codes : per patch size, (patches, DIMENSIONS + 1) float32, code and row (in strides from the roof)
    """

    codes: tuple[Array, ...]


def codes_of(image: Array, size: PatchSize) -> Array:
    """Return (rows, columns, DIMENSIONS) float32: codes of the patches around points STRIDE pixels apart.

    image : (rows, columns) float32, -ln T, one value per `size.step` pixels
    """
    step, half = STRIDE // size.step, _VALUES // 2
    padded = cv2.copyMakeBorder(image, half, half, half, half, cv2.BORDER_REFLECT)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (_VALUES, _VALUES))[: image.shape[0] : step]
    windows = windows[:, : image.shape[1] : step]
    waves = _waves()
    codes = np.empty((*windows.shape[:2], DIMENSIONS), np.float32)
    values = np.ascontiguousarray(windows.transpose(3, 2, 0, 1))
    along = _summed(values[i] * waves[i][:, None, None, None] for i in range(_VALUES))
    both = _summed(along[:, i] * waves[i][:, None, None, None] for i in range(_VALUES))
    codes[..., :-1] = both.reshape(-1, *windows.shape[:2]).transpose(1, 2, 0)
    height = np.arange(windows.shape[0], dtype=np.float32) / windows.shape[0]
    codes[..., -1] = HEIGHT_WEIGHT * height[:, None]
    return codes


def strangeness(codes: Array, others: Array, shape: tuple[int, int], *, apart: int) -> Array:
    """Return `shape` float32: distance of every patch to the most alike of others, brought to cells.

    codes : (rows, columns, DIMENSIONS); others : the same of this container, or (patches, DIMENSIONS + 1) of a bank
    apart : strides by which another patch must be away in x or y; 0 for a bank
    """
    rows, columns = codes.shape[:2]
    at = _places(rows, columns)
    if others.ndim == 3:
        references, reference_at = others.reshape(-1, DIMENSIONS), at
    else:
        order = np.argsort(others[:, -1], kind="stable")
        references = others[order, :-1]
        reference_at = np.stack([np.zeros(len(order), np.int32), others[order, -1].astype(np.int32)], axis=1)
    row_start = np.searchsorted(reference_at[:, 1], np.arange(rows + 1)).astype(np.int64)
    row_start[-1] = len(references)
    distance = np.empty(rows * columns, np.float32)
    nearest_patch(
        np.ascontiguousarray(codes.reshape(-1, DIMENSIONS)), at, np.ascontiguousarray(references.T),
        np.ascontiguousarray(reference_at.T), row_start, _BAND, apart, np.empty(TILE, np.float32), distance,
    )  # fmt: skip
    distance[distance >= NONE] = 0.0
    found = np.sqrt(distance).reshape(rows, columns) / np.float32(_VALUES)
    return np.asarray(cv2.resize(found, shape[::-1], interpolation=cv2.INTER_LINEAR))


def _places(rows: int, columns: int) -> Array:
    """Return (rows * columns, 2) int32: x and y of every patch, row by row."""
    y, x = np.divmod(np.arange(rows * columns, dtype=np.int32), columns)
    return np.ascontiguousarray(np.stack([x, y], axis=1))


def _summed(terms: Iterable[Array]) -> Array:
    """Return the sum of arrays, added one after the other.

    A matrix product of BLAS adds in an order that depends on processor and threads; a replay on another machine would
    be judged by other numbers.
    """
    return functools.reduce(lambda total, term: np.add(total, term, out=total), terms)


def _waves() -> Array:
    """Return (8, 4) float32: the lowest orthonormal cosines of 8 values."""
    n = np.arange(_VALUES) + 0.5
    waves = np.cos(np.pi * np.outer(n, np.arange(_WAVES)) / _VALUES) * np.sqrt(2 / _VALUES)
    waves[:, 0] /= np.sqrt(2)
    return np.asarray(waves, np.float32)
