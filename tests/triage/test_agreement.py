"""Regions of real scans and of simulated cargo against float64, region by region.

A score is kept in steps of 1/16, so a pixel whose score lies within 1/8 of the threshold may fall on the other side of
it, and then a region ends elsewhere: no tolerance on whole regions could be honest. So the comparison has two parts.
Masks may differ only in pixels that near the threshold. And on the very pixels that were found, every feature is
computed again from the float64 images: area, box, centroid and place must be equal, the sum of L within 0.001 per pixel
(half a step of its 1/512), the largest score within 1/8, the material histogram in all but 1 % of the pixels.
"""

import numpy as np
import pytest
from scipy import ndimage

from drivers.simulated import Config, connect
from scanner_io.formats.raster import read_raster
from scanner_io.model import EndOfSource, LineBlock, ScanStart
from tests import reference
from triage.analysis.correction import calibrate
from triage.analysis.screening import MIN_AREA, log_of_code, screen
from triage.study.bench import material_table

REAL = ("container_0202_0.jpg", "container_5201_1.jpg", "truck_05.jpg", "truck_12.jpg", "stamp1.jpg")
THRESHOLD = 2.5
NEAR = 0.125


def agrees(counts, calibration):
    """Assert what the module says; return the number of regions."""
    table = material_table()
    ours = screen(counts, calibration, threshold_z=THRESHOLD, material_table=table)
    truth = reference.screen(counts, calibration, table, threshold_z=THRESHOLD)
    for q, L in zip(ours.q, truth["L"], strict=True):
        assert np.abs(log_of_code(q) - L).max() <= 0.001
    mask = ours.z >= THRESHOLD * 16
    odd = mask != truth["mask"]
    assert np.abs(truth["z"][odd] - THRESHOLD).max(initial=0) <= NEAR
    labels, _ = reference.label(mask)
    found = []
    for i, where in enumerate(ndimage.find_objects(labels), start=1):
        c, h = np.nonzero(labels[where] == i)
        if len(c) >= MIN_AREA:
            found.append((c + where[0].start, h + where[1].start))
    found.sort(key=lambda p: (p[0].min(), p[1][p[0] == p[0].min()].min()))
    assert len(found) == len(ours.regions)
    for (c, h), region in zip(found, ours.regions, strict=True):
        assert region["area"] == len(c)
        box = tuple(int(region[name]) for name in ("col0", "col1", "ch0", "ch1"))
        assert box == (c.min(), c.max() + 1, h.min(), h.max() + 1)
        assert region["centroid_column"] == pytest.approx(c.mean(), abs=1e-9)
        assert region["centroid_channel"] == pytest.approx(h.mean(), abs=1e-9)
        assert region["sum_log"] == pytest.approx(truth["L"][-1][c, h].sum(), abs=0.001 * len(c))
        # a byte stands for a step of 1/16: its lower end may lie one step below
        assert region["max_z"] == pytest.approx(min(truth["z"][c, h].max(), 255 / 16), abs=NEAR + 1 / 32)
        histogram = np.bincount(np.minimum(truth["material"][c, h], 15), minlength=16)
        assert np.abs(region["material"] - histogram).sum() <= max(2, 0.02 * len(c))
    return len(found)


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
