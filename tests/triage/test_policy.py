"""Policies at a gate: scenarios that name their sources, queues held against theory, choices, and the report."""

import json
import math

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from scanner_io.errors import ConfigError
from triage.cli import cli
from triage.policy import choices, comparison, gate, report, scenario, traffic, validation


@pytest.fixture(scope="module")
def port():
    return scenario.load("small_port")


def changed(site, table, **values):
    return msgspec.structs.replace(site, **{table: msgspec.structs.replace(getattr(site, table), **values)})


@pytest.fixture(scope="module")
def vehicles(port):
    rng = np.random.default_rng(5)
    return traffic.draw(port, traffic.arrivals_s(port, 3, rng), rng)


# --------------------------------------------------------------------------------------------------------- scenarios


@pytest.mark.parametrize("name", scenario.SHIPPED)
def test_a_shipped_site_names_a_source_for_every_constant(name):
    site = scenario.load(name)
    constants = {
        f"{table}.{field}" for table in ("arrivals", "traffic", "lanes", "people", "detector", "opening", "costs",
                                         "policies")
        for field in getattr(site, table).__struct_fields__
    }  # fmt: skip
    assert set(site.sources) == constants and all(len(s) > 5 for s in site.sources.values())


@pytest.mark.parametrize(
    "line, problem",
    [
        ('count = { value = 2, source = "here" }', "unknown field `count`"),
        ("portals = 2", 'write { value = …, source = "…" }'),
        ('portals = { value = 2, source = " " }', "lanes.portals"),
        ('portals = { value = 0, source = "here" }', "portals is 0"),
        ('portals = { value = "two", source = "here" }', "Expected `int`, got `str`"),
    ],
)
def test_what_is_wrong_in_a_site_is_named(tmp_path, line, problem):
    text = (scenario.files("triage.policy") / "scenarios" / "small_port.toml").read_text("utf-8")
    old = next(row for row in text.splitlines() if row.startswith("portals ="))
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, line if line.startswith("portals") else f"{old}\n{line}"))
    with pytest.raises(ConfigError) as error:
        scenario.load(str(path))
    assert problem in str(error.value) and "mine" in str(error.value)


def test_a_site_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(ConfigError, match="small_port, large_hub, land_border"):
        scenario.load("nowhere")


# ----------------------------------------------------------------------------------------------------------- traffic


def test_vehicles_are_as_many_and_as_mixed_as_the_site_says(port):
    rng = np.random.default_rng(1)
    told = traffic.draw(port, traffic.arrivals_s(port, 70, rng), rng)
    n = len(told.arrival_s)
    assert abs(n / (70 * 24 * port.arrivals.per_hour) - 1) < 0.03
    assert abs(told.authorised.mean() - port.traffic.authorised_share) < 0.01
    expected = port.traffic.contraband_share
    assert abs(told.contraband.mean() - expected) < 4 * math.sqrt(expected / n)
    rates = [told.contraband[told.authorised].mean(), told.contraband[~told.authorised].mean()]
    assert rates[0] < 0.5 * rates[1]
    sunday = (told.arrival_s // traffic.DAY_S % 7 == 6).mean()
    assert abs(sunday - 0.2 / 5.6) < 0.01


def test_the_detectors_curve_goes_through_the_measured_point(port):
    rng = np.random.default_rng(2)
    clean, carries = (traffic.draw(port, np.zeros(200_000), rng, contraband=c).flag for c in (False, True))
    threshold = np.quantile(clean, 1 - port.detector.false_alarm_share)
    assert abs((carries > threshold).mean() - port.detector.found_at_that) < 0.01


# ----------------------------------------------------------------------------------------------------------- choices


def test_each_policy_images_and_looks_as_it_says(port, vehicles):
    a, b, c = (choices.choose(name, port, vehicles) for name in ("A", "B 10%", "C"))
    assert a.drive_through.all() and a.looked.all()
    assert not b.drive_through.any() and (b.looked == b.pull_out).all()
    assert abs(b.pull_out.mean() - 0.10) < 0.02
    assert c.drive_through.all() and 0.05 < c.looked.mean() < 0.1
    for choice in (a, b, c):
        assert choice.looked[vehicles.gamma].all()  # radiation is not selected away
        assert not (choice.referred & ~choice.looked).any() and not (choice.found & ~choice.referred).any()


def test_authorised_traders_are_chosen_less_often_and_never_never(port):
    rng = np.random.default_rng(3)
    told = traffic.draw(port, np.zeros(200_000), rng, contraband=False)
    chosen = choices.choose("B 5%", port, told)
    rates = chosen.pull_out[told.authorised].mean(), chosen.pull_out[~told.authorised].mean()
    assert 0.01 < rates[0] < 0.6 * rates[1]
    assert abs(chosen.pull_out[~told.gamma].mean() - 0.05) < 0.003
    assert chosen.random[told.authorised].any()


def test_papers_that_tell_nothing_find_what_chance_finds(port):
    blind = changed(port, "traffic", papers_distance=0.0, authorised_contraband_ratio=1.0)
    rng = np.random.default_rng(4)
    told = traffic.draw(blind, np.zeros(100_000), rng, contraband=True)
    found = choices.choose("B 10%", blind, told).pull_out[~told.gamma].mean()
    assert abs(found - 0.10) < 0.005


# -------------------------------------------------------------------------------------------------------------- gate


def test_formulas_of_queues_are_those_of_the_books():
    assert validation.erlang_c_wait_s(0.5, 1.0, 1) == pytest.approx(1.0)  # M/M/1: rho / (mu - lambda)
    assert validation.erlang_c_wait_s(1.5, 1.0, 2) == pytest.approx(9 / 7)  # M/M/2: rho^2 / (1 - rho^2)
    assert validation.pollaczek_khinchine_wait_s(0.5, 1.0, 1.0) == pytest.approx(1.0)  # of M/M/1 again
    assert validation.pollaczek_khinchine_wait_s(0.5, 1.0, 0.0) == pytest.approx(0.5)  # M/D/1 waits half
    assert validation.erlang_c_wait_s(3, 1.0, 2) == math.inf


def test_a_gate_without_enough_servers_does_not_agree(port):
    wrong = changed(port, "lanes", drive_through_cycle_s=45.0)
    rng = np.random.default_rng(1)
    arrival = np.cumsum(rng.exponential(20.0, 2000))
    told = traffic.draw(wrong, arrival, rng, contraband=False)
    everyone = np.ones(2000, bool)
    flow = gate.simulate(wrong, told, choices.Choice("", everyone, *[~everyone] * 5))
    assert flow.image_wait_s[-1] > 1000  # 45 s of work every 20 s


def test_every_vehicle_leaves_after_what_was_done_to_it(port, vehicles):
    for name in choices.names(port):
        choice = choices.choose(name, port, vehicles)
        flow = gate.simulate(port, vehicles, choice)
        imaged = choice.drive_through | choice.pull_out
        least = vehicles.look_s * choice.looked + vehicles.opening_s * choice.referred
        assert (flow.held_s >= least - 1e-6).all()
        assert (flow.delay_s >= flow.held_s - 1e-6).all()
        assert np.isnan(flow.image_wait_s[~imaged]).all() and (flow.image_wait_s[imaged] >= -1e-9).all()


# ----------------------------------------------------------------------------------------------------------- command


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    page = tmp_path_factory.mktemp("policy") / "report.html"
    done = CliRunner().invoke(
        cli, ["policy", "simulate", "small_port", "--days", "0.3", "--replications", "2", "--json", "--out", str(page)]
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.output), page


def test_the_command_says_what_scripts_read(said):
    result, _ = said
    assert result["simulated"] is True and set(result["policies"]) == {"A", "B 5%", "B 10%", "B 27%", "C"}
    for policy in result["policies"].values():
        for measure in ("queue_p95", "storage_box_days", "missed_cutoffs", "cost_per_container", "analysts",
                        "found_share", "opened", "images_viewed"):  # fmt: skip
            assert policy[measure]["low"] <= policy[measure]["value"] <= policy[measure]["high"]
        assert set(policy["delay_min"]) == {"p50", "p95"}
    for name in ("mmc", "mg1"):  # the gate waits as theory says
        one = result["validation"][name]
        assert one["low"] * 0.9 <= one["theory_s"] <= one["high"] * 1.1, (name, one)
        assert abs(result["validation"][f"{name}_error"]) < 0.1
    found = {name: p["found_share"]["value"] for name, p in result["policies"].items()}
    assert found["B 5%"] < found["B 10%"] < found["B 27%"] < found["A"]
    assert found["C"] < found["A"]  # it misses what the machine misses


def test_the_report_stands_alone_and_says_what_it_does_not_show(said):
    page = said[1].read_text("utf-8")
    assert "<strong>Simulated.</strong>" in page and "C misses what the machine misses" in page
    assert "http" not in page and page.count("<td>") > 100
    assert all(words in page for _, words, _ in report.ROWS)
    assert "<th scope=row>lanes.pull_out_cycle_s</th><td>240</td><td>CBP" in page
    assert "share of contraband&#x27;s pictures that the machine flags: 0.2</th>" in page


def test_the_same_seed_gives_the_same_result(port):
    one, two = (comparison._replicate(port, 0.2, 7, 0) for _ in range(2))
    assert one == two and one != comparison._replicate(port, 0.2, 8, 0)


# --------------------------------------------------------------------------------------- a site's own figures


def test_constants_are_changed_by_name_and_their_source_says_so(port):
    site = scenario.load("small_port", ("lanes.drive_through=3", "policies.shares = [0.5]"))
    assert site.lanes.drive_through == 3 and site.policies.shares == (0.5,)
    assert site.sources["lanes.drive_through"] == "set by 'lanes.drive_through=3'"
    assert site.sources["lanes.portals"] == port.sources["lanes.portals"]


@pytest.mark.parametrize(
    "change, problem",
    [
        ("lanes.drive=3", "there are lanes.drive_through"),
        ("drive_through=3", "write table.name=value"),
        ("lanes.drive_through", "write table.name=value"),
        ("lanes.drive_through=three", "is no value of TOML"),
        ("lanes.drive_through=0", "drive_through is 0"),
        ("traffic.contraband_share=2", "a share lies between 0 and 1"),
    ],
)
def test_a_change_that_is_none_is_named(change, problem):
    with pytest.raises(ConfigError) as error:
        scenario.load("small_port", (change,))
    assert problem in str(error.value)


def test_with_a_sites_own_finds_the_machine_flags_what_it_flagged_there(port):
    own = msgspec.structs.replace(port, find_scores=(-1.0, 0.5, 3.0, 4.0))
    rng = np.random.default_rng(6)
    flags = traffic.draw(own, np.zeros(20_000), rng, contraband=True).flag
    assert set(np.unique(flags)) == {-1.0, 0.5, 3.0, 4.0}
    clean = traffic.draw(own, np.zeros(20_000), rng, contraband=False).flag
    assert abs(clean.mean()) < 0.03 and abs(clean.std() - 1) < 0.03
    told = traffic.draw(own, np.zeros(40_000), rng, contraband=True)
    chosen = choices.choose("C", own, told)
    least = 0.5 * 0.7 * 0.9  # half flagged; a person refers, an opening finds
    assert least - 0.01 < chosen.found.mean() < least + 0.1  # and what papers and portal send to a person
