"""Compiled kernels, one per file: arrays in, arrays out; numba and numpy only.

A kernel's machine code includes the kernels it calls, but numba's cache looks only at the kernel's own file: after an
update it would go on with the old code of a kernel that another calls, and scores would be wrong in silence. So the
cache has a folder for every state of all sources together.
"""

import hashlib
import os
from pathlib import Path

import numba


def cache_folder() -> Path | None:
    """Return the folder of these sources: in NUMBA_CACHE_DIR, else in the user's cache folder (XDG_CACHE_HOME).

    None for a user without a home; numba then keeps the code beside the sources, as where a folder cannot be written.
    """
    told, cache = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111 -- Path.home() raises where there is none
    if told or cache:
        base = Path(told) if told else Path(str(cache)) / "scanlane"
    elif home.startswith("~"):
        return None
    else:
        base = Path(home) / ".cache" / "scanlane"
    state = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        state.update(source.name.encode() + b"\0" + source.read_bytes())
    state.update(repr((numba.config.BOUNDSCHECK, numba.config.OPT, numba.config.CPU_NAME)).encode())
    return base / f"kernels-{state.hexdigest()[:16]}"


if (_folder := cache_folder()) is not None:
    numba.config.CACHE_DIR = str(_folder)
