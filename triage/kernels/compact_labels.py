"""Make room in the region table: closed regions that are too small to be told leave it."""

from numba import int64, njit

from triage.kernels.arrays import rw
from triage.kernels.join_runs import AREA, FEATURES


@njit(
    int64(rw(int64), rw(int64, 2), int64, int64, rw(int64, 2), int64, rw(int64, 2), int64, rw(int64)),
    nogil=True,
    cache=True,
)
def compact_labels(parent, table, labels, min_area, open_runs, n_open, seam_runs, n_seam, fresh):
    """Renumber the regions worth keeping from 0, in their old order; return how many there are.

    Kept are regions of at least min_area pixels, and those that can still grow: the ones of open_runs, the last
    column's, and of seam_runs, which another strip may continue.

    parent : (size,) int64 in and out, union-find forest, a parent never younger than its child; the first `labels`
        are in use
    table : (size, FEATURES) int64 in and out
    open_runs, seam_runs : (>= n, 3) int64 in and out; labels are replaced, -1 stays
    fresh : (size,) int64, working memory
    """
    for i in range(labels):
        parent[i] = parent[parent[i]]  # of an older one, which is a root or points to one by now
        fresh[i] = 0
    for j in range(n_open):
        if open_runs[j, 2] >= 0:
            fresh[parent[open_runs[j, 2]]] = 1
    for j in range(n_seam):
        if seam_runs[j, 2] >= 0:
            fresh[parent[seam_runs[j, 2]]] = 1
    kept = 0
    for i in range(labels):
        if parent[i] == i and (fresh[i] == 1 or table[i, AREA] >= min_area):
            fresh[i] = kept
            for f in range(FEATURES):
                table[kept, f] = table[i, f]
            kept += 1
    for j in range(n_open):
        if open_runs[j, 2] >= 0:
            open_runs[j, 2] = fresh[parent[open_runs[j, 2]]]
    for j in range(n_seam):
        if seam_runs[j, 2] >= 0:
            seam_runs[j, 2] = fresh[parent[seam_runs[j, 2]]]
    for i in range(kept):
        parent[i] = i
    return kept
