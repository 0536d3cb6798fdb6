"""A lane that is killed in the middle of a passage leaves a trace; recordings of a simulated portal say so."""

import os
import threading
import time
from pathlib import Path

import h5py
import pytest

from drivers.simulated import PortalServer, Traffic
from scanner_io import recording
from scanner_io.errors import DataError
from scanner_io.model import Occupancy, PortalCount
from tests import samples
from tests.service.daemon_rig import daemon, write_config
from tests.service.test_daemon import items
from tests.service.test_faults import OCCUPIED, VACANT, LivePortal, codes, portal_lane
from triage.service.portal_memory import PortalMemory

PASSAGE = [OCCUPIED] * 20
LANE = """
[[lane]]
name = "north"
[[lane.device]]
driver = "rpm_rapiscan"
address = "{address}"
"""


def pass_by(portal, service, number):
    """One whole passage; return what the log says of its scan."""
    portal.say(VACANT, *PASSAGE, f"GX,{number:06d},006400,000000,000000\r\n".encode(), VACANT)
    return service.wait_for("scan")


def kill_lane(service, pid):
    """End the lane's process as a kill -9 does; the daemon starts it again."""
    time.sleep(0.5)  # what was said must have reached the lane's loop
    os.kill(pid, 9)
    service.wait_for("lane_died")


def records(state):
    stored = sorted(items(state), key=lambda item: item.row.start_utc_ns)
    return [(recording.read(Path(i.row.path)).scan.portal, codes(i), i.row.result.outcome) for i in stored]


@pytest.mark.timeout(120)
def test_a_passage_that_was_open_when_the_lane_was_killed_is_told_and_the_next_one_misses_it(tmp_path):
    with LivePortal() as portal, daemon(write_config(tmp_path, portal_lane(portal))) as service:
        pid = service.wait_for("lane_ready")["pid"]
        portal.accept()
        pass_by(portal, service, 7)
        portal.say(VACANT, *PASSAGE[:10])
        kill_lane(service, pid)
        portal.cut()
        portal.accept()
        assert "ended in the middle of a passage" in service.wait_for("health", component="passage")["text"]
        assert service.wait_for("scan")["outcome"] != "CLEAR"
        assert pass_by(portal, service, 9)["outcome"] != "CLEAR"  # 8 was in the portal when the lane ended
        assert service.stop() == 0
    first, lost, after = records(tmp_path / "state")
    assert (first[0].number, after[0].number) == (7, 9) and lost[0] is None
    assert "portal_broken_off" in lost[1] and lost[2] != "CLEAR"
    assert "passages_missed" in after[0].faults and "portal_passages_missed" in after[1]
    assert first[0].boot_epoch == after[0].boot_epoch


@pytest.mark.timeout(120)
def test_passages_while_the_daemon_was_dead_are_missed_by_number(tmp_path):
    config = None
    with LivePortal() as portal:
        config = write_config(tmp_path, portal_lane(portal))
        service = daemon(config)
        service.wait_for("lane_ready")
        portal.accept()
        pass_by(portal, service, 7)
        time.sleep(0.5)
        service.kill()
        portal.cut()
        with daemon(config) as service:
            service.wait_for("lane_ready")
            portal.accept()
            assert pass_by(portal, service, 11)["outcome"] != "CLEAR"
            pass_by(portal, service, 12)
            assert service.stop() == 0
    _, after, next_one = records(tmp_path / "state")
    assert "passages_missed" in after[0].faults and next_one[0].faults == ()


@pytest.mark.timeout(120)
def test_a_passage_that_was_stored_is_not_told_as_lost(tmp_path):
    with LivePortal() as portal:
        config = write_config(tmp_path, portal_lane(portal))
        with daemon(config) as service:
            portal.accept()
            pass_by(portal, service, 7)
            assert service.stop() == 0
        kept = tmp_path / "state" / "lanes" / "north.json"
        (row,) = items(tmp_path / "state")
        record = recording.read(Path(row.row.path)).scan.portal
        # As if the kill had come after the recording was durable and before that was written down.
        memory = PortalMemory(kept, [f"rpm_rapiscan {portal.address}"])
        memory.take(0, Occupancy(phase="entered", utc_ns=record.start_utc_ns, source_ref="x"))
        portal.cut()
        with daemon(config) as service:
            portal.accept()
            pass_by(portal, service, 8)
            assert service.stop() == 0
        assert all(e["component"] != "passage" for e in service.named("health"))
    (_, next_one) = records(tmp_path / "state")
    assert next_one[0].number == 8 and "passages_missed" not in next_one[0].faults
    assert PortalMemory(kept, [f"rpm_rapiscan {portal.address}"]).begun(0) == ()


@pytest.mark.timeout(120)
def test_recordings_from_a_simulated_portal_say_so_whenever_the_lane_came(tmp_path):
    portal = PortalServer(Traffic(seed=3, gap_s=15.0), "127.0.0.1", 0, speed=30.0)
    thread = threading.Thread(target=portal.run)
    thread.start()
    try:
        time.sleep(0.5)  # its own set-up lines have gone to nobody
        with daemon(write_config(tmp_path, LANE.format(address=portal.address))) as service:
            pid = service.wait_for("lane_ready")["pid"]
            service.wait_for("scan")
            os.kill(pid, 9)
            service.wait_for("lane_ready")
            for _ in range(2):
                assert service.wait_for("scan")["simulated"] is True
            assert service.stop() == 0
    finally:
        portal.stop.set()
        thread.join(10)
    stored = items(tmp_path / "state")
    assert len(stored) >= 3 and all(item.row.simulated for item in stored)
    for item in stored:
        with h5py.File(item.row.path) as file:
            assert file.attrs["simulated"]
            assert file["entry/title"][()].decode().startswith("SIMULATED ")


@pytest.mark.timeout(120)
def test_a_lost_passage_is_told_though_its_portal_is_gone(tmp_path):
    address = "tcp://127.0.0.1:9"
    config = write_config(tmp_path, LANE.format(address=address))
    memory = PortalMemory(tmp_path / "state" / "lanes" / "north.json", [f"rpm_rapiscan {address}"])
    memory.take(0, entered("x", 1_769_852_701_250_000_000))
    for _ in range(2):  # once: at the second start it is stored
        with daemon(config) as service:
            service.wait_for("device_lost")
            time.sleep(1.0)
            assert service.stop() == 0
    ((record, flags, outcome),) = records(tmp_path / "state")
    (item,) = items(tmp_path / "state")
    assert record is None and "portal_broken_off" in flags and outcome != "CLEAR" and item.row.simulated


# ---- the file


def entered(ref, utc_ns):
    return Occupancy(phase="entered", utc_ns=utc_ns, source_ref=ref, simulated=True)


def test_what_is_stored_is_forgotten_and_moves_the_count(tmp_path):
    path, record = tmp_path / "lanes" / "north.json", samples.portal(number=8, boot_epoch=5)
    memory = PortalMemory(path, ["a", "b"])
    memory.take(1, entered("x", 10))
    memory.take(1, Occupancy(phase="left", utc_ns=20, source_ref="x", record=record))
    assert PortalMemory(path, ["a", "b"]).count_of(1) is None  # not stored yet: it may still be lost
    memory.stored(1, "x")
    memory.take(1, entered("y", 30))
    again = PortalMemory(path, ["b", "c"])  # the configuration has changed: known by driver and address
    assert again.count_of(0) == PortalCount(boot_epoch=5, number=8)
    assert [(b.source_ref, b.start_utc_ns, b.simulated) for b in again.begun(0)] == [("y", 30, True)]
    assert again.count_of(1) is None and again.begun(1) == ()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "north.json").write_text('[{"device": 3}]')
    with pytest.raises(DataError, match=r"north\.json"):
        PortalMemory(tmp_path / "north.json", ["a"])
