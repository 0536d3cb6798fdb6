"""Simulated loads, threats, vehicles and movement: plausible, where the truth says, and the same for the same seed."""

import msgspec
import numpy as np
import pytest

from drivers.simulated import Config, ground_truth, simulate_passage, simulate_radiograph
from drivers.simulated.cargo import KINDS
from drivers.simulated.carriers import CARRIERS
from drivers.simulated.config import PASSAGE_S
from drivers.simulated.passage import detector_of
from drivers.simulated.plan import MAX_LOAD_KG, SCAN, TEXTURE, plan, stream
from drivers.simulated.radiograph import GAIN_DRIFT_MOST, conditions_of, travel_of
from drivers.simulated.scene import Heap, Pillow, Prism, Scene, Strip, Textures, View
from drivers.simulated.threats import THREATS, UNDECLARED, carved
from drivers.simulated.vehicle import bay_of
from scanner_io.errors import LinkLost
from scanner_io.model import DeclarationSeen, LineBlock, ScanStart

SMALL = {"columns": 400, "channels": 160, "energies": 1, "portal": False, "threat_share": 0.0}


def load_of(kind, seed, feet):
    bay = bay_of(1600.0, feet, 2896.0, KINDS[kind].reefer)
    return bay, KINDS[kind].build(np.random.default_rng(seed), bay)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "empty"])
def test_a_load_lies_in_its_container_and_is_as_dense_as_such_goods_are(kind):
    low, high = KINDS[kind].g_cm2
    view = View(500, 200)
    for seed, feet in enumerate(KINDS[kind].feet * 2):
        bay, load = load_of(kind, seed, feet)
        extents = np.array([s.extent for s in load])
        assert extents[:, 0].min() > bay.x0 - 60
        assert extents[:, 1].max() < bay.x1 + 60
        assert extents[:, 2].min() > bay.h0 - 60  # a sack sags between its neighbours
        assert extents[:, 3].max() < bay.h1 + 20
        assert np.abs(extents[:, 4:]).max() < 1219
        density = Scene(load).draw(view, 0, 500).density.sum(axis=0)
        assert low <= np.median(density[density > 0.5]) <= high
        # What _scaled would have to thin is at most half again too heavy: the densities themselves are the goods'.
        assert 150 < sum(s.mass_kg for s in load) < 1.5 * MAX_LOAD_KG[feet]


def test_no_two_loads_of_a_kind_are_alike_and_the_same_seed_gives_the_same():
    for kind in KINDS:
        if kind != "empty":
            feet = KINDS[kind].feet[0]
            first, again, other = (load_of(kind, seed, feet)[1] for seed in (1, 1, 2))
            assert first == again
            assert first != other


def test_every_kind_names_goods_of_a_chapter_and_its_order():
    for name, kind in KINDS.items():
        assert all(len(g.hs) == 6 and g.hs.isdigit() and 1 <= int(g.hs[:2]) <= 97 for g in kind.goods)
        assert bool(kind.goods) == (name != "empty")
        assert kind.build.__doc__
    assert sum(k.order == "cluttered" for k in KINDS.values()) >= 4


# --------------------------------------------------------------------------------------------------------------
# Threats


def pictures(config, index=0):
    """Return the noise-free scan with and without the threat, `(columns, channels)` at the highest energy."""
    this = plan(config, index)
    detector = detector_of(config)
    textures = Textures(detector.view, stream(config, index, TEXTURE))
    conditions = conditions_of(config, detector, stream(config, index, SCAN), this.truth.faults)
    return [
        detector.transmission(scene, textures, conditions, 0, config.columns)[-1] for scene in (this.scene, this.clean)
    ]


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize(
    "changes", [{"cargo": {"cartons": 1.0}}, {"cargo": {"bulk": 1.0, "mixed": 1.0}, "speed_variation": 0.3,
                "rear_first_share": 1.0, "turned_share": 0.5, "source_distance_mm": 4800.0}],
    ids=["straight", "moved"],
)  # fmt: skip
def test_the_picture_changes_where_the_truth_says_and_nowhere_else(threat, changes):
    # Without scatter, which carries a trace of every change to the other channels of its columns.
    config = Config(**SMALL | {"threat_share": 1.0, "scatter": 0.0}, threats={threat: 1.0}, seed=4, **changes)
    truth = ground_truth(config, 0)
    assert truth.threat
    box = truth.threat_box
    seen, clean = pictures(config)
    change = np.log(seen / clean)
    inside = np.zeros(change.shape, bool)
    inside[box.first_column : box.end_column, box.first_channel : box.end_channel] = True
    assert np.abs(change[~inside]).max() < 0.05
    changed = np.abs(change) > 0.03
    assert changed[inside].sum() == pytest.approx(truth.threat_pixels, abs=2)
    if truth.threat_pixels:
        assert np.exp(np.median(change[inside & changed])) == pytest.approx(truth.threat_transmission[-1], rel=0.02)
        assert changed[inside].any()


def test_threats_darken_and_voids_brighten():
    for threat in ("dense_block", "extra_item", "door_bags", UNDECLARED):
        truth = ground_truth(Config(**SMALL | {"threat_share": 1.0}, threats={threat: 1.0}, cargo={"empty": 1.0}), 1)
        assert truth.threat == threat
        assert 0 < truth.threat_transmission[-1] < 0.97
    truth = ground_truth(Config(**SMALL | {"threat_share": 1.0}, threats={"void": 1.0}, cargo={"cartons": 1.0}), 1)
    assert truth.threat == "void"
    assert truth.threat_transmission[-1] > 1.05


def test_where_a_threat_cannot_be_another_is():
    """A container that is empty has no goods to be missing."""
    config = Config(**SMALL | {"threat_share": 1.0}, threats={"void": 1.0}, cargo={"empty": 1.0})
    assert ground_truth(config, 0).threat == "extra_item"


def test_what_is_declared_empty_and_holds_something_says_so_in_truth_alone():
    config = Config(**SMALL | {"threat_share": 1.0}, threats={UNDECLARED: 1.0}, cargo={"cartons": 1.0})
    for index in range(3):
        truth = ground_truth(config, index)
        events = simulate_passage(config, index)
        (declared,) = [e.declaration for e in events if isinstance(e, DeclarationSeen)]
        assert declared.declared_empty
        assert not declared.hs_codes
        assert (truth.cargo, truth.load, truth.misdeclared) == ("empty", "loaded", "declared empty, is loaded")
        assert truth.cargo_kg > 0


def test_the_event_stream_tells_no_threat():
    """The same vehicle with another kind of threat differs in counts and in nothing else that is said of it."""
    base = SMALL | {"threat_share": 1.0, "cargo": {"cartons": 1.0}}
    said = []
    for threat in ("dense_block", "brick_stack"):
        events = simulate_passage(Config(**base, threats={threat: 1.0}), 0)
        start = next(e for e in events if isinstance(e, ScanStart))
        declared = next(e.declaration for e in events if isinstance(e, DeclarationSeen))
        papers = msgspec.structs.replace(declared, gross_weight_kg=None)
        said.append((start.source_ref, start.detector.note, start.detector.flags, papers))
    assert said[0] == said[1]
    assert "SIMULATED" in said[0][1]


def test_room_is_carved_out_of_goods():
    box = (1000.0, 1400.0, 1500.0, 1800.0, -200.0, 200.0)
    whole = [Prism(x0=0, x1=3000, h0=1300, h1=2500, z0=-1000, z1=1000, material="water", g_cm3=0.5)]
    left = carved(whole, box)
    assert sum(s.mass_kg for s in left) == pytest.approx(whole[0].mass_kg - 0.5e-6 * 400 * 300 * 400)
    inside = Pillow(x0=1100, x1=1300, h=1650, z=0, rh=100, rz=100, g_cm3=1.0)
    beside = Strip(x0=2000, x1=2500, low=(1500, 1500), high=(1600, 1600), thick=5)
    assert carved([inside, beside], box) == [beside]
    heap = Heap(x0=0, x1=3000, h0=1300, heights=(1600.0, 1600.0), material="water", g_cm3=1.0)
    gone = heap.mass_kg - sum(s.mass_kg for s in carved([heap], box))
    assert gone == pytest.approx(1e-6 * 400 * 100 * 400)  # only up to the top of the heap


# --------------------------------------------------------------------------------------------------------------
# Vehicles


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_vehicle_is_told_by_truth_and_papers(carrier):
    config = Config(**SMALL, carriers={carrier: 1.0}, cargo={"cartons": 1.0, "sacks": 1.0}, misdeclared_share=0.0)
    truth = ground_truth(config, 0)
    events = simulate_passage(config, 0)
    (declared,) = [e.declaration for e in events if isinstance(e, DeclarationSeen)]
    boxes = {"semi_trailer": 1, "two_twenties": 2}.get(carrier, 0)
    assert truth.carrier == carrier
    assert len(declared.container_numbers) == boxes
    assert len(set(declared.container_numbers)) == boxes
    assert (truth.feet > 0) == (boxes > 0)
    assert truth.doors == ("right" if boxes else "")
    assert bool(truth.cargo_second) == (boxes == 2)
    assert (truth.load == "loaded") == (carrier not in ("bare_chassis", "car"))
    image = np.concatenate([e.counts[-1] for e in events if isinstance(e, LineBlock)])
    assert image.shape == (config.columns, config.channels)
    detector = detector_of(config)
    t = (image - detector.dark[-1]) / (detector.air_reference[-1] - detector.dark[-1])
    assert 0.01 < (t[:, ~detector.bad] < 0.8).mean() < 0.6  # something passed, and air is left around it


def test_every_vehicle_keeps_to_its_time_slot():
    for rear_first in (0.0, 1.0):
        config = Config(**SMALL, carriers=dict.fromkeys(CARRIERS, 1.0), scan_cab=True, rear_first_share=rear_first)
        for index in range(30):
            this = plan(config, index)
            assert this.scan_start_s > 1.0
            assert this.scan_start_s + config.span_mm / this.speed_mm_s < PASSAGE_S - 3
            assert this.enter_s + (this.rear_mm - this.front_mm) / this.speed_mm_s < PASSAGE_S - 3


def test_rear_first_is_the_mirrored_picture():
    forwards = Config(**SMALL, cargo={"mixed": 1.0}, scan_cab=True)
    backwards = msgspec.structs.replace(forwards, rear_first_share=1.0)
    view = View(400, 160, span_mm=forwards.span_mm)
    there, back = (plan(c, 3) for c in (forwards, backwards))
    assert (there.truth.doors, back.truth.doors) == ("right", "left")
    a, b = (p.scene.draw(view, 0, 400).density for p in (there, back))
    np.testing.assert_allclose(a, b[:, ::-1], atol=2e-3)
    assert back.rear_mm - back.front_mm == pytest.approx(there.rear_mm - there.front_mm)


def test_a_turned_container_has_its_doors_at_the_cab_and_its_load_with_it():
    straight = Config(**SMALL, cargo={"machinery": 1.0})
    turned = msgspec.structs.replace(straight, turned_share=1.0)
    a, b = plan(straight, 0), plan(turned, 0)
    assert (a.truth.doors, b.truth.doors) == ("right", "left")
    assert a.truth.cargo_kg == b.truth.cargo_kg
    assert sum(s.mass_kg for s in a.scene.solids) == pytest.approx(sum(s.mass_kg for s in b.scene.solids))


# --------------------------------------------------------------------------------------------------------------
# Movement, detector, display


def test_travel_goes_forward_through_the_whole_scan():
    config = Config(**SMALL, speed_variation=0.3)
    for seed in range(20):
        travel = travel_of(config, np.random.default_rng(seed), stopped=seed % 2 == 1)
        assert travel.shape == (config.columns + 1,)
        assert (np.diff(travel) > 0).all()
        assert (travel[0], travel[-1]) == (0.0, pytest.approx(config.span_mm))
    assert travel_of(Config(**SMALL), np.random.default_rng(0), stopped=False) is None


def test_a_vehicle_that_stops_repeats_its_columns():
    config = Config(**SMALL, stop_share=1.0, cargo={"machinery": 1.0})
    assert ground_truth(config, 0).faults == ("stopped",)
    this, detector = plan(config, 0), detector_of(config)
    conditions = conditions_of(config, detector, stream(config, 0, SCAN), this.truth.faults)
    creep = np.diff(conditions.travel_mm) / detector.view.column_pitch_mm
    still = np.flatnonzero(creep < 0.05)
    assert len(still) >= 5
    density = this.scene.draw(detector.view, 0, config.columns, None, conditions.travel_mm).density.sum(axis=0)
    step = np.abs(np.diff(density, axis=0)).mean(axis=1)
    assert step[still[1:-1]].mean() < 0.1 * step.mean()


def test_drifting_channels_leave_their_reference_and_only_they():
    config = Config(**SMALL, drifting_channel_share=1.0)
    detector = detector_of(config)
    gains = conditions_of(config, detector, stream(config, 0, SCAN), ("drifting_channels",)).gain_drift
    usual = conditions_of(config, detector, stream(config, 0, SCAN), ()).gain_drift
    drifting = np.flatnonzero(gains != usual)
    assert 3 <= len(drifting) <= config.channels // 20
    assert 0.01 < np.abs(gains).max() <= GAIN_DRIFT_MOST
    assert np.abs(usual).max() < 0.01


def scan(**changes):
    config = Config(**SMALL | {"cargo": {"cartons": 1.0}} | changes)
    events = simulate_passage(config, 0)
    start = next(e for e in events if isinstance(e, ScanStart))
    return start.detector, np.concatenate([e.counts[-1] for e in events if isinstance(e, LineBlock)])


def test_converters_of_fewer_bits_give_fewer_levels_and_say_so():
    full, wide = scan()
    told, narrow = scan(bits=10)
    assert told.saturation_value == 1023
    assert narrow.max() <= 1023
    np.testing.assert_allclose(narrow, wide / 64, atol=0.51)
    np.testing.assert_allclose(told.air[-1], full.air[-1] / 64)


def test_a_display_picture_is_what_archives_hold():
    told, shown = scan(display=True, bits=8)
    assert (told.state, told.saturation_value) == ("display", 255)
    assert shown.max() == 255
    assert shown.min() < 20
    assert (shown[:, slice(*told.air_channels)] >= 252).mean() > 0.99  # air is white
    assert not told.bad_channels.any()  # a vendor has mended them
    with pytest.raises(ValueError, match="expected 1 with display"):
        Config(display=True, energies=2)


def test_a_whole_radiograph_holds_what_the_events_bring():
    config = Config(**SMALL | {"energies": 2})
    image = simulate_radiograph(config, 1)
    blocks = [e for e in simulate_passage(config, 1) if isinstance(e, LineBlock)]
    for energy in range(2):
        np.testing.assert_array_equal(image.counts[energy], np.concatenate([b.counts[energy] for b in blocks]))
    with pytest.raises(LinkLost, match="vehicle 0 has no whole radiograph"):
        simulate_radiograph(Config(**SMALL, link_loss_share=1.0), 0)


def test_scatter_lifts_what_is_dark():
    _, clear = scan(scatter=0.0, cargo={"blocks": 1.0})
    _, foggy = scan(scatter=0.05, cargo={"blocks": 1.0})
    assert np.percentile(foggy, 1) > np.percentile(clear, 1) + 200


def test_everything_at_once_is_the_same_for_the_same_seed():
    odd = {"speed_variation": 0.2, "stop_share": 0.5, "drifting_channel_share": 1.0, "rear_first_share": 0.5,
           "carriers": dict.fromkeys(CARRIERS, 1.0), "cargo": {}, "threat_share": 0.5, "energies": 2}  # fmt: skip
    config = Config(**SMALL | odd)
    for index in range(4):
        first, again = (
            [e.counts for e in simulate_passage(config, index) if isinstance(e, LineBlock)] for _ in range(2)
        )
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        assert ground_truth(config, index) == ground_truth(config, index)


@pytest.mark.parametrize("field", ["cargo", "threats", "carriers"])
def test_unknown_kinds_are_named_with_those_that_are_known(field):
    with pytest.raises(ValueError, match=f"{field}: unknown kinds gold, expected some of"):
        Config(**{field: {"gold": 1.0}})
    with pytest.raises(ValueError, match=f"{field}: all weights are 0"):
        Config(**{field: {next(iter({"cargo": KINDS, "threats": THREATS, "carriers": CARRIERS}[field])): 0.0}})
