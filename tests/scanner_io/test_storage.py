import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io import storage
from scanner_io.storage import Part, free_name

LARGE = storage._DIRECT
PLACE = st.integers(0, 4 * LARGE)
LENGTH = st.integers(0, 300) | st.integers(LARGE - 2, 2 * LARGE)


def test_a_folder_is_made_with_everything_above_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(storage, "sync_folder", synced.append)
    storage.make_folder(tmp_path / "a" / "b")
    storage.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == [tmp_path, tmp_path / "a"]


@given(st.lists(st.tuples(st.sampled_from("wr"), PLACE, LENGTH), max_size=25), st.booleans())
def test_a_part_is_a_file_like_any_other(tmp_path_factory, steps, on_disk):
    """Small writes over large ones and the other way round, read back at any time: as a plain file has it."""
    path = tmp_path_factory.mktemp("part") / "file" if on_disk else None
    expected = bytearray()
    with Part(path, LARGE) as part:
        for number, (kind, at, length) in enumerate(steps):
            part.seek(at)
            if kind == "w":
                data = bytes([number + 1]) * length
                part.write(memoryview(data))
                if length:
                    expected.extend(bytes(max(0, at - len(expected))))
                    expected[at : at + length] = data
            else:
                assert part.read(length) == expected[at : at + length]
        if path is None:
            assert part.contents == expected
        else:
            part.commit()
            assert path.read_bytes() == expected


def test_what_the_disk_cannot_give_back_is_kept_for_the_commit(tmp_path, monkeypatch):
    def pread(descriptor, count, at):
        raise OSError(5, os.strerror(5))

    with Part(tmp_path / "file", LARGE) as part:
        part.write(memoryview(bytes(LARGE)))
        part.seek(0)
        monkeypatch.setattr(storage.os, "pread", pread)
        assert part.read(10) == bytes(10)
        with pytest.raises(storage.StorageError, match="Input/output error"):
            part.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_sync_failed_is_made_anew(tmp_path, faulty_disk):
    faulty = faulty_disk(lambda call: "EIO" if call.name == "sync" and len(faulty.calls) == 3 else None)
    with pytest.raises(OSError, match="Input/output"):
        storage.make_folder(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    storage.make_folder(tmp_path / "a")
    assert [c.name for c in faulty.calls] == ["mkdir", "open", "sync", "rmdir", "mkdir", "open", "sync"]


@pytest.mark.parametrize("fails_at", range(1, 13))
def test_what_cannot_be_moved_aside_stays_and_is_moved_the_next_time(tmp_path, faulty_disk, fails_at):
    file, place = tmp_path / "a.h5", tmp_path / "quarantine"
    file.write_bytes(b"what is wrong")
    faulty = faulty_disk(lambda call: "EIO" if call.number == fails_at else None)
    try:
        target = storage.move_aside(file, place, "why")
    except storage.StorageError:
        assert file.is_file() or len(list(place.glob("*.h5"))) == 1
        target = storage.move_aside(file, place, "why") if file.is_file() else next(place.glob("*.h5"))
    assert target.read_bytes() == b"what is wrong"
    assert target.with_name(target.name + ".reason.txt").read_text() == "why\n"
    assert faulty.calls


def test_a_name_that_was_used_a_hundred_times_is_not_looked_for_any_longer(tmp_path):
    assert free_name(tmp_path, Path("a.png")).name == "a.png"
    for name in ("a.png", *(f"a.{n}.png" for n in range(1, 99))):
        (tmp_path / name).touch()
    assert free_name(tmp_path, Path("a.png")).name == "a.99.png"
    (tmp_path / "a.99.png").touch()
    assert re.fullmatch(r"a\.\d{19}\.png", free_name(tmp_path, Path("a.png")).name)
