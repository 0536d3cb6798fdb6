"""Checksum of a chunk as HDF5's Fletcher32 filter stores it."""

import numpy as np
from numba import njit, uint8, uint32, uint64

from triage.kernels.arrays import ro

LANES, STEPS = 64, 256
"""Lanes are summed side by side; after 256 steps a 32-bit sum of sums of 16-bit words is still exact."""


@njit(uint32(ro(uint8)), nogil=True, cache=True)
def fletcher32(data):
    """Return the checksum of `data`, (n,) uint8.

    Source: HDF5, H5_checksum_fletcher32: sums modulo 65535 of big-endian 16-bit words and of their running sums, an
    odd last byte being the high half of a word; a sum that is a multiple of 65535 reads 65535, and 0 only if all is 0.

    Words are read little-endian here: modulo 65535 an exchange of bytes is a multiplication by 256, done at the end.
    """
    words = data[: data.size // 2 * 2].view(np.uint16)
    total, weighted = uint64(0), uint64(0)
    lanes, running = np.zeros(LANES, np.uint32), np.zeros(LANES, np.uint32)
    at = 0
    while at + LANES * STEPS <= words.size:
        lanes[:] = 0
        running[:] = 0
        for step in range(STEPS):
            row = words[at + step * LANES : at + step * LANES + LANES]
            for lane in range(LANES):
                lanes[lane] += row[lane]
                running[lane] += lanes[lane]
        part, part_weighted = uint64(0), uint64(0)
        for lane in range(LANES):
            part += uint64(lanes[lane])
            # the word of this lane and step has LANES * (STEPS - step) - lane words from itself to the end
            part_weighted += uint64(running[lane]) * uint64(LANES) - uint64(lanes[lane]) * uint64(lane)
        weighted = (weighted + total * uint64(LANES * STEPS) + part_weighted) % uint64(65535)
        total = (total + part) % uint64(65535)
        if total == 0 and part > 0:
            total = uint64(65535)
        if weighted == 0 and part_weighted > 0:
            weighted = uint64(65535)
        at += LANES * STEPS
    for i in range(at, words.size + data.size % 2):
        word = uint64(words[i]) if i < words.size else uint64(data[data.size - 1])
        total += word
        total = total - uint64(65535) if total > uint64(65535) else total
        weighted += total
        weighted = weighted - uint64(65535) if weighted > uint64(65535) else weighted
    total = uint64(0) if total == 0 else (total * uint64(256) - uint64(1)) % uint64(65535) + uint64(1)
    weighted = uint64(0) if weighted == 0 else (weighted * uint64(256) - uint64(1)) % uint64(65535) + uint64(1)
    return uint32((weighted << uint64(16)) | total)
