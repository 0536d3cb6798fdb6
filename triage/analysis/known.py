"""What a container is asked about: its image, and what is known of it beside the image."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from scanner_io.model import Declaration

from .cargo_grid import CargoGrid, Rect
from .cells import Cells
from .contrast import contrasts
from .free_space import items_in_free_space
from .fuser import Fuser, fuser_named
from .load_traits import Traits, load_traits
from .maps import Map
from .unlike import Seen, look_into


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
    fuser : with the lane's own normal; without it the one that the thresholds name is used
    map_parts : like `map`; a thread pool's map computes parts side by side, with the same result

    What several kinds look at is computed when the first of them does.
    """

    def __init__(
        self, cargo: CargoGrid, load_share: float, known: Known | None = None, *, map_parts: Map = map,
        fuser: Fuser | None = None,
    ) -> None:  # fmt: skip
        self.cargo, self.load_share, self.known = cargo, load_share, known or Known()
        self.fuser = fuser or fuser_named(cargo.p.fuser)
        """None where places are searched by plain contrast."""
        self._map_parts = map_parts

    @cached_property
    def cells(self) -> Cells:
        """The container in cells of about 2 cm."""
        return Cells(self.cargo)

    @cached_property
    def traits(self) -> Traits | None:
        """The load in a few numbers, None where there is too little of it."""
        return load_traits(self.cells)

    @cached_property
    def previous(self) -> Cells | None:
        """The container at an earlier scan."""
        return None if self.known.previous is None else Cells(self.known.previous)

    @cached_property
    def items(self) -> list[tuple[float, Rect]]:
        """Compact dark items in otherwise free space, best first."""
        return items_in_free_space(self.cargo)

    @cached_property
    def seen(self) -> Seen | None:
        """What a search of the whole container sees; None without a fuser."""
        return None if self.fuser is None else look_into(self.cargo, self.fuser, map_parts=self._map_parts)

    @cached_property
    def spots(self) -> list[tuple[float, Rect]]:
        """Places that differ from their surroundings, with signed scores."""
        return contrasts(self.cargo)
