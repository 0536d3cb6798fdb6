"""The upright picture of a judgement: what `scanlane triage --save DIR` writes and a person reads in ten seconds.

Colours are BGR, as OpenCV writes them. Text is plain ASCII: the stroke fonts know nothing else.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import Box, Finding, Radiograph, TriageResult

from .container import ContainerProfile, Frame, box_of, find_containers
from .container_size import size_of
from .correction import correct
from .uninspectable import KIND as OPAQUE
from .uninspectable import dark_mask
from .vehicle import vehicle_with

__all__ = ["annotate", "grey", "transmission", "uninspectable"]

Array: TypeAlias = NDArray[Any]
Colour: TypeAlias = tuple[int, int, int]

MAX_WIDTH = 1600
MIN_WIDTH = 1000

_OUTCOME: dict[str, Colour] = {
    "CLEAR": (72, 132, 46),
    "REVIEW": (0, 134, 220),
    "ALARM": (40, 38, 196),
    "UNUSABLE": (96, 72, 92),
}
_TIER: dict[str, Colour] = {"note": (150, 140, 40), "review": (0, 120, 235), "alarm": (40, 38, 210)}
_CONTAINER: Colour = (190, 120, 20)
_OPAQUE: Colour = (190, 60, 150)
_PAPER: Colour = (250, 250, 250)
_INK: Colour = (40, 40, 40)
_FAINT: Colour = (120, 120, 120)
_WHITE: Colour = (255, 255, 255)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT = 0.5
_LINE = 22
_PAD = 14
_BANNER = 46
_HATCH = 12
_PLAIN = str.maketrans({"σ": "sigma", "±": "+-", "×": "x", "≥": ">=", "≤": "<=", "–": "-", "—": "-", "…": "..."})

#: As in ImageProfile.opaque_t; the picture hatches what no profile can see into.
_OPAQUE_T = 0.03


def grey(radiograph: Radiograph, width: int, energy: int = -1) -> Array:
    """Return the upright picture as (rows, `width`) uint8, white = air, in the aspect of the array.

    Physical transmission is shown as its square root, which spreads the dark where cargo is; grey values a vendor
    already windowed are shown as they are.
    """
    image = transmission(radiograph, energy)
    if radiograph.detector.state == "raw":
        image = np.sqrt(image)
    return _scaled(np.round(image * 255).astype(np.uint8), width)


def annotate(radiograph: Radiograph, result: TriageResult) -> Array:
    """Return the picture of a judged scan, (rows, columns, 3) uint8 BGR, at most MAX_WIDTH wide.

    From the top: outcome, the upright radiograph with container, opaque areas and numbered findings, and a legend with
    the reason of each finding, the quality entries and the outcome's reasons.
    """
    width = min(MAX_WIDTH, max(MIN_WIDTH, radiograph.columns))
    base = cv2.cvtColor(grey(radiograph, width), cv2.COLOR_GRAY2BGR)
    upright = transmission(radiograph, -1)
    upright = _scaled(upright, width) if upright.shape[1] > width else np.ascontiguousarray(upright)
    frames = _containers(upright, radiograph, result.container)
    to_base = np.array([base.shape[1] / upright.shape[1], base.shape[0] / upright.shape[0]])
    shapes = [f.corners * to_base for f in frames] or _box_corners(radiograph, result.container, base.shape)
    unseen = _unseen(radiograph, shapes, base.shape)
    base = _hatched(base, unseen)
    view = _View(base, radiograph)
    cv2.polylines(base, [np.round(s).astype(np.int32) for s in shapes], True, _CONTAINER, 2, cv2.LINE_AA)
    numbered = list(enumerate(result.findings, start=1))
    # the best finding last, so that it lies on top
    for number, finding in reversed(numbered):
        if isinstance(finding.where, Box):
            # what could not be seen is hatched as it lies, and the container is outlined: no frame over either
            if finding.kind == OPAQUE:
                view.tag(*_heart(unseen, view.corners(finding.where)), str(number), _TIER[finding.tier])
            else:
                framed = finding.where != result.container
                view.mark(finding.where, str(number), _TIER[finding.tier], frame=framed)
    return np.vstack(
        [_banner(result, width), base, _legend(result, numbered, width, _told_size(radiograph, upright, frames))]
    )


class _View:
    """Draws boxes given in a radiograph's own columns and channels onto its upright picture."""

    def __init__(self, base: Array, radiograph: Radiograph) -> None:
        self.base, self.radiograph = base, radiograph
        self.sx = base.shape[1] / radiograph.columns
        self.sy = base.shape[0] / radiograph.detector.channels

    def corners(self, box: Box) -> tuple[int, int, int, int]:
        return _upright(box, self.radiograph, self.base.shape)

    def outline(self, box: Box, colour: Colour, thickness: int) -> None:
        x0, y0, x1, y1 = self.corners(box)
        cv2.rectangle(self.base, (x0, y0), (x1 - 1, y1 - 1), colour, thickness, cv2.LINE_AA)

    def mark(self, box: Box, label: str, colour: Colour, *, frame: bool = True) -> None:
        """Draw a box with its number on a tag above it, or inside it where there is no room above; or the tag alone."""
        x0, y0, x1, y1 = self.corners(box)
        # a small finding is framed with room around it, so that the frame does not hide it
        grow = 4 if min(x1 - x0, y1 - y0) < 60 else 0
        x0, y0 = max(0, x0 - grow), max(0, y0 - grow)
        x1, y1 = min(self.base.shape[1], x1 + grow), min(self.base.shape[0], y1 + grow)
        if frame:
            cv2.rectangle(self.base, (x0, y0), (x1 - 1, y1 - 1), _WHITE, 4, cv2.LINE_AA)
            cv2.rectangle(self.base, (x0, y0), (x1 - 1, y1 - 1), colour, 2, cv2.LINE_AA)
        _, h = cv2.getTextSize(label, _FONT, 0.55, 2)[0]
        self.tag(x0, y0 - h - 9 if y0 - h - 9 >= 0 else y0, label, colour)

    def tag(self, x: int, y: int, label: str, colour: Colour) -> None:
        """Write a number on a tag with its upper left corner at x, y, or as near as there is room."""
        (w, h), _ = cv2.getTextSize(label, _FONT, 0.55, 2)
        left, top = min(x, self.base.shape[1] - w - 10), min(y, max(0, self.base.shape[0] - h - 10))
        cv2.rectangle(self.base, (left, top), (left + w + 9, top + h + 9), colour, -1)
        cv2.putText(self.base, label, (left + 5, top + h + 4), _FONT, 0.55, _WHITE, 2, cv2.LINE_AA)


def _upright(box: Box, radiograph: Radiograph, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 of a box in an upright picture of `shape`; never empty, never outside."""
    channels = radiograph.detector.channels
    y0, y1 = box.first_channel, box.end_channel
    if radiograph.detector.first_channel == "bottom":
        y0, y1 = channels - y1, channels - y0
    sx, sy = shape[1] / radiograph.columns, shape[0] / channels
    x0 = min(max(round(box.first_column * sx), 0), shape[1] - 1)
    top = min(max(round(y0 * sy), 0), shape[0] - 1)
    return x0, top, min(max(round(box.end_column * sx), x0 + 1), shape[1]), min(max(round(y1 * sy), top + 1), shape[0])


def transmission(radiograph: Radiograph, energy: int = -1) -> Array:
    """Return (rows, columns) float32 upright transmission, 0..1; raw counts by their range where none can be had."""
    counts: Array = radiograph.counts[energy]
    image: Array
    calibration = correct(radiograph).calibration
    if calibration is None:
        low, high = float(counts.min()), float(counts.max())
        end = float(radiograph.detector.saturation_value)
        image = (counts - np.float32(low)) / np.float32(high - low) if high > low else counts / np.float32(end)
    else:
        good = np.flatnonzero(~calibration.bad_channels)
        # a picture may show the channel below in place of a bad one; the judgement interpolates
        nearest = good[np.maximum(np.searchsorted(good, np.arange(counts.shape[1]), side="right") - 1, 0)]
        image = (counts[:, nearest] - calibration.dark[energy][nearest]) * calibration.inv_gain[energy][nearest]
        if calibration.air_channels is not None:
            first, last = calibration.air_channels
            air = image[:, first : last + 1].mean(axis=1, keepdims=True)
            image = image / np.where(air > calibration.min_air, air, 1.0)
    image = np.clip(image, 0.0, 1.0).astype(np.float32).T
    return image[::-1] if radiograph.detector.first_channel == "bottom" else image


def uninspectable(image: Array, at: tuple[int, int, int, int]) -> Array:
    """Return (rows, columns) bool: what the picture tints in a rectangle x0, y0, x1, y1 of transmission as too dark."""
    x0, y0, x1, y1 = at
    mask: Array = np.zeros(image.shape, np.bool_)
    mask[y0:y1, x0:x1] = dark_mask(image[y0:y1, x0:x1], _OPAQUE_T)
    return mask


def _scaled(image: Array, width: int) -> Array:
    rows = max(1, round(image.shape[0] * width / image.shape[1]))
    way = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (width, rows), interpolation=way))


def _containers(upright: Array, radiograph: Radiograph, container: Box | None) -> tuple[Frame, ...]:
    """Return the containers as quadrilaterals in the pixels of an upright transmission image of any width.

    A result knows the box around its containers. Their quadrilaterals are searched for again; where they do not fill
    that box, as under a profile of its own, there are none.
    """
    if container is None:
        return ()
    rows, columns = upright.shape
    frames = find_containers(upright)
    if not frames:
        return ()
    x0, y0, x1, y1 = _upright(container, radiograph, upright.shape)
    boxes = [box_of(f, columns, rows, first_channel="top") for f in frames]
    off = (
        min(b.first_column for b in boxes) - x0, max(b.end_column for b in boxes) - x1,
        min(b.first_channel for b in boxes) - y0, max(b.end_channel for b in boxes) - y1,
    )  # fmt: skip
    return frames if max(abs(v) for v in off) <= max(4, 0.02 * rows) else ()


def _box_corners(radiograph: Radiograph, container: Box | None, shape: tuple[int, ...]) -> list[Array]:
    if container is None:
        return []
    x0, y0, x1, y1 = _upright(container, radiograph, shape)
    return [np.array([(x0, y0), (x1 - 1, y0), (x1 - 1, y1 - 1), (x0, y1 - 1)], np.float32)]


def _unseen(radiograph: Radiograph, shapes: list[Array], shape: tuple[int, ...]) -> Array:
    """Return (rows, columns) bool of the picture: inside the containers, and too dark to see."""
    inside: Array = np.zeros(shape[:2], np.uint8)
    if not shapes:
        return np.asarray(inside != 0)
    cv2.fillPoly(inside, [np.round(s).astype(np.int32) for s in shapes], 1)
    image = _scaled(transmission(radiograph, -1), shape[1])
    return np.asarray(dark_mask(image, max(_OPAQUE_T, correct(radiograph).dark_t)) & (inside != 0))


def _hatched(base: Array, unseen: Array) -> Array:
    """Return the picture with what cannot be seen hatched."""
    if not unseen.any():
        return base
    lines = unseen & ((np.arange(unseen.shape[0])[:, None] + np.arange(unseen.shape[1])) % _HATCH < 2)
    tint = np.full_like(base, _OPAQUE)
    tinted = np.where(unseen[..., None], cv2.addWeighted(base, 0.85, tint, 0.15, 0), base)
    return np.asarray(np.where(lines[..., None], cv2.addWeighted(base, 0.35, tint, 0.65, 0), tinted))


def _heart(unseen: Array, at: tuple[int, int, int, int]) -> tuple[int, int]:
    """Return x, y of the place deepest inside what cannot be seen, within x0, y0, x1, y1; its corner if none is."""
    x0, y0, x1, y1 = at
    part = np.pad(unseen[y0:y1, x0:x1].astype(np.uint8), 1)
    if not part.any():
        return x0, y0
    deep: Array = cv2.distanceTransform(part, cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(deep.argmax()), deep.shape)
    return x0 + int(x) - 1, y0 + int(y) - 1


def _told_size(radiograph: Radiograph, upright: Array, frames: tuple[Frame, ...]) -> list[str]:
    """Return what is known of the size of each container, in words; nothing where nothing is."""
    if not frames:
        return []
    detector = radiograph.detector
    scale = (radiograph.columns / upright.shape[1], detector.channels / upright.shape[0])
    round_at = None
    if detector.column_pitch_mm is not None and detector.channel_pitch_mm is not None:
        round_at = detector.channel_pitch_mm * scale[1] / (detector.column_pitch_mm * scale[0])
    stretch = vehicle_with(upright, frames, round_at, ContainerProfile()).scaled(*scale).wheels.stretch
    sizes = [size_of(f.scaled(*scale), detector, stretch) for f in frames]
    return [f"container of {size.words}" for size in sizes if size.may_be]


def _banner(result: TriageResult, width: int) -> Array:
    colour = _OUTCOME[result.outcome]
    band = np.full((_BANNER, width, 3), colour, np.uint8)
    cv2.putText(band, result.outcome, (_PAD, 32), _FONT, 0.95, _WHITE, 2, cv2.LINE_AA)
    (used, _), _ = cv2.getTextSize(result.outcome, _FONT, 0.95, 2)
    said = f"{result.scan_id}    load: {result.load}"
    if result.gamma_alarm is not None or result.neutron_alarm is not None:
        said += f"    gamma alarm: {_answer(result.gamma_alarm)}    neutron alarm: {_answer(result.neutron_alarm)}"
    _write(band, said, used + 3 * _PAD, 30, _WHITE)
    return band


def _answer(alarm: bool | None) -> str:
    return "not measured" if alarm is None else "YES" if alarm else "no"


def _legend(result: TriageResult, numbered: list[tuple[int, Finding]], width: int, said: list[str]) -> Array:
    """Return the block of text under the picture; as high as it needs to be. said : of the containers."""
    entries: list[tuple[str, Colour, str]] = []
    for number, finding in numbered:
        kind = finding.kind.replace("_", " ")
        words = finding.reason if finding.reason.startswith(kind) else f"{kind}: {finding.reason}"
        entries.append((str(number), _TIER[finding.tier], f"{finding.tier.upper()}  {words}"))
    for quality in result.quality:
        colour = _OUTCOME["UNUSABLE" if quality.fatal else "REVIEW"]
        entries.append(("!", colour, f"{'UNUSABLE' if quality.fatal else 'QUALITY'}  {quality}"))
    known = {f.reason for _, f in numbered} | {str(q) for q in result.quality}
    entries += [(">", _FAINT, reason) for reason in result.reasons if reason not in known]
    entries += [(">", _CONTAINER, words) for words in said]
    if not entries:
        entries.append((">", _FAINT, "no finding"))
    lines: list[tuple[str, Colour, str]] = []
    for tag, colour, text in entries:
        for i, line in enumerate(_wrapped(text, width - 3 * _PAD - 34)):
            lines.append((tag if i == 0 else "", colour, line))
    sheet = np.full((2 * _PAD + _LINE * (len(lines) + 1), width, 3), _PAPER, np.uint8)
    for i, (tag, colour, line) in enumerate(lines):
        y = _PAD + _LINE * i
        if tag:
            cv2.rectangle(sheet, (_PAD, y + 1), (_PAD + 24, y + 18), colour, -1)
            (w, _), _ = cv2.getTextSize(tag, _FONT, 0.48, 1)
            cv2.putText(sheet, tag, (_PAD + 12 - w // 2, y + 15), _FONT, 0.48, _WHITE, 1, cv2.LINE_AA)
        _write(sheet, line, 2 * _PAD + 24, y + 15, _INK)
    foot = f"profile {result.profile}  code {result.code_version}   container: blue   could not be seen: violet   "
    _write(sheet, foot, _PAD, _PAD + _LINE * len(lines) + 17, _FAINT, 0.42)
    return sheet


def _plain(text: str) -> str:
    return text.translate(_PLAIN).encode("ascii", "replace").decode()


def _write(image: Array, text: str, x: int, y: int, colour: Colour, size: float = _TEXT) -> None:
    cv2.putText(image, _plain(text), (x, y), _FONT, size, colour, 1, cv2.LINE_AA)


def _wrapped(text: str, width: int) -> list[str]:
    """Return `text` in lines at most `width` pixels long; a word longer than a line is cut."""
    lines, line = [], ""
    for word in _plain(text).split():
        while cv2.getTextSize(word, _FONT, _TEXT, 1)[0][0] > width and len(word) > 8:
            cut = max(8, int(len(word) * width / cv2.getTextSize(word, _FONT, _TEXT, 1)[0][0]) - 1)
            lines += [line, word[:cut]] if line else [word[:cut]]
            line, word = "", word[cut:]
        longer = f"{line} {word}".strip()
        if line and cv2.getTextSize(longer, _FONT, _TEXT, 1)[0][0] > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines or [""]
