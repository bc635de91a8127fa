"""Taking in a frame: many positions with few channels, so whole lines are compared at a time."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import Memory
from deltafine.runtime.kernels.rules import ELEMENT, NONE, QUANTIZE, values_to_send

BLOCK = 32
"""Positions that are looked at together; most blocks of a quiet video have nothing to send."""

ZERO = np.float32(0)

_differing, _quantized, _moved = values_to_send(NONE), values_to_send(QUANTIZE), values_to_send(ELEMENT)
"""By the pixel nothing is sent unless some value has moved by a step, so the last one serves there too."""


@kernel
def read_frame(
    memory: Memory, operation: np.ndarray, frame: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Scale a frame (flat, float32, some room behind it), apply the event rule of the input, keep what is sent.

    The operation's scale and shift, and steps but those of neurons, are stored repeated for a whole line.
    """
    start_output(memory, operation)
    tensor = memory.tensors[operation[at.OUTPUT]]
    width, channels, rule = tensor[at.WIDTH], tensor[at.CHANNELS], operation[at.RULE]
    weights, arena = memory.weights, memory.arena
    for y in range(tensor[at.HEIGHT]):
        for x in range(0, width, BLOCK):
            size, column = min(BLOCK, width - x) * channels, x * channels
            flat = y * width * channels + column
            begin = tensor[at.ORIGIN] + y * tensor[at.PITCH] + column
            scale, shift = operation[at.SCALE] + column, operation[at.SHIFT] + column
            steps = operation[at.STEP] + (flat if operation[at.STEP_BY_NEURON] else column)
            if rule == at.R_QUANTIZE:
                some = _quantized(frame, flat, weights, scale, shift, steps, arena, begin, size)
            elif rule == at.R_NONE:
                some = _differing(frame, flat, weights, scale, shift, steps, arena, begin, size)
            else:
                some = _moved(frame, flat, weights, scale, shift, steps, arena, begin, size)
            if some or fresh:
                row = memory.scratch[:size]
                scales, shifts = weights[scale : scale + size], weights[shift : shift + size]
                for c in range(size):
                    row[c] = frame[flat + c] * scales[c]
                    row[c] += shifts[c]
                kept, step = arena[begin : begin + size], weights[steps : steps + size]
                _send_block(memory, operation, row, kept, step, y * width + x, fresh, counters)
    counters[at.ROWS] += tensor[at.HEIGHT] * width


@kernel
def _send_block(
    memory: Memory, operation: np.ndarray, row: np.ndarray, kept: np.ndarray, steps: np.ndarray, first: int,
    fresh: bool, counters: np.ndarray,
) -> None:  # fmt: skip
    tensor = memory.tensors[operation[at.OUTPUT]]
    channels, rule = tensor[at.CHANNELS], operation[at.RULE]
    by_position = rule == at.R_SEND_ON_DELTA and operation[at.PIXEL] and not fresh
    squares = memory.scratch[len(row) : 2 * len(row)]
    if rule == at.R_QUANTIZE:
        for c in range(len(row)):
            row[c] = np.rint(row[c] / steps[c]) * steps[c]
    elif by_position:
        for c in range(len(row)):
            change = (row[c] - kept[c]) / steps[c]
            squares[c] = change * change
    elif rule == at.R_SEND_ON_DELTA and not fresh:
        for c in range(len(row)):
            row[c] = kept[c] if abs(row[c] - kept[c]) < steps[c] else row[c]
    changed_positions = 0
    for i in range(len(row) // channels):
        begin = i * channels
        if by_position:
            total = ZERO
            for c in range(begin, begin + channels):
                total += squares[c]
            if total < np.float32(channels):  # a root mean square below 1
                continue
        changed = 0
        for c in range(begin, begin + channels):
            changed += row[c] != kept[c]
            kept[c] = row[c]
        changed = channels if fresh else changed
        if changed:
            place = tensor[at.MASK] + first + i
            memory.masks[place] = 1
            memory.counts[place] = changed
            changed_positions += 1
            counters[at.CHANGED_ELEMENTS] += changed
    memory.changed[operation[at.OUTPUT]] += changed_positions
    counters[at.CHANGED_ROWS] += changed_positions
