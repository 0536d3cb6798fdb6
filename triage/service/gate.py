"""Who gets in: authentication of connections, and the current list of the enrolled.

CURVE alone lets everybody in: a server without an answering authenticator accepts any key. Only with an authentication
domain that is *enforced*, set before the socket is bound, are keys refused while nobody answers for them. So the gate
answers libzmq's questions itself, in the thread of the network, from a list that it looks at again several times a
second; and before the port opens, and each minute after that, it has a stranger and a known program try to get in: if
the one is not kept out or the other does not reach us, nothing goes out any more.

What it lets in, it lets in by key: `who` tells for every single message whose it is, by the list as it is now. A
connection is not ended by libzmq when its key is revoked; its messages are no longer anybody's.

Source: ZAP, RFC 27 of ZeroMQ; behaviour of libzmq 4.3.5 as measured in the specification of reliability, section 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from scanner_io import security
from scanner_io.errors import ConfigError, DeliveryError

from .sparing import Sparing, one_line

DOMAIN = b"scanlane"
ENDPOINT = "inproc://zeromq.zap.01"
LOOK_AGAIN_S = 0.2
"""How often the list is looked at: a revocation holds from then on."""
TRY_EVERY_S = 60.0
TRY_WITHIN_S = 5.0
PROBE = "probe"
HANDSHAKES, HANDSHAKE_AGAIN_S = 200, 0.02
"""A key may begin so many connections at once, then one after so long; more wait until libzmq tries again."""


class Gate:
    """The authenticator of one ZeroMQ context. All of it in the thread of the network.

    The probe of the self-test has a key of its own that is never written down and has no role.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], folder: Path, log: Callable[..., None],
        note: Callable[..., None],
    ) -> None:  # fmt: skip
        """Read keys and list, and begin to answer.

        folder : of `scanlane keys`
        log, note : hear what happens, as in `Dispatch`; `note(kind, text, who=)` is for the audit

        Raises ConfigError for keys that cannot be used, DeliveryError for a libzmq that cannot be trusted.
        """
        security.checked_library()
        self._log, self._note = log, note
        self._path = folder / security.ENROLLED
        self.identity = security.load_identity(folder / security.SERVICE_KEY)
        self._seen: tuple[int, ...] = ()
        self._looked_s = 0.0
        self._lost = False
        self._allowed: dict[str, security.Enrolled] = {}
        self._probe_key = self._stranger_key = ""
        self._stranger_denied = False
        self._refused = Sparing(burst=20, every_s=10.0)
        self._handshakes: dict[str, Sparing] = {}
        self._load()
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        try:
            self.socket.bind(ENDPOINT)
        except zmq.ZMQError as error:
            self.socket.close()
            raise DeliveryError(f"{ENDPOINT}: {error}; another authenticator runs in this context") from error

    @property
    def refused(self) -> int:
        """How many connections were refused, the self-test's not counted."""
        return self._refused.count

    def close(self) -> None:
        """Stop answering: from then on nobody new gets in."""
        self.socket.close(linger=0)

    def secure(self, server: zmq.Socket[bytes]) -> None:
        """Make a socket that is not bound yet let in whom the list names, and nobody while nobody answers."""
        server.setsockopt(zmq.CURVE_SERVER, 1)
        server.setsockopt(zmq.CURVE_SECRETKEY, self.identity.curve_secret.encode())
        server.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        server.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    # ------------------------------------------------------------------------------------------------- the list

    def who(self, key: str) -> security.Enrolled | None:
        """Return whose key this is by the list as it is now, None if it is nobody's."""
        return self._allowed.get(key)

    def is_probe(self, key: str) -> bool:
        """Tell whether this is the self-test's own key."""
        return bool(key) and key == self._probe_key

    def look_again(self) -> bool:
        """Read the list again if it has changed; return whether somebody may have lost their right."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_AGAIN_S:
            return False
        self._looked_s = now_s
        self._look()
        lost, self._lost = self._lost, False
        return lost

    def _look(self) -> None:
        if self._state() != self._seen:
            self._lost = self._load() or self._lost

    def _state(self) -> tuple[int, ...]:
        try:
            s = self._path.stat()
        except OSError as error:
            return (error.errno or -1,)
        return (s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)

    def _load(self) -> bool:
        """Read the list; one that cannot be read lets nobody in."""
        before = self._allowed
        self._seen = self._state()
        try:
            self._allowed = security.load_enrolled(self._path).in_force()
        except ConfigError as error:
            self._allowed = {}
            self._log("enrolled_unreadable", level="error", text=f"nobody is let in: {one_line(str(error))}")
            self._note("enrolled_unreadable", one_line(str(error)))
        for key in self._allowed.keys() - before.keys():
            who = self._allowed[key]
            self._log("enrolled", analyst=who.key.name, role=who.role)
            self._note("enrolled", f"{who.role} {key}", who=who.key.name)
        gone = before.keys() - self._allowed.keys()
        for key in gone:
            who = before[key]
            self._log("revoked", analyst=who.key.name, level="warning")
            self._note("revoked", key, who=who.key.name)
        changed = {k for k in self._allowed.keys() & before.keys() if self._allowed[k] != before[k]}
        return bool(gone or changed)

    # ------------------------------------------------------------------------------------------------- libzmq asks

    def answer(self) -> None:
        """Answer what libzmq asks about new connections."""
        for _ in range(1000):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._verdict(frames))

    def _verdict(self, frames: list[bytes]) -> list[bytes]:
        request = frames[1] if len(frames) > 1 else b""
        code, text, user = b"400", b"not enrolled", b""
        if len(frames) != 7 or frames[0] != b"1.0" or frames[5] != b"CURVE" or frames[2] != DOMAIN:
            self._deny("", f"a connection without CURVE from {_shown(frames, 3)}")
        elif len(frames[6]) != 32:
            self._deny("", f"a key of {len(frames[6])} bytes from {_shown(frames, 3)}")
        else:
            from zmq.utils import z85

            key = z85.encode(frames[6]).decode()
            if key not in self._allowed:
                self._look()  # it may have been enrolled a moment ago, and libzmq does not ask twice
            if self._too_often(key):
                return [b"1.0", request, b"300", b"too often", b"", b""]  # libzmq tries again by itself
            # Keys are public and proven by the handshake; there is no secret here whose comparison could take a telling
            # time.
            if key in self._allowed or self.is_probe(key):
                code, text, user = b"200", b"welcome", key.encode()
            else:
                self._deny(key, f"key {key} from {_shown(frames, 3)} is not enrolled, or is revoked")
        return [b"1.0", request, code, text, user, b""]

    def _too_often(self, key: str) -> bool:
        return key in self._allowed and (
            self._handshakes.setdefault(key, Sparing(HANDSHAKES, HANDSHAKE_AGAIN_S)).ask() is None
        )

    def _deny(self, key: str, why: str) -> None:
        """Count and tell, of a flood only that it is one."""
        if key and key == self._stranger_key:
            self._stranger_denied = True
            return
        if (more := self._refused.ask()) is not None:
            self._log("denied", level="warning", text=one_line(why) + more)
            self._note("denied", one_line(why) + more)

    def probe_with(self, key: str, stranger: str) -> None:
        """Expect a self-test: let `key` in, without a role, so that nothing can be done with it; watch `stranger`."""
        self._probe_key, self._stranger_key, self._stranger_denied = key, stranger, False

    @property
    def stranger_denied(self) -> bool:
        """The self-test's stranger has been refused."""
        return self._stranger_denied


class SelfTest:
    """A stranger and a known program try to get in by a service's own address, without anybody waiting for them.

    begin, then `step` from the loop until `verdict` is no longer None. `heard` is told of every message with a probe's
    key.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._sockets: list[zmq.Socket[bytes]] = []
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._until_s = 0.0
        self._known_heard = False

    @property
    def running(self) -> bool:
        """A test is under way."""
        return self._context is not None

    def begin(self, address: str) -> None:
        """Let both of them knock at `address`."""
        self._context = zmq.Context()
        self._known_heard = False
        service = self._gate.identity.curve
        keys = [security.generate(name, service) for name in (PROBE, "stranger")]
        self._gate.probe_with(keys[0].curve, keys[1].curve)
        for identity in keys:
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
            security.secure_client(socket, identity)
            socket.connect(address)
            socket.send(b"probe")
            self._sockets.append(socket)
        self._until_s = time.monotonic() + TRY_WITHIN_S

    def heard(self) -> None:
        """The probe's message has come."""
        self._known_heard = True

    def step(self) -> str | None:
        """Return None while it lasts, then the empty text, or what is wrong."""
        denied = self._gate.stranger_denied
        if self._known_heard and denied:
            self.end()
            return ""
        if time.monotonic() < self._until_s:
            return None
        self.end()
        wrong = [] if self._known_heard else ["a known key did not get in"]
        wrong += [] if denied else ["nobody asked about an unknown key, so it may have been let in"]
        return " and ".join(wrong)

    def end(self) -> None:
        """Close what is open; may be called twice."""
        self._gate.probe_with("", "")
        for socket in self._sockets:
            socket.close(linger=0)
        self._sockets = []
        if self._context is not None:
            self._context.term()
            self._context = None


def user_of(frame: Any) -> str:
    """Return the key that the gate let a message's connection in by, empty if it has none."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:  # EINVAL: the connection was not authenticated
        return ""


def _shown(frames: list[bytes], i: int) -> str:
    return frames[i].decode("ascii", "backslashreplace")[:64] if len(frames) > i else "somewhere"
