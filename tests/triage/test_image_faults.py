"""What a bad image gets: its fault by name, or UNUSABLE with the reason; never CLEAR by accident.

One table of what can be done to an image, walked over drawn scenes, and over real scans where they are at hand.
"""

import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from tests import lanes
from triage.analysis.fusion import fuse
from triage.analysis.image import ImageProfile, judge_image
from triage.analysis.image_faults import FaultProfile, swapped
from triage.study.calibrate_lane import profile_of

sys.path.insert(0, str(Path(__file__).parent))
from test_container import CARGO, overlap, radiograph, scene

#: Each does to an upright picture (rows, columns) float32 what its name says.
DAMAGES = {
    "upside down": lambda t: t[::-1],
    "upside down and mirrored": lambda t: t[::-1, ::-1],
    "stretched": lambda t: cv2.resize(t, (10 * t.shape[1], t.shape[0])),
    "inverted": lambda t: 1 - t,
    "thumbnail": lambda t: cv2.resize(t, (600, 600 * t.shape[0] // t.shape[1]), interpolation=cv2.INTER_AREA),
    "dead columns": lambda t: np.where(_one_in_a_hundred(t.shape[1]), 0, t),
    "dead channels": lambda t: np.where(_one_in_a_hundred(t.shape[0])[:, None], 0, t),
    "stopped": lambda t: np.insert(t, [_middle(t)] * (t.shape[1] // 6), t[:, [_middle(t)]], axis=1),
    "first half": lambda t: t[:, : t.shape[1] // 2],
    "second half": lambda t: t[:, t.shape[1] // 2 :],
    "upper half": lambda t: t[: t.shape[0] // 2],
    "torn": lambda t: np.where(np.arange(t.shape[1]) < t.shape[1] // 2, t, 0.0),
}

#: What must be said: damage -> code, fatal. A scan may have more to say.
TABLE = [
    ("upside down", "image_upside_down", False),
    ("upside down and mirrored", "image_upside_down", False),
    ("stretched", "image_stretched", False),
    ("inverted", "polarity_inverted", True),
    ("thumbnail", "image_small", False),
    ("dead columns", "dead_columns", False),
    ("dead channels", "dead_channels", False),
    ("stopped", "repeated_columns", False),
    ("first half", "container_cut", False),
    ("second half", "container_cut", False),
    ("upper half", "floor_not_seen", False),
    ("torn", "dead_columns", True),
]


def _one_in_a_hundred(size):
    dead = np.zeros(size, bool)
    dead[np.random.default_rng(0).choice(size, max(2, size // 100), replace=False)] = True
    return dead


def _middle(t):
    return int(0.55 * t.shape[1])


def damaged(transmission, name):
    return np.ascontiguousarray(DAMAGES[name](transmission), np.float32)


def outcome(judged):
    return fuse(judged.findings, judged.quality, vendor_alarm=False, anything_judged=True)[0]


@pytest.mark.parametrize("state", ["raw", "display"])
@pytest.mark.parametrize(("damage", "code", "is_fatal"), TABLE)
def test_a_damaged_scene_says_so(damage, code, is_fatal, state):
    # the container in the middle, so that each half holds half of it
    picture = damaged(scene(load="empty", box=(250, 40, 1250, 440), cab=False), damage)
    judged = judge_image(radiograph(picture, state=state, noise=0.003))
    assert {q.code: q.fatal for q in judged.quality}.get(code) is is_fatal
    assert outcome(judged) == ("UNUSABLE" if is_fatal else "REVIEW")


@pytest.mark.parametrize("load", ["empty", "stacks", "opaque"])
@pytest.mark.parametrize("state", ["raw", "display"])
def test_a_good_scene_has_no_fault(state, load):
    judged = judge_image(radiograph(scene(load=load), state=state, noise=0.003))
    assert judged.quality == ()
    assert ("display_windowed" in {f.kind for f in judged.findings}) is (state == "display")


#: Loads of every sort: empty, bales, drums, stacks in cooled boxes, loose goods.
REAL = ("other_2.jpg", "container_0000_1.jpg", "truck_07.jpg", "container_0202_0.jpg", "container_2304_0.jpg")


@pytest.mark.parametrize(("damage", "code", "is_fatal"), TABLE)
def test_a_damaged_real_scan_says_so(damage, code, is_fatal):
    if not CARGO.is_dir():
        pytest.skip(f"no real scans at {CARGO}")
    missed = []
    for name in REAL[: 2 if damage == "stretched" else None]:
        picture = cv2.imread(str(CARGO / name), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
        size = min(1.0, 500 / picture.shape[0]) if damage != "thumbnail" else 1.0
        picture = cv2.resize(picture, None, fx=size, fy=size, interpolation=cv2.INTER_AREA)
        judged = judge_image(radiograph(damaged(picture, damage)))
        assert outcome(judged) == ("UNUSABLE" if is_fatal else "REVIEW"), name
        if {q.code: q.fatal for q in judged.quality}.get(code) is not is_fatal:
            missed.append(name)
    # a truck's half may show no container at all, and a thumbnail of a mere container is not small
    assert len(missed) <= (1 if damage in ("second half", "upper half", "thumbnail") else 0), missed


def test_upside_down_is_judged_the_other_way_up():
    image = scene(load="empty")
    image[250:290, 610:650] *= 0.55
    upright, turned = (judge_image(radiograph(t, state="raw")) for t in (image, image[::-1]))
    assert turned.load == upright.load
    box = turned.container
    assert overlap((box.first_column, 600 - box.end_channel, box.end_column, 600 - box.first_channel),
                   (250, 60, 1250, 440)) > 0.95  # fmt: skip
    assert {f.kind for f in turned.findings} == {f.kind for f in upright.findings}


def test_mirrored_is_told_only_where_the_lane_knows_its_tractors():
    image = scene(load="empty")
    for side, told in ((None, False), ("left", False), ("right", True)):
        profile = ImageProfile(faults=FaultProfile(tractor=side))
        codes = {q.code for q in judge_image(radiograph(image, state="raw"), profile).quality}
        assert ("image_mirrored" in codes) is told, side


def test_mirrored_is_told_on_a_lane_that_has_learned_where_its_tractors_are():
    shot = radiograph(scene(load="empty"), state="raw")
    for side, told in (("", False), ("left", False), ("right", True)):
        codes = {q.code for q in judge_image(shot, lane=lanes.profile(tractor=side)).quality}
        assert ("image_mirrored" in codes) is told, side
    seen = [msgspec.structs.replace(one, front="left") for one in lanes.examples(np.random.default_rng(0), 200)]
    mixed = [msgspec.structs.replace(one, front="right") for one in seen[:5]] + seen[5:]
    sides = [profile_of(kept, (), flag_rate=0.1, thresholds="t").tractor for kept in (seen, mixed)]
    assert sides == ["left", ""]


def test_raw_counts_turned_round_are_unusable():
    shot = radiograph(scene(load="empty"), state="raw", noise=0.004)
    top = shot.detector.saturation_value
    turned = msgspec.structs.replace(shot, counts=tuple(np.ascontiguousarray(top - c) for c in shot.counts))
    judged = judge_image(turned)
    assert outcome(judged) == "UNUSABLE" and any(q.code == "polarity_inverted" for q in judged.quality)


def test_dead_lines_change_little_of_what_is_said():
    image = scene(load="stacks")
    whole = judge_image(radiograph(image, state="raw"))
    for damage in ("dead columns", "dead channels"):
        judged = judge_image(radiograph(damaged(image, damage), state="raw"))
        assert judged.load == whole.load
        assert judged.opaque_share == pytest.approx(whole.opaque_share, abs=0.02)
        found, expected = ((b.first_column, b.first_channel, b.end_column, b.end_channel)
                           for b in (judged.container, whole.container))  # fmt: skip
        assert overlap(found, expected) > 0.98


def test_a_picture_of_eight_bits_passed_off_as_raw():
    scan = radiograph(scene(), state="raw")
    assert "display_windowed" not in {q.code for q in judge_image(scan).quality}
    coarse = (scan.counts[0] // 256 * 256).astype(np.uint16)
    judged = judge_image(msgspec.structs.replace(scan, counts=(coarse,)))
    assert "display_windowed" in {q.code for q in judged.quality}


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (np.s_[:], "1500 of 1500 columns"),
        (np.s_[500:540], "in 40 of 1500 columns and in 0 of 600 channels"),
        (np.s_[:, 200:260], "in 0 of 1500 columns and in 60 of 600 channels"),
    ],
)
def test_an_energy_that_shows_nothing_is_told(place, told):
    scan = radiograph(scene(load="empty"), state="raw", energies=("low", "high"), noise=0.004)
    assert not judge_image(scan).quality
    low = scan.counts[0].copy()
    low[place] = 0
    judged = judge_image(msgspec.structs.replace(scan, counts=(low, scan.counts[1])))
    (fault,) = [q for q in judged.quality if q.code == "energy_dead"]
    assert "energy low" in fault.reason and told in fault.reason
    assert outcome(judged) == "REVIEW"


@pytest.mark.parametrize("first_channel", ["top", "bottom"])
def test_a_painted_block_hides_nothing_silently(first_channel):
    noise = np.random.default_rng(0).normal(0, 0.01, (600, 1500))
    image = np.clip(scene(load="empty") + noise, 0, 1).astype(np.float32)
    assert not judge_image(radiograph(image, first_channel=first_channel)).quality
    image[200:270, 640:760] = 0.8
    (fault,) = judge_image(radiograph(image, first_channel=first_channel)).quality
    assert fault.code == "frozen_block" and "same value, 204" in fault.reason


def test_ground_that_is_dark_all_along_is_no_dead_channel():
    image = scene(load="empty")
    image[560:] = 0.0
    assert "dead_channels" not in {q.code for q in judge_image(radiograph(image, state="raw")).quality}


def test_the_two_bytes_of_a_count_in_the_wrong_order():
    scan = radiograph(scene(), state="raw", noise=0.003)
    judged = judge_image(msgspec.structs.replace(scan, counts=(scan.counts[0].byteswap(),)))
    assert {q.code: q.fatal for q in judged.quality}.get("bytes_swapped") is True
    assert outcome(judged) == "UNUSABLE"


@pytest.mark.parametrize("counts", ["sound", "noise", "constant"])
def test_counts_in_their_right_order_are_not_said_to_be_swapped(counts):
    scan = radiograph(scene(), state="raw", noise=0.003)
    shape = scan.counts[0].shape
    other = {
        "sound": scan.counts[0], "noise": np.random.default_rng(0).integers(0, 65536, shape, np.uint16),
        "constant": np.full(shape, 300, np.uint16),
    }[counts]  # fmt: skip
    assert swapped(msgspec.structs.replace(scan, counts=(other,)), FaultProfile()) == []
