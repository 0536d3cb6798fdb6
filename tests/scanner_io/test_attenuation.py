"""Coefficients against published totals, and what is refused."""

import csv

import numpy as np
import pytest

from scanner_io.attenuation import ELEMENTS, FORMULAS, coefficient, partial_coefficients, weights
from scanner_io.errors import DataError

MEV = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
# NIST XCOM totals with coherent scattering, cm2/g
PUBLISHED = {
    "polyethylene": (0.0995, 0.0726, 0.0507, 0.0405, 0.0344, 0.0276),
    "water": (0.0969, 0.0707, 0.0494, 0.0397, 0.0340, 0.0277),
    "aluminium": (0.0845, 0.0615, 0.0432, 0.0354, 0.0311, 0.0266),
    "iron": (0.0842, 0.0600, 0.0427, 0.0362, 0.0331, 0.0306),
    "tungsten": (0.1378, 0.0662, 0.0443, 0.0408, 0.0404, 0.0421),
    "lead": (0.1613, 0.0710, 0.0461, 0.0423, 0.0420, 0.0439),
    "U": (0.1976, 0.0790, 0.0488, 0.0445, 0.0439, 0.0458),
}


@pytest.mark.parametrize("material", PUBLISHED)
def test_totals_are_the_published_ones(material):
    np.testing.assert_allclose(coefficient(material, MEV), PUBLISHED[material], rtol=2.5e-3)


def test_between_the_tables_energies_it_is_where_others_measured():
    """Caesium-137 and cobalt-60 lines lie between the table's energies; steel halves them in 1.20 and 1.65 cm."""
    for mev, cm in ((0.662, 1.20), (1.25, 1.65)):
        assert np.log(2) / (coefficient("steel", mev)[0] * 7.87) == pytest.approx(cm, abs=0.006)


def test_every_value_is_that_of_the_database(shared_data):
    """The whole data base has all elements and energies; the table's must be its values, digit by digit."""
    path = shared_data / "attenuation" / "nist_xcom.csv"
    numbers = {number for number, _ in ELEMENTS.values()}
    with path.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if int(r["Z"]) in numbers and 0.03 <= float(r["energy_MeV"]) <= 15]
    seen = 0
    for number in sorted(numbers):
        own = [r for r in rows if int(r["Z"]) == number]
        energies = [float(r["energy_MeV"]) for r in own]
        edge = {e for e in energies if energies.count(e) > 1}
        smooth = [r for r, e in zip(own, energies, strict=True) if e not in edge]
        parts = partial_coefficients(number, [float(r["energy_MeV"]) for r in smooth])
        for k, name in enumerate(("coherent", "incoherent", "photoelectric")):
            np.testing.assert_allclose(parts[k], [float(r[name]) for r in smooth], rtol=1e-9)
        pair = np.array([float(r["pair_nuclear"]) + float(r["pair_electron"]) for r in smooth])
        np.testing.assert_allclose(parts[3], pair, rtol=6e-4, atol=1e-12)
        seen += len(smooth)
    assert seen > 1000


def test_an_edge_jumps_and_pair_production_begins_at_its_threshold():
    below, above = partial_coefficients("Pb", (0.0879, 0.0881))[2]
    assert above > 3 * below
    pair = partial_coefficients("Pb", (0.9, 1.021, 1.03, 1.25))[3]
    assert pair[0] == pair[1] == 0 < pair[2] < pair[3]


def test_a_compound_is_the_sum_of_its_parts_by_weight():
    assert weights("CH2") == pytest.approx({6: 0.8563, 1: 0.1437}, abs=1e-4)
    assert weights("polyethylene") == weights("CH2")
    assert sum(weights("C6H10O5").values()) == pytest.approx(1)
    for name in FORMULAS:
        assert coefficient(name, 1.0)[0] > 0


@pytest.mark.parametrize("material", ["", "steele", "fe", "Fe2,5", "CH2 ", "Xx", "Kr", "H0"])
def test_what_is_no_material_is_refused_with_what_would_be(material):
    with pytest.raises(DataError, match="material"):
        weights(material)


@pytest.mark.parametrize("energy", [0.02, 16.0, float("nan")])
def test_energies_outside_the_table_are_refused(energy):
    with pytest.raises(DataError, match=r"0\.03 to 15"):
        coefficient("Fe", energy)


def test_an_element_without_a_row_is_refused():
    with pytest.raises(DataError, match="element 36"):
        coefficient(36, 1.0)
