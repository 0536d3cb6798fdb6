import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io import storage
from scanner_io.storage import Part

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
