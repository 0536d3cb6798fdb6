"""What a scanner's own system tells of a passage: numbers read, operators, verdicts, detections, files.

Part of a scan beside what the lane saw itself. All of it is evidence of somebody else: carried word for word, with its
status, and never a clearance. Read from sidecars by `scanner_io.formats.sidecar`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .exact import Exact

Role = Literal[
    "radiograph", "preview", "processed", "vendor raw", "portal counts", "optical", "character recognition",
    "recognition", "unknown",
]  # fmt: skip


class Instant(msgspec.Struct, frozen=True, kw_only=True):
    """A time as it was written, and what it means.

    utc_ns : None where it cannot be read, or names no zone and the lane's is not known
    zone : "told" by the text, "assumed" from the lane's configuration, "unknown"
    """

    raw: str
    utc_ns: int | None = None
    zone: Literal["told", "assumed", "unknown"] = "unknown"


class NumberRead(msgspec.Struct, frozen=True, kw_only=True):
    """A container number or a plate.

    confidence : of the machine that read it, 0-100; None: typed, or nobody tells
    check_digit_ok : of a container number by ISO 6346; None for a plate and where characters could not be read
    slot : place in its list, from 0
    """

    text: str
    confidence: int | None = None
    check_digit_ok: bool | None = None
    country: str = ""
    slot: int = 0


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What a person or a machine did with the scan, in the order of the file, which is not that of time.

    kind, verdict : meanings of the codes, "unknown" where they have none
    """

    kind: str = "unknown"
    code: int | None = None
    start: Instant | None = None
    end: Instant | None = None
    login: str = ""
    workstation: str = ""
    site: str = ""
    system: str = ""
    verdict: str = "unknown"
    verdict_code: int | None = None
    position: int | None = None


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What the vendor's own recognition said.

    ran : False where it did not run; that is no result
    parameters : (name, text), in order; names repeat
    """

    kind: str
    meaning: str = "unknown"
    ran: bool = False
    mode: str = ""
    status: str = ""
    result: str = ""
    software_version: str = ""
    threshold: str = ""
    label: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A file that belongs to the passage. name : without any folder."""

    name: str
    role: Role = "unknown"
    type: str = ""
    linked: bool | None = None
    preview: bool | None = None
    deleted: bool = False


class Sidecar(Exact, frozen=True, kw_only=True):
    """A sidecar, read.

    scan_id, revision : of one source these two tell passages and their rewritings apart
    speed_setting, energy_level, inspection_type, scan_position : as set on the scanner, in its own units or codes
    state : the vendor's code of how far the scan has come
    flags, custom : the vendor's own, by name
    expected : types of files that are to come, told before the list of them; awaited : what such files are
    suspicions : names of the vendor's flags by which its system or its operators suspect something
    extra : (path, text) of what has no place here
    problems : what is odd or could not be read, in words
    """

    dialect: str
    software: str
    scan_id: str
    version: str = ""
    revision: int | None = None
    site: str = ""
    system: str = ""
    cycle_id: str = ""
    comments: str = ""
    declaration_id: str = ""
    parent_scan_id: str = ""
    parent_site_id: str = ""
    driver: str = ""
    terminal_answer: str = ""
    state: int | None = None
    state_since: Instant | None = None
    created: Instant | None = None
    updated: Instant | None = None
    beam_start: Instant | None = None
    beam_end: Instant | None = None
    cargo_start: Instant | None = None
    speed_setting: float | None = None
    energy_level: int | None = None
    inspection_type: int | None = None
    scan_position: int | None = None
    training: bool | None = None
    flags: dict[str, int] = msgspec.field(default_factory=dict)
    custom: dict[str, str] = msgspec.field(default_factory=dict)
    containers: tuple[NumberRead, ...] = ()
    plates: tuple[NumberRead, ...] = ()
    operations: tuple[Operation, ...] = ()
    detections: tuple[Detection, ...] = ()
    resources: tuple[Resource, ...] = ()
    expected: tuple[str, ...] = ()
    awaited: tuple[Role, ...] = ()
    suspicions: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    def listed(self, *roles: Role) -> tuple[Resource, ...]:
        """Return the files of these roles (none: of all) that the sidecar does not call deleted."""
        return tuple(r for r in self.resources if (r.role in roles or not roles) and not r.deleted)


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file that came with the passage and is not its image.

    contents : of small files of counts (`.Ntr`, `.Rad`), whose layout is not known; of others size and hash tell which
        one it was, where it was put to
    """

    name: str
    role: Role = "unknown"
    size_bytes: int = 0
    sha256: str = ""
    contents: bytes = b""


def in_words(told: Sidecar) -> list[str]:
    """Return what a person should know of a sidecar, a line each."""
    revision = "" if told.revision is None else f", revision {told.revision}"
    lines = [f"{told.software} {told.version} {told.scan_id}{revision}".replace("  ", " ")]
    for what, numbers in (("container", told.containers), ("plate", told.plates)):
        lines += [f"{what} {_number(n)}" for n in numbers]
    settings = {"speed": told.speed_setting, "energy": told.energy_level, "inspection type": told.inspection_type}
    told_of = [f"{name} {value:g}" for name, value in settings.items() if value is not None]
    if told_of:
        lines.append(f"set: {', '.join(told_of)} (the vendor's codes and units)")
    lines += [_operation(o) for o in told.operations]
    for detection in told.detections:
        how = detection.result or detection.status if detection.ran else "did not run"
        lines.append(f"vendor's detection {detection.kind} ({detection.meaning}): {how}")
    return [*lines, *(f"odd: {problem}" for problem in told.problems)]


def _number(number: NumberRead) -> str:
    how = "typed" if number.confidence is None else f"read, {number.confidence} %"
    return f"{number.text} ({how}{', check digit wrong' if number.check_digit_ok is False else ''})"


def _operation(operation: Operation) -> str:
    start, end = operation.start, operation.end
    when = f" {start.raw if start else '?'} to {end.raw if end else '?'}" if start or end else ""
    who = "".join(
        f" {word} {value}" for word, value in (("by", operation.login), ("at", operation.workstation)) if value
    )
    return f"{operation.kind}{when}{who}: {operation.verdict}"
