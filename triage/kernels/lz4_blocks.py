"""Bytes compressed block by block as HDF5's bitshuffle-LZ4 filter stores them."""

import numpy as np
from numba import int64, njit, uint8, uint16, uint32, uint64

from triage.kernels.arrays import ro, rw
from triage.kernels.four_bytes import four_bytes
from triage.kernels.lz4_length import lz4_length

#: LZ4 asks that a block's last 5 bytes are literals and that no match begins in its last 12.
LAST_LITERALS, NO_MATCH, MIN_MATCH = 5, 12, 4
#: Places that are remembered, by a hash of the four bytes there.
TABLE, HASH_SHIFT = 4096, 20
#: After 2**PATIENCE fruitless looks the steps between them begin to grow. LZ4's own 6 gains half a percent of size on
#: bit planes of detector noise and costs a tenth of the time.
PATIENCE = 5


@njit(int64(ro(uint8), int64, rw(uint16), rw(uint8)), nogil=True, cache=True)
def lz4_blocks(data, block, table, out):
    """Write each `block` bytes of `data` as their compressed size (4 bytes, big-endian) and an LZ4 block; return the
    length of all.

    data : (n,) uint8; a shorter last block is one, too
    block : at most 65,536
    table : (TABLE,) uint16, working memory
    out : (m,) uint8 out, m at least n + n // 255 + 20 for each block

    Greedy, as LZ4's own fast mode, and as small. A library's compressor would be called block by block and take and
    leave the interpreter's lock 5000 times for a radiograph, which keeps two threads from working side by side.

    Source: LZ4 block format description, 2022-07-31; bitshuffle, bshuf_compress_lz4.
    """
    one, eight = uint64(1), uint64(8)
    at, first, size = uint64(0), uint64(0), uint64(data.size)
    while first < size:
        end = min(first + uint64(block), size)
        begin = at
        at += uint64(4)
        table[:] = 0
        anchor, i, misses = first, first + one, uint64(1) << uint64(PATIENCE)
        searching = end - first > uint64(NO_MATCH)
        last = end - uint64(NO_MATCH) if searching else first
        stop = end - uint64(LAST_LITERALS) if searching else first
        ended = False
        while not ended:
            # literals [anchor, upto), then a match of `match` bytes from `offset` before; without one the block ends
            upto, match, offset = end, uint64(0), uint64(0)
            while searching and match == uint64(0) and i <= last:
                four = four_bytes(data, i)
                slot = uint32(uint64(four) * uint64(2654435761)) >> uint32(HASH_SHIFT)
                j = first + uint64(table[slot])
                table[slot] = np.uint16(i - first)
                if four_bytes(data, j) != four:
                    # the longer nothing was found, the larger the steps: noise is passed over
                    i += misses >> uint64(PATIENCE)
                    misses += one
                    continue
                offset, upto = i - j, i
                while upto > anchor and upto - offset > first and data[upto - one] == data[upto - offset - one]:
                    upto -= one
                i += uint64(MIN_MATCH)
                while i + eight <= stop and (
                    four_bytes(data, i) == four_bytes(data, i - offset)
                    and four_bytes(data, i + uint64(4)) == four_bytes(data, i - offset + uint64(4))
                ):
                    i += eight
                while i < stop and data[i] == data[i - offset]:
                    i += one
                match, misses = i - upto, uint64(1) << uint64(PATIENCE)
            ended = match == uint64(0)
            literals, more = upto - anchor, uint64(0) if ended else match - uint64(MIN_MATCH)
            out[at] = np.uint8((min(literals, uint64(15)) << uint64(4)) | min(more, uint64(15)))
            at += one
            at = lz4_length(out, at, literals)
            source, target = data[anchor:upto], out[at : at + literals]
            for k in range(literals):
                target[k] = source[k]
            at += literals
            if not ended:
                out[at] = np.uint8(offset & uint64(255))
                out[at + one] = np.uint8(offset >> eight)
                at = lz4_length(out, at + uint64(2), more)
            anchor = upto + match
        length = at - begin - uint64(4)
        for k in range(4):
            out[begin + uint64(k)] = np.uint8((length >> uint64(24 - 8 * k)) & uint64(255))
        first = end
    return int64(at)
