"""What was done to an image after it was measured: blurred or enlarged, compressed too hard, columns twice, joined.

None of it makes an image unreadable, so each is told by what a detector's own image never has:

    blurred, enlarged    no edge is sharp: the sharpest take 1 to 2.3 pixels in real scans, 4 and more in an enlarged
                         thumbnail. What is told is how many pixels high the container would be if they did not.
    compressed           8 x 8 blocks show: brightness changes more between blocks than inside them
    columns twice        two columns that show something and are equal in every count, or a run of columns that changes
                         far less than what lies to both sides of it: noise alone makes every measured column another
    joined               between two columns everything changes at once, floor and roof as well, some of it brighter
                         and some darker, and the columns before and after do not: a measured edge takes more than
                         one pixel, and goods end one way
    energies apart       the edges of two energies of one scan lie at the same columns and channels, and are the same

Of 33 real scans without 4 % of their columns in the middle 19 are named as joined (8 of the 17 that limits were chosen
on, 11 of the others), of two put together 19 of 33, of untouched ones none, of 100 simulated ones one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Quality, Radiograph

from .container import Frame
from .correction import Correction

Array: TypeAlias = NDArray[Any]

LINES = 256
"""About so many lines of either direction are looked at; the other direction is looked at whole."""
_FAR = 16
_BLOCK = 8
_BANDS = 4
_FAINT = 0.02
"""Transmission below which noise says more than matter where two energies are compared."""


class DamageProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of what is an image as it was measured.

    edge_px : sharp edges take no more; least_height_px : container that is too low to be judged, edges taken for pixels
    block_share : how much more brightness may change between blocks than inside them, as a share of the mean change
    twice : equal columns from which it is no chance
    still, still_share : change of a run of columns, as a share of that to both sides of it, and length of the run, as a
        share of the image, from which it was not measured while the vehicle moved
    seam : a step between two columns is so many times the third largest other one where the image was joined
    seam_one_way : there at most this share of what changes goes one way; at the end of a load or a post all does
    seam_sure : so many times what other edges are, it is no end of goods whichever way it goes
    seam_strips : there the step of the roof's and the floor's tenth of the height is among so many of their steepest;
        no load reaches into both
    seam_noise : of that step, so small that it is none
    energy_lag : columns or channels by which two energies may lie apart; interlaced ones do by less than one
    energy_like : least correlation of their edges in -ln T: .87 and more in two real pairs of 120 and 320 kV and of 120
        and 180 kV, .95 in 40 simulated scans, at most .36 between containers of 33 real scans
    """

    edge_px: float = 2.6
    least_height_px: int = 256
    block_share: float = 0.75
    twice: int = 3
    still: float = 0.35
    still_share: float = 0.03
    seam: float = 1.3
    seam_one_way: float = 0.98
    seam_sure: float = 5.0
    seam_strips: float = 0.02
    seam_noise: float = 0.005
    energy_lag: int = 2
    energy_like: float = 0.7


class _Lines(NamedTuple):
    """A sample of an image's lines, upright.

    along : (some rows, columns) float32, transmission; rows : their places; across : (some columns, rows)
    """

    along: Array
    rows: Array
    across: Array


def image_damage(
    radiograph: Radiograph, correction: Correction, frames: tuple[Frame, ...], p: DamageProfile
) -> list[Quality]:
    """Return what was done to an image in which containers were found. frames : in upright pixels of the full image."""
    lines = _lines(radiograph, correction)
    found: list[Quality | None] = [_blurred(lines, frames, p)]
    if radiograph.detector.state == "display":
        found.append(_blocks(lines, p))
    for frame in frames:
        found += [_twice(radiograph, lines, frame, p), _joined(lines, frame, p)]
    return list({q.code: q for q in reversed(found) if q is not None}.values())[::-1]


def _lines(radiograph: Radiograph, correction: Correction) -> _Lines:
    calibration = correction.calibration
    assert calibration is not None, "an image that cannot be corrected is not looked at"
    counts = radiograph.counts[-1]
    dark, gain = calibration.dark[-1], calibration.inv_gain[-1]
    good = np.flatnonzero(~calibration.bad_channels)
    if radiograph.detector.first_channel == "bottom":
        good = good[::-1]
    some = good[:: max(1, good.size // LINES)]
    rows = counts.shape[1] - 1 - some if radiograph.detector.first_channel == "bottom" else some
    step = max(1, counts.shape[0] // LINES)
    along = np.clip((counts[:, some].astype(np.float32) - dark[some]) * gain[some], 0.0, 1.0)
    across = np.clip((counts[::step, good].astype(np.float32) - dark[good]) * gain[good], 0.0, 1.0)
    return _Lines(np.ascontiguousarray(along.T), rows, across)


def _blurred(lines: _Lines, frames: tuple[Frame, ...], p: DamageProfile) -> Quality | None:
    widths = [w for w in (edge_width(lines.along), edge_width(lines.across)) if w is not None]
    height = max(f.height for f in frames)
    widest = max(widths, default=0.0)
    if widest <= p.edge_px or height / widest >= p.least_height_px:
        return None
    text = (
        f"the sharpest edges take {widest:.1f} pixels: blurred, or enlarged from a smaller image. The container is "
        f"{height:.0f} pixels high and shows what one of {height / widest:.0f} pixels would; take the scan itself"
    )
    return Quality(code="image_blurred", reason=text)


def edge_width(lines: Array) -> float | None:
    """Return how many pixels the sharpest tenth of strong edges take, None where there are too few.

    lines : (n, pixels) float32, transmission; an edge is a change of .3 and more within 16 pixels
    """
    if lines.shape[1] <= 3 * _FAR:
        return None
    change = np.abs(lines[:, _FAR:] - lines[:, :-_FAR])
    steepest: Array = cv2.dilate(np.abs(np.diff(lines, axis=1)), np.ones((1, _FAR), np.uint8), anchor=(0, 0))
    strong = change > 0.3
    if np.count_nonzero(strong) < 200:
        return None
    return float(np.quantile(change[strong] / steepest[:, : change.shape[1]][strong], 0.1))


def _blocks(lines: _Lines, p: DamageProfile) -> Quality | None:
    share = max(_blockiness(lines.along), _blockiness(lines.across))
    if share <= p.block_share:
        return None
    text = (
        f"blocks of 8 x 8 pixels show: between them brightness changes by {share:.0%} more than inside them. The image "
        "was compressed so hard that what is faint is lost; take the scan itself"
    )
    return Quality(code="image_compressed", reason=text)


def _blockiness(lines: Array) -> float:
    """Return how much more neighbours differ at one of eight phases, as a share of the mean difference."""
    if lines.shape[1] < 4 * _BLOCK:
        return 0.0
    change = np.abs(np.diff(lines, axis=1)).mean(axis=0)
    excess = change[1:-1] - 0.5 * (change[:-2] + change[2:])
    phases = np.array([excess[k::_BLOCK].mean() for k in range(_BLOCK)])
    usual = float(change.mean())
    return float((phases.max() - np.median(phases)) / usual) if usual > 0 else 0.0


def _inside(lines: _Lines, frame: Frame) -> tuple[Array, int]:
    """Return the part of the rows and columns that shows a container, and its first column."""
    first, end = max(0, int(frame.left)), int(np.ceil(frame.right))
    rows = (lines.rows >= frame.corners[:, 1].min()) & (lines.rows < frame.corners[:, 1].max())
    return lines.along[rows, first:end], first


def _twice(radiograph: Radiograph, lines: _Lines, frame: Frame, p: DamageProfile) -> Quality | None:
    inside, first = _inside(lines, frame)
    if inside.shape[0] < 16 or inside.shape[1] < 16:
        return None
    # what is of one value over long stretches was drawn or clipped: there columns are equal by themselves
    busy = np.flatnonzero((np.diff(inside, axis=0) != 0).mean(axis=0) > 0.5)
    taken = radiograph.column_utc_ns[first + busy]
    if busy.size and taken[-1] > taken[0]:  # what was brought onto even columns shows a line twice, at one time
        busy = busy[np.diff(taken, prepend=taken[0] - 1) != 0]
    columns = radiograph.counts[-1][:, :: max(1, radiograph.detector.channels // LINES)][first + busy]
    seen = Counter(column.tobytes() for column in columns)
    extra = sum(n - 1 for n in seen.values())
    if extra >= p.twice:
        text = f"{extra} columns are equal to another one in every count: they were not measured, but repeated"
        return Quality(code="repeated_columns", reason=f"{text}; lengths are wrong, and something may not be shown")
    change = np.abs(np.diff(inside, axis=1)).mean(axis=0)
    steps = np.flatnonzero(np.diff(np.pad((change < p.still * np.median(change)).astype(np.int8), 1)))
    for a, b in zip(steps[::2], steps[1::2], strict=True):
        if b - a < max(8, p.still_share * lines.along.shape[1]):
            continue
        sides = change[max(0, 2 * a - b) : a], change[b : 2 * b - a]
        if all(s.size and change[a:b].mean() < p.still * np.median(s) for s in sides):
            text = (
                f"{b - a} columns from {first + a} on change less than {p.still:.0%} of what is on both sides of them: "
                "lines were repeated, so lengths are wrong, and something may not be shown"
            )
            return Quality(code="repeated_columns", reason=text)
    return None


def _joined(lines: _Lines, frame: Frame, p: DamageProfile) -> Quality | None:
    inside, first = _inside(lines, frame)
    margin = max(4, int(0.06 * inside.shape[1]))
    if inside.shape[0] < 4 * _BANDS or inside.shape[1] < 4 * margin + 8:
        return None
    change = np.diff(inside, axis=1)
    alone = _alone(np.abs(change))
    steps = _over_bands(alone)[margin:-margin]
    at = int(np.argmax(steps))
    others = np.delete(steps, np.arange(max(0, at - 3), min(steps.size, at + 4)))
    usual = float(np.partition(others, -3)[-3])
    times = float(steps[at]) / (usual + p.seam_noise)
    here = change[:, margin + at + 2]
    one_way = float(np.abs(here.sum()) / max(float(np.abs(here).sum()), 1e-9))
    strip = inside.shape[0] // 10
    steep = max(_steeper(rows.mean(axis=0)[margin:-margin], at) for rows in (alone[:strip], alone[-strip:]))
    goods = one_way > p.seam_one_way and times < p.seam_sure
    if times < p.seam or steep > p.seam_strips or goods:
        return None
    text = (
        f"at column {first + margin + at + 3} the image changes at once, floor and roof as well, {times:.1f} times as "
        "much as at its other sharp edges, and the columns beside do not: joined from two, or columns are missing there"
    )
    return Quality(code="image_joined", reason=text)


def _alone(change: Array) -> Array:
    """Return how much more pixels change between two columns than between the two before and after.

    change : (rows, columns - 1) float32; the first value is of columns 2 and 3
    """
    before = np.maximum(change[:, :-4], change[:, 1:-3])
    after = np.maximum(change[:, 3:-1], change[:, 4:])
    return np.asarray(np.maximum(change[:, 2:-2] - np.maximum(before, after), 0.0))


def _over_bands(alone: Array) -> Array:
    """Return the mean over four bands of height of the roots of means.

    A step at all heights is more by it than a taller one at one height, which the end of a box is.
    """
    rows = alone.shape[0] // _BANDS * _BANDS
    return np.asarray(np.sqrt(alone[:rows].reshape(_BANDS, -1, alone.shape[1]).mean(axis=1)).mean(axis=0))


def _steeper(values: Array, at: int) -> float:
    """Return the share of columns with at least as steep a step."""
    return float((values >= values[at]).mean())


# --------------------------------------------------------------------------------------------------------------
# Two energies


def energies_disagree(
    radiograph: Radiograph, correction: Correction, frames: tuple[Frame, ...], p: DamageProfile
) -> list[Quality]:
    """Return that two energies do not show the same vehicle at the same place."""
    calibration = correction.calibration
    if len(radiograph.counts) != 2 or calibration is None:
        return []
    first = max(0, int(min(f.left for f in frames)))
    end = min(radiograph.columns, int(np.ceil(max(f.right for f in frames))))
    good = np.flatnonzero(~calibration.bad_channels)
    for axis, of in ((0, "columns"), (1, "channels")):
        columns = slice(first, end, 1 if axis == 0 else max(1, (end - first) // 64))
        channels = good[:: max(1, good.size // 64)] if axis == 0 else good
        pair = []
        for counts, dark, gain in zip(radiograph.counts, calibration.dark, calibration.inv_gain, strict=True):
            t = (counts[columns][:, channels] - dark[channels]) * gain[channels]
            # matter weighs alike in both energies only as -ln T: one object is not as much darker as another is
            depth = -np.log(np.clip(t, _FAINT, 1.0)).astype(np.float32)
            pair.append(np.ascontiguousarray(depth.T if axis == 0 else depth))
        lag, like = _apart(*pair)
        if like >= p.energy_like and abs(lag) <= p.energy_lag:
            continue
        if like >= p.energy_like:
            text = f"the lower energy shows the same {lag:+d} {of} off: what is compared there is not the same place"
        else:
            text = (
                f"edges of the two energies are alike to {like:.0%} of what is possible, wherever they are laid over "
                "each other: they do not show the same vehicle"
            )
        return [Quality(code="energies_disagree", reason=f"{text}; nothing follows from comparing them")]
    return []


def _apart(low: Array, high: Array) -> tuple[int, float]:
    """Return by how many pixels `low` lies behind `high`, lines of equal shape (n, pixels), and the correlation there.

    Of edges, four pixels wide, so that noise weighs little; over up to a quarter of the length.
    """
    size = low.shape[1]
    edges = [cv2.blur(line.astype(np.float32), (4, 1)) for line in (low, high)]
    a, b = (e[:, 4:] - e[:, :-4] for e in edges)
    n = 1 << (2 * size - 1).bit_length()
    product = (np.fft.rfft(a, n) * np.conj(np.fft.rfft(b, n))).sum(axis=0)
    norm = float(np.sqrt((a.astype(np.float64) ** 2).sum() * (b.astype(np.float64) ** 2).sum()))
    if norm == 0:
        return 0, 0.0
    found = np.fft.irfft(product, n)
    reach = max(1, size // 4)
    lags = np.arange(-reach, reach + 1)
    values = found[lags]
    at = int(np.argmax(values))
    return int(lags[at]), float(values[at] / norm)
