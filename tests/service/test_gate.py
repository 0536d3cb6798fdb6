import time

import msgspec
import pytest
import zmq

from scanner_io import security, wire
from scanner_io.client import Workstation
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.errors import ConfigError, DeliveryError
from scanner_io.model import Decision, Opinion
from tests.service.test_dispatch import Service as DispatchService
from tests.service.test_dispatch import until
from triage.service import gate as gates
from triage.service.dispatch import Dispatch
from triage.service.gate import Gate, SelfTest
from triage.service.outbox import Outbox


class Service(DispatchService):
    """A service with keys: the gate is answered in its loop, as the daemon's loop does."""

    def __init__(self, folder):
        self.keys = folder / "keys"
        if not self.keys.exists():
            security.create_service(self.keys)
        self.answering = True
        super().__init__(folder, lease_s=3.0)

    def _open(self, context, outbox):
        def note(kind, text, who=""):
            outbox.note(kind, text, who=who)

        self.gate = Gate(context, self.keys, self._hear, note)
        self.dispatch = Dispatch(context, self.config, outbox, self._hear, self.gate)
        return self.dispatch

    def _turn(self):
        if self.answering:
            self.gate.answer()

    def _close(self):
        self.gate.close()

    def enrol(self, name, role="analyst"):
        service = security.load_public(self.keys / security.SERVICE_PUBLIC)
        identity = security.generate(name, service.curve)
        security.enrol(self.keys, identity.public, role)
        return identity

    def events(self, kind):
        return self.do(lambda o: o.store.rows("SELECT who, text FROM events WHERE kind=?", (kind,)))


@pytest.fixture
def service(tmp_path):
    running = Service(tmp_path)
    yield running
    running.close()


class Raw:
    """A bare DEALER: what an attacker with a program of their own has."""

    def __init__(self, address, prepare=lambda socket: None):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        prepare(self.socket)
        self.socket.connect(address)

    def ask(self, message, wait_s=1.0):
        """Send; return the next answer that is no heartbeat, None if there is none in time."""
        self.socket.send_multipart(wire.encode(message))
        return self.hear(wait_s)

    def hear(self, wait_s=1.0):
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            if self.socket.poll(int(left * 1000) + 1):
                answer, _ = wire.decode_from_service(self.socket.recv_multipart())
                if isinstance(answer, wire.Ping):
                    self.socket.send_multipart(wire.encode(wire.Pong(counter=answer.counter)))
                elif not isinstance(answer, wire.Pong):
                    return answer
        return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close(linger=0)
        self.context.term()


def by(identity):
    return lambda socket: security.secure_client(socket, identity)


def test_an_enrolled_analyst_takes_fetches_and_signs(service):
    ana = service.enrol("ana")
    scan_id = service.put()
    with Workstation(service.address, identity=ana) as desk:
        offer = desk.next_offer(10)
        assert offer.scan_id == scan_id
        assert desk.fetch(offer) == b"\x01" * offer.size
        assert desk.decide(offer, "inspect", note="behind the pallets").applied
    ((analyst, statement, signature),) = service.do(lambda o: o.signatures(scan_id))
    assert analyst == "ana"
    assert security.verified(ana.signing, statement, signature)
    assert wire.decode_statement(statement).decision.verdict == "inspect"


def null(socket):
    """No security at all."""


def plain(socket):
    socket.plain_username, socket.plain_password = b"ana", b"secret"


@pytest.mark.parametrize("how", ["null", "plain", "unknown key", "wrong service key", "revoked before"])
def test_who_is_not_enrolled_hears_nothing(service, how):
    service.enrol("ben")
    service.put()
    real = security.load_public(service.keys / security.SERVICE_PUBLIC).curve
    if how in ("null", "plain"):
        prepare = {"null": null, "plain": plain}[how]
    elif how == "unknown key":
        prepare = by(security.generate("eve", real))
    elif how == "wrong service key":
        prepare = by(msgspec.structs.replace(service.enrol("ana"), service=security.generate("x").curve))
    else:
        prepare = by(service.enrol("ana"))
        security.revoke(service.keys, "ana")
        time.sleep(2 * gates.LOOK_AGAIN_S)
    with Raw(service.address, prepare) as peer:
        peer.socket.send_multipart(wire.encode(wire.Hello(analyst="ana")))
        assert peer.hear(1.0) is None
    assert not [e for e, _ in service.log if e in ("analyst_joined", "offered")]


def test_a_revoked_key_is_cut_within_a_second_and_its_scan_goes_on(service):
    ana, ben = service.enrol("ana"), service.enrol("ben")
    scan_id = service.put()
    with Workstation(service.address, identity=ana) as desk:
        offer = desk.next_offer(10)
        security.revoke(service.keys, "ana")
        began_s = time.monotonic()
        assert until(lambda: [e for e, f in service.log if e == "analyst_left" and f["text"] == "revoked"], 5)
        assert time.monotonic() - began_s < 1.0
        with pytest.raises(DeliveryError):
            desk.fetch(offer, timeout_s=1.0)
        with pytest.raises(DeliveryError):
            desk.decide(offer, "clear", timeout_s=1.5)
        with Workstation(service.address, identity=ben) as other:
            assert other.next_offer(10).scan_id == scan_id
    assert service.do(lambda o: o.decisions(scan_id)) == []
    assert ("ana", ana.curve) in service.events("revoked")


def test_an_unreadable_list_lets_nobody_in_and_cuts_everybody(service):
    ana = service.enrol("ana")
    path = service.keys / security.ENROLLED
    with Workstation(service.address, identity=ana) as desk:
        assert desk.connected(10)
        kept = path.read_bytes()
        path.write_bytes(b"{")
        assert until(lambda: [e for e, _ in service.log if e == "analyst_left"])
        with pytest.raises(DeliveryError):
            desk.queue(timeout_s=1.0)
        path.write_bytes(kept)
        assert until(lambda: desk.queue(timeout_s=5.0).counts == {"recorded": 0, "offered": 0, "delivered": 0}, 8)
    assert [e for e, _ in service.log if e == "enrolled_unreadable"]


def test_nobody_is_somebody_else(service):
    service.enrol("ben")
    with Raw(service.address, by(service.enrol("ana"))) as peer:
        answer = peer.ask(wire.Hello(analyst="ben"))
        assert isinstance(answer, wire.Refused)
        assert "its key is of 'ana'" in answer.reason
        assert isinstance(peer.ask(wire.Hello(analyst="")), wire.Welcome)
    assert service.events("not_allowed")[0][0] == "ana"


def test_a_peer_that_takes_anothers_routing_id_gets_nothing(service):
    ana, eve = service.enrol("ana"), service.enrol("eve")
    service.put()
    with Raw(service.address, by(ana)) as first:
        assert isinstance(first.ask(wire.Hello(analyst="")), wire.Welcome)
        offer = first.hear(5)

        def steal(socket):
            by(eve)(socket)
            socket.setsockopt(zmq.ROUTING_ID, b"analyst-1")

        with Raw(service.address, steal) as thief:
            assert thief.ask(wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id)) is None
        with Raw(service.address, by(eve)) as thief:
            assert isinstance(thief.ask(wire.Hello(analyst="", capacity=0)), wire.Welcome)
            answer = thief.ask(wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id))
            assert isinstance(answer, wire.Refused)
            assert "not leased to eve" in answer.reason


ROLE_MAY = [
    ("viewer", wire.QueueRequest(), True),
    ("viewer", wire.Claim(scan_id="S"), False),
    ("viewer", wire.Fetch(scan_id="S", lease_id="L"), False),
    ("viewer", wire.Renew(lease_id="L"), False),
    ("viewer", wire.Decide(statement=b"x", signature=b"y"), False),
    ("hub", wire.Claim(scan_id="s"), False),
]


@pytest.mark.parametrize(("role", "message", "allowed"), ROLE_MAY, ids=lambda v: getattr(v, "__class__", v).__name__)
def test_roles(service, role, message, allowed):
    with Raw(service.address, by(service.enrol("vic", role))) as peer:
        if role == "viewer":
            welcome = peer.ask(wire.Hello(analyst="", capacity=5))
            assert isinstance(welcome, wire.Welcome)
        service.put()
        answer = peer.ask(message)
        assert isinstance(answer, wire.Refused) is not allowed
        if not allowed:
            assert f"is {role}, who may not send" in answer.reason
            assert service.events("not_allowed")
    assert not [e for e, _ in service.log if e == "offered"]


def test_every_message_has_its_roles():
    from triage.service.dispatch import MAY

    assert set(wire.FromAnalyst.__args__) == set(MAY)


def test_what_is_held_takes_a_supervisor(service):
    scan_id = service.put()
    service.do(lambda o: o.release(o.lease(scan_id, "zoe", 5).lease_id, "too often", 1))
    assert service.do(lambda o: o.item(scan_id).state) == "held"
    with (
        Workstation(service.address, identity=service.enrol("ana"), capacity=0) as desk,
        pytest.raises(DeliveryError, match="a supervisor may take it"),
    ):
        desk.claim(scan_id)
    with Workstation(service.address, identity=service.enrol("sue", "supervisor"), capacity=0) as desk:
        assert desk.decide(desk.claim(scan_id), "inspect", note="x").applied


class Signed:
    """An analyst at a bare socket with a scan on lease, who can send any statement."""

    def __init__(self, service, peer, identity):
        self.peer, self.identity = peer, identity
        self.welcome = peer.ask(wire.Hello(analyst=""), 5)
        self.offer = peer.hear(1)  # none where the scan was given before

    def decide(self, sequence=1, *, connection=None, signer=None, service=None, **changes):
        decision = Decision(
            decision_id=changes.pop("decision_id", f"d{sequence}"), scan_id=self.offer.scan_id,
            sha256=self.offer.sha256, analyst="ana", verdict="clear", decided_utc_ns=1, lease_id=self.offer.lease_id,
        )  # fmt: skip
        statement = wire.encode_statement(
            wire.Statement(
                decision=msgspec.structs.replace(decision, **changes),
                connection_id=connection or self.welcome.connection_id, sequence=sequence,
                service=self.identity.service if service is None else service,
            )
        )  # fmt: skip
        return wire.Decide(statement=statement, signature=(signer or self.identity).sign(statement))


REFUSED = [
    ("unsigned", lambda s: wire.Decide(statement=s.decide().statement, signature=b"")),
    ("no statement", lambda s: wire.Decide()),
    ("another's signature", lambda s: s.decide(signer=security.generate("eve"))),
    ("changed after signing", lambda s: wire.Decide(
        statement=s.decide().statement.replace(b"clear", b"cleaR"), signature=s.decide().signature)),
    ("for another connection", lambda s: s.decide(connection="0" * 32)),
    ("for another service", lambda s: s.decide(service=security.generate("south").curve)),
    ("for whatever service takes it", lambda s: s.decide(service="")),
    ("in another's name", lambda s: s.decide(analyst="ben")),
]  # fmt: skip


@pytest.mark.parametrize(("how", "make"), REFUSED, ids=[h for h, _ in REFUSED])
def test_decisions_that_are_not_taken(service, how, make):
    ana = service.enrol("ana")
    scan_id = service.put()
    with Raw(service.address, by(ana)) as peer:
        signed = Signed(service, peer, ana)
        answer = peer.ask(make(signed))
        assert isinstance(answer, wire.Refused)
        assert service.do(lambda o: o.decisions(scan_id)) == []
        assert service.events("not_allowed")
        assert isinstance(peer.ask(signed.decide(9)), wire.Decided)


def test_an_unsigned_decision_counts_for_nothing_where_there_are_keys(service):
    ana = service.enrol("ana")
    scan_id = service.put()
    with Raw(service.address, by(ana)) as peer:
        signed = Signed(service, peer, ana)
        decision = wire.decode_statement(signed.decide().statement).decision
        assert isinstance(peer.ask(wire.Decide(decision=decision)), wire.Refused)
    assert service.do(lambda o: o.decisions(scan_id)) == []


def test_a_statement_counts_once_here_on_a_new_connection_and_after_a_restart(tmp_path):
    first = Service(tmp_path)
    try:
        ana = first.enrol("ana")
        scan_id = first.put(1)
        first.put(2)
        with Raw(first.address, by(ana)) as peer:
            signed = Signed(first, peer, ana)
            message = signed.decide(5)
            assert isinstance(peer.ask(message), wire.Decided)
            peer.hear(2)  # the next scan
            again = peer.ask(message)
            assert isinstance(again, wire.Refused)
            assert "comes again" in again.reason
            older = peer.ask(signed.decide(4, decision_id="other"))
            assert "comes again" in older.reason
        with Raw(first.address, by(ana)) as peer:
            Signed(first, peer, ana)
            assert "another connection" in peer.ask(message).reason
        assert len(first.do(lambda o: o.decisions(scan_id))) == 1
    finally:
        first.close()
    second = Service(tmp_path)
    try:
        with Raw(second.address, by(ana)) as peer:
            Signed(second, peer, ana)
            assert "another connection" in peer.ask(message).reason
        assert len(second.do(lambda o: o.decisions(scan_id))) == 1
        assert len(second.events("not_allowed")) == 4
    finally:
        second.close()


def test_the_self_test_sees_a_gate_that_does_not_ask(tmp_path, monkeypatch):
    """Without an enforced domain CURVE lets everybody in; the port is not opened then."""
    security.create_service(tmp_path / "keys")

    def careless(self, server):
        server.setsockopt(zmq.CURVE_SERVER, 1)
        server.setsockopt(zmq.CURVE_SECRETKEY, self.identity.curve_secret.encode())

    monkeypatch.setattr(Gate, "secure", careless)
    monkeypatch.setattr(gates, "TRY_WITHIN_S", 1.0)
    assert "may have been let in" in _opening(tmp_path)


def test_the_self_test_sees_a_gate_that_lets_nobody_in(tmp_path, monkeypatch):
    security.create_service(tmp_path / "keys")
    monkeypatch.setattr(Gate, "is_probe", lambda self, key: False)
    monkeypatch.setattr(gates, "TRY_WITHIN_S", 1.0)
    assert "a known key did not get in" in _opening(tmp_path)


def _opening(folder):
    outbox = Outbox(folder / "outbox.sqlite")
    context = zmq.Context()
    gate = Gate(context, folder / "keys", lambda event, **f: None, lambda kind, text, who="": None)
    try:
        with pytest.raises(DeliveryError, match="not opened") as caught:
            Dispatch(context, DispatchConfig(bind="tcp://127.0.0.1:0"), outbox, lambda event, **f: None, gate)
        return str(caught.value)
    finally:
        gate.close()
        context.term()
        outbox.close()


def test_a_gate_that_no_longer_answers_shuts_the_service_until_it_does(service, monkeypatch):
    monkeypatch.setattr("triage.service.dispatch.TRY_EVERY_S", 0.1)
    monkeypatch.setattr("triage.service.dispatch.TRY_AGAIN_S", 0.1)
    monkeypatch.setattr(gates, "TRY_WITHIN_S", 1.0)
    ana = service.enrol("ana")
    with Workstation(service.address, identity=ana) as desk:
        assert desk.connected(10)
        service.answering = False
        assert until(lambda: service.dispatch.shut)
        service.put()
        assert desk.next_offer(0.5) is None
        service.answering = True
        assert until(lambda: not service.dispatch.shut)
        assert desk.next_offer(10) is not None
    assert [e for e, _ in service.log if e in ("gate_unsound", "gate_sound")][:2] == ["gate_unsound", "gate_sound"]
    assert service.events("gate_unsound")
    assert service.events("gate_sound")


def test_the_self_test_ends_what_it_began(tmp_path):
    security.create_service(tmp_path / "keys")
    context = zmq.Context()
    gate = Gate(context, tmp_path / "keys", lambda event, **f: None, lambda kind, text, who="": None)
    test = SelfTest(gate)
    test.begin("tcp://127.0.0.1:9")
    test.end()
    test.end()
    assert not test.running
    assert gate.who("x") is None
    gate.close()
    context.term()


def test_a_key_that_does_not_name_its_service_is_a_clear_error():
    with pytest.raises(ConfigError, match="does not name the service's key"):
        Workstation("tcp://127.0.0.1:9", identity=security.generate("ana"))
    with pytest.raises(ConfigError, match="the key file is of 'ana'"):
        Workstation("tcp://127.0.0.1:9", "ben", identity=security.generate("ana"))


def opining(desk, offer, **changes):
    """Return the statement of an opinion on an offered scan, as this desk would sign it next."""
    opinion = Opinion(
        opinion_id="O1", scan_id=offer.scan_id, sha256=offer.sha256, analyst=desk.analyst, verdict="inspect",
        given_utc_ns=7, note="the door end",
    )  # fmt: skip
    values = {
        "opinion": opinion, "lease_id": offer.lease_id, "connection_id": desk._welcome.connection_id, "sequence": 9,
        "service": desk._identity.service,
    }  # fmt: skip
    return wire.OpinionStatement(**{**values, **changes})


def test_an_opinion_is_signed_kept_with_its_signature_and_told_with_it(service):
    ana, ben = service.enrol("ana"), service.enrol("ben")
    scan_id = service.put()
    with (
        Workstation(service.address, identity=ana, capacity=0) as first,
        Workstation(service.address, identity=ben, capacity=0) as second,
    ):
        offer = first.claim(scan_id)
        for _ in range(2):  # repeated, as after a lost answer: signed anew, and one opinion all the same
            assert first.opine(offer, "inspect", "the door end", opinion_id="O1", given_utc_ns=5).durable
        taken = second.claim(scan_id)
        assert [o.verdict for o in taken.opinions] == [None]
        assert taken.signed == ()  # what is withheld is not told by what proves it
        (proof,) = second.decide(taken, "clear").signed
    assert security.verified(ana.signing, proof.statement, proof.signature)
    told = wire.decode_opinion_statement(proof.statement)
    assert (told.opinion.note, told.lease_id, told.service) == ("the door end", offer.lease_id, ana.service)
    ((who, text),) = service.events("opinion")
    assert who == "ana"
    assert text.startswith("inspect signed sha256 ")
    assert "door" not in text


def test_opinions_that_are_not_signed_for_here_and_now_are_refused_and_audited(service):
    ana, eve = service.enrol("ana"), service.enrol("eve")
    scan_id = service.put()
    with Workstation(service.address, identity=ana, capacity=0) as desk:
        offer = desk.claim(scan_id)
        sound = opining(desk, offer)
        decision = Decision(
            decision_id="d", scan_id=scan_id, sha256=offer.sha256, analyst="ana", verdict="clear", decided_utc_ns=1,
            lease_id=offer.lease_id,
        )  # fmt: skip
        as_decision = wire.Statement(
            decision=decision, connection_id=sound.connection_id, sequence=9, service=ana.service
        )
        for statement, signer, why in (
            (sound, eve, "not of this analyst's key"),
            (opining(desk, offer, connection_id="another"), ana, "signed for another connection"),
            (opining(desk, offer, service="k" * 40), ana, "signed for another service"),
            (opining(desk, offer, sequence=0), ana, "comes again"),
            (opining(desk, offer, lease_id="another", sequence=3), ana, "not leased to ana by another"),
            (
                opining(desk, offer, opinion=msgspec.structs.replace(sound.opinion, analyst="eve"), sequence=4), ana,
                "signed eve, but",
            ),
        ):  # fmt: skip
            assert why in refusal(desk, wire.encode_statement(statement), signer), why
        pasted = wire.encode_statement(as_decision)  # its sender cannot be told which opinion it was
        desk._send(wire.Opine(statement=pasted, signature=ana.sign(pasted)))
        assert until(
            lambda: any("missing required field `opinion`" in text for _, text in service.events("not_allowed"))
        )
        assert "upgrade the program" in refusal(desk, b"", None, opinion=sound.opinion, lease_id=offer.lease_id)
        assert service.state(scan_id) == "leased"
        data = wire.encode_statement(sound)
        assert refusal(desk, data, ana) == ""
        assert service.state(scan_id) == "pending"
        assert "comes again" in refusal(desk, data, ana)
    assert len(service.events("not_allowed")) == 9
    assert len(service.do(lambda o: o.opinions(scan_id))) == 1


def refusal(desk, statement, signer, **plain):
    """Send an opinion over a desk's own connection; return why it is refused, empty if it is taken."""
    signature = b"" if signer is None else signer.sign(statement)
    message = wire.Opine(statement=statement, signature=signature, **plain)
    try:
        desk._ask("O1", "opine", lambda: message, 5)
    except DeliveryError as error:
        return str(error)
    return ""
