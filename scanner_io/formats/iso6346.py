"""Freight container numbers: check digit, owner, size and type, and numbers that a camera may have misread.

The check digit is weak: remainders 0 and 10 share a digit, and one number in eleven of random ones fits. So a fitting
digit proves little, and a digit that does not fit is told and never mended in silence.

Source: ISO 6346:2022, clauses 3 and 4 and annex A.
"""

from __future__ import annotations

import re

import msgspec

NUMBER = re.compile(r"[A-Z]{3}[A-Z][0-9]{7}")
CATEGORIES = {"U": "freight container", "J": "detachable equipment", "Z": "trailer or chassis"}

LENGTHS_FT = {"1": 10.0, "2": 20.0, "3": 30.0, "4": 40.0, "L": 45.0, "M": 48.0}
"""First character of a size and type code, in feet; other lengths have letters that few use."""
GROUPS = {
    "G": "general purpose", "V": "ventilated", "B": "dry bulk", "S": "named cargo", "R": "refrigerated",
    "H": "insulated", "U": "open top", "P": "platform", "T": "tank", "K": "tank", "N": "dry bulk",
    "A": "air and surface",
}  # fmt: skip
"""Third character of a size and type code."""


class SizeType(msgspec.Struct, frozen=True, kw_only=True):
    """What a size and type code says; None and "" where its characters are not known here.

    high_cube : True from 9 feet 6 inches of height
    """

    code: str
    length_ft: float | None = None
    high_cube: bool | None = None
    group: str = ""

    @property
    def cooled(self) -> bool:
        """True for containers with machinery at one end."""
        return self.group == "refrigerated"


def tidy(text: str) -> str:
    """Return a number as it is compared: capitals, without blanks, hyphens and dots."""
    return re.sub(r"[\s.\-/]", "", text).upper()


def check_digit(code: str) -> int:
    """Return the check digit of a number's first ten characters (four capitals, six digits)."""
    values = [int(c) if c.isdigit() else _letter(c) for c in code[:10]]
    return sum(v << i for i, v in enumerate(values)) % 11 % 10


def check_digit_ok(number: str) -> bool | None:
    """Return whether a container number ends with its check digit; None where it is not eleven characters of one."""
    if not NUMBER.fullmatch(number):
        return None
    return check_digit(number) == int(number[10])


def size_type(code: str) -> SizeType:
    """Return what a size and type code of four characters (22G1) says."""
    code = code.strip().upper()
    if len(code) != 4:
        return SizeType(code=code)
    high = {"0": False, "2": False, "4": False, "5": True, "6": True, "8": False, "9": False}
    high |= {"C": False, "D": True, "E": True, "F": True, "L": False, "M": True, "N": True}
    return SizeType(
        code=code, length_ft=LENGTHS_FT.get(code[0]), high_cube=high.get(code[1]), group=GROUPS.get(code[2], "")
    )


def _letter(character: str) -> int:
    value = ord(character) - ord("A") + 10
    return value + (value - 1) // 10  # 11, 22 and 33 are left out
