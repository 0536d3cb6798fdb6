import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from scanner_io import security
from scanner_io.errors import ConfigError, StorageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    security.create_service(tmp_path / "keys")
    return tmp_path / "keys"


def enrolled(folder, name="ana", role="analyst"):
    identity = security.generate(name, security.load_public(folder / security.SERVICE_PUBLIC).curve)
    security.enrol(folder, identity.public, role)
    return identity


def test_secrets_are_for_their_user_alone(folder, tmp_path):
    before = os.umask(0)
    try:
        path = tmp_path / "ana.key"
        security.save_identity(path, security.generate("ana"))
        security.save_public(tmp_path / "ana.key.pub", security.load_identity(path).public)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / security.SERVICE_KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    identity = security.load_identity(path)
    public = (tmp_path / "ana.key.pub").read_text()
    for secret in (identity.curve_secret, identity.signing_secret):
        assert secret not in repr(identity)
        assert secret not in public
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="lets others read this secret"):
        security.load_identity(path)


def test_a_key_file_is_never_overwritten(folder, tmp_path):
    path = tmp_path / "ana.key"
    security.save_identity(path, security.generate("ana"))
    was = path.read_bytes()
    with pytest.raises(StorageError, match="exists already"):
        security.save_identity(path, security.generate("ben"))
    with pytest.raises(StorageError, match="is there already"):
        security.create_service(folder)
    assert path.read_bytes() == was


def test_a_signature_is_of_exactly_these_bytes_by_exactly_this_key():
    ana, ben = security.generate("ana"), security.generate("ben")
    signature = ana.sign(b"inspect")
    assert security.verified(ana.signing, b"inspect", signature)
    assert not security.verified(ana.signing, b"Inspect", signature)
    assert not security.verified(ben.signing, b"inspect", signature)
    for i in range(64):
        changed = bytearray(signature)
        changed[i] ^= 1
        assert not security.verified(ana.signing, b"inspect", bytes(changed))
    for broken in (b"", signature[:-1], signature + b"\0"):
        assert not security.verified(ana.signing, b"inspect", broken)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\n", "-a", "a" * 65, "ä", "a\0"])
def test_names_that_are_none(name):
    with pytest.raises(ConfigError, match="expected 1 to 64"):
        security.generate(name)


def test_names_and_keys_are_given_once(folder):
    ana = enrolled(folder)
    security.revoke(folder, "ana")
    with pytest.raises(ConfigError, match="ana is revoked with the same name and CURVE key and signing key"):
        security.enrol(folder, ana.public, "analyst")
    with pytest.raises(ConfigError, match="with the same name"):
        security.enrol(folder, security.generate("ana").public, "analyst")
    other = msgspec.structs.replace(ana.public, name="ana2")
    with pytest.raises(ConfigError, match="with the same CURVE key and signing key"):
        security.enrol(folder, other, "supervisor")
    assert security.load_enrolled(folder / security.ENROLLED).in_force() == {}


def test_only_the_enrolled_can_be_revoked_and_once(folder):
    enrolled(folder)
    security.revoke(folder, "ana")
    with pytest.raises(ConfigError, match="was revoked before"):
        security.revoke(folder, "ana")
    with pytest.raises(ConfigError, match="is not enrolled; enrolled are: nobody"):
        security.revoke(folder, "eve")


def test_damaged_and_foreign_files_say_what_is_wrong_and_no_secret(folder, tmp_path):
    path = tmp_path / "ana.key"
    identity = security.generate("ana")
    security.save_identity(path, identity)
    data = path.read_bytes()
    other = security.generate("ben")
    for changed, told in (
        (data[:-20], "is no file of"),
        (data.replace(identity.curve.encode(), other.curve.encode()), "CURVE key do not belong together"),
        (data.replace(identity.signing.encode(), other.signing.encode()), "signing key do not belong together"),
        (data.replace(identity.curve.encode(), identity.curve[:-1].encode()), "39 characters"),
        (data.replace(b"scanlane key 1", b"scanlane key 2"), "is no file of"),
        (b"\xff\xfe", "is no file of"),
        (b"[" * 100_000, "is no file of"),
    ):
        path.write_bytes(changed)
        with pytest.raises(ConfigError, match=told) as caught:
            security.load_identity(path)
        assert identity.curve_secret not in str(caught.value)
        assert identity.signing_secret not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        security.load_identity(tmp_path / "none.key")
    with pytest.raises(ConfigError, match="is no file of"):
        security.load_public(folder / security.SERVICE_KEY)


def test_a_list_that_names_a_key_twice_lets_nobody_in(folder):
    enrolled(folder)
    listed = security.load_enrolled(folder / security.ENROLLED)
    one = listed.enrolled[0]
    twice = msgspec.structs.replace(one, key=msgspec.structs.replace(one.key, name="eve"))
    security.save_enrolled(folder / security.ENROLLED, security.EnrolledList(enrolled=(one, twice)))
    with pytest.raises(ConfigError, match=r"CURVE key .* is there twice"):
        security.load_enrolled(folder / security.ENROLLED)


@pytest.mark.parametrize("what", ["list", "folder"])
def test_a_list_that_others_could_write_lets_nobody_in(folder, what):
    path = folder / security.ENROLLED if what == "list" else folder
    path.chmod(path.stat().st_mode | 0o020)
    with pytest.raises(ConfigError, match="lets others say who may connect"):
        security.load_enrolled(folder / security.ENROLLED)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_of_another_user_are_not_trusted(folder):
    for name, load in ((security.ENROLLED, security.load_enrolled), (security.SERVICE_KEY, security.load_identity)):
        os.chown(folder / name, 12345, -1)
        with pytest.raises(ConfigError, match="belongs to user 12345"):
            load(folder / name)


def test_a_pipe_in_a_keys_place_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(ConfigError, match="is no file of"):
        security.load_identity(tmp_path / "key")


def test_memory_with_secrets_gets_into_no_core_and_no_other_program(folder):
    """In a process of its own: what is set cannot be taken back."""
    code = f"""
import resource
from pathlib import Path
from scanner_io import security
security.load_identity(Path({str(folder / security.SERVICE_KEY)!r}))
import ctypes
print(resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "0 0\n"
