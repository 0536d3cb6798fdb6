"""Detectors that push Stream V2 over ZeroMQ: one CBOR message a piece, start, images, end.

An image of such a message is a block of consecutive detector lines, of one channel (threshold) per energy. What is lost
is seen by the image's number and left as a gap; an image of another size or type ends the scan as aborted, and nothing
more is taken of it. A detector that restarts, or is replaced, begins a new series; the one that was open is ended.

Typed arrays are decoded by their CBOR tags, without a copy where they lie evenly in the message and with one where not;
compressed ones (tag 56500) by the HDF5 filters that define their framing.

What a message says is not believed. It is read in the lane's own process, not in the sandbox where foreign files are
read: a scan of 40 MB would be moved through two pipes, more work than receiving it, for a parser that is small and
counts of fixed size. So the parser is hard instead. A message has a most length, a most depth and number of values
(`scanner_io.cbor`), and once decompressed a most length again, over all its arrays; only numbers, times and names of
the kinds and sizes that a detector sends are taken; the blocks of compressed bytes are measured before C code sees
them, because the HDF5 filter believes their lengths and reads past the end. A sender that floods the lane with nonsense
gets some lines of health, not a line each. What remains: whoever reaches the port can send a false scan, for the
protocol has no keys; let nobody but the detector reach it.

Source: DECTRIS documentation, "Stream V2" and "CBOR tag for DECTRIS compressed byte strings" (tag 56500); RFC 8746
(typed arrays, multi-dimensional arrays); https://rfc.zeromq.org/spec/30 (PUSH and PULL).
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from typing import Annotated, Any, Literal, NamedTuple

import h5py
import lz4.block
import msgspec
import numpy as np
import numpy.typing as npt
import zmq
from zmq.utils.monitor import recv_monitor_message

from scanner_io import cbor
from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import DataError, LinkLost
from scanner_io.line_detector import LineDetector, LineScan
from scanner_io.model import (
    MAX_PIXELS,
    DeviceInfo,
    EndReason,
    Event,
    Health,
    Kind,
)

CONNECT_S = 5.0
SLICE_S = 0.05
"""A close by another thread is noticed within."""
MULTI_DIMENSIONAL, COMPRESSED = 40, 56500
TYPES = {64: "<u1", 68: "<u1", 69: "<u2", 65: ">u2", 70: "<u4", 66: ">u4", 72: "<i1", 77: "<i2", 78: "<i4"}
"""Typed arrays of RFC 8746 that are taken, by their tags; floats are no counts."""
BITSHUFFLE, LZ4_BLOCK = 32008, 2
MOST_QUEUED_MB = 4096
LEAST_BLOCK = 1024
"""Bytes of a compressed block where there are several: senders use 8192, and tiny ones cost time each."""
MOST_TEXT = 64
"""Characters that are taken of a name."""
MOST_TOLD = 16
"""Oddities told one by one until a series with images is complete; then at every power of two."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the detector pushes, and how its images lie.

    endpoint : of the detector, e.g. tcp://10.0.3.9:31001
    channels : names of the stream's channels, in the order of `detector.energies`; none: as the stream names them
    lines : an image's rows are consecutive lines of the detector, or its columns
    line_period_s : time between lines; without it the image's own times are spread
    scan_timeout_s : a series of which nothing comes for so long is ended
    queue : messages kept while the lane is slower; what is more, the detector keeps or drops
    max_message_mb : a longer message is refused, and so is one that is longer once it is decompressed
    """

    endpoint: str
    detector: LineDetector = LineDetector()
    channels: tuple[str, ...] = ()
    lines: Literal["rows", "columns"] = "rows"
    line_period_s: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.0005
    scan_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    queue: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 32
    max_message_mb: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 128
    vendor: str = "unknown"

    def __post_init__(self) -> None:
        """Check what one field cannot tell alone. Raises ValueError."""
        if not self.endpoint.startswith(("tcp://", "ipc://", "inproc://")):
            raise ValueError(f"endpoint {self.endpoint!r}: expected tcp://HOST:PORT")
        if self.channels and len(self.channels) != len(self.detector.energies):
            raise ValueError(f"channels: {len(self.channels)} names for {len(self.detector.energies)} energies")
        if self.queue * self.max_message_mb > MOST_QUEUED_MB:
            raise ValueError(
                f"queue {self.queue} messages of max_message_mb {self.max_message_mb}: together at most "
                f"{MOST_QUEUED_MB} MB, for whoever sends can fill them"
            )


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives."""
    return ("radiograph",)


def connect(config: Config, channel: Channel | None = None) -> StreamV2:
    """Return the driver, not opened. It has no byte channel: ZeroMQ is its own."""
    return StreamV2(config)


# ---------------------------------------------------------------------------------------------------- CBOR to arrays


def decode(message: bytes | memoryview, most_bytes: int = 128 << 20) -> dict[str, Any]:
    """Return a message, its arrays as arrays, views of it where they can be. Raises DataError for what is none.

    most_bytes : of all its arrays once they are decompressed
    """
    try:
        told = cbor.loads(message, _Tags(most_bytes).value)
    except (ValueError, TypeError, OverflowError) as error:  # of a tag whose value is not what it must be
        raise DataError(f"a message of {len(message)} bytes that cannot be read ({error})") from error
    if not isinstance(told, dict) or not isinstance(told.get("type"), str):
        raise DataError(f"a message of {len(message)} bytes without a type")
    return told


class _Compressed(NamedTuple):
    algorithm: str
    size: int
    contents: memoryview


class _Tags:
    """What the tags of one message stand for. left : bytes that it may still grow to when decompressed"""

    def __init__(self, left: int) -> None:
        self.left = left

    def value(self, number: int, value: Any) -> Any:
        """Return arrays and compressed bytes; of other tags their value."""
        if number in TYPES:
            return self._typed(value, np.dtype(TYPES[number]))
        if number == COMPRESSED:
            return _compressed(value)
        return _shaped(value) if number == MULTI_DIMENSIONAL else value

    def _typed(self, value: Any, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        if isinstance(value, _Compressed):
            return self._decompressed(value, kind)
        if not isinstance(value, memoryview) or len(value) % kind.itemsize:
            raise DataError(f"a typed array of {type(value).__name__}, expected whole values of {kind.itemsize} bytes")
        return np.frombuffer(value, kind)

    def _decompressed(self, packed: _Compressed, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the values of a compressed byte string; both algorithms begin with its plain length, big-endian."""
        name, contents = packed.algorithm, packed.contents
        length = int.from_bytes(contents[:8], "big")
        block = int.from_bytes(contents[8:12], "big")
        size = packed.size if name == "bslz4" else kind.itemsize
        if length > self.left or length % kind.itemsize or size != kind.itemsize:
            raise DataError(
                f"{name}: {length} bytes of values of {size}, expected whole values of {kind.itemsize} in at most "
                f"{self.left} bytes"
            )
        if block < min(length, LEAST_BLOCK):
            raise DataError(f"{name}: blocks of {block} bytes, expected at least {LEAST_BLOCK}")
        self.left -= length
        if name == "bslz4":
            return _bitshuffled(contents, length // kind.itemsize, block, kind)
        try:
            return np.frombuffer(b"".join(_lz4_blocks(contents, length, block)), kind)
        except (ValueError, MemoryError, lz4.block.LZ4BlockError) as error:
            raise DataError(f"lz4: {len(contents)} bytes cannot be decompressed ({error})") from error


def _compressed(value: Any) -> _Compressed:
    algorithm, size, contents = value
    if algorithm not in ("bslz4", "lz4") or not isinstance(size, int):
        raise DataError(f"compressed by {str(algorithm)[:MOST_TEXT]!r}, expected bslz4 or lz4")
    if not isinstance(contents, memoryview) or len(contents) < 12:
        raise DataError(f"{algorithm}: a {type(contents).__name__} without the 12 bytes that its values begin with")
    return _Compressed(algorithm, size, contents)


def _shaped(value: Any) -> npt.NDArray[Any]:
    dimensions, values = value
    if not isinstance(values, np.ndarray):
        raise DataError(f"an array of {type(values).__name__}, expected counts of 8, 16 or 32 bits")
    if not isinstance(dimensions, list) or len(dimensions) > 3 or any(not isinstance(d, int) for d in dimensions):
        raise DataError(f"an array whose shape is {str(dimensions)[:MOST_TEXT]}, expected up to three numbers")
    if math.prod(dimensions) != values.size or any(d < 0 for d in dimensions):
        raise DataError(f"an array of shape {tuple(dimensions)} with {values.size} values")
    return values.reshape(dimensions)


def _lz4_blocks(contents: memoryview, length: int, block: int) -> list[bytes | memoryview]:
    """Return the blocks of HDF5's LZ4 framing. Raises ValueError."""
    parts: list[bytes | memoryview] = []
    at, left = 12, length
    while left > 0:
        count = int.from_bytes(contents[at : at + 4], "big")
        piece, plain = contents[at + 4 : at + 4 + count], min(block, left)
        if not count or len(piece) != count or not plain:
            raise ValueError(f"block at byte {at} of {count} bytes: ends early")
        parts.append(piece if count == plain else lz4.block.decompress(piece, uncompressed_size=plain))
        if len(parts[-1]) != plain:
            raise ValueError(f"block at byte {at}: {len(parts[-1])} bytes, expected {plain}")
        at, left = at + 4 + count, left - plain
    return parts


def _bitshuffled(contents: memoryview, values: int, block: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """Let the HDF5 filter that defines the framing undo it: a file in memory with one chunk."""
    import hdf5plugin  # noqa: F401 -- registers the filter

    per_block = block // kind.itemsize
    if not values or block % kind.itemsize or per_block % 8 or not per_block:
        raise DataError(f"bslz4: {values} values in blocks of {block} bytes")
    _check_blocks(contents, values, per_block, kind.itemsize)
    try:
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fapl_core(len(contents) + 8192, False)
        handle = h5py.h5f.create(b"stream_v2", fapl=access)
        with h5py.File(handle) as file:
            made = file.create_dataset(
                "values", (values,), kind, chunks=(values,), compression=BITSHUFFLE,
                compression_opts=(per_block, LZ4_BLOCK),
            )  # fmt: skip
            made.id.write_direct_chunk((0,), bytes(contents))
            found: npt.NDArray[Any] = made[:]
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"bslz4: {len(contents)} bytes cannot be decompressed ({error})") from error
    return found


def _check_blocks(contents: memoryview, values: int, per_block: int, itemsize: int) -> None:
    """Raise DataError unless the blocks of bslz4 end where the bytes do.

    The filter believes the length that stands before a block, and reads so far, whatever it is.
    """
    last = values % per_block
    blocks = values // per_block + (last >= 8)  # fewer than eight values are no block, and stand at the end as they are
    at, end = 12, len(contents) - last % 8 * itemsize
    for number in range(blocks):
        count = int.from_bytes(contents[at : at + 4], "big")
        at += 4 + count
        if not count or at > end:
            raise DataError(f"bslz4: block {number} of {blocks} has {count} bytes and ends at byte {at} of {end}")
    if at != end:
        raise DataError(f"bslz4: {blocks} blocks end at byte {at} of {end}")


# ------------------------------------------------------------------------------------------------- messages to events


class Series:
    """Messages to events, without I/O."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._scan: LineScan | None = None
        self._id: Any = None
        self._dead: Any = None
        self._channels: tuple[str, ...] = ()
        self._shape: tuple[int, int] | None = None
        self._start_ns, self._next_image = 0, 0
        self._odd = 0
        self.heard_s = 0.0

    @property
    def open(self) -> bool:
        """Return whether a series is on its way."""
        return self._scan is not None

    def feed(self, message: bytes | memoryview, utc_ns: int, now_s: float) -> list[Event]:
        """Take a message; return the events it brings."""
        try:
            told = decode(message, self._config.max_message_mb << 20)
        except DataError as error:
            return self._health(utc_ns, str(error))
        self.heard_s = now_s
        try:
            match told["type"]:
                case "start":
                    return self._start(told, utc_ns)
                case "image":
                    return self._image(told, utc_ns)
                case "end" if _number(told, "series_id") == self._id:
                    self._odd = 0 if self._next_image else self._odd
                    return self.end("complete", utc_ns)
                case "end":
                    return []
                case other:
                    return self._health(utc_ns, f"a message of type {other[:MOST_TEXT]!r} was left out")
        except DataError as error:
            self._dead = self._id
            return [*self.end("aborted", utc_ns), *self._health(utc_ns, f"series {self._id}: {error}")]

    def _health(self, utc_ns: int, text: str) -> list[Event]:
        self._odd += 1
        if self._odd > MOST_TOLD:
            if self._odd & (self._odd - 1):
                return []
            text = f"{text}; the {self._odd}th oddity since a series was complete"
        return [Health(utc_ns=utc_ns, component="stream_v2", state="degraded", text=text)]

    def _start(self, told: dict[str, Any], utc_ns: int) -> list[Event]:
        events = self.end("aborted", utc_ns)
        self._begin(_number(told, "series_id"), utc_ns, _name(told.get("series_unique_id")))
        names = told.get("channels")
        named = tuple(map(_name, names[:16])) if isinstance(names, list) else ()
        self._channels = self._config.channels or named
        if len(self._channels) != len(self._config.detector.energies):
            raise DataError(f"channels {named} for energies {self._config.detector.energies}; set channels or energies")
        return events

    def _begin(self, series: int, utc_ns: int, unique: str) -> None:
        self._id, self._dead, self._shape = series, None, None
        ref = f"{series}@{unique or utc_ns}"
        self._scan = LineScan(self._config.detector, ref, f"stream_v2 series {series}")
        self._start_ns, self._next_image = utc_ns, 0
        self._channels = self._config.channels

    def _image(self, told: dict[str, Any], utc_ns: int) -> list[Event]:
        series, number = _number(told, "series_id"), _number(told, "image_id")
        events: list[Event] = []
        unheard = self._scan is None or series != self._id
        if unheard:
            if series == self._dead or series == self._id:
                return []  # of a series that was ended
            events = self.end("aborted", utc_ns)
            self._begin(series, utc_ns, "")
            events += self._health(utc_ns, f"series {series}: its beginning was not heard")
        assert self._scan is not None
        if not isinstance(told.get("data"), dict):
            raise DataError(f"image {number} without data")
        if number < self._next_image:
            return [*events, *self._health(utc_ns, f"series {series}: image {number} came again and was left out")]
        counts = self._counts(told["data"])
        lines, channels = counts[0].shape
        first = self._scan.next_line + (number - self._next_image) * lines
        if (first + lines) * channels > MAX_PIXELS:
            raise DataError(f"image {number} begins at line {first}, and a scan has at most {MAX_PIXELS} values")
        if number > self._next_image:
            text = f"series {series}: {number - self._next_image} images are lost before image {number}"
            events += self._health(utc_ns, text)
        self._next_image = number + 1
        since_ns = _seconds_ns(told.get("start_time"), first * self._config.line_period_s)
        period_ns = round(self._config.line_period_s * 1e9)
        if unheard:  # its lines are over by now, so that its start lies as far back as they say
            self._start_ns = utc_ns - since_ns - period_ns * lines
        begin_ns = self._start_ns + since_ns
        times = begin_ns + period_ns * np.arange(lines, dtype=np.int64)
        return events + self._scan.add(counts, times, first=first)

    def _counts(self, data: dict[str, Any]) -> tuple[npt.NDArray[np.uint16], ...]:
        """Return the channels of an image as (lines, channels) uint16. Raises DataError."""
        names = self._channels or tuple(data)
        missing = [n for n in names if n not in data]
        if missing or len(names) != len(self._config.detector.energies):
            there = tuple(map(_name, list(data)[:16]))
            raise DataError(f"an image with channels {there}, expected {self._config.channels or names[:16]}")
        counts = []
        for name in names:
            values = data[name]
            if not isinstance(values, np.ndarray) or values.ndim != 2 or not values.size:
                raise DataError(f"channel {name}: {type(values).__name__}, expected an image of counts")
            if self._shape is None:
                self._shape = (values.shape[0], values.shape[1])
            if values.shape != self._shape:
                raise DataError(f"channel {name}: an image of {values.shape} after one of {self._shape}")
            if (values.dtype.itemsize > 2 and int(values.max()) > 65_535) or (
                values.dtype.kind == "i" and values.min() < 0
            ):
                raise DataError(f"channel {name}: counts {values.min()} to {values.max()}, expected 0 to 65535")
            upright = values if self._config.lines == "rows" else values.T
            counts.append(np.require(upright, np.uint16, ["C", "ALIGNED"]))
        return tuple(counts)

    def end(self, reason: EndReason, utc_ns: int) -> list[Event]:
        """End the open series, if there is one; what still comes of it after a link or a time lost is another scan."""
        if reason in ("link_lost", "timed_out"):
            self._id = None
        scan, self._scan = self._scan, None
        return [] if scan is None else scan.end(reason, utc_ns)


def _seconds_ns(told: Any, otherwise_s: float) -> int:
    """Return a time of the stream, [numerator, denominator] of seconds, in nanoseconds; of a day at most."""
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError, OverflowError):
        numerator, denominator = told
        at_ns = int(numerator) * 1_000_000_000 // int(denominator)
        if 0 <= at_ns <= 86_400_000_000_000:
            return at_ns
    return round(otherwise_s * 1e9)


def _number(told: dict[str, Any], name: str) -> int:
    """Return a number of a message. Raises DataError."""
    value = told.get(name)
    if not isinstance(value, int) or not -1 << 63 <= value < 1 << 63:
        raise DataError(f"{told['type'][:MOST_TEXT]}: {name} is {_name(value)!r}, expected a number")
    return value


def _name(told: Any) -> str:
    """Return a name as a line of text that can be shown."""
    text = str(told[:MOST_TEXT] if isinstance(told, str) else told if isinstance(told, int) else "")
    return "".join(c if c.isprintable() else "?" for c in text)[:MOST_TEXT]


# ------------------------------------------------------------------------------------------------------- the driver


class StreamV2:
    """The driver of a detector that pushes Stream V2."""

    pausable = False

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap
        self._series = Series(config)
        self._ready: deque[Event] = deque()
        self._closed = threading.Event()
        self._closed.set()
        self._using = threading.Lock()
        self._context: zmq.Context[Any] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._failure: LinkLost | None = None

    def open(self) -> DeviceInfo:
        """Connect. Raises LinkLost if nobody pushes there."""
        self.close()
        with self._using:
            self._failure = None
            self._ready.clear()
            self._context = zmq.Context()
            self._socket = self._context.socket(zmq.PULL)
            self._socket.set(zmq.RCVHWM, self._config.queue)
            self._socket.set(zmq.MAXMSGSIZE, self._config.max_message_mb << 20)
            self._socket.set(zmq.LINGER, 0)
            self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
            try:
                self._socket.connect(self._config.endpoint)
                connected = (
                    self._monitor.poll(round(CONNECT_S * 1e3)) and self._event() == zmq.EVENT_HANDSHAKE_SUCCEEDED
                )
            except zmq.ZMQError as error:
                self._let_go()
                raise LinkLost(f"stream_v2 {self._config.endpoint}: {error}; check the endpoint") from error
            if not connected:
                self._let_go()
                raise LinkLost(
                    f"stream_v2 {self._config.endpoint}: nobody pushes there within {CONNECT_S:g} s; check that the "
                    "detector's stream is enabled, and its format is cbor"
                )
            self._closed.clear()
        return DeviceInfo(
            vendor=self._config.vendor, model="Stream V2", kinds=kinds(self._config), address=self._config.endpoint
        )

    def read(self, timeout_s: float) -> Event | None:
        """Return the next event. Raises LinkLost after the events that the loss itself causes."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            now_s = time.monotonic()
            with self._using:
                if self._closed.is_set():
                    raise LinkLost(f"stream_v2 {self._config.endpoint}: not open")
                self._receive(min(max(0.0, deadline_s - now_s), SLICE_S))
            if not self._ready and self._failure is None and time.monotonic() >= deadline_s:
                return None
        return self._ready.popleft()

    def _receive(self, timeout_s: float) -> None:
        """Take the next message, or learn that the link is gone once all of it is taken."""
        assert self._socket is not None and self._monitor is not None
        seen: dict[Any, int] = {self._socket: zmq.POLLIN}
        if not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            poller = zmq.Poller()
            poller.register(self._socket, zmq.POLLIN)
            poller.register(self._monitor, zmq.POLLIN)
            seen = dict(poller.poll(math.ceil(timeout_s * 1e3)))
        now_s = time.monotonic()
        if self._socket in seen:
            message = self._socket.recv(zmq.NOBLOCK, copy=False).buffer
            self.tap("message", "", message)
            self._ready.extend(self._series.feed(message, time.time_ns(), now_s))
        elif self._monitor in seen and self._event() == zmq.EVENT_DISCONNECTED:
            self._ready.extend(self._series.end("link_lost", time.time_ns()))
            self._failure = LinkLost(f"stream_v2 {self._config.endpoint}: the detector closed the connection")
        elif self._series.open and now_s - self._series.heard_s > self._config.scan_timeout_s:
            self._ready.extend(self._series.end("timed_out", time.time_ns()))

    def _event(self) -> int:
        assert self._monitor is not None
        return int(recv_monitor_message(self._monitor)["event"])

    def acknowledge(self, source_ref: str) -> None:
        """A live detector cannot be told; the recording is the acknowledgement."""

    def close(self) -> None:
        """Disconnect. May be called by any thread, any time, twice."""
        self._closed.set()
        with self._using:
            self._let_go()

    def _let_go(self) -> None:
        context, self._context = self._context, None
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(linger=0)
        if self._monitor is not None:
            self._monitor.close(linger=0)
        self._socket = self._monitor = None
        if context is not None:
            context.term()
