"""Taking in a frame: many positions with few channels, so what did not change is passed over many values at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.bit_sets import count_bits
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.neighbours import may_send, rescale_neighbours, send_neighbours
from deltafine.runtime.kernels.rules import ELEMENT, LOW_BITS, NONE, PIXEL, QUANTIZE
from deltafine.runtime.kernels.vectors import LANES

FEW_CHANNELS = (1, 3)
"""Of frames that are taken in by vectors."""


@kernel
def lines_are_apart(table: np.ndarray, operation: np.ndarray) -> bool:
    """Whether lines are written without touching what is beyond them, so that several threads may do so."""
    memory = unpack(table)
    width, channels = (
        memory.tensors[operation[at.OUTPUT], at.WIDTH], memory.tensors[operation[at.OUTPUT], at.CHANNELS]
    )  # fmt: skip
    return width % LANES == 0 or (channels != 1 and channels != 3)


def reads_beyond(width: int, channels: int) -> bool:
    """Whether the last vectors of a line, and so of a frame, are not full."""
    return (width * channels) % LANES != 0 or (channels in FEW_CHANNELS and width % LANES != 0)


def _reader(channels: int) -> Any:
    """For frames of 1 or 3 channels: as many neighbours at a time as fill whole vectors.

    All of it is one function: calling another for each of them would take longer than they do.
    """
    keep, quantize = send_neighbours(NONE, channels), send_neighbours(QUANTIZE, channels)
    by_position, by_element = send_neighbours(PIXEL, channels), send_neighbours(ELEMENT, channels)
    differing, quantized, moved = (may_send(rule, channels) for rule in (NONE, QUANTIZE, ELEMENT))
    rescale = rescale_neighbours(channels)

    @kernel
    def read(
        table: np.ndarray, operation: np.ndarray, frame: np.ndarray, first: int, last: int, fresh: bool, i: int
    ) -> None:  # fmt: skip
        memory = unpack(table)
        weights, limits, arena, masks, counts, tensors, sent_bytes, levels = (
            memory.weights, memory.thresholds, memory.arena, memory.masks, memory.counts, memory.tensors,
            memory.sent_bytes, memory.levels,
        )  # fmt: skip
        output, pixel = operation[at.OUTPUT], operation[at.PIXEL]
        rule = operation[at.RULE]
        if fresh and rule == at.R_SEND_ON_DELTA:
            rule = at.R_NONE
        width = tensors[output, at.WIDTH]
        origin, pitch, marks = tensors[output, at.ORIGIN], tensors[output, at.PITCH], tensors[output, at.MASK]
        scales, shifts, all_thresholds = operation[at.SCALE], operation[at.SHIFT], operation[at.THRESHOLD]
        threshold_pitch = width * channels if operation[at.THRESHOLD_BY_NEURON] else 0
        # A layer behind it that only rescales is done along with it.
        scaled, factor, summand = operation[at.RESCALED], operation[at.RESCALE], operation[at.RESHIFT]
        rows = elements = scaled_rows = scaled_elements = np.int64(0)
        for y in range(first, last):
            for x in range(0, width, LANES):
                column = x * channels
                flat, begin = y * width * channels + column, origin + y * pitch + column
                scale, shift, of_thresholds = scales + column, shifts + column, y * threshold_pitch + column
                thresholds = all_thresholds + of_thresholds
                count, mask = min(LANES, width - x), marks + y * width + x
                if rule == at.R_NONE:
                    some = differing(
                        frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent_bytes, levels,
                        of_thresholds,
                    )  # fmt: skip
                elif rule == at.R_QUANTIZE:
                    some = quantized(
                        frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent_bytes, levels,
                        of_thresholds,
                    )  # fmt: skip
                else:
                    some = moved(
                        frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent_bytes, levels,
                        of_thresholds,
                    )  # fmt: skip
                if not (some or fresh):
                    continue
                if rule == at.R_NONE:
                    sent = keep(
                        frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent_bytes, count, fresh,
                        masks, mask, counts,
                    )  # fmt: skip
                elif rule == at.R_QUANTIZE:
                    sent = quantize(
                        frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent_bytes, count, fresh,
                        masks, mask, counts,
                    )  # fmt: skip
                elif pixel:
                    sent = by_position(
                        frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent_bytes, count, fresh,
                        masks, mask, counts,
                    )  # fmt: skip
                else:
                    sent = by_element(
                        frame, flat, weights, scale, shift, limits, thresholds, arena, begin, sent_bytes, count, fresh,
                        masks, mask, counts,
                    )  # fmt: skip
                changed = sent & LOW_BITS
                rows += count_bits(changed)
                elements += sent >> 32
                if scaled >= 0 and changed:
                    to = tensors[scaled, at.ORIGIN] + y * tensors[scaled, at.PITCH] + column
                    mask = tensors[scaled, at.MASK] + y * width + x
                    sent = rescale(weights, factor, summand, arena, begin, to, changed, fresh, masks, mask, counts)
                    scaled_rows += count_bits(sent & LOW_BITS)
                    scaled_elements += sent >> 32
        _count(table, output, memory.counters[i], (last - first) * width, rows, elements)
        if scaled >= 0:
            _count(table, scaled, memory.counters[i + 1], rows, scaled_rows, scaled_elements)

    return read


@kernel
def _count(table: np.ndarray, index: int, counters: np.ndarray, looked_at: int, rows: int, elements: int) -> None:
    memory = unpack(table)
    memory.changed[index] += rows
    counters[at.ROWS] += looked_at
    counters[at.CHANGED_ROWS] += rows
    counters[at.CHANGED_ELEMENTS] += elements


_grey, _colour = _reader(1), _reader(3)


@kernel
def _any(
    table: np.ndarray, operation: np.ndarray, frame: np.ndarray, first: int, last: int, fresh: bool, i: int
) -> None:  # fmt: skip
    """For frames of any number of channels, position by position."""
    memory = unpack(table)
    weights, arena, tensors, rule = memory.weights, memory.arena, memory.tensors, operation[at.RULE]
    limits = memory.thresholds
    output = operation[at.OUTPUT]
    width, channels = tensors[output, at.WIDTH], tensors[output, at.CHANNELS]
    holds = rule == at.R_SEND_ON_DELTA and not fresh
    least = np.float32(channels)  # of a root mean square of 1
    rows = elements = np.int64(0)
    for position in range(first * width, last * width):
        y = position // width
        column, flat = (position - y * width) * channels, position * channels
        begin = tensors[output, at.ORIGIN] + y * tensors[output, at.PITCH] + column
        scale, shift = operation[at.SCALE] + column, operation[at.SHIFT] + column
        thresholds = operation[at.THRESHOLD] + (flat if operation[at.THRESHOLD_BY_NEURON] else column)
        if holds and operation[at.PIXEL]:
            total = np.float32(0)
            for c in range(channels):
                value = np.float32(frame[flat + c]) * weights[scale + c] + weights[shift + c]
                change = (value - arena[begin + c]) / limits[thresholds + c]
                total += change * change
            if total < least:
                continue
        changed = 0
        for c in range(channels):
            value = np.float32(frame[flat + c]) * weights[scale + c] + weights[shift + c]
            if rule == at.R_QUANTIZE:
                value = np.rint(value / limits[thresholds + c]) * limits[thresholds + c]
            elif holds and not operation[at.PIXEL] and abs(value - arena[begin + c]) < limits[thresholds + c]:
                value = arena[begin + c]
            changed += value != arena[begin + c]
            arena[begin + c] = value
        changed = channels if fresh else changed
        if changed:
            memory.masks[tensors[output, at.MASK] + position] = 1
            memory.counts[tensors[output, at.MASK] + position] = changed
            rows += 1
            elements += changed
    _count(table, output, memory.counters[i], (last - first) * width, rows, elements)


@kernel
def start_frame(table: np.ndarray, operation: np.ndarray) -> None:
    """Nothing of a frame, and of what is rescaled along with it, has changed yet."""
    start_output(table, operation[at.OUTPUT])
    if operation[at.RESCALED] >= 0:
        start_output(table, operation[at.RESCALED])


@kernel
def _read(
    table: np.ndarray, operation: np.ndarray, frame: np.ndarray, first: int, last: int, fresh: bool, i: int
) -> None:  # fmt: skip
    channels = unpack(table).tensors[operation[at.OUTPUT], at.CHANNELS]
    if channels == 3:
        _colour(table, operation, frame, first, last, fresh, i)
    elif channels == 1:
        _grey(table, operation, frame, first, last, fresh, i)
    else:
        _any(table, operation, frame, first, last, fresh, i)


@kernel
def read_lines(table: np.ndarray, operation: np.ndarray, first: int, last: int, fresh: bool, i: int) -> None:
    """Scale lines of a frame (flat, float32 or uint8), apply the rule of the input, keep and rescale what is sent.

    The operation's scale and shift, and thresholds but those of neurons, are stored repeated for a whole line. Whole
    vectors are read, see ``reads_beyond``.
    """
    memory = unpack(table)
    if len(memory.pixels):
        _read(table, operation, memory.pixels, first, last, fresh, i)
    else:
        _read(table, operation, memory.numbers, first, last, fresh, i)
