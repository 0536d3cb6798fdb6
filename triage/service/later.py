"""Assessments of a scan after its first: with a declaration that came late. What was found before stays found.

The recording is not written again, and neither is the first result: an analyst may have decided on them. What is
offered is the first result and what the later one adds; its outcome is the more urgent of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scanner_io.model import Declaration, DeclarationMatch, Quality, TriageResult

URGENT = {"ALARM": 0, "UNUSABLE": 1, "REVIEW": 2, "CLEAR": 3}
"""Order of offering. A radiation alarm comes first; then scans that could not be judged at all."""


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """A later assessment: what judgement says with a declaration, which, and how it was found."""

    result: TriageResult
    declaration: Declaration
    match: DeclarationMatch


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a later assessment changed. after_decision : somebody had decided before, and it is more urgent now"""

    raised: bool
    after_decision: bool
    words: str


def together(first: TriageResult, later: Sequence[Later]) -> TriageResult:
    """Return the first result with what later ones add: never less urgent, and nothing of it gone."""
    for one in later:
        told = {(f.kind, f.reason) for f in first.findings}
        added = tuple(f for f in one.result.findings if (f.kind, f.reason) not in told)
        flagged = {q.code for q in first.quality}
        flags = tuple(q for q in one.result.quality if q.code not in flagged)
        worse = URGENT[one.result.outcome] < URGENT[first.outcome]
        new = [f.reason for f in added if f.tier != "note"]
        late = Quality(code="declaration_late", reason=words_of(one, new))
        first = msgspec.structs.replace(
            first, outcome=one.result.outcome if worse else first.outcome, findings=first.findings + added,
            quality=(*first.quality, *flags, late),
            reasons=tuple(dict.fromkeys((*(new if worse else ()), *first.reasons, *new, str(late)))),
        )  # fmt: skip
    return first


def words_of(one: Later, new: Sequence[str]) -> str:
    """Return in words which declaration came late and what it changed."""
    m = one.match
    says = "; ".join(new) if new else "nothing that was seen contradicts it"
    return (
        f"declaration {m.document} of {m.sender or 'an unknown sender'} for {m.declared} came after the scan was "
        f"judged (joined by {m.by} with {100 * m.confidence:.1f} %): {says}"
    )
