"""A hub and its lanes: the lane's side is here, hubs are processes of their own and are killed."""

import contextlib
import json
import socket
import time
from contextlib import ExitStack
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from click.testing import CliRunner

from scanner_io import config, security, wire
from scanner_io.client import Workstation
from scanner_io.errors import ConfigError, DeliveryError
from scanner_io.model import Decision
from scanner_io.security import load_enrolled
from tests.service import test_outbox
from tests.service.daemon_rig import Process
from tests.service.test_dispatch import Service, until
from tests.service.test_gate import Service as ServiceWithKeys
from triage.cli import cli
from triage.service import audit, store
from triage.service.outbox import decisions_in
from triage.torture import bed

HUB = """
state_dir = "{state}"
[storage]
min_free_mb = 16
[hub]
name = "{name}"
[[hub.lane]]
name = "north"
address = "{lane}"
[dispatch]
bind = "tcp://127.0.0.1:{port}"
heartbeat_s = 0.5
lease_s = 10
[metrics]
bind = "127.0.0.1:0"
"""
LONG = 24 << 20
"""Bytes of a recording that is on its way for a while."""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Site:
    """A lane here and hubs beside it."""

    def __init__(self, folder, stack, url=None):
        self.folder, self.stack, self.url = folder, stack, url
        (folder / "lane").mkdir()
        self.lane = Service(folder / "lane", lease_s=5.0, heartbeat_s=0.5)
        stack.callback(self.lane.close)
        self.ports = {}

    def hub(self, name="hub-a"):
        port = self.ports.setdefault(name, free_port())
        path = self.folder / f"{name}.toml"
        text = HUB.format(state=name, name=name, lane=self.lane.address, port=port)
        path.write_text(text + (f'[outbox]\nurl = "{self.url}"\n' if self.url else ""))
        return self.stack.enter_context(Process("-m", "triage.cli", "hub", str(path), "--json"))

    def desk(self, name="ana", **more):
        addresses = ",".join(f"tcp://127.0.0.1:{port}" for port in self.ports.values())
        return self.stack.enter_context(Workstation(addresses, name, **more))

    def events(self, kind):
        return self.lane.do(lambda o: o.store.rows("SELECT scan_id, who, text FROM events WHERE kind=?", (kind,)))


@pytest.fixture
def stack():
    with ExitStack() as one:
        yield one


def decide(desk, count):
    """Look at what is offered and decide it until so many decisions count."""
    while count:
        offer = desk.next_offer(20)
        assert offer is not None, f"{count} scans do not come"
        data = desk.fetch(offer)
        assert data == bytes([data[0]]) * offer.size
        count -= desk.decide(offer, "inspect", note="a wall that is too thick").applied


def decided_once(site, scans, place):
    """Look at both sides: each scan has one decision in force, of ana; nothing is lost, every chain is whole."""
    assert until(lambda: all(site.lane.state(s) == "decided" for s in scans)), site.lane.do(lambda o: o.counts())
    at_lane = site.lane.do(lambda o: [d for s in scans for d, applied in o.decisions(s) if applied])
    assert sorted(d.scan_id for d in at_lane) == sorted(scans)
    assert {d.analyst for d in at_lane} == {"ana"} and {d.via for d in at_lane} <= site.ports.keys()
    assert sorted(d.scan_id for d in decisions_in(place)) == sorted(scans)
    for where in (place, site.folder / "lane" / "outbox.sqlite"):
        assert audit.verify(where, None, None).problems == []


def test_a_hub_that_is_killed_in_mid_transfer_has_every_scan_decided_once_and_the_lane_hears_it(tmp_path, stack):
    site = Site(tmp_path, stack)
    scans = [site.lane.put(1, size=LONG)]
    hub = site.hub()
    assert until(lambda: site.events("fetched"), 30)
    hub.kill()
    assert not site.events("delivered") and not list((tmp_path / "hub-a" / "recordings").rglob("*.h5"))
    scans += [site.lane.put(2, "ALARM")]
    assert until(lambda: all(site.lane.state(s) == "pending" for s in scans))

    hub = site.hub()
    desk = site.desk()
    assert until(lambda: len(site.events("delivered")) == 2, 30)
    with store.reading(tmp_path / "hub-a" / "outbox.sqlite") as reader:  # what the lane was told to be here is here
        assert {scan for (scan,) in reader.rows("SELECT scan_id FROM scans")} == set(scans)
    decide(desk, len(scans))
    decided_once(site, scans, tmp_path / "hub-a" / "outbox.sqlite")
    assert {text for _, _, text in site.events("decided")} == {"inspect via hub-a"}
    assert not hub.named("not_taken")

    page = hub.named("metrics_listening")[0]["address"]
    assert ready(page) == {"ok": True, "why_not": []}
    site.lane.close()
    assert until(lambda: not ready(page)["ok"], 20)
    assert "lane north: no answer" in ready(page)["why_not"][0]
    assert hub.stop() == 0


def test_a_passage_that_the_lane_selected_although_it_is_clear_is_looked_at_at_the_hub(tmp_path, stack):
    site = Site(tmp_path, stack)
    scan = site.lane.put(1, "CLEAR")

    def select(outbox):
        with outbox.store.transaction():
            outbox.wake(scan)

    site.lane.do(select)
    site.hub()
    desk = site.desk()
    decide(desk, 1)
    decided_once(site, [scan], tmp_path / "hub-a" / "outbox.sqlite")


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
def test_a_decision_on_a_scan_that_was_decided_at_the_lane_meanwhile_is_told_on_both_sides(tmp_path, stack, restarted):
    site = Site(tmp_path, stack)
    scan = site.lane.put(1)
    hub = site.hub()
    desk = site.desk()
    offer = desk.next_offer(20)
    desk.fetch(offer)

    def take_back_and_decide(outbox):
        outbox.release(outbox.item(scan).lease_id, "the link was cut", 99)
        item = outbox.lease(scan, "bob", 10)
        outbox.decide(test_outbox.decision(item, analyst="bob", verdict="clear", decision_id="bobs"))

    site.lane.do(take_back_and_decide)
    time.sleep(4)  # the hub's lease is renewed, which is refused
    assert desk.decide(offer, "inspect").applied
    if restarted:
        hub.kill()
        hub = site.hub()
    hub.wait_for("decision_not_applied_there", scan=scan)
    assert until(lambda: site.events("decision_not_applied"), 20)
    mine, other = site.lane.do(lambda o: o.decisions(scan))
    assert [(d.analyst, d.verdict, applied) for d, applied in (mine, other)] == [
        ("bob", "clear", True), ("ana", "inspect", False),
    ]  # fmt: skip
    assert audit.verify(tmp_path / "hub-a" / "outbox.sqlite", None, None).problems == []


def test_of_two_hubs_one_is_killed_and_the_other_goes_on(tmp_path, stack, cluster):
    url = cluster.new()
    site = Site(tmp_path, stack, url)
    scans = [site.lane.put(n, size=2 * wire.CHUNK_BYTES) for n in range(1, 7)]
    first, second = site.hub("hub-a"), site.hub("hub-b")
    first.wait_for("link", lane="north"), second.wait_for("link", lane="north")
    assert not site.events("leased")  # nobody is at either of them
    desk = site.desk()
    assert until(lambda: len(site.events("delivered")) == len(scans), 30)
    assert len(first.named("scan")) == len(scans)  # where the analyst is, everything is
    offer = desk.next_offer(10)
    assert desk.address.endswith(f":{site.ports['hub-a']}")
    desk.fetch(offer)
    first.kill()
    # The lease was of the hub that is gone; the decision is taken by the other one all the same.
    assert desk.decide(offer, "clear", timeout_s=20).applied
    assert desk.address.endswith(f":{site.ports['hub-b']}")
    decide(desk, len(scans) - 1)
    decided_once(site, scans, store.Server(url))


def ready(page):
    try:
        with urlopen(f"{page}/readyz") as answer:
            return json.load(answer)
    except HTTPError as error:
        with error:
            return json.load(error)


def decision(offer, analyst="ana", verdict="inspect"):
    return Decision(
        decision_id="d-1", scan_id=offer.scan_id, sha256=offer.sha256, analyst=analyst, verdict=verdict,
        decided_utc_ns=7, lease_id="of the hub",
    )  # fmt: skip


def test_with_keys_a_hub_signs_for_its_analysts_and_nobody_else_can(tmp_path):
    lane = ServiceWithKeys(tmp_path)
    try:
        scan_id = lane.put()
        hub, ana = lane.enrol("hub-a", "hub"), lane.enrol("ana")
        with Workstation(lane.address, identity=ana, hub=True) as liar, pytest.raises(DeliveryError, match="a hub"):
            liar.connected(5)
        with Workstation(lane.address, identity=hub) as other, pytest.raises(DeliveryError, match="no hub"):
            other.connected(5)
        with Workstation(lane.address, identity=ana) as desk:  # and as herself she brings nobody else's
            offer = desk.next_offer(10)
            with pytest.raises(DeliveryError, match="signed eve, but"):
                desk.relay(offer, decision(offer, "eve"))
        with Workstation(lane.address, identity=hub, hub=True) as desk:
            offer = desk.next_offer(10)
            desk.fetch(offer, receipt=False)
            assert not lane.events("delivered")
            desk.has(offer)
            assert until(lambda: lane.events("delivered"))
            for _ in range(2):  # the first answer may have been lost
                assert desk.relay(offer, decision(offer), b"what she signed", b"her signature").applied
        ((_, statement, signature),) = lane.do(lambda o: o.signatures(scan_id))
        told = wire.decode_statement(statement)
        assert (told.decision.via, told.origin) == ("hub-a", b"what she signed")
        assert security.verified(hub.signing, statement, signature)
    finally:
        lane.close()
    signers = {e.key.name: e.key.signing for e in load_enrolled(lane.keys / security.ENROLLED).enrolled}
    assert audit.verify(tmp_path / "outbox.sqlite", None, None, signers).problems == []
    swapped = {**signers, "hub-a": signers["ana"]}
    assert any("hub-a's" in p.text for p in audit.verify(tmp_path / "outbox.sqlite", None, None, swapped).problems)


def test_what_is_wrong_in_a_hub_s_configuration_is_told_at_once(tmp_path):
    text = HUB.format(state="s", name="hub-a", lane="tcp://10.0.0.7:7410", port=0)
    with pytest.raises(ConfigError) as told:
        config.parse(
            text + '[[lane]]\nname = "x"\n[outbox]\nurl = "postgresql://u@localhost/d"\n', "hub.toml", tmp_path
        )
    words = str(told.value)
    assert "expected none beside [hub]" in words and "hub.lane north.address" in words and "outbox.hub" not in words
    good = config.parse(text.replace("10.0.0.7", "127.0.0.1"), "hub.toml", tmp_path)
    assert good.hub == config.Hub(name="hub-a", lane=(config.HubLane(name="north", address="tcp://127.0.0.1:7410"),))
    assert good.lane == ()
    shown = CliRunner().invoke(cli, ["hub", "--example"])
    path = tmp_path / "hub.toml"
    path.write_text(shown.output)
    assert config.load(path).hub.name == "hub-a"


def test_a_hub_whose_disk_is_full_leaves_scans_with_the_lane_and_takes_them_once_there_is_room(tmp_path, stack):
    if not stack.enter_context(bed.volume(tmp_path / "hub-a", 128)):
        pytest.skip("no disk of its own can be mounted here: that needs root")
    site = Site(tmp_path, stack)
    hub = site.hub()
    hub.wait_for("listening")
    ballast = tmp_path / "hub-a" / "ballast"
    with ballast.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    hub.wait_for("intake_stopped", 20)
    scans = [site.lane.put(number, size=1 << 20) for number in (1, 2)]
    desk = site.desk()
    assert desk.next_offer(5) is None and not site.events("delivered")
    assert not ready(hub.named("metrics_listening")[0]["address"])["ok"]
    ballast.unlink()
    decide(desk, len(scans))
    decided_once(site, scans, tmp_path / "hub-a" / "outbox.sqlite")
    assert hub.stop() == 0
