"""Cargo messages from a folder and by HTTP: what comes is told, what is wrong is named, who is unknown is refused."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import struct
import threading
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drivers import cargo_feed
from drivers.cargo_feed import Config
from scanner_io import capture, security
from scanner_io.errors import ConfigError, LinkLost
from scanner_io.model import CargoReceived
from tests.contract import DriverContract, Rig
from tests.drivers.test_lane_events import free_port
from tests.scanner_io.test_cargo import MANIFEST

TOKEN = "a-token-of-more-than-16"
POUNDS = {"ID": "TGHU7599330", "GrossMassMeasure": {"value": 4000, "unitCode": "LBR"}}
JSON = json.dumps(
    {"Declaration": {"ID": "D1", "FunctionCode": "9", "SubmitterID": "AGENT", "TransportEquipment": [POUNDS]}}
)


class FeedRig(Rig):
    driver = "cargo_feed"
    expects = (CargoReceived,)

    def __init__(self, folder) -> None:
        self.folder = folder
        self.count = 0

    @property
    def config(self) -> Config:
        return Config(folder=str(self.folder), stable_s=0, poll_s=0.02)

    def play(self) -> None:
        self.count += 1
        (self.folder / f"manifest {self.count}.edi").write_text(MANIFEST)


class TestCargoFeed(DriverContract):
    driver = "cargo_feed"

    @pytest.fixture
    def rig(self, tmp_path):
        return FeedRig(tmp_path)


@contextlib.contextmanager
def opened(**config):
    source = cargo_feed.connect(Config(**config))
    source.open()
    try:
        yield source
    finally:
        source.close()


def tokens(tmp_path, mode=0o600):
    path = tmp_path / "tokens"
    path.write_text(f"# who may send\nAGENT {TOKEN}\n")
    path.chmod(mode)
    return str(path)


def next_of(source, limit_s=30.0):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        event = source.read(0.05)
        if event is not None:
            return event
    raise AssertionError("nothing came")


class Push(threading.Thread):
    """One request, in its own thread, because the driver answers while it is read."""

    def __init__(self, port, body, *, method="POST", headers=None, tls=None):
        super().__init__(daemon=True)
        self._ask = (port, body, method, {"Authorization": f"Bearer {TOKEN}"} if headers is None else headers, tls)
        self.status, self.told = 0, {}
        self.start()

    def run(self):
        port, body, method, headers, tls = self._ask
        kind = http.client.HTTPConnection if tls is None else http.client.HTTPSConnection
        peer = kind("127.0.0.1", port, timeout=30, **({} if tls is None else {"context": tls}))
        with contextlib.closing(peer):
            peer.request(method, "/cargo", body, headers)
            answer = peer.getresponse()
            self.status, self.told = answer.status, json.loads(answer.read())


def test_a_file_stays_until_it_is_stored_and_goes_to_done_then(tmp_path):
    with opened(folder=str(tmp_path), stable_s=0, poll_s=0.02, folder_sender="SHARE", simulated=True) as source:
        (tmp_path / "half.edi.part").write_text("UNB")
        (tmp_path / "a.edi").write_text(MANIFEST)
        told = next_of(source)
        assert told.sender == "SHARE" and told.simulated and told.messages[0].document == "MAN0001"
        assert (tmp_path / "a.edi").exists() and source.read(0.1) is None  # offered once
        source.acknowledge(told.source_ref)
        assert (tmp_path / "done" / "a.edi").exists() and not (tmp_path / "a.edi").exists()
        (tmp_path / "a.edi").write_text(MANIFEST)
        source.acknowledge(next_of(source).source_ref)
        assert (tmp_path / "done" / "a.1.edi").exists()


def test_what_its_sender_puts_in_the_place_of_a_file_before_it_is_stored_is_read_next(tmp_path):
    with opened(folder=str(tmp_path), stable_s=0, poll_s=0.02) as source:
        (tmp_path / "a.edi").write_text(MANIFEST)
        first = next_of(source)
        (tmp_path / "new").write_text(MANIFEST.replace("MAN0001", "MAN0002"))
        (tmp_path / "new").rename(tmp_path / "a.edi")
        source.acknowledge(first.source_ref)
        assert not (tmp_path / "done").exists()
        second = next_of(source)
        assert [t.messages[0].document for t in (first, second)] == ["MAN0001", "MAN0002"]
        source.acknowledge(second.source_ref)
        assert "MAN0002" in (tmp_path / "done" / "a.edi").read_text()


BAD = {
    "cut.edi": (MANIFEST[: MANIFEST.index("GID+1")], "cut off"),
    "charset.json": (b'{"Declaration": {"ID": "\xff\xfe"}}', "no JSON"),
    "empty.csv": (b"  ", "is empty"),
    "table.csv": (b"weight\n1\n", "no column `container`"),
    "parties.json": (
        json.dumps({"Declaration": {"ID": "P", "Party": [{"RoleCode": "CZ", "Name": "x" * 40}] * 130_000}}),
        "names 130000 parties",
    ),
    "large.csv": (b"container\n" + b"TGHU7599330\n" * 1_000_000, "larger than 10 MB"),
}


def test_what_cannot_be_read_is_named_and_lies_in_quarantine_with_its_reason(tmp_path):
    for name, (data, _) in BAD.items():
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    (tmp_path / "good.edi").write_text(MANIFEST)
    os.mkfifo(tmp_path / "pipe.edi")  # nobody waits for it
    seen = {}
    with opened(folder=str(tmp_path), stable_s=0, poll_s=0.02) as source:
        while len(seen) < len(BAD) + 1:
            told = next_of(source)
            seen[told.name] = told
            source.acknowledge(told.source_ref)
    for name, (_, words) in BAD.items():
        assert words in seen[name].problem and not seen[name].messages, name
        assert words in (tmp_path / "quarantine" / f"{name}.reason.txt").read_text()
    assert seen["good.edi"].messages and not seen["good.edi"].problem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("CSQU3054383", "CSQU3054384"), "check digit does not fit"),
        (("MEA+AAE+G+KGM:24500", "MEA+AAE+G+LBR:54000"), "no metric trade unit"),
        (("ACME LTD", "ACMÉ LTD"), "character set UNOA"),
    ],
)
def test_what_is_odd_is_taken_with_its_problem(tmp_path, change, words):
    (tmp_path / "a.edi").write_text(MANIFEST.replace(*change), encoding="utf-8")
    with opened(folder=str(tmp_path), stable_s=0, poll_s=0.02) as source:
        (message,) = next_of(source).messages
    assert any(words in p for p in message.problems)


def test_a_goods_code_of_a_past_edition_is_named(tmp_path):
    item = {"SequenceNumeric": 1, "ClassificationID": "690721", "ClassificationEdition": 2012}
    told = {"Declaration": {"ID": "D", "FunctionCode": "9",
                            "Consignment": [{"SequenceNumeric": 1, "ConsignmentItem": [item]}]}}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(told))
    with opened(folder=str(tmp_path), stable_s=0, poll_s=0.02) as source:
        (message,) = next_of(source).messages
    assert any("edition of 2012" in p for p in message.problems)


def test_a_push_is_answered_once_it_is_stored(tmp_path):
    port = free_port()
    with opened(port=port, tokens=tokens(tmp_path)) as source:
        push = Push(port, JSON)
        told = next_of(source)
        assert told.sender == "AGENT" and told.messages[0].document == "D1"
        assert source.read(0.2) is None and push.status == 0  # it waits
        source.acknowledge(told.source_ref)
        push.join(10)
        assert push.status == 202 and "no metric trade unit" in push.told["problems"][0]


@pytest.mark.parametrize(
    ("headers", "method", "status", "words"),
    [
        ({}, "POST", 401, "without a token"),
        ({"Authorization": "Bearer another-token-of-16"}, "POST", 401, "token that is not known"),
        ({"Authorization": f"Bearer {TOKEN}"}, "PUT", 405, None),
        ({"Authorization": f"Bearer {TOKEN}", "Content-Length": "99999999"}, "POST", 413, "at most 10 MB"),
    ],
)
def test_who_is_unknown_or_sends_too_much_is_refused_before_anything_is_read(tmp_path, headers, method, status, words):
    port = free_port()
    with opened(port=port, tokens=tokens(tmp_path)) as source:
        push = Push(port, JSON, headers=headers, method=method)
        told = next_of(source) if words else source.read(0.5)
        push.join(10)
        assert push.status == status
        if words:
            assert words in told.problem and not told.messages and TOKEN not in told.problem
            assert told.refused == (status == 401) and "another-token" not in told.problem


def test_whoever_is_refused_while_he_still_sends_reads_why(tmp_path):
    """Eight megabytes do not fit into a socket: a connection that is closed upon them is reset, the answer lost."""
    port = free_port()
    with opened(port=port, tokens=tokens(tmp_path)) as source:
        push = Push(port, b"x" * (8 << 20), headers={})
        assert next_of(source).refused
        while push.is_alive():
            source.read(0.05)
        assert push.status == 401 and "a token is needed" in push.told["problems"][0]


def test_what_is_not_stored_yet_is_pending(tmp_path):
    port = free_port()
    with opened(folder=str(tmp_path), stable_s=0.1, poll_s=0.02, port=port, tokens=tokens(tmp_path)) as source:
        assert source.pending, "nobody has looked into the folder yet"
        (tmp_path / "tokens").rename(tmp_path / ".tokens")
        source.read(0)
        assert not source.pending
        (tmp_path / "a.edi").write_text(MANIFEST)
        while not source.pending:  # the next listing sees it; it is not still yet
            assert source.read(0.03) is None
        told = next_of(source)
        assert source.pending, "handed out, and not stored"
        source.acknowledge(told.source_ref)
        assert source.read(0.1) is None and not source.pending
        push = Push(port, JSON)
        told = next_of(source)
        assert source.pending
        source.acknowledge(told.source_ref)
        push.join(10)
        assert push.status == 202 and not source.pending


def test_a_sender_that_the_message_names_must_be_known_too(tmp_path):
    port = free_port()
    with opened(port=port, tokens=tokens(tmp_path), senders=("CARRIER",)) as source:
        push = Push(port, JSON)
        told = next_of(source)
        push.join(10)
        assert push.status == 403 and told.refused and "'AGENT', which may not send" in told.problem
        broken = Push(port, "UNB+nothing")
        assert not next_of(source).refused
        broken.join(10)
        assert broken.status == 422 and "syntax identifier" in broken.told["problems"][0]


def test_two_requests_that_were_captured_are_two_files_when_they_are_played(tmp_path):
    folder, port = tmp_path / "played", free_port()
    folder.mkdir()
    with (
        capture.Capture(tmp_path / "kept", "cargo_feed", {}) as kept,
        opened(port=port, tokens=tokens(tmp_path)) as source,
    ):
        source.tap = kept.add
        first = []
        for body in (JSON, MANIFEST):
            push = Push(port, body)
            first.append(next_of(source))
            source.acknowledge(first[-1].source_ref)
            push.join(10)
    assert capture.play(tmp_path / "kept", str(folder), speed=0) == 2
    with opened(folder=str(folder), stable_s=0, poll_s=0.02) as source:
        second = []
        for _ in first:
            second.append(next_of(source))
            source.acknowledge(second[-1].source_ref)
    assert {t.sha256: t.messages for t in second} == {t.sha256: t.messages for t in first}


def test_whoever_is_not_stored_in_time_is_told_to_send_again(tmp_path):
    port = free_port()
    with opened(port=port, tokens=tokens(tmp_path), answer_s=0.2) as source:
        push = Push(port, JSON)
        told = next_of(source)
        while push.is_alive():
            assert source.read(0.05) is None
        assert push.status == 503
        source.acknowledge(told.source_ref)  # too late, and harmless


def test_many_silent_connections_do_not_keep_others_out(tmp_path):
    port = free_port()
    with opened(port=port, tokens=tokens(tmp_path), clients=2) as source, contextlib.ExitStack() as held:
        for _ in range(5):
            held.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"POST / HTTP/1.1\r\n")
            assert source.read(0.05) is None
        push = Push(port, JSON)
        source.acknowledge(next_of(source).source_ref)
        push.join(10)
        assert push.status == 202


def certificate(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return {"certificate": str(folder / "cert.pem"), "private_key": str(folder / "key.pem")}


def test_a_push_under_tls_and_one_that_speaks_none(tmp_path):
    port = free_port()
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pem = certificate(tmp_path)
    trust.load_verify_locations(pem["certificate"])
    trust.check_hostname = False
    with opened(port=port, tokens=tokens(tmp_path), **pem) as source:
        plain = socket.create_connection(("127.0.0.1", port))
        plain.sendall(b"POST / HTTP/1.1\r\n\r\n")
        large = {"Declaration": {"ID": "D2", "FunctionCode": "9", "BorderTransportMeansName": "x" * 200_000}}
        push = Push(port, json.dumps(large), tls=trust)
        told = next_of(source)
        source.acknowledge(told.source_ref)
        push.join(10)
        assert push.status == 202 and len(told.messages[0].transport) == 200_000
        plain.close()


@pytest.mark.parametrize("sent", [b"", b"x"], ids=["nothing", "a byte"])
def test_a_connection_that_is_reset_before_tls_begins_takes_nobody_else_down(tmp_path, sent):
    port = free_port()
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    pem = certificate(tmp_path)
    trust.load_verify_locations(pem["certificate"])
    trust.check_hostname = False
    with opened(port=port, tokens=tokens(tmp_path), **pem) as source:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stranger.sendall(sent)
        assert [source.read(0.05) for _ in range(4)] == [None] * 4
        push = Push(port, JSON, tls=trust)
        source.acknowledge(next_of(source).source_ref)
        push.join(10)
        assert push.status == 202


def test_what_a_configuration_must_have():
    for wrong, words in (
        ({}, "neither is given"),
        ({"port": 80}, "tokens: missing"),
        ({"port": 80, "tokens": "t", "host": "0.0.0.0"}, "expected TLS beyond loopback"),
        ({"port": 80, "tokens": "t", "certificate": "c"}, "both or neither"),
    ):
        with pytest.raises(ValueError, match=words):
            Config(**wrong)


def test_tokens_that_others_can_read_or_that_are_short_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="lets others read"), opened(port=free_port(), tokens=tokens(tmp_path, 0o644)):
        pass
    path = tmp_path / "short"
    path.write_text("AGENT short\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="line 1: expected NAME TOKEN"):
        security.tokens_in(path)
    path.write_text("\n# nobody\n")
    with pytest.raises(ConfigError, match="names nobody"):
        security.tokens_in(path)


def test_no_folder_and_a_port_that_is_taken(tmp_path):
    with pytest.raises(LinkLost, match="is no folder"), opened(folder=str(tmp_path / "none")):
        pass
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(LinkLost, match="another program"),
        opened(port=other.getsockname()[1], tokens=tokens(tmp_path)),
    ):
        pass


def test_messages_come_back_from_the_confined_reader_as_they_are(tmp_path):
    from scanner_io.formats.cargo_any import read_cargo

    (tmp_path / "a.json").write_text(JSON)
    with opened(folder=str(tmp_path), stable_s=0, poll_s=0.02) as source:
        told = next_of(source)
    assert told.messages == read_cargo(JSON.encode(), "a.json")
    assert msgspec.json.decode(msgspec.json.encode(told), type=CargoReceived) == told
