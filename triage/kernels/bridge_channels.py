"""Bad channels of a column, bridged from the nearest good ones."""

import numpy as np
from numba import float32, int32, njit, types, uint16

from triage.kernels.arrays import ro, rw
from triage.kernels.log_code import log_code


@njit(
    types.void(ro(uint16), ro(float32), ro(float32), float32, ro(int32), ro(int32), ro(int32), ro(float32), rw(uint16)),
    nogil=True,
    cache=True,
)
def bridge_channels(raw, dark, inv_gain, inv_air, bad, below, above, weight, q):
    """Write the log code of every bad channel, interpolated linearly in transmission.

    raw, dark, inv_gain, inv_air : as in log_transmission
    bad : (n,) int32, the bad channels
    below, above : (n,) int32, nearest good channel on either side; at an edge both are the nearest good one
    weight : (n,) float32, share of `above`, 0..1
    q : (channels,) uint16 in and out; only bad channels are written
    """
    for i in range(bad.size):
        a = below[i]
        b = above[i]
        ta = (np.float32(raw[a]) - dark[a]) * inv_gain[a] * inv_air
        tb = (np.float32(raw[b]) - dark[b]) * inv_gain[b] * inv_air
        q[bad[i]] = log_code(np.float32(ta + weight[i] * (tb - ta)))
