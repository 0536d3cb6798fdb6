"""N42 files written: valid by the standard's schema and Schematron rules, and with every count that was read."""

from __future__ import annotations

import math
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from scanner_io.errors import DataError
from scanner_io.formats import n42
from scanner_io.formats.n42 import document as d
from scanner_io.formats.n42.writer import duration, instant
from tests.schematron import BY_HAND, Rules

FILES = (
    "Annex_B.n42", "Annex_B_alternate_energy_calibration.n42", "Annex_C.n42", "Annex_D.n42", "Annex_D_alarmed.n42",
    "Annex_E.n42", "Annex_F.n42", "Annex_G.n42", "Annex_H.n42", "Annex_I.n42", "Annex_L.n42",
    "hostile_not_well_formed.n42", "hostile_unbound_prefix.n42", "mobile_racetrack_2011.n42",
    "srpm_passthrough_2006.n42",
)  # fmt: skip
SLOW = ("hostile_not_well_formed.n42", "srpm_passthrough_2006.n42")
"""Files whose number of elements takes the Schematron rules minutes; parts of them are checked."""


@pytest.fixture(scope="module")
def schema(shared_data):
    return etree.XMLSchema(etree.parse(str(shared_data / "n42" / "n42.xsd")))


@pytest.fixture(scope="module")
def rules(shared_data):
    return Rules(shared_data / "n42" / "n42.sch")


def counts_of(m: d.Measurement) -> list[tuple[float, ...]]:
    """Every series of counts of a measurement, sorted: windows may be written in another order."""
    gross = [tuple(sorted(g.counts)) for g in m.gross]
    return sorted([*gross, *(tuple(s.counts().tolist()) for s in m.spectra)])


def every_count(document: n42.N42Document) -> list[float]:
    """Every count of a document, sorted, zeroes left out."""
    found = []
    for m in (*document.measurements, *document.derived):
        found += [c for g in m.gross for c in g.counts]
        found += [c for s in m.spectra for c in s.counts().tolist()]
    return sorted(c for c in found if c)


def said(document: n42.N42Document):
    """What the instrument said beside counts."""
    return (
        [(m.start_utc_ns, m.real_time_s, m.occupied, m.speed, m.class_code) for m in document.measurements],
        [(a.category, a.description, a.utc_ns, a.light_color) for r in document.analyses for a in r.alarms],
        [n for r in document.analyses for n in r.nuclides],
        [[(f.code, f.description, f.severity) for f in m.faults] for m in document.measurements],
        [(i.characteristic("ContainerID"), len(i.characteristics)) for i in document.items],
        [(w.start_kev, w.end_kev) for w in document.windows],
        [(x.id, x.category, x.kind) for x in document.detectors],
        document.remarks,
    )


@pytest.mark.parametrize("name", FILES)
def test_what_was_read_is_written_valid_and_reads_the_same(shared_data, schema, name):
    document = n42.read(shared_data / "n42" / name)
    written = n42.write(document)
    schema.assertValid(etree.fromstring(written))
    again = n42.read(written)
    assert every_count(again) == every_count(document)
    assert again.counts_lost == document.counts_lost
    if document.form == "2012" and name != "hostile_not_well_formed.n42":
        assert said(again) == said(document)
        assert [counts_of(m) for m in again.measurements] == [counts_of(m) for m in document.measurements]
        assert n42.write(again) == written


@pytest.mark.parametrize("name", FILES)
def test_what_is_written_keeps_the_schematron_rules(shared_data, rules, name):
    document = n42.read(shared_data / "n42" / name)
    if name in SLOW:
        document = msgspec.structs.replace(document, measurements=document.measurements[-5:])
    assert rules.broken(n42.write(document)) == []


@pytest.mark.parametrize(
    ("name", "sound", "broken", "rule"),
    [
        ("Annex_D", "<CountData>5 22 200<", "<CountData>5 22<", "CountDataValuesCheck"),
        ("Annex_D", 'e="Aa1N">', 'e="Aa1N" energyWindowsReference="x">', "CountDataValuesCheck"),
        ("Annex_D", 'Reference="Aa2"', 'Reference="Aa1"', "RadMeasurementUniqueDetectorCheck-GrossCounts"),
        ("Annex_D", 'Reference="Aa2"', 'Reference="MG-1"', "RadDetectorInformationReferenceTypeMatch"),
        ("Annex_D", '<AnalysisResults radMeasurementGroupReferences="MG-1"', "<AnalysisResults",
         "AnalysisDataReferencesExclusivityCheck"),
        ("Annex_D", 's="MG-1"', 's="Aa1"', "RadMeasurementGroupReferencesTypeMatch"),
        ("Annex_D", "0 0 100<", "0 200 100<", "WindowStartIncreasingListValuesCheck"),
        ("Annex_D", ">100 3000 400<", ">100 3000 50<", "WindowStartEndCheck"),
        ("Annex_D", ">100 3000 400<", ">100 3000<", "WindowStartEndMatch"),
        ("Annex_D", ">2003-11-22T", ">2903-11-22T", "StartDateCheck"),
        ("Annex_E", "<RadDetectorKindCode>HPGe<", "<RadDetectorKindCode>Other<", "RadDetectorKindCheck"),
        ("Annex_E", 'Reference="ENCAL"', 'Reference="FWHMCAL"', "EnergyCalibrationReferenceTypeMatch"),
    ],
)  # fmt: skip
def test_the_schematron_rules_do_find_what_is_broken(shared_data, rules, name, sound, broken, rule):
    text = (shared_data / "n42" / f"{name}.n42").read_text()
    assert rules.broken(text.encode()) == []
    assert sound in text
    assert rule in rules.broken(text.replace(sound, broken, 1).encode())


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.booleans(), st.integers(0, 14))
@settings(max_examples=40)
def test_rules_put_to_python_answer_like_those_of_the_standard(rules, values, compressed, boundaries):
    told = ' compressionCode="CountedZeroes"' if compressed else ""
    energies = " ".join(map(str, range(boundaries)))
    inside = f"<EnergyBoundaryValues>{energies}</EnergyBoundaryValues>" if boundaries else ""
    xml = (
        f'<RadInstrumentData xmlns="http://physics.nist.gov/N42/2011/N42"><EnergyCalibration id="E">{inside}'
        '</EnergyCalibration><RadMeasurement><Spectrum energyCalibrationReference="E" '
        f'radDetectorInformationReference="E"><ChannelData{told}>{" ".join(map(str, values))}</ChannelData></Spectrum>'
        "</RadMeasurement></RadInstrumentData>"
    ).encode()
    slow = {n for n in rules.broken(xml, by_hand=False) if n in BY_HAND}
    root = etree.fromstring(xml)
    for element in root.iter():
        if "id" in element.attrib:
            element.attrib["{http://www.w3.org/XML/1998/namespace}id"] = element.attrib.pop("id")
    spectrum = root[1][0]
    fast = {"EBoundariesChannelsCheck"} if not BY_HAND["EBoundariesChannelsCheck"](spectrum) else set()
    fast |= {"CompressionCheck"} if compressed and not BY_HAND["CompressionCheck"](spectrum[0]) else set()
    if "CompressionCheck" not in slow:  # channels of a list that breaks that rule are anybody's guess
        assert fast == slow
    assert ("CompressionCheck" in fast) == ("CompressionCheck" in slow)


numbers = st.one_of(st.integers(0, 5), st.integers(0, 2**40), st.floats(0, 1e12)).map(float)
names = st.text(st.characters(codec="utf-8"), max_size=8) | st.text("ab-_. \n%1\x00\x0b", max_size=8)
NOW_NS = 1_700_000_000 * 10**9


@st.composite
def documents(draw):
    detectors = [
        d.Detector(id=f"{draw(names)}{i}", category=draw(st.sampled_from(["Gamma", "Neutron", "Odd"])),
                   kind=draw(names), description=draw(names))
        for i in range(draw(st.integers(0, 3)))
    ]  # fmt: skip
    known = [x.id for x in detectors] + ["elsewhere"]
    windows = (
        d.EnergyWindows(id="W 1", start_kev=(0, 0, 100), end_kev=(100, 3000, 400)),
        d.EnergyWindows(id="W 2", start_kev=(100, 0, 50), end_kev=(400, 100, 3000)),
        d.EnergyWindows(id="W 3", start_kev=(100, 0, 50), end_kev=(400, 100, 5)),
    )
    coefficients = st.sampled_from([(), (0, 3), (0, 3, 0.1), (0.5, 3, 0.1, 0.01), (-5, 3, 0.1, 0.01), (0, -3, 0, 0)])
    calibrations = tuple(
        d.Calibration(
            id=f"{i}th", coefficients=draw(coefficients), boundaries_kev=draw(st.sampled_from([(), (1, 2, 3)]))
        )
        for i in range(2)
    )

    def measurement(number: int) -> d.Measurement:
        gross = [
            d.GrossCounts(
                detector=draw(st.sampled_from(known)), windows=w, live_time_s=draw(st.none() | st.floats(1e-6, 1e6)),
                counts=tuple(draw(numbers) for _ in range(draw(st.sampled_from([1, 2, 3])))),
                total=draw(st.none() | numbers), remarks=(draw(names),),
            )
            for w in draw(st.lists(st.sampled_from(["", "W 1", "W 2", "W 3", "nowhere"]), max_size=4))
        ]  # fmt: skip
        spectra = [
            d.Spectrum.of(
                draw(st.sampled_from([*known, ""])), np.array(channels, np.float64),
                calibrations=tuple(draw(st.lists(st.sampled_from(["0th", "1th", "nowhere"]), max_size=2))),
            )
            for channels in draw(st.lists(st.lists(numbers, min_size=1, max_size=8), max_size=3))
        ]  # fmt: skip
        fault = d.Fault(code=draw(names), description=draw(names), severity=draw(names), source=draw(names))
        return d.Measurement(
            id=f"{draw(names)}{number}", class_code=draw(st.sampled_from(["Foreground", "Background"])),
            start_utc_ns=draw(st.none() | st.integers(0, NOW_NS)),
            real_time_s=draw(st.none() | st.just(0.0) | st.floats(1e-6, 1e6)),
            gross=tuple(gross), spectra=tuple(spectra), occupied=draw(st.none() | st.booleans()),
            speed=draw(st.none() | st.floats(0, 100)), faults=(fault,), groups=tuple(draw(st.lists(names, max_size=2))),
            speed_unit=draw(st.sampled_from(["", "mph", "km/h", "knots"])), remarks=(draw(names),),
        )  # fmt: skip

    analysis = d.Analysis(
        of=draw(st.sampled_from(["group", "measurement", "derived"])),
        references=tuple(draw(st.lists(names, max_size=2))),
        alarms=(d.Alarm(category=draw(names), description=draw(names), detectors=(draw(names),)),),
        nuclides=(
            d.Nuclide(name=draw(names), identified=draw(st.none() | st.booleans()),
                      confidence=draw(st.none() | st.floats(-1, 200))),
        ),
    )  # fmt: skip
    count = draw(st.integers(0, 3))
    return n42.N42Document(
        instrument=d.Instrument(id=draw(names), model=draw(names), class_code=draw(names)),
        detectors=tuple(detectors), windows=windows, calibrations=calibrations,
        measurements=tuple(measurement(i) for i in range(count)), derived=(measurement(count),), groups=(draw(names),),
        items=(d.Item(id=draw(names), characteristics=(d.Characteristic(name="ContainerID", value=draw(names)),)),),
        analyses=(analysis,), uuid=draw(names), created_utc_ns=draw(st.none() | st.integers(0, NOW_NS)),
    )  # fmt: skip


@given(documents())
@settings(max_examples=100)
def test_any_document_is_written_valid_and_keeps_its_counts(schema, document):
    written = n42.write(document)
    schema.assertValid(etree.fromstring(written))
    again = n42.read(written)
    assert every_count(again) == every_count(document)
    assert not again.counts_lost
    assert [m.occupied for m in again.measurements] == [m.occupied for m in document.measurements]
    assert [m.start_utc_ns for m in again.measurements] == [m.start_utc_ns for m in document.measurements]
    assert [m.real_time_s for m in again.measurements] == [m.real_time_s or None for m in document.measurements]
    assert len(again.analyses[0].alarms) == len(again.analyses[0].nuclides) == 1
    assert again.analyses[0].nuclides[0].identified is not (document.analyses[0].nuclides[0].identified is False)


@given(documents())
@settings(max_examples=15)
def test_any_document_keeps_the_schematron_rules(rules, document):
    assert rules.broken(n42.write(document)) == []


def of_one(*, calibrations: tuple[d.Calibration, ...] = (), **changed) -> n42.N42Document:
    m = {"id": "M", "class_code": "Foreground", "start_utc_ns": 0, "real_time_s": 1.0} | changed
    return n42.N42Document(
        instrument=d.Instrument(manufacturer="M"), detectors=(d.Detector(id="G", category="Gamma"),),
        calibrations=calibrations, measurements=(d.Measurement(**m),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("coefficients", "boundaries"),
    [((1.0, 2.0, 0.0, 1.0), (1.0, 4.0, 13.0)), ((-1.0, 2.0, 0.0, 1.0), ()), ((5.0, -2.0, 0.0, 0.1), ())],
)
def test_more_than_three_coefficients_become_the_boundaries_they_mean(coefficients, boundaries):
    spectrum = d.Spectrum.of("G", np.array([1.0, 2.0]), calibrations=("C",))
    document = of_one(spectra=(spectrum,), calibrations=(d.Calibration(id="C", coefficients=coefficients),))
    written = n42.write(document)
    (found,) = n42.read(written).calibrations
    assert found.boundaries_kev == boundaries
    assert found.coefficients == (() if boundaries else coefficients[:3])
    if not boundaries:
        assert b"<Remark>further coefficients: " in written


def test_what_the_standard_requires_and_nobody_knows_is_marked():
    spectrum = d.Spectrum.of("G", np.array([1.0, 2.0]))
    document = of_one(start_utc_ns=None, real_time_s=None, spectra=(spectrum,))
    written = n42.write(document)
    for remark in (d.UNKNOWN_START, d.UNKNOWN_REAL_TIME, d.UNKNOWN_LIVE_TIME, d.NO_CALIBRATION):
        assert f"<Remark>{remark}</Remark>".encode() in written
    (m,) = n42.read(written).measurements
    assert (m.start_utc_ns, m.real_time_s, m.spectra[0].live_time_s, m.remarks) == (None, None, None, ())


def test_a_damaged_source_is_incomplete_in_what_is_written_of_it():
    problem = n42.Problem(line=7, where="Spectrum", text="cut off", counts_lost=True)
    document = msgspec.structs.replace(of_one(), problems=(problem,))
    written = n42.write(document)
    assert b"<Remark>INCOMPLETE: line 7, Spectrum: cut off</Remark>" in written
    assert n42.read(written).counts_lost


@pytest.mark.parametrize(
    ("speed", "unit", "written", "told"),
    [(10.0, "mph", 4.4704, "m/s"), (3.6, "km/h", 1.0, "m/s"), (5.0, "", 5.0, ""), (5.0, "knots", 5.0, "knots")],
)
def test_a_speed_is_written_in_the_standards_unit_where_its_own_is_known(speed, unit, written, told):
    (m,) = n42.read(n42.write(of_one(speed=speed, speed_unit=unit, occupied=True))).measurements
    assert (m.speed, m.speed_unit) == (pytest.approx(written), told)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "PT0.1S"), (300.0, "PT300.0S"), (1e-7, "PT0.0000001S"), (1e20, "PT100000000000000000000S")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_instants():
    assert instant(0) == "1970-01-01T00:00:00Z"
    assert instant(1_069_569_900_100_000_000) == "2003-11-23T06:45:00.1Z"
    assert instant(1) == "1970-01-01T00:00:00.000000001Z"
    with pytest.raises(DataError, match="is no instant that can be written"):
        instant(10**30)


def test_texts_cannot_break_out_of_their_elements():
    evil = "</Remark><CountData>9</CountData>&\"'<!-- ]]> \x00\ud800"
    document = msgspec.structs.replace(of_one(), remarks=(evil,))
    again = n42.read(n42.write(document))
    assert every_count(again) == []
    assert again.remarks == (re.sub("[\x00\ud800]", "\ufffd", evil),)


def test_what_is_no_number_is_not_written():
    with pytest.raises(DataError, match="nan cannot be written, expected a finite number"):
        n42.write(of_one(gross=(d.GrossCounts(detector="G", counts=(math.nan,)),)))
    with pytest.raises(DataError, match="inf s cannot be written as a duration"):
        n42.write(of_one(real_time_s=math.inf))


@pytest.mark.parametrize(
    ("name", "written"),
    [("RPMs  R Us", "RPMs R Us"), ("A-1 portal", "A-1 portal"), ("A-1 (portal)", "A-1_(portal)"), (" ", "unknown"),
     ("a_b c_d", "a_b_c_d")],
)  # fmt: skip
def test_names_have_their_punctuation_in_one_word(schema, name, written):
    document = msgspec.structs.replace(of_one(), instrument=d.Instrument(manufacturer=name))
    xml = n42.write(document)
    schema.assertValid(etree.fromstring(xml))
    assert n42.read(xml).instrument.manufacturer == written


def test_numbers_are_written_to_the_last_digit():
    values = (0.1, 1 / 3, 5e-324, 1e15, 123456789.0, math.pi * 1e300)
    document = of_one(spectra=(d.Spectrum.of("G", np.array(values)),))
    (m,) = n42.read(n42.write(document)).measurements
    assert tuple(m.spectra[0].counts().tolist()) == values
