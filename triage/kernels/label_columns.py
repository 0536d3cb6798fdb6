"""Regions of a range of finished columns: the streaming component search on its own."""

from numba import int64, njit, types, uint8, uint16

from triage.kernels.add_runs import add_runs
from triage.kernels.arrays import ro, rw
from triage.kernels.compact_labels import compact_labels
from triage.kernels.find_runs import find_runs
from triage.kernels.join_runs import join_runs

#: Tally: labels in use, runs refused because the table was full, runs in the last column, which half of `runs` holds
#: them, labels left by the last compaction, runs of the first column that another strip may continue, labels that may
#: be in use before small closed regions are looked for (0: all that there is room for).
LABELS, REFUSED, LAST_RUNS, LAST_HALF, COMPACTED, SEAM_RUNS, ROOM = range(7)


@njit(
    types.void(
        ro(uint8, 2),
        ro(uint16, 2),
        ro(uint8, 2),
        int64,
        int64,
        int64,
        rw(int64, 3),
        rw(int64, 2),
        rw(int64),
        rw(int64),
        rw(int64, 2),
        rw(int64),
    ),
    nogil=True,
    cache=True,
)
def label_columns(z, q, material, first_column, threshold, min_area, runs, seam_runs, parent, fresh, table, tally):
    """Add the regions of z >= threshold, 8-connected, of consecutive columns to a region table.

    z, q, material : (columns, channels) uint8, uint16, uint8
    first_column : index of the first one in the image
    min_area : closed regions below this may leave the table when it is full
    runs : (2, channels // 2 + 1, 3) int64, runs of the last two columns; kept between calls
    seam_runs : (>= tally[SEAM_RUNS], 3) int64 in and out, runs whose regions must stay
    parent, table : (labels,) and (labels, FEATURES) int64, as in join_runs; kept between calls
    fresh : (labels,) int64, working memory
    tally : (7,) int64 in and out, kept between calls, see above

    A table that stays more than half full when the small closed regions have left it is given twice the room, as far as
    the memory goes: that is address space, which takes no memory before it is written.
    """
    size = parent.size
    room = min(tally[ROOM], size) if tally[ROOM] > 0 else size
    for c in range(z.shape[0]):
        half = 1 - tally[LAST_HALF]
        n = find_runs(z[c], threshold, runs[half])
        if n > 0:
            # not again and again where nothing can be won: an eighth of the table must have been opened since
            if tally[LABELS] + n > room and 8 * (tally[LABELS] - tally[COMPACTED]) >= room:
                tally[LABELS] = compact_labels(
                    parent, table, tally[LABELS], min_area, runs[1 - half], tally[LAST_RUNS], seam_runs,
                    tally[SEAM_RUNS], fresh,
                )  # fmt: skip
                tally[COMPACTED] = tally[LABELS]
                if 2 * tally[LABELS] > room:
                    room = min(2 * room, size)
            while tally[LABELS] + n > room and room < size:
                room = min(2 * room, size)
            join_runs(runs[1 - half], tally[LAST_RUNS], runs[half], n, parent, table)
            tally[REFUSED] += add_runs(
                z[c], q[c], material[c], first_column + c, runs[half], n, parent, table, tally[LABELS : LABELS + 1]
            )
        tally[ROOM] = room
        tally[LAST_RUNS] = n
        tally[LAST_HALF] = half
