"""Portal documents as records of passages, and records as documents."""

from __future__ import annotations

import random
import re
import time

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_io import recording
from scanner_io.errors import DataError
from scanner_io.formats import n42
from scanner_io.formats.n42.passage import MAX_PASSAGES
from scanner_io.model import DeviceInfo, PortalRecord, PortalSettings, Scan
from tests import samples
from triage.analysis.fusion import fuse
from triage.analysis.portal import PortalProfile, judge_portal

from .n42_samples import CALIBRATION, gross, portal_xml, slice_of_three, slice_xml, spectrum, windows_xml


def passages(*parts: str, settings: n42.N42Settings | None = None, **more: str) -> tuple[n42.Passage, ...]:
    return n42.passages(n42.read(portal_xml(*parts, **more), settings), settings)


def codes(passage: n42.Passage) -> set[str]:
    return {q.code for q in passage.quality}


def test_annex_d_alarmed_becomes_a_record_by_its_occupancy_indicator(shared_data):
    document = n42.read(shared_data / "n42" / "Annex_D_alarmed.n42")
    (passage,) = n42.passages(document)
    record = passage.record
    assert record.gamma.tolist() == [[22, 11, 7, 7]] * 7  # the window 0 to 3000 keV, two slices before, two behind
    assert record.neutron.tolist() == [[0, 1]] * 7
    assert passage.windows == document.windows[0]
    assert record.gamma_windows[3].tolist() == [[5, 22, 200], [6, 11, 300], [22, 7, 555], [3, 7, 345]]
    assert record.gamma_background == pytest.approx([220, 110, 70, 70])
    assert record.gamma_windows_background[0] == pytest.approx([50, 220, 2000])
    assert record.neutron_background == pytest.approx([0, 10])
    assert record.gamma_alarm.tolist() == record.neutron_alarm.tolist() == [False] * 2 + [True] * 3 + [False] * 2
    assert record.speed_kmh == pytest.approx(54.0)  # 15, in m/s by the schema
    assert record.gamma_interval_s == record.neutron_interval_s == 0.1
    assert (record.end_utc_ns - record.start_utc_ns) / 1e9 == pytest.approx(0.3)
    assert record.gamma_start_utc_ns == record.start_utc_ns - 200_000_000
    assert record.faults == ("5 Overspeed (Warning)",)
    assert codes(passage) == {
        "portal_nuclide", "portal_windows_disagree", "portal_alarm_span", "portal_short_gamma_background",
        "portal_short_neutron_background",
    }  # fmt: skip
    assert (passage.device.vendor, passage.device.model, passage.device.serial) == ("RPMs R Us", "RPM 3000", "A1234b")


def test_every_count_of_annex_d_is_in_the_passage(shared_data):
    for name in ("Annex_D.n42", "Annex_D_alarmed.n42"):
        document = n42.read(shared_data / "n42" / name)
        (passage,) = n42.passages(document)
        gamma = sum(sum(g.counts) for m in document.measurements for g in m.gross if g.windows)
        neutron = sum(sum(g.counts) for m in document.measurements for g in m.gross if not g.windows)
        assert passage.record.gamma_windows.sum() == gamma == 10_381
        assert passage.record.neutron.sum() == neutron == 7
    assert n42.passages(n42.read(shared_data / "n42" / "Annex_D.n42"))[0].record.gamma_alarm.any() == False  # noqa: E712


def test_annex_e_sums_spectra_and_takes_the_long_background(shared_data):
    document = n42.read(shared_data / "n42" / "Annex_E.n42")
    (passage,) = n42.passages(document)
    record = passage.record
    assert record.gamma.tolist() == [[int(s.total) for s in m.spectra] for m in document.measurements[1:]]
    assert record.neutron.tolist() == [[1, 1]] * 6
    assert record.gamma_alarm.tolist() == [False, False, True, True, False, False]  # an isotope alarm
    assert record.neutron_alarm.any() == False  # noqa: E712
    assert record.speed_kmh == pytest.approx(3.2 * 3.6)
    assert record.neutron_background == pytest.approx([303 / 302, 302 / 302])
    first, *slices = document.measurements[:3]
    counted = first.spectra[0].total + sum(m.spectra[0].total for m in slices)
    assert record.gamma_background[0] == pytest.approx(counted / (298.212262 + 2 * 0.997321))
    assert passage.declaration.container_numbers == ("YMLU3030933",)
    assert codes(passage) == {"portal_nuclide", "portal_alarm_category", "portal_alarm_span"}


def test_the_recorded_pass_keeps_every_count(shared_data):
    document = n42.read(shared_data / "n42" / "srpm_passthrough_2006.n42")
    (passage,) = n42.passages(document)
    record = passage.record
    assert record.gamma.shape == (133, 8)
    assert record.gamma.sum() == 600_266
    assert record.neutron.shape[0] == 0
    assert record.gamma_background is None
    assert record.speed_kmh == pytest.approx(2.4 * 1.609344)
    assert (record.number, record.end_reason, record.faults) == (1, "complete", ())
    judged = judge_portal(record, PortalProfile())
    assert {q.code for q in judged.quality} == {"portal_no_background", "portal_no_neutron"}
    assert [f.kind for f in judged.findings if f.tier != "note"] == ["gamma_level"]


def test_files_of_other_instruments_have_no_passage_and_say_why(shared_data):
    for path in sorted((shared_data / "n42").glob("*.n42")):
        document = n42.read(path)
        if not path.name.startswith(("Annex_D", "Annex_E", "srpm")):
            assert n42.passages(document) == (), path
            assert "none with an occupancy indicator: no portal passage" in n42.why_none(document)
    assert "none of them occupied" in n42.why_none(n42.read(portal_xml(slice_xml(0, "0"))))
    assert "without any measurement" in n42.why_none(n42.read(portal_xml()))


# ----------------------------------------------------------------------------------------------------------------
# Counts


@pytest.mark.parametrize(
    ("starts", "ends", "counts", "taken", "code"),
    [
        ("0 100", "100 400", "3 4", 7, ""),
        ("0 0 100", "100 3000 400", "3 9 4", 9, ""),
        ("0 0 100", "100 3000 400", "3 9 14", 9, "portal_windows_disagree"),
        ("0 50", "100 400", "3 4", 4, "portal_windows"),
        ("100 0", "400 100", "4 3", 7, "portal_windows_order"),
    ],
)
def test_energy_windows_are_added_only_where_they_do_not_overlap(starts, ends, counts, taken, code):
    body = gross("G1", counts, "W")
    (passage,) = passages(windows_xml(starts, ends), slice_xml(0, "0", body), slice_xml(1, "1", body))
    assert passage.record.gamma.tolist() == [[taken]] * 2
    assert {c for c in codes(passage) if c.startswith("portal_windows")} == ({code} if code else set())


def test_a_total_beside_the_windows_is_the_count():
    body = gross("G1", "3 4", "W", more="<TotalCountData>11</TotalCountData>")
    (passage,) = passages(windows_xml("0 50", "100 400"), slice_xml(1, "1", body))
    assert passage.record.gamma.tolist() == [[11]]


def test_gross_counts_and_spectra_of_one_detector_are_the_same_pulses():
    body = spectrum("3 4") + gross("G1", "8")
    (passage,) = passages(CALIBRATION, slice_xml(1, "1", body))
    assert passage.record.gamma.tolist() == [[8]]
    twice = spectrum("3 4") + spectrum("3 4")
    (passage,) = passages(CALIBRATION, slice_xml(1, "1", twice))
    assert passage.record.gamma.tolist() == [[7]]
    scales = spectrum("1 2 2 2").replace('Reference="EC"', 'Reference="EC E8"')
    (passage,) = passages(CALIBRATION, slice_xml(1, "1", scales))
    assert passage.record.gamma.tolist() == [[4]]
    assert "portal_two_scales" in codes(passage)


def test_two_passages_and_the_background_before_each():
    told = [("0", "5"), ("1", "9"), ("0", "7"), ("1", "8"), ("1", "6")]
    first, second = passages(*(slice_of_three(i, o, g) for i, (o, g) in enumerate(told)))
    assert first.record.gamma[:, 0].tolist() == [5, 9, 7]
    assert second.record.gamma[:, 0].tolist() == [8, 6]  # the slice between belongs to the first
    assert first.record.gamma_background.tolist() == [5, 20]
    assert second.record.gamma_background.tolist() == [6, 20]
    assert not set(first.measurements) & set(second.measurements)


def test_a_vehicle_close_behind_in_a_group_of_its_own_is_a_passage_of_its_own():
    one, two = slice_of_three(0, "1"), slice_of_three(1, "1")
    assert len(passages(one, two)) == 1
    grouped = [x.replace("<RadMeasurement ", f'<RadMeasurement radMeasurementGroupReferences="{g}" ', 1)
               for x, g in ((one, "A"), (two, "B"))]  # fmt: skip
    assert len(passages(*grouped)) == 2
    late = slice_of_three(1, "1").replace("09:45", "09:55")
    assert len(passages(one, late)) == 2


def test_a_slice_without_indicator_between_occupied_ones_does_not_part_a_passage():
    (passage,) = passages(slice_of_three(0, "1"), slice_of_three(1, ""), slice_of_three(2, "1"))
    assert passage.record.gamma.shape == (3, 2)
    assert "portal_occupancy_assumed" in codes(passage)


def test_a_portal_without_any_indicator_tells_passages_by_class():
    parts = [slice_of_three(0, ""), slice_of_three(1, "").replace("Background", "Foreground")]
    (passage,) = passages(*parts)
    assert passage.record.gamma_background.tolist() == [10, 20]
    assert "portal_occupancy_assumed" in codes(passage)
    assert passages(*parts, class_code="Backpack") == ()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)])
def test_slices_of_one_time_that_tell_different_detectors_are_joined(order):
    parts = [
        slice_xml(1, "1", gross("G1", "3")), slice_xml(2, "1", gross("G1", "5"), second=2),
        slice_xml(3, "1", gross("G2", "4"), second=1.04), slice_xml(4, "1", gross("G2", "6"), second=2.04),
    ]  # fmt: skip
    (passage,) = passages(*(parts[i] for i in order))
    assert passage.record.gamma.tolist() == [[3, 4], [5, 6]]
    assert passage.record.faults == ()
    assert "portal_detector_missing" not in codes(passage)


def test_a_missing_slice_and_a_missing_detector_are_told():
    (passage,) = passages(slice_of_three(0, "1"), slice_of_three(2, "1"))
    assert passage.record.faults == ("lines_lost",)
    (passage,) = passages(slice_of_three(0, "1"), slice_xml(1, "1", gross("G1", "3")))
    assert "portal_detector_missing" in codes(passage)
    (passage,) = passages(slice_of_three(5, "1"), slice_of_three(4, "1"))
    assert passage.record.faults == ("clock_stepped",)


def test_a_measurement_over_the_whole_passage_beside_its_slices_is_their_sum():
    whole = slice_of_three(9, "1", "90", second=1).replace("<RealTimeDuration>PT1S", "<RealTimeDuration>PT8S")
    (passage,) = passages(*(slice_of_three(i, "1") for i in range(1, 9)), whole)
    assert passage.record.gamma.shape == (8, 2)
    assert "portal_sums_left_out" in codes(passage)


def test_slices_that_tell_no_length_take_it_from_their_times_or_are_unusable():
    parts = [slice_of_three(i, "1").replace("<RealTimeDuration>PT1S</RealTimeDuration>", "") for i in range(3)]
    (passage,) = passages(*parts)
    assert passage.record.gamma_interval_s == 1.0
    (passage,) = passages(parts[0])
    assert {q.code for q in passage.quality if q.fatal} == {"portal_no_intervals"}


def test_counts_that_are_no_whole_numbers_and_times_that_are_none_are_told():
    (passage,) = passages(slice_of_three(1, "1", "9.6").replace("2026-01-31", "soon"))
    assert passage.record.gamma.tolist() == [[10, 20]]
    assert {"portal_counts_rounded", "portal_no_time"} <= codes(passage)
    with pytest.raises(DataError, match="at most 2\\^53"):
        passages(slice_of_three(1, "1", "1e300"))


def test_a_neutron_rate_is_over_real_time_where_the_live_time_is_a_gamma_detectors():
    body = spectrum("10", live="PT0.5S") + gross("N1", "4", live="PT0.5S")
    (passage,) = passages(CALIBRATION, *(slice_xml(i, o, body) for i, o in enumerate("0001")))
    assert passage.record.gamma_background.tolist() == [20]
    assert passage.record.neutron_background.tolist() == [4]


def test_a_detector_that_is_told_twice_or_counts_other_particles_is_told():
    (passage,) = passages(slice_xml(1, "1", gross("G1", "3") + gross("G1", "8")))
    assert passage.record.gamma.tolist() == [[8]]
    assert "portal_detector_twice" in codes(passage)
    alpha = portal_xml(slice_of_three(1, "1")).replace(b">Gamma<", b">Alpha<", 1)
    (passage,) = n42.passages(n42.read(alpha))
    assert passage.record.gamma.tolist() == [[20]]
    assert "portal_not_judged" in codes(passage)


def test_counts_and_times_beyond_a_record_are_refused():
    body = gross("G1", "3 1e300", "W", more="<TotalCountData>3</TotalCountData>")
    with pytest.raises(DataError, match="counts of 1e\\+300 in one slice"):
        passages(windows_xml("0 100", "100 400"), slice_xml(1, "1", body))
    late = slice_of_three(1, "1").replace("2026-01-31", "2261-01-31").replace(">PT1S</Real", ">P11574D</Real")
    with pytest.raises(DataError, match="slice M1 ends after the year 2262"):
        passages(late)


def test_what_is_not_as_it_should_be_is_told_and_a_habit_is_not():
    parts = slice_of_three(0, "0"), slice_of_three(1, "1")
    (passage,) = passages(*(p.replace("000000Z", "000000") for p in parts))  # no time zone
    assert "portal_file_doubtful" not in codes(passage)
    (passage,) = passages(parts[0].replace("PT1S</Live", "soon</Live", 1), parts[1])
    reasons = {q.code: q.reason for q in passage.quality}
    assert "in 1 places, first line 1, LiveTimeDuration: 'soon' is no duration" in reasons["portal_file_doubtful"]
    many = [slice_of_three(i, "1").replace("000000Z", "000000", 1) for i in range(3)]
    assert "portal_file_doubtful" not in codes(passages(*many)[0])


def test_a_short_background_without_indicator_may_be_a_slice_of_the_vehicle():
    (passage,) = passages(slice_of_three(0, ""), slice_of_three(1, "1"))
    assert "portal_occupancy_assumed" in codes(passage)
    long = slice_of_three(0, "").replace("<RealTimeDuration>PT1S", "<RealTimeDuration>PT300S")
    (passage,) = passages(long.replace("09:45", "09:30"), slice_of_three(1, "1"))
    assert "portal_occupancy_assumed" not in codes(passage)


# ----------------------------------------------------------------------------------------------------------------
# Damage never reads as clear


def clear_xml() -> bytes:
    """A portal's file of one passage that is clear."""
    rng = np.random.default_rng(1)

    def slice_(number: int, occupied: str) -> str:
        body = "".join(gross(d, str(rng.poisson(mean))) for d, mean in (("G1", 300), ("G2", 300), ("N1", 2)))
        xml = slice_xml(number, occupied, body, second=number * 0.2).replace("PT1S", "PT0.2S")
        return xml.replace("<RadMeasurement ", '<RadMeasurement radMeasurementGroupReferences="MG" ') + "\n"

    counts = (("G1", "450000"), ("G2", "450000"), ("N1", "3000"))
    background = slice_xml(0, "false", "".join(gross(d, c) for d, c in counts)).replace("PT1S", "PT300S")
    slices = [slice_(i, "true" if 3 <= i < 25 else "false") for i in range(1, 30)]
    return portal_xml('<RadMeasurementGroup id="MG"/>', background.replace("09:45", "09:39"), *slices)


def outcome_of(xml: bytes) -> tuple[str, n42.Passage | None]:
    """Return what `scanlane triage` makes of a file, and its passage."""
    try:
        document = n42.read(xml)
        found = n42.passages(document)
    except DataError:
        return "UNUSABLE", None
    if document.counts_lost or not found:
        return "UNUSABLE", None
    outcomes = []
    for p in found:
        judged = judge_portal(p.record, PortalProfile())
        alarmed = judged.gamma_alarm or judged.neutron_alarm
        quality = (*p.quality, *judged.quality)
        outcomes.append(fuse(judged.findings, quality, vendor_alarm=alarmed, anything_judged=True)[0])
    return next((o for o in outcomes if o != "CLEAR"), "CLEAR"), found[0]


def of_interest(passage: n42.Passage) -> tuple[object, ...]:
    r = passage.record
    return (
        r.gamma.tolist(), r.neutron.tolist(), r.gamma_alarm.any(), r.neutron_alarm.any(), r.faults, r.end_reason,
        r.gamma_background.tolist(), r.neutron_background.tolist(), r.start_utc_ns, r.end_utc_ns,
    )  # fmt: skip


def test_damage_to_markup_never_reads_as_clear_unless_it_changes_nothing():
    sound = clear_xml()
    outcome, passage = outcome_of(sound)
    assert outcome == "CLEAR"
    markup = [m.start() + i for m in re.finditer(rb"<[^>]*>", sound) for i in range(len(m[0]))]
    rng = random.Random(3)
    found = {"CLEAR": 0, "REVIEW": 0, "UNUSABLE": 0}
    for at in rng.sample(markup, 250):
        put = bytes([rng.choice(b"\x00\n <>=/&xM9_")]) if rng.random() < 0.8 else b""
        outcome, again = outcome_of(sound[:at] + put + sound[at + 1 :])
        found[outcome] += 1
        if outcome == "CLEAR":
            assert of_interest(again) == of_interest(passage), sound[at - 40 : at + 20]
    assert found["UNUSABLE"] > 150 and found["REVIEW"] > 10, found


def test_damage_to_a_file_that_alarms_never_reads_as_clear():
    told = alarm("Gamma", 'radMeasurementGroupReferences="MG"').encode()
    sound = clear_xml().replace(b"</RadInstrumentData>", told + b"</RadInstrumentData>")
    assert outcome_of(sound)[0] == "ALARM"
    begins = sound.index(b"<AnalysisResults")
    rng = random.Random(4)
    for at in (*range(begins, len(sound)), *rng.sample(range(begins), 60)):
        put = rng.choice((bytes([rng.choice(b"\x00\n <>=/&xM9_")]), b""))
        assert outcome_of(sound[:at] + put + sound[at + 1 :])[0] != "CLEAR", sound[at - 40 : at + 20]


# ----------------------------------------------------------------------------------------------------------------
# Alarms, faults, speed


def alarm(category: str, reference: str = "", more: str = "", detector: str = "G1") -> str:
    return (
        f'<AnalysisResults {reference}><RadAlarm radDetectorInformationReferences="{detector}">{more}'
        f"<RadAlarmCategoryCode>{category}</RadAlarmCategoryCode></RadAlarm></AnalysisResults>"
    )


@pytest.mark.parametrize("category", ["Gamma", "Neutron", "Isotope", "Alpha", "Beta", "Other", "gamma", ""])
@pytest.mark.parametrize(
    "reference",
    ['radMeasurementReferences="M1"', 'radMeasurementReferences="M0"', 'radMeasurementGroupReferences="nowhere"',
     'derivedDataReferences="sum"', ""],
)  # fmt: skip
def test_no_alarm_is_lost(category, reference):
    (passage,) = passages(*(slice_of_three(i, o) for i, o in enumerate("011")), alarm(category, reference))
    record = passage.record
    neutron = category == "Neutron"
    flags, others = (
        (record.neutron_alarm, record.gamma_alarm) if neutron else (record.gamma_alarm, record.neutron_alarm)
    )
    named = {"M1": [False, True, False], "M0": [False, True, True]}
    assert flags.tolist() == next((f for m, f in named.items() if m in reference), [False, True, True])
    assert not others.any()
    assert ("portal_alarm_category" in codes(passage)) == (category.casefold() not in ("gamma", "neutron"))


def test_an_alarm_is_of_the_passage_and_of_the_time_it_names():
    parts = [slice_of_three(i, o) for i, o in enumerate("010011")]
    first, second = passages(*parts, alarm("Gamma", 'radMeasurementReferences="M4 M5"'))
    assert not first.record.gamma_alarm.any()
    assert second.record.gamma_alarm.tolist() == [True, True]
    raised = "<RadAlarmDateTime>2026-01-31T09:45:05.5Z</RadAlarmDateTime>"
    first, second = passages(*parts, alarm("Gamma", 'radMeasurementReferences="M4 M5"', raised))
    assert second.record.gamma_alarm.tolist() == [False, True]


def test_an_alarm_of_neutron_detectors_only_is_a_neutron_alarm():
    (passage,) = passages(slice_of_three(0, "0"), slice_of_three(1, "1"), alarm("Other", detector="N1"))
    assert passage.record.neutron_alarm.any()
    assert not passage.record.gamma_alarm.any()


def test_a_neutron_alarm_without_neutron_counts_still_alarms():
    (passage,) = passages(slice_xml(1, "1", gross("G1", "3")), alarm("Neutron"))
    assert passage.record.gamma_alarm.all()
    assert "portal_alarm_elsewhere" in codes(passage)


def test_faults_and_nuclides_are_told():
    fault = (
        '<RadDetectorState radDetectorInformationReference="G2"><Fault><FaultCodeValue>7</FaultCodeValue>'
        "<FaultDescription>HV low</FaultDescription><FaultSeverityCode>Error</FaultSeverityCode></Fault>"
        "</RadDetectorState>"
    )
    nuclide = (
        "<AnalysisResults><NuclideAnalysisResults><Nuclide><NuclideIdentifiedIndicator>{}</NuclideIdentifiedIndicator>"
        "<NuclideName>Cs-137</NuclideName></Nuclide></NuclideAnalysisResults></AnalysisResults>"
    )
    (passage,) = passages(slice_of_three(1, "1", more=fault), nuclide.format("1"))
    assert passage.record.faults == ("7 HV low of G2 (Error)",)
    assert "portal_nuclide" in codes(passage)
    (passage,) = passages(slice_of_three(1, "1"), nuclide.format("false"))
    assert "portal_nuclide" not in codes(passage)
    (passage,) = passages(slice_of_three(0, "0", more=fault), slice_of_three(1, "1"))
    assert passage.record.faults == ("7 HV low of G2 (Error)",)  # told just before the vehicle came


def test_a_detector_that_its_portal_calls_down_is_a_fault(shared_data):
    xml = (shared_data / "n42" / "srpm_passthrough_2006.n42").read_bytes()
    down = xml.replace(b'DetectorStatus Detector="A2" Operational="1"', b'DetectorStatus Detector="A2" Operational="0"')
    (passage,) = n42.passages(n42.read(down))
    assert passage.record.faults == ("DetectorStatus operational: 0 of A2 (Error)",)


@pytest.mark.parametrize(
    ("told", "unit", "kmh"),
    [
        ("<Remark>Speed = 5.0 mph</Remark>", "m/s", 8.04672), ("<Remark>speed: 5</Remark>", "km/h", 5.0),
        ("<Remark>speed: 5</Remark>", "mph", 8.04672), ("", "m/s", None),
        ("<Remark>full speed ahead</Remark>", "m/s", None),
    ],
)  # fmt: skip
def test_a_speed_in_a_remark(told, unit, kmh):
    xml = slice_of_three(1, "1").replace("<MeasurementClassCode>", f"{told}<MeasurementClassCode>", 1)
    (passage,) = passages(slice_of_three(0, "0"), xml, settings=n42.N42Settings(speed_unit=unit))
    assert passage.record.speed_kmh == (None if kmh is None else pytest.approx(kmh))


def test_a_speed_unit_that_is_not_known_is_refused_or_told():
    with pytest.raises(DataError, match="speed_unit 'knots', expected one of m/s"):
        passages(slice_of_three(1, "1"), settings=n42.N42Settings(speed_unit="knots"))
    state = (
        '<RadItemState radItemInformationReference="I"><StateVector><SpeedValue units="knots">5</SpeedValue>'
        "</StateVector></RadItemState>"
    )
    (passage,) = passages(slice_of_three(1, "1", more=state))
    assert passage.record.speed_kmh == 18.0
    assert "portal_speed_unit" in codes(passage)


def test_a_file_cut_inside_its_passage_is_truncated():
    whole = portal_xml(slice_of_three(0, "0"), slice_of_three(1, "1"), slice_of_three(2, "1"))
    (passage,) = n42.passages(n42.read(whole[: whole.rindex(b"<CountData>20") + 12]))
    assert passage.record.truncated
    assert "portal_file_damaged" in codes(passage)


def test_many_passages_are_bounded_in_number_and_time():
    parts = [slice_of_three(i, "01"[i % 2], second=i % 60) for i in range(2 * MAX_PASSAGES)]
    began_s = time.process_time()
    assert len(passages(*parts)) <= MAX_PASSAGES
    assert time.process_time() - began_s < 30
    with pytest.raises(DataError, match="at most 1000 are read"):
        passages(*parts, slice_of_three(9999, "0", second=0), slice_of_three(10_000, "1", second=0))


def test_records_joined_in_one_file_keep_the_worst_end_and_share_no_number():
    whole, cut = (n42.of_record(samples.portal(30, number=7, end_reason=r)) for r in ("complete", "link_lost"))
    later = [
        msgspec.structs.replace(m, start_utc_ns=m.start_utc_ns + 600 * 10**9, groups=m.groups and ("later",))
        for m in cut.measurements
    ]
    cut = msgspec.structs.replace(cut, measurements=tuple(later), groups=("later",))
    both = n42.passages(n42.read(n42.write(whole) + n42.write(cut)))
    assert [(p.record.end_reason, p.record.number) for p in both] == [("link_lost", None)] * 2


# ----------------------------------------------------------------------------------------------------------------
# From records


def back(record: PortalRecord, **more: object) -> n42.Passage:
    document = n42.read(n42.write(n42.of_record(record, **more)))  # type: ignore[arg-type]
    assert document.problems == ()
    (passage,) = n42.passages(document)
    return passage


@st.composite
def records(draw):
    intervals, seconds = draw(st.integers(0, 12)), draw(st.integers(0, 4))
    if intervals + seconds == 0:
        intervals = 1
    detectors, banks = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    start = draw(st.integers(10**18, 1_700_000_000 * 10**9))
    return PortalRecord(
        start_utc_ns=start, end_utc_ns=start + 60 * 10**9,
        gamma=rng.integers(0, 1000, (intervals, detectors)), neutron=rng.integers(0, 9, (seconds, banks)),
        gamma_alarm=rng.random(intervals) < 0.3, neutron_alarm=rng.random(seconds) < 0.3,
        gamma_arrival_ns=start + np.arange(intervals, dtype=np.int64) * 200_000_000,
        gamma_start_utc_ns=start - draw(st.integers(0, 10**9)),
        gamma_background=draw(st.sampled_from([None, rng.uniform(0, 500, detectors)])),
        neutron_background=draw(st.sampled_from([None, rng.uniform(0, 9, banks), np.array([6.683])])),
        settings=draw(st.sampled_from([None, PortalSettings(nsigma=4.5, firmware="1.10.1", gamma_high_fault=2000)])),
        number=draw(st.none() | st.integers(0, 999_999)), boot_epoch=draw(st.integers(0, 99)),
        speed_kmh=draw(st.none() | st.floats(0.1, 30)), faults=draw(st.sampled_from([(), ("GH", "damaged_line")])),
        end_reason=draw(st.sampled_from(["complete", "aborted", "timed_out", "link_lost"])),
    )  # fmt: skip


@given(records())
@settings(max_examples=100)
def test_a_record_comes_back_from_its_document(record):
    again = back(record).record
    for name in ("gamma", "neutron", "gamma_alarm", "neutron_alarm"):
        was, found = getattr(record, name), getattr(again, name)
        assert found.tolist() == was.tolist() if was.size else not found.size, name
    if record.gamma.size:
        assert again.gamma_interval_s == record.gamma_interval_s
        assert again.gamma_start_utc_ns == record.gamma_start_utc_ns
        if record.gamma_background is not None:
            assert again.gamma_background == pytest.approx(record.gamma_background, abs=1e-12)
        else:
            assert again.gamma_background is None
    if record.neutron.size and record.neutron_background is not None:
        assert again.neutron_background == pytest.approx(record.neutron_background, abs=1e-12)
    assert again.settings == record.settings
    for name in ("number", "boot_epoch", "end_reason", "faults"):
        assert getattr(again, name) == getattr(record, name), name
    assert again.speed_kmh == (None if record.speed_kmh is None else pytest.approx(record.speed_kmh))


@pytest.mark.parametrize("shape", [(30, 4), (30, 4, 3)])
def test_counts_and_alarms_by_energy_window_are_not_lost(shape):
    counts = np.random.default_rng(5).integers(0, 99, shape)
    flags = np.arange(30) == 7
    record = samples.portal(
        30, gamma_windows=counts, gamma_windows_alarm=flags, neutron_start_utc_ns=samples.START_NS - 100_000_000
    )
    document = n42.read(n42.write(n42.of_record(record)))
    assert sum(sum(g.counts) for m in document.derived for g in m.gross) == counts.sum()
    (passage,) = n42.passages(document)
    assert passage.quality == ()
    assert passage.record.gamma_windows_alarm.tolist() == flags.tolist()
    assert not passage.record.gamma_alarm.any()
    assert passage.record.neutron_start_utc_ns == record.neutron_start_utc_ns
    assert passage.record.gamma.tolist() == record.gamma.tolist()


def test_a_simulated_portals_firmware_is_label_enough():
    record = samples.portal(settings=PortalSettings(firmware="SIM.1", gamma_background_s=20, neutron_zmax=1200))
    assert back(record).device.simulated
    assert back(record).record.settings == record.settings


def test_a_portal_record_is_judged_the_same_after_it_was_n42():
    record = samples.portal(60, alarm=True)
    again = back(record).record
    assert back(record).quality == ()
    before, after = (judge_portal(r, PortalProfile()) for r in (record, again))
    assert after == before


def test_what_is_written_of_a_record_is_valid_and_says_whose_it_is(shared_data):
    from lxml import etree

    from tests.schematron import Rules

    record = samples.portal(
        12,
        alarm=True,
        faults=("GH",),
        end_reason="link_lost",
        gamma_windows=np.ones((12, 4), np.int64),
        gamma_windows_alarm=np.ones(12, np.bool_),
    )
    device = DeviceInfo(vendor="Rapiscan", model="TSA VM-250", kinds=("portal",), serial="7", simulated=True)
    written = n42.write(n42.of_record(record, device=device, declaration=samples.declaration(), software="1.0"))
    etree.XMLSchema(etree.parse(str(shared_data / "n42" / "n42.xsd"))).assertValid(etree.fromstring(written))
    assert Rules(shared_data / "n42" / "n42.sch").broken(written) == []
    document = n42.read(written)
    assert document.remarks[0].startswith("SIMULATED")
    assert document.instrument.description.startswith("SIMULATED")
    assert document.instrument.class_code == "Portal Monitor"
    (passage,) = n42.passages(document)
    assert passage.device.simulated
    assert (passage.device.vendor, passage.device.model, passage.device.serial) == ("Rapiscan", "TSA VM-250", "7")
    assert passage.declaration.container_numbers == ("CSQU3054383",)
    two = msgspec.structs.replace(samples.declaration(), container_numbers=("CSQU3054383", "YMLU3030933"))
    assert back(record, declaration=two).declaration.container_numbers == ("CSQU3054383", "YMLU3030933")
    assert b"SIMULATED" not in n42.write(n42.of_record(record))


def test_a_passage_of_an_n42_file_can_be_recorded(shared_data, tmp_path):
    (passage,) = n42.passages(n42.read(shared_data / "n42" / "Annex_E.n42"))
    record = passage.record
    scan = Scan(
        scan_id=samples.SCAN_ID, lane="north", start_utc_ns=record.start_utc_ns, end_utc_ns=record.end_utc_ns,
        expected=("portal",), portal=record, declaration=passage.declaration, devices=(passage.device,),
        quality=passage.quality,
    )  # fmt: skip
    path = tmp_path / f"{samples.SCAN_ID}.scan.h5"
    recording.write(path, scan)
    assert recording.check(path) == []
    stored = recording.read(path).scan
    assert stored.portal.gamma.tolist() == record.gamma.tolist()
    assert (stored.quality, stored.devices, stored.declaration) == (scan.quality, scan.devices, scan.declaration)
