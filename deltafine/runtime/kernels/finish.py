"""The end of every operation: scale, shift, activation and event rule on rows, and what of it changed."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.activate import A_LINEAR, A_RELU, activate
from deltafine.runtime.kernels.memory import Memory
from deltafine.runtime.kernels.rules import ELEMENT, NONE, PIXEL, QUANTIZE, send_row

ZERO, INFINITE = np.float32(0), np.float32(np.inf)
_keep, _quantize, _send_elements, _send_position = map(send_row, (NONE, QUANTIZE, ELEMENT, PIXEL))


@kernel
def start_output(memory: Memory, index: int) -> None:
    """Nothing of a tensor has changed yet."""
    if memory.changed[index]:
        mask = memory.tensors[index, at.MASK]
        size = memory.tensors[index, at.HEIGHT] * memory.tensors[index, at.WIDTH]
        memory.masks[mask : mask + size] = 0
        memory.changed[index] = 0


@kernel
def finish_rows(
    memory: Memory, operation: np.ndarray, rows: int, pitch: int, first: int, fresh: bool, counters: np.ndarray
) -> None:
    """Finish ``rows`` rows of the scratch, which belong to the positions ``active[first:]``, and keep them.

    Row i stands at ``scratch[i * pitch:]`` and goes to ``arena[targets[first + i]:]``. Counts what changed; in a fresh
    state everything has.
    """
    output = operation[at.OUTPUT]
    channels, mask = memory.tensors[output, at.CHANNELS], memory.tensors[output, at.MASK]
    scratch, weights, arena = memory.scratch, memory.weights, memory.arena
    parameter = operation[at.PARAMETERS]
    slope, most, threshold = weights[parameter], weights[parameter + 1], weights[parameter + 2]
    code, shift = operation[at.ACTIVATION], operation[at.SHIFT]
    simple = operation[at.SCALE] < 0 and (
        code == A_LINEAR or (code == A_RELU and slope == 0 and threshold == 0)
    )  # fmt: skip
    least = ZERO if simple and code == A_RELU else -INFINITE
    if not simple:
        _scale_and_activate(memory, operation, rows, pitch)
        shift = operation[at.ZEROS]
    if not (simple and code == A_RELU):
        most = INFINITE
    rule, pixel = operation[at.RULE], operation[at.PIXEL]
    first_step, step_pitch = operation[at.STEP], channels if operation[at.STEP_BY_NEURON] else 0
    changed_rows = 0
    changed_elements = 0
    for i in range(rows):
        position, begin = memory.active[first + i], memory.targets[first + i]
        place, steps = i * pitch, first_step + position * step_pitch
        if rule == at.R_QUANTIZE:
            changed = _quantize(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        elif rule == at.R_NONE or fresh:
            changed = _keep(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        elif pixel:
            changed = _send_position(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        else:
            changed = _send_elements(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        if fresh:
            changed = channels
        if changed:
            memory.masks[mask + position] = 1
            memory.counts[mask + position] = changed
            changed_rows += 1
            changed_elements += changed
    memory.changed[output] += changed_rows
    counters[at.ROWS] += rows
    counters[at.CHANGED_ROWS] += changed_rows
    counters[at.CHANGED_ELEMENTS] += changed_elements


@kernel
def _scale_and_activate(memory: Memory, operation: np.ndarray, rows: int, pitch: int) -> None:
    """Scale, shift and activation of rows of the scratch, in place."""
    weights, scratch = memory.weights, memory.scratch
    channels = memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    scale, shift = operation[at.SCALE], operation[at.SHIFT]
    for i in range(rows):
        place = i * pitch
        if scale >= 0:
            for c in range(channels):
                scratch[place + c] *= weights[scale + c]
        for c in range(channels):
            scratch[place + c] += weights[shift + c]
    if operation[at.ACTIVATION] != A_LINEAR:
        parameters = weights[operation[at.PARAMETERS] : operation[at.PARAMETERS] + 3]
        for i in range(rows):
            activate(scratch[i * pitch : i * pitch + channels], operation[at.ACTIVATION], parameters)
