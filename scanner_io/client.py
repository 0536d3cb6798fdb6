"""The workstation's side of the wire: take offered scans, fetch them, decide, or just look at the queue.

    with Workstation("tcp://127.0.0.1:7410", analyst="ana") as desk:
        offer = desk.next_offer(timeout_s=60)
        recording = desk.fetch(offer)              # bytes, checked against the offered SHA-256
        desk.decide(offer, "inspect", note="dense block behind the third pallet")

One thread owns the socket, answers heartbeats, renews the leases of scans that are open and says hello again when the
service was restarted; a person may think as long as they like. Decisions are repeated until the service says that
they are committed.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import itertools
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import msgspec
import zmq

from . import __version__, wire
from .errors import ConfigError, DeliveryError, ProtocolError
from .model import Decision, Verdict
from .security import Identity, secure_client

_REPEAT_S = 1.0
_BEGIN_ANEW_S = 5.0
"""A connection with keys that is not welcomed is made anew after so long: libzmq does not try again by itself once the
service has refused its key, which may be enrolled meanwhile."""
_TICK_MS = 100


def default_analyst() -> str:
    """Return the login name of this machine's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no passwd entry and no environment: a bare container
        return "analyst"


class _Fetch:
    """One recording on its way."""

    def __init__(self, offer: wire.Offer) -> None:
        self.offer = offer
        self.data = bytearray()
        self.future: Future[bytes] = Future()
        self.asked_s = 0.0
        self.outstanding = 0
        self.tries = 0


class _Ask:
    """A message that is repeated until its answer comes, made anew each time."""

    def __init__(self, name: str, make: Callable[[], wire.Message]) -> None:
        self.name = name
        self.make = make
        self.future: Future[Any] = Future()
        self.asked_s = 0.0


class Workstation:
    """One analyst's connection to a service. Thread-safe; closing it gives open scans back."""

    def __init__(
        self, address: str, analyst: str = "", *, capacity: int = 1, identity: Identity | None = None
    ) -> None:  # fmt: skip
        """Connect.

        address : ZeroMQ address of the service, e.g. `tcp://127.0.0.1:7410`
        analyst : who it is for; the name of `identity` where that is given
        capacity : scans offered at once; 0 only watches the queue and claims
        identity : keys of this program (`security.load_identity`): encrypts the connection and signs decisions; needed
            wherever the service has keys

        Raises ConfigError if the address cannot be one, or the keys do not name the service's.
        """
        if identity is not None and analyst not in ("", identity.name):
            raise ConfigError([f"analyst {analyst!r}: the key file is of {identity.name!r}; leave the name out"])
        analyst = identity.name if identity is not None else analyst
        self._identity = identity
        self._sequence = itertools.count(1)
        self.address = address
        self.analyst = analyst
        self.capacity = capacity
        self.revoked: deque[wire.Revoked] = deque(maxlen=1000)
        """Leases that ended without this workstation's doing, newest last."""
        self._offers: queue.SimpleQueue[wire.Offer] = queue.SimpleQueue()
        self._open: dict[str, wire.Offer] = {}
        self._renewed_s: dict[str, float] = {}
        self._asks: dict[str, _Ask] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._outgoing: queue.SimpleQueue[wire.Message] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._welcome: wire.Welcome | None = None
        self._refusal = ""
        self._hello_s = 0.0
        self._opened_s = time.monotonic()
        self._heard_s = 0.0
        self._pinged_s = 0.0
        self._counter = itertools.count(1)
        self._closing = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wake_send = self._context.socket(zmq.PAIR)
        self._wake_receive = self._context.socket(zmq.PAIR)
        name = f"inproc://wake-{uuid.uuid4().hex}"
        self._wake_receive.bind(name)
        self._wake_send.connect(name)
        try:
            self._socket = self._connect()
        except (zmq.ZMQError, ConfigError) as error:
            for sock in (self._wake_send, self._wake_receive):
                sock.close(linger=0)
            self._context.term()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                [f"address {address!r}: {error}; expected tcp://HOST:PORT, e.g. tcp://127.0.0.1:7410"]
            ) from error
        self._thread = threading.Thread(target=self._run, name=f"workstation {analyst}", daemon=True)
        self._thread.start()

    # -------------------------------------------------------------------------------------------- for the caller

    @property
    def silent_s(self) -> float:
        """Seconds since the service was last heard; infinity if never."""
        return time.monotonic() - self._heard_s if self._heard_s else float("inf")

    def connected(self, timeout_s: float = 5.0) -> bool:
        """Wait until the service has welcomed this workstation; False if it did not in time.

        Raises DeliveryError with its reason if it refused.
        """
        deadline = time.monotonic() + timeout_s
        while self._welcome is None and time.monotonic() < deadline:
            if self._refusal:
                raise DeliveryError(self._refusal)
            time.sleep(0.02)
        return self._welcome is not None

    def next_offer(self, timeout_s: float) -> wire.Offer | None:
        """Return the next offered scan, or None if none came in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                offer = self._offers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if offer.lease_id in self._open:  # not revoked while it waited here
                return offer

    def claim(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """Take one named scan. Raises DeliveryError with the reason if it is decided or somebody else's."""
        offer: wire.Offer = self._ask(scan_id, "claim", lambda: wire.Claim(scan_id=scan_id), timeout_s)
        return offer

    def queue(self, timeout_s: float = 5.0) -> wire.Queue:
        """Return the undecided scans and the counts. Raises DeliveryError if the service does not answer."""
        view: wire.Queue = self._ask("queue", "queue", wire.QueueRequest, timeout_s)
        return view

    def fetch(self, offer: wire.Offer, timeout_s: float = 60.0) -> bytes:
        """Return the bytes of the offered recording, checked against its SHA-256.

        Raises DeliveryError if they do not come in time, or come wrong three times.
        """
        fetch = _Fetch(offer)
        with self._lock:
            self._fetches[offer.scan_id] = fetch
        self._wake()
        try:
            return fetch.future.result(timeout_s)
        except FutureTimeout:
            raise DeliveryError(
                f"scan {offer.scan_id}: {len(fetch.data)} of {offer.size} bytes came in {timeout_s:.0f} s from "
                f"{self.address}; {self._state()}"
            ) from None
        finally:
            with self._lock:
                self._fetches.pop(offer.scan_id, None)

    def decide(
        self,
        offer: wire.Offer,
        verdict: Verdict,
        *,
        note: str = "",
        codes: tuple[int, ...] = (),
        timeout_s: float = 30.0,
        decision_id: str | None = None,
    ) -> wire.Decided:
        """Send a decision and return once the service has committed it.

        Look at `applied`: a decision on a lease that had ended is kept but does not decide the scan. Raises
        DeliveryError if no acknowledgement comes in time; the same `decision_id` may then be sent again.
        """
        decision = Decision(
            decision_id=decision_id or str(uuid.uuid4()),
            scan_id=offer.scan_id,
            sha256=offer.sha256,
            analyst=self.analyst,
            verdict=verdict,
            decided_utc_ns=time.time_ns(),
            codes=codes,
            note=note,
            lease_id=offer.lease_id,
        )
        decided: wire.Decided = self._ask(
            decision.decision_id, "decide", lambda: self._signed(decision), timeout_s
        )  # fmt: skip
        self._forget(offer.lease_id)
        return decided

    def _signed(self, decision: Decision) -> wire.Decide:
        """Return the decision as it goes out: signed for this connection alone, where there are keys."""
        if self._identity is None or self._welcome is None:
            return wire.Decide(decision=decision)
        statement = wire.encode_statement(
            wire.Statement(
                decision=decision, connection_id=self._welcome.connection_id, sequence=next(self._sequence)
            )
        )  # fmt: skip
        return wire.Decide(statement=statement, signature=self._identity.sign(statement))

    def release(self, offer: wire.Offer) -> None:
        """Give a scan back undecided."""
        self._forget(offer.lease_id)
        self._send(wire.Release(lease_id=offer.lease_id))

    def lost(self, offer: wire.Offer) -> str:
        """Return why `offer` is no longer this workstation's, empty while it is."""
        return next((r.reason for r in reversed(self.revoked) if r.lease_id == offer.lease_id), "")

    def close(self) -> None:
        """Say goodbye and disconnect; open scans go back at once. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        self._thread.join(timeout=10)
        self._wake_send.close(linger=0)
        self._context.term()

    def __enter__(self) -> Workstation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, key: str, name: str, make: Callable[[], wire.Message], timeout_s: float) -> Any:
        ask = _Ask(name, make)
        with self._lock:
            self._asks[key] = ask
        self._wake()
        try:
            return ask.future.result(timeout_s)
        except FutureTimeout:
            raise DeliveryError(
                f"{self.address}: no answer to {name} within {timeout_s:.0f} s; {self._state()}"
            ) from None
        finally:
            with self._lock:
                self._asks.pop(key, None)

    def _state(self) -> str:
        if self._welcome is None:
            keys = "are these the right keys, and enrolled there?" if self._identity else "does it ask for keys?"
            return f"the service never answered: is `scanlane run` up, is the address right, {keys}"
        return f"the service was last heard {self.silent_s:.1f} s ago"

    def _forget(self, lease_id: str) -> None:
        with self._lock:
            self._open.pop(lease_id, None)
            self._renewed_s.pop(lease_id, None)

    def _send(self, message: wire.Message) -> None:
        self._outgoing.put(message)
        self._wake()

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(zmq.Again):  # full: the thread is about to wake anyway
            self._wake_send.send(b"", zmq.NOBLOCK)

    # --------------------------------------------------------------------------------------------- network thread

    def _run(self) -> None:
        sock = self._socket
        poller = zmq.Poller()
        poller.register(sock, zmq.POLLIN)
        poller.register(self._wake_receive, zmq.POLLIN)
        try:
            while not self._closing.is_set():
                if self._unwelcome():
                    poller.unregister(sock)
                    sock.close(linger=0)
                    sock = self._connect()
                    poller.register(sock, zmq.POLLIN)
                ready = dict(poller.poll(_TICK_MS))
                if self._wake_receive in ready:
                    self._wake_receive.recv()
                if sock in ready:
                    self._receive_all(sock)
                self._tick(sock)
            for message in [*self._drain(), wire.Bye()]:
                sock.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            pass  # no peer to say goodbye to; its leases end by themselves
        finally:
            sock.close(linger=1000 if self._welcome else 0)
            self._wake_receive.close(linger=0)

    def _unwelcome(self) -> bool:
        """Tell whether the connection is to be made anew."""
        now_s = time.monotonic()
        if self._welcome is not None:
            self._opened_s = now_s
        if self._identity is None or now_s - self._opened_s < _BEGIN_ANEW_S:
            return False
        self._opened_s, self._hello_s = now_s, 0.0
        return True

    def _connect(self) -> zmq.Socket[bytes]:
        sock = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.IMMEDIATE, 1), (zmq.SNDHWM, 64), (zmq.RCVHWM, 64), (zmq.RECONNECT_IVL, 200),
            (zmq.RECONNECT_IVL_MAX, 5000), (zmq.MAXMSGSIZE, wire.MAX_CLIENT_INBOUND_BYTES),
            (zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 10),
        ):  # fmt: skip
            sock.setsockopt(option, value)
        try:
            if self._identity is not None:
                secure_client(sock, self._identity)
            sock.connect(self.address)
        except (zmq.ZMQError, ConfigError):
            sock.close(linger=0)
            raise
        return sock

    def _drain(self) -> list[wire.Message]:
        messages = []
        with contextlib.suppress(queue.Empty):
            while True:
                messages.append(self._outgoing.get_nowait())
        return messages

    def _receive_all(self, sock: zmq.Socket[bytes]) -> None:
        while True:
            try:
                frames = sock.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message, raw = wire.decode_from_service(frames)
            except ProtocolError as error:
                self._fail_all(DeliveryError(f"{self.address}: {error}"))
                continue
            self._heard_s = time.monotonic()
            self._take(message, raw)

    def _take(self, message: wire.FromService, raw: bytes) -> None:
        match message:
            case wire.Welcome():
                self._welcome, self._refusal = message, ""
            case wire.Offer():
                self._take_offer(message)
            case wire.Chunk():
                self._take_chunk(message, raw)
            case wire.Decided():
                self._answer(message.decision_id, message)
            case wire.Queue():
                self._answer("queue", message)
            case wire.Revoked():
                self._forget(message.lease_id)
                self.revoked.append(message)
            case wire.Ping():
                self._outgoing.put(wire.Pong(counter=message.counter))
            case wire.Pong():
                pass  # hearing it was the point
            case wire.Refused():
                self._refused(message)

    def _take_offer(self, offer: wire.Offer) -> None:
        with self._lock:
            known = offer.lease_id in self._open
            self._open[offer.lease_id] = offer
            self._renewed_s[offer.lease_id] = time.monotonic()
        if not self._answer(offer.scan_id, offer) and not known:
            self._offers.put(offer)

    def _answer(self, key: str, value: Any) -> bool:
        with self._lock:
            ask = self._asks.pop(key, None)
        if ask is not None:
            ask.future.set_result(value)
        return ask is not None

    def _refused(self, message: wire.Refused) -> None:
        if message.about == "hello_first":  # the service was restarted and does not know this connection
            self._welcome = None
            self._hello_s = 0.0
            return
        about = " ".join(filter(None, (self.address, message.about, message.ref)))
        error = DeliveryError(f"{about}: {message.reason}")
        with self._lock:
            ask = self._asks.pop(message.ref, None)
            fetch = self._fetches.pop(message.ref, None)
        if ask is not None:
            ask.future.set_exception(error)
        if fetch is not None:
            fetch.future.set_exception(error)
        if message.about == "hello":
            self._refusal = str(error)
            self._fail_all(error)

    def _fail_all(self, error: DeliveryError) -> None:
        with self._lock:
            waiting: list[Future[Any]] = [a.future for a in self._asks.values()]
            waiting += [f.future for f in self._fetches.values()]
            self._asks.clear()
            self._fetches.clear()
        for future in waiting:
            future.set_exception(error)

    def _take_chunk(self, chunk: wire.Chunk, raw: bytes) -> None:
        fetch = self._fetches.get(chunk.scan_id)
        if fetch is None or chunk.offset != len(fetch.data):
            return  # of an earlier try; bytes are taken in order only
        fetch.data += raw
        fetch.outstanding -= 1
        fetch.asked_s = time.monotonic()
        if not chunk.last and len(fetch.data) < fetch.offer.size:  # never more than was offered
            return
        seen = hashlib.sha256(fetch.data).hexdigest()
        offer = fetch.offer
        self._outgoing.put(wire.Received(scan_id=offer.scan_id, lease_id=offer.lease_id, sha256=seen))
        if seen == offer.sha256:
            with self._lock:
                self._fetches.pop(chunk.scan_id, None)
            fetch.future.set_result(bytes(fetch.data))
            return
        fetch.tries += 1
        fetch.data.clear()
        fetch.outstanding = 0
        if fetch.tries >= 3:
            with self._lock:
                self._fetches.pop(chunk.scan_id, None)
            fetch.future.set_exception(
                DeliveryError(
                    f"scan {offer.scan_id}: came wrong {fetch.tries} times: hash {seen}, offered {offer.sha256}"
                )
            )

    def _tick(self, sock: zmq.Socket[bytes]) -> None:
        now_s = time.monotonic()
        welcome = self._welcome
        if welcome is not None and now_s - self._heard_s > 3 * welcome.heartbeat_s:
            self._welcome = welcome = None  # gone or restarted: greet again until it answers
        if welcome is None:
            if now_s - self._hello_s >= _REPEAT_S:
                self._hello_s = now_s
                hello = wire.Hello(analyst=self.analyst, capacity=self.capacity, client_version=__version__)
                self._transmit(sock, hello)
            return
        if now_s - self._pinged_s >= welcome.heartbeat_s:
            self._pinged_s = now_s
            self._transmit(sock, wire.Ping(counter=next(self._counter)))
        for message in self._drain():
            self._transmit(sock, message)
        with self._lock:
            due = [key for key, t in self._renewed_s.items() if now_s - t >= welcome.lease_s / 3]
            self._renewed_s.update(dict.fromkeys(due, now_s))
            asks = [a for a in self._asks.values() if now_s - a.asked_s >= _REPEAT_S]
            fetches = list(self._fetches.values())
        for lease_id in due:
            self._transmit(sock, wire.Renew(lease_id=lease_id))
        for ask in asks:
            ask.asked_s = now_s
            self._transmit(sock, ask.make())
        for fetch in fetches:
            self._ask_chunks(sock, fetch, now_s, welcome.max_credit)

    def _ask_chunks(self, sock: zmq.Socket[bytes], fetch: _Fetch, now_s: float, max_credit: int) -> None:
        """Keep up to `max_credit` chunks on their way; after a silence ask again from where the bytes end."""
        if fetch.outstanding > 0 and now_s - fetch.asked_s < 2.0:
            return
        fetch.outstanding = max_credit
        fetch.asked_s = now_s
        self._transmit(
            sock,
            wire.Fetch(
                scan_id=fetch.offer.scan_id, lease_id=fetch.offer.lease_id, offset=len(fetch.data), credit=max_credit
            ),
        )

    def _transmit(self, sock: zmq.Socket[bytes], message: wire.Message) -> None:
        try:
            sock.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            # No connection: heartbeats and asks are repeated by time, so only one-shot messages need keeping.
            if isinstance(message, wire.Release | wire.Received):
                self._outgoing.put(message)


def plain(message: msgspec.Struct) -> dict[str, Any]:
    """Return a message as plain values for JSON."""
    values: dict[str, Any] = msgspec.to_builtins(message)
    return values
