"""Who will be imaged of the containers that were declared in advance."""

import json
import time

import pytest

from scanner_io import security
from scanner_io.config import Cargo
from scanner_io.formats.cargo import CargoMessage, Consignment, Equipment, GoodsItem, Party
from scanner_io.model import CargoReceived
from tests import samples
from tests.service.risk_rig import put, said
from triage.analysis.risk import EXAMPLE
from triage.service import declarations, risk_store
from triage.service.outbox import Outbox

NUMBERS = ("CSQU3054383", "TGHU7599330", "EITU0158854")


def message(number, document, origin="DE", authorised=True):
    parties = tuple(Party(role=r, name=f"{r} of {origin}", authorised=authorised) for r in ("consignor", "consignee"))
    goods = (GoodsItem(number=1, hs_code="090111", text="coffee", origin=origin),)
    return CargoMessage(
        form="JSON", sender="line", reference=f"r{document}", document=document, function="original",
        prepared_utc_ns=time.time_ns(), equipment=(Equipment(number=number, full=True, seals=("S1",)),),
        consignments=(Consignment(number=1, document=document, parties=parties, goods=goods),),
    )  # fmt: skip


@pytest.fixture
def site(tmp_path):
    """A state folder with passages of the past, declarations of what is to come, and a profile in force."""
    profile = tmp_path / "p.toml"
    profile.write_text(
        EXAMPLE.replace('fact = "joint.p_value", below = 0.01', 'fact = "declaration.origin", is = "XX"')
    )
    for who in ("ana", "bo"):
        sha256 = risk_store.sign(profile, tmp_path / "profiles", security.generate(who)).sha256
    outbox = Outbox(tmp_path / "outbox.sqlite")
    for number in range(3):
        put(outbox, number, "inspect", declaration=samples.declaration(consignor="consignor of XX"))
    outbox.close()
    store = declarations.Declarations(tmp_path / declarations.FILE, Cargo())
    messages = [message(NUMBERS[0], "B1"), message(NUMBERS[1], "B2", origin="XX", authorised=False)]
    messages += [message(NUMBERS[2], "B3"), message(NUMBERS[2], "B4")]  # two manifests for one container
    store.take(
        CargoReceived(source_ref="f", name="f", utc_ns=time.time_ns() - 10**9, sender="line", messages=tuple(messages))
    )
    store.close()
    (tmp_path / "seed").write_text(f"{bytes(range(32)).hex()}\n")
    (tmp_path / "seed").chmod(0o600)
    (tmp_path / "plan.toml").write_text(said("selection", "plan"))
    said("selection", "seed", tmp_path, "--seed-file", tmp_path / "seed")
    return tmp_path, sha256


def expected(site, *more, code=0):
    folder, sha256 = site
    return said(
        "selection", "expected", folder, "--plan", folder / "plan.toml", "--profile", sha256, "--profiles",
        folder / "profiles", "--seed-file", folder / "seed", "--json", *more, code=code,
    )  # fmt: skip


def test_the_riskiest_of_what_is_declared_will_be_imaged_and_the_list_is_made_again(site):
    folder, _ = site
    told = json.loads(expected(site, "--out", folder / "list.json"))
    why = {c["scan"].split("/")[0] + c["scan"][-2:]: c for c in told["choices"]}
    assert why[f"{NUMBERS[1]}B2"]["chosen"] and "score 25: number 1" in why[f"{NUMBERS[1]}B2"]["why"]
    # two manifests for one container: doubtful, no relief, fifteen points each
    assert all("score 15" in why[f"{NUMBERS[2]}{d}"]["why"] for d in ("B3", "B4"))
    assert why[f"{NUMBERS[0]}B1"]["why"].startswith(("not chosen: score counted 0", "drawn at random"))
    listed = json.loads((folder / "list.json").read_text())
    assert listed["kept"][1]["facts"]["history.consignor_finds"] == 3
    assert listed["kept"][1]["candidate"]["traits"]["size of trader"] == "1 to 9 before"
    again = json.loads(
        said("selection", "check", folder / "list.json", folder, "--profiles", folder / "profiles", "--seed-file",
             folder / "seed", "--json")
    )  # fmt: skip
    assert again["reproduced"] and not again["not_checked"] and len(again["checked"]) == 3
    assert "not checked: the draws" in said("selection", "check", folder / "list.json", folder)
    assert json.loads(said("audit", "verify", folder, "--json"))["sound"]


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ('"chosen": false', '"chosen": true', "was changed"),
        ('"score": 25.0', '"score": 5.0', "the score is 25"),
        ('"declaration.origin": "XX"', '"declaration.origin": "DE"', "the score is 0"),
    ],
)
def test_a_list_that_was_changed_is_not_made_again(site, old, new, problem):
    folder, _ = site
    expected(site, "--out", folder / "list.json")
    text = (folder / "list.json").read_text()
    assert old in text
    (folder / "list.json").write_text(text.replace(old, new))
    told = json.loads(
        said("selection", "check", folder / "list.json", folder, "--profiles", folder / "profiles", "--seed-file",
             folder / "seed", "--json", code=1)
    )  # fmt: skip
    assert any(problem in p for p in told["problems"]) and any("was changed" in p for p in told["problems"])


def test_a_list_needs_declarations_and_a_profile_in_force(site, tmp_path):
    folder, sha256 = site
    (folder / declarations.FILE).unlink()
    assert "no declarations came in advance" in str(expected(site, code="raises"))
    (folder / "profiles" / f"{sha256}.signed.json").unlink()
    assert "not in force: signed by nobody" in str(expected(site, "--out", folder / "l.json", code="raises"))
    (folder / "l.json").write_text("[]")
    assert "no list of" in str(said("selection", "check", folder / "l.json", folder, code="raises"))
