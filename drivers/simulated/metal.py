"""Cargo of metal and stone: coils, pipes, plates, ingots, reels, blocks, scrap, machines, car parts and cars."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from .scene import Disc, Pillow, Prism, Solid, Strip, Tube
from .stow import PALLET_MM, Rng, Skyline, pallet, pallets, solid
from .vehicle import RUBBER, STEEL, Bay, wheel


def coils(rng: Rng, bay: Bay) -> list[Solid]:
    """A few heavy coils, axis across or upright, in timber cradles: opaque discs with an eye, or opaque drums."""
    solids: list[Solid] = []
    count, upright = int(rng.integers(3, 7)), rng.random() < 0.35
    aluminium = rng.random() < 0.25
    material, g_cm3 = ("aluminium", 2.6) if aluminium else ("iron", 7.2)
    for x in np.linspace(bay.x0 + 800, bay.x1 - 800, count):
        r, eye, wide = rng.uniform(420, 620), rng.uniform(230, 300), rng.uniform(700, 1200)
        if upright:
            base = bay.h0 + 110
            for radius, sign in ((r, 1.0), (eye, -1.0)):
                solids.append(Prism(x0=x - radius, x1=x + radius, h0=base, h1=base + wide, z0=-radius, z1=radius,
                                    shape="round", material=material, g_cm3=sign * g_cm3))  # fmt: skip
        else:
            h = bay.h0 + 90 + r
            solids.append(Disc(x0=x - r, x1=x + r, h=h, z=0, outer=r, inner=eye, thick=wide, material=material,
                               g_cm3=g_cm3))  # fmt: skip
            for side in (-1, 1):
                a, b = sorted((x + side * 0.45 * r, x + side * 1.05 * r))
                high = (bay.h0 + 90, bay.h0 + 330) if side > 0 else (bay.h0 + 330, bay.h0 + 90)
                solids.append(Strip(x0=a, x1=b, low=(bay.h0, bay.h0), high=high, thick=1400, material="cellulose",
                                    g_cm3=0.5))  # fmt: skip
        solids.append(solid((x - r, x + r, bay.h0, bay.h0 + 85, -1165, 1165), "cellulose", 0.4))
    return solids


def pipes(rng: Rng, bay: Bay) -> list[Solid]:
    """Bundles of steel or plastic pipe along the container, one to three bundles high."""
    solids: list[Solid] = []
    plastic = rng.random() < 0.35
    material, g_cm3 = ("polyethylene", 0.95) if plastic else ("iron", STEEL)
    r = rng.uniform(45, 160) if plastic else rng.uniform(30, 85)
    wall = r * (0.1 if plastic else 0.07)
    length = min(rng.choice((5800.0, 6000.0, 11_600.0)), bay.length - 120)
    tall = (0.8 if plastic else rng.uniform(0.18, 0.32)) * bay.height
    x = bay.x0 + rng.uniform(30, 80)
    while x + length < bay.x1:
        for row in range(max(2, int(tall / (r * 1.74)))):
            for place in range(int(2 * 1100 / (2 * r)) - row % 2):
                z = -1100 + r * (1 + row % 2) + 2 * r * place
                a = x + abs(rng.normal(0, 18))
                solids.append(Tube(x0=a, x1=a + length - 40, h=bay.h0 + 80 + r + row * r * 1.74, z=z, outer=r,
                                   inner=r - wall, material=material, g_cm3=g_cm3))  # fmt: skip
        for bearer in np.arange(x + 400, x + length, 1500.0):
            solids.append(solid((bearer, bearer + 90, bay.h0, bay.h0 + 80, -1150, 1150), "cellulose", 0.55))
            solids.append(solid((bearer, bearer + 32, bay.h0 + 78, bay.h0 + 86 + tall, -1110, -1108), "iron", STEEL))
        x += length + rng.uniform(40, 120)
    return solids


def plates(rng: Rng, bay: Bay) -> list[Solid]:
    """Glass, stone or steel plates on edge in racks: groups of thin dark lines, much free space."""
    solids: list[Solid] = []
    material, g_cm3 = [("ceramic", 2.5), ("ceramic", 2.7), ("iron", STEEL)][rng.integers(0, 3)]
    x = bay.x0 + rng.uniform(150, 600)
    while x + 700 < bay.x1:
        length, high = rng.uniform(400, 1100), rng.uniform(350, 1700) * (0.5 if material == "iron" else 1.0)
        thick, step = rng.uniform(6, 22), rng.uniform(30, 62)
        deep = rng.uniform(500, 1000)
        for a in np.arange(x, x + length, step):
            low = bay.h0 + 150 + rng.normal(0, 2)
            solids.append(solid((a, a + thick, low, low + high * rng.normal(1, 0.004), -deep, deep), material,
                                g_cm3 * 0.12))  # fmt: skip
        frame = (x - 60, x + length + 60)
        solids.append(solid((*frame, bay.h0 + 40, bay.h0 + 150, -deep, deep), "cellulose", 0.3))
        for b in (frame[0], frame[1] - 60):
            solids.append(solid((b, b + 60, bay.h0, bay.h0 + high * rng.uniform(0.5, 1.05), -40, 40), "iron", 1.6))
        x += length + rng.uniform(250, 1600)
    return solids


def ingots(rng: Rng, bay: Bay) -> list[Solid]:
    """Ingots or cathodes of aluminium, zinc, copper or lead on low pallets along the floor."""
    solids: list[Solid] = []
    material, g_cm3, high = [
        ("aluminium", 2.70, 620.0), ("iron", 7.1, 300.0), ("iron", 8.9, 260.0), ("lead", 11.35, 210.0),
    ][rng.integers(0, 4)]  # fmt: skip
    step = rng.uniform(55, 95)
    for x0, x1 in pallets(rng, bay, length=1000.0, gap=220.0):
        solids += pallet(x0, x1, bay.h0)
        for layer in range(int(high * rng.uniform(0.8, 1.1) / step)):
            low = bay.h0 + PALLET_MM + layer * step
            for a in np.linspace(x0 + 30, x1 - 170, 6) if layer % 2 else (x0 + 30,):
                b = a + 140 if layer % 2 else x1 - 30
                box = (a + rng.normal(0, 6), b + rng.normal(0, 6), low, low + step * 0.9, -520, 520)
                solids.append(solid(box, material, g_cm3 * 0.8))
    return solids


def reels(rng: Rng, bay: Bay) -> list[Solid]:
    """Drums of cable standing on their flanges: copper in plastic around an open core."""
    solids: list[Solid] = []
    x = bay.x0 + 40
    while x < bay.x1 - 900:
        r = rng.uniform(420, 1000)
        if x + 2 * r > bay.x1 - 20:
            break
        core, full = r * rng.uniform(0.35, 0.5), r * rng.uniform(0.75, 0.93)
        for z in (-560.0, 560.0) if r < 700 else (0.0,):
            deep = rng.uniform(500, 900)
            at: dict[str, Any] = {"x0": x, "x1": x + 2 * r, "h": bay.h0 + r, "z": z}
            wound: dict[str, Any] = {"outer": full, "inner": core, "thick": deep}
            solids.append(Disc(**at, **wound, g_cm3=rng.uniform(0.9, 2.0)))
            solids.append(Disc(**at, **wound, material="polyethylene", g_cm3=0.5))
            solids.append(Disc(**at, outer=r, inner=60, thick=110, material="cellulose", g_cm3=0.6))
            solids.append(Disc(**at, outer=core, inner=core - 40, thick=deep, material="cellulose", g_cm3=0.6))
        x += 2 * r + rng.uniform(15, 180)
    return solids


def blocks(rng: Rng, bay: Bay) -> list[Solid]:
    """Two to five raw blocks of granite or marble on bearers, much too thick to be seen through."""
    solids: list[Solid] = []
    count = int(rng.integers(2, 6))
    for x in np.linspace(bay.x0 + 250, bay.x1 - 250, count + 1)[:-1] + rng.uniform(0, 200, count):
        length, high, deep = rng.uniform(900, 1700), rng.uniform(600, 1200), rng.uniform(450, 800)
        length = min(length, bay.x1 - x - 50)
        top = bay.h0 + 100 + high
        solids.append(solid((x, x + length, bay.h0 + 100, top - 60, -deep, deep), "ceramic", 2.65))
        knots = np.linspace(x, x + length, 5)
        for a, b in pairwise(knots):  # a rough upper face
            high_at = (top - rng.uniform(0, 55), top - rng.uniform(0, 55))
            solids.append(Strip(x0=a, x1=b, low=(top - 60, top - 60), high=high_at, thick=2 * deep,
                                material="ceramic", g_cm3=2.65))  # fmt: skip
        for bearer in (x + 150, x + length - 250):
            solids.append(solid((bearer, bearer + 100, bay.h0, bay.h0 + 100, -900, 900), "cellulose", 0.6))
    return solids


def scrap(rng: Rng, bay: Bay) -> list[Solid]:
    """A heap of cut steel, sheet, tube, motors and castings, thrown in: no order at all."""
    solids: list[Solid] = []
    knots = np.linspace(bay.x0 + 20, bay.x1 - 60, 24)
    pile = rng.uniform(0.25, 0.45) * bay.height * (1 + np.cumsum(rng.normal(0, 0.06, 24)))
    pile = np.clip(pile, 250, 0.62 * bay.height)
    for _ in range(int(bay.length / 14)):
        x = rng.uniform(bay.x0 + 20, bay.x1 - 250)
        limit = float(np.interp(x, knots, pile))
        h, z = bay.h0 + limit * rng.beta(1.1, 1.2), rng.uniform(-1000, 1000)
        size = float(np.exp(rng.uniform(np.log(60), np.log(700))))
        x1 = min(x + size, bay.x1 - 30)
        tilt = rng.normal(0, 0.5) * (x1 - x)
        h1 = float(np.clip(h + tilt, bay.h0 + 5, bay.h1 - 100))
        solids.append(_piece(rng, (x, x1), (h, h1), z, bay))
    base = [solid((a, b, bay.h0, bay.h0 + 0.45 * float(p), -1150, 1150), "iron", rng.uniform(0.12, 0.4), (2, 0.45))
            for a, b, p in zip(knots[:-1], knots[1:], pile, strict=False)]  # fmt: skip
    return base + solids


def _piece(rng: Rng, x: tuple[float, float], h: tuple[float, float], z: float, bay: Bay) -> Solid:
    """Return one piece of scrap from (x0, h0) to (x1, h1)."""
    choice, size = rng.random(), x[1] - x[0]
    low = max(min(h), bay.h0 + 5)
    if choice < 0.45:  # bar, angle or torn plate
        thin = rng.uniform(8, 60)
        return Strip(x0=x[0], x1=x[1], low=h, high=(h[0] + thin, h[1] + thin), thick=rng.uniform(3, 60), z=z)
    if choice < 0.65:
        r = rng.uniform(15, 60)
        return Tube(x0=x[0], x1=x[1], h=low + r, z=z, outer=r, inner=r * 0.85)
    if choice < 0.8:
        r = min(size / 2, 160.0)
        return Disc(x0=x[0], x1=x[0] + 2 * r, h=low + r, z=z, outer=r, inner=r * rng.uniform(0.1, 0.9),
                    thick=rng.uniform(4, 60))  # fmt: skip
    if choice < 0.92:
        return Pillow(x0=x[0], x1=x[0] + min(size, 260), h=low + 90, z=z, rh=rng.uniform(40, 110), rz=120,
                      g_cm3=rng.uniform(2, 5), power=4)  # fmt: skip
    return solid((*x, low, low + rng.uniform(100, 500), z, z + rng.uniform(1, 3)), "iron", STEEL)


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
        solids.append(solid((x, x + 100, bay.h0, h0, -900, 900), "cellulose", 0.55))
    bed = h0 + rng.uniform(0.15, 0.4) * tall
    solids.append(solid((x0 + 60, x1 - 60, h0 + 140, bed, -depth, depth), "iron", rng.uniform(0.2, 0.6), (2, 0.15)))
    for z in (-depth, depth):
        solids.append(solid((x0, x1, h0, h0 + 140, z - 60, z + 60), "iron", 2.2))
        for x in np.linspace(x0, x1 - 90, int(rng.integers(2, 5))):
            solids.append(solid((x, x + 90, h0, h0 + tall, z - 45, z + 45), "iron", 1.9))
        solids.append(solid((x0, x1, h0 + tall - 90, h0 + tall, z - 45, z + 45), "iron", 1.9))
    for _ in range(int(rng.integers(18, 40))):
        w = float(np.exp(rng.uniform(np.log(60), np.log(0.45 * (x1 - x0)))))
        t = float(np.exp(rng.uniform(np.log(50), np.log(0.4 * tall))))
        a, h = rng.uniform(x0, x1 - w), rng.uniform(h0 + 60, h0 + tall - t)
        solids += _part(rng, int(rng.integers(0, 5)), (a, h), (w, t), rng.uniform(80, depth))
    return solids


def _part(rng: Rng, choice: int, at: tuple[float, float], size: tuple[float, float], depth: float) -> list[Solid]:
    """One part of a machine: 0 housing, 1 wheel, 2 cylinder with shaft, 3 motor, 4 pipe or cable duct."""
    (a, h), (w, t) = at, size
    if choice == 0:
        return [
            solid((a, a + w, h, h + t, -depth, depth), "iron", rng.uniform(0.05, 0.5), (2, 0.1)),
            solid((a, a + 20, h, h + t, -depth, depth), "iron", 1.0),
            solid((a + w - 20, a + w, h, h + t, -depth, depth), "iron", 1.0),
        ]
    if choice == 1:
        r = min(w, t) / 2
        thick = rng.uniform(40, 200)
        return [
            Disc(x0=a, x1=a + 2 * r, h=h + r, z=0.0, outer=outer * r, inner=inner * r, thick=share * thick)
            for outer, inner, share in ((1.0, 0.86, 1.0), (0.86, 0.3, 0.12), (0.3, 0.12, 0.9))
        ]
    if choice == 2:
        wall = min(15.0, t / 6)
        return [
            Tube(x0=a, x1=a + w, h=h + t / 2, z=0, outer=t / 3, inner=t / 3 - wall),
            Tube(x0=a - 60, x1=a + w + 60, h=h + t / 2, z=0, outer=min(35.0, t / 5)),
        ]
    if choice == 3:
        z = depth / 2
        r = min(t / 2.5, 240.0)
        box = (a + 0.2 * w, a + 0.5 * w, h + t / 2 + r, h + t / 2 + 1.3 * r, z - 60, z + 60)
        return [
            Tube(x0=a, x1=a + w, h=h + t / 2, z=z, outer=r, g_cm3=rng.uniform(2.0, 4.5)),
            solid(box, "iron", 1.0),
        ]
    z = rng.uniform(-depth, depth)
    r = rng.uniform(10, 40)
    upright = (a, a + 2 * r, h, h + t)
    return [solid((*upright, z - r, z + r), "iron", 2.0), Tube(x0=a, x1=a + w, h=h + t, z=z, outer=r, inner=r * 0.8)]


def car_parts(rng: Rng, bay: Bay) -> list[Solid]:
    """Used parts of cars: engines, gearboxes, axles, doors, wheels, seats, radiators, thrown together."""
    solids: list[Solid] = []
    for z in (-760.0, 0.0, 760.0):
        skyline = Skyline(bay)
        ceiling = bay.h0 + rng.uniform(0.45, 0.85) * bay.height
        for _ in range(int(bay.length / 60)):
            choice = int(rng.choice(6, p=(0.3, 0.16, 0.18, 0.16, 0.1, 0.1)))
            usual = ((620.0, 560.0), (1150.0, 720.0), (640.0, 640.0), (900.0, 260.0), (560.0, 880.0), (700.0, 480.0))
            w, t = (size * rng.uniform(0.8, 1.15) for size in usual[choice])
            x = skyline.lowest(rng, w, tries=9)
            h = skyline.nested((x, x + w)) + 5
            if h + t > ceiling:
                continue
            skyline.put((x, x + w), h + 0.8 * t)
            solids += _used(rng, choice, (x, x + w), (h, h + t), z)
    return solids


def _used(rng: Rng, choice: int, x: tuple[float, float], h: tuple[float, float], z: float) -> list[Solid]:
    """One used part: 0 engine, 1 door, 2 wheel, 3 axle, 4 seat, 5 radiator or gearbox."""
    w, t = x[1] - x[0], h[1] - h[0]
    if choice == 0:
        return engine(rng, x, h, z)
    if choice == 1:
        skin = Strip(x0=x[0], x1=x[1], low=(h[0], h[0]), high=(h[0] + 0.6 * t, h[1]), thick=2.2, z=z)
        low, high = (h[0] + 120, h[0] + 300), (h[0] + 150, h[0] + 330)
        bar = Strip(x0=x[0] + 40, x1=x[1] - 40, low=low, high=high, thick=6, z=z)
        lock = solid((x[1] - 90, x[1] - 20, h[0] + 0.5 * t, h[0] + 0.6 * t, z - 20, z + 20), "iron", 3.5)
        return [skin, bar, lock]
    if choice == 2:
        r = min(w, t) / 2
        middle = x[0] + r
        return [
            Disc(x0=middle - r, x1=middle + r, h=h[0] + r, z=z, outer=o * r, inner=i * r, thick=d, material=m, g_cm3=g)
            for o, i, d, m, g in ((1.0, 0.62, 60, "polyethylene", RUBBER), (0.98, 0.9, 12, "iron", STEEL),
                                  (0.64, 0.56, 28, "iron", STEEL), (0.56, 0.2, 6, "iron", STEEL))
        ]  # fmt: skip
    if choice == 3:
        r = min(t / 2, 110.0)
        tube = Tube(x0=x[0], x1=x[1], h=h[0] + r, z=z, outer=42, inner=33)
        bell = Pillow(x0=x[0] + 0.35 * w, x1=x[0] + 0.62 * w, h=h[0] + r, z=z, rh=r, rz=120, g_cm3=4.5)
        return [tube, bell]
    if choice == 4:
        foam = [(x[0], x[1], h[0] + 80, h[0] + 220), (x[1] - 170, x[1], h[0] + 200, h[1])]
        frame = Strip(x0=x[0], x1=x[1], low=(h[0], h[0]), high=(h[0] + 45, h[0] + 45), thick=14, z=z)
        return [solid((*box, z - 230, z + 230), "polyethylene", 0.06) for box in foam] + [frame]
    core = solid((*x, *h, z - 30, z + 30), "aluminium", rng.uniform(0.6, 1.2), (3, 0.1))
    box = Pillow(x0=x[0], x1=x[0] + 0.6 * w, h=h[0] + 0.4 * t, z=z + 120, rh=0.38 * t, rz=130, g_cm3=3.0, power=4)
    return [core] if rng.random() < 0.5 else [box]


def engine(rng: Rng, x: tuple[float, float], h: tuple[float, float], z: float) -> list[Solid]:
    """Return an engine: block with bores, head, sump, pulley, gearbox."""
    w, t = x[1] - x[0], h[1] - h[0]
    deep = rng.uniform(150, 240)
    block = (x[0] + 0.1 * w, x[0] + 0.72 * w, h[0] + 0.25 * t, h[0] + 0.75 * t, z - deep, z + deep)
    solids: list[Solid] = [solid(block, "iron", rng.uniform(2.2, 3.4))]
    for k in range(4):
        a = x[0] + (0.13 + 0.145 * k) * w
        solids.append(solid((a, a + 0.1 * w, h[0] + 0.4 * t, h[0] + 0.75 * t, z - 40, z + 40), "iron", -2.2))
    head = (x[0] + 0.08 * w, x[0] + 0.74 * w, h[0] + 0.75 * t, h[1], z - 0.8 * deep, z + 0.8 * deep)
    solids.append(solid(head, "aluminium", 1.3, (3, 0.2)))
    sump = (x[0] + 0.15 * w, x[0] + 0.7 * w, h[0], h[0] + 0.25 * t, z - 120, z + 120)
    solids.append(solid(sump, "iron", 0.5))
    r = 0.14 * t
    solids.append(Tube(x0=x[0], x1=x[0] + 0.1 * w, h=h[0] + 0.35 * t, z=z, outer=r, g_cm3=4.0))
    solids.append(Pillow(x0=x[0] + 0.66 * w, x1=x[1], h=h[0] + 0.42 * t, z=z, rh=0.3 * t, rz=150, g_cm3=2.2))
    return solids


def car(rng: Rng, x0: float, ground: float, z: float = 0.0, *, van: bool = False) -> list[Solid]:
    """Return a car or a van, front at x0, with its wheels on `ground`: body sheets, glass, engine, seats, tank."""
    length, tall = (rng.uniform(5000, 6000), rng.uniform(2200, 2600)) if van else (
        rng.uniform(3900, 4800), rng.uniform(1400, 1650))  # fmt: skip
    half, r = (950.0 if van else 820.0), (350.0 if van else 315.0)
    x1, sill, waist = x0 + length, ground + 220, ground + (1150 if van else 0.62 * tall)
    roof = ground + tall
    a, b, c, d = (x0 + length * f for f in ((0.12, 0.24, 0.99, 1.0) if van else (0.24, 0.4, 0.72, 0.92)))
    solids: list[Solid] = []
    for side in (-half, half):
        low, over = (sill, sill), (sill + 90, sill + 90)
        solids.append(Strip(x0=x0, x1=x1, low=low, high=(waist - 120, waist), thick=2.4, z=z + side))
        solids.append(Strip(x0=x0 + 200, x1=x1 - 200, low=low, high=over, thick=9, z=z + side))
        for p, q, u, v in ((a, b, waist, roof), (c, d, roof, waist)):  # pillars
            solids.append(Strip(x0=p, x1=q, low=(u - 40, v - 40), high=(u + 40, v + 40), thick=8, z=z + side))
        if van:
            solids.append(Strip(x0=b + 300, x1=c, low=(waist, waist), high=(roof, roof), thick=1.6, z=z + side))
        for p in (x0 + 0.19 * length, x1 - 0.2 * length):
            solids += [_lifted(s, ground) for s in wheel(p, r, z + side * 0.93, 190)]
    solids.append(Prism(x0=b, x1=c, h0=roof - 12, h1=roof, z0=z - half, z1=z + half, g_cm3=0.5))
    solids.append(Prism(x0=x0 + 150, x1=x1 - 150, h0=sill, h1=sill + 30, z0=z - half, z1=z + half, g_cm3=0.5))
    for p, q in ((x0 + 60, waist - 130), (x1 - 80, waist - 10)):
        solids.append(Prism(x0=p, x1=p + 40, h0=sill, h1=q, z0=z - half, z1=z + half, g_cm3=0.12))
    solids += engine(rng, (x0 + 220, x0 + 950), (ground + 330, ground + 850), z)
    tank = (x1 - 0.34 * length, x1 - 0.2 * length, sill + 40, sill + 260, z - 400, z + 400)
    solids.append(solid(tank, "cellulose", rng.uniform(0.1, 0.7)))
    for seat in (x0 + 0.42 * length,) if van else (x0 + 0.42 * length, x0 + 0.62 * length):
        for a, b, low_h, high_h in ((0, 520, 420, 560), (430, 600, 540, 1050)):
            box = (seat + a, seat + b, ground + low_h, ground + high_h, z - 600, z + 600)
            solids.append(solid(box, "polyethylene", 0.05))
        solids.append(solid((seat, seat + 560, ground + 390, ground + 415, z - 550, z + 550), "iron", 0.2))
    return solids


def _lifted(part: Solid, ground: float) -> Solid:
    """Return a wheel's part lifted to a floor at height `ground`."""
    return msgspec.structs.replace(part, h=part.h + ground)  # type: ignore[attr-defined]


def cars(rng: Rng, bay: Bay) -> list[Solid]:
    """One to three used cars, one behind the other, sometimes filled with parts."""
    solids: list[Solid] = []
    x = bay.x0 + rng.uniform(80, 250)
    while x + 4900 < bay.x1 + 100:
        one = car(rng, x, bay.h0)
        end = max(s.x1 for s in one)
        if end > bay.x1 - 20:
            break
        solids += one if rng.random() < 0.7 else [s.mirrored((x + end) / 2) for s in one]
        if rng.random() < 0.35:
            for _ in range(int(rng.integers(3, 9))):
                a = rng.uniform(x + 1700, end - 1300)
                solids.append(Pillow(x0=a, x1=a + rng.uniform(300, 700), h=bay.h0 + rng.uniform(550, 950), z=0, rh=170,
                                     rz=300, power=4, material="cellulose", g_cm3=rng.uniform(0.08, 0.3),
                                     texture=(2, 0.2)))  # fmt: skip
        x = end + rng.uniform(80, 400)
    return solids
