"""Second readings of cleared scans at the workstation: blind, and kept beside the first decision."""

import time

import pytest

from scanner_io.errors import StorageError
from scanner_io.model import Decision
from tests.console.site import opened, until
from triage.console.station import SECOND, Station
from triage.service import quality
from triage.service.outbox import Outbox
from triage.service.second_reader import SecondReader


@pytest.fixture
def archive(tmp_path, drawn):
    """An archive in which ben has cleared two scans, and a sample of both is kept."""
    place = tmp_path / "outbox.sqlite"
    outbox = Outbox(place)
    for number, row in enumerate(drawn[:2]):
        outbox.add(row)
        item = outbox.lease(row.scan_id, "ben", 60.0)
        decision = Decision(
            decision_id=f"d{number}", scan_id=row.scan_id, sha256=row.sha256, analyst="ben", verdict="clear",
            decided_utc_ns=time.time_ns(), lease_id=item.lease_id,
        )  # fmt: skip
        outbox.decide(decision)
    with pytest.raises(StorageError, match="no sample"):
        SecondReader(place, "ana")
    quality.record(outbox, quality.draw(place, 1, 1.0, 2, 0, time.time_ns()), "chief")
    outbox.close()
    return place


def test_a_cleared_scan_is_read_again_blind_and_the_disagreement_kept(archive, tmp_path, drawn):
    (tmp_path / "ana").mkdir()
    desk = SecondReader(archive, "ana")
    station = Station((), "ana", tmp_path / "ana", hold_s=0.0, second=desk)
    try:
        until(lambda: len(station.queue()["rows"]) == 2)
        row = station.queue()["rows"][0]
        assert (row["apart"], row["outcome"], row["reasons"]) == (SECOND, "REVIEW", ())
        station.journal.keep(row["scan_id"], "regions", [{"label": "of the first reader"}])
        scan = opened(station)
        assert station.meta(scan.scan_id)["regions"] == []
        told = str(station.meta(scan.scan_id)) + str(row)
        assert drawn[0].result.findings[0].reason not in told and "ben" not in told
        entry = station.decide("r1", scan.scan_id, scan.offer.sha256, "inspect", note="behind the door")
        until(lambda: station.journal.entry(entry.made.id).state == "acknowledged")
        until(lambda: len(station.queue()["rows"]) == 1)
        assert not station.journal.entries(scan_id=scan.scan_id)[0].made.address.startswith("tcp")
        again = desk.decide(scan.offer, "inspect")
        other = desk.decide(scan.offer, "clear")
        assert again.applied and not other.applied and "first reading stays" in other.reason
    finally:
        station.close()
    reads = {r.cleared.scan_id: (r.cleared.analyst, r.reader, r.verdict) for r in quality.readings(archive)}
    assert reads.pop(scan.scan_id) == ("ben", "ana", "inspect")
    assert list(reads.values()) == [("ben", "", "")]
    assert quality.to_read(archive, "ben") == {}, "who cleared a scan does not read it again"
    outbox = Outbox(archive)
    assert [d.verdict for d, _ in outbox.decisions(scan.scan_id)] == ["clear"], "the first decision stays"
    outbox.close()
