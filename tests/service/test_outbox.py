import re
import sqlite3
import time
from contextlib import closing

import msgspec
import pytest

from scanner_io.errors import DeliveryError, StorageError
from scanner_io.model import Decision
from tests import samples
from triage.service import keeping
from triage.service.outbox import MIGRATIONS, Outbox, ScanRow, decisions_in


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def outbox(place, clock):
    box = Outbox(place, monotonic=clock)
    yield box
    box.close()


@pytest.fixture
def in_file(tmp_path):
    """An outbox in SQLite."""
    box = Outbox(tmp_path / "outbox.sqlite")
    yield box
    box.close()


def row(number=1, outcome="REVIEW", **changes):
    scan_id = f"north-20260131T0945{number:02d}.000000Z-0f3a9c1e"
    values = {
        "scan_id": scan_id, "lane": "north", "path": f"/r/{scan_id}", "sha256": "ab" * 32, "size": 100,
        "start_utc_ns": number, "simulated": True, "result": samples.result(scan_id, outcome),
        "declaration": samples.declaration(),
    }  # fmt: skip
    return ScanRow(**{**values, **changes})


def decision(item, **changes):
    values = {
        "decision_id": "d1", "scan_id": item.row.scan_id, "sha256": item.row.sha256, "analyst": item.analyst,
        "verdict": "inspect", "decided_utc_ns": 5, "lease_id": item.lease_id,
    }  # fmt: skip
    return Decision(**{**values, **changes})


def test_a_row_survives_as_it_was_and_is_entered_once(outbox):
    assert outbox.add(row())
    assert not outbox.add(row())
    item = outbox.item(row().scan_id)
    assert item.row == row()
    assert item.state == "pending"
    assert outbox.counts()["recorded"] == 1


def test_clear_scans_are_filed_and_not_offered(outbox):
    outbox.add(row(outcome="CLEAR"))
    assert outbox.lease_next("ana", 10) is None
    assert outbox.item(row().scan_id).state == "filed"


def test_alarms_come_first_then_who_came_first_whatever_its_scanners_clock_says(outbox):
    for number, outcome in ((3, "REVIEW"), (2, "REVIEW"), (5, "ALARM"), (4, "UNUSABLE")):
        outbox.add(row(number, outcome))
    order = []
    while (item := outbox.lease_next("ana", 10)) is not None:
        order.append(item.row.start_utc_ns)
    assert order == [5, 4, 3, 2]


def test_a_clock_that_is_set_changes_no_turn_and_no_waiting(outbox, monkeypatch):
    now = [1_800_000_000 * 10**9]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    outbox.add(row(1, "REVIEW"))
    for number, days in ((2, 1), (3, -2)):
        now[0] += days * 86400 * 10**9
        outbox.clock_moved(days * 86400 * 10**9, "set")
        assert outbox.waiting(60.0) is None
        outbox.add(row(number, "REVIEW"))
        outbox.arrange(1800.0)  # as at a start
    assert [outbox.lease_next("ana", 10).row.start_utc_ns for _ in range(3)] == [1, 2, 3]
    assert [t for (t,) in outbox.store.rows("SELECT text FROM events WHERE kind='clock_stepped'")] == ["set", "set"]


def test_a_leased_scan_is_one_analysts_alone(outbox):
    outbox.add(row())
    first = outbox.lease(row().scan_id, "ana", 10)
    assert outbox.lease(row().scan_id, "ana", 10).lease_id == first.lease_id
    with pytest.raises(DeliveryError, match="leased by ana"):
        outbox.lease(row().scan_id, "ben", 10)
    assert outbox.lease_next("ben", 10) is None


def test_a_lease_runs_out_by_the_monotonic_clock_and_is_renewed(outbox, clock):
    outbox.add(row())
    lease = outbox.lease(row().scan_id, "ana", 10).lease_id
    clock.now += 9
    assert outbox.expired(10) == []
    assert outbox.renew(lease, "ana", 10)
    clock.now += 9
    assert outbox.expired(10) == []
    clock.now += 2
    assert outbox.expired(10) == [lease]
    assert outbox.release(lease, "ran out", 20) == row().scan_id
    assert not outbox.renew(lease, "ana", 10)
    assert outbox.lease_next("ben", 10).row.scan_id == row().scan_id


def test_a_scan_given_back_goes_to_another_first_and_never_behind_a_less_urgent_one(outbox):
    older, newer = row(), msgspec.structs.replace(row(), scan_id="n-2", start_utc_ns=row().start_utc_ns + 1)
    for each in (older, newer):
        outbox.add(each)

    def next_for(analyst):
        """Return the scan that is next for them, which they then have had last."""
        item = outbox.lease_next(analyst, 10)
        outbox.release(item.lease_id, "given back", 20)
        return item.row.scan_id

    assert next_for("ana") == older.scan_id
    assert next_for("ana") == newer.scan_id
    assert next_for("ben") == older.scan_id
    assert next_for("ana") == older.scan_id
    outbox.lease(newer.scan_id, "ben", 10)
    assert next_for("ana") == older.scan_id


def test_after_too_many_tries_a_scan_is_held_and_can_be_claimed(outbox):
    outbox.add(row())
    for _ in range(3):
        outbox.release(outbox.lease(row().scan_id, "ana", 10).lease_id, "no answer", 3)
    item = outbox.item(row().scan_id)
    assert item.state == "held"
    assert "offered 3 times" in item.note
    assert outbox.lease_next("ben", 10) is None
    assert outbox.lease(row().scan_id, "supervisor", 10).state == "leased"


def test_a_decision_is_committed_once_and_repeats_get_the_same_answer(outbox):
    outbox.add(row())
    item = outbox.lease(row().scan_id, "ana", 10)
    first = outbox.decide(decision(item))
    assert first.applied
    again = outbox.decide(decision(item))
    assert again.applied
    assert again.repeated
    assert outbox.item(row().scan_id).state == "decided"
    assert outbox.decisions(row().scan_id) == [(decision(item), True)]
    with pytest.raises(DeliveryError, match="used before"):
        outbox.decide(decision(item, verdict="clear"))


def test_a_late_decision_is_kept_but_not_applied(outbox):
    outbox.add(row())
    late = outbox.lease(row().scan_id, "ana", 10)
    outbox.release(late.lease_id, "ran out", 20)
    current = outbox.lease(row().scan_id, "ben", 10)
    answer = outbox.decide(decision(late))
    assert not answer.applied
    assert "lease had ended" in answer.reason
    assert outbox.item(row().scan_id).analyst == "ben"
    assert outbox.decide(decision(current, decision_id="d2")).applied
    assert [applied for _, applied in outbox.decisions(row().scan_id)] == [False, True]


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        ({"lease_id": ""}, "lease had ended"),
        ({"lease_id": "other"}, "lease had ended"),
        ({"analyst": "ben"}, "lease is ana's"),
        ({"sha256": "cd" * 32}, "made on a recording with hash"),
    ],
)
def test_a_decision_that_does_not_fit_is_kept_and_not_applied(outbox, change, objection):
    outbox.add(row())
    item = outbox.lease(row().scan_id, "ana", 10)
    answer = outbox.decide(decision(item, **change))
    assert not answer.applied
    assert objection in answer.reason
    assert outbox.item(row().scan_id).state == "leased"


def test_delivery_needs_the_right_hash(outbox):
    outbox.add(row())
    item = outbox.lease(row().scan_id, "ana", 10)
    assert not outbox.delivered(item.row.scan_id, item.lease_id, "00" * 32)
    assert outbox.delivered(item.row.scan_id, item.lease_id, item.row.sha256)
    assert outbox.counts()["delivered"] == 1


def test_leases_of_before_a_restart_are_armed_again(place, clock):
    box = Outbox(place, monotonic=clock)
    box.add(row())
    lease = box.lease(row().scan_id, "ana", 10).lease_id
    box.close()
    clock.now = 3.0  # another boot: the monotonic clock began anew
    box = Outbox(place, monotonic=clock)
    assert box.rearm(10) == 1
    assert box.expired(10) == []
    clock.now += 11
    assert box.expired(10) == [lease]
    box.close()


def test_what_another_service_has_selected_waits_although_it_is_clear(outbox):
    assert outbox.add(row(1, "CLEAR"), asked=True) and outbox.add(row(2, "CLEAR"))
    item = outbox.lease_next("ana", 10)
    assert item.row.scan_id == row(1).scan_id and outbox.lease_next("ana", 10) is None
    outbox.release(item.lease_id, "not now", 9)
    assert [outbox.item(row(n).scan_id).state for n in (1, 2)] == ["pending", "filed"]


def test_unfinished_judgements_are_counted_until_there_is_a_row(outbox):
    assert outbox.count_judging(row().path) == 1
    assert outbox.count_judging(row().path) == 2
    outbox.add(row())
    assert outbox.count_judging(row().path) == 1


def test_a_newer_or_damaged_database_is_refused(tmp_path):
    path = tmp_path / "o"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.commit()
    db.close()
    with pytest.raises(StorageError, match="upgrade scanlane"):
        Outbox(path)
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(StorageError, match="not usable"):
        Outbox(path)


def test_a_reader_beside_an_older_database_says_how_to_upgrade_it(tmp_path):
    path = tmp_path / "o"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(MIGRATIONS[0])
        db.execute("PRAGMA user_version=1")
    with pytest.raises(StorageError, match=r"no such .*start its service once"):
        decisions_in(path)
    Outbox(path).close()
    assert decisions_in(path) == []


def test_unknown_scans_are_named(outbox):
    with pytest.raises(DeliveryError, match="no scan 'x'"):
        outbox.item("x")


def test_synchronous_full_is_in_force(in_file):
    assert in_file.store.rows("PRAGMA synchronous") == [(2,)]
    assert in_file.store.rows("PRAGMA journal_mode") == [("wal",)]


def test_results_keep_their_bytes(outbox):
    outbox.add(row())
    assert outbox.item(row().scan_id).row.result.judgement() == row().result.judgement()
    assert msgspec.json.encode(outbox.item(row().scan_id).row.declaration) == msgspec.json.encode(samples.declaration())


def test_a_full_disk_is_a_storage_error_and_loses_nothing(in_file):
    assert in_file.add(row(1))
    ((pages,),) = in_file.store.rows("PRAGMA page_count")
    in_file.store.rows(f"PRAGMA max_page_count={pages}")
    large = row(2, declaration=samples.declaration(goods="x" * 100_000))
    with pytest.raises(StorageError, match="make room on its disk"):
        in_file.add(large)
    assert in_file.counts()["recorded"] == 1
    in_file.store.rows("PRAGMA max_page_count=1000000")
    assert in_file.add(large)
    assert in_file.counts()["recorded"] == 2


def test_judging_counts_only_when_it_begins(outbox):
    assert outbox.judging_attempts("/r/a") == 0
    assert outbox.count_judging("/r/a") == 1
    assert outbox.judging_attempts("/r/a") == 1
    assert outbox.judging_attempts("/r/b") == 0


def test_what_is_no_database_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="move it away: it is made anew"):
        Outbox(path)


def wait(outbox, number, seconds):
    """Let a scan have waited for so long."""
    with outbox.store.transaction():
        since = time.time_ns() - int(seconds * 1e9)
        outbox.store.change("UPDATE outbox SET waits_since_utc_ns=? WHERE scan_id=?", (since, row(number).scan_id))


@pytest.mark.parametrize("age_s", [1800, 600])
def test_whoever_waits_is_passed_by_the_more_urgent_but_not_for_ever(outbox, age_s, monkeypatch):
    """While an analyst takes one scan, two more urgent ones come."""
    begin = time.time_ns() - 10_000 * 10**9
    now = [begin]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    outbox.add(row(1, "REVIEW"))
    outbox.arrange(age_s)
    taken = []
    while 1 not in taken and len(taken) < 100:
        for number in (2 * len(taken) + 2, 2 * len(taken) + 3):
            now[0] = begin + (50 * number + 1) * 10**9
            outbox.add(row(number, "ALARM"))
        scan_id = outbox.lease_next("ana", 10).row.scan_id
        taken.append(next(n for n in range(1, 201) if row(n).scan_id == scan_id))
    # A review lets alarms pass that come up to two tiers' time after it, and no others.
    assert taken == [*range(2, 2 * age_s // 50), 1]


def test_a_scan_from_the_future_waits_no_longer_than_one_of_now(outbox):
    outbox.add(row(1, start_utc_ns=time.time_ns() + 10**18))
    outbox.add(row(2, "REVIEW", start_utc_ns=time.time_ns() + 1))
    assert outbox.lease_next("ana", 10).row.scan_id == row(1).scan_id


def test_scans_that_nobody_takes_are_escalated_once_each_until_somebody_fetches_them(outbox):
    for number, outcome in ((1, "REVIEW"), (2, "ALARM"), (3, "CLEAR"), (4, "REVIEW")):
        outbox.add(row(number, outcome))
        wait(outbox, number, 200 if number < 4 else 100)
    found = outbox.waiting(180)
    assert (found.scans, found.held, found.scan_id, found.outcome) == (2, 0, row(2).scan_id, "ALARM")
    assert found.waited_s == pytest.approx(200, abs=5)
    assert outbox.escalate(180, 1) == [(row(2).scan_id, "ALARM, nobody has taken it for 200 s; times offered: 0")]
    assert [scan for scan, _ in outbox.escalate(180, 9)] == [row(1).scan_id]
    assert outbox.escalate(180, 9) == []
    lease = outbox.lease_next("ana", 10).lease_id
    assert outbox.waiting(180).scans == 2  # a workstation has it, but nobody looks
    outbox.taken(row(2).scan_id, lease, "ana")
    assert outbox.waiting(180).scan_id == row(1).scan_id
    outbox.release(lease, "given back", 20)
    assert outbox.waiting(180).scans == 1  # it begins to wait anew
    outbox.release(outbox.lease(row(4).scan_id, "ana", 10).lease_id, "no answer", 1)
    found = outbox.waiting(180)
    assert (found.scans, found.held) == (2, 1)
    assert outbox.escalate(180, 9) == [(row(4).scan_id, "REVIEW, is held; times offered: 1")]
    kinds = [kind for (kind,) in outbox.store.rows("SELECT kind FROM events WHERE kind IN ('unattended', 'fetched')")]
    assert sorted(kinds) == ["fetched", "unattended", "unattended", "unattended"]


def test_a_clock_that_was_put_back_hides_nobody_who_waits(outbox):
    outbox.add(row(1))
    assert outbox.waiting(180) is None
    wait(outbox, 1, -3600)
    assert outbox.waiting(180).scans == 1


def test_the_queue_is_told_page_by_page(outbox):
    ids = [row(n).scan_id for n in range(1, 6)]
    for n in range(1, 6):
        outbox.add(row(n))
    told = [item.row.scan_id for item in outbox.undecided(2)]
    assert told == ids[:2]
    outbox.decide(decision(outbox.lease(ids[1], "ana", 60.0)))
    assert [item.row.scan_id for item in outbox.undecided(2, told[-1])] == ids[2:4]
    assert [item.row.scan_id for item in outbox.undecided(2, ids[3])] == ids[4:]
    assert outbox.undecided(2, ids[4]) == outbox.undecided(2, "no such scan") == []


def test_counts_for_who_asks_all_the_time_know_what_waits_and_soon_the_rest(outbox):
    assert outbox.add(row(1))
    assert outbox.counts_lately() == outbox.counts()
    outbox._totals = outbox._totals._replace(good_until_s=float("inf"))
    assert outbox.add(row(2)) and outbox.add(row(3, "CLEAR"))
    assert outbox.counts_lately()["pending"] == outbox.counts()["pending"] == 2
    assert outbox.counts_lately()["recorded"] == 1
    outbox._totals = outbox._totals._replace(good_until_s=0.0)
    assert outbox.counts_lately() == outbox.counts() and outbox.counts()["recorded"] == 3


WHOLE_TABLE = re.compile("SCAN (outbox|scans|events|opinions|decisions|assessments)")


def plans(outbox, call):
    """Return how SQLite goes about every statement that a call makes, and what the call returns."""
    statements = []
    outbox.store._db.set_trace_callback(statements.append)
    try:
        found = call()
    finally:
        outbox.store._db.set_trace_callback(None)
    last = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1"  # ends after one step
    asked = [s for s in statements if s.split()[0] in ("SELECT", "UPDATE", "DELETE") and s != last]
    steps = {s: [step[3] for step in outbox.store._db.execute(f"EXPLAIN QUERY PLAN {s}")] for s in asked}
    return steps, found


def test_nothing_that_is_asked_all_the_time_looks_through_all_that_ever_was(in_file):
    """A service of years has a million scans and ten million events; plans do not depend on how many there are."""
    for number, outcome in enumerate(("REVIEW", "ALARM", "CLEAR", "REVIEW"), 1):
        in_file.add(row(number, outcome))
    in_file.counts_lately()
    lease = in_file.lease_next("bo", 10)
    calls = {
        "add": lambda: in_file.add(row(9)), "lease_next": lambda: in_file.lease_next("ana", 10),
        "waiting": lambda: in_file.waiting(0.0), "escalate": lambda: in_file.escalate(0.0, 10),
        "opinion_counts": in_file.opinion_counts, "undecided": lambda: in_file.undecided(10),
        "undecided after": lambda: in_file.undecided(10, row(1).scan_id),
        "holder": lambda: in_file.holder(lease.lease_id),
        "taken": lambda: in_file.taken(lease.row.scan_id, lease.lease_id, "bo"),
        "delivered": lambda: in_file.delivered(lease.row.scan_id, lease.lease_id, lease.row.sha256),
        "renew": lambda: in_file.renew(lease.lease_id, "bo", 10), "decide": lambda: in_file.decide(decision(lease)),
        "decided_since": lambda: in_file.decided_since(0), "path_of": lambda: in_file.path_of(row(1).scan_id),
        "item": lambda: in_file.item(row(1).scan_id), "arrange": lambda: in_file.arrange(60.0),
        "clock_moved": lambda: in_file.clock_moved(10**9, "set"), "damaged": lambda: keeping.damaged(in_file),
        "undecided recordings": lambda: keeping.undecided(in_file),
        "a page": lambda: [*keeping._some(in_file.store.rows, "", keeping._DECIDED, "m", 10)],
    }  # fmt: skip
    through = {}
    for name, call in calls.items():
        steps, _ = plans(in_file, call)
        assert steps, name
        through |= {f"{name}: {s}": p for s, p in steps.items() if any(map(WHOLE_TABLE.match, p))}
        sorted_out = "a page" in name and "USE TEMP B-TREE FOR ORDER BY" in str(steps)
        assert not sorted_out, "every page would go through all that is behind it"
    assert through == {}
