"""The vehicle: several containers, size class, wheels, tractor, and what carries no container."""

import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from drivers.simulated import Config, ground_truth, simulate_passage
from scanner_io.model import LineBlock, Radiograph, ScanStart
from triage.analysis.container import Frame, find_container, find_containers
from triage.analysis.container_size import size_of
from triage.analysis.image import judge_image
from triage.analysis.structure import Structure

sys.path.insert(0, str(Path(__file__).parent))
from test_container import CARGO, _bare_chassis, _car, overlap, radiograph, scene


def two(gap=14, loads=("stacks", "empty"), second=320):
    """Return two containers of 320 and `second` pixels, `gap` apart, on one chassis, (600, 1500) float32."""
    left = scene(box=(300, 120, 620, 280), load=loads[0], chassis=False)
    right = scene(box=(620 + gap, 120, 620 + gap + second, 280), load=loads[1], chassis=False, cab=False)
    image = left * right
    image[280:310, 200:1200] *= 0.7
    return image[:360]


@pytest.mark.parametrize("loads", [("stacks", "empty"), ("empty", "empty"), ("opaque", "stacks")])
@pytest.mark.parametrize("gap", [5, 14, 40, 200])
def test_two_containers_on_one_chassis(gap, loads):
    frames = find_containers(two(gap, loads))
    assert len(frames) == 2
    for frame, x0 in zip(frames, (300, 620 + gap), strict=True):
        found = (frame.left, frame.roof_left, frame.right, frame.floor_left)
        assert overlap(found, (x0, 120, x0 + 320, 280)) > 0.93
    assert abs(frames[0].right - 620) <= 5 and abs(frames[1].left - (620 + gap)) <= 5


def test_containers_of_two_lengths():
    frames = find_containers(two(30, second=650))
    assert [round((f.right - f.left) / 10) for f in frames] == [32, 65]


@pytest.mark.parametrize("load", ["empty", "stacks", "opaque"])
@pytest.mark.parametrize("cab", [(0.9, 0.6), (1.0, 0.6), (1.0, 0.88)])
def test_a_high_cab_is_no_second_container(cab, load):
    tall, t = cab
    image = scene(box=(500, 60, 1400, 440), load=load, cab=False)
    image[440 - round(380 * tall) : 540, 120:420] *= t
    assert len(find_containers(image)) == 1


def test_what_stands_beside_a_container_and_is_no_cab_is_told():
    with_cab = judge_image(radiograph(scene(box=(900, 200, 1400, 410)), state="raw"))
    assert with_cab.vehicle.cab is not None and with_cab.vehicle.beyond == ()
    assert "beyond_container" not in [q.code for q in with_cab.quality]
    heap = scene(box=(900, 200, 1400, 410), cab=False)
    heap[300:405, 60:560] *= 0.4
    judged = judge_image(radiograph(heap, state="raw"))
    (told,) = [q for q in judged.quality if q.code == "beyond_container"]
    assert "in columns 60 to 560 " in told.reason


def test_a_cab_at_both_ends_is_one_too_many():
    image = scene(box=(500, 60, 1100, 440), load="empty")
    image[160:500, 1180:1400] *= 0.4
    judged = judge_image(radiograph(image, state="raw"))
    assert len(judged.vehicle.beyond) == 2 and "beyond_container" in [q.code for q in judged.quality]


def test_what_stands_between_two_containers_is_told():
    image = two(200, loads=("empty", "empty"))
    plain = judge_image(radiograph(image, state="raw"))
    image[180:280, 660:780] *= 0.4
    judged = judge_image(radiograph(image, state="raw"))
    assert len(judged.containers) == 2
    assert ["beyond_container" in [q.code for q in j.quality] for j in (plain, judged)] == [False, True]


def test_two_containers_with_positions_of_an_encoder_are_judged():
    scan = radiograph(two(), state="raw", noise=0.003)
    judged = judge_image(msgspec.structs.replace(scan, position_mm=8.0 * np.arange(scan.columns)))
    assert len(judged.containers) == 2 and judged.load == "loaded"


def test_one_container_is_one():
    for image in (scene(), scene(load="empty"), scene(tilt=10, load="opaque")):
        assert find_containers(image) == (find_container(image),)


def test_each_of_two_containers_is_judged():
    image = two(loads=("opaque", "empty"))
    image[200:212, 800:812] *= 0.5
    scan = radiograph(image, state="raw", noise=0.003)
    judged = judge_image(scan)
    assert [c.load for c in judged.containers] == ["loaded", "empty"]
    assert judged.load == "loaded"
    # told once, of the whole image: 320 columns are few
    assert [q.code for q in judged.quality] == ["image_small"]
    assert judged.opaque_share == judged.containers[0].opaque_share > 0.2
    box = judged.container
    assert overlap((box.first_column, box.first_channel, box.end_column, box.end_channel), (300, 120, 954, 280)) > 0.93
    item = next(f for f in judged.findings if f.kind == "extra_item_in_free_space")
    assert item.reason.startswith("container 2 of 2: ")
    at = item.where
    assert overlap((at.first_column, at.first_channel, at.end_column, at.end_channel), (800, 200, 812, 212)) > 0.4
    mask = np.zeros(scan.counts[0].shape, bool)
    for unseen in judged.uninspectable:
        mask |= unseen.mask(*mask.shape)
    assert mask[320:600, 170:260].mean() > 0.7
    assert not mask[640:].any()


def test_two_real_containers_side_by_side():
    names = ("container_1701_0.jpg", "container_1701_1.jpg")
    if not CARGO.is_dir():
        pytest.skip(f"no real scans at {CARGO}")
    height, parts = 570, []
    for name in names:
        part = cv2.imread(str(CARGO / name), cv2.IMREAD_GRAYSCALE)
        parts.append(cv2.resize(part, (650, height), interpolation=cv2.INTER_AREA))
    judged = judge_image(radiograph(np.hstack(parts) / 255.0))
    assert [c.load for c in judged.containers] == ["loaded", "loaded"]


# -- what is no container


def _van():
    image = np.ones((600, 1000), np.float32)
    body = np.array([(150, 480), (160, 330), (270, 290), (330, 150), (420, 120), (850, 130), (870, 480)])
    cv2.fillPoly(image, [body], 0.7)
    for x in (270, 750):
        cv2.circle(image, (x, 500), 50, 0.1, -1)
    return image


@pytest.mark.parametrize(("image", "kind"), [(_bare_chassis(), "bare_chassis"), (_car(), "car"), (_van(), "van")])
@pytest.mark.parametrize("state", ["raw", "display"])
def test_a_vehicle_without_a_container_is_named(image, kind, state):
    judged = judge_image(radiograph(image, state=state, noise=0.003))
    assert judged.vehicle.kind == kind
    (flag,) = judged.quality
    assert (flag.code, flag.fatal) == ("no_container", False)
    assert judged.vehicle.words in flag.reason


def test_what_is_no_vehicle_is_not_called_one():
    image = np.ones((600, 1500), np.float32)
    cv2.fillPoly(image, [np.array([(200, 599), (750, 100), (1300, 599)])], 0.2)
    assert judge_image(radiograph(image)).vehicle.kind == "vehicle"


# -- size


def frame(length, height, **changes):
    fields = {"left": 0.0, "right": float(length), "roof_left": 0.0, "roof_right": 0.0, "floor_left": float(height),
              "floor_right": float(height), "floor_seen": True}  # fmt: skip
    return Frame(**(fields | changes))


def detector(**pitches):
    return radiograph(np.ones((64, 64)), **pitches).detector


@pytest.mark.parametrize(("metres", "feet"), [(6.06, 20), (6.3, 20), (12.0, 40), (12.4, 40), (13.5, 45), (9.1, None)])
def test_length_class_by_pitch(metres, feet):
    size = size_of(frame(metres * 100, 260), detector(column_pitch_mm=10.0))
    assert size.feet == feet
    assert size.length_mm == pytest.approx(1000 * metres)
    assert feet is not None or "no length of ISO 668" in size.words


@pytest.mark.parametrize(
    ("aspect", "stretch", "may_be"),
    [
        (2.2, (0.5, 0.52), (40, 45)),
        (2.2, (0.95, 1.05), (20,)),
        (1.2, (0.5, 0.6), (20,)),
        (2.2, (0.5, 1.0), ()),
        (2.2, None, ()),
    ],
)
def test_length_class_by_wheels(aspect, stretch, may_be):
    size = size_of(frame(aspect * 300, 300), detector(), stretch)
    assert size.may_be == may_be
    assert size.feet == (20 if may_be == (20,) else None)
    assert may_be or size.words.startswith("length class not known: ")


def test_a_cut_container_has_no_length_class():
    assert size_of(frame(606, 260, cut=("left",)), detector(column_pitch_mm=10.0)).feet is None


def test_only_a_low_box_has_a_height_class():
    for height, high in ((259, False), (290, None), (312, None)):
        assert size_of(frame(606, height), detector(column_pitch_mm=10.0, channel_pitch_mm=10.0)).high is high


#: By eye: the boxes that are half as long as their trailers, and those as long.
SHORT = ("falcon_1.jpg", "stamp1.jpg")
LONG = ("other_0.jpg", "other_2.jpg", "truck_00.jpg", "truck_02.jpg", "truck_04.jpg", "truck_05.jpg", "truck_07.jpg",
        "truck_09.jpg", "truck_12.jpg", "truck_14.jpg", "truck_15.jpg")  # fmt: skip


def test_length_class_of_real_scans_is_right_or_open():
    if not CARGO.is_dir():
        pytest.skip(f"no real scans at {CARGO}")
    told = 0
    for names, right in ((SHORT, (20,)), (LONG, (40, 45))):
        for name in names:
            picture = cv2.imread(str(CARGO / name), cv2.IMREAD_GRAYSCALE) / 255.0
            scale = min(1.0, 600 / picture.shape[0])
            judged = judge_image(
                radiograph(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
            )
            may_be = judged.containers[0].size.may_be
            assert may_be in ((), right), name
            told += may_be == right
    assert told >= 6


# -- simulated lanes, whose truth is known


def simulated(index, turned=False, **config):
    """Return judgement and truth of a simulated vehicle; `turned` : the detector is said to be the other way up."""
    settings = {"columns": 1200, "channels": 448, "energies": 1, "portal": False, "declarations": False, "seed": 11,
                "threat_share": 0.0}  # fmt: skip
    config = Config(**(settings | config))
    events = list(simulate_passage(config, index))
    state = next(e.detector for e in events if isinstance(e, ScanStart))
    blocks = [e for e in events if isinstance(e, LineBlock)]
    counts = np.concatenate([b.counts[-1] for b in blocks])
    if turned:
        end = "top" if state.first_channel == "bottom" else "bottom"
        state = msgspec.structs.replace(state, first_channel=end)
    scan = Radiograph(detector=state, counts=(counts,), column_utc_ns=np.arange(len(counts), dtype=np.int64))
    return judge_image(scan), ground_truth(config, index)


@pytest.mark.parametrize("cargo", ["frozen", "empty", "drums"])
@pytest.mark.parametrize("index", [0, 1])
def test_size_and_structure_of_a_simulated_container(cargo, index):
    judged, truth = simulated(index, cargo={cargo: 1.0})
    (seen,) = judged.containers
    assert judged.quality == ()
    assert seen.size.feet == truth.feet
    assert seen.structure.machinery == ("left" if truth.reefer else None)
    assert judged.vehicle.front in ("left", None)
    # six or seven wheels pass: the tractor's rear axles and three of the trailer
    assert 4 <= len(judged.vehicle.wheels.places) <= 8


@pytest.mark.parametrize("cargo", ["empty", "drums"])
def test_a_simulated_vehicle_upside_down_is_judged_as_it_is(cargo):
    (right, _), (turned, _) = (simulated(0, way, cargo={cargo: 1.0}) for way in (False, True))
    assert [q.code for q in turned.quality] == ["image_upside_down"]
    assert (turned.load, turned.container) == (right.load, right.container)


def test_wheels_are_where_they_are():
    judged = judge_image(radiograph(scene(load="empty"), state="raw", column_pitch_mm=7.0, channel_pitch_mm=7.0))
    middles = [(a + c) / 2 for a, _, c, _ in judged.vehicle.wheels.places]
    for x in (440, 630, 1060):
        assert min(abs(m - x) for m in middles) < 12


def test_judgement_with_everything_in_it_is_plain_data():
    judged = judge_image(radiograph(two(), state="raw"))
    assert msgspec.json.decode(msgspec.json.encode(judged), type=type(judged)) == judged


def test_a_place_in_the_structure_is_named_as_such():
    structure = Structure(left=0.02, right=0.02, roof=0.05, floor=0.1, machinery="right", machinery_share=0.05)
    places = {
        (970, 80, 990, 100): "in the cooling machinery", (2, 80, 20, 100): "in the end frame",
        (500, 370, 520, 384): "in the floor", (500, 0, 520, 15): "under the roof", (500, 80, 520, 100): "",
        (930, 80, 965, 100): "",
    }  # fmt: skip
    assert {at: structure.part_at(at, 384, 1000) for at in places} == places
