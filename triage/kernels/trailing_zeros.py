"""The place of the lowest bit that is set."""

from numba import njit, uint64


@njit(uint64(uint64), nogil=True, cache=True)
def trailing_zeros(word):
    """Return how many zero bits lie below the lowest one of `word`; 64 if there is none.

    The compiler makes one instruction of it.
    """
    count = uint64(64)
    while word != uint64(0):
        word = word << uint64(1)
        count -= uint64(1)
    return count
