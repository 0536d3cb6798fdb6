"""One vehicle passes: what the lane's devices make of it, and what is true of its picture."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np

from scanner_io.model import NANOSECONDS, Box, DeclarationSeen, Event, Health, LineBlock, ScanEnd, ScanStart

from . import advance, portal
from .config import PASSAGE_S, Config
from .plan import FAULTS, NOISE, PORTAL, SCAN, TEXTURE, Plan, Truth, plan, stream
from .portal import Transit
from .radiograph import Conditions, Detector, conditions_of
from .scene import Extent, Textures, View

CHANGE = 0.03
"""A pixel counts as changed by a threat from so much of its signal on."""
AROUND = 4
"""Columns and channels around a threat's room in which it may still change the picture: blur, and the vehicle's bounce.
"""


@lru_cache(maxsize=4)
def _detector(key: bytes) -> Detector:
    return Detector(msgspec.json.decode(key, type=Config))


def detector_of(config: Config) -> Detector:
    """Return the lane's detector; made once."""
    return _detector(msgspec.json.encode(config))


def passage(config: Config, index: int, slot_utc_ns: int, boot_utc_ns: int) -> Iterator[tuple[int, Event]]:
    """Yield the events of vehicle `index` with the instants at which they become known, in order.

    boot_utc_ns : when the lane's portal started, one instant for all vehicles that it counts

    Made as they are asked for: a block of columns takes milliseconds, a whole vehicle up to seconds.
    """
    this = plan(config, index)
    cut_s = None
    if "link_loss" in this.truth.faults:
        share = float(stream(config, index, FAULTS).uniform(0.2, 0.8))
        cut_s = this.scan_start_s + share * config.span_mm / this.speed_mm_s
    parts = []
    if config.declarations:
        parts.append(_papers(this, slot_utc_ns))
    if config.cameras:
        parts.append(advance.cameras(config, this, slot_utc_ns))
    if config.portal:
        parts.append(_portal(config, this, slot_utc_ns, boot_utc_ns, cut_s))
    if config.radiograph:
        parts.append(_scan(config, this, slot_utc_ns, cut_s))
    # merge is stable: of one instant, papers come before counts and counts before columns
    return heapq.merge(*parts, key=lambda item: item[0])


def _papers(this: Plan, slot_utc_ns: int) -> Iterator[tuple[int, Event]]:
    at = slot_utc_ns + int((this.enter_s - 0.5) * NANOSECONDS)
    yield at, DeclarationSeen(utc_ns=at, declaration=this.declaration, source_ref=this.truth.source_ref)


def _portal(
    config: Config, this: Plan, slot_utc_ns: int, boot_utc_ns: int, cut_s: float | None
) -> Iterator[tuple[int, Event]]:
    rng = stream(config, this.truth.index, PORTAL)
    shade_mm, shade = _shade(this, config.span_mm, rng)
    transit = Transit(
        slot_utc_ns=slot_utc_ns,
        boot_utc_ns=boot_utc_ns,
        slot_s=PASSAGE_S + config.interval_s,
        enter_s=this.enter_s,
        speed_mm_s=this.speed_mm_s,
        front_mm=this.front_mm,
        rear_mm=this.rear_mm,
        shade_mm=shade_mm,
        shade=shade,
        sources=this.sources,
        number=this.truth.index % 999_999 + 1,
        nsigma=config.nsigma,
        lose_gx="missing_gx" in this.truth.faults,
    )
    if this.truth.index == 0:
        text = "SIMULATED lane: portal lines, radiographs and declarations are computed, no device is connected"
        yield slot_utc_ns, Health(utc_ns=slot_utc_ns, component="simulated", state="ok", text=text)
    for event in portal.decode(portal.speak(transit, rng), transit, cut_s):
        yield event.utc_ns, event  # type: ignore[union-attr]  # a portal gives no LineBlock


def _shade(this: Plan, span_mm: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return knots along the vehicle and the share of the ground's radiation that it takes away there.

    From the areal density of the very vehicle that is scanned, blurred by the pillars' field of view and scaled to a
    depth like that of recorded passages: median 41 %, a twentieth below 27 % or above 52 %.
    """
    view = View(165, 61, span_mm=span_mm)
    block = this.scene.draw(view, 0, view.columns)
    dense = block.density.sum(axis=0).mean(axis=1)
    behind = np.arange(-6000.0, span_mm + 6000, 100.0)
    along = np.interp(behind, view.x_mm, dense, left=0.0, right=0.0)
    if this.cab_mm is not None:  # with its engine
        along = np.where((behind > this.cab_mm[0]) & (behind < this.cab_mm[1]), 45.0, along)
    taken = 1 - np.exp(-along / 25.0)
    kernel = np.exp(-np.abs(np.arange(-3000.0, 3001, 100.0)) / portal.FIELD_MM)
    taken = np.convolve(taken, kernel / kernel.sum(), mode="same")
    depth = np.clip(rng.normal(0.41, 0.07), 0.22, 0.58)
    return behind, taken / taken.max() * depth


def _scan(config: Config, this: Plan, slot_utc_ns: int, cut_s: float | None) -> Iterator[tuple[int, Event]]:
    index, name = this.truth.index, this.truth.source_ref
    detector = detector_of(config)
    textures = Textures(detector.view, stream(config, index, TEXTURE))
    conditions = conditions_of(config, detector, stream(config, index, SCAN), this.truth.faults)
    start = slot_utc_ns + int(this.scan_start_s * NANOSECONDS)
    times = start + (detector.view.x_mm / this.speed_mm_s * NANOSECONDS).astype(np.int64)
    cut = None if cut_s is None else slot_utc_ns + int(cut_s * NANOSECONDS)
    yield start, ScanStart(source_ref=name, utc_ns=start, detector=detector.state())
    for first, counts in detector.lines(this.scene, textures, conditions, stream(config, index, NOISE)):
        at = times[first : first + len(counts[0])]
        last = int(at[-1])
        if cut is not None and last >= cut:
            yield cut, ScanEnd(source_ref=name, utc_ns=cut, reason="link_lost")
            return
        yield last, LineBlock(source_ref=name, first_column=first, counts=counts, column_utc_ns=at)
    end = start + int(config.span_mm / this.speed_mm_s * NANOSECONDS)
    yield end, ScanEnd(source_ref=name, utc_ns=end)


# --------------------------------------------------------------------------------------------------------------
# Truth


def ground_truth(config: Config, index: int) -> Truth:
    """Return what vehicle `index` really carries, and where and how much a threat changes its picture.

    The picture is drawn with and without it, with the same beam, blur, scatter and movement, but without noise.
    """
    this = plan(config, index)
    if this.clean is None or this.threat is None:
        return this.truth
    detector = detector_of(config)
    textures = Textures(detector.view, stream(config, index, TEXTURE))
    conditions = conditions_of(config, detector, stream(config, index, SCAN), this.truth.faults)
    room = _room(detector.view, conditions, this.threat)
    first, end = max(room.first_column - AROUND, 0), min(room.end_column + AROUND, config.columns)
    rows = slice(max(room.first_channel - AROUND, 0), room.end_channel + AROUND)
    without = detector.transmission(this.clean, textures, conditions, first, end)
    seen = detector.transmission(this.scene, textures, conditions, first, end)
    ratios = [s[:, rows] / np.maximum(w[:, rows], 1e-9) for s, w in zip(seen, without, strict=True)]
    changed = np.abs(np.log(np.maximum(ratios[-1], 1e-9))) > CHANGE
    columns, channels = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    if not len(columns):
        return msgspec.structs.replace(this.truth, threat_box=room)
    box = Box(
        first_column=first + int(columns[0]), end_column=first + int(columns[-1]) + 1,
        first_channel=rows.start + int(channels[0]), end_channel=rows.start + int(channels[-1]) + 1,
    )  # fmt: skip
    return msgspec.structs.replace(
        this.truth,
        threat_box=box,
        threat_pixels=int(changed.sum()),
        threat_transmission=tuple(round(float(np.median(r[changed])), 5) for r in ratios),
        threat_background=round(float(np.median(without[-1][:, rows][changed])), 6),
    )


def _room(view: View, conditions: Conditions, room: Extent) -> Box:
    """Return the columns and channels onto which a room in the vehicle is projected."""
    x0, x1, h0, h1, z0, z1 = room
    even = np.arange(view.columns + 1) * view.column_pitch_mm
    edges = even if conditions.travel_mm is None else conditions.travel_mm
    left = int(np.clip(np.searchsorted(edges, x0, "right") - 1, 0, view.columns - 1))
    right = int(np.clip(np.searchsorted(edges, x1, "left"), left + 1, view.columns))
    lift = conditions.shift_mm[left:right] / view.channel_pitch_mm
    first, end = view.rows_of(h0, h1, z0, z1)
    first, end = int(np.floor(first - lift.max())), int(np.ceil(end - lift.min()))
    first = min(max(first, 0), view.channels - 1)
    return Box(first_column=left, end_column=right, first_channel=first,
               end_channel=min(max(end, first + 1), view.channels))  # fmt: skip
