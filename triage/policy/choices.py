"""Policies: which vehicles are imaged, where, and which pictures a person looks at.

A  image all, a person on every picture.
B  image a share by risk on documents, some of it at random; a person on every picture.
C  image all in the drive-through; a person only where the machine flags the picture or the papers are odd.

An alarm of the portal sends a vehicle to a picture and a person under every policy: radiation is not selected away.
Source of C: Bakshi, Gans, Flynn, Management Science 57(1), 2011.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from .scenario import Scenario
from .traffic import Bools, Vehicles


class Choice(NamedTuple):
    """What a policy does with each vehicle.

    drive_through, pull_out : imaged there; looked : a person looks at its picture; referred : is opened
    found : carries contraband, and opening it brings that to light
    random : imaged by the random share alone
    """

    name: str
    drive_through: Bools
    pull_out: Bools
    looked: Bools
    referred: Bools
    found: Bools
    random: Bools


def names(scenario: Scenario) -> tuple[str, ...]:
    """Return the names of a scenario's policies, in the order of reports."""
    return ("A", *(f"B {100 * s:g}%" for s in scenario.policies.shares), "C")


def choose(name: str, scenario: Scenario, vehicles: Vehicles) -> Choice:
    """Return what the policy of this name does with each vehicle."""
    none = np.zeros(len(vehicles.arrival_s), bool)
    drive_through, pull_out, random = none.copy(), none.copy(), none.copy()
    if name == "A":
        drive_through[:] = True
        looked = drive_through.copy()
    elif name == "C":
        drive_through[:] = True
        flagged = vehicles.flag > norm.isf(scenario.detector.false_alarm_share)
        looked = flagged | (vehicles.papers > norm.isf(scenario.policies.papers_flag_share)) | vehicles.gamma
    else:
        share = scenario.policies.shares[names(scenario).index(name) - 1]
        at_random = min(scenario.policies.random_share, share)
        random = vehicles.drawn < at_random
        by_risk = _by_risk(scenario, vehicles, (share - at_random) / (1 - at_random))
        pull_out = random | by_risk | vehicles.gamma
        random &= ~(by_risk | vehicles.gamma)
        looked = pull_out.copy()
    people = scenario.people
    refers = np.where(vehicles.contraband, people.refers_contraband, people.refers_clean)
    referred = looked & (vehicles.refers < refers)
    found = referred & vehicles.contraband & (vehicles.finds < scenario.opening.finds)
    return Choice(name, drive_through, pull_out, looked, referred, found, random)


def _by_risk(scenario: Scenario, vehicles: Vehicles, share: float) -> Bools:
    """Return the vehicles whose papers are riskiest; authorised traders are chosen less often, never never."""
    if share <= 0:
        return np.zeros(len(vehicles.papers), bool)
    weight, authorised = scenario.policies.authorised_weight, scenario.traffic.authorised_share
    others = min(share / (authorised * weight + 1 - authorised), 1.0)
    rates = np.where(vehicles.authorised, weight * others, others)
    return np.asarray(vehicles.papers > norm.isf(rates))
