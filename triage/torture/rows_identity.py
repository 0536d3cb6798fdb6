"""S1 to S3: who is let in, whose messages are whose, and which decisions count."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import zmq

from scanner_io import security, wire
from scanner_io.client import Workstation
from scanner_io.config import Dispatch as DispatchConfig
from scanner_io.errors import DeliveryError
from scanner_io.model import Decision
from scanner_io.security import ENROLLED, Identity
from triage.service.dispatch import Dispatch
from triage.service.gate import Gate
from triage.service.outbox import Outbox

from . import bed
from .outcome import Outcome, judged, say
from .site import Bare, Site, site

LISTEN_S = 1.5
"""What is let in is answered within milliseconds."""
FORBIDDEN = (wire.Welcome, wire.Offer, wire.Chunk, wire.Decided, wire.Queue)
REVOKED_WITHIN_S = 1.0


def s1_matrix(folder: Path, full: bool) -> Outcome:
    """CURVE: whoever is not enrolled hears nothing; whoever is revoked hears nothing any more after a second."""
    heard: dict[str, int] = {}
    with site(folder, [os.urandom(24 * wire.CHUNK_BYTES)] * 2) as s:
        ana = s.enrol("ana")
        ben = s.enrol("ben")
        security.revoke(s.keys, "ben")
        time.sleep(REVOKED_WITHIN_S)
        heard["control: enrolled"] = _heard(s, ana)
        strangers: dict[str, tuple[Identity | None, dict[str, bytes]]] = {
            "unknown key": (s.identity("eve"), {}), "no security": (None, {}),
            "PLAIN": (None, {"plain_username": b"ana", "plain_password": b"ana"}),
            "wrong service key": (msgspec.structs.replace(ana, service=security.generate("x").curve), {}),
            "revoked before": (ben, {}),
        }  # fmt: skip
        with ThreadPoolExecutor(len(strangers)) as at_once:
            answers = {name: at_once.submit(_heard, s, who, **how) for name, (who, how) in strangers.items()}
        heard |= {name: answer.result() for name, answer in answers.items()}
        live = [_revoked_live(s, s.enrol(f"cut{number}"), f"cut{number}") for number in range(10 if full else 3)]
        heard["the list cannot be read"] = _without_list(s, ana)
        heard["control: enrolled, in the end"] = _heard(s, ana)
        heard["the daemon's loop stands"] = _loop_stands(s, ana)
    heard["nobody answers for keys"] = _nobody_answers(folder / "dead")
    figure = {
        "frames_to_strangers": sum(v for k, v in heard.items() if not k.startswith("control")),
        "strangers": len(heard) - 2, "frames_to_enrolled": min(v for k, v in heard.items() if k.startswith("control")),
        "revoked_live": len(live), "revoked_last_frame_s": round(max(late_s for late_s, _ in live), 3),
        "frames_before": min(count for _, count in live),
    }  # fmt: skip
    bar = {
        "frames_to_strangers": "== 0", "frames_to_enrolled": "> 0", "revoked_last_frame_s": "<= 1",
        "frames_before": "> 0",
    }  # fmt: skip
    let_in = [k for k, v in heard.items() if v and not k.startswith("control")]
    return judged(figure, bar, "; ".join([
        "`nobody answers for keys` is Dispatch and Gate in this process, whose loop does not serve the gate; the rest "
        "is the daemon", *let_in,
    ]))  # fmt: skip


def _heard(s: Site, identity: Identity | None, **options: Any) -> int:
    """Return how many messages of any worth a program gets that tries everything."""
    with Bare(s.address, identity, **options) as peer:
        return _try_everything(peer)


def _try_everything(peer: Bare) -> int:
    decision = Decision(
        decision_id=uuid.uuid4().hex, scan_id="x", sha256="0" * 64, analyst="ana", verdict="clear", decided_utc_ns=1
    )
    for message in (
        wire.Hello(analyst=""), wire.QueueRequest(), wire.Claim(scan_id="x"), wire.Fetch(scan_id="x", lease_id="x"),
        wire.Decide(decision=decision),
    ):  # fmt: skip
        peer.send(message)
    deadline = time.monotonic() + LISTEN_S
    while time.monotonic() < deadline and not any(isinstance(m, FORBIDDEN) for m in peer.came):
        peer.hear(deadline - time.monotonic())
    return sum(isinstance(m, FORBIDDEN) for m in peer.came)


def _revoked_live(s: Site, identity: Identity, name: str) -> tuple[float, int]:
    """Take chunks without an end; return how long after the revocation the last frame came, and how many before it."""
    with Bare(s.address, identity) as peer:
        peer.hello()
        offer: wire.Offer = peer.wait_for(wire.Offer)
        ask = wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id, credit=4)
        revoked_s, last_s, before = 0.0, 0.0, 0
        began_s = time.monotonic()
        peer.send(ask)
        while not revoked_s or time.monotonic() - revoked_s < 2 * REVOKED_WITHIN_S:
            if peer.hear(0.1) is not None:
                last_s = time.monotonic()
                before += not revoked_s
            peer.send(ask)
            if not revoked_s and time.monotonic() - began_s > 0.5:
                security.revoke(s.keys, name)
                revoked_s = time.monotonic()
        return max(0.0, last_s - revoked_s), before


def _without_list(s: Site, identity: Identity) -> int:
    path = s.keys / ENROLLED
    path.rename(path.with_suffix(".away"))
    try:
        bed.wait_until(lambda: s.named("enrolled_unreadable"), 5, "that the list is gone is noticed")
        return _heard(s, identity)
    finally:
        path.with_suffix(".away").rename(path)
        time.sleep(REVOKED_WITHIN_S)


def _loop_stands(s: Site, identity: Identity) -> int:
    """Stop the daemon's process: no key is let in, whoever it is, while nobody answers."""
    os.kill(s.pid, 19)
    try:
        return _heard(s, identity)
    finally:
        os.kill(s.pid, 18)


def _nobody_answers(folder: Path) -> int:
    """Serve messages, but not the questions of libzmq about keys; return what an enrolled analyst then hears."""
    folder.mkdir()
    security.create_service(folder / "keys")
    service = security.load_public(folder / "keys" / security.SERVICE_PUBLIC)
    identity = security.generate("ana", service.curve)
    security.enrol(folder / "keys", identity.public, "analyst")
    outbox = Outbox(folder / "outbox.sqlite")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gate = Gate(context, folder / "keys", _unheard, _unheard)
    dispatch = Dispatch(context, DispatchConfig(bind="tcp://127.0.0.1:0"), outbox, _unheard, gate)
    try:
        with Bare(dispatch.address, identity) as peer:
            peer.send(wire.Hello(analyst=""))
            deadline = time.monotonic() + LISTEN_S
            while time.monotonic() < deadline:
                dispatch.receive()
                peer.hear(0.02)
            return sum(isinstance(m, FORBIDDEN) for m in peer.came)
    finally:
        dispatch.close()
        gate.close()
        context.term()
        outbox.close()


def _unheard(*_: object, **__: object) -> None:
    """Hear what happens."""


# --------------------------------------------------------------------------------------------------------------
# S2


def s2_routing_ids(folder: Path, full: bool) -> Outcome:
    """Two authorised keys, one of which takes the other's routing id, over and over; nothing goes astray."""
    rounds = 1000 if full else 100
    size = 256 << 10
    with site(folder, [os.urandom(size)] * 4) as s:
        ana, eve = s.enrol("ana"), s.enrol("eve")
        stray, misses = 0, 0
        with Workstation(s.address, identity=ana) as desk:
            offer = desk.next_offer(10)
            if offer is None:
                raise DeliveryError("S2: the first analyst got no scan")
            for number in range(rounds):
                say(f"S2: {number} of {rounds}", every_s=5.0)
                got: list[int] = []
                thread = threading.Thread(target=lambda got=got: got.append(len(desk.fetch(offer, 30))))
                thread.start()
                stray += _spoof(s, eve, offer, number)
                thread.join()
                misses += got != [size]
        refused = len(s.named("refused")) + len(s.named("not_allowed"))
    figure = {
        "rounds": rounds, "misdelivered": stray, "own_fetches_not_whole": misses, "refusals_logged": refused
    }  # fmt: skip
    bar = {"misdelivered": "== 0", "own_fetches_not_whole": "== 0", "refusals_logged": "> 0"}
    return judged(figure, bar, "an id that libzmq made is random in its first value: here it is guessed, not known")


def _spoof(s: Site, eve: Identity, offer: wire.Offer, number: int) -> int:
    """Be another one with the same id as the first analyst, or one that could be; return how much of theirs came."""
    taken = (b"ana", bytes(1) + number.to_bytes(4, "big"), b"north", os.urandom(5))[number % 4]
    with Bare(s.address, eve, routing_id=taken) as peer:
        for message in (
            wire.Hello(analyst="", capacity=0), wire.Fetch(scan_id=offer.scan_id, lease_id=offer.lease_id),
            wire.Renew(lease_id=offer.lease_id), wire.Claim(scan_id=offer.scan_id),
        ):  # fmt: skip
            peer.send(message)
        deadline = time.monotonic() + 0.06
        while time.monotonic() < deadline:
            peer.hear(deadline - time.monotonic())
        return sum(
            isinstance(m, wire.Chunk | wire.Offer | wire.Decided) and m.scan_id == offer.scan_id for m in peer.came
        )


# --------------------------------------------------------------------------------------------------------------
# S3


class _Signer:
    """An analyst at a bare socket with a scan on lease, who can make any statement."""

    def __init__(self, s: Site, identity: Identity, *, wants: str = "") -> None:
        self.peer = Bare(s.address, identity)
        self.identity = identity
        self.connection_id = self.peer.hello(capacity=0).connection_id
        self.offer: wire.Offer | None = None
        if wants:
            self.peer.send(wire.Claim(scan_id=wants))
            self.offer = self.peer.wait_for(wire.Offer)

    def decide(
        self, offer: wire.Offer, sequence: int, *, signer: Identity | None = None, connection_id: str = "",
        service: str | None = None, **changes: Any,
    ) -> wire.Decide:  # fmt: skip
        values: dict[str, Any] = {
            "decision_id": uuid.uuid4().hex, "scan_id": offer.scan_id, "sha256": offer.sha256, "analyst": "ana",
            "verdict": "clear", "decided_utc_ns": 1, "lease_id": offer.lease_id,
        }  # fmt: skip
        statement = wire.encode_statement(
            wire.Statement(
                decision=Decision(**(values | changes)), connection_id=connection_id or self.connection_id,
                sequence=sequence, service=self.identity.service if service is None else service,
            )
        )  # fmt: skip
        return wire.Decide(statement=statement, signature=(signer or self.identity).sign(statement))

    def answer(self, message: wire.Decide) -> str:
        """Return `applied`, `kept` (written down, but the scan stays where it is) or `refused`."""
        self.peer.came.clear()
        self.peer.send(message)
        answer = self.peer.wait_for((wire.Decided, wire.Refused), 10)  # type: ignore[arg-type]
        if isinstance(answer, wire.Refused):
            return "refused"
        return "applied" if answer.applied else "kept"


def s3_replay(folder: Path, full: bool) -> Outcome:
    """Decisions sent again, pasted onto other scans, by other leases, roles and keys: none counts, all are audited."""
    answers: dict[str, str] = {}
    with site(folder, [os.urandom(1000 + n) for n in range(4)]) as s:
        ana, ben, vic, eve = s.enrol("ana"), s.enrol("ben"), s.enrol("vic", "viewer"), s.identity("eve")
        ids = [row[0] for row in s.rows("SELECT scan_id FROM scans ORDER BY scan_id")]
        first = _Signer(s, ana, wants=ids[0])
        other = _Signer(s, ben, wants=ids[1])
        assert first.offer is not None and other.offer is not None
        offer, theirs = first.offer, other.offer
        good = first.decide(offer, 10)
        pasted = msgspec.structs.replace(
            good, statement=good.statement.replace(ids[0].encode(), ids[1].encode())
        )  # fmt: skip
        tries: dict[str, Callable[[], wire.Decide]] = {
            "unsigned": lambda: msgspec.structs.replace(good, signature=b""),
            "no statement": wire.Decide,
            "a key that is not enrolled": lambda: first.decide(offer, 1, signer=eve),
            "a colleague's key": lambda: first.decide(offer, 1, signer=ben),
            "in a colleague's name": lambda: first.decide(offer, 2, analyst="ben"),
            "for another connection": lambda: first.decide(offer, 3, connection_id=other.connection_id),
            "for another service": lambda: first.decide(offer, 3, service=eve.curve),
            "for whatever service takes it": lambda: first.decide(offer, 3, service=""),
            "pasted onto another scan": lambda: pasted,
            "signed for another's scan and lease": lambda: first.decide(theirs, 4),
            "another scan by this lease": lambda: first.decide(offer, 5, scan_id=ids[1], sha256=theirs.sha256),
            "this scan by another lease": lambda: first.decide(offer, 6, lease_id=theirs.lease_id),
            "no lease": lambda: first.decide(offer, 7, lease_id=""),
            "another recording's hash": lambda: first.decide(offer, 8, sha256=theirs.sha256),
        }
        answers |= {name: first.answer(make()) for name, make in tries.items()}
        answers["a viewer"] = _Signer(s, vic).answer(first.decide(offer, 9, signer=vic, analyst="vic"))
        control = first.answer(good)
        answers["the same, on the same connection"] = first.answer(good)
        answers["an older number"] = first.answer(first.decide(offer, 9, verdict="inspect"))
        again = _Signer(s, ana)
        answers["the same, on a new connection"] = again.answer(good)
        again.peer.close()
        for signer in (first, other):
            signer.peer.close()
        s.kill()
        s.start()
        again = _Signer(s, ana)
        answers["the same, after a restart"] = again.answer(good)
        again.peer.close()
        applied = s.rows("SELECT scan_id FROM decisions WHERE applied")
        audited = len(s.audited("not_allowed")) + len(s.audited("decision_not_applied"))
        states = dict(s.rows("SELECT scan_id, state FROM outbox"))
    counted = [name for name, answer in answers.items() if answer == "applied"]
    figure = {
        "tried": len(answers), "refused": sum(a == "refused" for a in answers.values()),
        "kept_without_effect": sum(a == "kept" for a in answers.values()), "counted": len(counted),
        "audited": audited, "genuine_one_applied": control == "applied",
        "decisions_in_force": [i for (i,) in applied] == [ids[0]],
        "scans_decided": [i for i, state in states.items() if state == "decided"] == [ids[0]],
    }  # fmt: skip
    bar = {
        "counted": "== 0", "audited": f"== {len(answers)}", "genuine_one_applied": "== 1",
        "decisions_in_force": "== 1", "scans_decided": "== 1",
    }  # fmt: skip
    return judged(figure, bar, "; ".join([
        "kept: signed by the right analyst for a lease that is not theirs; written down, marked, and without effect",
        *counted,
    ]))  # fmt: skip
