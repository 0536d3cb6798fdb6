"""Two vehicles, one lost GX: the decoder tells them apart by the portal's count and by how an entry looks."""

import numpy as np
import pytest

from scanner_io.formats.portal_daily import PortalDecoder, format_line
from scanner_io.model import Occupancy

S = 1_000_000_000


def vehicle(begin_s, number, intervals=40, *, value=75):
    """Return one occupancy as a portal sends it: (seconds, line), GX last."""
    lines = [(begin_s, format_line("SP", [0.13, 5.0, 8.0, "000000"]))]
    lines += [(begin_s + k, format_line("NS", [3, 0, 2, 0])) for k in range(intervals // 5 - 1)]
    arrival = begin_s + 0.2 + np.maximum(0.0, 0.2 * (np.arange(intervals) - 5))
    arrival[:6] += 0.003 * np.arange(6)
    lines += [(float(t), format_line("GS", [value, value, value, value])) for t in arrival]
    end_s = float(arrival[-1]) + 0.05
    return [*sorted(lines, key=lambda x: x[0]), (end_s, format_line("GX", [number, 6000, 0, 0]))]


def records(lines, before=7):
    decoder = PortalDecoder()
    decoder.feed(format_line("GX", [before, 6000, 0, 0]) + format_line("GB", [380] * 4), 0)
    events = []
    for t_s, line in lines:
        events += decoder.feed(line, int((10 + t_s) * S))
    events += decoder.idle(int(1e6 * S), 5.0)
    told = [e for e in events if isinstance(e, Occupancy)]
    assert [e.phase for e in told] == ["entered", "left"] * (len(told) // 2)
    assert len({e.source_ref for e in told}) == len(told) // 2
    return [e.record for e in told if e.record is not None]


@pytest.mark.parametrize("gap_s", [0.65, 0.9, 1.0, 1.1, 2.0, 3.5])
@pytest.mark.parametrize("second", [9, 2])
def test_a_lost_gx_does_not_make_two_vehicles_one(gap_s, second):
    """Number 9 after 7 says that there were two; number 2 (the portal counts anew from 1) says nothing of it."""
    one = vehicle(0.0, 8, value=75)[:-1]
    two = vehicle(one[-1][0] + gap_s, second, value=60)
    first, last = records(one + two)
    assert (first.end_reason, first.number) == ("aborted", None)
    assert (last.end_reason, last.number, last.faults) == ("complete", second, ())
    assert set(first.gamma.ravel()) == {75} and first.gamma.shape == (40, 4) and first.neutron.shape[0] == 7
    assert set(last.gamma.ravel()) == {60} and last.gamma.shape == (40, 4) and last.neutron.shape[0] == 7
    assert len(last.raw_lines) == len(two) and last.raw_lines[-1].startswith("GX,")
    assert last.start_utc_ns == int((10 + two[0][0]) * S)


def test_three_vehicles_and_two_lost_gx():
    one = vehicle(0.0, 8)[:-1]
    two = vehicle(one[-1][0] + 1.0, 9)[:-1]
    three = vehicle(two[-1][0] + 2.0, 10)
    assert [(r.number, r.gamma.shape[0]) for r in records(one + two + three)] == [(None, 40), (None, 40), (10, 40)]


def test_the_second_of_two_may_end_without_gx_too():
    one = vehicle(0.0, 8)[:-1]
    two = vehicle(one[-1][0] + 1.5, 9)[:-1]
    assert [(r.number, r.end_reason) for r in records(one + two)] == [(None, "aborted"), (None, "timed_out")]


@pytest.mark.parametrize("number", [8, 9, 3])
@pytest.mark.parametrize("held_s", [0.7, 1.0, 1.3, 2.5, 3.5])
@pytest.mark.parametrize("from_s", [0.9, 2.5, 4.9, 6.5])
def test_lines_that_the_network_holds_back_stay_one_passage(number, held_s, from_s):
    lines = vehicle(0.0, number, 60)
    late = [(max(t, from_s + held_s) if from_s <= t < from_s + held_s else t, line) for t, line in lines]
    (record,) = records(late)
    assert record.gamma.shape[0] == 60 and record.number == number


def test_lost_lines_do_not_part_a_passage_that_the_portal_counts_as_one():
    lines = [(t, line) for t, line in vehicle(0.0, 8, 60) if not 3.0 < t < 4.5]
    (record,) = records(lines)
    assert record.faults == ("lines_lost",)


@pytest.mark.parametrize(("first_s", "end_s"), [(-1.0, 1.5), (1.2, 2.2), (6.0, 7.0), (10.2, 11.1), (10.3, 11.25)])
def test_lines_lost_anywhere_are_noticed(first_s, end_s):
    lines = vehicle(0.0, 8, 60)
    left = [(t, line) for t, line in lines if not first_s < t < end_s or line.startswith(b"GX")]
    (record,) = records(left)
    assert set(record.faults) & {"lines_lost", "start_not_seen"}


def test_a_speed_line_that_swallowed_the_next_line_is_damaged():
    decoder = PortalDecoder()
    decoder.feed(format_line("SP", [0.13, 5.0, 8.0, "000000"]).strip() + format_line("NS", [3, 0, 2, 0]), S)
    assert decoder.damaged_lines == 1
