"""Scans as DICOS objects: what stands in them, what is checked before they are written, who else can read them."""

import importlib.util
import io

import msgspec
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from scanner_io.errors import DataError
from scanner_io.formats import dicos
from scanner_io.model import Box, Declaration, DeviceInfo, Finding, Scan, TriageResult
from tests.samples import SCAN_ID, START_NS, radiograph

BOX = Box(first_column=3, end_column=9, first_channel=5, end_channel=12)
FINDING = Finding(
    kind="dense_object", score=5.0, reason="a compact thing, 30 mm", tier="review", p_value=0.01, where=BOX
)


def scan(energies=("4MV", "6MV"), *, simulated=False, **changes):
    device = DeviceInfo(vendor="Acme", model="Gate", serial="7", kinds=("radiograph",), simulated=simulated)
    values = {
        "scan_id": SCAN_ID, "lane": "north", "start_utc_ns": START_NS, "end_utc_ns": START_NS + 10**9,
        "expected": ("radiograph",), "radiograph": radiograph(60, 40, energies), "devices": (device,),
        "declaration": Declaration(container_numbers=("CSQU3054383", "BMOU1387370")),
    }  # fmt: skip
    return Scan(**(values | changes))


def result(outcome="REVIEW", findings=(FINDING,)):
    return TriageResult(
        scan_id=SCAN_ID, outcome=outcome, reasons=("because",), load="loaded", container=None, findings=findings,
        quality=(), gamma_alarm=None, neutron_alarm=None, gamma_intervals=0, alarm_intervals=0, profile="p1",
        code_version="0.1", timings_ms={"a": 5.0, "b": 2.0},
    )  # fmt: skip


def read(o):
    return pydicom.dcmread(io.BytesIO(dicos.encode(o.dataset)))


def test_every_energy_is_an_image_with_the_counts_as_they_are():
    s = scan()
    low, high = (read(o) for o in dicos.objects_of(s, None))
    for dataset, energy, kvp in ((low, 0, 4000), (high, 1, 6000)):
        assert dataset.SOPClassUID == dicos.DX and dataset.Modality == "XRAY"
        assert np.array_equal(dataset.pixel_array, s.radiograph.upright(energy))
        assert (dataset.KVP, dataset.OOIType, dataset.DICOSVersion) == (kvp, "CARGO", "V03")
        assert (dataset.PatientID, dataset.OtherPatientIDs) == ("CSQU3054383", "BMOU1387370")
        assert list(dataset.ImagerPixelSpacing) == [5.0, 4.0]
        assert (dataset.ScanType, dataset.AcquisitionStatus) == ("OPERATIONAL", "SUCCESSFUL")
        assert dataset.file_meta[Tag(0x00020004)].value == "V03"
    assert low.SeriesInstanceUID == high.SeriesInstanceUID and low.SOPInstanceUID != high.SOPInstanceUID
    assert [o.dataset.SOPInstanceUID for o in dicos.objects_of(s, None)] == [low.SOPInstanceUID, high.SOPInstanceUID]


def test_a_finding_is_an_object_with_its_place_in_every_image():
    s = scan()
    *images, report = [read(o) for o in dicos.objects_of(s, result())]
    assert (report.AlarmDecision, report.AbortFlag, report.TDRType) == ("UNKNOWN", "SUCCESS", "MACHINE")
    assert (report.NumberOfTotalObjects, report.NumberOfAlarmObjects, report.TotalProcessingTime) == (1, 0, 7.0)
    assert list(report.ThreatDetectionAlgorithmAndVersion) == ["scanlane", "0.1", "p1"]
    (threat,) = report.ThreatSequence
    shown = threat.PTORepresentationSequence
    assert [r.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID for r in shown] == [
        i.SOPInstanceUID for i in images
    ]
    place = shown[0].ThreatROIVoxelSequence[0]
    # channel 0 of the sample is the lowest: rows are counted from the top of 40
    assert list(place.ThreatROIBase) == [0, 40 - 12, 3] and list(place.ThreatROIExtents) == [1, 7, 6]
    assert place.ThreatROIBitmap == b"\xff" * 5 + b"\x03"
    judged = threat.ATDAssessmentSequence[0]
    assert (
        judged.ATDAssessmentFlag == "THREAT" and "a compact thing, 30 mm (p = 0.01)" in judged.ThreatCategoryDescription
    )
    assert "ATDAssessmentProbability" not in judged


TREE_OF_A_REPORT = {
    # level, element: a file of the independent toolkit has them, with these value representations
    (0, 0x00080060, "CS"), (0, 0x00081110, "SQ"), (1, 0x00081150, "UI"), (1, 0x00081155, "UI"),
    (0, 0x40101024, "CS"), (0, 0x40101027, "CS"), (0, 0x40101029, "LO"), (0, 0x4010102B, "DT"),
    (0, 0x40101031, "CS"), (0, 0x40101033, "US"), (0, 0x40101034, "US"), (0, 0x40101069, "FL"),
    (0, 0x4010106D, "CS"), (0, 0x40101011, "SQ"),
    (1, 0x40101010, "US"), (1, 0x40101037, "SQ"), (1, 0x40101038, "SQ"),
    (1, 0x40101080, "DT"), (1, 0x40101081, "DT"), (1, 0x40101082, "FL"),
    (2, 0x0008114A, "SQ"), (2, 0x40101001, "SQ"), (3, 0x00081150, "UI"), (3, 0x00081155, "UI"),
    (3, 0x40101004, "FL"), (3, 0x40101005, "FL"), (3, 0x40101006, "OB"),
    (2, 0x40101012, "CS"), (2, 0x40101013, "LT"), (2, 0x40101014, "CS"), (2, 0x40101015, "CS"),
}  # fmt: skip
IMAGE_HAS = {
    0x40101042: "CARGO", 0x00080060: "XRAY", 0x00080068: "FOR PROCESSING", 0x00080008: ["ORIGINAL", "INTENSITY"],
    0x00100022: "TEXT", 0x40101044: "SUCCESSFUL", 0x40101048: "OPERATIONAL", 0x4010103A: "V03", 0x40101062: 0.0,
    0x00200032: [0, 0, 1], 0x00200037: [1, 0, 0, 0, 1, 0], 0x00281040: "LIN", 0x00281041: 1, 0x00280100: 16,
    0x00280101: 16, 0x00280102: 15, 0x00280103: 0, 0x00280004: "MONOCHROME2", 0x00281052: 0, 0x00281053: 1,
    0x20500020: "IDENTITY", 0x00100020: "CSQU3054383", 0x00180060: 6000,
}  # fmt: skip


def elements(dataset, level=0):
    for element in dataset:
        yield level, int(element.tag), element.VR
        for item in element.value if element.VR == "SQ" else ():
            yield from elements(item, level + 1)


def test_the_tag_tree_is_that_of_the_standard_s_toolkit():
    """By numbers and value representations, so that a wrong name in a dictionary cannot hide."""
    *images, report = [read(o) for o in dicos.objects_of(scan(), result())]
    assert TREE_OF_A_REPORT - set(elements(report)) == set()
    for number, value in IMAGE_HAS.items():
        assert images[-1][number].value == value, hex(number)
    for number in (0x00188151, 0x00100021, 0x00080080, 0x00081010, 0x00080070, 0x00081090, 0x00181000, 0x00181020):
        assert images[-1][number].value not in (None, ""), hex(number)
    assert images[-1][0x00181200].value and images[-1][0x00181201].value  # last calibration
    assert images[-1]["PixelData"].VR == "OW" and not images[-1].file_meta.TransferSyntaxUID.is_compressed


@pytest.mark.parametrize(("outcome", "decision", "abort"), [
    ("ALARM", "ALARM", "SUCCESS"), ("REVIEW", "UNKNOWN", "SUCCESS"), ("CLEAR", "CLEAR", "SUCCESS"),
    ("UNUSABLE", "UNKNOWN", "ABORTED"),
])  # fmt: skip
def test_only_clear_reads_as_clear(outcome, decision, abort):
    report = dicos.objects_of(scan(), result(outcome, ()))[-1].dataset
    assert (report.AlarmDecision, report.AbortFlag) == (decision, abort)


def test_an_alarm_of_the_portal_is_an_object_that_covers_the_image():
    report = dicos.objects_of(scan(), result("ALARM", ()))[-1].dataset
    (threat,) = report.ThreatSequence
    assert report.NumberOfAlarmObjects == 1
    assert list(threat.PTORepresentationSequence[0].ThreatROIVoxelSequence[0].ThreatROIExtents) == [1, 40, 60]
    assert "not known" in threat.ATDAssessmentSequence[0].ThreatCategoryDescription


def test_notes_of_the_machine_are_no_objects():
    note = msgspec.structs.replace(FINDING, tier="note")
    assert dicos.objects_of(scan(), result("CLEAR", (note,)))[-1].dataset.NumberOfTotalObjects == 0


def test_a_simulated_scan_says_so():
    dataset = dicos.objects_of(scan(simulated=True), None)[0].dataset
    assert dataset.ScanType == "NON_OPERATIONAL" and "SIMULATED" in dataset.ImageComments
    assert dataset[Tag(0x00080118)].value == "SYNTHETIC"


def test_an_incomplete_image_is_no_success():
    broken = msgspec.structs.replace(scan().radiograph, end_reason="link_lost")
    assert dicos.objects_of(scan(radiograph=broken), None)[0].dataset.AcquisitionStatus == "ABNORMAL"


@pytest.mark.parametrize(("name", "kilovolt"), [
    ("6MV", 6000), ("4.5 MV", 4500), ("160kV", 160), ("Co60", None), ("low", None), ("x", None), ("high_9mv", 9000),
])  # fmt: skip
def test_voltage_by_name(name, kilovolt):
    assert dicos.kilovolts(name) == kilovolt


def test_what_cannot_be_exported_is_refused_with_the_remedy():
    with pytest.raises(DataError, match="give it in kilovolts"):
        dicos.objects_of(scan(("low", "high")), None)
    with pytest.raises(DataError, match="no radiograph"):
        dicos.objects_of(scan(radiograph=None), None)
    assert dicos.objects_of(scan(("grey",)), None, kvp=6000)[0].dataset.KVP == 6000


@pytest.mark.parametrize(("change", "words"), [
    (lambda d: d.__delattr__("KVP"), "KVP is missing"),
    (lambda d: d.__setattr__("OOIType", "LORRY"), "OOIType is 'LORRY'"),
    (lambda d: d.__setattr__("PixelData", b"\0\0"), "PixelData has 2 bytes"),
    (lambda d: d.__setattr__("HighBit", 11), "bits allocated"),
    (lambda d: d.__setattr__("SOPClassUID", "1.2.3"), "neither DX"),
])  # fmt: skip
def test_the_validator_finds_what_is_wrong_with_an_image(change, words):
    dataset = dicos.objects_of(scan(), None)[0].dataset
    assert dicos.problems_of(dataset) == []
    change(dataset)
    assert any(words in problem for problem in dicos.problems_of(dataset))


@pytest.mark.parametrize(("change", "words"), [
    (lambda d: d.__setattr__("NumberOfTotalObjects", 3), "NumberOfTotalObjects is 3"),
    (lambda d: d.__setattr__("AbortFlag", "ABORTED"), "aborted"),
    (lambda d: d.__setattr__("AlarmDecision", "ALARM"), "without any object"),
    (lambda d: d.__setattr__("AlarmDecision", "MAYBE"), "AlarmDecision is 'MAYBE'"),
    (lambda d: d.__delattr__("AlarmDecisionTime"), "AlarmDecisionTime is missing"),
])  # fmt: skip
def test_the_validator_finds_what_is_wrong_with_a_report(change, words):
    dataset = dicos.objects_of(scan(), result("CLEAR", ()))[-1].dataset
    change(dataset)
    assert any(words in problem for problem in dicos.problems_of(dataset))


def test_the_validator_finds_what_is_wrong_with_an_object():
    dataset = dicos.objects_of(scan(), result())[-1].dataset
    threat = dataset.ThreatSequence[0]
    threat.PTORepresentationSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    threat.PTORepresentationSequence[1] = Dataset()
    threat.ATDAssessmentSequence = []
    del threat[Tag(0x40101080)]
    told = "; ".join(
        dicos.problems_of(dataset, known={str(dataset.ReferencedStudySequence[1].ReferencedSOPInstanceUID)})
    )
    for words in ("leads to 1.2.3", "no start or end", "no assessment"):
        assert words in told


@pytest.mark.skipif(
    importlib.util.find_spec("pydicos") is None, reason="the independent toolkit pydicos is not installed"
)
def test_an_independent_toolkit_reads_them(tmp_path):
    from pyDICOS import Array1DS_UINT16
    from pydicos._loaders import DXLoader, TDRLoader

    s = scan()
    *images, report = dicos.objects_of(s, result("ALARM", (msgspec.structs.replace(FINDING, tier="alarm"),)))
    for energy, image in enumerate(images):
        (tmp_path / image.name).write_bytes(dicos.encode(image.dataset))
        assert np.array_equal(DXLoader(tmp_path / image.name).get_data(), s.radiograph.upright(energy))
    (tmp_path / report.name).write_bytes(dicos.encode(report.dataset))
    told, numbers = TDRLoader(tmp_path / report.name), Array1DS_UINT16()
    told.GetPTOIds(numbers)
    assert numbers.GetSize() == 1 and told.GetAlarmDecision().name == "enumAlarm"
    assert told.GetOOIID().Get() == "CSQU3054383"
    assert "a compact thing" in told.GetPTOAssessmentDescription(numbers[0], 0).Get()
