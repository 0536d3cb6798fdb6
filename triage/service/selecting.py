"""Selections of passages of an archive: made, written down with all they depend on, and made again to be held against.

A run chooses among all its candidates at once. It is kept with the plan, the windows, the hash of the risk profile, the
commitment of the seed and the algorithm; every candidate, chosen or not, with its facts, score and draw. The audit has
the hash of each run, the commitment before the seed is used, and every passage that was chosen.
"""

from __future__ import annotations

import hashlib
import re
import time
import tomllib
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from scanner_io import __version__
from scanner_io.errors import ConfigError, DataError, StorageError
from scanner_io.model import Declaration, Finding
from scanner_io.security import secret_in
from triage.analysis import risk, selection
from triage.analysis.risk_facts import FACTS, RISK_KIND, History, Value, doubts
from triage.analysis.risk_finding import risk_finding
from triage.analysis.selection import Candidate, Choice, Plan, Staff, Stage, Window

from . import risk_store
from .outbox import Outbox
from .risk_archive import EVER, Passage, Seen, passages
from .store import Place, reading


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one run depends on beside its candidates.

    taken : places of its window that were taken when it was made
    heard : of a run that a service made for one passage as it came: the last event of the audit that its history is of
    """

    run: str
    algorithm: str
    stage: Stage
    plan: Plan
    windows: tuple[Window, ...]
    profile: str
    profile_sha256: str
    seed_commitment: str
    code_version: str
    utc_ns: int
    taken: int = 0
    heard: int | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of a run as it is kept."""

    candidate: Candidate
    choice: Choice
    assessment: risk.Assessment
    facts: dict[str, bool | float | str | list[str] | None]


def seed_in(path: Path) -> bytes:
    """Return the seed of a file: one line of 64 hexadecimal digits, readable by its user alone. Raises ConfigError."""
    try:
        seed = bytes.fromhex(secret_in(path))
        selection.commitment(seed)
    except (ValueError, DataError) as error:
        raise ConfigError([f"{path}: expected one line of {2 * selection.SEED_BYTES} hexadecimal digits"]) from error
    return seed


def plan_in(path: Path) -> tuple[Plan, tuple[Staff, ...]]:
    """Return the plan of a file, and who is there when. Raises ConfigError."""
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {error}; `scanlane selection plan` prints one"]) from error
    return selection.plan_of(told, str(path)), selection.staff_of(told.get("staff", []), str(path))


def candidate_of(passage: Passage, told: risk.Assessment) -> Candidate:
    """Return a passage as it stands for selection."""
    result, papers = passage.result, passage.declaration
    doubtful = papers is None or bool(doubts(papers, result.quality))
    return Candidate(
        scan_id=passage.scan_id, at_utc_ns=passage.at_utc_ns, score=told.score,
        must="" if result.outcome == "CLEAR" else f"the machine says {result.outcome}",
        trusted=papers is not None and papers.authorised_trader is True and not doubtful,
        traits=traits(papers, passage.history),
    )  # fmt: skip


def traits(papers: Declaration | None, history: History) -> dict[str, str]:
    """Return what the fairness report groups by: trader class, size of the trader here, origin."""
    trader = "no declaration"
    if papers is not None:
        trader = {True: "authorised", False: "not authorised", None: "not known"}[papers.authorised_trader]
    before = history.consignor_scans
    size = "not known"
    if papers is not None and papers.consignor:
        size = "10 passages before or more" if before >= 10 else "1 to 9 before" if before else "new here"
    return {"trader": trader, "size of trader": size, "origin": (papers.origin if papers else "") or "not known"}


def candidates_before(place: Place, stage: Stage) -> set[str]:
    """Return the passages that were candidates of this stage before."""
    with reading(place) as reader:
        query = "SELECT scan_id FROM selections JOIN selection_runs USING (run) WHERE stage=?"
        return {scan_id for (scan_id,) in reader.rows(query, (stage,))}


def drawn_at_random(place: Place) -> set[str]:
    """Return the passages that a recorded selection drew at random, whatever the machine and the profile said."""
    with reading(place) as reader:
        return {
            scan_id for scan_id, told in reader.rows("SELECT scan_id, told FROM selections")
            if msgspec.json.decode(bytes(told), type=Kept).choice.random
        }  # fmt: skip


def select(
    place: Place, stage: Stage, profile: risk.RiskProfile, plan: Plan, windows: Sequence[Window], seed: bytes,
    progress: Callable[[], None] = lambda: None,
) -> tuple[Run, list[Kept]]:  # fmt: skip
    """Return a run over the passages inside `windows` that were no candidates of this stage before. Writes nothing.

    For opening, candidates are the passages that an analyst sent on to inspection; that is why each must be.
    """
    before = candidates_before(place, stage)
    now_ns = time.time_ns()
    first, last = min(w.start_utc_ns for w in windows), max(w.end_utc_ns for w in windows)
    kept: list[tuple[Candidate, risk.Assessment, dict[str, Value]]] = []
    for passage in passages(place):
        progress()
        if passage.scan_id in before or not first <= passage.at_utc_ns < last:
            continue
        passage = passage.as_of(now_ns)
        facts = passage.facts()
        told = risk.assess(profile, facts, passage.at_utc_ns)
        candidate = candidate_of(passage, told)
        if stage == "open":
            if passage.verdict != "inspect":
                continue
            candidate = msgspec.structs.replace(candidate, must=f"{passage.analyst} sent it on to inspection")
        kept.append((candidate, told, facts))
    run = Run(
        run=uuid.uuid4().hex, algorithm=selection.ALGORITHM, stage=stage, plan=plan, windows=tuple(windows),
        profile=profile.identity, profile_sha256=profile.sha256, seed_commitment=selection.commitment(seed),
        code_version=__version__, utc_ns=now_ns,
    )  # fmt: skip
    choices = selection.choose(stage, [k[0] for k in kept], windows, plan, selection.drawing(seed))
    return run, [
        Kept(candidate=c, choice=choice, assessment=told, facts=plain(facts))
        for (c, told, facts), choice in zip(kept, choices, strict=True)
    ]


def record(outbox: Outbox, run: Run, kept: Sequence[Kept], who: str) -> int:
    """Write a run down and let the chosen wait for an analyst (stage look); return how many do.

    All of it or nothing. Raises StorageError where a passage was a candidate of this stage meanwhile.
    """
    with outbox.store.transaction():
        done = "SELECT 1 FROM selections JOIN selection_runs USING (run) WHERE scan_id=? AND stage=?"
        for one in kept:
            if outbox.store.row(done, (one.candidate.scan_id, run.stage)):
                raise StorageError(
                    f"{one.candidate.scan_id}: was selected among for {run.stage} meanwhile; run it again"
                )
        commit_if_new(outbox, run.seed_commitment, who)
        return write(outbox, run, kept, who)


def write(outbox: Outbox, run: Run, kept: Sequence[Kept], who: str) -> int:
    """Write a run down, in a transaction; as `record`, whatever was before. Its seed is committed to already."""
    blobs = [(k.candidate.scan_id, msgspec.json.encode(k)) for k in kept]
    described = msgspec.json.encode(run)
    outbox.store.change(
        "INSERT INTO selection_runs VALUES (?, ?, ?, ?)", (run.run, run.stage, run.utc_ns, described)
    )  # fmt: skip
    for scan_id, blob in blobs:
        outbox.store.change("INSERT INTO selections VALUES (?, ?, ?)", (run.run, scan_id, blob))
    outbox.event("selection_run", who=who, text=f"{run.run} {run_hash(described, (b for _, b in sorted(blobs)))}")
    woken = 0
    for one in kept:
        if not one.choice.chosen:
            continue
        if run.stage == "look":
            woken += outbox.wake(one.candidate.scan_id)
        outbox.event("selected", one.candidate.scan_id, who, f"{run.stage} {run.run}: {one.choice.why}")
    return woken


def commit_if_new(outbox: Outbox, commitment: str, who: str) -> None:
    """Write a commitment into the audit, inside a transaction, where it is not there yet."""
    if not outbox.store.row("SELECT 1 FROM events WHERE kind='selection_seed' AND text=? LIMIT 1", (commitment,)):
        outbox.event("selection_seed", who=who, text=commitment)


def commit_seed(outbox: Outbox, seed: bytes, who: str) -> str:
    """Write a seed's commitment into the audit, before it is used; return it."""
    told = selection.commitment(seed)
    with outbox.store.transaction():
        outbox.event("selection_seed", who=who, text=told)
    return told


def run_hash(described: bytes, blobs: Iterable[bytes]) -> str:
    """Return the hash by which the audit knows a run: of its description and its rows in the order of scan ids."""
    digest = hashlib.sha256(hashlib.sha256(described).digest())
    for blob in blobs:
        digest.update(hashlib.sha256(blob).digest())
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------------------------
# Made again


class Event(NamedTuple):
    """What the audit says of selections."""

    kind: str
    text: str
    utc_ns: int


class Explained(NamedTuple):
    """One selection made again. problems : where it is not the same, in words; empty: it is, bit for bit"""

    run: Run
    kept: Kept
    problems: list[str]
    checked: list[str]
    not_checked: list[str]


def explain(place: Place, scan_id: str, profiles: Path | None, seed: bytes | None) -> list[Explained]:
    """Make every selection again that a passage was a candidate of, from the archive.

    Facts are made again of the passage's row and of what was there before it, the score of the facts by the profile
    with the recorded hash, the choice of all candidates of the run. Without the seed the recorded draws are taken.

    Raises DataError for a passage that is not in the archive.
    """
    with reading(place) as reader:
        query = (
            "SELECT run, told FROM selection_runs WHERE run IN (SELECT run FROM selections WHERE scan_id=?) "
            "ORDER BY utc_ns, run"
        )
        runs = {r: bytes(t) for r, t in reader.rows(query, (scan_id,))}
        rows: dict[str, dict[str, bytes]] = {name: {} for name in runs}
        query = "SELECT run, scan_id, told FROM selections WHERE run IN (SELECT run FROM selections WHERE scan_id=?)"
        for run, name, told in reader.rows(query, (scan_id,)):
            rows[run][name] = bytes(told)
    events = events_in(place, "selection_run")
    passage = _passage(place, scan_id)
    return [_again(place, passage, name, runs[name], rows[name], events, profiles, seed) for name in runs]


def events_in(place: Place, kind: str) -> list[Event]:
    """Return the audit's events of this kind, and of seeds, in their order."""
    query = "SELECT kind, text, utc_ns FROM events WHERE kind IN (?, 'selection_seed') ORDER BY seq"
    with reading(place) as reader:
        return [Event(*row) for row in reader.rows(query, (kind,))]


class Again(NamedTuple):
    """What came of making something again; fields as in Explained."""

    problems: list[str]
    checked: list[str]
    not_checked: list[str]


class LaneScore(NamedTuple):
    """The score that a lane told with the scan, made again; fields as in Explained."""

    finding: Finding
    problems: list[str]
    checked: list[str]
    not_checked: list[str]


def explain_lane_score(place: Place, scan_id: str, profiles: Path | None) -> LaneScore | None:
    """Make the score again that a lane told with a scan, and by which it may have asked for a review.

    None where the lane told none: it had no risk profile. Raises DataError for a passage that is not in the archive.
    """
    passage = _passage(place, scan_id)
    finding = next((f for f in passage.result.findings if f.kind == RISK_KIND), None)
    if finding is None:
        return None
    told = LaneScore(finding, [], [], [])
    named = re.search(r"@([0-9a-f]{12}):", finding.reason)
    if named is None:
        told.problems.append("the finding names no profile")
        return told
    if profiles is None:
        told.not_checked.append("the score: give --profiles, the folder with the signed profiles")
        return told
    try:
        profile = risk_store.load(named[1], profiles)
    except ConfigError as error:
        told.problems.append(f"profile {named[1]} is not there to make the score again: {error}")
        return told
    again = risk_finding(passage.lane, passage.start_utc_ns, passage.result, passage.declaration, profile)
    if again == finding:
        told.checked.append(f"score {finding.score:g} and every word of it made again by {profile.identity}")
    else:
        told.problems.append(f"made again it is: {again.reason}")
    return told


def _passage(place: Place, scan_id: str) -> Passage:
    passage = next((p for p in passages(place) if p.scan_id == scan_id), None)
    if passage is None:
        raise DataError(f"{scan_id[:80]}: no such passage in {place}")
    return passage


def _again(
    place: Place, passage: Passage, name: str, described: bytes, rows: dict[str, bytes], events: list[Event],
    profiles: Path | None, seed: bytes | None,
) -> Explained:  # fmt: skip
    run = msgspec.json.decode(described, type=Run)
    all_kept = {i: msgspec.json.decode(b, type=Kept) for i, b in rows.items()}
    kept = all_kept[passage.scan_id]
    problems: list[str] = []
    checked: list[str] = []
    open_: list[str] = []
    told = [e.text.split(" ")[-1] for e in events if e.kind == "selection_run" and e.text.startswith(f"{name} ")]
    if told != [run_hash(described, (rows[i] for i in sorted(rows)))]:
        problems.append("the run is not what the audit says of it: rows of it were changed, or it has no event")
    else:
        checked.append("the run is what the audit says of it")
    facts = plain(_as_it_was(place, passage, run).facts())
    if facts != kept.facts:
        changed = [f"{n}: recorded {kept.facts.get(n)}, now {facts.get(n)}" for n in FACTS
                   if facts.get(n) != kept.facts.get(n)]  # fmt: skip
        problems.append(f"facts are not those of the archive: {'; '.join(changed)}")
    else:
        checked.append("facts made again from the archive")
    again = Again(problems, checked, open_)
    scores_again(run, [kept], profiles, again)
    choices_again(run, all_kept, events, seed, again, kept)
    return Explained(run, kept, problems, checked, open_)


def _as_it_was(place: Place, passage: Passage, run: Run) -> Passage:
    """Return a passage as a run knew it."""
    passage = passage.as_of(run.utc_ns)
    if run.heard is None:
        return passage
    with reading(place) as reader:
        seen = Seen()
        seen.read(reader, upto=run.heard)
    return passage.with_history(seen.history(passage.declaration, EVER[1]))


def scores_again(run: Run, every: Iterable[Kept], profiles: Path | None, again: Again) -> None:
    """Make scores again of their facts, by the profile with the recorded hash."""
    if profiles is None:
        again.not_checked.append("the score: give --profiles, the folder with the signed profiles")
        return
    try:
        profile = risk_store.load(run.profile_sha256, profiles)
    except ConfigError as error:
        again.problems.append(f"profile {run.profile_sha256[:12]} is not there to make the score again: {error}")
        return
    rows = list(every)
    bad = 0
    for kept in rows:
        facts = {n: tuple(v) if isinstance(v, list) else v for n, v in kept.facts.items()}
        told = risk.assess(profile, facts, kept.candidate.at_utc_ns)
        if told != kept.assessment or told.score != kept.candidate.score:
            bad += 1
            again.problems.append(
                f"{kept.candidate.scan_id}: the score is {told.score:g} by {profile.identity}, recorded is "
                f"{kept.assessment.score:g}"
            )
    if not bad:
        word = f"score {rows[0].assessment.score:g}" if len(rows) == 1 else f"{len(rows)} scores"
        again.checked.append(f"{word} made again by {profile.identity}")


def choices_again(
    run: Run, all_kept: dict[str, Kept], events: list[Event], seed: bytes | None, again: Again, kept: Kept | None = None
) -> None:  # fmt: skip
    """Make the choice among all candidates of a run again; kept : the one it is asked of, None: all of them."""
    if run.algorithm != selection.ALGORITHM:
        again.not_checked.append(f"the choice: made by {run.algorithm}, this is {selection.ALGORITHM}")
        return
    asked = [kept] if kept is not None else list(all_kept.values())
    since = [e.utc_ns for e in events if e.kind == "selection_seed" and e.text == run.seed_commitment]
    if not since:
        again.problems.append("the audit has no commitment of the seed")
    elif any(since[0] > k.candidate.at_utc_ns for k in asked):
        again.not_checked.append(
            "that the seed was not picked for this passage: it was committed to after the passage came"
        )  # fmt: skip
    draw = selection.drawing(seed) if seed is not None else _recorded(all_kept)
    if seed is None:
        again.not_checked.append("the draws: give --seed-file; the recorded ones were taken")
    elif selection.commitment(seed) != run.seed_commitment:
        again.problems.append(
            f"this seed's commitment is {selection.commitment(seed)[:12]}, the run's is {run.seed_commitment[:12]}"
        )
        return
    candidates = [k.candidate for k in all_kept.values()]
    made = {c.scan_id: c for c in selection.choose(
        run.stage, candidates, run.windows, run.plan, draw, run.taken
    )}  # fmt: skip
    differ = [k for k in asked if made[k.candidate.scan_id] != k.choice]
    for one in differ:
        why = made[one.candidate.scan_id].why
        again.problems.append(f"{one.candidate.scan_id}: made again it is: {why}; recorded is: {one.choice.why}")
    if not differ:
        by = " with the seed that the audit is committed to" if seed is not None else ""
        again.checked.append(f"choice made again among {len(candidates)} candidates{by}")


def _recorded(all_kept: dict[str, Kept]) -> selection.Draw:
    def drawn(purpose: str, scan_id: str) -> float:
        choice = all_kept[scan_id].choice
        return choice.tie if purpose.endswith(" tie") else choice.draw

    return drawn


def plain(facts: dict[str, Value]) -> dict[str, bool | float | str | list[str] | None]:
    """Return facts as JSON has them."""
    return {n: list(v) if isinstance(v, tuple) else v for n, v in facts.items()}
