"""Material class of one column, from both energies."""

import numpy as np
from numba import njit, types, uint8, uint16, uint32

from triage.kernels.arrays import ro, rw


@njit(types.void(ro(uint16), ro(uint16), ro(uint8, 2), rw(uint32), rw(uint8)), nogil=True, cache=True)
def material_lookup(q_low, q_high, table, index, material):
    """Write table[q_low >> 3, q_high >> 3].

    q_low, q_high : (channels,) uint16, 12-bit log codes
    table : (512, 512) uint8, material classes; an index step is 1/64 of L
    index : (channels,) uint32, working memory
    material : (channels,) uint8 out
    """
    # the look-up itself cannot be a vector loop; what can be is kept out of it
    for h in range(index.size):
        index[h] = (np.uint32(q_low[h] >> np.uint16(3)) << np.uint32(9)) | np.uint32(q_high[h] >> np.uint16(3))
    flat = table.reshape(table.size)
    for h in range(material.size):
        material[h] = flat[index[h]]
