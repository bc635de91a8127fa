"""What kernels on bytes work on, beside the memory of all others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.core import types

from deltafine.runtime.kernels.memory import unpacker


class ByteMemory(NamedTuple):
    """The first group is the model's and shared by its streams, the second a stream's own.

    Attributes:
        operations: int64 (operations, COLUMNS), see below; of others than those on bytes, zeros.
        weights: int8, packed weights.
        whole: int32, what is added to sums, and of what levels are multiples.
        factors: float32, what sums are multiplied with.
        near: uint8, thresholds in levels.
        far: uint16, what changes are multiplied with to count in thresholds. A stream that multiplies its thresholds
            has its own of both.
        levels: uint8, every tensor of bytes, with the level of 0 around it.
        sums: int32, rows being computed; lent while kernels run, as is ``line``.
        line: uint8, a row being compared.
        tables: uint8, what levels give behind an activation; shared, too.
    """

    operations: np.ndarray
    weights: np.ndarray
    whole: np.ndarray
    factors: np.ndarray
    near: np.ndarray
    far: np.ndarray
    levels: np.ndarray
    sums: np.ndarray
    line: np.ndarray
    tables: np.ndarray


LEVELS, SUMS, LINE = (ByteMemory._fields.index(name) for name in ("levels", "sums", "line"))
"""Rows of a table of addresses."""
FIELDS = len(ByteMemory._fields)
_TYPES = (
    types.int64, types.int8, types.int32, types.float32, types.uint8, types.uint16, types.uint8, types.int32,
    types.uint8, types.uint8,
)  # fmt: skip
unpack_bytes = unpacker(ByteMemory, [types.Array(of, 2 if number == 0 else 1, "C") for number, of in enumerate(_TYPES)])

(
    KIND, WEIGHTS, QUADS, RUNS, RUN_COUNT, BLOCKS, TAIL, REST, PITCH, BIAS, MULTIPLE, FACTOR, ZERO, LOW, HIGH,
    RULE, THRESHOLD, THRESHOLD_PITCH, LEAST, CAP, TIMES, STARTS, TABLE, COLUMNS,
) = range(24)  # fmt: skip
"""Columns of an operation."""

(
    B_NONE, B_QUANTISE, B_DEQUANTISE, B_CONV, B_DEPTHWISE, B_NINE, B_WINDOW_SUM, B_WINDOW_MOST, B_TIMES, B_PLACE,
    B_RESHAPE, B_CONCATENATE, B_PRODUCT, B_LANES,
) = range(14)  # fmt: skip
"""Kinds of operations: B_NINE is a depthwise convolution of nine taps, B_LANES one of groups of 4, 8 or 16 channels."""

R_NONE, R_ELEMENT, R_PIXEL, R_MULTIPLES, R_IN_FLOATS = range(5)
"""What happens to their sums."""
