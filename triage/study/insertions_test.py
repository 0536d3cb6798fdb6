"""Objects to measure with: projections of solids, whose profile is the length of the way through them.

Every object is a set of boxes, ellipsoids, cylinders and tubes, turned in space and looked through along one axis; the
ways add up. They are sampled three times finer than a pixel and averaged, as a detector does, then blurred more along
the motion than across it, and grained as real matter is. Nothing here may learn: see `insertions`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_FINE = 3
"""Samples per pixel and axis."""
_STRENGTH = {
    "compact": (0.3, 2.0), "brick": (0.15, 0.6), "metal": (0.3, 1.0), "void": (0.2, 0.8), "item": (0.15, 1.0),
    "slab": (0.15, 0.6),
}  # fmt: skip
_FULL_TURN = frozenset({"compact", "metal"})
_GRAIN = 0.05
_EVEN = 0.8
"""Mean profile of a flat silhouette with a blurred edge. Published strengths are of such; a solid's way tapers off, so
its strength is raised to hold as much matter as the flat one."""
_INSIDE = 0.1
"""Profile from which a pixel is of the object, as in `insertions`."""


class Solid(NamedTuple):
    """One solid: shape, centre (x, y) in units, half axes (x, y, depth) in units, turn of itself, density.

    hollow : share of the cross section that is empty, of a tube; negative density takes matter away
    """

    shape: str
    x: float
    y: float
    half: tuple[float, float, float]
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    density: float = 1.0
    hollow: float = 0.0


def draw(kind: str, unit: float, height: float, rng: np.random.Generator) -> tuple[Array, float]:
    """Return a profile (rows, columns) float32, 0..1, and its strength; as in `insertions_train`."""
    strength = float(np.exp(rng.uniform(*np.log(_STRENGTH[kind]))))
    if kind == "slab":
        return _as_flat(_slab(unit, height, rng), strength)
    solids = _SOLIDS[kind](rng)
    lean = rng.uniform(0, 2 * np.pi) if kind in _FULL_TURN else rng.normal(0, np.deg2rad(4))
    way = _projection(solids, lean, unit)
    return _as_flat(_seen(way, unit, rng), strength)


def _as_flat(profile: Array, strength: float) -> tuple[Array, float]:
    """Return the profile with the strength at which its mean is that of a flat silhouette, at most doubled."""
    mean = float(profile[profile >= _INSIDE].mean()) if (profile >= _INSIDE).any() else _EVEN
    return profile, strength * min(_EVEN / mean, 2.0)


def _seen(way: Array, unit: float, rng: np.random.Generator) -> Array:
    """Return the profile of a way through matter: grained, averaged over pixels, blurred, its top at 1."""
    rough: Array = rng.normal(0, 1, way.shape).astype(np.float32)
    rough = cv2.GaussianBlur(rough, (0, 0), 1.5 * _FINE * max(unit, 0.5))
    grained: Array = way * (1 + _GRAIN * np.clip(rough / max(float(rough.std()), 1e-6), -2, 2))
    rows, columns = (v // _FINE for v in way.shape)
    mean = grained[: rows * _FINE, : columns * _FINE].reshape(rows, _FINE, columns, _FINE).mean(axis=(1, 3))
    sigma = rng.uniform(0.8, 1.5) * max(unit, 0.5)
    moved = sigma * rng.uniform(1.0, 1.4)
    blurred = cv2.GaussianBlur(mean.astype(np.float32), (0, 0), moved, sigmaY=sigma, borderType=cv2.BORDER_REPLICATE)
    profile = np.clip(blurred / max(float(blurred.max()), 1e-6), 0, 1)
    profile[profile < 1e-3] = 0.0
    return np.ascontiguousarray(profile, np.float32)


# --------------------------------------------------------------------------------------------------------------
# Ways through solids


def _projection(solids: list[Solid], lean: float, unit: float) -> Array:
    """Return the way through all solids, (rows, columns) float32 in units, _FINE samples per pixel."""
    c, s = np.cos(lean), np.sin(lean)
    reach = max(float(np.hypot(o.x, o.y)) + float(np.linalg.norm(o.half)) for o in solids)
    room = int(np.ceil((reach + 8) * unit)) * 2 * _FINE
    axis = ((np.arange(room) + 0.5) / (_FINE * unit) - room / (2 * _FINE * unit)).astype(np.float32)
    way = np.zeros((room, room), np.float32)
    for solid in solids:
        # only where it can be: its centre in the picture and half its longest diagonal around
        around = float(np.linalg.norm(solid.half))
        centre = np.array([c * solid.x - s * solid.y, s * solid.x + c * solid.y])
        x0, y0 = np.searchsorted(axis, centre - around)
        x1, y1 = np.searchsorted(axis, centre + around)
        px, py = axis[None, x0:x1], axis[y0:y1, None]
        x, y = c * px + s * py, -s * px + c * py
        way[y0:y1, x0:x1] += np.float32(solid.density) * _WAYS[solid.shape](solid, x - solid.x, y - solid.y)
    way = np.maximum(way, 0)
    # cut off what holds nothing, but for the room that the blur needs, and by whole pixels
    margin = int(np.ceil(7 * max(unit, 0.5))) * _FINE
    rows, columns = np.flatnonzero(way.any(axis=1)), np.flatnonzero(way.any(axis=0))
    if rows.size == 0:
        return way
    return np.pad(way, margin)[rows[0] : rows[-1] + 1 + 2 * margin, columns[0] : columns[-1] + 1 + 2 * margin]


def _turned(turn: tuple[float, float, float]) -> Array:
    """Return the matrix from the picture's axes to the solid's own."""
    out = np.eye(3)
    for i, angle in enumerate(turn):
        a, b = [k for k in range(3) if k != i]
        c, s = np.cos(angle), np.sin(angle)
        one = np.eye(3)
        one[a, a], one[a, b], one[b, a], one[b, b] = c, -s, s, c
        out = one @ out
    return out


def _rays(solid: Solid, x: Array, y: Array) -> tuple[list[Array], Array]:
    """Return start and direction of every ray in axes in which the solid's half axes are 1."""
    matrix = _turned(solid.turn) / np.asarray(solid.half)[:, None]
    start = [np.asarray(matrix[i, 0] * x + matrix[i, 1] * y, np.float32) for i in range(3)]
    return start, matrix[:, 2]


def _box(solid: Solid, x: Array, y: Array) -> Array:
    start, along = _rays(solid, x, y)
    enter, leave = np.float32(-1e6), np.float32(1e6)
    for p, d in zip(start, along, strict=True):
        d = d if abs(d) > 1e-6 else 1e-6
        near, far = (-np.sign(d) - p) / d, (np.sign(d) - p) / d
        enter, leave = np.maximum(enter, near), np.minimum(leave, far)
    return np.asarray(np.maximum(leave - enter, 0), np.float32)


def _quadric(solid: Solid, x: Array, y: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Return where every ray enters and leaves the unit ball in some axes; entry after exit where it misses."""
    start, along = _rays(solid, x, y)
    a = max(float(sum(along[i] ** 2 for i in axes)), 1e-9)
    b = sum(start[i] * along[i] for i in axes)
    c = sum(start[i] ** 2 for i in axes) - 1
    root = b * b - a * c
    half = np.sqrt(np.maximum(root, 0)) / a
    middle = -b / a
    return np.where(root > 0, middle - half, 1.0), np.where(root > 0, middle + half, -1.0)


def _ellipsoid(solid: Solid, x: Array, y: Array) -> Array:
    enter, leave = _quadric(solid, x, y, (0, 1, 2))
    return np.asarray(np.maximum(leave - enter, 0), np.float32)


def _cylinder(solid: Solid, x: Array, y: Array) -> Array:
    """A cylinder along its own first axis; a tube where it is hollow."""
    enter, leave = _quadric(solid, x, y, (1, 2))
    start, along = _rays(solid, x, y)
    d = along[0] if abs(along[0]) > 1e-6 else 1e-6
    near, far = (-np.sign(d) - start[0]) / d, (np.sign(d) - start[0]) / d
    way = np.maximum(np.minimum(leave, far) - np.maximum(enter, near), 0)
    if solid.hollow:
        bore = solid._replace(
            half=(solid.half[0], solid.half[1] * solid.hollow, solid.half[2] * solid.hollow), hollow=0
        )
        way = way - _cylinder(bore, x, y)
    return np.asarray(way, np.float32)


_WAYS = {"box": _box, "ellipsoid": _ellipsoid, "cylinder": _cylinder}


# --------------------------------------------------------------------------------------------------------------
# Kinds


def _size(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _any_turn(rng: np.random.Generator) -> tuple[float, float, float]:
    return tuple(float(v) for v in rng.uniform(0, np.pi, 3))  # type: ignore[return-value]


def _compact(rng: np.random.Generator) -> list[Solid]:
    """A dense lump: box, ball, ingots side by side, or a cask with a core."""
    size = _size(rng, 8, 40) / 2
    which = rng.integers(4)
    if which == 0:
        half = (size, size * rng.uniform(0.5, 1), size * rng.uniform(0.5, 1))
        return [Solid("box", 0, 0, half, _any_turn(rng))]
    if which == 1:
        return [Solid("ellipsoid", 0, 0, (size, size * rng.uniform(0.6, 1), size), _any_turn(rng))]
    if which == 2:
        one = (size / 2 * 0.95, size * rng.uniform(0.5, 0.9), size)
        turn = (0.0, 0.0, float(rng.normal(0, 0.1)))
        return [Solid("box", x, 0, one, turn, d) for x, d in ((-size / 2, 1.0), (size / 2, rng.uniform(0.8, 1)))]
    turn = (0.0, float(rng.uniform(-0.5, 0.5)), 0.0)
    cask = (size, size * rng.uniform(0.6, 0.9), size * rng.uniform(0.6, 0.9))
    return [
        Solid("cylinder", 0, 0, cask, turn, 0.6),
        Solid("cylinder", 0, 0, (cask[0] * 0.6, cask[1] * 0.5, cask[2] * 0.5), turn, 1.2),
    ]


def _brick(rng: np.random.Generator) -> list[Solid]:
    """Packets in running bond, each a little different, some of the top course gone, wrapped tight or loosely."""
    width, courses = _size(rng, 40, 120), int(rng.integers(2, 8))
    per_course = int(rng.integers(2, 6))
    w = width / per_course
    h = float(np.clip(width * rng.uniform(0.4, 1.0) / courses, 4, w))
    solids = []
    for row in range(courses):
        shift = 0.5 * w * (row % 2)
        gone = rng.integers(0, per_course) if row == 0 else 0
        for k in range(per_course - int(gone) - row % 2 + (row % 2) * int(rng.random() < 0.5)):
            half = (w / 2 * rng.uniform(0.88, 0.98), h / 2 * rng.uniform(0.88, 0.98), w * rng.uniform(0.8, 1.0))
            turn = (0.0, float(rng.normal(0, 0.05)), float(rng.normal(0, 0.02)))
            centre = (k + 0.5) * w + shift - width / 2, (row + 0.5 - courses / 2) * h
            solids.append(Solid("box", *centre, half, turn, rng.uniform(0.85, 1.0)))
    return solids or [Solid("box", 0, 0, (w / 2, h / 2, w))]


def _metal(rng: np.random.Generator) -> list[Solid]:
    """Thin things of metal: a tube, a grip at a barrel, a bent plate, a ring, a bundle of rods."""
    length, thick = _size(rng, 16, 64), rng.uniform(2.0, 5.0)
    tip = (0.0, float(rng.uniform(-0.6, 0.6)), 0.0)
    which = rng.integers(5)
    if which == 0:
        bore = float(rng.uniform(0.5, 0.85))
        return [Solid("cylinder", 0, 0, (length / 2, 1.2 * thick, 1.2 * thick), tip, hollow=bore)]
    if which == 1:
        grip = (thick * 0.8, length * 0.22, thick * 0.7)
        return [
            Solid("cylinder", 0, 0, (length / 2, thick * 0.6, thick * 0.6), hollow=0.4),
            Solid("box", -length * 0.2, 0, (length * 0.28, thick * 0.8, thick * 0.7), density=0.9),
            Solid("box", -length * 0.42, length * 0.2, grip, (0.0, 0.0, float(rng.uniform(0.1, 0.4)))),
        ]
    if which == 2:
        bend = rng.uniform(0.6, 1.8)
        steps = np.linspace(-bend / 2, bend / 2, 9)
        radius, piece = length / bend, length / 14
        return [
            Solid("box", radius * np.sin(a), radius * (1 - np.cos(a)), (piece, thick / 2, 3 * thick), (0.0, 0.0, -a))
            for a in steps
        ]
    if which == 3:
        radius = length / 4
        steps = np.linspace(0, 2 * np.pi, 17)[:-1]
        piece = radius * np.pi / 15
        return [
            Solid("cylinder", radius * np.cos(a), radius * np.sin(a), (piece, thick / 2, thick / 2),
                  (0.0, 0.0, -(a + np.pi / 2)))
            for a in steps
        ]  # fmt: skip
    rods = int(rng.integers(2, 5))
    return [
        Solid("cylinder", rng.uniform(-0.1, 0.1) * length, (k - rods / 2) * 1.6 * thick,
              (length / 2 * rng.uniform(0.7, 1), thick / 2, thick / 2), tip)
        for k in range(rods)
    ]  # fmt: skip


def _void(rng: np.random.Generator) -> list[Solid]:
    """A missing package, its sides not quite upright, or a hollow with round corners."""
    half = _size(rng, 24, 80) / 2
    shape = (half, half * rng.uniform(0.5, 1.0), half)
    turn = (float(rng.normal(0, 0.08)), float(rng.normal(0, 0.15)), 0.0)
    if rng.random() < 0.5:
        return [Solid("box", 0, 0, shape, turn)]
    return [Solid("box", 0, 0, shape, turn, 0.7), Solid("ellipsoid", 0, 0, shape, turn, 0.6)]


def _item(rng: np.random.Generator) -> list[Solid]:
    """A thing that was put in: a case with things in it, a bag, a drum, a rucksack on a case."""
    half = _size(rng, 18, 80) / 2
    which = rng.integers(4)
    if which == 0:
        case = Solid("box", 0, 0, (half, half * rng.uniform(0.5, 0.8), half * 0.5), density=0.5)
        inner = [
            Solid(
                "box",
                rng.uniform(-0.5, 0.5) * half,
                rng.uniform(-0.5, 0.5) * half,
                (half * 0.25, half * 0.15, half * 0.3),
                _any_turn(rng),
            )
            for _ in range(int(rng.integers(1, 5)))
        ]
        return [case, *inner]
    if which == 1:
        low = half * rng.uniform(0.5, 0.8)
        return [Solid("ellipsoid", 0, 0, (half, low, half)), Solid("ellipsoid", 0.3 * half, 0.2 * low, (low,) * 3)]
    upright = (0.0, 0.0, float(np.pi / 2))
    if which == 2:
        body = (half, half * rng.uniform(0.6, 0.8), half * 0.7)
        return [Solid("cylinder", 0, 0, body, upright, hollow=float(rng.choice([0.0, 0.8])))]
    return [
        Solid("box", 0, half * 0.5, (half, half * 0.5, half * 0.6), density=0.8),
        Solid("ellipsoid", rng.uniform(-0.4, 0.4) * half, -half * 0.3, (half * 0.6, half * 0.5, half * 0.5)),
    ]


_SOLIDS: dict[str, Any] = {"compact": _compact, "brick": _brick, "metal": _metal, "void": _void, "item": _item}


def _slab(unit: float, height: float, rng: np.random.Generator) -> Array:
    """A false wall: boards on upright studs, leaning a little, with a sill and a head, and a gap at the roof."""
    width = _size(rng, 10, 36)
    lean = np.tan(rng.normal(0, np.deg2rad(0.7)))
    gap = rng.uniform(0.0, 0.04) * height
    pad = 4 * max(unit, 0.5)
    columns = int(np.ceil(width * unit + abs(lean) * height + 2 * pad))
    y = (np.arange(int(height) * _FINE) + 0.5) / _FINE
    x = (np.arange(columns * _FINE) + 0.5) / _FINE - columns / 2
    across = (x[None, :] + lean * (y[:, None] - height / 2)) / (width * unit)
    inside = (np.abs(across) < 0.5) & (y[:, None] > gap)
    way = np.where(inside, rng.uniform(0.55, 0.85), 0.0)
    studs = rng.uniform(0.28, 0.5)
    way = np.where(inside & (np.abs(np.abs(across) - studs * 0.8) < 0.06), 1.0, way)
    rail = 0.015 * height
    way = np.where(inside & ((y[:, None] < gap + rail) | (y[:, None] > height - rail)), 1.0, way)
    return _seen(way.astype(np.float32), unit, rng)
