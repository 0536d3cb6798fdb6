"""Dates and times of files as nanoseconds since 1970, or an error where no number of 64 bits holds them."""

from __future__ import annotations

from datetime import datetime, timedelta

_EPOCH = datetime(1970, 1, 1)


def utc_ns(moment: datetime, ahead: timedelta = timedelta(0)) -> int:
    """Return a time in UTC nanoseconds. Raises ValueError for fillers such as the years 1 and 9999.

    moment : its own zone is not looked at; ahead : by how much it is ahead of UTC
    """
    try:
        since = moment.replace(tzinfo=None) - ahead - _EPOCH
    except OverflowError as error:
        raise ValueError(f"{moment} is out of range") from error
    found = since // timedelta(microseconds=1) * 1000
    if not -1 << 63 <= found < 1 << 63:
        raise ValueError(f"{moment} is not between the years 1678 and 2261")
    return found
