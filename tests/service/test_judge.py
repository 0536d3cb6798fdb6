"""The judge of a lane: memory of live screenings, and what happens when one fails."""

import gc
import hashlib
from types import SimpleNamespace

import h5py
import msgspec
import numpy as np

from scanner_io import recording
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


def test_a_recording_damaged_before_its_result_is_stored_is_written_anew_from_memory(tmp_path):
    scan = samples.scan()
    lane = SimpleNamespace(
        recordings=tmp_path, config_in_force={}, codec="bitshuffle-lz4", packer=packer("bitshuffle-lz4"), refs={},
        unanswered=set(), said=[], notes=[], judge=Judge(threads=1), watch_promise=lambda result: None,
        as_promised=lambda scan: scan,
        hand_back=lambda: None, may_record=True, papers=None, is_live=lambda refs: False,
    )  # fmt: skip
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
    lane.note = lambda event, **fields: lane.notes.append((event, fields["text"]))
    Worker(lane)._record(Assembled(scan=scan, refs=()), again=False)
    lane.judge.close()
    ((event, text),) = lane.notes
    assert event == "counts_written_anew"
    assert "damaged" in text
    assert recording.check(path) == []
    stored = recording.read(path)
    assert stored.result == lane.said[-1].row.result
    assert np.array_equal(stored.scan.radiograph.counts[-1], scan.radiograph.counts[-1])
    assert lane.said[-1].row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
