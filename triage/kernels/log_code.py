"""The 12-bit log code of one transmission."""

import numpy as np
from numba import float32, njit, uint16

from triage.kernels.fma import fma

#: q = round(STEPS * L) + OFFSET: 512 steps per unit of L; the offset keeps L down to -0.24 positive.
STEPS = 512
OFFSET = 128

T_MIN = np.float32(np.exp(-7.6))
T_MAX = np.float32(np.exp(0.24))

# Minimax of log2(m) on [1, 2], exact at both ends so that the code never steps back at a power of two, times -512 ln 2;
# the constant holds OFFSET and the half of the rounding too. Degree 5 errs by 8.7e-6 in L; with the rounding to 1/512
# the total stays below 0.00099. Degree 4 would not (6.1e-5). The bits less those of 1.0, as a number, are
# 2**23 (exponent + m - 1): one conversion gives the exponent, and the polynomial gives back the m - 1 that came along.
_SCALE = -STEPS * np.log(2.0)
_C0 = np.float32(993.8249894780151 + OFFSET + 0.5 + _SCALE)
_C1 = np.float32(-1807.0041506733278 - _SCALE)
_C2 = np.float32(1260.1457083842363)
_C3 = np.float32(-578.8805901497793)
_C4 = np.float32(147.8348490716226)
_C5 = np.float32(-15.925255998449005)
_BITS_SCALE = np.float32(_SCALE * 2.0**-23)
_ONE = np.int32(0x3F800000)  # the bits of 1.0
_MANTISSA = np.int32(0x007FFFFF)
_T_MAX_BITS = np.int32(T_MAX.view(np.int32))


@njit(uint16(float32), nogil=True, cache=True)
def log_code(t):
    """Return round(512 * -ln t) + 128 of a transmission, clipped to [exp(-7.6), exp(0.24)].

    t : transmission, 1 = open beam. NaN gives the code of exp(-7.6): no light, never clear air.

    Source: exponent split and polynomial instead of a library log, which LLVM would not vectorise.
    """
    t = t if t > T_MIN else T_MIN
    # positive floats are in the order of their bits: a minimum of integers is one instruction, two float clips are four
    bits = min(np.float32(t).view(np.int32), _T_MAX_BITS)
    m = np.int32((bits & _MANTISSA) | _ONE).view(np.float32)
    p = fma(fma(fma(fma(fma(_C5, m, _C4), m, _C3), m, _C2), m, _C1), m, _C0)
    return np.uint16(np.int32(fma(_BITS_SCALE, np.float32(np.int32(bits - _ONE)), p)))
