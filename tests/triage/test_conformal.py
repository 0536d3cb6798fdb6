"""P-values of scans among a lane's own: what is promised holds exactly, whatever the scores are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from scanner_io.errors import DataError
from scanner_io.lane_profile import ANY
from tests import lanes
from triage.analysis.conformal import Group, calibration_of, least_scans, level_of, strata_of

VALUES = st.one_of(st.just(0.0), st.just(-np.inf), st.floats(0, 50), st.integers(0, 4).map(float))


def drawn(rng, count, kinds=12):
    """Return (count, kinds) scores that hang together, many of them absent, tied or in few values."""
    scores = np.exp(0.8 * rng.normal(size=(count, 1)) + 0.6 * rng.normal(size=(count, kinds)))
    scores[scores < 1.2] = 0
    scores[:, 1] = np.where(rng.random(count) < 0.05, scores[:, 1], 0)
    scores[:, 2] = np.floor(scores[:, 2])
    scores[rng.random(count) < 0.3, 3] = -np.inf
    return scores


@given(st.integers(1, 4).flatmap(lambda k: st.lists(st.lists(VALUES, min_size=k, max_size=k), min_size=2, max_size=40)))
def test_of_any_scans_at_most_the_promised_share_is_flagged(rows):
    """Each in turn is the scan under test and the others its calibration: no luck is left in it."""
    scores = np.array(rows)
    weights = np.arange(1, scores.shape[1] + 1, dtype=np.float64)
    p = [Group(np.delete(scores, i, axis=0), weights).rank(row).p_value for i, row in enumerate(scores)]
    for a in np.arange(1, len(p) + 1) / len(p):
        assert np.sum(np.array(p) <= a + 1e-12) <= round(a * len(p))


@pytest.mark.parametrize("scans", [59, 240])
def test_the_family_rate_is_kept_and_used(scans):
    """One test per calibration, so that flags are independent: bounds of 1 in 10,000 either way."""
    rng = np.random.default_rng(8)
    runs = 500
    p = np.array([Group(drawn(rng, scans), np.ones(12)).rank(drawn(rng, 1)[0]).p_value for _ in range(runs)])
    for a in (0.05, 0.2, 0.5):
        assert (p <= a).sum() <= binom.ppf(1 - 1e-4, runs, a)
    # ties cost something; a family's rate that pays for twelve kinds would be far below these
    assert (p <= 0.2).sum() >= binom.ppf(1e-4, runs, 0.17)


def test_no_p_is_below_what_so_few_scans_can_tell():
    rng = np.random.default_rng(1)
    group = Group(drawn(rng, 99), np.ones(12))
    strange = np.full(12, 1e6)
    assert group.rank(strange).p_value == 1 / 100


def test_ties_count_against_the_flag():
    same = np.ones((50, 3))
    assert Group(same, np.ones(3)).rank(np.ones(3)).p_value == 1.0
    assert Group(np.full((50, 3), -np.inf), np.ones(3)).rank(np.full(3, -np.inf)).p_value == 1.0
    steps = np.repeat(np.arange(5.0), 10)[:, None]
    assert Group(steps, np.ones(1)).rank(np.array([4.0])).p_value == 11 / 51


def test_candidates_are_ranked_as_their_scans_are():
    rng = np.random.default_rng(2)
    own = drawn(rng, 1)[0]
    own[0], own[5] = 9.0, 6.0
    ranked = Group(drawn(rng, 300), np.ones(12)).rank(own)
    assert ranked.p_value == min(ranked.p_of(k, float(own[k])) for k in range(12))
    falling = [ranked.p_of(0, s) for s in (9.0, 5.0, 2.0, 0.5, 0.0)]
    assert falling == sorted(falling)
    with pytest.raises(DataError, match="highest score is 9"):
        ranked.p_of(0, 9.1)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="not a number"):
        Group(np.ones((20, 2)), np.ones(2)).rank(np.array([1.0, np.nan]))


def test_a_kind_of_more_weight_gets_more_of_the_flags():
    rng = np.random.default_rng(4)
    scores = rng.exponential(size=(400, 2))
    shares = {}
    for weight in (1.0, 4.0):
        group = Group(scores, np.array([weight, 1.0]))
        flagged = [row for row in rng.exponential(size=(600, 2)) if group.rank(row).p_value <= 0.1]
        shares[weight] = np.mean([row[0] > row[1] for row in flagged])
    assert shares[4.0] > shares[1.0] + 0.15


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["09", "85", "86", "undeclared"])), min_size=1),
    st.integers(1, 30),
)
def test_every_scan_has_one_stratum_with_enough_scans(cells, least):
    table, words = strata_of(cells, least)
    sizes = np.bincount([table[c] for c in cells], minlength=len(words))
    assert sizes.sum() == len(cells)
    assert len(words) == 1 or sizes.min() >= least
    assert (ANY, ANY) in table and set(table.values()) == set(range(len(words)))


def test_strata_back_off_from_chapter_to_texture_to_the_rest():
    cells = (
        [("loaded", "85")] * 30 + [("loaded", "09")] * 6 + [("loaded", "02")] * 6 + [("empty", "declared empty")] * 3
    )
    table, words = strata_of(cells, 10)
    assert words == ("loaded, HS 85", "loaded, goods of other chapters, and what is rare on this lane")
    assert table["loaded", "85"] == 0
    assert {table[c] for c in (("loaded", "09"), ("loaded", ANY), ("empty", "declared empty"), (ANY, ANY))} == {1}


def test_a_load_like_none_before_is_compared_all_the_same():
    calibration = calibration_of(lanes.profile())
    verdict = calibration.judge({"extra_item_in_free_space": 3.0}, ("never seen", "99"))
    assert 0 < verdict.p_value <= 1 and verdict.scans >= least_scans(0.05)
    assert verdict.p_of("a kind of tomorrow", 3.0) is None


@pytest.mark.parametrize("scans", [100, 313, 3000])
def test_the_level_keeps_the_promise_on_nine_lanes_of_ten(scans):
    level = level_of(0.05, scans, 0.9)
    k = round(level * (scans + 1))
    assert beta.cdf(0.05, k, scans + 1 - k) >= 0.9
    assert beta.cdf(0.05, k + 1, scans - k) < 0.9
    assert level_of(0.05, 10, 0.9) == 0
