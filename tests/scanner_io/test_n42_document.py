"""N42 files: recorded and published ones, the standard's traps, damage, and files made to hurt."""

from __future__ import annotations

import random
import re
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_io.errors import DataError, ScannerError
from scanner_io.formats import n42_document as n42
from scanner_io.formats import n42_portal

NS = 'xmlns="http://physics.nist.gov/N42/2011/N42"'

FILES = {
    "Annex_B.n42": 1, "Annex_B_alternate_energy_calibration.n42": 1, "Annex_C.n42": 2, "Annex_D.n42": 7,
    "Annex_D_alarmed.n42": 7, "Annex_E.n42": 8, "Annex_F.n42": 3, "Annex_G.n42": 2, "Annex_H.n42": 2, "Annex_I.n42": 2,
    "Annex_L.n42": 2, "hostile_unbound_prefix.n42": 2, "mobile_racetrack_2011.n42": 153,
    "srpm_passthrough_2006.n42": 133, "hostile_not_well_formed.n42": None,
}  # fmt: skip
"""Measurements of each file, None for the one that is refused."""


def summed_from_text(text: str) -> tuple[float, float]:
    """Sum gross and channel counts of a file with nothing but regular expressions."""
    gross = sum(float(t) for m in re.findall(r"<CountData>([^<]*)<", text) for t in m.split())
    channels = 0.0
    for attributes, body in re.findall(r"<ChannelData([^>]*)>([^<]*)<", text):
        values = iter(body.split())
        for token in values:
            channels += float(token)
            if float(token) == 0 and "Counted" in attributes:
                next(values)
    return gross, channels


def totals(document: n42.Document) -> tuple[float, float]:
    gross = sum(sum(g.counts) for m in document.measurements for g in m.gross_counts)
    return gross, sum(float(s.counts.sum(dtype=np.float64)) for m in document.measurements for s in m.spectra)


@pytest.mark.parametrize("name", FILES)
def test_every_count_of_every_file_is_in_the_document(shared_data, name):
    path = shared_data / "n42" / name
    if FILES[name] is None:
        with pytest.raises(DataError, match=r"document 41: is not well-formed"):
            n42.read_all(path)
        return
    document = n42.read(path)
    assert len(document.measurements) == FILES[name]
    assert document.lost == 0
    assert totals(document) == summed_from_text(path.read_text("utf-8"))


def test_the_table_names_every_file(shared_data):
    assert {p.name for p in (shared_data / "n42").glob("*.n42")} == set(FILES)


def test_documents_one_after_the_other_are_read_apart(shared_data):
    data = (shared_data / "n42" / "hostile_not_well_formed.n42").read_bytes()
    whole = data[: data.rindex(b"<?xml ")]  # the last document is cut off in the file
    documents = n42.read_all(whole)
    assert len(documents) == 40
    gross = sum(totals(d)[0] for d in documents)
    channels = sum(totals(d)[1] for d in documents)
    assert (gross, channels) == summed_from_text(whole.decode("latin-1"))
    with pytest.raises(DataError, match="holds 40 N42 documents"):
        n42.read(whole)


def test_annex_d_alarmed_tells_what_it_holds(shared_data):
    document = n42.read(shared_data / "n42" / "Annex_D_alarmed.n42")
    assert document.is_portal
    assert [(d.id, d.category, d.kind) for d in document.detectors] == [
        ("Aa1", "Gamma", "PVT"), ("Aa2", "Gamma", "PVT"), ("Ba1", "Gamma", "PVT"), ("Ba2", "Gamma", "PVT"),
        ("Aa1N", "Neutron", "He3"), ("Ba1N", "Neutron", "He3"),
    ]  # fmt: skip
    (windows,) = document.windows
    assert windows.overlap
    assert windows.widest == 1
    assert [m.occupied for m in document.measurements] == [False, False, True, True, True, False, False]
    first, fourth = document.measurements[0], document.measurements[3]
    assert first.real_time_s == 0.1
    assert first.start_utc_ns == 1069569900_000_000_000  # 2003-11-22T23:45:00-07:00
    assert {g.detector: g.counts for g in first.gross_counts} == {
        "Aa1": (5, 22, 200), "Aa2": (6, 11, 300), "Ba1": (22, 7, 555), "Ba2": (3, 7, 345), "Aa1N": (0,), "Ba1N": (1,),
    }  # fmt: skip
    assert fourth.faults == (n42.Fault(code="5", description="Overspeed", severity="Warning", of="A1234b"),)
    assert (fourth.speed, fourth.speed_unit) == (15.0, "")
    (results,) = document.results
    assert [(a.category, a.light_color, a.detectors) for a in results.alarms] == [
        ("Gamma", "Red", ("Aa1", "Aa2", "Ba1", "Ba2")), ("Neutron", "Red", ("Aa1N",)),
    ]  # fmt: skip
    assert results.nuclides == (n42.Nuclide(name="Unknown", identified=True, confidence_words="Low", category="SNM"),)
    assert results.groups == ("MG-1",)


def test_annex_e_tells_container_and_nuclides(shared_data):
    document = n42.read(shared_data / "n42" / "Annex_E.n42")
    assert [i.container_id for i in document.items] == ["YMLU3030933"]
    assert [(n.name, n.confidence) for n in document.results[0].nuclides] == [("Co-57", 0.91), ("Cs-137", 0.99)]
    assert [m.derived for m in document.measurements] == [False] * 7 + [True]


# ----------------------------------------------------------------------------------------------------------------
# Traps


def slice_xml(number: int, occupied: str = "", body: str = "", *, second: float | None = None, more: str = "") -> str:
    start = f"2026-01-31T09:45:{number if second is None else second:09.6f}Z"
    occupied = f"<OccupancyIndicator>{occupied}</OccupancyIndicator>" if occupied else ""
    return (
        f'<RadMeasurement id="M{number}"><MeasurementClassCode>Background</MeasurementClassCode>'
        f"<StartDateTime>{start}</StartDateTime><RealTimeDuration>PT1S</RealTimeDuration>{body}{more}{occupied}"
        "</RadMeasurement>"
    )


def gross(detector: str, counts: str, windows: str = "") -> str:
    windows = f' energyWindowsReference="{windows}"' if windows else ""
    return (
        f'<GrossCounts id="g" radDetectorInformationReference="{detector}"{windows}>'
        f"<LiveTimeDuration>PT1S</LiveTimeDuration><CountData>{counts}</CountData></GrossCounts>"
    )


def spectrum(data: str, attributes: str = "", detector: str = "G1", more: str = "") -> str:
    return (
        f'<Spectrum id="s" radDetectorInformationReference="{detector}" energyCalibrationReference="EC">{more}'
        f"<LiveTimeDuration>PT1S</LiveTimeDuration><ChannelData {attributes}>{data}</ChannelData></Spectrum>"
    )


def portal_xml(*parts: str, namespace: str = NS) -> bytes:
    detectors = "".join(
        f'<RadDetectorInformation id="{i}"><RadDetectorCategoryCode>{c}</RadDetectorCategoryCode>'
        "<RadDetectorKindCode>PVT</RadDetectorKindCode></RadDetectorInformation>"
        for i, c in (("G1", "Gamma"), ("G2", "Gamma"), ("N1", "Neutron"))
    )
    return (
        f'<RadInstrumentData {namespace}><RadInstrumentInformation id="I"><RadInstrumentClassCode>Portal Monitor'
        f"</RadInstrumentClassCode></RadInstrumentInformation>{detectors}{''.join(parts)}</RadInstrumentData>"
    ).encode()


@pytest.mark.parametrize(
    ("told", "occupied"), [("1", True), ("true", True), ("0", False), ("false", False), ("", None)]
)
def test_occupancy_is_any_spelling_of_a_boolean_or_absent(told, occupied):
    (m,) = n42.read(portal_xml(slice_xml(0, told))).measurements
    assert m.occupied is occupied


def test_an_occupancy_that_cannot_be_read_is_told_as_lost():
    document = n42.read(portal_xml(slice_xml(0, "maybe")))
    assert document.lost == 1
    assert "'maybe' is not 0, 1, true or false" in document.problems[0]


@pytest.mark.parametrize(
    ("attribute", "data", "channels"),
    [
        ('compressionCode="CountedZeroes"', "0 1 5 0 3 7", [0, 5, 0, 0, 0, 7]),
        ('compressionCode="CountedZeros"', "0 2 5", [0, 0, 5]),
        ('Compression="CountedZeroes"', "0 2 5", [0, 0, 5]),
        ('compressionCode="None"', "0 2 5", [0, 2, 5]),
        ("", "1.05562e+06 0", [1055620, 0]),
        ("", "0.5 1", [0.5, 1]),
    ],
)
def test_spellings_of_channel_data(attribute, data, channels):
    (m,) = n42.read(portal_xml(slice_xml(0, body=spectrum(data, attribute)))).measurements
    assert m.spectra[0].counts.tolist() == channels


@pytest.mark.parametrize("data", ["5 0 0 7", "0 -1 7", "0 1.5 7", "5 nan", "5 1_0", "", "5 1e999", "-5", "0 65537 1"])
def test_channel_data_that_cannot_be_read_is_told_as_lost(data):
    document = n42.read(portal_xml(slice_xml(0, body=spectrum(data, 'compressionCode="CountedZeroes"'))))
    assert document.measurements[0].spectra == ()
    assert document.lost == 1
    assert "Spectrum s" in document.problems[0]


def test_a_list_that_ends_in_zero_is_mended_and_told():
    document = n42.read(portal_xml(slice_xml(0, body=spectrum("5 0", 'compressionCode="CountedZeroes"'))))
    assert document.measurements[0].spectra[0].counts.tolist() == [5, 0]
    assert "ends in a zero" in document.problems[0]


def test_a_real_time_under_the_spectrum_is_found_and_the_standards_own_wins():
    inner = "<RealTimeDuration>PT0.5S</RealTimeDuration>"
    xml = portal_xml(slice_xml(0, body=spectrum("1", more=inner))).replace(
        b"<RealTimeDuration>PT1S</RealTimeDuration>", b"", 1
    )
    document = n42.read(xml)
    assert document.measurements[0].real_time_s == 0.5
    assert "under a spectrum" in document.problems[0]
    vendor = '<v:RealTimeDuration xmlns:v="urn:vendor">PT9S</v:RealTimeDuration>'
    document = n42.read(portal_xml(slice_xml(0, body=vendor)))
    assert document.measurements[0].real_time_s == 1.0
    assert "told twice, 1 s and 9 s" in document.problems[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT0.1S", 0.1), ("PT1M0.5S", 60.5), ("P1DT2H", 93600.0), ("PT.25S", 0.25), ("0.1", None), ("PT", None)],
)
def test_durations(text, seconds):
    xml = portal_xml(slice_xml(0)).replace(b"PT1S", text.encode(), 1)
    document = n42.read(xml)
    assert document.measurements[0].real_time_s == seconds
    assert bool(document.problems) == (seconds is None)


@pytest.mark.parametrize("prefix", ["", "n42:", "n42ns:"])
@pytest.mark.parametrize("bound", [True, False])
def test_namespaces_none_default_prefixed_and_unbound(prefix, bound):
    text = portal_xml(slice_xml(0, "1", gross("G1", "7")), namespace="").decode()
    text = re.sub(r"<(/?)(\w)", rf"<\1{prefix}\2", text)
    if bound:
        declared = f"xmlns:{prefix[:-1]}" if prefix else "xmlns"
        text = text.replace("RadInstrumentData ", f'RadInstrumentData {declared}="{n42.NAMESPACE_2011}" ', 1)
    document = n42.read(text.encode())
    assert totals(document) == (7, 0)
    assert any("bound to no namespace" in p for p in document.problems) == bool(prefix and not bound)


def test_an_envelope_is_opened():
    xml = (
        b"<MessageEnvelope><Head/><Body>"
        + portal_xml(slice_xml(0, "1", gross("G1", "7")))
        + b"</Body></MessageEnvelope>"
    )
    document = n42.read(xml)
    assert totals(document) == (7, 0)
    assert "envelope 'MessageEnvelope'" in document.problems[0]


def test_more_than_three_coefficients_and_two_calibrations_are_kept():
    calibration = '<EnergyCalibration id="EC"><CoefficientValues>0 3 0.1 0.01</CoefficientValues></EnergyCalibration>'
    body = spectrum("1 2").replace('Reference="EC"', 'Reference="EC EC8"')
    document = n42.read(portal_xml(calibration, slice_xml(0, body=body)))
    assert document.calibrations[0].coefficients == (0, 3, 0.1, 0.01)
    assert document.measurements[0].spectra[0].calibrations == ("EC", "EC8")


@pytest.mark.parametrize(
    ("starts", "ends", "overlap"), [("0 100", "100 400", False), ("100 0", "400 100", False), ("0 50", "100 400", True)]
)
def test_windows_know_whether_they_overlap(starts, ends, overlap):
    xml = f'<EnergyWindows id="W"><WindowStartEnergyValues>{starts}</WindowStartEnergyValues><WindowEndEnergyValues>'
    (w,) = n42.read(portal_xml(f"{xml}{ends}</WindowEndEnergyValues></EnergyWindows>")).windows
    assert w.overlap is overlap


def test_counts_that_do_not_fit_their_windows_are_kept_and_told():
    document = n42.read(portal_xml(slice_xml(0, "1", gross("G1", "1 2 3"))))
    assert document.measurements[0].gross_counts[0].counts == (1, 2, 3)
    assert document.lost == 1


def test_counts_in_a_strange_place_are_told_as_lost():
    document = n42.read(portal_xml(f"<Odd>{gross('G1', '7')}</Odd>", slice_xml(0)))
    assert document.lost == 1
    assert "1 of 1 lists of counts" in document.problems[0]


@pytest.mark.parametrize(
    ("text", "utc_ns"),
    [
        ("2026-01-31T09:45:01", 1769845501 - 3600), ("2026-01-31T09:45:01Z", 1769845501 + 3600),
        ("2026-01-31T09:45:01.5+05:30", None), ("yesterday", None), ("2026-02-31T00:00:00Z", None),
    ],
)  # fmt: skip
def test_times_without_zone_take_the_setting_and_are_told(text, utc_ns):
    xml = portal_xml(slice_xml(0)).replace(b"2026-01-31T09:45:00.000000Z", text.encode())
    document = n42.read(xml, utc_offset_h=2.0)
    (m,) = document.measurements
    if text.endswith("01"):
        assert m.start_utc_ns == n42.read(xml.replace(b"09:45:01", b"07:45:01Z")).measurements[0].start_utc_ns
        assert "no zone; taken as +2 h" in document.problems[0]
    elif text.endswith("Z") and utc_ns:
        assert m.start_utc_ns == int(np.datetime64("2026-01-31T09:45:01", "ns").astype(np.int64))
        assert not document.problems
    elif "+" in text:
        assert m.start_utc_ns == int(np.datetime64("2026-01-31T04:15:01.5", "ns").astype(np.int64))
    else:
        assert m.start_utc_ns is None
        assert "no date and time" in document.problems[0]


def test_the_2006_form_reads_neutron_counts_beside_spectra():
    xml = b"""<N42InstrumentData><Measurement><InstrumentInformation><InstrumentType>Portal</InstrumentType>
    </InstrumentInformation><DetectorData><StartTime>2010-01-24T00:08:24Z</StartTime>
    <SampleRealTime>PT0.1S</SampleRealTime><Occupied>0</Occupied><Speed Units="mph">2.5</Speed><DetectorMeasurement>
    <CountDoseData DetectorType="Neutron"><Counts>12</Counts></CountDoseData></DetectorMeasurement></DetectorData>
    <AnalysisResults><Strange/></AnalysisResults></Measurement></N42InstrumentData>"""
    document = n42.read(xml)
    (m,) = document.measurements
    assert (m.gross_counts[0].counts, m.occupied, m.speed, m.speed_unit) == ((12,), False, 2.5, "mph")
    assert document.detectors[0].category == "Neutron"
    assert document.lost == 1  # results that are not understood may hold an alarm


# ----------------------------------------------------------------------------------------------------------------
# Passages


def windows_xml(starts: str, ends: str) -> str:
    return (
        f'<EnergyWindows id="W"><WindowStartEnergyValues>{starts}</WindowStartEnergyValues>'
        f"<WindowEndEnergyValues>{ends}</WindowEndEnergyValues></EnergyWindows>"
    )


def passage(*parts: str, **settings):
    return n42_portal.portal_records(n42.read(portal_xml(*parts)), **settings)


def three(number: int, occupied: str, g1: str = "10", more: str = "") -> str:
    body = gross("G1", g1, "W" if " " in g1 else "") + gross("G2", "20") + gross("N1", "2")
    return slice_xml(number, occupied, body, more=more)


def test_annex_d_becomes_a_record_by_its_occupancy_indicator(shared_data):
    (record,) = n42_portal.portal_records(n42.read(shared_data / "n42" / "Annex_D_alarmed.n42"), speed_unit="km/h")
    assert record.gamma.tolist() == [[22, 11, 7, 7]] * 3  # the widest window, 0 to 3000 keV
    assert record.neutron.tolist() == [[0, 1]] * 3
    assert record.gamma_background == pytest.approx([220, 110, 70, 70])
    assert record.neutron_background == pytest.approx([0, 10])
    assert record.gamma_alarm.all()
    assert record.neutron_alarm.all()
    assert record.speed_kmh == 15.0
    assert record.gamma_interval_s == 0.1
    assert any("overlap; counts are those of the widest, 0 to 3000 keV" in line for line in record.raw_lines)
    assert "nuclide Unknown SNM" in record.faults
    assert "Warning 5 Overspeed" in record.faults


def test_annex_e_sums_spectra_and_takes_the_long_background(shared_data):
    document = n42.read(shared_data / "n42" / "Annex_E.n42")
    (record,) = n42_portal.portal_records(document, speed_unit="m/s")
    slices = [m for m in document.measurements if m.occupied]
    assert record.gamma.tolist() == [[int(s.counts.sum()) for s in m.spectra] for m in slices]
    assert record.gamma_alarm.all()  # an isotope alarm
    assert record.speed_kmh == pytest.approx(3.2 * 3.6)
    assert "[n42] container YMLU3030933" in record.raw_lines
    assert record.neutron_background == pytest.approx([303 / 302, 302 / 302])


def test_the_recorded_pass_keeps_every_count(shared_data):
    document = n42.read(shared_data / "n42" / "srpm_passthrough_2006.n42")
    (record,) = n42_portal.portal_records(document)
    assert record.gamma.shape == (133, 8)
    assert record.gamma.sum() == totals(document)[1]
    assert record.gamma_background is None
    assert record.speed_kmh == pytest.approx(2.4 * 1.609344)


def test_windows_that_do_not_overlap_are_summed():
    (record,) = passage(windows_xml("0 100", "100 400"), three(0, "0"), three(1, "1", "3 4"))
    assert record.gamma.tolist() == [[7, 20]]


def test_two_passages_and_the_background_before_each():
    parts = [three(i, o, g) for i, (o, g) in enumerate([("0", "5"), ("1", "9"), ("0", "7"), ("1", "8")])]
    first, second = passage(*parts)
    assert (first.gamma[0, 0], second.gamma[0, 0]) == (9, 8)
    assert first.gamma_background.tolist() == [5, 20]
    assert second.gamma_background.tolist() == [7, 20]


def test_slices_of_one_time_that_tell_different_detectors_are_joined():
    parts = [slice_xml(1, "1", gross("G1", "3")), slice_xml(2, "1", gross("G2", "4"), second=1.04)]
    (record,) = passage(*parts)
    assert record.gamma.tolist() == [[3, 4]]
    assert record.faults == ()


def test_a_missing_slice_and_a_missing_detector_are_faults():
    (record,) = passage(three(0, "1"), three(2, "1"))
    assert "lines_lost" in record.faults
    (record,) = passage(three(0, "1"), slice_xml(1, "1", gross("G1", "3")))
    assert "damaged_line" in record.faults


@pytest.mark.parametrize("category", ["Gamma", "Neutron", "Isotope", "Alpha", "Beta", "Other", ""])
@pytest.mark.parametrize("reference", ['radMeasurementReferences="M1"', 'radMeasurementGroupReferences="nowhere"', ""])
def test_no_alarm_is_lost(category, reference):
    alarm = f'<RadAlarm radDetectorInformationReferences="G1"><RadAlarmCategoryCode>{category}</RadAlarmCategoryCode>'
    results = f"<AnalysisResults {reference}>{alarm}</RadAlarm></AnalysisResults>"
    (record,) = passage(three(0, "0"), three(1, "1"), three(2, "1"), results)
    assert record.gamma_alarm.any() == (category in ("Gamma", "Isotope"))
    assert record.neutron_alarm.any() == (category == "Neutron")
    assert any("alarm" in f for f in record.faults) == (category not in ("Gamma", "Neutron"))
    if "M1" in reference and category == "Gamma":
        assert record.gamma_alarm.tolist() == [True, False]


def test_a_neutron_alarm_without_neutron_counts_still_alarms():
    results = "<AnalysisResults><RadAlarm><RadAlarmCategoryCode>Neutron</RadAlarmCategoryCode></RadAlarm>"
    (record,) = passage(slice_xml(1, "1", gross("G1", "3")), results + "</AnalysisResults>")
    assert record.gamma_alarm.any()


@pytest.mark.parametrize(
    ("remark", "unit", "kmh"),
    [("Speed = 5.0 mph", None, 8.04672), ("speed: 5", "km/h", 5.0), ("speed: 5", None, None)],
)
def test_a_speed_in_a_remark(remark, unit, kmh):
    xml = three(1, "1").replace("<MeasurementClassCode>", f"<Remark>{remark}</Remark><MeasurementClassCode>", 1)
    (record,) = passage(three(0, "0"), xml, speed_unit=unit)
    assert record.speed_kmh == (None if kmh is None else pytest.approx(kmh))
    assert any("left out" in line for line in record.raw_lines) == (kmh is None)


def test_what_is_no_passage_is_refused_with_its_reason(shared_data):
    with pytest.raises(DataError, match="'Radionuclide Identifier' is no portal"):
        n42_portal.portal_records(n42.read(shared_data / "n42" / "Annex_C.n42"))
    with pytest.raises(DataError, match="none of 1 slices is occupied"):
        passage(three(0, "0"))
    with pytest.raises(DataError, match="needs both"):
        passage(three(0, "1").replace("2026-01-31", "2026-13-31"))


# ----------------------------------------------------------------------------------------------------------------
# Damage and malice


def survives(data: bytes) -> bool:
    """Return True if `data` is read; anything but a document or a ScannerError fails the test."""
    try:
        documents = n42.read_all(data)
    except ScannerError as error:
        assert str(error)
        return False
    for document in documents:
        try:
            n42_portal.portal_records(document)
        except ScannerError as error:
            assert str(error)
    return True


@given(st.data())
def test_flipped_bytes_give_a_document_or_a_data_error(shared_data, data):
    sound = (shared_data / "n42" / data.draw(st.sampled_from(["Annex_D_alarmed.n42", "Annex_E.n42"]))).read_bytes()
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(damaged))


def test_damage_inside_of_values_never_loses_counts_in_silence(shared_data):
    sound = (shared_data / "n42" / "Annex_D.n42").read_bytes()
    spots = [m.start(1) + i for m in re.finditer(rb"<CountData>([^<]*)<", sound) for i in range(len(m[1]))]
    series = 7 * 6
    rng = random.Random(42)
    for spot in rng.sample(spots, 60):
        document = n42.read(sound[:spot] + b"x" + sound[spot + 1 :])
        assert sum(len(m.gross_counts) for m in document.measurements) == series - 1
        assert document.lost > 0
        (record,) = n42_portal.portal_records(document)
        assert "damaged_line" in record.faults


@pytest.mark.parametrize("name", ["Annex_D_alarmed.n42", "Annex_E.n42"])
def test_truncated_files_are_refused(shared_data, name):
    sound = (shared_data / "n42" / name).read_bytes()
    end = sound.rindex(b"</RadInstrumentData>")
    for cut in range(0, end, 997):
        assert not survives(sound[:cut])


LAUGHS = b"<!DOCTYPE x [<!ENTITY a 'ha'>" + b"".join(
    b"<!ENTITY %c '%s'>" % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9)
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (LAUGHS + b"]><RadInstrumentData>&j;</RadInstrumentData>", "DTD or entities"),
        (b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><RadInstrumentData>&e;</RadInstrumentData>", "DTD"),
        (b"<!DOCTYPE x SYSTEM 'http://127.0.0.1:9/x.dtd'><RadInstrumentData/>", "DTD"),
        (b"<RadInstrumentData>" + b"<a>" * 100_000, "more than 64 deep"),
        (b"<RadInstrumentData>" + b"<a/>" * 500_001 + b"</RadInstrumentData>", "more than 500000 elements"),
        (b"<a><RadInstrumentData/><RadInstrumentData/></a>", "2 elements"),
        (b"<html/>", "expected one"),
        (b"", "not well-formed"),
        (b"<?xml version='1.0' encoding='klingon'?><RadInstrumentData/>", "not well-formed"),
        (b"<?xml version='1.0'?>" * 1001, "1001 documents"),
    ],
)
def test_files_made_to_hurt_are_refused_in_bounded_time(data, reason):
    began_s = time.monotonic()
    with pytest.raises(DataError, match=reason):
        n42.read_all(data)
    assert time.monotonic() - began_s < 20


def test_zero_runs_cannot_fill_the_memory():
    bomb = spectrum("0 65535 1", 'compressionCode="CountedZeroes"')
    with pytest.raises(DataError, match="channels in all"):
        n42.read(portal_xml(slice_xml(0, body=bomb * 740)))


def test_too_large_a_file_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "big.n42"
    with path.open("wb") as file:
        file.truncate(n42.MAX_BYTES + 1)
    with pytest.raises(DataError, match="more than 67108864 bytes"):
        n42.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        n42.read(tmp_path / "none.n42")


def test_problems_are_bounded():
    document = n42.read(portal_xml(*(slice_xml(0, "maybe") for _ in range(150))))
    assert len(document.problems) == n42.MAX_PROBLEMS + 1
    assert document.problems[-1] == "and 50 further problems"
    assert document.lost == 150


@given(st.lists(st.integers(0, 2) | st.integers(0, 10**6), min_size=1, max_size=200))
def test_documents_are_frozen_and_runs_of_zeroes_expand(values):
    from scanner_io.formats.n42_writer import compress_zeroes

    counts = np.array(values, np.uint32)
    packed = np.array([float(t) for t in compress_zeroes(counts).split()])
    expanded, mended = n42.expand_zeroes(packed)
    assert expanded.tolist() == values
    assert not mended


def test_a_document_cannot_be_changed():
    (m,) = n42.read(portal_xml(slice_xml(0, body=spectrum("1 2")))).measurements
    with pytest.raises(AttributeError):
        m.id = "x"
    with pytest.raises(ValueError, match="read-only"):
        m.spectra[0].counts[0] = 9
    assert msgspec.structs.replace(m, id="x").id == "x"
