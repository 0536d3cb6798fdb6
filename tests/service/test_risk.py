"""Profiles under their hash with two signatures, and an archive that a profile is tried against."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from scanner_io import security
from scanner_io.errors import ConfigError
from scanner_io.model import Decision
from tests import samples
from triage.analysis.risk import EXAMPLE
from triage.cli import cli
from triage.service import risk_archive, risk_store
from triage.service.outbox import Outbox, ScanRow


def said(*words, code=0):
    done = CliRunner().invoke(cli, [str(w) for w in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if code == "raises":
            return done.exception
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def people():
    return {name: security.generate(name) for name in ("ana", "bo", "cy")}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "north.toml"
    path.write_text(EXAMPLE)
    return path


def scan_id(number):
    return f"north-20260131T09{number // 60:02d}{number % 60:02d}.000000Z-0f3a9c1e"


def put(outbox, number, verdict="", codes=(), declaration=None, **changes):
    """Put a passage into an archive, decided at once where it has a verdict."""
    name = scan_id(number)
    values = {
        "scan_id": name, "lane": "north", "path": f"/r/{name}", "sha256": "ab" * 32, "size": 100,
        "start_utc_ns": samples.START_NS + number * 10**9, "simulated": True, "result": samples.result(name, **changes),
        "declaration": declaration,
    }  # fmt: skip
    outbox.add(ScanRow(**values))
    if verdict:
        item = outbox.lease(name, "ana", 60)
        outbox.decide(
            Decision(
                decision_id=f"d{number}", scan_id=name, sha256="ab" * 32, analyst="ana", verdict=verdict,
                decided_utc_ns=1, codes=codes, lease_id=item.lease_id,
            )
        )  # fmt: skip
    return name


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
