"""Gates that do not exist: vehicles, their declarations, and what cameras read of them, with errors of reading.

The generator against which matching is measured. It knows nothing of matching's own model and shares no table with it:
errors come from dirt that a whole face of a container shares, go in bursts, are taken for others by a table of directed
pairs with weights of their own, and the confidence that a reader tells is only loosely bound to what it got wrong.

What is assumed, because no public figures by character were found: shares of dirty faces, pairs and their weights.
Known: cameras read a container from two sides or more, a reader tells 78 to 100 of 100 (sidecars of real passages,
November 2025), an unread character is "?", some fields are empty, a truck may carry two containers (2 of 14 real
passages). Fleets are bought in series: numbers that differ in their last digits arrive on the same day.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scanner_io.formats.iso6346 import check_digit
from triage.analysis.matching import Candidate, Reading

Rng = np.random.Generator

MISTAKEN: dict[str, tuple[tuple[str, float], ...]] = {
    "0": (("O", 5), ("D", 1.5), ("Q", 1), ("8", 1), ("6", 0.5)), "O": (("0", 6), ("Q", 1), ("D", 1.5), ("C", 0.7)),
    "1": (("I", 4), ("7", 1.5), ("L", 1), ("T", 0.5)), "I": (("1", 4), ("T", 1), ("L", 1)),
    "2": (("Z", 3), ("7", 0.8)), "Z": (("2", 3), ("7", 0.6)), "3": (("8", 2), ("B", 0.6), ("9", 0.6)),
    "4": (("A", 1.5), ("1", 0.7), ("9", 0.5)), "5": (("S", 4), ("6", 1), ("3", 0.6)),
    "S": (("5", 4), ("8", 0.7), ("G", 0.3)), "6": (("G", 2), ("8", 1.5), ("5", 0.8), ("0", 0.6)),
    "7": (("1", 1.5), ("T", 1), ("Y", 0.4)), "8": (("B", 4), ("3", 1.5), ("0", 1), ("6", 1), ("9", 0.5)),
    "9": (("8", 1), ("0", 0.7), ("4", 0.5), ("G", 0.4)), "B": (("8", 4), ("3", 1), ("R", 0.7), ("E", 0.5)),
    "U": (("V", 2), ("O", 1), ("J", 0.7), ("L", 0.4)), "V": (("U", 1.5), ("Y", 1), ("W", 0.4)),
    "M": (("N", 1.5), ("W", 0.8), ("H", 0.8)), "N": (("M", 1), ("H", 1), ("K", 0.4)), "C": (("G", 1.5), ("O", 1)),
    "G": (("6", 1.5), ("C", 1.2), ("O", 0.6)), "E": (("F", 1.5), ("B", 0.8), ("L", 0.4)), "D": (("0", 1.5), ("O", 1.5)),
    "F": (("P", 1), ("E", 1.2)), "P": (("R", 1), ("F", 0.8)), "R": (("K", 0.8), ("P", 0.8), ("B", 0.6)),
    "T": (("1", 0.7), ("7", 1), ("I", 0.8)), "H": (("N", 1), ("M", 0.7)), "L": (("1", 1), ("I", 1)),
}  # fmt: skip
"""What a character is taken for, with weights; one that is not here is taken for any."""
ANY = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
OWNERS = (
    "MSKU",
    "TGHU",
    "CSQU",
    "CMAU",
    "HLXU",
    "OOLU",
    "TCNU",
    "TRLU",
    "FSCU",
    "TEMU",
    "BMOU",
    "GESU",
    "MEDU",
    "EITU",
)
"""Prefixes of owners as they are seen in ports; the numbers behind them are drawn."""


class Gate(NamedTuple):
    """How a gate's traffic and cameras are.

    cameras : that read the container; plates : whether a camera reads plates
    declared : vehicles whose declaration is there; declared_plate : declarations that name a plate; exchanged : trucks
        that are another than declared
    dirty, ruined : container faces with so much dirt; empty : readings that are empty though the face is clean
    twins : vehicles with two containers
    """

    cameras: int = 2
    plates: bool = True
    declarations: int = 600
    declared: float = 0.95
    declared_plate: float = 0.8
    exchanged: float = 0.06
    dirty: float = 0.10
    ruined: float = 0.01
    empty: float = 0.015
    twins: float = 0.05


class Arrival(NamedTuple):
    """A vehicle. truth : numbers of its containers' declarations, of all that are declared; what was read of it"""

    truth: frozenset[int]
    containers: tuple[str, ...]
    readings: tuple[Reading, ...]
    spoiled: bool
    """Whether any container reading is not the number."""


def number_of(owner: str, serial: int) -> str:
    """Return a container number with its check digit."""
    code = f"{owner}{serial % 1_000_000:06d}"
    return f"{code}{check_digit(code)}"


def manifest(rng: Rng, gate: Gate) -> tuple[list[Candidate], list[str]]:
    """Return what is declared in a day, and containers of the same series that are not."""
    numbers: list[str] = []
    strangers: list[str] = []
    while len(numbers) < gate.declarations:
        owner, first = str(rng.choice(OWNERS)), int(rng.integers(0, 1_000_000))
        run = int(rng.integers(2, 12)) if rng.random() < 0.4 else 1
        for k in range(run):  # of a series, most come, some do not
            serial = first + k * int(rng.integers(1, 4))
            (numbers if rng.random() < 0.85 else strangers).append(number_of(owner, serial))
    numbers = list(dict.fromkeys(numbers))[: gate.declarations]
    strangers = [n for n in dict.fromkeys(strangers) if n not in set(numbers)]
    bookings = [f"BK{int(rng.integers(0, 10**6)):06d}" for _ in range(len(numbers) // 2 + 1)]
    found = [
        Candidate(
            number=n, plate=_plate(rng) if rng.random() < gate.declared_plate else "",
            bookings=(bookings[int(rng.integers(0, len(bookings)))],),
        )
        for n in numbers
    ]  # fmt: skip
    return found, strangers


def _plate(rng: Rng) -> str:
    letters = [ANY[int(i)] for i in rng.integers(0, 26, 4)]
    digits = rng.integers(0, 10, 3)
    return f"{letters[0]}{letters[1]}{letters[2]}{digits[0]}{letters[3]}{digits[1]}{digits[2]}"


def arrival(rng: Rng, gate: Gate, declared: list[Candidate], strangers: list[str]) -> Arrival:
    """Return one vehicle as the cameras have it."""
    here: list[int] = []
    if rng.random() < gate.declared:
        here = [int(rng.integers(0, len(declared)))]
        if rng.random() < gate.twins:
            here = list(dict.fromkeys([*here, int(rng.integers(0, len(declared)))]))
        containers = [declared[i].number for i in here]
    elif strangers and rng.random() < 0.5:
        containers = [str(rng.choice(strangers))]
    else:
        containers = [number_of(str(rng.choice(OWNERS)), int(rng.integers(0, 1_000_000)))]
        here = [i for i, c in enumerate(declared) if c.number == containers[0]]
    plate = declared[here[0]].plate if here else ""
    if not plate or rng.random() < gate.exchanged:
        plate = _plate(rng)
    readings, spoiled = [], False
    for number in containers:
        for _ in range(gate.cameras):
            reading = _read(rng, "container", number, _dirt(rng, gate), gate.empty)
            spoiled |= reading.text != number
            readings.append(reading)
    if gate.plates:
        readings.append(_read(rng, "plate", plate, _dirt(rng, gate), gate.empty))
    return Arrival(frozenset(here), tuple(containers), tuple(readings), spoiled)


def _dirt(rng: Rng, gate: Gate) -> float:
    """Return the chance of an error at one character of a face."""
    draw = rng.random()
    if draw < gate.ruined:
        return float(rng.uniform(0.2, 0.6))
    if draw < gate.ruined + gate.dirty:
        return float(rng.uniform(0.02, 0.15))
    return float(rng.uniform(0.0005, 0.004))


def _read(rng: Rng, kind: str, text: str, dirt: float, empty: float) -> Reading:
    if rng.random() < empty + 0.3 * max(dirt - 0.2, 0):
        return Reading(kind=kind, text="", confidence=None)  # type: ignore[arg-type]
    found: list[str] = []
    burst = False
    for c in text:
        burst = rng.random() < (0.35 if burst else dirt)
        found.append(_mistake(rng, c) if burst else c)
    if rng.random() < 0.1 * dirt + 0.001:  # cut at an end
        cut = int(rng.integers(1, 3))
        found = found[cut:] if rng.random() < 0.5 else found[:-cut]
    if rng.random() < 0.05 * dirt + 0.0005 and len(found) > 2:
        at = int(rng.integers(0, len(found) - 1))
        found[at : at + 2] = found[at : at + 2][::-1]
    read = "".join(found)
    return Reading(kind=kind, text=read, confidence=_confidence(rng, read == text))  # type: ignore[arg-type]


def _mistake(rng: Rng, c: str) -> str:
    """Return what stands where a character was read wrong: "" if it was lost, two if one was added."""
    draw = rng.random()
    if draw < 0.14:
        return ""
    if draw < 0.22:
        return "?"
    if draw < 0.27:
        return c + ANY[int(rng.integers(0, 36))]
    pairs = MISTAKEN.get(c)
    if pairs is None or rng.random() < 0.2:
        return ANY[int(rng.integers(0, 36))]
    weights = np.array([w for _, w in pairs])
    return pairs[int(rng.choice(len(pairs), p=weights / weights.sum()))][0]


def _confidence(rng: Rng, right: bool) -> int | None:
    """Return what the reader says of itself: it is too sure at times, and says nothing at others."""
    if rng.random() < 0.03:
        return None
    level = rng.normal(97, 3) if right else rng.normal(99, 1) if rng.random() < 0.08 else rng.normal(84, 10)
    return int(np.clip(level, 1, 100))
