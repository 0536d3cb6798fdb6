"""Programs at the wire that mean harm, or have gone wild: what they get, and what it costs the others."""

import socket
import struct
import time
from contextlib import suppress

import msgspec
import pytest
import zmq

from scanner_io import wire
from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError
from scanner_io.model import Decision
from tests.service.test_dispatch import Service, until
from triage.service import dispatch, outbox
from triage.torture.site import Bare


@pytest.fixture
def service(tmp_path):
    running = Service(tmp_path, heartbeat_s=1.0, lease_s=5.0)
    yield running
    running.close()


def bare(service, name="eve", capacity=1):
    """A program of its own that has said hello."""
    one = Bare(service.address)
    one.hello(capacity=capacity, analyst=name)
    return one


def events(service, kind):
    return service.do(lambda o: o.store.rows("SELECT scan_id, who, text FROM events WHERE kind=?", (kind,)))


def test_nobody_tells_of_a_delivery_that_is_anothers(service):
    scan_id = service.put()
    with bare(service, "ana") as ana, bare(service, capacity=0) as eve:
        offer = ana.wait_for(wire.Offer)
        for message in (
            wire.Received(scan_id=scan_id, lease_id=offer.lease_id, sha256=offer.sha256),
            wire.Release(lease_id=offer.lease_id), wire.Fetch(scan_id=scan_id, lease_id=offer.lease_id),
            wire.Renew(lease_id=offer.lease_id), wire.QueueRequest(),
        ):  # fmt: skip
            eve.send(message)
        eve.wait_for(wire.Queue)
        assert {type(m) for m in eve.came} == {wire.Welcome, wire.Refused, wire.Revoked, wire.Queue}
    assert events(service, "delivered") == events(service, "fetched") == []


# -- nobody is there


def test_a_scan_goes_back_from_a_program_whose_person_does_nothing(tmp_path):
    service = Service(tmp_path, idle_s=1.0, lease_s=1.0, heartbeat_s=0.2)
    try:
        scan_id = service.put()
        with Workstation(service.address, "ana") as desk:
            offer = desk.next_offer(5)
            began_s = time.monotonic()
            while time.monotonic() < began_s + 2.0:
                desk.acted()  # looks at it for longer than that
                time.sleep(0.1)
            assert service.state(scan_id) == "leased"
            assert desk.lost(offer) == ""
            assert until(lambda: desk.lost(offer))  # renews it as before
            assert desk.lost(offer) == "nobody did anything at the workstation for 1 s"
            assert events(service, "released") == [(scan_id, "ana", desk.lost(offer))]
            # it is offered no other before somebody is there, and others get what waits
            assert desk.next_offer(1.0) is None
            assert service.state(scan_id) == "pending"
            desk.acted()
            assert desk.next_offer(5).scan_id == scan_id
    finally:
        service.close()


def test_programs_that_tell_nothing_of_their_person_have_so_long_from_the_offer(tmp_path):
    service = Service(tmp_path, idle_s=1.0, lease_s=1.0, heartbeat_s=0.5)
    try:
        service.put()
        with bare(service) as eve:
            offer = eve.wait_for(wire.Offer)
            for idle_s in (float("nan"), -1.0, float("-inf"), float("inf")):
                eve.send(wire.Here(idle_s=idle_s))
            for _ in range(20):
                eve.send(wire.Renew(lease_id=offer.lease_id))
                if isinstance(eve.hear(0.1), wire.Revoked):
                    break
            assert any(isinstance(m, wire.Revoked) and "nobody" in m.reason for m in eve.came)
    finally:
        service.close()


# -- hoarding


def test_one_analyst_cannot_take_the_whole_queue(service, monkeypatch):
    monkeypatch.setattr(dispatch, "MAX_CAPACITY", 3)
    scans = [service.put(n) for n in range(1, 8)]
    with bare(service, capacity=0) as first, bare(service, capacity=2**63) as second:
        assert until(lambda: len(service.do(lambda o: o.leases_of("eve"))) == 3)
        taken = set(service.do(lambda o: o.leases_of("eve")).values())
        other = next(s for s in scans if s not in taken)
        first.send(wire.Claim(scan_id=other))
        assert "has 3 scans" in first.wait_for(wire.Refused).reason
        first.send(wire.Claim(scan_id=min(taken)))  # what they have they may take up elsewhere
        assert first.wait_for(wire.Offer).scan_id == min(taken)
        second.send(wire.Bye())
        with Workstation(service.address, "ana") as ana:
            assert ana.next_offer(5) is not None


# -- memory


def test_who_answers_pings_that_it_has_not_read_gets_no_more_chunks(service, monkeypatch):
    monkeypatch.setattr(dispatch, "MAX_UNREAD", 4)
    scan_id = service.put(size=24 * wire.CHUNK_BYTES)
    with bare(service) as eve:
        offer = eve.wait_for(wire.Offer)
        for at in range(24):
            eve.send(
                wire.Fetch(scan_id=scan_id, lease_id=offer.lease_id, offset=at * wire.CHUNK_BYTES, credit=2**63 - 1)
            )
            for counter in (at, 2**62, 2**64 - 1):
                eve.send(wire.Pong(counter=counter))
        (connection,) = service.dispatch._connections.values()
        assert until(lambda: eve.socket.poll(0) and connection.unread)
        time.sleep(0.3)
        assert sum(connection.unread.values()) == 4
        while eve.hear(0.5) is not None:  # reads all of it, and answers the pings
            pass
        assert sum(isinstance(m, wire.Chunk) for m in eve.came) == 4
        assert until(lambda: not connection.unread)
        for _ in range(20):
            eve.send(wire.QueueRequest())
        assert until(lambda: len(connection.unread) == 4)
        while eve.hear(0.5) is not None:
            pass
        assert sum(isinstance(m, wire.Queue) for m in eve.came) == 4


class Plain:
    """A peer that speaks ZMTP by itself, without keys."""

    def __init__(self, address):
        self.socket = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 30)
        # signature, version 3.0, mechanism NULL, as a client; then READY with its socket's type
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        self._take(64)
        self.socket.sendall(bytes([4, len(ready)]) + ready)
        self._take(self._take(2)[1])  # its READY: nothing else may be sent before it

    def _take(self, count):
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data))
        return data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def until_cut(self, data, most):
        """Send `data` again and again; return whether the connection was ended before it was `most` times."""
        with suppress(OSError):
            for _ in range(most):
                self.socket.sendall(data)
                time.sleep(0.002)
            return False
        return True


@pytest.mark.parametrize("part", [b"\x03" + struct.pack(">Q", 60_000) + bytes(60_000), b"\x01\x00" * 10_000], ids=len)
def test_a_message_of_parts_without_an_end_is_cut_off(service, part):
    with Plain(service.address) as eve:
        assert eve.until_cut(part, 4000)
        assert until(lambda: any(event == "endless_message" for event, _ in service.log))
    with Workstation(service.address, "ana") as ana:
        assert ana.connected(10.0)


def test_who_sends_much_in_whole_messages_stays(service):
    service.put()
    with bare(service) as eve:
        eve.wait_for(wire.Offer)
        decision = Decision(
            decision_id="d", scan_id="none", sha256="0", analyst="eve", verdict="clear", decided_utc_ns=1,
            note="x" * 10_000,
        )  # fmt: skip
        for _ in range(300):
            eve.send(wire.Decide(decision=decision, statement=bytes(40_000)))
        for _ in range(300):
            assert "no scan" in eve.wait_for(wire.Refused, 20.0).reason
        eve.send(wire.QueueRequest())
        assert eve.wait_for(wire.Queue).counts["leased"] == 1
    assert not any(event == "endless_message" for event, _ in service.log)


def test_whole_messages_before_hello_are_answered_however_large(service):
    with Bare(service.address) as eve:
        for _ in range(20):
            eve.send(wire.Hello(analyst="x" * 60_000))
        for _ in range(20):
            assert "printable name" in eve.wait_for(wire.Refused).reason
        eve.hello(analyst="eve")


# -- floods by somebody who may


def test_a_flood_of_receipts_and_claims_fills_neither_audit_nor_log(service):
    scan_id = service.put()
    with bare(service, capacity=0) as eve:
        eve.send(wire.Claim(scan_id=scan_id))
        offer = eve.wait_for(wire.Offer)
        for _ in range(200):
            eve.send(wire.Received(scan_id=scan_id, lease_id=offer.lease_id, sha256=offer.sha256))
            eve.send(wire.Received(scan_id=scan_id, lease_id="x", sha256="0"))
            eve.send(wire.Claim(scan_id=scan_id))
        eve.send(wire.QueueRequest())
        eve.wait_for(wire.Queue, 20.0)
    assert len(events(service, "delivered")) == 1
    assert sum(event == "offered" for event, _ in service.log) == 1
    assert sum(event == "delivery_wrong" for event, _ in service.log) <= 21


def test_who_asks_for_the_queue_all_the_time_does_not_keep_others_waiting(service, monkeypatch):
    monkeypatch.setattr(dispatch, "VIEW_AGAIN_S", 1e9)
    for number in range(1, 30):
        service.put(number)
    made = []
    whole = service.dispatch.queue
    service.dispatch.queue = lambda: made.append(1) or whole()
    with bare(service, capacity=0) as eve, Workstation(service.address, "ana", capacity=0) as ana:
        for _ in range(3 * dispatch.VIEWS_AT_ONCE):
            service.do(lambda o: o.note("test", "the view would be another one"))
            eve.send(wire.QueueRequest())
            assert len(eve.wait_for(wire.Queue, 20.0).rows) == 29
        assert len(made) == dispatch.VIEWS_AT_ONCE
        assert len(ana.queue(20.0).rows) == 29  # made for it
        assert len(made) > dispatch.VIEWS_AT_ONCE


def test_decisions_that_decide_nothing_are_kept_a_number_of_times(service, monkeypatch):
    monkeypatch.setattr(outbox, "MAX_LATE", 3)
    scan_id = service.put()
    with bare(service, capacity=0) as eve:
        answers = []
        for number in range(6):
            decision = Decision(
                decision_id=f"late-{number}", scan_id=scan_id, sha256="0", analyst="eve", verdict="clear",
                decided_utc_ns=number, lease_id="none",
            )  # fmt: skip
            eve.send(wire.Decide(decision=decision))
            answers.append(eve.hear(5.0))
        assert [type(a) for a in answers] == [wire.Decided] * 3 + [wire.Refused] * 3
        assert not any(a.applied for a in answers[:3])
        assert "no more are kept" in answers[-1].reason
    assert service.state(scan_id) == "pending"


# -- values


@pytest.mark.parametrize("bad", ["a\0b", "x" * 40_000, "line\nfeed", "\x1b[2J", "\u202etxt"], ids=range(5))
def test_ids_that_can_be_none_are_refused_before_anything_is_asked_of_them(service, bad):
    scan_id = service.put()
    with bare(service) as eve:
        offer = eve.wait_for(wire.Offer)
        asked = []
        service.dispatch._outbox.item = lambda name: asked.append(name) or pytest.fail("asked")
        decision = Decision(
            decision_id="d", scan_id=bad, sha256="0", analyst="eve", verdict="clear", decided_utc_ns=1, lease_id="l"
        )
        for message in (
            wire.Fetch(scan_id=bad, lease_id=offer.lease_id), wire.Fetch(scan_id=scan_id, lease_id=bad),
            wire.Received(scan_id=scan_id, lease_id=offer.lease_id, sha256=bad), wire.Claim(scan_id=bad),
            wire.Renew(lease_id=bad), wire.Release(lease_id=bad), wire.Decide(decision=decision),
        ):  # fmt: skip
            eve.send(message)
            refused = eve.wait_for(wire.Refused)
            assert "printable characters" in refused.reason
            assert len(refused.reason) < 500
        assert asked == []


@pytest.mark.parametrize("extreme", [2**64 - 1, 2**63, -1, -(2**63)])
def test_numbers_at_the_ends_of_64_bits_end_nothing(service, extreme):
    scan_id = service.put()
    with bare(service) as eve:
        offer = eve.wait_for(wire.Offer)
        eve.send(wire.Fetch(scan_id=scan_id, lease_id=offer.lease_id, offset=extreme))
        assert "offset" in eve.wait_for(wire.Refused).reason
        decision = Decision(
            decision_id="d", scan_id=scan_id, sha256=offer.sha256, analyst="eve", verdict="clear",
            decided_utc_ns=extreme, lease_id=offer.lease_id, codes=(extreme,),
        )  # fmt: skip
        eve.send(wire.Decide(decision=decision))
        assert "nanoseconds since 1970" in eve.wait_for(wire.Refused).reason
        eve.send(wire.Ping(counter=extreme))
        eve.send(wire.Hello(analyst="eve", capacity=extreme, proto_min=-(2**63), proto_max=2**64 - 1))
        assert eve.wait_for(wire.Welcome).minor == wire.MINOR_MAX
        assert service.state(scan_id) == "leased"


def test_who_says_hello_under_another_name_keeps_the_connection_and_none_of_the_scans(service, monkeypatch):
    monkeypatch.setattr("triage.service.door.GREET_WITHIN_S", 0.5)
    scan_id = service.put()
    with bare(service) as eve:
        eve.wait_for(wire.Offer)
        eve.hello(capacity=0, analyst="mallory")
        assert until(lambda: service.state(scan_id) == "pending")
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            eve.send(wire.Ping(counter=1))
            eve.hear(0.1)
        eve.send(wire.QueueRequest())
        assert eve.wait_for(wire.Queue).counts["pending"] == 1


def test_messages_before_hello_and_after_goodbye_do_nothing(service):
    scan_id = service.put()
    with Bare(service.address) as eve:
        for message in (
            wire.Claim(scan_id=scan_id), wire.QueueRequest(), wire.Ping(counter=1), wire.Here(idle_s=0), wire.Bye(),
        ):  # fmt: skip
            eve.send(message)
            assert eve.wait_for(wire.Refused).about == "hello_first"
        eve.hello(analyst="eve")
        offer = eve.wait_for(wire.Offer)
        eve.send(wire.Bye())
        eve.send(wire.Fetch(scan_id=scan_id, lease_id=offer.lease_id))
        assert eve.wait_for(wire.Refused).about == "hello_first"
    assert until(lambda: service.state(scan_id) == "pending")


# -- a service that is no good


class Wild:
    """Something that answers as a service would, on terms of its own."""

    def __init__(self, **terms):
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self._welcome = wire.Welcome(**{"connection_id": "c", "minor": 0, "lease_s": 1, "heartbeat_s": 1, **terms})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self._context.term()

    def welcome(self):
        assert self.socket.poll(5000)
        routing_id = self.socket.recv_multipart()[0]
        self.socket.send_multipart([routing_id, *wire.encode(self._welcome)])


@pytest.mark.parametrize(
    "terms",
    [{"chunk_bytes": 0}, {"chunk_bytes": -1}, {"max_credit": 0}, {"heartbeat_s": 0.0}, {"lease_s": float("nan")},
     {"heartbeat_s": float("inf")}, {"chunk_bytes": 2**63}],
    ids=str,
)  # fmt: skip
def test_a_service_with_terms_that_cannot_be_kept_is_named(terms):
    with Wild(**terms) as wild, Workstation(wild.address, "ana") as desk:
        wild.welcome()
        with pytest.raises(DeliveryError, match="expected numbers above 0"):
            desk.connected(5.0)


def test_fields_of_later_versions_are_passed_over(service):
    scan_id = service.put()
    with Bare(service.address) as eve:
        later = msgspec.msgpack.encode(
            {"type": "hello", "analyst": "eve", "capacity": 1, "proto_max": 99, "colour": {"a": [1, None]}}
        )
        eve.socket.send_multipart([wire.PROTOCOL, later])
        assert eve.wait_for(wire.Welcome).minor == wire.MINOR_MAX
        assert eve.wait_for(wire.Offer).scan_id == scan_id
