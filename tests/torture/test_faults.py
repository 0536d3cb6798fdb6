"""Faults below SQLite, where the library can be reached."""

import json
import subprocess
import sys

import pytest

from tests.service.daemon_rig import ENVIRONMENT, ROOT

CODE = """
import json, sys
from pathlib import Path
from triage.torture.faults import FaultyDisk
from triage.torture.sqlite_faults import put_between

wrong = []
disk = FaultyDisk(lambda call: wrong.pop() if wrong and call.name == sys.argv[2] else None)
if not put_between(disk):
    sys.exit("no library")
from triage.service.outbox import Outbox
path = Path(sys.argv[1])
said = []
box = Outbox(path)
box.note("before", "")
wrong.append(sys.argv[3])
for kind in ("during", "after"):
    try:
        box.note(kind, "")
    except Exception as error:
        said.append(f"{type(error).__name__}: {error}")
first = len(disk.calls)
box.close()
closing = [call.name for call in disk.calls[first:]]
box = Outbox(path)
kinds = [kind for (kind,) in box.store.rows("SELECT kind FROM events")]
box.close()
print(json.dumps([said, closing, kinds]))
"""


def under_fault(path, call, fault):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path), call, fault], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT
    )
    if "no library" in done.stderr:
        pytest.skip("Python's SQLite is not a library of its own here")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_committed_on_top_of_a_sync_that_failed(tmp_path):
    said, closing, kinds = under_fault(tmp_path / "outbox.sqlite", "sqlite sync", "EIO")
    assert len(said) == 2
    assert "nothing more is committed here" in said[1]
    assert "sqlite sync" not in closing
    assert kinds == ["before", "during"]  # nobody was told that it is not there


def test_a_full_disk_costs_one_commit(tmp_path):
    said, _, kinds = under_fault(tmp_path / "outbox.sqlite", "sqlite write", "ENOSPC")
    assert len(said) == 1
    assert "full" in said[0]
    assert kinds == ["before", "after"]
