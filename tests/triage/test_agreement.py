"""Regions of real scans and of simulated cargo against float64, region by region.

A score is kept in steps of 1/16, so a pixel whose score lies within 1/8 of the threshold may fall on the other side of
it, and then a region ends elsewhere: no tolerance on whole regions could be honest. So the comparison has two parts.
Masks may differ only in pixels that near the threshold. And on the very pixels that were found, every feature is
computed again from the float64 images: area, box, centroid and place must be equal, the sum of L within 0.001 per pixel
(half a step of its 1/512), the largest score within 1/8, the material histogram in all but 1 % of the pixels.
"""

import numpy as np
import pytest

from drivers.simulated import Config, connect
from scanner_io.formats.raster import read_raster
from scanner_io.model import EndOfSource, LineBlock, ScanStart
from tests import reference
from triage.analysis.correction import calibrate
from triage.analysis.screening import screen
from triage.study.agreement import on_the_same_pixels
from triage.study.bench import material_table

REAL = ("container_0202_0.jpg", "container_5201_1.jpg", "truck_05.jpg", "truck_12.jpg", "stamp1.jpg")
THRESHOLD = 2.5


def agrees(counts, calibration):
    """Assert what the module says; return the number of regions."""
    table = material_table()
    ours = screen(counts, calibration, threshold_z=THRESHOLD, material_table=table)
    told = on_the_same_pixels(ours, reference.screen(counts, calibration, table, threshold_z=THRESHOLD), THRESHOLD)
    assert told["ok"], told
    return told["regions"]


@pytest.mark.parametrize("name", REAL)
def test_real_scans(shared_data, name):
    image = read_raster(shared_data / "cargo" / name)
    assert agrees(image.counts, calibrate(image.detector).calibration) >= 10


@pytest.mark.parametrize("seed", [3, 4])
def test_simulated_cargo(seed):
    source = connect(Config(seed=seed, vehicles=1, speed=0, columns=700, channels=300))
    source.open()
    blocks, detector = [], None
    while not isinstance(event := source.read(1.0), EndOfSource):
        if isinstance(event, ScanStart):
            detector = event.detector
        elif isinstance(event, LineBlock):
            blocks.append(event.counts)
    source.close()
    counts = tuple(np.concatenate([b[e] for b in blocks]) for e in range(len(detector.energies)))
    assert len(counts) == 2
    assert agrees(counts, calibrate(detector).calibration) >= 10
