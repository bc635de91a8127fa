"""Operations by tables: values in another order, weighted sums of positions, constants."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.rows import PIECE

ZERO = np.float32(0)


@kernel
def some_changed(table: np.ndarray, operation: np.ndarray, fresh: bool) -> bool:
    """Whether any input changed."""
    memory = unpack(table)
    some = fresh
    for k in range(operation[at.INPUT_COUNT]):
        some |= memory.changed[memory.links[operation[at.INPUTS] + k]] > 0
    return some


@kernel
def marked_positions(table: np.ndarray, operation: np.ndarray, everything: bool) -> int:
    """Fill ``active`` and ``targets`` with the positions of which a term stands at a mark; returns how many."""
    memory = unpack(table)
    links, target = memory.links, memory.tensors[operation[at.OUTPUT]]
    marks, terms = operation[at.RUN_COUNT], operation[at.RUN_LENGTH]
    count = position = 0
    for y in range(target[at.HEIGHT]):
        for x in range(target[at.WIDTH]):
            some = everything
            for k in range(0 if everything else terms):
                mark = links[marks + position * terms + k]
                some |= mark >= 0 and memory.masks[mark] > 0
            if some:
                memory.active[count] = position
                memory.targets[count] = target[at.ORIGIN] + y * target[at.PITCH] + x * target[at.CHANNELS]
                count += 1
            position += 1
    return count


@kernel
def gather(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Values in another order: by whole rows where there are marks, else value by value."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    if not some_changed(table, operation, fresh):
        return
    by_rows = operation[at.RUN_COUNT] >= 0
    count = marked_positions(table, operation, fresh or not by_rows)
    channels, places = memory.tensors[operation[at.OUTPUT], at.CHANNELS], operation[at.RUNS]
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(PIECE, count - first)
        for i in range(rows):
            position, row = memory.active[first + i], i * channels
            if by_rows:
                begin = memory.links[places + position]
                for c in range(channels):
                    memory.scratch[row + c] = memory.arena[begin + c] if begin >= 0 else ZERO
            else:
                for c in range(channels):
                    begin = memory.links[places + position * channels + c]
                    memory.scratch[row + c] = memory.arena[begin] if begin >= 0 else ZERO
        finish_rows(table, operation, rows, channels, first, fresh, counters)
        first += rows


@kernel
def blend(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Weighted sums of positions, term by term."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    if not some_changed(table, operation, fresh):
        return
    count = marked_positions(table, operation, fresh)
    channels, places = memory.tensors[operation[at.OUTPUT], at.CHANNELS], operation[at.RUNS]
    terms, factors = operation[at.RUN_LENGTH], operation[at.WEIGHTS]
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(PIECE, count - first)
        for i in range(rows):
            row = memory.scratch[i * channels : (i + 1) * channels]
            row[:] = 0
            place = memory.active[first + i] * terms
            for k in range(place, place + terms):
                begin, factor = memory.links[places + k], memory.weights[factors + k]
                source = memory.arena[begin : begin + channels]
                for c in range(channels):
                    row[c] += factor * source[c]
        finish_rows(table, operation, rows, channels, first, fresh, counters)
        first += rows


@kernel
def constant(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Values that are there from the first frame on."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    if not fresh:
        return
    count = marked_positions(table, operation, fresh)
    channels = memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(PIECE, count - first)
        begin = operation[at.WEIGHTS] + first * channels
        for c in range(rows * channels):
            memory.scratch[c] = memory.weights[begin + c]
        finish_rows(table, operation, rows, channels, first, fresh, counters)
        first += rows
