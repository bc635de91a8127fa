"""A convolution of several streams at once: the rows of all of them in one product, so that weights are read once.

A sum of products is taken in the same order whatever rows stand beside it, so each stream gets what it gets alone.
"""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.memory import ARENA, SCRATCH, unpack
from deltafine.runtime.kernels.pieces import compute
from deltafine.runtime.kernels.row_convolution import (
    finish_sums,
    multiply_rows,
    panels_of,
    piece_size,
    reached_rows,
)

DONE = -1
"""Instead of a count: the operation is done for this stream."""
_VALUE = 4
"""Bytes of a number in an arena."""


@kernel
def convolve_together(
    tables: np.ndarray, operation: np.ndarray, place: int, depthwise: bool, fresh: np.ndarray, counts: np.ndarray,
    words: np.ndarray,
) -> None:  # fmt: skip
    """An operation of the plan, the one at ``place``, of all streams whose ``counts`` are not DONE, which it fills.

    ``words``: of the team, if there is one stream.
    """
    total = np.int64(0)
    for s in range(len(tables)):
        counts[s] = 0 if counts[s] == DONE else reached_rows(tables[s], operation, fresh[s] != 0)
        total += counts[s]
    if len(tables) > 1 and not depthwise:
        _gather(tables, operation, place, fresh, counts, total)
        return
    for s in range(len(tables)):
        compute(tables[s], operation, place, counts[s], fresh[s] != 0, words)


@kernel
def _gather(
    tables: np.ndarray, operation: np.ndarray, place: int, fresh: np.ndarray, counts: np.ndarray, total: int
) -> None:  # fmt: skip
    """Multiply the rows of all streams piece by piece, from the first stream to the last, and finish each stream's."""
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
