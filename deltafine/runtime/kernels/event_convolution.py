"""Convolution by single events: for each changed value of the input, add its change times the weights that it meets.

Worth it where most positions change but few of their channels. Sums are kept in double precision, so that however long
the video is, what has been added up equals a sum taken from scratch to the last bit or so of single precision.

That holds as long as the values stay within a range: what is added to a sum and taken off again leaves its rounding
behind, and what is not finite cannot be taken off at all. So the largest value that went into the sums is kept, and
they are given up, to be taken from scratch, when a value is far above it or when all values have become far smaller.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import kernel
from deltafine.runtime.kernels.finish import finish_rows, start_output
from deltafine.runtime.kernels.magnitudes import INFINITE, largest_bits
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.row_convolution import piece_size, reach_of

FRAMES_TO_WAIT = 2
"""After a frame that was computed by rows, so many quiet frames pass before sums are taken from scratch."""

RANGE = 2.0**16
"""How much larger or smaller than the largest value so far others may become: double precision has 2**29 to spare."""
NOTABLE = 2.0**-8
"""A change above this share of the largest value so far may have been the end of it."""
LOOK_AGAIN = 64
"""Without one, of so many frames one looks at all values."""

_adding = njit(
    nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath={"contract"}
)  # fmt: skip


@kernel
def should_send_events(table: np.ndarray, operation: np.ndarray, fresh: bool) -> bool:
    """Whether this frame is cheaper by events; sums that are out of date wait for some quiet frames."""
    memory = unpack(table)
    index = memory.links[operation[at.INPUTS]]
    source = memory.tensors[index]
    stale = memory.stale
    if fresh:
        stale[operation[at.OUTPUT]] = FRAMES_TO_WAIT
        return False
    changed = memory.changed[index] * source[at.CHANNELS]
    if changed == 0:
        return False
    elements = 0
    for position in range(source[at.HEIGHT] * source[at.WIDTH]):
        place = source[at.MASK] + position
        elements += memory.counts[place] if memory.masks[place] else 0
    quiet = elements * operation[at.PRICE] < changed * 100
    if not quiet:
        stale[operation[at.OUTPUT]] = FRAMES_TO_WAIT
    elif stale[operation[at.OUTPUT]] > 0:
        stale[operation[at.OUTPUT]] -= 1
        quiet = stale[operation[at.OUTPUT]] == 0
        if quiet:
            stale[operation[at.OUTPUT]] = -1  # sums are to be taken from scratch in this frame
    return quiet


@kernel
def convolve_events(table: np.ndarray, operation: np.ndarray, fresh: bool, counters: np.ndarray) -> bool:
    """A convolution of one group, by events, of a state that is not fresh; False if the sums do not hold its values."""
    memory = unpack(table)
    start_output(table, operation[at.OUTPUT])
    index = memory.links[operation[at.INPUTS]]
    source, target = memory.tensors[index], memory.tensors[operation[at.OUTPUT]]
    height, width, channels = source[at.HEIGHT], source[at.WIDTH], source[at.CHANNELS]
    outputs = target[at.CHANNELS]
    anew = memory.stale[operation[at.OUTPUT]] == -1
    if anew:
        memory.stale[operation[at.OUTPUT]] = 0
        positions = target[at.HEIGHT] * target[at.WIDTH]
        memory.sums[operation[at.SUMS] : operation[at.SUMS] + positions * outputs] = 0
        memory.before[operation[at.BEFORE] : operation[at.BEFORE] + height * width * channels] = 0
        memory.largest[operation[at.OUTPUT]] = _largest(table, index)
    elif memory.changed[index] == 0:
        return True
    limit, most = memory.largest[operation[at.OUTPUT]] * RANGE, 0.0
    for y in range(height):
        for x in range(width):
            position = y * width + x
            if not (anew or memory.masks[source[at.MASK] + position]):
                continue
            begin = source[at.ORIGIN] + y * source[at.PITCH] + x * channels
            before = operation[at.BEFORE] + position * channels
            chosen = np.int64(0)
            for c in range(channels):
                change = np.float64(memory.arena[begin + c]) - np.float64(memory.before[before + c])
                memory.chosen[chosen] = c
                memory.changes[chosen] = change
                chosen += change != 0
                most = max(most, abs(change)) if abs(change) <= limit else np.inf
                memory.before[before + c] = memory.arena[begin + c]
            if chosen:
                counters[at.EVENT_MACS] += _spread(table, operation, y, x, chosen)
        if most == np.inf:
            break
    if not _in_range(table, operation, index, most):
        memory.stale[operation[at.OUTPUT]] = FRAMES_TO_WAIT
        return False
    count = reach_of(table, operation, memory.changed[index] == height * width)
    pitch = outputs
    size = piece_size(count, pitch)
    first = np.int64(0)  # not a literal: numba would compile all below once more for it
    while first < count:
        rows = min(size, count - first)
        for i in range(rows):
            begin = operation[at.SUMS] + memory.active[first + i] * outputs
            for c in range(outputs):
                memory.scratch[i * pitch + c] = np.float32(memory.sums[begin + c])
        finish_rows(table, operation, rows, pitch, first, fresh, counters)
        first += rows
    counters[at.ROWS] -= count  # they were finished, not multiplied
    return True


@kernel
def _in_range(table: np.ndarray, operation: np.ndarray, index: int, most: float) -> bool:
    """Whether sums to which a change of ``most`` was added still hold the values of their input."""
    memory = unpack(table)
    largest = memory.largest[operation[at.OUTPUT]]
    memory.looks[operation[at.OUTPUT]] += 1
    if most == np.inf or largest == np.inf:
        return False
    if most <= largest * NOTABLE and memory.looks[operation[at.OUTPUT]] % LOOK_AGAIN:
        return True
    now = _largest(table, index)
    memory.largest[operation[at.OUTPUT]] = max(largest, now)
    return now * RANGE >= largest and now < np.inf


@kernel
def _largest(table: np.ndarray, index: int) -> float:
    """The largest magnitude in a tensor; infinite if any value is not finite."""
    memory = unpack(table)
    source = memory.tensors[index]
    length = source[at.WIDTH] * source[at.CHANNELS]
    most = np.uint32(0)
    for y in range(source[at.HEIGHT]):
        begin = source[at.ORIGIN] + y * source[at.PITCH]
        most = max(most, largest_bits(memory.arena[begin : begin + length]))
    return np.inf if most >= INFINITE else np.float64(np.uint32(most).view(np.float32))


@kernel
def _spread(table: np.ndarray, operation: np.ndarray, y: int, x: int, chosen: int) -> int:
    """Add the chosen changes at a position to every output that they reach; returns the multiply-accumulates."""
    memory = unpack(table)
    source, target = memory.tensors[memory.links[operation[at.INPUTS]]], memory.tensors[operation[at.OUTPUT]]
    outputs = target[at.CHANNELS]
    taps = 0
    for tap_y in range(operation[at.KERNEL_H]):
        to_y = y + operation[at.TOP] - tap_y * operation[at.DILATION_H]
        if to_y < 0 or to_y % operation[at.STRIDE_H]:
            continue
        to_y //= operation[at.STRIDE_H]
        if to_y >= target[at.HEIGHT]:
            continue
        for tap_x in range(operation[at.KERNEL_W]):
            to_x = x + operation[at.LEFT] - tap_x * operation[at.DILATION_W]
            if to_x < 0 or to_x % operation[at.STRIDE_W]:
                continue
            to_x //= operation[at.STRIDE_W]
            if to_x >= target[at.WIDTH]:
                continue
            begin = operation[at.SUMS] + (to_y * target[at.WIDTH] + to_x) * outputs
            tap = tap_y * operation[at.KERNEL_W] + tap_x
            weight = operation[at.EVENTS] + tap * source[at.CHANNELS] * outputs
            _add(table, memory.sums[begin : begin + outputs], weight, chosen)
            taps += 1
    return taps * chosen * outputs


@_adding
def _add(table: np.ndarray, sums: np.ndarray, weight: int, chosen: int) -> None:
    """Add ``chosen`` weight rows times their changes, four rows at a time."""
    memory = unpack(table)
    outputs = len(sums)
    weights, indices, changes = memory.weights, memory.chosen, memory.changes
    j = 0
    while j + 4 <= chosen:
        a = weights[weight + indices[j] * outputs : weight + (indices[j] + 1) * outputs]
        b = weights[weight + indices[j + 1] * outputs : weight + (indices[j + 1] + 1) * outputs]
        c = weights[weight + indices[j + 2] * outputs : weight + (indices[j + 2] + 1) * outputs]
        d = weights[weight + indices[j + 3] * outputs : weight + (indices[j + 3] + 1) * outputs]
        by_a, by_b, by_c, by_d = changes[j], changes[j + 1], changes[j + 2], changes[j + 3]
        for n in range(outputs):
            sums[n] += by_a * a[n] + by_b * b[n] + by_c * c[n] + by_d * d[n]
        j += 4
    while j < chosen:
        row = weights[weight + indices[j] * outputs : weight + (indices[j] + 1) * outputs]
        by = changes[j]
        for n in range(outputs):
            sums[n] += by * row[n]
        j += 1
