"""The workstation behind the page, against the real service: opening, deciding, losing and coming back."""

import sqlite3
import threading
import time

import msgspec
import pytest

from scanner_io import recording, wire
from scanner_io.client import Workstation
from scanner_io.errors import DataError, DeliveryError
from tests.console.site import Site, opened, row_of, until
from tests.console.test_view import known_scan
from triage.console.journal import Journal, Made
from triage.console.station import Station
from triage.service.dispatch import Dispatch


def state_of(station, decision_id):
    return station.journal.entry(decision_id).state


def test_what_is_shown_is_what_was_recorded(station):
    scan = opened(station)
    meta = station.meta(scan.scan_id)
    assert (meta["columns"], meta["rows"], meta["sha256"]) == (640, 300, scan.offer.sha256)
    assert meta["lease"]["mine"]
    # the detector's first channel is at the bottom
    assert meta["findings"][0]["box"] == {"x0": 300, "y0": 150, "x1": 360, "y1": 200}
    tile = scan.pyramids[-1].tile(0, 0, 0)
    assert tile[160, 310] == round(0.05 * 65535)
    assert tile[10, 70] == round(0.91 * 65535)
    portal = station.portal(scan.scan_id)
    assert portal["background"] == pytest.approx(4 * 380 * 0.2)
    assert portal["threshold"] == pytest.approx((304 * 5 + 5 * (304 * 5) ** 0.5) / 5)


def test_a_decision_names_the_hash_it_was_made_on_and_comes_once(station, site):
    scan = opened(station)
    with pytest.raises(DataError, match="its recording hashes to"):
        station.decide("d1", scan.scan_id, "0" * 64, "clear")
    with pytest.raises(DataError, match="needs a note"):
        station.decide("d1", scan.scan_id, scan.offer.sha256, "inspect", note=" ")
    station.decide("d1", scan.scan_id, scan.offer.sha256, "clear")
    station.decide("d1", scan.scan_id, scan.offer.sha256, "inspect", note="the same id again is the first decision")
    with pytest.raises(DeliveryError, match="on its way already"):
        station.decide("d2", scan.scan_id, scan.offer.sha256, "clear")
    until(lambda: state_of(station, "d1") == "acknowledged")
    assert [(d.verdict, applied) for d, applied in site.decisions(scan.scan_id)] == [("clear", True)]


def test_a_scan_that_somebody_else_has_cannot_be_opened_here(station, site):
    scan_id = station.queue()["rows"][0]["scan_id"]
    with Workstation(site.address, "ben", capacity=0) as other:
        other.claim(scan_id)
        scan = station.open(scan_id)
        assert scan.done.wait(10)
        assert scan.state == "failed"
        assert "leased by ben" in scan.error


def test_a_stolen_scan_is_told_and_cannot_be_decided(station, site):
    scan = opened(station)
    site.steal(scan.scan_id, "ben")
    until(lambda: scan.state == "lost")
    with pytest.raises(DeliveryError, match="not yours any more"):
        station.decide("d1", scan.scan_id, scan.offer.sha256, "clear")
    assert station.journal.history(kinds=("lease_lost",))


def test_a_decision_while_the_service_is_away_is_kept_and_comes_when_it_is_back(station, site):
    scan = opened(station)
    site.stop()
    until(lambda: not station.services_told()[0]["connected"])
    station.decide("d1", scan.scan_id, scan.offer.sha256, "inspect", note="dense")
    time.sleep(1.0)
    assert state_of(station, "d1") == "sending"
    site.start()
    until(lambda: state_of(station, "d1") == "acknowledged", 20)
    assert site.state(scan.scan_id) == "decided"
    kinds = [line["kind"] for line in station.journal.history()]
    assert {"disconnected", "connected"} <= set(kinds)


def test_a_decision_outlives_the_console_and_a_lease_that_ended_on_the_way(station, site, tmp_path):
    scan = opened(station)
    made = Made(
        id="late", address=site.address, scan_id=scan.scan_id, sha256=scan.offer.sha256, analyst="ben",
        verdict="clear", made_utc_ns=time.time_ns(), lease_id="of a console that was ended",
    )  # fmt: skip
    station.release(scan.scan_id)
    until(lambda: site.state(scan.scan_id) == "pending")
    folder = tmp_path / "ben"
    folder.mkdir()
    journal = Journal(folder / "console.sqlite")
    journal.add(made, 0)
    journal.close()
    again = Station((site.address,), "ben", folder)
    try:
        until(lambda: state_of(again, "late") == "acknowledged")
    finally:
        again.close()
    assert [(d.analyst, applied) for d, applied in site.decisions(scan.scan_id)] == [("ben", False), ("ben", True)]


def test_undone_decisions_are_never_sent(station, site):
    scan = opened(station)
    station.hold_s = 1.0
    station.decide("d1", scan.scan_id, scan.offer.sha256, "clear")
    station.undo("d1")
    time.sleep(1.3)
    assert state_of(station, "d1") == "undone"
    assert not site.decisions(scan.scan_id)
    with pytest.raises(DeliveryError, match="cannot be undone"):
        station.undo("d1")


def test_scans_given_back_and_memory_bounded(station, site):
    station._memory_bytes = 1
    first = opened(station)
    second = opened(station, 1)
    assert first.scan_id not in station._open, "what does not fit is forgotten"
    until(lambda: site.state(first.scan_id) == "pending")
    assert site.state(second.scan_id) == "leased"
    earlier = station.earlier(first.scan_id)
    assert not earlier["lease"]["mine"]
    assert [e["scan_id"] for e in station.meta(second.scan_id)["earlier"]] == [first.scan_id]


def test_a_recording_of_another_scan_is_not_shown(tmp_path, drawn):
    other = drawn[1]
    wrong = msgspec.structs.replace(drawn[0], path=other.path, size=other.size, sha256=other.sha256)
    site = Site(tmp_path, [wrong])
    running = Station((site.address,), "ana", tmp_path)
    try:
        until(lambda: running.queue()["rows"])
        scan = running.open(wrong.scan_id)
        assert scan.done.wait(10)
        assert scan.state == "failed"
        assert "is of " + other.scan_id in scan.error
    finally:
        running.close()
        site.stop()


@pytest.fixture
def second_desk(tmp_path, site):
    """Another analyst's workstation, with a journal of its own."""
    folder = tmp_path / "ben"
    folder.mkdir()
    running = Station((site.address,), "ben", folder, hold_s=0.1)
    until(lambda: running.queue()["rows"])
    yield running
    running.close()


def test_a_lane_that_vanishes_in_mid_fetch_goes_on_where_it_stopped(tmp_path, monkeypatch):
    scan, result = known_scan(0)
    recording.write(tmp_path / f"{scan.scan_id}.scan.h5", scan, config={}, result=result)
    row = row_of(tmp_path / f"{scan.scan_id}.scan.h5")
    assert row.size > 2 * wire.CHUNK_BYTES
    back, sent, whole = threading.Event(), [], Dispatch._fetch

    def first_chunk_only(dispatch, connection, message):
        if back.is_set():
            sent.append(message.offset)
            whole(dispatch, connection, message)
        elif not message.offset:
            whole(dispatch, connection, msgspec.structs.replace(message, credit=1))

    monkeypatch.setattr(Dispatch, "_fetch", first_chunk_only)
    site = Site(tmp_path, [row], heartbeat_s=0.2)
    running = Station((site.address,), "ana", tmp_path)
    try:
        until(lambda: running.queue()["rows"])
        opening = running.open(scan.scan_id)
        until(lambda: opening.have == wire.CHUNK_BYTES)
        site.stop()
        assert not opening.done.wait(0.5)
        assert running.opening(scan.scan_id)["state"] == "fetching"
        with pytest.raises(DeliveryError, match="is not open here"):
            running.meta(scan.scan_id)
        back.set()
        site.start()
        assert opening.done.wait(20)
        assert (opening.state, opening.mine) == ("ready", True), opening.error
        assert min(sent) == wire.CHUNK_BYTES, "what was here is not sent again"
        assert (opening.scan.radiograph.counts[1] == scan.radiograph.counts[1]).all()
    finally:
        running.close()
        site.stop()


def test_opinions_reach_other_desks_and_are_blind_until_they_have_decided(station, second_desk, site):
    scan = opened(station)
    with pytest.raises(DataError, match="with a note"):
        station.give_opinion(scan.scan_id, scan.offer.sha256, "inspect", " ", blind=True)
    station.give_opinion(scan.scan_id, scan.offer.sha256, "inspect", "door end", blind=True)
    assert site.state(scan.scan_id) == "pending"
    with pytest.raises(DeliveryError, match="is not yours"):
        station.give_opinion(scan.scan_id, scan.offer.sha256, "inspect", "again", blind=True)
    row = until(lambda: next((r for r in station.queue()["rows"] if r["opinions"]), None))
    assert (row["scan_id"], row["given_on"]) == (scan.scan_id, True)
    there = second_desk.open(scan.scan_id)
    assert there.done.wait(20)
    (told,) = second_desk.meta(scan.scan_id)["opinions"]
    assert (told["who"], told["verdict"], told["note"], told["hidden"]) == ("ana", None, "", True)
    second_desk.decide("b", scan.scan_id, scan.offer.sha256, "clear")
    (told,) = until(lambda: [o for o in second_desk.opinions(scan.scan_id) if not o["hidden"]])
    assert (told["who"], told["verdict"], told["note"]) == ("ana", "inspect", "door end")


def test_what_is_fetched_ahead_waits_for_every_desk_and_is_not_fetched_twice(station, second_desk, site):
    first, second = (row["scan_id"] for row in station.queue()["rows"][:2])
    for scan_id in (first, second):
        assert station.open(scan_id, ahead=True).done.wait(20)
        assert (station._open[scan_id].state, site.state(scan_id)) == ("ready", "pending")
    assert not station.journal.history(kinds=("opened",))
    picture = station._open[first].pyramids
    assert not station.meta(first)["lease"]["mine"]
    with pytest.raises(DeliveryError, match="not yours"):
        station.decide("d", first, station._open[first].offer.sha256, "clear")
    scan = station.open(first)
    assert (scan.state, scan.mine, site.state(first)) == ("ready", True, "leased")
    assert scan.pyramids is picture
    assert second_desk.open(second).done.wait(20)
    scan = station.open(second)
    assert scan.state == "failed"
    assert "leased by ben" in scan.error


def test_a_recording_that_is_another_by_the_time_it_is_opened_is_fetched_again(station, site):
    scan_id = station.queue()["rows"][0]["scan_id"]
    ahead = station.open(scan_id, ahead=True)
    assert ahead.done.wait(20)
    sha256, picture = ahead.offer.sha256, ahead.pyramids
    ahead.offer = msgspec.structs.replace(ahead.offer, sha256="0" * 64)
    scan = station.open(scan_id)
    assert scan.done.wait(20)
    assert (scan.state, scan.offer.sha256) == ("ready", sha256)
    assert scan.pyramids is not picture


def test_history_can_only_be_added_to(tmp_path):
    journal = Journal(tmp_path / "j.sqlite")
    journal.note("ana", "opened", "s")
    journal.close()
    with sqlite3.connect(tmp_path / "j.sqlite") as database:
        for change in ("UPDATE history SET who='ben'", "DELETE FROM history"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                database.execute(change)
    database.close()


def test_draft_and_settings_are_kept(tmp_path):
    journal = Journal(tmp_path / "j.sqlite")
    journal.keep("ana", "settings", {"palette": "cividis"})
    assert journal.kept("ana", "settings") == {"palette": "cividis"}
    assert journal.kept("ben", "settings", {}) == {}
    made = Made(
        id="1", address="a", scan_id="s", sha256="h", analyst="ana", verdict="clear", made_utc_ns=5, lease_id="l"
    )
    assert journal.add(made, 0).state == "held"
    assert journal.add(msgspec.structs.replace(made, verdict="inspect"), 0).made.verdict == "clear"
    journal.close()
