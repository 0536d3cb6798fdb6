"""Cargo messages in whatever form they come: UN/EDIFACT, JSON or a table, told apart by how they begin."""

from __future__ import annotations

from scanner_io.errors import DataError

from .cargo import CargoMessage
from .cargo_edifact import looks_like_edifact, read_interchange
from .cargo_json import read_json, read_table

MAX_PARTIES = 2_000
"""Parties of one message: a ship's manifest names some for each of its bills; more are no parties but a flood."""


def read_cargo(data: bytes, name: str) -> tuple[CargoMessage, ...]:
    """Return the messages of a file or request; `name` is what errors call it.

    Raises DataError: empty, of no form known here, what the reader of its form finds, more parties than a message has.
    """
    begin = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not begin:
        raise DataError(f"{name}: is empty; expected UN/EDIFACT, JSON or a table")
    if looks_like_edifact(data):
        messages = read_interchange(data, name)
    elif begin[:1] in (b"{", b"["):
        messages = read_json(data, name)
    else:
        messages = read_table(data, name)
    for message in messages:
        parties = len(message.parties) + sum(len(c.parties) for c in message.consignments)
        bills = max(len(message.consignments), 1)
        if parties > MAX_PARTIES + 10 * bills:
            raise DataError(
                f"{name}: message {message.reference or message.document!r} names {parties} parties for {bills} "
                f"consignments, more than {MAX_PARTIES} and ten for each; ask its sender to split or mend it"
            )
    return messages
