"""What is known of a simulated vehicle before it comes, and by what it is known again: messages, and cameras that err.

Everything is invented and says so: the owner's code and the plates begin with SIM, and no such country exists.
"""

from __future__ import annotations

from collections.abc import Iterator

from scanner_io.formats.cargo import CargoMessage, Consignment, Equipment, GoodsItem, Packed, Party, Place
from scanner_io.model import NANOSECONDS, Event, LaneEvent

from .config import Config
from .plan import CAMERAS, Plan, plan, stream

SENDER = "SIMULATED"
MISREAD = {"0": "O", "1": "I", "2": "Z", "5": "S", "6": "G", "8": "B", "I": "1", "M": "N", "S": "5", "U": "V"}
"""What a camera takes a character for; others are lost."""


def plate_of(config: Config, index: int) -> str:
    """Return the plate of a vehicle."""
    rng = stream(config, index, CAMERAS)
    letter = "ABCDEFGHJKLMNPRSTVWXYZ"[int(rng.integers(0, 22))]
    return f"SIM{rng.integers(0, 10)}{letter}{rng.integers(0, 100):02d}"


def cargo_message(config: Config, index: int) -> CargoMessage:
    """Return what is declared for vehicle `index` in advance: the same as its own papers say, in a message."""
    this = plan(config, index)
    declared = this.declaration
    boxes = declared.container_numbers
    weight = declared.gross_weight_kg
    reference = this.truth.source_ref.upper()
    parties = (
        Party(role="consignor", name=declared.consignor, authorised=declared.authorised_trader),
        Party(role="consignee", name=declared.consignee, authorised=declared.authorised_trader),
    )
    goods = tuple(
        GoodsItem(
            number=number, hs_code=code, hs_edition=2022, text=declared.goods, origin=declared.origin,
            packed=tuple(Packed(container=box) for box in boxes),
        )
        for number, code in enumerate(declared.hs_codes, 1)
    )  # fmt: skip
    return CargoMessage(
        form="JSON", sender=SENDER, recipient="CUSTOMS", reference=reference, document=reference, function="original",
        plate=plate_of(config, index),
        places=(Place(role="loading", locode=declared.route[0]), Place(role="discharge", locode=declared.route[-1])),
        equipment=tuple(
            Equipment(
                number=box, full=None if declared.declared_empty is None else not declared.declared_empty,
                gross_kg=None if weight is None else weight / len(boxes),
                tare_kg=this.truth.tare_kg / len(boxes), seals=declared.seals, prior_scans=declared.prior_scans,
            )
            for box in boxes
        ),
        consignments=(Consignment(number=1, document=f"BL{reference}", parties=parties, goods=goods),),
    )  # fmt: skip


def cameras(config: Config, this: Plan, slot_utc_ns: int) -> Iterator[tuple[int, Event]]:
    """Yield what the cameras of the gate read: the containers, and the plate."""
    rng = stream(config, this.truth.index, CAMERAS + 1)
    at = slot_utc_ns + int(this.enter_s * NANOSECONDS)
    texts = [("container", number) for number in this.declaration.container_numbers]
    for kind, text in [*texts, ("plate", plate_of(config, this.truth.index))]:
        read, sure = text, int(rng.integers(93, 101))
        if rng.random() < config.misread_share:
            place = int(rng.integers(0, len(text)))
            read = text[:place] + MISREAD.get(text[place], "") + text[place + 1 :]
            sure = int(rng.integers(60, 96))
        yield at, LaneEvent(
            utc_ns=at, kind=kind, text=read, confidence=sure, device="simulated camera",  # type: ignore[arg-type]
        )  # fmt: skip
