"""Two vehicles under one number, and two vehicles with one picture."""

import msgspec
import numpy as np
import pytest

from scanner_io import recording
from tests import samples
from triage.service.lane import recording_path
from triage.service.told_apart import REMEMBERED, ToldApart


@pytest.fixture
def scan():
    return samples.scan()


def other(scan, seed=1):
    """Return the same passage with other counts."""
    image = scan.radiograph
    counts = tuple(np.random.default_rng(seed).integers(1, 60_000, c.shape, np.uint16) for c in image.counts)
    return msgspec.structs.replace(scan, radiograph=msgspec.structs.replace(image, counts=counts))


def codes(scan):
    return [q.code for q in scan.quality]


def test_a_passage_alone_stays_what_it_is(scan, tmp_path):
    assert ToldApart().flagged(scan, tmp_path / "none") is scan


def test_the_same_passage_again_is_the_same(scan, tmp_path):
    path = recording_path(tmp_path, scan)
    path.parent.mkdir(parents=True)
    recording.write(path, scan)
    apart = ToldApart()
    assert apart.flagged(scan, path) is scan
    assert apart.flagged(scan, path) is scan


def test_another_passage_under_a_number_that_was_given_is_kept_beside_it(scan, tmp_path):
    path = recording_path(tmp_path, scan)
    path.parent.mkdir(parents=True)
    recording.write(path, scan)
    apart = ToldApart()
    second = apart.flagged(other(scan), path)
    assert codes(second)[-1] == "number_given_before"
    assert second.scan_id != scan.scan_id
    assert second.scan_id.rpartition("-")[0] == scan.scan_id.rpartition("-")[0]
    assert apart.flagged(other(scan), path).scan_id == second.scan_id, "asked again after the disk refused"
    assert apart.flagged(other(scan, 2), path).scan_id not in (scan.scan_id, second.scan_id)


def test_the_image_of_an_earlier_vehicle_is_told(scan, tmp_path):
    apart = ToldApart()
    apart.flagged(scan, tmp_path / "none")
    later = msgspec.structs.replace(scan, scan_id=scan.scan_id[:-8] + "0badcafe")
    assert codes(apart.flagged(later, tmp_path / "none"))[-1] == "image_given_before"
    assert scan.scan_id in apart.flagged(later, tmp_path / "none").quality[-1].reason


def test_it_remembers_a_bounded_number_of_images(scan, tmp_path):
    apart = ToldApart()
    for n in range(REMEMBERED + 5):
        apart.flagged(msgspec.structs.replace(other(scan, n), scan_id=f"{scan.scan_id[:-8]}{n:08x}"), tmp_path / "none")
    again = msgspec.structs.replace(other(scan, 0), scan_id=scan.scan_id)
    assert "image_given_before" not in codes(apart.flagged(again, tmp_path / "none")), "long ago"
