"""Attention: for each query and head the values, weighted by how well their keys match."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.activate import softmax
from deltafine.runtime.kernels.by_table import marked_positions, some_changed
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.panels import TWO, two_vectors
from deltafine.runtime.kernels.rows import PIECE
from deltafine.runtime.kernels.vectors import LANES

ZERO = np.float32(0)
PANEL = TWO * LANES
"""Keys, or numbers of a value, that one tile computes."""


def scratch_of(rows: int, channels: int, keys: int, size: int, value_size: int) -> int:
    """Numbers that ``attend`` works with: its rows, the keys and values of a head, scores and sums of a piece."""
    whole_keys, whole_values = -(-keys // PANEL) * PANEL, -(-value_size // PANEL) * PANEL
    return rows * channels + 4 * LANES + size * whole_keys + keys * whole_values + PIECE * (whole_keys + whole_values)


@kernel
def attend(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> None:
    """All rows, computed anew if anything changed."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    if not some_changed(table, operation, fresh):
        return
    arena, scratch, offsets, inputs = memory.arena, memory.scratch, memory.offsets, operation[at.INPUTS]
    queries = memory.tensors[memory.links[inputs]]
    keys, values = memory.tensors[memory.links[inputs + 1]], memory.tensors[memory.links[inputs + 2]]
    count = marked_positions(table, operation, True)
    channels, heads = memory.tensors[operation[at.OUTPUT], at.CHANNELS], operation[at.GROUPS]
    key_count = keys[at.HEIGHT] * keys[at.WIDTH]
    size, value_size = queries[at.CHANNELS] // heads, channels // heads
    shared = heads // (keys[at.CHANNELS] // size)
    factor = memory.weights[operation[at.WEIGHTS]]
    pitch, value_pitch = (key_count + PANEL - 1) // PANEL * PANEL, (value_size + PANEL - 1) // PANEL * PANEL
    of_keys = count * channels + 4 * LANES
    of_values = of_keys + size * pitch
    of_scores = of_values + key_count * value_pitch
    of_sums = of_scores + PIECE * pitch
    for i in range(count):
        offsets[i] = _row_of(queries, i)
    for i in range(PIECE):
        offsets[count + i] = i * pitch
    one_run = count  # where a 0 stands: a row is one run of numbers
    for head in range(heads):
        _pack_keys(scratch, of_keys, arena, keys, head // shared * size, size, factor)
        _pack_values(scratch, of_values, arena, values, head // shared * value_size, value_size)
        first = np.int64(0)  # not a literal: numba would compile all below once more for it
        while first < count:
            rows = min(PIECE, count - first)
            for begin in range(0, pitch, PANEL):
                two_vectors(
                    arena, head * size, offsets, first, rows, offsets, one_run, 1, size, scratch,
                    of_keys + begin * size, scratch, of_scores + begin, pitch,
                )  # fmt: skip
            for i in range(rows):
                begin = of_scores + i * pitch
                softmax(scratch[begin : begin + key_count])
            for begin in range(0, value_pitch, PANEL):
                two_vectors(
                    scratch, of_scores, offsets, count, rows, offsets, one_run, 1, key_count, scratch,
                    of_values + begin * key_count, scratch, of_sums + begin, value_pitch,
                )  # fmt: skip
            for i in range(rows):
                place, begin = (first + i) * channels + head * value_size, of_sums + i * value_pitch
                for d in range(value_size):
                    scratch[place + d] = scratch[begin + d]
            first += rows
    finish_rows(table, operation, count, channels, np.int64(0), fresh, counters)
    counters[at.EFFECTIVE] += operation[at.ROW_LENGTH]


@kernel
def _row_of(tensor: np.ndarray, position: int) -> int:
    y = position // tensor[at.WIDTH]
    return tensor[at.ORIGIN] + y * tensor[at.PITCH] + (position - y * tensor[at.WIDTH]) * tensor[at.CHANNELS]


@kernel
def _pack_keys(
    scratch: np.ndarray, place: int, arena: np.ndarray, keys: np.ndarray, channel: int, size: int, factor: np.float32
) -> None:
    """The keys of a head as weights: of each panel of keys, number after number; times the factor of the scores."""
    count = keys[at.HEIGHT] * keys[at.WIDTH]
    for j in range((count + PANEL - 1) // PANEL * PANEL):
        lane = j % PANEL
        begin, target = _row_of(keys, j) + channel, place + (j - lane) * size + lane
        for d in range(size):
            scratch[target + d * PANEL] = arena[begin + d] * factor if j < count else ZERO


@kernel
def _pack_values(
    scratch: np.ndarray, place: int, arena: np.ndarray, values: np.ndarray, channel: int, size: int
) -> None:
    """The values of a head as weights: of each panel of their numbers, value after value."""
    count = values[at.HEIGHT] * values[at.WIDTH]
    for begin in range(0, size, PANEL):
        for j in range(count):
            source, target = _row_of(values, j) + channel + begin, place + begin * count + j * PANEL
            for d in range(PANEL):
                scratch[target + d] = arena[source + d] if begin + d < size else ZERO
