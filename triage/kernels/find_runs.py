"""Runs of channels at or above a threshold in one column."""

import numpy as np
from numba import int64, njit, uint8

from triage.kernels.arrays import ro, rw

# Almost all of a column is quiet: its maximum over a block of this length is one vector loop.
_BLOCK = 64


@njit(int64(ro(uint8), int64, rw(int64, 2)), nogil=True, cache=True)
def find_runs(z, threshold, runs):
    """Write every run of z >= threshold and return how many there are.

    z : (channels,) uint8
    threshold : in the steps of z
    runs : (>= channels // 2 + 1, 3) int64 out, columns first channel, stop channel (exclusive), label = -1
    """
    n = z.size
    count = 0
    inside = False
    for first in range(0, n, _BLOCK):
        block = z[first : first + _BLOCK]
        peak = np.uint8(0)
        for i in range(block.size):
            peak = max(peak, block[i])
        if np.int64(peak) < threshold and not inside:
            continue
        for i in range(block.size):
            above = np.int64(block[i]) >= threshold
            if above and not inside:
                runs[count, 0] = first + i
                runs[count, 2] = -1
            elif inside and not above:
                runs[count, 1] = first + i
                count += 1
            inside = above
    if inside:
        runs[count, 1] = n
        count += 1
    return count
