"""Whether there is cargo in a container, and how much of it cannot be seen."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Finding, Load, Tier

from .cargo_grid import CargoGrid

Array: TypeAlias = NDArray[Any]


def load_of(cargo: CargoGrid) -> tuple[Load, float]:
    """Return the load and the share of the cargo area that is cargo."""
    p, depth = cargo.p, cargo.depth[cargo.inner]
    loaded = min(-np.log(p.load_t), cargo.wall - np.log(p.load_ratio))
    size = max(3, round(p.bulk_share * cargo.depth.shape[0]))
    element = np.ones((size, size), np.uint8)
    share, light = (
        float(cv2.morphologyEx((depth > over).astype(np.uint8), cv2.MORPH_OPEN, element).mean())
        for over in (loaded, cargo.wall - np.log(p.light_ratio))
    )
    if share >= p.loaded_share:
        return "loaded", share
    walls_only = light <= p.light_share and cargo.wall <= -np.log(p.wall_t)
    return ("empty" if share <= p.empty_share and walls_only else "unknown"), share


def opaque_part(cargo: CargoGrid) -> tuple[float, list[Finding]]:
    """Return the share of the cargo area in which nothing can be seen, and the finding that says so."""
    p = cargo.p
    dark: Array = (cargo.transmission[cargo.inner] < cargo.opaque_t).astype(np.uint8)
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    share = float(dark.mean())
    if share < p.opaque_note_share:
        return share, []
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    y, x = cargo.inner[0].start, cargo.inner[1].start
    at = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
    kind = "transmission" if cargo.physical else "display grey value"
    reason = (
        f"uninspectable: {share:.0%} of the cargo area has a {kind} below {cargo.opaque_t:.3f} and cannot be judged "
        f"from this image; it lies {cargo.place(at)}"
    )
    tier: Tier = "review" if share >= p.opaque_review_share else "note"
    return share, [Finding(kind="opaque", score=share, reason=reason, tier=tier, where=cargo.box(at))]
