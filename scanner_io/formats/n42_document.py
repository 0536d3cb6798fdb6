"""Radiation data files of ANSI N42.42: types and reader for the 2012 form (schema "2011") and the 2006 form.

A count of the file is either in the document or named in its `problems`: nothing is dropped in silence. What is no
N42 document, or is larger than the limits here, is refused with DataError.

Source: ANSI N42.42-2012 with its schema `n42.xsd` 0.0.54; ANSI N42.42-2006.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, ParseError, TreeBuilder  # defusedxml does the parsing

import msgspec
import numpy as np
import numpy.typing as npt
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ..errors import DataError
from ..model import MAX_CHANNELS, NANOSECONDS, frozen_array

MAX_BYTES = 64 << 20
"""Bytes of the largest file read; a recorded passage of eight spectroscopic detectors has 3.3 million."""
MAX_ELEMENTS = 500_000
"""XML elements of the largest file; that recorded passage has 14 thousand."""
MAX_DEPTH = 64
"""Elements inside each other; the deepest of the standard's examples has 8."""
MAX_MEASUREMENTS = 50_000
"""Time slices of the largest file: over an hour in slices of 0.1 s."""
MAX_TOTAL_CHANNELS = 48_000_000
"""Channels of all spectra together, a bound on memory: a run of zeroes is short in the file and long in memory."""
MAX_PROBLEMS = 100
"""Problems told one by one; further ones are counted."""
MAX_DOCUMENTS = 1000
"""Documents in one file."""

NAMESPACE_2011 = "http://physics.nist.gov/N42/2011/N42"

_NUMBERS = re.compile(r"[0-9eE+.\s-]*")
_DURATION = re.compile(r"P(?:(\d{1,5})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,9}(?:\.\d{0,12})?|\.\d{1,12})S)?)?")
_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,12}))?\s*(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE
)
_START_TAG = re.compile(rb"<([A-Za-z_][\w.-]{0,63})(:[\w.-]{1,128})?")
_PREFIX = re.compile(rb"[</\s]([A-Za-z_][\w.-]{0,63}):[A-Za-z_][\w.-]{0,128}(?=[\s=/>])")
_DECLARED = re.compile(rb"xmlns:([A-Za-z_][\w.-]{0,63})\s*=")
_SPEED_REMARK = re.compile(r"\bspeed\b[^\d]{0,12}(\d{1,4}(?:\.\d{1,6})?)\s*(mph|km/h|kph|m/s)?", re.IGNORECASE)
_ROOTS = ("RadInstrumentData", "N42InstrumentData")
_COUNTS = frozenset({"ChannelData", "CountData", "Counts"})


class Characteristic(msgspec.Struct, frozen=True, kw_only=True):
    """One named property as the file tells it."""

    name: str
    value: str
    units: str = ""
    data_class: str = "string"


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """The instrument. class_code : e.g. "Portal Monitor"; versions : (component, version)."""

    id: str = ""
    manufacturer: str = ""
    identifier: str = ""
    model: str = ""
    description: str = ""
    class_code: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    characteristics: tuple[Characteristic, ...] = ()


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """A detector.

    category : Gamma, Neutron, Alpha, Beta, X-ray or Other
    declared : False where only counts name it
    """

    id: str
    category: str
    kind: str = ""
    name: str = ""
    description: str = ""
    declared: bool = True


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured, e.g. a vehicle with its container."""

    id: str
    description: str = ""
    characteristics: tuple[Characteristic, ...] = ()

    @property
    def container_id(self) -> str | None:
        """The container's number where one is told."""
        for c in self.characteristics:
            if c.name.replace(" ", "").lower() == "containerid":
                return c.value
        return None


class EnergyWindows(msgspec.Struct, frozen=True, kw_only=True):
    """Energy windows of gross counts; they may overlap. start_kev, end_kev : one value per window."""

    id: str
    start_kev: tuple[float, ...]
    end_kev: tuple[float, ...]

    @property
    def overlap(self) -> bool:
        """True where a count may be in two windows."""
        pairs = sorted(zip(self.start_kev, self.end_kev, strict=True))
        return any(a[1] > b[0] for a, b in pairwise(pairs))

    @property
    def widest(self) -> int:
        """Index of the widest window, the first of several."""
        widths = [b - a for a, b in zip(self.start_kev, self.end_kev, strict=True)]
        return widths.index(max(widths))


class EnergyCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of a channel: polynomial coefficients in keV (any number of them), or boundaries in keV."""

    id: str
    coefficients: tuple[float, ...] = ()
    boundaries_kev: tuple[float, ...] = ()


class GrossCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one detector in one slice.

    counts : one per energy window in the order of the windows, or one
    live_time_s : None where it is not told
    raw : ids of the counts that these are derived from
    """

    detector: str
    counts: tuple[float, ...]
    windows: str = ""
    live_time_s: float | None = None
    id: str = ""
    raw: tuple[str, ...] = ()


class Spectrum(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A spectrum of one detector in one slice.

    counts : `(channels,) uint32`, or float64 where the file has fractions or more than 32 bits hold
    raw : ids of the spectra that this one is derived from
    calibrations : energy calibrations named; two where two ranges lie end to end in one list of channels
    """

    detector: str
    counts: npt.NDArray[Any]
    calibrations: tuple[str, ...] = ()
    live_time_s: float | None = None
    id: str = ""
    raw: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check and freeze. Raises DataError."""
        dtype = np.float64 if self.counts.dtype == np.float64 else np.uint32
        msgspec.structs.force_setattr(self, "counts", frozen_array("Spectrum", "counts", self.counts, dtype, (None,)))


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that the instrument tells. of : id of the instrument or detector; severity : Fatal, Error, Warning."""

    code: str
    description: str
    severity: str
    of: str = ""


class Measurement(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One time slice.

    class_code : Foreground, Background ...: in portals no sign of occupancy
    start_utc_ns : None where it cannot be read
    real_time_s : None where it is not told
    occupied : the portal's own indicator, None where it tells none
    speed, speed_unit : as told; the 2012 form has no unit
    derived : computed from other measurements (DerivedData): not to be counted again
    """

    id: str
    class_code: str
    start_utc_ns: int | None
    real_time_s: float | None
    gross_counts: tuple[GrossCounts, ...] = ()
    spectra: tuple[Spectrum, ...] = ()
    occupied: bool | None = None
    faults: tuple[Fault, ...] = ()
    speed: float | None = None
    speed_unit: str = ""
    groups: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    derived: bool = False


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm of the instrument. category : Neutron, Gamma, Alpha, Beta, Isotope or Other."""

    category: str
    description: str = ""
    light_color: str = ""
    detectors: tuple[str, ...] = ()
    utc_ns: int | None = None


class Nuclide(msgspec.Struct, frozen=True, kw_only=True):
    """A nuclide result. confidence : as told, None where only words are; category : e.g. SNM, Industrial."""

    name: str
    identified: bool
    confidence: float | None = None
    confidence_words: str = ""
    category: str = ""


class AnalysisResults(msgspec.Struct, frozen=True, kw_only=True):
    """What the instrument made of its measurements; exactly one of the three references is told in a valid file."""

    groups: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    algorithm: str = ""
    alarms: tuple[Alarm, ...] = ()
    nuclides: tuple[Nuclide, ...] = ()
    faults: tuple[Fault, ...] = ()


class Document(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An N42 document.

    form : schema it was read in
    measurements : in the order of the file, derived ones included
    problems : what could not be read, or was mended; empty for a sound file
    lost : how many of the problems mean counts, alarms or results that are not in the document
    """

    form: Literal["2011", "2006"]
    instrument: Instrument
    detectors: tuple[Detector, ...]
    measurements: tuple[Measurement, ...]
    items: tuple[Item, ...] = ()
    windows: tuple[EnergyWindows, ...] = ()
    calibrations: tuple[EnergyCalibration, ...] = ()
    groups: tuple[str, ...] = ()
    results: tuple[AnalysisResults, ...] = ()
    uuid: str = ""
    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    lost: int = 0

    @property
    def is_portal(self) -> bool:
        """True for a portal of any sort ("Portal Monitor", "SpecPortal" ...)."""
        return "portal" in self.instrument.class_code.lower()


# --------------------------------------------------------------------------------------------------------------
# XML


class _Builder(TreeBuilder):
    """A tree within bounds: what is too deep or too much ends the parse, before memory does."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        self._depth = self._elements = 0

    def start(self, tag: str, attrs: dict[Any, Any], /) -> Element:
        self._depth += 1
        self._elements += 1
        if self._depth > MAX_DEPTH:
            raise DataError(f"{self._where}: elements more than {MAX_DEPTH} deep; this is no N42 file")
        if self._elements > MAX_ELEMENTS:
            raise DataError(f"{self._where}: more than {MAX_ELEMENTS} elements; cut the file into passages")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def _parse(data: bytes, where: str) -> Element:
    """Return the root element. Raises DataError for what is not well-formed, and for DTDs and entities."""
    parser = DefusedXMLParser(target=_Builder(where), forbid_dtd=True)
    try:
        parser.feed(data)
        return parser.close()  # type: ignore[no-any-return]
    except DefusedXmlException as error:
        raise DataError(
            f"{where}: holds a DTD or entities ({type(error).__name__}); N42 needs none, refused"
        ) from error
    except (ParseError, LookupError, ValueError) as error:  # an unknown encoding is a LookupError or a ValueError
        raise DataError(f"{where}: is not well-formed XML ({error}); export the file again") from error


def _bind_prefixes(data: bytes) -> tuple[bytes, list[str]]:
    """Return `data` with prefixes that nothing binds declared on the root element, and those prefixes."""
    unbound = sorted(set(_PREFIX.findall(data)) - set(_DECLARED.findall(data)) - {b"xml", b"xmlns"})
    root = next((m for m in _START_TAG.finditer(data)), None)
    if not unbound or root is None or len(unbound) > 16:
        return data, []
    declared = b"".join(b' xmlns:%s="urn:unbound:%s"' % (p, p) for p in unbound)
    return data[: root.end()] + declared + data[root.end() :], [p.decode("ascii") for p in unbound]


def _split_documents(data: bytes) -> list[bytes]:
    """Return the documents of a file cut at their XML declarations; some instruments write one after the other."""
    starts = [m.start() for m in re.finditer(rb"<\?xml\s", data)]
    if len(starts) < 2:
        return [data]
    if len(starts) > MAX_DOCUMENTS:
        raise DataError(f"N42 file of {len(starts)} documents, at most {MAX_DOCUMENTS} are read; cut the file")
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    # Control characters stand between the documents; anything else there is kept, so that the parser refuses it.
    return [
        data[: starts[0]].strip(b"\0\2\3\r\n\t ") + pieces[0].rstrip(b"\0\2\3\r\n\t "),
        *(p.rstrip(b"\0\2\3\r\n\t ") for p in pieces[1:]),
    ]


def sniff(head: bytes) -> bool:
    """Return True if `head`, the first bytes of a file, looks like an N42 document, alone or in an envelope."""
    text = head.replace(b"\0", b"")
    marks = (*(r.encode() for r in _ROOTS), b"N42", b"ANSIN4242")
    return text.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<") and any(m in text for m in marks)


def read(source: str | Path | bytes, *, utc_offset_h: float = 0.0) -> Document:
    """Return the N42 document of a file or of its bytes.

    utc_offset_h : hours east of UTC where a time has no zone

    Raises DataError if it is no N42 document, is not well-formed, holds several documents, or passes a limit.
    """
    documents = read_all(source, utc_offset_h=utc_offset_h)
    if len(documents) > 1:
        raise DataError(f"{_name(source)}: holds {len(documents)} N42 documents, expected one; read them with read_all")
    return documents[0]


def read_all(source: str | Path | bytes, *, utc_offset_h: float = 0.0) -> tuple[Document, ...]:
    """Return every N42 document of a file in which one may follow the other; see `read`."""
    where = _name(source)
    if not -24 < utc_offset_h < 24:
        raise DataError(f"{where}: utc_offset_h {utc_offset_h}, expected hours between -24 and 24")
    data = source if isinstance(source, bytes) else _load(Path(source))
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: more than {MAX_BYTES} bytes; cut the file into passages")
    pieces = _split_documents(data)
    named = [where] if len(pieces) == 1 else [f"{where} document {i}" for i in range(1, len(pieces) + 1)]
    budget = [MAX_TOTAL_CHANNELS]
    return tuple(_read_one(p, w, utc_offset_h, budget) for p, w in zip(pieces, named, strict=True))


def _name(source: str | Path | bytes) -> str:
    return "N42 data" if isinstance(source, bytes) else str(source)


def _load(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _read_one(data: bytes, where: str, utc_offset_h: float, budget: list[int]) -> Document:
    unbound: list[str] = []
    try:
        root = _parse(data, where)
    except DataError as error:
        if "unbound prefix" not in str(error):
            raise
        data, unbound = _bind_prefixes(data)
        root = _parse(data, where)
    tops = [e for e in root.iter() if _local(e) in _ROOTS]
    if len(tops) != 1:
        raise DataError(
            f"{where}: root element {_local(root)[:60]!r} with {len(tops)} elements {' or '.join(_ROOTS)}, expected one"
        )
    reader = (_Reader2011 if _local(tops[0]) == _ROOTS[0] else _Reader2006)(tops[0], where, utc_offset_h, budget)
    for prefix in unbound:
        reader.tell(f"prefix {prefix!r} is bound to no namespace; read as an extension")
    if tops[0] is not root:
        reader.tell(f"inside an envelope {_local(root)[:60]!r}, whose own content is not read")
    return reader.document()


def _local(element: Element) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _space(element: Element) -> str:
    return element.tag.rpartition("}")[0] if isinstance(element.tag, str) else ""


# --------------------------------------------------------------------------------------------------------------
# Values


def _numbers(text: str) -> npt.NDArray[np.float64]:
    """Return a list of finite numbers. Raises ValueError."""
    if not _NUMBERS.fullmatch(text):
        bad = next(t for t in text.split() if not _NUMBERS.fullmatch(t))
        raise ValueError(f"{bad[:30]!r} is not a number")
    values = np.array([float(t) for t in text.split()], np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a number is too large")
    return values


def _counts(text: str) -> npt.NDArray[np.float64]:
    """Return a list of counts, at least one. Raises ValueError."""
    values = _numbers(text)
    if not values.size:
        raise ValueError("no counts at all")
    if values.min() < 0:
        raise ValueError(f"{values.min():g} is below zero")
    return values


def expand_zeroes(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], str]:
    """Return `(channels,) float64` of CountedZeroes data, and what was mended in it ("" for nothing).

    A zero is followed by the number of zeroes in its run, itself included. Raises ValueError.

    Source: ANSI N42.42-2012, ChannelData compressionCode.
    """
    n, i, channels, mended = len(values), 0, 0, ""
    kept: list[float] = []
    repeats: list[int] = []
    listed = values.tolist()
    while i < n:
        run = 1
        if listed[i] == 0:
            if i + 1 == n:
                mended = "ends in a zero without a run length; taken as one channel"
            elif listed[i + 1] < 1 or listed[i + 1] % 1:
                raise ValueError(f"a run of {listed[i + 1]:g} zeroes at value {i + 1}")
            else:
                run = int(min(listed[i + 1], MAX_CHANNELS + 1))
        kept.append(listed[i])
        repeats.append(run)
        channels += run
        if channels > MAX_CHANNELS:
            raise ValueError(f"more than {MAX_CHANNELS} channels")
        i += 2 if listed[i] == 0 else 1
    return np.repeat(np.array(kept, np.float64), repeats), mended


def _compact(counts: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    if counts.max() < 2**32 and not np.any(counts % 1):
        return counts.astype(np.uint32)
    return counts


def _duration_s(text: str) -> float:
    """Return seconds of an xsd:duration of days to seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if not match or not any(match.groups()):
        raise ValueError(f"{text[:30]!r} is not a duration like PT0.1S")
    days, hours, minutes, seconds = (float(g or 0) for g in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


class _Reader:
    """What both forms share: look-up of children, values with problems told, detectors, spectra."""

    def __init__(self, top: Element, where: str, utc_offset_h: float, budget: list[int]) -> None:
        self.top = top
        self.where = where
        self._space = _space(top)
        self._offset = dt.timezone(dt.timedelta(hours=utc_offset_h))
        self._offset_h = utc_offset_h
        self._budget = budget
        self._problems: list[str] = []
        self._more = 0
        self.lost = 0
        self._zoneless = 0
        self._taken = 0
        self.detectors: dict[str, Detector] = {}

    # ---- problems

    def tell(self, text: str, *, lost: bool = False) -> None:
        self.lost += lost
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(text)
        else:
            self._more += 1

    def problems(self) -> tuple[str, ...]:
        total = sum(_local(e) in _COUNTS for e in self.top.iter())
        if total > self._taken:
            left = total - self._taken
            self.tell(f"{left} of {total} lists of counts stand where none is expected and are not read", lost=True)
        if self._zoneless:
            self.tell(f"{self._zoneless} times have no zone; taken as {self._offset_h:+g} h of UTC")
        more = (f"and {self._more} further problems",) if self._more else ()
        return (*self._problems, *more)

    # ---- children

    def children(self, parent: Element, name: str) -> list[Element]:
        """Return the children of that local name, in whatever namespace: counts of a foreign one are counts too."""
        return [e for e in parent if _local(e) == name]

    def child(self, parent: Element, *names: str) -> Element | None:
        """Return the child of one of these names, the document's own namespace before a vendor's."""
        found = [e for e in parent if _local(e) in names]
        return next((e for e in found if _space(e) == self._space), found[0] if found else None)

    def text(self, parent: Element | None, *names: str) -> str:
        element = None if parent is None else self.child(parent, *names)
        return "" if element is None else "".join(element.itertext()).strip()

    def remarks(self, parent: Element) -> tuple[str, ...]:
        return tuple((e.text or "").strip() for e in self.children(parent, "Remark"))

    # ---- values

    def duration_s(self, parent: Element, owner: str, *names: str) -> float | None:
        """Return a duration; where a vendor's own of that name disagrees, the standard's, and the other told."""
        texts = [(_space(e) == self._space, (e.text or "").strip()) for e in parent if _local(e) in names]
        seconds: float | None = None
        for _, text in sorted(texts, key=lambda t: not t[0]):
            try:
                value = _duration_s(text)
            except ValueError as error:
                self.tell(f"{owner}: {names[0]} {error}")
                continue
            if seconds is not None and not math.isclose(value, seconds, rel_tol=1e-6):
                self.tell(f"{owner}: {names[0]} told twice, {seconds:g} s and {value:g} s; the first is taken")
            seconds = value if seconds is None else seconds
        return seconds

    def utc_ns(self, text: str, owner: str) -> int | None:
        match = _DATE_TIME.fullmatch(text)
        try:
            if not match:
                raise ValueError
            *fields, fraction, zone = match.groups()
            year, month, day, hour, minute, second = (int(f) for f in fields)
            tz = self._offset
            if zone:
                digits = "" if zone in "Zz" else zone[1:].replace(":", "")
                offset = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:])) if digits else dt.timedelta()
                tz = dt.timezone(-offset if zone[0] == "-" else offset)
            at = dt.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=tz)
            whole = (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(seconds=1) + (second == 60)
            utc = whole * NANOSECONDS + int((fraction or "0").ljust(9, "0")[:9])
            if not -(2**62) < utc < 2**62:
                raise ValueError
        except (ValueError, OverflowError):
            self.tell(f"{owner}: {text[:40]!r} is no date and time like 2026-01-31T09:45:01Z")
            return None
        self._zoneless += zone is None
        return utc

    def boolean(self, text: str, owner: str) -> bool | None:
        value = {"1": True, "true": True, "0": False, "false": False}.get(text.lower())
        if value is None and text:
            self.tell(f"{owner}: {text[:20]!r} is not 0, 1, true or false", lost=True)
        return value

    def number(self, text: str, owner: str) -> float | None:
        if not text:
            return None
        try:
            (value,) = _numbers(text)
        except ValueError:
            self.tell(f"{owner}: {text[:30]!r} is not a number")
            return None
        return float(value)

    def listed(self, text: str, owner: str) -> tuple[float, ...]:
        try:
            return tuple(_numbers(text).tolist())
        except ValueError as error:
            self.tell(f"{owner}: {error}")
            return ()

    # ---- counts

    def count_list(self, element: Element | None, owner: str) -> npt.NDArray[np.float64] | None:
        """Return a list of counts, None (told) where it cannot be read."""
        if element is None:
            self.tell(f"{owner}: has no counts", lost=True)
            return None
        self._taken += 1
        try:
            return _counts("".join(element.itertext()))
        except ValueError as error:
            self.tell(f"{owner}: counts not read, {error}", lost=True)
            return None

    def channels(self, element: Element, owner: str) -> npt.NDArray[Any] | None:
        """Return the channels of a spectrum, None (told) where they cannot be read."""
        data = self.child(element, "ChannelData")
        values = self.count_list(data, owner)
        if values is None or data is None:
            return None
        code = next((v for k, v in data.attrib.items() if k.lower() in ("compressioncode", "compression")), "None")
        try:
            if code.lower() in ("countedzeroes", "countedzeros"):
                values, mended = expand_zeroes(values)
                if mended:
                    self.tell(f"{owner}: {mended}")
            elif code.lower() not in ("none", ""):
                raise ValueError(f"unknown compression {code[:30]!r}")
            if values.size > MAX_CHANNELS:
                raise ValueError(f"more than {MAX_CHANNELS} channels")
        except ValueError as error:
            self.tell(f"{owner}: spectrum not read, {error}", lost=True)
            return None
        self._budget[0] -= values.size
        if self._budget[0] < 0:
            raise DataError(f"{self.where}: more than {MAX_TOTAL_CHANNELS} channels in all; cut the file into passages")
        return _compact(values)

    def detector(self, name: str, owner: str, category: str, *, told: bool) -> str:
        """Return the detector's id; one that is not declared is added, as what its counts say it is."""
        name = name or next((d.id for d in self.detectors.values() if d.category == category), "unnamed")
        if name not in self.detectors:
            if told:
                self.tell(f"{owner}: detector {name[:40]!r} is not declared; taken as {category}")
            self.detectors[name] = Detector(id=name, category=category, declared=False)
        return name

    def slices(self, found: Iterator[Measurement]) -> tuple[Measurement, ...]:
        measurements = []
        for m in found:
            measurements.append(m)
            if len(measurements) > MAX_MEASUREMENTS:
                raise DataError(f"{self.where}: more than {MAX_MEASUREMENTS} measurements; cut the file into passages")
        return tuple(measurements)

    def speed_in(self, remarks: tuple[str, ...]) -> tuple[float | None, str]:
        for remark in remarks:
            if match := _SPEED_REMARK.search(remark):
                return float(match[1]), match[2] or ""
        return None, ""

    def fault(self, element: Element, of: str) -> Fault:
        return Fault(
            code=self.text(element, "FaultCodeValue"), description=self.text(element, "FaultDescription"),
            severity=self.text(element, "FaultSeverityCode"), of=of,
        )  # fmt: skip

    def document(self) -> Document:
        raise NotImplementedError


class _Reader2011(_Reader):
    """The form of ANSI N42.42-2012."""

    def document(self) -> Document:
        top = self.top
        for e in self.children(top, "RadDetectorInformation"):
            d = self._declared(e)
            if d.id in self.detectors:
                self.tell(f"detector {d.id[:40]!r} is declared twice; the first is taken")
            self.detectors.setdefault(d.id, d)
        windows = tuple(w for e in self.children(top, "EnergyWindows") if (w := self._windows(e)))
        self._window_lengths = {w.id: len(w.start_kev) for w in windows}
        found = (self._measurement(e) for e in top if _local(e) in ("RadMeasurement", "DerivedData"))
        measurements = self.slices(found)
        results = tuple(self._results(e) for e in self.children(top, "AnalysisResults"))
        return Document(
            form="2011", uuid=top.get("n42DocUUID", ""), remarks=self.remarks(top), windows=windows,
            instrument=self._instrument(self.child(top, "RadInstrumentInformation")),
            items=tuple(self._item(e) for e in self.children(top, "RadItemInformation")),
            calibrations=tuple(self._calibration(e) for e in self.children(top, "EnergyCalibration")),
            groups=tuple(e.get("id", "") for e in self.children(top, "RadMeasurementGroup")),
            measurements=measurements, results=results, detectors=tuple(self.detectors.values()),
            problems=self.problems(), lost=self.lost,
        )  # fmt: skip

    def _characteristics(self, parent: Element, name: str) -> tuple[Characteristic, ...]:
        return tuple(
            Characteristic(
                name=self.text(c, "CharacteristicName"), value=self.text(c, "CharacteristicValue"),
                units=self.text(c, "CharacteristicValueUnits"),
                data_class=self.text(c, "CharacteristicValueDataClassCode") or "string",
            )
            for holder in self.children(parent, name) for c in holder.iter() if _local(c) == "Characteristic"
        )  # fmt: skip

    def _instrument(self, e: Element | None) -> Instrument:
        if e is None:
            self.tell("no RadInstrumentInformation: instrument unknown")
            return Instrument()
        return Instrument(
            id=e.get("id", ""), manufacturer=self.text(e, "RadInstrumentManufacturerName"),
            identifier=self.text(e, "RadInstrumentIdentifier"), model=self.text(e, "RadInstrumentModelName"),
            description=self.text(e, "RadInstrumentDescription"), class_code=self.text(e, "RadInstrumentClassCode"),
            versions=tuple(
                (self.text(v, "RadInstrumentComponentName"), self.text(v, "RadInstrumentComponentVersion"))
                for v in self.children(e, "RadInstrumentVersion")
            ),
            characteristics=self._characteristics(e, "RadInstrumentCharacteristics"),
        )  # fmt: skip

    def _declared(self, e: Element) -> Detector:
        return Detector(
            id=e.get("id", ""), category=self.text(e, "RadDetectorCategoryCode") or "Other",
            kind=self.text(e, "RadDetectorKindCode"), name=self.text(e, "RadDetectorName"),
            description=self.text(e, "RadDetectorDescription"),
        )  # fmt: skip

    def _item(self, e: Element) -> Item:
        return Item(
            id=e.get("id", ""), description=self.text(e, "RadItemDescription"),
            characteristics=self._characteristics(e, "RadItemCharacteristics"),
        )  # fmt: skip

    def _windows(self, e: Element) -> EnergyWindows | None:
        owner = f"EnergyWindows {e.get('id', '')[:40]}"
        start = self.listed(self.text(e, "WindowStartEnergyValues"), owner)
        end = self.listed(self.text(e, "WindowEndEnergyValues"), owner)
        if not start or len(start) != len(end):
            self.tell(f"{owner}: {len(start)} starts and {len(end)} ends, expected as many of both; not read")
            return None
        return EnergyWindows(id=e.get("id", ""), start_kev=start, end_kev=end)

    def _calibration(self, e: Element) -> EnergyCalibration:
        owner = f"EnergyCalibration {e.get('id', '')[:40]}"
        return EnergyCalibration(
            id=e.get("id", ""), coefficients=self.listed(self.text(e, "CoefficientValues"), owner),
            boundaries_kev=self.listed(self.text(e, "EnergyBoundaryValues"), owner),
        )  # fmt: skip

    def _measurement(self, e: Element) -> Measurement:
        owner = f"{_local(e)} {e.get('id', '')[:40]}"
        remarks = self.remarks(e)
        spectra = self.children(e, "Spectrum")
        real_time_s = self.duration_s(e, owner, "RealTimeDuration", "RealTime")
        for beside in spectra if real_time_s is None else ():
            real_time_s = self.duration_s(beside, owner, "RealTimeDuration", "RealTime")
            if real_time_s is not None:
                self.tell(f"{owner}: real time told under a spectrum only; taken from there")
                break
        states = [s for s in e if _local(s) in ("RadInstrumentState", "RadDetectorState", "RadItemState")]
        speed, unit = self._speed(states, owner)
        if speed is None:
            speed, unit = self.speed_in(remarks)
        return Measurement(
            id=e.get("id", ""), class_code=self.text(e, "MeasurementClassCode"), remarks=remarks,
            start_utc_ns=self.utc_ns(self.text(e, "StartDateTime"), owner), real_time_s=real_time_s,
            gross_counts=tuple(g for x in self.children(e, "GrossCounts") if (g := self._gross(x, owner))),
            spectra=tuple(s for x in spectra if (s := self._spectrum(x, owner))),
            occupied=self.boolean(self.text(e, "OccupancyIndicator"), f"{owner} OccupancyIndicator"),
            faults=tuple(self.fault(f, self._of(s)) for s in states for f in self.children(s, "Fault")),
            speed=speed, speed_unit=unit, groups=tuple(e.get("radMeasurementGroupReferences", "").split()),
            items=tuple(e.get("radItemInformationReferences", "").split())
            or tuple(s.get("radItemInformationReference", "") for s in states if _local(s) == "RadItemState"),
            derived=_local(e) == "DerivedData",
        )  # fmt: skip

    def _speed(self, states: list[Element], owner: str) -> tuple[float | None, str]:
        """Return the item's speed and its unit, where the file states one."""
        items = (s for s in states if _local(s) == "RadItemState")
        values = (v for s in items for x in self.children(s, "StateVector") for v in self.children(x, "SpeedValue"))
        for v in values:
            if (speed := self.number((v.text or "").strip(), f"{owner} SpeedValue")) is not None:
                return speed, v.get("units", "")
        return None, ""

    def _of(self, state: Element) -> str:
        return state.get("radInstrumentInformationReference") or state.get("radDetectorInformationReference") or ""

    def _gross(self, e: Element, owner: str) -> GrossCounts | None:
        name = e.get("radDetectorInformationReference", "")
        owner = f"{owner} GrossCounts {e.get('id') or name}"[:120]
        counts = self.count_list(self.child(e, "CountData"), owner)
        if counts is None:
            return None
        windows = e.get("energyWindowsReference", "")
        wanted = self._window_lengths.get(windows, 0) if windows else 1
        if len(counts) != wanted:
            what = f"{wanted} windows of {windows[:40]!r}" if windows else "no energy windows"
            self.tell(f"{owner}: {len(counts)} counts for {what}; kept, but what they count is not sure", lost=True)
            windows = ""
        return GrossCounts(
            id=e.get("id", ""), detector=self.detector(name, owner, "Other", told=True), windows=windows,
            counts=tuple(counts.tolist()), live_time_s=self.duration_s(e, owner, "LiveTimeDuration", "LiveTime"),
            raw=tuple(e.get("radRawGrossCountsReferences", "").split()),
        )  # fmt: skip

    def _spectrum(self, e: Element, owner: str) -> Spectrum | None:
        name = e.get("radDetectorInformationReference", "")
        owner = f"{owner} Spectrum {e.get('id') or name}"[:120]
        counts = self.channels(e, owner)
        if counts is None:
            return None
        # A derived spectrum may be the sum of several detectors and then names none.
        known = name or not e.get("radRawSpectrumReferences")
        return Spectrum(
            id=e.get("id", ""), detector=self.detector(name, owner, "Gamma", told=True) if known else "",
            counts=counts, calibrations=tuple(e.get("energyCalibrationReference", "").split()),
            live_time_s=self.duration_s(e, owner, "LiveTimeDuration", "LiveTime"),
            raw=tuple(e.get("radRawSpectrumReferences", "").split()),
        )  # fmt: skip

    def _results(self, e: Element) -> AnalysisResults:
        return AnalysisResults(
            groups=tuple(e.get("radMeasurementGroupReferences", "").split()),
            measurements=tuple(e.get("radMeasurementReferences", "").split()),
            derived=tuple(e.get("derivedDataReferences", "").split()),
            algorithm=self.text(e, "AnalysisAlgorithmName"),
            alarms=tuple(self._alarm(a) for a in self.children(e, "RadAlarm")),
            nuclides=tuple(
                self._nuclide(n)
                for r in self.children(e, "NuclideAnalysisResults")
                for n in self.children(r, "Nuclide")
            ),
            faults=tuple(self.fault(f, "") for f in self.children(e, "Fault")),
        )  # fmt: skip

    def _alarm(self, e: Element) -> Alarm:
        at = self.text(e, "RadAlarmDateTime")
        return Alarm(
            category=self.text(e, "RadAlarmCategoryCode") or "Other", description=self.text(e, "RadAlarmDescription"),
            light_color=self.text(e, "RadAlarmLightColor"), utc_ns=self.utc_ns(at, "RadAlarm") if at else None,
            detectors=tuple(e.get("radDetectorInformationReferences", "").split()),
        )  # fmt: skip

    def _nuclide(self, e: Element) -> Nuclide:
        told = self.boolean(self.text(e, "NuclideIdentifiedIndicator"), "NuclideIdentifiedIndicator")
        return Nuclide(  # an indicator that cannot be read mutes nothing
            name=self.text(e, "NuclideName"), identified=told is not False,
            confidence=self.number(self.text(e, "NuclideIDConfidenceValue"), "NuclideIDConfidenceValue"),
            confidence_words=self.text(e, "NuclideIDConfidenceDescription"),
            category=self.text(e, "NuclideCategoryDescription"),
        )  # fmt: skip


class _Reader2006(_Reader):
    """The form of ANSI N42.42-2006: calibration, time and occupancy stand beside the counts."""

    def __init__(self, top: Element, where: str, utc_offset_h: float, budget: list[int]) -> None:
        super().__init__(top, where, utc_offset_h, budget)
        self._calibrations: dict[tuple[float, ...], EnergyCalibration] = {}

    def document(self) -> Document:
        top = self.top
        outer = self.children(top, "Measurement")
        if not outer:
            self.tell("no Measurement")
        measurements = self.slices(m for e in outer for m in self._slices(e))
        first = outer[0] if outer else top
        info = self.child(first, "InstrumentInformation")
        remarks = (*self.remarks(top), *(r for e in outer for r in self.remarks(e)))
        items = (i for e in outer for i in self.children(e, "MeasuredItemInformation"))
        results = tuple(self._results(r) for r in top.iter() if _local(r) == "AnalysisResults")
        return Document(
            form="2006", uuid=first.get("UUID", ""), remarks=remarks, measurements=measurements,
            instrument=Instrument(
                manufacturer=self.text(info, "Manufacturer"), model=self.text(info, "InstrumentModel"),
                identifier=self.text(info, "InstrumentID"), class_code=self.text(info, "InstrumentType"),
                description=f"lane {lane}" if (lane := self.text(info, "LaneNumber")) else "",
            ),
            items=tuple(
                Item(id=f"item{n}", description="; ".join(self.remarks(e)), characteristics=self._flat(e))
                for n, e in enumerate(items, 1)
            ),
            calibrations=tuple(self._calibrations.values()), results=results,
            detectors=tuple(self.detectors.values()), problems=self.problems(), lost=self.lost,
        )  # fmt: skip

    def _flat(self, e: Element) -> tuple[Characteristic, ...]:
        return tuple(
            Characteristic(name=_local(c), value=(c.text or "").strip(), units=c.get("Units", ""))
            for c in e.iter() if c is not e and not len(c) and _local(c) not in ("Remark", "")
        )  # fmt: skip

    def _slices(self, outer: Element) -> Iterator[Measurement]:
        """Yield one measurement per DetectorData, and one per set of counts that stands outside of any."""
        loose = [e for e in outer if _local(e) in ("Spectrum", "CountDoseData", "SpectrumMeasurement", "GrossCounts")]
        for number, data in enumerate([*self.children(outer, "DetectorData"), *loose], 1):
            yield self._slice(data, f"M{number}")

    def _slice(self, e: Element, name: str) -> Measurement:
        owner = f"{_local(e)} {name}"
        spectra = [s for s in e.iter() if _local(s) == "Spectrum"]
        counted = [c for c in e.iter() if self.child(c, "Counts") is not None]
        timed = [e, *spectra, *counted]
        start = next((t for x in timed if (t := self.text(x, "StartTime", "StartDateTime"))), "")
        real = (self.duration_s(x, owner, "SampleRealTime", "RealTime") for x in timed)
        remarks = self.remarks(e)
        speed_of = self.child(e, "Speed")
        speed, unit = self.number(self.text(e, "Speed"), f"{owner} Speed"), ""
        if speed is None:
            speed, unit = self.speed_in(remarks)
        elif speed_of is not None:
            unit = speed_of.get("Units", "")
        source = next((t for s in spectra if (t := self.text(s, "SourceType"))), "")
        occupied = self.boolean(self.text(e, "Occupied"), f"{owner} Occupied")
        return Measurement(
            id=name, class_code=_class_2006(source, occupied), start_utc_ns=self.utc_ns(start, owner),
            real_time_s=next((t for t in real if t is not None), None), remarks=remarks,
            spectra=tuple(x for s in spectra if (x := self._spectrum(s, owner))),
            gross_counts=tuple(g for c in counted if (g := self._gross(c, owner))),
            occupied=occupied, speed=speed, speed_unit=unit,
        )  # fmt: skip

    def _gross(self, e: Element, owner: str) -> GrossCounts | None:
        owner = f"{owner} {_local(e)} {e.get('Detector', '')[:40]}"
        counts = self.count_list(self.child(e, "Counts"), owner)
        if counts is None:
            return None
        if len(counts) != 1:
            self.tell(f"{owner}: {len(counts)} counts where one is expected; kept", lost=True)
        kind = e.get("DetectorType", "") or self.text(e, "DetectorType")
        category = "Neutron" if re.search(r"neutron|he-?3", kind, re.IGNORECASE) else "Gamma"
        name = self.detector(e.get("Detector", "") or kind, owner, category, told=False)
        return GrossCounts(
            detector=name, counts=tuple(counts.tolist()), live_time_s=self.duration_s(e, owner, "LiveTime")
        )

    def _spectrum(self, e: Element, owner: str) -> Spectrum | None:
        owner = f"{owner} Spectrum {e.get('Detector', '')[:40]}"
        counts = self.channels(e, owner)
        if counts is None:
            return None
        kind = self.text(e, "DetectorType")
        category = "Neutron" if "neutron" in kind.lower() else "Gamma"
        name = self.detector(e.get("Detector", ""), owner, category, told=False)
        if kind and not self.detectors[name].description:
            self.detectors[name] = msgspec.structs.replace(self.detectors[name], description=kind)
        found = (
            self._calibration(c, owner) for c in self.children(e, "Calibration") if c.get("Type", "Energy") == "Energy"
        )
        return Spectrum(
            detector=name, counts=counts, calibrations=tuple(c.id for c in found if c),
            live_time_s=self.duration_s(e, owner, "LiveTime"),
        )  # fmt: skip

    def _calibration(self, e: Element, owner: str) -> EnergyCalibration | None:
        equation = self.child(e, "Equation")
        coefficients = self.listed(self.text(equation, "Coefficients"), f"{owner} Coefficients")
        if not coefficients:
            self.tell(f"{owner}: energy calibration that is no polynomial; not read")
            return None
        scale = {"mev": 1000.0, "ev": 0.001}.get(e.get("EnergyUnits", "keV").lower(), 1.0)
        coefficients = tuple(c * scale for c in coefficients)
        made = EnergyCalibration(id=f"EC{len(self._calibrations) + 1}", coefficients=coefficients)
        return self._calibrations.setdefault(coefficients, made)

    def _results(self, e: Element) -> AnalysisResults:
        nuclides = tuple(
            Nuclide(
                name=self.text(n, "NuclideName"), identified=True, category=self.text(n, "NuclideType"),
                confidence_words=self.text(n, "NuclideIDConfidenceIndication", "NuclideIDConfidence"),
            )
            for n in e.iter() if _local(n) == "Nuclide"
        )  # fmt: skip
        others = sorted({_local(c) for c in e} - {"NuclideAnalysis", "Remark", ""})
        if others:
            self.tell(f"AnalysisResults: {', '.join(others)[:120]} not read; they may hold an alarm", lost=True)
        return AnalysisResults(nuclides=nuclides)


def _class_2006(source: str, occupied: bool | None) -> str:
    """Return the 2012 name of a spectrum's source type."""
    names = {"item": "Foreground", "background": "Background", "calibration": "Calibration"}
    return names.get(source.lower(), "NotSpecified" if occupied is None else "Foreground" if occupied else "Background")
