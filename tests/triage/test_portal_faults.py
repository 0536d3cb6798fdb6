"""Endurance of the portal's way in: a thousand vehicles with faults, each exactly once."""

import msgspec
import pytest

from scanner_io.errors import ConfigError
from triage.analysis.pipeline import Profile, run
from triage.study.portal_faults import count_occupancies, judged

CALM = {"source_share": 0.0, "norm_share": 0.0, "neutron_share": 0.0, "patient_share": 0.0}


@pytest.mark.timeout(300)
def test_no_occupancy_is_missed_merged_or_doubled():
    counted = count_occupancies(1000, seed=1)
    assert list(judged(counted)) == [], counted.examples
    assert counted.incomplete == {}, counted.examples
    assert counted.inseparable == counted.inseparable_told <= 2, "a vehicle in the other's record, which says so"
    assert counted.in_parts > 15 and counted.parted > 1 and counted.unseen > 10, "the faults did strike"
    assert sum(counted.faults_played.values()) > 500 and len(counted.faults_played) == 24
    assert counted.scans >= 1000 - counted.unseen - counted.inseparable
    assert counted.rss_growth_mb < 10
    assert counted.simulated and msgspec.json.encode(counted)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["link_cut", "silence", "stall", "missing_gx", "power_cycle", "joined"])
def test_what_a_fault_has_cut_never_reads_as_clear(kind):
    """One kind at a time, so that nothing else flags the scan; judged as beside a lane."""
    scans = []
    counted = count_occupancies(120, seed=2, fault_share=1.0, faults=[kind], assembled=scans.append, **CALM)
    assert list(judged(counted)) == [] and counted.incomplete == {}, counted.examples
    assert sum(counted.faults_played.values()) > 100
    for one in scans:
        record = one.scan.portal
        if record.truncated or record.faults or one.scan.quality:
            assert run(one.scan, Profile()).outcome != "CLEAR"


@pytest.mark.parametrize(
    ("kind", "fault", "least", "most"),
    [
        ("lost_line", "lines_lost", 100, 150),
        ("repeated_line", "line_repeated", 100, 150),
        ("one_segment", "lines_lost", 0, 0),
        ("slow", "lines_lost", 0, 0),
    ],
)
def test_one_lost_line_is_noticed_and_late_ones_are_not_taken_for_lost(kind, fault, least, most):
    """A lost or repeated speed line is not noticed, nor each lost neutron line."""
    scans = []
    count_occupancies(150, seed=2, fault_share=1.0, faults=[kind], assembled=scans.append, **CALM)
    assert least <= sum(fault in s.scan.portal.faults for s in scans) <= most


def test_without_faults_every_vehicle_is_one_complete_record():
    scans = []
    counted = count_occupancies(120, seed=3, fault_share=0.0, assembled=scans.append)
    assert list(judged(counted)) == [] and counted.in_parts == counted.unseen == counted.inseparable == 0
    assert [s.scan.portal.number for s in scans] == list(range(1, 121))
    assert all(s.scan.portal.end_reason == "complete" and not s.scan.portal.faults for s in scans)


def test_the_same_seed_counts_the_same():
    def kept(counted):
        return msgspec.structs.replace(counted, cpu_s=0.0, rss_mb=0.0, rss_growth_mb=0.0)

    assert kept(count_occupancies(40, seed=5)) == kept(count_occupancies(40, seed=5))


def test_settings_the_simulator_does_not_know_are_refused():
    with pytest.raises(ConfigError, match=r"passage: unknown key.*passes"):
        count_occupancies(10, passage=2)
