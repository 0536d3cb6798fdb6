import json
import sqlite3

import pytest
from click.testing import CliRunner

from scanner_io import security, wire
from scanner_io.errors import DataError, StorageError
from scanner_io.model import Decision
from tests import samples
from triage.cli import cli
from triage.service import audit
from triage.service.outbox import CHAINED_FROM, MIGRATIONS, Outbox, ScanRow


def row(number=1):
    scan_id = f"north-20260131T0945{number:02d}.000000Z-0f3a9c1e"
    return ScanRow(
        scan_id=scan_id, lane="north", path=f"/x/{number}", sha256="0" * 64, size=1, start_utc_ns=number,
        simulated=True, result=samples.result(scan_id, "REVIEW"),
    )  # fmt: skip


@pytest.fixture
def state(tmp_path):
    """A state folder in which things happened, with its checkpoints and the service's keys."""
    identity = security.create_service(tmp_path / "keys")
    outbox = Outbox(tmp_path / "outbox.sqlite")
    told = audit.Checkpoints(tmp_path / "checkpoints", identity)
    for number in range(1, 6):
        outbox.add(row(number))
        outbox.note("viewed", f"row {number}", who="ana")
        if number in (2, 4):
            told.add(*outbox.audit_head(), number)
    told.add(*outbox.audit_head(), 9)
    outbox.close()
    return tmp_path


def problems(state, *, checkpoints=True, signed=True):
    signing = security.load_public(state / "keys" / security.SERVICE_PUBLIC).signing if signed else None
    return audit.verify(state / "outbox.sqlite", state / "checkpoints" if checkpoints else None, signing).problems


def change(state, *statements):
    db = sqlite3.connect(state / "outbox.sqlite")
    with db:
        for statement in statements:
            db.execute(statement)
    db.close()


def rewrite(state):
    """What somebody does who knows how the chain is made."""
    db = sqlite3.connect(state / "outbox.sqlite")
    before = audit.START
    with db:
        for r in db.execute("SELECT seq, utc_ns, kind, scan_id, who, text FROM events ORDER BY seq").fetchall():
            before = audit.link(before, *r)
            db.execute("UPDATE events SET hash=? WHERE seq=?", (before, r[0]))
    db.close()


def test_what_nobody_touched_is_whole(state):
    assert problems(state) == []


SWAP = (
    "UPDATE events SET seq=1000 WHERE seq=3", "UPDATE events SET seq=3 WHERE seq=4",
    "UPDATE events SET seq=4 WHERE seq=1000",
)  # fmt: skip
TOUCHED = {
    "who": ("UPDATE events SET who='ben' WHERE seq=3",),
    "text": ("UPDATE events SET text=text || ' ' WHERE seq=1",),
    "time": ("UPDATE events SET utc_ns=utc_ns+1 WHERE seq=10",),
    "kind": ("UPDATE events SET kind='x' WHERE seq=5",),
    "scan": ("UPDATE events SET scan_id='y' WHERE seq=5",),
    "moved between fields": ("UPDATE events SET who=who || substr(text,1,1), text=substr(text,2) WHERE seq=4",),
    "hash": ("UPDATE events SET hash=zeroblob(32) WHERE seq=7",),
    "deleted": ("DELETE FROM events WHERE seq=6",),
    "first deleted": ("DELETE FROM events WHERE seq=1",),
    "reordered": SWAP,
}


@pytest.mark.parametrize("how", TOUCHED)
def test_what_is_touched_is_found_without_checkpoints(state, how):
    change(state, *TOUCHED[how])
    assert problems(state, checkpoints=False)


@pytest.mark.parametrize("cut", [1, 2, 9, 10])
def test_a_cut_tail_is_found_by_the_checkpoints(state, cut):
    change(state, f"DELETE FROM events WHERE seq > {10 - cut}")
    assert problems(state, checkpoints=False) == []
    assert any("cut off" in p.text for p in problems(state))


def test_a_chain_written_anew_is_found_by_the_checkpoints(state):
    change(state, "UPDATE events SET who='ben' WHERE seq=3")
    rewrite(state)
    assert problems(state, checkpoints=False) == []
    assert [p.seq for p in problems(state)] == [4, 8, 10]


def test_checkpoints_made_by_another_are_no_proof(state):
    """Somebody who rewrites chain and checkpoints has not the service's key."""
    change(state, "UPDATE events SET who='ben' WHERE seq=3")
    rewrite(state)
    (state / "checkpoints").unlink()
    outbox = Outbox(state / "outbox.sqlite")
    audit.Checkpoints(state / "checkpoints", security.generate("eve")).add(*outbox.audit_head(), 9)
    outbox.close()
    assert problems(state, signed=False) == []
    assert "not signed by the service's key" in problems(state)[0].text


def test_a_chain_begun_anew_is_found(state):
    (state / "outbox.sqlite").unlink()
    outbox = Outbox(state / "outbox.sqlite")
    outbox.note("viewed", "one")
    identity = security.load_identity(state / "keys" / security.SERVICE_KEY)
    audit.Checkpoints(state / "checkpoints", identity).add(*outbox.audit_head(), 11)
    outbox.close()
    assert any("begun anew" in p.text for p in problems(state))


def test_a_line_cut_by_a_crash_spoils_no_other(state):
    path = state / "checkpoints"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq": 10, "ha')
    outbox = Outbox(state / "outbox.sqlite")
    outbox.note("viewed", "more")
    identity = security.load_identity(state / "keys" / security.SERVICE_KEY)
    audit.Checkpoints(path, identity).add(*outbox.audit_head(), 12)
    outbox.close()
    found = problems(state)
    assert [p.text.split(" lines")[0] for p in found] == ["1"]
    assert len(audit.read_checkpoints(path)[0]) == 4


def test_events_of_before_the_chain_are_linked_when_the_schema_is_brought_up(tmp_path):
    path = tmp_path / "outbox.sqlite"
    db = sqlite3.connect(path)
    for number, script in enumerate(MIGRATIONS[: CHAINED_FROM - 1], start=1):
        db.executescript(script)
        db.execute(f"PRAGMA user_version={number}")
    db.executemany(
        "INSERT INTO events (utc_ns, kind, scan_id, who, text) VALUES (?,?,?,?,?)",
        [(i, "recorded", f"s{i}", "north", "CLEAR") for i in range(3)],
    )
    db.commit()
    db.close()
    outbox = Outbox(path)
    outbox.note("viewed", "after")
    outbox.close()
    assert audit.verify(path, None, None) == audit.Verified(4, 0, True, [], 0)


def test_a_transaction_that_fails_leaves_no_link(tmp_path):
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.note("a", "b")
    head = outbox.audit_head()
    with pytest.raises(RuntimeError), outbox.store.transaction():
        outbox.event("c")
        raise RuntimeError
    assert outbox.audit_head() == head
    outbox.note("d", "e")
    outbox.close()
    assert audit.verify(tmp_path / "outbox.sqlite", None, None).problems == []


def test_the_command_says_it(state):
    arguments = [str(state), "--checkpoints", str(state / "checkpoints"), "--service", str(state / "keys/service.pub")]
    told = CliRunner().invoke(cli, ["audit", "verify", *arguments])
    assert told.exit_code == 0
    assert told.output == "10 events, 3 checkpoints, 0 decisions, 0 opinions: whole\n"
    change(state, "DELETE FROM events WHERE seq=6")
    told = CliRunner().invoke(cli, ["audit", "verify", *arguments, "--json"])
    assert told.exit_code == 1
    report = json.loads(told.output)
    assert not report["sound"]
    assert report["problems"][0] == {"seq": 7, "text": "rows 6 to 6 are missing"}
    told = CliRunner().invoke(cli, ["audit", "verify", str(state / "none")])
    assert "there is no outbox" in str(told.exception)
    with pytest.raises(DataError, match="cannot be read"):
        audit.verify(state / "none.sqlite", None, None)


@pytest.fixture
def decided(tmp_path):
    """A state folder with a signed decision and one that came too late."""
    ana = security.generate("ana")
    outbox = Outbox(tmp_path / "outbox.sqlite")
    scan = row().scan_id
    outbox.add(row())
    lease = outbox.lease(scan, "ana", 60).lease_id
    for number, lease_id in enumerate((lease, "gone")):
        decision = Decision(
            decision_id=f"d{number}", scan_id=scan, sha256="0" * 64, analyst="ana", verdict="clear",
            decided_utc_ns=1, lease_id=lease_id,
        )  # fmt: skip
        statement = wire.encode_statement(wire.Statement(decision=decision, connection_id="c", sequence=number + 1))
        assert outbox.decide(decision, statement=statement, signature=ana.sign(statement)).applied is (number == 0)
    outbox.close()
    return tmp_path, {"ana": ana.signing}


def found_in(folder, signers):
    found = audit.verify(folder / "outbox.sqlite", None, None, signers)
    return [p.text for p in found.problems], found.decisions


def test_decisions_agree_with_the_audit_and_their_signatures(decided):
    folder, signers = decided
    assert found_in(folder, signers) == ([], 2)
    assert found_in(folder, None) == ([], 2)


def test_a_decision_signed_for_another_service_is_found(tmp_path):
    ana, ours, theirs = (security.generate(name) for name in ("ana", "ours", "theirs"))
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.add(row())
    for number, service in enumerate((ours.curve, theirs.curve, "")):
        decision = Decision(
            decision_id=f"d{number}", scan_id=row().scan_id, sha256="0" * 64, analyst="ana", verdict="clear",
            decided_utc_ns=1, lease_id="gone",
        )  # fmt: skip
        statement = wire.encode_statement(
            wire.Statement(decision=decision, connection_id="c", sequence=number + 1, service=service)
        )
        outbox.decide(decision, statement=statement, signature=ana.sign(statement))
    outbox.close()
    place = tmp_path / "outbox.sqlite"
    found = audit.verify(place, None, None, {"ana": ana.signing}, ours.curve)
    (problem,) = found.problems
    assert "decision d1" in problem.text
    assert f"signed for another service, '{theirs.curve}'" in problem.text
    assert found.nameless == 1
    assert audit.verify(place, None, None, {"ana": ana.signing}).problems == []


DECISIONS_TOUCHED = [
    ("UPDATE decisions SET verdict='inspect' WHERE decision_id='d0'", "the audit has no event of ana's 'inspect'"),
    ("UPDATE decisions SET analyst='ben' WHERE decision_id='d0'", "the audit has no event of ben's 'clear'"),
    ("UPDATE decisions SET applied=1 WHERE decision_id='d1'", "the audit has no event of ana's 'clear'"),
    ("DELETE FROM decisions WHERE decision_id='d0'", "that are not kept any more"),
    ("UPDATE decisions SET decision=replace(decision, 'd0', 'd9') WHERE decision_id='d0'", "differ from each other"),
    ("UPDATE decisions SET decision=CAST(replace(decision, '\"note\":\"\"', '\"note\":\"x\"') AS BLOB)",
     "it is not what was signed"),
    ("UPDATE decisions SET signature=zeroblob(64) WHERE decision_id='d0'", "its signature is not ana's"),
    ("UPDATE decisions SET decision=x'00' WHERE decision_id='d0'", "it cannot be read any more"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "what"), DECISIONS_TOUCHED, ids=[w for _, w in DECISIONS_TOUCHED])
def test_decisions_that_were_touched_are_found(decided, statement, what):
    folder, signers = decided
    change(folder, statement.replace("SET decision=replace", "SET decision=CAST(replace").replace(
        "'d9') WHERE", "'d9') AS BLOB) WHERE"))  # fmt: skip
    problems, _ = found_in(folder, signers)
    assert any(what in p for p in problems), problems


def test_a_table_made_anew_without_hashes_is_a_problem_and_no_crash(state):
    change(
        state, "CREATE TABLE other AS SELECT * FROM events", "DROP TABLE events", "ALTER TABLE other RENAME TO events",
        "UPDATE events SET hash=NULL WHERE seq=3",
    )  # fmt: skip
    assert any("its table was made anew" in p.text for p in problems(state, checkpoints=False))


def test_what_a_forger_wrote_does_not_reach_the_terminal(state):
    change(state, "UPDATE events SET who='\x1b]0;mine\x07\x1b[2J' WHERE seq=3")
    done = CliRunner().invoke(cli, ["audit", "verify", str(state)])
    assert done.exit_code == 1
    assert "\x1b" not in done.output


def test_after_a_sync_that_failed_the_checkpoints_are_written_anew(tmp_path, faulty_disk):
    path = tmp_path / "checkpoints"
    checkpoints = audit.Checkpoints(path, None)
    checkpoints.add(1, bytes(32), 1)
    faulty = faulty_disk(lambda call: "EIO" if call.name == "sync" and call.path == path else None)
    with pytest.raises(StorageError, match="cannot be written"):
        checkpoints.add(2, bytes(32), 2)
    checkpoints.add(3, bytes(32), 3)
    assert [c.path.name.startswith("checkpoints.") for c in faulty.calls if c.name == "rename"] == [True]
    assert [c.seq for c in audit.read_checkpoints(path)[0]] == [1, 2, 3]
