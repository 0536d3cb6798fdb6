"""Cargo messages in advance: a watched folder, and a place to which others push them by HTTP.

Messages are UN/EDIFACT (CUSCAR, IFTMCS), JSON or tables (`scanner_io.formats.cargo_any`), read in a process that can do
nothing but read. They begin no passage: the service keeps them until a vehicle comes that one of them fits.

Folder: a file counts once its size and time have stayed the same for `stable_s`. It stays until `acknowledge` says that
its messages are stored, and goes to `done_dir` then; one that cannot be read goes to `quarantine_dir` with its reason
beside it. Nothing is deleted: what is in them is the site's to clear.

HTTP: POST of one document to any path, with `Authorization: Bearer TOKEN`. Tokens are in a file that only its user can
read, one line NAME TOKEN for everyone who may send. The answer comes once the messages are on the disk:

    202  stored; the body lists what is odd about them        413  larger than `most_mb`
    401  no token, or none that is known here                 422  cannot be read; the body says why
    403  the message names a sender that may not send         503  could not be stored in time: send it again

On any address but loopback, TLS is a must. A sender that is refused is told to the lane, which writes it down.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import re
import select
import socket
import ssl
import stat
import threading
import time
from collections import deque
from pathlib import Path
from typing import Annotated

import msgspec

from scanner_io import disk, security
from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import DataError, LinkLost, StorageError
from scanner_io.foreign import CARGO, ForeignFiles
from scanner_io.formats.cargo import CargoMessage
from scanner_io.model import CargoReceived, DeviceInfo, Event, Kind
from scanner_io.storage import make_folder, move_aside, sync_folder

SLICE_S = 0.1
MOST_HEAD = 16 << 10
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)
_TOKEN = re.compile(rb"\r\nauthorization:[ \t]*bearer[ \t]+([!-~]{1,512})[ \t]*\r\n", re.IGNORECASE)
_TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", "~")

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where messages come from; a folder, a port, or both.

    folder : is watched; it must exist. folder_sender : who writes into it, "" for many
    done_dir, quarantine_dir : where files go that were stored, and that cannot be read; relative to `folder`
    stable_s, poll_s : a file has not changed for so long; the folder is listed so often at most
    port, host : where to listen; another host than loopback needs a certificate
    tokens : file of mode 0600 with lines NAME TOKEN
    certificate, private_key : files for TLS (PEM)
    senders : identifications in messages (UNB, SubmitterID) that are accepted; none: all
    most_mb : largest document
    clients, silence_s : connections at once; one that says nothing for so long is closed
    answer_s : whoever pushed is told to send again if his messages are not stored by then
    simulated : what comes is invented, and is to be marked so
    """

    folder: str | None = None
    folder_sender: str = ""
    done_dir: str = "done"
    quarantine_dir: str = "quarantine"
    stable_s: Seconds = 1.0
    poll_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 0.5
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] | None = None
    host: str = "127.0.0.1"
    tokens: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    senders: tuple[str, ...] = ()
    most_mb: Annotated[int, msgspec.Meta(ge=1, le=16)] = 10
    clients: Annotated[int, msgspec.Meta(ge=1, le=100)] = 8
    silence_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    answer_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 30.0
    simulated: bool = False

    def __post_init__(self) -> None:
        """Check what one field cannot tell alone. Raises ValueError."""
        if self.folder is None and self.port is None:
            raise ValueError("folder, port: neither is given, expected where messages come from")
        if self.port is not None and self.tokens is None:
            raise ValueError("tokens: missing, expected with port: whoever reaches it could declare what he likes")
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate, private_key: expected both or neither")
        if self.port is not None and self.certificate is None and not _loopback(self.host):
            raise ValueError(f"host: {self.host!r} without certificate and private_key, expected TLS beyond loopback")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def kinds(config: Config) -> tuple[Kind, ...]:
    """Return what this driver gives: nothing that comes with a passage."""
    return ()


def connect(config: Config, channel: Channel | None = None) -> CargoFeed:
    """Return the driver, not opened. It has no channel: it listens and looks."""
    return CargoFeed(config)


class _Client:
    """A connection, and what of its request has come. pending : it waits for its messages to be stored since"""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self.connection = connection
        self.peer = peer
        self.heard_s = time.monotonic()
        self.rest = bytearray()
        self.sender: str | None = None
        self.length: int | None = None
        self.handshake = isinstance(connection, ssl.SSLSocket)
        self.answer = b""
        self.source_ref = ""


class CargoFeed:
    """The driver: a folder that is listed and a listening socket, both served by the thread that reads."""

    pausable = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap
        self._ready: deque[Event] = deque()
        self._listener: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._names: dict[str, str] = {}
        self._clients: list[_Client] = []
        self._files: ForeignFiles | None = None
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._offered: dict[str, tuple[Path, str]] = {}
        """Files that wait to be acknowledged: source reference -> where, and why it cannot be read."""
        self._listed_s = float("-inf")
        self._using = threading.RLock()
        self._closed = threading.Event()
        self._closed.set()

    @property
    def _where(self) -> str:
        c = self._config
        places = ([c.folder] if c.folder is not None else []) + ([f"{c.host}:{c.port}"] if c.port is not None else [])
        return " and ".join(places)

    def open(self) -> DeviceInfo:
        """Begin to look and listen. Raises LinkLost (no folder, port taken) and ConfigError (tokens, certificate)."""
        self.close()
        c = self._config
        with self._using:
            if c.folder is not None and not Path(c.folder).is_dir():
                raise LinkLost(f"cargo_feed {c.folder}: is no folder; make it, or connect the share behind it")
            if c.port is not None:
                self._listen(c.port)
            self._files = ForeignFiles()
            self._files.prepare(CARGO)
            self._seen, self._listed_s = {}, float("-inf")
            self._closed.clear()
        return DeviceInfo(
            vendor="scanlane", model="cargo feed", kinds=(), address=self._where, simulated=c.simulated,
            note="SIMULATED: the declarations are invented" if c.simulated else "",
        )  # fmt: skip

    def _listen(self, port: int) -> None:
        c = self._config
        assert c.tokens is not None
        self._names = security.tokens_in(Path(c.tokens))
        self._tls = None
        if c.certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                self._tls.load_cert_chain(c.certificate, c.private_key)
            except (OSError, ssl.SSLError) as error:
                raise LinkLost(f"cargo_feed: certificate {c.certificate} cannot be used ({error})") from error
        try:
            self._listener = socket.create_server((c.host, port))
        except OSError as error:
            raise LinkLost(
                f"cargo_feed {c.host}:{port}: cannot listen ({error}); is another program on this port?"
            ) from error
        self._listener.setblocking(False)

    def read(self, timeout_s: float) -> Event | None:
        """Return the next delivery. Raises LinkLost when not open."""
        deadline_s = time.monotonic() + timeout_s
        while not self._ready:
            left_s = deadline_s - time.monotonic()
            with self._using:
                if self._closed.is_set():
                    raise LinkLost(f"cargo_feed {self._where}: not open")
                self._look()
                if not self._ready:
                    self._serve(min(max(0.0, left_s), SLICE_S))
            if not self._ready and time.monotonic() >= deadline_s:
                return None
        return self._ready.popleft()

    def acknowledge(self, source_ref: str) -> None:
        """Learn that a delivery is stored: its file is put away, its sender answered."""
        with self._using:
            for client in [c for c in self._clients if c.source_ref == source_ref]:
                self._respond(client, client.answer)
            path, problem = self._offered.pop(source_ref, (None, ""))
            if path is not None:
                self._put_away(path, problem)

    def close(self) -> None:
        """Stop looking and listening. May be called by any thread, any time, twice."""
        self._closed.set()
        if (files := self._files) is not None:
            files.close()  # a document that is being read is not waited for
        with self._using:
            for client in self._clients:
                client.connection.close()
            self._clients.clear()
            self._offered.clear()
            if self._listener is not None:
                self._listener.close()
            self._listener = self._files = None

    # ---------------------------------------------------------------------------------------------------- reading

    def _received(self, contents: bytes, name: str, sender: str, source_ref: str) -> CargoReceived:
        """Return what a document says, or why nothing of it is taken."""
        assert self._files is not None
        self.tap("file", name, contents)
        told = CargoReceived(
            source_ref=source_ref, utc_ns=time.time_ns(), name=name, sender=sender, size_bytes=len(contents),
            sha256=hashlib.sha256(contents).hexdigest(), simulated=self._config.simulated,
        )  # fmt: skip
        try:
            messages = self._files.cargo(contents, name=name)
        except DataError as error:
            return msgspec.structs.replace(told, problem=str(error))
        if stranger := self._stranger(messages):
            problem = f"{name}: names the sender {stranger[:80]!r}, which may not send here; see `senders`"
            return msgspec.structs.replace(told, problem=problem, refused=True)
        return msgspec.structs.replace(told, messages=messages)

    def _stranger(self, messages: tuple[CargoMessage, ...]) -> str | None:
        allowed = self._config.senders
        found = [m.sender or "(none)" for m in messages if allowed and m.sender not in allowed]
        return found[0] if found else None

    # ----------------------------------------------------------------------------------------------------- folder

    def _look(self) -> None:
        """List the folder, if it is time; take the first file that is whole."""
        if self._config.folder is None or time.monotonic() - self._listed_s < self._config.poll_s:
            return
        self._listed_s = now_s = time.monotonic()
        waiting = {path.name for path, _ in self._offered.values()}
        seen: dict[str, tuple[int, int, float]] = {}
        try:
            entries = sorted(os.scandir(self._config.folder), key=lambda e: e.name)
        except OSError as error:
            raise LinkLost(f"cargo_feed {self._config.folder}: cannot be listed ({error})") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower().endswith(_TEMPORARY) or entry.name in waiting:
                continue
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                state = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(state.st_mode):
                    continue
                size, time_ns, since_s = self._seen.get(entry.name, (-1, -1, now_s))
                same = (size, time_ns) == (state.st_size, state.st_mtime_ns)
                seen[entry.name] = (state.st_size, state.st_mtime_ns, since_s if same else now_s)
                if same and now_s - since_s >= self._config.stable_s and not self._ready:
                    self._take_file(Path(entry.path))
                    self._listed_s = float("-inf")  # the next one may be whole as well
        self._seen = seen

    def _take_file(self, path: Path) -> None:
        """Offer a file's messages, or why it gives none; one that cannot be read must not hold up the others."""
        name = path.name.encode("utf-8", "backslashreplace").decode()
        contents, problem = b"", ""
        most = self._config.most_mb << 20
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                contents = file.read(most + 1)
        except OSError as error:
            problem = f"{name}: cannot be read ({error}); check its rights"
        if len(contents) > most:
            problem = f"{name}: larger than {self._config.most_mb} MB; ask its sender to split it"
        source_ref = f"file {name} {hashlib.sha256(contents).hexdigest()[:16]}"
        if problem:
            told = CargoReceived(
                source_ref=source_ref, utc_ns=time.time_ns(), name=name, sender=self._config.folder_sender,
                problem=problem, size_bytes=len(contents), simulated=self._config.simulated,
            )  # fmt: skip
        else:
            told = self._received(contents, name, self._config.folder_sender, source_ref)
        self._offered[source_ref] = (path, told.problem)
        self._ready.append(told)

    def _put_away(self, path: Path, problem: str) -> None:
        assert self._config.folder is not None
        folder = Path(self._config.folder) / (self._config.quarantine_dir if problem else self._config.done_dir)
        if problem:
            move_aside(path, folder, problem)
            return
        try:
            make_folder(folder)
            target, count = folder / path.name, 0
            while os.path.lexists(target):
                count += 1
                target = folder / f"{path.stem}.{count}{path.suffix}"
            disk.io().rename(path, target)
            sync_folder(folder)
        except OSError as error:
            raise StorageError(f"{path}: cannot be moved to {folder} ({error}); check rights and space") from error

    # ------------------------------------------------------------------------------------------------------- HTTP

    def _serve(self, timeout_s: float) -> None:
        """Wait for the next thing to come, and take it."""
        if self._listener is None:
            self._closed.wait(timeout_s)
            return
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        by_descriptor = {client.connection.fileno(): client for client in self._clients if not client.source_ref}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(timeout_s * 1000):
            client = by_descriptor.get(descriptor)
            if client is None:
                self._accept()
            else:
                self._hear(client)
        now_s = time.monotonic()
        for client in list(self._clients):
            if client.source_ref and now_s - client.heard_s > self._config.answer_s:
                self._respond(client, _answer("503 Service Unavailable", "not stored in time; send it again"))
            elif not client.source_ref and now_s - client.heard_s > self._config.silence_s:
                self._part(client)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, address = self._listener.accept()
        except OSError:  # gone again before it was accepted
            return
        if len(self._clients) >= self._config.clients:
            idle = [c for c in self._clients if not c.source_ref]
            if not idle:
                connection.close()
                return
            self._part(min(idle, key=lambda c: c.heard_s))  # the one that has been silent longest
        connection.setblocking(False)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._clients.append(_Client(connection, str(address[0])))

    def _part(self, client: _Client) -> None:
        client.connection.close()
        if client in self._clients:
            self._clients.remove(client)

    def _hear(self, client: _Client) -> None:
        """Take what a client says, all that is there: TLS keeps some of it where no poll sees it."""
        try:
            if client.handshake:
                client.connection.do_handshake()  # type: ignore[attr-defined]
                client.handshake = False
            while data := client.connection.recv(1 << 16):
                client.heard_s = time.monotonic()
                client.rest += data
                if not self._request(client):
                    return
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:  # it has gone, or speaks no TLS
            pass
        self._part(client)

    def _request(self, client: _Client) -> bool:
        """Look at what has come of a request; False once nothing more is to be read."""
        if client.length is None:
            head, blank, body = bytes(client.rest).partition(b"\r\n\r\n")
            if not blank:
                if len(client.rest) > MOST_HEAD:
                    self._respond(client, _answer("431 Request Header Fields Too Large"))
                    return False
                return True
            refusal = self._judge_head(client, head + b"\r\n")
            if refusal is not None:
                self._respond(client, refusal)
                return False
            client.rest = bytearray(body)
        assert client.length is not None
        if len(client.rest) < client.length:
            return True
        self._take_request(client, bytes(client.rest[: client.length]))
        return False

    def _judge_head(self, client: _Client, head: bytes) -> bytes | None:
        """Learn sender and length from a head; return the answer if the request is refused."""
        if not head.startswith(b"POST "):
            return _answer("405 Method Not Allowed", "POST one document")
        told = _TOKEN.search(head)
        name = self._names.get(hashlib.sha256(told[1]).hexdigest()) if told is not None else None
        if name is None:  # of the token itself, nothing is told
            why = "with a token that is not known here" if told is not None else "without a token"
            self._ready.append(
                CargoReceived(
                    source_ref="", utc_ns=time.time_ns(), name=f"request of {client.peer}", refused=True,
                    problem=f"request of {client.peer}: {why}; refused",
                )
            )  # fmt: skip
            return _answer("401 Unauthorized", "a token is needed: Authorization: Bearer TOKEN")
        length = _LENGTH.search(head)
        if length is None:
            return _answer("411 Length Required")
        if int(length[1]) > self._config.most_mb << 20:
            problem = f"request of {name}: {int(length[1])} bytes, at most {self._config.most_mb} MB are read"
            self._ready.append(
                CargoReceived(
                    source_ref="", utc_ns=time.time_ns(), name=f"request of {name}", sender=name, problem=problem,
                    size_bytes=int(length[1]),
                )
            )  # fmt: skip
            return _answer("413 Content Too Large", problem)
        client.sender, client.length = name, int(length[1])
        return None

    def _take_request(self, client: _Client, body: bytes) -> None:
        assert client.sender is not None
        ref = f"http {client.sender} {hashlib.sha256(body).hexdigest()[:16]} {time.monotonic_ns()}"
        told = self._received(body, f"request of {client.sender}", client.sender, ref)
        self._ready.append(told)
        if told.problem:
            status = "403 Forbidden" if told.refused else "422 Unprocessable Content"
            self._respond(client, _answer(status, told.problem))
            return
        problems = [f"{m.document or m.reference}: {p}" for m in told.messages for p in m.problems]
        client.source_ref, client.heard_s = ref, time.monotonic()
        client.answer = _answer("202 Accepted", *problems)

    def _respond(self, client: _Client, answer: bytes) -> None:
        """Answer and part. An answer is small: what does not fit into the socket's buffer is lost with its reader."""
        with contextlib.suppress(OSError):  # it has gone without waiting for an answer
            client.connection.settimeout(SLICE_S)
            client.connection.sendall(answer)
        self._part(client)


def _answer(status: str, *problems: str) -> bytes:
    told = list(problems[:50])
    body = msgspec.json.encode({"status": status.partition(" ")[2], "problems": told})
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    )
    if status.startswith("401"):
        head += 'WWW-Authenticate: Bearer realm="cargo"\r\n'
    return f"{head}\r\n".encode() + body
