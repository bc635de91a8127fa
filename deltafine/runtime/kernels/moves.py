"""Operations that only move values: padding, cropping, upsampling, reshaping, concatenating."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import unpack


@kernel
def note(
    table: np.ndarray, operation: np.ndarray, position: int, changed: int, counters: np.ndarray
) -> None:  # fmt: skip
    """Count ``changed`` more channels of an output position as changed."""
    memory = unpack(table)
    if not changed:
        return
    place = memory.tensors[operation[at.OUTPUT]][at.MASK] + position
    if memory.masks[place]:
        memory.counts[place] += changed
    else:
        memory.masks[place] = 1
        memory.counts[place] = changed
        memory.changed[operation[at.OUTPUT]] += 1
        counters[1] += 1
    counters[2] += changed


@kernel
def _copy(table: np.ndarray, source: int, target: int, length: int) -> int:
    """Copy values within the arena; returns how many differ from what was there."""
    memory = unpack(table)
    values, kept = memory.arena[source : source + length], memory.arena[target : target + length]
    changed = 0
    for c in range(length):
        changed += values[c] != kept[c]
        kept[c] = values[c]
    return changed


@kernel
def place(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Copy each changed row to the one or several positions where it belongs in the output."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    index = memory.links[operation[at.INPUTS]]
    source, target = memory.tensors[index], memory.tensors[operation[at.OUTPUT]]
    if memory.changed[index] == 0 and not fresh:
        return
    channels = source[at.CHANNELS]
    if fresh:  # zeros around the picture are new as well
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
                        changed = _copy(table, begin, to, channels)
                        counters[0] += 1
                        if not fresh:
                            note(table, operation, to_y * target[at.WIDTH] + to_x, changed, counters)


@kernel
def reshape(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """The same values in the same order, in rows of another length."""
    memory = unpack(table)
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
                row = (flat + done) // length
                column = (flat + done) % length
                piece = min(channels - done, length - column)
                to_y = row // target[at.WIDTH]
                to = target[at.ORIGIN] + to_y * target[at.PITCH] + (row - to_y * target[at.WIDTH]) * length + column
                changed = _copy(table, begin + done, to, piece)
                note(table, operation, row, piece if fresh else changed, counters)
                done += piece
    counters[0] += 1


@kernel
def concatenate(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Rows side by side."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    target = memory.tensors[operation[at.OUTPUT]]
    column = 0
    for k in range(operation[at.INPUT_COUNT]):
        index = memory.links[operation[at.INPUTS] + k]
        source = memory.tensors[index]
        channels = source[at.CHANNELS]
        if memory.changed[index] or fresh:
            for y in range(source[at.HEIGHT]):
                for x in range(source[at.WIDTH]):
                    position = y * source[at.WIDTH] + x
                    if fresh or memory.masks[source[at.MASK] + position]:
                        begin = source[at.ORIGIN] + y * source[at.PITCH] + x * channels
                        to = target[at.ORIGIN] + y * target[at.PITCH] + x * target[at.CHANNELS] + column
                        changed = _copy(table, begin, to, channels)
                        note(table, operation, position, channels if fresh else changed, counters)
                        counters[0] += 1
        column += channels
