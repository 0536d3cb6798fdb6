"""Bytes to a tree of elements, of files that are XML only for the most part.

Instruments write prefixes they never bind, control characters, several documents end to end, and files that end in the
middle. So names are taken as they are written (no namespace processing: an unbound prefix is then no error), every root
element is parsed on its own, and after a place that is not well-formed reading goes on with the next measurement. What
was open there is marked `broken`, for half a list of counts must not pass for a whole one.

Document types and entities are refused before the parser sees them, and by the parser (defusedxml) once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from ...errors import DataError
from .document import Problem

MAX_BYTES = 64 << 20
"""Bytes of the largest file read: an hour of a spectroscopic portal."""
MAX_ELEMENTS = 1_000_000
"""Elements and attributes of one file."""
MAX_DEPTH = 64
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_CHARACTERS = 65_536
MAX_DOCUMENTS = 10_000
"""Root elements in one file."""
MAX_RESUMES = 20
"""Places in one root element after which reading goes on."""
MAX_PROBLEMS = 100

ROOTS = {"RadInstrumentData": "2012", "N42InstrumentData": "2006"}
COUNT_ELEMENTS = frozenset({"ChannelData", "CountData", "TotalCountData", "Counts", "CountRate", "TotalCounts"})
"""Elements that hold counts, in either edition; in that of 2006 also `GrossCounts` with a text."""

TELLING_ELEMENTS = frozenset({"RadAlarm", "Nuclide", "OccupancyIndicator", "Occupied"})
"""Elements that, unread, may hide an alarm or a passage."""

_ROOT = re.compile(r"<(?P<name>(?:[\w.-]+:)?(?P<local>RadInstrumentData|N42InstrumentData))(?=[\s>/])")
_RESUME = re.compile(r"<(?:[\w.-]+:)?(?:RadMeasurement|DerivedData|AnalysisResults|DetectorData|Measurement)(?=[\s>])")
_TYPES = re.compile(r"<!\s*(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_ENCODINGS = {"utf-8", "us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "latin-1", "windows-1252", "windows-1251"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_LONE_AMPERSAND = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")
_BOUND = ("http://physics.nist.gov/n42", "http://physics.nist.gov/divisions/div846/gp4/ansin4242")
_OWN_PREFIXES = frozenset({"", "n42", "n42ns"})
_LONG_TAG = re.compile(r"<[^<>]{200000}")
_NOTHING: dict[str, str] = {}
_PIECE = 1 << 22
"""Characters given to the parser at once: few pieces, since it may look at an unfinished piece anew with each."""


class Report:
    """Collects problems, a bounded number of them."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._more = 0
        self._more_lost = False
        self._more_harmless = True

    def add(self, line: int, where: str, text: str, *, lost: bool = False, harmless: bool = False) -> None:
        """Note a problem."""
        problem = Problem(line=line, where=where[:60], text=text[:400], counts_lost=lost, harmless=harmless)
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(problem)
        else:
            self._more += 1
            self._more_lost |= lost
            self._more_harmless &= harmless

    def problems(self) -> tuple[Problem, ...]:
        """Return what was noted."""
        if not self._more:
            return tuple(self._found)
        text = f"{self._more} further problems of this file are not listed"
        more = Problem(line=0, where="file", text=text, counts_lost=self._more_lost, harmless=self._more_harmless)
        return (*self._found, more)


class Node:
    """An element.

    foreign : of a vendor's own vocabulary
    broken : the file broke off or went wrong inside it
    used : something has read it
    """

    __slots__ = ("_parts", "attributes", "broken", "children", "foreign", "line", "name", "used")

    def __init__(self, name: str, attributes: dict[str, str], line: int, *, foreign: bool) -> None:
        self.name = name
        self.attributes = attributes
        self.line = line
        self.foreign = foreign
        self.children: Sequence[Node] = ()
        self.broken = False
        self.used = False
        self._parts: list[str] | None = None

    def append(self, child: Node) -> None:
        """Add a child."""
        if isinstance(self.children, list):
            self.children.append(child)
        else:
            self.children = [child]

    def write(self, text: str) -> None:
        """Append to the element's own text."""
        if self._parts is None:
            self._parts = []
        self._parts.append(text)

    @property
    def text(self) -> str:
        """The element's own text, without blanks around it."""
        return "".join(self._parts).strip() if self._parts else ""

    def all(self, *names: str) -> Iterator[Node]:
        """Yield the children of these names, of the standard's vocabulary, and mark them as read."""
        for child in self.children:
            if child.name in names and not child.foreign:
                child.used = True
                yield child

    def first(self, *names: str) -> Node | None:
        """Return the first child of one of these names and mark it as read."""
        return next(self.all(*names), None)

    def word(self, *names: str) -> str:
        """Return the text of the first child of one of these names, "" without one."""
        child = self.first(*names)
        return child.text if child is not None else ""

    def words(self, name: str) -> tuple[str, ...]:
        """Return the texts of all children of this name that have one."""
        return tuple(c.text for c in self.all(name) if c.text)

    def walk(self) -> Iterator[Node]:
        """Yield the element and all below it, in the order of the file."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


class _Scope:
    """Which prefixes belong to the standard, by what has been bound so far and by custom."""

    def __init__(self, root_prefix: str) -> None:
        self._root_prefix = root_prefix
        self.unbound: set[str] = set()
        self._bound: dict[str, bool] = {}

    def bind(self, attributes: dict[str, str]) -> None:
        """Take the bindings of an element."""
        for name, value in attributes.items():
            if name.startswith("xmlns:"):
                self._bound[name[6:]] = value.strip().lower().startswith(_BOUND)

    def foreign(self, prefix: str, attributes: dict[str, str]) -> bool:
        """Return True if an element of this prefix is of a vendor's vocabulary."""
        if not prefix and (space := attributes.get("xmlns", "").strip().lower()):
            return not space.startswith(_BOUND)
        if prefix == self._root_prefix or prefix in _OWN_PREFIXES:
            return False
        if prefix not in self._bound and len(self.unbound) < MAX_PROBLEMS:
            self.unbound.add(prefix)
        return not self._bound.get(prefix, False)


class _Handler(ContentHandler):
    """SAX events to nodes, within the caps."""

    def __init__(self, scope: _Scope, budget: list[int], first_line: int) -> None:
        super().__init__()
        self._locator: Any = None
        self._scope = scope
        self._budget = budget
        self._first_line = first_line
        self._open: list[Node] = []
        self.top: Node | None = None
        self.end: tuple[int, int] | None = None

    @property
    def here(self) -> tuple[int, int]:
        """Line and column within the text being parsed, both from 0."""
        return int(self._locator.getLineNumber() or 1) - 1, int(self._locator.getColumnNumber() or 0)

    @property
    def line(self) -> int:
        """Line of the file."""
        return self._first_line + self.here[0]

    def startElement(self, name: str, attrs: Any) -> None:  # noqa: N802 -- SAX's name
        """Open an element. Raises DataError beyond a cap."""
        attributes = dict(attrs.items()) or _NOTHING
        self._budget[0] -= 1 + len(attributes)
        if self._budget[0] < 0:
            raise DataError(f"line {self.line}: more than {MAX_ELEMENTS} elements and attributes; split the file")
        if len(self._open) >= MAX_DEPTH:
            raise DataError(f"line {self.line}: elements nested deeper than {MAX_DEPTH}; such files are refused")
        if len(attributes) > MAX_ATTRIBUTES or any(len(v) > MAX_ATTRIBUTE_CHARACTERS for v in attributes.values()):
            raise DataError(
                f"line {self.line}: <{name[:60]}> has more than {MAX_ATTRIBUTES} attributes, or one of more than "
                f"{MAX_ATTRIBUTE_CHARACTERS} characters; such files are refused"
            )
        self._scope.bind(attributes)
        prefix, _, local = name.rpartition(":")
        above = self._open[-1] if self._open else None
        foreign = above is not None and (above.foreign or self._scope.foreign(prefix, attributes))
        node = Node(local, attributes, self.line, foreign=foreign)
        if above is None:
            self.top = node
        else:
            above.append(node)
        self._open.append(node)

    def endElement(self, name: str) -> None:  # noqa: N802 -- SAX's name
        """Close the element."""
        self._open.pop()
        if not self._open:
            self.end = self.here

    def characters(self, content: str) -> None:
        """Take text."""
        if self._open:
            self._open[-1].write(content)

    def break_off(self) -> str:
        """Mark what is open as broken and return the innermost of it."""
        for node in self._open:
            node.broken = True
        return self._open[-1].name if self._open else ""


def parse(content: bytes, report: Report) -> list[Node]:
    """Return the root elements of an N42 file, each a `RadInstrumentData` or `N42InstrumentData`.

    Raises DataError for what is no N42 file, holds document types or entities, or goes beyond a cap.
    """
    if len(content) > MAX_BYTES:
        raise DataError(f"{len(content)} bytes, at most {MAX_BYTES} are read; split the file")
    text = _mend(_decode(content, report), report)
    if match := _TYPES.search(text):
        raise DataError(
            f"line {_line(text, match.start())}: {match.group()!r}: document types and entities are refused, for they "
            "can fetch other files and grow without bound; N42 needs none"
        )
    starts = list(_ROOT.finditer(text))
    if not starts:
        seen = repr(text[:40]) if text.strip() else "nothing but blanks"
        raise DataError(f"line 1: no RadInstrumentData or N42InstrumentData element, begins with {seen}; no N42 file")
    if len(starts) > MAX_DOCUMENTS:
        raise DataError(f"{len(starts)} documents end to end, at most {MAX_DOCUMENTS} are read; split the file")
    if len(starts) > 1:
        line = _line(text, starts[1].start())
        words = f"{len(starts)} documents end to end in one file; they are joined"
        report.add(line, starts[1]["local"], words, harmless=True)
    if match := _LONG_TAG.search(text):
        raise DataError(
            f"line {_line(text, match.start())}: a tag of more than 200000 characters; such files are refused"
        )
    _check_outside(text[: starts[0].start()], 1, report)
    budget = [MAX_ELEMENTS]
    roots: list[Node] = []
    line, at = 1, 0
    for i, match in enumerate(starts):
        line += text.count("\n", at, match.start())
        at = match.start()
        end = starts[i + 1].start() if i + 1 < len(starts) else len(text)
        roots.append(_parse_root(text[at:end], match["name"], line, budget, report))
    return roots


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _decode(content: bytes, report: Report) -> str:
    """Return the text; what cannot be decoded becomes U+FFFD, which no number survives."""
    encoding = "utf-8-sig"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif content.startswith((b"<\x00", b"\x00<")):
        encoding = "utf-16-le" if content[:1] == b"<" else "utf-16-be"
    elif (match := _ENCODING.match(content[:300])) and (told := match[1].decode("ascii").lower()) in _ENCODINGS:
        encoding = told if told != "utf-8" else encoding
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        text = content.decode(encoding, "replace")
        line = content.count(b"\n", 0, error.start) + 1
        report.add(line, "file", f"bytes that are no {encoding.removesuffix('-sig')} ({error.reason}); read as U+FFFD")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _mend(text: str, report: Report) -> str:
    """Return the text without what no XML parser takes: control characters, ampersands that begin nothing."""
    for pattern, instead, harmless, words in (
        (_CONTROL, "\ufffd", False, "control characters, which XML forbids; read as U+FFFD"),
        (_LONE_AMPERSAND, "&amp;", True, "ampersands that begin no known entity; read as they stand"),
    ):
        if match := pattern.search(text):
            line = _line(text, match.start())
            text, found = pattern.subn(instead, text)
            report.add(line, "file", f"{found} {words}", harmless=harmless)
    return text


def _parse_root(text: str, name: str, line: int, budget: list[int], report: Report) -> Node:
    """Return the element that begins at `text`, with what can be read behind places that are not well-formed."""
    scope = _Scope(name.rpartition(":")[0])
    root = Node(name.rpartition(":")[2], {}, line, foreign=False)
    told: set[str] = set()
    prefix, at = "", 0
    for _ in range(MAX_RESUMES + 1):
        handler, stop, why = _feed(prefix + text[at:], scope, budget, line)
        for name_of in sorted(scope.unbound - told):
            told.add(name_of)
            words = "a prefix that is bound nowhere; its elements are a vendor's own"
            report.add(handler.line, f"{name_of}:", words, harmless=True)
        if handler.top is not None:
            root.attributes = root.attributes or handler.top.attributes
            for child in handler.top.children:
                root.append(child)
        stop = at + max(0, stop - len(prefix))
        if handler.end is not None:
            _check_outside(text[stop:].partition(">")[2], handler.line, report)
            return root
        inside = handler.break_off() or name
        following = _RESUME.search(text, stop)
        resumed = following.start() if following else len(text)
        unread = text.count("\n", stop, resumed)
        words = f"{why} inside <{inside}>: it is kept as far as it goes, and {unread} lines after it are not read"
        report.add(line + text.count("\n", at, stop), inside, words, lost=True)
        root.broken = True
        if following is None:
            return root
        line += text.count("\n", at, resumed)
        prefix, at = f"<{name}>", resumed
    report.add(line, name, f"not well-formed in more than {MAX_RESUMES} places; the rest is not read", lost=True)
    return root


def _feed(text: str, scope: _Scope, budget: list[int], line: int) -> tuple[_Handler, int, str]:
    """Parse one element. Return the handler, where in `text` parsing ended, and why if not with the element."""
    handler = _Handler(scope, budget, line)
    parser = DefusedExpatParser(forbid_dtd=True)
    parser.setContentHandler(handler)
    handler.setDocumentLocator(parser)  # feed() does not, unlike parse()
    why, place = "the file ends", None
    try:
        for at in range(0, len(text), _PIECE):
            parser.feed(text[at : at + _PIECE])
            if handler.end is not None:
                break
        else:
            parser.close()
    except SAXParseException as error:
        why = str(error.getMessage())
        place = ((error.getLineNumber() or 1) - 1, error.getColumnNumber() or 0)
    except DefusedXmlException as error:
        raise DataError(f"line {handler.line}: {error}; such files are refused") from error
    place = handler.end or place
    return handler, len(text) if place is None else _offset(text, *place), why


def _offset(text: str, line: int, column: int) -> int:
    """Return the offset of a line and column, both from 0."""
    start = 0
    for _ in range(line):
        start = text.find("\n", start) + 1
    return min(start + column, len(text))


def _check_outside(text: str, line: int, report: Report) -> None:
    """Note what stands before or behind a document, unless it is a declaration or a plain envelope."""
    names = set(re.findall(r"<(?:[\w.-]+:)?(\w+)", text))
    if found := names & (COUNT_ELEMENTS | TELLING_ELEMENTS):
        report.add(line, "file", f"<{min(found)}> outside of any document; not read", lost=True)
    if stray := _beside_markup(text).strip("\ufffd \t\n"):
        report.add(line, "file", f"{stray[:40]!r} outside of any document; not read")


def _beside_markup(text: str) -> str:
    """Return a text without its tags, comments and processing instructions; in one pass, whatever it holds."""
    beside: list[str] = []
    at = 0
    while (start := text.find("<", at)) >= 0:
        beside.append(text[at:start])
        closing = {"<!": "-->", "<?": "?>"}.get(text[start : start + 2])
        if closing is not None:
            end = text.find(closing, start)
            if end < 0:
                at = start
                break
            at = end + len(closing)
        else:
            following = text.find("<", start + 1)
            end = text.find(">", start, following if following >= 0 else len(text))
            at = end + 1 if end >= 0 else start + 1
            beside += ["<"] if end < 0 else []
    return "".join((*beside, text[at:]))
