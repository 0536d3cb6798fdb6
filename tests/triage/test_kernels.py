"""Every kernel against its plain numpy twin, and the rules all kernels keep.

CI runs this file three times: compiled, with NUMBA_DISABLE_JIT=1, and with NUMBA_BOUNDSCHECK=1 and a cache of its own.
"""

import inspect
import itertools
import pkgutil
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import triage.kernels
from tests import reference
from triage.kernels.add_any_order import add_any_order
from triage.kernels.add_runs import add_runs
from triage.kernels.air_level import air_level
from triage.kernels.bitshuffle16 import BLOCK, bitshuffle16
from triage.kernels.box_fraction import box_fraction
from triage.kernels.box_integral import FIRST, MAX_RADIUS, box_integral
from triage.kernels.box_z import MAX_SMALL_RADIUS, box_z
from triage.kernels.bridge_channels import bridge_channels
from triage.kernels.compact_labels import compact_labels
from triage.kernels.dual_energy import dual_energy
from triage.kernels.eight_bytes import eight_bytes
from triage.kernels.find_runs import find_runs
from triage.kernels.fletcher32 import fletcher32
from triage.kernels.fma import fma
from triage.kernels.join_runs import FEATURES, join_runs
from triage.kernels.label_columns import ROOM, label_columns
from triage.kernels.list_regions import WORDS, list_regions
from triage.kernels.log_code import log_code
from triage.kernels.log_transmission import log_transmission
from triage.kernels.lz4_blocks import lz4_blocks
from triage.kernels.lz4_matches import TABLE as LZ4_TABLE
from triage.kernels.lz4_matches import lz4_matches
from triage.kernels.lz4_sequences import lz4_sequences
from triage.kernels.material_lookup import material_lookup
from triage.kernels.median3 import START, median3
from triage.kernels.nearest_patch import TILE, nearest_patch
from triage.kernels.on_one_grid import on_one_grid
from triage.kernels.prefetch import prefetch
from triage.kernels.prefix_sum import LANES, prefix_sum
from triage.kernels.repeat_bits import repeat_bits
from triage.kernels.screen_columns import FINISHED, RING, screen_columns
from triage.kernels.trailing_zeros import trailing_zeros
from triage.kernels.tree_sum import tree_sum

JIT = not numba.config.DISABLE_JIT
compiled_only = pytest.mark.skipif(not JIT, reason="needs compiled kernels")
MAX_CODE = 4095


def _f32(*values):
    return np.array(values, np.float32)


def _codes(rng, *shape):
    """12-bit codes: noise on a level, with a few jumps over the whole range."""
    level = rng.integers(0, MAX_CODE - 60)
    codes = level + rng.integers(0, 60, shape)
    jumps = rng.random(shape) < 0.1
    codes[jumps] = rng.integers(0, MAX_CODE + 1, int(jumps.sum()))
    return codes.astype(np.uint16)


seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@pytest.fixture(autouse=True)
def _sums_may_wrap():
    """Sums are meant modulo 2**32; compiled code says nothing about it, numpy's scalars would."""
    with np.errstate(over="ignore"):
        yield


# --- one runner per kernel: allocate the outputs, call, return what was written -------------------------------------


def _run_air_level(raw, dark, inv_gain, bad, first, stop, saturation_value, min_air):
    inv_air, flags = np.full(len(raw), -1, np.float32), np.zeros(len(raw), np.uint8)
    flagged = air_level(raw, dark, inv_gain, bad, first, stop, saturation_value, np.float32(min_air), inv_air, flags)
    assert flagged == np.count_nonzero(flags)
    return inv_air, flags


def _run_add_any_order(a, b):
    return (add_any_order(a, b),)


def _run_fma(a, b, c):
    return (fma(np.float32(a), np.float32(b), np.float32(c)),)


def _run_log_code(t):
    return (log_code(t),)


def _run_log_transmission(raw, dark, inv_gain, inv_air):
    q = np.zeros(raw.size, np.uint16)
    log_transmission(raw, dark, inv_gain, inv_air, q)
    return (q,)


def _run_bridge_channels(*args):
    q = args[-1].copy()
    bridge_channels(*args[:-1], q)
    return (q,)


def _run_median3(previous, column, following):
    out = np.zeros(column.size, np.uint16)
    median3(*(np.pad(row, (START, 1), "edge") for row in (previous, column, following)), out)
    return (out,)


def _tiles(table):
    return np.ascontiguousarray(table.reshape(64, 8, 64, 8).transpose(0, 2, 1, 3))


def _run_material_lookup(q_low, q_high, table):
    out = np.zeros(q_low.size, np.uint8)
    material_lookup(q_low, q_high, _tiles(table), np.zeros(q_low.size, np.uint32), out)
    return (out,)


def _run_dual_energy(q_low, q_high, zone, densities, classes, grid):
    n = zone.size
    density, material = np.full(q_low.shape, -1, np.float32), np.full(q_low.shape, 255, np.uint8)
    index, weight = np.zeros((2, n), np.uint32), np.zeros((2, n), np.float32)
    dual_energy(q_low, q_high, zone, densities, classes, grid, index, weight, density, material)
    return density, material


def _run_nearest_patch(*args):
    distance = np.full(len(args[0]), -1, np.float32)
    nearest_patch(*args, np.zeros(TILE, np.float32), distance)
    return (distance,)


def _run_tree_sum(*args):
    total = args[-1].copy()
    tree_sum(*args[:-1], total)
    return (total,)


def _run_on_one_grid(before, image, share):
    out = np.zeros_like(image)
    on_one_grid(before, image, np.uint32(share), out)
    return (out,)


def _run_prefetch(row):
    row = row.copy()
    prefetch(row)
    return (row,)


def _run_prefix_sum(values):
    out = np.zeros(values.size, np.uint32)
    prefix_sum(values, out)
    return (out,)


def _integral_images(columns, margin):
    size = LANES * -(-(FIRST + columns.shape[1] + margin) // LANES)
    total, rows = np.zeros((2, size), np.uint32), np.zeros((2, len(columns), size), np.uint32)
    for c, column in enumerate(columns):
        box_integral(column, margin, total, rows[0, c], rows[1, c])
    return rows


def _run_box_integral(columns, margin):
    width = columns.shape[1] + 2 * margin + 1
    return tuple(rows[:, FIRST - margin - 1 : FIRST - margin - 1 + width] for rows in _integral_images(columns, margin))


def _run_box_fraction(box, q):
    pixels, total, quarters = box.size, int(box.sum()), int((box.astype(int) ** 2 // 4).sum())
    shift = int(pixels > (2 * MAX_SMALL_RADIUS + 1) ** 2)
    half = int(total / pixels / 2) if shift else q // 2
    scale, floor = 4 * pixels * 2**shift, pixels**2 * ((0.02 * 512) ** 2 + 0.5)
    words = (np.uint32(total), np.uint32(quarters % 2**32), np.uint32(half), np.float32(half), np.float32(q))
    return (box_fraction(*words, np.uint32(pixels), np.uint32(shift), np.float32(scale), np.float32(floor)),)


def _run_box_z(columns, column, radii):
    out = np.zeros(columns.shape[1], np.uint8)
    images = np.zeros((2, RING, _integral_images(columns[:1], radii[2]).shape[2]), np.uint32)
    images[:, : len(columns)] = _integral_images(columns, radii[2])
    assert box_z(columns[column], images[0], images[1], column, np.array(radii), out) == out.max()
    return (out,)


def _run_bitshuffle16(values):
    out = np.zeros(2 * values.size, np.uint8)
    bitshuffle16(values, np.zeros((2, BLOCK // 8), np.uint64), out)
    return (out,)


def _run_fletcher32(data):
    return (fletcher32(data),)


def _run_eight_bytes(data, at):
    return (eight_bytes(data, np.uint64(at)),)


def _run_trailing_zeros(word):
    return (trailing_zeros(np.uint64(word)),)


def _run_repeat_bits(data):
    bits = np.full(data.size // 64 + 1, 2**64 - 1, np.uint64)
    repeat_bits(data, bits)
    return (bits,)


def _lz4_memory(size):
    """Working memory of lz4_matches with what was in it before."""
    return (
        np.full((2, size // 64 + 2), 2**64 - 1, np.uint64), np.full(LZ4_TABLE, 65535, np.uint16),
        np.zeros((size // 4 + 1, 3), np.uint16),
    )  # fmt: skip


def _lz4_matches(data, distances):
    bits, table, matches = _lz4_memory(data.size)
    return matches[: lz4_matches(data, np.array(distances, np.int64), bits, table, matches)]


def _run_lz4_matches(data, distances):
    """What the matches say put in place of what they cover, and the long runs they leave uncovered."""
    told, covered, end = data.copy(), np.zeros(data.size, bool), 0
    for begin, length, offset in _lz4_matches(data, distances).tolist():
        assert end <= begin <= data.size - 12 or begin == end
        assert length >= 4
        assert 0 < offset <= begin
        end = begin + length
        assert end <= data.size - 5
        covered[begin:end] = True
        for k in range(begin, end):
            told[k] = told[k - offset]
    alike = np.concatenate(([False], data[1:] == data[:-1]))
    windows = (
        np.lib.stride_tricks.sliding_window_view(alike & ~covered, 15) if data.size > 64 else np.zeros((1, 1), bool)
    )
    return told, int(windows[: max(data.size - 40, 0)].all(axis=1).sum())


def _run_lz4_sequences(data, distances):
    matches = _lz4_matches(data, distances)
    out = np.zeros(data.size + data.size // 255 + 16, np.uint8)
    return (out[: lz4_sequences(data, matches, len(matches), out)],)


def _twin_lz4_sequences(data, distances):
    return (reference.lz4_sequences(data, _lz4_matches(data, distances)),)


def _run_lz4_blocks(data, block, distances):
    """Blocks as an independent decoder reads them."""
    out = np.zeros(data.size + data.size // 255 + 20 * (data.size // block + 1), np.uint8)
    length = lz4_blocks(data, block, np.array(distances, np.int64), *_lz4_memory(block), out)
    return (reference.lz4_blocks_read(out[:length], data.size, block),)


def _run_find_runs(z, threshold):
    runs = np.zeros((z.size // 2 + 1, 3), np.int64)
    n = find_runs(z, threshold, runs)
    assert (runs[:n, 2] == -1).all()
    return (runs[:n, :2],)


def _run_join_runs(previous, current, table):
    parent, table, current = np.arange(len(table)), table.copy(), current.copy()
    join_runs(previous, len(previous), current, len(current), parent, table)
    roots = reference.roots_of(parent)
    found = np.array([roots[i] if i >= 0 else -1 for i in current[:, 2]], int)
    return roots, found, table[np.unique(roots)]


def _twin_join_runs(previous, current, table):
    roots, found, rows = reference.join_runs(previous, current, table)
    return np.array(roots, int), np.array(found, int), np.array([rows[i] for i in sorted(rows)])


def _run_add_runs(z, q, material, column, runs, rows, capacity):
    table, parent, runs = np.full((capacity, FEATURES), -7, np.int64), np.arange(capacity), runs.copy()
    table[: len(rows)] = rows
    labels = np.array([len(rows)])
    refused = add_runs(z, q, material, column, runs, len(runs), parent, table, labels)
    return table[: labels[0]], runs[:, 2], np.array(refused)


def _twin_add_runs(*args):
    rows, labels, refused = reference.add_runs(*args)
    return np.array(rows, int).reshape(-1, FEATURES), np.array(labels, int), np.array(refused)


def _run_compact_labels(parent, table, min_area, open_runs, seam_runs):
    labels = len(parent)
    parent, table, runs, seams = parent.copy(), table.copy(), open_runs.copy(), seam_runs.copy()
    n = compact_labels(parent, table, labels, min_area, runs, len(runs), seams, len(seams), np.full(labels, -9))
    assert np.array_equal(parent[:n], np.arange(n))
    return table[:n], runs[:, 2], seams[:, 2]


def _run_label_columns(z, q, material, first_column, threshold, min_area, size, room):
    runs = np.zeros((2, z.shape[1] // 2 + 1, 3), np.int64)
    parent, fresh, table = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros((size, FEATURES), np.int64)
    tally, seams = np.zeros(7, np.int64), np.zeros((0, 3), np.int64)
    tally[ROOM] = room
    label_columns(z, q, material, first_column, threshold, min_area, runs, seams, parent, fresh, table, tally)
    return (_table_rows(parent, table, tally, min_area),)


def _twin_label_columns(z, q, material, first_column, threshold, min_area, size, room):
    return (reference.label_columns(z, q, material, first_column, threshold, min_area, size),)


def _run_list_regions(parent, table, first, stop, min_area, count):
    rows = np.full((len(parent) + count, WORDS), -7, np.int64)
    total = list_regions(parent, table, first, stop, min_area, count, rows)
    assert list_regions(parent, table, first, stop, min_area, count, rows[:0]) == total
    assert (rows[:count] == -7).all() and (rows[total:] == -7).all()
    told = rows[count:total].astype(float)
    told[:, 5:9] = rows[count:total, 5:9].copy().view(np.float64)
    return told, np.array(total)


def _table_rows(parent, table, tally, min_area=1):
    assert tally[1] == 0
    rows = table[: tally[0]][parent[: tally[0]] == np.arange(tally[0])]
    rows = rows[rows[:, 0] >= min_area]
    return rows[np.lexsort((rows[:, 5], rows[:, 1]))]


@dataclass
class FusedCase:
    """What one strip covering a whole image is fed."""

    counts: tuple
    inv_airs: tuple
    dark: Any
    inv_gain: Any
    bad: Any
    source: Any
    flags: Any
    table: Any
    radii: tuple
    cuts: tuple = ()


def _feed(case: FusedCase, threshold=64):
    """Feed a whole image in the pieces case.cuts make, with each piece's columns alone in memory."""
    columns, n = case.counts[0].shape
    two = len(case.counts) == 2
    good, bad = np.flatnonzero(~case.bad), np.flatnonzero(case.bad)
    after = np.searchsorted(good, bad)
    below, above = good[np.maximum(after - 1, 0)], good[np.minimum(after, good.size - 1)]
    weight = ((bad - below) / np.maximum(above - below, 1)).clip(0, 1).astype(np.float32)
    q = [np.zeros((columns, n), np.uint16) for _ in case.counts]
    material, z = np.zeros((2, columns, n), np.uint8)
    size = LANES * -(-(FIRST + n + case.radii[2]) // LANES)
    parent, table = np.zeros(columns * n, np.int64), np.zeros((columns * n, FEATURES), np.int64)
    tally = np.zeros(FINISHED + 1, np.int64)
    lasting = (
        np.zeros((2, 4, START + n + 1), np.uint16),
        np.zeros(n, np.uint16),
        np.zeros(n, np.uint32),
        np.zeros((2, size), np.uint32),
        np.zeros((RING, size), np.uint32),
        np.zeros((RING, size), np.uint32),
        np.zeros((2, n // 2 + 1, 3), np.int64),
        np.zeros((n // 2 + 1, 3), np.int64),
        parent,
        np.zeros_like(parent),
        table,
        tally,
    )
    edges = [0, *sorted(case.cuts), columns]
    pieces = [*itertools.pairwise(edges), (columns, columns)]
    for i, (a, b) in enumerate(pieces):
        # while pieces come, the image's last column is unknown; a final empty piece ends the image
        last = columns - 1 if i == len(pieces) - 1 else 1 << 40
        if case.source[a:b].size and (case.source[a:b] != np.arange(a, b)).any():
            source = np.where(case.source[a:b] == np.arange(a, b), np.arange(b - a), -1)
        else:
            source = np.arange(b - a)
        screen_columns(
            np.ascontiguousarray(case.counts[0][a:b]),
            np.ascontiguousarray(case.counts[-1][a:b]),
            two,
            source.astype(np.int64),
            case.inv_airs[0][a:b].copy(),
            case.inv_airs[-1][a:b].copy(),
            np.stack((case.dark[0], case.dark[-1])),
            np.stack((case.inv_gain[0], case.inv_gain[-1])),
            np.stack((bad, below, above)).astype(np.int32),
            weight,
            _tiles(case.table),
            np.array(case.radii, np.int64),
            threshold,
            1,
            np.array((0, a, b, 0, columns, last, 0), np.int64),
            q[0],
            q[-1],
            material,
            z,
            case.flags,
            *lasting,
        )
    assert tally[FINISHED] == columns
    return q, material, z, _table_rows(parent, table, tally)


def _run_screen_columns(case):
    q, material, z, _ = _feed(case)
    return *q, material, z


def _twin_screen_columns(case):
    codes, material, z = reference.screen_columns(
        case.counts,
        case.inv_airs,
        case.dark,
        case.inv_gain,
        case.bad,
        case.source,
        case.flags,
        case.table,
        case.radii,
    )
    return *codes, material, z


def _as_tuple(twin):
    def call(*args):
        out = twin(*args)
        return out if isinstance(out, tuple) else (out,)

    return call


# --- strategies -----------------------------------------------------------------------------------------------------


@st.composite
def _air_cases(draw):
    rng = draw(seeds)
    columns, channels = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    first = draw(st.integers(0, channels - 1))
    stop = draw(st.integers(first, channels))
    raw = rng.integers(0, draw(st.sampled_from((20, 300, 65536))), (columns, channels)).astype(np.uint16)
    raw[rng.random(columns) < 0.3] = 65535
    bad = (rng.random(channels) < draw(st.sampled_from((0.0, 0.3, 1.0)))).astype(np.uint8)
    # dark and gain are exact in binary, so that no mean lies within rounding of the limit
    dark = rng.integers(0, 20, channels).astype(np.float32)
    if draw(st.booleans()):
        dark[rng.integers(channels)] = np.nan
    return raw, dark, np.full(channels, 1 / 256, np.float32), bad, first, stop, 65000, 0.015625


@st.composite
def _columns_of_counts(draw):
    rng = draw(seeds)
    n = draw(st.integers(1, 70))
    raw = rng.integers(0, draw(st.sampled_from((256, 4096, 65536))), n).astype(np.uint16)
    dark = rng.uniform(-5, 200, n).astype(np.float32)
    inv_gain = rng.uniform(0.5, 2, n).astype(np.float32) / np.float32(raw.max() + 1)
    return raw, dark, inv_gain, np.float32(rng.uniform(0.5, 2))


@st.composite
def _bridge_cases(draw):
    raw, dark, inv_gain, inv_air = draw(_columns_of_counts())
    rng = draw(seeds)
    n = raw.size
    bad = rng.random(n) < 0.4
    bad[rng.integers(n)] = False
    good, wrong = np.flatnonzero(~bad), np.flatnonzero(bad)
    below = [max(good[good < h], default=min(good)) for h in wrong]
    above = [min(good[good > h], default=max(good)) for h in wrong]
    weight = [0.0 if a == b else min(max((h - a) / (b - a), 0), 1) for h, a, b in zip(wrong, below, above, strict=True)]
    index = [np.array(x, np.int32) for x in (wrong, below, above)]
    return raw, dark, inv_gain, inv_air, *index, np.array(weight, np.float32), _codes(rng, n)


code_rows = st.integers(1, 40).flatmap(lambda n: st.tuples(*[hnp.arrays(np.uint16, n)] * 3))


@st.composite
def _material_cases(draw):
    rng = draw(seeds)
    n = draw(st.integers(1, 40))
    return _codes(rng, n), _codes(rng, n), rng.integers(0, 256, (512, 512)).astype(np.uint8)


@st.composite
def _integral_cases(draw):
    rng = draw(seeds)
    return _codes(rng, draw(st.integers(1, 4)), draw(st.integers(1, 20))), draw(st.integers(0, 31))


@st.composite
def _box_cases(draw):
    """A box of codes and one of them; half of the boxes hold two codes only, the worst there is for 32 bits."""
    rng = draw(seeds)
    pixels = (2 * draw(st.integers(0, MAX_RADIUS)) + 1) ** 2
    box = _codes(rng, pixels)
    if draw(st.booleans()):
        share = draw(st.sampled_from((0.01, 0.5, 0.99)))
        box = np.where(rng.random(pixels) < share, draw(st.integers(0, MAX_CODE)), MAX_CODE).astype(np.uint16)
    return box, int(box[rng.integers(pixels)])


@st.composite
def _score_cases(draw):
    rng = draw(seeds)
    radii = (draw(st.integers(0, 3)), draw(st.integers(4, MAX_SMALL_RADIUS)), draw(st.integers(12, MAX_RADIUS)))
    return _codes(rng, 2 * radii[2] + 2, draw(st.integers(1, 40))), radii[2] + 1, radii


@st.composite
def _patch_cases(draw):
    rng = draw(seeds)
    rows, columns, dimensions = draw(st.integers(1, 6)), draw(st.integers(1, 8)), draw(st.integers(1, 5))
    # more than one tile in a band, and none at all
    count = draw(st.sampled_from((0, 1, 50, TILE + 3)))
    n = draw(st.integers(0, 6))
    at = np.stack([rng.integers(0, columns, count), np.sort(rng.integers(0, rows, count))]).astype(np.int32)
    query_at = np.stack([rng.integers(0, columns, n), rng.integers(0, rows, n)], axis=1).astype(np.int32)
    row_start = np.searchsorted(at[1], np.arange(rows + 1)).astype(np.int64)
    patches = [rng.normal(size=shape).astype(np.float32) for shape in ((n, dimensions), (dimensions, count))]
    return patches[0], query_at, patches[1], at, row_start, draw(st.integers(0, 3)), draw(st.integers(0, 3))


@st.composite
def _tree_cases(draw):
    rng = draw(seeds)
    cells, names = draw(st.integers(0, 20)), draw(st.integers(1, 4))
    nodes: list[tuple[int, float, int, float]] = []

    def grow(depth):
        node = len(nodes)
        nodes.append((-1, 0.0, 0, float(rng.normal())))
        if depth and rng.random() < 0.8:
            grow(depth - 1)
            right = len(nodes)
            # thresholds that some features are equal to
            nodes[node] = (int(rng.integers(names)), float(rng.integers(-2, 3)), right, 0.0)
            grow(depth - 1)

    roots = []
    for _ in range(draw(st.integers(0, 3))):
        roots.append(len(nodes))
        grow(draw(st.integers(0, 4)))
    table = np.array(nodes, dtype=float).reshape(-1, 4).T
    kinds = (np.int16, np.float32, np.int32, np.float32)
    feature, threshold, right, value = (np.ascontiguousarray(c, k) for c, k in zip(table, kinds, strict=True))
    features = rng.integers(-3, 4, (cells, names)).astype(np.float32)
    return (
        features,
        feature,
        threshold,
        right,
        value,
        np.array(roots, np.int32),
        rng.normal(size=cells).astype(np.float32),
    )


@st.composite
def _labelling_cases(draw):
    rng = draw(seeds)
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 20))
    z = (rng.random(shape) < draw(st.sampled_from((0.1, 0.4, 0.7, 1.0)))) * rng.integers(64, 256, shape)
    material = rng.integers(0, 20, shape).astype(np.uint8)
    # the smaller table is full again and again, and must be cleared of closed small regions to hold the others
    full = 2 * shape[1] + 2
    # ... or must grow, from less than a column may need
    min_area, size, room = draw(st.sampled_from(((1, z.size, 0), (40, full, 0), (40, full, 3), (1, z.size, 3))))
    return z.astype(np.uint8), _codes(rng, *shape), material, 100, 64, min_area, size, room


@st.composite
def _listing_cases(draw):
    rng = draw(seeds)
    n = draw(st.integers(0, 12))
    first = draw(st.integers(0, n))
    table = rng.integers(1, 9, (n, FEATURES)).astype(np.int64)
    parent = np.array([rng.integers(0, i + 1) for i in range(n)], np.int64)
    return parent, table, first, draw(st.integers(first, n)), draw(st.integers(1, 10)), draw(st.integers(0, 3))


@st.composite
def _compaction_cases(draw):
    rng = draw(seeds)
    n = draw(st.integers(0, 12))
    parent = np.array([rng.integers(0, i + 1) for i in range(n)], np.int64)
    table = rng.integers(0, 9, (n, FEATURES)).astype(np.int64)
    runs = [rng.integers(-1, n, (draw(st.integers(0, 4)), 3)).astype(np.int64) for _ in range(2)]
    return parent, table, draw(st.integers(1, 10)), *runs


@st.composite
def _run_lists(draw):
    z = draw(hnp.arrays(np.uint8, draw(st.integers(1, 150)), elements=st.sampled_from((0, 63, 64, 255))))
    return z, draw(st.sampled_from((1, 64, 255)))


def _random_runs(rng, n):
    runs = reference.find_runs((rng.random(n) < 0.5).astype(int), 1)
    return np.column_stack((runs, np.full(len(runs), -1))).astype(np.int64)


@st.composite
def _join_cases(draw):
    rng = draw(seeds)
    n = draw(st.integers(1, 30))
    previous, current = _random_runs(rng, n), _random_runs(rng, n)
    # several runs may belong to one region already; some found no room; at a seam current runs have labels too
    previous[:, 2] = np.sort(rng.integers(-1, max(len(previous), 1), len(previous)))
    labels = len(previous)
    if draw(st.booleans()):
        current[:, 2] = labels + np.arange(len(current))
        labels += len(current)
    table = rng.integers(0, 9, (max(labels, 1), FEATURES)).astype(np.int64)
    return previous, current, table


@st.composite
def _add_cases(draw):
    rng = draw(seeds)
    n = draw(st.integers(1, 30))
    runs = _random_runs(rng, n)
    rows = rng.integers(0, 9, (4, FEATURES)).astype(np.int64)
    rows[:, 1], rows[:, 2] = rng.integers(0, 8, 4), 8  # regions opened in columns before this one
    runs[:, 2] = rng.integers(-1, 4, len(runs))
    z, material = rng.integers(64, 256, n).astype(np.uint8), rng.integers(0, 20, n).astype(np.uint8)
    return z, _codes(rng, n), material, 8, runs, rows, draw(st.integers(4, 8))


@st.composite
def _fused_cases(draw):
    rng = draw(seeds)
    columns, n = draw(st.integers(1, 14)), draw(st.integers(1, 20))
    energies = draw(st.sampled_from((1, 2)))
    lengths = rng.uniform(0, 4, (columns, n)) * (rng.random((columns, n)) < 0.2) + 1
    counts = tuple(
        (50000 * np.exp(-lengths) + rng.normal(0, 30, lengths.shape)).clip(0).astype(np.uint16) for _ in range(energies)
    )
    bad = rng.random(n) < 0.2
    bad[rng.integers(n)] = False
    flags = (rng.random(columns) < 0.2).astype(np.uint8)
    flags[0] = 0
    source = np.maximum.accumulate(np.where(flags == 0, np.arange(columns), -1))
    return (
        FusedCase(
            counts=counts,
            inv_airs=tuple(rng.uniform(0.8, 1.2, columns).astype(np.float32) for _ in counts),
            dark=tuple(rng.uniform(0, 100, n).astype(np.float32) for _ in counts),
            inv_gain=(np.full(n, 2e-5, np.float32),) * energies,
            bad=bad,
            source=source,
            flags=flags,
            table=(np.add.outer(np.arange(512), np.arange(512)) // 32).astype(np.uint8),
            radii=(1, 2, draw(st.sampled_from((3, 31)))),
            cuts=tuple(draw(st.lists(st.integers(0, columns), max_size=4))),
        ),
    )


@dataclass
class Row:
    """One kernel, its twin, what it is fed, and the largest difference allowed in each output."""

    kernel: Any
    run: Any
    twin: Any
    cases: Any
    tolerance: tuple

    @property
    def name(self):
        return getattr(self.kernel, "__name__", str(self.kernel))


@st.composite
def _byte_lists(draw, largest=40000):
    """Bytes with runs, repeats and noise, of any length."""
    rng, size = draw(seeds), draw(st.integers(0, 300) | st.integers(0, largest if JIT else 600))
    kind = draw(st.integers(0, 4))
    noise = rng.integers(0, 256, size).astype(np.uint8)
    if kind == 1:
        noise[:] = draw(st.sampled_from((0, 1, 255)))
    elif kind == 2:
        noise = np.repeat(noise, 1 + rng.integers(0, 40))[:size]
    elif kind == 3:
        noise = np.tile(noise[: 1 + size // 5], 6)[:size]
    elif kind == 4:
        noise[rng.random(size) < 0.9] = 0
    return np.ascontiguousarray(noise)


_distances = st.lists(st.integers(8, 700), max_size=2)


def _checksum_cases():
    """Whole multiples of 65535 and lengths around the kernel's own block are where sums go wrong."""
    full = st.sampled_from((2, 65534, 65536, 65538, 98303)).map(lambda n: np.full(n if JIT else n % 999, 255, np.uint8))
    return st.tuples(_byte_lists(70000) | full)


def _words_to_sum():
    words = st.integers(0, 2**32 - 1).map(np.random.default_rng)
    return st.tuples(st.builds(lambda rng, n: rng.integers(0, 2**32, n).astype(np.uint32), words, st.integers(0, 90)))


def _counts_to_shuffle():
    return st.tuples(_byte_lists(30000).map(lambda b: b[: b.size // 2 * 2].view(np.uint16).copy()))


@st.composite
def _dual_energy_cases(draw):
    """Codes inside and outside the tables, several zones."""
    rng = draw(seeds)
    columns, channels, zones = draw(st.integers(0, 4)), draw(st.integers(1, 24)), draw(st.integers(1, 3))
    rows, width = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    q = [_codes(rng, columns, channels) for _ in range(2)]
    zone = np.sort(rng.integers(0, zones, channels)).astype(np.uint32)
    densities = rng.uniform(0, 300, (zones, rows, width)).astype(np.float32)
    classes = rng.integers(0, 128, (zones, rows, width)).astype(np.uint8)
    grid = _f32(draw(st.sampled_from((2, 5, 32))), 0.9, draw(st.sampled_from((7, 200))), 0.05)
    return *q, zone, densities, classes, grid


@st.composite
def _grid_cases(draw):
    rng = draw(seeds)
    columns, channels = draw(st.integers(0, 4)), draw(st.integers(1, 24))
    image = rng.integers(0, 65536, (columns + 1, channels)).astype(np.uint16)
    image[rng.random(image.shape) < 0.2] = 65535
    return image[0].copy(), image[1:].copy(), draw(st.integers(0, 256))


# A code may differ by 1 where 512 L lies within the polynomial's error of a half; a step of q can move z by
# 16 / (512 * 0.02) = 1.6 of its own steps, and its mean and variance a little. box_fraction knows the variance to 0.5 %
# of its floor, (0.02)**2: z**2 may differ by as much, z by half of it, of 255 at most.
TABLE = [
    Row(air_level, _run_air_level, _as_tuple(reference.air_level), _air_cases(), (1e-5, 0)),
    Row(
        add_any_order,
        _run_add_any_order,
        _as_tuple(reference.add_any_order),
        st.tuples(*[st.floats(-1e6, 1e6)] * 2),
        (0,),
    ),
    Row(fma, _run_fma, _as_tuple(reference.fma), st.tuples(*[st.floats(-4096, 4096, width=32)] * 3), (6e-8,)),
    Row(log_code, _run_log_code, _as_tuple(reference.log_code), st.tuples(st.floats(width=32)), (1,)),
    Row(log_transmission, _run_log_transmission, _as_tuple(reference.log_transmission), _columns_of_counts(), (1,)),
    Row(bridge_channels, _run_bridge_channels, _as_tuple(reference.bridge_channels), _bridge_cases(), (1,)),
    Row(median3, _run_median3, _as_tuple(reference.median3), code_rows, (0,)),
    Row(material_lookup, _run_material_lookup, _as_tuple(reference.material_lookup), _material_cases(), (0,)),
    Row(dual_energy, _run_dual_energy, _as_tuple(reference.dual_energy), _dual_energy_cases(), (2e-3, 0)),
    Row(on_one_grid, _run_on_one_grid, _as_tuple(reference.on_one_grid), _grid_cases(), (0,)),
    Row(nearest_patch, _run_nearest_patch, _as_tuple(reference.nearest_patch), _patch_cases(), (1e-5,)),
    Row(tree_sum, _run_tree_sum, _as_tuple(reference.tree_sum), _tree_cases(), (1e-5,)),
    Row(prefetch, _run_prefetch, _as_tuple(reference.prefetch), st.tuples(_byte_lists(300)), (0,)),
    Row(prefix_sum, _run_prefix_sum, _as_tuple(reference.prefix_sum), _words_to_sum(), (0,)),
    Row(box_integral, _run_box_integral, _as_tuple(reference.box_integral), _integral_cases(), (0, 0)),
    Row(box_fraction, _run_box_fraction, _as_tuple(reference.box_fraction), _box_cases(), (6e-3,)),
    Row(box_z, _run_box_z, _as_tuple(reference.box_z), _score_cases(), (1,)),
    Row(find_runs, _run_find_runs, _as_tuple(reference.find_runs), _run_lists(), (0,)),
    Row(join_runs, _run_join_runs, _twin_join_runs, _join_cases(), (0, 0, 0)),
    Row(add_runs, _run_add_runs, _twin_add_runs, _add_cases(), (0, 0, 0)),
    Row(compact_labels, _run_compact_labels, _as_tuple(reference.compact_labels), _compaction_cases(), (0, 0, 0)),
    Row(label_columns, _run_label_columns, _twin_label_columns, _labelling_cases(), (0,)),
    Row(list_regions, _run_list_regions, _as_tuple(reference.list_regions), _listing_cases(), (1e-12, 0)),
    Row(fletcher32, _run_fletcher32, _as_tuple(reference.fletcher32), _checksum_cases(), (0,)),
    Row(bitshuffle16, _run_bitshuffle16, _as_tuple(reference.bitshuffle16), _counts_to_shuffle(), (0,)),
    Row(
        eight_bytes,
        _run_eight_bytes,
        _as_tuple(reference.eight_bytes),
        st.tuples(hnp.arrays(np.uint8, 17), st.integers(0, 9)),
        (0,),
    ),
    Row(
        trailing_zeros,
        _run_trailing_zeros,
        _as_tuple(reference.trailing_zeros),
        st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda bit: 1 << bit)),
        (0,),
    ),
    Row(repeat_bits, _run_repeat_bits, _as_tuple(reference.repeat_bits), st.tuples(_byte_lists()), (0,)),
    Row(lz4_matches, _run_lz4_matches, reference.lz4_matches, st.tuples(_byte_lists(), _distances), (0, 0)),
    Row(lz4_sequences, _run_lz4_sequences, _twin_lz4_sequences, st.tuples(_byte_lists(), _distances), (0,)),
    Row(
        lz4_blocks,
        _run_lz4_blocks,
        _as_tuple(reference.lz4_blocks),
        st.tuples(_byte_lists(), st.sampled_from((64, 1000, 8192, 65536)), _distances),
        (0,),
    ),
    Row(screen_columns, _run_screen_columns, _twin_screen_columns, _fused_cases(), (1, 1, 1, 4)),
]
by_name = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
relaxed = settings(
    deadline=None,
    max_examples=60 if JIT else 15,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@by_name
@relaxed
@given(data=st.data())
def test_kernel_equals_twin(row, data):
    case = data.draw(row.cases)
    got, expected = row.run(*case), row.twin(*case)
    # with one energy the fused pass has one image of codes less
    tolerance = row.tolerance[-len(expected) :]
    assert len(got) == len(expected) == len(tolerance)
    for a, b, limit in zip(got, expected, tolerance, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        difference = np.abs(a.astype(float) - b.astype(float))
        if limit == 0:
            assert np.array_equal(a, b)
        else:
            assert difference.max(initial=0) <= limit * (max(1.0, np.abs(b).max(initial=0)) if limit < 1 else 1)


def _kernels():
    """Yield (module, name, function) of every function defined in a module of triage.kernels."""
    for found in pkgutil.iter_modules(triage.kernels.__path__):
        if found.name == "arrays":  # signature types only
            continue
        module = import_module(f"triage.kernels.{found.name}")
        for name, value in vars(module).items():
            if name.startswith("_"):
                continue
            function = getattr(value, "py_func", value)
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                yield found.name, name, value


def test_every_kernel_has_a_row_and_a_file_and_a_twin_of_its_name():
    assert [name for _, name, _ in _kernels()] == [file for file, _, _ in _kernels()]
    assert {name for _, name, _ in _kernels()} == {row.name for row in TABLE}
    assert all(hasattr(reference, row.name) for row in TABLE)


@compiled_only
def test_every_kernel_is_compiled_eagerly_for_one_signature_without_shortcuts():
    for _, name, kernel in _kernels():
        options = kernel.targetoptions
        assert len(kernel.signatures) == 1, name
        assert options.get("nogil"), name
        assert not options.get("fastmath"), name
        assert not options.get("parallel"), name


@compiled_only
@by_name
def test_no_call_compiles_anything(row):
    before = list(row.kernel.signatures)

    @settings(parent=relaxed, max_examples=5, database=None)
    @given(row.cases)
    def calls(case):
        row.run(*case)

    calls()
    assert row.kernel.signatures == before


@compiled_only
def test_strided_and_float_and_swapped_input_is_refused():
    n = 16
    out = np.zeros(n, np.uint16)
    good = np.arange(START + n + 1, dtype=np.uint16)
    for wrong in (np.arange(2 * good.size, dtype=np.uint16)[::2], good.astype(np.float32), good.astype(">u2")):
        with pytest.raises((TypeError, ValueError, NotImplementedError, numba.errors.NumbaError)):
            median3(wrong, good, good, out)
    read_only = good.copy()
    read_only.flags.writeable = False
    median3(read_only, good, read_only, out)
    with pytest.raises((TypeError, ValueError, numba.errors.NumbaError)):
        median3(good, good, good, read_only)
    strided = np.zeros((4, 2 * n), np.uint8)[:, ::2]
    with pytest.raises((TypeError, ValueError, numba.errors.NumbaError)):
        label_columns(strided, *(None,) * 11)
    assert len(median3.signatures) == 1


def test_log_code_spans_twelve_bits_and_never_reads_darkness_as_air():
    assert log_code(np.float32(1.0)) == 128
    assert log_code(np.float32(0.0)) == log_code(np.float32(-3.0)) == log_code(np.float32(np.nan)) == 4019
    assert log_code(np.float32(np.inf)) == 5
    t = np.exp(-np.linspace(-0.24, 7.6, 4001 if JIT else 400)).astype(np.float32)
    codes = np.array([log_code(x) for x in t]).astype(float)
    assert np.abs((codes - 128) / 512 + np.log(t.astype(float))).max() <= 0.00099
    assert (np.diff(codes) >= 0).all()


@compiled_only
def test_largest_box_of_largest_codes_is_exact_although_the_integral_images_wrap():
    n, radius = 2000, 31
    columns = np.full((600, n), MAX_CODE, np.uint16)
    columns[568, n // 2] = 0
    images = _integral_images(columns, radius)
    assert MAX_CODE * images.shape[2] * len(columns) > 2**32
    ring = np.zeros((2, RING, images.shape[2]), np.uint32)
    for row in range(568 - 32, 600):
        ring[:, row % RING] = images[:, row]
    z = np.zeros(n, np.uint8)
    box_z(columns[568], ring[0], ring[1], 568, np.array((3, 10, radius)), z)
    boxes = [np.r_[0, np.full((2 * r + 1) ** 2 - 1, MAX_CODE)] for r in (3, 10, radius)]
    assert z[n // 2] == min(255, int(16 * np.sqrt(max(reference.box_fraction(box, 0) for box in boxes))))
    assert z[0] == 0
    # half the box as low, half as high as codes go: the largest square sum about the mean
    box = np.where(np.arange(63 * 63) % 2, 0, MAX_CODE)
    for q in (0, 2000, MAX_CODE):
        assert np.isclose(_run_box_fraction(box, q)[0], reference.box_fraction(box, q), rtol=1e-4)


@relaxed
@given(_fused_cases())
def test_fused_pass_labels_its_own_scores_and_forgets_nothing_between_calls(case):
    (case,) = case
    q, material, z, rows = _feed(case, threshold=24)
    assert np.array_equal(rows, reference.label_columns(z, q[-1], material, 0, 24, 1))
    case.cuts = ()
    whole = _feed(case, threshold=24)
    assert all(np.array_equal(a, b) for a, b in zip(q, whole[0], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip((material, z, rows), whole[1:], strict=True))
