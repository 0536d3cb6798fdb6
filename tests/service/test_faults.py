"""The daemon when devices, disks, processes and people do what they should not."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from scanner_io import config as configuration
from scanner_io import recording
from tests import samples
from tests.drivers.test_lane_events import free_port
from tests.service import test_daemon
from tests.service.daemon_rig import ENVIRONMENT, ROOT, daemon, write_config
from tests.service.test_cargo_lane import IN_TIME, declare
from triage.service import daemon as daemon_module
from triage.service.assembly import make_scan_id
from triage.service.daemon import MAX_JUDGING_ATTEMPTS

VACANT = b"GB,000379,000371,000407,000371\r\nNB,000003,000000,000002,000000\r\n"
OCCUPIED = b"GS,000075,000074,000081,000074\r\n"
GAMMA_ALARM = b"GA,000175,000174,000181,000174\r\n"


def end_of_passage(number):
    return f"GX,{number:06d},30.0,,\r\n".encode()


class LivePortal:
    """A portal that says what the test tells it to, to whoever is connected."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._peer = None

    def accept(self):
        self._peer, _ = self._listener.accept()

    def say(self, *lines, pause_s=0.0):
        for line in lines:
            self._peer.sendall(line)
            time.sleep(pause_s)

    def cut(self):
        if self._peer is not None:
            with contextlib.suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)
            self._peer.close()
            self._peer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()
        self._listener.close()


def portal_lane(portal):
    device = test_daemon.PORTAL.format(address=portal.address)
    return f'[[lane]]\nname = "north"\njoin_wait_s = 0.2\n{device}'


def codes(item):
    return {q.code for q in item.row.result.quality}


@pytest.mark.timeout(120)
def test_an_open_tamper_contact_is_still_open_after_a_reconnect(tmp_path):
    with LivePortal() as portal, daemon(write_config(tmp_path, portal_lane(portal))) as service:
        portal.accept()
        portal.say(VACANT, b"TT,000379,000371,000407,000371\r\n", VACANT)
        service.wait_for("health", state="fault")
        portal.cut()
        portal.accept()
        portal.say(VACANT, *[OCCUPIED] * 20, end_of_passage(1), VACANT)
        assert service.wait_for("scan")["outcome"] != "CLEAR"
        assert service.stop() == 0
    (item,) = test_daemon.items(tmp_path / "state")
    assert "portal_tamper" in codes(item)


@pytest.mark.timeout(120)
def test_a_damaged_alarm_code_never_reads_as_clear(tmp_path):
    with LivePortal() as portal, daemon(write_config(tmp_path, portal_lane(portal))) as service:
        portal.accept()
        portal.say(VACANT * 3, *[OCCUPIED] * 10, GAMMA_ALARM.replace(b"GA", b"GQ"), *[OCCUPIED] * 10, end_of_passage(1))
        assert service.wait_for("scan")["outcome"] != "CLEAR"
        assert service.stop() == 0
    (item,) = test_daemon.items(tmp_path / "state")
    assert "portal_unknown_line" in codes(item)


@pytest.mark.timeout(120)
def test_stopped_in_a_passage_what_the_portal_counted_is_kept(tmp_path):
    with LivePortal() as portal, daemon(write_config(tmp_path, portal_lane(portal))) as service:
        portal.accept()
        portal.say(VACANT * 3, *[OCCUPIED] * 10, *[GAMMA_ALARM] * 3)
        time.sleep(1.0)
        assert service.stop() == 0
    (item,) = test_daemon.items(tmp_path / "state")
    assert item.row.result.gamma_alarm and item.row.result.outcome == "ALARM"
    record = recording.read(Path(item.row.path)).scan.portal
    assert len(record.gamma) == 13 and record.end_reason != "complete"


@pytest.mark.timeout(180)
def test_stopped_among_files_each_is_whole_after_the_restart(tmp_path):
    """By a configuration that is named by a relative path, whose recordings are found again all the same."""
    drop, lane = test_daemon.lane_with_drop(tmp_path)
    config = os.path.relpath(write_config(tmp_path, lane), ROOT)
    names = [f"{number}.png" for number in range(16)]
    for number, name in enumerate(names):
        test_daemon.put_image(drop, name, number)
    with daemon(config) as service:
        service.wait_for("scan")
        assert service.stop() == 0
    with daemon(config) as service:
        service.wait_for("lane_ready")
        deadline = time.monotonic() + 60
        while list(drop.glob("*.png")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert service.stop() == 0
    assert service.named("recordings_without_row") == []
    stored = test_daemon.items(tmp_path / "state")
    scans = [recording.read(Path(item.row.path)).scan for item in stored]
    assert sorted(Path(scan.source).name for scan in scans) == sorted(names)
    assert {(scan.radiograph.columns, scan.radiograph.end_reason) for scan in scans} == {(480, "complete")}


@pytest.mark.timeout(120)
def test_a_folder_that_cannot_be_made_is_tried_again_until_it_can(tmp_path):
    drop, lane = test_daemon.lane_with_drop(tmp_path)
    obstacle = tmp_path / "state" / "recordings" / "north"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder belongs")
    test_daemon.put_image(drop, "a.png", 1)
    with daemon(write_config(tmp_path, lane)) as service:
        fault = service.wait_for("storage_fault")
        assert "north" in fault["text"]
        time.sleep(1.5)
        assert (drop / "a.png").is_file()  # not acknowledged
        obstacle.unlink()
        service.wait_for("scan")
        service.wait_for("storage_back")
        assert service.stop() == 0
    assert (drop / "done" / "a.png").is_file()
    assert len(test_daemon.items(tmp_path / "state")) == 1


@pytest.mark.timeout(180)
def test_a_backlog_is_judged_however_often_the_daemon_is_killed(tmp_path):
    _, lane = test_daemon.lane_with_drop(tmp_path)
    folder = tmp_path / "state" / "recordings" / "north" / "20260101"
    folder.mkdir(parents=True)
    scan = samples.scan(declaration=None, expected=("radiograph", "portal"))
    count = 12
    for number in range(count):
        scan_id = make_scan_id("north", scan.start_utc_ns + number * 10**9, str(number))
        recording.write(folder / f"{scan_id}{recording.SUFFIX}", msgspec.structs.replace(scan, scan_id=scan_id))
    config = write_config(tmp_path, lane)
    for _ in range(MAX_JUDGING_ATTEMPTS):
        service = daemon(config)
        service.wait_for("lane_ready")
        service.wait_for("recording_without_row")
        service.kill()
    with daemon(config) as service:
        deadline = time.monotonic() + 60
        while len(service.named("recording_without_row")) < 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        while len(test_daemon.items(tmp_path / "state")) < count and time.monotonic() < deadline:
            time.sleep(0.5)
        assert service.stop() == 0
    stored = test_daemon.items(tmp_path / "state")
    assert len(stored) == count
    given_up = [i for i in stored if "judgement_failed" in codes(i)]
    assert len(given_up) <= 1  # one may truly have been under judgement at several kills


@pytest.mark.timeout(120)
def test_equal_bad_files_are_three_scans(tmp_path):
    drop, lane = test_daemon.lane_with_drop(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        (drop / name).write_bytes(b"this is a text" * 50)
        os.utime(drop / name, (1_769_852_701, 1_769_852_701))
    with daemon(write_config(tmp_path, lane)) as service:
        for _ in range(3):
            service.wait_for("scan", outcome="UNUSABLE")
        time.sleep(0.5)
        assert service.stop() == 0
    assert not list((drop / "quarantine").glob("*.untold"))


@pytest.mark.timeout(120)
def test_neither_a_damaged_recording_nor_a_feed_without_end_holds_up_a_replay(tmp_path):
    scan = samples.scan()
    for number in range(3):
        scan_id = make_scan_id("north", scan.start_utc_ns + number * 10**9, str(number))
        path = tmp_path / "in" / f"{scan_id}{recording.SUFFIX}"
        path.parent.mkdir(exist_ok=True)
        recording.write(path, msgspec.structs.replace(scan, scan_id=scan_id))
        if number == 1:
            path.write_bytes(path.read_bytes()[:5000])
    lane = f'[[lane]]\nname = "north"\n[[lane.device]]\ndriver = "replay"\npaths = ["{tmp_path / "in"}"]\nspeed = 0\n'
    (tmp_path / "feed").mkdir()
    lane += f'[[lane.device]]\ndriver = "cargo_feed"\nfolder = "{tmp_path / "feed"}"\nstable_s = 0.5\n'
    lane += f'[[lane.device]]\ndriver = "lane_events"\nport = {free_port()}\n'
    declare(tmp_path / "feed", IN_TIME)
    with daemon(write_config(tmp_path, lane), "--once") as service:
        service.wait_for("lane_finished")
        assert service.process.wait(30) == 0
    stored = test_daemon.items(tmp_path / "state")
    assert sorted("radiograph_unreadable" in codes(i) for i in stored) == [False, False, True]
    assert [p.name for p in (tmp_path / "feed" / "done").iterdir()] == [f"{IN_TIME}.json"], "stored before the end"


@pytest.mark.timeout(120)
def test_a_lane_that_hangs_is_ended_and_started_again(tmp_path, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    drop, lane = test_daemon.lane_with_drop(tmp_path)
    log = []
    config = configuration.load(write_config(tmp_path, lane))
    service = daemon_module.Daemon(config, lambda event, **fields: log.append((event, fields)))
    thread = threading.Thread(target=lambda: service.run(signals=False))
    thread.start()
    try:
        first = wait_for(log, "lane_ready")["pid"]
        os.kill(first, signal.SIGSTOP)
        assert "not heard" in wait_for(log, "lane_hangs")["text"]
        wait_for(log, "lane_died")
        test_daemon.put_image(drop, "a.png", 1)
        wait_for(log, "scan")
    finally:
        service.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert [fields["pid"] for event, fields in log if event == "lane_ready"][1:] not in ([], [first])


def wait_for(log, name, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for event, fields in list(log):
            if event == name:
                return fields
        time.sleep(0.05)
    raise AssertionError(f"no {name} in {log[-5:]}")


def test_two_lanes_on_one_source_are_refused(tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    (tmp_path / "same").symlink_to(drop)
    lanes = "".join(
        f'[[lane]]\nname = "{name}"\n[[lane.device]]\ndriver = "file_drop"\npath = "{path}"\n'
        for name, path in (("a", drop), ("b", tmp_path / "same"))
    )
    with pytest.raises(configuration.ConfigError, match="read the same file_drop"):
        configuration.load(write_config(tmp_path, lanes))


@pytest.mark.parametrize("place", ['endpoint = "tcp://10.0.3.9:31001"', 'spool_dir = "{folder}"\nport = {port}'])
def test_two_lanes_on_one_stream_or_one_spool_are_refused(tmp_path, place):
    driver = "stream_v2" if "endpoint" in place else "dicom_store"
    lanes = "".join(
        f'[[lane]]\nname = "{name}"\n[[lane.device]]\ndriver = "{driver}"\n{place.format(folder=tmp_path, port=port)}\n'
        for name, port in (("a", 11112), ("b", 11113))
    )
    with pytest.raises(configuration.ConfigError, match=f"read the same {driver}"):
        configuration.load(write_config(tmp_path, lanes))


def test_check_leaves_every_file_where_it_is(tmp_path):
    drop, lane = test_daemon.lane_with_drop(tmp_path)
    (drop / "bad.png").write_bytes(b"no image")
    os.utime(drop / "bad.png", (1, 1))
    done = subprocess.run(
        [sys.executable, "-m", "triage.cli", "check", "--json", str(write_config(tmp_path, lane))],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("not read" in note for note in json.loads(done.stdout)["notes"])
    assert (drop / "bad.png").is_file()
    assert list((drop / "quarantine").iterdir()) == []
