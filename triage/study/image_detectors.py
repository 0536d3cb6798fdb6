"""Detectors as an evaluation asks for them: shown clean scans, then asked for regions in others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.analysis.cargo_grid import straightened
from triage.analysis.fuser import About, Fuser
from triage.analysis.maps import CELL, COLUMNS, ROWS, Maps, maps_of, with_bank
from triage.analysis.normal import Normal, learn_normal, untrained_score
from triage.analysis.regions import Region
from triage.analysis.search import Place, places_of
from triage.study.image_archive import PER_LOOK, UNDECLARED
from triage.study.image_looks import clusters, looks
from triage.study.image_looks import straightened as small_straight
from triage.study.image_samples import Sample
from triage.study.train_fuser import Cells, Options, cells_of, share_of, train

Array: TypeAlias = NDArray[Any]

OPAQUE_T = 0.03
DROP = 1.0
"""How far below its peak the log odds may be inside a region."""
UNTRAINED_DROP = 0.4
"""How far below its peak the sum of normalised maps may be inside a region, as a share of the peak."""


def straight_maps(sample: Sample) -> tuple[Maps, Array]:
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

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """Learn what is normal from clean scans; insertions are not looked at."""
        del inserted
        samples = list(clean)
        self._normal = learn_normal([straight_maps(s)[0] for s in samples], rng, groups_of(samples))

    def regions(self, sample: Sample) -> list[Region]:
        """Return the strangest places of a scan."""
        if self._normal is None:
            raise ValueError("UntrainedDetector: call fit before regions")
        maps, to_grid = straight_maps(sample)
        maps = with_bank(maps, self._normal.bank)
        score = untrained_score(maps, self._normal)
        return regions_of(places_of(score, maps.seen, UNTRAINED_DROP * float(score[maps.seen].max(initial=0))), to_grid)


class TrainedDetector:
    """Trees trained on insertions into scans of other groups."""

    name = "scanlane"

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self.fuser: Fuser | None = None

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """Learn what is normal from clean scans, and trees from scans with insertions of the family "train".

        Raises DataError without insertions.
        """
        if not inserted:
            raise DataError("TrainedDetector: no insertions to learn from; give `inserted`")
        samples = list(clean)
        groups = groups_of(samples)
        of_source = {s.source: g for s, g in zip(samples, groups, strict=True)}
        about = About(trained_on=tuple(sorted(of_source)), options=msgspec.to_builtins(self._options))
        maps = [straight_maps(s)[0] for s in samples]
        cells = ((of_source[source], c) for source, c in self._cells(inserted, rng))
        self.fuser = train(maps, groups, cells, rng, self._options, about)

    def _cells(self, inserted: Sequence[Sample], rng: np.random.Generator) -> Iterator[tuple[str, Cells]]:
        for sample in inserted:
            assert sample.truth is not None
            kept = _KEPT.get((sample.key, self._options)) if sample.key else None
            if kept is None:
                maps, to_grid = straight_maps(sample)
                share = share_of(sample.truth.mask, to_grid, maps.shape)
                kept = cells_of(maps, rng, self._options, share, sample.truth.cnr)
                if sample.key:
                    _KEPT[sample.key, self._options] = kept
                    while len(_KEPT) > _KEPT_MOST:
                        _KEPT.popitem(last=False)
            yield sample.source, kept

    def regions(self, sample: Sample) -> list[Region]:
        """Return the strangest places of a scan."""
        if self.fuser is None:
            raise ValueError("TrainedDetector: call fit before regions")
        maps, to_grid = straight_maps(sample)
        maps = with_bank(maps, self.fuser.normal.bank)
        score = self.fuser.score(maps, self.fuser.normal)
        return regions_of(places_of(score, maps.seen, DROP), to_grid)


_KEPT: OrderedDict[tuple[str, Options], Cells] = OrderedDict()
_KEPT_MOST = 2000
"""Scans with insertions whose cells are kept, half a megabyte each: several folds learn from the same."""


def groups_of(samples: Sequence[Sample]) -> list[str]:
    """Return the groups in which scans may not teach each other: the commodity, or what looks alike."""
    found = [s.commodity for s in samples]
    unknown = [i for i, name in enumerate(found) if name == UNDECLARED]
    seen = [looks(small_straight(samples[i].image, samples[i].frame)) for i in unknown]
    known = len(set(found) - {UNDECLARED})
    count = max(1, round(len(unknown) / PER_LOOK), 2 - known)
    for i, number in zip(unknown, clusters(seen, count), strict=True):
        found[i] = f"{UNDECLARED}, look {number}"
    return found
