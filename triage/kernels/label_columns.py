"""Regions of a range of finished columns: the streaming component search on its own."""

from numba import int64, njit, types, uint8, uint16

from triage.kernels.add_runs import add_runs
from triage.kernels.arrays import ro, rw
from triage.kernels.find_runs import find_runs
from triage.kernels.join_runs import join_runs


@njit(
    types.void(
        ro(uint8, 2), ro(uint16, 2), ro(uint8, 2), int64, int64, rw(int64, 3), rw(int64), rw(int64, 2), rw(int64)
    ),
    nogil=True,
    cache=True,
)
def label_columns(z, q, material, first_column, threshold, runs, parent, table, tally):
    """Add the regions of z >= threshold, 8-connected, of consecutive columns to a region table.

    z, q, material : (columns, channels) uint8, uint16, uint8
    first_column : index of the first one in the image
    runs : (2, channels // 2 + 1, 3) int64, runs of the last two columns; kept between calls
    parent, table : (labels,) and (labels, FEATURES) int64, as in join_runs; kept between calls
    tally : (4,) int64 in and out, kept between calls: labels in use, runs refused because the table was full,
        runs in the last column, which half of `runs` holds them
    """
    for c in range(z.shape[0]):
        half = 1 - tally[3]
        n = find_runs(z[c], threshold, runs[half])
        if n > 0:
            join_runs(runs[1 - half], tally[2], runs[half], n, parent, table)
            tally[1] += add_runs(z[c], q[c], material[c], first_column + c, runs[half], n, parent, table, tally[0:1])
        tally[2] = n
        tally[3] = half
