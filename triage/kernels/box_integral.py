"""Packed integral image, one column at a time: any box in it is four look-ups."""

import numpy as np
from numba import int64, njit, types, uint16

from triage.kernels.arrays import ro, rw

#: One int64 holds (sum << SHIFT) + sum of squares. Up to 63x63 codes of 12 bits the square sum of a box stays below
#: 2**36 and its sum below 2**24, so a box is exact modulo 2**64 although the integral itself overflows, and nothing
#: drifts. 65x65 would overflow the lower field.
SHIFT = 36
MAX_RADIUS = 31


@njit(types.void(ro(uint16), int64, rw(int64), rw(int64)), nogil=True, cache=True)
def box_integral(q, margin, columns_sum, out):
    """Add a column to the integral image and write the image's new row.

    q : (channels,) uint16, 12-bit log codes
    margin : channels by which the edge channels are repeated on either side; at least the largest box radius
    columns_sum : (channels,) int64 in and out, packed sums of every channel over all columns so far
    out : (>= channels + 2 * margin + 1,) int64 out; out[i] sums the first i channels, edges repeated, of all columns

    Source: Crow, Summed-area tables for texture mapping, SIGGRAPH 1984; sum and square sum packed into one word, and
    the vertical sum first, because it is a vector loop and leaves one addition for the scalar chain along a column.
    """
    n = q.size
    for h in range(n):
        value = np.int64(q[h])
        columns_sum[h] += (value << SHIFT) + value * value
    total = np.int64(0)
    out[0] = total
    edge = columns_sum[0]
    for i in range(margin):
        total += edge
        out[i + 1] = total
    body = out[margin + 1 :]
    for h in range(n):
        total += columns_sum[h]
        body[h] = total
    edge = columns_sum[n - 1]
    tail = out[margin + n + 1 :]
    for i in range(margin):
        total += edge
        tail[i] = total
