"""How matter takes photons out of a beam, 30 keV to 15 MeV: mass attenuation coefficients of elements and compounds.

Facts only, used by the simulator and by the judgement alike; neither the beam nor the detector is described here, so
that what makes images and what reads them share nothing but nature.

Source: NIST XCOM, M. J. Berger and J. H. Hubbell, NBSIR 87-3597 (`xcom.csv`); atomic weights: IUPAC 2021, abridged.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from .errors import DataError

Floats = npt.NDArray[np.float64]

LOWEST_MEV, HIGHEST_MEV = 0.03, 15.0
PAIR_THRESHOLD_MEV = 1.022

ELEMENTS: dict[str, tuple[int, float]] = {
    "H": (1, 1.008), "C": (6, 12.011), "N": (7, 14.007), "O": (8, 15.999), "F": (9, 18.998), "Na": (11, 22.990),
    "Mg": (12, 24.305), "Al": (13, 26.982), "Si": (14, 28.085), "P": (15, 30.974), "S": (16, 32.06), "Cl": (17, 35.45),
    "K": (19, 39.098), "Ca": (20, 40.078), "Ti": (22, 47.867), "Cr": (24, 51.996), "Mn": (25, 54.938),
    "Fe": (26, 55.845), "Ni": (28, 58.693), "Cu": (29, 63.546), "Zn": (30, 65.38), "Br": (35, 79.904),
    "Zr": (40, 91.224), "Mo": (42, 95.95), "Rh": (45, 102.905), "Cd": (48, 112.414), "Sn": (50, 118.710),
    "Ba": (56, 137.327), "Gd": (64, 157.25), "W": (74, 183.84), "Au": (79, 196.967), "Pb": (82, 207.2),
    "Bi": (83, 208.980), "Th": (90, 232.038), "U": (92, 238.029), "Pu": (94, 244.0),
}  # fmt: skip
"""Atomic number and weight of the elements in the table."""
FORMULAS: dict[str, str] = {
    "polyethylene": "CH2", "water": "H2O", "cellulose": "C6H10O5", "ceramic": "SiO2", "graphite": "C",
    "aluminium": "Al", "steel": "Fe", "iron": "Fe", "nickel": "Ni", "tungsten": "W", "lead": "Pb",
    "cadmium tungstate": "CdWO4",
}  # fmt: skip
"""Names that may stand for a formula."""
SYMBOLS = {number: symbol for symbol, (number, _) in ELEMENTS.items()}

_TERM = re.compile(r"([A-Z][a-z]?)(\d*)")


def weights(material: str) -> dict[int, float]:
    """Return the share by weight of each atomic number in `material`, a name of FORMULAS or a formula such as CH2.

    Raises DataError for what cannot be read as a formula or names an element that the table lacks.
    """
    formula = FORMULAS.get(material.lower(), material)
    terms = _TERM.findall(formula)
    if not terms or "".join(symbol + count for symbol, count in terms) != formula:
        raise DataError(
            f"material {material!r}: no formula such as Fe, CH2 or Al2O3, and none of {', '.join(FORMULAS)}"
        )
    parts: dict[int, float] = {}
    for symbol, count in terms:
        if symbol not in ELEMENTS:
            raise DataError(
                f"material {material!r}: element {symbol} is not in the table; it has {', '.join(ELEMENTS)}"
            )
        number, weight = ELEMENTS[symbol]
        parts[number] = parts.get(number, 0.0) + weight * (int(count) if count else 1)
    total = sum(parts.values())
    if not total:
        raise DataError(f"material {material!r}: no atom in it")
    return {number: weight / total for number, weight in parts.items()}


@cache
def _table() -> dict[int, Floats]:
    """Return per atomic number the rows energy, coherent, incoherent, photoelectric, pair, each `(n,) float64`."""
    rows: dict[int, list[list[float]]] = {}
    with (files("scanner_io") / "xcom.csv").open(encoding="ascii") as file:
        lines = (line for line in file if not line.startswith("#"))
        for number, *values in list(csv.reader(lines))[1:]:
            rows.setdefault(int(number), []).append([float(v) for v in values])
    return {number: np.array(values).T for number, values in rows.items()}


def partial_coefficients(material: str | int, energy_mev: npt.ArrayLike) -> Floats:
    """Return `(4, n) float64`, cm²/g: coherent, incoherent, photoelectric, pair production at `energy_mev` `(n,)`.

    material : a name or formula as for `weights`, or an atomic number of the table

    Between the table's energies: splines in the logarithms of both; photoelectric absorption straight lines there, for
    its edges; pair production divided by (1 - 1.022 MeV / E)³, as XCOM itself does near the threshold. Raises DataError
    for energies outside the table.
    """
    energy = np.atleast_1d(np.asarray(energy_mev, np.float64))
    # a table that ends at 10 keV bins reaches to the middle of its last bin
    if energy.size and not (energy.min() >= 0.99 * LOWEST_MEV and energy.max() <= 1.01 * HIGHEST_MEV):
        raise DataError(
            f"photon energies {energy.min():g} to {energy.max():g} MeV, the table has {LOWEST_MEV} to {HIGHEST_MEV}"
        )
    energy = energy.clip(LOWEST_MEV, HIGHEST_MEV)
    parts = {material: 1.0} if isinstance(material, int) else weights(material)
    total = np.zeros((4, energy.size))
    for number, share in parts.items():
        if number not in _table():
            raise DataError(f"element {number} is not in the table; it has {', '.join(map(str, _table()))}")
        total += share * _element(number, energy)
    return total


def _element(number: int, energy: Floats) -> Floats:
    known, coherent, incoherent, photoelectric, pair = _table()[number]
    once = np.flatnonzero(np.diff(known, append=np.inf) > 0)
    at = np.log(energy)
    out = np.empty((4, energy.size))
    for row, values in ((0, coherent), (1, incoherent)):
        out[row] = np.exp(_spline(np.log(known[once]), np.log(values[once]), at))
    # at an edge the value above it is taken
    out[2] = np.exp(np.interp(at, np.log(known), np.log(photoelectric)))
    above = known[once] > PAIR_THRESHOLD_MEV
    e = known[once][above]
    rise = np.log(pair[once][above] / (1 - PAIR_THRESHOLD_MEV / e) ** 3)
    clipped = np.maximum(energy, e[0])
    near = (1 - PAIR_THRESHOLD_MEV / np.maximum(energy, PAIR_THRESHOLD_MEV)) ** 3
    out[3] = np.exp(_spline(np.log(e), rise, np.log(clipped))) * near
    return out


def _spline(x: Floats, y: Floats, at: Floats) -> Floats:
    """Return the natural cubic spline through (x, y) at `at`, inside the range of x."""
    h = np.diff(x)
    n = x.size
    matrix = np.eye(n)
    right = np.zeros(n)
    for i in range(1, n - 1):
        matrix[i, i - 1 : i + 2] = h[i - 1], 2 * (h[i - 1] + h[i]), h[i]
        right[i] = 6 * ((y[i + 1] - y[i]) / h[i] - (y[i] - y[i - 1]) / h[i - 1])
    bend = np.linalg.solve(matrix, right)
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, n - 2)
    u, v, step = at - x[k], x[k + 1] - at, h[k]
    curved = (bend[k] * v**3 + bend[k + 1] * u**3) / (6 * step)
    return np.asarray(curved + (y[k] / step - bend[k] * step / 6) * v + (y[k + 1] / step - bend[k + 1] * step / 6) * u)


def coefficient(material: str | int, energy_mev: npt.ArrayLike) -> Floats:
    """Return the total mass attenuation coefficient in cm²/g, coherent scattering included, at `energy_mev` `(n,)`."""
    return np.asarray(partial_coefficients(material, energy_mev).sum(axis=0))
