"""Detectors as an evaluation asks for them: shown clean scans, then asked for regions in others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.analysis.cargo_grid import straightened
from triage.analysis.fuser import About, Fuser
from triage.analysis.maps import Maps, maps_of
from triage.analysis.normal import learn_normal
from triage.analysis.regions import Region
from triage.analysis.unlike import GRID, look_at, regions_of, suspicious_regions
from triage.study.image_archive import PER_LOOK, UNDECLARED
from triage.study.image_looks import clusters, looks
from triage.study.image_looks import straightened as small_straight
from triage.study.image_samples import Sample
from triage.study.train_fuser import Cells, Options, cells_of, share_of, train

Array: TypeAlias = NDArray[Any]

OPAQUE_T = 0.03


def straight_maps(sample: Sample) -> tuple[Maps, Array]:
    """Return the maps of a sample's container, and the (3, 3) matrix from its pixels to the straightened ones."""
    grid, to_grid = straightened(sample.image, sample.frame.corners, *GRID)
    return maps_of(grid, OPAQUE_T), to_grid


def _kept_maps(sample: Sample) -> tuple[Maps, Array]:
    """Return maps from memory where this very image was looked at lately: several detectors and folds ask for it."""
    kept = _MAPS.get(sample.key) if sample.key else None
    if kept is None:
        kept = straight_maps(sample)
        if sample.key:
            _MAPS[sample.key] = kept
            while len(_MAPS) > _MAPS_MOST:
                _MAPS.popitem(last=False)
    return kept


_MAPS: OrderedDict[str, tuple[Maps, Array]] = OrderedDict()
_MAPS_MOST = 64
"""Scans whose maps are kept, about 8 MB each."""


class UntrainedDetector:
    """The sum of local contrast, distance to the bank and low-rank residual, each as a share of what is usual."""

    name = "untrained"

    def __init__(self) -> None:
        self.fuser: Fuser | None = None

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """Learn what is normal from clean scans; insertions are not looked at."""
        del inserted
        samples = list(clean)
        normal = learn_normal([_kept_maps(s)[0] for s in samples], rng, groups_of(samples))
        self.fuser = Fuser(features=(), trees=None, normal=normal, thresholds={}, about=About())

    def regions(self, sample: Sample) -> list[Region]:
        """Return the strangest places of a scan."""
        return _regions(self, sample)


class TrainedDetector:
    """Trees trained on insertions into scans of other groups."""

    name = "scanlane"

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options(threshold_folds=0)
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
        maps = [_kept_maps(s)[0] for s in samples]
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
        return _regions(self, sample)


def _regions(detector: UntrainedDetector | TrainedDetector, sample: Sample) -> list[Region]:
    if detector.fuser is None:
        raise ValueError(f"{detector.name}: call fit before regions")
    if sample.key == sample.source:
        # clean scans are timed
        return suspicious_regions(sample.image, sample.frame, detector.fuser, OPAQUE_T)
    maps, to_grid = _kept_maps(sample)
    return regions_of(look_at(maps, detector.fuser), to_grid, detector.fuser)


_KEPT: OrderedDict[tuple[str, Options], Cells] = OrderedDict()
_KEPT_MOST = 800
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
