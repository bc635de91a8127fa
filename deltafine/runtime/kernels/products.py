"""Convolutions: which outputs a change reaches, and their sums of products."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels import layout as at
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.memory import WORD, Memory
from deltafine.runtime.kernels.tiles import ROWS as TILE_ROWS
from deltafine.runtime.kernels.tiles import VECTORS as TILE_VECTORS
from deltafine.runtime.kernels.tiles import channel_tile, long_channel_tile, row_tile
from deltafine.runtime.kernels.vectors import LANES

SCRATCH_VALUES = 98_304
"""Rows are computed in pieces of about so many values, to stay in the cache until they are finished."""

FEWEST_ROWS, MOST_ROWS = 240, 480


def _rows_function(vectors: int) -> Any:
    """``rows`` rows by one panel of weights, in tiles as large as they can be."""
    most = TILE_ROWS[vectors]
    whole = row_tile(most, vectors)
    half, quarter, single = row_tile(max(most // 2, 1), vectors), row_tile(2, vectors), row_tile(1, vectors)
    middle = most // 2

    @kernel
    def compute(
        memory: Memory, base: int, first: int, rows: int, runs: int, run_count: int, run_length: int, weight: int,
        place: int, pitch: int,
    ) -> None:  # fmt: skip
        i = 0
        while rows - i >= most:
            whole(
                memory.arena, base, memory.offsets, first + i, memory.links, runs, run_count, run_length,
                memory.weights, weight, memory.scratch, place + i * pitch, pitch,
            )  # fmt: skip
            i += most
        while rows - i >= middle:
            half(
                memory.arena, base, memory.offsets, first + i, memory.links, runs, run_count, run_length,
                memory.weights, weight, memory.scratch, place + i * pitch, pitch,
            )  # fmt: skip
            i += middle
        while rows - i >= 2:
            quarter(
                memory.arena, base, memory.offsets, first + i, memory.links, runs, run_count, run_length,
                memory.weights, weight, memory.scratch, place + i * pitch, pitch,
            )  # fmt: skip
            i += 2
        if rows > i:
            single(
                memory.arena, base, memory.offsets, first + i, memory.links, runs, run_count, run_length,
                memory.weights, weight, memory.scratch, place + i * pitch, pitch,
            )  # fmt: skip

    return compute


_four = _rows_function(TILE_VECTORS[0])
_two = _rows_function(TILE_VECTORS[-2])
_one = _rows_function(TILE_VECTORS[-1])
FOUR, TWO = TILE_VECTORS[0], TILE_VECTORS[-2]
NINE = 9
"""Taps of the usual 3x3 kernel."""

_nine_taps, _any_taps = channel_tile(NINE), long_channel_tile()


@kernel
def piece_size(count: int, pitch: int) -> int:
    """Rows to compute at a time: equal pieces, small enough for the scratch."""
    most = min(max(SCRATCH_VALUES // pitch, FEWEST_ROWS), MOST_ROWS)
    pieces = max((count + most - 1) // most, 1)
    return (count + pieces - 1) // pieces


@kernel
def reach_of(memory: Memory, operation: np.ndarray, everything: bool) -> int:
    """Fill ``active`` and ``offsets`` with the outputs of a window that a change reaches; returns how many.

    An offset is where the window begins, relative to the input's first value; it may lie in the zeros around it.
    """
    source, target = memory.tensors[memory.links[operation[at.INPUTS]]], memory.tensors[operation[at.OUTPUT]]
    height, width, channels, line = source[at.HEIGHT], source[at.WIDTH], source[at.CHANNELS], source[at.PITCH]
    stride_h, stride_w = operation[at.STRIDE_H], operation[at.STRIDE_W]
    top, left = operation[at.TOP], operation[at.LEFT]
    kernel_h, kernel_w = operation[at.KERNEL_H], operation[at.KERNEL_W]
    dilation_h, dilation_w = operation[at.DILATION_H], operation[at.DILATION_W]
    mask = source[at.MASK]
    columns = target[at.WIDTH]
    starts = (columns - 1) * stride_w + 1  # where windows may begin, strides apart
    reach = memory.reach[: max(starts + (kernel_w - 1) * dilation_w, left + width)]
    inside, hits = reach[left : left + width], memory.hits[: (starts + WORD - 1) // WORD * WORD]
    masks, active, offsets = memory.masks, memory.active, memory.offsets
    count = 0
    if kernel_h * kernel_w * stride_h * stride_w == 1 and top == 0 and left == 0 and not everything:
        for begin in range(0, height * width, WORD):
            word = memory.mask_words[(mask + begin) // WORD]
            if word == 0:
                continue
            for position in range(begin, min(begin + WORD, height * width)):
                y = position // width
                active[count] = position
                offsets[count] = y * line + (position - y * width) * channels
                count += masks[mask + position]
        return count
    for y in range(target[at.HEIGHT]):
        start = (y * stride_h - top) * line - left * channels
        if everything:
            for x in range(columns):
                active[count] = y * columns + x
                offsets[count] = start + x * stride_w * channels
                count += 1
            continue
        some = False
        for tap in range(kernel_h):
            from_y = y * stride_h - top + tap * dilation_h
            if from_y >= 0 and from_y < height:
                begin = mask + from_y * width
                word = np.uint64(0)  # neighbouring lines may share it: a line too many does no harm
                for i in range(begin // WORD, (begin + width + WORD - 1) // WORD):
                    word |= memory.mask_words[i]
                if word:
                    if not some:
                        reach[:] = 0
                        some = True
                    source_line = masks[begin : begin + width]
                    for x in range(width):
                        inside[x] |= source_line[x]
        if not some:
            continue
        hits[:] = 0
        for tap in range(kernel_w):
            shifted = reach[tap * dilation_w : tap * dilation_w + starts]
            for x in range(starts):
                hits[x] |= shifted[x]
        for begin in range(0, starts, WORD):
            if memory.hit_words[begin // WORD]:
                first = (begin + stride_w - 1) // stride_w
                for x in range(first, min((begin + WORD + stride_w - 1) // stride_w, columns)):
                    active[count] = y * columns + x
                    offsets[count] = start + x * stride_w * channels
                    count += hits[x * stride_w]
    return count


@kernel
def multiply_rows(memory: Memory, operation: np.ndarray, first: int, rows: int, pitch: int) -> None:
    """Sums of products of the outputs ``active[first:]`` into the scratch."""
    source, target = memory.tensors[memory.links[operation[at.INPUTS]]], memory.tensors[operation[at.OUTPUT]]
    groups, length = operation[at.GROUPS], operation[at.ROW_LENGTH]
    outputs = target[at.CHANNELS] // groups
    vectors = operation[at.VECTORS]
    panel = vectors * LANES
    panels = (outputs + panel - 1) // panel
    runs, run_count, run_length = operation[at.RUNS], operation[at.RUN_COUNT], operation[at.RUN_LENGTH]
    weight = operation[at.WEIGHTS]
    for group in range(groups):
        base = source[at.ORIGIN] + group * (source[at.CHANNELS] // groups)
        for number in range(panels):
            place = group * outputs + number * panel
            if vectors == FOUR:
                _four(memory, base, first, rows, runs, run_count, run_length, weight, place, pitch)
            elif vectors == TWO:
                _two(memory, base, first, rows, runs, run_count, run_length, weight, place, pitch)
            else:
                _one(memory, base, first, rows, runs, run_count, run_length, weight, place, pitch)
            weight += length * panel


@kernel
def scale_channels(memory: Memory, operation: np.ndarray, first: int, rows: int, pitch: int) -> None:
    """Depthwise sums of the outputs ``active[first:]`` into the scratch."""
    source = memory.tensors[memory.links[operation[at.INPUTS]]]
    channels, multiplier, base = source[at.CHANNELS], operation[at.MULTIPLIER], source[at.ORIGIN]
    taps, tap_count = operation[at.RUNS], operation[at.RUN_COUNT]
    padded = operation[at.ROW_LENGTH]
    if multiplier == 1 and tap_count == NINE:
        for channel in range(0, channels, LANES):
            _nine_taps(
                memory.arena, base + channel, memory.offsets, first, rows, memory.links, taps,
                memory.weights, operation[at.WEIGHTS] + channel, padded, memory.scratch, channel, pitch,
            )  # fmt: skip
    elif multiplier == 1:
        for i in range(rows):
            start = base + memory.offsets[first + i]
            for channel in range(0, channels, LANES):
                _any_taps(
                    memory.arena, start + channel, memory.links, taps, tap_count, memory.weights,
                    operation[at.WEIGHTS] + channel, padded, memory.scratch, i * pitch + channel,
                )  # fmt: skip
    else:
        for i in range(rows):
            start, place = base + memory.offsets[first + i], i * pitch
            memory.scratch[place : place + channels * multiplier] = 0
            for tap in range(tap_count):
                here = start + memory.links[taps + tap]
                weight = operation[at.WEIGHTS] + tap * padded
                for channel in range(channels):
                    x = memory.arena[here + channel]
                    for copy in range(multiplier):
                        index = channel * multiplier + copy
                        memory.scratch[place + index] += x * memory.weights[weight + index]


@kernel
def convolve(
    memory: Memory, operation: np.ndarray, depthwise: bool, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """A convolution or depthwise convolution of the outputs that changes reach, each computed anew."""
    start_output(memory, operation)
    source = memory.links[operation[at.INPUTS]]
    tensor = memory.tensors[source]
    changed = memory.changed[source]
    if changed == 0 and not fresh:
        return
    everything = fresh or changed == tensor[at.HEIGHT] * tensor[at.WIDTH]
    count = reach_of(memory, operation, everything)
    pitch = memory.tensors[operation[at.OUTPUT]][at.CHANNELS] + 4 * LANES
    size = piece_size(count, pitch)
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(size, count - first)
        if depthwise:
            scale_channels(memory, operation, first, rows, pitch)
        else:
            multiply_rows(memory, operation, first, rows, pitch)
        finish_rows(memory, operation, rows, pitch, first, fresh, counters)
        first += rows
