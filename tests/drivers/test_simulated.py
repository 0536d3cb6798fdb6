import time

import numpy as np
import pytest

from drivers.simulated import Config, advance, cargo_message, connect
from drivers.simulated.plan import plan
from scanner_io.formats.cargo import declarations
from scanner_io.model import DeclarationSeen, EndOfSource, LineBlock, Occupancy, ScanEnd, ScanStart
from tests.contract import DriverContract, Rig
from triage.analysis.portal_health import PortalHealth

SMALL = {"columns": 300, "channels": 128, "speed": 0.0}


class SimulatedRig(Rig):
    driver = "simulated"
    expects = (ScanStart, LineBlock, ScanEnd, Occupancy, DeclarationSeen)
    silent = False
    finite = True
    simulated = True

    @property
    def config(self):
        return Config(vehicles=2, **SMALL)


class TestSimulated(DriverContract):
    driver = "simulated"

    @pytest.fixture
    def rig(self):
        return SimulatedRig()


def events(**changes):
    source = connect(Config(**{**SMALL, "vehicles": 2, **changes}))
    assert source.open().simulated
    got = []
    while not got or not isinstance(got[-1], EndOfSource):
        event = source.read(1.0)
        if event is not None:
            got.append(event)
    source.close()
    return got


def counts(got):
    """Return the high-energy image of every vehicle."""
    images, blocks = [], []
    for event in got:
        if isinstance(event, LineBlock):
            blocks.append(event.counts[-1])
        elif isinstance(event, ScanEnd):
            images.append(np.concatenate(blocks))
            blocks = []
    return images


def records(got):
    return [e.record for e in got if isinstance(e, Occupancy) and e.phase == "left"]


def test_the_same_seed_gives_the_same_vehicles_however_many_follow():
    two, three, other = counts(events()), counts(events(vehicles=3)), counts(events(seed=2))
    for a, b in zip(two, three, strict=False):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(two[0], other[0])


def test_each_vehicle_is_one_occupancy_and_alarms_come_from_sources():
    quiet = records(events(vehicles=4, source_share=0.0, norm_share=0.0, neutron_share=0.0))
    assert len(quiet) == 4
    assert not any(r.gamma_alarm.any() or r.neutron_alarm.any() for r in quiet)
    assert all(r.raw_lines and r.end_reason == "complete" for r in quiet)
    hot = records(events(vehicles=4, source_share=1.0, norm_share=0.0, neutron_share=0.0))
    assert any(r.gamma_alarm.any() for r in hot)


@pytest.mark.parametrize("live", [False, True])
def test_its_portal_counts_on_from_vehicle_to_vehicle(live):
    """A new boot epoch for each would tell a restart at each."""
    health = PortalHealth()
    told = []
    records = []
    for event in events(vehicles=3, radiograph=False, live=live):
        told += [h.component for h in health.take(event)]
        records += [event.record] if isinstance(event, Occupancy) and event.record is not None else []
    assert [r.number for r in records] == [1, 2, 3] and len({r.boot_epoch for r in records}) == 1
    assert all(r.settings is not None and r.settings.simulated for r in records) and "restart" not in told


def test_declarations_name_valid_container_numbers_and_are_simulated():
    declared = [e.declaration for e in events(vehicles=4) if isinstance(e, DeclarationSeen)]
    assert len(declared) == 4
    values = {c: v for v, c in zip([n for n in range(10, 39) if n % 11], "ABCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False)}
    for declaration in declared:
        assert declaration.simulated
        (number,) = declaration.container_numbers
        total = sum((values[c] if c.isalpha() else int(c)) << i for i, c in enumerate(number[:10]))
        assert total % 11 % 10 == int(number[10]), number


def read_by_cameras(made, index):
    return [event.text for _, event in advance.cameras(made, plan(made, index), 0)]


def test_messages_in_advance_say_what_the_papers_say_and_cameras_read_nearly_that():
    made = Config(seed=4, carriers={"semi_trailer": 1, "two_twenties": 1}, misread_share=0.5)
    several = 0
    for index in range(20):
        papers = plan(made, index).declaration
        declared = declarations(cargo_message(made, index))
        assert set(declared) == set(papers.container_numbers)
        assert sum(d.gross_weight_kg for d in declared.values()) == pytest.approx(papers.gross_weight_kg)
        assert all(d.hs_codes == papers.hs_codes and d.tare_weight_kg > 0 for d in declared.values())
        several += len(declared) > 1
    assert several
    read = [read_by_cameras(made, index) for index in range(20)]
    wrong = [set(r[:-1]) != set(plan(made, i).declaration.container_numbers) for i, r in enumerate(read)]
    assert 3 < sum(wrong) < 18 and read == [read_by_cameras(made, index) for index in range(20)]


def test_the_first_vehicle_can_be_awaited():
    source = connect(Config(speed=0, delay_s=0.3, vehicles=1, radiograph=False))
    began_s = time.monotonic()
    source.open()
    while source.read(0.05) is None:
        pass
    assert time.monotonic() - began_s >= 0.3
    source.close()
