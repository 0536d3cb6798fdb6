"""What the other columns of a container do not explain: the residual of a low-rank description.

Loads are stacked and containers are built along their length, so a column of cells is nearly a mixture of a few others.
The mixture is learnt without the column and its neighbours: an object may not explain itself.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

RANK = 12
_BLOCK, _MARGIN = 16, 12
"""Columns of cells explained at a time, and columns beside them that are left out as well."""


def low_rank_residual(cells: Array) -> Array:
    """Return (rows, columns) float32: what is left of -ln T after projection on 12 vectors of the other columns."""
    rows, columns = cells.shape
    x = cells.astype(np.float64)
    whole = x @ x.T
    rank = min(RANK, rows - 1)
    left = np.empty((rows, columns), np.float32)
    for first in range(0, columns, _BLOCK):
        out = x[:, max(0, first - _MARGIN) : first + _BLOCK + _MARGIN]
        _, vectors = np.linalg.eigh(whole - out @ out.T)
        basis = vectors[:, -rank:]
        block = x[:, first : first + _BLOCK]
        left[:, first : first + _BLOCK] = block - basis @ (basis.T @ block)
    return left
