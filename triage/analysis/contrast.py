"""Places that differ from their surroundings more than the surroundings are restless."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .cargo_grid import CargoGrid, Rect, overlap
from .regions import Candidate
from .screening import Z_STEPS

Array: TypeAlias = NDArray[Any]


def contrasts(cargo: CargoGrid) -> list[tuple[float, Rect]]:
    """Return signed score and grid rectangle of places that differ from their surroundings, best first."""
    p = cargo.p
    found: list[tuple[float, Rect]] = []
    for share in p.contrast_scales:
        found += _spots_at(cargo, max(2, round(share * cargo.depth.shape[0])))
    found.sort(key=lambda f: (-abs(f[0]) / review_score(cargo, f[0]), f[1]))
    kept: list[tuple[float, Rect]] = []
    for score, at in found:
        if not any(overlap(at, other) for _, other in kept):
            kept.append((score, at))
        if len(kept) >= p.max_findings:
            break
    return kept


def review_score(cargo: CargoGrid, score: float) -> float:
    """Return the size a signed contrast score must reach for a review."""
    return cargo.p.contrast_review if score > 0 else cargo.p.light_review


def _spots_at(cargo: CargoGrid, half: int) -> list[tuple[float, Rect]]:
    p, (rows, columns) = cargo.p, cargo.inner
    depth = cargo.depth[rows, columns]
    if min(depth.shape) < 6 * half:
        return []
    seen = (cargo.transmission[rows, columns] >= cargo.opaque_t).astype(np.float32)
    contrast = _box_contrast(depth, half)
    # an edge of what cannot be seen says nothing: at least 60 % of the surroundings must be visible
    visible = cv2.blur(seen, (6 * half + 1, 6 * half + 1)) >= 0.6
    contrast, structure = _without_rows_and_columns(contrast, visible, 2 * half)
    window = 2 * round(p.unrest_share * cargo.depth.shape[0] / 2) + 1
    weight = cv2.blur(visible.astype(np.float32), (window, window)) + 1e-3
    unrest = cv2.blur(np.where(visible, contrast**2, 0).astype(np.float32), (window, window)) / weight
    unrest += structure + p.unrest_floor**2
    score = np.where(visible, contrast / np.sqrt(unrest), 0).astype(np.float32)
    found = []
    for sign in (1.0, -1.0):
        found += _peaks(cargo, sign * score, sign * contrast, half, sign)
    return found


def _peaks(cargo: CargoGrid, score: Array, contrast: Array, half: int, sign: float) -> list[tuple[float, Rect]]:
    """Return the strongest compact regions of one sign at one scale."""
    p, (rows, columns) = cargo.p, cargo.inner
    found = []
    mask = ((score >= 0.6 * p.contrast_note) & (contrast >= 0.6 * p.contrast_min)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for label in range(1, count):
        x, y, w, h, area = (int(v) for v in stats[label])
        if area < half * half or max(w, h) > 6 * min(w, h) or area > p.max_area_share * score.size:
            continue
        inside = labels[y : y + h, x : x + w] == label
        peak = float(score[y : y + h, x : x + w][inside].max())
        if peak < p.contrast_note or float(contrast[y : y + h, x : x + w][inside].max()) < p.contrast_min:
            continue
        at = (x + columns.start, y + rows.start, x + w + columns.start, y + h + rows.start)
        found.append((sign * peak, at))
    return found


def contrast_candidate(cargo: CargoGrid, score: float, at: Rect) -> Candidate:
    """Return what is to be said of a signed contrast score."""
    inside, around = cargo.levels(at)
    x0, y0, x1, y1 = at
    steepest = float(cargo.z[y0:y1, x0:x1].max()) / Z_STEPS
    sharp = f", pixel z {steepest:.1f}" if steepest >= cargo.p.threshold_z else ""
    words = (
        f"{'darker' if score > 0 else 'lighter'} than its surroundings {cargo.place(at)}: "
        f"{cargo.darker(inside, around)}; {abs(score):.1f} times the unrest around it{sharp}"
    )
    return Candidate("local_contrast_dark" if score > 0 else "local_contrast_light", abs(score), at, words)


def _box_contrast(depth: Array, half: int) -> Array:
    """Return mean over a box minus mean over the ring around it, up to three times as wide."""
    inner, outer = 2 * half + 1, 6 * half + 1
    inside = cv2.blur(depth, (inner, inner), borderType=cv2.BORDER_REPLICATE)
    all_of_it = cv2.blur(depth, (outer, outer), borderType=cv2.BORDER_REPLICATE)
    area = (inner / outer) ** 2
    return np.asarray((inside - all_of_it) / (1 - area))


def _without_rows_and_columns(contrast: Array, visible: Array, reach: int) -> tuple[Array, Array]:
    """Return the contrast less what is common to its row and to its column, and the square of what was taken away.

    Ribs, seams, rails and gaps between stacks are common. Where a post meets a rail there is more than both, a casting
    or a bracket; so what lies within `reach` of structure must stand out against the structure as well.
    """
    left = np.where(visible, contrast, 0.0)
    structure = np.zeros_like(left)
    for axis in (1, 0):
        common = np.median(left, axis=axis, keepdims=True)
        left = left - common
        size = (1, 2 * reach + 1) if axis == 1 else (2 * reach + 1, 1)
        structure += cv2.dilate(common**2, np.ones(size[::-1], np.uint8))
    return np.asarray(np.where(visible, left, 0.0).astype(np.float32)), structure
