"""What in a container deserves a look: items and contrasts, put on one scale."""

from __future__ import annotations

from scanner_io.model import Finding

from .cargo_grid import CargoGrid, Rect, overlap
from .contrast import contrast_finding, contrasts, review_score
from .free_space import item_finding, items_in_free_space


def strange_places(cargo: CargoGrid) -> list[Finding]:
    """Return extra items in free space and local contrasts, best first, at most `max_findings`."""
    p = cargo.p
    items = items_in_free_space(cargo)
    spots = [s for s in contrasts(cargo) if not any(overlap(s[1], i[1]) for i in items)]
    # both scores are put on the scale of their own review threshold to be ranked together; what has its like is
    # the load and comes last
    ranked = []
    for score, at in items:
        alike = _alike(at, [other for _, other in items])
        ranked.append((alike >= p.alike, -score / p.item_review_score, at, item_finding(cargo, score, at, alike)))
    for score, at in spots:
        ranked.append((False, -abs(score) / review_score(cargo, score), at, contrast_finding(cargo, score, at)))
    ranked.sort(key=lambda r: r[:3])
    return [finding for *_, finding in ranked[: p.max_findings]]


def _alike(at: Rect, others: list[Rect]) -> int:
    """Return how many rectangles, itself counted, have about its size and stand about as high."""
    w, h = at[2] - at[0], at[3] - at[1]
    return sum(
        abs(o[2] - o[0] - w) <= max(3, 0.25 * w)
        and abs(o[3] - o[1] - h) <= max(3, 0.25 * h)
        and abs(o[3] - at[3]) <= max(4, 0.25 * h)
        for o in others
    )
