"""The end of every operation: scale, shift, activation and event rule on rows, and what of it changed."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import kernel, reassociating_kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.activate import A_LINEAR, A_RELU, activate
from deltafine.runtime.kernels.memory import Memory

ONE = np.float32(1)


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
    weights, arena = memory.weights, memory.arena
    shift = weights[max(operation[at.SHIFT], 0) : max(operation[at.SHIFT], 0) + channels]
    parameters = weights[operation[at.PARAMETERS] : operation[at.PARAMETERS] + 3]
    code, rule = operation[at.ACTIVATION], operation[at.RULE]
    slope, most, threshold = parameters[0], parameters[1], parameters[2]
    quick = (
        rule == at.R_NONE
        and operation[at.SCALE] < 0
        and operation[at.SHIFT] >= 0
        and (code == A_LINEAR or (code == A_RELU and slope == 0 and threshold == 0))
    )
    least = np.float32(0.0) if code == A_RELU else np.float32(-np.inf)
    changed_rows = 0
    changed_elements = 0
    for i in range(rows):
        position = memory.active[first + i]
        y = position // width
        begin = origin + y * line + (position - y * width) * channels
        row = memory.scratch[i * pitch : i * pitch + channels]
        kept = arena[begin : begin + channels]
        if quick:
            changed = _keep_quickly(row, shift, least, most if code == A_RELU else np.float32(np.inf), kept)
        else:
            if operation[at.SCALE] >= 0:
                scale = weights[operation[at.SCALE] : operation[at.SCALE] + channels]
                for c in range(channels):
                    row[c] *= scale[c]
            if operation[at.SHIFT] >= 0:
                for c in range(channels):
                    row[c] += shift[c]
            activate(row, code, parameters)
            changed = _keep(row, kept) if rule == at.R_NONE else _send(memory, operation, row, kept, position, fresh)
        if fresh:
            changed = channels
        if changed:
            place = tensor[at.MASK] + position
            memory.masks[place] = 1
            memory.counts[place] = changed
            changed_rows += 1
            changed_elements += changed
    memory.changed[operation[at.OUTPUT]] += changed_rows
    counters[0] += rows
    counters[1] += changed_rows
    counters[2] += changed_elements


@kernel
def _keep_quickly(
    row: np.ndarray, shift: np.ndarray, least: np.float32, most: np.float32, kept: np.ndarray
) -> int:  # fmt: skip
    changed = 0
    for c in range(len(row)):
        x = row[c] + shift[c]
        x = least if x < least else x
        x = most if x > most else x
        changed += x != kept[c]
        kept[c] = x
    return changed


@kernel
def _keep(row: np.ndarray, kept: np.ndarray) -> int:
    changed = 0
    for c in range(len(row)):
        changed += row[c] != kept[c]
        kept[c] = row[c]
    return changed


@kernel
def _send(
    memory: Memory, operation: np.ndarray, row: np.ndarray, kept: np.ndarray, position: int, fresh: bool
) -> int:  # fmt: skip
    """Apply the event rule of a delta layer; ``EventRule.advance`` is its definition."""
    channels, scope = len(row), operation[at.STEP_SCOPE]
    begin = operation[at.STEP] + (position * channels if scope == at.BY_NEURON else 0)
    steps = memory.weights[begin : begin + (1 if scope == at.BY_LAYER else channels)]
    single = steps[0]
    if operation[at.RULE] == at.R_QUANTIZE:
        for c in range(channels):
            step = single if scope == at.BY_LAYER else steps[c]
            row[c] = np.rint(row[c] / step) * step
    elif fresh:
        pass
    elif operation[at.PIXEL]:
        if np.sqrt(_mean_square(row, kept, steps)) < ONE:
            return 0
    else:
        for c in range(channels):
            step = single if scope == at.BY_LAYER else steps[c]
            row[c] = kept[c] if abs(row[c] - kept[c]) < step else row[c]
    return _keep(row, kept)


@reassociating_kernel
def _mean_square(row: np.ndarray, kept: np.ndarray, steps: np.ndarray) -> np.float32:
    """Mean square over the channels of the change in steps; free to add up in any order."""
    total = np.float32(0)
    if len(steps) == 1:
        step = steps[0]
        for c in range(len(row)):
            change = (row[c] - kept[c]) / step
            total += change * change
    else:
        for c in range(len(row)):
            change = (row[c] - kept[c]) / steps[c]
            total += change * change
    return total / np.float32(len(row))
