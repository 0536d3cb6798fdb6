"""What score is usual at a place of a container: end frames, floor strip and roof beams have it high in every scan.

A score is divided by the 97th percentile that clean scans have at the same distance to the nearer end and the same
height. Of all single measures this gained the most: without it nearly all of the strongest places are structure.
The scans a table is learnt from must not include the one that is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

NORMALISED = (
    "z_7_63", "z_21_81", "self_16", "self_32", "bank_16", "bank_32", "low_rank", "rx", "dog_4", "dog_8", "dog_16",
    "top_hat_15", "top_hat_41", "row_contrast_52", "over_row",
)  # fmt: skip
"""Maps that are given as shares of what is usual as well."""
SHARE = 97.0
_END_EDGES = (0.02, 0.04, 0.06, 0.08, 0.11, 0.15, 0.2, 0.3, 0.5)
"""Between bins of distance to the nearer end, in container heights: an end frame is about as deep in every length."""
END_BINS, HEIGHT_BINS = len(_END_EDGES) + 1, 23
_POINTS = 32
"""Values that stand for all of one scan in one bin: their distribution."""
_LEAST = 0.25
"""Of the map's median table value: a bin where nothing ever happens must not make noise into a finding."""


class PositionTables(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Usual scores by place.

    names : maps; values : (maps, END_BINS, HEIGHT_BINS) float32, above 0
    """

    names: tuple[str, ...]
    values: Array

    def usual(self, name: str, shape: tuple[int, ...]) -> Array:
        """Return `shape` float32: what is usual of a map at its places."""
        end, height = bins(shape)
        return np.asarray(self.values[self.names.index(name)][end[None, :], height[:, None]])

    def normalised(self, name: str, score: Array) -> Array:
        """Return a map as a share of what is usual at its places."""
        return np.asarray(score / self.usual(name, score.shape), np.float32)


def bins(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the bin of distance to the end of every column, and of height of every row, of `shape` cells."""
    rows, columns = shape
    across = (np.arange(columns) + 0.5) / rows
    end = np.searchsorted(_END_EDGES, np.minimum(across, across[::-1]))
    return end, np.arange(rows) * HEIGHT_BINS // rows


def sketch(values: dict[str, Array], seen: Array) -> Array:
    """Return (maps, END_BINS, HEIGHT_BINS, points) float32: what sizes the scores of one clean scan have, by place.

    NaN where nothing of the scan can be seen; the maps are those of NORMALISED that are there, in its order.
    """
    end, height = bins(seen.shape)
    names = [n for n in NORMALISED if n in values]
    found = np.full((len(names), END_BINS, HEIGHT_BINS, _POINTS), np.nan, np.float32)
    stack = np.abs(np.stack([values[n] for n in names]))
    at = 100 * (np.arange(_POINTS) + 0.5) / _POINTS
    for e in range(END_BINS):
        for h in range(HEIGHT_BINS):
            of_bin = np.ix_(height == h, end == e)
            inside = seen[of_bin]
            if inside.sum() >= 4:
                scores = stack[:, height == h][:, :, end == e][:, inside]
                found[:, e, h] = np.percentile(scores, at, axis=1).T
    return found


def tables_of(sketches: Sequence[Array], names: Sequence[str]) -> PositionTables:
    """Return the tables of all scans together, every scan with the same weight.

    sketches : of the same maps, at least one
    """
    together = np.stack(sketches)
    pooled = np.moveaxis(together, 0, -2).reshape(*together.shape[1:-1], -1)
    usual = np.full(pooled.shape[:-1], np.nan, np.float32)
    known = ~np.isnan(pooled).all(axis=-1)
    usual[known] = np.nanpercentile(pooled[known], SHARE, axis=-1)
    for table in usual:
        level = float(np.nanmedian(table)) if np.isfinite(table).any() else 1.0
        # what no scan has shown is taken for usual
        table[np.isnan(table)] = level
        np.maximum(table, max(_LEAST * level, 1e-6), out=table)
    return PositionTables(names=tuple(names), values=usual)
