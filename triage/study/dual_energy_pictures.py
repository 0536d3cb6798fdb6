"""Pictures of what two energies say: classes in colour, areal density in grey, words beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import ScannerError
from scanner_io.storage import write_durable
from triage.analysis.dual_energy import ABOVE_ALL, ANY_CLASS, BELOW_ALL, CLASSES, OPAQUE, Inversion, codes_of
from triage.analysis.material import MaterialJudgement

Array: TypeAlias = NDArray[Any]

COLOURS_RGB = ((240, 140, 40), (70, 170, 70), (50, 100, 220), (170, 40, 170))
"""Organic orange, light metal green, steel blue, high-Z violet, as on the screens of scanners."""
AMBIGUOUS_PALE = 0.55
"""How much of grey an ambiguous set's mixed colour has."""
GREY, WHITE = (150, 150, 150), (255, 255, 255)
SCALE = 6


def palette() -> Array:
    """Return the colour (256, 3) uint8 RGB of every set: its class, or a pale mixture of those it cannot tell apart."""
    colours = np.zeros((256, 3), np.uint8)
    colours[0] = WHITE
    for held in range(1, ANY_CLASS + 1):
        own = [COLOURS_RGB[b] for b in range(4) if held & (1 << b)]
        mean = np.mean(own, axis=0)
        colours[held] = mean if len(own) == 1 else mean * (1 - AMBIGUOUS_PALE) + np.array(GREY) * AMBIGUOUS_PALE
    for held in range(256):
        if held & OPAQUE:
            colours[held] = (0, 0, 0)
        elif held & ABOVE_ALL:
            colours[held] = (220, 0, 0)
        elif held & BELOW_ALL:
            colours[held] = (230, 220, 0)
    return colours


def scene_picture(path: Path, scene: Any, inversion: Inversion, said: MaterialJudgement) -> None:
    """Write three maps under each other: classes pixel by pixel, classes by segment, areal density; with a legend."""
    wall = said.wall_alpha
    q = tuple(codes_of((scene[n] - w).T.copy()) for n, w in (("im_L", wall[0]), ("im_H", wall[1])))
    density, sets = inversion.look_up(*q)
    segments = np.full((*sets.T.shape, 3), 255, np.uint8)
    colours = palette()
    for segment in said.segments:
        box = segment.where
        own = (slice(box.first_channel, box.end_channel), slice(box.first_column, box.end_column))
        segments[own] = colours[segment.told.classes]
    grey = np.clip(255 - density.T * 2, 0, 255).astype(np.uint8)
    panels = [
        ("each pixel, walls taken away", colours[sets.T]),
        ("by segment (mean over pixels, walls taken away)", segments),
        ("areal density, white 0, black 128 g/cm2", np.repeat(grey[..., np.newaxis], 3, axis=2)),
    ]
    drawn = [_panel(title, image) for title, image in panels]
    drawn[1] = _labelled(drawn[1], said)
    title = _text_band("Geant4 dual-energy scene 9/6 MV, SIMULATED by others", drawn[0].shape[1])
    write_png(path, np.vstack([title, *drawn, _legend(drawn[0].shape[1])]))


def _panel(title: str, image: Array) -> Array:
    large = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    return np.vstack([_text_band(title, large.shape[1]), large])


def _labelled(panel: Array, said: MaterialJudgement) -> Array:
    band = panel.shape[0] - said_height(panel)
    for s in said.segments:
        if s.area_share < 0.002:
            continue
        at = (s.where.first_column * SCALE + 3, band + s.where.first_channel * SCALE + 16)
        v = s.told
        _write(panel, f"Z {v.low_z:.0f}-{v.high_z:.0f}", at, (0, 0, 0))
        _write(panel, f"{v.areal_density_g_cm2:.0f} g/cm2", (at[0], at[1] + 16), (0, 0, 0))
    return panel


def said_height(panel: Array) -> int:
    """Return the height of the image part of a panel."""
    return int(panel.shape[0] - BAND)


BAND = 26


def _text_band(text: str, width: int) -> Array:
    band = np.full((BAND, width, 3), 255, np.uint8)
    _write(band, text, (6, 18), (0, 0, 0))
    return band


def _legend(width: int) -> Array:
    band = np.full((2 * BAND, width, 3), 255, np.uint8)
    x = 6
    entries = [*zip(CLASSES, COLOURS_RGB, strict=True), ("more than any material", (220, 0, 0)), ("opaque", (0, 0, 0))]
    for name, colour in entries:
        cv2.rectangle(band, (x, 6), (x + 16, 20), colour, -1)
        _write(band, name, (x + 22, 18), (0, 0, 0))
        x += 40 + 9 * len(name)
    _write(
        band, "pale mixtures: ambiguous, any of the colours mixed; white: too thin to say", (6, BAND + 18), (0, 0, 0)
    )
    return band


def _write(image: Array, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def write_png(path: Path, rgb: Array) -> None:
    """Write an RGB image. Raises ScannerError where it cannot be encoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, png = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    if not done:
        raise ScannerError(f"{path}: the picture could not be encoded as PNG")
    write_durable(path, png.tobytes(), replace=True)
