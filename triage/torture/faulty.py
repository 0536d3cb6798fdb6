"""`python -m triage.torture.faulty …`: scanlane on a disk whose calls fail by plan, its lanes included.

The plan is a file, named by SCANLANE_FAULTS, which the row exchanges while the daemon runs; its lanes are spawned from
the same main module, so that they have the same disk. What happened is told in `PLAN.log`, one JSON line each.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from scanner_io import disk, storage
from triage.torture import sqlite_faults
from triage.torture.faults import CRASH, SHORT, Call, FaultyDisk

PLAN = "SCANLANE_FAULTS"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The next fault. at : which call of `process` meets it, counted from when the plan is there; 0 for none"""

    serial: int
    process: str
    fault: str
    at: int


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """What happened under a plan. what : "fault", "calls" for how many there were, "synced again" for a broken rule"""

    serial: int
    process: str
    what: str
    call: str = ""
    path: str = ""
    number: int = 0


def log_of(plan: Path) -> Path:
    """Return where it is told what happened under a plan."""
    return plan.with_name(plan.name + ".log")


def give(plan: Path, new: Plan) -> None:
    """Put a plan in force from the next call on."""
    storage.write_durable(plan, msgspec.json.encode(new), replace=True)


def told(plan: Path) -> list[Met]:
    """Return what happened so far."""
    try:
        return [msgspec.json.decode(line, type=Met) for line in log_of(plan).read_bytes().splitlines()]
    except FileNotFoundError:
        return []


class Planned:
    """Decides on faults by the plan in force."""

    def __init__(self, plan: Path, process: str) -> None:
        self._path, self._process = plan, process
        self._seen = (0, 0)
        self._plan: Plan | None = None
        self._count = 0
        self._over = False
        self._unsynced: set[str] = set()
        """Files of which a sync has failed."""

    def __call__(self, call: Call) -> str | None:
        """Return the fault that this call meets."""
        state = self._path.stat()
        if (state.st_ino, state.st_mtime_ns) != self._seen:
            self._tell("calls", number=self._count)
            self._seen = (state.st_ino, state.st_mtime_ns)
            self._plan, self._count = msgspec.json.decode(self._path.read_bytes(), type=Plan), 0
            # A process that was begun anew after the fault does not meet it again.
            self._over = any(m.serial == self._plan.serial and m.what == "fault" for m in told(self._path))
        assert self._plan is not None
        self._count += 1
        path = str(call.path)
        if call.name.endswith("sync") and path in self._unsynced:
            self._tell("synced again", call=call.name, path=path)
        if self._over or self._plan.process != self._process or self._plan.at != self._count:
            return None
        self._over = True
        self._tell("fault", call=call.name, path=path, number=self._count)
        if call.name.endswith("sync") and self._plan.fault not in (CRASH, SHORT) and not call.path.is_dir():
            self._unsynced.add(path)
        return self._plan.fault

    def _tell(self, what: str, **more: object) -> None:
        if self._plan is None:
            return
        met = Met(serial=self._plan.serial, process=self._process, what=what, **more)  # type: ignore[arg-type]
        descriptor = os.open(log_of(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(met) + b"\n")
        finally:
            os.close(descriptor)


if PLAN in os.environ and __name__ in ("__main__", "__mp_main__"):  # the daemon; a lane, which it spawned
    faulty = FaultyDisk(Planned(Path(os.environ[PLAN]), "daemon" if __name__ == "__main__" else "lane"), keep=False)
    disk.use(faulty)
    sqlite_faults.put_between(faulty)

if __name__ == "__main__":
    from triage.cli import main

    main()
