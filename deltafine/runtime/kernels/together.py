"""A convolution of several streams at once: the rows of all of them in one product, so that weights are read once.

A sum of products is taken in the same order whatever rows stand beside it, so each stream gets what it gets alone.
"""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.memory import ARENA, SCRATCH, unpack
from deltafine.runtime.kernels.row_convolution import (
    finish_sums,
    multiply_rows,
    panels_of,
    piece_size,
)

_VALUE = 4
"""Bytes of a number in an arena."""


@kernel
def convolve_together(
    tables: np.ndarray, operation: np.ndarray, place: int, fresh: np.ndarray, counts: np.ndarray, total: int
) -> None:  # fmt: skip
    """The convolution at a place of the plan, of several streams, which ``counts`` says how many outputs of each have.

    The rows of all streams are multiplied piece by piece, from the first to the last, and those of each are finished.
    """
    pitch, everyone = operation[at.ROW_PITCH], unpack(tables[0])
    size, joint = piece_size(total, pitch), len(everyone.active)
    scratch, panels = tables[0, SCRATCH, 0], panels_of(tables[0], operation)
    stream = first = done = np.int64(0)
    while done < total:
        rows = min(size, total - done)
        begin_stream, begin_first, filled = stream, first, np.int64(0)
        while filled < rows:
            part = min(counts[stream] - first, rows - filled)
            offsets = unpack(tables[stream]).offsets
            away = (tables[stream, ARENA, 0] - tables[0, ARENA, 0]) // _VALUE
            for i in range(part):
                everyone.offsets[joint + filled + i] = offsets[first + i] + away
            filled += part
            first += part
            if first == counts[stream]:
                stream, first = stream + 1, np.int64(0)
        multiply_rows(tables[0], operation, joint, rows, pitch, np.int64(0), panels)
        stream, first, filled = begin_stream, begin_first, np.int64(0)
        while filled < rows:
            part = min(counts[stream] - first, rows - filled)
            if part:
                tables[stream, SCRATCH, 0] = scratch + filled * pitch * _VALUE
                counters = unpack(tables[stream]).counters[place]
                finish_sums(tables[stream], operation, part, pitch, first, fresh[stream] != 0, counters)
                tables[stream, SCRATCH, 0] = scratch
            filled += part
            first += part
            if first == counts[stream]:
                stream, first = stream + 1, np.int64(0)
        done += rows
