"""The test list as a table, and what runs it: one row after the other, each in a folder of its own.

A row is a function `(folder, full) -> Outcome` in a module named `rows_…`; `folder` is empty, and goes when the row is
over unless it failed: then it stays, and the row's note says where. Whatever a row raises is a row that failed. After
every row the suite looks for processes that the row left and ends them; that too is a failure.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scanner_io.errors import ConfigError, DeliveryError

from . import bed
from .outcome import Outcome, say

RowFunction = Callable[[Path, bool], Outcome]


class Test(NamedTuple):
    """A row of the list. where : module of this package and function."""

    title: str
    where: str


TESTS: dict[str, Test] = {
    "R1": Test("kill -9 at a random moment, restart", "rows_kills.r1_kills"),
    "R2": Test("a fault at every call on the disk", "rows_faults.r2_every_call"),
    "R3": Test("a disk that is full", "rows_disk.r3_full_disk"),
    "R4": Test("water marks of the disk", "rows_disk.r4_water_marks"),
    "R5": Test("a power cut", "rows_power.r5_power_cut"),
    "R6": Test("bits that flip, ends that are cut off", "rows_disk.r6_flips"),
    "R7": Test("the clock set forward and back", "rows_clock.r7_clock_steps"),
    "R8": Test("a network that is cut, reset, bad", "rows_network.r8_partitions"),
    "R9": Test("analysts who are slow, frozen, absent", "rows_delivery.r9_slow_analysts"),
    "R10": Test("an image scanner that sends what it should not", "rows_drivers.r10_driver_faults"),
    "R11": Test("a portal on a bad line, TCP and serial", "rows_portal.r11_bad_lines"),
    "R12": Test("four lanes for a day, at 20 times the pace", "rows_soak.r12_soak"),
    "R13": Test("restart storm of SIGTERM and SIGHUP", "rows_kills.r13_restarts"),
    "R14": Test("two daemons on one state folder", "rows_kills.r14_two_daemons"),
    "R15": Test("databases of earlier and later schemas, upgrades killed", "rows_upgrade.r15_upgrades"),
    "R16": Test("judgements that kill or hang, damaged compiled code", "rows_judging.r16_judging"),
    "R17": Test("every thread of the service stopped", "rows_watchdog.r17_watchdog"),
    "R18": Test("a backlog, and everybody back at once", "rows_delivery.r18_backlog"),
    "S1": Test("CURVE: who is let in, who is cut off", "rows_identity.s1_matrix"),
    "S2": Test("another's routing id", "rows_identity.s2_routing_ids"),
    "S3": Test("decisions replayed, pasted and borrowed", "rows_identity.s3_replay"),
    "S4": Test("a flood of connections", "rows_hostile.s4_flood"),
    "S5": Test("mutated messages", "rows_hostile.s5_mutated"),
    "S6": Test("a message one byte too large", "rows_hostile.s6_too_large"),
    "S7": Test("hostile foreign files", "rows_hostile.s7_foreign_files"),
    "S8": Test("a listener on the cable", "rows_hostile.s8_capture"),
    "S9": Test("modes of files, secrets lying about", "rows_secrets.s9_secrets"),
    "S10": Test("an audit that was touched", "rows_secrets.s10_audit"),
    "S11": Test("forged and flooded logs", "rows_secrets.s11_log"),
    "S12": Test("how the service is shut in", "rows_secrets.s12_shut_in"),
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row's result.

    passed : None if it cannot run here; then it counts neither way
    missed : names of the figures that do not hold their bar
    """

    row: str
    figure: Any
    bar: str
    passed: bool | None
    seconds: float
    note: str = ""
    missed: tuple[str, ...] = ()


def chosen(names: Iterable[str]) -> list[str]:
    """Return the rows that `names` name, in the order of the list; all without any. Raises ConfigError."""
    wanted = [n.strip().upper() for name in names for n in name.split(",") if n.strip()]
    unknown = [n for n in wanted if n not in TESTS]
    if unknown:
        raise ConfigError([f"--row {n}: there is no such row; expected one of {', '.join(TESTS)}" for n in unknown])
    return [n for n in TESTS if not wanted or n in wanted]


def run(names: Iterable[str], *, full: bool, folder: Path | None = None) -> Iterator[Row]:
    """Run rows one after the other and yield each as it ends.

    full : the long form, for the night
    folder : where their folders are made; the system's temporary folder by default. Power and disk rows depend on what
        file system this is
    """
    wanted = chosen(names)
    if full:
        _compile_kernels()
    for name in wanted:
        say(f"{name} {TESTS[name].title}")
        yield _run_one(name, full, folder)


COMPILE_S = 1800.0
COMPILE = "from triage.analysis import screening; from triage.service import packing; screening.warm_up()"


def _compile_kernels() -> None:
    """Compile what is not compiled yet, so that no row takes that for the time in which a service is ready.

    Each lane of a service that finds nothing compiled does it for itself; on a busy machine that takes minutes. Raises
    DeliveryError if it cannot be done.
    """
    say("compiling kernels where they are not")
    with bed.Child("-c", COMPILE, name="compiling kernels") as child:
        if (code := child.wait(COMPILE_S)) != 0:
            raise DeliveryError(f"kernels cannot be compiled (exit code {code}): {child.last_words()}")


def _run_one(name: str, full: bool, folder: Path | None) -> Row:
    began_s = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix=f"scanlane-{name}-", dir=folder))
    kept = False
    try:
        outcome = _outcome(name, full, place)
        if left := bed.end_everything():
            outcome = outcome.noting(f"it left behind: {', '.join(left)}")
            outcome = outcome._replace(passed=False, missed=(*outcome.missed, "processes_left"))
        if kept := outcome.passed is False:
            outcome = outcome.noting(f"what it left to look at is in {place}")
    finally:
        bed.end_everything()
        if not kept:
            shutil.rmtree(place, ignore_errors=True)
    return Row(
        row=name, figure=outcome.figure, bar=outcome.bar, passed=outcome.passed,
        seconds=round(time.monotonic() - began_s, 1), note=outcome.note, missed=outcome.missed,
    )  # fmt: skip


def _outcome(name: str, full: bool, place: Path) -> Outcome:
    module, _, function = TESTS[name].where.rpartition(".")
    try:
        row: RowFunction = getattr(importlib.import_module(f"{__package__}.{module}"), function)
        return row(place, full)
    except Exception as error:  # a row that falls over has not shown what it was to show
        return Outcome({}, "", False, f"{type(error).__name__}: {error}")
