"""Array types of the eager kernel signatures: contiguous, native, read-only where the kernel only reads."""

from numba import types


def ro(dtype: types.Type, ndim: int = 1) -> types.Array:
    """Return the type of a C-contiguous input; writable and read-only arrays match it, strided ones do not."""
    return types.Array(dtype, ndim, "C", readonly=True)


def rw(dtype: types.Type, ndim: int = 1) -> types.Array:
    """Return the type of a C-contiguous output owned by the caller."""
    return types.Array(dtype, ndim, "C")
