"""Advance cargo information in EDIFACT, JSON and tables: what is told comes back equal, what is broken is named."""

import random

import msgspec
import pytest

from scanner_io.errors import DataError
from scanner_io.formats.cargo import (
    CargoMessage,
    Consignment,
    Equipment,
    GoodsItem,
    Packed,
    Party,
    Place,
    declarations,
)
from scanner_io.formats.cargo_edifact import read_interchange, write_interchange
from scanner_io.formats.cargo_json import read_json, read_table, write_json
from scanner_io.formats.iso6346 import check_digit, check_digit_ok, size_type

PREPARED_NS = 1_795_599_000_000_000_000

MANIFEST = """UNA:+.? '
UNB+UNOA:2+CARRIER:ZZ+CUSTOMS:ZZ+261125:0930+IC001'
UNH+1+CUSCAR:D:95B:UN'
BGM+85+MAN0001+9'
DTM+137:202611250930:203'
NAD+CA+MAEU:172:20'
TDT+20+123W+1++MAEU:172:20+++9321483:146::EMMA ?+ CO'
LOC+60+BRSSZ:139:6'
EQD+CN+CSQU3054383+22G1:102:5++3+5'
MEA+AAE+G+KGM:24500'
MEA+AAE+T+KGM:2200'
SEL+A123+CA'
CNI+1+BL77'
RFF+MB:MBL1'
LOC+9+CNSHA:139:6'
LOC+11+BRSSZ:139:6'
NAD+CZ+++ACME LTD+ROAD 1+SHANGHAI++200000+CN'
NAD+CN+123:160:16++IMPORT SA'
GID+1+400:CT'
FTX+AAA+++TILES:GLAZED'
MEA+AAE+G+KGM:21000'
SGP+CSQU3054383+400'
CST++690721:122'
UNT+22+1'
UNZ+1+IC001'
"""


def one(text, name="m.edi"):
    data = text if isinstance(text, bytes) else text.encode()
    (message,) = read_interchange(data, name)
    return message


@pytest.mark.parametrize("count", ["5\u00b2", "9" * 30])
def test_a_count_that_is_none_is_told_and_nothing_else_is_lost(count):
    told = MANIFEST.replace("GID+1+400", f"GID+1+{count}").replace("UNOA", "UNOC").replace("UNOB", "UNOC")
    message = one(told.encode("iso8859-1"))
    (goods,) = message.consignments[0].goods
    assert goods.packages is None and goods.hs_code == "690721"
    assert any("is no count" in p for p in message.problems)


def test_a_manifest_says_who_sends_what_in_which_container():
    message = one(MANIFEST)
    assert message.problems == ()
    assert (message.sender, message.document, message.function) == ("CARRIER", "MAN0001", "original")
    assert message.prepared_utc_ns == PREPARED_NS and message.transport == "EMMA + CO" and message.voyage == "123W"
    assert message.equipment == (
        Equipment(number="CSQU3054383", size_type="22G1", full=True, gross_kg=24500, tare_kg=2200, seals=("A123",)),
    )
    (consignment,) = message.consignments
    assert (consignment.document, consignment.master) == ("BL77", "MBL1")
    assert consignment.goods == (
        GoodsItem(number=1, hs_code="690721", text="TILES GLAZED", packages=400, package_kind="CT", gross_kg=21000,
                  packed=(Packed(container="CSQU3054383", packages=400),)),
    )  # fmt: skip
    told = declarations(message)["CSQU3054383"]
    assert told.hs_codes == ("690721",) and told.goods == "TILES GLAZED" and told.declared_empty is False
    assert told.gross_weight_kg == 24500 and told.route == ("CNSHA", "BRSSZ")
    assert (told.consignor, told.consignee, told.authorised_trader) == ("ACME LTD", "IMPORT SA", None)


def test_goods_lie_where_they_are_said_to_and_in_all_containers_if_nothing_is_said():
    boxes = tuple(Equipment(number=n) for n in ("CSQU3054383", "TGHU7599330"))
    goods = (
        GoodsItem(number=1, hs_code="690721", packed=(Packed(container="CSQU3054383"),)),
        GoodsItem(number=2, hs_code="080390"),
    )
    message = CargoMessage(form="JSON", equipment=boxes, consignments=(Consignment(number=1, goods=goods),))
    told = declarations(message)
    assert told["CSQU3054383"].hs_codes == ("690721", "080390") and told["TGHU7599330"].hs_codes == ("080390",)


@pytest.mark.parametrize(
    "shipper, receiver, together",
    [(True, True, True), (True, False, False), (True, None, None), (None, None, None), (None, False, False)],
)
def test_a_trade_is_authorised_only_if_both_are(shipper, receiver, together):
    parties = (
        Party(role="consignor", name="A", authorised=shipper),
        Party(role="consignee", name="B", authorised=receiver),
    )
    goods = (GoodsItem(number=1, hs_code="690721"),)
    message = CargoMessage(
        form="JSON", equipment=(Equipment(number="CSQU3054383"),),
        consignments=(Consignment(number=1, parties=parties, goods=goods),),
    )  # fmt: skip
    assert declarations(message)["CSQU3054383"].authorised_trader is together


# ------------------------------------------------------------------------------------------------------ round trips


def declared(seed, form):
    """Return a message of random content, within what EDIFACT can tell."""
    draw = random.Random(seed)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def word(least, most, of=letters + " -+:'?.,/()ÉÑÜŁж"):
        return "".join(draw.choice(of) for _ in range(draw.randint(least, most))).strip() or "X"

    def place(role, code):
        return Place(role=role, code=code, locode=word(2, 2, letters) + word(3, 3, letters))

    def party(role, code):
        return Party(role=role, code=code, identifier=word(0, 8, letters), name=word(1, 30),
                     address=tuple(word(2, 12, letters) for _ in range(draw.randint(0, 3))), country="XX")  # fmt: skip

    boxes = []
    for _ in range(draw.randint(1, 4)):
        stem = word(3, 3, letters) + "U" + f"{draw.randrange(10**6):06d}"
        gross = draw.choice([None, float(draw.randint(2000, 30_000))])
        boxes.append(
            Equipment(
                number=f"{stem}{check_digit(stem)}", size_type=draw.choice(["22G1", "45R1", "L5G1"]), full=True,
                gross_kg=gross, tare_kg=gross and 2000.0, seals=tuple(word(3, 9, letters) for _ in range(2)),
            )
        )  # fmt: skip
    consignments = []
    for number in range(1, 2 if form == "IFTMCS" else draw.randint(2, 4)):
        goods = tuple(
            GoodsItem(
                number=n, hs_code=draw.choice(["69", "6907", "690721", "0803901100"]),
                text=" ".join(word(1, 30) for _ in range(12)),
                packages=draw.choice([None, draw.randint(1, 999)]), gross_kg=draw.choice([None, 12.5, 800.0]),
                origin=draw.choice(["", "CN"]), dangerous=tuple(draw.sample(["1203", "1950"], draw.randint(0, 2))),
                packed=tuple(Packed(container=b.number, packages=draw.choice([None, 7])) for b in boxes[:2]),
            )
            for n in range(1, draw.randint(2, 4))
        )  # fmt: skip
        consignments.append(
            Consignment(
                number=number, document=word(4, 12, letters), master=word(4, 9, letters), booking=word(4, 9, letters),
                places=(place("loading", "9"), place("discharge", "11")), gross_kg=draw.choice([None, 4000.0]),
                parties=(party("consignor", "CZ"), party("consignee", "CN"), party("notify party", "N1")), goods=goods,
            )
        )  # fmt: skip
    return CargoMessage(
        form=form, sender="SENDER", recipient="CUSTOMS", reference=str(seed), document=word(4, 12, letters),
        function=draw.choice(["original", "replacement", "amendment", "cancellation"]), transport=word(3, 12),
        prepared_utc_ns=PREPARED_NS + seed * 1_000_000_000, voyage=word(3, 6, letters),
        parties=(party("carrier", "CA"),), equipment=tuple(boxes), consignments=tuple(consignments),
    )  # fmt: skip


def tidied(message):
    """Return a message with blanks at ends and in rows as a text of parts comes back."""

    def told(value):
        if isinstance(value, str):
            return " ".join(value.split())
        if isinstance(value, tuple | list):
            return [told(v) for v in value]
        return {k: told(v) for k, v in value.items()} if isinstance(value, dict) else value

    return told(msgspec.to_builtins(message))


@pytest.mark.parametrize("form", ["CUSCAR", "IFTMCS"])
def test_200_messages_come_back_equal_from_edifact(form):
    messages = [declared(seed, form) for seed in range(200)]
    read = read_interchange(write_interchange(messages, PREPARED_NS, "IC7"), "all.edi")
    assert len(read) == 200
    for before, after in zip(messages, read, strict=True):
        assert tidied(after) == tidied(before)
        assert read_interchange(write_interchange([after], PREPARED_NS, "IC8"), "again.edi") == (after,)


def test_200_messages_come_back_equal_from_json():
    messages = [declared(seed, "CUSCAR") for seed in range(200)]
    read = read_json(write_json(messages), "all.json")
    assert [msgspec.structs.replace(m, form="CUSCAR") for m in read] == messages


def test_a_table_tells_of_containers_bills_and_goods():
    table = (
        "container,document,full,gross_kg,seals,bill,hs_code,goods,packages,consignor,consignor_authorised,loading\n"
        "CSQU 305438-3,M1,yes,24500,A1 A2,B1,6907.21,tiles,400,ACME,yes,CNSHA\n"
        "CSQU3054383,M1,yes,24500,A1 A2,B1,080390,bananas,,ACME,yes,CNSHA\n"
        "TGHU7599330,M2,no,,,,,,,,,\n"
    )
    first, second = read_table(table.encode("utf-8-sig"), "t.csv", sender="PORT")
    assert (first.document, first.sender, len(first.equipment), first.problems) == ("M1", "PORT", 1, ())
    told = declarations(first)["CSQU3054383"]
    assert told.hs_codes == ("690721", "080390") and told.seals == ("A1", "A2") and told.route == ("CNSHA",)
    assert declarations(second)["TGHU7599330"].declared_empty is True


# -------------------------------------------------------------------------------------------------------- bad input

CUT = MANIFEST[: MANIFEST.index("CNI")]
ODD = {
    "check digit": (("CSQU3054383", "CSQU3054384"), "container CSQU3054384: its check digit does not fit"),
    "no container number": (("CSQU3054383", "CSQU30543"), "not four letters and seven digits"),
    "pounds": (("G+KGM:24500", "G+LBR:54013"), "weight 54013 LBR is no metric trade unit; taken as 24500 kg"),
    "unknown unit": (("G+KGM:24500", "G+XYZ:24500"), "weight 24500 in XYZ"),
    "weight of letters": (("G+KGM:24500", "G+KGM:24S00"), "weight '24S00' KGM"),
    "no number": (("G+KGM:24500", "G+KGM:NaN"), "weight 'NaN' KGM: weight nan KGM is no number"),
    "thousands": (("G+KGM:24500", "G+KGM:24,500"), "weight '24,500' KGM: read as 24.5 kg; the mark may be meant"),
    "long name": (
        ("ACME LTD", "ACME LTD" * 100),
        "consignor 'ACME LTDACME LTDACME LTDACME LTDACME LTD': a text of 800",
    ),
    "too heavy": (("G+KGM:24500", "G+KGM:2450000"), "more than any container's"),
    "tare over gross": (("T+KGM:2200", "T+KGM:32200"), "empty it weighs 32200 kg, more than the 24500 kg"),
    "goods code": (("690721:122", "69O721:122"), "goods code '69O721': not 2, 4 or 6 to 12 digits"),
    "no such chapter": (("690721:122", "770721:122"), "the Harmonized System has no chapter 77"),
    "place": (("CNSHA:139:6", "SHANGHAI:139:6"), "place 'SHANGHAI': not two letters of a country"),
    "empty with goods": (("++3+5'", "++3+4'"), "declared empty, and goods are declared in it"),
    "goods elsewhere": (("SGP+CSQU3054383", "SGP+TGHU7599330"), "goods in container TGHU7599330, which the message"),
    "segment count": (("UNT+22+1", "UNT+21+1"), "UNT of message 1 counts 21 segments, there are 22"),
    "message count": (("UNZ+1+", "UNZ+2+"), "UNZ counts 2 messages, there are 1"),
    "function": (("MAN0001+9", "MAN0001+77"), "message function 77 is not known here"),
    "time": (("202611250930:203", "202613250930:203"), "time of the message '202613250930'"),
    "two lists": (("CNI+1", "EQD+CN+CSQU3054383+22G1:102:5++3+5'\nCNI+1"), "told of 2 times in one message"),
}
REFUSED = {
    "cut in a segment": (MANIFEST[:300].rstrip("'\n"), "cut off: its last segment has no end"),
    "cut between segments": (CUT, "cut off: message 1 has no UNT"),
    "no UNZ": (MANIFEST[: MANIFEST.index("UNZ")], "cut off: the interchange has no UNZ"),
    "no interchange": ("<xml/>", "begins with b'<xml/>', not with UNA or UNB"),
    "another message": (MANIFEST.replace("CUSCAR", "BAPLIE"), "message 1 is 'BAPLIE'"),
    "syntax": (MANIFEST.replace("UNOA", "UNOQ"), "syntax identifier UNOQ"),
    "no name": (MANIFEST.replace("DTM+137", "+137"), "cannot be split into segments"),
    "party flood": (MANIFEST.replace("CNI+1", "CNI+1'" + "NAD+CZ+++A'" * 2100), "names 2103 parties for 2 consignm"),
    "two begin": (MANIFEST.replace("UNT+22+1'\n", "UNH+2+CUSCAR:D:95B:UN'\n"), "has no UNT before the next begins"),
    "nothing": ("UNB+UNOA:2+A+B+261125:0930+1'UNZ+0+1'", "an interchange without a message"),
}


@pytest.mark.parametrize("case", sorted(ODD))
def test_what_is_odd_is_told_and_the_rest_is_read(case):
    (old, new), problem = ODD[case]
    assert old in MANIFEST
    text = MANIFEST.replace(old, new, 1)
    text = text if case != "two lists" else text.replace("UNT+22", "UNT+23")
    found = one(text)
    assert any(problem in p for p in found.problems), found.problems
    assert found.document == "MAN0001" and len(found.consignments) == 1


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_a_whole_message_is_refused_with_the_reason(case):
    text, reason = REFUSED[case]
    with pytest.raises(DataError) as error:
        read_interchange(text.encode(), "m.edi")
    assert reason in str(error.value) and str(error.value).startswith("m.edi: ")


def test_a_character_of_another_set_is_told_and_read_as_what_it_most_likely_is():
    found = one(MANIFEST.replace("ACME LTD", "AÇME LTD").encode("utf-8"))
    assert any("says character set UNOA, but byte" in p for p in found.problems)
    assert found.consignments[0].parties[0].name == "AÇME LTD"
    latin = MANIFEST.replace("ACME LTD", "AÇME LTD").replace("UNOA", "UNOC")
    assert any("says character set UNOC, but reads as UTF-8" in p for p in one(latin.encode("utf-8")).problems)
    assert not one(latin.encode("latin-1")).problems


def test_a_goods_code_of_a_past_edition_is_told():
    message = declared(1, "CUSCAR")
    item = msgspec.structs.replace(message.consignments[0].goods[0], hs_code="690810", hs_edition=2012)
    old = msgspec.structs.replace(message.consignments[0], goods=(item,))
    (found,) = read_json(write_json([msgspec.structs.replace(message, consignments=(old,))]), "m.json")
    assert any("goods code 690810 is of the edition of 2012, not of 2022" in p for p in found.problems)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "m.json: no JSON"),
        ("[]", ""),
        ('{"Manifest": {}}', 'no object with the member "Declaration"'),
        ('{"Declaration": {"TransportEquipment": [{"ID": 5}]}}', "Declaration.TransportEquipment[0].ID"),
        ('{"Declaration": {"TransportEquipment": [{}]}}', "missing required field `ID`"),
        ('{"Declaration": {"FunctionCode": "77"}}', "Declaration.FunctionCode"),
        ('{"Declaration": {"IssueDateTime": "2026-11-25T09:30:00"}}', "names no time zone"),
        ('{"Declaration": {"IssueDateTime": "0001-01-01T00:00:00Z"}}', "no time of this age"),
        ('{"Declaration": {"IssueDateTime": "9999-12-31T23:59:59Z"}}', "no time of this age"),
        (
            '{"Declaration": {"TransportEquipment": [{"ID": "X", "GrossMassMeasure": "12"}]}}',
            "GrossMassMeasure is '12'",
        ),
        (
            '{"Declaration": {"TransportEquipment": [{"ID": "X", "GrossMassMeasure": {"value": 1, "unitCode": "X"}}]}}',
            "weight 1 in X",
        ),
    ],
)
def test_json_that_says_something_else_is_refused_by_member(text, reason):
    if not reason:
        assert read_json(text.encode(), "m.json") == ()
        return
    with pytest.raises(DataError) as error:
        read_json(text.encode(), "m.json")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a,b\n", "names no column `container`"),
        ("container,colour\n", "columns ['colour']"),
        ("container,full\nCSQU3054383\n", "row 2: 1 cells for 2 columns"),
        ("container,gross_kg\nCSQU3054383,24.500,5\n", "3 cells for 2 columns"),
        ('container,gross_kg\nCSQU3054383,"24,500"\n', "row 2: gross_kg is '24,500'; write kilograms as digits"),
        ("container,full\nCSQU3054383,perhaps\n", "full is 'perhaps'"),
        ("container,packages\nCSQU3054383,some\n", "packages is 'some'"),
    ],
)
def test_a_table_that_is_none_is_refused_by_row_and_column(text, reason):
    with pytest.raises(DataError) as error:
        read_table(text.encode(), "t.csv")
    assert reason in str(error.value)


def test_size_and_type():
    found = size_type("45R1")
    assert (found.length_ft, found.high_cube, found.cooled) == (40, True, True)
    assert size_type("L5G1").length_ft == 45 and size_type("??").length_ft is None


@pytest.mark.parametrize("number, good", [("CSQU3054383", True), ("TGHU7599330", True), ("CSQU3054384", False)])
def test_the_check_digit_agrees_with_the_standards_examples(number, good):
    assert check_digit_ok(number) is good
