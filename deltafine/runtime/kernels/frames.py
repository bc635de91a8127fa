"""Taking in a frame: many positions with few channels, so whole lines are compared at a time."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import Memory

BLOCK = 32
"""Positions that are looked at together; most blocks of a quiet video have nothing to send."""

ONE = np.float32(1)


@kernel
def read_frame(
    memory: Memory, operation: np.ndarray, frame: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Scale a frame (flat, float32), apply the event rule of the input, keep what is sent.

    The operation's scale and shift, and steps but those of neurons, are stored repeated for a whole line.
    """
    start_output(memory, operation)
    tensor = memory.tensors[operation[at.OUTPUT]]
    width, channels = tensor[at.WIDTH], tensor[at.CHANNELS]
    for y in range(tensor[at.HEIGHT]):
        for x in range(0, width, BLOCK):
            positions = min(BLOCK, width - x)
            size, column = positions * channels, x * channels
            row = memory.scratch[:size]
            flat = y * width * channels + column
            _scaled(memory, operation, frame[flat : flat + size], column, row)
            begin = tensor[at.ORIGIN] + y * tensor[at.PITCH] + column
            kept = memory.arena[begin : begin + size]
            step = operation[at.STEP] + (flat if operation[at.STEP_SCOPE] == at.BY_NEURON else column)
            steps = memory.weights[step : step + size]
            if _something_to_send(row, kept, steps, operation[at.RULE]) or fresh:
                _send_block(memory, operation, row, kept, steps, y * width + x, fresh, counters)
    counters[0] += tensor[at.HEIGHT] * width


@kernel
def _scaled(memory: Memory, operation: np.ndarray, values: np.ndarray, column: int, row: np.ndarray) -> None:
    for c in range(len(row)):
        row[c] = values[c]
    if operation[at.SCALE] >= 0:
        scale = memory.weights[operation[at.SCALE] + column : operation[at.SCALE] + column + len(row)]
        for c in range(len(row)):
            row[c] *= scale[c]
    if operation[at.SHIFT] >= 0:
        shift = memory.weights[operation[at.SHIFT] + column : operation[at.SHIFT] + column + len(row)]
        for c in range(len(row)):
            row[c] += shift[c]


@kernel
def _something_to_send(row: np.ndarray, kept: np.ndarray, steps: np.ndarray, rule: int) -> int:
    """Whether any value may have to be sent; ``row`` becomes the quantised values where the rule quantises."""
    some = 0
    if rule == at.R_SEND_ON_DELTA:
        for c in range(len(row)):
            some += not (abs(row[c] - kept[c]) < steps[c])
    else:
        if rule == at.R_QUANTIZE:
            for c in range(len(row)):
                row[c] = np.rint(row[c] / steps[c]) * steps[c]
        for c in range(len(row)):
            some += row[c] != kept[c]
    return some


@kernel
def _send_block(
    memory: Memory, operation: np.ndarray, row: np.ndarray, kept: np.ndarray, steps: np.ndarray, first: int,
    fresh: bool, counters: np.ndarray,
) -> None:  # fmt: skip
    tensor = memory.tensors[operation[at.OUTPUT]]
    channels, rule = tensor[at.CHANNELS], operation[at.RULE]
    by_element = rule == at.R_SEND_ON_DELTA and not operation[at.PIXEL] and not fresh
    by_position = rule == at.R_SEND_ON_DELTA and operation[at.PIXEL] and not fresh
    for i in range(len(row) // channels):
        begin = i * channels
        if by_position:
            total = np.float32(0)
            for c in range(begin, begin + channels):
                change = (row[c] - kept[c]) / steps[c]
                total += change * change
            if np.sqrt(total / np.float32(channels)) < ONE:
                continue
        changed = 0
        for c in range(begin, begin + channels):
            if by_element and abs(row[c] - kept[c]) < steps[c]:
                continue
            changed += row[c] != kept[c]
            kept[c] = row[c]
        changed = channels if fresh else changed
        if changed:
            place = tensor[at.MASK] + first + i
            memory.masks[place] = 1
            memory.counts[place] = changed
            memory.changed[operation[at.OUTPUT]] += 1
            counters[1] += 1
            counters[2] += changed
