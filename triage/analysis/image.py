"""What a radiograph alone says: where the container is, whether it is empty, what in it deserves a look, what cannot
be seen.

Contrast alone is a poor witness: the structure of the container (end frames, floor strip, roof beams, ribs) and the
order of the load (gaps between stacks) have the contrast of what is searched for. So the container is straightened onto
a grid of its own height, what repeats along a row or a column of the grid is taken away, and what is left must stand
out against the unrest around it, not against noise. What is too dark to see is never searched; it is measured and said.

No threshold here is calibrated on insertions: scores order findings, they are not probabilities. What is unusual only a
lane's own scans can say: with its profile findings have a p-value, without one p_value stays None.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from scanner_io.lane_profile import LaneProfile
from scanner_io.model import Box, DetectorState, Finding, Load, Quality, Radiograph, Standing

from .cargo_grid import ONE, CargoGrid, TransmissionImage
from .cargo_load import load_of
from .container import Frame, box_of, find_containers
from .container_seen import ContainerSeen
from .container_size import size_of
from .correction import calibrate, correct, image_quality, repeated_columns
from .dual_energy import Inversion, OneGrid, inversion_of
from .fuser import Fuser
from .image_damage import energies_disagree, image_damage
from .image_faults import (
    dead_module,
    energies_apart,
    floor_is_real,
    image_faults,
    is_inverted,
    is_upside_down,
    swapped,
    without_dead_lines,
)
from .image_profile import ImageProfile
from .kinds import scores, search
from .known import Asked, Known
from .material import Mass, MaterialJudgement, judge_material, why_not
from .screening import Buffers, Engine, MapStrips, Screening, screen
from .several import judge_each
from .standing import Lane, cell_of, standing_of, unlearned, verdict_of
from .strange_places import strange_places
from .uninspectable import Uninspectable, opaque_part, uninspectable
from .unlike import unlike_all_that_was_learnt
from .vehicle import Vehicle, vehicle_with, vehicle_without
from .vital_signs import vital_signs

__all__ = ["ImageJudgement", "ImageProfile", "Stream", "judge_image"]

Array: TypeAlias = NDArray[Any]
Look: TypeAlias = Callable[[Asked], None]


class ImageJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the image of one scan says.

    load : empty, loaded, or unknown where it cannot be said
    container : in the radiograph's own columns and channels; None where none was found
    findings : opaque areas first, then a look that is not known, then contrast and items, best first
    quality : a fatal entry means the image cannot be judged
    opaque_share : part of the cargo area in which nothing can be seen, 0..1; the worst of several containers
    load_share : part of the cargo area that is cargo, 0..1; what `load` was decided on
    frame : the container as a quadrilateral in upright pixels, the longest of several; of an image that is upside down,
        in those of the image turned round
    material : what two energies say, with the mass or why there is none
    uninspectable : where nothing can be seen, one mask per container
    containers : each container, left to right
    vehicle : what else is seen, or what is seen instead of a container; None where the image is unusable
    scores : per kind of finding that was searched for, the score of the strangest candidate, see `kinds.scores`
    vital_signs : see `vital_signs`
    cell : texture class of the load, and declared chapter: what kind of scan this is
    standing : among the scans of the lane's profile, None without one
    traits : the load in the numbers of `goods_profile.NAMES`; none where there is too little of it
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
    uninspectable: tuple[Uninspectable, ...] = ()
    containers: tuple[ContainerSeen, ...] = ()
    vehicle: Vehicle | None = None
    scores: dict[str, float] = {}
    vital_signs: dict[str, float | None] = {}
    cell: tuple[str, str] = ("", "")
    standing: Standing | None = None
    traits: tuple[float, ...] = ()


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
    known: Known | None = None,
    lane: Lane = None,
    fuser: Fuser | None = None,
    look: Look | None = None,
) -> ImageJudgement:
    """Judge one radiograph by its image, and by what else is known of the passage.

    map_strips, buffers : as for `screen`; no effect on the judgement
    stream : has been given this radiograph's columns; no effect on the judgement
    known : papers, what the portal saw, an earlier scan
    lane : what is usual on this scan's lane
    fuser : with the lane's own normal; None for the one that the profile names
    look : is shown what the one container of the image is asked about; no effect on the judgement

    Every valid radiograph gets a judgement: a broken one has a fatal quality, never an exception.
    """
    p = _on_lane(profile or ImageProfile(), lane)
    clock = _Clock()
    mended, dead = without_dead_lines(radiograph, p.faults)
    if dead:
        return _after(_unless_inverted(dead, radiograph, p), mended, p, map_strips, buffers, known, lane, fuser)
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
    transmission = TransmissionImage(screening.q[-1])
    small = transmission.reduced(min(1.0, p.container.working_rows / radiograph.detector.channels), least=32)
    small = small.astype(np.float32) / np.float32(ONE)
    quality = [*correction.quality, *dead_module(radiograph, p.faults), *energies_apart(radiograph, p.faults)]
    quality += image_quality(radiograph, correction, small, screening.column_flags, p.correction)
    if screening.overflow:
        text = f"{screening.overflow} runs of anomalous pixels found the region table full: the image is noise or torn"
        quality.append(Quality(code="regions_incomplete", reason=text))
    clock.lap("quality")
    if any(q.fatal for q in quality):
        return _unusable(quality, clock)
    upright = np.ascontiguousarray(small.T[::-1] if radiograph.detector.first_channel == "bottom" else small.T)
    frames = find_containers(upright, p.container)
    if is_upside_down(upright, frames, p.container, p.faults):
        return _after([_UPSIDE_DOWN], _turned(radiograph), p, map_strips, buffers, known, lane, fuser)
    clock.lap("container")
    if not frames:
        return _no_container(radiograph, upright, quality, p, clock)
    frames = tuple(_floor_checked(upright, f, p) for f in frames)
    vehicle, frames = _vehicle(radiograph, upright, frames, p)
    quality += _not_searched(vehicle, radiograph.columns)
    quality += image_faults(radiograph, frames, vehicle, p.faults)
    quality += image_damage(radiograph, correction, frames, p.damage)
    quality += energies_disagree(radiograph, correction, frames, p.damage)
    clock.lap("vehicle")
    if len(frames) > 1:

        def judge_part(part: Radiograph, of: Known | None, usual: Lane) -> ImageJudgement:
            return judge_image(part, p, map_strips=map_strips, known=of, lane=usual, fuser=fuser)

        each = judge_each(radiograph, frames, judge_part, known, lane)
        told = {q.code for q in quality}
        more = (q for q in each.quality if q.code not in told)
        return msgspec.structs.replace(each, quality=(*quality, *more), vehicle=vehicle)
    frame = frames[0]
    quality += _frame_quality(frame)
    shrunk = small.shape[0] / radiograph.columns
    first, end = int(frame.left * shrunk), int(np.ceil(frame.right * shrunk))
    if all(q.code != "repeated_columns" for q in quality):
        quality += repeated_columns(small, first, end, radiograph.columns, p.correction)
    cargo = CargoGrid(radiograph, transmission, frame, correction, screening, p)
    load, load_share = load_of(cargo)
    clock.lap("load")
    unseen = uninspectable(cargo)
    opaque = opaque_part(cargo, unseen)
    asked = Asked(cargo, load_share, known, map_parts=map_strips, fuser=fuser)
    if asked.seen is not None:
        clock.lap("maps")
    found = search(asked)
    if look is not None:
        look(asked)
    texture = "" if asked.seen is None else asked.seen.texture
    cell = cell_of(load, None if known is None else known.declaration, texture=texture)
    verdict = verdict_of(lane, scores(found), cell)
    findings = [*opaque, *unlearned(lane, verdict)]
    if asked.seen is not None and asked.fuser is not None:
        findings += unlike_all_that_was_learnt(asked.seen, asked.fuser)
    findings += strange_places(cargo, found, verdict)
    clock.lap("findings")
    strange = None if asked.seen is None else asked.seen.strange
    vitals = vital_signs(screening.q[-1], cargo, load_share, unseen.share, strange)
    clock.lap("vital signs")
    material = _material(radiograph, screening, frame, inversion, p)
    findings += material.findings
    clock.lap("material")
    findings += _told_of_display(radiograph)
    box = box_of(
        frame, radiograph.columns, radiograph.detector.channels, first_channel=radiograph.detector.first_channel
    )
    size = size_of(frame, radiograph.detector, vehicle.wheels.stretch)
    seen = ContainerSeen(
        frame=frame, box=box, load=load, load_share=load_share, opaque_share=unseen.share, size=size,
        structure=cargo.structure,
    )  # fmt: skip
    return ImageJudgement(
        load=load,
        container=box,
        findings=tuple(findings),
        quality=tuple(quality),
        timings_ms=clock.total(),
        opaque_share=unseen.share,
        load_share=load_share,
        frame=frame,
        material=material,
        uninspectable=(unseen,),
        containers=(seen,),
        vehicle=vehicle,
        scores=scores(found),
        vital_signs=vitals,
        cell=cell,
        standing=standing_of(lane, verdict, scores(found), vitals, cell, findings),
        traits=() if asked.traits is None else tuple(asked.traits.tolist()),
    )


def _on_lane(p: ImageProfile, lane: Lane) -> ImageProfile:
    """Return the thresholds with the side of the tractors that the lane has learned, if nobody set one."""
    if not isinstance(lane, LaneProfile) or lane.tractor == "" or p.faults.tractor is not None:
        return p
    return msgspec.structs.replace(p, faults=msgspec.structs.replace(p.faults, tractor=lane.tractor))


_UPSIDE_DOWN = Quality(
    code="image_upside_down",
    reason="the floor of the container is at the top of the image: judged the other way up; check first_channel",
)


_INVERTED = Quality(
    code="polarity_inverted",
    reason="a container is seen only where dark is taken for bright: set the polarity of the image the other way",
    fatal=True,
)


_BRIGHTER = Quality(
    code="polarity_inverted",
    reason="no container is seen, and part of the image lets through more than the open beam: the greys are turned "
    "round, or the references are not of this beam",
    fatal=True,
)


def _unless_inverted(dead: list[Quality], radiograph: Radiograph, p: ImageProfile) -> list[Quality]:
    """Return what is said of dead lines; of an image too dark to judge whose greys are turned round, say that."""
    if not any(q.fatal for q in dead):
        return dead
    detector = radiograph.detector
    step = max(1, detector.channels // p.container.working_rows)
    small = radiograph.counts[-1][::step, ::step].astype(np.float32).T / np.float32(detector.saturation_value)
    upright = np.ascontiguousarray(small[::-1] if detector.first_channel == "bottom" else small)
    return [_INVERTED] if is_inverted(upright, p.container) else dead


def _floor_checked(upright: Array, frame: Frame, p: ImageProfile) -> Frame:
    real = not frame.floor_seen or floor_is_real(upright, frame, p.faults)
    return frame if real else msgspec.structs.replace(frame, floor_seen=False)


def _after(
    told: list[Quality],
    radiograph: Radiograph,
    p: ImageProfile,
    map_strips: MapStrips,
    buffers: Buffers | None,
    known: Known | None,
    lane: Lane,
    fuser: Fuser | None,
) -> ImageJudgement:
    """Judge a radiograph that was put right, and tell what was wrong with it."""
    if any(q.fatal for q in told):
        return _unusable(told, _Clock())
    judged = judge_image(radiograph, p, map_strips=map_strips, buffers=buffers, known=known, lane=lane, fuser=fuser)
    return msgspec.structs.replace(judged, quality=(*told, *judged.quality))


def _turned(radiograph: Radiograph) -> Radiograph:
    """Return the same columns and channels, with the other end of the array on top."""
    end: Literal["top", "bottom"] = "top" if radiograph.detector.first_channel == "bottom" else "bottom"
    return msgspec.structs.replace(radiograph, detector=msgspec.structs.replace(radiograph.detector, first_channel=end))


def _no_container(
    radiograph: Radiograph, upright: Array, quality: list[Quality], p: ImageProfile, clock: _Clock
) -> ImageJudgement:
    """Return the judgement of an image without a container: what is seen instead, or that it is no image."""
    if order := swapped(radiograph, p.faults):
        return _unusable([*quality, *order], clock)
    if is_inverted(upright, p.container):
        return _unusable([*quality, _INVERTED], clock)
    if any(q.code == "brighter_than_air" for q in quality):
        return _unusable([*quality, _BRIGHTER], clock)
    vehicle = vehicle_without(upright, p.container)
    text = f"no container is seen in the image, but {vehicle.words}: nothing can be said about cargo"
    quality.append(Quality(code="no_container", reason=text))
    return ImageJudgement(
        load="unknown", container=None, findings=(), quality=tuple(quality), timings_ms=clock.total(), vehicle=vehicle
    )


def _vehicle(
    radiograph: Radiograph, upright: Array, frames: tuple[Frame, ...], p: ImageProfile
) -> tuple[Vehicle, tuple[Frame, ...]]:
    """Return the vehicle and the containers, both in upright pixels of the full image."""
    detector = radiograph.detector
    sx, sy = radiograph.columns / upright.shape[1], detector.channels / upright.shape[0]
    round_at = None
    if detector.column_pitch_mm is not None and detector.channel_pitch_mm is not None:
        round_at = detector.channel_pitch_mm * sy / (detector.column_pitch_mm * sx)
    vehicle = vehicle_with(upright, frames, round_at, p.container)
    return vehicle.scaled(sx, sy), tuple(f.scaled(sx, sy) for f in frames)


def _not_searched(vehicle: Vehicle, columns: int) -> list[Quality]:
    """Return that there is more than a cab beside the containers: a heap, a tank, a box that was not known for one."""
    if not vehicle.beyond:
        return []
    spans = " and ".join(f"{max(0, int(x0))} to {min(columns, int(np.ceil(x1)))}" for x0, _, x1, _ in vehicle.beyond)
    text = (
        f"beside the containers something stands in columns {spans} that is not a cab alone: it was not searched; look "
        "at it yourself"
    )
    return [Quality(code="beyond_container", reason=text)]


def _told_of_display(radiograph: Radiograph) -> list[Finding]:
    """Return the note that greys are no transmission; it asks for nothing, for some lanes have nothing else."""
    if radiograph.detector.state != "display":
        return []
    text = "the image was windowed for display: grey values are no transmission, and what is black may be far from it"
    return [Finding(kind="display_windowed", score=0.0, reason=text, tier="note")]


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


def _frame_quality(frame: Frame) -> list[Quality]:
    found = []
    if frame.cut:
        text = (
            f"the container goes on past the {' and '.join(frame.cut)} border of the image: no end frame is seen there"
        )
        found.append(Quality(code="container_cut", reason=text))
    if not frame.floor_seen:
        text = (
            "no floor with cross-members is seen: heights are measured from where the outline ends, and the container "
            "may go on below"
        )
        found.append(Quality(code="floor_not_seen", reason=text))
    return found
