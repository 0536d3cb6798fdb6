"""Materials and mass in the judgement of whole scans: simulated vehicles, and what is said where nothing can be."""

import msgspec
import numpy as np
import pytest

from drivers.simulated import TARE_KG, Config, energy_calibration, ground_truth, simulate_passage
from scanner_io.model import Box, LineBlock, Radiograph, ScanStart
from tests import samples
from triage.analysis import pipeline
from triage.analysis.container import Frame
from triage.analysis.declaration import judge_mass
from triage.analysis.dual_energy import ABOVE_ALL, HIGH_Z, STEEL, Inversion, codes_of, inversion_of
from triage.analysis.image import ImageProfile, Stream, judge_image
from triage.analysis.material import Mass, MaterialProfile, judge_material

CONFIG = Config(vehicles=6, seed=21, portal=False, threat_share=0.0, columns=900, channels=448)
CALIBRATION = energy_calibration(CONFIG)
PROFILE = ImageProfile(energy=CALIBRATION)


def radiograph(config, index):
    events = simulate_passage(config, index)
    start = next(e for e in events if isinstance(e, ScanStart))
    blocks = [e for e in events if isinstance(e, LineBlock)]
    counts = tuple(np.concatenate([b.counts[k] for b in blocks]) for k in range(len(start.detector.energies)))
    return Radiograph(
        detector=start.detector, counts=counts, column_utc_ns=np.concatenate([b.column_utc_ns for b in blocks])
    )


def test_the_mass_of_simulated_vehicles_lies_in_its_interval():
    """Truth is what was put into the scene; beam, scatter and noise are the simulator's own."""
    estimated = 0
    for index in range(CONFIG.vehicles):
        truth = ground_truth(CONFIG, index)
        mass = judge_image(radiograph(CONFIG, index), PROFILE).material.mass
        kg = truth.cargo_kg + TARE_KG[truth.feet]
        assert mass.low_kg is not None, mass.words
        assert mass.low_kg <= kg, (truth.cargo, mass.words)
        if mass.high_kg is not None:
            estimated += 1
            assert kg <= mass.high_kg, (truth.cargo, mass.words)
            assert abs(mass.kg / kg - 1) < 0.35
    assert estimated >= 3


def test_screened_while_it_came_the_materials_are_the_same():
    image = radiograph(CONFIG, 0)
    for interlace in (0.0, 0.5):
        profile = ImageProfile(energy=msgspec.structs.replace(CALIBRATION, interlace_columns=interlace))
        stream = Stream(image.detector, profile)
        for first in range(0, image.columns, 50):
            stream.push(tuple(c[first : first + 50] for c in image.counts))
        whole, live = judge_image(image, profile), judge_image(image, profile, stream=stream)
        assert whole.material == live.material
        assert whole.findings == live.findings


def test_without_calibration_nothing_is_said_and_nothing_changes():
    image = radiograph(CONFIG, 1)
    plain, with_energy = judge_image(image), judge_image(image, PROFILE)
    assert plain.material.mass.words == "mass not estimated: no energy calibration"
    assert not plain.material.segments
    others = [f for f in with_energy.findings if f.kind not in ("high_z", "absorbs_more_than_predicted")]
    assert tuple(others) == plain.findings
    assert with_energy.load == plain.load


def test_the_result_says_mass_or_why_there_is_none():
    image = radiograph(CONFIG, 1)
    profile = pipeline.Profile(image=PROFILE)
    scan = samples.scan(radiograph=image, portal=None, declaration=None, quality=(), expected=("radiograph",))
    (said,) = [f for f in pipeline.run(scan, profile).findings if f.kind == "mass"]
    assert said.tier == "note"
    assert said.reason.startswith("mass ")
    one = Radiograph(
        detector=msgspec.structs.replace(
            image.detector, energies=("high",), dark=image.detector.dark[1:], air=image.detector.air[1:]
        ),
        counts=image.counts[1:], column_utc_ns=image.column_utc_ns,
    )  # fmt: skip
    scan = samples.scan(radiograph=one, portal=None, declaration=None, quality=(), expected=("radiograph",))
    (said,) = [f for f in pipeline.run(scan, profile).findings if f.kind == "mass"]
    assert said.reason == "mass not estimated: the radiograph has one energy"
    assert [f.kind for f in pipeline.run(scan, pipeline.Profile()).findings if f.kind == "mass"] == []
    unknown = msgspec.structs.replace(image.detector, column_pitch_mm=None)
    same = Radiograph(detector=unknown, counts=image.counts, column_utc_ns=image.column_utc_ns)
    assert "size of a pixel" in judge_image(same, PROFILE).material.mass.words


@pytest.mark.parametrize(
    ("declared", "mass", "kinds"),
    [
        (20_000.0, Mass(kg=20_000, low_kg=16_000, high_kg=23_000), []),
        (16_500.0, Mass(kg=20_000, low_kg=16_000, high_kg=23_000), []),  # without the container
        (8_000.0, Mass(kg=20_000, low_kg=16_000, high_kg=23_000), ["mass_differs"]),
        (26_000.0, Mass(kg=20_000, low_kg=16_000, high_kg=23_000), ["mass_differs"]),
        (26_000.0, Mass(kg=20_000, low_kg=16_000), []),  # only a lower bound
        (8_000.0, Mass(kg=20_000, low_kg=16_000), ["mass_differs"]),
        (None, Mass(kg=20_000, low_kg=16_000, high_kg=23_000), []),
        (8_000.0, Mass(why="no radiograph"), []),
    ],
)
def test_declared_weight_against_mass(declared, mass, kinds):
    box = Box(first_column=0, end_column=5, first_channel=0, end_channel=5)
    found = judge_mass(samples.declaration(gross_weight_kg=declared), mass, box)
    assert [f.kind for f in found] == kinds
    for f in found:
        assert f.tier == "review"
        assert f"{declared / 1000:.1f} t" in f.reason


# --- segments and findings, on boxes whose pairs come from Geant4


@pytest.fixture
def ten_four(shared_data):
    from triage.study.dual_energy import Geant4Table

    table = Geant4Table(shared_data / "attenuation")
    return table, Inversion(table.calibration("4", "10"), pixels=1.0)


def boxes(table, materials, grams="60", noise=0.01):
    """Return log codes (columns, channels) of boxes of Geant4's materials side by side, in a thin steel container."""
    rng = np.random.default_rng(6)
    shape = (40 * len(materials) + 40, 100)
    images = [np.full(shape, a) for a in (0.11, 0.08)]
    for k, material in enumerate(materials):
        for image, beam in zip(images, ("4", "10"), strict=True):
            row = next(
                r for r in table.rows
                if r["beam_MeV"] == beam and r["material"] == material and r["areal_density_g_cm2"] == grams
                and r["set"] in ("test_materials", "high_Z")
            )  # fmt: skip
            image[30 + 40 * k : 60 + 40 * k, 30:70] += float(row["alpha"])
    noisy = [i + rng.normal(0, noise, shape) * np.exp(i / 2) for i in images]
    frame = Frame(left=0, right=shape[0], roof_left=0, roof_right=0, floor_left=100, floor_right=100, floor_seen=True)
    return tuple(codes_of(i) for i in noisy), frame


def test_boxes_are_segments_of_their_class_and_only_heavy_ones_are_findings(ten_four):
    table, inversion = ten_four
    calibration = msgspec.structs.replace(
        inversion.calibration,
        low=msgspec.structs.replace(inversion.calibration.low, air_sd=0.01),
        high=msgspec.structs.replace(inversion.calibration.high, air_sd=0.01),
    )
    inversion = Inversion(calibration, pixels=1.0)
    q, frame = boxes(table, ("6", "26", "82", "101"))
    said = judge_material(q, samples.detector(100), frame, inversion, MaterialProfile(cells_high=100))
    at = {}
    for s in said.segments:
        at.setdefault((s.where.first_column - 20) // 40, []).append(s)
    classes = {k: max(v, key=lambda s: s.area_share).told for k, v in at.items()}
    assert [classes[k].classes for k in range(4)] == [1, STEEL, HIGH_Z, 1]
    for k in range(4):
        assert classes[k].areal_density_g_cm2 == pytest.approx(62.2, rel=0.06)
    assert said.wall_alpha == pytest.approx((0.11, 0.08), abs=0.01)
    assert [f.kind for f in said.findings] == ["high_z"]
    (found,) = said.findings
    assert found.tier == "review"
    assert found.where.first_column >= 108
    assert found.where.end_column <= 142


def test_many_even_segments_do_not_cut_off_the_heavy_one(ten_four):
    table, inversion = ten_four
    q, frame = boxes(table, ("6", "26", "26", "82"), noise=0.002)
    profile = MaterialProfile(cells_high=100, max_segments=3)
    said = judge_material(q, samples.detector(100), frame, inversion, profile)
    assert len(said.segments) == 3
    assert [f.kind for f in said.findings] == ["high_z"]


def test_what_no_material_absorbs_is_a_finding_of_its_own(ten_four):
    table, inversion = ten_four
    q, frame = boxes(table, ("26",), noise=0.002)
    low, high = (image.copy() for image in q)
    box = (slice(30, 60), slice(30, 70))
    high[box] += np.uint16(0.6 * 512)  # -ln T of the high energy as large as that of the low one
    said = judge_material((low, high), samples.detector(100), frame, inversion, MaterialProfile(cells_high=100))
    assert said.segments[0].told.classes == ABOVE_ALL
    assert {f.kind for f in said.findings} == {"absorbs_more_than_predicted"}
    assert "calibration that has drifted" in said.findings[0].reason


def test_an_empty_picture_and_a_tiny_frame_say_nothing():
    inversion = inversion_of(CALIBRATION)
    q = tuple(np.full((60, 40), 128, np.uint16) for _ in range(2))
    for frame in (
        Frame(left=0, right=60, roof_left=0, roof_right=0, floor_left=40, floor_right=40, floor_seen=True),
        Frame(left=5, right=7, roof_left=3, roof_right=3, floor_left=5, floor_right=5, floor_seen=False),
    ):
        said = judge_material(q, samples.detector(40), frame, inversion)
        assert not said.segments
        assert not said.findings
    dark = tuple(np.full((60, 40), 4019, np.uint16) for _ in range(2))
    frame = Frame(left=0, right=60, roof_left=0, roof_right=0, floor_left=40, floor_right=40, floor_seen=True)
    said = judge_material(dark, samples.detector(40), frame, inversion)
    assert not said.findings
    assert said.mass.high_kg is None
    assert "opaque" in said.mass.words
