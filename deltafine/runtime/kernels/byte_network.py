"""Running operations on bytes in one call."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import byte_memory as of
from deltafine.runtime.kernels import entry, kernel
from deltafine.runtime.kernels.byte_memory import LINE, SUMS, unpack_bytes
from deltafine.runtime.kernels.byte_moves import byte_concatenate, byte_place, byte_reshape, dequantise, quantise
from deltafine.runtime.kernels.byte_pieces import advance_bytes, work_on_bytes
from deltafine.runtime.kernels.memory import unpack
from deltafine.runtime.kernels.network import borrowed, found_memory
from deltafine.runtime.kernels.sharing import (
    BY_PANELS,
    COUNT,
    FINISHED,
    FRESH,
    HOW,
    MORE,
    PLACE,
    SIZE,
    TABLE,
    add,
    copy_table,
    found_table,
    hand_over,
    look,
    take,
)


@kernel
def _help(table: np.ndarray, more: np.ndarray, operations: np.ndarray, words: np.ndarray) -> None:
    """As in ``network``; ``more`` holds the addresses of the helper's own sums and line."""
    sums, size, seen = more[SUMS, 0], more[SUMS, 1], 0
    memory = unpack(table)
    changed, counters = memory.changed, memory.counters
    while True:
        number = look(words)
        if number < 0:
            more[SUMS, 0], more[SUMS, 1] = sums, size
            return
        place, how, count, rows, fresh = words[PLACE], words[HOW], words[COUNT], words[SIZE], words[FRESH] != 0
        piece = take(words, number)
        if piece < 0:
            continue
        if number != seen:
            seen = number
            found_memory(words, table)
            for first, last in ((0, SUMS), (LINE + 1, of.FIELDS)):
                found_table(words, MORE, more, first, last)
            if how == BY_PANELS:  # into the stream's own sums
                found_table(words, MORE, more, SUMS, SUMS + 1)
            else:
                more[SUMS, 0], more[SUMS, 1] = sums, size
        extra = unpack_bytes(more).operations[place]
        work_on_bytes(table, more, operations[place], extra, place, how, count, rows, piece, fresh)
        hand_over(words, changed, counters, operations[place], place)
        add(words, FINISHED, 1)


@entry
def run_bytes(
    table: np.ndarray, more: np.ndarray, operations: np.ndarray, first: int, last: int, fresh: bool,
    words: np.ndarray, helping: bool,
) -> None:  # fmt: skip
    """Advance operations ``first`` to ``last - 1``, all of them on bytes, by one frame.

    Args:
        table, more: ``addresses`` of the stream's memory, and of its memory of bytes.
        words, helping: as for ``run_network``.
    """
    table, more, operations, words = borrowed(table), borrowed(more), borrowed(operations), borrowed(words)
    if helping:
        _help(table, more, operations, words)
        return
    if len(words):
        copy_table(table, words, TABLE)
        copy_table(more, words, MORE)
    extras, counters = unpack_bytes(more).operations, unpack(table).counters
    for i in range(first, last):
        kind = extras[i, of.KIND]
        if kind == of.B_QUANTISE:
            quantise(table, more, operations[i], extras[i], fresh, counters[i])
        elif kind == of.B_DEQUANTISE:
            dequantise(table, more, operations[i], extras[i], fresh, counters[i])
        elif kind == of.B_PLACE:
            byte_place(table, more, operations[i], fresh, counters[i])
        elif kind == of.B_CONCATENATE:
            byte_concatenate(table, more, operations[i], fresh, counters[i])
        elif kind == of.B_RESHAPE:
            byte_reshape(table, more, operations[i], fresh, counters[i])
        else:
            advance_bytes(table, more, operations[i], extras[i], i, fresh, words)
