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
    if len(words):
        nanoseconds = _nanoseconds(operation, extra)
        if nanoseconds * count >= words[LEAST] and _share(
            table, more, operation, extra, place, count, fresh, words, nanoseconds
        ):
            return
    # Not literals: numba would compile all below once more for each of them.
    compute_bytes(table, more, operation, extra, np.int64(0), count, count < 0, fresh, memory.counters[place])


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
def _share(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, place: int, count: int, fresh: bool,
    words: np.ndarray, nanoseconds: float,
) -> bool:  # fmt: skip
    """Offer the outputs to the team: by rows, or where these are few, by panels of the weights; whether that can be."""
    memory, threads, how = unpack(table), words[THREADS], np.int64(BY_ROWS)
    size = piece_of_rows(words, count, nanoseconds)
    pieces = (count + size - 1) // size
    if extra[of.KIND] == of.B_CONV and count < min(threads * words[SHORT], FEWEST_ROWS):
        panels = panels_of_bytes(extra)
        if panels >= threads:
            how, size = np.int64(BY_PANELS), (panels + threads * words[PIECES] - 1) // (threads * words[PIECES])
            pieces = (panels + size - 1) // size
    if pieces < 2 or (how == BY_ROWS and extra[of.RULE] == of.R_IN_FLOATS and reaching(table, operation, LANES)):
        return False
    words[WORK] += np.int64(nanoseconds * count)
    number, mine = offer(words, place, how, count, size, fresh, pieces), 0
    piece = take(words, number)
    while piece >= 0:
        work_on_bytes(table, more, operation, extra, place, how, count, size, piece, fresh)
        mine += 1
        piece = take(words, number)
    wait(words, pieces - mine)
    take_over(words, memory.changed, memory.counters, operation, place)
    if how == BY_PANELS:
        finish_sums_of_bytes(table, more, operation, extra, count, np.int64(0), fresh, memory.counters[place])
    return True


@kernel
def work_on_bytes(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, place: int, how: int, count: int,
    size: int, piece: int, fresh: bool,
) -> None:  # fmt: skip
    """Do a piece of an operation that is shared."""
    first = piece * size
    if how == BY_PANELS:
        last = min(first + size, panels_of_bytes(extra))
        add_up(table, more, operation, extra, count, np.int64(0), first, last)
        return
    rows, counters = min(size, count - first), unpack(table).counters[place]
    compute_bytes(table, more, operation, extra, first, rows, first + rows < count, fresh, counters)


@kernel
def compute_bytes(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, first: int, count: int, beside: bool,
    fresh: bool, counters: np.ndarray,
) -> None:  # fmt: skip
    """Compute and finish the outputs ``active[first:]``; ``beside``, while another thread does so with the next."""
    size, last = piece_size(count, extra[of.PITCH]), first + count
    beside = beside and extra[of.RULE] != of.R_IN_FLOATS  # of numbers, none reaches the next
    while first < last:
        following = min(first + size, last)
        rows = following - first
        if _adds_inputs(extra):
            add_inputs(table, more, operation, extra, rows, first)
        else:
            add_up(table, more, operation, extra, rows, first, np.int64(0), panels_of_bytes(extra))
        apart = max(first, last - reaching(table, operation, BYTES)) if beside else following
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
