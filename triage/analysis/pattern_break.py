"""A cell of a stacked or periodic load that holds more than its like.

Loads of cartons, drums and pallets repeat along the container. The period is found by autocorrelation of the columns;
the load is cut into cells of one period; each is shifted to where it fits their median best, for stacks do not stand
evenly; and every place of a cell is held against the same place of the others, by their median and the spread of their
deviations. More than that is looked for, not less: gaps and missing boxes are common and hide nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .cells import Array, Cells
from .regions import Candidate

KIND = "pattern_break"
NOTE = 5.0
"""Mean excess over a box, in spreads of the other cells."""
PERIOD_MM = (250.0, 2600.0)
LEAST_CELLS = 5
LEAST_CORRELATION = 0.55
"""Of the load with itself one period on, over all columns that both have."""
SHIFT = 0.12
"""By how much of a period a cell may be moved to fit."""
BOX_MM = (100.0, 200.0, 400.0)
SPREAD_FLOOR = 0.05
"""-ln T: less unrest than 5 % of brightness is not believed."""
LOADED = 0.3


class _Pattern(NamedTuple):
    """Cells of one period. stack : (cells, rows, period) -ln T; first : column of each cell in the container."""

    stack: Array
    first: list[int]
    period: int
    correlation: float


def pattern_breaks(cells: Cells) -> list[Candidate] | None:
    """Return the places that hold more than their like; None where the load does not repeat."""
    pattern = _pattern(cells)
    if pattern is None:
        return None
    excess, spread = _against_its_like(pattern.stack)
    seen = np.stack([cells.seen[:, x : x + pattern.period] for x in pattern.first])
    found = []
    for mm in BOX_MM:
        found += _peaks(cells, pattern, excess, spread, seen, cells.cells(mm))
    best: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: (-c.score, c.at)):
        if len(best) < 3 and all(candidate.at != b.at for b in best):
            best.append(candidate)
    return best


def _pattern(cells: Cells) -> _Pattern | None:
    """Return the load cut into cells of its period, None where it has none."""
    rows = slice(cells.roof, cells.floor)
    depth = np.minimum(cells.above, 4.0)
    inner = slice(cells.left, cells.right)
    loaded = (depth[rows, inner] > LOADED).mean(axis=0) > 0.15
    where = np.flatnonzero(loaded)
    if where.size == 0:
        return None
    first, end = cells.left + int(where[0]), cells.left + int(where[-1]) + 1
    load = depth[rows, first:end]
    found = _period(cells, load)
    if found is None:
        return None
    period, correlation = found
    starts = _starts(cells, load, period)
    if len(starts) < LEAST_CELLS:
        return None
    at = [first + x for x in starts]
    stack = np.stack([depth[:, x : x + period] for x in at])
    return _Pattern(stack, at, period, correlation)


def _period(cells: Cells, load: Array) -> tuple[int, float] | None:
    """Return the shortest period that correlates nearly as well as the best, and its correlation."""
    width = load.shape[1]
    detail = load - cv2.blur(load, (2 * cells.cells(600) + 1, 1), borderType=cv2.BORDER_REPLICATE)
    low, high = cells.cells(PERIOD_MM[0]), min(cells.cells(PERIOD_MM[1]), width // LEAST_CELLS)
    if high <= low + 2:
        return None
    lags = np.arange(low, high + 1)
    found = np.empty(lags.size)
    for i, lag in enumerate(lags):
        a, b = detail[:, :-lag], detail[:, lag:]
        found[i] = float((a * b).sum() / np.sqrt(max(float((a * a).sum() * (b * b).sum()), 1e-9)))
    peaks = [i for i in range(1, lags.size - 1) if found[i] >= max(found[i - 1], found[i + 1])]
    peaks = [i for i in peaks if found[i] >= LEAST_CORRELATION]
    if not peaks:
        return None
    best = max(found[i] for i in peaks)
    i = min(i for i in peaks if found[i] >= 0.85 * best)
    return int(lags[i]), float(found[i])


def _starts(cells: Cells, load: Array, period: int) -> list[int]:
    """Return the first column of every cell, each moved to fit the median of all, twice over."""
    width, reach = load.shape[1], max(1, round(SHIFT * period))
    starts = list(range(reach, width - period - reach + 1, period))
    for _ in range(2):
        if len(starts) < LEAST_CELLS:
            return starts
        model = np.median(np.stack([load[:, x : x + period] for x in starts]), axis=0)
        moved = []
        at = starts[0]
        while at + period <= width:
            options = [x for x in range(at - reach, at + reach + 1) if 0 <= x <= width - period]
            fit = [float(np.abs(load[:, x : x + period] - model).mean()) for x in options]
            best = options[int(np.argmin(fit))]
            moved.append(best)
            at = best + period
        starts = moved
    return starts


def _against_its_like(stack: Array) -> tuple[Array, Array]:
    """Return each cell's excess over the median of the cells, and the spread, (rows, period), of their deviations."""
    middle = np.median(stack, axis=0)
    excess = stack - middle
    spread = 1.4826 * np.median(np.abs(excess), axis=0)
    return excess, np.asarray(spread)


def _peaks(cells: Cells, pattern: _Pattern, excess: Array, spread: Array, seen: Array, size: int) -> list[Candidate]:
    """Return the strongest box of `size` of every cell, by its excess over the spread of such boxes in all cells."""
    if 2 * size > pattern.period:
        return []
    box = (size, size)
    means = np.stack([cv2.blur(e, box, borderType=cv2.BORDER_REPLICATE) for e in excess])
    unrest = 1.4826 * np.median(np.abs(means - np.median(means, axis=0)), axis=0)
    # the same place of few cells gives a rough spread: what is usual along the row steadies it
    steady = np.sqrt(np.mean(unrest**2, axis=1, keepdims=True))
    within = cv2.blur(spread, box, borderType=cv2.BORDER_REPLICATE) / 2
    score = means / np.sqrt(unrest**2 + steady**2 + within**2 + SPREAD_FLOOR**2)
    visible = np.stack([cv2.blur(s.astype(np.float32), box) for s in seen])
    score[visible < 0.7] = 0
    # where its like is free one stack is only higher than the others
    loaded = (np.median(pattern.stack, axis=0) > LOADED).astype(np.float32)
    score[:, cv2.blur(loaded, box, borderType=cv2.BORDER_REPLICATE) < 0.95] = 0
    half = size // 2
    score[:, : cells.roof + half] = score[:, cells.floor - half :] = 0
    found = []
    for number, first in enumerate(pattern.first):
        y, x = np.unravel_index(int(np.argmax(score[number])), score[number].shape)
        value = float(score[number, y, x])
        if value <= 0:
            continue
        y0, x0 = int(y) - half, first + int(x) - half
        at = cells.at(x0, y0, x0 + size, y0 + size)
        more = float(means[number, y, x])
        words = (
            f"more than its like in a load that repeats every {pattern.period * cells.cell_mm / 1000:.2f} m "
            f"({len(pattern.first)} times), {cells.cargo.place(at)}: {1 - np.exp(-more):.0%} darker than the same "
            f"place of the others, {value:.1f} times their spread"
        )
        found.append(Candidate(KIND, value, at, words))
    return found
