"""Rules of the house, kept by the machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_import_directions():
    lint = shutil.which("lint-imports")
    if lint is None:
        pytest.skip("import-linter is in the lint extra")
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_nothing_stands_at_the_top_but_what_was_agreed():
    allowed = {"pyproject.toml", "README.md", "LICENSE", "scanner_io", "triage", "drivers", "tests", "fixtures"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= allowed


LIGHT = (["--help"], ["--version"], ["triage", "--help"], ["run", "--help"], ["bench", "--help"])


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_the_command_line_imports_nothing_heavy_before_it_computes(words):
    code = f"""
import sys
from triage.cli import cli
try:
    cli({words!r}, standalone_mode=False)
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = set(done.stderr.split())
    assert loaded.isdisjoint({"numba", "llvmlite", "numpy", "scipy", "cv2", "h5py", "zmq", "rich", "pymodbus"})
    assert len(loaded) < 330
