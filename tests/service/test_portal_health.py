"""A portal's health through the real daemon: told in the log, kept in the events, and with every scan it concerns."""

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from scanner_io import recording
from tests.service.daemon_rig import Process, daemon, write_config
from tests.service.test_daemon import items

LANE = """
[[lane]]
name = "north"
[[lane.device]]
driver = "rpm_rapiscan"
address = "{address}"
"""
SPEED = 30


def events_of(state):
    with contextlib.closing(sqlite3.connect(state / "outbox.sqlite")) as outbox:
        return outbox.execute("SELECT kind, who, text FROM events WHERE kind = 'health' ORDER BY seq").fetchall()


@pytest.mark.timeout(180)
def test_a_stuck_detector_and_tamper_are_told_kept_and_flag_the_scans(tmp_path):
    plan, told = tmp_path / "plan.json", tmp_path / "truth.json"
    plan.write_text(
        json.dumps(
            [
                {"kind": "stuck_detector", "passage": 2, "at": -1.0, "seconds": 80.0, "detector": 1},
                {"kind": "tamper", "passage": 4, "at": 0.5, "seconds": 5.0},
                {"kind": "link_lost", "passage": 5, "at": 0.5, "seconds": 20.0},
            ]
        )
    )
    words = ("--tcp", "127.0.0.1:0", "--speed", str(SPEED), "--passes", "6", "--gap", "30", "--seed", "2", "--wait",
             "--faults", str(plan), "--truth", str(told))  # fmt: skip
    with Process("-m", "triage.cli", "simulate", "portal", *words) as portal:
        address = portal.wait_for("listening")["address"]
        with daemon(write_config(tmp_path, LANE.format(address=address))) as service:
            stuck = service.wait_for("health", component="gamma2_stuck", state="fault")
            assert stuck["device"] == "rpm_rapiscan" and stuck["lane"] == "north" and stuck["utc_ns"] > 0
            assert service.wait_for("health", component="gamma2_stuck", state="ok")["text"].startswith("over after")
            service.wait_for("health", component="tamper", state="fault")
            service.wait_for("health", component="link", state="degraded")
            service.wait_for("health", component="link", state="ok")
            portal.wait_for("played", 120)
        service.stop()
    truth = json.loads(told.read_bytes())["occupancies"]
    kept = [text for kind, who, text in events_of(tmp_path / "state") if who == "north rpm_rapiscan"]
    for words in ("gamma2_stuck fault at 20", "gamma2_stuck ok at 20", "tamper fault at", "tamper ok at", "link ok at"):
        assert any(text.startswith(words) for text in kept), (words, kept)
    scans = sorted(items(tmp_path / "state"), key=lambda item: item.row.start_utc_ns)
    assert len(scans) >= len(truth) - 1
    flagged = [i for i in scans if "portal_gamma2_stuck" in {q.code for q in i.row.result.quality}]
    assert flagged and all(i.row.result.outcome != "CLEAR" for i in flagged)
    assert all(i.row.simulated for i in scans), "the portal's own set-up says that it is a simulation"
    stored = recording.read(Path(flagged[0].row.path))
    assert "portal_gamma2_stuck" in {q.code for q in stored.scan.quality}, "so that a replay judges the same"


@pytest.mark.timeout(120)
def test_a_silent_portal_is_told(tmp_path):
    words = ("--tcp", "127.0.0.1:0", "--passes", "1", "--speed", "1000", "--wait")
    with Process("-m", "triage.cli", "simulate", "portal", *words) as portal:
        address = portal.wait_for("listening")["address"]
        with daemon(write_config(tmp_path, LANE.format(address=address))) as service:
            told = service.wait_for("health", component="link", state="degraded")
            assert "the device closed the connection" in told["text"]
