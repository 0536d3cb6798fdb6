"""How unusual a scan is among a lane's own: p-values that keep their promise whatever the scores mean.

A lane is calibrated on scans with nothing known against them. Every scan has one score per kind of finding. The scan
under test is put among the calibration scans of its stratum, and all of them are treated alike:

    rank        of a scan in a kind: the share of the bag, itself counted, whose score is at least its own
    surprise    of a scan: max over kinds of log(weight) - log(rank)
    p           the share of the bag, the scan itself counted, whose surprise is at least the scan's own

If scan and bag are exchangeable, P(p <= a) <= a for every a, whatever the kinds are and however they hang together:
surprise is computed from the bag by a rule in which no scan has a part of its own, so every place in the order of
surprises is equally likely to be the scan's. Ties count against the flag. This is full (transductive) conformal testing
of the family's statistic; as a multiple test it is single-step minP of Westfall and Young, so the p of a finding is
adjusted for all kinds that were searched, and some finding has p <= a on at most a share a of innocent scans.

Why this one. Bonferroni and Holm keep the same promise, but pay for every kind as if it were independent of the others
and as if it spoke on every scan: with twelve kinds each gets a twelfth of the rate, and most are silent most of the
time. A second split for the statistic is as powerful, but halves the calibration. The bag pays neither.

Among the strongest 5 % of a kind's scores ranks are too coarse (the strangest scans of all kinds would tie), so there
the share is continued as an exponential with the mean excess of those scores; of a kind that hardly ever finds
anything, with their mean. That is a choice of statistic, not an assumption: validity does not depend on it.

No p is below 1 / (n + 1) for a stratum of n scans, and a promise of rate a needs n >= 1 / a - 1 to flag at all.

Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005), sections 2.2 (validity) and 4.5
(strata); Bates et al., arXiv 2104.08279; Westfall and Young, Resampling-Based Multiple Testing (1993), 2.3; the same
combination of conformal tests after a split: Timans et al., arXiv 2311.10900. Realised rate given the calibration:
Vovk, Conditional validity of inductive conformal predictors (2012).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from scanner_io.errors import DataError
from scanner_io.lane_profile import ANY, Cell, LaneProfile

from .normal import LEAST_KNOWN

Array: TypeAlias = NDArray[Any]

TAIL_SHARE, TAIL_LEAST = 0.05, 5
"""Part of a bag, and fewest scores, whose mean excess continues a kind's ranks."""
EXPECTED_FLAGS = 10
"""A stratum of its own has so many scans that this many of them would be flagged: the rate that it realises is then
right to about a third of itself, and what no scan of it showed in one of a dozen kinds can still be flagged."""


class Ranked:
    """A scan among the bag of its stratum.

    p_value : share of the bag, the scan itself counted, that is at least as strange in any kind
    """

    def __init__(self, group: Group, own: Array) -> None:
        self._group, self._own = group, own
        self._tails = [_Tail(group.ordered[:, k], own[k]) for k in range(own.size)]
        others = np.stack(
            [t.surprise(group.scores[:, k], group.reach[:, k] + (own[k] >= group.scores[:, k]))
             for k, t in enumerate(self._tails)], axis=1,
        )  # fmt: skip
        self._others = np.sort((others + group.log_weights).max(axis=1))
        self.p_value = min((self.p_of(k, float(own[k])) for k in range(own.size)), default=1.0)

    def p_of(self, kind: int, score: float) -> float:
        """Return the p-value of a candidate of one kind, adjusted for all kinds; `score` is at most the scan's own.

        Raises DataError for a score above the one that the scan was ranked by.
        """
        if not score <= self._own[kind]:
            raise DataError(f"kind {kind}: a candidate of {score:g} in a scan whose highest score is {self._own[kind]}")
        n = self._group.scans
        ordered = self._group.ordered[:, kind]
        reach = n - int(np.searchsorted(ordered, score, side="left")) + 1
        surprise = self._tails[kind].surprise(np.array([score]), np.array([reach])) + self._group.log_weights[kind]
        stranger = n - int(np.searchsorted(self._others, surprise[0], side="left"))
        return float((stranger + 1) / (n + 1))


class Group:
    """The calibration scans of one stratum, made ready.

    scores : (scans, kinds) float64; 0 where a kind found nothing, -inf where its question did not arise
    weights : (kinds,) above 0; a kind of twice the weight gets about twice the share of the flags
    """

    def __init__(self, scores: Array, weights: Array) -> None:
        self.scores = np.ascontiguousarray(scores, np.float64)
        self.scans = self.scores.shape[0]
        self.log_weights = np.log(np.asarray(weights, np.float64))
        self.ordered = np.sort(self.scores, axis=0)
        self.reach = np.empty(self.scores.shape, np.int64)
        for k in range(self.scores.shape[1]):
            self.reach[:, k] = self.scans - np.searchsorted(self.ordered[:, k], self.scores[:, k], side="left")

    def rank(self, own: Array) -> Ranked:
        """Return a scan with scores `own`, (kinds,) as above, among this group. Raises DataError for NaN."""
        if np.isnan(own).any():
            raise DataError(f"scores {own}: a score is not a number")
        return Ranked(self, np.asarray(own, np.float64))


class _Tail:
    """One kind's scores in one bag.

    ordered : (scans,) ascending; own : the score of the scan under test
    """

    def __init__(self, ordered: Array, own: float) -> None:
        n = ordered.size
        # a table and not a logarithm each: equal ranks must be equal to the last bit
        self._log_ranks = -np.log(np.arange(1, n + 2) / (n + 1))
        positive = n - int(np.searchsorted(ordered, 0.0, side="right")) + int(own > 0)
        size = min(max(TAIL_LEAST, int(np.ceil(TAIL_SHARE * (n + 1)))), positive)
        self._size, self._excess, self._from = size, 0.0, np.inf
        if size > 0:
            top = np.sort(np.append(ordered[-size:], own))[-size:]
            # too few for a mean excess of their own: of all that there are, over nothing found
            self._from = float(top[0]) if size >= TAIL_LEAST else 0.0
            self._excess = float(np.mean(top - self._from))

    def surprise(self, scores: Array, reach: Array) -> Array:
        """Return -log of the share of the bag that reaches each score; reach : how many of the bag do."""
        found: Array = self._log_ranks[reach - 1]
        if self._excess > 0:
            beyond = scores > self._from
            found[beyond] = self._log_ranks[self._size - 1] + (scores[beyond] - self._from) / self._excess
        return found


# --------------------------------------------------------------------------------------------------------------
# Strata


def least_scans(flag_rate: float) -> int:
    """Return how many scans a stratum of its own needs; also the fewest that a lane can be calibrated on."""
    return int(np.ceil(EXPECTED_FLAGS / flag_rate))


def strata_of(cells: Iterable[Cell], least: int) -> tuple[dict[Cell, int], tuple[str, ...]]:
    """Divide what scans are (texture, chapter) into strata that have enough of them.

    A cell of its own from `least` scans on; the rest of a texture together if there are as many; what then is left
    together; and if even that is too few, with the smallest stratum. So every scan has exactly one stratum, one like
    none before as well, and within it the promise holds. Cells are counted, scores are not looked at.

    Returns the stratum's number per cell, where ANY stands for every other, and the strata in words.
    """
    left = Counter(cells)
    table: dict[Cell, int] = {}
    words: list[str] = []
    sizes: list[int] = []

    def open_stratum(text: str, members: Sequence[Cell], key: Cell) -> None:
        sizes.append(sum(left.pop(cell) for cell in members))
        for cell in (*members, key):
            table[cell] = len(words)
        words.append(text)

    for cell, count in sorted(left.items()):
        if count >= least:
            open_stratum(f"{cell[0]}, {chapter_words(cell[1])}", [cell], cell)
    for texture in sorted({t for t, _ in left}):
        members = sorted(cell for cell in left if cell[0] == texture)
        if sum(left[m] for m in members) >= least:
            text = f"{texture}, goods of any chapter" if not words else f"{texture}, goods of other chapters"
            open_stratum(text, members, (texture, ANY))
    if sum(left.values()) >= least or not words:
        open_stratum("any other load" if words else "all scans", sorted(left), (ANY, ANY))
        return table, tuple(words)
    smallest = int(np.argmin(sizes))
    if left:
        words[smallest] += ", and what is rare on this lane"
    for cell in (*left, (ANY, ANY)):
        table[cell] = smallest
    return table, tuple(words)


def chapter_words(chapter: str) -> str:
    """Say a declared chapter."""
    return f"HS {chapter}" if chapter.isdecimal() else chapter


def level_of(flag_rate: float, scans: int, confidence: float) -> float:
    """Return the p-value up to which a scan is flagged.

    The rate that one calibration of n scans realises at level k / (n + 1) is Beta(k, n + 1 - k) distributed: half of
    all lanes would be above a promise kept only on average. So k is the largest with which the rate stays at or below
    the promise on a share `confidence` of lanes. 0 where n is too small for any k.

    Source: Vovk (2012), proposition 2.
    """
    k = int(flag_rate * (scans + 1))
    while k > 0 and betaincinv(k, scans + 1 - k, confidence) > flag_rate:
        k -= 1
    return k / (scans + 1)


# --------------------------------------------------------------------------------------------------------------
# A calibrated lane


class Verdict:
    """What a lane's calibration says of one scan.

    stratum, scans : what the scan was compared with, in words, and how many scans that were
    p_value : of the whole scan; flagged where it is at most `level`
    unknown : in words, that the lane has too few scans of its look to call it usual, whatever its p-value; else empty
    """

    def __init__(
        self, ranked: Ranked, kinds: tuple[str, ...], stratum: str, scans: int, level: float, unknown: str = ""
    ) -> None:
        self._ranked, self._kinds = ranked, kinds
        self.stratum, self.scans, self.level, self.unknown = stratum, scans, level, unknown
        self.p_value = ranked.p_value

    def p_of(self, kind: str, score: float) -> float | None:
        """Return the p-value of a candidate, adjusted for all kinds; None for a kind that was not calibrated."""
        return self._ranked.p_of(self._kinds.index(kind), score) if kind in self._kinds else None

    def words(self, p_value: float) -> str:
        """Say a p-value in scans of the lane."""
        stranger = round(p_value * (self.scans + 1)) - 1
        many = f"{stranger} of" if stranger else "none of"
        return (
            f"{many} the {self.scans} scans without a find that this lane was calibrated on ({self.stratum}) "
            f"{'shows' if stranger <= 1 else 'show'} anything as strange, p = {p_value:.2g}"
        )


class Calibration(NamedTuple):
    """A lane's profile, made ready to judge by."""

    profile: LaneProfile
    groups: tuple[Group, ...]
    table: dict[Cell, int]
    textures: dict[str, int]

    def stratum_of(self, cell: Cell) -> int:
        """Return the number of a scan's stratum; every scan has one."""
        return next(self.table[c] for c in (cell, (cell[0], ANY), (ANY, ANY)) if c in self.table)

    def judge(self, scores: dict[str, float], cell: Cell) -> Verdict:
        """Return what a scan's scores mean on this lane. cell : its texture and declared chapter."""
        p = self.profile
        own = np.array([scores.get(kind, -np.inf) for kind in p.kinds], np.float64)
        at = self.stratum_of(cell)
        group = self.groups[at]
        return Verdict(group.rank(own), p.kinds, p.strata[at].words, group.scans, p.level, self._unknown(cell[0]))

    def _unknown(self, texture: str) -> str:
        have = self.textures.get(texture, 0)
        if have >= LEAST_KNOWN:
            return ""
        return (
            f"{have or 'none'} of the {self.profile.scans} scans that this lane was calibrated on "
            f"{'is' if have == 1 else 'are'} of its look ({texture}), {LEAST_KNOWN} are needed to know one"
        )


@lru_cache(maxsize=8)
def calibration_of(profile: LaneProfile) -> Calibration:
    """Return the profile made ready; the same object again for the same profile."""
    weights = np.array(profile.weights)
    table = {cell: number for number, stratum in enumerate(profile.strata) for cell in stratum.cells}
    groups = tuple(
        Group(profile.scores[profile.stratum_of_scan == number], weights) for number in range(len(profile.strata))
    )
    return Calibration(profile, groups, table, textures_of(profile))


def textures_of(profile: LaneProfile) -> dict[str, int]:
    """Return the number of scans that a profile was learned from by the texture of their load."""
    return dict(Counter(profile.cells[i][0] for i in profile.cell_of_scan))
