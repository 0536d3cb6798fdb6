"""Cargo in regular order: cartons, fruit, frozen goods, bales, drums, totes, bottles, rolls, timber, tiles, appliances.

Sizes and densities are typical of the trade and rounded; `cargo.KINDS` says for every kind where they come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .scene import Disc, Pillow, Prism, Solid, Tube
from .stow import BESIDE_MM, PALLET_MM, Rng, Span, carton, columns, heights_along, pallet, pallets, solid
from .vehicle import STEEL, Bay

STEEL_RIB = 0.12


def cartons(rng: Rng, bay: Bay) -> list[Solid]:
    """Cartons of one product, on pallets or stowed by hand; two rows across, seen one behind the other."""
    density, high = rng.uniform(0.10, 0.34), rng.uniform(230, 480)
    metal = rng.random() < 0.35
    if rng.random() < 0.4:
        width, gap = rng.uniform(380, 620), rng.uniform(3, 14)
        shares = heights_along(rng, bay, width + gap, rng.uniform(0.6, 0.92), rough=0.006, door=0.4)

        def make(x: Span, h: Span) -> list[Solid]:
            inside = (x[0] + 4, x[1] - 4), (h[0] + 3, h[1] - 3)
            return carton(rng, *inside, (-BESIDE_MM, BESIDE_MM), density, metal)

        return columns(rng, bay, make, width=width, high=high, shares=shares, gap=gap, wander=5.0)
    solids: list[Solid] = []
    across, tall = int(rng.integers(2, 5)), rng.uniform(0.6, 0.97) * bay.height
    for x0, x1 in pallets(rng, bay):
        solids += pallet(x0, x1, bay.h0)
        lot = density * (rng.uniform(0.55, 1.5) if rng.random() < 0.2 else rng.uniform(0.94, 1.06))
        width = (x1 - x0) / across
        for z in ((-BESIDE_MM, -20.0), (20.0, BESIDE_MM)):
            layers = max(1, int((tall - PALLET_MM) / high) - int(rng.random() < 0.15))
            for column in range(across):
                a = x0 + column * width
                off = np.cumsum(rng.normal(0, 4, layers))
                for layer in range(layers):
                    low = bay.h0 + PALLET_MM + layer * high
                    x = (a + off[layer] + 6, a + off[layer] + width - 6)
                    solids += carton(rng, x, (low + 5, low + high - 4), z, lot, metal)
    return solids


def fruit(rng: Rng, bay: Bay) -> list[Solid]:
    """Ventilated cartons of fruit, stowed to the load line: their holes show as a fine pattern."""
    width, high = rng.uniform(280, 400), rng.uniform(110, 240)
    density, gap = rng.uniform(0.36, 0.48), rng.uniform(4, 16)
    shares = heights_along(rng, bay, width + gap, rng.uniform(0.86, 0.95), rough=0.003, door=0.15)
    holes = rng.random() < 0.6

    def make(x: Span, h: Span) -> list[Solid]:
        middle = (h[0] + h[1]) / 2
        box = (x[0] + 7, x[1] - 7, h[0] + 3, h[1] - 10, -BESIDE_MM, BESIDE_MM)
        parts: list[Solid] = [solid(box, "water", density * rng.normal(1, 0.05), (3, 0.10))]
        if holes:  # ducts for cold air through every carton of a row
            for at in (0.3, 0.7):
                a = x[0] + at * width
                duct = (a - 22, a + 22, middle - 18, middle + 18, -BESIDE_MM, BESIDE_MM)
                parts.append(solid(duct, "water", -density * 0.8))
        return parts

    return columns(rng, bay, make, width=width, high=high, shares=shares, gap=gap, wander=rng.uniform(1.5, 6))


def frozen(rng: Rng, bay: Bay) -> list[Solid]:
    """Cartons or bags of frozen meat, stowed tight on the T-bar floor up to the load line, lower at the doors."""
    cuts = rng.random() < 0.5
    width, high = (rng.uniform(360, 420), rng.uniform(140, 175)) if cuts else (rng.uniform(480, 640), 190.0)
    density, lumps = rng.uniform(0.42, 0.58), rng.uniform(0.06, 0.2)
    gap = rng.uniform(4, 20)
    shares = heights_along(rng, bay, width + gap, rng.uniform(0.84, 0.95), rough=0.008, door=0.35)

    def make(x: Span, h: Span) -> list[Solid]:
        g = density * rng.normal(1, 0.06)
        if cuts:
            return [
                solid((x[0] + 8, x[1] - 8, h[0] + 4, h[1] - 5, *z), "water", g * rng.normal(1, 0.04), (2, lumps))
                for z in ((-1120.0, -40.0), (40.0, 1120.0))
            ]
        # Quarters in cloth: no two alike, and they sag.
        low, lies = max(x[0] - 25, bay.x0), (h[0] + h[1]) / 2
        return [
            Pillow(x0=low, x1=x[1] + 25, h=max(lies + rng.normal(0, 12), bay.h0 + high * 0.65), z=z, rh=high * 0.68,
                   rz=560, power=4, material="water", g_cm3=g * 0.9 * rng.normal(1, 0.1), texture=(1, lumps * 1.5))
            for z in (-570.0, 570.0)
        ]  # fmt: skip

    return columns(rng, bay, make, width=width, high=high, shares=shares, gap=gap, wander=5.0 if cuts else 14.0)


def bales(rng: Rng, bay: Bay) -> list[Solid]:
    """Pressed bales of cotton, rags or waste paper, two abreast and up to four high: dense middles, soft edges."""
    width, high = rng.uniform(760, 1080), rng.uniform(520, 680)
    density, uneven = rng.uniform(0.26, 0.46), rng.uniform(0.02, 0.12)
    gap = rng.uniform(3, 16)
    shares = heights_along(rng, bay, width + gap, rng.uniform(0.78, 0.97), rough=0.004, door=0.5)

    def make(x: Span, h: Span) -> list[Solid]:
        parts: list[Solid] = []
        for z in (-575.0, 575.0):
            a, b = x[0] + rng.normal(0, 6), x[1] + rng.normal(0, 6)
            g = density * rng.normal(1, 0.05)
            box = (a + 14, b - 14, h[0] + 2, h[1] - 3, z - 530, z + 530)
            parts.append(solid(box, "cellulose", g * 0.55, (1, uneven)))
            parts.append(Pillow(x0=a - 12, x1=b + 12, h=(h[0] + h[1]) / 2, z=z, rh=high * 0.53, rz=530, power=6,
                                material="cellulose", g_cm3=g * 0.45, texture=(0, uneven)))  # fmt: skip
        return parts

    return columns(rng, bay, make, width=width, high=high, shares=shares, gap=gap, wander=9.0)


def fabric_rolls(rng: Rng, bay: Bay) -> list[Solid]:
    """Rolls of cloth or carpet that lie across the container, nested like logs."""
    solids: list[Solid] = []
    r, density = rng.uniform(85, 190), rng.uniform(0.22, 0.36)
    rows = int(rng.uniform(0.55, 0.9) * bay.height / (r * 1.75))
    for row in range(rows):
        x = bay.x0 + 20 + r * (1 + row % 2)
        while x + r < bay.x1:
            size = r * rng.uniform(0.9, 1.02)
            h = bay.h0 + r + row * r * 1.75 + rng.normal(0, 5)
            roll: dict[str, Any] = {"h": h, "z": 0.0, "thick": rng.uniform(1500, 2250), "material": "cellulose"}
            solids.append(Disc(x0=x - size, x1=x + size, outer=size, inner=28, g_cm3=density * rng.normal(1, 0.08),
                               **roll))  # fmt: skip
            solids.append(Disc(x0=x - 34, x1=x + 34, outer=34, inner=27, g_cm3=0.7, **roll))
            x += 2 * r * rng.uniform(1.0, 1.04)
    return solids


def tyres(rng: Rng, bay: Bay) -> list[Solid]:
    """Tyres of one size, standing in rows across the container or lying in columns."""
    solids: list[Solid] = []
    r, wide = rng.uniform(290, 340), rng.uniform(175, 225)
    if rng.random() < 0.5:
        rows = int(rng.uniform(0.6, 0.9) * bay.height / (r * 1.55))
        for row in range(rows):
            x, h = bay.x0 + r * (1 + 0.75 * (row % 2)) + 10, bay.h0 + r + row * r * 1.55
            while x + r < bay.x1:
                for z in rng.uniform(-500, 500, 2):
                    solids += _tyre_standing(x + rng.normal(0, 8), h + rng.normal(0, 8), r, float(z), wide * 4)
                x += r * rng.uniform(1.45, 1.6)
        return solids
    layers = int(rng.uniform(0.6, 0.92) * bay.height / (wide * 0.92))
    for row, z in enumerate((-780.0, 0.0, 780.0)):
        x = bay.x0 + 20 + row * 90
        while x + 2 * r < bay.x1:
            for layer in range(layers):
                a, h = x + rng.normal(0, 10), bay.h0 + layer * wide * 0.92
                for outer, inner, g in ((r, r * 0.6, 0.34), (r * 0.97, r * 0.86, 0.55)):
                    for half, sign in ((outer, 1), (inner, -1)):
                        solids.append(Prism(x0=a + r - half, x1=a + r + half, h0=h, h1=h + wide * 0.9, z0=z - half,
                                            z1=z + half, shape="round", material="polyethylene",
                                            g_cm3=sign * g))  # fmt: skip
            x += 2 * r + rng.uniform(5, 25)
    return solids


def _tyre_standing(x: float, h: float, r: float, z: float, wide: float) -> list[Solid]:
    """Return one row of tyres seen from the side; `wide` holds several, one behind the other."""
    parts = ((1.0, 0.58, 0.16, "polyethylene", 1.15), (1.0, 0.86, 0.3, "polyethylene", 1.15),
             (0.98, 0.9, 0.02, "iron", STEEL), (0.62, 0.57, 0.03, "iron", STEEL))  # fmt: skip
    return [
        Disc(x0=x - r, x1=x + r, h=h, z=z, outer=a * r, inner=b * r, thick=share * wide, material=m, g_cm3=g)
        for a, b, share, m, g in parts
    ]


def drums(rng: Rng, bay: Bay) -> list[Solid]:
    """Steel drums, one or two tiers, four abreast in a staggered pattern, with ullage under the lid."""
    solids: list[Solid] = []
    density, tiers = rng.uniform(0.85, 1.1), 2 if rng.random() < 0.6 else 1
    short = rng.uniform(0, 0.3) * bay.length if rng.random() < 0.4 else 0.0
    for tier in range(tiers):
        for row, z in enumerate((-870.0, -290.0, 290.0, 870.0)):
            x = bay.x0 + 25 + 295 * (row % 2)
            while x + 585 < bay.x1 - tier * short:
                solids += _drum(x + rng.normal(0, 2.5), bay.h0 + tier * 900, z, rng.normal(790, 12), density * 0.8)
                x += 590
        solids.append(Prism(x0=bay.x0, x1=bay.x1 - tier * short, h0=bay.h0 + tier * 900, h1=bay.h0 + tier * 900 + 10,
                            material="cellulose", g_cm3=0.6))  # fmt: skip
    return solids


def _drum(x: float, h: float, z: float, fill: float, g_cm3: float) -> list[Solid]:
    z0, z1 = z - 285, z + 285
    solids: list[Solid] = [
        Prism(x0=x + 3, x1=x + 582, h0=h + 15, h1=h + fill, z0=z0, z1=z1, shape="round", material="water",
              g_cm3=g_cm3),
        Prism(x0=x, x1=x + 585, h0=h + 10, h1=h + 880, z0=z - 1, z1=z + 1),
    ]  # fmt: skip
    for rib in (20, 300, 590, 876):
        solids.append(Prism(x0=x - 3, x1=x + 588, h0=h + rib - 5, h1=h + rib + 5, z0=z0, z1=z1, g_cm3=STEEL_RIB))
    return solids


def totes(rng: Rng, bay: Bay) -> list[Solid]:
    """Intermediate bulk containers: a plastic bottle of a cubic metre in a cage, on a pallet, two tiers at most."""
    solids: list[Solid] = []
    density, tiers = rng.uniform(0.8, 1.25), 1 if bay.length > 8000 or rng.random() < 0.5 else 2
    for tier in range(tiers):
        for z in (-575.0, 575.0):
            for x0, x1 in pallets(rng, bay, length=1000.0, gap=50.0):
                h = bay.h0 + tier * 1165
                solids += pallet(x0, x1, h)[:2]
                full = h + 170 + rng.normal(905, 14)
                inner = (x0 + 25, x1 - 25, h + 165, full, z - 525, z + 525)
                solids.append(solid(inner, "water", density * 0.93))
                solids.append(solid((x0 + 20, x1 - 20, h + 160, h + 1130, z - 535, z - 531), "polyethylene", 0.95))
                for bar in np.linspace(x0 + 10, x1 - 30, 9):
                    cage = (bar, bar + 16, h + 150, h + 1140, z - 550, z - 546)
                    solids.append(solid(cage, "iron", STEEL * 0.6))
                for rail in (160, 480, 800, 1120):
                    bar_box = (x0, x1, h + rail, h + rail + 16, z - 550, z + 550)
                    solids.append(solid(bar_box, "iron", 0.05))
    return solids


def bottles(rng: Rng, bay: Bay) -> list[Solid]:
    """Bottles, cans or jars in trays on pallets: layers with a fine vertical pattern, dividers between."""
    solids: list[Solid] = []
    pitch, high = rng.uniform(58, 92), rng.uniform(125, 320)
    glass = rng.random() < 0.5
    density, tall = rng.uniform(0.42, 0.58), rng.uniform(0.35, 0.6) * bay.height
    layers = max(1, int((tall - PALLET_MM) / (high + 6)))
    for x0, x1 in pallets(rng, bay):
        solids += pallet(x0, x1, bay.h0)
        for layer in range(layers - int(rng.random() < 0.1)):
            low = bay.h0 + PALLET_MM + layer * (high + 6)
            for z0, z1 in ((-1120.0, -25.0), (25.0, 1120.0)):
                a = x0 + rng.normal(0, 3)
                for material, g in (("water", density), ("ceramic", 0.22 if glass else 0.0)):
                    if g:
                        solids.append(Prism(x0=a, x1=a + 1196, h0=low, h1=low + high * 0.86, z0=z0, z1=z1,
                                            shape="ribbed", pitch_mm=pitch, material=material, g_cm3=g))  # fmt: skip
                neck = (a, a + 1196, low + high * 0.86, low + high, z0, z1)
                solids.append(solid(neck, "ceramic" if glass else "aluminium", 0.16))
            solids.append(solid((x0, x1, low + high, low + high + 5, -1120, 1120), "cellulose", 0.5))
    return solids


def paper(rng: Rng, bay: Bay) -> list[Solid]:
    """Paper rolls standing on end, two abreast, one or two tiers, some columns lower; the core is open."""
    solids: list[Solid] = []
    diameter, high = rng.uniform(950, 1150), rng.uniform(850, 1300)
    tiers = max(1, int(bay.height / high))
    low_end, low_front = (int(rng.integers(0, 4)) if rng.random() < 0.5 else 0 for _ in range(2))
    for row, z in enumerate((-575.0, 575.0)):
        x = bay.x0 + 20 + row * 0.25 * diameter
        places = np.arange(x, bay.x1 - diameter, diameter * 1.015)
        for number, x in enumerate(places):
            lower = number < low_front or number >= len(places) - low_end
            for tier in range(max(1, tiers - int(lower))):
                h, density = bay.h0 + tier * high, 0.78 * rng.normal(1, 0.02)
                middle = x + diameter / 2 + rng.normal(0, 6)
                for r, g_cm3 in ((diameter / 2, density), (50.0, -density)):  # the core is a hole
                    solids.append(Prism(x0=middle - r, x1=middle + r, h0=h, h1=h + high - 12, z0=z - r, z1=z + r,
                                        shape="round", material="cellulose", g_cm3=g_cm3))  # fmt: skip
    return solids


def timber(rng: Rng, bay: Bay) -> list[Solid]:
    """Bundles of sawn planks along the container, on bearers, with laths between the layers."""
    solids: list[Solid] = []
    density = rng.uniform(0.42, 0.62)
    bundle_h, board_h = rng.uniform(480, 700), rng.uniform(32, 78)
    tiers = int((bay.height - 120) / (bundle_h + 80))
    for tier in range(tiers):
        for z0, z1 in ((-1120.0, -30.0), (30.0, 1120.0)):
            x = bay.x0 + rng.uniform(20, 80)
            length = rng.choice((2700.0, 3000.0, 3900.0))
            while x + length < bay.x1:
                h = bay.h0 + tier * (bundle_h + 80)
                for bearer in np.arange(x + 300, x + length - 200, 900.0):
                    solids.append(solid((bearer, bearer + 90, h, h + 75, z0, z1), "cellulose", 0.5))
                for board in range(int(bundle_h / board_h)):
                    low = h + 80 + board * board_h
                    box = (x + rng.uniform(0, 30), x + length - rng.uniform(0, 60), low, low + board_h - 6, z0, z1)
                    solids.append(solid(box, "cellulose", density * rng.normal(1, 0.04), (1, 0.03)))
                x += length + rng.uniform(30, 150)
    return solids


def logs(rng: Rng, bay: Bay) -> list[Solid]:
    """Round wood along the container, thick and thin, some shorter than others."""
    solids: list[Solid] = []
    density, size = rng.uniform(0.6, 0.95), rng.uniform(110, 260)
    half = bay.length > 8000
    middle = (bay.x0 + bay.x1) / 2
    for a, b in ((bay.x0, middle), (middle, bay.x1)) if half else ((bay.x0, bay.x1),):
        tops = np.full(40, bay.h0)
        for _ in range(int(2300 / size * bay.height * 0.8 / size / 2.2)):
            r = size * rng.uniform(0.6, 1.15)
            z = rng.uniform(-1140 + r, 1140 - r)
            under = slice(int((z - r + 1165) / 60), int((z + r + 1165) / 60) + 1)
            h = float(tops[under].mean()) + r
            if h + r > bay.h0 + 0.8 * bay.height:
                continue
            tops[under] = np.maximum(tops[under], h + 0.8 * r)
            x0 = a + rng.uniform(20, 260)
            x1 = b - rng.uniform(20, 420)
            solids.append(Tube(x0=x0, x1=x1, h=h, z=z, outer=r, material="cellulose",
                               g_cm3=density * rng.normal(1, 0.06), texture=(0, 0.04)))  # fmt: skip
    return solids


def tiles(rng: Rng, bay: Bay) -> list[Solid]:
    """Low, heavy pallets of tiles or slabs, with free space above."""
    solids: list[Solid] = []
    tall = rng.uniform(380, 700)
    density = rng.uniform(0.75, 1.1)
    for x0, x1 in pallets(rng, bay, length=1000.0, gap=160.0):
        solids += pallet(x0, x1, bay.h0)
        rows = int(rng.integers(3, 6))
        step = (x1 - x0 - 40) / rows
        for row in range(rows):
            a = x0 + 20 + row * step
            for z in (-560.0, 560.0):
                h = bay.h0 + PALLET_MM + tall * rng.choice((1.0, 1.0, 1.0, 0.75))
                box = (a + 4, a + step - 4, bay.h0 + PALLET_MM, h, z - 500, z + 500)
                solids.append(solid(box, "ceramic", density * rng.normal(1, 0.02)))
    return solids


def white_goods(rng: Rng, bay: Bay) -> list[Solid]:
    """Refrigerators, washing machines or cookers of one model, side by side and in tiers."""
    solids: list[Solid] = []
    wide, high = rng.uniform(560, 720), rng.choice((870.0, 880.0, 1450.0, 1780.0))
    tiers = max(1, int(0.97 * bay.height / (high + 25)))
    at, weight = rng.uniform(0.15, 0.7), rng.uniform(2.2, 4.5)
    drum = high < 900 and rng.random() < 0.6
    for z in (-760.0, -20.0, 720.0):
        x = bay.x0 + rng.uniform(15, 40)
        while x + wide < bay.x1:
            for tier in range(tiers):
                low = bay.h0 + tier * (high + 25)
                box = (x + 12, x + wide - 12), (low + 12, low + high)
                solids += cabinet(rng, *box, (z - 340, z + 330), at=at, g_cm3=weight)
                if drum:
                    middle, h = x + wide / 2, low + 0.52 * high
                    solids.append(Disc(x0=middle - 235, x1=middle + 235, h=h, z=z, outer=235, inner=226, thick=330,
                                       g_cm3=STEEL * 0.5))  # fmt: skip
                    weight_box = (middle - 170, middle + 170, low + high - 190, low + high - 90, z - 60, z + 60)
                    solids.append(solid(weight_box, "ceramic", 2.2))
            x += wide + rng.uniform(4, 22)
    return solids


def cabinet(rng: Rng, x: Span, h: Span, z: Span, *, at: float = 0.1, g_cm3: float = 3.5) -> list[Solid]:
    """Return a refrigerator or the like: thin steel skin, foam, a motor at the share `at` of its length."""
    motor = min(rng.uniform(140, 190), (h[1] - h[0]) * 0.8, (x[1] - x[0]) * 0.6)
    a = x[0] + 20 + at * (x[1] - x[0] - motor - 40)
    return [
        solid((*x, *h, z[0], z[0] + 1), "iron", STEEL),
        solid((*x, *h, z[1] - 1, z[1]), "iron", STEEL),
        solid((x[0], x[0] + 6, *h, *z), "iron", 0.8),
        solid((x[1] - 6, x[1], *h, *z), "iron", 0.8),
        solid((*x, *h, *z), "polyethylene", 0.04),
        Pillow(x0=a, x1=a + motor, h=h[0] + motor * 0.6, z=sum(z) / 2, rh=motor / 2, rz=motor / 2, g_cm3=g_cm3),
    ]
