"""Who is imaged, who is looked at, who is opened, where there is not room for all.

Three reasons choose a passage, in this order, and all that apply are told:

    must     an alarm of the portal, a scan that cannot be judged: whatever the room is
    random   the passage's draw is below the random share: for everybody the same share, whatever their score, trader or
             papers, so that what the profile does not see is found, and what it says can be checked
    risk     the highest scores, as many as there is room for; an authorised trader's score counts for less, unless the
             declaration is doubtful

An authorised trader is chosen less often and never never: the random share is above zero for everybody. What must be
done and what was drawn is never dropped for want of room; it waits, and that is told.

A draw is HMAC-SHA256 of purpose and scan id under a secret seed. Outside nobody can tell it beforehand; who has the
seed can show it afterwards. That the seed was not chosen later shows its commitment, a hash, which is in the audit
chain before it is used.

Source: HMAC, RFC 2104; commitment by a hash, as in Blum, SIGACT News 15 (1983) 23.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from scanner_io.errors import ConfigError, DataError

from .shares import share

ALGORITHM = "scanlane selection 1"
Stage = Literal["image", "look", "open"]
STAGES: tuple[str, ...] = get_args(Stage)
SEED_BYTES = 32

Draw = Callable[[str, str], float]
"""Purpose, scan id -> a number from 0 to 1."""


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of time and what is staffed in it. Half open: [start, end)."""

    start_utc_ns: int
    end_utc_ns: int
    lanes: int
    analysts: int
    places: int


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long one takes, and what share of the time is worked: sources stand in the plan.

    image_s : lane cycle; look_s : mean, not median, of an analyst; open_min : yard place
    """

    image_s: float
    look_s: float
    open_min: float
    busy: float


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How it is chosen.

    random_share : by stage, of all; above zero for image and look
    authorised_weight : what an authorised trader's score counts, 0 to 1
    least_score : what is below it is not chosen by risk, even where there is room
    """

    pace: Pace
    random_share: dict[Stage, float]
    authorised_weight: float
    least_score: float = 0.0

    def __post_init__(self) -> None:
        """Check. Raises ValueError."""
        for stage in ("image", "look"):
            if not 0 < self.random_share.get(stage, 0.0) <= 1:
                raise ValueError(f"random_share.{stage}: expected above 0 and up to 1, so that nobody is chosen never")
        if not 0 <= self.random_share.get("open", 0.0) <= 1:
            raise ValueError("random_share.open: expected 0 to 1")
        if not 0 <= self.authorised_weight <= 1:
            raise ValueError(f"authorised_weight is {self.authorised_weight}; expected 0 to 1")
        pace = self.pace
        if min(pace.image_s, pace.look_s, pace.open_min) <= 0 or not 0 < pace.busy <= 1:
            raise ValueError("pace: times are above 0, and busy is above 0 and up to 1")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One passage that could be chosen.

    must : why it is chosen whatever the room is, empty: it need not be
    trusted : an authorised trader whose declaration is there and not doubtful
    traits : trader class, origin, size: for the fairness report, never for the choice
    """

    scan_id: str
    at_utc_ns: int
    score: float
    must: str = ""
    trusted: bool = False
    traits: dict[str, str] = {}


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one candidate.

    random : its draw is below the random share, whatever else chose it
    rank : among those chosen by risk in its window, from 1; 0: it is none
    waits : it is chosen, and there is no room for it in its window
    """

    scan_id: str
    chosen: bool
    random: bool
    draw: float
    tie: float
    window: int
    rank: int
    waits: bool
    why: str


def commitment(seed: bytes) -> str:
    """Return what may be shown of a seed before it is used."""
    if len(seed) != SEED_BYTES:
        raise DataError(f"the seed has {len(seed)} bytes, expected {SEED_BYTES}")
    return hashlib.sha256(b"scanlane selection seed 1\0" + seed).hexdigest()


def drawing(seed: bytes) -> Draw:
    """Return the draws of a seed, uniform from 0 (included) to 1 (excluded), in steps of 2^-53."""
    commitment(seed)

    def drawn(purpose: str, scan_id: str) -> float:
        text = f"{ALGORITHM}\0{purpose}\0{scan_id}".encode()
        return (int.from_bytes(hmac.digest(seed, text, "sha256")[:8], "big") >> 11) / 2.0**53

    return drawn


def room(stage: Stage, window: Window, pace: Pace) -> int:
    """Return how many a window has room for."""
    seconds = (window.end_utc_ns - window.start_utc_ns) / 1e9 * pace.busy
    servers, each_s = {
        "image": (window.lanes, pace.image_s), "look": (window.analysts, pace.look_s),
        "open": (window.places, 60 * pace.open_min),
    }[stage]  # fmt: skip
    return int(servers * seconds / each_s + 1e-9)


def choose(
    stage: Stage, candidates: Sequence[Candidate], windows: Sequence[Window], plan: Plan, draw: Draw, taken: int = 0
) -> list[Choice]:  # fmt: skip
    """Return what becomes of every candidate, in their order. Pure: a function of its arguments.

    taken : places of every window that are taken already

    Raises DataError for a candidate in no window or in two, or that is there twice.
    """
    names = [c.scan_id for c in candidates]
    if len(set(names)) != len(names):
        raise DataError(f"{stage}: a passage is among the candidates twice: {max(names, key=names.count)}")
    found: dict[str, Choice] = {}
    at = {c.scan_id: _window(c, windows) for c in candidates}
    for number, window in enumerate(windows):
        inside = [c for c in candidates if at[c.scan_id] == number]
        places = max(room(stage, window, plan.pace) - taken, 0)
        for choice in _choose(stage, inside, number, places, plan, draw):
            found[choice.scan_id] = choice
    return [found[name] for name in names]


def _choose(
    stage: Stage, inside: list[Candidate], number: int, places: int, plan: Plan, draw: Draw
) -> list[Choice]:  # fmt: skip
    rate = plan.random_share.get(stage, 0.0)
    drawn = {c.scan_id: (draw(stage, c.scan_id), draw(f"{stage} tie", c.scan_id)) for c in inside}

    def key(c: Candidate) -> float:
        return c.score * (plan.authorised_weight if c.trusted else 1.0)

    ordered = sorted(inside, key=lambda c: (-key(c), drawn[c.scan_id][1], c.scan_id))
    # who was drawn and need not be chosen comes after what must, in the order of the draw
    first = [c for c in ordered if c.must]
    first += sorted((c for c in inside if not c.must and drawn[c.scan_id][0] < rate), key=lambda c: drawn[c.scan_id])
    taken = {c.scan_id: place for place, c in enumerate(first)}
    left = max(places - len(first), 0)
    by_risk = [c for c in ordered if c.scan_id not in taken and key(c) > plan.least_score][:left]
    ranks = {c.scan_id: rank for rank, c in enumerate(by_risk, 1)}
    choices = []
    for c in inside:
        own, tie = drawn[c.scan_id]
        why = [c.must] if c.must else []
        if own < rate:
            why.append(f"drawn at random: {own:.6f} is below the share of {rate:g}")
        if c.scan_id in ranks:
            weighed = f", counted {key(c):g} as an authorised trader's" if c.trusted else ""
            why.append(f"score {c.score:g}{weighed}: number {ranks[c.scan_id]} of {left} by risk")
        waits = taken.get(c.scan_id, 0) >= places and c.scan_id in taken
        if waits:
            why.append(f"waits: there is room for {places} in its window")
        if not why:
            why = [f"not chosen: score counted {key(c):g}, draw {own:.6f}, room for {left} by risk"]
        choices.append(
            Choice(
                scan_id=c.scan_id, chosen=c.scan_id in taken or c.scan_id in ranks, random=own < rate, draw=own,
                tie=tie, window=number, rank=ranks.get(c.scan_id, 0), waits=waits, why="; ".join(why),
            )
        )  # fmt: skip
    return choices


def _window(candidate: Candidate, windows: Sequence[Window]) -> int:
    found = [i for i, w in enumerate(windows) if w.start_utc_ns <= candidate.at_utc_ns < w.end_utc_ns]
    if len(found) != 1:
        raise DataError(
            f"{candidate.scan_id}: at {candidate.at_utc_ns} lies in {len(found)} time windows of the plan, expected 1"
        )
    return found[0]


def fairness(candidates: Iterable[Candidate], choices: Mapping[str, Choice]) -> dict[str, Any]:
    """Return how often passages are chosen, all and by risk alone, by every trait, with exact 95 % intervals.

    differs : the trait's interval does not hold the share of all; that is no proof of bias, and worth a question
    """
    rows = list(candidates)
    total = share(sum(choices[c.scan_id].chosen for c in rows), len(rows))
    told: dict[str, Any] = {"all": total, "traits": {}}
    for trait in sorted({t for c in rows for t in c.traits}):
        groups: dict[str, list[Candidate]] = {}
        for c in rows:
            groups.setdefault(c.traits.get(trait, "not known"), []).append(c)
        told["traits"][trait] = {}
        for value, members in sorted(groups.items()):
            chosen = share(sum(choices[c.scan_id].chosen for c in members), len(members))
            by_risk = share(sum(choices[c.scan_id].rank > 0 for c in members), len(members))
            at_random = share(sum(choices[c.scan_id].random for c in members), len(members))
            differs = not chosen["low"] <= (total["value"] or 0.0) <= chosen["high"]
            told["traits"][trait][value] = {
                "chosen": chosen, "by_risk": by_risk, "random": at_random, "differs": differs,
            }  # fmt: skip
    return told


class Staff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who and what is there in some hours of every day, UTC: [from_hour, to_hour)."""

    from_hour: int
    to_hour: int
    lanes: int
    analysts: int
    places: int
    source: str


def staff_of(told: Any, where: str) -> tuple[Staff, ...]:
    """Return the staff of decoded tables; every hour is in exactly one of them. Raises ConfigError."""
    try:
        rows = msgspec.convert(told, tuple[Staff, ...])
    except msgspec.ValidationError as error:
        raise ConfigError([f"{where}: staff: {error}"]) from error
    hours = sorted(h for row in rows for h in range(row.from_hour, row.to_hour))
    if hours != list(range(24)):
        raise ConfigError([f"{where}: staff: each hour from 0 to 24 must be in exactly one row, found {hours}"])
    if any(min(row.lanes, row.analysts, row.places) < 0 or not row.source.strip() for row in rows):
        raise ConfigError([f"{where}: staff: numbers are not below zero, and every row names its source"])
    return rows


def windows_of(staff: Sequence[Staff], first_utc_ns: int, last_utc_ns: int) -> tuple[Window, ...]:
    """Return the time windows of all days from the first moment to the last, both included."""
    hour = 3600 * 10**9
    found = []
    for day in range(first_utc_ns // (24 * hour), last_utc_ns // (24 * hour) + 1):
        for row in sorted(staff, key=lambda r: r.from_hour):
            start, end = (24 * day + row.from_hour) * hour, (24 * day + row.to_hour) * hour
            if end > first_utc_ns and start <= last_utc_ns:
                found.append(
                    Window(
                        start_utc_ns=start, end_utc_ns=end, lanes=row.lanes, analysts=row.analysts, places=row.places
                    )
                )  # fmt: skip
    return tuple(found)


EXAMPLE = """authorised_weight = { value = 0.3, source = "assumption: as in `scanlane policy`" }
least_score = { value = 0.0, source = "assumption: any risk at all" }

[random_share]
image = { value = 0.01, source = "assumption: 0.5 to 1 % of all, drawn at random" }
look = { value = 0.02, source = "assumption: of pictures that the machine calls clear" }
open = { value = 0.0, source = "assumption: nobody is opened without a picture's reason" }

[pace]
image_s = { value = 240.0, source = "CBP: secondary truck systems image at most 15 an hour" }
look_s = { value = 44.0, source = "14 real analyses: mean 44 s" }
open_min = { value = 120.0, source = "CBP: 120 min for a physical examination" }
busy = { value = 0.85, source = "assumption: as in `scanlane policy`" }

[[staff]]
from_hour = 0
to_hour = 6
lanes = 1
analysts = 1
places = 1
source = "assumption: night shift"

[[staff]]
from_hour = 6
to_hour = 24
lanes = 2
analysts = 3
places = 4
source = "assumption: day shift"
"""


def plan_of(told: Mapping[str, Any], where: str) -> Plan:
    """Return a plan of decoded tables; every constant is `{ value = …, source = "…" }`. Raises ConfigError."""
    plain: dict[str, Any] = {}
    problems: list[str] = []
    for name, content in told.items():
        if name == "staff":
            continue
        if name in ("pace", "random_share") and isinstance(content, Mapping):
            plain[name] = {k: _value(v, f"{name}.{k}", problems) for k, v in content.items()}
        else:
            plain[name] = _value(content, name, problems)
    if problems:
        raise ConfigError([f"{where}: {p}" for p in problems])
    try:
        return msgspec.convert(plain, Plan)
    except msgspec.ValidationError as error:
        raise ConfigError([f"{where}: {str(error).replace('$.', '')}"]) from error


def _value(entry: Any, name: str, problems: list[str]) -> Any:
    if not isinstance(entry, Mapping) or set(entry) != {"value", "source"} or not str(entry["source"]).strip():
        problems.append(f'{name}: write {{ value = …, source = "…" }}; an assumption is a source, say so')
        return None
    return entry["value"]
