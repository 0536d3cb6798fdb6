"""What a beam becomes behind matter, fitted to a lane's own wedges: the three-scalar semiempirical transparency model.

    alpha(Z, lambda) = -ln( sum_E s(E) exp(-mu(Z, E) lambda) ),
    mu = coherent + a photoelectric + b incoherent + c pair production

The scalars a, b, c of each beam absorb what the model of free-streaming photons lacks (scatter that arrives, a spectrum
and a detector that are not known well); three wedges fix them. What images look like is not computed here and must not
be: the simulator has spectra of its own.

Source: P. Lalor and A. Danagoulian, arXiv 2302.07131 and 2307.12099 (model, calibration); H. A. Kramers, Phil. Mag. 46
(1923) 836 (thick-target bremsstrahlung, where no spectrum is told).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from scanner_io.attenuation import HIGHEST_MEV, LOWEST_MEV, partial_coefficients
from scanner_io.energy_calibration import Beam, EnergyCalibration, Point, Spectrum
from scanner_io.errors import DataError

Floats: TypeAlias = NDArray[np.float64]

FILTER_G_CM2 = 10.0
"""Steel-like matter in front of the detector of an assumed beam: target, flattening, windows."""
TARGET_G_CM2 = 3.0
"""Tungsten the photons cross on their way out of the target of an assumed beam."""
DETECTOR_G_CM2 = 20.0
"""Cadmium tungstate of an assumed detector."""
BINS = 120
SCALAR_RANGE = (0.5, 2.0)
"""Scalars outside say that wedge and name do not belong together; seen: 0.85 to 1.25."""
WORST_FIT = 0.03
"""Largest share by which a wedge may miss the fit."""
FELT = 1e-3
"""A scalar that changes no wedge's alpha by this share is left at 1: no pair production below 1.022 MV."""


class Scalars(msgspec.Struct, frozen=True, kw_only=True):
    """The fitted model of one beam. photoelectric, incoherent, pair : a, b, c; residual : largest share missed."""

    photoelectric: float
    incoherent: float
    pair: float
    residual: float = 0.0

    @property
    def factors(self) -> Floats:
        """Return the factors of coherent, incoherent, photoelectric, pair."""
        return np.array((1.0, self.incoherent, self.photoelectric, self.pair))


FREE_STREAMING = Scalars(photoelectric=1.0, incoherent=1.0, pair=1.0)


def spectrum_of(beam: Beam) -> tuple[Floats, Floats]:
    """Return photon energies in MeV `(n,)` and the share of the signal in air each brings `(n,)`, which sum to 1."""
    spectrum = beam.spectrum if beam.spectrum is not None else assumed_spectrum(beam.endpoint_mv)
    energy, signal = np.array(spectrum.energy_mev), np.array(spectrum.signal)
    inside = (energy >= LOWEST_MEV) & (energy <= HIGHEST_MEV) & (signal > 0)
    return energy[inside], signal[inside] / signal[inside].sum()


@lru_cache(maxsize=32)
def assumed_spectrum(endpoint_mv: float) -> Spectrum:
    """Return a thick-target bremsstrahlung beam as a crystal detector sees it. The fit mends what it gets wrong."""
    edges = np.linspace(LOWEST_MEV, endpoint_mv, BINS + 1)
    k = (edges[1:] + edges[:-1]) / 2
    path = partial_coefficients("W", k).sum(axis=0) * TARGET_G_CM2 + partial_coefficients("Fe", k).sum(0) * FILTER_G_CM2
    photons = (endpoint_mv - k) / k * np.exp(-path)
    stopped = 1 - np.exp(-partial_coefficients("CdWO4", k).sum(axis=0) * DETECTOR_G_CM2)
    return Spectrum(energy_mev=tuple(k.tolist()), signal=tuple((photons * k * stopped).tolist()))


def alpha(
    spectrum: tuple[Floats, Floats], scalars: Scalars, material: str | int, areal_density_g_cm2: Floats
) -> Floats:
    """Return -ln(transmission) `(m,)` behind `areal_density_g_cm2` `(m,)` of a material or atomic number."""
    energy, signal = spectrum
    mu = scalars.factors @ partial_coefficients(material, energy)
    return np.asarray(-np.log(np.exp(-np.multiply.outer(areal_density_g_cm2, mu)) @ signal))


def fit(spectrum: tuple[Floats, Floats], points: tuple[Point, ...], energy: str, where: str) -> Scalars:
    """Return the scalars that reproduce the wedges' -ln(transmission) in one beam.

    energy : `low` or `high`; where : what the points belong to, for messages

    Raises DataError where the wedges do not fix the scalars, or contradict the materials they are said to be.
    """
    measured = np.array([getattr(p, f"alpha_{energy}") for p in points])
    grams = np.array([p.areal_density_g_cm2 for p in points])
    parts = [partial_coefficients(p.material, spectrum[0]) for p in points]

    def of(scalars: Floats) -> Floats:
        factors = np.array((1.0, scalars[1], scalars[0], scalars[2]))
        return np.array(
            [-np.log(np.exp(-(factors @ mu) * g) @ spectrum[1]) for mu, g in zip(parts, grams, strict=True)]
        )

    felt = [k for k in range(3) if np.abs(of(1.0 + 0.1 * (np.arange(3) == k)) / of(np.ones(3)) - 1).max() > 0.1 * FELT]

    def missed(free: Floats) -> Floats:
        scalars = np.ones(3)
        scalars[felt] = free
        return np.asarray(of(scalars) / measured - 1)

    found = least_squares(missed, np.ones(len(felt)), x_scale=0.1, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    if np.linalg.cond(found.jac) > 1e4:
        raise DataError(f"{where}, {energy} energy: the wedges are too much alike to fix the beam; add others")
    a, b, c = (float(found.x[felt.index(k)]) if k in felt else 1.0 for k in range(3))
    share = missed(found.x)
    worst = int(np.argmax(np.abs(share)))
    named = f"{points[worst].material}, {points[worst].areal_density_g_cm2:g} g/cm2"
    low, high = SCALAR_RANGE
    if abs(share[worst]) > WORST_FIT or not all(low <= s <= high for s in (a, b, c)):
        apart = of(np.ones(3)) / measured - 1
        odd = points[int(np.argmax(np.abs(apart)))]
        raise DataError(
            f"{where}, {energy} energy: the wedges contradict their materials (scalars {a:.2f}, {b:.2f}, {c:.2f}, "
            f"expected {low} to {high}; {named} misses by {share[worst]:+.1%}). Without fit {odd.material}, "
            f"{odd.areal_density_g_cm2:g} g/cm2 is furthest off ({np.abs(apart).max():.0%}): check its material, its "
            "areal density and the dark and air references"
        )
    return Scalars(photoelectric=a, incoherent=b, pair=c, residual=float(np.abs(share).max()))


class ZoneModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The two fitted beams of one zone. spectra, scalars : low, high."""

    spectra: tuple[tuple[Floats, Floats], tuple[Floats, Floats]]
    scalars: tuple[Scalars, Scalars]

    def alphas(self, material: str | int, areal_density_g_cm2: Floats) -> tuple[Floats, Floats]:
        """Return -ln(transmission) of the low and the high beam, each `(m,)`."""
        low, high = (
            alpha(spectrum, scalars, material, areal_density_g_cm2)
            for spectrum, scalars in zip(self.spectra, self.scalars, strict=True)
        )
        return low, high


def fit_zones(calibration: EnergyCalibration) -> tuple[ZoneModel, ...]:
    """Return the fitted model of every zone. Raises DataError for wedges that cannot be believed."""
    models = []
    for number, zone in enumerate(calibration.zone):
        spectra = (spectrum_of(zone.low or calibration.low), spectrum_of(zone.high or calibration.high))
        where = f"energy calibration zone[{number}]"
        scalars = (fit(spectra[0], zone.point, "low", where), fit(spectra[1], zone.point, "high", where))
        models.append(ZoneModel(spectra=spectra, scalars=scalars))
    return tuple(models)
