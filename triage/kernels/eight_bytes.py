"""Eight bytes as one number."""

from numba import njit, uint8, uint64

from triage.kernels.arrays import ro


@njit(uint64(ro(uint8), uint64), nogil=True, cache=True)
def eight_bytes(data, at):
    """Return data[at:at + 8], (n,) uint8, as a little-endian number; the compiler makes one load of it."""
    return (
        uint64(data[at])
        | (uint64(data[at + uint64(1)]) << uint64(8))
        | (uint64(data[at + uint64(2)]) << uint64(16))
        | (uint64(data[at + uint64(3)]) << uint64(24))
        | (uint64(data[at + uint64(4)]) << uint64(32))
        | (uint64(data[at + uint64(5)]) << uint64(40))
        | (uint64(data[at + uint64(6)]) << uint64(48))
        | (uint64(data[at + uint64(7)]) << uint64(56))
    )
