"""A site with keys: the real daemon in a process of its own, analysts' real programs, and an attacker's bare socket."""

from __future__ import annotations

import hashlib
import resource
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import zmq

from scanner_io import security, wire
from scanner_io.errors import ScannerError
from scanner_io.model import TriageResult
from triage.service.outbox import Outbox, ScanRow

from . import bed


class _Heard(bed.Child):
    """A child whose lines are kept as they came."""

    def __init__(self, *command: str, **how: Any) -> None:
        self.lines: list[str] = []
        super().__init__(*command, **how)

    def _hear(self, stream: IO[str]) -> None:
        super()._hear(self._kept(stream))  # type: ignore[arg-type]  # lines are all that is read of it

    def _kept(self, stream: IO[str]) -> Iterator[str]:
        for line in stream:
            self.lines.append(line)
            yield line


class Site:
    """One state folder with its keys and its daemon."""

    def __init__(
        self, folder: Path, *, keys: bool = True, max_files: int | None = None, lease_s: float = 30.0,
        host: str = "127.0.0.1", before: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """Make it; `start` does the rest.

        max_files : the daemon's limit of descriptors; None: the system's
        host, before : where it listens, and the command that runs it, such as `ip netns exec NAME`
        """
        self.folder = folder
        self.keys = folder / "keys"
        self.state = folder / "state"
        self._max_files, self._lease_s = max_files, lease_s
        self._host, self._around = host, before
        self._with_keys = keys
        self._port = bed.free_port()
        if keys:
            security.create_service(self.keys)
        self._before: list[_Heard] = []
        self._child: _Heard | None = None
        self._numbers = 0

    # ------------------------------------------------------------------------------------------------ the daemon

    def start(self) -> None:
        """Start the daemon, each time on the same port. Raises DeliveryError if it does not come up."""
        config = bed.write_config(
            self.folder, bed.drop_lane(self.folder / "drop"), port=self._port, host=self._host, lease_s=self._lease_s,
            heartbeat_s=1.0, keys=self._with_keys,
        )  # fmt: skip
        self._child = _Heard(
            "-m",
            "triage.cli",
            "run",
            str(config),
            "--json",
            name="daemon",
            cwd=self.folder,
            before=(*self._around, *self._limits()),
        )
        self._before.append(self._child)
        self.address = bed.address_of(self._child)
        self.port = int(self.address.rpartition(":")[2])

    def _limits(self) -> tuple[str, ...]:
        """Return the command that sets the limits the daemon begins with: cores as large as they like, for one."""
        tool = shutil.which("prlimit")
        if tool is None:
            return ()
        files = () if self._max_files is None else (f"--nofile={self._max_files}:{self._max_files}",)
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        largest = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
        return (tool, f"--core={largest}:{largest}", *files, "--")

    @property
    def child(self) -> bed.Child:
        """The daemon that runs."""
        assert self._child is not None
        return self._child

    @property
    def events(self) -> list[dict[str, Any]]:
        """What all daemons of this site have logged."""
        return [event for child in self._before for event in list(child.events)]

    @property
    def lines(self) -> list[str]:
        """The same as lines."""
        return [line for child in self._before for line in list(child.lines)]

    @property
    def errors(self) -> str:
        """What they wrote to stderr."""
        return "".join(child.errors for child in self._before)

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return what was logged under this name."""
        return [e for e in self.events if e.get("event") == event]

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self.child.pid

    @property
    def alive(self) -> bool:
        """The daemon runs."""
        return self._child is not None and self._child.running

    def rss_mb(self) -> float:
        """Return the memory of the daemon's process, without its lanes, MiB."""
        return bed.rss_mb(self.pid)

    def kill(self) -> None:
        """End the daemon with its lanes at once."""
        self.child.kill()
        self._child = None

    def stop(self) -> None:
        """End the daemon as an operator does; may be called twice."""
        if self._child is not None:
            self._child.stop()
        self._child = None

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
        """Enter recordings through the outbox itself, while no daemon runs; return their scans' ids.

        Those that are one and the same object take the room of one on the disk.
        """
        assert self._child is None
        (self.state / "recordings" / "north").mkdir(parents=True, exist_ok=True, mode=0o750)
        outbox = Outbox(self.state / "outbox.sqlite")
        ids = []
        written: dict[int, Path] = {}
        try:
            for data in payloads:
                self._numbers += 1
                scan_id = f"north-20260105T{self._numbers:06d}.000000Z-{self._numbers:08x}"
                path = self.state / "recordings" / "north" / f"{scan_id}.h5"
                if id(data) in written:
                    path.hardlink_to(written[id(data)])
                else:
                    path.write_bytes(data)
                    path.chmod(0o640)
                    written[id(data)] = path
                outbox.add(
                    ScanRow(
                        scan_id=scan_id, lane="north", path=str(path), sha256=hashlib.sha256(data).hexdigest(),
                        size=len(data), start_utc_ns=self._numbers, simulated=True, result=result_of(scan_id, outcome),
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


def result_of(scan_id: str, outcome: str) -> TriageResult:
    """Return a result for a scan that nobody judged."""
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
