"""What was done to an image after it was measured is told, and never reads as clear; untouched ones are left alone."""

import cv2
import msgspec
import numpy as np
import pytest

from tests.triage.test_container import CARGO, radiograph, scene
from triage.analysis.container import Frame
from triage.analysis.correction import correct
from triage.analysis.fusion import fuse
from triage.analysis.image import ImageProfile, judge_image
from triage.analysis.image_damage import energies_disagree
from triage.analysis.rectify import rectify

#: Plain contrasts: how places are searched has no part in this.
PLAIN = ImageProfile(fuser="none")
CODES = {"image_blurred", "image_compressed", "repeated_columns", "image_joined", "energies_disagree"}


def _twice(picture, length):
    at = int(0.55 * picture.shape[1])
    return np.insert(picture, [at] * length, picture[:, [at]], axis=1)


def _sent_again(picture, length):
    at = int(0.55 * picture.shape[1])
    return np.concatenate([picture[:, :at], picture[:, at - length :]], axis=1)


def _smaller(picture, by):
    small = cv2.resize(picture, None, fx=1 / by, fy=1 / by, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, picture.shape[::-1], interpolation=cv2.INTER_CUBIC)


def _compressed(picture, quality):
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


#: Each does to a picture (rows, columns) uint8 what its name says; what must be said of it.
DAMAGES = {
    "blurred": (lambda t: cv2.GaussianBlur(t, (0, 0), 3), "image_blurred"),
    "enlarged": (lambda t: _smaller(t, 5), "image_blurred"),
    "quality 5": (lambda t: _compressed(t, 5), "image_compressed"),
    "4 % of the columns one": (lambda t: _twice(t, t.shape[1] // 25), "repeated_columns"),
    "the same, compressed": (lambda t: _compressed(_twice(t, t.shape[1] // 25), 85), "repeated_columns"),
    "4 % of the columns twice": (lambda t: _sent_again(t, t.shape[1] // 25), "repeated_columns"),
}
REAL = ("container_0202_0.jpg", "truck_02.jpg")


def outcome(judged):
    return fuse(judged.findings, judged.quality, vendor_alarm=False, anything_judged=True)[0]


def test_lines_that_stand_for_two_columns_of_an_even_image_are_not_repeated():
    image = radiograph(scene(), state="raw", noise=0.004, column_pitch_mm=8.0)
    fast = msgspec.structs.replace(image, position_mm=8.3 * np.arange(image.columns))
    even = rectify(fast).radiograph
    assert even.columns > 1.03 * image.columns
    assert "repeated_columns" not in [q.code for q in judge_image(even, PLAIN).quality]
    counts = image.counts[0].copy()
    counts[700:760] = counts[640:700]
    again = judge_image(msgspec.structs.replace(image, counts=(counts,)), PLAIN)
    assert "repeated_columns" in [q.code for q in again.quality]


@pytest.fixture(scope="module")
def pictures():
    if not CARGO.is_dir():
        pytest.skip(f"no real scans at {CARGO}")
    return [cv2.imread(str(CARGO / name), cv2.IMREAD_GRAYSCALE) for name in REAL]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_real_scan_says_so(pictures, damage):
    change, code = DAMAGES[damage]
    for picture in pictures:
        judged = judge_image(radiograph(change(picture).astype(np.float32) / 255), PLAIN)
        assert code in {q.code for q in judged.quality}
        assert outcome(judged) != "CLEAR"


def test_a_real_scan_as_it_is_has_none_of_it(pictures):
    for picture in pictures:
        assert not CODES & {q.code for q in judge_image(radiograph(picture.astype(np.float32) / 255), PLAIN).quality}


@pytest.mark.usefixtures("pictures")
def test_two_scans_put_together_are_told():
    one, other = (cv2.imread(str(CARGO / f"truck_{n}.jpg"), cv2.IMREAD_GRAYSCALE) for n in (12, 14))
    at = int(0.55 * one.shape[1])
    joined = np.concatenate([one[:, :at], cv2.resize(other, one.shape[::-1])[:, at:]], axis=1)
    judged = judge_image(radiograph(joined.astype(np.float32) / 255), PLAIN)
    told = [q.reason for q in judged.quality if q.code == "image_joined"]
    assert told and abs(int(told[0].split()[2]) - at) <= 2


@pytest.mark.usefixtures("pictures")
def test_columns_cut_out_of_the_middle_are_told_at_their_place():
    """Of four scans not chosen for it two at least are told, none at another place."""
    told = []
    for name in ("truck_00", "truck_05", "truck_10", "container_0207_0"):
        picture = cv2.imread(str(CARGO / f"{name}.jpg"), cv2.IMREAD_GRAYSCALE)
        at, cut = picture.shape[1] // 2, picture.shape[1] // 25
        judged = judge_image(radiograph(np.delete(picture, np.s_[at : at + cut], 1).astype(np.float32) / 255), PLAIN)
        reasons = [q.reason for q in judged.quality if q.code == "image_joined"]
        assert all(abs(int(reason.split()[2]) - at) <= 2 for reason in reasons)
        assert not reasons or outcome(judged) != "CLEAR"
        told += reasons
    assert len(told) >= 2


def test_a_tall_box_with_sharp_edges_is_no_join():
    """All of an edge changes within one column, but one way, and neither floor nor roof."""
    image = scene(load="empty")
    image[160:420, 700:800] *= 0.5
    for state in ("raw", "display"):
        judged = judge_image(radiograph(image, state=state, noise=0.004), PLAIN)
        assert "image_joined" not in {q.code for q in judged.quality}


# -- two energies


def two_energies(low=None, **how):
    """Return a drawn scan of two energies; `low` : does something to the picture of the lower one."""
    image = scene(load="stacks")
    pair = [radiograph(t, state="raw", noise=0.004, **how) for t in (image if low is None else low(image), image)]
    detector = pair[1].detector
    both = {name: (getattr(detector, name)[0],) * 2 for name in ("dark", "air")}
    return msgspec.structs.replace(
        pair[1], counts=(pair[0].counts[0], pair[1].counts[0]),
        detector=msgspec.structs.replace(detector, energies=("low", "high"), **both),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "told"),
    [
        (None, ""),
        (lambda t: np.roll(t, 1, axis=1), ""),
        (lambda t: np.roll(t, 6, axis=1), "6 columns off"),
        (lambda t: np.roll(t, -5, axis=0), "channels off"),
        (lambda t: scene(box=(330, 120, 1190, 470), load="empty"), "do not show the same vehicle"),
    ],
)
def test_two_energies_that_do_not_fit_are_told(low, told):
    judged = judge_image(two_energies(low), PLAIN)
    found = [q.reason for q in judged.quality if q.code == "energies_disagree"]
    assert [told in reason for reason in found] == ([True] if told else [])


@pytest.mark.parametrize(
    ("low", "high"), [("Fusion2-120kV", "Fusion2-320kV"), ("FusionPart1-120kV", "FusionPart1-180kV")]
)
def test_two_tube_voltages_of_one_real_part_show_the_same_part(low, high):
    """Thick steel that 120 kV do not pass and 320 kV do is as much darker as -ln T says, not as counts say."""
    panel = CARGO.parent / "xray16" / "flatpanel"
    if not panel.is_dir():
        pytest.skip(f"no real pairs at {panel}")
    pair = [cv2.imread(str(panel / f"{name}.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) for name in (low, high)]
    other = cv2.imread(str(panel / "Shift1-1.png"), cv2.IMREAD_UNCHANGED).astype(np.float32)
    pair = [t / np.percentile(t, 99.5) for t in pair]
    other = cv2.resize(other / np.percentile(other, 99.5), pair[0].shape[::-1])

    def told(one, two):
        scans = [radiograph(np.clip(t, 0, 1), state="raw") for t in (one, two)]
        detector = scans[1].detector
        both = {name: (getattr(detector, name)[0],) * 2 for name in ("dark", "air")}
        scan = msgspec.structs.replace(
            scans[1], counts=(scans[0].counts[0], scans[1].counts[0]),
            detector=msgspec.structs.replace(detector, energies=("low", "high"), **both),
        )  # fmt: skip
        rows, columns = one.shape
        whole = frame_of(0, columns, 0, rows)
        return energies_disagree(scan, correct(scan, PLAIN.correction), (whole,), PLAIN.damage)

    assert told(*pair) == []
    assert "do not show the same vehicle" in told(pair[0], other)[0].reason


def frame_of(left, right, roof, floor):
    return Frame(
        left=left, right=right, roof_left=roof, roof_right=roof, floor_left=floor, floor_right=floor, floor_seen=True
    )
