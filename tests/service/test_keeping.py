"""Recordings and rows held against each other."""

import errno
import hashlib
import os
import time
from pathlib import Path

import msgspec
import pytest

from tests.service.test_outbox import decision, row
from triage.service import keeping
from triage.service.daemon import recordings_in
from triage.service.outbox import Outbox

WHOLE = b"a recording" * 1000


@pytest.fixture
def outbox(place):
    box = Outbox(place)
    yield box
    box.close()


def stored(outbox, folder, number, outcome="REVIEW", **more):
    path = folder / f"{number}.scan.h5"
    path.write_bytes(WHOLE)
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    outbox.add(row(number, outcome, path=str(path), sha256=sha256, size=len(WHOLE), **more))
    return path


def look(outbox):
    """Return what is new at a start: by name and length, then by every byte."""
    told = []
    for one in keeping.undecided(outbox):
        if keeping.seen_at_once(one):
            told.append(keeping.tell_damage(outbox, one, keeping.seen_at_once(one)))
    scrub = keeping.Scrub(lambda: keeping.everything(outbox.place))
    scrub.run()
    assert not scrub.problem
    while not scrub.found.empty():
        told.append(keeping.tell_damage(outbox, *scrub.found.get()))
    return [True for new in told if new]


@pytest.mark.parametrize("harm", ["gone", "cut", "flipped"])
def test_a_scan_whose_recording_is_not_as_it_was_is_held_until_it_is(outbox, tmp_path, harm):
    path, other = stored(outbox, tmp_path, 1), stored(outbox, tmp_path, 2)
    assert look(outbox) == []
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(WHOLE[:-1] if harm == "cut" else WHOLE[:-1] + b"\0")
    assert look(outbox) == [True]
    assert look(outbox) == []  # told once
    item = outbox.item(row(1).scan_id)
    assert item.state == "held"
    assert "its recording" in item.note
    assert str(path) in item.note
    assert outbox.lease_next("ana", 10).row.path == str(other)
    assert outbox.lease_next("ana", 10) is None
    assert keeping.damaged(outbox) == [row(1).scan_id]
    path.write_bytes(WHOLE)
    assert look(outbox) == [True]
    assert outbox.item(row(1).scan_id).state == "pending"
    assert keeping.damaged(outbox) == []


def test_a_recording_that_is_harmed_in_two_ways_waits_again_once_it_is_sound(outbox, tmp_path):
    path = stored(outbox, tmp_path, 1)
    path.unlink()
    assert look(outbox) == [True] and "cannot be found" in outbox.item(row(1).scan_id).note
    path.write_bytes(WHOLE[:-1])
    assert look(outbox) == [True] and f"expected {len(WHOLE)}" in outbox.item(row(1).scan_id).note
    path.write_bytes(WHOLE)
    assert look(outbox) == [True] and outbox.item(row(1).scan_id).state == "pending"


def test_no_more_waits_to_be_told_than_can_be_and_reading_ends_nevertheless(outbox, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "MOST_FOUND", 3)
    for number in range(9):
        stored(outbox, tmp_path, number).unlink()
    scrub = keeping.Scrub(lambda: keeping.everything(outbox.place))
    scrub.start()
    deadline_s = time.monotonic() + 10
    while scrub.found.qsize() < 3 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.1)
    assert scrub.found.qsize() == 3 and scrub.is_alive()
    scrub.close()
    assert not scrub.is_alive()


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_are_gone_through(tmp_path, monkeypatch):
    for day in ("20260101", "20260102", "20260103"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "a.scan.h5").touch()
    real = os.scandir

    def refusing(path):
        if Path(path).name == "20260102":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    problems = []
    assert [p.parent.name for p in recordings_in(tmp_path, problems.append)] == ["20260101", "20260103"]
    assert [p.filename for p in problems] == [str(tmp_path / "20260102")]


def test_a_supervisor_who_gives_back_a_damaged_scan_leaves_it_held(outbox, tmp_path):
    stored(outbox, tmp_path, 1).unlink()
    look(outbox)
    item = outbox.lease(row(1).scan_id, "sue", 10)
    outbox.release(item.lease_id, "nothing to see", 100)
    assert outbox.item(row(1).scan_id).state == "held"


def test_damage_of_what_is_decided_is_told_and_changes_no_decision(outbox, tmp_path):
    path = stored(outbox, tmp_path, 1)
    item = outbox.lease_next("ana", 10)
    outbox.decide(decision(item))
    path.unlink()
    assert look(outbox) == [True]
    assert outbox.item(row(1).scan_id).state == "decided"
    assert keeping.damaged(outbox) == [row(1).scan_id]
    kinds = [kind for (kind,) in outbox.store.rows("SELECT kind FROM events ORDER BY seq")]
    assert kinds[-1] == "recording_damaged"


def test_where_what_must_be_there_cannot_be_asked_that_is_told(tmp_path):
    (tmp_path / "outbox.sqlite").write_bytes(b"no database" * 100)
    scrub = keeping.Scrub(lambda: keeping.everything(tmp_path / "outbox.sqlite"))
    scrub.run()
    assert "outbox.sqlite" in scrub.problem and scrub.over_s


def test_undecided_recordings_are_read_first_and_reading_ends_at_once(outbox, tmp_path, monkeypatch):
    stored(outbox, tmp_path, 1, "CLEAR")
    stored(outbox, tmp_path, 2)
    stored(outbox, tmp_path, 3, "CLEAR")
    monkeypatch.setattr(keeping, "PAGE", 1)
    assert [one.state for one in keeping.everything(outbox.place)] == ["pending", "filed", "filed"]
    large = msgspec.structs.replace(keeping.undecided(outbox)[0], path="/dev/zero", size=0)
    scrub = keeping.Scrub(lambda: [large])
    scrub.start()
    scrub.close()
    assert not scrub.is_alive()
    assert scrub.found.empty()


def test_recordings_of_a_lane_are_listed_day_by_day_wherever_they_lie(tmp_path):
    names = ("20260102/b", "20260101/a", "20260102/a", "20260102/deeper/c", "laid here by hand")
    for name in names:
        path = tmp_path / f"{name}.scan.h5"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    (tmp_path / "20260101/a.part").touch()
    problems = []
    listed = [
        p.relative_to(tmp_path).as_posix().removesuffix(".scan.h5") for p in recordings_in(tmp_path, problems.append)
    ]
    assert sorted(listed) == sorted(names) and listed[0] == "20260101/a"
    assert list(recordings_in(tmp_path / "none", problems.append)) == [] == problems
