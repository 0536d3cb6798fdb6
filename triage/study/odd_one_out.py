"""`scanlane study odd-one-out DIR`: the strange box of every lot of boxes that one shipper declared alike.

A lot is: one consignor, one consignee, the same declared codes and goods, each box scanned within two weeks of the one
before. A declaration that names no shipper or no goods belongs to no lot, and neither does a scan of several
containers, for it is not known which of them the papers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from scanner_io import recording
from scanner_io.errors import ScannerError
from scanner_io.model import Declaration
from triage.analysis.image import ImageProfile, judge_image
from triage.analysis.odd_one_out import LEAST_LOT, odd_one_out

DAY_NS = 86_400 * 10**9
WITHIN_DAYS = 14.0
LEVEL = 0.05
"""p from which a box is called odd."""

Lot = tuple[str, ...]


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One scan that belongs to a lot; traits are empty where the image shows too little load."""

    file: str
    scan: str
    utc_ns: int
    lot: Lot
    container: str
    traits: tuple[float, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A box among the others of its lot; see `analysis.odd_one_out.Odd`."""

    file: str
    scan: str
    container: str
    score: float
    p_value: float
    words: str


class LotReport(msgspec.Struct, frozen=True, kw_only=True):
    """One lot: who sent what to whom, how many boxes, and the boxes, oddest first; none where the lot is too small."""

    consignor: str
    consignee: str
    goods: str
    boxes: int
    places: tuple[Place, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive says.

    lots : those of LEAST_LOT boxes and more; too_small : number of smaller ones
    no_lot : recordings whose papers or image name none; unread : file and error of those that cannot be read
    """

    lots: tuple[LotReport, ...]
    too_small: int
    no_lot: int
    unread: tuple[tuple[str, str], ...]


def lot_of(declaration: Declaration | None) -> Lot | None:
    """Return what boxes of one lot have in common, None where the papers do not say it."""
    if declaration is None or declaration.declared_empty:
        return None
    named = (declaration.consignor, declaration.consignee, " ".join(sorted(declaration.hs_codes)), declaration.goods)
    return named if declaration.consignor and declaration.consignee and declaration.hs_codes else None


def read_box(path: Path, profile: ImageProfile) -> Box | None:
    """Return the box in a recording, None where it belongs to no lot. Raises ScannerError for a bad file."""
    scan = recording.read(path).scan
    lot = lot_of(scan.declaration)
    if lot is None or scan.declaration is None or scan.radiograph is None:
        return None
    image = judge_image(scan.radiograph, profile)
    if len(image.containers) != 1 or not image.traits:
        return None
    return Box(
        file=str(path), scan=scan.scan_id, utc_ns=scan.start_utc_ns, lot=lot, traits=image.traits,
        container=" ".join(scan.declaration.container_numbers),
    )  # fmt: skip


def study(files: Iterable[Path], progress: Callable[[], None], profile: ImageProfile | None = None) -> Report:
    """Return the lots in recordings, each with its boxes in order of oddness."""
    by: dict[Lot, list[Box]] = {}
    no_lot = 0
    unread: list[tuple[str, str]] = []
    for path in files:
        try:
            box = read_box(path, profile or ImageProfile())
        except (ScannerError, OSError) as error:
            unread.append((str(path), str(error)))
            continue
        finally:
            progress()
        if box is None:
            no_lot += 1
        else:
            by.setdefault(box.lot, []).append(box)
    lots = [part for boxes in by.values() for part in _by_time(boxes)]
    judged = [_judged(lot) for lot in lots if len(lot) >= LEAST_LOT]
    judged.sort(key=lambda lot: lot.places[0].p_value)
    return Report(lots=tuple(judged), too_small=len(lots) - len(judged), no_lot=no_lot, unread=tuple(unread))


def _by_time(boxes: Sequence[Box]) -> list[list[Box]]:
    """Part boxes where more than WITHIN_DAYS lie between two."""
    lots: list[list[Box]] = []
    for box in sorted(boxes, key=lambda b: (b.utc_ns, b.scan)):
        if lots and box.utc_ns - lots[-1][-1].utc_ns <= WITHIN_DAYS * DAY_NS:
            lots[-1].append(box)
        else:
            lots.append([box])
    return lots


def _judged(lot: list[Box]) -> LotReport:
    odd = odd_one_out([np.array(box.traits) for box in lot])
    assert odd is not None
    places = [
        Place(file=b.file, scan=b.scan, container=b.container, score=o.score, p_value=o.p_value, words=o.words)
        for b, o in zip(lot, odd, strict=True)
    ]
    consignor, consignee, codes, goods = lot[0].lot
    return LotReport(
        consignor=consignor, consignee=consignee, goods=f"{goods} (HS {codes})", boxes=len(lot),
        places=tuple(sorted(places, key=lambda p: (p.p_value, -p.score))),
    )  # fmt: skip
