"""Image quality of test objects: simulated ones of known properties, and a real step plate with pairs of wires."""

import json
import math
import subprocess
import sys

import cv2
import msgspec
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from scanner_io.errors import ConfigError, DataError
from tests import samples
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
    left, right = Region(10, 40, 10, 50), Region(50, 90, 10, 50)
    falling = 10_000 * np.linspace(1.0, 0.8, 100) * np.ones((60, 1))  # by a tenth from the one place to the other
    cnr, error = quality.contrast_to_noise(noisy(falling), left, right)
    assert abs(cnr) < 3 * error and error < 0.3
    with_block = falling.copy()
    with_block[10:50, 10:40] -= 500  # five standard deviations
    cnr, error = quality.contrast_to_noise(noisy(with_block), left, right)
    assert cnr == pytest.approx(500 / np.sqrt(8_600), abs=3 * error)
    brighter, _ = quality.contrast_to_noise(noisy(2 * falling - with_block), left, right)
    assert brighter < -3
    with pytest.raises(DataError, match="one value"):
        quality.contrast_to_noise(np.ones((60, 100)), left, right)
    with pytest.raises(DataError, match="16 pixels"):
        quality.contrast_to_noise(falling, Region(0, 4, 0, 4), right)


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


def test_a_system_that_is_sharper_than_a_picture_can_tell_keeps_its_limit():
    rows, columns = np.mgrid[: 160 * FINE, : 120 * FINE] / FINE
    fine = np.where(columns - 60 > 0.09 * (rows - 80), 30_000.0, 10_000.0)
    image = noisy(fine.reshape(160, FINE, 120, FINE).mean(axis=(1, 3)))
    one = Edge(box=Region(0, 120, 0, 160), across="columns")
    told = quality.measure(image, TestObject(name="edge", pixel_mm=2.0, edges=(one,), limits={"mtf10_per_mm": 0.25}))
    assert (told["figures"]["mtf10_per_mm"], told["bounds"]) == (0.25, {"mtf10_per_mm": "at least"})
    assert told["passed"]
    more = TestObject(name="edge", pixel_mm=2.0, edges=(one,), limits={"mtf10_per_mm": 0.3})
    assert not quality.measure(image, more)["passed"]


def test_all_pairs_told_apart_is_better_than_the_finest():
    told = {"pairs": [{"diameter_mm": 0.8, "dip": 0.9}, {"diameter_mm": 0.63, "dip": 0.7}], "resolution_mm": None}
    assert quality._parted(told) == (0.63, True)
    assert quality._parted({**told, "resolution_mm": 0.63}) == (0.63, False)


def test_what_was_recorded_raw_is_measured_without_its_channels_gains():
    from triage.study import image_quality as study

    image = samples.radiograph(columns=60)
    air, dark = image.detector.air[-1].astype(np.float64), image.detector.dark[-1].astype(np.float64)
    gains = np.linspace(0.8, 1.2, air.size)
    part = np.full((60, air.size), 0.5)
    counts = np.round(dark + gains * (air - dark) * part).astype(np.uint16)
    detector = msgspec.structs.replace(
        image.detector, air=(*image.detector.air[:-1], (dark + gains * (air - dark)).astype(np.float32)), state="raw"
    )
    raw = msgspec.structs.replace(image, detector=detector, counts=(*image.counts[:-1], counts))
    assert np.allclose(study._transmitted(raw, -1), 0.5, atol=1e-3)


@pytest.mark.parametrize("state", ["raw", "display"])
def test_a_check_scans_noise_is_not_that_of_its_channels_gains(state, tmp_path):
    from scanner_io import recording
    from scanner_io.foreign import ForeignFiles
    from triage.study import image_quality as study

    rng = np.random.default_rng(4)
    gains = rng.uniform(0.9, 1.1, 100)
    air, dark = (100 + 30_000 * gains).astype(np.float32), np.full(100, 100, np.float32)
    seen = np.full((120, 100), 0.5)
    seen[20:50, 30:60] = 0.48
    seen += rng.normal(0, 0.01, seen.shape)
    bad = np.arange(100) == 42  # in the block
    counts = np.where(bad, 65535, dark + (air - dark) * seen).astype(np.uint16)
    detector = samples.detector(
        100, ("one",), dark=(dark,), air=(air,), bad_channels=bad, air_channels=None, state=state, first_channel="top"
    )
    image = samples.radiograph(columns=120, channels=100, energies=("one",), detector=detector, counts=(counts,))
    recording.write(tmp_path / "a.scan.h5", samples.scan(radiograph=image), codec="none")
    step = Step(thickness_mm=100, block=Region(20, 50, 30, 60), surround=Region(60, 110, 30, 60))
    with ForeignFiles() as readers:
        report = study.check_scan(tmp_path / "a.scan.h5", TestObject(name="plate", penetration=(step,)), readers)
    (told,) = report["energies"]["one"]["penetration"]
    if state == "raw":
        assert told["cnr"] == pytest.approx(2.0, abs=4 * told["cnr_error"]) and told["cnr_error"] < 0.15
        assert "bridged" in report["scale"]
    else:
        assert told["cnr"] < 1.0 and "taken as linear" in report["scale"]


def test_pairs_of_wires_are_the_same_in_counts_and_in_transmission():
    image, _ = duplex_image(0.12)
    part = Duplex(box=Region(0, image.shape[1], 0, 60))
    assert quality.duplex(image / AIR, part, 0.1) == quality.duplex(image, part, 0.1)


def test_sharp_wires_keep_a_limit_that_the_finest_pair_shows():
    image, _ = duplex_image(0.01, pixel_mm=0.05)
    end = int((4.0 + 6.5 * 4.8 - 1.5) / 0.05)  # seven pairs are in the box
    part = Duplex(box=Region(0, end, 0, 60))
    for limit, kept in ((DUPLEX_MM[6], True), (DUPLEX_MM[7], False)):
        told = quality.measure(image, TestObject(name="w", pixel_mm=0.05, duplex=part, limits={"resolution_mm": limit}))
        assert told["figures"]["resolution_mm"] == DUPLEX_MM[6] and told["bounds"] == {"resolution_mm": "less than"}
        assert told["passed"] is kept


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_is_no_sharpness(seed):
    rows, columns = np.mgrid[:160, :120]
    image = np.where(columns - 60 > 0.09 * (rows - 80), 10_100.0, 10_000.0)
    image = gaussian_filter(image, 3.0) + np.random.default_rng(seed).normal(0, 10, image.shape)
    one = Edge(box=Region(0, 120, 0, 160), across="columns")
    try:
        told = quality.edge(image, one, "edge", 1.0)
    except DataError:
        return
    assert not told["mtf10_is_bound"]


def test_a_place_that_cannot_be_told_from_a_gradient_is_refused():
    image = noisy(np.full((60, 200), 10_000.0))
    with pytest.raises(DataError, match="looks like a block"):
        quality.contrast_to_noise(image, Region(0, 100, 10, 11), Region(0, 100, 20, 21))
    with pytest.raises(DataError, match="overlap"):
        quality.contrast_to_noise(image, Region(0, 100, 10, 30), Region(50, 150, 10, 30))


def test_a_steep_gradient_without_a_block_is_not_seen_nor_is_a_brighter_block():
    falling = 10_000 * np.linspace(1.0, 0.8, 100) * np.ones((60, 1))
    step = Step(thickness_mm=100, block=Region(50, 90, 10, 50), surround=Region(10, 40, 10, 50))
    brighter = falling.copy()
    brighter[10:50, 50:90] += 1000
    for image in (falling, brighter):
        (row,) = quality.steps(noisy(image), [step], 3.0)
        assert not row["seen"] and row["cnr"] < 1


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
