"""Columns of one energy shifted by a part of a column, so that two interlaced energies are of one place."""

import numpy as np
from numba import njit, types, uint16, uint32

from triage.kernels.arrays import ro, rw


@njit(types.void(ro(uint16), ro(uint16, 2), uint32, rw(uint16, 2)), nogil=True, cache=True)
def on_one_grid(before, image, share, out):
    """Write (column * (256 - share) + column before * share) / 256, rounded.

    before : (channels,) uint16, the column before the first
    image : (columns, channels) uint16, counts
    share : 0 .. 256, the weight of the column before, in 1/256
    out : (columns, channels) uint16
    """
    rest, half = np.uint32(256) - share, np.uint32(128)
    for x in range(image.shape[0]):
        last = before if x == 0 else image[x - 1]
        column, row = image[x], out[x]
        for h in range(before.size):
            row[h] = (np.uint32(column[h]) * rest + np.uint32(last[h]) * share + half) >> np.uint32(8)
