"""The mask of what cannot be seen: where it is, and that it covers what would be hidden there."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from triage.analysis.fusion import fuse
from triage.analysis.image import judge_image
from triage.analysis.image_profile import ImageProfile
from triage.analysis.uninspectable import dark_mask

sys.path.insert(0, str(Path(__file__).parent))
from test_container import CARGO, radiograph, scene


def mask_of(scan):
    """Return the judgement and the mask as an upright picture."""
    judged = judge_image(scan)
    mask = np.zeros(scan.counts[0].shape, bool)
    for unseen in judged.uninspectable:
        mask |= unseen.mask(*mask.shape)
    upright = mask.T[::-1] if scan.detector.first_channel == "bottom" else mask.T
    return judged, upright


@pytest.mark.parametrize("first_channel", ["top", "bottom"])
@pytest.mark.parametrize("state", ["raw", "display"])
def test_mask_lies_where_it_is_dark(state, first_channel):
    image = scene(load="opaque", tilt=6)
    judged, mask = mask_of(radiograph(image, state=state, noise=0.003, first_channel=first_channel))
    inside = np.zeros(image.shape, bool)
    inside[70:430, 260:1240] = True
    dark = cv2.erode((image < 0.03).astype(np.uint8), np.ones((5, 5))) != 0
    assert mask[dark & inside].mean() > 0.98
    assert mask[cv2.dilate((image < 0.04).astype(np.uint8), np.ones((7, 7))) == 0].mean() < 0.002
    assert judged.uninspectable[0].share == judged.opaque_share


def test_speckle_in_the_dark_is_dark_and_specks_in_the_light_are_not():
    rng = np.random.default_rng(1)
    image = np.where(rng.random((200, 400)) < 0.2, 0.05, 0.01).astype(np.float32)
    assert dark_mask(image, 0.03).mean() > 0.99
    image = np.where(rng.random((200, 400)) < 0.02, 0.0, 0.8).astype(np.float32)
    assert dark_mask(image, 0.03).mean() < 0.001


def test_a_low_opaque_load_is_never_clear():
    image = scene(load="empty")
    image[370:395, 280:1220] *= 0.005
    judged = judge_image(radiograph(image, state="raw"))
    assert judged.opaque_share < ImageProfile().opaque_review_share
    outcome, reasons = fuse(judged.findings, judged.quality, vendor_alarm=False, anything_judged=True)
    assert outcome == "REVIEW"
    assert any(reason.startswith("could not be seen") for reason in reasons)


@pytest.mark.parametrize(("columns", "outcome"), [(80, "CLEAR"), (180, "REVIEW")])
def test_a_row_of_pallets_that_cannot_be_seen_is_not_clear(columns, outcome):
    image = scene(load="empty")
    image[120:400, 280:1220] *= 0.3
    image[120:400, 600 : 600 + columns] *= 0.01
    opaque = [f for f in judge_image(radiograph(image, state="raw")).findings if f.kind == "opaque"]
    said, reasons = fuse(opaque, (), vendor_alarm=False, anything_judged=True)
    assert said == outcome
    assert 0.7 < opaque[0].score / (columns / 940 * 0.9) < 1.1
    assert f"{opaque[0].score:.0%} of the cargo area" in reasons[0]


def insertions(picture, box, rng, count):
    """Yield (mask, background) of objects of 8 to 40 of 460 rows, rotated, anywhere in a box of the picture."""
    left, top, right, bottom = box
    scale = (bottom - top) / 460
    for _ in range(count):
        w, h = np.exp(rng.uniform(np.log(8), np.log(40), 2)) * scale
        x, y = rng.uniform(left + w, right - w), rng.uniform(top + h, bottom - h)
        shape: np.ndarray = np.zeros(picture.shape, np.uint8)
        corners = cv2.boxPoints(((float(x), float(y)), (float(w), float(h)), float(rng.uniform(0, 180))))
        cv2.fillConvexPoly(shape, corners.round().astype(np.int32), 1)
        inside = shape != 0
        if inside.any():
            yield inside, float(np.median(picture[inside]))


def test_mask_covers_what_is_put_where_nothing_is_seen():
    if not CARGO.is_dir():
        pytest.skip(f"no real scans at {CARGO}")
    rng = np.random.default_rng(7)
    covered = dark = wrongly = light = 0
    for name in ("container_0202_0.jpg", "container_0805_1.jpg", "container_0901_1.jpg", "container_5201_1.jpg"):
        picture = cv2.imread(str(CARGO / name), cv2.IMREAD_GRAYSCALE) / 255.0
        judged, mask = mask_of(radiograph(picture))
        box = judged.container
        within = (box.first_column, box.first_channel, box.end_column, box.end_channel)
        for inside, level in insertions(picture, within, rng, 150):
            if level < 0.03:
                dark += 1
                covered += mask[inside].mean() >= 0.5
            elif level > 0.08:
                light += 1
                wrongly += mask[inside].mean() >= 0.5
    assert dark >= 100
    assert covered / dark >= 0.95
    assert wrongly / light <= 0.02
