"""Air level of every column, from the air-monitor channels."""

import numpy as np
from numba import float32, int64, njit, uint8, uint16

from triage.kernels.add_any_order import add_any_order
from triage.kernels.arrays import ro, rw
from triage.kernels.prefetch import prefetch

#: Column flags: the beam was off (or the air level is no number), or the air monitors were saturated.
NO_BEAM = 1
AIR_SATURATED = 2
#: Columns between the one whose air channels are asked of memory and the one that is read: a few lines of each are
#: wanted, a page apart, which the processor does not foresee.
AHEAD = 8


@njit(
    int64(ro(uint16, 2), ro(float32), ro(float32), ro(uint8), int64, int64, int64, float32, rw(float32), rw(uint8)),
    nogil=True,
    cache=True,
)
def air_level(raw, dark, inv_gain, bad, first, stop, saturation_value, min_air, inv_air, flags):
    """Write 1/air of every column, flag those that must not be divided by their air level; return how many are flagged.

    raw : (columns, channels) uint16, detector counts
    dark, inv_gain : (channels,) float32, counts and 1/counts
    bad : (channels,) uint8, 1 = channel is left out of the mean
    first, stop : air-monitor channels [first, stop); an empty range means "no air channels": inv_air = 1
    saturation_value : counts from which a channel is saturated
    min_air : a mean at or below this reads as "no beam" (in units of open beam)
    inv_air : (columns,) float32 out, 1/mean of corrected air channels; 0 where flagged
    flags : (columns,) uint8 in and out, OR of NO_BEAM and AIR_SATURATED; energies share one array

    A column is saturated when at least half of its good air channels are: then the mean is biased by more than
    0.4 standard deviations of one channel, and a division would brighten the whole column.
    """
    flagged = 0
    air_dark, air_gain, air_bad = dark[first:stop], inv_gain[first:stop], bad[first:stop]
    used = 0
    for i in range(air_bad.size):
        used += air_bad[i] == 0
    limit = np.int32(saturation_value)
    for c in range(raw.shape[0]):
        if stop <= first:
            inv_air[c] = np.float32(1.0)
            flagged += flags[c] != 0
            continue
        if c + AHEAD < raw.shape[0]:
            prefetch(raw[c + AHEAD, first:stop].view(np.uint8))
        counts = raw[c, first:stop]
        total = 0.0
        saturated = np.int32(0)
        for i in range(counts.size):
            count = counts[i]
            level = np.float64((np.float32(count) - air_dark[i]) * air_gain[i])
            # chosen, not multiplied: a bad channel's dark or gain may be no number
            good = air_bad[i] == 0
            total = add_any_order(total, level if good else 0.0)
            saturated += np.int32(good & (count >= limit))
        inv_air[c] = np.float32(0.0)
        # written as "not greater" so that NaN, from a broken calibration, is flagged as well
        if used == 0 or not (total > np.float64(min_air) * used) or not np.isfinite(total):
            flags[c] |= np.uint8(NO_BEAM)
        elif 2 * saturated >= used:
            flags[c] |= np.uint8(AIR_SATURATED)
        else:
            inv_air[c] = np.float32(used / total)
        flagged += flags[c] != 0
    return flagged
