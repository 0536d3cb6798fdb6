"""What does not belong in a load: built from solids, in its place among the goods.

A family of its own: things of a size, a material and a depth along the beam, which take the place of goods or lie in
free space, so that hardening, scatter, blur and noise come out of the same physics as the rest of the picture. It knows
nothing of the multiplicative insertions by which judgement is trained or measured elsewhere, and they nothing of it.

A threat is a function `(rng, bay, load) -> Threat or None`; None where it cannot be, as a void in an empty container.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from .scene import Extent, Heap, Pillow, Prism, Solid, Strip
from .stow import Rng, Skyline, solid
from .vehicle import Bay

Place = tuple[float, float, float]
"""Least x, h and z of a thing, mm."""


class Threat(NamedTuple):
    """The load with the threat in it. box : what it takes up, mm."""

    load: list[Solid]
    box: Extent


def carved(load: Sequence[Solid], box: Extent) -> list[Solid]:
    """Return the load with room in it for `box`.

    A thing that lies mostly inside goes; of a larger one the part inside is taken away.
    """
    left: list[Solid] = []
    for one in load:
        e = one.extent
        inner = tuple(f(a, b) for f, a, b in zip((max, min) * 3, e, box, strict=True))
        sizes = [max(inner[k + 1] - inner[k], 0.0) / max(e[k + 1] - e[k], 1e-6) for k in (0, 2, 4)]
        share = float(np.prod(sizes))
        if share > 0.5:
            continue
        left.append(one)
        if share > 0 and one.g_cm3 > 0:
            left += _hole(one, inner, sizes)
    return left


def _hole(one: Solid, inner: tuple[float, ...], sizes: Sequence[float]) -> list[Solid]:
    """Return what takes the part `inner` out of a solid; nothing where its shape does not allow to tell the part."""
    x0, x1, h0, h1, z0, z1 = inner
    if isinstance(one, Heap):
        knots = np.linspace(one.x0, one.x1, len(one.heights))
        h1 = min(h1, float(np.interp(np.linspace(x0, x1, 9), knots, one.heights).min()))
        if h1 <= h0:
            return []
    elif isinstance(one, Pillow):
        # Only well inside: near its edge an ellipsoid is thinner than its extent.
        if max(sizes) > 0.75:
            return []
    elif not isinstance(one, Prism):
        return []
    hole = Prism(x0=x0, x1=x1, h0=h0, h1=h1, z0=z0, z1=z1, material=one.material, g_cm3=-one.g_cm3,
                 texture=one.texture)  # fmt: skip
    return [hole]


def _skyline(bay: Bay, load: Sequence[Solid]) -> Skyline:
    skyline = Skyline(bay)
    skyline.add(load)
    return skyline


def _place(rng: Rng, bay: Bay, load: Sequence[Solid], size: Place) -> Place:
    """Return a place inside the goods, or on the floor or on low goods where none are high enough."""
    w, t, d = size
    skyline = _skyline(bay, load)
    z = float(rng.uniform(-1120, 1120 - d))
    x = float(rng.uniform(bay.x0 + 40, bay.x1 - w - 60))
    for _ in range(30):
        top = skyline.top((x + 0.5 * w - 60, x + 0.5 * w + 60))
        if top - bay.h0 > t + 200:
            return x, float(rng.uniform(bay.h0 + 20, top - t - 40)), z
        x = float(rng.uniform(bay.x0 + 40, bay.x1 - w - 60))
    return x, min(skyline.top((x, x + w)) + 5, bay.h1 - t), z


def _inside(rng: Rng, bay: Bay, load: Sequence[Solid], size: Place) -> tuple[list[Solid], Extent]:
    """Return the load with room for a thing of this size, and the room."""
    x, h, z = _place(rng, bay, load, size)
    box = (x, x + size[0], h, h + size[1], z, z + size[2])
    return carved(load, box), box


def _log(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def dense_block(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """A block of lead, tungsten or steel among the goods, 40 to 320 mm."""
    material, density = [("lead", 11.35), ("tungsten", 17.0), ("iron", 7.87)][rng.integers(0, 3)]
    rest, box = _inside(rng, bay, load, (_log(rng, 50, 320), _log(rng, 45, 260), _log(rng, 30, 220)))
    return Threat([*rest, solid(box, material, density)], box)


def lead_box(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """A shielding pot: a lead shell around a small cavity."""
    side, wall = rng.uniform(150, 320), rng.uniform(20, 60)
    rest, box = _inside(rng, bay, load, (side, side, side))
    x, _, h, _, z, _ = box
    inner = (x + wall, x + side - wall, h + wall, h + side - wall, z + wall, z + side - wall)
    return Threat([*rest, solid(box, "lead", 11.35), solid(inner, "lead", -11.35)], box)


def brick_stack(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """Wrapped bricks of pressed powder or leaves, stacked among the goods."""
    nx, nh = int(rng.integers(2, 7)), int(rng.integers(2, 9))
    w, t, density = rng.uniform(150, 260), rng.uniform(45, 90), rng.uniform(0.75, 1.3)
    rest, box = _inside(rng, bay, load, (nx * w, nh * t, rng.uniform(200, 900)))
    x, _, h, _, z0, z1 = box
    bricks: list[Solid] = [
        solid((x + i * w + 3, x + (i + 1) * w - 3, h + j * t + 2, h + (j + 1) * t - 2, z0, z1), "cellulose",
              density * rng.normal(1, 0.03))
        for i in range(nx)
        for j in range(nh)
    ]  # fmt: skip
    return Threat([*rest, *bricks], box)


def metal_shapes(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """Long thin metal objects with stocks, in a bundle, or thin plate; it fits between goods and displaces none."""
    count = int(rng.integers(2, 9))
    x, h, z = _place(rng, bay, load, (1000.0, count * 75.0 + 60, 50.0))
    solids: list[Solid] = []
    for i in range(count):
        low = h + 50 + 75 * i
        tilt = rng.normal(0, 12)
        solids.append(Strip(x0=x + 330, x1=x + rng.uniform(850, 980), low=(low, low + tilt),
                            high=(low + 26, low + 26 + tilt), thick=22, z=z))  # fmt: skip
        solids.append(Strip(x0=x + 230, x1=x + 520, low=(low - 12, low - 8), high=(low + 42, low + 38), thick=28, z=z))
        solids.append(Strip(x0=x, x1=x + 240, low=(low - 45, low - 10), high=(low + 40, low + 35), thick=40, z=z,
                            material="cellulose", g_cm3=0.9))  # fmt: skip
    return Threat([*load, *solids], (x, x + 980, h, h + 75 * count + 60, z, z + 50))


def void(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """Goods are missing inside a stack: a hollow that is not seen from the doors."""
    size = (_log(rng, 350, 1400), _log(rng, 300, 1000), rng.uniform(500, 1600))
    x, h, z = _place(rng, bay, load, size)
    box = (x, x + size[0], h, h + size[1], z, z + size[2])
    rest = carved(load, box)
    gone = sum(s.mass_kg for s in load) - sum(s.mass_kg for s in rest)
    return Threat(rest, box) if gone > 15 else None


def extra_item(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """One more thing in free space: a case, a bag, a tool box or a canister on top of the goods or on the floor."""
    w, t, d = rng.uniform(250, 900), rng.uniform(180, 500), rng.uniform(200, 600)
    skyline = _skyline(bay, load)
    for _ in range(40):
        x = float(rng.uniform(bay.x0 + 40, bay.x1 - w - 60))
        h = skyline.top((x, x + w)) + 4
        if h + t < bay.h1 - 20:
            break
    else:
        return None
    z = float(rng.uniform(-1100, 1100 - d))
    box = (x, x + w, h, h + t, z, z + d)
    choice = int(rng.integers(0, 4))
    if choice == 0:
        return Threat([*load, solid(box, "cellulose", rng.uniform(0.2, 0.9), (3, 0.1))], box)
    if choice == 1:
        return Threat([*load, _bag(box, rng.uniform(0.25, 0.8))], box)
    if choice == 2:
        shell = [solid((x, x + w, h, h + t, z + side, z + side + 2), "iron", 7.87) for side in (0.0, d - 2)]
        tools = [solid((a, a + 0.12 * w, h + 5, h + rng.uniform(0.2, 0.8) * t, z + 30, z + 70), "iron", 5.0)
                 for a in rng.uniform(x, x + 0.85 * w, 5)]  # fmt: skip
        return Threat([*load, *shell, *tools], box)
    return Threat([*load, solid(box, "water", rng.uniform(0.7, 1.0))], box)


def _bag(box: Extent, g_cm3: float) -> Pillow:
    x0, x1, h0, h1, z0, z1 = box
    return Pillow(x0=x0, x1=x1, h=(h0 + h1) / 2, z=(z0 + z1) / 2, rh=(h1 - h0) / 2, rz=(z1 - z0) / 2, power=4,
                  material="cellulose", g_cm3=g_cm3, texture=(3, 0.15))  # fmt: skip


def door_bags(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """One to six sports bags just behind the doors, where they are put in and taken out without unloading."""
    count, w = int(rng.integers(1, 7)), rng.uniform(380, 720)
    t, d = rng.uniform(220, 340), rng.uniform(260, 420)
    x = bay.x1 - w - rng.uniform(10, 60)
    across = min(count, int(2200 / d))
    tiers = -(-count // across)
    skyline = _skyline(bay, load)
    free = skyline.top((x, x + w)) + t * tiers < bay.h1
    h = skyline.top((x, x + w)) + 5 if free and rng.random() < 0.5 else bay.h0 + 5
    z = float(rng.uniform(-1110, 1110 - across * d))
    box = (x, x + w, h, h + tiers * t, z, z + across * d)
    bags = [
        _bag((x + rng.uniform(0, 30), x + w - rng.uniform(0, 30), h + k // across * t, h + (k // across + 1) * t,
              z + k % across * d, z + (k % across + 1) * d), rng.uniform(0.35, 0.9))
        for k in range(count)
    ]  # fmt: skip
    return Threat([*carved(load, box), *bags], box)


def person(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """Somebody who lies on the goods, or sits on the floor of a container that is not full."""
    skyline = _skyline(bay, load)
    long, wide = rng.uniform(1500, 1850), rng.uniform(400, 500)
    for _ in range(60):
        x = float(rng.uniform(bay.x0 + 50, bay.x1 - long - 50))
        h = skyline.top((x, x + long)) + 5
        if bay.h1 - h > 420:
            break
    else:
        return None
    z = float(rng.uniform(-800, 800))
    if bay.h1 - h > 1100 and rng.random() < 0.5:
        parts = ((0.0, 0.32, 0, 620, 1.0), (0.02, 0.2, 620, 880, 0.75), (0.12, 0.55, 0, 210, 0.7))  # seated
    else:
        parts = ((0.14, 0.48, 0, 250, 1.0), (0.0, 0.14, 40, 240, 0.55), (0.46, 1.0, 10, 180, 0.7))
    body: list[Solid] = [
        Pillow(x0=x + a * long, x1=x + b * long, h=h + (low + high) / 2, z=z, rh=(high - low) / 2, rz=share * wide / 2,
               power=2 if k == 1 else 4, material="water", g_cm3=1.0)
        for k, (a, b, low, high, share) in enumerate(parts)
    ]  # fmt: skip
    e = np.array([s.extent for s in body])
    box = tuple(float(v) for pair in zip(e.min(axis=0)[::2], e.max(axis=0)[1::2], strict=True) for v in pair)
    return Threat([*load, *body], box)  # type: ignore[arg-type]  # six numbers


def false_wall(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """A second wall at the front, sometimes at the doors, with goods or nothing behind it: the room inside is short."""
    depth = rng.uniform(220, 650)
    front = rng.random() < 0.75
    x0, x1 = (bay.x0, bay.x0 + depth) if front else (bay.x1 - depth, bay.x1)
    box = (x0, x1, bay.h0, bay.h1 - 20, -1160.0, 1160.0)
    at = x1 if front else x0 - 8
    added: list[Solid] = [solid((at, at + 8, bay.h0, bay.h1, -1165, 1165), "iron", 0.8)]
    for z in (-900.0, 0.0, 900.0):
        added.append(solid((at - 50, at, bay.h0, bay.h1, z - 25, z + 25), "iron", 1.2))
    if rng.random() < 0.8:
        tall = rng.uniform(0.5, 0.98) * bay.height
        hidden = (x0 + 10, x1 - 20, bay.h0, bay.h0 + tall, -1130.0, 1130.0)
        added.append(solid(hidden, "cellulose", rng.uniform(0.3, 0.8), (2, 0.08)))
    return Threat([*carved(load, box), *added], box)


def roof_void(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """A false ceiling with flat packets above it."""
    length = rng.uniform(1500, 4000)
    x = rng.uniform(bay.x0 + 100, bay.x1 - length - 100)
    box = (x, x + length, bay.h1 - 20, bay.h1 + 50, -1100.0, 1100.0)
    sheet = Prism(x0=x, x1=x + length, h0=bay.h1 - 24, h1=bay.h1 - 22, z0=-1150, z1=1150)
    return Threat([*load, solid(box, "cellulose", rng.uniform(0.2, 0.5)), sheet], box)


def undeclared(rng: Rng, bay: Bay, load: list[Solid]) -> Threat | None:
    """A small consignment in a container that is declared empty: cartons, sacks, drums or loose bags on the floor."""
    goods: list[Solid] = []
    start = float(rng.uniform(bay.x0 + 30, bay.x1 - 1200))
    end = min(start + _log(rng, 600, 5000), bay.x1 - 60)
    tall = _log(rng, 200, 0.8 * bay.height)
    choice, density = int(rng.integers(0, 3)), _log(rng, 0.08, 0.8)
    w, t, d = rng.uniform(280, 620), rng.uniform(200, 420), rng.uniform(300, 800)
    for x in np.arange(start, end - 0.5 * w, w * 1.04):
        for z in np.arange(-1120, 1120 - d, d * 1.05):
            for k in range(max(1, int(tall * rng.uniform(0.7, 1.0) / t))):
                a, h = float(x) + rng.normal(0, 8), bay.h0 + k * t
                room = (a, min(a + w, bay.x1 - 20), h, h + t * 0.98, float(z), float(z) + d)
                if choice == 0:
                    goods.append(solid(room, "cellulose", density * rng.normal(1, 0.05), (3, 0.08)))
                elif choice == 1:
                    goods.append(_bag(room, density))
                elif k == 0 or rng.random() < 0.9:
                    drum = solid(room, "water", density)
                    goods.append(msgspec.structs.replace(drum, shape="round"))
    e = np.array([s.extent for s in goods])
    box = tuple(float(v) for pair in zip(e.min(axis=0)[::2], e.max(axis=0)[1::2], strict=True) for v in pair)
    return Threat([*load, *goods], box)  # type: ignore[arg-type]  # six numbers


UNDECLARED = "declared_empty"
"""The threat that is one by its papers alone: the container is empty but for it and declared empty."""

THREATS: dict[str, Callable[[Rng, Bay, list[Solid]], Threat | None]] = {
    "dense_block": dense_block,
    "lead_box": lead_box,
    "brick_stack": brick_stack,
    "metal_shapes": metal_shapes,
    "void": void,
    "extra_item": extra_item,
    "false_wall": false_wall,
    "door_bags": door_bags,
    "person": person,
    "roof_void": roof_void,
    UNDECLARED: undeclared,
}
"""Kinds of threat."""
