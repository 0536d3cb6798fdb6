"""What the daemon and its lane processes say to each other over a pipe: typed, MessagePack, no pickle."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

import msgspec

from scanner_io.model import Declaration, DeclarationMatch, TriageResult

from .outbox import ScanRow


class Said(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Any message."""


class Ready(Said, frozen=True, kw_only=True, tag="ready"):
    """lane -> daemon: kernels are compiled, devices are being opened."""

    pid: int
    warm_up_s: float


class Judged(Said, frozen=True, kw_only=True, tag="judged"):
    """lane -> daemon: a recording is durable and judged; answered with `stored`."""

    row: ScanRow


class Judging(Said, frozen=True, kw_only=True, tag="judging"):
    """lane -> daemon: judging of a durable recording begins (counted, in case it kills the process)."""

    path: str


class Note(Said, frozen=True, kw_only=True, tag="note"):
    """lane -> daemon: something for the log."""

    event: str
    level: str = "info"
    fields: dict[str, Any] = {}


class Alive(Said, frozen=True, kw_only=True, tag="alive"):
    """lane -> daemon, every second: its main loop turns.

    standing_s : how long ago the loops of its devices last turned, by their names, and "strips": for how long the
        threads beside the worker's have not answered
    judging_s, storing_s : how long ago its worker last progressed with what it is at; 0 where it is at nothing
    down : devices to which there is no link at this moment
    dropped : blocks of lines that a live device gave and nobody took, since the lane began
    """

    standing_s: dict[str, float]
    judging_s: float
    storing_s: float
    down: tuple[str, ...] = ()
    dropped: dict[str, int] = {}


class Finished(Said, frozen=True, kw_only=True, tag="finished"):
    """lane -> daemon: all sources are at their end and everything is stored."""


class Stored(Said, frozen=True, kw_only=True, tag="stored"):
    """daemon -> lane: the outbox row is committed. new : False if the scan was known."""

    scan_id: str
    new: bool


class Rejudge(Said, frozen=True, kw_only=True, tag="rejudge"):
    """daemon -> lane: this recording has no row; judge it (again) and report. give_up : report it as unusable."""

    path: str
    give_up: bool = False


class Rejudged(Said, frozen=True, kw_only=True, tag="rejudged"):
    """lane -> daemon: the work of a `rejudge` is over, whatever came of it; the next one may be sent."""

    path: str


class Intake(Said, frozen=True, kw_only=True, tag="intake"):
    """daemon -> lane: take scans in, or let the sources that can wait do so because the disk is nearly full.

    record : recordings may be written; False where what is left of the disk is for decisions
    """

    open: bool
    record: bool = True


class Stop(Said, frozen=True, kw_only=True, tag="stop"):
    """daemon -> lane: finish what is open and end."""


class Reassessed(Said, frozen=True, kw_only=True, tag="reassessed"):
    """lane -> daemon: a scan was judged again with a declaration that came late; answered with `assessed`."""

    scan_id: str
    result: TriageResult
    declaration: Declaration
    match: DeclarationMatch


class Assessed(Said, frozen=True, kw_only=True, tag="assessed"):
    """daemon -> lane: the later assessment is committed."""

    scan_id: str


AnySaid = (
    Ready
    | Alive
    | Judged
    | Judging
    | Note
    | Finished
    | Stored
    | Rejudge
    | Rejudged
    | Intake
    | Stop
    | Reassessed
    | Assessed
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnySaid)


def send(pipe: Connection, message: Said) -> None:
    """Send. Raises BrokenPipeError or OSError if the other side is gone."""
    pipe.send_bytes(_encoder.encode(message))


def receive(pipe: Connection) -> AnySaid:
    """Receive, blocking. Raises EOFError if the other side is gone."""
    message: AnySaid = _decoder.decode(pipe.recv_bytes())
    return message
