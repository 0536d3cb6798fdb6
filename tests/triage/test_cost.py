import json

import pytest
from click.testing import CliRunner

from scanner_io.errors import DataError
from triage.cli import cli
from triage.study.cost import cost


def report(**changes):
    """Return a report of `bench lanes` whose figures are known: a lane takes 0.02 cores and 150 MB, or 0.05 and 400."""
    steps = [
        {"lanes": n, "large": 0, "cpu_cores": 0.1 + 0.02 * n, "rss_mb_median": 200 + 150.0 * n, "scans": 10 * n,
         "offer_ms": {"count": 4 * n}, "lanes_died": 0, "exit_code": 0, "not_taken_in_time": 0}
        for n in (5, 10, 20)
    ]  # fmt: skip
    whole = {
        **steps[-1], "large": 4, "cpu_cores": 0.1 + 0.02 * 20 + 4 * 0.05, "rss_mb_median": 200 + 150 * 20 + 4 * 400.0
    }  # fmt: skip
    return {
        "lanes": 20, "interval_s": 30.0, "lost": 0, "cpu_per_lane": 0.02, "r2": 1.0, "hub": True,
        "hub_cpu_per_lane": 0.01, "hub_r2": 1.0, "hub_rss_mb": 120.0, "recording_mb": {"small": 0.1, "large": 10.0},
        "outbox_kb": 4.0, "steps": [*steps, whole], **changes,
    }  # fmt: skip


def values(told):
    return {(r["what"], r["per"]): (r["value"], r["basis"]) for r in told["rows"]}


def test_a_model_of_known_figures():
    batch = {"scans_per_s": {"1": 10.0}, "columns": 400, "channels": 200}
    found = values(cost(report(), batch, lanes=1000, scans_per_day=400, large_share=0.5, scans_per_analyst_h=20))
    assert found["memory", "lane, small images"] == (150.0, "measured") and found["memory", "service"] == (
        200.0,
        "derived",
    )
    assert found["processor", "lane, full-size images"] == (pytest.approx(0.05), "derived")
    assert found["flagged", "scan"] == (0.4, "measured")
    assert found["disk", "lane and day"] == (pytest.approx(400 * 5.05), "derived")
    assert found["processor", "1000 lanes"] == (pytest.approx(35.0), "extrapolated")
    assert found["memory", "lane, full-size images"] == (pytest.approx(400.0), "derived")
    assert found["memory", "1000 lanes"] == (pytest.approx(275.0), "extrapolated")
    assert found["processor", "million scans judged anew"] == (pytest.approx(27.8), "extrapolated")
    assert found["analysts", "1000 lanes"] == (334, "extrapolated")  # 160,000 a day, 480 by each
    assert found["lanes", "hub, at most"] == (70, "extrapolated") and found["hubs", "1000 lanes"][0] == 30


def test_full_size_lanes_take_the_memory_and_cores_of_full_size_lanes():
    found = values(cost(report(), large_share=1.0))
    assert found["memory", "1000 lanes"][0] == pytest.approx(400.0)
    assert found["processor", "1000 lanes"][0] == pytest.approx(50.0)
    small = report()
    small["steps"][-1] |= {"rss_mb_median": 3000.0, "cpu_cores": 0.5}  # less than nothing for the large ones
    found = values(cost(small, large_share=1.0))
    assert found["memory", "1000 lanes"][0] == pytest.approx(150.0)
    assert found["processor", "1000 lanes"][0] == pytest.approx(20.0)


def test_what_a_site_gives_stands_in_for_what_was_measured():
    told = cost(report(), lanes=100, scans_per_day=240, scans_per_analyst_h=10, recording_mb=20.0, flagged_share=0.1)
    found = values(told)
    assert found["disk", "scan"][0] == 4.0  # the last row of that name: the outbox, kB
    assert {"what": "disk", "per": "scan", "value": 20.0, "unit": "MB", "basis": "given",
            "why": "recording, by the site"} in told["rows"]  # fmt: skip
    assert found["flagged", "scan"] == (0.1, "given") and ("disk", "scan, full-size image") not in found
    assert found["disk", "lane and day"][0] == 4800.0 and found["network", "lane and day, to the hub"][0] == 480.0
    assert found["analysts", "100 lanes"][0] == 10 and found["disk", "million archived scans"][0] == 20.0
    assert not any("--recording-mb" in line for line in told["limits"])
    words = " ".join(cost(report())["limits"])
    for what in ("simulated", "one service", "one link", "SQLite", "without keys", "--flagged-share"):
        assert what in words


def failed(step, **changes):
    told = report()
    told["steps"][step] |= changes
    return {"steps": told["steps"]}


def test_what_was_measured_is_not_called_extrapolated():
    found = values(cost(report(), lanes=15))
    assert found["processor", "15 lanes"][1] == "derived"
    assert ("processor", "million scans judged anew") not in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lost": 2}, "lost 2"),
        (failed(3, lanes_died=1), "1 lanes died"),
        (failed(0, exit_code=-9), "step of 5 lanes failed: .* exit code -9"),
        (failed(2, not_taken_in_time=7), "7 scans were not taken in time"),
        ({"steps": report()["steps"][1:]}, "three steps"),
        ({"cpu_per_lane": -0.06}, "do not cost evenly"),
        ({"r2": 0.4}, "do not cost evenly"),
        ({"recording_mb": {"small": 0.1, "large": None}}, "full-size"),
        ({"recording_mb": {}}, "another version"),
    ],
    ids=["lost", "died", "exit code", "late", "two steps", "negative", "no line", "no large lane", "another report"],
)
def test_a_report_that_proves_nothing_is_refused(changes, words):
    with pytest.raises(DataError, match=words):
        cost(report(**changes))


def test_the_command_and_what_is_no_report(tmp_path):
    path = tmp_path / "lanes.json"
    path.write_text(json.dumps(report()))
    done = CliRunner().invoke(cli, ["cost", str(path), "--lanes", "50"])
    assert done.exit_code == 0 and "| processor | 50 lanes |" in done.output and "| extrapolated |" in done.output
    done = CliRunner().invoke(cli, ["cost", str(path), "--recording-mb", "12.5", "--flagged-share", "0.15"])
    assert done.exit_code == 0 and "| flagged | scan | 0.15 | share | given |" in done.output
    path.write_text("{}")
    done = CliRunner().invoke(cli, ["cost", str(path)])
    assert isinstance(done.exception, DataError) and "cpu_per_lane" in str(done.exception)


def test_a_hub_whose_cost_was_too_small_to_be_seen_is_limited_by_its_links():
    found = values(cost(report(hub_cpu_per_lane=-0.001, hub_r2=0.1)))
    assert ("processor", "lane, at the hub") not in found and found["lanes", "hub, at most"][0] == 100
