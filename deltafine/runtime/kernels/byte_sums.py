"""Sums of operations on bytes, and the end of them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from deltafine.runtime.kernels import byte_memory as of
from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.byte_finish import MULTIPLES, send_bytes
from deltafine.runtime.kernels.byte_memory import unpack_bytes
from deltafine.runtime.kernels.byte_rows import numbers_of_sums
from deltafine.runtime.kernels.byte_tiles import (
    ROWS,
    byte_channel_tile,
    byte_row_tile,
    lane_tile,
    times_tile,
    window_tile,
)
from deltafine.runtime.kernels.byte_vectors import BYTES, WIDTHS
from deltafine.runtime.kernels.finish import finish_rows
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.row_convolution import NINE
from deltafine.runtime.kernels.rules import ELEMENT, LOW_BITS, NONE, PIXEL


def _sender(rule: str, by_table: bool = False) -> Any:
    """Finish rows of sums, which belong to the positions ``active[first:]``, by a rule; see ``send_bytes``."""
    send = send_bytes(rule, by_table)

    @kernel
    def of_rows(
        table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, rows: int, first: int,
        fresh: bool,
    ) -> int:  # fmt: skip
        memory, memory_of_bytes = unpack(table), unpack_bytes(more)
        active, targets, masks, counts = memory.active, memory.targets, memory.masks, memory.counts
        sums, whole, factors = memory_of_bytes.sums, memory_of_bytes.whole, memory_of_bytes.factors
        near, far, line = memory_of_bytes.near, memory_of_bytes.far, memory_of_bytes.line
        levels, tables = memory_of_bytes.levels, memory_of_bytes.tables
        mask = memory.tensors[operation[at.OUTPUT], at.MASK]
        return send(
            sums, extra[of.PITCH], rows, extra[of.BLOCKS], extra[of.TAIL], extra[of.REST], whole, extra[of.BIAS],
            extra[of.MULTIPLE], factors, extra[of.FACTOR], extra[of.ZERO], extra[of.LOW], extra[of.HIGH], near, far,
            extra[of.THRESHOLD], extra[of.THRESHOLD_PITCH], extra[of.LEAST], extra[of.CAP], levels, targets, active,
            first, fresh, masks, mask, counts, line, tables, extra[of.TABLE],
        )  # fmt: skip

    return of_rows


_keep, _multiples, _by_element, _by_position = map(_sender, (NONE, MULTIPLES, ELEMENT, PIXEL))
_keep_of_table, _of_table_by_element, _of_table_by_position = (_sender(rule, True) for rule in (NONE, ELEMENT, PIXEL))


@functools.cache  # widths that are the same are compiled once
def _rows_function(width: int) -> Any:
    """``rows`` rows by ``width`` output channels, in tiles as large as they can be."""
    whole, half, single = (byte_row_tile(rows, width) for rows in (ROWS, max(ROWS // 2, 1), 1))
    middle = max(ROWS // 2, 1)

    @kernel
    def compute(
        table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, base: int, first: int,
        rows: int, weight: int, place: int,
    ) -> None:  # fmt: skip
        memory, memory_of_bytes = unpack(table), unpack_bytes(more)
        offsets, links, levels = memory.offsets, memory.links, memory_of_bytes.levels
        weights, sums = memory_of_bytes.weights, memory_of_bytes.sums
        runs, run_count, quads, pitch = extra[of.RUNS], extra[of.RUN_COUNT], extra[of.QUADS], extra[of.PITCH]
        i = 0
        while rows - i >= ROWS:
            whole(
                levels, base, offsets, first + i, links, runs, run_count, quads, weights, weight, sums,
                place + i * pitch, pitch,
            )  # fmt: skip
            i += ROWS
        while rows - i >= middle:
            half(
                levels, base, offsets, first + i, links, runs, run_count, quads, weights, weight, sums,
                place + i * pitch, pitch,
            )  # fmt: skip
            i += middle
        while rows > i:
            single(
                levels, base, offsets, first + i, links, runs, run_count, quads, weights, weight, sums,
                place + i * pitch, pitch,
            )  # fmt: skip
            i += 1

    return compute


@functools.cache
def _channels_function(width: int) -> Any:
    """``rows`` positions by ``width`` channels of any operation that keeps channels apart."""
    nine, any_taps = byte_channel_tile(NINE, width), byte_channel_tile(0, width)
    total, largest = window_tile(False, width), window_tile(True, width)
    of_four, of_eight, of_sixteen = (lane_tile(quads, width) for quads in (1, 2, 4))

    @kernel
    def compute(
        table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, base: int, first: int,
        rows: int, weight: int, place: int,
    ) -> None:  # fmt: skip
        memory, memory_of_bytes = unpack(table), unpack_bytes(more)
        offsets, links, levels = memory.offsets, memory.links, memory_of_bytes.levels
        weights, sums = memory_of_bytes.weights, memory_of_bytes.sums
        kind, taps, pitch = extra[of.KIND], extra[of.RUNS], extra[of.PITCH]
        if kind == of.B_NINE:
            nine(
                levels, base, offsets, first, rows, links, taps, extra[of.QUADS], weights, weight, sums, place, pitch
            )  # fmt: skip
        elif kind == of.B_DEPTHWISE:
            any_taps(
                levels, base, offsets, first, rows, links, taps, extra[of.QUADS], weights, weight, sums, place, pitch
            )  # fmt: skip
        elif kind == of.B_LANES:
            count, quads = extra[of.RUN_COUNT], extra[of.QUADS]
            if quads == 1:
                of_four(levels, base, offsets, first, rows, links, taps, count, weights, weight, sums, place, pitch)
            elif quads == 2:
                of_eight(levels, base, offsets, first, rows, links, taps, count, weights, weight, sums, place, pitch)
            else:
                of_sixteen(levels, base, offsets, first, rows, links, taps, count, weights, weight, sums, place, pitch)
        elif kind == of.B_WINDOW_SUM:
            total(levels, base, offsets, first, rows, links, taps, extra[of.RUN_COUNT], sums, place, pitch)
        else:
            largest(levels, base, offsets, first, rows, links, taps, extra[of.RUN_COUNT], sums, place, pitch)

    return compute


@functools.cache
def _times_function(width: int) -> Any:
    """``rows`` positions by ``width`` channels of one input, times a number, or less one and multiplied."""
    times, multiplied = times_tile(width, False), times_tile(width, True)

    @kernel
    def compute(
        table: np.ndarray, more: np.ndarray, extra: np.ndarray, base: int, first: int, rows: int, factor: int,
        begin: bool, place: int,
    ) -> None:  # fmt: skip
        memory, memory_of_bytes = unpack(table), unpack_bytes(more)
        levels, offsets, sums, pitch = memory_of_bytes.levels, memory.offsets, memory_of_bytes.sums, extra[of.PITCH]
        if extra[of.KIND] == of.B_PRODUCT:
            multiplied(levels, base, offsets, first, rows, factor, begin, sums, place, pitch)
        else:
            times(levels, base, offsets, first, rows, factor, begin, sums, place, pitch)

    return compute


_SMALL, _MIDDLE, _WIDE = WIDTHS[0], WIDTHS[1], WIDTHS[-1]
_rows_small, _rows_middle, _rows_wide = map(_rows_function, (_SMALL, _MIDDLE, _WIDE))
_channels_small, _channels_middle, _channels_wide = map(_channels_function, (_SMALL, _MIDDLE, _WIDE))
_times_small, _times_middle, _times_wide = map(_times_function, (_SMALL, _MIDDLE, _WIDE))


@kernel
def finish_sums_of_bytes(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, rows: int, first: int, fresh: bool,
    counters: np.ndarray,
) -> None:  # fmt: skip
    """Finish rows of sums, which belong to the positions ``active[first:]``."""
    memory, memory_of_bytes = unpack(table), unpack_bytes(more)
    rule, by_table = extra[of.RULE], extra[of.TABLE] >= 0
    if rule == of.R_IN_FLOATS:
        numbers_of_sums(
            memory_of_bytes.sums, extra[of.PITCH], rows, extra[of.BLOCKS], extra[of.TAIL], extra[of.REST],
            memory_of_bytes.whole, extra[of.BIAS], memory_of_bytes.factors, extra[of.FACTOR], memory.scratch,
        )  # fmt: skip
        finish_rows(table, operation, rows, extra[of.PITCH], first, fresh, counters)
        return
    if by_table and (rule == of.R_NONE or fresh):
        sent = _keep_of_table(table, more, operation, extra, rows, first, fresh)
    elif by_table and rule == of.R_ELEMENT:
        sent = _of_table_by_element(table, more, operation, extra, rows, first, fresh)
    elif by_table:
        sent = _of_table_by_position(table, more, operation, extra, rows, first, fresh)
    elif rule == of.R_MULTIPLES:
        sent = _multiples(table, more, operation, extra, rows, first, fresh)
    elif rule == of.R_NONE or fresh:
        sent = _keep(table, more, operation, extra, rows, first, fresh)
    elif rule == of.R_ELEMENT:
        sent = _by_element(table, more, operation, extra, rows, first, fresh)
    else:
        sent = _by_position(table, more, operation, extra, rows, first, fresh)
    memory.changed[operation[at.OUTPUT]] += sent & LOW_BITS
    counters[at.ROWS] += rows
    counters[at.CHANGED_ROWS] += sent & LOW_BITS
    counters[at.CHANGED_ELEMENTS] += sent >> 32


@kernel
def panels_of_bytes(extra: np.ndarray) -> int:
    """Panels of the weights of a convolution: whole vectors of output channels, and one for the rest."""
    return extra[of.BLOCKS] + (extra[of.TAIL] > 0)


@kernel
def add_up(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, rows: int, first: int,
    first_panel: int, last_panel: int,
) -> None:  # fmt: skip
    """Sums of the outputs ``active[first:]``; of convolutions, some panels of the weights."""
    memory = unpack(table)
    base = memory.tensors[memory.links[operation[at.INPUTS]], at.ORIGIN]
    weight, tail = extra[of.WEIGHTS], extra[of.TAIL]
    count = extra[of.RUN_COUNT] * extra[of.QUADS]
    if extra[of.KIND] == of.B_CONV:
        starts, place = extra[of.STARTS], extra[of.BLOCKS] * BYTES
        weight += first_panel * count * 4 * BYTES
        for block in range(first_panel, min(last_panel, extra[of.BLOCKS])):
            begin = base + memory.links[starts + block]
            _rows_wide(table, more, operation, extra, begin, first, rows, weight, block * BYTES)
            weight += count * 4 * BYTES
        if last_panel <= extra[of.BLOCKS]:
            return
        base += memory.links[starts + extra[of.BLOCKS]]
        if tail == _SMALL:
            _rows_small(table, more, operation, extra, base, first, rows, weight, place)
        elif tail == _MIDDLE:
            _rows_middle(table, more, operation, extra, base, first, rows, weight, place)
        elif tail == _WIDE:
            _rows_wide(table, more, operation, extra, base, first, rows, weight, place)
        return
    for block in range(extra[of.BLOCKS]):
        _channels_wide(table, more, operation, extra, base + block * BYTES, first, rows, weight, block * BYTES)
        weight += count * 4 * BYTES
    place = extra[of.BLOCKS] * BYTES
    if tail == _SMALL:
        _channels_small(table, more, operation, extra, base + place, first, rows, weight, place)
    elif tail == _MIDDLE:
        _channels_middle(table, more, operation, extra, base + place, first, rows, weight, place)
    elif tail == _WIDE:
        _channels_wide(table, more, operation, extra, base + place, first, rows, weight, place)


@kernel
def add_inputs(
    table: np.ndarray, more: np.ndarray, operation: np.ndarray, extra: np.ndarray, rows: int, first: int
) -> None:  # fmt: skip
    """Sums of inputs, each times a number, or their product, at the positions ``active[first:]``."""
    memory = unpack(table)
    tail, place = extra[of.TAIL], extra[of.BLOCKS] * BYTES
    for k in range(operation[at.INPUT_COUNT]):
        tensor = memory.tensors[memory.links[operation[at.INPUTS] + k]]
        width, channels, base = tensor[at.WIDTH], tensor[at.CHANNELS], tensor[at.ORIGIN]
        alone = width * tensor[at.HEIGHT] == 1  # one position stands for all
        for i in range(first, first + rows):
            y = memory.active[i] // width
            offset = y * tensor[at.PITCH] + (memory.active[i] - y * width) * channels
            memory.offsets[i] = 0 if alone else offset
        factor = memory.links[extra[of.TIMES] + k]
        begin = k == 0
        for block in range(extra[of.BLOCKS]):
            at_block = block * BYTES
            _times_wide(table, more, extra, base + at_block, first, rows, factor, begin, at_block)
        if tail == _SMALL:
            _times_small(table, more, extra, base + place, first, rows, factor, begin, place)
        elif tail == _MIDDLE:
            _times_middle(table, more, extra, base + place, first, rows, factor, begin, place)
        elif tail == _WIDE:
            _times_wide(table, more, extra, base + place, first, rows, factor, begin, place)
