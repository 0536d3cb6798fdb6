"""Endurance of the portal's way in: simulated passages with faults, counted against the truth.

What plays is the simulated portal; what is tested is the way a lane goes: bytes -> the portal driver's decoder ->
health -> assembly -> scan, in compressed time and without sockets, with the decoder's `idle` and `lost` called when the
link driver would call them.

Attribution does not rest on times, which faults may set or hold back: every piece of bytes says which vehicle's intact
lines end in it, so it is known exactly which vehicle's lines went into which record.

What must never happen, and what cannot be avoided, per vehicle (an occupancy of the truth):

    missed      intact lines of it arrived, but no scan holds a record with them; or nothing of it arrived and nothing
                was told (link lost, silence, restart, or the portal's count that ran ahead)
    merged      a record holds lines of two vehicles although a line between them said that the portal was vacant
    doubled     it has two records, and a later one does not say that its start was not seen
    lines_lost  a record has not every intact line, or not every alarm, that arrived while it was open
    repeated    two records with one key (boot epoch, number)
    phantom     a record without an intact line of any vehicle

    in_parts    it was cut (link, silence, power) and what came afterwards is a record of its own that says so
    parted      its GX was lost and the next vehicle came before the time-out, and the decoder told the two apart
    inseparable the same, but the decoder could not: one record of two; `inseparable_told` of them are flagged (the
                portal's count ran ahead, or lines and time disagree)
    unseen      nothing of it arrived, and that was told; `end_only` of them have a record all the same, for GX came
    incomplete  more than one gamma line, or every alarm, of it never arrived intact, and neither its records nor its
                scans say so: what is left of it could read as clear. By kind of fault
    unflagged   a fault was played at it and neither its records nor its scans say so, by kind of fault: right for
                those that change no line (split, one_segment, slow, short stalls), that strike between passages, or
                that cost one line, which cannot be noticed without a sequence number
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from scanner_io import driver as drivers
from scanner_io.config import fill
from scanner_io.driver import SteadyClock
from scanner_io.errors import ConfigError
from scanner_io.model import NANOSECONDS, Event, Health, Occupancy, PortalRecord
from triage.analysis.portal_health import PortalHealth
from triage.service.assembly import Assembled, Assembly, LaneSpec

START_UTC_NS = 1_767_571_200 * NANOSECONDS
IDLE_AT_S = (4.0, 12.0)
"""Silences at which the decoder has something to say; between them its `idle` says nothing."""
VACANT = (b"GB,", b"NB,", b"GH,", b"GL,", b"NH,")
SHORT = 5
"""Judgement flags a record of fewer gamma lines by itself (`portal_short`)."""
SILENT_LINK_S = 30.0
"""A silence that the link driver takes for a lost link."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted; the words are those of the module. cpu_s, rss_mb : of this process, growth since a tenth."""

    passes: int
    seed: int
    fault_share: float
    faults_played: dict[str, int]
    scans: int
    missed: int
    merged: int
    doubled: int
    lines_lost: int
    repeated: int
    phantom: int
    in_parts: int
    parted: int
    inseparable: int
    inseparable_told: int
    unseen: int
    end_only: int
    incomplete: dict[str, int]
    unflagged: dict[str, int]
    health_told: dict[str, int]
    examples: tuple[str, ...]
    simulated: bool
    simulated_days: float
    lines: int
    cpu_s: float
    rss_mb: float
    rss_growth_mb: float


class _Open:
    """The record that the decoder has open: which vehicles' lines went into it, and how many of each.

    lines : vehicle -> gamma lines, neutron lines, alarms
    """

    def __init__(self) -> None:
        self.lines: dict[int, list[int]] = {}
        self.vacancy_between = False
        self.split_by_vacancy = False

    def take(self, piece: Any) -> None:
        """Count the intact lines of a piece in."""
        if not piece.occupied:
            return
        if piece.passage not in self.lines:
            self.split_by_vacancy |= bool(self.lines) and self.vacancy_between
            self.lines[piece.passage] = [0, 0, 0]
        for k, n in enumerate((piece.gamma, piece.neutron, piece.alarms)):
            self.lines[piece.passage][k] += n

    def totals(self, count: int | None = None) -> tuple[int, ...]:
        """Return gamma lines, neutron lines and alarms of the first `count` vehicles."""
        return tuple(sum(n) for n in zip((0, 0, 0), *list(self.lines.values())[:count], strict=True))

    def part(self, count: int) -> _Open:
        """Keep the first `count` vehicles; return the others."""
        other = _Open()
        other.lines = dict(list(self.lines.items())[count:])
        self.lines = dict(list(self.lines.items())[:count])
        return other


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it concerns one vehicle."""

    flagged: bool
    later_part: bool


class _Way:
    """The lane's way from bytes to scans, with the bookkeeping around it."""

    def __init__(self, assembled: Callable[[Assembled], None] | None) -> None:
        rpm = drivers.load("rpm_rapiscan")
        self.decoder = rpm.Decoder(rpm.Config(address="memory:simulated"))
        self.health = PortalHealth()
        self.assembly = Assembly(LaneSpec(name="simulated", expected=("portal",)))
        self.parts: dict[int, list[_Part]] = {}
        self.counts: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.notices = 0
        self.count_notices = 0
        self.examples: list[str] = []
        self._assembled = assembled
        self._piece: Any = None
        self._open: _Open | None = None
        self._parted: _Open | None = None
        self._key = (-1, -1)
        self._up = True
        self._silent_lost = False
        self._last_s = 0.0
        self._step_ns = self._now_ns = 0
        self._occupied = False
        self._clock = SteadyClock(lambda: START_UTC_NS + self._step_ns + self._now_ns, lambda: self._now_ns)

    def utc_ns(self, t_s: float) -> int:
        """Return the driver's stamp at `t_s`, after telling what it found of the receiver's clock."""
        self._now_ns = int(t_s * NANOSECONDS)
        utc_ns, told = self._clock.stamp(self._occupied)
        for event in told:
            self._tell([*self.health.take(event), event])
        return utc_ns

    def days(self) -> float:
        """Return how much time has been played."""
        return self._last_s / 86_400

    @property
    def open_passes(self) -> frozenset[int]:
        """Vehicles that the open record holds lines of."""
        return frozenset(self._open.lines) if self._open else frozenset()

    def step_clock(self, t_s: float, step_s: float) -> None:
        """The receiver's clock is set; the driver notices it by its two clocks."""
        self.wait(t_s)
        self._step_ns += int(step_s * NANOSECONDS)

    def link(self, t_s: float, *, up: bool) -> None:
        """The link goes or comes back."""
        if not up:
            self.wait(t_s)
            self._lose(t_s)
        else:
            self._tell(self.health.link(self.utc_ns(t_s), up=True))
        self._up = up
        self._last_s = t_s

    def wait(self, t_s: float) -> None:
        """Let silence pass until `t_s`, as the link driver tells it to the decoder."""
        silent_s = t_s - self._last_s
        if not self._up:
            return
        for limit_s in IDLE_AT_S:
            if silent_s > limit_s:
                at_s = self._last_s + limit_s
                self._events(self.decoder.idle(self.utc_ns(at_s), limit_s), None, at_s)
        if silent_s > SILENT_LINK_S and not self._silent_lost:
            self._silent_lost = True
            self._lose(self._last_s + SILENT_LINK_S)
            self._tell(self.health.link(self.utc_ns(self._last_s + SILENT_LINK_S), up=True))

    def feed(self, piece: Any) -> None:
        """Bytes arrive."""
        self.wait(piece.t_s)
        self._last_s, self._silent_lost = piece.t_s, False
        self._piece = piece
        self._events(self.decoder.feed(piece.data, self.utc_ns(piece.t_s)), piece, piece.t_s)
        self._piece = None
        if self._open is not None and piece.data.startswith(VACANT) and piece.data.endswith(b"\n"):
            self._open.vacancy_between = True
        self._hand_out(self.assembly.tick(piece.t_s))

    def end(self) -> None:
        """Nothing more comes."""
        self._events(self.decoder.lost(self.utc_ns(self._last_s)), None, self._last_s)
        self._hand_out(self.assembly.flush())

    def _lose(self, t_s: float) -> None:
        self._events(self.decoder.lost(self.utc_ns(t_s)), None, t_s)
        self._tell(self.health.link(self.utc_ns(t_s), up=False))
        self._hand_out(self.assembly.lost(0, t_s))

    def _events(self, events: list[Event], piece: Any, now_s: float) -> None:
        # Lines belong to the record that the last "entered" of their bytes opens, or to the one that was open before.
        last = max((i for i, e in enumerate(events) if isinstance(e, Occupancy) and e.phase == "entered"), default=-1)
        if piece is not None and last < 0 and self._open is not None:
            self._open.take(piece)
        elif piece is not None and last < 0 and piece.occupied:
            self.note("missed", f"lines of vehicle {piece.passage} at {piece.t_s:.2f} s went into no record")
        for i, event in enumerate(map(self._clock.mark, events)):
            self._occupied = event.phase == "entered" if isinstance(event, Occupancy) else self._occupied
            self._tell(self.health.take(event))
            if isinstance(event, Health):
                self._tell([event])
                continue
            if isinstance(event, Occupancy):
                if event.phase == "entered":
                    self._open, self._parted = self._parted or _Open(), None
                    if i == last and piece is not None:
                        self._open.take(piece)
                elif event.record is not None:
                    flags = self.health.quality(event.record.start_utc_ns)
                    event = msgspec.structs.replace(event, quality=flags)
                    self._feed_assembly(event, now_s)
                    continue
            self._hand_out(self.assembly.feed(0, event, now_s))

    def _feed_assembly(self, event: Occupancy, now_s: float) -> None:
        """Give a finished occupancy to assembly: exactly one scan must come of it, at once."""
        scans = self.assembly.feed(0, event, now_s)
        mine = [s for s in scans if s.scan.portal is event.record]
        if len(mine) != 1 or len(scans) != 1:
            self.note("doubled" if len(mine) > 1 else "missed", f"a record became {len(mine)} scans")
        self._hand_out(scans)
        assert event.record is not None
        self._close(event.record, bool(scans and scans[0].scan.quality))

    def _hand_out(self, scans: list[Assembled]) -> None:
        for one in scans:
            self.counts["scans"] += 1
            if one.scan.portal is None:
                self.note("phantom", f"a scan without a record: {[str(q) for q in one.scan.quality]}")
            if self._assembled is not None:
                self._assembled(one)

    def _close(self, record: PortalRecord, scan_flagged: bool) -> None:
        """Compare a record with what arrived while it was open, and enter it for each vehicle in it."""
        opened, self._open = self._open, None
        if opened is None or not opened.lines:
            at_end = self._piece is not None and self._piece.passage >= 0 and record.number is not None
            if at_end and not record.gamma.size and not record.neutron.size and "start_not_seen" in record.faults:
                self.counts["end_only"] += 1  # all of a vehicle's lines were lost but GX: recorded, and never clear
                return
            self.note("phantom", f"record {record.boot_epoch}/{record.number}, {record.gamma.shape[0]} gamma lines")
            return
        got = record.gamma.shape[0], record.neutron.shape[0], int(record.gamma_alarm.sum() + record.neutron_alarm.sum())
        if got != opened.totals():
            # The decoder may part what it took for one passage: then the first vehicles' lines are in this record.
            first = next((k for k in range(1, len(opened.lines)) if got == opened.totals(k)), None)
            if first is None:
                words = f"gamma, neutron, alarms {got}, arrived {opened.totals()}"
                self.note("lines_lost", f"vehicles {list(opened.lines)}, ended {record.end_reason}: {words}")
            else:
                self._parted = opened.part(first)
                self.counts["parted"] += 1
        if record.number is not None:
            if (record.boot_epoch, record.number) <= self._key:
                self.note("repeated", f"key {record.boot_epoch}/{record.number} after {self._key}")
            self._key = (record.boot_epoch, record.number)
        if len(opened.lines) > 1:
            if opened.split_by_vacancy:
                self.note("merged", f"vehicles {list(opened.lines)} in one record, with vacancy between")
            else:
                self.counts["inseparable"] += len(opened.lines) - 1
                told = bool(record.truncated or record.faults or scan_flagged)
                self.counts["inseparable_told"] += told
                self.example(f"inseparable: vehicles {list(opened.lines)}, faults {record.faults}, told {told}")
        part = _Part(
            flagged=record.truncated or bool(record.faults) or scan_flagged or record.gamma.shape[0] < SHORT,
            later_part="start_not_seen" in record.faults or "too_long" in record.faults,
        )
        for index in opened.lines:
            self.parts.setdefault(index, []).append(part)

    def _tell(self, changes: list[Health]) -> None:
        for change in changes:
            self.told[f"{change.component} {'off' if change.state == 'ok' else 'on'}"] += 1
            if change.component in ("link", "silence", "restart"):
                self.notices += 1
            elif change.component == "number" and change.state != "ok":
                self.count_notices += 1

    def note(self, what: str, example: str) -> None:
        """Count something that must not happen and keep the first examples."""
        self.counts[what] += 1
        self.example(f"{what}: {example}")

    def example(self, text: str) -> None:
        """Keep the first examples."""
        if len(self.examples) < 20:
            self.examples.append(text)


def count_occupancies(
    passes: int,
    seed: int = 1,
    *,
    fault_share: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
    assembled: Callable[[Assembled], None] | None = None,
    **settings: Any,
) -> Counted:
    """Play `passes` simulated vehicles with faults through decoder, health and assembly; count against the truth.

    progress : called with (done, passes) now and then
    assembled : called with every scan
    settings : further fields of the simulated portal's `Traffic`

    Raises ConfigError for settings that the simulator does not know.
    """
    module = drivers.load("simulated")
    problems: list[str] = []
    table = {"seed": seed, "passes": passes, "fault_share": fault_share, "gap_s": 20.0, **settings}
    traffic = fill(module.Traffic, table, "traffic", problems)
    if problems:
        raise ConfigError(problems)
    began_s = time.process_time()
    way = _Way(assembled)
    watch = _Truths(way)
    lines, rss_mb, first_rss_mb = 0, 0.0, 0.0
    for played in module.play(traffic):
        if isinstance(played, module.Piece):
            lines += played.data.count(b"\n")
            way.feed(played)
        elif isinstance(played, module.Link):
            way.link(played.t_s, up=played.up)
        elif isinstance(played, module.ClockStep):
            way.step_clock(played.t_s, played.step_s)
        else:
            watch.take(played)
            if played.index % max(1, passes // 100) == 0:
                rss_mb = _rss_mb()
                if played.index <= passes // 10:
                    first_rss_mb = rss_mb
                if progress is not None:
                    progress(played.index + 1, passes)
    way.end()
    watch.finish()
    return Counted(
        passes=passes, seed=seed, fault_share=fault_share, faults_played=dict(sorted(watch.played.items())),
        scans=way.counts["scans"], missed=way.counts["missed"], merged=way.counts["merged"],
        doubled=way.counts["doubled"], lines_lost=way.counts["lines_lost"], repeated=way.counts["repeated"],
        phantom=way.counts["phantom"], in_parts=watch.in_parts,
        parted=way.counts["parted"], inseparable=way.counts["inseparable"],
        inseparable_told=way.counts["inseparable_told"], unseen=watch.unseen, end_only=way.counts["end_only"],
        incomplete=dict(sorted(watch.incomplete.items())),
        unflagged=dict(sorted(watch.unflagged.items())), health_told=dict(sorted(way.told.items())),
        examples=tuple(way.examples), simulated=True, simulated_days=round(way.days(), 2), lines=lines,
        cpu_s=round(time.process_time() - began_s, 1), rss_mb=round(_rss_mb(), 1),
        rss_growth_mb=round(_rss_mb() - first_rss_mb, 1),
    )  # fmt: skip


class _Truths:
    """Vehicles whose truth is known and whose records may still be open."""

    def __init__(self, way: _Way) -> None:
        self._way = way
        self._waiting: list[Any] = []
        self._untold: list[Any] = []
        self._notices = 0
        self._count_notices = 0
        self.played: Counter[str] = Counter()
        self.unflagged: Counter[str] = Counter()
        self.incomplete: Counter[str] = Counter()
        self.in_parts = 0
        self.unseen = 0

    def take(self, truth: Any) -> None:
        """Take the truth of the vehicle that has just passed; settle what can be settled."""
        self.played.update(f.kind for f in truth.faults)
        if truth.first_s is None:
            self._untold.append(truth)
        else:
            self._waiting.append(truth)
        self._settle()

    def finish(self) -> None:
        """Settle all: whoever is still untold was missed."""
        self._settle()
        for truth in self._untold:
            self._way.note("missed", f"vehicle {truth.index}: nothing of it arrived and nothing was told")
        for truth in self._waiting:
            self._way.note("missed", f"vehicle {truth.index}: its record was never closed")

    def _settle(self) -> None:
        way = self._way
        if self._untold and (way.notices > self._notices or way.count_notices > self._count_notices):
            self.unseen += len(self._untold)
            self._untold.clear()
        if not self._untold:
            self._notices, self._count_notices = way.notices, way.count_notices
        open_passes = way.open_passes
        still = [t for t in self._waiting if t.index in open_passes]
        for truth in self._waiting:
            if truth.index not in open_passes:
                self._judge(truth, way.parts.pop(truth.index, []))
        self._waiting = still

    def _judge(self, truth: Any, parts: list[_Part]) -> None:
        way = self._way
        if not parts:
            way.note("missed", f"vehicle {truth.index}: {truth.gamma} gamma lines arrived, no record")
            return
        if len(parts) > 1:
            self.in_parts += 1
            if not all(p.later_part for p in parts[1:]):
                way.note("doubled", f"vehicle {truth.index}: {len(parts)} records, {[f.kind for f in truth.faults]}")
        if any(p.flagged for p in parts):
            return
        kinds = ", ".join(f.kind for f in truth.faults) or "of an earlier vehicle"
        if truth.faults:
            self.unflagged[kinds if len(truth.faults) == 1 else "two faults"] += 1
        if truth.gamma_sent - truth.gamma > 1 or (truth.alarms_sent and not truth.alarms):
            self.incomplete[kinds] += 1
            way.example(
                f"incomplete: vehicle {truth.index} ({kinds}): {truth.gamma} of {truth.gamma_sent} gamma lines, "
                f"{truth.neutron} of {truth.neutron_sent} neutron lines, {truth.alarms} of {truth.alarms_sent} alarms"
            )


def judged(counted: Counted) -> Iterator[str]:
    """Yield in words what must not have happened and did."""
    for name in ("missed", "merged", "doubled", "lines_lost", "repeated", "phantom"):
        if getattr(counted, name):
            yield f"{name}: {getattr(counted, name)}"


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
