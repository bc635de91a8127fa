"""Taking in a frame: many positions with few channels, so whole lines are compared at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import Memory
from deltafine.runtime.kernels.rules import ELEMENT, NONE, PIXEL, QUANTIZE, values_to_send

BLOCK = 32
"""Positions that are looked at together; most blocks of a quiet video have nothing to send."""

ZERO = np.float32(0)

_differing, _quantized = values_to_send(NONE), values_to_send(QUANTIZE)
_moved, _moved_elements = values_to_send(PIXEL), values_to_send(ELEMENT)


def _sender(fixed: int) -> Any:
    """For frames of so many channels, which makes short loops straight code; 0 for any."""

    @kernel
    def send(
        memory: Memory, operation: np.ndarray, begin: int, steps: int, first: int, size: int, by_position: bool,
        fresh: bool, counters: np.ndarray,
    ) -> None:  # fmt: skip
        """Keep what is sent of the values in the scratch, which belong to positions from ``first`` on."""
        weights, arena, scratch = memory.weights, memory.arena, memory.scratch
        channels = fixed if fixed else memory.tensors[operation[at.OUTPUT], at.CHANNELS]
        mask = memory.tensors[operation[at.OUTPUT], at.MASK] + first
        changed_positions = 0
        for i in range(size // channels):
            if by_position:
                moved = False  # most have not: dividing would take longer than to look
                for c in range(i * channels, (i + 1) * channels):
                    moved |= not (abs(scratch[c] - arena[begin + c]) < weights[steps + c])
                if not moved:
                    continue
                total = ZERO
                for c in range(i * channels, (i + 1) * channels):
                    change = (scratch[c] - arena[begin + c]) / weights[steps + c]
                    total += change * change
                if total < np.float32(channels):  # a root mean square below 1
                    continue
            changed = 0
            for c in range(i * channels, (i + 1) * channels):
                changed += scratch[c] != arena[begin + c]
                arena[begin + c] = scratch[c]
            changed = channels if fresh else changed
            if changed:
                memory.masks[mask + i] = 1
                memory.counts[mask + i] = changed
                changed_positions += 1
                counters[at.CHANGED_ELEMENTS] += changed
        memory.changed[operation[at.OUTPUT]] += changed_positions
        counters[at.CHANGED_ROWS] += changed_positions

    return send


_send_grey, _send_colour, _send_any = _sender(1), _sender(3), _sender(0)


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
    weights, arena, scratch = memory.weights, memory.arena, memory.scratch
    by_position = rule == at.R_SEND_ON_DELTA and operation[at.PIXEL] and not fresh
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
            if some or fresh:
                first = y * width + x
                if channels == 3:
                    _send_colour(memory, operation, begin, steps, first, size, by_position, fresh, counters)
                elif channels == 1:
                    _send_grey(memory, operation, begin, steps, first, size, by_position, fresh, counters)
                else:
                    _send_any(memory, operation, begin, steps, first, size, by_position, fresh, counters)
    counters[at.ROWS] += tensor[at.HEIGHT] * width
