"""Results to the workstations: one ROUTER socket, leases, chunks, acknowledged decisions.

Called from one loop: `poll`able socket, `receive` when it is readable, `tick` several times a second. Only committed
scans are offered; `decided` is sent after the COMMIT; everything about delivery is in the outbox, so this object can be
thrown away at any moment. Connections are known by the routing ids the socket itself makes.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable

import zmq

from scanner_io import __version__, wire
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.errors import DeliveryError, ProtocolError, StorageError

from .outbox import Item, Outbox

QUEUE_ROWS = 200
MAX_NAME = 64


class Connection:
    """One analyst's connection."""

    def __init__(self, routing_id: bytes, hello: wire.Hello, now_s: float) -> None:
        self.routing_id = routing_id
        self.analyst = hello.analyst
        self.capacity = hello.capacity
        self.heard_s = now_s
        self.pinged_s = now_s
        self.leases: dict[str, str] = {}
        self.stalled = False  # let a lease run out: gets nothing more until it is heard again


class Dispatch:
    """The service side of the wire."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], config: DispatchConfig, outbox: Outbox,
        log: Callable[..., None],
    ) -> None:  # fmt: skip
        """Bind. `log(event, **fields)` hears what happens. Raises DeliveryError if the address is taken."""
        self._config = config
        self._outbox = outbox
        self._log = log
        self._connections: dict[bytes, Connection] = {}
        self._counter = 0
        self._storage_told = False
        self._refusals = 0
        self.socket = context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.ROUTER_MANDATORY, 1), (zmq.ROUTER_HANDOVER, 0), (zmq.SNDHWM, 64), (zmq.RCVHWM, 64), (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, wire.MAX_INBOUND_BYTES), (zmq.HANDSHAKE_IVL, 3000), (zmq.HEARTBEAT_IVL, 2000),
            (zmq.HEARTBEAT_TIMEOUT, 6000), (zmq.HEARTBEAT_TTL, 6000), (zmq.TCP_KEEPALIVE, 1), (zmq.BACKLOG, 512),
        ):  # fmt: skip
            self.socket.setsockopt(option, value)
        try:
            self.socket.bind(config.bind)
        except zmq.ZMQError as error:
            self.socket.close()
            raise DeliveryError(
                f"dispatch.bind {config.bind}: cannot be bound ({error}); is another scanlane running here?"
            ) from error
        self.address: str = self.socket.get_string(zmq.LAST_ENDPOINT)
        self._outbox.rearm(config.lease_s)

    def close(self) -> None:
        """Close the socket. Leases stay in the outbox and are armed again at the next start."""
        self.socket.close(linger=0)

    # ------------------------------------------------------------------------------------------------- receiving

    def receive(self) -> None:
        """Take all messages that are there."""
        for _ in range(1000):  # bounded, so that a flood cannot starve the lanes
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(frames[0], frames[1:])

    def _take(self, routing_id: bytes, frames: list[bytes]) -> None:
        if not routing_id.startswith(b"\0"):
            # Only ids made by this socket are trusted: a self-chosen one could be another analyst's.
            self._refused("a peer chose its own routing id")
            return
        try:
            message = wire.decode_from_analyst(frames)
        except ProtocolError as error:
            self._refused(str(error))
            self._send(routing_id, wire.Refused(about="message", reason=str(error)))
            return
        connection = self._connections.get(routing_id)
        if isinstance(message, wire.Hello):
            self._hello(routing_id, message)
        elif connection is None:
            self._send(routing_id, wire.Refused(about="hello_first", reason="this connection has not said hello"))
        else:
            connection.heard_s = time.monotonic()
            connection.stalled = False
            try:
                self._act(connection, message)
            except (DeliveryError, StorageError) as error:
                self._send(routing_id, wire.Refused(about=_type(message), reason=str(error), ref=_ref(message)))

    def _refused(self, why: str) -> None:
        """Log a message that cannot be taken: the first ones, then every doubling, so that a flood fills no disk."""
        self._refusals += 1
        if self._refusals & (self._refusals - 1) == 0:
            self._log("refused", text=f"{why} ({self._refusals} refused so far)", level="warning")

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
            case wire.Release():
                if self._outbox.holder(message.lease_id) == connection.analyst:
                    self._end_lease(message.lease_id, "given back")
            case wire.Claim():
                self._offer(connection, message.scan_id)
            case wire.QueueRequest():
                self._send(connection.routing_id, self.queue())
            case wire.Ping():
                self._send(connection.routing_id, wire.Pong(counter=message.counter))
            case wire.Bye():
                self._drop(connection, "signed off")
            case _:
                pass  # a pong: hearing it was the point

    def _hello(self, routing_id: bytes, hello: wire.Hello) -> None:
        if hello.proto_min > wire.MINOR_MAX or hello.proto_max < wire.MINOR_MIN:
            reason = f"speaks minor {hello.proto_min}-{hello.proto_max}, this service {wire.MINOR_MIN}-{wire.MINOR_MAX}"
            self._send(routing_id, wire.Refused(about="hello", reason=f"{reason}; upgrade the older side"))
            return
        if not hello.analyst or len(hello.analyst) > MAX_NAME or not hello.analyst.isprintable():
            reason = f"analyst {hello.analyst[:MAX_NAME]!r}, expected a printable name of 1-{MAX_NAME} characters"
            self._send(routing_id, wire.Refused(about="hello", reason=reason))
            return
        now_s = time.monotonic()
        known = self._connections.get(routing_id)
        if known is None or known.analyst != hello.analyst:
            if known is not None:
                self._drop(known, "said hello as somebody else")
            self._connections[routing_id] = joined = Connection(routing_id, hello, now_s)
            if not any(c.leases for c in self._connections.values() if c.analyst == hello.analyst):
                # this service, or the analyst's program, was restarted: what they hold counts
                joined.leases.update(self._outbox.leases_of(hello.analyst))
            self._log("analyst_joined", analyst=hello.analyst, capacity=hello.capacity)
        else:
            known.heard_s, known.capacity = now_s, hello.capacity
        self._send(
            routing_id,
            wire.Welcome(
                connection_id=uuid.uuid4().hex,
                minor=min(hello.proto_max, wire.MINOR_MAX),
                lease_s=self._config.lease_s,
                heartbeat_s=self._config.heartbeat_s,
                service_version=__version__,
            ),
        )

    def _fetch(self, connection: Connection, message: wire.Fetch) -> None:
        item = self._leased(connection, message.scan_id, message.lease_id)
        if not 0 <= message.offset < item.row.size:
            raise DeliveryError(f"offset {message.offset}, the recording has {item.row.size} bytes")
        try:
            descriptor = os.open(item.row.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DeliveryError(f"the recording cannot be read ({error.strerror})") from error
        try:
            offset = message.offset
            for _ in range(min(max(1, message.credit), wire.MAX_CREDIT)):
                data = os.pread(descriptor, wire.CHUNK_BYTES, offset)
                last = offset + len(data) >= item.row.size
                if not data:
                    raise DeliveryError(f"the recording ends at byte {offset}, expected {item.row.size}")
                if not self._send(
                    connection.routing_id, wire.Chunk(scan_id=message.scan_id, offset=offset, last=last), data
                ):
                    return  # its queue is full: it asks again from where its bytes end
                offset += len(data)
                if last:
                    return
        finally:
            os.close(descriptor)

    def _leased(self, connection: Connection, scan_id: str, lease_id: str) -> Item:
        item = self._outbox.item(scan_id)
        if item.state != "leased" or item.lease_id != lease_id or item.analyst != connection.analyst:
            raise DeliveryError(f"scan {scan_id} is not leased to {connection.analyst} by {lease_id}")
        return item

    def _received(self, connection: Connection, message: wire.Received) -> None:
        if self._outbox.delivered(message.scan_id, message.lease_id, message.sha256):
            self._log("delivered", scan=message.scan_id, analyst=connection.analyst)
        else:
            self._log("delivery_wrong", scan=message.scan_id, analyst=connection.analyst, level="warning")

    def _decide(self, connection: Connection, message: wire.Decide) -> None:
        decision = message.decision
        if decision.analyst != connection.analyst:
            raise DeliveryError(f"signed {decision.analyst}, but this connection is {connection.analyst}'s")
        answer = self._outbox.decide(decision)
        if answer.applied:
            connection.leases.pop(decision.lease_id, None)
            for other in self._connections.values():  # the same analyst's other programs learn that it is over
                if other.leases.pop(decision.lease_id, None) is not None:
                    revoked = wire.Revoked(
                        scan_id=decision.scan_id, lease_id=decision.lease_id, reason=f"decided: {decision.verdict}"
                    )
                    self._send(other.routing_id, revoked)
        if not answer.repeated:
            self._log(
                "decided" if answer.applied else "decision_not_applied", scan=decision.scan_id,
                analyst=decision.analyst, verdict=decision.verdict, text=answer.reason,
            )  # fmt: skip
        self._send(
            connection.routing_id,
            wire.Decided(
                decision_id=decision.decision_id, scan_id=decision.scan_id, durable=True, applied=answer.applied,
                reason=answer.reason,
            ),
        )  # fmt: skip

    def _renew(self, connection: Connection, message: wire.Renew) -> None:
        mine = self._outbox.holder(message.lease_id) == connection.analyst
        if not mine or not self._outbox.renew(message.lease_id, self._config.lease_s):
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
        for connection in list(self._connections.values()):
            silent_s = now_s - connection.heard_s
            if silent_s > 3 * self._config.heartbeat_s:
                self._drop(connection, f"not heard for {silent_s:.1f} s")
            elif now_s - connection.pinged_s >= self._config.heartbeat_s:
                connection.pinged_s = now_s
                self._counter += 1
                self._send(connection.routing_id, wire.Ping(counter=self._counter))
        for lease_id in self._outbox.expired():
            for owner in self._connections.values():
                owner.stalled = owner.stalled or lease_id in owner.leases
            self._end_lease(lease_id, "the lease ran out")
        self._offer_pending()

    def _offer_pending(self) -> None:
        while True:
            free = [c for c in self._connections.values() if len(c.leases) < c.capacity and not c.stalled]
            if not free:
                return
            connection = min(free, key=lambda c: len(c.leases))
            scan_id = self._outbox.next_pending(connection.analyst)
            if scan_id is None:
                return
            try:
                self._offer(connection, scan_id)
            except DeliveryError as error:
                self._log("offer_failed", scan=scan_id, text=str(error), level="warning")
                return

    def _offer(self, connection: Connection, scan_id: str) -> None:
        item = self._outbox.lease(scan_id, connection.analyst, self._config.lease_s)
        connection.leases[item.lease_id] = scan_id
        row = item.row
        sent = self._send(
            connection.routing_id,
            wire.Offer(
                scan_id=scan_id, lease_id=item.lease_id, lease_s=self._config.lease_s, size=row.size,
                sha256=row.sha256, lane=row.lane, start_utc_ns=row.start_utc_ns, attempt=item.attempts,
                simulated=row.simulated, result=row.result, declaration=row.declaration,
            ),
        )  # fmt: skip
        if sent:
            self._log("offered", scan=scan_id, analyst=connection.analyst, attempt=item.attempts)
        else:
            self._end_lease(item.lease_id, "could not be sent")

    def _end_lease(self, lease_id: str, why: str) -> None:
        """End a lease and tell every connection that shares it."""
        scan_id = self._outbox.release(lease_id, why, self._config.max_attempts)
        sharing = [c for c in self._connections.values() if c.leases.pop(lease_id, None) is not None]
        if scan_id is None:
            return
        held = self._outbox.item(scan_id).state == "held"
        self._log("held" if held else "released", scan=scan_id, text=why, level="error" if held else "info")
        for connection in sharing:
            self._send(connection.routing_id, wire.Revoked(scan_id=scan_id, lease_id=lease_id, reason=why))

    def _drop(self, connection: Connection, why: str) -> None:
        """Forget a connection; leases that no other program of the same analyst shares go back."""
        self._connections.pop(connection.routing_id, None)
        shared = {lease for c in self._connections.values() if c.analyst == connection.analyst for lease in c.leases}
        for lease_id in list(connection.leases):
            if lease_id not in shared:
                self._end_lease(lease_id, f"{connection.analyst} {why}")
        self._log("analyst_left", analyst=connection.analyst, text=why)

    def queue(self) -> wire.Queue:
        """Return the queue as workstations see it."""
        rows = tuple(
            wire.QueueRow(
                scan_id=i.row.scan_id, lane=i.row.lane, outcome=i.row.result.outcome,
                start_utc_ns=i.row.start_utc_ns, state=i.state, analyst=i.analyst, reasons=i.row.result.reasons[:3],
            )
            for i in self._outbox.undecided(QUEUE_ROWS)
        )  # fmt: skip
        return wire.Queue(rows=rows, counts=self._outbox.counts())

    def _send(self, routing_id: bytes, message: wire.Message, raw: bytes | None = None) -> bool:
        """Send; False if the peer's queue is full or the peer is gone."""
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


def _type(message: wire.FromAnalyst) -> str:
    return type(message).__name__.lower()


def _ref(message: wire.FromAnalyst) -> str:
    if isinstance(message, wire.Decide):
        return message.decision.decision_id
    return str(getattr(message, "scan_id", "") or getattr(message, "lease_id", ""))
