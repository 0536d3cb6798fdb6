"""What is wrong with an image as an image: the wrong way up, mirrored, stretched, inverted, too small, lines dead.

Each is found by something that every container or every vehicle has, and is told by name. What can be put right without
guessing is put right and told (dead lines, the wrong way up); what cannot is a reason why nothing can be said.

The wrong way up: cross-members carry the floor, dozens of dark ticks across the whole length, and no roof has them. In
33 real scans the ticks of the floor are 5 to 30 times those of the roof, whatever the load.

Mirrored: nothing in a container tells left from right, and lorries are scanned from both ends. Only where a lane's
profile says on which side its tractors are can a mirrored image be told, by the tractor.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Quality, Radiograph

from .container import ContainerProfile, Frame, find_containers
from .vehicle import Vehicle

Array: TypeAlias = NDArray[Any]


class FaultProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of what is an image worth judging.

    least_height_px, least_length_px : container below which 5 cm are fewer than five pixels high, or fewer than three
        long on a 20-foot box
    shapes : length over height in pixels of a container; beyond, no scanner's line rate explains it. Boxes are 2.1-5.3
        times as long as high, archives hold them squeezed to .67
    ticks_ratio, least_ticks : how much more of them the floor has, and the least, in -ln T, that are cross-members:
        roofs and walls show .004-.018, floors .03 at least (simulated) and .06 (real)
    post_t : transmission that the end posts of a container stay below
    tractor : side on which this lane's tractors are in the upright image, None where both occur or it is not known
    dead_level : a line whose brightest pixel is below this share of what lines reach is dead
    dead_fatal : share of dead columns from which the rest is no image
    dead_run : adjacent dead channels, as a share of all, that are rather the ground or a beam stop
    levels : different grey values up to which 16-bit counts hold a picture of 8 bits
    swapped_ratio : times less that an image changes from column to column once its bytes are swapped, from which they
        were: of 16-bit counts the right order has the smaller changes by far, of anything else both are alike
    frozen_share : side, as a share of the container's height (25 cm), of a square of one single value that nothing real
        has: noise, ribs and the grain of JPEG leave 5 % at most in 33 real scans
    frozen_range : shares of the largest count between which that is asked; black and white are one value by themselves
    """

    least_height_px: int = 256
    least_length_px: int = 400
    shapes: tuple[float, float] = (0.5, 5.6)
    ticks_ratio: float = 1.5
    least_ticks: float = 0.022
    post_t: float = 0.7
    tractor: Literal["left", "right"] | None = None
    dead_level: float = 0.05
    dead_fatal: float = 0.20
    dead_run: float = 0.03
    levels: int = 256
    swapped_ratio: float = 8.0
    frozen_share: float = 0.1
    frozen_range: tuple[float, float] = (0.04, 0.96)


def without_dead_lines(radiograph: Radiograph, p: FaultProfile) -> tuple[Radiograph, list[Quality]]:
    """Return the radiograph with dead lines mended, and what was: itself and nothing where none is dead.

    A dead column shows what the nearest good one shows; a dead channel counts as bad. Columns without beam are left to
    the air monitors where there are some.
    """
    detector, counts = radiograph.detector, radiograph.counts[-1]
    columns = _dead_columns(radiograph, p)
    channels, _ = _dead_channels(radiograph, p)
    found = []
    if columns.any():
        share = float(columns.mean())
        text = (
            f"{int(columns.sum())} of {columns.size} columns show nothing or one value all along, the first is column "
            f"{int(np.argmax(columns))}: what was there is not seen"
        )
        found.append(Quality(code="dead_columns", reason=text, fatal=share >= p.dead_fatal))
        good = np.flatnonzero(~columns)
        if not good.size:
            return radiograph, found
        at = np.arange(columns.size)
        after = good[np.searchsorted(good, at).clip(0, good.size - 1)]
        before = good[(np.searchsorted(good, at, side="right") - 1).clip(0)]
        nearest = np.where(np.abs(after - at) < np.abs(at - before), after, before)
        radiograph = msgspec.structs.replace(
            radiograph, counts=tuple(np.ascontiguousarray(c[nearest]) for c in radiograph.counts)
        )
    if channels.any():
        text = (
            f"{int(channels.sum())} of {counts.shape[1]} channels show nothing and are not named as bad, the first is "
            f"channel {int(np.argmax(channels))}: what was there is not seen"
        )
        found.append(Quality(code="dead_channels", reason=text))
        detector = msgspec.structs.replace(detector, bad_channels=detector.bad_channels | channels)
        radiograph = msgspec.structs.replace(radiograph, detector=detector)
    return radiograph, found


def dead_module(radiograph: Radiograph, p: FaultProfile) -> list[Quality]:
    """Return where more channels beside each other are dark than their neighbours can stand for."""
    _, module = _dead_channels(radiograph, p)
    if not module.any():
        return []
    text = (
        f"{int(module.sum())} of {module.size} channels beside each other show nothing, from channel "
        f"{int(np.argmax(module))} on: a module of the detector is dead, or something stands in its beam; what was "
        "there is not seen"
    )
    return [Quality(code="dead_module", reason=text)]


def _dead_columns(radiograph: Radiograph, p: FaultProfile) -> Array:
    """Return (columns,) bool: darker than any column of a vehicle under open sky, or one value all along."""
    counts, bad = radiograph.counts[-1], radiograph.detector.bad_channels
    if bad.all() or min(counts.shape) < 3:
        return np.zeros(counts.shape[0], np.bool_)
    brightest = _brightest(counts, bad)
    # of a scan torn in the middle most columns may be dead
    level = float(np.percentile(brightest, 90))
    dark = float(np.median(radiograph.detector.dark[-1][~bad]))
    suspect = np.flatnonzero(brightest < 0.98 * level)
    dead: Array = np.zeros(counts.shape[0], np.bool_)
    # a column that is one value and not as bright as air is stuck
    dead[suspect] = counts[suspect][:, ~bad].min(axis=1) == brightest[suspect]
    if level > 2 * dark:
        dim = brightest < dark + p.dead_level * (level - dark)
        dead = dead | dim if radiograph.detector.air_channels is None else dead & ~dim
    return dead


def _brightest(counts: Array, bad: Array) -> Array:
    """Return (columns,) of the largest count of each column's good channels, without a copy of the image."""
    found: Array = np.zeros(counts.shape[0], counts.dtype)
    steps = np.flatnonzero(np.diff(np.pad((~bad).astype(np.int8), 1)))
    for a, b in zip(steps[::2], steps[1::2], strict=True):
        np.maximum(found, counts[:, a:b].max(axis=1), out=found)
    return found


def _dead_channels(radiograph: Radiograph, p: FaultProfile) -> tuple[Array, Array]:
    """Return twice (channels,) bool: dark in every column although not named as bad.

    The first are short runs, which neighbours can stand for; the second long ones inside the array, which are left as
    they are. At an end of the array it is the ground or a beam stop.
    """
    counts, bad = radiograph.counts[-1], radiograph.detector.bad_channels
    brightest = counts[:: max(1, counts.shape[0] // 400)].max(axis=0).astype(np.float64)
    dark: Array = radiograph.detector.dark[-1]
    usual = float(np.median(brightest[~bad])) if not bad.all() else 0.0
    found: Array = np.zeros(bad.size, np.bool_)
    module = found.copy()
    if usual <= 2 * float(np.median(dark)) or usual <= 10:
        return found, module
    dim = np.asarray(brightest < dark + p.dead_level * (usual - dark)) | bad
    steps = np.flatnonzero(np.diff(np.pad(dim.astype(np.int8), 1)))
    for a, b in zip(steps[::2], steps[1::2], strict=True):
        if a > 0 and b < bad.size:
            (found if b - a <= max(1, p.dead_run * bad.size) else module)[a:b] = True
    return found & ~bad, module & ~bad


def energies_apart(radiograph: Radiograph, p: FaultProfile) -> list[Quality]:
    """Return where one of several energies has no signal and another has: objects are searched by the highest alone.

    The image then looks sound, but nothing is known there of what two energies would have said.
    """
    detector, bad = radiograph.detector, radiograph.detector.bad_channels
    if detector.state != "raw" or len(radiograph.counts) < 2 or bad.all() or min(radiograph.counts[0].shape) < 3:
        return []
    lit = [_lit(c, dark, bad, p) for c, dark in zip(radiograph.counts, detector.dark, strict=True)]
    any_column, any_channel = (np.logical_or.reduce([line[axis] for line in lit]) for axis in (0, 1))
    found = []
    for name, (columns, channels) in zip(detector.energies, lit, strict=True):
        lost = int((any_column & ~columns).sum()), int((any_channel & ~channels & ~bad).sum())
        if any(lost):
            text = (
                f"energy {name} shows nothing in {lost[0]} of {columns.size} columns and in {lost[1]} of "
                f"{channels.size} channels that another energy sees: what both would say of materials there is lost"
            )
            found.append(Quality(code="energy_dead", reason=text))
    return found


def _lit(counts: Array, dark: Array, bad: Array, p: FaultProfile) -> tuple[Array, Array]:
    """Return (columns,) and (channels,) bool: lines of one energy in which some pixel has a signal."""
    columns = _brightest(counts, bad).astype(np.float64)
    channels = counts[:: max(1, counts.shape[0] // 400)].max(axis=0).astype(np.float64)
    level, zero = float(np.percentile(columns, 90)), float(np.median(dark[~bad]))
    if level <= 2 * zero or level <= 10:
        return np.zeros(columns.size, np.bool_), np.zeros(channels.size, np.bool_)
    least = zero + p.dead_level * (level - zero)
    return columns >= least, channels >= least


def is_upside_down(upright: Array, frames: tuple[Frame, ...], c: ContainerProfile, p: FaultProfile) -> bool:
    """Return whether the image is the wrong way up; False as well where it cannot be told.

    upright : (rows, columns) float32, as it was taken for upright; frames : found in it, none or more
    """
    turned = np.ascontiguousarray(upright[::-1])
    if frames:
        if not _floor_is_on_top(upright, frames[0], p):
            return False
        # of what says so either way up nothing is known; without this it would be turned for ever
        again = find_containers(turned, c)
        return not (again and _floor_is_on_top(turned, again[0], p))
    return any(
        floor >= p.least_ticks and floor > p.ticks_ratio * roof
        for roof, floor in (_ticks(turned, frame) for frame in find_containers(turned, c))
    )


def _floor_is_on_top(upright: Array, frame: Frame, p: FaultProfile) -> bool:
    roof, floor = _ticks(upright, frame)
    return roof >= p.least_ticks and roof > p.ticks_ratio * floor


def _ticks(upright: Array, frame: Frame) -> tuple[float, float]:
    """Return how much short dark marks across stand out, in -ln T, along the roof and along the floor of a container.

    Each strip is a tenth of the height. A mark is narrower than 4 % of the height (10 cm).
    """
    rows = 200
    columns = int(np.clip((frame.right - frame.left) * rows / max(frame.height, 1.0), 100, 1500))
    goal = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32)
    matrix = cv2.getPerspectiveTransform(frame.corners, goal)
    grid = cv2.warpPerspective(upright, matrix, (columns, rows), borderMode=cv2.BORDER_REPLICATE)
    depth = -np.log(np.clip(grid[:, int(0.06 * columns) : int(0.94 * columns)], 0.02, 1.0)).astype(np.float32)
    # a mark of one row is noise: what is meant is upright
    marks: Array = cv2.morphologyEx(cv2.blur(depth, (1, 5)), cv2.MORPH_TOPHAT, np.ones((1, 9), np.uint8))
    return float(marks[: rows // 10].mean()), float(marks[-rows // 10 :].mean())


def floor_is_real(upright: Array, frame: Frame, p: FaultProfile) -> bool:
    """Return whether what was taken for the floor of a container has cross-members and the end posts end there.

    upright : (rows, columns) float32 that holds the container

    In half a container, cut off below, a seam of the side wall or the top of the load makes as straight a line; gaps
    between goods are ticks too, but then the posts go on down to the border of the image at both ends.
    """
    if not frame.floor_seen or _ticks(upright, frame)[1] < p.least_ticks:
        return False
    length, bottom = frame.right - frame.left, upright.shape[0]
    wide = max(2, round(0.015 * length))
    posts = []
    for x, floor in ((round(frame.left), frame.floor_left), (round(frame.right) - wide, frame.floor_right)):
        below = upright[round(floor + 0.03 * frame.height) :, max(0, x) : max(0, x) + wide]
        if below.size == 0 or bottom - floor < 0.1 * frame.height:
            return True
        posts.append(float(np.mean(below.min(axis=1) < p.post_t)))
    return min(posts) < 0.95


def is_inverted(upright: Array, c: ContainerProfile) -> bool:
    """Return whether the image shows a container only when its greys are turned round.

    upright : (rows, columns) float32 in which no container was found either way up
    """
    low, high = (float(v) for v in np.percentile(upright, (0.5, 99.5)))
    border = np.concatenate((upright[: max(1, upright.shape[0] // 50)].ravel(), upright[:, 0], upright[:, -1]))
    if high - low < 0.1 or float(np.median(border)) > low + 0.5 * (high - low):
        return False
    negative = np.clip((high - upright) / (high - low), 0.0, 1.0).astype(np.float32)
    return any(find_containers(np.ascontiguousarray(way), c) for way in (negative, negative[::-1]))


def image_faults(radiograph: Radiograph, frames: tuple[Frame, ...], vehicle: Vehicle, p: FaultProfile) -> list[Quality]:
    """Return what is wrong with an image in which containers were found.

    frames : in upright pixels of the full image
    """
    found = []
    frame = max(frames, key=lambda f: f.right - f.left)
    length, height = frame.right - frame.left, max(frame.height, 1.0)
    if height < p.least_height_px or length < p.least_length_px:
        text = (
            f"the container is {length:.0f} x {height:.0f} pixels: an object of 5 cm is a few pixels at most, and what "
            "is smaller is not seen; take the scan itself, not its thumbnail"
        )
        found.append(Quality(code="image_small", reason=text))
    if frame.floor_seen and not frame.cut and not p.shapes[0] <= length / height <= p.shapes[1]:
        text = (
            f"the container is {length / height:.1f} times as long as high in pixels, boxes are 2.1 to 5.3 times: "
            "lengths along the vehicle are not to be trusted"
        )
        found.append(Quality(code="image_stretched", reason=text))
    if p.tractor is not None and vehicle.front is not None and vehicle.front != p.tractor:
        text = (
            f"the tractor is seen on the {vehicle.front}, on this lane it is on the {p.tractor}: mirrored, or backwards"
        )
        found.append(Quality(code="image_mirrored", reason=text))
    found += [fault for f in frames if (fault := _frozen(radiograph, f, p)) is not None]
    return found + windowed(radiograph, p)


def _frozen(radiograph: Radiograph, frame: Frame, p: FaultProfile) -> Quality | None:
    """Return that a block inside a container holds one value: it was not measured, or was painted over."""
    detector = radiograph.detector
    low, high = (round(share * detector.saturation_value) for share in p.frozen_range)
    top, bottom = int(max(0, frame.corners[:2, 1].min())), int(np.ceil(frame.corners[2:, 1].max()))
    if detector.first_channel == "bottom":
        top, bottom = max(0, detector.channels - bottom), detector.channels - top
    first, end = int(max(0, frame.left)), int(np.ceil(frame.right))
    # every second line both ways is enough for a block, and a quarter of the time
    some = radiograph.counts[-1][first:end:2, top:bottom:2]
    own = some[1:, 1:]
    same = (own == some[:-1, 1:]) & (own == some[1:, :-1]) & (own > low) & (own < high)
    side = max(8, round(p.frozen_share * frame.height / 2)) - 1
    core = cv2.erode(
        same.astype(np.uint8), np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    at = np.argwhere(core)
    if not at.size:
        return None
    column, channel = first + 2 * int(at[0, 0]), top + 2 * int(at[0, 1])
    text = (
        f"around column {column}, channel {channel} all pixels of a block of {2 * side} x {2 * side} or more have the "
        f"same value, {int(radiograph.counts[-1][column, channel])}: nothing was measured there, or it was painted over"
    )
    return Quality(code="frozen_block", reason=text)


def windowed(radiograph: Radiograph, p: FaultProfile) -> list[Quality]:
    """Return the flag of raw counts that are a picture of few grey values; what says `display` of itself needs none."""
    detector, counts = radiograph.detector, radiograph.counts[-1]
    if detector.state != "raw" or detector.saturation_value < 4 * p.levels or counts.size < 64 * p.levels:
        return []
    sample: Array = counts.ravel()[:: max(1, counts.size // 50_000)]
    levels = int(np.unique(sample).size)
    if levels > p.levels:
        return []
    text = (
        f"counts up to {detector.saturation_value} are said to be raw, but hold {levels} different values: a picture "
        "of 8 bits windowed for display, whose transmission is not physical"
    )
    return [Quality(code="display_windowed", reason=text)]


def swapped(radiograph: Radiograph, p: FaultProfile) -> list[Quality]:
    """Return the flag of 16-bit counts whose two bytes are in the wrong order: noise with a trace of the image."""
    counts = radiograph.counts[-1]
    if radiograph.detector.saturation_value <= p.levels or counts.shape[0] < 2:
        return []
    some = np.ascontiguousarray(counts[:, :: max(1, counts.shape[1] // 64)])
    as_is, turned = (float(np.abs(np.diff(c.astype(np.int32), axis=0)).mean()) for c in (some, some.byteswap()))
    if as_is <= p.swapped_ratio * max(turned, 1.0):
        return []
    text = (
        f"counts change by {as_is:.0f} from column to column, with their bytes swapped by {turned:.0f}: the two bytes "
        "of each count are in the wrong order; check the byte order of the detector's stream"
    )
    return [Quality(code="bytes_swapped", reason=text, fatal=True)]
