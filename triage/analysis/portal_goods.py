"""Goods that are radioactive by nature: what a declaration explains of a portal's gamma excess, and what never.

A declared load of tiles explains an excess that is as long as a load and no stronger than tiles give. It explains no
neutrons, no point, nothing of unclear shape, and nothing beyond its own strength; what an even load leaves over is
looked for afterwards (`portal_residual`). Explaining lowers the tier of our own findings; a vendor's alarm stays an
alarm, with the explanation beside it.

The goods and their sources are in `norm_goods.csv`, one row each.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from scanner_io.errors import DataError
from scanner_io.model import Declaration

from .portal_shape import Form

GOODS_FILE = Path(__file__).with_name("norm_goods.csv")


class Goods(NamedTuple):
    """A row of the file: peak_share is the largest excess over the background that it explains, as a share of it."""

    hs: str
    name: str
    peak_share: float
    source: str


class Explanation(NamedTuple):
    """What the declared goods say to an excess; `explains` only if they account for it."""

    explains: bool
    words: str


@lru_cache(maxsize=1)
def goods() -> dict[str, Goods]:
    """Return the goods by the first digits of their HS code. Raises DataError where the file is damaged."""
    lines = [line for line in GOODS_FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found: dict[str, Goods] = {}
    for row in csv.DictReader(lines):
        try:
            one = Goods(row["hs"], row["goods"], float(row["peak_share"]), row["source"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{GOODS_FILE}: row {row}: {error}; expected hs, goods, peak_share, source") from error
        if not (one.hs.isdigit() and one.source and one.peak_share >= 0) or one.hs in found:
            raise DataError(f"{GOODS_FILE}: row {one}: expected digits, a source, a share of 0 or more, once each")
        found[one.hs] = one
    return found


def goods_of(hs_code: str) -> Goods | None:
    """Return the row whose code is the longest beginning of `hs_code`.

    Codes have an even number of digits. A spreadsheet takes them for numbers: an odd one has lost its leading zero, and
    `.0` at the end is none of the code.
    """
    digits = "".join(c for c in hs_code.strip().removesuffix(".0") if "0" <= c <= "9")
    digits = "0" * (len(digits) % 2) + digits
    rows = [g for hs, g in goods().items() if digits.startswith(hs)]
    return max(rows, key=lambda g: len(g.hs)) if rows else None


def explain(form: Form, declaration: Declaration | None) -> Explanation | None:
    """Return what the declaration says to a gamma excess of this form, None where it names no such goods."""
    if declaration is None or declaration.declared_empty:
        return None
    rows = [g for g in map(goods_of, declaration.hs_codes) if g is not None and g.peak_share > 0]
    if not rows:
        return None
    best = max(rows, key=lambda g: g.peak_share)
    named = f"declared {best.name} (HS {best.hs}, naturally radioactive: {best.source})"
    if form.shape == "unclear":
        return Explanation(False, f"{named} does not explain it: the shape of the excess is not clear, {form.words}")
    if form.shape == "point":
        return Explanation(False, f"{named} does not explain it: the excess is a point, not a load ({form.words})")
    share = 100 * form.peak_share
    if form.peak_share > best.peak_share:
        most = f"it gives at most {100 * best.peak_share:.0f} % over the background, {share:.0f} % were seen"
        return Explanation(False, f"{named} does not explain it: {most}")
    return Explanation(True, f"{named} explains it: a load along the vehicle, {share:.0f} % over the background")
