"""Where a block of bytes repeats itself: runs of equal bytes and what follows them."""

import numpy as np
from numba import int64, njit, uint8, uint16, uint64

from triage.kernels.arrays import ro, rw
from triage.kernels.eight_bytes import eight_bytes
from triage.kernels.repeat_bits import repeat_bits
from triage.kernels.trailing_zeros import trailing_zeros

#: LZ4 asks that a block's last 5 bytes are literals and that no match begins in its last 12.
LAST_LITERALS, NO_MATCH, MIN_MATCH = 5, 12, 4
#: Bytes that must be alike in a row to be a run.
RUN = 5
#: Runs are remembered by length up to this, and by the lowest bit of their byte: bit planes have runs of 0 and of 255.
LONGEST = 255
TABLE = 2 * (LONGEST + 1)


@njit(int64(ro(uint8), rw(uint64, 2), rw(uint16), rw(uint16, 2)), nogil=True, cache=True)
def lz4_matches(data, bits, table, matches):
    """Find what of a block need not be stored; return how many matches there are.

    data : (n,) uint8, n at most 65,536
    bits : (2, n // 64 + 2) uint64, working memory
    table : (TABLE,) uint16, working memory
    matches : (n // MIN_MATCH + 1, 3) uint16 out; where each begins, its length, and how far before it the same bytes are

    LZ4's own search looks up byte after byte in a table. Bit planes of counts are either noise, in which nothing is to
    be found, or runs, and where those begin is seen 64 bytes at a time. A run as long as one before it is a match with
    that one, as a rule with some bytes more on either side; any other repeats its own first byte.

    Source: LZ4 block format description, 2022-07-31, for what may be a match.
    """
    one, none, size = uint64(1), uint64(0), uint64(data.size)
    if size <= uint64(NO_MATCH):
        return int64(0)
    last, stop = size - uint64(NO_MATCH), size - uint64(LAST_LITERALS)
    words = size // uint64(64) + one
    alike, begins = bits[0, :words], bits[1, : words + one]
    repeat_bits(data, alike)
    for m in range(words - one):
        # bit k: this byte and the next three equal the one before them
        a, b = alike[m], alike[m + 1]
        a = a & ((a >> one) | (b << uint64(63)))
        begins[m] = a & ((alike[m] >> uint64(2)) | (b << uint64(62))) & ((alike[m] >> uint64(3)) | (b << uint64(61)))
    a = alike[words - one]
    begins[words - one] = a & (a >> one) & (a >> uint64(2)) & (a >> uint64(3))
    begins[words] = one  # behind all: ends the search
    table[:] = 0
    count, anchor, i = 0, none, none
    while True:
        word, bit = (i + one) >> uint64(6), (i + one) & uint64(63)
        found = (begins[word] >> bit) << bit
        while found == none:
            word += one
            found = begins[word]
        second = (word << uint64(6)) + trailing_zeros(found)
        first = second - one
        if first >= last:
            break
        behind = first + uint64(RUN)
        word, bit = behind >> uint64(6), behind & uint64(63)
        differ = (~alike[word] >> bit) << bit
        while differ == none:
            word += one
            differ = ~alike[word]
        behind = min((word << uint64(6)) + trailing_zeros(differ), stop)
        length = min(behind - first, uint64(LONGEST))
        slot = (uint64(data[first] & uint8(1)) << uint64(8)) | length
        known, table[slot] = uint64(table[slot]), np.uint16(second)
        begin, offset, i = second, one, behind
        if known > none and data[known - one] == data[first]:
            begin, offset, i = first, second - known, first + length
            differ = none
            while differ == none and i + uint64(8) <= stop:
                differ = eight_bytes(data, i) ^ eight_bytes(data, i - offset)
                i += trailing_zeros(differ) >> uint64(3)
            while differ == none and i < stop and data[i] == data[i - offset]:
                i += one
            while begin > anchor and begin > offset and data[begin - one] == data[begin - offset - one]:
                begin -= one
        matches[count, 0], matches[count, 1], matches[count, 2] = begin, i - begin, offset
        count += 1
        anchor = i
    return int64(count)
