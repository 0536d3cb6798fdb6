"""`scanlane backup`: a second copy of a state, and a service that goes on from it."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from scanner_io import recording
from scanner_io.errors import DataError, StorageError
from tests import samples
from tests.service.risk_rig import said
from triage.service import audit, backup, keeping, store
from triage.service.outbox import Outbox, ScanRow


def filled(state, count=3, first=0):
    """Put recordings with their rows into a state folder."""
    (state / "recordings" / "north").mkdir(parents=True, exist_ok=True)
    box = Outbox(state / "outbox.sqlite")
    for number in range(first, first + count):
        name = f"north-20260105T06000{number}.000000Z-0000000{number}"
        path = state / "recordings" / "north" / f"{name}.scan.h5"
        sha256 = recording.write(path, samples.scan(scan_id=name), codec="none")
        box.add(ScanRow(
            scan_id=name, lane="north", path=str(path), sha256=sha256, size=path.stat().st_size, simulated=True,
            start_utc_ns=samples.START_NS, result=samples.result(name),
        ))  # fmt: skip
    return box


@pytest.fixture
def state(tmp_path):
    state = tmp_path / "state"
    box = filled(state)
    (state / "lanes").mkdir()
    (state / "lanes/north.json").write_text("{}")
    (state / "incoming").mkdir()
    (state / "incoming/half.png").write_bytes(b"not ours")
    yield state
    box.close()  # until here a service has it open


def test_a_copy_of_a_running_service_makes_a_state_that_holds_the_same(state, tmp_path):
    made = backup.backup(state, tmp_path / "copy")
    assert (made.files, made.copied, made.problems) == (5, 5, ())
    assert backup.check(tmp_path / "copy") == []
    assert not (tmp_path / "copy/incoming").exists()
    assert backup.restore(tmp_path / "copy", tmp_path / "again") == 5
    box = Outbox(tmp_path / "again/outbox.sqlite")
    try:
        found = [*keeping.everything(box.place)]
        assert len(found) == 3
        for one in found:
            assert one.path.startswith(str(tmp_path / "again/recordings/north"))
            assert hashlib.sha256(Path(one.path).read_bytes()).hexdigest() == one.sha256
    finally:
        box.close()
    found = audit.verify(store.named(str(tmp_path / "again")), None, None, None)
    assert not found.problems and found.rows == 3
    assert (tmp_path / "again/lanes/north.json").read_text() == "{}"


def test_the_second_time_only_what_is_new_is_copied(state, tmp_path):
    backup.backup(state, tmp_path / "copy")
    filled(state, count=1, first=3).close()
    made = backup.backup(state, tmp_path / "copy")
    assert (made.files, made.copied) == (6, 3)  # the outbox, what the lane remembers, and one recording
    assert backup.check(tmp_path / "copy") == []


def test_a_recording_that_is_not_as_it_was_is_told_and_not_taken(state, tmp_path):
    one, two, three = sorted((state / "recordings/north").iterdir())
    contents = bytearray(one.read_bytes())
    contents[len(contents) // 2] ^= 1
    one.write_bytes(contents)
    two.unlink()
    made = backup.backup(state, tmp_path / "copy")
    assert len(made.problems) == 2
    assert str(one) in made.problems[0] and "recorded was" in made.problems[0]
    assert str(two) in made.problems[1] and "cannot be read" in made.problems[1]
    copied = [p.name for p in (tmp_path / "copy/recordings/north").iterdir()]
    assert copied == [three.name]


@pytest.mark.parametrize("touched", ["outbox.sqlite", "lanes/north.json", "recordings"])
def test_a_copy_that_was_touched_is_not_restored(state, tmp_path, touched):
    copy = tmp_path / "copy"
    backup.backup(state, copy)
    path = copy / touched
    path = next(p for p in path.rglob("*.scan.h5")) if path.is_dir() else path
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    (problem,) = backup.check(copy)
    assert str(path) in problem
    with pytest.raises(DataError, match="is not copied"):
        backup.restore(copy, tmp_path / "again")
    assert not (tmp_path / "again/outbox.sqlite").exists()


def test_a_state_that_is_there_is_never_written_over(state, tmp_path):
    backup.backup(state, tmp_path / "copy")
    before = (state / "outbox.sqlite").read_bytes()
    with pytest.raises(StorageError, match="not empty"):
        backup.restore(tmp_path / "copy", state)
    assert (state / "outbox.sqlite").read_bytes() == before


def test_a_copy_that_was_not_finished_is_none(state, tmp_path):
    backup.backup(state, tmp_path / "copy")
    (tmp_path / "copy/manifest.json").unlink()
    with pytest.raises(StorageError, match="no whole copy"):
        backup.restore(tmp_path / "copy", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_manifest_that_names_a_place_elsewhere_is_refused(state, tmp_path):
    backup.backup(state, tmp_path / "copy")
    path = tmp_path / "copy/manifest.json"
    told = json.loads(path.read_text())
    told["files"][0]["path"] = "../outside.json"
    path.write_text(json.dumps(told))
    with pytest.raises(StorageError, match="outside the copy"):
        backup.restore(tmp_path / "copy", tmp_path / "again")


def test_a_damaged_outbox_does_not_take_the_place_of_a_good_copy(state, tmp_path):
    backup.backup(state, tmp_path / "copy")
    good = (tmp_path / "copy/outbox.sqlite").read_bytes()
    other = tmp_path / "other"
    (other / "lanes").mkdir(parents=True)
    (other / "outbox.sqlite").write_bytes(b"SQLite format 3\x00" + bytes(5000))
    with pytest.raises(StorageError, match=r"outbox\.sqlite"):
        backup.backup(other, tmp_path / "copy")
    assert (tmp_path / "copy/outbox.sqlite").read_bytes() == good


def test_the_commands(state, tmp_path):
    copy = tmp_path / "copy"
    assert json.loads(said("backup", "make", state, copy, "--json"))["files"] == 5
    assert "sound" in said("backup", "check", copy)
    assert "audit verify" in said("backup", "restore", copy, tmp_path / "again").replace("\n", " ")
    (copy / "lanes/north.json").write_text("{ }")
    assert json.loads(said("backup", "check", copy, "--json", code=1))["sound"] is False
    assert isinstance(said("backup", "make", tmp_path, copy, code="raises"), StorageError)
    with closing(sqlite3.connect(tmp_path / "again/outbox.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM scans").fetchone() == (3,)
