"""Insertions: objects change only where their mask says, both families, and obey bit depth, bands and physics."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from scanner_io.errors import DataError
from triage.study import insertions, insertions_test, insertions_train
from triage.study.insertions import BANDS, FAMILIES, KINDS, OPAQUE, Scale, insert

CORNERS = np.array([(30, 20), (570, 26), (570, 246), (30, 240)], np.float32)
RNG = np.random.default_rng


def scene(top: int = 255) -> np.ndarray[Any, Any]:
    """A container of walls (.85), with cargo of .4, .15 and .01 in columns, cargo up to two thirds of the height."""
    t = np.ones((260, 600), np.float32)
    cv2.fillPoly(t, [CORNERS.astype(np.int32)], 0.85)
    for first, level in ((100, 0.4), (210, 0.15), (320, 0.01)):
        t[100:232, first : first + 100] = level
    noise = RNG(5).normal(0, 0.004, t.shape)
    return np.clip(np.rint((t + noise) * top), 0, top).astype(np.uint8 if top == 255 else np.uint16)


def one(kind: str, family: str, seed: int = 1, **more: Any) -> insertions.Insertion:
    image = more.pop("image", None)
    found = insert(scene() if image is None else image, CORNERS, kind, family, RNG(seed), **more)
    assert found is not None
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_changes_lie_in_and_fill_the_mask(kind: str, family: str) -> None:
    for seed in range(4):
        found = one(kind, family, seed)
        clean = scene()
        changed = found.image != clean
        around = cv2.dilate(found.mask.astype(np.uint8), np.ones((13, 13), np.uint8)) != 0
        assert changed.any() and not (changed & ~around).any()
        assert found.image.dtype == clean.dtype and found.image.shape == clean.shape
        # a tenth of the top is more than a grey level where the object and the light are strong enough; a void stops
        # at the brightness of the walls
        if kind != "void" and found.background_t > 0.3 and abs(found.alpha) > 0.3:
            assert changed[found.mask].mean() > 0.95
        darker = found.image.astype(int) - clean
        assert changed[found.mask].mean() > 0.25
        assert (darker >= 0).all() if kind == "void" else (darker <= 0).all()
        assert found.kind == kind and found.family == family and found.cnr > 0
        assert found.background_t == pytest.approx(float(np.median(clean[found.mask] / np.float32(255))))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_placebo_is_the_clean_image(kind: str, family: str) -> None:
    scale = Scale(dark=100.0, air=60_000.0, top=65_535, counts_per_quantum=6.0, physical=True)
    for image, how in ((scene(), None), (scene(65_535), scale)):
        found = one(kind, family, image=image, scale=how, placebo=True)
        assert (found.image == image).all() and found.alpha == 0 and found.cnr == 0 and found.mask.any()


@pytest.mark.parametrize("band", [*BANDS, OPAQUE])
def test_background_is_the_one_asked_for(band: insertions.Band) -> None:
    for family in FAMILIES:
        for seed in range(3):
            found = one("compact", family, seed, band=band)
            assert band[0] <= found.background_t < band[1]
            assert found.in_cargo == (0.05 <= found.background_t < 0.6)


def test_an_item_gets_free_space_and_a_void_cargo() -> None:
    assert all(one("item", f, s).background_t >= 0.6 for f in FAMILIES for s in range(3))
    assert all(one("void", f, s).background_t < 0.6 for f in FAMILIES for s in range(3))


def test_no_place_is_none_and_not_another_place() -> None:
    full = np.full((260, 600), 20, np.uint8)
    assert insert(full, CORNERS, "item", "test", RNG(1)) is None
    assert insert(full, CORNERS, "compact", "train", RNG(1), band=(0.6, 1.1)) is None
    assert insert(full, CORNERS * 0.05, "compact", "train", RNG(1)) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wall_reaches_from_floor_to_roof_near_an_end(family: str) -> None:
    for seed in range(6):
        rows, columns = np.nonzero(one("slab", family, seed).mask)
        assert np.ptp(rows) > 0.8 * 220
        assert columns.max() < 30 + 0.25 * 540 or columns.min() > 570 - 0.25 * 540


def test_product_by_hand() -> None:
    clean = np.full((4, 4), 200, np.uint8)
    m = np.array([[0, 0.5, 1, 0]] * 4, np.float32)
    counts = insertions._through(clean, m, 0.7, Scale(), RNG(1))
    assert counts[0].tolist() == [200, round(200 * np.exp(-0.35)), round(200 * np.exp(-0.7)), 200]


def test_binomial_thinning_has_the_noise_of_nature() -> None:
    gain, quanta = 8.0, 400
    scale = Scale(dark=50.0, air=50.0 + gain * quanta, top=65_535, counts_per_quantum=gain)
    clean = (50 + gain * RNG(1).poisson(quanta, (300, 300))).astype(np.uint16)
    after = insertions._through(clean, np.ones((300, 300), np.float32), 1.0, scale, RNG(2)).astype(float) - 50
    expected = gain * quanta * np.exp(-1)
    assert after.mean() == pytest.approx(expected, rel=0.01)
    assert after.var() == pytest.approx(gain * expected, rel=0.03)  # Poisson; scaling alone would give e^-1 of it


def test_hardening_is_that_of_10_mm_of_steel() -> None:
    # Contrast behind 0, 50, 100, 200 and 300 mm of steel at 6 MV, and the transmission of that steel.
    contrast = np.array([0.318, 0.270, 0.253, 0.239, 0.233])
    t = np.array([1.0, 0.183, 3.8e-2, 2.3e-3, 1.6e-4])
    weaker = np.log(1 - contrast) / np.log(1 - contrast[0])
    assert insertions._hardened(t) == pytest.approx(weaker, abs=0.015)


def test_scatter_is_not_attenuated() -> None:
    scale = Scale(air=60_000.0, top=65_535, physical=True)
    clean = np.full((3, 3), 600, np.uint16)  # T = .01, of which .004 are scatter
    after = insertions._through(clean, np.ones((3, 3), np.float32), 50.0, scale, RNG(1))
    assert (after == 240).all()


def test_families_are_of_their_own_make() -> None:
    """The two generators share no code, and nothing that judges may import either."""
    folder = Path(insertions_test.__file__).parents[1]
    for module in (insertions_test, insertions_train):
        assert imported(Path(module.__file__)) <= {"__future__", "typing", "cv2", "numpy", "numpy.typing"}
    for path in [*(folder / "analysis").glob("*.py"), *(folder / "service").glob("*.py")]:
        assert not any("insertions" in name or name.startswith("triage.study") for name in imported(path)), path


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}


@pytest.mark.parametrize("kind", KINDS)
def test_profiles_of_the_families_differ(kind: str) -> None:
    """Flat silhouettes against ways through solids: the share of a profile at its top tells them apart."""
    flat = {}
    for name, draw in (("train", insertions_train.draw), ("test", insertions_test.draw)):
        rng = RNG(3)
        tops = []
        for _ in range(12):
            profile, _ = draw(kind, 1.5, 300, rng)
            assert profile.dtype == np.float32 and profile.min() >= 0 and profile.max() == pytest.approx(1.0)
            tops.append((profile > 0.95).sum() / (profile > 0.5).sum())
        flat[name] = np.mean(tops)
    assert flat["train"] > flat["test"] + 0.1


def test_same_seed_same_insertion() -> None:
    a, b = one("metal", "test", 4), one("metal", "test", 4)
    assert (a.image == b.image).all() and a[2:] == b[2:]


def test_wrong_input_is_told() -> None:
    with pytest.raises(DataError, match="kind 'bomb'"):
        insert(scene(), CORNERS, "bomb", "test", RNG(1))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="float32"):
        insert(scene().astype(np.float32), CORNERS, "compact", "test", RNG(1))
