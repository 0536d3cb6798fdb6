"""What rows are run on: a state folder, the real daemon as a child process, and analysts with the real client.

Every child is in a process group of its own and is known here, so that `end_everything` ends it with all that it began,
whatever has become of the row; on Linux it also ends by itself when this process does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from scanner_io import disk, wire
from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError
from scanner_io.model import Verdict
from scanner_io.security import Identity

START_S = 120.0
"""Kernels are compiled at the first start on a machine."""
CONFIG = """\
state_dir = "state"

[storage]
min_free_mb = {min_free_mb}
{storage}
[dispatch]
bind = "tcp://{host}:{port}"
lease_s = {lease_s}
heartbeat_s = {heartbeat_s}
max_attempts = 1000
{keys}
[audit]
checkpoints = "checkpoints"
"""
DROP = """
[[lane]]
name = "{name}"
join_window_s = 0
join_wait_s = 0

[[lane.device]]
driver = "file_drop"
path = "{folder}"
stable_s = {stable_s}
poll_s = 0.05
"""

_children: list[Child] = []


def end_everything() -> list[str]:
    """Kill what is left of every child that was begun here; return what was still running, in words."""
    left = []
    for child in _children:
        if child.running:
            left.append(child.name)
        child.kill()
    return left


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as one:
        one.bind((host, 0))
        port: int = one.getsockname()[1]
    return port


def write_config(
    folder: Path, lanes: str, *, host: str = "127.0.0.1", port: int = 0, lease_s: float = 5.0, heartbeat_s: float = 0.5,
    min_free_mb: int = 16, storage: str = "", keys: bool = False, name: str = "lane.toml", more: str = "",
) -> Path:  # fmt: skip
    """Write a configuration into `folder` and return its path.

    storage : more lines of that table; lanes, more : tables of TOML
    """
    path = folder / name
    text = CONFIG.format(
        host=host, port=port, lease_s=lease_s, heartbeat_s=heartbeat_s, min_free_mb=min_free_mb,
        storage=storage,
        keys='keys = "keys"\n' if keys else "",
    )  # fmt: skip
    path.write_text(text + more + lanes)
    return path


@contextlib.contextmanager
def volume(place: Path, size_mb: int) -> Iterator[bool]:
    """Give a disk of its own at `place`, an ext4 in a file or memory; False where that may not be mounted.

    The file stays beside it, `.image`: a row that failed can be looked at by mounting it again. Memory does not.
    """
    place.mkdir()
    image = place.with_name(place.name + ".image")
    with image.open("wb") as file:
        file.truncate(size_mb << 20)
    ways = (
        # Nothing set aside for root, who would get it when the disk is full.
        [["mkfs.ext4", "-q", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(place)]],
        [["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(place)]],
    )
    mounted = any(all(_did(command) for command in way) for way in ways)
    try:
        yield mounted
    finally:
        if mounted:
            _wait_until(lambda: _did(["umount", str(place)]), 5.0) or _did(["umount", "-l", str(place)])


def _did(command: list[str]) -> bool:
    """Run a program of the system; tell whether it is there and did it."""
    program = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return program is not None and not subprocess.run([program, *command[1:]], capture_output=True).returncode  # noqa: S603


def fill(file: Path, leave: int = 0) -> int:
    """Fill the disk of `file` until `leave` bytes are free, or to the last byte; return how many it took."""
    with file.open("ab", buffering=0) as filler:
        for piece in (1 << 20, 1 << 16, 1 << 12, 1):
            try:
                while not leave or free(file.parent) - piece >= leave:
                    filler.write(bytes(piece))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        os.fsync(filler.fileno())
        return filler.tell()


def free(place: Path) -> int:
    """Return the bytes that are free on the disk of a folder."""
    return disk.io().space(place).free


def drop_lane(folder: Path, name: str = "north", stable_s: float = 0.0) -> str:
    """Return the table of a lane that reads files dropped into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return DROP.format(name=name, folder=folder, stable_s=stable_s)


class Child:
    """A child process that prints JSON lines, in a process group of its own."""

    def __init__(
        self, *command: str, name: str = "", env: dict[str, str] | None = None, before: tuple[str, ...] = (),
        cwd: Path | None = None,
    ) -> None:  # fmt: skip
        """Start `python COMMAND`.

        before : a command that runs it, such as `ip netns exec NAME`; env : added to the environment
        """
        self.name = name or " ".join(command[:3])
        self.events: list[dict[str, Any]] = []
        self._errors: list[str] = []
        self._new: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.began_s = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 -- our own program
            [*before, *_tied_to_us(), sys.executable, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True, cwd=cwd, env={**os.environ, "PYTHONPATH": module_path(), **(env or {})},
        )  # fmt: skip
        _children.append(self)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._hear, args=(self._process.stdout,), name=f"{self.name}: log", daemon=True),
            threading.Thread(target=self._fret, args=(self._process.stderr,), name=f"{self.name}: err", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _hear(self, stream: IO[str]) -> None:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:  # a killed writer's last line
                event = {"event": "unreadable_line", "text": line[:200]}
            event["heard_s"] = time.monotonic()
            self.events.append(event)
            self._new.put(event)
        self._new.put(None)

    def _fret(self, stream: IO[str]) -> None:
        self._errors.extend(stream)

    @property
    def pid(self) -> int:
        """The process; that of `before` where there is one which stays."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    @property
    def errors(self) -> str:
        """What it wrote to stderr, its end."""
        return "".join(self._errors)[-3000:]

    def named(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return what it has said under this name with these fields."""
        return [e for e in list(self.events) if e.get("event") == event and _has(e, fields)]

    def wait_for(self, event: str, timeout_s: float = 60.0, **fields: Any) -> dict[str, Any]:
        """Return the next event of that name and fields. Raises DeliveryError if it ends or is late."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                said = self._new.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise DeliveryError(f"{self.name}: no {event} within {timeout_s:g} s; {self.last_words()}") from None
            if said is None:
                raise DeliveryError(f"{self.name}: ended ({self._process.wait()}) before {event}; {self.last_words()}")
            if said.get("event") == event and _has(said, fields):
                return said

    def last_words(self) -> str:
        """Return the end of what it said."""
        last = [{k: v for k, v in e.items() if k not in ("t", "heard_s")} for e in self.events[-3:]]
        return f"last said {last} {self.errors[-1500:]}"

    def signal(self, number: int) -> None:
        """Send a signal to the process alone; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = 60.0) -> int | None:
        """Return the exit code; None if it has not ended in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the whole group at once; may be called again."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._over()

    def kill_alone(self) -> None:
        """End the process itself at once; what it began must notice."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        _wait_until(lambda: not group(self.pid), 10.0)
        self.kill()

    def stop(self, timeout_s: float = 40.0) -> int | None:
        """End it as an operator does; return the exit code, None if it had to be killed."""
        self.signal(signal.SIGTERM)
        code = self.wait(timeout_s)
        self.kill()
        return code

    def _over(self) -> None:
        self._process.wait()
        for thread in self._threads:
            thread.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        if self in _children:
            _children.remove(self)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()


def daemon(config: Path, *options: str, plan: Path | None = None, **how: Any) -> Child:
    """Start `scanlane run CONFIG`; plan : of `triage.torture.faulty`, which then runs it."""
    module = "triage.cli" if plan is None else "triage.torture.faulty"
    env = {**how.pop("env", {}), **({} if plan is None else {"SCANLANE_FAULTS": str(plan)})}
    return Child("-m", module, "run", str(config), "--json", *options, name="daemon", env=env, **how)


def ready(service: Child, lanes: int = 1, timeout_s: float = START_S) -> float:
    """Wait until the daemon listens and its lanes read; return the seconds since its start."""
    for _ in range(lanes):
        service.wait_for("lane_ready", timeout_s)
    return time.monotonic() - service.began_s


def address_of(service: Child, timeout_s: float = START_S) -> str:
    """Return where the daemon listens, waiting for it."""
    address: str = (service.named("listening") or [service.wait_for("listening", timeout_s)])[0]["address"]
    return address


def group(leader: int) -> list[int]:
    """Return the processes of a child's group, zombies aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # ended since it was listed
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def rss_mb(pid: int) -> float:
    """Return the memory of one process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def cpu_s(pid: int) -> float:
    """Return the processor time that one process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Return what `condition` gives as soon as it is something. Raises DeliveryError naming `what` if it is late."""
    found = _wait_until(condition, timeout_s)
    if not found:
        raise DeliveryError(f"{what}: not within {timeout_s:g} s")
    return found


def _wait_until(condition: Callable[[], Any], timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _has(event: dict[str, Any], fields: dict[str, Any]) -> bool:
    return all(event.get(name) == value for name, value in fields.items())


def module_path() -> str:
    """Return the PYTHONPATH of children: what this process has."""
    return os.pathsep.join(dict.fromkeys(str(Path(p).resolve()) for p in sys.path if p and Path(p).is_dir()))


def _tied_to_us() -> tuple[str, ...]:
    """Return the command that lets a child end with us, however we end; nothing where util-linux is not there."""
    tie = shutil.which("setpriv")
    return (tie, "--pdeathsig", "KILL", "--") if tie else ()


# --------------------------------------------------------------------------------------------------------------
# Analysts


class Desk:
    """An analyst in a thread of this process: takes offers, fetches, decides, and remembers what was acknowledged."""

    def __init__(
        self, address: str, name: str = "ana", *, identity: Identity | None = None, capacity: int = 2,
        verdict: Verdict = "clear", think_s: float = 0.0,
    ) -> None:  # fmt: skip
        self.delivered: list[str] = []
        """Scans in the order in which their bytes came, whole; one that came twice is here twice."""
        self.acknowledged: dict[str, str] = {}
        """Decisions that the service said are committed: id -> scan."""
        self.seconds: list[float] = []
        """How long each fetch took."""
        self.offered_utc_ns: dict[str, int] = {}
        """When each scan's first offer was here."""
        self.troubles: list[str] = []
        self.last_s = 0.0
        """When something last came, monotonic."""
        self._verdict, self._think_s = verdict, think_s
        self._ending = threading.Event()
        self.station = Workstation(address, name, capacity=capacity, identity=identity)
        self._thread = threading.Thread(target=self._run, name=f"desk {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            offer = self.station.next_offer(0.1)
            if offer is None:
                continue
            self.offered_utc_ns.setdefault(offer.scan_id, time.time_ns())
            try:
                self._serve(offer)
            except DeliveryError as error:  # the service went away: what it did not acknowledge does not count
                self.troubles.append(str(error))

    def _serve(self, offer: wire.Offer) -> None:
        began_s = time.monotonic()
        self.station.fetch(offer, timeout_s=20.0)
        self.last_s = time.monotonic()
        self.seconds.append(self.last_s - began_s)
        self.delivered.append(offer.scan_id)
        if self._ending.wait(self._think_s):
            return
        decided = self.station.decide(offer, self._verdict, timeout_s=20.0)
        self.acknowledged[decided.decision_id] = offer.scan_id

    def close(self) -> None:
        """Sign off; may be called twice."""
        self._ending.set()
        self._thread.join(60)
        self.station.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def watching(service: Child) -> Iterator[Child]:
    """Give a daemon that must be alive when the block ends. Raises DeliveryError if it is not."""
    yield service
    if not service.running:
        raise DeliveryError(f"the daemon ended by itself: {service.last_words()}")
