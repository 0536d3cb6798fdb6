"""A port that small devices and other programs write to: lines, or HTTP requests, served by the thread that reads.

There is no thread here: a driver calls `serve` from its `read`. The first word tells which.
A request is one document, `POST` with a `Content-Length`; its head is judged before any of its body is kept, and its
answer may wait until what it brought is stored (`Later`). Every connection ends with its answer.

Limits that hold for all: `Limits` for what a site may set, and the constants below. Whoever is refused still gets to
read why: the connection is closed once the other side has, or `LINGER_S` later, and what it goes on sending is let go.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from .errors import LinkLost

SLICE_S = 0.1
"""No wait for the network is longer: `close` from another thread must be noticed."""
MOST_HEAD = 16 << 10
"""Bytes of a request's head."""
MOST_LINE = 64 << 10
"""Bytes of a line."""
WHOLE_S = 300.0
"""A request is whole by then, however its bytes drip."""
LINGER_S = 2.0

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)
_METHODS = (b"POST ", b"GET ", b"PUT ", b"HEAD ", b"OPTIONS ", b"DELETE ", b"PATCH ")


class Limits(NamedTuple):
    """What a connection may cost.

    clients : connections at once; for another one, the one that has been silent longest is closed
    silence_s : one that says nothing for so long is closed
    most_body : bytes of a document
    answer_s : a `Later` that is not settled by then is answered by 503
    """

    clients: int
    silence_s: float
    most_body: int
    answer_s: float = 30.0


class Answer(NamedTuple):
    """What a request is answered. status : such as `204 No Content`; headers : lines without their ends."""

    status: str
    body: bytes = b""
    headers: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return it as it is sent."""
        head = (f"HTTP/1.1 {self.status}", *self.headers, f"Content-Length: {len(self.body)}", "Connection: close")
        return "\r\n".join((*head, "", "")).encode() + self.body


def answer_of(status: str, *problems: str, headers: tuple[str, ...] = ()) -> Answer:
    """Return an answer whose body says in JSON what came of it: the status in words, and up to 50 problems."""
    body = msgspec.json.encode({"status": status.partition(" ")[2], "problems": problems[:50]})
    return Answer(status, body, ("Content-Type: application/json", *headers))


class Later(NamedTuple):
    """An answer that is given once `settle(ref)` is called, or `late` in its place where that takes too long."""

    ref: str
    answer: Answer
    late: Answer


class Asker(NamedTuple):
    """Who sends a request. peer : network address; name : what `judge` found out"""

    peer: str
    name: str = ""


Judge = Callable[[bytes, Asker, int], "str | Answer"]
"""(head, asker, bytes of the body) -> the asker's name, or the answer to one that is refused."""
Take = Callable[[bytes, Asker], "Answer | Later"]
"""(body, asker) -> the answer."""


class _Client:
    """A connection, and what of it is not a whole line or request yet."""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self.connection = connection
        self.asker = Asker(peer)
        self.heard_s = self.began_s = time.monotonic()
        self.rest = bytearray()
        self.length: int | None = None
        self.handshake = isinstance(connection, ssl.SSLSocket)
        self.later: Later | None = None
        self.parting = False

    @property
    def asking(self) -> bool:
        """Part of a request or line has come, or its answer is not given yet."""
        return self.later is not None or (not self.parting and (bool(self.rest) or self.length is not None))


class Server:
    """A listening socket and its clients. Not safe for several threads: its driver has the lock."""

    def __init__(
        self, who: str, address: tuple[str, int], limits: Limits, take: Take, *,
        judge: Judge = lambda head, asker, length: asker.name, line: Callable[[bytes], object] | None = None,
        odd: Callable[[str], None] = lambda text: None, tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """Listen.

        who : the driver, for errors
        line : is given each line without its end; None: only requests are taken
        odd : is told of what was cut off

        Raises LinkLost if the port is taken.
        """
        self._limits, self._take, self._judge, self._line, self._odd = limits, take, judge, line, odd
        self._tls = tls
        self._clients: list[_Client] = []
        try:
            self._listener = socket.create_server(address)
        except OSError as error:
            place = f"{address[0]}:{address[1]}"
            raise LinkLost(f"{who} {place}: cannot listen ({error}); is another program on this port?") from error
        self._listener.setblocking(False)

    @property
    def asking(self) -> bool:
        """Somebody is in the middle of saying something, or waits for an answer."""
        return any(client.asking for client in self._clients)

    def close(self) -> None:
        """Hang up and stop listening."""
        for client in self._clients:
            client.connection.close()
        self._clients.clear()
        self._listener.close()

    def settle(self, ref: str) -> None:
        """Give the answer that waits for `ref`; one that nobody waits for does nothing."""
        for client in [c for c in self._clients if c.later is not None and c.later.ref == ref]:
            assert client.later is not None
            self._respond(client, client.later.answer)

    def serve(self, timeout_s: float) -> None:
        """Wait for the next thing to come, and take it."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        by_descriptor = {client.connection.fileno(): client for client in self._clients if client.later is None}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(min(timeout_s, SLICE_S) * 1000):
            client = by_descriptor.get(descriptor)
            if client is None:
                self._accept()
            elif client in self._clients:  # not parted with, to make room for the one before
                self._hear(client)
        self._look_at_the_clock(time.monotonic())

    def _look_at_the_clock(self, now_s: float) -> None:
        for client in list(self._clients):
            silent_s = now_s - client.heard_s
            if client.later is not None:
                if silent_s > self._limits.answer_s:
                    self._respond(client, client.later.late)
            elif (
                silent_s > (LINGER_S if client.parting else self._limits.silence_s)
                or (client.length is not None and now_s - client.began_s > WHOLE_S)
            ):  # fmt: skip
                self._part(client)

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError:  # gone again before it was accepted
            return
        if len(self._clients) >= self._limits.clients:
            idle = [c for c in self._clients if c.later is None]
            if not idle:
                connection.close()
                return
            self._part(min(idle, key=lambda c: (not c.parting, c.heard_s)))
        connection.setblocking(False)
        if self._tls is not None:
            try:
                connection.getpeername()
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            except OSError:  # reset between being accepted and this
                connection.close()
                return
        self._clients.append(_Client(connection, str(address[0])))

    def _part(self, client: _Client) -> None:
        client.connection.close()
        if client in self._clients:
            self._clients.remove(client)

    def _hear(self, client: _Client) -> None:
        """Take what a client says; of TLS, also what it keeps where no poll sees it."""
        try:
            if client.handshake:
                client.connection.do_handshake()  # type: ignore[attr-defined]
                client.handshake = False
            while data := client.connection.recv(1 << 16):
                if client.parting:
                    return
                client.heard_s = time.monotonic()
                client.rest += data
                if not self._understand(client) or not self._has_more(client):
                    return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:  # it has gone, or speaks no TLS
            pass
        self._part(client)

    @staticmethod
    def _has_more(client: _Client) -> bool:
        return isinstance(client.connection, ssl.SSLSocket) and client.connection.pending() > 0

    def _understand(self, client: _Client) -> bool:
        """Take the lines or the request that have come; False once nothing more is to be read."""
        if self._line is None or client.length is not None or client.rest.startswith(_METHODS):
            return self._request(client)
        *lines, rest = bytes(client.rest).split(b"\n")
        client.rest = bytearray(rest)
        for line in lines:
            self._line(line)
        if len(rest) > MOST_LINE:
            self._odd(f"a line of more than {MOST_LINE} bytes: its sender was cut off")
            self._part(client)
            return False
        return True

    def _request(self, client: _Client) -> bool:
        if client.length is None:
            head, blank, body = bytes(client.rest).partition(b"\r\n\r\n")
            if len(head) > MOST_HEAD:
                self._respond(client, answer_of("431 Request Header Fields Too Large", f"at most {MOST_HEAD} bytes"))
                return False
            if not blank:
                return True
            refusal = self._judge_head(client, head + b"\r\n")
            if refusal is not None:
                self._respond(client, refusal)
                return False
            client.rest = bytearray(body)
        assert client.length is not None
        if len(client.rest) < client.length:
            return True
        body, client.rest = bytes(client.rest[: client.length]), bytearray()
        told = self._take(body, client.asker)
        if isinstance(told, Later):
            client.later, client.heard_s = told, time.monotonic()
        else:
            self._respond(client, told)
        return False

    def _judge_head(self, client: _Client, head: bytes) -> Answer | None:
        """Learn who asks and how much follows; return the answer if the request is refused."""
        if not head.startswith(b"POST "):
            return answer_of("405 Method Not Allowed", "POST one document", headers=("Allow: POST",))
        found = _LENGTH.search(head)
        length = int(found[1]) if found is not None else -1
        name = self._judge(head, client.asker, length)
        if isinstance(name, Answer):
            return name
        if length < 0:
            return answer_of("411 Length Required", "give a Content-Length")
        if length > self._limits.most_body:
            return answer_of("413 Content Too Large", f"at most {self._limits.most_body} bytes")
        client.asker, client.length = client.asker._replace(name=name), length
        return None

    def _respond(self, client: _Client, answer: Answer) -> None:
        """Answer. It is small: what does not fit into the socket's buffer is lost with its reader.

        Closed at once, while the other side still sends, the connection would be reset and the answer with it.
        """
        client.later, client.parting, client.heard_s = None, True, time.monotonic()
        client.rest.clear()
        try:
            client.connection.settimeout(SLICE_S)
            client.connection.sendall(answer.encode())
            client.connection.setblocking(False)
            client.connection.shutdown(socket.SHUT_WR)
        except OSError:  # it has gone without waiting for an answer
            self._part(client)


def tls_of(who: str, certificate: str, private_key: str | None) -> ssl.SSLContext:
    """Return what a server speaks TLS by. Raises LinkLost for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise LinkLost(f"{who}: certificate {certificate} cannot be used ({error})") from error
    return context
