"""What is known of one container of an image."""

from __future__ import annotations

import msgspec

from scanner_io.model import Box, Load

from .container import Frame
from .container_size import ContainerSize
from .structure import Structure


class ContainerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One container of an image.

    frame : in upright pixels; box : in the radiograph's own columns and channels
    opaque_share : part of its cargo area in which nothing can be seen, load_share : part that is cargo, 0..1
    """

    frame: Frame
    box: Box
    load: Load
    load_share: float
    opaque_share: float
    size: ContainerSize
    structure: Structure
