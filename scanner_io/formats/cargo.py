"""Advance cargo information: what carriers and traders say about containers before they come, whatever it came in.

One message tells of equipment (containers) and of consignments with their parties and goods. The names are those of
the WCO Data Model where it has them. A message may be late, a correction, a double or a cancellation: it keeps its own
identity, function and time, and what is odd in it is listed in `problems`. A declaration with problems never lowers a
risk. The names that the types have in JSON stand beside them (`cargo_json`).

Source: WCO Data Model 3 (class and attribute names); UN/EDIFACT D.95B directory (codes of functions, parties, units);
UN/ECE Recommendation 16 (UN/LOCODE), 20 (units) and 21 (packages).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

from .iso6346 import check_digit_ok, tidy

if TYPE_CHECKING:
    from scanner_io.model import Declaration

Function = Literal["original", "replacement", "amendment", "cancellation", "duplicate", "unknown"]
FUNCTIONS: dict[str, Function] = {
    "9": "original", "5": "replacement", "4": "amendment", "36": "amendment", "1": "cancellation", "3": "cancellation",
    "7": "duplicate", "31": "duplicate",
}  # fmt: skip
"""Code list 1225 of UN/EDIFACT and FunctionCode of the WCO Data Model."""

Role = Literal["consignor", "consignee", "notify party", "carrier", "declarant", "forwarder", "owner", "unknown"]
ROLES: dict[str, Role] = {
    "CZ": "consignor", "EX": "consignor", "SE": "consignor", "SH": "consignor", "CN": "consignee", "IM": "consignee",
    "BY": "consignee", "NI": "notify party", "N1": "notify party", "N2": "notify party", "CA": "carrier",
    "CPC": "carrier", "DT": "declarant", "DEI": "declarant", "MS": "declarant", "AE": "declarant", "FW": "forwarder",
    "FC": "forwarder", "OS": "consignor", "OW": "owner", "AA": "consignee",
}  # fmt: skip
"""Code list 3035 (party qualifiers); others stay unknown and keep their code."""

PlaceRole = Literal["loading", "discharge", "delivery", "destination", "origin", "departure", "transit", "unknown"]
PLACES: dict[str, PlaceRole] = {
    "9": "loading", "10": "loading", "11": "discharge", "12": "discharge", "7": "delivery", "8": "destination",
    "27": "origin", "28": "origin", "5": "departure", "88": "departure", "13": "transit", "125": "transit",
}  # fmt: skip
"""Code list 3227 (place qualifiers)."""

KILOGRAMS = {"KGM": 1.0, "KG": 1.0, "TNE": 1000.0, "GRM": 0.001, "LBR": 0.453_592_37, "LBS": 0.453_592_37}
"""What one of a unit weighs; pound by the international agreement of 1959."""
MAX_PARTIES = 2_000
"""Parties of one message: a ship's manifest names some for each of its bills; more are no parties but a flood."""
MAX_TEXT = 512
"""The longest text of a component (an..512, free text of syntax 4); a longer one is cut, and said to be."""
MAX_GROSS_KG = 100_000.0
"""A heavier container is no container; the heaviest allowed by ISO 668 has 36 t."""

HS_EDITIONS = (1988, 1996, 2002, 2007, 2012, 2017, 2022)
"""Years from which editions of the Harmonized System are in force."""


_PARTY = {
    "role": "RoleCode", "code": "TypeCode", "identifier": "ID", "scheme": "IdentificationSchemeID", "name":
    "Name", "address": "Address", "country": "CountryCode", "authorised": "AuthorisedEconomicOperator",
}  # fmt: skip


class Party(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_PARTY):
    """A party of a consignment.

    code : qualifier as it was written
    identifier, scheme : number in a register, and whose register
    authorised : status as authorised economic operator as the message tells it; None where it does not
    """

    role: Role
    code: str = ""
    identifier: str = ""
    scheme: str = ""
    name: str = ""
    address: tuple[str, ...] = ()
    country: str = ""
    authorised: bool | None = None


_PLACE = {
    "role": "RoleCode", "code": "TypeCode", "locode": "ID", "name": "Name",
}  # fmt: skip


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_PLACE):
    """A place by UN/LOCODE, or by name where there is no code."""

    role: PlaceRole
    code: str = ""
    locode: str = ""
    name: str = ""


_PACKED = {
    "container": "ID", "packages": "QuantityQuantity",
}  # fmt: skip


class Packed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_PACKED):
    """How much of one goods item lies in one container; packages is None where that was not told."""

    container: str
    packages: int | None = None


_GOODSITEM = {
    "number": "SequenceNumeric", "hs_code": "ClassificationID", "hs_edition": "ClassificationEdition", "text":
    "Description", "packages": "PackageQuantity", "package_kind": "PackageTypeCode", "gross_kg":
    "GrossMassMeasure", "origin": "OriginCountryCode", "dangerous": "UNDGID", "packed": "TransportEquipment",
}  # fmt: skip


class GoodsItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_GOODSITEM):
    """One line of goods.

    hs_code : 2 to 12 digits; the first six are the Harmonized System's, the rest a country's own
    hs_edition : year of the edition, None where it was not told
    gross_kg : mass with packages
    dangerous : UN numbers
    """

    number: int
    hs_code: str = ""
    hs_edition: int | None = None
    text: str = ""
    packages: int | None = None
    package_kind: str = ""
    gross_kg: float | None = None
    origin: str = ""
    dangerous: tuple[str, ...] = ()
    packed: tuple[Packed, ...] = ()


_CONSIGNMENT = {
    "number": "SequenceNumeric", "document": "TransportContractDocumentID", "master":
    "MasterTransportContractDocumentID", "booking": "BookingReferenceID", "places": "Location", "parties":
    "Party", "goods": "ConsignmentItem", "gross_kg": "GrossMassMeasure",
}  # fmt: skip


class Consignment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_CONSIGNMENT):
    """Goods of one transport document.

    document : number of the bill of lading or waybill; house documents name their master in `master`
    """

    number: int
    document: str = ""
    master: str = ""
    booking: str = ""
    places: tuple[Place, ...] = ()
    parties: tuple[Party, ...] = ()
    goods: tuple[GoodsItem, ...] = ()
    gross_kg: float | None = None


_EQUIPMENT = {
    "number": "ID", "size_type": "CharacteristicCode", "full": "Full", "gross_kg": "GrossMassMeasure",
    "tare_kg": "TareMassMeasure", "seals": "SealID", "prior_scans": "PriorScanQuantity",
}  # fmt: skip


class Equipment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_EQUIPMENT):
    """A container.

    number : as written, without blanks and hyphens; never mended
    size_type : ISO 6346 code, "" where it was not told
    full : True, False (declared empty), None where nothing was said
    gross_kg, tare_kg : of container and cargo, and of the container alone
    """

    number: str
    size_type: str = ""
    full: bool | None = None
    gross_kg: float | None = None
    tare_kg: float | None = None
    seals: tuple[str, ...] = ()
    prior_scans: int | None = None


_CARGOMESSAGE = {
    "form": "Form", "sender": "SubmitterID", "recipient": "RecipientID", "reference": "FunctionalReferenceID",
    "document": "ID", "function": "FunctionCode", "prepared_utc_ns": "IssueDateTime", "transport":
    "BorderTransportMeansName", "voyage": "JourneyID", "plate": "BorderTransportMeansRegistrationID", "places":
    "Location", "parties": "Party", "equipment": "TransportEquipment", "consignments": "Consignment",
    "problems": "Problem",
}  # fmt: skip


class CargoMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=_CARGOMESSAGE):
    """One message.

    form : what it came in
    reference : of the message, unique with its sender; `document` is what corrections refer to
    prepared_utc_ns : None where it was not told or cannot be read
    transport, voyage, plate : means of transport, journey, and the truck's plate where one is named
    problems : what is odd, in words; none of it was mended in silence
    """

    form: Literal["CUSCAR", "IFTMCS", "JSON", "CSV"]
    sender: str = ""
    recipient: str = ""
    reference: str = ""
    document: str = ""
    function: Function = "unknown"
    prepared_utc_ns: int | None = None
    transport: str = ""
    voyage: str = ""
    plate: str = ""
    places: tuple[Place, ...] = ()
    parties: tuple[Party, ...] = ()
    equipment: tuple[Equipment, ...] = ()
    consignments: tuple[Consignment, ...] = ()
    problems: tuple[str, ...] = ()


def kilograms(amount: float, unit: str) -> tuple[float, str]:
    """Return a mass in kilograms, and what is odd about it, "" if nothing.

    Raises ValueError for a unit that is no mass known here: a weight of an unknown unit is no weight.
    """
    unit = unit.strip().upper()
    if unit not in KILOGRAMS:
        raise ValueError(f"weight {amount:g} in {unit or 'no unit'}; known are {', '.join(KILOGRAMS)}")
    mass = amount * KILOGRAMS[unit]
    if not math.isfinite(mass):
        raise ValueError(f"weight {amount:g} {unit} is no number")
    if mass < 0:
        raise ValueError(f"weight {amount:g} {unit} is below zero")
    if KILOGRAMS[unit] not in (1.0, 1000.0):
        return mass, f"weight {amount:g} {unit} is no metric trade unit; taken as {mass:.0f} kg"
    return mass, ""


def too_many_parties(parties: int, bills: int) -> str:
    """Return in words that a message names more parties than any does, "" if not."""
    bills = max(bills, 1)
    if parties <= MAX_PARTIES + 10 * bills:
        return ""
    return (
        f"names {parties} parties for {bills} consignments, more than {MAX_PARTIES} and ten for each; ask its sender "
        "to split or mend it"
    )


def odd_equipment(equipment: Equipment) -> list[str]:
    """Return what is odd about a container's number and weights, in words."""
    found = []
    number = equipment.number
    good = check_digit_ok(number)
    if good is None:
        found.append(f"container {number[:40]!r}: not four letters and seven digits")
    elif not good:
        found.append(f"container {number}: its check digit does not fit")
    gross, tare = equipment.gross_kg, equipment.tare_kg
    if gross is not None and gross > MAX_GROSS_KG:
        found.append(f"container {number}: a gross weight of {gross:.0f} kg is more than any container's")
    if gross is not None and tare is not None and tare > gross:
        found.append(f"container {number}: empty it weighs {tare:.0f} kg, more than the {gross:.0f} kg with its cargo")
    return found


def odd_hs_code(code: str, edition: int | None) -> list[str]:
    """Return what is odd about a code of the Harmonized System, in words."""
    found = []
    if not re.fullmatch(r"[0-9]{2}|[0-9]{4}|[0-9]{6,12}", code):
        found.append(f"goods code {code[:20]!r}: not 2, 4 or 6 to 12 digits of the Harmonized System")
    elif not 1 <= int(code[:2]) <= 99 or code[:2] == "77":
        found.append(f"goods code {code}: the Harmonized System has no chapter {code[:2]}")
    if edition is not None and edition not in HS_EDITIONS:
        found.append(f"goods code {code}: there is no edition of {edition}")
    elif edition is not None and edition < HS_EDITIONS[-1]:
        found.append(f"goods code {code} is of the edition of {edition}, not of {HS_EDITIONS[-1]}")
    return found


def odd_place(place: Place) -> list[str]:
    """Return what is odd about a place, in words."""
    if place.locode and not re.fullmatch(r"[A-Z]{2}[A-Z2-9]{3}", place.locode):
        return [f"place {place.locode[:20]!r}: not two letters of a country and three of a place (UN/LOCODE)"]
    return []


def odd_message(message: CargoMessage) -> list[str]:
    """Return what does not fit together in a message, in words: numbers, codes, references and sums."""
    found = []
    for equipment in message.equipment:
        found += odd_equipment(equipment)
    known = [e.number for e in message.equipment]
    for number in sorted({n for n in known if known.count(n) > 1}):
        found.append(f"container {number}: told of {known.count(number)} times in one message")
    for place in [*message.places, *(p for c in message.consignments for p in c.places)]:
        found += odd_place(place)
    for consignment in message.consignments:
        where = f"consignment {consignment.document or consignment.number}"
        for item in consignment.goods:
            if item.hs_code:
                found += [f"{where}: {odd}" for odd in odd_hs_code(item.hs_code, item.hs_edition)]
            for packed in item.packed:
                if packed.container not in known:
                    found.append(f"{where}: goods in container {packed.container}, which the message does not list")
    goods_in = {p.container for c in message.consignments for i in c.goods for p in i.packed}
    for equipment in message.equipment:
        if equipment.full is False and equipment.number in goods_in:
            found.append(f"container {equipment.number}: declared empty, and goods are declared in it")
    return list(dict.fromkeys(found))


def with_problems(message: CargoMessage, problems: Iterable[str] = ()) -> CargoMessage:
    """Return a message with what is odd in it, and what was found while it was read, in its `problems`."""
    message, cut = _short(message)
    return msgspec.structs.replace(message, problems=tuple(dict.fromkeys([*problems, *cut, *odd_message(message)])))


def _short(message: CargoMessage) -> tuple[CargoMessage, list[str]]:
    """Return a message whose parties have names and addresses of no more than MAX_TEXT, and what was cut."""
    cut: list[str] = []

    def short(parties: tuple[Party, ...]) -> tuple[Party, ...]:
        return tuple(
            p if len(p.name) <= MAX_TEXT and all(len(a) <= MAX_TEXT for a in p.address) else shortened(p)
            for p in parties
        )

    def shortened(party: Party) -> Party:
        longest = max(len(party.name), *(len(a) for a in party.address), 0)
        cut.append(f"{party.role} {party.name[:40]!r}: a text of {longest} characters, cut to {MAX_TEXT}")
        address = tuple(a[:MAX_TEXT] for a in party.address)
        return msgspec.structs.replace(party, name=party.name[:MAX_TEXT], address=address)

    bills = tuple(msgspec.structs.replace(c, parties=short(c.parties)) for c in message.consignments)
    return msgspec.structs.replace(message, parties=short(message.parties), consignments=bills), cut


def declarations(message: CargoMessage) -> dict[str, Declaration]:
    """Return what a message declares, by container number.

    Goods without a named container belong to the message's only container; with several, to all of them, for it is not
    known where they lie.
    """
    from scanner_io.model import Declaration  # whose events hold messages

    found = {}
    for equipment in message.equipment:
        lines = []
        involved = []
        for consignment in message.consignments:
            held = [
                i for i in consignment.goods
                if not i.packed or any(p.container == equipment.number for p in i.packed)
            ]  # fmt: skip
            if held:
                lines += held
                involved.append(consignment)
        places = [*message.places, *(p for c in involved for p in c.places)]
        parties = [*(p for c in involved for p in c.parties), *message.parties]
        shipper, receiver = _party(parties, "consignor"), _party(parties, "consignee")
        known = [p.authorised for p in (shipper, receiver) if p is not None and p.authorised is not None]
        full = equipment.full
        found[equipment.number] = Declaration(
            container_numbers=(equipment.number,),
            hs_codes=tuple(dict.fromkeys(i.hs_code for i in lines if i.hs_code)),
            goods="; ".join(dict.fromkeys(i.text for i in lines if i.text)),
            declared_empty=None if full is None else not full,
            gross_weight_kg=equipment.gross_kg,
            tare_weight_kg=equipment.tare_kg,
            seals=equipment.seals,
            consignor=shipper.name if shipper else "",
            consignee=receiver.name if receiver else "",
            authorised_trader=all(known) if len(known) == 2 else (False if False in known else None),
            origin=next((i.origin for i in lines if i.origin), ""),
            route=tuple(dict.fromkeys(p.locode for p in _in_order(places) if p.locode)),
            prior_scans=equipment.prior_scans,
        )
    return found


def locode(text: str) -> str:
    """Return a UN/LOCODE as it is compared."""
    return re.sub(r"\s", "", text).upper()


def container(text: str) -> str:
    """Return a container number as it is compared."""
    return tidy(text)


_ORDER: tuple[PlaceRole, ...] = ("origin", "departure", "loading", "transit", "discharge", "delivery", "destination")


def _in_order(places: list[Place]) -> list[Place]:
    return sorted((p for p in places if p.role in _ORDER), key=lambda p: _ORDER.index(p.role))


def _party(parties: list[Party], role: Role) -> Party | None:
    return next((p for p in parties if p.role == role), None)
