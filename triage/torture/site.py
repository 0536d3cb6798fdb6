"""A site with keys: the real daemon in a process of its own, analysts' real programs, and an attacker's bare socket."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import zmq

from scanner_io import security, wire
from scanner_io.errors import DeliveryError, ScannerError
from scanner_io.model import TriageResult
from triage.service.outbox import Outbox, ScanRow

CONFIG = """\
state_dir = "state"

[storage]
min_free_mb = 64

[dispatch]
bind = "tcp://127.0.0.1:{port}"
{keys}lease_s = {lease_s}
heartbeat_s = 1.0
max_attempts = 1000

[audit]
checkpoints = "checkpoints"

[[lane]]
name = "north"

[[lane.device]]
driver = "file_drop"
path = "drop"
"""
START_S = 180.0


class Outcome(NamedTuple):
    """What a row found. passed : None if it cannot run here, and `note` says why."""

    figure: Any
    bar: str
    passed: bool | None
    note: str = ""


class Site:
    """One state folder with its keys and its daemon."""

    def __init__(self, folder: Path, *, keys: bool = True, lease_s: float = 30.0, max_files: int | None = None) -> None:
        """Make it; `start` does the rest. max_files : the daemon's limit of descriptors; None: the system's."""
        self.folder = folder
        self.keys = folder / "keys"
        self.state = folder / "state"
        self._max_files = max_files
        self.port = 0
        self._with_keys, self._lease_s = keys, lease_s
        (folder / "drop").mkdir(parents=True)
        if keys:
            security.create_service(self.keys)
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._process: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []
        self._errors: list[str] = []
        self._numbers = 0

    # ------------------------------------------------------------------------------------------------ the daemon

    def start(self) -> None:
        """Start the daemon; after a stop, on the same port. Raises DeliveryError if it does not come up."""
        keys = 'keys = "keys"\n' if self._with_keys else ""
        config = self.folder / "lane.toml"
        config.write_text(CONFIG.format(port=self.port, keys=keys, lease_s=self._lease_s))
        before = len(self.events)
        self._process = subprocess.Popen(  # noqa: S603 -- our own program
            [sys.executable, "-m", "triage.cli", "run", str(config), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder, preexec_fn=self._limit,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip
        assert self._process.stdout is not None and self._process.stderr is not None
        self._threads = [
            threading.Thread(target=self._hear, args=(self._process.stdout,), name="daemon's log"),
            threading.Thread(target=self._hear_errors, args=(self._process.stderr,), name="daemon's errors"),
        ]
        for thread in self._threads:
            thread.start()
        listening = self.wait(lambda: self._named("listening", before), START_S, "the daemon did not come up")
        self.address: str = listening[0]["address"]
        self.port = int(self.address.rpartition(":")[2])

    def _limit(self) -> None:
        if self._max_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._max_files, self._max_files))

    def _hear(self, stream: IO[str]) -> None:
        for line in stream:
            self.lines.append(line)
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.events.append({"event": "unreadable line"})

    def _hear_errors(self, stream: IO[str]) -> None:
        self._errors.extend(stream)

    def _named(self, event: str, since: int = 0) -> list[dict[str, Any]]:
        return [e for e in self.events[since:] if e.get("event") == event]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return what the daemon logged under this name."""
        return self._named(event)

    @property
    def errors(self) -> str:
        """What the daemon wrote to stderr."""
        return "".join(self._errors)

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """The daemon runs."""
        return self._process is not None and self._process.poll() is None

    def rss_mb(self) -> float:
        """Return the memory of the daemon's process, without its lanes, MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / (1 << 20)

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """Return what `condition` gives as soon as it is something. Raises DeliveryError if it is nothing in time."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            if time.monotonic() > deadline or not self.alive:
                raise DeliveryError(f"{what} within {timeout_s:.0f} s: {self.errors[-1000:]} {self.events[-3:]}")
            time.sleep(0.02)
        return found

    def kill(self) -> None:
        """End the daemon as a power cut ends it."""
        if self._process is not None:
            self._process.kill()
        self._ended()

    def stop(self) -> None:
        """End the daemon as an operator does; may be called twice."""
        if self._process is not None:
            self._process.terminate()
        self._ended()

    def _ended(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process = None

    # ------------------------------------------------------------------------------------------- people and scans

    def identity(self, name: str) -> security.Identity:
        """Return keys for a program that knows this service, enrolled or not."""
        return security.generate(name, security.load_public(self.keys / security.SERVICE_PUBLIC).curve)

    def enrol(self, name: str, role: security.Role = "analyst") -> security.Identity:
        """Enrol somebody."""
        made = self.identity(name)
        security.enrol(self.keys, made.public, role)
        return made

    def fill(self, payloads: list[bytes], outcome: str = "REVIEW") -> list[str]:
        """Enter recordings through the outbox itself, while no daemon runs; return their scans' ids."""
        assert self._process is None
        (self.state / "recordings" / "north").mkdir(parents=True, exist_ok=True, mode=0o750)
        outbox = Outbox(self.state / "outbox.sqlite")
        ids = []
        try:
            for data in payloads:
                self._numbers += 1
                scan_id = f"north-20260105T{self._numbers:06d}.000000Z-{self._numbers:08x}"
                path = self.state / "recordings" / "north" / f"{scan_id}.h5"
                path.write_bytes(data)
                path.chmod(0o640)
                outbox.add(
                    ScanRow(
                        scan_id=scan_id, lane="north", path=str(path), sha256=hashlib.sha256(data).hexdigest(),
                        size=len(data), start_utc_ns=self._numbers, simulated=True, result=_result(scan_id, outcome),
                    )
                )  # fmt: skip
                ids.append(scan_id)
        finally:
            outbox.close()
        return ids

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the outbox's database, which the daemon may be using."""
        with closing(sqlite3.connect(f"{(self.state / 'outbox.sqlite').as_uri()}?mode=ro", uri=True)) as database:
            database.execute("PRAGMA busy_timeout=5000")
            return database.execute(query, values).fetchall()

    def audited(self, kind: str) -> list[tuple[Any, ...]]:
        """Return (who, scan, text) of the audit's events of one kind."""
        return self.rows("SELECT who, scan_id, text FROM events WHERE kind=? ORDER BY seq", kind)


@contextmanager
def site(folder: Path, payloads: list[bytes] | None = None, **options: Any) -> Iterator[Site]:
    """Give a site whose daemon runs, with scans that wait."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Site(folder, **options)
    try:
        if payloads:
            made.fill(payloads)
        made.start()
        yield made
    finally:
        made.stop()


def _result(scan_id: str, outcome: str) -> TriageResult:
    return TriageResult(
        scan_id=scan_id, outcome=outcome, reasons=("dense block behind the third pallet",),  # type: ignore[arg-type]
        load="loaded", container=None, findings=(), quality=(), gamma_alarm=None, neutron_alarm=None, gamma_intervals=0,
        alarm_intervals=0, profile="torture", code_version="torture", timings_ms={},
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------
# Whoever is at the wire without our client


class Bare:
    """A bare DEALER: what somebody with a program of their own has."""

    def __init__(self, address: str, identity: security.Identity | None = None, **options: Any) -> None:
        """Connect. options : of the socket, by their names in pyzmq."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.welcome: wire.Welcome | None = None
        self.came: list[wire.FromService] = []
        """Everything that came, heartbeats aside."""
        if identity is not None:
            security.secure_client(self.socket, identity)
        for name, value in options.items():
            setattr(self.socket, name, value)
        self.socket.connect(address)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect; may be called twice."""
        self.socket.close(linger=0)
        self._context.term()

    def send(self, message: wire.Message) -> None:
        """Send one message; where the connection is cut off it waits, and is dropped once its queue is full."""
        with suppress(zmq.Again):
            self.socket.send_multipart(wire.encode(message), zmq.NOBLOCK)

    def hear(self, wait_s: float) -> wire.FromService | None:
        """Return the next message that is no heartbeat, None if none comes in time; pings are answered."""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            if not self.socket.poll(int(left_s * 1000) + 1):
                continue
            answer, _ = wire.decode_from_service(self.socket.recv_multipart())
            if isinstance(answer, wire.Ping):
                self.send(wire.Pong(counter=answer.counter))
            elif not isinstance(answer, wire.Pong):
                self.came.append(answer)
                return answer
        return None

    def wait_for(self, kind: type[Any], wait_s: float = 10.0) -> Any:
        """Return the next message of a kind; others are passed over. Raises ScannerError if none comes in time."""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            if isinstance(answer := self.hear(left_s), kind):
                return answer
        raise ScannerError(
            f"no {kind.__name__} came within {wait_s:.0f} s, only {[type(m).__name__ for m in self.came]}"
        )

    def hello(self, capacity: int = 1, analyst: str = "") -> wire.Welcome:
        """Say hello and return the welcome."""
        self.send(wire.Hello(analyst=analyst, capacity=capacity))
        self.welcome = self.wait_for(wire.Welcome)
        assert self.welcome is not None
        return self.welcome
