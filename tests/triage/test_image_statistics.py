"""Statistics of image detection against known values, brute force and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu

from triage.study import image_statistics as stats

RNG = np.random.default_rng


@pytest.mark.parametrize(("hits", "of"), [(0, 20), (3, 49), (20, 20), (37, 100), (1, 3)])
def test_wilson_is_that_of_scipy(hits: int, of: int) -> None:
    known = binomtest(hits, of).proportion_ci(0.95, "wilson")
    assert stats.wilson(hits, of) == pytest.approx((known.low, known.high), abs=1e-6)


def test_threshold_lets_through_what_it_may() -> None:
    clean = [np.array([5.0, 3.0, 1.0]), np.array([4.0, 2.0]), np.empty(0), np.array([6.0])]
    t = stats.threshold("fa1", clean)  # four images, four regions: 6 5 4 3
    assert sum(int((c >= t).sum()) for c in clean) == 4
    assert 2.0 < t <= 3.0
    many = [np.array([float(i), float(i) / 2]) for i in range(40)]
    t = stats.threshold("far5", many)
    assert sum(c.max() >= t for c in many) == 2
    t = stats.threshold("fa01", many)
    assert sum(int((c >= t).sum()) for c in many) == 4


def test_equal_scores_never_let_through_more() -> None:
    t = stats.threshold("far5", [np.array([1.0])] * 40)
    assert t > 1.0
    assert stats.NEVER < stats.threshold("fa1", [np.empty(0)] * 3) < -1e300


def test_share_with_one_trial_per_image_is_the_plain_bootstrap() -> None:
    hits = RNG(1).random(200) < 0.3
    found = stats.Draws(200, 1).share(hits, np.arange(200))
    se = np.sqrt(0.3 * 0.7 / 200)
    assert found.value == pytest.approx(hits.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * se, rel=0.15)  # type: ignore[operator]


def test_trials_of_one_image_are_no_independent_ones() -> None:
    """Ten trials per image that all agree are worth one."""
    once = RNG(2).random(50) < 0.5
    hits, image = np.repeat(once, 10), np.repeat(np.arange(50), 10)
    found = stats.Draws(50, 1).share(hits, image)
    assert found.high - found.low > 2.5 * np.subtract(*stats.wilson(int(hits.sum()), 500)[::-1])  # type: ignore[operator]


def test_area_under_curve_is_mann_whitney() -> None:
    clean, inserted = RNG(3).normal(0, 1, 30), RNG(4).normal(0.7, 1, 90)
    found = stats.Draws(30, 1).area_under_curve(clean, inserted, np.repeat(np.arange(30), 3))
    assert found.value == pytest.approx(mannwhitneyu(inserted, clean).statistic / (30 * 90))
    assert found.low < found.value < found.high  # type: ignore[operator]


def test_a_difference_of_pairs_is_narrower_than_of_strangers() -> None:
    base = RNG(5).random(400)
    image = np.repeat(np.arange(40), 10)
    a, b = base < 0.5, base < 0.45
    draws = stats.Draws(40, 1)
    paired = draws.difference(a, b, image)
    assert paired.value == pytest.approx(a.mean() - b.mean()) and paired.low > 0  # type: ignore[operator]
    assert stats.only(a, b) == {"only_first": int((a & ~b).sum()), "only_second": 0}


def test_worst_group() -> None:
    values, groups = np.array([0.0, 2.0, 5.0, 7.0, 1.0]), [0, 0, 1, 1, 2]
    found = stats.Draws(5, 1, groups).largest_mean(values, groups)
    assert (found.value, found.low, found.high) == (6.0, 5.0, 7.0)


def test_nothing_counted_has_no_value() -> None:
    draws = stats.Draws(3, 1)
    assert draws.share(np.zeros(0, np.bool_), np.zeros(0, np.int64)).plain()["value"] is None
    assert draws.area_under_curve(np.zeros(3), np.zeros(0), np.zeros(0, np.int64)).value is None


def test_curve_by_hand() -> None:
    clean = [np.array([3.0, 1.0]), np.array([2.0])]
    rates, pod = stats.froc(clean, np.array([5.0, 2.5, 0.5]), np.array([-np.inf, 2.6, -np.inf]))
    assert rates.tolist() == [0.5, 1.0, 1.5]
    assert pod.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])  # the second was there before
