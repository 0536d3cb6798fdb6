"""N42 files read: recorded and published ones, the standard's traps, damage, and files made to hurt."""

from __future__ import annotations

import random
import re
import time
import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io.errors import DataError, ScannerError
from scanner_io.formats import n42
from scanner_io.formats.n42 import tree, values
from scanner_io.formats.n42.document import Fault, Nuclide, Spectrum, count_zeroes
from scanner_io.model import MAX_CHANNELS

from .n42_samples import CALIBRATION, NS, gross, portal_xml, slice_xml, spectrum, windows_xml

FILES = {
    "Annex_B.n42": (1, 0, 42_479), "Annex_B_alternate_energy_calibration.n42": (1, 0, 42_479),
    "Annex_C.n42": (2, 1_098, 84_958), "Annex_D.n42": (7, 10_388, 0), "Annex_D_alarmed.n42": (7, 10_388, 0),
    "Annex_E.n42": (8, 613, 87_415), "Annex_F.n42": (3, 0, 0), "Annex_G.n42": (2, 5, 84_958),
    "Annex_H.n42": (2, 6, 0), "Annex_I.n42": (2, 4, 84_958), "Annex_L.n42": (2, 6, 0),
    "hostile_not_well_formed.n42": (43, 206_114, 411_510), "hostile_unbound_prefix.n42": (2, 0, 412_915),
    "mobile_racetrack_2011.n42": (153, 134, 843_302), "srpm_passthrough_2006.n42": (133, 0, 600_266),
}  # fmt: skip
"""Measurements (derived data too), gross counts and channel counts of each file."""


def summed_from_text(text: str) -> tuple[float, float]:
    """Sum gross and channel counts of a file with nothing but regular expressions."""
    gross = sum(float(t) for m in re.findall(r"<CountData>([^<]*)<", text) for t in m.split())
    channels = 0.0
    for attributes, body in re.findall(r"<ChannelData([^>]*)>([^<]*)<", text):
        tokens = iter(body.split())
        for token in tokens:
            channels += float(token)
            if float(token) == 0 and "Counted" in attributes:
                next(tokens)
    return gross, channels


def totals(document: n42.N42Document) -> tuple[float, float]:
    every = (*document.measurements, *document.derived)
    return sum(sum(g.counts) for m in every for g in m.gross), sum(s.total for m in every for s in m.spectra)


def lost(document: n42.N42Document) -> list[str]:
    return [str(p) for p in document.problems if p.counts_lost]


def told(document: n42.N42Document) -> str:
    return "; ".join(map(str, document.problems))


@pytest.mark.parametrize("name", FILES)
def test_every_count_of_every_file_is_in_the_document(shared_data, name):
    path = shared_data / "n42" / name
    document = n42.read(path)
    measurements, gross_counts, channel_counts = FILES[name]
    assert len(document.measurements) + len(document.derived) == measurements
    assert totals(document) == (gross_counts, channel_counts)
    assert totals(document) == summed_from_text(path.read_text("latin-1"))
    assert bool(lost(document)) == (name == "hostile_not_well_formed.n42")
    for m in document.measurements:
        assert all(np.isclose(s.counts().sum(), s.total, rtol=0, atol=0) for s in m.spectra)


def test_the_table_names_every_file(shared_data):
    assert {p.name for p in (shared_data / "n42").glob("*.n42")} == set(FILES)


def test_documents_end_to_end_with_control_characters_between_them_are_joined(shared_data):
    path = shared_data / "n42" / "hostile_not_well_formed.n42"
    document = n42.read(path)
    assert len({m.id for m in document.measurements}) == 42
    assert [(d.id, d.category) for d in document.detectors] == [("VD1", "Gamma"), ("VD1N", "Neutron")]
    assert "line 128, file: 80 control characters" in told(document)
    assert "41 documents end to end" in told(document)
    # the file ends inside the name of a nuclide, in its last line
    assert re.search(r"line 546[78], Nuclide: .* it is kept as far as it goes", "; ".join(lost(document)))
    (analysis,) = document.analyses
    assert [(a.category, a.description) for a in analysis.alarms] == [("Isotope", "Isotope - Cs-137")]
    assert n42.passages(document) == ()
    assert "it tells alarms: Isotope" in n42.why_none(document)


def test_an_unbound_prefix_is_a_vendors_and_told(shared_data):
    document = n42.read(shared_data / "n42" / "hostile_unbound_prefix.n42")
    assert [str(p) for p in document.problems] == [
        "line 82, DHS:: a prefix that is bound nowhere; its elements are a vendor's own"
    ]


def test_annex_d_alarmed_tells_what_it_holds(shared_data):
    document = n42.read(shared_data / "n42" / "Annex_D_alarmed.n42")
    assert document.problems == ()
    assert [(d.id, d.category, d.kind) for d in document.detectors] == [
        ("Aa1", "Gamma", "PVT"), ("Aa2", "Gamma", "PVT"), ("Ba1", "Gamma", "PVT"), ("Ba2", "Gamma", "PVT"),
        ("Aa1N", "Neutron", "He3"), ("Ba1N", "Neutron", "He3"),
    ]  # fmt: skip
    (windows,) = document.windows
    assert windows.covering() == 1
    assert [m.occupied for m in document.measurements] == [False, False, True, True, True, False, False]
    assert {m.class_code for m in document.measurements} == {"Background"}
    first, fourth = document.measurements[0], document.measurements[3]
    assert first.real_time_s == 0.1
    assert first.start_utc_ns == 1069569900_000_000_000  # 2003-11-22T23:45:00-07:00
    assert {g.detector: g.counts for g in first.gross} == {
        "Aa1": (5, 22, 200), "Aa2": (6, 11, 300), "Ba1": (22, 7, 555), "Ba2": (3, 7, 345), "Aa1N": (0,), "Ba1N": (1,),
    }  # fmt: skip
    assert fourth.faults == (Fault(code="5", description="Overspeed", severity="Warning"),)
    assert (fourth.speed, fourth.speed_unit) == (15.0, "")
    (analysis,) = document.analyses
    assert [(a.category, a.light_color, a.detectors) for a in analysis.alarms] == [
        ("Gamma", "Red", ("Aa1", "Aa2", "Ba1", "Ba2")), ("Neutron", "Red", ("Aa1N",)),
    ]  # fmt: skip
    assert analysis.nuclides == (Nuclide(name="Unknown", identified=True, confidence_text="Low", category="SNM"),)
    assert (analysis.of, analysis.references) == ("group", ("MG-1",))


def test_annex_e_tells_container_and_nuclides(shared_data):
    document = n42.read(shared_data / "n42" / "Annex_E.n42")
    assert [i.characteristic("ContainerID") for i in document.items] == ["YMLU3030933"]
    assert [(n.name, n.confidence) for n in document.analyses[0].nuclides] == [("Co-57", 0.91), ("Cs-137", 0.99)]
    assert document.analyses[0].of == "derived"
    assert len(document.derived) == 1


def test_the_recorded_pass_of_2006_is_read_in_terms_of_2012(shared_data):
    document = n42.read(shared_data / "n42" / "srpm_passthrough_2006.n42")
    assert (document.form, document.problems) == ("2006", ())
    assert document.instrument.class_code == "Spectroscopic Portal Monitor"
    assert {len(m.spectra) for m in document.measurements} == {8}
    assert all(m.occupied and m.speed == 2.4 and m.speed_unit == "mph" for m in document.measurements)
    assert {s.counts().size for m in document.measurements for s in m.spectra} == {16_384}


# ----------------------------------------------------------------------------------------------------------------
# Traps


@pytest.mark.parametrize(
    ("text", "occupied"), [("1", True), ("true", True), ("TRUE", True), ("0", False), ("false", False), ("", None)]
)
def test_occupancy_is_any_spelling_of_a_boolean_or_absent(text, occupied):
    (m,) = n42.read(portal_xml(slice_xml(0, text))).measurements
    assert m.occupied is occupied


def test_an_occupancy_that_cannot_be_read_is_told_as_lost():
    document = n42.read(portal_xml(slice_xml(0, "maybe")))
    assert "'maybe' is neither true, false, 1 nor 0" in lost(document)[0]


@pytest.mark.parametrize(
    ("attribute", "data", "channels"),
    [
        ('compressionCode="CountedZeroes"', "0 1 5 0 3 7", [0, 5, 0, 0, 0, 7]),
        ('compressionCode="CountedZeros"', "0 2 5", [0, 0, 5]),
        ('Compression="CountedZeroes"', "0 2 5", [0, 0, 5]),
        ('Compression="countedzeroes"', "5\n\t0 2", [5, 0, 0]),
        ('compressionCode="None"', "0 2 5", [0, 2, 5]),
        ("", "1.05562e+06 0", [1055620, 0]),
        ("", "0.5 1", [0.5, 1]),
        ("", "0 0 0", [0, 0, 0]),
    ],
)
def test_spellings_of_channel_data(attribute, data, channels):
    (m,) = n42.read(portal_xml(CALIBRATION, slice_xml(0, body=spectrum(data, attribute)))).measurements
    assert m.spectra[0].counts().tolist() == channels
    assert m.spectra[0].total == sum(channels)


@pytest.mark.parametrize("data", ["5 0 0 7", "0 -1 7", "0 1.5 7", "5 nan", "5 1_0", "", "5 1e999", "x", "0 65537 1"])
def test_channel_data_that_cannot_be_read_is_told_as_lost(data):
    document = n42.read(portal_xml(CALIBRATION, slice_xml(0, body=spectrum(data, 'compressionCode="CountedZeroes"'))))
    assert document.measurements[0].spectra == ()
    assert len(lost(document)) == 1
    assert lost(document)[0].startswith("line 1, ChannelData: ")


def test_an_unknown_compression_is_told_as_lost():
    document = n42.read(portal_xml(CALIBRATION, slice_xml(0, body=spectrum("1 2", 'compressionCode="Huffman"'))))
    assert "compression 'Huffman' is not known" in lost(document)[0]


def test_a_list_that_ends_in_zero_is_mended_and_told():
    body = spectrum("5 0", 'compressionCode="CountedZeroes"')
    document = n42.read(portal_xml(CALIBRATION, slice_xml(0, body=body)))
    assert document.measurements[0].spectra[0].counts().tolist() == [5, 0]
    assert "ends in a 0" in told(document)
    assert not lost(document)


@given(st.lists(st.integers(0, 2) | st.integers(0, 10**6) | st.floats(0, 1e6), min_size=1, max_size=200))
def test_runs_of_zeroes_are_counted_and_expanded(channels):
    counts = np.array(channels, np.float64)
    packed = count_zeroes(counts)
    assert values.counted_zeroes(packed) == (pytest.approx(packed), False)
    again = Spectrum.of("G", counts)
    assert again.counts().tolist() == counts.tolist()
    assert again.total == pytest.approx(counts.sum())


def test_a_real_time_under_the_spectrum_is_found():
    inner = "<RealTimeDuration>PT0.5S</RealTimeDuration>"
    xml = portal_xml(CALIBRATION, slice_xml(0, body=spectrum("1", more=inner)))
    document = n42.read(xml.replace(b"<RealTimeDuration>PT1S</RealTimeDuration>", b"", 1))
    assert document.measurements[0].real_time_s == 0.5


def test_the_standards_real_time_wins_over_a_vendors():
    vendor = '<v:RealTimeDuration xmlns:v="urn:vendor">PT9S</v:RealTimeDuration>'
    document = n42.read(portal_xml(slice_xml(0, body=vendor)))
    assert document.measurements[0].real_time_s == 1.0
    assert "the vendor's own says 9 s, the standard's 1 s" in told(document)


@pytest.mark.parametrize(
    ("text", "seconds", "is_told"),
    [
        ("PT0.1S", 0.1, False), ("PT1M0.5S", 60.5, False), ("P1DT2H", 93600.0, False), ("PT.25S", 0.25, False),
        ("PT1.5e-1S", 0.15, False), ("PT1.0H", 3600.0, False), ("0.1", 0.1, True), ("PT", None, True),
        ("P1M", None, True), ("1e999", None, True), ("-3", None, True),
        ("-PT1S", None, True), ("PT9999999999999S", None, True), ("", None, True),
    ],
)  # fmt: skip
def test_durations(text, seconds, is_told):
    xml = portal_xml(slice_xml(0)).replace(b"PT1S", text.encode(), 1)
    document = n42.read(xml)
    assert document.measurements[0].real_time_s == seconds
    assert bool(document.problems) == is_told


@pytest.mark.parametrize("prefix", ["", "n42:", "n42ns:", "x:"])
@pytest.mark.parametrize("bound", ["http://physics.nist.gov/N42/2011/N42", "http://physics.nist.gov/N42/2006/N42", ""])
def test_namespaces_none_default_prefixed_and_unbound(prefix, bound):
    text = portal_xml(slice_xml(0, "1", gross("G1", "7")), namespace="").decode()
    text = re.sub(r"<(/?)(\w)", rf"<\1{prefix}\2", text)
    if bound:
        declared = f"xmlns:{prefix[:-1]}" if prefix else "xmlns"
        text = text.replace("RadInstrumentData ", f'RadInstrumentData {declared}="{bound}" ', 1)
    document = n42.read(text.encode())
    assert totals(document) == (7, 0)
    assert document.problems == ()


def test_a_vendors_element_of_a_known_name_is_not_the_standards():
    foreign = '<v:CountData xmlns:v="urn:vendor">9</v:CountData>'
    document = n42.read(portal_xml(slice_xml(0, "1", gross("G1", "7", more=foreign))))
    assert totals(document) == (7, 0)
    assert "CountData: of the vendor's own vocabulary; not read" in lost(document)[0]


def test_an_envelope_is_opened():
    inner = portal_xml(slice_xml(0, "1", gross("G1", "7")))
    for head, foot in (
        (b'<?xml version="1.0"?><m:MessageEnvelope xmlns:m="urn:m"><Head/><Body>', b"</Body></m:MessageEnvelope>"),
        (b"<Event><EventNumber/>", b"</Event>"),
    ):
        document = n42.read(head + inner + foot)
        assert totals(document) == (7, 0)
        assert document.problems == ()
    assert "outside of any document" in lost(n42.read(b"<E><CountData>5</CountData>" + inner + b"</E>"))[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "iso-8859-1", "windows-1252"])
def test_encodings(encoding):
    text = portal_xml(slice_xml(0, "1", gross("G1", "7"))).decode().replace("<RadMeas", "<Remark>é</Remark><RadMeas", 1)
    name = encoding.removesuffix("-le").removesuffix("-be").removesuffix("-sig")
    document = n42.read((f'<?xml version="1.0" encoding="{name}"?>\r\n' + text).encode(encoding))
    assert (totals(document), document.remarks) == ((7, 0), ("é",))


def test_bytes_of_another_encoding_and_lone_ampersands_are_told():
    xml = portal_xml("<Remark>a & b &nbsp; \xb0</Remark>", slice_xml(0)).decode().encode("latin-1")
    document = n42.read(xml)
    assert document.remarks == ("a & b &nbsp; \ufffd",)
    assert "bytes that are no utf-8" in told(document)
    assert "2 ampersands that begin no known entity" in told(document)


def test_more_than_three_coefficients_and_two_calibrations_are_kept():
    calibration = '<EnergyCalibration id="EC"><CoefficientValues>0 3 0.1 0.01</CoefficientValues></EnergyCalibration>'
    body = spectrum("1 2").replace('Reference="EC"', 'Reference="EC EC8"')
    document = n42.read(portal_xml(calibration, slice_xml(0, body=body)))
    assert document.calibrations[0].coefficients == (0, 3, 0.1, 0.01)
    assert document.measurements[0].spectra[0].calibrations == ("EC", "EC8")
    assert "two energy scales" in told(document)
    assert "energy calibration 'EC8' is nowhere in the file" in told(document)


@pytest.mark.parametrize(
    ("starts", "ends", "covering"),
    [("0 100", "100 400", None), ("0 0 100", "100 3000 400", 1), ("0 50", "100 400", None), ("0 0", "100 400", 1)],
)
def test_windows_know_which_of_them_contains_all(starts, ends, covering):
    (w,) = n42.read(portal_xml(windows_xml(starts, ends))).windows
    assert w.covering() == covering


def test_counts_that_do_not_fit_their_windows_are_kept_and_told():
    document = n42.read(portal_xml(slice_xml(0, "1", gross("G1", "1 2 3") + gross("G2", "1 2", "W"))))
    assert [g.counts for g in document.measurements[0].gross] == [(1, 2, 3), (1, 2)]
    assert "3 counts without energy windows" in told(document)
    assert "energy windows 'W' are nowhere in the file" in told(document)


@pytest.mark.parametrize("name", ["CountData", "ChannelData"])
def test_counts_in_a_strange_place_are_told_as_lost(name):
    document = n42.read(portal_xml(f"<Odd><{name}>7</{name}></Odd>", slice_xml(0)))
    assert f"{name}: at a place where this reader expects none" in lost(document)[0]


def test_an_alarm_in_a_strange_place_is_told_as_lost():
    document = n42.read(portal_xml("<Odd><RadAlarm/></Odd>", slice_xml(0)))
    assert "RadAlarm: at a place" in lost(document)[0]


def test_a_second_list_of_counts_in_one_element_is_told_as_lost():
    document = n42.read(portal_xml(slice_xml(0, "1", gross("G1", "7", more="<CountData>8</CountData>"))))
    assert totals(document) == (7, 0)
    assert "CountData" in lost(document)[0]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-31T09:45:01", "2026-01-31T07:45:01"), ("2026-01-31T09:45:01Z", "2026-01-31T09:45:01"),
        ("2026-01-31T09:45:01.5+05:30", "2026-01-31T04:15:01.5"), ("2026-01-31T09:45:01-07", "2026-01-31T16:45:01"),
        ("2026-01-31 09:45:01.123456789123-0700", "2026-01-31T16:45:01.123456789"),
        ("2026-01-31T24:00:00Z", "2026-02-01T00:00:00"), ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00"),
        ("yesterday", None), ("2026-02-31T00:00:00Z", None), ("1823-01-01T00:00:00Z", None), ("", None),
        ("2026-01-31T25:00:00Z", None), ("2026-01-31T24:30:00Z", None),
        ("\u0662026-01-31T09:45:01Z", None), ("2026-01-31T09:45:01+99:00", None),
    ],
)  # fmt: skip
def test_start_times(text, utc):
    xml = portal_xml(slice_xml(0)).replace(b"2026-01-31T09:45:00.000000Z", text.encode())
    document = n42.read(xml, n42.N42Settings(utc_offset_h=2.0))
    (m,) = document.measurements
    assert m.start_utc_ns == (None if utc is None else int(np.datetime64(utc, "ns").astype(np.int64)))
    if utc is None:
        assert "the time is not known" in told(document)
    assert ("no time zone; +2 h from UTC assumed" in told(document)) == (text == "2026-01-31T09:45:01")


def test_a_live_time_copied_from_a_gamma_detector_is_told_once():
    body = spectrum("1 2", live="PT0.91S") + gross("N1", "4", live="PT0.91S")
    document = n42.read(portal_xml(CALIBRATION, *(slice_xml(i, "1", body) for i in range(3))))
    assert told(document).count("live time of N1 is a gamma detector's") == 1


def test_detectors_of_one_slice_may_differ_by_50_ms_in_time():
    body = spectrum("1", live="PT1.05S")
    assert n42.read(portal_xml(CALIBRATION, slice_xml(0, "1", body))).problems == ()
    document = n42.read(portal_xml(CALIBRATION, slice_xml(0, "1", body.replace("1.05", "1.2"))))
    assert "live times beyond the real time of 1 s: G1 1.2 s" in told(document)


def test_a_detector_that_is_nowhere_described_is_told_and_kept():
    document = n42.read(portal_xml(CALIBRATION, slice_xml(0, "1", spectrum("4", detector="G9") + gross("Q", "7"))))
    assert totals(document) == (7, 4)
    assert {d.id: d.category for d in document.detectors} == {
        "G1": "Gamma", "G2": "Gamma", "N1": "Neutron", "G9": "Gamma", "Q": "Other",
    }  # fmt: skip
    assert "detector 'G9' is not described" in told(document)


def test_ids_that_stand_twice_are_made_unique():
    document = n42.read(portal_xml(slice_xml(0, "1", gross("G1", "7")), slice_xml(0, "1", gross("G1", "8"))))
    assert len({m.id for m in document.measurements}) == 2
    assert totals(document) == (15, 0)
    assert "id 'M0' is taken already" in told(document)


def test_parts_that_share_an_id_are_told_and_the_first_is_kept():
    second = (
        '<RadDetectorInformation id="G1"><RadDetectorCategoryCode>Neutron</RadDetectorCategoryCode>'
        "</RadDetectorInformation>"
    )
    other = CALIBRATION.replace("0 3 0", "0 1 0")
    windows = windows_xml("0", "9"), windows_xml("0", "8")
    document = n42.read(portal_xml(second, CALIBRATION, other, *windows, slice_xml(0)))
    assert next(d.category for d in document.detectors if d.id == "G1") == "Gamma"
    assert document.calibrations[0].coefficients == (0, 3, 0)
    assert document.windows[0].end_kev == (9,)
    assert [p.where for p in document.problems if "stands for another already, which is kept" in p.text] == [
        "RadDetectorInformation", "EnergyWindows", "EnergyCalibration",
    ]  # fmt: skip
    assert n42.read(portal_xml(CALIBRATION, CALIBRATION, slice_xml(0))).problems == ()


def test_ids_of_joined_documents_never_meet():
    def part(*ids: str) -> bytes:
        return portal_xml(*(slice_xml(0, "1", gross("G1", "7")).replace('"M0"', f'"{i}"') for i in ids))

    document = n42.read(part("M", "M-2", "M-2-2") + part("M", "G1"))
    assert len({m.id for m in document.measurements}) == 5
    assert {g.detector for m in document.measurements for g in m.gross} == {"G1"}
    assert totals(document) == (35, 0)


def test_a_category_that_is_not_known_is_told_and_its_counts_are_kept():
    xml = portal_xml(slice_xml(0, "1", gross("G1", "7"))).replace(b">Gamma<", b">Gbmma<", 1)
    document = n42.read(xml)
    assert document.detectors[0].category == "Other"
    assert "detector category 'Gbmma' is not known" in told(document)
    assert n42.passages(document)[0].record.gamma.tolist() == [[7]]


def test_an_attribute_of_channels_that_is_not_known_may_be_a_compression():
    body = spectrum("0 2 5", 'compressioncode="CountedZeroes"')
    document = n42.read(portal_xml(CALIBRATION, slice_xml(0, body=body)))
    assert "attribute 'compressioncode' is not known" in lost(document)[0]


@pytest.mark.parametrize("inside", ["OccupancyIndicator", "Nuclide"])
def test_an_occupancy_or_nuclide_in_a_strange_place_is_told_as_lost(inside):
    document = n42.read(portal_xml(slice_xml(0, "0", more=f"<Odd><{inside}>1</{inside}></Odd>")))
    assert f"{inside}: at a place where this reader expects none" in lost(document)[0]
    twice = "<OccupancyIndicator>0</OccupancyIndicator>"
    assert lost(n42.read(portal_xml(slice_xml(0, "1", more=twice))))


def test_a_group_that_is_nowhere_declared_is_told():
    grouped = slice_xml(0, "1").replace("<RadMeasurement ", '<RadMeasurement radMeasurementGroupReferences="A B" ', 1)
    document = n42.read(portal_xml('<RadMeasurementGroup id="A"/>', grouped))
    assert document.measurements[0].groups == ("A", "B")
    assert "measurement group 'B' is nowhere in the file" in told(document)


DETECTOR_DATA = """<DetectorData><StartTime>2010-01-24T00:08:24Z</StartTime><SampleRealTime>PT0.1S</SampleRealTime>
<Occupied>0</Occupied><Speed Units="mph">2.5</Speed><DetectorMeasurement Detector="A1" DetectorType="Neutron">{}
</DetectorMeasurement></DetectorData>"""


def of_2006(*parts: str) -> bytes:
    return f"""<N42InstrumentData><Measurement UUID="u"><InstrumentInformation><InstrumentType>Portal</InstrumentType>
    <Manufacturer>V</Manufacturer></InstrumentInformation>{"".join(parts)}</Measurement></N42InstrumentData>""".encode()


@pytest.mark.parametrize(
    ("inside", "counts"),
    [
        ('<CountDoseData DetectorType="Neutron"><Counts>12</Counts></CountDoseData>', (12,)),
        ("<GrossCountMeasurement><GrossCounts>1 2 3</GrossCounts></GrossCountMeasurement>", (1, 2, 3)),
        (
            "<GrossCountMeasurement><GrossCounts><TotalCounts>9</TotalCounts></GrossCounts></GrossCountMeasurement>",
            (9,),
        ),
        (
            '<CountDoseData DetectorType="Neutron"><SampleRealTime>PT2S</SampleRealTime>'
            '<CountRate Units="CPS">1.5</CountRate></CountDoseData>',
            (3,),
        ),
    ],
)
def test_neutron_counts_of_2006_in_each_of_their_forms(inside, counts):
    document = n42.read(of_2006(DETECTOR_DATA.format(inside)))
    (m,) = document.measurements
    assert (m.gross[0].counts, m.occupied, m.speed, m.speed_unit) == (counts, False, 2.5, "mph")
    assert [d.category for d in document.detectors] == ["Neutron"]
    assert not lost(document)


def test_two_energy_scales_of_2006_are_kept_as_such():
    coefficients = "<Coefficients>0 2.5</Coefficients><Coefficients>0 8</Coefficients>"
    spectrum_2006 = (
        '<Spectrum Detector="B1"><RealTime>PT0.1S</RealTime><Calibration Type="Energy" EnergyUnits="keV">'
        f"<Equation Model='Polynomial'>{coefficients}</Equation></Calibration>"
        "<ChannelData>1 2 3 4</ChannelData></Spectrum>"
    )
    document = n42.read(of_2006(DETECTOR_DATA.format(f"<SpectrumMeasurement>{spectrum_2006}</SpectrumMeasurement>")))
    (s,) = document.measurements[0].spectra
    assert (s.total, len(s.calibrations)) == (10, 2)
    assert [c.coefficients for c in document.calibrations] == [(0, 2.5), (0, 8)]
    assert "two energy scales" in told(document)


def test_a_handhelds_spectra_of_2006_stand_in_no_slice():
    spectra = "".join(
        f"<Spectrum><StartTime>2010-01-24T00:0{i}:00Z</StartTime><RealTime>PT5S</RealTime><SourceType>{kind}</SourceType>"
        f"<ChannelData>{i} 7</ChannelData></Spectrum>"
        for i, kind in ((1, "Item"), (2, "Background"))
    )
    count = (
        '<CountDoseData DetectorType="Neutron"><StartTime>2010-01-24T00:01:00Z</StartTime><Counts>5</Counts>'
        "</CountDoseData>"
    )
    document = n42.read(of_2006(spectra, count))
    assert [(m.class_code, m.real_time_s) for m in document.measurements] == [("Foreground", 5), ("Background", 5)]
    assert totals(document) == (5, 17)
    assert not lost(document)


def test_results_of_2006_that_are_not_understood_may_hold_an_alarm():
    results = "<AnalysisResults><ThreatDescription>SNM</ThreatDescription>{}</AnalysisResults>"
    nuclides = "<NuclideAnalysis><Nuclide><NuclideName>Cs137</NuclideName></Nuclide></NuclideAnalysis>"
    document = n42.read(of_2006(DETECTOR_DATA.format(""), results.format(nuclides)))
    assert (document.analyses[0].conclusion, document.analyses[0].nuclides[0].name) == ("SNM", "Cs137")
    assert not lost(document)
    document = n42.read(of_2006(DETECTOR_DATA.format(""), results.format("<Strange/>")))
    assert "results not understood: Strange" in lost(document)[0]


# ----------------------------------------------------------------------------------------------------------------
# Damage and malice


def survives(data: bytes) -> n42.N42Document | None:
    """Return what `data` holds; anything but a document or a ScannerError fails the test."""
    try:
        document = n42.read(data)
        n42.write(document)
        n42.passages(document)
    except ScannerError as error:
        assert str(error)
        return None
    return document


@given(st.data())
def test_flipped_bytes_give_a_document_or_a_data_error(shared_data, data):
    sound = (shared_data / "n42" / data.draw(st.sampled_from(["Annex_D_alarmed.n42", "Annex_I.n42"]))).read_bytes()
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(damaged))


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=50))
def test_any_bytes_around_and_inside_a_root_give_a_document_or_a_data_error(before, inside, after):
    survives(before + b"<RadInstrumentData>" + inside + b"</RadInstrumentData>" + after)


def damaged(sound: bytes, rng: random.Random) -> bytes:
    """Return `sound` with a few bytes changed, cut out, put in or repeated, or numbers made extreme."""
    b = bytearray(sound)
    for _ in range(rng.choice((1, 1, 2, 8, 30))):
        at, kind = rng.randrange(len(b)), rng.randrange(5)
        if kind == 0:
            b[at] = rng.randrange(256)
        elif kind == 1:
            del b[at : at + rng.choice((1, 10, 500, 5000))]
        elif kind == 2:
            b[at:at] = rng.randbytes(9)
        elif kind == 3:
            other = rng.randrange(len(b))
            b[at:at] = b[other : other + rng.choice((5, 100, 3000))]
        elif spot := re.search(rb"\d+", b[at:]):
            junk = rng.choice((b"nan", b"-5", b"inf", b"1e308", b"9" * 20, b"", b"0", b"1e-320", b"2261", b"999999999"))
            b[at + spot.start() : at + spot.end()] = junk
        if not b:
            break
    return bytes(b)


def test_damage_of_any_kind_gives_a_document_or_a_data_error(shared_data):
    rng = random.Random(1)
    files = [p.read_bytes() for p in sorted((shared_data / "n42").glob("*.n42")) if p.stat().st_size < 100_000]
    for _ in range(80):
        survives(damaged(rng.choice(files), rng))


def test_damage_inside_of_values_never_loses_counts_in_silence(shared_data):
    sound = (shared_data / "n42" / "Annex_D.n42").read_bytes()
    spots = [m.start(1) + i for m in re.finditer(rb"<CountData>([^<]*)<", sound) for i in range(len(m[1]))]
    rng = random.Random(42)
    for spot in rng.sample(spots, 20):
        for junk in (b"x", b"\x00", b"\xff"):
            document = n42.read(sound[:spot] + junk + sound[spot + 1 :])
            assert sum(len(m.gross) for m in document.measurements) == 7 * 6 - 1
            assert lost(document)
            (passage,) = n42.passages(document)
            assert "portal_file_damaged" in {q.code for q in passage.quality}


@pytest.mark.parametrize("name", ["Annex_D_alarmed.n42", "Annex_E.n42"])
def test_a_truncated_file_is_told_and_a_cut_number_is_not_read(shared_data, name):
    sound = (shared_data / "n42" / name).read_bytes()
    whole = totals(n42.read(sound))
    every = {g.counts for m in n42.read(sound).measurements for g in m.gross}
    for cut in range(0, sound.rindex(b"</RadInstrumentData>"), 1499):
        document = survives(sound[:cut])
        if document is None:
            assert sound.index(b"<RadMeasurement ") > cut - 3000
            continue
        assert lost(document), cut
        assert all(g.counts in every for m in document.measurements for g in m.gross), cut
        assert all(a <= b for a, b in zip(totals(document), whole, strict=True))


def test_reading_goes_on_behind_a_place_that_is_not_well_formed(shared_data):
    sound = (shared_data / "n42" / "Annex_D_alarmed.n42").read_bytes()
    at = sound.index(b'<GrossCounts id="GC-4-3"')
    document = n42.read(sound[:at] + b"<<>" + sound[at:])
    assert [m.id for m in document.measurements] == [f"M-{i}" for i in range(1, 8)]
    assert [len(m.gross) for m in document.measurements] == [6, 6, 6, 2, 6, 6, 6]
    assert len(document.analyses[0].alarms) == 2
    line = sound[:at].count(b"\n") + 1
    assert lost(document)[0].startswith(f"line {line}, RadMeasurement: not well-formed")
    (passage,) = n42.passages(document)
    assert passage.record.gamma_alarm.any()


def test_broken_places_without_end_are_told():
    document = n42.read(portal_xml(*[slice_xml(i, "1", "<<>") for i in range(50)]))
    assert "not well-formed in more than 20 places; the rest is not read" in told(document)


LAUGHS = b"<!DOCTYPE x [<!ENTITY a 'ha'>" + b"".join(
    b"<!ENTITY %c '%s'>" % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9)
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (LAUGHS + b"]><RadInstrumentData>&j;</RadInstrumentData>", "document types and entities are refused"),
        (
            b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><RadInstrumentData>&e;</RadInstrumentData>",
            "DOCTYPE",
        ),
        (b"<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/x.dtd'><RadInstrumentData/>", "line 1: .*DOCTYPE"),
        (b"<RadInstrumentData>\n<!DOCTYPE x [<!ENTITY a 'b'>]>&a;</RadInstrumentData>", "line 2: .*DOCTYPE"),
        (LAUGHS.decode().encode("utf-16") + "]><RadInstrumentData/>".encode("utf-16")[2:], "DOCTYPE"),
        (b"<RadInstrumentData>" + b"<a>" * 100_000, "nested deeper than 64"),
        (b"<RadInstrumentData>" + b"<a/>" * 1_000_001 + b"</RadInstrumentData>", "more than 1000000 elements"),
        (b"<RadInstrumentData a='" + b"x" * 300_000 + b"'/>", "a tag of more than 200000 characters"),
        (b"<RadInstrumentData a='" + b"x" * 100_000 + b"'/>", "more than 65536 characters"),
        (b"<RadInstrumentData " + b" ".join(b"a%d='x'" % i for i in range(100)) + b"/>", "more than 64 attributes"),
        (b"<RadInstrumentData/>" * 10_001, "10001 documents end to end"),
        (b"<RadInstrumentData/>", "neither instrument nor measurement"),
        (b"<RadInstrumentData\x1d/>", "no RadInstrumentData"),
        (b"<html/>", "no RadInstrumentData or N42InstrumentData element, begins with '<html/>'"),
        (b"\x00\xff\xfe\x01" * 100, "no RadInstrumentData"),
        (b"", "nothing but blanks"),
    ],
)
def test_files_made_to_hurt_are_refused_in_bounded_time(data, reason):
    began_s = time.process_time()
    with pytest.raises(DataError, match=reason):
        n42.read(data)
    assert time.process_time() - began_s < 20


@pytest.mark.parametrize(
    "data",
    [
        portal_xml(*[slice_xml(0, "1", gross("G1", "7"))] * 20_000),
        portal_xml("<!-- " + "x" * 8_000_000 + " -->", slice_xml(0)),
        portal_xml("<Remark>" + "&lt;" * 1_000_000 + "</Remark>", slice_xml(0)),
        portal_xml(slice_xml(0, "1", gross("G1", "7 " * 1_000_000))),
        portal_xml(*[slice_xml(i, "01"[i % 2], gross("G1", "7")) for i in range(3000)]),
        b"<RadInstrumentData>" + b"\x01" * 4_000_000 + portal_xml(slice_xml(0)),
        b"<?" * 500_000 + portal_xml(slice_xml(0)),
        portal_xml(slice_xml(0)) + b"<!--" * 250_000,
        b"<" + b"a" * 190_000 + b"<" * 190_000 + portal_xml(slice_xml(0)),
        portal_xml(slice_xml(0)).replace(b">M<", b">" + b"a" * 50_000 + b"! b! <"),
    ],
    ids=[
        "one id for all",
        "a comment",
        "entities",
        "a long list",
        "many passages",
        "control characters",
        "declarations",
        "comments",
        "a long word",
        "a long name",
    ],
)
def test_large_strange_files_end_in_bounded_time(data):
    began_s = time.process_time()
    survives(data)
    assert time.process_time() - began_s < 30


def test_memory_is_bounded_by_the_caps():
    bombs = [
        portal_xml(CALIBRATION, slice_xml(0, body=spectrum("0 65535 1", 'compressionCode="CountedZeroes"') * 1000)),
        portal_xml(*["<a " + " ".join(f'b{i}="{i}"' for i in range(60)) + "/>"] * 17_000),
    ]
    for bomb in bombs:
        tracemalloc.start()
        survives(bomb)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 300 << 20, peak


def test_one_spectrum_cannot_have_more_channels_than_are_read():
    long = " ".join(["1"] * (MAX_CHANNELS + 1))
    document = n42.read(portal_xml(CALIBRATION, slice_xml(0, body=spectrum(long))))
    assert f"at most {MAX_CHANNELS} are read" in lost(document)[0]


def test_too_large_a_file_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "big.n42"
    with path.open("wb") as file:
        file.truncate(tree.MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"big\.n42: 67108865 bytes, at most 67108864"):
        n42.read(path)
    with pytest.raises(DataError, match="no such file"):
        n42.read(tmp_path / "none.n42")
    with pytest.raises(DataError, match="no plain file"):
        n42.read(tmp_path)


def test_gross_counts_are_bounded_in_number():
    with pytest.raises(DataError, match="more than 5000000 gross counts; split the file"):
        n42.read(portal_xml(slice_xml(0, "1", gross("G1", "1 " * 100_000) * 51)))


@pytest.mark.parametrize("settings", [{"utc_offset_h": float("nan")}, {"utc_offset_h": 25}, {"speed_unit": "knots"}])
def test_settings_are_checked(settings):
    with pytest.raises(DataError, match=f"N42 {next(iter(settings))} .* expected"):
        n42.N42Settings(**settings)


def test_problems_are_bounded():
    document = n42.read(portal_xml(*(slice_xml(i, "maybe", second=i % 60) for i in range(150))))
    assert len(document.problems) == tree.MAX_PROBLEMS + 1
    assert document.problems[-1].text == "50 further problems of this file are not listed"
    assert document.problems[-1].counts_lost


def test_a_document_cannot_be_changed():
    (m,) = n42.read(portal_xml(CALIBRATION, slice_xml(0, body=spectrum("1 2")))).measurements
    with pytest.raises(AttributeError):
        m.id = "x"
    with pytest.raises(ValueError, match="read-only"):
        m.spectra[0].counted[0] = 9
    assert msgspec.structs.replace(m, id="x").id == "x"


@pytest.mark.parametrize("counted", [[0.0], [0.0, 0.0], [0.0, 1.5], [np.nan], [], [0.0, 1e9]])
def test_a_spectrum_is_checked_when_it_is_made(counted):
    with pytest.raises(DataError, match="Spectrum of G"):
        Spectrum(detector="G", counted=np.array(counted, np.float64))


def test_sniff():
    assert n42.sniff(portal_xml())
    assert n42.sniff(b"<?xml?><n42:RadInstrumentData")
    assert n42.sniff(NS.encode())
    assert n42.sniff("<N42InstrumentData>".encode("utf-16"))
    assert not n42.sniff(b"GB,000379,000371,000407,000371\r\n")
    assert not n42.sniff(b"\x89PNG\r\n")
