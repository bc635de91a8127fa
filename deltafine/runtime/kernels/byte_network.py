"""Running operations on bytes in one call."""

from __future__ import annotations

import numpy as np

from deltafine.runtime.kernels import byte_memory as of
from deltafine.runtime.kernels import entry
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
    if helping:  # as in ``run_network``; the sums and the line are the helper's own, too
        sums, size, seen = more[SUMS, 0], more[SUMS, 1], np.int64(0)
        changed, tally = unpack(table).changed, unpack(table).counters
        number = look(words)
        while number >= 0:
            i, how, count, rows, new = words[PLACE], words[HOW], words[COUNT], words[SIZE], words[FRESH] != 0
            piece = take(words, number, helping)
            if piece >= 0:
                if number != seen:
                    seen = number
                    found_memory(words, table)
                    for begin, end in ((0, SUMS), (LINE + 1, of.FIELDS)):
                        found_table(words, MORE, more, begin, end)
                    if how == BY_PANELS:  # into the stream's own sums
                        found_table(words, MORE, more, SUMS, SUMS + 1)
                    else:
                        more[SUMS, 0], more[SUMS, 1] = sums, size
                extra = unpack_bytes(more).operations[i]
                work_on_bytes(table, more, operations[i], extra, i, how, count, rows, piece, new)
                hand_over(words, changed, tally, operations[i], i)
                add(words, FINISHED, 1)
            number = look(words)
        more[SUMS, 0], more[SUMS, 1] = sums, size
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
