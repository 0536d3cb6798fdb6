"""Detectors run over an archive: which learns on what, and what it found where.

Every fold of commodities is tested with detectors that learned on the other folds. Its thresholds come from clean
images of those other folds, scored by detectors that had learned on neither the tested fold nor their own; so for every
pair of folds there is a detector without both, and no threshold has seen what it is used on. A kind of threat that was
never learned is tested with detectors that were given all kinds but that one; their thresholds come from clean images
that detectors without that kind and that image's fold scored, without a second fold being held out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from triage.analysis.image import judge_image
from triage.analysis.regions import Region
from triage.study.image_archive import Archive, load, radiograph_of
from triage.study.image_peers import Memory
from triage.study.image_samples import (
    CleanSamples,
    ImageDetector,
    InsertedSamples,
    Plan,
    Sample,
    admitted,
    clean_sample,
    inserted_image,
    plans,
    sample_of,
)
from triage.study.image_statistics import NEVER
from triage.study.insertions import OPAQUE, Insertion, Kind
from triage.study.measure import timed

Array: TypeAlias = NDArray[Any]

UNSEEN: tuple[Kind, ...] = ("compact", "brick", "metal", "slab")
"""Kinds that are left out of training in turn."""
HIT_DILATION = 3
"""Pixels around a mask in which a peak still counts."""
IOU = 0.1
LEARN_SEED, CHECK_SEED = 1000, 2000
"""Added to the seed: insertions to learn from and those of checks are no test's."""
MOST_PIXELS, MOST_INSERTIONS = 300_000_000, 600
"""Clean pixels and images with insertions that a detector learns from at most: detectors hold them in memory."""
JUDGEMENT, JUDGED = "judgement", 40
"""Name under which the time of the whole judgement stands, and of about how many scans it is taken."""
COVERED = 0.5
"""Share of an object in the uninspectable area from which it counts as covered."""


class System(NamedTuple):
    """A way to find things under test.

    make : a new detector; must be importable by name, for other processes
    learns : its regions depend on what it was fitted with
    from_insertions : it is fitted with insertions
    unseen : a new detector that is fitted with insertions, to be tested on a kind it was not given; None where no
        insertion is learned from, so that every kind is one never seen
    trained_on : sha256 of images of the archive that it has learned on elsewhere, under whatever name
    how : in words, for the report
    limits : thresholds that were learned elsewhere, by operating point; None where they come from clean scans here
    elsewhere : it has learned kinds elsewhere, so that none can be called never seen
    """

    name: str
    make: Callable[[], ImageDetector]
    learns: bool = True
    from_insertions: bool = False
    unseen: Callable[[], ImageDetector] | None = None
    trained_on: frozenset[str] = frozenset()
    how: str = ""
    limits: Mapping[str, float] | None = None
    elsewhere: bool = False


class Job(NamedTuple):
    """One fit and what is scored with it.

    without : folds that are not learned on
    kind : a kind that is not learned, or None
    """

    without: frozenset[int]
    kind: Kind | None

    @property
    def whole(self) -> bool:
        """Whether this is the test of a fold with all kinds learned."""
        return len(self.without) == 1 and self.kind is None


class Setting(NamedTuple):
    """What every job needs to know."""

    folds: tuple[tuple[int, ...], ...]
    per_image: int
    seeds: int
    learn_per_image: int
    seed: int


class Scored(NamedTuple):
    """What one detector said of one insertion; NEVER where it found nothing.

    score : highest of the peaks in the mask; chance : the same in the clean image
    overlap : highest of the regions that overlap the mask's box; top : highest of the whole image
    """

    score: float
    chance: float
    overlap: float
    top: float


class Trial(NamedTuple):
    """One insertion that was made, and what every system said of it."""

    plan: Plan
    background_t: float
    cnr: float
    in_cargo: bool
    alpha: float
    scored: dict[str, Scored]
    covered: bool | None
    """Where nothing can be seen: whether the uninspectable area covers it."""


class Done(NamedTuple):
    """Results of one job.

    clean : by system and source, scores of the regions of clean images
    seconds : by system and source, time for the regions of the clean image; JUDGEMENT is the whole judgement of it
    faults : what the placebo and leak checks found, in words
    """

    job: Job
    clean: dict[str, dict[int, Array]]
    seconds: dict[str, dict[int, float]]
    trials: list[Trial]
    no_place: dict[str, int]
    placebo_faults: list[str]
    leak_faults: list[str]


def jobs_of(systems: Sequence[System], setting: Setting, *, unseen: bool) -> list[Job]:
    """Return the jobs of an evaluation, longest first."""
    count = len(setting.folds)
    jobs = [Job(frozenset({k}), None) for k in range(count)]
    if unseen and any(s.unseen is not None for s in systems):
        jobs += [Job(frozenset({k}), kind) for kind in UNSEEN for k in range(count)]
    if any(s.learns for s in systems):
        jobs += [Job(frozenset(pair), None) for pair in itertools.combinations(range(count), 2)]
    return jobs


def run_jobs(
    archive: Archive, systems: Sequence[System], setting: Setting, jobs: Sequence[Job], progress: Callable[[], None],
    pool: Executor | None,
) -> list[Done]:  # fmt: skip
    """Return the results of all jobs, in their order."""
    done = []
    given = ([archive] * len(jobs), [tuple(systems)] * len(jobs), [setting] * len(jobs), jobs)
    for result in (pool.map if pool else map)(run_job, *given):
        done.append(result)
        progress()
    return done


def run_job(archive: Archive, systems: Sequence[System], setting: Setting, job: Job) -> Done:
    """Fit what this job is about, and score its folds with it."""
    if job.kind is not None:
        systems = [s._replace(make=s.unseen, from_insertions=True) for s in systems if s.unseen is not None]
    elif len(job.without) > 1:
        systems = [s for s in systems if s.learns]
    detectors, leaks = fitted(archive, systems, setting, job)
    done = Done(job, {s.name: {} for s in systems}, {s.name: {} for s in systems}, [], {}, [], leaks)
    for index in sorted(i for k in job.without for i in setting.folds[k]):
        source = archive.sources[index]
        sample = clean_sample(source)
        seen = {}
        for name, detector in detectors.items():
            began = time.perf_counter()
            seen[name] = admitted(detector.regions(sample), source.frame)
            done.seconds[name][index] = time.perf_counter() - began
            done.clean[name][index] = np.array([r.score for r in seen[name]], np.float64)
        if job.whole and index % -(-len(archive.sources) // JUDGED) == 0:
            done.seconds.setdefault(JUDGEMENT, {})[index] = judged_in(archive, index)
        if job.whole:
            done.placebo_faults.extend(_placebo(archive, index, setting, detectors, sample, seen))
        if len(job.without) == 1:
            done.trials.extend(_tried(archive, index, setting, job, detectors, seen, done.no_place))
    return done


def fitted(
    archive: Archive, systems: Sequence[System], setting: Setting, job: Job
) -> tuple[dict[str, ImageDetector], list[str]]:
    """Return detectors that learned on all folds but those of the job, and what leaked into them, in words."""
    held_out = sorted(i for k in job.without for i in setting.folds[k])
    learned = learned_from(archive, [i for i in range(len(archive.sources)) if i not in held_out], setting)
    planned: list[Plan] = []
    if any(s.from_insertions for s in systems):
        seed = setting.seed + LEARN_SEED
        per_image = max(1, min(setting.learn_per_image, MOST_INSERTIONS // max(len(learned), 1)))
        planned = plans(learned, per_image, seed, "train", opaque=False, without=job.kind)
    clean, inserted = CleanSamples(archive, learned), InsertedSamples(archive, planned)
    stream = [setting.seed, LEARN_SEED, *sorted(job.without)]
    detectors: dict[str, ImageDetector] = {}
    for system in systems:
        detectors[system.name] = system.make()
        detectors[system.name].fit(clean, np.random.default_rng(stream), inserted if system.from_insertions else ())
    if not job.whole:
        return detectors, []
    return detectors, leaks_into(archive, held_out, clean, [archive.sources[p.source].sha256 for p in planned], systems)


def learned_from(archive: Archive, members: Sequence[int], setting: Setting) -> list[int]:
    """Return the scans that are learned from: all, or of a large archive as many as memory allows, drawn by lot."""
    chosen: list[int] = []
    pixels = 0
    for i in np.random.default_rng([setting.seed, LEARN_SEED]).permutation(np.array(members, np.int64)).tolist():
        pixels += archive.sources[i].pixels
        if pixels > MOST_PIXELS and chosen:
            break
        chosen.append(i)
    return sorted(chosen)


def leaks_into(
    archive: Archive, held_out: Sequence[int], clean: Sequence[Sample], inserted: Sequence[str],
    systems: Sequence[System],
) -> list[str]:  # fmt: skip
    """Return what of the held out scans was learned from, in words.

    clean, inserted : what is learned from; of images with insertions the sha256 of their source
    """
    memory = Memory()
    memory.fit(clean, np.random.default_rng(0))
    names = {archive.sources[i].sha256: archive.sources[i].name for i in held_out}
    found = [f"{names[s]} has insertions that are learned from" for s in sorted(set(inserted) & names.keys())]
    for i in held_out:
        source = archive.sources[i]
        # as for doubles in the archive: simulated scans may look the same and be others
        seen = memory.remembers(source.sha256) if source.simulated else bool(memory.regions(clean_sample(source)))
        if seen:
            found.append(f"{source.name} is tested, and learned from under this name or another")
    for system in systems:
        found += [f"{names[s]} was learned from by {system.name}" for s in sorted(system.trained_on & names.keys())]
    return found


# --------------------------------------------------------------------------------------------------------------
# One image


def _tried(
    archive: Archive, index: int, setting: Setting, job: Job, detectors: dict[str, ImageDetector],
    seen: dict[str, list[Region]], no_place: dict[str, int],
) -> Iterator[Trial]:  # fmt: skip
    """Yield all insertions into one source, as scored by all detectors."""
    source = archive.sources[index]
    for number in range(setting.seeds):
        for plan in plans([index], setting.per_image, setting.seed + number, "test", turn=number):
            if job.kind is not None and (plan.kind != job.kind or plan.band == OPAQUE):
                continue
            found = inserted_image(archive, plan)
            if found is None:
                where = f"{plan.kind} {'anywhere' if plan.band is None else '{:g}-{:g}'.format(*plan.band)}"
                no_place[where] = no_place.get(where, 0) + 1
                continue
            sample = sample_of(source, found, f"{source.sha256} test {plan.seed} {plan.number}", told=False)
            near = dilated(found.mask)
            scored = {
                name: scored_by(admitted(detector.regions(sample), source.frame), seen[name], near, found.mask)
                for name, detector in detectors.items()
            }
            covered = None
            if found.background_t < OPAQUE[1] and number == 0:
                covered = _covered(archive, index, found)
            yield Trial(plan, found.background_t, found.cnr, found.in_cargo, found.alpha, scored, covered)


def dilated(mask: Array) -> Array:
    """Return the mask and what lies within HIT_DILATION pixels of it."""
    size = 2 * HIT_DILATION + 1
    return np.asarray(
        cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) != 0
    )


def scored_by(regions: Sequence[Region], clean: Sequence[Region], near: Array, mask: Array) -> Scored:
    """Return what the regions of an image with an insertion, and those of its clean copy, say of the insertion."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Scored(
        score=max((r.score for r in regions if _inside(r.peak, near)), default=NEVER),
        chance=max((r.score for r in clean if _inside(r.peak, near)), default=NEVER),
        overlap=max((r.score for r in regions if iou(r.box, box) >= IOU), default=NEVER),
        top=max((r.score for r in regions), default=NEVER),
    )


def _inside(peak: tuple[float, float], mask: Array) -> bool:
    x, y = int(peak[0]), int(peak[1])
    return 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and bool(mask[y, x])


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the overlap of two boxes x0, y0, x1, y1 over what both cover."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def _covered(archive: Archive, index: int, found: Insertion) -> bool:
    """True where the judgement's uninspectable area lies on half the object or more."""
    source = archive.sources[index]
    radiograph = radiograph_of(load(source), source.quality, found.image)
    covered = np.zeros_like(found.mask)
    for area in judge_image(radiograph).uninspectable:
        upright = area.mask(radiograph.columns, radiograph.detector.channels).T
        covered |= upright[::-1] if radiograph.detector.first_channel == "bottom" else upright
    return bool(covered[found.mask].mean() >= COVERED)


def _placebo(
    archive: Archive, index: int, setting: Setting, detectors: dict[str, ImageDetector], clean: Sample,
    seen: dict[str, list[Region]],
) -> Iterator[str]:  # fmt: skip
    """Yield in words where an insertion of strength 0 changes an image or what is found in it."""
    source = archive.sources[index]
    found = None
    for plan in plans([index], 15, setting.seed + CHECK_SEED + index, "test")[index % 5 :]:
        found = inserted_image(archive, plan, placebo=True)
        if found is not None:
            break
    if found is None:
        return
    sample = sample_of(source, found, f"{source.sha256} placebo", told=False)
    if not np.array_equal(sample.image, clean.image):
        yield f"{source.name}: an insertion of strength 0 changed {int((sample.image != clean.image).sum())} pixels"
    for name, detector in detectors.items():
        again = admitted(detector.regions(sample), source.frame)
        if again != seen[name]:
            yield f"{source.name}: {name} scores an insertion of strength 0 otherwise than the clean image"


def judged_in(archive: Archive, index: int) -> float:
    """Return the seconds that the whole judgement of a clean scan takes: the shorter of two, the first warms up."""
    radiograph = load(archive.sources[index]).radiograph
    return min(timed(lambda: judge_image(radiograph)) for _ in range(2))
