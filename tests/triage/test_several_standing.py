"""A scan of several containers has one promise, not one for each."""

from typing import NamedTuple

import numpy as np

from tests import lanes, samples
from triage.analysis.conformal import Verdict, calibration_of
from triage.analysis.image import ImageJudgement
from triage.analysis.kinds import KINDS
from triage.analysis.several import judge_each


class Place(NamedTuple):
    left: float
    right: float


def test_it_is_compared_by_its_strangest_container_and_each_is_told():
    profile = lanes.profile()
    first, second = list(KINDS)[:2]
    own = [{first: 2.0, second: 0.0}, {first: 0.5, second: 3.0}]
    told = []

    def judge(part, known, usual):
        told.append(usual)
        scores = own[(len(told) - 1) % 2]
        return ImageJudgement(
            load="loaded", container=None, findings=(), quality=(), timings_ms={}, scores=scores,
            vital_signs={"noise": scores[first], "stripes": None},
        )  # fmt: skip

    image = samples.radiograph(columns=60)
    judged = judge_each(image, (Place(2, 25), Place(33, 58)), judge, None, profile)
    assert told[:2] == [None, None] and isinstance(told[2], Verdict) and told[2] is told[3]
    assert judged.scores == {first: 2.0, second: 3.0}
    assert judged.cell == ("several containers", "undeclared")
    assert judged.vital_signs == {"noise": 1.25, "stripes": None}
    expected = calibration_of(profile).judge(judged.scores, judged.cell)
    assert judged.standing.p_value == expected.p_value == told[2].p_value
    plain = judge_each(image, (Place(2, 25), Place(33, 58)), judge, None)
    assert plain.standing is None and plain.scores == judged.scores
    assert len(told) == 6 and np.isfinite(expected.p_value)
