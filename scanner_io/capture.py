"""What a device really sent, in a file: written beside a driver, and played again as that device.

How a site reports a fault of a vendor's device: the bytes, messages, files or objects that came, with when they came,
before any decoder saw them. The file is a line of JSON (which driver, with which settings) and then records, each its
length (u32, little-endian) and msgpack: nanoseconds since the beginning, kind, name, contents.

    kind      of                      played as
    opened    a byte channel          (a client is awaited)
    bytes     a byte channel          a TCP server that sends them
    written   a byte channel          (so many bytes are awaited from the client)
    lost      a byte channel          the connection is closed
    message   Stream V2               a PUSH socket
    line      lane events             a TCP client that sends them
    file      a folder, a recording   a file that is put into a folder
    object    DICOM storage           an object that is sent to a storage SCP

A capture holds what the device holds, people's numbers included: it is the site's to give away.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from . import disk
from .channel import Channel
from .errors import ConfigError, DataError, LinkLost, StorageError

Kind = Literal["opened", "bytes", "written", "lost", "message", "line", "file", "object"]
Tap = Callable[[Kind, str, bytes | memoryview], None]
MAX_RECORD = 1 << 30
MOST_BYTES = 4 << 30
"""A capture ends here: a forgotten one must not fill the disk that recordings go to."""
PATIENCE_S = 30.0
_LENGTH = struct.Struct("<I")


class Record(NamedTuple):
    """One thing that came. at_ns : since the capture began"""

    at_ns: int
    kind: Kind
    name: str
    contents: bytes


def no_tap(kind: Kind, name: str, contents: bytes | memoryview) -> None:
    """Keep nothing: the tap of a driver that is not captured."""


class Capture:
    """A capture being written; `add` is the tap.

    problem : why no more is kept: it has its most bytes, or the disk refuses. A lane must not stop for that
    """

    def __init__(self, path: Path, driver: str, config: Any) -> None:
        """Begin a new file. Raises StorageError, also where there is one already."""
        head = {"scanlane_capture": 1, "driver": driver, "config": msgspec.to_builtins(config)}
        try:
            self._descriptor = disk.io().open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise StorageError(f"{path}: a capture cannot be begun ({error}); give a name that is free") from error
        self._path, self._began_ns, self._size = path, time.monotonic_ns(), 0
        self._lock = threading.Lock()
        self.problem = ""
        self._put(json.dumps(head).encode() + b"\n")

    def add(self, kind: Kind, name: str, contents: bytes | memoryview) -> None:
        """Keep one thing that came, for any thread. Never raises: see `problem`."""
        record = msgspec.msgpack.encode((time.monotonic_ns() - self._began_ns, kind, name, contents))
        with self._lock:
            if self.problem or self._descriptor < 0:
                return
            if self._size + len(record) > MOST_BYTES:
                self.problem = f"{self._path}: has {self._size} bytes, and no more is kept"
                return
            try:
                self._put(_LENGTH.pack(len(record)) + record)
            except StorageError as error:
                self.problem = str(error)

    def _put(self, data: bytes) -> None:
        try:
            disk.write_all(self._descriptor, data)
        except OSError as error:
            raise StorageError(f"{self._path}: the capture cannot be written ({error})") from error
        self._size += len(data)

    def close(self) -> None:
        """End the file. May be called twice."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TappedChannel:
    """A byte channel whose traffic is kept."""

    def __init__(self, channel: Channel, tap: Tap) -> None:
        self.address, self._channel, self._tap = channel.address, channel, tap

    def open(self) -> None:
        """Connect. Raises LinkLost."""
        self._channel.open()
        self._tap("opened", self.address, b"")

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived. Raises LinkLost."""
        try:
            data = self._channel.read(timeout_s)
        except LinkLost:
            self._tap("lost", "", b"")
            raise
        if data:
            self._tap("bytes", "", data)
        return data

    def write(self, data: bytes) -> None:
        """Send all of `data`. Raises LinkLost."""
        self._channel.write(data)
        self._tap("written", "", data)

    def close(self) -> None:
        """Disconnect."""
        self._channel.close()


def read(path: Path) -> tuple[dict[str, Any], Iterator[Record]]:
    """Return the head of a capture (driver, config) and its records. Raises DataError, while records come too."""
    try:
        file = path.open("rb")
        with file:
            head = json.loads(file.readline(1 << 20))
            begins = file.tell()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no capture ({error})") from error
    if not isinstance(head, dict) or head.get("scanlane_capture") != 1:
        raise DataError(f"{path}: no capture of a version known here (1)")
    return head, _records(path, begins)


def _records(path: Path, begins: int) -> Iterator[Record]:
    with path.open("rb") as file:
        file.seek(begins)
        while start := file.read(_LENGTH.size):
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else MAX_RECORD + 1
            data = file.read(length) if length <= MAX_RECORD else b""
            if len(data) != length:
                raise DataError(f"{path}: ends in a record, at byte {file.tell()}: the capture was cut short")
            try:
                yield Record(*msgspec.msgpack.decode(data, type=tuple[int, Kind, str, bytes]))
            except msgspec.MsgspecError as error:
                raise DataError(f"{path}: a damaged record before byte {file.tell()} ({error})") from error


# ------------------------------------------------------------------------------------------------------------ playing


def play(path: Path, to: str, *, speed: float = 1.0, ready: Callable[[str], None] = lambda _: None) -> int:
    """Play a capture as the device that it is of; return how many records were sent.

    to : where a driver looks for the device: tcp://HOST:PORT to listen at (bytes, messages; port 0: any free one), a
        folder (files), HOST:PORT of a storage SCP (objects)
    speed : times as fast as it came; 0: without waiting
    ready : is told where it can be found, once it can

    Raises DataError for a damaged capture, ConfigError for an impossible `to`, LinkLost where nobody comes or listens.
    """
    head, records = read(path)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path}: holds nothing that came; a {head['driver']} that is simulated needs no capture")
    paced = _paced(first, records, speed)
    if first.kind == "message":
        return _play_messages(paced, to, ready)
    if first.kind == "file":
        return _play_files(paced, Path(to), ready)
    if first.kind == "line":
        return _play_lines(paced, to, ready)
    if first.kind == "object":
        return _play_objects(paced, to, ready)
    return _play_bytes(paced, to, ready)


def _paced(first: Record, rest: Iterator[Record], speed: float) -> Iterator[Record]:
    """Yield records when their time has come; the first one's is now."""
    began_s = time.monotonic()
    yield first
    for record in rest:
        if speed:
            due_s = began_s + (record.at_ns - first.at_ns) / 1e9 / speed
            time.sleep(max(0.0, due_s - time.monotonic()))
        yield record


def _host_port(to: str) -> tuple[str, int]:
    try:
        parts = urlsplit(to if "//" in to else f"//{to}")
        if parts.hostname and parts.port is not None:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise ConfigError([f"{to!r}: expected HOST:PORT or tcp://HOST:PORT"])


def _play_bytes(records: Iterator[Record], to: str, ready: Callable[[str], None]) -> int:
    count = 0
    host, port = _host_port(to)
    with socket.create_server((host, port)) as listener:
        listener.settimeout(PATIENCE_S)
        ready(f"tcp://{host}:{listener.getsockname()[1]}")
        client: socket.socket | None = None
        try:
            for record in records:
                if record.kind in ("opened", "lost") and client is not None:
                    client.close()
                    client = None
                if record.kind == "lost":
                    continue
                if client is None:
                    client = listener.accept()[0]
                    client.settimeout(PATIENCE_S)
                if record.kind == "written":
                    _await_bytes(client, len(record.contents))
                elif record.kind == "bytes":
                    client.sendall(record.contents)
                    count += 1
        except OSError as error:
            raise LinkLost(f"{to}: nobody who listens to what is played ({error})") from error
        finally:
            if client is not None:
                client.close()
    return count


def _await_bytes(client: socket.socket, count: int) -> None:
    while count:
        data = client.recv(count)
        if not data:
            raise OSError("the client has gone")
        count -= len(data)


def _play_messages(records: Iterator[Record], to: str, ready: Callable[[str], None]) -> int:
    import zmq

    context: zmq.Context[Any] = zmq.Context()
    push = context.socket(zmq.PUSH)
    try:
        push.set(zmq.SNDTIMEO, round(PATIENCE_S * 1e3))
        try:
            push.bind(to)
        except zmq.ZMQError as error:
            raise ConfigError([f"{to!r}: {error}; expected tcp://HOST:PORT"]) from error
        ready(push.get(zmq.LAST_ENDPOINT).decode())
        count = 0
        for record in records:
            try:
                push.send(record.contents)
            except zmq.Again as error:
                raise LinkLost(f"{to}: nobody pulls what is played") from error
            count += 1
        return count
    finally:
        push.close(linger=round(PATIENCE_S * 1e3))
        context.term()


def _play_files(records: Iterator[Record], folder: Path, ready: Callable[[str], None]) -> int:
    if not folder.is_dir():
        raise ConfigError([f"{folder}: is no folder; give the one that the driver watches"])
    ready(str(folder))
    count = 0
    for record in records:
        name = Path(record.name).name
        if not name or name in (".", ".."):
            raise DataError(f"a file named {record.name[:80]!r}")
        part = folder / f".{name}.part"
        descriptor = disk.io().open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            disk.write_all(descriptor, record.contents)
        finally:
            os.close(descriptor)
        disk.io().rename(part, folder / name)
        count += 1
    return count


def _play_lines(records: Iterator[Record], to: str, ready: Callable[[str], None]) -> int:
    count = 0
    try:
        with socket.create_connection(_host_port(to), PATIENCE_S) as peer:
            ready(to)
            for record in records:
                peer.sendall(record.contents)
                count += 1
    except OSError as error:
        raise LinkLost(f"{to}: nobody who listens to what is played ({error})") from error
    return count


def _play_objects(records: Iterator[Record], to: str, ready: Callable[[str], None]) -> int:
    import io

    import pydicom
    from pynetdicom import AE

    host, port = _host_port(to)
    ready(to)
    count = 0
    for record in records:
        dataset = pydicom.dcmread(io.BytesIO(record.contents))
        ae = AE()
        ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        association = ae.associate(host, port, ae_title=record.name or "SCANLANE")
        if not association.is_established:
            raise LinkLost(f"{to}: refuses the association")
        status = association.send_c_store(dataset)
        association.release()
        association.join(PATIENCE_S)
        if getattr(status, "Status", None) != 0:
            raise LinkLost(f"{to}: does not take the object ({status})")
        count += 1
    return count
