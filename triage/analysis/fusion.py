"""Everything that is known of one passage -> one outcome, with the reasons in words.

The rules, first match decides; a fault never reads as clear:

    1  a vendor's gamma or neutron alarm, or any finding of tier alarm   ALARM (even if the scan is unusable)
    2  a fatal quality flag, or nothing at all to judge                  UNUSABLE
    3  any other quality flag, or a finding of tier review               REVIEW
    4  otherwise                                                         CLEAR

CLEAR is said of what could be seen: a part that could not, too small to ask for a review, is told with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from scanner_io.model import Finding, Outcome, Quality

from .uninspectable import KIND as OPAQUE

TIER_ORDER = {"alarm": 0, "review": 1, "note": 2}


def fuse(
    findings: Iterable[Finding], quality: Iterable[Quality], *, vendor_alarm: bool, anything_judged: bool
) -> tuple[Outcome, tuple[str, ...]]:
    """Return the outcome and its reasons, strongest first.

    vendor_alarm : the portal itself alarmed
    anything_judged : at least one radiograph or portal record was there and could be judged
    """
    ordered = sorted(findings, key=lambda f: (TIER_ORDER[f.tier], -f.score))
    alarms = [f.reason for f in ordered if f.tier == "alarm"]
    reviews = [f.reason for f in ordered if f.tier == "review"]
    flags = list(quality)
    fatal = [str(q) for q in flags if q.fatal]
    limits = [str(q) for q in flags if not q.fatal]
    reasons = tuple(alarms + fatal + reviews + limits)
    if vendor_alarm or alarms:
        return "ALARM", reasons or ("the portal alarmed",)
    if fatal or not anything_judged:
        return "UNUSABLE", reasons or ("there is neither a radiograph nor a portal record to judge",)
    if reviews or limits:
        return "REVIEW", reasons
    unseen = max((f.score for f in ordered if f.kind == OPAQUE), default=0.0)
    told = f"; {unseen:.0%} of the cargo area could not be seen" if unseen else ""
    return "CLEAR", (f"nothing found that asks for a review{told}; this is no proof that nothing is there",)
