"""Operations that compute each output row from the rows at the same place, or from all rows."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.bit_sets import BITS, bits_of, lowest_bit
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.memory import unpack

PIECE = 64
"""Rows that are computed and finished at a time."""


@kernel
def changed_positions(table: np.ndarray, operation: np.ndarray, fresh: bool) -> int:
    """Fill ``active`` and ``targets`` with the positions at which any input changed; returns how many."""
    memory = unpack(table)
    tensors, links, masks = memory.tensors, memory.links, memory.masks
    target, inputs, input_count = operation[at.OUTPUT], operation[at.INPUTS], operation[at.INPUT_COUNT]
    width, channels = tensors[target, at.WIDTH], tensors[target, at.CHANNELS]
    place, pitch = tensors[target, at.ORIGIN], tensors[target, at.PITCH]
    positions = tensors[target, at.HEIGHT] * width
    everything = some = fresh
    for k in range(input_count):
        index = links[inputs + k]
        some |= memory.changed[index] > 0
        size = tensors[index, at.HEIGHT] * tensors[index, at.WIDTH]
        everything |= memory.changed[index] == size  # one position stands for all
    if not some:
        return 0
    count = y = 0
    for begin in range(0, positions, BITS):
        size = min(BITS, positions - begin)
        word = -1 if size == BITS else (1 << size) - 1
        if not everything:
            word = 0
            for k in range(input_count):
                index = links[inputs + k]
                if tensors[index, at.HEIGHT] * tensors[index, at.WIDTH] == positions:
                    word |= bits_of(masks, tensors[index, at.MASK] + begin, size)
        while word:
            position = begin + lowest_bit(word)
            word &= word - 1
            while position >= (y + 1) * width:
                y += 1
            memory.active[count] = position
            memory.targets[count] = place + y * pitch + (position - y * width) * channels
            count += 1
    return count


@kernel
def row_of(tensor: np.ndarray, position: int, positions: int) -> int:
    """Where the row that belongs to a position of the output begins."""
    if tensor[at.HEIGHT] * tensor[at.WIDTH] != positions:
        return tensor[at.ORIGIN]
    y = position // tensor[at.WIDTH]
    return tensor[at.ORIGIN] + y * tensor[at.PITCH] + (position - y * tensor[at.WIDTH]) * tensor[at.CHANNELS]


@kernel
def combine_rows(table: np.ndarray, operation: np.ndarray, first: int, rows: int) -> None:
    """An identity, or an element-wise operation of two or more inputs, at ``active[first:]`` into the scratch."""
    memory = unpack(table)
    target = memory.tensors[operation[at.OUTPUT]]
    positions, channels, kind = target[at.HEIGHT] * target[at.WIDTH], target[at.CHANNELS], operation[at.KIND]
    if kind == at.K_IDENTITY:
        _copy_rows(table, operation, first, rows)
        return
    for i in range(rows):
        position = memory.active[first + i]
        row = memory.scratch[i * channels : (i + 1) * channels]
        for k in range(operation[at.INPUT_COUNT]):
            tensor = memory.tensors[memory.links[operation[at.INPUTS] + k]]
            begin = row_of(tensor, position, positions)
            if tensor[at.CHANNELS] == channels:
                _combine_rows(row, memory.arena[begin : begin + channels], kind if k else at.K_IDENTITY)
            else:
                _combine_one(row, memory.arena[begin], kind if k else at.K_IDENTITY)
        if kind == at.K_AVERAGE:
            for c in range(channels):
                row[c] /= np.float32(operation[at.INPUT_COUNT])


@kernel
def _copy_rows(table: np.ndarray, operation: np.ndarray, first: int, rows: int) -> None:
    """The input's rows at the positions ``active[first:]`` into the scratch; they may have few channels."""
    memory = unpack(table)
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
    elif kind == at.K_MINIMUM:
        for c in range(len(row)):
            row[c] = min(row[c], other[c])
    elif kind == at.K_DIVIDE:
        for c in range(len(row)):
            row[c] /= other[c]
    elif kind == at.K_POWER:
        for c in range(len(row)):
            row[c] = np.float32(row[c] ** other[c])
    else:
        for c in range(len(row)):
            x = row[c]
            row[c] = x if x >= 0 else x * other[c]


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
        elif kind == at.K_MINIMUM:
            x = min(x, other)
        elif kind == at.K_DIVIDE:
            x /= other
        elif kind == at.K_POWER:
            x = np.float32(x**other)
        else:
            x = x if x >= 0 else x * other
        row[c] = x


@kernel
def pool_rows(table: np.ndarray, operation: np.ndarray, first: int, rows: int) -> None:
    """Largest or mean of what is pooled at ``active[first:]``; what lies outside the picture counts for neither."""
    memory = unpack(table)
    source, target = memory.tensors[memory.links[operation[at.INPUTS]]], memory.tensors[operation[at.OUTPUT]]
    channels, columns = target[at.CHANNELS], target[at.WIDTH]
    largest = operation[at.KIND] == at.K_MAX_POOL
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


@kernel
def pool_everything(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Largest or mean over all positions; added up line by line, so that rounding stays small."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
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
    memory.active[0], memory.targets[0] = 0, memory.tensors[operation[at.OUTPUT], at.ORIGIN]
    finish_rows(table, operation, np.int64(1), channels, np.int64(0), fresh, counters)
