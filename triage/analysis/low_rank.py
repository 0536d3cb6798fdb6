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
_STEPS = 3
_NOISE = 0.01
"""Standard deviation of -ln T of a cell that is noise, for directions that only noise has."""
_BLOCK, _MARGIN = 16, 12
"""Columns of cells explained at a time, and columns beside them that are left out as well."""


def low_rank_residual(cells: Array) -> Array:
    """Return (rows, columns) float32: what is left of -ln T after projection on 12 vectors of the other columns."""
    rows, columns = cells.shape
    x = cells.astype(np.float64)
    whole = x @ x.T
    start = np.linalg.eigh(whole)[1][:, -min(RANK, rows - 1) :]
    noise = columns * _NOISE**2
    left = np.empty((rows, columns), np.float32)
    for first in range(0, columns, _BLOCK):
        out = x[:, max(0, first - _MARGIN) : first + _BLOCK + _MARGIN]
        basis, power = _strongest(whole - out @ out.T, start)
        # what the others hardly show explains nothing
        share = power / (power + noise)
        block = x[:, first : first + _BLOCK]
        left[:, first : first + _BLOCK] = block - (basis * share) @ (basis.T @ block)
    return left


def _strongest(square: Array, start: Array) -> tuple[Array, Array]:
    """Return the strongest directions of a symmetric matrix and their powers, from those of one much like it.

    Orthogonal iteration: what the matrix has no part of, an object that was left out, is gone with the first step; a
    whole decomposition per block took four times as long.
    Source: Golub and Van Loan, Matrix Computations, 4th edition, section 8.2.4.
    """
    basis = start
    for _ in range(_STEPS):
        basis, _ = np.linalg.qr(square @ basis)
    return basis, np.maximum(np.einsum("ik,ij,jk->k", basis, square, basis, optimize=True), 0.0)
