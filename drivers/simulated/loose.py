"""Cargo without a form of its own: sacks, big bags, heaps, liners and flexitanks."""

from __future__ import annotations

from typing import Any

import numpy as np

from .scene import Heap, Pillow, Prism, Solid, Tube
from .stow import Rng, Span, columns, heights_along, solid
from .vehicle import Bay


def sacks(rng: Rng, bay: Bay) -> list[Solid]:
    """Sacks piled crosswise from the floor, the piles leaning on each other."""
    length, high = rng.uniform(560, 820), rng.uniform(130, 185)
    density = rng.uniform(0.55, 0.78)
    gap = rng.uniform(3, 30)
    full = rng.uniform(0.6, 0.92) if bay.length < 8000 else rng.uniform(0.5, 0.82)
    shares = heights_along(rng, bay, length + gap, full, rough=0.025, door=0.3)

    def make(x: Span, h: Span) -> list[Solid]:
        low, lies = max(x[0] - 30 + rng.normal(0, 14), bay.x0), (h[0] + h[1]) / 2 + rng.normal(0, 6)
        return [
            Pillow(x0=low, x1=x[1] + 30 + rng.normal(0, 14), h=max(lies, bay.h0 + high * 0.5), z=z, rh=high * 0.56,
                   rz=560, power=4, material="cellulose", g_cm3=density * rng.normal(0.86, 0.03), texture=(2, 0.05))
            for z in (-580.0, 580.0)
        ]  # fmt: skip

    return columns(rng, bay, make, width=length, high=high * 0.87, shares=shares, gap=gap, wander=14.0)


def big_bags(rng: Rng, bay: Bay) -> list[Solid]:
    """Flexible bags of about a tonne, two abreast and two high, slumped into each other, tops gathered."""
    solids: list[Solid] = []
    wide, high = rng.uniform(880, 1060), rng.uniform(0.38, 0.48) * bay.height
    density = rng.uniform(0.5, 0.95)
    tiers = 2 if rng.random() < 0.85 else 1
    x = bay.x0 + rng.uniform(10, 60)
    while x + wide < bay.x1:
        for tier in range(tiers if x + 2 * wide < bay.x1 or rng.random() < 0.6 else 1):
            for z in (-575.0, 575.0):
                w, t = wide * rng.normal(1.04, 0.02), high * rng.normal(1, 0.03)
                a, h = x + rng.normal(0, 22), bay.h0 + tier * high * 0.93 + t / 2
                g = density * rng.normal(1, 0.03)
                solids.append(Pillow(x0=a, x1=a + w, h=h, z=z, rh=t / 2, rz=545, power=8, material="cellulose",
                                     g_cm3=g, texture=(0, 0.03)))  # fmt: skip
                for _ in range(2):  # folds of the gathered top
                    b, c = a + rng.uniform(0, 0.4) * w, rng.uniform(0.4, 0.6) * w
                    solids.append(Pillow(x0=b, x1=b + c, h=h + t * 0.46, z=z, rh=t * rng.uniform(0.08, 0.16), rz=480,
                                         material="cellulose", g_cm3=g * 0.7))  # fmt: skip
        x += wide * rng.uniform(0.98, 1.03)
    return solids


def bulk(rng: Rng, bay: Bay) -> list[Solid]:
    """Loose grain, meal or powder: cones under the spouts it ran from, or a liner blown full from the doors."""
    blown = rng.random() < 0.5
    grain: dict[str, Any] = {
        "h0": bay.h0,
        "material": "cellulose",
        "g_cm3": rng.uniform(0.55, 0.8),
        "texture": (2, 0.015),
    }
    end = bay.x1 - rng.uniform(60, 300)
    x = np.linspace(bay.x0 + 10, end, 120)
    share = (x - x[0]) / (x[-1] - x[0])
    if blown:
        full = rng.uniform(0.72, 0.97) * bay.height
        tops = full * (1 - rng.uniform(0.12, 0.4) * np.clip((share - rng.uniform(0.2, 0.5)) / 0.6, 0, 1) ** 1.5)
        # The bag bulges between its ends.
        tops *= np.clip(1 - (2 * share - 1) ** 16 * rng.uniform(0.2, 0.7), 0, 1)
    else:
        count = max(1, round(bay.length / rng.uniform(1900, 4800)))
        spouts = (np.arange(count) + 0.5) / count + rng.normal(0, 0.06 / count, count)
        peak, slope = rng.uniform(0.55, 0.82) * bay.height, np.tan(np.radians(rng.uniform(24, 36)))
        cones = [peak * rng.uniform(0.9, 1.03) - slope * np.abs(x - x[0] - s * (end - x[0])) for s in spouts]
        tops = np.maximum(np.max(cones, axis=0), rng.uniform(20, 90))
        kernel = np.hanning(9)
        tops = np.convolve(np.pad(tops, 4, "edge"), kernel / kernel.sum(), "valid")
    tops = tops + np.interp(x, np.linspace(x[0], end, 40), rng.normal(0, 6, 40))
    heights = tuple(float(h) for h in np.clip(bay.h0 + tops, bay.h0 + 20, bay.h1 - 10))
    heap = Heap(x0=bay.x0 + 10, x1=end, heights=heights, **grain)
    bars = [Tube(x0=end, x1=end + 50, h=bay.h0 + h, z=0, outer=30, g_cm3=4.0) for h in (300, 800, 1300)]
    liner = Prism(x0=end, x1=end + 12, h0=bay.h0, h1=bay.h1 - 150, material="polyethylene", g_cm3=0.3)
    return [heap, liner, *bars]


def flexitank(rng: Rng, bay: Bay) -> list[Solid]:
    """A bag of wine, oil or latex on the floor of a 20 ft container: level on top, rounded at its ends."""
    fill = rng.uniform(1050, 1480)
    x = np.linspace(bay.x0 + 60, bay.x1 - rng.uniform(120, 260), 80)
    u = np.linspace(-1, 1, 80)
    tops = fill * np.clip(1 - np.abs(u) ** rng.uniform(14, 26), 0, 1) ** 0.5 + 3 * np.sin(x / 300)
    heights = tuple(float(h) for h in bay.h0 + np.maximum(tops, 12))
    solids: list[Solid] = [
        Heap(x0=float(x[0]), x1=float(x[-1]), h0=bay.h0, heights=heights, z0=-1120, z1=1120, material="water",
             g_cm3=rng.uniform(0.9, 1.05)),
        Prism(x0=bay.x1 - 70, x1=bay.x1 - 30, h0=bay.h0, h1=bay.h0 + 1500, g_cm3=0.35, material="cellulose"),
    ]  # fmt: skip
    for h in np.linspace(200, 1450, 5):
        solids.append(Tube(x0=bay.x1 - 60, x1=bay.x1 - 10, h=bay.h0 + float(h), z=0, outer=25, g_cm3=4.0))
    valve = float(x[-1]) - 40
    solids.append(solid((valve, valve + 90, bay.h0 + 60, bay.h0 + 150, -60, 60), "polyethylene", 0.9))
    return solids
