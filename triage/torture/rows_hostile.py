"""S4 to S8: floods of connections, mutated messages, too large ones, and who listens on the cable."""

from __future__ import annotations

import importlib
import os
import random
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import zmq

from scanner_io import security, wire
from scanner_io.client import Workstation
from scanner_io.errors import DeliveryError, ProtocolError, ScannerError
from scanner_io.model import Decision, Opinion
from triage.service.dispatch import MAX_REFUSALS

from . import bed
from .line import Line
from .outcome import Outcome, cannot_run, judged, percentile, say
from .site import Bare, Site, site

ASK_EVERY_S = 0.02
DAEMONS_FILES = 1024


def s4_flood(folder: Path, full: bool) -> Outcome:
    """Garbage, silence, half handshakes and a trickle at the port, whose daemon has 1,024 descriptors."""
    many, some = (10_000, 1_000) if full else (2_000, 300)
    room = resource.getrlimit(resource.RLIMIT_NOFILE)
    with site(folder, [os.urandom(1000)], max_files=DAEMONS_FILES) as s:
        ana = s.enrol("ana")
        with Workstation(s.address, identity=ana, capacity=0) as desk, _raised_files(room):
            desk.connected(10.0)
            calm = _latencies(desk, 2.0, lambda: None)
            rss_mb = s.rss_mb()
            done = threading.Event()
            flood = threading.Thread(target=_flood, args=(("127.0.0.1", s.port), many, some, done))
            flood.start()
            hit = _latencies(desk, 300.0, done.is_set)
            flood.join()
            grown_mb = s.rss_mb() - rss_mb
            with Bare(s.address, ana) as other:
                other.hello()  # a colleague gets in at once when it is over
            after = _latencies(desk, 1.0, lambda: None)
        alive = s.alive and not s.errors
        cut = s.named("connections_cut")
    figure = {
        "garbage": many, "silent": some, "half_handshakes": some, "trickles": 50, "daemons_descriptors": DAEMONS_FILES,
        "asked": len(hit), "p99_ms": _ms(percentile(hit, 0.99)), "max_ms": _ms(percentile(hit, 1.0)),
        "calm_p99_ms": _ms(percentile(calm, 0.99)), "after_max_ms": _ms(percentile(after, 1.0)),
        "rss_grown_mb": round(grown_mb, 1), "alive": alive, "connections_cut_told": len(cut),
    }  # fmt: skip
    bar = {
        "p99_ms": "< 1000", "after_max_ms": "< 1000", "rss_grown_mb": "<= 20", "alive": "== 1",
        "connections_cut_told": "> 0",
    }  # fmt: skip
    return judged(figure, bar)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 1)


@contextmanager
def _raised_files(before: tuple[int, int]) -> Iterator[None]:
    """Have enough descriptors for an attacker of this process."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 8192) if before[1] > 0 else 8192, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _latencies(desk: Workstation, longest_s: float, over: Callable[[], bool | None]) -> list[float]:
    """Ask for the queue over and over; return the seconds that each answer took, in their order of length."""
    found = []
    until_s = time.monotonic() + longest_s
    while time.monotonic() < until_s and not over():
        since = time.perf_counter()
        with suppress(DeliveryError):  # none within 10 s: it counts with these
            desk.queue(timeout_s=10.0)
        found.append(time.perf_counter() - since)
        time.sleep(ASK_EVERY_S)
    return sorted(found)


def _flood(at: tuple[str, int], many: int, some: int, done: threading.Event) -> None:
    chance = random.Random(4)  # noqa: S311 -- garbage
    held: list[socket.socket] = []
    try:
        for number in range(some):
            for half in (False, True):
                with suppress(OSError):  # cut while it was made
                    one = socket.create_connection(at, 5)
                    held.append(one)
                    one.sendall(_half_handshake(chance) if half else b"")
            if number % 100 == 99:
                _trickle(held[-50:])
        for number in range(many):
            with suppress(OSError), socket.create_connection(at, 5) as one:
                one.sendall(chance.randbytes(200))
            if number % 500 == 499:
                _trickle(held[-50:])
        for _ in range(5):
            _trickle(held[-50:])
            time.sleep(1.0)
    finally:
        for one in held:
            one.close()
        done.set()


def _trickle(held: list[socket.socket]) -> None:
    for one in held:
        with suppress(OSError):  # cut, which is what should be
            one.sendall(b"\x00")


def _half_handshake(chance: random.Random) -> bytes:
    """Return a greeting of ZMTP 3.1 that asks for CURVE, and the beginning of a HELLO.

    Source: RFC 37 (ZMTP 3.1), RFC 26 (CurveZMQ).
    """
    greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
    return greeting + b"\x04\xc8" + b"\x05HELLO\x01\x00" + chance.randbytes(60)


# --------------------------------------------------------------------------------------------------------------
# S5

LOT = 50
FUZZ_SEED = 5
LAST = (1 << 62) + 5

SPECIAL: tuple[bytes, ...] = (
    b"\x91" * 60_000, b"\x81\xa1a" * 20_000,  # deep
    b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff",  # 4 GiB
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6), b"\xcb\x7f\xf0" + bytes(6),  # int, NaN
    b"\xa4\xff\xfe\xc3\x28", b"\xd9\xff" + b"\xed\xa0\x80" * 85,  # no UTF-8
    b"\xc1", b"", b"\xc7\xff\x05", b"\xd6\xff" + bytes(4),  # never used, empty, extensions
)  # fmt: skip


def s5_mutated(folder: Path, full: bool) -> Outcome:
    """An enrolled analyst's program sends what no program should; the daemon lives and nothing has changed."""
    count = 1_000_000 if full else 20_000
    with site(folder, [os.urandom(1000 + n) for n in range(3)]) as s:
        ana = s.enrol("ana")
        before = _lasting(s)
        sent, answers, connections = _fuzz(s, ana, count, seed=FUZZ_SEED)
        with Workstation(s.address, identity=s.enrol("ben"), capacity=0) as desk:
            served = bool(desk.queue(10.0).rows)
        bed.wait_until(lambda: not s.rows("SELECT 1 FROM outbox WHERE state='leased'"), 60, "leases are given back")
        after = _lasting(s)
        alive, errors = s.alive, s.errors
        lines, rss_mb = len(s.lines), s.rss_mb()
    rare = min(sent[k.__name__] for k in _whole("", ""))
    figure = {
        "messages": sent.total(), "types": len(sent) - 1, "rarest_type": rare, "answers": dict(answers),
        "connections": connections, "alive": alive and served, "stderr_bytes": len(errors),
        "state_changed": before != after, "log_lines": lines, "rss_mb": round(rss_mb, 1),
    }  # fmt: skip
    bar = {
        "messages": f">= {count}", "rarest_type": f">= {count // 50}", "alive": "== 1", "stderr_bytes": "== 0",
        "state_changed": "== 0",
    }  # fmt: skip
    return judged(figure, bar, f"seed {FUZZ_SEED} {errors[-300:]}".strip())


def _lasting(s: Site) -> list[object]:
    return [
        s.rows("SELECT * FROM scans ORDER BY scan_id"), s.rows("SELECT * FROM decisions"),
        s.rows("SELECT scan_id, CASE state WHEN 'leased' THEN 'pending' ELSE state END, delivered_utc_ns FROM outbox "
               "ORDER BY scan_id"),
    ]  # fmt: skip


def _whole(scan_id: str, lease_id: str) -> dict[type[wire.Message], wire.Message]:
    """Return one sound message of every type that an analyst sends."""
    opinion = Opinion(opinion_id="o", scan_id=scan_id, sha256="0" * 64, analyst="eve", verdict="clear", given_utc_ns=1)
    return {
        type(m): m for m in (
            wire.Hello(analyst=""), wire.Fetch(scan_id=scan_id, lease_id=lease_id),
            wire.Received(scan_id=scan_id, lease_id=lease_id, sha256="0" * 64),
            wire.Decide(statement=b"x" * 100, signature=b"y" * 64), wire.Renew(lease_id=lease_id),
            wire.Release(lease_id=lease_id), wire.Claim(scan_id=scan_id), wire.QueueRequest(), wire.Bye(),
            wire.Ping(counter=1), wire.Pong(counter=1), wire.Here(idle_s=1.5), wire.Peek(scan_id=scan_id),
            wire.Opine(lease_id=lease_id, opinion=opinion),
        )
    }  # fmt: skip


def _fuzz(s: Site, identity: security.Identity, count: int, seed: int) -> tuple[Counter[str], Counter[str], int]:
    """Send `count` mutated messages; return how many of which type, what came back, and the connections it took.

    Those count that were taken: after each lot a ping is answered, or the connection does not count.
    """
    chance = random.Random(seed)  # noqa: S311 -- to be repeated
    taken: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    connections = 0
    scan_id = str(s.rows("SELECT scan_id FROM scans LIMIT 1")[0][0])
    while taken.total() < count:
        say(f"S5: {taken.total()} of {count} messages", every_s=5.0)
        connections += 1
        with Bare(s.address, identity, sndhwm=0, rcvhwm=0) as peer:
            refused = 0
            while refused < MAX_REFUSALS - 2 * LOT and taken.total() < count:  # then the service would cut it off
                welcome = peer.hello(capacity=0)
                peer.send(wire.Claim(scan_id=scan_id))
                lease_id = getattr(peer.hear(5), "lease_id", "none")
                mutants = _mutants(chance, scan_id, lease_id, welcome.connection_id, identity)
                lot = [next(mutants) for _ in range(LOT)]
                for _, frames in lot:
                    peer.socket.send_multipart(frames)
                came = _answers(peer)
                taken.update(name for name, _ in lot)
                answers.update(came)
                refused += came["Refused"]
    return taken, answers, connections


def _answers(peer: Bare) -> Counter[str]:
    """Return what comes back until the service has answered a ping, which it does once all before it was taken."""
    peer.send(wire.Ping(counter=LAST))
    came: Counter[str] = Counter()
    until_s = time.monotonic() + 10.0
    while time.monotonic() < until_s:
        if not peer.socket.poll(200):  # a mutant was a goodbye after all, so that pings are refused
            peer.hello(capacity=0)
            peer.send(wire.Ping(counter=LAST))
            continue
        frames = peer.socket.recv_multipart()
        came[_name_of(frames)] += 1
        answer = wire.decode_from_service(frames)[0]
        if isinstance(answer, wire.Pong) and answer.counter == LAST:
            return came
    raise ScannerError(f"S5: the service no longer answers; it sent {dict(came)}")


def _name_of(frames: list[bytes]) -> str:
    try:
        return type(wire.decode_from_service(frames)[0]).__name__
    except ProtocolError:
        return "unreadable"


def _mutants(
    chance: random.Random, scan_id: str, lease_id: str, connection_id: str, identity: security.Identity
) -> Iterator[tuple[str, list[bytes]]]:  # fmt: skip
    whole = [(type(m).__name__, wire.encode(m)[1]) for m in _whole(scan_id, lease_id).values()]
    sequence = 0
    while True:
        name, header = chance.choice(whole)
        how = chance.random()
        if how < 0.02:
            yield "parts", [b"x"] * chance.choice((1, 3, 4, 50, 1000))
        elif how < 0.04:
            yield name, [chance.choice((b"", b"scanlane/2", b"\0" * 100, wire.PROTOCOL[:-1])), bytes(header)]
        elif how < 0.06:
            sequence += 1
            statement = _mutated(chance, _statement(scan_id, lease_id, connection_id, sequence, identity))
            decide = wire.Decide(statement=statement, signature=identity.sign(statement))  # genuine, of nonsense
            yield "Decide", [wire.PROTOCOL, bytes(wire.encode(decide)[1])]
        else:
            mutant = _mutated(chance, bytes(header))
            # A goodbye that is still one ends the connection: one in fifty of them is enough.
            if mutant != header and (not _is_goodbye(mutant) or chance.random() < 0.02):
                yield name, [wire.PROTOCOL, mutant]


def _is_goodbye(header: bytes) -> bool:
    try:
        return isinstance(wire.decode_from_analyst([wire.PROTOCOL, header]), wire.Bye)
    except ProtocolError:
        return False


def _statement(
    scan_id: str, lease_id: str, connection_id: str, sequence: int, identity: security.Identity
) -> bytes:  # fmt: skip
    decision = Decision(
        decision_id=f"d{sequence}", scan_id=f"no-{scan_id}", sha256="0" * 64, analyst="ana", verdict="clear",
        decided_utc_ns=1, lease_id=lease_id,
    )  # fmt: skip
    return wire.encode_statement(
        wire.Statement(
            decision=decision, connection_id=connection_id, sequence=sequence, service=identity.service
        )
    )  # fmt: skip


def _mutated(chance: random.Random, data: bytes) -> bytes:
    """Return the bytes changed in one to three of the ways in which a message can be wrong."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(out) + 1)
        match chance.randrange(6):
            case 0 if out:
                out[at - 1] ^= 1 << chance.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = chance.choice(SPECIAL)
            case 3:
                out[at : at + chance.randrange(1, 9)] = chance.choice(SPECIAL)[:500]
            case 4:
                out[at:at] = chance.randbytes(chance.randrange(1, 30))
            case _:
                out[at : at + 2] = out[chance.randrange(len(out) + 1) :][:20]
    return bytes(out[: wire.MAX_INBOUND_BYTES - 100])


# --------------------------------------------------------------------------------------------------------------
# S6


def s6_too_large(folder: Path, full: bool) -> Outcome:
    """One byte too many: the connection is ended and written down, the next small message works, nobody loops."""
    with site(folder) as s:
        ana = s.enrol("ana")
        with Bare(s.address, ana) as peer:
            peer.hello()
            for size in (-CURVE_OVERHEAD, 1):
                _send_of_size(peer, wire.MAX_INBOUND_BYTES + size)
                time.sleep(0.5)
            bed.wait_until(lambda: s.audited("connection_broken"), 5, "that the connection broke is written down")
            audited = len(s.audited("connection_broken"))
            again = isinstance(peer.hello(), wire.Welcome)
        refused_small = len(s.named("refused"))  # the one that was not too large came, and was refused as nonsense
        with Workstation(s.address, identity=ana) as desk:
            kept = _client_refuses_itself(desk)
    hellos, cpu_share = _service_that_sends_too_much(30.0 if full else 6.0)
    figure = {
        "audited": audited, "largest_that_comes_refused": refused_small, "small_one_works_after": again,
        "client_refuses_to_send_it": kept, "clients_hellos_per_s": round(hellos, 2), "clients_cpu_share": cpu_share,
    }  # fmt: skip
    bar = {
        "audited": "== 1", "largest_that_comes_refused": "== 1", "small_one_works_after": "== 1",
        "client_refuses_to_send_it": "== 1", "clients_hellos_per_s": "<= 6", "clients_cpu_share": "< 0.2",
    }  # fmt: skip
    return judged(figure, bar)


CURVE_OVERHEAD = 64
"""Bytes by which a frame grows when it is encrypted (33), rounded up; the limit is of what is on the cable."""


def _send_of_size(peer: Bare, size: int) -> None:
    peer.socket.send_multipart([wire.PROTOCOL, b"\xc1" * size])


def _client_refuses_itself(desk: Workstation) -> bool:
    try:
        desk.claim("x" * wire.MAX_INBOUND_BYTES)
    except DeliveryError as error:
        return "may be sent" in str(error)
    return False


def _service_that_sends_too_much(seconds: float) -> tuple[float, float]:
    """Answer every hello with more than a client takes; return its hellos per second and its share of a core."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    server = context.socket(zmq.ROUTER)
    server.linger = 0
    server.bind("tcp://127.0.0.1:*")
    try:
        with Workstation(server.get_string(zmq.LAST_ENDPOINT), "ana"):
            hellos, busy_s, until_s = 0, 0.0, time.monotonic() + seconds
            cpu_s = time.process_time()
            while time.monotonic() < until_s:
                if server.poll(100):
                    peer, *_ = server.recv_multipart()
                    hellos += 1
                    since = time.process_time()
                    server.send_multipart([peer, wire.PROTOCOL, bytes(wire.MAX_CLIENT_INBOUND_BYTES + 1)])
                    busy_s += time.process_time() - since
            cpu_s = time.process_time() - cpu_s - busy_s
    finally:
        server.close()
        context.term()
    return hellos / seconds, round(cpu_s / seconds, 3)


# --------------------------------------------------------------------------------------------------------------
# S8


IMAGE_ROWS, IMAGE_ROW_BYTES = 200, 10_000
"""Pixel rows of 5,000 counts."""


def s8_capture(folder: Path, full: bool) -> Outcome:
    """What a listener on the cable has of an image, its papers and who decided what: with keys nothing."""
    with_keys = _captured(folder / "keys", keys=True)
    control = _captured(folder / "plain", keys=False)
    figure = {
        "looked_for": control[2], "bytes": with_keys[0], "found": len(with_keys[1]), "control_bytes": control[0],
        "control_not_found": control[2] - len(control[1]),
    }  # fmt: skip
    bar = {"bytes": f"> {IMAGE_ROWS * IMAGE_ROW_BYTES}", "found": "== 0", "control_not_found": "== 0"}
    how = "a TCP relay between client and daemon writes every byte down; the control without keys finds all of them"
    return judged(figure, bar, "; ".join([how, *with_keys[1]]))


def _captured(folder: Path, *, keys: bool) -> tuple[int, list[str], int]:
    rows = [os.urandom(IMAGE_ROW_BYTES) for _ in range(IMAGE_ROWS)]
    with site(folder, [b"".join(rows)], keys=keys) as s:
        with Line(s.address) as cable:
            seen = cable.seen = bytearray()
            identity = s.enrol("ana.of.the.night") if keys else None
            with Workstation(cable.address, "ana.of.the.night", identity=identity) as desk:
                offer = desk.next_offer(20)
                if offer is None:
                    raise ScannerError("S8: no offer came over the relay")
                data = bytes(desk.fetch(offer))
                desk.decide(offer, "inspect", note="behind the third pallet, right")
        if data != b"".join(rows):
            raise ScannerError("S8: the image came wrong over the relay")
        secrets = [offer.scan_id, offer.sha256, "ana.of.the.night", "dense block behind", "behind the third", "inspect"]
        marks = {f"row {n}": row[1000:1032] for n, row in enumerate(rows)}
        marks |= {text: text.encode() for text in secrets}
        return len(seen), [name for name, mark in marks.items() if mark in seen], len(marks)


# --------------------------------------------------------------------------------------------------------------
# S7


HOSTILE = "triage.study.hostile_files"


def s7_foreign_files(folder: Path, full: bool) -> Outcome:
    """Hostile files of every format, made and read as the drivers and commands read them."""
    try:
        hostile = importlib.import_module(HOSTILE)
    except ModuleNotFoundError as error:
        if error.name != HOSTILE:
            raise
        return cannot_run("readers of foreign files are not confined in this version", "nothing outside is touched")
    confine = importlib.import_module("scanner_io.sandbox")
    limits = confine.Limits() if full else confine.Limits(cpu_s=2, wall_s=6.0)  # of those that misbehave on demand
    seen = hostile.figures(hostile.run(folder, limits), limits)
    figure = {**seen, "not_refused": len(seen["not_refused"]), "outside": len(seen["outside"])}
    bar = {
        "files": ">= 50", "not_refused": "== 0", "outside": "== 0", "peak_mib": "<= 2048",
        "longest_cpu_s": f"<= {limits.cpu_s + 1}", "passed": "== 1",
    }  # fmt: skip
    return judged(figure, bar, ", ".join([*seen["not_refused"], *seen["outside"]]))
