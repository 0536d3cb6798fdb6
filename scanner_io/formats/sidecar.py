"""What a scanner writes beside its image: who scanned what and when, numbers read, verdicts, and which files belong.

Vendors' element names are data (`sidecar_dialects.toml`), so that the next dialect is a table and no code. A parser of
such files must take what comes: one version comes in two encodings, every element may be missing, lists are padded with
blanks, clocks disagree. So nothing missing is an error; what is odd is listed in `problems`, what is not in the table
is kept in `extra`, and times are kept as they were written beside what they mean. A code whose meaning is not known is
"unknown" and clears nobody.

Source: `sidecar_dialects.toml`; ISO 6346:2022, annex A, for the check digit.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import msgspec
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from scanner_io.errors import DataError
from scanner_io.vendor_record import Detection, Instant, NumberRead, Operation, Resource, Role, Sidecar

from .iso6346 import check_digit_ok
from .times import utc_ns

MAX_BYTES = 1 << 20
"""Bytes of the largest sidecar read; real ones have 1 to 9 thousand."""
MAX_ELEMENTS = 20_000
MAX_TEXT = 2000
"""Characters of a text kept; longer ones are cut, and that is told."""
MAX_EXTRA = 200
"""Elements without a place in the record that are kept."""
NOT_A_SIDECAR = ("ocr.xml", "atr.xml")
"""Ends of names of XML files that lie beside a sidecar and describe no passage."""


def is_sidecar_name(name: str) -> bool:
    """Return whether a file of this name may be a sidecar."""
    return name.lower().endswith(".xml") and not name.lower().endswith(NOT_A_SIDECAR)


def parse_sidecar(data: bytes, *, name: str = "sidecar", utc_offset_h: float | None = None) -> Sidecar:
    """Return what a sidecar says.

    name : of the file, for messages
    utc_offset_h : hours by which the lane's clock is ahead of UTC, for times that name no zone

    Raises DataError where the bytes are no XML, or no dialect's, or name no scan: then nothing can be joined to it.
    """
    root = _root(data, name)
    for title, dialect in _dialects().items():
        if _local(root.tag) == dialect["root"]:
            return _Reader(root, title, dialect, name, utc_offset_h).read()
    known = ", ".join(d["root"] for d in _dialects().values())
    raise DataError(f"{name}: root element {_local(root.tag)[:60]!r} is no sidecar's known here ({known})")


def role_of_name(name: str, dialect: str = "") -> Role:
    """Return what a file is by its name, as sidecars of this dialect call theirs; "unknown" if it fits none.

    dialect : without it the first dialect that has roles
    """
    tables = [d["roles"] for title, d in _dialects().items() if "roles" in d and dialect in ("", title)]
    for role, endings in tables[0].items() if tables else ():
        if name.lower().endswith(tuple(endings)):
            found: Role = role
            return found
    return "unknown"


@lru_cache(maxsize=1)
def _dialects() -> dict[str, dict[str, Any]]:
    text = files("scanner_io.formats").joinpath("sidecar_dialects.toml").read_text("utf-8")
    return tomllib.loads(text)


def _root(data: bytes, name: str) -> Element:
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: {len(data)} bytes; sidecars have at most {MAX_BYTES}, so this is none")
    if not data.strip(b"\0 \t\r\n\xef\xbb\xbf\xff\xfe"):
        raise DataError(f"{name}: empty ({len(data)} bytes); wait for the scanner to write it, or ask for it again")
    failed = ""
    for text in _readings(data):
        try:
            root: Element = fromstring(text, forbid_dtd=True)
        except DefusedXmlException as error:
            raise DataError(f"{name}: document types and entities are refused ({type(error).__name__})") from error
        except (ParseError, ValueError, LookupError) as error:
            failed = failed or str(error)
            continue
        if sum(1 for _ in root.iter()) > MAX_ELEMENTS:
            raise DataError(f"{name}: more than {MAX_ELEMENTS} elements; this is no sidecar")
        return root
    raise DataError(f"{name}: not readable as XML ({failed}); it may be half written or damaged")


def _readings(data: bytes) -> Iterator[bytes | str]:
    """Yield the bytes as they are, then as text in the codes that sites were seen to use."""
    yield data
    for code in ("utf-16", "utf-16-le", "utf-8-sig", "cp1252"):
        try:
            text = data.decode(code)
        except UnicodeDecodeError:
            continue
        yield re.sub(r"^\s*<\?xml[^>]*\?>", "", text.lstrip("\ufeff"))


class _Reader:
    """One sidecar being read by the table of its dialect."""

    def __init__(self, root: Element, title: str, dialect: dict[str, Any], name: str, offset_h: float | None) -> None:
        self._root, self._title, self._dialect, self._name = root, title, dialect, name
        self._offset_h = offset_h
        self._problems: list[str] = []
        self._used: set[Element | tuple[Element, str]] = set()

    def read(self) -> Sidecar:
        fields = self._values(self._root, self._dialect["fields"], "")
        if not fields.get("scan_id"):
            raise DataError(f"{self._name}: no scan's number, so that nothing can be joined to it; see the scanner")
        operations = tuple(self._operations())
        told = Sidecar(
            dialect=self._title, software=self._dialect["software"], **fields, operations=operations,
            containers=self._numbers("container"), plates=self._numbers("plate"),
            detections=tuple(self._detections()), resources=tuple(self._resources()),
            expected=tuple(v["type"] for _, v in self._each("expected") if v.get("type")),
            flags=self._named_numbers("flag") | self._named_numbers("instruction"), custom=self._custom(),
        )  # fmt: skip
        codes, suspicious = self._dialect.get("codes", {}).get("expected", {}), self._dialect.get("suspicion", [])
        told = msgspec.structs.replace(
            told, awaited=tuple(dict.fromkeys(codes[e] for e in told.expected if e in codes)),
            suspicions=tuple(name for name in suspicious if told.flags.get(name)),
        )  # fmt: skip
        self._check_order("the beam", told.beam_start, told.beam_end)
        return msgspec.structs.replace(told, extra=tuple(self._extra()), problems=tuple(self._problems))

    def _values(self, at: Element, table: dict[str, Any], where: str) -> dict[str, Any]:
        """Return the fields of a table that are there, by name."""
        found: dict[str, Any] = {}
        for field, told in table.items():
            if field in ("path", "names", "pattern"):
                continue
            kind, _, path = told.partition(" ")
            for text in self._texts(at, path):
                value = self._typed(kind, text, f"{where}{field}")
                if value is not None and not found.get(field):
                    found[field] = value
        return found

    def _typed(self, kind: str, text: str, where: str) -> Any:
        """Return a text as its type; None where it is empty, or cannot be read, which is noted."""
        if text == "" and kind != "text":
            return None
        if kind == "text":
            return self._text(text)
        try:
            return instant(text, self._offset_h) if kind == "instant" else _NUMBERS[kind](text)
        except ValueError:
            self._note(f"{where}: {text[:60]!r} is no {kind}")
            return None

    def _text(self, text: str) -> str:
        if len(text) > MAX_TEXT:
            self._note(f"a text of {len(text)} characters is cut to {MAX_TEXT}")
        return text[:MAX_TEXT]

    def _note(self, text: str) -> None:
        if text not in self._problems and len(self._problems) < MAX_EXTRA:
            self._problems.append(text)

    def _check_order(self, what: str, start: Instant | None, end: Instant | None) -> None:
        if start and end and start.utc_ns is not None and end.utc_ns is not None and end.utc_ns < start.utc_ns:
            early_s = (start.utc_ns - end.utc_ns) / 1e9
            self._note(f"{what} ends {early_s:.0f} s before it begins ({start.raw} to {end.raw}): two clocks")

    # ------------------------------------------------------------------------------------------------------- lists

    def _each(self, name: str) -> Iterator[tuple[Element, dict[str, Any]]]:
        table = self._dialect["each"].get(name)
        for number, element in enumerate(self._elements(table["path"]) if table else ()):
            yield element, self._values(element, table, f"{name} {number + 1}, ")

    def _numbers(self, name: str) -> tuple[NumberRead, ...]:
        found = []
        for slot, (_, values) in enumerate(self._each(name)):
            text = re.sub(r"[\s-]", "", values.get("text", "")).upper()
            if not text:  # padding
                continue
            good = check_digit_ok(text) if name == "container" else None
            if good is False:
                self._note(f"container {text}: its check digit does not fit, so a character was misread")
            elif good is None and name == "container":
                self._note(f"container {text}: not four letters and seven digits")
            found.append(NumberRead(**(values | {"text": text}), check_digit_ok=good, slot=slot))
        return tuple(found)

    def _operations(self) -> Iterator[Operation]:
        for number, (_, values) in enumerate(self._each("operation")):
            kind, verdict = (
                self._meaning("operation", values.get("code")),
                self._meaning("verdict", values.get("verdict_code")),
            )
            self._check_order(f"operation {number + 1} ({kind})", values.get("start"), values.get("end"))
            if values:
                yield Operation(**values, kind=kind, verdict=verdict)

    def _detections(self) -> Iterator[Detection]:
        for element, values in self._each("detection"):
            table = self._dialect["each"]["detection_parameter"]
            parameters = []
            for parameter in _below(element, table["path"]):
                self._used.add(parameter)
                told = self._values(parameter, table, "detection, ")
                parameters.append((told.get("name", ""), told.get("text", "")))
            kind = values.pop("kind", "")
            yield Detection(
                **values, kind=kind, meaning=self._meaning("detection", kind), parameters=tuple(parameters),
                ran=values.get("status", "").lower() == "success",
            )  # fmt: skip

    def _resources(self) -> Iterator[Resource]:
        seen: set[str] = set()
        for _, values in self._each("resource"):
            name = values.pop("name", "")
            if not name:
                continue
            if name in (".", "..") or any(c in name for c in "/\\:\0") or len(name.encode()) > 255:
                self._note(f"file {name[:80]!r} is not taken: a name leads out of the folder or is no file's")
                continue
            if name.lower() in seen:
                self._note(f"file {name!r} is listed twice")
                continue
            seen.add(name.lower())
            yield Resource(**({"deleted": False} | values), name=name, role=self._role(name, values.get("preview")))

    def _role(self, name: str, preview: bool | None) -> Role:
        role = role_of_name(name, self._title)
        return "preview" if role == "radiograph" and preview else role

    def _named_numbers(self, name: str) -> dict[str, int]:
        table = self._dialect["each"].get(name, {"path": "", "names": []})
        found = {}
        for element in self._elements(table["path"]) if table["names"] else ():
            for child in element:
                if _local(child.tag) in table["names"]:
                    self._used.add(child)
                    value = self._typed("int", (child.text or "").strip(), _local(child.tag))
                    if value is not None:
                        found[_local(child.tag)] = value
        return found

    def _custom(self) -> dict[str, str]:
        table = self._dialect["each"].get("custom")
        found = {}
        for element in self._elements(table["path"]) if table else ():
            for child in element:
                if re.fullmatch(table["pattern"], _local(child.tag)):
                    self._used.add(child)
                    found[_local(child.tag)] = self._text((child.text or "").strip())
        return found

    def _meaning(self, codes: str, value: int | str | None) -> str:
        return str(self._dialect.get("codes", {}).get(codes, {}).get(str(value), "unknown"))

    # ------------------------------------------------------------------------------------------------------- paths

    def _elements(self, paths: str) -> list[Element]:
        found = [element for path in paths.split("|") for element in self._chosen(self._root, path.strip())]
        self._used.update(found)
        return found

    def _texts(self, at: Element, paths: str) -> Iterator[str]:
        """Yield the texts that paths lead to, alternatives in turn."""
        for path in paths.split("|"):
            steps, attribute = path.strip(), ""
            if steps.rpartition("/")[2].startswith("@"):
                steps, _, attribute = steps.rpartition("/")
            for element in self._chosen(at, steps or "."):
                if attribute:
                    self._used.add((element, attribute[1:]))
                    yield element.get(attribute[1:], "").strip()
                else:
                    self._used.add(element)
                    yield (element.text or "").strip()

    def _chosen(self, at: Element, path: str) -> list[Element]:
        """Return the elements that a path leads to; an attribute by which one is chosen has been read with that."""
        found = _below(at, path)
        attribute = path.rpartition("/")[2].partition("[@")[2].partition("=")[0]
        self._used.update((element, attribute) for element in found if attribute)
        return found

    def _extra(self) -> Iterator[tuple[str, str]]:
        """Yield texts and attributes that nothing has read."""
        left = 0
        for path, element in _walk(self._root, ""):
            told = [(f"{path}/@{_local(k)}", v) for k, v in element.items() if (element, k) not in self._used]
            if element not in self._used and (element.text or "").strip():
                told.append((path, (element.text or "").strip()))
            for where, text in told:
                if _says_nothing(text):
                    continue
                left += 1
                if left <= MAX_EXTRA:
                    yield where, self._text(text)
        if left > MAX_EXTRA:
            self._note(f"{left - MAX_EXTRA} further elements without a place in the record are not kept")


def _flag(text: str) -> bool:
    words = {"true": True, "false": False}
    return words[text.lower()] if text.lower() in words else _whole(text) != 0


def _confidence(text: str) -> int | None:
    value = _whole(text)
    if value > 100:
        raise ValueError(text)
    return value if value >= 0 else None


def _whole(text: str) -> int:
    """Return a whole number; ValueError for one that no device has counted to."""
    value = int(text[:40])
    if not -1 << 63 <= value < 1 << 63:
        raise ValueError(text)
    return value


_NUMBERS: dict[str, Callable[[str], Any]] = {"int": _whole, "number": float, "flag": _flag, "confidence": _confidence}

_ZONE = re.compile(r"(?:(?P<z>[zZ])|(?P<sign>[+-])(?P<h>\d\d):?(?P<m>\d\d)?)$")


def instant(text: str, utc_offset_h: float | None = None) -> Instant:
    """Return a time as scanners write it: with T, blank or _ between date and time, with or without zone and parts.

    A date alone is no instant. Raises ValueError for what is no time at all, fillers of the years 1 and 9999 too.
    """
    body = text.strip()
    if re.fullmatch(r"\d{4}[-/]\d\d?[-/]\d\d?", body):
        datetime.fromisoformat("-".join(f"{int(p):02d}" for p in re.split("[-/]", body)))
        return Instant(raw=text)
    zone = _ZONE.search(body[10:])
    told = body[: len(body) - len(zone.group())] if zone else body
    told = told.replace(",", ".").replace("/", "-")
    told = told[:10] + "T" + told[11:] if len(told) > 10 and told[10] in " _tT" else told
    parsed = datetime.fromisoformat(told)
    if zone:
        offset = 0.0 if zone["z"] else (1 if zone["sign"] == "+" else -1) * (int(zone["h"]) + int(zone["m"] or 0) / 60)
    elif utc_offset_h is None:
        return Instant(raw=text)
    else:
        offset = utc_offset_h
    at_ns = utc_ns(parsed, timedelta(hours=offset))
    return Instant(raw=text, utc_ns=at_ns, zone="told" if zone else "assumed")


def _local(tag: Any) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _below(at: Element, path: str) -> list[Element]:
    """Return the elements that a path of local names leads to; `Name[@attribute=value]` chooses among them."""
    found = [at]
    for step in path.split("/"):
        if step == ".":
            continue
        name, _, condition = step.partition("[@")
        attribute, _, value = condition.rstrip("]").partition("=")
        found = [
            child
            for element in found
            for child in element
            if _local(child.tag) == name and (not condition or child.get(attribute) == value)
        ]
    return found


def _walk(element: Element, path: str) -> Iterator[tuple[str, Element]]:
    waiting = [(path, element)]
    while waiting:
        where, node = waiting.pop()
        yield where or ".", node
        waiting += [(f"{where}/{_local(c.tag)}".lstrip("/"), c) for c in reversed(node)]


def _says_nothing(text: str) -> bool:
    """Return whether a text is empty or a zero: corners of containers that nobody set."""
    try:
        return float(text) == 0
    except ValueError:
        return not text.strip()
