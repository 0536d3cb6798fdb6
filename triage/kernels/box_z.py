"""Anomaly score of one column: the largest deviation from three surrounding boxes."""

import numpy as np
from numba import int64, njit, types, uint8, uint16

from triage.kernels.arrays import ro, rw
from triage.kernels.box_prefix import SHIFT
from triage.kernels.log_code import STEPS

#: z is stored in steps of 1/16 and saturates at 255/16.
Z_STEPS = 16

_SUM_SQUARES = (1 << SHIFT) - 1
# An integer below 2**52 becomes a double by setting the exponent of 2**52 and subtracting it: AVX2 has no instruction
# that converts int64, and without one the whole loop would stay scalar.
_EXPONENT = 0x4330000000000000
_TWO52 = np.float64(2.0**52)
# (0.02 in L)**2 keeps flat regions, where the variance is all rounding, from scoring.
_FLOOR = np.float64((0.02 * STEPS) ** 2)


@njit(
    types.void(ro(uint16), ro(int64), ro(int64), ro(int64), int64, int64, int64, int64, rw(uint8)),
    nogil=True,
    cache=True,
    error_model="numpy",  # the python model's ZeroDivisionError is a branch that would keep the loop scalar
)
def box_z(q, small, middle, large, radius_small, radius_middle, radius_large, margin, z):
    """Write z = max over three boxes of abs(L - mean) / sqrt(var + 0.02**2).

    q : (channels,) uint16, 12-bit log codes of the centre column
    small, middle, large : (channels + 2 * margin + 1,) int64, packed running sums of each box's columns
    radius_small, radius_middle, radius_large : box radii; at most `margin` and at most 31
    z : (channels,) uint8 out, floor(16 z) up to 255, so that z >= T reads as byte >= 16 T
    """
    n = z.size
    ws, wm, wl = 2 * radius_small + 1, 2 * radius_middle + 1, 2 * radius_large + 1
    os, om, ol = margin - radius_small, margin - radius_middle, margin - radius_large
    s0, s1 = small[os : os + n], small[os + ws : os + ws + n]
    m0, m1 = middle[om : om + n], middle[om + wm : om + wm + n]
    l0, l1 = large[ol : ol + n], large[ol + wl : ol + wl + n]
    ns, nm, nl = np.float64(ws * ws), np.float64(wm * wm), np.float64(wl * wl)
    fs, fm, fl = ns * ns * _FLOOR, nm * nm * _FLOOR, nl * nl * _FLOOR
    for h in range(n):
        value = np.float64(np.int32(q[h]))
        box = s1[h] - s0[h]
        total = np.int64((box >> SHIFT) | _EXPONENT).view(np.float64) - _TWO52
        squares = np.int64((box & _SUM_SQUARES) | _EXPONENT).view(np.float64) - _TWO52
        d = np.float32(ns * value - total)
        num_s = d * d
        den_s = np.float32(ns * squares - total * total + fs)

        box = m1[h] - m0[h]
        total = np.int64((box >> SHIFT) | _EXPONENT).view(np.float64) - _TWO52
        squares = np.int64((box & _SUM_SQUARES) | _EXPONENT).view(np.float64) - _TWO52
        d = np.float32(nm * value - total)
        num_m = d * d
        den_m = np.float32(nm * squares - total * total + fm)

        box = l1[h] - l0[h]
        total = np.int64((box >> SHIFT) | _EXPONENT).view(np.float64) - _TWO52
        squares = np.int64((box & _SUM_SQUARES) | _EXPONENT).view(np.float64) - _TWO52
        d = np.float32(nl * value - total)
        num_l = d * d
        den_l = np.float32(nl * squares - total * total + fl)

        # all three are fractions of positive numbers: one division and one root, after the largest is found
        ratio = num_s / den_s
        other = num_m / den_m
        ratio = other if other > ratio else ratio
        other = num_l / den_l
        ratio = other if other > ratio else ratio
        score = np.sqrt(np.float32(ratio)) * np.float32(Z_STEPS)
        score = score if score < np.float32(255.0) else np.float32(255.0)
        z[h] = np.uint8(np.int32(score))
