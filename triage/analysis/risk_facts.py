"""What a rule of a risk profile may ask of a passage: a catalogue of facts, and their values.

A fact that is not known has the value None and is never taken for "no". Those marked `papers` come from the
declaration: without one they could be anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from scanner_io.formats.cargo import odd_hs_code
from scanner_io.formats.iso6346 import check_digit_ok
from scanner_io.model import Declaration, Finding, Intervals, TriageResult

Value = bool | float | str | tuple[str, ...] | None
FactKind = Literal["yes or no", "number", "text", "texts"]
TYPES: dict[FactKind, type | tuple[type, ...]] = {
    "yes or no": bool, "number": (int, float), "text": str, "texts": tuple,
}  # fmt: skip


class Fact(NamedTuple):
    """A fact that rules may ask. papers : it is known by the declaration alone."""

    kind: FactKind
    words: str
    papers: bool = False


FACTS: dict[str, Fact] = {
    "declaration.missing": Fact("yes or no", "there is no declaration"),
    "declaration.doubtful": Fact("yes or no", "something about the declaration is odd"),
    "declaration.empty": Fact("yes or no", "declared empty", True),
    "declaration.hs_codes": Fact("texts", "declared codes of the Harmonized System", True),
    "declaration.chapters": Fact("texts", "their chapters, two digits", True),
    "declaration.goods": Fact("text", "declared goods in words", True),
    "declaration.gross_weight_kg": Fact("number", "declared gross weight (kg)", True),
    "declaration.seals": Fact("number", "number of declared seals", True),
    "declaration.origin": Fact("text", "country of origin", True),
    "declaration.prior_scans": Fact("number", "earlier scans that the declaration tells of", True),
    "route.places": Fact("texts", "places of the route (UN/LOCODE)", True),
    "route.countries": Fact("texts", "countries of the route", True),
    "route.stops": Fact("number", "number of places of the route", True),
    "party.authorised": Fact("yes or no", "both parties are authorised traders", True),
    "party.consignor": Fact("text", "consignor", True),
    "party.consignee": Fact("text", "consignee", True),
    "history.container_scans": Fact("number", "earlier passages of the container here", True),
    "history.container_finds": Fact("number", "of them, those sent on to inspection", True),
    "history.consignor_scans": Fact("number", "earlier passages of the consignor here", True),
    "history.consignor_finds": Fact("number", "of them, those sent on to inspection", True),
    "portal.gamma_alarm": Fact("yes or no", "the portal alarmed for gamma"),
    "portal.neutron_alarm": Fact("yes or no", "the portal alarmed for neutrons"),
    "portal.findings": Fact("texts", "kinds of findings in the portal's record, notes left out"),
    "portal.p_value": Fact("number", "p-value of the portal's record"),
    "image.load": Fact("text", "load as the image shows it: empty, loaded"),
    "image.findings": Fact("texts", "kinds of findings in the image, notes left out"),
    "image.p_value": Fact("number", "p-value of the image among the lane's own"),
    "declared_seen.findings": Fact("texts", "kinds of findings of papers against what was seen, notes left out", True),
    "declared_seen.p_value": Fact("number", "p-value of papers against what was seen", True),
    "joint.p_value": Fact("number", "p-values of image, portal and papers in one", True),
    "passage.lane": Fact("text", "name of the lane"),
    "passage.hour": Fact("number", "hour of the day, UTC"),
    "passage.quality": Fact("texts", "codes of what limits the passage"),
}

DECLARED_KINDS = frozenset({
    "declared_empty_but_loaded", "declared_loaded_but_empty", "declared_empty_holds_something", "mass_differs",
    "differs_from_declared", "weight_differs", "declared_seen",
})  # fmt: skip
"""Findings that hold papers against what was seen; any other that begins with `declared_` as well."""


RISK_KIND = "risk"
"""The finding that a score is told by; no rule sees it."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of container and consignor when the vehicle passed."""

    container_scans: int = 0
    container_finds: int = 0
    consignor_scans: int = 0
    consignor_finds: int = 0


def doubts(declaration: Declaration, quality: Iterable[Any] = ()) -> tuple[str, ...]:
    """Return what is odd about a declaration, in words; quality flags whose code begins with `declaration` are."""
    found = [str(q) for q in quality if q.code.startswith("declaration")]
    for number in declaration.container_numbers:
        if check_digit_ok(number) is not True:
            found.append(f"container {number[:20]}: no number whose check digit fits")
    if not declaration.container_numbers:
        found.append("no container is named")
    for code in declaration.hs_codes:
        found += odd_hs_code(code, None)
    if declaration.declared_empty and declaration.hs_codes:
        found.append("declared empty, and goods are declared")
    if declaration.declared_empty is not True and not declaration.hs_codes:
        found.append("no goods are declared, and not that it is empty")
    return tuple(dict.fromkeys(found))


def facts_of(
    lane: str,
    start_utc_ns: int,
    result: TriageResult,
    declaration: Declaration | None,
    history: History | None,
) -> dict[str, Value]:
    """Return the value of every fact but the joint p-value, which a profile's method makes of the others.

    history : None where it is not known
    """
    image, portal, declared = _parted(result.findings)
    imaged = result.container is not None or result.standing is not None or result.load != "unknown"
    recorded = result.gamma_alarm is not None
    found: dict[str, Value] = dict.fromkeys(FACTS)
    found |= {
        "declaration.missing": declaration is None,
        "declaration.doubtful": None if declaration is None else bool(doubts(declaration, result.quality)),
        "portal.gamma_alarm": result.gamma_alarm,
        "portal.neutron_alarm": result.neutron_alarm,
        "portal.findings": _kinds(portal) if recorded else None,
        "portal.p_value": _least(portal),
        "image.load": None if result.load == "unknown" else result.load,
        "image.findings": _kinds(image) if imaged else None,
        "image.p_value": result.standing.p_value if result.standing and not result.standing.unknown else None,
        "passage.lane": lane,
        "passage.hour": float(time.gmtime(start_utc_ns // 10**9).tm_hour),
        "passage.quality": tuple(dict.fromkeys(q.code for q in result.quality)),
    }
    if declaration is not None:
        found |= _papers(declaration, history)
        if imaged or recorded:
            found |= {"declared_seen.findings": _kinds(declared), "declared_seen.p_value": _least(declared)}
    return found


def facts_on_papers(
    declaration: Declaration, problems: Iterable[str], history: History | None, utc_ns: int
) -> dict[str, Value]:  # fmt: skip
    """Return the facts of a container that is declared and has not come yet: nothing of it was seen.

    problems : what is odd about its message, in words
    """
    found: dict[str, Value] = dict.fromkeys(FACTS)
    return found | _papers(declaration, history) | {
        "declaration.missing": False,
        "declaration.doubtful": bool([*problems, *doubts(declaration)]),
        "passage.hour": float(time.gmtime(utc_ns // 10**9).tm_hour),
    }  # fmt: skip


def _papers(d: Declaration, history: History | None) -> dict[str, Value]:
    return {
        "declaration.empty": d.declared_empty,
        "declaration.hs_codes": d.hs_codes,
        "declaration.chapters": tuple(dict.fromkeys(code[:2] for code in d.hs_codes)),
        "declaration.goods": d.goods or None,
        "declaration.gross_weight_kg": d.gross_weight_kg,
        "declaration.seals": float(len(d.seals)),
        "declaration.origin": d.origin or None,
        "declaration.prior_scans": None if d.prior_scans is None else float(d.prior_scans),
        "route.places": d.route or None,
        "route.countries": tuple(dict.fromkeys(p[:2] for p in d.route)) or None,
        "route.stops": float(len(d.route)) if d.route else None,
        "party.authorised": d.authorised_trader,
        "party.consignor": d.consignor or None,
        "party.consignee": d.consignee or None,
        **_history(d, history),
    }


def _history(d: Declaration, history: History | None) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name in History.__struct_fields__:
        known = history is not None and (bool(d.consignor) if name.startswith("consignor") else d.container_numbers)
        found[f"history.{name}"] = float(getattr(history, name)) if known else None
    return found


def _parted(findings: Iterable[Finding]) -> tuple[list[Finding], list[Finding], list[Finding]]:
    """Return findings of the image, of the portal, and of papers against either."""
    image: list[Finding] = []
    portal: list[Finding] = []
    declared: list[Finding] = []
    for finding in findings:
        if finding.kind == RISK_KIND:
            continue
        if finding.kind in DECLARED_KINDS or finding.kind.startswith("declared_"):
            declared.append(finding)
        elif isinstance(finding.where, Intervals) or finding.kind.startswith(("gamma", "neutron", "rule_", "portal")):
            portal.append(finding)
        else:
            image.append(finding)
    return image, portal, declared


def _kinds(findings: list[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.kind for f in findings if f.tier != "note"))


def _least(findings: list[Finding]) -> float | None:
    """Return the smallest p-value times how many there are (Bonferroni): one source has one p-value."""
    values = [f.p_value for f in findings if f.p_value is not None]
    return min(len(values) * min(values), 1.0) if values else None
