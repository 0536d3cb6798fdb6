"""A site as a file: every constant with its unit in its name, and with the source it was taken from.

    [lanes]
    count = { value = 2, source = "two drive-through lanes, as at Hong Kong 2005" }

A constant without a source is refused: a manager must be able to ask where a figure comes from, and an assumption says
that it is one.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from scanner_io.errors import ConfigError

SHIPPED = ("small_port", "large_hub", "land_border")


class Arrivals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Vehicles at the gate: mean per hour, and how it varies over hours and days (weights, any scale)."""

    per_hour: float
    hour_weights: tuple[float, ...]
    day_weights: tuple[float, ...]
    slack_median_h: float
    slack_sigma: float

    def __post_init__(self) -> None:
        """Check. Raises ValueError."""
        if len(self.hour_weights) != 24 or len(self.day_weights) != 7:
            raise ValueError(f"24 hours and 7 days have weights, not {len(self.hour_weights)}, {len(self.day_weights)}")
        if self.per_hour <= 0 or min(*self.hour_weights, *self.day_weights) < 0:
            raise ValueError("arrivals are above zero, and weights are not below it")
        if sum(self.hour_weights) <= 0 or sum(self.day_weights) <= 0:
            raise ValueError("some hour and some day must have a weight above zero")


class Traffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who comes: shares of 1, and how well papers tell contraband (distance of two unit normal distributions)."""

    authorised_share: float
    contraband_share: float
    authorised_contraband_ratio: float
    gamma_alarm_share: float
    papers_distance: float


class Lanes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Portals and imaging lanes."""

    portals: int
    portal_s: float
    drive_through: int
    drive_through_cycle_s: float
    pull_out: int
    pull_out_cycle_s: float
    imaging_median_s: float
    imaging_sigma: float
    transfer_min: float


class People(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Analysts, and what they find: shares of 1 of pictures with and without contraband that they refer."""

    analysts: int
    look_median_s: float
    look_sigma: float
    second_look_share: float
    second_look_s: float
    refers_contraband: float
    refers_clean: float


class Detector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine's flag: share of contraband flagged at a share of clean pictures flagged, as measured."""

    false_alarm_share: float
    found_at_that: float


class Opening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Physical examination: places, minutes, and how often contraband that is there is found."""

    places: int
    minutes: float
    sigma: float
    finds: float


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars of the sources' years, not adjusted to one year."""

    lane_hour: float
    analyst_hour: float
    opening: float
    truck_hour: float
    missed_cutoff: float
    storage_day: float


class Policies(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is compared: shares imaged by risk, the part of them drawn at random, and when C asks a person."""

    shares: tuple[float, ...]
    random_share: float
    authorised_weight: float
    papers_flag_share: float


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One site.

    name, title : of the file, and in words
    sources : of every constant, by `table.name`
    find_scores : a site's own machine scores of contraband, in standard deviations of clean ones; empty: two normal
        distributions through the detector's measured point
    """

    name: str
    title: str
    arrivals: Arrivals
    traffic: Traffic
    lanes: Lanes
    people: People
    detector: Detector
    opening: Opening
    costs: Costs
    policies: Policies
    sources: dict[str, str]
    find_scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check shares and counts. Raises ValueError."""
        shares = ("share", "shares", "refers_contraband", "refers_clean", "ratio", "that")
        for table in (self.traffic, self.people, self.detector, self.policies):
            for field in (f for f in table.__struct_fields__ if f.endswith(shares)):
                value = getattr(table, field)
                for share in value if isinstance(value, tuple) else (value,):
                    if not 0 <= share <= 1:
                        raise ValueError(f"{field} is {share}; a share lies between 0 and 1")
        for word, count in (
            ("portals", self.lanes.portals), ("drive_through", self.lanes.drive_through),
            ("pull_out", self.lanes.pull_out), ("analysts", self.people.analysts), ("places", self.opening.places),
        ):  # fmt: skip
            if count < 1:
                raise ValueError(f"{word} is {count}; every policy needs one at least")


def load(name_or_path: str, changes: tuple[str, ...] = ()) -> Scenario:
    """Return a shipped scenario by its name, or that of a TOML file.

    changes : constants to be otherwise, `table.name=value` with the value as TOML has it; their source is the change

    Raises ConfigError with every problem: no such file, no TOML, unknown or missing constants, one without a source.
    """
    path = Path(name_or_path)
    if name_or_path in SHIPPED:
        text = files("triage.policy").joinpath("scenarios", f"{name_or_path}.toml").read_text("utf-8")
    elif path.is_file():
        text = path.read_text("utf-8")
    else:
        raise ConfigError([f"no scenario {name_or_path}: neither a file nor one of {', '.join(SHIPPED)}"])
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{name_or_path}: no TOML: {error}"]) from error
    return from_tables(_changed(told, changes), name=path.stem)


def _changed(told: dict[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    """Return the tables with what was changed. Raises ConfigError for what is no constant or no value."""
    problems = []
    for change in changes:
        key, sign, text = change.partition("=")
        table, _, constant = key.strip().partition(".")
        content = told.get(table)
        if not sign or not isinstance(content, dict) or constant not in content:
            known = sorted(f"{t}.{c}" for t, cs in told.items() if isinstance(cs, dict) for c in cs)
            near = [k for k in known if k.startswith(f"{table}.")] or known
            problems.append(f"{change!r}: write table.name=value; there are {', '.join(near)}")
            continue
        try:
            value = tomllib.loads(f"value = {text.strip()}")["value"]
        except tomllib.TOMLDecodeError as error:
            problems.append(f"{change!r}: {text.strip()!r} is no value of TOML ({error})")
            continue
        told = {**told, table: {**content, constant: {"value": value, "source": f"set by {change.strip()!r}"}}}
    if problems:
        raise ConfigError(problems)
    return told


def from_tables(told: dict[str, Any], name: str) -> Scenario:
    """Return the scenario of decoded tables. Raises ConfigError."""
    plain: dict[str, Any] = {"name": name, "sources": {}}
    problems = []
    for table, content in told.items():
        if not isinstance(content, dict):
            plain[table] = content
            continue
        plain[table] = {}
        for constant, entry in content.items():
            where = f"{name}: {table}.{constant}"
            if not isinstance(entry, dict) or set(entry) != {"value", "source"} or not str(entry["source"]).strip():
                problems.append(f'{where}: write {{ value = …, source = "…" }}; an assumption is a source, say so')
                continue
            plain[table][constant] = entry["value"]
            plain["sources"][f"{table}.{constant}"] = str(entry["source"])
    if problems:
        raise ConfigError(problems)
    try:
        return msgspec.convert(plain, Scenario)
    except msgspec.ValidationError as error:
        raise ConfigError([f"{name}: {str(error).replace('$.', '')}"]) from error
