"""What two energies say of every pixel, as a picture: classes in colour, what cannot be told in pale mixtures."""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Radiograph

from .correction import correct
from .dual_energy import ABOVE_ALL, ANY_CLASS, BELOW_ALL, CLASSES, OPAQUE, OneGrid, inversion_of
from .image import ImageProfile
from .material import why_not
from .screening import screen

Array: TypeAlias = NDArray[Any]

COLOURS_RGB = ((240, 140, 40), (70, 170, 70), (50, 100, 220), (170, 40, 170))
"""Organic orange, light metal green, steel blue, high-Z violet, as on the screens of scanners."""
AMBIGUOUS_PALE = 0.55
"""How much of grey an ambiguous set's mixed colour has."""
GREY, WHITE, ABOVE_RED, BELOW_YELLOW = (150, 150, 150), (255, 255, 255), (220, 0, 0), (230, 220, 0)
BAND = 26
"""Height of a line of text."""


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
            colours[held] = 0
        elif held & ABOVE_ALL:
            colours[held] = ABOVE_RED
        elif held & BELOW_ALL:
            colours[held] = BELOW_YELLOW
    return colours


def material_map(radiograph: Radiograph, profile: ImageProfile, *, simulated: bool = False) -> Array | None:
    """Return classes by colour over areal density by lightness, upright RGB uint8, with a legend; None where unknown.

    Pixels are shown as they are: container walls are not taken away, so thin goods show as what they and the walls make
    together. For saving by hand, not for a lane: the image is screened once more.
    """
    correction = correct(radiograph, profile.correction)
    if profile.energy is None or correction.calibration is None or why_not(radiograph.detector):
        return None
    inversion = inversion_of(profile.energy)
    counts = OneGrid(profile.energy.interlace_columns)(radiograph.counts)
    screening = screen(counts, correction.calibration, material_table=inversion.material_table)
    density, sets = inversion.look_up(screening.q[0], screening.q[1])
    light = np.exp(-np.clip(density, 0, 150) / 60)[..., np.newaxis]
    shown = palette()[sets] * (0.35 + 0.65 * light)
    shown[sets == 0] = 255
    image = shown.astype(np.uint8).transpose(1, 0, 2)
    if radiograph.detector.first_channel == "bottom":
        image = image[::-1]
    name = "two energies, each pixel" + (", SIMULATED" if simulated or profile.energy.simulated else "")
    return np.vstack([text_band(name, image.shape[1]), image, legend(image.shape[1])])


def text_band(text: str, width: int) -> Array:
    """Return a white line with `text`."""
    band = np.full((BAND, width, 3), 255, np.uint8)
    write(band, text, (6, 18))
    return band


def legend(width: int) -> Array:
    """Return what the colours mean."""
    band = np.full((2 * BAND, width, 3), 255, np.uint8)
    x = 6
    entries = [
        *zip(CLASSES, COLOURS_RGB, strict=True), ("more than any material", ABOVE_RED),
        ("less than any material", BELOW_YELLOW), ("opaque", (0, 0, 0)),
    ]  # fmt: skip
    for name, colour in entries:
        cv2.rectangle(band, (x, 6), (x + 16, 20), colour, -1)
        write(band, name, (x + 22, 18))
        x += 40 + 9 * len(name)
    write(band, "pale mixtures: ambiguous, any of the colours mixed; white: too thin to say", (6, BAND + 18))
    return band


def write(image: Array, text: str, at: tuple[int, int]) -> None:
    """Write black text into an image."""
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
