"""The naive way to find something strange in a scan, and a detector that finds nothing but what it has seen before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from triage.analysis.regions import Region
from triage.study.image_looks import alike, fingerprint, same_scan, straightened
from triage.study.image_samples import MOST_REGIONS, Sample
from triage.study.insertions import UNITS

Array: TypeAlias = NDArray[Any]
Place: TypeAlias = tuple[float, float]
Corners: TypeAlias = tuple[float, float, float, float]


class Naive:
    """Darker or lighter than around: mean of a box of 21 against mean and spread of a box of 81, in 1/460 of height.

    Scores are put on the scale of their own image (median and spread of |z| inside the container), so that one
    threshold does for a calm and a restless load. It learns nothing.
    """

    name = "naive"
    inner, outer = 21, 81
    darkest = 0.02

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """There is nothing to learn."""

    def regions(self, sample: Sample) -> list[Region]:
        """Return the highest peaks of |z|."""
        frame = sample.frame
        x0, x1 = max(0, int(frame.left)), min(sample.image.shape[1], int(np.ceil(frame.right)))
        y0 = max(0, int(min(frame.roof_left, frame.roof_right)))
        y1 = min(sample.image.shape[0], int(np.ceil(max(frame.floor_left, frame.floor_right))))
        crop = sample.image[y0:y1, x0:x1]
        size = max(8, round(crop.shape[1] * UNITS / frame.height)), max(8, round(crop.shape[0] * UNITS / frame.height))
        way = cv2.INTER_AREA if size[1] < crop.shape[0] else cv2.INTER_LINEAR
        small = cv2.resize(crop, size, interpolation=way)
        z = self._z(-np.log(np.clip(small, self.darkest, 1.0)))
        # every ninth pixel tells median and spread as well as all do
        middle, upper = (float(v) for v in np.percentile(z[::3, ::3], (50, 84)))
        z = (z - middle) / max(upper - middle, 1e-6)
        sx, sy = crop.shape[1] / size[0], crop.shape[0] / size[1]
        return [
            Region(score, (x0 + sx * px, y0 + sy * py), (x0 + sx * a, y0 + sy * b, x0 + sx * c, y0 + sy * d))
            for score, (px, py), (a, b, c, d) in peaks(z, self.inner)
        ]

    def _z(self, depth: Array) -> Array:
        """Return |z| of the inner box, 0 where spread is less than a grey level or two."""
        mean, square = (cv2.blur(v, (self.outer, self.outer), borderType=cv2.BORDER_REFLECT) for v in (depth, depth**2))
        near = cv2.blur(depth, (self.inner, self.inner), borderType=cv2.BORDER_REFLECT)
        return np.asarray(np.abs(near - mean) / np.sqrt(np.maximum(square - mean**2, 0) + 0.02**2))


def peaks(z: Array, apart: int, most: int = MOST_REGIONS) -> list[tuple[float, Place, Corners]]:
    """Return score, place (x, y) and corners x0, y0, x1, y1 of the highest peaks that are `apart` pixels apart.

    The box of a peak is where z stays over half of it, connected, within three times that distance.
    """
    left = z.copy()
    found: list[tuple[float, Place, Corners]] = []
    for _ in range(most):
        y, x = divmod(int(np.argmax(left)), z.shape[1])
        score = float(left[y, x])
        if not score > 0:
            break
        top, first = max(0, y - 3 * apart), max(0, x - 3 * apart)
        around = (z[top : y + 3 * apart + 1, first : x + 3 * apart + 1] >= 0.5 * score).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(around, connectivity=4)
        bx, by, w, h = (int(v) for v in stats[labels[y - top, x - first]][:4])
        box = (float(first + bx), float(top + by), float(first + bx + w), float(top + by + h))
        found.append((score, (x + 0.5, y + 0.5), box))
        left[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = -np.inf
    return found


def _print_of(sample: Sample) -> Array:
    return fingerprint(sample.image, straightened(sample.image, sample.frame))


class Memory:
    """The check for leaks: it remembers what it was given to learn from, and finds only images it has seen.

    It goes through the same folds as every other. Whatever it finds has leaked from a test into training: the same
    scan, compressed anew, cut or mirrored, under another name.
    """

    name = "memory"

    def __init__(self) -> None:
        self._prints: list[Array] = []
        self._sources: set[str] = set()

    def fit(self, clean: Sequence[Sample], rng: np.random.Generator, inserted: Sequence[Sample] = ()) -> None:
        """Remember all."""
        for sample in clean:
            self._prints.append(_print_of(sample))
            self._sources.add(sample.source)
        self._sources.update(sample.source for sample in inserted)

    def remembers(self, source: str) -> bool:
        """Return whether a file of this sha256 was given."""
        return source in self._sources

    def regions(self, sample: Sample) -> list[Region]:
        """Return the whole container where the image was seen before."""
        own = _print_of(sample)
        if not self.remembers(sample.source) and not any(same_scan(p, own) for p in self._prints):
            return []
        best = max((float(alike(p, own).max()) for p in self._prints), default=0.0)
        f = sample.frame
        box = f.left, min(f.roof_left, f.roof_right), f.right, max(f.floor_left, f.floor_right)
        return [Region(best, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), box)]
