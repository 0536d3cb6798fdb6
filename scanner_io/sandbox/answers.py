"""How a reader's answer travels: a msgpack head, then arrays as raw bytes. Never a pickle: a reader is not believed.

    4 bytes     length of the head, little-endian
    head        msgpack: error, text, arrays as (type, shape), value
    arrays      one after the other

Large arrays stand in `value` as (type, shape, number) and lie behind the head, small ones as (type, shape, bytes).
Whoever receives an answer checks it as if it came from an attacker: sizes before memory is taken, the types of all
values by msgspec, and what belongs together by the types' own checks.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_origin

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import DataError, ScannerError

MAX_HEAD_BYTES = 64 << 20
MAX_ARRAY_BYTES = 3 << 29
"""Of all arrays of one answer: a radiograph of two energies and of the most pixels accepted takes 1 GiB."""
MAX_LARGE_ARRAYS = 100_000
MAX_ERROR_CHARS = 4000

_INLINE_BYTES = 4096
_TYPES = frozenset({"|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8"})
_MAX_DIMENSIONS = 3

Failure = Literal["", "DataError", "TruncatedError", "MemoryError"]


class Head(msgspec.Struct, frozen=True):
    """The head of an answer: a value, or the error that the reader ended with."""

    error: Failure
    text: str
    arrays: list[tuple[str, tuple[int, ...]]]
    value: msgspec.Raw


class NotBelievedError(DataError):
    """An answer that no sound reader gives."""


def encode(value: Any) -> Iterator[bytes | memoryview]:
    """Yield the parts of the answer `value`: types of msgspec, numpy arrays among them."""
    arrays: list[npt.NDArray[Any]] = []

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic):
            return item.item()
        if not isinstance(item, np.ndarray):
            raise TypeError(f"{type(item).__name__} in an answer")
        form = item.dtype.newbyteorder("<")
        little = np.ascontiguousarray(item, form)
        if little.nbytes <= _INLINE_BYTES:
            return form.str, item.shape, little.tobytes()
        arrays.append(little)
        return form.str, item.shape, len(arrays) - 1

    packed = msgspec.msgpack.encode(value, enc_hook=plain)
    forms = [(a.dtype.str, a.shape) for a in arrays]
    yield from _head(Head(error="", text="", arrays=forms, value=msgspec.Raw(packed)))
    for array in arrays:
        yield array.data.cast("B")


def encode_failure(error: Failure, text: str) -> Iterator[bytes]:
    """Yield the answer of a reader that failed."""
    # Lone surrogates stand for bytes of names that are no text; msgpack takes none.
    text = text[:MAX_ERROR_CHARS].encode("utf-8", "backslashreplace").decode()
    yield from _head(Head(error=error, text=text, arrays=[], value=msgspec.Raw(b"\xc0")))


def _head(head: Head) -> Iterator[bytes]:
    packed = msgspec.msgpack.encode(head)
    yield struct.pack("<I", len(packed))
    yield packed


class Source:
    """The receiving end of a pipe, read up to a deadline.

    wait : returns True when there is something to read, False at the deadline
    """

    def __init__(self, descriptor: int, wait: Callable[[], bool]) -> None:
        self._descriptor, self._wait = descriptor, wait

    def into(self, room: memoryview) -> None:
        """Fill `room`. Raises EOFError if the writer ends before, TimeoutError at the deadline."""
        while room:
            if not self._wait():
                raise TimeoutError
            count = os.readv(self._descriptor, [room])
            if not count:
                raise EOFError
            room = room[count:]

    def take(self, count: int) -> bytes:
        """Return exactly so many bytes; memory is taken as they come."""
        kept = io.BytesIO()
        piece = memoryview(bytearray(min(count, 1 << 20)))
        while (left := count - kept.tell()) > 0:
            part = piece[: min(left, len(piece))]
            self.into(part)
            kept.write(part)
        return kept.getvalue()

    def at_end(self) -> bool:
        """Return True if the writer has written no more. Raises TimeoutError."""
        if not self._wait():
            raise TimeoutError
        return not os.read(self._descriptor, 1)


class Received(msgspec.Struct, frozen=True):
    """An answer whose sizes are accepted and whose values are not looked at yet."""

    head: Head
    arrays: list[npt.NDArray[Any]]


def receive(source: Source) -> Received:
    """Return an answer. Raises NotBelievedError, and EOFError and TimeoutError as `source` does."""
    (length,) = struct.unpack("<I", source.take(4))
    if not 0 < length <= MAX_HEAD_BYTES:
        raise NotBelievedError(f"a head of {length} bytes, at most {MAX_HEAD_BYTES} are accepted")
    try:
        head = msgspec.msgpack.decode(source.take(length), type=Head)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise NotBelievedError(f"a head that cannot be read ({error})") from error
    if len(head.arrays) > MAX_LARGE_ARRAYS:
        raise NotBelievedError(f"{len(head.arrays)} large arrays, at most {MAX_LARGE_ARRAYS} are accepted")
    room = MAX_ARRAY_BYTES
    for form, shape in head.arrays:
        room -= _size(form, shape)
        if room < 0:
            raise NotBelievedError(f"arrays of more than {MAX_ARRAY_BYTES} bytes")
    arrays = []
    for form, shape in head.arrays:
        array = np.empty(shape, form)
        if array.nbytes:
            source.into(array.data.cast("B"))
        arrays.append(array)
    if not source.at_end():
        raise NotBelievedError("more bytes than its head tells")
    return Received(head=head, arrays=arrays)


def _size(form: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of an array. Raises NotBelievedError if its type or shape is none that readers give."""
    if form not in _TYPES or len(shape) > _MAX_DIMENSIONS or any(not 0 <= n <= MAX_ARRAY_BYTES for n in shape):
        raise NotBelievedError(f"an array of type {form[:20]!r} and shape {shape[:8]}")
    return math.prod(shape) * np.dtype(form).itemsize


class _InPlace(msgspec.Struct, frozen=True, array_like=True):
    """How an array stands in a value."""

    form: str
    shape: tuple[int, ...]
    place: int | bytes


def value_of(received: Received, answer: Any) -> Any:
    """Return the value of an answer, of the type `answer`. Raises NotBelievedError if it is of another."""

    def array(wanted: Any, item: Any) -> Any:
        if wanted is not np.ndarray and get_origin(wanted) is not np.ndarray:
            raise TypeError(f"{wanted} is no type of an answer")
        told = msgspec.convert(item, _InPlace)
        size = _size(told.form, told.shape)
        if isinstance(told.place, bytes):
            if len(told.place) != size:
                raise ValueError(f"{len(told.place)} bytes for an array of {size}")
            return np.frombuffer(told.place, told.form).reshape(told.shape)
        found = received.arrays[told.place] if 0 <= told.place < len(received.arrays) else None
        if found is None or (found.dtype.str, found.shape) != (told.form, told.shape):
            raise ValueError(f"refers to array {told.place}, which is not there or another")
        return found

    try:
        return msgspec.msgpack.decode(received.head.value, type=answer, dec_hook=array)
    except (
        msgspec.MsgspecError,
        ScannerError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as e:
        raise NotBelievedError(f"a value that is no {getattr(answer, '__name__', answer)} ({e})") from e
