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
import stat
import threading
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

from scanner_io import disk, security
from scanner_io.capture import Tap, no_tap
from scanner_io.channel import Channel
from scanner_io.errors import DataError, LinkLost, StorageError
from scanner_io.foreign import CARGO, ForeignFiles
from scanner_io.formats.cargo import CargoMessage
from scanner_io.listening import SLICE_S, Answer, Asker, Later, Limits, Server, answer_of, tls_of
from scanner_io.model import CargoReceived, DeviceInfo, Event, Kind
from scanner_io.storage import free_name, make_folder, move_aside, sync_folder

_TOKEN = re.compile(rb"\r\nauthorization:[ \t]*bearer[ \t]+([!-~]{1,512})[ \t]*\r\n", re.IGNORECASE)
_REALM = 'WWW-Authenticate: Bearer realm="cargo"'
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


_State: TypeAlias = tuple[int, int, int]
"""Of a file: its size, when it was changed, which one of that name it is."""


def _state(status: os.stat_result) -> _State:
    return status.st_size, status.st_mtime_ns, status.st_ino


class CargoFeed:
    """The driver: a folder that is listed and a listening socket, both served by the thread that reads."""

    pausable = True

    def __init__(self, config: Config) -> None:
        self._config = config
        self.tap: Tap = no_tap
        self._ready: deque[Event] = deque()
        self._server: Server | None = None
        self._names: dict[str, str] = {}
        self._files: ForeignFiles | None = None
        self._seen: dict[str, tuple[_State, float]] = {}
        self._whole: deque[tuple[Path, _State]] = deque()
        """Files that are whole, as they were at the last listing."""
        self._offered: dict[str, tuple[Path, _State, str]] = {}
        """Files that wait to be acknowledged: source reference -> where, as it was read, why it cannot be read."""
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
            self._whole.clear()
            self._closed.clear()
        return DeviceInfo(
            vendor="scanlane", model="cargo feed", kinds=(), address=self._where, simulated=c.simulated,
            note="SIMULATED: the declarations are invented" if c.simulated else "",
        )  # fmt: skip

    def _listen(self, port: int) -> None:
        c = self._config
        assert c.tokens is not None
        self._names = security.tokens_in(Path(c.tokens))
        tls = None if c.certificate is None else tls_of("cargo_feed", c.certificate, c.private_key)
        limits = Limits(c.clients, c.silence_s, c.most_mb << 20, c.answer_s)
        self._server = Server("cargo_feed", (c.host, port), limits, self._take, judge=self._judge, tls=tls)

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

    @property
    def pending(self) -> bool:
        """A file is there, or a request on its way, whose messages are not stored yet."""
        with self._using:
            unlisted = self._config.folder is not None and self._listed_s == float("-inf")
            asking = self._server is not None and self._server.asking
            return bool(unlisted or self._ready or self._offered or self._seen or asking)

    def acknowledge(self, source_ref: str) -> None:
        """Learn that a delivery is stored: its file is put away, its sender answered."""
        with self._using:
            if self._server is not None:
                self._server.settle(source_ref)
            if source_ref in self._offered:
                self._put_away(*self._offered.pop(source_ref))

    def close(self) -> None:
        """Stop looking and listening. May be called by any thread, any time, twice."""
        self._closed.set()
        if (files := self._files) is not None:
            files.close()  # a document that is being read is not waited for
        with self._using:
            self._offered.clear()
            if self._server is not None:
                self._server.close()
            self._server = self._files = None

    # ---------------------------------------------------------------------------------------------------- reading

    def _received(self, contents: bytes, name: str, sender: str, source_ref: str) -> CargoReceived:
        """Return what a document says, or why nothing of it is taken."""
        assert self._files is not None
        sha256 = hashlib.sha256(contents).hexdigest()
        # played again, requests are files: two of one sender must not be written onto each other
        self.tap("file", name if source_ref.startswith("file ") else f"{name} {sha256[:16]}", contents)
        told = CargoReceived(
            source_ref=source_ref, utc_ns=time.time_ns(), name=name, sender=sender, size_bytes=len(contents),
            sha256=sha256, simulated=self._config.simulated,
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
        """Take the next file of the last listing that is whole; with none left list the folder, if it is time."""
        while self._whole and not self._ready:
            path, listed = self._whole.popleft()
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                if _state(path.lstat()) == listed:
                    self._take_file(path, listed)
        if self._ready or self._config.folder is None or time.monotonic() - self._listed_s < self._config.poll_s:
            return
        self._listed_s = now_s = time.monotonic()
        waiting = {path.name for path, _, _ in self._offered.values()}
        seen: dict[str, tuple[_State, float]] = {}
        try:
            entries = sorted(os.scandir(self._config.folder), key=lambda e: e.name)
        except OSError as error:
            raise LinkLost(f"cargo_feed {self._config.folder}: cannot be listed ({error})") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower().endswith(_TEMPORARY) or entry.name in waiting:
                continue
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    continue
                state = _state(status)
                before, since_s = self._seen.get(entry.name, (None, now_s))
                seen[entry.name] = (state, since_s if state == before else now_s)
                if state == before and now_s - since_s >= self._config.stable_s:
                    self._whole.append((Path(entry.path), state))
        self._seen = seen
        if self._whole:
            self._listed_s = float("-inf")  # all of them are taken before the next one

    def _take_file(self, path: Path, listed: _State) -> None:
        """Offer a file's messages, or why it gives none; one that cannot be read must not hold up the others."""
        name = path.name.encode("utf-8", "backslashreplace").decode()
        contents, problem = b"", ""
        most = self._config.most_mb << 20
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                contents = file.read(most + 1)
                if _state(os.fstat(file.fileno())) != listed:
                    return  # written to, or replaced, in between: it is listed anew
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
        self._offered[source_ref] = (path, listed, told.problem)
        self._ready.append(told)

    def _put_away(self, path: Path, read: _State, problem: str) -> None:
        """Move a file that is stored; what its sender has put in its place meanwhile stays, and is read next.

        read : the file when it was read
        """
        assert self._config.folder is not None
        with contextlib.suppress(FileNotFoundError):
            if _state(path.lstat()) != read:
                return
        folder = Path(self._config.folder) / (self._config.quarantine_dir if problem else self._config.done_dir)
        if problem:
            move_aside(path, folder, problem)
            return
        try:
            make_folder(folder)
            disk.io().rename(path, free_name(folder, path))
            sync_folder(folder)
        except OSError as error:
            raise StorageError(f"{path}: cannot be moved to {folder} ({error}); check rights and space") from error

    # ------------------------------------------------------------------------------------------------------- HTTP

    def _serve(self, timeout_s: float) -> None:
        """Wait for the next thing to come, and take it."""
        if self._server is None:
            self._closed.wait(timeout_s)
        else:
            self._server.serve(timeout_s)

    def _judge(self, head: bytes, asker: Asker, length: int) -> str | Answer:
        """Return who sends a request, by the token in its head, or what is answered to a stranger."""
        told = _TOKEN.search(head)
        name = self._names.get(hashlib.sha256(told[1]).hexdigest()) if told is not None else None
        if name is None:  # of the token itself, nothing is told
            why = "with a token that is not known here" if told is not None else "without a token"
            self._refuse(f"request of {asker.peer}", f"request of {asker.peer}: {why}; refused", refused=True)
            return answer_of("401 Unauthorized", "a token is needed: Authorization: Bearer TOKEN", headers=(_REALM,))
        if length > self._config.most_mb << 20:
            problem = f"request of {name}: {length} bytes, at most {self._config.most_mb} MB are read"
            self._refuse(f"request of {name}", problem, sender=name, size_bytes=length)
            return answer_of("413 Content Too Large", problem)
        return name

    def _refuse(self, name: str, problem: str, **told: Any) -> None:
        self._ready.append(
            CargoReceived(source_ref="", utc_ns=time.time_ns(), name=name, problem=problem, **{"sender": ""} | told)
        )

    def _take(self, body: bytes, asker: Asker) -> Answer | Later:
        ref = f"http {asker.name} {hashlib.sha256(body).hexdigest()[:16]} {time.monotonic_ns()}"
        told = self._received(body, f"request of {asker.name}", asker.name, ref)
        self._ready.append(told)
        if told.problem:
            return answer_of("403 Forbidden" if told.refused else "422 Unprocessable Content", told.problem)
        problems = [f"{m.document or m.reference}: {p}" for m in told.messages for p in m.problems]
        late = answer_of("503 Service Unavailable", "not stored in time; send it again")
        return Later(ref, answer_of("202 Accepted", *problems), late)
