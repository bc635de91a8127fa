"""The end of every operation: scale, shift, activation and event rule on rows, and what of it changed."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.activate import A_LINEAR, A_RELU, activate
from deltafine.runtime.kernels.memory import Memory
from deltafine.runtime.kernels.rules import ELEMENT, NONE, QUANTIZE, keep_row, squared_change

ZERO, INFINITE = np.float32(0), np.float32(np.inf)
_keep, _quantize, _send_elements = keep_row(NONE), keep_row(QUANTIZE), keep_row(ELEMENT)


@kernel
def start_output(memory: Memory, operation: np.ndarray) -> None:
    """Nothing of the output has changed yet."""
    index = operation[at.OUTPUT]
    if memory.changed[index]:
        tensor = memory.tensors[index]
        mask = tensor[at.MASK]
        memory.masks[mask : mask + tensor[at.HEIGHT] * tensor[at.WIDTH]] = 0
        memory.changed[index] = 0


@kernel
def finish_rows(
    memory: Memory, operation: np.ndarray, rows: int, pitch: int, first: int, fresh: bool, counters: np.ndarray
) -> None:
    """Finish ``rows`` rows of the scratch, which belong to the positions ``active[first:]``, and keep them.

    Shapes: row i stands at ``scratch[i * pitch:]``. Counts what changed; in a fresh state everything has.
    """
    tensor = memory.tensors[operation[at.OUTPUT]]
    width, channels, origin, line = tensor[at.WIDTH], tensor[at.CHANNELS], tensor[at.ORIGIN], tensor[at.PITCH]
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
    step_pitch = channels if operation[at.STEP_BY_NEURON] else 0
    changed_rows = 0
    changed_elements = 0
    for i in range(rows):
        position = memory.active[first + i]
        y = position // width
        begin = origin + y * line + (position - y * width) * channels
        place, steps = i * pitch, operation[at.STEP] + position * step_pitch
        if rule == at.R_QUANTIZE:
            changed = _quantize(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        elif rule == at.R_NONE or fresh:
            changed = _keep(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        elif pixel:
            total = squared_change(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
            if total < np.float32(channels):  # a root mean square below 1
                continue
            changed = _keep(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        else:
            changed = _send_elements(scratch, place, weights, shift, least, most, steps, arena, begin, channels)
        if fresh:
            changed = channels
        if changed:
            at_mask = tensor[at.MASK] + position
            memory.masks[at_mask] = 1
            memory.counts[at_mask] = changed
            changed_rows += 1
            changed_elements += changed
    memory.changed[operation[at.OUTPUT]] += changed_rows
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
