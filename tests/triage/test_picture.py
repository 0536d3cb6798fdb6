"""The picture a person reads: right size, right way up, marks where the boxes are, any text survives."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_io.model import Box, Finding, Intervals, Quality, TriageResult
from triage.analysis.image import judge_image
from triage.analysis.picture import annotate, grey

sys.path.insert(0, str(Path(__file__).parent))
from test_container import radiograph, scene


def result(**changes):
    fields = {
        "scan_id": "north-20260131T094501.250000Z-0f3a9c1e",
        "outcome": "REVIEW",
        "reasons": ("image: 1 finding",),
        "load": "loaded",
        "container": None,
        "findings": (),
        "quality": (),
        "gamma_alarm": None,
        "neutron_alarm": None,
        "gamma_intervals": 0,
        "alarm_intervals": 0,
        "profile": "default",
        "code_version": "0.1.0",
    }
    return TriageResult(**(fields | changes))


def judged(scan):
    image = judge_image(scan)
    return result(load=image.load, container=image.container, findings=image.findings, quality=image.quality)


@pytest.mark.parametrize("state", ["raw", "display"])
def test_grey_is_upright_and_scaled(state):
    image = scene(load="empty")
    image[100:160, 300:400] = 0.05
    for first_channel in ("top", "bottom"):
        small = grey(radiograph(image, state=state, first_channel=first_channel), 750)
        assert (small.shape, small.dtype) == ((300, 750), np.uint8)
        assert small[65, 175] < 80
        assert small[235, 175] > 120
        assert small[5, 740] > 245


def test_grey_of_each_energy():
    scan = radiograph(scene(), state="raw", energies=("low", "high"))
    assert grey(scan, 200, energy=0).shape == grey(scan, 200).shape


@pytest.mark.parametrize(("width", "expected"), [(300, 1000), (1200, 1200), (3000, 1600)])
def test_picture_width(width, expected):
    image = scene()
    scan = radiograph(image[:, np.linspace(0, image.shape[1] - 1, width).astype(int)])
    picture = annotate(scan, judged(scan))
    assert picture.shape[1:] == (expected, 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize("first_channel", ["top", "bottom"])
def test_marks_are_where_the_boxes_are(first_channel):
    scan = radiograph(np.ones((600, 1500)), state="raw", first_channel=first_channel)
    y = (100, 300) if first_channel == "top" else (300, 500)
    box = Box(first_column=400, end_column=900, first_channel=y[0], end_channel=y[1])
    finding = Finding(kind="local_contrast_dark", score=9.0, reason="x", tier="review", where=box)
    with_mark = annotate(scan, result(findings=(finding,))).astype(int)
    without = annotate(scan, result(findings=(msgspec_without(finding),))).astype(int)
    changed = np.abs(with_mark - without).sum(axis=2) > 0
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    banner = 46
    assert abs(rows[-1] - (banner + 300)) <= 4
    assert 0 <= banner + 100 - rows[0] <= 40
    assert abs(columns[0] - 400) <= 4
    assert abs(columns[-1] - 900) <= 4


def msgspec_without(finding):
    """The same finding without a place."""
    return Finding(kind=finding.kind, score=finding.score, reason=finding.reason, tier=finding.tier)


def test_opaque_area_is_tinted_inside_the_container_only():
    scan = radiograph(scene(load="opaque"), state="raw")
    told = judged(scan)
    picture = annotate(scan, told).astype(int)
    coloured = np.abs(picture[46:646, :, 0] - picture[46:646, :, 1]) > 10
    assert coloured[200:380, 400:1100].mean() > 0.5
    assert not coloured[500:600].any()


@pytest.mark.parametrize("outcome", ["CLEAR", "REVIEW", "ALARM", "UNUSABLE"])
def test_outcomes_look_different(outcome):
    scan = radiograph(scene())
    colours = {o: tuple(annotate(scan, result(outcome=o))[2, 2]) for o in ("CLEAR", "REVIEW", "ALARM", "UNUSABLE")}
    assert len(set(colours.values())) == 4
    assert annotate(scan, result(outcome=outcome)).shape[0] > 600


def test_a_broken_radiograph_still_has_a_picture():
    for image in (np.zeros((1, 1)), np.ones((1, 400)), np.zeros((300, 2))):
        for state in ("raw", "display"):
            scan = radiograph(image, state=state)
            quality = (Quality(code="too_small", reason="nothing to see", fatal=True),)
            assert annotate(scan, result(outcome="UNUSABLE", quality=quality)).ndim == 3
    scan = radiograph(scene(), state="raw", bad=range(600))
    assert annotate(scan, result(outcome="UNUSABLE")).ndim == 3


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=400), st.integers(0, 9))
def test_any_text_is_drawn(text, count):
    where = Intervals(first=0, end=3)
    findings = tuple(
        Finding(kind=text[:20] or "x", score=1.0, reason=text, tier="alarm", where=where) for _ in range(count)
    )
    scan = radiograph(scene()[::6, ::6])
    told = result(findings=findings, reasons=(text,), gamma_alarm=True, neutron_alarm=False)
    assert annotate(scan, told).shape[1] == 1000


def test_same_scan_same_picture():
    scan = radiograph(scene(), state="raw", noise=0.01)
    told = judged(scan)
    assert np.array_equal(annotate(scan, told), annotate(scan, told))
