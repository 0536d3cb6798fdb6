import hashlib
import random
import threading
import time

import msgspec
import pytest
import zmq

from scanner_io import wire
from scanner_io.client import Workstation
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.errors import ConfigError, DeliveryError
from tests import samples
from triage.service.dispatch import Dispatch
from triage.service.outbox import Outbox, ScanRow


class Service:
    """The wire's service side in a thread of its own, as the daemon's loop runs it."""

    def __init__(self, folder, *, bind="tcp://127.0.0.1:0", lease_s=2.0, heartbeat_s=0.2, **more):
        self.folder = folder
        self.config = DispatchConfig(bind=bind, lease_s=lease_s, heartbeat_s=heartbeat_s, **more)
        self.log = []
        self._work = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._up.wait(10)

    def _run(self):
        outbox = Outbox(self.folder / "outbox.sqlite")
        context = zmq.Context()
        dispatch = self._open(context, outbox)
        self.address = dispatch.address
        self._up.set()
        while not self._ending.is_set():
            with self._lock:
                work, self._work = self._work, []
            for call, done in work:
                done.append(call(outbox))
            if dispatch.socket.poll(20):
                dispatch.receive()
            self._turn()
            dispatch.tick()
        dispatch.close()
        self._close()
        context.term()
        outbox.close()

    def _open(self, context, outbox):
        self.dispatch = Dispatch(context, self.config, outbox, self._hear)
        return self.dispatch

    def _hear(self, event, **fields):
        self.log.append((event, fields))

    def _turn(self):
        """What else the loop does."""

    def _close(self):
        """What else ends with it."""

    def do(self, call):
        """Run `call(outbox)` in the service's thread and return what it returns."""
        done = []
        with self._lock:
            self._work.append((call, done))
        deadline = time.monotonic() + 5
        while not done and time.monotonic() < deadline:
            time.sleep(0.005)
        return done[0]

    def put(self, number=1, outcome="REVIEW", size=100, data=None):
        scan_id = f"north-20260131T0945{number:02d}.000000Z-0f3a9c1e"
        data = bytes([number]) * size if data is None else data
        path = self.folder / scan_id
        path.write_bytes(data)
        row = ScanRow(
            scan_id=scan_id, lane="north", path=str(path), sha256=hashlib.sha256(data).hexdigest(), size=len(data),
            start_utc_ns=number, simulated=True, result=samples.result(scan_id, outcome),
        )  # fmt: skip
        self.do(lambda outbox: outbox.add(row))
        return scan_id

    def state(self, scan_id):
        return self.do(lambda outbox: outbox.item(scan_id).state)

    def close(self):
        self._ending.set()
        self._thread.join(10)


@pytest.fixture
def service(tmp_path):
    running = Service(tmp_path)
    yield running
    running.close()


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_offer_fetch_decide(service):
    scan_id = service.put(size=3 * wire.CHUNK_BYTES + 17)
    with Workstation(service.address, "ana") as desk:
        offer = desk.next_offer(5)
        assert (offer.scan_id, offer.attempt, offer.simulated) == (scan_id, 1, True)
        data = desk.fetch(offer)
        assert data == b"\x01" * offer.size
        decided = desk.decide(offer, "inspect", note="look behind the pallets", codes=(2,))
        assert decided.durable
        assert decided.applied
    assert service.state(scan_id) == "decided"
    ((decision, applied),) = service.do(lambda o: o.decisions(scan_id))
    assert applied
    assert (decision.analyst, decision.verdict, decision.codes) == ("ana", "inspect", (2,))
    assert service.do(lambda o: o.counts())["delivered"] == 1


def test_each_scan_goes_to_exactly_one_analyst(service):
    got = {"ana": [], "ben": []}

    def work(name):
        with Workstation(service.address, name) as desk:
            while (offer := desk.next_offer(1.5)) is not None:
                got[name].append(offer.scan_id)
                desk.decide(offer, "clear")

    threads = [threading.Thread(target=work, args=(name,)) for name in got]
    for thread in threads:
        thread.start()
    put = [service.put(n) for n in range(1, 21)]
    for thread in threads:
        thread.join()
    assert sorted(got["ana"] + got["ben"]) == sorted(put)
    assert got["ana"]
    assert got["ben"]


def test_a_vanished_analysts_scan_goes_to_another(service):
    scan_id = service.put()
    lost = zmq.Context()
    sock = lost.socket(zmq.DEALER)
    sock.connect(service.address)
    sock.send_multipart(wire.encode(wire.Hello(analyst="lost")))
    assert until(lambda: service.state(scan_id) == "leased")
    sock.close(linger=0)
    lost.term()
    with Workstation(service.address, "ben") as desk:
        offer = desk.next_offer(5)
        assert (offer.scan_id, offer.attempt) == (scan_id, 2)


def test_thinking_longer_than_the_lease_keeps_it(service):
    scan_id = service.put()
    with Workstation(service.address, "ana") as desk, Workstation(service.address, "ben") as other:
        first = desk.next_offer(2) or other.next_offer(2)
        holder, idle = (desk, other) if first.lease_id in desk._open else (other, desk)
        assert idle.next_offer(3.5) is None  # longer than the lease
        assert holder.decide(first, "clear").applied
    assert service.state(scan_id) == "decided"


def test_a_frozen_analyst_loses_the_lease_and_the_late_decision_is_not_applied(tmp_path):
    service = Service(tmp_path, lease_s=1.0, heartbeat_s=5.0)
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    try:
        scan_id = service.put()
        sock.connect(service.address)
        sock.send_multipart(wire.encode(wire.Hello(analyst="frozen")))
        offer = receive(sock, wire.Offer)
        assert receive(sock, wire.Revoked).lease_id == offer.lease_id
        late = samples_decision(offer, "frozen")
        with Workstation(service.address, "ben", capacity=0) as desk:
            current = desk.claim(scan_id)
            sock.send_multipart(wire.encode(wire.Decide(decision=late)))
            answer = receive(sock, wire.Decided)
            assert (answer.durable, answer.applied) == (True, False)
            assert desk.decide(current, "inspect", note="x").applied
    finally:
        sock.close(linger=0)
        context.term()
        service.close()


def samples_decision(offer, analyst):
    from scanner_io.model import Decision

    return Decision(
        decision_id="late-1", scan_id=offer.scan_id, sha256=offer.sha256, analyst=analyst, verdict="clear",
        decided_utc_ns=1, lease_id=offer.lease_id,
    )  # fmt: skip


def receive(sock, kind, timeout_s=5.0):
    """Return the next message of `kind`; others are passed over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if sock.poll(50):
            message, _ = wire.decode_from_service(sock.recv_multipart())
            if isinstance(message, kind):
                return message
    raise AssertionError(f"no {kind.__name__} came")


def test_decisions_of_others_scans_are_refused(service):
    scan_id = service.put()
    with Workstation(service.address, "ana") as desk, Workstation(service.address, "eve", capacity=0) as eve:
        offer = desk.next_offer(5)
        with pytest.raises(DeliveryError, match="leased by ana"):
            eve.claim(scan_id)
        with pytest.raises(DeliveryError, match="not leased to eve"):
            eve.fetch(offer, timeout_s=5)
        assert not eve.decide(offer, "clear").applied
    assert service.state(scan_id) != "decided"


def test_the_same_analyst_may_decide_from_another_program(service):
    scan_id = service.put()
    with Workstation(service.address, "ana") as desk, Workstation(service.address, "ana", capacity=0) as second:
        offer = desk.next_offer(5)
        claimed = second.claim(scan_id)
        assert claimed.lease_id == offer.lease_id
        assert second.decide(claimed, "rescan", note="blurred").applied
        assert until(lambda: desk.revoked)
        assert desk.revoked.pop().scan_id == scan_id


def test_a_restart_of_the_service_loses_neither_lease_nor_decision(tmp_path):
    first = Service(tmp_path, lease_s=5.0)
    scan_id = first.put()
    with Workstation(first.address, "ana") as desk:
        offer = desk.next_offer(5)
        first.close()
        second = Service(tmp_path, bind=first.address, lease_s=5.0)
        try:
            assert desk.decide(offer, "inspect", note="x", timeout_s=15).applied
            assert second.state(scan_id) == "decided"
        finally:
            second.close()


def test_given_back_scans_are_offered_again(service):
    scan_id = service.put()
    with Workstation(service.address, "ana") as desk:
        desk.release(desk.next_offer(5))
        again = desk.next_offer(5)
        assert (again.scan_id, again.attempt) == (scan_id, 2)


def test_the_queue_shows_what_waits_and_who_has_it(service):
    service.put(1, "REVIEW")
    service.put(2, "ALARM")
    service.put(3, "CLEAR")
    with Workstation(service.address, "ana") as desk:
        desk.next_offer(5)
        queue = desk.queue()
    assert [(r.outcome, r.state, r.analyst) for r in queue.rows] == [
        ("ALARM", "leased", "ana"),
        ("REVIEW", "pending", ""),
    ]
    assert queue.counts["recorded"] == 3
    assert queue.counts["filed"] == 1


def test_a_recording_that_changed_on_disk_never_arrives_as_good(service):
    scan_id = service.put(size=5000)
    (service.folder / scan_id).write_bytes(b"\x02" * 5000)
    with Workstation(service.address, "ana") as desk:
        offer = desk.next_offer(5)
        with pytest.raises(DeliveryError, match="came wrong 3 times"):
            desk.fetch(offer, timeout_s=10)
    assert service.do(lambda o: o.counts())["delivered"] == 0


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"scanlane/1"],
        [b"scanlane/1", b""],
        [b"scanlane/1", b"\xff\xff"],
        [b"scanlane/2", b"\x80"],
        [b"scanlane/1", b"\x81\xa4type\xa5hello", b"raw"],
        [b"scanlane/1", b"\x91" * 100_000],
        [b"scanlane/1", wire.encode(wire.Ping(counter=1))[1][:-1] + b"\xa1x"],
        [b"x"] * 50,
    ],
)
def test_malformed_messages_are_refused_and_the_service_lives(service, frames):
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(service.address)
    try:
        sock.send_multipart(frames)
        if sum(map(len, frames)) < wire.MAX_INBOUND_BYTES:
            assert receive(sock, wire.Refused).about in ("message", "hello_first")
        scan_id = service.put()
        with Workstation(service.address, "ana") as desk:
            assert desk.next_offer(5).scan_id == scan_id
    finally:
        sock.close(linger=0)
        context.term()


def test_a_self_chosen_routing_id_is_not_served(service):
    service.put()
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.routing_id = b"ana"
    sock.connect(service.address)
    try:
        sock.send_multipart(wire.encode(wire.Hello(analyst="ana")))
        assert until(lambda: any(event == "refused" for event, _ in service.log))
        assert sock.poll(300) == 0
    finally:
        sock.close(linger=0)
        context.term()


@pytest.mark.parametrize("name", ["", "x" * 65, "new\nline", "\x1b[31mred"])
def test_names_that_could_mislead_are_refused(service, name):
    with Workstation(service.address, name) as desk, pytest.raises(DeliveryError, match="expected a printable name"):
        desk.connected(5.0)


def test_a_client_of_another_version_is_told(service):
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(service.address)
    try:
        sock.send_multipart(wire.encode(wire.Hello(analyst="ana", proto_min=7, proto_max=9)))
        assert "upgrade the older side" in receive(sock, wire.Refused).reason
    finally:
        sock.close(linger=0)
        context.term()


def test_an_address_in_use_is_named(service, tmp_path):
    context = zmq.Context()
    outbox = Outbox(tmp_path / "second.sqlite")
    try:
        with pytest.raises(DeliveryError, match="another scanlane"):
            Dispatch(context, DispatchConfig(bind=service.address), outbox, lambda *_, **__: None)
    finally:
        outbox.close()
        context.term()


def test_without_a_service_every_call_says_so():
    with Workstation("tcp://127.0.0.1:9", "ana") as desk:
        assert not desk.connected(0.3)
        assert desk.next_offer(0.1) is None
        with pytest.raises(DeliveryError, match="never answered"):
            desk.queue(timeout_s=0.5)


def test_a_lease_given_back_by_one_program_ends_in_the_other_too(service):
    scan_id = service.put()
    with Workstation(service.address, "ana") as desk, Workstation(service.address, "ana", capacity=0) as second:
        offer = desk.next_offer(5)
        second.release(second.claim(scan_id))
        assert until(lambda: desk.lost(offer))
        assert "given back" in desk.lost(offer)
        assert desk.next_offer(5) is not None  # and its place is free again


def test_a_lease_held_over_a_restart_counts_against_the_capacity(tmp_path):
    first = Service(tmp_path, lease_s=5.0)
    first.put(1)
    with Workstation(first.address, "ana") as desk:
        held = desk.next_offer(5)
        first.put(2)
        first.close()
        second = Service(tmp_path, bind=first.address, lease_s=5.0)
        try:
            assert until(lambda: desk.connected(0) and any(event == "analyst_joined" for event, _ in second.log))
            assert desk.next_offer(1.0) is None
            assert desk.decide(held, "clear").applied
            assert desk.next_offer(5) is not None
        finally:
            second.close()


def test_while_the_outbox_cannot_commit_nothing_is_offered_and_it_recovers(service):
    service.put(1)
    service.do(lambda o: o.store.rows("PRAGMA query_only=1"))
    with Workstation(service.address, "ana") as desk:
        assert desk.connected()
        assert until(lambda: any(event == "outbox_fault" for event, _ in service.log))
        assert desk.next_offer(0.5) is None
        assert [event for event, _ in service.log].count("outbox_fault") == 1
        service.do(lambda o: o.store.rows("PRAGMA query_only=0"))
        assert desk.next_offer(5) is not None
    assert any(event == "outbox_back" for event, _ in service.log)


def test_a_flood_of_junk_does_not_flood_the_log(service):
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.connect(service.address)
    try:
        for _ in range(500):
            sock.send_multipart([b"junk", b"junk"])
        assert until(lambda: service.dispatch._unreadable.count == 500)
    finally:
        sock.close(linger=0)
        context.term()
    assert len([1 for event, _ in service.log if event == "refused"]) <= 25


@pytest.mark.parametrize("address", ["foo", "tcp://127.0.0.1", "http://127.0.0.1:1", "", "tcp://127.0.0.1:1,tcp://b"])
def test_an_address_that_cannot_be_one_is_an_error_at_once(address):
    with pytest.raises(ConfigError, match="expected tcp://HOST:PORT"):
        Workstation(address, "ana")


def test_chunks_that_wait_for_a_slow_reader_keep_their_bytes(service):
    """The service reads every chunk into the same memory: what waits in a queue must be a copy of it."""
    data = random.Random(1).randbytes(wire.MAX_CREDIT * wire.CHUNK_BYTES)
    service.put(data=data)
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.rcvhwm = 1
    sock.connect(service.address)
    sock.send_multipart(wire.encode(wire.Hello(analyst="ana")))
    got = b""
    while len(got) < len(data):
        assert sock.poll(10_000)
        message, raw = wire.decode_from_service(sock.recv_multipart())
        if isinstance(message, wire.Ping):
            sock.send_multipart(wire.encode(wire.Pong(counter=message.counter)))
        elif isinstance(message, wire.Offer):
            fetch = wire.Fetch(scan_id=message.scan_id, lease_id=message.lease_id, credit=wire.MAX_CREDIT)
            sock.send_multipart(wire.encode(fetch))
            time.sleep(0.3)  # all of them are on their way
        elif isinstance(message, wire.Chunk):
            assert message.offset == len(got)
            got += raw
    assert got == data
    sock.close(linger=0)
    context.term()


def test_a_scan_is_fetched_ahead_without_being_taken(service):
    scan_id = service.put(size=2 * wire.CHUNK_BYTES + 5)
    waits_since = "SELECT waits_since_utc_ns, attempts, taken FROM outbox"
    before = service.do(lambda outbox: outbox.store.row(waits_since))
    with (
        Workstation(service.address, "ana", capacity=0) as desk,
        Workstation(service.address, "ben", capacity=0) as ben,
    ):
        offer = desk.peek(scan_id)
        assert (offer.scan_id, offer.lease_id, offer.lease_s) == (scan_id, "", 0.0)
        assert desk.fetch(offer) == b"\x01" * offer.size
        assert service.state(scan_id) == "pending"
        assert service.do(lambda outbox: outbox.store.row(waits_since)) == before, "nobody has it by that"
        events = service.do(lambda outbox: outbox.store.rows("SELECT kind, who FROM events WHERE scan_id<>''"))
        assert [(k, w) for k, w in events if k != "recorded"] == [("fetched_ahead", "ana")]
        taken = desk.claim(scan_id)
        assert taken.sha256 == offer.sha256
        desk.has(taken)
        assert until(lambda: service.do(lambda outbox: outbox.counts()["delivered"]) == 1)
        assert service.do(lambda outbox: outbox.store.row("SELECT taken FROM outbox"))[0] == 1
        with pytest.raises(DeliveryError, match="leased by ana"):
            ben.peek(scan_id)
        with pytest.raises(DeliveryError, match="there is no scan"):
            ben.peek("none")
        with pytest.raises(DeliveryError, match="not leased to ben"):
            ben.fetch(offer, 5)


def test_an_opinion_goes_to_whoever_takes_the_scan_next_blind_until_they_have_decided(service):
    scan_id = service.put()
    with Workstation(service.address, "ana", capacity=0) as ana, Workstation(service.address, "ben", capacity=0) as ben:
        offer = ana.claim(scan_id)
        for _ in range(2):  # repeated, as after a lost answer
            opined = ana.opine(offer, "inspect", "the door end", opinion_id="O1", given_utc_ns=5)
            assert (opined.opinion_id, opined.durable) == ("O1", True)
        assert service.state(scan_id) == "pending"
        (row,) = ben.queue().rows
        assert row.opinions == 1
        taken = ben.claim(scan_id)
        (told,) = taken.opinions
        assert (told.analyst, told.verdict, told.note) == ("ana", None, "")
        decided = ben.decide(taken, "clear")
        assert decided.applied
        assert [(o.verdict, o.note) for o in decided.opinions] == [("inspect", "the door end")]
    kinds = [k for (k,) in service.do(lambda outbox: outbox.store.rows("SELECT kind FROM events ORDER BY seq"))]
    assert kinds.count("opinion") == 1


def test_opinions_on_what_is_not_ones_own_are_refused(service):
    scan_id = service.put()
    with Workstation(service.address, "ana", capacity=0) as ana, Workstation(service.address, "ben", capacity=0) as ben:
        offer = ana.claim(scan_id)
        with pytest.raises(DeliveryError, match="not leased to ben"):
            ben.opine(offer, "clear", "mine", timeout_s=5)
        other = msgspec.structs.replace(offer, sha256="00")
        with pytest.raises(DeliveryError, match="of a recording with hash 00"):
            ana.opine(other, "clear", "another picture", timeout_s=5)
        ana.opine(offer, "inspect", "open to all", blind=False)
        (told,) = ben.claim(scan_id).opinions
        assert (told.verdict, told.note) == ("inspect", "open to all")


def test_a_queue_view_is_made_again_only_when_something_has_happened(service, monkeypatch):
    made = []
    queue = service.dispatch.queue
    monkeypatch.setattr(service.dispatch, "queue", lambda after="": made.append(after) or queue(after))
    with Workstation(service.address, "ana") as desk:
        service.put(1)
        offer = desk.next_offer(5)
        assert offer is not None and until(lambda: desk.queue().counts.get("leased") == 1)
        time.sleep(0.5)
        desk.queue()
        before = len(made)
        for _ in range(4):
            assert desk.queue().counts["recorded"] == 1
            time.sleep(0.2)
        assert len(made) == before
        service.put(2)
        assert until(lambda: desk.queue().counts["recorded"] == 2)
