"""All kinds of findings that are searched for in a container, in one table, and the search.

A kind is a function of the container and what is known of it. It gives scored candidates; none where it looked and
found nothing; and None where its question does not arise (no declaration, no earlier scan, no even load). The same
scores are what a lane is calibrated on and what its scans are judged by: `search` is the only way to them.

What cannot be seen at all (`opaque`) and a load of a look that is not known (`texture_unknown`) are no kinds here: they
are measured and said, whatever is usual on a lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import (
    changed,
    declared_empty,
    dense_object,
    door_end,
    false_wall,
    goods_history,
    pattern_break,
    person_sized,
    void,
)
from .contrast import contrast_candidate
from .free_space import item_candidate
from .image_profile import ImageProfile
from .known import Asked
from .regions import Candidate
from .unlike import unlike_candidates

Found = dict[str, list[Candidate]]


class Kind(NamedTuple):
    """A kind of finding.

    words : what is seen, for people; search : as above
    note, review : scores of a note and of a review as long as no lane's own scans have said what is usual; a kind
        without `review` asks for no more than a note until then
    general : it says no more than that something is odd: gives way where another kind points at the same place
    suspicion : what it may be, if that is grave. Said only where a review is asked for: no scan is clear with a
        suspicion against it. So such a kind has a `review` as well
    """

    words: str
    search: Callable[[Asked], list[Candidate] | None]
    note: Callable[[ImageProfile], float]
    review: Callable[[ImageProfile], float] | None = None
    general: bool = False
    suspicion: str = ""

    def named(self, review: bool) -> str:
        """Return its name for people, with the suspicion where a review is asked for."""
        return f"{self.words} ({self.suspicion}?)" if review and self.suspicion else self.words


def _items(asked: Asked) -> list[Candidate]:
    return [item_candidate(asked.cargo, score, at, asked.items) for score, at in asked.items]


def _unlike(asked: Asked) -> list[Candidate] | None:
    if asked.seen is None or asked.fuser is None:
        return None
    return unlike_candidates(asked.cargo, asked.seen, asked.fuser)


def _dark(asked: Asked) -> list[Candidate] | None:
    # the search by a fuser takes the place of plain contrasts
    if asked.fuser is not None:
        return None
    return [contrast_candidate(asked.cargo, score, at) for score, at in asked.spots if score > 0]


def _light(asked: Asked) -> list[Candidate] | None:
    if asked.fuser is not None:
        return None
    return [contrast_candidate(asked.cargo, score, at) for score, at in asked.spots if score < 0]


KINDS: dict[str, Kind] = {
    "extra_item_in_free_space": Kind(
        "a compact item in otherwise free space",
        _items,
        note=lambda p: 0.0,
        review=lambda p: p.item_review_score,
    ),
    "unlike_its_surroundings": Kind(
        "a place unlike its surroundings, as trained on objects put into clean scans",
        _unlike,
        note=lambda p: p.unlike_note,
        review=lambda p: p.unlike_review,
        general=True,
    ),
    "local_contrast_dark": Kind(
        "a place darker than its surroundings",
        _dark,
        note=lambda p: p.contrast_note,
        review=lambda p: p.contrast_review,
        general=True,
    ),
    "local_contrast_light": Kind(
        "a place lighter than its surroundings",
        _light,
        note=lambda p: p.contrast_note,
        review=lambda p: p.light_review,
        general=True,
    ),
    declared_empty.KIND: Kind(
        "declared empty, but something is in it",
        lambda a: declared_empty.holds_something(a.cells, a.items, a.known.declaration),
        note=lambda p: declared_empty.NOTE,
        review=lambda p: declared_empty.REVIEW,
    ),
    dense_object.KIND: Kind(
        "a compact dense object",
        lambda a: dense_object.dense_objects(a.cells, a.known.marks),
        note=lambda p: dense_object.NOTE,
        review=lambda p: dense_object.NOTE,
        suspicion="shielding",
    ),
    false_wall.KIND: Kind(
        "a slab from roof to floor at an end",
        lambda a: false_wall.false_wall(a.cells),
        note=lambda p: false_wall.NOTE,
        review=lambda p: false_wall.NOTE,
        suspicion="a second wall",
    ),
    pattern_break.KIND: Kind(
        "more than its like in a load that repeats",
        lambda a: pattern_break.pattern_breaks(a.cells),
        note=lambda p: pattern_break.NOTE,
    ),
    void.KIND: Kind(
        "a hollow in a dense load",
        lambda a: void.voids(a.cells),
        note=lambda p: void.NOTE,
    ),
    door_end.KIND: Kind(
        "an item between the end of the load and the end of the container",
        lambda a: door_end.door_end_items(a.cells),
        note=lambda p: door_end.NOTE,
    ),
    person_sized.KIND: Kind(
        "a rounded, light item in free space, 0.7 to 2 m long",
        lambda a: person_sized.person_sized(a.cells),
        note=lambda p: person_sized.NOTE,
        review=lambda p: person_sized.NOTE,
        suspicion="a person",
    ),
    goods_history.KIND: Kind(
        "a load unlike earlier ones with the same declaration",
        lambda a: goods_history.differs_from_declared(a.traits, a.known.declaration, a.cargo.p.goods),
        note=lambda p: goods_history.NOTE,
    ),
    changed.KIND: Kind(
        "different from an earlier scan of the same container",
        lambda a: changed.changed(a.cells, a.previous),
        note=lambda p: changed.NOTE,
    ),
}
"""Every kind, and what it is."""


def search(asked: Asked) -> Found:
    """Return the candidates of every kind whose question arises, best first."""
    found: Found = {}
    for name, kind in KINDS.items():
        candidates = kind.search(asked)
        if candidates is not None:
            found[name] = sorted(candidates, key=lambda c: (c.of_many > 1, -c.score, c.at or ()))
    return found


def scores(found: Found) -> dict[str, float]:
    """Return the scan's score of every kind: that of its strangest candidate, 0 where there is none.

    A kind whose question does not arise is absent. What stands in a row of its like is the load and does not count.
    """
    return {name: max((c.score for c in places if c.of_many == 1), default=0.0) for name, places in found.items()}
