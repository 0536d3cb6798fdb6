"""An addition whose chain the compiler may cut up: what lets it pack a sum of floats."""

from numba import config, float64, njit
from numba.extending import intrinsic

if config.DISABLE_JIT:

    def _add(a, b):
        return a + b

else:

    @intrinsic
    def _add(_context, _a, _b):
        def lower(_context, builder, _signature, args):
            return builder.fadd(*args, flags=("reassoc",))

        return float64(float64, float64), lower


@njit(float64(float64, float64), nogil=True, cache=True)
def add_any_order(a, b):
    """Return a + b; in a loop that adds to one sum, the terms are added in an order of the compiler's.

    That order depends on the number of terms alone, so equal terms give equal sums.
    """
    return _add(a, b)
