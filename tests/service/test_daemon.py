"""The daemon as a site runs it: real processes, files, sockets and a real database."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scanner_io import recording
from scanner_io.storage import PART
from tests.rigs import PortalServer, timed_lines
from tests.service.daemon_rig import ENVIRONMENT, ROOT, analyst, daemon, lane_with_drop, put_image, write_config
from triage.service import operations, store
from triage.service.outbox import Outbox

PORTAL = """
[[lane.device]]
driver = "rpm_rapiscan"
address = "{address}"
"""


def items(state):
    """Return every scan of the stopped daemon's outbox."""
    outbox = Outbox(state / "outbox.sqlite")
    try:
        ids = [row[0] for row in outbox.store.rows("SELECT scan_id FROM scans")]
        return [outbox.item(scan_id) for scan_id in ids]
    finally:
        outbox.close()


@pytest.mark.timeout(400)
def test_the_demo_accounts_for_every_vehicle():
    done = subprocess.run(
        [sys.executable, "-m", "triage.cli", "demo", "--vehicles", "5", "--json"], capture_output=True, text=True,
        env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["vehicles"], summary["recorded"], summary["judged"], summary["lost"]) == (5, 5, 5, 0)
    assert summary["flagged"] + summary["selected"] == summary["offered"] == summary["decided"]
    staged = {one["staged"]: one for one in summary["staged"]}
    assert {name: one["kinds"][:1] for name, one in staged.items()} == {
        "empty": ["declared_empty_but_loaded"], "weight": ["mass_differs"], "tiles": ["goods_explain"],
    }  # fmt: skip
    assert "declared empty, but the radiograph shows a load" in staged["empty"]["reason"]
    assert "t does not fit: the image shows less, mass about" in staged["weight"]["reason"]
    assert "naturally radioactive" in staged["tiles"]["reason"] and "explains it" in staged["tiles"]["reason"]
    assert staged["empty"]["outcome"] == staged["weight"]["outcome"] == "REVIEW"


@pytest.mark.timeout(400)
def test_recorded_portal_logs_through_the_daemon(tmp_path, shared_data, request):
    speed = 20 if request.config.getoption("--soak") else 600
    logs = {"none": "S2-C0-NONE.csv", "norm": "S2-C3-NORM2.csv"}
    servers = {lane: PortalServer(timed_lines(shared_data / "portal" / log), speed=speed) for lane, log in logs.items()}
    with servers["none"], servers["norm"]:
        lanes = "".join(
            f'[[lane]]\nname = "{lane}"\n{PORTAL.format(address=server.address)}' for lane, server in servers.items()
        )
        with daemon(write_config(tmp_path, lanes)) as service:
            deadline = time.monotonic() + 380
            while len(service.named("scan")) < 50 and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(1.0)  # a fifty-first would come now
            code = service.stop()
            assert code == 0, service.last_words()
    assert not service.named("driver_failed")
    results = {lane: [i.row for i in items(tmp_path / "state") if i.row.lane == lane] for lane in logs}
    assert {lane: len(rows) for lane, rows in results.items()} == {"none": 25, "norm": 25}
    assert sum(r.result.gamma_alarm for r in results["none"]) == 0
    assert sum(r.result.gamma_alarm for r in results["norm"]) == 25
    numbers = {}
    for lane, rows in results.items():
        records = [recording.read(Path(r.path)).scan.portal for r in sorted(rows, key=lambda r: r.start_utc_ns)]
        numbers[lane] = [r.number for r in records]
        for record in records:
            assert record.end_reason == "complete"
            assert record.gamma_interval_s == 0.2
            # Played faster, lines arrive closer together; the rebuilt time is anchored on them and keeps 0.2 s steps.
            assert abs(record.gamma_start_utc_ns - record.start_utc_ns) < 30e9
    assert numbers == {"none": list(range(17, 42)), "norm": list(range(109, 134))}


@pytest.mark.timeout(300)
def test_killed_again_and_again_nothing_acknowledged_is_lost(tmp_path, request):
    kills = 20 if request.config.getoption("--soak") else 2  # torture row R1 kills some thousand times
    drop, lane = lane_with_drop(tmp_path)
    config = write_config(tmp_path, lane)
    rng = random.Random(4)
    put = 0
    for _ in range(kills):
        service = daemon(config)
        service.wait_for("lane_ready")
        until = time.monotonic() + rng.uniform(0.0, 2.0)
        while time.monotonic() < until:
            put_image(drop, f"scan {put:04d}.png", put)
            put += 1
            time.sleep(rng.uniform(0.02, 0.2))
        service.kill()
        acknowledged = {p.name for p in (drop / "done").glob("*.png")} if (drop / "done").is_dir() else set()
        check_stored(tmp_path / "state", acknowledged)
    with daemon(config) as service:
        deadline = time.monotonic() + 150  # how fast is no matter here
        while len(list(drop.glob("*.png"))) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.0)
        assert service.stop() == 0
    acknowledged = {p.name for p in (drop / "done").glob("*.png")}
    assert len(acknowledged) == put
    check_stored(tmp_path / "state", acknowledged)
    assert len(items(tmp_path / "state")) == put  # none twice


def check_stored(state, acknowledged):
    """Every acknowledged file has one sound recording and a row that is delivered, decided or pending."""
    visible = list((state / "recordings").rglob(f"*{recording.SUFFIX}"))
    sources = {}
    for path in visible:
        assert recording.check(path) == []
        sources[Path(recording.read(path).scan.source).name] = path
    rows = {Path(i.row.path): i for i in items(state)}
    for name in acknowledged:
        assert name in sources, f"{name} was acknowledged and is not on the disk"
        assert rows[sources[name]].state in ("pending", "leased", "decided", "filed")
    assert not any(p.name.endswith(PART) for p in (state / "quarantine").rglob("*.h5"))


@pytest.mark.timeout(180)
def test_images_and_portal_to_two_analysts_one_of_whom_dies(tmp_path, shared_data):
    drop, lane = lane_with_drop(tmp_path, wait_s=2.0)
    lines = timed_lines(shared_data / "portal" / "S2-C3-NORM2.csv", 0, 1500)
    with PortalServer(lines, speed=60) as portal:
        config = write_config(tmp_path, lane + PORTAL.format(address=portal.address), lease_s=30.0)
        with daemon(config) as service:
            address = service.wait_for("listening")["address"]
            service.wait_for("lane_ready")
            with analyst(address, "dies", decides=False) as first:
                put_image(drop, "first.png", 1)
                held = first.wait_for("offer")["scan"]
                with analyst(address, "lives", decides=True) as second:
                    second.wait_for("ready")
                    for n in range(2, 8):
                        put_image(drop, f"{n}.png", n)
                        time.sleep(0.3)
                    first.kill()
                    got = second.wait_for("offer", scan=held, timeout_s=15)
                    assert got["bytes"] > 1000
                    second.wait_for("decided", scan=held)
                    deadline = time.monotonic() + 60
                    quiet = 0
                    while quiet < 20 and time.monotonic() < deadline:
                        done = len(second.named("decided"))
                        time.sleep(0.2)
                        quiet = quiet + 1 if len(second.named("decided")) == done else 0
                    decided = [e["scan"] for e in second.named("decided")]
            code = service.stop()
            assert code == 0, service.last_words()
    stored = items(tmp_path / "state")
    flagged = {i.row.scan_id: i.row for i in stored if i.row.result.outcome != "CLEAR"}
    scans = [recording.read(Path(row.path)).scan for row in flagged.values()]
    # all seven images, and passages of the portal in alarm, which may be of the same vehicle by their time
    assert {Path(s.source).name for s in scans if s.radiograph} >= {"first.png", *(f"{n}.png" for n in range(2, 8))}
    assert any(row.result.gamma_alarm for row in flagged.values())
    assert len(set(decided)) == len(decided)  # each exactly once
    # The stop itself hands out what was still open in the lane: it waits for the next start.
    left = [i for i in stored if i.row.scan_id in flagged.keys() - set(decided)]
    assert [i.state for i in left] in ([], ["pending"])
    assert {i.state for i in stored if i.row.scan_id in decided} == {"decided"}
    images = [i for i in stored if recording.read(Path(i.row.path)).scan.radiograph is not None]
    assert len(images) == 7


@pytest.mark.timeout(120)
def test_bad_files_are_quarantined_and_an_analyst_is_told(tmp_path):
    drop, lane = lane_with_drop(tmp_path)
    (drop / "wrong type.png").write_bytes(b"this is a text" * 50)
    good = put_image(drop, "good.png", 1)
    whole = good.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    (drop / "damaged.png").write_bytes(damaged)
    with daemon(write_config(tmp_path, lane)) as service:
        for _ in range(3):
            service.wait_for("scan")
        assert service.stop() == 0
    outcomes = {i.row.result.outcome for i in items(tmp_path / "state")}
    assert "CLEAR" not in outcomes
    unusable = [i for i in items(tmp_path / "state") if i.row.result.outcome == "UNUSABLE"]
    assert len(unusable) == 2
    quarantined = sorted(p.name for p in (drop / "quarantine").iterdir())
    assert {"damaged.png", "wrong type.png"} <= set(quarantined)
    assert sum("reason" in name for name in quarantined) == 2


@pytest.mark.timeout(120)
def test_a_second_daemon_on_the_same_state_is_refused(tmp_path):
    _, lane = lane_with_drop(tmp_path)
    config = write_config(tmp_path, lane)
    with daemon(config) as first:
        first.wait_for("listening")
        second = subprocess.run(
            [sys.executable, "-m", "triage.cli", "run", str(config)], capture_output=True, text=True, env=ENVIRONMENT,
            cwd=ROOT,
        )  # fmt: skip
        assert second.returncode == 1
        assert "another scanlane daemon runs here" in second.stderr


@pytest.mark.timeout(120)
def test_a_device_that_is_not_there_does_not_stop_the_lane(tmp_path):
    drop, lane = lane_with_drop(tmp_path)
    config = write_config(tmp_path, lane + PORTAL.format(address="tcp://127.0.0.1:9"))
    with daemon(config) as service:
        lost = service.wait_for("device_lost")
        assert "cannot connect" in lost["text"]
        put_image(drop, "a.png", 1)
        scan = service.wait_for("scan")
        assert scan["outcome"] != "CLEAR"
        assert service.stop() == 0
    (item,) = items(tmp_path / "state")
    assert "portal_missing" in {q.code for q in item.row.result.quality}


@pytest.mark.timeout(120)
def test_a_lane_process_that_dies_is_started_again(tmp_path):
    drop, lane = lane_with_drop(tmp_path)
    with daemon(write_config(tmp_path, lane)) as service:
        pid = service.wait_for("lane_ready")["pid"]
        os.kill(pid, 9)
        service.wait_for("lane_died")
        assert service.wait_for("lane_ready")["pid"] != pid
        put_image(drop, "a.png", 1)
        service.wait_for("scan")
        assert service.stop() == 0
    told = operations.report(store.named(str(tmp_path / "state")), 0, 2**62)["lanes"]["north"]
    assert [d["reason"] for d in told["downtime"]] == ["its process died: exit code -9", "the service was stopped"]
    assert told["scans"] == 1 and told["downtime"][0]["to"] is not None and told["downtime"][1]["to"] is None


@pytest.mark.timeout(120)
def test_recordings_without_a_row_are_entered_at_start(tmp_path):
    drop, lane = lane_with_drop(tmp_path)
    config = write_config(tmp_path, lane)
    put_image(drop, "a.png", 1)
    with daemon(config) as service:
        service.wait_for("scan")
        assert service.stop() == 0
    (before,) = items(tmp_path / "state")
    for leftover in (tmp_path / "state").glob("outbox.sqlite*"):
        leftover.unlink()
    stray = Path(before.row.path).with_name(f"x{PART}")
    stray.write_bytes(b"half")
    with daemon(config) as service:
        service.wait_for("scan")
        assert service.stop() == 0
    (after,) = items(tmp_path / "state")
    assert after.row == before.row
    assert (tmp_path / "state" / "quarantine" / stray.name).is_file()


@pytest.mark.timeout(180)
def test_recordings_of_real_images_replay_bit_for_bit(tmp_path, shared_data):
    drop, lane = lane_with_drop(tmp_path)
    names = ("container_0000_0.jpg", "truck_09.jpg", "container_2304_1.jpg", "stamp1.jpg")
    for name in names:
        shutil.copy(shared_data / "cargo" / name, drop / name)
    with daemon(write_config(tmp_path, lane)) as service:
        for _ in names:
            service.wait_for("scan")
        assert service.stop() == 0
    done = subprocess.run(
        [sys.executable, "-m", "triage.cli", "replay", "--verify", "--json", str(tmp_path / "state" / "recordings")],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, rows
    assert [r["same"] for r in rows] == [True] * len(names)


@pytest.mark.timeout(120)
def test_a_lane_without_its_device_is_down_in_the_audit_and_up_again_with_it(tmp_path):
    drop, lane = lane_with_drop(tmp_path)
    database = tmp_path / "state" / "outbox.sqlite"

    def told(kind):
        with store.reading(database) as reader:
            return [text for (text,) in reader.rows("SELECT text FROM events WHERE kind=?", (kind,))]

    def wait_for(kind):
        deadline_s = time.monotonic() + 30
        while not told(kind) and time.monotonic() < deadline_s:
            time.sleep(0.2)
        return told(kind)

    with daemon(write_config(tmp_path, lane)) as service:
        service.wait_for("lane_ready")
        drop.rename(tmp_path / "away")
        (reason,) = wait_for("lane_down")
        assert reason.startswith("no link to ") and told("lane_up") == []
        (tmp_path / "away").rename(drop)
        assert len(wait_for("lane_up")) == 1
        assert service.stop() == 0
