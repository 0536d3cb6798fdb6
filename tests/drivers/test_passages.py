"""The watched folder of passages: sidecar and files of one vehicle together, complete or said to be partial, once."""

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from drivers.file_drop import Config
from drivers.file_drop.joined import JOURNAL
from drivers.file_drop.passages import Book, Seen, Sheet
from scanner_io import driver as drivers
from scanner_io.formats.sidecar import parse_sidecar
from scanner_io.model import Health, LineBlock, Rejected, ScanEnd, ScanStart
from tests.contract import DriverContract, Rig, check_order
from tests.drivers.test_file_drop import names, picture, png, read_all

T = "202511070026910018"


def jpeg(seed=0, **size):
    return cv2.imencode(".jpg", (picture(seed, **size) >> 8).astype(np.uint8))[1].tobytes()


def form(scan_id=T, files=(), revision=6, inside="", start="2025-11-07T06:19:23Z", end="2025-11-07T06:19:58Z"):
    """Return a Smiths form that lists `files`."""
    listed = "".join(f'<Resource Type="img" IsDeleted="false">{name}</Resource>' for name in files)
    return (
        f"<DataForm><Version>V01.07</Version><TruckId>{scan_id}</TruckId><Site>002691</Site>"
        f"<Date>2025-11-07T06:19:24Z</Date><AdminData><Vehicle><Trailers><Trailer><Containers><Container>"
        f"<ContainerId>CRXU8691490</ContainerId><OCR>97</OCR></Container></Containers></Trailer></Trailers></Vehicle>"
        f'</AdminData>{inside}<Operations><Operation Type="1"><Start>{start}</Start><End>{end}</End>'
        f'<Verdict Value="2">2</Verdict><Resources>{listed}</Resources></Operation></Operations>'
        f"<UpdateCount>{revision}</UpdateCount></DataForm>"
    ).encode("utf-16")


class PassageRig(Rig):
    driver = "file_drop"
    expects = (ScanStart, LineBlock, ScanEnd)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0

    @property
    def config(self) -> Config:
        return Config(path=str(self.folder), stable_s=0.05, poll_s=0.02, passages="sidecars", passage_wait_s=5.0)

    def play(self) -> None:
        self.number += 1
        scan_id = f"20251107002691{self.number:04}"
        (self.folder / f"{scan_id}S.png").write_bytes(png(self.number))
        (self.folder / f"{scan_id}.xml").write_bytes(form(scan_id, [f"{scan_id}S.png"]))

    def break_link(self) -> None:
        self.folder.rename(self.folder.with_name("away"))

    def mend_link(self) -> None:
        self.folder.with_name("away").rename(self.folder)


class TestPassageDrop(DriverContract):
    driver = "file_drop"

    @pytest.fixture
    def rig(self, tmp_path):
        folder = tmp_path / "lane 1"
        folder.mkdir()
        return PassageRig(folder)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "drop"
    path.mkdir()
    return path


@pytest.fixture
def opened(folder):
    made = []

    def build(**options):
        values = {
            "path": str(folder), "stable_s": 0.05, "poll_s": 0.02, "partial_after_s": 0.3, "passages": "sidecars",
            "passage_wait_s": 0.4,
        } | options  # fmt: skip
        source = drivers.connect("file_drop", Config(**values))
        made.append(source)
        source.open()
        return source

    yield build
    for source in made:
        source.close()


def events_of(source, quiet_s=0.6):
    """Return (ScanStart or Rejected of every passage, Health texts), all acknowledged."""
    events = read_all(source, quiet_s=quiet_s)
    check_order(e for e in events if not isinstance(e, Rejected))
    passages = [e for e in events if isinstance(e, ScanStart | Rejected)]
    for event in passages:
        source.acknowledge(event.source_ref)
    return passages, [e.text for e in events if isinstance(e, Health)]


def codes(event):
    return [q.code for q in event.quality]


FILES = [f"{T}S.jpg", f"{T}S_stamp.jpg", f"{T}S.Img", f"{T}.Ntr"]


def drop_all(folder, *, without=(), **changes):
    for name in FILES:
        if name not in without:
            (folder / name).write_bytes(jpeg(len(name)) if name.endswith(".jpg") else b"counts of " + name.encode())
    (folder / f"{T}.xml").write_bytes(form(files=FILES, **changes))


def test_a_passage_has_its_facts_and_files(folder, opened):
    drop_all(folder)
    (told,), health = events_of(opened())
    assert isinstance(told, ScanStart) and codes(told) == [] and health == []
    assert told.sidecar.scan_id == T and told.sidecar.containers[0].confidence == 97
    assert told.utc_ns == 1762496363 * 10**9, "the beam's start by the sidecar"
    assert told.source.endswith(FILES[0]), "the large image, not its preview"
    kept = {a.name: a for a in told.attachments}
    assert set(kept) == set(FILES[1:]) and kept[f"{T}.Ntr"].contents == b"counts of " + f"{T}.Ntr".encode()
    assert kept[f"{T}S.Img"].contents == b"" and len(kept[f"{T}S.Img"].sha256) == 64
    assert names(folder) == ["done", "quarantine"]
    assert names(folder / "done") == sorted([JOURNAL, *FILES, f"{T}.xml"])


def test_nothing_is_read_early_and_what_is_missing_is_named(folder, opened):
    source = opened(passage_wait_s=0.8)
    drop_all(folder, without=FILES[1:2])
    assert source.read(0.5) is None, "the preview may still come"
    (told,), _ = events_of(source, 1.0)
    (flag,) = told.quality
    assert flag.code == "passage_partial" and "1 of 4" in flag.reason and FILES[1] in flag.reason
    (folder / FILES[1]).write_bytes(jpeg(1))
    passages, (text,) = events_of(source)
    assert passages == [] and "given before" in text and FILES[1] in names(folder / "done")


def test_a_site_waits_for_what_it_needs_only(folder, opened):
    drop_all(folder, without=FILES[2:])
    (told,), _ = events_of(opened(needed_roles=("radiograph", "preview"), passage_wait_s=60.0))
    assert codes(told) == []


def test_no_image_is_unusable_with_its_facts_and_the_late_image_is_a_scan(folder, opened):
    drop_all(folder, without=FILES[:1])
    source = opened()
    (told,), _ = events_of(source, 1.0)
    assert isinstance(told, Rejected) and f"missing {FILES[0]} (radiograph)" in told.reason
    assert told.sidecar.containers[0].text == "CRXU8691490" and "passage_partial" in codes(told)
    source.close()
    (folder / FILES[0]).write_bytes(jpeg(1))
    (late,), _ = events_of(opened())  # another process: it learns from `done`
    assert isinstance(late, ScanStart) and codes(late) == ["passage_given_before"] and late.sidecar.scan_id == T


def test_a_sidecar_that_is_rewritten_before_and_after(folder, opened):
    (folder / f"{T}.xml").write_bytes(form(files=FILES[:1], revision=1))
    source = opened(passage_wait_s=5.0)
    assert source.read(0.3) is None
    (folder / f"{T}.xml").write_bytes(form(files=FILES[:2], revision=2))
    (folder / FILES[0]).write_bytes(jpeg(1))
    assert source.read(0.3) is None, "the newer revision lists more"
    (folder / FILES[1]).write_bytes(jpeg(2))
    (told,), _ = events_of(source)
    assert told.sidecar.revision == 2 and codes(told) == []
    decided = '<Operations><Operation Type="3"><Verdict Value="0">0</Verdict></Operation></Operations>'
    (folder / f"{T}.xml").write_bytes(form(files=FILES[:2], revision=7, inside=decided))
    passages, (text,) = events_of(source)
    assert passages == [] and "now image analysis: cleared" in text
    assert len([n for n in names(folder / "done") if n.endswith(".xml")]) == 2


def test_copies_are_known_by_content_also_after_a_restart(folder, opened):
    drop_all(folder)
    source = opened()
    assert len(events_of(source)[0]) == 1
    drop_all(folder)
    (folder / "copy of it.jpg").write_bytes(jpeg(len(FILES[0])))
    passages, health = events_of(source, 1.0)
    assert passages == [] and any("same content as scan" in text for text in health)
    source.close()
    (folder / FILES[0]).write_bytes(jpeg(99))
    source = opened()
    (again,), _ = events_of(source)
    assert codes(again) == ["passage_given_before"], "another image of a scan that was given is looked at"


def test_an_interrupted_passage_is_offered_again_whole(folder, opened):
    drop_all(folder)
    source = opened()
    while (start := source.read(0.5)) is None:
        pass
    source.close()
    source.open()
    (again,), _ = events_of(source)
    assert again.source_ref == start.source_ref and codes(again) == []


def test_energies_become_one_scan(folder, opened):
    for name, seed in (("T1_low.png", 1), ("T1_high.png", 2), ("T2_low.png", 3), ("lone.png", 4)):
        (folder / name).write_bytes(png(seed))
    energies = {"low": "*_low.png", "high": "*_HIGH.*"}
    source = opened(passages="names", energies=energies)
    events = read_all(source, quiet_s=0.7)
    starts = {Path(e.source).name: e for e in events if isinstance(e, ScanStart)}
    both = starts["T1_high.png"]
    assert both.detector.energies == ("low", "high") and codes(both) == []
    blocks = [e for e in events if isinstance(e, LineBlock) and e.source_ref == both.source_ref]
    assert np.array_equal(np.concatenate([b.counts[0] for b in blocks]), picture(1).T)
    assert np.array_equal(np.concatenate([b.counts[1] for b in blocks]), picture(2).T)
    assert codes(starts["T2_low.png"]) == ["passage_partial"] and codes(starts["lone.png"]) == []


def test_energies_of_different_size_are_not_bent_to_fit(folder, opened):
    (folder / "a_low.png").write_bytes(png(1, columns=500))
    (folder / "a_high.png").write_bytes(png(2))
    (told,), _ = events_of(opened(passages="names", energies={"low": "*_low.png", "high": "*_high.png"}))
    assert codes(told) == ["energies_differ"] and told.detector.energies == ("high",)


def test_what_a_sidecar_can_be_wrong_about(folder, opened):
    other = "202511070026910019"
    inside = "<InTraining>1</InTraining>"
    (folder / f"{T}.xml").write_bytes(
        form(files=[f"{other}S.jpg"], start="2025-11-07T06:19:23Z", end="2025-11-07T06:19:20Z", inside=inside)
    )
    (folder / f"{other}S.jpg").write_bytes(jpeg(1))
    (told,), _ = events_of(opened())
    assert codes(told) == ["scan_ends_before_it_began", "image_of_another_scan", "vendor_training"]


def test_the_same_image_under_another_number(folder, opened):
    source = opened()
    for scan_id in (T, "202511070026910019"):
        (folder / f"{scan_id}S.jpg").write_bytes(jpeg(1))
        (folder / f"{scan_id}.xml").write_bytes(form(scan_id, [f"{scan_id}S.jpg"]))
        (told,), _ = events_of(source)
    assert codes(told) == ["image_of_another_scan"] and T in told.quality[0].reason


def test_half_files(folder, opened):
    """A half-written form is waited for and then put away; a half image is, and its passage says so."""
    source = opened(passage_wait_s=0.8)
    drop_all(folder)
    whole = (folder / f"{T}.xml").read_bytes()
    (folder / f"{T}.xml").write_bytes(whole[:1000])
    assert source.read(0.2) is None
    (folder / f"{T}.xml").write_bytes(whole)
    (folder / FILES[0]).write_bytes(jpeg(len(FILES[0]))[:3000])
    assert source.read(0.4) is None
    (told,), _ = events_of(source, 1.5)
    assert isinstance(told, Rejected) and "incomplete after 0.8 s" in told.reason
    assert FILES[0] in names(folder / "quarantine") and f"{FILES[0]}.reason.txt" in names(folder / "quarantine")
    (folder / "x.xml").write_bytes(whole[:1000])
    (told,), _ = events_of(source, 1.0)
    assert "half written" in told.reason and "x.xml" in names(folder / "quarantine")


def test_an_image_without_a_sidecar_is_judged_and_said_to_be(folder, opened):
    (folder / "é à.png").write_bytes(png(1))
    (folder / "front_snap.jpg").write_bytes(jpeg(2))
    (folder / "raw.img").write_bytes(b"raw")
    passages, health = events_of(opened(), 1.0)
    assert [codes(p) for p in passages] == [["sidecar_missing"]]
    assert [t.split()[0] for t in health] == ["raw.img"]
    assert "front_snap.jpg" in names(folder), "a picture of the outside is no radiograph"


def test_two_clocks_of_a_site_are_told_once(folder, opened):
    source = opened()
    for number in range(2):
        scan_id = f"20251107002691002{number}"
        (folder / f"{scan_id}S.jpg").write_bytes(jpeg(number))
        late = form(scan_id, [f"{scan_id}S.jpg"], start="2025-11-07T07:19:23Z", end="2025-11-07T07:19:58Z")
        (folder / f"{scan_id}.xml").write_bytes(late)
    passages, (text,) = events_of(opened(clock_ahead_s=3600.0), 0.8)
    assert "two clocks" in text and "+3599 s" in text
    assert {p.utc_ns for p in passages} == {1762496363 * 10**9}, "the offset of the site is taken off"
    source.close()


def test_ten_thousand_files_are_sorted_into_passages_in_little_time():
    seen, book = {}, Book(lambda name: True, {}, (), 60.0)
    blank = msgspec.structs.replace(parse_sidecar(form()), resources=())
    for number in range(1000):
        scan_id = f"2025110700{number:08}"
        listed = parse_sidecar(form(scan_id, [f"{scan_id}_{i}.jpg" for i in range(9)]))
        told = listed if number % 10 else msgspec.structs.replace(blank, scan_id=scan_id)
        for name in [f"{scan_id}.xml", *(f"{scan_id}_{i}.JPG" for i in range(9))]:
            seen[name] = Seen((1, 1, 1), 0.0, 0.0, settled=True)
        book.sheets[f"{scan_id}.xml"] = Sheet((1, 1, 1), told, "")
    began_s = time.process_time()
    due = list(book.ready(seen, 1.0, waiting=False))
    assert time.process_time() - began_s < 5.0
    assert len(due) == 1000 and all(len(p.there) == 9 and not p.missing for p in due)


COPY = """
import random, sys, time
from pathlib import Path
source, target, seed, slow_s = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
random.seed(seed)
waiting = {p.name: p.read_bytes() for p in sorted(source.iterdir())}
open_files = {}
while waiting or open_files:
    if waiting and (len(open_files) < 4):
        name = random.choice(sorted(waiting))
        open_files[name] = [(target / name).open("wb"), waiting.pop(name)]
    name = random.choice(sorted(open_files))
    file, left = open_files[name]
    step = random.randint(1, 60_000)
    file.write(left[:step]); file.flush()
    open_files[name][1] = left[step:]
    if not left[step:]:
        file.close(); del open_files[name]
    time.sleep(random.random() * slow_s)
"""


def test_real_sidecars_and_images_over_a_slow_copy(folder, opened, tmp_path, shared_data, request):
    """In random order and speed, by another process: one complete passage each, none twice, none read early."""
    soak = request.config.getoption("--soak")
    images = sorted((shared_data / "cargo").glob("container_*.jpg"))
    for run, seed in enumerate(random.SystemRandom().sample(range(1 << 30), 10) if soak else [0]):
        # a file that shows no end of its own counts once it is still: longer than this copy ever pauses
        waits = {"stable_s": 4.0, "partial_after_s": 60.0} if soak else {"stable_s": 0.5}
        source, made = opened(passage_wait_s=60.0, **waits), tmp_path / f"made {run}"
        made.mkdir()
        wanted = {}
        for number, path in enumerate(sorted((shared_data / "sidecar").glob("*.xml"))):
            told = parse_sidecar(path.read_bytes())
            shutil.copyfile(path, made / path.name)
            for listed in told.listed():
                contents = b"<x/>" + os.urandom(2000)
                if listed.role == "radiograph":
                    contents = images[(number + run) % len(images)].read_bytes() + bytes([run])
                    wanted[told.scan_id] = listed.name
                elif listed.name.lower().endswith((".jpg", ".png")):
                    contents = jpeg(number) if listed.name.lower().endswith(".jpg") else png(number)
                (made / listed.name).write_bytes(contents)
        copier = subprocess.Popen([sys.executable, "-c", COPY, made, folder, str(seed), "0.1" if soak else "0.02"])
        got = {}
        deadline_s = time.monotonic() + (180 if soak else 50)
        while (len(got) < len(wanted) or copier.poll() is None) and time.monotonic() < deadline_s:
            event = source.read(0.2)
            if isinstance(event, ScanStart | Rejected):
                assert isinstance(event, ScanStart), event.reason
                assert event.sidecar.scan_id not in got, f"twice, seed {seed}"
                assert all((folder / r.name).read_bytes() == (made / r.name).read_bytes()
                           for r in event.sidecar.listed()), f"read early, seed {seed}"  # fmt: skip
                got[event.sidecar.scan_id] = (Path(event.source).name, codes(event))
                ended = event.source_ref
            elif isinstance(event, ScanEnd):
                source.acknowledge(ended)
        assert copier.wait() == 0, seed
        assert got == {scan_id: (name, []) for scan_id, name in wanted.items()}, seed
        assert not [e for e in read_all(source, quiet_s=1.0) if isinstance(e, ScanStart | Rejected)]
        source.acknowledge(ended)
        assert names(folder) == ["done", "quarantine"]
        shutil.rmtree(folder / "done")
        source.close()
