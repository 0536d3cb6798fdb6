"""The judge of a lane: memory of live screenings, and what happens when one fails."""

import gc
import hashlib
from types import SimpleNamespace

import h5py
import msgspec
import numpy as np
import pytest

from scanner_io import recording
from scanner_io.errors import DataError, StorageError
from tests import samples
from triage.service import link
from triage.service.assembly import Assembled
from triage.service.lane import LIVE_SCREENINGS, Judge, Worker, recording_path
from triage.service.packing import packer


def fed(judge, image):
    live = judge.listen(image.detector)
    for first in range(0, image.columns, 20):
        live.push(tuple(c[first : first + 20] for c in image.counts))
    return live


def same(one, two):
    return msgspec.structs.replace(one, timings_ms={}) == msgspec.structs.replace(two, timings_ms={})


def test_memory_is_lent_and_comes_back_with_the_last_reference():
    judge = Judge(threads=1)
    image = samples.radiograph()
    held = [judge.listen(image.detector) for _ in range(LIVE_SCREENINGS)]
    assert all(held)
    assert judge.listen(image.detector) is None
    held.clear()
    gc.collect()
    assert judge.listen(image.detector) is not None
    judge.close()


def test_a_live_screening_gives_the_result_of_the_whole_image_again_and_again():
    judge = Judge(threads=1)
    for seed in range(3):
        scan = samples.scan(radiograph=samples.radiograph(seed=seed, columns=100))
        live = fed(judge, scan.radiograph)
        assert same(judge(scan, live), judge(scan))
        del live
    judge.close()


def test_a_live_screening_that_failed_costs_nothing_but_time():
    judge = Judge(threads=1)
    scan = samples.scan()
    live = fed(judge, scan.radiograph)
    live.push(("not an array",))
    assert live.failure
    live.push(scan.radiograph.counts)
    assert same(judge(scan, live), judge(scan))
    judge.close()


@pytest.fixture
def lane(tmp_path):
    """What a worker asks its lane."""
    made = SimpleNamespace(
        recordings=tmp_path, config_in_force={}, codec="bitshuffle-lz4", packer=packer("bitshuffle-lz4"), refs={},
        unanswered=set(), said=[], notes=[], judge=Judge(threads=1), watch_promise=lambda result: None,
        as_promised=lambda scan: scan, quarantine=tmp_path / "quarantine",
        hand_back=lambda: None, may_record=True, papers=None, is_live=lambda refs: False,
    )  # fmt: skip
    made.say = made.said.append
    made.note = lambda event, **fields: made.notes.append((event, fields["text"]))
    yield made
    made.judge.close()


def test_a_damaged_file_in_the_place_of_a_scan_that_is_at_hand_is_moved_aside_and_the_scan_recorded(tmp_path, lane):
    scan = samples.scan()
    path = recording_path(tmp_path, scan)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a recording")
    Worker(lane)._record(Assembled(scan=scan, refs=()), again=False)
    assert [event for event, _ in lane.notes] == ["recording_damaged"]
    assert recording.check(path) == [] and lane.said[-1].row.scan_id == scan.scan_id
    assert (tmp_path / "quarantine" / path.name).read_bytes() == b"half a recording"


def test_a_recording_that_cannot_be_read_for_want_of_memory_stays_where_it_is(tmp_path, lane, monkeypatch):
    scan = samples.scan()
    worker = Worker(lane)
    worker._record(Assembled(scan=scan, refs=()), again=False)
    path = recording_path(tmp_path, scan)

    def without_memory(path):
        raise DataError(f"{path}: not readable") from MemoryError()

    monkeypatch.setattr(recording, "read", without_memory)
    with pytest.raises(StorageError, match="cannot be read now"):
        worker._rejudge(link.Rejudge(path=str(path)), again=False)
    assert path.is_file() and lane.notes == []


def test_that_the_disk_refuses_the_result_counts_as_no_attempt_to_judge(tmp_path, lane, monkeypatch):
    scan, refused = samples.scan(), []
    worker, real = Worker(lane), recording.write

    def full(path, scan, *, result=None, **how):
        if result is not None and len(refused) < 2:
            refused.append(path)
            raise StorageError("no room")
        return real(path, scan, result=result, **how)

    monkeypatch.setattr(recording, "write", full)
    for again in (False, True):
        with pytest.raises(StorageError, match="no room"):
            worker._record(Assembled(scan=scan, refs=()), again=again)
    lane.may_record = False
    with pytest.raises(StorageError, match="make room"):
        worker._record(Assembled(scan=scan, refs=()), again=True)
    lane.may_record = True
    worker._record(Assembled(scan=scan, refs=()), again=True)
    assert [type(m).__name__ for m in lane.said].count("Judging") == 1
    assert lane.said[-1].row.scan_id == scan.scan_id


def test_a_recording_damaged_before_its_result_is_stored_is_written_anew_from_memory(tmp_path, lane):
    scan = samples.scan()
    path = recording_path(tmp_path, scan)

    def damage(message):
        if isinstance(message, link.Judging):
            with h5py.File(path) as file:
                chunk = file["entry/data/high"].id.get_chunk_info(0)
            with path.open("r+b") as file:
                file.seek(chunk.byte_offset + chunk.size // 2)
                file.write(b"\xa5\x5a\xa5\x5a")
        lane.said.append(message)

    lane.say = damage
    Worker(lane)._record(Assembled(scan=scan, refs=()), again=False)
    ((event, text),) = lane.notes
    assert event == "counts_written_anew"
    assert "damaged" in text
    assert recording.check(path) == []
    stored = recording.read(path)
    assert stored.result == lane.said[-1].row.result
    assert np.array_equal(stored.scan.radiograph.counts[-1], scan.radiograph.counts[-1])
    assert lane.said[-1].row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
