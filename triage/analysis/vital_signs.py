"""Vital signs of a scan: what changes when scanner or traffic do, whatever is or is not in the container.

They judge nothing. A lane's watch compares them with those of its calibration (see `drift`): a detector that has lost
its focus, its gain or its calm finds less, not more, so no flag rate would ever tell.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .cargo_grid import CargoGrid
from .screening import STEPS

Array: TypeAlias = NDArray[Any]

VITALS = (
    "noise", "stripes", "sharpness along", "sharpness up", "wall depth", "mean depth", "load share", "opaque share",
    "unfamiliarity",
)  # fmt: skip
"""Their names.

noise : lower quartile of the second differences along the scan, in -ln T: quiet places
stripes : median over channels of how far a channel lies off its two neighbours, in -ln T: gains that do not fit
sharpness : mean difference of neighbours over that of pixels four apart, along the scan and up; 0.25 a ramp, 1 noise
wall depth, mean depth : in -ln T, of the container's wall and of the whole cargo area
load share, opaque share : parts of the cargo area
unfamiliarity : how far the load is from what was learnt from, 1 at the limit of what is known
"""
_LINES = 96
"""About so many lines of a direction are looked at, spread over the container: more tell no more."""


def vital_signs(
    q: Array, cargo: CargoGrid, load_share: float, opaque_share: float, strange: float | None
) -> dict[str, float | None]:
    """Return the vital signs by name, None where an image is too small for one, or the load too little.

    q : (columns, channels) uint16, log codes of the whole image; strange : see `Seen`
    """
    frame = cargo.frame
    first, end = max(0, int(frame.left)), min(q.shape[0], int(np.ceil(frame.right)))
    along = np.ascontiguousarray(q[first:end, :: max(1, q.shape[1] // _LINES)].T).astype(np.int32)
    up = q[first : end : max(1, (end - first) // _LINES)].astype(np.int32)
    return {
        "noise": _quiet(along),
        "stripes": _stripes(up),
        "sharpness along": _sharpness(along),
        "sharpness up": _sharpness(up),
        "wall depth": cargo.wall,
        "mean depth": float(cargo.depth[cargo.inner].mean()),
        "load share": load_share,
        "opaque share": opaque_share,
        "unfamiliarity": strange if strange is not None and math.isfinite(strange) else None,
    }


def _quiet(lines: Array) -> float | None:
    if lines.shape[1] < 3:
        return None
    second = np.abs(lines[:, 2:] - 2 * lines[:, 1:-1] + lines[:, :-2])
    return float(np.quantile(second, 0.25)) / STEPS


def _stripes(lines: Array) -> float | None:
    if lines.shape[1] < 3 or not lines.size:
        return None
    off = np.median(2 * lines[:, 1:-1] - lines[:, 2:] - lines[:, :-2], axis=0)
    return float(np.median(np.abs(off))) / (2 * STEPS)


def _sharpness(lines: Array) -> float | None:
    if lines.shape[1] < 5 or not lines.size:
        return None
    near, far = (float(np.abs(lines[:, by:] - lines[:, :-by]).mean()) for by in (1, 4))
    return near / far if far > 0 else None
