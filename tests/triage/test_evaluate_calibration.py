"""The study of a calibrated lane: small here, its parts checked on numbers that are drawn."""

import msgspec
import numpy as np
import pytest
from scipy.stats import betabinom

from tests import lanes
from triage.study import calibrate_lane
from triage.study import evaluate_calibration as study


def test_no_scan_serves_two_purposes():
    parts = study.parts_of(study.Size(calibration=60, clean=40, drifted=30, threats=10), seed=3)
    served = [i for own in parts.values() for part in own for i in range(part.first, part.first + part.count)]
    assert len(served) == len(set(served)) == 60 + 40 + 3 * 30 + 10
    assert [part.drifted for part in parts["gain"]] == [0, 25]
    assert {part.drift for part in parts["clean"]} == {""} and all(part.threats for part in parts["threats"])


def test_the_whole_study_runs_and_keeps_what_it_has_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "CHUNK", 4)
    monkeypatch.setattr(calibrate_lane, "least_scans", lambda rate: 6)
    size = study.Size(calibration=10, clean=4, drifted=2, threats=2, orders=2)
    steps = []
    report = study.evaluate_calibration(size, seed=5, flag_rate=0.5, cache=tmp_path, progress=lambda: steps.append(1))
    assert len(steps) == 3 + 1 + 3 + 1 == len(list(tmp_path.iterdir()))
    assert report["scans"] == {"calibration": 10, "clean": 4, "gain": 2, "goods": 2, "blur": 2, "threats": 2}
    assert report["realised"]["of"] + report["left_out"]["clean"] == 4
    assert set(report["drift"]) == {"gain", "goods", "blur"} and report["simulated"]
    assert any("SIMULATED" in line for line in study.in_words(report))
    monkeypatch.setattr(study, "learn", None)  # whatever is judged again now fails
    again = study.evaluate_calibration(size, seed=5, flag_rate=0.5, cache=tmp_path)
    assert {**again, "seconds": 0} == {**report, "seconds": 0}


@pytest.mark.parametrize("drift", ["gain", "blur"])
def test_a_drift_changes_the_counts_and_nothing_else(drift):
    part = study.Part(seed=2, first=7, count=1, drift=drift, drifted=200)
    (_, scan), *_ = study._scans(part)
    after = study._disturbed(scan, part, 0)
    before, now = scan.radiograph.counts[0].astype(float), after.radiograph.counts[0].astype(float)
    assert msgspec.structs.asdict(after).keys() == msgspec.structs.asdict(scan).keys()
    assert after.scan_id == scan.scan_id and after.radiograph.detector is scan.radiograph.detector
    if drift == "gain":
        assert 0.005 < np.std(np.median(now, axis=0) / np.median(before, axis=0)) < 0.04
        first = study._disturbed(scan, msgspec.structs.replace(part, drifted=0), 0)
        np.testing.assert_array_equal(first.radiograph.counts[0], scan.radiograph.counts[0])
    else:
        assert np.abs(np.diff(now, axis=0)).mean() < 0.8 * np.abs(np.diff(before, axis=0)).mean()
        assert now.mean() == pytest.approx(before.mean(), rel=1e-3)


def test_rates_and_delays_are_those_of_the_lane():
    rng = np.random.default_rng(1)
    kept = {name: lanes.examples(rng, n, first=f) for name, n, f in (("calibration", 400, 0), ("clean", 400, 1000))}
    kept["threats"] = lanes.examples(rng, 60, first=3000, scores=4.0)
    profile = study.profile_of(kept["calibration"], (), flag_rate=0.1, thresholds="")
    clean = study._seen(profile, kept["clean"])
    rates = study._rates(profile, kept, clean)
    # what a calibration of 400 realises on 400 others, ranks of both counted, within 1 in 10,000 either way
    k = round(profile.level * 401)
    low, high = betabinom.ppf([1e-4, 1 - 1e-4], 400, k, 401 - k)
    assert low <= rates["realised"]["hits"] <= high
    assert sum(s["of"] for s in rates["realised_by_stratum"].values()) == 400
    assert rates["threats_found"]["value"] > 0.9
    drifted = study._seen(profile, lanes.examples(rng, 100, first=5000, noise=2.0))
    found = study._delays(profile, clean, drifted, 3, rng, "blur")
    assert found["missed"] == found["stale_before"] == 0 and found["most"] < 60 and "noise" in found["words"]
    assert study._delays(profile, clean, clean[:20], 2, rng, "blur")["missed"] == 2
    assert study._false_stale(profile, clean, 2, rng)["false_stale"] == 0


def test_a_share_has_its_exact_interval():
    told = study.share(250, 5000)
    assert (told["value"], round(told["low"], 4), round(told["high"], 4)) == (0.05, 0.0441, 0.0564)
    assert study.share(0, 20)["low"] == 0.0 and study.share(20, 20)["high"] == 1.0
