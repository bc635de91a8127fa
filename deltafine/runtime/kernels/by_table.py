"""Operations by tables: values in another order, weighted sums of positions, constants, attention."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.activate import exponential
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.rows import PIECE
from deltafine.runtime.kernels.vectors import LANES

ZERO = np.float32(0)


@kernel
def _some_changed(table: np.ndarray, operation: np.ndarray, fresh: bool) -> bool:
    memory = unpack(table)
    some = fresh
    for k in range(operation[at.INPUT_COUNT]):
        some |= memory.changed[memory.links[operation[at.INPUTS] + k]] > 0
    return some


@kernel
def _marked_positions(table: np.ndarray, operation: np.ndarray, everything: bool) -> int:
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
    if not _some_changed(table, operation, fresh):
        return
    by_rows = operation[at.RUN_COUNT] >= 0
    count = _marked_positions(table, operation, fresh or not by_rows)
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
    if not _some_changed(table, operation, fresh):
        return
    count = _marked_positions(table, operation, fresh)
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
    count = _marked_positions(table, operation, True)
    channels = memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(PIECE, count - first)
        begin = operation[at.WEIGHTS] + first * channels
        for c in range(rows * channels):
            memory.scratch[c] = memory.weights[begin + c]
        finish_rows(table, operation, rows, channels, first, fresh, counters)
        first += rows


@kernel
def _row_of(tensor: np.ndarray, position: int) -> int:
    y = position // tensor[at.WIDTH]
    return tensor[at.ORIGIN] + y * tensor[at.PITCH] + (position - y * tensor[at.WIDTH]) * tensor[at.CHANNELS]


@kernel
def attend(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """For each query and head the values, weighted by how well their keys match; all anew if anything changed."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    if not _some_changed(table, operation, fresh):
        return
    arena, scratch, inputs = memory.arena, memory.scratch, operation[at.INPUTS]
    queries = memory.tensors[memory.links[inputs]]
    keys, values = memory.tensors[memory.links[inputs + 1]], memory.tensors[memory.links[inputs + 2]]
    count = _marked_positions(table, operation, True)
    channels, heads = memory.tensors[operation[at.OUTPUT], at.CHANNELS], operation[at.GROUPS]
    key_count = keys[at.HEIGHT] * keys[at.WIDTH]
    size, value_size = queries[at.CHANNELS] // heads, channels // heads
    shared = heads // (keys[at.CHANNELS] // size)
    factor = memory.weights[operation[at.WEIGHTS]]
    turned = count * channels + 4 * LANES
    begin = turned + size * key_count
    scores = scratch[begin : begin + key_count]
    for head in range(heads):
        for j in range(key_count):  # the keys of a head, so that a line holds one of their numbers for all
            begin = _row_of(keys, j) + head // shared * size
            for d in range(size):
                scratch[turned + d * key_count + j] = arena[begin + d]
        for i in range(count):
            query = _row_of(queries, i) + head * size
            scores[:] = 0
            for d in range(size):
                number, begin = arena[query + d] * factor, turned + d * key_count
                line = scratch[begin : begin + key_count]
                for j in range(key_count):
                    scores[j] += number * line[j]
            _weigh(scores)
            begin = i * channels + head * value_size
            row = scratch[begin : begin + value_size]
            row[:] = 0
            for j in range(key_count):
                begin, weight = _row_of(values, j) + head // shared * value_size, scores[j]
                value = arena[begin : begin + value_size]
                for d in range(value_size):
                    row[d] += weight * value[d]
    finish_rows(table, operation, count, channels, np.int64(0), fresh, counters)
    counters[at.EFFECTIVE] += operation[at.ROW_LENGTH]


@kernel
def _weigh(scores: np.ndarray) -> None:
    """Softmax."""
    most = scores[0]
    for j in range(len(scores)):
        most = max(most, scores[j])
    for j in range(len(scores)):
        scores[j] = exponential(scores[j] - most)
    total = 0.0
    for j in range(len(scores)):
        total += scores[j]
    share = np.float32(1 / total)
    for j in range(len(scores)):
        scores[j] *= share
