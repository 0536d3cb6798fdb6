"""Two integral images, one column at a time: any box in them is four look-ups each."""

import numpy as np
from numba import int64, njit, types, uint16, uint32

from triage.kernels.arrays import ro, rw
from triage.kernels.prefix_sum import prefix_sum

#: Where a column starts in its row: a cache line, behind the largest margin and what is before it.
FIRST = 48
#: The largest box. Of 63x63 codes of 12 bits, the sum stays below 2**24 and the sum of floor(q**2 / 4) below 2**34; of
#: the latter only what lies above the box's mean is needed, and that stays below 2**32 (box_fraction). So both are
#: exact modulo 2**32, although the integral images overflow again and again, and nothing drifts.
MAX_RADIUS = 31


@njit(types.void(ro(uint16), int64, rw(uint32, 2), rw(uint32), rw(uint32)), nogil=True, cache=True)
def box_integral(q, margin, columns_sum, sums, squares):
    """Add a column to both integral images and write their new rows.

    q : (channels,) uint16, 12-bit log codes
    margin : channels by which the edge channels are repeated on either side; the largest box radius or more, up to
        MAX_RADIUS
    columns_sum : (2, size) uint32 in and out, sums of q and of floor(q**2 / 4) of every channel over all columns so
        far; channel h is at FIRST + h, what lies before the first margin is 0
    sums, squares : (size,) uint32 out; at FIRST - margin - 1 + i stands the sum of the first i channels, edges
        repeated, of all columns; size is a multiple of LANES, at least FIRST + channels + margin

    Source: Crow, Summed-area tables for texture mapping, SIGGRAPH 1984. Quarter squares instead of squares: they take
    two bits less, and q**2 is 4 floor(q**2 / 4) or one more.
    """
    n = q.size
    body, body_squares = columns_sum[0, FIRST : FIRST + n], columns_sum[1, FIRST : FIRST + n]
    for h in range(n):
        value = np.uint32(q[h])
        half = value >> np.uint32(1)
        body[h] += value
        body_squares[h] += np.uint32(half * np.uint32(value - half))
    edge, edge_squares = body[0], body_squares[0]
    for i in range(FIRST - margin, FIRST):
        columns_sum[0, i], columns_sum[1, i] = edge, edge_squares
    edge, edge_squares = body[n - 1], body_squares[n - 1]
    for i in range(FIRST + n, FIRST + n + margin):
        columns_sum[0, i], columns_sum[1, i] = edge, edge_squares
    prefix_sum(columns_sum[0], sums)
    prefix_sum(columns_sum[1], squares)
