"""Image quality of test objects: simulated ones of known properties, and a real step plate with pairs of wires."""

import json
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from scanner_io.errors import ConfigError, DataError
from tests.service.daemon_rig import ENVIRONMENT
from tests.service.risk_rig import said
from triage.analysis import image_quality as quality
from triage.analysis.image_quality import DUPLEX_MM, Duplex, Edge, Region, Step, TestObject, Wire

TestObject.__test__ = False
AIR = 40_000.0
FINE = 5


def noisy(image, seed=1):
    return np.random.default_rng(seed).poisson(image)


def steps_image(thicknesses, blocks, mu=0.03, block_mu=0.12):
    """A step wedge of steel with a block on every step; mu per mm, of a beam of one energy."""
    image = np.full((100, 100 * len(thicknesses)), AIR)
    parts = []
    for number, (steel, block) in enumerate(zip(thicknesses, blocks, strict=True)):
        left = 100 * number
        image[:, left : left + 100] *= math.exp(-mu * steel)
        image[30:60, left + 20 : left + 50] *= math.exp(-block_mu * block)
        parts.append(Step(
            thickness_mm=steel, plate_mm=block, block=Region(left + 20, left + 50, 30, 60),
            surround=Region(left + 60, left + 95, 30, 60),
        ))  # fmt: skip
    return image, parts


def test_a_blocks_contrast_is_that_of_the_physics():
    image, parts = steps_image([50, 100, 150, 200, 250], [0.5] * 5)
    rows = quality.steps(noisy(image), parts[::-1], 3.0)
    for row in rows:
        level = AIR * math.exp(-0.03 * row["thickness_mm"])
        truth = level * (1 - math.exp(-0.06)) / math.sqrt(level)
        assert abs(row["cnr"] - truth) < 4 * row["cnr_error"] < 0.5 * truth + 1
    assert [r["thickness_mm"] for r in rows] == [50, 100, 150, 200, 250]
    expected = max(
        t for t in (50, 100, 150, 200, 250) if math.sqrt(AIR * math.exp(-0.03 * t)) * (1 - math.exp(-0.06)) > 3
    )
    assert quality.thickest_seen(rows) == expected


def test_a_step_behind_one_that_is_not_seen_does_not_count():
    rows = [{"thickness_mm": t, "seen": s} for t, s in ((50, True), (100, False), (150, True))]
    assert quality.thickest_seen(rows) == 50
    assert quality.thickest_seen(rows[1:]) is None


def test_the_smallest_plate_that_is_seen_is_told_in_per_cent():
    image, parts = steps_image([50] * 4, [2.0, 1.0, 0.5, 0.05], block_mu=0.03)
    rows = quality.steps(noisy(image), parts, 2.0)
    level = math.sqrt(AIR * math.exp(-1.5))
    assert [r["seen"] for r in rows] == [level * (1 - math.exp(-0.03 * p)) > 2.0 for p in (2.0, 1.0, 0.5, 0.05)]
    assert quality.least_contrast(rows) == pytest.approx(2.0)


def test_a_gradient_of_the_beam_is_no_noise():
    rows = np.linspace(1.0, 1.3, 60)[:, None] * np.ones(60)
    image = noisy(10_000 * rows)
    cnr, error = quality.contrast_to_noise(image.astype(float), image.astype(float))
    assert cnr == 0.0 and 0 < error < 0.05
    with pytest.raises(DataError, match="one value"):
        quality.contrast_to_noise(np.ones((20, 20)), np.ones((20, 20)))
    with pytest.raises(DataError, match="16 pixels"):
        quality.contrast_to_noise(np.ones((4, 4)), image)


@pytest.mark.parametrize("sigma", [0.8, 1.2, 2.0])
@pytest.mark.parametrize("across", ["rows", "columns"])
def test_an_edges_modulation_is_that_of_its_blur(sigma, across):
    rows, columns = np.mgrid[: 160 * FINE, : 120 * FINE] / FINE
    fine = np.where(columns - 60 > 0.09 * (rows - 80), 30_000.0, 10_000.0)
    image = noisy(gaussian_filter(fine, sigma * FINE)[FINE // 2 :: FINE, FINE // 2 :: FINE])
    image = image if across == "columns" else image.T
    told = quality.edge(image, Edge(box=Region(0, image.shape[1], 0, image.shape[0]), across=across), "edge", 2.0)
    for name, level in (("mtf50", 0.5), ("mtf10", 0.1)):
        truth = math.sqrt(math.log(1 / level) / 2) / (math.pi * sigma)
        assert told[f"{name}_per_pixel"] == pytest.approx(truth, rel=0.05)
        assert told[f"{name}_per_mm"] == pytest.approx(told[f"{name}_per_pixel"] / 2.0, abs=1e-3)


def test_an_edge_along_the_pixels_cannot_be_measured():
    image = noisy(np.where(np.arange(80) > 40, 30_000.0, 10_000.0) * np.ones((80, 1)))
    with pytest.raises(DataError, match="leans by"):
        quality.edge(image, Edge(box=Region(0, 80, 0, 80), across="columns"), "edge", None)


def wires_image(diameters, pixel_mm=1.0, seed=2):
    """Straight steel wires behind steel, one blank place."""
    image = np.full((40 * len(diameters), 512), 2000.0)
    parts = []
    for number, diameter in enumerate(diameters):
        rows = np.arange(40 * FINE) / FINE * pixel_mm
        chord = 2 * np.sqrt(np.maximum((diameter / 2) ** 2 - (rows - 20.3 * pixel_mm) ** 2, 0))
        profile = gaussian_filter1d(np.exp(-0.05 * chord), 0.6 * FINE).reshape(40, FINE).mean(axis=1)
        image[40 * number : 40 * number + 40] *= profile[:, None]
        parts.append(Wire(diameter_mm=diameter, box=Region(0, 512, 40 * number, 40 * number + 40), along="columns"))
    return noisy(image, seed), parts


@pytest.mark.parametrize("turned", [False, True])
def test_thick_wires_are_seen_and_a_blank_place_is_not(turned):
    image, parts = wires_image([5.0, 3.0, 0.05, 0.0])
    if turned:
        image = image.T
        parts = [
            Wire(diameter_mm=p.diameter_mm, along="rows", box=Region(p.box.first_row, p.box.end_row, 0, 512))
            for p in parts
        ]
    shares = [quality.wire(image, p, "wire", 1.0)["share"] for p in parts]
    assert shares[0] == shares[1] == 1.0 and shares[2] < 0.5 and shares[3] < 0.5


def test_blank_places_pass_in_one_piece_of_many():
    image = noisy(np.full((40, 32 * 2000), 2000.0), seed=5)
    part = Wire(diameter_mm=0.0, box=Region(0, image.shape[1], 0, 40), along="columns")
    assert quality.wire(image, part, "blank", None)["share"] < 0.06


def duplex_image(sigma_mm, pixel_mm=0.1, reverse=False):
    """Pairs of wires on a plate, by their chords, blurred; and each pair's dip of the profile without noise."""
    fine = pixel_mm / 20
    x = np.arange(0, 70, fine)
    chord, places = np.zeros_like(x), []
    at = 4.0
    for diameter in DUPLEX_MM:
        for middle in (at, at + 2 * diameter):
            chord += 2 * np.sqrt(np.maximum((diameter / 2) ** 2 - (x - middle) ** 2, 0))
        places.append((at, at + 2 * diameter))
        at += 4.8
    counts = gaussian_filter1d(AIR * np.exp(-0.8 * chord), sigma_mm / fine).reshape(-1, 20).mean(axis=1)
    depth = -np.log(counts / AIR)
    dips = []
    for a, b in places:
        i, j = round(a / pixel_mm), round(b / pixel_mm)
        first, last = depth[max(0, i - 2) : i + 3].max(), depth[j - 2 : j + 3].max()
        least = depth[i : j + 1].min() if j > i else first
        dips.append((first + last - 2 * least) / (first + last))
    image = noisy(np.tile(counts, (60, 1)))
    return (image[:, ::-1] if reverse else image), dips


@pytest.mark.parametrize(("sigma_mm", "reverse"), [(0.05, False), (0.12, False), (0.12, True), (0.2, False)])
def test_the_pair_that_cannot_be_told_apart_is_that_of_the_profile(sigma_mm, reverse):
    image, dips = duplex_image(sigma_mm, reverse=reverse)
    told = quality.duplex(image, Duplex(box=Region(0, image.shape[1], 0, 60)), 0.1)
    wanted = next(d for d, dip in zip(DUPLEX_MM, dips, strict=True) if dip < quality.DIP)
    merged = DUPLEX_MM.index(told["resolution_mm"])
    assert abs(merged - DUPLEX_MM.index(wanted)) <= 1  # a pair at the very limit falls on either side
    for pair, dip in zip(told["pairs"][: merged - 1], dips, strict=False):
        assert pair["dip"] == pytest.approx(dip, abs=0.08)
    assert told["pixel_mm_by_pairs"] == pytest.approx(0.1, rel=0.1)


def test_a_box_without_pairs_is_told():
    with pytest.raises(DataError, match="no pairs"):
        quality.duplex(noisy(np.full((60, 600), AIR)), Duplex(box=Region(0, 600, 0, 60)), 0.1)
    with pytest.raises(DataError, match="no part of an image"):
        quality.duplex(noisy(np.full((60, 600), AIR)), Duplex(box=Region(0, 700, 0, 60)), 0.1)


def test_a_limit_that_nothing_was_measured_for_is_not_kept():
    told = quality.measure(np.ones((10, 10)), TestObject(name="empty", limits={"penetration_mm": 100.0}))
    assert told["kept"] == {"penetration_mm": False} and not told["passed"]
    with pytest.raises(DataError, match="expected penetration_mm"):
        quality.measure(np.ones((10, 10)), TestObject(name="odd", limits={"depth": 1.0}))


def test_a_wire_in_a_blank_place_makes_all_wires_doubtful():
    image, parts = wires_image([5.0, 5.0])
    parts[1] = Wire(diameter_mm=0.0, box=parts[1].box, along="columns")
    told = quality.measure(image, TestObject(name="odd", pixel_mm=1.0, wires=tuple(parts), limits={"wire_mm": 6.0}))
    assert told["figures"]["wire_mm"] is None and not told["passed"]


OBJECT = """
name = "step plate with duplex wires"
pixel_mm = 0.1
limits = {{resolution_mm = {limit}}}
[duplex]
box = {{first_column = 158, end_column = 708, first_row = 133, end_row = 258}}
"""


def test_the_real_step_plate_shows_thirteen_pairs_whatever_the_noise(shared_data, tmp_path):
    (tmp_path / "object.toml").write_text(OBJECT.format(limit=0.2))
    scans = [shared_data / f"xray16/flatpanel/Step2737-{n}Int.png" for n in ("02", "04", "16", "64")]
    # In a process of its own: matplotlib keeps its fonts open.
    done = subprocess.run(
        [sys.executable, "-m", "triage.cli", "evaluate", "image-quality", *scans, "--json", "--object", "object.toml",
         "--trend", "trend.jsonl", "--out", "trend.png"],
        capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for report in map(json.loads, done.stdout.splitlines()):
        (energy,) = report["energies"].values()
        assert energy["duplex"]["pairs_seen"] == 13 and report["passed"]
        assert energy["figures"]["resolution_mm"] == 0.16
        dips = [p["dip"] for p in energy["duplex"]["pairs"][:7]]
        assert dips == sorted(dips, reverse=True) and dips[0] > 0.98  # the thinner, the less
        assert energy["duplex"]["pixel_mm_by_pairs"] == pytest.approx(0.1, rel=0.1)
    assert len((tmp_path / "trend.jsonl").read_text().splitlines()) == 4
    assert cv2.imread(str(tmp_path / "trend.png")) is not None
    (tmp_path / "object.toml").write_text(OBJECT.format(limit=0.1))
    words = said("evaluate", "image-quality", scans[0], "--object", tmp_path / "object.toml", code=1)
    assert "LIMIT NOT KEPT: resolution_mm 0.1" in words


def test_a_check_scan_is_noted_once_and_a_damaged_trend_is_not_written_over(tmp_path):
    from triage.study import image_quality as study

    report = {"sha256": "ab", "utc": "2026-01-05T06:00:00Z"}
    assert len(study.note(tmp_path / "t.jsonl", report)) == len(study.note(tmp_path / "t.jsonl", report)) == 1
    (tmp_path / "t.jsonl").write_text("{half")
    with pytest.raises(DataError, match="line 1"):
        study.note(tmp_path / "t.jsonl", report)
    assert (tmp_path / "t.jsonl").read_text() == "{half"
    (tmp_path / "o.toml").write_text('name = "x"\nodd = 1\n')
    with pytest.raises(ConfigError, match="odd"):
        study.read_object(tmp_path / "o.toml")
