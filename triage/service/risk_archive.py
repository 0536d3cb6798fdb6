"""The archive as a risk profile meets it: passages in their order, each with what was known of it at that moment."""

from __future__ import annotations

import datetime
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from scanner_io.decision_codes import FOUND, INSPECTED_NEGATIVE
from scanner_io.errors import StorageError
from scanner_io.model import Decision, Declaration, TriageResult
from triage.analysis import risk
from triage.analysis.risk_facts import History, Value, facts_of
from triage.analysis.shares import share

from .later import Later, together
from .store import Place, reading

T = TypeVar("T")


class Known(NamedTuple):
    """What was known of a passage from a moment on: its result and papers, and what was known of both before it."""

    since_utc_ns: int
    result: TriageResult
    declaration: Declaration | None
    history: History


class Passage(NamedTuple):
    """One passage of the archive.

    at_utc_ns : when it was judged
    known : what was known when it was judged, and after each later assessment, first to last
    verdict, codes, analyst : of the decision in force, empty without one
    """

    scan_id: str
    lane: str
    start_utc_ns: int
    at_utc_ns: int
    simulated: bool
    known: tuple[Known, ...]
    verdict: str
    codes: tuple[int, ...]
    analyst: str

    @property
    def result(self) -> TriageResult:
        """What is told of it now: the first result, and what later assessments add."""
        return self.known[-1].result

    @property
    def declaration(self) -> Declaration | None:
        """Its declaration, also one that came late."""
        return self.known[-1].declaration

    @property
    def history(self) -> History:
        """What was known of the container and consignor of its declaration when it passed."""
        return self.known[-1].history

    def as_of(self, utc_ns: int) -> Passage:
        """Return it as it was known at a moment; what it was judged as is always known."""
        return self._replace(known=self.known[:1] + tuple(k for k in self.known[1:] if k.since_utc_ns <= utc_ns))

    def with_history(self, history: History) -> Passage:
        """Return it with another history."""
        return self._replace(known=(*self.known[:-1], self.known[-1]._replace(history=history)))

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


EVER = (0, 1 << 62)


def passages(place: Place, period: tuple[int, int] = EVER, *, history: bool = True) -> Iterator[Passage]:
    """Yield the archive's passages in the order they were judged. Raises StorageError if it cannot be read.

    period : judged from the first moment on and before the second
    history : what was there before counts: passages that were judged before, and finds decided before. False: nobody
        asks for it, and only what lies in the period is read

    Late papers count in the history of others from the moment on at which they came.
    """
    read = (EVER[0], period[1]) if history else period
    with reading(place) as reader:
        decisions: dict[str, tuple[Decision, int]] = {}
        query = (
            "SELECT decision, committed_utc_ns FROM decisions JOIN scans USING (scan_id) "
            "WHERE applied<>0 AND added_utc_ns>=? AND added_utc_ns<?"
        )
        for blob, committed_ns in reader.rows(query, read):
            decision = msgspec.json.decode(blob, type=Decision)
            decisions[decision.scan_id] = (decision, int(committed_ns))
        later: dict[str, list[tuple[int, Later]]] = {}
        query = (
            "SELECT scan_id, utc_ns, later FROM assessments JOIN scans USING (scan_id) "
            "WHERE added_utc_ns>=? AND added_utc_ns<? ORDER BY scan_id, number"
        )
        for scan_id, utc_ns, blob in reader.rows(query, read):
            later.setdefault(scan_id, []).append((int(utc_ns), msgspec.json.decode(blob, type=Later)))
        seen = Seen()
        query = (
            "SELECT scan_id, lane, start_utc_ns, added_utc_ns, simulated, result, declaration FROM scans "
            "WHERE added_utc_ns>=? AND added_utc_ns<? ORDER BY added_utc_ns, scan_id"
        )
        for scan_id, lane, start_ns, added_ns, simulated, result, declared in reader.rows(query, read):
            told = decisions.get(scan_id)
            papers = [(added_ns, _papers(place, scan_id, declared))]
            papers += [(at_ns, one.declaration) for at_ns, one in later.get(scan_id, ())]
            if added_ns >= period[0]:
                judged = _decoded(place, scan_id, result, TriageResult)
                assessed = [one for _, one in later.get(scan_id, ())]
                known = tuple(
                    Known(at_ns, together(judged, assessed[:n]), declaration,
                          seen.history(declaration, added_ns) if history else History())
                    for n, (at_ns, declaration) in enumerate(papers)
                )  # fmt: skip
                verdict, codes, analyst = (told[0].verdict, told[0].codes, told[0].analyst) if told else ("", (), "")
                yield Passage(
                    scan_id, lane, start_ns, added_ns, bool(simulated), known, verdict, codes, analyst
                )  # fmt: skip
            if history:
                seen.add(papers, told[1] if told and told[0].verdict == "inspect" else None)


def _decoded(place: Place, scan_id: str, blob: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(blob, type=kind)
    except msgspec.MsgspecError as error:
        raise StorageError(f"{place}: scan {scan_id} cannot be read ({error})") from error


def _papers(place: Place, scan_id: str, blob: bytes | None) -> Declaration | None:
    return None if blob is None else _decoded(place, scan_id, blob, Declaration)


def count(place: Place, period: tuple[int, int] = EVER) -> int:
    """Return how many passages there are."""
    with reading(place) as reader:
        query = "SELECT COUNT(*) FROM scans WHERE added_utc_ns>=? AND added_utc_ns<?"
        return int(next(iter(reader.rows(query, period)))[0])


def span(place: Place) -> tuple[int, int] | None:
    """Return when the first and the last passage were judged; None where there is none."""
    with reading(place) as reader:
        first, last = next(iter(reader.rows("SELECT MIN(added_utc_ns), MAX(added_utc_ns) FROM scans")))
    return None if first is None else (int(first), int(last))


def history_now(place: Place) -> Callable[[Declaration], History]:
    """Return what tells the history of a declaration's container and consignor, as it is known at this moment."""
    seen = Seen()
    with reading(place) as reader:
        seen.read(reader)
    return lambda declaration: seen.history(declaration, EVER[1])


class Named(msgspec.Struct, frozen=True):
    """What history asks of a declaration."""

    container_numbers: tuple[str, ...] = ()
    consignor: str = ""


class _Late(msgspec.Struct, frozen=True):
    """What history asks of a later assessment."""

    declaration: Named


class Rows(Protocol):
    """What asks a database: a reader, or the store of a service itself."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterable[tuple[Any, ...]]:
        """Return the rows of a query."""


READ_AT_ONCE = 2000
"""Events of the audit that are in memory at a time: an archive of years has millions."""


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `Seen` has counted of an audit, up to an event.

    heard : number of the last event that counts; hash : the audit's, of that event
    scans, finds : by container and consignor; late : later assessments by passage
    """

    heard: int
    hash: bytes
    scans: dict[str, int]
    finds: dict[str, int]
    late: dict[str, int]


class Seen:
    """Counts of containers and consignors, and finds that become known at the time of their decision."""

    def __init__(self, counts: Counts | None = None) -> None:
        """Begin with nothing, or where an earlier one was."""
        self._scans: Counter[str] = Counter({} if counts is None else counts.scans)
        self._finds: Counter[str] = Counter({} if counts is None else counts.finds)
        self._to_come: list[tuple[int, bool, str]] = []
        self._late: Counter[str] = Counter({} if counts is None else counts.late)
        """Later assessments of passages that were heard of."""
        self.heard = 0 if counts is None else counts.heard
        """The last event of the audit that was heard."""

    def counts(self, hashed: bytes) -> Counts:
        """Return what was counted of an audit, to begin there again. hashed : of the event `heard`"""
        return Counts(self.heard, hashed, dict(self._scans), dict(self._finds), dict(self._late))

    def history(self, papers: Declaration | None, now_ns: int) -> History:
        """Return what was known at a moment; moments are asked for in their order."""
        while self._to_come and self._to_come[0][0] <= now_ns:
            _, found, key = heapq.heappop(self._to_come)
            (self._finds if found else self._scans)[key] += 1
        if papers is None:
            return History()
        boxes, consignor = [f"c {n}" for n in papers.container_numbers], f"p {papers.consignor}"
        return History(
            container_scans=max((self._scans[b] for b in boxes), default=0),
            container_finds=max((self._finds[b] for b in boxes), default=0),
            consignor_scans=self._scans[consignor] if papers.consignor else 0,
            consignor_finds=self._finds[consignor] if papers.consignor else 0,
        )

    def add(self, papers: Sequence[tuple[int, Declaration | Named | None]], found_ns: int | None) -> None:
        """Take a passage. papers : its declarations and since when each was known; found_ns : of a find's decision"""
        told: set[str] = set()
        for number, (since_ns, declaration) in enumerate(papers):
            new = _keys(declaration) - told
            told |= new
            for key in new:
                if number:
                    heapq.heappush(self._to_come, (since_ns, False, key))
                else:
                    self._scans[key] += 1
                if found_ns is not None:
                    heapq.heappush(self._to_come, (max(found_ns, since_ns), True, key))

    def read(self, reader: Rows, *, before: str = "", upto: int | None = None) -> int:
        """Take what the audit of an archive tells since it was read last; return the number of the last event heard.

        Every passage is told there when it was recorded, when papers of it came late, and when it was decided: at once
        it counts, in this order. Whoever asks what was known at a time of the past reads `passages`.

        before : a passage; what was told from its recording on is left for the next time
        upto : the last event that is heard; None: all
        """
        query = (
            "SELECT seq, kind, events.scan_id, text, declaration FROM events JOIN scans ON "
            "scans.scan_id=events.scan_id WHERE seq>? AND seq<=? AND kind IN ('recorded', 'decided', "
            "'assessed_later', 'assessed_after_decision') ORDER BY seq LIMIT ?"
        )
        last = EVER[1] if upto is None else upto
        while rows := list(reader.rows(query, (self.heard, last, READ_AT_ONCE))):
            for seq, kind, scan_id, text, declared in rows:
                if scan_id == before and kind == "recorded":
                    return self.heard
                self.heard = int(seq)
                self._hear(reader, kind, scan_id, text, declared)
        return self.heard

    def _hear(self, reader: Rows, kind: str, scan_id: str, text: str, declared: bytes | None) -> None:
        if kind == "decided" and not text.startswith("inspect"):
            return
        keys = set() if declared is None else _keys(msgspec.json.decode(declared, type=Named))
        if kind == "recorded":
            self._scans.update(keys)
            return
        if kind != "decided":
            self._late[scan_id] += 1
        query = "SELECT later FROM assessments WHERE scan_id=? AND number<=? ORDER BY number"
        late = [_keys(msgspec.json.decode(blob, type=_Late).declaration)
                for (blob,) in reader.rows(query, (scan_id, self._late.get(scan_id, 0)))]  # fmt: skip
        if kind == "decided":
            self._finds.update(keys.union(*late))
            return
        new = late[-1].difference(keys, *late[:-1]) if late else set()
        self._scans.update(new)
        if kind == "assessed_after_decision":
            query = "SELECT 1 FROM decisions WHERE scan_id=? AND applied<>0 AND verdict='inspect'"
            self._finds.update(new if list(reader.rows(query, (scan_id,))) else ())


def _keys(papers: Declaration | Named | None) -> set[str]:
    return set() if papers is None else {*(f"c {n}" for n in papers.container_numbers), f"p {papers.consignor}"}


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
