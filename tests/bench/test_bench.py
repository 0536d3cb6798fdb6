"""The benchmark runs, agrees with the reference and its peers, and says what it measured."""

import json

import numba
import pytest

from scanner_io.errors import DataError
from triage.study import bench

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
        "dense_over_sparse",
        "last_column_fraction",
        "streaming_over_batch",
    ):
        ratio = report[name]
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert report["vs_naive"] is None
    assert report["agreement"]["ok"] and report["agreement_ok"], report["agreement"]
    assert report["agreement"]["threads_and_stream_identical"]
    assert report["agreement"]["opencv"]["mask_differing"] <= 1
    assert report["agreement"]["opencv"]["code_max_difference"] <= 1
    assert set(report["medians_ms"]) >= {"memcpy", "ours_1t", "ours_2t", "opencv_strips_2t", "opencv_chained_2t"}
    assert report["versions"]["numba"] == numba.__version__


def test_naive_takes_part_when_asked():
    report = bench.bench_triage(rounds=1, width=120, full=True)
    assert report["vs_naive"]["median"] > 1
    assert set(report["vs_skimage"]) == {"median", "components"}
    assert report["agreement"]["skimage"] == {"median_equal": True, "areas_equal": True}
    assert report["agreement"]["reference_columns"] == [0, 120]


def test_without_scikit_image_the_report_says_so(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    report = bench.bench_triage(rounds=1, width=120, full=True)
    assert "not installed" in report["vs_skimage"]["skipped"]
    assert report["agreement"]["skimage"] is None


def test_a_wheel_without_tests_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "triage" / "study" / "bench.py"))
    with pytest.raises(DataError, match="source checkout"):
        bench.bench_triage(rounds=1, width=100)


def test_no_rounds_are_refused():
    with pytest.raises(DataError, match="rounds"):
        bench.bench_triage(rounds=0)
