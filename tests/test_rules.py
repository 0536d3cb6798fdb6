"""Rules of the house, kept by the machine."""

import shutil
import subprocess
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
