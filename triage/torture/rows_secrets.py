"""S9 to S12: what lies about, whether the audit shows that it was touched, logs, and how the service is shut in."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from scanner_io import security, wire
from scanner_io.client import Workstation
from scanner_io.errors import ConfigError, DataError
from triage.operate import install, parts, release
from triage.service import audit
from triage.service.sparing import LONGEST

from .outcome import Outcome, judged, stood_in
from .site import Bare, Site, site

ROOT = Path(__file__).resolve().parents[2]
CLD_DUMPED = 3
"""waitid(2): killed, and a core was written."""
KEY_MODE, FILE_MODE, FOLDER_MODE = 0o600, 0o640, 0o750


# --------------------------------------------------------------------------------------------------------------
# S9


def s9_secrets(folder: Path, full: bool) -> Outcome:
    """Modes of all files under a mask of 0; secrets in arguments, environment, logs, files and core of the daemon."""
    before = os.umask(0)
    try:
        with site(folder) as s:  # the daemon makes its folders and its database itself
            s.stop()
            s.fill([os.urandom(1 << 20)] * 2)
            s.start()
            ana = s.enrol("ana")
            security.save_identity(folder / "ana.key", ana)
            with Workstation(s.address, identity=ana) as desk:
                offer = desk.next_offer(20)
                assert offer is not None
                desk.fetch(offer)
                desk.decide(offer, "inspect", note="x")
            identities = [ana, security.load_identity(s.keys / security.SERVICE_KEY)]
            s.stop()  # it writes a checkpoint at its end
            s.start()
            wide = _too_open(s)
            process = _process_text(s)
            core = _core_of(s)
            log = "".join(s.lines) + s.errors + _said_of_broken_keys(folder, ana)
            hits = {
                "arguments and environment": _hits(identities, [process]),
                "log": _hits(identities, [log.encode()]),
                "files": _hits(identities, [p.read_bytes() for p in _files(folder) if p.suffix != ".key"]),
            }
            control = _hits(identities, [(folder / "ana.key").read_bytes()])
    finally:
        os.umask(before)
    figure = {
        "files_too_open": len(wide), "secrets_found": sum(hits.values()), "looked_in": list(hits),
        "secrets_in_key_file": control, **core,
    }  # fmt: skip
    bar = {
        "files_too_open": "== 0", "secrets_found": "== 0", "secrets_in_key_file": "> 0", "core_limit": "== 0",
        "core_dumped": "== 0",
    }  # fmt: skip
    alone = "" if core["control_dumped"] else "this machine writes no cores at all: the limit alone was looked at"
    return judged(figure, bar, "; ".join(filter(None, (alone, *wide))))


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()]


def _too_open(s: Site) -> list[str]:
    """Return every file and folder of the service that others may do more with than they should."""
    found = []
    for path in [s.state, *s.state.rglob("*"), *s.keys.rglob("*"), s.folder / "checkpoints"]:
        mode = stat.S_IMODE(path.stat().st_mode)
        is_key = path.suffix == ".key"
        allowed = FOLDER_MODE if path.is_dir() else KEY_MODE if is_key else FILE_MODE
        public = path.suffix == ".pub"  # for everybody's eyes
        if mode & ~allowed & (0o022 if public else 0o777):
            found.append(f"{path.relative_to(s.folder)} {mode:04o}")
    return found


def _process_text(s: Site) -> bytes:
    """Return arguments and environment of the daemon and its lanes."""
    children = [int(p) for t in Path(f"/proc/{s.pid}/task").iterdir() for p in (t / "children").read_text().split()]
    return b"".join(Path(f"/proc/{p}/{f}").read_bytes() for p in (s.pid, *children) for f in ("cmdline", "environ"))


def _hits(identities: list[security.Identity], places: list[bytes]) -> int:
    """Return how often a secret is found, as text or as its very bytes."""
    from zmq.utils import z85

    marks = []
    for i in identities:
        marks += [i.curve_secret.encode(), z85.decode(i.curve_secret.encode()), i.signing_secret.encode()]
        marks.append(bytes.fromhex(i.signing_secret))
    return sum(place.count(mark) for place in places for mark in marks)


def _said_of_broken_keys(folder: Path, ana: security.Identity) -> str:
    """Return what is said of key files that are wrong in every way."""
    said = repr(ana) + str(ana)
    good = (folder / "ana.key").read_text()
    for number, text in enumerate((
        good[:-20], good.replace(ana.curve_secret, ana.curve_secret + "x"), good.replace('"curve_secret"', '"other"'),
        good.replace(ana.signing_secret, ana.signing_secret[:-2] + "zz"), good.replace(ana.curve[:4], "aaaa"),
    )):  # fmt: skip
        path = folder / f"broken{number}.key"
        path.write_text(text)
        path.chmod(0o600)
        for load in (security.load_identity, security.load_public):
            with contextlib.suppress(FileNotFoundError):
                try:
                    load(path)
                except ConfigError as error:
                    said += f"{error}\n{error!r}\n"
    return said


def _core_of(s: Site) -> dict[str, Any]:
    """Let the daemon die as of a fault in a library; return whether its memory was written down."""
    limits = Path(f"/proc/{s.pid}/limits").read_text()
    line = next(x for x in limits.splitlines() if x.startswith("Max core file size"))
    os.kill(s.pid, signal.SIGSEGV)
    # What became of it is told once, so it is looked at without taking it away from whoever waits for the daemon.
    status = os.waitid(os.P_PID, s.pid, os.WEXITED | os.WNOWAIT)
    assert status is not None
    code = (
        "import os, resource as r; hard = r.getrlimit(r.RLIMIT_CORE)[1]; r.setrlimit(r.RLIMIT_CORE, (hard, hard)); "
        "os.kill(os.getpid(), 11)"
    )  # fmt: skip
    control = subprocess.Popen([sys.executable, "-c", code], cwd=s.folder, stderr=subprocess.DEVNULL)  # noqa: S603
    _, of_control = os.waitpid(control.pid, 0)
    control.returncode = of_control
    dumped = os.WIFSIGNALED(of_control) and os.WCOREDUMP(of_control)
    return {
        "core_limit": int(line.split()[4]), "core_dumped": status.si_code == CLD_DUMPED, "control_dumped": dumped
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------
# S10


def s10_audit(folder: Path, full: bool) -> Outcome:
    """Touch the audit in every way there is; the command finds each of them, and nothing where nothing was touched."""
    with site(folder, [os.urandom(1000 + n) for n in range(6)]) as s:
        ana = s.enrol("ana")
        with Workstation(s.address, identity=ana) as desk:
            for _ in range(4):
                offer = desk.next_offer(20)
                assert offer is not None
                desk.fetch(offer)
                desk.decide(offer, "inspect", note="x")
        s.stop()
        events = int(s.rows("SELECT COUNT(*) FROM events")[0][0])
        whole = _verify(s)
        kept = {p: p.read_bytes() for p in (s.state / "outbox.sqlite", s.folder / "checkpoints")}
        found = {}
        for name, touch in _touches(s, events).items():
            touch()
            found[name] = _verify(s)
            for path, data in kept.items():
                path.write_bytes(data)
        again = _verify(s)
    missed = [name for name, code in found.items() if code != 1]
    figure = {
        "events": events, "ways": len(found), "not_found": len(missed), "found_where_nothing_was": max(whole, again)
    }  # fmt: skip
    bar = {"ways": ">= 18", "not_found": "== 0", "found_where_nothing_was": "== 0"}
    return judged(figure, bar, ", ".join(missed))


def _verify(s: Site) -> int:
    """Return the exit code of `scanlane audit verify`."""
    return subprocess.run(  # noqa: S603 -- our own program
        [
            sys.executable, "-m", "triage.cli", "audit", "verify", str(s.state), "--checkpoints",
            str(s.folder / "checkpoints"), "--service", str(s.keys / security.SERVICE_PUBLIC), "--keys", str(s.keys),
        ],
        capture_output=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    ).returncode  # fmt: skip


def _touches(s: Site, events: int) -> dict[str, Callable[[], None]]:
    half = events // 2
    statements: dict[str, list[tuple[str, tuple[int, ...]]]] = {
        "text edited": [("UPDATE events SET text='nothing' WHERE seq=?", (half,))],
        "person exchanged": [("UPDATE events SET who='ben' WHERE kind='decided'", ())],
        "time changed": [("UPDATE events SET utc_ns=utc_ns+1 WHERE seq=?", (half,))],
        "one deleted": [("DELETE FROM events WHERE seq=?", (half,))],
        "the first deleted": [("DELETE FROM events WHERE seq=1", ())],
        "all deleted": [("DELETE FROM events", ())],
        "tail cut": [("DELETE FROM events WHERE seq>?", (half,))],
        "the last one cut": [("DELETE FROM events WHERE seq=?", (events,))],
        "two exchanged": [
            ("UPDATE events SET seq=-1 WHERE seq=?", (half,)),
            ("UPDATE events SET seq=? WHERE seq=?", (half, half + 1)),
            ("UPDATE events SET seq=? WHERE seq=-1", (half + 1,)),
        ],
        "verdict changed": [("UPDATE decisions SET verdict='clear' WHERE rowid=1", ())],
        "decision deleted": [("DELETE FROM decisions WHERE rowid=1", ())],
        "note of a decision changed": [
            ("UPDATE decisions SET decision=CAST(replace(decision, '\"x\"', '\"y\"') AS BLOB)", ())
        ],
        "signature replaced": [("UPDATE decisions SET signature=zeroblob(64)", ())],
    }

    def sql(steps: list[tuple[str, tuple[int, ...]]]) -> Callable[[], None]:
        def run() -> None:
            with closing(sqlite3.connect(s.state / "outbox.sqlite")) as db, db:
                for text, values in steps:
                    db.execute(text, values)

        return run

    ways = {name: sql(steps) for name, steps in statements.items()}
    ways["one put in and numbered on"] = lambda: _rewrite(s, put_in=half)
    ways["edited and chained anew (fork)"] = lambda: _rewrite(s, edit=half)
    ways["begun anew"] = lambda: _rewrite(s, edit=1)
    ways["edited, chained anew, checkpoints by another key"] = lambda: _rewrite(s, edit=half, forge=True)
    ways["a checkpoint edited"] = lambda: _edit_checkpoint(s)
    return ways


def _rewrite(s: Site, *, edit: int = 0, put_in: int = 0, forge: bool = False) -> None:
    """Do what somebody does who knows how the chain is made."""
    path = s.state / "outbox.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        rows = db.execute("SELECT utc_ns, kind, scan_id, who, text FROM events ORDER BY seq").fetchall()
        if edit:
            rows[edit - 1] = (*rows[edit - 1][:4], "forged")
        if put_in:
            rows.insert(put_in, (1, "note", "", "", "forged"))
        db.execute("DELETE FROM events")
        before = audit.START
        for seq, row in enumerate(rows, 1):
            before = audit.link(before, seq, *row)
            db.execute("INSERT INTO events VALUES (?,?,?,?,?,?,?)", (seq, *row, before))
    if forge:
        (s.folder / "checkpoints").write_bytes(b"")
        audit.Checkpoints(s.folder / "checkpoints", security.generate("forger")).add(len(rows), before, 1)


def _edit_checkpoint(s: Site) -> None:
    path = s.folder / "checkpoints"
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line]
    lines[-1]["utc_ns"] += 1
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


# --------------------------------------------------------------------------------------------------------------
# S11

NAMES = (
    "new\nline",
    '"}\n{"event": "forged", "level": "info"}',
    "\x1b[2J\x1b]0;mine\x07",
    "\u202etxt.exe",
    "\0",
    "x" * 60_000,
)
LINE_BYTES = 6 * LONGEST + 600
"""Every character of what somebody else wrote as JSON's \\uXXXX, and the rest of the line."""


def s11_log(folder: Path, full: bool) -> Outcome:
    """Names and texts that would forge a line of the log, and a flood of what is logged."""
    count = 100_000 if full else 10_000
    figures: list[dict[str, Any]] = []
    for keys in (True, False):
        with site(folder / ("keys" if keys else "plain"), [os.urandom(1000)], keys=keys) as s:
            identity = s.enrol("ana") if keys else None
            with Bare(s.address, identity) as peer:
                for text in NAMES:
                    for message in (
                        wire.Hello(analyst=text), wire.Hello(analyst="ana"), wire.Claim(scan_id=text),
                        wire.Fetch(scan_id=text, lease_id="x"), wire.Release(lease_id=text),
                        wire.Decide(statement=text.encode(), signature=b""),
                    ):  # fmt: skip
                        peer.send(message)
                    peer.socket.send_multipart([text.encode(), text.encode()])
                peer.socket.send_multipart([wire.PROTOCOL, b"\x81\xa4type\xda\x20\x00" + b"\x1b\n" * 4096])
                peer.hello(analyst="ana")
            before = len(s.lines), s.rows("SELECT COUNT(*) FROM events")[0][0]
            sent = _flood_log(s, identity, count)
            with Bare(s.address, identity) as peer:
                peer.hello(analyst="ana")
            time.sleep(0.5)
            figures.append(_log_figure(s, sent, before))
    worst = {name: max(f[name] for f in figures) for name in figures[0]}
    worst |= {name: min(f[name] for f in figures) for name in ("sent", "told")}
    bar = {
        "sent": f">= {count}", "told": "> 0", "forged": "== 0", "control_characters": "== 0",
        "control_characters_in_audit": "== 0", "longest_line": f"<= {LINE_BYTES}", "lines_of_flood": "<= 1000",
        "audit_rows_of_flood": "<= 1000",
    }  # fmt: skip
    return judged(worst, bar, "the worse of a service with keys and of one without")


def _flood_log(s: Site, identity: security.Identity | None, count: int) -> int:
    """Send that many messages that are refused, from as many connections as it takes; return how many."""
    sent = 0
    while sent < count:
        with Bare(s.address, identity, sndhwm=0, rcvhwm=0) as peer:
            peer.hello(analyst="ana", capacity=0)
            for number in range(450):
                peer.send(wire.Claim(scan_id=f"no such scan {number}\n"))
                peer.socket.send_multipart([b"junk", b"\n"])
                sent += 2
            peer.send(wire.Ping(counter=7))
            until_s = time.monotonic() + 10
            while time.monotonic() < until_s:
                if peer.socket.poll(500) and isinstance(
                    wire.decode_from_service(peer.socket.recv_multipart())[0], wire.Pong
                ):
                    break
    return sent


def _log_figure(s: Site, sent: int, before: tuple[int, int]) -> dict[str, Any]:
    lines = list(s.lines)
    texts = ["".join(row) for row in s.rows("SELECT kind, scan_id, who, text FROM events")]
    return {
        "sent": sent, "lines": len(lines), "lines_of_flood": len(lines) - before[0],
        "audit_rows_of_flood": s.rows("SELECT COUNT(*) FROM events")[0][0] - before[1],
        "bytes": sum(map(len, lines)), "longest_line": max(map(len, lines)),
        "forged": sum(e.get("event") in ("forged", "unreadable_line") for e in s.events),
        "control_characters": sum(not c.isprintable() for line in lines for c in line.rstrip("\n")),
        "control_characters_in_audit": sum(not c.isprintable() for text in texts for c in text),
        "told": len(s.named("refused")),
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------
# S12


def s12_shut_in(folder: Path, full: bool) -> Outcome:
    """How far systemd shuts the service in, by its own measure; the list of parts; wheels that were tampered with."""
    unit = folder / "scanlane.service"
    unit.write_text(install.unit("scanlane"))
    note, measured = "", None
    try:
        measured = install.measured(unit)
    except OSError:
        note = "systemd-analyze is not installed here"
    lock, here = parts.locked(), parts.installed()
    differs = parts.difference(here, lock)
    if differs.other_version:
        note = f"{note}; not installed from the lock, but resolved anew: {', '.join(differs.other_version)}".strip("; ")
    tampered, refused, sound = _tampered(folder, 1000 if full else 100)
    figure: dict[str, Any] = {
        "parts": len(lock), "not_in_one_of_both": len(parts.unlocked(here, lock)),
        "other_versions": len(differs.other_version), "wheels_tampered": tampered, "refused": refused,
        "sound_wheel_accepted": sound,
    }  # fmt: skip
    bar = {
        "not_in_one_of_both": "== 0", "refused": f"== {tampered}", "sound_wheel_accepted": "== 1",
    }  # fmt: skip
    if measured is None:
        return stood_in(judged(figure, bar), note)
    unexplained = sorted(set(measured.left_open) - set(install.exposure()))
    figure |= {"exposure": measured.level, "left_open": len(measured.left_open), "not_explained": len(unexplained)}
    note = "; ".join(filter(None, (note, f"not explained: {', '.join(unexplained)}" if unexplained else "")))
    return judged(figure, {"exposure": "<= 2", "not_explained": "== 0", **bar}, note)


def _tampered(folder: Path, times: int) -> tuple[int, int, int]:
    """Change a signed file in every way; return how many, how many were refused, and whether the sound one is not."""
    rng = random.Random(12)  # noqa: S311 -- places of a test
    us, other = security.generate("release"), security.generate("other")
    wheel = folder / "scanlane-0.0.0-py3-none-any.whl"
    data = rng.randbytes(100_000)
    wheel.write_bytes(data)
    place = release.sign(wheel, us)
    signed = place.read_bytes()
    sound = int(_accepted(wheel, us.public))
    ways: list[tuple[bytes, bytes]] = [(data[:-1], signed), (data + b"\0", signed), (b"", signed), (data, b"{}")]
    release.sign(wheel, other)
    ways.append((data, place.read_bytes()))
    for number in range(times):
        changed = bytearray(data if number % 2 else signed)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        ways.append((bytes(changed), signed) if number % 2 else (data, bytes(changed)))
    # white space between the fields and the case of digits are no part of what was signed
    ways = [(c, s) for c, s in ways if c != data or _meant(s) != _meant(signed)]
    refused = 0
    for content, signature in ways:
        wheel.write_bytes(content)
        place.write_bytes(signature)
        refused += not _accepted(wheel, us.public)
    return len(ways), refused, sound


def _accepted(wheel: Path, public: security.PublicKey) -> bool:
    try:
        release.verify(wheel, public)
    except DataError:
        return False
    return True


def _meant(signature: bytes) -> Any:
    """Return what a signature's file says, whatever its spelling."""
    try:
        told = json.loads(signature)
        return {**told, "signature": told["signature"].lower()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return signature
