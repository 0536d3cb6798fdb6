"""Readers of foreign files are confined, and what they say is not believed; each refusal beside proof that it bites."""

import ast
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from scanner_io import recording
from scanner_io.errors import ConfigError, DataError, LinkLost, TruncatedError
from scanner_io.foreign import RASTER, ForeignFiles
from scanner_io.formats.raster import RasterOptions, decode_raster
from scanner_io.sandbox import Limits, Sandbox, Task
from scanner_io.sandbox.attempts import ATTEMPTS
from scanner_io.sandbox.confine import filter_program
from triage.study import hostile_files
from triage.study.hostile_files import MISBEHAVE

SHORT = Limits(cpu_s=1, wall_s=2.0)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(3)
    return cv2.imencode(".png", rng.poisson(np.full((300, 400), 40_000)).astype(np.uint16))[1].tobytes()


def test_every_hostile_file_is_refused_within_the_limits(tmp_path):
    seen = hostile_files.run(tmp_path, SHORT)
    assert [s for s in seen if not s.passed(SHORT)] == []
    told = hostile_files.figures(seen, SHORT)
    assert told["passed"]
    assert (told["outside"], told["not_refused"]) == ([], [])
    assert told["files"] == len(seen) >= 60


def test_the_hostile_files_would_do_harm(tmp_path):
    """What is refused reads the canary in a plain reader, or the list would prove nothing."""
    canary = os.urandom(64).hex().encode()
    (tmp_path / "canary").write_bytes(canary * 1000)
    sound = recording.build(hostile_files._scan(), codec="gzip")
    for number, harm in enumerate(
        (hostile_files._external_storage, hostile_files._external_link, hostile_files._virtual)
    ):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(sound)
        with h5py.File(path, "r+") as file:
            harm(file, tmp_path)
        with h5py.File(path, "r") as file:
            assert file[hostile_files._IMAGE][()].tobytes().startswith(canary)
        with pytest.raises(DataError, match="such files are refused"):  # in this process too, before a value is read
            recording.read(path)


def test_the_attempts_succeed_outside_of_the_sandbox():
    tried = [name for name in ATTEMPTS if name != "execute programs"]
    code = f"from scanner_io.sandbox.attempts import try_all; print(try_all({tuple(tried)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    harmless = {"trace other processes", "raise its limits", "signal other processes"}  # as this user's rights are
    assert set(tried) - harmless <= set(ast.literal_eval(done.stdout))


def test_the_same_radiograph_as_in_this_process(image):
    how = {"name": "a.png", "start_utc_ns": 5, "start_how": "given", "options": RasterOptions(polarity="air_bright")}
    with ForeignFiles() as readers:
        read, provenance = readers.raster(image, **how)
        expected, told = decode_raster(image, **how)
        assert readers.confinement().whole
    assert (read.counts[0] == expected.counts[0]).all()
    assert not read.counts[0].flags.writeable
    assert (read.column_utc_ns == expected.column_utc_ns).all()
    assert provenance == told
    assert provenance.sha256 == hashlib.sha256(image).hexdigest()


def test_the_same_recording_as_in_this_process(tmp_path):
    scan = hostile_files._scan()
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    path.write_bytes(recording.build(scan, config={"deep": [1, {"a": None}]}))
    with ForeignFiles() as readers:
        read, of_bytes = readers.recording(path), readers.recording_of(path.read_bytes(), "bytes")
        assert readers.check(path) == recording.check(path) == []
    expected = recording.read(path)
    assert read.config == of_bytes.config == expected.config
    assert recording.content_sha256(read.scan, read.config, None) == expected.content_sha256
    assert recording.pixels_hash(read.scan.radiograph) == expected.pixels_hash


def test_what_readers_refuse_keeps_its_words_and_kind(image, tmp_path):
    how = {"name": "half.png", "start_utc_ns": 0, "start_how": "given"}
    with ForeignFiles() as readers:
        with pytest.raises(TruncatedError, match=r"half\.png"):
            readers.raster(image[: len(image) // 2], **how)
        for path in (tmp_path, tmp_path / "absent", tmp_path / "nul\0"):
            with pytest.raises(DataError):
                readers.recording(path)
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DataError, match="no plain file"):
            readers.recording(tmp_path / "pipe")


@pytest.mark.quiet
def test_a_death_costs_one_file(image):
    with Sandbox(limits=SHORT) as sandbox:
        with pytest.raises(DataError, match=r"x\.png: its reader crashed \(SIGSEGV\).*2048 MiB and 1 s.*look at it"):
            sandbox.run(MISBEHAVE, b"", name="x.png", ask="crash", answer=dict[str, str])
        with pytest.raises(DataError, match="more than 1 s of processor time"):
            sandbox.run(MISBEHAVE, b"", name="x.png", ask="loop", answer=dict[str, str])
        told = sandbox.run(MISBEHAVE, b"", name="", ask="attempts", answer=dict[str, tuple[str, ...]])
        assert told == {"tried": ()}


def test_memory_ends_at_its_limit():
    with Sandbox(limits=Limits(memory_bytes=400 << 20)) as sandbox:
        with pytest.raises(DataError, match="more memory is needed than a reader may take, which is 400 MiB"):
            sandbox.run(MISBEHAVE, b"", name="x", ask="memory", answer=dict[str, str])
        assert sandbox.used.peak_bytes < 400 << 20


def test_closing_frees_a_thread_that_waits():
    sandbox = Sandbox()
    raised = []

    def read():
        try:
            sandbox.run(MISBEHAVE, b"", name="x", ask="sleep", answer=dict[str, str])
        except LinkLost as error:
            raised.append(error)

    sandbox.confinement(MISBEHAVE)
    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.3)
    sandbox.close()
    thread.join(5)
    assert len(raised) == 1
    with pytest.raises(LinkLost, match="is closed"):
        sandbox.run(MISBEHAVE, b"", name="x", ask="silence", answer=dict[str, str])


def test_a_kernel_without_landlock_is_told_or_refused(tmp_path, monkeypatch, image):
    (tmp_path / "old_kernel.py").write_text(
        "from scanner_io.sandbox import confine\nconfine._landlock = lambda *_: 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = Task(MISBEHAVE.module, MISBEHAVE.function, ("old_kernel",))
    try:
        with Sandbox() as sandbox:
            held = sandbox.confinement(task)
            assert (held.whole, held.landlock) == (False, 0)
            assert "read other files" in held.breaches
            assert "write files" not in held.breaches  # by the filter of system calls
            assert "NO Landlock" in str(held)
            with pytest.raises(DataError):
                sandbox.run(task, b"", name="x", ask="silence", answer=dict[str, str])
        with Sandbox(require=True) as sandbox, pytest.raises(ConfigError, match=r"required, but .*NO Landlock"):
            sandbox.run(task, b"", name="x", ask="silence", answer=dict[str, str])
    finally:
        from scanner_io.sandbox import end_put_by

        end_put_by()


def test_a_spawner_that_cannot_start_is_told():
    with Sandbox() as sandbox, pytest.raises(LinkLost, match="absent_module"):
        sandbox.run(Task("scanner_io.absent_module", "read"), b"", name="x", ask=None, answer=None)


def test_a_spawner_that_dies_is_replaced(image):
    how = {"name": "a", "start_utc_ns": 0, "start_how": "", "options": RasterOptions(polarity="air_bright")}
    with ForeignFiles() as readers:
        readers.raster(image, **how)
        readers.sandbox._spawners[RASTER]._process.kill()
        with pytest.raises(LinkLost):
            readers.raster(image, **how)
        assert readers.raster(image, **how)[0].columns == 400


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_jumps_stay_inside(machine):
    """Every jump of the program lands on an instruction, and every path ends with a return."""
    code = filter_program(machine)
    rows = [(int.from_bytes(code[i : i + 2], "little"), code[i + 2], code[i + 3]) for i in range(0, len(code), 8)]
    assert 100 < len(rows) < 4096
    assert rows[-1][0] == 0x06
    for place, (kind, yes, no) in enumerate(rows):
        if kind in (0x15, 0x35):
            assert max(place + 1 + yes, place + 1 + no) < len(rows)
    assert filter_program("vax") == b""


def test_no_secret_reaches_a_reader(monkeypatch, tmp_path):
    """A spawner has an environment of its own."""
    monkeypatch.setenv("SCANLANE_SECRET", "abc")
    with Sandbox() as sandbox:
        sandbox.confinement(MISBEHAVE)
        ((pid, _),) = [s.holds() for s in sandbox._spawners.values()]
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"SECRET" not in environment
        assert b"HDF5_PLUGIN_PATH=/nonexistent" in environment
        assert sorted(int(p.name) for p in Path(f"/proc/{pid}/fd").iterdir())[:3] == [0, 1, 2]
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) == 4
