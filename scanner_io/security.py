"""Who is who on the wire: keys, the list of those who may, and signed decisions.

Every program has one key file with two key pairs: a CURVE pair, which encrypts its connection and says who is at the
other end of it, and an Ed25519 pair, with which an analyst signs decisions, so that who decided what can be shown long
after the connection. Both secrets stay in that file. The service keeps the list of the enrolled: public keys, name and
role. A name is given once: who comes back after a revocation is enrolled under another one, so that old decisions stay
theirs.

Source: CURVE, RFC 26 of ZeroMQ (CurveZMQ); Ed25519, RFC 8032.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import re
import resource
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import msgspec

from .errors import ConfigError, DeliveryError, StorageError
from .storage import make_folder, write_durable

if TYPE_CHECKING:
    import zmq

Role = Literal["analyst", "supervisor", "viewer", "hub"]
"""analyst : takes scans and decides. supervisor : as well, and takes what is held. viewer : sees the queue, no image.
hub : takes scans for the analysts of a site, and brings their decisions."""
ROLES: tuple[str, ...] = get_args(Role)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
SERVICE_KEY, SERVICE_PUBLIC, ENROLLED = "service.key", "service.pub", "enrolled.json"
MAX_FILE_BYTES = 16 << 20
_PR_SET_DUMPABLE = 4

_T = TypeVar("_T")


class PublicKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What others may know of a program: handed over in the open, but by a way that nobody can exchange it on.

    name : of the person or program
    curve : CURVE public key, 40 characters of Z85
    signing : Ed25519 public key, 64 hexadecimal digits
    """

    format: Literal["scanlane public key 1"] = "scanlane public key 1"
    name: str
    curve: str
    signing: str


class Identity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program's own key file: secret, readable by its user alone.

    service : CURVE public key of the service it talks to; empty in the service's own file and until it is known
    """

    format: Literal["scanlane key 1"] = "scanlane key 1"
    name: str
    curve: str
    curve_secret: str
    signing: str
    signing_secret: str
    service: str = ""

    def __repr__(self) -> str:
        """Name it without its secrets, so that no traceback or log line ever holds them."""
        return f"Identity(name={self.name!r}, curve={self.curve!r})"

    @property
    def public(self) -> PublicKey:
        """What others may know."""
        return PublicKey(name=self.name, curve=self.curve, signing=self.signing)

    def sign(self, statement: bytes) -> bytes:
        """Return the Ed25519 signature of exactly these bytes, 64 bytes."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.signing_secret)).sign(statement)


class Enrolled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One who may connect, or might once. revoked_utc_ns : 0 while they may."""

    key: PublicKey
    role: Role
    enrolled_utc_ns: int
    revoked_utc_ns: int = 0


class EnrolledList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everybody who ever was enrolled, in the order of it."""

    format: Literal["scanlane enrolled 1"] = "scanlane enrolled 1"
    enrolled: tuple[Enrolled, ...] = ()

    def in_force(self) -> dict[str, Enrolled]:
        """Return those who may connect, by their CURVE public key."""
        return {e.key.curve: e for e in self.enrolled if not e.revoked_utc_ns}

    def named(self, name: str) -> Enrolled | None:
        """Return whoever has or had this name."""
        return next((e for e in self.enrolled if e.key.name == name), None)


def generate(name: str, service: str = "") -> Identity:
    """Return a new identity. Raises ConfigError for a name that is none."""
    import zmq
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    checked_name(name)
    keep_secrets()
    public, secret = zmq.curve_keypair()
    signing = Ed25519PrivateKey.generate()
    return Identity(
        name=name, curve=public.decode(), curve_secret=secret.decode(), service=service,
        signing=signing.public_key().public_bytes_raw().hex(), signing_secret=signing.private_bytes_raw().hex(),
    )  # fmt: skip


def keep_secrets() -> None:
    """Keep this process's memory from core files and from other programs of the same user, for good.

    Called by whatever brings a secret key into memory. A program that this one starts is not covered, and knows none.

    Source: prctl(2), PR_SET_DUMPABLE: it holds where the kernel pipes cores to a program and ignores RLIMIT_CORE, too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux alone has it
    if prctl is not None:
        prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def checked_name(name: str) -> str:
    """Return the name. Raises ConfigError if it cannot stand in a log, a file name and a signature alike."""
    if not NAME.match(name):
        raise ConfigError([
            f"name {name[:70]!r}: expected 1 to 64 letters, digits and . _ @ -, beginning with a letter or digit"
        ])  # fmt: skip
    return name


def verified(signing: str, statement: bytes, signature: bytes) -> bool:
    """Tell whether `signature` is that of exactly these bytes by the Ed25519 public key `signing`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signing)).verify(signature, statement)
    except (InvalidSignature, ValueError):  # ValueError: a key or signature of the wrong length
        return False
    return True


# --------------------------------------------------------------------------------------------------------------
# Files


def save_identity(path: Path, identity: Identity) -> None:
    """Write a key file that only its user can read. Raises StorageError if there is one already."""
    _write(path, identity, 0o600)


def load_identity(path: Path) -> Identity:
    """Read a key file. Raises ConfigError if it is none, or if others than its user can read it."""
    import zmq

    keep_secrets()
    identity: Identity = _read(path, Identity, forbidden=_NOT_READ)
    _checked_keys(path, {"curve": identity.curve, "curve_secret": identity.curve_secret},
                  {"signing": identity.signing, "signing_secret": identity.signing_secret})  # fmt: skip
    if identity.service:
        _checked_keys(path, {"service": identity.service}, {})
    if zmq.curve_public(identity.curve_secret.encode()).decode() != identity.curve:
        raise ConfigError([f"{path}: its public and its secret CURVE key do not belong together; make a new key file"])
    if not verified(identity.signing, b"scanlane", identity.sign(b"scanlane")):
        raise ConfigError([f"{path}: its public and its secret signing key do not belong together; make a new one"])
    return identity


def secret_in(path: Path) -> str:
    """Return the secret that is the only line of a file. Raises ConfigError if others than its user can read it."""
    keep_secrets()
    try:
        secret = _content(path, forbidden=_NOT_READ).decode().strip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret.isprintable() or not secret:
        raise ConfigError([f"{path}: expected one line of text with the secret"])
    return secret


MIN_TOKEN = 16
"""Characters of a token: with fewer it can be guessed."""


def tokens_in(path: Path) -> dict[str, str]:
    """Return who may send with which token: SHA-256 of the token (hex) -> name. One line each: NAME TOKEN.

    Raises ConfigError if others than its user can read the file, or a line is none.
    """
    keep_secrets()
    found: dict[str, str] = {}
    try:
        text = _content(path, forbidden=_NOT_READ).decode("ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(
            [f"{path}: byte {error.start} is no plain character; expected lines of NAME TOKEN"]
        ) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, token = line.strip().partition(" ")
        token = token.strip()
        if len(token) < MIN_TOKEN or " " in token:
            raise ConfigError(
                [f"{path}, line {number}: expected NAME TOKEN, a token of {MIN_TOKEN} characters or more"]
            )
        found[hashlib.sha256(token.encode()).hexdigest()] = name
    if not found:
        raise ConfigError([f"{path}: names nobody; write a line NAME TOKEN for everyone who may send"])
    return found


def save_public(path: Path, key: PublicKey) -> None:
    """Write a file with public keys. Raises StorageError if there is one already."""
    _write(path, key, 0o644)


def load_public(path: Path) -> PublicKey:
    """Read a file with public keys. Raises ConfigError if it is none, or if it holds a secret."""
    key: PublicKey = _read(path, PublicKey, forbidden=_ANYTHING)
    checked_name(key.name)
    _checked_keys(path, {"curve": key.curve}, {"signing": key.signing})
    return key


def load_enrolled(path: Path) -> EnrolledList:
    """Read the list of the enrolled.

    Raises ConfigError if it is none, names a key or a name twice, or if others could write it.
    """
    listed: EnrolledList = _read(path, EnrolledList, forbidden=_NOT_WRITE)
    _check_folder(path.parent)
    for what, values in (
        ("name", [e.key.name for e in listed.enrolled]),
        ("CURVE key", [e.key.curve for e in listed.enrolled]),
        ("signing key", [e.key.signing for e in listed.enrolled]),
    ):
        if twice := sorted({v for v in values if values.count(v) > 1}):
            raise ConfigError([f"{path}: {what} {twice[0]!r} is there twice; nobody is let in by such a list"])
    return listed


def save_enrolled(path: Path, listed: EnrolledList) -> None:
    """Exchange the list at once and durably."""
    _write(path, listed, 0o640, replace=True)


def create_service(folder: Path, name: str = "service") -> Identity:
    """Make the service's keys and an empty list of the enrolled in a folder. Raises StorageError if there are some."""
    make_folder(folder, 0o700)
    _check_folder(folder)
    for file in (SERVICE_KEY, SERVICE_PUBLIC, ENROLLED):
        if (folder / file).exists():
            raise StorageError(
                f"{folder / file} is there already; whoever is enrolled depends on it: give another folder"
            )
    identity = generate(name)
    save_identity(folder / SERVICE_KEY, identity)
    save_public(folder / SERVICE_PUBLIC, identity.public)
    save_enrolled(folder / ENROLLED, EnrolledList())
    return identity


def enrol(folder: Path, key: PublicKey, role: Role) -> Enrolled:
    """Let a program connect from now on. Raises ConfigError if its name or a key of it was ever enrolled."""
    checked_name(key.name)
    with _alone(folder):
        listed = load_enrolled(folder / ENROLLED)
        for old in listed.enrolled:
            same = [
                what
                for what, a, b in (
                    ("name", old.key.name, key.name),
                    ("CURVE key", old.key.curve, key.curve),
                    ("signing key", old.key.signing, key.signing),
                )
                if a == b
            ]
            if same:
                state = "revoked" if old.revoked_utc_ns else "enrolled"
                raise ConfigError([
                    f"{key.name}: {old.key.name} is {state} with the same {' and '.join(same)}; names and keys are "
                    "given once, so that old decisions stay theirs: make new keys under another name"
                ])  # fmt: skip
        new = Enrolled(key=key, role=role, enrolled_utc_ns=time.time_ns())
        save_enrolled(folder / ENROLLED, EnrolledList(enrolled=(*listed.enrolled, new)))
    return new


def revoke(folder: Path, name: str) -> Enrolled:
    """End somebody's right to connect. Raises ConfigError if nobody enrolled has this name."""
    with _alone(folder):
        listed = load_enrolled(folder / ENROLLED)
        old = listed.named(name)
        if old is None or old.revoked_utc_ns:
            names = ", ".join(e.key.name for e in listed.in_force().values()) or "nobody"
            why = "was revoked before" if old is not None else "is not enrolled"
            raise ConfigError([f"{name[:70]!r} {why}; enrolled are: {names}"])
        new = msgspec.structs.replace(old, revoked_utc_ns=time.time_ns())
        rest = tuple(new if e is old else e for e in listed.enrolled)
        save_enrolled(folder / ENROLLED, EnrolledList(enrolled=rest))
    return new


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other programs from changing the list meanwhile. Raises ConfigError where there is no list."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError([f"{folder}: {error.strerror}; make it with `scanlane keys init`"]) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, value: msgspec.Struct, mode: int, *, replace: bool = False) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    write_durable(path, text, replace=replace, mode=mode)


_ANYTHING, _NOT_WRITE, _NOT_READ = 0, 0o022, 0o077
"""Rights that others must not have."""


def _check_rights(path: Path, state: os.stat_result, forbidden: int) -> None:
    """Raise ConfigError if others than its user could read or change what only its user may."""
    mode = stat.S_IMODE(state.st_mode)
    if forbidden and state.st_uid not in (0, os.geteuid()):
        hint = "do this as that user: `runuser -u USER -- scanlane ...`" if os.geteuid() == 0 else "`chown` it"
        raise ConfigError([f"{path}: belongs to user {state.st_uid}, who could exchange it; {hint}"])
    if forbidden == _NOT_READ and mode & forbidden:
        raise ConfigError([
            f"{path}: mode {mode:04o} lets others read this secret; `chmod 600` it, and make a new key if somebody may "
            "have"
        ])  # fmt: skip
    if mode & forbidden:
        raise ConfigError([f"{path}: mode {mode:04o} lets others say who may connect; `chmod go-w` it"])


def _check_folder(folder: Path) -> None:
    try:
        _check_rights(folder, folder.stat(), _NOT_WRITE)
    except OSError as error:
        raise ConfigError([f"{folder}: {error.strerror}; make it with `scanlane keys init`"]) from error


def _content(path: Path, *, forbidden: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of that name would wait
        with os.fdopen(descriptor, "rb") as file:
            _check_rights(path, os.fstat(file.fileno()), forbidden)
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: more than {MAX_FILE_BYTES} bytes, expected a file of keys"])
    return data


def _read(path: Path, kind: type[_T], *, forbidden: int) -> _T:
    data = _content(path, forbidden=forbidden)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The error names the place and the type, never the value: no secret gets into a log by it.
        raise ConfigError([f"{path}: is no file of `scanlane keys` ({error})"]) from error


def _checked_keys(path: Path, z85: Mapping[str, str], hexadecimal: Mapping[str, str]) -> None:
    from zmq.utils import z85 as encoding

    for field, value in z85.items():
        try:
            good = len(value) == 40 and len(encoding.decode(value.encode("ascii"))) == 32
        except (ValueError, KeyError, IndexError, UnicodeEncodeError):
            good = False
        if not good:
            raise ConfigError([f"{path}: {field} has {len(value)} characters, expected a key of 40 in Z85"])
    for field, value in hexadecimal.items():
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ConfigError([f"{path}: {field} has {len(value)} characters, expected 64 hexadecimal digits"])


# --------------------------------------------------------------------------------------------------------------
# Sockets


def secure_client(socket: zmq.Socket[bytes], identity: Identity) -> None:
    """Make a socket that is not connected yet speak CURVE. Raises ConfigError if the service's key is not known."""
    import zmq

    checked_library()
    if not identity.service:
        raise ConfigError([
            f"key of {identity.name}: it does not name the service's key; enrol it with `scanlane keys enrol`, or add "
            "the service's public key by `scanlane keys new --service FILE`"
        ])  # fmt: skip
    socket.setsockopt(zmq.CURVE_PUBLICKEY, identity.curve.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, identity.curve_secret.encode())
    socket.setsockopt(zmq.CURVE_SERVERKEY, identity.service.encode())


def checked_library() -> None:
    """Raise DeliveryError if the bundled libzmq cannot be trusted with keys.

    Source: CVE-2019-13132 (overflow before authentication) mended in 4.3.2, denials of service in 4.3.3.
    """
    import zmq

    if not zmq.has("curve"):
        raise DeliveryError("libzmq was built without CURVE; install pyzmq's own wheel")
    if zmq.zmq_version_info() < (4, 3, 3):
        raise DeliveryError(f"libzmq {zmq.zmq_version()} has known holes, expected 4.3.3 or newer; upgrade pyzmq")
