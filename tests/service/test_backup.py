"""`scanlane backup`: a second copy of a state, and a service that goes on from it."""

import hashlib
import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from scanner_io import disk, recording
from scanner_io.config import Retention
from scanner_io.errors import DataError, StorageError
from tests import samples
from tests.service.risk_rig import said
from tests.service.test_outbox import decision
from triage.service import audit, backup, keeping, retention, store
from triage.service.outbox import Outbox, ScanRow
from triage.torture import faults


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


def crash(state, copy, number):
    """Back up in a process that ends within its n-th call on the disk; what it was about to write is there by half."""
    child = os.fork()
    if not child:
        try:
            disk.use(faults.FaultyDisk(lambda call: faults.CRASH if call.number == number else None))
            backup.backup(state, copy)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == faults.CRASHED


def scans(folder):
    """Return how many scans a state tells of; each has its recording there, as it was recorded."""
    with closing(sqlite3.connect(folder / "outbox.sqlite")) as database:
        rows = database.execute("SELECT path, sha256 FROM scans WHERE kept='whole'").fetchall()
    for path, sha256 in rows:
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == sha256
    return len(rows)


def restored(copy, folder):
    """Check a copy, make a state of it, and return its scans and what its lane remembers."""
    assert backup.check(copy) == []
    backup.restore(copy, folder)
    return scans(folder), (folder / "lanes/north.json").read_text()


def second_night(state):
    filled(state, count=2, first=3).close()
    (state / "lanes/north.json").write_text('{"night": 2}')


def names(copy):
    return {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}


def test_a_disk_that_fills_in_the_second_night_leaves_the_first_one_whole(state, tmp_path, faulty_disk):
    copy = tmp_path / "copy"
    backup.backup(state, copy)
    second_night(state)
    before = disk.io()
    faulty_disk(lambda call: "ENOSPC" if call.name == "pwrite" and "-00000004" in call.path.name else None)
    with pytest.raises(StorageError, match="free space"):
        backup.backup(state, copy)
    disk.use(before)
    assert any("-00000003" in name for name in names(copy))  # the first recording of that night is there
    assert restored(copy, tmp_path / "again") == (3, "{}")
    assert "sound" in said("backup", "check", copy)
    made = backup.backup(state, copy)
    assert (made.files, made.copied) == (7, 3)  # of the recordings only the one that found no room
    assert restored(copy, tmp_path / "and again") == (5, '{"night": 2}')
    assert not [name for name in names(copy) if name.endswith((".new", ".part"))]


def test_at_every_moment_of_a_crash_the_copy_is_the_old_one_or_the_new_one(state, tmp_path, faulty_disk):
    before = disk.io()
    first = tmp_path / "first"
    backup.backup(state, first)
    second_night(state)
    shutil.copytree(first, tmp_path / "counted")
    counted = faulty_disk(lambda call: None)
    backup.backup(state, tmp_path / "counted")
    disk.use(before)
    calls = [c.name for c in counted.calls]
    assert calls.count("rename") == 7  # each of outbox, lane's memory: two; two recordings; the manifest
    nights = []
    for last in range(1, len(calls) + 1):
        copy, again = tmp_path / f"copy {last}", tmp_path / f"again {last}"
        shutil.copytree(first, copy)
        crash(state, copy, last)
        found = restored(copy, again)
        assert found in ((3, "{}"), (5, '{"night": 2}')), calls[last - 1]
        nights.append(found[0])
        # the run that goes on is cut short as well, just before its manifest
        faulty_disk(lambda call: "EIO" if call.name == "rename" and call.path.name.startswith("manifest") else None)
        with pytest.raises(StorageError, match=r"manifest\.json"):
            backup.backup(state, copy)
        disk.use(before)
        assert restored(copy, tmp_path / f"still {last}") == found, calls[last - 1]
        assert backup.backup(state, copy).problems == ()
        assert restored(copy, tmp_path / f"whole {last}") == (5, '{"night": 2}'), calls[last - 1]
        assert names(copy) >= names(tmp_path / "counted")
        assert not [name for name in names(copy) if name.endswith(".new")]
        for folder in (copy, again, tmp_path / f"still {last}", tmp_path / f"whole {last}"):
            shutil.rmtree(folder)
    assert nights == sorted(nights) and set(nights) == {3, 5}  # it becomes the new one at one moment


def test_what_was_written_and_not_named_is_named_by_the_next_run(state, tmp_path, faulty_disk):
    copy, before = tmp_path / "copy", disk.io()
    backup.backup(state, copy)
    second_night(state)
    faulty_disk(lambda call: "EIO" if call.name == "rename" and call.target == copy / "lanes/north.json" else None)
    with pytest.raises(StorageError, match="whole all the same"):
        backup.backup(state, copy)
    disk.use(before)
    assert {"lanes/north.json", "lanes/north.json.new", "outbox.sqlite.new"} <= names(copy)
    assert restored(copy, tmp_path / "again") == (5, '{"night": 2}')
    (state / "lanes/north.json").write_text('{"night": 3}')
    faulty_disk(lambda call: "EIO" if call.name == "rename" and call.path.name.startswith("manifest") else None)
    with pytest.raises(StorageError, match=r"manifest\.json"):
        backup.backup(state, copy)
    disk.use(before)
    assert restored(copy, tmp_path / "still the second") == (5, '{"night": 2}')
    backup.backup(state, copy)
    assert restored(copy, tmp_path / "third") == (5, '{"night": 3}')
    (copy / "lanes/north.json").write_text("{}")  # what is under neither name is told as before
    assert len(backup.check(copy)) == 1


def test_a_first_copy_that_was_cut_short_is_gone_on_with(state, tmp_path, faulty_disk):
    copy, before = tmp_path / "copy", disk.io()
    faulty_disk(lambda call: "ENOSPC" if call.name == "pwrite" and "-00000002" in call.path.name else None)
    with pytest.raises(StorageError, match="free space"):
        backup.backup(state, copy)
    disk.use(before)
    with pytest.raises(StorageError, match="no whole copy"):
        backup.check(copy)
    one, two = sorted((copy / "recordings/north").iterdir())
    kept = one.stat().st_ino
    contents = bytearray(two.read_bytes())
    contents[-1] ^= 1
    two.write_bytes(contents)  # as long as it was, and not what was recorded
    made = backup.backup(state, copy)
    assert (made.files, made.copied, made.problems) == (5, 4, ())
    assert one.stat().st_ino == kept
    assert restored(copy, tmp_path / "again") == (3, "{}")


def test_a_recording_that_changed_under_its_name_does_not_take_the_old_ones_place_too_early(
    state, tmp_path, faulty_disk
):  # fmt: skip
    copy, before = tmp_path / "copy", disk.io()
    backup.backup(state, copy)
    path = sorted((state / "recordings/north").iterdir())[0]
    path.write_bytes(b"another one")
    with closing(sqlite3.connect(state / "outbox.sqlite")) as database, database:
        changed = (hashlib.sha256(b"another one").hexdigest(), 11, str(path))
        database.execute("UPDATE scans SET sha256=?, size=? WHERE path=?", changed)
    faulty_disk(lambda call: "EIO" if call.name == "rename" and call.path.name.startswith("manifest") else None)
    with pytest.raises(StorageError, match=r"manifest\.json"):
        backup.backup(state, copy)
    disk.use(before)
    assert restored(copy, tmp_path / "again") == (3, "{}")
    assert b"another one" not in {p.read_bytes() for p in (tmp_path / "again/recordings/north").iterdir()}
    made = backup.backup(state, copy)
    assert made.copied == 2
    assert restored(copy, tmp_path / "new") == (3, "{}")
    assert (copy / "recordings/north" / path.name).read_bytes() == b"another one"


def test_a_copy_of_the_version_before_is_checked_restored_and_gone_on_with(state, tmp_path):
    copy = tmp_path / "copy"
    backup.backup(state, copy)
    told = json.loads((copy / "manifest.json").read_text())
    assert set(told) == {"software", "made_utc_ns", "state_dir", "files"}
    assert all(set(entry) == {"path", "size", "sha256"} for entry in told["files"])
    assert {entry["path"] for entry in told["files"]} | {"manifest.json"} == names(copy)
    # it renamed its outbox over the old one at once, and was cut short: recordings and the outbox are newer
    second_night(state)
    with (
        closing(sqlite3.connect(state / "outbox.sqlite")) as one,
        closing(sqlite3.connect(copy / "outbox.sqlite")) as two,
    ):
        one.backup(two)
    new = sorted((state / "recordings/north").iterdir())[3]
    shutil.copy(new, copy / "recordings/north")
    assert len(backup.check(copy)) == 1
    made = backup.backup(state, copy)
    assert (made.files, made.copied) == (7, 3)
    assert restored(copy, tmp_path / "again") == (5, '{"night": 2}')


@pytest.fixture
def box(state):
    box = Outbox(state / "outbox.sqlite")
    yield box
    box.close()


def let_go(state, box, number, upto="deleted"):
    """Let the policy delete a recording on which a person has decided; return its path."""
    path = sorted((state / "recordings/north").glob("*.scan.h5"))[number]
    scan_id = path.name.removesuffix(".scan.h5")
    box.decide(decision(box.lease(scan_id, "ana", 10), decision_id=f"d{scan_id}"))
    policy, later = Retention(inspect_days=1, result_days=1), time.time_ns() + 2 * retention.DAY_NS
    (one,) = [c for c in retention.candidates(box, policy, later) if c.scan_id == scan_id]
    assert retention.delete(box, one, state / "recordings", "olga")
    if upto == "erased":
        (rest,) = [e for e in retention.erasable(box, policy, later) if e.scan_id == scan_id]
        assert retention.erase(box, rest, "olga")
    return path


@pytest.mark.parametrize("upto", ["deleted", "erased"])
def test_what_the_policy_deleted_is_removed_from_the_copy_and_nothing_else(state, box, tmp_path, upto):
    copy = tmp_path / "copy"
    assert backup.backup(state, copy).removed == 0
    beside = copy / "recordings/north/of-another-hand.scan.h5"
    beside.write_bytes(b"no row tells of it")
    gone = let_go(state, box, 0, upto)
    lost = sorted((state / "recordings/north").iterdir())[0]
    lost.unlink()  # not by the policy: that is what a backup is for
    made = backup.backup(state, copy)
    assert (made.removed, made.problems) == (1, ())
    left = {p.name for p in (copy / "recordings/north").iterdir()}
    assert gone.name not in left and len(left) == 3 and {lost.name, beside.name} < left
    assert restored(copy, tmp_path / "again")[0] == 2
    assert backup.backup(state, copy).removed == 0


def test_what_the_policy_deletes_only_now_stays(state, box, tmp_path):
    copy = tmp_path / "copy"
    backup.backup(state, copy)
    box.store.change("UPDATE scans SET kept='deleting'", ())
    made = backup.backup(state, copy)
    assert (made.files, made.removed) == (2, 0)
    assert len(list((copy / "recordings/north").iterdir())) == 3
    box.store.change("UPDATE scans SET kept='whole'", ())  # it could not be deleted
    made = backup.backup(state, copy)
    assert (made.files, made.copied) == (5, 2)  # taken for what they are, by their hash


def test_nothing_is_removed_before_the_manifest_and_what_was_left_goes_the_next_time(
    state, box, tmp_path, faulty_disk
):  # fmt: skip
    copy, before = tmp_path / "copy", disk.io()
    backup.backup(state, copy)
    gone = copy / let_go(state, box, 1).relative_to(state)
    faulty_disk(lambda call: "EIO" if call.name == "rename" and call.path.name.startswith("manifest") else None)
    with pytest.raises(StorageError, match=r"manifest\.json"):
        backup.backup(state, copy)
    assert gone.exists() and restored(copy, tmp_path / "again")[0] == 3
    faulty_disk(lambda call: "EROFS" if call.name == "unlink" and call.path == gone else None)
    made = backup.backup(state, copy)
    assert made.removed == 0 and len(made.problems) == 1
    assert str(gone) in made.problems[0] and "the next backup tries again" in made.problems[0]
    disk.use(before)
    assert gone.exists() and restored(copy, tmp_path / "and again")[0] == 2
    made = backup.backup(state, copy)
    assert (made.removed, made.problems) == (1, ()) and not gone.exists()


@pytest.mark.parametrize("where", ["../outside.scan.h5", "/outside.scan.h5"])
def test_a_row_that_names_a_place_elsewhere_removes_nothing_there(state, box, tmp_path, where):
    copy = tmp_path / "copy"
    backup.backup(state, copy)
    outside = [copy / "outside.scan.h5", tmp_path / "outside.scan.h5", state / "outside.scan.h5"]
    for one in outside:
        one.write_bytes(b"")
    path = f"{state}/recordings/{where}" if where.startswith(".") else f"{tmp_path}{where}"
    box.store.change("UPDATE scans SET kept='deleted', path=? WHERE scan_id LIKE '%-00000000'", (path,))
    assert backup.backup(state, copy).removed == 0
    assert all(one.exists() for one in outside)


def test_how_many_were_removed_is_told_in_words_and_in_json(state, box, tmp_path):
    copy = tmp_path / "copy"
    assert "removed" not in said("backup", "make", state, copy)
    let_go(state, box, 0)
    assert "1 recordings removed that retention had deleted" in said("backup", "make", state, copy).replace("\n", " ")
    let_go(state, box, 0)
    let_go(state, box, 0)
    assert json.loads(said("backup", "make", state, copy, "--json"))["removed"] == 2
