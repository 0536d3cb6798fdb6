"""What a process need not keep of the memory that starting it took.

A lane imports numba, whose compiler is a library of 150 MB. Loading kernels from the cache touches 65 MB of it, and
starting the other libraries as much again as scans will ever use of them: measured, 115 MB of code and constants are
mapped after the warm-up, and 9 MB are touched by what follows. The rest is handed back: should it be wanted after all,
it is read from its file again, as at the first time.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SMAPS = Path("/proc/self/smaps")
LARGE_BYTES = 2 << 20
"""Blocks of this size get pages of their own, which go back to the system with them."""

_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-([x-])p \S+ \S+ [1-9]\d* +(\S.*\.so[^/]*)$")
_HEADER = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
_M_MMAP_THRESHOLD = -3  # malloc.h of glibc


def clean_code(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of every mapping of a library that can be read from its file again: nothing was written to it.

    smaps : lines of /proc/PID/smaps; Source: proc_pid_smaps(5)

    A mapping that is not writable now may have been while the loader entered addresses. Such pages exist nowhere else;
    the system counts them as anonymous.
    """
    found: re.Match[str] | None = None
    for line in smaps:
        if _HEADER.match(line):
            found = _MAPPING.match(line.rstrip("\n"))
        elif line.startswith("Anonymous:") and found is not None and int(line.split()[1]) == 0:
            yield int(found[1], 16), int(found[2], 16)


def hand_back_code() -> None:
    """Hand the mapped pages of libraries back to the system. Nothing on systems that do not tell what is mapped.

    Called by a lane between the steps of its start and before it judges a large scan, 15 ms each. Other threads may run
    meanwhile. Raises OSError.
    """
    if not SMAPS.is_file():
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for first, end in list(clean_code(SMAPS.read_text().splitlines())):
        if madvise(first, end - first, mmap.MADV_DONTNEED):
            number = ctypes.get_errno()
            raise OSError(number, f"madvise of {first:x}-{end:x}: {os.strerror(number)}")


def return_large_blocks() -> None:
    """Let the allocator give blocks of LARGE_BYTES back as soon as they are freed; nothing where it is not glibc's.

    Of its own it raises that bound with every image that is freed, up to 32 MB, and keeps the next ones: measured,
    15 MB of a lane that had judged one radiograph of 40 MB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
