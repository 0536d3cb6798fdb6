import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io.errors import DataError
from scanner_io.model import (
    CountBlock,
    DeclarationSeen,
    LineBlock,
    Occupancy,
    Rejected,
    ScanEnd,
    ScanStart,
)
from tests import samples
from triage.service.assembly import DONE, OPEN, TABLE, Assembly, LaneSpec, _Columns, _Passage, make_scan_id

S = 1_000_000_000
T0 = samples.START_NS


def lane(*expected, **changes):
    return Assembly(LaneSpec(name="north", expected=expected or ("radiograph", "portal"), **changes))


def image_events(ref="a", start_ns=T0, columns=60, block=20, image=None):
    image = image or samples.radiograph(columns=columns)
    times = start_ns + np.arange(columns, dtype=np.int64) * 1_000_000
    yield ScanStart(source_ref=ref, utc_ns=start_ns, detector=image.detector, source=ref, source_sha256=ref * 2)
    for first in range(0, columns, block):
        part = slice(first, min(columns, first + block))
        yield LineBlock(
            source_ref=ref, first_column=first, counts=tuple(c[part] for c in image.counts), column_utc_ns=times[part]
        )
    yield ScanEnd(source_ref=ref, utc_ns=int(times[-1]))


def portal_events(ref="p", start_ns=T0):
    record = samples.portal(start_utc_ns=start_ns, end_utc_ns=start_ns + 2 * S)
    yield Occupancy(phase="entered", utc_ns=start_ns, source_ref=ref)
    yield Occupancy(phase="left", utc_ns=start_ns + 2 * S, source_ref=ref, record=record)


def play(assembly, number, events, now_s=0.0):
    return [done for event in events for done in assembly.feed(number, event, now_s)]


def test_every_state_of_the_table_can_end():
    targets = set(TABLE.values())
    assert targets >= OPEN
    reachable, frontier = set(), {"waiting"}
    while frontier:
        state = frontier.pop()
        reachable.add(state)
        frontier |= {after for (before, _), after in TABLE.items() if before == state} - reachable
    assert reachable == {state for state, _ in TABLE}
    for state in OPEN:
        assert any(before == state and after not in OPEN for (before, _), after in TABLE.items()) or any(
            before == state for before, _ in TABLE
        )
    assert DONE in reachable


def test_an_event_without_place_names_state_and_event():
    with pytest.raises(DataError, match="'waiting' cannot take 'left'"):
        _Passage(0, 0.0).step("left", 0, 0.0)


def test_image_and_portal_of_one_vehicle_become_one_scan():
    assembly = lane()
    begin, *rest = image_events()
    entered, left = portal_events(start_ns=T0 - S)
    assert play(assembly, 1, [entered]) == []
    assert play(assembly, 0, [begin, *rest]) == []
    (done,) = play(assembly, 1, [left])
    assert done.scan.radiograph.columns == 60
    np.testing.assert_array_equal(done.scan.radiograph.counts[0], samples.radiograph().counts[0])
    assert done.scan.portal.number == 17
    assert done.scan.quality == ()
    assert done.refs == ((0, "a"), (1, "p"))
    assert assembly.open_passages == 0


def test_parts_far_apart_in_time_are_two_scans_that_say_what_is_missing():
    assembly = lane(join_window_s=5, join_wait_s=10)
    play(assembly, 0, image_events())
    play(assembly, 1, portal_events(start_ns=T0 + 60 * S))
    assert assembly.tick(9.0) == []
    scans = [d.scan for d in assembly.tick(10.1)]
    assert sorted(q.code for s in scans for q in s.quality) == ["portal_missing", "radiograph_missing"]


def test_files_that_come_late_find_their_portal_passage_among_many():
    assembly = lane(join_window_s=4, join_wait_s=100)
    for k in range(5):
        play(assembly, 1, portal_events(ref=f"p{k}", start_ns=T0 + k * 30 * S))
    done = [
        d for k in (3, 1, 4, 0, 2) for d in play(assembly, 0, image_events(ref=f"i{k}", start_ns=T0 + k * 30 * S + S))
    ]
    assert [tuple(ref for _, ref in d.refs) for d in done] == [(f"p{k}", f"i{k}") for k in (3, 1, 4, 0, 2)]


def test_lost_lines_leave_a_counted_gap():
    assembly = lane("radiograph")
    start, first, _second, third, end = image_events()
    (done,) = play(assembly, 0, [start, first, third, end])
    assert done.scan.radiograph.columns == 40
    assert done.scan.radiograph.dropped_columns == 20


def test_blocks_that_do_not_fit_are_refused_with_a_flag():
    assembly = lane("radiograph")
    start, first, second, _third, end = image_events()
    wrong = LineBlock(
        source_ref="a", first_column=20, counts=tuple(c[:, :-1] for c in second.counts),
        column_utc_ns=second.column_utc_ns,
    )  # fmt: skip
    (done,) = play(assembly, 0, [start, first, wrong, first, end])
    assert [q.code for q in done.scan.quality] == ["lines_malformed", "lines_repeated"]
    assert done.scan.radiograph.columns == 20


def test_a_scan_without_lines_is_fatally_flagged():
    assembly = lane("radiograph")
    start, *_, end = image_events()
    (done,) = play(assembly, 0, [start, end])
    assert done.scan.radiograph is None
    assert [(q.code, q.fatal) for q in done.scan.quality] == [("radiograph_empty", True)]


def test_an_unreadable_file_is_a_passage_with_a_fatal_flag():
    assembly = lane()
    play(assembly, 1, portal_events())
    (done,) = play(assembly, 0, [Rejected(source_ref="f", utc_ns=T0, reason="cut off", source="f")])
    assert done.scan.portal is not None
    assert [(q.code, q.fatal) for q in done.scan.quality] == [("radiograph_unreadable", True)]


def test_a_new_start_ends_the_old_scan_as_aborted():
    assembly = lane("radiograph")
    start, first, *_ = image_events("a")
    play(assembly, 0, [start, first])
    done = play(assembly, 0, image_events("b", start_ns=T0 + 60 * S))
    assert [d.scan.radiograph.end_reason for d in done] == ["aborted", "complete"]


def test_a_lost_link_ends_what_was_open():
    assembly = lane(join_wait_s=0)
    start, first, *_ = image_events()
    entered, _ = portal_events()
    play(assembly, 0, [start, first])
    play(assembly, 1, [entered])
    assembly.lost(0, 1.0)
    (done,) = assembly.lost(1, 1.0)
    assert done.scan.radiograph.end_reason == "link_lost"
    assert [q.code for q in done.scan.quality] == ["portal_broken_off"]


def test_silence_ends_a_passage_as_timed_out():
    assembly = lane("radiograph", passage_timeout_s=30)
    start, first, *_ = image_events()
    play(assembly, 0, [start, first])
    assert assembly.tick(29.0) == []
    (done,) = assembly.tick(30.5)
    assert done.scan.radiograph.end_reason == "timed_out"


def test_declarations_join_and_their_absence_is_told():
    assembly = lane("radiograph", "declaration", join_wait_s=5)
    (done,) = play(
        assembly, 0, [DeclarationSeen(utc_ns=T0, declaration=samples.declaration(), source_ref="d"), *image_events()]
    )
    assert done.scan.declaration == samples.declaration()
    play(assembly, 0, image_events("b", start_ns=T0 + 99 * S))
    (alone,) = assembly.tick(6.0)
    assert [q.code for q in alone.scan.quality] == ["declaration_missing"]


def test_the_same_file_gets_the_same_scan_id_again():
    first = play(lane("radiograph"), 0, image_events())[0].scan.scan_id
    again = lane()
    play(again, 1, portal_events(start_ns=T0 - S))
    assert play(again, 0, image_events())[0].scan.scan_id == first
    assert make_scan_id("north", T0, "x") != make_scan_id("north", T0, "y")


@given(st.lists(st.integers(0, 11), max_size=40), st.integers(0, 3))
def test_any_order_of_events_ends_without_error_and_nothing_is_kept(order, gap_s):
    events = [(0, e) for e in [*image_events("a"), *image_events("b", start_ns=T0 + gap_s * S)]] + [
        (1, e) for e in [*portal_events("p"), *portal_events("q", start_ns=T0 + gap_s * S)]
    ]
    assembly = lane(join_wait_s=1)
    done = []
    for now_s, index in enumerate(order):
        number, event = events[index % len(events)]
        done += assembly.feed(number, event, float(now_s))
    done += assembly.flush()
    assert assembly.open_passages == 0
    starts = sum(isinstance(events[i % len(events)][1], ScanStart) for i in order)
    images = [d for d in done if d.scan.source]
    assert len(images) == starts


# -- what devices do in the middle ---------------------------------------------------------------------------------


def counts(utc_ns):
    return CountBlock(utc_ns=utc_ns, series="gamma", counts=np.full((1, 4), 75))


def test_a_portal_that_stays_occupied_and_speaks_is_not_timed_out():
    assembly = lane(passage_timeout_s=10, join_window_s=2, join_wait_s=10)
    entered, _ = portal_events()
    play(assembly, 1, [entered])
    for second in range(1, 60):
        assert assembly.feed(1, counts(T0 + second * S), float(second)) == []
        assert assembly.tick(second + 0.5) == []
    # An image of that minute belongs to it, although the portal was entered long before.
    play(assembly, 0, image_events(start_ns=T0 + 50 * S), now_s=59.0)
    record = samples.portal(start_utc_ns=T0, end_utc_ns=T0 + 60 * S)
    left = Occupancy(phase="left", utc_ns=T0 + 60 * S, source_ref="p", record=record)
    (done,) = assembly.feed(1, left, 60.0)
    assert done.scan.radiograph is not None and done.scan.portal is not None and done.scan.quality == ()


def test_a_portal_that_fell_silent_in_a_passage_is_timed_out():
    assembly = lane("portal", passage_timeout_s=10)
    entered, _ = portal_events()
    play(assembly, 1, [entered])
    assembly.feed(1, counts(T0 + S), 1.0)
    assert assembly.tick(10.9) == []
    (done,) = assembly.tick(11.1)
    assert [q.code for q in done.scan.quality] == ["portal_broken_off"]


@pytest.mark.parametrize("how", ["flush", "lost"])
def test_half_an_image_that_its_source_gives_again_is_not_handed_out(how):
    assembly = lane(join_wait_s=0)
    start, first, *_ = image_events()
    play(assembly, 0, [start, first])
    done = assembly.flush(again={0}) if how == "flush" else assembly.lost(0, 1.0, again=True)
    assert done == [] and assembly.open_passages == 0
    (whole,) = play(lane("radiograph"), 0, image_events())
    assert whole.scan.radiograph.columns == 60


def test_what_a_portal_said_of_a_half_image_is_kept():
    assembly = lane()
    start, first, *_ = image_events()
    play(assembly, 0, [start, first])
    play(assembly, 1, portal_events())
    (done,) = assembly.flush(again={0})
    assert done.scan.portal is not None and done.scan.radiograph is None
    assert [q.code for q in done.scan.quality] == ["radiograph_missing"]
    assert done.refs == ((1, "p"),)
    # The image comes after the restart: another scan, with an id of its own.
    (later,) = play(lane("radiograph"), 0, image_events())
    assert later.scan.scan_id != done.scan.scan_id


def test_equal_files_of_one_moment_are_scans_of_their_own():
    assembly = lane("radiograph")
    ids = set()
    for name in ("a", "b", "c"):
        (done,) = assembly.feed(0, Rejected(source_ref=name, utc_ns=T0, reason="empty", source=name,
                                            source_sha256="e3b0"), 0.0)  # fmt: skip
        ids.add(done.scan.scan_id)
    assert len(ids) == 3


class Heard:
    def __init__(self, detector):
        self.detector, self.blocks = detector, []

    def push(self, counts):
        self.blocks.append(counts)


def test_who_listens_hears_exactly_the_lines_of_the_radiograph():
    heard = []

    def listen(detector):
        heard.append(Heard(detector))
        return heard[-1]

    assembly = Assembly(LaneSpec(name="north", expected=("radiograph",)), listen)
    start, first, _second, third, end = image_events()
    (done,) = play(assembly, 0, [start, first, third, first, end])  # a gap, and a block that comes again
    (listener,) = heard
    assert done.listener is listener
    for energy, counts in enumerate(done.scan.radiograph.counts):
        np.testing.assert_array_equal(np.concatenate([b[energy] for b in listener.blocks]), counts)
    (none,) = play(lane("radiograph"), 0, image_events())
    assert none.listener is None


@pytest.mark.parametrize("cuts", [(0, 40), (0, 7, 40), (0, 1, 2, 30, 40)])
def test_blocks_of_one_array_become_an_image_without_a_copy(cuts):
    whole = np.arange(40 * 8, dtype=np.uint16).reshape(40, 8)
    columns = _Columns()
    for first, end in itertools.pairwise(cuts):
        columns.add(whole[first:end])
    assert np.shares_memory(columns.image(8), whole)
    assert np.array_equal(columns.image(8), whole)


@pytest.mark.parametrize("rows", [1, 3, 700])
def test_blocks_from_anywhere_become_an_image(rows):
    rng = np.random.default_rng(rows)
    one = rng.integers(0, 65536, (4 * rows, 300)).astype(np.uint16)
    other = rng.integers(0, 65536, (4 * rows, 300)).astype(np.uint16)
    # from one array, then not its next part, a strided one, and many more so that the memory has to grow
    blocks = [one[:rows], one[rows : 2 * rows], one[:rows], other[::2], *(other[:rows].copy() for _ in range(20))]
    columns = _Columns()
    for block in blocks:
        columns.add(block)
    assert np.array_equal(columns.image(300), np.concatenate(blocks))
    assert not np.shares_memory(columns.image(300), one)


def test_an_image_without_a_block_is_empty():
    assert _Columns().image(5).shape == (0, 5)
