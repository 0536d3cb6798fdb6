"""Written N42 files: valid by schema and Schematron, and with every count that was read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from scanner_io.errors import DataError
from scanner_io.formats import n42_document as n42
from scanner_io.formats.n42_writer import write
from tests.schematron import Schematron

READABLE = (
    "Annex_B.n42", "Annex_B_alternate_energy_calibration.n42", "Annex_C.n42", "Annex_D.n42", "Annex_D_alarmed.n42",
    "Annex_E.n42", "Annex_F.n42", "Annex_G.n42", "Annex_H.n42", "Annex_I.n42", "Annex_L.n42",
    "hostile_unbound_prefix.n42", "mobile_racetrack_2011.n42", "srpm_passthrough_2006.n42",
)  # fmt: skip
WITHOUT_SPECTRA = ("Annex_D.n42", "Annex_D_alarmed.n42", "Annex_F.n42", "Annex_H.n42", "Annex_L.n42")
"""The Schematron's channel rules take minutes for a real spectrum; small ones stand for them below."""


@pytest.fixture(scope="module")
def schema(shared_data):
    return etree.XMLSchema(etree.parse(str(shared_data / "n42" / "n42.xsd")))


@pytest.fixture(scope="module")
def rules(shared_data):
    return Schematron(shared_data / "n42" / "n42.sch")


def series(document):
    """Every series of counts with whose it is and when; ids may change."""
    return [
        (m.start_utc_ns, m.real_time_s, m.occupied, m.derived, [g.counts for g in m.gross_counts],
         [s.counts.tolist() for s in m.spectra])
        for m in document.measurements
    ]  # fmt: skip


def said(document):
    """What the instrument said beside counts."""
    return (
        [(a.category, a.description, a.utc_ns) for r in document.results for a in r.alarms],
        [n for r in document.results for n in r.nuclides],
        [[(f.code, f.description, f.severity) for f in m.faults] for m in document.measurements],
        [(i.container_id, len(i.characteristics)) for i in document.items],
        [(w.start_kev, w.end_kev) for w in document.windows],
        [(d.id, d.category) for d in document.detectors],
    )


@pytest.mark.parametrize("name", READABLE)
def test_what_was_read_is_written_valid_and_reads_the_same(shared_data, schema, name):
    document = n42.read(shared_data / "n42" / name)
    written = write(document)
    schema.assertValid(etree.fromstring(written))
    again = n42.read(written)
    assert series(again) == series(document)
    assert again.problems == ()
    if document.form == "2011":
        assert said(again) == said(document)
        assert again.measurements[-1].speed == document.measurements[-1].speed


@pytest.mark.parametrize("name", WITHOUT_SPECTRA)
def test_what_is_written_keeps_the_schematron_rules(shared_data, rules, name):
    before = rules.checked
    assert rules.failures(write(n42.read(shared_data / "n42" / name))) == []
    assert rules.checked > before


@pytest.mark.parametrize(
    ("sound", "broken", "rule"),
    [
        (b"<CountData>5 22 200<", b"<CountData>5 22<", "CountDataValuesCheck"),
        (b'radDetectorInformationReference="Aa2"', b'radDetectorInformationReference="Aa1"', "UniqueDetector"),
        (b'radDetectorInformationReference="Aa2"', b'radDetectorInformationReference="MG-1"', "ReferenceTypeMatch"),
        (b'<AnalysisResults radMeasurementGroupReferences="MG-1"', b"<AnalysisResults", "ExclusivityCheck"),
        (b"<RadDetectorKindCode>PVT<", b"<RadDetectorKindCode>Other<", ""),
    ],
)
def test_the_schematron_rules_do_find_what_is_broken(shared_data, rules, sound, broken, rule):
    data = (shared_data / "n42" / "Annex_D.n42").read_bytes()
    assert rules.failures(data) == []
    failures = rules.failures(data.replace(sound, broken, 1))
    assert any(rule in f for f in failures) == bool(rule)  # a kind Other with a description is allowed


counts = st.one_of(st.integers(0, 5), st.integers(0, 2**40), st.floats(0, 1e12))
names = st.text(st.characters(codec="utf-8"), max_size=8) | st.text("ab-_. \n%1", max_size=8)


@st.composite
def documents(draw):
    detectors = [
        n42.Detector(id=f"{draw(names)}{i}", category=draw(st.sampled_from(["Gamma", "Neutron", "Odd"])),
                     kind=draw(names), description=draw(names))
        for i in range(draw(st.integers(1, 3)))
    ]  # fmt: skip
    windows = n42.EnergyWindows(id="W 1", start_kev=(0, 0, 100), end_kev=(100, 3000, 400))
    coefficients = draw(st.sampled_from([(), (0, 3), (0, 3, 0.1), (0.5, 3, 0.1, 0.01), (0, 3, 0, 0)]))
    calibrations = (n42.EnergyCalibration(id="4th", coefficients=coefficients),)
    measurements = []
    for _ in range(draw(st.integers(0, 3))):
        gross, spectra = [], []
        for d in detectors:
            by_window = draw(st.booleans())
            gross.append(
                n42.GrossCounts(
                    detector=d.id, windows="W 1" if by_window else "", live_time_s=draw(st.none() | st.floats(0, 1e6)),
                    counts=tuple(float(draw(counts)) for _ in range(3 if by_window else 1)),
                )
            )  # fmt: skip
            channels = np.array(draw(st.lists(counts, min_size=1, max_size=8)), np.float64)
            spectra.append(
                n42.Spectrum(detector=d.id, counts=channels, calibrations=draw(st.sampled_from([(), ("4th",)])))
            )
        fault = n42.Fault(code=draw(names), description=draw(names), severity=draw(names), of=draw(names))
        measurements.append(
            n42.Measurement(
                id=draw(names), class_code=draw(names), start_utc_ns=draw(st.integers(0, 1_700_000_000 * 10**9)),
                real_time_s=draw(st.integers(1, 10**6)) / 1000, gross_counts=tuple(gross), spectra=tuple(spectra),
                occupied=draw(st.none() | st.booleans()), speed=draw(st.none() | st.floats(0, 100)), faults=(fault,),
                speed_unit=draw(st.sampled_from(["", "mph", "km/h"])), groups=tuple(draw(st.lists(names, max_size=2))),
                remarks=(draw(names),),
            )
        )  # fmt: skip
    results = n42.AnalysisResults(
        alarms=(n42.Alarm(category=draw(names), description=draw(names), detectors=(draw(names),)),),
        nuclides=(
            n42.Nuclide(name=draw(names), identified=draw(st.booleans()), confidence=draw(st.none() | st.just(0.5))),
        ),
    )  # fmt: skip
    return n42.Document(
        form="2011", instrument=n42.Instrument(id=draw(names), model=draw(names), class_code=draw(names)),
        detectors=tuple(detectors), windows=(windows,), calibrations=calibrations, measurements=tuple(measurements),
        items=(n42.Item(id=draw(names), characteristics=(n42.Characteristic(name="ContainerID", value=draw(names)),)),),
        results=(results,) if measurements else (), uuid=draw(names), problems=(draw(names),),
    )  # fmt: skip


@given(documents())
@settings(max_examples=100)
def test_any_document_is_written_valid_and_keeps_its_counts(schema, document):
    written = write(document)
    schema.assertValid(etree.fromstring(written))
    again = n42.read(written)
    assert series(again) == series(document)
    assert again.lost == 0
    assert [a.category for r in again.results for a in r.alarms] == ["Other"] * len(document.results)
    assert [n.identified for r in again.results for n in r.nuclides] == [
        n.identified for r in document.results for n in r.nuclides
    ]


@given(documents())
@settings(max_examples=8)
def test_any_document_keeps_the_schematron_rules(rules, document):
    assert rules.failures(write(document)) == []


def small(**changed):
    m = {"id": "M", "class_code": "Foreground", "start_utc_ns": 0, "real_time_s": 1.0} | changed
    return n42.Document(
        form="2011", instrument=n42.Instrument(), detectors=(n42.Detector(id="G", category="Gamma"),),
        measurements=(n42.Measurement(**m),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"start_utc_ns": None}, "no start"),
        ({"real_time_s": None}, "no real time"),
        ({"real_time_s": 0.0}, "no real time"),
        ({"gross_counts": (n42.GrossCounts(detector="G", counts=(1.0, 2.0)),)}, "2 counts, expected 1"),
        ({"gross_counts": (n42.GrossCounts(detector="G", counts=(1.0,)),) * 2}, "two counts of one sort"),
        ({"gross_counts": (n42.GrossCounts(detector="X", counts=(1.0,)),)}, "'X' is not in the document"),
        ({"gross_counts": (n42.GrossCounts(detector="G", counts=(1.0,), windows="W"),)}, "expected None"),
    ],
)
def test_what_a_valid_file_cannot_say_is_refused(changed, reason):
    with pytest.raises(DataError, match=reason):
        write(small(**changed))


def test_more_than_three_coefficients_become_the_boundaries_they_mean():
    spectrum = n42.Spectrum(detector="G", counts=np.array([1, 2], np.uint32), calibrations=("C",))
    document = small(spectra=(spectrum,))
    calibration = n42.EnergyCalibration(id="C", coefficients=(1.0, 2.0, 0.0, 1.0))
    document = n42.Document(
        form="2011", instrument=document.instrument, detectors=document.detectors, measurements=document.measurements,
        calibrations=(calibration,),
    )  # fmt: skip
    (written,) = n42.read(write(document)).calibrations
    assert written.boundaries_kev == (1.0, 4.0, 13.0)


def test_a_speed_with_a_unit_is_written_in_the_standards():
    document = small(speed=10.0, speed_unit="mph", occupied=True)
    (m,) = n42.read(write(document)).measurements
    assert (m.speed, m.speed_unit) == (pytest.approx(4.4704), "m/s")
