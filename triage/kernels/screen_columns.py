"""The whole screening of a range of columns in one pass: what keeps every intermediate in the cache."""

import numpy as np
from numba import boolean, float32, int32, int64, njit, types, uint8, uint16, uint32

from triage.kernels.arrays import ro, rw
from triage.kernels.box_integral import box_integral
from triage.kernels.box_z import box_z
from triage.kernels.bridge_channels import bridge_channels
from triage.kernels.label_columns import LAST_HALF, LAST_RUNS, SEAM_RUNS, label_columns
from triage.kernels.log_code import OFFSET
from triage.kernels.log_transmission import log_transmission
from triage.kernels.material_lookup import material_lookup
from triage.kernels.median3 import START, median3
from triage.kernels.prefetch import prefetch

#: Rows kept of the integral images: the largest box (63 columns) and the row before it. A power of two.
RING = 64
#: Column `tally` of label_columns, and own columns finished.
FINISHED = 7
#: A column is finished when this many more have come: the largest radius, and one for the median.
LAG = 32


@njit(
    types.void(
        ro(uint16, 2),  # raw_low
        ro(uint16, 2),  # raw_high
        boolean,  # two_energies
        ro(int64),  # source
        ro(float32),  # inv_air_low
        ro(float32),  # inv_air_high
        ro(float32, 2),  # dark
        ro(float32, 2),  # inv_gain
        ro(int32, 2),  # bridges
        ro(float32),  # weight
        ro(uint8, 4),  # material_tiles
        ro(int64),  # radii
        int64,  # threshold
        int64,  # min_area
        ro(int64),  # span
        rw(uint16, 2),  # q_low
        rw(uint16, 2),  # q_high
        rw(uint8, 2),  # material
        rw(uint8, 2),  # z
        ro(uint8),  # flags
        rw(uint16, 3),  # codes
        rw(uint16),  # spare
        rw(uint32),  # index
        rw(uint32, 2),  # columns_sum
        rw(uint32, 2),  # sums
        rw(uint32, 2),  # squares
        rw(int64, 3),  # runs
        rw(int64, 2),  # first_runs
        rw(int64),  # parent
        rw(int64),  # fresh
        rw(int64, 2),  # table
        rw(int64),  # tally
    ),
    nogil=True,
    cache=True,
)
def screen_columns(
    raw_low,
    raw_high,
    two_energies,
    source,
    inv_air_low,
    inv_air_high,
    dark,
    inv_gain,
    bridges,
    weight,
    material_tiles,
    radii,
    threshold,
    min_area,
    span,
    q_low,
    q_high,
    material,
    z,
    flags,
    codes,
    spare,
    index,
    columns_sum,
    sums,
    squares,
    runs,
    first_runs,
    parent,
    fresh,
    table,
    tally,
):
    """Feed columns and finish every column whose surroundings have come.

    A strip is fed its own columns and a halo of up to LAG columns on either side. Feeding may be cut into any number
    of calls: all that lasts between them is in codes, columns_sum, sums, squares, runs, parent, table and tally.

    raw_low, raw_high : (n, channels) uint16, detector counts; the same array twice for one energy
    source : (fed,) int64, for each fed column its row in raw, or -1: repeat the column before (no beam)
    inv_air_low, inv_air_high : (n,) float32, 1/air of every row of raw
    dark, inv_gain : (2, channels) float32
    bridges : (3, m) int32, bad channels, good ones below and above; weight : (m,) float32 (bridge_channels)
    material_tiles : (64, 64, 8, 8) uint8 (material_lookup), or (0, 0, 0, 0): material is left as it is, and must be 0
    radii : (3,) int64, box radii in rising order (box_z)
    threshold : of z, in its steps of 1/16
    min_area : closed regions below this many pixels may leave the table when it is full
    span : (7,) int64, in image columns: first fed ever, fed now from, fed now to, own from, own to, image's last
        column (or a number beyond any column while it is unknown), image column of row 0 of the outputs
    q_low, q_high, material, z : (rows, channels) out, own columns only; q after the median
    flags : (rows,) uint8, where not 0 the column's z and material are 0
    codes : (2, 4, >= START + channels + 1) uint16, ring of log codes before the median, rows as in median3
    spare : (channels,) uint16; index : (channels,) uint32; working memory
    columns_sum, sums, squares : (2, size), (RING, size), (RING, size) uint32 (box_integral)
    runs, parent, fresh, table : as in label_columns
    first_runs : (channels // 2 + 1, 3) int64 out, runs of the first own column, to join strips at their seams
    tally : (8,) int64 in and out, before the first call zero but for ROOM: seven as in label_columns, own columns
        finished
    """
    first_fed, fed_from, fed_to = span[0], span[1], span[2]
    own_from, own_to, last, out_row0 = span[3], span[4], span[5], span[6]
    margin = radii[2]
    has_table = two_energies and material_tiles.size > 0
    first_median = first_fed + 1 if first_fed > 0 else 0
    # one step more at the image's end, for the median of its last column
    for k in range(fed_from, fed_to + 1 if fed_to > last else fed_to):
        following = source[k + 1 - fed_from] if k + 1 < fed_to else -1
        if following >= 0:
            prefetch(raw_high[following].view(np.uint8))
            if two_energies:
                prefetch(raw_low[following].view(np.uint8))
        if k < fed_to:
            at = k & 3
            row = source[k - fed_from]
            for e in range(0 if two_energies else 1, 2):
                if row >= 0:
                    raw = raw_high[row] if e == 1 else raw_low[row]
                    inv_air = inv_air_high[row] if e == 1 else inv_air_low[row]
                    ring_row = codes[e, at]
                    own = ring_row[START : START + raw.size]
                    log_transmission(raw, dark[e], inv_gain[e], inv_air, own)
                    bridge_channels(raw, dark[e], inv_gain[e], inv_air, bridges[0], bridges[1], bridges[2], weight, own)
                    ring_row[START - 1], ring_row[START + raw.size] = own[0], own[raw.size - 1]
                elif k > first_fed:
                    codes[e, at] = codes[e, (k - 1) & 3]
                else:
                    codes[e, at] = np.uint16(OFFSET)

        # column k is here (or the image has ended): the median of the column before it can be taken
        m = k - 1
        if m < first_median:
            continue
        before, at, after = max(m - 1, 0) & 3, m & 3, min(m + 1, last) & 3
        high = spare
        if own_from <= m < own_to:
            o = m - out_row0
            high = q_high[o]
            if two_energies:
                median3(codes[0, before], codes[0, at], codes[0, after], q_low[o])
        median3(codes[1, before], codes[1, at], codes[1, after], high)
        if own_from <= m < own_to and has_table:
            if flags[m - out_row0] == 0:
                material_lookup(q_low[m - out_row0], high, material_tiles, index, material[m - out_row0])
            else:
                material[m - out_row0] = 0

        # rows of the integral images; the image's first and last column stand for those beyond the edge as well
        first_row = m - margin if m == 0 else m
        last_row = m + margin if m == last else m
        if m == first_median:
            columns_sum[:] = 0
            sums[(first_row - 1) & (RING - 1)] = 0
            squares[(first_row - 1) & (RING - 1)] = 0
        for i in range(first_row, last_row + 1):
            box_integral(high, margin, columns_sum, sums[i & (RING - 1)], squares[i & (RING - 1)])
            c = i - margin
            if c < own_from or c >= own_to:
                continue
            # the largest box around c is complete: finish column c
            o = c - out_row0
            if flags[o] == 0 and box_z(q_high[o], sums, squares, c, radii, z[o]) >= threshold:
                label_columns(
                    z[o : o + 1], q_high[o : o + 1], material[o : o + 1], c, threshold, min_area, runs, first_runs,
                    parent, fresh, table, tally[:FINISHED],
                )  # fmt: skip
            else:  # nothing in this column, and so nothing that the next one could join
                tally[LAST_RUNS] = 0
            if flags[o] != 0:
                z[o] = 0
            if c == own_from:
                tally[SEAM_RUNS] = tally[LAST_RUNS]
                first_runs[:] = runs[tally[LAST_HALF]]
            tally[FINISHED] += 1
