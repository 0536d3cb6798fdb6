"""Recordings read in a process of their own: those from elsewhere, and those of the first form.

Recordings of the first form keep texts in HDF5's global heap, which no checksum covers: one flipped bit there makes
libhdf5 turn in a circle for ever. A reader that is confined and has a time limit can be ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from .errors import DataError
from .model import Scan, TriageResult
from .sandbox import Sandbox, Task

if TYPE_CHECKING:
    from .recording import Recording

_HERE = __name__
RECORDING = Task(_HERE, "read_recording", ("hdf5plugin", "scanner_io.recording"))
CHECK = Task(_HERE, "check_recording", ("hdf5plugin", "scanner_io.recording"))

MAX_CONFIG_BYTES = 4 << 20


def recording_of(sandbox: Sandbox, file: int | bytes | memoryview, name: str) -> Recording:
    """Return what a recording holds that is open, or of these bytes. name : what messages call it. Raises DataError."""
    from .recording import Recording

    told: _RecordingAnswer = sandbox.run(RECORDING, file, name=name, ask=None, answer=_RecordingAnswer)
    if len(told.config) > MAX_CONFIG_BYTES:
        raise DataError(f"{name}: a configuration of {len(told.config)} bytes, at most {MAX_CONFIG_BYTES} are read")
    try:
        config = msgspec.json.decode(told.config, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError(f"{name}: its configuration cannot be read ({error})") from error
    fields = {f: getattr(told, f) for f in told.__struct_fields__}
    return Recording(**{**fields, "config": config})


def read_once(path: Path) -> Recording:
    """Return what a recording holds, read by a process that is begun for it and ended. Raises DataError."""
    sandbox = Sandbox()
    try:
        with path.open("rb") as file:
            return recording_of(sandbox, file.fileno(), str(path))
    finally:
        sandbox.close()


def check_once(path: Path) -> list[Any]:
    """Return the problems of a recording, found by a process that is begun for it and ended. Raises DataError."""
    from .recording import Problem

    sandbox = Sandbox()
    try:
        with path.open("rb") as file:
            found: list[Any] = sandbox.run(CHECK, file.fileno(), name=str(path), ask=None, answer=list[Problem])
            return found
    finally:
        sandbox.close()


# ---------------------------------------------------------------------------------------------- in the reader's process


class _RecordingAnswer(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A recording; its configuration as JSON, because values of any type can be small here and large in memory."""

    scan: Scan
    config: bytes
    result: TriageResult | None
    software: str
    pixels_hash: str
    content_sha256: str
    sealed: bool
    first_form: bool = False


def read_recording(file: BinaryIO, name: str, ask: None) -> _RecordingAnswer:
    """Read a recording; see `recording_of`."""
    from . import recording

    found = recording.read(Path(name), file, apart=True)
    fields = {f: getattr(found, f) for f in found.__struct_fields__}
    return _RecordingAnswer(**{**fields, "config": msgspec.json.encode(found.config)})


def check_recording(file: BinaryIO, name: str, ask: None) -> list[Any]:
    """Check a recording; see `ForeignFiles.check`."""
    from . import recording

    return recording.check(Path(name), file, apart=True)
