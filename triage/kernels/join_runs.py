"""Connect the runs of two neighbouring columns."""

from numba import int64, njit, types

from triage.kernels.arrays import rw

#: Columns of the region table. Boxes are half-open; SEED is the lowest channel in the region's first column.
AREA, COL0, COL1, CH0, CH1, SEED, SUM_COLUMN, SUM_CHANNEL, SUM_Q, MAX_Z, HISTOGRAM = range(11)
#: Classes of the material histogram; higher material codes count in the last one.
MATERIALS = 16
FEATURES = HISTOGRAM + MATERIALS


@njit(
    types.void(rw(int64, 2), int64, rw(int64, 2), int64, rw(int64), rw(int64, 2)),
    nogil=True,
    cache=True,
)
def join_runs(previous, n_previous, current, n_current, parent, table):
    """Give every run the label of the runs it touches in the previous column, diagonals included; unite labels.

    previous, current : (>= n, 3) int64, runs as find_runs writes them; label -1 = none yet
    parent : (labels,) int64 in and out, union-find forest: a root is its own parent, a parent is never younger
    table : (labels, FEATURES) int64 in and out, region features; united rows are merged into the root's row
    """
    i = 0
    for j in range(n_current):
        start, stop = current[j, 0], current[j, 1]
        # a previous run [a, b) touches [start, stop) when b >= start and a <= stop: equal ends are diagonal
        while i < n_previous and previous[i, 1] < start:
            i += 1
        k = i
        while k < n_previous and previous[k, 0] <= stop:
            root = previous[k, 2]
            own = current[j, 2]
            k += 1
            if root < 0:  # a run for which the table had no room
                continue
            while parent[root] != root:
                parent[root] = parent[parent[root]]
                root = parent[root]
            if own < 0:
                current[j, 2] = root
                continue
            while parent[own] != own:
                parent[own] = parent[parent[own]]
                own = parent[own]
            keep, drop = min(own, root), max(own, root)
            current[j, 2] = keep
            if keep == drop:
                continue
            parent[drop] = keep
            into, row = table[keep], table[drop]
            if row[COL0] < into[COL0] or (row[COL0] == into[COL0] and row[SEED] < into[SEED]):
                into[SEED] = row[SEED]
            into[COL0] = min(into[COL0], row[COL0])
            into[COL1] = max(into[COL1], row[COL1])
            into[CH0] = min(into[CH0], row[CH0])
            into[CH1] = max(into[CH1], row[CH1])
            into[MAX_Z] = max(into[MAX_Z], row[MAX_Z])
            into[AREA] += row[AREA]
            into[SUM_COLUMN] += row[SUM_COLUMN]
            into[SUM_CHANNEL] += row[SUM_CHANNEL]
            into[SUM_Q] += row[SUM_Q]
            for f in range(HISTOGRAM, FEATURES):
                into[f] += row[f]
