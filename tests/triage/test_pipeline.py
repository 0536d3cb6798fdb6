"""The whole judgement of one scan."""

import msgspec
import numpy as np
import pytest

from scanner_io.errors import DataError
from scanner_io.model import Box, Finding, Quality
from tests import samples
from triage.analysis import fuser as fusers
from triage.analysis import pipeline
from triage.analysis.container import Frame
from triage.analysis.container_seen import ContainerSeen
from triage.analysis.image import ImageJudgement, ImageProfile, Stream

PARTS = {"radiograph": None, "portal": None, "declaration": None}


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_that_the_lane_has_and_the_scan_has_not_is_never_clear(kind):
    scan = samples.scan(quality=(), **{kind: None})
    result = pipeline.run(scan, pipeline.Profile())
    assert f"{kind}_missing" in {q.code for q in result.quality}
    assert result.outcome != "CLEAR"


def test_a_missing_part_that_is_explained_is_not_told_twice():
    flag = Quality(code="portal_broken_off", reason="the link was lost")
    result = pipeline.run(samples.scan(portal=None, quality=(flag,)), pipeline.Profile())
    assert [q.code for q in result.quality if q.code.startswith("portal")] == ["portal_broken_off"]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("energies", [("one",), ("low", "high")])
def test_screened_while_it_came_the_result_is_the_same(block, energies):
    image = samples.radiograph(columns=150, channels=70, energies=energies)
    scan = samples.scan(radiograph=image)
    stream = Stream(image.detector)
    for first in range(0, image.columns, block):
        stream.push(tuple(c[first : first + block] for c in image.counts))
    whole = pipeline.run(scan, pipeline.Profile())
    live = pipeline.run(scan, pipeline.Profile(), stream=stream)
    assert msgspec.structs.replace(live, timings_ms={}) == msgspec.structs.replace(whole, timings_ms={})


def test_a_stream_of_another_image_is_refused():
    image = samples.radiograph(columns=150, channels=70)
    stream = Stream(image.detector)
    stream.push(tuple(c[:20] for c in image.counts))
    with pytest.raises(DataError, match="the stream saw"):
        pipeline.run(samples.scan(radiograph=image), pipeline.Profile(), stream=stream)


def test_a_detector_without_calibration_streams_nothing():
    dead = samples.detector(bad_channels=np.ones(40, np.bool_))
    stream = Stream(dead)
    image = samples.radiograph(detector=dead)
    stream.push(image.counts)
    assert stream.finish() is None
    assert pipeline.run(samples.scan(radiograph=image), pipeline.Profile(), stream=stream).outcome == "UNUSABLE"


@pytest.mark.parametrize(
    ("loads", "whole", "told"),
    [
        (("loaded", "unknown"), "loaded", ["container 2 of 2"]),
        (("unknown", "empty", "unknown"), "unknown", ["container 1 of 3", "container 3 of 3"]),
        (("loaded", "empty"), "loaded", []),
        (("unknown",), "unknown", ["whether the container is empty"]),
        (("empty",), "unknown", ["whether the container is empty"]),
    ],
)
def test_a_load_that_is_not_clear_asks_for_a_look_in_every_container(loads, whole, told, monkeypatch):
    frame = Frame(
        left=1.0, right=9.0, roof_left=1.0, roof_right=1.0, floor_left=8.0, floor_right=8.0, floor_seen=True, cut=()
    )
    boxes = [Box(first_column=i, end_column=i + 1, first_channel=0, end_channel=5) for i in range(len(loads))]
    seen = tuple(
        ContainerSeen(frame=frame, box=box, load=load, load_share=0.0, opaque_share=0.0, size=None, structure=None)
        for load, box in zip(loads, boxes, strict=True)
    )
    note = Finding(kind="display_windowed", score=0.0, reason="windowed", tier="note")
    judged = ImageJudgement(
        load=whole, container=boxes[0], findings=(note,), quality=(), timings_ms={}, containers=seen
    )  # fmt: skip
    monkeypatch.setattr(pipeline, "judge_image", lambda *args, **more: judged)
    result = pipeline.run(samples.scan(quality=(), portal=None, expected=(), declaration=None), pipeline.Profile())
    unclear = [f for f in result.findings if f.kind == "load_unclear"]
    assert len(unclear) == len(told)
    assert all(words in f.reason for words, f in zip(told, unclear, strict=True))
    assert not told or result.outcome == "REVIEW"
    # what asks for a look comes before what does not
    assert [f.tier for f in result.findings] == ["review"] * len(told) + ["note"]


def test_a_profile_is_named_by_what_its_fuser_holds_and_not_by_where_it_lies(tmp_path):
    content = fusers.to_bytes(fusers.fuser_named("packaged"))
    other = msgspec.structs.replace(fusers.fuser_named("packaged"), thresholds={})
    paths = [tmp_path / name for name in ("one.npz", "two.npz", "other.npz")]
    for path, held in zip(paths, (content, content, fusers.to_bytes(other)), strict=True):
        path.write_bytes(held)
    one, two, third = (pipeline.Profile(image=ImageProfile(fuser=str(path))) for path in paths)
    assert one.identity == two.identity == pipeline.Profile().identity != third.identity
    assert one.thresholds == two.thresholds == pipeline.Profile().thresholds != third.thresholds
    lost = pipeline.Profile(image=ImageProfile(fuser=str(tmp_path / "lost.npz")))
    assert lost.identity not in (one.identity, pipeline.Profile(image=ImageProfile(fuser="none")).identity)
