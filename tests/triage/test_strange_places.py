"""What an analyst is shown of many candidates: nothing that asks for a look gives way to what asks for none."""

from types import SimpleNamespace

import pytest

from scanner_io.model import Box
from triage.analysis.image_profile import ImageProfile
from triage.analysis.kinds import KINDS
from triage.analysis.regions import Candidate
from triage.analysis.strange_places import strange_places

P = ImageProfile()
CARGO = SimpleNamespace(
    p=P, box=lambda at: Box(first_column=at[0], end_column=at[2], first_channel=at[1], end_channel=at[3])
)
NOTES = [name for name, kind in KINDS.items() if kind.review is None]


def told(*candidates):
    found = {}
    for candidate in candidates:
        found.setdefault(candidate.kind, []).append(candidate)
    return strange_places(CARGO, found)


def at_review(kind, at):
    return Candidate(kind, KINDS[kind].review(P), at, kind)


def strong_notes(count, first=100):
    """Return candidates of kinds that ask for no review, far above their notes, each at a place of its own."""
    return [
        Candidate(kind, 50 * KINDS[kind].note(P), (first + 20 * i, 0, first + 20 * i + 10, 10), kind)
        for i, kind in enumerate((NOTES * count)[:count])
    ]


class Lane:
    """What a lane's calibration says: one p-value for every candidate."""

    level = 0.03

    def __init__(self, p_value):
        self._p = p_value

    def p_of(self, kind, score):
        return self._p

    def words(self, p_value):
        return f"p = {p_value}"


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.suspicion])
def test_no_scan_is_clear_with_a_suspicion_against_it(kind):
    suspicion = KINDS[kind].suspicion
    candidate = Candidate(kind, KINDS[kind].note(P), (0, 0, 10, 10), "seen")
    for found, lane in (([candidate], None), ([candidate], Lane(0.01))):
        (shown,) = strange_places(CARGO, {kind: found}, lane)
        assert shown.tier == "review" and suspicion in shown.reason
    usual = Candidate("unlike_its_surroundings", 9.0, (0, 0, 10, 10), "odd")
    for found in (
        {kind: [candidate]},
        {kind: [candidate], usual.kind: [usual]},
        {kind: [candidate._replace(of_many=4)]},
    ):
        (shown,) = strange_places(CARGO, found, Lane(0.2))
        assert shown.tier == "note" and suspicion not in shown.reason


@pytest.mark.parametrize("kind", ["unlike_its_surroundings", "extra_item_in_free_space"])
def test_a_review_is_not_pushed_out_by_notes(kind):
    review = at_review(kind, (0, 0, 10, 10))
    shown = told(review, *strong_notes(3 * P.max_findings))
    assert len(shown) == P.max_findings
    assert [f.tier for f in shown] == ["review"] + ["note"] * (P.max_findings - 1)
    assert shown[0].kind == kind


def test_a_row_of_its_like_explains_what_is_no_stranger_and_nothing_else():
    at = (0, 0, 10, 10)
    row = Candidate("extra_item_in_free_space", 1.2 * KINDS["extra_item_in_free_space"].review(P), at, "item", 4)
    weak = Candidate("unlike_its_surroundings", 1.1 * KINDS["unlike_its_surroundings"].review(P), at, "place")
    assert [f.tier for f in told(row, weak)] == ["note"]
    strong = weak._replace(score=1.5 * KINDS["unlike_its_surroundings"].review(P))
    shown = told(row, strong)
    assert [(f.kind, f.tier) for f in shown] == [("unlike_its_surroundings", "review")]
    assert "it may be a compact item" in shown[0].reason


@pytest.mark.parametrize("kind", ["extra_item_in_free_space", "unlike_its_surroundings"])
@pytest.mark.parametrize("note", NOTES)
def test_a_review_is_not_hidden_by_a_note_at_its_place(kind, note):
    at = (0, 0, 10, 10)
    shown = told(Candidate(note, 50 * KINDS[note].note(P), at, note), at_review(kind, at))
    assert [f.kind for f in shown if f.tier == "review"] == [kind]
    assert any(KINDS[note].words in f.reason or f.kind == note for f in shown)
