"""How large values are, by their bits, which are in the order of the numbers: whole vectors of integers at a time."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import kernel

MAGNITUDE, INFINITE = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
"""All bits of a float32 but its sign; those of infinity, below those of any NaN."""


@kernel
def largest_bits(values: np.ndarray) -> np.uint32:
    """The bits of the largest magnitude of float32 values."""
    bits, most = values.view(np.uint32), np.uint32(0)
    for i in range(len(bits)):
        magnitude = np.uint32(bits[i] & MAGNITUDE)
        most = magnitude if magnitude > most else most
    return most
