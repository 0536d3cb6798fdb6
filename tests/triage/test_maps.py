"""Maps of a straightened container: what each is for, what it must not see; order and threads change nothing."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from tests.triage.test_container import scene
from triage.analysis import normal as normals
from triage.analysis.cargo_grid import straightened
from triage.analysis.container import find_container
from triage.analysis.low_rank import low_rank_residual
from triage.analysis.maps import CELL, COLUMNS, ROWS, maps_of, with_bank
from triage.analysis.normal import UNTRAINED, learn_normal, unfamiliarity, untrained_score
from triage.analysis.patches import DIMENSIONS
from triage.analysis.places import MAX_AREA, MAX_REGIONS, places_of, smoothed
from triage.analysis.position_tables import NORMALISED, sketch, tables_of
from triage.study.image_detectors import UntrainedDetector, groups_of, straight_maps
from triage.study.image_samples import Sample

OPAQUE = 0.03


def stacks(seed, columns=960, noise=0.01):
    """A straightened container with stacks of boxes, floor and end frames: transmission (ROWS, columns)."""
    rng = np.random.default_rng(seed)
    t = np.full((ROWS, columns), 0.88, np.float32)
    for x in range(30, columns - 100, 96):
        t[150:420, x : x + 88] *= 0.5
        t[150:420:45, x : x + 88] *= 0.85
    t[430:] *= 0.4
    t[:, :14] *= 0.4
    t[:, -14:] *= 0.4
    return np.clip(t + rng.normal(0, noise, t.shape), 0.01, 1).astype(np.float32)


@pytest.fixture(scope="module")
def clean():
    return [maps_of(stacks(seed), OPAQUE) for seed in range(4)]


@pytest.fixture(scope="module")
def normal(clean):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normals, "LEAST_KNOWN", 2)
        return learn_normal(clean, np.random.default_rng(0))


def test_maps_have_one_value_per_cell_and_do_not_depend_on_threads(clean):
    with ThreadPoolExecutor(2) as pool:
        again = maps_of(stacks(0), OPAQUE, map_parts=pool.map)
    assert again.values.keys() == clean[0].values.keys()
    for name, values in clean[0].values.items():
        assert values.shape == (ROWS // CELL, 960 // CELL), name
        assert values.dtype == np.float32, name
        assert np.isfinite(values).all(), name
        assert np.array_equal(values, again.values[name]), name


@pytest.mark.parametrize("columns", [COLUMNS[0], 1000, COLUMNS[1]])
def test_every_length_of_container_has_maps(columns):
    maps = maps_of(stacks(0, columns), OPAQUE)
    assert maps.shape == (ROWS // CELL, columns // CELL)
    assert all(codes.shape[-1] == DIMENSIONS for codes in maps.codes)


def test_an_odd_box_stands_out_of_its_like_in_every_map_that_searches_for_it(clean):
    t = stacks(0)
    t[240:280, 440:480] *= 0.6
    cells = slice(240 // CELL, 280 // CELL), slice(440 // CELL, 480 // CELL)
    maps = maps_of(t, OPAQUE)
    for name in ("z_21_81", "dog_8", "self_16", "self_32", "low_rank", "rx", "over_row", "top_hat_41"):
        own, before = np.abs(maps.values[name][cells]).max(), np.abs(clean[0].values[name][cells]).max()
        assert own > 1.5 * before, name


def test_signs_tell_dark_from_light():
    for factor, sign in ((0.6, 1), (1.6, -1)):
        t = stacks(0, noise=0)
        t[300:330, 450:480] *= factor
        maps = maps_of(t, OPAQUE)
        for name in ("z_7_63", "z_21_81", "dog_8", "dog_16", "low_rank", "over_row"):
            assert sign * maps.values[name][315 // CELL, 465 // CELL] > 0, name


def test_an_object_does_not_explain_itself_in_the_low_rank_map():
    rng = np.random.default_rng(1)
    cells = (rng.normal(size=(115, 3)) @ rng.normal(size=(3, 240))).astype(np.float32)
    assert np.abs(low_rank_residual(cells)).max() < 1e-3
    odd = cells.copy()
    odd[50:54, 100:110] += 5
    left = low_rank_residual(odd)
    assert left[50:54, 100:110].min() > 3.5
    assert np.abs(left[:, 140:]).max() < 0.1


def test_what_is_opaque_or_structure_is_never_searched():
    t = stacks(0)
    t[200:300, 300:400] = 0.005
    seen = maps_of(t, OPAQUE).seen
    assert not seen[50:75, 75:100].any()
    assert not (seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -1].any())
    assert seen.mean() > 0.8


def test_a_score_divided_by_what_is_usual_at_its_place_is_about_one_at_structure_and_far_over_at_an_oddity(normal):
    t = stacks(9)
    t[60:90, 460:490] *= 0.6
    maps = with_bank(maps_of(t, OPAQUE), normal.bank)
    usual = normal.tables.normalised("z_21_81", maps.values["z_21_81"])
    assert 0.9 < np.percentile(np.abs(usual[maps.seen]), 97) < 1.2
    floor = np.abs(maps.values["z_21_81"][-8:-3])
    assert np.abs(usual[-8:-3])[:, 10:-10].max() < 2
    assert floor.max() > np.abs(maps.values["z_21_81"][30:100, 10:60]).mean()
    assert usual[75 // CELL, 475 // CELL] > 2


def test_tables_weigh_scans_alike_and_survive_what_nobody_has_seen(clean):
    names = [n for n in NORMALISED if n in clean[0].values]
    one = sketch(clean[0].values, clean[0].seen)
    assert one.shape[0] == len(names)
    unseen = sketch(clean[0].values, np.zeros_like(clean[0].seen))
    assert np.isnan(unseen).all()
    alone, both = tables_of([one], names), tables_of([one, unseen], names)
    assert np.allclose(alone.values, both.values)
    assert (alone.values > 0).all()
    assert np.isfinite(tables_of([unseen], names).values).all()


def test_bank_knows_its_own_textures_and_not_others(clean, normal):
    known = with_bank(maps_of(stacks(5), OPAQUE), normal.bank)
    rng = np.random.default_rng(3)
    lumps = cv2.GaussianBlur(rng.random((ROWS, 960)).astype(np.float32), (0, 0), 6)
    strange = 0.1 + 0.5 * (lumps - lumps.min()) / np.ptp(lumps)
    other = with_bank(maps_of(strange.astype(np.float32), OPAQUE), normal.bank)
    assert unfamiliarity(known) <= 1.2 * normal.familiar
    assert unfamiliarity(other) > 3 * normal.familiar
    empty = np.full((ROWS, 960), 0.88, np.float32)
    assert unfamiliarity(with_bank(maps_of(empty, OPAQUE), normal.bank)) is None


def test_untrained_sum_finds_an_odd_box_and_little_else(normal):
    t = stacks(7)
    t[240:270, 420:450] *= 0.5
    maps = with_bank(maps_of(t, OPAQUE), normal.bank)
    assert set(UNTRAINED) <= maps.values.keys()
    score = untrained_score(maps, normal)
    first, second = places_of(smoothed(score, maps.seen), 0.4 * float(score.max()))[:2]
    assert (420 <= CELL * first.peak[0] <= 450) and (240 <= CELL * first.peak[1] <= 270)
    assert first.score > 1.5 * second.score


# -- places


def test_places_are_few_small_and_apart():
    rng = np.random.default_rng(0)
    score = cv2.GaussianBlur(rng.normal(size=(115, 240)).astype(np.float32), (0, 0), 2)
    seen = np.ones(score.shape, bool)
    found = places_of(smoothed(score, seen), drop=100.0)
    assert len(found) == MAX_REGIONS
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    for place in found:
        x0, y0, x1, y1 = place.at
        assert (x1 - x0) * (y1 - y0) <= MAX_AREA * score.size
        assert x0 <= place.peak[0] < x1
        assert y0 <= place.peak[1] < y1
    for a, b in itertools.pairwise(found):
        assert max(abs(a.peak[0] - b.peak[0]), abs(a.peak[1] - b.peak[1])) >= 6


def test_no_place_where_nothing_may_be_told():
    score = np.zeros((115, 240), np.float32)
    score[20:30, 20:30] = 5
    seen = np.zeros(score.shape, bool)
    assert places_of(smoothed(score, seen), 1.0) == []
    seen[60:, :] = True
    assert all(p.peak[1] >= 60 for p in places_of(smoothed(score, seen), 1.0))


# -- as an evaluation asks


def sample(image, number):
    return Sample(image, find_container(image), f"000{number}", "stacked", f"sha {number}")


def test_untrained_detector_points_at_a_place_of_the_image():
    scans = []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(0, 0.005, (600, 1500)).astype(np.float32)
        image = np.clip(scene() + noise, 0, 1)
        scans.append(sample(image, seed))
    detector = UntrainedDetector()
    with pytest.raises(ValueError, match="untrained: call fit before regions"):
        detector.regions(scans[0])
    detector.fit(scans[:2], np.random.default_rng(0))
    image = scans[2].image.copy()
    image[110:135, 700:730] *= 0.4
    regions = detector.regions(scans[2]._replace(image=image))
    x, y = regions[0].peak
    assert 697 <= x <= 733
    assert 107 <= y <= 138
    x0, y0, x1, y1 = regions[0].box
    assert x0 <= x <= x1
    assert y0 <= y <= y1
    clean = detector.regions(scans[2])
    assert clean[0].score < 0.7 * regions[0].score


def test_straightening_an_image_keeps_places():
    image = scene(tilt=0)
    frame = find_container(image)
    image[200:220, 600:620] = 0.1
    grid, to_grid = straightened(image, frame.corners, ROWS, 2 * CELL, *COLUMNS)
    assert grid.shape[0] == ROWS
    assert grid.shape[1] % (2 * CELL) == 0
    x, y = (int(v) for v in cv2.perspectiveTransform(np.array([[(610.0, 210.0)]]), to_grid)[0, 0])
    assert grid[y, x] == pytest.approx(0.1, abs=0.02)
    maps, matrix = straight_maps(Sample(image, frame, "0000", "empty", "aa"))
    assert np.array_equal(matrix, to_grid)
    assert maps.shape == (grid.shape[0] // CELL, grid.shape[1] // CELL)


def test_scans_that_look_alike_may_not_teach_each_other():
    alike = [sample(scene(), 1), sample(scene(), 1)]
    assert groups_of(alike) == ["0001", "0001"]
    rng = np.random.default_rng(0)
    noise = np.clip(scene(load="empty") - rng.random((600, 1500)).astype(np.float32) / 2, 0.05, 1)
    unknown = [s._replace(commodity="undeclared") for s in (*alike, sample(scene(), 1)._replace(image=noise))]
    groups = groups_of(unknown)
    assert groups[0] == groups[1] != groups[2]
