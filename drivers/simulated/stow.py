"""How goods are put into a container: pallets, columns, boxes, skylines. Used by all kinds of cargo."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .scene import Extent, Prism, Solid
from .vehicle import Bay

Rng = np.random.Generator
Span = tuple[float, float]
Make = Callable[[Span, Span], Sequence[Solid]]

PALLET_MM = 144.0
BESIDE_MM = 1130.0
"""Half of the width that goods take, the walls' corrugations being left."""


def solid(box: Extent, material: str, g_cm3: float, texture: tuple[int, float] | None = None) -> Prism:
    """Return a box of one material."""
    x0, x1, h0, h1, z0, z1 = box
    return Prism(x0=x0, x1=x1, h0=h0, h1=h1, z0=z0, z1=z1, material=material, g_cm3=g_cm3, texture=texture)


def pallets(rng: Rng, bay: Bay, length: float = 1200.0, gap: float = 40.0) -> list[Span]:
    """Return the x ranges of pallets along the bay, with uneven gaps."""
    spans, x = [], bay.x0 + rng.uniform(20, 90)
    while x + length < bay.x1:
        spans.append((x, x + length))
        x += length + rng.uniform(0.3, 1.7) * gap
    return spans


def pallet(x0: float, x1: float, h0: float) -> list[Solid]:
    """Return a wooden pallet seen from the side: deck, blocks, runners."""
    parts = [(x0, x1, 0.0, 22.0, 0.42), (x0, x1, 115.0, PALLET_MM, 0.42)]
    parts += [(x, x + 100, 22.0, 115.0, 0.25) for x in (x0, (x0 + x1) / 2 - 50, x1 - 100)]
    return [
        Prism(x0=a, x1=b, h0=h0 + low, h1=h0 + high, z0=-1150, z1=1150, material="cellulose", g_cm3=density)
        for a, b, low, high, density in parts
    ]


def carton(rng: Rng, x: Span, h: Span, z: Span, density: float, metal: bool) -> list[Solid]:
    """Return a carton: board around a product that does not quite fill it, sometimes with a metal core."""
    solids: list[Solid] = [
        solid((*x, *h, *z), "cellulose", density * rng.normal(1, 0.05), (2, 0.06)),
        solid((x[0], x[0] + 5, *h, *z), "cellulose", 0.12),
        solid((x[1] - 5, x[1], *h, *z), "cellulose", 0.12),
    ]
    if metal:
        w, d = (x[1] - x[0]) * 0.3, (h[1] - h[0]) * 0.28
        core = (x[0] + w, x[1] - w, h[0] + d, h[1] - d, z[0] + 60, z[1] - 60)
        solids.append(solid(core, "iron", density * 0.5))
    return solids


def heights_along(rng: Rng, bay: Bay, step: float, full: float, *, rough: float, door: float) -> list[float]:
    """Return how high goods stand in every column, as a share of the bay's height.

    rough : standard deviation from one column to the next; door : share by which the last fifth may be lower, because
        the last rows are what was left
    """
    count = max(1, int((bay.length - 60) / step))
    walk = np.cumsum(rng.normal(0, rough, count))
    walk -= walk.mean()
    tail = np.zeros(count)
    short = int(rng.integers(0, max(1, count // 5) + 1))
    if short:
        tail[-short:] = np.sort(rng.uniform(0.1, 1, short)) * door
    return [float(v) for v in np.clip(full + walk - tail, 0.12, 0.94)]


def columns(
    rng: Rng, bay: Bay, make: Make, *, width: float, high: float, shares: Sequence[float], gap: float, wander: float
) -> list[Solid]:
    """Stow boxes in columns by hand, without pallets: a column leans, every box sits a little off the one below.

    make : called with the x and h range of every box
    width, high : of one box, mm; shares : height of every column as a share of the bay; gap : mean between columns, mm
    wander : standard deviation of a box's place on the one below, mm
    """
    solids: list[Solid] = []
    x = bay.x0 + rng.uniform(15, 50)
    for share in shares:
        if x + width > bay.x1 - 10:
            break
        layers = max(1, min(round(share * bay.height / high), int(0.97 * bay.height / high)))
        off = np.cumsum(rng.normal(0, wander, layers) + rng.normal(0, wander / 8))
        # A carton cannot leave its column: the neighbours hold it.
        off = np.clip(off, -0.25 * width, 0.25 * width)
        for layer in range(layers):
            a, low = x + float(off[layer]), bay.h0 + layer * high
            a = min(max(a, bay.x0), bay.x1 - width)
            solids += make((a, a + width), (low, low + high))
        x += width + rng.exponential(gap)
    return solids


class Skyline:
    """How high things stand along the bay, so that the next one lands on top of them."""

    def __init__(self, bay: Bay, step: float = 50.0) -> None:
        self._bay, self._step = bay, step
        self._tops = np.full(int(bay.length / step) + 1, bay.h0)

    def _under(self, x: Span) -> slice:
        first = int(max(x[0] - self._bay.x0, 0) / self._step)
        return slice(first, max(int((x[1] - self._bay.x0) / self._step) + 1, first + 1))

    def top(self, x: Span) -> float:
        """Return the height of the highest thing between x[0] and x[1]."""
        return float(self._tops[self._under(x)].max(initial=self._bay.h0))

    def nested(self, x: Span) -> float:
        """Return where an irregular thing comes to lie: it sinks between those below, more than halfway."""
        tops = self._tops[self._under(x)]
        return float(0.6 * tops.mean() + 0.4 * tops.max()) if len(tops) else self._bay.h0

    def lowest(self, rng: Rng, width: float, tries: int = 5) -> float:
        """Return where a thing so wide comes to lie lowest, of a few places: goods are stacked, not thrown."""
        last = max(self._bay.x1 - width - 15, self._bay.x0 + 16)
        places = rng.uniform(self._bay.x0 + 15, last, tries)
        return float(min(places, key=lambda x: self.top((x, x + width))))

    def put(self, x: Span, top: float) -> None:
        """Something now reaches `top` between x[0] and x[1]."""
        part = self._tops[self._under(x)]
        np.maximum(part, top, out=part)

    def add(self, solids: Sequence[Solid]) -> None:
        """Put all these solids there."""
        for one in solids:
            x0, x1, _, h1, _, _ = one.extent
            if one.g_cm3 > 0:
                self.put((x0, x1), h1)
