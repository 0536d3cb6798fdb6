"""A Rapiscan portal as it would speak: Poisson counts in genuine lines, decoded by the codec that reads real ones.

The vehicle shades the detectors from the ground's radiation ("shadow shielding": the deepest second is 27 to 52 %,
median 41 %, below the background), and what it carries adds to them: a point at standoff h passing at speed v gives
(1 + (v t / h)^2)^-1.5, a load gives its length blurred by the same.

The simulated neutron alarm (NA) is a Poisson test of one second; no recorded NA line exists to learn the vendor's rule
from. The gamma alarm is the vendor's rule as established on recorded occupancies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.formats.portal_daily import PortalDecoder, format_line
from scanner_io.model import NANOSECONDS, SIMULATED_FIRMWARE, Event

Floats64 = npt.NDArray[np.float64]

GAMMA_CPS = (379.0, 371.0, 407.0, 371.0)
"""Background of the four detectors, counts/s: master lower, master upper, slave lower, slave upper."""
NEUTRON_CPS = (3.6, 0.0, 2.6, 0.0)
BACKGROUND_S = 20
"""The published background is a running mean over so many seconds."""
INTERVAL_S = 0.2
WINDOW, HOLD_IN, BUFFERED = 5, 10, 5
"""Intervals in the alarm sum, kept after the vehicle has left, and sent from before its entry."""
NEUTRON_ALARM_COUNTS = 24
"""Counts per second of all banks, 6 standard deviations above the background: about one false alarm in 10^8 s."""
STANDOFF_MM = 2000.0
FIELD_MM = 900.0
"""Half width of what a pillar's view of the ground covers along the vehicle."""
MPH = 2.23694


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Something radioactive on the vehicle.

    x0, x1 : where, mm in the vehicle's axis; equal for a point
    counts_per_s : sum over all detectors at the best moment, above background
    shares : how the four detectors divide it
    neutron : counted by the neutron banks instead
    """

    x0: float
    x1: float
    counts_per_s: float
    shares: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25)
    neutron: bool = False


class Transit(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How one vehicle passes the portal.

    boot_utc_ns : when the portal started: its count goes on from vehicle to vehicle
    front_mm, rear_mm : ends of the vehicle; x_mm at time t is seen at t = enter_s + (x - front_mm) / speed
    shade_mm, shade : knots along the vehicle and the share of background lost there
    """

    slot_utc_ns: int
    boot_utc_ns: int
    slot_s: float
    enter_s: float
    speed_mm_s: float
    front_mm: float
    rear_mm: float
    shade_mm: Floats64
    shade: Floats64
    sources: tuple[Source, ...]
    number: int
    nsigma: float
    lose_gx: bool = False

    @property
    def leave_s(self) -> float:
        """When the vehicle is out of the portal, seconds into the slot."""
        return self.enter_s + (self.rear_mm - self.front_mm) / self.speed_mm_s


def setup_lines(nsigma: float) -> list[bytes]:
    """Return the set-up block that a portal sends when it starts."""
    return [
        format_line("SG1", ["002000", "000068", f"{WINDOW:02d}", f"{HOLD_IN:02d}", f"{nsigma:04.1f}", "P"]),
        format_line("SG2", ["1111", "0.069", "0.455", "01", "1010", "A"]),
        format_line("SG3", ["0.069", "0.455", f"{BACKGROUND_S:03d}", "000", f"{SIMULATED_FIRMWARE}1"]),
        format_line("SN1", ["000050", "03", "0004", "1200", "01", "120"]),
        format_line("SN2", ["0.504", "5.040", "0.504", "5.040", "PP"]),
    ]


def rates(transit: Transit, t_s: Floats64, neutron: bool) -> Floats64:
    """Return expected counts/s `(n, 4)` at times t_s into the slot."""
    x = transit.front_mm + (t_s - transit.enter_s) * transit.speed_mm_s
    shade = np.interp(x, transit.shade_mm, transit.shade, left=0.0, right=0.0)
    # Neutrons come from the air above and are shaded less.
    base = np.array(NEUTRON_CPS if neutron else GAMMA_CPS)
    seen = base * (1 - (0.3 if neutron else 1.0) * shade[:, np.newaxis])
    for source in transit.sources:
        if source.neutron != neutron:
            continue
        shape = source_profile(x, source)
        parts = np.array((0.55, 0.0, 0.45, 0.0) if neutron else source.shares)
        seen = seen + source.counts_per_s * shape[:, np.newaxis] * parts
    return seen


def source_profile(x: Floats64, source: Source) -> Floats64:
    """Return the source's shape along the passage, 1 at its highest."""
    if source.x0 == source.x1:
        return np.asarray((1 + ((x - source.x0) / STANDOFF_MM) ** 2) ** -1.5)
    # The integral of the point profile over a uniform line.
    u1, u0 = (source.x1 - x) / STANDOFF_MM, (source.x0 - x) / STANDOFF_MM
    half = (source.x1 - source.x0) / 2 / STANDOFF_MM
    return np.asarray((u1 / np.hypot(1, u1) - u0 / np.hypot(1, u0)) / (2 * half / np.hypot(1, half)))


class _Speaker:
    """Collects timed lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, bytes]] = []

    def say(self, t_s: float, code: str, fields: Sequence[int | float | str]) -> None:
        self.lines.append((t_s, format_line(code, fields)))


def speak(transit: Transit, rng: np.random.Generator) -> list[tuple[float, bytes]]:
    """Return every line of the vehicle's slot with its time of arrival in seconds into the slot, in order."""
    speaker = _Speaker()
    phase = rng.uniform(0.1, 0.9)
    last = _vacant(speaker, transit, rng, np.arange(phase, transit.enter_s - 0.05, 5.0))
    end_s = _occupied(speaker, transit, rng, last)
    after = np.arange(end_s + rng.uniform(1.0, 4.0), transit.slot_s - 0.05, 5.0)
    _vacant(speaker, transit, rng, after)
    return sorted(speaker.lines, key=lambda line: line[0])


def _vacant(speaker: _Speaker, transit: Transit, rng: np.random.Generator, times: Floats64) -> Floats64:
    """Publish the running means; return the last gamma background."""
    mean = np.array(GAMMA_CPS)
    if not len(times):
        return mean
    # Seconds of history; a vehicle that is still near does not count, as it does not in a real portal.
    first = times[0] - BACKGROUND_S - 1
    seconds = int(times[-1] - first) + 2
    gamma = rng.poisson(GAMMA_CPS, (seconds, 4))
    neutron = rng.poisson(NEUTRON_CPS, (seconds, 4))
    for t in times:
        end = int(t - first)
        mean = gamma[end - BACKGROUND_S : end].mean(axis=0)
        speaker.say(t, "GB", [int(c) for c in np.rint(mean)])
        speaker.say(t + 0.004, "NB", [int(c) for c in neutron[end - BACKGROUND_S : end].mean(axis=0)])
    return np.rint(mean)


def _occupied(speaker: _Speaker, transit: Transit, rng: np.random.Generator, background: Floats64) -> float:
    """Send one occupancy; return the time of its last line."""
    enter, leave = transit.enter_s, transit.leave_s
    count = int(np.ceil((leave - enter) / INTERVAL_S)) + HOLD_IN
    burst = BUFFERED + (2 if rng.random() < 0.08 else 1)
    begin: Floats64 = enter - BUFFERED * INTERVAL_S + INTERVAL_S * np.arange(BUFFERED + count, dtype=np.float64)
    gamma = rng.poisson(rates(transit, begin + INTERVAL_S / 2, neutron=False) * INTERVAL_S)
    arrival = np.maximum(begin + INTERVAL_S, begin[burst - 1] + INTERVAL_S) + np.abs(rng.normal(0, 0.002, len(begin)))
    arrival[:burst] = arrival[burst - 1]
    speed_first = rng.random() < 0.7
    window: deque[npt.NDArray[np.int64]] = deque(maxlen=WINDOW)
    for t, counts in zip(np.maximum.accumulate(arrival), gamma, strict=True):
        window.append(counts)
        speaker.say(float(t), "GA" if _alarms(window, background, transit.nsigma) else "GS", [int(c) for c in counts])
    end = float(arrival.max()) + 0.05
    start = enter + (0.06 if speed_first else 0.0)
    for t in np.arange(start, end - 0.02, 1.0):
        seen = rng.poisson(rates(transit, np.array([t - 0.5]), neutron=True)[0])
        speaker.say(float(t), "NA" if seen.sum() >= NEUTRON_ALARM_COUNTS else "NS", [int(c) for c in seen])
    _speeds(speaker, transit, rng, speed_first)
    if not transit.lose_gx:
        neutron_milli = int(1000 * rng.poisson(sum(NEUTRON_CPS) * BACKGROUND_S) / BACKGROUND_S)
        speaker.say(end, "GX", [transit.number, neutron_milli, 0, 0])
    return end


def _alarms(window: Sequence[npt.NDArray[np.int64]], background: Floats64, nsigma: float) -> bool:
    """Return True if the vendor's rule calls this interval an alarm: the sum or either pillar."""
    if len(window) < WINDOW:
        return False
    excess = np.sum(window, axis=0) - background
    sets = (slice(0, 4), slice(0, 2), slice(2, 4))
    return any(excess[s].sum() / np.sqrt(background[s].sum()) >= nsigma for s in sets)


def _speeds(speaker: _Speaker, transit: Transit, rng: np.random.Generator, first: bool) -> None:
    """SP lines as axles pass the beams; nearly half of them are the display's cap."""
    count = int(rng.integers(4, 7))
    times = np.sort(rng.uniform(transit.enter_s + 0.5, transit.leave_s, count))
    if first:
        times[0] = transit.enter_s
    capped = rng.random(count) < 0.45
    capped[rng.integers(0, count)] = False
    for t, cap in zip(times, capped, strict=True):
        mph = transit.speed_mm_s / 1000 * MPH * rng.normal(1, 0.02)
        # At the cap the first field still holds the time that was measured, which disagrees.
        measured = rng.uniform(100, 900) if cap else mph
        shown = 99.999 if cap else mph
        speaker.say(float(t), "SP", [0.681818 / measured, shown, shown * 1.609344, "000000"])


def decode(lines: Sequence[tuple[float, bytes]], transit: Transit, cut_s: float | None = None) -> list[Event]:
    """Return what the codec makes of the lines.

    cut_s : the link is lost at this time, in the middle of a line if one is under way
    """
    decoder = PortalDecoder()
    events: list[Event] = []
    for line in setup_lines(transit.nsigma):
        # Every decoder hears the set-up so that a vehicle does not depend on those before it: when the portal started,
        # for it counts on since then.
        events += decoder.feed(line, transit.boot_utc_ns)
    for t, line in lines:
        if cut_s is not None and t >= cut_s:
            at = transit.slot_utc_ns + int(cut_s * NANOSECONDS)
            return events + decoder.feed(line[:9], at) + decoder.lost(at)
        events += decoder.feed(line, transit.slot_utc_ns + int(t * NANOSECONDS))
    return events
