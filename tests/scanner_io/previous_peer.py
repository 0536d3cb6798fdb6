"""A client and a service that speak the frozen protocol of `wire_golden`, by its bytes alone.

What they send is a golden message with other values in its fields; what they hear must have every field that the golden
message of its type has, with a value of the same kind. More fields are passed over, more kinds of messages are not: who
spoke the protocol then knows of none.
"""

import hashlib
import threading
import time
import tomllib
from pathlib import Path

import msgspec
import zmq

PROTOCOL = b"scanlane/1"
FOLDER = Path(__file__).parent / "wire_golden"


def golden(minor):
    """Return the messages of a minor version: name -> (header's bytes, what it says)."""
    tables = tomllib.loads((FOLDER / f"minor_{minor}.toml").read_text())
    return {
        name: (bytes.fromhex(t["header"].replace("\n", "")), msgspec.json.decode(t["says"]))
        for name, t in tables.items()
    }  # fmt: skip


PREVIOUS, MINOR_2 = golden(0), golden(2)


def header(name, /, **changes):
    """Return the golden bytes of a message with other values in some of its fields."""
    fields = msgspec.msgpack.decode(PREVIOUS[name][0])
    assert changes.keys() <= fields.keys()
    return msgspec.msgpack.encode({**fields, **changes})


def understood(frames):
    """Return the fields of a message and its raw part. Raises AssertionError for what was not there then."""
    assert frames[0] == PROTOCOL
    fields = msgspec.msgpack.decode(frames[1])
    assert fields["type"] in PREVIOUS, f"{fields['type']} is not of the previous protocol"
    assert len(frames) == (3 if fields["type"] == "chunk" else 2)
    name = "decide_signed" if fields["type"] == "decide" and fields["decision"] is None else fields["type"]
    check(msgspec.msgpack.decode(PREVIOUS[name][0]), fields, fields["type"])
    return fields, frames[2] if len(frames) == 3 else b""


def check(then, now, where):
    """Raise AssertionError unless `now` has all that `then` has."""
    if isinstance(then, dict) and isinstance(now, dict):
        if where != "queue.counts":  # keys of this map are values
            assert then.keys() <= now.keys(), f"{where}: {then.keys() - now.keys()} are missing"
        for key in then.keys() & now.keys():
            check(then[key], now[key], f"{where}.{key}")
    elif isinstance(then, list) and isinstance(now, list):
        for each in now if then else []:
            check(then[0], each, f"{where}[]")
    elif then is not None and now is not None:
        assert type(then) is type(now), f"{where}: {type(now).__name__}, was {type(then).__name__}"


class PreviousClient:
    """A workstation of then. prepare : makes its socket speak CURVE"""

    def __init__(self, address, prepare=lambda socket: None):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        prepare(self.socket)
        self.socket.connect(address)
        self.pings = 0

    def send(self, name, /, **changes):
        self.socket.send_multipart([PROTOCOL, header(name, **changes)])

    def hear(self, kind, timeout_s=10.0):
        """Return the next message, which is of that type, and its raw part; pings are answered."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if not self.socket.poll(int(left * 1000) + 1):
                continue
            fields, raw = understood(self.socket.recv_multipart())
            if fields["type"] == "ping":
                self.pings += 1
                self.send("pong", counter=fields["counter"])
            elif fields["type"] != "pong" or kind == "pong":
                assert fields["type"] == kind, fields
                return fields, raw
        raise AssertionError(f"no {kind} within {timeout_s} s")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close(linger=0)
        self.context.term()


class PreviousService:
    """A service of then, with one scan; what it was told is in `heard`."""

    SCAN, LEASE, SIZE_OF_CHUNK = "north-1", "1f", 1 << 20

    def __init__(self, data, prepare=lambda socket: None, serve=lambda: None):
        """Begin. serve : is called at every turn, before anything is received"""
        self.data = data
        self.heard = []
        self._prepare, self._serve = prepare, serve
        self._ending, self._up = threading.Event(), threading.Event()
        self.problems = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(10)

    def _run(self):
        context = zmq.Context()
        socket = context.socket(zmq.ROUTER)
        self._prepare(socket)
        socket.bind("tcp://127.0.0.1:*")
        self.address = socket.get_string(zmq.LAST_ENDPOINT)
        self._up.set()
        while not self._ending.is_set():
            self._serve()
            if not socket.poll(20):
                continue
            peer, *frames = socket.recv_multipart()
            try:
                fields, raw = understood(frames)
                assert raw == b""
            except AssertionError as error:
                self.problems.append(str(error))
                continue
            self.heard.append(fields)
            for answer in self._answers(fields):
                socket.send_multipart([peer, PROTOCOL, *answer])
        socket.close(linger=0)
        context.term()

    def _answers(self, fields):
        sha256 = hashlib.sha256(self.data).hexdigest()
        offer = header("offer", scan_id=self.SCAN, lease_id=self.LEASE, size=len(self.data), sha256=sha256)
        match fields["type"]:
            case "hello":
                yield [header("welcome", connection_id="c1", heartbeat_s=0.5)]
                yield [offer]
                yield [header("ping", counter=7)]
            case "fetch":
                for i in range(fields["credit"]):
                    at = fields["offset"] + i * self.SIZE_OF_CHUNK
                    raw = self.data[at : at + self.SIZE_OF_CHUNK]
                    if raw:
                        last = at + len(raw) == len(self.data)
                        yield [header("chunk", scan_id=fields["scan_id"], offset=at, last=last), raw]
            case "decide":
                decision = fields["decision"] or msgspec.msgpack.decode(fields["statement"])["decision"]
                yield [
                    header(
                        "decided", decision_id=decision["decision_id"], scan_id=decision["scan_id"], applied=True,
                        reason="",
                    )
                ]  # fmt: skip
            case "claim":
                yield [offer]
            case "queue_request":
                yield [header("queue")]
            case "ping":
                yield [header("pong", counter=fields["counter"])]

    def named(self, kind):
        return [fields for fields in self.heard if fields["type"] == kind]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join(10)
