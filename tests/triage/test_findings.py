"""Each kind of specific finding on containers drawn for it: what is there is found, what is not there is not."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from scanner_io.model import Declaration
from triage.analysis import image as image_module
from triage.analysis.image import judge_image
from triage.analysis.kinds import KINDS, search
from triage.analysis.known import Asked, Known, Mark

sys.path.insert(0, str(Path(__file__).parent))
from test_container import radiograph, scene
from test_image import BOX

PITCH = 6.8
"""mm per pixel: the drawn container is 2.6 m high and 6.8 m long."""
SCALE = 0.6
"""Containers are judged at this part of the size they are drawn in: it takes a third of the time."""


def empty():
    return scene(load="empty")


def put(image, x, y, w, h, t):
    """Multiply a rectangle with soft edges by `t`, in place."""
    mask = np.zeros_like(image)
    mask[y : y + h, x : x + w] = 1
    image *= 1 - (1 - t) * cv2.GaussianBlur(mask, (0, 0), 0.8)
    return image


def asked(image, *, noise=0.003, seed=0, known=None, **extra):
    """Return what the judgement asks about a drawn container."""
    kept = []
    real = image_module.search
    image_module.search = lambda a: kept.append(a) or real(a)
    try:
        small = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
        extra = {"column_pitch_mm": PITCH / SCALE, "channel_pitch_mm": PITCH / SCALE, **extra}
        judge_image(radiograph(small, state="raw", noise=noise, seed=seed, **extra))
    finally:
        image_module.search = real
    return Asked(kept[0].cargo, kept[0].load_share, known)


def found(kind, image, **more):
    """Return the candidates of one kind that reach a note; None where its question does not arise."""
    a = asked(image, **more)
    candidates = search(a).get(kind)
    if candidates is None:
        return None
    return [c for c in candidates if c.score >= KINDS[kind].note(a.cargo.p) and c.of_many == 1]


def covers(cargo_at, x, y, w, h):
    """True where a candidate's rectangle has its centre in a drawn one; the grid has 384 rows over the container."""
    f = 384 / (BOX[3] - BOX[1])
    cx, cy = (cargo_at[0] + cargo_at[2]) / 2 / f + BOX[0], (cargo_at[1] + cargo_at[3]) / 2 / f + BOX[1]
    return x - 6 <= cx <= x + w + 6 and y - 6 <= cy <= y + h + 6


def stacks(t=0.35, *, top=150, first=275, last=1225, step=60, gap=6):
    """Return a container with even stacks of light goods up to `top`."""
    image = empty()
    for x in range(first, last - step, step):
        put(image, x, top, step - gap, 405 - top, t)
    return image


# -- declared empty


def test_declared_empty_but_a_box_stands_on_the_floor():
    known = Known(declaration=Declaration(declared_empty=True))
    image = put(empty(), 600, 340, 60, 66, 0.6)
    hits = found("declared_empty_holds_something", image, known=known)
    assert covers(hits[0].at, 600, 340, 60, 66)
    assert hits[0].score > KINDS["declared_empty_holds_something"].review(None)


def test_declared_empty_and_empty():
    known = Known(declaration=Declaration(declared_empty=True))
    review = KINDS["declared_empty_holds_something"].review(None)
    assert not [c for c in found("declared_empty_holds_something", empty(), known=known) if c.score >= review]


def test_posts_of_a_45_foot_container_are_nothing_in_it():
    known = Known(declaration=Declaration(declared_empty=True))
    review = KINDS["declared_empty_holds_something"].review(None)
    image = put(put(empty(), 330, 60, 34, 380, 0.2), 1136, 60, 34, 380, 0.2)
    assert not [c for c in found("declared_empty_holds_something", image, known=known) if c.score >= review]


@pytest.mark.parametrize("declaration", [None, Declaration(), Declaration(declared_empty=False)])
def test_not_declared_empty_is_not_asked(declaration):
    assert found("declared_empty_holds_something", empty(), known=Known(declaration=declaration)) is None


# -- dense object


def test_dense_block_in_light_goods():
    hits = found("dense_object", put(stacks(0.5), 700, 300, 34, 28, 0.06))
    assert len(hits) == 1
    assert covers(hits[0].at, 700, 300, 34, 28)


def test_two_dense_blocks_count_no_less_than_one():
    one = found("dense_object", put(stacks(0.5), 700, 300, 34, 28, 0.06))
    two = found("dense_object", put(put(stacks(0.5), 700, 300, 34, 28, 0.06), 940, 230, 34, 28, 0.06))
    assert len(two) == 2
    assert min(c.score for c in two) > 0.9 * one[0].score


def test_light_goods_alone_hold_no_dense_object():
    assert found("dense_object", stacks(0.5)) == []


def test_a_row_of_dense_things_is_the_load():
    image = stacks(0.5)
    for x in range(330, 1100, 120):
        put(image, x, 300, 30, 28, 0.06)
    assert found("dense_object", image) == []


def test_what_the_portal_saw_at_the_same_columns_counts():
    image = put(stacks(0.5), 700, 300, 34, 28, 0.06)
    plain = found("dense_object", image)[0]
    there = found("dense_object", image, known=Known(marks=(Mark(414, 444, "gamma counts were high"),)))[0]
    elsewhere = found("dense_object", image, known=Known(marks=(Mark(180, 240, "gamma counts were high"),)))[0]
    assert there.score == pytest.approx(1.5 * plain.score)
    assert "gamma counts were high at the same columns" in there.words
    assert elsewhere.score == plain.score


# -- false wall


@pytest.mark.parametrize(("x", "side"), [(258, "left"), (1172, "right")])
def test_slab_at_an_end(x, side):
    hits = found("false_wall", put(stacks(0.4, top=220, first=360, last=1160), x, 62, 70, 350, 0.25))
    assert len(hits) == 1
    assert f"at the {side} end" in hits[0].words


def test_no_slab_where_the_load_stands_at_the_end():
    assert found("false_wall", stacks(0.25, top=200, first=262, last=1250)) == []


def test_no_question_of_a_slab_where_the_load_reaches_the_roof():
    assert found("false_wall", stacks(0.25, top=64, first=262, last=1250)) is None


# -- pattern break


@pytest.mark.parametrize("t", [0.6, 0.75])
def test_one_stack_holds_more(t):
    hits = found("pattern_break", put(stacks(0.4), 700, 280, 44, 44, t))
    assert hits
    assert covers(hits[0].at, 700, 280, 44, 44)


def test_even_stacks_break_no_pattern():
    assert found("pattern_break", stacks(0.4)) == []


def test_a_missing_box_is_no_break():
    image = stacks(0.4)
    assert found("pattern_break", put(image, 700, 280, 44, 44, 1.7)) == []


def test_clutter_has_no_pattern():
    rng = np.random.default_rng(3)
    image = empty()
    for _ in range(60):
        put(image, int(rng.integers(270, 1180)), int(rng.integers(150, 350)), int(rng.integers(20, 70)), 50, 0.7)
    assert found("pattern_break", image) is None


# -- void


def even_load(t=0.3):
    return put(empty(), 270, 150, 960, 255, t)


def test_hollow_in_an_even_load():
    hits = found("void", put(even_load(), 600, 240, 70, 60, 1.8))
    assert len(hits) == 1
    assert covers(hits[0].at, 600, 240, 70, 60)


def test_even_load_has_no_hollow():
    assert found("void", even_load()) == []


def test_gaps_between_stacks_are_no_hollows():
    assert found("void", stacks(0.3, gap=12)) == []


@pytest.mark.parametrize("image", [empty(), put(empty(), 270, 150, 960, 255, 0.004)], ids=["empty", "opaque"])
def test_no_question_of_hollows_without_a_load_that_can_be_seen(image):
    assert found("void", image) is None


# -- door end


@pytest.mark.parametrize(("x", "last", "side"), [(1160, 1110, "right"), (270, 1225, "left")])
def test_bag_between_load_and_doors(x, last, side):
    image = stacks(0.15, first=275 if side == "right" else 390, last=last)
    hits = found("door_end_item", put(image, x, 340, 60, 64, 0.55))
    assert len(hits) == 1
    assert covers(hits[0].at, x, 340, 60, 64)
    assert f"item at the {side} end" in hits[0].words


def test_gap_without_a_bag():
    assert found("door_end_item", stacks(0.15, last=1110)) == []


@pytest.mark.parametrize("image", [empty(), put(empty(), 255, 62, 990, 345, 0.15)], ids=["empty", "up to the roof"])
def test_no_load_or_no_room_no_question(image):
    assert found("door_end_item", image) is None


def test_bag_on_the_load_behind_the_doors():
    hits = found("door_end_item", put(stacks(0.15, top=260, last=1250), 1165, 200, 60, 58, 0.55))
    assert len(hits) == 1
    assert covers(hits[0].at, 1165, 200, 60, 58)


# -- person-sized


def person(image, x, floor, t=0.42):
    """Draw somebody who stands: 1.7 m, 25 cm of water."""
    body = np.zeros_like(image)
    cv2.ellipse(body, (x, floor - 150), (24, 52), 0, 0, 360, 1, -1)
    cv2.ellipse(body, (x - 10, floor - 52), (12, 56), 0, 0, 360, 0.7, -1)
    cv2.ellipse(body, (x + 11, floor - 52), (12, 56), 0, 0, 360, 0.7, -1)
    cv2.circle(body, (x, floor - 217), 15, 0.7, -1)
    image *= t ** cv2.GaussianBlur(body, (0, 0), 2.0)
    return image


def test_person_in_an_empty_container():
    hits = found("person_sized", person(empty(), 640, 405))
    assert len(hits) == 1
    assert covers(hits[0].at, 610, 180, 60, 225)


def test_several_persons_are_found_like_one():
    hits = found("person_sized", person(person(empty(), 480, 405), 1010, 405))
    assert len(hits) == 2


def test_boxes_and_dense_things_of_a_person_s_size_are_none():
    assert found("person_sized", put(empty(), 600, 160, 60, 245, 0.42)) == []
    assert found("person_sized", person(empty(), 640, 405, t=0.02)) == []


def test_nobody_in_empty_or_loaded_containers():
    assert found("person_sized", empty()) == []
    assert found("person_sized", stacks()) == []


# -- changed


def earlier(image, **more):
    return Known(previous=asked(image, seed=9, **more).cargo)


def test_what_was_added_since_the_earlier_scan():
    image = stacks()
    known = earlier(image.copy())
    hits = found("changed_since_previous", put(image, 800, 260, 40, 40, 0.5), known=known)
    assert covers(hits[0].at, 800, 260, 40, 40)
    assert hits[0].words.startswith("more than at the earlier scan")


def test_nothing_has_changed():
    image = stacks()
    assert found("changed_since_previous", image, known=earlier(image)) == []


def test_the_truck_came_from_the_other_side():
    image = put(stacks(), 500, 260, 60, 60, 0.6)
    known = earlier(np.ascontiguousarray(image[:, ::-1]))
    assert found("changed_since_previous", image, known=known) == []


def test_another_load_is_said_as_such():
    hits = found("changed_since_previous", stacks(0.1, top=250), known=earlier(empty()))
    assert len(hits) == 1
    assert hits[0].at is None
    assert "not the load of the earlier scan" in hits[0].words


def test_without_an_earlier_scan_nothing_is_asked():
    assert found("changed_since_previous", stacks()) is None
