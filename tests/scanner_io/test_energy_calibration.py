"""The energy calibration's file: what is read, and that a bad one is told with place, value and what is expected."""

import msgspec
import pytest

from drivers import simulated
from scanner_io import config, energy_calibration
from scanner_io.energy_calibration import EnergyCalibration
from scanner_io.errors import ConfigError

GOOD = """
note = "wedges of a test"
interlace_columns = 0.5
[low]
endpoint_mv = 4.0
air_sd = 0.008
spectrum = "spectrum.csv"
[high]
endpoint_mv = 10.0
air_sd = 0.007
[[zone]]
end_channel = 500
point = [
  {material = "C", areal_density_g_cm2 = 155.2, alpha_low = 6.696, alpha_high = 4.347},
  {material = "steel", areal_density_g_cm2 = 155.2, alpha_low = 6.738, alpha_high = 5.263},
  {material = "Pb", areal_density_g_cm2 = 155.2, alpha_low = 7.567, alpha_high = 7.036},
]
[[zone]]
point = [
  {material = "CH2", areal_density_g_cm2 = 100, alpha_low = 4.4, alpha_high = 3.0},
  {material = "Fe", areal_density_g_cm2 = 100, alpha_low = 4.5, alpha_high = 3.5},
  {material = "W", areal_density_g_cm2 = 100, alpha_low = 4.9, alpha_high = 4.5},
]
"""
SPECTRUM = "# made up\nenergy_mev,low,high\n0.2,1,1\n1.0,3,4\n3.9,0.5,3\n"


@pytest.fixture
def good(tmp_path):
    (tmp_path / "spectrum.csv").write_text(SPECTRUM)
    path = tmp_path / "energy.toml"
    path.write_text(GOOD)
    return path


def problems(path, text):
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        energy_calibration.load(path)
    assert all(p.startswith(f"{path}: ") for p in caught.value.problems)
    return "\n".join(caught.value.problems)


def test_a_good_file_is_read(good):
    read = energy_calibration.load(good)
    assert (read.interlace_columns, len(read.zone), read.zone[0].end_channel) == (0.5, 2, 500)
    assert read.low.spectrum.energy_mev == (0.2, 1.0, 3.9)
    assert read.high.spectrum is None
    assert hash(read) == hash(msgspec.json.decode(msgspec.json.encode(read), type=EnergyCalibration))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("endpoint_mv = 4.0", "endpoint_mv = 12.0"), ["low.endpoint_mv 12", "high.endpoint_mv 10"]),
        (('"Pb"', '"Fe"'), ["zone[0].point", "heavy one"]),
        (('"Pb"', '"Unobtainium"'), ["zone[0].point[2]", "Unobtainium"]),
        (("alpha_low = 6.738", "alpha_low = 5.2"), ["zone[0].point[1] (steel, 155.2 g/cm2)", "exchanged"]),
        (("air_sd = 0.008", "air_sd = -1"), ["low.air_sd"]),
        (("air_sd = 0.007", "air_se = 0.007"), ["air_se"]),
        (("end_channel = 500", ""), ["end_channel"]),
        (('"spectrum.csv"', '"gone.csv"'), ["low.spectrum", "gone.csv", "cannot be read"]),
        (('"C", areal', '"C" areal'), ["not valid TOML"]),
        (("interlace_columns = 0.5", "interlace_columns = 2"), ["interlace_columns"]),
    ],
)
def test_a_bad_file_is_told(good, change, told):
    text = problems(good, GOOD.replace(*change, 1))
    assert all(word in text for word in told), text


@pytest.mark.parametrize(
    ("spectrum", "told"),
    [
        ("energy_mev,high\n1,1\n2,1\n", "columns energy_mev, low, high"),
        ("energy_mev,low\n2,1\n1,1\n", "do not rise"),
        ("energy_mev,low\n1,x\n2,1\n", "numbers"),
        ("energy_mev,low\n1,-1\n2,1\n", "0 or more"),
        ("energy_mev,low\n0.001,5\n2,1\n", "90 %"),
    ],
)
def test_a_bad_spectrum_is_told(good, spectrum, told):
    (good.parent / "spectrum.csv").write_text(spectrum)
    assert told in problems(good, GOOD)


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        energy_calibration.load(tmp_path / "none.toml")


LANE = """
state_dir = "state"
[[lane]]
name = "north"
energy_calibration = "energy.toml"
[[lane.device]]
driver = "file_drop"
path = "/scans"
"""


def test_a_lane_names_its_calibration(good):
    path = good.parent / "lane.toml"
    path.write_text(LANE)
    assert config.load(path).lane[0].energy_calibration == str(good)


def test_a_lanes_bad_calibration_is_a_problem_of_the_configuration(good):
    good.write_text(GOOD.replace('"Pb"', '"Fe"'))
    path = good.parent / "lane.toml"
    path.write_text(LANE)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    (problem,) = caught.value.problems
    assert "lane north.energy_calibration" in problem
    assert "heavy one" in problem


def test_what_is_written_is_read_again(good):
    for read in (energy_calibration.load(good), simulated.energy_calibration(simulated.Config())):
        copy = good.parent / "copy.toml"
        copy.write_text(energy_calibration.to_toml(read))
        assert energy_calibration.load(copy) == read
