"""Core types: what drivers yield, what a scan is, what judgement and analysts say about it.

Structs are frozen; those that hold arrays compare by identity. Arrays are checked once at construction (type, shape,
C order) and are read-only afterwards. Instants are UTC nanoseconds since 1970 (int). Units stand in the names.

Source of the names: ANSI N42.42-2012 (lane, occupancy, background, gamma and neutron alarm), NeXus NXdetector
(saturation_value, pixel mask).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from .errors import DataError
from .exact import Exact
from .formats.cargo import CargoMessage
from .vendor_record import Attachment, Sidecar

Kind = Literal["radiograph", "portal", "declaration"]
Outcome = Literal["CLEAR", "REVIEW", "ALARM", "UNUSABLE"]
Load = Literal["empty", "loaded", "unknown"]
Verdict = Literal["clear", "inspect", "rescan"]
EndReason = Literal["complete", "aborted", "timed_out", "link_lost"]
Tier = Literal["note", "review", "alarm"]

MAX_CHANNELS = 65_536
"""Channels of the longest detector array accepted."""
MAX_PIXELS = 256_000_000
"""Pixels per energy of the largest scan accepted: a bound on memory that no radiograph of today reaches."""

NANOSECONDS = 1_000_000_000

_LANE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_SCAN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}-\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}")


def frozen_array(
    owner: str,
    name: str,
    array: Any,
    dtype: npt.DTypeLike,
    shape: tuple[int | None, ...],
) -> npt.NDArray[Any]:
    """Return `array` as a read-only C-contiguous array of exactly `dtype` and `shape`.

    shape : expected lengths; None accepts any length on that axis.

    Raises DataError naming owner, field, the type and shape seen and those expected. Integers are never cast: a
    detector count that does not fit its type is a fault of the source, not something to be mended here.
    """
    if not isinstance(array, np.ndarray):
        raise DataError(f"{owner}.{name}: got {type(array).__name__}, expected a numpy array of {np.dtype(dtype)}")
    wanted = np.dtype(dtype)
    expected = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
    if array.dtype != wanted:
        raise DataError(f"{owner}.{name}: dtype {array.dtype}, expected {wanted} of shape {expected}")
    if array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        raise DataError(f"{owner}.{name}: shape {array.shape}, expected {expected}")
    frozen: npt.NDArray[Any] = np.ascontiguousarray(array)
    view = frozen.view()
    view.flags.writeable = False
    return view


def check_lane_name(name: str) -> str:
    """Return `name` if it can be a lane's name (it becomes part of file names); raise DataError otherwise."""
    if not _LANE_NAME.fullmatch(name):
        raise DataError(f"lane name {name!r}: expected 1-32 of a-z 0-9 _ - beginning with a letter or digit")
    return name


def is_scan_id(text: str) -> bool:
    """Return whether `text` has the form of a scan's id."""
    return _SCAN_ID.fullmatch(text) is not None


def check_scan_id(scan_id: str) -> str:
    """Return `scan_id` if it has the form of one (it becomes a file name); raise DataError otherwise."""
    if not is_scan_id(scan_id):
        raise DataError(
            f"scan id {scan_id[:80]!r}: expected LANE-YYYYMMDDTHHMMSS.ffffffZ-xxxxxxxx, e.g. "
            "north-20260131T094501.250000Z-0f3a9c1e"
        )
    return scan_id


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Something that limits what a scan can say.

    fatal : the scan cannot be judged because of it (UNUSABLE); otherwise it needs a person's look (REVIEW)
    """

    code: str
    reason: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Which device speaks, and what it can say."""

    vendor: str
    model: str
    kinds: tuple[Kind, ...]
    serial: str = ""
    address: str = ""
    simulated: bool = False
    note: str = ""


# --------------------------------------------------------------------------------------------------------------
# Radiograph


class DetectorState(Exact, frozen=True, kw_only=True, eq=False):
    """The line detector at the start of a scan, as needed to turn counts into transmission.

    energies : names, low before high; one or two
    channels : detector elements along the array
    dark, air : per energy `(channels,) float32`, mean counts without beam and with beam in air
    bad_channels : `(channels,) bool`, True where a channel is dead, stuck or noisy
    air_channels : half-open range of channels that always see air (beam monitor), or None
    saturation_value : largest count the converter can give
    state : `raw` counts, or `display` grey values that a vendor already windowed (no physical transmission)
    first_channel : which end of the upright image channel 0 is
    column_pitch_mm, channel_pitch_mm : sampling in the object plane where known
    flags : what limits the image by its source's own knowledge
    """

    energies: tuple[str, ...]
    channels: int
    dark: tuple[npt.NDArray[np.float32], ...]
    air: tuple[npt.NDArray[np.float32], ...]
    bad_channels: npt.NDArray[np.bool_]
    air_channels: tuple[int, int] | None = None
    saturation_value: int = 65535
    state: Literal["raw", "display"] = "raw"
    first_channel: Literal["top", "bottom"] = "top"
    column_pitch_mm: float | None = None
    channel_pitch_mm: float | None = None
    note: str = ""
    flags: tuple[Quality, ...] = ()

    def __post_init__(self) -> None:
        """Check and freeze. Raises DataError."""
        super().__post_init__()
        if len(self.energies) not in (1, 2) or len(set(self.energies)) != len(self.energies):
            raise DataError(f"DetectorState.energies: {self.energies!r}, expected one or two different names")
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise DataError(f"DetectorState.channels: {self.channels}, expected 1 to {MAX_CHANNELS}")
        for name in ("dark", "air"):
            references = getattr(self, name)
            if len(references) != len(self.energies):
                raise DataError(f"DetectorState.{name}: {len(references)} references for {len(self.energies)} energies")
            checked = tuple(
                frozen_array("DetectorState", f"{name}[{e}]", r, np.float32, (self.channels,))
                for e, r in zip(self.energies, references, strict=True)
            )
            if not all(np.isfinite(r).all() for r in checked):
                raise DataError(f"DetectorState.{name}: not finite everywhere; expected counts")
            msgspec.structs.force_setattr(self, name, checked)
        bad = frozen_array("DetectorState", "bad_channels", self.bad_channels, np.bool_, (self.channels,))
        msgspec.structs.force_setattr(self, "bad_channels", bad)
        if not 1 <= self.saturation_value <= 65535:
            raise DataError(f"DetectorState.saturation_value: {self.saturation_value}, expected 1 to 65535")
        if self.air_channels is not None:
            first, end = self.air_channels
            if not 0 <= first < end <= self.channels:
                raise DataError(
                    f"DetectorState.air_channels: {self.air_channels}, expected a range inside 0..{self.channels}"
                )
        for name in ("column_pitch_mm", "channel_pitch_mm"):
            pitch = getattr(self, name)
            if pitch is not None and not 0 < pitch < 1000:
                raise DataError(f"DetectorState.{name}: {pitch}, expected millimetres between 0 and 1000, or none")


class Radiograph(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A transmission image as a line scanner delivers it.

    counts : per energy `(columns, channels) uint16`, time-major; large = air
    column_utc_ns : `(columns,) int64`, when each column was read
    position_mm : `(columns,) float64`, how far the vehicle had come by its encoder; None where nothing tells
    """

    detector: DetectorState
    counts: tuple[npt.NDArray[np.uint16], ...]
    column_utc_ns: npt.NDArray[np.int64]
    end_reason: EndReason = "complete"
    dropped_columns: int = 0
    position_mm: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Check and freeze. Raises DataError."""
        if len(self.counts) != len(self.detector.energies):
            raise DataError(f"Radiograph.counts: {len(self.counts)} images for {len(self.detector.energies)} energies")
        columns = self.counts[0].shape[0] if self.counts[0].ndim == 2 else -1
        if columns < 1:
            raise DataError(f"Radiograph.counts: shape {self.counts[0].shape}, expected at least one column")
        if columns * self.detector.channels > MAX_PIXELS:
            raise DataError(
                f"Radiograph.counts: {columns} x {self.detector.channels} pixels, at most {MAX_PIXELS} are accepted"
            )
        checked = tuple(
            frozen_array("Radiograph", f"counts[{e}]", c, np.uint16, (columns, self.detector.channels))
            for e, c in zip(self.detector.energies, self.counts, strict=True)
        )
        msgspec.structs.force_setattr(self, "counts", checked)
        times = frozen_array("Radiograph", "column_utc_ns", self.column_utc_ns, np.int64, (columns,))
        msgspec.structs.force_setattr(self, "column_utc_ns", times)
        if self.position_mm is not None:
            position = frozen_array("Radiograph", "position_mm", self.position_mm, np.float64, (columns,))
            if not np.isfinite(position).all():
                raise DataError("Radiograph.position_mm: not finite everywhere, expected millimetres")
            msgspec.structs.force_setattr(self, "position_mm", position)
        if self.dropped_columns < 0:
            raise DataError(f"Radiograph.dropped_columns: {self.dropped_columns}, expected 0 or more")

    @property
    def columns(self) -> int:
        """Lines read while the vehicle passed."""
        return int(self.counts[0].shape[0])

    def upright(self, energy: int = -1) -> npt.NDArray[np.uint16]:
        """Return one energy as `(rows, columns) uint16`, first row on top, first column left (a view)."""
        image = self.counts[energy].T
        return image[::-1] if self.detector.first_channel == "bottom" else image


# --------------------------------------------------------------------------------------------------------------
# Portal


SIMULATED_FIRMWARE = "SIM."
"""Beginning of the firmware name in the set-up lines (SG3) of a simulated portal."""


class PortalCount(msgspec.Struct, frozen=True, kw_only=True):
    """Where a portal's own count of occupancies stands: number `number` of its run `boot_epoch`."""

    boot_epoch: int
    number: int


class PortalSettings(Exact, frozen=True, kw_only=True):
    """Settings of a portal monitor as its set-up lines give them. None or empty: not told.

    gamma_intervals : intervals in the alarm sum
    hold_in_intervals : intervals kept after the vehicle has left
    nsigma : alarm threshold in standard deviations of the background
    algorithm_mask : SUM, HORIZONTAL, VERTICAL, SINGLE as four characters 0 or 1
    gamma_high_fault, gamma_low_fault, neutron_high_fault : counts/s
    gamma_detectors_on : detectors on line, a character 0 or 1 each
    gamma_levels, neutron_levels : discriminators as the portal writes them: master lower, upper, slave lower, upper
    gamma_background_s, neutron_background_s : time over which the background is averaged
    gamma_background_sigma : threshold of the "throw-through" alarm, 0 is off
    neutron_max_intervals, neutron_alpha, neutron_zmax, neutron_sequential_intervals : of the neutron rule, not verified
    relay_output, software : as told
    lines : the set-up lines themselves
    """

    gamma_intervals: int = 5
    hold_in_intervals: int = 10
    nsigma: float = 7.0
    algorithm_mask: str = "1010"
    gamma_high_fault: int | None = None
    gamma_low_fault: int | None = None
    neutron_high_fault: int | None = None
    firmware: str = ""
    lines: tuple[str, ...] = ()
    gamma_detectors_on: str = ""
    gamma_levels: tuple[float | None, float | None, float | None, float | None] | None = None
    neutron_levels: tuple[float | None, float | None, float | None, float | None] | None = None
    gamma_background_s: int | None = None
    gamma_background_sigma: float | None = None
    neutron_max_intervals: int | None = None
    neutron_alpha: int | None = None
    neutron_zmax: int | None = None
    neutron_sequential_intervals: int | None = None
    neutron_background_s: int | None = None
    relay_output: int | None = None
    software: str = ""

    @property
    def simulated(self) -> bool:
        """True where the firmware is that of a simulated portal."""
        return self.firmware.startswith(SIMULATED_FIRMWARE)


class PortalRecord(Exact, frozen=True, kw_only=True, eq=False):
    """One occupancy of a radiation portal monitor.

    gamma : `(intervals, detectors) int64`, counts in each interval of `gamma_interval_s`
    neutron : `(seconds, detectors) int64`, counts in each interval of `neutron_interval_s`
    gamma_alarm, neutron_alarm : `(n,) bool`, the vendor's own flag per interval
    gamma_background, neutron_background : `(detectors,) float64` counts/s before entry, None where none was seen
    gamma_arrival_ns : `(intervals,) int64`, when each line arrived (buffered lines arrive together)
    gamma_start_utc_ns : rebuilt time of the first gamma interval; interval i began i * gamma_interval_s later
    neutron_arrival_ns, neutron_start_utc_ns : the same of the neutron intervals, on an index of their own; None where
        not known
    gamma_windows : `(intervals, windows) int64`, or `(intervals, detectors, windows)` where a portal tells detectors
        apart: counts per energy window; None where the portal sends none or any interval's are missing
    gamma_windows_background : `(windows,)` or `(detectors, windows) float64` counts/s before entry
    gamma_windows_alarm : `(intervals,) bool`, the vendor's window algorithm, beside `gamma_alarm`; None: no such lines
    settings : None where the portal never told them ("settings assumed")
    number : the portal's own count, which restarts; None where no count is this passage's alone
    boot_epoch : the portal's run in which it counted, named by the UTC second in which the run was first heard; later
        runs have larger ones. The key of a passage is (lane, boot_epoch, number)
    raw_lines : every line of the occupancy as received
    """

    start_utc_ns: int
    end_utc_ns: int
    gamma: npt.NDArray[np.int64]
    neutron: npt.NDArray[np.int64]
    gamma_alarm: npt.NDArray[np.bool_]
    neutron_alarm: npt.NDArray[np.bool_]
    gamma_arrival_ns: npt.NDArray[np.int64]
    gamma_start_utc_ns: int
    gamma_background: npt.NDArray[np.float64] | None = None
    neutron_background: npt.NDArray[np.float64] | None = None
    gamma_interval_s: float = 0.2
    neutron_interval_s: float = 1.0
    settings: PortalSettings | None = None
    number: int | None = None
    boot_epoch: int = 0
    speed_kmh: float | None = None
    end_reason: EndReason = "complete"
    faults: tuple[str, ...] = ()
    raw_lines: tuple[str, ...] = ()
    neutron_arrival_ns: npt.NDArray[np.int64] | None = None
    neutron_start_utc_ns: int | None = None
    gamma_windows: npt.NDArray[np.int64] | None = None
    gamma_windows_background: npt.NDArray[np.float64] | None = None
    gamma_windows_alarm: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check and freeze. Raises DataError."""
        super().__post_init__()
        owner = "PortalRecord"
        for series, alarm in (("gamma", "gamma_alarm"), ("neutron", "neutron_alarm")):
            counts = frozen_array(owner, series, getattr(self, series), np.int64, (None, None))
            if counts.size and counts.min() < 0:
                raise DataError(f"{owner}.{series}: smallest count {counts.min()}, expected 0 or more")
            flags = frozen_array(owner, alarm, getattr(self, alarm), np.bool_, (counts.shape[0],))
            msgspec.structs.force_setattr(self, series, counts)
            msgspec.structs.force_setattr(self, alarm, flags)
            name = f"{series}_background"
            background = getattr(self, name)
            if background is not None:
                background = frozen_array(owner, name, background, np.float64, (None,))
                if not np.isfinite(background).all() or (background < 0).any():
                    raise DataError(f"{owner}.{name}: {background}, expected counts/s, 0 or more")
                msgspec.structs.force_setattr(self, name, background)
        arrival = frozen_array(owner, "gamma_arrival_ns", self.gamma_arrival_ns, np.int64, (self.gamma.shape[0],))
        msgspec.structs.force_setattr(self, "gamma_arrival_ns", arrival)
        if self.neutron_arrival_ns is not None:
            arrival = frozen_array(
                owner, "neutron_arrival_ns", self.neutron_arrival_ns, np.int64, (self.neutron.shape[0],)
            )
            msgspec.structs.force_setattr(self, "neutron_arrival_ns", arrival)
        self._check_windows()
        if self.end_utc_ns < self.start_utc_ns:
            raise DataError(f"{owner}: ends at {self.end_utc_ns} before it starts at {self.start_utc_ns}")
        if self.gamma_interval_s <= 0 or self.neutron_interval_s <= 0:
            raise DataError(f"{owner}: intervals {self.gamma_interval_s} s, {self.neutron_interval_s} s, expected > 0")

    def _check_windows(self) -> None:
        """Check and freeze the energy windows. Raises DataError."""
        owner, intervals = "PortalRecord", self.gamma.shape[0]
        windows, background = self.gamma_windows, self.gamma_windows_background
        inner: tuple[int | None, ...] | None = None
        if windows is not None:
            by_detector = isinstance(windows, np.ndarray) and windows.ndim == 3
            per_interval = (self.gamma.shape[1], None) if by_detector else (None,)
            shape: tuple[int | None, ...] = (intervals, *per_interval)
            windows = frozen_array(owner, "gamma_windows", windows, np.int64, shape)
            if windows.size and windows.min() < 0:
                raise DataError(f"{owner}.gamma_windows: smallest count {windows.min()}, expected 0 or more")
            msgspec.structs.force_setattr(self, "gamma_windows", windows)
            inner = windows.shape[1:]
        if background is not None:
            name = "gamma_windows_background"
            by_detector = isinstance(background, np.ndarray) and background.ndim == 2
            shape = inner or ((self.gamma.shape[1], None) if by_detector else (None,))
            background = frozen_array(owner, name, background, np.float64, shape)
            if not np.isfinite(background).all() or (background < 0).any():
                raise DataError(f"{owner}.{name}: {background}, expected counts/s, 0 or more")
            msgspec.structs.force_setattr(self, name, background)
        if self.gamma_windows_alarm is not None:
            flags = frozen_array(owner, "gamma_windows_alarm", self.gamma_windows_alarm, np.bool_, (intervals,))
            msgspec.structs.force_setattr(self, "gamma_windows_alarm", flags)

    @property
    def simulated(self) -> bool:
        """True where the portal's set-up names a simulation as its firmware; lines themselves cannot say it."""
        return self.settings is not None and self.settings.simulated

    @property
    def truncated(self) -> bool:
        """True where the occupancy did not end as the portal ends one: such a record never reads as clear."""
        return self.end_reason != "complete"


# --------------------------------------------------------------------------------------------------------------
# Declaration, scan


class Declaration(Exact, frozen=True, kw_only=True):
    """What was said about the cargo before it came.

    container_numbers : ISO 6346, owner code, serial and check digit without blanks
    hs_codes : declared goods, 2 to 10 digits of the Harmonized System
    declared_empty : True, False or None where nothing was said
    gross_weight_kg : as declared
    tare_weight_kg : of the container alone; where it is told, the gross weight is with the container, otherwise it may
        be with or without
    """

    container_numbers: tuple[str, ...] = ()
    hs_codes: tuple[str, ...] = ()
    goods: str = ""
    declared_empty: bool | None = None
    gross_weight_kg: float | None = None
    seals: tuple[str, ...] = ()
    consignor: str = ""
    consignee: str = ""
    authorised_trader: bool | None = None
    origin: str = ""
    route: tuple[str, ...] = ()
    prior_scans: int | None = None
    simulated: bool = False
    tare_weight_kg: float | None = None


JoinState = Literal["matched", "doubtful", "several", "none"]


class DeclarationMatch(Exact, frozen=True, kw_only=True):
    """How a passage came by a declaration out of many, or why it has none. A wrong one is worse than none.

    state : matched: one declaration is joined; doubtful: one fits best, but not surely enough, and none is joined;
        several: more than one manifest declares the container, and none is joined; none: nothing fits
    by : what joined it: container, plate, booking, "" where nothing was read
    read : texts that the passage was known by; declared : the number or plate of the declaration that fits best
    confidence : posterior probability, 0 to 1, that this declaration is the vehicle's
    runner_up, runner_up_confidence : the same of the next best; "" where nothing else comes near
    sender, document, reference, version : of the message that declares it; version counts from 1
    received_utc_ns : when that message came
    late : it came after the passage had been judged
    problems : what is odd about the message or the join, in words; a declaration with problems never lowers a risk
    """

    state: JoinState
    by: str = ""
    read: tuple[str, ...] = ()
    declared: str = ""
    confidence: float = 0.0
    runner_up: str = ""
    runner_up_confidence: float = 0.0
    sender: str = ""
    document: str = ""
    reference: str = ""
    version: int = 0
    received_utc_ns: int | None = None
    late: bool = False
    problems: tuple[str, ...] = ()


class Scan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One vehicle passage: what a lane saw of it, joined by time.

    expected : what the lane has devices for; a kind that is expected and absent never reads as clear
    quality : faults seen while it was acquired and joined
    source : reference of the file or stream it came from, with its sha256 where it was a file
    sidecar : what the scanner's own system told of the passage; attachments : files that came with it
    lane_events : what cameras, barriers and the weighbridge told of it
    declaration_match : how the declaration was found among those that came in advance, or why none was joined; None
        where the declaration came with the passage itself, or nobody looked
    """

    scan_id: str
    lane: str
    start_utc_ns: int
    end_utc_ns: int
    expected: tuple[Kind, ...]
    radiograph: Radiograph | None = None
    portal: PortalRecord | None = None
    declaration: Declaration | None = None
    devices: tuple[DeviceInfo, ...] = ()
    quality: tuple[Quality, ...] = ()
    source: str = ""
    source_sha256: str = ""
    sidecar: Sidecar | None = None
    attachments: tuple[Attachment, ...] = ()
    lane_events: tuple[LaneEvent, ...] = ()
    declaration_match: DeclarationMatch | None = None

    def __post_init__(self) -> None:
        """Check. Raises DataError."""
        check_scan_id(self.scan_id)
        check_lane_name(self.lane)
        if self.end_utc_ns < self.start_utc_ns:
            raise DataError(f"Scan {self.scan_id}: ends at {self.end_utc_ns} before it starts at {self.start_utc_ns}")

    @property
    def container_numbers(self) -> tuple[str, ...]:
        """Container numbers by the papers; without papers by the scanner's own system, then by the lane's cameras."""
        if self.declaration is not None and self.declaration.container_numbers:
            return self.declaration.container_numbers
        if self.sidecar is not None and self.sidecar.containers:
            return tuple(number.text for number in self.sidecar.containers)
        return tuple(dict.fromkeys(e.text for e in self.lane_events if e.kind == "container"))

    @property
    def simulated(self) -> bool:
        """True where any device behind this scan is a simulation, or what it gave says that itself."""
        parts = (*self.devices, self.declaration, self.portal)
        return any(part is not None and part.simulated for part in parts)


# --------------------------------------------------------------------------------------------------------------
# Judgement and decision


class Box(msgspec.Struct, frozen=True, kw_only=True, tag="box"):
    """A half-open rectangle of a radiograph: columns `[first_column, end_column)`, channels likewise."""

    first_column: int
    end_column: int
    first_channel: int
    end_channel: int

    def __post_init__(self) -> None:
        """Check. Raises DataError."""
        if not (0 <= self.first_column < self.end_column and 0 <= self.first_channel < self.end_channel):
            raise DataError(
                f"Box: columns {self.first_column}..{self.end_column}, channels {self.first_channel}.."
                f"{self.end_channel}, expected non-empty half-open ranges"
            )


class Intervals(msgspec.Struct, frozen=True, kw_only=True, tag="intervals"):
    """A half-open range of intervals of a portal record."""

    first: int
    end: int


class Finding(Exact, frozen=True, kw_only=True):
    """One thing a person should look at, with the reason in words.

    score : in the units the reason names; larger is stranger
    p_value : chance of such a score on an innocent passage; None where none was calibrated
    tier : what it asks for: a note, a review, an alarm
    """

    kind: str
    score: float
    reason: str
    tier: Tier
    p_value: float | None = None
    where: Box | Intervals | None = None


class Standing(Exact, frozen=True, kw_only=True):
    """How a scan stands among the scans that its lane was calibrated on.

    p_value : chance that an innocent scan of the stratum shows anything as strange; flagged up to `level`
    stratum, scans : what it was compared with, in words, and how many scans that are
    cell : texture class of the load, and declared chapter
    scores : per kind of finding that was searched for; vital_signs : per name, None where unknown
    unknown : the load is of a look of which too little was learnt: no p-value speaks for it, it is always reviewed and
        not counted against the promise
    """

    p_value: float
    level: float
    stratum: str
    scans: int
    cell: tuple[str, str]
    scores: dict[str, float]
    vital_signs: dict[str, float | None]
    unknown: bool = False


class TriageResult(Exact, frozen=True, kw_only=True):
    """What judgement says of one scan. Everything but `timings_ms` is a function of scan, profile and code version.

    standing : None where the lane was not calibrated, or the image shows no container
    """

    scan_id: str
    outcome: Outcome
    reasons: tuple[str, ...]
    load: Load
    container: Box | None
    findings: tuple[Finding, ...]
    quality: tuple[Quality, ...]
    gamma_alarm: bool | None
    neutron_alarm: bool | None
    gamma_intervals: int
    alarm_intervals: int
    profile: str
    code_version: str
    timings_ms: dict[str, float] = msgspec.field(default_factory=dict)
    standing: Standing | None = None

    def judgement(self) -> bytes:
        """Return the bytes by which two judgements are compared: all but scan id and timings."""
        return msgspec.json.encode(msgspec.structs.replace(self, timings_ms={}, scan_id=""))


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An analyst's answer to one scan.

    sha256 : hash of the recording the analyst saw
    codes : fixed numbers of the site's decision code list
    via : the hub that brought it to the lane; empty where the analyst works at the lane's own service
    """

    decision_id: str
    scan_id: str
    sha256: str
    analyst: str
    verdict: Verdict
    decided_utc_ns: int
    codes: tuple[int, ...] = ()
    note: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    lease_id: str = ""
    via: str = ""


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What an analyst thought of a scan that they gave on undecided, for a second opinion.

    sha256 : hash of the recording the analyst saw
    verdict : None, and no note, where it is withheld from whoever has not decided yet
    blind : the next analyst is to decide without knowing it
    """

    opinion_id: str
    scan_id: str
    sha256: str
    analyst: str
    verdict: Verdict | None
    given_utc_ns: int
    note: Annotated[str, msgspec.Meta(max_length=10_000)] = ""
    blind: bool = True


# --------------------------------------------------------------------------------------------------------------
# Events: what a driver yields


class ScanStart(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A vehicle enters the beam.

    source_ref : the driver's own name for this scan; every later event of the scan carries it
    source_sha256 : hash of the file behind it, where there is one
    quality : what limits the passage, known before its image comes
    sidecar, attachments : what the scanner's own system told of the passage, and files that came with it
    """

    source_ref: str
    utc_ns: int
    detector: DetectorState
    source: str = ""
    source_sha256: str = ""
    quality: tuple[Quality, ...] = ()
    sidecar: Sidecar | None = None
    attachments: tuple[Attachment, ...] = ()


class LineBlock(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Consecutive columns of the open scan: per energy `(columns, channels) uint16`. position_mm : as in Radiograph."""

    source_ref: str
    first_column: int
    counts: tuple[npt.NDArray[np.uint16], ...]
    column_utc_ns: npt.NDArray[np.int64]
    position_mm: npt.NDArray[np.float64] | None = None


class ScanEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The vehicle has left the beam, or the scan ended otherwise."""

    source_ref: str
    utc_ns: int
    reason: EndReason = "complete"
    dropped_columns: int = 0


class CountBlock(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Portal readings as they come: `(n, detectors)` counts per interval, or counts/s for a background."""

    utc_ns: int
    series: Literal["gamma", "neutron", "gamma_background", "neutron_background"]
    counts: npt.NDArray[Any]
    alarm: bool = False


class Occupancy(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The portal became occupied, or vacant again with the record of the passage.

    quality : what limits the passage beyond its record: the health of the portal while it was made
    simulated : at entry, that the portal's own set-up says that it is a simulation
    """

    phase: Literal["entered", "left"]
    utc_ns: int
    source_ref: str = ""
    record: PortalRecord | None = None
    quality: tuple[Quality, ...] = ()
    simulated: bool = False


class DeclarationSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Cargo information arrived for the passage at `utc_ns`."""

    utc_ns: int
    declaration: Declaration
    source_ref: str = ""


class CargoReceived(msgspec.Struct, frozen=True, kw_only=True):
    """Cargo messages came in advance; they belong to no passage yet, and are kept until one fits.

    name : what messages call it: a file, or a sender's request
    sender : who brought it, as authenticated; "" where that is not known
    messages : what could be read; none where `problem` says why
    refused : its sender may not send here; nothing of it was read
    sha256, size_bytes : of what came
    """

    source_ref: str
    utc_ns: int
    name: str
    sender: str = ""
    messages: tuple[CargoMessage, ...] = ()
    problem: str = ""
    refused: bool = False
    sha256: str = ""
    size_bytes: int = 0
    simulated: bool = False


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A passage left something that cannot be read; `reason` says what and where it was put. The rest as ScanStart."""

    source_ref: str
    utc_ns: int
    reason: str
    source: str = ""
    source_sha256: str = ""
    quality: tuple[Quality, ...] = ()
    sidecar: Sidecar | None = None
    attachments: tuple[Attachment, ...] = ()


class LaneEvent(Exact, frozen=True, kw_only=True):
    """A small device of the lane saw or weighed the vehicle at `utc_ns`; it goes to the passage nearest in time.

    confidence : of the machine that read `text`, 0-100; None: it does not tell
    state : of a light barrier (blocked, clear) or traffic light
    speed_mm_s : of the vehicle, negative where it rolls back; of a radar or a drive's controller
    """

    utc_ns: int
    kind: Literal["light_barrier", "plate", "container", "booking", "weighbridge", "traffic_light", "speed"]
    text: str = ""
    confidence: int | None = None
    weight_kg: float | None = None
    state: str = ""
    device: str = ""
    source_ref: str = ""
    speed_mm_s: float | None = None


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """What a source knows of the passage at `utc_ns` beyond its data: flags, first devices, join of a replayed scan."""

    utc_ns: int
    quality: tuple[Quality, ...] = ()
    devices: tuple[DeviceInfo, ...] = ()
    declaration_match: DeclarationMatch | None = None
    source_ref: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A device says how it is."""

    utc_ns: int
    component: str
    state: Literal["ok", "degraded", "fault"]
    text: str


class EndOfSource(msgspec.Struct, frozen=True, kw_only=True):
    """A finite source (replay, a fixed number of simulated vehicles) has nothing more."""

    utc_ns: int


Event = (
    ScanStart
    | LineBlock
    | ScanEnd
    | CountBlock
    | Occupancy
    | DeclarationSeen
    | CargoReceived
    | Rejected
    | LaneEvent
    | Remark
    | Health
    | EndOfSource
)
"""Whatever `Driver.read` may return."""
