"""Which bytes equal the byte before them, as bits."""

import numpy as np
from numba import njit, types, uint8, uint64

from triage.kernels.arrays import ro, rw


@njit(types.void(ro(uint8), rw(uint64)), nogil=True, cache=True)
def repeat_bits(data, bits):
    """Set bit k of `bits` where data[k] == data[k - 1].

    data : (n,) uint8; of up to seven bytes beyond whole eights nothing is said: their bits are 0, as is bit 0
    bits : (m,) uint64 out, m at least n // 64 + 1; bits beyond n are 0

    Eight bytes at a time, all but the first: those that equal their predecessor are zero in the difference of the word
    and itself shifted by a byte. Source: zero bytes of a word, H. S. Warren, Hacker's Delight, section 6-1.
    """
    words = data[: data.size // 8 * 8].view(np.uint64)
    low, high = uint64(0x7F7F7F7F7F7F7F7F), uint64(0x0101010101010101)
    bits[words.size // 8 :] = 0
    masks = bits.view(np.uint8)
    before, here, out = words[: words.size - 1], words[1:], masks[1 : words.size]
    for k in range(here.size):
        x = here[k] ^ ((here[k] << uint64(8)) | (before[k] >> uint64(56)))
        x = (~((((x & low) + low) | x) >> uint64(7))) & high
        # the lowest bits of eight bytes move together into one
        x = x | (x >> uint64(7))
        x = x | (x >> uint64(14))
        x = x | (x >> uint64(28))
        out[k] = np.uint8(x & uint64(255))
    if words.size > 0:
        first = 0
        for k in range(1, 8):
            first |= (1 << k) if data[k] == data[k - 1] else 0
        masks[0] = np.uint8(first)
