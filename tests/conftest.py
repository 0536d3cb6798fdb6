"""What every test has: hypothesis profiles, `--soak`, the folder of shared data, and a look for leaks afterwards."""

from __future__ import annotations

import fcntl
import gc
import multiprocessing.resource_tracker
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from scanner_io import disk, sandbox
from triage.torture.faults import Decide, FaultyDisk

pytest.register_assert_rewrite("tests.contract", "tests.rigs")

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

LASTING = ("/dev/null", "/dev/urandom", "/dev/random", "/proc/", "/sys/")
"""Targets of descriptors that libraries open once, at first use, and keep."""
SETTLE_S = 3.0
"""What ends by itself (a thread on its way out, a context being terminated) has so long for it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the long tests marked soak")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="a long test; give --soak to run it"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test marked `quiet` run alone where several processes run tests: it measures, or it loads all cores.

    All others hold a lock together; a quiet one waits for them, and the gate keeps new ones from going ahead of it. No
    test's time begins before it has the lock.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    kind = fcntl.LOCK_EX if item.get_closest_marker("quiet") else fcntl.LOCK_SH
    folder = item.config._tmp_path_factory.getbasetemp().parent  # of all processes of this run
    with (folder / "gate").open("w") as gate, (folder / "lock").open("w") as lock:
        fcntl.flock(gate, kind)
        fcntl.flock(lock, kind)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images and records, kept beside the repository because they may not be copied into it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no folder {Path('..', *SHARED_DATA.parts[-2:])} beside the repository")
    return SHARED_DATA


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a disk of a size such as "2m"; only a real one fills up as a disk does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a disk that is small enough to fill needs root on Linux")
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk of {size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine allows no mounts: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


# ----------------------------------------------------------------------------------------------------------------
# Leaks


@pytest.fixture
def faulty_disk() -> Iterator[Callable[[Decide], FaultyDisk]]:
    """Put disks in force whose calls meet the faults that a function decides on."""
    before = disk.io()

    def put(decide: Decide) -> FaultyDisk:
        faulty = FaultyDisk(decide)
        disk.use(faulty)
        return faulty

    yield put
    disk.use(before)


def held() -> set[str]:
    """Return what the process holds that a test may leave behind, as texts: threads, children, descriptors, ZeroMQ."""
    return {*_threads(), *_children(), *_descriptors(), *_zmq_contexts()}


def _threads() -> set[str]:
    return {f"thread {t.name} ({t.ident})" for t in threading.enumerate()}


def _children() -> set[str]:
    found = set()
    # Kept between tests on purpose, as between the sandboxes of a lane: to start one takes 0.3 s.
    kept = {pid for pid, _ in sandbox.put_by()}
    for child in _child_processes():
        if child.pid in kept:
            continue
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:  # ended since it was listed
            line = ""
        # One process per session keeps account of shared memory, another is the database server; both end with it,
        # though a test may have restarted the server.
        if "resource_tracker" not in line and "/scanlane-pg-" not in line:
            found.add(f"child process {child.pid} {line[:120]}")
    return found


def _child_processes() -> list[psutil.Process]:
    """Return the children; from the threads' own lists where the kernel has them, for that is 50 times as fast."""
    pids: list[int] = []
    try:
        for task in Path("/proc/self/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    except OSError:
        return psutil.Process().children()
    found = []
    for pid in pids:
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return found


def _descriptors() -> set[str]:
    found = set()
    # pipe of the process named in _children
    lasting = {getattr(multiprocessing.resource_tracker._resource_tracker, "_fd", None)}
    lasting |= {descriptor for _, descriptor in sandbox.put_by()}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:  # that of the listing itself
            continue
        if not target.startswith(LASTING) and ".coverage" not in target and int(fd.name) not in lasting:
            found.add(f"descriptor {fd.name} -> {target}")
    return found


def _zmq_contexts() -> set[str]:
    """Return the I/O threads of ZeroMQ contexts, by the name that libzmq gives them: they are no Python threads."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
        except OSError:  # ended since it was listed
            continue
        if name.startswith("ZMQbg"):
            found.add(f"ZeroMQ context, thread {name} ({task.name})")
    return found


def leaks(before: set[str]) -> list[str]:
    """Return what is held now and was not before, after giving it time to end and collecting garbage."""
    left = held() - before
    if left:
        gc.collect()
        deadline_s = time.monotonic() + SETTLE_S
        while (left := held() - before) and time.monotonic() < deadline_s:
            time.sleep(0.02)
    return sorted(left)


@pytest.fixture(autouse=True)
def no_leaks() -> object:
    """Fail a test that leaves a thread, a child process, a descriptor or a ZeroMQ context behind."""
    before = held()
    yield
    left = leaks(before)
    if left:
        pytest.fail("the test leaves behind: " + "; ".join(left), pytrace=False)
