"""Running sums of 32-bit words, sixteen at a time."""

import numpy as np
from llvmlite import ir
from numba import config, int64, njit, types, uint32
from numba.core import cgutils
from numba.extending import intrinsic

from triage.kernels.arrays import ro, rw

#: Words a step: one AVX-512 register, two of AVX2. The compiler lowers the vectors to what there is.
LANES = 16

if config.DISABLE_JIT:

    def _sum_blocks(values, out, blocks):
        stop = blocks * LANES
        np.cumsum(values[:stop], dtype=np.uint32, out=out[:stop])
        return int(out[stop - 1]) if blocks else 0

else:

    @intrinsic
    def _sum_blocks(_context, values, out, blocks):
        """Emit the loop over whole blocks: LLVM packs no loop whose turns depend on each other."""

        def lower(context, builder, signature, args):
            source, target = (
                context.make_array(kind)(context, builder, value).data
                for kind, value in zip(signature.args[:2], args[:2], strict=True)
            )
            word = ir.IntType(32)
            lanes = ir.VectorType(word, LANES)
            zero = ir.Constant(lanes, [0] * LANES)
            last = ir.Constant(lanes, [LANES - 1] * LANES)
            carry = cgutils.alloca_once_value(builder, zero)
            with cgutils.for_range(builder, args[2]) as loop:
                at = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
                block = builder.load(builder.bitcast(builder.gep(source, [at]), lanes.as_pointer()))
                block.align = 4
                step = 1
                while step < LANES:  # every lane gains the one `step` below it, of zeros beyond the first
                    order = [i - step + LANES if i >= step else 0 for i in range(LANES)]
                    block = builder.add(block, builder.shuffle_vector(zero, block, ir.Constant(lanes, order)))
                    step *= 2
                before = builder.load(carry)
                words = builder.add(block, before)
                builder.store(words, builder.bitcast(builder.gep(target, [at]), lanes.as_pointer())).align = 4
                # of the block's own sum: so one addition is all that a block waits for
                builder.store(builder.add(before, builder.shuffle_vector(block, zero, last)), carry)
            total = builder.extract_element(builder.load(carry), ir.Constant(word, LANES - 1))
            return context.cast(builder, total, uint32, int64)

        return int64(values, out, int64), lower


@njit(types.void(ro(uint32), rw(uint32)), nogil=True, cache=True)
def prefix_sum(values, out):
    """Write out[i] = values[0] + ... + values[i] modulo 2**32.

    values, out : (n,) uint32, not the same memory
    """
    blocks = values.size // LANES
    total = np.uint32(_sum_blocks(values, out, blocks))
    for i in range(blocks * LANES, values.size):
        total = np.uint32(total + values[i])
        out[i] = total
