"""Training a fuser from a folder into a file, as the command does it."""

import csv

import cv2
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io import lane_profile, recording
from scanner_io.errors import DataError
from scanner_io.lane_profile import Extra
from tests import lanes
from tests.triage.test_container import scene
from triage.analysis import fuser as fusers
from triage.analysis.standing import FUSER
from triage.cli import cli
from triage.study.fuser_file import joined_archive, train_fuser, write_fuser
from triage.study.image_archive import load
from triage.study.image_shipped import systems_for
from triage.study.train_fuser import Options, thresholds_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four scans of three commodities, each with boxes of its own."""
    where = tmp_path_factory.mktemp("archive")
    rows = []
    for number, goods in enumerate(("0901", "0901", "1701", "5201")):
        rng = np.random.default_rng(number)
        # Vehicles of their own: what is too like another is taken for a copy of it.
        box = (250 + 9 * number, 60 + 5 * number, 1250 - 11 * number, 440 - 3 * number)
        image = scene(load="empty", box=box)
        for _ in range(40):
            x, y, w, h = rng.integers(280, 1100), rng.integers(120, 340), rng.integers(30, 110), rng.integers(30, 80)
            image[y : y + h, x : x + w] *= rng.uniform(0.45, 0.9)
        small = cv2.resize(np.rint(255 * image).astype(np.uint8), (900, 360), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(where / f"scan{number}.png"), small)
        rows.append((f"scan{number}.png", goods))
    with (where / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "declared_hs4"), *rows])
    return where


def test_command_writes_a_file_that_says_what_it_was_trained_on(folder, tmp_path):
    out = tmp_path / "new" / "fuser.npz"
    told = ["study", "train-fuser", str(folder), "--out", str(out), "--per-image", "3", "--trees", "6", "--leaves", "4"]
    result = CliRunner().invoke(cli, told)
    assert result.exit_code == 0, result.output
    assert "insertions" in result.output
    fuser = fusers.load(out)
    assert len(fuser.about.trained_on) == 4
    assert all(len(sha) == 64 for sha in fuser.about.trained_on)
    assert fuser.about.simulated == "none"
    assert fuser.about.options["trees"] == 6
    assert 6 <= fuser.about.options["insertions"] <= 12
    assert fuser.trees is not None
    assert fuser.trees.root.size == 6
    assert "any" in fuser.thresholds
    assert all(limit["one"] < limit["tenth"] for limit in fuser.thresholds.values())


def test_too_few_kinds_of_scans_are_refused(folder, tmp_path):
    for number in (0, 1):
        (tmp_path / f"scan{number}.png").write_bytes((folder / f"scan{number}.png").read_bytes())
    with pytest.raises(DataError, match="2 scans of 2 commodities or looks; a fuser is trained on at least three"):
        train_fuser(joined_archive([tmp_path]), per_image=1, seed=1, options=Options(trees=2))


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    fuser = fusers.Fuser(
        features=(), trees=None, normal=_nothing(), thresholds={}, about=fusers.About()
    )  # fmt: skip
    with pytest.raises(DataError, match="the fuser cannot be written"):
        write_fuser(fuser, tmp_path / "file" / "fuser.npz")


def _nothing():
    from triage.analysis.normal import Normal
    from triage.analysis.patches import Bank
    from triage.analysis.position_tables import PositionTables

    tables = PositionTables(names=(), values=np.zeros((0, 10, 23), np.float32))
    return Normal(tables=tables, bank=Bank(codes=()), familiar=None, scans=0)


# -- in an evaluation


def test_a_fuser_is_tested_as_it_is_on_scans_it_has_not_seen_and_trained_anew_on_others(folder, tmp_path):
    archive = joined_archive([folder])
    seen = fusers.About(trained_on=(archive.sources[2].sha256,))
    path = tmp_path / "fuser.npz"
    fuser = fusers.Fuser(features=(), trees=None, normal=_nothing(), thresholds={}, about=seen)
    write_fuser(fuser, path)
    anew = systems_for(archive, path, unseen=False)[-1]
    assert anew.learns
    assert "was trained on 1 of these scans" in anew.how
    other = tmp_path / "other.npz"
    write_fuser(msgspec.structs.replace(fuser, about=fusers.About(trained_on=("ab",))), other)
    told = systems_for(archive, other, unseen=False)[-1]
    assert (told.name, told.learns) == ("scanlane", False)
    assert "trained elsewhere" in told.how
    assert told.make().fuser.about.trained_on == ("ab",)


def test_a_lane_profile_is_tested_by_the_fuser_in_it(folder, tmp_path):
    archive = joined_archive([folder])
    fuser = fusers.Fuser(features=(), trees=None, normal=_nothing(), thresholds={}, about=fusers.About())
    extra = Extra(facts={"scans": 16}, arrays={"npz": np.frombuffer(fusers.to_bytes(fuser), np.uint8)})
    path = tmp_path / "north.profile"
    lane_profile.write(path, lanes.profile(extras={FUSER: extra}))
    told = systems_for(archive, path, unseen=False)[-1]
    assert (told.name, told.learns) == ("scanlane", False)
    assert told.make().fuser.features == ()
    taught = recording.pixels_hash(load(archive.sources[1]).radiograph)
    lane_profile.write(path, lanes.profile(extras={FUSER: extra}, teachers=(taught,)))
    assert "was trained on 1 of these scans" in systems_for(archive, path, unseen=False)[-1].how
    lane_profile.write(path, lanes.profile())
    with pytest.raises(DataError, match="too few for a fuser"):
        systems_for(archive, path, unseen=False)
    path.write_bytes(b"neither")
    with pytest.raises(DataError, match=r"neither a fuser of .* nor a profile of"):
        systems_for(archive, path, unseen=False)


# -- thresholds


def test_thresholds_are_passed_as_often_as_they_say():
    rng = np.random.default_rng(0)
    scans = [("restless", sorted(rng.normal(size=10), reverse=True)) for _ in range(400)]
    limits = thresholds_of(scans)["any"]
    rates = [np.mean([sum(s > limits[k] for s in scores) for _, scores in scans]) for k in ("one", "tenth")]
    assert rates == pytest.approx([1.0, 0.1], abs=0.02)


def test_a_restless_texture_has_thresholds_of_its_own_as_far_as_scans_of_it_are_there():
    calm, restless = [0.0] * 10, [5.0] * 10
    many = thresholds_of([("empty", calm)] * 80 + [("restless", restless)] * 80)
    few = thresholds_of([("empty", calm)] * 80 + [("restless", restless)] * 2)
    assert many["empty"]["one"] < 1
    assert many["restless"]["one"] == pytest.approx(5, abs=0.5)
    assert few["restless"]["one"] < 2
    assert thresholds_of([]) == {}
    assert thresholds_of([("empty", [])])["any"] == {"one": 0.0, "tenth": 1.0}
