"""What a radiograph alone says: where the container is, whether it is empty, what in it deserves a look, what cannot
be seen.

Contrast alone is a poor witness: the structure of the container (end frames, floor strip, roof beams, ribs) and the
order of the load (gaps between stacks) have the contrast of what is searched for. So the container is straightened onto
a grid of its own height, what repeats along a row or a column of the grid is taken away, and what is left must stand
out against the unrest around it, not against noise. What is too dark to see is never searched; it is measured and said.

No threshold here is calibrated on insertions: scores order findings, they are not probabilities, p_value stays None.
"""

from __future__ import annotations

import time
from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.energy_calibration import EnergyCalibration
from scanner_io.errors import DataError
from scanner_io.model import Box, DetectorState, Finding, Load, Quality, Radiograph, Tier

from .container import ContainerProfile, Frame, box_of, find_container
from .correction import Correction, CorrectionProfile, calibrate, correct, image_quality, repeated_columns
from .dual_energy import Inversion, OneGrid, inversion_of
from .material import Mass, MaterialJudgement, MaterialProfile, judge_material, why_not
from .screening import OFFSET, STEPS, Z_STEPS, Buffers, Engine, MapStrips, Screening, screen

__all__ = ["ImageJudgement", "ImageProfile", "Stream", "judge_image"]

Array: TypeAlias = NDArray[Any]

#: Fixed-point scale of the transmission image: 1.0 is 2**15, so that air with noise has room above.
_ONE = 1 << 15
_STRIP_COLUMNS = 256
_LUT = np.minimum(np.exp((OFFSET - np.arange(4096, dtype=np.float64)) / STEPS) * _ONE, 65535).round().astype(np.uint16)


class ImageProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Every threshold of the image judgement. Shares are of the straightened container unless said otherwise.

    correction, container : thresholds of those steps
    threshold_z : from which `screen` calls a pixel anomalous; 4 standard deviations of the box around it
    grid_rows, max_grid_columns : height and largest length of the grid on which the container is judged; 384 rows keep
        an object of 2 % of the height (5 cm) five rows high
    end_share, roof_share, floor_share : structure left out at both ends, under the roof and above the floor line: end
        frames are 1-3 % of the length, the roof rail 3 %, the floor with its cross-members 8-14 % of the height
    opaque_t : transmission below which nothing can be claimed; insertions darker than this are found by chance only
    opaque_note_share, opaque_review_share : opaque part of the cargo area worth a note, and worth a person's look
    load_ratio : a pixel is cargo below this share of the wall's transmission, or below load_t
    load_t : as a transmission; with the shares below it separates every clean scan seen so far
    bulk_share : cargo thinner than this share of the height (6 cm) does not count as load: ribs, rails, posts
    wall_t : darkest transmission of two container walls; what is darker everywhere may be a light load all over
    wall_percentile : of -ln T in the cargo area: what is called the wall
    empty_share, loaded_share : part of the cargo area up to which cargo means empty, and from which it means loaded;
        seen: empties 0-.23 %, loads from 9 % on, one scan with low boxes in or under it 2.3 %
    light_ratio, light_share : an empty container also has at most this share below light_ratio of the wall; seen in
        empties: up to 1.8 %; light goods fill more
    contrast_scales : half sizes of the contrast boxes, as shares of the height: 2 to 12 % objects
    unrest_share : size of the neighbourhood whose unrest a contrast must beat, of the height
    unrest_floor : least unrest, in -ln T; 3 % of brightness is what a wall's ribs do
    contrast_note : score (contrast over unrest) of a note
    contrast_review, light_review : score from which a dark and a light contrast ask for a review. On 33 real scans
        with nothing known against them the largest are 6.2 and 6.2; a gap between stacks is light and common, a void
        is rarely found at all, so light has to be stranger
    contrast_min : least difference in -ln T of a contrast finding; below, no person can check it
    free_t_ratio : transmission of free space, as a share of the wall's
    item_min_depth : least -ln T of an extra item above the wall
    item_min_share, item_max_share : smallest and largest side of an extra item, of the height
    item_free_share : part of an item's surroundings that must be free space
    item_review_score : score of an extra item, depth times size in percent of the height, that asks for a review
    alike : items of one size at one height from which they are the load: what does not belong has no row of its like
    max_area_share : contrast regions over this share of the cargo area are load, not findings
    max_findings : contrast and item findings shown per image, best first; one restless texture must not fill a screen
    energy : the lane's energy calibration; without it nothing is said of materials or mass
    material : limits of what is said of them
    """

    correction: CorrectionProfile = CorrectionProfile()
    container: ContainerProfile = ContainerProfile()
    threshold_z: float = 4.0
    grid_rows: int = 384
    max_grid_columns: int = 2048
    end_share: float = 0.05
    roof_share: float = 0.06
    floor_share: float = 0.15
    opaque_t: float = 0.03
    opaque_note_share: float = 0.01
    opaque_review_share: float = 0.25
    load_ratio: float = 0.65
    load_t: float = 0.60
    bulk_share: float = 0.023
    wall_t: float = 0.75
    wall_percentile: float = 5.0
    empty_share: float = 0.005
    loaded_share: float = 0.04
    light_ratio: float = 0.80
    light_share: float = 0.03
    contrast_scales: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08)
    unrest_share: float = 0.5
    unrest_floor: float = 0.03
    contrast_note: float = 5.0
    contrast_review: float = 6.5
    light_review: float = 8.0
    contrast_min: float = 0.10
    free_t_ratio: float = 0.85
    item_min_depth: float = 0.15
    item_min_share: float = 0.015
    item_max_share: float = 0.25
    item_free_share: float = 0.85
    item_review_score: float = 1.0
    alike: int = 4
    max_area_share: float = 0.05
    max_findings: int = 5
    energy: EnergyCalibration | None = None
    material: MaterialProfile = MaterialProfile()


class ImageJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the image of one scan says.

    load : empty, loaded, or unknown where it cannot be said
    container : in the radiograph's own columns and channels; None where none was found
    findings : opaque areas first, then contrast and items, best first
    quality : a fatal entry means the image cannot be judged
    opaque_share : part of the cargo area in which nothing can be seen, 0..1
    load_share : part of the cargo area that is cargo, 0..1; what `load` was decided on
    frame : the container as a quadrilateral in upright pixels
    material : what two energies say, with the mass or why there is none
    """

    load: Load
    container: Box | None
    findings: tuple[Finding, ...]
    quality: tuple[Quality, ...]
    timings_ms: dict[str, float]
    opaque_share: float = 0.0
    load_share: float = 0.0
    frame: Frame | None = None
    material: MaterialJudgement = MaterialJudgement()


class _Clock:
    """Collects how long each step took, in ms."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}
        self._started = self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.timings_ms[step] = (now - self._last) * 1e3
        self._last = now

    def total(self) -> dict[str, float]:
        self.timings_ms["total"] = (time.perf_counter() - self._started) * 1e3
        return self.timings_ms


class Stream:
    """Screens a radiograph while its columns come, so that little is left to do when the last one has.

    detector : as in the radiograph to come; buffers : as for `Engine`
    """

    def __init__(
        self, detector: DetectorState, profile: ImageProfile | None = None, buffers: Buffers | None = None
    ) -> None:
        p = profile or ImageProfile()
        calibration = calibrate(detector, p.correction).calibration
        self._engine: Engine | None = None
        inversion = _inversion(detector, p)
        self._on_one_grid = _one_grid(inversion)
        if calibration is not None:
            table = None if inversion is None else inversion.material_table
            self._engine = Engine(calibration, threshold_z=p.threshold_z, buffers=buffers, material_table=table)

    def push(self, counts: tuple[Array, ...]) -> None:
        """Take the next columns, per energy (n, channels) uint16, exactly those of the radiograph, in its order."""
        if self._engine is not None:
            self._engine.push(self._on_one_grid(tuple(np.ascontiguousarray(c) for c in counts)))

    def finish(self) -> Screening | None:
        """Return the screening of all columns; None if the detector's state allows none."""
        return None if self._engine is None else self._engine.finish()


def judge_image(
    radiograph: Radiograph,
    profile: ImageProfile | None = None,
    *,
    map_strips: MapStrips = map,
    buffers: Buffers | None = None,
    stream: Stream | None = None,
) -> ImageJudgement:
    """Judge one radiograph by its image alone.

    map_strips, buffers : as for `screen`; no effect on the judgement
    stream : has been given this radiograph's columns; no effect on the judgement

    Every valid radiograph gets a judgement: a broken one has a fatal quality, never an exception.
    """
    p = profile or ImageProfile()
    clock = _Clock()
    correction = correct(radiograph, p.correction)
    clock.lap("correction")
    if correction.calibration is None:
        return _unusable(list(correction.quality), clock)
    inversion = _inversion(radiograph.detector, p)
    screening = None if stream is None else stream.finish()
    if screening is None:
        table = None if inversion is None else inversion.material_table
        screening = screen(
            _one_grid(inversion)(radiograph.counts), correction.calibration, threshold_z=p.threshold_z,
            map_strips=map_strips, buffers=buffers, material_table=table,
        )  # fmt: skip
    elif screening.z.shape != radiograph.counts[0].shape:
        raise DataError(f"the stream saw {screening.z.shape}, the radiograph is {radiograph.counts[0].shape}")
    clock.lap("screening")
    transmission = _Transmission(screening.q[-1])
    small = transmission.reduced(min(1.0, p.container.working_rows / radiograph.detector.channels), least=32)
    small = small.astype(np.float32) / np.float32(_ONE)
    quality = list(correction.quality)
    quality += image_quality(radiograph, correction, small, screening.column_flags, p.correction)
    if screening.overflow:
        text = f"{screening.overflow} runs of anomalous pixels found the region table full: the image is noise or torn"
        quality.append(Quality(code="regions_incomplete", reason=text))
    clock.lap("quality")
    if any(q.fatal for q in quality):
        return _unusable(quality, clock)
    frame = _container(radiograph, small, p)
    clock.lap("container")
    if frame is None:
        text = "no container is seen in the image: nothing can be said about cargo"
        quality.append(Quality(code="no_container", reason=text))
        return ImageJudgement(
            load="unknown", container=None, findings=(), quality=tuple(quality), timings_ms=clock.total()
        )
    quality += _frame_quality(frame)
    shrunk = small.shape[0] / radiograph.columns
    first, end = int(frame.left * shrunk), int(np.ceil(frame.right * shrunk))
    quality += repeated_columns(small, first, end, radiograph.columns, p.correction)
    cargo = _Cargo(radiograph, transmission, frame, correction, screening, p)
    load, load_share = cargo.load()
    clock.lap("load")
    opaque_share, opaque = cargo.opaque()
    findings = [*opaque, *cargo.strange()]
    clock.lap("findings")
    material = _material(radiograph, screening, frame, inversion, p)
    findings += material.findings
    clock.lap("material")
    return ImageJudgement(
        load=load,
        container=box_of(
            frame,
            radiograph.columns,
            radiograph.detector.channels,
            first_channel=radiograph.detector.first_channel,
        ),
        findings=tuple(findings),
        quality=tuple(quality),
        timings_ms=clock.total(),
        opaque_share=opaque_share,
        load_share=load_share,
        frame=frame,
        material=material,
    )


def _inversion(detector: DetectorState, p: ImageProfile) -> Inversion | None:
    """Return what turns this detector's two energies into materials; None without calibration or where they do not."""
    return inversion_of(p.energy) if p.energy is not None and not why_not(detector) else None


def _one_grid(inversion: Inversion | None) -> OneGrid:
    return OneGrid(0.0 if inversion is None else inversion.calibration.interlace_columns)


def _material(
    radiograph: Radiograph, screening: Screening, frame: Frame, inversion: Inversion | None, p: ImageProfile
) -> MaterialJudgement:
    if p.energy is None:
        return MaterialJudgement()
    if inversion is None:
        return MaterialJudgement(mass=Mass(why=why_not(radiograph.detector)))
    return judge_material((screening.q[0], screening.q[1]), radiograph.detector, frame, inversion, p.material)


def _unusable(quality: list[Quality], clock: _Clock) -> ImageJudgement:
    return ImageJudgement(load="unknown", container=None, findings=(), quality=tuple(quality), timings_ms=clock.total())


class _Transmission:
    """The transmission of a whole image, in fixed point, of which no whole copy is made.

    q : (columns, channels) uint16, log codes
    """

    def __init__(self, q: Array) -> None:
        self._q = q

    def whole(self) -> Array:
        """Return (columns, channels) uint16."""
        return np.asarray(_LUT.take(self._q))

    def reduced(self, factor: float, least: int = 1) -> Array:
        """Return it reduced by area, both sides to their share `factor` or to `least` pixels; whole from a factor of 1.

        (columns, channels) float32, or uint16 where it is whole; fixed point, see _ONE. It goes strip by strip and
        narrows the channels first, so that a strip is all that is ever there in full.
        """
        if factor >= 1.0:
            return self.whole()
        columns, channels = self._q.shape
        goal = (max(least, round(channels * factor)), max(least, round(columns * factor)))
        narrow = np.empty((columns, goal[0]), np.float32)
        for first in range(0, columns, _STRIP_COLUMNS):
            strip = _LUT.take(self._q[first : first + _STRIP_COLUMNS]).astype(np.float32)
            size = (goal[0], strip.shape[0])
            narrow[first : first + _STRIP_COLUMNS] = cv2.resize(strip, size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(narrow, goal, interpolation=cv2.INTER_AREA))


def _container(radiograph: Radiograph, small: Array, p: ImageProfile) -> Frame | None:
    """Return the container in upright pixels of the full image."""
    upright = small.T[::-1] if radiograph.detector.first_channel == "bottom" else small.T
    frame = find_container(np.ascontiguousarray(upright), p.container)
    if frame is None:
        return None
    return frame.scaled(radiograph.columns / small.shape[0], radiograph.detector.channels / small.shape[1])


def _frame_quality(frame: Frame) -> list[Quality]:
    found = []
    if frame.cut:
        text = (
            f"the container goes on past the {' and '.join(frame.cut)} border of the image: no end frame is seen there"
        )
        found.append(Quality(code="container_cut", reason=text))
    if not frame.floor_seen:
        text = "no floor line is seen under the cargo: heights are measured from where the outline ends"
        found.append(Quality(code="floor_not_seen", reason=text))
    return found


class _Cargo:
    """The straightened container and the questions asked of it.

    depth : (rows, columns) float32, -ln T on the grid, at most -ln of the darkest that can be seen
    inner : slices (rows, columns) of the cargo area, structure left out
    """

    def __init__(
        self,
        radiograph: Radiograph,
        transmission: _Transmission,
        frame: Frame,
        correction: Correction,
        screening: Screening,
        p: ImageProfile,
    ) -> None:
        self.p, self.radiograph, self.frame, self.physical = p, radiograph, frame, correction.physical
        self.opaque_t = max(p.opaque_t, correction.dark_t)
        corners = frame.corners.astype(np.float64)
        if radiograph.detector.first_channel == "bottom":
            corners[:, 1] = radiograph.detector.channels - corners[:, 1]
        # image axes are (columns, channels): x of OpenCV is the channel
        factor = p.grid_rows / max(_height(corners[:, ::-1]), 1.0)
        # averaging first keeps fine texture from folding into the grid; of scores the nearest is taken
        source = transmission.reduced(factor if factor < 0.8 else 1.0)
        grid, self.to_grid = _straightened(source, screening.z.shape, corners[:, ::-1], p)
        zed, _ = _straightened(screening.z, screening.z.shape, corners[:, ::-1], p, nearest=True)
        self.transmission = grid.astype(np.float32) / np.float32(_ONE)
        self.z = zed
        self.depth = -np.log(np.clip(self.transmission, self.opaque_t, 1.0))
        rows, columns = self.depth.shape
        self.inner = (
            slice(round(p.roof_share * rows), round((1 - p.floor_share) * rows)),
            slice(round(p.end_share * columns), round((1 - p.end_share) * columns)),
        )
        self.wall = float(np.percentile(self.depth[self.inner], p.wall_percentile))

    def load(self) -> tuple[Load, float]:
        """Return the load and the share of the cargo area that is cargo."""
        p, depth = self.p, self.depth[self.inner]
        cargo = min(-np.log(p.load_t), self.wall - np.log(p.load_ratio))
        size = max(3, round(p.bulk_share * self.depth.shape[0]))
        element = np.ones((size, size), np.uint8)
        share, light = (
            float(cv2.morphologyEx((depth > over).astype(np.uint8), cv2.MORPH_OPEN, element).mean())
            for over in (cargo, self.wall - np.log(p.light_ratio))
        )
        if share >= p.loaded_share:
            return "loaded", share
        walls_only = light <= p.light_share and self.wall <= -np.log(p.wall_t)
        return ("empty" if share <= p.empty_share and walls_only else "unknown"), share

    def opaque(self) -> tuple[float, list[Finding]]:
        """Return the share of the cargo area in which nothing can be seen, and the finding that says so."""
        p = self.p
        dark: Array = (self.transmission[self.inner] < self.opaque_t).astype(np.uint8)
        dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        share = float(dark.mean())
        if share < p.opaque_note_share:
            return share, []
        rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
        y, x = self.inner[0].start, self.inner[1].start
        at = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
        kind = "transmission" if self.physical else "display grey value"
        reason = (
            f"uninspectable: {share:.0%} of the cargo area has a {kind} below {self.opaque_t:.3f} and cannot be judged "
            f"from this image; it lies {self._place(at)}"
        )
        tier: Tier = "review" if share >= p.opaque_review_share else "note"
        return share, [Finding(kind="opaque", score=share, reason=reason, tier=tier, where=self._box(at))]

    def strange(self) -> list[Finding]:
        """Return extra items in free space and local contrasts, best first, at most `max_findings`."""
        p = self.p
        items = self._items()
        spots = [s for s in self._spots() if not any(_overlap(s[1], i[1]) for i in items)]
        # both scores are put on the scale of their own review threshold to be ranked together; what has its like is
        # the load and comes last
        ranked = []
        for score, at in items:
            alike = _alike(at, [other for _, other in items])
            ranked.append((alike >= p.alike, -score / p.item_review_score, at, self._item_finding(score, at, alike)))
        for score, at in spots:
            ranked.append((False, -abs(score) / self._review_score(score), at, self._spot_finding(score, at)))
        ranked.sort(key=lambda r: r[:3])
        return [finding for *_, finding in ranked[: p.max_findings]]

    # -- extra items in free space

    def _items(self) -> list[tuple[float, tuple[int, int, int, int]]]:
        """Return score and grid rectangle (x0, y0, x1, y1) of compact dark items in otherwise free space."""
        p, (rows, columns) = self.p, self.inner
        depth = np.ascontiguousarray(self.depth[rows, columns])
        height = self.depth.shape[0]
        largest = round(p.item_max_share * height)
        above = depth - self.wall
        # ribs, posts and seams are longer than any item: what survives opening along a line of that length is structure
        lines = np.maximum(
            cv2.morphologyEx(above, cv2.MORPH_OPEN, np.ones((largest, 1), np.uint8)),
            cv2.morphologyEx(above, cv2.MORPH_OPEN, np.ones((1, largest), np.uint8)),
        )
        item: Array = (above - lines > p.item_min_depth).astype(np.uint8)
        item = cv2.morphologyEx(item, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        free = above < -np.log(p.free_t_ratio)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(item, connectivity=8)
        smallest = p.item_min_share * height
        found = []
        for label in range(1, min(count, 4000)):
            x, y, w, h, area = (int(v) for v in stats[label])
            if min(w, h) < smallest or max(w, h) > largest or area < 0.4 * w * h:
                continue
            margin = max(3, round(0.3 * max(w, h)))
            y0, y1, x0, x1 = max(0, y - margin), y + h + margin, max(0, x - margin), x + w + margin
            own = cv2.dilate((labels[y0:y1, x0:x1] == label).astype(np.uint8), np.ones((5, 5), np.uint8)) != 0
            around = free[y0:y1, x0:x1][~own]
            if around.size == 0 or around.mean() < p.item_free_share:
                continue
            inside = labels[y : y + h, x : x + w] == label
            excess = float(np.mean((above - lines)[y : y + h, x : x + w][inside]))
            score = excess * 100 * np.sqrt(area) / height
            at = (x + columns.start, y + rows.start, x + w + columns.start, y + h + rows.start)
            found.append((float(score), at))
        return sorted(found, key=lambda f: (-f[0], f[1]))

    def _item_finding(self, score: float, at: tuple[int, int, int, int], alike: int) -> Finding:
        inside, around = self._levels(at)
        of_many = f"; one of {alike} alike in a row, so likely the load" if alike >= self.p.alike else ""
        reason = (
            f"compact dark item in free space {self._place(at)}: {self._darker(inside, around)}; "
            f"score {score:.1f} (depth x size, uncalibrated){of_many}"
        )
        tier: Tier = "review" if score >= self.p.item_review_score and not of_many else "note"
        return Finding(kind="extra_item_in_free_space", score=score, reason=reason, tier=tier, where=self._box(at))

    # -- local contrast

    def _spots(self) -> list[tuple[float, tuple[int, int, int, int]]]:
        """Return signed score and grid rectangle of places that differ from their surroundings, best first."""
        p = self.p
        found: list[tuple[float, tuple[int, int, int, int]]] = []
        for share in p.contrast_scales:
            found += self._spots_at(max(2, round(share * self.depth.shape[0])))
        found.sort(key=lambda f: (-abs(f[0]) / self._review_score(f[0]), f[1]))
        kept: list[tuple[float, tuple[int, int, int, int]]] = []
        for score, at in found:
            if not any(_overlap(at, other) for _, other in kept):
                kept.append((score, at))
            if len(kept) >= p.max_findings:
                break
        return kept

    def _review_score(self, score: float) -> float:
        """Return the size a signed contrast score must reach for a review."""
        return self.p.contrast_review if score > 0 else self.p.light_review

    def _spots_at(self, half: int) -> list[tuple[float, tuple[int, int, int, int]]]:
        p, (rows, columns) = self.p, self.inner
        depth = self.depth[rows, columns]
        if min(depth.shape) < 6 * half:
            return []
        seen = (self.transmission[rows, columns] >= self.opaque_t).astype(np.float32)
        contrast = _box_contrast(depth, half)
        # an edge of what cannot be seen says nothing: at least 60 % of the surroundings must be visible
        visible = cv2.blur(seen, (6 * half + 1, 6 * half + 1)) >= 0.6
        contrast, structure = _without_rows_and_columns(contrast, visible, 2 * half)
        window = 2 * round(p.unrest_share * self.depth.shape[0] / 2) + 1
        weight = cv2.blur(visible.astype(np.float32), (window, window)) + 1e-3
        unrest = cv2.blur(np.where(visible, contrast**2, 0).astype(np.float32), (window, window)) / weight
        unrest += structure + p.unrest_floor**2
        score = np.where(visible, contrast / np.sqrt(unrest), 0).astype(np.float32)
        found = []
        for sign in (1.0, -1.0):
            found += self._peaks(sign * score, sign * contrast, half, sign)
        return found

    def _peaks(
        self, score: Array, contrast: Array, half: int, sign: float
    ) -> list[tuple[float, tuple[int, int, int, int]]]:
        """Return the strongest compact regions of one sign at one scale."""
        p, (rows, columns) = self.p, self.inner
        found = []
        mask = ((score >= 0.6 * p.contrast_note) & (contrast >= 0.6 * p.contrast_min)).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for label in range(1, count):
            x, y, w, h, area = (int(v) for v in stats[label])
            if area < half * half or max(w, h) > 6 * min(w, h) or area > p.max_area_share * score.size:
                continue
            inside = labels[y : y + h, x : x + w] == label
            peak = float(score[y : y + h, x : x + w][inside].max())
            if peak < p.contrast_note or float(contrast[y : y + h, x : x + w][inside].max()) < p.contrast_min:
                continue
            at = (x + columns.start, y + rows.start, x + w + columns.start, y + h + rows.start)
            found.append((sign * peak, at))
        return found

    def _spot_finding(self, score: float, at: tuple[int, int, int, int]) -> Finding:
        p = self.p
        inside, around = self._levels(at)
        x0, y0, x1, y1 = at
        steepest = float(self.z[y0:y1, x0:x1].max()) / Z_STEPS
        sharp = f", pixel z {steepest:.1f}" if steepest >= p.threshold_z else ""
        reason = (
            f"{'darker' if score > 0 else 'lighter'} than its surroundings {self._place(at)}: "
            f"{self._darker(inside, around)}; {abs(score):.1f} times the unrest around it{sharp} (uncalibrated)"
        )
        return Finding(
            kind="local_contrast_dark" if score > 0 else "local_contrast_light",
            score=abs(score),
            reason=reason,
            tier="review" if abs(score) >= self._review_score(score) else "note",
            where=self._box(at),
        )

    # -- words and places

    def _levels(self, at: tuple[int, int, int, int]) -> tuple[float, float]:
        """Return the median transmission inside a grid rectangle and in the frame of half its size around it."""
        x0, y0, x1, y1 = at
        rows, columns = self.transmission.shape
        margin = max(3, (min(x1 - x0, y1 - y0) + 1) // 2)
        top, left = max(0, y0 - margin), max(0, x0 - margin)
        around = self.transmission[top : min(rows, y1 + margin), left : min(columns, x1 + margin)]
        ring = np.ones(around.shape, np.bool_)
        ring[y0 - top : y1 - top, x0 - left : x1 - left] = False
        inside = float(np.median(self.transmission[y0:y1, x0:x1]))
        return inside, float(np.median(around[ring])) if ring.any() else inside

    def _darker(self, inside: float, around: float) -> str:
        name = "transmission" if self.physical else "grey value"
        times = inside / max(around, self.opaque_t)
        change = (
            f"{1 - times:.0%} less" if times <= 1 else f"{times - 1:.0%} more" if times < 2 else f"{times:.1f} times"
        )
        return f"{name} {inside:.2f} against {around:.2f} around it ({change})"

    def _place(self, at: tuple[int, int, int, int]) -> str:
        """Say where a grid rectangle is, in metres where the sampling is known, else in percent of the container."""
        x0, y0, x1, y1 = at
        rows, columns = self.depth.shape
        x, y, w, h = (x0 + x1) / 2 / columns, 1 - (y0 + y1) / 2 / rows, (x1 - x0) / columns, (y1 - y0) / rows
        detector = self.radiograph.detector
        if detector.column_pitch_mm is None or detector.channel_pitch_mm is None:
            return (
                f"at {100 * x:.0f} % of the length from the left, {100 * y:.0f} % of the height above the floor, "
                f"{100 * w:.1f} % long, {100 * h:.1f} % high"
            )
        length = (self.frame.right - self.frame.left) * detector.column_pitch_mm / 1000
        height = self.frame.height * detector.channel_pitch_mm / 1000
        return (
            f"{length * x:.2f} m from the left end, {height * y:.2f} m above the floor, {length * w:.2f} m long, "
            f"{height * h:.2f} m high"
        )

    def _box(self, at: tuple[int, int, int, int]) -> Box:
        """Return the box of a grid rectangle in the radiograph's own columns and channels."""
        x0, y0, x1, y1 = at
        corners = np.array([[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]], np.float64)
        points = cv2.perspectiveTransform(corners, np.linalg.inv(self.to_grid))[0]
        sizes = (self.radiograph.detector.channels, self.radiograph.columns)
        (c0, c1), (k0, k1) = (
            _clipped(float(points[:, axis].min()), float(points[:, axis].max()), sizes[axis]) for axis in (0, 1)
        )
        return Box(first_column=k0, end_column=k1, first_channel=c0, end_channel=c1)


def _clipped(low: float, high: float, size: int) -> tuple[int, int]:
    first = int(min(max(np.floor(low), 0), size - 1))
    return first, int(min(max(np.ceil(high), first + 1), size))


def _height(corners: Array) -> float:
    """Return the mean height, in channels, of (4, 2) corners: roof left, roof right, floor right, floor left."""
    return float(np.mean(np.abs(corners[3:1:-1, 0] - corners[:2, 0])))


def _straightened(
    source: Array, shape: tuple[int, int], corners: Array, p: ImageProfile, *, nearest: bool = False
) -> tuple[Array, Array]:
    """Return the container as a (grid rows, grid columns) grid and the matrix from (channel, column) to the grid.

    source : an image of (columns, channels) `shape`, or a reduction of it
    corners : (4, 2) of (channel, column): roof left, roof right, floor right, floor left
    """
    length = float(corners[1, 1] - corners[0, 1])
    rows = p.grid_rows
    columns = int(np.clip(round(length * rows / max(_height(corners), 1.0)), 64, p.max_grid_columns))
    goal = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    to_grid = cv2.getPerspectiveTransform(corners.astype(np.float32), goal)
    back = np.diag([source.shape[1] / shape[1], source.shape[0] / shape[0], 1.0])
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    matrix = to_grid @ np.linalg.inv(back)
    grid = cv2.warpPerspective(source, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return grid, to_grid


def _box_contrast(depth: Array, half: int) -> Array:
    """Return mean over a box minus mean over the ring around it, up to three times as wide."""
    inner, outer = 2 * half + 1, 6 * half + 1
    inside = cv2.blur(depth, (inner, inner), borderType=cv2.BORDER_REPLICATE)
    all_of_it = cv2.blur(depth, (outer, outer), borderType=cv2.BORDER_REPLICATE)
    area = (inner / outer) ** 2
    return np.asarray((inside - all_of_it) / (1 - area))


def _without_rows_and_columns(contrast: Array, visible: Array, reach: int) -> tuple[Array, Array]:
    """Return the contrast less what is common to its row and to its column, and the square of what was taken away.

    Ribs, seams, rails and gaps between stacks are common. Where a post meets a rail there is more than both, a casting
    or a bracket; so what lies within `reach` of structure must stand out against the structure as well.
    """
    left = np.where(visible, contrast, 0.0)
    structure = np.zeros_like(left)
    for axis in (1, 0):
        common = np.median(left, axis=axis, keepdims=True)
        left = left - common
        size = (1, 2 * reach + 1) if axis == 1 else (2 * reach + 1, 1)
        structure += cv2.dilate(common**2, np.ones(size[::-1], np.uint8))
    return np.asarray(np.where(visible, left, 0.0).astype(np.float32)), structure


def _alike(at: tuple[int, int, int, int], others: list[tuple[int, int, int, int]]) -> int:
    """Return how many rectangles, itself counted, have about its size and stand about as high."""
    w, h = at[2] - at[0], at[3] - at[1]
    return sum(
        abs(o[2] - o[0] - w) <= max(3, 0.25 * w)
        and abs(o[3] - o[1] - h) <= max(3, 0.25 * h)
        and abs(o[3] - at[3]) <= max(4, 0.25 * h)
        for o in others
    )


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """True where two rectangles share more than a third of the smaller one."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return w > 0 and h > 0 and w * h > smaller / 3
