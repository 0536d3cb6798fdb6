"""A block of bytes written as LZ4 sequences."""

import numpy as np
from numba import int64, njit, uint8, uint16, uint64

from triage.kernels.arrays import ro, rw
from triage.kernels.eight_bytes import eight_bytes

MIN_MATCH = 4


@njit(int64(ro(uint8), ro(uint16, 2), int64, rw(uint8)), nogil=True, cache=True)
def lz4_sequences(data, matches, count, out):
    """Write the block without what its matches say; return the length.

    data : (n,) uint8, n at most 65,536
    matches : (m, 3) uint16, the first `count` of them: begin, length, offset; in order, apart from each other
    out : (k,) uint8 out, k at least n + n // 255 + 16; any of it may be written to

    No kernel with a loop is called and nothing is sliced in here: each would count references, which takes longer than
    to write a sequence.

    Source: LZ4 block format description, 2022-07-31.
    """
    one, eight, fifteen, sixteen, low = uint64(1), uint64(8), uint64(15), uint64(16), uint64(255)
    at, anchor, size, room = uint64(0), uint64(0), uint64(data.size), uint64(out.size)
    for index in range(count + 1):
        # the last sequence is literals only
        begin, more = size, uint64(0)
        if index < count:
            begin, more = uint64(matches[index, 0]), uint64(matches[index, 1]) - uint64(MIN_MATCH)
        literals = begin - anchor
        out[at] = np.uint8((min(literals, fifteen) << uint64(4)) | min(more, fifteen))
        at += one
        if literals >= fifteen:
            rest = literals - fifteen
            while rest >= low:
                out[at] = np.uint8(255)
                at += one
                rest -= low
            out[at] = np.uint8(rest)
            at += one
        if literals <= sixteen and at + sixteen <= room and anchor + sixteen <= size:
            # without a loop, and beyond the end: what is written there is written again
            first, second = eight_bytes(data, anchor), eight_bytes(data, anchor + eight)
            for k in range(8):
                out[at + uint64(k)] = np.uint8((first >> uint64(8 * k)) & low)
            for k in range(8):
                out[at + eight + uint64(k)] = np.uint8((second >> uint64(8 * k)) & low)
        else:
            for k in range(literals):
                out[at + k] = data[anchor + k]
        at += literals
        if index < count:
            offset = uint64(matches[index, 2])
            out[at] = np.uint8(offset & low)
            out[at + one] = np.uint8(offset >> eight)
            at += uint64(2)
            if more >= fifteen:
                rest = more - fifteen
                while rest >= low:
                    out[at] = np.uint8(255)
                    at += one
                    rest -= low
                out[at] = np.uint8(rest)
                at += one
            anchor = begin + more + uint64(MIN_MATCH)
    return int64(at)
