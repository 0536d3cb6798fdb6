"""The gate as queues in time: portal, imaging, analysts, opening places, each first come, first served.

Source of the method: discrete-event simulation as in Law, Simulation Modeling and Analysis; the engine is simpy.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import simpy

from .choices import Choice
from .scenario import Scenario
from .traffic import DAY_S, Floats, Vehicles


class Flow(NamedTuple):
    """What became of each vehicle, in seconds.

    delay_s : from arrival to release, less what a vehicle needs that meets nobody and is not chosen
    held_s : of it, time spent waiting for a person, for a place and being opened
    image_wait_s : wait for an imaging lane, NaN where it was not imaged
    late : what it must catch had left
    queue : vehicles waiting for an imaging lane, sampled each minute while vehicles came
    """

    delay_s: Floats
    held_s: Floats
    image_wait_s: Floats
    late: np.ndarray[Any, np.dtype[np.bool_]]
    queue: Floats


class _Gate:
    """The simulated places and what vehicles write down in passing."""

    def __init__(self, scenario: Scenario, vehicles: Vehicles, choice: Choice) -> None:
        lanes = scenario.lanes
        self.env = simpy.Environment()
        self.portals = simpy.Resource(self.env, lanes.portals)
        self.drive_through = simpy.Resource(self.env, lanes.drive_through)
        self.pull_out = simpy.Resource(self.env, lanes.pull_out)
        self.analysts = simpy.Resource(self.env, scenario.people.analysts)
        self.places = simpy.Resource(self.env, scenario.opening.places)
        self.scenario = scenario
        # Plain lists: reading one number from an array costs more than the event it belongs to.
        self.arrival = vehicles.arrival_s.tolist()
        self.imaging = vehicles.imaging_s.tolist()
        self.look = vehicles.look_s.tolist()
        self.opening = vehicles.opening_s.tolist()
        self.through = choice.drive_through.tolist()
        self.pulled = choice.pull_out.tolist()
        self.looked = choice.looked.tolist()
        self.referred = choice.referred.tolist()
        n = len(self.arrival)
        self.left = [0.0] * n
        self.held = [0.0] * n
        self.image_wait = [np.nan] * n
        self.queue: list[int] = []

    def come(self) -> Generator[Any, Any, None]:
        """Send each vehicle in at its time."""
        for i, when in enumerate(self.arrival):
            if when > self.env.now:
                yield self.env.timeout(when - self.env.now)
            self.env.process(self.pass_through(i))

    def pass_through(self, i: int) -> Generator[Any, Any, None]:
        """Take one vehicle from arrival to release."""
        env, lanes = self.env, self.scenario.lanes
        if lanes.portal_s:
            with self.portals.request() as turn:
                yield turn
                yield env.timeout(lanes.portal_s)
        if self.pulled[i]:
            yield env.timeout(60 * lanes.transfer_min)
            yield from self._image(i, self.pull_out, lanes.pull_out_cycle_s)
            yield env.timeout(60 * lanes.transfer_min)
        elif self.through[i]:
            yield from self._image(i, self.drive_through, lanes.drive_through_cycle_s)
        since = env.now
        if self.looked[i]:
            with self.analysts.request() as turn:
                yield turn
                yield env.timeout(self.look[i])
        if self.referred[i]:
            with self.places.request() as turn:
                yield turn
                yield env.timeout(self.opening[i])
        self.held[i] = env.now - since
        self.left[i] = env.now

    def _image(self, i: int, lane: simpy.Resource, cycle_s: float) -> Generator[Any, Any, None]:
        asked = self.env.now
        with lane.request() as turn:
            yield turn
            self.image_wait[i] = self.env.now - asked
            # The lane is taken until the next vehicle may enter, which is never before the picture is done.
            yield self.env.timeout(max(self.imaging[i], cycle_s))

    def watch(self, until_s: float) -> Generator[Any, Any, None]:
        """Write down each minute how many wait for an imaging lane."""
        while self.env.now < until_s:
            self.queue.append(len(self.drive_through.queue) + len(self.pull_out.queue))
            yield self.env.timeout(60)


def simulate(scenario: Scenario, vehicles: Vehicles, choice: Choice) -> Flow:
    """Return what becomes of the vehicles under a policy; all are seen through to their release."""
    gate = _Gate(scenario, vehicles, choice)
    gate.env.process(gate.come())
    last = float(vehicles.arrival_s[-1]) if len(vehicles.arrival_s) else 0.0
    gate.env.process(gate.watch(last))
    gate.env.run()
    left = np.asarray(gate.left)
    return Flow(
        delay_s=np.maximum(left - vehicles.arrival_s - scenario.lanes.portal_s, 0.0),
        held_s=np.asarray(gate.held),
        image_wait_s=np.asarray(gate.image_wait),
        late=left > vehicles.cutoff_s,
        queue=np.asarray(gate.queue, float),
    )


def storage_days(flow: Flow) -> float:
    """Return box-days spent held."""
    return float(flow.held_s.sum() / DAY_S)
