"""What is kept of earlier loads: the numbers that a load is described by, and their history by declared chapter."""

from __future__ import annotations

import msgspec

from scanner_io.errors import DataError

NAMES = (
    "share of the cargo area that is filled",
    "height of the load, share of the container's",
    "unevenness of its height",
    "areal density, in -ln T",
    "spread of the areal density",
    "densest tenth, in -ln T",
    "share that is opaque",
    "fine texture along the container",
    "fine texture up the container",
    "coarse texture",
    "length over which it is alike",
    "regularity along the container",
)
"""What each number is, in words."""


class Chapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The traits of one chapter's loads: so many scans, median and spread of each trait in the order of NAMES."""

    scans: int
    median: tuple[float, ...]
    spread: tuple[float, ...]


class GoodsHistory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Histories by the chapter's two digits. Raises DataError for one that was made with other traits."""

    chapters: dict[str, Chapter]
    traits: tuple[str, ...] = NAMES

    def __post_init__(self) -> None:
        """Check. Raises DataError."""
        if self.traits != NAMES:
            raise DataError("GoodsHistory.traits: made by a version with other traits of loads; calibrate again")
        for digits, chapter in self.chapters.items():
            if len(digits) != 2 or not digits.isdigit() or {len(chapter.median), len(chapter.spread)} != {len(NAMES)}:
                raise DataError(
                    f"GoodsHistory.chapters: {digits!r} with {len(chapter.median)} medians, expected two digits and "
                    f"{len(NAMES)} medians and spreads above 0"
                )
            if min(chapter.spread) <= 0:
                raise DataError(f"GoodsHistory.chapters: {digits}: spread {min(chapter.spread)}, expected above 0")
