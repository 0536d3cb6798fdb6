"""Connections as such: they are ended for real, their number is bounded, and others' descriptors are left alone."""

import os
import socket
import time

import pytest
import zmq

from scanner_io import security, wire
from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError
from tests.service import test_gate
from tests.service.test_dispatch import Service as PlainService
from tests.service.test_dispatch import until
from tests.service.test_gate import Raw, by
from triage.service import dispatch as dispatching
from triage.service import door as doors
from triage.service.door import Door, Peer
from triage.service.sparing import LONGEST, Sparing, one_line


@pytest.fixture
def service(tmp_path):
    running = test_gate.Service(tmp_path)
    yield running
    running.close()


@pytest.fixture
def plain_service(tmp_path):
    running = PlainService(tmp_path)
    yield running
    running.close()


def parts_of(address):
    host, port = address.removeprefix("tcp://").split(":")
    return host, int(port)


def ended(sock, timeout_s):
    """Tell whether the other side ends this connection in time."""
    sock.settimeout(timeout_s)
    try:
        while sock.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_chunks_in_the_queue_of_a_revoked_key_never_arrive(service):
    """Whoever takes slowly has chunks waiting for them: revocation must reach these too."""
    ana = service.enrol("ana")
    service.put(size=24 * wire.CHUNK_BYTES)

    def slow(sock):
        by(ana)(sock)
        sock.rcvhwm = 1
        sock.setsockopt(zmq.RCVBUF, 65536)

    with Raw(service.address, slow) as peer:
        assert isinstance(peer.ask(wire.Hello(analyst=""), 5), wire.Welcome)
        offer = peer.hear(5)
        peer.socket.send_multipart(
            wire.encode(wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id, credit=wire.MAX_CREDIT))
        )
        assert isinstance(peer.hear(5), wire.Chunk)  # the others are under way or wait
        security.revoke(service.keys, "ana")
        assert until(lambda: any(e == "analyst_left" and f["text"] == "revoked" for e, f in service.log), 2)
        time.sleep(0.5)
        came = 1
        while peer.socket.poll(500):
            came += len(peer.socket.recv_multipart()) == 3
        assert came < wire.MAX_CREDIT, "every chunk that was queued came after the revocation"


def test_who_never_says_hello_is_ended(plain_service, monkeypatch):
    monkeypatch.setattr(doors, "GREET_WITHIN_S", 0.5)
    with socket.create_connection(parts_of(plain_service.address)) as silent:
        assert ended(silent, 2), "libzmq itself would end it after 3 s"
    with Workstation(plain_service.address, "ana") as desk:
        assert desk.connected(5)
        time.sleep(1.0)
        assert desk.queue().counts["recorded"] == 0
        assert len([e for e, _ in plain_service.log if e == "analyst_joined"]) == 1, "it was ended and came again"


def test_a_flood_of_connections_leaves_room_for_colleagues(plain_service, monkeypatch):
    monkeypatch.setattr(doors, "MAX_UNKNOWN", 20)
    flood = [socket.create_connection(parts_of(plain_service.address)) for _ in range(100)]
    try:
        assert until(lambda: plain_service.dispatch.door.cut_off >= 80)
        with Workstation(plain_service.address, "ana") as desk:
            assert desk.connected(5)
        assert len([e for e, _ in plain_service.log if e == "connections_cut"]) <= 10
    finally:
        for one in flood:
            one.close()


def test_one_analyst_has_so_many_connections_and_the_newest_counts(service):
    ana = service.enrol("ana")
    peers = [Raw(service.address, by(ana)) for _ in range(dispatching.MAX_OF_ONE + 1)]
    try:
        for peer in peers:
            assert isinstance(peer.ask(wire.Hello(analyst="", capacity=0), 5), wire.Welcome)
        left = [f["text"] for e, f in service.log if e == "analyst_left"]
        assert left == [f"has more than {dispatching.MAX_OF_ONE} connections"]
        assert isinstance(peers[-1].ask(wire.QueueRequest(), 5), wire.Queue)
    finally:
        for peer in peers:
            peer.__exit__()


def test_a_key_that_connects_too_often_waits(service, monkeypatch):
    monkeypatch.setattr("triage.service.gate.HANDSHAKES", 3)
    monkeypatch.setattr("triage.service.gate.HANDSHAKE_AGAIN_S", 1000.0)
    ana, ben = service.enrol("ana"), service.enrol("ben")
    for allowed in (True, True, True, False):
        with Raw(service.address, by(ana)) as peer:
            assert isinstance(peer.ask(wire.Hello(analyst=""), 1.0), wire.Welcome) is allowed
    with Raw(service.address, by(ben)) as peer:
        assert isinstance(peer.ask(wire.Hello(analyst=""), 5), wire.Welcome)


def test_a_broken_connection_is_written_down(service):
    ana = service.enrol("ana")
    with Raw(service.address, by(ana)) as peer:
        assert isinstance(peer.ask(wire.Hello(analyst=""), 5), wire.Welcome)
        peer.socket.send_multipart([wire.PROTOCOL, b"x" * (wire.MAX_INBOUND_BYTES + 1)])
        assert until(lambda: service.events("connection_broken"))
    ((who, text),) = service.events("connection_broken")
    assert who == "ana"
    assert str(wire.MAX_INBOUND_BYTES) in text


def test_a_picture_that_was_asked_for_is_in_the_audit_though_its_receipt_never_comes(service):
    ana = service.enrol("ana")
    scan_id = service.put()
    with Raw(service.address, by(ana)) as peer:
        assert isinstance(peer.ask(wire.Hello(analyst=""), 5), wire.Welcome)
        offer = peer.hear(5)
        for _ in range(3):
            assert isinstance(
                peer.ask(wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id, credit=1)), wire.Chunk
            )
    query = "SELECT who, scan_id FROM events WHERE kind='fetched'"
    assert service.do(lambda o: o.store.rows(query)) == [("ana", scan_id)]


def test_nobody_hoards_the_queue(plain_service):
    with Workstation(plain_service.address, "ana", capacity=1 << 40) as desk:
        assert desk.connected(5)
        assert [c.capacity for c in plain_service.dispatch._connections.values()] == [dispatching.MAX_CAPACITY]


def test_a_flood_of_what_is_not_allowed_fills_neither_log_nor_audit_and_is_ended(service, monkeypatch):
    monkeypatch.setattr(dispatching, "MAX_REFUSALS", 300)
    monkeypatch.setattr(dispatching, "REFUSALS_TOLD", 10)
    with Raw(service.address, by(service.enrol("vic", "viewer"))) as peer:
        assert isinstance(peer.ask(wire.Hello(analyst=""), 5), wire.Welcome)
        for _ in range(400):
            peer.socket.send_multipart(wire.encode(wire.Claim(scan_id="x" * 5000)))
        assert until(lambda: any(f.get("text") == "refused 300 times" for _, f in service.log))
    told = [text for _, text in service.events("not_allowed")]
    assert 10 <= len(told) <= 13
    assert all(len(text) < LONGEST + 100 for text in told)


def test_a_message_that_cannot_be_read_says_so_shortly_and_in_one_line(plain_service):
    with Raw(plain_service.address) as peer:
        bad = b"\x81\xa4type\xda\x40\x00" + b"\x1b[31m\n" * 2730 + b"abcd"
        peer.socket.send_multipart([wire.PROTOCOL, bad])
        answer = peer.hear(5)
        assert isinstance(answer, wire.Refused)
        assert len(answer.reason) < LONGEST + 100
    texts = [f["text"] for e, f in plain_service.log if e == "refused"]
    assert texts
    assert all(text.isprintable() and len(text) < LONGEST + 100 for text in texts)


def test_a_descriptor_that_is_something_else_by_now_is_left_alone():
    ours, theirs = socket.socketpair()
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    door = Door(context, server, lambda *_, **__: None)
    try:
        real = os.fstat(ours.fileno()).st_ino
        door.cut(Peer(ours.fileno(), real + 1, "127.0.0.1", 0.0))
        theirs.send(b"still there")
        assert ours.recv(100) == b"still there"
        door.cut(Peer(ours.fileno(), real, "127.0.0.1", 0.0))
        with pytest.raises(OSError, match="Broken pipe"):
            theirs.send(b"gone")
    finally:
        door.close()
        server.close()
        context.term()
        ours.close()
        theirs.close()


def test_sparing_tells_at_once_then_now_and_then_and_loses_no_count():
    now = [0.0]
    sparing = Sparing(2, 10.0, monotonic=lambda: now[0])
    assert [sparing.ask() for _ in range(4)] == ["", "", None, None]
    now[0] = 10.0
    assert sparing.ask() == " (2 more since the last told, 5 in all)"
    assert sparing.ask() is None
    now[0] = 1000.0
    assert [sparing.ask() is None for _ in range(3)] == [False, False, True]


def test_what_others_wrote_is_one_printable_line():
    assert one_line("a\nb\x1b[31mc") == "a�b�[31mc"
    assert one_line("x" * 1_000_000).endswith("… (1000000 characters)")


def test_a_service_that_offers_more_than_a_recording_has_is_not_believed(plain_service):
    plain_service.put()
    with Workstation(plain_service.address, "ana") as desk:
        offer = desk.next_offer(5)
        for size in (0, -1, 1 << 62):
            huge = wire.Offer(**{f: getattr(offer, f) for f in offer.__struct_fields__} | {"size": size})
            with pytest.raises(DeliveryError, match="which no recording has"):
                desk.fetch(huge)
        assert desk.fetch(offer) == b"\x01" * 100
        first = desk.fetch(offer)
        assert first.readonly


def test_a_decision_too_large_for_the_wire_is_an_error_at_once(plain_service):
    plain_service.put()
    with Workstation(plain_service.address, "ana") as desk:
        offer = desk.next_offer(5)
        with pytest.raises(DeliveryError, match="at most"):
            desk.decide(offer, "clear", codes=tuple(range(100_000)))
        assert desk.decide(offer, "clear", note="\N{GREEK SMALL LETTER ALPHA}" * 10_000).applied


def test_nothing_is_sent_to_a_routing_id_whose_connection_has_ended(plain_service, monkeypatch):
    """It could be another's by then."""
    with Raw(plain_service.address) as peer:
        assert isinstance(peer.ask(wire.Hello(analyst="ana"), 5), wire.Welcome)
    assert until(lambda: [c for c in plain_service.dispatch._connections.values() if c.broken], 2)
    plain_service.put()
    time.sleep(0.2)
    assert not [e for e, _ in plain_service.log if e in ("offered", "offer_failed")]


def test_who_takes_nothing_has_a_bounded_share_of_memory(plain_service, monkeypatch):
    """Chunks go out as long as pings after them are answered; a queue is no storage."""
    monkeypatch.setattr(dispatching, "MAX_UNREAD", 4)
    plain_service.put(size=40 * wire.CHUNK_BYTES)
    with Raw(plain_service.address, lambda sock: setattr(sock, "rcvhwm", 1)) as peer:
        assert isinstance(peer.ask(wire.Hello(analyst="ana"), 5), wire.Welcome)
        offer = peer.hear(5)
        for _ in range(10):
            peer.socket.send_multipart(wire.encode(wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id)))
        time.sleep(0.3)
        (connection,) = plain_service.dispatch._connections.values()
        assert sum(connection.unread.values()) == 4
        for offset in range(4):
            assert peer.hear(5).offset == offset * wire.CHUNK_BYTES
        peer.hear(0.2)  # answers the ping
        more = wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id, offset=4 * wire.CHUNK_BYTES)
        assert peer.ask(more, 5).offset == 4 * wire.CHUNK_BYTES


def test_more_offers_than_a_queue_takes_put_nothing_on_hold(tmp_path, monkeypatch):
    """An offer that cannot be sent is no try: the scan would be held after enough of them."""
    plain_service = PlainService(tmp_path, max_attempts=3)
    sent = plain_service.dispatch._send

    def full(routing_id, message, raw=None):
        return not isinstance(message, wire.Offer) and sent(routing_id, message, raw)

    with Workstation(plain_service.address, "ana") as desk:
        assert desk.connected(5)
        monkeypatch.setattr(plain_service.dispatch, "_send", full)
        scan_id = plain_service.put()
        assert until(lambda: plain_service.do(lambda o: o.item(scan_id).attempts) > 5), (
            "it is tried again at every ping"
        )
        assert plain_service.do(lambda o: o.item(scan_id).attempts) < 12
        assert plain_service.state(scan_id) == "pending"
        monkeypatch.undo()
        assert desk.next_offer(5).scan_id == scan_id
    plain_service.close()
