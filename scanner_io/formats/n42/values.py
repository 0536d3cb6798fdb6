"""Texts of an N42 document to values: numbers, lists of counts, durations, instants. All raise ValueError in words."""

from __future__ import annotations

import datetime as dt
import math
import re

import numpy as np
import numpy.typing as npt

from ...model import MAX_CHANNELS, NANOSECONDS
from .document import count_zeroes

MAX_DURATION_S = 1e9
_DURATION = re.compile(
    r"P(?:(?P<days>\d{1,6})D)?"
    r"(?:T(?:(?P<hours>\d{1,9}(?:\.\d*)?)H)?(?:(?P<minutes>\d{1,9}(?:\.\d*)?)M)?"
    r"(?:(?P<seconds>(?:\d{1,12}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?)S)?)?",
    re.ASCII,
)
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,30}))? ?(Z|z|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def number(text: str) -> float:
    """Return a finite number. float() alone would take `nan`, `inf` and `1_000`."""
    if len(text) <= 60 and _NUMBER.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    raise ValueError(f"{text[:40]!r} is no number")


def numbers(text: str, limit: int = 2 * MAX_CHANNELS) -> npt.NDArray[np.float64]:
    """Return a list of finite numbers, at most `limit` of them."""
    words = text.split(None, limit)
    if len(words) > limit:
        raise ValueError(f"more than {limit} values")
    try:
        values = np.array(words, np.float64) if text.isascii() and "_" not in text else None
    except ValueError:
        values = None
    if values is None or not np.isfinite(values).all():
        for position, word in enumerate(words, 1):
            try:
                number(word)
            except ValueError as error:
                raise ValueError(f"value {position}: {error}") from None
        raise ValueError("not a list of numbers")
    return values


def duration_s(text: str) -> float:
    """Return the seconds of an XML duration such as `PT0.1S`. Months and years have no length and are refused."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"{text[:40]!r} is no duration like PT0.1S")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total > MAX_DURATION_S:
        raise ValueError(f"{text[:40]!r} is longer than {MAX_DURATION_S:g} s")
    return total


def instant_ns(text: str, utc_offset_h: float) -> tuple[int, bool]:
    """Return UTC nanoseconds, and whether the text names its zone; without one it is `utc_offset_h` east of UTC."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no instant like 2026-01-31T09:45:01.5Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, zone = match[7], match[8]
    if not 1970 <= year <= 2261 or (hour, minute, second) > (24, 0, 0) or minute > 59 or second > 60:
        raise ValueError(f"{text[:40]!r} is no instant of the years 1970 to 2261")
    try:
        midnight = dt.datetime(year, month, day, tzinfo=dt.UTC)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r}: {error}") from error
    offset_s = _zone_s(zone) if zone else round(utc_offset_h * 3600)
    seconds = int(midnight.timestamp()) + (hour * 60 + minute) * 60 + second - offset_s
    if seconds < 0:
        raise ValueError(f"{text[:40]!r} lies before 1970")
    return seconds * NANOSECONDS + int((fraction or "0")[:9].ljust(9, "0")), zone is not None


def _zone_s(text: str) -> int:
    if text in "Zz":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    seconds = (int(digits[:2]) * 60 + int(digits[2:])) * 60
    if seconds > 18 * 3600:
        raise ValueError(f"{text!r} is no time zone")
    return -seconds if text[0] == "-" else seconds


def boolean(text: str) -> bool:
    """Return an XML boolean in any of its spellings."""
    word = text.lower()
    if word in ("1", "true"):
        return True
    if word in ("0", "false"):
        return False
    raise ValueError(f"{text[:40]!r} is neither true, false, 1 nor 0")


def counted_zeroes(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], bool]:
    """Return a checked counted-zeroes list, and whether it ended in a lone 0, to which its length 1 is added.

    A 0 is followed by the number of zeroes it stands for, itself included. Raises ValueError where that cannot be:
    what follows would then be read one place off.
    """
    zeros = np.flatnonzero(values == 0)
    lone = bool(zeros.size and zeros[-1] == values.size - 1)
    if lone:
        values = np.append(values, 1.0)
    runs = values[zeros + 1] if zeros.size else np.zeros(0)
    bad = np.flatnonzero((runs < 1) | (runs % 1 != 0))
    if bad.size:
        at = int(zeros[bad[0]])
        raise ValueError(
            f"value {at + 1} is 0 and followed by {runs[bad[0]]:g}, expected the length of a run of zeroes"
        )
    channels = values.size - 2 * zeros.size + float(runs.sum())
    if channels > MAX_CHANNELS:
        raise ValueError(f"{channels:.0f} channels, at most {MAX_CHANNELS} are read")
    return values, lone


def as_counted_zeroes(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return channels in counted-zeroes form. Raises ValueError beyond the cap."""
    if counts.size > MAX_CHANNELS:
        raise ValueError(f"{counts.size} channels, at most {MAX_CHANNELS} are read")
    return count_zeroes(counts)


def bare_seconds(text: str) -> float | None:
    """Return the seconds of a bare number, None if the text is none, or no time."""
    try:
        seconds = number(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= MAX_DURATION_S else None
