"""Exact 3x3 median of uint16, one column at a time."""

import numpy as np
from numba import njit, types, uint16

from triage.kernels.arrays import ro, rw

#: Where a column starts in a row of `triples`: with rows of whole cache lines, no vector store straddles two.
START = 32


@njit(types.void(ro(uint16), ro(uint16), ro(uint16), rw(uint16, 2), rw(uint16)), nogil=True, cache=True)
def median3(previous, column, following, triples, out):
    """Write the 3x3 median of one column; channels beyond the edge repeat the edge.

    previous, column, following : (channels,) uint16; at an image edge the caller repeats the column
    triples : (3, >= START + channels + 1) uint16, working memory
    out : (channels,) uint16 out

    Source: sorted triples. With each triple across columns sorted, the median of nine is the median of
    (largest minimum, middle middle, smallest maximum).
    """
    n = column.size
    lowest, middle, highest = triples[0], triples[1], triples[2]
    # views first, then one common index: an index from a variable base would keep the loop scalar
    lo0, mid0, hi0 = lowest[START : START + n], middle[START : START + n], highest[START : START + n]
    for h in range(n):
        a, b, c = previous[h], column[h], following[h]
        small = min(a, b)
        large = max(a, b)
        lo0[h] = min(small, c)
        hi0[h] = max(large, c)
        mid0[h] = max(small, min(large, c))
    for row in (lowest, middle, highest):
        row[START - 1] = row[START]
        row[START + n] = row[START + n - 1]
    lo1, mid1, hi1 = lowest[START - 1 :], middle[START - 1 :], highest[START - 1 :]
    lo2, mid2, hi2 = lowest[START + 1 :], middle[START + 1 :], highest[START + 1 :]
    for h in range(n):
        a = max(max(lo0[h], lo1[h]), lo2[h])
        c = min(min(hi0[h], hi1[h]), hi2[h])
        x, y, z = mid0[h], mid1[h], mid2[h]
        b = max(min(x, y), min(max(x, y), z))
        out[h] = np.uint16(max(min(a, b), min(max(a, b), c)))
