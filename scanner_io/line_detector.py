"""What drivers of live line detectors share: the references that turn their counts into transmission.

A live detector tells counts and little else. Dark and air come from the configuration, or are measured on each scan's
first lines, which see the open beam before the vehicle comes; where those lines are no open beam, the scan says so.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from .errors import DataError
from .model import DetectorState, EndReason, Event, LineBlock, Quality, Rejected, ScanEnd, ScanStart

UNEVEN = 0.1
"""Lines of an open beam differ by less than this share of their mean; more is a vehicle, or an unsteady beam."""

_ENERGY = re.compile(r"[A-Za-z0-9][\w .+-]{0,31}")

Reference = float | tuple[float, ...]


class LineDetector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line detector, as far as its stream does not tell.

    energies : names, low before high, in the order in which the stream has them
    dark, air : counts without beam and with beam in air, one number per energy or none; without air it is measured
    air_lines : lines at the beginning of a scan that see the open beam
    bad_channels : dead, stuck or noisy
    """

    energies: tuple[str, ...] = ("single",)
    dark: tuple[Reference, ...] = ()
    air: tuple[Reference, ...] = ()
    air_lines: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 32
    saturation_value: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 65_535
    first_channel: Literal["top", "bottom"] = "top"
    column_pitch_mm: Annotated[float, msgspec.Meta(gt=0, lt=1000)] | None = None
    channel_pitch_mm: Annotated[float, msgspec.Meta(gt=0, lt=1000)] | None = None
    bad_channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check what one field cannot tell alone. Raises ValueError."""
        if len(self.energies) not in (1, 2) or len(set(self.energies)) != len(self.energies):
            raise ValueError(f"energies: {self.energies}, expected one or two different names")
        if odd := [e for e in self.energies if not _ENERGY.fullmatch(e) or e in ("x", "y")]:
            raise ValueError(
                f"energies: {odd[0]!r}, expected a name like high or 6 MV; a recording calls its axes x and y"
            )
        for name in ("dark", "air"):
            if len(getattr(self, name)) not in (0, len(self.energies)):
                raise ValueError(f"{name}: {len(getattr(self, name))} references for {len(self.energies)} energies")

    def state(self, first: tuple[npt.NDArray[np.uint16], ...], note: str) -> DetectorState:
        """Return the detector at the start of a scan. Raises DataError if the configuration is of another detector.

        first : per energy (lines, channels), the scan's first lines
        """
        channels = first[0].shape[1]
        flags: list[Quality] = []
        darks = [self._spread("dark", d, channels) for d in self.dark or (0.0,) * len(self.energies)]
        airs = [self._spread("air", a, channels) for a in self.air]
        for energy, lines, dark in zip(self.energies, first, darks, strict=True) if not airs else ():
            air = _median(lines)
            mean = lines.mean(axis=1)
            if float(np.ptp(mean)) > UNEVEN * float(mean.mean()) or bool((air <= dark).mean() > 0.5):
                reason = (
                    f"the first {len(lines)} lines of energy {energy} are no even open beam (means {mean.min():.0f} to "
                    f"{mean.max():.0f}): air is not known"
                )
                flags.append(Quality(code="air_not_measured", reason=reason))
            airs.append(np.maximum(air, dark + 1))
        bad = np.zeros(channels, np.bool_)
        wrong = [c for c in self.bad_channels if not 0 <= c < channels]
        if wrong:
            raise DataError(f"bad_channels: {wrong} are none of {channels} channels")
        bad[list(self.bad_channels)] = True
        how = "air and dark configured" if self.air else f"air: median of the first {len(first[0])} lines"
        return DetectorState(
            energies=self.energies, channels=channels, dark=tuple(darks), air=tuple(airs), bad_channels=bad,
            saturation_value=self.saturation_value, state="raw", first_channel=self.first_channel,
            column_pitch_mm=self.column_pitch_mm, channel_pitch_mm=self.channel_pitch_mm,
            note=f"{note}; {how}", flags=tuple(flags),
        )  # fmt: skip

    def _spread(self, name: str, reference: Reference, channels: int) -> npt.NDArray[np.float32]:
        array = np.atleast_1d(np.asarray(reference, np.float32))
        if array.size not in (1, channels) or not np.isfinite(array).all():
            raise DataError(f"{name}: {array.size} numbers for {channels} channels, expected one or {channels}")
        return np.ascontiguousarray(np.broadcast_to(array, (channels,)))


class Lines:
    """Lines of one scan on their way to events: the first ones are held until there are enough to measure air on."""

    def __init__(self, detector: LineDetector, note: str) -> None:
        self._detector, self._note = detector, note
        self._held: list[tuple[int, tuple[npt.NDArray[np.uint16], ...], npt.NDArray[np.int64], _Position]] = []
        self.state: DetectorState | None = None
        self.next_line = 0
        self._channels: int | None = None
        self.gaps = 0
        """Lines that are missing between those that came."""

    def add(
        self, first: int, counts: tuple[npt.NDArray[np.uint16], ...], utc_ns: npt.NDArray[np.int64],
        position_mm: npt.NDArray[np.float64] | None = None, *, last: bool = False,
    ) -> list[tuple[int, tuple[npt.NDArray[np.uint16], ...], npt.NDArray[np.int64], _Position]]:  # fmt: skip
        """Take lines; return the blocks that may go out now, after `state` is known. Raises DataError.

        first : number of the first of them in the scan; last : nothing more will come
        """
        if len(utc_ns):
            channels, self._channels = self._channels or counts[0].shape[1], counts[0].shape[1]
            if channels != self._channels:
                raise DataError(f"lines of {self._channels} channels after lines of {channels}")
            self._held.append((first, counts, utc_ns, position_mm))
            self.gaps += first - self.next_line
            self.next_line = first + len(utc_ns)
        if self.state is None:
            enough = self._detector.air or sum(len(b[2]) for b in self._held) >= self._detector.air_lines
            if not self._held or not (enough or last):
                return []
            self.state = self._detector.state(
                tuple(self._first(energy) for energy in range(len(self._detector.energies))), self._note
            )
        ready, self._held = self._held, []
        return ready

    def _first(self, energy: int) -> npt.NDArray[np.uint16]:
        """Return the first lines that came, as many as air is measured on: an image may be the whole scan."""
        parts, left = [], self._detector.air_lines
        for _, counts, utc_ns, _ in self._held:
            parts.append(counts[energy][:left])
            left -= min(left, len(utc_ns))
        return np.concatenate(parts)


def _median(lines: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return the median of every channel of (lines, channels); sorted along memory, a tenth of np.median's time."""
    ordered = np.sort(lines.T.copy(), axis=1)
    below, above = ordered[:, (len(lines) - 1) // 2], ordered[:, len(lines) // 2]
    half: npt.NDArray[np.float32] = (below.astype(np.float32) + above) / np.float32(2)
    return half


class LineScan:
    """One scan of a line detector: lines in, events out. All that stands between a device's protocol and the lane.

    The scan begins with the lines that air is measured on, its times never run backwards, gaps are counted, and it ends
    once, whatever happens: a scan that never had a line, or whose detector is not the configured one, as `Rejected`.
    """

    def __init__(self, detector: LineDetector, source_ref: str, note: str) -> None:
        """source_ref : a name that no other scan of this device has; note : which device's, for the recording."""
        self.source_ref = source_ref
        self._energies = len(detector.energies)
        self._lines = Lines(detector, note)
        self._started = self._ended = False
        self._last_ns = 0

    @property
    def next_line(self) -> int:
        """Return the number of the line after the last one that came."""
        return self._lines.next_line

    def add(
        self, counts: tuple[npt.NDArray[np.uint16], ...], utc_ns: npt.NDArray[np.int64], *, first: int | None = None,
        position_mm: npt.NDArray[np.float64] | None = None,
    ) -> list[Event]:  # fmt: skip
        """Take consecutive lines; return the events that may go out.

        Raises DataError for lines of another detector, that came before, or that are no lines.

        counts : per energy (lines, channels), large where nothing is in the way; utc_ns : (lines,), when each was taken
        first : number of the first of them in the scan, where some were lost; none: that after the last
        position_mm : (lines,), how far the vehicle has come, where an encoder tells
        """
        shapes, lines = [c.shape for c in counts], len(utc_ns)
        if len(shapes) != self._energies or not lines or any(s != (lines, *shapes[0][1:2]) for s in shapes):
            raise DataError(f"lines as {shapes} with {lines} times, expected {self._energies} of (lines, channels)")
        if first is not None and first < self.next_line:
            raise DataError(f"line {first} came again: {self.next_line} is the next one")
        times = np.maximum(utc_ns, self._last_ns)  # a device's clock that is set must not turn the scan's order
        self._last_ns = int(times[-1])
        return self._out(self._lines.add(self.next_line if first is None else first, counts, times, position_mm))

    def end(self, reason: EndReason, utc_ns: int, *, lines: int = 0) -> list[Event]:
        """End the scan; once it has ended, do nothing. lines : how many it had by the device's own word"""
        if self._ended:
            return []
        self._ended = True
        try:
            events = self._out(self._lines.add(self.next_line, (), np.empty(0, np.int64), last=True))
        except (DataError, ValueError) as error:
            return [Rejected(source_ref=self.source_ref, utc_ns=utc_ns, reason=f"scan {self.source_ref}: {error}")]
        if self._lines.state is None:
            text = f"scan {self.source_ref} ended ({reason}) without a single line"
            return [Rejected(source_ref=self.source_ref, utc_ns=utc_ns, reason=text)]
        missing = self._lines.gaps + max(0, lines - self.next_line)
        end_ns = max(utc_ns, self._last_ns)
        return [*events, ScanEnd(source_ref=self.source_ref, utc_ns=end_ns, reason=reason, dropped_columns=missing)]

    def _out(self, blocks: list[_Block]) -> list[Event]:
        events: list[Event] = []
        for first, counts, times, position in blocks:
            if not self._started:
                assert self._lines.state is not None
                self._started = True
                events.append(ScanStart(source_ref=self.source_ref, utc_ns=int(times[0]), detector=self._lines.state))
            events.append(
                LineBlock(
                    source_ref=self.source_ref, first_column=first, counts=counts, column_utc_ns=times,
                    position_mm=position,
                )
            )  # fmt: skip
        return events


_Position = npt.NDArray[np.float64] | None
_Block = tuple[int, tuple[npt.NDArray[np.uint16], ...], npt.NDArray[np.int64], _Position]
