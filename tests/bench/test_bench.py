"""The benchmark runs, agrees with the reference and its peers, and says what it measured."""

import dataclasses
import json

import numba
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io.errors import DataError, ScannerError
from tests import reference
from tests.bench import peers
from triage import cli
from triage.analysis.screening import screen
from triage.study import bench
from triage.study.agreement import on_the_same_pixels, with_peer, with_reference
from triage.study.phantom import phantom

pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="whole frames need compiled kernels")


def test_small_bench_is_complete_agrees_and_is_json():
    seen = []
    report = bench.bench_triage(rounds=1, width=300, progress=lambda done, of: seen.append((done, of)))
    assert json.loads(json.dumps(report)) == report
    assert seen == [(1, 1)]
    for name in (
        "vs_memcpy",
        "vs_opencv_strips",
        "vs_opencv_chained",
        "threads_speedup",
        "threads_ceiling",
        "dense_over_sparse",
        "last_column_fraction",
        "streaming_over_batch",
    ):
        ratio = report[name]
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert report["vs_naive"]["median"] > 1
    assert set(report["vs_skimage"]) == {"median", "components"}
    agreement = report["agreement"]
    assert agreement["ok"] and report["agreement_ok"], agreement
    assert agreement["threads_and_stream_identical"] and agreement["reference_columns"] == [0, 300]
    peers = {"opencv_strips_1t", "opencv_strips_2t", "opencv_chained_2t", "naive", "skimage"}
    assert set(agreement["peers"]) == peers and all(part["ok"] for part in agreement["peers"].values())
    assert {"phantom", "simulated"} <= set(agreement["dense_scenes"])
    assert set(report["last_column_by_block"]) == {"20", "32", "64"}
    judgement = report["judgement"]
    assert judgement["simulated"] and judgement["channels"] == 2000
    assert {"correction", "screening", "container", "total"} <= set(judgement["stages_ms"])
    assert judgement["while_passing_ms"] > 0 and judgement["after_last_column_ms"] > 0
    assert set(report["medians_ms"]) >= {"memcpy", "ours_1t", "ours_2t", "opencv_strips_2t", "opencv_chained_2t"}
    assert report["versions"]["numba"] == numba.__version__ and "scikit-image" in report["versions"]


def test_a_quick_run_leaves_out_what_takes_seconds():
    report = bench.bench_triage(rounds=1, width=120, quick=True)
    assert report["vs_naive"] is None and report["vs_skimage"] is None
    assert not {"naive", "skimage"} & set(report["agreement"]["peers"]) and report["agreement_ok"]


def test_without_scikit_image_the_report_says_so(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    report = bench.bench_triage(rounds=1, width=120)
    assert "not installed" in report["vs_skimage"]["skipped"]
    assert "skimage" not in report["agreement"]["peers"]


@pytest.fixture(scope="module")
def compared():
    """A screening, the reference's result and the OpenCV peer's, which agree."""
    counts, calibration = phantom(400, 300)
    table = bench.material_table()
    peer = peers.OpenCvPeer(calibration, table, 300, strip=100, workers=1, cv_threads=1)
    mine = screen(counts, calibration, material_table=table)
    return mine, reference.screen(counts, calibration, table), peer.run(counts)


def _change_regions(name, change):
    def changed(mine):
        regions = mine.regions.copy()
        regions[name] = change(regions[name])
        return dataclasses.replace(mine, regions=regions)

    return changed


WRONG = {
    "area": _change_regions("area", lambda v: 3 * v),
    "box": _change_regions("col0", lambda v: v - 2),
    "centroid": _change_regions("centroid_channel", lambda v: v + 0.25),
    "sum_log": _change_regions("sum_log", lambda v: -50 * v),
    "max_z": _change_regions("max_z", lambda v: v + 0.5),
    "histogram": _change_regions("material", lambda v: 0 * v),
    "one region less": lambda mine: dataclasses.replace(mine, regions=mine.regions[1:]),
    "flags": lambda mine: dataclasses.replace(mine, column_flags=mine.column_flags + 1),
    "overflow": lambda mine: dataclasses.replace(mine, overflow=1),
    "log": lambda mine: dataclasses.replace(mine, q=(mine.q[0] + np.uint16(1), mine.q[1])),
    "z": lambda mine: dataclasses.replace(mine, z=mine.z // 8 * 8),
    "mask": lambda mine: dataclasses.replace(mine, z=np.where(mine.z >= 70, 0, mine.z).astype(np.uint8)),
    "material": lambda mine: dataclasses.replace(mine, material=mine.material // 2),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_result_with_one_thing_wrong_does_not_agree(compared, what):
    mine, truth, _ = compared
    assert with_reference(mine, truth, 4.0)["ok"], "as it is, it does"
    told = with_reference(WRONG[what](mine), truth, 4.0)
    assert told["ok"] is False, told
    if what not in ("z", "material"):  # looked at pixel by pixel in sparse scenes only
        assert on_the_same_pixels(mine, truth, 4.0)["ok"], "as it is, it does"
        assert on_the_same_pixels(WRONG[what](mine), truth, 4.0)["ok"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"z": lambda z: 0 * z}, {"mask": np.invert}, {"regions": lambda n: -1}, {"material": lambda m: m // 2},
        {"q": lambda q: [q[0], q[1] + 2]},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_peer_that_did_not_do_the_work_does_not_agree(compared, change):
    mine, _, peer = compared
    assert with_peer(mine, peer, 4.0)["ok"], "as it is, it does"
    ((name, alter),) = change.items()
    assert with_peer(mine, {**peer, name: alter(peer[name])}, 4.0)["ok"] is False


def test_a_peer_with_more_regions_than_16_bits_number_still_counts_them():
    channels, columns = 600, 600
    _, calibration = phantom(channels, 8)
    peer = peers.OpenCvPeer(calibration, bench.material_table(), columns, strip=columns, workers=1, cv_threads=1)
    peer.mask[:] = 0
    peer.mask[::2, ::2] = 255
    stats = peer.components()
    assert len(stats) == 1 + 300 * 300


@pytest.mark.parametrize("wrong", ["agreement_ok", "read_back_equal"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_figures_of_wrong_work_are_an_error(monkeypatch, wrong, form):
    monkeypatch.setattr(bench, "bench_triage", lambda **_: {"rounds": 3, wrong: False})
    done = CliRunner().invoke(cli.cli, ["bench", "triage", *form])
    assert isinstance(done.exception, ScannerError) and f"{wrong} is false" in str(done.exception)
    monkeypatch.setattr(bench, "bench_triage", lambda **_: {"rounds": 3, wrong: True})
    assert CliRunner().invoke(cli.cli, ["bench", "triage", *form]).exit_code == 0


def test_a_wheel_without_tests_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "triage" / "study" / "bench.py"))
    with pytest.raises(DataError, match="source checkout"):
        bench.bench_triage(rounds=1, width=100)


def test_no_rounds_are_refused():
    with pytest.raises(DataError, match="rounds"):
        bench.bench_triage(rounds=0)
