"""How far a pixel lies from the box around it, in variances."""

import numpy as np
from numba import float32, njit, uint32

from triage.kernels.fma import fma


@njit(
    float32(uint32, uint32, uint32, float32, float32, uint32, uint32, float32, float32),
    nogil=True,
    cache=True,
    error_model="numpy",  # the python model's ZeroDivisionError is a branch that would keep the caller's loop scalar
)
def box_fraction(total, quarters, half, half_value, q_value, pixels, shift, scale, floor):
    """Return (q - mean)**2 / (variance + 0.02**2) of a pixel q in its box.

    total, quarters : sums of q and of floor(q**2 / 4) over the box, modulo 2**32
    half, half_value : sums are taken about m = 2 half, which keeps them in 32 bits where m is within 2 of the box's
        mean, or within 1 of any code and the box has no more than 23x23 pixels; the same as a float
    q_value : q as a float
    pixels : n, of the box; shift : 1 where n > 23**2, else 0
    scale, floor : 4 n 2**shift, and n**2 (0.02**2 in q + 1/2)

    About m the square sum is 4 T + k, with T = quarters - half (total - n half) and k the number of odd codes in the
    box. k is not known, so n / 2 stands for it: that errs by no more than 0.5 % of the floor of the variance, which is
    0.25 % of z. With d = total - n m, n**2 (variance + 0.02**2) is 4 n T - d**2 + floor. As far as z = 16 what cancels
    there is at most 257 times what is left, of the 2**24 steps of a float32.
    """
    value = np.float32(np.int32(total))
    n = np.float32(np.int32(pixels))
    spread = np.uint32(quarters - np.uint32(half * np.uint32(total - np.uint32(pixels * half)))) >> shift
    offset = fma(np.float32(-2) * n, half_value, value)
    deviation = fma(-n, q_value, value)
    return deviation * deviation / fma(-offset, offset, fma(np.float32(np.int32(spread)), scale, floor))
