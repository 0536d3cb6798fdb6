"""The workstation's side of the wire: take offered scans, fetch them, decide, or just look at the queue.

    with Workstation("tcp://127.0.0.1:7410", analyst="ana") as desk:
        offer = desk.next_offer(timeout_s=60)
        recording = desk.fetch(offer)              # bytes, checked against the offered SHA-256
        desk.decide(offer, "inspect", note="dense block behind the third pallet")

One thread owns the socket, answers heartbeats, renews the leases of scans that are open and says hello again when the
service was restarted. A person may think as long as they like, if now and then they do something that `acted` is told
of: the service takes scans back where a program goes on and nobody sits before it. Decisions are repeated until the
service says that they are committed.

Of a pair of hubs both addresses are given, separated by a comma: when one does not answer, the other is asked.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import itertools
import mmap
import queue
import random
import re
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import msgspec
import numpy as np
import zmq

from . import __version__, wire
from .errors import ConfigError, DeliveryError, NoAnswer, ProtocolError
from .model import Decision, Opinion, Verdict
from .security import Identity, secure_client

_REPEAT_S = 1.0
_BEGIN_ANEW_S = 5.0
"""A connection with keys that is not welcomed is made anew after so long: libzmq does not try again by itself once the
service has refused its key, which may be enrolled meanwhile."""
_NEXT_ADDRESS_S = 2.0
"""Where there are several addresses the next one is tried after so long without a welcome."""
_ORIGIN_BYTES = 24 << 10
"""A longer statement of an analyst is not sent on with their decision: a message has room for two of these."""
_SILENCE_S = 2.0
"""After so long without a chunk they are asked for again."""
_HEADROOM = 1024
_AT_ONCE = 4
_TRIES = 3
_TICK_MS = 100
_ADDRESS = re.compile(r"tcp://([^:/\s]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}|(ipc|inproc)://\S+")
MAX_RECORDING_BYTES = 8 << 30
"""More is no recording: a service is not to say how much memory this program takes."""


def default_analyst() -> str:
    """Return the login name of this machine's user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no passwd entry and no environment: a bare container
        return "analyst"


class _Room:
    """Memory for recordings. What the caller has let go of is used again: new pages cost more than all the copying."""

    def __init__(self) -> None:
        self._spare: queue.SimpleQueue[mmap.mmap] = queue.SimpleQueue()

    def take(self, size: int) -> memoryview:
        """Return room for `size` bytes; it is free again once nobody refers to it."""
        block = None
        with contextlib.suppress(queue.Empty):
            block = self._spare.get_nowait()
        if block is None or not size <= len(block) <= 2 * size:
            block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with contextlib.suppress(OSError):  # only a hint; a kernel may be built without
                    block.madvise(mmap.MADV_HUGEPAGE)
        array = np.frombuffer(block, np.uint8, size)
        weakref.finalize(array, self._free, block).atexit = False
        return array.data

    def _free(self, block: mmap.mmap) -> None:
        if self._spare.empty():  # one is enough: images are looked at one after the other
            self._spare.put(block)


class _Fetch:
    """One recording on its way: the network's thread puts the bytes into their place, the caller's hashes them there.

    data : room for all of it; have : how many bytes of it are here; asked : up to which byte they were asked for
    gap : where the last chunk was missed; news : `have` after every chunk, or what went wrong
    """

    def __init__(self, offer: wire.Offer, room: memoryview) -> None:
        self.offer = offer
        self.data = room
        self.news: queue.SimpleQueue[int | DeliveryError] = queue.SimpleQueue()
        self.asked_s = 0.0
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self.have = self.asked = 0
        self.gap = -1

    def hashed(self, until_s: float, progress: Callable[[int], None] | None) -> str:
        """Return the hash of all of it once it is here. Raises DeliveryError, TimeoutError at `until_s`."""
        digest, at = hashlib.sha256(), 0
        while at < self.offer.size:
            try:
                news = self.news.get(timeout=max(0.0, until_s - time.monotonic()))
            except queue.Empty:
                raise TimeoutError from None
            if isinstance(news, DeliveryError):
                raise news
            digest.update(self.data[at:news])
            at = news
            if progress is not None:
                progress(at)
        return digest.hexdigest()


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
        self, address: str, analyst: str = "", *, capacity: int = 1, identity: Identity | None = None, hub: bool = False
    ) -> None:  # fmt: skip
        """Connect.

        address : ZeroMQ address of the service, e.g. `tcp://127.0.0.1:7410`; of a pair of hubs both, with a comma
        analyst : who it is for; the name of `identity` where that is given
        capacity : scans offered at once; 0 only watches the queue and claims
        identity : keys of this program (`security.load_identity`): encrypts the connection and signs decisions; needed
            wherever the service has keys
        hub : this is a site's hub: its decisions are those of its own analysts, see `relay`

        Raises ConfigError if the address cannot be one, or the keys do not name the service's.
        """
        if identity is not None and analyst not in ("", identity.name):
            raise ConfigError([f"analyst {analyst!r}: the key file is of {identity.name!r}; leave the name out"])
        analyst = identity.name if identity is not None else analyst
        self._identity = identity
        self._sequence = itertools.count(1)
        self._addresses = [a.strip() for a in address.split(",")]
        if wrong := [a for a in self._addresses[1:] if not _ADDRESS.fullmatch(a)]:  # else met in mid-shift
            raise ConfigError([f"address {wrong[0]!r}: expected tcp://HOST:PORT"])
        self.address = self._addresses[0]
        """Of the service that it talks to now."""
        self.analyst = analyst
        self._hub = hub
        self.capacity = capacity
        self.revoked: deque[wire.Revoked] = deque(maxlen=1000)
        """Leases that ended without this workstation's doing, newest last."""
        self.alarms: deque[wire.Alarm] = deque(maxlen=1000)
        """What the service said a person must see to, newest last; take them out as they are shown."""
        self._offers: queue.SimpleQueue[wire.Offer] = queue.SimpleQueue()
        self._open: dict[str, wire.Offer] = {}
        self._renewed_s: dict[str, float] = {}
        self._asks: dict[str, _Ask] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._room = _Room()
        self._outgoing: queue.SimpleQueue[wire.Message] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._welcome: wire.Welcome | None = None
        self._refusal = ""
        self._hello_s = 0.0
        self._opened_s = time.monotonic()
        self._heard_s = 0.0
        self._acted_s = time.monotonic()
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
        while self._welcome is None:
            if self._refusal:
                raise DeliveryError(self._refusal)
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    @property
    def minor(self) -> int:
        """Minor version that is spoken; -1 while the service has not welcomed this workstation."""
        welcome = self._welcome
        return -1 if welcome is None else welcome.minor

    def take(self, capacity: int) -> None:
        """Be offered as many scans at once from now on; what is open stays."""
        self.capacity = capacity
        if self._welcome is not None:  # else the hello that is due says so
            self._send(self._hello())

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
        self.acted()
        offer: wire.Offer = self._ask(scan_id, "claim", lambda: wire.Claim(scan_id=scan_id), timeout_s)
        return offer

    def peek(self, scan_id: str, timeout_s: float = 5.0) -> wire.Offer:
        """Return what `claim` would, without taking the scan: it can be fetched, and waits for everybody as before.

        Raises DeliveryError with the reason if it could not be claimed, or if the service is too old to be asked.
        """
        self._speaks(wire.MINOR_PEEK, "scans cannot be fetched ahead of being taken")
        offer: wire.Offer = self._ask(f"peek {scan_id}", "peek", lambda: wire.Peek(scan_id=scan_id), timeout_s)
        return offer

    def _speaks(self, minor: int, otherwise: str) -> None:
        """Raise DeliveryError unless the service speaks this minor version."""
        welcome = self._welcome
        if welcome is not None and welcome.minor < minor:
            raise DeliveryError(
                f"{self.address}: the service speaks minor {welcome.minor}, {minor} is needed: {otherwise}; upgrade it"
            )

    def queue(self, timeout_s: float = 5.0, *, after: str = "") -> wire.Queue:
        """Return the most urgent undecided scans and the counts.

        after : a scan whose followers are wanted instead; an older service cannot tell them, and there are none

        Raises DeliveryError if the service does not answer.
        """
        welcome = self._welcome
        if after and welcome is not None and welcome.minor < wire.MINOR_AFTER:
            return wire.Queue(rows=(), counts={}, after=after)
        key = f"queue {after}" if after else "queue"
        view: wire.Queue = self._ask(key, "queue", lambda: wire.QueueRequest(after=after), timeout_s)
        return view

    def fetch(
        self, offer: wire.Offer, timeout_s: float = 60.0, *, progress: Callable[[int], None] | None = None,
        receipt: bool = True,
    ) -> memoryview:  # fmt: skip
        """Return the bytes of the offered recording, read-only, checked against its SHA-256.

        progress : called in this thread with the number of bytes that are here, after every chunk
        receipt : tell the service at once that they are here; else the caller does, by `has`

        Raises DeliveryError if they do not come in time, or come wrong three times.
        """
        if not 0 < offer.size <= MAX_RECORDING_BYTES:
            raise DeliveryError(f"scan {offer.scan_id}: offered with {offer.size} bytes, which no recording has")
        self._not_closed()
        fetch = _Fetch(offer, self._room.take(offer.size))
        try:
            until_s = time.monotonic() + timeout_s
            for _ in range(_TRIES):
                fetch.begin()
                with self._lock:
                    self._fetches[offer.scan_id] = fetch
                self._wake()
                seen = fetch.hashed(until_s, progress)
                if offer.lease_id and (receipt or seen != offer.sha256):
                    self._send(wire.Received(scan_id=offer.scan_id, lease_id=offer.lease_id, sha256=seen))
                if seen == offer.sha256:
                    return fetch.data.toreadonly()
        except TimeoutError:
            raise DeliveryError(
                f"scan {offer.scan_id}: {fetch.have} of {offer.size} bytes came in {timeout_s:.0f} s from "
                f"{self.address}; {self._state()}"
            ) from None
        finally:
            self._end_fetch(fetch)
        raise DeliveryError(f"scan {offer.scan_id}: came wrong {_TRIES} times: hash {seen}, offered {offer.sha256}")

    def decide(
        self,
        offer: wire.Offer,
        verdict: Verdict,
        *,
        note: str = "",
        codes: tuple[int, ...] = (),
        timeout_s: float = 30.0,
        decision_id: str | None = None,
        decided_utc_ns: int | None = None,
    ) -> wire.Decided:
        """Send a decision and return once the service has committed it.

        Look at `applied`: a decision on a lease that had ended is kept but does not decide the scan. Raises
        DeliveryError if no acknowledgement comes in time; the same `decision_id` may then be sent again, with the same
        `decided_utc_ns` and everything else as it was.
        """
        self.acted()
        decision = Decision(
            decision_id=decision_id or str(uuid.uuid4()),
            scan_id=offer.scan_id,
            sha256=offer.sha256,
            analyst=self.analyst,
            verdict=verdict,
            decided_utc_ns=time.time_ns() if decided_utc_ns is None else decided_utc_ns,
            codes=codes,
            note=note,
            lease_id=offer.lease_id,
        )
        decided: wire.Decided = self._ask(
            decision.decision_id, "decide", lambda: self._signed(decision), timeout_s
        )  # fmt: skip
        self._forget(offer.lease_id)
        return decided

    def relay(
        self, offer: wire.Offer, decision: Decision, statement: bytes = b"", signature: bytes = b"", *,
        timeout_s: float = 10.0,
    ) -> wire.Decided:  # fmt: skip
        """Bring the decision of an analyst of this hub to the service that offered the scan; return what became of it.

        statement, signature : what the analyst signed at the hub, sent on inside of what the hub signs

        The same decision on the same offer may be sent again. Raises DeliveryError, NoAnswer.
        """
        brought = msgspec.structs.replace(
            decision, decision_id=f"{decision.decision_id[:51]}@{offer.lease_id[:12]}", lease_id=offer.lease_id,
            via=self.analyst,
        )  # fmt: skip
        origin = (statement, signature) if len(statement) <= _ORIGIN_BYTES else (b"", b"")
        decided: wire.Decided = self._ask(
            brought.decision_id, "decide", lambda: self._signed(brought, *origin), timeout_s
        )  # fmt: skip
        self._forget(offer.lease_id)
        return decided

    def has(self, offer: wire.Offer) -> None:
        """Tell the service that the recording of this scan is here, whole, and hashed to what it should."""
        self._send(wire.Received(scan_id=offer.scan_id, lease_id=offer.lease_id, sha256=offer.sha256))

    def opine(
        self, offer: wire.Offer, verdict: Verdict, note: str, *, blind: bool = True, timeout_s: float = 10.0,
        opinion_id: str | None = None, given_utc_ns: int | None = None,
    ) -> wire.Opined:  # fmt: skip
        """Give a scan on undecided with what this analyst thinks of it; return once the service has committed it.

        blind : whoever takes it next is told of the opinion, and what it is only after deciding

        Raises DeliveryError if the scan is no longer this workstation's or the service is too old, NoAnswer if no
        answer comes; the same `opinion_id` may then be sent again, with everything else as it was.
        """
        self._speaks(wire.MINOR_OPINION, "it cannot keep a second opinion")
        opinion = Opinion(
            opinion_id=opinion_id or str(uuid.uuid4()), scan_id=offer.scan_id, sha256=offer.sha256,
            analyst=self.analyst, verdict=verdict, note=note, blind=blind,
            given_utc_ns=time.time_ns() if given_utc_ns is None else given_utc_ns,
        )  # fmt: skip
        opined: wire.Opined = self._ask(
            opinion.opinion_id, "opine", lambda: self._signed_opinion(opinion, offer.lease_id), timeout_s
        )  # fmt: skip
        self._forget(offer.lease_id)
        return opined

    def _signed(self, decision: Decision, origin: bytes = b"", origin_signature: bytes = b"") -> wire.Decide:
        """Return the decision as it goes out: signed for this connection alone, where there are keys."""
        if self._identity is None or self._welcome is None:
            return wire.Decide(decision=decision)
        statement = wire.encode_statement(
            wire.Statement(
                decision=decision, connection_id=self._welcome.connection_id, sequence=next(self._sequence),
                service=self._identity.service, origin=origin, origin_signature=origin_signature,
            )
        )  # fmt: skip
        return wire.Decide(statement=statement, signature=self._identity.sign(statement))

    def _signed_opinion(self, opinion: Opinion, lease_id: str) -> wire.Opine:
        """Return the opinion as it goes out: signed for this lease and connection alone, where there are keys.

        A service of before that has no place for a signature; it knows by the connection's key alone whose it is.
        """
        welcome = self._welcome
        if self._identity is None or welcome is None or welcome.minor < wire.MINOR_SIGNED_OPINION:
            return wire.Opine(lease_id=lease_id, opinion=opinion)
        statement = wire.encode_statement(
            wire.OpinionStatement(
                opinion=opinion, lease_id=lease_id, connection_id=welcome.connection_id, sequence=next(self._sequence),
                service=self._identity.service,
            )
        )  # fmt: skip
        return wire.Opine(statement=statement, signature=self._identity.sign(statement))

    def acted(self) -> None:
        """Hear that the person has done something: pressed a key, moved the picture. Call it as often as you like.

        To claim, to decide and to give back count by themselves.
        """
        self._acted_s = time.monotonic()

    def release(self, offer: wire.Offer) -> None:
        """Give a scan back undecided."""
        self.acted()
        self._forget(offer.lease_id)
        self._send(wire.Release(lease_id=offer.lease_id))

    def lost(self, offer: wire.Offer) -> str:
        """Return why `offer` is no longer this workstation's, empty while it is."""
        return next((r.reason for r in reversed(self.revoked) if r.lease_id == offer.lease_id), "")

    def close(self) -> None:
        """Say goodbye and disconnect; open scans go back at once, calls that wait fail. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake()
        self._thread.join(timeout=10)
        with self._lock:
            self._wake_send.close(linger=0)
        self._context.term()

    def __enter__(self) -> Workstation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, key: str, name: str, make: Callable[[], wire.Message], timeout_s: float) -> Any:
        self._not_closed()
        size = sum(map(len, wire.encode(make())))
        if size > wire.MAX_INBOUND_BYTES - _HEADROOM:  # the service would cut the connection, and again at each repeat
            raise DeliveryError(f"{name}: {size} bytes, at most {wire.MAX_INBOUND_BYTES - _HEADROOM} may be sent")
        ask = _Ask(name, make)
        with self._lock:
            self._asks[key] = ask
        self._wake()
        try:
            return ask.future.result(timeout_s)
        except FutureTimeout:
            raise NoAnswer(f"{self.address}: no answer to {name} within {timeout_s:.0f} s; {self._state()}") from None
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
            if not self._wake_send.closed:
                self._wake_send.send(b"", zmq.NOBLOCK)

    def _not_closed(self) -> None:
        if self._closing.is_set():
            raise DeliveryError(f"{self.address}: this workstation was closed")

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
            # whoever waits in another thread is set free
            self._fail_all(DeliveryError(f"{self.address}: this workstation was closed"))

    def _unwelcome(self) -> bool:
        """Tell whether the connection is to be made anew."""
        now_s = time.monotonic()
        if self._welcome is not None:
            self._opened_s = now_s
        several = len(self._addresses) > 1
        again_s = _NEXT_ADDRESS_S if several else _BEGIN_ANEW_S
        if not (several or self._identity) or now_s - self._opened_s < again_s:
            return False
        self.address = self._addresses[(self._addresses.index(self.address) + 1) % len(self._addresses)]
        # At random, so that the workstations of a site do not all come back at the same moments.
        self._opened_s, self._hello_s = now_s + random.uniform(0, again_s / 2), 0.0  # noqa: S311 -- no secret
        return True

    def _connect(self) -> zmq.Socket[bytes]:
        sock = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.IMMEDIATE, 1), (zmq.SNDHWM, 64), (zmq.RCVHWM, 64), (zmq.LINGER, 0),
            (zmq.RECONNECT_IVL, 200),  # libzmq adds up to as much again at random, so that not all come at once
            (zmq.RECONNECT_IVL_MAX, 5000), (zmq.MAXMSGSIZE, wire.MAX_CLIENT_INBOUND_BYTES), (zmq.HANDSHAKE_IVL, 5000),
            (zmq.HEARTBEAT_IVL, 2000), (zmq.HEARTBEAT_TIMEOUT, 6000), (zmq.HEARTBEAT_TTL, 6000),
            (zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 10), (zmq.TCP_KEEPALIVE_INTVL, 5),
            (zmq.TCP_KEEPALIVE_CNT, 3),
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

    def _hello(self) -> wire.Hello:
        return wire.Hello(analyst=self.analyst, capacity=self.capacity, client_version=__version__, hub=self._hub)

    def _drain(self) -> list[wire.Message]:
        messages = []
        with contextlib.suppress(queue.Empty):
            while True:
                messages.append(self._outgoing.get_nowait())
        return messages

    def _receive_all(self, sock: zmq.Socket[bytes]) -> None:
        for _ in range(_AT_ONCE):  # then there is credit to be given anew
            try:
                parts = sock.recv_multipart(zmq.NOBLOCK, copy=False)  # a chunk is copied once, to its place
            except zmq.Again:
                return
            try:
                message, raw = wire.decode_from_service([part.buffer for part in parts])
            except ProtocolError as error:
                self._fail_all(DeliveryError(f"{self.address}: {error}"))
                continue
            self._heard_s = time.monotonic()
            self._take(message, raw)

    def _take(self, message: wire.FromService, raw: bytes | memoryview) -> None:
        match message:
            case wire.Welcome():
                self._take_welcome(message)
            case wire.Offer():
                self._take_offer(message)
            case wire.Chunk():
                self._take_chunk(message, raw)
            case wire.Decided():
                self._answer(message.decision_id, message)
            case wire.Opined():
                self._answer(message.opinion_id, message)
            case wire.Queue():
                self._answer(f"queue {message.after}" if message.after else "queue", message)
            case wire.Revoked():
                self._forget(message.lease_id)
                self.revoked.append(message)
            case wire.Alarm():
                self.alarms.append(message)
            case wire.Ping():
                self._outgoing.put(wire.Pong(counter=message.counter))
            case wire.Pong():
                pass  # hearing it was the point
            case wire.Refused():
                self._refused(message)

    def _take_welcome(self, welcome: wire.Welcome) -> None:
        """Be welcome on terms that can be kept; on others this thread would turn in a circle."""
        terms = (welcome.lease_s, welcome.heartbeat_s, welcome.chunk_bytes, welcome.max_credit)
        if not all(0 < term < 1e9 for term in terms):
            names = "lease_s, heartbeat_s, chunk_bytes and max_credit"
            self._refusal = f"{self.address}: welcomes with {names} {terms}, expected numbers above 0: upgrade it"
            self._fail_all(DeliveryError(self._refusal))
            return
        self._welcome, self._refusal = welcome, ""

    def _take_offer(self, offer: wire.Offer) -> None:
        if not offer.lease_id:
            self._answer(f"peek {offer.scan_id}", offer)
            return
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
            ask = self._asks.pop(f"peek {message.ref}" if message.about == "peek" else message.ref, None)
            # no answer to a recording's chunks
            fetch = None if message.about == "peek" else self._fetches.pop(message.ref, None)
        if ask is not None:
            ask.future.set_exception(error)
        if fetch is not None:
            fetch.news.put(error)
        if message.about == "hello":
            self._refusal = str(error)
            self._fail_all(error)

    def _fail_all(self, error: DeliveryError) -> None:
        with self._lock:
            asks, fetches = list(self._asks.values()), list(self._fetches.values())
            self._asks.clear()
            self._fetches.clear()
        for ask in asks:
            ask.future.set_exception(error)
        for fetch in fetches:
            fetch.news.put(error)

    def _take_chunk(self, chunk: wire.Chunk, raw: bytes | memoryview) -> None:
        fetch = self._fetches.get(chunk.scan_id)
        if fetch is None or chunk.offset < fetch.have:
            return  # of an earlier try
        if chunk.offset > fetch.have:  # bytes are taken in order only: one was missed, and is asked for again, once
            if fetch.gap != fetch.have:
                fetch.gap = fetch.asked = fetch.have
            return
        end = fetch.have + len(raw)
        if end > fetch.offer.size or (chunk.last and end < fetch.offer.size):
            self._end_fetch(fetch)
            text = (
                f"scan {chunk.scan_id}: {end} bytes came{'' if chunk.last else ' and more'}, {fetch.offer.size} offered"
            )
            fetch.news.put(DeliveryError(text))
            return
        fetch.data[fetch.have : end] = raw
        fetch.have = end
        fetch.asked = max(fetch.asked, end)
        fetch.asked_s = time.monotonic()
        if end == fetch.offer.size:
            self._end_fetch(fetch)
        fetch.news.put(end)

    def _end_fetch(self, fetch: _Fetch) -> None:
        with self._lock:
            if self._fetches.get(fetch.offer.scan_id) is fetch:
                del self._fetches[fetch.offer.scan_id]

    def _tick(self, sock: zmq.Socket[bytes]) -> None:
        now_s = time.monotonic()
        welcome = self._welcome
        if welcome is not None and now_s - self._heard_s > 3 * welcome.heartbeat_s:
            self._welcome = welcome = None  # gone or restarted: greet again until it answers
        if welcome is None:
            if now_s - self._hello_s >= _REPEAT_S:
                self._hello_s = now_s
                self._transmit(sock, self._hello())
            return
        if now_s - self._pinged_s >= welcome.heartbeat_s:
            self._pinged_s = now_s
            self._transmit(sock, wire.Ping(counter=next(self._counter)))
            if welcome.minor >= wire.MINOR_HERE:
                self._transmit(sock, wire.Here(idle_s=round(now_s - self._acted_s, 3)))
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
            self._ask_chunks(sock, fetch, now_s, welcome)

    def _ask_chunks(self, sock: zmq.Socket[bytes], fetch: _Fetch, now_s: float, welcome: wire.Welcome) -> None:
        """Keep as many chunks on their way as the credit allows; after a silence ask from where the bytes end."""
        if now_s - fetch.asked_s >= _SILENCE_S:
            fetch.asked = fetch.have
        half = max(1, welcome.max_credit // 2)
        while fetch.asked < fetch.offer.size and fetch.asked - fetch.have <= half * welcome.chunk_bytes:
            offer = fetch.offer
            self._transmit(
                sock,
                wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id, offset=fetch.asked, credit=half),
            )
            fetch.asked += half * welcome.chunk_bytes
            fetch.asked_s = now_s

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
