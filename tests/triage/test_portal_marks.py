"""What the portal saw, in columns of the radiograph: an excess from its findings, and the deepest dip of its counts."""

import sys
from pathlib import Path

import numpy as np
import pytest

from scanner_io.model import Box, Finding
from triage.analysis.portal_marks import deepest_dip, portal_marks

sys.path.insert(0, str(Path(__file__).parents[1]))
from samples import START_NS, portal, radiograph

INTERVALS = 60


def record(shape, seed=1, rate=80.0):
    counts = np.random.default_rng(seed).poisson(rate * np.asarray(shape)[:, None], (INTERVALS, 4)).astype(np.int64)
    arrival = START_NS + np.arange(INTERVALS, dtype=np.int64) * 200_000_000
    flags = np.zeros(INTERVALS, np.bool_)
    return portal(
        INTERVALS, gamma=counts, gamma_alarm=flags, gamma_arrival_ns=arrival, gamma_start_utc_ns=START_NS,
        gamma_background=np.full(4, rate * 5),
    )  # fmt: skip


def shadow(dip=0.0):
    """Return the share of the background that is left: a vehicle's shadow with slopes, and a second that is darker."""
    x = np.arange(INTERVALS)
    left = 1 - 0.35 * np.clip((x - 5) / 8, 0, 1) * np.clip((INTERVALS - 5 - x) / 8, 0, 1)
    left[30:35] *= 1 - dip
    return left


def test_a_dip_is_found_where_it_is():
    first, end, depth = deepest_dip(record(shadow(0.35)))
    assert 28 <= first <= 32
    assert end - first == 5
    assert depth == pytest.approx(0.35, abs=0.1)


def test_the_shadow_of_a_vehicle_is_no_dip():
    found = [deepest_dip(record(shadow(), seed=s)) for s in range(400)]
    assert sum(f is not None for f in found) <= 6


def test_a_record_without_background_or_too_short_has_none():
    whole = record(shadow(0.4))
    assert deepest_dip(portal(INTERVALS, gamma=whole.gamma, gamma_alarm=whole.gamma_alarm, gamma_background=None,
                              gamma_arrival_ns=whole.gamma_arrival_ns)) is None  # fmt: skip
    assert deepest_dip(portal(12)) is None


def test_marks_are_columns_of_the_radiograph():
    image = radiograph(columns=600, column_utc_ns=START_NS + np.arange(600, dtype=np.int64) * 20_000_000)
    box = Box(first_column=10, end_column=40, first_channel=0, end_channel=40)
    place = Finding(kind="gamma_place", score=0.0, reason="", tier="note", where=box)
    excess, dip = portal_marks(record(shadow(0.35)), [place], image)
    assert (excess.first, excess.end) == (10, 40)
    assert dip.first <= 310 <= dip.end
    assert "below those before and behind" in dip.words
    assert portal_marks(record(shadow(0.35)), [place], None) == ()
