"""The watch over a profile's promise: quiet on a lane that is as it was, soon heard on one that is not."""

import numpy as np
import pytest
from scipy.stats import kstest

from tests import lanes
from triage.analysis.drift import BOUND, Watch, _Ranks, _Rarity, bets

PROFILE = lanes.profile(count=400)


def test_every_bet_is_fair():
    # p = t^8 / (t^8 + (1 - t)^8): the bets that have no bound at an end of [0, 1] have one in t
    t = (np.arange(4000) + 0.5) / 4000
    low, high = t**8, (1 - t) ** 8
    p, slope = low / (low + high), 8 * low * high / (t * (1 - t) * (low + high) ** 2)
    values = np.array([bets(x) for x in p])
    assert (values > 0).all() and np.isfinite(bets(1.0)).all()
    np.testing.assert_allclose((values * slope[:, None]).mean(axis=0), 1, atol=5e-3)


def test_p_values_of_an_exchangeable_lane_are_uniform_with_ties_and_all():
    rng = np.random.default_rng(3)
    for draw in (lambda: float(rng.normal()), lambda: float(rng.integers(3)), lambda: -np.inf):
        ranks = _Ranks(np.array([draw() for _ in range(50)]))
        p = [ranks.p_value(draw(), rng.random(), keep=True) for _ in range(1500)]
        assert kstest(p, "uniform").pvalue > 1e-4
    cells = [("loaded", c) for c in ("09", "09", "09", "85", "85", "02")]
    rarity = _Rarity([cells[i] for i in rng.integers(6, size=50)])
    p = [rarity.p_value(cells[int(rng.integers(6))], rng.random(), keep=True) for _ in range(1500)]
    assert kstest(p, "uniform").pvalue > 1e-4


def test_a_lane_that_is_as_it_was_is_left_in_peace():
    """The bound allows stale on 0.5 % of such runs; the sum grows by one a scan in the mean."""
    rng = np.random.default_rng(4)
    watch = Watch(PROFILE)
    for one in lanes.examples(rng, 2500, first=1000):
        watch.take(lanes.seen(one, flagged=bool(rng.random() < 0.05)))
    assert watch.stale == ""
    assert watch.evidence < 0.05 * BOUND


DRIFTS = {
    "noise": ({"noise": 1.2}, 0.05),
    "blind": ({"scores": -1.0}, 0.01),
    "restless": ({"scores": 1.0}, 0.2),
    "goods": ({"cells": (*lanes.CELLS, ("loaded", "72"))}, 0.05),
    "flags alone": ({}, 0.2),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drifted_lane_is_stale_within_200_scans_and_says_why(name):
    how, rate = DRIFTS[name]
    rng = np.random.default_rng(5)
    watch = Watch(PROFILE)
    for one in lanes.examples(rng, 500, first=1000):
        assert not watch.take(lanes.seen(one, flagged=bool(rng.random() < 0.05)))
    drifted = lanes.examples(rng, 200, first=5000, **how)
    told = [watch.take(lanes.seen(one, flagged=bool(rng.random() < rate))) for one in drifted]
    assert sum(told) == 1  # once, and it stays
    about = {"noise": "noise", "blind": "score", "restless": "score", "goods": "kind", "flags alone": "scans flagged"}
    assert about[name] in watch.stale and "calibrate again" in watch.stale


def test_a_vital_sign_that_is_unknown_is_passed_over():
    watch = Watch(PROFILE)
    one = lanes.example(np.random.default_rng(1), 1)
    one.vital_signs["noise"] = None
    watch.take(lanes.seen(one))
    assert watch.scans == 1 and np.isfinite(watch.evidence)
