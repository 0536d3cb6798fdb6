"""Dark, gain and air correction with the log, in one pass over a column."""

import numpy as np
from numba import float32, njit, types, uint16

from triage.kernels.arrays import ro, rw
from triage.kernels.log_code import log_code


@njit(types.void(ro(uint16), ro(float32), ro(float32), float32, rw(uint16)), nogil=True, cache=True)
def log_transmission(raw, dark, inv_gain, inv_air, q):
    """Write the log code of one column.

    raw : (channels,) uint16, detector counts
    dark, inv_gain : (channels,) float32, counts and 1/counts
    inv_air : 1/air level of this column
    q : (channels,) uint16 out, round(512 L) + 128
    """
    for h in range(q.size):
        q[h] = log_code((np.float32(raw[h]) - dark[h]) * inv_gain[h] * inv_air)
