"""The watch over a lane's promise outlives its process, and a new profile begins anew."""

import msgspec
import numpy as np
import pytest

from scanner_io import lane_profile
from scanner_io.errors import DataError
from scanner_io.model import Box, Finding, Standing, TriageResult
from tests import lanes, samples
from tests.service.daemon_rig import daemon, write_config
from triage.analysis.drift import Watch
from triage.analysis.pipeline import Profile
from triage.service import offline
from triage.service import promise as promises
from triage.service.lane import Judge
from triage.service.lane import lane_profile as lane_profile_of
from triage.service.outbox import Outbox
from triage.service.promise import Promise, kept_watch

PROFILE = lanes.profile(count=300)
BOX = Box(first_column=0, end_column=9, first_channel=0, end_channel=9)


def result_of(one, p_value=0.5, **changes):
    standing = Standing(
        p_value=p_value, level=PROFILE.level, stratum="s", scans=100, cell=one.cell, scores=one.scores,
        vital_signs=one.vital_signs,
    )  # fmt: skip
    values = {"outcome": "CLEAR", "container": BOX, "findings": (), "standing": standing}
    return samples.result(one.scan, **{**values, **changes})


def opened(tmp_path, profile=PROFILE):
    return Promise(tmp_path / "promise", "north", profile, tmp_path / "quarantine")


def test_it_goes_on_after_a_restart_where_it_was(tmp_path):
    rng = np.random.default_rng(2)
    straight = Watch(PROFILE)
    promise = opened(tmp_path)
    told = []
    for n, one in enumerate(lanes.examples(rng, 120, first=1000, noise=1.5)):
        if n % 40 == 20:
            promise = opened(tmp_path)
        straight.take(lanes.seen(one))
        told.append(promise.take(result_of(one)))
    assert promise.watch.evidence == straight.evidence and promise.watch.stale == straight.stale != ""
    changes = [t for t in told if t is not None]
    assert [c.state for c in changes] == ["degraded"] and "noise" in changes[0].text
    again = opened(tmp_path)
    assert again.health().state == "degraded"
    assert kept_watch(tmp_path, PROFILE).stale == straight.stale
    cleared = opened(tmp_path, lanes.profile(count=300, seed=4))
    assert cleared.health().state == "ok" and cleared.watch.scans == 0


@pytest.mark.parametrize("every", [7, 1000])
def test_a_watch_that_was_written_down_goes_on_to_the_last_bit(tmp_path, monkeypatch, every):
    monkeypatch.setattr(promises, "KEEP_EVERY", every)
    monkeypatch.setattr(promises, "MOST_KNOWN", 30)
    straight, rng = Watch(PROFILE), np.random.default_rng(3)
    some = list(lanes.examples(rng, 60, first=2000, noise=0.3))
    promise = opened(tmp_path)
    for n, one in enumerate(some):
        if n % 17 == 16:
            promise = opened(tmp_path)
        straight.take(lanes.seen(one))
        promise.take(result_of(one))
    lines = next((tmp_path / "promise" / "north").glob("*.jsonl"))
    taken = []
    take = Watch.take
    monkeypatch.setattr(Watch, "take", lambda watch, scan: taken.append(scan.scan) or take(watch, scan))
    again = opened(tmp_path)
    assert len(taken) == (60 % 7 if every == 7 else 60)
    assert again.watch.state() == straight.state()
    again.take(result_of(some[-1]))  # it is known
    assert again.watch.scans == 60 == len(lines.read_bytes().splitlines())


@pytest.mark.parametrize("harm", ["damaged", "of other lines", "over other numbers"])
def test_a_written_watch_that_is_of_no_use_costs_nothing_but_time(tmp_path, monkeypatch, harm):
    monkeypatch.setattr(promises, "KEEP_EVERY", 5)
    promise = opened(tmp_path)
    for one in lanes.examples(np.random.default_rng(5), 10):
        promise.take(result_of(one))
    (path,) = (tmp_path / "promise" / "north").glob("*.watch")
    kept = msgspec.msgpack.decode(path.read_bytes(), type=promises.Kept)
    if harm == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        changes = {"tail": bytes(32)} if harm == "of other lines" else {
            "watch": msgspec.structs.replace(kept.watch, sums={"x": [1.0]})
        }  # fmt: skip
        path.write_bytes(msgspec.msgpack.encode(msgspec.structs.replace(kept, **changes)))
    assert opened(tmp_path).watch.state() == promise.watch.state()


def test_a_scan_counts_once_and_only_if_it_is_an_example(tmp_path):
    one, two = lanes.examples(np.random.default_rng(1), 2)
    promise = opened(tmp_path)
    assert promise.take(result_of(one, p_value=0.001)) is None
    promise.take(result_of(one))
    assert (promise.watch.scans, promise.watch.flagged) == (1, 1)
    alarm = Finding(kind="gamma", score=1.0, reason="r", tier="alarm")
    for changes in ({"outcome": "UNUSABLE"}, {"gamma_alarm": True}, {"findings": (alarm,)}, {"standing": None}):
        promise.take(result_of(two, **changes))
    assert promise.watch.scans == 1
    assert opened(tmp_path).watch.scans == 1


def test_a_torn_line_is_cut_and_a_damaged_file_moved_aside(tmp_path):
    rng = np.random.default_rng(1)
    promise = opened(tmp_path)
    for one in lanes.examples(rng, 3):
        promise.take(result_of(one))
    path = next((tmp_path / "promise" / "north").glob("*.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    assert kept_watch(tmp_path, PROFILE).scans == 3
    promise = opened(tmp_path)
    promise.take(result_of(lanes.example(rng, 9)))
    assert opened(tmp_path).watch.scans == 4 and not opened(tmp_path).damage
    path.write_bytes(b"{}\n" + whole)
    with pytest.raises(DataError, match="line 1 is no watched scan"):
        kept_watch(tmp_path, PROFILE)
    promise = opened(tmp_path)
    assert "begins anew" in promise.damage and promise.watch.scans == 0
    assert len(list((tmp_path / "quarantine").iterdir())) == 2  # the file, and why


LANE = """
[[lane]]
name = "north"
profile = "north.profile"
[[lane.device]]
driver = "simulated"
columns = 400
channels = 192
energies = 1
portal = false
speed = 0.0
vehicles = 8
threat_share = 0.0
"""


def test_a_daemon_whose_lane_is_not_the_profiles_says_stale(tmp_path):
    """The profile's numbers are drawn, the lane's are measured: no scan of it is like those it was learned from."""
    drawn = lanes.profile(count=300, thresholds=Profile().thresholds)
    lane_profile.write(tmp_path / "north.profile", drawn)
    with daemon(write_config(tmp_path, LANE), "--once") as running:
        assert running.wait_for("health", component="profile")["state"] == "ok"
        stale = running.wait_for("health", component="profile")
        running.wait_for("lane_finished")
        assert running.stop() == 0
    assert stale["state"] == "degraded" and stale["level"] == "warning"
    assert "calibrate again" in stale["text"] and stale["lane"] == "north"
    outbox = Outbox(tmp_path / "state" / "outbox.sqlite")
    try:
        texts = [t for (t,) in outbox.store.rows("SELECT text FROM events WHERE kind='health' ORDER BY seq")]
        results = [msgspec.json.decode(r, type=TriageResult) for (r,) in outbox.store.rows("SELECT result FROM scans")]
    finally:
        outbox.close()
    assert ["profile ok" in t for t in texts] == [True, False] and "profile degraded" in texts[1]
    assert len(results) == 8 and all(r.standing is not None for r in results if r.container is not None)
    # from the scan on with which it was noticed, none is cleared by its image, and every one says why
    told = [any(q.code == "profile_stale" and "calibrate again" in q.reason for q in r.quality) for r in results]
    assert told == sorted(told) and sum(told) >= 2
    assert all(r.outcome != "CLEAR" for r, flag in zip(results, told, strict=True) if flag)
    judge = Judge(lane_profile_of(None, str(tmp_path / "north.profile"), "north"), threads=1)
    path = sorted((tmp_path / "state").rglob("*.scan.h5"))[-1]
    again = offline.replay_file(path, judge, 0.0)
    assert again.differs == () and again.same
    assert any(q.code == "profile_stale" for q in again.result.quality)
    assert not any(
        q.code == "profile_stale" for q in Judge(threads=1)(again.scan).quality
    )  # a flag of that profile only
    watch = kept_watch(tmp_path / "state", lane_profile.read(tmp_path / "north.profile"))
    assert watch.stale and watch.scans == sum(r.container is not None for r in results)
