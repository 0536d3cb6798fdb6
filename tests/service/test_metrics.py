"""What a monitoring system is told, and that dashboard and alerts ask for nothing else."""

import json
import re
import time
import urllib.error
import urllib.request
from importlib import resources

import pytest

from scanner_io.errors import ConfigError, StorageError
from tests import samples
from tests.service.daemon_rig import daemon, lane_with_drop, put_image, write_config
from triage.service import metrics as module
from triage.service.metrics import Metrics, Page


@pytest.fixture
def metrics():
    return Metrics(["north", "south"])


@pytest.fixture
def log(metrics):
    written = []
    log = metrics.heard(lambda event, **fields: written.append((event, fields)))
    log.written = written
    return log


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"scanlane_{name}", labels)


def tick(metrics, why_not=(), intake=True, **down):
    metrics.tick({"north": "", "south": "", **down}, intake=intake, free_bytes=5, why_not=why_not)


def test_the_log_is_passed_on_as_it_is(metrics, log):
    log("denied", level="warning", text="x", scan="s")
    assert log.written == [("denied", {"level": "warning", "text": "x", "scan": "s"})]
    assert value(metrics, "events_total", event="denied", level="warning") == 1


def test_the_way_of_a_flagged_scan_is_counted_and_timed(metrics, log, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    metrics.judged("north", samples.result(outcome="REVIEW", timings_ms={"maps": 250.0, "total": 400.0, "new": 1.0}))
    for event, fields, later_s in (
        ("offered", {}, 10), ("delivered", {}, 2), ("decided", {"verdict": "inspect"}, 30),
    ):  # fmt: skip
        now[0] += later_s
        log(event, scan=samples.SCAN_ID, **fields)
    metrics.judged("north", samples.result(scan_id="other", outcome="CLEAR", timings_ms={}))
    assert value(metrics, "scans_total", lane="north", outcome="REVIEW") == 1
    assert value(metrics, "scans_total", lane="north", outcome="CLEAR") == 1
    assert value(metrics, "flagged_total", lane="north") == 1
    assert value(metrics, "offers_total") == value(metrics, "deliveries_total") == 1
    assert value(metrics, "decisions_total", verdict="inspect") == 1
    stages = ("maps", "total", "queue", "delivery", "decision")
    seconds = {s: value(metrics, "stage_seconds_sum", stage=s) for s in stages}
    assert seconds == {"maps": 0.25, "total": pytest.approx(0.4), "queue": 10, "delivery": 2, "decision": 30}
    assert value(metrics, "stage_seconds_sum", stage="new") is None


def test_what_alerts_ask_the_increase_of_begins_at_0(metrics, log):
    for lane in ("north", "south"):
        for outcome in ("CLEAR", "REVIEW", "ALARM", "UNUSABLE"):
            assert value(metrics, "scans_total", lane=lane, outcome=outcome) == 0
    assert [value(metrics, "log_lines_total", level=level) for level in ("info", "warning", "error")] == [0, 0, 0]
    log("lane_died", level="error", lane="north")
    assert value(metrics, "log_lines_total", level="error") == 1


def test_the_health_of_a_lanes_devices_begins_anew_with_its_process(metrics, log):
    for lane in ("north", "south"):
        log("health", lane=lane, device="portal", component="link", state="degraded")
    log("lane_ready", lane="north")
    where = {"device": "portal", "component": "link"}
    assert [value(metrics, "device_health", lane=lane, **where) for lane in ("north", "south")] == [None, 1]


def test_scans_that_are_followed_are_bounded(metrics, monkeypatch):
    monkeypatch.setattr(module, "FOLLOWED", 3)
    for n in range(9):
        metrics.judged("north", samples.result(scan_id=f"s{n}"))
    assert len(metrics._at) == 3


def test_what_was_dropped_goes_on_over_a_restart_of_the_lane(metrics):
    for count in (0, 3, 5, 2):  # 2: of another process
        metrics.devices("north", {"d": True}, {"d": count})
    assert value(metrics, "dropped_blocks_total", lane="north", device="d") == 7
    metrics.devices("north", {"d": False}, {})
    assert value(metrics, "device_up", lane="north", device="d") == 0


def test_health_by_the_devices_own_word(metrics, log):
    where = {"lane": "north", "device": "d", "component": "gamma"}
    for state, number in (("ok", 0), ("degraded", 1), ("fault", 2), ("on fire", 2)):
        log("health", state=state, **where)
        assert value(metrics, "device_health", **where) == number


def test_downtime_has_its_reason(metrics, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for at_s, reason in ((0, "lane starts"), (4, "lane starts"), (5, ""), (9, "no link to d"), (10, "no link to d")):
        now[0] = at_s
        tick(metrics, south=reason)
    assert value(metrics, "downtime_seconds_total", lane="south", reason="lane starts") == 4
    assert value(metrics, "downtime_seconds_total", lane="south", reason="no link to d") == 5
    assert value(metrics, "lane_up", lane="south") == 0 and value(metrics, "lane_up", lane="north") == 1


def test_the_queue_is_asked_now_and_then(metrics, monkeypatch):
    now, asked = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for at_s in (0, 1, 6):
        now[0] = at_s
        metrics.look_at_queue(lambda: asked.append(1) or {"pending": len(asked)}, lambda: 7.0)
    assert len(asked) == 2
    assert value(metrics, "queue_scans", state="pending") == 2 and value(metrics, "queue_scans", state="held") == 0

    def refuses():
        raise StorageError("the disk")

    now[0] = 20
    metrics.look_at_queue(refuses, lambda: 0.0)
    assert value(metrics, "queue_oldest_seconds") == 7


@pytest.mark.parametrize(
    ("how", "ready", "named"),
    [
        ({}, 200, ""),
        ({"south": "lane died"}, 503, "lane south: lane died"),
        ({"why_not": ["the gate"]}, 503, "the gate"),
    ],
)
def test_ready_or_why_not(metrics, how, ready, named):
    tick(metrics, **how)
    status, _, content = metrics.answer("/readyz")
    assert (status, json.loads(content)["why_not"]) == (ready, [named] if named else [])
    assert metrics.answer("/healthz")[0] == 200
    assert value(metrics, "ready") == (ready == 200)


def test_a_loop_that_stands_is_not_healthy():
    metrics = Metrics([], stands_s=0.02)
    assert metrics.answer("/readyz")[0] == 503, "not started"
    metrics.tick({}, intake=True, free_bytes=1, why_not=())
    assert metrics.answer("/healthz")[0] == 200
    time.sleep(0.05)
    for path in ("/healthz", "/readyz"):
        status, _, content = metrics.answer(path)
        assert status == 503 and b"has not turned" in content


def test_the_page(metrics):
    page = Page("127.0.0.1:0", metrics)
    try:
        with urllib.request.urlopen(page.address + "/metrics", timeout=10) as answer:
            assert b"scanlane_lane_up" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(page.address + "/etc/passwd", timeout=10)
        with pytest.raises(ConfigError, match=r"metrics\.bind"):
            Page(page.address.removeprefix("http://"), metrics)
    finally:
        page.close()
    page = Page("127.0.0.1:0", metrics)  # the thread and the port have gone with it
    page.close()


def asked_for(name):
    text = resources.files("triage.operate").joinpath(name).read_text()
    if name.endswith(".json"):
        text = " ".join(t["expr"] for p in json.loads(text)["panels"] for t in p["targets"])
    else:
        text = " ".join(re.findall(r"^ +expr: '(.*)'$", text, re.M))
    return {re.sub(r"_(bucket|sum|count)$", "", n) for n in re.findall(r"\b(?:scanlane|process)_[a-z_]+", text)}


def there(metrics):
    return {m.name + ("_total" if m.type == "counter" else "") for m in metrics.registry.collect()}


@pytest.mark.parametrize("name", ["dashboard.json", "alerts.yml"])
def test_every_metric_that_is_asked_for_exists(metrics, name):
    assert len(asked_for(name)) > 10
    assert asked_for(name) <= there(metrics)


def test_every_metric_is_on_the_dashboard(metrics):
    assert {n for n in there(metrics) if n.startswith("scanlane_")} <= asked_for("dashboard.json")


@pytest.mark.timeout(180)
def test_a_service_that_runs_tells_of_itself(tmp_path):
    drop, lane = lane_with_drop(tmp_path, wait_s=0)
    config = write_config(tmp_path, lane + '[metrics]\nbind = "127.0.0.1:0"\n')
    with daemon(config) as service:
        page = service.wait_for("metrics_listening", 60)["address"]
        service.wait_for("device_open", 120)

        def told(path, until):
            deadline_s = time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(page + path, timeout=10) as answer:
                        text = answer.read().decode()
                except urllib.error.HTTPError as error:
                    text = error.read().decode()
                if re.search(until, text, re.M) or time.monotonic() > deadline_s:
                    return text
                time.sleep(0.1)

        assert '"ok":true' in told("/readyz", '"ok":true')
        put_image(drop, "a.png", 1)
        service.wait_for("scan", 60)
        text = told("/metrics", r'^scanlane_queue_scans\{state="pending"\} 1')
        for line in (
            r'^scanlane_scans_total\{lane="north",outcome="\w+"\} 1\.0$', r"^scanlane_ready 1\.0$",
            r'^scanlane_device_up\{device="device 0 file_drop",lane="north"\} 1\.0$',
            r'^scanlane_queue_scans\{state="pending"\} 1\.0$', r"^scanlane_intake_open 1\.0$",
            r'^scanlane_downtime_seconds_total\{lane="north",reason="lane starts"\}',
        ):  # fmt: skip
            assert re.search(line, text, re.M), f"{line} in {text}"
        for path in drop.rglob("*"):
            if path.is_file():
                path.unlink()
        for path in sorted(drop.rglob("*"), reverse=True):
            path.rmdir()
        drop.rmdir()
        assert "no link to device 0 file_drop" in told("/readyz", "no link")
        assert service.stop() == 0, service.last_words()
