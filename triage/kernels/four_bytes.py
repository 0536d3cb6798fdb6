"""Four bytes as one number."""

from numba import njit, uint8, uint32, uint64

from triage.kernels.arrays import ro


@njit(uint32(ro(uint8), uint64), nogil=True, cache=True)
def four_bytes(data, at):
    """Return data[at:at + 4], (n,) uint8, as a little-endian number; the compiler makes one load of it."""
    return uint32(
        uint32(data[at])
        | (uint32(data[at + uint64(1)]) << uint32(8))
        | (uint32(data[at + uint64(2)]) << uint32(16))
        | (uint32(data[at + uint64(3)]) << uint32(24))
    )
