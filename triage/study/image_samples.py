"""What a detector of images is given, and what it must give back.

Samples are made when they are asked for and forgotten afterwards: thousands of images with objects in them would not
fit into memory, and any of them can be made again from its plan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from triage.analysis.container import Frame
from triage.analysis.regions import Region
from triage.study.image_archive import Archive, Source, load, through_chain
from triage.study.insertions import BANDS, FAMILIES, OPAQUE, Band, Family, Insertion, Kind, insert

Array: TypeAlias = NDArray[Any]

MOST_REGIONS = 10
LARGEST_SHARE = 0.05
"""Regions per image, and the largest region, of the container's area. More or larger ones are not counted."""


class Sample(NamedTuple):
    """One image as a detector sees it.

    image : (rows, columns) float32, upright transmission 0..1 of the whole scan
    source : sha256 of the file
    truth : what was put in; None in clean images, and in every image under test
    key : the same for the same image: what is computed of it once may be kept under this name
    """

    image: Array
    frame: Frame
    commodity: str
    texture: str
    source: str
    truth: Insertion | None = None
    key: str = ""


class ImageDetector(Protocol):
    """A way to find what does not belong. One is made anew for every fold."""

    name: str

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """Learn from scans of other folds.

        clean : scans without an insertion
        inserted : scans of the same folds with one of the family "train"; made anew at every access
        """

    def regions(self, sample: Sample) -> list[Region]:
        """Return the strangest places, best first."""


class Plan(NamedTuple):
    """One insertion to be made: the same plan, the same image."""

    source: int
    number: int
    kind: Kind
    band: Band | None
    family: Family
    seed: int


_CYCLE: tuple[tuple[Kind, Band | None], ...] = (
    ("compact", BANDS[0]), ("brick", BANDS[1]), ("metal", BANDS[2]), ("slab", None), ("item", None),
    ("void", None), ("brick", BANDS[2]), ("metal", BANDS[0]), ("compact", BANDS[1]), ("compact", OPAQUE),
    ("compact", BANDS[2]), ("brick", BANDS[0]), ("metal", BANDS[1]), ("slab", None), ("item", None),
)  # fmt: skip
"""Kinds and backgrounds that follow each other: three fifths are what bars are set on, in equal parts by background.
The first six are of six kinds."""


def plans(
    sources: Sequence[int], per_image: int, seed: int, family: Family, *, opaque: bool = True,
    without: Kind | None = None, turn: int = 0,
) -> list[Plan]:  # fmt: skip
    """Return plans of `per_image` insertions into each of some sources.

    Every source goes on in the cycle of kinds where the one before it ended, so that few per image are of all kinds
    over the images; what stands at which number in a source does not depend on which other sources there are.

    opaque : also where nothing can be seen
    without : a kind that is left out, and not replaced by others
    turn : the same is asked for again with another seed: every turn goes on by one
    """
    cycle = [(kind, band) for kind, band in _CYCLE if opaque or band != OPAQUE]
    found = []
    for source in sources:
        begin = (source + turn) * per_image
        for number in range(per_image):
            kind, band = cycle[(begin + number) % len(cycle)]
            if kind != without:
                found.append(Plan(source, number, kind, band, family, seed))
    return found


def inserted_image(archive: Archive, plan: Plan, *, placebo: bool = False) -> Insertion | None:
    """Return the insertion of a plan, before compression; None where its image has no place for it."""
    source = archive.sources[plan.source]
    loaded = load(source)
    stream = [plan.seed, FAMILIES.index(plan.family), int(source.sha256[:12], 16), plan.number]
    return insert(
        loaded.image, source.frame.corners, plan.kind, plan.family, np.random.default_rng(stream), band=plan.band,
        scale=loaded.scale, placebo=placebo,
    )  # fmt: skip


def clean_sample(source: Source) -> Sample:
    """Return a source without an insertion."""
    loaded = load(source)
    return _sample(source, through_chain(loaded, source.quality, loaded.image), source.sha256)


def sample_of(source: Source, found: Insertion, key: str, *, told: bool) -> Sample:
    """Return a source with an insertion; told : say what it is, as in training."""
    sample = _sample(source, through_chain(load(source), source.quality, found.image), key)
    return sample._replace(truth=found) if told else sample


def _sample(source: Source, image: Array, key: str) -> Sample:
    return Sample(image, source.frame, source.commodity, source.texture, source.sha256, key=key)


class CleanSamples(Sequence[Sample]):
    """Samples of some sources, made when asked for."""

    def __init__(self, archive: Archive, members: Sequence[int]) -> None:
        self._sources = [archive.sources[i] for i in members]

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        if isinstance(at, slice):
            return [clean_sample(s) for s in self._sources[at]]
        return clean_sample(self._sources[at])


NamedSample: TypeAlias = tuple[str, str, Callable[[], Sample]]
"""The sha256 of a sample's source, its key, and how it is made: what is kept by key need not be made again."""


def named_samples(samples: Sequence[Sample]) -> Iterator[NamedSample]:
    """Yield samples that are there with their names."""
    return ((s.source, s.key, functools.partial(_itself, s)) for s in samples)


def _itself(sample: Sample) -> Sample:
    return sample


class InsertedSamples(Sequence[Sample]):
    """Samples with insertions that tell what they are, made when asked for; what found no place is left out."""

    def __init__(self, archive: Archive, planned: Sequence[Plan]) -> None:
        self._archive = archive
        self._plans = [p for p in planned if _has_place(archive, p)]

    def named(self) -> Iterator[NamedSample]:
        """Yield all with their names, none of them made."""
        for plan in self._plans:
            source = self._archive.sources[plan.source]
            yield source.sha256, _key(source, plan), functools.partial(self._made, plan)

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Sample]:
        return (self._made(p) for p in self._plans)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...
    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        if isinstance(at, slice):
            return [self._made(p) for p in self._plans[at]]
        return self._made(self._plans[at])

    def _made(self, plan: Plan) -> Sample:
        found = inserted_image(self._archive, plan)
        assert found is not None
        source = self._archive.sources[plan.source]
        return sample_of(source, found, _key(source, plan), told=True)


_PLACES: dict[str, bool] = {}


def _has_place(archive: Archive, plan: Plan) -> bool:
    """Return whether an insertion can be made; every fold asks again."""
    key = _key(archive.sources[plan.source], plan)
    if key not in _PLACES:
        _PLACES[key] = inserted_image(archive, plan) is not None
    return _PLACES[key]


def _key(source: Source, plan: Plan) -> str:
    return f"{source.sha256} {plan.family} {plan.seed} {plan.number} {plan.kind} {plan.band}"


def admitted(regions: Sequence[Region], frame: Frame) -> list[Region]:
    """Return the regions that count, best first."""
    area = LARGEST_SHARE * (frame.right - frame.left) * frame.height
    small = [r for r in regions if (r.box[2] - r.box[0]) * (r.box[3] - r.box[1]) <= area]
    return sorted(small, key=lambda r: -r.score)[:MOST_REGIONS]
