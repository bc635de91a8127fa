"""Scaling frames, as a Rescaling layer behind the input does: many positions with few channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.activate import A_LINEAR
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import WORD, Memory


@kernel
def only_rescales(memory: Memory, operation: np.ndarray) -> bool:
    """Whether an identity scales and shifts, and nothing else."""
    plain = operation[at.RULE] == at.R_NONE and operation[at.ACTIVATION] == A_LINEAR
    source, target = memory.tensors[memory.links[operation[at.INPUTS]]], memory.tensors[operation[at.OUTPUT]]
    same = source[at.WIDTH] == target[at.WIDTH] and source[at.CHANNELS] == target[at.CHANNELS]
    return plain and operation[at.SCALE] >= 0 and same


def _rescaler(fixed: int) -> Any:
    """For frames of so many channels, which makes short loops straight code; 0 for any."""

    @kernel
    def run(memory: Memory, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
        source = memory.tensors[memory.links[operation[at.INPUTS]]]
        target = memory.tensors[operation[at.OUTPUT]]
        width = target[at.WIDTH]
        channels = fixed if fixed else target[at.CHANNELS]
        positions = target[at.HEIGHT] * width
        from_mask, to_mask = source[at.MASK], target[at.MASK]
        scale, shift = operation[at.SCALE], operation[at.SHIFT]
        weights, arena, scratch, masks = memory.weights, memory.arena, memory.scratch, memory.masks
        rows = changed_rows = changed_elements = 0
        for begin in range(0, positions, WORD):
            if memory.mask_words[(from_mask + begin) // WORD] == 0:
                continue
            y = begin // width
            x = begin - y * width
            for position in range(begin, min(begin + WORD, positions)):
                if masks[from_mask + position]:
                    rows += 1
                    read = source[at.ORIGIN] + y * source[at.PITCH] + x * channels
                    write = target[at.ORIGIN] + y * target[at.PITCH] + x * channels
                    for c in range(channels):
                        scratch[c] = arena[read + c] * weights[scale + c] + weights[shift + c]
                    changed = 0
                    for c in range(channels):
                        changed += scratch[c] != arena[write + c]
                        arena[write + c] = scratch[c]
                    changed = channels if fresh else changed
                    if changed:
                        masks[to_mask + position] = 1
                        memory.counts[to_mask + position] = changed
                        changed_rows += 1
                        changed_elements += changed
                x += 1
                if x == width:
                    x, y = 0, y + 1
        memory.changed[operation[at.OUTPUT]] = changed_rows
        counters[at.ROWS] += rows
        counters[at.CHANGED_ROWS] += changed_rows
        counters[at.CHANGED_ELEMENTS] += changed_elements

    return run


_grey, _colour, _any = _rescaler(1), _rescaler(3), _rescaler(0)


@kernel
def rescale(memory: Memory, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """Scale and shift whatever changed."""
    start_output(memory, operation)
    channels = memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    if memory.changed[memory.links[operation[at.INPUTS]]] == 0:
        return
    if channels == 3:
        _colour(memory, operation, fresh, counters)
    elif channels == 1:
        _grey(memory, operation, fresh, counters)
    else:
        _any(memory, operation, fresh, counters)
