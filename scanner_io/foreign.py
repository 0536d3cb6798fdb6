"""Foreign files: whatever was not written by the process that reads it, read in the sandbox.

Recordings that were brought from elsewhere are among them. Every method returns what the reader of the same format
returns, and raises DataError for what is wrong with the file. Use as a context manager, or `close` it.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from . import recording_apart
from .errors import DataError
from .formats.dicom_object import DicomAsk, DicomObject
from .formats.n42 import N42Document, N42Settings
from .formats.raster import Provenance, RasterOptions, check_size
from .model import CountBlock, Event, Health, Occupancy, Radiograph, Rejected
from .sandbox import Confinement, Sandbox, Task

if TYPE_CHECKING:
    from .formats.cargo import CargoMessage
    from .recording import Problem, Recording
    from .vendor_record import Sidecar

_HERE = __name__
RASTER = Task(_HERE, "read_raster", ("cv2",), "warm_raster")
N42 = Task(_HERE, "read_n42", ("scanner_io.formats.n42",))
DAILY = Task(_HERE, "read_daily", ("scanner_io.formats.portal_daily",))
SPECTRA = Task(_HERE, "read_spectra", ("scanner_io.formats.spectra",))
DICOM = Task(_HERE, "read_dicom", ("scanner_io.formats.dicom_image",), "warm_dicom")
SIDECAR = Task(_HERE, "read_sidecar", ("scanner_io.formats.sidecar",))
CARGO = Task(
    _HERE,
    "read_cargo",
    ("scanner_io.formats.cargo_any", "scanner_io.formats.cargo_edifact", "scanner_io.formats.cargo_json"),
)


class ForeignFiles:
    """Readers of foreign files; each kind's process is started when its first file comes.

    require : refuse to read where this system cannot confine readers as a whole
    """

    def __init__(self, *, require: bool = False) -> None:
        self._sandbox = Sandbox(require=require)

    def __enter__(self) -> ForeignFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all readers. May be called by any thread, any time, twice."""
        self._sandbox.close()

    def prepare(self, task: Task) -> None:
        """Begin to start what the first file of a kind will need."""
        self._sandbox.prepare(task)

    def confinement(self, task: Task = RASTER) -> Confinement:
        """Return what holds readers here; raises ConfigError if that is not all and all is required, LinkLost."""
        return self._sandbox.confinement(task)

    @property
    def sandbox(self) -> Sandbox:
        """Where the readers are; its `used` tells what the last one took."""
        return self._sandbox

    # -- the formats

    def raster(
        self, contents: bytes, *, name: str, start_utc_ns: int, start_how: str, options: RasterOptions | None = None
    ) -> tuple[Radiograph, Provenance]:  # fmt: skip
        """Return what `formats.raster.decode_raster` does."""
        ask = _RasterAsk(options=options or RasterOptions(), start_utc_ns=start_utc_ns, start_how=start_how)
        radiograph, provenance = self._run(RASTER, contents, name, ask, tuple[Radiograph, Provenance])
        # of the bytes that were given, not by the reader's word
        told = {"sha256": hashlib.sha256(contents).hexdigest(), "size_bytes": len(contents)}
        return radiograph, msgspec.structs.replace(provenance, **told)

    def raster_file(self, path: Path, *, options: RasterOptions | None = None) -> tuple[Radiograph, Provenance]:
        """Return the radiograph in an image file; its time is when the file was last modified."""
        with _opened(path) as descriptor:
            status = os.fstat(descriptor)
            check_size(status.st_size, str(path), options or RasterOptions())
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                contents = file.read()
        return self.raster(
            contents, name=str(path), start_utc_ns=status.st_mtime_ns, start_how="file modification time",
            options=options,
        )  # fmt: skip

    def recording(self, path: Path) -> Recording:
        """Return what `recording.read` does."""
        with _opened(path) as descriptor:
            return self.recording_of(descriptor, str(path))

    def recording_of(self, file: int | bytes | memoryview, name: str) -> Recording:
        """Return what a recording holds that is open, or of these bytes. name : what messages call it."""
        return recording_apart.recording_of(self._sandbox, file, name)

    def check(self, path: Path) -> list[Problem]:
        """Return what `recording.check` does; what cannot be read at all is a problem too."""
        from .recording import Problem

        try:
            with _opened(path) as descriptor:
                found: list[Problem] = self._run(recording_apart.CHECK, descriptor, str(path), None, list[Problem])
        except DataError as error:
            return [Problem(check="readable", where=str(path), text=str(error))]
        return found

    def n42(self, path: Path, settings: N42Settings | None = None) -> N42Document:
        """Return what `formats.n42.read` does."""
        with _opened(path) as descriptor:
            document: N42Document = self._run(N42, descriptor, str(path), settings or N42Settings(), N42Document)
        return document

    def spectra(self, path: Path) -> N42Document:
        """Return what `formats.spectra.read_spectra` does."""
        with _opened(path) as descriptor:
            document: N42Document = self._run(SPECTRA, descriptor, str(path), None, N42Document)
        return document

    def sidecar(self, contents: bytes, *, name: str, utc_offset_h: float | None = None) -> Sidecar:
        """Return what `formats.sidecar.parse_sidecar` does."""
        from .vendor_record import Sidecar

        sidecar: Sidecar = self._run(SIDECAR, contents, name, utc_offset_h, Sidecar)
        return sidecar

    def cargo(self, contents: bytes, *, name: str) -> tuple[CargoMessage, ...]:
        """Return what `formats.cargo_any.read_cargo` does."""
        from .formats.cargo import CargoMessage

        messages: list[CargoMessage] = self._run(CARGO, contents, name, None, list[CargoMessage])
        return tuple(messages)

    def dicom(
        self, contents: bytes, *, name: str, received_utc_ns: int, options: RasterOptions | None = None,
        utc_offset_h: float | None = None,
    ) -> DicomObject:  # fmt: skip
        """Return what `formats.dicom_image.read_dicom` does."""
        ask = DicomAsk(options=options or RasterOptions(), received_utc_ns=received_utc_ns, utc_offset_h=utc_offset_h)
        told: DicomObject = self._run(DICOM, contents, name, ask, DicomObject)
        return msgspec.structs.replace(told, sha256=hashlib.sha256(contents).hexdigest())

    def daily(self, path: Path, *, utc_offset_h: float = 0.0) -> Iterator[Event]:
        """Yield what `formats.portal_daily.iter_daily_file` does."""
        with _opened(path) as descriptor:
            told: _DailyAnswer = self._run(DAILY, descriptor, str(path), utc_offset_h, _DailyAnswer)
        for event in told.events:
            yield event.one(path)
        if told.error:
            raise DataError(told.error)

    def _run(self, task: Task, file: int | bytes | memoryview, name: str, ask: Any, answer: Any) -> Any:
        return self._sandbox.run(task, file, name=name, ask=ask, answer=answer)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Give a descriptor of a plain file. Raises DataError."""
    try:
        # A pipe put in a file's place does not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"{path}: cannot be read ({error})") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path}: is no plain file")
        yield descriptor
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------------------------------------- in the reader's process


class _RasterAsk(msgspec.Struct, frozen=True, kw_only=True):
    options: RasterOptions
    start_utc_ns: int
    start_how: str


class _DailyEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, eq=False):
    """One event of a portal; its kind is the field that is set."""

    counts: CountBlock | None = None
    occupancy: Occupancy | None = None
    health: Health | None = None
    rejected: Rejected | None = None

    def one(self, path: Path) -> Event:
        """Return the event. Raises DataError if there is none, or counts of another shape than a portal's."""
        events = [e for e in (self.counts, self.occupancy, self.health, self.rejected) if e is not None]
        if len(events) != 1 or (self.counts is not None and self.counts.counts.ndim != 2):
            raise DataError(f"{path}: its reader gave an event of {len(events)} kinds; look at it on another machine")
        return events[0]


class _DailyAnswer(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The events of a file up to its end, or to the error that ended its reading."""

    events: list[_DailyEvent]
    error: str = ""


_EVENT_FIELD = {CountBlock: "counts", Occupancy: "occupancy", Health: "health", Rejected: "rejected"}


def read_raster(file: BinaryIO, name: str, ask: _RasterAsk) -> tuple[Radiograph, Provenance]:
    """Read an image file; see `ForeignFiles.raster`."""
    from .formats.raster import decode_raster

    return decode_raster(
        file.read(), name=name, start_utc_ns=ask.start_utc_ns, start_how=ask.start_how, options=ask.options
    )


def warm_raster() -> None:
    """Decode an image made here: the first one of a process takes 15 ms more than the next."""
    import cv2
    import numpy as np

    image = np.full((32, 64), 200, np.uint8)
    image[8:, 16:48] = 60
    contents = cv2.imencode(".png", image)[1].tobytes()
    ask = _RasterAsk(options=RasterOptions(), start_utc_ns=0, start_how="")
    read_raster(io.BytesIO(contents), "sample", ask)


def read_n42(file: BinaryIO, name: str, ask: N42Settings) -> N42Document:
    """Read an N42 file; see `ForeignFiles.n42`."""
    from .formats.n42 import read
    from .formats.n42.tree import MAX_BYTES

    return read(file.read(MAX_BYTES + 1), ask, name=name)


def read_daily(file: BinaryIO, name: str, ask: float) -> _DailyAnswer:
    """Read a portal's daily file; see `ForeignFiles.daily`."""
    from .formats.portal_daily import iter_daily_file

    events = []
    try:
        for event in iter_daily_file(name, utc_offset_h=ask, stream=file):
            events.append(_DailyEvent(**{_EVENT_FIELD[type(event)]: event}))  # type: ignore[arg-type]
    except DataError as error:  # the passages before are told
        return _DailyAnswer(events=events, error=str(error))
    return _DailyAnswer(events=events)


def read_sidecar(file: BinaryIO, name: str, ask: float | None) -> Any:
    """Read a scanner's sidecar; see `ForeignFiles.sidecar`."""
    from .formats.sidecar import MAX_BYTES, parse_sidecar

    return parse_sidecar(file.read(MAX_BYTES + 1), name=name, utc_offset_h=ask)


def read_cargo(file: BinaryIO, name: str, ask: None) -> Any:
    """Read cargo messages; see `ForeignFiles.cargo`."""
    from .formats.cargo_any import read_cargo as read

    return list(read(file.read(), name))


def read_dicom(file: BinaryIO, name: str, ask: DicomAsk) -> Any:
    """Read a DICOM file; see `ForeignFiles.dicom`."""
    from .formats.dicom_image import read_dicom as read

    return read(file.read(), name, ask)


def warm_dicom() -> None:
    """Load the decoders: they look for themselves at first use."""
    from .formats.dicom_image import warm_up

    warm_up()


def read_spectra(file: BinaryIO, name: str, ask: None) -> N42Document:
    """Read a spectrum file; see `ForeignFiles.spectra`. Its library opens the file by a path."""
    from .formats.spectra import read_spectra

    return read_spectra(name, opened_as=f"/proc/self/fd/{file.fileno()}")
