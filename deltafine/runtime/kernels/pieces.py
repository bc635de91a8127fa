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

    ``words``: of the team that shares the work; or none.
    """
    if count == 0:
        return
    memory = unpack(table)
    if len(words):
        nanoseconds = _nanoseconds(table, operation)
        if nanoseconds * count >= words[LEAST] and _share(table, operation, place, count, fresh, words, nanoseconds):
            return
    # Not literals: numba would compile all below once more for each of them.
    compute_rows(table, operation, np.int64(0), count, count < 0, fresh, memory.counters[place])


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
def _share(
    table: np.ndarray, operation: np.ndarray, place: int, count: int, fresh: bool, words: np.ndarray, nanoseconds: float
) -> bool:  # fmt: skip
    """Offer the outputs to the team: by rows, or where these are few, by panels of the weights; whether that can be."""
    memory, threads, how = unpack(table), words[THREADS], np.int64(BY_ROWS)
    size = piece_of_rows(words, count, nanoseconds)
    pieces = (count + size - 1) // size
    if (
        operation[at.KIND] == at.K_CONV
        and operation[at.GROUPS] == 1
        and count < min(threads * words[SHORT], FEWEST_ROWS)
    ):
        panels = panels_of(table, operation)
        if panels >= threads:
            how, size = np.int64(BY_PANELS), (panels + threads * words[PIECES] - 1) // (threads * words[PIECES])
            pieces = (panels + size - 1) // size
    if pieces < 2:
        return False
    words[WORK] += np.int64(nanoseconds * count)
    _work_together(table, operation, place, how, count, size, fresh, pieces, words)
    if how == BY_PANELS:
        pitch = operation[at.ROW_PITCH]
        finish_sums(table, operation, count, pitch, np.int64(0), fresh, memory.counters[place])
    return True


@kernel
def take_in(table: np.ndarray, operation: np.ndarray, place: int, fresh: bool, words: np.ndarray) -> None:
    """Read the frame, which is the operation at a place of the plan; ``words`` as for ``compute``."""
    start_frame(table, operation)
    target = unpack(table).tensors[operation[at.OUTPUT]]
    lines, nanoseconds = target[at.HEIGHT], target[at.WIDTH] * target[at.CHANNELS]
    if len(words) and lines * nanoseconds >= words[LEAST] and lines_are_apart(table, operation):
        words[WORK] += lines * nanoseconds
        pieces = min(words[THREADS] * words[PIECES], lines)
        size = (lines + pieces - 1) // pieces
        pieces = (lines + size - 1) // size
        _work_together(table, operation, place, np.int64(BY_LINES), lines, size, fresh, pieces, words)
    else:
        read_lines(table, operation, np.int64(0), lines, fresh, place)


@kernel
def _work_together(
    table: np.ndarray, operation: np.ndarray, place: int, how: int, count: int, size: int, fresh: bool, pieces: int,
    words: np.ndarray,
) -> None:  # fmt: skip
    """Offer an operation to the team, do what of it nobody else does, and wait for the rest."""
    number, mine = offer(words, place, how, count, size, fresh, pieces), 0
    piece = take(words, number)
    while piece >= 0:
        work(table, operation, place, how, count, size, piece, fresh)
        mine += 1
        piece = take(words, number)
    wait(words, pieces - mine)
    memory = unpack(table)
    take_over(words, memory.changed, memory.counters, operation, place)


@kernel
def work(
    table: np.ndarray, operation: np.ndarray, place: int, how: int, count: int, size: int, piece: int, fresh: bool
) -> None:  # fmt: skip
    """Do a piece of an operation that is shared."""
    first = piece * size
    if how == BY_PANELS:
        last = min(first + size, panels_of(table, operation))
        multiply_rows(table, operation, np.int64(0), count, operation[at.ROW_PITCH], first, last)
        return
    rows = min(size, count - first)
    if how == BY_LINES:
        read_lines(table, operation, first, first + rows, fresh, place)
        return
    compute_rows(table, operation, first, rows, first + rows < count, fresh, unpack(table).counters[place])


@kernel
def compute_rows(
    table: np.ndarray, operation: np.ndarray, first: int, count: int, beside: bool, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Compute and finish the outputs ``active[first:]``; ``beside``, while another thread does so with the next."""
    kind, last = operation[at.KIND], first + count
    slides = kind == at.K_CONV or kind == at.K_DEPTHWISE
    pitch = operation[at.ROW_PITCH] if slides else unpack(table).tensors[operation[at.OUTPUT], at.CHANNELS]
    size = piece_size(count, pitch) if slides else PIECE
    while first < last:
        rows = min(size, last - first)
        if kind == at.K_CONV:
            multiply_rows(table, operation, first, rows, pitch, np.int64(0), panels_of(table, operation))
        elif kind == at.K_DEPTHWISE:
            scale_channels(table, operation, first, rows, pitch)
        elif kind == at.K_MAX_POOL or kind == at.K_AVERAGE_POOL:
            pool_rows(table, operation, first, rows)
        else:
            combine_rows(table, operation, first, rows)
        following = first + rows
        apart = max(first, last - reaching(table, operation, LANES)) if beside else following
        if apart < following:
            _hold_back(table, operation, apart, following)
        finish_sums(table, operation, rows, pitch, first, fresh, counters)
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
