"""Passages and declarations that came in advance: joined, doubted, late; what the contradiction is, in words."""

import io
import queue
import time

import msgspec
import pytest
from rich.console import Console

from drivers import simulated
from scanner_io import recording
from scanner_io.config import Cargo
from scanner_io.formats.cargo import CargoMessage, Consignment, Equipment, GoodsItem
from scanner_io.formats.cargo_any import read_cargo
from scanner_io.formats.cargo_edifact import write_interchange
from scanner_io.formats.cargo_json import write_json
from scanner_io.formats.iso6346 import check_digit
from scanner_io.model import CargoReceived, Decision, DeclarationMatch, LaneEvent
from tests import samples
from triage.analysis import image, pipeline
from triage.service.assembly import Assembly, LaneSpec
from triage.service.lane import Delivery, Late, Worker
from triage.service.later import Later, together
from triage.service.outbox import Outbox, ScanRow
from triage.service.papers import Papers
from triage.terminal import declared_table, scan_panel

NOW_NS = samples.scan().start_utc_ns
NUMBER, OTHER = "CSQU3054383", "TGHU7599330"
TILES = GoodsItem(number=1, hs_code="690721", text="glazed tiles")


def text_of(shown):
    """Return what a terminal would show."""
    screen = Console(file=io.StringIO(), width=220)
    screen.print(shown)
    return screen.file.getvalue()


def run(scan):
    return pipeline.run(scan, pipeline.Profile())


def edifact(messages):
    return write_interchange([msgspec.structs.replace(m, form="CUSCAR") for m in messages], NOW_NS, "1")


@pytest.fixture
def papers(tmp_path):
    made = Papers(tmp_path / "declarations.sqlite", Cargo(late_days=366))  # samples are of January
    yield made
    made.close()


def message(document="MAN1", numbers=(NUMBER,), *, function="original", goods=(TILES,), plate="", booking="", **box):
    return CargoMessage(
        form="JSON", sender="CARRIER", reference="1", document=document, function=function, plate=plate,
        equipment=tuple(Equipment(number=n, **{"full": True, **box}) for n in numbers),
        consignments=(Consignment(number=1, document="BL1", booking=booking, goods=goods),) if goods else (),
    )  # fmt: skip


def send(papers, *messages, form=write_json, sender="CARRIER"):
    """Bring messages as bytes, as a feed does."""
    data = form(messages)
    read = read_cargo(data if isinstance(data, bytes) else data.encode(), "sent")
    told = CargoReceived(source_ref="f", utc_ns=time.time_ns(), name="sent", sender=sender, messages=read, sha256="0")
    return papers.take(told)


def seen(*containers, plates=(), bookings=(), confidence=95, **changes):
    events = [
        LaneEvent(utc_ns=NOW_NS, kind=kind, text=text, confidence=confidence)
        for kind, texts in (("container", containers), ("plate", plates), ("booking", bookings)) for text in texts
    ]  # fmt: skip
    return msgspec.structs.replace(
        samples.scan(), declaration=None, lane_events=tuple(events), quality=(), expected=("radiograph",), **changes
    )


def codes(scan):
    return [q.code for q in scan.quality]


@pytest.mark.parametrize("read", [NUMBER, "CSQU30543B3"])
@pytest.mark.parametrize("form", [write_json, edifact])
def test_a_passage_gets_the_declaration_of_its_container(papers, tmp_path, read, form):
    send(papers, message(goods=(TILES,)), form=form)
    scan = papers.joined(seen(read))
    match = scan.declaration_match
    assert scan.declaration.goods == "glazed tiles" and codes(scan) == []
    assert (match.state, match.by, match.declared, match.document) == ("matched", "container", NUMBER, "MAN1")
    assert match.confidence > 0.999 and match.received_utc_ns > NOW_NS and match.read == (read,)
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    recording.write(path, scan, config={})
    assert recording.read(path).scan.declaration_match == match


def test_none_doubtful_and_several_join_nothing_and_ask_for_a_review(papers):
    near = f"CSQU305439{check_digit('CSQU305439')}"
    send(papers, message(numbers=(NUMBER, near)))
    nothing, stranger = papers.joined(seen()), papers.joined(seen(OTHER))
    unclear = papers.joined(seen("CSQU30543??", confidence=60))
    send(papers, message("MAN2"))
    several = papers.joined(seen(NUMBER))
    for scan, state, code, words in (
        (nothing, "none", "declaration_missing", "no container number, plate or booking was read"),
        (stranger, "none", "declaration_missing", f"fits what was read ({OTHER})"),
        (unclear, "doubtful", "declaration_doubtful", "fits best with"),
        (
            several,
            "several",
            "declaration_doubtful",
            "2 manifests declare container CSQU3054383: CARRIER MAN1, CARRIER MAN2",
        ),
    ):
        assert scan.declaration is None and scan.declaration_match.state == state
        assert codes(scan) == [code] and words in scan.quality[0].reason
        assert run(scan).outcome != "CLEAR"


def test_plate_and_booking_join_too_and_two_containers_are_one_vehicle(papers):
    send(
        papers, message("A", plate="ABC1D23", gross_kg=9000.0), message("B", (OTHER,), booking="BK77", gross_kg=8000.0)
    )
    assert papers.joined(seen(plates=("ABC1D23",))).declaration_match.by == "plate"
    assert papers.joined(seen(bookings=("BK77",))).declaration.container_numbers == (OTHER,)
    both = papers.joined(seen(NUMBER, OTHER))
    assert both.declaration.gross_weight_kg == 17_000.0 and set(both.declaration.container_numbers) == {NUMBER, OTHER}
    half = papers.joined(seen(NUMBER, "HLXU1234567"))
    assert half.declaration is not None and "which nothing declares" in half.quality[0].reason


def test_a_declaration_of_its_own_and_switched_off_matching_are_left_alone(papers, tmp_path):
    send(papers, message())
    own = msgspec.structs.replace(seen(NUMBER), declaration=samples.declaration())
    assert papers.joined(own) is own
    off = Papers(tmp_path / "declarations.sqlite", Cargo(match=False))
    assert off.joined(seen(NUMBER)).declaration is None
    off.close()


def test_what_is_odd_about_a_message_makes_its_declaration_doubtful(papers):
    old = GoodsItem(number=1, hs_code="690721", hs_edition=2012, text="tiles")
    send(papers, message(goods=(old,), function="replacement"))
    scan = papers.joined(seen(NUMBER))
    assert scan.declaration is not None and codes(scan) == ["declaration_doubtful"]
    assert "edition of 2012" in scan.quality[0].reason and "what never came here" in scan.quality[0].reason


def test_what_was_expected_and_was_found_is_not_missing(papers):
    send(papers, message())
    missing = (*samples.scan().quality, papers.joined(seen()).quality[0])
    scan = msgspec.structs.replace(seen(NUMBER), quality=missing)
    assert "declaration_missing" not in codes(papers.joined(scan))
    assert codes(papers.joined(msgspec.structs.replace(scan, lane_events=()))).count("declaration_missing") == 1


# ----------------------------------------------------------------------------------------- declared against seen


def passage(number, *, index=0, **config):
    """Return a simulated passage without papers, whose container a camera read, and what it truly weighs."""
    none = dict.fromkeys(("threat_share", "source_share", "norm_share", "neutron_share", "misdeclared_share"), 0)
    made = simulated.Config(**{"seed": 5, "energies": 2, "columns": 600, "channels": 288, **none, **config})
    lane = Assembly(LaneSpec(name="north", expected=simulated.kinds(made)))
    scans = [s for e in simulated.simulate_passage(made, index) for s in lane.feed(0, e, 0.0)] + lane.flush()
    scan = scans[0].scan
    event = LaneEvent(utc_ns=scan.start_utc_ns, kind="container", text=number, confidence=96)
    bare = msgspec.structs.replace(
        scan, declaration=None, lane_events=(event,), expected=tuple(k for k in scan.expected if k != "declaration"),
        quality=tuple(q for q in scan.quality if not q.code.startswith("declaration")),
    )  # fmt: skip
    return bare, scan.declaration, made


def judged(papers, scan, made, told):
    send(papers, told)
    joined = papers.joined(scan)
    assert joined.declaration is not None and joined.declaration_match.state == "matched"
    energy = simulated.energy_calibration(made) if made.radiograph else None
    profile = pipeline.Profile(image=image.ImageProfile(energy=energy)) if energy else pipeline.Profile()
    return joined, pipeline.run(joined, profile)


def kinds_of(result):
    return {f.kind: f.reason for f in result.findings if f.kind in (
        "declared_empty_but_loaded", "mass_differs", "goods_explain", "goods_do_not_explain")}  # fmt: skip


def test_declared_empty_and_seen_loaded(papers):
    scan, _, made = passage(NUMBER, cargo={"cartons": 1.0}, portal=False)
    joined, result = judged(papers, scan, made, message(goods=(), full=False))
    assert list(kinds_of(result)) == ["declared_empty_but_loaded"] and result.outcome == "REVIEW"
    assert "declared empty, but the radiograph shows a load" in result.reasons
    shown = text_of(scan_panel(result, scan=joined, simulated=True, width=130, colour=False))
    assert "CSQU3054383 (matched, over 99.99 %" in shown and "≠ declared" in shown


@pytest.mark.parametrize("off_t", [6, -6])
def test_a_weight_that_is_off_by_six_tons(papers, off_t):
    scan, true, made = passage(NUMBER, index=1 if off_t > 0 else 0, cargo={"cartons": 1.0}, portal=False)
    right, wrong = true.gross_weight_kg, true.gross_weight_kg + 1000 * off_t
    if off_t > 0:
        _, agrees = judged(papers, scan, made, message(gross_kg=right, tare_kg=3700.0))
        assert kinds_of(agrees) == {}
    told = message(gross_kg=wrong, tare_kg=3700.0, function="replacement")
    _, result = judged(papers, scan, made, told)
    assert list(kinds_of(result)) == ["mass_differs"] and result.outcome == "REVIEW"
    assert f"declared gross weight of {wrong / 1000:.1f} t does not fit" in kinds_of(result)["mass_differs"]


def test_a_gamma_excess_with_declared_tiles(papers):
    load, _, made = passage(NUMBER, cargo={"sacks": 1.0}, norm_share=1.0, radiograph=False, seed=3)
    told = message()
    _, explained = judged(papers, load, made, told)
    assert list(kinds_of(explained)) == ["goods_explain"]
    assert "declared" in kinds_of(explained)["goods_explain"] and "tiles" in kinds_of(explained)["goods_explain"]
    point, _, made = passage(NUMBER, cargo={"cartons": 1.0}, source_share=1.0, radiograph=False, seed=1)
    joined = papers.joined(point)
    result = run(joined)
    assert list(kinds_of(result)) == ["goods_do_not_explain"] and result.outcome == "ALARM"
    # papers that are doubtful explain nothing away
    send(papers, message(function="replacement", goods=(msgspec.structs.replace(TILES, hs_edition=2007),)))
    doubted = run(papers.joined(load))
    assert kinds_of(doubted) == {} and doubted.outcome in ("REVIEW", "ALARM")


def test_the_table_of_declared_against_seen_is_there_without_papers(papers):
    scan = papers.joined(seen(OTHER))
    shown = text_of(declared_table(scan, run(scan), None))
    assert "found by" in shown and "≠ no declaration: nothing that was declared fits" in shown


# --------------------------------------------------------------------------------------------------------- late


def test_a_late_declaration_is_found_once_and_never_lowers(papers, tmp_path):
    scan = papers.joined(seen(NUMBER))
    path = tmp_path / f"{scan.scan_id}.scan.h5"
    first = run(scan)
    recording.write(path, scan, config={}, result=first)
    papers.note_waiting(scan, path)
    assert list(papers.found_late(scan.lane)) == []
    send(papers, message("ELSE", (OTHER,)))
    assert list(papers.found_late(scan.lane)) == [] and papers.store.waiting(scan.lane) == []
    send(papers, message())
    ((one, after),) = papers.found_late(scan.lane)
    assert after.declaration_match.late and codes(after) == []
    later = Later(result=run(after), declaration=after.declaration, match=after.declaration_match)
    both = together(first, (later,))
    assert both.outcome == first.outcome and set(both.findings) >= set(first.findings)
    assert "declaration_missing" in {q.code for q in both.quality}
    assert "came after the scan was judged" in both.quality[-1].reason
    papers.store.waits_no_more(one.scan_id)
    send(papers, message("MORE", (OTHER,)))
    assert list(papers.found_late(scan.lane)) == []


def later_of(outcome, version=1, **changes):
    found = samples.result(outcome=outcome, **changes)
    match = papers_match(version)
    return Later(result=found, declaration=samples.declaration(), match=match)


def papers_match(version):
    return DeclarationMatch(state="matched", by="container", declared=NUMBER, confidence=1.0, sender="CARRIER",
                            document="MAN1", version=version, late=True)  # fmt: skip


@pytest.fixture
def outbox(place):
    box = Outbox(place)
    yield box
    box.close()


def put(outbox, outcome):
    row = ScanRow(
        scan_id=samples.SCAN_ID, lane="north", path="p", sha256="0" * 64, size=1, start_utc_ns=1, simulated=False,
        result=samples.result(outcome=outcome),
    )  # fmt: skip
    outbox.add(row)


def test_a_later_assessment_raises_and_never_lowers(outbox):
    put(outbox, "REVIEW")
    change = outbox.assess(samples.SCAN_ID, later_of("CLEAR"))
    assert not change.raised and "which stays REVIEW" in change.words
    assert outbox.item(samples.SCAN_ID).row.told.outcome == "REVIEW"
    assert outbox.assess(samples.SCAN_ID, later_of("CLEAR")) is None  # told twice
    change = outbox.assess(samples.SCAN_ID, later_of("ALARM", 2))
    row = outbox.item(samples.SCAN_ID).row
    assert change.raised and row.told.outcome == "ALARM" and row.result.outcome == "REVIEW"
    assert row.papers == samples.declaration() and row.declaration is None
    assert outbox.counts()["ALARM"] == 1
    kinds = [k for (k,) in outbox.store.rows("SELECT kind FROM events ORDER BY seq")]
    assert kinds == ["recorded", "assessed_later", "assessed_later"]


def test_a_filed_scan_waits_again_and_a_decision_stays(outbox):
    put(outbox, "CLEAR")
    assert outbox.item(samples.SCAN_ID).state == "filed"
    assert outbox.assess(samples.SCAN_ID, later_of("REVIEW")).raised
    item = outbox.lease_next("ann", 30.0)
    assert item.row.told.outcome == "REVIEW" and item.state == "leased"
    outbox.decide(
        Decision(decision_id="d", scan_id=samples.SCAN_ID, sha256="0" * 64, analyst="ann", verdict="clear",
                 decided_utc_ns=1, lease_id=item.lease_id)
    )  # fmt: skip
    change = outbox.assess(samples.SCAN_ID, later_of("ALARM", 2))
    assert change.after_decision and outbox.item(samples.SCAN_ID).state == "decided"
    kinds = [k for (k,) in outbox.store.rows("SELECT kind FROM events ORDER BY seq")]
    assert kinds[-1] == "assessed_after_decision"


class Heard:
    """A lane as its worker sees it, without processes: what is noted and said."""

    def __init__(self, papers):
        self.papers, self.notes, self.said, self.acks, self.name = papers, [], [], [], "north"
        self.unkept = set()

    def note(self, event, **fields):
        self.notes.append((event, fields))

    def say(self, message):
        self.said.append(message)

    def acknowledge(self, number, source_ref):
        self.acks.append((number, source_ref))


def test_a_store_that_cannot_be_used_costs_no_scan_and_never_reads_as_clear(tmp_path):
    (tmp_path / "declarations.sqlite").write_bytes(b"no database, by no means" * 100)
    lane = Heard(Papers(tmp_path / "declarations.sqlite", Cargo()))
    worker = Worker(lane)
    scan = worker._with_papers(seen(NUMBER))
    assert codes(scan) == ["declaration_missing"] and "cannot be looked through" in scan.quality[0].reason
    worker._note_waiting(
        msgspec.structs.replace(scan, declaration_match=DeclarationMatch(state="none", read=("A",))), tmp_path
    )
    worker._look_again(Late())
    assert [event for event, _ in lane.notes] == ["declarations_fault"] * 3
    assert lane.acks == []


def test_messages_that_cannot_be_stored_wait_in_their_order_and_hold_up_no_scan(tmp_path):
    path = tmp_path / "declarations.sqlite"
    path.write_bytes(b"no database, by no means" * 100)
    lane = Heard(Papers(path, Cargo()))
    worker = Worker(lane)
    worker.inbox = queue.Queue()
    for ref in "ab":
        told = CargoReceived(source_ref=ref, utc_ns=time.time_ns(), name=ref, messages=(message(f"M{ref}"),))
        worker.inbox.put(Delivery(2, told))
        worker._waiting.append(0)
    worker.inbox.put(Late())
    worker._waiting.append(0)
    worker.inbox.put(None)
    worker.run()  # to its end, for the disk does not take them
    assert lane.acks == [] and lane.unkept == {2}
    assert [event for event, _ in lane.notes].count("declarations_fault") == 2  # messages once, scans once
    path.unlink()
    worker._look_again(Late())
    assert lane.acks == [(2, "a"), (2, "b")] and lane.unkept == set() and lane.papers.store.head() == 2
    lane.papers.close()


def test_what_is_refused_or_unreadable_is_told_and_acknowledged_and_what_is_odd_is_told_too(papers):
    lane = Heard(papers)
    worker = Worker(lane)
    for told in (
        CargoReceived(source_ref="a", utc_ns=1, name="a", problem="who is that", refused=True),
        CargoReceived(source_ref="b", utc_ns=1, name="b", problem="cut off"),
        CargoReceived(
            source_ref="c", utc_ns=time.time_ns(), name="c", messages=(message(), message("M2", function="amendment"))
        ),
    ):
        worker._keep(Delivery(3, told))
    assert [event for event, _ in lane.notes] == ["cargo_refused", "cargo_unreadable", "cargo_taken", "cargo_odd"]
    assert lane.acks == [(3, "a"), (3, "b"), (3, "c")] and papers.store.head() == 2
