"""Packed running sums of one column, from which any box along the channels is one difference."""

import numpy as np
from numba import int64, njit, types, uint16

from triage.kernels.arrays import ro, rw

#: One int64 holds (sum << SHIFT) + sum of squares. Up to 63x63 codes of 12 bits the square sum stays below 2**36
#: and the sum below 2**24, so a box is exact modulo 2**64 although the running sum itself overflows. 65x65 would not.
SHIFT = 36
MAX_RADIUS = 31


@njit(types.void(ro(uint16), int64, rw(int64)), nogil=True, cache=True)
def box_prefix(q, margin, out):
    """Write the packed running sum of a column whose edge channels are repeated `margin` times.

    q : (channels,) uint16, 12-bit log codes
    margin : channels added on either side; at least the largest box radius
    out : (channels + 2 * margin + 1,) int64 out; out[i] sums the first i channels of the padded column
    """
    n = q.size
    total = np.int64(0)
    out[0] = total
    first = np.int64(q[0])
    step = (first << SHIFT) + first * first
    for i in range(margin):
        total += step
        out[i + 1] = total
    body = out[margin + 1 :]
    for h in range(n):
        v = np.int64(q[h])
        total += (v << SHIFT) + v * v
        body[h] = total
    last = np.int64(q[n - 1])
    step = (last << SHIFT) + last * last
    tail = out[margin + n + 1 :]
    for i in range(margin):
        total += step
        tail[i] = total
