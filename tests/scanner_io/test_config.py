import subprocess
import sys

import pytest

from scanner_io import config
from scanner_io.errors import ConfigError

GOOD = """
state_dir = "state"
[storage]
codec = "gzip"
[[lane]]
name = "north"
join_window_s = 8
[[lane.device]]
driver = "rpm_rapiscan"
address = "tcp://127.0.0.1:1601"
[[lane.device]]
driver = "file_drop"
path = "/scans"
"""


def test_a_good_file_is_read(tmp_path):
    path = tmp_path / "lane.toml"
    path.write_text(GOOD)
    loaded = config.load(path)
    assert loaded.state_dir == str(tmp_path / "state")
    assert loaded.storage.codec == "gzip"
    (lane,) = loaded.lane
    assert (lane.name, lane.join_window_s) == ("north", 8.0)
    assert [d.driver for d in lane.device] == ["rpm_rapiscan", "file_drop"]
    assert lane.device[0].config.address == "tcp://127.0.0.1:1601"


def test_every_mistake_is_reported_at_once_with_path_value_and_expectation():
    text = """
    state_dir = 5
    colour = "red"
    [storage]
    codec = "zip"
    min_free_mb = -1
    [dispatch]
    bind = "tcp://0.0.0.0:7410"
    lease_s = "long"
    [[lane]]
    name = "North Lane"
    join_widow_s = 3
    [[lane.device]]
    driver = "rpm_rapiscam"
    [[lane.device]]
    driver = "rpm_rapiscan"
    [[lane]]
    name = "south"
    """
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "lane.toml", base=config.Path())
    problems = caught.value.problems
    assert all(p.startswith("lane.toml: ") for p in problems)
    told = "\n".join(problems)
    for expected in (
        "state_dir: 5, expected a text",
        "colour: unknown key (value 'red')",
        "storage.codec: 'zip', expected one of 'bitshuffle-lz4', 'gzip', 'none'",
        "storage.min_free_mb: -1, expected a whole number at least 0",
        "dispatch.lease_s: 'long', expected a number at least 1, at most 3600",
        "lane[0].name: 'North Lane', expected a text of the form",
        "lane[0].join_widow_s: unknown key (value 3); did you mean 'join_window_s'?",
        "lane[0].device[0].driver: driver 'rpm_rapiscam': not known",
        "lane[0].device[1].address: missing, expected a text",
        "lane[1].device: nothing, expected at least one [[lane.device]] table",
    ):
        assert expected in told, f"{expected!r} is not in\n{told}"


def test_double_lane_names_and_open_binds_are_refused():
    lane = GOOD[GOOD.index("[[lane]]") :]
    text = GOOD + lane + '[dispatch]\nbind = "tcp://10.0.0.1:7410"\n'
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "x", base=config.Path())
    told = "\n".join(caught.value.problems)
    assert "2 lanes are named 'north'" in told
    assert "expected a loopback address" in told


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("tcp://127.0.0.1:7410", True),
        ("tcp://127.8.9.1:*", True),
        ("tcp://localhost:1", True),
        ("tcp://[::1]:5", True),
        ("tcp://0.0.0.0:7410", False),
        ("tcp://*:7410", False),
        ("tcp://127.evil.example:7410", False),
        ("tcp://10.0.0.1:7410", False),
        ("ipc:///tmp/x", False),
        ("tcp://127.0.0.1", False),
        ("tcp://127.0.0.1:99999", False),
    ],
)
def test_only_loopback_counts_as_loopback(address, loopback):
    assert config.is_loopback(address) is loopback


@pytest.mark.parametrize("text", ["not toml at all [", "", "lane = 3", "lane = [1, 2]\nstate_dir = 'x'"])
def test_foreign_texts_are_configuration_errors(text):
    with pytest.raises(ConfigError):
        config.parse(text, "x", base=config.Path())


def test_an_absent_or_binary_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "binary.toml")


@pytest.mark.parametrize("module", ["scanner_io.client", "scanner_io.config", "triage.cli"])
def test_light_parts_import_nothing_heavy(module):
    code = f"import sys, {module}; print(*(m for m in ('numba', 'cv2', 'scipy', 'hdf5plugin') if m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
