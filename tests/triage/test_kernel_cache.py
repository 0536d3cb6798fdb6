"""Compiled code is kept per state of all kernels: old code of one that another calls would give wrong scores."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba

from triage import kernels


def test_every_state_of_the_sources_has_a_folder_of_its_own(tmp_path, monkeypatch):
    copy = tmp_path / "kernels"
    shutil.copytree(Path(kernels.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    here = kernels.cache_folder()
    monkeypatch.setattr(kernels, "__file__", str(copy / "__init__.py"))
    assert kernels.cache_folder() == here and here.parent == tmp_path / "cache"
    called = copy / "log_code.py"
    called.write_text(called.read_text() + "# changed\n")
    changed = kernels.cache_folder()
    assert changed != here
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert kernels.cache_folder() != changed


def test_a_cache_that_cannot_be_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "file" / "below")}
    words = (
        "from triage.kernels.fletcher32 import fletcher32; import numpy; print(fletcher32(numpy.ones(4, numpy.uint8)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", words], env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0 and done.stdout.strip().isdigit(), done.stderr
