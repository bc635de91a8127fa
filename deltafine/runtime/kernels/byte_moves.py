"""Operations that move bytes, and make bytes of numbers and numbers of bytes."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import byte_memory as of
from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.bit_sets import BITS, bits_of, lowest_bit
from deltafine.runtime.kernels.byte_memory import unpack_bytes
from deltafine.runtime.kernels.byte_rows import copy_row, quantise_row
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.moves import note
from deltafine.runtime.kernels.rows import changed_positions, row_of


@kernel
def quantise(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Levels of the numbers at changed positions."""
    memory, memory_of_bytes = unpack(table), unpack_bytes(more)
    levels = memory_of_bytes.levels
    start_output(table, operation[at.OUTPUT])
    count = changed_positions(table, operation, fresh)
    source, target = memory.tensors[memory.links[operation[at.INPUTS]]], memory.tensors[operation[at.OUTPUT]]
    positions, channels = target[at.HEIGHT] * target[at.WIDTH], target[at.CHANNELS]
    per_unit, zero = memory_of_bytes.factors[extra[of.FACTOR]], np.float32(extra[of.ZERO])
    blocks, tail, rest = extra[of.BLOCKS], extra[of.TAIL], extra[of.REST]
    for i in range(count):
        begin, to = row_of(source, memory.active[i], positions), memory.targets[i]
        changed = quantise_row(memory.arena, begin, levels, to, blocks, tail, rest, per_unit, zero)
        note(table, operation, memory.active[i], channels if fresh else changed, counters)
    counters[at.ROWS] += count


@kernel
def dequantise(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Numbers of the levels at changed positions."""
    memory, memory_of_bytes = unpack(table), unpack_bytes(more)
    levels = memory_of_bytes.levels
    start_output(table, operation[at.OUTPUT])
    count = changed_positions(table, operation, fresh)
    source, target = memory.tensors[memory.links[operation[at.INPUTS]]], memory.tensors[operation[at.OUTPUT]]
    positions, channels = target[at.HEIGHT] * target[at.WIDTH], target[at.CHANNELS]
    factors, zeros = memory_of_bytes.factors, memory_of_bytes.whole
    factor, zero = extra[of.FACTOR], extra[of.BIAS]
    for i in range(count):
        begin, to = row_of(source, memory.active[i], positions), memory.targets[i]
        changed = 0
        for c in range(channels):
            value = np.float32(np.int32(levels[begin + c]) - zeros[zero + c]) * factors[factor + c]
            changed += value != memory.arena[to + c]
            memory.arena[to + c] = value
        note(table, operation, memory.active[i], channels if fresh else changed, counters)
    counters[at.ROWS] += count


@kernel
def byte_place(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Copy each changed row to the one or several positions where it belongs in the output."""
    memory, levels = unpack(table), unpack_bytes(more).levels
    start_output(table, operation[at.OUTPUT])
    index = memory.links[operation[at.INPUTS]]
    source, target = memory.tensors[index], memory.tensors[operation[at.OUTPUT]]
    if memory.changed[index] == 0 and not fresh:
        return
    channels = source[at.CHANNELS]
    if fresh:  # what stands around the picture is new as well
        for position in range(target[at.HEIGHT] * target[at.WIDTH]):
            note(table, operation, position, channels, counters)
    for y in range(source[at.HEIGHT]):
        for x in range(source[at.WIDTH]):
            if not (fresh or memory.masks[source[at.MASK] + y * source[at.WIDTH] + x]):
                continue
            begin = source[at.ORIGIN] + y * source[at.PITCH] + x * channels
            for copy_y in range(operation[at.STRIDE_H]):
                to_y = y * operation[at.STRIDE_H] + copy_y + operation[at.TOP]
                for copy_x in range(operation[at.STRIDE_W]):
                    to_x = x * operation[at.STRIDE_W] + copy_x + operation[at.LEFT]
                    if 0 <= to_y < target[at.HEIGHT] and 0 <= to_x < target[at.WIDTH]:
                        to = target[at.ORIGIN] + to_y * target[at.PITCH] + to_x * channels
                        changed = copy_row(levels, begin, to, channels)
                        counters[at.ROWS] += 1
                        if not fresh:
                            note(table, operation, to_y * target[at.WIDTH] + to_x, changed, counters)


@kernel
def byte_reshape(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """The same bytes in the same order, in rows of another length."""
    memory, levels = unpack(table), unpack_bytes(more).levels
    start_output(table, operation[at.OUTPUT])
    index = memory.links[operation[at.INPUTS]]
    source, target = memory.tensors[index], memory.tensors[operation[at.OUTPUT]]
    if memory.changed[index] == 0 and not fresh:
        return
    channels, length = source[at.CHANNELS], target[at.CHANNELS]
    for y in range(source[at.HEIGHT]):
        for x in range(source[at.WIDTH]):
            position = y * source[at.WIDTH] + x
            if not (fresh or memory.masks[source[at.MASK] + position]):
                continue
            begin = source[at.ORIGIN] + y * source[at.PITCH] + x * channels
            flat, done = position * channels, 0
            while done < channels:
                row, column = (flat + done) // length, (flat + done) % length
                piece = min(channels - done, length - column)
                y_to = row // target[at.WIDTH]
                to = target[at.ORIGIN] + y_to * target[at.PITCH] + (row - y_to * target[at.WIDTH]) * length + column
                changed = copy_row(levels, begin + done, to, piece)
                note(table, operation, row, piece if fresh else changed, counters)
                done += piece
    counters[at.ROWS] += 1


@kernel
def byte_concatenate(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Rows side by side."""
    memory, levels = unpack(table), unpack_bytes(more).levels
    start_output(table, operation[at.OUTPUT])
    target = memory.tensors[operation[at.OUTPUT]]
    width, positions, column = target[at.WIDTH], target[at.HEIGHT] * target[at.WIDTH], 0
    for k in range(operation[at.INPUT_COUNT]):
        index = memory.links[operation[at.INPUTS] + k]
        source = memory.tensors[index]
        channels = source[at.CHANNELS]
        if memory.changed[index] or fresh:
            for begin in range(0, positions, BITS):
                size = min(BITS, positions - begin)
                word = -1 if size == BITS else (1 << size) - 1
                if not fresh:
                    word = bits_of(memory.masks, source[at.MASK] + begin, size)
                while word:
                    position = begin + lowest_bit(word)
                    word &= word - 1
                    y = position // width
                    x = position - y * width
                    row = source[at.ORIGIN] + y * source[at.PITCH] + x * channels
                    to = target[at.ORIGIN] + y * target[at.PITCH] + x * target[at.CHANNELS] + column
                    changed = copy_row(levels, row, to, channels)
                    note(table, operation, position, channels if fresh else changed, counters)
                    counters[at.ROWS] += 1
        column += channels
