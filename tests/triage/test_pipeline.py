"""The whole judgement of one scan."""

import pytest

from scanner_io.model import Quality
from tests import samples
from triage.analysis import pipeline

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
