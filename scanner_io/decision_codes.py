"""Fixed numbers of the codes that a decision bears; what they are called is the page's, by language."""

from __future__ import annotations

GROUPS: dict[str, tuple[int, ...]] = {
    "real": (1, 2), "innocent": (3, 4, 5), "false": (6, 7, 8), "test": (9,), "tamper": (10,), "other": (11,),
}  # fmt: skip
"""Codes by group: 1 contraband found, 2 other real; 3 medical isotope, 4 naturally occurring radioactive material, 5
declared radioactive; 6 physical inspection negative, 7 identifier or portal background only, 8 other false; 9
authorised test, maintenance or training; 10 unauthorised activity; 11 other."""
CODES = frozenset(code for codes in GROUPS.values() for code in codes)

BY_VERDICT: dict[str, tuple[int, ...]] = {
    "clear": (3, 4, 5, 6, 7, 8, 9, 11), "inspect": (1, 2, 5, 10, 11), "rescan": (7, 9, 10, 11),
}  # fmt: skip
"""Codes that can be meant by each verdict; none is needed."""

FOUND = frozenset(GROUPS["real"])
"""Said of an inspection that brought something to light."""
NEGATIVE = frozenset(GROUPS["false"])
"""Said of what turned out to be nothing."""
INSPECTED_NEGATIVE = 6
"""An inspection was made, and found nothing."""
