"""The seal of a recording: a hash of every byte of its file that no chunk's checksum covers, at the end of the file.

A flipped bit in the counts is seen by Fletcher32, one in a value that is read by the hashes of values. Names, types,
places, whatever is there for viewers and the room between them is HDF5's own structure, of which libhdf5 checks a part.
The seal covers all of it, and is compared before libhdf5 sees the file: a damaged structure can make it turn in a
circle or end the process.

    file                what HDF5 wrote; readers of HDF5 pay no heed to what follows
    apart               n times (offset, length), 2 x uint64: chunks of counts, in order; Fletcher32 covers them
    sha256              32 bytes, of all the rest of `file` in order, then of `apart`, `length` and `n`
    length, n           uint64 each: of `file`, bytes; of `apart`, entries
    "scanlane seal 1"   and a line feed

All little-endian. It is no signature: whoever can write the file can seal
it anew; the audit's chain holds the hash of the whole.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from .errors import DataError

MAGIC = b"scanlane seal 1\n"
_TAIL = struct.Struct("<32sQQ16s")
_APART = struct.Struct("<QQ")
_PIECE = 1 << 20
MAX_APART = 1 << 16


def present(path: Path) -> bool:
    """Tell whether a file ends as a sealed one does. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        return size >= _TAIL.size and _at(file, size - len(MAGIC), len(MAGIC)) == MAGIC


class Readable(Protocol):
    """What a seal is made of: a file at any place in it."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move to a place."""

    def read(self, count: int, /) -> bytes:
        """Return the bytes from there, fewer at the end."""


def made(file: Readable, length: int, apart: Iterable[tuple[int, int]]) -> bytes:
    """Return the seal to append to a file.

    length : of the file, bytes
    apart : (offset, length) of what a checksum of its own covers, in any order, apart from each other
    """
    places = joined(apart)
    table = b"".join(_APART.pack(*one) for one in places)
    return table + _TAIL.pack(_digest(file, length, places), length, len(places), MAGIC)


def compared(file: Readable, name: str) -> list[tuple[int, int]] | None:
    """Compare a file with its seal; return what the seal leaves to checksums as (offset, length), None without a seal.

    name : what messages call the file

    Raises DataError.
    """
    size = file.seek(0, os.SEEK_END)
    tail = _at(file, size - _TAIL.size, _TAIL.size) if size >= _TAIL.size else b""
    if not tail.endswith(MAGIC):
        return None
    told, length, count, _ = _TAIL.unpack(tail)
    if count > MAX_APART or length + count * _APART.size + _TAIL.size != size:
        raise DataError(
            f"{name}: {size} bytes, its seal is of {length} bytes and {count} places: something was cut off, added or "
            f"changed; fetch it again from where it was copied"
        )
    table = _at(file, length, count * _APART.size)
    apart = [(at, extent) for at, extent in _APART.iter_unpack(table)]
    end = 0
    for at, extent in apart:
        if not end <= at < at + extent <= length:
            raise DataError(f"{name}: its seal speaks of bytes {at} to {at + extent} of {length}: the seal is damaged")
        end = at + extent
    if (seen := _digest(file, length, apart)) != told:
        raise DataError(
            f"{name}: the file's structure hashes to {seen.hex()[:16]}…, its seal says {told.hex()[:16]}…: it was "
            f"damaged or changed; fetch it again from where it was copied"
        )
    return apart


def joined(apart: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return places in order, neighbours as one."""
    places: list[tuple[int, int]] = []
    for at, extent in sorted(apart):
        if places and sum(places[-1]) == at:
            places[-1] = (places[-1][0], places[-1][1] + extent)
        else:
            places.append((at, extent))
    return places


def _digest(file: Readable, length: int, apart: Sequence[tuple[int, int]]) -> bytes:
    digest = hashlib.sha256()
    begin = 0
    for at, extent in (*apart, (length, 0)):
        while begin < at:
            piece = _at(file, begin, min(_PIECE, at - begin))
            if not piece:  # it shrinks while it is read
                break
            digest.update(piece)
            begin += len(piece)
        begin = at + extent
    for one in apart:
        digest.update(_APART.pack(*one))
    digest.update(_APART.pack(length, len(apart)))
    return digest.digest()


def _at(file: Readable, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)
