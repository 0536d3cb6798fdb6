"""A seeded cargo phantom: detector counts of a loaded container with known inserts, and its calibration."""

import numpy as np
from numpy.typing import NDArray

from triage.analysis.screening import Calibration

#: Mean detected quanta per pixel in air, (low, high) energy, and detector counts per quantum.
QUANTA = (6000.0, 9000.0)
COUNTS_PER_QUANTUM = 6.0
AIR_CHANNELS = (0, 63)


def phantom(
    channels: int = 2000, columns: int = 5000, *, energies: int = 2, seed: int = 1, inserts: int = 40
) -> tuple[tuple[NDArray[np.uint16], ...], Calibration]:
    """Return counts, per energy (columns, channels) uint16, and their Calibration.

    The scene: container walls, pallets of light cargo in a regular pattern, steel machinery, and `inserts` small dense
    objects. Poisson noise at QUANTA in air; dark 50..200 counts and gain +-10 % per channel; 0.2 % bad channels;
    source output drifting by 3 %. The same seed gives the same counts.
    """
    rng = np.random.default_rng(seed)
    depth = _depth(rng, channels, columns, inserts)
    dark = rng.uniform(50, 200, channels).astype(np.float32)
    gain = rng.uniform(0.9, 1.1, channels).astype(np.float32)
    bad = rng.random(channels) < 0.002
    bad[min(AIR_CHANNELS[1] + 1, channels - 1) :: max(channels // 2, 2)] = True
    bad[0] = False
    air = (0, min(AIR_CHANNELS[1], channels // 8))
    drift = 1 + 0.03 * np.sin(np.arange(columns) / 97.0)
    counts, inv_gain = [], []
    for energy in range(2 - energies, 2):
        quanta = QUANTA[energy]
        image = np.empty((columns, channels), np.uint16)
        # steel and light cargo differ in how much more the low energy is attenuated
        for start in range(0, columns, 500):
            stop = min(start + 500, columns)
            light, steel = depth[0, start:stop], depth[1, start:stop]
            length = light * (1.25, 1.0)[energy] + steel * (1.1, 1.0)[energy]
            seen = rng.poisson(quanta * np.exp(-length) * drift[start:stop, None])
            values = seen * (COUNTS_PER_QUANTUM * gain * 6000.0 / quanta) + dark
            image[start:stop] = np.clip(values, 0, 65535)
        image[:, bad] = rng.integers(0, 65535, int(bad.sum()))
        counts.append(image)
        inv_gain.append((1.0 / (COUNTS_PER_QUANTUM * 6000.0 * gain)).astype(np.float32))
    calibration = Calibration(
        dark=(dark,) * energies, inv_gain=tuple(inv_gain), bad_channels=bad, air_channels=air, saturation_value=65535
    )
    return tuple(counts), calibration


def _depth(rng: np.random.Generator, channels: int, columns: int, inserts: int) -> NDArray[np.float32]:
    """Return (2, columns, channels) float32 optical depth at the high energy, of light cargo and of steel."""
    depth = np.zeros((2, columns, channels), np.float32)
    x0, x1 = int(0.06 * columns), int(0.94 * columns)
    y0, y1 = int(0.2 * channels), int(0.92 * channels)
    wall = max(2, channels // 400)
    depth[1, x0:x1, y0:y1] += 0.08
    for edge in (slice(y0, y0 + wall), slice(y1 - wall, y1)):
        depth[1, x0:x1, edge] += 0.5
    for edge in (slice(x0, x0 + wall), slice(x1 - wall, x1)):
        depth[1, edge, y0:y1] += 0.5
    pallets = 11
    width = max((x1 - x0) // pallets, 1)
    for i in range(pallets):
        a = x0 + i * width + width // 12
        b = x0 + (i + 1) * width - width // 12
        top = y0 + int(rng.uniform(0.1, 0.5) * (y1 - y0))
        cargo = depth[i % 3 // 2, a:b, top : y1 - wall]
        # smooth stacks: cartons with soft sides, so that the load itself does not score
        x = np.sin(np.linspace(0, rng.integers(4, 9) * np.pi, cargo.shape[0]))[:, None]
        y = np.sin(np.linspace(0, rng.integers(3, 7) * np.pi, cargo.shape[1]))[None, :]
        cargo += np.float32(rng.uniform(0.6, 2.2)) * (1 + 0.12 * (x * y)).astype(np.float32)
    for _ in range(inserts):
        r = int(rng.integers(2, 5))
        cx = int(rng.integers(x0 + 2, max(x1 - 2, x0 + 3)))
        cy = int(rng.integers(y0 + 2, max(y1 - 2, y0 + 3)))
        box = depth[1, max(cx - r, 0) : cx + r, max(cy - r, 0) : cy + r]
        box += np.float32(rng.uniform(0.8, 2.0))
    return depth
