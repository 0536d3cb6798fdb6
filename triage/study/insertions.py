"""Threats put into real images: known objects at known places, so that detection can be counted.

An insertion multiplies transmission by `exp(-a m)`, m being a profile between 0 and 1 and a its strength, and goes back
to the counts of the source: rounded to its bit depth, and where the number of quanta behind a count is known thinned
binomially. An object lets every quantum through or not; scaling alone would leave a place with too little noise, which
a detector can learn. Where counts are raw, hardening weakens an object behind cargo and scatter is not attenuated by
it; a vendor's display grey values have no such physics left and get the plain product.

There are two families of generators, which share nothing but this file: what learns is given "train", what is measured
is measured with "test". `insertions_train` draws flat silhouettes with a Gaussian edge; `insertions_test` projects
solids, whose profile is the length of the way through them, sampled finer than a pixel. A detector that has learned how
the one draws gains nothing by it with the other.

Sizes are in units of 1/460 of the container's height, about 6 mm, so that a thumbnail and a full image get objects of
the same physical size.

Source: Rogers et al., "Threat image projection (TIP) into X-ray images of cargo containers for training humans and
machines", 2016, for the product; binomial thinning of Poisson counts is exact.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.errors import DataError
from triage.study import insertions_test, insertions_train

__all__ = ["BANDS", "FAMILIES", "IN_CARGO", "KINDS", "OPAQUE", "Band", "Insertion", "Scale", "insert"]

Array: TypeAlias = NDArray[Any]
Kind: TypeAlias = Literal["compact", "brick", "metal", "void", "item", "slab"]
Family: TypeAlias = Literal["train", "test"]
Band: TypeAlias = tuple[float, float]

KINDS: tuple[Kind, ...] = get_args(Kind)
FAMILIES: tuple[Family, ...] = get_args(Family)
UNITS = 460
"""Units in a container's height."""
BANDS: tuple[Band, ...] = ((0.05, 0.25), (0.25, 0.6), (0.6, 1.1))
"""Half-open ranges of the background's transmission among which insertions are shared out evenly."""
OPAQUE: Band = (0.0, 0.03)
IN_CARGO: Band = (0.05, 0.6)

_ROOF, _FLOOR, _ENDS = 0.04, 0.08, 0.02
"""Shares of the container's height and length where nothing is put: rails, floor and end frames. Less than a detector
would cut off, so that cutting off costs what it costs."""
_SLAB_REACH = 0.2
"""A false wall stands within this share of the length from an end."""
_TRIES = 12
_MASK_LEVEL = 0.1
_SCATTER_T = 0.004
"""Scatter in units of air that no object attenuates, at most half of what is there. 6 % of air is seen at the end of
a published calibration table, behind 300 mm of steel in a wide beam; a collimated line shows a tenth of that."""


class Scale(NamedTuple):
    """How counts of a source become transmission.

    dark, air : counts without beam and in air: numbers, or (rows, 1)
    top : largest count of the source
    counts_per_quantum : None where it is not known: then nothing is thinned
    physical : False for grey values windowed for display
    """

    dark: Any = 0.0
    air: Any = 255.0
    top: int = 255
    counts_per_quantum: float | None = None
    physical: bool = False

    def rows(self, first: int, end: int) -> Scale:
        """Return the scale of the rows first..end-1."""
        dark, air = (v[first:end] if np.ndim(v) else v for v in (self.dark, self.air))
        return self._replace(dark=dark, air=air)

    def transmission(self, counts: Array) -> Array:
        """Return float32 transmission, air about 1."""
        return np.asarray((counts - np.float32(self.dark)) / np.float32(np.subtract(self.air, self.dark)), np.float32)


class Insertion(NamedTuple):
    """An image with one object in it.

    image : (rows, columns) of the source's type
    mask : (rows, columns) bool, where the profile reaches a tenth of its top
    background_t : median transmission of the clean image under the mask
    cnr : mean change of transmission under the mask over the standard deviation of the clean image there and around
    in_cargo : background_t between .05 and .6
    alpha : the a of `exp(-a m)`; negative for a void, 0 for a placebo
    """

    image: Array
    mask: Array
    kind: str
    background_t: float
    cnr: float
    in_cargo: bool
    alpha: float
    family: str = ""


def insert(
    image: Array, frame_corners: Array, kind: Kind, family: Family, rng: np.random.Generator,
    *, band: Band | None = None, scale: Scale | None = None, placebo: bool = False,
) -> Insertion | None:  # fmt: skip
    """Return a copy of `image` with one object of `kind` in the container, or None where there is no place for it.

    image : (rows, columns) uint8 or uint16, upright counts, large = air
    frame_corners : (4, 2) x, y: roof left, roof right, floor right, floor left
    band : half-open range of the background's median transmission that is asked for, default from .05 up; an item
        gets free space and a void cargo in any case
    scale : how counts become transmission; default: from 0 to the type's largest value
    placebo : go through everything with a strength of 0

    Raises DataError for a kind or family that is not known and for an image of another type.
    """
    if kind not in KINDS or family not in FAMILIES:
        raise DataError(f"insertion: kind {kind!r}, family {family!r}; give one of {KINDS} and one of {FAMILIES}")
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"insertion: the image is {image.dtype} {image.shape}; give (rows, columns) uint8 or uint16")
    if scale is None:
        top = int(np.iinfo(image.dtype).max)
        scale = Scale(air=float(top), top=top)
    room = _Room(image, np.asarray(frame_corners, np.float64), scale)
    wanted = _wanted(kind, band)
    draw = insertions_train.draw if family == "train" else insertions_test.draw
    for _ in range(_TRIES if room.unit * UNITS >= 32 else 0):
        profile, alpha = draw(kind, room.unit, room.height, rng)
        at = room.beside_an_end(profile, rng) if kind == "slab" else room.somewhere(profile, wanted, rng)
        if at is None:
            continue
        strength = 0.0 if placebo else -alpha if kind == "void" else alpha
        found = _inserted(image, profile, strength, at, scale, rng)
        if found is not None and wanted[0] <= found.background_t < wanted[1]:
            return found._replace(kind=kind, family=family)
    return None


def _wanted(kind: Kind, band: Band | None) -> Band:
    """Return the range of the background's transmission for a kind."""
    low, high = band or (BANDS[0][0], BANDS[-1][1])
    if kind == "item":
        return max(low, BANDS[-1][0]), max(high, BANDS[-1][1])
    return low, min(high, IN_CARGO[1]) if kind == "void" else high


class _Room:
    """The inside of the container, where objects may be.

    unit : pixels per unit
    height : pixels between the lowest and the highest place, at the middle of the length
    """

    def __init__(self, image: Array, corners: Array, scale: Scale) -> None:
        self.corners = corners
        tall = float(np.mean(corners[2:, 1]) - np.mean(corners[:2, 1]))
        self.unit, self.height = tall / UNITS, tall * (1 - _ROOF - _FLOOR)
        left, right = float(corners[[0, 3], 0].max()), float(corners[[1, 2], 0].min())
        margin = _ENDS * (right - left)
        self.left, self.right = max(0, round(left + margin)), min(image.shape[1], round(right - margin))
        self.top = max(0, int(corners[:2, 1].min()))
        self.bottom = min(image.shape[0], int(np.ceil(corners[2:, 1].max())))
        rows = scale.rows(self.top, self.bottom)
        self._t = rows.transmission(image[self.top : self.bottom, self.left : self.right])

    def ends(self, x: Any) -> tuple[Any, Any]:
        """Return y of the highest and the lowest place at x."""
        (x0, r0), (x1, r1), (_, f1), (_, f0) = self.corners
        u = (x - x0) / (x1 - x0)
        roof, floor = r0 + u * (r1 - r0), f0 + u * (f1 - f0)
        return roof + _ROOF * (floor - roof), floor - _FLOOR * (floor - roof)

    def beside_an_end(self, profile: Array, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return x, y of the first pixel of a false wall, None where the container is too short for one."""
        space = _SLAB_REACH * (self.right - self.left) - profile.shape[1]
        if space <= 0:
            return None
        offset = rng.uniform(0, space)
        x = self.left + offset if rng.random() < 0.5 else self.right - profile.shape[1] - offset
        return round(x), max(0, round(float(self.ends(x + profile.shape[1] / 2)[0])))

    def somewhere(self, profile: Array, wanted: Band, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return x, y of the first pixel of an object: any place whose mean transmission lies in a range, evenly."""
        h, w = profile.shape
        if self._t.shape[0] <= h or self._t.shape[1] <= w:
            return None
        step = max(1, round(3 * self.unit))
        mean = cv2.boxFilter(self._t, cv2.CV_32F, (w, h), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
        mean = mean[: self._t.shape[0] - h : step, : self._t.shape[1] - w : step]
        x = self.left + step * np.arange(mean.shape[1])
        y = self.top + step * np.arange(mean.shape[0])[:, None]
        highest, lowest = self.ends(x + w / 2)
        places = np.flatnonzero((y >= highest) & (y + h <= lowest) & (mean >= wanted[0]) & (mean < wanted[1]))
        if places.size == 0:
            return None
        row, column = divmod(int(rng.choice(places)), mean.shape[1])
        return int(x[column]), int(y[row, 0])


def _inserted(
    image: Array, profile: Array, alpha: float, at: tuple[int, int], scale: Scale, rng: np.random.Generator
) -> Insertion | None:
    """Return `image` with the profile's first pixel at x, y; None where less than half of it lies in the image."""
    x0, y0 = max(at[0], 0), max(at[1], 0)
    m = profile[y0 - at[1] :, x0 - at[0] :][: image.shape[0] - y0, : image.shape[1] - x0]
    if m.size < 0.5 * profile.size:
        return None
    y1, x1 = y0 + m.shape[0], x0 + m.shape[1]
    here = scale.rows(y0, y1)
    clean = image[y0:y1, x0:x1]
    changed = image.copy()
    if alpha:
        changed[y0:y1, x0:x1] = _through(clean, m, alpha, here, rng)
    mask = np.zeros(image.shape, np.bool_)
    mask[y0:y1, x0:x1] = m >= _MASK_LEVEL
    inside = mask[y0:y1, x0:x1]
    if not inside.any():
        return None
    t = here.transmission(clean)
    background = float(np.median(t[inside]))
    delta = np.abs(t - here.transmission(changed[y0:y1, x0:x1]))[inside].mean()
    return Insertion(
        image=changed, mask=mask, kind="", background_t=background,
        cnr=float(delta / max(_unrest(image, scale, (x0, y0, x1, y1)), 1e-3)),
        in_cargo=IN_CARGO[0] <= background < IN_CARGO[1], alpha=alpha,
    )  # fmt: skip


def _unrest(image: Array, scale: Scale, box: tuple[int, int, int, int]) -> float:
    """Return the standard deviation of transmission in a box and half its size around it."""
    x0, y0, x1, y1 = box
    dx, dy = (x1 - x0 + 1) // 2, (y1 - y0 + 1) // 2
    top, bottom = max(0, y0 - dy), min(image.shape[0], y1 + dy)
    around = image[top:bottom, max(0, x0 - dx) : x1 + dx]
    return float(scale.rows(top, bottom).transmission(around).std())


def _through(clean: Array, m: Array, alpha: float, scale: Scale, rng: np.random.Generator) -> Array:
    """Return counts behind an object of profile m and strength alpha; what m does not reach stays as it is."""
    t = scale.transmission(clean).astype(np.float64)
    strength = alpha * m.astype(np.float64)
    if scale.physical and alpha > 0:
        strength *= _hardened(t)
    passed = np.exp(-strength)
    if alpha < 0:
        # what is taken away leaves at most the walls: the brightest that is around
        passed = np.clip(np.maximum(np.percentile(t, 95), t) / np.maximum(t, 1e-4), 1.0, passed)
    if scale.physical and alpha > 0:
        share = np.minimum(_SCATTER_T, 0.5 * np.abs(t)) / np.maximum(np.abs(t), 1e-4)
        passed = passed * (1 - share) + share
    net = clean - np.asarray(scale.dark, np.float64)
    after = net * passed
    if scale.counts_per_quantum is not None:
        after = _thinned(net, passed, scale.counts_per_quantum, rng)
    counts = np.clip(np.rint(after + scale.dark), 0, scale.top).astype(clean.dtype)
    return np.where(np.abs(strength) > 0, counts, clean)


def _hardened(t: Array) -> Array:
    """Return how strong an object is behind a transmission of t, 1 in air.

    Fit to 10 mm of steel at 6 MV: 31.8 % in air, 27.0, 25.3, 23.9, 23.3 % behind 50, 100, 200, 300 mm of steel.
    """
    return np.asarray(0.69 + 0.31 * np.exp(np.log(np.clip(t, 1e-4, 1.0)) / 2))


def _thinned(net: Array, passed: Array, counts_per_quantum: float, rng: np.random.Generator) -> Array:
    """Return net counts of which each quantum passed with a probability; where more come (a void) they are added.

    Only the change is drawn: the part of a count that is no whole quantum, electronic noise with it, is kept.
    """
    quanta = np.maximum(np.rint(net / counts_per_quantum), 0).astype(np.int64)
    stopped = rng.binomial(quanta, 1 - np.minimum(passed, 1.0))
    added = rng.poisson(quanta * np.maximum(passed - 1.0, 0.0))
    return np.asarray(net + (added - stopped) * counts_per_quantum)
