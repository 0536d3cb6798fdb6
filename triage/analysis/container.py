"""Where the cargo container is in an upright transmission image.

Two ideas carry it, and neither knows a size in pixels.

Roof and ends: in a side view the upper half of a container is the one tall thing whose width does not change from row
to row. Of every row take the longest run that is not air; a container is a block of rows whose runs begin and end at
the same columns, with air above. Wheels and chassis are too ragged for that, a car too rounded, a cab too low.

Floor: the hard side, because cargo, cross-members, chassis beams and wheels overlap there. What is common to all is a
pair of long, straight, thin dark lines (the bottom rail on the top flange of the chassis) across the whole length. They
are searched for in the lower part of the block as lines with a free tilt, since perspective tilts floor and roof
differently. The lower line of the pair is the floor: it is where the bottom corner castings end.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Box

Array: TypeAlias = NDArray[Any]


class ContainerProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds of the container search; lengths are shares of the image or of the container.

    working_rows : image height at which the search is done; 1/480 of the height is finer than the floor is defined
    air_t : transmission above which a pixel is air. Two steel walls of 1.6 mm show as .89 at 6 MV and as .82-.91 in
        display-windowed scans, air as .97-1.0: the middle of the gap
    thin_share : dark lines thinner than this share of the image height, alone in air, are not objects (drawn frames)
    min_height_share, min_width_share : smallest container, of the image
    edge_tolerance_share : how far the ends of a row may stray from the common ends, of the container's length
    bridge_share : gap in a row that does not end the container, of the image width (two 20-foot boxes on one chassis)
    roof_tolerance_share : how far the roof may stray from a straight line, of the container's height
    floor_from_share : the floor lies below this share of the height from roof to image bottom; above are the seams of
        the side walls, and no scanner shows more than a chassis and wheels (35-40 %) under a container
    line_shares : thickness of the lines searched for, of that height, tried in turn: rails, then a thick floor
    min_line_score : weakest floor line, in -ln T above its surroundings over two thirds of the length
    rail_shares : distance of the two lines of the pair, of the height from roof to the upper one (seen: 4-7 %)
    end_frame_ratio : an end frame with its corner casting is darker than this share of the wall beside it
    max_tilt : largest fall of the floor from end to end, of that height (seen: 6 %)
    most_containers : searched for in one image; a lorry carries two 20-foot boxes, a road train three
    gap_share : widest gap between two containers that stand close, of their height: 8-50 cm on one chassis
    gap_post_t : mean transmission an end frame beside such a gap stays below
    least_part_share : shortest container of several, of the longest; 20 of 45 feet are .44
    same_roof_share : how far the roof of a second container may lie from that of the first, of its height: a standard
        and a high one differ by 11 %
    """

    working_rows: int = 480
    air_t: float = 0.955
    thin_share: float = 0.015
    min_height_share: float = 0.25
    min_width_share: float = 0.15
    edge_tolerance_share: float = 0.02
    bridge_share: float = 0.02
    roof_tolerance_share: float = 0.03
    floor_from_share: float = 0.62
    line_shares: tuple[float, ...] = (0.012, 0.05)
    min_line_score: float = 0.12
    rail_shares: tuple[float, float] = (0.03, 0.085)
    end_frame_ratio: float = 0.6
    max_tilt: float = 0.10
    most_containers: int = 4
    gap_share: float = 0.25
    gap_post_t: float = 0.7
    least_part_share: float = 0.40
    same_roof_share: float = 0.15


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The container as a quadrilateral in upright pixels (x to the right, y down), edges as continuous coordinates.

    left, right : x of the ends
    roof_left, roof_right, floor_left, floor_right : y of the four corners
    floor_seen : False where no floor line was found and the bottom of the image stands in for it
    cut : ends ("left", "right") that lie at the border of the image without an end frame to be seen: more may follow
    """

    left: float
    right: float
    roof_left: float
    roof_right: float
    floor_left: float
    floor_right: float
    floor_seen: bool
    cut: tuple[str, ...] = ()

    @property
    def corners(self) -> Array:
        """Corners (4, 2) float32 as x, y: roof left, roof right, floor right, floor left."""
        return np.array(
            [
                (self.left, self.roof_left),
                (self.right, self.roof_right),
                (self.right, self.floor_right),
                (self.left, self.floor_left),
            ],
            np.float32,
        )

    @property
    def height(self) -> float:
        """Mean height in pixels."""
        return 0.5 * (self.floor_left + self.floor_right - self.roof_left - self.roof_right)

    def moved(self, columns: float) -> Frame:
        """Return the same container in an image that has `columns` more columns at its left."""
        return msgspec.structs.replace(self, left=self.left + columns, right=self.right + columns)

    def scaled(self, sx: float, sy: float) -> Frame:
        """Return the same container in an image that is `sx` times as wide and `sy` times as high."""
        return Frame(
            left=self.left * sx,
            right=self.right * sx,
            roof_left=self.roof_left * sy,
            roof_right=self.roof_right * sy,
            floor_left=self.floor_left * sy,
            floor_right=self.floor_right * sy,
            floor_seen=self.floor_seen,
            cut=self.cut,
        )


def find_container(transmission: Array, profile: ContainerProfile | None = None) -> Frame | None:
    """Return the container of an upright image, or None where there is none to be seen.

    transmission : (rows, columns) float32, 1 = air, first row on top

    Containers that stand close together are one here; see `find_containers`.
    """
    p = profile or ContainerProfile()
    rows, columns = transmission.shape
    if rows < 32 or columns < 32:
        return None
    small, sx, sy = _reduced(transmission, p.working_rows)
    frame = _find(small, p)
    return None if frame is None else frame.scaled(sx, sy)


def find_containers(transmission: Array, profile: ContainerProfile | None = None) -> tuple[Frame, ...]:
    """Return every container of an upright image, left to right; empty where there is none to be seen.

    transmission : as for `find_container`
    """
    p = profile or ContainerProfile()
    rows, columns = transmission.shape
    if rows < 32 or columns < 32:
        return ()
    small, sx, sy = _reduced(transmission, p.working_rows)
    first = _find(small, p)
    if first is None:
        return ()
    found = _parts(small, first, p)
    rest = small
    while len(found) < p.most_containers:
        rest = _without(rest, found)
        other = _find(rest, p, like=max(found, key=lambda f: f.right - f.left))
        if other is None:
            break
        found.append(other)
    return tuple(f.scaled(sx, sy) for f in sorted(found, key=lambda f: f.left))


def _find(small: Array, p: ContainerProfile, like: Frame | None = None) -> Frame | None:
    """Return the container of an image of working size; with `like`, only one that can stand beside that."""
    solid = solid_parts(small, p)
    block = _block(solid, p)
    if block is None:
        return None
    left, right, top, bottom = block
    if like is not None and right - left < p.least_part_share * (like.right - like.left):
        return None
    roof = _roof(solid, left, right, top, bottom, p)
    if roof is None:
        return None
    if like is not None and abs(sum(roof) - like.roof_left - like.roof_right) > 2 * p.same_roof_share * like.height:
        return None
    floor = _floor(small, left, right, roof, p)
    seen = floor is not None
    height = small.shape[0]
    if floor is None:
        if like is not None:  # a cab is as high, but stands on no rails
            return None
        floor = (float(bottom), float(bottom))
    return Frame(
        left=float(left),
        right=float(right),
        roof_left=max(roof[0], 0.0),
        roof_right=max(roof[1], 0.0),
        floor_left=float(min(floor[0], height)),
        floor_right=float(min(floor[1], height)),
        floor_seen=seen,
        cut=_cut(small, left, right, roof, height, p),
    )


def _parts(small: Array, frame: Frame, p: ContainerProfile) -> list[Frame]:
    """Return the containers that stand so close together that `frame` took them for one."""
    edges = [frame.left, *_gaps(small, frame, p), frame.right]
    if len(edges) == 2 or min(b - a for a, b in itertools.pairwise(edges)) < p.least_part_share / 2 * (
        frame.right - frame.left
    ):
        return [frame]
    found = []
    for a, b in itertools.pairwise(edges):
        # the borders of the whole stay: a part that goes on past the image is still cut
        alone = np.ones_like(small)
        first = 0 if a == frame.left else round(a)
        end = small.shape[1] if b == frame.right else round(b)
        alone[:, first:end] = small[:, first:end]
        part = _find(alone, p)
        if part is None or part.right - part.left < 0.8 * (b - a):
            return [frame]
        found.append(part)
    return found


def _gaps(small: Array, frame: Frame, p: ContainerProfile) -> list[float]:
    """Return the middles of the gaps inside `frame`: air from the roof to the floor between two end frames."""
    left, right = round(frame.left), round(frame.right)
    top = max(frame.roof_left, frame.roof_right) + 0.05 * frame.height
    bottom = min(frame.floor_left, frame.floor_right) - 0.2 * frame.height
    inner = small[int(top) : int(bottom), left:right]
    if inner.shape[0] < 8 or inner.shape[1] < 8:
        return []
    blocks = np.stack([b.mean(axis=0) for b in np.array_split(inner, 8)])
    air, level = blocks.min(axis=0) > p.air_t - 0.02, blocks.mean(axis=0)
    steps = np.flatnonzero(np.diff(np.pad(air.astype(np.int8), 1)))
    reach = max(2, round(0.06 * frame.height))
    return [
        left + (a + b) / 2
        for a, b in zip(steps[::2], steps[1::2], strict=True)
        if a > 0
        and b < level.size
        and b - a <= p.gap_share * frame.height
        and level[max(0, a - reach) : a].min() < p.gap_post_t
        and level[b : b + reach].min() < p.gap_post_t
    ]


def _without(small: Array, frames: list[Frame]) -> Array:
    """Return the image with air in place of the columns of `frames`."""
    rest = small.copy()
    for f in frames:
        margin = 0.03 * f.height
        rest[:, max(0, int(f.left - margin)) : int(np.ceil(f.right + margin))] = 1.0
    return rest


def box_of(frame: Frame, columns: int, channels: int, *, first_channel: str) -> Box:
    """Return the box around `frame` in a radiograph's own (columns, channels) coordinates.

    first_channel : which end of the upright image channel 0 is, "top" or "bottom"
    """
    x0, x1 = _half_open(frame.left, frame.right, columns)
    y0, y1 = _half_open(min(frame.roof_left, frame.roof_right), max(frame.floor_left, frame.floor_right), channels)
    if first_channel == "bottom":
        y0, y1 = channels - y1, channels - y0
    return Box(first_column=x0, end_column=x1, first_channel=y0, end_channel=y1)


def _half_open(low: float, high: float, size: int) -> tuple[int, int]:
    first = int(min(max(round(low), 0), size - 1))
    return first, int(min(max(round(high), first + 1), size))


def _reduced(transmission: Array, working_rows: int) -> tuple[Array, float, float]:
    """Return the image at working size and the factors back to full size in x and y."""
    rows, columns = transmission.shape
    factor = min(1.0, working_rows / rows)
    size = (min(columns, max(32, round(columns * factor))), max(32, round(rows * factor)))
    small = transmission if factor == 1.0 else cv2.resize(transmission, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32), columns / small.shape[1], rows / small.shape[0]


def solid_parts(small: Array, p: ContainerProfile) -> Array:
    """Return (rows, columns) bool: not air, after single dark lines in air are taken away."""
    size = max(3, 2 * round(p.thin_share * small.shape[0] / 2) + 1)
    cleaned = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((size, 1), np.uint8))
    cleaned = cv2.morphologyEx(cleaned, cv2.MORPH_CLOSE, np.ones((1, size), np.uint8))
    return np.asarray(cleaned < p.air_t)


def _longest_runs(solid: Array, bridge: int) -> tuple[Array, Array]:
    """Return first column and end, (rows,) int each, of every row's longest run; gaps up to `bridge` are closed."""
    padded: Array = solid.astype(np.uint8)
    if bridge >= 2:
        # with a margin, so that the border neither grows a run nor eats one
        wide = np.pad(padded, ((0, 0), (bridge, bridge)))
        wide = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, np.ones((1, bridge + 1), np.uint8))
        padded = wide[:, bridge:-bridge]
    step = np.diff(np.pad(padded.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    first, end = np.zeros(solid.shape[0], np.int64), np.zeros(solid.shape[0], np.int64)
    for row in np.flatnonzero(padded.any(axis=1)):
        starts, ends = np.flatnonzero(step[row] == 1), np.flatnonzero(step[row] == -1)
        best = int(np.argmax(ends - starts))
        first[row], end[row] = starts[best], ends[best]
    return first, end


def _block(solid: Array, p: ContainerProfile) -> tuple[int, int, int, int] | None:
    """Return left, right, top, bottom of the tallest block of rows with common ends, under air; None if there is none.

    Below the floor the chassis is wider or narrower than the container, so the block's bottom is only a lower bound
    of where the search for the floor begins.
    """
    rows, columns = solid.shape
    first, end = _longest_runs(solid, round(p.bridge_share * columns))
    width = end - first
    best: tuple[int, int, int, int] | None = None
    # every row may give the ends: try a few spread over the image, keep the largest block they agree with
    for seed in range(0, rows, max(1, rows // 60)):
        if width[seed] < p.min_width_share * columns:
            continue
        tolerance = max(2.0, p.edge_tolerance_share * width[seed])
        agree = (np.abs(first - first[seed]) <= tolerance) & (np.abs(end - end[seed]) <= tolerance)
        top, bottom = _stretch(agree, seed, max(2, rows // 60))
        if bottom - top < p.min_height_share * rows:
            continue
        if best is None or (bottom - top) * width[seed] > (best[3] - best[2]) * (best[1] - best[0]):
            inside = np.flatnonzero(agree[top:bottom]) + top
            best = (int(np.median(first[inside])), int(np.median(end[inside])), top, bottom)
    return best


def _stretch(agree: Array, seed: int, gap: int) -> tuple[int, int]:
    """Return the half-open stretch of agreeing rows around `seed`, across holes of up to `gap` rows."""
    rows = np.flatnonzero(agree)
    breaks = np.flatnonzero(np.diff(rows) > gap)
    part = int(np.searchsorted(rows[breaks], seed))
    edges = np.concatenate(([0], breaks + 1, [rows.size]))
    return int(rows[edges[part]]), int(rows[edges[part + 1] - 1]) + 1


def _roof(
    solid: Array, left: int, right: int, top: int, bottom: int, p: ContainerProfile
) -> tuple[float, float] | None:
    """Return y of the roof at both ends, from a straight line through the first solid row of every column.

    None where the outline is not straight (a car, a heap) or the block has no air above it (noise, a closed picture).
    """
    inner = solid[:, left:right]
    reach = max(2, (bottom - top) // 8)
    window = inner[max(0, top - reach) : top + reach]
    first = np.where(window.any(axis=0), np.argmax(window, axis=0), -1).astype(np.float64) + max(0, top - reach)
    used = window.any(axis=0) & ~window[0]
    x = np.arange(right - left, dtype=np.float64)
    if used.mean() < 0.6:
        return None
    slope, offset = _line(x[used], first[used])
    stray = np.abs(first[used] - (slope * x[used] + offset))
    if np.mean(stray <= max(1.5, p.roof_tolerance_share * (bottom - top))) < 0.85:
        return None
    return offset, slope * (right - left) + offset


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Return slope and offset of a robust line: least squares, three times, on what lies near the line before."""
    keep = np.ones(x.size, bool)
    slope, offset = 0.0, float(np.median(y))
    for _ in range(3):
        stray = np.abs(y - (slope * x + offset))
        keep = stray <= max(1.5, 2.5 * float(np.median(stray)))
        if keep.sum() < 3 or np.ptp(x[keep]) == 0:
            break
        slope, offset = (float(v) for v in np.polyfit(x[keep], y[keep], 1))
    return slope, offset


def _floor(
    small: Array, left: int, right: int, roof: tuple[float, float], p: ContainerProfile
) -> tuple[float, float] | None:
    """Return y of the floor at both ends: the lower line of the best pair of straight dark lines; None: no line."""
    rows = small.shape[0]
    margin = round(0.03 * (right - left))
    first = int(min(roof) + p.floor_from_share * (rows - min(roof)))
    if right - left - 2 * margin < SEGMENTS or rows - first < 6:
        return None
    for thickness in p.line_shares:
        response = _line_response(small[:, left + margin : right - margin], thickness * (rows - min(roof)))
        reach = int(p.max_tilt * (rows - min(roof)))
        score, tilt = _line_scores(response, first, reach)
        found = _floor_line(score, first, float(np.mean(roof)), p)
        if found is not None:
            # the tilt was measured between the middles of the outer segments' span: extend it to the ends
            half = 0.5 * tilt[found] * (right - left) / (right - left - 2 * margin)
            return first + found - half, first + found + half
    return None


#: Pieces into which the length is cut for the line search: a piece is short enough for tilt not to blur a line.
SEGMENTS = 32


def _line_response(strip: Array, thickness: float) -> Array:
    """Return (rows, SEGMENTS): how much thicker, in -ln T, a row is than the rows around it, up to a ceiling.

    The ceiling keeps one black post from outvoting a faint line that is there all along.
    """
    depth = -np.log(np.clip(strip, 0.02, 1.0))
    size = max(3, 2 * round(thickness) + 1)
    thin = cv2.morphologyEx(depth, cv2.MORPH_TOPHAT, np.ones((size, 1), np.uint8))
    thin = cv2.blur(np.minimum(thin, 0.5), (1, 3))
    edges = np.linspace(0, strip.shape[1], SEGMENTS + 1).astype(int)
    return np.stack([thin[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)], axis=1)


def _line_scores(response: Array, first: int, reach: int) -> tuple[Array, Array]:
    """Return score and tilt, (rows - first,) each, of the best line through the middle of every row from `first`.

    The score is the response that 65 % of the segments exceed, so that a line may be hidden for a third of its length
    (posts, wheels, opaque cargo) but a short one does not count.
    """
    rows = response.shape[0]
    across = (np.arange(SEGMENTS) + 0.5) / SEGMENTS - 0.5
    index = np.arange(SEGMENTS)
    y = np.arange(first, rows)[:, None]
    score, tilt = np.zeros(rows - first), np.zeros(rows - first)
    for lean in sorted(range(-reach, reach + 1), key=abs):
        at = y + lean * across
        low = np.floor(at).astype(np.int64)
        part = at - low
        value = (
            response[low.clip(0, rows - 1), index] * (1 - part) + response[(low + 1).clip(0, rows - 1), index] * part
        )
        now = np.quantile(value, 0.35, axis=1)
        better = now > score
        score[better], tilt[better] = now[better], lean
    return score, tilt


def _floor_line(score: Array, first: int, roof: float, p: ContainerProfile) -> int | None:
    """Return the index of the floor line: the lower of the strongest pair, else the upper of the strong lines."""
    near = 4
    peaks = [
        i
        for i in range(score.size)
        if score[i] >= p.min_line_score and score[i] == score[max(0, i - near) : i + near + 1].max()
    ]
    if not peaks:
        return None
    strong = [i for i in peaks if score[i] >= 0.4 * score[peaks].max()]
    pairs = [
        (score[a] + score[b], b)
        for a in strong
        for b in strong
        if p.rail_shares[0] <= (b - a) / (first + a - roof) <= p.rail_shares[1]
    ]
    # a pair must hold the strongest line or come near it: deck and wall seams make pairs too
    pairs = [pair for pair in pairs if pair[0] >= score[peaks].max()]
    if pairs:
        # the skids of a machine on the floor pair with the upper rail: then the lower of two good pairs is the rails
        best = max(pairs)[0]
        return int(max(b for total, b in pairs if total >= 0.85 * best))
    return int(min(i for i in peaks if score[i] >= 0.7 * score[peaks].max()))


def _cut(
    small: Array, left: int, right: int, roof: tuple[float, float], bottom: float, p: ContainerProfile
) -> tuple[str, ...]:
    """Return the ends at the border of the image that show no end frame, looked for just under the roof.

    There a corner casting stands out against the wall; further down cargo may be as dark as a frame. Cargo up to the
    roof hides it, and then the answer is that the end was not seen.
    """
    reach = max(3, round(0.04 * (right - left)))
    found = []
    for side, at_border, y, columns, beside in (
        ("left", left <= 2, roof[0], slice(left, left + reach), slice(left + reach, left + 4 * reach)),
        (
            "right",
            right >= small.shape[1] - 2,
            roof[1],
            slice(right - reach, right),
            slice(right - 4 * reach, right - reach),
        ),
    ):
        first = int(max(y, 0))
        rows = slice(first + max(1, round(0.015 * (bottom - y))), first + max(3, round(0.08 * (bottom - y))))
        band = small[rows]
        if not at_border or band.shape[0] == 0 or right - left < 4 * reach:
            continue
        darkest = float(np.median(band[:, columns], axis=0).min())
        if darkest > p.end_frame_ratio * float(np.median(band[:, beside])):
            found.append(side)
    return tuple(found)
