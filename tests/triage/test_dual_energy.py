"""Model and inversion against Geant4 and real pairs, made by others; and what they refuse or leave open.

Nothing here makes its own truth with the model it tests, but for rules that hold for any model (symmetry, noise, sets).
"""

import msgspec
import numpy as np
import pytest

from drivers.simulated import Config, energy_calibration
from drivers.simulated.attenuation import attenuation
from scanner_io.energy_calibration import Beam, EnergyCalibration, Point, Zone
from scanner_io.errors import DataError
from triage.analysis.dual_energy import (
    ABOVE_ALL,
    ALPHAS,
    ANY_CLASS,
    BELOW_ALL,
    CLASSES,
    HIGH_Z,
    LIGHT_METAL,
    MATERIAL_CODES,
    OPAQUE,
    ORGANIC,
    STEEL,
    Inversion,
    OneGrid,
    class_words,
    codes_of,
    inversion_of,
)  # fmt: skip
from triage.analysis.transparency import fit, fit_zones
from triage.study.dual_energy import Geant4Table, evaluate_dual_energy, judge_scene
from triage.study.dual_energy_kilovolt import nickel


@pytest.fixture(scope="module")
def simulated():
    """The inversion of a simulated lane, whose beam it does not know."""
    return inversion_of(energy_calibration(Config()))


@pytest.fixture
def table(shared_data):
    return Geant4Table(shared_data / "attenuation")


@pytest.fixture
def ten_four(table):
    """10/4 MV, fitted to carbon, iron and lead at one thickness."""
    return inversion_of(table.calibration("4", "10"))


# --- the model


@pytest.mark.parametrize("beam", ["4", "6", "10"])
def test_three_wedges_predict_all_other_materials_and_thicknesses(table, beam):
    errors = table.errors(beam)
    assert errors["all"]["points"] == 317
    assert errors["all"]["mean_percent"] <= 0.4
    assert errors["from_10_g_cm2"]["mean_percent"] <= 0.4
    assert errors["from_10_g_cm2"]["mean_percent"] < 0.5 * errors["from_10_g_cm2"]["free_streaming_mean_percent"]
    # where it misses by more than 2 %: in very thin matter, and in plutonium, whose fluorescence the model has not
    for point in errors["beyond_2_percent"]:
        assert point["areal_density_g_cm2"] < 5 or point["material"] == "Pu", point
        assert point["areal_density_g_cm2"] <= 22, point


def test_a_beam_nobody_told_is_found_from_nine_wedges(table):
    """The shape of an assumed beam is fitted as well where there are wedges of several thicknesses."""
    for name in ("4", "6", "10"):
        rows = [r for r in table.rows if r["beam_MeV"] == name and r["set"] == "test_materials"]
        wedges = [
            Point(
                material=symbol, areal_density_g_cm2=float(r["areal_density_effective_g_cm2"]),
                alpha_low=float(r["alpha"]) * 1.1, alpha_high=float(r["alpha"]),
            )
            for r in rows for number, symbol in (("6", "C"), ("26", "Fe"), ("82", "Pb"))
            if r["material"] == number and r["areal_density_g_cm2"] in ("20", "60", "150")
        ]  # fmt: skip
        model = fit(Beam(endpoint_mv=float(name), air_sd=0.01), tuple(wedges), "high", "test")
        missed = table._missed(model, [r for r in rows if float(r["areal_density_g_cm2"]) >= 10])
        assert np.abs(missed).mean() < 0.0055
        assert np.abs(missed).max() < 0.03
        assert model.model_error >= 0.004


def wedges(*changes):
    """Points of a simulated lane with some replaced: (index, field, value)."""
    points = list(energy_calibration(Config()).zone[0].point)
    for index, name, value in changes:
        points[index] = msgspec.structs.replace(points[index], **{name: value})
    return tuple(points)


@pytest.mark.parametrize(
    ("points", "told"),
    [
        (wedges((3, "areal_density_g_cm2", 40.0)), "polyethylene, 40 g/cm2"),
        (wedges((13, "material", "polyethylene"), (1, "material", "lead")), "contradict their materials"),
        (wedges((10, "alpha_low", 9.0)), "low energy"),
    ],
)
def test_wedges_that_are_not_what_they_are_said_to_be_are_refused(points, told):
    calibration = energy_calibration(Config())
    with pytest.raises(DataError, match="zone\\[0\\]") as caught:
        fit_zones(msgspec.structs.replace(calibration, zone=(Zone(point=points),)))
    assert told in str(caught.value)
    assert "check its material" in str(caught.value)


# --- one pair


@pytest.mark.parametrize(("low", "high", "right"), [("4", "10", 95), ("6", "10", 95), ("4", "6", 95)])
def test_classes_are_right_where_they_can_be_told_apart(table, low, high, right):
    told = table.told(low, high)
    assert told["pairs"] == 259
    assert told["told_apart"] >= 230
    assert told["right_percent"] >= right
    assert told["set_holds_truth"] == told["pairs"]
    assert told["one_class_wrong"] == 0


def test_what_no_two_energies_can_tell_apart_is_said_so(ten_four):
    """At 10/4 MV thin plutonium has the very pair of zinc: never one class, and never the wrong one."""
    thin = ten_four.curves[0].at(0.6)[0]
    heavy, middle = thin[93], thin[25:60]
    assert middle.min() < heavy < middle.max()
    verdict = ten_four.judge(float(heavy), 0.6, 1e9)
    assert verdict.classes == STEEL | HIGH_Z
    assert verdict.words == "ambiguous: steel or high-Z"
    assert verdict.low_z < 35 < 90 < verdict.high_z


def test_noise_opens_the_set_and_averaging_closes_it(ten_four):
    noisy = Inversion(
        msgspec.structs.replace(
            ten_four.calibration,
            low=msgspec.structs.replace(ten_four.calibration.low, air_sd=0.02),
            high=msgspec.structs.replace(ten_four.calibration.high, air_sd=0.02),
        )
    )
    iron = float(ten_four.curves[0].at(2.0)[0][25])
    sets = [noisy.judge(iron, 2.0, n).classes for n in (1, 10, 1000)]
    assert bin(sets[0]).count("1") > bin(sets[2]).count("1") == 1
    assert sets[0] & sets[1] & sets[2] == STEEL


def test_thin_opaque_and_impossible_pairs_are_no_material(ten_four):
    assert ten_four.judge(0.03, 0.02, 1e6).classes == 0
    assert ten_four.judge(13.0, 11.9, 1e6).classes != OPAQUE
    assert ten_four.judge(16.0, 14.0, 1e6).classes == OPAQUE
    assert ten_four.judge(2.0, 2.0, 1e6).classes == ABOVE_ALL
    assert ten_four.judge(5.0, 2.0, 1e6).classes == BELOW_ALL
    assert "more than any material" in ten_four.judge(2.0, 2.0, 1e6).words


def test_scatter_is_not_averaged_away(simulated):
    """Deep in steel a lane with scatter must not call steel anything, however many pixels agree."""
    low, high = (float(attenuation(e, 0.0, 125.0)) for e in (6.0, 9.0))
    verdict = simulated.judge(low, high, 1e9)
    assert verdict.classes & STEEL
    assert bin(verdict.classes & ANY_CLASS).count("1") > 1
    assert simulated.judge(8.0, 7.3, 1e9).classes == OPAQUE


@pytest.mark.parametrize(
    ("densities", "truth"),
    [((60.0, 0.0, 0.0), ORGANIC), ((0.0, 60.0, 0.0), STEEL), ((0.0, 0.0, 60.0), HIGH_Z), ((150.0, 0.0, 0.0), ORGANIC)],
)
def test_a_simulated_ray_is_what_it_went_through(simulated, densities, truth):
    """The simulator's beam is a thin-target one with scalars of its own nature: it is not the inversion's."""
    low, high = (float(attenuation(e, *densities)) for e in (6.0, 9.0))
    verdict = simulated.judge(low, high, 1e6)
    assert verdict.classes & truth
    assert verdict.low_g_cm2 * 0.97 <= sum(densities) <= verdict.high_g_cm2 * 1.03


# --- images


def test_the_map_agrees_with_the_single_pair(simulated):
    rng = np.random.default_rng(8)
    high = rng.uniform(0.2, 4.0, 400)
    low = high * rng.uniform(1.06, 1.24, 400)
    q = [codes_of(a.reshape(20, 20)) for a in (low, high)]
    density, sets = simulated.look_up(*q, strips=3)
    single = [
        simulated.judge((int(a) - 128) / 512, (int(b) - 128) / 512, simulated.pixels)
        for a, b in zip(q[0].ravel(), q[1].ravel(), strict=True)
    ]
    expected = np.array([v.areal_density_g_cm2 for v in single])
    np.testing.assert_allclose(density.ravel(), expected, rtol=0.03, atol=0.3)
    # nodes lie 1/32 and a third of a per cent apart: a pair near the border of a set may fall on its other side
    same = sets.ravel() == np.array([v.classes for v in single])
    assert same.mean() > 0.93


def test_strips_and_zones_do_not_change_the_map(simulated):
    rng = np.random.default_rng(9)
    high = rng.uniform(0.0, 8.0, (50, 30))
    q = codes_of(high * 1.13), codes_of(high)
    whole = simulated.look_up(*q, strips=1)
    for strips in (2, 7, 50):
        for a, b in zip(whole, simulated.look_up(*q, strips=strips), strict=True):
            assert np.array_equal(a, b)
    zone = simulated.calibration.zone[0]
    two = Inversion(
        msgspec.structs.replace(simulated.calibration, zone=(msgspec.structs.replace(zone, end_channel=12), zone))
    )
    assert two.zone_of_channels(30).tolist() == [0] * 12 + [1] * 18
    for a, b in zip(whole, two.look_up(*q), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_material_image_never_says_more_than_the_pair(ten_four):
    """What screening shows from its coarse bins is the pair's own class or ambiguous, never another class."""
    table = ten_four.material_table
    rng = np.random.default_rng(10)
    checked = 0
    for high, ratio in zip(rng.uniform(0.1, 4.5, 600), rng.uniform(1.1, 1.6, 600), strict=True):
        low = high * ratio
        code = int(table[(round(512 * low) + 128) // 8, (round(512 * high) + 128) // 8])
        verdict = ten_four.judge(low, high, ten_four.pixels)
        if 1 <= code <= 4:
            checked += 1
            # a bin at the border of matter reaches over it
            assert verdict.classes & (1 << (code - 1) | ABOVE_ALL | BELOW_ALL)
    assert checked > 150


def test_codes_of_sets():
    assert [int(MATERIAL_CODES[s]) for s in (0, ORGANIC, LIGHT_METAL, STEEL, HIGH_Z)] == [0, 1, 2, 3, 4]
    assert MATERIAL_CODES[STEEL | HIGH_Z] == MATERIAL_CODES[ANY_CLASS] == 5
    assert MATERIAL_CODES[ABOVE_ALL] == MATERIAL_CODES[BELOW_ALL] == 6
    assert MATERIAL_CODES[OPAQUE] == 7
    assert class_words(ORGANIC | LIGHT_METAL | STEEL) == "ambiguous: organic, light metal or steel"
    assert class_words(0) == "too thin to say"
    assert [class_words(1 << b) for b in range(4)] == list(CLASSES)


# --- interlaced columns


def interlaced(shift, blur, columns=400):
    """Return transmissions `(columns,)` of two energies of steel bars; the high pulse comes `shift` columns later.

    blur : standard deviation of focal spot and crystal, in columns
    """
    fine = 64
    images = []
    for endpoint, offset in ((6.0, 0.0), (9.0, shift)):
        x = (np.arange(-4 * fine, (columns + 4) * fine) + 0.5) / fine + offset
        light = np.exp(-attenuation(endpoint, 0.0, np.where(x % 40.3 < 20, 40.0, 5.0)))
        if blur:
            kernel = np.exp(-0.5 * (np.arange(-3 * fine, 3 * fine + 1) / fine / blur) ** 2)
            light = np.convolve(light, kernel / kernel.sum(), "same")
        images.append(light.reshape(-1, fine).mean(axis=1)[4:-4])
    return images


def false_ratio(images):
    """Return the rms and the largest distance of the low energy's alpha from that of steel, edges included."""
    low, high = (-np.log(i)[4:-4] for i in images)
    grams = np.linspace(1, 80, 400)
    off = low - np.interp(high, attenuation(9.0, 0.0, grams), attenuation(6.0, 0.0, grams))
    return off.std(), np.abs(off).max()


@pytest.mark.parametrize("shift", [0.5, -0.5, 0.3])
@pytest.mark.parametrize(("blur", "better"), [(0.0, 2.5), (0.5, 4.5), (0.8, 5.0)])
def test_interlaced_edges_keep_their_material_once_on_one_grid(shift, blur, better):
    """What linear interpolation cannot mend is what the columns undersample: sharper edges are mended less."""
    images = interlaced(shift, blur)
    counts = tuple(np.rint(i * 50_000).astype(np.uint16)[:, np.newaxis] for i in images)
    before = false_ratio(images)
    after = false_ratio([c[:, 0] / 50_000 for c in OneGrid(shift)(counts)])
    assert after[0] <= before[0] / better
    assert after[1] <= before[1] / (better * 0.8)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_one_grid_is_the_same_block_by_block(block):
    rng = np.random.default_rng(4)
    counts = tuple(rng.integers(0, 65536, (150, 9)).astype(np.uint16) for _ in range(2))
    whole = OneGrid(0.5)(counts)
    grid = OneGrid(0.5)
    parts = [grid(tuple(c[i : i + block] for c in counts)) for i in range(0, 150, block)]
    for k in range(2):
        assert np.array_equal(whole[k], np.concatenate([p[k] for p in parts]))
    assert OneGrid(0.0)(counts) is counts


# --- what others made


def test_the_scene_of_seven_boxes_reads_as_rising_atomic_numbers(shared_data):
    """The file names no material; its upper row of boxes goes from light to heavy, its iron can be told."""
    _, _, said = judge_scene(shared_data / "attenuation" / "mev_dual_scene.npz")
    boxes = {}
    for s in said.segments:
        middle = (s.where.first_column + s.where.end_column) / 2
        if s.where.first_channel >= 20 and s.where.end_channel <= 50 and s.area_share > 0.003:
            box = int(np.argmin(np.abs(middle - np.array((25, 50, 75, 100, 125, 150, 175)))))
            if box not in boxes or s.area_share > boxes[box].area_share:
                boxes[box] = s
    assert sorted(boxes) == list(range(7))
    verdicts = [boxes[k].told for k in range(7)]
    lows = [v.low_z for v in verdicts]
    assert lows[:6] == sorted(lows[:6])
    assert [v.classes for v in verdicts] == [
        ORGANIC | LIGHT_METAL, LIGHT_METAL | STEEL, STEEL, STEEL | HIGH_Z, HIGH_Z, HIGH_Z, HIGH_Z
    ]  # fmt: skip
    below = [s.told.classes for s in said.segments if s.where.first_channel >= 50 and s.area_share > 0.02]
    assert ORGANIC in below  # the large tank
    assert {f.kind for f in said.findings} == {"high_z"}
    assert all("which, two energies cannot tell" in f.reason for f in said.findings)
    assert 0.1 < said.wall_alpha[1] < 0.2
    assert said.mass.kg is None
    assert "size of a pixel" in said.mass.words


def test_nickel_is_one_material_at_all_thicknesses_that_are_seen(shared_data):
    found = nickel(shared_data / "xray16" / "flatpanel")
    assert found["penetrated"] == [".10", ".15", ".20"]
    assert found["one_material"]
    assert all(26 <= z <= 31 for z in found["held_out_z"].values())
    assert all(step["same_percent"] > 99 for step in found["pixels"].values())


def test_the_map_is_fast_enough():
    """60 ms on two cores is the bar on a quiet machine; here other work runs beside it, so three times that must do."""
    speed = evaluate_dual_energy(None, None, rounds=5)["speed"]
    assert speed["two_threads_ms"] < 180


def test_curves_reach_over_all_alphas(ten_four):
    (curves,) = ten_four.curves
    assert curves.alpha_low.shape == (94, ALPHAS.size)
    assert (np.diff(curves.areal_density, axis=1) > 0).all()
    assert (np.diff(curves.alpha_low, axis=1) > 0).all()


def test_a_calibration_is_inverted_once():
    calibration = energy_calibration(Config())
    again = msgspec.json.decode(msgspec.json.encode(calibration), type=EnergyCalibration)
    assert inversion_of(calibration) is inversion_of(again)
