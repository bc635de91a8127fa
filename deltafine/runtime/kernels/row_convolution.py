"""Convolutions: which outputs a change reaches, and their sums of products."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.bit_sets import BITS, EVEN, LOG2_BITS, bits_from, bits_of, lowest_bit
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.panels import FOUR, TWO, four_vectors, one_vector, two_vectors
from deltafine.runtime.kernels.tiles import channel_tile, long_channel_tile
from deltafine.runtime.kernels.vectors import LANES

SCRATCH_VALUES = 98_304
"""Rows are computed in pieces of about so many values, to stay in the cache until they are finished."""

FEWEST_ROWS, MOST_ROWS = 240, 480


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
def reach_of(table: np.ndarray, operation: np.ndarray, everything: bool) -> int:
    """Fill ``active``, ``offsets`` and ``targets`` with the outputs of a sliding kernel that a change reaches.

    A change of what is added to them reaches them, too; the kernel then moves in steps of 1. Returns how many. An
    offset is where the kernel begins, relative to the input's first value; it may lie in the zeros around it.
    """
    memory = unpack(table)
    tensors, masks, line = memory.tensors, memory.masks, memory.line
    active, offsets, targets = memory.active, memory.offsets, memory.targets
    source, target = memory.links[operation[at.INPUTS]], operation[at.OUTPUT]
    height, width, channels = tensors[source, at.HEIGHT], tensors[source, at.WIDTH], tensors[source, at.CHANNELS]
    pitch, mask = tensors[source, at.PITCH], tensors[source, at.MASK]
    columns, outputs = tensors[target, at.WIDTH], tensors[target, at.CHANNELS]
    stride_h, stride_w = operation[at.STRIDE_H], operation[at.STRIDE_W]
    top, left = operation[at.TOP], operation[at.LEFT]
    kernel_h, kernel_w = operation[at.KERNEL_H], operation[at.KERNEL_W]
    dilation_h, dilation_w = operation[at.DILATION_H], operation[at.DILATION_W]
    words = (width + BITS - 1) // BITS
    starts = (columns - 1) * stride_w + 1  # where kernels may begin, strides apart
    ahead = left // BITS + 1  # words of nothing before the line
    summand = operation[at.SUMMAND]
    added = tensors[max(summand, 0), at.MASK]
    count = 0
    for y in range(tensors[target, at.HEIGHT]):
        start = (y * stride_h - top) * pitch - left * channels
        place = tensors[target, at.ORIGIN] + y * tensors[target, at.PITCH]
        if everything:
            for x in range(columns):
                active[count] = y * columns + x
                offsets[count] = start + x * stride_w * channels
                targets[count] = place + x * outputs
                count += 1
            continue
        some = 0
        for word in range(words):
            size = min(BITS, width - word * BITS)
            changed = 0
            for tap in range(kernel_h):
                from_y = y * stride_h - top + tap * dilation_h
                if from_y >= 0 and from_y < height:
                    changed |= bits_of(masks, mask + from_y * width + word * BITS, size)
            line[ahead + word] = changed
            some |= changed
        if summand >= 0:
            for begin in range(0, columns, BITS):
                some |= bits_of(masks, added + y * columns + begin, min(BITS, columns - begin))
        if some == 0:
            continue
        for begin in range(0, starts, BITS):
            hits = 0
            for tap in range(kernel_w):
                first = begin + tap * dilation_w - left + ahead * BITS
                word = first >> LOG2_BITS
                hits |= bits_from(line[word], line[word + 1], first & (BITS - 1))
            if summand >= 0:
                hits |= bits_of(masks, added + y * columns + begin, min(BITS, columns - begin))
            if starts - begin < BITS:
                hits &= (1 << (starts - begin)) - 1
            if stride_w == 2:
                hits &= EVEN
            while hits:
                x = begin + lowest_bit(hits)
                hits &= hits - 1
                column = x
                if stride_w == 2:
                    column = x >> 1
                elif stride_w > 2:
                    column = x // stride_w
                    if x != column * stride_w:
                        continue
                active[count] = y * columns + column
                offsets[count] = start + x * channels
                targets[count] = place + column * outputs
                count += 1
        for word in range(words):
            line[ahead + word] = 0
    return count


@kernel
def panels_of(table: np.ndarray, operation: np.ndarray) -> int:
    """Panels of the weights of a group."""
    outputs = unpack(table).tensors[operation[at.OUTPUT], at.CHANNELS] // operation[at.GROUPS]
    panel = operation[at.VECTORS] * LANES
    return (outputs + panel - 1) // panel


@kernel
def multiply_rows(
    table: np.ndarray, operation: np.ndarray, first: int, rows: int, pitch: int, first_panel: int, last_panel: int
) -> None:  # fmt: skip
    """Sums of products of the outputs ``active[first:]`` into the scratch: of each group, some panels of weights."""
    memory = unpack(table)
    source = memory.links[operation[at.INPUTS]]
    groups, length = operation[at.GROUPS], operation[at.ROW_LENGTH]
    inputs = memory.tensors[source, at.CHANNELS] // groups
    outputs = memory.tensors[operation[at.OUTPUT], at.CHANNELS] // groups
    vectors = operation[at.VECTORS]
    panel = vectors * LANES
    panels = (outputs + panel - 1) // panel
    runs, run_count, run_length = operation[at.RUNS], operation[at.RUN_COUNT], operation[at.RUN_LENGTH]
    arena, offsets, links, weights = memory.arena, memory.offsets, memory.links, memory.weights
    scratch = memory.scratch
    for group in range(groups):
        base = memory.tensors[source, at.ORIGIN] + group * inputs
        weight = operation[at.WEIGHTS] + (group * panels + first_panel) * length * panel
        for number in range(first_panel, last_panel):
            place = group * outputs + number * panel
            if vectors == FOUR:
                four_vectors(
                    arena, base, offsets, first, rows, links, runs, run_count, run_length, weights, weight, scratch,
                    place, pitch,
                )  # fmt: skip
            elif vectors == TWO:
                two_vectors(
                    arena, base, offsets, first, rows, links, runs, run_count, run_length, weights, weight, scratch,
                    place, pitch,
                )  # fmt: skip
            else:
                one_vector(
                    arena, base, offsets, first, rows, links, runs, run_count, run_length, weights, weight, scratch,
                    place, pitch,
                )  # fmt: skip
            weight += length * panel


@kernel
def scale_channels(table: np.ndarray, operation: np.ndarray, first: int, rows: int, pitch: int) -> None:
    """Depthwise sums of the outputs ``active[first:]`` into the scratch."""
    memory = unpack(table)
    source, multiplier = memory.links[operation[at.INPUTS]], operation[at.MULTIPLIER]
    channels, base = memory.tensors[source, at.CHANNELS], memory.tensors[source, at.ORIGIN]
    taps, tap_count = operation[at.RUNS], operation[at.RUN_COUNT]
    weight, padded = operation[at.WEIGHTS], operation[at.ROW_LENGTH]
    arena, offsets, links, weights, scratch = (
        memory.arena, memory.offsets, memory.links, memory.weights, memory.scratch
    )  # fmt: skip
    if multiplier == 1 and tap_count == NINE:
        for channel in range(0, channels, LANES):
            _nine_taps(
                arena, base + channel, offsets, first, rows, links, taps, weights, weight + channel, padded, scratch,
                channel, pitch,
            )  # fmt: skip
    elif multiplier == 1:
        for i in range(rows):
            start = base + offsets[first + i]
            for channel in range(0, channels, LANES):
                _any_taps(
                    arena, start + channel, links, taps, tap_count, weights, weight + channel, padded, scratch,
                    i * pitch + channel,
                )  # fmt: skip
    else:
        for i in range(rows):
            start, place = base + offsets[first + i], i * pitch
            scratch[place : place + channels * multiplier] = 0
            for tap in range(tap_count):
                here = start + links[taps + tap]
                factors = weight + tap * padded
                for channel in range(channels):
                    x = arena[here + channel]
                    for copy in range(multiplier):
                        index = channel * multiplier + copy
                        scratch[place + index] += x * weights[factors + index]


@kernel
def reached_rows(table: np.ndarray, operation: np.ndarray, fresh: bool) -> int:
    """``reach_of`` a convolution, whose output is begun; 0 where nothing changed."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    source = memory.links[operation[at.INPUTS]]
    changed, summand = memory.changed[source], operation[at.SUMMAND]
    size = memory.tensors[source, at.HEIGHT] * memory.tensors[source, at.WIDTH]
    everything, some = fresh or changed == size, fresh or changed > 0
    if summand >= 0:
        size = memory.tensors[summand, at.HEIGHT] * memory.tensors[summand, at.WIDTH]
        everything |= memory.changed[summand] == size
        some |= memory.changed[summand] > 0
    return reach_of(table, operation, everything) if some else 0


@kernel
def finish_sums(
    table: np.ndarray, operation: np.ndarray, rows: int, pitch: int, first: int, fresh: bool, counters: np.ndarray
) -> None:  # fmt: skip
    """Finish ``rows`` rows of sums of products, see ``finish_rows``; first add to them what is to be added."""
    if operation[at.SUMMAND] >= 0:
        unpack(table).counters[operation[at.OWN_PLACE], at.ROWS] += rows
        _add_summand(table, operation, rows, pitch, first)
    finish_rows(table, operation, rows, pitch, first, fresh, counters)


@kernel
def _add_summand(table: np.ndarray, operation: np.ndarray, rows: int, pitch: int, first: int) -> None:
    memory = unpack(table)
    tensor = memory.tensors[operation[at.SUMMAND]]
    width, channels, shift = tensor[at.WIDTH], tensor[at.CHANNELS], operation[at.OWN_SHIFT]
    own = memory.weights[shift : shift + channels]
    for i in range(rows):
        position, place = memory.active[first + i], i * pitch
        y = position // width
        begin = tensor[at.ORIGIN] + y * tensor[at.PITCH] + (position - y * width) * channels
        row, other = memory.scratch[place : place + channels], memory.arena[begin : begin + channels]
        for c in range(len(row)):
            row[c] = row[c] + own[c] + other[c]
