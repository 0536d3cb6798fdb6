"""A portal that stands beside a lane for as long as one likes: background, vehicles, weather, sources and faults.

One iterator gives everything in order of time: bytes as they leave the portal (`Piece`), what becomes of the link
(`Link`) and of the receiver's clock (`ClockStep`), and after every vehicle the truth about it (`Passing`). Who takes it
decides what becomes of time: a server paces it, a file stamps it, a study runs through it.

The portal knows what a portal knows: its running means (GB of 20 s, NB1 of 120 s, both every 5 s while vacant), its
alarm rule, its counter and its set-up. Everything here is simulated; no recorded neutron alarm, fault or tamper line
exists, so those are synthetic in form as well.

Source of cadences, order and field forms: recorded daily files of one portal, 2016; shielding of 700 vehicles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.formats.portal_daily import format_line

from .portal import (
    BACKGROUND_S,
    BUFFERED,
    GAMMA_CPS,
    HOLD_IN,
    INTERVAL_S,
    MPH,
    NEUTRON_ALARM_COUNTS,
    NEUTRON_CPS,
    WINDOW,
    Source,
    setup_lines,
    source_profile,
)
from .portal_faults import EDITS, KINDS, Fault, FaultKind, Piece, draw, edit, spoilt, together

Floats64 = npt.NDArray[np.float64]
Ints64 = npt.NDArray[np.int64]

NEUTRON_BACKGROUND_S = 120
TICK_S = 5.0
FIRST_TICK_S = 4.85
"""From GX to the first background line."""
WINDOW_SHARES = (0.279, 0.368, 0.182, 0.171)
"""Background in the four energy windows of AB1 and AR."""
SOURCE_SHARES = (0.44, 0.46, 0.06, 0.04)
"""The same for a source's own counts: it is seen through the load and so in the lower windows."""
GAMMA_HIGH_FACTOR, GAMMA_LOW_FACTOR, NEUTRON_HIGH_FACTOR = 6.0, 0.1, 12.0
GAMMA_LOW_FAULT = 68.0
CROSS_TALK_S = 12.0
"""How long a patient in the next lane stays before the portal."""

_PASS, _COUNTS, _FAULTS, _WEATHER = 21, 22, 23, 24

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Traffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One portal and what passes it.

    seed : the same seed and settings give the same bytes
    passes : vehicles that come; None = endless
    gap_s : mean vacancy between two vehicles; the shortest is `shortest_gap_s`
    setup : the set-up lines are sent at the start
    nsigma : the portal's alarm setting
    extensions : also send AB1, AR, AS, AA and NB1
    gamma_cps, neutron_cps : background of the four detectors, counts/s
    source_share, norm_share, neutron_share : vehicles with a gamma source, a naturally radioactive load, a neutron
        source; strengths are drawn: `source_cps`, `norm_cps`, `neutron_cps` give their range, counts/s at the best
        moment over all detectors
    patient_share : passages during which a patient stands in the next lane, seen by one pillar
    weather : scale of the background's changes: 1 = some percent over a day, showers that wash radon down; 0 = none
    fault_share : vehicles with a fault; a third of them has a second one
    faults : kinds that are drawn
    plan : faults that are played whatever is drawn
    start_number : the portal's counter before the first vehicle
    """

    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 1
    passes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    gap_s: Annotated[float, msgspec.Meta(ge=0.2, le=86_400)] = 40.0
    shortest_gap_s: Annotated[float, msgspec.Meta(ge=0.2, le=3600)] = 0.6
    setup: bool = True
    nsigma: Annotated[float, msgspec.Meta(gt=0, le=99)] = 5.0
    extensions: bool = False
    gamma_cps: tuple[float, float, float, float] = GAMMA_CPS
    neutron_cps: tuple[float, float, float, float] = NEUTRON_CPS
    source_share: Share = 0.02
    norm_share: Share = 0.05
    neutron_share: Share = 0.01
    source_cps: tuple[float, float] = (250.0, 8000.0)
    norm_cps: tuple[float, float] = (300.0, 3000.0)
    neutron_cps_range: tuple[float, float] = (15.0, 300.0)
    patient_share: Share = 0.01
    weather: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    fault_share: Share = 0.0
    faults: tuple[FaultKind, ...] = KINDS
    plan: tuple[Fault, ...] = ()
    start_number: Annotated[int, msgspec.Meta(ge=0, le=999_998)] = 0

    def __post_init__(self) -> None:
        """Check what a type cannot say. Raises ValueError."""
        for name in ("source_cps", "norm_cps", "neutron_cps_range"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1e6:
                raise ValueError(f"{name}: {low:g} to {high:g}, expected 0 < low <= high <= 1000000 counts/s")
        if not all(0 <= r <= 1e5 for r in (*self.gamma_cps, *self.neutron_cps)):
            raise ValueError("gamma_cps, neutron_cps: expected 0 to 100000 counts/s")
        if not self.faults and self.fault_share:
            raise ValueError("faults: none to draw from, expected at least one with fault_share above 0")


class Link(NamedTuple):
    """The connection goes or comes back; what is sent while it is gone reaches nobody."""

    t_s: float
    up: bool


class ClockStep(NamedTuple):
    """The receiver's clock is set by so much."""

    t_s: float
    step_s: float


class Passing(msgspec.Struct, frozen=True, kw_only=True):
    """The truth about one vehicle. Times in seconds from the start, as the bytes arrive.

    index : from 0; number : the portal's own count, 0 if it was off; boot : how often it had begun anew by then
    enter_s, leave_s : the vehicle is in the portal; end_s : its GX
    first_s, last_s : first and last intact line that reached the reader, None if none did
    gamma, neutron, alarms : intact GS and GA, NS and NA, GA and NA lines that reached the reader
    gamma_sent, neutron_sent, alarms_sent : the same as the portal sent them
    ended : its GX reached the reader intact
    parted : the portal began the occupancy anew after a power cycle
    sources : what was on the vehicle
    patient : somebody radioactive stood in the next lane
    shade : the share of background that the vehicle took at its deepest
    faults : what was played at it; lasting ones of earlier vehicles are not named again
    """

    index: int
    number: int
    boot: int
    enter_s: float
    leave_s: float
    end_s: float
    speed_mm_s: float
    length_mm: float
    shade: float
    first_s: float | None = None
    last_s: float | None = None
    gamma: int = 0
    neutron: int = 0
    alarms: int = 0
    gamma_sent: int = 0
    neutron_sent: int = 0
    alarms_sent: int = 0
    ended: bool = False
    parted: bool = False
    sources: tuple[Source, ...] = ()
    patient: bool = False
    faults: tuple[Fault, ...] = ()
    simulated: bool = True


Played = Piece | Link | ClockStep | Passing


class _Vehicle(NamedTuple):
    """One vehicle as drawn: knots of its shadow along it, mm and share; sources in the same axis."""

    length_mm: float
    speed_mm_s: float
    gap_s: float
    knots_mm: Floats64
    shade: Floats64
    sources: tuple[Source, ...]
    patient: tuple[float, float, int] | None  # when from entry, counts/s, pillar


def play(config: Traffic) -> Iterator[Played]:
    """Yield what leaves the portal, in order of time. Endless where `passes` is None."""
    return _Portal(config).run()


def faults_of(config: Traffic, index: int) -> tuple[Fault, ...]:
    """Return the faults of vehicle `index`: those planned, then those drawn."""
    planned = tuple(f for f in config.plan if f.passage == index)
    rng = np.random.default_rng([config.seed, index + 1, _FAULTS])
    if not config.fault_share or rng.random() >= config.fault_share:
        return planned
    count = 2 if rng.random() < 1 / 3 else 1
    kinds = [config.faults[int(rng.integers(0, len(config.faults)))] for _ in range(count)]
    return planned + tuple(draw(kind, index, rng) for kind in kinds)


def vehicle_of(config: Traffic, index: int) -> _Vehicle:
    """Return vehicle `index`, the same whatever came before it."""
    rng = np.random.default_rng([config.seed, index + 1, _PASS])
    length = float(rng.uniform(9_000, 19_000))
    # A cab, a gap behind it, and a load in lumps, as smooth as the one recorded vehicle: its shadow is 13 % deep behind
    # the cab, 3 % less in the gap and 17 to 20 % along the trailer. The field of view rounds all of it.
    knots = np.arange(0.0, length + 1, 600.0)
    dense = np.repeat(rng.uniform(0.75, 1.0, len(knots) // 4 + 1), 4)[: len(knots)]
    dense[:8] *= 0.8
    dense[:2] *= 0.5
    dense[6:8] *= rng.uniform(0.7, 0.95)
    padded = np.concatenate([np.zeros(6), dense, np.zeros(6)])
    kernel = np.exp(-np.abs(np.arange(-2, 3)) * 0.6 / 0.9)
    shade = np.convolve(padded, kernel / kernel.sum(), mode="same")
    depth = float(np.clip(rng.normal(0.395, 0.074), 0.20, 0.57))
    gap = config.shortest_gap_s + float(rng.exponential(max(0.0, config.gap_s - config.shortest_gap_s)))
    return _Vehicle(
        length_mm=length,
        speed_mm_s=float(rng.uniform(1200, 2500)),
        gap_s=gap,
        knots_mm=np.arange(-6, len(knots) + 6, dtype=np.float64) * 600.0,
        shade=shade / shade.max() * depth,
        sources=_sources(config, rng, length),
        patient=_patient(config, rng),
    )


def _sources(config: Traffic, rng: np.random.Generator, length: float) -> tuple[Source, ...]:
    def strength(bounds: tuple[float, float]) -> float:
        return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))

    # All is drawn every time, so that one share leaves the others' vehicles as they were.
    chances, x = rng.random(3), float(rng.uniform(0.25, 0.95)) * length
    near, up = rng.uniform(0.3, 0.7), rng.uniform(0.4, 0.6)
    shares = (near * (1 - up), near * up, (1 - near) * (1 - up), (1 - near) * up)
    gamma, norm, neutron = strength(config.source_cps), strength(config.norm_cps), strength(config.neutron_cps_range)
    found = []
    if chances[0] < config.source_share:
        found.append(Source(x0=x, x1=x, counts_per_s=gamma, shares=shares))
    if chances[1] < config.norm_share:
        found.append(Source(x0=0.3 * length, x1=0.97 * length, counts_per_s=norm))
    if chances[2] < config.neutron_share:
        found.append(Source(x0=x, x1=x, counts_per_s=neutron, neutron=True))
    return tuple(found)


def _patient(config: Traffic, rng: np.random.Generator) -> tuple[float, float, int] | None:
    chance, when = rng.random(), float(rng.uniform(-15, 15))
    rate, pillar = float(np.exp(rng.uniform(np.log(60), np.log(2500)))), int(rng.integers(0, 2))
    return (when, rate, pillar) if chance < config.patient_share else None


class _Weather:
    """What the background does by itself: a daily wave, slow drift, and showers that wash radon daughters down."""

    def __init__(self, config: Traffic) -> None:
        rng = np.random.default_rng([config.seed, 0, _WEATHER])
        self._scale = config.weather
        self._phase = rng.uniform(0, 2 * np.pi, 4)
        self._shower = (float(rng.uniform(0, 6 * 3600)), float(rng.uniform(0.04, 0.12)))
        self._rng = rng
        self._last = (-1e9, 0.0)

    def factor(self, t_s: float) -> float:
        """Return the background's factor; called with times that do not go back."""
        if not self._scale:
            return 1.0
        while t_s >= self._shower[0]:
            began, rise = self._shower
            left = self._last[1] * math.exp(-(began - self._last[0]) / 2600.0) if self._last[1] else 0.0
            self._last = (began, left + rise)
            self._shower = (began + float(self._rng.exponential(20 * 3600)), float(self._rng.uniform(0.04, 0.12)))
        slow = sum(
            a * math.sin(2 * math.pi * t_s / period + phase)
            for a, period, phase in zip((0.012, 0.006, 0.003), (86_400, 31_000, 9_700), self._phase, strict=False)
        )
        # A shower takes ten minutes to come down; what it brought decays with a half-life of half an hour.
        since = t_s - self._last[0]
        rain = self._last[1] * (1 - math.exp(-since / 600.0)) * math.exp(-since / 2600.0)
        return 1 + self._scale * (slow + rain)


class _Portal:
    """The portal's memory. One is made per play and gone through once."""

    def __init__(self, config: Traffic) -> None:
        self._config = config
        self._weather = _Weather(config)
        self._gamma_mean = np.zeros((0, 4))
        self._neutron_mean = np.zeros((0, 4))
        self._published = self._background = np.array(config.gamma_cps)
        self._number = config.start_number
        self._boot = 1
        self._now_s = 0.0
        self._until: dict[str, float] = {}
        self._hurt: dict[str, int] = {}
        self._booting = False
        self._link_up = True
        self._begun = self._hole = False
        self._waiting: list[tuple[float, str, float]] = []
        self._tampered = False
        self._settled_s = 0.0
        self._rng = np.random.default_rng([config.seed, 0, _COUNTS])

    # ---- time

    def run(self) -> Iterator[Played]:
        config = self._config
        if config.setup:
            yield from self._send([Piece(0.0, line) for line in setup_lines(config.nsigma)])
        index = 0
        self._settled_s = 0.1 - FIRST_TICK_S
        while config.passes is None or index < config.passes:
            vehicle = vehicle_of(config, index)
            # The first vehicle finds a portal that has its background.
            quiet = max(vehicle.gap_s, 30.0) if index == 0 else vehicle.gap_s
            yield from self._pass(index, vehicle, self._now_s + quiet)
            index += 1
        yield from self._vacancy(self._now_s + 30.0, None)

    def _pass(self, index: int, vehicle: _Vehicle, enter_s: float) -> Iterator[Played]:
        self._rng = np.random.default_rng([self._config.seed, index + 1, _COUNTS])
        stay_s = vehicle.length_mm / vehicle.speed_mm_s
        count = math.ceil(stay_s / INTERVAL_S) + HOLD_IN
        end_s = enter_s + count * INTERVAL_S + 0.05
        faults = faults_of(self._config, index)
        for fault in faults:
            if fault.kind not in EDITS:
                self._lay(fault, enter_s + fault.at * (end_s - enter_s))
        patient = None
        if vehicle.patient is not None:
            patient = (enter_s + vehicle.patient[0], vehicle.patient[1], vehicle.patient[2])
        yield from self._vacancy(enter_s, patient)
        said, number, off_and_on = self._occupied(index, vehicle, enter_s, end_s, patient)
        sent = together(said) if said else Piece(end_s, b"")
        for fault in faults:
            if fault.kind in EDITS:
                said = edit(said, fault, enter_s + fault.at * (end_s - enter_s), self._rng)
        reached: list[Piece] = []
        for played in self._send(said):
            if isinstance(played, Piece):
                reached.append(played)
            yield played
        heard = [p for p in reached if p.occupied]
        if off_and_on:
            self._number = number  # counted anew after the power came back in mid-passage
        yield Passing(
            index=index, number=number, boot=self._boot, enter_s=enter_s, leave_s=enter_s + stay_s, end_s=end_s,
            speed_mm_s=vehicle.speed_mm_s, length_mm=vehicle.length_mm, shade=float(vehicle.shade.max()),
            first_s=heard[0].t_s if heard else None, last_s=heard[-1].t_s if heard else None,
            gamma=sum(p.gamma for p in reached), neutron=sum(p.neutron for p in reached),
            alarms=sum(p.alarms for p in reached),
            gamma_sent=sent.gamma, neutron_sent=sent.neutron, alarms_sent=sent.alarms,
            ended=any(p.end for p in reached),
            parted=off_and_on, sources=vehicle.sources, patient=vehicle.patient is not None, faults=faults,
        )  # fmt: skip
        self._now_s = max(self._now_s, end_s)
        self._settled_s = end_s

    def _lay(self, fault: Fault, t_s: float) -> None:
        """Put a lasting fault in line; it strikes when time reaches it."""
        t_s = max(t_s, self._now_s)
        kind = "link_lost" if fault.kind == "link_cut" else fault.kind
        if fault.kind == "link_cut":
            self._waiting.append((t_s, "cut", 0.0))
        self._waiting.append((t_s, f"{kind}:{fault.detector}", fault.seconds))
        self._waiting.sort()

    # ---- sending: the link, the power and the receiver's clock

    def _send(self, said: list[Piece]) -> Iterator[Played]:
        """Let lines go, through whatever strikes on the way."""
        for piece in said:
            t_s = max(piece.t_s, self._now_s)
            cut = False
            while self._waiting and self._waiting[0][0] <= t_s:
                if self._begun and self._waiting[0][1].startswith("tamper"):
                    break  # a portal says a line to its end before it says another
                at_s, what, seconds = self._waiting.pop(0)
                if what == "cut":
                    cut = True
                    continue
                if cut and self._link_up and self._speaks(t_s):
                    # The link goes in the middle of this line.
                    line = piece.data.partition(b"\n")[0]
                    yield Piece(t_s, line[: max(1, len(line) // 2)], piece.passage)
                    at_s = t_s
                cut = False
                yield from self._strike(max(at_s, self._now_s), what, seconds)
            yield from self._recover(t_s)
            self._now_s = t_s
            yield from self._through(piece._replace(t_s=t_s), lost=not (self._link_up and self._speaks(t_s)))

    def _through(self, piece: Piece, *, lost: bool) -> Iterator[Piece]:
        """Let a piece through, or lose it; a line of which a part is lost is intact no more."""
        ends = piece.data.endswith(b"\n")
        if lost or (self._hole and piece.data.count(b"\n") > 1):
            self._hole = self._begun or not ends
            return
        yield spoilt(piece, piece.data) if self._hole else piece
        self._begun = not ends
        self._hole = self._hole and not ends

    def _speaks(self, t_s: float) -> bool:
        return t_s >= self._until.get("silence", 0.0) and t_s >= self._until.get("power_cycle", 0.0)

    def _strike(self, t_s: float, what: str, seconds: float) -> Iterator[Played]:
        kind, _, detector = what.partition(":")
        until_s = t_s + max(0.0, seconds)
        if kind == "clock_step":
            yield ClockStep(t_s, seconds)
            return
        if kind == "number_reset":
            self._number = 0
            self._boot += 1
            return
        self._until[kind] = max(self._until.get(kind, 0.0), until_s)
        if kind == "link_lost" and self._link_up:
            self._link_up = self._begun = self._hole = False  # what was begun is forgotten with the link
            yield Link(t_s, up=False)
        elif kind == "power_cycle":
            self._boot += 1
            self._number = 0
            self._tampered = False
            self._gamma_mean, self._neutron_mean = self._gamma_mean[:0], self._neutron_mean[:0]
            self._booting = True
        elif kind == "tamper":
            if not self._tampered and self._link_up and self._speaks(t_s):
                yield Piece(t_s, format_line("TT", [0, 0, 0, 0]))
            self._tampered = True
        elif kind in ("dead_detector", "stuck_detector"):
            self._hurt[kind] = int(detector)

    def _recover(self, t_s: float) -> Iterator[Played]:
        """Let what is over be over."""
        if not self._link_up and t_s >= self._until["link_lost"]:
            self._link_up = True
            yield Link(self._until["link_lost"], up=True)
        if self._tampered and not self._begun and t_s >= self._until["tamper"]:
            self._tampered = False
            if self._link_up and self._speaks(t_s):
                yield Piece(t_s, format_line("TC", [111_111] * 4))
        for kind in ("dead_detector", "stuck_detector"):
            if kind in self._hurt and t_s >= self._until[kind]:
                del self._hurt[kind]
        if self._booting and self._speaks(t_s):
            self._booting = False
            if self._link_up and self._config.setup:
                for line in setup_lines(self._config.nsigma):
                    yield Piece(t_s, line)

    # ---- counting

    def _in_force(self, kind: str, t_s: float) -> bool:
        if t_s < self._until.get(kind, 0.0):
            return True
        # A fault that is laid but has not struck yet: counts are drawn for a whole gap or passage at once.
        return any(w.partition(":")[0] == kind and at <= t_s < at + s for at, w, s in self._waiting)

    def _base(self, t_s: float, neutron: bool) -> Floats64:
        if neutron:
            base = np.array(self._config.neutron_cps)
            return base * NEUTRON_HIGH_FACTOR if self._in_force("neutron_high", t_s) else base
        base = np.array(self._config.gamma_cps) * self._weather.factor(t_s)
        if self._in_force("gamma_high", t_s):
            base = base * GAMMA_HIGH_FACTOR
        if self._in_force("gamma_low", t_s):
            base = base * GAMMA_LOW_FACTOR
        return base

    def _cross_talk(self, t_s: Floats64, patient: tuple[float, float, int] | None) -> Floats64:
        seen = np.zeros((len(t_s), 4))
        if patient is not None:
            at_s, rate, pillar = patient
            shape = rate * np.exp(-0.5 * ((t_s - at_s) / (CROSS_TALK_S / 2.5)) ** 2)
            near = (0.4, 0.4, 0.1, 0.1) if pillar == 0 else (0.1, 0.1, 0.4, 0.4)
            seen += shape[:, np.newaxis] * np.array(near)
        return seen

    def _harmed(self, gamma: Ints64, t_s: float) -> Ints64:
        """Let dead detectors count nothing and stuck ones what they counted first."""
        hurt = dict(self._hurt)
        for at, what, seconds in self._waiting:
            kind, _, which = what.partition(":")
            if kind in ("dead_detector", "stuck_detector") and at <= t_s < at + seconds:
                hurt[kind] = int(which)
        if not hurt:
            return gamma
        gamma = gamma.copy()
        for kind, detector in hurt.items():
            gamma[:, detector] = 0 if kind == "dead_detector" else gamma[0, detector]
        return gamma

    # ---- vacancy

    def _vacancy(self, until_s: float, patient: tuple[float, float, int] | None) -> Iterator[Played]:
        """Publish the running means every 5 s until the next vehicle comes."""
        first_s = self._settled_s + FIRST_TICK_S
        for k in range(max(0, math.ceil((until_s - 0.1 - first_s) / TICK_S))):
            t_s = first_s + k * TICK_S
            yield from self._send(self._background_lines(t_s, patient, new=TICK_S))
        # Seconds after the last tick count too, as they do in a portal.
        self._settled_s = until_s

    def _background_lines(self, t_s: float, patient: tuple[float, float, int] | None, new: float) -> list[Piece]:
        self._average(t_s, patient, int(new))
        gamma = self._gamma_mean[-BACKGROUND_S:].mean(axis=0)
        neutron = self._neutron_mean.mean(axis=0)
        stuck = self._hurt.get("stuck_detector")
        if stuck is not None:
            gamma[stuck] = self._published[stuck]
        self._published = published = np.rint(gamma)
        late = float(abs(self._rng.normal(0, 0.003)))
        high, low = self._in_force("gamma_high", t_s), self._in_force("gamma_low", t_s)
        low = low or bool((published < GAMMA_LOW_FAULT).any() and min(self._config.gamma_cps) > GAMMA_LOW_FAULT)
        neutron_code = "NH" if self._in_force("neutron_high", t_s) else "NB"
        said = [(neutron_code, [int(c) for c in neutron])]
        lines: list[bytes] = [format_line(*said[0])]
        if self._config.extensions:
            lines.append(format_line("NB1", [float(c) for c in neutron]))
        lines.append(format_line("GH" if high else "GL" if low else "GB", [int(c) for c in published]))
        if not (high or low):
            self._background = published  # the alarm rule goes by the last GB, and these are faults
        if self._config.extensions:
            windows = self._rng.poisson(np.array(WINDOW_SHARES) * gamma.sum() * BACKGROUND_S * 1.027) / BACKGROUND_S
            lines.append(format_line("AB1", [float(w) for w in windows]))
            lines.append(format_line("AR", [float(w) for w in windows / max(windows.sum(), 1.0)]))
        return [Piece(t_s + late + 0.003 * k, line) for k, line in enumerate(lines)]

    def _average(self, t_s: float, patient: tuple[float, float, int] | None, seconds: int) -> None:
        """Count the seconds since the last publication into the running means."""
        if not len(self._gamma_mean):
            seconds = NEUTRON_BACKGROUND_S  # a portal that starts publishes when it has its background
        times = t_s - np.arange(seconds, dtype=np.float64)[::-1]
        rates = self._base(t_s, neutron=False) + self._cross_talk(times, patient)
        gamma = self._harmed(self._rng.poisson(rates), t_s)
        neutron = self._rng.poisson(self._base(t_s, neutron=True), (seconds, 4))
        self._gamma_mean = np.concatenate([self._gamma_mean, gamma])[-BACKGROUND_S:]
        self._neutron_mean = np.concatenate([self._neutron_mean, neutron])[-NEUTRON_BACKGROUND_S:]

    # ---- occupancy

    def _occupied(
        self, index: int, vehicle: _Vehicle, enter_s: float, end_s: float, patient: tuple[float, float, int] | None
    ) -> tuple[list[Piece], int, bool]:
        """Return the lines of one occupancy with their times, its number (0: never counted), and whether the portal
        began it anew after a power cycle.
        """
        off = self._power(enter_s, end_s)
        if off is None:
            self._number += 1
            number = self._number
            said = self._lines(index, vehicle, enter_s, end_s, enter_s, patient)
            said.append(self._gx(index, number, end_s))
            return said, number, False
        began_s, back_s = off
        said = [p for p in self._lines(index, vehicle, enter_s, end_s, enter_s, patient) if p.t_s < began_s]
        if back_s < end_s - 1.0:
            said += self._lines(index, vehicle, max(enter_s, back_s + 0.3), end_s, enter_s, patient)
            said.append(self._gx(index, 1, end_s))
            return said, 1, True
        return said, 0, False

    def _power(self, enter_s: float, end_s: float) -> tuple[float, float] | None:
        """Return from when to when the power is off during the passage, None if it is not."""
        cycles = [(at, at + s) for at, w, s in self._waiting if w.startswith("power_cycle")]
        until = self._until.get("power_cycle", 0.0)
        if until > enter_s:
            cycles.append((enter_s, until))
        cycles = [(max(a, enter_s), b) for a, b in cycles if a < end_s and b > enter_s]
        return (min(a for a, _ in cycles), max(b for _, b in cycles)) if cycles else None

    def _gx(self, index: int, number: int, end_s: float) -> Piece:
        neutron_milli = int(1000 * self._neutron_mean.mean(axis=0).sum()) if len(self._neutron_mean) else 0
        return Piece(end_s, format_line("GX", [number % 1_000_000, neutron_milli, 0, 0]), index, end=True)

    def _lines(
        self, index: int, vehicle: _Vehicle, begin_s: float, end_s: float, enter_s: float,
        patient: tuple[float, float, int] | None,
    ) -> list[Piece]:  # fmt: skip
        """Return the count and speed lines of an occupancy that the portal begins at `begin_s`."""
        rng = self._rng
        count = max(BUFFERED + 1, BUFFERED + round((end_s - 0.05 - begin_s) / INTERVAL_S))
        begin = begin_s + INTERVAL_S * np.arange(-BUFFERED, count - BUFFERED, dtype=np.float64)
        middle = begin + INTERVAL_S / 2
        rates = self._rates(vehicle, middle - enter_s, self._base(begin_s, neutron=False), neutron=False)
        gamma = rng.poisson((rates + self._cross_talk(middle, patient)) * INTERVAL_S)
        gamma = self._harmed(gamma, begin_s)
        alarm = alarm_flags(gamma, self._background, self._config.nsigma)
        burst = BUFFERED + (2 if rng.random() < 0.08 else 1)
        arrival = begin + INTERVAL_S + np.abs(rng.normal(0, 0.002, count))
        arrival[:burst] = arrival[burst - 1] + 0.003 * np.arange(burst) - 0.003 * burst
        speed_first = rng.random() < 0.7
        said = [
            Piece(t, b"G%c,%06d,%06d,%06d,%06d\r\n" % (b"A" if a else b"S", *c), index, gamma=1, alarms=int(a))
            for t, c, a in zip(arrival.tolist(), gamma.tolist(), alarm.tolist(), strict=True)
        ]
        said += self._neutrons(index, vehicle, begin_s + (0.06 if speed_first else 0.0), end_s - 0.02, enter_s)
        said += self._speeds(index, vehicle, begin_s, enter_s, speed_first)
        if self._config.extensions:
            said += self._energy_lines(index, said, vehicle)
        return sorted(said, key=lambda p: p.t_s)

    def _rates(self, vehicle: _Vehicle, since_s: Floats64, base: Floats64, *, neutron: bool) -> Floats64:
        x = since_s * vehicle.speed_mm_s
        shade = np.interp(x, vehicle.knots_mm, vehicle.shade, left=0.0, right=0.0)
        seen = base * (1 - (0.3 if neutron else 1.0) * shade[:, np.newaxis])
        for source in vehicle.sources:
            if source.neutron == neutron:
                parts = np.array((0.55, 0.0, 0.45, 0.0) if neutron else source.shares)
                seen = seen + source.counts_per_s * source_profile(x, source)[:, np.newaxis] * parts
        return seen

    def _neutrons(self, index: int, vehicle: _Vehicle, first_s: float, end_s: float, enter_s: float) -> list[Piece]:
        times = np.arange(first_s, end_s, 1.0)
        base = self._base(first_s, neutron=True)
        seen = self._rng.poisson(self._rates(vehicle, times - 0.5 - enter_s, base, neutron=True))
        alarm = seen.sum(axis=1) >= max(NEUTRON_ALARM_COUNTS, base.sum() + 7 * math.sqrt(base.sum()))
        return [
            Piece(t, b"N%c,%06d,%06d,%06d,%06d\r\n" % (b"A" if a else b"S", *c), index, neutron=1, alarms=int(a))
            for t, c, a in zip(times.tolist(), seen.tolist(), alarm.tolist(), strict=True)
        ]

    def _speeds(self, index: int, vehicle: _Vehicle, begin_s: float, enter_s: float, first: bool) -> list[Piece]:
        """SP lines as axles pass the beams; nearly half of them are the display's cap."""
        rng = self._rng
        leave_s = enter_s + vehicle.length_mm / vehicle.speed_mm_s
        count = int(rng.integers(4, 7))
        times = np.sort(rng.uniform(begin_s + 0.5, max(leave_s, begin_s + 0.6), count))
        if first:
            times[0] = begin_s
        capped = rng.random(count) < 0.6
        capped[rng.integers(0, count)] = False
        said = []
        for t, cap in zip(times.tolist(), capped.tolist(), strict=True):
            mph = vehicle.speed_mm_s / 1000 * MPH * rng.normal(1, 0.02)
            measured = rng.uniform(100, 900) if cap else mph
            shown = 99.999 if cap else mph
            line = format_line("SP", [0.681818 / measured, shown, shown * 1.609344, "000000"])
            said.append(Piece(t, line, index, speed=1))
        return said

    def _energy_lines(self, index: int, said: list[Piece], vehicle: _Vehicle) -> list[Piece]:
        """AS after every gamma line, AA after an alarmed one."""
        expected = self._background.sum() * INTERVAL_S
        more = []
        for piece in said:
            if not piece.gamma:
                continue
            total = sum(int(f) for f in piece.data[3:].split(b","))
            excess = max(0.0, total - expected) / max(total, 1)
            shares = (1 - excess) * np.array(WINDOW_SHARES) + excess * np.array(SOURCE_SHARES)
            windows = self._rng.multinomial(total, shares / shares.sum())
            more.append(Piece(piece.t_s + 0.0005, format_line("AS", [int(w) for w in windows]), index))
            if piece.alarms:
                more.append(Piece(piece.t_s + 0.0008, b"AA,000001,000001,000001,11111A\r\n", index))
        return more


def alarm_flags(gamma: Ints64, background: Floats64, nsigma: float) -> npt.NDArray[np.bool_]:
    """Return the vendor's flag of every interval of `(intervals, 4)` counts, mask 1010.

    S = counts of the last five intervals, B = last background in counts/s; alarm where (S - B) / sqrt(B) of all
    detectors or of either pillar is NSigma or more. No alarm before the window is full.
    """
    flags = np.zeros(len(gamma), np.bool_)
    if len(gamma) >= WINDOW:
        total = np.concatenate([np.zeros((1, 4), np.int64), np.cumsum(gamma, axis=0)])
        excess = (total[WINDOW:] - total[:-WINDOW]) - background
        for part in (slice(0, 4), slice(0, 2), slice(2, 4)):
            # A pillar without background (every detector of it dead) is judged against one count.
            flags[WINDOW - 1 :] |= excess[:, part].sum(axis=1) / math.sqrt(max(background[part].sum(), 1.0)) >= nsigma
    return flags
