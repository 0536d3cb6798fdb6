"""Cluttered cargo: household removals, furniture, and part loads of several goods in one container."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from . import stacked
from .metal import machinery, plates
from .scene import Disc, Pillow, Solid, Strip
from .stow import Rng, Skyline, Span, carton, solid
from .vehicle import Bay


def mixed(rng: Rng, bay: Bay) -> list[Solid]:
    """Household clutter: boxes, bags, white goods, bicycles, furniture, stacked as they come to hand."""
    solids: list[Solid] = []
    for z in (-770.0, 0.0, 770.0):
        skyline = Skyline(bay)
        ceiling = bay.h0 + rng.uniform(0.55, 0.9) * bay.height
        for _ in range(int(bay.length / 30)):
            choice = int(rng.choice(6, p=(0.5, 0.18, 0.08, 0.05, 0.09, 0.1)))
            w = min(1720.0 if choice == 3 else rng.uniform(200, 900), bay.length - 40)
            t = 740.0 if choice == 3 else rng.uniform(110, 620)
            a = skyline.lowest(rng, w)
            h = skyline.top((a, a + w)) + 5
            if h + t > ceiling:
                continue
            skyline.put((a, a + w), h + t)
            deep = z - rng.uniform(150, 370), z + rng.uniform(150, 370)
            solids += _item(rng, choice, (a, a + w), (h, h + t), deep)
    return solids


def _item(rng: Rng, choice: int, x: Span, h: Span, z: Span) -> list[Solid]:
    """One household thing: 0 box, 1 bag, 2 white goods, 3 bicycle, 4 table, 5 mattress or rolled carpet."""
    middle = sum(z) / 2
    if choice == 0:
        solids = carton(rng, x, h, z, rng.uniform(0.06, 0.35), metal=rng.random() < 0.1)
        for _ in range(int(rng.integers(1, 7))):
            w, t = rng.uniform(0.08, 0.5) * (x[1] - x[0]), rng.uniform(0.08, 0.5) * (h[1] - h[0])
            a, b = rng.uniform(x[0], x[1] - w), rng.uniform(h[0], h[1] - t)
            material = str(rng.choice(("cellulose", "aluminium", "ceramic", "polyethylene", "iron")))
            solids.append(solid((a, a + w, b, b + t, middle - w / 3, middle + w / 3), material,
                                rng.uniform(0.2, 1.0), (3, 0.2)))  # fmt: skip
        return solids
    if choice == 1:
        return [Pillow(x0=x[0], x1=x[1], h=sum(h) / 2, z=middle, rh=(h[1] - h[0]) / 2, rz=(z[1] - z[0]) / 2, power=4,
                       material="cellulose", g_cm3=rng.uniform(0.08, 0.25), texture=(2, 0.25))]  # fmt: skip
    if choice == 2:
        return stacked.cabinet(rng, x, h, z, at=rng.uniform(0, 1))
    if choice == 3:
        return _bicycle(x, h, middle)
    if choice == 4:
        return _table(x, h, z)
    if rng.random() < 0.5:
        springs = [
            solid((float(a), float(a) + 14, h[0] + 20, h[0] + 160, *z), "iron", 0.09)
            for a in np.arange(x[0] + 20, x[1] - 20, 75)
        ]
        return [solid((*x, h[0], h[0] + 180, *z), "polyethylene", 0.05), *springs]
    r = min(h[1] - h[0], x[1] - x[0]) / 2
    return [Disc(x0=x[0], x1=x[0] + 2 * r, h=h[0] + r, z=middle, outer=r, inner=r * 0.1, thick=(z[1] - z[0]),
                 material="polyethylene", g_cm3=0.35)]  # fmt: skip


def _bicycle(x: Span, h: Span, z: float) -> list[Solid]:
    solids: list[Solid] = [
        Disc(x0=a, x1=a + 660, h=h[0] + 330, z=z, outer=330, inner=308, thick=24, material="aluminium", g_cm3=2.7)
        for a in (x[0], x[1] - 660)
    ]
    bars = ((330, 700, 330, 720), (330, 900, 330, 300), (700, 1390, 720, 700), (900, 1390, 300, 700),
            (1280, 1390, 720, 330))  # fmt: skip
    for a, b, low, high in bars:
        solids.append(Strip(x0=x[0] + a, x1=x[0] + b, low=(h[0] + low, h[0] + high), thick=5, z=z,
                            high=(h[0] + low + 32, h[0] + high + 32)))  # fmt: skip
    return solids


def _table(x: Span, h: Span, z: Span) -> list[Solid]:
    middle = sum(z) / 2
    legs: list[Solid] = [
        solid((a, a + 32, *h, middle - 16, middle + 16), "iron", 2.5) for a in (x[0], x[1] - 32)
    ]  # fmt: skip
    return [*legs, solid((*x, h[1] - 30, h[1], *z), "cellulose", 0.6)]


def furniture(rng: Rng, bay: Bay) -> list[Solid]:
    """New furniture: sofas on end, cabinets, flat packs, chairs nested in piles."""
    solids: list[Solid] = []
    for z in (-600.0, 600.0):
        x = bay.x0 + rng.uniform(20, 80)
        while x + 500 < bay.x1:
            choice, wide = int(rng.integers(0, 4)), rng.uniform(450, 1100)
            wide = min(wide, bay.x1 - x - 10)
            tall = rng.uniform(0.6, 0.93) * bay.height
            deep = (z - 520, z + 520)
            solids += _piece(rng, choice, (x, x + wide), (bay.h0, bay.h0 + tall), deep)
            x += wide + rng.uniform(10, 60)
    return solids


def _piece(rng: Rng, choice: int, x: Span, h: Span, z: Span) -> list[Solid]:
    """One pile of furniture: 0 flat packs, 1 sofa on end, 2 cabinets, 3 nested chairs."""
    solids: list[Solid] = []
    w, t = x[1] - x[0], h[1] - h[0]
    if choice == 0:
        thick = rng.uniform(50, 160)
        for low in np.arange(h[0], h[1] - thick, thick + 4):
            box = (x[0] + rng.uniform(0, 25), x[1] - rng.uniform(0, 25), float(low), float(low) + thick, *z)
            solids.append(solid(box, "cellulose", rng.uniform(0.25, 0.5)))
        return solids
    if choice == 1:
        solids.append(solid((*x, *h, *z), "polyethylene", 0.035, (1, 0.1)))
        for a in np.linspace(x[0], x[1] - 45, 3):
            solids.append(solid((float(a), float(a) + 45, *h, *z), "cellulose", 0.12))
        for low in np.linspace(h[0], h[1] - 60, 6):
            solids.append(solid((*x, float(low), float(low) + 35, *z), "cellulose", 0.1))
        for k in np.arange(h[0] + 100, h[1] - 100, 65):
            a = x[0] + 0.3 * w  # springs, seen along their axis
            solids.append(Disc(x0=a, x1=a + 46, h=float(k), z=sum(z) / 2, outer=23, inner=17, thick=700, g_cm3=0.5))
        return solids
    if choice == 2:
        for low in np.arange(h[0], h[1] - 20, t / 6):
            solids.append(solid((*x, float(low), float(low) + 18, *z), "cellulose", 0.62))
        for a in (x[0], x[0] + w / 2, x[1] - 18):
            solids.append(solid((a, a + 18, *h, *z), "cellulose", 0.62))
        solids.append(solid((*x, *h, z[0], z[0] + 6), "cellulose", 0.75))
        return solids
    for k in range(int(t / 85)):
        low = h[0] + 85 * k
        a = x[0] + 3 * k % 60
        solids.append(Strip(x0=a, x1=a + w * 0.8, low=(low + 40, low + 60), high=(low + 52, low + 72), thick=430,
                            z=sum(z) / 2, material="cellulose", g_cm3=0.65))  # fmt: skip
        for leg in (a, a + w * 0.75):
            solids.append(Strip(x0=leg, x1=leg + 60, low=(low, low + 50), high=(low + 22, low + 72), thick=5,
                                z=sum(z) / 2))  # fmt: skip
    return solids


def part_loads(rng: Rng, bay: Bay) -> list[Solid]:
    """Consolidated cargo: three to six consignments of different goods, one after the other."""
    makers = (stacked.cartons, stacked.drums, stacked.bottles, stacked.fabric_rolls, stacked.white_goods, mixed,
              furniture, machinery, plates, stacked.totes)  # fmt: skip
    count = int(rng.integers(2, 4)) if bay.length < 8000 else int(rng.integers(3, 7))
    cuts = np.sort(rng.uniform(0.12, 0.88, count - 1))
    edges = [bay.x0, *(bay.x0 + bay.length * float(c) for c in cuts), bay.x1]
    solids: list[Solid] = []
    for a, b in pairwise(edges):
        if b - a < 1500:
            continue
        part = Bay(x0=a, x1=b - 40, h0=bay.h0, h1=bay.h0 + bay.height * rng.uniform(0.6, 1.0))
        solids += makers[int(rng.integers(0, len(makers)))](rng, part)
    return solids
