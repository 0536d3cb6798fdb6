"""What can be measured at every place of a straightened container: the maps that a search looks at.

No single map finds threats: structure (floor strip, end frames, roof beams) has their contrast. What they are good for
is to be weighed against each other, and against what is usual at the same place (`position_tables`).

The container is brought to 460 rows and to `x = -ln T`, which adds up where objects lie behind one another. Maps of
fine detail are computed on every second pixel, the others on cells of 4 x 4 pixels, and all are given on the cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .local_maps import local_maps, wide_maps
from .local_rx import local_rx
from .low_rank import low_rank_residual
from .patches import Bank, PatchSize, codes_of, strangeness

Array: TypeAlias = NDArray[Any]
Map: TypeAlias = Callable[..., Any]

ROWS = 460
"""Height of a straightened container, in pixels of about 6 mm."""
CELL = 4
"""Side of a cell, in those pixels."""
DARKEST = 0.02
"""Darker than this is all the same: below lies the last grey value of 8-bit sources."""
COLUMNS = (160, 2400)
"""Least and most columns of a straightened container; a 45-foot container has about 2150."""
_BORDER = 0.02
"""Of the height: what lies nearer to the roof, the floor or an end is structure alone, nothing is said of it."""

PATCHES = (PatchSize(side=16, step=2), PatchSize(side=32, step=4))
"""Patches of 16 pixels seen on every second one, of 32 on cells: both 8 x 8 values."""


class Maps(NamedTuple):
    """Maps of one container.

    values : name of a map to (rows, columns) float32, on cells
    seen : (rows, columns) bool, cells that can be judged at all
    codes : per patch size, what stands for its patches (`patches.codes_of`)
    """

    values: dict[str, Array]
    seen: Array
    codes: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        rows, columns = self.seen.shape
        return rows, columns


def maps_of(transmission: Array, opaque_t: float, *, map_parts: Map = map) -> Maps:
    """Return the maps of a straightened container, all but those that need other scans.

    transmission : (ROWS, columns) float32, columns a multiple of 2 * CELL, 1 = air
    opaque_t : transmission below which nothing can be claimed
    map_parts : like `map`; a thread pool's map computes parts side by side, with the same result
    """
    x = -np.log(np.clip(transmission, DARKEST, 1.0).astype(np.float32))
    half, cells = reduced(x, 2), reduced(x, CELL)
    parts: list[Callable[[], dict[str, Array]]] = [
        lambda: _alike("self_16", half, PATCHES[0]),
        lambda: _alike("self_32", cells, PATCHES[1]),
        lambda: local_maps(x, half) | wide_maps(cells),
        lambda: {"low_rank": low_rank_residual(cells)} | _rx(half, cells),
    ]
    values: dict[str, Array] = {}
    for part in map_parts(lambda compute: compute(), parts):
        values |= part
    codes = tuple(values.pop(f"codes_{size.side}") for size in PATCHES)
    values |= _places(cells.shape)
    return Maps(values, _seen(transmission, opaque_t), codes)


def with_bank(maps: Maps, bank: Bank, *, map_parts: Map = map) -> Maps:
    """Return the maps and, beside them, how unlike every patch is to those of other scans."""

    def unlike(i: int) -> tuple[str, Array]:
        return f"bank_{PATCHES[i].side}", strangeness(maps.codes[i], bank.codes[i], maps.shape, apart=0)

    return maps._replace(values=maps.values | dict(map_parts(unlike, range(len(PATCHES)))))


def reduced(x: Array, by: int) -> Array:
    """Return means of squares of `by` pixels."""
    rows, columns = x.shape
    return np.asarray(cv2.resize(x, (columns // by, rows // by), interpolation=cv2.INTER_AREA))


def _alike(name: str, image: Array, size: PatchSize) -> dict[str, Array]:
    """Return the codes of all patches, and how unlike each is to the most alike elsewhere in the container."""
    codes = codes_of(image, size)
    shape = (image.shape[0] * size.step // CELL, image.shape[1] * size.step // CELL)
    return {f"codes_{size.side}": codes, name: strangeness(codes, codes, shape, apart=size.apart)}


def _rx(half: Array, cells: Array) -> dict[str, Array]:
    return {"rx": local_rx(half, cells)}


def _places(shape: tuple[int, ...]) -> dict[str, Array]:
    """Return height above the floor and distance to the nearer end, both in container heights (at most 2)."""
    rows, columns = shape
    across = (np.arange(columns, dtype=np.float32) + 0.5) / rows
    end = np.minimum(np.minimum(across, across[::-1]), 2.0)
    height = 1 - (np.arange(rows, dtype=np.float32) + 0.5) / rows
    return {
        "to_end": np.ascontiguousarray(np.broadcast_to(end, shape)),
        "height": np.ascontiguousarray(np.broadcast_to(height[:, None], shape)),
    }


def _seen(transmission: Array, opaque_t: float) -> Array:
    """Return which cells are neither opaque nor at the very border."""
    rows, columns = transmission.shape[0] // CELL, transmission.shape[1] // CELL
    seen = reduced(transmission, CELL) >= opaque_t
    border = round(_BORDER * rows)
    seen[:border] = seen[rows - border :] = False
    seen[:, :border] = seen[:, columns - border :] = False
    return np.asarray(seen)
