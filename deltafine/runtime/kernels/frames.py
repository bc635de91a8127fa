"""Taking in a frame: many positions with few channels, so whole lines are compared at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import Memory
from deltafine.runtime.kernels.rules import ELEMENT, NONE, PIXEL, QUANTIZE, squares, values_to_send

BLOCK = 32
"""Positions that are looked at together; most blocks of a quiet video have nothing to send."""

ZERO = np.float32(0)

_differing, _quantized = values_to_send(NONE), values_to_send(QUANTIZE)
_moved, _moved_elements = values_to_send(PIXEL), values_to_send(ELEMENT)


def _reader(fixed: int) -> Any:
    """For frames of so many channels, which makes short loops straight code; 0 for any.

    All of it is one function: calling another for every block would take longer than the block.
    """

    @kernel
    def read(memory: Memory, operation: np.ndarray, frame: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
        start_output(memory, operation)
        tensor = memory.tensors[operation[at.OUTPUT]]
        width, rule = tensor[at.WIDTH], operation[at.RULE]
        channels = fixed if fixed else tensor[at.CHANNELS]
        weights, arena, scratch, masks, counts = (
            memory.weights, memory.arena, memory.scratch, memory.masks, memory.counts
        )  # fmt: skip
        by_position = rule == at.R_SEND_ON_DELTA and operation[at.PIXEL] and not fresh
        least = np.float32(channels)  # of a root mean square of 1
        changed_positions = changed_elements = 0
        for y in range(tensor[at.HEIGHT]):
            for x in range(0, width, BLOCK):
                size, column = min(BLOCK, width - x) * channels, x * channels
                flat = y * width * channels + column
                begin = tensor[at.ORIGIN] + y * tensor[at.PITCH] + column
                scale, shift = operation[at.SCALE] + column, operation[at.SHIFT] + column
                steps = operation[at.STEP] + (flat if operation[at.STEP_BY_NEURON] else column)
                if rule == at.R_QUANTIZE:
                    some = _quantized(frame, flat, weights, scale, shift, steps, arena, begin, size, scratch)
                elif rule == at.R_NONE or fresh:
                    some = _differing(frame, flat, weights, scale, shift, steps, arena, begin, size, scratch)
                elif by_position:
                    some = _moved(frame, flat, weights, scale, shift, steps, arena, begin, size, scratch)
                else:
                    some = _moved_elements(frame, flat, weights, scale, shift, steps, arena, begin, size, scratch)
                if not (some or fresh):
                    continue
                if by_position:
                    squares(scratch, weights, steps, arena, begin, size)
                mask = tensor[at.MASK] + y * width + x
                for i in range(size // channels):
                    if by_position:
                        total = ZERO
                        for c in range(size + i * channels, size + (i + 1) * channels):
                            total += scratch[c]
                        if total < least:
                            continue
                    changed = 0
                    for c in range(i * channels, (i + 1) * channels):
                        changed += scratch[c] != arena[begin + c]
                        arena[begin + c] = scratch[c]
                    changed = channels if fresh else changed
                    if changed:
                        masks[mask + i] = 1
                        counts[mask + i] = changed
                        changed_positions += 1
                        changed_elements += changed
        memory.changed[operation[at.OUTPUT]] = changed_positions
        counters[at.ROWS] += tensor[at.HEIGHT] * width
        counters[at.CHANGED_ROWS] += changed_positions
        counters[at.CHANGED_ELEMENTS] += changed_elements

    return read


_grey, _colour, _any = _reader(1), _reader(3), _reader(0)


@kernel
def read_frame(
    memory: Memory, operation: np.ndarray, frame: np.ndarray, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Scale a frame (flat, float32, some room behind it), apply the event rule of the input, keep what is sent.

    The operation's scale and shift, and steps but those of neurons, are stored repeated for a whole line.
    """
    channels = memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    if channels == 3:
        _colour(memory, operation, frame, fresh, counters)
    elif channels == 1:
        _grey(memory, operation, frame, fresh, counters)
    else:
        _any(memory, operation, frame, fresh, counters)
