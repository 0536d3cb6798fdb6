"""UN/EDIFACT messages about cargo, read and written: CUSCAR (cargo report) and IFTMCS (bill of lading).

Splitting into segments is pydifact's; which segment belongs to which group is told here by the segment that opens it:
TDT (transport), EQD (container), CNI (consignment), GID (goods). Both messages use the same segments, in another
order: in IFTMCS one message is one consignment.

Senders break the standard every day, so a segment in a wrong place, a count that does not fit and a character of
another set are problems of the message and no end of it. What cannot be split into segments, or has no beginning and
end, is an error: half a manifest is none.

Source: UN/EDIFACT directory D.95B (messages CUSCAR and IFTMCS, segments, code lists), ISO 9735:1988 (syntax).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from pydifact.exceptions import EDISyntaxError
from pydifact.parser import Parser
from pydifact.segments import Segment, SegmentFactory
from pydifact.serializer import Serializer

from scanner_io.errors import DataError

from .cargo import (
    FUNCTIONS,
    PLACES,
    ROLES,
    CargoMessage,
    Consignment,
    Equipment,
    GoodsItem,
    Packed,
    Party,
    Place,
    container,
    kilograms,
    locode,
    too_many_parties,
    with_problems,
)
from .times import utc_ns

MAX_BYTES = 16 << 20
THOUSANDS_BELOW_KG = 1000.0
"""A mass with three decimals below it is likelier to be one of thousands than one told to the gram."""
"""Bytes of the largest interchange read; it is split at about 0.5 MB a second."""
CHARACTER_SETS = {
    "UNOA": "ascii", "UNOB": "ascii", "UNOC": "iso8859-1", "UNOD": "iso8859-2", "UNOE": "iso8859-5",
    "UNOF": "iso8859-7", "UNOG": "iso8859-3", "UNOH": "iso8859-4", "UNOI": "iso8859-6", "UNOJ": "iso8859-8",
    "UNOK": "iso8859-9", "UNOW": "utf-8", "UNOX": "iso2022_jp", "UNOY": "utf-8",
}  # fmt: skip
"""Syntax identifier of UNB: character set. Source: ISO 9735, code list 0001."""
MESSAGES = ("CUSCAR", "IFTMCS")


def looks_like_edifact(data: bytes) -> bool:
    """Return whether bytes begin as an interchange does."""
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:3] in (b"UNA", b"UNB")


def read_interchange(data: bytes, name: str) -> tuple[CargoMessage, ...]:
    """Return the messages of an interchange; `name` is what errors call it.

    Raises DataError: no interchange, cut off, without an end, a message of another kind, or too large.
    """
    segments, problems = _segments(data, name)
    sender, recipient, messages, odd = _envelope(segments, name)
    problems += odd
    found = []
    for header, body in messages:
        reader = _Message(header, sender, recipient, problems)
        for segment in body:
            reader.take(segment)
        found.append(reader.done())
    return tuple(found)


class _Lenient(SegmentFactory):
    """Makes segments of any directory without looking whether they follow it: what senders break is told later."""

    @staticmethod
    def create_segment(name: str, *elements: Any, **_: Any) -> Segment:
        if not (isinstance(name, str) and name.isalnum()):
            raise EDISyntaxError(f"segment name {str(name)[:20]!r}; a name is three letters or digits")
        return Segment(name, *elements)


def _segments(data: bytes, name: str) -> tuple[list[Segment], list[str]]:
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: {len(data)} bytes; interchanges of up to {MAX_BYTES} are read, so split it")
    body = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not looks_like_edifact(data):
        raise DataError(f"{name}: begins with {body[:12]!r}, not with UNA or UNB, so it is no EDIFACT interchange")
    # before a flood is split into segments, which takes a minute: no text holds a tag with a mark that is not released
    if why := too_many_parties(body.count(b"NAD+"), body.count(b"CNI+") + body.count(b"UNH+")):
        raise DataError(f"{name}: the interchange {why}")
    told = re.search(rb"UNB.([A-Z]{4})", body[:200])
    if told is None:
        raise DataError(f"{name}: no UNB segment with a syntax identifier (UNOA ... UNOY) at its beginning")
    syntax = told[1].decode()
    if syntax not in CHARACTER_SETS:
        raise DataError(f"{name}: syntax identifier {syntax}; known are {', '.join(CHARACTER_SETS)}")
    problems = []
    try:
        text = body.decode(CHARACTER_SETS[syntax])
    except UnicodeDecodeError as error:
        text = _other_reading(body)
        where = f"byte {error.start + len(data) - len(body)} is {body[error.start]:#04x}"
        problems.append(f"says character set {syntax}, but {where}: names may be wrong")
    if not problems and not body.isascii() and syntax not in ("UNOY", "UNOW") and _is_utf8(body):
        problems.append(f"says character set {syntax}, but reads as UTF-8: names may be wrong")
    end = text[8] if text.startswith("UNA") else "'"
    if not text.rstrip("\r\n \t\x1a\0").endswith(end):
        raise DataError(f"{name}: cut off: its last segment has no end ({text[-40:].strip()!r}); ask for it again")
    try:
        found = list(Parser(factory=_Lenient()).parse(text.rstrip("\r\n \t\x1a\0")))
    except (EDISyntaxError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{name}: cannot be split into segments: {error}") from error
    return [s for s in found if s.tag != "UNA"], problems


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _other_reading(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("iso8859-1")


def _envelope(segments: list[Segment], name: str) -> tuple[str, str, list[tuple[Segment, list[Segment]]], list[str]]:
    """Return sender, recipient, each message's header and body, and what is odd about the frame."""
    if not segments or segments[0].tag != "UNB":
        raise DataError(f"{name}: the first segment is {segments[0].tag if segments else 'missing'}, not UNB")
    frame, problems = segments[0], []
    sender, recipient, control = (_at(frame, i, 0) for i in (1, 2, 4))
    messages: list[tuple[Segment, list[Segment]]] = []
    open_header: Segment | None = None
    body: list[Segment] = []
    ended = False
    for segment in segments[1:]:
        match segment.tag:
            case "UNH":
                if open_header is not None:
                    raise DataError(f"{name}: message {_at(open_header, 0, 0)} has no UNT before the next begins")
                open_header, body = segment, []
            case "UNT":
                if open_header is None:
                    raise DataError(f"{name}: UNT {_at(segment, 1, 0)} ends a message that never began")
                problems += _count(segment, len(body) + 2, _at(open_header, 0, 0))
                messages.append((open_header, body))
                open_header = None
            case "UNZ":
                ended = True
                if _at(segment, 0, 0) != str(len(messages)):
                    problems.append(f"UNZ counts {_at(segment, 0, 0)} messages, there are {len(messages)}")
                if _at(segment, 1, 0) != control:
                    problems.append(f"UNZ ends interchange {_at(segment, 1, 0)!r}, UNB began {control!r}")
            case "UNG" | "UNE":
                pass  # groups of messages say nothing of their own
            case _ if open_header is None:
                problems.append(f"segment {segment.tag} lies outside every message")
            case _:
                body.append(segment)
    if open_header is not None:
        raise DataError(f"{name}: cut off: message {_at(open_header, 0, 0)} has no UNT; ask for it again")
    if not ended:
        raise DataError(f"{name}: cut off: the interchange has no UNZ after {len(messages)} messages; ask for it again")
    if not messages:
        raise DataError(f"{name}: an interchange without a message")
    for header, _ in messages:
        if _at(header, 1, 0) not in MESSAGES:
            raise DataError(f"{name}: message {_at(header, 0, 0)} is {_at(header, 1, 0)!r}; known are {MESSAGES}")
    return sender, recipient, messages, problems


def _count(end: Segment, segments: int, reference: str) -> list[str]:
    found = []
    if _at(end, 0, 0) != str(segments):
        found.append(f"UNT of message {reference} counts {_at(end, 0, 0)} segments, there are {segments}")
    if _at(end, 1, 0) != reference:
        found.append(f"UNT names message {_at(end, 1, 0)!r}, UNH named {reference!r}")
    return found


def _at(segment: Segment, element: int, component: int) -> str:
    """Return a component's text, "" where the segment ends before it."""
    if element >= len(segment.elements):
        return ""
    value = segment.elements[element]
    if isinstance(value, str):
        return value.strip() if component == 0 else ""
    return str(value[component] or "").strip() if component < len(value) else ""


def _all(segment: Segment, element: int) -> tuple[str, ...]:
    value = segment.elements[element] if element < len(segment.elements) else ""
    return tuple(v.strip() for v in ([value] if isinstance(value, str) else value) if v and v.strip())


class _Message:
    """A message being read: what is open decides what a segment belongs to."""

    def __init__(self, header: Segment, sender: str, recipient: str, problems: Iterable[str]) -> None:
        self._values: dict[str, Any] = {
            "form": _at(header, 1, 0), "sender": sender, "recipient": recipient, "reference": _at(header, 0, 0),
        }  # fmt: skip
        self._problems = list(problems)
        self._places: list[Place] = []
        self._parties: list[Party] = []
        self._equipment: list[dict[str, Any]] = []
        self._consignments: list[dict[str, Any]] = []
        self._item: dict[str, Any] | None = None
        self._box: dict[str, Any] | None = None
        self._takes: dict[str, Callable[[Segment], None]] = {
            "BGM": self._document, "DTM": self._time, "TDT": self._transport, "LOC": self._place, "NAD": self._party,
            "RFF": self._reference, "EQD": self._container, "SEL": self._seal, "MEA": self._measure,
            "CNI": self._consignment, "GID": self._goods, "FTX": self._text, "PIA": self._code, "CST": self._customs,
            "SGP": self._placed, "DGS": self._dangerous,
        }  # fmt: skip

    def take(self, segment: Segment) -> None:
        """Take the next segment; those that tell nothing of use here are passed over."""
        handle = self._takes.get(segment.tag)
        if handle is not None:
            handle(segment)

    def done(self) -> CargoMessage:
        consignments = []
        for told in self._consignments:
            goods = tuple(
                GoodsItem(**{**item, "dangerous": tuple(item["dangerous"]), "packed": tuple(item["packed"])})
                for item in told["goods"]
            )
            lists = {"places": tuple(told["places"]), "parties": tuple(told["parties"]), "goods": goods}
            consignments.append(Consignment(**{**told, **lists}))
        message = CargoMessage(
            **self._values, places=tuple(self._places), parties=tuple(self._parties), consignments=tuple(consignments),
            equipment=tuple(Equipment(**{**box, "seals": tuple(box["seals"])}) for box in self._equipment),
        )  # fmt: skip
        problems = [*self._problems]
        if not message.document:
            problems.append("no document number (BGM): corrections cannot refer to it")
        if message.function == "unknown":
            problems.append("does not say whether it is an original, a correction or a cancellation (BGM)")
        return with_problems(message, problems)

    # ------------------------------------------------------------------------------------------------- of the whole

    def _document(self, segment: Segment) -> None:
        code = _at(segment, 2, 0)
        self._values["document"] = _at(segment, 1, 0)
        self._values["function"] = FUNCTIONS.get(code, "unknown")
        if code and code not in FUNCTIONS:
            self._problems.append(f"message function {code} is not known here (BGM)")

    def _time(self, segment: Segment) -> None:
        if _at(segment, 0, 0) != "137" or self._consignments:
            return
        text, form = _at(segment, 0, 1), _at(segment, 0, 2)
        try:
            self._values["prepared_utc_ns"] = _utc_ns(text, form)
        except ValueError as error:
            self._problems.append(f"time of the message {text!r} (format {form}): {error}")

    def _transport(self, segment: Segment) -> None:
        self._values["voyage"] = _at(segment, 1, 0)
        mode, name, number = _at(segment, 2, 0), _at(segment, 7, 3), _at(segment, 7, 0)
        self._values["transport"] = name or number
        if mode == "3":
            self._values["plate"] = container(number or name)

    # ------------------------------------------------------------------------------------------------- of many

    def _place(self, segment: Segment) -> None:
        code = _at(segment, 0, 0)
        role = PLACES.get(code, "unknown")
        text, name = _at(segment, 1, 0), _at(segment, 1, 3)
        if self._item is not None:
            if role == "origin":
                self._item["origin"] = text[:2].upper()
            return
        place = Place(role=role, code=code, locode=locode(text), name=name)
        (self._consignments[-1]["places"] if self._consignments else self._places).append(place)

    def _party(self, segment: Segment) -> None:
        code = _at(segment, 0, 0)
        identifier, scheme = _at(segment, 1, 0), _at(segment, 1, 2)
        name = " ".join(_all(segment, 3)) or (_all(segment, 2) or ("",))[0]
        address = [*_all(segment, 2)[0 if _all(segment, 3) else 1 :], *_all(segment, 4), _at(segment, 5, 0),
                   _at(segment, 6, 0), _at(segment, 7, 0)]  # fmt: skip
        parties = self._consignments[-1]["parties"] if self._consignments else self._parties
        parties.append(
            Party(
                role=ROLES.get(code, "unknown"), code=code, identifier=identifier, scheme=scheme, name=name,
                address=tuple(a for a in address if a), country=_at(segment, 8, 0).upper(),
            )
        )  # fmt: skip

    def _reference(self, segment: Segment) -> None:
        kind, number = _at(segment, 0, 0), _at(segment, 0, 1)
        if not self._consignments:
            if kind in ("BM", "BN", "MB"):
                self._shipment()
            else:
                return
        field = {"BM": "document", "MB": "master", "BN": "booking"}.get(kind)
        if field is not None:
            self._consignments[-1][field] = number

    def _container(self, segment: Segment) -> None:
        if _at(segment, 0, 0) != "CN":
            return
        full = {"4": False, "5": True, "7": True, "8": True}.get(_at(segment, 5, 0))
        self._box = {
            "number": container(_at(segment, 1, 0)), "size_type": _at(segment, 2, 0).upper(), "full": full, "seals": [],
        }  # fmt: skip
        self._equipment.append(self._box)
        self._item = None

    def _seal(self, segment: Segment) -> None:
        if self._box is None:
            self._problems.append(f"seal {_at(segment, 0, 0)} belongs to no container")
        elif _at(segment, 0, 0):
            self._box["seals"].append(_at(segment, 0, 0))

    def _measure(self, segment: Segment) -> None:
        dimension = _at(segment, 1, 0) or _at(segment, 0, 0)
        unit, value = _at(segment, 2, 0), _at(segment, 2, 1)
        if dimension not in ("G", "AAB", "AAD", "T", "WT", "AET", "VGM"):
            return
        try:
            mass, odd = kilograms(float(value.replace(",", ".")), unit)
        except ValueError as error:
            self._problems.append(f"weight {value!r} {unit}: {error}")
            return
        if odd:
            self._problems.append(odd)
        if re.fullmatch(r"[0-9]{1,3}[,.][0-9]{3}", value) and mass < THOUSANDS_BELOW_KG:
            self._problems.append(
                f"weight {value!r} {unit}: read as {mass:g} kg; the mark may be meant to part thousands"
            )
        if self._item is not None:
            self._item["gross_kg"] = mass
        elif self._box is not None:
            self._box["tare_kg" if dimension == "T" else "gross_kg"] = mass
        elif self._consignments:
            self._consignments[-1]["gross_kg"] = mass

    def _consignment(self, segment: Segment) -> None:
        self._shipment(document=_at(segment, 1, 0))
        number = _at(segment, 0, 0)
        if (counted := _whole_number(number)) is not None:
            self._consignments[-1]["number"] = counted

    def _shipment(self, document: str = "") -> None:
        self._consignments.append({
            "number": len(self._consignments) + 1, "document": document, "places": [], "parties": [], "goods": [],
        })  # fmt: skip
        self._item = self._box = None

    def _goods(self, segment: Segment) -> None:
        if not self._consignments:
            self._shipment()
        number, packages = _at(segment, 0, 0), _at(segment, 1, 0)
        goods = self._consignments[-1]["goods"]
        counted = _whole_number(number)
        self._item = {"number": len(goods) + 1 if counted is None else counted, "dangerous": [], "packed": []}
        self._box = None
        if packages:
            if (counted := _whole_number(packages)) is not None:
                self._item["packages"] = counted
            else:
                self._problems.append(f"goods item {number}: {packages!r} packages is no count")
        self._item["package_kind"] = _at(segment, 1, 1)
        goods.append(self._item)

    def _text(self, segment: Segment) -> None:
        if self._item is not None and _at(segment, 0, 0) in ("AAA", "AAI"):
            told = str(self._item.get("text", ""))
            self._item["text"] = " ".join([told, *_all(segment, 3)]).strip()

    def _code(self, segment: Segment) -> None:
        if self._item is None:
            return
        for element in range(1, 6):
            if _at(segment, element, 1) == "HS":
                self._hs_code(_at(segment, element, 0))

    def _customs(self, segment: Segment) -> None:
        if self._item is not None and _at(segment, 1, 0):
            self._hs_code(_at(segment, 1, 0))

    def _hs_code(self, text: str) -> None:
        assert self._item is not None
        code = re.sub(r"[\s.]", "", text)
        told = self._item.setdefault("hs_code", code)
        if told != code:
            self._problems.append(f"goods item {self._item['number']}: two goods codes, {told} and {code}")

    def _placed(self, segment: Segment) -> None:
        if self._item is None:
            return
        self._item["packed"].append(
            Packed(container=container(_at(segment, 0, 0)), packages=_whole_number(_at(segment, 1, 0)))
        )

    def _dangerous(self, segment: Segment) -> None:
        if self._item is not None and _at(segment, 2, 0):
            self._item["dangerous"].append(_at(segment, 2, 0))


def _whole_number(text: str) -> int | None:
    """Return a count; None for what is none. int() alone takes foreign digits, and as many as there are."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


# --------------------------------------------------------------------------------------------------------------
# Times


def _utc_ns(text: str, form: str) -> int:
    """Return a time in UTC; formats by code list 2379. Raises ValueError."""
    zone = re.fullmatch(r"(\d+)([+-]\d{2})(\d{2})?", text)
    patterns = {"102": "%Y%m%d", "203": "%Y%m%d%H%M", "204": "%Y%m%d%H%M%S", "101": "%y%m%d", "201": "%y%m%d%H%M",
                "303": "%Y%m%d%H%M", "304": "%Y%m%d%H%M%S"}  # fmt: skip
    if form not in patterns:
        raise ValueError(f"known formats are {', '.join(patterns)}")
    offset = timedelta(0)
    if zone is not None:
        sign = -1 if zone[2].startswith("-") else 1
        offset = timedelta(hours=int(zone[2]), minutes=sign * int(zone[3] or 0))
        text = zone[1]
    return utc_ns(datetime.strptime(text, patterns[form]), offset)


def _time_text(at_ns: int) -> list[str]:
    return ["137", f"{datetime.fromtimestamp(at_ns // 1_000_000_000, UTC):%Y%m%d%H%M%S}", "204"]


# --------------------------------------------------------------------------------------------------------------
# Writing

_CODE_OF_FUNCTION = {"original": "9", "replacement": "5", "amendment": "4", "cancellation": "1", "duplicate": "7"}
_CODE_OF_ROLE = {
    "consignor": "CZ", "consignee": "CN", "notify party": "N1", "carrier": "CA", "declarant": "DT", "forwarder": "FW",
    "owner": "OW",
}  # fmt: skip
_CODE_OF_PLACE = {
    "loading": "9", "discharge": "11", "delivery": "7", "destination": "8", "origin": "27", "departure": "5",
    "transit": "13",
}  # fmt: skip


def write_interchange(messages: Iterable[CargoMessage], prepared_utc_ns: int, control: str) -> bytes:
    """Return messages of one sender as an interchange in UTF-8 (UNOY, syntax version 4).

    What the messages have no place for (status of traders, edition of goods codes, earlier scans) is not written.

    Raises DataError: no message, or messages of several senders or recipients, or a consignment too many for IFTMCS.
    """
    told = list(messages)
    frames = {(m.sender, m.recipient) for m in told}
    if len(frames) != 1:
        raise DataError(f"an interchange has one sender and one recipient; these {len(told)} messages have {frames}")
    ((sender, recipient),) = frames
    moment = datetime.fromtimestamp(prepared_utc_ns // 1_000_000_000, UTC)
    segments = [
        Segment("UNB", ["UNOY", "4"], sender, recipient, [f"{moment:%Y%m%d}", f"{moment:%H%M}"], control),
    ]
    for message in told:
        body = list(_segments_of(message))
        kind = "IFTMCS" if message.form == "IFTMCS" else "CUSCAR"
        segments.append(Segment("UNH", message.reference, [kind, "D", "95B", "UN"]))
        segments += body
        segments.append(Segment("UNT", str(len(body) + 2), message.reference))
    segments.append(Segment("UNZ", str(len(told)), control))
    text = Serializer().serialize(segments, with_una_header=True, break_lines=True)
    return str(text).encode()


def _segments_of(message: CargoMessage) -> Iterable[Segment]:
    kind = "785" if message.form == "IFTMCS" else "85"
    yield Segment("BGM", kind, message.document, _CODE_OF_FUNCTION.get(message.function, ""))
    if message.prepared_utc_ns is not None:
        yield Segment("DTM", _time_text(message.prepared_utc_ns))
    for place in message.places:
        yield _place_segment(place)
    for party in message.parties:
        yield _party_segment(party)
    if message.voyage or message.transport or message.plate:
        mode, number = ("3", message.plate) if message.plate else ("1", "")
        yield Segment("TDT", "20", message.voyage, mode, "", "", "", "", [number, "", "", message.transport])
    for box in message.equipment:
        full = {True: "5", False: "4", None: ""}[box.full]
        yield Segment("EQD", "CN", box.number, [box.size_type, "102", "5"] if box.size_type else "", "", "", full)
        for dimension, mass in (("G", box.gross_kg), ("T", box.tare_kg)):
            if mass is not None:
                yield Segment("MEA", "AAE", dimension, ["KGM", _number(mass)])
        for seal in box.seals:
            yield Segment("SEL", seal, "CA")
    if message.form == "IFTMCS" and len(message.consignments) > 1:
        raise DataError(f"message {message.reference}: IFTMCS tells of one consignment, not of several")
    for consignment in message.consignments:
        yield from _consignment_segments(consignment, message.form)


def _consignment_segments(consignment: Consignment, form: str) -> Iterable[Segment]:
    if form == "IFTMCS":
        yield Segment("RFF", ["BM", consignment.document])
    else:
        yield Segment("CNI", str(consignment.number), consignment.document)
    for kind, number in (("MB", consignment.master), ("BN", consignment.booking)):
        if number:
            yield Segment("RFF", [kind, number])
    if consignment.gross_kg is not None:
        yield Segment("MEA", "AAE", "AAD", ["KGM", _number(consignment.gross_kg)])
    for place in consignment.places:
        yield _place_segment(place)
    for party in consignment.parties:
        yield _party_segment(party)
    for item in consignment.goods:
        packages = "" if item.packages is None else str(item.packages)
        yield Segment("GID", str(item.number), [packages, item.package_kind] if item.package_kind else packages)
        if item.text:
            parts = textwrap.wrap(item.text, 70, break_on_hyphens=False)  # a reader joins the parts with blanks
            for start in range(0, len(parts), 5):
                yield Segment("FTX", "AAA", "", "", parts[start : start + 5])
        if item.hs_code:
            yield Segment("PIA", "5", [item.hs_code, "HS"])
        if item.origin:
            yield Segment("LOC", "27", item.origin)
        if item.gross_kg is not None:
            yield Segment("MEA", "AAE", "AAB", ["KGM", _number(item.gross_kg)])
        for packed in item.packed:
            yield Segment("SGP", packed.container, "" if packed.packages is None else str(packed.packages))
        for number in item.dangerous:
            yield Segment("DGS", "IMD", "", number)


def _place_segment(place: Place) -> Segment:
    code = place.code or _CODE_OF_PLACE.get(place.role, "")
    return Segment("LOC", code, [place.locode, "139", "6", place.name] if place.name else [place.locode, "139", "6"])


def _party_segment(party: Party) -> Segment:
    identity = [party.identifier, "", party.scheme] if party.scheme else party.identifier
    code = party.code or _CODE_OF_ROLE.get(party.role, "")
    return Segment("NAD", code, identity, "", party.name, list(party.address) or "", "", "", "", party.country)


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
