"""What a search of the image gives before anything is said of it: scored places, each of a kind."""

from __future__ import annotations

from typing import NamedTuple

from .cargo_grid import Rect


class Region(NamedTuple):
    """A place that a detector of images points at.

    score : the higher the stranger; on what scale is the detector's affair
    peak : (x, y) of its strongest point, box : (x0, y0, x1, y1), both in upright pixels of the full image
    """

    score: float
    peak: tuple[float, float]
    box: tuple[float, float, float, float]


class Candidate(NamedTuple):
    """What one kind of finding would say of a container, before it is known how unusual it is.

    kind : of the finding
    score : the higher the stranger, one scale per kind, above 0; the scan's score of a kind is the highest of its
        candidates
    at : rectangle of the grid, None where it is about the whole container
    words : what was seen, where, against what was expected; a person can check it
    of_many : it is one of so many alike in a row, so likely the load: shown last, never counted
    """

    kind: str
    score: float
    at: Rect | None
    words: str
    of_many: int = 1
