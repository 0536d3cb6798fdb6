"""From a radiograph's detector state to the calibration `screen` needs, with everything that limits the image.

A fault is a value here, never an exception: a radiograph whose every channel is dead is a valid recording of a broken
scanner, and what it deserves is UNUSABLE with a reason.

Source: transmission = (counts - dark) / (air - dark) per channel, NeXus NXdetector (flatfield, dark, pixel_mask).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner_io.model import DetectorState, Quality, Radiograph

from .screening import NO_BEAM, Calibration

Array: TypeAlias = NDArray[Any]


class CorrectionProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of what counts as a usable image. Shares are of all channels, columns or pixels.

    min_columns, min_channels : smaller images cannot show a vehicle; a portal's slowest lane gives hundreds of lines
    min_span_counts : least air minus dark of a channel that is believed; below, a channel is dead
    max_reference_counts : largest believable dark or air; more than a 16-bit converter can give is a broken reference
    bad_channels_note, bad_channels_fatal : shares of unusable channels that are worth a look, and too many to bridge
    bad_run_note : adjacent unusable channels, as a share, that can hide an object
    no_beam_fatal : share of columns without beam from which the rest is no image; a single one is told
    bright_t, bright_share : transmission no object can have, and the share of pixels that may show it all the same: a
        few by noise. More of them, and the air monitors see less than the beam is: all else then reads too thin
    saturated_fatal : share of raw pixels at the converter's end from which nothing can be said
    signal_t : transmission that some pixels must exceed, or the image is black
    contrast_t : spread of transmission (99.9th minus 0.1th percentile) that an image of something must have
    repeat_share : run of columns that do not change, as a share of the container's length, that reads as a stopped
        vehicle: corrugation and cross-members repeat every 2-3 %, so nothing real is that even
    repeat_t : change of transmission of a block of channels that is no change; about one grey level and a half
    dark_noise_counts : standard deviation of a dark reading where the detector does not tell; typical for 16 bits
    """

    min_columns: int = 48
    min_channels: int = 48
    min_span_counts: float = 20.0
    max_reference_counts: float = 70_000.0
    bad_channels_note: float = 0.02
    bad_channels_fatal: float = 0.20
    bad_run_note: float = 0.01
    no_beam_fatal: float = 0.20
    saturated_fatal: float = 0.95
    bright_t: float = 1.15
    bright_share: float = 0.01
    signal_t: float = 0.02
    contrast_t: float = 0.03
    repeat_share: float = 0.06
    repeat_t: float = 0.006
    dark_noise_counts: float = 5.0


class Correction(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What `screen` needs, and what is wrong with the detector.

    calibration : None where the radiograph cannot be corrected; then `quality` has a fatal entry
    physical : True where transmission is physical, False for grey values a vendor windowed for display
    dark_t : 5 standard deviations of the dark reading, as transmission; below it nothing was measured
    """

    calibration: Calibration | None
    quality: tuple[Quality, ...]
    physical: bool
    dark_t: float


def correct(radiograph: Radiograph, profile: CorrectionProfile | None = None) -> Correction:
    """Return the calibration of a radiograph and what its detector and its size already say against it."""
    p = profile or CorrectionProfile()
    found = calibrate(radiograph.detector, p)
    quality = (*_acquisition(radiograph, p), *found.quality)
    calibration = None if any(q.fatal for q in quality) else found.calibration
    return msgspec.structs.replace(found, calibration=calibration, quality=quality)


def calibrate(detector: DetectorState, profile: CorrectionProfile | None = None) -> Correction:
    """Return the calibration that a detector's state gives, before a single column has come."""
    p = profile or CorrectionProfile()
    physical = detector.state == "raw"
    quality: list[Quality] = []
    dark, inv_gain, dead = _references(detector, p)
    bad = detector.bad_channels | dead
    quality += _channels(bad, p)
    air = _air_channels(detector, bad)
    if physical and detector.air_channels is not None and air is None:
        quality.append(Quality(code="air_channels_bad", reason="no air-monitor channel works: source output unchecked"))
    dark_t = 0.0
    if physical and not bad.all():
        dark_t = 5.0 * p.dark_noise_counts * float(np.median(inv_gain[-1][~bad]))
    if any(q.fatal for q in quality):
        return Correction(calibration=None, quality=tuple(quality), physical=physical, dark_t=dark_t)
    calibration = Calibration(
        dark=dark,
        inv_gain=inv_gain,
        bad_channels=bad,
        air_channels=air,
        saturation_value=detector.saturation_value,
    )
    return Correction(calibration=calibration, quality=tuple(quality), physical=physical, dark_t=dark_t)


def _acquisition(radiograph: Radiograph, p: CorrectionProfile) -> list[Quality]:
    """Size, and how the scan ended."""
    found = []
    columns, channels = radiograph.columns, radiograph.detector.channels
    if columns < p.min_columns or channels < p.min_channels:
        text = f"{columns} columns x {channels} channels, at least {p.min_columns} x {p.min_channels} are needed"
        found.append(Quality(code="too_small", reason=text, fatal=True))
    if radiograph.end_reason != "complete":
        text = f"the scan ended as {radiograph.end_reason} after {columns} columns: part of the vehicle may be missing"
        found.append(Quality(code="cut_off", reason=text))
    if radiograph.dropped_columns:
        text = f"{radiograph.dropped_columns} columns were lost while {columns} were read"
        found.append(Quality(code="dropped_columns", reason=text))
    return found


def _references(detector: DetectorState, p: CorrectionProfile) -> tuple[tuple[Array, ...], tuple[Array, ...], Array]:
    """Return dark and 1/(air - dark), per energy (channels,) float32, and (channels,) bool: no usable reference."""
    if detector.state == "display":
        zero = np.zeros(detector.channels, np.float32)
        gain = np.full(detector.channels, 1.0 / detector.saturation_value, np.float32)
        energies = len(detector.energies)
        return (zero,) * energies, (gain,) * energies, np.zeros(detector.channels, np.bool_)
    dead = np.zeros(detector.channels, np.bool_)
    darks, gains = [], []
    for dark, air in zip(detector.dark, detector.air, strict=True):
        d, a = dark.astype(np.float64), air.astype(np.float64)
        wrong = ~(a - d >= p.min_span_counts) | (np.abs(d) > p.max_reference_counts) | (a > p.max_reference_counts)
        gain = np.zeros(detector.channels, np.float64)
        gain[~wrong] = 1.0 / (a - d)[~wrong]
        darks.append(np.where(wrong, 0, d).astype(np.float32))
        gains.append(gain.astype(np.float32))
        dead |= wrong
    return tuple(darks), tuple(gains), dead


def _channels(bad: Array, p: CorrectionProfile) -> list[Quality]:
    share = float(bad.mean())
    if share >= p.bad_channels_fatal:
        text = f"{int(bad.sum())} of {bad.size} channels are unusable ({share:.0%}): check references and detector"
        return [Quality(code="bad_channels", reason=text, fatal=True)]
    edges = np.flatnonzero(np.diff(np.pad(bad.astype(np.int8), 1)))
    runs = edges[1::2] - edges[::2]
    longest = int(runs.max()) if runs.size else 0
    if share < p.bad_channels_note and longest < max(3, p.bad_run_note * bad.size):
        return []
    at = int(edges[2 * int(np.argmax(runs))])
    text = f"{int(bad.sum())} of {bad.size} channels are unusable, {longest} of them side by side from channel {at}"
    return [Quality(code="bad_channels", reason=text)]


def _air_channels(detector: DetectorState, bad: Array) -> tuple[int, int] | None:
    """Return first and last air-monitor channel, both included, or None where none can be used."""
    if detector.air_channels is None or detector.state == "display":
        return None
    first, end = detector.air_channels
    return None if bad[first:end].all() else (first, end - 1)


def image_quality(
    radiograph: Radiograph, correction: Correction, transmission: Array, flags: Array, p: CorrectionProfile
) -> list[Quality]:
    """Return what the image itself says against being judged.

    transmission : (columns, channels) float32, corrected, any reduction of the full image along both axes
    flags : (columns,) uint8, column flags of `screen`
    """
    return [*_beam(flags, p), *_range(radiograph, correction, transmission, p)]


def _beam(flags: Array, p: CorrectionProfile) -> list[Quality]:
    found = []
    for code, mask, what in (
        ("no_beam", (flags & NO_BEAM) != 0, "without beam"),
        ("air_saturated", (flags != 0) & ((flags & NO_BEAM) == 0), "with saturated air monitors"),
    ):
        if mask.any():
            share, first = float(mask.mean()), int(np.argmax(mask))
            text = f"{int(mask.sum())} of {flags.size} columns {what}, the first at column {first}: not seen there"
            found.append(Quality(code=code, reason=text, fatal=share >= p.no_beam_fatal))
    return found


def _range(radiograph: Radiograph, correction: Correction, transmission: Array, p: CorrectionProfile) -> list[Quality]:
    """Black, saturated or without any content."""
    low, high = (float(v) for v in np.percentile(transmission, (0.1, 99.9)))
    if high <= max(p.signal_t, correction.dark_t):
        return [Quality(code="black", reason=f"nothing above transmission {high:.3f}: no signal anywhere", fatal=True)]
    if correction.physical:
        end = radiograph.detector.saturation_value
        for name, counts in zip(radiograph.detector.energies, radiograph.counts, strict=True):
            share = float(np.mean(counts >= end))
            if share >= p.saturated_fatal:
                text = f"{share:.0%} of the pixels of energy {name} are at {end} counts: the converter is saturated"
                return [Quality(code="saturated", reason=text, fatal=True)]
    if high - low < p.contrast_t:
        text = f"transmission is {low:.3f} to {high:.3f} all over: no vehicle, or a detector that does not answer"
        return [Quality(code="uniform", reason=text, fatal=True)]
    bright = float(np.mean(transmission > p.bright_t))
    if correction.physical and bright > p.bright_share:
        text = (
            f"{bright:.1%} of the image lets through more than {p.bright_t:g} of the open beam: the air monitors or "
            "the air reference are wrong, and the load may be thicker than it looks; check what covers the monitors"
        )
        return [Quality(code="brighter_than_air", reason=text)]
    return []


def repeated_columns(transmission: Array, first: int, end: int, whole: int, p: CorrectionProfile) -> list[Quality]:
    """Return what says that the vehicle stood still while its container was in the beam: columns that do not change.

    transmission : (columns, channels) float32, corrected, any reduction of the full image along both axes
    first, end : half-open range of its columns that show the container
    whole : columns of the full image
    """
    scale = whole / transmission.shape[0]
    transmission = transmission[first:end]
    columns, channels = transmission.shape
    lag = max(4, columns // 200)
    need = max(8, round(p.repeat_share * columns))
    blocks = min(48, channels)
    edges = np.linspace(0, channels, blocks + 1).astype(int)[:-1]
    means = np.add.reduceat(transmission, edges, axis=1) / np.diff(np.append(edges, channels))
    if columns <= lag + need:
        return []
    change = np.abs(means[lag:] - means[:-lag])
    air = (means[lag:] > 0.955) & (means[:-lag] > 0.955)
    noise = float(np.median(change[air])) / 0.6745 if air.sum() > 100 else 0.0
    still = (change.max(axis=1) <= max(p.repeat_t, 3.5 * noise)) & (np.mean(~air, axis=1) > 0.25)
    steps = np.flatnonzero(np.diff(np.pad(still.astype(np.int8), 1)))
    runs = steps[1::2] - steps[::2]
    if not runs.size or runs.max() < need:
        return []
    longest = int(np.argmax(runs))
    text = (
        f"{round((runs[longest] + lag) * scale)} columns from {round((first + steps[2 * longest]) * scale)} on do "
        "not change: the vehicle stood still or lines were repeated, so lengths are wrong"
    )
    return [Quality(code="repeated_columns", reason=text)]
