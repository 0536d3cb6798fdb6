"""Compiled kernels, one per file: arrays in, arrays out; numba and numpy only.

A kernel's cached machine code includes the kernels it calls, but numba's cache watches only the kernel's own file:
after editing a kernel that others call, remove the cache. A release therefore gets a cache directory of its own.
"""
