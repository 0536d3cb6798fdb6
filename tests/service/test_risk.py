"""Profiles under their hash with two signatures, and an archive that a profile is tried against."""

import json
import sqlite3
import tomllib
from contextlib import closing

import msgspec
import pytest

from scanner_io import config, security
from scanner_io.errors import ConfigError, StorageError
from tests import samples
from tests.service.risk_rig import put, said, scan_id
from triage.analysis import selection
from triage.analysis.risk import EXAMPLE
from triage.analysis.risk_finding import with_risk
from triage.service import quality, risk_archive, risk_store, selecting
from triage.service.checkup import check_risk
from triage.service.lane import lane_profile
from triage.service.outbox import Outbox


@pytest.fixture(scope="module")
def people():
    return {name: security.generate(name) for name in ("ana", "bo", "cy")}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "north.toml"
    path.write_text(EXAMPLE)
    return path


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    outbox = Outbox(folder / "outbox.sqlite")
    trusted = samples.declaration(authorised_trader=True, consignor="Able Ltd", origin="DE")
    strange = samples.declaration(authorised_trader=False, consignor="Bad Ltd", origin="XX")
    for number in range(30):
        bad = number % 5 == 0
        declaration = None if number == 29 else strange if bad else trusted
        outcome = "REVIEW" if bad else "CLEAR"
        put(outbox, number, "inspect" if bad else "", (1,) if number % 10 == 0 else (), declaration, outcome=outcome)
    outbox.close()
    return folder


def test_a_profile_is_in_force_with_two_people_and_two_keys(tmp_path, file, people):
    kept = tmp_path / "profiles"
    one = risk_store.sign(file, kept, people["ana"])
    assert "signed by ana; 2 people" in risk_store.in_force(one)[0]
    with pytest.raises(ConfigError, match="ana has signed this profile"):
        risk_store.sign(file, kept, people["ana"])
    with pytest.raises(ConfigError, match="has signed this profile"):  # one key under another name
        risk_store.sign(file, kept, msgspec.structs.replace(people["ana"], name="anna"))
    two = risk_store.sign(file, kept, people["bo"])
    assert risk_store.in_force(two) == []
    enrolled = {name: p.signing for name, p in people.items()}
    assert risk_store.in_force(two, enrolled) == []
    assert "bo was revoked" in risk_store.in_force(two, enrolled, ["bo"])[0]
    assert "bo is not enrolled" in risk_store.in_force(two, {"ana": enrolled["ana"], "bo": enrolled["cy"]})[0]
    assert risk_store.load(two.sha256[:10], kept).sha256 == two.sha256


def test_a_file_that_is_edited_has_no_signature(tmp_path, file, people):
    kept = tmp_path / "profiles"
    for who in ("ana", "bo"):
        signed = risk_store.sign(file, kept, people[who])
    file.write_text(EXAMPLE.replace("points = 40.0", "points = 4.0"))
    assert risk_store.signatures(kept, risk_store.load(file).sha256).signed == ()
    inside = kept / f"{signed.sha256}.toml"
    inside.write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="was edited"):
        risk_store.load(inside)
    stolen = kept / f"{signed.sha256}.signed.json"
    stolen.write_bytes(stolen.read_bytes().replace(b'"name": "bo"', b'"name": "cy"'))
    with pytest.raises(ConfigError, match="the signature of cy does not fit"):
        risk_store.signatures(kept, signed.sha256)


def test_history_is_what_was_known_then(archive):
    found = list(risk_archive.passages(archive / "outbox.sqlite"))
    bad = [p for p in found if p.declaration is not None and p.declaration.consignor == "Bad Ltd"]
    assert [p.history.consignor_scans for p in bad] == list(range(6))
    assert [p.history.consignor_finds for p in bad] == list(range(6))
    assert found[0].history.container_scans == 0 and found[3].history.container_scans == 3
    assert found[29].declaration is None and found[29].history.container_scans == 0


def test_trying_a_profile_changes_nothing_and_says_what_it_would_have_done(archive, file):
    before = (archive / "outbox.sqlite").read_bytes()
    told = json.loads(said("risk", "try", file, archive, "--share", "0.2", "--json"))
    assert (archive / "outbox.sqlite").read_bytes() == before
    assert told["passages"] == 30 and told["simulated"] == 30 and told["declaration_missing"] == 1
    # the one without papers scores what any papers could: 30 for none, 40 and 25 for what papers might have shown
    assert told["score"]["p100"] == 95.0
    assert told["rules"]["authorised"]["counted"] == 23 and told["rules"]["empty-that-is-not"]["assumed"] == 1
    assert told["hits_in_chosen"]["of"] == 6 and told["expired"] == []
    assert told["hit_rate_rest"]["low"] <= told["hit_rate_rest"]["high"]
    words = said("risk", "try", file, archive)
    assert "30 of them simulated; not live" in words and "authorised" in words


def test_commands_check_and_tell_differences(tmp_path, file, people):
    keys = tmp_path / "keys"
    security.create_service(keys)
    for who in ("ana", "bo"):
        security.enrol(keys, people[who].public, "supervisor")
        security.save_identity(tmp_path / f"{who}.key", people[who])
        out = json.loads(said("risk", "sign", file, "--profiles", tmp_path / "p", "--key", tmp_path / f"{who}.key",
                              "--json"))  # fmt: skip
    assert out["in_force"] and out["signed_by"] == ["ana", "bo"]
    checked = json.loads(said("risk", "check", file, "--profiles", tmp_path / "p", "--keys", keys, "--json"))
    assert checked["in_force"] and checked["expired"] == [] and checked["rules"] == 3
    security.revoke(keys, "bo")
    assert "bo was revoked" in said("risk", "check", file, "--profiles", tmp_path / "p", "--keys", keys)
    other = tmp_path / "other.toml"
    other.write_text(EXAMPLE.replace("points = 40.0", "points = 45.0").replace("version = 2", "version = 3"))
    told = json.loads(said("risk", "diff", file, other, "--json", code=1))
    assert told["differences"] == [
        "rule empty-that-is-not: version 2 -> 3",
        "rule empty-that-is-not: points 40.0 -> 45.0",
    ]
    other.write_text(EXAMPLE.replace("valid_to = 2027-12-31", "valid_to = 2025-02-01", 1))
    assert "expired 2025-02-01: authorised v1 (risk desk)" in said("risk", "check", other)
    other.write_text(EXAMPLE.replace("points = -10.0", "points = 0.0"))
    assert "points 0" in str(said("risk", "check", other, code="raises"))
    assert "party.authorised" in said("risk", "facts") and "never lowers" in said("risk", "--help")
    assert said("risk", "example") == EXAMPLE


def test_an_empty_archive_tries_nothing(tmp_path, file):
    Outbox(tmp_path / "outbox.sqlite").close()
    assert "no passage in it" in str(said("risk", "try", file, tmp_path, code="raises"))


# ----------------------------------------------------------------------------------------------- selection, explained


@pytest.fixture
def signed(tmp_path, file, people):
    """Return the folder of a profile in force, its hash, and the files of a plan and a seed."""
    for who in ("ana", "bo"):
        sha256 = risk_store.sign(file, tmp_path / "profiles", people[who]).sha256
    (tmp_path / "plan.toml").write_text(
        said("selection", "plan").replace("look = { value = 0.02", "look = { value = 0.3")
    )
    (tmp_path / "seed").write_text(f"{bytes(range(32)).hex()}\n")
    (tmp_path / "seed").chmod(0o600)
    return tmp_path / "profiles", sha256


def run(archive, signed, tmp_path, *more, code=0):
    return said(
        "selection", "run", archive, "--plan", tmp_path / "plan.toml", "--profile", signed[1][:12], "--profiles",
        signed[0], "--seed-file", tmp_path / "seed", "--json", *more, code=code,
    )  # fmt: skip


def explained(archive, scan, *more, code=0):
    return json.loads(said("risk", "explain", scan, "--archive", archive, "--json", *more, code=code))["selections"]


def test_every_selection_is_made_again_from_the_archive(archive, signed, tmp_path):
    commitment = json.loads(said("selection", "seed", archive, "--seed-file", tmp_path / "seed", "--json"))[
        "commitment"
    ]
    dry = json.loads(run(archive, signed, tmp_path))
    assert dry["recorded"] is False and explained(archive, scan_id(3), code=1) == []
    told = json.loads(run(archive, signed, tmp_path, "--record"))
    assert told["recorded"] and told["candidates"] == 30 and told["must"] == 6 and told["seed_commitment"] == commitment
    assert [c["why"] for c in told["choices"]] == [c["why"] for c in dry["choices"]]  # the same seed, the same choices
    outbox = Outbox(archive / "outbox.sqlite")
    states = {n: outbox.item(scan_id(n)).state for n in range(30)}
    woken = [n for n, c in enumerate(told["choices"]) if c["chosen"] and n % 5]
    assert told["woken"] == len(woken) > 0 and all(states[n] == "pending" for n in woken)
    item = outbox.lease_next("bo", 10)
    assert outbox.release(item.lease_id, "has to go", 3) and outbox.item(item.row.scan_id).state == "pending"
    outbox.close()
    for number in range(30):
        (one,) = explained(archive, scan_id(number), "--profiles", signed[0], "--seed-file", tmp_path / "seed")
        assert one["reproduced"] and one["why"] == told["choices"][number]["why"]
        assert len(one["checked"]) == 4
        # here the passages came before the seed was committed to, and that is said
        assert one["not_checked"] == [
            "that the seed was not picked for this passage: it was committed to after the passage came"
        ]
    words = said("risk", "explain", scan_id(29), "--archive", archive)
    assert "the declaration is missing" in words and "not checked: the score: give --profiles" in words
    again = json.loads(run(archive, signed, tmp_path, "--record"))
    assert again["candidates"] == 0 and not again["recorded"]
    assert json.loads(said("audit", "verify", archive, "--json"))["sound"]


TOLD = "UPDATE selections SET told=CAST(replace(CAST(told AS TEXT), '{}', '{}') AS BLOB) WHERE scan_id=?"


@pytest.mark.parametrize(
    "change, problem",
    [
        (TOLD.format('"chosen":false', '"chosen":true'), "audit says"),
        (TOLD.format('"score":', '"score":1'), "the score is"),
        ("UPDATE scans SET declaration=NULL WHERE scan_id=?", "facts are not those of the archive"),
        ("DELETE FROM events WHERE kind='selection_seed' AND ?<>''", "no commitment of the seed"),
    ],
)
def test_a_selection_that_was_touched_is_not_made_again(archive, signed, tmp_path, change, problem):
    said("selection", "seed", archive, "--seed-file", tmp_path / "seed")
    told = json.loads(run(archive, signed, tmp_path, "--record"))
    name = next(c["scan"] for c in told["choices"] if not c["chosen"])
    with closing(sqlite3.connect(archive / "outbox.sqlite")) as database, database:
        assert database.execute(change, (name,)).rowcount > 0
    (one,) = explained(archive, name, "--profiles", signed[0], "--seed-file", tmp_path / "seed", code=1)
    assert not one["reproduced"] and any(problem in p for p in one["problems"]), one["problems"]


def test_a_seed_is_made_once_and_for_its_user_alone(archive, tmp_path):
    made = [said("selection", "seed", archive, "--seed-file", tmp_path / "new", "--json") for _ in range(2)]
    assert made[0] == made[1] and len(bytes.fromhex((tmp_path / "new").read_text())) == 32
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    (tmp_path / "new").chmod(0o644)
    error = said("selection", "seed", archive, "--seed-file", tmp_path / "new", code="raises")
    assert "lets others read this secret" in str(error)


def test_a_profile_that_is_not_in_force_selects_nothing_for_good(archive, signed, tmp_path, people):
    said("selection", "seed", archive, "--seed-file", tmp_path / "seed")
    other = tmp_path / "other.toml"
    other.write_text(EXAMPLE + "# mine\n")
    sha256 = risk_store.sign(other, signed[0], people["cy"]).sha256
    error = run(archive, (signed[0], sha256), tmp_path, "--record", code="raises")
    assert "is not in force: signed by cy" in str(error)
    assert json.loads(run(archive, (signed[0], sha256), tmp_path))["candidates"] == 30
    (tmp_path / "seed").write_text("short\n")
    assert "expected one line of 64" in str(run(archive, signed, tmp_path, code="raises"))


def test_opening_chooses_among_what_analysts_sent_on(archive, signed, tmp_path):
    said("selection", "seed", archive, "--seed-file", tmp_path / "seed")
    told = json.loads(run(archive, signed, tmp_path, "--record", "--stage", "open"))
    assert told["candidates"] == told["must"] == 6 and told["woken"] == 0
    (one,) = explained(archive, scan_id(5), "--profiles", signed[0], "--seed-file", tmp_path / "seed")
    assert one["stage"] == "open" and "ana sent it on to inspection" in one["why"] and one["reproduced"]


def test_a_lane_takes_a_profile_in_force_and_no_other(signed, tmp_path, file):
    kept = signed[0] / f"{signed[1]}.toml"
    assert lane_profile(None, None, "north", str(kept)).risk.sha256 == signed[1]
    with pytest.raises(ConfigError, match="not in force: signed by nobody"):
        lane_profile(None, None, "north", str(file))
    assert lane_profile(None, None, None, str(file)).risk is not None  # to try it on files by hand
    problems, notes = [], []
    lane = config.Lane(name="north", device=(), risk=str(kept))
    check_risk(lane, problems, notes)
    assert not problems and "risk profile north gate@" in notes[0] and "of 3 rules" in notes[0]
    check_risk(msgspec.structs.replace(lane, risk=str(file)), problems, notes)
    assert "lane north: " in problems[0] and "not in force" in problems[0]


def test_a_lanes_own_score_is_made_again_from_the_archive(signed, tmp_path):
    rules = risk_store.load(signed[1], signed[0])
    outbox = Outbox(tmp_path / "outbox.sqlite")
    for number, declaration in ((1, None), (2, samples.declaration(authorised_trader=True))):
        scan = samples.scan(scan_id=scan_id(number), declaration=declaration, start_utc_ns=samples.START_NS)
        judged = with_risk(samples.result(scan_id(number), outcome="CLEAR", findings=()), scan, rules)
        put(outbox, number, declaration=declaration, start_utc_ns=samples.START_NS, whole=judged)
    put(outbox, 3, outcome="CLEAR")
    outbox.close()
    for number, score, asked in ((1, 95.0, True), (2, 0.0, False)):
        told = json.loads(
            said("risk", "explain", scan_id(number), "--archive", tmp_path, "--profiles", signed[0], "--json")
        )
        lane = told["lane_score"]
        assert lane["reproduced"] and lane["score"] == score and lane["asked_for_review"] is asked
        assert "every word of it made again" in lane["checked"][0]
    assert (
        json.loads(said("risk", "explain", scan_id(3), "--archive", tmp_path, "--json", code=1))["lane_score"] is None
    )
    words = said("risk", "explain", scan_id(1), "--archive", tmp_path)
    assert "in the lane: risk 95" in words and "not checked: the score: give --profiles" in words
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as database, database:
        changed = database.execute(
            "UPDATE scans SET result=CAST(replace(CAST(result AS TEXT), '\"score\":95.0', '\"score\":5.0') AS BLOB)"
        )
        assert changed.rowcount == 3
    told = json.loads(
        said("risk", "explain", scan_id(1), "--archive", tmp_path, "--profiles", signed[0], "--json", code=1)
    )
    assert not told["lane_score"]["reproduced"] and "made again it is: risk 95" in told["lane_score"]["problems"][0]


def test_selections_and_samples_are_kept_in_either_database(place, signed):
    """`place` is a file of SQLite, and a database of PostgreSQL where there is a server."""
    outbox = Outbox(place)
    for number in range(12):
        put(outbox, number, declaration=samples.declaration() if number % 3 else None, outcome="CLEAR")
    told = tomllib.loads(selection.EXAMPLE)
    windows = selection.windows_of(selection.staff_of(told["staff"], "p"), *risk_archive.span(place))
    rules, seed = risk_store.load(signed[1], signed[0]), bytes(range(32))
    run, kept = selecting.select(place, "look", rules, selection.plan_of(told, "p"), windows, seed)
    assert selecting.record(outbox, run, kept, "ana") == 4  # those without papers
    with pytest.raises(StorageError, match="was selected among for look meanwhile"):
        selecting.record(outbox, msgspec.structs.replace(run, run="again"), kept, "ana")
    assert selecting.candidates_before(place, "look") == {k.candidate.scan_id for k in kept}
    (explained_,) = selecting.explain(place, scan_id(3), signed[0], seed)
    assert not explained_.problems and explained_.kept.choice.chosen
    drawn = quality.draw(place, 1, 0.5, 1, 0, 1 << 62)
    quality.record(outbox, drawn, "ana")
    quality.read(outbox, drawn.sample, drawn.scans[0][0].scan_id, "bo", "inspect", "")
    assert [r.verdict for r in quality.readings(place) if r.verdict] == ["inspect"]
    assert quality.again(place, quality.samples(place)[0])
    outbox.close()
