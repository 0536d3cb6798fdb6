"""The regions worth telling, out of the region table."""

import numpy as np
from numba import int64, njit

from triage.kernels.arrays import ro, rw
from triage.kernels.box_z import Z_STEPS
from triage.kernels.join_runs import (
    AREA,
    CH0,
    CH1,
    COL0,
    COL1,
    HISTOGRAM,
    MATERIALS,
    MAX_Z,
    SUM_CHANNEL,
    SUM_COLUMN,
    SUM_Q,
)
from triage.kernels.log_code import OFFSET, STEPS

#: Words of a region: area, box, then as float64 centroid, sum of L and largest score, then the histogram.
WORDS = 9 + MATERIALS


@njit(
    int64(ro(int64), ro(int64, 2), int64, int64, int64, int64, rw(int64, 2)),
    nogil=True,
    cache=True,
)
def list_regions(parent, table, first, stop, min_area, count, rows):
    """Write the regions of at least min_area pixels, in the order in which they began; return how many there are now.

    parent, table : as in join_runs; looked at are the labels [first, stop)
    count : regions written before; the next one is row `count`
    rows : (n, WORDS) int64 out; what does not fit is counted, not written
    """
    for i in range(first, stop):
        # a root is the oldest label of its region: rising labels are rising first columns, and channels in those
        if parent[i] != i or table[i, AREA] < min_area:
            continue
        if count < rows.shape[0]:
            found, row = table[i], rows[count]
            area = np.float64(found[AREA])
            row[0], row[1], row[2], row[3], row[4] = found[AREA], found[COL0], found[COL1], found[CH0], found[CH1]
            row[5] = np.float64(found[SUM_COLUMN] / area).view(np.int64)
            row[6] = np.float64(found[SUM_CHANNEL] / area).view(np.int64)
            row[7] = np.float64((found[SUM_Q] - OFFSET * found[AREA]) / STEPS).view(np.int64)
            row[8] = np.float64(found[MAX_Z] / Z_STEPS).view(np.int64)
            for m in range(MATERIALS):
                row[9 + m] = found[HISTOGRAM + m]
        count += 1
    return count
