"""The container in the image: drawn scenes in every attitude, and real scans where they are at hand."""

import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from scanner_io.model import DetectorState, Radiograph
from triage.analysis.container import box_of, find_container

CARGO = Path(__file__).resolve().parents[3] / "shared" / "data" / "cargo"

#: Coarse boxes (left, top, right, bottom) drawn by hand on the upright real scans: outer corners of the castings, and
#: below where the end posts' castings end. The stamps' boxes come from their own annotation files.
MARKED = {
    "container_0000_0.jpg": (22, 18, 2312, 595),
    "container_0000_1.jpg": (37, 22, 1874, 636),
    "container_0202_0.jpg": (22, 20, 1382, 614),
    "container_0202_1.jpg": (14, 16, 1530, 632),
    "container_0207_0.jpg": (10, 10, 1210, 602),
    "container_0207_1.jpg": (13, 6, 1330, 551),
    "container_0805_0.jpg": (12, 8, 1306, 614),
    "container_0805_1.jpg": (18, 2, 1112, 512),
    "container_0901_0.jpg": (18, 27, 402, 606),
    "container_0901_1.jpg": (30, 5, 668, 580),
    "container_1701_0.jpg": (36, 4, 642, 568),
    "container_1701_1.jpg": (18, 8, 678, 582),
    "container_2304_0.jpg": (18, 2, 1098, 540),
    "container_2304_1.jpg": (9, 16, 1068, 480),
    "container_5201_0.jpg": (34, 10, 1456, 634),
    "container_5201_1.jpg": (22, 14, 1312, 618),
    "falcon_1.jpg": (119, 26, 328, 202),
    "other_0.jpg": (57, 15, 516, 206),
    "other_2.jpg": (110, 16, 1428, 640),
    "other_4.jpg": (80, 32, 1322, 688),
    "smiths_stamp.jpg": (7, 8, 352, 296),
    "truck_00.jpg": (138, 38, 1462, 646),
    "truck_02.jpg": (404, 68, 2966, 1000),
    "truck_04.jpg": (34, 74, 2662, 920),
    "truck_05.jpg": (440, 58, 3130, 985),
    "truck_07.jpg": (806, 62, 3324, 1000),
    "truck_09.jpg": (734, 52, 2752, 990),
    "truck_10.jpg": (400, 122, 1690, 985),
    "truck_12.jpg": (84, 64, 2644, 920),
    "truck_14.jpg": (28, 74, 2632, 930),
    "truck_15.jpg": (24, 56, 2668, 925),
}


def scene(
    width=1500,
    height=600,
    *,
    box=(250, 60, 1250, 440),
    tilt=0,
    load="stacks",
    wall=0.88,
    chassis=True,
    cab=True,
    single_floor=False,
):
    """Return an upright transmission image (rows, columns) float32 of a container on a chassis, 1 = air.

    box : outer corners of the container; tilt : pixels the right end lies lower; load : empty, stacks, or opaque
    """
    image = np.ones((height, width), np.float32)
    x0, y0, x1, y1 = box
    h = y1 - y0
    if chassis:
        beam = max(3, h // 8)
        image[y1 : y1 + beam, max(0, x0 - h // 3) : min(width, x1 + h // 6)] *= 0.75
        for x in (x0 + h // 2, x0 + h, x1 - h // 2):
            cv2.circle(image, (x, y1 + beam + h // 8), h // 6, 0.15, -1)
    if cab:
        image[y0 + h // 3 : y1 + h // 5, max(0, x0 - h) : max(1, x0 - h // 3)] *= 0.6
    body = np.ones_like(image)
    body[y0:y1, x0:x1] = wall
    thin = max(2, h // 120)
    body[y0 : y0 + 2 * thin, x0:x1] *= 0.6
    for x in (x0, x1 - 4 * thin):
        body[y0:y1, x : x + 4 * thin] *= 0.2
    for x in range(x0 + h // 10, x1, h // 10):
        body[y0:y1, x : x + thin] *= 0.9
        body[y1 - h // 12 : y1, x : x + thin] *= 0.6
    body[y1 - h // 12 : y1, x0:x1] *= 0.75
    for y in (y1 - thin,) if single_floor else (y1 - thin, y1 - h // 20 - thin):
        body[y : y + thin, x0:x1] *= 0.45
    if load != "empty":
        t = 0.2 if load == "stacks" else 0.005
        for x in range(x0 + h // 12, x1 - h // 6, h // 6):
            body[y0 + h // 4 : y1 - h // 10, x : x + h // 6 - thin] *= t
    if tilt:
        shear = np.array([[1, 0, 0], [tilt / (x1 - x0), 1, -tilt * x0 / (x1 - x0)]], np.float32)
        body = cv2.warpAffine(body, shear, (width, height), borderValue=1.0)
    return cv2.GaussianBlur(image * body, (0, 0), 0.8)


def radiograph(
    transmission, *, state="display", first_channel="top", energies=("one",), noise=0.0, seed=0, bad=(), **extra
):
    """Return a Radiograph of an upright transmission image: 8-bit grey values, or 16-bit counts with references."""
    upright = np.clip(transmission, 0, None)
    columns = upright.shape[1]
    image = (upright if first_channel == "top" else upright[::-1]).T
    channels = image.shape[1]
    rng = np.random.default_rng(seed)
    mask = np.zeros(channels, np.bool_)
    mask[list(bad)] = True
    if state == "display":
        dark = air = np.zeros(channels, np.float32)
        full = 255
        counts = np.clip(np.round(image * 255), 0, 255).astype(np.uint16)
        images = (np.ascontiguousarray(counts),) * len(energies)
    else:
        full = 65535
        dark = rng.uniform(80, 200, channels).astype(np.float32)
        air = (dark + rng.uniform(38_000, 46_000, channels)).astype(np.float32)
        images = ()
        for _ in energies:
            seen = image + rng.normal(0, noise, image.shape) * np.sqrt(np.maximum(image, 0.01)) if noise else image
            counts = np.clip(np.round(seen * (air - dark) + dark), 0, 65535).astype(np.uint16)
            counts[:, mask] = 65535
            images += (np.ascontiguousarray(counts),)
    detector = DetectorState(
        energies=energies,
        channels=channels,
        dark=(dark,) * len(energies),
        air=(air,) * len(energies),
        bad_channels=mask,
        saturation_value=full,
        state=state,
        first_channel=first_channel,
        **extra,
    )
    times = 1_700_000_000_000_000_000 + np.arange(columns, dtype=np.int64) * 1_000_000
    return Radiograph(detector=detector, counts=images, column_utc_ns=times)


def overlap(a, b):
    """Intersection over union of two (left, top, right, bottom) boxes."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def found_box(transmission):
    """Return the upright (left, top, right, bottom) of what is found, or None."""
    frame = find_container(np.ascontiguousarray(transmission, np.float32))
    if frame is None:
        return None
    rows, columns = transmission.shape
    box = box_of(frame, columns, rows, first_channel="top")
    return box.first_column, box.first_channel, box.end_column, box.end_channel


@pytest.mark.parametrize("load", ["empty", "stacks", "opaque"])
@pytest.mark.parametrize("tilt", [-12, 0, 12])
def test_container_on_a_chassis_is_found(load, tilt):
    truth = (250, 60 + min(tilt, 0), 1250, 440 + max(tilt, 0))
    assert overlap(found_box(scene(load=load, tilt=tilt)), truth) > 0.95


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.4])
def test_size_in_pixels_does_not_matter(factor):
    image = cv2.resize(scene(), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    assert overlap(found_box(image), tuple(v * factor for v in (250, 60, 1250, 440))) > 0.95


@pytest.mark.parametrize("squeeze", [0.4, 2.0])
def test_column_pitch_need_not_equal_channel_pitch(squeeze):
    image = cv2.resize(scene(), None, fx=squeeze, fy=1.0, interpolation=cv2.INTER_AREA)
    assert overlap(found_box(image), (250 * squeeze, 60, 1250 * squeeze, 440)) > 0.95


def test_tight_crop_is_found():
    image = scene()[48:450, 236:1266]
    assert overlap(found_box(image), (14, 12, 1014, 392)) > 0.95


def test_short_container_on_a_long_chassis_is_found():
    assert overlap(found_box(scene(box=(700, 60, 1150, 440), cab=False)), (700, 60, 1150, 440)) > 0.95


def test_a_single_floor_line_is_enough():
    assert overlap(found_box(scene(single_floor=True)), (250, 60, 1250, 440)) > 0.95


@pytest.mark.parametrize("noise", [0.01, 0.03])
@pytest.mark.parametrize("wall", [0.80, 0.90])
def test_noise_of_a_raw_scan_does_not_hide_it(noise, wall):
    image = scene(wall=wall)
    image = image + np.random.default_rng(1).normal(0, noise, image.shape).astype(np.float32)
    assert overlap(found_box(image), (250, 60, 1250, 440)) > 0.95


def test_a_frame_drawn_around_it_is_not_the_container():
    image = scene()
    cv2.rectangle(image, (225, 35), (1275, 470), 0.5, 3)
    assert overlap(found_box(image), (250, 60, 1250, 440)) > 0.93


def _bare_chassis():
    image = np.ones((600, 1500), np.float32)
    image[420:470, 100:1400] = 0.6
    for x in (300, 420, 1100, 1220):
        cv2.circle(image, (x, 520), 60, 0.1, -1)
    return image


def _car():
    image = np.ones((600, 1500), np.float32)
    cv2.ellipse(image, (750, 420), (420, 230), 0, 180, 360, 0.7, -1)
    image[400:500, 250:1250] *= 0.7
    for x in (430, 1070):
        cv2.circle(image, (x, 510), 70, 0.1, -1)
    return image


def _heap():
    image = np.ones((600, 1500), np.float32)
    cv2.fillPoly(image, [np.array([(200, 599), (750, 100), (1300, 599)])], 0.2)
    return image


@pytest.mark.parametrize(
    "image",
    [
        np.ones((400, 900), np.float32),
        np.zeros((400, 900), np.float32),
        np.full((400, 900), 0.5, np.float32),
        np.random.default_rng(3).uniform(0, 1, (400, 900)).astype(np.float32),
        np.random.default_rng(4).normal(1, 0.02, (400, 900)).astype(np.float32),
        np.tile(np.linspace(0, 1, 900, dtype=np.float32), (400, 1)),
        np.ones((8, 900), np.float32),
        _bare_chassis(),
        _car(),
        _heap(),
    ],
    ids=["air", "black", "grey", "noise", "noisy air", "ramp", "eight rows", "bare chassis", "car", "heap"],
)
def test_no_container_is_none(image):
    assert found_box(image) is None


def test_channel_zero_at_the_bottom_is_mapped_back():
    image = scene(tilt=8)
    frame = find_container(image)
    top = box_of(frame, 1500, 600, first_channel="top")
    bottom = box_of(frame, 1500, 600, first_channel="bottom")
    assert (bottom.first_channel, bottom.end_channel) == (600 - top.end_channel, 600 - top.first_channel)
    assert (bottom.first_column, bottom.end_column) == (top.first_column, top.end_column)


def test_a_container_that_goes_on_past_the_border_is_told():
    assert find_container(scene()).cut == ()
    assert find_container(np.ascontiguousarray(scene()[:, :1000])).cut == ("right",)
    assert find_container(np.ascontiguousarray(scene(cab=False)[:, 500:])).cut == ("left",)
    assert find_container(np.ascontiguousarray(scene(cab=False)[:, 250:1250])).cut == ()


def real_scans():
    """Names of the real scans, or one name that says why there are none."""
    return sorted(p.name for p in CARGO.glob("*.jpg")) or ["absent"]


@pytest.mark.parametrize("name", real_scans())
def test_container_of_a_real_scan(name):
    path = CARGO / name
    if not path.is_file():
        pytest.skip(f"no real scans at {CARGO}")
    truth = MARKED.get(name) or _annotated(path.with_suffix(".xml"))
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
    assert overlap(found_box(image), truth) >= 0.90


def _annotated(path):
    box = ET.parse(path).getroot().find("object/bndbox")
    return tuple(int(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
