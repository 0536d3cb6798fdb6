"""Training of the fuser: trees that tell cells with an object put there from cells of clean scans.

Everything a scan in training is compared with (usual scores, bank) is learnt from other groups of scans, as it will be
for a scan to come; without that a fuser trusts maps more than they deserve. An insertion weighs the same whatever its
size, and less the less of it can be seen at all.

Source: Ke et al., "LightGBM", NIPS 2017, whose histogram method scikit-learn's trees follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from triage.analysis.fuser import FEATURES, About, Fuser, Trees, features_of
from triage.analysis.maps import CELL, PATCHES, Maps
from triage.analysis.normal import Normal, learn_normals
from triage.analysis.patches import strangeness
from triage.analysis.unlike import look_at

Array: TypeAlias = NDArray[Any]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How trees are grown.

    trees, leaves, rate, least_in_leaf, l2 : of the boosting
    clean_cells, beside_cells, object_cells : at most so many cells of a clean scan, of a scan with an object beside it,
        and of the object
    clean_weight, beside_weight : weight of all clean cells, and of all cells beside objects, in insertions
    seen_cnr : insertions with this contrast to noise count in full, others in proportion
    threshold_folds : parts of the groups for thresholds, each with trees of its own; 0 for a fuser without thresholds
    """

    trees: int = 150
    leaves: int = 16
    rate: float = 0.08
    least_in_leaf: int = 200
    l2: float = 1.0
    clean_cells: int = 6000
    beside_cells: int = 200
    object_cells: int = 60
    clean_weight: float = 2.0
    beside_weight: float = 1.0
    seen_cnr: float = 1.0
    threshold_folds: int = 4


class Cells(NamedTuple):
    """Some cells of one scan, as far as they do not depend on other scans.

    values : per map, (n,) float32; at : (n,) flat indices in maps of `shape`; codes : of all patches, float16
    positive : (n,) bool; weight : of the scan's insertion
    """

    values: dict[str, Array]
    at: Array
    shape: tuple[int, int]
    codes: tuple[Array, ...]
    positive: Array
    weight: float


def cells_of(
    maps: Maps, rng: np.random.Generator, options: Options, share: Array | None = None, cnr: float = 1.0
) -> Cells:
    """Return cells to learn from.

    share : (rows, columns) of every cell that the object covers; None for a clean scan
    """
    seen = maps.seen.ravel()
    if share is None:
        own = np.zeros(0, np.int64)
        other = np.flatnonzero(seen)
        count = options.clean_cells
    else:
        covered = share.ravel()
        own = np.flatnonzero(seen & (covered >= min(0.5, 0.8 * float(covered.max(initial=0)))) & (covered > 0))
        # what is near an object is neither: the maps see it from there
        far = cv2.dilate((share > 0).astype(np.uint8), np.ones((15, 15), np.uint8)) == 0
        other = np.flatnonzero(seen & far.ravel())
        count = options.beside_cells
    own = rng.permutation(own)[: options.object_cells]
    at = np.concatenate([own, rng.permutation(other)[:count]])
    values = {name: v.ravel()[at] for name, v in maps.values.items() if not name.startswith("bank_")}
    positive = np.arange(len(at)) < len(own)
    weight = float(np.clip(cnr / options.seen_cnr, 0.05, 1.0))
    return Cells(values, at, maps.shape, tuple(c.astype(np.float16) for c in maps.codes), positive, weight)


def share_of(mask: Array, to_grid: Array, shape: tuple[int, int]) -> Array:
    """Return the share of every cell that a mask of the image covers."""
    size = (shape[1] * CELL, shape[0] * CELL)
    straight = cv2.warpPerspective(mask.astype(np.float32), to_grid, size, flags=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(straight, shape[::-1], interpolation=cv2.INTER_AREA))


def rows_of(cells: Cells, normal: Normal, names: tuple[str, ...] = FEATURES) -> Array:
    """Return (n, names) float32: what the trees see of some cells beside what is normal."""
    values = dict(cells.values)
    for size, codes, patches in zip(PATCHES, cells.codes, normal.bank.codes, strict=True):
        found = strangeness(codes.astype(np.float32), patches, cells.shape, apart=0)
        values[f"bank_{size.side}"] = found.ravel()[cells.at]
    return features_of(values, normal, cells.shape, cells.at, names)


class _Part(NamedTuple):
    """Rows of one scan. clean : it has no insertion."""

    group: str
    clean: bool
    rows: Array
    positive: Array
    weight: float


def train(
    clean: Sequence[Maps], groups: Sequence[str], inserted: Iterable[tuple[str, Cells]], rng: np.random.Generator,
    options: Options, about: About,
) -> Fuser:  # fmt: skip
    """Return a fuser.

    clean : maps of clean scans, groups : of each
    inserted : group and cells of scans with an insertion

    Its thresholds are measured on the clean scans of every part of the groups, by trees grown without that part.
    """
    normal, without = learn_normals(clean, rng, groups)
    parts = []
    for maps, group in zip(clean, groups, strict=True):
        cells = cells_of(maps, rng, options)
        parts.append(_Part(group, True, rows_of(cells, without[group]), cells.positive, 1.0))
    parts += [_Part(g, False, rows_of(c, without[g]), c.positive, c.weight) for g, c in inserted]
    seed = int(rng.integers(2**31))
    names = sorted(set(groups))
    found: list[tuple[str, list[float]]] = []
    for fold in range(min(options.threshold_folds, len(names))):
        held_out = set(names[fold :: options.threshold_folds])
        trees = _grown_without(parts, held_out, seed, options)
        for maps, group in zip(clean, groups, strict=True):
            if group in held_out:
                found.append(_places(maps, without[group], trees, about))
    trees = _grown_without(parts, set(), seed, options)
    return Fuser(features=FEATURES, trees=trees, normal=normal, thresholds=thresholds_of(found), about=about)


def _places(maps: Maps, normal: Normal, trees: Trees, about: About) -> tuple[str, list[float]]:
    """Return texture and scores of the places of a clean scan."""
    seen = look_at(maps, Fuser(features=FEATURES, trees=trees, normal=normal, thresholds={}, about=about))
    return seen.texture, [p.score for p in seen.places]


def thresholds_of(found: Sequence[tuple[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    """Return by texture, and for "any", the scores that one place per scan and one place in ten scans exceed.

    found : texture of every clean scan and scores of its places

    A texture that few scans have is drawn towards all of them.
    """
    if not found:
        return {}
    every = _limits([scores for _, scores in found])
    limits = {"any": every}
    for texture in sorted({t for t, _ in found}):
        own = [scores for t, scores in found if t == texture]
        share = len(own) / (len(own) + _SCANS_FOR_A_TEXTURE)
        limits[texture] = {k: share * v + (1 - share) * every[k] for k, v in _limits(own).items()}
    return limits


_SCANS_FOR_A_TEXTURE = 8
"""Scans of a texture that weigh as much as all others together."""


def _limits(places: Sequence[Sequence[float]]) -> dict[str, float]:
    scores = np.sort(np.concatenate([np.asarray(p, np.float64) for p in places]))[::-1]
    if scores.size == 0:
        return {"one": 0.0, "tenth": 1.0}
    one, tenth = (float(scores[min(int(rate * len(places)), scores.size - 1)]) for rate in (1.0, 0.1))
    # few scans of one look can have both at one place; the scale needs a step
    return {"one": one, "tenth": max(tenth, one + 0.5)}


def _grown_without(parts: Sequence[_Part], held_out: set[str], seed: int, options: Options) -> Trees:
    """Return trees grown on all rows but those of some groups."""
    used = [p for p in parts if p.group not in held_out]
    x, y = np.concatenate([p.rows for p in used]), np.concatenate([p.positive for p in used])
    scans = sum(p.clean for p in used)
    objects = sum(p.weight for p in used if p.positive.any())
    weights = []
    for p in used:
        if p.clean:
            weights.append(np.full(len(p.rows), options.clean_weight * objects / scans / len(p.rows)))
        else:
            own = int(p.positive.sum())
            beside = options.beside_weight / max(len(p.rows) - own, 1)
            weights.append(np.where(p.positive, p.weight / max(own, 1), beside))
    return grown(x, y, np.concatenate(weights), np.random.default_rng(seed), options)


def grown(x: Array, y: Array, weight: Array, rng: np.random.Generator, options: Options) -> Trees:
    """Return trees that tell the rows of `x` where `y` is True from the others.

    The trees are given the numbers of bins and not values: with weights scikit-learn (1.9) sorts a column anew for each
    of its edges, which takes longer than all trees together. The edges are the same.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=options.trees, max_leaf_nodes=options.leaves, learning_rate=options.rate,
        min_samples_leaf=options.least_in_leaf, l2_regularization=options.l2, early_stopping=False,
        random_state=int(rng.integers(2**31)),
    )  # fmt: skip
    edges = [edges_of(column, weight) for column in x.T]
    bins = np.stack([np.searchsorted(e, column) for e, column in zip(edges, x.T, strict=True)], axis=1)
    # weights of mean 1, so that l2 means the same for every amount of data
    model.fit(bins.astype(np.float32), y, sample_weight=weight * len(weight) / weight.sum())
    return exported(model, edges)


_BINS = 255


def edges_of(values: Array, weight: Array) -> Array:
    """Return the edges between bins of equal weight, or of one value each where there are few; ascending.

    Bin k holds what is above edge k - 1 and at most edge k. As in scikit-learn, but for the mean of two values where a
    weight ends exactly at an edge.
    """
    order = np.argsort(values)
    ordered = values[order].astype(np.float64)
    distinct = np.unique(ordered)
    if distinct.size <= _BINS:
        return np.asarray((distinct[:-1] + distinct[1:]) / 2)
    upto = np.cumsum(weight[order])
    at = np.searchsorted(upto, np.arange(1, _BINS) / _BINS * upto[-1])
    return np.unique(ordered[np.minimum(at, ordered.size - 1)])


def exported(model: Any, edges: Sequence[Array]) -> Trees:
    """Return the trees of a fitted HistGradientBoostingClassifier with two classes as plain arrays.

    edges : per feature, of the bins whose numbers it was fitted with
    """
    # scikit-learn has no public way to its trees; a test compares the sums with its own decision_function
    predictors = [stage[0].nodes for stage in model._predictors]  # noqa: SLF001
    nodes: list[tuple[int, float, int, float]] = []
    roots = []
    for tree in predictors:
        roots.append(len(nodes))
        _emit(tree, 0, nodes)
    feature, threshold, right, value = zip(*nodes, strict=True)
    # of a leaf it is 0, and feature -1
    limit = np.array([edges[f][int(t)] if f >= 0 else t for f, t in zip(feature, threshold, strict=True)])
    rounded = limit.astype(np.float32)
    # rounded down, so that float32 features fall on the same side as in double precision
    rounded = np.where(rounded > limit, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return Trees(
        feature=np.array(feature, np.int16), threshold=rounded.astype(np.float32), right=np.array(right, np.int32),
        value=np.array(value, np.float32), root=np.array(roots, np.int32),
        base=float(np.ravel(model._baseline_prediction)[0]),  # noqa: SLF001
    )  # fmt: skip


def _emit(tree: Array, index: int, nodes: list[tuple[int, float, int, float]]) -> None:
    """Append a node and all below it, the left child directly behind its parent."""
    node = tree[index]
    if node["is_leaf"]:
        nodes.append((-1, 0.0, 0, float(node["value"])))
        return
    here = len(nodes)
    nodes.append((int(node["feature_idx"]), float(node["num_threshold"]), 0, 0.0))
    _emit(tree, int(node["left"]), nodes)
    nodes[here] = (*nodes[here][:2], len(nodes), 0.0)
    _emit(tree, int(node["right"]), nodes)
