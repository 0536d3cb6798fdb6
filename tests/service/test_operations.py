"""`scanlane report`: what a site did in a time."""

import csv
import io
import json

import pytest

from scanner_io.errors import StorageError
from scanner_io.model import Opinion
from tests.service.risk_rig import put, said
from triage.service import operations, outbox, store
from triage.service.operations import Event, watched

SECOND = 10**9


def events(*told):
    return [Event(at * SECOND, kind, who, text) for at, kind, who, text in told]


def test_a_lane_is_down_from_its_death_to_its_return():
    told = [
        (0, "service_started", "", ""),
        (5, "lane_ready", "north", "process 7 of "),
        (6, "lane_ready", "south", "process 8 of "),
        (100, "lane_died", "north", "exit code -9"),
        (130, "lane_ready", "north", "process 9 of "),
    ]
    watch = watched(events(*told))
    assert watch.since_ns == {"north": 5 * SECOND, "south": 6 * SECOND}
    assert watch.lanes == [("north", 100 * SECOND, 130 * SECOND, "its process died: exit code -9")]
    assert watch.lanes[0].inside(110 * SECOND, 125 * SECOND) == 15 * SECOND


def test_a_service_that_ended_without_a_word_was_down_since_its_last():
    watch = watched(events(
        (0, "service_started", "", ""), (5, "lane_ready", "north", "process 7 of "), (50, "", "", ""),
        (500, "service_started", "", ""), (510, "lane_ready", "north", "process 9 of "),
        (600, "service_stopped", "", ""),
    ))  # fmt: skip
    assert watch.lanes == [
        ("north", 50 * SECOND, 510 * SECOND, "the service ended without a word"),
        ("north", 600 * SECOND, None, "the service was stopped"),
    ]


def test_a_lane_that_has_finished_is_not_down():
    watch = watched(events(
        (5, "lane_ready", "north", "process 7 of "), (9, "lane_finished", "north", ""), (20, "service_stopped", "", ""),
    ))  # fmt: skip
    assert watch.lanes == []


def test_of_services_that_share_a_database_each_has_its_own_lanes():
    watch = watched(events(
        (5, "lane_ready", "north", "process 7 of a"), (6, "lane_ready", "south", "process 8 of b"),
        (50, "hub_lost", "a", ""), (90, "service_started", "a", ""), (95, "lane_ready", "north", "process 1 of a"),
    ))  # fmt: skip
    assert watch.lanes == [("north", 50 * SECOND, 95 * SECOND, "its service was lost")]


def test_a_devices_fault_lasts_until_it_says_that_it_is_well():
    watch = watched(events(
        (10, "health", "north portal", "link fault at 2026-01-05T06:00:00.000+00:00: no line for 10 s: unplugged"),
        (20, "health", "north portal", "link ok at 2026-01-05T06:00:10.000+00:00: again"),
        (30, "health", "north portal", "gamma degraded at 2026-01-05T06:00:20.000+00:00: high background"),
    ))  # fmt: skip
    assert watch.devices == [
        ("north portal link", 10 * SECOND, 20 * SECOND, "fault: no line for 10 s: unplugged"),
        ("north portal gamma", 30 * SECOND, None, "degraded: high background"),
    ]


def test_a_lane_that_takes_nothing_in_is_down_with_the_reason_and_no_time_counts_twice():
    watch = watched(events(
        (5, "lane_ready", "north", "process 7 of "), (100, "lane_down", "north", "no link to portal"),
        (160, "lane_down", "north", "disk full"), (200, "lane_up", "north", ""),
        (300, "lane_down", "north", "no link to portal"), (350, "lane_died", "north", "exit code -9"),
        (360, "lane_ready", "north", "process 9 of "), (400, "lane_down", "north", "disk full"),
        (500, "service_stopped", "", ""), (600, "service_started", "", ""),
        (610, "lane_ready", "north", "process 1 of "), (700, "lane_down", "north", "no link to portal"),
    ))  # fmt: skip
    assert watch.lanes == [
        ("north", 100 * SECOND, 160 * SECOND, "no link to portal"), ("north", 160 * SECOND, 200 * SECOND, "disk full"),
        ("north", 300 * SECOND, 350 * SECOND, "no link to portal"),
        ("north", 350 * SECOND, 360 * SECOND, "its process died: exit code -9"),
        ("north", 400 * SECOND, 500 * SECOND, "disk full"),
        ("north", 500 * SECOND, 610 * SECOND, "the service was stopped"),
        ("north", 700 * SECOND, None, "no link to portal"),
    ]  # fmt: skip


def test_what_a_lanes_process_said_of_a_device_ends_with_that_process():
    watch = watched(events(
        (5, "lane_ready", "north", "process 7 of "), (6, "lane_ready", "south", "process 8 of "),
        (10, "health", "north portal", "link degraded at 2026-01-05T06:00:00.000+00:00: odd"),
        (11, "health", "south portal", "link degraded at 2026-01-05T06:00:00.000+00:00: odd"),
        (90, "lane_ready", "north", "process 9 of "),
    ))  # fmt: skip
    assert watch.devices == [
        ("north portal link", 10 * SECOND, 90 * SECOND, "degraded: odd"),
        ("south portal link", 11 * SECOND, None, "degraded: odd"),
    ]


@pytest.fixture
def archive(tmp_path):
    box = outbox.Outbox(tmp_path / "outbox.sqlite")
    box.note("service_started", "", who="")
    box.note("lane_ready", "process 7 of ", who="north")
    put(box, 0, outcome="CLEAR")
    put(box, 1, "inspect", (1,))
    put(box, 2, "inspect", (6,))
    put(box, 3, "inspect")
    put(box, 4, "clear")
    name = put(box, 5)
    item = box.lease(name, "eva", 60)
    opinion = Opinion(
        opinion_id="o1", scan_id=name, sha256="ab" * 32, analyst="eva", verdict="clear", given_utc_ns=1, blind=False
    )
    box.opine(opinion, item.lease_id)
    box.note("lane_died", "exit code 1", who="north")
    box.close()
    return tmp_path


def test_every_rate_has_its_counts(archive):
    told = operations.report(store.named(str(archive)), 0, 2**62)
    north = told["lanes"]["north"]
    assert (north["scans"], north["simulated"], told["simulated"]) == (6, 6, 6)
    assert (north["flagged"]["hits"], north["flagged"]["of"]) == (5, 6)
    assert north["decisions"] == {"clear": 1, "inspect": 3} and north["undecided"] == 1
    assert (north["hits"]["hits"], north["hits"]["of"]) == (1, 2)  # the third tells nothing of what came of it
    assert north["time_to_decision_s"]["count"] == 4 and north["time_to_decision_s"]["p95"] >= 0
    assert [d["reason"] for d in north["downtime"]] == ["its process died: exit code 1"]
    assert north["availability"] < 0.001  # the period is a long one
    assert told["all"]["scans"] == 6
    assert told["disagreements"]["of"] == 0  # the scan of the opinion is not decided


def test_a_time_without_anything_is_an_error_and_not_a_row_of_zeros(archive):
    with pytest.raises(StorageError, match="--from"):
        operations.report(store.named(str(archive)), 0, SECOND)


def test_only_what_the_period_needs_is_read(archive):
    place = store.named(str(archive))
    box = outbox.Outbox(place)
    with box.store.transaction():  # long ago, and nothing of it can be read any more
        old = box.store.row("SELECT MIN(scan_id) FROM scans")
        box.store.change("UPDATE scans SET added_utc_ns=1, result=x'00' WHERE scan_id=?", old)
    ((plan,),) = [row[-1:] for row in box.store.rows(
        "EXPLAIN QUERY PLAN SELECT scan_id FROM scans WHERE added_utc_ns>=? AND added_utc_ns<?", (2, 3)
    )]  # fmt: skip
    box.close()
    assert "USING COVERING INDEX scans_added" in plan
    assert operations.report(place, 2, 2**62)["lanes"]["north"]["scans"] == 5
    with pytest.raises(StorageError, match="cannot be read"):
        operations.report(place, 0, 2**62)


def test_the_command_prints_words_json_csv_and_a_page(archive, tmp_path):
    told = json.loads(said("report", archive, "--json"))
    assert told["lanes"]["north"]["scans"] == 6
    words = said("report", archive, "--html", tmp_path / "r.html", "--csv", tmp_path / "r.csv")
    assert "5/6" in words and "simulated" in words
    page = (tmp_path / "r.html").read_text()
    assert "its process died: exit code 1" in page and "6 of the scans are simulated" in page
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r.csv").read_text())))
    assert [(r["lane"], r["scans"], r["flagged"], r["hits"], r["hits_of"]) for r in rows] == [
        ("north", "6", "5", "1", "2"), ("all", "6", "5", "1", "2"),
    ]  # fmt: skip
    assert "no time" in said("report", archive, "--from", "yesterday", code=2)
    nothing = said("report", archive, "--from", "2001-01-01", "--to", "2001-01-02", code="raises")
    assert isinstance(nothing, StorageError)


def test_what_comes_from_devices_is_no_markup_on_the_page(tmp_path):
    box = outbox.Outbox(tmp_path / "outbox.sqlite")
    box.note("lane_ready", "process 7 of ", who="north")
    box.note("health", "link fault at 2026-01-05T06:00:00.000+00:00: <script>alert(1)</script>", who="north portal")
    put(box, 1)
    box.close()
    page = operations.html(operations.report(store.named(str(tmp_path)), 0, 2**62))
    assert "<script>" not in page and "&lt;script&gt;" in page
