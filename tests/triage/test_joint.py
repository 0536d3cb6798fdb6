"""p-values made into one: formulas of the papers, and what becomes of the level where they depend on each other."""

import numpy as np
import pytest
from scipy.stats import combine_pvalues, norm

from scanner_io.errors import DataError
from triage.analysis import joint


def test_formulas_agree_with_others():
    values = [0.03, 0.4, 0.2]
    assert joint.fisher(values) == pytest.approx(combine_pvalues(values, "fisher").pvalue)
    assert joint.bonferroni(values) == pytest.approx(0.09)
    assert joint.cauchy([0.02, 0.02, 0.02]) == pytest.approx(0.02)  # equal ones stay what they are
    assert joint.harmonic_factor(2) == 2 and joint.harmonic_factor(3) == pytest.approx(2.746, abs=1e-3)
    assert joint.harmonic_factor(10) < np.e * np.log(10)  # the simple bound of the same paper


def test_a_tiny_p_keeps_its_digits_and_a_p_of_one_takes_nothing_back():
    assert joint.cauchy([1e-20, 0.5, 0.5]) == pytest.approx(3e-20, rel=1e-6)
    assert joint.cauchy([1e-6, 1.0, 1.0]) == pytest.approx(3e-6, rel=1e-3)
    assert joint.combine({"image": 0.0}, "cauchy").p_value > 0


@pytest.mark.parametrize("dependence", [-0.4, 0.0, 0.3, 0.95])
@pytest.mark.parametrize("method", ["cauchy", "harmonic", "bonferroni"])
def test_the_level_holds_where_p_values_depend_on_each_other(method, dependence):
    # the Cauchy combination is exact only in the limit of small levels: a fifth above is what it may be at 1 %
    matrix = np.full((3, 3), dependence) + (1 - dependence) * np.eye(3)
    p = norm.sf(np.random.default_rng(1).multivariate_normal(np.zeros(3), matrix, 20_000))
    found = np.array([getattr(joint, method)(list(row)) for row in p])
    allowed = 0.01 * (1.2 if method == "cauchy" else 1.0)
    assert (found <= 0.01).mean() <= allowed + 3 * np.sqrt(0.01 / len(found))


def test_fisher_does_not_hold_there_which_is_why_it_must_be_asked_for():
    matrix = np.full((3, 3), 0.7) + 0.3 * np.eye(3)
    p = norm.sf(np.random.default_rng(1).multivariate_normal(np.zeros(3), matrix, 20_000))
    assert np.mean([joint.fisher(list(row)) <= 0.01 for row in p]) > 0.03


def test_what_was_not_looked_at_takes_no_part_and_is_told():
    alone = joint.combine({"image": 0.01, "portal": None}, "cauchy")
    assert alone.p_value == 0.01 and "without portal" in alone.words
    assert joint.combine({"image": None}, "cauchy").p_value is None
    with pytest.raises(DataError, match=r"portal: p = 1\.2"):
        joint.combine({"portal": 1.2}, "cauchy")
    with pytest.raises(DataError, match="stouffer"):
        joint.combine({"portal": 0.2}, "stouffer")
