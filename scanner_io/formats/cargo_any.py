"""Cargo messages in whatever form they come: UN/EDIFACT, JSON or a table, told apart by how they begin."""

from __future__ import annotations

from scanner_io.errors import DataError

from .cargo import CargoMessage, too_many_parties
from .cargo_edifact import looks_like_edifact, read_interchange
from .cargo_json import read_json, read_table


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
        if why := too_many_parties(parties, len(message.consignments)):
            raise DataError(f"{name}: message {message.reference or message.document!r} {why}")
    return messages
