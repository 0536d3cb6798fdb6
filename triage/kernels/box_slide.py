"""Move a box one column on."""

from numba import int64, njit, types

from triage.kernels.arrays import ro, rw


@njit(types.void(ro(int64), ro(int64), rw(int64)), nogil=True, cache=True)
def box_slide(entering, leaving, sums):
    """Add the running sums of the entering column and take those of the leaving one away.

    entering, leaving : (n,) int64, packed running sums of two columns (box_prefix)
    sums : (n,) int64 in and out, packed running sums of all columns of the box; wraps modulo 2**64
    """
    for i in range(sums.size):
        sums[i] += entering[i] - leaving[i]
