"""A release's signature: Ed25519 over the name, size and SHA-256 of a wheel, in `WHEEL.sig` beside it.

The key is one of `scanlane keys new`; its public half goes to the sites by a way on which nobody can exchange it, once.
No network is needed to verify.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from scanner_io import security
from scanner_io.errors import DataError
from scanner_io.storage import write_durable

SUFFIX = ".sig"


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands beside a signed file. signature : of `statement` of the other fields, hexadecimal"""

    format: Literal["scanlane signature 1"] = "scanlane signature 1"
    name: str
    size: int
    sha256: str
    signer: str
    signature: str


def sign(path: Path, identity: security.Identity) -> Path:
    """Sign a file; return where the signature stands. Raises DataError, StorageError."""
    size, sha256 = _measured(path)
    signed = Signature(
        name=path.name, size=size, sha256=sha256, signer=identity.name,
        signature=identity.sign(_statement(path.name, size, sha256, identity.name)).hex(),
    )  # fmt: skip
    place = path.with_name(path.name + SUFFIX)
    write_durable(place, msgspec.json.format(msgspec.json.encode(signed), indent=1) + b"\n", replace=True, mode=0o644)
    return place


def verify(path: Path, public: security.PublicKey) -> Signature:
    """Return the signature of a file if it is that of these very bytes by this key. Raises DataError saying why not."""
    place = path.with_name(path.name + SUFFIX)
    try:
        signed = msgspec.json.decode(place.read_bytes(), type=Signature)
        signature = bytes.fromhex(signed.signature)
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: no signature can be read ({error}); do not install {path.name}") from error
    size, sha256 = _measured(path)
    statement = _statement(signed.name, signed.size, signed.sha256, signed.signer)
    if not security.verified(public.signing, statement, signature):
        raise DataError(f"{place}: is not by the key of {public.name}, or was changed; do not install {path.name}")
    if (signed.name, signed.size, signed.sha256) != (path.name, size, sha256):
        raise DataError(
            f"{path}: {size} bytes with SHA-256 {sha256[:16]}…; signed was {signed.name}, {signed.size} bytes with "
            f"{signed.sha256[:16]}…: this is another file; do not install it"
        )
    return signed


def _statement(name: str, size: int, sha256: str, signer: str) -> bytes:
    return msgspec.json.encode(["scanlane signature 1", name, size, sha256, signer])


def _measured(path: Path) -> tuple[int, str]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), digest
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
