"""The daemon with a feed of declarations: in time, late, refused; recording, outbox and audit."""

import http.client
import json
import time
from pathlib import Path

import pytest

from scanner_io import recording, security
from scanner_io.formats.cargo import CargoMessage, Consignment, Equipment, GoodsItem
from scanner_io.formats.cargo_json import write_json
from tests.drivers.test_lane_events import free_port, say
from tests.service.daemon_rig import daemon, lane_with_drop, put_image, write_config
from tests.service.risk_rig import said
from triage.analysis.risk import EXAMPLE
from triage.analysis.selection import EXAMPLE as PLAN
from triage.service import risk_store
from triage.service.outbox import Outbox

IN_TIME, LATE = "CSQU3054383", "TGHU7599330"
DEVICES = """
[[lane.device]]
driver = "lane_events"
port = {events}
[[lane.device]]
driver = "cargo_feed"
folder = "{folder}"
stable_s = 0.1
poll_s = 0.05
port = {port}
tokens = "{tokens}"
simulated = true
"""


def declare(folder, number):
    goods = GoodsItem(number=1, hs_code="520100", text="cotton")
    told = CargoMessage(
        form="JSON", sender="CARRIER", reference="1", document=f"MAN {number}", function="original",
        equipment=(Equipment(number=number, full=True),),
        consignments=(Consignment(number=1, document="BL1", goods=(goods,)),),
    )  # fmt: skip
    part = folder / f"{number}.part"
    part.write_bytes(write_json([told]))
    part.rename(folder / f"{number}.json")


def selection_table(folder):
    """Return the part of a configuration by which passages are selected as they come, with the files it names."""
    (folder / "risk.toml").write_text(EXAMPLE)
    for who in ("ana", "bo"):
        sha256 = risk_store.sign(folder / "risk.toml", folder / "profiles", security.generate(who)).sha256
    (folder / "plan.toml").write_text(PLAN)
    (folder / "seed").write_text(f"{bytes(range(32)).hex()}\n")
    (folder / "seed").chmod(0o600)
    return f'[selection]\nprofile = "profiles/{sha256}.toml"\nplan = "plan.toml"\nseed_file = "seed"\n'


@pytest.mark.timeout(180)
def test_declarations_in_time_late_and_of_strangers(tmp_path):
    folder, events, port = tmp_path / "feed", free_port(), free_port()
    folder.mkdir()
    tokens = tmp_path / "tokens"
    tokens.write_text("AGENT a-token-of-more-than-16\n")
    tokens.chmod(0o600)
    drop, lane = lane_with_drop(tmp_path)
    lane = lane.replace("join_window_s = 3", "join_window_s = 1")
    lane += DEVICES.format(events=events, folder=folder, port=port, tokens=tokens) + selection_table(tmp_path)
    declare(folder, IN_TIME)
    with daemon(write_config(tmp_path, lane)) as service:
        taken = service.wait_for("cargo_taken")
        assert (taken["document"], taken["fate"], taken["lane"]) == (f"MAN {IN_TIME}", "in force", "north")
        peer = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        peer.request("POST", "/", b"{}", {"Authorization": "Bearer of-somebody-else-entirely"})
        assert peer.getresponse().status == 401
        peer.close()
        service.wait_for("cargo_refused")
        for seed, number in enumerate((IN_TIME, LATE)):
            say(events, {"event": "container", "text": number.replace("0", "O", 1), "confidence": 93})
            put_image(drop, f"{seed}.png", seed)
            service.wait_for("scan")
            time.sleep(1.1)  # further from each other than the join window
        assert (folder / "done" / f"{IN_TIME}.json").exists()
        declare(folder, LATE)
        later = service.wait_for("assessed_later")
        assert f"declaration MAN {LATE} of CARRIER" in later["text"] and "which stays REVIEW" in later["text"]
    outbox = Outbox(tmp_path / "state" / "outbox.sqlite")
    rows = [outbox.item(i).row for (i,) in outbox.store.rows("SELECT scan_id FROM scans ORDER BY scan_id")]
    audited = dict(outbox.store.rows("SELECT kind, text FROM events"))
    outbox.close()
    in_time, late = (recording.read(Path(row.path)).scan for row in rows)
    match = in_time.declaration_match
    assert in_time.declaration.goods == "cotton" and in_time.declaration.simulated and in_time.simulated
    assert (match.state, match.document, match.read) == ("matched", f"MAN {IN_TIME}", ("CSQU3O54383",))
    assert rows[0].papers == in_time.declaration and not rows[0].later
    assert late.declaration is None and late.declaration_match.state == "none"
    assert rows[1].declaration is None and rows[1].papers.container_numbers == (LATE,)
    assert {"declaration_missing", "declaration_late"} <= {q.code for q in rows[1].told.quality}
    assert "with a token that is not known here" in audited["cargo_refused"]
    assert json.dumps(audited).count("of-somebody-else") == 0
    for row, times in zip(rows, (1, 2), strict=True):  # once as it came, and once more with its late declaration
        asked = ("--archive", tmp_path / "state", "--profiles", tmp_path / "profiles", "--seed-file", tmp_path / "seed")
        runs = json.loads(said("risk", "explain", row.scan_id, *asked, "--json"))["selections"]
        assert [run["reproduced"] for run in runs] == [True] * times and len(runs[0]["checked"]) == 4
