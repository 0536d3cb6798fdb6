"""Open regions for new runs and add every run of a column to its region."""

import numpy as np
from numba import int64, njit, uint8, uint16

from triage.kernels.arrays import ro, rw
from triage.kernels.join_runs import (
    AREA,
    CH0,
    CH1,
    COL0,
    COL1,
    FEATURES,
    HISTOGRAM,
    MATERIALS,
    MAX_Z,
    SEED,
    SUM_CHANNEL,
    SUM_COLUMN,
    SUM_Q,
)


@njit(
    int64(ro(uint8), ro(uint16), ro(uint8), int64, rw(int64, 2), int64, rw(int64), rw(int64, 2), rw(int64)),
    nogil=True,
    cache=True,
)
def add_runs(z, q, material, column, runs, n_runs, parent, table, labels):
    """Add a column's runs to the region table; return how many runs found the table full.

    z, q, material : (channels,) uint8, uint16, uint8
    column : index of the column in the image
    runs : (>= n_runs, 3) int64, labelled by join_runs; label -1 opens a region here
    parent, table : as in join_runs
    labels : (1,) int64 in and out, labels in use
    """
    refused = 0
    for j in range(n_runs):
        start, stop = runs[j, 0], runs[j, 1]
        root = runs[j, 2]
        if root < 0:
            if labels[0] >= parent.size:
                refused += 1
                continue
            root = labels[0]
            labels[0] += 1
            runs[j, 2] = root
            parent[root] = root
            row = table[root]
            for f in range(FEATURES):
                row[f] = 0
            row[COL0], row[COL1] = column, column + 1
            row[CH0], row[CH1] = start, stop
            row[SEED] = start
        while parent[root] != root:
            root = parent[root]
        row = table[root]
        row[COL1] = column + 1
        row[CH0] = min(row[CH0], start)
        row[CH1] = max(row[CH1], stop)
        length = stop - start
        row[AREA] += length
        row[SUM_COLUMN] += length * column
        row[SUM_CHANNEL] += length * (start + stop - 1) // 2
        for h in range(start, stop):
            row[SUM_Q] += np.int64(q[h])
            row[MAX_Z] = max(row[MAX_Z], np.int64(z[h]))
            row[HISTOGRAM + min(np.int64(material[h]), MATERIALS - 1)] += 1
    return refused
