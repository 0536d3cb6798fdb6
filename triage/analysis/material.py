"""What two energies say of the cargo: materials by segment, what absorbs more than matter does, and the mass.

The container's own walls are taken away first: two thin sheets of steel in front of light goods would make them look
like metal. Classes are told of segments, means over cells of many pixels, because a single pixel can rarely tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Box, DetectorState, Finding

from .container import Frame
from .dual_energy import ABOVE_ALL, ALPHAS, END_ALPHA, HIGH_Z, OPAQUE, Inversion, Verdict
from .screening import OFFSET, STEPS

Array: TypeAlias = NDArray[Any]


class MaterialProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of what is said of materials. Shares are of the container's height or area.

    cells_high : cells over the container's height; 200 make a cell of 13 mm of a 2.6 m container
    least_alpha : -ln T of the high energy, walls taken away, below which no class is told: about 15 g/cm² of steel
    wall_alpha : largest -ln T of two walls; what is darker all over is a load in front of them
    min_side_share : smaller side of a segment, 2 % is 5 cm
    even_share : change of -ln T within three cells that is a slope and no edge
    edge_cells : cells at a segment's border left out of its mean: there pixels see two materials
    max_segments : largest segments told of
    max_findings : of each kind
    opaque_share : opaque part of the container from which the mass is only a lower bound
    geometry_error : of an areal density times an area, rms share: cargo nearer the source looks larger
    """

    cells_high: int = 200
    least_alpha: float = 0.5
    wall_alpha: float = 0.35
    min_side_share: float = 0.02
    even_share: float = 0.12
    edge_cells: int = 1
    max_segments: int = 64
    max_findings: int = 3
    opaque_share: float = 0.02
    geometry_error: float = 0.08


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A connected part of the container that two energies see alike.

    where : in the radiograph's own pixels
    told : what it is made of
    """

    where: Box
    area_share: float
    told: Verdict


class Mass(msgspec.Struct, frozen=True, kw_only=True):
    """Mass inside the container's outline, the container itself included, in kg. None: not known, and `why`.

    high_kg None beside a low_kg : parts are opaque, so this is only a lower bound
    """

    kg: float | None = None
    low_kg: float | None = None
    high_kg: float | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """Say it."""
        if self.low_kg is None or self.kg is None:
            return f"mass not estimated: {self.why}"
        if self.high_kg is None:
            return f"mass at least {self.low_kg / 1000:.1f} t: {self.why}"
        return f"mass about {self.kg / 1000:.1f} t ({self.low_kg / 1000:.1f} to {self.high_kg / 1000:.1f} t)"


class MaterialJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """What two energies say. wall_alpha : low and high, taken away from every cell; 0 where no wall was seen."""

    segments: tuple[Segment, ...] = ()
    findings: tuple[Finding, ...] = ()
    mass: Mass = Mass(why="no energy calibration")
    wall_alpha: tuple[float, float] = (0.0, 0.0)


def why_not(detector: DetectorState) -> str:
    """Return why a detector's materials cannot be told even with an energy calibration; empty if they can."""
    if len(detector.energies) != 2:
        return "the radiograph has one energy"
    if detector.state != "raw":
        return "the image was windowed for display: transmission is not known"
    return ""


class Cells:
    """The container's part of two log-code images, in cells of several pixels.

    low, high : (cell columns, cell channels) float64, mean -ln T
    inside : bool, in the container; inner : bool, without a margin of structure
    """

    def __init__(self, q: tuple[Array, Array], frame: Frame, detector: DetectorState, p: MaterialProfile) -> None:
        columns, channels = q[0].shape
        corners = frame.corners.astype(np.float64)
        if detector.first_channel == "bottom":
            corners[:, 1] = channels - corners[:, 1]
        low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
        self.first_column, self.first_channel = int(max(low[0], 0)), int(max(low[1], 0))
        end_column, end_channel = int(min(high[0], columns)), int(min(high[1], channels))
        self.size = max(1, round(frame.height / p.cells_high))
        self.pixels = max(1.0, float(self.size**2))
        shape = (
            max((end_column - self.first_column) // self.size, 1),
            max((end_channel - self.first_channel) // self.size, 1),
        )
        own = (
            slice(self.first_column, min(self.first_column + shape[0] * self.size, columns)),
            slice(self.first_channel, min(self.first_channel + shape[1] * self.size, channels)),
        )
        self.low, self.high = ((_reduced(image[own], shape) - OFFSET) / STEPS for image in q)
        points = (corners - (self.first_column, self.first_channel)) / self.size
        self.inside = _filled(points, shape)
        middle = points.mean(axis=0)
        self.inner = _filled(middle + (points - middle) * 0.8, shape)
        self.shape = shape

    def zone(self, zones: Array) -> Array:
        """Return the zone of every channel of cells."""
        at = self.first_channel + (np.arange(self.shape[1]) + 0.5) * self.size
        return np.asarray(zones[np.minimum(at.astype(int), zones.size - 1)])

    def box(self, x: int, y: int, w: int, h: int) -> Box:
        """Return a rectangle of cells, x along columns, in pixels."""
        return Box(
            first_column=self.first_column + x * self.size, end_column=self.first_column + (x + w) * self.size,
            first_channel=self.first_channel + y * self.size, end_channel=self.first_channel + (y + h) * self.size,
        )  # fmt: skip


def _reduced(image: Array, shape: tuple[int, int]) -> Array:
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float64))


def _filled(points: Array, shape: tuple[int, int]) -> Array:
    """Return a bool mask (columns, channels) of the quadrilateral `points` of (column, channel)."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(mask, np.rint(points[:, ::-1]).astype(np.int32), 1)
    return mask.astype(np.bool_)


def judge_material(
    q: tuple[Array, Array], detector: DetectorState, frame: Frame, inversion: Inversion,
    profile: MaterialProfile | None = None,
) -> MaterialJudgement:  # fmt: skip
    """Return what both energies say of the cargo in a container.

    q : low and high energy, (columns, channels) uint16 log codes on one grid
    """
    p = profile or MaterialProfile()
    cells = Cells(q, frame, detector, p)
    zone = cells.zone(inversion.zone_of_channels(q[0].shape[1]))
    wall = _wall(cells, p)
    low, high = cells.low - wall[0], cells.high - wall[1]
    calm = [cv2.blur(image, (3, 3), borderType=cv2.BORDER_REPLICATE) for image in (low, high)]
    sets = inversion.sets(calm[0], calm[1], 9 * cells.pixels, zone, wall)
    sets[cells.high >= END_ALPHA - 0.1] = OPAQUE
    segments = tuple(_segments(cells, (low, high), sets, zone, wall, inversion, p))
    return MaterialJudgement(
        segments=segments,
        findings=(*_high_z(segments, p), *_above_all(segments, p)),
        mass=_mass(cells, low, high, sets, zone, wall, inversion, detector, frame, p),
        wall_alpha=wall,
    )


def _wall(cells: Cells, p: MaterialProfile) -> tuple[float, float]:
    """Return -ln T of the container's two walls in both energies, 0 where the load leaves none to be seen."""
    high = cells.high[cells.inner]
    if high.size < 50:
        return 0.0, 0.0
    least = float(np.percentile(high, 5))
    if not 0 < least <= p.wall_alpha:
        return 0.0, 0.0
    near = cells.inner & (np.abs(cells.high - least) <= max(0.15 * least, 0.01))
    return float(np.median(cells.low[near])), float(np.median(cells.high[near]))


def _segments(
    cells: Cells, alphas: tuple[Array, Array], sets: Array, zone: Array, wall: tuple[float, float],
    inversion: Inversion, p: MaterialProfile,
) -> Iterator[Segment]:  # fmt: skip
    """Yield segments, largest first: what is high-Z or like no material, then what is even in both energies.

    A compact heavy object in front of even goods must not be averaged with them, so it is looked for by itself.
    """
    low, high = alphas
    least = max(2, round(p.min_side_share * cells.shape[1]))
    thick = cells.inside & (high >= p.least_alpha) & (sets != OPAQUE)
    odd = [thick & (sets == HIGH_Z), thick & (sets == ABOVE_ALL)]
    even = thick & ~odd[0] & ~odd[1] & _even(low, cells, inversion, 0, p) & _even(high, cells, inversion, 1, p)
    strange, usual = (
        sorted((part for mask in masks for part in _parts(mask, least)), key=lambda f: (-f[0], f[2]))
        for masks in (odd, (even,))
    )
    # many large even parts must not cut off the small one that is looked for
    strange = strange[: p.max_segments]
    found = sorted([*strange, *usual[: p.max_segments - len(strange)]], key=lambda f: (-f[0], f[2]))
    core = np.ones((2 * p.edge_cells + 1,) * 2, np.uint8)
    for area, own, (x, y, w, h) in found:
        inner = cv2.erode(own.astype(np.uint8), core, borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(np.bool_)
        use = inner if inner.sum() >= 4 else own
        at = (slice(x, x + w), slice(y, y + h))
        middle = int(np.median(np.nonzero(use)[1])) + y
        verdict = inversion.judge(
            float(low[at][use].mean()), float(high[at][use].mean()), float(use.sum()) * cells.pixels, int(zone[middle]),
            behind=wall,
        )  # fmt: skip
        share = area / max(int(cells.inside.sum()), 1)
        yield Segment(where=cells.box(x, y, w, h), area_share=share, told=verdict)


def _parts(mask: Array, least: int) -> Iterator[tuple[int, Array, tuple[int, int, int, int]]]:
    """Yield area, own cells and rectangle (x along columns, y, w, h) of the connected parts of a mask."""
    element = np.ones((least, least), np.uint8)
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, element)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    for label in range(1, count):
        # OpenCV's x is the second axis, the channel
        y, x, h, w, area = (int(v) for v in stats[label])
        yield area, labels[x : x + w, y : y + h] == label, (x, y, w, h)


def _even(image: Array, cells: Cells, inversion: Inversion, energy: int, p: MaterialProfile) -> Array:
    """Return where -ln T of one energy changes from cell to cell by no more than noise and a slope make it."""
    square = np.ones((3, 3), np.uint8)
    values = image.astype(np.float32)
    spread = cv2.dilate(values, square) - cv2.erode(values, square)
    noise = inversion.noises[0].air_sd[energy] * np.exp(0.5 * np.maximum(image, 0)) / cells.pixels**0.5
    # nine values spread over six standard deviations at most
    return np.asarray(spread <= p.even_share * np.maximum(image, 0) + 6 * noise)


def _high_z(segments: tuple[Segment, ...], p: MaterialProfile) -> Iterator[Finding]:
    told = [s for s in segments if s.told.classes == HIGH_Z]
    told.sort(key=lambda s: -s.told.areal_density_g_cm2)
    for s in told[: p.max_findings]:
        v = s.told
        reason = (
            f"high-Z material (heavier than about silver; which, two energies cannot tell): areal density "
            f"{v.areal_density_g_cm2:.0f} g/cm2 ({v.low_g_cm2:.0f} to {v.high_g_cm2:.0f}), "
            f"{_size(s.where)}; steel and lighter are ruled out by more than 3 standard deviations"
        )
        yield Finding(kind="high_z", score=v.areal_density_g_cm2, reason=reason, tier="review", where=s.where)


def _above_all(segments: tuple[Segment, ...], p: MaterialProfile) -> Iterator[Finding]:
    told = [s for s in segments if s.told.classes & ABOVE_ALL]
    told.sort(key=lambda s: -s.told.distance_sd)
    for s in told[: p.max_findings]:
        reason = (
            f"absorbs more than predicted: the high energy is weakened more, beside the low one, than behind any "
            f"material ({s.told.distance_sd:.0f} standard deviations), {_size(s.where)}; dense matter behind scattered "
            "radiation, or a calibration that has drifted"
        )
        yield Finding(
            kind="absorbs_more_than_predicted", score=s.told.distance_sd, reason=reason, tier="review", where=s.where
        )


def _size(box: Box) -> str:
    return f"{box.end_column - box.first_column} columns x {box.end_channel - box.first_channel} channels"


def _mass(
    cells: Cells, low: Array, high: Array, sets: Array, zone: Array, wall: tuple[float, float], inversion: Inversion,
    detector: DetectorState, frame: Frame, p: MaterialProfile,
) -> Mass:  # fmt: skip
    """Return the mass inside the outline: areal density of every cell, its walls added again, times its area."""
    if detector.column_pitch_mm is None or detector.channel_pitch_mm is None:
        return Mass(why="the size of a pixel is not known")
    if frame.cut or not frame.floor_seen:
        return Mass(why="the container's outline is not seen whole")
    opaque = float((sets[cells.inside] == OPAQUE).mean()) if cells.inside.any() else 1.0
    least, middle, most = inversion.density_range(sets, np.maximum(high, 0), zone)
    walls = np.interp(wall[1], *_steel(inversion, int(zone[zone.size // 2])))
    cell_kg = detector.column_pitch_mm * detector.channel_pitch_mm * cells.size**2 / 100 / 1000
    total, lowest, highest = (
        (m[cells.inside].sum() + walls * cells.inside.sum()) * cell_kg for m in (middle, least, most)
    )
    # one side of the interval: which class the ambiguous cells are of; the other: geometry
    lowest, highest = lowest * (1 - 2 * p.geometry_error), highest * (1 + 2 * p.geometry_error)
    if opaque > p.opaque_share:
        return Mass(
            kg=float(total),
            low_kg=float(lowest),
            why=f"{opaque:.0%} of the container is opaque, how dense is not known",
        )
    return Mass(kg=float(total), low_kg=float(lowest), high_kg=float(highest))


def _steel(inversion: Inversion, zone: int) -> tuple[Array, Array]:
    """Return -ln T of the high energy and the areal density of steel, rising, for interpolation."""
    return ALPHAS, inversion.curves[zone].areal_density[25]
