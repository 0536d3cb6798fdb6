"""What loads of each declared chapter looked like before, and how far a load is from that.

A history is learnt from scans with declarations, by `scanlane calibrate`: per chapter of the Harmonized System the
median and spread of every trait of the load. Few scans say little of a spread, so it is drawn towards that of all
chapters within themselves. Where a chapter has no history nothing is said.

Goods of a chapter may look like anything (machines, toys); their spread is wide then, and hardly anything is far. What
the literature reaches with far more (51 % of 22 categories) says what to expect: a load that is far from its own
chapter is worth a question, one that is near has not been recognised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scanner_io.model import Declaration

from .goods_profile import NAMES, Chapter, GoodsHistory
from .load_traits import Traits
from .regions import Candidate

KIND = "differs_from_declared"
NOTE = 4.0
"""Root mean square of the deviations, in spreads of the chapter: innocent loads have about 1."""
LEAST_SCANS = 8
"""Of a chapter, for a history."""
PRIOR_SCANS = 10.0
"""So many scans is the spread of all chapters worth beside a chapter's own."""
MOST = 9.0
"""Spreads at which one deviation is cut: a single odd number must not decide."""


def chapters_of(declaration: Declaration | None) -> tuple[str, ...]:
    """Return the declared chapters, two digits each, sorted."""
    return tuple(sorted({code[:2] for code in declaration.hs_codes})) if declaration is not None else ()


def learn(loads: Sequence[tuple[str, Traits]]) -> GoodsHistory:
    """Return the history of loads: chapter and traits of each, those with one declared chapter only."""
    by: dict[str, list[Traits]] = {}
    for digits, traits in loads:
        by.setdefault(digits, []).append(traits)
    centred = [np.stack(of) - np.median(np.stack(of), axis=0) for of in by.values() if len(of) >= 3]
    if not centred:
        return GoodsHistory(chapters={})
    pooled = np.maximum(_spread(np.concatenate(centred)), 0.02)
    chapters = {}
    for digits, of in sorted(by.items()):
        if len(of) < LEAST_SCANS:
            continue
        all_of = np.stack(of)
        own = _spread(all_of - np.median(all_of, axis=0))
        spread = np.sqrt((len(of) * own**2 + PRIOR_SCANS * pooled**2) / (len(of) + PRIOR_SCANS))
        median = tuple(float(v) for v in np.median(all_of, axis=0))
        chapters[digits] = Chapter(scans=len(of), median=median, spread=tuple(float(v) for v in spread))
    return GoodsHistory(chapters=chapters)


def _spread(deviations: Traits) -> Traits:
    return np.asarray(1.4826 * np.median(np.abs(deviations), axis=0))


def distance(chapter: Chapter, traits: Traits) -> float:
    """Return how far a load is from its chapter's: root mean square deviation in spreads."""
    return float(np.sqrt(np.mean(_deviations(chapter, traits) ** 2)))


def _deviations(chapter: Chapter, traits: Traits) -> Traits:
    off = (traits - np.array(chapter.median)) / np.array(chapter.spread)
    return np.asarray(np.clip(off, -MOST, MOST))


def differs_from_declared(
    traits: Traits | None, declaration: Declaration | None, history: GoodsHistory | None
) -> list[Candidate] | None:
    """Return how far the load is from what was declared; None without a load, a declaration or a history of all of it.

    Of several declared chapters the nearest counts: the others may be a part of the load.
    """
    declared = chapters_of(declaration)
    if traits is None or history is None or not declared or any(d not in history.chapters for d in declared):
        return None
    score, digits = min((distance(history.chapters[d], traits), d) for d in declared)
    chapter = history.chapters[digits]
    off = _deviations(chapter, traits)
    worst = np.argsort(-np.abs(off))[:2]
    said = "; ".join(
        f"{NAMES[i]}: {traits[i]:.2f}, usual {chapter.median[i] - chapter.spread[i]:.2f} to "
        f"{chapter.median[i] + chapter.spread[i]:.2f}"
        for i in worst
    )
    named = declaration.goods if declaration is not None and declaration.goods else "goods"
    words = (
        f"unlike earlier loads declared as HS chapter {digits} ({named}): {score:.1f} spreads from {chapter.scans} of "
        f"them; most of all {said}"
    )
    return [Candidate(KIND, score, None, words)]
