"""What in a container deserves a look: the candidates of all kinds, put on one scale, within the alarm budget."""

from __future__ import annotations

from scanner_io.model import Finding, Tier

from .cargo_grid import CargoGrid, overlap
from .kinds import KINDS, Found
from .regions import Candidate


def strange_places(cargo: CargoGrid, found: Found) -> list[Finding]:
    """Return what is to be said of the candidates, best first, at most `max_findings`.

    Scores of different kinds are put on the scale of their kind's own threshold to be ranked together; what stands in a
    row of its like is the load and comes last. Of two that point at one place, the stranger is kept, and before that
    the one that says more.
    """
    told = [c for name, places in found.items() for c in places if c.score >= KINDS[name].note(cargo.p)]
    special = [c for c in told if not KINDS[c.kind].general]
    told = [c for c in told if not (KINDS[c.kind].general and _at_one_of(c, special))]
    told.sort(key=lambda c: (c.of_many > 1, -_strangeness(cargo, c), c.at or ()))
    kept: list[Candidate] = []
    for c in told:
        if len(kept) == cargo.p.max_findings:
            break
        if not _at_one_of(c, kept):
            kept.append(c)
    return [_finding(cargo, c) for c in kept]


def _at_one_of(c: Candidate, others: list[Candidate]) -> bool:
    return c.at is not None and any(o.at is not None and overlap(c.at, o.at) for o in others)


def _strangeness(cargo: CargoGrid, c: Candidate) -> float:
    """Return a score in units of what asks for a review, or, where nothing does, of half that: the kind's note."""
    kind = KINDS[c.kind]
    return c.score / kind.review(cargo.p) if kind.review else 0.5 * c.score / kind.note(cargo.p)


def _finding(cargo: CargoGrid, c: Candidate) -> Finding:
    review = KINDS[c.kind].review
    tier: Tier = "review" if review and c.score >= review(cargo.p) and c.of_many == 1 else "note"
    many = f"; one of {c.of_many} alike in a row, so likely the load" if c.of_many > 1 else ""
    where = None if c.at is None else cargo.box(c.at)
    return Finding(kind=c.kind, score=c.score, reason=f"{c.words} (uncalibrated){many}", tier=tier, where=where)
