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

from scanner_io.attenuation import HIGHEST_MEV, LOWEST_MEV, coefficient, partial_coefficients
from scanner_io.energy_calibration import Beam, EnergyCalibration, Point
from scanner_io.errors import DataError

Floats: TypeAlias = NDArray[np.float64]

TARGET_G_CM2 = 3.0
"""Tungsten the photons cross on their way out of the target of an assumed beam."""
FILTER_G_CM2, RESPONSE_POWER = 5.0, 1.0
"""Steel in front of the detector of an assumed beam, and the power of its energy with which a stopped photon is felt:
what a fit to many wedges begins with, and what stays where there are few."""
DETECTOR_G_CM2 = 20.0
"""Cadmium tungstate of an assumed detector."""
BINS = 100
SHAPED_POINTS, SHAPED_RANGE = 6, 3.0
"""Wedges from which on, and ratio of thickest to thinnest from which on, an assumed beam's shape is fitted as well."""
MODEL_ERROR, ASSUMED_MODEL_ERROR = 0.004, 0.02
"""Error of alpha as a share of it, rms, where the spectrum is told or fitted, and where it is only assumed. Against
Geant4's transparencies the mean error is 0.18 to 0.36 %, 0.38 to 0.44 % and 0.6 to 2.8 %."""
RATIO_ERROR = 0.004
"""Error of one beam's alpha beside the other's, which is what a class rests on: errors of the two go together. Against
Geant4 0.40, 0.22 and 0.27 % rms at 10/4, 10/6 and 6/4 MV from 20 g/cm² on."""
SCALAR_RANGE = (0.4, 2.5)
"""Scalars outside say that wedge and name do not belong together; seen: 0.89 to 1.13 where the spectrum is told, 0.59
to 1.4 where it is not."""
WORST_FIT = 0.03
"""Largest share by which a wedge may miss the fit."""
FELT = 1e-3
"""A scalar that changes no wedge's alpha by this share is left at 1: no pair production below 1.022 MV."""


class Scalars(msgspec.Struct, frozen=True, kw_only=True):
    """The fitted model of one beam. photoelectric, incoherent, pair : a, b, c; missed : share, rms of the wedges."""

    photoelectric: float
    incoherent: float
    pair: float
    missed: float = 0.0

    @property
    def factors(self) -> Floats:
        """Return the factors of coherent, incoherent, photoelectric, pair."""
        return np.array((1.0, self.incoherent, self.photoelectric, self.pair))


FREE_STREAMING = Scalars(photoelectric=1.0, incoherent=1.0, pair=1.0)


def spectrum_of(beam: Beam) -> tuple[Floats, Floats]:
    """Return photon energies in MeV `(n,)` and the share of the signal in air each brings `(n,)`, which sum to 1."""
    if beam.spectrum is None:
        return assumed_spectrum(beam.endpoint_mv, FILTER_G_CM2, RESPONSE_POWER)
    energy, signal = np.array(beam.spectrum.energy_mev), np.array(beam.spectrum.signal)
    inside = (energy >= LOWEST_MEV) & (energy <= HIGHEST_MEV) & (signal > 0)
    return energy[inside], signal[inside] / signal[inside].sum()


def assumed_spectrum(endpoint_mv: float, filter_g_cm2: float, response_power: float) -> tuple[Floats, Floats]:
    """Return a thick-target bremsstrahlung beam as a crystal detector feels it, as `spectrum_of` does."""
    k, width, target, steel, crystal = _assumed_parts(endpoint_mv)
    photons = (endpoint_mv - k) / k * width * np.exp(-target * TARGET_G_CM2 - steel * filter_g_cm2)
    signal = photons * k**response_power * (1 - np.exp(-crystal * DETECTOR_G_CM2))
    return k, signal / signal.sum()


@lru_cache(maxsize=32)
def _assumed_parts(endpoint_mv: float) -> tuple[Floats, ...]:
    edges = np.geomspace(LOWEST_MEV, endpoint_mv, BINS + 1)
    k = (edges[1:] + edges[:-1]) / 2
    return k, np.diff(edges), *(coefficient(m, k) for m in ("W", "Fe", "CdWO4"))


def alpha(
    spectrum: tuple[Floats, Floats], scalars: Scalars, material: str | int, areal_density_g_cm2: Floats
) -> Floats:
    """Return -ln(transmission) `(m,)` behind `areal_density_g_cm2` `(m,)` of a material or atomic number."""
    energy, signal = spectrum
    mu = scalars.factors @ partial_coefficients(material, energy)
    return np.asarray(-np.log(np.exp(-np.multiply.outer(areal_density_g_cm2, mu)) @ signal))


class BeamModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One beam, fitted.

    spectrum : energies in MeV and shares of the signal
    model_error : share of alpha, rms, by which other matter is missed
    assumed : the spectrum is neither told nor fitted
    missed : (points,) share by which each wedge is
    """

    spectrum: tuple[Floats, Floats]
    scalars: Scalars
    model_error: float
    assumed: bool = False
    missed: Floats = np.zeros(0)


def fit(beam: Beam, points: tuple[Point, ...], energy: str, where: str) -> BeamModel:
    """Return the model of one beam that reproduces the wedges' -ln(transmission).

    energy : `low` or `high`; where : what the points belong to, for messages

    Three scalars are fitted; of a beam whose spectrum is not told and that has many wedges also the filter and the
    response. Raises DataError where the wedges do not fix the model, or contradict the materials they are said to be.
    """
    from scipy.optimize import least_squares  # a lane without energy calibration starts without it

    wedges = _Wedges(points, energy)
    grams = [p.areal_density_g_cm2 for p in points]
    shaped = beam.spectrum is None and len(points) >= SHAPED_POINTS and max(grams) >= SHAPED_RANGE * min(grams)
    spectrum = spectrum_of(beam)
    wedges.weigh(spectrum[0])
    felt = wedges.felt(spectrum[1])

    def parts(free: Floats) -> tuple[Floats, Floats]:
        scalars = np.ones(3)
        scalars[felt] = free[: len(felt)]
        return scalars, assumed_spectrum(beam.endpoint_mv, *free[len(felt) :])[1] if shaped else spectrum[1]

    def missed(free: Floats) -> Floats:
        scalars, signal = parts(free)
        return np.asarray(wedges.alphas(scalars, signal) / wedges.measured - 1)

    n = len(felt)
    low, high = [0.2] * n + [0.0, -1.0] * shaped, [5.0] * n + [80.0, 2.0] * shaped
    start = [1.0] * n + [FILTER_G_CM2, RESPONSE_POWER] * shaped
    scale = [0.1] * n + [5.0, 0.3] * shaped
    found = least_squares(missed, start, bounds=(low, high), x_scale=scale, xtol=1e-12, ftol=1e-12, gtol=1e-12)
    if not shaped and np.linalg.cond(found.jac) > 1e4:
        raise DataError(f"{where}, {energy} energy: the wedges are too much alike to fix the beam; add others")
    scalars, signal = parts(found.x)
    unfitted = wedges.alphas(np.ones(3), spectrum[1]) / wedges.measured - 1
    _believed(scalars, missed(found.x), unfitted, points, energy, where)
    rms = float(np.sqrt(np.mean(missed(found.x) ** 2)))
    fitted = Scalars(photoelectric=scalars[0], incoherent=scalars[1], pair=scalars[2], missed=rms)
    # wedges that were fitted miss by less than matter that was not
    assumed = beam.spectrum is None and not shaped
    return BeamModel(
        spectrum=(spectrum[0], signal), scalars=fitted, assumed=assumed, missed=missed(found.x),
        model_error=max(ASSUMED_MODEL_ERROR if assumed else MODEL_ERROR, 1.5 * rms),
    )  # fmt: skip


class _Wedges:
    """The points of one zone in one beam. measured : (points,) -ln(transmission)."""

    def __init__(self, points: tuple[Point, ...], energy: str) -> None:
        self.measured = np.array([getattr(p, f"alpha_{energy}") for p in points])
        self._points = points

    def weigh(self, photon_mev: Floats) -> None:
        """Take the coefficients at these energies."""
        self._parts = np.stack(
            [partial_coefficients(p.material, photon_mev) * p.areal_density_g_cm2 for p in self._points]
        )

    def alphas(self, scalars: Floats, signal: Floats) -> Floats:
        """Return -ln(transmission) of every wedge by scalars a, b, c."""
        factors = np.array((1.0, scalars[1], scalars[0], scalars[2]))
        return np.asarray(-np.log(np.exp(-np.einsum("f,pfe->pe", factors, self._parts)) @ signal))

    def felt(self, signal: Floats) -> list[int]:
        """Return which scalars change any wedge's alpha."""
        plain = self.alphas(np.ones(3), signal)
        changed = [np.abs(self.alphas(1 + 0.1 * (np.arange(3) == k), signal) / plain - 1).max() for k in range(3)]
        return [k for k in range(3) if changed[k] > FELT / 10]


def _believed(
    scalars: Floats, missed: Floats, unfitted: Floats, points: tuple[Point, ...], energy: str, where: str
) -> None:
    """Raise DataError where a fit says that wedges and their names do not belong together."""
    low, high = SCALAR_RANGE
    worst, odd = int(np.argmax(np.abs(missed))), int(np.argmax(np.abs(unfitted)))
    if abs(missed[worst]) <= WORST_FIT and all(low <= s <= high for s in scalars):
        return
    named = [f"{points[k].material}, {points[k].areal_density_g_cm2:g} g/cm2" for k in (worst, odd)]
    seen = ", ".join(f"{s:.2f}" for s in scalars)
    raise DataError(
        f"{where}, {energy} energy: the wedges contradict their materials (scalars {seen}, expected {low} to {high}; "
        f"{named[0]} misses by {missed[worst]:+.1%}). Before the fit {named[1]} is furthest off "
        f"({unfitted[odd]:+.0%}): check its material, its areal density and the dark and air references"
    )


class ZoneModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The two fitted beams of one zone."""

    low: BeamModel
    high: BeamModel

    @property
    def ratio_error(self) -> float:
        """Return the error of the low beam's alpha beside the high one's, as a share of it, rms."""
        if self.low.assumed or self.high.assumed:
            return max(self.low.model_error, self.high.model_error)
        apart = self.low.missed - self.high.missed
        # wedges that were fitted miss by less than matter that was not
        return max(RATIO_ERROR, 2 * float(np.sqrt(np.mean(apart**2)))) if apart.size else RATIO_ERROR

    def alphas(self, material: str | int, areal_density_g_cm2: Floats) -> tuple[Floats, Floats]:
        """Return -ln(transmission) of the low and the high beam, each `(m,)`."""
        low, high = (alpha(b.spectrum, b.scalars, material, areal_density_g_cm2) for b in (self.low, self.high))
        return low, high


def fit_zones(calibration: EnergyCalibration) -> tuple[ZoneModel, ...]:
    """Return the fitted model of every zone. Raises DataError for wedges that cannot be believed."""
    models = []
    for number, zone in enumerate(calibration.zone):
        where = f"energy calibration zone[{number}]"
        low = fit(zone.low or calibration.low, zone.point, "low", where)
        high = fit(zone.high or calibration.high, zone.point, "high", where)
        models.append(ZoneModel(low=low, high=high))
    return tuple(models)
