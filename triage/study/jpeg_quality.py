"""How strongly a JPEG file was compressed, so that an image with an object in it can be compressed just so."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError

Array: TypeAlias = NDArray[Any]

_DQT, _SOS = 0xDB, 0xDA


def luminance_table(contents: bytes) -> tuple[int, ...] | None:
    """Return the 64 steps with which brightness was quantised, None if there is no table before the image data.

    Source: ITU-T T.81, B.2.4.1.
    """
    at = 2
    while at + 4 <= len(contents) and contents[at] == 0xFF and contents[at + 1] != _SOS:
        end = at + 2 + int.from_bytes(contents[at + 2 : at + 4], "big")
        for number, steps in _tables(contents[at + 4 : end]) if contents[at + 1] == _DQT else ():
            if number == 0 and len(steps) == 64:
                return steps
        at = end
    return None


def _tables(segment: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield number and steps of every table in a segment."""
    while segment:
        wide = 2 if segment[0] >> 4 else 1
        body = segment[1 : 1 + 64 * wide]
        yield segment[0] & 15, tuple(int.from_bytes(body[i : i + wide], "big") for i in range(0, len(body), wide))
        segment = segment[1 + 64 * wide :]


def jpeg_quality(contents: bytes) -> int | None:
    """Return the quality, 1..100, at which our encoder quantises most like the file; None if it is no JPEG file."""
    table = luminance_table(contents)
    if table is None:
        return None
    wanted = np.log(np.maximum(table, 1))
    return min(range(100, 0, -1), key=lambda q: float(np.abs(np.log(_own_table(q)) - wanted).sum()))


@functools.cache
def _own_table(quality: int) -> Array:
    table = luminance_table(_encoded(np.zeros((8, 8), np.uint8), quality))
    assert table is not None
    return np.array(table)


def _encoded(image: Array, quality: int) -> bytes:
    done, contents = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    if not done:
        raise DataError(f"an image of {image.dtype} {image.shape} cannot be compressed as JPEG")
    return contents.tobytes()


def recompressed(image: Array, quality: int) -> Array:
    """Return (rows, columns) uint8 after compression and decompression."""
    return np.asarray(cv2.imdecode(np.frombuffer(_encoded(image, quality), np.uint8), cv2.IMREAD_GRAYSCALE))
