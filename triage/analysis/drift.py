"""Whether a lane is still the one it was calibrated on: an anytime-valid watch over everything a profile knows.

Each monitored number of a scan (scores of the kinds, vital signs of the image, the kind of load) is ranked among the
calibration scans and all scans since. While the lane is exchangeable with its calibration, these smoothed conformal
p-values are independent and uniform, exactly and whatever the numbers are. So one can bet against it: a bet is a
density on [0, 1], and its Shiryaev-Roberts sum R(t) = (R(t-1) + 1) bet(p(t)) grows where the p-values drift, at any
time after the change. One more monitor bets that flags come more often than promised.

The mean of all sums is compared with one bound B. R(t) - t is a martingale under the null and stays one on averaging,
however the monitors hang together. So on an exchangeable lane whose promise is kept

    P(stale is said within t scans) <= t / B,    mean number of scans until it is said >= B

without any assumption on the numbers. The ranking uses what has come since, too: ranks within the calibration alone
would in the end tell the finite calibration from the lane.

What it takes for drift may be a convoy: dozens of boxes of one consignment in a row are not exchangeable with mixed
traffic. Calibrate on weeks in which there were some; the words say what has changed.

Source: Vovk, Nouretdinov and Gammerman, Testing exchangeability on-line (2003); Vovk et al., Retrain or not retrain:
conformal test martingales for change-point detection (2021), arXiv 2102.10439; sums of e-processes and their bounds:
Shin, Ramdas and Rinaldo, E-detectors (2022), arXiv 2203.03532.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.lane_profile import Cell, LaneProfile
from scanner_io.model import Quality, Scan, Standing, TriageResult

Array: TypeAlias = NDArray[Any]

BOUND = 1e6
"""An exchangeable lane of 300 scans a day says stale by mistake within a month with a chance of less than 1 %."""
MOST_SINCE = 20_000
"""Scans since calibration that are ranked among; what comes later is still ranked, but kept no more."""
RECENT = 100
STALE = "profile_stale"
"""Code of the flag that a scan carries from then on."""
_POWERS, _SLOPES, _CURVES, _RATES = (0.25, 0.5), (0.5, 0.95), (0.5, -0.45), (1.5, 2.0, 4.0)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the watch needs of one judged scan.

    flagged : by a calibrated finding; unknown : its look is not known, so it is reviewed beside the promise
    """

    scan: str
    cell: Cell
    numbers: dict[str, float | None]
    flagged: bool
    unknown: bool = False


def seen(scan_id: str, standing: Standing) -> Seen:
    """Return what the watch needs of a scan."""
    numbers = numbers_of(standing.scores, standing.vital_signs)
    flagged = standing.p_value <= standing.level
    return Seen(scan=scan_id, cell=standing.cell, numbers=numbers, flagged=flagged, unknown=standing.unknown)


def numbers_of(scores: dict[str, float], vital_signs: dict[str, float | None]) -> dict[str, float | None]:
    """Return under one name each what is watched of a scan."""
    return {**{f"score {kind}": score for kind, score in scores.items()}, **vital_signs}


def bets(p: float) -> Array:
    """Return the value of every bet at a p-value in (0, 1]; each has a mean of 1 over uniform p."""
    q = max(1.0 - p, 2.0**-64)
    values = [k * x ** (k - 1) for k in _POWERS for x in (p, q)]
    values += [1 + s * sign * (1 - 2 * p) for s in _SLOPES for sign in (1, -1)]
    values += [1 + c * (12 * (p - 0.5) ** 2 - 1) for c in _CURVES]
    return np.array(values)


class _Ranks:
    """One number: where a new one stands among all before."""

    def __init__(self, values: Array) -> None:
        self.bag = np.sort(values[~np.isnan(values)]).tolist()
        self.usual = float(np.median(self.bag)) if self.bag else float("nan")

    def p_value(self, value: float, chance: float, *, keep: bool) -> float:
        """Return the smoothed share of the bag that is at least `value`. chance : in (0, 1), divides ties."""
        above = len(self.bag) - bisect_right(self.bag, value)
        equal = len(self.bag) - above - bisect_left(self.bag, value)
        p = (above + chance * (equal + 1)) / (len(self.bag) + 1)
        if keep:
            insort(self.bag, value)
        return float(p)


class _Rarity:
    """The kind of load: how rare a scan's cell is among all before, itself counted."""

    def __init__(self, cells: list[Cell]) -> None:
        self.counts = Counter(cells)

    def p_value(self, cell: Cell, chance: float, *, keep: bool) -> float:
        own = self.counts[cell] + 1
        others = [n for c, n in self.counts.items() if c != cell]
        rarer = sum(n for n in others if n < own)
        as_rare = own + sum(n for n in others if n == own)
        if keep:
            self.counts[cell] += 1
        return (rarer + chance * as_rare) / (sum(others) + own)


class WatchState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a watch has learned since its profile came into force.

    bags : per number what is ranked among, in order; cells : how often each kind of load came; sums : of the bets
    recent, flags : of the last scans; the rest as in `Watch`
    """

    scans: int
    flagged: int
    unknown: int
    stale: str
    bags: dict[str, list[float]]
    cells: list[tuple[Cell, int]]
    sums: dict[str, list[float]]
    recent: dict[str, list[float]]
    flags: list[bool]


class Watch:
    """Takes scan after scan and says when a profile has gone stale.

    scans, flagged, unknown : since the profile came into force
    stale : in words, empty while nothing speaks against the profile; it stays until there is a new profile
    """

    def __init__(self, profile: LaneProfile) -> None:
        self._profile = profile
        columns = {f"score {k}": profile.scores[:, i] for i, k in enumerate(profile.kinds)}
        columns |= {v: profile.vital_signs[:, i] for i, v in enumerate(profile.vitals)}
        self._ranks = {name: _Ranks(np.asarray(values, np.float64)) for name, values in columns.items()}
        self._rarity = _Rarity([profile.cells[i] for i in profile.cell_of_scan])
        size = bets(0.5).size
        self._sums = {name: np.zeros(size) for name in (*self._ranks, "kind of load")}
        self._sums["flag rate"] = np.zeros(len(_RATES))
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=RECENT) for name in self._ranks}
        self._flags: deque[bool] = deque(maxlen=200)
        self.scans = self.flagged = self.unknown = 0
        self.stale = ""

    def state(self) -> WatchState:
        """Return what `resume` goes on with."""
        return WatchState(
            scans=self.scans, flagged=self.flagged, unknown=self.unknown, stale=self.stale,
            bags={name: ranks.bag for name, ranks in self._ranks.items()}, cells=list(self._rarity.counts.items()),
            sums={name: values.tolist() for name, values in self._sums.items()},
            recent={name: list(values) for name, values in self._recent.items()}, flags=list(self._flags),
        )  # fmt: skip

    def resume(self, state: WatchState) -> None:
        """Go on where another watch of the same profile was, to the last bit. Raises ValueError for another's."""
        lengths = {name: len(values) for name, values in self._sums.items()}
        if {name: len(values) for name, values in state.sums.items()} != lengths or (
            state.bags.keys() != self._ranks.keys() or state.recent.keys() != self._recent.keys()
        ):
            raise ValueError("it is of a watch over other numbers")
        self.scans, self.flagged, self.unknown, self.stale = state.scans, state.flagged, state.unknown, state.stale
        for name, bag in state.bags.items():
            self._ranks[name].bag = list(bag)
            self._recent[name].extend(state.recent[name])
        self._rarity.counts = Counter(dict(state.cells))
        self._sums = {name: np.array(values) for name, values in state.sums.items()}
        self._flags.extend(state.flags)

    @property
    def evidence(self) -> float:
        """What is compared with BOUND."""
        return float(np.mean([s.mean() for s in self._sums.values()]))

    def take(self, scan: Seen) -> bool:
        """Take the next scan of the lane; True if with it the profile has gone stale."""
        keep = self.scans < MOST_SINCE
        self.scans += 1
        self.flagged += scan.flagged
        self.unknown += scan.unknown
        self._flags.append(scan.flagged)
        if self.stale:
            return False
        for name, ranks in self._ranks.items():
            # a question that did not arise is below every answer
            value = scan.numbers.get(name, -np.inf if name.startswith("score ") else None)
            if value is None or np.isnan(value):
                continue
            self._bet(name, bets(ranks.p_value(value, _chance(scan.scan, name), keep=keep)))
            self._recent[name].append(value)
        self._bet("kind of load", bets(self._rarity.p_value(scan.cell, _chance(scan.scan, "cell"), keep=keep)))
        promise = self._profile.flag_rate
        rates = np.minimum(np.array(_RATES) * promise, 0.99)
        self._bet("flag rate", rates / promise if scan.flagged else (1 - rates) / (1 - promise))
        if self.evidence < BOUND:
            return False
        self.stale = self._words()
        return True

    def _bet(self, name: str, values: Array) -> None:
        self._sums[name] = (self._sums[name] + 1) * values

    def _words(self) -> str:
        """Say what has changed: every number that alone would nearly have been enough."""
        ordered = sorted(self._sums, key=lambda name: -self._sums[name].mean())
        told = [n for n in ordered if self._sums[n].mean() >= 0.01 * BOUND][:3] or ordered[:1]
        return (
            f"the lane is not as it was calibrated: {'; '.join(self._change(name) for name in told)}; noticed after "
            f"{self.scans} scans with this profile. Its promise of {self._profile.flag_rate:.1%} does not hold any "
            "more: check the scanner, and calibrate again on scans of now"
        )

    def _change(self, name: str) -> str:
        if name == "flag rate":
            return f"{sum(self._flags)} of the last {len(self._flags)} scans flagged"
        if name == "kind of load":
            return "loads or declared goods of kinds that were rare"
        now = float(np.median(self._recent[name]))
        usual = self._ranks[name].usual
        return f"{name} {_shown(now)} in the median of the last {len(self._recent[name])}, usual {_shown(usual)}"


def _shown(value: float) -> str:
    return "not asked" if np.isinf(value) else f"{value:.4g}"


def _chance(scan: str, name: str) -> float:
    """Return a number in (0, 1) that belongs to the scan and the monitor: the same in every replay."""
    digest = hashlib.blake2b(f"{scan}\0{name}".encode(), digest_size=7).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**56


def flagged_stale(scan: Scan, profile: LaneProfile, stale: str) -> Scan:
    """Return the scan with the flag that its profile has gone stale: by its image it cannot be cleared.

    stale : see `Watch`, empty while nothing speaks against the profile

    The flag is part of the scan, and so of its recording: a replay judges by what was known when the scan was taken.
    """
    if not stale or scan.radiograph is None or any(_is_of(q, profile) for q in scan.quality):
        return scan
    flag = Quality(code=STALE, reason=f"profile {profile.sha256[:12]}: {stale}")
    return msgspec.structs.replace(scan, quality=(*scan.quality, flag))


def still_stale(quality: Iterable[Quality], profile: LaneProfile | None) -> list[Quality]:
    """Return the flags without those that tell of another profile than the one in force: a new one clears them."""
    return [q for q in quality if q.code != STALE or (profile is not None and _is_of(q, profile))]


def _is_of(flag: Quality, profile: LaneProfile) -> bool:
    return flag.code == STALE and flag.reason.startswith(f"profile {profile.sha256[:12]}:")


def why_no_example(result: TriageResult) -> str:
    """Return in words why a scan says nothing of what is usual on its lane, empty if it does.

    Asked of what is learned from and of what is watched alike: the two must be the same kind of scans.
    """
    if result.outcome == "UNUSABLE" or any(q.fatal for q in result.quality):
        return f"unusable: {result.reasons[0] if result.reasons else 'no reason told'}"
    if result.container is None:
        return "no container is seen in the image"
    if result.gamma_alarm or result.neutron_alarm:
        return "the portal alarmed"
    alarms = [f.kind for f in result.findings if f.tier == "alarm"]
    return f"an alarm was raised: {alarms[0]}" if alarms else ""
