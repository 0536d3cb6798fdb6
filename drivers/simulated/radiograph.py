"""Detector counts of a vehicle: beam, cargo, scatter, blur, pulses, quanta, electronics.

    counts = gain * full_scale * (N / N_air) + dark + electronic noise,   N ~ Poisson(N_air * pulse * (T + S) / (1 + s))

T is the polychromatic transmission after the blur of focal spot and detector, S the scatter: a share s of what the rays
of the same column bring, spread over half a metre, so dense cargo has little of it and an edge beside air has most.

A vehicle does not keep its speed: columns are read at equal times, so where it is slow things are stretched, and where
it stops a column is repeated. Gains drift away from the references, most channels' by a thousandth, some by a tenth.

With `display` the lane gives what archives hold: transmission as a vendor corrects it, cut to the converter's bits
between a black and a white level, air white. Such grey values tell no physical transmission and say so.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from scanner_io.model import DetectorState

from .attenuation import Cells, Floats, attenuation
from .config import Config
from .scene import Scene, Textures, View

SCATTER_WIDTH_MM = 500.0
BLUR = 0.14
"""Weight of each neighbour in a 1-2-1 kernel, along both axes."""
FULL_SCALE = 48_000.0
ELECTRONIC_NOISE = 5.0
"""Standard deviation in counts."""
DRIFT = 0.008
"""Slow swing of the source's output over a scan."""
GAIN_DRIFT_SD, GAIN_DRIFT_MOST = 0.0012, 0.10
"""How far a channel's gain moves over a scan: of all channels, and at most of those that drift."""
DISPLAY_WINDOW = (0.002, 0.985)
"""Transmissions that a vendor's picture shows black and white."""
STOPPED = 0.01
"""Speed of a stopped vehicle against its usual one: brakes let it creep."""
LOW_QUANTA = 0.65
"""Photons of the low-energy pulse against the high one."""
EXACT_POISSON_BELOW = 40.0
"""Above so many photons a normal deviate of the same mean and variance serves, at a tenth of the time."""
BLOCK_COLUMNS = 64
AIR_CHANNELS_MM = (20.0, 140.0)
"""The channels at the top end that no vehicle reaches, measured from the top."""
REFERENCE_LINES = 400
"""Lines averaged for the dark and the air reference."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What differs from one scan to the next.

    pulse : per energy `(columns,) float32` source output, mean 1
    shift_mm : `(columns,)` how far the vehicle is lifted by suspension and slope
    beam_off : columns without beam
    dead_channels : channels that fail in this scan without being listed as bad
    travel_mm : `(columns + 1,)` x at the edges of the columns; None at constant speed
    gain_drift : `(channels,) float32`, relative change of a channel's gain from the first to the last column
    """

    pulse: tuple[Floats, ...]
    shift_mm: npt.NDArray[np.float64]
    beam_off: range = range(0)
    dead_channels: tuple[int, ...] = ()
    travel_mm: npt.NDArray[np.float64] | None = None
    gain_drift: Floats | None = None


class Detector:
    """The lane's detector array: the same for every vehicle of a configuration."""

    def __init__(self, config: Config) -> None:
        rng = np.random.default_rng([config.seed, 0])
        n, count = config.channels, config.energies
        source = config.source_distance_mm, config.source_height_mm
        self.view = View(config.columns, n, span_mm=config.span_mm, source_mm=source)
        self.display, self.most = config.display, 2**config.bits - 1
        self._scale = np.float32(2.0 ** (config.bits - 16))
        self._scatter_share = np.float32(config.scatter)
        self.endpoints_mv = tuple(float(v) for v in config.beam.split("/"))[2 - count :]
        self.quanta = (config.quanta * LOW_QUANTA, config.quanta)[2 - count :]
        gain = np.clip(rng.normal(1, 0.04, (1, n)) * rng.normal(1, 0.01, (2, n)), 0.85, 1.15)
        # Detector modules of 16 channels differ more than channels within one do.
        gain *= np.repeat(rng.normal(1, 0.02, n // 16 + 1), 16)[:n].clip(0.95, 1.05)
        self.gain = gain[2 - count :].astype(np.float32)
        self.dark = rng.normal(320, 40, (2, n))[2 - count :].astype(np.float32)
        self.bad = np.zeros(n, np.bool_)
        air = tuple(int(mm / self.view.channel_pitch_mm) for mm in AIR_CHANNELS_MM)
        self.air_channels = (air[0], max(air[1], air[0] + 1))
        listed = rng.choice(np.arange(self.air_channels[1], n), max(2, n // 250), replace=False)
        self.bad[listed] = True
        good = np.flatnonzero(~self.bad)
        self._beside = good[np.abs(np.flatnonzero(self.bad)[:, np.newaxis] - good).argmin(axis=1)]
        self._noisy = listed[: len(listed) // 2]
        self._stuck = listed[len(listed) // 2 :]
        self._scatter = self._scatter_matrix()
        air_sd = FULL_SCALE / np.sqrt(np.array(self.quanta)[:, np.newaxis] * REFERENCE_LINES)
        self.air_reference = (self.dark + self.gain * FULL_SCALE + air_sd * rng.normal(size=self.gain.shape)).astype(
            np.float32
        )
        dark_sd = ELECTRONIC_NOISE / np.sqrt(REFERENCE_LINES)
        self.dark_reference = (self.dark + dark_sd * rng.normal(size=self.dark.shape)).astype(np.float32)

    def _scatter_matrix(self) -> tuple[int, Floats]:
        """Return channels per bin, and the matrix from binned transmission to scatter in every channel."""
        n, pitch = self.view.channels, self.view.channel_pitch_mm
        size = max(1, n // 64)
        centres = (np.arange(n // size) + 0.5) * size
        distance = (np.arange(n)[np.newaxis] + 0.5 - centres[:, np.newaxis]) * pitch / SCATTER_WIDTH_MM
        kernel = np.exp(-np.abs(distance))
        return size, (kernel / kernel.sum(axis=0)).astype(np.float32)

    def _reference(self, raw: Floats, shown: float) -> Floats:
        """Return a reference as the lane gives it: scaled to the converter's bits, or the level of a shown picture."""
        return np.full_like(raw, shown) if self.display else raw * self._scale

    def state(self) -> DetectorState:
        """Return what a scan begins with."""
        return DetectorState(
            energies=("low", "high")[2 - len(self.quanta) :],
            channels=self.view.channels,
            dark=tuple(self._reference(r, 0.0) for r in self.dark_reference),
            air=tuple(self._reference(r, self.most) for r in self.air_reference),
            saturation_value=self.most,
            state="display" if self.display else "raw",
            bad_channels=np.zeros_like(self.bad) if self.display else self.bad.copy(),
            air_channels=self.air_channels,
            column_pitch_mm=self.view.column_pitch_mm,
            channel_pitch_mm=self.view.channel_pitch_mm,
            note=f"SIMULATED: no vehicle was scanned; {'/'.join(f'{e:g}' for e in self.endpoints_mv)} MV",
        )

    def lines(
        self, scene: Scene, textures: Textures, conditions: Conditions, rng: np.random.Generator
    ) -> Iterator[tuple[int, tuple[npt.NDArray[np.uint16], ...]]]:
        """Yield first column and counts per energy of blocks of 32 to 64 columns, as they would come."""
        self.view.forget()
        blocks = -(-self.view.columns // BLOCK_COLUMNS)
        edges = np.linspace(0, self.view.columns, blocks + 1).astype(int)
        for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            transmissions = self.transmission(scene, textures, conditions, first, end)
            seen = [self._counts(t, e, first, conditions, rng) for e, t in enumerate(transmissions)]
            yield first, tuple(self._given(s, e) for e, s in enumerate(seen))

    def transmission(
        self, scene: Scene, textures: Textures, conditions: Conditions, first: int, end: int
    ) -> list[Floats]:
        """Return per energy `(end - first, channels) float32`: signal against air, without noise."""
        # One column more at each side, for the blur.
        block = scene.draw(self.view, first - 1, end + 1, textures, conditions.travel_mm)
        light, iron, lead = block.density
        cells = Cells(light, iron)
        columns = np.clip(np.arange(first - 1, end + 1), 0, self.view.columns - 1)
        shifts = conditions.shift_mm[columns] / self.view.channel_pitch_mm
        seen = []
        for endpoint in self.endpoints_mv:
            depth = cells.attenuation(endpoint)
            if block.heavy:
                at = lead > 0
                depth[at] = attenuation(endpoint, light[at], iron[at], lead[at])
            seen.append(self._optics(np.exp(-depth), shifts))
        return seen

    def _optics(self, t: Floats, shifts: npt.NDArray[np.float64]) -> Floats:
        """Lift every column by its shift in channels, blur, and add scatter."""
        n = t.shape[1]
        for column, shift in enumerate(shifts):
            whole = int(np.floor(shift))
            part = np.float32(shift - whole)
            rows = np.clip(np.arange(n + 1) + whole, 0, n - 1)
            lifted = t[column, rows]
            t[column] = lifted[:-1] * (1 - part) + lifted[1:] * part
        side, middle = np.float32(BLUR), np.float32(1 - 2 * BLUR)
        t = middle * t[1:-1] + side * (t[:-2] + t[2:])
        inner = side * (t[:, :-2] + t[:, 2:])
        t[:, 1:-1] *= middle
        t[:, 1:-1] += inner
        size, matrix = self._scatter
        binned = t[:, : matrix.shape[0] * size].reshape(len(t), -1, size).mean(axis=2)
        t += self._scatter_share * (binned @ matrix)
        t *= np.float32(1 / (1 + self._scatter_share))
        return t

    def _counts(self, t: Floats, energy: int, first: int, conditions: Conditions, rng: np.random.Generator) -> Floats:
        """Return `(columns, channels) float32` counts of one energy, before they are digitised."""
        quanta = np.float32(self.quanta[energy])
        pulse = conditions.pulse[energy][first : first + len(t), np.newaxis]
        mean: Floats = t * (pulse * quanta)
        off = [c - first for c in conditions.beam_off if first <= c < first + len(t)]
        mean[off] = 0
        per_quantum = np.float32(FULL_SCALE) / quanta
        electronic = np.float32(ELECTRONIC_NOISE) / per_quantum
        noise = rng.standard_normal(mean.shape, np.float32)
        few = mean < EXACT_POISSON_BELOW
        seen = np.sqrt(mean + electronic * electronic)
        seen *= noise
        seen += mean
        if few.any():
            seen[few] = rng.poisson(mean[few]) + electronic * noise[few]
        seen *= per_quantum * self.gain[energy]
        if conditions.gain_drift is not None:
            at = (np.arange(first, first + len(t), dtype=np.float32) / self.view.columns)[:, np.newaxis]
            seen *= 1 + at * conditions.gain_drift
        seen += self.dark[energy]
        seen[:, self._noisy] += 3000 * noise[:, self._noisy]
        seen[:, self._stuck] = self.dark[energy, self._stuck]
        dead = list(conditions.dead_channels)
        seen[:, dead] = self.dark[energy, dead]
        return seen

    def _given(self, seen: Floats, energy: int) -> npt.NDArray[np.uint16]:
        """Return what the lane gives of these counts: digitised, or as a vendor shows them."""
        if self.display:
            t = (seen - self.dark_reference[energy]) / (self.air_reference[energy] - self.dark_reference[energy])
            t[:, self.bad] = t[:, self._beside]
            first, end = self.air_channels
            pulse = np.median(t[:, first:end], axis=1, keepdims=True)
            black, white = DISPLAY_WINDOW
            seen = (t / np.maximum(pulse, 0.05) - black) * np.float32(self.most / (white - black))
        elif self.most != 65535:
            seen = seen * self._scale
        return np.clip(seen + np.float32(0.5), 0, self.most).astype(np.uint16)


def conditions_of(config: Config, detector: Detector, rng: np.random.Generator, faults: tuple[str, ...]) -> Conditions:
    """Draw pulses, movement and faults of one scan."""
    n = config.columns
    x = detector.view.x_mm
    pulses = []
    for _ in range(config.energies):
        drift = DRIFT * np.sin(x / rng.uniform(3000, 9000) + rng.uniform(0, 6.3))
        pulses.append((1 + config.pulse_sd * rng.standard_normal(n) + drift).astype(np.float32))
    tilt, bounce = rng.normal(0, 14), rng.uniform(1, 14)
    shift = tilt * (x / x[-1] - 0.5) + bounce * np.sin(x / rng.uniform(300, 900) + rng.uniform(0, 6.3))
    shift += 8 * np.sin(x / 5200 + rng.uniform(0, 6.3))
    start, length = int(rng.integers(n // 5, 4 * n // 5)), int(rng.integers(3, max(4, n // 40)))
    channels = np.arange(detector.air_channels[1], config.channels)
    dead = rng.choice(channels, max(2, config.channels // 100), replace=False)
    gains = rng.normal(0, GAIN_DRIFT_SD, config.channels)
    if "drifting_channels" in faults:
        drifting = rng.choice(channels, max(3, config.channels // 60), replace=False)
        gains[drifting] = rng.uniform(-GAIN_DRIFT_MOST, GAIN_DRIFT_MOST, len(drifting))
    return Conditions(
        pulse=tuple(pulses),
        shift_mm=shift,
        beam_off=range(start, start + length) if "beam_off" in faults else range(0),
        dead_channels=tuple(int(c) for c in dead) if "dead_channels" in faults else (),
        travel_mm=travel_of(config, rng, stopped="stopped" in faults),
        gain_drift=gains.astype(np.float32),
    )


def travel_of(config: Config, rng: np.random.Generator, *, stopped: bool) -> npt.NDArray[np.float64] | None:
    """Return x at the edges of all columns, None at constant speed. Drawn in any case, so that no other draw moves.

    The lane reads as many columns as it would at constant speed; the vehicle is through with the last.
    """
    n = config.columns
    knots = rng.standard_normal(9)
    at, length = int(rng.integers(n // 5, 4 * n // 5)), max(2, int(n * rng.uniform(0.02, 0.1)))
    if not config.speed_variation and not stopped:
        return None
    speed = np.exp(config.speed_variation * np.interp(np.linspace(0, 8, n), np.arange(9), knots))
    kernel = np.hanning(max(3, n // 8) | 1)
    half = len(kernel) // 2
    speed = np.convolve(np.pad(speed, half, mode="edge"), kernel / kernel.sum(), mode="valid")
    if stopped:
        slow = np.clip(np.abs(np.arange(n) - at - length / 2) - length / 2, 0, length) / length  # brakes, then goes on
        speed = speed * np.maximum(slow, STOPPED)
    travel = np.concatenate([[0.0], np.cumsum(speed)])
    return np.asarray(travel * (config.span_mm / travel[-1]))
