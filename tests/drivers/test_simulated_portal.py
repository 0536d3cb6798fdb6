"""The simulated portal: what it says is what a portal says, by the spec's figures; faults are played as planned."""

import json
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from drivers.simulated import (
    FAULT_KINDS,
    ClockStep,
    Fault,
    Link,
    Passing,
    Piece,
    PortalPty,
    PortalServer,
    Traffic,
    play,
    write_daily_file,
)
from scanner_io import driver as drivers
from scanner_io.errors import LinkLost
from scanner_io.formats.portal_daily import PortalDecoder, read_daily_file
from scanner_io.model import Health, Occupancy
from tests.service.daemon_rig import ENVIRONMENT, ROOT, Process
from triage.analysis.portal import replay_rule

START_NS = 1_767_571_200_000_000_000
QUIET = {"source_share": 0.0, "norm_share": 0.0, "neutron_share": 0.0, "patient_share": 0.0}


def bytes_of(config):
    return b"".join(p.data for p in play(config) if isinstance(p, Piece))


def lines_of(config, code):
    begin = code.encode() + b","
    said = (p.data for p in play(config) if isinstance(p, Piece))
    return [line.decode().strip().split(",")[1:] for line in said if line.startswith(begin)]


def decoded(config):
    """Return events and truths, decoded as they come, without link or clock changes."""
    decoder, events, truths = PortalDecoder(), [], []
    for played in play(config):
        if isinstance(played, Piece):
            events += decoder.feed(played.data, START_NS + int(played.t_s * 1e9))
        elif isinstance(played, Link) and not played.up:
            events += decoder.lost(START_NS + int(played.t_s * 1e9))
        elif isinstance(played, Passing):
            truths.append(played)
    return events, truths


def records_of(config):
    return [e.record for e in decoded(config)[0] if isinstance(e, Occupancy) and e.record is not None]


def test_same_seed_same_bytes_however_many_follow():
    for settings in ({}, {"fault_share": 1.0, "extensions": True}):
        short = bytes_of(Traffic(passes=20, **settings))
        assert short == bytes_of(Traffic(passes=20, **settings))
        assert bytes_of(Traffic(passes=20, seed=2, **settings)) != short
    whole = bytes_of(Traffic(passes=30))
    assert whole.startswith(bytes_of(Traffic(passes=20)).rpartition(b"GX")[0])


def test_any_split_gives_the_same_events():
    data = bytes_of(Traffic(passes=6, extensions=True, seed=3))
    rng = np.random.default_rng(1)

    def counts(pieces):
        decoder = PortalDecoder()
        events = [e for piece in pieces for e in decoder.feed(piece, START_NS)]
        return [
            (e.record.gamma.tolist(), e.record.neutron.tolist(), e.record.number, e.record.raw_lines)
            for e in events if isinstance(e, Occupancy) and e.record is not None
        ]  # fmt: skip

    whole = counts([data])
    assert len(whole) == 6
    for _ in range(5):
        cuts = np.sort(rng.integers(0, len(data), 400))
        assert counts([data[a:b] for a, b in pairwise([0, *cuts, len(data)])]) == whole


def test_published_background_is_a_running_mean_of_twenty_seconds():
    config = Traffic(passes=1, gap_s=30_000.0, shortest_gap_s=30_000.0, weather=0.0, extensions=True, **QUIET)
    gamma = np.array(lines_of(config, "GB"), float)
    total = gamma.sum(axis=1)
    assert len(total) > 5900
    assert np.corrcoef(total[:-1], total[1:])[0, 1] == pytest.approx(0.75, abs=0.03)
    assert np.diff(total).std() == pytest.approx(np.sqrt(total.mean() / 40), rel=0.06)
    assert total.var() == pytest.approx(total.mean() / 20, rel=0.2)
    exact, whole = np.array(lines_of(config, "NB1"), float), np.array(lines_of(config, "NB"), int)
    np.testing.assert_array_equal(np.floor(exact), whole)
    assert exact.sum(axis=1).mean() == pytest.approx(6.2, abs=0.3)
    windows, shares = np.array(lines_of(config, "AB1"), float), np.array(lines_of(config, "AR"), float)
    np.testing.assert_allclose(windows / windows.sum(axis=1, keepdims=True), shares, atol=1e-4)


def test_a_passage_begins_ends_and_is_shaded_as_recorded_ones():
    events, truths = decoded(Traffic(passes=600, weather=0.0, **QUIET))
    records = [e.record for e in events if isinstance(e, Occupancy) and e.record is not None]
    assert len(records) == 600 and [r.number for r in records] == list(range(1, 601))
    assert all(r.end_reason == "complete" and not r.faults for r in records)
    first = [next(x for x in r.raw_lines)[:2] for r in records]
    assert set(first) == {"SP", "NS"} and 0.6 < first.count("SP") / 600 < 0.8
    burst = np.array([(r.gamma_arrival_ns[4] - r.gamma_arrival_ns[0]) / 1e9 for r in records])
    assert burst.max() < 0.03
    live = np.diff(records[0].gamma_arrival_ns[9:]) / 1e9
    assert np.median(live) == pytest.approx(0.2, abs=0.005)
    # Five intervals from before entry, nearly unshaded; ten after the vehicle has left.
    usual = np.array([r.gamma_background.sum() for r in records])
    before = np.array([r.gamma[:5].sum() for r in records]) / usual
    assert np.median(before) == pytest.approx(0.97, abs=0.05)
    for record, truth in zip(records, truths, strict=True):
        assert record.gamma.shape[0] == truth.gamma == truth.gamma_sent
        assert record.gamma.shape[0] * 0.2 - 1.0 - 2.0 == pytest.approx(truth.leave_s - truth.enter_s, abs=0.25)
    deepest = np.array([np.convolve(r.gamma.sum(axis=1), np.ones(5), "valid").min() for r in records])
    depth = 1 - deepest / usual
    assert np.median(depth) == pytest.approx(0.41, abs=0.02)
    low, high = np.percentile(depth, (5, 95))
    assert low == pytest.approx(0.27, abs=0.03) and high == pytest.approx(0.52, abs=0.03)
    speeds = np.array([float(x.split(",")[2]) for r in records for x in r.raw_lines if x.startswith("SP")])
    assert (speeds == 99.999).mean() == pytest.approx(70 / 145, abs=0.05)
    assert all(abs(r.speed_kmh / (t.speed_mm_s * 0.0036) - 1) < 0.08 for r, t in zip(records, truths, strict=True))


def test_gx_carries_the_neutron_background_in_thousandths():
    config = Traffic(passes=30, extensions=True, **QUIET)
    last, seen = None, 0
    for played in play(config):
        if not isinstance(played, Piece):
            continue
        if played.data.startswith(b"NB1"):
            last = sum(float(f) for f in played.data.split(b",")[1:])
        elif played.data.startswith(b"GX"):
            assert abs(int(played.data.split(b",")[2]) - int(1000 * last)) <= 1
            seen += 1
    assert seen == 30


def test_alarm_flags_are_those_of_the_vendors_rule():
    records = records_of(Traffic(passes=300, source_share=0.3, norm_share=0.3, patient_share=0.3))
    assert sum(r.gamma_alarm.any() for r in records) > 60
    for record in records:
        replay = replay_rule(record, record.settings.nsigma)
        assert replay.missed == replay.extra == ()


def test_sources_loads_neutrons_and_patients_are_what_was_asked_for():
    strong = {"source_cps": (4000.0, 4000.0), "norm_cps": (2500.0, 2500.0), "neutron_cps_range": (80.0, 80.0)}

    def pulse_s(record):
        total = record.gamma.sum(axis=1) - 0.2 * record.gamma_background.sum()
        return (total > total.max() / 2).sum() * 0.2

    point = records_of(Traffic(passes=40, **strong, **{**QUIET, "source_share": 1.0}))
    load = records_of(Traffic(passes=40, **strong, **{**QUIET, "norm_share": 1.0}))
    assert all(r.gamma_alarm.any() for r in point + load)
    assert np.median([pulse_s(r) for r in load]) > 2 * np.median([pulse_s(r) for r in point])
    neutron = records_of(Traffic(passes=40, **strong, **{**QUIET, "neutron_share": 1.0}))
    assert all(r.neutron_alarm.any() for r in neutron) and not any(r.gamma_alarm.any() for r in neutron)
    cross, truths = decoded(Traffic(passes=80, **{**QUIET, "patient_share": 1.0}))
    sides = []
    for record in (e.record for e in cross if isinstance(e, Occupancy) and e.record is not None):
        pillars = record.gamma.reshape(-1, 2, 2).sum(axis=(0, 2)) / record.gamma_background.reshape(2, 2).sum(axis=1)
        sides.append(abs(pillars[0] - pillars[1]) / pillars.mean())
    assert all(t.patient and not t.sources for t in truths) and np.max(sides) > 0.5


def test_weather_moves_the_background_by_percents():
    day = Traffic(passes=1, gap_s=86_000.0, shortest_gap_s=86_000.0, **QUIET)
    total = np.array(lines_of(day, "GB"), float).sum(axis=1)
    slow = np.convolve(total, np.ones(120) / 120, "valid")
    assert 1.03 < slow.max() / slow.min() < 1.3


PLANNED = [
    ("missing_gx", {}, lambda r: r[1].end_reason in ("aborted", "timed_out") and r[1].number is None),
    ("bad_count", {}, lambda r: "damaged_line" in r[1].faults),
    ("garbage", {}, lambda r: "damaged_line" in r[1].faults),
    ("nul", {}, lambda r: r[1].faults != ()),
    ("joined", {}, lambda r: "damaged_line" in r[1].faults),
    ("over_long", {}, lambda r: "damaged_line" in r[1].faults),
    ("split", {}, lambda r: r[1].faults == () and r[1].end_reason == "complete"),
    ("slow", {}, lambda r: r[1].faults == () and r[1].end_reason == "complete"),
    ("one_segment", {}, lambda r: r[1].faults == () and r[1].end_reason == "complete"),
    ("stall", {"seconds": 2.0}, lambda r: r[1].end_reason == "complete" and len(r) == 3),
    ("silence", {"seconds": 1.5}, lambda r: "lines_lost" in r[1].faults and len(r) == 3),
    ("silence", {"seconds": 1.5, "at": -0.1}, lambda r: "start_not_seen" in r[1].faults and len(r) == 3),
    ("link_lost", {"seconds": 0.5}, lambda r: r[1].end_reason == "link_lost" and "start_not_seen" in r[2].faults),
    ("link_cut", {"seconds": 60.0}, lambda r: r[1].end_reason == "link_lost" and r[1].raw_lines[-1].startswith("[cut")),
    ("power_cycle", {"seconds": 2.0, "at": 0.4}, lambda r: r[1].end_reason == "aborted" and r[2].number == 1),
    ("tamper", {"seconds": 30.0}, lambda r: "TT" in r[1].faults),
    ("gamma_high", {"seconds": 300.0, "at": -2.0}, lambda r: "GH" in r[1].faults and r[1].gamma_alarm.any()),
    ("gamma_low", {"seconds": 300.0, "at": -2.0}, lambda r: "GL" in r[1].faults),
    ("neutron_high", {"seconds": 300.0, "at": -2.0}, lambda r: "NH" in r[1].faults),
    ("dead_detector", {"seconds": 300.0, "at": -1.0, "detector": 2}, lambda r: r[1].gamma[:, 2].sum() == 0),
    ("stuck_detector", {"seconds": 300.0, "at": -1.0, "detector": 1}, lambda r: len(set(r[1].gamma[:, 1])) == 1),
    ("number_reset", {}, lambda r: [x.number for x in r] == [1, 2, 1] and r[2].boot_epoch > r[1].boot_epoch),
    ("repeated_line", {}, lambda r: r[1].faults == ("line_repeated",) and r[1].end_reason == "complete"),
    ("lost_line", {}, lambda r: r[1].end_reason == "complete"),
]


@pytest.mark.parametrize(("kind", "how", "holds"), PLANNED, ids=[f"{k} {h}" for k, h, _ in PLANNED])
def test_a_planned_fault_strikes_the_passage_it_is_planned_for(kind, how, holds):
    plan = (Fault(kind=kind, passage=1, **how),)
    config = Traffic(passes=3, plan=plan, gap_s=60.0, shortest_gap_s=59.0, **QUIET)
    events, truths = decoded(config)
    records = [e.record for e in events if isinstance(e, Occupancy) and e.record is not None]
    assert [t.faults for t in truths] == [(), plan, ()]
    assert holds(records), [(r.number, r.end_reason, r.faults, r.gamma.shape[0]) for r in records]


def test_every_kind_of_fault_is_planned_above():
    assert {k for k, _, _ in PLANNED} | {"clock_step"} == set(FAULT_KINDS)
    plan = (Fault(kind="clock_step", passage=0, seconds=-3600.0),)
    (step,) = [p for p in play(Traffic(passes=1, plan=plan)) if isinstance(p, ClockStep)]
    assert step.step_s == -3600.0


def test_tamper_and_faults_end_with_words():
    plan = (Fault(kind="tamper", passage=0, seconds=20.0), Fault(kind="gamma_high", passage=1, seconds=40.0))
    events, _ = decoded(Traffic(passes=3, plan=plan, gap_s=60.0, shortest_gap_s=59.0, **QUIET))
    told = [(e.component, e.state) for e in events if isinstance(e, Health)]
    assert told == [("tamper", "fault"), ("tamper", "ok"), ("gamma", "fault"), ("gamma", "ok")]


# ---------------------------------------------------------------------------------------------------------- as a file


@pytest.mark.parametrize("form", ["dated", "dateless", "unpadded"])
def test_a_daily_file_holds_what_was_played(tmp_path, form):
    path = tmp_path / "portal-2026-01-05.csv"
    config = Traffic(passes=12, seed=4, extensions=True)
    truth = write_daily_file(path, config, start_utc_ns=START_NS + 86_100_000_000_000, form=form, utc_offset_h=0)
    records = read_daily_file(path)
    assert [r.number for r in records] == [t.number for t in truth.occupancies]
    for record, passed in zip(records, truth.occupancies, strict=True):
        assert record.gamma.shape[0] == passed.gamma and record.end_reason == "complete"
        start_s = (record.start_utc_ns - truth.start_utc_ns) / 1e9
        assert start_s == pytest.approx(passed.first_s, abs=0.002), "midnight lies in the middle of the file"


def test_the_same_daily_file_in_another_zone_is_the_same_instant(tmp_path):
    config = Traffic(passes=2)
    starts = []
    for hours in (-7, 0, 12):
        write_daily_file(tmp_path / "zone.csv", config, start_utc_ns=START_NS, utc_offset_h=hours)
        starts.append(read_daily_file(tmp_path / "zone.csv")[0].start_utc_ns)
    assert len(set(starts)) == 1


# -------------------------------------------------------------------------------------------------------- as a device


def read_records(address, count, *, limit_s=40.0):
    """Return the records that the portal driver gives, and how often the link was lost."""
    module = drivers.load("rpm_rapiscan")
    source = drivers.connect("rpm_rapiscan", module.Config(address=address))
    found, lost = [], 0
    deadline_s = time.monotonic() + limit_s
    source.open()
    try:
        while len(found) < count and time.monotonic() < deadline_s:
            try:
                event = source.read(0.2)
            except LinkLost:
                lost += 1
                source.close()
                time.sleep(0.1)
                try:
                    source.open()
                except LinkLost:
                    continue
                continue
            if isinstance(event, Occupancy) and event.record is not None:
                found.append(event.record)
    finally:
        source.close()
    return found, lost


def simulator(*words):
    return Process("-m", "triage.cli", "simulate", "portal", *words)


def same_counts(records, truth):
    return [(r.number, r.gamma.shape[0], r.neutron.shape[0]) for r in records] == [
        (t["number"], t["gamma"], t["neutron"]) for t in truth["occupancies"]
    ]


def test_the_portal_driver_reads_it_over_tcp(tmp_path):
    told = tmp_path / "truth.json"
    words = ("--tcp", "127.0.0.1:0", "--speed", "40", "--passes", "3", "--gap", "8", "--wait", "--truth", str(told))
    with simulator(*words) as portal:
        where = portal.wait_for("listening")
        assert where["simulated"] is True
        records, _ = read_records(where["address"], 3)
        portal.wait_for("played")
    truth = json.loads(told.read_bytes())
    assert truth["simulated"] is True and same_counts(records, truth)
    assert all(t["simulated"] for t in truth["occupancies"])


def test_the_portal_driver_reads_it_on_a_serial_line(tmp_path):
    told = tmp_path / "truth.json"
    words = ("--pty", "--speed", "40", "--passes", "3", "--gap", "8", "--wait", "--truth", str(told))
    with simulator(*words) as portal:
        where = portal.wait_for("listening")
        records, _ = read_records(where["address"], 3)
        portal.wait_for("played")
    assert same_counts(records, json.loads(told.read_bytes()))


def test_whoever_comes_late_is_told_the_set_up_and_so_that_it_is_a_simulation():
    portal = PortalServer(Traffic(seed=2, gap_s=8.0, **QUIET), "127.0.0.1", 0, speed=20.0, wait_for=1)
    thread = threading.Thread(target=portal.run)
    thread.start()
    try:
        first, _ = read_records(portal.address, 1)
        late, _ = read_records(portal.address, 2)
    finally:
        portal.stop.set()
        thread.join(10)
    assert first[0].simulated and [r.simulated for r in late] == [True, True]
    assert first[0].settings == late[0].settings and late[0].boot_epoch > first[0].boot_epoch


def test_who_is_there_from_the_start_hears_the_set_up_once():
    with simulator("--tcp", "127.0.0.1:0", "--speed", "100", "--passes", "1", "--gap", "8", "--wait") as portal:
        client, heard = socket.create_connection(("127.0.0.1", portal.wait_for("listening")["port"]), timeout=20), b""
        with client:
            while data := client.recv(65_536):
                heard += data
    assert heard.count(b"SG1,") == 1


def test_the_next_reader_of_a_serial_line_is_told_the_set_up():
    portal = PortalPty(Traffic(seed=2, gap_s=8.0, **QUIET), speed=20.0, wait=True)
    thread = threading.Thread(target=portal.run)
    thread.start()
    try:
        records = [read_records(portal.address, 1)[0][0]]
        time.sleep(0.3)  # the terminal must have seen that nobody reads
        records += read_records(portal.address, 1)[0]
    finally:
        portal.stop.set()
        thread.join(10)
    assert [r.simulated for r in records] == [True, True]


def test_several_clients_hear_the_same_and_none_is_asked_anything():
    with simulator("--tcp", "127.0.0.1:0", "--speed", "40", "--passes", "2", "--gap", "8") as portal:
        port = portal.wait_for("listening")["port"]
        heard = [b"", b""]
        clients = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in heard]
        clients[0].sendall(b"a portal takes no request\r\n")
        for k, client in enumerate(clients):
            with client:
                while data := client.recv(65_536):
                    heard[k] += data
    one, two = (h[h.index(b"NB,") :] for h in heard)  # they may have come a moment apart
    assert one.endswith(two) or two.endswith(one)
    assert one.count(b"GX,") == 2 and b"\r\n" in one


def test_a_lost_link_is_lost_for_the_driver_and_comes_back(tmp_path):
    plan, told = tmp_path / "plan.json", tmp_path / "truth.json"
    plan.write_text(json.dumps([{"kind": "link_cut", "passage": 1, "at": 0.5, "seconds": 20.0}]))
    words = ("--tcp", "127.0.0.1:0", "--speed", "20", "--passes", "3", "--gap", "60", "--wait",
             "--faults", str(plan), "--truth", str(told))  # fmt: skip
    with simulator(*words) as portal:
        records, lost = read_records(portal.wait_for("listening")["address"], 3)
        portal.wait_for("played")
    truth = json.loads(told.read_bytes())["occupancies"]
    assert lost >= 1 and [r.end_reason for r in records] == ["complete", "link_lost", "complete"]
    assert records[1].gamma.shape[0] == truth[1]["gamma"] < truth[1]["gamma_sent"]
    assert truth[1]["faults"][0]["kind"] == "link_cut" and not truth[1]["ended"]


def test_the_truth_is_written_when_it_is_stopped(tmp_path):
    told = tmp_path / "truth.json"
    portal = simulator("--tcp", "127.0.0.1:0", "--speed", "200", "--truth", str(told))
    portal.wait_for("listening")
    time.sleep(1.0)
    assert portal.stop() == 0
    assert len(json.loads(told.read_bytes())["occupancies"]) >= 1


def scanlane(*words):
    done = subprocess.run(
        [sys.executable, "-m", "triage.cli", *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT,
        cwd=ROOT,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_daily_file_by_the_command_line_is_judged_and_said_to_be_simulated(tmp_path):
    path, told = tmp_path / "day.csv", tmp_path / "truth.json"
    words = ("--out", path, "--passes", "5", "--faults", "0.5", "--start", "2026-03-01T23:59:00-07:00", "--truth", told)
    code, said, errors = scanlane("simulate", "portal", *words)
    assert code == 0, errors
    assert said[0] == {"event": "written", "simulated": True, "file": str(path)}
    assert said[1]["passes"] == 5 == len(json.loads(told.read_bytes())["occupancies"])
    assert b" -07\r\n" in path.read_bytes()
    _, rows, _ = scanlane("triage", path, "--json")
    assert rows and all(row["simulated"] for row in rows if row["error"] is None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "one of --tcp, --pty and --out"),
        (("--pty", "--tcp", "127.0.0.1:0"), "one of --tcp, --pty and --out"),
        (("--tcp", "nowhere"), "expected HOST:PORT"),
        (("--tcp", "192.0.2.1:1"), "cannot be bound"),
        (("--pty", "--faults", "many"), "neither a share from 0 to 1 nor a JSON file"),
        (("--pty", "--faults", "3"), "fault_share"),
        (("--out", "x.csv", "--start", "today"), "expected ISO 8601"),
    ],
)
def test_what_makes_no_portal_is_refused_with_words(words, says):
    code, said, errors = scanlane("simulate", "portal", *words)
    assert code == 2 and said == [] and says in errors


def test_a_plan_names_what_is_wrong_with_it(tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([{"kind": "link_lots", "passage": 1}]))
    code, _, errors = scanlane("simulate", "portal", "--pty", "--faults", plan)
    assert code == 2 and "plan" in errors and "link_lots" in errors
