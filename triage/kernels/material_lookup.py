"""Material class of one column, from both energies."""

import numpy as np
from numba import njit, types, uint8, uint16, uint32

from triage.kernels.arrays import ro, rw

_B1, _B2, _B3, _B4, _B5, _B6, _B7 = (np.uint64(8 * i) for i in range(1, 8))


@njit(types.void(ro(uint16), ro(uint16), ro(uint8, 4), rw(uint32), rw(uint8)), nogil=True, cache=True)
def material_lookup(q_low, q_high, tiles, index, material):
    """Write the class of bins q_low >> 3, q_high >> 3.

    q_low, q_high : (channels,) uint16, 12-bit log codes
    tiles : (64, 64, 8, 8) uint8, material classes of 512 x 512 bins, 1/64 of L each; element [a, b, c, d] is that of
        bins 8 a + c, 8 b + d. Both energies see the same thing, so a column's bins lie along the diagonal: a tile is a
        cache line, and a quarter as many are touched as of rows of 512
    index : (channels,) uint32, working memory
    material : (channels,) uint8 out
    """
    n = material.size
    # the look-up itself cannot be a vector loop; what can be is kept out of it
    for h in range(n):
        low, high = np.uint32(q_low[h]), np.uint32(q_high[h])
        tile = ((low >> np.uint32(6)) << np.uint32(6)) | (high >> np.uint32(6))
        index[h] = (tile << np.uint32(6)) | (low & np.uint32(56)) | ((high >> np.uint32(3)) & np.uint32(7))
    flat = tiles.reshape(tiles.size)
    whole = n & ~7
    words = material[:whole].view(np.uint64)
    i = 0
    for k in range(words.size):  # one store for eight classes
        words[k] = (
            np.uint64(flat[index[i]])
            | (np.uint64(flat[index[i + 1]]) << _B1)
            | (np.uint64(flat[index[i + 2]]) << _B2)
            | (np.uint64(flat[index[i + 3]]) << _B3)
            | (np.uint64(flat[index[i + 4]]) << _B4)
            | (np.uint64(flat[index[i + 5]]) << _B5)
            | (np.uint64(flat[index[i + 6]]) << _B6)
            | (np.uint64(flat[index[i + 7]]) << _B7)
        )
        i += 8
    for h in range(whole, n):
        material[h] = flat[index[h]]
