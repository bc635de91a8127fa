"""The end of every operation: scale, shift, activation and event rule on rows, and what of it changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.activate import A_LINEAR, A_RELU, activate
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.rules import (
    ANY,
    ELEMENT,
    FOUR,
    HALF,
    LOW_BITS,
    NONE,
    ONE,
    PIXEL,
    QUANTIZE,
    TWO,
    WHOLE,
    send_rows,
)
from deltafine.runtime.kernels.vectors import LANES

ZERO, INFINITE = np.float32(0), np.float32(np.inf)


def _sender(size: str) -> Any:
    """Send rows of a size, by any rule; see ``send_rows``."""
    keep, quantize, by_element, by_position = (send_rows(rule, size) for rule in (NONE, QUANTIZE, ELEMENT, PIXEL))

    @kernel
    def send(
        table: np.ndarray, operation: np.ndarray, shift: int, least: np.float32, most: np.float32, rows: int,
        pitch: int, first: int, fresh: bool,
    ) -> int:  # fmt: skip
        memory = unpack(table)
        values, weights, limits, arena, masks, counts = (
            memory.scratch, memory.weights, memory.thresholds, memory.arena, memory.masks, memory.counts
        )  # fmt: skip
        active, targets, output = memory.active, memory.targets, operation[at.OUTPUT]
        channels, mask = memory.tensors[output, at.CHANNELS], memory.tensors[output, at.MASK]
        thresholds, threshold_pitch = operation[at.THRESHOLD], channels if operation[at.THRESHOLD_BY_NEURON] else 0
        rule = operation[at.RULE]
        if rule == at.R_QUANTIZE:
            return quantize(
                values, pitch, rows, weights, shift, least, most, limits, thresholds, threshold_pitch, arena, targets,
                active, first, channels, fresh, masks, mask, counts,
            )  # fmt: skip
        if rule == at.R_NONE or fresh:
            return keep(
                values, pitch, rows, weights, shift, least, most, limits, thresholds, threshold_pitch, arena, targets,
                active, first, channels, fresh, masks, mask, counts,
            )  # fmt: skip
        if operation[at.PIXEL]:
            return by_position(
                values, pitch, rows, weights, shift, least, most, limits, thresholds, threshold_pitch, arena, targets,
                active, first, channels, fresh, masks, mask, counts,
            )  # fmt: skip
        return by_element(
            values, pitch, rows, weights, shift, least, most, limits, thresholds, threshold_pitch, arena, targets,
            active, first, channels, fresh, masks, mask, counts,
        )  # fmt: skip

    return send


_half, _one, _two, _four, _whole, _any = map(_sender, (HALF, ONE, TWO, FOUR, WHOLE, ANY))


@kernel
def start_output(table: np.ndarray, index: int) -> None:
    """Nothing of a tensor has changed yet."""
    memory = unpack(table)
    if memory.changed[index]:
        mask = memory.tensors[index, at.MASK]
        size = memory.tensors[index, at.HEIGHT] * memory.tensors[index, at.WIDTH]
        memory.masks[mask : mask + size] = 0
        memory.changed[index] = 0


@kernel
def finish_rows(
    table: np.ndarray, operation: np.ndarray, rows: int, pitch: int, first: int, fresh: bool, counters: np.ndarray
) -> None:
    """Finish ``rows`` rows of the scratch, which belong to the positions ``active[first:]``, and keep them.

    Row i stands at ``scratch[i * pitch:]`` and goes to ``arena[targets[first + i]:]``. Counts what changed; in a
    fresh state everything has.
    """
    memory = unpack(table)
    channels, weights = memory.tensors[operation[at.OUTPUT], at.CHANNELS], memory.weights
    parameter = operation[at.PARAMETERS]
    slope, most, threshold = weights[parameter], weights[parameter + 1], weights[parameter + 2]
    code, shift = operation[at.ACTIVATION], operation[at.SHIFT]
    simple = operation[at.SCALE] < 0 and (
        code == A_LINEAR or (code == A_RELU and slope == 0 and threshold == 0)
    )  # fmt: skip
    least = ZERO if simple and code == A_RELU else -INFINITE
    if not simple:
        _scale_and_activate(table, operation, rows, pitch)
        shift = operation[at.ZEROS]
    if not (simple and code == A_RELU):
        most = INFINITE
    if channels <= LANES // 2:
        sent = _half(table, operation, shift, least, most, rows, pitch, first, fresh)
    elif channels == LANES:
        sent = _one(table, operation, shift, least, most, rows, pitch, first, fresh)
    elif channels == 2 * LANES:
        sent = _two(table, operation, shift, least, most, rows, pitch, first, fresh)
    elif channels == 4 * LANES:
        sent = _four(table, operation, shift, least, most, rows, pitch, first, fresh)
    elif channels % LANES == 0:
        sent = _whole(table, operation, shift, least, most, rows, pitch, first, fresh)
    else:
        sent = _any(table, operation, shift, least, most, rows, pitch, first, fresh)
    changed_rows, changed_elements = sent & LOW_BITS, sent >> 32
    memory.changed[operation[at.OUTPUT]] += changed_rows
    counters[at.ROWS] += rows
    counters[at.CHANGED_ROWS] += changed_rows
    counters[at.CHANGED_ELEMENTS] += changed_elements


@kernel
def _scale_and_activate(table: np.ndarray, operation: np.ndarray, rows: int, pitch: int) -> None:
    """Scale, shift and activation of rows of the scratch, in place."""
    memory = unpack(table)
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
