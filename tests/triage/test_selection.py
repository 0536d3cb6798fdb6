"""Selection: room, who comes first, draws that nobody outside can tell, and shares that show bias."""

import hashlib
import hmac
import tomllib

import msgspec
import numpy as np
import pytest
from scipy.stats import kstest

from scanner_io.errors import ConfigError, DataError
from triage.analysis import selection
from triage.analysis.selection import Candidate, Pace, Plan, Window
from triage.analysis.shares import share

SEED = bytes(range(32))
HOUR = 3600 * 10**9


def plan(**changes):
    values = {
        "pace": Pace(image_s=240.0, look_s=44.0, open_min=120.0, busy=1.0),
        "random_share": {"image": 0.01, "look": 0.02, "open": 0.0}, "authorised_weight": 0.3,
    }  # fmt: skip
    return Plan(**{**values, **changes})


def window(hours=1.0, start=0, **changes):
    values = {"start_utc_ns": start, "end_utc_ns": start + int(hours * HOUR), "lanes": 1, "analysts": 1, "places": 1}
    return Window(**{**values, **changes})


def crowd(count=2000, seed=1):
    rng = np.random.default_rng(seed)
    return [
        Candidate(
            scan_id=f"s{i}", at_utc_ns=int(rng.integers(HOUR)), score=float(rng.integers(0, 40)),
            trusted=bool(rng.random() < 0.75), must="alarm" if rng.random() < 0.005 else "",
            traits={"trader": "a" if i % 3 else "b"},
        )
        for i in range(count)
    ]  # fmt: skip


def chosen(candidates, windows=None, the_plan=None, stage="image", seed=SEED):
    return selection.choose(
        stage, candidates, windows or [window(lanes=10)], the_plan or plan(), selection.drawing(seed)
    )  # fmt: skip


def test_a_window_has_room_for_what_its_people_and_places_can_do():
    w = window(2.0, lanes=3, analysts=2, places=4)
    pace = Pace(image_s=240.0, look_s=44.0, open_min=120.0, busy=0.85)
    assert [selection.room(s, w, pace) for s in ("image", "look", "open")] == [76, 278, 3]
    assert selection.room("open", window(lanes=0, places=0), pace) == 0


def test_no_more_are_chosen_than_there_is_room_for_but_what_must_and_what_was_drawn():
    people = crowd()
    told = chosen(people)
    must = sum(bool(c.must) for c in people)
    assert sum(c.chosen for c in told) == 150 and sum(c.rank > 0 for c in told) < 150 - must
    cramped = chosen(people, [window(lanes=0)])
    kept = [c for c, p in zip(cramped, people, strict=True) if c.chosen]
    assert {c.scan_id for c in kept} == {p.scan_id for p in people if p.must} | {c.scan_id for c in told if c.random}
    assert all(c.waits and "there is room for 0" in c.why for c in kept) and len(kept) > must


def test_the_highest_scores_come_first_and_authorised_ones_count_for_less():
    people = [
        Candidate(scan_id=f"s{i}", at_utc_ns=0, score=s, trusted=t)
        for i, (s, t) in enumerate([(10, False), (30, True), (12, False), (50, True), (0, False)])
    ]
    told = chosen(people, [window(lanes=1, hours=0.2)], plan(random_share={"image": 1e-9, "look": 0.1}))
    assert [c.rank for c in told] == [3, 0, 2, 1, 0]
    assert "counted 15 as an authorised trader's" in told[3].why and "not chosen" in told[1].why
    assert chosen(people, [window(lanes=100)])[4].chosen is False  # no risk at all, though there is room


def test_authorised_traders_are_chosen_less_often_and_never_never():
    people = [msgspec.structs.replace(c, must="") for c in crowd(20_000)]
    told = chosen(people, [window(lanes=70)])
    rate = {t: np.mean([c.chosen for c, p in zip(told, people, strict=True) if p.trusted is t]) for t in (True, False)}
    assert rate[True] < 0.5 * rate[False]
    drawn = {t: share(sum(c.random for c, p in zip(told, people, strict=True) if p.trusted is t),
                      sum(p.trusted is t for p in people)) for t in (True, False)}  # fmt: skip
    for one in drawn.values():  # the same share for everybody
        assert one["low"] <= 0.01 <= one["high"] and one["hits"] > 0
    lowest = [c for c, p in zip(told, people, strict=True) if p.score == 0 and p.trusted]
    assert any(c.chosen for c in lowest)


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"random_share": {"image": 0.0, "look": 0.1}}, "random_share.image"),
        ({"random_share": {"image": 0.1}}, "random_share.look"),
        ({"authorised_weight": 1.2}, "authorised_weight is 1.2"),
        ({"pace": Pace(image_s=0, look_s=1, open_min=1, busy=1)}, "pace: times"),
    ],
)
def test_a_plan_by_which_somebody_is_never_chosen_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem.replace(".", r"\.")):
        plan(**changes)


def test_draws_are_the_hmac_and_uniform_and_another_seed_draws_others():
    draw = selection.drawing(SEED)
    expected = int.from_bytes(
        hmac.new(SEED, b"scanlane selection 1\0look\0s7", hashlib.sha256).digest()[:8], "big"
    )  # fmt: skip
    assert draw("look", "s7") == (expected >> 11) / 2**53
    drawn = [draw("look", f"s{i}") for i in range(4000)]
    assert kstest(drawn, "uniform").pvalue > 0.001
    other = [selection.drawing(bytes(32))("look", f"s{i}") for i in range(4000)]
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.06
    stages = [draw("image", f"s{i}") for i in range(4000)]  # who is drawn for one is not drawn for the other
    assert abs(np.corrcoef(drawn, stages)[0, 1]) < 0.06
    assert selection.commitment(SEED) != selection.commitment(bytes(32))
    with pytest.raises(DataError, match="31 bytes"):
        selection.commitment(SEED[:-1])


def test_the_same_arguments_give_the_same_choices_in_any_order():
    people = crowd(500)
    told = {c.scan_id: c for c in chosen(people)}
    assert {c.scan_id: c for c in chosen(people[::-1])} == told
    assert {c.scan_id: c for c in chosen(people, seed=bytes(32))} != told


def test_windows_have_rooms_of_their_own_and_everybody_is_in_one():
    windows = [window(lanes=1), window(start=HOUR, lanes=4)]
    people = [Candidate(scan_id=f"s{i}", at_utc_ns=i * HOUR // 200, score=5.0) for i in range(400)]
    told = chosen(people, windows)
    by = [sum(c.chosen for c in told if c.window == w) for w in (0, 1)]
    assert by == [15, 60]
    with pytest.raises(DataError, match="lies in 0 time windows"):
        chosen([Candidate(scan_id="late", at_utc_ns=3 * HOUR, score=1.0)], windows)
    with pytest.raises(DataError, match="twice: s1"):
        chosen([people[1], people[1]], windows)


def test_the_fairness_report_shows_a_bias_that_is_there_and_none_that_is_not():
    people = [msgspec.structs.replace(c, must="", trusted=False) for c in crowd(3000)]
    told = {c.scan_id: c for c in chosen(people, [window(lanes=30)])}
    fair = selection.fairness(people, told)
    assert fair["all"]["of"] == 3000 and not any(v["differs"] for v in fair["traits"]["trader"].values())
    biased = [msgspec.structs.replace(c, score=c.score + 30 * (c.traits["trader"] == "b")) for c in people]
    told = {c.scan_id: c for c in chosen(biased, [window(lanes=30)])}
    fair = selection.fairness(biased, told)["traits"]["trader"]
    assert fair["b"]["differs"] and fair["b"]["chosen"]["value"] > fair["a"]["chosen"]["value"]
    assert abs(fair["b"]["random"]["value"] - fair["a"]["random"]["value"]) < 0.01


def test_shares_have_exact_intervals():
    assert share(0, 10)["low"] == 0 and share(0, 10)["high"] == pytest.approx(1 - 0.025**0.1, abs=1e-5)
    assert share(10, 10)["low"] == pytest.approx(0.025**0.1, abs=1e-5) and share(10, 10)["high"] == 1
    assert share(0, 0)["value"] is None and (share(0, 0)["low"], share(0, 0)["high"]) == (0, 1)


def test_the_example_plan_is_sound_and_what_has_no_source_is_refused():
    told = tomllib.loads(selection.EXAMPLE)
    assert selection.plan_of(told, "p").authorised_weight == 0.3
    staff = selection.staff_of(told["staff"], "p")
    first = 20_000 * 24 * HOUR + 5 * HOUR
    windows = selection.windows_of(staff, first, first + 20 * HOUR)
    assert [w.lanes for w in windows] == [1, 2, 1] and windows[1].end_utc_ns == windows[2].start_utc_ns
    with pytest.raises(ConfigError, match="look_s: write"):
        selection.plan_of({**told, "pace": {**told["pace"], "look_s": 44.0}}, "p")
    with pytest.raises(ConfigError, match="unknown field `speed`"):
        selection.plan_of({**told, "speed": {"value": 1, "source": "here"}}, "p")
    with pytest.raises(ConfigError, match="each hour from 0 to 24"):
        selection.staff_of(told["staff"][:1], "p")
