"""The study of image detection: archive, folds that leak nothing, checks that fail, report, exit codes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io.errors import DataError
from tests.service.daemon_rig import ENVIRONMENT, ROOT
from triage.analysis.fuser import PACKAGED, About, Fuser, to_bytes
from triage.analysis.normal import Normal
from triage.analysis.patches import DIMENSIONS, Bank
from triage.analysis.position_tables import END_BINS, HEIGHT_BINS, NORMALISED, PositionTables
from triage.analysis.regions import Region
from triage.cli import cli, main
from triage.study import evaluate_image as study
from triage.study import image_archive as archives
from triage.study import image_bars, image_looks, image_peers, image_runs, image_samples, jpeg_quality
from triage.study.image_runs import System
from triage.study.image_samples import Sample
from triage.study.image_shipped import FixedDetector, learned_elsewhere, systems_for

RNG = np.random.default_rng
GOODS = ("0000", "0202", "0805", "5201")


def picture(goods: str, seed: int) -> np.ndarray[Any, Any]:
    """A container on a chassis with goods in it, uint8: empty, stacks of several kinds, or a heap."""
    rng = RNG([seed, int(goods)])
    t = np.ones((220, 520), np.float32)
    t[20:184, 30:490] = 0.86
    for x in rng.integers(40, 480, 20):
        t[24:170, x : x + 3] -= rng.uniform(0.05, 0.2)
    for x in (30, 486):
        t[20:184, x : x + 4] = 0.2
    t[20:23, 30:490] *= 0.6
    for y in (176, 184):
        t[y : y + 2, 30:490] = 0.25
    for x in rng.integers(40, 450, 2):
        t[186:210, x : x + 30] = 0.1
    if goods == "0202":
        for k, x in enumerate(range(42, 470, 46)):
            t[60 + int(rng.integers(20)) : 174, x : x + 40] *= 0.30 + 0.02 * (k % 2)
    elif goods == "0805":
        for x in range(40 + 5 * seed, 470, 15 + seed):
            t[44:174, x : x + 12] *= 0.5 + rng.normal(0, 0.01)
    elif goods == "5201":
        heap = 90 + np.round(30 * np.sin((np.arange(440) + 100 * seed) / 70)).astype(int)
        for x, y in enumerate(heap):
            t[y:174, 40 + x] *= 0.02
    t = cv2.GaussianBlur(t, (0, 0), 0.7) + rng.normal(0, 0.004, t.shape)
    return np.clip(np.rint(255 * t), 0, 255).astype(np.uint8)


def write(path: Path, image: np.ndarray[Any, Any], quality: int = 95) -> None:
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scans of four commodities, with a manifest."""
    here = tmp_path_factory.mktemp("scans")
    lines = ["file,kind,declared_hs4"]
    for goods in GOODS:
        for seed in (1, 2):
            name = f"{goods}_{seed}.{'jpg' if seed == 1 else 'png'}"
            write(here / name, picture(goods, seed), 85)
            lines.append(f"{name},container,{goods}")
    (here / "manifest.csv").write_text("\n".join([*lines, "gone.jpg,container,0202"]))
    return here


@pytest.fixture(scope="module")
def archive(folder: Path) -> archives.Archive:
    return archives.read_archive(folder)


class Blind:
    """Finds nothing."""

    name = "blind"

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        pass

    def regions(self, sample: Sample) -> list[Region]:
        return []


class Darkest(Blind):
    """Points at the darkest place."""

    def regions(self, sample: Sample) -> list[Region]:
        inner = cv2.blur(sample.image[40:170, 50:470], (9, 9))
        y, x = divmod(int(np.argmin(inner)), inner.shape[1])
        return [Region(-float(inner[y, x]), (x + 50.0, y + 40.0), (x + 45, y + 35, x + 55, y + 45))]


class Restless(Darkest):
    """Scores the same image otherwise every time."""

    calls: ClassVar[list[int]] = []

    def regions(self, sample: Sample) -> list[Region]:
        self.calls.append(1)
        return [r._replace(score=r.score + len(self.calls)) for r in super().regions(sample)]


class Witness(Darkest):
    """Says what it was given to learn from, and refuses what it has learned from."""

    fits: ClassVar[list[tuple[set[str], set[str], set[str]]]] = []

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        self.sources = {s.source for s in clean}
        kinds, families = set(), set()
        for s in inserted:
            assert s.truth is not None
            self.sources.add(s.source)
            kinds.add(s.truth.kind)
            families.add(s.truth.family)
        self.fits.append((self.sources, kinds, families))

    def regions(self, sample: Sample) -> list[Region]:
        assert sample.source not in self.sources, "tested on what it learned from"
        assert sample.truth is None, "told what it is looking for"
        return super().regions(sample)


NAIVE = System("naive", image_peers.Naive, learns=False)


@pytest.fixture(autouse=True)
def no_time_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole judgement has tests of its own; here its time would be half of all."""
    monkeypatch.setattr(image_runs, "judged_in", lambda archive, index: 0.1)


def evaluated(folder: Path, *systems: System, **more: Any) -> dict[str, Any]:
    work = study.prepare(folder, systems=systems, **({"per_image": 5, "seeds": 1, "unseen": False} | more))
    return study.evaluate_image(work)


# ---- archive


def test_the_list_is_fixed_tagged_and_without_doubles(folder: Path, archive: archives.Archive) -> None:
    assert [s.name for s in archive.sources] == [f"{g}_{end}" for g in GOODS for end in ("1.jpg", "2.png")]
    assert [s.commodity for s in archive.sources] == [g for g in GOODS for _ in range(2)]
    assert [e.name for e in archive.left_out] == ["gone.jpg"]
    textures = {s.commodity: s.texture for s in archive.sources}
    assert textures["0000"] == "empty" and textures["0202"] == textures["0805"] == "stacked"
    assert textures["5201"] in ("homogeneous", "cluttered")
    assert archive.sha256() == archives.read_archive(folder).sha256()


def test_one_scan_under_several_names_is_one(folder: Path, tmp_path: Path) -> None:
    image = picture("0202", 1)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    write(tmp_path / "b.jpg", image, 60)
    cv2.imwrite(str(tmp_path / "c.png"), image[:, ::-1])
    cv2.imwrite(str(tmp_path / "d.png"), cv2.resize(image, None, fx=1.4, fy=1.4))
    (tmp_path / "day").mkdir()
    cv2.imwrite(str(tmp_path / "day" / "e.png"), picture("0202", 2))
    cv2.imwrite(str(tmp_path / "f.png"), np.full((200, 300), 250, np.uint8))
    found = archives.read_archive(tmp_path)
    assert [s.name for s in found.sources] == ["a.png", "day/e.png"]
    why = dict(found.left_out)
    assert all("shows what a.png shows" in why[name] for name in ("b.jpg", "c.png", "d.png")) and "f.png" in why


def test_scans_that_look_alike_stay_together_where_nothing_is_declared(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*_*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    found = archives.read_archive(tmp_path)
    by_group: dict[str, set[str]] = {}
    for s in found.sources:
        by_group.setdefault(s.name[:4], set()).add(s.group)
    assert all(len(groups) == 1 for groups in by_group.values()) and len({s.group for s in found.sources}) == 4


def test_plots_among_the_scans_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="read as such"):
        study.evaluate_image(study.prepare(folder, systems=[NAIVE]), out=folder / "plots")


def test_no_group_is_in_two_folds(archive: archives.Archive) -> None:
    parts = archives.folds(archive, 3)
    # four groups: three folds of them would leave one to learn from where two are held out
    assert len(parts) == 4 and sorted(i for part in parts for i in part) == list(range(8))
    for a in parts:
        for b in parts:
            if a is not b:
                assert not {archive.sources[i].group for i in a} & {archive.sources[i].group for i in b}


def test_folders_that_cannot_be_evaluated(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        archives.read_archive(tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), picture("0202", 1))
    with pytest.raises(DataError, match="at least 4"):
        study.prepare(tmp_path, unseen=True)
    (tmp_path / "manifest.csv").write_text("name,declared_hs4\na.png,0202\n")
    with pytest.raises(DataError, match="one named `file`"):
        archives.read_archive(tmp_path)
    (tmp_path / "manifest.csv").write_text("declared_hs4,file\n0202,a.png\n0901\n")
    with pytest.raises(DataError, match="row 2 below the head line names no file"):
        archives.read_archive(tmp_path)


@pytest.mark.parametrize("quality", [30, 75, 81, 96])
def test_quality_of_a_jpeg_is_found(quality: int) -> None:
    done, contents = cv2.imencode(".jpg", picture("0202", 1), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done and jpeg_quality.jpeg_quality(contents.tobytes()) == quality
    assert jpeg_quality.jpeg_quality(b"\x89PNG and no more") is None


def test_clean_and_inserted_images_are_compressed_alike(archive: archives.Archive) -> None:
    source = archive.sources[0]
    assert source.quality == 85
    plan = image_samples.plans([0], 1, 3, "test")[0]
    placebo = image_samples.inserted_image(archive, plan, placebo=True)
    if placebo is None:  # an empty container has no cargo to be in
        plan = image_samples.plans([0], 5, 3, "test")[4]
        placebo = image_samples.inserted_image(archive, plan, placebo=True)
    assert placebo is not None
    clean = image_samples.clean_sample(source)
    assert (image_samples.sample_of(source, placebo, "", told=False).image == clean.image).all()
    loaded = archives.load(source)
    assert (clean.image != loaded.image / np.float32(255)).any()  # it went through the encoder again
    found = image_samples.inserted_image(archive, plan)
    assert found is not None
    there = image_samples.sample_of(source, found, "", told=True)
    change = np.abs(there.image - clean.image)
    assert change[found.mask].mean() > 3 * change[~found.mask].mean()


def test_noise_of_the_open_beam_tells_the_quanta() -> None:
    rng, gain = RNG(3), 12.0
    dark, air = np.full((200, 1), 90.0), np.full((200, 1), 90.0 + gain * 3000)
    drift = 1 + 0.02 * np.sin(np.arange(800) / 60)
    counts = (dark + gain * rng.poisson(3000 * np.tile(drift, (200, 1)))).astype(np.uint16)
    counts[60:, 200:600] //= 4  # a vehicle
    assert archives.counts_per_quantum(counts, dark, air) == pytest.approx(gain, rel=0.05)
    assert archives.counts_per_quantum(counts[60:, 200:600], dark[60:], air[60:]) is None


def test_quotas() -> None:
    found = image_samples.plans([0, 1], 30, 1, "test")
    assert len(found) == 60
    for kind in ("compact", "brick", "metal"):
        bands = [p.band for p in found if p.kind == kind and p.band in image_samples.BANDS]
        assert {bands.count(b) for b in image_samples.BANDS} == {4}
    assert not any(p.band == image_samples.OPAQUE for p in image_samples.plans([0], 30, 1, "train", opaque=False))
    assert not any(p.kind == "slab" for p in image_samples.plans([0], 30, 1, "train", without="slab"))


def test_one_per_image_is_of_all_kinds_over_the_images() -> None:
    found = image_samples.plans(range(9), 1, 1, "test")
    assert [p.number for p in found] == [0] * 9
    assert {p.kind for p in found[:6]} == set(study.KINDS)
    turns = [image_samples.plans([0], 1, 1 + k, "test", turn=k)[0].kind for k in range(6)]
    assert set(turns) == set(study.KINDS)
    assert image_samples.plans([4], 1, 1, "test") == found[4:5]
    whole = image_samples.plans([3], 30, 1, "test")
    assert [p.kind for p in whole] == [p.kind for p in image_samples.plans([0], 30, 1, "test")]


# ---- what leaks, what does not


def test_nothing_learns_what_it_is_tested_on(folder: Path) -> None:
    """Witness refuses what it has learned from, and says what it was given."""
    witness = System("witness", Witness, from_insertions=True, unseen=Witness)
    work = study.prepare(folder, systems=[witness], per_image=4, seeds=1, learn_per_image=4)
    pairs = [frozenset(p) for p in itertools.combinations(range(4), 2)]
    ones = [frozenset({k}) for k in range(4)]
    assert set(work.jobs) == {
        *(image_runs.Job(k, None) for k in (*ones, *pairs)),
        *(image_runs.Job(k, kind) for k in ones for kind in image_runs.UNSEEN),
    }
    assert len(work.jobs) == 4 + 6 + 16
    for job in work.jobs[0], work.jobs[-1], image_runs.Job(ones[2], "slab"), image_runs.Job(ones[1], "compact"):
        Witness.fits.clear()
        done = image_runs.run_job(work.archive, work.systems, work.setting, job)
        ((sources, kinds, families),) = Witness.fits
        held_out = {work.archive.sources[i].sha256 for k in job.without for i in work.setting.folds[k]}
        assert sources == {s.sha256 for s in work.archive.sources} - held_out
        assert families == {"train"} and job.kind not in kinds and len(kinds) >= 2
        assert {work.archive.sources[i].sha256 for i in done.clean["witness"]} == held_out
        assert not done.leak_faults and not done.placebo_faults
        assert {t.plan.kind for t in done.trials} <= ({job.kind} if job.kind else set(study.KINDS))
        assert bool(done.trials) == (len(job.without) == 1)


def test_a_leak_is_found(archive: archives.Archive, folder: Path) -> None:
    clean = image_samples.CleanSamples(archive, [2, 3])
    assert image_runs.leaks_into(archive, [0, 1], clean, [], ()) == []
    assert "learned from" in image_runs.leaks_into(archive, [1, 2], clean, [], ())[0]
    # the same scan, mirrored, under another name and with another hash
    mirrored = [s._replace(image=np.ascontiguousarray(s.image[:, ::-1]), source="other") for s in clean]
    mirrored = [s._replace(frame=_mirrored(s)) for s in mirrored]
    assert image_runs.leaks_into(archive, [2], mirrored, [], ())
    assert image_runs.leaks_into(archive, [2], [], [archive.sources[2].sha256], ())
    told = System("shipped", Blind, trained_on=frozenset({archive.sources[4].sha256}))
    report = evaluated(folder, told._replace(learns=False), per_image=1)
    assert not report["leak_ok"] and "0805_1.jpg was learned from by shipped" in study.faults(report)[0]


def test_a_scan_is_known_again_however_it_is_stored(tmp_path: Path) -> None:
    """By a sketch, of which no picture can be made: what a fuser has learned from it may not be tested on."""
    image = picture("0202", 1)
    write(tmp_path / "as_it_was.jpg", image)
    learned = archives.read_archive(tmp_path).sources[0]
    (tmp_path / "as_it_was.jpg").unlink()
    stored = {
        "a.png": cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
        "b.png": np.ascontiguousarray(image[:, ::-1]), "c.jpg": np.minimum(image + 12.0, 255).astype(np.uint8),
    }  # fmt: skip
    made = fuser_of(About(trained_on=(learned.sha256,), sketches=(image_looks.sketch(learned.fingerprint),)))
    path = tmp_path / "fuser.npz"
    path.write_bytes(to_bytes(made))
    for name, copy in stored.items():
        write(tmp_path / name, copy, 50)
        archive = archives.read_archive(tmp_path)
        assert archive.sources[0].sha256 != learned.sha256
        systems = learned_elsewhere(archive, path)
        assert image_runs.leaks_into(archive, [0], [], [], systems) == [f"{name} was learned from by scanlane"]
        (tmp_path / name).unlink()
    write(tmp_path / "other.png", picture("0202", 2))
    archive = archives.read_archive(tmp_path)
    assert image_runs.leaks_into(archive, [0], [], [], learned_elsewhere(archive, path)) == []
    with pytest.raises(ValueError, match=r"base64|padding|reshape"):
        image_looks.sketched(("no sketch",), learned.fingerprint)


def fuser_of(about: About) -> Fuser:
    """A fuser without trees."""
    bank = Bank(codes=(np.zeros((4, DIMENSIONS + 1), np.float32),) * 2)
    values = np.ones((len(NORMALISED), END_BINS, HEIGHT_BINS), np.float32)
    tables = PositionTables(names=NORMALISED, values=values)
    normal = Normal(tables=tables, bank=bank, familiar=None, scans=4)
    return Fuser(features=(), trees=None, normal=normal, thresholds={}, about=about)


def _mirrored(sample: Sample) -> Any:
    f, width = sample.frame, sample.image.shape[1]
    return type(f)(
        left=width - f.right, right=width - f.left, roof_left=f.roof_right, roof_right=f.roof_left,
        floor_left=f.floor_right, floor_right=f.floor_left, floor_seen=f.floor_seen,
    )  # fmt: skip


def test_a_detector_that_is_not_the_same_twice_fails_the_placebo(folder: Path) -> None:
    report = evaluated(folder, System("restless", Restless, learns=False), per_image=1)
    assert not report["placebo_ok"] and "restless scores an insertion of strength 0" in study.faults(report)[0]


# ---- counting


def test_scored_by_hand() -> None:
    mask = np.zeros((50, 80), np.bool_)
    mask[20:30, 40:50] = True
    near = image_runs.dilated(mask)
    inside, beside, away = (
        Region(3.0, (44.0, 25.0), (40, 20, 50, 30)),
        Region(5.0, (36.9, 25.0), (44, 20, 60, 30)),
        Region(7.0, (35.0, 25.0), (0, 0, 5, 5)),
    )
    scored = image_runs.scored_by([inside, away], [beside], near, mask)
    assert scored == image_runs.Scored(score=3.0, chance=-np.inf, overlap=3.0, top=7.0)
    scored = image_runs.scored_by([beside], [inside], near, mask)
    assert scored == image_runs.Scored(score=-np.inf, chance=3.0, overlap=5.0, top=5.0)
    edge = Region(1.0, (37.0, 25.0), (0, 0, 1, 1))
    assert image_runs.scored_by([edge], [], near, mask).score == 1.0  # 3 pixels are near, 4 are not


def test_regions_that_count(archive: archives.Archive) -> None:
    frame = archive.sources[0].frame
    large = Region(99.0, (50, 50), (frame.left, 20, frame.left + 0.5 * (frame.right - frame.left), 60))
    small = [Region(float(k), (50, 50), (40, 40, 50, 50)) for k in range(14)]
    found = image_samples.admitted([large, *small], frame)
    assert [r.score for r in found] == [float(k) for k in range(13, 3, -1)]


def test_who_sees_nothing_finds_nothing(folder: Path) -> None:
    report = evaluated(folder, NAIVE, System("blind", Blind, learns=False))
    blind, naive = report["systems"]["blind"], report["systems"]["naive"]
    assert blind["pod_fa1"]["value"] == 0 and blind["auc_image"]["value"] == 0.5
    assert naive["pod_fa1"]["value"] > 0 and naive["auc_image"]["value"] > 0.5
    paired = report["details"]["paired"]["blind less naive"]["fa1"]
    assert paired["value"] == pytest.approx(-naive["pod_fa1"]["value"], abs=1e-4) and paired["only_first"] == 0
    assert report["placebo_ok"] and report["leak_ok"] and not study.faults(report)


def test_same_seed_same_report(folder: Path) -> None:
    def plain(seed: int) -> str:
        report = evaluated(folder, System("darkest", Darkest, learns=False), per_image=3, seed=seed)
        del report["systems"]["darkest"]["seconds_per_scan"]
        return json.dumps(report)

    assert plain(1) == plain(1) != plain(2)


def test_held_out_pairs_and_kinds_change_nothing_for_who_learns_nothing(folder: Path) -> None:
    """Thresholds by pairs of folds, and kinds never seen, must give the figures of the plain way."""
    plain = evaluated(folder, System("darkest", Darkest, learns=False))["systems"]["darkest"]
    nested = evaluated(folder, System("darkest", Darkest, unseen=Darkest), unseen=True)["systems"]["darkest"]
    del plain["seconds_per_scan"], nested["seconds_per_scan"]
    assert nested == plain
    for kind, figure in nested["unseen_kind_fa1"].items():
        assert figure == {k: nested["by_kind"][kind]["fa1"][k] for k in figure}


# ---- bars, commands


def test_a_bar_is_met_by_value_and_interval() -> None:
    bar = image_bars.BARS[0]
    figure = {"value": 0.62, "low": 0.5, "high": 0.7}
    assert image_bars.verdict(bar, figure, {"value": 0.2, "low": 0.1, "high": 0.3}) == (True, "")
    assert image_bars.verdict(bar, figure, {"value": 0.4, "low": 0.3, "high": 0.55})[0] is False
    assert image_bars.verdict(bar, figure | {"value": 0.59}, None)[0] is False
    assert image_bars.verdict(bar, {"value": None, "low": None, "high": None}, None)[0] is None
    worst = next(b for b in image_bars.BARS if b.at_most)
    assert image_bars.verdict(worst, {"value": 18.0, "low": 11.0, "high": 20.0}, None)[0] is False


KEYS = {
    "pod_fa1", "pod_fa01", "pod_far5", "pod_in_cargo_fa1", "pod_in_cargo_far5", "pod_headspace_far5", "by_kind",
    "unseen_kind_fa1", "worst_commodity_fa", "realised_far", "auc_image", "seconds_per_scan",
}  # fmt: skip


NAIVE_ONLY = """
from triage.study import evaluate_image, image_peers, image_runs
naive = image_runs.System("naive", image_peers.Naive, learns=False)
evaluate_image.systems_for = lambda archive, profile, unseen: (naive,)
from triage.cli import main
main()
"""
"""The command without what is trained: that has its own tests, and would take minutes here."""


@pytest.mark.timeout(240)
def test_command_prints_what_scripts_read(folder: Path, tmp_path: Path) -> None:
    words = ["--quick", "--per-image", "2", "--json", "--out", str(tmp_path)]
    # In a process of its own: matplotlib keeps its fonts open.
    done = subprocess.run(
        [sys.executable, "-c", NAIVE_ONLY, "evaluate", "image", str(folder), *words], capture_output=True, text=True,
        env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {"systems", "uninspectable_cover", "placebo_ok", "leak_ok", "images", "insertions"} <= report.keys()
    assert report["images"] == 8 and report["placebo_ok"] is True and report["leak_ok"] is True
    for system in report["systems"].values():
        assert system.keys() == KEYS
        plain = {k: v for k, v in system.items() if k not in ("by_kind", "unseen_kind_fa1")}
        for figure in [*plain.values(), *system["by_kind"].values(), *system["unseen_kind_fa1"].values()]:
            assert {"value", "low", "high"} <= figure.keys()
        assert set(system["by_kind"]) == set(study.KINDS)
    assert report["details"]["judgement_seconds"]["value"] > 0
    names = {Path(p).name for p in report["details"]["plots"]}
    assert names == {p.name for p in tmp_path.glob("*.png")} and len(names) == 6
    for path in tmp_path.glob("*.png"):
        assert cv2.imread(str(path)).std() > 5


def test_systems_are_shipped_or_trained_anew(archive: archives.Archive, tmp_path: Path) -> None:
    """A fuser is used as it is on scans it has not seen, and trained anew on those it has."""
    for trained_on, how in ((), "trained elsewhere"), ((archive.sources[3].sha256,), "trained anew"):
        made = fuser_of(About(trained_on=trained_on))
        path = tmp_path / f"{len(trained_on)}.npz"
        path.write_bytes(to_bytes(made))
        naive, untrained, ours = systems_for(archive, path, unseen=True)
        assert [naive.name, untrained.name, ours.name] == ["naive", "untrained", "scanlane"] and how in ours.how
        assert ours.learns == ours.from_insertions == bool(trained_on) and ours.unseen is not None
        assert isinstance(ours.make(), FixedDetector) == (not trained_on)
    path.write_bytes(b"no fuser")
    with pytest.raises(DataError, match="fuser"):
        systems_for(archive, path, unseen=True)


@pytest.mark.parametrize("scans", [1, 2])
def test_a_few_scans_are_judged_by_what_was_learned_elsewhere(tmp_path: Path, scans: int) -> None:
    for seed in range(1, scans + 1):
        write(tmp_path / f"{seed}.png", picture("0202", seed))
    words = ["evaluate", "image", str(tmp_path), "--profile", str(PACKAGED), "--per-image", "2", "--seeds", "1"]
    done = CliRunner().invoke(cli, [*words, "--workers", "1", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["images"] == scans and report["insertions"] >= 1 and report["leak_ok"] and report["placebo_ok"]
    ours, naive = report["systems"]["scanlane"], report["systems"]["naive"]
    assert ours.keys() == naive.keys() == KEYS and set(report["systems"]) == {"naive", "untrained", "scanlane"}
    # thresholds came with the fuser: 1 place in 1, 10 and 20 scans
    assert report["details"]["systems"]["scanlane"]["thresholds"]["far5"] == [pytest.approx(2.301, abs=1e-3)] * scans
    assert ours["pod_far5"]["value"] is not None and ours["realised_far"]["value"] is not None
    assert ours["unseen_kind_fa1"]["slab"] == {"value": None, "low": None, "high": None, "why": UNASKED}
    assert naive["pod_far5"]["value"] is None and "at least 10 other clean scans" in naive["pod_far5"]["why"]
    assert (naive["pod_fa1"]["value"] is None) == (scans == 1) == (ours["seconds_per_scan"]["low"] is None)
    assert any("a threshold at 0.05 false images" in line for line in image_bars.in_words(report))
    met = {row.name: row.met for row in image_bars.rows(report, "scanlane")}
    assert met["extra item @ FAR 5 %"] is not True  # nothing was measured to be better than


UNASKED = "not asked for, or too few loads to train without a kind: see --unseen"


def test_command_prints_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "systems_for", lambda archive, profile, unseen: (NAIVE,))
    done = CliRunner().invoke(cli, ["evaluate", "image", str(folder), "--quick", "--per-image", "2", "--workers", "1"])
    assert done.exit_code == 0, done.output
    for bar in image_bars.BARS:
        assert bar.name in done.output
    assert "placebo check passed" in done.output and "not in the folder: gone.jpg" in done.output


def test_a_failed_check_is_exit_code_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restless = (System("restless", Restless, learns=False),)
    monkeypatch.setattr(study, "systems_for", lambda archive, profile, unseen: restless)
    words = ["evaluate", "image", str(folder), "--quick", "--per-image", "1", "--workers", "1", "--json"]
    done = CliRunner().invoke(cli, words)
    assert json.loads(done.stdout)["placebo_ok"] is False
    assert isinstance(done.exception, DataError) and "must not be believed" in str(done.exception)


@pytest.mark.parametrize(("more", "code"), [([], 1), (["--seeds", "0"], 2), (["--profile", "none.toml"], 2)])
def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], code: int) -> None:
    monkeypatch.setattr(sys, "argv", ["scanlane", "evaluate", "image", str(tmp_path), *more])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code


def test_real_scans_are_an_archive(shared_data: Path) -> None:
    found = archives.read_archive(shared_data / "cargo")
    assert len(found.sources) == 33 and not found.left_out
    looks = np.stack([s.looks for s in found.sources])
    far = np.linalg.norm(looks[:, None] - looks, axis=2) + 9 * np.eye(len(looks))
    pairs = [i for i, s in enumerate(found.sources) if s.commodity != archives.UNDECLARED]
    right = sum(found.sources[int(np.argmin(far[i]))].commodity == found.sources[i].commodity for i in pairs)
    assert right >= 14  # of 16
    pairs_of_scans = itertools.combinations([s.fingerprint for s in found.sources], 2)
    assert (np.max([image_looks.alike(a, b) for a, b in pairs_of_scans], axis=0) < image_looks.SAME - 0.1).all()


def test_kinds_are_left_out_where_trees_can_be_trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-learn the packaged fuser is tested all the same, and what must be asked for is refused."""
    assert any(job.kind is not None for job in study.prepare(folder).jobs)
    for place in ("triage.study.evaluate_image.find_spec", "triage.study.image_shipped.find_spec"):
        monkeypatch.setattr(place, lambda name: None)
    work = study.prepare(folder)
    assert work.systems[-1].name == "scanlane"
    assert all(job.kind is None for job in work.jobs)
    with pytest.raises(DataError, match="need scikit-learn"):
        study.prepare(folder, unseen=True)
