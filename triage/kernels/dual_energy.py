"""Areal density and material classes of a strip of columns, from both energies."""

import numpy as np
from numba import float32, njit, types, uint8, uint16, uint32

from triage.kernels.arrays import ro, rw


@njit(
    types.void(
        ro(uint16, 2), ro(uint16, 2), ro(uint32), ro(float32, 3), ro(uint8, 3), ro(float32),
        rw(uint32, 2), rw(float32, 2), rw(float32, 2), rw(uint8, 2),
    ),
    nogil=True,
    cache=True,
    error_model="numpy",  # a division checked for zero is no vector instruction
)  # fmt: skip
def dual_energy(q_low, q_high, zone, densities, classes, grid, index, weight, density, material):
    """Look pixels up in tables over L_high and the ratio L_low / L_high.

    q_low, q_high : (columns, channels) uint16, 12-bit log codes, round(512 L) + 128
    zone : (channels,) uint32, the table each channel uses
    densities : (zones, n, m) float32, g/cm²; node (i, j) is at L_high = i / grid[0], ratio = grid[1] + j / grid[2];
        taken linear between nodes
    classes : (zones, n, m) uint8, the set of material classes that a node cannot rule out; the nearest node's is taken
    grid : (4,) float32, nodes per unit of L_high, lowest ratio, nodes per unit of the ratio, and the least L_high by
        which L_low is divided, above 0
    index, weight : (2, channels) uint32 and float32, working memory
    density : (columns, channels) float32 out
    material : (columns, channels) uint8 out
    """
    step, half, nothing = np.float32(1.0 / 512.0), np.float32(0.5), np.float32(0.0)
    per_alpha, first, per_ratio, least = grid[0], grid[1], grid[2], grid[3]
    rows, width = np.uint32(densities.shape[1]), np.uint32(densities.shape[2])
    last_u, last_v = np.float32(rows) - np.float32(1.001), np.float32(width) - np.float32(1.001)
    flat, sets = densities.reshape(densities.size), classes.reshape(classes.size)
    node, near, du, dv = index[0], index[1], weight[0], weight[1]
    one = np.uint32(1)
    for x in range(q_low.shape[0]):
        lows, highs, grams, told = q_low[x], q_high[x], density[x], material[x]
        # the look-up itself cannot be a vector loop; what can be is kept out of it
        for h in range(zone.size):
            high = np.float32(np.int32(highs[h]) - np.int32(128)) * step
            low = np.float32(np.int32(lows[h]) - np.int32(128)) * step
            u = min(max(high * per_alpha, nothing), last_u)
            v = min(max((low / max(high, least) - first) * per_ratio, nothing), last_v)
            i, j = np.int32(u), np.int32(v)
            du[h] = u - np.float32(i)
            dv[h] = v - np.float32(j)
            node[h] = (zone[h] * rows + np.uint32(i)) * width + np.uint32(j)
            i, j = np.int32(u + half), np.int32(v + half)
            near[h] = (zone[h] * rows + np.uint32(i)) * width + np.uint32(j)
        for h in range(zone.size):
            at = node[h]
            a, b, c, d = flat[at], flat[at + one], flat[at + width], flat[at + width + one]
            low_side, high_side = a + (b - a) * dv[h], c + (d - c) * dv[h]
            grams[h] = low_side + (high_side - low_side) * du[h]
            told[h] = sets[near[h]]
