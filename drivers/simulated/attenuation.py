"""How MeV photons get through cargo: coefficients, bremsstrahlung spectra, transmission of a mixture of materials.

A ray is described by the areal density of three basis materials, polyethylene (light), iron and lead, in g/cm²; every
other material is split into these. In the MeV range attenuation is Compton scattering, which goes with electrons, and
pair production, which goes with Z²/A: two basis materials describe everything up to about Z = 30, and the third adds
the photoelectric effect of heavy elements.

Source: `scanner_io.attenuation` (coefficients, with coherent scattering); L. I. Schiff, Phys. Rev. 83 (1951) 252, and
Koch and Motz, Rev. Mod. Phys. 31 (1959) 920, formula 2BS (thin-target bremsstrahlung, forward direction); Alvarez and
Macovski, Phys. Med. Biol. 21 (1976) 733 (basis materials).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from scanner_io import attenuation as facts

Floats = npt.NDArray[np.float32]

ENERGIES_MEV = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
MATERIALS = (
    "polyethylene",
    "water",
    "cellulose",
    "ceramic",
    "aluminium",
    "iron",
    "tungsten",
    "lead",
    "cadmium tungstate",
)
"""What vehicles, cargo and detector are made of. Ceramic is quartz; cadmium tungstate is the detector crystal."""

BASIS = ("polyethylene", "iron", "lead")
ELECTRON_MEV = 0.511
FILTER_CM_IRON = 1.0
"""Target, flattening filter and windows together; chosen so that steel transmission at 4, 6 and 9 MV agrees with a
Schiff beam on 3 cm of cadmium tungstate within 2 % from 1 to 30 cm."""
DETECTOR_G_CM2 = 3.0 * 7.9
LIGHT_STEP, IRON_STEP = 3.0, 4.0
"""Spacing of the look-up grid, g/cm²."""
GRID = 256
"""Nodes per axis: up to 765 g/cm² light and 1020 g/cm² iron, beyond which nothing is seen anyway."""


def coefficient(material: str, energy_mev: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the mass attenuation coefficient in cm²/g, log-log interpolated between 0.1 and 10 MeV."""
    return np.asarray(np.exp(np.interp(np.log(energy_mev), np.log(ENERGIES_MEV), _logarithms(material))))


@cache
def _logarithms(material: str) -> npt.NDArray[np.float64]:
    if material not in MATERIALS:
        raise KeyError(f"{material}: expected one of {', '.join(MATERIALS)}")
    return np.asarray(np.log(facts.coefficient(material, ENERGIES_MEV)))


@cache
def spectrum(endpoint_mv: float, bins: int = 40) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return photon energies in MeV and the share of the detector's signal each brings in air (sums to 1).

    Thin-target bremsstrahlung of tungsten, hardened by FILTER_CM_IRON, weighted by the energy left in the crystal by
    every photon that interacts there.
    """
    edges = np.linspace(0.1, endpoint_mv, bins + 1)
    k = (edges[1:] + edges[:-1]) / 2
    before = endpoint_mv + ELECTRON_MEV
    after = before - k
    screening = (ELECTRON_MEV * k / (2 * before * after)) ** 2 + (74 ** (1 / 3) / 111) ** 2
    photons = (-((before**2 + after**2) / before**2) * np.log(screening) - (before + after) ** 2 / before**2) / k
    photons = np.clip(photons, 0, None) * np.exp(-coefficient("iron", k) * FILTER_CM_IRON * 7.87)
    signal = photons * k * (1 - np.exp(-coefficient("cadmium tungstate", k) * DETECTOR_G_CM2))
    return k, signal / signal.sum()


@cache
def split(material: str) -> tuple[float, float, float]:
    """Return how much of each basis material attenuates like 1 g/cm² of `material` (least squares, 0.5 to 9 MeV)."""
    if material in BASIS:
        return tuple(float(material == b) for b in BASIS)  # type: ignore[return-value]
    energy = np.linspace(0.5, 9.0, 60)
    count = 3 if material in ("tungsten", "cadmium tungstate") else 2
    columns = np.stack([coefficient(b, energy) for b in BASIS[:count]], axis=1)
    relative = columns / coefficient(material, energy)[:, np.newaxis]
    parts = np.linalg.lstsq(relative, np.ones(len(energy)), rcond=None)[0]
    return (float(parts[0]), float(parts[1]), float(parts[2]) if count == 3 else 0.0)


def attenuation(
    endpoint_mv: float, light: npt.ArrayLike, iron: npt.ArrayLike, lead: npt.ArrayLike = 0.0
) -> npt.NDArray[np.float64]:
    """Return -ln(transmission) of a ray through the given areal densities in g/cm², summed over the spectrum.

    Exact but slow: for the look-up grid and for the few rays that meet heavy elements.
    """
    energy, weight = spectrum(endpoint_mv)
    densities = np.broadcast_arrays(np.asarray(light, float), np.asarray(iron, float), np.asarray(lead, float))
    transmission = np.zeros(densities[0].shape)
    for k, share in zip(energy, weight, strict=True):
        length = sum(d * float(coefficient(b, k)) for b, d in zip(BASIS, densities, strict=True))
        transmission += share * np.exp(-length)
    return np.asarray(-np.log(np.maximum(transmission, 1e-30)))


@cache
def table(endpoint_mv: float) -> Floats:
    """Return attenuation on the grid, `(GRID * GRID,) float32`, node (i, j) at i * GRID + j."""
    light = np.arange(GRID)[:, np.newaxis] * LIGHT_STEP
    iron = np.arange(GRID)[np.newaxis] * IRON_STEP
    return attenuation(endpoint_mv, light, iron).astype(np.float32).ravel()


class Cells:
    """Where rays lie in the look-up grid; found once and used for every energy.

    light, iron : `(...) float32` areal densities, g/cm²
    """

    def __init__(self, light: Floats, iron: Floats) -> None:
        last = np.float32(GRID - 1.001)
        u = np.clip(light * np.float32(1 / LIGHT_STEP), 0, last)
        v = np.clip(iron * np.float32(1 / IRON_STEP), 0, last)
        i, j = u.astype(np.int32), v.astype(np.int32)
        self._node = i * GRID + j
        self._du = u - i
        self._dv = v - j

    def attenuation(self, endpoint_mv: float) -> Floats:
        """Return -ln(transmission), bilinear between nodes: within 0.2 % of the sum over the spectrum."""
        grid = table(endpoint_mv)
        low, high = grid[self._node], grid[self._node + GRID]
        low += (grid[self._node + 1] - low) * self._dv
        high += (grid[self._node + (GRID + 1)] - high) * self._dv
        high -= low
        high *= self._du
        high += low
        return high
