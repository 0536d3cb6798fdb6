"""ANSI N42.42 files, the format in which radiation instruments tell what they measured: reader and writer.

`read` takes both editions and gives an `N42Document`; `write` gives a 2012 file that validates; `passages` and
`of_record` lead from a portal's document to records of passages and back.
"""

from __future__ import annotations

from .context import N42Settings
from .document import N42Document, Problem
from .from_record import of_record
from .passage import Passage, device_of, passages, why_none
from .reader import read, sniff
from .writer import write

__all__ = [
    "N42Document",
    "N42Settings",
    "Passage",
    "Problem",
    "device_of",
    "of_record",
    "passages",
    "read",
    "sniff",
    "why_none",
    "write",
]
