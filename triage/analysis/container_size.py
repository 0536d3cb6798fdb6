"""Which container it is: 20, 40 or 45 feet, standard or high, where the image can tell.

A line scanner's columns are as far apart as the vehicle moved between two pulses, so the shape in pixels says nothing
of the shape in steel: archives hold 40-foot boxes that are 4.1 times as long as high, and some that are 2.1 times.
Size is told from the pitches where the device gives them; where wheels are seen, they are round and give the ratio of
the pitches within bounds: a class is named where it is the only one inside them, and 40 feet cannot be told from 45 so.
Otherwise it is not known, and why is said.

Source: ISO 668:2020, external dimensions of series 1 freight containers (1C, 1CC, 1A, 1AA, 1AAA, 1EE, 1EEE).
"""

from __future__ import annotations

import math

import msgspec

from scanner_io.model import DetectorState

from .container import Frame

LENGTHS_MM = {20: 6058.0, 40: 12192.0, 45: 13716.0}
HIGH_CUBE_MM = 2896.0

#: How far a measured length may lie from the class, as a ratio: half of what lies between 40 and 45 feet.
_LENGTH_TOLERANCE = 0.055
#: A measured height below this share of a high cube's is no high cube: the floor line is found to 2-3 %.
_LOW = 0.94
#: Length over height that 20 feet and 40 or 45 feet can show, with 15 % for the perspective of wheels against walls.
_SHAPES = {(20,): (2.092 / 1.15, 2.338 * 1.15), (40, 45): (4.210 / 1.15, 4.736 * 1.15)}


class ContainerSize(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the size of a container.

    feet : 20, 40 or 45; None where it is not known
    may_be : the classes that fit, one where `feet` is known, none where no class fits or nothing is known
    high : False where it is too low for a high cube (2.896 m); None: not known. The near wall is seen enlarged, by up
        to a fifth in lanes where the vehicle passes close to the source, so a tall outline proves nothing
    length_mm, height_mm : outer, as measured; None without the pitch of that side
    why : what it was told from, or why it is not known
    """

    feet: int | None = None
    may_be: tuple[int, ...] = ()
    high: bool | None = None
    length_mm: float | None = None
    height_mm: float | None = None
    why: str = ""

    @property
    def words(self) -> str:
        """Say it."""
        if not self.may_be:
            return f"length class not known: {self.why}"
        named = " or ".join(str(feet) for feet in self.may_be)
        cube = "" if self.high is None else ", not a high cube"
        return f"{named} feet{cube} ({self.why})"


def size_of(frame: Frame, detector: DetectorState, stretch: tuple[float, float] | None = None) -> ContainerSize:
    """Return the size of a container.

    stretch : lowest and highest ratio, by round wheels, of columns per metre along the vehicle to channels per metre
        across; None where no wheels were seen
    """
    across = detector.channel_pitch_mm
    height = frame.height * across if across is not None and frame.floor_seen else None
    high = False if height is not None and height < _LOW * HIGH_CUBE_MM else None
    if frame.cut:
        why = f"it goes on past the {' and '.join(frame.cut)} border of the image"
        return ContainerSize(high=high, height_mm=height, why=why)
    if detector.column_pitch_mm is not None:
        length = (frame.right - frame.left) * detector.column_pitch_mm
        feet = _nearest(length)
        why = f"{length / 1000:.2f} m long by the pitch of the columns"
        if feet is None:
            why += ", which is no length of ISO 668: the speed may not be what the pitch was reckoned from"
            return ContainerSize(high=high, length_mm=length, height_mm=height, why=why)
        return ContainerSize(feet=feet, may_be=(feet,), high=high, length_mm=length, height_mm=height, why=why)
    if stretch is None:
        why = "the pitch of the columns is not known, and no wheels are seen that would give it"
        return ContainerSize(high=high, height_mm=height, why=why)
    return _by_shape(frame, stretch, high, height)


def _by_shape(frame: Frame, stretch: tuple[float, float], high: bool | None, height: float | None) -> ContainerSize:
    if not frame.floor_seen:
        return ContainerSize(why="neither the pitch of the columns nor the floor is known")
    aspect = (frame.right - frame.left) / max(frame.height, 1.0)
    shapes = (aspect / stretch[1], aspect / stretch[0])
    why = f"{shapes[0]:.1f} to {shapes[1]:.1f} times as long as high, by its vehicle's wheels being round"
    fit = [feet for feet, (low, most) in _SHAPES.items() if shapes[0] <= most and low <= shapes[1]]
    if len(fit) != 1:
        return ContainerSize(high=high, height_mm=height, why=f"the pitch of the columns is not known; it is {why}")
    only = fit[0][0] if len(fit[0]) == 1 else None
    return ContainerSize(feet=only, may_be=fit[0], high=high, height_mm=height, why=why)


def _nearest(length_mm: float) -> int | None:
    feet = min(LENGTHS_MM, key=lambda f: abs(math.log(max(length_mm, 1.0) / LENGTHS_MM[f])))
    return feet if abs(length_mm / LENGTHS_MM[feet] - 1) <= _LENGTH_TOLERANCE else None
