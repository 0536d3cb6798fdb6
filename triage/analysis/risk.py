"""Risk on documents and on what was seen: a profile of rules, and the score of a passage with every reason in words.

A profile is a TOML file. Each rule says who answers for it, why it is there and until when; nothing of it is edited in
place, for a profile is known by the hash of its bytes. `EXAMPLE` shows one.

What is not known raises nothing and lowers nothing, with one exception: a declaration that is missing or doubtful. It
never lowers the risk. So without one

    no rule with points below zero counts, whatever it asks (nor where the declaration is doubtful),
    every rule with points above zero that some declaration could fulfil counts as if it were fulfilled,
    `missing_points` are added, which are no fewer than `doubtful_points`.

A passage with a missing declaration therefore scores at least what the same passage scores with any declaration
whatever, and one with a doubtful declaration at least what it scores without the doubt.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import tomllib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from scanner_io.errors import ConfigError

from .joint import Method, combine, harmonic_factor
from .risk_facts import FACTS, Value

FORMAT = "scanlane risk profile 1"
P_FACTS = {"image": "image.p_value", "portal": "portal.p_value", "declared against seen": "declared_seen.p_value"}

EXAMPLE = """format = "scanlane risk profile 1"
name = "north gate"
review_from = 40.0

[declaration]
missing_points = 30.0
doubtful_points = 15.0

[joint]
method = "cauchy"
why = "papers are held against the same picture that is judged, so the p-values depend on each other"

[[rules]]
id = "authorised"
version = 1
owner = "risk desk"
reason = "authorised traders are checked at home"
valid_from = 2025-01-01
valid_to = 2027-12-31
points = -10.0
when = [{ fact = "party.authorised", is = true }]

[[rules]]
id = "empty-that-is-not"
version = 2
owner = "image desk"
reason = "a container declared empty and seen loaded"
valid_from = 2025-01-01
valid_to = 2027-12-31
points = 40.0
when = [{ fact = "declared_seen.findings", is = ["declared_empty_but_loaded", "declared_empty_holds_something"] }]

[[rules]]
id = "strange-together"
version = 1
owner = "image desk"
reason = "image, portal and papers together are rare among innocent passages"
valid_from = 2025-01-01
valid_to = 2027-12-31
points = 25.0
when = [{ fact = "joint.p_value", below = 0.01 }]
"""


class Test(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"equals": "is"}):
    """One condition: a fact and exactly one thing that must hold of it.

    equals (`is`) : the value, or a list of which one must be it; of a fact with several texts one must be among them
    is_not : no text is among these
    starts_with : a text begins with one of these
    at_least, below : of a number
    """

    __test__ = False

    fact: str
    equals: bool | str | tuple[str, ...] | None = None
    is_not: str | tuple[str, ...] | None = None
    starts_with: str | tuple[str, ...] | None = None
    at_least: float | None = None
    below: float | None = None

    @property
    def words(self) -> str:
        """The condition in words."""
        said = []
        for name, word in (("equals", "is"), ("is_not", "is not"), ("starts_with", "begins with"),
                           ("at_least", "is at least"), ("below", "is below")):  # fmt: skip
            value = getattr(self, name)
            if value is not None:
                shown = " or ".join(value) if isinstance(value, tuple) else _shown(value)
                said.append(f"{word} {shown}")
        return f"{self.fact} {' and '.join(said)}"


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule. points : added where all of `when` holds; below zero it lowers the risk

    group : of the rules of one group only the one with most points counts
    valid_from, valid_to : days, UTC, both included
    """

    id: str
    version: int
    owner: str
    reason: str
    valid_from: datetime.date
    valid_to: datetime.date
    points: float
    when: tuple[Test, ...]
    group: str = ""

    @property
    def name(self) -> str:
        """What it is called in words."""
        return f"{self.id} v{self.version} ({self.owner})"


class Papers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a missing and a doubtful declaration add."""

    missing_points: float
    doubtful_points: float


class JointMethod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How p-values are combined, and why so."""

    method: Method
    why: str


class RiskProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile. sha256 : of the bytes of its file, by which it is known

    review_from : score from which on a lane asks for a review; none: the score is told, and asks for nothing
    """

    format: Literal["scanlane risk profile 1"]
    name: str
    declaration: Papers
    joint: JointMethod
    rules: tuple[Rule, ...]
    review_from: float | None = None
    sha256: str = ""

    @property
    def identity(self) -> str:
        """Name and hash, as they stand beside a selection."""
        return f"{self.name}@{self.sha256[:12]}"


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule, or the state of the declaration, did to a score.

    assumed : not seen to hold; counted because no declaration says otherwise
    """

    rule: str
    points: float
    words: str
    assumed: bool = False


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """The score of one passage with all that made it, and what was left out and why."""

    score: float
    contributions: tuple[Contribution, ...]
    left_out: tuple[str, ...]
    joint: str
    joint_p: float | None
    profile: str
    profile_sha256: str


# --------------------------------------------------------------------------------------------------------------
# The file


def parse(content: bytes, where: str) -> RiskProfile:
    """Return the profile of a file's bytes. Raises ConfigError with every problem, contradictions named."""
    try:
        told: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{where}: no TOML: {error}"]) from error
    told.pop("sha256", None)
    try:
        read = msgspec.convert({**told, "sha256": hashlib.sha256(content).hexdigest()}, RiskProfile)
    except msgspec.ValidationError as error:
        raise ConfigError([f"{where}: {str(error).replace('$.', '')}"]) from error
    if problems := check(read):
        raise ConfigError([f"{where}: {p}" for p in problems])
    if read.joint.method == "harmonic":  # what it needs is loaded now, not while the first passage waits
        harmonic_factor(len(P_FACTS))
    return read


def check(profile: RiskProfile) -> list[str]:
    """Return everything that is wrong with a profile: rules that cannot stand, and rules that contradict each other."""
    found = []
    papers = profile.declaration
    if not papers.missing_points >= papers.doubtful_points >= 0:
        found.append(
            f"declaration: missing_points {papers.missing_points:g} and doubtful_points {papers.doubtful_points:g}: "
            "expected missing_points >= doubtful_points >= 0, for papers that are missing or doubtful lower no risk"
        )
    if not profile.joint.why.strip():
        found.append(f"joint: say why the p-values may be combined by {profile.joint.method}")
    if profile.review_from is not None and not profile.review_from > 0:
        found.append(f"review_from {profile.review_from:g}: expected above 0; every passage would be reviewed")
    for rule in profile.rules:
        found += [f"rule {rule.id}: {odd}" for odd in _odd_rule(rule)]
    for one, other in itertools.combinations(profile.rules, 2):
        found += _contradiction(one, other)
    return found


def _odd_rule(rule: Rule) -> list[str]:
    found = [f"{field} is empty" for field in ("id", "owner", "reason") if not getattr(rule, field).strip()]
    if rule.version < 1:
        found.append(f"version {rule.version}, expected 1 or more")
    if rule.valid_to < rule.valid_from:
        found.append(f"valid to {rule.valid_to}, before it is valid from {rule.valid_from}")
    if rule.points == 0 or abs(rule.points) > 1e6 or rule.points != rule.points:
        found.append(f"points {rule.points:g}: expected a number other than 0 and within a million")
    if not rule.when:
        found.append("no condition: it would count for everybody")
    for test in rule.when:
        found += _odd_test(test, rule.points)
    if not found:
        for one, other in itertools.combinations(rule.when, 2):
            if one.fact == other.fact and not _together(one, other):
                found.append(f"contradicts itself: {one.words} and {other.words} never hold together")
    return found


def _odd_test(test: Test, points: float) -> list[str]:
    fact = FACTS.get(test.fact)
    if fact is None:
        near = [name for name in FACTS if name.split(".")[0] == test.fact.split(".")[0]] or list(FACTS)
        return [f"no fact {test.fact!r}; there are {', '.join(near)}"]
    asked = [n for n in ("equals", "is_not", "starts_with", "at_least", "below") if getattr(test, n) is not None]
    allowed = {"yes or no": {"equals"}, "number": {"at_least", "below"}}.get(
        fact.kind, {"equals", "is_not", "starts_with"}
    )
    wrong = [n for n in asked if n not in allowed]
    if wrong or not asked or (len(asked) > 1 and fact.kind != "number"):
        words = ", ".join(sorted(allowed)).replace("equals", "is")
        return [f"{test.fact} is a fact of {fact.kind}: ask it by one of {words}"]
    if asked == ["equals"] and isinstance(test.equals, bool) != (fact.kind == "yes or no"):
        return [f"{test.fact} is a fact of {fact.kind}, and is asked whether it is {test.equals!r}"]
    if len(asked) == 2 and test.at_least is not None and test.below is not None and test.at_least >= test.below:
        return [f"contradicts itself: {test.words} never holds"]
    if test.fact in ("declaration.missing", "declaration.doubtful") and (test.equals is False) == (points > 0):
        return [
            f"{test.fact} is {_shown(test.equals)} for {points:+g} points: a missing or doubtful declaration would "
            "lower the risk"
        ]
    return []


def _contradiction(one: Rule, other: Rule) -> list[str]:
    """Return what two rules contradict each other in, or count twice; validities that do not overlap never do."""
    if one.valid_from > other.valid_to or other.valid_from > one.valid_to:
        return []
    if one.id == other.id:
        return [f"rules {one.name} and {other.name} have one id and are valid at the same time; end one of them"]
    if sorted(t.fact for t in one.when) != sorted(t.fact for t in other.when):
        return []
    if not all(_together(a, b) for a in one.when for b in other.when if a.fact == b.fact):
        return []
    between = f"rules {one.name} and {other.name}"
    if (one.points > 0) != (other.points > 0):
        return [
            f"{between} contradict each other: {one.points:+g} and {other.points:+g} points, and both hold where "
            f"{'; '.join(t.words for t in one.when)} and {'; '.join(t.words for t in other.when)}"
        ]
    if one.when == other.when and not (one.group and one.group == other.group):
        return [f"{between} ask the same and both count; leave one out, or give them one group"]
    return []


def _together(one: Test, other: Test) -> bool:
    """Tell whether some value of their fact fulfils both."""
    kind = FACTS[one.fact].kind if one.fact in FACTS else "text"
    if kind == "number":
        least = max((t.at_least for t in (one, other) if t.at_least is not None), default=float("-inf"))
        below = min((t.below for t in (one, other) if t.below is not None), default=float("inf"))
        return least < below
    if kind == "yes or no":
        return one.equals == other.equals
    if kind == "texts" and one.is_not is None and other.is_not is None:
        return True  # two of several texts
    candidates = {*_texts(one.equals), *_texts(other.equals), *_texts(one.starts_with), *_texts(other.starts_with)}
    if not candidates:
        return True  # two exclusions leave room
    return any(holds(one, c) and holds(other, c) for c in candidates)


# --------------------------------------------------------------------------------------------------------------
# The score


def holds(test: Test, value: Value) -> bool | None:
    """Tell whether a condition holds of a value; None where the value is not known."""
    if value is None:
        return None
    if isinstance(value, bool):
        return value == test.equals
    if isinstance(value, int | float):
        return (test.at_least is None or value >= test.at_least) and (test.below is None or value < test.below)
    texts = value if isinstance(value, tuple) else (value,)
    if test.is_not is not None:
        return not any(t in _texts(test.is_not) for t in texts)
    if test.starts_with is not None:
        return any(t.startswith(_texts(test.starts_with)) for t in texts)
    return any(t in _texts(test.equals) for t in texts)


def assess(profile: RiskProfile, facts: Mapping[str, Value], utc_ns: int) -> Assessment:
    """Return the score of a passage with these facts at this moment. Pure: the same facts, the same score."""
    known = dict(facts)
    joint = combine({n: _number(known.get(f)) for n, f in P_FACTS.items()}, profile.joint.method)
    known["joint.p_value"] = joint.p_value
    missing, doubtful = known.get("declaration.missing") is not False, known.get("declaration.doubtful") is True
    day = (datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=utc_ns // 1000)).date()
    counted: list[tuple[Rule | None, Contribution]] = []
    left_out = []
    if missing:
        told = "the declaration is missing"
        counted.append((None, _state("declaration-missing", profile.declaration.missing_points, told)))
    elif doubtful:
        told = "the declaration is doubtful"
        counted.append((None, _state("declaration-doubtful", profile.declaration.doubtful_points, told)))
    for rule in profile.rules:
        if not rule.valid_from <= day <= rule.valid_to:
            word = f"expired on {rule.valid_to}" if day > rule.valid_to else f"is valid from {rule.valid_from} on"
            left_out.append(f"{rule.name} {word} and does not count")
            continue
        held = [_held(t, known, missing) for t in rule.when]
        if False in held or (None in held) or ("open" in held and not (missing and rule.points > 0)):
            continue
        if rule.points < 0 and (missing or doubtful):
            left_out.append(f"{rule.name}: no relief while the declaration is {'missing' if missing else 'doubtful'}")
            continue
        counted.append((rule, _counted(rule, known, "open" in held)))
    kept = _strongest(counted, left_out)
    score = max(round(float(sum(c.points for c in kept)), 6), 0.0)
    return Assessment(
        score=score, contributions=tuple(kept), left_out=tuple(left_out), joint=joint.words, joint_p=joint.p_value,
        profile=profile.identity, profile_sha256=profile.sha256,
    )  # fmt: skip


def _held(test: Test, known: Mapping[str, Value], missing: bool) -> bool | str | None:
    """Return whether a condition holds; "open": some declaration could make it hold, and there is none."""
    found = holds(test, known.get(test.fact))
    # what the joint p-value is without papers may hold already; papers may only make it smaller where they speak up
    if missing and (FACTS[test.fact].papers or test.fact == "declaration.doubtful") and found is not True:
        return "open"
    return found


def _counted(rule: Rule, known: Mapping[str, Value], assumed: bool) -> Contribution:
    seen = []
    for test in rule.when:
        value = known.get(test.fact)
        shown = "not known" if value is None else _shown(value)
        seen.append(f"{test.words} (here {shown})")
    why = "no declaration says otherwise: " if assumed else ""
    words = f"{rule.points:+g} {rule.name}: {rule.reason}; {why}{', '.join(seen)}"
    return Contribution(rule=rule.id, points=rule.points, words=words, assumed=assumed)


def _state(name: str, points: float, why: str) -> Contribution:
    return Contribution(rule=name, points=points, words=f"{points:+g} {why}")


def _strongest(counted: list[tuple[Rule | None, Contribution]], left_out: list[str]) -> list[Contribution]:
    """Return what counts: of each group the contribution with most points."""
    best: dict[str, float] = {}
    for rule, one in counted:
        if rule is not None and rule.group:
            best[rule.group] = max(one.points, best.get(rule.group, float("-inf")))
    kept: list[Contribution] = []
    taken: set[str] = set()
    for rule, one in counted:
        if rule is not None and rule.group:
            if rule.group in taken or one.points < best[rule.group]:
                left_out.append(f"{rule.name}: another of its group {rule.group} counts")
                continue
            taken.add(rule.group)
        kept.append(one)
    return kept


def expired(profile: RiskProfile, day: datetime.date) -> list[Rule]:
    """Return the rules that do not count any more."""
    return [rule for rule in profile.rules if rule.valid_to < day]


# --------------------------------------------------------------------------------------------------------------
# Two versions


def differences(before: RiskProfile, after: RiskProfile) -> list[str]:
    """Return in words what changed from one profile to another."""
    found = []
    for part in ("name", "review_from", "declaration", "joint"):
        old, new = getattr(before, part), getattr(after, part)
        if old != new:
            found.append(f"{part}: {_plain(old)} -> {_plain(new)}")
    # one id may come again with another validity, so the last of an id stands for it
    olds, news = ({r.id: r for r in p.rules} for p in (before, after))
    for key in [k for k in olds if k not in news]:
        found.append(f"rule {key}: taken out ({olds[key].points:+g}, {olds[key].reason})")
    for key, rule in news.items():
        if key not in olds:
            found.append(f"rule {key}: new in v{rule.version} ({rule.points:+g}, {rule.owner}: {rule.reason})")
            continue
        old_rule = olds[key]
        for field in rule.__struct_fields__:
            old, new = getattr(old_rule, field), getattr(rule, field)
            if old != new:
                found.append(f"rule {key}: {field} {_plain(old)} -> {_plain(new)}")
        if rule != old_rule and rule.version <= old_rule.version:
            found.append(f"rule {key}: changed, and its version is still {rule.version}")
    return found


def _plain(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], Test):
        return "; ".join(t.words for t in value)
    return str(msgspec.to_builtins(value))


def _texts(value: Any) -> tuple[str, ...]:
    if value is None or isinstance(value, bool):
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}"
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
