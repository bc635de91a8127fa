"""Computing the outputs that changes reach, piece by piece, by one thread or by several.

Each output is a row, computed from scratch by one thread; sums are the same whatever thread takes them.
"""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.frame_intake import lines_are_apart, read_lines, start_frame
from deltafine.runtime.kernels.memory import ARENA, SCRATCH, unpack
from deltafine.runtime.kernels.row_convolution import (
    FEWEST_ROWS,
    finish_sums,
    multiply_rows,
    panels_of,
    piece_size,
    scale_channels,
)
from deltafine.runtime.kernels.rows import PIECE, combine_rows, pool_rows, row_of
from deltafine.runtime.kernels.sharing import (
    BY_LINES,
    BY_PANELS,
    BY_ROWS,
    LEAST,
    PIECES,
    SHORT,
    THREADS,
    WORK,
    offer,
    piece_of_rows,
    take,
    take_over,
    wait,
)
from deltafine.runtime.kernels.vectors import LANES

_VALUE = 4
"""Bytes of a number."""


@kernel
def compute(table: np.ndarray, operation: np.ndarray, place: int, count: int, fresh: bool, words: np.ndarray) -> None:
    """Compute the ``count`` outputs ``active`` of the operation at a place of the plan.

    They are shared with the team, if there is one and if it is worth it: by rows, or where these are few, by panels of
    the weights.

    Args:
        words: of the team that shares the work; or none.
    """
    if count == 0:
        return
    memory, how, size, pieces, number, mine = unpack(table), np.int64(BY_ROWS), count, np.int64(1), np.int64(0), 0
    nanoseconds = _nanoseconds(table, operation)
    if len(words) and nanoseconds * count >= words[LEAST]:
        size = piece_of_rows(words, count, nanoseconds)
        few = count < min(words[THREADS] * words[SHORT], FEWEST_ROWS)
        if few and operation[at.KIND] == at.K_CONV and operation[at.GROUPS] == 1:
            panels, wanted = panels_of(table, operation), words[THREADS] * words[PIECES]
            if panels >= words[THREADS]:
                how, size = np.int64(BY_PANELS), (panels + wanted - 1) // wanted
                pieces = (panels + size - 1) // size
        if how == BY_ROWS:
            pieces = (count + size - 1) // size
    if pieces > 1:
        words[WORK] += np.int64(nanoseconds * count)
        number = offer(words, place, how, count, size, fresh, pieces)
    piece = take(words, number, False) if pieces > 1 else np.int64(0)
    while piece >= 0:
        work(table, operation, place, how, count, size, piece, fresh)
        mine += 1
        piece = take(words, number, False) if pieces > 1 else np.int64(-1)
    if pieces > 1:
        wait(words, pieces - mine)
        take_over(words, memory.changed, memory.counters, operation, place)
    if how == BY_PANELS:
        finish_sums(table, operation, count, operation[at.ROW_PITCH], np.int64(0), fresh, memory.counters[place])


@kernel
def _nanoseconds(table: np.ndarray, operation: np.ndarray) -> float:
    """How long one output takes, about."""
    kind, channels = operation[at.KIND], unpack(table).tensors[operation[at.OUTPUT], at.CHANNELS]
    if kind == at.K_CONV:
        return operation[at.ROW_LENGTH] * channels / (2 * LANES) + channels / 2
    values = operation[at.INPUT_COUNT] * channels
    if kind == at.K_DEPTHWISE:
        values = operation[at.RUN_COUNT] * channels
    elif kind == at.K_MAX_POOL or kind == at.K_AVERAGE_POOL:
        values = operation[at.KERNEL_H] * operation[at.KERNEL_W] * channels
    return 2 * values / LANES + channels / 2


@kernel
def take_in(table: np.ndarray, operation: np.ndarray, place: int, fresh: bool, words: np.ndarray) -> None:
    """Read the frame, which is the operation at a place of the plan; ``words`` as for ``compute``."""
    start_frame(table, operation)
    memory = unpack(table)
    target = memory.tensors[operation[at.OUTPUT]]
    lines, nanoseconds = target[at.HEIGHT], target[at.WIDTH] * target[at.CHANNELS]
    if len(words) and lines * nanoseconds >= words[LEAST] and lines_are_apart(table, operation):
        words[WORK] += lines * nanoseconds
        pieces = min(words[THREADS] * words[PIECES], lines)
        size = (lines + pieces - 1) // pieces
        pieces = (lines + size - 1) // size
        number, mine = offer(words, place, np.int64(BY_LINES), lines, size, fresh, pieces), 0
        piece = take(words, number, False)
        while piece >= 0:
            read_lines(table, operation, piece * size, min((piece + 1) * size, lines), fresh, place)
            mine += 1
            piece = take(words, number, False)
        wait(words, pieces - mine)
        take_over(words, memory.changed, memory.counters, operation, place)
    else:
        read_lines(table, operation, np.int64(0), lines, fresh, place)


@kernel
def work(
    table: np.ndarray, operation: np.ndarray, place: int, how: int, count: int, size: int, piece: int, fresh: bool
) -> None:  # fmt: skip
    """Do a piece of an operation; see ``sharing``."""
    memory, kind, first = unpack(table), operation[at.KIND], piece * size
    last = min(first + size, count)
    if how == BY_LINES:
        read_lines(table, operation, first, last, fresh, place)
        return
    slides = kind == at.K_CONV or kind == at.K_DEPTHWISE
    pitch = operation[at.ROW_PITCH] if slides else memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    none = 0 * size  # not a literal: numba would compile all below once more for it
    most, begin = piece_size(last - first, pitch) if slides else PIECE, none
    end = panels_of(table, operation) if kind == at.K_CONV else none
    if how == BY_PANELS:
        first, last, most, begin, end = none, count, count, first, min(first + size, end)
    # Rows beside which another thread writes are kept apart, where they reach into those.
    apart_from = last if last == count else last - reaching(table, operation, np.int64(LANES))
    while first < last:
        rows = min(most, last - first)
        if kind == at.K_CONV:
            multiply_rows(table, operation, first, rows, pitch, begin, end)
        elif kind == at.K_DEPTHWISE:
            scale_channels(table, operation, first, rows, pitch)
        elif kind == at.K_MAX_POOL or kind == at.K_AVERAGE_POOL:
            pool_rows(table, operation, first, rows)
        else:
            combine_rows(table, operation, first, rows)
        if how == BY_PANELS:
            return
        following = first + rows
        apart = max(first, apart_from)
        if apart < following:
            _hold_back(table, operation, apart, following)
        finish_sums(table, operation, rows, pitch, first, fresh, memory.counters[place])
        if apart < following:
            _put_back(table, operation, apart, following)
        first = following


@kernel
def reaching(table: np.ndarray, operation: np.ndarray, lanes: int) -> int:
    """How many outputs before another one may be written to along with it.

    Whole vectors are written, and what belongs to the next row is written back as it was: not while it is written.
    """
    channels = unpack(table).tensors[operation[at.OUTPUT], at.CHANNELS]
    return 0 if channels % lanes == 0 else (lanes + channels - 2) // channels


@kernel
def _hold_back(table: np.ndarray, operation: np.ndarray, first: int, last: int) -> None:
    """Let the outputs ``active[first:last]`` be kept at the end of the scratch."""
    memory = unpack(table)
    channels = memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    slot = len(memory.scratch) - (last - first) * (channels + LANES)
    away = (table[SCRATCH, 0] - table[ARENA, 0]) // _VALUE
    for i in range(first, last):
        target = memory.targets[i]
        for c in range(channels):
            memory.scratch[slot + c] = memory.arena[target + c]
        memory.targets[i] = away + slot
        slot += channels + LANES


@kernel
def _put_back(table: np.ndarray, operation: np.ndarray, first: int, last: int) -> None:
    """Write them where they belong."""
    memory = unpack(table)
    tensor = memory.tensors[operation[at.OUTPUT]]
    channels, positions = tensor[at.CHANNELS], tensor[at.HEIGHT] * tensor[at.WIDTH]
    slot = len(memory.scratch) - (last - first) * (channels + LANES)
    for i in range(first, last):
        target = row_of(tensor, memory.active[i], positions)
        for c in range(channels):
            memory.arena[target + c] = memory.scratch[slot + c]
        slot += channels + LANES
