"""What wedges of known materials would let through in a simulated lane: its energy calibration.

It is made with the simulator's own beam and detector and tells neither: whoever uses it has to find the beam from the
wedges, as at a real scanner.
"""

from __future__ import annotations

import numpy as np

from scanner_io.energy_calibration import Beam, EnergyCalibration, Point, Zone

from .attenuation import attenuation, split
from .config import Config
from .radiograph import ELECTRONIC_NOISE, FULL_SCALE, Detector

MATERIALS = ("polyethylene", "aluminium", "iron", "lead")
AREAL_DENSITIES_G_CM2 = (15.0, 40.0, 80.0, 140.0)


def energy_calibration(config: Config) -> EnergyCalibration:
    """Return the energy calibration of a simulated lane with two energies. Raises ValueError for one with one."""
    detector = Detector(config)
    if len(detector.endpoints_mv) != 2:
        raise ValueError("energies: 1, expected 2: one energy has no energy calibration")
    points = []
    for material in MATERIALS:
        for grams in AREAL_DENSITIES_G_CM2:
            low, high = (float(attenuation(e, *(np.array(split(material)) * grams))) for e in detector.endpoints_mv)
            points.append(Point(material=material, areal_density_g_cm2=grams, alpha_low=low, alpha_high=high))
    low_beam, high_beam = (
        Beam(endpoint_mv=endpoint, air_sd=1 / quanta**0.5, dark_sd=ELECTRONIC_NOISE / FULL_SCALE,
             scatter_sd=config.scatter / 2)
        for endpoint, quanta in zip(detector.endpoints_mv, detector.quanta, strict=True)
    )  # fmt: skip
    return EnergyCalibration(
        low=low_beam, high=high_beam, zone=(Zone(point=tuple(points)),), simulated=True,
        note=f"SIMULATED: no wedge was measured; {config.beam} MV",
    )  # fmt: skip
