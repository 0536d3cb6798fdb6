"""The archive as a risk profile meets it: passages in their order, each with what was known of it at that moment."""

from __future__ import annotations

import datetime
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np

from scanner_io.decision_codes import FOUND, INSPECTED_NEGATIVE
from scanner_io.errors import StorageError
from scanner_io.model import Decision, Declaration, TriageResult
from triage.analysis import risk
from triage.analysis.risk_facts import History, Value, facts_of
from triage.analysis.shares import share

from .store import Place, reading


class Passage(NamedTuple):
    """One passage of the archive.

    at_utc_ns : when it was judged
    verdict, codes, analyst : of the decision in force, empty without one
    """

    scan_id: str
    lane: str
    start_utc_ns: int
    at_utc_ns: int
    simulated: bool
    result: TriageResult
    declaration: Declaration | None
    history: History
    verdict: str
    codes: tuple[int, ...]
    analyst: str

    def facts(self) -> dict[str, Value]:
        """Return what a rule may ask of it."""
        return facts_of(self.lane, self.start_utc_ns, self.result, self.declaration, self.history)

    @property
    def hit(self) -> bool | None:
        """True: sent on to inspection, and no code says that nothing was there; None: nobody has decided."""
        if not self.verdict:
            return None
        return self.verdict == "inspect" and INSPECTED_NEGATIVE not in self.codes

    @property
    def found(self) -> bool:
        """True where a code says that something was found."""
        return bool(FOUND & set(self.codes))


def passages(place: Place) -> Iterator[Passage]:
    """Yield the archive's passages in the order they were judged. Raises StorageError if it cannot be read.

    History counts what was there before: passages that were judged before, and finds decided before.
    """
    with reading(place) as reader:
        decisions: dict[str, tuple[Decision, int]] = {}
        for blob, committed_ns in reader.rows("SELECT decision, committed_utc_ns FROM decisions WHERE applied<>0"):
            decision = msgspec.json.decode(blob, type=Decision)
            decisions[decision.scan_id] = (decision, int(committed_ns))
        seen = _Seen()
        query = (
            "SELECT scan_id, lane, start_utc_ns, added_utc_ns, simulated, result, declaration FROM scans "
            "ORDER BY added_utc_ns, scan_id"
        )
        for scan_id, lane, start_ns, added_ns, simulated, result, declared in reader.rows(query):
            try:
                judged = msgspec.json.decode(result, type=TriageResult)
                papers = None if declared is None else msgspec.json.decode(declared, type=Declaration)
            except msgspec.MsgspecError as error:
                raise StorageError(f"{place}: scan {scan_id} cannot be read ({error})") from error
            history = seen.history(papers, added_ns)
            told = decisions.get(scan_id)
            verdict, codes, analyst = (told[0].verdict, told[0].codes, told[0].analyst) if told else ("", (), "")
            yield Passage(
                scan_id, lane, start_ns, added_ns, bool(simulated), judged, papers, history, verdict, codes, analyst
            )
            seen.add(papers, told[1] if told and verdict == "inspect" else None)


def count(place: Place) -> int:
    """Return how many passages there are."""
    with reading(place) as reader:
        return int(next(iter(reader.rows("SELECT COUNT(*) FROM scans")))[0])


def span(place: Place) -> tuple[int, int] | None:
    """Return when the first and the last passage were judged; None where there is none."""
    with reading(place) as reader:
        first, last = next(iter(reader.rows("SELECT MIN(added_utc_ns), MAX(added_utc_ns) FROM scans")))
    return None if first is None else (int(first), int(last))


def history_now(place: Place) -> Callable[[Declaration], History]:
    """Return what tells the history of a declaration's container and consignor, as it is known at this moment."""
    seen = _Seen()
    for passage in passages(place):
        found = passage.verdict == "inspect"
        seen.add(passage.declaration, passage.at_utc_ns if found else None)
    return lambda declaration: seen.history(declaration, 1 << 62)


class _Seen:
    """Counts of containers and consignors, and finds that become known at the time of their decision."""

    def __init__(self) -> None:
        self._scans: Counter[str] = Counter()
        self._finds: Counter[str] = Counter()
        self._to_come: list[tuple[int, str]] = []

    def history(self, papers: Declaration | None, now_ns: int) -> History:
        while self._to_come and self._to_come[0][0] <= now_ns:
            self._finds[heapq.heappop(self._to_come)[1]] += 1
        if papers is None:
            return History()
        boxes, consignor = [f"c {n}" for n in papers.container_numbers], f"p {papers.consignor}"
        return History(
            container_scans=max((self._scans[b] for b in boxes), default=0),
            container_finds=max((self._finds[b] for b in boxes), default=0),
            consignor_scans=self._scans[consignor] if papers.consignor else 0,
            consignor_finds=self._finds[consignor] if papers.consignor else 0,
        )

    def add(self, papers: Declaration | None, found_ns: int | None) -> None:
        if papers is None:
            return
        for key in {*(f"c {n}" for n in papers.container_numbers), f"p {papers.consignor}"}:
            self._scans[key] += 1
            if found_ns is not None:
                heapq.heappush(self._to_come, (found_ns, key))


def tried(
    profile: risk.RiskProfile, place: Place, chosen_share: float, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Return what a profile would have done to every passage of an archive: nothing goes live by it.

    chosen_share : the part with the highest scores that would have been chosen
    """
    scores, hits, found, decided, missing, simulated = [], [], [], [], 0, 0
    rules: dict[str, dict[str, Any]] = {
        r.id: {"owner": r.owner, "points": r.points, "counted": 0, "assumed": 0, "decided": 0, "hits": 0, "found": 0}
        for r in profile.rules
    }
    first = last = None
    for passage in passages(place):
        told = risk.assess(profile, passage.facts(), passage.at_utc_ns)
        first, last = first or passage.at_utc_ns, passage.at_utc_ns
        scores.append(told.score)
        hits.append(bool(passage.hit))
        found.append(passage.found)
        decided.append(passage.hit is not None)
        missing += passage.declaration is None
        simulated += passage.simulated
        for one in told.contributions:
            entry = rules.get(one.rule)
            if entry is not None:
                entry["counted"] += 1
                entry["assumed"] += one.assumed
                entry["decided"] += passage.hit is not None
                entry["hits"] += bool(passage.hit)
                entry["found"] += passage.found
        progress()
    if not scores:
        raise StorageError(f"{place}: no passage in it; a profile is tried against what has passed")
    score, hit, was_decided = np.asarray(scores), np.asarray(hits), np.asarray(decided)
    wanted = max(round(chosen_share * len(score)), 1)
    threshold = float(np.sort(score)[-wanted])
    above = score >= threshold
    for entry in rules.values():
        entry["hit_rate"] = share(entry.pop("hits"), entry.pop("decided"))
    day = datetime.datetime.fromtimestamp((last or 0) / 1e9, datetime.UTC).date()
    return {
        "profile": profile.identity, "sha256": profile.sha256, "passages": len(score), "simulated": simulated,
        "first_utc_ns": first, "last_utc_ns": last, "declaration_missing": missing,
        "score": {f"p{q}": round(float(np.percentile(score, q)), 3) for q in (5, 50, 90, 95, 99, 100)},
        "chosen_share": chosen_share, "threshold": threshold, "chosen": int(above.sum()),
        "hit_rate_chosen": share(int((hit & above).sum()), int((was_decided & above).sum())),
        "hit_rate_rest": share(int((hit & ~above).sum()), int((was_decided & ~above).sum())),
        "hits_in_chosen": share(int((hit & above).sum()), int(hit.sum())),
        "found_in_chosen": int((np.asarray(found) & above).sum()), "found": int(np.sum(found)), "rules": rules,
        "expired": [{"rule": r.id, "owner": r.owner, "valid_to": str(r.valid_to)} for r in risk.expired(profile, day)],
        "never_counted": [name for name, entry in rules.items() if not entry["counted"]],
        "limits": [
            "a hit is a passage that an analyst sent on to inspection and that no code calls empty-handed",
            "what nobody looked at has no verdict: rates are of decided passages only, and those were not drawn at "
            "random",
        ],
    }  # fmt: skip
