"""What goes wrong between a portal and its reader, as data: which fault, at which passage, where in it, for how long.

A plan is a tuple of `Fault`; the same plan and seed play the same bytes, and the truth about every passage names the
faults that were played. Faults come in two families: those that change the portal or the link for a time (`LASTING`)
and those that change the lines of one passage (`EDITS`), which are here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
import numpy as np

FaultKind = Literal[
    "link_lost", "link_cut", "silence", "power_cycle", "number_reset", "tamper", "gamma_high", "gamma_low",
    "neutron_high", "dead_detector", "stuck_detector", "clock_step",
    "missing_gx", "lost_line", "repeated_line", "garbage", "nul", "bad_count", "split", "joined", "one_segment",
    "over_long", "slow", "stall",
]  # fmt: skip
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    kind : link_lost (between two lines), link_cut (in the middle of one), silence (the portal says nothing, its lines
        are lost), power_cycle (silent for `seconds`, then the set-up lines and number 1), number_reset (without set-up
        lines), tamper (TT, after `seconds` TC), gamma_high, gamma_low, neutron_high (GH, GL, NH while vacant),
        dead_detector, stuck_detector (its last count again and again), clock_step (the receiver's clock, by `seconds`);
        missing_gx, lost_line, repeated_line (a line comes twice), garbage (a line of random bytes), nul (NUL bytes
        inside a line), bad_count (a letter in a count), split (a line in pieces), joined (a line end lost), one_segment
        (several lines at once), over_long (70,000 bytes without a line end), slow (a byte at a time), stall (the
        network holds the lines back for `seconds`)
    passage : index of the vehicle, from 0
    at : where, as a share of the time from its entry (0) to its GX (1); beyond both lies vacancy
    seconds : how long, where that has a meaning
    detector : which, 0 to 3, where that has a meaning
    """

    kind: FaultKind
    passage: Annotated[int, msgspec.Meta(ge=0)]
    at: Annotated[float, msgspec.Meta(ge=-100, le=100)] = 0.5
    seconds: Annotated[float, msgspec.Meta(ge=-86_400, le=86_400)] = 0.0
    detector: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0


class Piece(NamedTuple):
    """Bytes that leave the portal together.

    t_s : when they arrive, seconds from the start
    passage : the vehicle that stands in the portal, -1 in vacancy
    gamma, neutron, speed, alarms : intact GS and GA, NS and NA, SP, and GA and NA lines that end in these bytes
    end : an intact GX ends in them
    """

    t_s: float
    data: bytes
    passage: int = -1
    gamma: int = 0
    neutron: int = 0
    speed: int = 0
    alarms: int = 0
    end: bool = False

    @property
    def occupied(self) -> bool:
        """True where an intact line says that a vehicle is there."""
        return bool(self.gamma or self.neutron or self.speed)


def spoilt(piece: Piece, data: bytes) -> Piece:
    """Return the piece with bytes in which none of its lines is intact."""
    return Piece(piece.t_s, data, piece.passage)


def draw(kind: FaultKind, passage: int, rng: np.random.Generator) -> Fault:
    """Return a fault of a kind with random particulars."""
    at, seconds = float(rng.uniform(0.05, 0.95)), 0.0
    if kind in ("link_lost", "link_cut"):
        # Back at once, in the same passage, or much later; sometimes gone before the vehicle comes.
        seconds = float(np.exp(rng.uniform(np.log(0.3), np.log(90.0))))
        if rng.random() < 0.3:
            at = float(rng.uniform(-1.0, 0.0))
    elif kind == "silence":
        seconds = float(np.exp(rng.uniform(np.log(0.5), np.log(40.0))))
        if rng.random() < 0.3:
            at = float(rng.uniform(-0.5, 0.0))
    elif kind == "stall":
        seconds = float(rng.uniform(0.5, 9.0))
    elif kind == "power_cycle":
        seconds, at = float(rng.uniform(2.0, 30.0)), float(rng.uniform(-0.5, 1.5))
    elif kind in ("tamper", "gamma_high", "gamma_low", "neutron_high"):
        seconds, at = float(rng.uniform(5.0, 200.0)), float(rng.uniform(-1.0, 1.2))
    elif kind in ("dead_detector", "stuck_detector"):
        seconds = float(rng.uniform(30.0, 600.0))
    elif kind == "clock_step":
        seconds = float(rng.choice((-1, 1)) * np.exp(rng.uniform(np.log(0.5), np.log(7200.0))))
    return Fault(kind=kind, passage=passage, at=at, seconds=seconds, detector=int(rng.integers(0, 4)))


# --------------------------------------------------------------------------------------------------------------
# Changes of one passage's lines

Edit = Callable[[list[Piece], int, Fault, np.random.Generator], list[Piece]]
"""(lines of the passage in order, index of the line that is hit, fault, rng) -> lines."""


def _missing_gx(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    return [p for p in said if not p.end]


def _lost_line(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    return said[:hit] + said[hit + 1 :]


def _repeated_line(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    # A reader counts a count line again, for it may be two that are alike; a second GX ends nothing.
    again = spoilt(at, at.data) if at.end else at
    return [*said[: hit + 1], again, *said[hit + 1 :]]


def _garbage(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    junk = bytes(rng.integers(0, 256, int(rng.integers(1, 200)), dtype=np.uint8)) + b"\r\n"
    # A NUL alone reads as nothing; every other byte makes a line that is none.
    return [*said[:hit], Piece(at.t_s, b"!" + junk, at.passage), *said[hit:]]


def _nul(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    where = int(rng.integers(1, len(at.data) - 2))
    return [*said[:hit], spoilt(at, at.data[:where] + b"\0" + at.data[where:]), *said[hit + 1 :]]


def _bad_count(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    where = at.data.index(b",") + 2
    return [*said[:hit], spoilt(at, at.data[:where] + b"O" + at.data[where + 1 :]), *said[hit + 1 :]]


def _split(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    cuts = np.sort(rng.choice(np.arange(1, len(at.data)), size=min(3, len(at.data) - 1), replace=False))
    parts = [bytes(p) for p in np.split(np.frombuffer(at.data, np.uint8), cuts)]
    first = [Piece(at.t_s + 0.002 * k, part, at.passage) for k, part in enumerate(parts[:-1])]
    return [*said[:hit], *first, at._replace(t_s=at.t_s + 0.002 * len(first), data=parts[-1]), *said[hit + 1 :]]


def _joined(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    # Two lines without the line end between them: neither is intact.
    return [*said[:hit], spoilt(said[hit + 1], at.data[:-2] + said[hit + 1].data), *said[hit + 2 :]]


def _one_segment(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    end = min(hit + int(rng.integers(2, 8)), len(said))
    return [*said[:hit], together(said[hit:end]), *said[end:]]


def together(pieces: list[Piece]) -> Piece:
    """Return pieces of one passage as one, at the time of the last."""
    last = pieces[-1]
    return Piece(
        last.t_s,
        b"".join(p.data for p in pieces),
        last.passage,
        gamma=sum(p.gamma for p in pieces),
        neutron=sum(p.neutron for p in pieces),
        speed=sum(p.speed for p in pieces),
        alarms=sum(p.alarms for p in pieces),
        end=any(p.end for p in pieces),
    )


def _over_long(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    return [*said[:hit], Piece(at.t_s, b"GS," + b"0" * 70_000 + b"\r\n", at.passage), *said[hit:]]


def _slow(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    at = said[hit]
    step_s = 0.15 / len(at.data)
    crumbs = [Piece(at.t_s + k * step_s, at.data[k : k + 1], at.passage) for k in range(len(at.data) - 1)]
    return [*said[:hit], *crumbs, at._replace(t_s=at.t_s + 0.15, data=at.data[-1:]), *said[hit + 1 :]]


def _stall(said: list[Piece], hit: int, fault: Fault, rng: np.random.Generator) -> list[Piece]:
    begin_s = said[hit].t_s
    # Let go before the vehicle has left, so that what comes late is still its own.
    until_s = min(begin_s + fault.seconds, max(begin_s, said[-1].t_s - 0.01))
    return [p._replace(t_s=until_s) if begin_s <= p.t_s < until_s else p for p in said]


EDITS: dict[str, Edit] = {
    "missing_gx": _missing_gx,
    "lost_line": _lost_line,
    "repeated_line": _repeated_line,
    "garbage": _garbage,
    "nul": _nul,
    "bad_count": _bad_count,
    "split": _split,
    "joined": _joined,
    "one_segment": _one_segment,
    "over_long": _over_long,
    "slow": _slow,
    "stall": _stall,
}
LASTING: tuple[FaultKind, ...] = tuple(k for k in KINDS if k not in EDITS)


def edit(said: list[Piece], fault: Fault, at_s: float, rng: np.random.Generator) -> list[Piece]:
    """Return the passage's lines with one fault; the line that is hit is the first whole one from `at_s` on."""
    hit = next((k for k in range(len(said)) if said[k].t_s >= at_s and _whole(said, k)), None)
    if fault.kind == "missing_gx":
        return _missing_gx(said, 0, fault, rng)
    if hit is None or (fault.kind == "joined" and not _whole(said, hit + 1)):
        return said
    return EDITS[fault.kind](said, hit, fault, rng)


def _whole(said: list[Piece], k: int) -> bool:
    """Return True if piece k is one line and nothing but that: what a fault has taken apart is left alone."""
    if k >= len(said):
        return False
    data, before = said[k].data, said[k - 1].data if k else b"\n"
    return data[:1].isalpha() and data.count(b"\n") == 1 and data[-1:] == b"\n" and before[-1:] == b"\n"
