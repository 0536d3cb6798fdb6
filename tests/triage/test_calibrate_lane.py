"""From an archive to a profile, from a profile to findings with p-values, and the same again on replay."""

import json
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io import lane_profile, recording
from scanner_io.errors import ConfigError, DataError
from scanner_io.model import Decision
from tests import lanes, samples
from triage import cli
from triage.analysis import goods_history, pipeline
from triage.analysis.conformal import calibration_of
from triage.analysis.drift import why_no_example
from triage.analysis.fuser import FEATURES, About, Fuser
from triage.analysis.goods_profile import NAMES, Chapter, GoodsHistory
from triage.analysis.kinds import KINDS
from triage.analysis.maps import ROWS, maps_of
from triage.analysis.normal import LEAST_KNOWN, learn_normal
from triage.analysis.standing import fuser_of, goods_of
from triage.analysis.unlike import GRID, TEXTURE_UNKNOWN
from triage.service import offline
from triage.service.lane import Judge
from triage.service.lane import lane_profile as profile_of_lane
from triage.service.outbox import Outbox, ScanRow
from triage.service.simulated import simulate_recordings
from triage.study import calibrate_lane as study
from triage.study import lane_normal

RATE = 0.5
"""Promised in these tests, with LEAST scans: a lane has more, which would take minutes here."""
LEAST = 8


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with 12 recordings of a simulated lane, without portal, as judged before it was calibrated."""
    folder = tmp_path_factory.mktemp("archive")
    judge = Judge(threads=1)
    settings = {"columns": 400, "channels": 192, "energies": 1, "portal": False, "threat_share": 0.2}
    paths = [path for path, _ in simulate_recordings(folder / "recordings", 12, 11, "north", judge, **settings)]
    return folder, paths


@pytest.fixture(scope="module")
def learned(archive):
    folder, _ = archive
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "least_scans", lambda rate: LEAST)
        return study.calibrate_lane([folder], flag_rate=RATE)[0]


def test_a_lane_is_learned_from_its_recordings(archive, learned):
    _, paths = archive
    assert learned.scans + len(learned.excluded) == len(paths)
    assert learned.lane == "north" and learned.simulated
    assert set(learned.sources) == {
        recording.pixels_hash(recording.read(p).scan.radiograph) for p in paths
    }  # fmt: skip
    result, image = pipeline.judged(recording.read(paths[0]).scan, pipeline.Profile())
    assert why_no_example(result) == ""
    np.testing.assert_array_equal(learned.scores[0], [image.scores.get(k, -np.inf) for k in learned.kinds])
    assert learned.cells[learned.cell_of_scan[0]] == image.cell


def test_a_pool_learns_the_same_in_order(archive):
    _, paths = archive
    advanced = []
    with ThreadPoolExecutor(1) as pool:
        pooled = list(study.examples_of(paths[:2], [study.How()] * 2, lambda: advanced.append(1), pool))
    assert pooled == list(study.examples_of(paths[:2], [study.How()] * 2, lambda: None, None))
    assert len(advanced) == 2


def test_findings_have_p_values_and_replay_gives_the_same_bytes(archive, learned, tmp_path):
    _, paths = archive
    path = tmp_path / "north.profile"
    lane_profile.write(path, learned)
    judge = Judge(profile_of_lane(None, str(path), "north"), threads=1)
    flagged = 0
    for number, source in enumerate(paths):
        scan = recording.read(source).scan
        result = judge(scan)
        standing = result.standing
        calibrated = [f for f in result.findings if f.kind in KINDS and f.p_value is not None]
        assert [f.tier == "review" for f in calibrated] == [f.p_value <= standing.level for f in calibrated]
        assert all("uncalibrated" not in f.reason and "calibrated on" in f.reason for f in calibrated)
        # whatever the scan is flagged for is shown
        assert (standing.p_value <= standing.level) == any(f.tier == "review" for f in calibrated)
        flagged += standing.p_value <= standing.level
        if number == 0:
            again = tmp_path / f"{number}.scan.h5"
            recording.write(again, scan, config={}, result=result)
            assert offline.replay_file(again, judge, 0.0).same
    assert 0 < flagged < len(paths)


def test_without_a_profile_nothing_changes_but_for_the_profiles_name(archive, learned):
    _, paths = archive
    scan = recording.read(paths[0]).scan
    plain = pipeline.run(scan, pipeline.Profile())
    assert plain.standing is None
    assert all(f.p_value is None for f in plain.findings)
    named = msgspec.structs.replace(learned, sha256=lane_profile.encode(learned)[1])
    with_it = pipeline.run(scan, pipeline.Profile(lane=named))
    assert with_it.profile != plain.profile
    # what is no kind that a lane is calibrated on keeps its own word
    keep = [f for f in plain.findings if f.kind not in (*KINDS, TEXTURE_UNKNOWN)]
    assert [f for f in with_it.findings if f.kind not in (*KINDS, TEXTURE_UNKNOWN)] == keep
    assert plain.quality == with_it.quality


def test_a_portals_alarm_is_not_muted(archive, learned):
    _, paths = archive
    named = msgspec.structs.replace(learned, sha256="0" * 64)
    scan = msgspec.structs.replace(recording.read(paths[0]).scan, portal=samples.portal(alarm=True))
    assert pipeline.run(scan, pipeline.Profile(lane=named)).outcome == "ALARM"
    assert "portal alarmed" in study.learn(scan, pipeline.Profile()).why_not


def test_the_scan_under_test_is_compared_with_its_own_stratum(learned):
    verdict = calibration_of(learned).judge({"local_contrast_dark": 1e6}, ("loaded", "00"))
    stratum = next(s for s in learned.strata if s.words == verdict.stratum)
    assert verdict.scans == stratum.scans
    stranger = round(verdict.p_value * (stratum.scans + 1)) - 1
    assert f"of the {stratum.scans} scans" in verdict.words(verdict.p_value)
    assert stranger == 0 or verdict.words(verdict.p_value).startswith(f"{stranger} of")


def test_a_look_that_the_lane_hardly_has_never_reads_clear_and_is_counted_apart(archive, learned):
    """No p-value is low here: what asks for a review is that nothing was learned of such loads."""
    elsewhere = tuple(("elsewhere", chapter) for _, chapter in learned.cells)
    named = msgspec.structs.replace(learned, sha256="0" * 64, level=1e-9, cells=elsewhere)
    scan = recording.read(archive[1][0]).scan
    texture = pipeline.judged(scan, pipeline.Profile())[1].cell[0]
    result = pipeline.run(scan, pipeline.Profile(lane=named))
    (told,) = [f for f in result.findings if f.kind == TEXTURE_UNKNOWN]
    assert result.outcome == "REVIEW" and told.tier == "review"
    assert told.reason in result.reasons and f"of its look ({texture}), {LEAST_KNOWN} are needed" in told.reason
    assert result.standing.unknown and result.standing.p_value > named.level
    enough = msgspec.structs.replace(
        named, cells=(*elsewhere, (texture, "made up")), sources=("",) * 50,
        cell_of_scan=np.append(learned.cell_of_scan, [len(learned.cells)] * LEAST_KNOWN).astype(np.int32),
    )  # fmt: skip
    assert not pipeline.run(scan, pipeline.Profile(lane=enough)).standing.unknown


def test_calibration_says_which_looks_are_missing_and_how_many_will_be_reviewed_for_it():
    kept = lanes.examples(np.random.default_rng(1), 200)
    scarce = [msgspec.structs.replace(one, cell=("homogeneous", "85")) for one in kept[:3]]
    odd = [msgspec.structs.replace(one, unknown=True, cell=("restless", "85")) for one in kept[3:5]]
    others = [msgspec.structs.replace(one, cell=("restless", one.cell[1])) for one in kept[5:]]
    profile = study.profile_of([*scarce, *others, *odd], (), flag_rate=0.1, thresholds="t")
    report = study.report_of(profile)["unknown"]
    assert report["scans"] == profile.unknown_scans == 5 and report["expected_rate"] == 5 / 200
    assert report["missing"] == ["empty", "homogeneous", "several containers"]
    told = "\n".join(study.in_words(study.report_of(profile)))
    assert "beside the promise" in told and "homogeneous (3 of 20)" in told and "MISSING" in told
    assert [one.cell[0] for one in study.evenly([*others, *scarce], 7)] == ["homogeneous", "restless"] * 3 + [
        "restless"
    ]


# --------------------------------------------------------------------------------------------------------------
# What is left out


def test_what_is_left_out_is_named_with_the_reason():
    rng = np.random.default_rng(1)
    kept = lanes.examples(rng, 20)
    again = msgspec.structs.replace(kept[0], scan="north-again")
    broken = study.Example(file="torn.png", why_not="cannot be read: torn")
    learned, excluded = study.sorted_out([*kept, again, broken], {"north-3"}, None)
    assert len(learned) == 19
    assert {e.scan: e.reason for e in excluded} == {
        "north-3": "decided inspect, with a find",
        "north-again": "the same counts as north-0",
        "torn.png": "cannot be read: torn",
    }


def test_lanes_and_real_with_simulated_are_not_mixed():
    rng = np.random.default_rng(1)
    kept = lanes.examples(rng, 4)
    other = [msgspec.structs.replace(one, lane="south", counts_hash=f"s{one.scan}") for one in kept]
    with pytest.raises(DataError, match="lanes north, south"):
        study.sorted_out([*kept, *other], set(), None)
    assert len(study.sorted_out([*kept, *other], set(), "south")[0]) == 4
    with pytest.raises(DataError, match="1 of 4 scans are simulated"):
        study.sorted_out([msgspec.structs.replace(kept[0], simulated=True), *kept[1:]], set(), None)


def test_too_few_scans_are_refused_with_the_number_needed():
    few = lanes.examples(np.random.default_rng(1), 60)
    excluded = (lane_profile.Excluded(scan="x", reason="the portal alarmed"),) * 2
    with pytest.raises(DataError, match=r"60 scans .* 5.00% needs at least 200.*left out: 2 the portal alarmed"):
        study.profile_of(few, excluded, flag_rate=0.05, thresholds="")
    with pytest.raises(DataError, match="needs at least 1000"):
        study.profile_of(few, (), flag_rate=0.01, thresholds="")


def test_a_find_is_what_a_decision_says_with_a_code(tmp_path):
    """One sent to inspection without a find stays in: leaving out the strangest innocent scans breaks the promise."""
    outbox = Outbox(tmp_path / "outbox.sqlite")
    try:
        for n, (verdict, codes) in enumerate([("inspect", (41,)), ("inspect", ()), ("clear", (41,))]):
            scan_id = f"{samples.SCAN_ID[:-1]}{n}"
            row = ScanRow(
                scan_id=scan_id, lane="north", path=f"{n}", sha256="a", size=1, start_utc_ns=n, simulated=False,
                result=samples.result(scan_id),
            )  # fmt: skip
            outbox.add(row)
            lease = outbox.lease(scan_id, "ana", 60).lease_id
            decision = Decision(
                decision_id=f"d{n}", scan_id=scan_id, sha256="a", analyst="ana", verdict=verdict, decided_utc_ns=n,
                codes=codes, lease_id=lease,
            )  # fmt: skip
            assert outbox.decide(decision).applied
        inside = tmp_path / "recordings" / "north"
        inside.mkdir(parents=True)
        assert study.found_in([inside], [41]) == ({f"{samples.SCAN_ID[:-1]}0"}, {f"{samples.SCAN_ID[:-1]}1"})
        assert study.found_in([inside], []) == (set(), {f"{samples.SCAN_ID[:-1]}{n}" for n in (0, 1)})
    finally:
        outbox.close()


# --------------------------------------------------------------------------------------------------------------
# The command line


def scanlane(*arguments):
    return CliRunner().invoke(cli.cli, [str(a) for a in arguments], catch_exceptions=True)


def test_calibrate_show_and_judge_by_hand(archive, tmp_path, monkeypatch):
    folder, paths = archive
    monkeypatch.setattr(study, "least_scans", lambda rate: LEAST)
    out = tmp_path / "north.profile"
    done = scanlane("calibrate", folder, "--out", out, "--flag-rate", RATE, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["lane"] == "north" and report["scans"] + len(report["excluded"]) == len(paths)
    assert report["expected_rate"] <= report["level"] <= RATE
    assert sum(s["scans"] for s in report["strata"]) == report["scans"]
    assert report["sha256"] == lane_profile.read(out).sha256
    shown = scanlane("calibrate", "show", out)
    assert shown.exit_code == 0 and "SIMULATED" in shown.output and "flags at most 50.00%" in shown.output
    judged = scanlane("triage", paths[0], "--profile", out, "--json")
    findings = json.loads(judged.output)["findings"]
    assert all(f["p_value"] is not None for f in findings if f["kind"] in KINDS)
    assert scanlane("replay", paths[0], "--profile", out).exit_code == 0


def test_a_refusal_names_what_is_missing(archive, tmp_path):
    _, paths = archive
    refused = scanlane("calibrate", *paths[:2], "--out", tmp_path / "p")
    assert isinstance(refused.exception, DataError) and "needs at least 200" in str(refused.exception)
    assert not (tmp_path / "p").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no recording" in str(scanlane("calibrate", empty, "--out", tmp_path / "p").exception)


def test_a_profile_of_other_thresholds_is_refused(tmp_path):
    path = tmp_path / "p"
    lane_profile.write(path, lanes.profile(count=100))
    with pytest.raises(ConfigError, match="other thresholds of the image"):
        profile_of_lane(None, str(path))


# --------------------------------------------------------------------------------------------------------------
# What is learned beside scores


def test_a_third_of_the_scans_teaches_what_the_others_are_judged_by(archive, tmp_path, monkeypatch):
    folder, paths = archive
    monkeypatch.setattr(study, "least_scans", lambda rate: 4)
    taught = []

    def of_single_scans(loads):
        """A history of seven scans, which would teach nothing by themselves."""
        taught.extend(loads)
        chapters = {c: Chapter(scans=1, median=t, spread=(1.0,) * len(NAMES)) for c, t in loads if c.isdecimal()}
        return lane_profile.Extra(facts=msgspec.to_builtins(GoodsHistory(chapters=chapters)))

    monkeypatch.setattr(study, "learned_goods", of_single_scans)
    learned, _ = study.calibrate_lane([folder], flag_rate=RATE)
    assert learned.scans + len(learned.teachers) + len(learned.excluded) == len(paths)
    assert 0 < len(learned.teachers) <= len(paths[2::3]) and not set(learned.teachers) & set(learned.sources)
    history = goods_of(learned)
    assert history is not None and 0 < len(history.chapters) <= len(taught) <= len(paths[2::3])
    asked = learned.scores[:, learned.kinds.index(goods_history.KIND)]
    assert np.isfinite(asked).any() and np.isinf(asked).any()  # of some chapters there is a history
    path = tmp_path / "north.profile"
    lane_profile.write(path, learned)
    judge = Judge(profile_of_lane(None, str(path), "north"), threads=1)
    row = int(np.flatnonzero(np.isfinite(asked))[0])
    scan = next(s for s in (recording.read(p).scan for p in paths) if hash_of(s) == learned.sources[row])
    standing = judge(scan).standing
    assert standing.scores[goods_history.KIND] == asked[row]
    assert np.array_equal([standing.scores.get(k, -np.inf) for k in learned.kinds], learned.scores[row])
    told = "\n".join(study.in_words(study.report_of(learned)))
    assert "history of declared goods" in told


def test_teachers_of_nothing_are_learned_from_like_all_others(archive, monkeypatch):
    _, paths = archive
    monkeypatch.setattr(study, "least_scans", lambda rate: 4)
    learned, _ = study.calibrate_lane(paths[:8], flag_rate=RATE)
    assert learned.scans + len(learned.excluded) == 8 and learned.teachers == () and learned.extras == {}


def test_goods_are_learned_by_chapter():
    rng = np.random.default_rng(3)
    loads = [("09", tuple(rng.normal(2, 0.1, len(NAMES)))) for _ in range(9)]
    extra = lane_normal.learned_goods([*loads, ("several chapters", loads[0][1]), ("85", loads[0][1])])
    history = goods_of(lanes.profile(count=100, extras=lane_normal.extras_of(extra, None)))
    assert list(history.chapters) == ["09"] and history.chapters["09"].scans == 9
    assert lane_normal.learned_goods(loads[:2]) is None


def hash_of(scan):
    return recording.pixels_hash(scan.radiograph)


def test_a_lanes_own_normal_takes_the_place_of_the_one_a_fuser_was_trained_with(monkeypatch):
    rng = np.random.default_rng(2)
    monkeypatch.setattr(lane_normal, "LEAST_MAPS", 3)
    monkeypatch.setattr(lane_normal, "_FOLDS", 2)
    looks = [np.clip(0.3 + 0.05 * rng.normal(size=(ROWS, GRID[2])), 0.02, 1).astype(np.float32) for _ in range(3)]
    maps = [maps_of(t, 0.03) for t in looks]
    elsewhere = learn_normal([maps_of(np.sqrt(t), 0.03) for t in looks[:2]], rng)
    trained = Fuser(features=FEATURES, trees=None, normal=elsewhere, thresholds={}, about=About(options={"trees": 0}))
    assert lane_normal.learned_fuser(maps[:2], trained) is None
    extra = lane_normal.learned_fuser(maps, trained)
    assert extra.facts == {"scans": 3, "looks_known": False}
    profile = lanes.profile(count=100, extras=lane_normal.extras_of(None, extra))
    own = fuser_of(profile)
    assert own.about == trained.about and own.normal.scans == 3
    assert not np.array_equal(own.normal.tables.values, elsewhere.tables.values)
    assert set(own.thresholds) >= {"any"}
    assert fuser_of(lanes.profile(count=100)) is None
