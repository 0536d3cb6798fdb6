"""The vehicle around a container, or instead of one: trailer, cab, wheels, and what it is that carries no container.

Everything is found in the image; what is not seen is None. Scans often begin behind the cab, for the driver's sake.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from .container import ContainerProfile, Frame, solid_parts
from .wheels import Place, Wheels, find_wheels

Array: TypeAlias = NDArray[Any]
Kind: TypeAlias = Literal["container", "bare_chassis", "car", "van", "vehicle", "nothing"]

_WORDS: dict[Kind, str] = {
    "container": "a vehicle with a container",
    "bare_chassis": "a chassis that carries nothing",
    "car": "a car",
    "van": "a van or a small lorry without a container",
    "vehicle": "something that is neither a container nor a vehicle known here",
    "nothing": "nothing but air",
}

#: Height of the outline over the ground, in diameters of a wheel. Chassis 1.2 m over tyres of 1 m; cars 1.4-1.9 m over
#: .65 m; vans 2-2.8 m over .7 m.
_CHASSIS, _CAR, _VAN = 1.7, 3.1, 5.0
#: A cab is higher over the floor of the container, and longer, than these shares of the container's height.
_CAB_HEIGHT, _CAB_LENGTH = 0.25, 0.15
#: No cab is longer than this in heights of the container (with a bed and a bonnet 5 m), and than this share of its
#: length, which holds where columns are stretched.
_CAB_LONGEST, _CAB_SHARE = 2.0, 0.35


class Vehicle(msgspec.Struct, frozen=True, kw_only=True):
    """What an image shows besides cargo; places are left, top, right, bottom in upright pixels.

    kind : what it is; `vehicle` where it is none of the kinds known
    outline : box around all that is not air
    trailer : what is under the floor of the container
    cab : what stands before or behind the container as high as a driver
    beyond : what stands beside the containers and is no cab, or one too many: no search looks there
    wheels : with what their roundness says of the image
    front : side on which the tractor is seen: by its cab, else by the longer part of the chassis beyond the container
    """

    kind: Kind
    outline: Place | None = None
    trailer: Place | None = None
    cab: Place | None = None
    beyond: tuple[Place, ...] = ()
    wheels: Wheels = Wheels()
    front: Literal["left", "right"] | None = None

    @property
    def words(self) -> str:
        """Say what it is."""
        return _WORDS[self.kind]

    def scaled(self, sx: float, sy: float) -> Vehicle:
        """Return the same vehicle in an image that is `sx` times as wide and `sy` times as high."""

        def place(at: Place | None) -> Place | None:
            return None if at is None else (at[0] * sx, at[1] * sy, at[2] * sx, at[3] * sy)

        return msgspec.structs.replace(
            self,
            outline=place(self.outline),
            trailer=place(self.trailer),
            cab=place(self.cab),
            beyond=tuple((a * sx, b * sy, c * sx, d * sy) for a, b, c, d in self.beyond),
            wheels=self.wheels.scaled(sx, sy),
        )


def vehicle_with(upright: Array, frames: tuple[Frame, ...], round_at: float | None, p: ContainerProfile) -> Vehicle:
    """Return the vehicle around its containers.

    upright : (rows, columns) float32, 1 = air, first row on top; frames : in its pixels
    round_at : columns per metre over channels per metre where both pitches are known
    """
    solid = solid_parts(upright, p)
    left, right = min(f.left for f in frames), max(f.right for f in frames)
    floor = max(max(f.floor_left, f.floor_right) for f in frames)
    roof = min(min(f.roof_left, f.roof_right) for f in frames)
    height = max(floor - roof, 1.0)
    trailer = _bounds(solid, (0, round(floor), solid.shape[1], solid.shape[0]))
    margin = round(0.03 * height)
    spans = [(0, round(left) - margin), (round(right) + margin, solid.shape[1])]
    ends = [end for span in spans if (end := _standing(solid, span, roof, floor)) is not None]
    cab = max(ends, key=lambda e: e[2] - e[0], default=None)
    longest = max(_CAB_LONGEST * height, _CAB_SHARE * max(f.right - f.left for f in frames))
    beyond = ends if len(ends) > 1 else [e for e in ends if e[2] - e[0] > longest]
    beyond += _between(solid, frames, roof, floor)
    wheels = find_wheels(upright, left, right, floor, height, round_at=round_at)
    return Vehicle(
        kind="container",
        outline=_bounds(solid, (0, 0, solid.shape[1], solid.shape[0])),
        trailer=trailer if trailer is not None and trailer[3] - trailer[1] > 0.05 * height else None,
        cab=cab,
        beyond=tuple(beyond),
        wheels=wheels,
        front=_front(cab, trailer, left, right, height, solid.shape[1]),
    )


def vehicle_without(upright: Array, p: ContainerProfile) -> Vehicle:
    """Return what an image shows in which no container was found; `upright` as for `vehicle_with`."""
    solid = solid_parts(upright, p)
    outline = _bounds(solid, (0, 0, solid.shape[1], solid.shape[0]))
    if outline is None or solid.mean() < 0.01:
        return Vehicle(kind="nothing", outline=outline)
    left, top, right, bottom = (round(v) for v in outline)
    part = solid[top:bottom, left:right]
    used = np.asarray(part.any(axis=0))
    # the middle height of the outline: a cab at one end does not make a chassis high
    tall = bottom - top - float(np.median(np.argmax(part, axis=0)[used]))
    wheel = _wheel(upright[top:bottom, left:right], used)
    kind: Kind = "vehicle"
    if wheel is not None and top > 0.03 * upright.shape[0]:
        diameters = tall / wheel
        kind = "bare_chassis" if diameters < _CHASSIS else "car" if diameters < _CAR else "van"
        if diameters > _VAN:
            kind = "vehicle"
    return Vehicle(kind=kind, outline=outline)


def _bounds(solid: Array, within: tuple[int, int, int, int]) -> Place | None:
    """Return the box around what is solid within a rectangle, single specks left out."""
    x0, y0, x1, y1 = within
    part = solid[y0:y1, x0:x1]
    if part.size == 0:
        return None
    columns = np.flatnonzero(part.sum(axis=0) >= max(2, 0.02 * part.shape[0]))
    rows = np.flatnonzero(part.sum(axis=1) >= max(2, 0.01 * part.shape[1]))
    if not columns.size or not rows.size:
        return None
    return float(x0 + columns[0]), float(y0 + rows[0]), float(x0 + columns[-1] + 1), float(y0 + rows[-1] + 1)


def _standing(solid: Array, span: tuple[int, int], roof: float, floor: float) -> Place | None:
    """Return what stands between two columns, well above the floor of the containers.

    A third of its columns must be solid over half that height, so that hoses, mirrors and ladders are nothing.
    """
    height = floor - roof
    x0, x1 = span
    y0, y1 = max(0, round(roof - 0.3 * height)), round(floor - 0.05 * height)
    if x1 - x0 < _CAB_LENGTH * height or y1 - y0 < 4:
        return None
    place = _bounds(solid, (x0, y0, x1, y1))
    if place is None or y1 - place[1] < _CAB_HEIGHT * height or place[2] - place[0] < _CAB_LENGTH * height:
        return None
    a, b, c, d = (round(v) for v in place)
    if (solid[b:d, a:c].mean(axis=0) > 0.5).mean() < 0.33:
        return None
    return place[0], place[1], place[2], float(solid.shape[0])


def _between(solid: Array, frames: tuple[Frame, ...], roof: float, floor: float) -> list[Place]:
    """Return what stands in the gaps between containers."""
    margin = round(0.03 * (floor - roof))
    ordered = sorted(frames, key=lambda f: f.left)
    spans = [(round(a.right) + margin, round(b.left) - margin) for a, b in itertools.pairwise(ordered)]
    return [place for span in spans if (place := _standing(solid, span, roof, floor)) is not None]


def _front(
    cab: Place | None, trailer: Place | None, left: float, right: float, height: float, columns: int
) -> Literal["left", "right"] | None:
    """Return the side of the tractor; None where the chassis tells neither.

    Without a cab in view it is the side on which the chassis runs on past the container, and farther than the bumper
    at the rear.
    """
    if cab is not None:
        return "left" if cab[2] <= (left + right) / 2 else "right"
    if trailer is None:
        return None
    before, behind = left - trailer[0], trailer[2] - right
    if max(before, behind) < 0.15 * height or abs(before - behind) < 0.1 * height:
        return None
    if before > behind:
        return "left" if trailer[0] <= 0.02 * columns else None
    return "right" if trailer[2] >= 0.98 * columns else None


def _wheel(part: Array, used: Array) -> float | None:
    """Return the vertical diameter of the wheels an outline stands on; None where it stands on none.

    Wheels are what the outline touches the ground with: runs of columns, at least two, that are solid at the bottom.
    What they are high is how far up the thinnest dark core reaches.
    """
    rows = part.shape[0]
    dark = part < 0.5
    foot = dark[int(0.96 * rows) :].any(axis=0) & used
    steps = np.flatnonzero(np.diff(np.pad(foot.astype(np.int8), 1)))
    runs = [(a, b) for a, b in zip(steps[::2], steps[1::2], strict=True) if b - a > 0.01 * part.shape[1]]
    if not 2 <= len(runs) <= 12:
        return None
    tall = []
    for a, b in runs:
        column = dark[:, (a + b) // 2]
        up = np.flatnonzero(~column[::-1][round(0.06 * rows) :])
        tall.append(round(0.06 * rows) + int(up[0]) if up.size else rows)
    wheel = float(np.median(tall))
    return wheel if wheel >= 0.05 * rows else None
