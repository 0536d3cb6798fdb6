"""The fuser: trees as plain arrays say what their trainer says, files are checked, training finds what was put in."""

import io
import zipfile

import cv2
import numpy as np
import pytest

from scanner_io.errors import DataError
from tests.triage.test_maps import OPAQUE, stacks
from triage.analysis import fuser as fusers
from triage.analysis.fuser import FEATURES, About, Fuser
from triage.analysis.maps import CELL, maps_of, with_bank
from triage.analysis.places import places_of, smoothed
from triage.kernels.tree_sum import tree_sum
from triage.study.train_fuser import Options, cells_of, grown, rows_of, share_of, train

SMALL = Options(trees=20, leaves=8, least_in_leaf=20, clean_cells=1500, threshold_folds=0)


def with_object(seed, x, y, size=28, factor=0.6):
    t = stacks(seed)
    mask = np.zeros(t.shape, bool)
    mask[y : y + size, x : x + size] = True
    return np.where(mask, t * factor, t).astype(np.float32), mask


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    clean = [maps_of(stacks(seed), OPAQUE) for seed in range(4)]
    inserted = []
    for number in range(8):
        t, mask = with_object(number % 4, 60 + 100 * number, 60 + int(rng.integers(300)))
        maps = maps_of(t, OPAQUE)
        share = share_of(mask, np.eye(3), maps.shape)
        inserted.append((f"group {number % 4}", cells_of(maps, rng, SMALL, share)))
    about = About(trained_on=("ab", "cd"), options={"trees": 20})
    return train(clean, [f"group {i}" for i in range(4)], inserted, rng, SMALL, about)


def test_arrays_say_what_scikit_learn_says():
    """Of the same rows with the same weights: values of many kinds, of few, and of one."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(1)
    x = rng.normal(size=(800, 5)).astype(np.float32)
    x[:, 3], x[:, 4] = rng.integers(0, 9, 800), 1.5
    y, weight = x[:, 0] * x[:, 1] > 0.2 * x[:, 2] - 0.1 * x[:, 3], rng.random(800)
    options = Options(trees=30, leaves=9, rate=0.1, least_in_leaf=20, l2=1.0)
    trees = grown(x, y, weight, np.random.default_rng(0), options)
    model = HistGradientBoostingClassifier(
        max_iter=30, max_leaf_nodes=9, min_samples_leaf=20, l2_regularization=1.0, early_stopping=False
    ).fit(x, y, sample_weight=weight * len(weight) / weight.sum())
    total = np.full(len(x), trees.base, np.float32)
    tree_sum(x, trees.feature, trees.threshold, trees.right, trees.value, trees.root, total)
    assert np.allclose(total, model.decision_function(x), atol=1e-4)
    assert {0, 1, 2, 3} <= set(trees.feature) and 4 not in trees.feature


def test_growing_is_the_same_for_the_same_random_numbers():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(600, 4)).astype(np.float32), rng.random(600)
    one, other = (grown(x, x[:, 0] > 0, w, np.random.default_rng(5), SMALL) for _ in range(2))
    assert np.array_equal(one.threshold, other.threshold)
    assert np.array_equal(one.value, other.value)


def test_trained_trees_find_an_object_in_a_scan_they_have_not_seen(trained):
    t, mask = with_object(77, 510, 250)
    score = trained.score(with_bank(maps_of(t, OPAQUE), trained.normal.bank), trained.normal)
    clean = trained.score(with_bank(maps_of(stacks(77), OPAQUE), trained.normal.bank), trained.normal)
    seen = np.isfinite(score)
    first, second = places_of(smoothed(score, seen), 1.0)[:2]
    assert mask[CELL * first.peak[1] + 2, CELL * first.peak[0] + 2]
    assert first.score > second.score + 1
    assert first.score > places_of(smoothed(clean, seen), 1.0)[0].score + 1


def test_score_does_not_depend_on_parts(trained):
    maps = with_bank(maps_of(stacks(5), OPAQUE), trained.normal.bank)
    whole = trained.score(maps, trained.normal)
    turned = trained.score(maps, trained.normal, map_parts=lambda f, parts: [f(p) for p in list(parts)[::-1]])
    assert np.array_equal(whole, turned)
    assert np.isneginf(whole[~maps.seen]).all()


def test_training_cells_lie_on_the_object_and_away_from_it():
    t, mask = with_object(3, 500, 200)
    maps = maps_of(t, OPAQUE)
    share = share_of(mask, np.eye(3), maps.shape)
    assert share.sum() * CELL**2 == pytest.approx(mask.sum(), rel=0.1)
    cells = cells_of(maps, np.random.default_rng(0), Options(), share, cnr=0.3)
    assert cells.weight == pytest.approx(0.3)
    assert (share.ravel()[cells.at[cells.positive]] >= 0.5).all()
    near = cv2.dilate((share > 0).astype(np.uint8), np.ones((13, 13))).ravel() > 0
    assert not near[cells.at[~cells.positive]].any()
    clean = cells_of(maps, np.random.default_rng(0), Options(clean_cells=50))
    assert len(clean.at) == 50
    assert not clean.positive.any()


def test_rows_of_training_are_what_a_search_sees(trained):
    maps = maps_of(stacks(6), OPAQUE)
    cells = cells_of(maps, np.random.default_rng(0), Options(clean_cells=300))
    # the codes of patches are kept in half precision for training
    halved = maps._replace(codes=tuple(c.astype(np.float16).astype(np.float32) for c in maps.codes))
    known = with_bank(halved, trained.normal.bank)
    values = {name: v.ravel()[cells.at] for name, v in known.values.items()}
    searched = fusers.features_of(values, trained.normal, maps.shape, cells.at, FEATURES)
    assert np.allclose(rows_of(cells, trained.normal), searched, rtol=1e-5, atol=1e-5)


# -- files


def test_a_file_gives_the_same_fuser_again(trained, tmp_path):
    path = tmp_path / "fuser.npz"
    path.write_bytes(fusers.to_bytes(trained))
    again = fusers.load(path)
    assert again.about == trained.about
    assert again.features == trained.features
    maps = maps_of(stacks(5), OPAQUE)
    one, other = (f.score(with_bank(maps, f.normal.bank), f.normal) for f in (trained, again))
    seen = np.isfinite(one)
    # the bank is kept in half precision
    assert np.abs(one[seen] - other[seen]).mean() < 0.02
    assert fusers.to_bytes(again) == fusers.to_bytes(fusers.from_bytes(path.read_bytes(), "x"))


def _changed(trained, **changes):
    with np.load(io.BytesIO(fusers.to_bytes(trained))) as stored:
        arrays = dict(stored)
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("right", lambda a: np.where(a > 0, 2**30, a)),
        ("right", lambda a: np.where(a > 0, 0, a)),
        ("feature", lambda a: np.where(a >= 0, 500, a)),
        ("feature", lambda a: np.where(np.arange(a.size) == a.size - 1, 0, a)),
        ("root", lambda a: a + 10**6),
        ("value", lambda a: a[:-1]),
        ("value", lambda a: np.full_like(a, np.nan)),
        ("threshold", lambda a: np.full_like(a, np.nan)),
        ("table_values", lambda a: np.full_like(a, np.inf)),
        ("table_values", lambda a: np.zeros_like(a)),
        ("table_values", lambda a: a[:-1]),
        ("table_values", lambda a: a[:, :4]),
        ("bank_0", lambda a: np.full_like(a, np.nan)),
        ("bank_0", lambda a: np.hstack([a, a])),
        ("bank_0", lambda a: a[0]),
        ("header", lambda a: a[:-1]),
    ],
)
def test_a_damaged_file_is_refused(trained, name, change):
    with pytest.raises(DataError, match=r"fuser f\.npz: not a file of `scanlane study train-fuser`"):
        fusers.from_bytes(_changed(trained, **{name: change}), "f.npz")


def test_what_is_no_fuser_is_refused(trained, tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        fusers.load(tmp_path / "none.npz")
    with pytest.raises(DataError, match=r"not a file of .* begins with b'no archi'"):
        fusers.from_bytes(b"no archive", "x")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("header.npy", "w") as member:
        for _ in range(fusers.MAX_BYTES // (32 << 20) + 1):
            member.write(bytes(32 << 20))
    with pytest.raises(DataError, match="unpacks to 301989888 bytes, at most 268435456"):
        fusers.from_bytes(bomb.getvalue(), "x")
    older = _changed(
        trained, header=lambda a: np.frombuffer(a.tobytes().replace(b'"version":1', b'"version":0'), np.uint8)
    )
    with pytest.raises(DataError, match=r"version 0, 1 is read here; train it anew"):
        fusers.from_bytes(older, "x")


def test_a_feature_that_is_no_map_is_told(trained):
    maps = with_bank(maps_of(stacks(5), OPAQUE), trained.normal.bank)
    for name in ("nothing", "nothing_usual", "x_usual"):
        other = Fuser(
            features=(name,), trees=trained.trees, normal=trained.normal, thresholds={}, about=trained.about
        )  # fmt: skip
        with pytest.raises(DataError, match=f"feature '{name}' is none of the maps"):
            other.score(maps, trained.normal)
