import hashlib

import pytest

from drivers.replay import Config, connect, scan_events
from scanner_io import recording
from scanner_io.errors import LinkLost
from scanner_io.model import DeclarationMatch, EndOfSource, LaneEvent, LineBlock, Rejected, Remark, ScanEnd, ScanStart
from tests import samples
from tests.contract import DriverContract, Rig
from triage.service.assembly import Assembly, LaneSpec


class ReplayRig(Rig):
    driver = "replay"
    expects = (ScanStart, LineBlock, ScanEnd)
    silent = False
    finite = True

    def __init__(self, folder):
        self.folder = folder

    @property
    def config(self):
        return Config(paths=(str(self.folder),), speed=0)


@pytest.fixture
def folder(tmp_path):
    scan = samples.scan()
    recording.write(tmp_path / f"{scan.scan_id}.scan.h5", scan)
    return tmp_path


class TestReplay(DriverContract):
    driver = "replay"

    @pytest.fixture
    def rig(self, folder):
        return ReplayRig(folder)


def test_events_keep_their_times_and_order():
    scan = samples.scan()
    events = scan_events(scan, "r")
    assert isinstance(events[1], Remark)
    assert events[1].quality == scan.quality
    times = [int(e.column_utc_ns[0]) if isinstance(e, LineBlock) else e.utc_ns for e in events]
    assert times == sorted(times)
    assert times[0] == scan.portal.start_utc_ns


@pytest.mark.parametrize("form", ["{}", "{}/*.scan.h5"])
def test_folders_and_patterns_are_played_to_the_end(folder, form):
    source = connect(Config(paths=(form.format(folder),), speed=0))
    source.open()
    kinds = []
    while not kinds or kinds[-1] is not EndOfSource:
        event = source.read(0.5)
        kinds.append(type(event))
    source.close()
    assert kinds.count(ScanEnd) == 1


def test_missing_recordings_are_a_lost_link(tmp_path):
    with pytest.raises(LinkLost, match="no recording is there"):
        connect(Config(paths=(str(tmp_path / "absent"),))).open()


def test_a_damaged_recording_is_told_and_the_others_are_played(folder):
    (path,) = folder.glob("*.h5")
    paths = [folder / "a.scan.h5", path]
    paths[0].write_bytes(b"not a recording")
    source = connect(Config(paths=tuple(map(str, paths)), speed=0))
    source.open()
    events = []
    while not isinstance(event := source.read(1.0), EndOfSource):
        events.append(event)
    source.close()
    (rejected,) = (e for e in events if isinstance(e, Rejected))
    assert rejected.source_ref == str(paths[0]) and "not readable" in rejected.reason
    assert rejected.source_sha256 == hashlib.sha256(b"not a recording").hexdigest()
    assert sum(isinstance(e, ScanEnd) for e in events) == len(paths) - 1


def test_a_replayed_scan_keeps_how_its_declaration_was_found():
    match = DeclarationMatch(state="matched", by="container", read=("CSQU30543B3",), declared="CSQU3054383",
                             confidence=0.9999, document="MAN1")  # fmt: skip
    read = LaneEvent(utc_ns=samples.START_NS, kind="container", text="CSQU30543B3", confidence=80)
    papers = samples.declaration(container_numbers=("CSQU3054383",))
    scan = samples.scan(declaration=papers, declaration_match=match, lane_events=(read,), quality=())
    lane = Assembly(LaneSpec(name="north", expected=scan.expected))
    found = [s for e in scan_events(scan, "r") for s in lane.feed(0, e, 0.0)] + lane.flush()
    assert found[0].scan.declaration_match == match and found[0].scan.declaration == papers
    assert "identity_differs" not in {q.code for q in found[0].scan.quality}
