import json
import signal
import threading
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from scanner_io import config
from scanner_io.client import Workstation
from scanner_io.errors import ConfigError, DeliveryError, StorageError
from scanner_io.model import Decision
from tests import samples
from tests.service.daemon_rig import daemon, lane_with_drop, put_image, write_config
from triage.cli import cli
from triage.service import audit, keeping, store_postgres
from triage.service.checkup import check_config
from triage.service.outbox import BEAT_S, LOST_BEATS, MIGRATIONS, Outbox, ScanRow, decisions_in
from triage.service.store import Server, found_in, named, place_of, sign


@pytest.fixture
def server(cluster):
    """Where an outbox of this test alone may be made."""
    return Server(cluster.new())


def row(number):
    scan_id = f"north-20260131T0945{number:02d}.000000Z-0f3a9c1e"
    return ScanRow(
        scan_id=scan_id, lane="north", path=f"/r/{scan_id}", sha256="ab" * 32, size=100, start_utc_ns=number,
        simulated=True, result=samples.result(scan_id, "REVIEW"),
    )  # fmt: skip


def problems(place):
    return audit.verify(place, None, None).problems


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_the_server_may_be_restarted_and_nothing_acknowledged_is_lost(cluster, server, how):
    now = [0.0]
    outbox = Outbox(server, monotonic=lambda: now[0])
    try:
        outbox.add(row(1))
        lease = outbox.lease_next("ana", 10).lease_id
        with pytest.raises(StorageError, match="postgresql://"), outbox.store.transaction():
            outbox.store.change("UPDATE outbox SET analyst='eve'")
            cluster.stop(how=how)
            outbox.note("never", "committed")
        with pytest.raises(StorageError, match="no connection"):
            outbox.add(row(2))
        cluster.start()
        # The first attempt after it was away waits its turn, so that a server that is away does not hold up the loop.
        outbox.store._not_before_s = 0.0
        assert outbox.add(row(2))
        assert outbox.item(row(1).scan_id).analyst == "ana"
        assert outbox.expired(10) == []
        now[0] += 11
        assert outbox.expired(10) == [lease]
        assert outbox.store.connections == 2
    finally:
        outbox.close()
    assert problems(server) == []


def crash_while_written(cluster, server, times):
    """Let the server crash while scans are entered, taken and decided; return how much was acknowledged and lost."""
    ending, acknowledged = threading.Event(), {"added": [], "decided": []}

    def write():
        outbox = Outbox(server)
        number = 0
        while not ending.is_set():
            number += 1
            one = msgspec.structs.replace(row(1), scan_id=f"north-{number:06d}", start_utc_ns=number)
            for step in (lambda one=one: outbox.add(one), lambda one=one: decide(outbox, one)):
                while not ending.is_set():
                    try:
                        step()
                        break
                    except StorageError:
                        outbox.store._not_before_s = 0.0
                        time.sleep(0.01)
        outbox.close()

    def decide(outbox, one):
        acknowledged["added"].append(one.scan_id)
        item = outbox.lease(one.scan_id, "ana", 1000) if outbox.item(one.scan_id).state != "decided" else None
        decision = Decision(
            decision_id=f"d-{one.scan_id}", scan_id=one.scan_id, sha256=one.sha256, analyst="ana", verdict="clear",
            decided_utc_ns=1, lease_id=item.lease_id if item else "",
        )  # fmt: skip
        if item is None or outbox.decide(decision).applied:
            acknowledged["decided"].append(one.scan_id)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(times):
            before = len(acknowledged["decided"])
            deadline = time.monotonic() + 20
            while len(acknowledged["decided"]) < before + 20 and time.monotonic() < deadline:
                time.sleep(0.005)
            assert len(acknowledged["decided"]) >= before + 20
            cluster.stop(how=signal.SIGQUIT)
            cluster.start()
    finally:
        ending.set()
        writer.join()
    states = dict(cluster.ask(server.url, "SELECT scan_id, state FROM outbox"))
    lost = [s for s in acknowledged["added"] if s not in states]
    lost += [s for s in acknowledged["decided"] if states[s] != "decided"]
    return len(set(acknowledged["added"])) + len(set(acknowledged["decided"])), lost


@pytest.mark.parametrize("times", [2, pytest.param(25, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_nothing_acknowledged_is_lost_by_crashes_in_the_middle_of_it(cluster, server, times):
    count, lost = crash_while_written(cluster, server, times)
    assert lost == []
    assert count >= 40 * times
    assert problems(server) == []


def test_a_step_after_a_restart_that_nobody_noticed_is_done_on_a_new_connection(cluster, server):
    outbox = Outbox(server)
    try:
        cluster.stop()
        cluster.start()
        assert outbox.add(row(1))
        cluster.stop()
        cluster.start()
        assert outbox.counts()["recorded"] == 1
    finally:
        outbox.close()


def test_a_lease_whose_commit_was_not_answered_ends_all_the_same(cluster, server):
    now = [0.0]
    outbox = Outbox(server, monotonic=lambda: now[0])
    try:
        outbox.add(row(1))
        lease = outbox.lease_next("ana", 10).lease_id
        outbox._deadlines.clear()  # as if the answer to its COMMIT had been lost with the connection
        cluster.stop()
        cluster.start()
        assert outbox.counts()["leased"] == 1
        assert outbox.expired(10) == []
        now[0] += 11
        assert outbox.expired(10) == [lease]
    finally:
        outbox.close()


def test_services_that_take_at_the_same_time_never_take_the_same(server):
    first = Outbox(server)
    count = 40
    for number in range(count):
        first.add(row(number))
    first.close()
    taken, errors = [], []

    def take(analyst):
        outbox = Outbox(server)
        try:
            while (item := outbox.lease_next(analyst, 10)) is not None:
                taken.append(item.row.scan_id)
        except StorageError as error:
            errors.append(error)
        finally:
            outbox.close()

    threads = [threading.Thread(target=take, args=(f"analyst {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(taken) == sorted(row(n).scan_id for n in range(count))
    found = audit.verify(server, None, None)
    assert found.problems == []
    assert found.rows == 2 * count


def test_who_takes_passes_over_what_another_is_taking(server):
    one, other = Outbox(server), Outbox(server)
    try:
        one.add(row(1))
        one.add(row(2))
        with one.store.transaction():
            assert one.store.locked("SELECT scan_id FROM outbox WHERE scan_id=?", (row(1).scan_id,))
            assert other.lease_next("ben", 10).row.scan_id == row(2).scan_id
    finally:
        one.close()
        other.close()


def test_two_services_may_bring_up_the_schema_at_the_same_time(server):
    opened, barrier = [], threading.Barrier(2)

    def begin():
        barrier.wait()
        opened.append(Outbox(server))

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outbox in opened:
        outbox.close()
    assert len(opened) == 2


def test_a_reader_beside_a_database_without_tables_says_how_to_make_them(cluster, server):
    with pytest.raises(StorageError, match="start its service once"):
        decisions_in(server)


def test_a_newer_schema_is_refused(cluster, server):
    Outbox(server).close()
    outbox = Outbox(server)
    with outbox.store.transaction():
        outbox.store.change("INSERT INTO migrations VALUES (?, now())", (len(MIGRATIONS) + 1,))
    outbox.close()
    with pytest.raises(StorageError, match="upgrade scanlane"):
        Outbox(server)


def test_a_server_that_gives_up_durability_is_refused(cluster, server):
    outbox = Outbox(server)
    outbox.close()
    for value, refused in (("off", True), ("on", False)):
        cluster.set("full_page_writes", value)
        if refused:
            with pytest.raises(StorageError, match="full_page_writes is off, expected on"):
                Outbox(server)
        else:
            Outbox(server).close()


def test_the_password_comes_from_a_file_and_is_told_nobody(cluster, tmp_path):
    url = cluster.url(host="127.0.0.1")
    file = tmp_path / "password"
    with pytest.raises(StorageError, match="no password supplied"):
        Outbox(Server(url))
    file.write_text(cluster.password + "\n")
    file.chmod(0o644)
    with pytest.raises(StorageError, match="lets others read this secret"):
        Outbox(Server(url, str(file)))
    file.chmod(0o600)
    outbox = Outbox(Server(url, str(file)))
    outbox.close()
    assert cluster.password not in repr(outbox.store.__dict__)
    file.write_text("wrong" + cluster.password)
    with pytest.raises(StorageError, match="password authentication failed") as told:
        Outbox(Server(url, str(file)))
    assert cluster.password not in str(told.value)


def test_the_audit_of_a_server_is_verified_by_its_url_or_its_state_folder(cluster, server, tmp_path):
    outbox = Outbox(server)
    for number in range(5):
        outbox.add(row(number))
    outbox.close()
    sign(tmp_path, server)
    for name in (server.url, str(tmp_path)):
        told = CliRunner().invoke(cli, ["audit", "verify", name])
        assert told.exit_code == 0, told.output
        assert told.output.startswith("5 events")
    cluster.ask(server.url, "UPDATE events SET who='eve' WHERE seq=3 RETURNING 1")
    told = CliRunner().invoke(cli, ["audit", "verify", server.url, "--json"])
    assert told.exit_code == 1
    assert [p["seq"] for p in json.loads(told.output)["problems"]] == [3]
    assert decisions_in(server) == []


def test_a_state_folder_says_where_its_outbox_is(tmp_path, server):
    assert found_in(tmp_path) is None
    sign(tmp_path, server)
    assert found_in(tmp_path) == named(str(tmp_path)) == server
    (tmp_path / "outbox.url").write_text("{")
    with pytest.raises(StorageError, match="does not name a database"):
        found_in(tmp_path)
    sign(tmp_path, tmp_path / "outbox.sqlite")
    assert found_in(tmp_path) is None


class Hubs:
    """Two services on one database, and the clock of both."""

    def __init__(self, url, *, shared):
        self.now = 0.0
        self.a, self.b = (
            Outbox(Server(url, hub=hub, shared=shared), monotonic=lambda: self.now) for hub in ("a", "b")
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.a.close()
        self.b.close()


def test_services_that_do_not_share_recordings_offer_their_own(cluster):
    url = cluster.new()
    with Hubs(url, shared=False) as hubs:
        hubs.a.add(row(1))
        assert hubs.b.lease_next("ben", 10) is None
        assert hubs.a.path_of(row(1).scan_id) == row(1).path
        assert hubs.b.path_of(row(1).scan_id) is None
        with pytest.raises(DeliveryError, match="its recording is at hub 'a'; ask there"):
            hubs.b.lease(row(1).scan_id, "ben", 10)
        assert [*keeping.everything(hubs.b.place)] == []
        item = hubs.a.lease_next("ana", 10)
        assert hubs.b.rearm(10) == 0
        assert hubs.b.leases_of("ana") == {}
        assert hubs.a.leases_of("ana") == {item.lease_id: row(1).scan_id}
    again = Outbox(Server(url, hub="renamed"))
    assert not again.add(row(1))
    assert again.item(row(1).scan_id).hub == "renamed"
    again.close()


def test_a_service_that_shares_its_recordings_is_taken_over_from_when_it_is_gone(cluster):
    url = cluster.new()
    with Hubs(url, shared=True) as hubs:
        for number in (1, 2):
            hubs.a.add(row(number))
        lease = hubs.a.lease_next("ana", 1000).lease_id
        assert hubs.b.lease_next("ben", 1000).row.scan_id == row(2).scan_id
        for _ in range(12):  # as long as both live nobody is lost, however long it takes
            assert hubs.a.beat() == hubs.b.beat() == []
            hubs.now += BEAT_S
        hubs.now += 3600  # the database was away for both of them
        for _ in range(LOST_BEATS - 1):
            assert hubs.b.beat() == []
            hubs.now += BEAT_S
        assert hubs.b.beat() == ["hub a is silent; 0 scans wait there, 1 are out on lease"]
        assert hubs.b.lease_next("ben", 10).row.scan_id == row(1).scan_id
        assert hubs.a.holder(lease) == ""
        hubs.now += BEAT_S
        assert hubs.b.beat() == []
        hubs.a.beat()
        kinds = [kind for (kind,) in hubs.a.store.rows("SELECT kind FROM events WHERE who='a' ORDER BY seq")]
        assert kinds == ["hub_lost", "hub_back"]
    assert problems(Server(url)) == []


def test_leases_of_a_service_that_is_gone_end_although_who_noticed_it_did_not_come_to_it(cluster):
    url = cluster.new()
    with Hubs(url, shared=True) as hubs:
        hubs.a.beat()
        hubs.a.add(row(1))
        hubs.a.lease_next("ana", 1000)
        with hubs.b.store.transaction():
            hubs.b.store.change("UPDATE hubs SET lost=1 WHERE hub='a'")
        hubs.b.beat()
        assert hubs.b.lease_next("ben", 10).row.scan_id == row(1).scan_id


def test_a_lease_that_is_asked_for_again_at_another_service_is_that_ones(cluster):
    with Hubs(cluster.new(), shared=True) as hubs:
        hubs.a.add(row(1))
        lease = hubs.a.lease_next("ana", 1000).lease_id
        assert hubs.b.lease(row(1).scan_id, "ana", 1000).lease_id == lease
        assert hubs.b.leases_of("ana") == {lease: row(1).scan_id} and hubs.a.leases_of("ana") == {}


def test_a_name_is_one_services_alone(cluster, monkeypatch):
    monkeypatch.setitem(store_postgres.SESSION, "lock_timeout", "200ms")
    server = Server(cluster.new(), hub="site")
    outbox = Outbox(server)
    with pytest.raises(StorageError, match="another service is hub 'site' there"):
        Outbox(server)
    outbox.close()
    Outbox(server).close()


def test_the_check_tries_the_server(cluster, tmp_path, monkeypatch):
    monkeypatch.setitem(store_postgres.SESSION, "lock_timeout", "200ms")
    _, lane = lane_with_drop(tmp_path)
    path = write_config(tmp_path, f'[outbox]\nurl = "{cluster.new()}"\nhub = "north"\n' + lane)
    problems, notes = check_config(path, 1.0)
    assert problems == []
    assert any("hub 'north' is free" in note for note in notes)
    outbox = Outbox(place_of(config.load(path)))
    assert "another service is hub 'north'" in check_config(path, 1.0)[0][0]
    outbox.close()


@pytest.mark.timeout(240)
def test_a_daemon_outlives_a_restart_of_its_server(cluster, tmp_path):
    drop, lane = lane_with_drop(tmp_path)
    outbox = f'[outbox]\nurl = "{cluster.new()}"\nhub = "north"\n'
    with daemon(write_config(tmp_path, outbox + lane)) as service:
        address = service.wait_for("listening")["address"]
        put_image(drop, "a.png", 1)
        service.wait_for("scan")
        with Workstation(address, "ana") as desk:
            offer = desk.next_offer(20)
            cluster.stop()
            put_image(drop, "b.png", 2)
            service.wait_for("outbox_fault")
            with pytest.raises(DeliveryError, match="no answer to decide"):
                desk.decide(offer, "clear", timeout_s=1.5)
            assert desk.silent_s < 5
            cluster.start()
            service.wait_for("scan")
            assert desk.decide(offer, "clear", timeout_s=30).applied
            assert desk.next_offer(30).scan_id != offer.scan_id
        assert service.stop() == 0
    told = CliRunner().invoke(cli, ["audit", "verify", str(tmp_path / "state")])
    assert told.exit_code == 0, told.output
    assert not (tmp_path / "state" / "outbox.sqlite").exists()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://lane@localhost/site", ""),
        ("postgresql://lane@/site?host=/run/postgresql", ""),
        ("postgresql://lane@db.site:5433/site?sslmode=verify-full", ""),
        ("postgresql://lane@127.0.0.1,[::1]:5433/site", ""),
        ("postgresql://lane:secret@localhost/site", "has a password in it"),
        ("postgresql://lane@localhost/site?password=secret", "has a password in it"),
        ("postgresql://lane@db.site/site", "db.site is another machine"),
        ("postgresql://lane@db.site/site?sslmode=require", "db.site is another machine"),
        ("postgresql://lane@localhost,db.site/site", "db.site is another machine"),
        ("postgresql://lane@/site?host=db.site", "db.site is another machine"),
        ("postgresql://localhost/site", "expected postgresql://USER@HOST/DATABASE"),
        ("postgresql://lane@localhost", "expected postgresql://USER@HOST/DATABASE"),
        ("sqlite:///x", "expected postgresql://USER@HOST/DATABASE"),
    ],
)
def test_urls_are_checked_before_anything_is_tried(url, why, tmp_path):
    told = config.url_problem(url)
    assert why in told if why else told == ""
    assert "secret" not in told
    text = f'state_dir = "s"\n[outbox]\nurl = "{url}"\nhub = "a"\n[[lane]]\nname = "n"\n'
    text += '[[lane.device]]\ndriver = "simulated"\n'
    if why:
        with pytest.raises(ConfigError, match=r"outbox\.url"):
            config.parse(text, "x", Path(tmp_path))
    else:
        assert config.parse(text, "x", Path(tmp_path)).outbox.url == url
