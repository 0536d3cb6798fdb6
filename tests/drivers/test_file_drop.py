"""The watched folder: whole files once, in order, moved only when stored; bad ones kept, explained and told."""

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from drivers import file_drop
from drivers.file_drop import Config
from scanner_io import driver as drivers
from scanner_io import sandbox
from scanner_io.errors import ConfigError, LinkLost
from scanner_io.formats.raster import RasterOptions, decode_raster
from scanner_io.model import Health, LineBlock, Rejected, ScanEnd, ScanStart
from scanner_io.sandbox import Task
from tests.contract import DriverContract, Rig, check_order
from triage.study.hostile_files import MISBEHAVE


def picture(seed=0, columns=600, rows=40):
    rng = np.random.default_rng(seed)
    image = rng.normal(58_000, 200, (rows, columns))
    image[rows // 4 :, columns // 8 : -columns // 8] *= 0.3
    return image.astype(np.uint16)


def png(seed=0, **size):
    return cv2.imencode(".png", picture(seed, **size))[1].tobytes()


PNG = png()


class FileDropRig(Rig):
    driver = "file_drop"
    expects = (ScanStart, LineBlock, ScanEnd)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0

    @property
    def config(self) -> Config:
        return Config(path=str(self.folder), stable_s=0.05, poll_s=0.02)

    def play(self) -> None:
        self.number += 1
        (self.folder / f"passage {self.number}.png").write_bytes(png(self.number))

    def break_link(self) -> None:
        self.folder.rename(self.folder.with_name("away"))

    def mend_link(self) -> None:
        self.folder.with_name("away").rename(self.folder)


class TestFileDrop(DriverContract):
    driver = "file_drop"

    @pytest.fixture
    def rig(self, tmp_path):
        folder = tmp_path / "lane 1"
        folder.mkdir()
        return FileDropRig(folder)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "drop"
    path.mkdir()
    return path


@pytest.fixture
def opened(folder):
    """Return a function that opens a driver on the folder; all are closed at the end."""
    made = []

    def build(**options):
        values = {"path": str(folder), "stable_s": 0.05, "poll_s": 0.02, "partial_after_s": 0.3} | options
        source = drivers.connect("file_drop", Config(**values))
        made.append(source)
        source.open()
        return source

    yield build
    for source in made:
        source.close()


def read_all(source, quiet_s=0.25, limit_s=20.0):
    """Read until nothing comes for `quiet_s`."""
    events = []
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        event = source.read(quiet_s)
        if event is None:
            return events
        events.append(event)
    pytest.fail(f"still events after {limit_s} s")


def starts(events):
    return [Path(e.source).name for e in events if isinstance(e, ScanStart)]


def rejections(events):
    return [e for e in events if isinstance(e, Rejected)]


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


# -- one file, one scan --------------------------------------------------------------------------------------------


def test_a_file_becomes_a_scan_in_blocks(folder, opened):
    (folder / "a b é.png").write_bytes(PNG)
    events = read_all(opened())
    check_order(events)
    start, *blocks, end = events
    assert start.source == str(folder / "a b é.png")
    assert len(start.source_sha256) == 64
    assert start.source_ref == f"a b é.png@{start.source_sha256[:16]}"
    assert [len(b.column_utc_ns) for b in blocks] == [256, 256, 88]
    assert np.array_equal(np.concatenate([b.counts[0] for b in blocks]), picture().T)
    assert end.reason == "complete"
    assert end.source_ref == start.source_ref
    assert start.utc_ns == (folder / "a b é.png").stat().st_mtime_ns
    assert "found air_bright" in start.detector.note


def test_moved_only_when_acknowledged(folder, opened):
    (folder / "a.png").write_bytes(PNG)
    source = opened()
    events = read_all(source)
    assert names(folder) == ["a.png", "done", "quarantine"]
    source.acknowledge(events[0].source_ref)
    assert names(folder) == ["done", "quarantine"]
    assert (folder / "done" / "a.png").read_bytes() == PNG
    source.acknowledge(events[0].source_ref)
    assert read_all(source) == []


def test_offered_once_until_restart(folder, opened):
    (folder / "a.png").write_bytes(PNG)
    source = opened()
    assert starts(read_all(source)) == ["a.png"]
    assert read_all(source) == []
    source.close()
    again = opened()
    events = read_all(again)
    assert starts(events) == ["a.png"]
    again.acknowledge(events[0].source_ref)
    assert names(folder / "done") == ["a.png"]


def test_an_acknowledgement_before_the_end_waits_for_the_end(folder, opened):
    (folder / "a.png").write_bytes(PNG)
    source = opened()
    while (start := source.read(0.5)) is None:
        pass
    source.acknowledge(start.source_ref)
    assert names(folder / "done") == []
    source.close()
    source.open()
    events = read_all(source)
    check_order(events)
    assert starts(events) == ["a.png"], "an interrupted scan is offered again"


def test_a_replaced_file_is_another_passage(folder, opened):
    (folder / "scan.png").write_bytes(png(1))
    source = opened()
    first = read_all(source)[0]
    (folder / "scan.png").write_bytes(png(2))
    source.acknowledge(first.source_ref)
    assert (folder / "scan.png").read_bytes() == png(2), "the new passage must not go to done unread"
    second = read_all(source)[0]
    assert second.source_ref != first.source_ref
    source.acknowledge(second.source_ref)
    assert (folder / "done" / "scan.png").read_bytes() == png(2)


def test_the_same_name_again_and_again_overwrites_nothing(folder, opened):
    source = opened()
    for seed in range(4):
        (folder / "scan.png").write_bytes(png(seed))
        events = read_all(source, quiet_s=0.15)
        source.acknowledge(events[0].source_ref)
    kept = {p.read_bytes() for p in (folder / "done").iterdir()}
    assert kept == {png(seed) for seed in range(4)}


def test_oldest_first_then_by_name(folder, opened):
    for name, mtime in (("c.png", 300), ("b.png", 100), ("a.png", 200), ("d.png", 200)):
        (folder / name).write_bytes(png(1, columns=20, rows=20))
        os.utime(folder / name, (mtime, mtime))
    assert starts(read_all(opened())) == ["b.png", "a.png", "d.png", "c.png"]


def test_what_does_not_count(folder, opened, tmp_path):
    for name in (".hidden.png", "~lock.png", "a.png.part", "b.png.tmp", "c.png~", "note.txt", "noending"):
        (folder / name).write_bytes(PNG)
    (folder / "sub.png").mkdir()
    (folder / "sub.png" / "in.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "YES.PNG").write_bytes(PNG)
    (folder / "yes.Jpeg").write_bytes(cv2.imencode(".jpg", (picture() >> 8).astype(np.uint8))[1].tobytes())
    events = read_all(opened())
    assert sorted(starts(events)) == ["YES.PNG", "yes.Jpeg"]
    assert rejections(events) == []


def test_patterns_and_raster_options_of_the_site(folder, opened):
    (folder / "XRAY-1.png").write_bytes(cv2.imencode(".png", 65535 - picture())[1].tobytes())
    (folder / "stamp-1.png").write_bytes(PNG)
    options = RasterOptions(polarity="air_dark", saturation_value=65535)
    events = read_all(opened(pattern=("xray*.PNG",), raster=options))
    assert starts(events) == ["XRAY-1.png"]
    blocks = [e for e in events if isinstance(e, LineBlock)]
    assert np.array_equal(blocks[0].counts[0], picture().T[:256])


def test_what_will_never_be_a_scan_is_told_once(folder, opened):
    (folder / "scan.bmp").write_bytes(b"BM")
    (folder / "sub").mkdir()
    (folder / "link.png").symlink_to(folder / "scan.bmp")
    (folder / "coming.png.part").write_bytes(b"")
    driver = opened()
    told = [e.text for e in read_all(driver) if isinstance(e, Health)]
    assert len(told) == 3 and all("passed over" in text for text in told)
    assert {text.split()[0] for text in told} == {"scan.bmp", "sub", "link.png"}
    assert [e for e in read_all(driver) if isinstance(e, Health)] == []


def test_a_scanner_s_own_radiation_records_stay_where_they_are(folder, opened):
    for name in ("T.Ntr", "T.RAD"):
        (folder / name).write_bytes(b"\1\2")
    (folder / "T.png").write_bytes(PNG)
    events = read_all(opened())
    told = [e.text for e in events if isinstance(e, Health)]
    assert starts(events) == ["T.png"] and len(told) == 2 and all("is not read" in text for text in told)
    assert (folder / "T.Ntr").is_file() and (folder / "T.RAD").is_file()


def test_names_passed_over_are_told_of_some_not_of_thousands(folder, opened):
    for number in range(100):
        (folder / f"{number}.bmp").write_bytes(b"BM")
    told = [e for e in read_all(opened()) if isinstance(e, Health)]
    assert len(told) == 20 and "more are not told" in told[-1].text


# -- times ---------------------------------------------------------------------------------------------------------


STAMP = (
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)T(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(\.(?P<fraction>\d+))?"
)


@pytest.mark.parametrize(
    ("name", "seconds", "words"),
    [
        ("L1_20260131T094501.png", 1_769_852_701.0, "from the file name"),
        ("L1_20260131T094501.25.png", 1_769_852_701.25, "from the file name"),
        ("L1_20261331T094501.png", 5.0, "the name tells none"),
        ("L1.png", 5.0, "the name tells none"),
    ],
)
def test_time_from_the_name(folder, opened, name, seconds, words):
    (folder / name).write_bytes(PNG)
    os.utime(folder / name, (5, 5))
    start = read_all(opened(from_name_time=STAMP))[0]
    assert start.utc_ns == round(seconds * 100) * 10_000_000
    assert words in start.detector.note


def test_local_times_in_names(folder, opened):
    (folder / "20260131T094501.png").write_bytes(PNG)
    start = read_all(opened(from_name_time=STAMP, name_utc_offset_h=-3.0))[0]
    assert start.utc_ns == 1_769_852_701_000_000_000 + 3 * 3_600_000_000_000


def test_a_part_of_the_time_that_a_name_leaves_out(folder, opened):
    (folder / "20260131T0945.png").write_bytes(PNG)
    os.utime(folder / "20260131T0945.png", (5, 5))
    (folder / "20260131T094502.png").write_bytes(PNG)
    form = STAMP.replace(r"(?P<second>\d\d)", r"(?P<second>\d\d)?")
    times = [e.utc_ns for e in read_all(opened(from_name_time=form)) if isinstance(e, ScanStart)]
    assert form != STAMP and times == [5 * 10**9, 1_769_852_702 * 10**9]


@pytest.mark.parametrize("name", ["99991231T235959.png", "00000101T000000.png"])
def test_times_that_do_not_fit(folder, opened, name):
    (folder / name).write_bytes(PNG)
    start = read_all(opened(from_name_time=STAMP))[0]
    assert abs(start.utc_ns - time.time_ns()) < 60e9


def test_a_file_from_the_future(folder, opened):
    (folder / "a.png").write_bytes(PNG)
    os.utime(folder / "a.png", (2**33, 2**33))
    assert read_all(opened())[0].utc_ns == 2**33 * 10**9


# -- whole and not whole -------------------------------------------------------------------------------------------


def test_a_file_that_grows_is_waited_for(folder, opened):
    source = opened(stable_s=0.2)
    path = folder / "slow.png"
    step = len(PNG) // 6
    for end in range(step, len(PNG), step):
        path.write_bytes(PNG[:end])
        assert source.read(0.1) is None
    path.write_bytes(PNG)
    events = read_all(source, quiet_s=0.6)
    assert starts(events) == ["slow.png"]
    assert rejections(events) == []


def test_a_stable_half_is_waited_for_and_then_given_up(folder, opened):
    source = opened(partial_after_s=0.6)
    (folder / "half.png").write_bytes(PNG[: len(PNG) // 2])
    assert source.read(0.3) is None, "it may still come"
    (event,) = read_all(source, quiet_s=1.0)
    assert isinstance(event, Rejected)
    assert "incomplete" in event.reason
    assert (folder / "quarantine" / "half.png").read_bytes() == PNG[: len(PNG) // 2]


def test_a_stable_half_that_is_completed_is_read(folder, opened):
    source = opened(partial_after_s=5.0)
    (folder / "half.png").write_bytes(PNG[: len(PNG) // 2])
    assert source.read(0.3) is None
    (folder / "half.png").write_bytes(PNG)
    assert starts(read_all(source)) == ["half.png"]


def test_a_file_that_never_stops_changing_is_told(folder, opened, monkeypatch):
    monkeypatch.setattr(file_drop, "GIVE_UP", 2)
    source = opened(stable_s=0.2, partial_after_s=0.2)
    events = []
    deadline_s = time.monotonic() + 5
    size = 0
    while not events and time.monotonic() < deadline_s:
        size += 1
        if (folder / "endless.png").exists() or size == 1:
            (folder / "endless.png").write_bytes(PNG[:size])
        event = source.read(0.03)
        events += [] if event is None else [event]
    assert "still changing" in events[0].reason


def test_a_copy_whose_size_is_set_first(folder, opened):
    source = opened(partial_after_s=5.0)
    with (folder / "smb.png").open("wb") as file:
        file.truncate(len(PNG))
    assert source.read(0.3) is None
    (folder / "smb.png").write_bytes(PNG)
    assert starts(read_all(source)) == ["smb.png"]


def test_written_while_it_is_read(folder, opened, monkeypatch):
    (folder / "a.png").write_bytes(png(1))
    real, changed = file_drop.os.fdopen, []

    def changing(handle, mode):
        if not changed:
            changed.append(True)
            time.sleep(0.01)
            (folder / "a.png").write_bytes(png(2))
        return real(handle, mode)

    monkeypatch.setattr(file_drop.os, "fdopen", changing)
    events = read_all(opened())
    assert starts(events) == ["a.png"]
    assert np.array_equal(events[1].counts[0], picture(2).T[:256])


def test_files_taken_away_between_listing_and_reading(folder, opened):
    source = opened()
    for i in range(20):
        (folder / f"{i:02}.png").write_bytes(png(1, columns=20, rows=20))
    first = None
    while first is None:
        first = source.read(0.1)
    for i in range(1, 20):
        (folder / f"{i:02}.png").unlink()
    events = [first, *read_all(source)]
    assert starts(events) == ["00.png"]
    assert rejections(events) == []


# -- bad files -----------------------------------------------------------------------------------------------------


BAD = {
    "text.png": b"this is no image",
    "flipped.png": PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:],
    "colour.png": cv2.imencode(".png", np.dstack([picture(), picture() // 2, picture()]))[1].tobytes(),
    "float.tif": cv2.imencode(".tif", picture().astype(np.float32))[1].tobytes(),
    "cut out.png": cv2.imencode(".png", np.random.default_rng(1).integers(9000, 30_000, (60, 90)).astype(np.uint16))[
        1
    ].tobytes(),
    "empty.jpg": b"",
    "zeros.tif": bytes(5000),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_kept_explained_and_told(folder, opened, name):
    (folder / name).write_bytes(BAD[name])
    (folder / "good.png").write_bytes(PNG)
    os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    source = opened()
    events = read_all(source, quiet_s=0.7)
    (rejected,) = rejections(events)
    assert starts(events) == ["good.png"], "one bad file must not stop the lane"
    assert rejected.source == str(folder / name)
    assert rejected.utc_ns == 1_700_000_000 * 10**9, "the time of the passage, to be joined with the portal's"
    kept = folder / "quarantine" / name
    assert kept.read_bytes() == BAD[name]
    assert str(kept) in rejected.reason
    text = (folder / "quarantine" / f"{name}.reason.txt").read_text()
    assert rejected.reason in text
    assert rejected.source_sha256 in text
    assert names(folder) == ["done", "good.png", "quarantine"]


def test_a_rejection_is_told_again_until_it_is_acknowledged(folder, opened):
    (folder / "text.png").write_bytes(b"no image")
    source = opened()
    (first,) = read_all(source)
    source.close()
    source = opened()
    (second,) = read_all(source)
    assert second == first
    source.close()
    source.open()
    assert read_all(source) == [], "within one run it is told once"
    source.acknowledge(first.source_ref)
    assert names(folder / "quarantine") == ["text.png", "text.png.reason.txt"]
    source.close()
    assert read_all(opened()) == []


def test_a_damaged_marker_is_told_too(folder, opened):
    (folder / "quarantine").mkdir()
    (folder / "quarantine" / "x.png.untold").write_bytes(b"{half")
    (event,) = read_all(opened())
    assert "cannot be read" in event.reason


def test_quarantine_overwrites_nothing(folder, opened):
    source = opened()
    for i in range(5):
        (folder / "a.png").write_bytes(b"bad %d" % i)
        assert len(read_all(source, quiet_s=0.15)) == 1
    kept = [p for p in (folder / "quarantine").iterdir() if p.suffix == ".png"]
    assert sorted(p.read_bytes() for p in kept) == [b"bad %d" % i for i in range(5)]
    assert all(p.with_name(p.name + ".reason.txt").exists() for p in kept)


@pytest.mark.parametrize("name", [b"\xe9\xff.png", b"line\nbreak\x1b[31m.png", b"x" * 251 + b".png"])
@pytest.mark.parametrize("contents", [PNG, b"no image"])
def test_strange_names(folder, opened, name, contents):
    (folder / os.fsdecode(name)).write_bytes(contents)
    source = opened()
    events = read_all(source)
    msgspec.json.encode([events[0].source, events[0].source_ref, getattr(events[0], "reason", "")])
    assert events[0].source.isprintable()
    assert events[0].source_ref.isprintable()
    source.acknowledge(events[0].source_ref)
    place = folder / ("done" if contents is PNG else "quarantine")
    assert contents in [p.read_bytes() for p in place.iterdir()]
    assert not (folder / os.fsdecode(name)).exists()


def test_a_defect_of_the_reader_rejects_one_file(folder, opened, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(file_drop.ForeignFiles, "raster", fail)
    (folder / "a.png").write_bytes(PNG)
    (event,) = read_all(opened())
    assert "ZeroDivisionError: a defect" in event.reason


def test_a_file_that_crashes_its_reader_is_put_away_and_the_next_is_read(folder, opened, monkeypatch):
    def crash_on(self, contents, *, name, **how):
        if contents == b"crash":
            return self.sandbox.run(MISBEHAVE, contents, name=name, ask="crash", answer=dict[str, str])
        return real(self, contents, name=name, **how)

    real = file_drop.ForeignFiles.raster
    monkeypatch.setattr(file_drop.ForeignFiles, "raster", crash_on)
    (folder / "a.png").write_bytes(b"crash")
    (folder / "b.png").write_bytes(PNG)
    events = read_all(opened(), quiet_s=1.0)
    (event,) = rejections(events)
    assert re.search(r"a\.png: its reader crashed \(SIGSEGV\).*kept as .*quarantine", event.reason)
    assert (folder / "quarantine" / "a.png").read_bytes() == b"crash"
    assert starts(events) == ["b.png"]


def test_a_sandbox_with_gaps_is_told_once_or_refused(folder, opened, monkeypatch, tmp_path):
    (tmp_path / "kernel_of_old.py").write_text(
        "from scanner_io.sandbox import confine\nconfine._landlock = lambda *_: 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(file_drop, "RASTER", Task(MISBEHAVE.module, MISBEHAVE.function, ("kernel_of_old",)))
    with pytest.raises(ConfigError, match="sandbox: required"):
        opened(sandbox="require")
    for number in range(2):
        (folder / f"{number}.png").write_bytes(png(number))
    events = read_all(opened(), quiet_s=1.0)
    (told,) = [e for e in events if isinstance(e, Health)]
    assert told.state == "degraded"
    assert "NO Landlock" in told.text
    assert len(starts(events)) == 2
    sandbox.end_put_by()


def test_a_file_that_kills_the_process_is_given_up(folder, opened):
    (folder / "a.png").write_bytes(PNG)
    code = (
        "import os, sys; from drivers import file_drop; file_drop.ForeignFiles.raster = lambda *a, **k: os._exit(7)\n"
        "d = file_drop.FileDrop(file_drop.Config(path=sys.argv[1], stable_s=0, poll_s=0.01)); d.open()\n"
        "while True: d.read(0.1)"
    )
    for _ in range(file_drop.ATTEMPTS):
        assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 7
    (event,) = read_all(opened())
    assert "ended the process 3 times" in event.reason
    assert (folder / "quarantine" / "a.png").read_bytes() == PNG


def test_killed_once_is_read_again(folder, opened):
    (folder / "quarantine").mkdir()
    (folder / "a.png").write_bytes(PNG)
    status = (folder / "a.png").stat()
    attempt = file_drop._Attempt("a.png", (status.st_size, status.st_mtime_ns, status.st_ino), 2)
    (folder / "quarantine" / file_drop.READING).write_bytes(msgspec.json.encode(attempt))
    assert starts(read_all(opened())) == ["a.png"]
    assert not (folder / "quarantine" / file_drop.READING).exists()


# -- folders that come, go and refuse ------------------------------------------------------------------------------


def test_missing_folder(tmp_path):
    source = file_drop.connect(Config(path=str(tmp_path / "absent")))
    with pytest.raises(LinkLost, match="cannot be reached"):
        source.open()
    assert not (tmp_path / "absent").exists(), "the folder of a lost share must not be made"


def test_a_file_in_place_of_a_folder(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected a folder"):
        file_drop.connect(Config(path=str(tmp_path / "file"))).open()
    (folder / "done").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        file_drop.connect(Config(path=str(folder))).open()


def test_folder_that_cannot_be_written(folder, monkeypatch):
    def refuse(path, _):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(file_drop, "_write", refuse)
    with pytest.raises(LinkLost, match=r"cannot be written to.*right to create"):
        file_drop.connect(Config(path=str(folder))).open()


def test_folder_goes_and_comes_back(folder, opened):
    (folder / "a.png").write_bytes(png(1))
    source = opened()
    events = read_all(source)
    folder.rename(folder.with_name("away"))
    with pytest.raises(LinkLost, match="check that the share is connected"):
        read_all(source)
    source.acknowledge(events[0].source_ref)  # the share is away: remembered
    source.close()
    with pytest.raises(LinkLost):
        source.open()
    folder.with_name("away").rename(folder)
    (folder / "b.png").write_bytes(png(2))
    source.open()
    assert starts(read_all(source)) == ["b.png"]
    assert names(folder / "done") == ["a.png"]


def test_empty_mount_point_of_a_lost_share(folder, opened):
    (folder / "share.id").write_text("")
    source = opened(must_contain="share.id")
    assert source.read(0.1) is None
    (folder / "share.id").unlink()
    with pytest.raises(LinkLost, match=r"share\.id"):
        read_all(source)


def test_another_file_system_in_the_same_place(opened, monkeypatch):
    source = opened()
    monkeypatch.setattr(source, "_device", source._device + 1)
    with pytest.raises(LinkLost, match="another file system"):
        read_all(source)


def test_done_that_refuses_is_told_once_and_tried_again(folder, opened, monkeypatch):
    (folder / "a.png").write_bytes(png(1))
    (folder / "b.png").write_bytes(png(2))
    source = opened()
    events = read_all(source)
    real = file_drop._file_away

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(file_drop, "_file_away", refuse)
    for event in events:
        source.acknowledge(event.source_ref)
    (told,) = read_all(source)
    assert isinstance(told, Health)
    assert told.state == "degraded"
    assert "Read-only" in told.text
    monkeypatch.setattr(file_drop, "_file_away", real)
    (told,) = read_all(source)
    assert told.state == "ok"
    for name, seed in (("a.png", 1), ("b.png", 2)):
        assert png(seed) in [p.read_bytes() for p in (folder / "done").iterdir() if p.name.startswith(name[0])]
    assert not list(folder.glob("*.png"))


def test_quarantine_that_refuses_is_told_all_the_same(folder, opened, monkeypatch):
    (folder / "bad.png").write_bytes(b"no image")

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(file_drop, "_move", refuse)
    source = opened()
    (event,) = read_all(source)
    assert "could not be put away" in event.reason
    assert read_all(source) == [], "once"
    assert (folder / "bad.png").exists()
    assert names(folder / "quarantine") in ([], ["bad.png"])


def test_folders_tidied_away_while_running(folder, opened):
    source = opened()
    shutil.rmtree(folder / "done")
    shutil.rmtree(folder / "quarantine")
    (folder / "a.png").write_bytes(PNG)
    (folder / "bad.png").write_bytes(b"no image")
    events = read_all(source)
    source.acknowledge(next(e for e in events if isinstance(e, ScanStart)).source_ref)
    assert names(folder / "done") == ["a.png"]
    assert "bad.png" in names(folder / "quarantine")


def across(call):
    """As if every folder were on a file system of its own."""
    return "EXDEV" if call.name in ("rename", "link") and call.path.parent != call.target.parent else None


def test_done_on_another_file_system_is_a_durable_copy(folder, opened, faulty_disk, tmp_path):
    faulty_disk(across)
    (folder / "a.png").write_bytes(PNG)
    os.utime(folder / "a.png", (1_700_000_000, 1_700_000_000))
    source = opened(done_dir=str(tmp_path / "elsewhere"))
    source.acknowledge(read_all(source)[0].source_ref)
    assert names(tmp_path / "elsewhere") == ["a.png"]
    assert (tmp_path / "elsewhere" / "a.png").read_bytes() == PNG
    assert (tmp_path / "elsewhere" / "a.png").stat().st_mtime == 1_700_000_000
    assert not (folder / "a.png").exists()


@pytest.mark.parametrize("failing", ["write", "sync", "unlink"])
def test_a_copy_that_fails_loses_nothing_and_leaves_nothing(folder, tmp_path, faulty_disk, failing):
    source, place = folder / "a.png", tmp_path / "elsewhere"
    source.write_bytes(PNG)
    place.mkdir()
    refused = {"write": "ENOSPC", "sync": "EIO", "unlink": "EACCES"}

    def fault(call):
        if call.name == failing and (failing != "unlink" or call.path == source):
            return refused[failing]
        return across(call)

    faulty_disk(fault)
    with pytest.raises(OSError, match=r"No space|Input/output|Permission"):
        file_drop._move(source, file_drop._reserve(place, "a.png"))
    assert source.read_bytes() == PNG
    assert names(place) == []


# -- configuration, time, numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": ""}, "three different folders"),
        ({"path": "a", "done_dir": "x", "quarantine_dir": "x"}, "three different folders"),
        ({"path": "a", "done_dir": "."}, "three different folders"),
        ({"path": "a", "pattern": ()}, "pattern: empty"),
        ({"path": "a", "from_name_time": "("}, "not a regular expression"),
        ({"path": "a", "from_name_time": r"(?P<year>\d+)"}, "no group month"),
    ],
)
def test_configurations_that_cannot_work(options, words):
    with pytest.raises(ValueError, match=words):
        Config(**options)


def test_pace_spaces_scans(folder, opened):
    for i in range(3):
        (folder / f"{i}.png").write_bytes(png(i, columns=20, rows=20))
    began_s = time.monotonic()
    assert len(starts(read_all(opened(pace_s=0.3), quiet_s=0.5))) == 3
    assert time.monotonic() - began_s > 0.6


def test_close_from_another_thread_is_noticed_between_events(folder, opened):
    (folder / "a.png").write_bytes(PNG)
    source = opened()
    while source.read(0.5) is None:
        pass
    thread = threading.Thread(target=source.close)
    thread.start()
    thread.join()
    with pytest.raises(LinkLost, match="not open"):
        source.read(0.1)


def test_thousands_of_files_at_once(folder, opened, monkeypatch, request):
    # of the folder, not of the sandbox, whose processes take 8 ms a file
    monkeypatch.setattr(file_drop.ForeignFiles, "raster", lambda self, contents, **how: decode_raster(contents, **how))
    small = png(1, columns=3, rows=3)
    bad = b"no image"
    count = 10_000 if request.config.getoption("--soak") else 2_000  # ten thousand take 10 s
    for i in range(count):
        (folder / f"{i:05}.png").write_bytes(small if i % 100 else bad)
    source = opened(raster=RasterOptions(polarity="air_bright"), partial_after_s=60.0)
    began_s = time.monotonic()
    longest_s, seen, told = 0.0, [], 0
    while len(seen) + told < count:
        before_s = time.monotonic()
        event = source.read(0.05)
        longest_s = max(longest_s, time.monotonic() - before_s)
        if isinstance(event, ScanEnd):
            seen.append(event.source_ref)
            source.acknowledge(event.source_ref)
        told += isinstance(event, Rejected)
        assert time.monotonic() - began_s < 50, f"{len(seen)} scans in 50 s"
    assert told == count // 100
    assert seen == sorted(seen)
    assert longest_s < 1.0
    assert len(names(folder / "done")) == count - told


def test_real_images(folder, opened, shared_data):
    for path in sorted((shared_data / "cargo").glob("truck_0*.jpg")):
        shutil.copyfile(path, folder / path.name)
    events = read_all(opened(), quiet_s=0.5)
    check_order(events)
    assert len(starts(events)) == 6
    assert rejections(events) == []


def test_a_kill_while_a_file_is_filed_away_leaves_one_name(tmp_path):
    from drivers.file_drop import _file_away

    source, done = tmp_path / "a.png", tmp_path / "done"
    done.mkdir()
    source.write_bytes(b"scan")
    (done / "a.png").hardlink_to(source)  # killed between the two steps
    _file_away(source, done, "a.png")
    assert [p.name for p in done.iterdir()] == ["a.png"]
    assert not source.exists()
    source.write_bytes(b"another scan of the same name")
    _file_away(source, done, "a.png")
    assert sorted(p.read_bytes() for p in done.iterdir()) == [b"another scan of the same name", b"scan"]
