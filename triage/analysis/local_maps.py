"""Maps of what is near: contrasts at several scales, unrest, hats, edges, and the order of rows and columns.

Names tell sizes in pixels of the straightened container. Signed maps are positive where it is darker than around.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_UNREST = 0.03
"""Least standard deviation, in -ln T: what a wall's ribs do, so that an even wall does not score by its noise."""
_DOG_RATIO = 1.6
"""Of the two Gaussians of a difference; that of the Laplacian's closest likeness (Marr and Hildreth 1980)."""


def local_maps(x: Array, half: Array) -> dict[str, Array]:
    """Return maps of fine detail on cells.

    x : (rows, columns) float32, -ln T; half : every second pixel of it
    """
    found: dict[str, Array] = {"x": half, "std_9": _std(x, 9)}
    for sigma in (2, 4):
        found[f"dog_{sigma}"] = _dog(half, sigma / 2)
    mean_7 = _mean(half, 3)
    for name, inside, wide in (("z_7_63", mean_7, 31), ("z_21_81", _mean(half, 11), 41)):
        found[name] = (inside - _mean(half, wide)) / np.sqrt(_variance(half, wide) + _UNREST**2)
    for size, pixels in ((15, 7), (41, 21)):
        element = np.ones((pixels, pixels), np.uint8)
        found[f"top_hat_{size}"] = half - cv2.morphologyEx(half, cv2.MORPH_OPEN, element)
        found[f"bottom_hat_{size}"] = cv2.morphologyEx(half, cv2.MORPH_CLOSE, element) - half
    smooth = cv2.GaussianBlur(half, (0, 0), 1.0)
    found["gradient_along"] = np.abs(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125))
    found["gradient_up"] = np.abs(cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125))
    rows, columns = half.shape[0] // 2, half.shape[1] // 2
    return {k: np.asarray(cv2.resize(v, (columns, rows), interpolation=cv2.INTER_AREA)) for k, v in found.items()}


def wide_maps(cells: Array) -> dict[str, Array]:
    """Return maps of coarse detail, from `cells`, (rows, columns) float32, -ln T."""
    found = {f"dog_{sigma}": _dog(cells, sigma / 4) for sigma in (8, 16, 32)}
    found |= {"std_21": _std(cells, 5), "std_45": _std(cells, 11)}
    found |= {"mean_21": _mean(cells, 5), "mean_63": _mean(cells, 15), "mean_181": _mean(cells, 45)}
    for size, inside in ((20, 5), (52, 13)):
        mean = _mean(cells, inside)
        found[f"row_contrast_{size}"] = _beside(mean, inside, axis=1)
        found[f"column_contrast_{size}"] = _beside(mean, inside, axis=0)
    mean = found["mean_21"]
    found["over_row"] = mean - np.median(mean, axis=1, keepdims=True)
    found["over_column"] = mean - np.median(mean, axis=0, keepdims=True)
    found["tallest"] = _runs(found["dog_16"], axis=0)
    found["longest"] = _runs(found["dog_16"], axis=1)
    return found


def _mean(image: Array, size: int) -> Array:
    return np.asarray(cv2.blur(image, (size, size), borderType=cv2.BORDER_REFLECT))


def _variance(image: Array, size: int) -> Array:
    # about the image's own mean, so that float32 squares do not cancel
    centred = image - np.float32(image.mean())
    return np.asarray(np.maximum(_mean(centred * centred, size) - _mean(centred, size) ** 2, 0))


def _std(image: Array, size: int) -> Array:
    return np.asarray(np.sqrt(_variance(image, size)))


def _dog(image: Array, sigma: float) -> Array:
    """Return a difference of Gaussians."""
    return np.asarray(_gauss(image, sigma) - _gauss(image, sigma * _DOG_RATIO))


def _gauss(image: Array, sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))


def _beside(mean: Array, shift: int, *, axis: int) -> Array:
    """Return box means less the mean of the two boxes beside them, along a row (axis 1) or a column (axis 0).

    Of the two the one nearer in value counts: at the edge of a stack one side is always different.
    """
    pad = [(0, 0), (0, 0)]
    pad[axis] = (shift, shift)
    wide = np.pad(mean, pad, mode="edge")
    size = mean.shape[axis]
    before, after = (np.take(wide, np.arange(first, first + size), axis=axis) for first in (0, 2 * shift))
    one, other = mean - before, mean - after
    return np.asarray(np.where(np.abs(one) < np.abs(other), one, other))


def _runs(contrast: Array, *, axis: int) -> Array:
    """Return the mean of a contrast along a column (axis 0) or a row (axis 1), over a quarter of the height: beams and
    posts have it high, compact objects have not.
    """
    length = contrast.shape[0] // 4 | 1
    size = (1, length) if axis == 0 else (length, 1)
    return np.asarray(cv2.blur(contrast, size, borderType=cv2.BORDER_REFLECT))
