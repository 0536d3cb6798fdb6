"""Risk profiles: what is refused, how a score is made, and that papers that are missing never lower it."""

import datetime
import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io import recording
from scanner_io.errors import ConfigError
from scanner_io.model import Finding, Intervals, Quality
from tests import samples
from triage.analysis import pipeline, risk
from triage.analysis.risk_facts import FACTS, TYPES, History, doubts, facts_of
from triage.analysis.risk_finding import with_risk

AT = samples.START_NS
DAY = datetime.date(2026, 1, 31)


def rule(**changes):
    values = {
        "id": "one", "version": 1, "owner": "risk desk", "reason": "a reason", "valid_from": datetime.date(2025, 1, 1),
        "valid_to": datetime.date(2026, 12, 31), "points": 10.0,
        "when": (risk.Test(fact="declaration.origin", equals="XX"),),
    }  # fmt: skip
    return risk.Rule(**{**values, **changes})


def profile(*rules, missing=30.0, doubtful=15.0, **changes):
    values = {
        "format": risk.FORMAT, "name": "test", "sha256": "ab" * 32, "rules": rules,
        "declaration": risk.Papers(missing_points=missing, doubtful_points=doubtful),
        "joint": risk.JointMethod(method="cauchy", why="they depend"),
    }  # fmt: skip
    return risk.RiskProfile(**{**values, **changes})


def facts(**changes):
    declared = samples.declaration(origin="XX", authorised_trader=True, consignor="Able Ltd", route=("XXAAA", "YYBBB"))
    found = facts_of("north", AT, samples.result(), declared, History(consignor_scans=3))
    return {**found, **changes}


def test_the_example_is_sound_and_known_by_the_hash_of_its_bytes():
    content = risk.EXAMPLE.encode()
    read = risk.parse(content, "example")
    assert read.identity.startswith("north gate@") and len(read.rules) == 3
    assert risk.parse(content + b"\n", "example").sha256 != read.sha256


@pytest.mark.parametrize(
    "old, new, problem",
    [
        ('owner = "risk desk"', "", "missing required field `owner`"),
        ('reason = "authorised traders are checked at home"', 'reason = " "', "rule authorised: reason is empty"),
        ("valid_to = 2027-12-31", "valid_to = 2024-12-31", "before it is valid from"),
        ('fact = "party.authorised"', 'fact = "party.rich"', "no fact 'party.rich'; there are party.authorised"),
        ("is = true", "at_least = 3", "party.authorised is a fact of yes or no"),
        ("is = true", 'is = "yes"', "is asked whether it is 'yes'"),
        ("missing_points = 30.0", "missing_points = 3.0", "expected missing_points >= doubtful_points"),
        ('why = "papers', 'why = " "\n# "', "joint: say why"),
        ('method = "cauchy"', 'method = "guess"', "Invalid enum value 'guess'"),
        ("below = 0.01", "below = 0.01, at_least = 0.5", "contradicts itself"),
        ("points = 25.0", "points = 0.0", "points 0"),
        ("version = 2", "version = 2\nseverity = 3", "unknown field `severity`"),
        ('format = "scanlane', 'format "scanlane', "no TOML"),
    ],
)
def test_what_is_wrong_is_named(old, new, problem):
    assert old in risk.EXAMPLE
    with pytest.raises(ConfigError) as error:
        risk.parse(risk.EXAMPLE.replace(old, new, 1).encode(), "mine.toml")
    assert problem in str(error.value) and "mine.toml" in str(error.value)


def texts(fact, *values, **other):
    return risk.Test(fact=fact, equals=tuple(values) or None, **other)


@pytest.mark.parametrize(
    "one, other, named",
    [
        ({}, {"id": "two", "points": -5.0}, "rules one v1 (risk desk) and two v1 (risk desk) contradict each other"),
        ({"when": (texts("declaration.origin", "XX", "YY"),)},
         {"id": "two", "points": -5.0, "when": (texts("declaration.origin", "YY", "ZZ"),)}, "contradict"),
        ({"when": (risk.Test(fact="declaration.gross_weight_kg", at_least=1000.0),)},
         {"id": "two", "points": -5.0, "when": (risk.Test(fact="declaration.gross_weight_kg", below=2000.0),)},
         "contradict"),
        ({}, {"version": 2, "points": 20.0}, "have one id"),
        ({}, {"id": "two"}, "ask the same and both count"),
        ({"when": (texts("declaration.origin", "XX"), texts("declaration.origin", "YY"))}, {"id": "two"},
         "contradicts itself: declaration.origin is XX and declaration.origin is YY"),
        ({"when": (risk.Test(fact="declaration.missing", equals=False),)}, {"id": "two"}, "would lower the risk"),
        ({"points": -3.0, "when": (risk.Test(fact="declaration.doubtful", equals=True),)}, {"id": "two"},
         "would lower the risk"),
    ],
)  # fmt: skip
def test_rules_that_cannot_stand_together_are_named(one, other, named):
    found = risk.check(profile(rule(**one), rule(**other)))
    assert any(named in problem for problem in found), found


@pytest.mark.parametrize(
    "other",
    [
        {"id": "two", "points": -5.0, "when": (texts("declaration.origin", "YY"),)},
        {"id": "two", "points": -5.0, "valid_from": datetime.date(2027, 1, 1), "valid_to": datetime.date(2027, 2, 1)},
        {"version": 2, "valid_from": datetime.date(2027, 1, 1), "valid_to": datetime.date(2027, 2, 1)},
        {"id": "two", "points": -5.0, "when": (risk.Test(fact="party.authorised", equals=True),)},
    ],
)
def test_rules_that_do_not_meet_do_not_contradict(other):
    assert risk.check(profile(rule(), rule(**other))) == []


def test_every_contribution_is_told_in_words():
    told = risk.assess(profile(rule()), facts(), AT)
    assert told.score == 10
    assert told.contributions[0].words == (
        "+10 one v1 (risk desk): a reason; declaration.origin is XX (here XX)"
    )  # fmt: skip
    assert risk.assess(profile(rule()), facts(**{"declaration.origin": "YY"}), AT).score == 0
    assert risk.assess(profile(rule()), facts(**{"declaration.origin": None}), AT).score == 0


def test_an_expired_rule_does_not_count_and_is_told():
    old = rule(valid_to=datetime.date(2026, 1, 30))
    told = risk.assess(profile(old, rule(id="new", valid_from=datetime.date(2026, 2, 1))), facts(), AT)
    assert (
        told.score == 0 and "expired on 2026-01-30" in told.left_out[0] and "valid from 2026-02-01" in told.left_out[1]
    )
    assert risk.assess(profile(rule(valid_to=DAY)), facts(), AT).score == 10  # the last day counts
    assert risk.expired(profile(old), DAY) == [old]


def test_of_a_group_the_strongest_counts():
    both = rule(group="o"), rule(id="two", points=7.0, group="o", when=(texts("route.countries", "YY"),))
    told = risk.assess(profile(*both), facts(), AT)
    assert told.score == 10 and "another of its group o counts" in told.left_out[0]


def test_the_joint_p_value_is_a_fact():
    strange = rule(when=(risk.Test(fact="joint.p_value", below=0.01),))
    p = {"image.p_value": 0.004, "portal.p_value": 0.006, "declared_seen.p_value": 0.02}
    told = risk.assess(profile(strange), facts(**p), AT)
    assert told.score == 10 and 0.005 < told.joint_p < 0.01 and "by cauchy of declared against seen 0.02" in told.joint
    assert risk.assess(profile(strange), facts(**{**p, "image.p_value": 0.4, "portal.p_value": 0.5}), AT).score == 0


def test_facts_are_as_the_catalogue_says_and_part_what_was_found_by_where():
    result = samples.result(
        findings=(
            Finding(kind="opaque", score=1.0, reason="r", tier="review"),
            Finding(kind="void", score=1.0, reason="r", tier="note"),
            Finding(kind="declared_empty_but_loaded", score=1.0, reason="r", tier="review", p_value=0.02),
            Finding(kind="shape", score=1.0, reason="r", tier="review", where=Intervals(first=1, end=2), p_value=0.01),
            Finding(kind="gamma_alarm", score=1.0, reason="r", tier="alarm", p_value=0.2),
        )
    )
    found = facts_of("north", AT, result, samples.declaration(), History())
    assert set(found) == set(FACTS)
    for name, value in found.items():
        assert value is None or isinstance(value, TYPES[FACTS[name].kind]), name
    assert found["image.findings"] == ("opaque",) and found["portal.findings"] == ("shape", "gamma_alarm")
    assert found["declared_seen.findings"] == ("declared_empty_but_loaded",) and found["declared_seen.p_value"] == 0.02
    assert found["portal.p_value"] == pytest.approx(0.02)  # twice the smallest of two
    none = facts_of("north", AT, result, None, History())
    assert (
        all(none[name] is None for name, fact in FACTS.items() if fact.papers) and none["declaration.missing"] is True
    )


def test_what_is_odd_about_a_declaration_is_told():
    assert doubts(samples.declaration()) == ()
    assert "check digit" in doubts(samples.declaration(container_numbers=("CSQU3054384",)))[0]
    assert "no chapter 77" in doubts(samples.declaration(hs_codes=("770100",)))[0]
    assert "declared empty, and goods" in doubts(samples.declaration(declared_empty=True))[0]
    assert "no goods are declared" in doubts(samples.declaration(hs_codes=()))[0]
    assert "came late" in doubts(samples.declaration(), (Quality(code="declaration_late", reason="came late"),))[0]


# ---------------------------------------------------------------------------------- missing papers lower nothing

TESTS = st.sampled_from([
    risk.Test(fact="declaration.origin", equals="XX"), risk.Test(fact="declaration.origin", is_not=("XX", "YY")),
    risk.Test(fact="declaration.chapters", starts_with="69"), risk.Test(fact="party.authorised", equals=True),
    risk.Test(fact="party.authorised", equals=False), risk.Test(fact="declaration.gross_weight_kg", at_least=20_000.0),
    risk.Test(fact="declaration.doubtful", equals=True), risk.Test(fact="declaration.missing", equals=True),
    risk.Test(fact="declared_seen.findings", equals="mass_differs"), risk.Test(fact="portal.gamma_alarm", equals=True),
    risk.Test(fact="joint.p_value", below=0.05), risk.Test(fact="joint.p_value", at_least=0.2),
    risk.Test(fact="history.consignor_finds", at_least=1.0), risk.Test(fact="image.findings", equals="opaque"),
])  # fmt: skip
RULES = st.lists(
    st.builds(
        lambda points, when, group: rule(points=points, when=tuple(when), group=group),
        st.sampled_from([-40.0, -3.0, 5.0, 20.0]), st.lists(TESTS, min_size=1, max_size=3), st.sampled_from(["", "g"]),
    ),
    max_size=6,
)  # fmt: skip
DECLARED = st.fixed_dictionaries({
    "declaration.origin": st.sampled_from([None, "XX", "YY", "ZZ"]),
    "declaration.chapters": st.sampled_from([(), ("69",), ("09", "84")]),
    "party.authorised": st.sampled_from([None, True, False]),
    "declaration.gross_weight_kg": st.sampled_from([None, 8000.0, 24_000.0]),
    "declared_seen.findings": st.sampled_from([(), ("mass_differs",)]),
    "declared_seen.p_value": st.sampled_from([None, 1e-5, 0.03, 0.9, 1.0]),
    "history.consignor_finds": st.sampled_from([0.0, 2.0]),
    "image.p_value": st.sampled_from([None, 0.001, 0.3]), "portal.gamma_alarm": st.sampled_from([None, True, False]),
    "declaration.doubtful": st.booleans(),
})  # fmt: skip


@given(RULES, DECLARED)
def test_missing_papers_score_at_least_what_any_papers_do_and_doubtful_ones_what_good_ones_do(rules, declared):
    tried = profile(*(msgspec.structs.replace(r, id=f"r{i}") for i, r in enumerate(rules)))
    # a profile that a doubtful or missing declaration could be lowered by is refused before it is used
    if any("would lower the risk" in problem for problem in risk.check(tried)):
        return
    present = facts(**declared)
    absent = {name: None if FACTS[name].papers else value for name, value in present.items()}
    absent |= {"declaration.missing": True, "declaration.doubtful": None}
    with_papers = risk.assess(tried, present, AT).score
    assert risk.assess(tried, absent, AT).score >= with_papers
    doubted, good = (risk.assess(tried, {**present, "declaration.doubtful": d}, AT).score for d in (True, False))
    assert doubted >= good


def test_relief_without_papers_is_told_as_withheld():
    relief = rule(points=-20.0, when=(risk.Test(fact="portal.gamma_alarm", equals=False),))
    absent = facts_of("north", AT, samples.result(), None, History())
    told = risk.assess(profile(relief, rule(id="two")), absent, AT)
    assert told.score == 40 and "no relief while the declaration is missing" in told.left_out[0]
    assert [c.assumed for c in told.contributions] == [False, True]
    assert "no declaration says otherwise" in told.contributions[1].words


def test_differences_are_told_and_a_changed_rule_needs_a_new_version():
    before = profile(rule(), rule(id="gone"))
    after = profile(rule(points=20.0), rule(id="new"))
    found = risk.differences(before, after)
    assert found == [
        "rule gone: taken out (+10, a reason)", "rule one: points 10.0 -> 20.0",
        "rule one: changed, and its version is still 1", "rule new: new in v1 (+10, risk desk: a reason)",
    ]  # fmt: skip
    assert risk.differences(before, before) == []


def test_conditions_hold_as_their_words_say():
    cases = {
        (risk.Test(fact="declaration.chapters", is_not="69"), ("09",)): True,
        (risk.Test(fact="declaration.chapters", is_not="69"), ("09", "69")): False,
        (risk.Test(fact="declaration.hs_codes", starts_with=("69", "68")), ("681011",)): True,
        (risk.Test(fact="declaration.gross_weight_kg", at_least=5.0, below=6.0), 5.0): True,
        (risk.Test(fact="declaration.gross_weight_kg", at_least=5.0, below=6.0), 6.0): False,
        (risk.Test(fact="party.authorised", equals=False), False): True,
        (risk.Test(fact="declaration.origin", equals="XX"), None): None,
    }  # fmt: skip
    assert {key: risk.holds(*key) for key in cases} == cases
    assert len({t.words for t, _ in itertools.chain(cases)}) == 5


# ---------------------------------------------------------------------------------------------------- in the lane


def test_a_lane_tells_the_score_with_the_scan_and_asks_for_a_review_where_the_profile_does():
    calm = samples.result(outcome="CLEAR", findings=(), reasons=("nothing found",))
    scan = samples.scan(declaration=samples.declaration(origin="XX"))
    told = with_risk(calm, scan, profile(rule()))
    assert told.outcome == "CLEAR" and told.findings[-1].kind == "risk" and told.findings[-1].tier == "note"
    assert told.findings[-1].reason.startswith("risk 10 by test@abababababab: +10 one v1 (risk desk): a reason;")
    asked = with_risk(calm, scan, profile(rule(), review_from=10.0))
    assert asked.outcome == "REVIEW" and asked.reasons == (asked.findings[-1].reason,)
    worse = samples.result(outcome="UNUSABLE", reasons=("no image",))
    assert with_risk(worse, scan, profile(rule(), review_from=10.0)).outcome == "UNUSABLE"
    assert with_risk(calm, scan, None) is calm
    bare = with_risk(calm, samples.scan(declaration=None), profile(rule(), review_from=40.0))
    assert bare.outcome == "REVIEW" and "the declaration is missing" in bare.reasons[0]
    # the score is no fact of its own: scored again, the same comes out
    again = facts_of("north", AT, asked, scan.declaration, None)
    assert again["image.findings"] is None or "risk" not in again["image.findings"]
    assert again["history.consignor_scans"] is None


def test_the_score_is_in_the_judgement_and_its_profile_in_the_judgements_name():
    scan = samples.scan(declaration=samples.declaration(origin="XX"), radiograph=None)
    plain, rules = pipeline.Profile(), pipeline.Profile(risk=profile(rule()))
    assert rules.identity != plain.identity and rules.thresholds == plain.thresholds
    assert [f.kind for f in pipeline.run(scan, rules).findings][-1] == "risk"
    assert pipeline.run(scan, rules).judgement() == pipeline.run(scan, rules).judgement()
    assert "risk" not in [f.kind for f in pipeline.run(scan, plain).findings]


def test_a_score_is_a_float_also_where_no_rule_counts_so_that_a_recording_reads_as_it_was_written(tmp_path):
    scan = samples.scan(declaration=samples.declaration(origin="DE"))
    told = with_risk(samples.result(), scan, profile(rule()))
    assert isinstance(told.findings[-1].score, float) and told.findings[-1].score == 0
    path = tmp_path / "one.scan.h5"
    recording.write(path, scan, result=told)
    assert [p for p in recording.check(path) if p.check == "hash"] == []
