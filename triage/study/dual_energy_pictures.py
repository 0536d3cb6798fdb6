"""Pictures of `scanlane evaluate dual-energy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import ScannerError
from scanner_io.storage import write_durable
from triage.analysis.dual_energy import Inversion, codes_of
from triage.analysis.material import MaterialJudgement
from triage.analysis.material_picture import BAND, legend, palette, text_band, write

Array: TypeAlias = NDArray[Any]

SCALE = 6


def scene_picture(path: Path, scene: Any, inversion: Inversion, said: MaterialJudgement) -> None:
    """Write three maps under each other: classes pixel by pixel, classes by segment, areal density; with a legend."""
    wall = said.wall_alpha
    q = tuple(codes_of((scene[n] - w).T.copy()) for n, w in (("im_L", wall[0]), ("im_H", wall[1])))
    density, sets = inversion.look_up(q[0], q[1])
    segments = np.full((*sets.T.shape, 3), 255, np.uint8)
    colours = palette()
    for segment in said.segments:
        box = segment.where
        own = (slice(box.first_channel, box.end_channel), slice(box.first_column, box.end_column))
        segments[own] = colours[segment.told.classes]
    grey = np.clip(255 - density.T * 2, 0, 255).astype(np.uint8)
    panels = [
        _panel("each pixel, walls taken away", colours[sets.T]),
        _labelled(_panel("segments, drawn as boxes: mean over pixels, walls taken away", segments), said),
        _panel("areal density, white 0, black 128 g/cm2", np.repeat(grey[..., np.newaxis], 3, axis=2)),
    ]
    width = panels[0].shape[1]
    title = text_band("Geant4 dual-energy scene 9/6 MV, SIMULATED by others", width)
    write_png(path, np.vstack([title, *panels, legend(width)]))


def _panel(title: str, image: Array) -> Array:
    large = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    return np.vstack([text_band(title, large.shape[1]), large])


def _labelled(panel: Array, said: MaterialJudgement) -> Array:
    for s in said.segments:
        if s.area_share < 0.002:
            continue
        at = (s.where.first_column * SCALE + 3, BAND + s.where.first_channel * SCALE + 16)
        v = s.told
        write(panel, f"Z {v.low_z:.0f}-{v.high_z:.0f}", at)
        write(panel, f"{v.areal_density_g_cm2:.0f} g/cm2", (at[0], at[1] + 16))
    return panel


def write_png(path: Path, rgb: Array) -> None:
    """Write an RGB image. Raises ScannerError where it cannot be encoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, png = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    if not done:
        raise ScannerError(f"{path}: the picture could not be encoded as PNG")
    write_durable(path, png.tobytes(), replace=True)
