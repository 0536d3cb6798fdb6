"""Which of the containers that are declared and have not come yet will be imaged in the shift that is on.

The list is made of papers and history alone, for nothing has been seen. It is a file, of which the audit has the hash;
everything that it depends on is in it, and it can be made again. A vehicle that is on no list has no declaration that
came in advance: it is no candidate here, and none of those that may pass without a look.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from scanner_io import __version__
from scanner_io.config import Cargo
from scanner_io.errors import DataError, StorageError
from triage.analysis import risk, selection
from triage.analysis.risk_facts import facts_on_papers
from triage.analysis.selection import Candidate, Plan, Staff

from . import declarations, selecting
from .declarations import Declared
from .outbox import Outbox
from .risk_archive import history_now
from .selecting import Kept, Run
from .store import Place

EVENT = "selection_expected"
DAY_NS = 86_400 * 10**9


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """The file: a run, and every container that was a candidate."""

    run: Run
    kept: tuple[Kept, ...]


def declared(state: Path, days: float, now_ns: int) -> list[Declared]:
    """Return what is declared and in force and came in the last `days`. Raises StorageError where nothing is kept."""
    path = state / declarations.FILE
    if not path.is_file():
        raise StorageError(f"{path}: no declarations came in advance; see the driver cargo_feed")
    store = declarations.Declarations(path, Cargo())
    try:
        return store.known(now_ns - int(days * DAY_NS), now_ns)
    finally:
        store.close()


def make(
    place: Place, expected: Sequence[Declared], profile: risk.RiskProfile, plan: Plan, staff: Sequence[Staff],
    seed: bytes, now_ns: int,
) -> ImageList:  # fmt: skip
    """Return who of the expected will be imaged in what is left of the shift at this moment. Writes nothing."""
    (shift,) = selection.windows_of(staff, now_ns, now_ns)
    window = msgspec.structs.replace(shift, start_utc_ns=now_ns)
    history = history_now(place)
    manifests = Counter(d.number for d in expected if d.number)
    candidates, told, facts = [], [], []
    for one in expected:
        problems = list(one.problems)
        if manifests[one.number] > 1:
            problems.append("several documents in force declare this container")
        known = history(one.declaration)
        facts.append(facts_on_papers(one.declaration, problems, known, now_ns))
        told.append(risk.assess(profile, facts[-1], now_ns))
        doubtful = facts[-1]["declaration.doubtful"] is True
        candidates.append(
            Candidate(
                scan_id="/".join((one.number or one.plate, one.sender, one.document)), at_utc_ns=now_ns,
                score=told[-1].score, trusted=one.declaration.authorised_trader is True and not doubtful,
                traits=selecting.traits(one.declaration, known),
            )
        )  # fmt: skip
    run = Run(
        run=uuid.uuid4().hex, algorithm=selection.ALGORITHM, stage="image", plan=plan, windows=(window,),
        profile=profile.identity, profile_sha256=profile.sha256, seed_commitment=selection.commitment(seed),
        code_version=__version__, utc_ns=now_ns,
    )  # fmt: skip
    choices = selection.choose("image", candidates, (window,), plan, selection.drawing(seed))
    return ImageList(
        run=run,
        kept=tuple(
            Kept(candidate=c, choice=choice, assessment=a, facts=selecting.plain(f))
            for c, choice, a, f in zip(candidates, choices, told, facts, strict=True)
        ),
    )


def encoded(made: ImageList) -> bytes:
    """Return the bytes of the file."""
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def record(outbox: Outbox, made: ImageList, who: str) -> None:
    """Write the hash of a list into the audit, and the seed's commitment where it is not there yet."""
    with outbox.store.transaction():
        selecting.commit_if_new(outbox, made.run.seed_commitment, who)
        digest = hashlib.sha256(encoded(made)).hexdigest()
        outbox.event(EVENT, who=who, text=f"{made.run.run} {digest}")


def check(place: Place, path: Path, profiles: Path | None, seed: bytes | None) -> selecting.Again:
    """Make a list again from what is in it, and hold it against the audit. Raises DataError for what is no list."""
    try:
        data = path.read_bytes()
        made = msgspec.json.decode(data, type=ImageList)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"{path}: no list of `scanlane selection expected` ({error})") from error
    events = selecting.events_in(place, EVENT)
    again = selecting.Again([], [], [])
    told = [e.text for e in events if e.kind == EVENT and e.text.startswith(f"{made.run.run} ")]
    if told != [f"{made.run.run} {hashlib.sha256(data).hexdigest()}"]:
        again.problems.append("the list is not what the audit says of it: it was changed, or has no event")
    else:
        again.checked.append("the list is what the audit says of it")
    every = {k.candidate.scan_id: k for k in made.kept}
    selecting.scores_again(made.run, every.values(), profiles, again)
    selecting.choices_again(made.run, every, events, seed, again)
    return again


def now() -> int:
    """Return the moment, UTC nanoseconds."""
    return time.time_ns()
