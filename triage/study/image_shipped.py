"""The detectors that an evaluation compares, and which of them may be used on an archive as it is shipped.

A fuser that was trained on scans of the archive cannot be tested on them: then trees are trained anew for every fold,
without it. Where it has seen none of them, the shipped one is tested, or the one that a profile names.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from scanner_io.errors import DataError
from triage.analysis import fuser as fusers
from triage.study.image_archive import Archive
from triage.study.image_detectors import TrainedDetector, UntrainedDetector
from triage.study.image_peers import Naive
from triage.study.image_runs import System
from triage.study.image_samples import Sample

PACKAGED = Path(fusers.__file__).with_name("fuser.npz")
"""Where the package carries its own fuser."""


class FixedDetector(TrainedDetector):
    """A fuser as it is in a file; it learns nothing from an archive."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fuser = fusers.load(path)

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """There is nothing to learn any more."""


def systems_for(archive: Archive, profile: Path | None, *, unseen: bool) -> tuple[System, ...]:
    """Return the systems to compare: naive, untrained, scanlane.

    profile : fuser file of `scanlane study train-fuser`, default the packaged one where there is one

    Raises DataError for a profile that is no fuser, and where trees must be trained and cannot.
    """
    path = profile if profile is not None else PACKAGED if PACKAGED.is_file() else None
    how = "trees trained anew for every fold"
    fixed = None
    if path is not None:
        trained_on = frozenset(fusers.load(path).about.trained_on)
        shared = [s.name for s in archive.sources if s.sha256 in trained_on]
        if shared:
            how += f": {path.name} was trained on {len(shared)} of these scans"
        else:
            fixed, how = functools.partial(FixedDetector, path), f"{path.name}, trained elsewhere"
    if (fixed is None or unseen) and find_spec("sklearn") is None:
        raise DataError("trees must be trained for this and need scikit-learn: pip install 'scanlane[study]'")
    ours = System("scanlane", TrainedDetector, learns=True, from_insertions=True, unseen=TrainedDetector, how=how)
    if fixed is not None:
        ours = System("scanlane", fixed, learns=False, unseen=TrainedDetector, how=how)
    return (
        System("naive", Naive, learns=False, how="box of 21 against 81, normalised per image"),
        System("untrained", UntrainedDetector, how="sum of three maps as shares of what is usual, of other folds"),
        ours,
    )
