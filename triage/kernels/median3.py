"""Exact 3x3 median of uint16, one column at a time."""

import numpy as np
from numba import njit, types, uint16

from triage.kernels.arrays import ro, rw

#: Where a column starts in its row: with rows of whole cache lines, a third of the vector loads straddle none.
START = 32


@njit(types.void(ro(uint16), ro(uint16), ro(uint16), rw(uint16)), nogil=True, cache=True)
def median3(previous, column, following, out):
    """Write the 3x3 median of one column.

    previous, column, following : (>= START + channels + 1,) uint16; channel h is at START + h, and the first and the
        last one are repeated beside themselves; at an image edge the caller repeats the column
    out : (channels,) uint16 out

    Each triple across columns is sorted three times, once for every place it has in a box: that costs less than to
    store it and to load it from three places, two of which straddle cache lines.

    Source: sorted triples. With each triple across columns sorted, the median of nine is the median of
    (largest minimum, middle middle, smallest maximum).
    """
    # views first, then one common index: an index from a variable base would keep the loop scalar
    a0, b0, c0 = previous[START - 1 :], column[START - 1 :], following[START - 1 :]
    a1, b1, c1 = previous[START:], column[START:], following[START:]
    a2, b2, c2 = previous[START + 1 :], column[START + 1 :], following[START + 1 :]
    for h in range(out.size):
        small, large, other = min(a0[h], b0[h]), max(a0[h], b0[h]), c0[h]
        lowest, highest, x = min(small, other), max(large, other), max(small, min(large, other))
        small, large, other = min(a1[h], b1[h]), max(a1[h], b1[h]), c1[h]
        lowest, highest = max(lowest, min(small, other)), min(highest, max(large, other))
        y = max(small, min(large, other))
        small, large, other = min(a2[h], b2[h]), max(a2[h], b2[h]), c2[h]
        lowest, highest = max(lowest, min(small, other)), min(highest, max(large, other))
        z = max(small, min(large, other))
        middle = max(min(x, y), min(max(x, y), z))
        out[h] = np.uint16(max(min(lowest, middle), min(max(lowest, middle), highest)))
