"""Which of many declarations is this vehicle's, by what cameras read of it: with errors of reading, and with doubt.

Every hypothesis is weighed by Bayes' rule: each declared container, and that the vehicle is none of them. A reading's
likelihood sums over all ways in which a true text becomes the one that was read: characters taken for others, lost,
added, exchanged with their neighbour, or marked as unread. That the vehicle is not declared is weighed with the numbers
that it could then have, above all the one that was read, if its check digit fits: a clean number that is no declared
one is a stranger, even where one of the same series is declared and differs by two digits. The check digit itself
proves little, and no number is mended by it.

A join is made only where the posterior of one declaration leaves less than the accepted chance of a wrong one.
Constants and their sources: `matching.toml`. Source of the method: the noisy channel (Shannon 1948; Kernighan, Church
and Gale 1990 for characters).
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.formats.iso6346 import NUMBER, check_digit, check_digit_ok, tidy

Kind = Literal["container", "plate", "booking"]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
UNREAD = "?"
NEAREST = 24
"""Declared texts that are weighed character by character; the others share too few characters to matter."""
WIDTH = 16
"""Characters of a text that are compared; container numbers have 11."""
SAME_BOX = 8
"""Readings that share so many characters in place are of one container; a truck may carry two, of one owner too: then
they share four, and of the seven others two or three by chance."""
NUMBER_LIKE = 8
"""A text so long that nothing fits is a container that is not declared; a shorter one is a scrap."""


class _Model(NamedTuple):
    alike: dict[str, str]
    alike_share: float
    errors: dict[str, float]
    traffic: dict[str, float]


def _load() -> _Model:
    told = tomllib.loads(Path(__file__).with_name("matching.toml").read_text())
    alike = dict.fromkeys(ALPHABET, "")
    for group in told["characters"]["alike"]:
        for c in group:
            alike[c] = "".join(dict.fromkeys(alike[c] + group.replace(c, "")))
    return _Model(alike, told["characters"]["alike_share"], told["errors"], told["traffic"])


MODEL = _load()


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was read of a vehicle. confidence : the reader's own, 0-100; None where it tells none"""

    kind: Kind
    text: str
    confidence: int | None = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration as it can be known by. number : container, "" without one; tidy texts all"""

    number: str
    plate: str = ""
    bookings: tuple[str, ...] = ()


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """What readings of one container or vehicle say.

    state : matched, doubtful, several (more than one declaration of the container), none
    candidates : numbers of the declarations that fit best, of one container; empty where nothing fits
    confidence : their posterior; runner_up : number of the next best, None where it is that none is his
    by : the kind of reading that speaks most for it
    """

    state: Literal["matched", "doubtful", "several", "none"]
    read: tuple[str, ...]
    candidates: tuple[int, ...] = ()
    confidence: float = 0.0
    runner_up: int | None = None
    runner_up_confidence: float = 0.0
    by: str = ""


def error_rate(reading: Reading) -> float:
    """Return the chance that one character of a reading is wrong."""
    errors = MODEL.errors
    if reading.confidence is None or reading.confidence < 0:
        return errors["usual"]
    right = min(max(reading.confidence / 100, 1e-3), 1 - 1e-9)
    of_one = 1.0 - math.pow(right, 1 / max(len(reading.text), 1))
    return min(max(of_one, errors["least"]), errors["most"])


@cache
def _taken_for(true: str, read: str) -> float:
    """Return the chance that a character that was read wrong was read as this one."""
    if read not in ALPHABET:
        return 1e-4
    group = MODEL.alike.get(true, "")
    other = (1 - MODEL.alike_share if group else 1.0) / (len(ALPHABET) - 1)
    return other + (MODEL.alike_share / len(group) if read in group else 0.0)


@lru_cache(maxsize=200_000)
def likelihood(read: str, true: str, rate: float) -> float:
    """Return the chance that `true` is read as `read`, summed over all ways. rate : of errors of one character."""
    share = MODEL.errors
    wrong, lost, unread = rate * share["wrong"], rate * share["lost"], rate * share["unread"]
    added, swapped = rate * share["added"] / len(ALPHABET), rate * share["swapped"]
    before: list[float] = []
    row = [added**j for j in range(len(read) + 1)]
    for i, t in enumerate(true):
        earlier, before, row = before, row, [row[0] * lost]
        for j, r in enumerate(read):
            one = 1 - rate if r == t else unread if r == UNREAD else wrong * _taken_for(t, r)
            way = before[j] * one + before[j + 1] * lost + row[j] * added
            if i and j and r == true[i - 1] and t == read[j - 1] and r != t:
                way += earlier[j - 1] * swapped
            row.append(way)
    nothing_added: float = (1 - rate * share["added"]) ** (len(true) + 1)  # at all other gaps
    return row[-1] * nothing_added


def _codes(texts: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Return texts as (n, WIDTH) uint8, zeros behind their ends."""
    rows = [t[:WIDTH].encode("ascii", "replace").ljust(WIDTH, b"\0") for t in texts]
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, WIDTH)


def _in_place(codes: npt.NDArray[np.uint8], text: str) -> npt.NDArray[np.int64]:
    """Return how many characters of each text stand where `text` has them, a place more or less for lost ones."""
    if not len(codes):
        return np.zeros(0, np.int64)
    mine = _codes([text])[0]
    equal = (codes == mine) & (mine != 0)
    left = (codes[:, 1:] == mine[:-1]) & (mine[:-1] != 0)
    right = (codes[:, :-1] == mine[1:]) & (mine[1:] != 0)
    together = equal.copy()
    together[:, :-1] |= left
    together[:, 1:] |= right
    found: npt.NDArray[np.int64] = together.sum(axis=1)
    return found


class Manifest:
    """Declarations that a vehicle may have, arranged for matching. Raises nothing; may be empty."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = tuple(candidates)
        self._codes = {
            "container": _codes(c.number for c in candidates), "plate": _codes(c.plate for c in candidates),
        }  # fmt: skip
        self._by_booking: dict[str, list[int]] = {}
        for index, candidate in enumerate(candidates):
            for booking in candidate.bookings:
                self._by_booking.setdefault(booking, []).append(index)
        numbers = [c.number for c in candidates if c.number]
        self._numbers = set(numbers)
        self._owners = Counter(n[:4] for n in self._numbers)
        self._series = Counter(n[:7] for n in self._numbers)

    def match(self, readings: Sequence[Reading], wrong_join: float) -> Match:
        """Return what these readings, of one container at most, say. wrong_join : accepted chance of a wrong join."""
        told = [msgspec.structs.replace(r, text=tidy(r.text)) for r in readings]
        told = [r for r in told if r.text.strip(UNREAD)]
        read = tuple(r.text for r in told)
        if not told or not self.candidates:
            return Match(state="none", read=read)
        near = self._near(told)
        none = MODEL.traffic["undeclared"] * self._stranger(told)
        prior = (1 - MODEL.traffic["undeclared"]) / len(self.candidates)
        weights = {index: prior * math.prod(self._likelihood(r, index) for r in told) for index in near}
        # all the others are declared too, and their texts are foreign to what was read
        rest = (1 - MODEL.traffic["undeclared"]) * math.prod(self._foreign(r) * _background(r) for r in told)
        total = none + rest + sum(weights.values())
        by_key: dict[str, list[int]] = {}
        for index in weights:
            candidate = self.candidates[index]
            by_key.setdefault(candidate.number or f"plate {candidate.plate}", []).append(index)
        # several documents of one container share what speaks for it
        posts = sorted(((sum(weights[i] for i in v) / total, k) for k, v in by_key.items()), reverse=True)
        if not posts or posts[0][0] < max(none, rest) / total:
            best = by_key[posts[0][1]][0] if posts else None
            return Match(
                state="none", read=read, runner_up=best, confidence=max(none, rest) / total,
                runner_up_confidence=posts[0][0] if posts else 0.0,
            )  # fmt: skip
        best_post, key = posts[0]
        rivals = by_key[key]
        second = posts[1] if len(posts) > 1 and posts[1][0] > none / total else (none / total, "")
        sure = best_post >= 1 - wrong_join
        return Match(
            state="doubtful" if not sure else "several" if len(rivals) > 1 else "matched", read=read,
            candidates=tuple(rivals), confidence=best_post, runner_up=by_key[second[1]][0] if second[1] else None,
            runner_up_confidence=second[0], by=self._speaks(told, rivals[0]),
        )  # fmt: skip

    def match_all(self, readings: Sequence[Reading], wrong_join: float) -> tuple[Match, ...]:
        """Return what the readings of a vehicle say, for each container that it seems to carry; at least one."""
        others = [r for r in readings if r.kind != "container"]
        groups: list[list[Reading]] = []
        for reading in readings:
            if reading.kind != "container" or not tidy(reading.text).strip(UNREAD):
                continue
            text = tidy(reading.text)
            same = next(
                (g for g in groups if int(_in_place(_codes(tidy(r.text) for r in g), text).max()) >= SAME_BOX), None
            )
            groups.append([reading]) if same is None else same.append(reading)
        # the plate of a truck with two containers is declared with one of them, nobody knows with which
        found = [self.match([*group, *(others if len(groups) == 1 else ())], wrong_join) for group in groups]
        if len(groups) > 1 and others and not any(m.state == "matched" for m in found):
            found = [self.match([*group, *others], wrong_join) for group in groups]
        whole = [m for m, g in zip(found, groups, strict=True) if m.candidates or len(tidy(g[0].text)) >= NUMBER_LIKE]
        if not whole:
            return (self.match(list(readings), wrong_join),)
        return tuple({m.candidates or m.read: m for m in whole}.values())

    # ------------------------------------------------------------------------------------------------ hypotheses

    def _near(self, readings: Iterable[Reading]) -> list[int]:
        """Return candidates that share enough with what was read to be weighed."""
        found: dict[int, None] = {}
        for reading in readings:
            if reading.kind == "booking":
                found.update(dict.fromkeys(self._by_booking.get(reading.text, [])))
                continue
            shared = _in_place(self._codes[reading.kind], reading.text)
            some = np.argpartition(-shared, NEAREST)[:NEAREST] if len(shared) > NEAREST else np.arange(len(shared))
            found.update(dict.fromkeys(int(i) for i in some if shared[i] >= min(4, len(reading.text))))
        return list(found)

    def _likelihood(self, reading: Reading, index: int) -> float:
        candidate, background = self.candidates[index], _background(reading)
        if reading.kind == "container":
            if not candidate.number:
                return background
            foreign = self._foreign(reading)
            told = likelihood(reading.text, candidate.number, error_rate(reading))
            return (1 - foreign) * told + foreign * background
        texts = (candidate.plate,) if reading.kind == "plate" else candidate.bookings
        known = [likelihood(reading.text, text, error_rate(reading)) for text in texts if text]
        kept = MODEL.traffic["plate_kept"] if known else 0.0
        return kept * max(known, default=0.0) + (1 - kept) * background

    @staticmethod
    def _foreign(reading: Reading) -> float:
        """Return the chance that what was read is of something else, larger where the reader is unsure."""
        doubt = error_rate(reading) / MODEL.errors["most"]
        least, most = MODEL.errors["foreign"], MODEL.errors["foreign_most"]
        return least + (most - least) * doubt

    def _stranger(self, readings: Sequence[Reading]) -> float:
        """Return the chance of the readings if the vehicle is none of the declared ones."""
        boxes = [r for r in readings if r.kind == "container"]
        others = math.prod(_background(r) for r in readings if r.kind != "container")
        possible = {n for r in boxes for n in _numbers_like(r.text)} - self._numbers
        found = sum(
            self._density(n) * math.prod(likelihood(r.text, n, error_rate(r)) for r in boxes) for n in possible
        )  # fmt: skip
        return others * (found + math.prod(self._foreign(r) * _background(r) for r in boxes))

    def _density(self, number: str) -> float:
        """Return how likely an undeclared vehicle carries just this container."""
        traffic, count = MODEL.traffic, max(len(self._numbers), 1)
        return (
            traffic["any_number"] / (26**3 * 1e6)
            + traffic["same_owner"] * self._owners[number[:4]] / count / 1e6
            + traffic["same_series"] * self._series[number[:7]] / count / 1e3
        )

    def _speaks(self, readings: Iterable[Reading], index: int) -> str:
        """Return the kind of reading that speaks most for a candidate."""
        gain: Counter[str] = Counter()
        for reading in readings:
            gain[reading.kind] += math.log(self._likelihood(reading, index) / _background(reading))  # type: ignore[assignment]
        return gain.most_common(1)[0][0] if gain else ""


def _background(reading: Reading) -> float:
    """Return the chance of a text of which nothing is known."""
    return float(len(ALPHABET)) ** -min(len(reading.text), WIDTH)


@lru_cache(maxsize=10_000)
def _numbers_like(text: str) -> tuple[str, ...]:
    """Return whole container numbers whose check digits fit that one error of reading could turn into `text`."""
    return tuple(dict.fromkeys(n for n in _mended(text) if NUMBER.fullmatch(n) and check_digit_ok(n)))


def _mended(text: str) -> Iterator[str]:
    yield text
    if len(text) == 11:
        for i, c in enumerate(text):
            for other in ALPHABET if c == UNREAD else MODEL.alike.get(c, ""):
                yield text[:i] + other + text[i + 1 :]
        for i in range(10):
            yield text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        if NUMBER.fullmatch(text):  # its last digit alone, whatever it was taken for
            yield f"{text[:10]}{check_digit(text)}"
    elif len(text) == 10:
        for i in range(11):
            for other in ALPHABET:
                yield text[:i] + other + text[i:]
    elif len(text) == 12:
        for i in range(12):
            yield text[:i] + text[i + 1 :]
