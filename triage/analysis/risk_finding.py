"""The risk score of a passage among its findings, so that whoever sees the scan sees the score and its reasons.

It is made in the lane, which knows no other passage: rules that ask of history do not count there. A selection over the
archive knows history and scores anew.
"""

from __future__ import annotations

import msgspec

from scanner_io.model import Declaration, Finding, Scan, TriageResult

from .risk import RiskProfile, assess
from .risk_facts import RISK_KIND, facts_of


def with_risk(result: TriageResult, scan: Scan, profile: RiskProfile | None) -> TriageResult:
    """Return a result with the score and its reasons as a finding; from `review_from` on it asks for a review.

    A score never takes anything back: what was REVIEW, ALARM or UNUSABLE stays that.
    """
    if profile is None:
        return result
    finding = risk_finding(scan.lane, scan.start_utc_ns, result, scan.declaration, profile)
    result = msgspec.structs.replace(result, findings=(*result.findings, finding))
    if finding.tier == "note":
        return result
    if result.outcome == "CLEAR":
        return msgspec.structs.replace(result, outcome="REVIEW", reasons=(finding.reason,))
    return msgspec.structs.replace(result, reasons=(*result.reasons, finding.reason))


def risk_finding(
    lane: str, start_utc_ns: int, result: TriageResult, declaration: Declaration | None, profile: RiskProfile
) -> Finding:  # fmt: skip
    """Return the score of a passage with every reason, as a finding; one that is in the result already is not seen."""
    told = assess(profile, facts_of(lane, start_utc_ns, result, declaration, None), start_utc_ns)
    asks = profile.review_from is not None and told.score >= profile.review_from
    words = "; ".join(c.words for c in told.contributions) or "no rule counts"
    left = f"; left out: {'; '.join(told.left_out)}" if told.left_out else ""
    reason = f"risk {told.score:g} by {told.profile}: {words}; {told.joint}{left}"
    return Finding(kind=RISK_KIND, score=told.score, reason=reason, tier="review" if asks else "note")
