"""How far a column's pixels lie from the box around them, in variances."""

import numpy as np
from numba import float32, int64, njit, types, uint16

from triage.kernels.arrays import ro, rw
from triage.kernels.box_integral import SHIFT
from triage.kernels.log_code import STEPS

# Unsigned: AVX2 has no arithmetic shift of 64 bits.
_SHIFT = np.uint64(SHIFT)
_SUM_SQUARES = np.uint64((1 << SHIFT) - 1)
# An integer below 2**52 becomes a double by setting the exponent of 2**52 and subtracting it: AVX2 has no instruction
# that converts int64 either, and without one the whole loop would stay scalar.
_EXPONENT = np.uint64(0x4330000000000000)
_TWO52 = np.float64(2.0**52)
# (0.02 in L)**2 keeps flat regions, where the variance is all rounding, from scoring.
_FLOOR = np.float64((0.02 * STEPS) ** 2)


@njit(
    types.void(ro(uint16), ro(int64), ro(int64), int64, int64, rw(float32)),
    nogil=True,
    cache=True,
    error_model="numpy",  # the python model's ZeroDivisionError is a branch that would keep the loop scalar
)
def box_deviation(q, before, after, radius, margin, squared):
    """Write (L - mean)**2 / (var + 0.02**2) over the box of 2 radius + 1 columns and channels around every pixel.

    q : (channels,) uint16, 12-bit log codes of the centre column c
    before, after : (>= channels + 2 * margin + 1,) int64, rows c - radius - 1 and c + radius of the integral image
    radius : at most `margin`, and at most MAX_RADIUS
    margin : as in box_integral
    squared : (channels,) float32 out
    """
    n = squared.size
    width = 2 * radius + 1
    first, stop = margin - radius, margin - radius + width
    a0, a1 = before[first : first + n], before[stop : stop + n]
    b0, b1 = after[first : first + n], after[stop : stop + n]
    pixels, pixels32 = np.float64(width * width), np.float32(width * width)
    # the floor joins the variance where the exponent is taken off the square sum; a whole number keeps that exact
    exponent_less_floor = _TWO52 - np.rint(pixels * _FLOOR)
    for h in range(n):
        box = np.uint64((b1[h] - b0[h]) - (a1[h] - a0[h]))
        total = np.uint64((box >> _SHIFT) | _EXPONENT).view(np.float64) - _TWO52
        squares = np.uint64((box & _SUM_SQUARES) | _EXPONENT).view(np.float64) - exponent_less_floor
        # times n pixels: n q - sum is below 2**24, exact in float32; n squares - sum**2 below 2**49, exact in float64
        deviation = pixels32 * np.float32(np.int32(q[h])) - np.float32(total)
        squared[h] = deviation * deviation / np.float32(pixels * squares - total * total)
