"""One multiplication and addition, rounded once where the processor can: a polynomial in half the instructions."""

import llvmlite.binding as llvm
import numpy as np
from numba import config, float32, njit
from numba.extending import intrinsic

# Without the instruction every call would be one into the C library, and no loop with it would be packed. A processor
# that is named for the compiler counts with the features given for it, else this one's; other than x86 all have it.
if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
    _FUSED = "+fma" in (config.CPU_FEATURES or "").split(",")
else:
    _FUSED = llvm.get_host_cpu_features().get("fma", True)

if config.DISABLE_JIT:

    def _fma(a, b, c):
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))

else:

    @intrinsic
    def _fma(_context, _a, _b, _c):
        def lower(_context, builder, _signature, args):
            a, b, c = args
            return builder.fma(a, b, c) if _FUSED else builder.fadd(builder.fmul(a, b), c)

        return float32(float32, float32, float32), lower


@njit(float32(float32, float32, float32), nogil=True, cache=True)
def fma(a, b, c):
    """Return a * b + c."""
    return _fma(a, b, c)
