"""Bit planes of 16-bit counts, block by block, as HDF5's bitshuffle filter stores them."""

import numpy as np
from numba import njit, types, uint8, uint16, uint64

from triage.kernels.arrays import ro, rw

BLOCK = 4096
"""Values in a block: 8 KiB, the filter's default."""


@njit(types.void(ro(uint16), rw(uint64, 2), rw(uint8)), nogil=True, cache=True)
def bitshuffle16(values, halves, out):
    """Write the bit planes of each block of BLOCK values, and of a shorter last one in whole eights.

    values : (n,) uint16
    halves : (2, BLOCK // 8) uint64, working memory
    out : (2 n,) uint8 out; a block of m values is 16 planes of m / 8 bytes, lowest bit first, of which byte k bit i is
        that bit of value 8 k + i; up to seven values left over are copied

    Source: K. Masui et al., Astronomy and Computing 12 (2015) 181; the 8 x 8 bit transposition is H. S. Warren,
    Hacker's Delight, section 7-3.
    """
    even, odd = uint64(0x00FF00FF00FF00FF), uint64(0x0000FFFF0000FFFF)
    whole = values.size // 8 * 8
    words = values[:whole].view(np.uint64)
    at = 0
    while at < whole:
        count = min(BLOCK, whole - at) // 8
        block = words[at // 4 : at // 4 + 2 * count]
        low, high = halves[0, :count], halves[1, :count]
        for k in range(count):
            # low and high bytes of eight values, gathered from two words
            a, b = block[2 * k], block[2 * k + 1]
            a_low, b_low = a & even, b & even
            a_high, b_high = (a >> uint64(8)) & even, (b >> uint64(8)) & even
            a_low, b_low = (a_low | (a_low >> uint64(8))) & odd, (b_low | (b_low >> uint64(8))) & odd
            a_high, b_high = (a_high | (a_high >> uint64(8))) & odd, (b_high | (b_high >> uint64(8))) & odd
            a_low, b_low = a_low | (a_low >> uint64(16)), b_low | (b_low >> uint64(16))
            a_high, b_high = a_high | (a_high >> uint64(16)), b_high | (b_high >> uint64(16))
            low[k] = (a_low & uint64(0xFFFFFFFF)) | (b_low << uint64(32))
            high[k] = (a_high & uint64(0xFFFFFFFF)) | (b_high << uint64(32))
        for half in range(2):
            plane = halves[half, :count]
            for k in range(count):
                x = plane[k]
                t = (x ^ (x >> uint64(7))) & uint64(0x00AA00AA00AA00AA)
                x = x ^ t ^ (t << uint64(7))
                t = (x ^ (x >> uint64(14))) & uint64(0x0000CCCC0000CCCC)
                x = x ^ t ^ (t << uint64(14))
                t = (x ^ (x >> uint64(28))) & uint64(0x00000000F0F0F0F0)
                plane[k] = x ^ t ^ (t << uint64(28))
            for bit in range(8):
                first = 2 * at + (8 * half + bit) * count
                target = out[first : first + count]
                for k in range(count):
                    target[k] = np.uint8(plane[k] >> uint64(8 * bit))
        at += 8 * count
    for i in range(whole, values.size):
        out[2 * i] = np.uint8(values[i] & uint16(255))
        out[2 * i + 1] = np.uint8(values[i] >> uint16(8))
