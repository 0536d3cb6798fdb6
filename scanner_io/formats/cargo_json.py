"""Cargo messages as JSON, with the class and attribute names of the WCO Data Model, and as plain tables (CSV).

    {"Declaration": {
        "ID": "MAN0001", "FunctionCode": "original", "FunctionalReferenceID": "1", "SubmitterID": "CARRIER",
        "IssueDateTime": "2026-11-25T09:30:00Z", "BorderTransportMeansName": "EMMA", "JourneyID": "123W",
        "TransportEquipment": [{"ID": "CSQU3054383", "CharacteristicCode": "22G1", "Full": true, "SealID": ["A123"],
            "GrossMassMeasure": {"value": 24500, "unitCode": "KGM"}}],
        "Consignment": [{"SequenceNumeric": 1, "TransportContractDocumentID": "BL77",
            "Location": [{"RoleCode": "loading", "ID": "CNSHA"}, {"RoleCode": "discharge", "ID": "BRSSZ"}],
            "Party": [{"RoleCode": "consignor", "Name": "ACME LTD", "AuthorisedEconomicOperator": true}],
            "ConsignmentItem": [{"SequenceNumeric": 1, "Description": "TILES", "ClassificationID": "690721",
                "ClassificationEdition": 2022, "PackageQuantity": 400, "PackageTypeCode": "CT",
                "GrossMassMeasure": {"value": 21000, "unitCode": "KGM"},
                "TransportEquipment": [{"ID": "CSQU3054383", "QuantityQuantity": 400}]}]}]}}

The document is one such object, or a list of them. All members are in `cargo`, beside the types; classes that the model
nests for one member alone are flattened (`Classification.ID` is `ClassificationID`). Codes may be written as words or
as the codes of UN/EDIFACT (FunctionCode "9", RoleCode "CZ"). A mass is kilograms, or a value with its unit. Unknown
members are passed over; a member of a wrong type is an error that names it.

A table has one row for each container and goods line, with the columns of `COLUMNS` in any order; `container` must be
there. Numbers are written with a point and without groups.

Source: WCO Data Model 3.11 (names; `AuthorisedEconomicOperator`, `PriorScanQuantity` and `Full` are ours).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

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
    with_problems,
)
from .times import utc_ns

MAX_BYTES = 16 << 20
MAX_ROWS = 200_000
COLUMNS = (
    "document", "function", "container", "size_type", "full", "gross_kg", "tare_kg", "seals", "bill", "booking",
    "hs_code", "hs_edition", "goods", "packages", "package_kind", "goods_kg", "origin", "dangerous", "consignor",
    "consignee", "consignor_authorised", "consignee_authorised", "loading", "discharge", "prior_scans", "plate",
)  # fmt: skip
"""Columns of a table. Several seals, places or UN numbers are parted by blanks."""


# --------------------------------------------------------------------------------------------------------------
# JSON


def read_json(data: bytes, name: str) -> tuple[CargoMessage, ...]:
    """Return the messages of a JSON document.

    Raises DataError: too large, no JSON, no "Declaration", a member of a wrong type, a mass of an unknown unit.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: {len(data)} bytes; documents of up to {MAX_BYTES} are read, so split it")
    try:
        told = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: no JSON: {error}") from error
    found = []
    for position, entry in enumerate(told if isinstance(told, list) else [told]):
        where = f"{name}: entry {position}" if isinstance(told, list) else name
        if not isinstance(entry, dict) or not isinstance(entry.get("Declaration"), dict):
            raise DataError(f'{where}: is no object with the member "Declaration"')
        problems: list[str] = []
        plain = {**_plain(entry["Declaration"], where, problems), "Form": "JSON", "Problem": []}
        try:
            message = msgspec.convert(plain, CargoMessage)
        except msgspec.ValidationError as error:
            raise DataError(f"{where}: {str(error).replace('$', 'Declaration')}") from error
        found.append(with_problems(_tidied(message), problems))
    return tuple(found)


def write_json(messages: Iterable[CargoMessage]) -> bytes:
    """Return messages as a JSON list; what is odd in them is not written, for a reader finds it again."""
    entries = []
    for message in messages:
        told = msgspec.to_builtins(msgspec.structs.replace(message, problems=()))
        del told["Form"]
        if message.prepared_utc_ns is not None:
            moment = datetime.fromtimestamp(message.prepared_utc_ns // 1_000_000_000, UTC)
            told["IssueDateTime"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        entries.append({"Declaration": told})
    return msgspec.json.format(msgspec.json.encode(entries), indent=1)


def _plain(told: dict[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """Return a decoded object with codes as words, masses in kilograms and times in nanoseconds."""
    found: dict[str, Any] = {}
    for member, value in told.items():
        if member.endswith("MassMeasure"):
            found[member] = _mass(value, f"{where}: {member}", problems)
        elif member == "FunctionCode":
            found[member] = FUNCTIONS.get(str(value), value)
        elif member == "RoleCode":
            found[member] = ROLES.get(str(value), PLACES.get(str(value), value))
        elif member == "IssueDateTime":
            found[member] = _utc_ns(value, where)
        elif isinstance(value, list):
            found[member] = [_plain(v, where, problems) if isinstance(v, dict) else v for v in value]
        else:
            found[member] = value
    return found


def _mass(value: Any, where: str, problems: list[str]) -> float:
    if isinstance(value, dict):
        value, unit = value.get("value"), value.get("unitCode", "")
    else:
        unit = "KGM"
    if isinstance(value, bool) or not isinstance(value, int | float) or not isinstance(unit, str):
        raise DataError(f"{where} is {value!r} {unit!r}; it is a number of kilograms, or a value and a unitCode")
    try:
        mass, odd = kilograms(float(value), unit)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if odd:
        problems.append(odd)
    return mass


def _utc_ns(value: Any, where: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: IssueDateTime {value!r} is no time like 2026-11-25T09:30:00Z") from error
    if moment.tzinfo is None:
        raise DataError(f"{where}: IssueDateTime {value!r} names no time zone; add Z or an offset")
    try:
        return utc_ns(moment, moment.utcoffset() or timedelta(0))
    except ValueError as error:
        raise DataError(f"{where}: IssueDateTime {value!r} is no time of this age ({error})") from error


def _tidied(message: CargoMessage) -> CargoMessage:
    """Return a message whose numbers and places are written as they are compared."""
    replace = msgspec.structs.replace

    def places(told: tuple[Place, ...]) -> tuple[Place, ...]:
        return tuple(replace(p, locode=locode(p.locode)) for p in told)

    def item(told: GoodsItem) -> GoodsItem:
        packed = tuple(replace(p, container=container(p.container)) for p in told.packed)
        return replace(told, hs_code=re.sub(r"[\s.]", "", told.hs_code), packed=packed)

    return replace(
        message,
        places=places(message.places),
        plate=container(message.plate),
        equipment=tuple(
            replace(e, number=container(e.number), size_type=e.size_type.upper()) for e in message.equipment
        ),
        consignments=tuple(
            replace(c, places=places(c.places), goods=tuple(map(item, c.goods))) for c in message.consignments
        ),
    )


# --------------------------------------------------------------------------------------------------------------
# Tables


def read_table(data: bytes, name: str, sender: str = "") -> tuple[CargoMessage, ...]:
    """Return a table's messages, one for each document number, in the order of the table.

    Raises DataError: too large, not in UTF-8, a missing or unknown column, a row of another length, a wrong cell.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{name}: {len(data)} bytes; tables of up to {MAX_BYTES} are read, so split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: byte {error.start} is {data[error.start]:#04x}: save the table as UTF-8") from error
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise DataError(f"{name}: no table of comma-separated values: {error}") from error
    if not rows or "container" not in (header := [c.strip().lower() for c in rows[0]]):
        raise DataError(f"{name}: its first row names no column `container`; columns are {', '.join(COLUMNS)}")
    unknown = sorted(set(header) - set(COLUMNS))
    if unknown or len(set(header)) != len(header):
        raise DataError(f"{name}: columns {unknown or 'twice the same'}; known are {', '.join(COLUMNS)}")
    if len(rows) > MAX_ROWS:
        raise DataError(f"{name}: {len(rows)} rows; tables of up to {MAX_ROWS} are read, so split it")
    documents: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, cells in enumerate(rows[1:], start=2):
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise DataError(f"{name}, row {number}: {len(cells)} cells for {len(header)} columns")
        row = {c: v.strip() for c, v in zip(header, cells, strict=True)}
        documents.setdefault(row.get("document", ""), []).append((number, row))
    return tuple(_message_of(document, found, name, sender) for document, found in documents.items())


def _message_of(document: str, rows: list[tuple[int, dict[str, str]]], name: str, sender: str) -> CargoMessage:
    problems: list[str] = []
    boxes: dict[str, Equipment] = {}
    bills: dict[str, Consignment] = {}
    for number, row in rows:
        where = f"{name}, row {number}"
        box = Equipment(
            number=container(row["container"]), size_type=row.get("size_type", "").upper(),
            full=_yes(row, "full", where), gross_kg=_kg(row, "gross_kg", where), tare_kg=_kg(row, "tare_kg", where),
            seals=tuple(row.get("seals", "").split()), prior_scans=_count(row, "prior_scans", where),
        )  # fmt: skip
        known = boxes.setdefault(box.number, box)
        if known != box:
            problems.append(f"row {number}: container {box.number} is told of otherwise than in a row before")
        bill = bills.setdefault(
            row.get("bill", ""),
            Consignment(
                number=len(bills) + 1, document=row.get("bill", ""), booking=row.get("booking", ""),
                places=tuple(
                    Place(role=role, locode=locode(code))
                    for role in ("loading", "discharge") for code in row.get(role, "").split()
                ),
                parties=tuple(
                    Party(role=role, name=row[role], authorised=_yes(row, f"{role}_authorised", where))
                    for role in ("consignor", "consignee") if row.get(role)
                ),
            ),
        )  # fmt: skip
        if any(row.get(c) for c in ("hs_code", "goods", "packages", "goods_kg")):
            packages = _count(row, "packages", where)
            item = GoodsItem(
                number=len(bill.goods) + 1, hs_code=re.sub(r"[\s.]", "", row.get("hs_code", "")),
                hs_edition=_count(row, "hs_edition", where), text=row.get("goods", ""), packages=packages,
                package_kind=row.get("package_kind", ""), gross_kg=_kg(row, "goods_kg", where),
                origin=row.get("origin", "").upper(), dangerous=tuple(row.get("dangerous", "").split()),
                packed=(Packed(container=box.number, packages=packages),),
            )  # fmt: skip
            bills[bill.document] = msgspec.structs.replace(bill, goods=(*bill.goods, item))
    functions = {row.get("function", "") for _, row in rows}
    told = functions.pop() if len(functions) == 1 else "several"
    if told not in {"", *FUNCTIONS, *FUNCTIONS.values()}:
        problems.append(f"message function {told!r} is not known here")
    function = FUNCTIONS.get(told, told if told in FUNCTIONS.values() else "unknown") if told else "original"
    message = CargoMessage(
        form="CSV", sender=sender, reference=document, document=document, function=function,  # type: ignore[arg-type]
        plate=container(rows[0][1].get("plate", "")), equipment=tuple(boxes.values()),
        consignments=tuple(bills.values()),
    )  # fmt: skip
    return with_problems(message, problems)


def _kg(row: dict[str, str], column: str, where: str) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise DataError(f"{where}: {column} is {text!r}; write kilograms as digits, with a point")
    return float(text)


def _count(row: dict[str, str], column: str, where: str) -> int | None:
    text = row.get(column, "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise DataError(f"{where}: {column} is {text!r}; write a count as digits")
    return int(text)


def _yes(row: dict[str, str], column: str, where: str) -> bool | None:
    text = row.get(column, "").lower()
    known = {"": None, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text not in known:
        raise DataError(f"{where}: {column} is {text!r}; write yes, no or nothing")
    return known[text]
