"""Second readings of cleared scans, and the report on selection."""

import json
import re
import time

import msgspec
import pytest

from scanner_io import security
from scanner_io.model import Standing
from tests import samples
from tests.service.risk_rig import put, said, scan_id
from triage.analysis import quality_sample
from triage.analysis.quality_sample import Cleared, Read
from triage.analysis.risk import EXAMPLE
from triage.service import quality, risk_store
from triage.service.outbox import Outbox

# ------------------------------------------------------------------------------------------------------------- sample


def crowd(count=400):
    return [
        Cleared(scan_id=f"s{i}", lane=f"lane{i % 2}", texture="even" if i % 10 else "rare", analyst=f"a{i % 3}")
        for i in range(count)
    ]


def test_a_sample_comes_out_again_by_its_seed_and_takes_of_every_stratum():
    drawn = quality_sample.sample(crowd(), 7, 0.1, 2)
    assert drawn == quality_sample.sample(crowd()[::-1], 7, 0.1, 2) != quality_sample.sample(crowd(), 8, 0.1, 2)
    sizes = {}
    for one in crowd():
        sizes[one.stratum] = sizes.get(one.stratum, 0) + 1
    taken = {}
    for one, weight in drawn:
        taken[one.stratum] = taken.get(one.stratum, 0) + 1
        assert weight * taken[one.stratum] <= sizes[one.stratum] + 1e-9
    assert set(taken) == set(sizes) and all(taken[s] == max(2, -(-sizes[s] // 10)) for s in sizes)
    assert sum(w for _, w in drawn) == pytest.approx(400)  # each stands for its stratum's others


def test_one_more_cleared_scan_changes_no_order_among_the_others():
    before = [c.scan_id for c, _ in quality_sample.sample(crowd(), 7, 0.1, 2)]
    after = [c.scan_id for c, _ in quality_sample.sample([*crowd(), crowd(401)[400]], 7, 0.1, 2)]
    assert len(set(before) - set(after)) <= 1


def test_every_scan_of_a_stratum_is_as_likely():
    counts = [0] * 20
    of_one = [Cleared(scan_id=f"s{i}", lane="l", texture="t", analyst="a") for i in range(20)]
    for seed in range(2000):
        for one, _ in quality_sample.sample(of_one, seed, 0.1, 0):
            counts[int(one.scan_id[1:])] += 1
    assert sum(counts) == 4000 and min(counts) > 140 and max(counts) < 260  # 200 each, sd 13


def test_disagreement_has_its_parts_and_what_is_unread_is_in_none():
    reads = [
        Read(cleared=c, weight=2.0 if c.texture == "rare" else 1.0, reader="r1" if i % 2 else "r2",
             verdict="" if i % 4 == 0 else "inspect" if c.texture == "rare" else "clear")
        for i, c in enumerate(crowd(40))
    ]  # fmt: skip
    told = quality_sample.disagreement(reads)
    assert told["sampled"] == 40 and told["unread"] == 10
    assert told["texture"]["rare"]["hits"] == told["texture"]["rare"]["of"] == told["all"]["hits"] == 2
    assert told["texture"]["even"]["value"] == 0 and told["texture"]["even"]["high"] > 0.1
    assert told["weighted"] == pytest.approx(4 / 32) and told["all"]["value"] == pytest.approx(2 / 30, abs=1e-5)
    assert sum(one["of"] for one in told["analyst"].values()) == 30
    assert quality_sample.disagreement([])["weighted"] is None


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    outbox = Outbox(folder / "outbox.sqlite")
    standing = Standing(p_value=0.4, level=0.01, stratum="all scans", scans=500, cell=("even", "09"), scores={},
                        vital_signs={})  # fmt: skip
    for number in range(20):
        put(outbox, number, outcome="CLEAR", standing=standing if number % 2 else None)
    for number in range(20, 26):
        put(outbox, number, "clear" if number < 24 else "inspect", outcome="REVIEW")
    put(outbox, 26, outcome="REVIEW")
    outbox.close()
    return folder


def test_second_readings_from_the_sample_to_the_report(archive):
    place = archive / "outbox.sqlite"
    told = json.loads(said("quality", "sample", archive, "--share", "0.2", "--record", "--json"))
    assert told["cleared"] == 24 and told["recorded"]  # 20 by the machine, 4 by a person; not what is still asked
    strata = {(s["texture"], s["analyst"]) for s in told["scans"]}
    assert strata == {("even", "machine"), ("load loaded", "machine"), ("load loaded", "ana")}
    name = told["sample"]
    by_ana = next(s["scan"] for s in told["scans"] if s["analyst"] == "ana")
    assert "ana cleared it" in str(
        said("quality", "read", archive, name, by_ana, "--verdict", "clear", "--analyst", "ana", code="raises")
    )
    for one in told["scans"]:
        verdict = "inspect" if one["scan"] == by_ana else "clear"
        said("quality", "read", archive, name, one["scan"], "--verdict", verdict, "--analyst", "bo")
    for sample, scan, problem in (
        (name, by_ana, "was read before"), (name, scan_id(26), "is not in sample"), ("q9", by_ana, "no sample 'q9'"),
    ):  # fmt: skip
        error = said("quality", "read", archive, sample, scan, "--verdict", "clear", "--analyst", "cy", code="raises")
        assert problem in str(error)
    found = json.loads(said("quality", "report", archive, "--json"))
    assert found["unread"] == 0 and found["analyst"]["ana"]["hits"] == 1 and found["analyst"]["machine"]["hits"] == 0
    assert found["samples"] == [{"sample": name, "algorithm": quality_sample.ALGORITHM, "seed": 1,
                                 "comes_out_again": True}]  # fmt: skip
    words = said("quality", "report", archive)
    assert "second reader would not have cleared" in words and "ana" in words
    assert json.loads(said("audit", "verify", archive, "--json"))["sound"]
    kept = quality.samples(place)[0]
    assert not quality.again(place, msgspec.structs.replace(kept, seed=2))


def test_where_nothing_was_cleared_there_is_nothing_to_sample(tmp_path):
    Outbox(tmp_path / "outbox.sqlite").close()
    assert "no scan was cleared" in str(said("quality", "sample", tmp_path, code="raises"))


# -------------------------------------------------------------------------------------------------- selection, reported


@pytest.fixture
def selected(tmp_path):
    """An archive in which risk finds much and a draw little, with the profile and everybody chosen decided."""
    folder = tmp_path / "state"
    folder.mkdir()
    outbox = Outbox(folder / "outbox.sqlite")
    profile = tmp_path / "p.toml"
    profile.write_text(
        EXAMPLE.replace('fact = "party.authorised", is = true', 'fact = "declaration.origin", is = "DE"')
        .replace('fact = "joint.p_value", below = 0.01', 'fact = "declaration.origin", is = "XX"')
        .replace("valid_to = 2027-12-31\npoints = -10.0", "valid_to = 2025-06-30\npoints = -10.0")
    )
    for who in ("ana", "bo"):
        sha256 = risk_store.sign(profile, tmp_path / "profiles", security.generate(who)).sha256
    for number in range(120):
        origin = "XX" if number % 6 == 0 else "DE"
        put(outbox, number, declaration=samples.declaration(origin=origin), outcome="CLEAR")
    outbox.close()
    (tmp_path / "seed").write_text(f"{bytes(range(32)).hex()}\n")
    (tmp_path / "seed").chmod(0o600)
    (tmp_path / "plan.toml").write_text(
        said("selection", "plan").replace("look = { value = 0.02", "look = { value = 0.3")
    )
    told = json.loads(
        said("selection", "run", folder, "--plan", tmp_path / "plan.toml", "--profile", sha256, "--profiles",
             tmp_path / "profiles", "--seed-file", tmp_path / "seed", "--record", "--json")
    )  # fmt: skip
    outbox = Outbox(folder / "outbox.sqlite")
    while (item := outbox.lease_next("cy", 60)) is not None:
        strange = item.row.declaration.origin == "XX"
        outbox.decide(
            samples_decision(item, "inspect" if strange else "clear", (1,) if strange else ())
        )  # fmt: skip
    outbox.close()
    return folder, tmp_path, told


def samples_decision(item, verdict, codes):
    from scanner_io.model import Decision

    return Decision(
        decision_id=f"d-{item.row.scan_id}", scan_id=item.row.scan_id, sha256=item.row.sha256, analyst="cy",
        verdict=verdict, decided_utc_ns=time.time_ns(), codes=codes, lease_id=item.lease_id,
    )  # fmt: skip


def test_the_report_holds_risk_against_chance(selected):
    folder, tmp_path, ran = selected
    page = tmp_path / "report.html"
    told = json.loads(
        said("report", "selection", folder, "--profiles", tmp_path / "profiles", "--out", page, "--json")
    )  # fmt: skip
    assert told["candidates"] == told["simulated"] == 120 and ran["by_risk"] > 10
    risky, drawn = told["ways"]["risk"], told["ways"]["random"]
    assert risky["hit_rate"]["value"] == 1 and risky["found"] == ran["by_risk"]
    assert 0 < drawn["hit_rate"]["value"] < 0.4 and drawn["passages"] == ran["random"] and drawn["undecided"] == 0
    assert told["risk_finds_more_than_chance"] is True
    assert told["ways"]["not chosen"]["hit_rate"]["of"] == 0  # nobody looked: in no rate
    rule = told["rules"]["strange-together"]
    assert set(told["rules"]) == {"strange-together"} and rule["hit_rate"]["value"] == 1 and rule["chosen"] == 20
    each = 500.0 + 44 / 3600 * 45  # the opening and the look, of the scenario's costs
    assert rule["cost_usd"] == pytest.approx(20 * each, abs=0.01) and rule["cost_per_hit_usd"] == pytest.approx(
        each, abs=0.01
    )
    assert told["expired"][0]["rule"] == "authorised" and told["expired"][0]["valid_to"] == "2025-06-30"
    text = page.read_text()
    assert "120 of them are simulated" in text and "finds more than a draw at random" in text and "http" not in text
    assert len(re.findall("<tr>", text)) > 10
    words = said("report", "selection", folder)
    assert "strange-together" in words and "give --profiles" in words


def test_without_recorded_selections_there_is_no_report(archive):
    assert "no selection of stage look is recorded" in str(said("report", "selection", archive, code="raises"))
