"""Compiled kernels, one per file: arrays in, arrays out; numba and numpy only.

A kernel's machine code includes the kernels it calls, but numba's cache looks only at the kernel's own file: after an
update it would go on with the old code of a kernel that another calls, and scores would be wrong in silence. So the
cache has a folder for every state of all sources together.

It also runs whatever it finds there: after a power cut that is zeros, with a bad disk anything, and no lane could ever
begin again. So every file ends with its hash, and one that does not is compiled anew; a folder that cannot be written
costs the time to compile, nothing else.
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core import caching


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


SEAL_BYTES = hashlib.sha256().digest_size


class _Sealing:
    """A file that hashes what it is given."""

    def __init__(self, file: Any) -> None:
        self._file, self.hash = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return int(self._file.write(data))


class SealedCacheFile(caching.IndexDataCacheFile):
    """Files of one kernel's compiled code, each with the SHA-256 of what is before it at its end."""

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[_Sealing]:
        with super()._open_for_write(filepath) as file:
            sealing = _Sealing(file)
            yield sealing
            file.write(sealing.hash.digest())

    def _load_index(self) -> dict[Any, str]:
        return super()._load_index() if is_sealed(Path(self._index_path)) else {}

    def _load_data(self, name: str) -> Any:
        path = Path(self._data_path(name))
        if not is_sealed(path):
            raise OSError(f"{path}: damaged")  # then it is compiled
        return super()._load_data(name)

    def save(self, key: Any, data: Any) -> None:
        """Keep compiled code, where that is possible."""
        try:
            super().save(key, data)
        except OSError as error:
            warnings.warn(f"compiled kernels are not kept: {error}", RuntimeWarning, stacklevel=2)


def is_sealed(path: Path) -> bool:
    """Tell whether a file of the cache is as it was written; one that is not there is not."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data[:-SEAL_BYTES]).digest() == data[-SEAL_BYTES:]


class FolderIfPossible(caching.UserProvidedCacheLocator):
    """The folder above, also one that can only be read, or not even that."""

    def ensure_cache_path(self) -> None:
        """Make the folder, where that is possible."""
        with contextlib.suppress(OSError):  # told when there is something to keep
            super().ensure_cache_path()


caching.IndexDataCacheFile = SealedCacheFile
caching.CacheImpl._locator_classes.insert(0, FolderIfPossible)  # noqa: SLF001 -- there is no other way in
