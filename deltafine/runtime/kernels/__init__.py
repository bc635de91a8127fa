"""The plan compiled with numba: one call for a whole network, all state in a few flat arrays."""

from __future__ import annotations

from numba import njit

# The inner functions are called by each other only: no wrappers for Python, which would take most of the compiling.
kernel = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of an inner function."""
