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

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from scanner_io.model import Box, DetectorState, Finding, Load, Quality, Radiograph

from .cargo_grid import ONE, CargoGrid, TransmissionImage
from .cargo_load import load_of, opaque_part
from .container import Frame, box_of, find_container
from .correction import calibrate, correct, image_quality, repeated_columns
from .dual_energy import Inversion, OneGrid, inversion_of
from .image_profile import ImageProfile
from .kinds import scores, search
from .known import Asked, Known
from .material import Mass, MaterialJudgement, judge_material, why_not
from .screening import Buffers, Engine, MapStrips, Screening, screen
from .strange_places import strange_places

__all__ = ["ImageJudgement", "ImageProfile", "Stream", "judge_image"]

Array: TypeAlias = NDArray[Any]


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
    scores : per kind of finding that was searched for, the score of the strangest candidate, see `kinds.scores`
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
    scores: dict[str, float] = {}


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
) -> ImageJudgement:
    """Judge one radiograph by its image, and by what else is known of the passage.

    map_strips, buffers : as for `screen`; no effect on the judgement
    stream : has been given this radiograph's columns; no effect on the judgement
    known : papers, what the portal saw, an earlier scan

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
    transmission = TransmissionImage(screening.q[-1])
    small = transmission.reduced(min(1.0, p.container.working_rows / radiograph.detector.channels), least=32)
    small = small.astype(np.float32) / np.float32(ONE)
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
    cargo = CargoGrid(radiograph, transmission, frame, correction, screening, p)
    load, load_share = load_of(cargo)
    clock.lap("load")
    opaque_share, opaque = opaque_part(cargo)
    found = search(Asked(cargo, load_share, known))
    findings = [*opaque, *strange_places(cargo, found)]
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
        scores=scores(found),
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
