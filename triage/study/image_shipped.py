"""The detectors that an evaluation compares, and which of them may be used on an archive as it is shipped.

A fuser that was trained on scans of the archive cannot be tested on them: then trees are trained anew for every fold,
without it. Where it has seen none of them, the shipped one is tested, or the one that a profile names. Whether it has
seen a scan is told by the file, and by what the picture shows: stored anew under another name it is the same scan.

A folder of too few scans to learn from is judged by what was learned elsewhere alone, thresholds as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from scanner_io import lane_profile, recording
from scanner_io.errors import ConfigError, DataError
from triage.analysis import fuser as fusers
from triage.analysis.fuser import About, Fuser
from triage.analysis.standing import fuser_of
from triage.study.image_archive import Archive, Source, load
from triage.study.image_detectors import TrainedDetector, UntrainedDetector
from triage.study.image_looks import sketched
from triage.study.image_peers import Naive
from triage.study.image_runs import System
from triage.study.image_samples import Sample
from triage.study.image_statistics import POINTS


class FixedDetector(TrainedDetector):
    """A fuser as it is in a file; it learns nothing from an archive."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fuser = fuser_in(path)[0]

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """There is nothing to learn any more."""


class FixedUntrained(UntrainedDetector):
    """The sum of three maps beside what is normal by a fuser's file; it learns nothing from an archive."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        normal = fuser_in(path)[0].normal
        self.fuser = Fuser(features=(), trees=None, normal=normal, thresholds={}, about=About())

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """There is nothing to learn any more."""


def fuser_in(path: Path) -> tuple[Fuser, frozenset[str]]:
    """Return the fuser in a file of `scanlane study train-fuser` or in a lane's profile, and what taught the latter.

    The second are hashes of the raw counts of scans that the lane's own normal was learned from, or that set its
    thresholds.

    Raises DataError for a file that is neither, and for a profile without a fuser of its own.
    """
    try:
        return fusers.load(path), frozenset()
    except DataError as no_fuser:
        try:
            lane = lane_profile.read(path)
        except ConfigError as no_profile:
            raise DataError(
                f"{path}: neither a fuser of `scanlane study train-fuser` nor a profile of `scanlane calibrate` "
                f"({no_fuser}; {no_profile})"
            ) from no_profile
    own = fuser_of(lane)
    if own is None:
        raise DataError(
            f"{path}: this profile of lane {lane.lane} was learned from {lane.scans} scans, too few for a fuser with "
            "the lane's own normal; calibrate on more, or name a file of `scanlane study train-fuser`"
        )
    return own, frozenset((*lane.teachers, *lane.sources))


SCALE = {point: 1 - math.log10(rate) for point, (_, rate) in POINTS.items()}
"""Thresholds on the scale of `unlike.rarity`: 1 for one place per clean scan, 2 for one in ten scans, and so on. One in
twenty scans stands for 5 % of the scans, a little more than it is where two places are in one."""


def learned_elsewhere(archive: Archive, profile: Path | None) -> tuple[System, ...]:
    """Return the systems to compare where nothing can be learned from the archive: see `systems_for`.

    A fuser that has seen scans of the archive is no reason to refuse: the leak check names them, and fails.

    Raises DataError where there is no fuser.
    """
    path = profile if profile is not None else fusers.PACKAGED
    fuser, _ = fuser_in(path)
    leaked, _ = seen_by(archive, path)
    how, limits = f"{path.name}, trained elsewhere", SCALE if fuser.thresholds else None
    if limits is not None:
        how += ", its thresholds as well"
    return (
        NAIVE,
        System("untrained", functools.partial(FixedUntrained, path), learns=False, how=f"{path.name}: its normal"),
        System(
            "scanlane",
            functools.partial(FixedDetector, path),
            learns=False,
            trained_on=leaked,
            how=how,
            limits=limits,
            elsewhere=True,
        ),
    )


def seen_by(archive: Archive, path: Path) -> tuple[frozenset[str], list[str]]:
    """Return sha256 and names of the scans of an archive that a fuser or lane's profile was trained on.

    Raises DataError as `fuser_in` does.
    """
    fuser, taught = fuser_in(path)
    about = fuser.about

    def known(source: Source) -> bool:
        if source.sha256 in about.trained_on or (taught and recording.pixels_hash(load(source).radiograph) in taught):
            return True
        # simulated scans may look the same and be others
        return not source.simulated and sketched(about.sketches, source.fingerprint)

    seen = [s for s in archive.sources if known(s)]
    return frozenset(s.sha256 for s in seen), [s.name for s in seen]


NAIVE = System("naive", Naive, learns=False, how="box of 21 against 81, normalised per image")


def systems_for(archive: Archive, profile: Path | None, *, unseen: bool) -> tuple[System, ...]:
    """Return the systems to compare: naive, untrained, scanlane.

    profile : fuser file of `scanlane study train-fuser`, or a lane's profile that holds one; default the packaged one
        where there is one

    Raises DataError for a profile without a fuser, and where trees must be trained and cannot.
    """
    path = profile if profile is not None else fusers.PACKAGED if fusers.PACKAGED.is_file() else None
    how = "trees trained anew for every fold"
    fixed = None
    trained_on: frozenset[str] = frozenset()
    if path is not None:
        trained_on, shared = seen_by(archive, path)
        if shared:
            how += f": {path.name} was trained on {len(shared)} of these scans"
        else:
            fixed, how = functools.partial(FixedDetector, path), f"{path.name}, trained elsewhere"
    if (fixed is None or unseen) and find_spec("sklearn") is None:
        raise DataError("trees must be trained for this and need scikit-learn: pip install 'scanlane[study]'")
    ours = System("scanlane", TrainedDetector, learns=True, from_insertions=True, unseen=TrainedDetector, how=how)
    if fixed is not None:
        ours = System(
            "scanlane", fixed, learns=False, unseen=TrainedDetector, trained_on=trained_on, how=how
        )  # fmt: skip
    return (
        NAIVE,
        System("untrained", UntrainedDetector, how="sum of three maps as shares of what is usual, of other folds"),
        ours,
    )
