"""A simulated vehicle that stops, rolls back and changes speed shows what it shows at an even speed."""

import msgspec
import numpy as np
import pytest

from drivers import simulated
from scanner_io.model import LaneEvent, LineBlock, Radiograph, ScanEnd, ScanStart
from tests import samples
from triage.analysis import pipeline
from triage.analysis.rectify import located, positions_of_speed, rectify

PITCH_MM = 8.0
TOLERANCE = 0.01
"""Share of a structure's length."""


@pytest.fixture(scope="module")
def even():
    """Return the image of a simulated vehicle at an even speed."""
    source = simulated.connect(simulated.Config(seed=5, vehicles=1, columns=1600, channels=256, portal=False), None)
    source.open()
    blocks, start = [], None
    while not isinstance(event := source.read(5.0), ScanEnd):
        start = event if isinstance(event, ScanStart) else start
        blocks += [event] if isinstance(event, LineBlock) else []
    source.close()
    counts = tuple(np.concatenate([b.counts[e] for b in blocks]) for e in range(len(start.detector.energies)))
    detector = msgspec.structs.replace(start.detector, column_pitch_mm=PITCH_MM)
    times = start.utc_ns + 5_000_000 * np.arange(len(counts[0]), dtype=np.int64)
    return Radiograph(detector=detector, counts=counts, column_utc_ns=times)


def driven(even, speed, *, noise_mm=0.5, seed=0):
    """Return the image at a speed, in pitches per column (n,), with the encoder's positions rounded to 1 mm."""
    travelled = np.cumsum(speed)
    inside = (travelled >= 0) & (travelled <= even.columns - 1)
    travelled = travelled[: int(np.argmin(inside)) or None] if not inside.all() else travelled
    rows = np.round(travelled).astype(int)
    rng = np.random.default_rng(seed)
    position = np.round(travelled * PITCH_MM + rng.normal(0, noise_mm, rows.size))
    return Radiograph(
        detector=even.detector, counts=tuple(np.ascontiguousarray(c[rows]) for c in even.counts),
        column_utc_ns=even.column_utc_ns[0] + 5_000_000 * np.arange(rows.size, dtype=np.int64),
        position_mm=position.astype(np.float64),
    )  # fmt: skip


def profile_of(*parts):
    """Return speeds: (columns, pitches per column) after each other."""
    return np.concatenate([np.full(n, v, float) for n, v in parts])


DRIVES = {
    "even": profile_of((3000, 1.0)),
    "stop": profile_of((700, 1.0), (300, 0.0), (2000, 1.0)),
    "reverse": profile_of((900, 1.0), (200, -0.8), (50, 0.0), (2000, 1.0)),
    "slow and fast": profile_of((800, 0.4), (500, 1.8), (300, 0.7), (2000, 1.2)),
    "all of it": profile_of((500, 0.6), (200, 0.0), (400, 1.5), (150, -0.5), (100, 0.0), (600, 0.9), (3000, 1.7)),
}


def scan_of(image):
    return samples.scan(radiograph=image, portal=None, declaration=None, expected=("radiograph",), quality=())


def container_mm(image):
    result = pipeline.run(scan_of(image), pipeline.Profile())
    assert result.container is not None
    return result


@pytest.mark.parametrize("name", DRIVES)
def test_lengths_are_those_of_an_even_speed(even, name):
    raw = driven(even, DRIVES[name])
    flat = rectify(raw)
    image = raw if flat is None else flat.radiograph
    assert flat is None or flat.quality == ()
    reached = int(np.round(raw.position_mm.max() / PITCH_MM))
    shown = even.counts[-1][: reached + 1].astype(float).mean(axis=1)
    found = image.counts[-1].astype(float).mean(axis=1)
    # the same structure at the same place: edges of the mean profile
    level = (np.percentile(shown, 95) + np.percentile(shown, 5)) / 2
    edges = [np.flatnonzero(np.diff((p < level).astype(int))) for p in (shown, found)]
    wanted, got = (e[-1] - e[0] for e in edges)
    assert abs(got - wanted) <= TOLERANCE * wanted, (wanted, got)
    assert abs(image.columns - (reached + 1)) <= TOLERANCE * reached


def with_speeds(raw, *, every_s=0.1, hush_s=(0.0, 0.0)):
    """Return the scan of an image without positions, and readings of its speed, but none between the two times."""
    at = raw.column_utc_ns
    times = np.arange(at[0] - 300_000_000, at[-1] + 300_000_000, round(every_s * 1e9), dtype=np.int64)
    position = np.interp(times, at, raw.position_mm)
    speeds = np.gradient(position, times / 1e9)
    hushed = [at[0] + round(s * 1e9) for s in hush_s]
    events = tuple(
        LaneEvent(utc_ns=int(t), kind="speed", speed_mm_s=float(v), device="radar")
        for t, v in zip(times, speeds, strict=True)
        if not hushed[0] < t < hushed[1]
    )
    image = msgspec.structs.replace(raw, position_mm=None)
    return msgspec.structs.replace(scan_of(image), lane_events=events)


@pytest.mark.parametrize("name", ["stop", "reverse", "slow and fast", "all of it"])
def test_readings_of_the_speed_make_it_even_too(even, name):
    raw = driven(even, DRIVES[name], noise_mm=0.0)
    image, flags = located(with_speeds(raw))
    flat = rectify(image).radiograph
    assert flags == ()
    level = (np.percentile(even.counts[-1], 95) + np.percentile(even.counts[-1], 5)) / 2
    reached = int(np.round(raw.position_mm.max() / PITCH_MM))
    lengths = [
        np.ptp(np.flatnonzero(c.astype(float).mean(axis=1) < level))
        for c in (even.counts[-1][: reached + 1], flat.counts[-1])
    ]
    assert abs(lengths[1] - lengths[0]) <= TOLERANCE * lengths[0], lengths


def test_readings_that_leave_a_part_of_the_image_open_are_not_used_and_that_is_said(even):
    scan = with_speeds(driven(even, DRIVES["stop"]), hush_s=(2.0, 4.5))
    image, flags = located(scan)
    assert image is scan.radiograph and [q.code for q in flags] == ["speed_not_used"]
    assert "leave 2." in flags[0].reason
    assert "speed_not_used" in [q.code for q in pipeline.run(scan, pipeline.Profile()).quality]


def test_without_positions_a_stop_does_stretch(even):
    raw = driven(even, DRIVES["stop"])
    level = (np.percentile(even.counts[-1], 95) + np.percentile(even.counts[-1], 5)) / 2
    lengths = [np.ptp(np.flatnonzero(i.counts[-1].astype(float).mean(axis=1) < level)) for i in (even, raw)]
    assert lengths[1] > 1.05 * lengths[0], "else the test above could not fail"


def test_judgement_is_of_the_even_image_and_told_in_raw_columns(even):
    plain = container_mm(even)
    raw = driven(even, DRIVES["all of it"])
    flat = rectify(raw)
    told = container_mm(raw)
    assert told.load == plain.load
    box = told.container
    spans = [raw.position_mm[c] for c in (box.first_column, box.end_column - 1)]
    wanted = (plain.container.end_column - 1 - plain.container.first_column) * PITCH_MM
    assert abs(abs(spans[1] - spans[0]) - wanted) <= TOLERANCE * wanted
    assert box.end_column <= raw.columns and flat.radiograph.columns != raw.columns


def test_an_encoder_that_counts_backwards_and_one_that_does_not_turn(even):
    raw = driven(even, DRIVES["stop"])
    backwards = msgspec.structs.replace(raw, position_mm=-raw.position_mm)
    assert np.array_equal(rectify(backwards).columns, rectify(raw).columns)
    dead = msgspec.structs.replace(raw, position_mm=np.zeros(raw.columns))
    (flag,) = rectify(dead).quality
    assert flag.code == "encoder_not_used" and rectify(dead).radiograph is dead
    wild = msgspec.structs.replace(raw, position_mm=np.linspace(0, 1e9, raw.columns))
    assert rectify(wild).quality[0].code == "encoder_not_used"


def test_a_leap_is_told(even):
    raw = driven(even, profile_of((700, 1.0), (1, 60.0), (2000, 1.0)))
    assert [q.code for q in rectify(raw).quality] == ["columns_too_far_apart"]


def test_no_positions_and_even_ones_are_left_as_they_are(even):
    assert rectify(even) is None
    assert rectify(driven(even, DRIVES["even"], noise_mm=0.0)) is None


def test_positions_from_readings_of_the_speed():
    columns = 1_000_000_000 * np.arange(6, dtype=np.int64)
    readings = 1_000_000_000 * np.array([0, 2, 3, 5], np.int64)
    found = positions_of_speed(columns, readings, np.array([100.0, 100.0, 0.0, 0.0]))
    assert np.allclose(found, [0, 100, 200, 250, 250, 250])
