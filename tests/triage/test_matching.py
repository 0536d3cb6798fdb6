"""Which declaration is whose: readings with errors, strangers of the same series, doubt, two containers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_io.formats.iso6346 import check_digit
from triage.analysis.matching import Candidate, Manifest, Reading, error_rate, likelihood
from triage.study import evaluate_matching, ocr_errors

LIMIT = 0.001


def number(serial, owner="MSKU"):
    return f"{owner}{serial:06d}{check_digit(f'{owner}{serial:06d}')}"


OWN, OTHER = "CSQU3054383", "TGHU7599330"
SERIES = [number(100_000 + k) for k in range(60)]
MANIFEST = Manifest(
    [Candidate(number=OWN, plate="ABC1D23", bookings=("BK1",)), Candidate(number=OTHER, bookings=("BK2",)),
     *(Candidate(number=n, plate=f"TRK{k:04d}", bookings=("BK3",)) for k, n in enumerate(SERIES))]
)  # fmt: skip


def match(*containers, plates=(), bookings=(), confidence=90, manifest=MANIFEST):
    told = [Reading(kind="container", text=t, confidence=confidence) for t in containers]
    told += [Reading(kind="plate", text=t, confidence=confidence) for t in plates]
    told += [Reading(kind="booking", text=t) for t in bookings]
    return manifest.match_all(told, LIMIT)


def joined(found):
    return [MANIFEST.candidates[m.candidates[0]].number for m in found if m.state == "matched"]


@pytest.mark.parametrize(
    "read",
    [OWN, "csqu 305438-3", "CSQU30543B3", "C5QU3O54383", "CSQU305438", "SQU3054383", "CSQU3045383", "CSQU?054383"],
)  # fmt: skip
def test_one_error_of_reading_still_finds_its_own(read):
    (found,) = match(read)
    assert joined([found]) == [OWN] and found.by == "container" and found.confidence > 1 - LIMIT


def test_a_stranger_of_a_declared_series_is_not_joined():
    stranger = number(100_061)
    (found,) = match(stranger)
    assert found.state == "none" and not found.candidates
    assert found.runner_up is not None and found.confidence > found.runner_up_confidence


def test_what_could_be_two_is_doubtful_and_names_both_or_is_settled_by_a_second_camera():
    read = SERIES[10][:8] + "??" + SERIES[10][10]
    (found,) = match(read)
    assert found.state == "doubtful" and found.confidence <= 1 - LIMIT and found.runner_up_confidence > 0
    assert joined(match(read, SERIES[10])) == [SERIES[10]]
    assert joined(match(read, plates=("TRK0010",))) == [SERIES[10]]


def test_plate_and_booking_join_where_no_number_was_read():
    assert joined(match("", plates=("ABC1D23",))) == [OWN]
    assert match("", plates=("A8C1D23",))[0].by == "plate"
    assert joined(match(bookings=("BK2",))) == [OTHER]
    (many,) = match(bookings=("BK3",))  # of sixty containers
    assert many.state == "doubtful"


def test_a_plate_of_another_declaration_does_not_outweigh_a_number():
    assert joined(match(OTHER, OTHER, plates=("ABC1D23",))) == [OTHER]


def test_nothing_read_or_nothing_declared_joins_nothing():
    assert [m.state for m in match()] == ["none"]
    assert [m.state for m in match("", "??", plates=("",))] == ["none"]
    assert [m.state for m in match(OWN, manifest=Manifest([]))] == ["none"]


def test_two_declarations_of_one_container_are_several():
    twice = Manifest([Candidate(number=OWN), Candidate(number=OTHER), Candidate(number=OWN)])
    (found,) = match(OWN, manifest=twice)
    assert found.state == "several" and found.candidates == (0, 2)


def test_two_containers_on_one_truck_get_both_and_a_scrap_is_none():
    assert sorted(joined(match(OWN, SERIES[3], OWN, "XY1"))) == sorted([OWN, SERIES[3]])
    states = [m.state for m in match(OWN, number(500_000, "HLXU"))]
    assert states == ["matched", "none"]  # the second is no scrap: it is not declared


def test_an_unsure_reader_is_believed_less():
    swapped = SERIES[10][:9] + SERIES[11][9:]  # one digit and the check digit from a match
    sure, unsure = match(swapped, confidence=99)[0], match(swapped, confidence=30)[0]
    assert error_rate(Reading(kind="plate", text="ABC", confidence=30)) > error_rate(
        Reading(kind="plate", text="ABC", confidence=99)
    )
    assert sure.read == unsure.read == (swapped,)


@given(st.text("ABO018?", max_size=4), st.text("ABO018", min_size=1, max_size=4), st.floats(0.001, 0.25))
def test_a_likelihood_is_a_chance(read, true, rate):
    assert 0 <= likelihood(read, true, rate) <= 1


def test_the_likelihoods_of_all_short_texts_do_not_exceed_one():
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789?"
    texts = ["", *letters, *(a + b for a in letters for b in letters)]
    assert 0.95 < sum(likelihood(t, "8", 0.1) for t in texts) <= 1.0


@settings(max_examples=20)
@given(st.text(max_size=20), st.integers(-1, 100) | st.none())
def test_foreign_texts_join_only_by_what_they_share(text, confidence):
    for found in MANIFEST.match_all([Reading(kind="container", text=text, confidence=confidence)], LIMIT):
        assert 0 <= found.confidence <= 1 + 1e-9
        if found.state == "matched":
            number = MANIFEST.candidates[found.candidates[0]].number
            assert len(set(text.upper()) & set(number)) >= 4


def test_simulated_gates_meet_their_aim_and_say_what_they_lack():
    report = evaluate_matching.evaluate_matching(passages=150, seed=11)
    two, one = report["gates"].values()
    assert two["all"]["n"] == 150 and report["simulated"]
    assert two["all"]["right"]["share"] >= 0.96 and two["all"]["wrong"]["count"] == 0
    assert one["all"]["right"]["share"] < two["all"]["right"]["share"]
    share = one["all"]["right"]
    assert share["low"] < share["share"] < share["high"]
    assert two["all"]["wrong"]["low"] == 0 and 0.01 < two["all"]["wrong"]["high"] < 0.03  # none of 150
    assert two["read wrong"]["n"] > 20 and two["undeclared"]["n"] > 3
    assert len(evaluate_matching.rows(report)) == 11


def test_the_generator_makes_the_errors_that_it_names():
    rng = np.random.default_rng(5)
    gate = ocr_errors.Gate(dirty=0.5)
    declared, strangers = ocr_errors.manifest(rng, gate)
    assert strangers and not {c.number for c in declared} & set(strangers)
    seen = [
        (a, r) for a in (ocr_errors.arrival(rng, gate, declared, strangers) for _ in range(600)) for r in a.readings
    ]
    texts = [r.text for a, r in seen if r.kind == "container" and r.text not in a.containers]
    assert "" in texts and any("?" in t for t in texts)
    assert {len(t) for t in texts} >= {0, 9, 10, 11, 12}
    assert any(r.confidence is None for _, r in seen) and any(not a.truth for a, _ in seen)
