"""Detectors as an evaluation asks for them: shown clean scans, then asked for regions in others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from triage.analysis.cargo_grid import straightened
from triage.analysis.container import Frame
from triage.analysis.maps import CELL, COLUMNS, ROWS, Maps, maps_of, with_bank
from triage.analysis.normal import Normal, learn_normal, untrained_score
from triage.analysis.regions import Region
from triage.analysis.search import Place, places_of

Array: TypeAlias = NDArray[Any]

OPAQUE_T = 0.03
UNTRAINED_DROP = 0.4
"""How far below its peak the sum of normalised maps may be inside a region, as a share of the peak."""


class Image(Protocol):
    """What a detector needs of a sample.

    image : (rows, columns) float32, upright, 1 = air
    """

    @property
    def image(self) -> Array: ...  # noqa: D102
    @property
    def frame(self) -> Frame: ...  # noqa: D102


def straight_maps(sample: Image) -> tuple[Maps, Array]:
    """Return the maps of a sample's container, and the (3, 3) matrix from its pixels to the straightened ones."""
    grid, to_grid = straightened(sample.image, sample.frame.corners, ROWS, 2 * CELL, *COLUMNS)
    return maps_of(grid, OPAQUE_T), to_grid


def regions_of(places: Sequence[Place], to_grid: Array) -> list[Region]:
    """Return places of cells as regions of the image."""
    back = np.linalg.inv(to_grid)
    found = []
    for place in places:
        x0, y0, x1, y1 = place.at
        points = np.array([(place.peak[0] + 0.5, place.peak[1] + 0.5), (x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        points = cv2.perspectiveTransform(CELL * points[None].astype(np.float64), back)[0]
        low, high = points[1:].min(axis=0), points[1:].max(axis=0)
        peak = (float(points[0, 0]), float(points[0, 1]))
        found.append(Region(place.score, peak, (float(low[0]), float(low[1]), float(high[0]), float(high[1]))))
    return found


class UntrainedDetector:
    """The sum of local contrast, distance to the bank and low-rank residual, each as a share of what is usual."""

    name = "untrained"

    def __init__(self) -> None:
        self._normal: Normal | None = None

    def fit(self, clean: Sequence[Image], rng: np.random.Generator, inserted: Sequence[Any] = ()) -> None:
        """Learn what is normal from clean scans; insertions are not looked at."""
        del inserted
        self._normal = learn_normal([straight_maps(sample)[0] for sample in clean], rng)

    def regions(self, sample: Image) -> list[Region]:
        """Return the strangest places of a scan."""
        if self._normal is None:
            raise ValueError("UntrainedDetector: call fit before regions")
        maps, to_grid = straight_maps(sample)
        maps = with_bank(maps, self._normal.bank)
        score = untrained_score(maps, self._normal)
        return regions_of(places_of(score, maps.seen, UNTRAINED_DROP * float(score[maps.seen].max(initial=0))), to_grid)
