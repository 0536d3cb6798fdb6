"""The straightened container of an earlier scan: what a later scan of the same container is held against."""

from __future__ import annotations

import numpy as np

from scanner_io.model import Radiograph

from .cargo_grid import ONE, CargoGrid, TransmissionImage
from .container import find_containers
from .correction import correct
from .image_profile import ImageProfile
from .screening import screen


def earlier_cargo(radiograph: Radiograph | None, p: ImageProfile) -> CargoGrid | None:
    """Return the container in an earlier radiograph; None where there is not one, or it cannot be seen."""
    correction = None if radiograph is None else correct(radiograph, p.correction)
    if radiograph is None or correction is None or correction.calibration is None:
        return None
    screening = screen(radiograph.counts, correction.calibration, threshold_z=p.threshold_z)
    transmission = TransmissionImage(screening.q[-1])
    small = transmission.reduced(min(1.0, p.container.working_rows / radiograph.detector.channels), least=32)
    small = small.astype(np.float32) / np.float32(ONE)
    upright = np.ascontiguousarray(small.T[::-1] if radiograph.detector.first_channel == "bottom" else small.T)
    frames = find_containers(upright, p.container)
    if len(frames) != 1:
        return None
    frame = frames[0].scaled(radiograph.columns / small.shape[0], radiograph.detector.channels / small.shape[1])
    return CargoGrid(radiograph, transmission, frame, correction, screening, p)
