"""Risk profiles as they are kept: every version under the hash of its bytes, with who signed it.

    PROFILES/<sha256>.toml          the profile, byte for byte as it was signed
    PROFILES/<sha256>.signed.json   signatures, one per person

A profile is in force once two people have signed it with two different keys. A file that is edited has another hash,
and so no signature: nothing is changed in place.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from scanner_io.errors import ConfigError, StorageError
from scanner_io.security import ENROLLED, Identity, load_enrolled, verified
from scanner_io.storage import make_folder, write_durable
from triage.analysis import risk

SIGNERS = 2
_encoder = msgspec.msgpack.Encoder()


class SignedBy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One person's signature. signing : Ed25519 public key (hex); signature : of `statement` (hex)"""

    name: str
    signing: str
    utc_ns: int
    signature: str


class Signatures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All signatures of one profile, in the order of signing."""

    format: str = "scanlane risk signatures 1"
    sha256: str
    signed: tuple[SignedBy, ...] = ()


def statement(sha256: str, name: str, utc_ns: int) -> bytes:
    """Return the bytes that are signed."""
    return _encoder.encode(("scanlane risk profile 1", sha256, name, utc_ns))


def sign(file: Path, folder: Path, identity: Identity) -> Signatures:
    """Sign a profile and keep it; return all signatures it has now.

    Raises ConfigError for a profile with problems, or where this person or key has signed it before.
    """
    content = _content(file)
    profile = risk.parse(content, str(file))
    make_folder(folder)
    kept = folder / f"{profile.sha256}.toml"
    if not kept.exists():
        write_durable(kept, content)
    elif kept.read_bytes() != content:
        raise StorageError(f"{kept}: does not hold what its name says; look who changed it")
    old = signatures(folder, profile.sha256)
    for one in old.signed:
        if identity.name == one.name or identity.signing == one.signing:
            raise ConfigError([
                f"{file}: {one.name} has signed this profile; the second signature is another person's, by another key"
            ])  # fmt: skip
    now = time.time_ns()
    signature = identity.sign(statement(profile.sha256, identity.name, now)).hex()
    mine = SignedBy(name=identity.name, signing=identity.signing, utc_ns=now, signature=signature)
    new = msgspec.structs.replace(old, signed=(*old.signed, mine))
    data = msgspec.json.format(msgspec.json.encode(new), indent=1) + b"\n"
    write_durable(_signed_file(folder, profile.sha256), data, replace=True)
    return new


def signatures(folder: Path, sha256: str) -> Signatures:
    """Return the signatures of a profile that hold; none where there are none. Raises ConfigError for one that fails.

    That a key is its person's says the list of the enrolled: see `in_force`.
    """
    path = _signed_file(folder, sha256)
    if not path.exists():
        return Signatures(sha256=sha256)
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Signatures)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError([f"{path}: no file of `scanlane risk sign` ({error})"]) from error
    if found.sha256 != sha256:
        raise ConfigError([f"{path}: holds signatures of {found.sha256[:12]}"])
    for one in found.signed:
        try:
            signature = bytes.fromhex(one.signature)
        except ValueError:
            signature = b""
        if not verified(one.signing, statement(sha256, one.name, one.utc_ns), signature):
            raise ConfigError([f"{path}: the signature of {one.name} does not fit the profile"])
    return found


def in_force(signed: Signatures, enrolled: Mapping[str, str] | None = None, revoked: Iterable[str] = ()) -> list[str]:
    """Return what keeps a profile from being in force, in words; nothing where it is.

    enrolled : Ed25519 public key by name of those who may sign; None: names are taken as they are
    revoked : names whose right has ended
    """
    found = []
    gone = set(revoked)
    good = []
    for one in signed.signed:
        if enrolled is not None and enrolled.get(one.name) != one.signing:
            found.append(f"{one.name} is not enrolled with the key that signed")
        elif one.name in gone:
            found.append(f"{one.name} was revoked")
        else:
            good.append(one)
    people, keys = {g.name for g in good}, {g.signing for g in good}
    if min(len(people), len(keys)) < SIGNERS:
        found.append(f"signed by {', '.join(sorted(people)) or 'nobody'}; {SIGNERS} people with keys of their own must")
        return found
    return []


def enrolled_in(keys: Path | None) -> tuple[dict[str, str] | None, list[str]]:
    """Return the signing keys of those enrolled in a folder of keys by name, and the names of the revoked."""
    if keys is None:
        return None, []
    listed = load_enrolled(keys / ENROLLED).enrolled
    return {e.key.name: e.key.signing for e in listed}, [e.key.name for e in listed if e.revoked_utc_ns]


def load(named: str | Path, folder: Path | None = None) -> risk.RiskProfile:
    """Return a profile by the path of its file, or by the beginning of its hash in a folder. Raises ConfigError."""
    path = Path(named)
    if folder is not None and re.fullmatch(r"[0-9a-f]{8,64}", str(named)) and not path.exists():
        found = sorted(folder.glob(f"{named}*.toml"))
        if len(found) != 1:
            raise ConfigError([f"{folder}: {len(found) or 'no'} profiles whose hash begins with {named}"])
        path = found[0]
    content = _content(path)
    if re.fullmatch(r"[0-9a-f]{64}", path.stem) and hashlib.sha256(content).hexdigest() != path.stem:
        raise ConfigError([f"{path}: was edited, its bytes have another hash than its name; write a new profile"])
    return risk.parse(content, str(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); `scanlane risk example` prints one"]) from error


def _signed_file(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.signed.json"
