"""Is the portal itself well? What its counts and lines say of it across passages, as conditions that begin and end.

A portal tells a background that is too high or too low by limits set once (GH, GL, NH), and a tamper contact. It does
not tell a detector that repeats itself, one whose share of the counts wanders away, counts that scatter more or less
than Poisson's law allows. `PortalHealth` is fed every event of one
portal in order and returns what begins and ends as `Health`; what it needs to know it keeps in bounded memory.

GB is a running mean of 20 s published every 5 s, so neighbours share three quarters of their counts (correlation
0.75). The tests here use steps between neighbours, in which the shared part is gone: a step is the difference of two
independent sums of 5 s over 20, its variance is B / 40 (plus 1/6 for two roundings), and steps are independent of each
other except four apart.

Two kinds of limit, and what each promises where nothing is wrong and counts are Poisson:

    stuck, dead                  chance per line and detector at most `chance` (1e-10: for four detectors one in 400
                                 years of background lines, in 70 years of 10^5 occupied intervals a day)
    high, low, drift, share      a practical limit (percent), never below 8 or 6 standard deviations: 1e-9 per look
    scatter                      a practical limit that Poisson counts of four usual detectors miss by 6.5 standard
                                 deviations or more: about 1e-10 per look

Verified by simulation (tests). Real background is not Poisson over hours: showers add some percent, queueing vehicles
take a quarter away. The practical limits are set beyond what 25 recorded passages and one day's recorded range show.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.model import NANOSECONDS, CountBlock, Event, Health, Occupancy, PortalRecord, Quality

Floats64 = npt.NDArray[np.float64]
State = Literal["ok", "degraded", "fault"]

BACKGROUND_S, TICK_S = 20.0, 5.0
NEUTRON_BACKGROUND_S = 120.0
LOOK_EVERY, SCATTER_EVERY = 12, 60
"""Lines from one look at what changes slowly to the next: one minute, five minutes."""
SHIELDED = 0.4
"""The least share of its background that a detector sees behind the strongest shielding known (0.42)."""
PASSED_ON = frozenset({"gamma", "neutron", "tamper", "silence", "line", "link"})
"""Conditions that the codec or the lane tells; here they are only kept."""


class HealthLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits.

    chance : of a healthy detector to look stuck or dead, per line
    high, low : background against its own history, as factors; they end half way back
    drift : mean of ten minutes against its own history, as a share
    share : a detector's share of all counts over ten minutes against its own history, as a share of it
    scatter : shares of steps within one standard deviation between which Poisson counts stay (68 % expected)
    least_z, least_slow_z : standard deviations that the practical limits must be worth, fast and slow
    history_lines : background lines before own history says anything (120 = ten minutes)
    memory_lines : time constant of own history, in background lines (4320 = six hours)
    accept_lines : a new level that lasts so long becomes the history (17280 = a day)
    scatter_lines : steps in the scatter test (360 = half an hour of vacancy)
    clock_s : how long a set clock stays a condition
    """

    chance: float = 1e-10
    high: float = 1.25
    low: float = 0.65
    drift: float = 0.12
    share: float = 0.10
    scatter: tuple[float, float] = (0.45, 0.90)
    least_z: float = 8.0
    least_slow_z: float = 6.0
    history_lines: int = 120
    memory_lines: int = 4320
    accept_lines: int = 17_280
    scatter_lines: int = 360
    clock_s: float = 60.0


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with the portal. doubt : a scan made meanwhile cannot be called clear."""

    component: str
    state: State
    since_utc_ns: int
    text: str
    doubt: bool


# --------------------------------------------------------------------------------------------------------------
# Pure tests


def likeliest(mean: float) -> float:
    """Return the largest probability that one count can have under Poisson's law with this mean."""
    if mean <= 0:
        return 1.0
    mode = math.floor(mean)
    return math.exp(mode * math.log(mean) - mean - math.lgamma(mode + 1))


def repeats_needed(mean: float, chance: float, *, lattice: float = 1.0) -> int:
    """Return how many times in a row a value must repeat until chance is no explanation; 0 if it always is one.

    mean : Poisson mean of the counts behind the value
    lattice : how many counts share one published value: 20 for GB, a sum of which 5 s are new over 20 s

    A repeat has at most the probability of the likeliest value, whatever came before, so r repeats have at most its
    r-th power.
    """
    single = lattice * likeliest(mean)
    return math.ceil(math.log(chance) / math.log(single)) if single < 0.9 else 0


def zeros_needed(mean: float, chance: float) -> int:
    """Return how many zeros in a row a detector of this mean count cannot give by chance; 0 if it always can."""
    return max(3, math.ceil(-math.log(chance) / mean)) if mean > 0.02 else 0


def step_sd(background: Floats64) -> Floats64:
    """Return the standard deviation of the step between neighbouring GB lines of a background in counts/s."""
    return np.asarray(np.sqrt(background * (TICK_S * 2 / BACKGROUND_S**2) + 1 / 6))


def inside(step: Floats64, sd: Floats64) -> Floats64:
    """Return how much of each whole-number step lies within one standard deviation, 0 to 1.

    A step of d stands for anything from d - 1/2 to d + 1/2: without this, the share of whole numbers inside a limit
    would jump where the limit crosses one.
    """
    return np.asarray(np.clip(np.minimum(step + 0.5, sd) - np.maximum(step - 0.5, -sd), 0.0, 1.0))


# --------------------------------------------------------------------------------------------------------------
# State


class _Repeats:
    """How often each detector has given the same count in a row, and how often 0. Lists: four numbers are few."""

    def __init__(self) -> None:
        self.last: list[float] = []
        self.same: list[int] = []
        self.zeros: list[int] = []
        self.changes: list[int] = []

    def take(self, counts: list[float]) -> bool:
        """Take one line's counts; return True if some detector may be stuck or dead."""
        if len(self.last) != len(counts):
            self.last = [-1.0] * len(counts)
            self.same, self.zeros, self.changes = ([0] * len(counts) for _ in range(3))
        look = False
        for d, (count, last) in enumerate(zip(counts, self.last, strict=True)):
            if count == last:
                self.same[d] += 1
                self.changes[d] = 0
                look = look or self.same[d] >= 2
            else:
                self.same[d] = 0
                self.changes[d] += 1
            self.zeros[d] = self.zeros[d] + 1 if count == 0 else 0
        self.last = counts
        return look


class _Level:
    """A slow mean: of everything at first, later with a time constant of `memory` values."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self.count = 0
        self.mean: list[float] = []

    def take(self, value: list[float]) -> None:
        """Take one value."""
        if len(self.mean) != len(value):
            self.count, self.mean = 0, [0.0] * len(value)
        self.count += 1
        share = 1 / min(self.count, self._memory)
        self.mean = [m + (v - m) * share for m, v in zip(self.mean, value, strict=True)]


class PortalHealth:
    """The health of one portal. Feed it in order; it has no clock of its own."""

    def __init__(self, limits: HealthLimits | None = None) -> None:
        self.limits = limits or HealthLimits()
        self._on: dict[str, Condition] = {}
        self._ended: dict[str, tuple[Condition, int]] = {}
        self._gamma, self._neutron, self._published = _Repeats(), _Repeats(), _Repeats()
        self._history = _Level(self.limits.memory_lines)
        self._shares = _Level(self.limits.memory_lines)
        self._rates = {"gamma": _Level(2000), "neutron": _Level(2000)}
        self._recent: deque[list[float]] = deque(maxlen=120)
        self._steps: deque[tuple[list[float], list[float]]] = deque(maxlen=self.limits.scatter_lines)
        self._before: tuple[int, list[float]] | None = None
        self._lines = 0
        self._odd = {"high": 0, "low": 0}
        self._strange_lines = 0
        self._last_ns = 0
        self._clock_ns: int | None = None  # when times were seen to run backwards
        self._number: int | None = None
        self._epoch = 0
        self._off_line: frozenset[int] = frozenset()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Return what is wrong now, oldest first."""
        return tuple(sorted(self._on.values(), key=lambda c: c.since_utc_ns))

    def quality(self, since_utc_ns: int) -> tuple[Quality, ...]:
        """Return the flags of a scan that began at `since_utc_ns` and is over now."""
        doubts = {c.component: c for c in self._on.values() if c.doubt}
        for condition, ended_ns in self._ended.values():
            if condition.doubt and ended_ns >= since_utc_ns:
                doubts.setdefault(condition.component, condition)
        return tuple(
            Quality(code=f"portal_{c.component}", reason=f"portal health: {c.text}") for _, c in sorted(doubts.items())
        )

    def take(self, event: Event) -> list[Health]:
        """Take the next event of this portal; return what begins or ends by it."""
        out: list[Health] = []
        match event:
            case CountBlock():
                self._see_time(event.utc_ns, out)
                self._take_counts(event, out)
            case Occupancy():
                self._see_time(event.utc_ns, out)
                if event.phase == "entered":
                    self._before = None  # the step over a passage is longer than 5 s
                elif event.record is not None:
                    self._take_record(event.record, event.utc_ns, out)
            case Health() if event.component in PASSED_ON:
                self._told(event, doubt=False)  # a record has these faults itself
            case Health() if event.component == "clock":
                self._told(event, doubt=True)
            case _:
                pass
        return out

    def link(self, utc_ns: int, *, up: bool, text: str = "") -> list[Health]:
        """Learn that the link to the portal is lost, or that it is back."""
        out: list[Health] = []
        self._before = None
        self._set(out, "link", not up, utc_ns, f"the link is lost: {text}" if text else "the link is lost", doubt=False)
        return out

    # ---- conditions

    def _set(
        self, out: list[Health], component: str, on: bool, utc_ns: int, text: str,
        *, state: State = "degraded", doubt: bool = True,
    ) -> None:  # fmt: skip
        """Begin or end a condition; one that goes on stays as it is."""
        have = self._on.get(component)
        if on and have is None:
            self._on[component] = Condition(
                component=component, state=state, since_utc_ns=utc_ns, text=text, doubt=doubt
            )
            out.append(Health(utc_ns=utc_ns, component=component, state=state, text=text))
        elif not on and have is not None:
            del self._on[component]
            self._ended[component] = (have, utc_ns)
            lasted_s = max(0.0, (utc_ns - have.since_utc_ns) / NANOSECONDS)
            out.append(
                Health(utc_ns=utc_ns, component=component, state="ok", text=f"over after {lasted_s:.0f} s: {have.text}")
            )

    def _told(self, event: Health, *, doubt: bool) -> None:
        """Keep what the driver tells with its own words."""
        silent: list[Health] = []
        self._set(
            silent, event.component, event.state != "ok", event.utc_ns, event.text, state=event.state, doubt=doubt
        )

    def _see_time(self, utc_ns: int, out: list[Health]) -> None:
        """Notice times that run backwards: a file's, for a driver tells itself when its clock was set."""
        if utc_ns < self._last_ns - NANOSECONDS // 2:
            self._before = None
            if "clock" not in self._on:
                self._clock_ns = utc_ns
            text = f"the clock was set back by {(self._last_ns - utc_ns) / NANOSECONDS:.1f} s"
            self._set(out, "clock", True, utc_ns, f"{text}; times around it are not sure")
        elif self._clock_ns is not None and utc_ns - self._clock_ns >= self.limits.clock_s * NANOSECONDS:
            self._clock_ns = None
            self._set(out, "clock", False, utc_ns, "")
        self._last_ns = max(utc_ns, self._last_ns) if "clock" not in self._on else utc_ns

    # ---- counts

    def _take_counts(self, event: CountBlock, out: list[Health]) -> None:
        for row in event.counts.tolist():
            if event.series in ("gamma", "neutron"):
                self._take_interval(event.series, row, event.utc_ns, out)
            elif event.series == "gamma_background":
                self._take_background(row, event.utc_ns, out)

    def _take_interval(self, series: str, row: list[float], utc_ns: int, out: list[Health]) -> None:
        repeats = self._gamma if series == "gamma" else self._neutron
        rate, hurt = self._rates[series], self._hurt(series)
        look = repeats.take(row)
        known = rate.mean if rate.count else row
        if series == "gamma" and len(self._history.mean) == len(row):
            known = [m / 5.0 for m in self._history.mean] if look or hurt else known
        # Most lines repeat nothing: look closer only where one could have.
        if look or hurt:
            for d in range(len(row)):
                self._look_stuck(series, d, repeats, utc_ns, out)
                self._look_dead(series, d, repeats, known[d], utc_ns, out)
        if not hurt and len(rate.mean) in (0, len(row)):
            rate.take(row)

    def _hurt(self, series: str) -> bool:
        return bool(self._on) and any(c.startswith(series) and c.endswith(("_stuck", "_dead")) for c in self._on)

    def _look_stuck(self, series: str, d: int, repeats: _Repeats, utc_ns: int, out: list[Health]) -> None:
        component = f"{series}{d + 1}_stuck"
        value = repeats.last[d]
        if component in self._on:
            if repeats.changes[d] >= 3:
                self._set(out, component, False, utc_ns, "")
            return
        needed = repeats_needed(value, self.limits.chance)
        if value > 0 and needed and repeats.same[d] >= needed:
            text = f"{series} detector {d + 1} is stuck: {value:.0f} counts in {repeats.same[d] + 1} lines in a row"
            self._set(out, component, True, utc_ns, text, state="fault")

    def _look_dead(self, series: str, d: int, repeats: _Repeats, mean: float, utc_ns: int, out: list[Health]) -> None:
        component = f"{series}{d + 1}_dead"
        if component in self._on:
            if repeats.zeros[d] == 0 and repeats.changes[d] >= 3:
                self._set(out, component, False, utc_ns, "")
            return
        needed = zeros_needed(SHIELDED * mean, self.limits.chance)
        if d not in self._off_line and needed and repeats.zeros[d] >= needed:
            text = f"{series} detector {d + 1} is dead: no count in {repeats.zeros[d]} lines, {mean:.1f} each expected"
            self._set(out, component, True, utc_ns, text, state="fault")

    # ---- background

    def _take_background(self, row: list[float], utc_ns: int, out: list[Health]) -> None:
        before, self._before = self._before, (utc_ns, row)
        self._published.take(row)
        self._look_at_published(row, utc_ns, out)
        if before is not None and len(before[1]) == len(row):
            gap_s = (utc_ns - before[0]) / NANOSECONDS
            if 0.8 * TICK_S < gap_s < 1.2 * TICK_S:
                self._steps.append((before[1], row))
        self._lines += 1
        if self._lines % SCATTER_EVERY == 0:
            self._look_at_scatter(len(row), utc_ns, out)
        if self._history.count >= self.limits.history_lines and len(self._history.mean) == len(row):
            self._look_at_history(row, utc_ns, out)
        if self._strange():
            self._strange_lines += 1
            if self._strange_lines < self.limits.accept_lines:
                return
            self._accept(utc_ns, out)
        self._strange_lines = 0
        self._history.take(row)
        total = sum(row)
        if total > 0:
            self._shares.take([v / total for v in row])

    def _accept(self, utc_ns: int, out: list[Health]) -> None:
        """It has lasted for a day: this is how the background is now. A dead or stuck detector stays one."""
        self._history.count = self._shares.count = 0
        self._recent.clear()
        self._odd = {"high": 0, "low": 0}
        for component in [c for c in self._on if c.startswith("gamma") and not c.endswith(("_dead", "_stuck"))]:
            if component != "gamma":
                self._set(out, component, False, utc_ns, "")

    def _strange(self) -> bool:
        """Return True if this background must not become history."""
        if self._odd["high"] or self._odd["low"]:
            return True
        return bool(self._on) and any(c.startswith("gamma") and c != "gamma" for c in self._on)

    def _look_at_published(self, row: list[float], utc_ns: int, out: list[Health]) -> None:
        """Stuck or dead by the published mean."""
        published, known = self._published, self._history
        settled = known.count >= 12 and len(known.mean) == len(row)
        usual_most = max(*row, *(known.mean if settled else ()))
        if not self._on and max(published.same) < 3 and min(row) > 0.1 * usual_most:
            return  # no detector can be either
        for d, value in enumerate(row):
            stuck, dead = f"gamma{d + 1}_stuck", f"gamma{d + 1}_dead"
            if stuck in self._on:
                if published.changes[d] >= 3:
                    self._set(out, stuck, False, utc_ns, "")
            elif published.same[d] >= 3:
                needed = repeats_needed(TICK_S * value, self.limits.chance, lattice=BACKGROUND_S)
                if needed and published.same[d] >= needed:
                    text = f"gamma detector {d + 1} is stuck: background {value:.0f} in {published.same[d] + 1} lines"
                    self._set(out, stuck, True, utc_ns, text, state="fault")
            usual = known.mean[d] if settled else 0.0
            others = median(row[:d] + row[d + 1 :]) if len(row) > 1 else 0.0
            if max(usual, value) < 0.1 * others:  # it never counted more than noise: the others say what is usual
                usual = others
            if d not in self._off_line and usual >= 40 and value < 0.1 * usual:
                text = f"gamma detector {d + 1} is dead: background {value:.0f} counts/s, {usual:.0f} expected"
                self._set(out, dead, True, utc_ns, text, state="fault")
            elif dead in self._on and value > 0.5 * usual:
                self._set(out, dead, False, utc_ns, "")

    def _look_at_history(self, row: list[float], utc_ns: int, out: list[Health]) -> None:
        """High and low at once, drift and imbalance over ten minutes, all against the portal's own history."""
        limits, usual, total = self.limits, sum(self._history.mean), sum(row)
        if usual <= 0:
            return
        z = (total - usual) / math.sqrt(usual / BACKGROUND_S)
        high = total > limits.high * usual and z > limits.least_z
        low = total < limits.low * usual and z < -limits.least_z
        self._odd = {"high": self._odd["high"] + 1 if high else 0, "low": self._odd["low"] + 1 if low else 0}
        words = f"{total:.0f} counts/s against {usual:.0f} of its own history"
        if max(self._odd.values()) >= 3:
            which = "high" if high else "low"
            self._set(out, "gamma_background", True, utc_ns, f"gamma background {which}: {words}")
        elif (1 + limits.low) / 2 < total / usual < (1 + limits.high) / 2:
            self._set(out, "gamma_background", False, utc_ns, "")
        if "gamma_background" in self._on:
            self._recent.clear()  # told already, and faster
            return
        self._recent.append(row)
        if len(self._recent) == self._recent.maxlen and self._lines % LOOK_EVERY == 0:
            self._look_slowly(usual, utc_ns, out)

    def _look_slowly(self, usual: float, utc_ns: int, out: list[Health]) -> None:
        limits = self.limits
        mean = np.mean(np.asarray(self._recent), axis=0)
        total = float(mean.sum())
        seconds = len(self._recent) * TICK_S
        off, z = total / usual - 1, (total - usual) / math.sqrt(usual / seconds)
        if abs(off) > limits.drift and abs(z) > limits.least_slow_z:
            text = f"gamma background drifted by {100 * off:+.0f} % of its own history over ten minutes"
            self._set(out, "gamma_drift", True, utc_ns, text, doubt=False)
        elif abs(off) < limits.drift / 2:
            self._set(out, "gamma_drift", False, utc_ns, "")
        if total <= 0:
            return
        share, own = mean / total, np.asarray(self._shares.mean)
        sd = np.sqrt(np.maximum(own * (1 - own), 1e-9) / (total * seconds))
        for d in range(share.size):
            change = share[d] / own[d] - 1 if own[d] > 0 else 0.0
            if abs(change) > limits.share and abs(share[d] - own[d]) > limits.least_slow_z * sd[d]:
                text = (
                    f"gamma detector {d + 1} gives {100 * share[d]:.1f} % of all counts, {100 * own[d]:.1f} % by its "
                    "own history: its gain or threshold has moved, or something stands before it"
                )
                self._set(out, f"gamma{d + 1}_share", True, utc_ns, text, doubt=False)
            elif abs(change) < limits.share / 2:
                self._set(out, f"gamma{d + 1}_share", False, utc_ns, "")

    def _look_at_scatter(self, detectors: int, utc_ns: int, out: list[Health]) -> None:
        if len(self._steps) < self.limits.scatter_lines or len(self._steps[0][0]) != detectors:
            return
        pairs = np.array(self._steps)
        background = pairs.mean(axis=1)
        lie = inside(pairs[:, 1] - pairs[:, 0], step_sd(background)).mean(axis=0)
        # Below 40 counts/s most steps are 0, and whole numbers say nothing of their scatter.
        share = np.where(background.mean(axis=0) >= 40, lie, np.nan)
        low, high = self.limits.scatter
        for d in range(share.size):
            component = f"gamma{d + 1}_scatter"
            if share[d] < low or share[d] > high:
                more = "more" if share[d] < low else "less"
                text = (
                    f"gamma detector {d + 1} scatters {more} than counts can: {100 * share[d]:.0f} % of the "
                    "background's steps lie within one standard deviation, 68 % expected"
                )
                self._set(out, component, True, utc_ns, text)
            elif (low + 0.683) / 2 < share[d] < (high + 0.683) / 2:
                self._set(out, component, False, utc_ns, "")

    # ---- records

    def _take_record(self, record: PortalRecord, utc_ns: int, out: list[Health]) -> None:
        if record.settings is not None:
            self._off_line = _off_line(record.settings.lines)
        if record.number is None:
            return
        if record.boot_epoch != self._epoch and self._number is not None:
            text = f"the portal counts anew (number {record.number} after {self._number}): it was restarted or reset"
            out.append(Health(utc_ns=utc_ns, component="restart", state="ok", text=text))
        self._number, self._epoch = record.number, record.boot_epoch


def _off_line(lines: tuple[str, ...]) -> frozenset[int]:
    """Return the detectors that the set-up line SG2 says are not on line."""
    for line in lines:
        code, _, rest = line.partition(",")
        mask = rest.split(",")[0]
        if code == "SG2" and mask and set(mask) <= {"0", "1"}:
            return frozenset(d for d, bit in enumerate(mask) if bit == "0")
    return frozenset()
