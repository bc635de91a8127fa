"""Operations that compute each output row from the rows at the same place, or from all rows."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.memory import WORD, Memory
from deltafine.runtime.kernels.products import reach_of

PIECE = 64
"""Rows that are computed and finished at a time."""


@kernel
def changed_positions(memory: Memory, operation: np.ndarray, fresh: bool) -> int:
    """Fill ``active`` with the positions at which any input changed; returns how many."""
    target = memory.tensors[operation[at.OUTPUT]]
    positions = target[at.HEIGHT] * target[at.WIDTH]
    everything = fresh
    some = fresh
    for k in range(operation[at.INPUT_COUNT]):
        index = memory.links[operation[at.INPUTS] + k]
        tensor = memory.tensors[index]
        size = tensor[at.HEIGHT] * tensor[at.WIDTH]
        some |= memory.changed[index] > 0
        everything |= memory.changed[index] == size  # one position stands for all
    if not some:
        return 0
    if everything:
        for position in range(positions):
            memory.active[position] = position
        return positions
    count = 0
    for begin in range(0, positions, WORD):
        word = np.uint64(0)
        for k in range(operation[at.INPUT_COUNT]):
            index = memory.links[operation[at.INPUTS] + k]
            if memory.tensors[index, at.HEIGHT] * memory.tensors[index, at.WIDTH] == positions:
                word |= memory.mask_words[(memory.tensors[index, at.MASK] + begin) // WORD]
        if word == 0:
            continue
        for position in range(begin, min(begin + WORD, positions)):
            hit = 0
            for k in range(operation[at.INPUT_COUNT]):
                index = memory.links[operation[at.INPUTS] + k]
                if memory.tensors[index, at.HEIGHT] * memory.tensors[index, at.WIDTH] == positions:
                    hit |= memory.masks[memory.tensors[index, at.MASK] + position]
            memory.active[count] = position
            count += hit
    return count


@kernel
def _row_of(memory: Memory, tensor: np.ndarray, position: int, positions: int) -> int:
    """Where the row that belongs to a position of the output begins."""
    if tensor[at.HEIGHT] * tensor[at.WIDTH] != positions:
        return tensor[at.ORIGIN]
    y = position // tensor[at.WIDTH]
    return tensor[at.ORIGIN] + y * tensor[at.PITCH] + (position - y * tensor[at.WIDTH]) * tensor[at.CHANNELS]


@kernel
def combine(memory: Memory, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """An identity, or an element-wise operation of two or more inputs."""
    start_output(memory, operation)
    count = changed_positions(memory, operation, fresh)
    target = memory.tensors[operation[at.OUTPUT]]
    positions, channels, kind = target[at.HEIGHT] * target[at.WIDTH], target[at.CHANNELS], operation[at.KIND]
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(PIECE, count - first)
        if kind == at.K_IDENTITY:
            _copy_rows(memory, operation, first, rows)
        for i in range(rows if kind != at.K_IDENTITY else 0):
            position = memory.active[first + i]
            row = memory.scratch[i * channels : (i + 1) * channels]
            for k in range(operation[at.INPUT_COUNT]):
                tensor = memory.tensors[memory.links[operation[at.INPUTS] + k]]
                begin = _row_of(memory, tensor, position, positions)
                if tensor[at.CHANNELS] == channels:
                    _combine_rows(row, memory.arena[begin : begin + channels], kind if k else at.K_IDENTITY)
                else:
                    _combine_one(row, memory.arena[begin], kind if k else at.K_IDENTITY)
            if kind == at.K_AVERAGE:
                for c in range(channels):
                    row[c] /= np.float32(operation[at.INPUT_COUNT])
        finish_rows(memory, operation, rows, channels, first, fresh, counters)
        first += rows


@kernel
def _copy_rows(memory: Memory, operation: np.ndarray, first: int, rows: int) -> None:
    """The input's rows at the positions ``active[first:]`` into the scratch; they may have few channels."""
    index = memory.links[operation[at.INPUTS]]
    origin, line = memory.tensors[index, at.ORIGIN], memory.tensors[index, at.PITCH]
    width, channels = memory.tensors[index, at.WIDTH], memory.tensors[index, at.CHANNELS]
    for i in range(rows):
        position = memory.active[first + i]
        y = position // width
        begin, place = origin + y * line + (position - y * width) * channels, i * channels
        for c in range(channels):
            memory.scratch[place + c] = memory.arena[begin + c]


@kernel
def _combine_rows(row: np.ndarray, other: np.ndarray, kind: int) -> None:
    if kind == at.K_IDENTITY:
        for c in range(len(row)):
            row[c] = other[c]
    elif kind == at.K_ADD or kind == at.K_AVERAGE:
        for c in range(len(row)):
            row[c] += other[c]
    elif kind == at.K_SUBTRACT:
        for c in range(len(row)):
            row[c] -= other[c]
    elif kind == at.K_MULTIPLY:
        for c in range(len(row)):
            row[c] *= other[c]
    elif kind == at.K_MAXIMUM:
        for c in range(len(row)):
            row[c] = max(row[c], other[c])
    else:
        for c in range(len(row)):
            row[c] = min(row[c], other[c])


@kernel
def _combine_one(row: np.ndarray, other: np.float32, kind: int) -> None:
    for c in range(len(row)):
        x = row[c]
        if kind == at.K_IDENTITY:
            x = other
        elif kind == at.K_ADD or kind == at.K_AVERAGE:
            x += other
        elif kind == at.K_SUBTRACT:
            x -= other
        elif kind == at.K_MULTIPLY:
            x *= other
        elif kind == at.K_MAXIMUM:
            x = max(x, other)
        else:
            x = min(x, other)
        row[c] = x


@kernel
def pool(memory: Memory, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Largest or mean of the values in a window; what lies outside the picture counts for neither."""
    start_output(memory, operation)
    index = memory.links[operation[at.INPUTS]]
    source, target = memory.tensors[index], memory.tensors[operation[at.OUTPUT]]
    changed = memory.changed[index]
    if changed == 0 and not fresh:
        return
    count = reach_of(memory, operation, fresh or changed == source[at.HEIGHT] * source[at.WIDTH])
    channels, columns = target[at.CHANNELS], target[at.WIDTH]
    largest = operation[at.KIND] == at.K_MAX_POOL
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(PIECE, count - first)
        for i in range(rows):
            position = memory.active[first + i]
            y = (position // columns) * operation[at.STRIDE_H] - operation[at.TOP]
            x = (position % columns) * operation[at.STRIDE_W] - operation[at.LEFT]
            row = memory.scratch[i * channels : (i + 1) * channels]
            row[:] = -np.inf if largest else 0
            inside = 0
            for at_y in range(max(y, 0), min(y + operation[at.KERNEL_H], source[at.HEIGHT])):
                for at_x in range(max(x, 0), min(x + operation[at.KERNEL_W], source[at.WIDTH])):
                    begin = source[at.ORIGIN] + at_y * source[at.PITCH] + at_x * channels
                    _combine_rows(row, memory.arena[begin : begin + channels], at.K_MAXIMUM if largest else at.K_ADD)
                    inside += 1
            if not largest:
                for c in range(channels):
                    row[c] /= np.float32(inside)
        finish_rows(memory, operation, rows, channels, first, fresh, counters)
        first += rows


@kernel
def pool_everything(memory: Memory, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Largest or mean over all positions; added up line by line, so that rounding stays small."""
    start_output(memory, operation)
    index = memory.links[operation[at.INPUTS]]
    if memory.changed[index] == 0 and not fresh:
        return
    source = memory.tensors[index]
    channels = source[at.CHANNELS]
    mean = operation[at.KIND] == at.K_GLOBAL_AVERAGE
    row, line = memory.scratch[:channels], memory.scratch[channels : 2 * channels]
    row[:] = 0 if mean else -np.inf
    for y in range(source[at.HEIGHT]):
        line[:] = 0 if mean else -np.inf
        for x in range(source[at.WIDTH]):
            begin = source[at.ORIGIN] + y * source[at.PITCH] + x * channels
            _combine_rows(line, memory.arena[begin : begin + channels], at.K_ADD if mean else at.K_MAXIMUM)
        _combine_rows(row, line, at.K_ADD if mean else at.K_MAXIMUM)
    if mean:
        for c in range(channels):
            row[c] /= np.float32(source[at.HEIGHT] * source[at.WIDTH])
    memory.active[0] = 0
    finish_rows(memory, operation, np.int64(1), channels, np.int64(0), fresh, counters)
