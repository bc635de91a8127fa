"""Running a piece of a compiled plan in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils
from numba.extending import intrinsic

from deltafine.runtime.kernels import columns as at
from deltafine.runtime.kernels import entry, kernel
from deltafine.runtime.kernels.attention import attend
from deltafine.runtime.kernels.by_table import blend, constant, gather
from deltafine.runtime.kernels.event_convolution import convolve_events, should_send_events
from deltafine.runtime.kernels.finish import start_output
from deltafine.runtime.kernels.magnitudes import INFINITE, largest_bits
from deltafine.runtime.kernels.memory import ACTIVE, CHANGED, PIXELS, SCRATCH, TALLY, unpack
from deltafine.runtime.kernels.moves import concatenate, place, reshape
from deltafine.runtime.kernels.pieces import compute, take_in, work
from deltafine.runtime.kernels.row_convolution import reached_rows
from deltafine.runtime.kernels.rows import changed_positions, pool_everything
from deltafine.runtime.kernels.sharing import (
    BY_PANELS,
    COUNT,
    FINISHED,
    FRESH,
    HOW,
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
from deltafine.runtime.kernels.together import convolve_together


@intrinsic
def borrowed(typing_context: Any, array: Any) -> Any:
    """The same array without a count of its references, which would go up and down with every call."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(array)(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), generate


@kernel
def _advance(table: np.ndarray, operation: np.ndarray, i: int, fresh: bool, words: np.ndarray) -> None:
    """Advance one stream by an operation that is not computed by rows."""
    memory = unpack(table)
    kind, counters = operation[at.KIND], memory.counters[i]
    if kind == at.K_INPUT:
        take_in(table, operation, i, fresh, words)
    elif kind == at.K_GLOBAL_AVERAGE or kind == at.K_GLOBAL_MAX:
        pool_everything(table, operation, fresh, counters)
    elif kind == at.K_PLACE:
        place(table, operation, fresh, counters)
    elif kind == at.K_RESHAPE:
        reshape(table, operation, fresh, counters)
    elif kind == at.K_CONCATENATE:
        concatenate(table, operation, fresh, counters)
    elif kind == at.K_GATHER:
        gather(table, operation, fresh, counters)
    elif kind == at.K_BLEND:
        blend(table, operation, fresh, counters)
    elif kind == at.K_CONSTANT:
        constant(table, operation, fresh, counters)
    elif kind == at.K_ATTENTION:
        attend(table, operation, fresh, counters)


@kernel
def found_memory(words: np.ndarray, table: np.ndarray) -> None:
    """Take over the addresses of a stream's memory, but for what a helper has of its own."""
    for first, last in ((0, CHANGED), (CHANGED + 1, SCRATCH), (ACTIVE, TALLY), (TALLY + 1, PIXELS + 1)):
        found_table(words, TABLE, table, first, last)


@kernel
def _is_by_rows(kind: int) -> bool:
    """Whether ``compute`` computes it: convolutions, pooling, and what is done element by element."""
    return at.K_IDENTITY <= kind <= at.K_AVERAGE_POOL or at.K_ADD <= kind <= at.K_PRELU


@kernel
def _reached(table: np.ndarray, operation: np.ndarray, fresh: bool) -> int:
    """Begin the output of an operation by rows, fill ``active`` with what is to be computed; returns how many."""
    if at.K_CONV <= operation[at.KIND] <= at.K_AVERAGE_POOL:
        return reached_rows(table, operation, fresh)
    start_output(table, operation[at.OUTPUT])
    return changed_positions(table, operation, fresh)


@entry
def run_network(
    tables: np.ndarray, operations: np.ndarray, first: int, last: int, fresh: np.ndarray, counts: np.ndarray,
    words: np.ndarray, helping: bool,
) -> None:  # fmt: skip
    """Advance operations ``first`` to ``last - 1`` by one frame, in one stream or in several of the same program.

    Args:
        tables: (streams, arrays, COLUMNS), for each stream the ``addresses`` of its memory. Of several streams, these
            are copies, and all have the scratch of the first.
        fresh: uint8 (streams,), whether it is the first frame.
        counts: int64 (streams,), working space.
        words: int64, of the team that shares the work of one stream; or none.
        helping: instead of all that, help another thread with it, until there was nothing to do for a while.
    """
    tables, operations, fresh, counts = borrowed(tables), borrowed(operations), borrowed(fresh), borrowed(counts)
    words = borrowed(words)
    if helping:  # the table holds the helper's own scratch, changes and counters; all else is the stream's
        table, seen = tables[0], np.int64(0)
        scratch, size = table[SCRATCH, 0], table[SCRATCH, 1]
        changed, tally = unpack(table).changed, unpack(table).counters
        number = look(words)
        while number >= 0:
            i, how, count, rows, new = words[PLACE], words[HOW], words[COUNT], words[SIZE], words[FRESH] != 0
            piece = take(words, number, helping)
            if piece >= 0:
                if number != seen:
                    seen = number
                    found_memory(words, table)
                    if how == BY_PANELS:  # into the stream's own scratch
                        found_table(words, TABLE, table, SCRATCH, SCRATCH + 1)
                    else:
                        table[SCRATCH, 0], table[SCRATCH, 1] = scratch, size
                work(table, operations[i], i, how, count, rows, piece, new)
                hand_over(words, changed, tally, operations[i], i)
                add(words, FINISHED, 1)
            number = look(words)
        table[SCRATCH, 0], table[SCRATCH, 1] = scratch, size
        return
    if len(words):
        copy_table(tables[0], words, TABLE)
    for i in range(first, last):
        operation, total = operations[i], np.int64(0)
        by_rows = _is_by_rows(operation[at.KIND])
        for s in range(len(tables)):
            new = fresh[s] != 0
            if not by_rows:
                _advance(tables[s], operation, i, new, words)
                continue
            if (
                operation[at.EVENTS] >= 0
                and should_send_events(tables[s], operation, new)
                and convolve_events(tables[s], operation, new, unpack(tables[s]).counters[i])
            ):
                counts[s] = 0
            else:
                counts[s] = _reached(tables[s], operation, new)
            total += counts[s]
        if total and operation[at.KIND] == at.K_CONV and len(tables) > 1:
            convolve_together(tables, operation, i, fresh, counts, total)
        elif total:
            for s in range(len(tables)):
                compute(tables[s], operation, i, counts[s], fresh[s] != 0, words)


@entry
def all_finite(values: np.ndarray) -> bool:
    """Whether float32 values are neither NaN nor infinite."""
    return largest_bits(values) < INFINITE


@entry
def count_macs(table: np.ndarray, operations: np.ndarray, counters: np.ndarray) -> None:
    """Effective MACs of the last frame: changed elements of each input, each times the weights that it meets."""
    memory = unpack(table)
    for i in range(len(operations)):
        fan, index = operations[i, at.FAN], memory.links[operations[i, at.INPUTS]]
        if fan < 0 or memory.changed[index] == 0:
            continue
        begin = memory.tensors[index, at.MASK]
        total = 0
        for position in range(memory.tensors[index, at.HEIGHT] * memory.tensors[index, at.WIDTH]):
            if memory.masks[begin + position]:
                total += memory.counts[begin + position] * memory.fans[fan + position]
        counters[i, at.EFFECTIVE] = total
