"""Evidence bundles, figures and training."""

import csv
import io
import json
import zipfile

import pytest
from click.testing import CliRunner

from scanner_io import recording, wire
from scanner_io.bundle import check_bundle
from scanner_io.foreign import ForeignFiles
from scanner_io.model import Opinion
from tests.console.site import drawn_scan, opened, until
from triage.console import evidence, figures, training
from triage.console.journal import Journal
from triage.console.training import Training


@pytest.fixture
def readers():
    with ForeignFiles() as files:
        yield files


def test_a_bundle_holds_everything_and_tells_when_it_was_touched(station, readers, tmp_path):
    scan = opened(station)
    station.journal.keep(scan.scan_id, "regions", [{"label": "<b>box</b>", "box": {}}])
    said = {"scan_id": scan.scan_id, "sha256": scan.offer.sha256, "verdict": "inspect", "given_utc_ns": 1}
    scan.opinions = (
        Opinion(opinion_id="O1", analyst="ben", note="door end", **said),
        Opinion(opinion_id="O2", analyst="eva", note="roof", **said),
    )
    scan.signed = (wire.SignedOpinion(opinion_id="O1", statement=b"\x01all of it", signature=b"\xff"),)
    path = tmp_path / f"{scan.scan_id}.evidence.zip"
    path.write_bytes(evidence.bundle(station, scan))
    assert check_bundle(path, readers) == []
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        told = json.loads(archive.read("scan.json"))
        files = {n: archive.read(n) for n in names}
    assert names == {
        f"{scan.scan_id}.scan.h5", "scan.json", "summary.html", "preview.png", "low-16bit.png", "high-16bit.png",
        "SHA256SUMS",
    }  # fmt: skip
    assert told["sha256"] == scan.offer.sha256
    assert told["signed_opinions"] == [
        {"opinion_id": "O1", "statement": b"\x01all of it".hex(), "signature": "ff"}
    ]  # fmt: skip
    assert b"by ben, signed: door end" in files["summary.html"]
    assert b"by eva, not signed: roof" in files["summary.html"]
    assert files[f"{scan.scan_id}.scan.h5"] == scan.data
    for name, change in (("scan.json", lambda b: b.replace(b"west", b"east")), ("new.txt", lambda b: b"x")):
        with zipfile.ZipFile(path, "w") as archive:
            for other, data in {**files, name: change(files.get(name, b""))}.items():
                archive.writestr(other, data)
        problems = [str(p) for p in check_bundle(path, readers)]
        assert any(name in p for p in problems), problems
    path.write_bytes(path.read_bytes()[:-40])
    assert "no evidence bundle" in str(check_bundle(path, readers)[0])


def test_verify_reads_bundles(tmp_path):
    from triage.cli import cli

    path = tmp_path / "x.evidence.zip"
    path.write_bytes(b"PK")
    done = CliRunner().invoke(cli, ["verify", "--json", str(path)])
    assert done.exit_code == 1
    assert "no evidence bundle" in done.output


def test_figures_count_what_was_decided(station, site):
    scan = opened(station)
    station.decide("d1", scan.scan_id, scan.offer.sha256, "inspect", note="=cmd()", codes=(1,))
    until(lambda: station.journal.entry("d1").state == "acknowledged")
    now = station.journal.entry("d1").made.made_utc_ns + 1
    told = figures.figures(station, 0, now)
    assert (told["decided"], told["by_verdict"], told["by_code"]) == (1, {"inspect": 1}, {"1": 1})
    assert told["time_to_decision_s"]["n"] == 1
    assert told["hours"] == [0] * 23 + [1]
    assert {"kind": "dense_object", "scans": 1, "clear": 0, "inspect": 1, "rescan": 0} in told["findings"]
    (row,) = csv.DictReader(io.StringIO(figures.decisions_csv(station.journal)))
    assert row["note"] == "'=cmd()", "a spreadsheet must not run what an analyst wrote"
    assert row["verdict"] == "inspect"


def test_down_times_have_their_reasons(tmp_path):
    journal = Journal(tmp_path / "j.sqlite")
    for kind in ("disconnected", "connected", "disconnected"):
        journal.note("ana", kind, address="tcp://a")
    first = journal.history(kinds=("disconnected",))[-1]
    journal.note("ana", "down_reason", address="tcp://a", from_utc_ns=first["utc_ns"], reason="power")
    open_period, closed = figures.down_times(journal, 0, int(first["utc_ns"]) + 10**12)
    assert closed["reason"] == "power"
    assert closed["to_utc_ns"] is not None
    assert open_period["to_utc_ns"] is None
    journal.close()


@pytest.fixture
def school(tmp_path, readers):
    rows = []
    (tmp_path / "school").mkdir()
    for number in (0, 1):
        scan, result = drawn_scan(number)
        path = tmp_path / "school" / f"{scan.scan_id}.scan.h5"
        recording.write(path, scan, config={}, result=result)
        box = {"type": "box", "first_column": 300, "end_column": 360, "first_channel": 100, "end_channel": 150}
        rows.append({"file": path.name, "scan_id": scan.scan_id, "threat": "" if number else "brick",
            "threat_box": None if number else box})  # fmt: skip
    (tmp_path / "school" / "truth.json").write_text(json.dumps({"vehicles": rows}))
    journal = Journal(tmp_path / "j.sqlite")
    yield Training(tmp_path / "school", journal, "ana", readers), journal, rows
    journal.close()


def test_training_is_judged_by_the_truth_and_told_with_its_uncertainty(school):
    desk, journal, rows = school
    assert {row.scan_id for row in desk.queue().rows} == {row["scan_id"] for row in rows}
    for row, verdict in zip(rows, ("inspect", "inspect"), strict=True):
        offer = desk.claim(row["scan_id"])
        assert len(desk.fetch(offer)) == offer.size
        assert desk.decide(offer, verdict).reason == "training"
    told = training.figures(journal, "ana")["all"]
    assert (told["hits"], told["false_alarms"], told["misses"]) == (1, 1, 0)
    assert told["hit_rate"] == [1.0, 0.207, 1.0]
    assert told["d_prime"] == 0.0
    assert training.figures(journal, "ben")["all"]["scans"] == 0
    assert training.result_of("rescan", threat=True) == "none"
