"""What came in advance, as an operator asks for it: messages with what became of them, and what was refused and why.

Read only, beside a service that runs. Messages are in the store of declarations; deliveries that were refused or could
not be read are in the audit alone, for nothing of them was stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scanner_io.errors import DataError, StorageError
from scanner_io.formats.cargo import CargoMessage
from scanner_io.formats.iso6346 import tidy

from . import declarations
from .store import Place, reading

TURNED_AWAY = ("cargo_refused", "cargo_unreadable")
_MESSAGE = (
    "SELECT seq, sender, document, reference, version, standing, received_utc_ns, name, simulated, repeats, message "
    "FROM messages WHERE ?='' OR document=? OR reference=? OR seq IN (SELECT seq FROM keys WHERE value=?) "
    "ORDER BY seq DESC"
)
"""The newest first; of one name, or of all where it is empty."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it is kept. name : of the file or request it came in; repeats : how often it came again"""

    seq: int
    sender: str
    document: str
    reference: str
    version: int
    standing: declarations.Standing
    received_utc_ns: int
    name: str
    simulated: bool
    repeats: int
    message: CargoMessage

    @property
    def row(self) -> dict[str, Any]:
        """What a list tells of it."""
        told: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, message=CargoMessage(form="JSON")))
        del told["message"]
        return told | {
            "form": self.message.form, "function": self.message.function,
            "containers": [e.number for e in self.message.equipment], "plate": self.message.plate,
            "problems": list(self.message.problems),
        }  # fmt: skip


def store_of(state: Path) -> Path:
    """Return the store of declarations of a state folder. Raises StorageError where there is none."""
    path = state / declarations.FILE
    if not path.is_file():
        raise StorageError(f"{path}: no declarations came in advance; see `scanlane help` on the driver cargo_feed")
    return path


def messages(state: Path, most: int, *, odd: bool = False, container: str = "") -> list[Message]:
    """Return the messages that came last, the newest first.

    odd : only those with problems, or that are not in force; container : only those that name it
    """
    found: list[Message] = []
    with reading(store_of(state)) as reader:
        for row in reader.rows(_MESSAGE, ("", "", "", "")):
            one = _message(row)
            names = {tidy(e.number) for e in one.message.equipment}
            if (odd and not one.message.problems and one.standing == "in force") or (
                container and tidy(container) not in names
            ):
                continue
            found.append(one)
            if len(found) == most:
                break
    return found


def named(state: Path, name: str) -> list[Message]:
    """Return every version of what a person names: a container, a document or a plate; first to last.

    Raises DataError where nothing has this name.
    """
    with reading(store_of(state)) as reader:
        found = [_message(row) for row in reader.rows(_MESSAGE, (name, name, name, tidy(name)))][::-1]
    if not found:
        raise DataError(
            f"{name[:80]}: no container, document, booking or plate of a message that is kept; `scanlane cargo list` "
            "shows what is, and what was turned away"
        )
    return found


def _message(row: tuple[Any, ...]) -> Message:
    *told, simulated, repeats, blob = row
    values = dict(zip(Message.__struct_fields__, told, strict=False))
    message = msgspec.json.decode(blob, type=CargoMessage)
    return Message(**values, simulated=bool(simulated), repeats=repeats, message=message)


def turned_away(place: Place, most: int) -> list[dict[str, Any]]:
    """Return deliveries that were refused or unreadable, the newest first: when, of whom, and why."""
    with reading(place) as reader:
        rows: Iterator[tuple[Any, ...]] = reader.rows(
            "SELECT utc_ns, kind, who, text FROM events WHERE kind IN (?, ?) ORDER BY seq DESC LIMIT ?",
            (*TURNED_AWAY, most),
        )
        return [
            {"utc_ns": int(at), "what": kind.removeprefix("cargo_"), "sender": who, "why": text}
            for at, kind, who, text in rows
        ]
