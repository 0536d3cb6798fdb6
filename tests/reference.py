"""Plain numpy twins of the kernels, written from the formulas in float64: slow, obvious, and independent of them.

A twin takes the arguments of its kernel without the outputs and working memory, and returns what the kernel writes.
"""

import numpy as np
from scipy import ndimage

T_MIN, T_MAX = np.exp(-7.6), np.exp(0.24)
FEATURE_NAMES = ("area", "col0", "col1", "ch0", "ch1", "seed", "sum_column", "sum_channel", "sum_q", "max_z")


def air_level(raw, dark, inv_gain, bad, first, stop, saturation_value, min_air):
    columns = raw.shape[0]
    inv_air, flags = np.zeros(columns), np.zeros(columns, np.uint8)
    if stop <= first:
        return np.ones(columns), flags
    used = np.flatnonzero(bad[first:stop] == 0) + first
    for c in range(columns):
        if len(used) == 0:
            flags[c] = 1
            continue
        mean = np.mean((raw[c, used].astype(float) - dark[used]) * inv_gain[used])
        if not np.isfinite(mean) or mean <= min_air:
            flags[c] = 1
        elif np.mean(raw[c, used] >= saturation_value) >= 0.5:
            flags[c] = 2
        else:
            inv_air[c] = 1 / mean
    return inv_air, flags


def add_any_order(a, b):
    return a + b


def fma(a, b, c):
    return float(a) * float(b) + float(c)


def log_code(t):
    t = np.nan_to_num(np.asarray(t, float), nan=T_MIN)
    return np.floor(512 * -np.log(np.clip(t, T_MIN, T_MAX)) + 128 + 0.5).astype(np.uint16)


def transmission(raw, dark, inv_gain, inv_air):
    return (raw.astype(float) - dark) * inv_gain * inv_air


def log_transmission(raw, dark, inv_gain, inv_air):
    return log_code(transmission(raw, dark, inv_gain, inv_air))


def bridged(t, bad):
    """t : (..., channels); interpolate over channels where bad, edges repeat the nearest good one."""
    good = np.flatnonzero(~np.asarray(bad, bool))
    every = np.arange(t.shape[-1])
    return np.apply_along_axis(lambda row: np.interp(every, good, row[good]), -1, t)


def bridge_channels(raw, dark, inv_gain, inv_air, bad, below, above, weight, q):
    t = transmission(raw, dark, inv_gain, inv_air)
    out = q.copy()
    for i, h in enumerate(bad):
        out[h] = log_code((1 - float(weight[i])) * t[below[i]] + float(weight[i]) * t[above[i]])
    return out


def median3(previous, column, following):
    return ndimage.median_filter(np.stack([previous, column, following]), size=3, mode="nearest")[1]


def material_lookup(q_low, q_high, table):
    return table[q_low.astype(int) // 8, q_high.astype(int) // 8]


def dual_energy(q_low, q_high, zone, densities, classes, grid):
    """Bilinear areal density and the nearest node's set of classes.

    Places in the table are in float32 as in the kernel, or a pixel midway between two nodes could have either's set.
    """
    per_alpha, first, per_ratio, least = grid
    low, high = ((q.astype(np.float32) - np.float32(128)) / np.float32(512) for q in (q_low, q_high))
    ends = (np.float32(n) - np.float32(1.001) for n in densities.shape[1:])
    ratio = low / np.maximum(high, least)
    u, v = (np.clip(x, 0, end) for x, end in zip((high * per_alpha, (ratio - first) * per_ratio), ends, strict=True))
    i, j, tables = u.astype(int), v.astype(int), np.broadcast_to(zone.astype(int), u.shape)
    du, dv = u.astype(float) - i, v.astype(float) - j
    corners = [[densities[tables, i + a, j + b].astype(float) for b in (0, 1)] for a in (0, 1)]
    rows = [left * (1 - dv) + right * dv for left, right in corners]
    half = np.float32(0.5)
    return rows[0] * (1 - du) + rows[1] * du, classes[tables, (u + half).astype(int), (v + half).astype(int)]


def on_one_grid(before, image, share):
    earlier = np.concatenate((before[np.newaxis], image[:-1])).astype(int)
    return (image.astype(int) * (256 - share) + earlier * share + 128) // 256


def prefetch(row):
    return row  # only the time of the next reader changes


def prefix_sum(values):
    return np.array([int(total) % 2**32 for total in np.cumsum(values.astype(object))], np.int64)


def box_integral(columns, margin):
    """columns : (n, channels). Rows 1..n of the integral images of q and of floor(q**2 / 4), modulo 2**32."""
    padded = np.pad(columns, ((0, 0), (margin, margin)), mode="edge")
    images = []
    for image in (padded.astype(int), padded.astype(int) ** 2 // 4):
        images.append(np.pad(image.cumsum(axis=0).cumsum(axis=1), ((0, 0), (1, 0))) % 2**32)
    return tuple(images)


def box_fraction(box, q):
    """box : (n,) codes, one of them q."""
    L = box / 512
    return z_of(q / 512, L.mean(), L.var()) ** 2


def box_z(columns, column, radii):
    """columns : (n, channels). Scores of one column that has all its boxes' columns."""
    z = np.zeros(columns.shape[1])
    L = columns / 512
    for r in radii:
        padded = np.pad(L, ((0, 0), (r, r)), mode="edge")[column - r : column + r + 1]
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * r + 1, axis=1)
        mean, variance = windows.mean(axis=(0, 2)), windows.var(axis=(0, 2))
        z = np.maximum(z, z_of(L[column], mean, variance))
    return np.minimum(np.floor(16 * z), 255).astype(np.uint8)


def z_of(value, mean, variance):
    return np.abs(value - mean) / np.sqrt(variance + 0.02**2)


def find_runs(z, threshold):
    padded = np.concatenate(([0], z >= threshold, [0])).astype(int)
    step = np.diff(padded)
    return np.column_stack((np.flatnonzero(step == 1), np.flatnonzero(step == -1)))


def label(mask):
    """8-connected labels, 1.. in order of first appearance along columns then channels."""
    return ndimage.label(mask, structure=np.ones((3, 3), int))


def compact_labels(parent, table, min_area, open_runs, seam_runs):
    """Return the rows that stay, and the new labels of both lists of runs."""
    roots = roots_of(parent)
    touched = {roots[i] for i in (*open_runs[:, 2], *seam_runs[:, 2]) if i >= 0}
    kept = [i for i in range(len(parent)) if roots[i] == i and (i in touched or table[i, 0] >= min_area)]
    fresh = [np.array([kept.index(roots[i]) if i >= 0 else -1 for i in r[:, 2]], int) for r in (open_runs, seam_runs)]
    return table[kept], *fresh


def label_columns(z, q, material, first_column, threshold, min_area, size=None):
    """Return the features of every region of min_area pixels, as rows of (FEATURE_NAMES, 16 histogram classes), sorted.

    size : of the kernel's table; no effect on the regions
    """
    labels, count = label(z >= threshold)
    rows = []
    for i in range(1, count + 1):
        c, h = np.nonzero(labels == i)
        if len(c) < min_area:
            continue
        rows.append(
            [
                len(c),
                first_column + c.min(),
                first_column + c.max() + 1,
                h.min(),
                h.max() + 1,
                h[c == c.min()].min(),
                (first_column + c).sum(),
                h.sum(),
                q[c, h].astype(int).sum(),
                z[c, h].max(),
                *np.bincount(np.minimum(material[c, h], 15), minlength=16),
            ]
        )
    return np.array(sorted(rows, key=lambda row: (row[1], row[5])), np.int64).reshape(-1, 26)


def list_regions(parent, table, first, stop, min_area, count):
    """Rows from `count` on: area, box, centroid, sum of L, largest score, histogram; and how many there are."""
    rows = [table[i] for i in range(first, stop) if parent[i] == i and table[i, 0] >= min_area]
    told = [[*r[:5], r[6] / r[0], r[7] / r[0], (r[8] - 128 * r[0]) / 512, r[9] / 16, *r[10:]] for r in rows]
    return np.array(told, float).reshape(-1, 25), count + len(rows)


def sliding_mean(image, size):
    """Mean over (size, size) boxes, edges replicated, in float64."""
    return ndimage.uniform_filter(image, size=size, mode="nearest")


def box_scores(L):
    """L : (columns, channels) float64; the largest deviation from the boxes of 7, 21 and 63."""
    z = np.zeros_like(L)
    for size in (7, 21, 63):
        mean = sliding_mean(L, size)
        variance = np.maximum(sliding_mean(L * L, size) - mean * mean, 0)
        z = np.maximum(z, z_of(L, mean, variance))
    return z


def screen(counts, calibration, material_table=None, threshold_z=4.0, min_area=5):
    """The reference pipeline in float64, nothing quantised.

    Returns a dict: L per energy, z, mask, material, flags, labels, regions (list of dicts).
    """
    flags = np.zeros(counts[0].shape[0], np.uint8)
    first, last = calibration.air_channels or (0, -1)
    bad = calibration.bad_channels
    ts = []
    for raw, dark, inv_gain in zip(counts, calibration.dark, calibration.inv_gain, strict=True):
        inv_air, f = air_level(
            raw, dark, inv_gain, bad, first, last + 1, calibration.saturation_value, calibration.min_air
        )
        flags |= f
        ts.append(bridged((raw.astype(float) - dark) * inv_gain * inv_air[:, None], bad))
    good = np.flatnonzero(flags == 0)
    Ls = []
    for t in ts:
        L = -np.log(np.clip(t, T_MIN, T_MAX))
        if len(good):
            shown = [good[good <= c].max() if (good <= c).any() else good[0] for c in range(len(flags))]
            L = L[shown]
        else:
            L[:] = 0
        Ls.append(ndimage.median_filter(L, size=3, mode="nearest"))
    z = box_scores(Ls[-1])
    z[flags != 0] = 0
    material = np.zeros(z.shape, np.uint8)
    if material_table is not None and len(Ls) == 2:
        # codes are rounded, so that bin i of the table is L from (8 i - 128.5) / 512, 1/64 wide
        index = [np.clip(np.floor((L * 512 + 128.5) / 8), 0, 511).astype(int) for L in Ls]
        material = np.where(flags[:, None] == 0, material_table[index[0], index[1]], 0).astype(np.uint8)
    mask = z >= threshold_z
    labels, _ = label(mask)
    regions = []
    for i, where in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[where] == i
        if inside.sum() < min_area:
            continue
        c, h = np.nonzero(inside)
        c, h = c + where[0].start, h + where[1].start
        regions.append(
            {
                "area": len(c),
                "col0": c.min(),
                "col1": c.max() + 1,
                "ch0": h.min(),
                "ch1": h.max() + 1,
                "centroid_column": c.mean(),
                "centroid_channel": h.mean(),
                "sum_log": Ls[-1][c, h].sum(),
                "max_z": z[c, h].max(),
                "material": np.bincount(np.minimum(material[c, h], 15), minlength=16),
            }
        )
    return {
        "L": Ls,
        "z": z,
        "mask": mask,
        "material": material,
        "flags": flags,
        "labels": labels,
        "regions": regions,
    }


def roots_of(parent):
    """Return for every label the root it hangs on."""
    return np.array([_root(parent, i) for i in range(len(parent))], int)


def _root(parent, i):
    while parent[i] != i:
        i = parent[i]
    return i


def touching(one, other):
    """Two runs (start, stop) of neighbouring columns share a pixel edge or corner."""
    return one[0] <= other[1] and other[0] <= one[1]


def merged(rows):
    """Features of one region from those of its parts."""
    rows = np.array(rows)
    first = rows[np.lexsort((rows[:, 5], rows[:, 1]))][0]
    low, high, add = rows.min(axis=0), rows.max(axis=0), rows.sum(axis=0)
    names = list(FEATURE_NAMES)
    out = add.copy()
    for name, source in (("col0", low), ("ch0", low), ("col1", high), ("ch1", high), ("max_z", high), ("seed", first)):
        out[names.index(name)] = source[names.index(name)]
    return out


def join_runs(previous, current, table):
    """Labels 0..n-1 are separate before. Return the root of each label, of each current run (-1: none), and rows."""
    groups = [{i} for i in range(len(table))]
    found = []
    for start, stop, label_now in current:
        near = {int(run[2]) for run in previous if run[2] >= 0 and touching((start, stop), run)}
        near |= {int(label_now)} - {-1}
        if near:
            union = set().union(*(g for g in groups if g & near))
            groups = [g for g in groups if not g & near] + [union]
        found.append(near)
    root = {i: min(group) for group in groups for i in group}
    rows = {min(group): merged([table[i] for i in group]) for group in groups}
    return [root[i] for i in range(len(table))], [root[min(n)] if n else -1 for n in found], rows


def add_runs(z, q, material, column, runs, rows, capacity):
    """rows : features so far, by label. Return all rows, the label of every run and the number refused."""
    rows, labels, refused = [list(row) for row in rows], [], 0
    for start, stop, label_now in runs:
        inside = np.arange(start, stop)
        part = [
            len(inside),
            column,
            column + 1,
            start,
            stop,
            start,
            column * len(inside),
            inside.sum(),
            q[inside].astype(int).sum(),
            z[inside].max(),
            *np.bincount(np.minimum(material[inside], 15), minlength=16),
        ]
        if label_now >= 0:
            rows[label_now] = list(merged([rows[label_now], part]))
        elif len(rows) < capacity:
            label_now = len(rows)
            rows.append(part)
        else:
            refused += 1
        labels.append(label_now)
    return rows, labels, refused


def screen_columns(counts, inv_airs, dark, inv_gain, bad, source, flags, table, radii):
    """The fused pass as a chain of the twins: codes after the median per energy, material and z."""
    codes = []
    for e, raw in enumerate(counts):
        t = np.array([transmission(raw[c], dark[e], inv_gain[e], inv_airs[e][c]) for c in source])
        codes.append(ndimage.median_filter(log_code(bridged(t, bad)), size=3, mode="nearest"))
    material = np.zeros(codes[0].shape, np.uint8)
    if len(codes) == 2:
        material = np.where(flags[:, None] == 0, material_lookup(codes[0], codes[1], table), 0)
    L = (codes[-1].astype(float) - 128) / 512
    z = np.zeros(L.shape)
    for r in radii:
        padded = np.pad(L, r, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * r + 1, 2 * r + 1))
        z = np.maximum(z, z_of(L, windows.mean(axis=(2, 3)), windows.var(axis=(2, 3))))
    z = np.where(flags[:, None] == 0, np.minimum(np.floor(16 * z), 255), 0)
    return codes, material, z.astype(np.uint8)


def fletcher32(data):
    """HDF5's loop, word by word."""
    padded = np.concatenate((data, np.zeros(data.size % 2, np.uint8)))
    words = padded[0::2].astype(np.uint64) * 256 + padded[1::2]
    first = second = 0
    for word in words.tolist():
        first += word
        second += first
        first = (first & 0xFFFF) + (first >> 16)
        second = (second & 0xFFFF) + (second >> 16)
    first, second = ((s & 0xFFFF) + (s >> 16) for s in (first, second))
    return (second << 16) | first


def bitshuffle16(values):
    parts, whole = [], values.size // 8 * 8
    for at in range(0, whole, 4096):
        block = values[at : min(at + 4096, whole)]
        parts += [np.packbits((block >> bit) & 1, bitorder="little") for bit in range(16)]
    return np.concatenate([*parts, values[whole:].astype("<u2").view(np.uint8)]).astype(np.uint8)


def eight_bytes(data, at):
    return int.from_bytes(data[at : at + 8].tobytes(), "little")


def trailing_zeros(word):
    return next((bit for bit in range(64) if word >> bit & 1), 64)


def repeat_bits(data):
    alike = np.zeros((data.size // 64 + 1) * 64, bool)
    alike[1 : data.size] = data[1:] == data[:-1]
    alike[data.size // 8 * 8 :] = False
    return np.packbits(alike, bitorder="little").view(np.uint64)


def nearest_patch(queries, query_at, references, reference_at, row_start, band, apart):
    found = []
    for q, (x, y) in zip(queries.astype(float), query_at, strict=True):
        across, along = reference_at
        near = (abs(across - x) < apart) & (abs(along - y) < apart)
        used = (abs(along - y) <= band) & ~near
        found.append(((references.T[used] - q) ** 2).sum(axis=1).min(initial=1e30))
    return np.array(found)


def tree_sum(features, feature, threshold, right, value, root, total):
    """A cell reaches a leaf along the path whose every step it takes: each node hands the cells it has on."""
    total = total.astype(float)
    for first in root:
        here = {int(first): np.ones(len(features), bool)}
        while here:
            node, cells = here.popitem()
            if feature[node] < 0:
                total[cells] += value[node]
            else:
                left = features[:, feature[node]] <= threshold[node]
                here |= {node + 1: cells & left, int(right[node]): cells & ~left}
    return total


def lz4_matches(data, distances):
    """What matches say is what is there, and no run of 16 is overlooked: (data, bytes in no match of such runs)."""
    return data, 0


def lz4_sequences(data, matches):
    """One sequence per match, and the literals behind the last one."""
    out, anchor = bytearray(), 0
    for begin, length, offset in [*matches.tolist(), (data.size, 4, None)]:
        literals, more = begin - anchor, length - 4
        out.append(min(literals, 15) << 4 | min(more, 15))
        out += _lz4_rest(literals) + data[anchor:begin].tobytes()
        if offset is not None:
            out += offset.to_bytes(2, "little") + _lz4_rest(more)
        anchor = begin + length
    return np.frombuffer(bytes(out), np.uint8)


def _lz4_rest(length):
    return bytes([255] * ((length - 15) // 255) + [(length - 15) % 255]) if length >= 15 else b""


def lz4_blocks(data, block, distances):
    """What goes in comes out."""
    return data


def lz4_blocks_read(stored, size, block):
    """Decode blocks of `block` bytes as the LZ4 format describes them; its rules for the end are checked."""
    stored, out = stored.tobytes(), bytearray()
    at = 0
    while len(out) < size:
        end = at + 4 + int.from_bytes(stored[at : at + 4], "big")
        at, start, length = at + 4, len(out), min(block, size - len(out))
        while True:
            token, at = stored[at], at + 1
            literals, at = _lz4_length(stored, at, token >> 4)
            out += stored[at : at + literals]
            at += literals
            if at == end:
                assert len(out) - start == length
                assert literals >= min(5, length)
                break
            offset, at = int.from_bytes(stored[at : at + 2], "little"), at + 2
            match, at = _lz4_length(stored, at, token & 15)
            assert 0 < offset <= len(out) - start
            assert len(out) - start <= length - 12
            for _ in range(match + 4):
                out.append(out[-offset])
    assert at == len(stored)
    return np.frombuffer(bytes(out), np.uint8)


def _lz4_length(stored, at, value):
    more = 255 if value == 15 else 0
    while more == 255:
        more, at = stored[at], at + 1
        value += more
    return value, at
