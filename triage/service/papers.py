"""Passages and the declarations that came in advance: joined, doubted, or found too late.

A passage that brings no declaration of its own gets the one that matching is sure of (`triage.analysis.matching`), and
the recording keeps which, of which message, how sure, and what came next. What is not sure is not joined:

    matched, nothing odd      the declaration is the passage's
    matched, something odd    it is the passage's, with the flag `declaration_doubtful`: it explains nothing away
    doubtful, several         none is joined, `declaration_doubtful` says why
    none                      `declaration_missing`

All flags ask for a review: a missing or doubtful declaration never lowers a risk. A scan without a sure one is held
against the messages that come later, and assessed again when one fits; what was found before stays found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from scanner_io import recording
from scanner_io.config import Cargo
from scanner_io.errors import DataError
from scanner_io.formats.iso6346 import tidy
from scanner_io.model import CargoReceived, Declaration, DeclarationMatch, Quality, Scan
from triage.analysis.matching import Candidate, Manifest, Match, Reading

from .declarations import DAY_NS, Declarations, Declared, Kept, Waiting

TRIM_S = 3600.0
MOST_ODD = 5
"""Problems of a message that are told with a passage; the others are counted."""
MOST_REMEMBERED = 10_000
"""Scans that wait of which is kept in memory what was read; those before are looked up in their recordings."""
MISSING, DOUBTFUL = "declaration_missing", "declaration_doubtful"


class Papers:
    """The store of declarations as a lane uses it: opened by the first that needs it, used by one thread."""

    def __init__(self, path: Path, policy: Cargo) -> None:
        self.policy = policy
        self._path = path
        self._store: Declarations | None = None
        self._trimmed_s = float("-inf")
        self._known: list[Declared] = []
        self._read: dict[int, list[Declared]] = {}
        self._manifest = Manifest(())
        self._arranged: tuple[int, int] = (-1, -1)
        self._readings: dict[str, list[Reading]] = {}
        """What was read of scans that wait: to hold them against a message needs no look into their recordings."""

    @property
    def store(self) -> Declarations:
        """The store. Raises StorageError if it cannot be opened."""
        if self._store is None:
            self._store = Declarations(self._path, self.policy)
        return self._store

    def close(self) -> None:
        """Close the store, if it was opened."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def take(self, received: CargoReceived) -> tuple[Kept, ...]:
        """Commit a delivery; now and then, let go what the policy does not keep. Raises StorageError."""
        kept = self.store.take(received)
        if time.monotonic() - self._trimmed_s > TRIM_S:
            self._trimmed_s = time.monotonic()
            self.store.trim()
        return kept

    # ------------------------------------------------------------------------------------------------- a passage

    def joined(self, scan: Scan, *, late: bool = False) -> Scan:
        """Return a scan with its declaration, or with the flag that says why it has none. Raises StorageError.

        late : it has been judged without one before
        """
        if scan.declaration is not None or scan.declaration_match is not None or not self.policy.match:
            return scan  # it came with its vehicle, or a replayed scan says how it was then
        told, declaration = self._found(readings_of(scan), scan.start_utc_ns, late=late)
        flags = [q for q in scan.quality if q.code not in (DOUBTFUL, *([MISSING] if declaration is not None else []))]
        flags += [f for f in _flags(told) if f.code not in {q.code for q in flags}]
        return msgspec.structs.replace(
            scan, declaration=declaration, declaration_match=told, quality=tuple(flags)
        )  # fmt: skip

    def note_waiting(self, scan: Scan, path: Path) -> None:
        """Note a scan that has no sure declaration, to be held against what comes later. Raises StorageError."""
        match = scan.declaration_match
        if match is None or match.state == "matched" or not match.read:
            return  # nothing was read of it: no message will ever fit
        self._remember(scan)
        self.store.wait(
            Waiting(
                scan_id=scan.scan_id, lane=scan.lane, path=str(path), start_utc_ns=scan.start_utc_ns,
                seen_seq=self._arranged[0],
            )
        )  # fmt: skip

    def _remember(self, scan: Scan) -> None:
        self._readings[scan.scan_id] = readings_of(scan)
        while len(self._readings) > MOST_REMEMBERED:
            self._readings.pop(next(iter(self._readings)))

    def found_late(
        self, lane: str, told: Container[str] = (), turned: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Waiting, Scan]]:
        """Yield scans of a lane whose declaration has come since they were judged, with it. Raises StorageError.

        A scan is not looked at again until another message comes. Whoever has stored its new assessment says so with
        `store.waits_no_more`; until then it is found again after a restart.

        told : scans that were yielded before and are not to be again; turned : is called for each that is looked at
        """
        head, vain = self.store.head(), []
        for one in self.store.waiting(lane):
            turned()
            if one.scan_id in told:
                continue
            readings = self._readings.get(one.scan_id)
            if readings is not None and self._found(readings, one.start_utc_ns, late=True)[1] is None:
                vain.append(one.scan_id)
                continue
            try:
                scan = recording.read(Path(one.path)).scan
            except DataError:  # gone or damaged, which is told elsewhere
                self.store.waits_no_more(one.scan_id)
                continue
            self._remember(scan)
            bare = msgspec.structs.replace(scan, declaration=None, declaration_match=None)
            after = self.joined(bare, late=True)
            if after.declaration is None:
                vain.append(one.scan_id)
            else:
                yield one, after
        self.store.looked(vain, head)

    def _found(
        self, readings: Sequence[Reading], start_utc_ns: int, *, late: bool
    ) -> tuple[DeclarationMatch, Declaration | None]:
        """Return what the messages say of a vehicle of which this was read."""
        self._arrange(start_utc_ns)
        return self._told(self._manifest.match_all(readings, self.policy.wrong_join), late=late)

    def _arrange(self, start_utc_ns: int) -> None:
        """Make ready what may be of a vehicle at this time; made again when messages came, or the day is another."""
        first_ns = start_utc_ns - int(self.policy.early_days * DAY_NS)
        wanted = (self.store.head(), first_ns // DAY_NS)
        if wanted == self._arranged:
            return
        self._known = self.store.known(wanted[1] * DAY_NS, 1 << 62, self._read)
        self._manifest = Manifest([Candidate(number=d.number, plate=d.plate, bookings=d.bookings) for d in self._known])
        self._arranged = wanted

    def _told(self, found: Sequence[Match], *, late: bool) -> tuple[DeclarationMatch, Declaration | None]:
        """Return what all containers of a vehicle say together: it has its papers if all of them have."""
        best = [self._known[m.candidates[0]] for m in found if m.candidates]
        unsure = next((m for m in found if m.state in ("several", "doubtful")), None)
        state = unsure.state if unsure is not None else "matched" if best else "none"
        weakest = unsure or min((m for m in found if m.state == state), key=lambda m: m.confidence)
        problems = [*_messages_odd(best), *(self._odd(m) for m in found if best and m.state != "matched")]
        first = self._known[weakest.candidates[0]] if weakest.candidates else None
        read = tuple(dict.fromkeys(text for m in found for text in m.read))
        told = DeclarationMatch(
            state=state, by=weakest.by, read=read, confidence=weakest.confidence if weakest.candidates else 0.0,
            declared=" ".join(dict.fromkeys(d.number or d.plate for d in best)),
            runner_up="" if weakest.runner_up is None else self._name(weakest.runner_up),
            runner_up_confidence=weakest.runner_up_confidence if weakest.runner_up is not None else 0.0,
            sender=first.sender if first else "", document=first.document if first else "",
            reference=first.reference if first else "", version=first.version if first else 0,
            received_utc_ns=first.received_utc_ns if first else None, late=late and state == "matched",
            problems=tuple(problems),
        )  # fmt: skip
        return told, merged([d.declaration for d in best]) if state == "matched" else None

    def _name(self, index: int) -> str:
        return self._known[index].number or f"plate {self._known[index].plate}"

    def _odd(self, match: Match) -> str:
        """Return in words why readings of one container got no declaration."""
        texts = ", ".join(match.read)
        if match.state == "none":
            return f"read was {texts} too, which nothing declares"
        if match.state == "several":
            who = ", ".join(f"{self._known[i].sender} {self._known[i].document}" for i in match.candidates[:4])
            return f"{len(match.candidates)} manifests declare container {self._name(match.candidates[0])}: {who}"
        second = "that none is its own" if match.runner_up is None else self._name(match.runner_up)
        return (
            f"read was {texts}; {self._name(match.candidates[0])} fits best with {100 * match.confidence:.1f} %, then "
            f"{second} with {100 * match.runner_up_confidence:.2g} %"
        )


def readings_of(scan: Scan) -> list[Reading]:
    """Return what cameras, the scanner's own system and the gate read of a vehicle."""
    found = [
        Reading(kind=e.kind, text=e.text, confidence=e.confidence)
        for e in scan.lane_events if e.kind in ("container", "plate", "booking")
    ]  # fmt: skip
    if scan.sidecar is not None:
        found += [Reading(kind="container", text=n.text, confidence=n.confidence) for n in scan.sidecar.containers]
        found += [Reading(kind="plate", text=n.text, confidence=n.confidence) for n in scan.sidecar.plates]
    return [r for r in found if tidy(r.text)]


def merged(told: Sequence[Declaration]) -> Declaration:
    """Return what a vehicle with several containers is declared to carry; a sum of which a part is not told is none."""
    if len(told) == 1:
        return told[0]
    empty = [d.declared_empty for d in told]
    trusted = [d.authorised_trader for d in told]
    return Declaration(
        container_numbers=_all(d.container_numbers for d in told), hs_codes=_all(d.hs_codes for d in told),
        goods="; ".join(dict.fromkeys(d.goods for d in told if d.goods)),
        declared_empty=False if False in empty else None if None in empty else True,
        gross_weight_kg=_sum(d.gross_weight_kg for d in told),
        seals=_all(d.seals for d in told), consignor="; ".join(_all((d.consignor,) for d in told)),
        consignee="; ".join(_all((d.consignee,) for d in told)),
        authorised_trader=False if False in trusted else None if None in trusted else True,
        origin=" ".join(_all((d.origin,) for d in told)), route=_all(d.route for d in told),
        prior_scans=None if any(d.prior_scans is None for d in told) else sum(d.prior_scans or 0 for d in told),
        simulated=any(d.simulated for d in told),
        tare_weight_kg=_sum(d.tare_weight_kg for d in told),
    )  # fmt: skip


def _sum(parts: Iterable[float | None]) -> float | None:
    told = list(parts)
    return None if None in told else sum(p for p in told if p is not None)


def _all(parts: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for part in parts for text in part if text))


def _messages_odd(known: Iterable[Declared]) -> list[str]:
    found = [f"{d.document}: {p}" for d in known for p in d.problems]
    found = list(dict.fromkeys(found))
    more = len(found) - MOST_ODD
    return [*found[:MOST_ODD], *([f"and {more} more"] if more > 0 else [])]


def _flags(told: DeclarationMatch) -> list[Quality]:
    """Return the flag of a passage whose declaration is missing or doubtful; none where all is well."""
    if told.state == "none":
        seen = f"nothing that was declared fits what was read ({', '.join(told.read)})" if told.read else (
            "no container number, plate or booking was read"
        )  # fmt: skip
        return [Quality(code=MISSING, reason=f"no declaration: {seen}")]
    if told.state != "matched":
        return [Quality(code=DOUBTFUL, reason=f"no declaration was joined: {'; '.join(told.problems)}")]
    if told.problems:
        return [Quality(code=DOUBTFUL, reason=f"the declaration is doubtful: {'; '.join(told.problems)}")]
    return []
