"""Scans handed on between two installs, what is left out, and whether they stand for a scan of one's own."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from scanner_io import exchange, recording, security, storage
from scanner_io.errors import StorageError
from scanner_io.model import Decision, DeclarationMatch, Finding
from tests import samples
from triage.analysis.recognised import Here, Received, recognised
from triage.analysis.same_image import Compared
from triage.cli import cli
from triage.service import exchanging
from triage.service.later import Later
from triage.service.outbox import Outbox, ScanRow

DAY = 86_400 * 10**9


def said(*words, code=0):
    done = CliRunner().invoke(cli, [str(w) for w in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if code == "raises":
            return str(done.exception)
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture
def sites(tmp_path):
    """Two installs: south has a scan that was cleared, north a passage of the same container."""
    declared = samples.declaration(consignor="Able Exports Ltd", consignee="Baker Imports GmbH")
    scan = samples.scan(declaration=declared)
    result = samples.result()
    for site in ("south", "north"):
        folder = tmp_path / site
        folder.mkdir()
        path = folder / f"{scan.scan_id}{recording.SUFFIX}"
        sha256 = recording.write(path, scan, result=result, config={"site": "a name"})
        outbox = Outbox(folder / "outbox.sqlite")
        outbox.add(
            ScanRow(
                scan_id=scan.scan_id, lane="north", path=str(path), sha256=sha256, size=path.stat().st_size,
                start_utc_ns=samples.START_NS, simulated=True, result=result, declaration=declared,
            )
        )  # fmt: skip
        item = outbox.lease_next("analyst-ana", 60)
        outbox.decide(
            Decision(decision_id="d1", scan_id=scan.scan_id, sha256=sha256, analyst="analyst-ana", verdict="clear",
                     decided_utc_ns=samples.START_NS, note="told by analyst-ana", lease_id=item.lease_id)
        )  # fmt: skip
        outbox.close()
        security.save_identity(folder / "site.key", security.generate(site))
        security.save_public(folder / "site.pub", security.load_identity(folder / "site.key").public)
    said("exchange", "trust", tmp_path / "trust.json", "--me", "north", "--add", tmp_path / "south" / "site.pub")
    return tmp_path


def pack(sites, name="one.exchange", code=0, **changes):
    text = said("exchange", "policy")
    for old, new in changes.items():
        text = text.replace(f'{old} = "none"', f'{old} = "{new}"').replace(f'{old} = "recording"', f'{old} = "{new}"')
    (sites / "policy.toml").write_text(text)
    (sites / name).unlink(missing_ok=True)
    told = said(
        "exchange", "pack", samples.SCAN_ID, "--archive", sites / "south", "--policy", sites / "policy.toml", "--key",
        sites / "south" / "site.key", "--to", "north", "--out", sites / name, "--json", code=code,
    )  # fmt: skip
    return sites / name, told


def test_a_package_of_one_install_opens_on_another_once(sites):
    package, told = pack(sites)
    assert json.loads(told)["sender"] == "south"
    checked = json.loads(said("exchange", "verify", package, "--trust", sites / "trust.json", "--json"))
    assert checked["accepted"] and checked["simulated"] and checked["scans"][0]["verdict"] == "clear"
    opened = json.loads(
        said("exchange", "open", package, "--trust", sites / "trust.json", "--out", sites / "in", "--json")
    )
    assert opened["scans"][0]["left_out"] == ["consignor", "consignee"]
    seen = recording.read(sites / "in" / "001.scan.h5").scan
    mine = samples.scan()
    assert all((a == b).all() for a, b in zip(seen.radiograph.counts, mine.radiograph.counts, strict=True))
    assert seen.declaration.hs_codes == mine.declaration.hs_codes and seen.declaration.consignor == ""
    assert "opened here before" in said(
        "exchange", "open", package, "--trust", sites / "trust.json", "--out", sites / "again", code="raises"
    )
    assert "refused" in said("exchange", "verify", package, "--trust", sites / "trust.json", code="raises")
    assert not (sites / "again").exists()


def test_no_name_goes_out_that_the_policy_leaves_out(sites):
    data = pack(sites)[0].read_bytes()
    names = (b"Able Exports", b"Baker Imports", b"analyst-ana", b"told by")
    assert not any(name in data for name in names)
    told = json.loads(_member(data, "001.scan.json"))
    assert told["original_sha256"] != "" and "configuration" in told["rewritten"]
    assert [c["kind"] for c in told["custody"]] == ["recorded", "leased", "decided"] and told["audit_hash"]
    full = pack(sites, parties="full", people="full")[0].read_bytes()
    assert all(name in full for name in names[1:])
    # nothing was left out now: the recording is the lane's own, byte for byte
    assert _member(full, "001.scan.h5") == (sites / "south" / f"{samples.SCAN_ID}.scan.h5").read_bytes()
    assert json.loads(_member(full, "001.scan.json"))["rewritten"] == []


def _member(data, name):
    length = int.from_bytes(data[20:24], "big")
    at = 24 + length + 64
    for file in msgspec.json.decode(data[24 : 24 + length], type=exchange.Header).files:
        if file.name == name:
            return data[at : at + file.size]
        at += file.size
    raise KeyError(name)


def test_a_name_in_what_would_go_out_stops_the_package(sites):
    outbox = Outbox(sites / "south" / "outbox.sqlite")
    talkative = samples.result(reasons=("goods of Able Exports Ltd",))
    with outbox.store.transaction():
        outbox.store.change("UPDATE scans SET result=?", (msgspec.json.encode(talkative),))
    outbox.close()
    assert "a name that the policy leaves out stands in it still" in pack(sites, code="raises")[1]
    assert not (sites / "one.exchange").exists()


def test_pictures_instead_of_the_recording(sites):
    import cv2
    import numpy as np

    data = pack(sites, form="pictures")[0].read_bytes()
    png = cv2.imdecode(np.frombuffer(_member(data, "001-high-16bit.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    radiograph = samples.scan().radiograph
    assert (png == recording.upright(radiograph.counts[1], radiograph.detector.first_channel)).all()
    assert b"HDF" not in data


def test_a_recording_that_is_not_as_it_was_entered_is_not_handed_on(sites):
    path = sites / "south" / f"{samples.SCAN_ID}.scan.h5"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert "is not handed on" in pack(sites, code="raises")[1]


def test_a_sender_that_signs_nonsense_is_not_believed(sites):
    south = security.load_identity(sites / "south" / "site.key")
    trusted = exchange.load_trust(sites / "trust.json")
    one = _member(pack(sites)[0].read_bytes(), "001.scan.json")
    now = samples.START_NS

    def told(files, scans=(samples.SCAN_ID,)):
        data = exchange.pack(files, south, recipient="north", scans=scans, now_utc_ns=now, valid_days=1, simulated=True,
                             software="")  # fmt: skip
        from scanner_io.foreign import ForeignFiles

        with ForeignFiles() as readers, pytest.raises(exchange.Refused) as error:
            exchanging.told_in(exchange.verify(data, trusted, now), readers)
        return str(error.value)

    assert "which is not in the package" in told({"001.scan.json": one})
    assert "cannot be read" in told({"001.scan.json": b"[]"})
    assert "not those that its header names" in told({"x": b""})


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ('parties = "none"', 'parties = "some"', "Invalid enum value 'some'"),
        ('"seals"', '"consignee"', 'declaration lists consignee, and parties = "none"'),
        ('"seals"', '"colour"', "declaration has no colour"),
        ("valid_days = 90", "valid_days = 0", "valid_days 0"),
    ],
)
def test_what_is_wrong_in_a_policy_is_named(tmp_path, old, new, problem):
    (tmp_path / "p.toml").write_text(exchanging.EXAMPLE.replace(old, new, 1))
    with pytest.raises(exchanging.ConfigError) as error:
        exchanging.policy_in(tmp_path / "p.toml")
    assert problem in str(error.value)


# ------------------------------------------------------------------------------------------------------- recognition


def there(**changes):
    values = {
        "scan_id": "s1", "sender": "south", "start_utc_ns": 0, "outcome": "REVIEW", "verdict": "clear",
        "container_numbers": ("CSQU3054383",), "seals": ("S 1",),
    }  # fmt: skip
    return Received(**{**values, **changes})


def here(**changes):
    values = {"utc_ns": DAY, "container_numbers": ("CSQU 305438-3",), "seals": ("s1",), "risk_score": 3.0}
    return Here(**{**values, **changes})


def test_a_scan_is_recognised_only_if_everything_speaks_for_it():
    told = recognised(there(), here(), most_risk=20, most_days=30)
    assert told.recognised and "cleared there" in told.words
    calm = samples.result(outcome="CLEAR", findings=())
    assert recognised(
        there(),
        here(result=calm, image=Compared(same=True, words="the same")),
        most_risk=20,
        most_days=30,
        image_needed=True,
    ).recognised


@pytest.mark.parametrize(
    "received, now, against",
    [
        ({}, {"container_numbers": ("CSQU3054384",)}, "container number differs: CSQU3054383 there, CSQU3054384 here"),
        ({}, {"seals": ("S2",)}, "seal differs: S1 there, S2 here"),
        ({"seals": ("S1", "S2")}, {}, "seal differs"),
        ({"seals": ()}, {}, "no seal is known there"),
        ({}, {"seals": ()}, "no seal is known here"),
        ({}, {"container_numbers": ()}, "no container number is known here"),
        ({"verdict": "inspect"}, {}, "the answer there was 'inspect'"),
        ({"verdict": ""}, {}, "the machine there said REVIEW, and no person decided"),
        ({"outcome": "UNUSABLE"}, {}, "could not be used"),
        ({}, {"risk_score": 20.0}, "its risk here is 20"),
        ({}, {"risk_score": None}, "its risk was not scored here"),
        ({}, {"utc_ns": 31 * DAY}, "it is 31.0 days old"),
        ({"start_utc_ns": 3 * DAY}, {}, "in the future"),
        ({}, {"result": samples.result(gamma_alarm=True)}, "the portal alarmed here"),
        ({}, {"result": samples.result(findings=(
            Finding(kind="changed_since_previous", score=9.0, reason="something is new", tier="note"),
        ))}, "the image has changed: something is new"),
    ],
)  # fmt: skip
def test_what_speaks_against_it_is_told(received, now, against):
    told = recognised(there(**received), here(**now), most_risk=20, most_days=30)
    assert not told.recognised and len(told.against) == 1 and against in told.against[0]


def test_without_an_image_to_compare_where_one_is_needed_it_is_not_recognised():
    told = recognised(there(), here(), most_risk=20, most_days=30, image_needed=True)
    assert told.against == ("no image here was held against the received one",)


def test_the_command_recognises_a_passage(sites):
    package, _ = pack(sites)
    asked = ("exchange", "recognise", package, samples.SCAN_ID, "--archive", sites / "north", "--trust",
             sites / "trust.json", "--json")  # fmt: skip
    assert json.loads(said(*asked, "--score", "3"))["recognised"]
    told = json.loads(said(*asked, code=1))
    assert told["against"] == ["its risk was not scored here"]
    assert "the very same counts" in told["image"]
    pack(sites, form="pictures")
    assert "the very same picture" in json.loads(said(*asked, "--score", "3", "--image-needed"))["image"]


def test_another_image_is_not_recognised(sites):
    """The same scan with one count changed at one end, and an image that shows no container."""
    path = sites / "north" / f"{samples.SCAN_ID}.scan.h5"
    scan = samples.scan(declaration=samples.declaration())
    counts = tuple(c.copy() for c in scan.radiograph.counts)
    counts[-1][5, 5] += 1
    changed = msgspec.structs.replace(scan, radiograph=msgspec.structs.replace(scan.radiograph, counts=counts))
    sha256 = recording.write(path, changed, result=samples.result(), config={}, replace=True)
    outbox = Outbox(sites / "north" / "outbox.sqlite")
    with outbox.store.transaction():
        outbox.store.change("UPDATE scans SET sha256=?", (sha256,))
    outbox.close()
    asked = (samples.SCAN_ID, "--archive", sites / "north", "--trust", sites / "trust.json", "--score", "3", "--json")
    told = json.loads(said("exchange", "recognise", pack(sites)[0], *asked, code=1))
    assert len(told["against"]) == 1 and "the image has changed: the counts of one and the same scan" in told["words"]
    told = json.loads(said("exchange", "recognise", pack(sites, form="pictures")[0], *asked, code=1))
    assert "the image cannot be compared: the image received does not show one whole container" in told["words"]


def test_trust_is_shown_and_revoked_with_a_reason(sites):
    package, _ = pack(sites)
    said("exchange", "trust", sites / "trust.json", "--revoke", "south", code=2)
    said("exchange", "trust", sites / "trust.json", "--revoke", "south", "--why", "stolen")
    assert "revoked: stolen" in said("exchange", "trust", sites / "trust.json")
    error = said("exchange", "verify", package, "--trust", sites / "trust.json", code="raises")
    assert "refused: the key of south was revoked: stolen" in error


def test_what_was_found_later_goes_out_too(sites):
    outbox = Outbox(sites / "south" / "outbox.sqlite")
    late = samples.result(outcome="ALARM", reasons=("declared empty, but loaded",))
    match = DeclarationMatch(state="matched", sender="LINE", document="M1", version=1)
    outbox.assess(samples.SCAN_ID, Later(result=late, declaration=samples.declaration(), match=match))
    outbox.close()
    told = json.loads(_member(pack(sites)[0].read_bytes(), "001.scan.json"))
    assert told["result"]["outcome"] == "ALARM" and "M1 of LINE" in told["result"]["reasons"][-1]


def test_a_package_that_could_not_be_written_out_is_not_used_up(sites, monkeypatch):
    package, _ = pack(sites)
    asked = ("exchange", "open", package, "--trust", sites / "trust.json", "--out")
    real = storage.write_durable

    def full(path, data, **options):
        if path.name.endswith(".scan.h5"):
            raise StorageError(f"{path}: no space left")
        real(path, data, **options)

    monkeypatch.setattr(storage, "write_durable", full)
    assert "no space left" in said(*asked, sites / "in", code="raises")
    assert list((sites / "in").iterdir()) == []
    monkeypatch.undo()
    said(*asked, sites / "in")
    assert len(list((sites / "in").iterdir())) == 2
