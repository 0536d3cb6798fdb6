"""The wire between a lane's service and the workstations: versioned, typed messages.

Frames of one message (ZeroMQ multipart, analyst DEALER <-> service ROUTER; the ROUTER's routing frame left out):

    0  protocol   b"scanlane/1", the major version; another one is refused
    1  header     MessagePack map of one of the structs below, told apart by its key `type`
    2  raw part   only with `chunk`: the bytes themselves

Fields may be added with defaults; a name is never used again for something else. Unknown fields are tolerated, wrong
types refused with their path. At-least-once and idempotent: a client repeats `decide` until `decided`; the service
answers a repeat like the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from .errors import ProtocolError
from .model import Decision, Declaration, Opinion, TriageResult

PROTOCOL = b"scanlane/1"
MINOR_MIN, MINOR_MAX = 0, 4
"""Minor versions this build can speak; the highest common one is used.

1 added `alarm` and `Statement.service`; 2 added `peek`, `opine`, `opined`, the opinions in other messages, and `here`;
3 added signed opinions, which a service with keys asks for, and `after` of `queue_request` and `queue`; 4 added hubs:
`Hello.hub`, `Decision.via`, `Statement.origin`.
"""
MINOR_ALARM = MINOR_SERVICE = 1
MINOR_PEEK = MINOR_OPINION = MINOR_HERE = 2
MINOR_SIGNED_OPINION = MINOR_AFTER = 3
MINOR_HUB = 4
"""Minor version from which these are part of the protocol."""

_T = TypeVar("_T")

CHUNK_BYTES = 1 << 20
MAX_CREDIT = 16
MAX_INBOUND_BYTES = 64 << 10
"""Largest message a service accepts."""
MAX_CLIENT_INBOUND_BYTES = CHUNK_BYTES + (256 << 10)
"""Largest message a client accepts."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Any message."""


# ------------------------------------------------------------------------------------------------ analyst -> service


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """First message of a connection. capacity : scans the analyst takes at once; 0 only watches and claims.

    hub : a site's hub, which takes scans for its own analysts and brings their decisions
    """

    analyst: str
    capacity: int = 1
    proto_min: int = MINOR_MIN
    proto_max: int = MINOR_MAX
    client_version: str = ""
    hub: bool = False


class Fetch(Message, frozen=True, kw_only=True, tag="fetch"):
    """Ask for up to `credit` chunks of a leased scan from byte `offset` on.

    lease_id : empty for a scan that was peeked at
    """

    scan_id: str
    lease_id: str
    offset: int = 0
    credit: int = 4


class Received(Message, frozen=True, kw_only=True, tag="received"):
    """The whole recording is here and hashes to `sha256`."""

    scan_id: str
    lease_id: str
    sha256: str


class Decide(Message, frozen=True, kw_only=True, tag="decide"):
    """An analyst's decision; repeated until `decided`.

    decision : where connections have no keys
    statement, signature : where they have: the bytes of a `Statement`, and their Ed25519 signature by the analyst's key
    """

    decision: Decision | None = None
    statement: bytes = b""
    signature: bytes = b""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What an analyst signs: a decision, for this connection alone, once.

    connection_id : of the `welcome`; made by the service, never given twice
    sequence : higher with every statement of the connection
    service : public CURVE key of the service it is for, so that no other one takes it
    origin, origin_signature : of a decision that a hub brings: the bytes that its analyst signed there, their signature
    """

    decision: Decision
    connection_id: str
    sequence: int
    service: str = ""
    origin: bytes = b""
    origin_signature: bytes = b""


class Renew(Message, frozen=True, kw_only=True, tag="renew"):
    """The analyst is still looking."""

    lease_id: str


class Here(Message, frozen=True, kw_only=True, tag="here"):
    """When a person last did something at this workstation; sent with every `ping`.

    A program renews leases by itself, also when its page hangs or nobody sits before it. idle_s : seconds since then
    """

    idle_s: float


class Release(Message, frozen=True, kw_only=True, tag="release"):
    """The analyst gives the scan back."""

    lease_id: str


class Claim(Message, frozen=True, kw_only=True, tag="claim"):
    """Ask for one named scan; answered with `offer` or `refused`."""

    scan_id: str


class Peek(Message, frozen=True, kw_only=True, tag="peek"):
    """Ask to fetch a scan that waits, ahead of taking it; answered with `offer` without a lease, or `refused`."""

    scan_id: str


class Opine(Message, frozen=True, kw_only=True, tag="opine"):
    """Give a leased scan on undecided, with what its analyst thinks of it; repeated until `opined`.

    lease_id, opinion : where connections have no keys
    statement, signature : where they have: the bytes of an `OpinionStatement`, and their Ed25519 signature by the
        analyst's key
    """

    lease_id: str = ""
    opinion: Opinion | None = None
    statement: bytes = b""
    signature: bytes = b""


class OpinionStatement(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="opinion"):
    """What an analyst signs who gives a scan on: an opinion, for this lease and connection alone, once.

    lease_id : by which the scan is theirs; the others as in `Statement`, which this cannot be taken for: it has no
    decision
    """

    opinion: Opinion
    lease_id: str
    connection_id: str
    sequence: int
    service: str


class QueueRequest(Message, frozen=True, kw_only=True, tag="queue_request", omit_defaults=True):
    """Ask for the undecided scans and the counts. after : scan whose followers are asked for; empty: from the first"""

    after: str = ""


class Bye(Message, frozen=True, kw_only=True, tag="bye"):
    """The analyst leaves; the leases go back at once."""


# ------------------------------------------------------------------------------------------------ service -> analyst


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """Answer to `hello`."""

    connection_id: str
    minor: int
    lease_s: float
    heartbeat_s: float
    chunk_bytes: int = CHUNK_BYTES
    max_credit: int = MAX_CREDIT
    service_version: str = ""


class SignedOpinion(msgspec.Struct, frozen=True, kw_only=True):
    """What proves an opinion: the very bytes that its analyst signed, an `OpinionStatement`, and the signature."""

    opinion_id: str
    statement: bytes
    signature: bytes


class Offer(Message, frozen=True, kw_only=True, tag="offer"):
    """A flagged scan for this analyst alone until the lease ends. Only committed scans are offered.

    lease_id : empty where it answers `peek`: nobody has the scan by it
    opinions : of those who gave it on; without what is to be kept from this analyst
    signed : of those among them that are signed and whole
    """

    scan_id: str
    lease_id: str
    lease_s: float
    size: int
    sha256: str
    lane: str
    start_utc_ns: int
    attempt: int
    simulated: bool
    result: TriageResult
    declaration: Declaration | None = None
    opinions: tuple[Opinion, ...] = ()
    signed: tuple[SignedOpinion, ...] = ()


class Chunk(Message, frozen=True, kw_only=True, tag="chunk"):
    """Bytes of a recording; they follow as the raw part."""

    scan_id: str
    offset: int
    last: bool


class Decided(Message, frozen=True, kw_only=True, tag="decided"):
    """The decision is committed. applied : it is the scan's decision; False with the reason if it came too late.

    opinions : what others had thought of the scan, blind ones too; signed : what proves those that are signed
    """

    decision_id: str
    scan_id: str
    durable: bool
    applied: bool
    reason: str = ""
    opinions: tuple[Opinion, ...] = ()
    signed: tuple[SignedOpinion, ...] = ()


class Opined(Message, frozen=True, kw_only=True, tag="opined"):
    """The opinion is committed, and the scan waits again."""

    opinion_id: str
    scan_id: str
    durable: bool


class Revoked(Message, frozen=True, kw_only=True, tag="revoked"):
    """A lease of this analyst has ended."""

    scan_id: str
    lease_id: str
    reason: str


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """One undecided scan. containers : numbers as declared; attempts : how often it was offered.

    opinions : how many gave it on for a second opinion
    """

    scan_id: str
    lane: str
    outcome: str
    start_utc_ns: int
    state: str
    analyst: str
    reasons: tuple[str, ...]
    containers: tuple[str, ...] = ()
    simulated: bool = False
    attempts: int = 0
    opinions: int = 0


class Queue(Message, frozen=True, kw_only=True, tag="queue"):
    """Undecided scans, most urgent first (at most 200), and how many scans are in each state.

    alarm : in words what a person must see to now; empty: nothing
    after : as it was asked for
    """

    rows: tuple[QueueRow, ...]
    counts: dict[str, int]
    alarm: str = ""
    after: str = ""


class Alarm(Message, frozen=True, kw_only=True, tag="alarm"):
    """Something a person must see to, told to every connection when it begins, again and again, and when it is over.

    kind : `unattended`: flagged scans wait that nobody has taken for too long, or that were given back too often; later
        versions may tell of more, so that `text` is shown whatever the kind
    scan_id : the most urgent of them; waiting : how many; waited_s : the longest
    """

    kind: str
    text: str
    utc_ns: int
    scan_id: str = ""
    waiting: int = 0
    waited_s: float = 0.0
    over: bool = False


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """A message was not acted upon. about : type of that message; ref : its scan, lease or decision."""

    about: str
    reason: str
    ref: str = ""


# ---------------------------------------------------------------------------------------------------------- both ways


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Sent by either side's own loop: proves that the program lives, not only its socket."""

    counter: int


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """Answer to `ping`."""

    counter: int


FromAnalyst = (
    Hello | Fetch | Received | Decide | Renew | Here | Release | Claim | Peek | Opine | QueueRequest | Bye | Ping | Pong
)
FromService = Welcome | Offer | Chunk | Decided | Opined | Revoked | Queue | Alarm | Refused | Ping | Pong

_encoder = msgspec.msgpack.Encoder()
_from_analyst = msgspec.msgpack.Decoder(FromAnalyst)
_from_service = msgspec.msgpack.Decoder(FromService)
_statement = msgspec.msgpack.Decoder(Statement)
_opinion_statement = msgspec.msgpack.Decoder(OpinionStatement)


def encode(message: Message, raw: bytes | memoryview | None = None) -> list[bytes | memoryview]:
    """Return the frames of `message`."""
    frames: list[bytes | memoryview] = [PROTOCOL, _encoder.encode(message)]
    if raw is not None:
        frames.append(raw)
    return frames


def encode_statement(statement: Statement | OpinionStatement) -> bytes:
    """Return the bytes that are signed."""
    return _encoder.encode(statement)


def decode_statement(data: bytes) -> Statement:
    """Return the decision's statement in bytes whose signature has been verified. Raises ProtocolError."""
    return _decode_signed(_statement, data)


def decode_opinion_statement(data: bytes) -> OpinionStatement:
    """Return the opinion's statement in bytes whose signature has been verified. Raises ProtocolError."""
    return _decode_signed(_opinion_statement, data)


def _decode_signed(decoder: msgspec.msgpack.Decoder[_T], data: bytes) -> _T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"statement of {len(data)} bytes: {error}") from error


def decode_from_analyst(frames: Sequence[bytes | memoryview]) -> FromAnalyst:
    """Return the message in `frames` as the service receives it. Raises ProtocolError."""
    message: FromAnalyst = _decode(_from_analyst, frames, raw_allowed=False)
    return message


def decode_from_service(frames: Sequence[bytes | memoryview]) -> tuple[FromService, bytes | memoryview]:
    """Return the message in `frames` as a workstation receives it, and its raw part. Raises ProtocolError."""
    message: FromService = _decode(_from_service, frames, raw_allowed=True)
    has_raw = len(frames) == 3
    if has_raw != isinstance(message, Chunk):
        raise ProtocolError(f"{type(message).__name__} with {len(frames)} frames, expected {2 if has_raw else 3}")
    return message, frames[2] if has_raw else b""


def _decode(
    decoder: msgspec.msgpack.Decoder[Any], frames: Sequence[bytes | memoryview], *, raw_allowed: bool
) -> Any:  # fmt: skip
    if not 2 <= len(frames) <= (3 if raw_allowed else 2):
        raise ProtocolError(f"message of {len(frames)} frames, expected {'2 or 3' if raw_allowed else '2'}")
    if frames[0] != PROTOCOL:
        raise ProtocolError(
            f"protocol {bytes(frames[0][:32])!r}, this side speaks {PROTOCOL!r}; upgrade the older side"
        )
    try:
        return decoder.decode(frames[1])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
        raise ProtocolError(f"header of {len(frames[1])} bytes: {error}") from error
