"""How unlike a patch is to the most alike of others at about its height."""

import numpy as np
from numba import float32, int32, int64, njit, void

from triage.kernels.arrays import ro, rw

#: References compared at a time: their distances stay in the first-level cache while dimensions are added up.
TILE = 1024
#: Squared distance where there is nothing to compare with.
NONE = np.float32(1e30)
# the bits of floats from 0 on are in the order of the floats, and a smallest integer is found in packed steps
_NONE_BITS = np.float32(1e30).view(np.int32)


@njit(
    void(ro(float32, 2), ro(int32, 2), ro(float32, 2), ro(int32, 2), ro(int64), int64, int64, rw(float32), rw(float32)),
    nogil=True,
    cache=True,
)
def nearest_patch(queries, query_at, references, reference_at, row_start, band, apart, sums, distance):
    """Write, per query, the smallest squared distance to a reference that is neither too far in height nor too near.

    queries : (n, dimensions) float32; query_at : (n, 2) int32, x and y
    references : (dimensions, m) float32; reference_at : (2, m) int32, x and y, ordered by y
    row_start : (rows + 1,) int64, index of the first reference from every y on, the last is m; 0 <= y < rows of all
    band : references more than this above or below are not compared
    apart : nor are those nearer than this in both x and y; 0 compares all
    sums : (TILE,) float32, working memory
    distance : (n,) float32 out; NONE where nothing was left to compare
    """
    dimensions = references.shape[0]
    rows = row_start.size - 1
    bits = sums.view(np.int32)
    for i in range(queries.shape[0]):
        x, y = query_at[i, 0], query_at[i, 1]
        first, end = row_start[max(0, y - band)], row_start[min(rows, y + band + 1)]
        best = _NONE_BITS
        for low in range(first, end, TILE):
            count = min(TILE, end - low)
            for j in range(count):
                sums[j] = np.float32(0.0)
            for k in range(dimensions):
                value = queries[i, k]
                row = references[k, low : low + count]
                for j in range(count):
                    difference = row[j] - value
                    sums[j] += difference * difference
            across, along = reference_at[0, low : low + count], reference_at[1, low : low + count]
            for j in range(count):
                near = (abs(across[j] - x) < apart) & (abs(along[j] - y) < apart)
                found = _NONE_BITS if near else bits[j]
                best = min(best, found)
        sums.view(np.int32)[0] = best
        distance[i] = sums[0]
