"""Several p-values of one passage made into one: what image, portal and papers say together.

Which method is right is a question of how the p-values hang together. A comparison of papers with the picture and the
judgement of the picture look at the same picture, so they are not independent, and nobody knows how they depend:

    cauchy      the default. Tends to the exact level for small p whatever the dependence is between each two of them
                (jointly normal test statistics). Liu and Xie, J. American Statistical Association 115 (2020) 393.
                Each p is cut at MOST first: a p of 1 weighs minus infinity and would take back what another has found.
                Fang, Chang, Park and Tseng, Statistica Sinica 33 (2023), cut likewise.
    harmonic    holds under any dependence at all, for every level, and pays for it. Vovk and Wang, Biometrika 107
                (2020) 791, harmonic mean with its exact factor.
    bonferroni  holds under any dependence; the smallest p times their number.
    fisher      for independent p-values only (Fisher 1932): a profile that asks for it must say why they are so.

What was not looked at has no p-value and takes no part; it is never taken for 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from scipy.special import chdtrc

from scanner_io.errors import DataError

Method = Literal["cauchy", "harmonic", "bonferroni", "fisher"]
METHODS: tuple[str, ...] = get_args(Method)
MOST = 0.99
"""A p-value above it is taken for it in the Cauchy combination."""
LEAST = 1e-300


class Joint(NamedTuple):
    """What was combined. p_value : None where there was nothing; parts : the p-values by their source."""

    p_value: float | None
    method: str
    parts: dict[str, float]
    words: str


def combine(parts: Mapping[str, float | None], method: Method) -> Joint:
    """Return the joint p-value of those that are there. Raises DataError for what is no p-value or no method."""
    known = {name: float(p) for name, p in sorted(parts.items()) if p is not None}
    for name, p in known.items():
        if not 0 <= p <= 1:
            raise DataError(f"{name}: p = {p}, expected a number from 0 to 1")
    if method not in METHODS:
        raise DataError(f"joint method {method!r}: expected one of {', '.join(METHODS)}")
    absent = [name for name in sorted(parts) if name not in known]
    without = f"; without {', '.join(absent)}, of which there is no p-value" if absent else ""
    if not known:
        return Joint(None, method, {}, f"nothing has a p-value{without}")
    values = [max(p, LEAST) for p in known.values()]
    found = values[0] if len(values) == 1 else _COMBINED[method](values)
    said = ", ".join(f"{name} {p:.2g}" for name, p in known.items())
    return Joint(found, method, known, f"p = {found:.2g} by {method} of {said}{without}")


def cauchy(values: list[float]) -> float:
    """Return the Cauchy combination with equal weights."""
    capped = [min(p, MOST) for p in values]
    # 1 / (pi p) is tan((0.5 - p) pi) to all digits for a small p, where the tangent itself loses them
    total = sum(1 / (math.pi * p) if p < 1e-8 else math.tan((0.5 - p) * math.pi) for p in capped) / len(capped)
    return 1 / (math.pi * total) if total > 1e8 else 0.5 - math.atan(total) / math.pi


def harmonic(values: list[float]) -> float:
    """Return the harmonic mean with the least factor that holds under any dependence."""
    mean = len(values) / sum(1 / p for p in values)
    return min(harmonic_factor(len(values)) * mean, 1.0)


@lru_cache(maxsize=16)
def harmonic_factor(count: int) -> float:
    """Return the factor of Vovk and Wang's proposition for the harmonic mean of `count` p-values."""
    if count < 3:
        return float(count)
    from scipy.optimize import brentq  # to load it takes half a second; few profiles need it

    y = brentq(lambda y: y * y - count * ((y + 1) * math.log(y + 1) - y), 1e-6, 1e6)
    return float((y + count) ** 2 / ((y + 1) * count))


def bonferroni(values: list[float]) -> float:
    """Return the smallest times their number."""
    return min(len(values) * min(values), 1.0)


def fisher(values: list[float]) -> float:
    """Return the tail of chi-squared, which holds for independent p-values."""
    return float(chdtrc(2 * len(values), -2 * sum(math.log(p) for p in values)))


_COMBINED = {"cauchy": cauchy, "harmonic": harmonic, "bonferroni": bonferroni, "fisher": fisher}
