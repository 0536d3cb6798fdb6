"""What a container is asked about: its image, and what is known of it beside the image."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from scanner_io.model import Declaration

from .cargo_grid import CargoGrid, Rect
from .contrast import contrasts
from .free_space import items_in_free_space


class Mark(NamedTuple):
    """Columns of the radiograph at which the portal saw something.

    first, end : half-open; words : what it saw there
    """

    first: int
    end: int
    words: str


class Known(NamedTuple):
    """What is known beside the image; whatever is not is left out, and what needs it is not asked.

    previous : an earlier scan of the same container
    """

    declaration: Declaration | None = None
    marks: tuple[Mark, ...] = ()
    previous: CargoGrid | None = None


class Asked:
    """One container with what is known of it: what every kind of finding is searched in.

    load_share : part of the cargo area that is cargo, 0..1

    What several kinds look at is computed when the first of them does.
    """

    def __init__(self, cargo: CargoGrid, load_share: float, known: Known | None = None) -> None:
        self.cargo, self.load_share, self.known = cargo, load_share, known or Known()

    @cached_property
    def items(self) -> list[tuple[float, Rect]]:
        """Compact dark items in otherwise free space, best first."""
        return items_in_free_space(self.cargo)

    @cached_property
    def spots(self) -> list[tuple[float, Rect]]:
        """Places that differ from their surroundings, with signed scores."""
        return contrasts(self.cargo)
