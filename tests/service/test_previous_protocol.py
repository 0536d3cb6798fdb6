"""Programs of the previous minor version with those of this one, both ways."""

import hashlib
import time

import msgspec
import pytest

from scanner_io import security, wire
from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError
from scanner_io.model import Opinion
from tests.scanner_io.previous_peer import MINOR_2, PREVIOUS, PROTOCOL, PreviousClient, PreviousService, header
from tests.service import test_dispatch, test_gate
from tests.service.test_dispatch import until


@pytest.fixture
def service(tmp_path):
    running = test_dispatch.Service(tmp_path, escalate_s=1.0)  # there are alarms, of which it does not know
    yield running
    running.close()


@pytest.fixture
def with_keys(tmp_path):
    running = test_gate.Service(tmp_path)
    yield running
    running.close()


def take(client, service, size):
    """Be a workstation of then up to the decision; return welcome and the decision."""
    client.send("hello", analyst="ana", capacity=1)
    welcome, _ = client.hear("welcome")
    assert welcome["minor"] == 0
    offer, _ = client.hear("offer")
    data = b""
    while len(data) < size:
        client.send("fetch", scan_id=offer["scan_id"], lease_id=offer["lease_id"], offset=len(data), credit=1)
        chunk, raw = client.hear("chunk")
        assert chunk["offset"] == len(data)
        assert chunk["last"] == (len(data) + len(raw) == size)
        data += raw
    sha256 = hashlib.sha256(data).hexdigest()
    assert sha256 == offer["sha256"]
    client.send("received", scan_id=offer["scan_id"], lease_id=offer["lease_id"], sha256=sha256)
    client.send("renew", lease_id=offer["lease_id"])
    decision = {
        **PREVIOUS["decide"][1]["decision"], "scan_id": offer["scan_id"], "sha256": sha256, "analyst": "ana",
        "lease_id": offer["lease_id"], "decided_utc_ns": time.time_ns(),
    }  # fmt: skip
    return welcome, decision


def test_the_previous_client_with_this_service(service):
    size = (1 << 20) + 17
    scan_id = service.put(size=size)
    with PreviousClient(service.address) as client:
        _, decision = take(client, service, size)
        for _ in range(2):  # repeated, as it does until it has heard
            client.send("decide", decision=decision)
            decided, _ = client.hear("decided")
            assert (decided["durable"], decided["applied"]) == (True, True)
        client.send("ping", counter=5)
        assert client.hear("pong")[0]["counter"] == 5
        client.send("queue_request")
        assert client.hear("queue")[0]["counts"]["decided"] == 1
        second = service.put(2)
        offer, _ = client.hear("offer")
        client.send("release", lease_id=offer["lease_id"])
        client.hear("revoked")
        offer, _ = client.hear("offer")  # nobody else is there
        client.send("claim", scan_id="none")
        assert "there is no scan" in client.hear("refused")[0]["reason"]
        assert until(lambda: client.pings or client.send("ping", counter=6) or client.hear("pong") is None)
        assert until(
            lambda: (
                any(event == "alarm" for event, _ in service.log) or client.send("renew", lease_id=offer["lease_id"])
            )
        )
        client.send("claim", scan_id="none")
        client.hear("refused")
        client.send("bye")
        assert until(lambda: service.state(second) == "pending")
    assert service.state(scan_id) == "decided"
    assert service.do(lambda o: o.counts())["delivered"] == 1


def test_the_previous_client_signs_for_this_service(with_keys):
    ana = with_keys.enrol("ana")
    scan_id = with_keys.put(size=100)
    with PreviousClient(with_keys.address, lambda socket: security.secure_client(socket, ana)) as client:
        welcome, decision = take(client, with_keys, 100)
        statement = header("statement", decision=decision, connection_id=welcome["connection_id"], sequence=1)
        client.send("decide_signed", statement=statement, signature=ana.sign(statement))
        assert client.hear("decided")[0]["applied"]
    assert with_keys.state(scan_id) == "decided"
    ((analyst, kept, _),) = with_keys.do(lambda o: o.signatures(scan_id))
    assert (analyst, kept) == ("ana", statement)


def test_this_client_with_the_previous_service():
    data = bytes(range(256)) * 10_000  # three chunks
    with PreviousService(data) as service, Workstation(service.address, "ana") as desk:
        offer = desk.next_offer(10)
        assert offer.result.outcome == "REVIEW"
        assert desk.fetch(offer) == data
        decided = desk.decide(offer, "inspect", note="look", codes=(2,))
        assert decided.durable
        assert decided.applied
        assert desk.queue().rows[0].state == "pending"
        assert desk.claim(offer.scan_id).lease_id == offer.lease_id
        for asked in (lambda: desk.peek(offer.scan_id), lambda: desk.opine(offer, "clear", "door end")):
            with pytest.raises(DeliveryError, match=r"speaks minor 0, 2 is needed: .*upgrade"):
                asked()
        desk.release(offer)
        assert until(lambda: service.named("release") and service.named("ping"))
    (hello, *_) = service.named("hello")
    assert hello["analyst"] == "ana"
    assert hello["proto_min"] == 0
    (decide,) = service.named("decide")
    assert decide["decision"]["verdict"] == "inspect"
    (received,) = service.named("received")
    assert received["sha256"] == hashlib.sha256(data).hexdigest()
    assert service.named("pong")[0]["counter"] == 7
    assert service.problems == []


def test_this_client_signs_for_the_previous_service():
    service_key = security.generate("service")
    ana = security.generate("ana", service_key.curve)

    def secure(socket):
        socket.curve_server = True
        socket.curve_secretkey = service_key.curve_secret.encode()

    with PreviousService(b"x" * 100, secure) as service, Workstation(service.address, identity=ana) as desk:
        offer = desk.next_offer(10)
        assert desk.decide(offer, "clear").applied
    (decide,) = service.named("decide")
    assert security.verified(ana.signing, decide["statement"], decide["signature"])
    told = msgspec.msgpack.decode(decide["statement"])
    assert told["connection_id"] == "c1"
    assert told["decision"].keys() >= PREVIOUS["statement"][1]["decision"].keys()
    assert service.problems == []


def opine_of_minor_2(offer):
    """Return the frames of an opinion as programs of minor version 2 send it: without a signature."""
    fields = msgspec.msgpack.decode(MINOR_2["opine"][0])
    told = {"scan_id": offer["scan_id"], "sha256": offer["sha256"], "analyst": "ana"}
    changed = {**fields, "lease_id": offer["lease_id"], "opinion": {**fields["opinion"], **told}}
    return [PROTOCOL, msgspec.msgpack.encode(changed)]


def hear(client, kind):
    """Return the next message of a kind, by its fields."""
    while client.socket.poll(10_000):
        fields = msgspec.msgpack.decode(client.socket.recv_multipart()[1])
        if fields["type"] == kind:
            return fields
    raise AssertionError(f"no {kind} came")


def taken_by_minor_2(client):
    hello = msgspec.msgpack.decode(MINOR_2["hello"][0])
    client.socket.send_multipart([PROTOCOL, msgspec.msgpack.encode({**hello, "capacity": 1})])
    assert hear(client, "welcome")["minor"] == 2
    offer = hear(client, "offer")
    client.socket.send_multipart(opine_of_minor_2(offer))
    return offer


def test_an_unsigned_opinion_of_the_version_before_is_taken_where_there_are_no_keys(service):
    scan_id = service.put()
    with PreviousClient(service.address) as client:
        taken_by_minor_2(client)
        assert hear(client, "opined")["opinion_id"] == "O1"
    (given,) = service.do(lambda o: o.opinions(scan_id))
    assert (given.opinion.note, given.signature) == ("r?!", b"")


def test_an_unsigned_opinion_of_the_version_before_is_refused_with_the_reason_where_there_are_keys(with_keys):
    ana = with_keys.enrol("ana")
    scan_id = with_keys.put()
    with PreviousClient(with_keys.address, lambda socket: security.secure_client(socket, ana)) as client:
        taken_by_minor_2(client)
        refused = hear(client, "refused")
        assert refused["about"] == "opine"
        assert refused["ref"] == "O1"  # its program knows which one
        assert "without a signature" in refused["reason"]
        assert "upgrade the program" in refused["reason"]
        assert with_keys.state(scan_id) == "leased"  # nothing is lost: it can be decided or given back
    assert with_keys.do(lambda o: o.opinions(scan_id)) == ()


def test_a_service_of_the_version_before_gets_the_opinion_as_it_knows_it():
    ana = security.generate("ana", "k" * 40)
    opinion = msgspec.convert(MINOR_2["opine"][1]["opinion"], Opinion)
    with Workstation("tcp://127.0.0.1:9", identity=ana) as desk:
        desk._welcome = wire.Welcome(connection_id="c", minor=2, lease_s=1.0, heartbeat_s=1e6)
        sent = desk._signed_opinion(opinion, "1f")
        assert sent == wire.Opine(lease_id="1f", opinion=opinion)
        desk._welcome = msgspec.structs.replace(desk._welcome, minor=3)
        sent = desk._signed_opinion(opinion, "1f")
    assert sent.opinion is None
    assert security.verified(ana.signing, sent.statement, sent.signature)
    then = msgspec.msgpack.decode(MINOR_2["opine"][0])
    now = msgspec.msgpack.decode(wire.encode(wire.Opine(lease_id="1f", opinion=opinion))[1])
    assert now == {**then, "statement": b"", "signature": b""}
