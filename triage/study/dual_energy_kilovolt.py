"""Two real pairs of flat-panel radiographs at tube voltages: is one material one material at every thickness?

Neither tube's spectrum, nor the panel's dark level and scatter, nor the air level of the high image (it is clipped in
air) is known. So no atomic number can be read off without a reference; what can be asked is whether two steps of one
material, taken as the reference, make the third come out as the same one.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from scanner_io.attenuation import SYMBOLS, coefficient
from scanner_io.errors import DataError

Array: TypeAlias = NDArray[Any]

TUBE_KV = (120.0, 320.0)
COPPER_G_CM2, PANEL_G_CM2 = 0.5, 0.6
"""Assumed filter of the tubes and scintillator of the panel: neither is told. Between 0.2 and 1 g/cm² of copper the
held out step moves by less than one unit of Z."""
NICKEL_Z = 28
STEPS = {".0": (70, 150), ".05": (280, 360), ".10": (490, 560), ".15": (690, 770), ".20": (900, 980)}
"""Rows of the five steps of the wedge, between its engraved rims; the columns are free of letters."""
STEP_COLUMNS = (380, 640)
AIR_COLUMNS = (20, 100)
BOX = 5
"""Side of the square of pixels whose mean is inverted."""
SAME_Z = (24.0, 33.0)
"""Chromium to arsenic: as near to nickel as an error of 3 % in the counts of one image leaves it."""
FLAT = 32766


def _image(path: Path) -> Array:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        raise DataError(f"{path}: not a 16-bit grey image; name the folder with the flat-panel pairs")
    return image.astype(np.float64)


class Tube:
    """Curves of two tube voltages: high against low -ln T of every element from sodium on. Free streaming, no fit."""

    def __init__(self, kv: tuple[float, float] = TUBE_KV, copper_g_cm2: float = COPPER_G_CM2) -> None:
        self.numbers = np.array([z for z in sorted(SYMBOLS) if z >= 11])
        grams = np.geomspace(5e-4, 80, 1500)
        beams = [_spectrum(v, copper_g_cm2) for v in kv]
        self.lows, self.highs = (
            np.stack([-np.log(np.exp(-np.outer(grams, coefficient(int(z), k))) @ s) for z in self.numbers])
            for k, s in beams
        )

    def high_of(self, alpha_low: Array) -> Array:
        """Return what every element predicts of the high energy, `(numbers, n)`."""
        return np.stack([np.interp(alpha_low, low, high) for low, high in zip(self.lows, self.highs, strict=True)])

    def numbers_at(self, alpha_low: Array, alpha_high: Array) -> tuple[Array, Array]:
        """Return the lightest and the heaviest atomic number that fit each pair, NaN where none does."""
        off = self.high_of(alpha_low) - alpha_high
        first, last = np.full(alpha_low.shape, np.nan), np.full(alpha_low.shape, np.nan)
        for j in range(self.numbers.size - 1):
            a, b = off[j], off[j + 1]
            cross = (a * b <= 0) & (a != b)
            z = self.numbers[j] + (self.numbers[j + 1] - self.numbers[j]) * a / np.where(cross, a - b, 1.0)
            first = np.where(cross & np.isnan(first), z, first)
            last = np.where(cross, z, last)
        return first, last


def _spectrum(kv: float, copper_g_cm2: float) -> tuple[Array, Array]:
    k = np.geomspace(0.03, kv / 1000, 200)[:-1]
    photons = (kv / 1000 - k) / k * np.gradient(k) * np.exp(-coefficient("Cu", k) * copper_g_cm2)
    signal = photons * k * (1 - np.exp(-coefficient("CdWO4", k) * PANEL_G_CM2))
    return k, signal / signal.sum()


def nickel(folder: Path, out: Path | None = None) -> dict[str, Any]:
    """Return what the steps of the nickel wedge come out as, two of them taken as the reference in turn."""
    low, high = _image(folder / "Fusion2-120kV.png"), _image(folder / "Fusion2-320kV.png")
    air = float(np.median(low[300:700, slice(*AIR_COLUMNS)]))
    own = slice(*STEP_COLUMNS)
    means = {
        name: (float(low[slice(*rows), own].mean()), float(high[slice(*rows), own].mean()))
        for name, rows in STEPS.items() if (high[slice(*rows), own] < FLAT).all()
    }  # fmt: skip
    tube = Tube()
    held_out = {}
    for pair in combinations(means, 2):
        pedestal, high_air = _reference(tube, [means[n] for n in pair], air)
        (left,) = set(means) - set(pair)
        z, _ = tube.numbers_at(*_alphas(np.array([means[left]]), pedestal, high_air, air))
        held_out[left] = round(float(z[0]), 1)
    ends = [means[n] for n in (min(means), max(means))]
    pedestal, high_air = _reference(tube, ends, air)
    boxes = [cv2.blur(image, (BOX, BOX)) for image in (low, high)]
    seen = high < FLAT
    alphas = _alphas(np.stack([b[seen] for b in boxes], axis=1), pedestal, high_air, air)
    lightest, heaviest = np.full(low.shape, np.nan), np.full(low.shape, np.nan)
    lightest[seen], heaviest[seen] = tube.numbers_at(*alphas)
    steps = {name: _step(lightest, STEPS[name], own) for name in means}
    if out is not None:
        _picture(out / "nickel_120_320kV.png", lightest, heaviest, seen)
    return {
        "penetrated": list(means), "clipped_in_high": [n for n in STEPS if n not in means],
        "held_out_z": held_out,
        "one_material": all(SAME_Z[0] <= z <= SAME_Z[1] for z in held_out.values()),
        "pixels": steps,
        "pedestal_counts": round(pedestal, 0), "high_air_counts": round(high_air, 0),
        "note": "absolute atomic numbers rest on two steps taken as nickel; a heavier element fits each pair as well",
    }  # fmt: skip


def _reference(tube: Tube, means: list[tuple[float, float]], air: float) -> tuple[float, float]:
    """Return the low image's pedestal (dark and scatter) and the high one's air level that make both steps nickel."""
    at = int(np.flatnonzero(tube.numbers == NICKEL_Z)[0])

    def missed(free: Array) -> Array:
        low, high = _alphas(np.array(means), free[0] * 100, float(np.exp(free[1])), air)
        return np.asarray(np.interp(low, tube.lows[at], tube.highs[at]) - high)

    lowest = min(m[0] for m in means) / 100
    found = least_squares(missed, [0.3 * lowest, 11.0], bounds=([-20, 9], [0.9 * lowest, 14]))
    return float(found.x[0] * 100), float(np.exp(found.x[1]))


def _alphas(counts: Array, pedestal: float, high_air: float, air: float) -> tuple[Array, Array]:
    low = np.maximum(counts[:, 0] - pedestal, 1.0)
    return -np.log(low / (air - pedestal)), -np.log(counts[:, 1] / high_air)


def _step(lightest: Array, rows: tuple[int, int], own: slice) -> dict[str, float]:
    z = lightest[slice(*rows), own]
    good = z[np.isfinite(z)]
    return {
        "median_z": round(float(np.median(good)), 1),
        "p5": round(float(np.percentile(good, 5)), 1),
        "p95": round(float(np.percentile(good, 95)), 1),
        "same_percent": round(100 * float(((good >= SAME_Z[0]) & (good <= SAME_Z[1])).sum()) / z.size, 1),
    }


def casting(folder: Path, out: Path | None = None) -> dict[str, Any]:
    """Return how far one smooth curve joins the casting's two images: nothing is known of it or of its calibration."""
    low, high = _image(folder / "FusionPart1-120kV.png"), _image(folder / "FusionPart1-180kV.png")
    seen = high < FLAT
    logs = [np.log(cv2.blur(image, (BOX, BOX))) for image in (low, high)]
    x, y = (log[seen] for log in logs)
    curve = np.poly1d(np.polyfit(x, y, 4))
    off = np.zeros(low.shape)
    off[seen] = y - curve(x)
    if out is not None:
        from triage.analysis.material_picture import text_band

        from .dual_energy_pictures import write_png

        shade = np.clip(off * 1000 + 128, 0, 255).astype(np.uint8)
        coloured = cv2.applyColorMap(shade, cv2.COLORMAP_TWILIGHT)[..., ::-1].copy()
        coloured[~seen] = 255
        caption = "real pair, 120/180 kV: the high image against one curve of the low one, 12 % darker to brighter"
        write_png(out / "casting_120_180kV.png", np.vstack([text_band(caption, coloured.shape[1]), coloured]))
    return {
        "seen_percent": round(100 * float(seen.mean()), 1),
        "rms_percent": round(100 * float(off[seen].std()), 2),
        "within_2_percent": round(100 * float((np.abs(off[seen]) <= 0.02).mean()), 1),
        "note": "difference of the high image from one curve of the low one; no reference, so no class is said",
    }


def _picture(path: Path, lightest: Array, heaviest: Array, seen: Array) -> None:
    """Write the atomic number of every pixel: that of the wedge blue, lighter orange, heavier violet."""
    from triage.analysis.material_picture import text_band

    from .dual_energy_pictures import write_png

    image = np.full((*lightest.shape, 3), 255, np.uint8)
    image[seen] = (0, 0, 0)
    for low, high, colour in ((11, 18, (240, 140, 40)), (18, 24, (70, 170, 70)), (*SAME_Z, (50, 100, 220)),
                              (33, 95, (170, 40, 170))):  # fmt: skip
        image[(lightest >= low) & (lightest <= high)] = colour
    image[np.isnan(lightest) & np.isfinite(heaviest) & seen] = (170, 40, 170)
    captions = (
        "real pair, 120/320 kV, steps .10 and .20 taken as nickel: blue Z 24-33, green 18-24, orange below,",
        "violet above, or the heavier element that gives the same pair (the letters: lead); white: high image clipped",
    )
    write_png(path, np.vstack([*(text_band(c, image.shape[1]) for c in captions), image]))
