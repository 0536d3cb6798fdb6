"""The 12-bit log code of one transmission."""

import numpy as np
from numba import float32, njit, uint16

#: q = round(STEPS * L) + OFFSET: 512 steps per unit of L; the offset keeps L down to -0.24 positive.
STEPS = 512
OFFSET = 128

T_MIN = np.float32(np.exp(-7.6))
T_MAX = np.float32(np.exp(0.24))

# Minimax of log2(1.5 + y) on [-0.5, 0.5], exact at both ends so that the code never steps back at a power of two.
# Degree 5 errs by 8.7e-6 in L; with the rounding to 1/512 the total stays below 0.00099. Degree 4 would not (6.1e-5).
_C0 = np.float32(0.5849504924960471)
_C1 = np.float32(0.96183968086227)
_C2 = np.float32(-0.3197489123591153)
_C3 = np.float32(0.14142287427810363)
_C4 = np.float32(-0.08001161078579368)
_C5 = np.float32(0.044873609089549994)
_SCALE = np.float32(-STEPS * np.log(2.0))
_ROUND = np.float32(OFFSET + 0.5)


@njit(uint16(float32), nogil=True, cache=True)
def log_code(t):
    """Return round(512 * -ln t) + 128 of a transmission, clipped to [exp(-7.6), exp(0.24)].

    t : transmission, 1 = open beam. NaN gives the code of exp(-7.6): no light, never clear air.

    Source: exponent split and polynomial instead of a library log, which LLVM would not vectorise.
    """
    t = t if t > T_MIN else T_MIN
    t = t if t < T_MAX else T_MAX
    bits = np.float32(t).view(np.int32)
    exponent = np.float32(np.int32(bits >> 23) - np.int32(127))
    y = np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32) - np.float32(1.5)
    log2 = exponent + (((((_C5 * y + _C4) * y + _C3) * y + _C2) * y + _C1) * y + _C0)
    return np.uint16(np.int32(_SCALE * log2 + _ROUND))
