"""Anomaly score of one column: the largest deviation from three boxes."""

import numpy as np
from numba import int64, njit, uint8, uint16, uint32

from triage.kernels.arrays import ro, rw
from triage.kernels.box_fraction import box_fraction
from triage.kernels.box_integral import FIRST
from triage.kernels.log_code import STEPS

#: z is stored in steps of 1/16 and saturates at 255/16.
Z_STEPS = 16
#: The two smaller boxes: 23x23, so that sums about any code stay in 32 bits (box_fraction).
MAX_SMALL_RADIUS = 11

# (0.02 in L)**2 keeps flat regions, where the variance is all rounding, from scoring; the half is box_fraction's
_FLOOR = np.float32((0.02 * STEPS) ** 2 + 0.5)
_NONE, _ONE = np.uint32(0), np.uint32(1)


@njit(
    int64(ro(uint16), ro(uint32, 2), ro(uint32, 2), int64, ro(int64), rw(uint8)),
    nogil=True,
    cache=True,
    error_model="numpy",  # the python model's ZeroDivisionError is a branch that would keep the loop scalar
)
def box_z(q, sums, squares, column, radii, z):
    """Write z = max over three boxes of abs(L - mean) / sqrt(var + 0.02**2), and return the largest.

    q : (channels,) uint16, 12-bit log codes of the column
    sums, squares : (rows, size) uint32, the last rows of the integral images (box_integral with margin radii[2]), in a
        ring: rows is a power of two, above 2 radii[2] + 1
    column : index of the column; row i of the image is at i modulo rows
    radii : (3,) int64 in rising order, the first two at most MAX_SMALL_RADIUS, the last at most MAX_RADIUS
    z : (channels,) uint8 out, floor(16 z) up to 255, so that z >= T reads as byte >= 16 T
    """
    n = z.size
    ring = sums.shape[0] - 1
    r, s, t = radii[0], radii[1], radii[2]
    # views first, then one common index: an index from a variable base would keep the loop scalar
    low, high = FIRST - 1 - r, FIRST + r
    before, after = (column - r - 1) & ring, (column + r) & ring
    a0, a1, a2, a3 = sums[before, low:], sums[before, high:], sums[after, low:], sums[after, high:]
    b0, b1, b2, b3 = squares[before, low:], squares[before, high:], squares[after, low:], squares[after, high:]
    low, high = FIRST - 1 - s, FIRST + s
    before, after = (column - s - 1) & ring, (column + s) & ring
    c0, c1, c2, c3 = sums[before, low:], sums[before, high:], sums[after, low:], sums[after, high:]
    d0, d1, d2, d3 = squares[before, low:], squares[before, high:], squares[after, low:], squares[after, high:]
    low, high = FIRST - 1 - t, FIRST + t
    before, after = (column - t - 1) & ring, (column + t) & ring
    e0, e1, e2, e3 = sums[before, low:], sums[before, high:], sums[after, low:], sums[after, high:]
    f0, f1, f2, f3 = squares[before, low:], squares[before, high:], squares[after, low:], squares[after, high:]
    small, middle, large = np.uint32((2 * r + 1) ** 2), np.uint32((2 * s + 1) ** 2), np.uint32((2 * t + 1) ** 2)
    pixels, pixels_middle, pixels_large = np.float32(small), np.float32(middle), np.float32(large)
    scale, scale_middle, scale_large = (
        np.float32(4) * pixels,
        np.float32(4) * pixels_middle,
        np.float32(8) * pixels_large,
    )
    floor, floor_middle, floor_large = (
        pixels * pixels * _FLOOR,
        pixels_middle * pixels_middle * _FLOOR,
        pixels_large * pixels_large * _FLOOR,
    )
    half_mean = np.float32(0.5) / pixels_large
    peak = np.int32(0)
    for h in range(n):
        own = np.uint32(q[h])
        value = np.float32(np.int32(own))
        half = own >> _ONE
        half_value = np.float32(np.int32(half))
        total = np.uint32(np.uint32(a3[h] - a2[h]) - np.uint32(a1[h] - a0[h]))
        quarters = np.uint32(np.uint32(b3[h] - b2[h]) - np.uint32(b1[h] - b0[h]))
        squared = box_fraction(total, quarters, half, half_value, value, small, _NONE, scale, floor)
        total = np.uint32(np.uint32(c3[h] - c2[h]) - np.uint32(c1[h] - c0[h]))
        quarters = np.uint32(np.uint32(d3[h] - d2[h]) - np.uint32(d1[h] - d0[h]))
        other = box_fraction(total, quarters, half, half_value, value, middle, _NONE, scale_middle, floor_middle)
        squared = other if other > squared else squared
        total = np.uint32(np.uint32(e3[h] - e2[h]) - np.uint32(e1[h] - e0[h]))
        quarters = np.uint32(np.uint32(f3[h] - f2[h]) - np.uint32(f1[h] - f0[h]))
        half = np.uint32(np.int32(np.float32(np.int32(total)) * half_mean))
        half_value = np.float32(np.int32(half))
        other = box_fraction(total, quarters, half, half_value, value, large, _ONE, scale_large, floor_large)
        squared = other if other > squared else squared
        score = np.sqrt(squared) * np.float32(Z_STEPS)
        score = score if score < np.float32(255.0) else np.float32(255.0)
        level = np.int32(score)
        peak = max(peak, level)
        z[h] = np.uint8(level)
    return np.int64(peak)
