"""Vehicles of a run: when they come, what they carry, and every draw that a policy may look at.

All draws are made beforehand, from one seed, so that every policy meets the same vehicles with the same luck, and a
difference between policies is no difference of chance.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from .scenario import Scenario

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

HOUR_S, DAY_S = 3600.0, 86400.0


class Vehicles(NamedTuple):
    """Arrays of equal length, one entry per vehicle, in the order of arrival.

    arrival_s : seconds from the start, which is midnight before a Monday
    papers, flag : scores of the risk profile and of the machine, unit normal for vehicles without contraband
    drawn : uniform, for the random share; refers, finds : uniform, for the analyst's and the opening's luck
    look_s, imaging_s, opening_s : how long this vehicle's picture is looked at, is taken, and its opening takes
    cutoff_s : when what it must catch leaves
    """

    arrival_s: Floats
    contraband: Bools
    authorised: Bools
    gamma: Bools
    papers: Floats
    flag: Floats
    drawn: Floats
    refers: Floats
    finds: Floats
    look_s: Floats
    imaging_s: Floats
    opening_s: Floats
    cutoff_s: Floats


def detector_distance(scenario: Scenario) -> float:
    """Return how far contraband's scores lie from clean ones, in standard deviations.

    Two normal distributions of one spread through the measured point: the plainest curve that one point allows.
    """
    found = norm.ppf(scenario.detector.found_at_that) + norm.isf(scenario.detector.false_alarm_share)
    return float(found)


def arrivals_s(scenario: Scenario, days: float, rng: np.random.Generator) -> Floats:
    """Return arrival times of a Poisson process whose rate follows hours and days, in seconds, sorted."""
    told = scenario.arrivals
    hours = np.asarray(told.hour_weights) / np.mean(told.hour_weights)
    of_days = np.asarray(told.day_weights) / np.mean(told.day_weights)
    starts = np.arange(0.0, days * DAY_S, HOUR_S)
    ends = np.minimum(starts + HOUR_S, days * DAY_S)
    hour = (starts // HOUR_S).astype(int)
    rates = told.per_hour * hours[hour % 24] * of_days[hour // 24 % 7]
    counts = rng.poisson(rates * (ends - starts) / HOUR_S)
    return np.sort(np.repeat(starts, counts) + rng.random(int(counts.sum())) * np.repeat(ends - starts, counts))


def draw(scenario: Scenario, arrival_s: Floats, rng: np.random.Generator, contraband: bool | None = None) -> Vehicles:
    """Return vehicles for arrival times.

    contraband : all of them with it or without, for shares that are looked at apart; None: as the scenario says
    """
    n = len(arrival_s)
    traffic, people, lanes = scenario.traffic, scenario.people, scenario.lanes
    share, ratio, prior = traffic.authorised_share, traffic.authorised_contraband_ratio, traffic.contraband_share
    others = prior / (share * ratio + (1 - share)) if prior else 0.0
    if contraband is None:
        authorised = rng.random(n) < share
        carries = rng.random(n) < np.where(authorised, ratio * others, others)
    else:
        among = share * ratio / (share * ratio + 1 - share) if contraband else share
        authorised = rng.random(n) < among
        carries = np.full(n, contraband)
    second = rng.random(n) < people.second_look_share
    look = people.look_median_s * np.exp(people.look_sigma * rng.standard_normal(n))
    arrivals = scenario.arrivals
    gamma = rng.random(n) < traffic.gamma_alarm_share
    papers, flag = rng.standard_normal(n), rng.standard_normal(n)
    if scenario.find_scores:
        own = np.asarray(scenario.find_scores)[rng.integers(0, len(scenario.find_scores), n)]
        flag = np.where(carries, own, flag)
    else:
        flag = flag + detector_distance(scenario) * carries
    return Vehicles(
        arrival_s=arrival_s,
        contraband=carries,
        authorised=authorised,
        gamma=gamma,
        papers=papers + traffic.papers_distance * carries,
        flag=flag,
        drawn=rng.random(n),
        refers=rng.random(n),
        finds=rng.random(n),
        look_s=look + people.second_look_s * second,
        imaging_s=lanes.imaging_median_s * np.exp(lanes.imaging_sigma * rng.standard_normal(n)),
        opening_s=60 * scenario.opening.minutes
        * np.exp(scenario.opening.sigma * rng.standard_normal(n) - scenario.opening.sigma**2 / 2),
        cutoff_s=arrival_s
        + HOUR_S * arrivals.slack_median_h * np.exp(arrivals.slack_sigma * rng.standard_normal(n)),
    )  # fmt: skip
