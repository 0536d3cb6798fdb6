import json

import pytest
from click.testing import CliRunner

from scanner_io.errors import DataError
from triage.cli import cli
from triage.study.cost import cost


def report(**changes):
    """Return a report of `bench lanes` on a machine whose figures are known: 0.02 cores and 150 MB a lane."""
    steps = [
        {"lanes": n, "large": 0, "cpu_cores": 0.1 + 0.02 * n, "rss_mb_median": 200 + 150.0 * n, "scans": 10 * n,
         "offer_ms": {"count": 4 * n}}
        for n in (5, 10, 20)
    ]  # fmt: skip
    whole = {**steps[-1], "large": 4, "cpu_cores": 0.1 + 0.02 * 20 + 4 * 0.05}
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
    assert found["memory", "lane"] == (150.0, "measured") and found["memory", "service"] == (200.0, "derived")
    assert found["processor", "lane, full-size images"] == (pytest.approx(0.05), "derived")
    assert found["flagged", "scan"] == (0.4, "measured")
    assert found["disk", "lane and day"] == (pytest.approx(400 * 5.05), "derived")
    assert found["processor", "1000 lanes"] == (pytest.approx(35.0), "extrapolated")
    assert found["memory", "1000 lanes"] == (150.0, "extrapolated")
    assert found["processor", "million scans judged anew"] == (pytest.approx(27.8), "extrapolated")
    assert found["analysts", "1000 lanes"] == (334, "extrapolated")  # 160,000 a day, 480 by each
    assert found["lanes", "hub, at most"] == (70, "extrapolated") and found["hubs", "1000 lanes"][0] == 30


def test_what_was_measured_is_not_called_extrapolated():
    found = values(cost(report(), lanes=15))
    assert found["processor", "15 lanes"][1] == "derived"
    assert ("processor", "million scans judged anew") not in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lost": 2}, "lost 2"),
        ({"steps": report()["steps"][1:]}, "three steps"),
        ({"cpu_per_lane": -0.06}, "do not cost evenly"),
        ({"r2": 0.4}, "do not cost evenly"),
        ({"recording_mb": {"small": 0.1, "large": None}}, "full-size"),
        ({"recording_mb": {}}, "another version"),
    ],
    ids=["lost", "two steps", "negative", "no line", "no large lane", "another report"],
)
def test_a_report_that_proves_nothing_is_refused(changes, words):
    with pytest.raises(DataError, match=words):
        cost(report(**changes))


def test_the_command_and_what_is_no_report(tmp_path):
    path = tmp_path / "lanes.json"
    path.write_text(json.dumps(report()))
    done = CliRunner().invoke(cli, ["cost", str(path), "--lanes", "50"])
    assert done.exit_code == 0 and "| processor | 50 lanes |" in done.output and "| extrapolated |" in done.output
    path.write_text("{}")
    done = CliRunner().invoke(cli, ["cost", str(path)])
    assert isinstance(done.exception, DataError) and "cpu_per_lane" in str(done.exception)


def test_a_hub_whose_cost_was_too_small_to_be_seen_is_limited_by_its_links():
    found = values(cost(report(hub_cpu_per_lane=-0.001, hub_r2=0.1)))
    assert ("processor", "lane, at the hub") not in found and found["lanes", "hub, at most"][0] == 100
