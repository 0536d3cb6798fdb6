"""A driver to begin with: the files that `scanlane drivers new` writes, from the templates beside this file."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

from scanner_io import driver
from scanner_io.errors import ConfigError

FILES = {
    "driver.py.txt": "@name@.py", "rig.py.txt": "@name@_rig.py", "test.py.txt": "test_@name@.py",
    "pyproject.toml.txt": "pyproject.toml",
}  # fmt: skip


def write(name: str, folder: Path) -> list[Path]:
    """Write a driver called `name` into `folder`, which is made, and return the files.

    Raises ConfigError for a name that no module can have or that is taken, and for a folder that has any of the files.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", name) or keyword.iskeyword(name):
        raise ConfigError([f"driver {name!r}: expected a name of small letters, digits and _, such as acme_p60"])
    if name in driver.names():
        raise ConfigError([f"driver {name!r}: there is one already; see `scanlane drivers list`"])
    paths = {source: folder / target.replace("@name@", name) for source, target in FILES.items()}
    there = [str(path) for path in paths.values() if path.exists()]
    if there:
        raise ConfigError([f"{path}: there already; give another folder with --out" for path in there])
    folder.mkdir(parents=True, exist_ok=True)
    words = {"@name@": name, "@Class@": class_of(name), "@Title@": name.replace("_", " ").title()}
    for source, path in paths.items():
        text = files(__name__).joinpath(source).read_text("utf-8")
        for mark, word in words.items():
            text = text.replace(mark, word)
        path.write_text(text, encoding="utf-8")
    return list(paths.values())


def class_of(name: str) -> str:
    """Return the name as a class has it: acme_p60 becomes AcmeP60."""
    return "".join(part.title() for part in name.split("_"))
