"""Detection counted: thresholds from clean images, shares with intervals, and systems compared pair by pair.

Insertions into one image are no independent trials, so every interval but Wilson's draws whole images anew, always the
same ones for all systems; thresholds stand still meanwhile. A group of images is tested at thresholds that other groups
gave, so that realised rates differ from the nominal ones, and are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

BOOTSTRAP = 2000
POINTS: dict[str, tuple[str, float]] = {"fa1": ("regions", 1.0), "fa01": ("regions", 0.1), "far5": ("images", 0.05)}
"""Operating points: false regions per image, or the share of clean images with any."""
NEVER = -np.inf
"""Score of what was not found: below every threshold."""
LEAST = -float(np.finfo(np.float64).max)
"""Threshold that every region reaches."""


NOTHING = "no insertion of this kind found a place in these scans"


class Estimate(NamedTuple):
    """A figure with a 95 % interval over images; hits and of where it is a share, with Wilson's interval.

    why : in words, where there is no value. Of one image there is a value, and no interval over images
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    hits: int | None = None
    of: int | None = None
    why: str = ""

    def plain(self) -> dict[str, Any]:
        """Return it for a report; what could not be measured has the value None, and the reason."""
        rounded = [None if v is None else round(float(v), 4) for v in self[:3]]
        shown: dict[str, Any] = dict(zip(("value", "low", "high"), rounded, strict=True))
        if self.value is None:
            shown["why"] = self.why or NOTHING
        if self.of is None:
            return shown
        low, high = wilson(self.hits or 0, self.of)
        return {**shown, "hits": self.hits, "of": self.of, "wilson": [round(low, 4), round(high, 4)]}


def wilson(hits: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the score interval of a share. Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209."""
    if of == 0:
        return 0.0, 1.0
    p = hits / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * float(np.sqrt(p * (1 - p) / of + z * z / (4 * of * of)))
    return max(0.0, middle - half) if hits else 0.0, min(1.0, middle + half) if hits < of else 1.0


# --------------------------------------------------------------------------------------------------------------
# Thresholds


def threshold(point: str, clean: Sequence[Floats]) -> float:
    """Return the least score that alarms at an operating point of POINTS.

    clean : scores of all regions of every clean image

    As many regions (or images) may reach it as are nearest to the rate, never more where scores are equal; with fewer
    than ten images that is none at 5 %.
    """
    what, rate = POINTS[point]
    scores = np.concatenate(clean) if what == "regions" else np.array([tops(c) for c in clean])
    scores = np.sort(scores[np.isfinite(scores)])[::-1]
    allowed = int(np.floor(rate * len(clean) + 0.5))
    if allowed >= scores.size:
        return float(scores[-1]) if scores.size else LEAST
    return float(np.nextafter(scores[allowed], np.inf))


def fewest(point: str) -> int:
    """Return how many clean scans an operating point is asked of at least: as many as that one alarm is the rate."""
    return max(1, int(np.ceil(0.5 / POINTS[point][1])))


def tops(scores: Floats) -> float:
    """Return the highest of an image's scores."""
    return float(scores.max()) if scores.size else NEVER


# --------------------------------------------------------------------------------------------------------------
# Intervals over images


class Draws:
    """Images drawn anew, with replacement: how often each is in every draw, (draws, images) float64."""

    def __init__(self, images: int, seed: int, groups: Sequence[int] | None = None) -> None:
        rng = np.random.default_rng([seed, 41])
        self.weights = np.zeros((BOOTSTRAP, images))
        labels = np.zeros(images, np.int64) if groups is None else np.asarray(groups)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            self.weights[:, members] = rng.multinomial(members.size, np.full(members.size, 1 / members.size), BOOTSTRAP)

    def share(self, hits: Bools, image: Ints) -> Estimate:
        """Return a share of trials; image : the image of every trial."""
        of = self._per_image(np.ones(hits.size), image)
        found = self._per_image(hits.astype(np.float64), image)
        if hits.size == 0:
            return Estimate(None, hits=0, of=0)
        drawn = self._ratio(self.weights @ found, self.weights @ of)
        low, high = self._interval(drawn)
        return Estimate(float(hits.mean()), low, high, int(hits.sum()), hits.size)

    def difference(self, a: Bools, b: Bools, image: Ints) -> Estimate:
        """Return the share of a less that of b, on the same trials."""
        if a.size == 0:
            return Estimate(None)
        of = self._per_image(np.ones(a.size), image)
        found = self._per_image(a.astype(np.float64) - b, image)
        drawn = self._ratio(self.weights @ found, self.weights @ of)
        return Estimate(float(a.mean() - b.mean()), *self._interval(drawn))

    def mean(self, values: Floats) -> Estimate:
        """Return the mean of one value per image."""
        drawn = self._ratio(self.weights @ values, self.weights.sum(axis=1))
        return Estimate(float(values.mean()), *self._interval(drawn))

    def largest_mean(self, values: Floats, groups: Sequence[int]) -> Estimate:
        """Return the largest mean of a group of images; meant for draws within groups."""
        labels = np.asarray(groups)
        means, drawn = [], []
        for label in np.unique(labels):
            own = labels == label
            means.append(float(values[own].mean()))
            drawn.append(self._ratio(self.weights[:, own] @ values[own], self.weights[:, own].sum(axis=1)))
        return Estimate(max(means), *self._interval(np.max(drawn, axis=0)))

    def area_under_curve(self, clean: Floats, inserted: Floats, image: Ints) -> Estimate:
        """Return the chance that an image with an insertion scores above a clean one, ties being halves.

        clean : (images,), inserted : (insertions,) highest score of an image
        """
        if inserted.size == 0:
            return Estimate(None)
        above = (inserted[:, None] > clean).astype(np.float64) + 0.5 * (inserted[:, None] == clean)
        pairs = np.zeros((clean.size, clean.size))
        np.add.at(pairs, image, above)
        of = self._per_image(np.ones(inserted.size), image)
        w = self.weights
        drawn = self._ratio(((w @ pairs) * w).sum(axis=1), (w @ of) * w.sum(axis=1))
        return Estimate(float(above.mean()), *self._interval(drawn))

    def _per_image(self, values: Floats, image: Ints) -> Floats:
        return np.asarray(np.bincount(image, values, minlength=self.weights.shape[1]), np.float64)

    def _interval(self, drawn: Floats) -> tuple[float, float] | tuple[None, None]:
        """Return the interval of draws; none for one image, where every draw is the same."""
        if self.weights.shape[1] < 2:
            return None, None
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        return float(low), float(high)

    @staticmethod
    def _ratio(over: Floats, under: Floats) -> Floats:
        """Return over / under; NaN, which no interval counts, for draws without a trial."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(under > 0, over / under, np.nan)


# --------------------------------------------------------------------------------------------------------------
# Curves


def froc(clean: Sequence[Floats], score: Floats, chance: Floats) -> tuple[Floats, Floats]:
    """Return false regions per clean image and the share of insertions found, for falling thresholds."""
    every = np.sort(np.concatenate(clean))[::-1] if clean else np.empty(0)
    if every.size == 0:
        return np.zeros(1), np.zeros(1)
    rates = np.arange(1, every.size + 1) / len(clean)
    hits = np.array([np.mean((score >= t) & (chance < t)) if score.size else 0.0 for t in every])
    return rates, hits


def only(a: Bools, b: Bools) -> dict[str, int]:
    """Return how many trials only the first and only the second found."""
    return {"only_first": int((a & ~b).sum()), "only_second": int((b & ~a).sum())}
