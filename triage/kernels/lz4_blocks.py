"""Bytes compressed block by block as HDF5's bitshuffle-LZ4 filter stores them."""

import numpy as np
from numba import int64, njit, uint8, uint16, uint64

from triage.kernels.arrays import ro, rw
from triage.kernels.lz4_matches import lz4_matches
from triage.kernels.lz4_sequences import lz4_sequences


@njit(int64(ro(uint8), int64, ro(int64), rw(uint64, 2), rw(uint16), rw(uint16, 2), rw(uint8)), nogil=True, cache=True)
def lz4_blocks(data, block, distances, bits, table, matches, out):
    """Write each `block` bytes of `data` as their compressed size (4 bytes, big-endian) and an LZ4 block; return the
    length of all.

    data : (n,) uint8; a shorter last block is one, too
    block : at most 65,536
    distances, bits, table, matches : of `lz4_matches`; working memory of `lz4_matches` for `block` bytes
    out : (m,) uint8 out, m at least n + n // 255 + 20 for each block

    A library's compressor would be called block by block and take and leave the interpreter's lock 5000 times for a
    radiograph, which keeps two threads from working side by side.

    Source: bitshuffle, bshuf_compress_lz4.
    """
    at = 0
    for start in range(0, data.size, block):
        whole = data[start : min(start + block, data.size)]
        count = lz4_matches(whole, distances, bits, table, matches)
        length = lz4_sequences(whole, matches, count, out[at + 4 :])
        for k in range(4):
            out[at + k] = np.uint8((length >> (24 - 8 * k)) & 255)
        at += 4 + length
    return at
