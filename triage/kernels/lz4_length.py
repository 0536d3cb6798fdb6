"""What a length of an LZ4 sequence has beyond its token."""

import numpy as np
from numba import njit, uint8, uint64

from triage.kernels.arrays import rw


@njit(uint64(rw(uint8), uint64, uint64), nogil=True, cache=True)
def lz4_length(out, at, length):
    """Write to out[at:] what the 4 bits of a token do not say of `length`, and return the place behind it.

    out : (n,) uint8; a length of 15 or more takes 1 byte, and 1 more for every 255 beyond

    Source: LZ4 block format description, 2022-07-31.
    """
    if length >= uint64(15):
        rest = length - uint64(15)
        while rest >= uint64(255):
            out[at] = np.uint8(255)
            at += uint64(1)
            rest -= uint64(255)
        out[at] = np.uint8(rest)
        at += uint64(1)
    return at
