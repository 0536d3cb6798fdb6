"""The benchmarks of recording, delivery, start-up and the console run, check what they measured, and are JSON."""

import json

import numba
import pytest

from scanner_io.errors import DataError
from triage.study.bench_batch import bench_batch
from triage.study.bench_console import bench_console
from triage.study.bench_deliver import bench_deliver
from triage.study.bench_lanes import bench_lanes
from triage.study.bench_record import bench_record
from triage.study.bench_startup import bench_startup


def test_record_reads_back_what_it_wrote(tmp_path):
    seen = []
    report = bench_record(tmp_path, rounds=2, columns=200, channels=96, progress=lambda *done: seen.append(done))
    assert json.loads(json.dumps(report)) == report
    assert seen == [(1, 2), (2, 2)]
    assert report["read_back_equal"]
    assert report["size_over_raw"]["raw"] == 1.0
    assert report["size_over_raw"]["durable_lz4"] < report["size_over_raw"]["durable"]
    for name in ("durable_over_raw", "durable_lz4_over_raw"):
        assert 0 < report[name]["min"] <= report[name]["median"] <= report[name]["max"]
    assert list(tmp_path.iterdir()) == []


def test_deliver_brings_every_byte_and_commits_every_decision(tmp_path):
    report = bench_deliver(tmp_path, rounds=2, size=3_000_017)
    assert json.loads(json.dumps(report)) == report
    assert set(report["medians_ms"]) == {"raw", "plain", "raw_curve", "curve", "raw_unhashed"}
    for name in ("plain_over_raw", "curve_over_raw", "plain_over_raw_unhashed"):
        assert 0 < report[name]["min"] <= report[name]["median"] <= report[name]["max"]
    assert 0 < report["offer_latency_ms"]["p50"] <= report["offer_latency_ms"]["p99"]
    assert 0 < report["chunk_header_us"] < report["header_us"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
@pytest.mark.soak
def test_startup_compiles_once_and_then_loads():
    report = bench_startup(rounds=1)
    assert json.loads(json.dumps(report)) == report
    assert report["kernels_warm_over_cold"]["median"] < 0.5


@pytest.mark.parametrize("bench", [bench_record, bench_deliver, bench_startup, bench_console, bench_batch])
def test_no_rounds_are_refused(bench):
    with pytest.raises(DataError, match="rounds"):
        bench(rounds=0)


@pytest.mark.timeout(300)
@pytest.mark.soak
def test_console_is_painted_for_every_click():
    report = bench_console(rounds=1, columns=700, channels=300, scans=5, queue=250)
    assert json.loads(json.dumps(report)) == report
    assert 0 < report["first_paint_ms"]["ahead"]["p50"] <= report["first_paint_ms"]["ahead"]["max"]
    assert report["frames_per_s"]["bare"] > 0
    assert set(report["memory_mb"]) == {f"after_{n}" for n in range(1, 6)}
    assert 0 < report["waiting_ms"]["p95"] <= report["waiting_ms"]["max"]
    queue = report["queue"]
    assert queue["waiting"] == queue["reached"] == queue["known"] == 250
    assert queue["rows_in_page"] < 60


@pytest.mark.timeout(300)
@pytest.mark.soak
def test_batch_gives_the_same_rows_with_two_workers():
    report = bench_batch(rounds=1, recordings=4)
    assert json.loads(json.dumps(report)) == report
    assert report["read_back_equal"] and report["two_over_one"]["median"] > 0


@pytest.mark.timeout(300)
@pytest.mark.soak
def test_lanes_lose_nothing_and_every_flagged_scan_is_decided():
    report = bench_lanes(lanes=2, large=0, analysts=2, seconds=8, interval_s=2, steps=2)
    assert json.loads(json.dumps(report)) == report
    assert report["lost"] == 0 and report["p99_offer_ms"] > 0
    assert all(step["decided"] == step["offer_ms"]["count"] > 0 for step in report["steps"])
    assert report["hub"] and all(step["hub_cpu_cores"] > 0 for step in report["steps"])


def test_no_lanes_are_refused():
    with pytest.raises(DataError, match="lanes"):
        bench_lanes(lanes=0)
