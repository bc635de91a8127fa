"""How much memory arrays hold, and where they begin."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

ALIGNED = 16
"""Buffers begin at multiples of so many values, a cache line."""


def owned_bytes(arrays: Iterable[np.ndarray]) -> int:
    """Bytes of the arrays that own the memory of those given, each counted once."""
    owners = {}
    for array in arrays:
        while isinstance(array.base, np.ndarray):
            array = array.base
        owners[id(array)] = array
    return sum(array.nbytes for array in owners.values())


def aligned(array: np.ndarray) -> np.ndarray:
    """The same values, beginning at a cache line."""
    spare = np.empty(array.size + 2 * ALIGNED, array.dtype)
    begin = (-spare.ctypes.data // array.itemsize) % ALIGNED
    result = spare[begin : begin + array.size]
    result[:] = array
    return result
