"""Compiled kernels, one per file: arrays in, arrays out; numba and numpy only."""
