"""What in a container deserves a look: the candidates of all kinds, put on one scale, within the alarm budget."""

from __future__ import annotations

from scanner_io.model import Finding

from .cargo_grid import CargoGrid, overlap
from .conformal import Verdict
from .kinds import KINDS, Found
from .regions import Candidate


def strange_places(cargo: CargoGrid, found: Found, verdict: Verdict | None = None) -> list[Finding]:
    """Return what is to be said of the candidates, best first, at most `max_findings`.

    verdict : what the lane's calibration says of this scan. With it a candidate asks for a review where its p-value is
        at most the level, without it, and for kinds that were not calibrated, from the kind's own threshold on

    Reviews come first, so that no number of notes can take their place or hide them; by p-value where there is a
    verdict. Else scores of different kinds are put on the scale of their kind's own threshold to be ranked together;
    what stands in a row of its like is the load and comes last. Of two that point at one place, the stranger is kept
    and says what else is seen there; before that the one that says more.
    """
    every = [_Told(cargo, c, verdict) for places in found.values() for c in places]
    told = _the_one_that_says_more([t for t in every if t.review or t.candidate.score >= t.kind.note(cargo.p)])
    told.sort(key=_Told.order)
    kept: list[_Told] = []
    for t in told:
        here = next((k for k in kept if t.at_one_of([k])), None)
        if here is not None:
            here.also += () if t.kind.general or t.kind is here.kind else (t.kind.named(here.review),)
        elif len(kept) < cargo.p.max_findings:
            kept.append(t)
    return [t.finding(cargo) for t in kept]


class _Told:
    """A candidate, and how unusual it is. p_value : None where its kind was not calibrated."""

    def __init__(self, cargo: CargoGrid, candidate: Candidate, verdict: Verdict | None) -> None:
        self.candidate, self.kind, self._verdict = candidate, KINDS[candidate.kind], verdict
        self.of_many = candidate.of_many > 1
        self.also: tuple[str, ...] = ()
        self.p_value = verdict.p_of(candidate.kind, candidate.score) if verdict and not self.of_many else None
        own = self.kind.review(cargo.p) if self.kind.review else None
        # of what does not ask for a review by itself, the note counts half
        self._strangeness = candidate.score / own if own else 0.5 * candidate.score / self.kind.note(cargo.p)
        if verdict is not None and self.p_value is not None:
            self.review = self.p_value <= verdict.level
        else:
            self.review = not self.of_many and own is not None and candidate.score >= own

    def order(self) -> tuple[object, ...]:
        at = self.candidate.at or ()
        if self._verdict is None:
            return self.of_many, not self.review, -self._strangeness, at
        p = 1.0 if self.p_value is None else self.p_value
        return self.of_many, not self.review, p, -self._strangeness, at

    def at_one_of(self, others: list[_Told]) -> bool:
        at = self.candidate.at
        return at is not None and any(o.candidate.at is not None and overlap(at, o.candidate.at) for o in others)

    def explained_by(self, one_of_many: _Told) -> bool:
        """Return whether what stands in a row of its like at this place accounts for it."""
        return one_of_many.of_many and self.p_value is None and self._strangeness <= one_of_many._strangeness

    def finding(self, cargo: CargoGrid) -> Finding:
        c = self.candidate
        usual = " (uncalibrated)"
        if self._verdict is not None and self.p_value is not None:
            usual = f"; {self._verdict.words(self.p_value)}"
        maybe = f"possibly {self.kind.suspicion}: " if self.review and self.kind.suspicion else ""
        many = f"; one of {c.of_many} alike in a row, so likely the load" if self.of_many else ""
        many += "".join(f"; also {words}" for words in dict.fromkeys(self.also))
        return Finding(
            kind=c.kind, score=c.score, reason=f"{maybe}{c.words}{usual}{many}",
            tier="review" if self.review else "note", p_value=self.p_value,
            where=None if c.at is None else cargo.box(c.at),
        )  # fmt: skip


def _the_one_that_says_more(told: list[_Told]) -> list[_Told]:
    """Leave one of a general and a special candidate at the same place: the special one, if it asks for as much.

    Where the general one asks for a review and the special one does not, it stays a review, with what it may be. What
    stands in a row of its like explains a general one, but neither one that is rare on the lane nor one that is
    stranger, each by its own kind's threshold, than what is to explain it.
    """
    special = [t for t in told if not t.kind.general]
    kept = []
    for t in (t for t in told if t.kind.general):
        here = [s for s in special if t.at_one_of([s])]
        if not here:
            kept.append(t)
        elif t.review and not any(s.review or t.explained_by(s) for s in here):
            maybe = " and ".join(dict.fromkeys(s.kind.named(True) for s in here))
            t.candidate = t.candidate._replace(words=f"{t.candidate.words}; it may be {maybe}")
            kept.append(t)
            special = [s for s in special if s not in here]
    return [*special, *kept]
