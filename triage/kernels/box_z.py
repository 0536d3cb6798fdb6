"""Anomaly score of one column: the largest deviation from its three boxes."""

import numpy as np
from numba import float32, njit, types, uint8

from triage.kernels.arrays import ro, rw

#: z is stored in steps of 1/16 and saturates at 255/16.
Z_STEPS = 16


@njit(types.void(ro(float32), ro(float32), ro(float32), rw(uint8)), nogil=True, cache=True)
def box_z(small, middle, large, z):
    """Write z = max over three boxes of abs(L - mean) / sqrt(var + 0.02**2).

    small, middle, large : (channels,) float32, squared deviations (box_deviation)
    z : (channels,) uint8 out, floor(16 z) up to 255, so that z >= T reads as byte >= 16 T
    """
    for h in range(z.size):
        squared = small[h]
        other = middle[h]
        squared = other if other > squared else squared
        other = large[h]
        squared = other if other > squared else squared
        score = np.sqrt(np.float32(squared)) * np.float32(Z_STEPS)
        score = score if score < np.float32(255.0) else np.float32(255.0)
        z[h] = np.uint8(np.int32(score))
