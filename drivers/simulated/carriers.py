"""What comes through the lane: semi-trailers with one container or two, a bare chassis, a van, a car; with or without
the tractor's cab in the beam, forwards or rear first, the container's doors towards either end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from . import metal, vehicle
from .scene import Solid, Strip, Tube
from .stow import solid
from .vehicle import LENGTHS_MM, Bay

Rng = np.random.Generator

CAB_MM = 4300.0
"""Length of the cab, which passes the portal; the beam is only on for it where a lane scans cabs."""
TARE_KG = {0: 0.0, 20: 2250.0, 40: 3800.0, 45: 4700.0}
"""Tare of containers by their length in feet; 0 is no container."""


class Carrier(msgspec.Struct, frozen=True, kw_only=True):
    """A vehicle without its load.

    solids : vehicle without containers
    boxes : solids of every container
    bays : room for cargo, one per container; or the hold of a van
    front_mm, rear_mm : ends of the whole vehicle
    cab_mm : range of the cab that passes the portal but is not in the scan, None without
    feet : length class of its containers, 0 without
    """

    solids: list[Solid]
    boxes: tuple[list[Solid], ...] = ()
    bays: tuple[Bay, ...] = ()
    front_mm: float
    rear_mm: float
    cab_mm: tuple[float, float] | None = None
    feet: int = 0

    @property
    def tare_kg(self) -> float:
        """Mass of the containers."""
        return TARE_KG[self.feet] * len(self.boxes)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Which containers are to be carried, and whether the cab is in the beam."""

    feet: int
    height_mm: float
    reefer: bool
    cab: bool = False


def semi_trailer(rng: Rng, order: Order) -> Carrier:
    """A skeletal semi-trailer with one container, with or without its tractor."""
    feet = order.feet
    x0 = rng.uniform(1500, 1900)
    deck = 13_000.0 if feet == 45 else LENGTHS_MM[40] + 60
    # A 20 ft box rides at the rear, at the front, or over the middle.
    place = float(rng.choice((1.0, 1.0, 0.5, 0.0))) if feet == 20 else 0.0
    at = x0 + place * (deck - 60 - LENGTHS_MM[20])
    return _on_trailer(rng, order, x0, deck, (at,))


def two_twenties(rng: Rng, order: Order) -> Carrier:
    """Two 20 ft containers on one 40 ft trailer, doors to the rear."""
    x0 = rng.uniform(1500, 1900)
    order = msgspec.structs.replace(order, feet=20)
    return _on_trailer(rng, order, x0, LENGTHS_MM[40] + 60, (x0, x0 + LENGTHS_MM[20] + 76))


def bare_chassis(rng: Rng, order: Order) -> Carrier:
    """A trailer that carries nothing."""
    x0 = rng.uniform(1500, 1900)
    return _on_trailer(rng, msgspec.structs.replace(order, feet=0), x0, LENGTHS_MM[40] + 60, ())


def _on_trailer(rng: Rng, order: Order, x0: float, deck: float, places: Sequence[float]) -> Carrier:
    towed = rng.random() < 0.8 or order.cab
    boxes = tuple(vehicle.container(at, order.feet, order.height_mm, order.reefer, rng) for at in places)
    solids = vehicle.trailer(x0, x0 + deck, landed=not towed)
    front, cab_mm = x0, None
    if towed:
        solids += vehicle.tractor(x0 + rng.uniform(900, 1200))
        front = -CAB_MM
        cab_mm = None if order.cab else (-CAB_MM, 0.0)
        if order.cab:
            solids += cab(rng)
    rear = max([x0 + deck, *(at + LENGTHS_MM[order.feet] for at in places)])
    bays = tuple(vehicle.bay_of(at, order.feet, order.height_mm, order.reefer) for at in places)
    return Carrier(solids=solids, boxes=boxes, bays=bays, front_mm=front, rear_mm=rear, cab_mm=cab_mm, feet=order.feet)


def cab(rng: Rng) -> list[Solid]:
    """Return a tractor's cab over its engine, from x = -2700 to -300: what scanners that stop before it do not see."""
    front, back, roof = -2700.0, -450.0, rng.uniform(3000, 3700)
    solids: list[Solid] = []
    for z in (-400.0, 400.0):
        solids.append(Strip(x0=front + 100, x1=-300, low=(700, 700), high=(960, 960), thick=9, z=z))
    for z in (-1000.0, 1000.0):
        solids += vehicle.wheel(-1350.0, 510, z, 330)
        solids.append(Strip(x0=front, x1=back, low=(950, 950), high=(2000, 2000), thick=2.0, z=z * 1.2))
        for a, b in ((front, front + 260), (-1500.0, -1380.0), (back - 120, back)):
            solids.append(Strip(x0=a, x1=b, low=(2000, 2000), high=(roof, roof), thick=4.0, z=z * 1.2))
        solids.append(Strip(x0=-1400, x1=back, low=(2000, 2000), high=(roof, roof), thick=1.6, z=z * 1.2))
        seat = (-1950.0, -1450.0)
        solids.append(solid((*seat, 1750, 1900, z * 0.55 - 230, z * 0.55 + 230), "polyethylene", 0.07))
        solids.append(solid((-1560, -1400, 1850, 2600, z * 0.55 - 230, z * 0.55 + 230), "polyethylene", 0.07))
        solids.append(solid((*seat, 1450, 1750, z * 0.55 - 60, z * 0.55 + 60), "iron", 0.9))
    solids += [
        solid((front, back, roof - 14, roof, -1180, 1180), "iron", 0.5),
        solid((front, back, 1380, 1410, -1180, 1180), "iron", 0.7),
        solid((front, front + 30, 950, 2000, -1180, 1180), "iron", 0.1),
        solid((back - 20, back, 1400, roof, -1180, 1180), "iron", 0.12),
        solid((-1300, back - 40, 1950, 2100, -950, 950), "polyethylene", 0.04),  # the bunk
        solid((front + 60, front + 150, 800, 1350, -500, 500), "aluminium", 0.3),  # radiator
        solid((front - 120, front + 30, 380, 700, -1150, 1150), "iron", 0.1),
        Tube(x0=front + 300, x1=front + 700, h=1650, z=-500, outer=40, g_cm3=2.0),
    ]
    return solids + metal.engine(rng, (-2350.0, -1150.0), (760.0, 1350.0), 0.0)


def van(rng: Rng, order: Order) -> Carrier:
    """A delivery van whose hold may be loaded."""
    x0 = rng.uniform(3500, 6500)
    solids = metal.car(rng, x0, 0.0, van=True)
    x1 = max(s.x1 for s in solids)
    roof = max(s.extent[3] for s in solids)
    hold = Bay(x0=x0 + 0.42 * (x1 - x0), x1=x1 - 120, h0=620.0, h1=roof - 60)
    return Carrier(solids=solids, bays=(hold,), front_mm=x0, rear_mm=x1)


def car(rng: Rng, order: Order) -> Carrier:
    """A passenger car."""
    x0 = rng.uniform(3500, 8000)
    solids = metal.car(rng, x0, 0.0)
    return Carrier(solids=solids, front_mm=x0, rear_mm=max(s.x1 for s in solids))


CARRIERS: dict[str, Callable[[Rng, Order], Carrier]] = {
    "semi_trailer": semi_trailer,
    "two_twenties": two_twenties,
    "bare_chassis": bare_chassis,
    "van": van,
    "car": car,
}
"""Kinds of vehicle."""

HOLD_KINDS = ("empty", "cartons", "sacks", "mixed", "car_parts", "furniture", "scrap")
"""What goes into a van."""
