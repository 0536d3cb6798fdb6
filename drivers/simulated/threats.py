"""Threats."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .scene import Prism, Solid, Strip
from .vehicle import Bay

Rng = np.random.Generator


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
