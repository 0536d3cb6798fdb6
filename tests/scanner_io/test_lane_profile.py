"""The file of a lane's profile: what is written is read, and nothing else is."""

import zipfile

import msgspec
import numpy as np
import pytest

from scanner_io import config, lane_profile
from scanner_io.errors import ConfigError
from scanner_io.lane_profile import Excluded, Extra
from tests import lanes

TABLE = """
state_dir = "state"
[[lane]]
name = "{lane}"
profile = "north.profile"
[[lane.device]]
driver = "simulated"
"""


@pytest.fixture
def written(tmp_path):
    """A profile with everything in it, and its file."""
    extras = {"positions": Extra(facts={"grid": [4, 6]}, arrays={"q97": np.arange(24, dtype="<f4").reshape(4, 6)})}
    profile = lanes.profile(count=100, extras=extras, excluded=(Excluded(scan="north-7", reason="the portal alarmed"),))
    path = tmp_path / "north.profile"
    return path, lane_profile.write(path, profile)


def test_what_is_written_is_read(written):
    path, profile = written
    read = lane_profile.read(path)
    for name in lane_profile.LaneProfile.__struct_fields__:
        before, after = getattr(profile, name), getattr(read, name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(before, after)
            assert not after.flags.writeable
        elif name != "extras":
            assert before == after
    assert read.extras["positions"].facts == {"grid": [4, 6]}
    np.testing.assert_array_equal(read.extras["positions"].arrays["q97"], profile.extras["positions"].arrays["q97"])
    assert lane_profile.encode(read)[0] == path.read_bytes()  # the same profile, the same bytes and name
    assert len(read.sha256) == 64


def rewritten(path, change):
    """Exchange the members of the file for what `change` makes of them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def raise_scores(members):
    scores = np.frombuffer(members["scores"]).copy()
    scores[0] += 1
    members["scores"] = scores.tobytes()


def promise_less(members):
    members["header.json"] = members["header.json"].replace(b'"flag_rate":0.05', b'"flag_rate":0.01')


def newer(members):
    import hashlib

    members["header.json"] = members["header.json"].replace(b'"version":1', b'"version":2')
    members["sha256"] = hashlib.sha256(members["header.json"]).hexdigest().encode()


TAMPERED = {
    "array scores has been changed": raise_scores,
    "header has been changed": promise_less,
    "format version 2, this scanlane reads 1": newer,
    "array vital_signs is missing": lambda m: m.pop("vital_signs"),
    "it has no header": lambda m: m.pop("header.json"),
}


@pytest.mark.parametrize("words", TAMPERED)
def test_a_changed_file_is_refused_in_words(written, words):
    path, _ = written
    rewritten(path, TAMPERED[words])
    with pytest.raises(ConfigError, match=words) as refused:
        lane_profile.read(path)
    assert "calibrate" in str(refused.value)


@pytest.mark.parametrize("at", range(0, 4000, 400))
def test_no_cut_file_is_believed(written, at):
    path, _ = written
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(ConfigError, match="no lane profile"):
        lane_profile.read(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": (1.0,)}, "weights for"),
        ({"strata": ()}, "like no other scan"),
        ({"stratum_of_scan": np.full(100, 9, np.int32)}, "expected 0.."),
        ({"scores": np.full((100, 3), np.nan)}, "NaN"),
        ({"cell_of_scan": np.zeros(99, np.int32)}, "expected \\(100,\\)"),
    ],
)
def test_what_does_not_hang_together_is_refused(tmp_path, changes, words):
    path = tmp_path / "bad.profile"
    lane_profile.write(path, msgspec.structs.replace(lanes.profile(count=100), **changes))
    with pytest.raises(ConfigError, match=words):
        lane_profile.read(path)


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        lane_profile.read(tmp_path / "none")
    (tmp_path / "text").write_text("flag_rate = 0.05")
    with pytest.raises(ConfigError, match="no lane profile"):
        lane_profile.read(tmp_path / "text")


def test_a_foreign_profile_says_why_not():
    profile = lanes.profile(count=100)
    assert profile.foreign(lane="north", thresholds="t" * 64) == ""
    assert profile.foreign() == ""
    assert "learned on lane north, and this is lane south" in profile.foreign(lane="south")
    assert "other thresholds" in profile.foreign(thresholds="u" * 64)
    assert "scores are of scanlane 0.0.1" in msgspec.structs.replace(profile, software="0.0.1").foreign()


def test_a_lane_of_the_configuration_names_its_profile(written):
    path, _ = written
    loaded = config.parse(TABLE.format(lane="north"), "lane.toml", base=path.parent)
    assert loaded.lane[0].profile == str(path)
    with pytest.raises(ConfigError, match=r"lane south.profile: .*learned on lane north"):
        config.parse(TABLE.format(lane="south"), "lane.toml", base=path.parent)
    path.unlink()
    with pytest.raises(ConfigError, match=r"lane north.profile: .*cannot be read"):
        config.parse(TABLE.format(lane="north"), "lane.toml", base=path.parent)
