"""The simulated radiograph against published transmission, and its noise against Poisson's law."""

import numpy as np
import pytest

from drivers.simulated.attenuation import Cells, attenuation, coefficient, split
from drivers.simulated.config import Config
from drivers.simulated.radiograph import ELECTRONIC_NOISE, FULL_SCALE, Conditions, Detector
from drivers.simulated.scene import Prism, Scene, Textures

STEEL_G_CM3 = 7.87
# Schiff spectrum, 3 cm of cadmium tungstate, no scatter
STEEL_CM = (1, 10, 20, 30)
STEEL_TRANSMISSION = {4.0: (0.641, 2.4e-2, 1.0e-3, 5.0e-5), 6.0: (0.682, 3.8e-2, 2.3e-3, 1.6e-4),
                      9.0: (0.716, 5.4e-2, 4.1e-3, 3.3e-4)}  # fmt: skip
# One kilogram cubes, 6 MV
CUBES = {"water": (10.0, 1.0, 0.586), "iron": (5.0, 7.87, 0.174), "lead": (4.45, 11.35, 0.077),
         "tungsten": (3.7, 19.3, 0.033)}  # fmt: skip


@pytest.mark.parametrize("endpoint_mv", STEEL_TRANSMISSION)
def test_steel_lets_through_what_the_table_says(endpoint_mv):
    depths = STEEL_G_CM3 * np.array(STEEL_CM, float)
    seen = np.exp(-attenuation(endpoint_mv, 0.0, depths))
    np.testing.assert_allclose(seen, STEEL_TRANSMISSION[endpoint_mv], rtol=0.04)


@pytest.mark.parametrize("material", CUBES)
def test_a_kilogram_of_each_material(material):
    cm, density, transmission = CUBES[material]
    parts = np.array(split(material)) * cm * density
    assert np.exp(-attenuation(6.0, *parts)) == pytest.approx(transmission, rel=0.05)


@pytest.mark.parametrize(("energy_mev", "iron"), [(1.0, 0.05995), (6.0, 0.03057)])
def test_coefficients_are_the_published_ones(energy_mev, iron):
    assert coefficient("iron", energy_mev) == pytest.approx(iron, rel=3e-4)  # the sum of parts of four digits


def test_the_grid_agrees_with_the_sum_over_the_spectrum():
    rng = np.random.default_rng(4)
    light, iron = rng.uniform(0, 200, 500).astype(np.float32), rng.uniform(0, 250, 500).astype(np.float32)
    for endpoint in (6.0, 9.0):
        np.testing.assert_allclose(
            Cells(light, iron).attenuation(endpoint), attenuation(endpoint, light, iron), rtol=0.004
        )


def lane(**changes):
    config = Config(**{"columns": 256, "channels": 256, "vehicles": 1, **changes})
    return config, Detector(config)


def still(config):
    """Return a source that does not flicker and a vehicle that does not bounce."""
    pulse = tuple(np.ones(config.columns, np.float32) for _ in range(config.energies))
    return Conditions(pulse=pulse, shift_mm=np.zeros(config.columns))


def image(config, detector, solids, seed=3):
    """Return the counts of every energy, `(columns, channels)`."""
    rng = np.random.default_rng(seed)
    blocks = detector.lines(Scene(solids), Textures(detector.view, rng), still(config), rng)
    parts = list(zip(*[counts for _, counts in blocks], strict=True))
    return [np.concatenate(p).astype(float) for p in parts]


def test_air_counts_have_poisson_variance():
    config, detector = lane(quanta=20_000.0)
    for energy, counts in enumerate(image(config, detector, [])):
        good = ~detector.bad
        signal = counts[:, good] - detector.dark[energy][good]
        per_quantum = FULL_SCALE / detector.quanta[energy] * detector.gain[energy][good]
        expected = signal.mean(axis=0) * per_quantum + (ELECTRONIC_NOISE * detector.gain[energy][good]) ** 2 + 1 / 12
        ratio = signal.var(axis=0, ddof=1) / expected
        # the mean of 250 channels' variances of 256 lines each has a standard error of 0.6 %
        assert ratio.mean() == pytest.approx(1.0, abs=0.02)
        np.testing.assert_allclose(signal.mean(axis=0), FULL_SCALE * detector.gain[energy][good], rtol=0.003)


def test_a_steel_plate_is_seen_with_the_transmission_of_its_thickness_and_little_scatter():
    config, detector = lane(quanta=1e6)
    plate = Prism(material="iron", g_cm3=STEEL_G_CM3, x0=0.0, x1=16_500.0, h0=200.0, h1=3000.0, z0=0.0, z1=100.0)
    level = int(np.argmin(np.abs(detector.view.y_mm - 1100.0)))  # the ray that leaves the source level
    for energy, counts in enumerate(image(config, detector, [plate])):
        rows = [c for c in range(level - 6, level + 7) if not detector.bad[c]]
        seen = ((counts - detector.dark[energy]) / (FULL_SCALE * detector.gain[energy]))[:, rows].mean()
        table = STEEL_TRANSMISSION[detector.endpoints_mv[energy]][1]
        assert table * 0.96 < seen < table * 1.04 + 0.004


def test_dual_energy_tells_plastic_from_steel():
    """Low against high attenuation, at equal high attenuation, is larger for light materials."""
    steel = attenuation(9.0, 0.0, 40.0)
    plastic = np.linspace(1, 200, 2000)
    same = plastic[np.argmin(np.abs(attenuation(9.0, plastic, 0.0) - steel))]
    assert attenuation(6.0, same, 0.0) / steel > 1.02 * attenuation(6.0, 0.0, 40.0) / steel
