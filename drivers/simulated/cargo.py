"""What is inside: kinds of cargo and kinds of threat, as solids. All goods, names and weights are invented.

A kind is a function `(rng, bay) -> list of solids`; GOODS says what such a cargo may be declared as.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from .scene import Disc, Heap, Pillow, Prism, Solid, Strip, Tube
from .vehicle import Bay

Rng = np.random.Generator

PALLET_MM = 144.0


class Goods(NamedTuple):
    """One declaration that fits a kind of cargo. norm : it may be naturally radioactive."""

    hs: str
    text: str
    norm: bool = False


GOODS: dict[str, tuple[Goods, ...]] = {
    "empty": (),
    "cartons": (
        Goods("851660", "electric ovens and cookers"),
        Goods("640399", "footwear"),
        Goods("611020", "knitted garments"),
        Goods("190531", "biscuits"),
    ),
    "sacks": (
        Goods("090111", "coffee, not roasted"),
        Goods("170199", "sugar"),
        Goods("310420", "potassium chloride fertiliser", True),
    ),
    "bulk": (
        Goods("120190", "soya beans"),
        Goods("100590", "maize"),
        Goods("250810", "bentonite", True),
    ),
    "drums": (Goods("151190", "palm oil in drums"), Goods("200912", "orange juice in drums")),
    "machinery": (Goods("847989", "machines, not specified elsewhere"), Goods("841350", "pumps")),
    "paper": (Goods("480100", "newsprint in rolls"), Goods("480525", "testliner in rolls")),
    "frozen": (Goods("020230", "frozen beef, boneless"), Goods("020714", "frozen chicken cuts")),
    "mixed": (Goods("940360", "furniture and household goods"), Goods("950300", "toys, mixed")),
    "timber": (Goods("440710", "sawn pine"), Goods("440799", "sawn hardwood")),
    "tiles": (Goods("690721", "ceramic tiles", True), Goods("680223", "granite slabs", True)),
    "coils": (Goods("720839", "hot-rolled steel in coils"), Goods("760711", "aluminium strip in coils")),
}
"""Kinds of cargo, each with what it is declared as."""


def pallets(rng: Rng, bay: Bay, length: float = 1200.0, gap: float = 40.0) -> list[tuple[float, float]]:
    """Return the x ranges of pallets along the bay, with uneven gaps."""
    spans, x = [], bay.x0 + rng.uniform(20, 90)
    while x + length < bay.x1:
        spans.append((x, x + length))
        x += length + rng.uniform(0.3, 1.7) * gap
    return spans


def _pallet(x0: float, x1: float, h0: float) -> list[Solid]:
    parts = [(x0, x1, 0.0, 22.0, 0.42), (x0, x1, 115.0, PALLET_MM, 0.42)]
    parts += [(x, x + 100, 22.0, 115.0, 0.25) for x in (x0, (x0 + x1) / 2 - 50, x1 - 100)]
    return [
        Prism(x0=a, x1=b, h0=h0 + low, h1=h0 + high, z0=-1150, z1=1150, material="cellulose", g_cm3=density)
        for a, b, low, high, density in parts
    ]


def cartons(rng: Rng, bay: Bay) -> list[Solid]:
    """Cartons of one product on pallets; two rows across, seen one behind the other."""
    solids: list[Solid] = []
    density = rng.uniform(0.10, 0.34)
    across, high = int(rng.integers(2, 5)), rng.uniform(230, 480)
    tall = rng.uniform(0.6, 0.97) * bay.height
    metal = rng.random() < 0.35
    for x0, x1 in pallets(rng, bay):
        solids += _pallet(x0, x1, bay.h0)
        lot = density * (rng.uniform(0.55, 1.5) if rng.random() < 0.2 else rng.uniform(0.94, 1.06))
        for z0, z1 in ((-1130.0, -20.0), (20.0, 1130.0)):
            layers = max(1, int((tall - PALLET_MM) / high) - int(rng.random() < 0.15))
            width = (x1 - x0) / across
            for column in range(across):
                shift = rng.normal(0, 5)
                for layer in range(layers):
                    a = x0 + column * width + shift
                    low = bay.h0 + PALLET_MM + layer * high
                    solids += _carton(rng, (a + 6, a + width - 6), (low + 5, low + high - 4), (z0, z1), lot, metal)
    return solids


def _carton(
    rng: Rng, x: tuple[float, float], h: tuple[float, float], z: tuple[float, float], density: float, metal: bool
) -> list[Solid]:
    """A carton: board around a product that does not quite fill it, sometimes with a metal core."""
    product = msgspec.structs.replace(
        _solid((*x, *h, *z), "cellulose", density * rng.normal(1, 0.05)), texture=(2, 0.06)
    )
    solids: list[Solid] = [
        product,
        _solid((x[0], x[0] + 5, *h, *z), "cellulose", 0.12),
        _solid((x[1] - 5, x[1], *h, *z), "cellulose", 0.12),
    ]
    if metal:
        w, d = (x[1] - x[0]) * 0.3, (h[1] - h[0]) * 0.28
        solids.append(Prism(x0=x[0] + w, x1=x[1] - w, h0=h[0] + d, h1=h[1] - d, z0=z[0] + 60, z1=z[1] - 60,
                            g_cm3=density * 0.5))  # fmt: skip
    return solids


def sacks(rng: Rng, bay: Bay) -> list[Solid]:
    """Sacks piled crosswise from the floor, the piles leaning on each other."""
    solids: list[Solid] = []
    length, high = rng.uniform(560, 780), rng.uniform(130, 170)
    density = rng.uniform(0.55, 0.78)
    x = bay.x0 + 30
    full = rng.uniform(0.5, 0.66)
    while x + length < bay.x1:
        full = float(np.clip(full + rng.normal(0, 0.035), 0.42, 0.74))
        layers = int(full * bay.height / (high * 0.86))
        lean = rng.normal(0, 25)
        for layer in range(layers):
            for z in (-580.0, 580.0):
                a = x + lean * layer / layers + rng.normal(0, 22)
                h = bay.h0 + high * (0.5 + 0.86 * layer) + rng.normal(0, 6)
                solids.append(Pillow(x0=a - 40, x1=a + length + 40, h=h, z=z, rh=high * 0.56, rz=560, power=4,
                                     material="cellulose", g_cm3=density * rng.normal(0.86, 0.03),
                                     texture=(2, 0.05)))  # fmt: skip
        x += length * rng.uniform(1.0, 1.05)
    return solids


def bulk(rng: Rng, bay: Bay) -> list[Solid]:
    """Loose grain or powder in a liner: a heap that slopes to the doors, behind a bulkhead."""
    knots = 28
    full = rng.uniform(0.45, 0.62) * bay.height
    slope = np.linspace(1.0, rng.uniform(0.75, 0.95), knots)
    waves = np.cumsum(rng.normal(0, 1, knots))
    waves = (waves - np.linspace(waves[0], waves[-1], knots)) * 22
    heights = tuple(float(h) for h in bay.h0 + full * slope + waves)
    end = bay.x1 - rng.uniform(120, 400)
    heap = Heap(x0=bay.x0 + 20, x1=end, h0=bay.h0, heights=heights, material="cellulose", g_cm3=rng.uniform(0.6, 0.8),
                texture=(1, 0.02))  # fmt: skip
    bars = [Tube(x0=end, x1=end + 60, h=bay.h0 + h, z=0, outer=30, g_cm3=4.0) for h in (300, 800, 1300)]
    liner = Prism(x0=end, x1=end + 12, h0=bay.h0, h1=bay.h1 - 150, material="polyethylene", g_cm3=0.3)
    return [heap, liner, *bars]


def drums(rng: Rng, bay: Bay) -> list[Solid]:
    """Steel drums, two tiers, four abreast in a staggered pattern, with ullage under the lid."""
    solids: list[Solid] = []
    density, tiers = rng.uniform(0.85, 1.1), int(rng.integers(1, 3))
    for tier in range(tiers):
        for row, z in enumerate((-870.0, -290.0, 290.0, 870.0)):
            x = bay.x0 + 25 + 295 * (row % 2)
            while x + 585 < bay.x1:
                h = bay.h0 + tier * 900
                fill = rng.normal(790, 8)
                z0, z1 = z - 285, z + 285
                solids.append(Prism(x0=x + 3, x1=x + 582, h0=h + 15, h1=h + fill, z0=z0, z1=z1, shape="round",
                                    material="water", g_cm3=density * 0.8))  # fmt: skip
                solids.append(Prism(x0=x, x1=x + 585, h0=h + 10, h1=h + 880, z0=z - 1, z1=z + 1))
                for rib in (20, 300, 590, 876):
                    solids.append(Prism(x0=x - 3, x1=x + 588, h0=h + rib - 5, h1=h + rib + 5, z0=z0, z1=z1,
                                        g_cm3=STEEL_RIB))  # fmt: skip
                x += 590
        solids.append(Prism(x0=bay.x0, x1=bay.x1, h0=bay.h0 + tier * 900, h1=bay.h0 + tier * 900 + 10,
                            material="cellulose", g_cm3=0.6))  # fmt: skip
    return solids


STEEL_RIB = 0.12


def machinery(rng: Rng, bay: Bay) -> list[Solid]:
    """A few big machines on skids: frames, housings, shafts, motors."""
    solids: list[Solid] = []
    x = bay.x0 + rng.uniform(100, 500)
    while x + 1500 < bay.x1:
        length = min(rng.uniform(1500, 3200), bay.x1 - x - 50)
        solids += _machine(rng, x, x + length, bay)
        x += length + rng.uniform(150, 900)
    return solids


def _machine(rng: Rng, x0: float, x1: float, bay: Bay) -> list[Solid]:
    tall = rng.uniform(0.5, 0.85) * bay.height
    h0 = bay.h0 + 120
    depth = rng.uniform(500, 950)
    solids: list[Solid] = []
    for x in np.arange(x0 + 80, x1 - 100, rng.uniform(450, 700)):
        solids.append(Prism(x0=x, x1=x + 100, h0=bay.h0, h1=h0, material="cellulose", g_cm3=0.55, z0=-900, z1=900))
    bed = h0 + rng.uniform(0.15, 0.4) * tall
    solids.append(Prism(x0=x0 + 60, x1=x1 - 60, h0=h0 + 140, h1=bed, z0=-depth, z1=depth,
                        g_cm3=rng.uniform(0.3, 0.9)))  # fmt: skip
    for z in (-depth, depth):
        solids.append(Prism(x0=x0, x1=x1, h0=h0, h1=h0 + 140, z0=z - 60, z1=z + 60, g_cm3=2.2))
        for x in np.linspace(x0, x1 - 90, int(rng.integers(2, 5))):
            solids.append(Prism(x0=x, x1=x + 90, h0=h0, h1=h0 + tall, z0=z - 45, z1=z + 45, g_cm3=1.9))
        solids.append(Prism(x0=x0, x1=x1, h0=h0 + tall - 90, h1=h0 + tall, z0=z - 45, z1=z + 45, g_cm3=1.9))
    for _ in range(int(rng.integers(12, 22))):
        w, t = rng.uniform(120, 0.45 * (x1 - x0)), rng.uniform(100, 0.4 * tall)
        a, h = rng.uniform(x0, x1 - w), rng.uniform(h0 + 60, h0 + tall - t)
        solids += _part(rng, int(rng.integers(0, 4)), (a, h), (w, t), rng.uniform(80, depth))
    return solids


def _part(rng: Rng, choice: int, at: tuple[float, float], size: tuple[float, float], depth: float) -> list[Solid]:
    """One part of a machine: 0 housing, 1 wheel, 2 cylinder with shaft, 3 motor."""
    (a, h), (w, t) = at, size
    if choice == 0:
        return [
            Prism(x0=a, x1=a + w, h0=h, h1=h + t, z0=-depth, z1=depth, g_cm3=rng.uniform(0.1, 0.7)),
            Prism(x0=a, x1=a + 20, h0=h, h1=h + t, z0=-depth, z1=depth, g_cm3=1.0),
            Prism(x0=a + w - 20, x1=a + w, h0=h, h1=h + t, z0=-depth, z1=depth, g_cm3=1.0),
        ]
    if choice == 1:
        r = min(w, t) / 2
        return _drum_wheel(a + r, h + r, r, rng.uniform(40, 200))
    if choice == 2:
        return [
            Tube(x0=a, x1=a + w, h=h + t / 2, z=0, outer=t / 3, inner=t / 3 - 15),
            Tube(x0=a - 60, x1=a + w + 60, h=h + t / 2, z=0, outer=35),
        ]
    return [
        Tube(x0=a, x1=a + w, h=h + t / 2, z=depth / 2, outer=t / 2.5, g_cm3=rng.uniform(2.0, 4.5)),
        Prism(
            x0=a + 0.2 * w, x1=a + 0.5 * w, h0=h + 0.8 * t, h1=h + t, z0=depth / 2 - 60, z1=depth / 2 + 60, g_cm3=1.0
        ),
    ]


def _drum_wheel(x: float, h: float, r: float, thick: float) -> list[Solid]:
    return [
        Disc(x0=x - r, x1=x + r, h=h, z=0.0, outer=outer * r, inner=inner * r, thick=share * thick)
        for outer, inner, share in ((1.0, 0.86, 1.0), (0.86, 0.3, 0.12), (0.3, 0.12, 0.9))
    ]


def paper(rng: Rng, bay: Bay) -> list[Solid]:
    """Paper rolls standing on end, two abreast, two tiers where they fit; the core is open."""
    solids: list[Solid] = []
    diameter, high = rng.uniform(950, 1150), rng.uniform(850, 1250)
    tiers = max(1, int(bay.height / high))
    for row, z in enumerate((-575.0, 575.0)):
        x = bay.x0 + 20 + row * 0.25 * diameter
        while x + diameter < bay.x1:
            for tier in range(tiers):
                h, density = bay.h0 + tier * high, 0.78 * rng.normal(1, 0.02)
                middle = x + diameter / 2
                for r, g_cm3 in ((diameter / 2, density), (50.0, -density)):  # the core is a hole
                    solids.append(Prism(x0=middle - r, x1=middle + r, h0=h, h1=h + high - 12, z0=z - r, z1=z + r,
                                        shape="round", material="cellulose", g_cm3=g_cm3))  # fmt: skip
            x += diameter * 1.015
    return solids


def frozen(rng: Rng, bay: Bay) -> list[Solid]:
    """Cartons of frozen meat, stowed tight on the T-bar floor up to the load line."""
    solids: list[Solid] = []
    high, width = 158.0, 380.0
    x = bay.x0 + 40
    layers = int(rng.uniform(0.8, 0.9) * bay.height / high)
    while x + width < bay.x1 - 60:
        count = layers - int(rng.random() < 0.3)
        shift = rng.normal(0, 4)
        for layer in range(count):
            for z0, z1 in ((-1120.0, -40.0), (40.0, 1120.0)):
                a = x + shift + rng.normal(0, 5)
                solids.append(Prism(x0=a + 9, x1=a + width - 9, h0=bay.h0 + layer * high + 5,
                                    h1=bay.h0 + (layer + 1) * high - 5, z0=z0, z1=z1, material="water",
                                    g_cm3=0.50 * rng.normal(1, 0.06), texture=(2, 0.12)))  # fmt: skip
        x += width + rng.exponential(7)
    return solids


def mixed(rng: Rng, bay: Bay) -> list[Solid]:
    """Household clutter: boxes, bags, white goods, bicycles, furniture, stacked as they come to hand."""
    solids: list[Solid] = []
    step = 50.0
    for z in (-770.0, 0.0, 770.0):
        skyline = np.full(int(bay.length / step) + 1, bay.h0)
        ceiling = bay.h0 + rng.uniform(0.55, 0.85) * bay.height
        for _ in range(int(bay.length / 35)):
            choice = int(rng.choice(5, p=(0.46, 0.2, 0.16, 0.08, 0.1)))
            w = 1720.0 if choice == 3 else rng.uniform(200, 1000)
            t = 740.0 if choice == 3 else rng.uniform(120, 700)
            a = rng.uniform(bay.x0 + 20, bay.x1 - w - 20)
            under = slice(int((a - bay.x0) / step), int((a + w - bay.x0) / step) + 1)
            h = float(skyline[under].max()) + 5
            if h + t > ceiling:
                continue
            skyline[under] = h + t
            solids += _item(rng, choice, (a, a + w), (h, h + t), (z - rng.uniform(150, 370), z + rng.uniform(150, 370)))
    return solids


def _item(rng: Rng, choice: int, x: tuple[float, float], h: tuple[float, float], z: tuple[float, float]) -> list[Solid]:
    """One household thing: 0 box, 1 bag, 2 white goods, 3 bicycle, 4 table."""
    middle = sum(z) / 2
    if choice == 0:
        density = rng.uniform(0.08, 0.4)
        solids = _carton(rng, x, h, z, density, metal=rng.random() < 0.2)
        for _ in range(int(rng.integers(0, 4))):
            w, t = rng.uniform(0.1, 0.5) * (x[1] - x[0]), rng.uniform(0.1, 0.5) * (h[1] - h[0])
            a, b = rng.uniform(x[0], x[1] - w), rng.uniform(h[0], h[1] - t)
            solids.append(Prism(x0=a, x1=a + w, h0=b, h1=b + t, z0=middle - w / 3, z1=middle + w / 3,
                                material=str(rng.choice(("cellulose", "aluminium", "ceramic"))),
                                g_cm3=rng.uniform(0.3, 1.2)))  # fmt: skip
        return solids
    if choice == 1:
        return [Pillow(x0=x[0], x1=x[1], h=sum(h) / 2, z=middle, rh=(h[1] - h[0]) / 2, rz=(z[1] - z[0]) / 2, power=4,
                       material="cellulose", g_cm3=rng.uniform(0.08, 0.25), texture=(1, 0.15))]  # fmt: skip
    if choice == 2:
        return _cabinet(rng, x, h, z)
    if choice == 3:
        wheels: list[Solid] = [
            Disc(x0=a, x1=a + 660, h=h[0] + 330, z=middle, outer=330, inner=308, thick=24, material="aluminium",
                 g_cm3=2.7)
            for a in (x[0], x[1] - 660)
        ]  # fmt: skip
        bars = ((330, 700, 330, 720), (330, 900, 330, 300), (700, 1390, 720, 700), (900, 1390, 300, 700),
                (1280, 1390, 720, 330))  # fmt: skip
        for a, b, low, high in bars:
            wheels.append(Strip(x0=x[0] + a, x1=x[0] + b, low=(h[0] + low, h[0] + high), thick=5, z=middle,
                                high=(h[0] + low + 32, h[0] + high + 32)))  # fmt: skip
        return wheels
    legs: list[Solid] = [
        Prism(x0=a, x1=a + 32, h0=h[0], h1=h[1], z0=middle - 16, z1=middle + 16, g_cm3=2.5) for a in (x[0], x[1] - 32)
    ]
    top = Prism(x0=x[0], x1=x[1], h0=h[1] - 30, h1=h[1], z0=z[0], z1=z[1], g_cm3=0.6, material="cellulose")
    return [*legs, top]


def _cabinet(rng: Rng, x: tuple[float, float], h: tuple[float, float], z: tuple[float, float]) -> list[Solid]:
    """A refrigerator or washing machine: thin steel skin, foam, a motor."""
    motor = min(rng.uniform(120, 200), (h[1] - h[0]) * 0.8)
    return [
        _solid((*x, *h, z[0], z[0] + 1), "iron", 7.87),
        _solid((*x, *h, z[1] - 1, z[1]), "iron", 7.87),
        _solid((x[0], x[0] + 6, *h, *z), "iron", 0.8),
        _solid((x[1] - 6, x[1], *h, *z), "iron", 0.8),
        _solid((*x, *h, *z), "polyethylene", 0.04),
        Pillow(x0=x[0] + 40, x1=x[0] + 40 + motor, h=h[0] + motor * 0.6, z=sum(z) / 2, rh=motor / 2, rz=motor / 2,
               g_cm3=3.5),
    ]  # fmt: skip


def timber(rng: Rng, bay: Bay) -> list[Solid]:
    """Bundles of sawn planks along the container, on bearers, with laths between the layers."""
    solids: list[Solid] = []
    density = rng.uniform(0.42, 0.62)
    bundle_h = rng.uniform(480, 700)
    tiers = int((bay.height - 120) / (bundle_h + 80))
    for tier in range(tiers):
        for z0, z1 in ((-1120.0, -30.0), (30.0, 1120.0)):
            x = bay.x0 + rng.uniform(20, 80)
            length = rng.choice((2700.0, 3000.0, 3900.0))
            while x + length < bay.x1:
                h = bay.h0 + tier * (bundle_h + 80)
                for bearer in np.arange(x + 300, x + length - 200, 900.0):
                    solids.append(Prism(x0=bearer, x1=bearer + 90, h0=h, h1=h + 75, z0=z0, z1=z1,
                                        material="cellulose", g_cm3=0.5))  # fmt: skip
                boards = int(bundle_h / 50)
                for board in range(boards):
                    low = h + 80 + board * 50
                    solids.append(Prism(x0=x + rng.uniform(0, 30), x1=x + length - rng.uniform(0, 60), h0=low,
                                        h1=low + 44, z0=z0, z1=z1, material="cellulose",
                                        g_cm3=density * rng.normal(1, 0.04), texture=(1, 0.03)))  # fmt: skip
                x += length + rng.uniform(30, 150)
    return solids


def tiles(rng: Rng, bay: Bay) -> list[Solid]:
    """Low, heavy pallets of tiles or slabs, with free space above."""
    solids: list[Solid] = []
    tall = rng.uniform(380, 700)
    density = rng.uniform(0.75, 1.1)
    for x0, x1 in pallets(rng, bay, length=1000.0, gap=160.0):
        solids += _pallet(x0, x1, bay.h0)
        rows = int(rng.integers(3, 6))
        step = (x1 - x0 - 40) / rows
        for row in range(rows):
            a = x0 + 20 + row * step
            for z in (-560.0, 560.0):
                h = bay.h0 + PALLET_MM + tall * rng.choice((1.0, 1.0, 1.0, 0.75))
                solids.append(Prism(x0=a + 4, x1=a + step - 4, h0=bay.h0 + PALLET_MM, h1=h, z0=z - 500, z1=z + 500,
                                    material="ceramic", g_cm3=density * rng.normal(1, 0.02)))  # fmt: skip
    return solids


def coils(rng: Rng, bay: Bay) -> list[Solid]:
    """A few heavy coils, axis across, in timber cradles: opaque discs with an eye."""
    solids: list[Solid] = []
    count = int(rng.integers(3, 7))
    for x in np.linspace(bay.x0 + 800, bay.x1 - 800, count):
        r = rng.uniform(420, 620)
        h = bay.h0 + 90 + r
        eye, wide = rng.uniform(230, 300), rng.uniform(700, 1200)
        solids.append(Disc(x0=x - r, x1=x + r, h=h, z=0, outer=r, inner=eye, thick=wide, g_cm3=7.2))
        for side in (-1, 1):
            a, b = sorted((x + side * 0.45 * r, x + side * 1.05 * r))
            low = (bay.h0, bay.h0)
            high = (bay.h0 + 90, bay.h0 + 330) if side > 0 else (bay.h0 + 330, bay.h0 + 90)
            solids.append(Strip(x0=a, x1=b, low=low, high=high, thick=1400, material="cellulose", g_cm3=0.5))
        solids.append(Prism(x0=x - r, x1=x + r, h0=bay.h0, h1=bay.h0 + 85, material="cellulose", g_cm3=0.4))
    return solids


KINDS: dict[str, Callable[[Rng, Bay], list[Solid]]] = {
    "empty": lambda rng, bay: [],
    "cartons": cartons,
    "sacks": sacks,
    "bulk": bulk,
    "drums": drums,
    "machinery": machinery,
    "paper": paper,
    "frozen": frozen,
    "mixed": mixed,
    "timber": timber,
    "tiles": tiles,
    "coils": coils,
}

# --------------------------------------------------------------------------------------------------------------
# Threats


class Threat(NamedTuple):
    """Something that does not belong; box : x0, x1, h0, h1, z0, z1 in mm."""

    solids: list[Solid]
    box: tuple[float, float, float, float, float, float]


def _place(rng: Rng, bay: Bay, w: float, t: float, d: float) -> tuple[float, float, float]:
    """Return x, h, z of the near lower front corner of something w long, t high, d deep."""
    x = rng.uniform(bay.x0 + 200, bay.x1 - w - 200)
    h = rng.uniform(bay.h0 + 160, bay.h0 + 0.7 * (bay.height - t))
    return x, h, rng.uniform(-1000, 1000 - d)


def dense_block(rng: Rng, bay: Bay) -> Threat:
    """A block of lead, tungsten or steel."""
    w, t, d = rng.uniform(100, 320), rng.uniform(90, 260), rng.uniform(50, 160)
    x, h, z = _place(rng, bay, w, t, d)
    material, density = [("lead", 11.35), ("tungsten", 17.0), ("iron", 7.87)][rng.integers(0, 3)]
    box = (x, x + w, h, h + t, z, z + d)
    return Threat([_solid(box, material, density)], box)


def brick_stack(rng: Rng, bay: Bay) -> Threat:
    """Wrapped bricks of organic matter, stacked."""
    nx, nh = int(rng.integers(2, 6)), int(rng.integers(2, 7))
    d = rng.uniform(300, 700)
    x, h, z = _place(rng, bay, nx * 230, nh * 75, d)
    bricks: list[Solid] = [
        _solid((x + i * 230 + 3, x + i * 230 + 227, h + j * 75 + 2, h + j * 75 + 73, z, z + d), "cellulose",
               1.05 * rng.normal(1, 0.04))
        for i in range(nx)
        for j in range(nh)
    ]  # fmt: skip
    return Threat(bricks, (x, x + nx * 230, h, h + nh * 75, z, z + d))


def metal_shapes(rng: Rng, bay: Bay) -> Threat:
    """Long thin metal objects with stocks, laid in a bundle."""
    count = int(rng.integers(3, 9))
    x, h, z = _place(rng, bay, 1000, count * 75 + 60, 150)
    solids: list[Solid] = []
    for i in range(count):
        low = h + 75 * i
        tilt = rng.normal(0, 12)
        solids.append(Strip(x0=x + 330, x1=x + rng.uniform(850, 980), low=(low, low + tilt),
                            high=(low + 26, low + 26 + tilt), thick=22, z=z))  # fmt: skip
        solids.append(Strip(x0=x + 230, x1=x + 520, low=(low - 12, low - 8), high=(low + 42, low + 38), thick=28, z=z))
        solids.append(Strip(x0=x, x1=x + 240, low=(low - 45, low - 10), high=(low + 40, low + 35), thick=40, z=z,
                            material="cellulose", g_cm3=0.9))  # fmt: skip
    return Threat(solids, (x, x + 980, h - 50, h + 75 * count + 10, z, z + 50))


def false_wall(rng: Rng, bay: Bay) -> Threat:
    """A second front wall with goods behind it."""
    depth = rng.uniform(220, 480)
    box = (bay.x0, bay.x0 + depth, bay.h0, bay.h1 - 40, -1150.0, 1150.0)
    wall = Prism(x0=box[1], x1=box[1] + 6, h0=bay.h0, h1=bay.h1, g_cm3=0.8)
    return Threat([_solid(box, "cellulose", rng.uniform(0.3, 0.6)), wall], box)


def roof_void(rng: Rng, bay: Bay) -> Threat:
    """A false ceiling with flat packets above it."""
    length = rng.uniform(1500, 4000)
    x = rng.uniform(bay.x0 + 100, bay.x1 - length - 100)
    box = (x, x + length, bay.h1 - 20, bay.h1 + 50, -1100.0, 1100.0)
    sheet = Prism(x0=x, x1=x + length, h0=bay.h1 - 24, h1=bay.h1 - 22, z0=-1150, z1=1150)
    return Threat([_solid(box, "cellulose", rng.uniform(0.2, 0.5)), sheet], box)


def lead_box(rng: Rng, bay: Bay) -> Threat:
    """A shielding pot: a lead shell around a small cavity."""
    side, wall = rng.uniform(180, 320), rng.uniform(25, 60)
    x, h, z = _place(rng, bay, side, side, side)
    outer = (x, x + side, h, h + side, z, z + side)
    inner = (x + wall, x + side - wall, h + wall, h + side - wall, z + wall, z + side - wall)
    return Threat([_solid(outer, "lead", 11.35), _solid(inner, "lead", -11.35)], outer)


def _solid(box: tuple[float, float, float, float, float, float], material: str, g_cm3: float) -> Prism:
    x0, x1, h0, h1, z0, z1 = box
    return Prism(x0=x0, x1=x1, h0=h0, h1=h1, z0=z0, z1=z1, material=material, g_cm3=g_cm3)


THREATS: dict[str, Callable[[Rng, Bay], Threat]] = {
    "dense_block": dense_block,
    "brick_stack": brick_stack,
    "metal_shapes": metal_shapes,
    "false_wall": false_wall,
    "roof_void": roof_void,
    "lead_box": lead_box,
}
