"""Sidecars that scanners write beside their images: real ones, and what goes wrong with them."""

import pytest

from scanner_io.errors import DataError
from scanner_io.formats.iso6346 import check_digit_ok
from scanner_io.formats.passage_files import Names, there_and_missing
from scanner_io.formats.sidecar import Instant, instant, is_sidecar_name, parse_sidecar

MINIMAL = "<DataForm><TruckId>202511070026910018</TruckId>{}</DataForm>"


def form(inside=""):
    return parse_sidecar(MINIMAL.format(inside).encode())


# ------------------------------------------------------------------------------------------------------- real files

REAL = {
    # file: dialect, version, revision, container, confidence, plates, files by role, operations, detections that ran
    "202511010026120014": ("V01.07", 6, "SIMU2611593", 98, 1, {"radiograph": 1, "preview": 1, "vendor raw": 1}, 2, 0),
    "202511010026120017": ("V01.07", 6, "AAMU2630984", 97, 0, {"radiograph": 1, "preview": 1, "vendor raw": 1}, 2, 0),
    "202511070026910018": ("V01.20", 11, "CRXU8691490", 99, 2, {"radiograph": 1, "preview": 1, "vendor raw": 3}, 3, 2),
    "20251110002613000O": ("V01.07", 6, "TRHU7151369", 98, 0, {"radiograph": 1, "preview": 1, "vendor raw": 1}, 2, 0),
    "202511100026130029": ("V01.07", 6, "MRSU8634775", 100, 0, {"radiograph": 1, "preview": 1, "vendor raw": 1}, 2, 0),
    "202511110026300004": ("V01.07", 6, "TIIU4543422", None, 0, {"radiograph": 1, "preview": 1, "vendor raw": 1}, 2, 0),
    "202511110026300005": ("V01.07", 6, "MSNU5728513", 98, 0, {"radiograph": 1, "preview": 1, "vendor raw": 1}, 2, 0),
    "20251112002621005X": ("V01.07", 6, "FCIU7093520", 78, 0, {"radiograph": 1, "preview": 1, "vendor raw": 1}, 2, 0),
    "202511120026900030": ("V01.20", 11, "MNBU0435706", 99, 1, {"radiograph": 1, "preview": 1, "vendor raw": 3}, 3, 2),
    "202511120026910018": ("V01.20", 11, "DFSU7778749", 99, 2, {"radiograph": 1, "preview": 1, "vendor raw": 3}, 3, 0),
    "202511120026910158": ("V01.20", 11, "SUDU6562473", 99, 2, {"radiograph": 1, "preview": 1, "vendor raw": 3}, 3, 2),
}


@pytest.mark.parametrize("scan_id", sorted(REAL))
def test_a_real_form_is_read_whole(shared_data, scan_id):
    data = (shared_data / "sidecar" / f"{scan_id}.xml").read_bytes()
    told = parse_sidecar(data, utc_offset_h=-3)
    version, revision, container, confidence, plates, roles, operations, ran = REAL[scan_id]
    assert (told.dialect, told.version, told.revision) == ("smiths-dataform", version, revision)
    assert told.scan_id == scan_id and told.site == scan_id[8:14] and told.training is False
    assert [(c.text, c.confidence, c.check_digit_ok, c.slot) for c in told.containers] == [
        (container, confidence, True, 0)
    ]
    assert len(told.plates) == plates
    assert {role: len(told.listed(role)) for role in roles} == roles
    assert all(r.name.startswith(scan_id) and r.role != "unknown" for r in told.resources)
    assert sorted(o.kind for o in told.operations) == sorted(["scan", "image analysis", "data entry"][:operations])
    assert {o.verdict for o in told.operations if o.kind == "scan"} == {"none given"}
    assert sum(d.ran for d in told.detections) == ran
    assert told.speed_setting == 24 and told.energy_level == 0 and told.state == 5
    assert told.created.utc_ns is not None and told.beam_start.zone == "told"
    kept = {where for where, _ in told.extra}
    assert kept <= {f"AdminData/Vehicle{t}/From/Level{e}" for t in ("", "/Trailers/Trailer") for e in _LEVEL} | {
        "Operations/Operation/ATR_Results/@noNamespaceSchemaLocation", "BeginOfCargo/@version",
        "BeginOfCargo/ResourceTypes/ResourceType/@View",
        "Operations/Operation/ATR_Results/ATR/Comments/Label/Param/@use",
    }  # fmt: skip


_LEVEL = ("/@n", "/Id", "/Value", "/Value/@Lang")


def test_the_newer_form_tells_what_is_to_come_and_its_local_time_needs_the_lanes_offset(shared_data):
    data = (shared_data / "sidecar" / "202511070026910018.xml").read_bytes()
    told, unzoned = parse_sidecar(data, utc_offset_h=-3), parse_sidecar(data)
    assert told.expected == ("Tx", "OCR", "Snap") and told.cycle_id == "20251107@026903893"
    assert told.cargo_start == Instant(raw="2025-11-07T03:19:23", utc_ns=1762496363 * 10**9, zone="assumed")
    assert told.cargo_start.utc_ns == told.beam_start.utc_ns
    assert unzoned.cargo_start == Instant(raw="2025-11-07T03:19:23")
    failed = {d.kind: d for d in told.detections if not d.ran}
    assert set(failed) == {"ARDg", "ARDn"} and failed["ARDg"].meaning == "gamma radiation"
    found = next(d for d in told.detections if d.kind == "IRU")
    assert found.parameters == (("", "No Refrigeration Unit has been found"),) and found.software_version == "1.4.3.0"
    assert told.custom == {"Custom1": "C", "Custom6": "I"} and told.plates[0].country == "BRA"
    assert told.flags["Analysed"] == 1 and told.flags["IsContainerEmpty"] == 0


def test_an_operation_that_ends_before_it_begins_is_told_and_left_as_it_is(shared_data):
    told = parse_sidecar((shared_data / "sidecar" / "202511010026120017.xml").read_bytes())
    (problem,) = told.problems
    assert "ends 38 s before it begins" in problem and "2025-11-01T07:38:59.600Z" in problem
    analysis = next(o for o in told.operations if o.kind == "image analysis")
    assert analysis.end.utc_ns < analysis.start.utc_ns


def test_a_real_manifest_is_read_whole(shared_data):
    told = parse_sidecar((shared_data / "sidecar" / "20251112000000000148145.xml").read_bytes())
    assert (told.dialect, told.scan_id, told.system) == ("p60", "20251112000000000148145", "P60_NOVO")
    assert [c.text for c in told.containers] == ["BMOU1387370"] and told.containers[0].confidence is None
    assert told.flags == {
        "xraydone": -1,
        "inspectdone": -1,
        "inspectionsuspicious": 0,
        "searchdone": 0,
        "searchfound": 0,
    }
    assert told.comments == "LA" and told.plates == () and told.operations == ()
    assert [r.name for r in told.listed("radiograph")] == ["XRAY-20251112000000000148145-001--Array-0000-xray.jpg"]
    assert len(told.listed("optical")) == 5 and len(told.listed("vendor raw")) == 1
    assert told.created == told.updated == Instant(raw="2025-11-12T04:29:10Z", utc_ns=1762921750 * 10**9, zone="told")
    assert told.extra == () and told.problems == ()


# ----------------------------------------------------------------------------------------------------- what goes wrong


def test_two_containers_of_one_trailer_and_padding():
    slot = "<Container><ContainerId>{}</ContainerId><OCR>{}</OCR></Container>"
    inside = slot.format("CSQU 305438-3", 94) + slot.format("CSQU3054384", 90) + slot.format("", -1)
    told = form(
        f"<AdminData><Vehicle><Trailers><Trailer><Containers>{inside}</Containers></Trailer></Trailers></Vehicle></AdminData>"
    )
    assert [(c.text, c.check_digit_ok) for c in told.containers] == [("CSQU3054383", True), ("CSQU3054384", False)]
    assert told.problems == ("container CSQU3054384: its check digit does not fit, so a character was misread",)


def test_a_character_that_was_not_read_leaves_the_check_digit_open():
    told = parse_sidecar(
        b"<manifest><accession>1</accession><attributes>"
        b"<attribute name='Container1'>CSQU30?4383</attribute></attributes></manifest>"
    )
    assert told.containers[0].check_digit_ok is None and "seven digits" in told.problems[0]


def test_codes_without_a_meaning_are_unknown_and_no_clearance():
    told = form('<Operations><Operation Type="77"><Verdict Value="1">1</Verdict></Operation></Operations>')
    assert (told.operations[0].kind, told.operations[0].verdict, told.operations[0].verdict_code) == (
        "unknown",
        "unknown",
        1,
    )


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "..", "a\\b.jpg", "C:x.jpg", "é" * 200])
def test_names_that_lead_out_of_the_folder_are_not_taken(name):
    told = form(
        f'<Operations><Operation Type="1"><Resources><Resource Type="img">{name}</Resource></Resources></Operation>'
        "</Operations>"
    )
    assert told.resources == () and "is not taken" in told.problems[0]


def test_deleted_and_doubled_files_are_told_apart():
    names = "".join(
        f'<Resource Type="img" IsDeleted="{gone}">{name}</Resource>'
        for name, gone in (("aS.jpg", "false"), ("bS.jpg", "true"), ("AS.JPG", "false"), ("", "false"))
    )
    told = form(f'<Operations><Operation Type="1"><Resources>{names}</Resources></Operation></Operations>')
    assert [r.name for r in told.listed("radiograph")] == ["aS.jpg"] and len(told.resources) == 2
    assert told.problems == ("file 'AS.JPG' is listed twice",)


def test_numbers_and_times_that_are_none_are_told_and_nothing_else_is_lost():
    told = form("<UpdateCount>six</UpdateCount><Date>yesterday</Date><Unheard><Of>7 tons</Of></Unheard>")
    assert told.revision is None and told.created is None
    assert set(told.problems) == {"revision: 'six' is no int", "created: 'yesterday' is no instant"}
    assert ("Unheard/Of", "7 tons") in told.extra


@pytest.mark.parametrize("encode", [
    lambda text: text.encode("utf-16"), lambda text: text.encode("utf-16-le"), lambda text: text.encode("utf-8-sig"),
    lambda text: text.encode("cp1252"), lambda text: b'<?xml version="1.0" encoding="utf-8"?>' + text.encode("cp1252"),
])  # fmt: skip
def test_every_encoding_of_sites_is_read(encode):
    told = parse_sidecar(encode(MINIMAL.format("<AdminData><Comments>São José</Comments></AdminData>")))
    assert told.comments == "São José"


def test_a_namespace_makes_no_difference():
    data = MINIMAL.format("<Version>V01.20</Version>").replace("<DataForm>", '<DataForm xmlns="any.thing">')
    assert parse_sidecar(data.encode()).version == "V01.20"


def test_a_flat_file_of_older_systems_is_read():
    told = parse_sidecar(
        b"<xml><TruckId>T1</TruckId><ContainerId>CSQU3054383</ContainerId><Date>2018/08/29</Date><Login>ana</Login></xml>"
    )
    assert (told.dialect, told.scan_id, told.containers[0].text) == ("flat", "T1", "CSQU3054383")
    assert told.created == Instant(raw="2018/08/29") and told.operations[0].login == "ana"


@pytest.mark.parametrize(("data", "words"), [
    (b"", "empty"), (b"\xff\xfe", "empty"), (b"<DataForm><TruckId>1</TruckId>", "half written"),
    (b"no xml", "not readable"),
    (b"<DataForm/>", "no scan's number"), (b"<other/>", "no sidecar's"), (b"x" * (1 << 20) + b"x", "at most"),
    (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><DataForm><TruckId>&b;</TruckId></DataForm>', "refused"),
    (b"<DataForm>" + b"<a/>" * 20_001 + b"</DataForm>", "elements"),
])  # fmt: skip
def test_what_is_no_sidecar_is_refused_with_the_reason(data, words):
    with pytest.raises(DataError, match=words):
        parse_sidecar(data, name="x.xml")


@pytest.mark.parametrize(("text", "utc", "zone"), [
    ("2025-11-07T06:19:23Z", 1762496363.0, "told"), ("2025-11-07T06:19:23.200Z", 1762496363.2, "told"),
    ("2025-11-07t06:19:23z", 1762496363.0, "told"), ("2025-11-07T03:19:23-0300", 1762496363.0, "told"),
    ("2025-11-07 03:19:23-03:00", 1762496363.0, "told"), ("2025-11-07_03:19:23,5", 1762496363.5, "assumed"),
    ("2025/11/07 03:19:23", 1762496363.0, "assumed"), ("2025-11-07", None, "unknown"), ("2018/08/29", None, "unknown"),
])  # fmt: skip
def test_times_in_every_form(text, utc, zone):
    told = instant(text, utc_offset_h=-3)
    assert told.raw == text and told.zone == zone
    assert told.utc_ns == (None if utc is None else round(utc * 1e3) * 10**6)


@pytest.mark.parametrize(
    "text",
    ["", "07.11.2025", "2025-13-01T00:00:00Z", "2025-02-30", "T06:19:23Z", "0001-01-01T00:00:00Z",
     "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+03:00", "9999-12-31T23:59:59-03:00"],
)  # fmt: skip
def test_what_is_no_time_is_an_error(text):
    with pytest.raises(ValueError):
        instant(text)


@pytest.mark.parametrize(("stem", "mine"), [
    ("scan1", ["scan1S.jpg", "scan1_stamp.jpg"]), ("scan10", ["scan10S.jpg"]), ("scan1_2", ["scan1_2S.jpg"]),
])  # fmt: skip
def test_a_sidecar_that_lists_nothing_takes_no_image_of_another_passage(stem, mine):
    names = Names([f"{s}{end}" for s in ("scan1", "scan10", "scan1_2") for end in (".xml", "S.jpg")] + [
        "scan1_stamp.jpg", "scan100S.jpg",
    ])  # fmt: skip
    there, _ = there_and_missing(form(), names, stem=stem)
    assert sorted(there) == sorted(mine)


def test_the_scans_number_may_be_the_beginning_of_the_sidecars_own_name():
    names = Names(["202511070026910018_a.xml", "202511070026910018_aS.jpg", "202511070026910018_bS.jpg"])
    there, _ = there_and_missing(form(), names, stem="202511070026910018_a")
    assert sorted(there) == ["202511070026910018_aS.jpg", "202511070026910018_bS.jpg"]


@pytest.mark.parametrize(
    ("number", "good"), [("CSQU3054383", True), ("CSQU3054384", False), ("ABC", None), ("csqu3054383", None)]
)
def test_the_check_digit(number, good):
    assert check_digit_ok(number) is good


def test_files_beside_a_sidecar_are_none():
    assert [is_sidecar_name(n) for n in ("a.xml", "A.XML", "a_ocr.xml", "a_ATR.xml", "a.jpg")] == [
        True,
        True,
        False,
        False,
        False,
    ]
