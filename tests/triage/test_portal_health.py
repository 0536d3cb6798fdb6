"""Health of a portal: what is wrong is told in time and ends with words; a healthy portal is left in peace."""

import math

import numpy as np
import pytest

from scanner_io import driver as drivers
from scanner_io.formats.portal_daily import iter_daily_file
from scanner_io.model import NANOSECONDS, CountBlock, Health, Occupancy, PortalSettings
from tests import samples
from triage.analysis.pipeline import Profile, run
from triage.analysis.portal_health import (
    HealthLimits,
    PortalHealth,
    inside,
    likeliest,
    repeats_needed,
    step_sd,
    zeros_needed,
)

S = 1_000_000_000
T0 = samples.START_NS
RATES = np.array([379.0, 371.0, 407.0, 371.0])


def background(rng, lines, rates=RATES, memory=None):
    """Return GB rows: whole 20 s means every 5 s of Poisson counts."""
    blocks = rng.poisson(np.broadcast_to(rates, (lines + 3, 4)) * 5)
    return np.rint((blocks[:-3] + blocks[1:-2] + blocks[2:-1] + blocks[3:]) / 20)


def block(row, t_s, series="gamma_background"):
    return CountBlock(utc_ns=T0 + int(t_s * S), series=series, counts=np.asarray(row)[np.newaxis])


def feed(health, rows, start_s=0.0, step_s=5.0, series="gamma_background"):
    """Feed rows at a steady pace; return what was told as (seconds, component, state)."""
    told = []
    for k, row in enumerate(rows):
        t_s = start_s + k * step_s
        told += [(t_s, h.component, h.state) for h in health.take(block(row, t_s, series))]
    return told


# ------------------------------------------------------------------------------------------------------- pure tests


@pytest.mark.parametrize("mean", [0.3, 1.0, 3.6, 17.2, 76.0, 1900.0])
def test_no_count_is_likelier_than_the_likeliest(mean):
    k = np.arange(int(mean * 3 + 20))
    pmf = np.exp(k * math.log(mean) - mean - np.array([math.lgamma(n + 1) for n in k]))
    assert likeliest(mean) == pytest.approx(pmf.max(), rel=1e-9)
    assert likeliest(0.0) == 1.0 and repeats_needed(0.0, 1e-10) == 0


def test_repeats_are_as_rare_as_promised():
    """At a chance that can be simulated: the bound holds and is not far off."""
    rng, chance = np.random.default_rng(1), 1e-3
    for mean in (3.6, 20.0, 76.0):
        counts = rng.poisson(mean, 400_000)
        needed = repeats_needed(mean, chance)
        same = np.ones(len(counts) - needed, bool)
        for k in range(1, needed + 1):
            same &= counts[k : len(counts) - needed + k] == counts[: len(counts) - needed]
        assert same.mean() <= chance
    rows = background(rng, 200_000)[:, 0]
    needed = repeats_needed(5 * 379.0, chance, lattice=20.0)
    same = np.ones(len(rows) - needed, bool)
    for k in range(1, needed + 1):
        same &= rows[k : len(rows) - needed + k] == rows[: len(rows) - needed]
    assert 0 < same.mean() <= chance


def test_zeros_needed_is_the_poisson_chance_of_nothing():
    assert math.exp(-30.0) < 1e-10 and zeros_needed(30.0, 1e-10) == 3
    assert zeros_needed(1.0, 1e-10) == 24 and math.exp(-24) < 1e-10 < math.exp(-23)
    assert zeros_needed(0.0, 1e-10) == 0


def test_steps_between_published_means_scatter_as_told():
    rows = background(np.random.default_rng(2), 100_000)
    steps = np.diff(rows, axis=0)
    np.testing.assert_allclose(steps.std(axis=0), step_sd(RATES), rtol=0.01)
    np.testing.assert_allclose(inside(steps, step_sd(RATES)).mean(axis=0), 0.683, atol=0.01)
    total = rows.sum(axis=1)
    assert np.corrcoef(total[:-1], total[1:])[0, 1] == pytest.approx(0.75, abs=0.01)
    share = np.lib.stride_tricks.sliding_window_view(inside(steps, step_sd(RATES))[:, 0], 360)[::12].mean(axis=1)
    low, high = HealthLimits().scatter
    z = (share.mean() - low) / share.std(), (high - share.mean()) / share.std()
    assert min(z) > 6.5, "standard deviations between Poisson counts and the limits"


# ------------------------------------------------------------------------------------------------- a healthy portal


@pytest.mark.parametrize("days", [2, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3000)])])
def test_a_healthy_portal_is_left_in_peace(days):
    """Background of that many days, and four times as many lines of occupied intervals, Poisson: nothing is told."""
    rng, health = np.random.default_rng(3), PortalHealth()
    for day in range(days):
        assert feed(health, background(rng, 17_280), day * 172_800.0) == []
        counts = rng.poisson(0.6 * RATES / 5, (4 * 17_280, 4))
        assert feed(health, counts, day * 172_800.0 + 90_000.0, 0.2, "gamma") == []


def test_a_healthy_portal_with_weather_and_traffic_is_left_in_peace():
    module = drivers.load("simulated")
    traffic = module.Traffic(passes=500, gap_s=100.0, weather=1.0, patient_share=0.0, seed=5)
    assert [h for h in healths(traffic)[1] if h.state != "ok"] == []


@pytest.mark.parametrize("name", ["S2-C0-NONE.csv", "S2-C3-NORM2.csv"])
def test_recorded_portals_are_left_in_peace(shared_data, name):
    health = PortalHealth()
    assert [h for e in iter_daily_file(shared_data / "portal" / name) for h in health.take(e)] == []
    assert health.conditions == ()


# ------------------------------------------------------------------------------------------------------ what is told


def settled():
    """Return a health with an hour of history, and the seconds it has seen."""
    health = PortalHealth()
    assert feed(health, background(np.random.default_rng(4), 720)) == []
    return health, 720 * 5.0


def test_a_stuck_detector_is_told_by_its_background_and_ends():
    health, t_s = settled()
    rows = background(np.random.default_rng(5), 60)
    rows[:30, 1] = 371
    told = feed(health, rows, t_s)
    assert [(c, s) for _, c, s in told] == [("gamma2_stuck", "fault"), ("gamma2_stuck", "ok")]
    assert told[0][0] - t_s <= 80.0 and told[1][0] - t_s == pytest.approx(32 * 5.0, abs=5.1)


def test_a_stuck_detector_is_told_within_two_seconds_of_a_passage():
    health, t_s = settled()
    counts = np.random.default_rng(6).poisson(RATES / 5, (40, 4))
    counts[:, 3] = 74
    told = feed(health, counts, t_s, step_s=0.2, series="gamma")
    assert [(c, s) for _, c, s in told] == [("gamma4_stuck", "fault")] and told[0][0] - t_s < 2.0
    (flag,) = health.quality(T0 + int(t_s * S))
    assert flag.code == "portal_gamma4_stuck" and "stuck" in flag.reason


def test_a_dead_detector_is_told_at_once_and_one_that_is_off_line_is_not():
    health, t_s = settled()
    counts = np.random.default_rng(7).poisson(RATES / 5, (40, 4))
    counts[:, 0] = 0
    assert feed(health, counts, t_s, 0.2, "gamma")[0][1:] == ("gamma1_dead", "fault")
    rows = background(np.random.default_rng(8), 20)
    rows[:, 2] = 0
    fresh = PortalHealth()
    assert {c for _, c, _ in feed(fresh, rows)} == {"gamma3_dead"}, "by the other detectors, without history"
    rows[:, 2] = 2
    noisy = PortalHealth()
    assert {c for _, c, _ in feed(noisy, rows)} == {"gamma3_dead"}, "a little noise is no count"
    off = PortalHealth()
    lines = ("SG1,002000,000068,05,10,05.0,P", "SG2,1101,0.069,0.455,01,1010,A")
    record = samples.portal(settings=PortalSettings(lines=lines))
    off.take(Occupancy(phase="left", utc_ns=T0, record=record))
    assert feed(off, rows, 10.0) == []


@pytest.mark.parametrize(
    ("factors", "component", "within_s"),
    [
        ((1.4,) * 4, "gamma_background", 20),
        ((0.5,) * 4, "gamma_background", 20),
        ((1.18,) * 4, "gamma_drift", 900),
        ((1.25, 1, 1, 1), "gamma1_share", 700),
    ],
)
def test_high_low_drift_and_imbalance_by_own_history(factors, component, within_s):
    health, t_s = settled()
    rng = np.random.default_rng(9)
    told = feed(health, background(rng, 300, RATES * factors), t_s)
    assert [c for _, c, s in told if s != "ok"] == [component]
    assert told[0][0] - t_s <= within_s
    back = feed(health, background(rng, 300), t_s + 1500.0)
    assert [(c, s) for _, c, s in back] == [(component, "ok")] and health.conditions == ()


def test_a_new_level_is_accepted_after_a_day():
    health, t_s = settled()
    told = feed(health, background(np.random.default_rng(10), 18_500, RATES * 1.4), t_s)
    assert [(c, s) for _, c, s in told] == [("gamma_background", "degraded"), ("gamma_background", "ok")]


@pytest.mark.parametrize(("spread", "word"), [(2.2, "more"), (0.3, "less")])
def test_a_detector_that_is_too_restless_or_too_quiet(spread, word):
    health, t_s = settled()
    rows = background(np.random.default_rng(11), 500)
    rows[:, 2] = np.rint(407 + spread * (rows[:, 2] - 407))
    for k, row in enumerate(rows):
        told = health.take(block(row, t_s + 5.0 * k))
        if told:
            break
    assert told[0].component == "gamma3_scatter" and f"scatters {word}" in told[0].text


def test_a_portal_that_counts_anew_is_told():
    health = PortalHealth()
    told = []
    for number, epoch in ((4, 1), (7, 1), (1, 2)):
        record = samples.portal(number=number, boot_epoch=epoch)
        told += health.take(Occupancy(phase="left", utc_ns=T0, record=record))
    assert [(h.component, h.state) for h in told] == [("restart", "ok")]


def test_a_clock_that_is_set_is_told_and_doubts_the_scans_around_it():
    health, t_s = settled()
    told = feed(health, background(np.random.default_rng(12), 30), t_s - 3600.0)
    assert [(c, s) for _, c, s in told] == [("clock", "degraded"), ("clock", "ok")]
    other = PortalHealth()
    step = Health(utc_ns=T0, component="clock", state="degraded", text="this computer's clock was set by +120.0 s")
    assert other.take(step) == [], "its driver has told it"
    assert [q.code for q in other.quality(T0)] == ["portal_clock"]
    other.take(Health(utc_ns=T0 + 60 * NANOSECONDS, component="clock", state="ok", text="even for 60 s"))
    assert other.quality(T0 + 61 * NANOSECONDS) == ()


def test_link_silence_and_tamper_are_kept_with_their_times():
    health = PortalHealth()
    assert [h.state for h in health.link(T0, up=False, text="no route")] == ["degraded"]
    health.take(Health(utc_ns=T0 + S, component="tamper", state="fault", text="tamper contact opened"))
    assert [(c.component, c.since_utc_ns) for c in health.conditions] == [("link", T0), ("tamper", T0 + S)]
    (over,) = health.link(T0 + 90 * S, up=True)
    assert over.text == "over after 90 s: the link is lost: no route"
    health.take(Health(utc_ns=T0 + 99 * S, component="tamper", state="ok", text="over"))
    assert health.conditions == () and health.quality(T0) == ()


# ------------------------------------------------------------------------------------------ through the whole lane way


def healths(traffic):
    """Play simulated traffic; return the scans with their flags and everything that health told."""
    module = drivers.load("simulated")
    decoder = drivers.load("rpm_rapiscan").Decoder(drivers.load("rpm_rapiscan").Config(address="memory:x"))
    health, told, flags = PortalHealth(), [], []
    for played in module.play(traffic):
        if not isinstance(played, module.Piece):
            continue
        for event in decoder.feed(played.data, T0 + int(played.t_s * S)):
            told += health.take(event)
            if isinstance(event, Occupancy) and event.record is not None:
                flags.append((event.record, health.quality(event.record.start_utc_ns)))
    return flags, told


@pytest.mark.parametrize("kind", ["dead_detector", "stuck_detector"])
@pytest.mark.parametrize("detector", [0, 3])
def test_no_scan_made_with_a_dead_or_stuck_detector_reads_as_clear(kind, detector):
    module = drivers.load("simulated")
    fault = module.Fault(kind=kind, passage=4, at=-0.5, seconds=600.0, detector=detector)
    calm = {"source_share": 0.0, "norm_share": 0.0, "neutron_share": 0.0, "patient_share": 0.0}
    flags, told = healths(module.Traffic(passes=30, plan=(fault,), gap_s=60.0, shortest_gap_s=50.0, **calm))
    word = kind.partition("_")[0]
    hurt = [(r, q) for r, q in flags if np.ptp(r.gamma[:, detector]) == 0]
    assert 5 < len(hurt) < 15
    for record, quality in hurt:
        assert f"portal_gamma{detector + 1}_{word}" in {q.code for q in quality}
        scan = samples.scan(portal=record, radiograph=None, declaration=None, quality=quality, expected=("portal",))
        assert run(scan, Profile()).outcome in ("REVIEW", "ALARM")
    well = [q for r, q in flags if np.ptp(r.gamma[:, detector]) > 0]
    assert sum(bool(q) for q in well) <= 1, "the first one after it may still be flagged"
    ends = [h for h in told if h.component == f"gamma{detector + 1}_{word}"]
    assert [h.state for h in ends] == ["fault", "ok"] and "over after" in ends[-1].text
