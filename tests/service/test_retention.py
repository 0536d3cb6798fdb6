"""What may be deleted, what never."""

import errno
import hashlib
import json
import re
import subprocess
import sys
import time

import msgspec
import pytest
from click.testing import CliRunner

from scanner_io import disk, security, wire
from scanner_io.config import Retention
from scanner_io.errors import DeliveryError, StorageError
from scanner_io.model import DeclarationMatch, Opinion
from tests import samples
from tests.service.daemon_rig import ENVIRONMENT, ROOT, write_config
from tests.service.test_keeping import stored
from tests.service.test_outbox import decision, row
from triage.cli import cli
from triage.service import audit, keeping, retention
from triage.service.later import Later
from triage.service.outbox import Outbox
from triage.service.sparing import one_line

POLICY = Retention(clear_days=10, inspect_days=100)
DAY_NS = retention.DAY_NS
DECLARED = msgspec.structs.replace(samples.declaration(), consignor="Confidential Trading Company")


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "state" / "recordings"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def outbox(place):
    box = Outbox(place)
    yield box
    box.close()


def decide(outbox, number, verdict):
    item = outbox.lease(row(number).scan_id, "ana", 10)
    outbox.decide(decision(item, decision_id=f"d{number}", verdict=verdict))


def found(outbox, policy=POLICY, days=0.0):
    return [(c.scan_id, c.kind) for c in retention.candidates(outbox, policy, time.time_ns() + int(days * DAY_NS))]


def test_only_what_is_decided_and_old_enough_may_go(outbox, recordings):
    for number, outcome in enumerate(("REVIEW", "ALARM", "REVIEW", "CLEAR", "REVIEW", "REVIEW"), start=1):
        stored(outbox, recordings, number, outcome)
    decide(outbox, 1, "clear")
    decide(outbox, 2, "inspect")
    outbox.lease(row(3).scan_id, "ana", 10)
    decide(outbox, 5, "rescan")  # 6 waits, 4 is filed
    assert found(outbox) == []
    assert found(outbox, days=9.9) == []
    assert found(outbox, days=10.1) == [(row(1).scan_id, "clear")]
    assert found(outbox, days=1000) == [(row(1).scan_id, "clear"), (row(2).scan_id, "inspect")]
    assert found(outbox, Retention(filed_days=1), days=2) == [(row(4).scan_id, "filed")]
    assert found(outbox, Retention(), days=10_000) == []


def test_a_deletion_is_in_the_audit_before_it_happens_and_leaves_the_row(outbox, recordings, faulty_disk):
    path = stored(outbox, recordings, 1)
    decide(outbox, 1, "clear")
    one = retention.candidates(outbox, Retention(clear_days=0), time.time_ns())[0]
    seen = []

    def look(call):
        seen.append([k for (k,) in outbox.store.rows("SELECT kind FROM events ORDER BY seq")][-1])
        return "EIO" if len(seen) == 1 else None

    faulty_disk(look)
    with pytest.raises(StorageError, match="cannot be deleted"):
        retention.delete(outbox, one, recordings, "olga")
    assert seen == ["recording_deleting"]
    assert path.exists()
    assert [keeping.seen_at_once(k) for k in keeping.everything(outbox.place)] == [""]  # no alarm at the next start
    again = retention.candidates(outbox, Retention(clear_days=0), time.time_ns())
    assert retention.delete(outbox, again[0], recordings, "olga")
    assert not path.exists()
    assert outbox.item(one.scan_id).state == "decided"
    assert outbox.decisions(one.scan_id)
    assert retention.candidates(outbox, Retention(clear_days=0), time.time_ns()) == []
    assert outbox.path_of(one.scan_id) == str(path)


def test_result_and_declaration_are_erased_after_the_recording_and_never_before(outbox, recordings):
    scan_id = row(1).scan_id
    path = stored(outbox, recordings, 1, declaration=DECLARED)
    policy = Retention(clear_days=5, result_days=1)
    secret = outbox.item(scan_id).row.declaration.consignor

    def may_go(days=0.0):
        return [e.scan_id for e in retention.erasable(outbox, policy, time.time_ns() + int(days * DAY_NS))]

    assert may_go(100) == []  # it waits
    decide(outbox, 1, "clear")
    match = DeclarationMatch(state="matched", by="container", document="MAN1")
    outbox.assess(scan_id, Later(result=outbox.item(scan_id).row.result, declaration=DECLARED, match=match))
    assert may_go(100) == []  # its recording is there
    later = time.time_ns() + 6 * DAY_NS
    assert retention.delete(outbox, retention.candidates(outbox, policy, later)[0], recordings, "olga")
    assert may_go(0.9) == []
    assert may_go(1.1) == [scan_id]
    kept = outbox.item(scan_id).row
    (one,) = retention.erasable(outbox, policy, later)
    assert retention.erase(outbox, one, "olga")
    assert not retention.erase(outbox, one, "olga")
    assert may_go(100) == []
    item = outbox.item(scan_id)
    assert (item.state, item.row.result.outcome, item.row.declaration) == ("decided", kept.result.outcome, None)
    assert item.row.result.reasons == (retention.ERASED,)
    assert item.row.later == () and item.row.papers is None
    assert outbox.decisions(scan_id)[0][0].verdict == "clear"
    ((text,),) = outbox.store.rows("SELECT text FROM events WHERE kind='result_erased'")
    for told in (kept.result, kept.declaration):
        assert hashlib.sha256(msgspec.json.encode(told)).hexdigest() in text
    assert secret not in text
    assert not path.exists()
    assert Retention().result_days is None
    assert retention.erasable(outbox, Retention(clear_days=0), later) == []


def test_what_was_erased_is_not_in_the_files_any_more(tmp_path, recordings):
    place = tmp_path / "outbox.sqlite"
    outbox = Outbox(place)
    stored(outbox, recordings, 1, declaration=DECLARED)
    secret = DECLARED.consignor.encode()
    decide(outbox, 1, "clear")
    policy = Retention(clear_days=0, result_days=0)
    retention.delete(outbox, retention.candidates(outbox, policy, time.time_ns())[0], recordings, "olga")
    outbox.close()
    assert secret in place.read_bytes()
    outbox = Outbox(place)
    assert retention.erase(outbox, retention.erasable(outbox, policy, time.time_ns())[0], "olga")
    outbox.close()
    assert not any(secret in file.read_bytes() for file in tmp_path.glob("outbox.sqlite*"))


def test_a_legal_hold_keeps_a_recording_until_it_is_ended(outbox, recordings):
    stored(outbox, recordings, 1)
    decide(outbox, 1, "clear")
    one = retention.candidates(outbox, Retention(clear_days=0), time.time_ns())[0]
    retention.hold(outbox, one.scan_id, "olga", "case 7")
    assert retention.candidates(outbox, Retention(clear_days=0), time.time_ns()) == []
    assert not retention.delete(outbox, one, recordings, "olga")  # found before the hold
    with pytest.raises(DeliveryError, match="already"):
        retention.hold(outbox, one.scan_id, "olga", "case 8")
    assert [h.why for h in retention.holds(outbox)] == ["case 7"]
    retention.end_hold(outbox, one.scan_id, "olga", "closed")
    assert retention.delete(outbox, one, recordings, "olga")
    with pytest.raises(DeliveryError, match="was deleted"):
        retention.hold(outbox, one.scan_id, "olga", "too late")


def test_a_row_that_points_elsewhere_and_a_clock_that_went_back_delete_nothing(outbox, recordings, tmp_path):
    path = stored(outbox, tmp_path, 1)
    decide(outbox, 1, "clear")
    one = retention.candidates(outbox, Retention(clear_days=0), time.time_ns())[0]
    with pytest.raises(StorageError, match="is not below"):
        retention.delete(outbox, msgspec.structs.replace(one, path=f"{recordings}/../../{path.name}"), recordings, "o")
    assert path.exists()
    with pytest.raises(StorageError, match="clock is behind"):
        retention.candidates(outbox, Retention(clear_days=0), time.time_ns() - DAY_NS)


def test_a_clock_that_was_ahead_once_and_is_right_again_keeps_nothing_for_years(outbox, recordings, monkeypatch):
    stored(outbox, recordings, 1)
    decide(outbox, 1, "clear")
    later_ns = time.time_ns() + 4000 * DAY_NS
    with outbox.store.transaction():
        with monkeypatch.context() as ahead:
            ahead.setattr(time, "time_ns", lambda: later_ns)
            outbox.event("service_started")
        outbox.event("clock_stepped")
    assert found(outbox, Retention(clear_days=0))


def test_a_recording_that_cannot_be_deleted_is_kept_whole_and_keeps_no_other(tmp_path, recordings, monkeypatch):
    lane = f'[[lane]]\nname = "north"\n[[lane.device]]\ndriver = "file_drop"\npath = "{tmp_path}"\n'
    config = write_config(tmp_path, f"[retention]\nclear_days = 0\n{lane}")
    box = Outbox(tmp_path / "state" / "outbox.sqlite")
    paths = [stored(box, recordings, n) for n in (1, 2)]
    for n in (1, 2):
        decide(box, n, "clear")
    box.close()
    real = disk.io().unlink

    def refuses(path):
        if path == paths[0]:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        real(path)

    monkeypatch.setattr(disk.io(), "unlink", refuses)
    done = CliRunner().invoke(cli, ["retention", str(config), "--apply", "--json"])
    assert done.exit_code == 1
    *told, all_told = [json.loads(line) for line in done.output.splitlines()]
    assert [t["deleted"] for t in told] == [False, True] and "Operation not permitted" in told[0]["problem"]
    assert (all_told["deleted"], all_told["failed"]) == (1, 1)
    assert [p.exists() for p in paths] == [True, False]
    box = Outbox(tmp_path / "state" / "outbox.sqlite")
    assert box.store.rows("SELECT kept FROM scans ORDER BY scan_id") == [("whole",), ("deleted",)]
    box.close()


def test_what_was_filed_and_deleted_cannot_be_claimed(outbox, recordings):
    stored(outbox, recordings, 1, "CLEAR")
    one = retention.candidates(outbox, Retention(filed_days=0), time.time_ns())[0]
    assert retention.delete(outbox, one, recordings, "olga")
    with pytest.raises(DeliveryError, match="deleted by the site's policy"):
        outbox.lease(one.scan_id, "ana", 10)


def test_the_command_tells_first_and_deletes_when_told(tmp_path, recordings):
    lane = f'[[lane]]\nname = "north"\n[[lane.device]]\ndriver = "file_drop"\npath = "{tmp_path}"\n'
    config = write_config(tmp_path, f"[retention]\nclear_days = 0\n{lane}")
    box = Outbox(tmp_path / "state" / "outbox.sqlite")
    paths = [stored(box, recordings, number) for number in (1, 2, 3)]
    for number in (1, 2):
        decide(box, number, "clear")
    box.close()

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "triage.cli", "retention", str(config), "--json", *words], capture_output=True,
            text=True, env=ENVIRONMENT, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert [line.get("deleted") for line in run()] == [False, False, 0]
    assert all(path.exists() for path in paths)
    assert run("--hold", row(2).scan_id, "--why", "case 7")[-1]["legal_holds"] == [row(2).scan_id]
    assert run("--apply")[-1]["deleted"] == 1
    assert [path.exists() for path in paths] == [False, True, True]
    assert audit.verify(tmp_path / "state" / "outbox.sqlite", None, None).problems == []


def opined(outbox, number, note, identity=None, **changes):
    """Give a scan on with an opinion, signed by whoever has an identity."""
    item = outbox.lease(row(number).scan_id, "eva", 10)
    opinion = Opinion(
        opinion_id=f"o{number}{note[:1]}", scan_id=item.row.scan_id, sha256=item.row.sha256, analyst="eva",
        verdict="inspect", given_utc_ns=1, note=note, **changes,
    )  # fmt: skip
    statement = signature = b""
    if identity is not None:
        told = wire.OpinionStatement(
            opinion=opinion, lease_id=item.lease_id, connection_id="c", sequence=1, service=identity.service
        )
        statement = wire.encode_statement(told)
        signature = identity.sign(statement)
    outbox.opine(opinion, item.lease_id, statement=statement, signature=signature)
    outbox.release(item.lease_id, "given on", 99)


def everything(outbox):
    """Return all that the database holds, as text."""
    tables = ("scans", "decisions", "opinions", "second_readings", "events")
    return repr([outbox.store.rows(f"SELECT * FROM {table}") for table in tables])


def test_what_was_said_of_a_scan_goes_when_the_policy_says_so_and_the_audit_stays_whole(outbox, recordings, place):
    eva = security.generate("eva", "k" * 40)
    signers = {"eva": eva.signing, "ana": eva.signing}
    for number in (1, 2):
        stored(outbox, recordings, number)
        opined(outbox, number, "secret of the door end", eva)
        opined(outbox, number, "", eva)
        item = outbox.lease(row(number).scan_id, "ana", 10)
        made = decision(item, decision_id=f"d{number}", verdict="clear", note="a secret word")
        told = wire.Statement(decision=made, connection_id="c", sequence=1, service=eva.service)
        statement = wire.encode_statement(told)
        outbox.decide(made, statement=statement, signature=eva.sign(statement))
    policy = Retention(clear_days=5, said_days=1)
    now_ns = time.time_ns()
    assert retention.said(outbox, policy, now_ns + 6 * DAY_NS) == []  # its recording is there
    one = retention.candidates(outbox, policy, now_ns + 6 * DAY_NS)[0]
    retention.delete(outbox, one, recordings, "olga")
    assert retention.said(outbox, Retention(clear_days=5), now_ns + 6 * DAY_NS) == []  # this policy keeps it for ever
    assert retention.said(outbox, policy, now_ns + DAY_NS // 2) == []
    (may_go,) = retention.said(outbox, policy, now_ns + 2 * DAY_NS)
    before = everything(outbox)
    assert (may_go.scan_id, may_go.size > 0) == (one.scan_id, True)
    assert retention.erase_said(outbox, may_go, "olga")
    assert not retention.erase_said(outbox, may_go, "olga")
    assert retention.said(outbox, policy, now_ns + 2 * DAY_NS) == []
    after = everything(outbox)
    assert (before.count("secret"), after.count("secret")) == (
        8,
        4,
    )  # in the record and in what was signed, of two scans
    (text,) = (t for (t,) in outbox.store.rows("SELECT text FROM events WHERE kind='said_erased'"))
    assert text.count("signed bytes sha256") == 2
    ((kept, applied),) = outbox.decisions(one.scan_id)
    assert (kept.analyst, kept.verdict, kept.note, applied) == ("ana", "clear", "", True)
    assert [g.opinion.verdict for g in outbox.opinions(one.scan_id)] == ["inspect", "inspect"]
    found = audit.verify(place, None, None, signers, eva.service)
    assert found.problems == []
    assert (found.decisions, found.opinions, found.erased, found.unsigned_opinions) == (2, 4, 2, 0)
    with outbox.store.transaction():
        outbox.store.change(
            "UPDATE decisions SET decision=? WHERE scan_id=?", (msgspec.json.encode(made_up(kept)), one.scan_id)
        )
    (problem,) = audit.verify(place, None, None, signers, eva.service).problems
    assert "its note was erased by policy, and is there again" in problem.text


def made_up(kept):
    return msgspec.structs.replace(kept, note="never said")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE opinions SET statement=x'', signature=x''", "its signature is not eva's"),
        ("UPDATE opinions SET analyst='ben'", "no event of ben's opinion"),
        ("DELETE FROM opinions", "an opinion of eva on .* that is not kept any more"),
        (
            "UPDATE opinions SET opinion=CAST(replace(CAST(opinion AS TEXT), 'inspect', 'clear') AS BLOB)",
            "not what was said",
        ),
        (
            "UPDATE opinions SET opinion=CAST(replace(CAST(opinion AS TEXT), 'door', 'roof') AS BLOB)",
            "not what was said",
        ),
    ],
)
def test_an_opinion_that_was_touched_is_found(tmp_path, change, why):
    eva = security.generate("eva", "k" * 40)
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    outbox.add(row(1))
    opined(outbox, 1, "the door end", eva)
    sound = audit.verify(path, None, None, {"eva": eva.signing}, eva.service)
    assert (sound.problems, sound.opinions, sound.unsigned_opinions) == ([], 1, 0)
    with outbox.store.transaction():
        outbox.store.change(change)
    outbox.close()
    told = [p.text for p in audit.verify(path, None, None, {"eva": eva.signing}, eva.service).problems]
    assert re.search(why, "; ".join(told)), told


def test_opinions_from_before_they_were_signed_are_sound_and_told_as_unsigned(tmp_path):
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    outbox.add(row(1))
    outbox.add(row(2))
    opined(outbox, 1, "the door end")
    with outbox.store.transaction():  # as an earlier version wrote it
        old = Opinion(
            opinion_id="old", scan_id=row(2).scan_id, sha256="ab" * 32, analyst="eva", verdict="clear", given_utc_ns=1,
            note="two\nlines",
        )  # fmt: skip
        seq = outbox.event("opinion", old.scan_id, "eva", one_line(f"{old.verdict} {old.note}"))
        outbox.store.change(
            "INSERT INTO opinions (opinion_id, scan_id, analyst, opinion, seq) VALUES (?,?,?,?,?)",
            (old.opinion_id, old.scan_id, "eva", msgspec.json.encode(old), seq),
        )
    outbox.close()
    found = audit.verify(path, None, None, {}, "k" * 40)
    assert found.problems == []
    assert (found.opinions, found.unsigned_opinions) == (2, 2)
