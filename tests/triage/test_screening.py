"""Screening of whole images: strips, seams, beam drops, odd sizes, and agreement with the float64 pipeline."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.event import install_recorder

from scanner_io.errors import DataError
from tests import reference
from triage.analysis import screening
from triage.analysis.screening import (
    AIR_SATURATED,
    NO_BEAM,
    Buffers,
    Calibration,
    Engine,
    log_of_code,
    screen,
    warm_up,
)
from triage.study.phantom import phantom

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="whole images need compiled kernels")

TABLE = (np.add.outer(np.arange(512) // 80, np.arange(512) // 60)).astype(np.uint8)


def _calibration(channels, energies=2, *, bad=(), air=None, **more):
    return Calibration(
        dark=(np.full(channels, 100, np.float32),) * energies,
        inv_gain=(np.full(channels, 1 / 40000, np.float32),) * energies,
        bad_channels=np.isin(np.arange(channels), bad),
        air_channels=air,
        **more,
    )


def _cluttered(rng, columns, channels, energies, density):
    """Counts with many small and some long dark objects, so that regions are plenty and cross any seam."""
    lengths = rng.normal(1, 0.01, (columns, channels))
    blocks = rng.random((columns // 3 + 1, channels // 3 + 1)) < density  # single pixels would fall to the median
    lengths += 2.0 * np.kron(blocks, np.ones((3, 3)))[:columns, :channels]
    for _ in range(3):
        c, h = rng.integers(0, columns), rng.integers(0, channels)
        lengths[:, h : h + 2] += 1.5 * (rng.random() < 0.5)
        lengths[c : c + 3] += 1.5 * (rng.random() < 0.3)
        lengths[c : c + 9, h : h + 9] += 2
    return tuple((100 + 40000 * np.exp(-lengths * f)).clip(0, 65535).astype(np.uint16) for f in (1.1, 1.0)[-energies:])


def _assert_same(a, b):
    assert len(a.q) == len(b.q)
    for name in ("material", "z", "column_flags", "regions"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert all(np.array_equal(x, y) for x, y in zip(a.q, b.q, strict=True))
    assert a.overflow == b.overflow


def _rows(regions):
    return sorted((int(r["area"]), int(r["col0"]), int(r["col1"]), int(r["ch0"]), int(r["ch1"])) for r in regions)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 150),
    channels=st.integers(1, 90),
    energies=st.sampled_from((1, 2)),
    density=st.sampled_from((0.0, 0.02, 0.2)),
    threshold=st.sampled_from((1 / 16, 0.5, 1.0, 2.0, 4.0)),
    strips=st.lists(st.integers(2, 200), min_size=1, max_size=3),
    dropped=st.lists(st.integers(0, 149), max_size=6),
)
def test_result_does_not_depend_on_the_number_of_strips(
    seed, columns, channels, energies, density, threshold, strips, dropped
):
    rng = np.random.default_rng(seed)
    counts = _cluttered(rng, columns, channels, energies, density)
    for c in dropped:
        counts[0][c : c + 1] = 100
    air = (0, channels // 4) if seed % 2 else None
    calibration = _calibration(channels, energies, bad=(3, 4, channels - 1) if channels > 5 else (), air=air)
    whole = screen(counts, calibration, threshold_z=threshold, strips=1, material_table=TABLE, min_area=1)
    for k in [2, 3, *strips]:
        cut = screen(counts, calibration, threshold_z=threshold, strips=k, material_table=TABLE, min_area=1)
        _assert_same(whole, cut)
    # the regions are those of the scores, found by an independent labelling
    expected = (
        reference.label_columns(whole.z, whole.q[-1], whole.material, 0, int(np.ceil(16 * threshold)), 1)
        if whole.regions.size < 60
        else None
    )
    if expected is not None:
        assert [tuple(r) for r in expected[:, :5]] == [
            tuple(r[n] for n in ("area", "col0", "col1", "ch0", "ch1")) for r in whole.regions
        ]
        assert np.array_equal(expected[:, 10:], whole.regions["material"])
        assert np.allclose(expected[:, 6] / expected[:, 0], whole.regions["centroid_column"])
        assert np.allclose((expected[:, 8] / expected[:, 0] - 128) / 512, whole.regions["sum_log"] / expected[:, 0])


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 220),
    channels=st.integers(1, 90),
    energies=st.sampled_from((1, 2)),
    density=st.sampled_from((0.0, 0.02, 0.2)),
    threshold=st.sampled_from((1 / 16, 1.0, 4.0)),
    min_area=st.sampled_from((1, 5)),
    blocks=st.lists(st.integers(0, 70), min_size=1, max_size=12),
    dropped=st.lists(st.integers(0, 219), max_size=6),
    dark_start=st.integers(0, 40),
)
def test_streaming_equals_the_whole_image_for_any_blocks(
    seed, columns, channels, energies, density, threshold, min_area, blocks, dropped, dark_start
):
    rng = np.random.default_rng(seed)
    counts = _cluttered(rng, columns, channels, energies, density)
    for c in (*dropped, *range(dark_start if seed % 3 == 0 else 0)):
        counts[-1][c : c + 1] = 100
    air = (0, channels // 4) if seed % 2 or dark_start else None
    calibration = _calibration(channels, energies, bad=(3, 4, channels - 1) if channels > 5 else (), air=air)
    told = {"threshold_z": threshold, "material_table": TABLE, "min_area": min_area}
    whole = screen(counts, calibration, strips=1, **told)
    engine = Engine(calibration, **told)
    at, finished = 0, 0
    while at < columns:
        for size in [*blocks, 1]:
            progress = engine.push(tuple(np.ascontiguousarray(c[at : at + size]) for c in counts))
            at = min(at + size, columns)
            assert progress.received == at
            assert finished <= progress.finished <= at
            assert progress.finished >= min(at - 40, at) or (whole.column_flags[:at] != 0).all()
            finished = progress.finished
    soon = progress.regions
    _assert_same(whole, engine.finish())
    assert engine.finish() is engine.finish()
    closed = whole.regions[whole.regions["col1"] < finished]
    assert all(row in soon for row in closed)


def test_an_engine_is_for_one_scan_and_refuses_the_wrong_blocks():
    counts, calibration = phantom(300, 100, seed=5)
    engine = Engine(calibration)
    with pytest.raises(DataError, match="without a column"):
        engine.finish()
    for wrong in ((counts[0],), (counts[0], counts[1][:50]), tuple(c[:, :200] for c in counts)):
        with pytest.raises(DataError, match=r"energ|shape|contiguous"):
            engine.push(wrong)
    engine.push(counts)
    assert engine.finish().q[0].shape == (100, 300)
    with pytest.raises(DataError, match="finished"):
        engine.push(counts)


@pytest.mark.parametrize("channels", [64, 999, 4096])
def test_a_train_takes_memory_for_its_columns_and_gives_it_back(channels, monkeypatch):
    monkeypatch.setattr(screening, "KEPT_BYTES", 1 << 16)
    monkeypatch.setattr(screening, "MAX_COLUMNS", 3000)
    rng = np.random.default_rng(1)
    buffers = Buffers()
    block = (rng.integers(20000, 40000, (500, channels)).astype(np.uint16),)
    engine = Engine(_calibration(channels, 1), buffers=buffers)
    for _ in range(8):  # beyond the reservation as well
        engine.push(block)
    long = engine.finish()
    assert long.z.shape == (4000, channels)
    assert np.array_equal(long.q[0][40:460], long.q[0][1040:1460])
    whole = screen((np.concatenate((block[0],) * 8),), _calibration(channels, 1))
    _assert_same(long, whole)
    Engine(_calibration(channels, 1), buffers=buffers)
    assert not long.z[-10:].any()  # what it took beyond KEPT_BYTES has gone back to the system


def test_threads_and_kept_buffers_change_nothing():
    counts, calibration = phantom(300, 400, seed=5)
    plain = screen(counts, calibration, material_table=TABLE)
    buffers = Buffers()
    with ThreadPoolExecutor(2) as pool:
        for columns in (400, 90, 400):
            cut = tuple(np.ascontiguousarray(c[:columns]) for c in counts)
            again = screen(cut, calibration, material_table=TABLE, buffers=buffers, map_strips=pool.map)
            _assert_same(again, screen(cut, calibration, material_table=TABLE))
        z_memory = again.z.__array_interface__["data"][0]
        again = screen(counts, calibration, material_table=TABLE, buffers=buffers, map_strips=pool.map)
    assert again.z.__array_interface__["data"][0] == z_memory
    _assert_same(again, plain)
    # other channel counts and energies with the same buffers
    single = screen(counts[1:], _one_energy(calibration), buffers=buffers)
    assert single.material.max() == 0
    assert np.array_equal(single.z, plain.z)


@pytest.mark.parametrize("reserved", [True, False])
def test_nothing_of_an_earlier_scans_material_is_seen_without_a_table(monkeypatch, reserved):
    if not reserved:
        monkeypatch.setattr(
            screening, "_reserved", lambda columns, channels, dtype: (None, np.zeros((columns, channels), dtype))
        )
    counts = _cluttered(np.random.default_rng(8), 200, 64, 2, 0.1)
    calibration, buffers = _calibration(64), Buffers()
    alone = screen(counts, calibration, threshold_z=1.0)
    assert alone.regions.size and alone.regions["material"][:, 0].sum() == alone.regions["area"].sum()
    for _ in range(2):
        assert screen(counts, calibration, threshold_z=1.0, material_table=TABLE, buffers=buffers).material.max() > 0
        _assert_same(screen(counts, calibration, threshold_z=1.0, buffers=buffers), alone)
        screen(counts, calibration, threshold_z=1.0, material_table=TABLE, buffers=buffers)
        engine = Engine(calibration, threshold_z=1.0, buffers=buffers)
        for first in range(0, 200, 30):
            engine.push(tuple(c[first : first + 30] for c in counts))
        _assert_same(engine.finish(), alone)


def _one_energy(calibration):
    return dataclasses.replace(calibration, dark=calibration.dark[1:], inv_gain=calibration.inv_gain[1:])


def test_a_region_across_a_seam_is_one_region():
    length = np.ones((200, 60))
    length[80:121, 20:24] = 3.0
    counts = ((100 + 40000 * np.exp(-length)).astype(np.uint16),)
    whole = screen(counts, _calibration(60, 1), strips=1, threshold_z=1.5)
    assert [(r["col0"], r["col1"]) for r in whole.regions] == [(80, 121)]
    for strips in (2, 3, 10, 200):
        _assert_same(whole, screen(counts, _calibration(60, 1), strips=strips, threshold_z=1.5))


def test_phantom_agrees_with_the_float64_pipeline():
    counts, calibration = phantom(600, 800, seed=3)
    for c in counts:
        c[300:303] = 60  # the source skipped three pulses
    ours = screen(counts, calibration, material_table=TABLE)
    truth = reference.screen(counts, calibration, TABLE)
    for q, L in zip(ours.q, truth["L"], strict=True):
        assert np.abs(log_of_code(q) - L).max() <= 0.00099
    assert np.abs((ours.z + 0.5) / 16 - np.minimum(truth["z"], 255.5 / 16)).max() <= 0.125
    assert (ours.material == truth["material"]).mean() >= 0.9995
    assert np.array_equal(ours.column_flags, truth["flags"])
    mask = ours.z >= 64
    assert (mask & truth["mask"]).sum() / (mask | truth["mask"]).sum() >= 0.999
    assert len(ours.regions) == len(truth["regions"]) >= 5
    for mine, theirs in zip(ours.regions, truth["regions"], strict=True):
        assert abs(mine["area"] - theirs["area"]) <= max(1, 0.005 * theirs["area"])
        for name in ("col0", "col1", "ch0", "ch1"):
            assert abs(int(mine[name]) - theirs[name]) <= 1
        for name in ("centroid_column", "centroid_channel"):
            assert abs(mine[name] - theirs[name]) <= 0.2
        assert abs(mine["sum_log"] - theirs["sum_log"]) <= 0.001 * theirs["area"] + 5 * abs(
            mine["area"] - theirs["area"]
        )
        assert abs(mine["max_z"] - min(theirs["max_z"], 255 / 16)) <= 0.125
        assert np.abs(mine["material"] - theirs["material"]).sum() <= max(2, 0.02 * theirs["area"])


def test_beam_drops_are_flagged_and_draw_no_edge():
    rng = np.random.default_rng(8)
    clean = (rng.poisson(20000, (300, 120)) + 100).astype(np.uint16)
    calibration = _calibration(120, 1, air=(0, 15))
    whole = screen((clean,), calibration)
    dropped = clean.copy()
    dropped[[0, 1, 150, 151, 299]] = 100
    dropped[200] = 65535
    result = screen((dropped,), calibration)
    flags = np.zeros(300, np.uint8)
    flags[[0, 1, 150, 151, 299]], flags[200] = NO_BEAM, AIR_SATURATED
    assert np.array_equal(result.column_flags, flags)
    assert result.z[flags != 0].max() == 0
    assert len(result.regions) == len(whole.regions) == 0
    near = np.r_[100:149, 153:199]
    assert np.abs(result.z[near].astype(int) - whole.z[near]).max() <= 8
    # the held column is shown
    assert np.abs(log_of_code(result.q[0][150:152]) - log_of_code(result.q[0][149])).max() < 0.03


def test_an_image_without_any_beam_is_flagged_throughout():
    result = screen((np.full((5, 40), 100, np.uint16),), _calibration(40, 1, air=(0, 7)))
    assert (result.column_flags == NO_BEAM).all()
    assert result.z.max() == 0
    assert (result.q[0] == screening.OFFSET).all()


def test_a_drop_in_one_energy_flags_the_column_for_both():
    counts = tuple(np.full((9, 40), 40100, np.uint16) for _ in range(2))
    counts[0][4] = 100
    assert screen(counts, _calibration(40, air=(0, 7))).column_flags.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_display_images_without_air_channels_are_not_divided():
    counts = (np.full((40, 33), 20100, np.uint16),)
    result = screen(counts, _calibration(33, 1))
    assert np.allclose(log_of_code(result.q[0]), np.log(2), atol=0.001)
    assert result.column_flags.max() == 0


def test_full_table_grows_and_at_its_end_reports_the_same_for_any_strips(monkeypatch):
    rng = np.random.default_rng(2)
    counts = _cluttered(rng, 120, 80, 1, 0.05)
    calibration = _calibration(80, 1)
    full = screen(counts, calibration, threshold_z=2.0, min_area=1)
    assert full.overflow == 0
    assert len(full.regions) > 40
    monkeypatch.setattr(screening, "STRIP_LABELS", 4)
    with monkeypatch.context() as once:
        once.setattr(screening._Pipeline, "_labelled_again", None)  # while there is room, nothing is done twice
        for strips in (1, 2, 5):
            _assert_same(screen(counts, calibration, threshold_z=2.0, min_area=1, strips=strips), full)
    monkeypatch.setattr(screening, "MAX_LABELS", 30)
    capped = screen(counts, calibration, threshold_z=2.0, min_area=1, strips=1)
    assert capped.overflow > 0
    for strips in (2, 5, 40):
        _assert_same(screen(counts, calibration, threshold_z=2.0, min_area=1, strips=strips), capped)


def test_results_are_read_only_and_inputs_may_be():
    counts = (np.full((20, 20), 3000, np.uint16),)
    counts[0].flags.writeable = False
    result = screen(counts, _calibration(20, 1))
    for array in (*result.q, result.material, result.z, result.column_flags, result.regions):
        assert not array.flags.writeable


def test_warm_screening_compiles_nothing():
    warm_up()
    with install_recorder("numba:compile") as seen:
        screen((np.full((70, 20), 3000, np.uint16),), _calibration(20, 1))
        screen((np.full((70, 20), 3000, np.uint16),) * 2, _calibration(20), strips=1, material_table=TABLE)
        engine = Engine(_calibration(20, 1))
        engine.push((np.full((70, 20), 3000, np.uint16),))
        engine.finish()
    assert seen.buffer == []
    with install_recorder("numba:compile") as seen:
        numba.njit(lambda x: x + 1)(1)
    assert seen.buffer, "the recorder sees a compilation where there is one"


def test_a_block_that_failed_ends_the_scan(monkeypatch):
    """Whatever is missing then must not be judged as if it had been clear."""
    counts, calibration = phantom(300, 100, seed=5)
    engine = Engine(calibration)
    engine.push(tuple(c[:40] for c in counts))

    def no_memory(*_):
        raise MemoryError("no room")

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(engine._pipeline, "air_levels", no_memory)
        engine.push(tuple(c[40:70] for c in counts))
    for act in (lambda: engine.push(tuple(c[70:] for c in counts)), engine.finish, engine.regions):
        with pytest.raises(DataError, match=r"MemoryError: no room.*anew"):
            act()


def test_strips_that_do_not_run_are_no_result():
    counts, calibration = phantom(300, 100, seed=5)
    with pytest.raises(DataError, match="ran 0 of 2 strips"):
        screen(counts, calibration, map_strips=lambda run, strips: [])
    with pytest.raises(DataError, match="ran 1 of 2 strips"):
        screen(counts, calibration, map_strips=lambda run, strips: [run(i) for i in list(strips)[:1]])


def test_two_scans_on_the_same_buffers_are_refused():
    counts, calibration = phantom(300, 100, seed=5)
    buffers = Buffers()
    first = Engine(calibration, buffers=buffers)
    progress = first.push(counts)
    second = Engine(calibration, buffers=buffers)
    for act in (lambda: first.push(counts), first.finish, lambda: progress.regions):
        with pytest.raises(DataError, match="another scan was begun"):
            act()
    second.push(counts)
    _assert_same(second.finish(), screen(counts, calibration))


def test_engines_in_threads_do_not_touch_each_other():
    images = [phantom(200, 150 + 10 * i, seed=i) for i in range(6)]

    def streamed(i):
        counts, calibration = images[i]
        engine = Engine(calibration, threshold_z=3.0)
        for at in range(0, len(counts[0]), 7 + i):
            engine.push(tuple(c[at : at + 7 + i] for c in counts))
        return engine.finish()

    with ThreadPoolExecutor(4) as pool:
        for i, result in enumerate(pool.map(streamed, range(6))):
            _assert_same(result, screen(*images[i], threshold_z=3.0))


def test_what_a_progress_knew_is_not_told_of_another_time():
    counts, calibration = phantom(300, 200, seed=5)
    engine = Engine(calibration, threshold_z=2.0)
    early = engine.push(tuple(c[:100] for c in counts))
    seen = len(early.regions)
    late = engine.push(tuple(c[100:] for c in counts))
    assert len(late.regions) > seen > 0
    with pytest.raises(DataError, match="after 100 columns were asked for when 200 had come"):
        _ = early.regions


def test_a_full_table_is_told_while_the_scan_runs(monkeypatch):
    monkeypatch.setattr(screening, "STRIP_LABELS", 4)
    rng = np.random.default_rng(2)
    counts = _cluttered(rng, 120, 80, 1, 0.05)
    for most, full in ((screening.MAX_LABELS, False), (30, True)):
        monkeypatch.setattr(screening, "MAX_LABELS", most)
        engine = Engine(_calibration(80, 1), threshold_z=2.0, min_area=1)
        assert (engine.push(counts).overflow > 0) == full
        assert (engine.finish().overflow > 0) == full


def test_a_threshold_between_steps_finds_all_that_reach_it():
    counts, calibration = phantom(300, 200, seed=5)
    truth = reference.screen(counts, calibration, TABLE, threshold_z=2.01)
    regions = screen(counts, calibration, threshold_z=2.01, material_table=TABLE, min_area=1).regions
    assert regions["area"].sum() >= truth["mask"].sum()


def test_a_scan_beyond_any_train_is_copied_seldom(monkeypatch):
    monkeypatch.setattr(screening, "MAX_COLUMNS", 500)
    made = []
    reserved = screening._reserved
    monkeypatch.setattr(screening, "_reserved", lambda *a: made.append(a) or reserved(*a))
    engine = Engine(_calibration(64, 1))
    for _ in range(200):
        engine.push((np.full((20, 64), 3000, np.uint16),))
    assert engine.finish().z.shape == (4000, 64)
    assert sum(columns > 500 for columns, _, _ in made) <= 4 * 12, "by a quarter each time, four images"


@pytest.mark.parametrize(
    ("counts", "more", "words"),
    [
        ((np.zeros((4, 8), np.float32),), {}, "float32"),
        ((np.zeros((4, 16), np.uint16)[:, ::2],), {}, "contiguous"),
        ((np.zeros((4, 8), ">u2"),), {}, ">u2"),
        ((np.zeros((0, 8), np.uint16),), {}, "at least one"),
        ((np.zeros((4, 9), np.uint16),), {}, "8 channels"),
        ((np.zeros((4, 8), np.uint16),) * 2, {}, "2 energies"),
        ((np.zeros((4, 8), np.uint16),), {"threshold_z": 0.0}, "threshold_z"),
        ((np.zeros((4, 8), np.uint16),), {"threshold_z": float("nan")}, "threshold_z"),
        ((np.zeros((4, 8), np.uint16),), {"strips": 0}, "screening: strips"),
        (([[1, 2]],), {}, "are list"),
        ((np.zeros((4, 8), np.uint16),), {"min_area": 0}, "min_area is 0"),
        ((np.zeros((4, 8), np.uint16),), {"min_area": 1 << 50}, "min_area"),
        ((np.zeros((4, 8), np.uint16),), {"min_area": 2.5}, "min_area is 2.5"),
        ((np.zeros((4, 8), np.uint16),), {"material_table": [[0]]}, "material_table is list"),
        ((np.zeros((4, 8), np.uint16),), {"material_table": np.zeros((4, 4), np.uint8)}, "material_table"),
    ],
)
def test_wrong_input_is_refused_in_words(counts, more, words):
    with pytest.raises(DataError, match=words):
        screen(counts, _calibration(8, 1), **more)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bad_channels": np.ones(8, bool)}, "all 8 channels"),
        ({"bad_channels": np.zeros(8, np.uint8)}, "bool mask"),
        ({"dark": (np.zeros(8),)}, "float64"),
        ({"dark": (np.zeros(16, np.float32)[::2],)}, "contiguous"),
        ({"dark": (np.zeros(8, np.float32),) * 3, "inv_gain": (np.zeros(8, np.float32),) * 3}, "one or two"),
        ({"inv_gain": (np.full(8, np.inf, np.float32),)}, "good channel 0"),
        ({"air_channels": (5, 8)}, "air_channels"),
        ({"bad_channels": [False] * 8}, "bad_channels is list"),
        ({"dark": ([0.0] * 8,)}, "dark of energy 0 is list"),
        ({"saturation_value": 0}, "saturation_value is 0"),
        ({"saturation_value": None}, "saturation_value is None"),
        ({"min_air": float("nan")}, "min_air is nan"),
        ({"min_air": float("-inf")}, "min_air"),
    ],
)
def test_wrong_calibration_is_refused_in_words(change, words):
    with pytest.raises(DataError, match=words):
        dataclasses.replace(_calibration(8, 1), **change)
