"""Results to the workstations: one ROUTER socket, leases, chunks, acknowledged decisions.

Called from one loop: `serve` when one of `sockets` is readable, `tick` several times a second. Only committed
scans are offered; `decided` is sent after the COMMIT; everything about delivery is in the outbox, so this object can be
thrown away at any moment. Connections are known by the routing ids the socket itself makes.

With a gate (`triage.service.gate`) every message is taken by the key that its connection was let in with and by what
the list of the enrolled says of that key at that moment; decisions count by their signature. Without one the address
is of this machine alone, and analysts are who they say they are.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import zmq

from scanner_io import __version__, wire
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.errors import DeliveryError, ProtocolError, StorageError
from scanner_io.model import Decision, Opinion
from scanner_io.security import Enrolled, verified

from .door import Door, Peer
from .escalation import Escalation
from .gate import TRY_EVERY_S, Gate, SelfTest, user_of
from .outbox import Given, Item, Outbox
from .sparing import Sparing, one_line

_Signed = TypeVar("_Signed", wire.Statement, wire.OpinionStatement)

QUEUE_ROWS = 200
MAX_NAME = 64
PATIENCE_S = 10.0
"""An outbox that refuses for so long is told to those who wait for it; until then their programs ask again."""
MAX_CAPACITY = 100
"""Scans that one analyst may have at once, by all connections together: nobody hoards the queue."""
LEASES_KNOWN = 1000
"""See `Newest`; many times what one may have at once."""
MAX_OF_ONE = 8
"""Connections of one analyst."""
MAX_UNREAD = 64
"""Chunks, or views of the queue, on their way to one analyst that no answer has come after; so much memory a slow or
silent one takes."""
SEND_AHEAD = 2 * MAX_CAPACITY + MAX_UNREAD
"""Messages that may wait for one connection."""
MAX_FRAMES = 8
"""More are not looked at; already three after the routing id are refused."""
MAX_REF = 200
"""Characters of an id; those made here have 32 to 60."""
RECEIVE_S = 0.2
"""So long messages are taken before the rest of the loop has its turn: each may be a commit."""
VIEWS_AT_ONCE, VIEW_AGAIN_S = 20, 0.1
"""Views of the queue that one connection has made for it; beyond them it gets the last one that was made."""
MAX_REFUSALS = 1000
"""A connection that was refused so often is ended."""
REFUSALS_TOLD, REFUSAL_AGAIN_S = 100, 2.0
TRY_AGAIN_S = 5.0
"""After a self-test that failed."""

_EVERYBODY: frozenset[str] = frozenset({"analyst", "supervisor", "viewer", "hub"})
_DECIDERS: frozenset[str] = frozenset({"analyst", "supervisor"})
_TAKERS: frozenset[str] = _DECIDERS | {"hub"}
MAY: dict[type[wire.Message], frozenset[str]] = {
    wire.Hello: _EVERYBODY, wire.Ping: _EVERYBODY, wire.Pong: _EVERYBODY, wire.Bye: _EVERYBODY,
    wire.QueueRequest: _EVERYBODY, wire.Fetch: _TAKERS, wire.Received: _TAKERS, wire.Decide: _TAKERS,
    wire.Renew: _TAKERS, wire.Release: _TAKERS, wire.Claim: _DECIDERS, wire.Peek: _DECIDERS,
    wire.Opine: _DECIDERS, wire.Here: _EVERYBODY,
}  # fmt: skip
"""Which roles may send what. Whatever is not here nobody may."""
_WRITTEN_DOWN = (wire.Hello, wire.Fetch, wire.Received, wire.Decide, wire.Claim, wire.Opine)


class Newest:
    """The newest leases of which something is known, some thousand: a hub's connection lasts for months."""

    def __init__(self) -> None:
        self._leases: dict[str, None] = {}

    def __contains__(self, lease_id: str) -> bool:
        return lease_id in self._leases

    def add(self, lease_id: str) -> None:
        """Take one; the oldest is forgotten."""
        self._leases[lease_id] = None
        while len(self._leases) > LEASES_KNOWN:
            self._leases.pop(next(iter(self._leases)))


class Connection:
    """One analyst's connection.

    key : that it was let in with, empty without a gate; id : as its `welcome` says, in what the analyst signs
    sequence : of the last statement taken
    peer : its socket; broken : that has ended, and nothing is sent to this routing id any more, for it may be another's
    minor : version of the protocol that it speaks
    hub : it is a site's hub; that it goes away says nothing about the scans that it had
    viewed, received : leases whose recording was asked for, and has come; peeked : scans that it may fetch without one,
        and whether it did; refusals : how often it was told no
    acted_s : when its person last did something, as far as it tells; left_s : when scans were taken back because that
        was too long ago, 0 if they were not: it gets no other before somebody is there again
    """

    def __init__(
        self, routing_id: bytes, peer: Peer | None, analyst: str, capacity: int, now_s: float, who: Enrolled | None
    ) -> None:  # fmt: skip
        self.routing_id = routing_id
        self.peer = peer
        self.broken = False
        self.viewed = Newest()
        self.received = Newest()
        self.peeked: dict[str, bool] = {}
        self.refusals = 0
        self.views = Sparing(VIEWS_AT_ONCE, VIEW_AGAIN_S)
        self.acted_s = now_s
        self.left_s = 0.0
        self.minor = 0
        self.hub = False
        self.unread: dict[int, int] = {}
        """Chunks that went out, by the ping after them, in this order; its answer says that they have been taken."""
        self.analyst = analyst
        self.capacity = capacity
        self.key = who.key.curve if who is not None else ""
        self.id = uuid.uuid4().hex
        self.sequence = 0
        self.heard_s = now_s
        self.pinged_s = now_s
        self.leases: dict[str, str] = {}
        self.stalled = False  # let a lease run out: gets nothing more until it is heard again

    @property
    def away(self) -> bool:
        """Scans were taken back because nobody was there, and nobody has been since."""
        return self.left_s > self.acted_s


class Dispatch:
    """The service side of the wire."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], config: DispatchConfig, outbox: Outbox,
        log: Callable[..., None], gate: Gate | None = None,
    ) -> None:  # fmt: skip
        """Bind. `log(event, **fields)` hears what happens.

        gate : lets programs in by their keys; it was tried by a stranger before the port opens

        Raises DeliveryError if the address is taken, or if the gate lets strangers in.
        """
        self._config = config
        self._context = context
        self._gate = gate
        self._test = SelfTest(gate) if gate is not None else None
        self._tried_s = time.monotonic()
        self.shut = ""
        """Why nothing is let in or out any more; empty as long as the gate is sound."""
        self._outbox = outbox
        self._log = log
        self._escalation = Escalation(config, outbox, log, self._tell_all)
        self._connections: dict[bytes, Connection] = {}
        self._counter = 0
        self._alarms: dict[str, wire.Alarm] = {}
        """In force, by kind; that of scans nobody takes is with `_escalation`."""
        self._storage_told = False
        self._unstored_s = 0.0
        """Since when what analysts send cannot be committed; 0 while it can."""
        self._begun: dict[str, float] = {}
        """When each lease that a connection has was given or taken up, monotonic."""
        self._view: wire.Queue | None = None
        self._viewed_at = -1
        """The audit's last event when it was made."""
        """Of the queue, the last one that was made."""
        self._unreadable = Sparing(burst=20, every_s=10.0)
        self._wrong = Sparing(burst=20, every_s=10.0)
        self._broken = Sparing(burst=20, every_s=10.0)
        self._not_allowed: dict[str, Sparing] = {}
        self._room = memoryview(bytearray(wire.CHUNK_BYTES))
        """A chunk between disk and socket: memory that is new each time costs more than the copy."""
        if why := self._tried_before_opening():
            raise DeliveryError(f"dispatch.bind {config.bind}: not opened: {why}")
        self.socket = self._new_server()
        self.door = Door(context, self.socket, log)
        try:
            self._bind(self.socket, config.bind)
        except DeliveryError:
            self.close()
            raise
        self.address: str = self.socket.get_string(zmq.LAST_ENDPOINT)
        self.door.opened(self.address)
        self._outbox.arrange(config.age_tier_s)
        self._outbox.rearm(config.lease_s)

    def _new_server(self) -> zmq.Socket[bytes]:
        """Return a socket that is not bound yet; whom it lets in is settled."""
        socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1), (zmq.ROUTER_HANDOVER, 0), (zmq.SNDHWM, SEND_AHEAD), (zmq.RCVHWM, 64),
            (zmq.LINGER, 0), (zmq.MAXMSGSIZE, wire.MAX_INBOUND_BYTES), (zmq.HANDSHAKE_IVL, 3000),
            (zmq.HEARTBEAT_IVL, 2000), (zmq.HEARTBEAT_TIMEOUT, 6000), (zmq.HEARTBEAT_TTL, 6000),
            (zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 10), (zmq.TCP_KEEPALIVE_INTVL, 5),
            (zmq.TCP_KEEPALIVE_CNT, 3), (zmq.BACKLOG, 512),
        ):  # fmt: skip
            socket.setsockopt(option, value)
        if self._gate is not None:
            self._gate.secure(socket)
        return socket

    def _bind(self, socket: zmq.Socket[bytes], address: str) -> None:
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise DeliveryError(
                f"dispatch.bind {address}: cannot be bound ({error}); is another scanlane running here?"
            ) from error

    def close(self) -> None:
        """Close the socket. Leases stay in the outbox and are armed again at the next start."""
        if self._test is not None:
            self._test.end()
        self.door.close()
        self.socket.close(linger=0)

    # ------------------------------------------------------------------------------------------- trying the gate

    def _tried_before_opening(self) -> str:
        """Have a stranger and a known program try a port of this machine alone; return what is wrong, or nothing."""
        if self._gate is None or self._test is None:
            return ""
        server = self._new_server()
        poller = zmq.Poller()
        poller.register(server, zmq.POLLIN)
        poller.register(self._gate.socket, zmq.POLLIN)
        try:
            self._bind(server, "tcp://127.0.0.1:*")
            self._test.begin(server.get_string(zmq.LAST_ENDPOINT))
            while (wrong := self._test.step()) is None:
                poller.poll(50)
                self._gate.answer()
                self._hear_probe(server)
            return wrong
        finally:
            self._test.end()
            server.close(linger=0)

    def _hear_probe(self, server: zmq.Socket[bytes]) -> None:
        """Tell the test whose message came; on this port nobody else is to be heard."""
        assert self._gate is not None and self._test is not None
        while True:
            try:
                frames = server.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if self._gate.is_probe(user_of(frames[-1])):
                self._test.heard()

    def _try_gate(self) -> None:
        """Keep the test of the open port going: begun every minute, sooner after it failed."""
        if self._gate is None or self._test is None:
            return
        now_s = time.monotonic()
        if not self._test.running:
            if now_s - self._tried_s >= (TRY_AGAIN_S if self.shut else TRY_EVERY_S):
                self._tried_s = now_s
                self._test.begin(_from_here(self.address))
            return
        wrong = self._test.step()
        if wrong is None:
            return
        if wrong and not self.shut:
            self._log("gate_unsound", level="error", text=f"nothing goes out: {wrong}")
            self._keep("gate_unsound", wrong)
            for connection in list(self._connections.values()):
                self._drop(connection, "cut off: the gate is not sound")
            self.door.cut_all()
        elif self.shut and not wrong:
            self._log("gate_sound", text="it keeps strangers out again")
            self._keep("gate_sound", "")
        self.shut = wrong

    # ------------------------------------------------------------------------------------------------- receiving

    @property
    def sockets(self) -> tuple[zmq.Socket[bytes], ...]:
        """What to poll: `serve` as soon as one of them can be read."""
        return (self.socket, self.door.socket, *(() if self._gate is None else (self._gate.socket,)))

    def serve(self) -> None:
        """Take all that has come: questions about new connections, connections and messages."""
        if self._gate is not None:
            self._gate.answer()
        self._look_at_door()
        self.receive()

    def receive(self) -> None:
        """Take the messages that are there, for a while: a flood is not to starve the lanes and the heartbeats."""
        until_s = time.monotonic() + RECEIVE_S
        while time.monotonic() < until_s:
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            frames = [bytes(part.buffer) for part in parts[:MAX_FRAMES]]
            descriptor = _descriptor_of(parts[-1])
            self.door.spoke(descriptor)
            if self._gate is None:
                self._take(frames[0], descriptor, frames[1:], None)
            else:
                self._take_by_key(self._gate, user_of(parts[-1]), frames[0], descriptor, frames[1:])

    def _take_by_key(self, gate: Gate, key: str, routing_id: bytes, descriptor: int, frames: list[bytes]) -> None:
        """Take a message of whoever the list says this key is now; of nobody, nothing is taken and nothing answered."""
        if gate.is_probe(key):
            if self._test is not None:
                self._test.heard()
            self.door.greeted(descriptor)
            return
        who = gate.who(key)
        if who is None or self.shut:
            self._refused(f"a message by the key {key or '(none)'}, which is not enrolled" if not self.shut else "shut")
            connection = self._connections.get(routing_id)
            if connection is not None:
                self._drop(connection, "revoked")
            if (peer := self.door.greeted(descriptor)) is not None:
                self.door.cut(peer)
            return
        connection = self._connections.get(routing_id)
        if connection is not None and connection.key != key:
            self._refused(f"a message of {who.key.name} on {connection.analyst}'s connection")
            return
        self._take(routing_id, descriptor, frames, who)

    def _take(self, routing_id: bytes, descriptor: int, frames: list[bytes], who: Enrolled | None) -> None:
        if not routing_id.startswith(b"\0"):
            # Only ids made by this socket are trusted: a self-chosen one could be another analyst's.
            self._refused("a peer chose its own routing id")
            return
        try:
            message = wire.decode_from_analyst(frames)
        except ProtocolError as error:
            self._refused(str(error))
            self._tell_refused(routing_id, "message", str(error))
            return
        connection = self._connections.get(routing_id)
        if who is not None and who.role not in MAY.get(type(message), frozenset()):
            reason = f"{who.key.name} is {who.role}, who may not send {_type(message)}"
            self._audit_refusal(reason, who.key.name)
            self._tell_refused(routing_id, _type(message), reason, _ref(message))
            return
        try:
            if isinstance(message, wire.Hello):
                self._hello(routing_id, descriptor, message, who)
            elif connection is None:
                self._tell_refused(routing_id, "hello_first", "this connection has not said hello")
            else:
                connection.heard_s = time.monotonic()
                connection.stalled = False
                _check_ids(message)
                self._act(connection, message)
            if type(message) in _WRITTEN_DOWN:
                self._unstored_s = 0.0
        except DeliveryError as error:
            self._tell_refused(routing_id, _type(message), str(error), _ref(message))
        except StorageError as error:
            self._unstored(routing_id, message, error)

    def _unstored(self, routing_id: bytes, message: wire.FromAnalyst, error: StorageError) -> None:
        """Pass over what could not be committed: it is asked again. If that lasts, who asks learns why."""
        now_s = time.monotonic()
        if not self._unstored_s:
            self._unstored_s = now_s
            self._log("outbox_fault", level="error", text=f"{_type(message)} is not committed: {one_line(str(error))}")
        if now_s - self._unstored_s > PATIENCE_S:
            refused = wire.Refused(about=_type(message), reason=one_line(str(error)), ref=_ref(message)[:MAX_REF])
            self._send(routing_id, refused)  # it is no fault of theirs, and does not count as one

    def _refused(self, why: str) -> None:
        """Log a message that cannot be taken."""
        if (more := self._unreadable.ask()) is not None:
            self._log("refused", text=one_line(why) + more, level="warning")

    def _tell_refused(self, routing_id: bytes, about: str, reason: str, ref: str = "") -> None:
        """Answer no. Who does nothing but ask for what is refused is cut off."""
        self._send(routing_id, wire.Refused(about=about, reason=one_line(reason), ref=ref[:MAX_REF]))
        connection = self._connections.get(routing_id)
        if connection is None:
            return
        connection.refusals += 1
        if connection.refusals > MAX_REFUSALS:
            self._drop(connection, f"refused {MAX_REFUSALS} times", cut=True)

    def _act(self, connection: Connection, message: wire.FromAnalyst) -> None:
        match message:
            case wire.Fetch():
                self._fetch(connection, message)
            case wire.Received():
                self._received(connection, message)
            case wire.Decide():
                self._decide(connection, message)
            case wire.Renew():
                self._renew(connection, message)
            case wire.Here():
                if message.idle_s >= 0:  # NaN is not
                    connection.acted_s = max(connection.acted_s, connection.heard_s - message.idle_s)
            case wire.Release():
                connection.acted_s = connection.heard_s
                if self._outbox.renew(message.lease_id, connection.analyst, self._config.lease_s):
                    self._end_lease(message.lease_id, "given back")
            case wire.Claim():
                self._claim(connection, message.scan_id)
            case wire.Peek():
                self._peek(connection, message.scan_id)
            case wire.Opine():
                self._opine(connection, message)
            case wire.QueueRequest():
                self._show_queue(connection, message.after)
            case wire.Ping():
                self._send(connection.routing_id, wire.Pong(counter=message.counter))
            case wire.Bye():
                self._drop(connection, "signed off")
            case wire.Pong():
                if message.counter in connection.unread:
                    for counter in list(connection.unread):
                        del connection.unread[counter]
                        if counter == message.counter:
                            break

    def _show_queue(self, connection: Connection, after: str) -> None:
        """Send the queue, unless so much is on its way that was not read: it asks again."""
        if self._unread_room(connection.analyst) <= 0:
            return
        leave = connection.views.ask() is not None
        if after:
            if not leave:
                return
            view = self.queue(after[:MAX_REF])
        else:
            if leave or self._view is None:
                self._view = self._queue_now()
            view = self._view
        self._send(connection.routing_id, view)
        self._expect_read(connection, 1)

    def _unread_room(self, analyst: str) -> int:
        """Return how many more chunks or views may go to one analyst before an answer comes."""
        on_their_way = (sum(c.unread.values()) for c in self._connections.values() if c.analyst == analyst)
        return MAX_UNREAD - sum(on_their_way)

    def _expect_read(self, connection: Connection, count: int) -> None:
        """Send a ping whose number cannot be guessed: who answers it has read it, and the `count` sent before."""
        connection.unread[self._ping(connection, secrets.randbits(62))] = count

    def _audit_refusal(self, reason: str, analyst: str, scan_id: str = "") -> None:
        """Write down what somebody with a name tried and may not; of a flood of it, that it is one."""
        name = analyst if self._gate is not None else ""  # without keys anybody can think of any number of names
        sparing = self._not_allowed.setdefault(name, Sparing(REFUSALS_TOLD, REFUSAL_AGAIN_S))
        if (more := sparing.ask()) is None:
            return
        reason = one_line(reason) + more
        self._log("not_allowed", analyst=analyst, text=reason, level="warning")
        with suppress(StorageError):  # the log has it
            self._outbox.note("not_allowed", reason, scan_id, analyst)

    def _hello(self, routing_id: bytes, descriptor: int, hello: wire.Hello, who: Enrolled | None) -> None:
        if hello.proto_min > wire.MINOR_MAX or hello.proto_max < wire.MINOR_MIN:
            reason = f"speaks minor {hello.proto_min}-{hello.proto_max}, this service {wire.MINOR_MIN}-{wire.MINOR_MAX}"
            self._tell_refused(routing_id, "hello", f"{reason}; upgrade the older side")
            return
        analyst = hello.analyst if who is None else who.key.name
        if who is not None and hello.analyst not in ("", analyst):
            reason = f"says it is {hello.analyst[:MAX_NAME]!r}, but its key is of {analyst!r}"
            self._audit_refusal(reason, analyst)
            self._tell_refused(routing_id, "hello", reason)
            return
        if who is not None and (who.role == "hub") != hello.hub:
            says = "a hub" if hello.hub else "no hub"
            reason = f"{analyst} says it is {says}, and is enrolled as {who.role}"
            self._audit_refusal(reason, analyst)
            self._tell_refused(routing_id, "hello", reason)
            return
        if not analyst or len(hello.analyst) > MAX_NAME or not hello.analyst.isprintable():
            reason = f"analyst {hello.analyst[:MAX_NAME]!r}, expected a printable name of 1-{MAX_NAME} characters"
            self._tell_refused(routing_id, "hello", reason)
            return
        now_s = time.monotonic()
        capacity = min(hello.capacity, MAX_CAPACITY) if who is None or who.role in _TAKERS else 0
        known = self._connections.get(routing_id)
        if known is None or known.analyst != analyst:
            if known is not None:
                self._drop(known, "said hello as somebody else")
            peer = self.door.greeted(descriptor)
            new = Connection(routing_id, peer, analyst, capacity, now_s, who)
            if not any(c.leases for c in self._connections.values() if c.analyst == analyst):
                # this service, or the analyst's program, was restarted: what they hold counts
                new.leases.update(self._outbox.leases_of(analyst))
            known = self._connections[routing_id] = new
            self._end_oldest_of(analyst)
            self._log("analyst_joined", analyst=analyst, capacity=capacity)
        else:
            known.heard_s, known.capacity = now_s, capacity
        known.minor, known.hub = min(hello.proto_max, wire.MINOR_MAX), hello.hub
        self._send(
            routing_id,
            wire.Welcome(
                connection_id=known.id,
                minor=known.minor,
                lease_s=self._config.lease_s,
                heartbeat_s=self._config.heartbeat_s,
                service_version=__version__,
            ),
        )
        if known.minor >= wire.MINOR_ALARM:
            for alarm in self._alarms_in_force():
                self._send(routing_id, alarm)

    def _end_oldest_of(self, analyst: str) -> None:
        """Keep the number of one analyst's connections: the one that was silent longest gives way to the new one."""
        own = [c for c in self._connections.values() if c.analyst == analyst]
        if len(own) > MAX_OF_ONE:
            self._drop(min(own, key=lambda c: c.heard_s), f"has more than {MAX_OF_ONE} connections", cut=True)

    def _fetch(self, connection: Connection, message: wire.Fetch) -> None:
        ahead = not message.lease_id and message.scan_id in connection.peeked
        if ahead:
            item = self._outbox.peek(message.scan_id, connection.analyst)
        else:
            item = self._leased(connection, message.scan_id, message.lease_id)
        if not 0 <= message.offset < item.row.size:
            raise DeliveryError(f"offset {message.offset}, the recording has {item.row.size} bytes")
        if ahead and not connection.peeked[message.scan_id]:
            self._outbox.note("fetched_ahead", "without a lease", message.scan_id, connection.analyst)
            connection.peeked[message.scan_id] = True
        elif not ahead and message.lease_id not in connection.viewed:
            # Written down before the first byte goes out, not when its receipt comes: a program that keeps the
            # receipt to itself has seen the picture all the same.
            self._outbox.taken(message.scan_id, message.lease_id, connection.analyst)
            connection.viewed.add(message.lease_id)
        room = self._unread_room(connection.analyst)
        if room <= 0:
            return  # it asks again, or its connection ends
        try:
            descriptor = os.open(item.row.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DeliveryError(f"the recording cannot be read ({error.strerror})") from error
        try:
            offset = message.offset
            count = min(max(1, message.credit), wire.MAX_CREDIT, room)
            for _ in range(count):
                data = self._room[: os.preadv(descriptor, [self._room], offset)]
                last = offset + len(data) >= item.row.size
                if not data:
                    raise DeliveryError(f"the recording ends at byte {offset}, expected {item.row.size}")
                if not self._send(
                    connection.routing_id, wire.Chunk(scan_id=message.scan_id, offset=offset, last=last), data
                ):
                    return  # its queue is full: it asks again from where its bytes end
                offset += len(data)
                if last:
                    break
        finally:
            os.close(descriptor)
        self._expect_read(connection, count)

    def _leased(self, connection: Connection, scan_id: str, lease_id: str) -> Item:
        item = self._outbox.item(scan_id)
        if item.state != "leased" or item.lease_id != lease_id or item.analyst != connection.analyst:
            raise DeliveryError(f"scan {scan_id} is not leased to {connection.analyst} by {lease_id}")
        return item

    def _received(self, connection: Connection, message: wire.Received) -> None:
        if message.lease_id in connection.received:
            return  # it is written down
        theirs = self._outbox.holder(message.lease_id) == connection.analyst
        if theirs and self._outbox.delivered(message.scan_id, message.lease_id, message.sha256):
            connection.received.add(message.lease_id)
            self._log("delivered", scan=message.scan_id, analyst=connection.analyst)
        elif (more := self._wrong.ask()) is not None:
            text = f"hashes to {message.sha256[:16]}…, or is no scan of theirs{more}"
            self._log("delivery_wrong", scan=message.scan_id, analyst=connection.analyst, text=text, level="warning")

    def _verified(
        self, gate: Gate, connection: Connection, message: wire.Decide | wire.Opine, decode: Callable[[bytes], _Signed]
    ) -> _Signed:  # fmt: skip
        """Return the statement of a message that this analyst signed for this connection, and has not sent before."""
        who = gate.who(connection.key)
        if who is None or not verified(who.key.signing, message.statement, message.signature):
            raise DeliveryError("the signature is not of this analyst's key, or not of these bytes")
        statement = decode(message.statement)
        if statement.connection_id != connection.id:
            raise DeliveryError("signed for another connection")
        nameless = not statement.service and connection.minor < wire.MINOR_SERVICE
        if statement.service != gate.identity.curve and not nameless:
            raise DeliveryError("signed for another service")
        if statement.sequence <= connection.sequence:
            raise DeliveryError(f"statement {statement.sequence} comes again: {connection.sequence} was taken before")
        connection.sequence = statement.sequence
        return statement

    def _decision_in(self, connection: Connection, message: wire.Decide) -> Decision:
        """Return the decision of a message, its signature verified where there are keys."""
        if self._gate is not None:
            return self._verified(self._gate, connection, message, wire.decode_statement).decision
        if message.decision is None:
            raise DeliveryError("no decision: this service has no keys, so that signed ones cannot be verified")
        return message.decision

    def _opinion_in(self, connection: Connection, message: wire.Opine) -> tuple[Opinion, str]:
        """Return the opinion of a message and its lease, its signature verified where there are keys."""
        if self._gate is not None:
            if not message.statement:
                raise DeliveryError(
                    f"an opinion without a signature, as programs of minor {wire.MINOR_OPINION} send it: here it must "
                    f"be signed (minor {wire.MINOR_SIGNED_OPINION}); upgrade the program, or decide or give back"
                )
            signed = self._verified(self._gate, connection, message, wire.decode_opinion_statement)
            return signed.opinion, signed.lease_id
        if message.opinion is None:
            raise DeliveryError("no opinion: this service has no keys, so that signed ones cannot be verified")
        return message.opinion, message.lease_id

    def _proof(self, message: wire.Decide | wire.Opine) -> dict[str, bytes]:
        """Return what is kept as proof of a message that was verified; nothing where nothing is."""
        if self._gate is None:
            return {}
        return {"statement": message.statement, "signature": message.signature}

    def _decide(self, connection: Connection, message: wire.Decide) -> None:
        try:
            decision = self._decision_in(connection, message)
            _check_said(connection, decision, "decision_id", decision.decided_utc_ns)
            connection.acted_s = connection.heard_s
            answer = self._outbox.decide(decision, **self._proof(message))
        except (DeliveryError, ProtocolError) as error:
            self._audit_refusal(f"a decision is not taken: {error}", connection.analyst)
            raise DeliveryError(str(error)) from error
        if answer.applied:
            connection.leases.pop(decision.lease_id, None)
            for other in list(self._connections.values()):  # the same analyst's other programs learn that it is over
                if other.leases.pop(decision.lease_id, None) is not None:
                    revoked = wire.Revoked(
                        scan_id=decision.scan_id, lease_id=decision.lease_id, reason=f"decided: {decision.verdict}"
                    )
                    self._send(other.routing_id, revoked)
        given = self._outbox.opinions(decision.scan_id) if answer.applied else ()
        if not answer.repeated:
            self._log(
                "decided" if answer.applied else "decision_not_applied", scan=decision.scan_id,
                analyst=decision.analyst, verdict=decision.verdict, text=answer.reason,
            )  # fmt: skip
        self._send(
            connection.routing_id,
            wire.Decided(
                decision_id=decision.decision_id, scan_id=decision.scan_id, durable=True, applied=answer.applied,
                reason=answer.reason, opinions=tuple(g.opinion for g in given), signed=_proofs(given),
            ),
        )  # fmt: skip

    def _opine(self, connection: Connection, message: wire.Opine) -> None:
        """Keep what an analyst thinks of a scan, and have it wait for the next; that is no try that failed."""
        try:
            opinion, lease_id = self._opinion_in(connection, message)
            _check_said(connection, opinion, "opinion_id", opinion.given_utc_ns)
            if opinion.verdict is None:
                raise DeliveryError("an opinion without a verdict")
            connection.acted_s = connection.heard_s
            self._outbox.opine(opinion, lease_id, **self._proof(message))
        except (DeliveryError, ProtocolError) as error:
            self._audit_refusal(f"an opinion is not taken: {error}", connection.analyst)
            raise DeliveryError(str(error)) from error
        if self._outbox.renew(lease_id, connection.analyst, self._config.lease_s):
            self._end_lease(lease_id, "given on for a second opinion", hold=False)
        self._send(
            connection.routing_id,
            wire.Opined(opinion_id=opinion.opinion_id, scan_id=opinion.scan_id, durable=True),
        )

    def _renew(self, connection: Connection, message: wire.Renew) -> None:
        if not self._outbox.renew(message.lease_id, connection.analyst, self._config.lease_s):
            connection.leases.pop(message.lease_id, None)
            self._send(
                connection.routing_id,
                wire.Revoked(scan_id="", lease_id=message.lease_id, reason="the lease had ended"),
            )
            return
        # After a restart of the service the connection takes its lease up again by renewing it.
        connection.leases.setdefault(message.lease_id, "")

    # ------------------------------------------------------------------------------------------------- by time

    def tick(self) -> None:
        """End what is over, greet who is silent, offer what waits.

        While the outbox cannot commit, nothing is offered: what is not written down was not given to anybody.
        """
        try:
            self._pass_time()
        except StorageError as error:
            if not self._storage_told:
                self._log("outbox_fault", level="error", text=str(error))
            self._storage_told = True
            return
        if self._storage_told:
            self._log("outbox_back")
            self._storage_told = False

    def _pass_time(self) -> None:
        now_s = time.monotonic()
        self._look_at_list()
        self._try_gate()
        self._look_at_door()
        for connection in list(self._connections.values()):
            silent_s = now_s - connection.heard_s
            if silent_s > 3 * self._config.heartbeat_s:
                self._drop(connection, f"not heard for {silent_s:.1f} s")
            elif now_s - connection.pinged_s >= self._config.heartbeat_s:
                connection.pinged_s = now_s
                self._ping(connection)
        for told in self._outbox.beat():
            self._log("hub_lost", level="error", text=told)
        for lease_id in self._outbox.expired(self._config.lease_s):
            for owner in self._connections.values():
                owner.stalled = owner.stalled or lease_id in owner.leases
            hub = any(c.hub for c in self._connections.values() if lease_id in c.leases)
            self._end_lease(lease_id, "the lease ran out", hold=not hub)
        self._take_back_from_nobody(now_s)
        self._offer_pending()
        # who takes scans by name has no capacity, and holds some
        working = sum(
            (c.capacity > 0 or bool(c.leases)) and not (c.stalled or c.away) for c in self._connections.values()
        )
        self._escalation.step(working)

    def attended(self) -> bool:
        """Tell whether anybody who may decide is linked with this service."""
        return any(
            self._gate is None or ((who := self._gate.who(c.key)) is not None and who.role in _DECIDERS)
            for c in self._connections.values() if not (c.broken or c.away)
        )  # fmt: skip

    def _take_back_from_nobody(self, now_s: float) -> None:
        """End leases that programs renew though their person has done nothing for too long."""
        sharing: dict[str, list[Connection]] = {}
        for connection in self._connections.values():
            for lease_id in connection.leases:
                sharing.setdefault(lease_id, []).append(connection)
        self._begun = {lease_id: self._begun.get(lease_id, now_s) for lease_id in sharing}
        for lease_id, connections in sharing.items():
            if now_s - max(self._begun[lease_id], *(c.acted_s for c in connections)) < self._config.idle_s:
                continue
            for connection in connections:
                connection.left_s = now_s
            self._end_lease(lease_id, f"nobody did anything at the workstation for {self._config.idle_s:g} s")

    def _alarms_in_force(self) -> list[wire.Alarm]:
        unattended = self._escalation.alarm
        return [*self._alarms.values(), *([] if unattended is None else [unattended])]

    def tell(self, alarm: wire.Alarm) -> None:
        """Keep an alarm in force until one of its kind says that it is over; tell the audit and whoever is connected.

        The log has it already.
        """
        self._alarms.pop(alarm.kind, None)
        if not alarm.over:
            self._alarms[alarm.kind] = alarm
        self._keep("alarm_over" if alarm.over else "alarm", alarm.text)
        self._tell_all(alarm)

    def _tell_all(self, alarm: wire.Alarm) -> None:
        """Send to whoever can understand it: who sees the queue may know that it waits."""
        for connection in list(self._connections.values()):
            if connection.minor >= wire.MINOR_ALARM:
                self._send(connection.routing_id, alarm)

    def _ping(self, connection: Connection, counter: int | None = None) -> int:
        """Send a ping with this number, or the next one; return it."""
        if counter is None:
            counter = self._counter = self._counter + 1
        self._send(connection.routing_id, wire.Ping(counter=counter))
        return counter

    def _look_at_door(self) -> None:
        """Hear whose connections have ended without a word; what they had on lease they may come back for."""
        for peer in self.door.look():
            for connection in self._connections.values():
                if connection.peer is peer:
                    connection.broken = True
                    self._told_broken(connection)

    def _keep(self, kind: str, text: str, who: str = "") -> None:
        with suppress(StorageError):  # the log has it
            self._outbox.note(kind, text, who=who)

    def _told_broken(self, connection: Connection) -> None:
        text = f"its program or the network failed, or it sent more than {wire.MAX_INBOUND_BYTES} bytes at once"
        if (more := self._broken.ask()) is not None:
            self._log("connection_broken", analyst=connection.analyst, text=text + more, level="warning")
            self._keep("connection_broken", text + more, connection.analyst)

    def _look_at_list(self) -> None:
        """Cut off at once whoever has lost their right or has another role now."""
        if self._gate is None or not self._gate.look_again():
            return
        for connection in list(self._connections.values()):
            who = self._gate.who(connection.key)
            if who is None or who.key.name != connection.analyst:
                self._drop(connection, "revoked", cut=True)
            elif (who.role not in _TAKERS and connection.capacity) or (who.role == "hub") != connection.hub:
                self._drop(connection, f"is {who.role} now", cut=True)

    def _offer_pending(self) -> None:
        while True:
            held: dict[str, set[str]] = {}
            for c in self._connections.values():
                held.setdefault(c.analyst, set()).update(c.leases)
            free = [
                c for c in self._connections.values()
                if len(c.leases) < c.capacity and not (c.stalled or c.broken or c.away)
                and len(held[c.analyst]) < MAX_CAPACITY
            ]  # fmt: skip
            if not free:
                return
            connection = min(free, key=lambda c: len(c.leases))
            item = self._outbox.lease_next(connection.analyst, self._config.lease_s)
            if item is None:
                return
            self._offer(connection, item)

    def _held(self, analyst: str) -> set[str]:
        """Return the leases of one analyst, by all their connections."""
        return {lease for c in self._connections.values() if c.analyst == analyst for lease in c.leases}

    def _offered(self, connection: Connection, item: Item, lease_id: str, lease_s: float) -> wire.Offer:
        row = item.row
        given = self._outbox.opinions(row.scan_id, connection.analyst)
        return wire.Offer(
            scan_id=row.scan_id, lease_id=lease_id, lease_s=lease_s, size=row.size, sha256=row.sha256, lane=row.lane,
            start_utc_ns=row.start_utc_ns, attempt=item.attempts, simulated=row.simulated, result=row.told,
            declaration=row.papers, opinions=tuple(g.opinion for g in given), signed=_proofs(given),
        )  # fmt: skip

    def _offer(self, connection: Connection, item: Item) -> None:
        row = item.row
        again = item.lease_id in connection.leases
        connection.leases[item.lease_id] = row.scan_id
        offer = self._offered(connection, item, item.lease_id, self._config.lease_s)
        sent = self._send(connection.routing_id, offer)
        if sent and again:  # it has it, and was told before
            return
        if sent:
            self._log("offered", scan=row.scan_id, analyst=connection.analyst, attempt=item.attempts)
        else:
            connection.stalled = True  # it gets nothing more until it is heard again
            self._end_lease(item.lease_id, "could not be sent", hold=False)

    def _claim(self, connection: Connection, scan_id: str) -> None:
        """Give a named scan. What is held was given back too often: with keys it takes a supervisor to take it on."""
        who = None if self._gate is None else self._gate.who(connection.key)
        if who is not None and who.role != "supervisor" and self._outbox.item(scan_id).state == "held":
            reason = f"scan {scan_id} is held; a supervisor may take it, {who.key.name} is {who.role}"
            self._audit_refusal(reason, connection.analyst, scan_id)
            raise DeliveryError(reason)
        connection.acted_s = connection.heard_s
        held = self._held(connection.analyst)
        if len(held) >= MAX_CAPACITY and self._outbox.item(scan_id).lease_id not in held:
            raise DeliveryError(f"{connection.analyst} has {len(held)} scans; decide or give back some of them first")
        self._offer(connection, self._outbox.lease(scan_id, connection.analyst, self._config.lease_s))

    def _peek(self, connection: Connection, scan_id: str) -> None:
        """Let a scan that waits be fetched ahead of its being taken: nobody has it by that, and it waits as before."""
        item = self._outbox.peek(scan_id, connection.analyst)
        if scan_id not in connection.peeked:
            while len(connection.peeked) >= MAX_CAPACITY:
                connection.peeked.pop(next(iter(connection.peeked)))
            connection.peeked[scan_id] = False
        self._send(connection.routing_id, self._offered(connection, item, "", 0.0))

    def _end_lease(self, lease_id: str, why: str, *, hold: bool = True) -> None:
        """End a lease and tell every connection that shares it. hold : after too many tries the scan is held."""
        scan_id = self._outbox.release(lease_id, why, self._config.max_attempts if hold else sys.maxsize)
        sharing = [c for c in self._connections.values() if c.leases.pop(lease_id, None) is not None]
        if scan_id is None:
            return
        held = self._outbox.item(scan_id).state == "held"
        self._log("held" if held else "released", scan=scan_id, text=why, level="error" if held else "info")
        for connection in sharing:
            self._send(connection.routing_id, wire.Revoked(scan_id=scan_id, lease_id=lease_id, reason=why))

    def _drop(self, connection: Connection, why: str, *, cut: bool = False) -> None:
        """Forget a connection; leases that no other program of the same analyst shares go back.

        cut : end it too, so that nothing that waits in its queue goes out any more
        """
        self._connections.pop(connection.routing_id, None)
        if connection.peer is not None:
            (self.door.cut if cut else self.door.left)(connection.peer)
        shared = self._held(connection.analyst)
        for lease_id in list(connection.leases):
            if lease_id in shared:
                continue
            try:
                self._end_lease(lease_id, f"{connection.analyst} {why}", hold=not connection.hub)
            except StorageError as error:  # it ends when its time is over
                self._log("release_failed", level="warning", text=one_line(str(error)))
        self._log("analyst_left", analyst=connection.analyst, text=why)

    def _queue_now(self) -> wire.Queue:
        """Return the queue's beginning; the same again while the audit tells of nothing new: each desk asks for it."""
        seq, _ = self._outbox.audit_head()
        if self._view is None or self._viewed_at != seq or self._view.alarm != self._alarm_words():
            self._view = self.queue()
            self._viewed_at = seq if self._outbox.counted_upto == seq else -1
        return self._view

    def _alarm_words(self) -> str:
        return "; ".join(a.text for a in self._alarms_in_force())

    def queue(self, after: str = "") -> wire.Queue:
        """Return the queue as workstations see it, from its first scan or from the one that follows `after`."""
        opinions = self._outbox.opinion_counts()
        rows = tuple(
            wire.QueueRow(
                scan_id=i.row.scan_id, lane=i.row.lane, outcome=i.row.told.outcome,
                start_utc_ns=i.row.start_utc_ns, state=i.state, analyst=i.analyst, reasons=i.row.told.reasons[:3],
                containers=() if i.row.papers is None else i.row.papers.container_numbers[:4],
                simulated=i.row.simulated, attempts=i.attempts, opinions=opinions.get(i.row.scan_id, 0),
            )
            for i in self._outbox.undecided(QUEUE_ROWS, after)
        )  # fmt: skip
        return wire.Queue(rows=rows, counts=self._outbox.counts_lately(), alarm=self._alarm_words(), after=after)

    def _send(self, routing_id: bytes, message: wire.Message, raw: bytes | memoryview | None = None) -> bool:
        """Send; False if the peer's queue is full, the peer is gone, or nothing may go out."""
        connection = self._connections.get(routing_id)
        if self.shut or (connection is not None and connection.broken):
            return False
        try:
            self.socket.send_multipart([routing_id, *wire.encode(message, raw)], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            connection = self._connections.pop(routing_id, None)
            if connection is not None:
                self._drop(connection, "disconnected")
            return False
        return True


def _descriptor_of(frame: zmq.Frame) -> int:
    """Return the descriptor of the connection that a message came by, -1 if libzmq does not tell."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1


def _type(message: wire.FromAnalyst) -> str:
    return type(message).__name__.lower()


def _from_here(address: str) -> str:
    """Return the address at which this machine reaches a socket of its own that is bound to `address`."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return f"tcp://127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "*") else address  # noqa: S104 -- compared only


def _check_ids(message: wire.FromAnalyst | Decision | Opinion) -> None:
    """Raise DeliveryError for an id that can be none: it goes into a database, an audit and a log."""
    for name in ("scan_id", "lease_id", "sha256", "analyst"):
        value = getattr(message, name, "")
        if len(value) > MAX_REF or not value.isprintable():
            raise DeliveryError(f"{name} {value[:MAX_NAME]!r}, expected at most {MAX_REF} printable characters")


def _check_said(connection: Connection, said: Decision | Opinion, id_field: str, utc_ns: int) -> None:
    """Raise DeliveryError for a decision or opinion that is not this connection's, or has values that can be none."""
    via = said.via if isinstance(said, Decision) else ""
    speaker = via if connection.hub else said.analyst
    if speaker != connection.analyst or (via and not connection.hub):
        raise DeliveryError(f"signed {speaker or 'nobody'}, but this connection is {connection.analyst}'s")
    name = getattr(said, id_field)
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise DeliveryError(f"{id_field} {name[:MAX_NAME]!r}, expected 1-{MAX_NAME} characters")
    _check_ids(said)
    if not 0 <= utc_ns < 1 << 63:
        raise DeliveryError(f"time {utc_ns}, expected nanoseconds since 1970")


def _proofs(given: Iterable[Given]) -> tuple[wire.SignedOpinion, ...]:
    return tuple(
        wire.SignedOpinion(opinion_id=g.opinion.opinion_id, statement=g.statement, signature=g.signature)
        for g in given
        if g.signature
    )


def _ref(message: wire.FromAnalyst) -> str:
    if isinstance(message, wire.Decide | wire.Opine):
        try:  # not verified: it only tells its sender what the answer is about
            if isinstance(message, wire.Decide):
                return (message.decision or wire.decode_statement(message.statement).decision).decision_id
            return (message.opinion or wire.decode_opinion_statement(message.statement).opinion).opinion_id
        except ProtocolError:
            return ""
    return str(getattr(message, "scan_id", "") or getattr(message, "lease_id", ""))
