"""A row of memory asked for before it is needed."""

from llvmlite import ir
from numba import config, int64, njit, types, uint8
from numba.core import cgutils
from numba.extending import intrinsic

from triage.kernels.arrays import ro

_LINE = 64

if config.DISABLE_JIT:

    def _ask_for(row, at):
        return row[at]

else:

    @intrinsic
    def _ask_for(_context, row, at):
        def lower(context, builder, signature, args):
            place = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
            word = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
            ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(ask, [place, word(0), word(2), word(1)])  # to read, into the second level, data
            return context.get_dummy_value()

        return types.void(row, int64), lower


@njit(types.void(ro(uint8)), nogil=True, cache=True)
def prefetch(row):
    """Ask for every cache line of a row; nothing is read or changed.

    row : (n,) uint8

    The processor foresees what follows within a page of memory. A column of counts is about one, and the next one is
    not looked at before a dozen others have been: its start would be waited for.
    """
    for line in range(0, row.size, _LINE):
        _ask_for(row, line)
