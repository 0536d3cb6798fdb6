"""Selection beside the lanes: each passage, as its result comes, is chosen or not to be looked at by a person.

It is `selecting` for one passage at a time, with the same choice, the same draws and the same record, so that `scanlane
risk explain` makes each again. What differs: nobody knows who comes later in the shift, so room is given to whoever
comes first and has at least the plan's `least_score`, until the shift's analysts have no time left; and history is what
the audit of this service told before the passage came.

Nothing here takes anything back. A flagged passage waits for an analyst whatever comes of it, a score from the
profile's `review_from` on always asks for one, and a passage that cannot be evaluated waits for one too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from scanner_io import __version__, disk
from scanner_io.config import Selection
from scanner_io.errors import ConfigError, StorageError
from scanner_io.storage import write_durable
from triage.analysis import risk, selection
from triage.analysis.selection import Plan, Staff, Window

from . import risk_store, selecting
from .outbox import Item, Outbox
from .risk_archive import EVER, Counts, Known, Passage, Seen
from .selecting import Kept, Run

KEPT = "selection.history"
"""Name of the file beside the outbox that holds what history has counted: an audit of a million passages takes 20 s to
count, at each start."""
KEEP_EVERY = 20_000
"""Events after which it is written again; what came since is counted at the next start."""
STAGE: selection.Stage = "look"
BEGAN, FAILED, COUNTED_ANEW = "selection_began", "selection_failed", "history_counted_anew"


class Rules(NamedTuple):
    """What is selected by."""

    profile: risk.RiskProfile
    plan: Plan
    staff: tuple[Staff, ...]
    seed: bytes

    @property
    def words(self) -> str:
        """Say it; of the seed only what may be shown."""
        return (
            f"by {self.profile.identity}, of all at random {self.plan.random_share[STAGE]:g}, by risk from a score of "
            f"{self.plan.least_score:g}, seed committed to as {selection.commitment(self.seed)[:12]}"
        )


def rules_of(told: Selection) -> Rules:
    """Read what is selected by. Raises ConfigError, also for a profile that is not in force."""
    path = Path(told.profile)
    profile = risk_store.load(path)
    enrolled = risk_store.enrolled_in(None if told.keys is None else Path(told.keys))
    if missing := risk_store.in_force(risk_store.signatures(path.parent, profile.sha256), *enrolled):
        raise ConfigError([f"selection.profile: {path}: not in force: {'; '.join(missing)}; see `scanlane risk sign`"])
    plan, staff = selecting.plan_in(Path(told.plan))
    return Rules(profile, plan, staff, selecting.seed_in(Path(told.seed_file)))


class LiveSelection:
    """The selection of one service. For the thread of its outbox."""

    def __init__(self, rules: Rules, outbox: Outbox, log: Callable[..., None], kept: Path) -> None:
        """Begin with the archive's history and with what was missed. Raises StorageError.

        kept : file in which the history's counts are kept from one start to the next
        """
        self._rules, self._outbox, self._log = rules, outbox, log
        self._draw = selection.drawing(rules.seed)
        self._commitment = selection.commitment(rules.seed)
        self._who = f"service {outbox.hub}".strip()
        self._kept = kept
        self._kept_at, self._looked_at = 0, outbox.audit_head()[0]
        """The last event that the file counts, and the last among which erasures were looked for."""
        self._erased = False
        """Something that is counted here was erased: what is in memory goes with this process, and into no file."""
        self._seen = self._history()
        self._taken: tuple[Window, set[str]] | None = None
        """The present shift, and the passages that take its places."""
        self._begin()

    def _begin(self) -> None:
        """Tell the audit by what is selected from here on, and catch up with what was stored and not selected among.

        That is what the end of a service lost between the two; passages of a time without selection are left alone.
        """
        missed = self._missed()
        with self._outbox.store.transaction():
            selecting.commit_if_new(self._outbox, self._commitment, self._who)
            self._outbox.event(BEGAN, who=self._who, text=self._rules.words)
        for scan_id in missed:
            self.passed(scan_id)
        self._seen.read(self._outbox.store)
        self._keep()

    def _history(self) -> Seen:
        """Return what was counted at the last start, if it is of this audit and nothing it names was erased since."""
        try:
            counts = msgspec.msgpack.decode(self._kept.read_bytes(), type=Counts)
        except FileNotFoundError:
            return Seen()
        except (OSError, msgspec.MsgspecError) as error:
            self._log(COUNTED_ANEW, level="warning", text=f"{self._kept}: {error}; history is counted anew")
            return Seen()
        found = self._outbox.store.row("SELECT hash FROM events WHERE seq=?", (counts.heard,))
        if found is None or bytes(found[0]) != counts.hash:
            text = f"{self._kept}: it is of another audit: event {counts.heard} differs; history is counted anew"
            self._log(COUNTED_ANEW, level="warning", text=text)
            return Seen()
        if self._erased_since(counts.heard):
            try:
                self._forget()
            except OSError as error:
                text = f"{self._kept}: names what was erased, and cannot be taken away ({error}); delete it"
                self._log("history_not_kept", level="error", text=text)
            return Seen()
        self._kept_at = counts.heard
        return Seen(counts)

    def _forget(self) -> None:
        """Take the file away. Raises OSError."""
        with suppress(FileNotFoundError):
            disk.io().unlink(self._kept)

    def _erased_since(self, seq: int) -> bool:
        return bool(self._outbox.store.row("SELECT 1 FROM events WHERE seq>? AND kind='result_erased' LIMIT 1", (seq,)))

    def _keep(self) -> None:
        """Write the counts down once enough has come; a disk that refuses costs the next start some seconds.

        What was erased must not stay in a file: then there is none until the next start has counted anew.
        """
        head, _ = self._outbox.audit_head()
        erased = not self._erased and self._erased_since(self._looked_at)
        heard = self._seen.heard
        try:
            if erased:
                self._forget()
                self._erased = True
            self._looked_at = head
            if self._erased or heard - self._kept_at < KEEP_EVERY:
                return
            self._kept_at = heard
            ((hashed,),) = self._outbox.store.rows("SELECT hash FROM events WHERE seq=?", (heard,))
            blob = msgspec.msgpack.encode(self._seen.counts(bytes(hashed)))
            write_durable(self._kept, blob, replace=True, mode=0o600)
        except (OSError, StorageError) as error:
            self._log("history_not_kept", level="warning", text=f"{self._kept}: {error}")

    def _missed(self) -> list[str]:
        rows = self._outbox.store.rows
        ((began,),) = rows("SELECT MAX(seq) FROM events WHERE kind=? AND who=?", (BEGAN, self._who))
        if began is None:
            return []
        # the start that began selecting was told before it: what was recorded after the next start was without
        query = "SELECT MIN(seq) FROM events WHERE kind='service_started' AND who=? AND seq>?"
        ((ended,),) = rows(query, (self._outbox.hub, began))
        found = rows(
            "SELECT events.scan_id FROM events JOIN scans ON scans.scan_id=events.scan_id WHERE kind='recorded' AND "
            "hub=? AND seq>? AND seq<? AND NOT EXISTS (SELECT 1 FROM selections WHERE "
            "selections.scan_id=events.scan_id) ORDER BY seq",
            (self._outbox.hub, began, EVER[1] if ended is None else ended),
        )
        return [str(scan_id) for (scan_id,) in found]

    def passed(self, scan_id: str) -> None:
        """Choose a passage or not, once for its result and once for each later assessment. Raises StorageError.

        One that cannot be evaluated waits for an analyst, and the audit says why.
        """
        item = self._outbox.item(scan_id)
        name = hashlib.sha256(f"live {scan_id} {len(item.row.later)}".encode()).hexdigest()[:32]
        if self._outbox.store.row("SELECT 1 FROM selection_runs WHERE run=?", (name,)):
            return
        try:
            run, kept = self._made(name, item)
        except StorageError:
            raise
        except Exception as error:
            self._failed(scan_id, f"{type(error).__name__}: {error}")
            return
        with self._outbox.store.transaction():
            woken = selecting.write(self._outbox, run, [kept], self._who)
        if kept.choice.chosen and self._taken is not None:
            self._taken[1].add(scan_id)
        if woken:
            self._log("selected", lane=item.row.lane, scan=scan_id, text=kept.choice.why, simulated=item.row.simulated)

    def _made(self, name: str, item: Item) -> tuple[Run, Kept]:
        rules, row = self._rules, item.row
        ((added_ns,),) = self._outbox.store.rows("SELECT added_utc_ns FROM scans WHERE scan_id=?", (row.scan_id,))
        heard = self._seen.read(self._outbox.store, before=row.scan_id)
        self._keep()
        history = self._seen.history(row.papers, EVER[1])
        passage = Passage(
            row.scan_id, row.lane, row.start_utc_ns, added_ns, row.simulated,
            (Known(added_ns, row.told, row.papers, history),), "", (), "",
        )  # fmt: skip
        facts = passage.facts()
        told = risk.assess(rules.profile, facts, added_ns)
        candidate = selecting.candidate_of(passage, told)
        asks_from = rules.profile.review_from
        if not candidate.must and asks_from is not None and told.score >= asks_from:
            words = f"score {told.score:g}: the profile asks for a look from {asks_from:g} on"
            candidate = msgspec.structs.replace(candidate, must=words)
        (window,) = selection.windows_of(rules.staff, added_ns, added_ns)
        taken = len(self._taken_in(window) - {row.scan_id})
        run = Run(
            run=name, algorithm=selection.ALGORITHM, stage=STAGE, plan=rules.plan, windows=(window,),
            profile=rules.profile.identity, profile_sha256=rules.profile.sha256, seed_commitment=self._commitment,
            code_version=__version__, utc_ns=time.time_ns(), taken=taken, heard=heard,
        )  # fmt: skip
        (choice,) = selection.choose(STAGE, [candidate], (window,), rules.plan, self._draw, taken)
        return run, Kept(candidate=candidate, choice=choice, assessment=told, facts=selecting.plain(facts))

    def _taken_in(self, window: Window) -> set[str]:
        """Return the passages that take places of a shift: those that a service chose as they came."""
        if self._taken is None or self._taken[0] != window:
            rows = self._outbox.store.rows(
                "SELECT scan_id, selections.told, selection_runs.told FROM selections JOIN selection_runs USING (run) "
                "WHERE stage=? AND utc_ns>=? AND utc_ns<?", (STAGE, window.start_utc_ns, window.end_utc_ns),
            )  # fmt: skip
            chosen = {
                str(scan_id) for scan_id, kept, run in rows
                if msgspec.json.decode(run, type=Run).heard is not None
                and msgspec.json.decode(kept, type=Kept).choice.chosen
            }  # fmt: skip
            self._taken = window, chosen
        return self._taken[1]

    def _failed(self, scan_id: str, why: str) -> None:
        text = f"it waits for an analyst, for it could not be evaluated: {why}"
        with self._outbox.store.transaction():
            self._outbox.wake(scan_id)
            self._outbox.event(FAILED, scan_id, self._who, text)
        self._log(FAILED, level="error", scan=scan_id, text=text)
