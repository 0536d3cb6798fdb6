"""Chunks of counts in the form in which HDF5's filters store them: transposed, compressed and summed by our kernels.

libhdf5 runs its filters on one core and copies between them; 40 MB take it 60 ms without and 80 ms with compression.
What is made here is what those filters would read back, and every reader needs only them.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from scanner_io.errors import DataError
from scanner_io.recording import Codec
from triage.kernels.bitshuffle16 import BLOCK, bitshuffle16
from triage.kernels.fletcher32 import fletcher32
from triage.kernels.lz4_blocks import lz4_blocks
from triage.kernels.lz4_matches import MIN_MATCH, TABLE

HEADER = struct.Struct(">QI")
CHECKSUM = 4


def packer(codec: Codec) -> Packing | None:
    """Return what packs chunks of this codec; None where that is left to libhdf5."""
    return Packing() if codec in ("none", "bitshuffle-lz4") else None


class Packing:
    """A packer that keeps working memory per thread. Codecs it does not know are an error."""

    def __init__(self) -> None:
        self._memory = threading.local()

    def _scratch(self, name: str, size: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
        kept: npt.NDArray[Any] | None = getattr(self._memory, name, None)
        if kept is None or kept.size < size:
            kept = np.empty(size, dtype)
            setattr(self._memory, name, kept)
        return kept[:size]

    def room(self, shape: tuple[int, int], codec: Codec) -> int:
        """Return the most bytes that a chunk of (rows, columns) can take. Raises DataError for an unknown codec."""
        raw = 2 * shape[0] * shape[1]
        if codec == "none":
            return raw + CHECKSUM
        if codec == "bitshuffle-lz4":
            # what cannot be compressed takes a little more; see lz4_blocks
            return HEADER.size + raw + raw // 255 + 20 * -(-raw // (2 * BLOCK)) + CHECKSUM
        raise DataError(f"packing: codec {codec!r} is left to libhdf5; write without a packer")

    def pack(
        self, part: npt.NDArray[np.uint16], first_channel: Literal["top", "bottom"], shape: tuple[int, int],
        codec: Codec, out: npt.NDArray[np.uint8],
    ) -> int:  # fmt: skip
        """Write the chunk to `out` and return its length; see `recording.Packer`."""
        size = shape[0] * shape[1]
        if codec == "none":
            _upright(part, first_channel, out[: 2 * size].view(np.uint16).reshape(shape))
            return _summed(out, 2 * size)
        counts = self._scratch("counts", size, np.uint16)
        _upright(part, first_channel, counts.reshape(shape))
        planes, whole = self._scratch("planes", 2 * size, np.uint8), size // 8 * 16
        bitshuffle16(counts, self._scratch("halves", 2 * (BLOCK // 8), np.uint64).reshape(2, -1), planes)
        # Source: header of the bitshuffle filter: bytes in all, bytes in a block; fewer than 8 values left over follow
        # the blocks as they are.
        HEADER.pack_into(out.data, 0, 2 * size, 2 * BLOCK)
        end = HEADER.size
        end += self._compressed(planes[:whole], shape[1], out[end:])
        out[end : end + 2 * size - whole] = planes[whole:]
        return _summed(out, end + 2 * size - whole)

    def intact(self, chunk: npt.NDArray[np.uint8], codec: Codec) -> bool:
        """Return whether a stored chunk has the checksum that it ends with; see `recording.Packer`."""
        end = chunk.size - CHECKSUM
        return end >= 0 and fletcher32(chunk[:end]) == struct.unpack_from("<I", chunk.data, end)[0]

    def _compressed(self, planes: npt.NDArray[np.uint8], columns: int, out: npt.NDArray[np.uint8]) -> int:
        # what is apt to be the same: the plane below and, where rows are whole bytes of it, the row above
        distances = [BLOCK // 8, columns // 8] if columns % 8 == 0 and columns >= 64 else [BLOCK // 8]
        bits = self._scratch("bits", 2 * (2 * BLOCK // 64 + 2), np.uint64).reshape(2, -1)
        matches = self._scratch("matches", 3 * (2 * BLOCK // MIN_MATCH + 1), np.uint16).reshape(-1, 3)
        table = self._scratch("table", TABLE, np.uint16)
        return int(lz4_blocks(planes, 2 * BLOCK, np.array(distances), bits, table, matches, out))


def _upright(part: npt.NDArray[np.uint16], first_channel: str, image: npt.NDArray[np.uint16]) -> None:
    columns, rows = part.shape
    if (rows, columns) != image.shape:
        image[:] = 0
        image = image[:rows, :columns]
    if first_channel == "bottom":
        cv2.rotate(part, cv2.ROTATE_90_COUNTERCLOCKWISE, image)
    else:
        cv2.transpose(part, image)


def _summed(out: npt.NDArray[np.uint8], end: int) -> int:
    """Put the checksum behind what is stored; return the length."""
    struct.pack_into("<I", out.data, end, fletcher32(out[:end]))
    return end + CHECKSUM
