"""Images of vehicles that stop, reverse or change speed: columns by where the vehicle was, not by when they were read.

A line scanner reads columns at an even rate, so a vehicle that slows down is stretched, one that stops repeats a column
and one that rolls back is shown twice. Where an encoder tells how far the vehicle had come, the columns that brought
something new are kept, in order, and the nearest of them is taken at every step of one pitch. No count is changed or
mixed: a rectified column is one column of the raw image, and what is found goes back to it by number. Without an
encoder, readings of the vehicle's speed (`lane_events`) do, where they cover the whole image.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.model import Box, Finding, Quality, Radiograph, Scan, TriageResult

EVEN, SAME = 0.5, 0.01
"""An image is even whose columns lie within half a pitch of the even grid, if its mean step is the pitch to 1 %."""
LEAST_TRAVEL = 20
"""Pitches that a vehicle travels at least; an encoder that tells less does not turn."""
MOST_STEP = 5.0
"""Pitches between two columns from which on something was passed unseen."""
MOST_COLUMNS = 4
"""A rectified image has at most so many times the columns of the raw one: a wild encoder must not fill the memory."""


MOST_SILENCE_S = 1.0
"""Between two readings of the speed, or between one and an end of the image; more is not covered."""


class Rectified(NamedTuple):
    """An even image: column i of it is column `columns[i]` of the raw one.

    columns : (n,) int64, increasing
    quality : what the positions leave open
    """

    radiograph: Radiograph
    columns: npt.NDArray[np.int64]
    quality: tuple[Quality, ...] = ()


def positions_of_speed(
    column_utc_ns: npt.NDArray[np.int64], speed_utc_ns: npt.NDArray[np.int64], speed_mm_s: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return how far the vehicle had come at every column, (columns,) mm, from readings of its speed.

    speed_utc_ns, speed_mm_s : (n,) readings in order of time; between two the speed is taken to change evenly, before
        the first and after the last it is theirs
    """
    at_s = (column_utc_ns - column_utc_ns[0]) / 1e9
    known_s = (speed_utc_ns - column_utc_ns[0]) / 1e9
    times = np.union1d(at_s, known_s)
    speed = np.interp(times, known_s, speed_mm_s)
    travelled = np.concatenate([[0.0], np.cumsum(np.diff(times) * (speed[1:] + speed[:-1]) / 2)])
    found: npt.NDArray[np.float64] = np.interp(at_s, times, travelled).astype(np.float64)
    found -= found[0]
    return found


def located(scan: Scan) -> tuple[Radiograph | None, tuple[Quality, ...]]:
    """Return the scan's image, with positions by readings of the speed where it has none of an encoder, and flags."""
    image = scan.radiograph
    told = [(e.device, e.utc_ns, e.speed_mm_s) for e in scan.lane_events if e.speed_mm_s is not None]
    if image is None or image.position_mm is not None or not told:
        return image, ()
    names = [device for device, _, _ in told]
    device = max(sorted(set(names)), key=names.count)  # of several devices the one that says most: they are not mixed
    at_ns, speed = (np.array(v) for v in zip(*((t, v) for d, t, v in told if d == device), strict=True))
    first, last = image.column_utc_ns[[0, -1]]
    inside = at_ns[(at_ns > first) & (at_ns < last)]
    silent_s = float(np.diff([first, *inside, last]).max()) / 1e9
    if silent_s > MOST_SILENCE_S or at_ns.size < 2:
        reason = (
            f"{at_ns.size} readings of the speed by {device or 'a device'} leave {silent_s:.1f} s of the image open"
        )
        return image, (Quality(code="speed_not_used", reason=f"{reason}: they were not used"),)
    position = positions_of_speed(image.column_utc_ns, at_ns.astype(np.int64), speed.astype(np.float64))
    return msgspec.structs.replace(image, position_mm=position), ()


def rectify(radiograph: Radiograph) -> Rectified | None:
    """Return the image with even columns; None where it has no positions, or is even already."""
    if radiograph.position_mm is None or radiograph.columns < 2:
        return None
    position = radiograph.position_mm
    if position[-1] < position[0]:
        position = -position  # the encoder counts the other way
    front = np.maximum.accumulate(position)
    forward = np.flatnonzero(np.concatenate([[True], front[1:] > front[:-1]]))
    steps = np.diff(front[forward])
    pitch = radiograph.detector.column_pitch_mm or (float(np.median(steps)) if steps.size else 0.0)
    travel = float(front[-1] - front[0])
    if not pitch or travel < LEAST_TRAVEL * pitch:
        reason = f"encoder or speed tell a travel of {travel:.0f} mm in {radiograph.columns} columns: not used"
        flag = Quality(code="encoder_not_used", reason=reason)
        return Rectified(radiograph, np.arange(radiograph.columns), (flag,))
    if travel > MOST_COLUMNS * radiograph.columns * pitch:
        reason = f"encoder or speed tell a travel of {travel / 1000:.1f} m in {radiograph.columns} columns: not used"
        flag = Quality(code="encoder_not_used", reason=reason)
        return Rectified(radiograph, np.arange(radiograph.columns), (flag,))
    even = np.linspace(front[0], front[-1], radiograph.columns)
    off_pitches = float(np.abs(front - even).max()) / pitch
    step = travel / (radiograph.columns - 1)
    if forward.size == radiograph.columns and off_pitches <= EVEN and abs(step - pitch) <= SAME * pitch:
        return None
    grid = front[0] + pitch * np.arange(int(travel / pitch) + 1)
    known = front[forward]
    right = np.clip(np.searchsorted(known, grid), 1, known.size - 1)
    nearest = np.where(grid - known[right - 1] <= known[right] - grid, right - 1, right)
    columns = forward[nearest]
    flags: tuple[Quality, ...] = ()
    unseen = steps[steps > MOST_STEP * pitch]
    if unseen.size:
        times = f"{unseen.size} times"
        reason = f"the vehicle moved up to {unseen.max():.0f} mm between two columns ({times}): not all of it is seen"
        flags = (Quality(code="columns_too_far_apart", reason=reason),)
    even_image = Radiograph(
        detector=msgspec.structs.replace(radiograph.detector, column_pitch_mm=pitch),
        counts=tuple(np.ascontiguousarray(c[columns]) for c in radiograph.counts),
        column_utc_ns=radiograph.column_utc_ns[columns], end_reason=radiograph.end_reason,
        dropped_columns=radiograph.dropped_columns,
    )  # fmt: skip
    return Rectified(even_image, columns, flags)


def in_raw_columns(result: TriageResult, columns: npt.NDArray[np.int64]) -> TriageResult:
    """Return a judgement of the even image with its boxes in columns of the raw one."""

    def back(box: Box) -> Box:
        first, last = (int(columns[min(c, columns.size - 1)]) for c in (box.first_column, box.end_column - 1))
        return msgspec.structs.replace(box, first_column=first, end_column=last + 1)

    findings: list[Finding] = [
        msgspec.structs.replace(f, where=back(f.where)) if isinstance(f.where, Box) else f for f in result.findings
    ]
    container = None if result.container is None else back(result.container)
    return msgspec.structs.replace(result, findings=tuple(findings), container=container)
