"""The short form of the test list, once; and that the list itself can fail."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.service.daemon_rig import ENVIRONMENT, ROOT
from triage.torture import rows_kills, suite
from triage.torture.outcome import cannot_run, holds, judged, stood_in

COMPARED = ("R3", "R9", "R11", "R17", "R18", "S4")
"""Rows whose figures are shares of one another, or limits on which safety hangs: nothing runs beside them."""
HURRIED = ("R1", "R2", "R7", "R8", "R10", "R12", "R13", "R16", "S1", "S8")
"""Rows that have some figure in seconds, see `PACE`."""


@pytest.mark.quiet
@pytest.mark.timeout(1200)
def test_the_short_form_of_every_row_that_compares():
    held(COMPARED)


@pytest.mark.timeout(1800)
def test_the_short_form_of_every_row_in_a_hurry():
    held(HURRIED)


@pytest.mark.timeout(1800)
def test_the_short_form_of_every_other_row():
    held(name for name in suite.TESTS if name not in COMPARED + HURRIED)


def held(names):
    """Run rows in their short form and hold each to its bar."""
    names = list(names)
    done = subprocess.run(
        [sys.executable, "-m", "triage.cli", "torture", "--json", "--row", ",".join(names)],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["row"] for row in rows] == names, done.stderr[-3000:]
    failed = [row for row in rows if row["passed"] is False]
    print(*(f"{r['row']} {r['passed']} {r['seconds']} {r['figure']} {r['note']}" for r in rows), sep="\n")
    wrong = [(r["row"], r["missed"], r["figure"], r["note"]) for r in failed if not only_slow(r)]
    assert not wrong, wrong
    assert all(r["passed"] is not None or r["note"] for r in rows), "a row did not run and does not say why"
    assert done.returncode == bool(failed)


PACE = ("ready_s_max", "drain_s_max", "resumed_s_max", "reconnect_s_max", "others_worst_s")
"""Figures that say how fast the machine is as much as how good the code is."""
SLACK = 2.0


def only_slow(row):
    """Return whether all a row misses is pace, by less than SLACK.

    Bars of pace are for a quiet machine with two cores of its own; where tests run nobody knows what else runs.
    """
    bounds = dict(part.split(" ", 1) for part in row["bar"].split(", "))
    return bool(row["missed"]) and all(
        name in PACE and holds(row["figure"].get(name), bounds[name], times=SLACK) for name in row["missed"]
    )


def test_only_pace_may_be_missed_and_not_by_much():
    def row(**figure):
        return judged(figure, {"lost": "== 0", "ready_s_max": "<= 5", "stops_s_max": "<= 1"})._asdict()

    assert only_slow(row(lost=0, ready_s_max=9.0, stops_s_max=0.5))
    assert not only_slow(row(lost=0, ready_s_max=11.0, stops_s_max=0.5))
    assert not only_slow(row(lost=0, ready_s_max=9.0, stops_s_max=1.1))
    assert not only_slow(row(lost=1, ready_s_max=9.0, stops_s_max=0.5))
    assert not only_slow(row(lost=0, ready_s_max=None, stops_s_max=0.5))
    assert not only_slow({"missed": (), "bar": "a <= 1", "figure": {}})


def test_a_bar_is_held_against_every_figure():
    assert judged({"lost": 0, "s": 4.9}, {"lost": "== 0", "s": "<= 5"}).passed is True
    assert judged({"lost": 1, "s": 4.9}, {"lost": "== 0", "s": "<= 5"}).passed is False
    assert judged({"lost": 0}, {"lost": "== 0", "s": "<= 5"}).passed is False
    assert judged({"s": None}, {"s": "<= 5"}).passed is False


def test_what_stands_in_never_counts_as_passed():
    assert stood_in(judged({"s": 1}, {"s": "<= 5"}), "no root").passed is None
    assert stood_in(judged({"s": 9}, {"s": "<= 5"}), "no root").passed is False
    assert cannot_run("no root").passed is None


@pytest.mark.parametrize(("lost", "stays"), [(1, True), (0, False)])
def test_a_row_that_failed_keeps_its_folder_and_says_where(tmp_path, monkeypatch, lost, stays):
    def row(folder, full):
        (folder / "state").mkdir()
        return judged({"lost": lost}, {"lost": "== 0"}, "seed 1")

    monkeypatch.setattr(rows_kills, "r1_kills", row)
    (told,) = suite.run(["R1"], full=False, folder=tmp_path)
    assert told.passed is not stays
    kept = list(tmp_path.glob("*/state"))
    assert bool(kept) is stays
    assert told.note == (f"seed 1; missed: lost; what it left to look at is in {kept[0].parent}" if stays else "seed 1")


@pytest.mark.timeout(120)
def test_interrupted_it_leaves_nothing_behind(tmp_path):
    # Who runs the tests may ignore the signal, and a child would too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    torture = subprocess.Popen(
        [sys.executable, "-m", "triage.cli", "torture", "--row", "R1", "--folder", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, cwd=ROOT,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*/state/outbox.sqlite")) and time.monotonic() < deadline:
            time.sleep(0.05)
        torture.send_signal(signal.SIGINT)
        said, _ = torture.communicate(timeout=60)
    finally:
        torture.kill()
    assert torture.returncode == 130, said
    assert list(tmp_path.iterdir()) == []
    assert not running_below(tmp_path)


def running_below(folder):
    """Return the command lines of processes that name `folder`."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found
