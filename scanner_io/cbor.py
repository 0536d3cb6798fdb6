"""CBOR read without a copy: byte strings are views of the message, so that 40 MB of counts are not moved once more.

Everything a message may hold is read but simple values beyond true, false, null and undefined, which are None. Written
for streams of counts: a general decoder copies every byte string, which takes as long as receiving it (measured: 20 ms
per 40 MB for fresh memory).

Source: RFC 8949, sections 3 and 3.4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from .errors import DataError

MAX_DEPTH = 16
MAX_ITEMS = 100_000
"""Of one message: arrays of numbers come as byte strings."""
_BREAK = object()
_FLOATS = {25: ("e", 2), 26: ("f", 4), 27: ("d", 8)}


def loads(message: bytes | memoryview, tagged: Callable[[int, Any], Any]) -> Any:
    """Return the value of a message; byte strings are memoryviews of it.

    tagged : returns what a tag (number, value) stands for

    Raises DataError for bytes that are no CBOR, or end early, or are followed by more.
    """
    reader = _Reader(memoryview(message).cast("B"), tagged)
    value = reader.item(0)
    if value is _BREAK or reader.at != len(reader.view):
        raise DataError(f"CBOR: {len(reader.view) - reader.at} bytes after the end of the value")
    return value


class _Reader:
    def __init__(self, view: memoryview, tagged: Callable[[int, Any], Any]) -> None:
        self.view, self.at, self._tagged, self._left = view, 0, tagged, MAX_ITEMS

    def _take(self, count: int) -> memoryview:
        if count > len(self.view) - self.at:
            raise DataError(f"CBOR: {count} bytes wanted at byte {self.at}, {len(self.view) - self.at} are left")
        part = self.view[self.at : self.at + count]
        self.at += count
        return part

    def item(self, depth: int) -> Any:
        """Return the next value."""
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            raise DataError(f"CBOR: deeper than {MAX_DEPTH} or more than {MAX_ITEMS} values")
        head = self._take(1)[0]
        major, minor = head >> 5, head & 31
        if major == 7:
            return self._simple(minor)
        length = self._argument(minor)
        if length is None and major not in (2, 3, 4, 5):
            raise DataError(f"CBOR: a head {head:#04x} at byte {self.at - 1}")
        match major:
            case 0:
                return length
            case 1:
                return -1 - (length or 0)
            case 2 | 3:
                return self._string(length, major, depth)
            case 4:
                return self._several(length, depth)
            case 5:
                values = self._several(None if length is None else 2 * length, depth)
                if len(values) % 2 or any(not isinstance(k, str | int) for k in values[::2]):
                    raise DataError("CBOR: a map whose keys are no texts or numbers")
                return dict(zip(values[::2], values[1::2], strict=True))
            case _:
                return self._tagged(length or 0, self.item(depth + 1))

    def _argument(self, minor: int) -> int | None:
        """Return the number in a head; None for an indefinite length."""
        if minor < 24:
            return minor
        if minor == 31:
            return None
        if minor > 27:
            raise DataError(f"CBOR: a head with {minor} at byte {self.at - 1}")
        return int.from_bytes(self._take(1 << (minor - 24)), "big")

    def _simple(self, minor: int) -> Any:
        if minor in _FLOATS:
            kind, size = _FLOATS[minor]
            return struct.unpack(f">{kind}", self._take(size))[0]
        if minor == 24:
            self._take(1)
        elif 24 < minor < 31:
            raise DataError(f"CBOR: a head with {minor} at byte {self.at - 1}")
        return {20: False, 21: True, 31: _BREAK}.get(minor)

    def _string(self, length: int | None, major: int, depth: int) -> Any:
        if length is None:  # in pieces
            pieces: list[Any] = []
            while (piece := self.item(depth + 1)) is not _BREAK:
                if not isinstance(piece, memoryview if major == 2 else str):
                    raise DataError("CBOR: a string in pieces of another kind")
                pieces.append(piece)
            return memoryview(b"".join(pieces)) if major == 2 else "".join(pieces)
        part = self._take(length)
        if major == 2:
            return part
        try:
            return str(part, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"CBOR: a text that is no UTF-8 at byte {self.at - length}") from error

    def _several(self, length: int | None, depth: int) -> list[Any]:
        values: list[Any] = []
        while length is None or len(values) < length:
            value = self.item(depth + 1)
            if value is _BREAK:
                if length is None:
                    break
                raise DataError(f"CBOR: a break inside {length} values")
            values.append(value)
        return values
