"""Versions of declarations: late, corrected, doubled, cancelled and contradicting messages."""

import json

import msgspec
import pytest

from scanner_io.config import Cargo
from scanner_io.errors import StorageError
from scanner_io.formats.cargo import CargoMessage, Consignment, Equipment, GoodsItem, with_problems
from scanner_io.model import CargoReceived
from tests.service.risk_rig import said
from triage.service.declarations import DAY_NS, Declarations, Waiting
from triage.service.outbox import Outbox

NOW_NS = 1_795_599_000_000_000_000
NUMBER, OTHER = "CSQU3054383", "TGHU7599330"


@pytest.fixture
def kept(tmp_path):
    made = Declarations(tmp_path / "declarations.sqlite", Cargo(most_messages=4, keep_days=10, late_days=2))
    yield made
    made.close()


def message(function="original", *, minutes=0, weight=20_000.0, document="MAN1", numbers=(NUMBER,), **changes):
    return with_problems(
        CargoMessage(
            form="JSON", sender="CARRIER", reference=f"{function}{minutes}", document=document, function=function,
            prepared_utc_ns=NOW_NS + minutes * 60 * 10**9,
            equipment=tuple(Equipment(number=n, gross_kg=weight, full=True) for n in numbers),
            consignments=(Consignment(number=1, document="BL1", booking="BK 7",
                                      goods=(GoodsItem(number=1, hs_code="690721", text="tiles"),)),),
            **changes,
        )
    )  # fmt: skip


def came(*messages, at=0, sender="CARRIER", **changes):
    return CargoReceived(
        source_ref="f", utc_ns=NOW_NS + at, name="f.json", sender=sender, messages=messages, sha256="00", **changes
    )


def declared(kept, at=NOW_NS + DAY_NS):
    return kept.known(NOW_NS - DAY_NS, at)


def test_a_correction_replaces_and_an_older_message_that_comes_late_does_not(kept):
    (first,) = kept.take(came(message()))
    (second,) = kept.take(came(message("replacement", minutes=5, weight=26_000.0)))
    (late,) = kept.take(came(message("replacement", minutes=2, weight=1_000.0)))
    assert [first.fate, second.fate, late.fate] == ["in force", "in force", "outdated"]
    assert "came after a newer version" in late.problems[0]
    (one,) = declared(kept)
    assert (one.declaration.gross_weight_kg, one.version, one.bookings) == (26_000.0, 2, ("BK7",))
    assert [s for _, s, _ in kept.versions("CARRIER", "MAN1")] == ["superseded", "in force", "outdated"]


def test_the_same_again_is_counted_and_changes_nothing(kept):
    kept.take(came(message()))
    head = kept.head()
    again, marked = message(), message("duplicate")
    assert [k.fate for k in kept.take(came(again, marked))] == ["duplicate", "duplicate"]
    assert kept.head() == head and len(declared(kept)) == 1


def test_an_amendment_changes_what_it_names_and_keeps_the_rest(kept):
    kept.take(came(message(numbers=(NUMBER, OTHER))))
    change = msgspec.structs.replace(message("amendment", minutes=1, weight=9_000.0), consignments=())
    kept.take(came(change))
    weights = {d.number: d.declaration.gross_weight_kg for d in declared(kept)}
    assert weights == {NUMBER: 9_000.0, OTHER: 20_000.0}
    assert all(d.declaration.hs_codes == ("690721",) for d in declared(kept))


def test_a_cancellation_ends_a_document_even_when_it_overtakes_it(kept):
    kept.take(came(message()))
    (gone,) = kept.take(came(message("cancellation", minutes=1)))
    assert gone.fate == "cancelled" and not gone.problems and declared(kept) == []
    (early,) = kept.take(came(message("cancellation", minutes=9, document="MAN2")))
    assert "never came" in early.problems[0]
    (late,) = kept.take(came(message(document="MAN2")))
    assert late.fate == "outdated" and declared(kept) == []


def test_what_corrects_nothing_and_a_second_original_are_named(kept):
    (orphan,) = kept.take(came(message("replacement")))
    assert orphan.fate == "in force" and "what never came here" in orphan.problems[0]
    assert orphan.problems[0] in declared(kept)[0].problems
    (second,) = kept.take(came(message(minutes=1, weight=5.0)))
    assert "second original" in second.problems[0]


def test_two_manifests_for_one_container_are_both_given(kept):
    kept.take(came(message(), message(document="MAN2", weight=3_000.0)))
    assert kept.rivals(NUMBER) == [("CARRIER", "MAN1"), ("CARRIER", "MAN2")]
    kept.take(came(message("cancellation", document="MAN2", minutes=1)))
    assert kept.rivals(NUMBER) == [("CARRIER", "MAN1")]


def test_the_same_number_of_another_sender_is_another_document(kept):
    kept.take(came(message()))
    (other,) = kept.take(came(message("cancellation", minutes=1), sender="SOMEBODY"))
    assert "never came" in other.problems[0] and len(declared(kept)) == 1


def test_what_is_over_goes_before_what_is_in_force_and_all_after_its_days(kept):
    kept.take(came(message(document="OLD"), at=0))
    for minutes in range(4):
        kept.take(came(message("replacement", minutes=minutes, weight=1000.0 + minutes), at=10 + minutes))
    assert kept.trim(NOW_NS + DAY_NS) == 1  # the first of the superseded ones; OLD is older and still waited for
    assert {d.document for d in declared(kept)} == {"OLD", "MAN1"}
    assert kept.trim(NOW_NS + 11 * DAY_NS) == 4 and declared(kept) == []
    assert kept.head() == 5  # numbers are not used again


def test_a_waiting_scan_is_looked_at_again_only_for_new_messages(kept):
    one = Waiting(scan_id="s", lane="north", path="p", start_utc_ns=NOW_NS, seen_seq=0)
    kept.wait(one)
    assert kept.waiting("north") == []
    kept.take(came(message()))
    assert kept.waiting("north") == [one] and kept.waiting("south") == []
    kept.looked("s", kept.head())
    assert kept.waiting("north") == []
    kept.take(came(message(document="MAN2")))
    kept.trim(NOW_NS + 3 * DAY_NS)  # waited for long enough
    assert kept.waiting("north") == []


def test_all_of_a_delivery_or_nothing_and_after_a_restart(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(Declarations, "_insert", lambda *_: (_ for _ in ()).throw(StorageError("disk full")))
    with pytest.raises(StorageError):
        kept.take(came(message(), message(document="MAN2")))
    monkeypatch.undo()
    assert kept.head() == 0
    kept.take(came(message(), simulated=True))
    other = Declarations(tmp_path / "declarations.sqlite", Cargo())
    assert declared(other) == declared(kept) and declared(other)[0].declaration.simulated
    other.close()


def test_a_damaged_store_is_named_with_its_remedy(tmp_path):
    path = tmp_path / "declarations.sqlite"
    path.write_bytes(b"no database, by no means" * 100)
    with pytest.raises(StorageError, match=r"not usable as a store of declarations.*ask the senders"):
        Declarations(path, Cargo())


def test_an_operator_sees_what_came_in_and_what_was_turned_away(tmp_path, kept):
    kept.take(came(message(), message(document="MAN2", numbers=(OTHER,)), simulated=True))
    kept.take(came(message("replacement", minutes=5, weight=1e9), at=10))
    kept.take(came(message()))
    outbox = Outbox(tmp_path / "outbox.sqlite")
    outbox.note("cargo_refused", "x.edi: sender EVIL is not known here", who="EVIL")
    outbox.close()
    rows = [json.loads(line) for line in said("cargo", "list", tmp_path, "--json").splitlines()]
    assert [(r["document"], r["version"], r["standing"], r["repeats"]) for r in rows[:-1]] == [
        ("MAN1", 2, "in force", 0), ("MAN2", 1, "in force", 0), ("MAN1", 1, "superseded", 1),
    ]  # fmt: skip
    assert rows[1]["containers"] == [OTHER] and rows[1]["simulated"] and "weight" in rows[0]["problems"][0]
    assert (rows[-1]["kind"], rows[-1]["sender"], rows[-1]["what"]) == ("turned away", "EVIL", "refused")
    words = said("cargo", "list", tmp_path, "--odd")
    assert "MAN2" not in words and "REFUSED  EVIL: x.edi: sender EVIL is not known here" in words
    assert "1 messages, 0 deliveries" in said("cargo", "list", tmp_path, "--container", OTHER.lower())
    shown = [json.loads(line) for line in said("cargo", "show", tmp_path, NUMBER, "--json").splitlines()]
    assert [one["version"] for one in shown] == [1, 2]
    assert "superseded" in said("cargo", "show", tmp_path, "MAN1")
    assert "no container, document, booking or plate" in str(said("cargo", "show", tmp_path, "none", code="raises"))
    assert "no declarations came in advance" in str(said("cargo", "list", tmp_path.parent, code="raises"))
