"""Rules of the house, kept by the machine."""

import ast
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


CHANGES = {
    "os": {
        "write", "pwrite", "fsync", "fdatasync", "rename", "replace", "link", "unlink", "remove", "truncate",
        "ftruncate", "posix_fallocate", "mkdir", "makedirs", "rmdir", "symlink",
    },
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"},
}  # fmt: skip
METHODS = {"write_text", "write_bytes", "unlink", "rename", "mkdir", "rmdir", "touch", "hardlink_to", "symlink_to"}
NOT_KEPT = {
    "scanner_io/disk.py": "is the layer itself",
    "scanner_io/sandbox": "pipes, memory, and a proof that nothing can be written",
    "scanner_io/skeleton": "writes source text for a programmer, once",
    "drivers/simulated": "plays a device on a pseudo-terminal; its truth is no record of a lane",
    "triage/service/demo.py": "everything it makes is for the demonstration",
    "triage/service/simulated.py": "simulated data, made again from its seed",
}


def test_whatever_must_last_goes_through_the_layer_whose_calls_can_be_made_to_fail():
    found = []
    for room in ("scanner_io", "drivers", "triage/service"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not any(name.startswith(place) for place in NOT_KEPT):
                found += [f"{name}:{line} {what}" for line, what in changes(ast.parse(path.read_text()))]
    assert not found, found


def changes(tree):
    """Yield where a module changes the file system by itself."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of, what = node.func.value, node.func.attr
        of = of.id if isinstance(of, ast.Name) else ast.unparse(of)
        if of == "disk.io()":
            continue
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        path_replaced = what == "replace" and len(node.args) == 1 and not node.keywords
        written = what == "open" and any(set(t) & set("wax+") for t in texts if len(t) <= 3)
        flags = what == "open" and of == "os" and any(f in ast.unparse(node) for f in ("O_WRONLY", "O_RDWR", "O_CREAT"))
        if what in CHANGES.get(of, ()) or what in METHODS or path_replaced or written or flags:
            yield node.lineno, f"{of}.{what}"
