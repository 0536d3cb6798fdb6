"""A sidecar judged by hand, and its facts on their way into the recording and out of it again."""

import msgspec
import numpy as np
import pytest

from drivers.replay import scan_events
from scanner_io import recording
from scanner_io.formats.sidecar import parse_sidecar
from scanner_io.model import ScanStart
from scanner_io.vendor_record import Attachment, in_words
from tests import samples
from tests.drivers.test_passages import FILES, T, drop_all, form, jpeg
from triage.service import offline
from triage.service.lane import Judge


@pytest.fixture
def judge():
    made = Judge()
    yield made
    made.close()


def judged(path, judge):
    (row,) = offline.judge_file(path, judge)
    assert row.error is None, row.error
    return row


def test_a_sidecar_with_its_files_is_judged_as_their_image_is(tmp_path, judge):
    drop_all(tmp_path)
    (tmp_path / FILES[0]).write_bytes(jpeg(1, rows=200))
    row = judged(tmp_path / f"{T}.xml", judge)
    alone = judged(tmp_path / FILES[0], judge)
    assert row.result.outcome == alone.result.outcome and row.result.load == alone.result.load
    assert np.array_equal(row.scan.radiograph.counts[0], alone.scan.radiograph.counts[0])
    assert row.row()["attachments"] == FILES[1:] and row.row()["sidecar"]["scan_id"] == T
    assert any("container CRXU8691490 (read, 97 %)" in line for line in row.row()["told"])


def test_what_is_missing_is_named(tmp_path, judge):
    drop_all(tmp_path, without=FILES[1:2])
    (tmp_path / FILES[0]).write_bytes(jpeg(1, rows=200))
    row = judged(tmp_path / f"{T}.xml", judge)
    assert row.result.outcome == "REVIEW" and any(FILES[1] in reason for reason in row.result.reasons)
    (tmp_path / FILES[0]).write_bytes(jpeg(1)[:2000])
    row = judged(tmp_path / f"{T}.xml", judge)
    assert row.result.outcome == "UNUSABLE" and any("JPEG" in reason for reason in row.result.reasons)
    (tmp_path / FILES[0]).unlink()
    row = judged(tmp_path / f"{T}.xml", judge)
    assert row.result.outcome == "UNUSABLE" and any(f"missing {FILES[0]}" in r for r in row.result.reasons)


def test_real_sidecars_alone_are_unusable_with_their_facts(shared_data, judge):
    for path in sorted((shared_data / "sidecar").glob("*.xml")):
        row = judged(path, judge)
        assert row.result.outcome == "UNUSABLE" and "has no image: missing" in row.result.reasons[0]
        assert row.scan.container_numbers[0] in " ".join(row.row()["told"])


def test_no_sidecar_at_all(tmp_path, judge):
    (tmp_path / "x.xml").write_text("<other/>")
    (row,) = offline.judge_file(tmp_path / "x.xml", judge)
    assert row.result is None and "no sidecar's" in row.error


def test_a_recording_keeps_them_and_a_replay_gives_them_again(tmp_path):
    told = parse_sidecar(form(files=FILES))
    kept = Attachment(name=f"{T}.Ntr", role="portal counts", size_bytes=3, sha256="00", contents=b"\0\xff\n")
    scan = samples.scan(sidecar=told, attachments=(kept,))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan)
    stored = recording.read(path).scan
    assert stored.sidecar == told and stored.attachments == (kept,)
    assert recording.check(path) == []
    start = next(e for e in scan_events(stored, "x") if isinstance(e, ScanStart))
    assert start.sidecar == told and start.attachments == (kept,)
    less = msgspec.structs.replace(scan, attachments=())
    assert recording.content_sha256(scan, {}, None) != recording.content_sha256(less, {}, None)
    assert any("operator" not in line and "CRXU8691490" in line for line in in_words(told))
