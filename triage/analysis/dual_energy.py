"""Areal density and material class from two energies, with what cannot be told said as such.

For a measured pair (alpha_low, alpha_high) every atomic number predicts alpha_low from alpha_high. A class is ruled out
where no atomic number in it comes closer than three standard deviations of the pair's noise and of the model's own
error. What is left is a set: one class is an answer; two or more are ambiguous, and are named. Photoelectric absorption
and pair production compete, so a thin heavy element and a light one, or one as heavy as uranium and a medium one, can
give the very same pair even without noise: no class here is ever the claim of an element, much less of a nuclide.

Source: P. Lalor and A. Danagoulian, arXiv 2301.05783 (ambiguity) and 2307.12099 (inversion); S. Ogorodnikov and
V. Petrunin, Phys. Rev. ST Accel. Beams 5 (2002) 104701 (the four groups).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scanner_io.attenuation import SYMBOLS
from scanner_io.energy_calibration import Beam, EnergyCalibration
from triage.kernels.dual_energy import dual_energy
from triage.kernels.on_one_grid import on_one_grid

from .screening import OFFSET, STEPS
from .transparency import Floats, ZoneModel, fit_zones

Array: TypeAlias = NDArray[Any]
MapStrips: TypeAlias = Callable[[Callable[[int], None], Iterable[int]], Iterable[None]]

CLASSES = ("organic", "light metal", "steel", "high-Z")
#: Atomic numbers at which the classes part: 10 and 18 as on the screens of scanners; the third lies between iron and
#: tungsten as a ratio. "Steel" holds copper and zinc, "light metal" glass, stone and salt.
CLASS_BOUNDS_Z = (10.0, 18.0, 45.0)
ORGANIC, LIGHT_METAL, STEEL, HIGH_Z = 1, 2, 4, 8
ANY_CLASS = 15
#: The higher energy is absorbed more, or the lower one, than any material makes it.
ABOVE_ALL, BELOW_ALL = 16, 32
OPAQUE = 64

#: Distance, in standard deviations, at which a class is ruled out.
RULED_OUT = 3.0
#: Atomic number that stands for each class where only its areal density is asked for.
TYPICAL_Z = (7, 13, 26, 74)
#: Least alpha_high of which a ratio is taken: a few g/cm².
THIN_ALPHA = 0.05
#: Standard deviations of the dark reading below which nothing was transmitted that could be told from nothing.
OPAQUE_DARK = 5.0
#: The same of scatter, which is no noise: its error has one sign over a whole region.
OPAQUE_SCATTER = 3.0
#: Share of a scatter error that the two beams do not have in common: the same cargo scatters both, at energies that
#: differ. A cautious guess; no source is known.
SCATTER_APART = 0.3
#: Independent pixels that a 3x3 median is worth: its variance is 1/5.7 of a pixel's for normal noise.
MEDIAN_PIXELS = 5.7
#: The log codes of images end here; what is darker reads as this.
END_ALPHA = 7.6

ALPHAS = np.linspace(0, 12, 385)
TABLE_ALPHAS = 257
RATIOS = 256
NUMBERS = np.arange(1.0, 95.0)
#: How likely an atomic number is before anything is measured: alike on a scale of ratios. Below boron it is next to
#: nothing, for hydrogen comes with carbon and oxygen, and would make every estimate of mass too small.
PRIOR = np.where(NUMBERS < 5, 1e-6, 1.0) / NUMBERS
_CODE_VARIANCE = 1 / STEPS**2 / 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """What one zone's model predicts at ALPHAS of the high energy, for every atomic number of NUMBERS.

    alpha_low : (numbers, alphas) float64
    areal_density : (numbers, alphas) float64, g/cm²
    """

    alpha_low: Floats
    areal_density: Floats

    def at(self, alpha_high: float) -> tuple[Floats, Floats, Floats]:
        """Return alpha_low, its slope and the areal density at one alpha_high, each `(numbers,)`."""
        u = min(max(alpha_high / ALPHAS[1], 0.0), ALPHAS.size - 1.001)
        i = int(u)
        low, grams = (t[:, i] + (t[:, i + 1] - t[:, i]) * (u - i) for t in (self.alpha_low, self.areal_density))
        return low, (self.alpha_low[:, i + 1] - self.alpha_low[:, i]) / ALPHAS[1], grams


def curves_of(model: ZoneModel) -> Curves:
    """Return the curves of one zone: elements of the table, and straight lines between them in atomic number."""
    known = np.array(sorted(SYMBOLS), np.float64)
    lows, grams = [], []
    for number in known.astype(int):
        # 0.004 cm²/g is less than anything absorbs; steps grow with thickness as the curve straightens
        density = np.linspace(0, 1, 300) ** 1.5 * 1.1 * ALPHAS[-1] / 0.018
        low, high = model.alphas(int(number), density)
        lows.append(np.interp(ALPHAS, high, low))
        grams.append(np.interp(ALPHAS, high, density))
    return Curves(
        alpha_low=_between(known, np.array(lows)),
        areal_density=_between(known, np.array(grams)),
    )


def _between(known: Floats, values: Floats) -> Floats:
    return np.stack([np.interp(NUMBERS, known, values[:, i]) for i in range(values.shape[1])], axis=1)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of both energies, as shares of air, per pixel, and errors as shares of alpha.

    ratio_error : of the low alpha beside the high one; alpha_error : of the high one alone
    """

    air_sd: tuple[float, float]
    dark_sd: tuple[float, float]
    scatter_sd: tuple[float, float]
    ratio_error: float
    alpha_error: float

    @classmethod
    def of(cls, low: Beam, high: Beam, model: ZoneModel) -> Noise:
        """Return the noise of two beams and of what was fitted to them."""
        return cls(
            air_sd=(low.air_sd, high.air_sd),
            dark_sd=(low.dark_sd, high.dark_sd),
            scatter_sd=(low.scatter_sd, high.scatter_sd),
            ratio_error=model.ratio_error,
            alpha_error=model.high.model_error,
        )

    def variance(
        self, alpha_low: Floats, alpha_high: Floats, slope: Floats, pixels: float, *,
        behind: tuple[float, float] = (0.0, 0.0), extra: float = 0.0,
    ) -> Floats:  # fmt: skip
        """Return the variance of alpha_low beside what alpha_high predicts: quanta, dark, rounding, scatter, model.

        slope : of the prediction over alpha_high
        pixels : both alphas are means over so many
        behind : alphas of walls that were taken away, which weaken the signal as well
        extra : variance of both alphas that averaging does not lessen
        """
        seen_low, seen_high = alpha_low + behind[0], alpha_high + behind[1]
        low, high = (
            (air**2 * np.exp(seen) + dark**2 * np.exp(2 * seen) + _CODE_VARIANCE) / pixels
            + (SCATTER_APART * scatter) ** 2 * np.exp(2 * seen)
            + extra
            for air, dark, scatter, seen in zip(
                self.air_sd, self.dark_sd, self.scatter_sd, (seen_low, seen_high), strict=True
            )
        )
        common = min(self.scatter_sd) * (np.exp(seen_low) - slope * np.exp(seen_high))
        return np.asarray(low + slope**2 * high + common**2 + (self.ratio_error * alpha_low) ** 2)

    @property
    def opaque_alpha(self) -> float:
        """Return the -ln T of the high energy from which what arrives cannot be told from dark noise and scatter."""
        floor = max(OPAQUE_DARK * self.dark_sd[1], OPAQUE_SCATTER * self.scatter_sd[1], 1e-9)
        return -math.log(floor)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a pair of alphas says of the matter it was measured behind.

    classes : set of ORGANIC .. HIGH_Z that cannot be ruled out; or ABOVE_ALL, BELOW_ALL where none is left; OPAQUE
    areal_density_g_cm2, low_g_cm2, high_g_cm2 : best, and the range of all atomic numbers not ruled out
    effective_z, low_z, high_z : the same of the atomic number
    likely : the class, an index of CLASSES, of the nearest prediction; to be said only of a set that is ambiguous
    distance_sd : from the nearest prediction
    """

    classes: int
    likely: int
    areal_density_g_cm2: float
    low_g_cm2: float
    high_g_cm2: float
    effective_z: float
    low_z: float
    high_z: float
    distance_sd: float

    @property
    def words(self) -> str:
        """Say the classes in words."""
        return class_words(self.classes)


def class_words(classes: int) -> str:
    """Return a set of classes in words."""
    if classes & OPAQUE:
        return "opaque"
    if classes & ABOVE_ALL:
        return "no material: the high energy is absorbed more than any material predicts"
    if classes & BELOW_ALL:
        return "no material: the low energy is absorbed more than any material predicts"
    names = [name for bit, name in enumerate(CLASSES) if classes & (1 << bit)]
    if len(names) <= 1:
        return names[0] if names else "too thin to say"
    return f"ambiguous: {', '.join(names[:-1])} or {names[-1]}"


class Inversion:
    """A lane's energy calibration made ready: pairs, columns and images are inverted by it.

    Raises DataError (from the constructor) for wedges that cannot be believed.
    """

    def __init__(self, calibration: EnergyCalibration, *, pixels: float = MEDIAN_PIXELS) -> None:
        """Fit every zone and tabulate. pixels : independent pixels each entry of an image is the mean of."""
        self.calibration = calibration
        self.models = fit_zones(calibration)
        self.curves = tuple(curves_of(m) for m in self.models)
        self.noises = tuple(
            Noise.of(z.low or calibration.low, z.high or calibration.high, m)
            for z, m in zip(calibration.zone, self.models, strict=True)
        )
        self.pixels = pixels
        low = min(float((c.alpha_low[:, 4:] / ALPHAS[4:]).min()) for c in self.curves)
        high = max(float((c.alpha_low[:, 4:] / ALPHAS[4:]).max()) for c in self.curves)
        margin = 0.15 * (high - low) + 0.05
        self.ratios = np.linspace(low - margin, high + margin, RATIOS)
        per_ratio = 1 / (self.ratios[1] - self.ratios[0])
        self.grid = np.array((1 / ALPHAS[1], self.ratios[0], per_ratio, THIN_ALPHA), np.float32)
        tables = [self._tables(z) for z in range(len(self.curves))]
        self.densities = np.stack([t[0] for t in tables])
        self.classes = np.stack([t[1] for t in tables])

    def zone_of_channels(self, channels: int) -> Array:
        """Return the zone `(channels,) uint32` of every channel."""
        ends = [z.end_channel for z in self.calibration.zone]
        bounds = [e for e in ends[:-1] if e is not None]
        return np.searchsorted(bounds, np.arange(channels), side="right").astype(np.uint32)

    # -- one pair

    def judge(
        self, alpha_low: float, alpha_high: float, pixels: float, zone: int = 0, *,
        behind: tuple[float, float] = (0.0, 0.0),
    ) -> Verdict:  # fmt: skip
        """Return what the mean of both alphas over so many independent pixels says.

        behind : alphas of walls that were taken away
        """
        low, slope, grams = self.curves[zone].at(alpha_high)
        noise = self.noises[zone]
        variance = noise.variance(np.array(alpha_low), np.array(alpha_high), slope, pixels, behind=behind)
        distance = (alpha_low - low) / np.sqrt(variance)
        best = int(np.argmin(np.abs(distance)))
        fits = np.abs(distance) <= RULED_OUT
        if not fits.any():
            fits[best] = True
        # below boron there is only hydrogen, which never comes alone: what looks lighter is weighed as boron
        likely = fits & (NUMBERS >= 5)
        likely[4] |= not likely.any()
        pair = (np.array([alpha_low]), np.array([alpha_high]))
        classes = int(_sets(self.curves[zone], noise, *pair, pixels, behind=behind)[0])
        weight = np.exp(-0.5 * (distance**2 - distance[best] ** 2)) * PRIOR
        return Verdict(
            classes=classes,
            likely=int(np.searchsorted(CLASS_BOUNDS_Z, NUMBERS[best], side="right")),
            areal_density_g_cm2=float((weight * grams).sum() / weight.sum()),
            low_g_cm2=float(grams[likely].min()) * (1 - 2 * noise.alpha_error),
            high_g_cm2=float(grams[likely].max()) * (1 + 2 * noise.alpha_error),
            effective_z=float(NUMBERS[best]),
            low_z=float(NUMBERS[fits].min()),
            high_z=float(NUMBERS[fits].max()),
            distance_sd=float(abs(distance[best])),
        )

    # -- cells

    def sets(
        self, alpha_low: Array, alpha_high: Array, pixels: float, zone: Array, behind: tuple[float, float]
    ) -> Array:
        """Return the sets of classes, uint8, of cells.

        alpha_low, alpha_high : (columns, channels) float64, means over so many independent pixels
        zone : (channels,) the zone of every channel of cells
        behind : alphas of walls that were taken away
        """
        out = np.empty(alpha_low.shape, np.uint8)
        for z in np.unique(zone):
            own = zone == z
            low, high = alpha_low[:, own], alpha_high[:, own]
            out[:, own] = _sets(self.curves[z], self.noises[z], low, high, pixels, behind=behind, end=END_ALPHA)
        return out

    def density_range(self, sets: Array, alpha_high: Array, zone: Array) -> tuple[Array, Array, Array]:
        """Return the areal density of cells in g/cm²: least, middle and largest of the classes their sets hold.

        Arguments and results as for `sets`. A cell too thin to say is any class; an opaque one, or one like no
        material, is taken as steel, as most that is so dark is.
        """
        least, middle, most = (np.empty(sets.shape) for _ in range(3))
        for z in np.unique(zone):
            own = zone == z
            high, held = alpha_high[:, own], sets[:, own]
            held = np.where(held == 0, ANY_CLASS, np.where(held > ANY_CLASS, STEEL, held))
            of = [np.interp(high, ALPHAS, self.curves[z].areal_density[number - 1]) for number in TYPICAL_Z]
            inside = [(held & (1 << bit)) != 0 for bit in range(4)]
            least[:, own] = np.min([np.where(i, g, np.inf) for i, g in zip(inside, of, strict=True)], axis=0)
            most[:, own] = np.max([np.where(i, g, 0.0) for i, g in zip(inside, of, strict=True)], axis=0)
            # the lightest class a set holds is what cargo mostly is
            middle[:, own] = np.select(inside, of, default=of[2])
        return least, middle, most

    # -- tables

    def _tables(self, zone: int) -> tuple[Array, Array]:
        """Return the kernel's tables of one zone: (alphas, RATIOS) float32 g/cm², and uint8 sets of classes."""
        curves, noise = self.curves[zone], self.noises[zone]
        high = np.repeat(ALPHAS[:TABLE_ALPHAS, np.newaxis], RATIOS, axis=1)
        low = self.ratios * np.maximum(high, THIN_ALPHA)
        grams = np.empty(high.shape, np.float32)
        slope = np.gradient(curves.alpha_low, ALPHAS[1], axis=1)
        for i in range(TABLE_ALPHAS):
            off = low[i] - curves.alpha_low[:, i, np.newaxis]
            square = off**2 / noise.variance(low[i], high[i], slope[:, i, np.newaxis], self.pixels)
            weight = np.exp(-0.5 * (square - square.min(axis=0))) * PRIOR[:, np.newaxis]
            grams[i] = (weight * curves.areal_density[:, i, np.newaxis]).sum(axis=0) / weight.sum(axis=0)
        return grams, _sets(curves, noise, low, high, self.pixels, end=END_ALPHA)

    @cached_property
    def material_table(self) -> Array:
        """Return the (512, 512) uint8 table by [low, high] that screening takes: codes of MATERIAL_CODES.

        Its bins are 1/64 wide, which counts as noise, and it knows no zones: a class stands only where all zones agree
        that no other is left.
        """
        centre = (8 * np.arange(512) + 3.5 - OFFSET) / STEPS
        low, high = np.meshgrid(centre, centre, indexing="ij")
        sets = np.zeros((512, 512), np.uint8)
        for curves, noise in zip(self.curves, self.noises, strict=True):
            sets |= _sets(curves, noise, low, high, self.pixels, extra=1 / 64**2 / 12, end=END_ALPHA)
        return np.asarray(MATERIAL_CODES[sets])

    # -- images

    def look_up(
        self, q_low: Array, q_high: Array, *, strips: int = 2, map_strips: MapStrips = map,
        out: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Return areal density (columns, channels) float32, g/cm², and sets of classes, uint8, of two log-code images.

        q_low, q_high : (columns, channels) uint16, on one grid
        strips, map_strips : strips of columns and the map that runs them, as for `screen`; no effect on the result
        out : written and returned where given
        """
        columns, channels = q_low.shape
        density, material = out or (np.empty(q_low.shape, np.float32), np.empty(q_low.shape, np.uint8))
        zone = self.zone_of_channels(channels)
        cuts = [k * columns // strips for k in range(strips + 1)]

        def run(k: int) -> None:
            own = slice(cuts[k], cuts[k + 1])
            index, weight = np.empty((2, channels), np.uint32), np.empty((2, channels), np.float32)
            dual_energy(
                q_low[own], q_high[own], zone, self.densities, self.classes, self.grid, index, weight, density[own],
                material[own],
            )  # fmt: skip

        for _ in map_strips(run, range(strips)):
            pass
        return density, material


class OneGrid:
    """Brings interlaced energies to one grid, block by block: both are moved to the place midway between their pulses.

    The weights of both energies mirror each other, so both are blurred alike and an edge stays neutral in their ratio.
    """

    def __init__(self, interlace_columns: float) -> None:
        """interlace_columns : as in the calibration; 0 leaves everything as it is."""
        self._shares = (
            tuple(round(128 * (1 + sign * interlace_columns)) for sign in (-1, 1)) if interlace_columns else None
        )
        self._before: list[Array] = []

    def __call__(self, counts: tuple[Array, ...]) -> tuple[Array, ...]:
        """Return the next columns, (n, channels) uint16 per energy, on the common grid."""
        if self._shares is None or len(counts) != 2 or not len(counts[0]):
            return counts
        if not self._before:
            self._before = [image[0].copy() for image in counts]
        out = tuple(np.empty_like(image) for image in counts)
        for k, (image, share) in enumerate(zip(counts, self._shares, strict=True)):
            on_one_grid(self._before[k], np.ascontiguousarray(image), share, out[k])
            self._before[k] = image[-1].copy()
        return out


@lru_cache(maxsize=4)
def inversion_of(calibration: EnergyCalibration) -> Inversion:
    """Return the inversion of a lane's calibration; fitted once."""
    return Inversion(calibration)


def _sets(
    curves: Curves, noise: Noise, alpha_low: Floats, alpha_high: Floats, pixels: float, *,
    extra: float = 0.0, behind: tuple[float, float] = (0.0, 0.0), end: float = float(ALPHAS[-1]),
) -> Array:  # fmt: skip
    """Return the sets of classes, uint8, that pairs of alphas cannot rule out; 0 where they are too thin.

    extra : variance of both alphas that averaging does not lessen
    end : alpha_high from which nothing is told
    """
    shape = alpha_low.shape
    low, high = alpha_low.ravel(), alpha_high.ravel()
    slope = np.gradient(curves.alpha_low, ALPHAS[1], axis=1)
    steepest = np.interp(high, ALPHAS, slope.max(axis=0))
    positive = (np.maximum(low, 0), np.maximum(high, 0))
    sd = np.sqrt(noise.variance(*positive, steepest, pixels, behind=behind, extra=extra))
    sets = np.zeros(low.size, np.uint8)
    for bit, (first, last) in enumerate(_class_rows()):
        part = curves.alpha_low[first:last]
        under, over = np.interp(high, ALPHAS, part.min(axis=0)), np.interp(high, ALPHAS, part.max(axis=0))
        sets[(low >= under - RULED_OUT * sd) & (low <= over + RULED_OUT * sd)] |= 1 << bit
    least = np.interp(high, ALPHAS, curves.alpha_low.min(axis=0))
    sets[(sets == 0) & (low < least)] = ABOVE_ALL
    sets[sets == 0] = BELOW_ALL
    sets[high + behind[1] >= min(end, noise.opaque_alpha)] = OPAQUE
    sets[high < THIN_ALPHA] = 0
    return sets.reshape(shape)


def _class_rows() -> list[tuple[int, int]]:
    """Return the half-open range of rows of NUMBERS of every class."""
    cuts = [0, *(int(np.searchsorted(NUMBERS, b)) for b in CLASS_BOUNDS_Z), NUMBERS.size]
    return list(pairwise(cuts))


def _material_codes() -> Array:
    codes = np.full(256, 5, np.uint8)
    codes[0] = 0
    for bit in range(4):
        codes[1 << bit] = bit + 1
    for sets in range(256):
        if sets & (ABOVE_ALL | BELOW_ALL):
            codes[sets] = 6 if sets & (OPAQUE | ANY_CLASS) == 0 else 5
        if sets & OPAQUE:
            codes[sets] = 7
    return codes


#: Code of a set in the material image of screening: 0 too thin or not told, 1 .. 4 the classes, 5 ambiguous, 6 like no
#: material, 7 opaque.
MATERIAL_CODES = _material_codes()


def codes_of(alpha: Array) -> Array:
    """Return the 12-bit log codes, uint16, of -ln(transmission)."""
    return np.asarray(np.clip(np.rint(alpha * STEPS) + OFFSET, 0, 4095).astype(np.uint16))
