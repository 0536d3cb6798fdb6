"""Images full of structure, at the size of the benchmark's phantom: what a lane really sees, not a test card."""

from pathlib import Path

import cv2
import numpy as np

from scanner_io import driver
from scanner_io.formats.raster import read_raster
from scanner_io.model import EndOfSource, LineBlock, ScanStart
from triage.analysis.correction import calibrate
from triage.analysis.screening import Calibration

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "cargo" / "truck_05.jpg"
STEP = 200
"""Counts per grey level of a real 8-bit scan: between two levels lie 200 interpolated ones."""


def scenes(channels, columns):
    """Return name -> (counts, calibration), or a text that says why the scene is not there. Two energies each."""
    return {"real": _real(channels, columns), "simulated": _simulated(channels, columns)}


def _real(channels, columns):
    if not REAL.is_file():
        return f"no {REAL.name}: the folder of real scans is not beside the checkout"
    small = read_raster(REAL).counts[0]
    image = cv2.resize(small * np.uint16(STEP), (channels, columns), interpolation=cv2.INTER_LINEAR)
    calibration = Calibration(
        dark=(np.zeros(channels, np.float32),) * 2,
        inv_gain=(np.full(channels, 1 / (255 * STEP), np.float32),) * 2,
        bad_channels=np.zeros(channels, np.bool_),
    )
    return (image, image.copy()), calibration


def _simulated(channels, columns):
    """A mixed load, simulated at up to 1200 columns and repeated sideways to the width."""
    module = driver.load("simulated")
    width = min(columns, 1200)
    source = module.connect(
        module.Config(seed=2, vehicles=1, speed=0, columns=width, channels=channels, cargo={"mixed": 1.0})
    )
    source.open()
    blocks, detector = [], None
    while not isinstance(event := source.read(1.0), EndOfSource):
        if isinstance(event, ScanStart):
            detector = event.detector
        elif isinstance(event, LineBlock):
            blocks.append(event.counts)
    source.close()
    once = [np.concatenate([b[e] for b in blocks]) for e in range(2)]
    times = -(-columns // len(once[0]))
    return tuple(np.ascontiguousarray(np.tile(c, (times, 1))[:columns]) for c in once), calibrate(detector).calibration
