"""Water marks and the reserve."""

import os

import pytest

from scanner_io import disk
from scanner_io.config import Storage
from triage.service.room import MIB, NEXT, Marks, Room, level

TOTAL = 100_000 * MIB


class Tank(disk.Disk):
    """A disk whose room is told."""

    def __init__(self, free_mb, files=10**6):
        self.free_mb, self.files = free_mb, files

    def space(self, path):
        return disk.Space(free=self.free_mb * MIB, total=TOTAL, files=self.files)


@pytest.fixture
def tank():
    before = disk.io()
    put = Tank(5000)
    disk.use(put)
    yield put
    disk.use(before)


def states(room, tank, *free_mb):
    told = []
    for free in free_mb:
        tank.free_mb = free
        told.append((room.look(), room.state))
    return told


def test_every_state_begins_and_ends_at_its_mark_and_not_between(tmp_path, tank):
    room = Room(tmp_path, Storage(min_free_mb=1000, warn_free_mb=2000, reserve_mb=0))
    assert states(room, tank, 5000, 2000, 1999, 2249, 2250) == [
        (False, "ok"), (False, "ok"), (True, "warn"), (False, "warn"), (True, "ok"),
    ]  # fmt: skip
    assert states(room, tank, 1000, 999, 1249, 1250, 1000) == [
        (True, "warn"), (True, "stop"), (False, "stop"), (True, "warn"), (False, "warn"),
    ]  # fmt: skip
    assert states(room, tank, 0, 5000) == [(True, "stop"), (True, "ok")]
    assert room.left_stop


def test_every_state_has_a_next_one_at_every_level():
    marks = Marks.of(Storage(min_free_mb=100), TOTAL)
    levels = {level(marks, free * MIB) for free in range(400)}
    assert {(state, where) for state in ("ok", "warn", "stop") for where in levels} == set(NEXT)


@pytest.mark.parametrize(
    ("storage", "total_mb", "expected_mb"),
    [
        (Storage(), 100_000, (2048, 2560, 4096, 4608)),
        (Storage(), 1_000, (50, 62, 100, 112)),
        (Storage(min_free_mb=100), 1_000, (100, 125, 200, 225)),
        (Storage(min_free_mb=100, warn_free_mb=10), 1_000, (100, 125, 125, 150)),
        (Storage(min_free_mb=0), 1_000, (0, 0, 0, 0)),
    ],
)
def test_marks_by_default_and_by_hand(storage, total_mb, expected_mb):
    assert tuple(mark // MIB for mark in Marks.of(storage, total_mb * MIB)) == expected_mb


def test_the_reserve_is_given_up_on_a_full_disk_and_made_whole_when_intake_goes_on(tmp_path, tank):
    room = Room(tmp_path, Storage(min_free_mb=16, reserve_mb=8))
    reserve = tmp_path / "reserve"
    states(room, tank, 5000)
    assert room.whole
    assert reserve.stat().st_blocks * 512 >= 8 * MIB
    states(room, tank, 15, 3)
    assert room.whole
    assert "are still recorded" in room.words()
    assert states(room, tank, 1, 2) == [(True, "stop"), (True, "stop")]  # the state is the same, the reserve is not
    assert room.whole
    assert states(room, tank, 1, 1) == [(True, "stop"), (False, "stop")]
    assert not room.whole
    assert reserve.exists()  # until whoever writes a recording has heard of it
    states(room, tank, 1)
    assert not reserve.exists()
    assert not room.whole
    assert "kept for decisions" in room.words()
    assert states(room, tank, 9) == [(False, "stop")]
    assert room.free == 1 * MIB  # eight of them are owed to the reserve
    assert not room.whole
    assert states(room, tank, 27, 28) == [(False, "stop"), (True, "warn")]
    assert room.whole


def test_a_reserve_that_cannot_be_made_and_a_disk_without_room_for_files_stop_intake(tmp_path, tank):
    room = Room(tmp_path, Storage(min_free_mb=16, reserve_mb=8))
    tank.allocate = refuse
    assert states(room, tank, 5000, 5000) == [(True, "stop"), (False, "stop")]
    assert "Disk quota" in room.words()
    assert list(tmp_path.iterdir()) == []
    del tank.allocate
    assert states(room, tank, 5000) == [(True, "ok")]
    tank.files = 10
    assert states(room, tank, 5000) == [(True, "stop")]


def refuse(descriptor, size):
    raise OSError(122, os.strerror(122))
