r"""Scans handed to another administration: one signed file that is verified without a connection.

    20 bytes   b"SCANLANE-EXCHANGE-1\n"
    4 bytes    length of the header, big-endian
    header     JSON: who made it, for whom, when, until when it holds, and name, size and SHA-256 of every file
    64 bytes   Ed25519 signature of all before it
    files      one after the other, in the order of the header, and nothing after them

So every byte is under the signature, or under a hash that is. Who may sign says the receiver's own trust list; a key
that was revoked signs nothing any more, whenever a package says it was made. What was opened is kept in a list, so that
a package counts once, and none that is older than what came of the same scan.

Source: Ed25519, RFC 8032; SHA-256, FIPS 180-4.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from .errors import ConfigError, DataError
from .security import Identity, PublicKey, checked_name, verified
from .storage import write_durable

SUFFIX = ".exchange"
MAGIC = b"SCANLANE-EXCHANGE-1\n"
SIGNATURE_BYTES = 64
MAX_HEADER_BYTES, MAX_FILES, MAX_BYTES = 1 << 20, 2000, 16 << 30
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\Z")
DAY_NS = 86_400 * 10**9
_T = TypeVar("_T")


class Refused(DataError):  # noqa: N818 -- what happens to it
    """A package is not accepted; the message says why."""


class Packed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a package."""

    name: str
    size: int
    sha256: str


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a package says of itself.

    scans : ids of the scans in it, as the sender calls them
    simulated : any of them is
    """

    format: Literal["scanlane exchange 1"] = "scanlane exchange 1"
    package_id: str
    sender: str
    recipient: str
    made_utc_ns: int
    until_utc_ns: int
    scans: tuple[str, ...]
    files: tuple[Packed, ...]
    simulated: bool
    software: str


class Trusted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An administration whose packages are accepted. revoked_utc_ns : 0 while they are"""

    name: str
    signing: str
    since_utc_ns: int
    revoked_utc_ns: int = 0
    why: str = ""


class TrustList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who this administration is, and whose packages it accepts."""

    format: Literal["scanlane trust 1"] = "scanlane trust 1"
    me: str
    trusted: tuple[Trusted, ...] = ()


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package that was opened here."""

    package_id: str
    sender: str
    made_utc_ns: int
    scans: tuple[str, ...]
    opened_utc_ns: int


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All packages that were opened here, in their order."""

    format: Literal["scanlane accepted 1"] = "scanlane accepted 1"
    accepted: tuple[Accepted, ...] = ()


# --------------------------------------------------------------------------------------------------------------
# Packing


def pack(
    files: Mapping[str, bytes], identity: Identity, *, recipient: str, scans: tuple[str, ...], now_utc_ns: int,
    valid_days: float, simulated: bool, software: str,
) -> bytes:  # fmt: skip
    """Return a package of `files` by name, signed. Raises DataError for names or sizes that no package has."""
    if bad := [n for n in files if not NAME.match(n)]:
        raise DataError(
            f"file name {bad[0][:80]!r}: expected letters, digits and . _ -, beginning with a letter or digit"
        )
    if not files or len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_BYTES:
        raise DataError(f"{len(files)} files, {sum(map(len, files.values()))} bytes: a package has 1 to {MAX_FILES} "
                        f"files and {MAX_BYTES} bytes at most")  # fmt: skip
    header = Header(
        package_id=uuid.uuid4().hex, sender=identity.name, recipient=checked_name(recipient), made_utc_ns=now_utc_ns,
        until_utc_ns=now_utc_ns + int(valid_days * DAY_NS), scans=scans, simulated=simulated, software=software,
        files=tuple(
            Packed(name=n, size=len(d), sha256=hashlib.sha256(d).hexdigest()) for n, d in files.items()
        ),
    )  # fmt: skip
    text = msgspec.json.encode(header)
    signed = MAGIC + len(text).to_bytes(4, "big") + text
    return b"".join([signed, identity.sign(signed), *files.values()])


# --------------------------------------------------------------------------------------------------------------
# Verifying


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A package that was verified, with its files in memory."""

    header: Header
    files: dict[str, bytes]


def verify(data: bytes, trust: TrustList, now_utc_ns: int, ledger: Ledger | None = None) -> Opened:
    """Return what is in a package. Raises Refused with the reason, and never returns a part of it.

    ledger : what was opened here before; None: replays are not looked for
    """
    header, ends = _signed_header(data, trust)
    if header.recipient != trust.me:
        raise Refused(f"the package is for {header.recipient}, this is {trust.me}")
    if header.until_utc_ns < now_utc_ns:
        raise Refused(f"the package held until {header.until_utc_ns} (UTC ns); ask {header.sender} for another")
    if header.made_utc_ns > now_utc_ns + DAY_NS:
        raise Refused("the package was made more than a day in the future; look at both clocks")
    files = _files(data, header, ends)
    if ledger is not None:
        _not_replayed(header, ledger)
    return Opened(header=header, files=files)


def _signed_header(data: bytes, trust: TrustList) -> tuple[Header, int]:
    """Return the header and where the files begin, once its signature is that of a trusted sender."""
    at = len(MAGIC)
    if data[:at] != MAGIC:
        raise Refused(f"no package: begins with {data[:at]!r}, expected {MAGIC!r}")
    length = int.from_bytes(data[at : at + 4], "big")
    ends = at + 4 + length
    if length > MAX_HEADER_BYTES or ends + SIGNATURE_BYTES > len(data):
        raise Refused(f"its header is said to have {length} bytes, the file has {len(data)}: cut off or damaged")
    try:
        header = msgspec.json.decode(data[at + 4 : ends], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"its header cannot be read ({error})") from error
    known = [t for t in trust.trusted if t.name == header.sender]
    if not known:
        names = ", ".join(t.name for t in trust.trusted if not t.revoked_utc_ns) or "nobody"
        raise Refused(f"sender {header.sender[:70]!r} is not on the trust list; trusted are {names}")
    signature = data[ends : ends + SIGNATURE_BYTES]
    key = next((t for t in known if verified(t.signing, data[:ends], signature)), None)
    if key is None:
        raise Refused(f"the signature is not {header.sender}'s, or what it signs was changed")
    if key.revoked_utc_ns:
        raise Refused(f"the key of {header.sender} was revoked: {key.why or 'no reason told'}")
    return header, ends + SIGNATURE_BYTES


def _files(data: bytes, header: Header, at: int) -> dict[str, bytes]:
    """Return the files; names were signed, and are compared all the same: they become names on this disk."""
    names = [f.name for f in header.files]
    if len(set(names)) != len(names) or not all(NAME.match(n) for n in names) or len(names) > MAX_FILES:
        raise Refused("its files have names that no package has")
    told = at + sum(f.size for f in header.files)
    if any(f.size < 0 for f in header.files) or told != len(data):
        raise Refused(f"the file has {len(data)} bytes, its header tells of {told}: cut off, or something was added")
    found = {}
    for f in header.files:
        found[f.name] = data[at : at + f.size]
        at += f.size
        if hashlib.sha256(found[f.name]).hexdigest() != f.sha256:
            raise Refused(f"{f.name}: was changed; its bytes do not have the hash that was signed")
    return found


def _not_replayed(header: Header, ledger: Ledger) -> None:
    for old in ledger.accepted:
        if old.package_id == header.package_id:
            raise Refused(f"package {header.package_id[:12]} was opened here before, at {old.opened_utc_ns} (UTC ns)")
        same = sorted(set(old.scans) & set(header.scans))
        if old.sender == header.sender and same and header.made_utc_ns <= old.made_utc_ns:
            raise Refused(f"{same[0]}: a package made later was opened here before; this one is older news")


# --------------------------------------------------------------------------------------------------------------
# The receiver's files


def load_trust(path: Path) -> TrustList:
    """Read a trust list. Raises ConfigError."""
    found = _load(path, TrustList)
    if found is None:
        raise ConfigError([f"{path}: no trust list; make it with `scanlane exchange trust {path} --me NAME`"])
    return found


def trusting(trust: TrustList, key: PublicKey, now_utc_ns: int) -> TrustList:
    """Return a trust list with one more sender. Raises ConfigError if name or key was ever there: see `revoking`."""
    checked_name(key.name)
    for old in trust.trusted:
        if key.signing == old.signing or (key.name == old.name and not old.revoked_utc_ns):
            state = "revoked" if old.revoked_utc_ns else "trusted"
            raise ConfigError([f"{key.name}: {old.name} is {state} with this name or key; a key is given once"])
    new = Trusted(name=key.name, signing=key.signing, since_utc_ns=now_utc_ns)
    return msgspec.structs.replace(trust, trusted=(*trust.trusted, new))


def revoking(trust: TrustList, name: str, now_utc_ns: int, why: str) -> TrustList:
    """Return a trust list in which the key of a sender is revoked. Raises ConfigError if it has none."""
    if not any(t.name == name and not t.revoked_utc_ns for t in trust.trusted):
        raise ConfigError([f"{name[:70]!r} is not trusted here"])
    return msgspec.structs.replace(
        trust,
        trusted=tuple(
            msgspec.structs.replace(t, revoked_utc_ns=now_utc_ns, why=why) if t.name == name and not t.revoked_utc_ns
            else t for t in trust.trusted
        ),
    )  # fmt: skip


def save(path: Path, value: TrustList | Ledger) -> None:
    """Write a trust list or ledger durably, in place of the one before."""
    write_durable(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n", replace=True)


def load_ledger(path: Path) -> Ledger:
    """Read what was opened here; nothing yet where there is no file. Raises ConfigError for one that is no ledger."""
    return _load(path, Ledger) or Ledger()


def accept(path: Path, header: Header, now_utc_ns: int) -> None:
    """Write down that a package was opened. Raises Refused if it was meanwhile; nobody opens one twice at once."""
    with _alone(path.absolute().parent):
        ledger = load_ledger(path)
        _not_replayed(header, ledger)
        new = Accepted(
            package_id=header.package_id, sender=header.sender, made_utc_ns=header.made_utc_ns, scans=header.scans,
            opened_utc_ns=now_utc_ns,
        )  # fmt: skip
        save(path, msgspec.structs.replace(ledger, accepted=(*ledger.accepted, new)))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _load(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError([f"{path}: is no file of `scanlane exchange` ({error})"]) from error
