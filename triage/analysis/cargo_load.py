"""Whether there is cargo in a container."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Load

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
