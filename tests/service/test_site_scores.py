"""A site's own machine scores for the simulation of policies."""

import json

import msgspec
import numpy as np
import pytest

from scanner_io.errors import ConfigError
from scanner_io.model import Finding, Standing
from tests import samples
from tests.service.risk_rig import put, said
from triage.policy import comparison, report, scenario
from triage.policy.site_scores import SiteScores, site_scores, with_scores
from triage.service.outbox import Outbox


def picture(p, flagged):
    findings = (Finding(kind="opaque", score=1.0, reason="r", tier="review"),) if flagged else ()
    standing = Standing(p_value=p, level=0.01, stratum="all", scans=500, cell=("even", "09"), scores={}, vital_signs={})
    return {"outcome": "REVIEW" if flagged else "CLEAR", "findings": findings, "standing": standing}


@pytest.fixture
def archive(tmp_path):
    outbox = Outbox(tmp_path / "outbox.sqlite")
    rng = np.random.default_rng(3)
    for number in range(150):
        flagged = number % 10 == 0
        put(outbox, number, "clear" if flagged else "", declaration=samples.declaration(),
            **picture(float(rng.uniform(0, 0.01) if flagged else rng.uniform(0.01, 1)), flagged))  # fmt: skip
    put(outbox, 150, "inspect", (1,), **picture(0.001, True))
    outbox.close()
    return tmp_path


def test_the_share_of_flags_is_counted_and_the_curve_moved_there(archive):
    seen = site_scores(archive / "outbox.sqlite")
    assert seen.pictures == seen.simulated == 151 and seen.flagged["hits"] == 15 and seen.flagged["of"] == 150
    assert seen.finds == ()  # that one was found because it was flagged: it says nothing of what is not
    port = scenario.load("small_port")
    site, told = with_scores(port, seen, "here")
    assert site.detector.false_alarm_share == pytest.approx(15.5 / 151)
    assert not told["own_finds_used"] and "20 are needed" in told["found_at_that_source"]
    assert site.detector.found_at_that > port.detector.found_at_that  # more flags, more found
    assert site.sources["detector.false_alarm_share"] == "151 pictures in here"


def test_finds_that_were_drawn_at_random_take_the_place_of_the_curve():
    port = scenario.load("small_port")
    seen = SiteScores(1000, 0, {"hits": 50, "of": 975}, tuple(np.linspace(-1, 3, 25)), 8)
    site, told = with_scores(port, seen, "here")
    assert told["own_finds_used"] and site.find_scores == seen.finds
    assert told["found_at_that"] == pytest.approx(np.mean(np.array(seen.finds) > 1.632), abs=0.01)
    assert msgspec.structs.replace(site, find_scores=()).detector == site.detector


def test_too_few_pictures_are_no_share(tmp_path):
    outbox = Outbox(tmp_path / "outbox.sqlite")
    put(outbox, 1, **picture(0.5, False))
    outbox.close()
    with pytest.raises(ConfigError, match="1 pictures in it; a share of flags needs 100"):
        site_scores(tmp_path / "outbox.sqlite")


def test_the_command_takes_scores_and_changes(archive, monkeypatch):
    seen = []

    def compare(site, *_):
        seen.append(site)
        return {"scenario": site.name}

    monkeypatch.setattr(comparison, "compare", compare)  # the simulation itself takes seconds, and has its own tests
    told = json.loads(
        said("policy", "simulate", "small_port", "--scores", archive, "--set", "policies.shares=[0.1]", "--json")
    )
    assert told["set"] == ["policies.shares=[0.1]"] and told["scores"]["simulated"] == 151
    assert seen[0].policies.shares == (0.1,)
    assert seen[0].detector.false_alarm_share == pytest.approx(15.5 / 151)
    assert "the machine's flags are the site's own: 15/150 = 10.0%" in report.own_machine(told["scores"])[0]
