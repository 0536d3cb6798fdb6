"""How a scan stands among its lane's own: what kind of scan it is, and what the lane's profile says of its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from scanner_io.errors import DataError
from scanner_io.lane_profile import Cell, LaneProfile
from scanner_io.model import Declaration, Finding, Load, Standing

from .conformal import Verdict, calibration_of
from .fuser import Fuser, from_bytes
from .goods_profile import GoodsHistory
from .unlike import TEXTURE_UNKNOWN, not_known

Lane = LaneProfile | Verdict | None
"""What is usual on a lane; or, for a part of a scan, what that says of the whole; None where nothing was learned."""


SEVERAL = "several containers"
"""What stands for the texture of a scan of more than one."""
GOODS, FUSER = "goods", "fuser"
"""Names of a profile's extras: the history of what was declared, and a fuser with the lane's own normal."""


def goods_of(lane: LaneProfile) -> GoodsHistory | None:
    """Return what loads of each declared chapter looked like on the lane, None where that was not learned.

    Raises DataError for a history that cannot be used.
    """
    if GOODS not in lane.extras:
        return None
    try:
        return msgspec.convert(lane.extras[GOODS].facts, GoodsHistory)
    except msgspec.ValidationError as error:
        raise DataError(f"profile {lane.sha256[:12]}: its history of goods: {error}; calibrate again") from error


@lru_cache(maxsize=4)
def fuser_of(lane: LaneProfile) -> Fuser | None:
    """Return the fuser with the lane's own normal, None where that was not learned. Raises DataError for a bad one."""
    if FUSER not in lane.extras:
        return None
    return from_bytes(lane.extras[FUSER].arrays["npz"].tobytes(), f"profile {lane.sha256[:12]}")


def cell_of(load: Load, declaration: Declaration | None, *, texture: str = "", containers: int = 1) -> Cell:
    """Return texture class and declared chapter of a scan.

    texture : as a fuser sees it; without one the class is no more than whether there is a load. Several containers are
        a class of their own: the strangest of two is stranger than that of one
    """
    texture = texture or ("load unclear" if load == "unknown" else load)
    return (SEVERAL if containers > 1 else texture), chapter_of(declaration)


def chapter_of(declaration: Declaration | None) -> str:
    """Return the declared chapter of the Harmonized System, two digits, or in a word why there is not one."""
    if declaration is None:
        return "undeclared"
    if declaration.declared_empty:
        return "declared empty"
    chapters = sorted({code[:2] for code in declaration.hs_codes})
    return chapters[0] if len(chapters) == 1 else "several chapters" if chapters else "undeclared"


def verdict_of(lane: Lane, scores: dict[str, float], cell: Cell) -> Verdict | None:
    """Return what the lane says of a scan, or of the scan that this is a part of."""
    return calibration_of(lane).judge(scores, cell) if isinstance(lane, LaneProfile) else lane


def unlearned(lane: Lane, verdict: Verdict | None) -> list[Finding]:
    """Return that the lane has too few scans of this look to call it usual; not for a part, of the scan it is told."""
    return [] if verdict is None or verdict is lane or not verdict.unknown else [not_known(verdict.unknown)]


def standing_of(
    lane: Lane, verdict: Verdict | None, scores: dict[str, float], vital_signs: dict[str, float | None], cell: Cell,
    findings: Sequence[Finding],
) -> Standing | None:  # fmt: skip
    """Return how a scan stands by its verdict; None without a profile, and for a part of a scan."""
    if verdict is None or verdict is lane:
        return None
    return Standing(
        p_value=verdict.p_value, level=verdict.level, stratum=verdict.stratum, scans=verdict.scans, cell=cell,
        scores=scores, vital_signs=vital_signs, unknown=any(f.kind == TEXTURE_UNKNOWN for f in findings),
    )  # fmt: skip


def mean_signs(parts: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean vital signs of several containers, None where one is not known."""
    means: dict[str, float | None] = {}
    for name in parts[0]:
        values = [part.get(name) for part in parts]
        known = [v for v in values if v is not None]
        means[name] = sum(known) / len(known) if len(known) == len(values) else None
    return means
