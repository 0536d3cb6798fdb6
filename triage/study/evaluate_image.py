"""How well objects are found in images, at false alarms that are counted, beside naive and untrained ways to do it.

Objects of known kind, place and strength are put into real scans, and every system looks at the clean and at the
changed image. What is measured is how well insertions are found, not contraband. A figure is only as good as the number
of clean scans behind it: with 33, "5 % of the images" are two of them; the realised rate is always told beside.

What is tested was never learned from: see `image_runs` for the folds, `insertions` for the two families of generators,
`image_samples` for the quotas, `image_statistics` for thresholds and intervals. Two checks fail the whole evaluation:
the placebo (an insertion of strength 0 must give the clean image, and the clean image's regions), and the leak (nothing
tested may have been seen in training under any name).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.analysis.fuser import PACKAGED
from triage.study.image_archive import FEWEST_GROUPS, Archive, folds, groups_in, read_archive
from triage.study.image_runs import JUDGEMENT, UNSEEN, Done, Job, Setting, System, Trial, jobs_of, run_jobs
from triage.study.image_shipped import learned_elsewhere, seen_by, systems_for
from triage.study.image_statistics import POINTS, Draws, Estimate, fewest, only, threshold, tops
from triage.study.insertions import BANDS, KINDS, OPAQUE
from triage.study.plot_portal import need_matplotlib

Array: TypeAlias = NDArray[Any]
Progress: TypeAlias = Callable[[], None]

FOLDS, QUICK_FOLDS = 5, 3
FEWEST_SCANS = 6
"""Scans of a folder from which thresholds are learned; of fewer none are."""
BARS_KINDS = ("compact", "brick", "metal", "slab")
IN_CARGO_KINDS = ("compact", "brick", "metal")
CNR_EDGES = (0.0, 0.5, 1.0, 2.0, 5.0, np.inf)
LEARN_PER_IMAGE = 12


class Table(NamedTuple):
    """All insertions of an evaluation, one per entry of every array, and the clean scans they were put into.

    score, chance, overlap, top : by system, as in `image_runs.Scored`
    limit : by system and operating point, the threshold of the insertion's fold
    """

    trials: list[Trial]
    image: Array
    kind: Array
    background_t: Array
    cnr: Array
    in_cargo: Array
    score: dict[str, Array]
    chance: dict[str, Array]
    overlap: dict[str, Array]
    top: dict[str, Array]

    def visible(self) -> Array:
        """Return which were put where something can be seen."""
        return np.asarray(self.background_t >= BANDS[0][0])


class Evaluation(NamedTuple):
    """Everything that was counted, as a report and plots need it.

    thresholds : by system, operating point and fold
    clean : by system and scan, scores of the regions of the clean image, by the detector that its fold is tested with
    fold : of every scan
    """

    archive: Archive
    setting: Setting
    systems: tuple[System, ...]
    done: list[Done]
    table: Table
    thresholds: dict[str, dict[str, Array]]
    clean: dict[str, list[Array]]
    fold: Array
    draws: Draws
    within: Draws

    def limits(self, system: str, point: str, image: Array) -> Array:
        """Return the threshold at which every trial or scan stands."""
        return np.asarray(self.thresholds[system][point][self.fold[image]])

    def why(self, system: str, point: str) -> str:
        """Return in words why a system has no threshold at an operating point, nothing where it has one."""
        if not np.isnan(self.thresholds[system][point]).any():
            return ""
        what, rate = POINTS[point]
        return (
            f"a threshold at {rate:g} false {what} per image is set by at least {fewest(point)} other clean scans, "
            f"here are {len(self.archive.sources) - 1}; give more, or a profile that has learned thresholds"
        )

    def hits(self, system: str, point: str) -> Array:
        """Return which insertions are found, those apart that the clean image already alarmed on."""
        t, limit = self.table, self.limits(system, point, self.table.image)
        return np.asarray((t.score[system] >= limit) & ~(t.chance[system] >= limit))

    def share(self, system: str, point: str, chosen: Array) -> Estimate:
        """Return the share found of the chosen insertions; no value where there is no threshold."""
        if why := self.why(system, point):
            return Estimate(None, why=why)
        return self.draws.share(self.hits(system, point)[chosen], self.table.image[chosen])

    def false_alarms(self, system: str, point: str) -> Array:
        """Return how many regions of every clean scan alarm."""
        scans = np.arange(len(self.archive.sources))
        limit = self.limits(system, point, scans)
        return np.array([int((c >= v).sum()) for c, v in zip(self.clean[system], limit, strict=True)], np.float64)

    def rate(self, system: str, point: str, of: Callable[[Array], Estimate]) -> Estimate:
        """Return what `of` makes of every scan's false alarms; no value where there is no threshold."""
        why = self.why(system, point)
        return Estimate(None, why=why) if why else of(self.false_alarms(system, point))

    def alarmed(self, system: str) -> Estimate:
        """Return the share of clean scans that alarm where 5 % of them should."""
        return self.rate(system, "far5", lambda fa: self.draws.share(fa > 0, np.arange(fa.size)))


class Work(NamedTuple):
    """What there is to do: one step of progress per job."""

    archive: Archive
    setting: Setting
    systems: tuple[System, ...]
    jobs: list[Job]


def prepare(
    folder: Path, *, per_image: int = 30, seeds: int = 3, quick: bool = False, unseen: bool | None = None,
    profile: Path | None = None, seed: int = 1, most_folds: int = FOLDS, learn_per_image: int = LEARN_PER_IMAGE,
    systems: Sequence[System] | None = None,
) -> Work:  # fmt: skip
    """Return the work of an evaluation.

    folder : images or recordings, with or without a `manifest.csv`
    per_image, seeds : insertions into every scan, and how often that is done
    quick : few insertions and folds: a look, not a result
    unseen : also train without a kind and look for that kind, four times the work; None: where trees can be trained
    profile : a fuser trained elsewhere. Where the folder has too few scans to learn from, nothing is: it is judged by
        the fuser and its thresholds, and what needs other scans of the folder has no value
    most_folds, learn_per_image : folds of commodities, and insertions into every scan that is learned from
    systems : what to compare; default: all there are

    Raises DataError for a folder that cannot be evaluated and impossible numbers.
    """
    if per_image < 1 or seeds < 1:
        raise DataError(f"evaluate image: {per_image} insertions per image, {seeds} seeds; give at least one of each")
    wanted = unseen is True
    if quick:
        per_image, seeds, unseen, most_folds = min(per_image, 10), 1, False, min(most_folds, QUICK_FOLDS)
    if unseen is None:
        unseen = find_spec("sklearn") is not None
    archive = read_archive(folder)
    if systems is None and not wanted and _too_few(archive, profile):
        setting = Setting(tuple((i,) for i in range(len(archive.sources))), per_image, seeds, learn_per_image, seed)
        compared = learned_elsewhere(archive, profile)
        return Work(archive, setting, compared, jobs_of(compared, setting, unseen=False))
    setting = Setting(folds(archive, most_folds), per_image, seeds, learn_per_image, seed)
    compared = tuple(systems) if systems is not None else systems_for(archive, profile, unseen=unseen)
    return Work(archive, setting, compared, jobs_of(compared, setting, unseen=unseen))


def _too_few(archive: Archive, profile: Path | None) -> bool:
    """Return whether nothing is learned from the folder itself. Raises DataError for a profile that cannot be read.

    Of a few scans no threshold at 5 % can be set. What a fuser has seen it may not judge: those teach anew if they can.
    """
    if groups_in(archive) < FEWEST_GROUPS:
        return True
    return len(archive.sources) < FEWEST_SCANS and not seen_by(archive, profile or PACKAGED)[0]


def evaluate_image(
    work: Work, *, out: Path | None = None, progress: Progress | None = None, pool: Executor | None = None
) -> dict[str, Any]:
    """Do the work and return its report, ready for JSON; the report does not depend on the pool.

    out : folder for the plots, which need matplotlib

    Raises DataError where plots are asked for and cannot be drawn there.
    """
    if out is not None:
        need_matplotlib()
        if out.resolve().is_relative_to(work.archive.folder.resolve()):
            raise DataError(f"{out}: lies in the folder of scans, and plots would be read as such; give another")
    archive, setting, systems, jobs = work
    done = run_jobs(archive, systems, setting, jobs, progress or (lambda: None), pool)
    evaluation = counted(archive, setting, systems, done)
    report = report_of(evaluation)
    if out is not None:
        # Here, because that module takes this one's results.
        from triage.study.plot_image import plot_image

        report["details"]["plots"] = plot_image(out, evaluation)
    return report


# --------------------------------------------------------------------------------------------------------------
# From jobs to figures


def counted(archive: Archive, setting: Setting, systems: Sequence[System], done: Sequence[Done]) -> Evaluation:
    """Return what all jobs found, with thresholds for every fold."""
    fold = np.zeros(len(archive.sources), np.int64)
    for k, members in enumerate(setting.folds):
        fold[list(members)] = k
    by_job = {d.job: d for d in done}
    whole = [by_job[Job(frozenset({k}), None)] for k in range(len(setting.folds))]
    clean = {s.name: [whole[k].clean[s.name][i] for i, k in enumerate(fold)] for s in systems}
    thresholds = {s.name: _thresholds(s, clean[s.name], fold, by_job) for s in systems}
    groups = sorted({s.group for s in archive.sources})
    of_group = [groups.index(s.group) for s in archive.sources]
    images = len(archive.sources)
    return Evaluation(
        archive, setting, tuple(systems), list(done), _table([t for d in whole for t in d.trials], systems),
        thresholds, clean, fold, Draws(images, setting.seed), Draws(images, setting.seed, of_group),
    )  # fmt: skip


def _thresholds(system: System, clean: list[Array], fold: Array, by_job: Mapping[Job, Done]) -> dict[str, Array]:
    """Return by operating point the threshold of every fold, from clean scans of the other folds."""
    found: dict[str, list[float]] = {point: [] for point in POINTS}
    # where every scan is a fold there are too few to learn from, and may be too few for a rate
    few = len(clean) == int(fold.max()) + 1
    for k in range(int(fold.max()) + 1):
        others = [int(i) for i in np.flatnonzero(fold != k)]
        scores = [clean[i] for i in others]
        if system.learns:
            scores = [by_job[Job(frozenset({k, int(fold[i])}), None)].clean[system.name][i] for i in others]
        for point in POINTS:
            if system.limits is not None:
                found[point].append(system.limits[point])
            elif few and len(scores) < fewest(point):
                found[point].append(np.nan)
            else:
                found[point].append(threshold(point, scores))
    return {point: np.array(values) for point, values in found.items()}


def _table(trials: list[Trial], systems: Sequence[System]) -> Table:
    def of(field: str) -> dict[str, Array]:
        return {s.name: np.array([getattr(t.scored[s.name], field) for t in trials], np.float64) for s in systems}

    return Table(
        trials, np.array([t.plan.source for t in trials], np.int64), np.array([t.plan.kind for t in trials], np.str_),
        np.array([t.background_t for t in trials]), np.array([t.cnr for t in trials]),
        np.array([t.in_cargo for t in trials], np.bool_), of("score"), of("chance"), of("overlap"), of("top"),
    )  # fmt: skip


def report_of(e: Evaluation) -> dict[str, Any]:
    """Return the report of an evaluation."""
    placebo = [fault for d in e.done for fault in d.placebo_faults]
    leaks = [fault for d in e.done for fault in d.leak_faults]
    return {
        "systems": {s.name: _system(e, s) for s in e.systems},
        "uninspectable_cover": _cover(e),
        "placebo_ok": not placebo, "leak_ok": not leaks,
        "images": len(e.archive.sources), "insertions": len(e.table.trials),
        "details": _details(e) | {"placebo_faults": placebo, "leak_faults": leaks},
    }  # fmt: skip


def _system(e: Evaluation, system: System) -> dict[str, Any]:
    """Return the figures of one system that scripts read."""
    t, name = e.table, system.name
    bars = t.visible() & np.isin(t.kind, BARS_KINDS)
    cargo = np.isin(t.kind, IN_CARGO_KINDS) & t.in_cargo
    headspace = np.isin(t.kind, IN_CARGO_KINDS) & (t.background_t >= BANDS[-1][0])
    groups = [s.group for s in e.archive.sources]
    names = sorted(set(groups))
    per_kind = {}
    for kind in KINDS:
        chosen = t.visible() & (t.kind == kind)
        # the value is that of the bars, at FAR 5 %
        per_kind[kind] = e.share(name, "far5", chosen).plain() | {"fa1": e.share(name, "fa1", chosen).plain()}
    return {
        **{f"pod_{point}": e.share(name, point, bars).plain() for point in POINTS},
        "pod_in_cargo_fa1": e.share(name, "fa1", cargo).plain(),
        "pod_in_cargo_far5": e.share(name, "far5", cargo).plain(),
        "pod_headspace_far5": e.share(name, "far5", headspace).plain(),
        "by_kind": per_kind,
        "unseen_kind_fa1": {kind: _unseen(e, system, kind).plain() for kind in UNSEEN},
        "worst_commodity_fa": e.rate(
            name, "fa1", lambda fa: e.within.largest_mean(fa, [names.index(g) for g in groups])
        ).plain(),
        "realised_far": e.alarmed(name).plain(),
        "auc_image": e.draws.area_under_curve(
            np.array([tops(c) for c in e.clean[name]]), t.top[name][bars], t.image[bars]
        ).plain(),
        "seconds_per_scan": _seconds(e, name).plain(),
    }  # fmt: skip


def _unseen(e: Evaluation, system: System, kind: str) -> Estimate:
    """Return the share found at 1 false region per image of a kind that was never learned."""
    if system.unseen is None and not system.elsewhere:
        return e.share(system.name, "fa1", e.table.visible() & (e.table.kind == kind))
    done = [d for d in e.done if d.job.kind == kind]
    if not done:
        return Estimate(None, why="not asked for, or too few loads to train without a kind: see --unseen")
    clean = {i: scores for d in done for i, scores in d.clean[system.name].items()}
    hits, image = [], []
    for d in done:
        (k,) = d.job.without
        limit = threshold("fa1", [scores for i, scores in clean.items() if e.fold[i] != k])
        for t in d.trials:
            if t.background_t >= BANDS[0][0]:
                scored = t.scored[system.name]
                hits.append(scored.score >= limit and not scored.chance >= limit)
                image.append(t.plan.source)
    return e.draws.share(np.array(hits, np.bool_), np.array(image, np.int64))


def _seconds(e: Evaluation, name: str) -> Estimate:
    """Return the mean time of clean scans, by the detectors that their folds are tested with."""
    found = {i: s for d in e.done if d.job.whole for i, s in d.seconds.get(name, {}).items()}
    # of the judgement only some scans were timed
    draws = e.draws if len(found) == len(e.archive.sources) else Draws(len(found), e.setting.seed)
    return draws.mean(np.array([found[i] for i in sorted(found)]))


def _cover(e: Evaluation) -> dict[str, Any]:
    """Return the share of insertions where nothing can be seen that lie in the uninspectable area."""
    trials = [t for t in e.table.trials if t.covered is not None]
    covered = np.array([bool(t.covered) for t in trials], np.bool_)
    return e.draws.share(covered, np.array([t.plan.source for t in trials], np.int64)).plain()


# --------------------------------------------------------------------------------------------------------------
# Details


def _details(e: Evaluation) -> dict[str, Any]:
    setting, sources = e.setting, e.archive.sources
    no_place: dict[str, int] = {}
    for d in e.done:
        for where, count in d.no_place.items() if d.job.kind is None else ():
            no_place[where] = no_place.get(where, 0) + count
    return {
        "archive": str(e.archive.folder), "list_sha256": e.archive.sha256(),
        "simulated_images": sum(s.simulated for s in sources),
        "left_out": [entry._asdict() for entry in e.archive.left_out],
        "per_image": setting.per_image, "seeds": setting.seeds, "seed": setting.seed,
        "learned_per_image": setting.learn_per_image, "no_place": no_place,
        "folds": len(setting.folds), "intervals": "95 %, images drawn anew; wilson takes insertions for independent",
        "judgement_seconds": _seconds(e, JUDGEMENT).plain(),
        "systems": {s.name: {"how": s.how} | _more(e, s.name) for s in e.systems},
        "paired": _paired(e),
        "scans": [
            {
                "name": s.name, "sha256": s.sha256, "commodity": s.commodity, "texture": s.texture,
                "texture_how": s.texture_how, "group": s.group, "fold": int(k), "simulated": s.simulated,
            }
            for s, k in zip(sources, e.fold, strict=True)
        ],
    }  # fmt: skip


def _more(e: Evaluation, name: str) -> dict[str, Any]:
    """Return one system's figures by background, contrast, texture and commodity, and the realised rates."""
    t = e.table
    bars = t.visible() & np.isin(t.kind, BARS_KINDS)
    texture = np.array([e.archive.sources[i].texture for i in t.image], np.str_)
    group = np.array([e.archive.sources[i].group for i in t.image], np.str_)
    cuts = {
        "by_t": {f"{a:g}-{min(b, 1):g}": bars & (t.background_t >= a) & (t.background_t < b) for a, b in BANDS},
        "by_cnr": {
            f"{a:g}-{b:g}": bars & (t.cnr >= a) & (t.cnr < b)
            for a, b in itertools.pairwise(CNR_EDGES)
        },
        "by_texture": {v: bars & (texture == v) for v in np.unique(texture)},
        "by_commodity": {v: bars & (group == v) for v in np.unique(group)},
        "opaque": {"t < .03": t.background_t < OPAQUE[1]},
    }  # fmt: skip
    points = ("fa1", "far5")
    shares = {
        cut: {str(v): {p: e.share(name, p, chosen).plain() for p in points} for v, chosen in parts.items()}
        for cut, parts in cuts.items()
    }
    alarms = e.false_alarms(name, "fa1")
    groups = [s.group for s in e.archive.sources]
    by_chance = (t.chance[name] >= e.limits(name, "fa1", t.image))[bars]
    return {
        **shares,
        "realised": {
            "fa1": e.rate(name, "fa1", e.draws.mean).plain(), "fa01": e.rate(name, "fa01", e.draws.mean).plain(),
            "far5": e.alarmed(name).plain(),
        },
        "fa_by_commodity": {} if e.why(name, "fa1") else {
            g: round(float(np.mean([a for a, other in zip(alarms, groups, strict=True) if other == g])), 3)
            for g in sorted(set(groups))
        },
        "same_rate": {point: _same_rate(e, name, point, bars).plain() for point in POINTS},
        "iou_fa1": e.rate(name, "fa1", lambda _: _overlap(e, name, bars)).plain(),
        "chance_fa1": e.rate(name, "fa1", lambda _: e.draws.share(by_chance, t.image[bars])).plain(),
        "thresholds": {
            point: [float(v) if np.isfinite(v) else None for v in values]
            for point, values in e.thresholds[name].items()
        },
    }  # fmt: skip


def _same_rate(e: Evaluation, name: str, point: str, chosen: Array) -> Estimate:
    """Return the share found at the one threshold at which all clean scans together have the nominal rate.

    It flatters a little, for it was taken from the scans it is told of; two systems can be compared by it.
    """
    if len(e.clean[name]) < fewest(point):
        return Estimate(None, why=f"at least {fewest(point)} clean scans are needed for this rate")
    limit, t = threshold(point, e.clean[name]), e.table
    hits = (t.score[name] >= limit) & ~(t.chance[name] >= limit)
    return e.draws.share(hits[chosen], t.image[chosen])


def _overlap(e: Evaluation, name: str, chosen: Array) -> Estimate:
    """Return the share at 1 false region per image whose box a region overlaps by a tenth or more."""
    hits = e.table.overlap[name] >= e.limits(name, "fa1", e.table.image)
    return e.draws.share(hits[chosen], e.table.image[chosen])


def _paired(e: Evaluation) -> dict[str, Any]:
    """Return for every two systems how much more the later finds, insertion by insertion."""
    t = e.table
    bars = t.visible() & np.isin(t.kind, BARS_KINDS)
    found = {}
    for i, first in enumerate(e.systems):
        for second in e.systems[i + 1 :]:
            entry = {}
            for point in POINTS:
                if why := e.why(second.name, point) or e.why(first.name, point):
                    entry[point] = Estimate(None, why=why).plain()
                    continue
                a, b = e.hits(second.name, point)[bars], e.hits(first.name, point)[bars]
                entry[point] = e.draws.difference(a, b, t.image[bars]).plain() | only(a, b)
            found[f"{second.name} less {first.name}"] = entry
    return found


def faults(report: Mapping[str, Any]) -> list[str]:
    """Return in words why a report must not be believed; none for a good one."""
    details = report["details"]
    return [f"placebo: {f}" for f in details["placebo_faults"]] + [f"leak: {f}" for f in details["leak_faults"]]
