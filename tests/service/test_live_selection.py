"""Selection beside the lanes: who is CLEAR and waits for a person all the same, kept so that it is made again."""

import json
from pathlib import Path

import msgspec
import pytest

from scanner_io import config, security
from scanner_io.errors import ConfigError
from scanner_io.model import DeclarationMatch
from tests import samples
from tests.service.risk_rig import put, said, scan_id
from triage.analysis import risk
from triage.analysis.risk import EXAMPLE
from triage.analysis.selection import EXAMPLE as PLAN
from triage.service import live_selection, risk_archive, risk_store
from triage.service.checkup import check_selection
from triage.service.later import Later
from triage.service.live_selection import LiveSelection, rules_of
from triage.service.outbox import Outbox

HISTORY = """
[[rules]]
id = "found-before"
version = 1
owner = "risk desk"
reason = "something was found with this consignor before"
valid_from = 2020-01-01
valid_to = 2099-12-31
points = 20.0
when = [{ fact = "history.consignor_finds", at_least = 1 }]
"""


@pytest.fixture(scope="module")
def people():
    return [security.generate(name) for name in ("ana", "bo")]


@pytest.fixture
def told(tmp_path, people):
    """Return what a service's configuration tells of selection: nobody is drawn, and there is room."""
    file = tmp_path / "north.toml"
    file.write_text(EXAMPLE.replace("2027-12-31", "2099-12-31") + HISTORY)
    for who in people:
        sha256 = risk_store.sign(file, tmp_path / "profiles", who).sha256
    (tmp_path / "plan.toml").write_text(PLAN.replace("look = { value = 0.02", "look = { value = 1e-9"))
    (tmp_path / "seed").write_text(f"{bytes(range(32)).hex()}\n")
    (tmp_path / "seed").chmod(0o600)
    return config.Selection(
        profile=str(tmp_path / "profiles" / f"{sha256}.toml"), plan=str(tmp_path / "plan.toml"),
        seed_file=str(tmp_path / "seed"),
    )  # fmt: skip


@pytest.fixture
def outbox(tmp_path):
    (tmp_path / "state").mkdir()
    outbox = Outbox(tmp_path / "state" / "outbox.sqlite")
    yield outbox
    outbox.close()


def begun(told, outbox):
    lines = []
    outbox.note("service_started", "")
    kept = Path(told.plan).parent / "history"
    return LiveSelection(rules_of(told), outbox, lambda event, **fields: lines.append((event, fields)), kept), lines


def came(live, outbox, number, *arguments, **how):
    name = put(outbox, number, *arguments, **how)
    live.passed(name)
    return outbox.item(name).state


def explained(tmp_path, number):
    return json.loads(
        said("risk", "explain", scan_id(number), "--archive", tmp_path / "state", "--profiles", tmp_path / "profiles",
             "--seed-file", tmp_path / "seed", "--json")
    )["selections"]  # fmt: skip


CLEAR = {"outcome": "CLEAR", "findings": ()}
PAPERS = samples.declaration(authorised_trader=False, consignor="Able Ltd")


def test_history_papers_and_failure_let_a_clear_scan_wait_and_each_is_made_again(told, outbox, tmp_path, monkeypatch):
    live, lines = begun(told, outbox)
    assert came(live, outbox, 1, declaration=PAPERS, **CLEAR) == "filed"
    assert came(live, outbox, 2, declaration=PAPERS, outcome="REVIEW") == "pending"
    assert came(live, outbox, 3, **CLEAR) == "pending"  # no papers: 95 points, and a look is asked for from 40 on
    put(outbox, 4, "inspect", (1,), PAPERS, outcome="REVIEW")
    live.passed(scan_id(4))
    assert came(live, outbox, 5, declaration=PAPERS, **CLEAR) == "pending"  # a find of this consignor is known now
    assert [fields["scan"] for event, fields in lines if event == "selected"] == [scan_id(3), scan_id(5)]
    first, second, third, fifth = (explained(tmp_path, n)[0] for n in (1, 2, 3, 5))
    assert all(e["reproduced"] and len(e["checked"]) == 4 and not e["not_checked"] for e in (first, second, third))
    assert not first["chosen"] and second["why"].startswith("the machine says REVIEW")
    assert "the profile asks for a look from 40 on" in third["why"]
    assert fifth["reproduced"] and fifth["why"] in (  # by day and by night; three of the shift's places are taken
        "score 20: number 1 of 3752 by risk", "score 20: number 1 of 414 by risk",
    )  # fmt: skip
    live.passed(scan_id(5))
    assert len(explained(tmp_path, 5)) == 1  # told again, nothing is chosen again
    monkeypatch.setattr(risk, "assess", lambda *_: 1 / 0)
    assert came(live, outbox, 6, declaration=PAPERS, **CLEAR) == "pending"
    assert lines[-1][0] == "selection_failed" and "ZeroDivisionError" in lines[-1][1]["text"]
    monkeypatch.undo()
    assert json.loads(said("audit", "verify", tmp_path / "state", "--json"))["sound"]


def test_papers_that_come_late_are_selected_by_anew(told, outbox, tmp_path):
    live, _ = begun(told, outbox)
    put(outbox, 1, "inspect", (1,), PAPERS, outcome="REVIEW")
    live.passed(scan_id(1))
    assert came(live, outbox, 2, declaration=samples.declaration(), **CLEAR) == "filed"
    match = DeclarationMatch(
        state="matched", late=True, confidence=1.0, by="container", declared="X", sender="S", document="D", version=1
    )
    outbox.assess(scan_id(2), Later(result=samples.result(scan_id(2), **CLEAR), declaration=PAPERS, match=match))
    live.passed(scan_id(2))
    assert outbox.item(scan_id(2)).state == "pending"
    before, after = explained(tmp_path, 2)
    assert before["reproduced"] and after["reproduced"], (before["problems"], after["problems"])
    assert (before["chosen"], after["chosen"]) == (False, True) and any(
        "found-before" in c for c in after["contributions"]
    )


def test_what_the_end_of_a_service_lost_is_caught_up_with_and_a_time_without_is_left_alone(told, outbox):
    begun(told, outbox)
    put(outbox, 1, **CLEAR)  # stored, and the service ended before it was selected among
    outbox.note("service_started", "")
    put(outbox, 2, **CLEAR)  # of a start without selection
    begun(told, outbox)
    assert [outbox.item(scan_id(n)).state for n in (1, 2)] == ["pending", "filed"]


def test_room_is_given_to_who_comes_first_and_musts_take_none_away(told, outbox, tmp_path):
    plan = Path(told.plan)
    plan.write_text(
        plan.read_text().replace("look_s = { value = 44.0", "look_s = { value = 36000.0").replace(
            "least_score = { value = 0.0", "least_score = { value = 15.0").replace("analysts = 3", "analysts = 1")
    )  # fmt: skip
    live, _ = begun(told, outbox)
    put(outbox, 1, "inspect", (1,), PAPERS, outcome="REVIEW")
    live.passed(scan_id(1))
    states = [came(live, outbox, n, declaration=PAPERS, **CLEAR) for n in (2, 3)]
    assert states == ["filed", "filed"] and "room for 0 by risk" in explained(tmp_path, 3)[0]["why"]
    assert came(live, outbox, 4, **CLEAR) == "pending"
    again, _ = begun(told, outbox)  # what was taken is known after a start
    assert came(again, outbox, 5, declaration=PAPERS, **CLEAR) == "filed"
    assert all(explained(tmp_path, n)[0]["reproduced"] for n in range(1, 6))


def test_a_service_does_not_begin_with_a_profile_that_is_not_in_force(told, tmp_path, people):
    problems, notes = [], []
    whole = config.Config(state_dir="s", lane=(), selection=told)
    check_selection(whole, problems, notes)
    assert not problems and notes[0].startswith("selection by north gate@")
    security.create_service(tmp_path / "keys")
    security.enrol(tmp_path / "keys", people[0].public, "supervisor")
    with pytest.raises(ConfigError, match="not in force: bo is not enrolled"):
        rules_of(msgspec.structs.replace(told, keys=str(tmp_path / "keys")))
    Path(told.profile.replace(".toml", ".signed.json")).unlink()
    check_selection(whole, problems, notes)
    assert "signed by nobody" in problems[0]
    text = 'state_dir = "s"\n[selection]\nprofile = "p.toml"\nplan = "plan.toml"\nseed_file = "none"\n'
    with pytest.raises(ConfigError) as error:
        config.parse(text, "lane.toml", tmp_path)
    assert any("selection.seed_file: " in p and "scanlane selection seed" in p for p in error.value.problems)


@pytest.fixture
def kept_at_once(monkeypatch, told):
    monkeypatch.setattr(live_selection, "KEEP_EVERY", 1)
    return Path(told.plan).parent / "history"


def counted(monkeypatch):
    """Return a list that gets the number after which each reading of the audit begins."""
    begins = []
    read = risk_archive.Seen.read
    monkeypatch.setattr(
        risk_archive.Seen, "read", lambda seen, *words, **how: begins.append(seen.heard) or read(seen, *words, **how)
    )
    return begins


def test_history_is_counted_once_and_goes_on_at_the_next_start(told, outbox, kept_at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(risk_archive, "READ_AT_ONCE", 2)
    live, _ = begun(told, outbox)
    put(outbox, 1, "inspect", (1,), PAPERS, outcome="REVIEW")
    live.passed(scan_id(1))
    assert came(live, outbox, 2, declaration=PAPERS, **CLEAR) == "pending"
    assert kept_at_once.stat().st_mode & 0o777 == 0o600
    begins = counted(monkeypatch)
    again, lines = begun(told, outbox)
    assert begins[0] > 0 and not lines
    assert came(again, outbox, 3, declaration=PAPERS, **CLEAR) == "pending"
    assert all(explained(tmp_path, n)[0]["reproduced"] for n in (1, 2, 3))


@pytest.mark.parametrize("harm", ["another audit", "damage"])
def test_counts_that_are_not_of_this_audit_are_made_anew(told, outbox, kept_at_once, monkeypatch, harm):
    live, _ = begun(told, outbox)
    put(outbox, 1, "inspect", (1,), PAPERS, outcome="REVIEW")
    live.passed(scan_id(1))
    came(live, outbox, 2, declaration=PAPERS, **CLEAR)
    if harm == "damage":
        kept_at_once.write_bytes(kept_at_once.read_bytes()[:-1])
    else:
        counts = msgspec.msgpack.decode(kept_at_once.read_bytes(), type=risk_archive.Counts)
        wrong = msgspec.structs.replace(counts, hash=bytes(32), finds={})
        kept_at_once.write_bytes(msgspec.msgpack.encode(wrong))
    begins = counted(monkeypatch)
    again, lines = begun(told, outbox)
    assert begins[0] == 0 and lines[0][0] == "history_counted_anew" and str(kept_at_once) in lines[0][1]["text"]
    assert came(again, outbox, 3, declaration=PAPERS, **CLEAR) == "pending"


def test_names_that_were_erased_stay_in_no_file(told, outbox, kept_at_once, monkeypatch):
    live, _ = begun(told, outbox)
    came(live, outbox, 1, declaration=PAPERS, **CLEAR)
    came(live, outbox, 2, declaration=PAPERS, **CLEAR)
    assert b"Able Ltd" in kept_at_once.read_bytes()
    outbox.note("result_erased", "result sha256 0; kept 1 days", scan_id(1))
    came(live, outbox, 3, declaration=PAPERS, **CLEAR)
    assert not kept_at_once.exists()
    begins = counted(monkeypatch)
    begun(told, outbox)
    assert begins[0] == 0 and kept_at_once.exists()
