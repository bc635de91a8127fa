"""Computing the outputs on bytes that changes reach, piece by piece, by one thread or by several; see ``pieces``."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import byte_memory as of
from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.byte_memory import unpack_bytes
from deltafine.runtime.kernels.byte_sums import add_inputs, add_up, finish_sums_of_bytes, panels_of_bytes
from deltafine.runtime.kernels.byte_vectors import BYTES
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.pieces import reaching
from deltafine.runtime.kernels.row_convolution import FEWEST_ROWS, piece_size, reach_of
from deltafine.runtime.kernels.rows import changed_positions, row_of
from deltafine.runtime.kernels.sharing import (
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


@kernel
def advance_bytes(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, place: int, fresh: bool,
    words: np.ndarray,
) -> None:  # fmt: skip
    """Compute the outputs that changes reach, each from scratch; ``words`` as for ``pieces.compute``."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    source = memory.links[operation[at.INPUTS]]
    if _adds_inputs(extra):
        count = changed_positions(table, operation, fresh)
    else:
        changed = memory.changed[source]
        if changed == 0 and not fresh:
            return
        if operation[at.KIND] == at.K_GLOBAL_AVERAGE:
            count = np.int64(1)
            memory.active[0], memory.offsets[0] = 0, 0
            memory.targets[0] = memory.tensors[operation[at.OUTPUT], at.ORIGIN]
        else:
            size = memory.tensors[source, at.HEIGHT] * memory.tensors[source, at.WIDTH]
            count = reach_of(table, operation, fresh or changed == size)
    if count == 0:
        return
    how, size, pieces, number, mine = np.int64(BY_ROWS), count, np.int64(1), np.int64(0), 0
    nanoseconds = _nanoseconds(operation, extra)
    if len(words) and nanoseconds * count >= words[LEAST]:
        size = piece_of_rows(words, count, nanoseconds)
        if extra[of.KIND] == of.B_CONV and count < min(words[THREADS] * words[SHORT], FEWEST_ROWS):
            panels, wanted = panels_of_bytes(extra), words[THREADS] * words[PIECES]
            if panels >= words[THREADS]:
                how, size = np.int64(BY_PANELS), (panels + wanted - 1) // wanted
                pieces = (panels + size - 1) // size
        of_numbers = extra[of.RULE] == of.R_IN_FLOATS and reaching(table, operation, np.int64(LANES)) > 0
        if how == BY_ROWS and of_numbers:
            size = count
        if how == BY_ROWS:
            pieces = (count + size - 1) // size
    if pieces > 1:
        words[WORK] += np.int64(nanoseconds * count)
        number = offer(words, place, how, count, size, fresh, pieces)
    piece = take(words, number, False) if pieces > 1 else np.int64(0)
    while piece >= 0:
        work_on_bytes(table, more, operation, extra, place, how, count, size, piece, fresh)
        mine += 1
        piece = take(words, number, False) if pieces > 1 else np.int64(-1)
    if pieces > 1:
        wait(words, pieces - mine)
        take_over(words, memory.changed, memory.counters, operation, place)
    if how == BY_PANELS:
        finish_sums_of_bytes(table, more, operation, extra, count, np.int64(0), fresh, memory.counters[place])


@kernel
def _adds_inputs(extra: np.ndarray) -> bool:
    return extra[of.KIND] == of.B_TIMES or extra[of.KIND] == of.B_PRODUCT


@kernel
def _nanoseconds(operation: np.ndarray, extra: np.ndarray) -> float:
    """How long one output takes, about."""
    products = operation[at.INPUT_COUNT] if _adds_inputs(extra) else extra[of.RUN_COUNT]
    if extra[of.QUADS] > 0 and not _adds_inputs(extra):
        products *= 4 * extra[of.QUADS]
    return extra[of.PITCH] * (products / BYTES + 0.25)


@kernel
def work_on_bytes(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, place: int, how: int, count: int,
    size: int, piece: int, fresh: bool,
) -> None:  # fmt: skip
    """Do a piece of an operation; see ``sharing``."""
    counters, first = unpack(table).counters[place], piece * size
    last = min(first + size, count)
    none = 0 * size  # not a literal: numba would compile all below once more for it
    most, begin, end = piece_size(last - first, extra[of.PITCH]), none, panels_of_bytes(extra)
    if how == BY_PANELS:
        first, last, most, begin, end = none, count, count, first, min(first + size, end)
    # Rows beside which another thread writes are kept apart, where they reach into those; numbers do not.
    alone = last == count or extra[of.RULE] == of.R_IN_FLOATS
    apart_from = last if alone else last - reaching(table, operation, np.int64(BYTES))
    while first < last:
        following = min(first + most, last)
        rows = following - first
        if _adds_inputs(extra):
            add_inputs(table, more, operation, extra, rows, first)
        else:
            add_up(table, more, operation, extra, rows, first, begin, end)
        if how == BY_PANELS:
            return
        apart = max(first, apart_from)
        if apart < following:
            _hold_back(table, more, operation, apart, following)
        finish_sums_of_bytes(table, more, operation, extra, rows, first, fresh, counters)
        if apart < following:
            _put_back(table, more, operation, apart, following)
        first = following


@kernel
def _hold_back(table: np.ndarray, more: np.ndarray, operation: np.ndarray, first: int, last: int) -> None:
    """Let the outputs ``active[first:last]`` be kept at the end of the line."""
    memory, memory_of_bytes = unpack(table), unpack_bytes(more)
    channels = memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    slot = len(memory_of_bytes.line) - (last - first) * (channels + BYTES)
    away = more[of.LINE, 0] - more[of.LEVELS, 0]
    for i in range(first, last):
        target = memory.targets[i]
        for c in range(channels):
            memory_of_bytes.line[slot + c] = memory_of_bytes.levels[target + c]
        memory.targets[i] = away + slot
        slot += channels + BYTES


@kernel
def _put_back(table: np.ndarray, more: np.ndarray, operation: np.ndarray, first: int, last: int) -> None:
    """Write them where they belong."""
    memory, memory_of_bytes = unpack(table), unpack_bytes(more)
    tensor = memory.tensors[operation[at.OUTPUT]]
    channels, positions = tensor[at.CHANNELS], tensor[at.HEIGHT] * tensor[at.WIDTH]
    slot = len(memory_of_bytes.line) - (last - first) * (channels + BYTES)
    for i in range(first, last):
        target = row_of(tensor, memory.active[i], positions)
        for c in range(channels):
            memory_of_bytes.levels[target + c] = memory_of_bytes.line[slot + c]
        slot += channels + BYTES
