"""What is wrong on this host, in plain words: each check is one function that says what it saw and what to do.

A check never raises: what it meets is its answer. `Host` is what they look at, so that every one of them can be shown
to fail.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from scanner_io import config as configuration
from scanner_io import disk, security
from scanner_io.errors import ConfigError, ScannerError

from . import install

State = Literal["ok", "warning", "problem"]
LEAST_PYTHON = (3, 11)
FSYNC_TIMES, SLOW_FSYNC_S, TOO_SLOW_FSYNC_S = 20, 0.05, 1.0
"""A decision is acknowledged after one sync: 0.3 ms on a good disk, 15 ms on one without protection of its power."""
LANE_MB, SERVICE_MB = 600, 300
"""Memory that a lane with large images and the daemon take."""
LEAST_FILES = 4096
TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""
EARLIEST_S = 1_767_225_600
"""2026-01-01: a clock before it has lost its battery."""
PLUGINS = {32008: "bitshuffle with LZ4, of every recording", 32015: "Zstandard, of foreign files"}
EXTRAS = {
    "console": ("starlette", "uvicorn"), "dicom": ("pydicom", "pynetdicom", "python-gdcm"), "postgres": ("psycopg",),
    "spectra": ("SandiaSpecUtils",), "study": ("matplotlib", "scikit-learn"),
}  # fmt: skip


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found. text : what was seen, and what to do where that is not as it should be"""

    check: str
    state: State
    text: str


class Host(NamedTuple):
    """Where to look.

    root : of a staged installation; version : of Python; distribution : gives the version of an installed package
    """

    config: Path
    root: Path = Path("/")
    version: tuple[int, ...] = tuple(sys.version_info[:2])
    distribution: Callable[[str], str] = metadata.version
    synchronised: Callable[[], bool | None] = lambda: clock_synchronised()
    now_s: Callable[[], float] = time.time
    memory_mb: Callable[[], int] = lambda: memory_limit_mb()
    files: Callable[[], int] = lambda: open_files_limit()
    filter_there: Callable[[int], bool] = lambda number: filter_available(number)
    user: Callable[[], int] = os.geteuid


def examine(host: Host) -> list[Finding]:
    """Return what every check found, in the order in which it is best mended."""
    loaded, findings = _config(host)
    checks: list[Callable[[Host, configuration.Config | None], Iterable[Finding]]] = [
        _python, _packages, _disk, _clock, _ports, _pages, _keys, _cache, _plugins, _memory, _files, _unit,
    ]  # fmt: skip
    for check in checks:
        findings += check(host, loaded)
    return findings


def _say(check: str, state: State, text: str) -> list[Finding]:
    return [Finding(check=check, state=state, text=text)]


def _config(host: Host) -> tuple[configuration.Config | None, list[Finding]]:
    try:
        loaded = configuration.load(host.config)
    except ConfigError as error:
        names = ("keys" if "dispatch.keys" in p else "config" for p in error.problems)
        return None, [f for n, p in zip(names, error.problems, strict=True) for f in _say(n, "problem", p)]
    lanes = ", ".join(lane.name for lane in loaded.lane)
    return loaded, _say("config", "ok", f"{host.config}: valid, lanes {lanes}; `scanlane check` also opens the devices")


def _python(host: Host, config: configuration.Config | None) -> list[Finding]:
    text = ".".join(map(str, host.version))
    if host.version < LEAST_PYTHON:
        return _say("python", "problem", f"Python {text}; scanlane needs 3.11 or later: install it into a newer one")
    return _say("python", "ok", f"Python {text}")


def _packages(host: Host, config: configuration.Config | None) -> list[Finding]:
    missing, there = [], []
    for name in required():
        try:
            host.distribution(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    for extra, names in EXTRAS.items():
        try:
            for name in names:
                host.distribution(name)
            there.append(extra)
        except metadata.PackageNotFoundError:
            continue
    if missing:
        text = f"not installed: {', '.join(missing)}; install scanlane again, into an environment of its own"
        return _say("packages", "problem", text)
    wanted = _wanted_extras(config) - set(there)
    if wanted:
        text = f"the configuration needs what is not installed: pip install 'scanlane[{','.join(sorted(wanted))}]'"
        return _say("packages", "problem", text)
    absent = [e for e in EXTRAS if e not in there]
    more = f"; not installed and not needed by this configuration: {', '.join(absent)}" if absent else ""
    return _say("packages", "ok", f"all that is needed, and {', '.join(there) or 'no optional part'}{more}")


def required() -> list[str]:
    """Return the names of the packages that scanlane cannot do without."""
    names = []
    for text in metadata.requires("scanlane") or []:
        if "extra ==" not in text:
            names.append(
                text.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].split("!")[0].strip()
            )
    return names


def _wanted_extras(config: configuration.Config | None) -> set[str]:
    if config is None:
        return set()
    names = {device.driver for lane in config.lane for device in lane.device}
    return {
        e for e, needed in (("dicom", "dicom_store" in names), ("postgres", config.outbox.url is not None)) if needed
    }


def _disk(host: Host, config: configuration.Config | None) -> list[Finding]:
    from triage.service.room import Marks

    if config is None:
        return []
    folder = Path(config.state_dir)
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        took_s = fsync_s(existing)
    except OSError as error:
        return _say("disk", "problem", f"{folder}: cannot be written ({error.strerror}); give it to the service's user")
    space = disk.io().space(existing)
    marks = Marks.of(config.storage, space.total)
    free = f"{folder}: {space.free >> 20} MiB free"
    if space.free < marks.stop:
        text = f"{free}, intake stops below {marks.stop >> 20}: make room, or lower storage.min_free_mb"
        return _say("disk", "problem", text)
    if took_s > TOO_SLOW_FSYNC_S:
        text = f"{free}; a sync takes {took_s:.1f} s: no decision can be acknowledged in time; use a local disk"
        return _say("disk", "problem", text)
    if space.free < marks.warn or took_s > SLOW_FSYNC_S:
        text = f"{free}, warned below {marks.warn >> 20}; a sync takes {took_s * 1000:.0f} ms, best is below 20"
        return _say("disk", "warning", text)
    return _say("disk", "ok", f"{free}; a sync takes {took_s * 1000:.1f} ms")


def fsync_s(folder: Path) -> float:
    """Return the median time of a small write with its sync. Raises OSError."""
    path = folder / f".scanlane-doctor-{os.getpid()}"
    times = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(FSYNC_TIMES):
            began_s = time.monotonic()
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
            times.append(time.monotonic() - began_s)
    finally:
        os.close(descriptor)
        path.unlink()
    return sorted(times)[len(times) // 2]


def _clock(host: Host, config: configuration.Config | None) -> list[Finding]:
    if host.now_s() < EARLIEST_S:
        text = f"it is {time.strftime('%Y-%m-%d', time.gmtime(host.now_s()))} by this clock; set it (timedatectl)"
        return _say("clock", "problem", text)
    told = host.synchronised()
    if told:
        return _say("clock", "ok", "set and synchronised")
    why = "is not synchronised" if told is False else "may not be asked whether it is synchronised"
    text = f"the clock {why}: times in the audit are worth no more than it; set up chrony or systemd-timesyncd"
    return _say("clock", "warning", text)


def clock_synchronised() -> bool | None:
    """Return what the kernel says of its clock, None if it does not."""
    room = ctypes.create_string_buffer(512)  # struct timex, modes 0: nothing is set
    state = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    return None if state < 0 else state != TIME_ERROR


def _pages(host: Host, config: configuration.Config | None) -> list[Finding]:
    from triage.service.checkup import page_problem

    if config is None or config.metrics.bind is None:
        return []
    bind = config.metrics.bind
    if not (error := page_problem(bind)):
        return _say("metrics", "ok", f"{bind}: free")
    if _runs(Path(config.state_dir)):
        return _say("metrics", "ok", f"{bind}: held by the service that runs here")
    return _say("metrics", "problem", f"{bind}: {error}")


def _ports(host: Host, config: configuration.Config | None) -> list[Finding]:
    import zmq

    if config is None:
        return []
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = context.socket(zmq.ROUTER)
    try:
        sock.bind(config.dispatch.bind)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE and _runs(Path(config.state_dir)):
            return _say("port", "ok", f"{config.dispatch.bind}: held by the service that runs here")
        text = f"{config.dispatch.bind}: {error}; another program has it, or this machine has no such address"
        return _say("port", "problem", text)
    finally:
        sock.close(linger=0)
        context.term()
    return _say("port", "ok", f"{config.dispatch.bind}: free")


def _runs(state: Path) -> bool:
    import fcntl

    try:
        with (state / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _keys(host: Host, config: configuration.Config | None) -> list[Finding]:
    if config is None:
        return []
    if config.dispatch.keys is None:
        text = "none: whoever can log in here can be any analyst; see `scanlane keys --help`"
        return _say("keys", "warning", text)
    folder = Path(config.dispatch.keys)
    try:
        security.load_identity(folder / security.SERVICE_KEY)
        listed = security.load_enrolled(folder / security.ENROLLED)
    except (ScannerError, OSError) as error:
        return _say("keys", "problem", str(error))
    mode = stat.S_IMODE((folder / security.SERVICE_KEY).stat().st_mode)
    if mode & 0o077:
        text = f"{folder / security.SERVICE_KEY}: mode {mode:04o}, others can read the secret; chmod 600"
        return _say("keys", "problem", text)
    people = len(listed.in_force())
    if not people:
        return _say("keys", "warning", f"{folder}: nobody is enrolled, so nobody can decide; `scanlane keys enrol`")
    return _say("keys", "ok", f"{folder}: readable by its user alone, {people} enrolled")


def _cache(host: Host, config: configuration.Config | None) -> list[Finding]:
    from triage.kernels import cache_folder

    folder = cache_folder()
    if folder is None:
        text = "this user has no home: kernels are compiled at every start, a minute; set NUMBA_CACHE_DIR"
        return _say("kernel cache", "warning", text)
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        text = f"{folder}: cannot be written: kernels are compiled at every start, a minute; set NUMBA_CACHE_DIR"
        return _say("kernel cache", "problem", text)
    kept = len(list(folder.glob("**/*.nbc"))) if folder.exists() else 0
    return _say("kernel cache", "ok", f"{folder}: writable, {kept} kernels kept")


def _plugins(host: Host, config: configuration.Config | None) -> list[Finding]:
    missing = [words for number, words in PLUGINS.items() if not host.filter_there(number)]
    if missing:
        text = f"filters missing: {'; '.join(missing)}; install hdf5plugin again, of the same HDF5 as h5py"
        return _say("HDF5 filters", "problem", text)
    return _say("HDF5 filters", "ok", "all there")


def filter_available(number: int) -> bool:
    """Tell whether HDF5 can unpack what this filter has packed."""
    importlib.import_module("hdf5plugin")
    h5z = importlib.import_module("h5py").h5z
    return bool(h5z.filter_avail(number))


def _memory(host: Host, config: configuration.Config | None) -> list[Finding]:
    lanes = 1 if config is None else len(config.lane)
    wanted, given = SERVICE_MB + LANE_MB * lanes, host.memory_mb()
    text = f"{given} MiB may be used, what {lanes} lanes take at most is {wanted}"
    if given < wanted:
        return _say("memory", "problem", f"{text}; raise the limit (MemoryMax= of the unit), or have fewer lanes here")
    return _say("memory", "ok", text)


def memory_limit_mb() -> int:
    """Return the memory of this machine, or of this process's control group where that is less, MiB."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            told = path.read_text().strip()
        except OSError:  # another version of control groups, or none
            continue
        if told.isdecimal():
            limit = min(limit, int(told))
    return limit >> 20


def _files(host: Host, config: configuration.Config | None) -> list[Finding]:
    limit = host.files()
    if limit < LEAST_FILES:
        text = f"{limit} may be open at once; at the limit the wire stands still: raise it (LimitNOFILE=65536)"
        return _say("open files", "problem", text)
    return _say("open files", "ok", f"{limit} may be open at once")


def open_files_limit() -> int:
    """Return how many files this process may raise its limit to."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def _unit(host: Host, config: configuration.Config | None) -> list[Finding]:
    place = install.below(host.root, install.UNIT)
    try:
        found = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = f"{place}: not there: nobody starts the service again; `scanlane install --user scanlane`"
        return _say("unit", "warning", text)
    except (OSError, UnicodeDecodeError) as error:
        return _say("unit", "problem", f"{place}: cannot be read ({error})")
    values = dict(line.split("=", 1) for line in found.splitlines() if "=" in line and not line.startswith("#"))
    try:
        wanted = install.unit(
            values.get("User", ""),
            memory=values.get("MemoryMax", ""),
            networks=values.get("IPAddressAllow", "").split(),
        )
    except ConfigError as error:
        return _say("unit", "problem", f"{place}: {'; '.join(error.problems)}")
    if found != wanted:
        ours, theirs = set(wanted.splitlines()), set(found.splitlines())
        lines = sorted(line for line in ours ^ theirs if line and not line.startswith("#"))
        first = lines[0] if lines else "a comment"
        text = (
            f"{place}: is not the unit of this version ({len(lines)} lines differ, the first: {first}); "
            "`scanlane install` puts the new one beside it; local changes belong into `systemctl edit scanlane`"
        )
        return _say("unit", "warning", text)
    if why := install.hidden():
        return _say("unit", "problem", why)
    return _say("unit", "ok", f"{place}: as this version writes it")
