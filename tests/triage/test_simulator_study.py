"""How simulated scans are compared with real ones: each statistic on a picture made for it, and the comparison."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from scanner_io import driver
from scanner_io.errors import DataError
from tests.service.daemon_rig import ENVIRONMENT, ROOT
from triage.study import evaluate_simulator as study
from triage.study.texture import NAMES, WORDS, inside, statistics

RNG = np.random.default_rng(5)
SHAPE = 212, 800


def test_even_goods_have_neither_edges_nor_contrast():
    values = statistics(np.full(SHAPE, 0.3, np.float32))
    assert set(values) == set(NAMES) == set(WORDS)
    assert values["mean_t"] == pytest.approx(0.3)
    for name in ("edge_density", "opaque_share", "bright_share", "spread_t", "contrast_1", "contrast_16", "noise"):
        assert values[name] == pytest.approx(0, abs=1e-6)


def test_noise_is_found_beside_edges():
    image = np.where(np.arange(SHAPE[1]) % 40 < 20, 0.3, 0.7) + RNG.normal(0, 0.01, SHAPE)
    assert statistics(image.astype(np.float32))["noise"] == pytest.approx(0.01, rel=0.15)


def test_a_stack_has_its_period_upright_edges_and_contrast_at_its_scale():
    image = np.tile(np.where(np.arange(SHAPE[1]) % 50 < 25, 0.2, 0.6), (SHAPE[0], 1)).astype(np.float32)
    lying = np.tile(np.where(np.arange(SHAPE[0]) % 50 < 25, 0.2, 0.6)[:, np.newaxis], (1, SHAPE[1])).astype(np.float32)
    stack, layers = statistics(image), statistics(lying)
    assert stack["period"] > 1.5
    assert layers["period"] < 0.1
    assert stack["edge_upright"] > 0.99 > 0.01 > layers["edge_upright"]
    assert 4 < stack["correlation_x"] < 25
    assert layers["correlation_x"] == SHAPE[1] // 2  # rows are even: nothing to fall off
    assert stack["contrast_8"] > stack["contrast_1"]


def test_opaque_and_bright_are_shares_of_pixels():
    image = np.full(SHAPE, 0.5, np.float32)
    image[:, :200], image[:, 200:280] = 0.01, 0.9
    values = statistics(image)
    assert values["opaque_share"] == pytest.approx(0.25)
    assert values["bright_share"] == pytest.approx(0.1)


def test_without_a_container_or_on_a_thumbnail_nothing_is_measured():
    assert inside(np.ones((600, 1500), np.float32)) is None
    module = driver.load("simulated")
    config = module.Config(seed=3, columns=900, channels=400, energies=1, portal=False, display=True, bits=8,
                           threat_share=0.0, cargo={"cartons": 1.0})  # fmt: skip
    picture = study.archived(module, config, 0, 90)
    cut = inside(picture)
    assert cut is not None
    assert cut.shape[0] == SHAPE[0]
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert inside(small) is None


def fakes(shift, count=40):
    rng = np.random.default_rng(8)
    return [
        study.Scan(name=str(k), kind="", inside=np.zeros((2, 2)), values={n: float(rng.normal(shift)) for n in NAMES})
        for k in range(count)
    ]


def test_distances_tell_samples_of_one_kind_from_samples_of_two():
    same = study.distances(fakes(0.0)[:20], fakes(0.0)[20:], seed=1)
    other = study.distances(fakes(0.0)[:20], fakes(2.0)[20:], seed=1)
    assert same["energy"] < 0.08 < 0.3 < other["energy"] < 1
    assert same["energy_p"] > 0.05
    assert other["energy_p"] == pytest.approx(0.001)
    assert max(t["d"] for t in same["statistics"].values()) < 0.5
    assert all(t["p"] < 0.05 for t in other["statistics"].values())


def test_a_folder_of_pictures_is_compared_and_drawn(tmp_path):
    """The "real" pictures here are simulated ones too; what is no picture of a container is named with its reason."""
    module = driver.load("simulated")
    real, out = tmp_path / "real", tmp_path / "out"
    real.mkdir()
    for index in range(2):
        config = module.Config(seed=9, columns=800, channels=448, energies=1, portal=False, display=True, bits=8,
                               threat_share=0.0, cargo={"cartons": 1.0})  # fmt: skip
        picture = study.archived(module, config, index, 90)
        cv2.imwrite(str(real / f"{index}.png"), (picture * 255).astype(np.uint8))
    cv2.imwrite(str(real / "air.png"), np.full((300, 600), 255, np.uint8))
    (real / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    words = ["simulator", str(real), "--scans", "2", "--seed", "2", "--out", str(out), "--json"]
    # In a process of its own: matplotlib keeps its fonts open.
    done = subprocess.run(
        [sys.executable, "-m", "triage.cli", "evaluate", *words],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["real_images"] == 2
    assert set(report["real_left_out"]) == {"air.png", "torn.jpg"}
    assert all(g["simulated"] and g["images"] == 2 for g in report["simulated"].values())
    assert 0 <= report["distance"]["alike"]["energy"] <= 1
    assert {Path(p).name for p in report["plots"]} == {"texture.png", "beside_0.png", "kinds_0.png"}
    for path in report["plots"]:
        assert cv2.imread(path).std() > 5
    assert study.table(report).row_count == len(NAMES)
    assert any("SIMULATED" in line for line in study.in_words(report))


def test_a_folder_without_a_container_is_an_error_that_says_so(tmp_path):
    with pytest.raises(DataError, match="no picture in which a container is found"):
        study.evaluate_simulator(tmp_path, scans=1, seed=1)
